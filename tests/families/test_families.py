"""The table of families."""

from __future__ import annotations

import subprocess
import sys

import pytest

from makegood.case import FAMILIES, NETWORKS
from makegood.contracts import Task
from makegood.errors import CaseError
from makegood.families import TABLE, find


def test_the_table_holds_the_families_that_a_case_may_name() -> None:
    assert tuple(TABLE) == FAMILIES + NETWORKS


def test_candidates_come_in_the_order_asked_for() -> None:
    found = find(["linear", "constant"])
    assert [candidate.name for candidate in found] == ["linear", "constant"]
    assert [type(candidate.make(Task("number"))).__name__ for candidate in found] == ["Linear", "Constant"]


def test_an_unknown_family_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(CaseError) as error:
        find(["lightgmb"])
    expected = "train.families: got 'lightgmb'; expected some of constant, linear, lightgbm, mlp, transformer; did you mean 'lightgbm'?"
    assert str(error.value) == expected


def test_a_network_without_torch_names_the_missing_extra() -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from makegood.errors import MissingExtra\n"
        "from makegood.families import find\n"
        "try: find(['mlp'])\n"
        "except MissingExtra as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert out == "train.families: got 'mlp'; expected torch, which trains networks; pip install 'makegood[deep]'"
