"""The shared values: what they print, and what they keep."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError

import numpy as np
import pyarrow as pa
import pytest

from makegood.contracts import Budget, Dataset, Estimate, Probabilities, Usage, rows_of


def test_an_estimate_prints_for_people_and_gives_valid_json() -> None:
    assert str(Estimate(1234.5, -2.0, 0.0123, "EUR")) == "1,234 [-2, 0.0123] EUR"
    data = Estimate(1.0, math.nan, math.inf, "EUR").to_json()
    assert data["low"] is None
    assert data["high"] is None
    assert json.loads(json.dumps(data, allow_nan=False))["value"] == 1.0


def test_usages_add_up_and_a_memory_that_is_not_told_stays_so() -> None:
    assert Usage(1.0, 2.0, 3.0, None, 4.0) + Usage(1.0, 1.0, 1.0, None, 1.0) == Usage(2.0, 3.0, 4.0, None, 5.0)
    assert (Usage() + Usage(peak_bytes=7)).peak_bytes == 7


def test_values_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Estimate(1, 2, 3).value = 4  # type: ignore[misc]


def test_a_dataset_takes_rows_in_order_and_forgets_the_outcome() -> None:
    data = Dataset(pa.table({"a": [1, 2, 3]}), np.arange(6, dtype=np.float32).reshape(3, 2), np.array([0, 1, 0]), np.ones(3))
    part = data.take(np.array([2, 0]))
    assert part.table["a"].to_pylist() == [3, 1]
    assert part.features is not None
    assert part.features.tolist() == [[4, 5], [0, 1]]
    assert part.outcome is not None
    assert part.outcome.tolist() == [0, 0]
    assert len(part) == 2
    assert part.without_outcome().outcome is None
    bare = Dataset(pa.table({"a": [1, 2]})).take(np.array([1]))
    assert (bare.features, bare.outcome, bare.weight, bare.shape) == (None, None, None, None)
    image = Dataset(pa.table({"a": [1, 2]}), np.zeros((2, 12), np.float32), shape=(2, 2, 3))
    assert (image.take(np.array([1])).shape, image.without_outcome().shape) == ((2, 2, 3), (2, 2, 3))


def test_budget_is_never_negative() -> None:
    assert Budget(10, start=100).left(104) == 6
    assert Budget(10, start=100).left(200) == 0


def test_lengths() -> None:
    assert len(Probabilities(("no", "yes"), np.zeros((4, 2)))) == 4
    assert rows_of({}) == 0
