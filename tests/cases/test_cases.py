"""The built-in cases are real data, read offline from a dependency."""

from __future__ import annotations

import pytest

from makegood import cases
from makegood.errors import CaseError, MissingExtra


@pytest.mark.parametrize("name", cases.names())
def test_every_case_loads_and_names_its_own_table(name: str) -> None:
    case = cases.load(name)
    assert case.case == name
    table = cases.builtin(case.data.source.removeprefix("builtin:"))
    assert case.data.outcome in table.column_names
    assert cases.TABLES[name].source


def test_diagnosis_is_the_published_table() -> None:
    table = cases.builtin("diagnosis")
    assert (table.num_rows, table.num_columns) == (569, 31)
    outcome = table["diagnosis"].to_pylist()
    assert outcome.count("malignant") == 212
    assert outcome.count("benign") == 357
    assert table["mean radius"][0].as_py() == 17.99


def test_credit_risk_keeps_every_row_and_mends_the_shifted_ones() -> None:
    table = cases.builtin("credit-risk")
    assert table.num_rows == 40_000
    assert set(table["defaulted"].to_pylist()) == {"yes", "no"}
    assert set(table["flag_mobile_phone"].to_pylist()) == {"N"}
    assert min(table["personal_net_income"].to_pylist()) >= 0


def test_unknown_names() -> None:
    with pytest.raises(
        CaseError, match="case: got 'diagnsis'; expected a case file, or one of credit-risk, diagnosis; did you mean 'diagnosis'"
    ):
        cases.load("diagnsis")
    with pytest.raises(CaseError, match="builtin:nothing"):
        cases.builtin("nothing")


def test_a_missing_package_is_one_line_with_the_command() -> None:
    with pytest.raises(MissingExtra, match=r"data of nowhere: got 'not installed'.*pip install 'makegood\[cases\]'"):
        cases._shipped("nowhere", "x.csv", "cases")
