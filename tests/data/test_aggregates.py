from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makegood.data.aggregates import QUANTILES, _of_numbers, as_text, summarise


@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_quantiles_and_counts_agree_with_numpy(numbers: list[float | None]) -> None:
    found = summarise(pa.table({"x": pa.array(numbers, pa.float64())}))["x"]
    present = [x for x in numbers if x is not None]
    assert (found.n_missing, found.n_unique) == (len(numbers) - len(present), len(set(present)))
    np.testing.assert_allclose(found.quantiles, np.quantile(present, QUANTILES) if present else (), rtol=1e-9, atol=1e-9)


def test_levels_come_most_frequent_first_and_ties_by_letter() -> None:
    found = summarise(pa.table({"s": ["b", "a", "c", "c", None, "two words"]}), max_levels=3)["s"]
    assert found.levels == (("c", 2), ("a", 1), ("b", 1))
    assert (found.n_missing, found.n_unique) == (1, 4)
    assert found.length == pytest.approx((1 + 1 + 1 + 1 + 9) / 5)
    assert found.words == pytest.approx(6 / 5)


def test_names_of_any_letters_and_case_are_columns_of_their_own() -> None:
    table = pa.table({"a": [1], "A": [2], 'q"uo te': [3], "名 前": [4], "select": ["x"]})
    found = summarise(table)
    assert [found[name].quantiles[0] for name in table.column_names[:4]] == [1.0, 2.0, 3.0, 4.0]
    assert found["select"].levels == (("x", 1),)


def test_both_plans_count_the_same() -> None:
    import duckdb

    rng = np.random.default_rng(0)
    table = pa.table({"c0": rng.normal(size=1000), "c1": pa.array([None if x < 0 else x for x in rng.normal(size=1000)], pa.float64())})
    with duckdb.connect() as connection:
        connection.register("t", table)
        few, many = (sorted(connection.execute(_of_numbers(["c0", "c1"], n)).fetchall()) for n in (1000, 1_000_000))
    assert few == many


def test_codes_are_counted_as_texts_where_the_case_says_so() -> None:
    found = summarise(pa.table({"k": [1.0, 2.0, 2.0, None]}), texts=["k"])["k"]
    assert found.levels == (("2", 2), ("1", 1))
    assert not found.quantiles


def test_empty_columns() -> None:
    found = summarise(pa.table({"n": pa.nulls(3, pa.float64()), "s": pa.nulls(3, pa.string())}))
    assert [(s.n_missing, s.n_unique, s.quantiles, s.levels) for s in found.values()] == [(3, 0, (), ()), (3, 0, (), ())]


def test_dates_are_days_since_1970() -> None:
    assert summarise(pa.table({"t": pa.array([datetime(1970, 1, 2, 12)], pa.timestamp("us"))}))["t"].quantiles[4] == 1.5


def test_canonical_texts() -> None:
    assert as_text(pa.chunked_array([[1.0, 2.5, None]])).to_pylist() == ["1", "2.5", None]
    assert as_text(pa.chunked_array([[True, None]])).to_pylist() == ["true", None]
