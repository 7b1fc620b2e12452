from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from makegood.data.outcome import class_of, payoffs_by_class, type_outcome
from makegood.errors import CaseError, DataError, NotBuilt


def table(values: Any) -> pa.Table:
    return pa.table({"y": values, "x": list(range(len(values)))})


def test_texts_are_classes_in_reading_order(case: Any) -> None:
    found = type_outcome(table(["yes", "no"] * 10), case())
    assert found.task.kind == "classes"
    assert found.task.classes == ("no", "yes")
    assert found.values.tolist() == [1, 0] * 10
    assert found.values.dtype == np.int64
    assert found.known.all()


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([10, 9, 2], ("2", "9", "10")),
        ([0.0, 1.0], ("0", "1")),
        ([False, True], ("false", "true")),
        (["b", "a", "C"], ("C", "a", "b")),
        (["high", "5", "no"], ("no", "5", "high")),
    ],
)
def test_canonical_classes(case: Any, values: list[Any], classes: tuple[str, ...]) -> None:
    assert type_outcome(table(values * 10), case()).task.classes == classes


def test_many_numbers_are_a_number(case: Any) -> None:
    found = type_outcome(table([float(i) for i in range(21)]), case())
    assert found.task.kind == "number"
    assert found.values.dtype == np.float64
    assert type_outcome(table(list(range(20)) * 10), case()).task.kind == "classes"


def test_marks_of_which_some_are_rare_are_a_number(case: Any) -> None:
    marks = [i % 12 for i in range(240)] + [19]
    assert type_outcome(table(marks), case()).task.kind == "number"


def test_a_payoff_of_the_outcome_makes_it_a_number(case: Any) -> None:
    values = [0, 1, 2] * 10
    assert type_outcome(table(values), case(payoff="3 * outcome - 1")).task.kind == "number"
    assert type_outcome(table(values), case(payoff="3 * x")).task.kind == "classes"
    assert type_outcome(table(values), case(payoff="`outcome` * outcomes")).task.kind == "classes"
    assert type_outcome(table([0, 1] * 10), case(payoff="3 * outcome - 1")).task.kind == "classes"


def test_payoffs_by_outcome_make_classes(case: Any) -> None:
    found = type_outcome(table(list(range(25)) * 10), case(payoff={str(i): "1" for i in range(25)}))
    assert found.task.kind == "classes"


def test_the_declared_type_overrules(case: Any) -> None:
    assert type_outcome(table([0, 1] * 10), case(type="number")).task.kind == "number"
    assert type_outcome(table(list(range(30)) * 10), case(type="classes")).task.kind == "classes"


def test_missing_outcomes_are_counted_and_set_aside(case: Any) -> None:
    found = type_outcome(table([*["a", "b"] * 10, None, None]), case())
    assert found.known.sum() == 20
    assert found.values[-2:].tolist() == [-1, -1]
    assert found.findings[0].detail == "The outcome 'y' is not known in 2 rows; they are neither trained on nor evaluated."
    assert (found.findings[0].kind, found.findings[0].count, found.findings[0].action) == ("missing_outcome", 2, "set aside")
    numbers = type_outcome(table([*map(float, range(30)), None]), case())
    assert np.isnan(numbers.values[-1])
    assert not numbers.known[-1]


def test_payoff_keys_may_be_written_as_other_numbers(case: Any) -> None:
    spec = case(payoff={"0.0": "1", "1": "2"})
    found = type_outcome(table([0, 1] * 10), spec)
    assert payoffs_by_class(spec, found.task.classes)["act"]["payoff"] == {"0": "1", "1": "2"}
    assert payoffs_by_class(spec, ())["act"]["payoff"] == {"0.0": "1", "1": "2"}
    assert class_of("01.0", ("0", "1")) == "1"
    assert class_of("yes", ("0", "1")) is None


# ------------------------------------------------------------------------------------------------------------------ errors


def test_an_unknown_outcome_names_the_nearest(case: Any) -> None:
    with pytest.raises(
        CaseError, match=r"^data.outcome: got 'defalted'; expected a column of the data: defaulted, x; did you mean 'defaulted'\?$"
    ):
        type_outcome(pa.table({"defaulted": [0], "x": [1]}), case("defalted"))


def test_payoffs_of_values_that_are_not_there(case: Any) -> None:
    with pytest.raises(CaseError) as caught:
        type_outcome(table(["no", "yes"] * 10), case(payoff={"nope": "1", "y": "2"}))
    assert str(caught.value).splitlines() == [
        "decision.actions.act.payoff.nope: got 'nope'; expected a value of 'y': no, yes; did you mean 'no'?",
        "decision.actions.act.payoff.y: got 'y'; expected a value of 'y': no, yes",
    ]


@pytest.mark.parametrize(
    ("values", "declared", "message"),
    [
        ([None, None], {}, "data.outcome: 'y': got 'no known outcome in any row'; expected rows with outcomes; choose another outcome"),
        (["a"] * 12, {}, "data.outcome: 'y': got \"'a' in all 12 rows\"; expected at least two classes; add rows with another outcome"),
        (
            [2.0] * 12,
            {"type": "number"},
            "data.outcome: 'y': got 'one value in all rows'; expected a number that varies; choose another outcome",
        ),
        (
            ["a"] * 12 + ["b"] * 9,
            {},
            "data.outcome: 'y': got \"9 rows of 'b'\"; expected at least 10 rows of each class; merge it with another class, or leave those rows out",
        ),
        (
            [1] * 12 + [2],
            {},
            "data.outcome: 'y': got \"1 rows of '2'\"; expected at least 10 rows of each class; merge it with another class, or leave those rows out, or write data.type: number",
        ),
        (
            ["a", "b"],
            {"type": "number"},
            "data.outcome: 'y': got \"'a'\"; expected numbers, since data.type is number; write type: classes",
        ),
        (
            [f"t{i}" for i in range(101)],
            {},
            "data.outcome: 'y': got '101 different values'; expected at most 100 classes; choose another outcome",
        ),
        (
            list(range(101)),
            {"type": "classes"},
            "data.outcome: 'y': got '101 different values'; expected at most 100 classes; write data.type: number",
        ),
        (
            [datetime(2020, 1, 1)] * 3,
            {},
            "data.outcome: 'y': got 'dates'; expected classes or numbers; derive a number of days, or a class, from it",
        ),
    ],
)
def test_outcomes_that_cannot_be_learnt(case: Any, values: list[Any], declared: dict[str, str], message: str) -> None:
    with pytest.raises(DataError) as caught:
        type_outcome(table(values), case(**declared))
    assert str(caught.value) == message


def test_several_labels_a_row_are_refused_by_name(case: Any) -> None:
    with pytest.raises(NotBuilt, match=r"data\.outcome: 'y': got 'lists'; expected one label a row: .*; write a case for each label"):
        type_outcome(table([["a", "b"], ["a"]] * 10), case())
