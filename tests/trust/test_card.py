"""The card says what the model is for, what it earns, what it was made of and what it must not be trusted with."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from makegood.case import Case
from makegood.contracts import Compute, Estimate, Evaluation, Finding, PayoffRange, Slice, Splits, Usage
from makegood.trust.card import card
from makegood.trust.fairness import Group, Treatment, compare

CASE = Case.parse("""
case: loans
about: Approve or decline a loan.
data:
  source: loans.csv
  outcome: defaulted
  time: applied_at
  outcome_delay: 180d
  protected: [sex]
decision:
  unit: EUR
  actions:
    approve:
      payoff: {no: 0.1 * amount, yes: -0.5 * amount}
    decline: {payoff: 0, reveals: false}
  today: approve
  limits: {approve: {max_share: 0.8}}
  high_stakes: true
train: {budget: 30s, seed: 7}
""")
SPLITS = Splits("time", (), "sha256:abc", 7, purged=12, detail="the last fifth is held out")


def _money(value: float) -> Estimate:
    return Estimate(value, value - 1.0, value + 1.0, "EUR")


EVALUATION = Evaluation(
    unit="EUR",
    n={"train": 4000, "test": 1000},
    value=_money(12.0),
    baselines={"today": _money(5.0), "always decline": Estimate(0.0, 0.0, 0.0, "EUR")},
    gains={"today": _money(7.0), "always decline": _money(12.0)},
    gain=_money(7.0),
    gain_over="today",
    oracle=_money(40.0),
    promised=_money(12.5),
    gap=_money(0.5),
    metrics={"roc_auc": Estimate(0.81, 0.78, 0.84)},
    shares={"approve": 0.75, "decline": 0.25},
    curve=(),
    decision_curve=(),
    calibration=(),
    promise_curve=(),
    payoff_ranges=(PayoffRange("approve", "yes", "-0.5 * amount", -2500.0, 0.4, np.inf, np.nan, 0.9, 1.2),),
    slices=(Slice("sex", "f", 480, _money(11.0), _money(0.1), {"approve": 0.7, "decline": 0.3}, True),),
    drivers=(("amount", 3.5),),
    confusion={"approve": {"no": 700, "yes": 50}, "decline": {"no": 100, "yes": 150}},
    verdict="deploy",
    why="The model earns 7 EUR a decision more than 'today'.",
    opened=2,
    level=0.975,
    candidates=({"name": "linear", "weight": 1.0, "log_loss": 0.41, "value": 12.1},),
    calibrator="beta",
)
FINDINGS = (
    Finding("duplicate", "", 3, "3 rows stand twice.", "dropped"),
    Finding("leak", "collections", 5000, "It alone tells the outcome.", "excluded", "leak"),
)


def _groups() -> tuple[Group, ...]:
    rng = np.random.default_rng(0)
    sex = rng.choice(np.array(["f", "m"], dtype=object), 200)
    declined = rng.integers(0, 2, 200)
    return compare(Treatment("EUR", ("approve", "decline"), declined, declined * 1.0, 1, rng.random(200) < 0.3), {"sex": sex})


def _card(**changes: object) -> str:
    return card(CASE, replace(EVALUATION, **changes), SPLITS, FINDINGS, _groups(), {"makegood": "0.1.0"})  # type: ignore[arg-type]


def _section(text: str, title: str) -> str:
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def test_every_section_is_there_in_order() -> None:
    titles = re.findall(r"^## (.+)$", _card(), re.MULTILINE)
    assert titles == [
        "Model details",
        "Intended use",
        "Value",
        "How far the payoffs may be off",
        "Metrics",
        "Factors",
        "Data",
        "What the data showed",
        "Ethical considerations",
        "Caveats",
    ]


def test_the_card_is_net_of_computing_where_it_has_a_price_and_holds_nothing_measured_otherwise() -> None:
    used = {"lightgbm": Usage(1.23456, 2.34567, 0.0, 345_678_901, 9.87654)}
    computed = Compute(used["lightgbm"], used, used["lightgbm"], 300, None, 0.0)
    assert _card(compute=computed) == _card()
    value = _section(_card(compute=replace(computed, decisions=1000, per_decision=0.31)), "Value")
    assert "| this model, after computing | 12 | 11 | 13 |" in value
    assert "The model's value and gains are after 0.31 EUR per decision for computing; promises are before it." in value
    assert "| this model | 12 | 11 | 13 |" in _section(_card(), "Value")


def test_the_verdict_comes_first() -> None:
    head = _card().split("## ")[0]
    assert head.startswith("# loans: model card\n\nApprove or decline a loan.\n\n**Verdict: deploy.** The model earns 7 EUR")


def test_the_card_tells_what_a_reader_must_know() -> None:
    text = _card()
    assert "| makegood | 0.1.0 |" in _section(text, "Model details")
    assert "| calibration | beta |" in _section(text, "Model details")
    assert "| linear | 1 | 0.41 | 12.1 |" in _section(text, "Model details")
    use = _section(text, "Intended use")
    assert "| approve | yes | `-0.5 * amount` |" in use
    assert "Done today: `approve`." in use
    assert "Limit on `approve`: at most 80% of decisions." in use
    assert "a person approves each new version" in use
    assert "| gain over today | 7 | 6 | 8 |" in _section(text, "Value")
    assert "approve 75.0%, decline 25.0%" in _section(text, "Value")
    assert "| 0.4 to ∞ | never | 0.9 to 1.2 |" in _section(text, "How far the payoffs may be off")
    assert "| −2,500 |" in _section(text, "How far the payoffs may be off")
    assert "| decline | 100 | 150 |" in _section(text, "Metrics")
    assert "| sex (protected) | f | 480 |" in _section(text, "Factors")
    data = _section(text, "Data")
    assert "| test rows | 1,000 |" in data
    assert "| held out | time: the last fifth is held out |" in data
    assert "| purged rows | 12 |" in data
    assert "`sha256:abc`" in data
    assert "share of decline" in _section(text, "Ethical considerations")
    caveats = _section(text, "Caveats")
    assert "level 0.975; these test rows were opened 2 times." in caveats
    assert "The outcome is not seen after `decline`" in caveats
    assert "The outcome is known 180 days after the decision." in caveats


def test_leaks_are_named_first() -> None:
    rows = [line for line in _section(_card(), "What the data showed").splitlines() if line.startswith("| ")]
    assert rows[2].startswith("| leak | `collections` | 5,000 |")
    assert rows[3].startswith("| duplicate | rows | 3 |")


def test_a_heavy_tail_is_a_caveat() -> None:
    tail = replace(EVALUATION.value, tail_limited=True)
    text = _card(value=tail)
    assert "| this model | 12* | 11 | 13 |" in text
    assert "may cover less often than they say" in _section(text, "Caveats")
    assert "may cover less" not in _section(_card(), "Caveats")


def test_a_figure_without_an_interval_shows_dashes() -> None:
    assert "| knowing the outcome (a ceiling) | 40 | – | – |" in _card(oracle=Estimate(40.0, np.nan, np.nan, "EUR"))


def test_a_plain_case_has_a_plain_card() -> None:
    case = Case.parse("""
case: stock
data: {outcome: sold}
decision:
  unit: EUR
  actions:
    stock: {payoff: "3 * min(quantity, outcome) - quantity", quantity: {min: 0, max: 50, step: 10}}
  limits: {stock: {max_budget: 100, cost: quantity, per: 10, max_count: 5}}
""")
    text = card(case, replace(EVALUATION, payoff_ranges=(), slices=(), drivers=(), metrics={}, confusion={}, candidates=()), SPLITS)
    assert "| stock from 0 to 50 by 10 | any | `3 * min(quantity, outcome) - quantity` |" in text
    assert "at most 5 in 10 decisions; at most 100 in 10 decisions, each costing `quantity`." in text
    assert "No column is declared protected, so no group was compared." in text
    assert "a table passed in Python" in text
    for absent in ("## Metrics", "## Factors", "## What the data showed", "Models tried", "Done today"):
        assert absent not in text


HOSTILE = "a|b\n# c `d` <script>[x](y)</script> *e*"


def test_no_name_can_break_a_table_or_start_a_heading() -> None:
    evaluation = replace(
        EVALUATION,
        shares={HOSTILE: 1.0},
        confusion={HOSTILE: {HOSTILE: 1}},
        drivers=((HOSTILE, 1.0),),
        slices=(replace(EVALUATION.slices[0], column=HOSTILE, level=HOSTILE),),
        payoff_ranges=(replace(EVALUATION.payoff_ranges[0], action=HOSTILE, expression=HOSTILE),),
        candidates=({"name": HOSTILE},),
        why=HOSTILE,
    )
    groups = tuple(replace(g, column=HOSTILE, level=HOSTILE) for g in _groups())
    finding = Finding(HOSTILE, HOSTILE, 1, HOSTILE, HOSTILE)
    text = card(CASE, evaluation, replace(SPLITS, detail=HOSTILE), (finding,), groups, {HOSTILE: HOSTILE})
    assert re.findall(r"^# .*$", text, re.MULTILINE) == ["# loans: model card"]
    assert "<script>" not in re.sub(r"(`+).*?\1", "", text)
    width = 0
    for line in text.splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert not width or not cells or cells == width, line
        width = cells


@pytest.mark.parametrize("action", ["approve", "decline"])
def test_an_action_that_hides_the_outcome_is_named(action: str) -> None:
    assert (f"not seen after `{action}`" in _card()) == (action == "decline")
