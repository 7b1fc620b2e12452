from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

import pytest

from makegood.contracts import Estimate, Guarantee
from makegood.report.guarantee import guarantee
from makegood.report.page import ReportInput, render


def said(report: ReportInput, found: Guarantee) -> str:
    section = guarantee(replace(report.evaluation, guarantee=found))
    assert section is not None
    bare = re.sub("<[^>]*>", " ", re.sub("<span[^>]*>|</span>|<data[^>]*>|</data>", "", section.body))
    return " ".join(unescape(bare).replace("\u00a0", " ").split())


def test_without_prediction_sets_there_is_no_section(credit: ReportInput) -> None:
    assert guarantee(credit.evaluation) is None
    assert "What is guaranteed" not in render(credit)


def test_an_averse_policy_says_what_it_guarantees_and_what_it_leaves_out(credit: ReportInput) -> None:
    found = Guarantee(0.95, True, Estimate(31.4, 28.0, 34.9, "BRL"), Estimate(0.012, 0.008, 0.018))
    shown = said(credit, found)
    assert "a set that holds the outcome with a probability of at least 95%" in shown
    assert "takes the action whose guaranteed payoff is highest" in shown
    assert "An outcome outside the set counts for nothing, however dear it is" in shown
    assert "On average 31.40 BRL [28.00, 34.90] per decision were guaranteed" in shown
    assert "1.2% [0.8%, 1.8%] of the decisions paid less than they guaranteed; at most 5% may. They were kept." in shown
    assert "What is guaranteed" in render(replace(credit, evaluation=replace(credit.evaluation, guarantee=found)))


def test_a_policy_that_is_not_averse_says_so(credit: ReportInput) -> None:
    shown = said(credit, Guarantee(0.9, False, Estimate(31.4, 28.0, 34.9, "BRL"), Estimate(0.012, 0.008, 0.018)))
    assert "takes the action that is expected to pay most" in shown
    assert "counts for nothing" not in shown
    assert "at most 10% may" in shown


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (0.05, 0.03, 0.08, "They were kept."),
        (0.06, 0.04, 0.09, "That is more, but chance may explain it."),
        (0.09, 0.07, 0.12, "That is more than chance explains."),
        (0.09, float("nan"), float("nan"), "That is more, but chance may explain it."),
    ],
)
def test_whether_guarantees_were_kept(credit: ReportInput, value: float, low: float, high: float, verdict: str) -> None:
    assert verdict in said(credit, Guarantee(0.95, True, Estimate(31.4, 28.0, 34.9, "BRL"), Estimate(value, low, high)))
