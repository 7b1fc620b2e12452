"""Errors tell where, what, what was expected and what to do, and survive a process boundary."""

from __future__ import annotations

import pickle

import pytest

from makegood.errors import BundleError, CaseError, DataError, MakegoodError, MissingExtra, NotBuilt, Problem, Refused, nearest


@pytest.mark.parametrize("kind", [BundleError, CaseError, DataError, MissingExtra, NotBuilt, Refused])
def test_every_error_is_ours_and_pickles(kind: type[MakegoodError]) -> None:
    error = kind(Problem("data.time", "whn", "a column", "write when"), "and a second")
    back = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(back) is kind
    assert str(back) == str(error) == "data.time: got 'whn'; expected a column; write when\nand a second"
    assert back.problems == error.problems
    assert isinstance(back, MakegoodError)


def test_a_problem_leaves_out_what_it_does_not_know() -> None:
    assert str(Problem("rows", "", "at least 30")) == "rows; expected at least 30"


def test_nearest_name() -> None:
    assert nearest("amuont", ["age", "amount"]) == "did you mean 'amount'?"
    assert nearest("x", []) == ""
