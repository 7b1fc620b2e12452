from __future__ import annotations

import numpy as np
import pytest
import ville

from makegood.monitoring import asymptotic

N = np.array([100, 1_000, 10_000, 250_000])


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_the_boundary_is_that_of_ville(alpha: float) -> None:
    rho = asymptotic.precision(alpha)
    ours = asymptotic.boundary(N, alpha, rho)
    np.testing.assert_allclose(ours, ville.normal_mixture(N, alpha, rho, one_sided=True), rtol=1e-6)
    assert asymptotic.log_evidence(ours, N, rho) == pytest.approx(np.full(4, -np.log(alpha)))


def test_the_sequence_is_narrowest_about_where_it_was_tuned() -> None:
    widest = min(asymptotic.boundary(np.array([10_000]), 0.05, rho)[0] for rho in np.geomspace(100.0, 100_000.0, 200).tolist())
    assert asymptotic.boundary(np.array([10_000]), 0.05, asymptotic.precision(0.05))[0] < 1.002 * widest


def test_the_interval_is_mean_and_spread_times_the_boundary() -> None:
    z = 1e6 + np.random.default_rng(0).normal(2.0, 3.0, 5_000)
    found = asymptotic.sequence(z, 0.05, np.array([5_000]))
    reach = z.std() * asymptotic.boundary(np.array([5_000]), 0.05, asymptotic.precision(0.05))[0] / 5_000
    assert found.value[0] == pytest.approx(z.mean())
    assert found.low[0] == pytest.approx(z.mean() - reach, abs=1e-6)
    assert found.high[0] == pytest.approx(z.mean() + reach, abs=1e-6)


def test_evidence_reaches_its_limit_with_the_lower_end() -> None:
    z = np.random.default_rng(1).normal(0.05, 1.0, 5_000)
    low = float(asymptotic.sequence(z, 0.05, np.array([5_000])).low[0])
    assert asymptotic.evidence(z, low - 1e-6, 0.05) > 20.0 > asymptotic.evidence(z, low + 1e-6, 0.05)


def test_nothing_is_said_of_few_units_and_of_such_as_do_not_differ() -> None:
    few = np.random.default_rng(2).normal(9.0, 1.0, 99)
    assert np.isinf(asymptotic.sequence(few, 0.05).low).all()
    assert asymptotic.evidence(few, 0.0, 0.05) == 1.0
    same = np.full(500, 0.1)
    assert np.isinf(asymptotic.sequence(same, 0.05).high).all()
    assert asymptotic.evidence(same, 0.0, 0.05) == 1.0
    assert len(asymptotic.sequence(np.empty(0), 0.05)) == 0


def test_evidence_without_measure_stays_a_number() -> None:
    assert np.isfinite(asymptotic.evidence(np.tile([9.0, 9.1], 100_000), 0.0, 0.05))


def test_of_normal_money_it_errs_about_as_stated() -> None:
    ends, wrong = np.unique(np.geomspace(100, 20_000, 100).astype(int)), 0
    for seed in range(300):
        z = np.random.default_rng([seed, 12]).normal(size=20_000)
        wrong += bool((asymptotic.sequence(z, 0.05, ends).low >= 0.0).any())
    assert wrong / 300 <= 0.05 + 2.33 * np.sqrt(0.05 * 0.95 / 300)
