"""The table of families."""

from __future__ import annotations

import pytest

from makegood.case import FAMILIES
from makegood.contracts import Task
from makegood.errors import CaseError
from makegood.families import TABLE, find


def test_the_table_holds_the_families_that_a_case_may_name() -> None:
    assert tuple(TABLE) == FAMILIES


def test_candidates_come_in_the_order_asked_for() -> None:
    found = find(["linear", "constant"])
    assert [candidate.name for candidate in found] == ["linear", "constant"]
    assert [type(candidate.make(Task("number"))).__name__ for candidate in found] == ["Linear", "Constant"]


def test_an_unknown_family_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(CaseError) as error:
        find(["lightgmb"])
    expected = "train.families: got 'lightgmb'; expected some of constant, linear, lightgbm; did you mean 'lightgbm'?"
    assert str(error.value) == expected
