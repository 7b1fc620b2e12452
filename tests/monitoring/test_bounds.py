from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from makegood.contracts import Floats
from makegood.economics import value
from makegood.monitoring import bounds


def even(n: int, seed: int) -> Floats:
    """Return numbers without skewness."""
    x = np.random.default_rng(seed).normal(size=n // 2)
    return np.concatenate([x, -x])


def test_a_point_gets_the_interval_of_student() -> None:
    x = even(200, 0)
    found = bounds.identified(x, x, "EUR")
    reach = t.ppf(0.975, 199) * x.std(ddof=1) / np.sqrt(200)
    assert (found.value, found.low, found.high) == pytest.approx((x.mean(), x.mean() - reach, x.mean() + reach))
    assert found.unit == "EUR"
    assert not found.tail_limited


def test_a_wide_interval_gets_one_sided_limits() -> None:
    x = even(200, 0)
    found = bounds.identified(x, x + 100.0)
    reach = t.ppf(0.95, 199) * x.std(ddof=1) / np.sqrt(200)
    assert (found.low, found.high) == pytest.approx((x.mean() - reach, x.mean() + 100.0 + reach))


def test_between_the_two_the_reach_solves_the_equation_of_imbens_and_manski() -> None:
    low = even(300, 1)
    high = low + 0.1 + 0.05 * np.concatenate([even(150, 2), even(150, 2)])
    found = bounds.identified(low, high, level=0.9)
    errors = [x.std(ddof=1) / np.sqrt(300) for x in (low, high)]
    c = (low.mean() - found.low) / errors[0]
    assert c == pytest.approx((found.high - high.mean()) / errors[1])
    assert t.cdf(c + (high.mean() - low.mean()) / max(errors), 299) - t.cdf(-c, 299) == pytest.approx(0.9)


def test_a_long_tail_reaches_farther_on_its_side() -> None:
    x = np.random.default_rng(5).exponential(size=400)
    found, mirrored = bounds.identified(x, x + 50.0), bounds.identified(-x - 50.0, -x)
    error, skewness = x.std(ddof=1) / 20.0, ((x - x.mean()) ** 3).mean() / x.std() ** 3
    c = t.ppf(0.95, 399)
    assert found.low == pytest.approx(x.mean() - c * error)
    assert found.high == pytest.approx(x.mean() + 50.0 + error * (c + skewness * (2.0 * c**2 + 1.0) / 6.0 / 20.0))
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_rows_of_a_cluster_count_once() -> None:
    x = np.random.default_rng(2).normal(size=50)
    clusters = np.tile(np.arange(50), 20)
    alone, repeated = bounds.identified(x, x + 1), bounds.identified(np.tile(x, 20), np.tile(x + 1, 20), clusters=clusters)
    assert (repeated.low, repeated.high) == pytest.approx((alone.low, alone.high))
    naive = bounds.identified(np.tile(x, 20), np.tile(x + 1, 20))
    assert naive.low > alone.low


def test_few_clusters_have_no_interval() -> None:
    found = bounds.identified(np.zeros(50), np.ones(50), clusters=np.arange(50) % (value.FEWEST - 1))
    assert found.value == 0.5
    assert np.isnan([found.low, found.high]).all()
    single = bounds.identified(np.zeros(3), np.ones(3), clusters=np.zeros(3, dtype=np.int64))
    assert np.isnan([single.low, single.high]).all()


def test_what_never_varies_is_exact() -> None:
    found = bounds.identified(np.zeros(50), np.ones(50))
    assert (found.low, found.high) == (0.0, 1.0)


def test_an_infinite_bound_stays_infinite() -> None:
    x = np.random.default_rng(3).normal(size=100)
    low = np.where(np.arange(100) == 7, -np.inf, x)
    found = bounds.identified(low, x)
    assert np.isnan(found.value)
    assert found.low == -np.inf
    assert x.mean() < found.high < x.mean() + 0.3
    assert bounds.identified(low, -low).high == np.inf


def test_a_heavy_tail_is_flagged() -> None:
    x = np.zeros(100)
    x[0] = 1000.0
    assert bounds.identified(x, x).tail_limited


@given(st.integers(0, 10_000), st.floats(0.01, 100.0), st.floats(-100.0, 100.0), st.floats(0.0, 10.0))
def test_the_interval_holds_the_bounds_and_moves_with_the_unit_of_money(seed: int, scale: float, shift: float, width: float) -> None:
    rng = np.random.default_rng(seed)
    low = rng.normal(size=30)
    high = low + width * rng.random(30)
    found, moved = bounds.identified(low, high), bounds.identified(low * scale + shift, high * scale + shift)
    assert found.low <= low.mean() <= high.mean() <= found.high
    assert (moved.low, moved.high) == pytest.approx((found.low * scale + shift, found.high * scale + shift), abs=1e-6 * (1 + abs(shift)))


def test_payoffs_are_bounded_only_where_they_are_not_known() -> None:
    paid = np.array([[np.nan, 0.0], [10.0, 0.0], [-50.0, 0.0]])
    between = bounds.ends(np.tile([[10.0, -50.0], [0.0, 0.0]], (3, 1, 1)))
    low, high = bounds.payoffs(np.array([0, 0, 1]), paid, between)
    assert low.tolist() == [-50.0, 10.0, 0.0]
    assert high.tolist() == [10.0, 10.0, 0.0]


def test_a_policy_by_chance_is_the_mean_of_its_options() -> None:
    rng = np.random.default_rng(4)
    paid = np.where(rng.random((40, 3)) < 0.5, rng.normal(size=(40, 3)), np.nan)
    between = -5.0 - rng.random((40, 3)), 5.0 + rng.random((40, 3))
    share = rng.dirichlet(np.ones(3), 40)
    low, high = bounds.payoffs(share, paid, between)
    each = [bounds.payoffs(np.full(40, a), paid, between) for a in range(3)]
    np.testing.assert_allclose(low, sum(share[:, a] * each[a][0] for a in range(3)))
    np.testing.assert_allclose(high, sum(share[:, a] * each[a][1] for a in range(3)))


def test_what_is_never_done_may_pay_anything() -> None:
    between = np.array([[0.0, -np.inf]]), np.array([[1.0, np.inf]])
    low, high = bounds.payoffs(np.array([[1.0, 0.0]]), np.full((1, 2), np.nan), between)
    assert (low.tolist(), high.tolist()) == ([0.0], [1.0])
