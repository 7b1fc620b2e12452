from __future__ import annotations

import numpy as np
import pytest

from makegood.economics import resample


def test_gather_keeps_rows_without_clusters() -> None:
    parts = np.arange(6.0).reshape(3, 2)
    assert resample.gather(parts) is parts


def test_gather_sums_every_column_by_cluster() -> None:
    rng = np.random.default_rng(0)
    parts, clusters = rng.normal(size=(500, 3)), rng.integers(-7, 30, 500)
    found = resample.gather(parts, clusters)
    expected = [parts[clusters == c].sum(axis=0) for c in np.unique(clusters)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("n", [2000, 2001, 3999, 4001, 123_457])
def test_pool_keeps_every_unit_once_in_blocks_of_equal_numbers(n: int) -> None:
    x = np.random.default_rng(1).normal(size=n)
    found = resample.pool(np.column_stack([x, np.ones(n)]), seed=3)
    assert len(found) <= resample.MAX_UNITS
    assert found[:, 0].sum() == pytest.approx(x.sum())
    assert found[:, 1].sum() == n
    assert len(np.unique(found[:-1, 1])) == 1


def test_pool_is_random_by_seed() -> None:
    units = np.column_stack([np.arange(5000.0), np.ones(5000)])
    assert np.array_equal(resample.pool(units, 1), resample.pool(units, 1))
    assert not np.array_equal(resample.pool(units, 1), resample.pool(units, 2))


def test_effective_counts_no_units_as_none() -> None:
    assert resample.effective(np.array([])) == 0.0


def test_skewed_is_the_rule_n_below_25_squared_skewness() -> None:
    rng = np.random.default_rng(2)
    seen = set()
    for n in (30, 100, 300, 1000):
        for sigma in (0.2, 0.6, 1.0, 1.5):
            x = rng.lognormal(0.0, sigma, n)
            r = x - x.mean()
            skewness = np.mean(r**3) / np.mean(r**2) ** 1.5
            assert resample.skewed(r) == (n < 25 * skewness**2)
            seen.add(resample.skewed(r))
    assert seen == {True, False}
    assert not resample.skewed(np.zeros(10))


def test_jackknife_of_equal_blocks_is_the_variance_of_their_means() -> None:
    rng = np.random.default_rng(3)
    blocks = rng.normal(size=(25, 8))
    mean, covariance = resample.jackknife(np.column_stack([blocks.sum(axis=1), np.full(25, 8.0)]))
    means = blocks.mean(axis=1)
    assert mean[0] == pytest.approx(blocks.mean())
    assert covariance[0, 0] == pytest.approx(means.var(ddof=1) / 25)


def test_jackknife_leaves_out_one_unit_at_a_time() -> None:
    rng = np.random.default_rng(4)
    units = np.column_stack([rng.normal(size=(12, 2)), rng.integers(1, 9, 12)])
    left_out = np.array([(units.sum(axis=0) - u)[:2] / (units.sum(axis=0) - u)[2] for u in units])
    deviation = left_out - left_out.mean(axis=0)
    np.testing.assert_allclose(resample.jackknife(units)[1], deviation.T @ deviation * 11 / 12, rtol=1e-12)


def test_studentised_is_the_bootstrap_written_out() -> None:
    rng = np.random.default_rng(5)
    units = np.column_stack([rng.exponential(size=50), rng.integers(1, 4, 50)])
    mean = units[:, 0].sum() / units[:, 1].sum()
    ratios = []
    draws = np.random.default_rng(7)
    for _ in range(1999):
        drawn = units[draws.integers(0, 50, 50)]
        theirs = drawn[:, 0].sum() / drawn[:, 1].sum()
        residual = drawn[:, 0] - theirs * drawn[:, 1]
        ratios.append((theirs - mean) / np.sqrt(residual @ residual * 50 / 49 / drawn[:, 1].sum() ** 2))
    residual = units[:, 0] - mean * units[:, 1]
    error = np.sqrt(residual @ residual * 50 / 49) / units[:, 1].sum()
    below, above = np.quantile(ratios, [0.025, 0.975])
    expected = (mean - above * error, mean - below * error)
    assert resample.studentised(units, level=0.95, seed=7) == pytest.approx(expected)


def test_studentised_leans_towards_the_long_tail() -> None:
    x = np.random.default_rng(6).exponential(size=200)
    low, high = resample.studentised(np.column_stack([-x, np.ones(200)]), level=0.95, seed=0)
    assert -x.mean() - low > high + x.mean() > 0


def test_studentised_stays_finite_where_a_resample_may_miss_every_loss() -> None:
    x = np.zeros(1000)
    x[:2] = -500.0
    low, high = resample.studentised(np.column_stack([x, np.ones(1000)]), level=0.95, seed=0)
    assert -5.0 < low < -1.0
    assert high == pytest.approx(0.0, abs=0.5)


def test_studentised_of_a_constant_is_a_point() -> None:
    assert resample.studentised(np.ones((50, 2)), level=0.95, seed=0) == (1.0, 1.0)


def test_studentised_at_a_strict_level_draws_more() -> None:
    units = np.column_stack([np.random.default_rng(8).normal(size=100), np.ones(100)])
    usual = resample.studentised(units, level=0.95, seed=0)
    strict = resample.studentised(units, level=0.999, seed=0)
    assert strict[0] < usual[0] < usual[1] < strict[1]
