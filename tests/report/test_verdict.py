from __future__ import annotations

import math
import re
from dataclasses import replace
from html import unescape

import pytest

from makegood.contracts import Estimate, Finding
from makegood.report import verdict
from makegood.report.page import ReportInput

NAN = math.nan


def text(markup: str) -> str:
    return unescape(re.sub("<[^>]*>", "", markup)).replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("decision", "gain", "sentence"),
    [
        ("deploy", (15.76, 11.56, 19.96), "The model earns 15.76 EUR more per decision than what is done today."),
        ("refuse", (-4.24, -8.0, -0.4), "The model earns 4.24 EUR less per decision than what is done today."),
        ("refuse", (1.2, -0.8, 3.2), "A gain over what is done today is not shown: it is 1.20 EUR per decision, but it could be nothing, or a loss."),
        ("refuse", (0.0, 0.0, 0.0), "The model earns no more than what is done today."),
        ("refuse", (1.2, NAN, NAN), "What the model earns beyond what is done today cannot be told from chance: there are too few independent groups."),
    ],
)  # fmt: skip
def test_the_headline_says_the_verdict_and_its_money(
    credit: ReportInput, decision: str, gain: tuple[float, float, float], sentence: str
) -> None:
    assert text(verdict.headline(replace(credit.evaluation, verdict=decision, gain=Estimate(*gain, "EUR")))) == sentence


def test_the_key_figures_are_the_evaluations(credit: ReportInput) -> None:
    shown = text(verdict.banner(credit.evaluation))
    assert "Gain per decision15.76 BRL[11.56, 19.96]over what is done today" in shown
    assert "Gain per 1,000 decisions15,760 BRL[11,560, 19,960]" in shown
    assert "Value per decision41.37 BRL[36.45, 46.29]what is done today: 25.61 BRL" in shown
    assert "Of what could be gained20.8%knowing every outcome would gain 75.59 BRL" in shown


def test_no_share_of_the_ceiling_without_a_certain_gain(hard: ReportInput, school: ReportInput) -> None:
    assert all("could be gained" not in verdict.banner(page.evaluation) for page in (hard, school))


def test_intervals_are_explained_once_at_their_levels(credit: ReportInput) -> None:
    e = replace(credit.evaluation, gain=replace(credit.evaluation.gain, level=0.975), level=0.975, opened=2)
    shown = text(verdict.banner(e))
    assert shown.count("intervals made this way hold the true mean 95 times in 100.") == 1
    assert "The gain over what is done today, which decides, is given at 97.5%." in shown
    assert "These test rows have been opened 2 times" in shown
    plain = text(verdict.banner(credit.evaluation))
    assert "opened" not in plain
    assert "which decides" not in plain


def test_rows_are_counted_where_they_are_known(credit: ReportInput) -> None:
    assert "Measured on 10,000 rows that the model had not seen, after training on 24,000." in text(verdict.banner(credit.evaluation))
    assert "Measured on rows that the model had not seen." in text(verdict.banner(replace(credit.evaluation, n={})))


def test_a_marked_gain_says_its_level(hard: ReportInput) -> None:
    marked = replace(hard.evaluation.gain, level=0.99)
    shown = text(verdict.banner(replace(hard.evaluation, gain=marked, gains={"today": marked})))
    assert "A gain with this mark is given at 99%." in shown


def test_tails_are_explained_only_where_they_are(credit: ReportInput, school: ReportInput) -> None:
    assert 'id="tail-limited"' in verdict.banner(credit.evaluation)  # one group has the mark
    assert "A gain with this mark" not in verdict.banner(credit.evaluation)
    assert 'id="tail-limited"' not in verdict.banner(school.evaluation)


def test_a_leak_comes_before_a_warning_and_says_how_to_restore(credit: ReportInput) -> None:
    shown = text(verdict.alerts(credit.evaluation, credit.findings[::-1], ("The drift is injected.",)) or "")
    assert (
        shown.index("Not real data. The drift is injected.") < shown.index("Suspected leak: collections_opened.") < shown.index("Warning:")
    )
    assert "AUC of 0.993. Excluded. If it is known when the decision is taken, name it under data.keep." in shown
    assert "37 rows repeat" not in shown


def test_a_leak_that_was_kept_is_named_without_advice(credit: ReportInput) -> None:
    kept = Finding("leak", "x", 3, "It tells the outcome.", "kept: data.keep names it", "leak")
    shown = text(verdict.alerts(credit.evaluation, [kept], ()) or "")
    assert "Suspected leak: x. It tells the outcome. Kept: data.keep names it." in shown
    assert "If it is known" not in shown


def test_a_model_that_pays_for_computing_says_so_beside_its_figures(credit: ReportInput, hard: ReportInput) -> None:
    said = "What the model earns is net of computing."
    assert said in text(verdict.banner(hard.evaluation))
    assert said not in text(verdict.banner(credit.evaluation))


def test_nothing_to_say_is_not_said(credit: ReportInput) -> None:
    assert verdict.alerts(credit.evaluation, (), ()) is None


@pytest.mark.parametrize(
    ("gap", "warning"),
    [((2.0, 1.0, 3.0), "promises more than it earns, by 2.00 BRL"), ((-2.0, -3.0, -1.0), "promises less than it earns, by 2.00 BRL")],
)
def test_broken_promises_are_a_warning(credit: ReportInput, gap: tuple[float, float, float], warning: str) -> None:
    assert warning in text(verdict.alerts(replace(credit.evaluation, gap=Estimate(*gap, "BRL")), (), ()) or "")


def test_no_interval_is_a_warning(school: ReportInput) -> None:
    assert "No interval can be given: there are fewer than 6 independent groups." in text(verdict.alerts(school.evaluation, (), ()) or "")
