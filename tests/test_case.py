"""The case file: what it accepts, and how it refuses the rest by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from makegood.case import Case, Feedback, duration_s
from makegood.errors import CaseError, NotBuilt

GOOD = """
case: loans
data: {source: loans.csv, outcome: defaulted}
decision:
  unit: EUR
  actions:
    approve: {payoff: {no: 0.1 * amount, yes: -0.5 * amount}}
    decline: {payoff: 0, reveals: false}
"""


def test_scalars_stay_text_until_the_data_say_what_they_are() -> None:
    case = Case.parse(GOOD.replace("no:", "0.0:").replace("yes:", "no:"))
    assert case.decision.actions["approve"].payoff == {"0.0": "0.1 * amount", "no": "-0.5 * amount"}
    assert case.decision.actions["approve"].reveals is True
    assert case.decision.actions["decline"].reveals is False
    assert case.decision.actions["decline"].payoff == "0"


def test_defaults() -> None:
    case = Case.parse(GOOD)
    assert case.train.budget == 60
    assert case.train.chosen == ("constant", "linear", "lightgbm")
    assert case.serve.reasons == 0
    assert case.data.affected_by_action is False


def test_a_case_survives_the_round_trip_through_plain_data() -> None:
    text = (
        GOOD
        + "  limits: {approve: {max_count: 500, per: 10000, max_share: 0.8}}\ntrain: {budget: 5m, families: linear, seed: 3}\nserve: {reasons: 3}\n"
    )
    case = Case.parse(text)
    assert case.train.budget == 300
    assert case.train.chosen == ("constant", "linear")
    assert Case.of(case.to_json()) == case.model_copy(update={"text": ""})


def test_the_whole_design_example_less_what_is_not_built() -> None:
    case = Case.parse(
        """
        case: credit-risk
        about: Approve or decline a consumer loan.
        data:
          source: loans.parquet
          outcome: defaulted
          time: applied_at
          group: customer_id
          outcome_delay: 180d
          affected_by_action: no
          known_later: [collections]
          keep: []
          protected: [sex, age]
        decision:
          unit: EUR
          actions:
            approve:
              payoff: {no: 0.035 * amount * months / 12, yes: -0.55 * amount}
              reveals: true
            decline: {payoff: 0, reveals: false}
            stock: {quantity: {min: 0, max: 5000, step: 50}, payoff: "3.2 * min(quantity, outcome) - 1.9 * quantity"}
          today: approve
          limits: {approve: {max_share: 0.8}}
          high_stakes: false
        train: {budget: 60s, families: auto}
        serve: {reasons: 3}
        """
    )
    assert case.data.outcome_delay == 180 * 86400
    assert case.decision.limits["approve"].max_share == 0.8
    assert case.decision.actions["stock"].quantity is not None
    assert case.decision.actions["stock"].quantity.step == 50


@pytest.mark.parametrize(
    ("change", "to", "message"),
    [
        ("outcome: defaulted", "outcome: defaulted, tme: when", "case: data.tme: got 'tme'; expected one of source, sha256, outcome, time"),
        ("outcome: defaulted", "outcome: defaulted, tme: when", "did you mean 'time'?"),
        ("outcome: defaulted", "time: when", "case: data.outcome: got 'nothing'; expected this field; add it"),
        (
            "payoff: 0,",
            "payof: 0,",
            "case: decision.actions.decline.payof: got 'payof'; expected one of payoff, reveals, quantity; did you mean 'payoff'?",
        ),
        ("reveals: false", "reveals: maybe", "case: decision.actions.decline.reveals: got 'maybe'; expected yes or no"),
        ("unit: EUR", "unit: EUR\n  limits: {aprove: {max_share: 0.5}}", "'aprove' is none. did you mean 'approve'?"),
        ("unit: EUR", "unit: EUR\n  limits: {approve: {max_share: 1.5}}", "max_share: got '1.5'; expected a number of at most 1"),
        (
            "unit: EUR",
            "unit: EUR\n  limits: {approve: {max_count: 5}}",
            "expected per: the number of decisions that the count or budget is for",
        ),
        ("unit: EUR", "unit: EUR\n  limits: {approve: {per: 5}}", "expected one of max_share, max_count, max_budget"),
        ("unit: EUR", "unit: EUR\n  limits: {approve: {max_budget: 5, per: 5}}", "expected max_budget and cost together"),
        ("payoff: 0, reveals: false", "payoff: 0, quantity: {min: 5, max: 0, step: 1}", "expected min <= max and step > 0"),
        (
            "payoff: 0, reveals: false",
            "payoff: 0, quantity: {min: 0, max: 9e9, step: 1}",
            "expected at most 1001 steps between min and max",
        ),
        ("payoff: 0, reveals: false", "payoff: 0, quantity: {min: 0, max: inf, step: 1}", "expected a finite number"),
        ("    decline: {payoff: 0, reveals: false}\n", "", "expected at least two actions"),
        ("outcome: defaulted", "outcome: defaulted, affected_by_action: yes", "treatment cases are not built yet"),
        ("outcome: defaulted", "outcome: defaulted, time: defaulted", "expected a time column other than the outcome 'defaulted'"),
        ("outcome: defaulted", "outcome: defaulted, path: defaulted", "expected a path column other than the outcome 'defaulted'"),
        ("outcome: defaulted", "outcome: defaulted, image: {size: [0, 8]}", "data.image.size.0: got '0'; expected a number of at least 1"),
        (
            "outcome: defaulted",
            "outcome: defaulted, image: {size: [8, 900]}",
            "data.image.size.1: got '900'; expected a number of at most 512",
        ),
        ("outcome: defaulted", "outcome: defaulted, image: {size: 8}", "data.image.size: got '8'; expected"),
        ("outcome: defaulted", "outcome: defaulted, image: {size: [8]}", "data.image.size.1: got 'nothing'; expected this field"),
        ("outcome: defaulted", "outcome: defaulted, image: {channels: 4}", "data.image.channels: got '4'; expected 1 (grey) or 3 (RGB)"),
        ("outcome: defaulted", "outcome: defaulted, text: defaulted", "expected a text column that is not in data.outcome too"),
        ("outcome: defaulted", "outcome: defaulted, text: t, protected: [a, t]", "that is not in data.protected too; got 't'"),
        ("outcome: defaulted", "outcome: defaulted, text: [a, b]", "one column of texts (several are not built yet: see ROADMAP.md)"),
        ("outcome: defaulted", 'outcome: defaulted, text: ""', "data.text.column; expected a name"),
        (
            "outcome: defaulted",
            "outcome: defaulted, text: {column: t, tokens: 4}",
            "data.text.tokens: got '4'; expected a number of at least 8",
        ),
        ("outcome: defaulted", "outcome: defaulted, text: {column: t, windows: 17}", "got '17'; expected a number of at most 16"),
        (
            "outcome: defaulted",
            "outcome: defaulted, text: {colum: t}",
            "expected one of column, tokens, windows, measures; did you mean 'column'?",
        ),
        ("outcome: defaulted", "outcome: defaulted, texts: t", "did you mean 'text'?"),
        ("outcome: defaulted", "outcome: defaulted, image: {chanels: 1}", "expected one of size, channels; did you mean 'channels'?"),
        (
            "outcome: defaulted",
            "outcome: defaulted, outcome_delay: soon",
            "data.outcome_delay: got 'soon'; expected a duration such as 60s, 5m, 12h or 180d",
        ),
        (
            "case: loans",
            "case: loans\ntrain: {families: xgboost}",
            "expected auto, or some of constant, linear, lightgbm, ngrams, mlp, transformer, cnn, resnet, vit, encoder; got 'xgboost'",
        ),
        ("case: loans", "case: loans\ntrain: {budget: 0}", "train.budget: got '0'; expected a number above 0"),
        (
            "case: loans",
            "case: loans\ncompute: {cpu_hour: 0.05}",
            "case: compute; expected decisions beside the prices: how many decisions one training serves, over which its cost is spread",
        ),
        (
            "case: loans",
            "case: loans\ncompute: {cpu_hour: -1, decisions: 9}",
            "compute.cpu_hour: got '-1'; expected a number of at least 0",
        ),
        ("case: loans", "case: loans\ncompute: {gpu_hour: nan, decisions: 9}", "compute.gpu_hour: got 'nan'; expected a finite number"),
        ("case: loans", "case: loans\ncompute: {memory_gb_hour: much, decisions: 9}", "memory_gb_hour: got 'much'; expected a number, not"),
        (
            "case: loans",
            "case: loans\ncompute: {cpu_hour: 1, decisions: 0}",
            "compute.decisions: got '0'; expected a number above 0",
        ),
        ("case: loans", "case: loans\ncompute: {cpu_huor: 1, decisions: 9}", "got 'cpu_huor'; expected one of cpu_hour, gpu_hour"),
        ("case: loans", "case: loans\nserve: {latency: 0}", "case: serve.latency: got '0'; expected a number above 0"),
        ("case: loans", "case: loans\nserve: {latency: 2m}", "case: serve.latency: got '2m'; expected a number of at most 60"),
        ("case: loans", "case: loans\nserve: {latency: soon}", "case: serve.latency: got 'soon'; expected a duration such as 60s"),
        ("case: loans", "case: loans\nserve: {inputs: encrypt}", "case: serve.inputs: got 'encrypt'; expected 'keep' or 'hash'"),
        ("case: loans", "case: loans\nserve: {without_ledger: no}", "case: serve.without_ledger: got 'no'; expected 'refuse' or 'spool'"),
        (
            "case: loans",
            "case: loans\nserve: {latncy: 5ms}",
            "expected one of latency, inputs, without_ledger, reasons, coverage; did you mean 'latency'?",
        ),
        (
            "case: loans",
            "case: loans\nfeedback: {tolerence: 1}",
            "expected one of tolerance, false_alarm, block, missing, review, promote, explore, retrain; did you mean 'tolerance'?",
        ),
        ("case: loans", "case: loans\nfeedback: {tolerance: -1}", "feedback.tolerance: got '-1'; expected a number of at least 0"),
        ("case: loans", "case: loans\nfeedback: {false_alarm: {probability: 1}}", "probability: got '1'; expected a number below 1"),
        (
            "case: loans",
            "case: loans\nfeedback: {missing: skip}",
            "expected impute, failure, or the money that a decision without an outcome counts for",
        ),
        (
            "case: loans",
            "case: loans\nfeedback: {missing: nan}",
            "expected impute, failure, or the money that a decision without an outcome counts for",
        ),
        (
            "case: loans",
            "case: loans\nfeedback: {promote: {cap: 0}}",
            "expected cap as one number above 0, or as [lowest, highest] payoff of a decision",
        ),
        (
            "case: loans",
            "case: loans\nfeedback: {promote: {cap: [3, -3]}}",
            "expected cap as one number above 0, or as [lowest, highest] payoff of a decision",
        ),
        ("case: loans", "case: loans\nfeedback: {promote: {holdback: 0.01}}", "holdback: got '0.01'; expected a number of at least 0.1"),
        ("case: loans", "case: loans\nfeedback: {explore: {budget: 500}}", "expected an amount for each time, such as 500/week or 20/day"),
        (
            "case: loans",
            "case: loans\nfeedback: {explore: {budget: -5/day}}",
            "expected an amount for each time, such as 500/week or 20/day",
        ),
        (
            "case: loans",
            "case: loans\nfeedback: {explore: {budget: 5/soon}}",
            "expected an amount for each time, such as 500/week or 20/day",
        ),
        (
            "payoff: 0, reveals: false}",
            "payoff: 0, reveals: false}\n  high_stakes: true\nfeedback: {explore: {budget: 5/day}}",
            "expected no feedback.explore where decision.high_stakes is true: nobody is tried on",
        ),
        ("case: loans", "case: lo/ans", "expected letters, digits, '.', '_' and '-', at most 80"),
        ("case: loans", "case: loans\ncase: loans", "the key 'case' stands twice"),
        ("payoff: 0,", "payoff: min(amount, 3),", "a comma ends the value 'min(amount': put the whole expression in quotes"),
        ("case: loans", "case: [loans", "expected YAML: expected ',' or ']'"),
    ],
)
def test_a_bad_field_is_named_with_its_mend(change: str, to: str, message: str) -> None:
    assert change in GOOD
    with pytest.raises(CaseError) as caught:
        Case.parse(GOOD.replace(change, to))
    assert message in str(caught.value)


def test_how_a_model_is_held_to_its_promise() -> None:
    assert Case.parse(GOOD).feedback == Feedback()
    given = """
feedback:
  tolerance: 0.02
  false_alarm: {probability: 0.05, per: 30d}
  block: 1d
  missing: -3
  review: 12h
  promote: {confidence: 0.9, min_gain: 0.1, cap: 5000, share: 0.2, harm: 0.3, latency: 2, slice_loss: 0.5, guard: 7d, holdback: 0.2}
  explore: {budget: 500/week, least: 0.05}
  retrain: {cost: 120, horizon: 90d}
"""
    case = Case.parse(GOOD + given)
    feedback = case.feedback
    assert (feedback.tolerance, feedback.missing, feedback.block, feedback.review) == (0.02, -3.0, 86400.0, 43200.0)
    assert (feedback.false_alarm.probability, feedback.false_alarm.per) == (0.05, 30 * 86400.0)
    assert feedback.promote.cap == (-5000.0, 5000.0)
    assert feedback.explore is not None
    assert feedback.explore.budget == (500.0, 604800.0)
    assert feedback.retrain.horizon == 90 * 86400.0
    assert Case.of(json.loads(json.dumps(case.to_json()))).feedback == feedback
    pair = Case.parse(f"{GOOD}\nfeedback: {{missing: failure, promote: {{cap: [-3750, 1150]}}}}").feedback
    assert (pair.missing, pair.promote.cap) == ("failure", (-3750.0, 1150.0))


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(CaseError) as caught:
        Case.parse(GOOD.replace("unit: EUR", "unti: EUR").replace("case: loans", "train: {budget: x}"))
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize(
    ("addition", "name"),
    [("business: {volume: 3}", "business"), ("train: {on: ray}", "train.on")],
)
def test_what_is_planned_is_refused_by_name(addition: str, name: str) -> None:
    with pytest.raises(NotBuilt, match=f"case: {name}; expected a case without it: .* is not built yet; remove it; see ROADMAP.md"):
        Case.parse(GOOD + addition)


def test_several_outcomes_are_refused_by_name() -> None:
    with pytest.raises(NotBuilt, match=r"case: data\.outcome: got 'a list'; expected one column: several labels a row are not built yet"):
        Case.of({"case": "x", "data": {"outcome": ["a", "b"]}})


def test_files(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"none\.yaml: got 'No such file or directory'; expected a readable case file"):
        Case.load(tmp_path / "none.yaml")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("case: caf\xe9".encode("latin-1"))
    with pytest.raises(CaseError, match="bytes that are not UTF-8"):
        Case.load(latin)
    with pytest.raises(CaseError, match="expected a mapping with case, data and decision"):
        Case.parse("- just\n- a list")
    good = tmp_path / "good.yaml"
    good.write_text(GOOD, encoding="utf-8-sig")
    assert Case.load(good).folder == tmp_path


@pytest.mark.parametrize("text", ["", "5 parsecs", "-3s", "1..2s", None])
def test_durations_that_are_none(text: str | None) -> None:
    with pytest.raises(ValueError, match="a duration such as"):
        duration_s(text)


def test_networks_are_trained_where_the_case_names_them() -> None:
    def chosen(families: str) -> tuple[str, ...]:
        return Case.parse(GOOD + f"train: {{families: {families}}}\n").train.chosen

    assert chosen("auto") == ("constant", "linear", "lightgbm")
    assert chosen("[auto, mlp]") == ("constant", "linear", "lightgbm", "mlp")
    assert chosen("[transformer, linear]") == ("constant", "transformer", "linear")


def test_prices_of_computing_are_a_part_of_the_case() -> None:
    free = Case.parse(GOOD)
    assert free.compute.model_dump() == {"cpu_hour": 0.0, "gpu_hour": 0.0, "memory_gb_hour": 0.0, "decisions": None}
    assert "compute" not in free.to_json()
    case = Case.parse(GOOD + "compute: {cpu_hour: 0.05, gpu_hour: 2.5, memory_gb_hour: 5e-3, decisions: 100000}\n")
    assert (case.compute.cpu_hour, case.compute.gpu_hour, case.compute.memory_gb_hour, case.compute.decisions) == (0.05, 2.5, 0.005, 1e5)
    assert Case.of(case.to_json()).compute == case.compute


def test_the_pixels_of_images_are_a_part_of_the_case() -> None:
    assert Case.parse(GOOD).data.image.model_dump() == {"size": None, "channels": None}
    case = Case.parse(GOOD.replace("outcome: defaulted", "outcome: defaulted, path: file, image: {size: [28, 32], channels: 1}"))
    assert (case.data.path, case.data.image.size, case.data.image.channels) == ("file", (28, 32), 1)
    assert Case.of(case.to_json()).data == case.data


def test_what_a_service_does_is_a_part_of_the_case() -> None:
    plain = Case.parse(GOOD)
    assert plain.serve.model_dump() == {"latency": None, "inputs": "keep", "without_ledger": "refuse", "reasons": 0, "coverage": None}
    assert "serve" not in plain.to_json()
    case = Case.parse(GOOD + "serve: {latency: 10ms, inputs: hash, without_ledger: spool, reasons: 3}\n")
    assert case.to_json()["serve"] == {"latency": 0.01, "inputs": "hash", "without_ledger": "spool", "reasons": 3}
    assert Case.of(case.to_json()).serve == case.serve


def test_the_text_is_a_part_of_the_case() -> None:
    assert Case.parse(GOOD).data.text is None
    for said, tokens, windows in (("request", None, 1), ("{column: request, tokens: 64, windows: 2}", 64, 2)):
        text = Case.parse(GOOD.replace("outcome: defaulted", f"outcome: defaulted, text: {said}")).data.text
        assert text is not None
        assert (text.column, text.tokens, text.windows) == ("request", tokens, windows)
    case = Case.parse(GOOD.replace("outcome: defaulted", "outcome: defaulted, text: request"))
    assert Case.of(case.to_json()).data == case.data
