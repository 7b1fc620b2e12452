from __future__ import annotations

import numpy as np
import pytest
import ville
from hypothesis import given
from hypothesis import strategies as st

from makegood.contracts import Floats
from makegood.monitoring import betting


def plain(z: Floats, bound: float, mean: float) -> float:
    """K(m) as MATHEMATICS §7 writes it, one unit and one bet after another."""
    found = []
    for bet in betting.BETS:
        at_m = bet * (bound + mean) / (bound + bet * mean)  # the λ in (0, 1) that the fixed bet stands for at m
        assert 0.0 < at_m < 1.0
        capital = 1.0
        for x in z:
            capital *= 1.0 + at_m * (x - mean) / (bound + mean)
        found.append(capital)
    return float(np.mean(found))


@given(
    st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.0, 0.5, 3.0]), max_size=90), st.lists(st.integers(0, 90), max_size=6), st.floats(-1.9, 4.0)
)
def test_evidence_is_that_of_the_plain_loop(values: list[float], cuts: list[int], mean: float) -> None:
    z, ends = np.array(values), np.array(sorted(min(cut, len(values)) for cut in cuts), dtype=np.int64)
    wealth = betting.log_wealth(z, 2.0, ends)
    assert wealth.shape == (len(ends), len(betting.BETS))
    for row, end in zip(wealth, ends.tolist(), strict=True):
        assert betting.evidence(row, end, mean, 2.0) == pytest.approx(plain(z[:end], 2.0, mean), rel=1e-9)


def test_a_bet_at_the_least_gain_of_zero_is_the_declared_one() -> None:
    z = np.random.default_rng(0).uniform(-1.0, 1.0, 50)
    wealth = betting.log_wealth(z, 1.0, np.array([50]))[0]
    expected = [np.log(np.prod(1.0 + bet * (z - 0.0) / (1.0 + 0.0))) for bet in betting.BETS]
    np.testing.assert_allclose(wealth, expected, rtol=1e-12)
    assert betting.BETS[0] == pytest.approx(1.0 / 1025.0)
    assert betting.BETS[-1] == pytest.approx(8.0 / 9.0)


def test_losses_and_gains_without_measure_neither_overflow_nor_vanish() -> None:
    wealth = betting.log_wealth(np.full(100_000, 1e250), 1.0, np.array([100_000]))
    assert np.isfinite(wealth).all()
    assert betting.evidence(wealth[0], 100_000, 0.0, 1.0) == pytest.approx(np.exp(690.0))
    lost = betting.log_wealth(np.full(100_000, -1.0), 1.0, np.array([100_000]))
    assert np.isfinite(lost).all()
    assert betting.evidence(lost[0], 100_000, 0.0, 1.0) < 1e-40


@given(st.integers(1, 400), st.integers(0, 99))
def test_the_interval_is_what_evidence_leaves(n: int, seed: int) -> None:
    z = np.random.default_rng(seed).choice([-1.0, 0.0, 2.0], size=n)
    found = betting.sequence(z, 1.0, 0.05, above=2.0, ends=np.array([n]))
    low, high = float(found.low[0]), float(found.high[0])
    assert -1.0 <= low <= found.value[0] <= high <= 2.0
    wealth, mirrored = betting.log_wealth(z, 1.0, np.array([n]))[0], betting.log_wealth(-z, 2.0, np.array([n]))[0]
    if low > -1.0 + 1e-9:
        assert betting.evidence(wealth, n, low - 1e-6, 1.0) >= 20.0
    assert betting.evidence(wealth, n, low + 1e-6, 1.0) < 20.0
    if high < 2.0 - 1e-9:
        assert betting.evidence(mirrored, n, -high - 1e-6, 2.0) >= 20.0
    assert betting.evidence(mirrored, n, -high + 1e-6, 2.0) < 20.0


def test_a_gain_above_what_was_declared_leaves_the_lower_end_and_no_upper_one() -> None:
    z = np.tile([1.0, -0.5], 300)
    closed, broken = betting.sequence(z, 1.0, 0.05, above=1.0), betting.sequence(np.append(z, 9.0), 1.0, 0.05, above=1.0)
    assert np.isfinite(closed.high).all()
    assert np.isinf(broken.high).all()
    assert np.isinf(betting.sequence(z, 1.0, 0.05).high).all()
    assert broken.low[-1] > 0.0


def test_a_path_has_no_more_points_than_are_drawn() -> None:
    for n in (0, 1, 239, 240, 241, 100_000):
        found = betting.points(n)
        assert len(found) == min(n, 240)
        assert n == 0 or found[-1] == n
        assert (np.diff(found) > 0).all()
    assert len(betting.sequence(np.empty(0), 1.0, 0.05, above=1.0)) == 0


# ------------------------------------------------------------------------------------------------------- others' implementation


@pytest.mark.parametrize("mean", [-0.5, 0.0, 0.3])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.02])
def test_evidence_is_that_of_ville_at_the_same_bets_and_bound(mean: float, share: float) -> None:
    z = np.random.default_rng(3).choice([-2.0, -0.1, 0.0, 1.0, 2.0], size=1500, p=[0.1, 0.2, 0.2, 0.3, 0.2])
    # ville bets what it learns from the units, at most c/m of what is scaled to [0, 1]; with a c so small it always bets c/m, our λ = c
    theirs = ville.BettingTest(mean, bounds=(-2.0, 2.0), alternative="greater", c=share).fit(z).log_e_values_
    scaled = (mean + 2.0) / 4.0
    assert share / scaled < 0.1, "less than ville would bet by itself"
    bet = np.array([share * 2.0 / (mean + 2.0 - share * mean)])  # λ at 0 that is `share` at m
    ends = np.arange(1, len(z) + 1)
    ours = betting.log_evidence(betting.log_wealth(z, 2.0, ends, bet), ends, mean, 2.0, bet)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_the_mixture_and_its_interval_are_those_of_villes_capital() -> None:
    z = np.random.default_rng(4).choice([-1.0, 0.0, 1.0], size=1200, p=[0.2, 0.3, 0.5])
    bets = np.array([0.002, 0.01, 0.03])

    def theirs(mean: float) -> float:
        at_m = bets * (1.0 + mean) / (1.0 + bets * mean)
        capital = [ville.BettingTest(mean, bounds=(-1.0, 1.0), alternative="greater", c=c).fit(z).e_values_[-1] for c in at_m.tolist()]
        return float(np.mean(capital))

    ends = np.array([len(z)])
    wealth = betting.log_wealth(z, 1.0, ends, bets)
    assert float(betting.log_evidence(wealth, ends, 0.1, 1.0, bets)[0]) == pytest.approx(np.log(theirs(0.1)), abs=1e-6)
    low, high = -0.9, float(z.mean())
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if theirs(middle) >= 20.0 else (low, middle)
    assert float(betting.lower(wealth, ends, z.mean(keepdims=True), 1.0, 0.05, bets)[0]) == pytest.approx(low, abs=1e-6)


@pytest.mark.parametrize("alpha", [0.05, 0.1])
def test_empirical_bernstein_is_that_of_ville(alpha: float) -> None:
    z = np.random.default_rng(5).uniform(-3.0, 2.0, 3000)
    theirs = ville.EmpiricalBernsteinCS(bounds=(-3.0, 5.0), alpha=alpha, c=0.5, intersect=False).fit(z)
    low, high = betting.bernstein(z, (-3.0, 5.0), alpha)
    np.testing.assert_allclose(low, theirs.lower_, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(high, theirs.upper_, rtol=1e-6, atol=1e-6)
