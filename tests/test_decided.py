"""What came true, as a model counts it, and what each option would have paid."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests import bundles
from tests.bundles import ROW, bits, table

from makegood.contracts import Task
from makegood.data import prepare
from makegood.decided import came_true
from makegood.errors import BundleError, DataError
from makegood.model import Model, load, pack
from makegood.trust import explain as shapley

CLASSES, NUMBER = Task("classes", ("0", "1")), Task("number")


@pytest.fixture(scope="module")
def loans() -> Model:
    return bundles.loans()


def columns(*rows: dict[str, object]) -> dict[str, list[object]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_classes_are_counted_however_a_client_writes_them() -> None:
    assert came_true(["1", 1, 1.0, " 1 ", "0.0"], CLASSES).tolist() == [1, 1, 1, 1, 0]
    assert came_true([True, "false"], Task("classes", ("False", "True"))).tolist() == [1, 0]
    assert came_true([], CLASSES).dtype == np.int64


def test_numbers_are_counted_as_they_are() -> None:
    assert came_true([3, 2.5, "4"], NUMBER).tolist() == [3.0, 2.5, 4.0]


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), True, "much", 10**400, None])
def test_what_is_no_number_is_named_with_its_row(odd: object) -> None:
    with pytest.raises(
        DataError, match=re.escape(f"outcome in row 2: got {str(odd)!r}; expected a number; send the number that came true")
    ):
        came_true([1.0, odd], NUMBER)  # type: ignore[list-item]


def test_every_outcome_that_is_no_class_is_named_with_its_row() -> None:
    with pytest.raises(DataError) as caught:
        came_true(["0", "2", "1", "x"], CLASSES)
    assert [problem.where for problem in caught.value.problems] == ["outcome in row 2", "outcome in row 4"]
    assert str(caught.value.problems[0]) == "outcome in row 2: got '2'; expected one of '0', '1'; write it as the data do"


def test_what_each_option_would_have_paid_by_hand(loans: Model) -> None:
    paid = loans.realised(columns(ROW, ROW | {"amount": 1000}, ROW), ["no", "yes", "yes"])
    assert paid.tolist() == [[0.035 * 5000 * 24 / 12, 60.0, 0.0], [-0.55 * 1000, -40.0, 0.0], [-0.55 * 5000, -40.0, 0.0]]
    assert loans.realised({name: [] for name in ROW}, []).shape == (0, 3)


def test_what_a_quantity_would_have_paid_by_hand() -> None:
    bakery = bundles.bakery()
    paid = bakery.realised({"age": [41]}, [50.0])
    quantities = np.arange(0, 301, 20.0)
    assert paid == pytest.approx((3.2 * np.minimum(quantities, 50.0) - 1.9 * quantities)[None])


def test_outcomes_and_rows_go_together(loans: Model) -> None:
    with pytest.raises(DataError, match="outcomes: got '1 outcomes of 2 rows'; expected one for each row; complete them"):
        loans.realised(columns(ROW, ROW), ["no"])
    with pytest.raises(DataError, match="no column months"):
        loans.realised({"amount": [1.0]}, ["no"])


# ---------------------------------------------------------------------------------------------------- reasons within a latency


def hurried(model: Model, latency: float) -> Model:
    return replace(model, case={**model.case, "serve": {"reasons": 2, "latency": latency}})


def test_a_bundle_keeps_as_many_evaluations_as_its_latency_has_room_for(
    loans: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = prepare.raw_columns(table(60, seed=9)[0])
    at_ease = pack(hurried(loans, 60.0), tmp_path / "ease", rows=rows, card="")
    assert caplog.text == ""
    in_haste = pack(hurried(loans, 1e-6), tmp_path / "haste", rows=rows, card="")
    assert re.search("s a row even with 256 evaluations, the fewest; serve.latency leaves them 5e-07 s", caplog.text)
    assert (at_ease.evaluations, in_haste.evaluations) == (shapley.EVALUATIONS, 256)
    assert load(tmp_path / "haste").evaluations == 256
    assert bits(replace(at_ease.decide(ROW), model="", reasons=())) == bits(replace(in_haste.decide(ROW), model="", reasons=()))
    assert [bits(in_haste.decide(ROW))] * 2 == [bits(load(tmp_path / "haste").decide(row)) for row in (ROW, ROW)]
    assert [bits(d) for d in in_haste.decide([ROW | {"age": 30}, ROW])][1] == bits(in_haste.decide(ROW))


def test_the_reasons_of_a_decision_are_those_of_its_evaluations(loans: Model) -> None:
    few, many = replace(loans, evaluations=300), loans
    raw = columns(ROW)
    for model, evaluations in ((few, 300), (many, shapley.EVALUATIONS)):
        explained = model.explain(raw, evaluations=evaluations)
        assert [(r.column, r.money) for r in model.decide(ROW, reasons=3).reasons] == list(explained.top(3))
    assert few.explain(raw, evaluations=300).evaluations <= 300 < many.explain(raw).evaluations


@pytest.mark.parametrize("evaluations", [0, -1, 10**9])
def test_a_bundle_asks_for_no_more_work_than_is_done_without_a_latency(loans: Model, tmp_path: Path, evaluations: int) -> None:
    rows = prepare.raw_columns(table(60, seed=9)[0])
    pack(loans, tmp_path / "good", rows=rows, card="")
    with pytest.raises(BundleError, match=f"scorer.json: got '{evaluations} evaluations'; expected 1 to 4096"):
        pack(replace(loans, evaluations=evaluations), tmp_path / "bad", rows=rows, card="")
