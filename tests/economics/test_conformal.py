from __future__ import annotations

import json

import numpy as np
import pytest

from makegood.economics.conformal import Conformal, fit_conformal

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def test_each_level_holds_its_share_of_fresh_rows() -> None:
    rng = np.random.default_rng(0)
    y = rng.exponential(size=20_000)
    q = np.tile([0.5, 0.5, 0.5, 0.5, 0.5], (20_000, 1))
    moved = fit_conformal(q[:10_000], y[:10_000], LEVELS).apply(q[10_000:])
    np.testing.assert_allclose((y[10_000:, None] <= moved).mean(axis=0), LEVELS, atol=0.015)


def test_low_levels_err_low_and_high_ones_high() -> None:
    y = np.arange(1.0, 51.0)  # 51 places between and beside fifty rows: no level is met exactly
    found = fit_conformal(np.zeros((50, 3)), y, (0.1, 0.5, 0.9))
    assert found.offsets.tolist() == [5.0, 25.5, 46.0]


def test_a_level_beyond_the_rows_takes_the_outermost() -> None:
    found = fit_conformal(np.zeros((5, 2)), np.arange(5.0), (0.05, 0.95))
    assert found.offsets.tolist() == [0.0, 4.0]


def test_quantiles_are_in_order_afterwards() -> None:
    found = Conformal(np.array([3.0, 0.0, -3.0])).apply(np.array([[1.0, 2.0, 3.0]]))
    assert found.tolist() == [[0.0, 2.0, 4.0]]


def test_a_horizon_has_offsets_of_its_own() -> None:
    rng = np.random.default_rng(1)
    steps = np.array([1.0, 4.0, 9.0])
    y = rng.normal(size=(5000, 3)) * steps
    q = np.zeros((5000, 3, len(LEVELS)))
    found = fit_conformal(q, y, LEVELS)
    assert found.offsets.shape == (3, 5)
    np.testing.assert_allclose(found.offsets[:, -1], 1.645 * steps, rtol=0.1)
    assert found.apply(q).shape == q.shape


def test_unknown_outcomes_are_left_out() -> None:
    y = np.array([1.0, 2.0, np.nan, 3.0])
    q = np.zeros((4, 1))
    assert fit_conformal(q, y, (0.5,)).offsets == fit_conformal(q[[0, 1, 3]], y[[0, 1, 3]], (0.5,)).offsets
    nothing = fit_conformal(q, np.full(4, np.nan), (0.5,), clusters=np.array([1, 1, 2, 2]))
    assert nothing.offsets.tolist() == [0.0]
    assert nothing.n == 2


def test_every_group_weighs_the_same() -> None:
    """One group of a thousand rows at 100 beside nine of one row at 1 to 9: row by row the median would be 100."""
    y = np.concatenate([np.full(1000, 100.0), np.arange(1.0, 10.0)])
    clusters = np.concatenate([np.zeros(1000, dtype=int), np.arange(1, 10)])
    q = np.zeros((len(y), 1))
    assert fit_conformal(q, y, (0.5,)).offsets[0] == 100.0
    assert fit_conformal(q, y, (0.5,), clusters=clusters).offsets[0] == pytest.approx(5.5)


def test_offsets_survive_json() -> None:
    found = Conformal(np.array([[0.1 + 0.2, 1 / 3], [-1e-9, 5.0]]), 77)
    again = Conformal.from_json(json.loads(json.dumps(found.to_json())))
    assert np.array_equal(again.offsets, found.offsets)
    assert again.n == 77


def test_a_row_alone_and_among_others_is_the_same_to_the_last_bit() -> None:
    found = Conformal(np.array([0.1, -0.2, 0.3]))
    q = np.random.default_rng(2).normal(size=(500, 3))
    assert all(np.array_equal(found.apply(q[i : i + 1])[0], row) for i, row in enumerate(found.apply(q)))
