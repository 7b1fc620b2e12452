from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makegood.contracts import Ints
from makegood.errors import DataError
from makegood.monitoring import maturity
from makegood.monitoring.maturity import NEVER, Outcomes

SECOND = 1_000_000


def outcomes(at: Ints, known_at: Ints) -> Outcomes:
    n = len(at)
    known = np.where(known_at < NEVER, 3.0, np.nan)
    return Outcomes(at, np.arange(n), np.full(n, 5.0), known, known_at, np.ones(n, np.bool_), np.zeros(n, np.int64), np.full(n, -9.0))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("promised", np.nan, "promise of decision 1: got 'nan'; expected a finite amount; leave it out"),
        ("paid", -np.inf, "payoff of decision 1: got '-inf'; expected an amount; correct the outcome"),
        ("known_at", -5, "outcome of decision 1: got '-5'; expected a time after the decision; correct the clock"),
    ],
)
def test_what_cannot_be_is_refused_with_its_row(name: str, value: float, message: str) -> None:
    rows = outcomes(np.arange(3), np.arange(3) + 4)
    column = getattr(rows, name).copy()
    column[1] = value
    with pytest.raises(DataError, match=message.replace("(", r"\(")):
        replace(rows, **{name: column})


def test_due_decisions_keep_the_order_in_which_they_were_made() -> None:
    assert maturity.due(np.array([1, 2, 2, 5, 9]), now=10, delay_us=5).tolist() == [0, 1, 2, 3]
    assert maturity.due(np.array([5, 2, 1, 2]), now=10, delay_us=5).tolist() == [2, 1, 3, 0]
    assert maturity.due(np.array([6]), now=10, delay_us=5).tolist() == []


def test_a_payoff_that_was_never_in_doubt_is_known_at_once() -> None:
    rows = replace(outcomes(np.arange(2), np.array([NEVER, NEVER])), revealed=np.zeros(2, np.bool_), paid=np.array([0.0, np.nan]))
    assert rows.known(0).tolist() == [True, False]
    assert rows.testable.tolist() == [True, False]


# ------------------------------------------------------------------------------------------------------------------- Kaplan–Meier


def plain(at: Ints, known_at: Ints, now: int, age: int) -> tuple[float, float]:
    """Kaplan–Meier and Greenwood as textbooks write them, one age after another."""
    ages = np.minimum(known_at, now) - at
    event = known_at <= now
    survival, greenwood = 1.0, 0.0
    for t in np.unique(ages[event]):
        if t <= age:
            d, n = int((event & (ages == t)).sum()), int((ages >= t).sum())
            survival *= 1 - d / n
            greenwood += d / (n * (n - d)) if n > d else 0.0
    return 1 - survival, greenwood


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.booleans()), min_size=1, max_size=40), st.integers(0, 20))
def test_the_share_known_is_that_of_the_textbook(rows: list[tuple[int, int, bool]], age: int) -> None:
    at, delay, never = (np.array(column) for column in zip(*rows, strict=True))
    known_at = np.where(never, NEVER, (at + delay) * SECOND)
    at, now = at * SECOND, 20 * SECOND
    for share in maturity.curve(outcomes(at, known_at), now, ages_s=[age]):
        known, greenwood = plain(at, known_at, now, age * SECOND)
        assert share.known.value == pytest.approx(known, abs=1e-12)
        assert 0 <= share.known.low <= share.known.value + 1e-12
        assert share.known.value - 1e-12 <= share.known.high <= 1
        if 0 < known < 1:
            log = np.log(1 - known)
            reach = 1.959963985 * np.sqrt(greenwood) / abs(log)
            assert share.known.low == pytest.approx(1 - np.exp(log * np.exp(-reach)), abs=1e-8)


def test_the_interval_of_none_and_of_all_is_that_of_clopper_and_pearson() -> None:
    at = np.zeros(100, np.int64)
    none = maturity.curve(outcomes(at, np.full(100, NEVER)), 10 * SECOND, ages_s=[5.0])[0].known
    every = maturity.curve(outcomes(at, np.full(100, SECOND)), 10 * SECOND, ages_s=[5.0])[0].known
    assert (none.value, none.low, round(none.high, 4)) == (0.0, 0.0, 0.0362)
    assert (every.value, round(every.low, 4), every.high) == (1.0, 0.9638, 1.0)


def test_ages_go_as_far_as_decisions_are_followed() -> None:
    at = np.arange(100) * SECOND
    ages = [share.age_s for share in maturity.curve(outcomes(at, at + SECOND), 120 * SECOND)]
    assert len(ages) == 24
    assert ages[-1] == 120.0
    assert maturity.curve(outcomes(at, at + SECOND), 120 * SECOND, ages_s=[500.0]) == ()
    assert maturity.curve(outcomes(at, at + SECOND), -1) == ()


def test_the_interval_covers_and_a_naive_share_does_not() -> None:
    """Null: outcomes come at exponential ages, decisions are censored at uniform ones. The naive share takes the young for failures."""
    rng, n, truth, runs = np.random.default_rng(0), 400, 1 - np.exp(-1.0), 400
    hits, naive = 0, 0
    for _ in range(runs):
        at = np.sort(rng.integers(0, 20 * SECOND, n))
        known_at = at + (rng.exponential(10.0, n) * SECOND).astype(np.int64)
        found = maturity.curve(outcomes(at, known_at), 20 * SECOND, ages_s=[10.0])[0].known
        hits += found.low <= truth <= found.high
        share = float(((known_at <= 20 * SECOND) & (known_at - at <= 10 * SECOND)).mean())
        naive += abs(share - truth) <= 1.96 * np.sqrt(share * (1 - share) / n)
    error = np.sqrt(0.95 * 0.05 / runs)
    assert abs(hits / runs - 0.95) <= 3 * error
    assert naive / runs < 0.95 - 3 * error


# ------------------------------------------------------------------------------------------------------------------- missing outcomes


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.booleans()), max_size=60))
def test_the_share_observed_is_of_earlier_ticks_of_the_segment(rows: list[tuple[int, int, bool]]) -> None:
    step, segment, known = (
        (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)) if rows else (np.zeros(0, np.int64),) * 3
    )
    tick, known = np.cumsum(step), known.astype(np.bool_)
    found = maturity.observed(tick, segment, known, floor=0.2)
    for i in range(len(rows)):
        before = (tick < tick[i]) & (segment == segment[i])
        assert found[i] == pytest.approx(max((known[before].sum() + 1) / (before.sum() + 1), 0.2))


def test_the_rules_for_missing_outcomes() -> None:
    rows = outcomes(np.arange(3), np.array([1, NEVER, 3]))
    known = rows.known(10)
    assert maturity.settled(rows, known, 2.0)[0].tolist() == [3.0, 2.0, 3.0]
    assert maturity.settled(rows, known, "failure")[0].tolist() == [3.0, -9.0, 3.0]
    paid, weight = maturity.settled(rows, known, "impute", np.array([1.0, 0.5, 0.25]))
    assert paid.tolist() == [3.0, 0.0, 3.0]
    assert weight.tolist() == [1.0, 0.0, 4.0]


def test_what_was_never_in_doubt_stands_for_itself_alone() -> None:
    rows = replace(outcomes(np.arange(2), np.array([1, 2])), revealed=np.array([True, False]), paid=np.array([3.0, 0.0]))
    assert maturity.settled(rows, rows.known(10), "impute", np.array([0.5, 0.5]))[1].tolist() == [2.0, 1.0]
