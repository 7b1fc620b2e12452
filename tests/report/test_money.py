from __future__ import annotations

import math
import re
from dataclasses import replace
from html import unescape

import pytest

from makegood.contracts import Estimate, PayoffRange
from makegood.report import money
from makegood.report.page import ReportInput

NAN, INF = math.nan, math.inf


def text(markup: str) -> str:
    return unescape(re.sub("<[^>]*>", " ", re.sub("<span[^>]*>|</span>|<data[^>]*>|</data>", "", markup))).replace("\u00a0", " ")


def test_value_stands_beside_every_baseline_and_the_ceiling(credit: ReportInput) -> None:
    shown = text(money.worth(credit.evaluation).body)
    for row in ("41.37 [36.45, 46.29]", "25.61 [19.21, 32.01]", "0.00 [0.00, 0.00]", "101.20 [97.90, 104.50]", "15.76 [11.56, 19.96]"):
        assert row in shown
    assert "The model earns 41.37 BRL per decision, and what is done today, the hardest alternative to beat, 25.61 BRL." in shown
    assert "All 3 alternatives" not in shown


def test_what_computing_costs_is_said_with_what_it_is_made_of(credit: ReportInput, hard: ReportInput) -> None:
    shown = text(money.worth(hard.evaluation).body)
    assert (
        "What the model earns is net of 0.313 BRL per decision for computing: 3,125 BRL for training, spread over 10,000 decisions, "
        "and <0.000001 BRL for each decision. The alternatives compute nothing. Computing is measured once, so its cost has no interval."
    ) in shown
    for free in (credit.evaluation, replace(credit.evaluation, compute=None)):
        assert "for computing" not in text(money.worth(free).body)


def test_promises_are_compared_before_computing(credit: ReportInput, hard: ReportInput) -> None:
    shown = text(money.promises(hard.evaluation).body)
    assert "and earned 41.68 BRL [36.76, 46.60], both before computing. The gap" in shown  # 41.37 and 0.31
    assert "and earned 41.37 BRL [36.45, 46.29]. The gap" in text(money.promises(credit.evaluation).body)


def test_the_curve_says_that_every_decision_is_computed(credit: ReportInput, hard: ReportInput) -> None:
    said = "the model computes every decision, which is paid for however few it takes"
    for report, costs in ((hard, True), (credit, False)):
        section = money.curves(report.evaluation)
        assert section is not None
        assert (said in section.body) is costs


def test_without_a_ceiling_none_is_shown(credit: ReportInput) -> None:
    body = money.worth(replace(credit.evaluation, oracle=Estimate(NAN, NAN, NAN, "BRL"))).body
    assert "every outcome" not in body
    assert "nan" not in body


def test_thirty_baselines_keep_the_chart_short_and_the_table_whole(hard: ReportInput) -> None:
    body = money.worth(hard.evaluation).body
    assert body.count("<foreignObject") == (1 + 12 + 1) + 12  # the model, 12 baselines, the ceiling; 12 gains
    assert "All 30 alternatives (18 are not in the charts)" in body
    whole = body[body.index("All 30 alternatives") :]
    assert all(f">{name}<" in whole for name in hard.evaluation.baselines)
    assert "what is done today" in body


def test_a_gain_is_good_bad_or_unsure_by_its_whole_interval(credit: ReportInput) -> None:
    gains = {"today": Estimate(1.0, 0.5, 1.5), "always approve": Estimate(1.0, -0.5, 1.5), "always decline": Estimate(-1.0, -1.5, -0.5)}
    body = money.worth(replace(credit.evaluation, gains=gains)).body
    assert {tone: body.count(f'class="dot {tone}"') for tone in ("good", "unsure", "bad")} == {"good": 1, "unsure": 1, "bad": 1}


def test_the_weakest_payoff_is_named_in_money(credit: ReportInput) -> None:
    section = money.payoffs(credit.evaluation, "defaulted")
    assert section is not None
    shown = text(section.body)
    assert "The verdict hangs most on  approve, if defaulted is no ." in shown
    assert "Declared at 148.20 BRL on average, it may shrink to 120.04 BRL (×0.81) before the verdict turns." in shown


def test_a_loss_may_grow(credit: ReportInput) -> None:
    loss = PayoffRange("approve", "", "-1", -400.0, -INF, 1.5, 1.8, 0.9, 1.1)
    section = money.payoffs(replace(credit.evaluation, payoff_ranges=(loss,)), "defaulted")
    assert section is not None
    assert "it may grow to −600.00 BRL (×1.50) before the verdict turns" in text(section.body)


def test_a_payoff_that_never_turns_the_verdict(school: ReportInput) -> None:
    section = money.payoffs(school.evaluation, "G3")
    assert section is not None
    shown = text(section.body)
    assert "No payoff, scaled alone by any factor, turns the verdict." in shown
    assert "always" in shown
    assert shown.count("no limit") == 2
    assert "never" in shown


def test_a_payoff_of_nothing_has_no_factor(credit: ReportInput) -> None:
    nothing = credit.evaluation.payoff_ranges[-1]
    section = money.payoffs(replace(credit.evaluation, payoff_ranges=(nothing,)), "defaulted")
    assert section is not None
    assert section.body.count("no effect") == 5
    assert "<figure" not in section.body


def test_each_end_of_a_range_is_money_and_a_factor(credit: ReportInput) -> None:
    section = money.payoffs(credit.evaluation, "defaulted")
    assert section is not None
    for r in credit.evaluation.payoff_ranges[:2]:
        for f in (r.verdict_low, r.verdict_high, r.break_even, r.actions_low, r.actions_high):
            if math.isfinite(f):
                assert f'value="{r.mean * f!r}"' in section.body


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.5, 2.0, "×0.50 to ×2.00"), (-1.0, 2.0, "up to ×2.00"), (0.5, INF, "from ×0.50"), (0.0, INF, "always"), (NAN, 2.0, "–")],
)
def test_ranges_in_words(credit: ReportInput, low: float, high: float, words: str) -> None:
    payoff = PayoffRange("approve", "", "amount", 10.0, low, high, NAN, low, high)
    section = money.payoffs(replace(credit.evaluation, payoff_ranges=(payoff,)), "defaulted")
    assert section is not None
    assert f"the verdict stands {words}" in section.body


def test_no_payoffs_and_no_curves_make_no_sections(credit: ReportInput) -> None:
    bare = replace(credit.evaluation, payoff_ranges=(), curve=(), decision_curve=())
    assert money.payoffs(bare, "x") is None
    assert money.curves(bare) is None


def test_the_curves_say_where_they_are_highest(credit: ReportInput) -> None:
    section = money.curves(credit.evaluation)
    assert section is not None
    share, best = max(credit.evaluation.curve, key=lambda p: p[1])
    assert f"The value is highest, {best:.2f} BRL, where it takes {100 * share:.3g}% of them." in text(section.body)
    ahead = [t for t, model, everyone in credit.evaluation.decision_curve if model > max(everyone, 0)]
    assert f"highest net benefit at thresholds from {100 * min(ahead):.1f}% to {100 * max(ahead):.1f}%." in section.body


def test_a_useless_model_is_ahead_nowhere(credit: ReportInput) -> None:
    section = money.curves(replace(credit.evaluation, decision_curve=((0.1, -0.1, 0.2), (0.2, -0.2, 0.1))))
    assert section is not None
    assert "The model has the highest net benefit nowhere." in section.body


@pytest.mark.parametrize(
    ("gap", "verdict"),
    [
        ((0.69, -4.1, 5.5), "which chance can explain: the promises hold"),
        ((3.0, 1.0, 5.0), "more than chance explains: the promises are too high"),
        ((-3.0, -5.0, -1.0), "more than chance explains: the promises are too low"),
        ((3.0, NAN, NAN), "whether that is chance cannot be told"),
    ],
)
def test_promises(credit: ReportInput, gap: tuple[float, float, float], verdict: str) -> None:
    assert verdict in money.promises(replace(credit.evaluation, gap=Estimate(*gap, "BRL"))).body


def test_calibration_speaks_of_shares_or_of_quantiles(credit: ReportInput, school: ReportInput) -> None:
    assert "predicted probability" in money.promises(credit.evaluation).body
    assert "level of the quantile" in money.promises(school.evaluation).body


def test_promises_without_points_have_no_chart(credit: ReportInput) -> None:
    assert "<figure" not in money.promises(replace(credit.evaluation, calibration=((NAN, NAN, 3),), promise_curve=())).body
