"""Prediction sets and averse decisions from the case file to the decisions: declared, refused, judged, packed, forged."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import bundles
from tests.bundles import bits, table
from tests.loops import loans, stock, written
from tests.test_golden import drop, forged, put

from makegood import pipeline
from makegood.case import Case
from makegood.cli.making import tell
from makegood.contracts import Run
from makegood.data import prepare
from makegood.economics.policy import Policy
from makegood.economics.sets import Sets
from makegood.errors import BundleError, CaseError
from makegood.model import Model, load, pack, verify

REFER = "decline: {payoff: {no: -100, yes: 0}}\n    refer: {payoff: {no: 0.06 * `loan amount`, yes: -60}}"
AVERSE = {"decline: {payoff: 0}": f"{REFER}\n  averse: 0.1"}
COVERED = {"decline: {payoff: 0}": REFER, "reasons: 2": "reasons: 0, coverage: 0.9"}


# ---------------------------------------------------------------------------------------------------------- what is declared


def test_averse_and_coverage_ask_for_sets() -> None:
    def asked(extra: str, serve: str = "") -> float | None:
        text = f"case: c\ndata: {{outcome: y}}\ndecision:\n  unit: EUR\n  actions: {{a: {{payoff: 1}}, b: {{payoff: 0}}}}\n{extra}\n{serve}"
        return Case.parse(text).coverage

    assert asked("") is None
    assert asked("  averse: 0.05") == 0.95
    assert asked("", "serve: {coverage: 0.99}") == 0.99


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("  averse: 0", "decision.averse: got '0'; expected a number above 0"),
        ("  averse: 0.6", "decision.averse: got '0.6'; expected a number of at most 0.5"),
        ("  averse: very", "decision.averse: got 'very'; expected a number, not"),
        ("serve: {coverage: 1}", "serve.coverage: got '1'; expected a number below 1"),
        ("serve: {coverage: 0.4}", "serve.coverage: got '0.4'; expected a number of at least 0.5"),
        ("  averse: 0.1\nserve: {coverage: 0.9}", "decision.averse or serve.coverage, not both"),
        ("  averse: 0.1\n  limits: {a: {max_share: 0.5}}", "averse or limits, not both: many rows are guaranteed the same"),
    ],
)
def test_what_cannot_be_meant_is_refused(extra: str, message: str) -> None:
    text = f"case: c\ndata: {{outcome: y}}\ndecision:\n  unit: EUR\n  actions: {{a: {{payoff: 1}}, b: {{payoff: 0}}}}\n{extra}\n"
    with pytest.raises(CaseError) as caught:
        Case.parse(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("field", ["decision.averse", "serve.coverage"])
def test_a_number_has_no_set_of_classes(tmp_path: Path, field: str) -> None:
    declared = "  averse: 0.1" if field == "decision.averse" else "serve: {coverage: 0.9}"
    text = f"case: c\ndata: {{source: loans.csv, outcome: sold}}\ndecision:\n  unit: EUR\n  actions:\n    stock: {{payoff: outcome - quantity, quantity: {{min: 0, max: 9, step: 3}}}}\n{declared}\n"
    (problem,) = pipeline.check(written(tmp_path, stock(), text)).problems
    assert str(problem).startswith(f"{field}: got 'an outcome that is a number'; expected an outcome of classes, which prediction sets are")


# ----------------------------------------------------------------------------------------------------------------- a whole run


@pytest.fixture(scope="module")
def averse(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("averse")
    return pipeline.run(written(folder, loans(600), replace=AVERSE), workspace=folder / "runs")


@pytest.fixture(scope="module")
def covered(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("covered")
    return pipeline.run(written(folder, loans(600), replace=COVERED), workspace=folder / "runs")


def test_the_evaluation_is_of_the_averse_policy_and_says_whether_guarantees_held(averse: Run, covered: Run) -> None:
    e, plain = averse.evaluation, covered.evaluation
    assert e is not None
    assert plain is not None
    assert e.guarantee is not None
    assert plain.guarantee is not None
    assert (e.guarantee.averse, plain.guarantee.averse) == (True, False)
    assert e.guarantee.level == plain.guarantee.level == 0.9
    assert e.guarantee.broken.low <= e.guarantee.broken.value <= e.guarantee.broken.high
    assert e.guarantee.broken.value <= 0.1
    assert e.guarantee.amount.value > plain.guarantee.amount.value  # the same sets: what is maximised is larger
    assert e.value.value <= e.oracle.value
    assert e.shares["refer"] > plain.shares["refer"]
    assert e.metrics["set_coverage"].value >= 0.9
    assert 1.0 <= e.metrics["set_size"].value <= 2.0
    assert all(np.isnan([r.actions_low, r.actions_high]).all() and r.verdict_low < 1 < r.verdict_high for r in e.payoff_ranges)
    assert not any(np.isnan([r.actions_low, r.actions_high]).any() for r in plain.payoff_ranges)


def test_the_summary_the_report_and_the_card_tell_it(averse: Run, covered: Run) -> None:
    said = json.loads(json.dumps(pipeline.summary(averse), allow_nan=False))["guarantee"]
    assert {*said} == {"level", "averse", "amount", "broken"}
    assert said["amount"]["unit"] == "EUR"
    assert averse.report is not None
    assert covered.report is not None
    assert averse.bundle is not None
    page, other = averse.report.read_text(encoding="utf-8"), covered.report.read_text(encoding="utf-8")
    assert "What is guaranteed" in page
    assert "takes the action whose guaranteed payoff is highest" in page
    assert "takes the action that is expected to pay most" in other
    assert "Coverage of the sets" in page
    card = (averse.bundle / "card.md").read_text(encoding="utf-8")
    assert "Actions are chosen by the payoff that is guaranteed. A guarantee holds with probability 0.9" in card


def test_the_policy_follows_the_sets(averse: Run) -> None:
    assert averse.bundle is not None
    model, frame = load(averse.bundle), loans(200, seed=5)
    table_ = {name: frame[name].tolist() for name in frame.columns if name != "bad"}
    decided = model.decide_columns(table_, reasons=0)
    for i, one in enumerate(decided):
        amount = table_["loan amount"][i]
        pays = {"approve": (0.1 * amount, -0.5 * amount), "decline": (-100.0, 0.0), "refer": (0.06 * amount, -60.0)}
        least = {name: min(pays[name]["no yes".split().index(o)] for o in one.prediction_set or ()) for name in pays}
        assert one.guaranteed == pytest.approx(max(least.values()))
        assert least[one.action] == pytest.approx(max(least.values()))
    assert {len(one.prediction_set or ()) for one in decided} == {1, 2}


def test_decisions_on_a_file_come_with_their_sets(averse: Run, tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.csv", tmp_path / "out.csv"
    loans(40, seed=5).drop(columns="bad").to_csv(rows, index=False)
    pipeline.decide_file(str(averse.bundle), rows, out, force=True)
    with out.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["set"] for line in lines} <= {"no", "yes", "no; yes"}
    assert all(float(line["guaranteed"]) <= 500 for line in lines)
    assert list(lines[0])[-2:] == ["guaranteed", "reasons"]


def test_without_sets_nothing_is_told_of_them(tmp_path: Path) -> None:
    done = pipeline.run(written(tmp_path, loans()), workspace=tmp_path / "runs")
    assert done.evaluation is not None
    assert done.evaluation.guarantee is None
    assert pipeline.summary(done)["guarantee"] is None
    assert "set_coverage" not in done.evaluation.metrics
    assert done.report is not None
    assert "What is guaranteed" not in done.report.read_text(encoding="utf-8")
    assert done.bundle is not None
    decision = load(done.bundle).decide({"loan amount": 1000, "credit-score": -3, "收入": 2000, "sex": "f"})
    assert (decision.prediction_set, decision.guaranteed) == (None, None)


def test_groups_are_what_is_held_out_and_what_weighs(tmp_path: Path) -> None:
    frame = loans(600).assign(branch=lambda t: np.arange(len(t)) % 60)
    done = pipeline.run(
        written(tmp_path, frame, replace={**AVERSE, "outcome: bad": "outcome: bad, group: branch"}), workspace=tmp_path / "runs"
    )
    assert done.bundle is not None
    sets = load(done.bundle).sets
    assert sets is not None
    assert sets.n in (12, 24, 36, 48, 60)  # branches, of as many inner folds as there was time for, and not their ten rows each
    assert done.evaluation is not None
    assert done.evaluation.metrics["set_coverage"].value >= 0.9


# -------------------------------------------------------------------------------------------------------- models and bundles


def _model(averse: bool, reach: float = 0.97) -> Model:
    """Return the small loan model with sets, its limits gone."""
    model = bundles.loans()
    policy = Policy(model.policy.payoffs, promise=model.policy.promise, averse=averse)
    return replace(model, policy=policy, sets=Sets(0.9, reach, 200))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "bundle"
    pack(_model(averse=True), folder, rows=prepare.raw_columns(table(60, seed=9)[0]), card="# Loans\n")
    return folder


def test_an_averse_model_survives_packing_to_the_last_bit(packed: Path) -> None:
    ours, theirs, rows = _model(averse=True), load(packed), prepare.raw_columns(table(200, seed=3)[0])
    assert theirs.sets == ours.sets
    assert theirs.policy == ours.policy
    one, other = ours.decide_columns(rows), theirs.decide_columns(rows)
    assert [bits(replace(d, model="")) for d in one] == [bits(replace(d, model="")) for d in other]
    assert verify(packed) == ()
    golden = json.loads((packed / "golden.json").read_text(encoding="utf-8"))
    assert {tuple(held) for held in golden["sets"]} >= {(1, 0), (1, 1)}
    assert len(golden["guaranteed"]) == len(golden["rows"])


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("scorer.json", put("sets", "reach", value=0.0), "prediction set"),
        ("scorer.json", put("sets", "reach", value=None), "prediction set"),
        ("scorer.json", put("sets", "level", value=1.5), "sets: got 'level 1.5"),
        ("scorer.json", put("sets", "level", value="x"), "ValueError"),
        ("scorer.json", put("sets", value=None), "an averse policy"),
        ("scorer.json", put("kind", value="number"), "an averse policy"),
        ("policy.json", put("averse", value=False), "promise|action"),
        ("policy.json", drop("averse"), "KeyError"),
        ("policy.json", put("limits", value=[{"action": "refer", "kind": "share", "capacity": 0.2, "cost": None}]), "an averse policy"),
        ("golden.json", put("sets", 0, value=[0, 1]), "row 1, prediction set"),
        ("golden.json", put("guaranteed", 0, value=99_999.0), "row 1, guaranteed payoff"),
        ("golden.json", put("sets", value=[]), "prediction sets: got"),
        ("golden.json", put("guaranteed", value=[]), "guaranteed payoffs: got"),
    ],
)
def test_a_forger_of_sets_is_refused(packed: Path, tmp_path: Path, name: str, edit: Any, message: str) -> None:
    folder = forged(packed, {name: edit}, tmp_path / "forged")
    with pytest.raises(BundleError) as caught:
        load(folder)
    assert any(part in str(caught.value) for part in message.split("|")), caught.value


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([0.0, 0.97, np.inf]))
def test_a_row_alone_is_told_what_it_is_told_among_others(seed: int, averse: bool, reach: float) -> None:
    model, frame = _model(averse, reach), table(12, seed=seed)[0].to_pylist()
    together = model.decide(frame, reasons=0)
    assert [bits(model.decide(row, reasons=0)) for row in frame] == [bits(d) for d in together]
    assert bits(replace(model, block=5).decide(frame, reasons=0)[7]) == bits(together[7])


def test_exact_limits_of_no_limits_change_nothing() -> None:
    rows = prepare.raw_columns(table(50, seed=3)[0])
    for averse in (False, True):
        one, other = (_model(averse).decide_columns(rows, exact_limits=exact, reasons=0) for exact in (False, True))
        assert [bits(d) for d in one] == [bits(d) for d in other]


def test_reasons_of_an_averse_decision_are_of_what_it_guarantees() -> None:
    model, rows = _model(averse=True), prepare.raw_columns(table(40, seed=3)[0])
    decided = model.decide_columns(rows, reasons=0)
    i = next(i for i, d in enumerate(decided) if d.action == "approve")
    explained = model.explain(rows, i)
    assert decided[i].prediction_set == ("no",)
    least, refer = decided[i].guaranteed, 0.02 * float(rows["amount"][i]) - 40.0
    assert least is not None
    assert explained.margin == pytest.approx(least - max(refer, 0.0))
    assert explained.background + explained.money.sum() == pytest.approx(explained.margin)
    assert model.drivers({name: values[:10] for name, values in rows.items()})


def test_limits_hold_beside_sets_that_decide_nothing() -> None:
    model = replace(bundles.loans(), sets=Sets(0.9, 0.97, 200))
    rows = prepare.raw_columns(table(60, seed=3)[0])
    plain, told = bundles.loans().decide_columns(rows, exact_limits=True), model.decide_columns(rows, exact_limits=True)
    assert told.choices.option.tobytes() == plain.choices.option.tobytes()
    assert told.promise.tobytes() == plain.promise.tobytes()
    assert (told.action == "refer").sum() <= 0.2 * 60
    assert told.choices.guaranteed is not None
    for d, amount in zip(told, rows["amount"], strict=True):
        refer = {"no": 0.02 * float(amount) - 40.0, "yes": -40.0}
        if d.action == "refer":
            assert d.guaranteed == pytest.approx(min(refer[name] for name in d.prediction_set or ()))


def test_a_terminal_is_told_what_is_guaranteed(averse: Run, capsys: pytest.CaptureFixture[str]) -> None:
    tell(averse, as_json=False)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith("guaranteed")]
    assert re.search(r"EUR; [0-9.e-]+ of the decisions paid less, where 0\.1 may$", line)


def test_no_rows_have_no_sets() -> None:
    decided = _model(averse=True).decide_columns({name: [] for name in bundles.loans().transform.inputs})
    assert len(decided) == 0
    assert decided.sets is not None
    assert decided.sets.shape == (0, 2)
