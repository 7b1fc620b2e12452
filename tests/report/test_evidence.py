from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

from makegood.contracts import Estimate, Finding
from makegood.report import evidence
from makegood.report.page import ReportInput


def text(markup: str) -> str:
    return unescape(re.sub("<[^>]*>", " ", re.sub("<span[^>]*>|</span>|<data[^>]*>|</data>", "", markup))).replace("\u00a0", " ")


def test_actions_with_their_limits_and_outcomes(credit: ReportInput) -> None:
    shown = text(evidence.actions(credit.evaluation, credit.case["decision"], "defaulted").body)
    assert "approve : at most 80% of the decisions" in shown
    assert "The outcome is not seen after “decline”" in shown
    assert "defaulted: no" in shown
    assert "5,48980.4%" in shown  # the count, and its share of the action's 6,830 rows
    assert "10,000" in shown


def test_every_kind_of_limit_is_said(credit: ReportInput) -> None:
    limits = {"approve": {"max_count": 20, "per": 1000}, "decline": {"max_budget": 5000, "cost": "amount", "per": 100}}
    shown = text(evidence.actions(credit.evaluation, {"limits": limits}, "y").body)
    assert "approve : at most 20 per 1,000 decisions" in shown
    assert "decline : a budget of 5,000.00 per 100 decisions, each costing amount" in shown


def test_an_action_never_taken_divides_nothing_by_zero(credit: ReportInput) -> None:
    e = replace(credit.evaluation, confusion={"approve": {"no": 3}, "decline": {"no": 0}})
    assert "decline" in evidence.actions(e, {}, "y").body


def test_many_actions_are_cut_in_the_chart_and_said_to_be(credit: ReportInput) -> None:
    e = replace(credit.evaluation, shares={f"stock={i}": i / 1000 for i in range(40)}, confusion={})
    body = evidence.actions(e, {}, "y").body
    assert "the 20 most frequent of 40" in body
    assert body.count("<foreignObject") == 20


def test_drivers_are_in_money_and_strongest_first(credit: ReportInput) -> None:
    section = evidence.drivers(replace(credit.evaluation, drivers=(("a", 1.0), ("b", 2.0))))
    assert section is not None
    shown = text(section.body)
    assert shown.index("b 2.00") < shown.index("a 1.00")
    assert evidence.drivers(replace(credit.evaluation, drivers=())) is None


def test_groups_show_value_promise_and_treatment(credit: ReportInput) -> None:
    section = evidence.groups(credit.evaluation, credit.fairness, ["sex", "age"])
    assert section is not None
    shown = text(section.body)
    assert "never given as a reason: “sex” and “age”" in shown
    assert "age: ≤ 25protected" in shown
    assert "24.10 [12.10, 36.10] †" in shown
    assert "39.1% [36.9%, 41.3%]" in shown
    assert "sex: Freference" in shown
    assert evidence.groups(replace(credit.evaluation, slices=()), (), ()) is None


def test_groups_of_a_number_outcome_have_no_error_rates(credit: ReportInput) -> None:
    rows = [replace(g, tpr=None, fpr=None) for g in credit.fairness]
    section = evidence.groups(replace(credit.evaluation, slices=()), rows, ())
    assert section is not None
    assert "of positives" not in section.body
    assert "of positives" in (evidence.groups(credit.evaluation, credit.fairness, ()) or section).body


def test_many_groups_are_cut_in_the_chart_only(credit: ReportInput) -> None:
    one = credit.evaluation.slices[0]
    section = evidence.groups(replace(credit.evaluation, slices=tuple(replace(one, level=f"level {i}", n=i) for i in range(40))), (), ())
    assert section is not None
    assert "the 24 largest of 40 groups" in section.body
    assert section.body.count("<foreignObject") == 24
    assert "level 0" in section.body


def test_many_actions_have_no_column_each(credit: ReportInput) -> None:
    many = replace(credit.evaluation.slices[0], shares={f"a{i}": 0.1 for i in range(10)})
    section = evidence.groups(replace(credit.evaluation, slices=(many,)), (), ())
    assert section is not None
    assert "share: a0" not in section.body


def test_metrics_say_what_they_mean(credit: ReportInput) -> None:
    section = evidence.metrics(replace(credit.evaluation, metrics={"roc_auc": Estimate(0.6512, 0.638, 0.6641), "own": Estimate(1, 0, 2)}))
    assert section is not None
    shown = text(section.body)
    assert "0.651 [0.638, 0.664]" in shown
    assert "0.5 is guessing" in shown
    assert evidence.metrics(replace(credit.evaluation, metrics={})) is None


def test_every_finding_is_there_with_its_count_leaks_first(credit: ReportInput) -> None:
    odd = Finding("odd", "x", 1, "Something.", "kept", "curious")
    body = evidence.data(credit.evaluation, (odd, *credit.findings[::-1]), credit.split).body
    shown = text(body)
    assert all(f.detail in shown and f"{f.count:,}" in shown for f in credit.findings)
    assert shown.index("leak") < shown.index("group overlap") < shown.index("mixed type") < shown.index("odd")
    assert "hash of the test rows" in shown
    assert "rows drawn at random" in shown


def test_clean_data_and_an_unknown_split(credit: ReportInput) -> None:
    shown = text(evidence.data(credit.evaluation, (), {"method": "other", "detail": ""}).body)
    assert "The data showed nothing unusual." in shown
    assert "detail" not in shown


def test_how_it_was_made(credit: ReportInput) -> None:
    made = evidence.making(credit.evaluation, credit.seconds, credit.hashes, credit.versions, credit.case_text)
    shown = text(made.body)
    assert "Candidates, chosen on validation rows" in shown
    assert "62.0%" in shown
    assert "value, BRL" in shown
    assert "beta" in shown
    assert "28.6 s" in shown  # all stages
    assert "sha256:77e1f3a40d12" in shown
    assert credit.case_text in unescape(re.sub("<[^>]*>", "", made.body))


def test_what_computing_took_is_measured_with_and_without_prices(credit: ReportInput, hard: ReportInput) -> None:
    free = text(evidence.making(credit.evaluation, {}, {}, {}, "").body)
    assert "training, all rounds 2 min 38 s 5 min 2 s – 913 MB" in re.sub(" +", " ", free)
    assert "lightgbm, last round 14.2 s 27.4 s – 901 MB" in re.sub(" +", " ", free)
    assert "one decision 2.1 ms 2.1 ms – 913 MB" in re.sub(" +", " ", free)
    assert "a decision is the median of 300, taken one at a time" in free
    assert "No price is declared, so nothing is taken off" in free
    assert "these figures have no interval" in free
    assert "where values are before computing" not in free
    paid = re.sub(" +", " ", text(evidence.making(hard.evaluation, {}, {}, {}, "").body))
    assert "training, all rounds 2 h 1 min 2 h 30 min 1 h 0 min 12.5 GB 3,125 BRL" in paid
    assert "one decision 0.5 ms 0.4 ms – – <0.000001 BRL" in paid
    assert "No price is declared" not in paid
    assert "Candidates, chosen on validation rows, where values are before computing" in paid


def test_a_bare_run_has_a_bare_section(credit: ReportInput) -> None:
    e = replace(credit.evaluation, candidates=(), calibrator="", compute=None)
    assert text(evidence.making(e, {"train": 1.0}, {}, {}, "").body).split() == ["Time", "train", "1.0", "s"]
