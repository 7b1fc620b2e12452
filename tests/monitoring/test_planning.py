from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import ville
from hypothesis import given
from hypothesis import strategies as st

from makegood.contracts import Floats
from makegood.monitoring import asymptotic, betting, planning
from makegood.monitoring.planning import Begun, Design

DESIGN = Design(spread=5.0, bound=20.0, per_day=100.0)


def power(gain: float, design: Design, units: int, runs: int = 400, before: Floats | None = None) -> float:
    """Return how often a test has promoted by then, of z that is −20 or 20 or 0, with the design's spread."""
    share = (design.spread**2 + gain**2) / 400.0
    up = 0.5 * (share + gain / 20.0)
    ends, found = np.unique(np.linspace(1, units, 100).astype(int)), 0
    for seed in range(runs):
        z = np.random.default_rng([seed, 14]).choice([20.0, -20.0, 0.0], size=units, p=[up, share - up, 1.0 - share])
        start = np.empty(0) if before is None else before
        ends_of = ends + len(start)
        z = np.concatenate([start, z])
        if np.isinf(design.bound):
            found += bool((asymptotic.sequence(z, design.alpha, ends_of).low >= design.min_gain).any())
        else:
            wealth = betting.log_wealth(z, 20.0, ends_of)
            found += bool(betting.log_evidence(wealth, ends_of, design.min_gain, 20.0).max() >= -np.log(design.alpha))
    return found / runs


@pytest.mark.parametrize(
    ("gain", "design"),
    [
        (0.5, DESIGN),
        (1.0, DESIGN),
        (1.0, replace(DESIGN, power=0.5)),
        (1.0, replace(DESIGN, min_gain=0.3)),
        (1.0, replace(DESIGN, bound=np.inf)),
    ],
)
def test_planned_units_have_the_power_asked_for(gain: float, design: Design) -> None:
    found = planning.plan(gain, design)
    reached = power(gain, design, int(found.units))
    assert design.power - 0.06 <= reached <= min(design.power + 0.3, 0.96)  # large gains and losses pass the limit by leaps
    assert found.days == found.units / 100.0
    assert found.least <= found.units


def test_a_test_that_runs_is_planned_from_where_it_stands() -> None:
    ahead = np.tile([20.0, -20.0, 0.0, 20.0] + [0.0] * 60, 5)
    wealth = betting.log_wealth(ahead, 20.0, np.array([len(ahead)]))[0]
    begun = planning.plan(1.0, DESIGN, Begun(len(ahead), wealth, float(ahead.sum())))
    assert begun.units < planning.plan(1.0, DESIGN).units
    assert 0.74 <= power(1.0, DESIGN, int(begun.units), before=ahead) <= 0.95


@given(st.floats(0.01, 5.0), st.floats(0.0, 2.0))
def test_less_evidence_cannot_suffice_than_is_said(gain: float, min_gain: float) -> None:
    design = replace(DESIGN, min_gain=min_gain)
    least = planning.least(gain, design)
    if gain <= min_gain:
        assert least == np.inf
    else:  # a bet of all one has on a gain without spread grows by log((b + gain)/(b + least gain)) a unit
        assert least <= np.log(20.0) / np.log((20.0 + gain) / (20.0 + min_gain)) * (1.0 + 1e-9)
    assert planning.least(gain, replace(design, bound=np.inf)) == 0.0


def test_no_gain_takes_for_ever_and_so_does_one_without_measure() -> None:
    assert planning.plan(0.0, DESIGN).units == np.inf
    assert planning.plan(0.0, DESIGN).days == np.inf
    assert planning.plan(1e-9, DESIGN).units == np.inf
    assert np.isnan(planning.plan(1.0, DESIGN).worth)
    assert planning.plan(1.0, DESIGN, worth=7.0).worth == 7.0
    sure = planning.plan(1.0, replace(DESIGN, spread=0.0, bound=np.inf))
    assert sure.units == pytest.approx(asymptotic.FEWEST, abs=1)


def test_the_spread_before_a_test_is_that_of_its_differences() -> None:
    rng = np.random.default_rng(0)
    paid = rng.normal(0.0, 1.0, 400_000)
    differs, theirs = rng.random(400_000) < 0.2, rng.random(400_000) < 0.1
    z = np.where(differs, np.where(theirs, paid / 0.1, -paid / 0.9), 0.0)
    assert planning.spread(0.2, paid, 0.1) == pytest.approx(float(z.std()), rel=0.05)


# ---------------------------------------------------------------------------------------------------------------- worth of waiting


@pytest.mark.parametrize(("gain", "error", "share"), [(0.0, 0.1, 0.0), (0.05, 0.1, 0.0), (-0.1, 0.2, 0.5), (0.1, 0.2, 0.5)])
def test_waiting_is_worth_what_a_simulation_of_it_earns(gain: float, error: float, share: float) -> None:
    rng = np.random.default_rng(1)
    design, units, left = Design(spread=3.0, share=share), 500, 20_000
    true = rng.normal(gain, error, 400_000)
    seen = rng.normal(true, 3.0 / np.sqrt(units))
    after = (gain / error**2 + seen * units / 9.0) / (1.0 / error**2 + units / 9.0)
    tested = (left - units) * np.where(after > 0.0, true, 0.0) + units * share * true
    now = left * max(gain, 0.0)
    expected, off = float(tested.mean() - now), float(tested.std() / np.sqrt(400_000))
    assert planning.waiting(gain, error, design, units, left) == pytest.approx(expected, abs=4 * off)


def test_waiting_is_worth_nothing_where_nothing_follows_or_nothing_is_known() -> None:
    assert planning.waiting(0.1, 0.1, DESIGN, units=500, left=400) == 0.0
    assert planning.waiting(0.1, 0.1, DESIGN, units=np.inf, left=400) == 0.0
    assert planning.waiting(np.nan, 0.1, DESIGN, units=5, left=400) == 0.0
    assert planning.waiting(0.1, 0.0, DESIGN, units=100, left=400) == pytest.approx(-10.0)
    assert planning.waiting(-0.1, 0.0, DESIGN, units=100, left=400) == 0.0
    assert planning.waiting(0.0, 0.0, DESIGN, units=100, left=400) == 0.0


# ------------------------------------------------------------------------------------------------------------------- several tests


@given(st.lists(st.floats(0.0, 500.0), max_size=8), st.sampled_from([0.01, 0.05, 0.2]))
def test_several_at_once_are_those_of_e_bh(evidence: list[float], alpha: float) -> None:
    assert planning.together(evidence, alpha).tolist() == ville.evalues.ebh(evidence, alpha).tolist()


def test_no_more_than_a_years_error_is_spent() -> None:
    shares = [planning.spent(0.05, place) for place in range(1, 100_000)]
    assert sum(shares) <= 0.05
    assert sum(shares) == pytest.approx(0.05, rel=1e-4)
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize(
    ("days", "words"), [(2.0, "about 2 days"), (1.5, "about 36 hours"), (0.01, "about 14 minutes"), (0.001, "two minutes at most")]
)
def test_lengths_of_time_are_in_words(days: float, words: str) -> None:
    assert planning.lasting(days) == words
