from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import benches

from makegood.contracts import Estimate, Floats
from makegood.errors import CaseError, Refused
from makegood.monitoring import promise
from makegood.monitoring.maturity import NEVER, Outcomes
from makegood.monitoring.promise import State, Terms, Watch

simulated = benches.load("promise_test")

DAY = 86_400_000_000


def decisions(n: int, paid: float | Floats = 4.0, unit: Floats | None = None) -> Outcomes:
    """Return decisions, one a day, that promise 5 and whose outcomes come in two days."""
    at = np.arange(n) * DAY
    units = np.arange(n) if unit is None else np.asarray(unit, dtype=np.int64)
    payoffs = np.full(n, paid) if isinstance(paid, float) else paid
    none = np.zeros(n, np.int64)
    return Outcomes(at, units, np.full(n, 5.0), payoffs, at + 2 * DAY, np.ones(n, np.bool_), none, np.full(n, -9.0))


TERMS = Terms(bound=10.0, tolerance=0.5, limit=1000.0, delay_us=3 * DAY, floor=1.0)


# -------------------------------------------------------------------------------------------------------------------- simulations


@pytest.mark.slow
@pytest.mark.parametrize("name", simulated.SIMULATIONS)
def test_what_is_promised_holds_and_what_is_wrong_fails(name: str) -> None:
    for figure in simulated.SIMULATIONS[name](100):
        assert figure.holds(3.0), figure


def test_a_check_that_fails_is_noticed() -> None:
    assert simulated.Figure(900.0, 20.0, 1000.0, np.inf).holds(3.0) is False
    assert simulated.Figure(950.0, 20.0, 1000.0, np.inf).holds(3.0) is True
    assert simulated.Figure(950.0, 20.0, 1000.0, np.inf, attack=True).holds(3.0) is False
    assert simulated.Figure(900.0, 20.0, 1000.0, np.inf, attack=True).holds(3.0) is True


# ----------------------------------------------------------------------------------------------------------------------- evidence


def plain(z: Floats, bound: float, overlap: int = 1) -> Floats:
    """The recurrence as it is written, one tick and one bet after another."""
    lanes = np.zeros((overlap, 12))
    path = np.empty(len(z))
    for t, x in enumerate(z):
        for j in range(12):
            lanes[t % overlap, j] = (lanes[t % overlap, j] + 1.0) * (1.0 + 2.0 ** -(j + 1) * x / bound)
        path[t] = lanes.mean(axis=1).sum()
    return path


@pytest.mark.parametrize(("n", "overlap"), [(1, 1), (255, 1), (256, 1), (3000, 1), (7, 3), (3001, 7), (5000, 900), (40, 100)])
def test_evidence_is_that_of_the_plain_loop(n: int, overlap: int) -> None:
    z = np.random.default_rng(n).uniform(-1.0, 0.99, n)
    state, path = promise.advance(replace(TERMS, bound=1.0, limit=1e12, overlap=overlap), State.new(overlap), z, np.arange(n))
    np.testing.assert_allclose(path, plain(z, 1.0, overlap), rtol=1e-9)
    assert state.value == pytest.approx(path[-1])


def test_the_plain_loop_is_kept_to_where_evidence_is_all_but_lost() -> None:
    z = np.tile(np.concatenate([np.full(5000, -1.0), np.full(40, 1.0)]), 2)
    _, path = promise.advance(replace(TERMS, bound=1.0, limit=1e12), State.new(), z, np.arange(len(z)))
    np.testing.assert_allclose(path, plain(z, 1.0), rtol=1e-9)


@given(st.lists(st.integers(0, 700), max_size=6), st.integers(1, 9), st.integers(0, 99))
def test_any_division_into_calls_gives_the_same(cuts: list[int], overlap: int, seed: int) -> None:
    z, enters = np.random.default_rng(seed).uniform(-9.0, 9.5, 700), np.arange(700)
    terms = replace(TERMS, overlap=overlap)
    whole, path = promise.advance(terms, State.new(overlap), z, enters)
    state, found = State.new(overlap), []
    edges = [0, *sorted(cuts), 700]
    for start, end in pairwise(edges):
        state, part = promise.advance(terms, State.from_json(json.loads(json.dumps(state.to_json()))), z[start:end], enters[start:end])
        found.append(part)
    np.testing.assert_allclose(np.concatenate(found), path, rtol=1e-9)
    np.testing.assert_allclose(state.evidence, whole.evidence, rtol=1e-9)
    assert (state.ticks, state.through, state.since, state.failed) == (whole.ticks, whole.through, whole.since, whole.failed)


@pytest.mark.parametrize("overlap", [1, 4])
def test_boundless_losses_alarm_and_never_overflow(overlap: int) -> None:
    z = np.full(20_000, 1e200)
    state, path = promise.advance(replace(TERMS, overlap=overlap), State.new(overlap), z, np.arange(20_000))
    assert np.isfinite(path).all()
    assert state.since == 0
    after, _ = promise.advance(replace(TERMS, overlap=overlap), state, np.full(20_000, -10.0), np.arange(20_000) + 20_000)
    assert after.since == 0  # an alarm stands until the model is trained again


def test_the_alarm_is_at_the_first_tick_that_reaches_the_limit() -> None:
    z = np.full(200, 9.0)
    path = plain(z, 10.0)
    state, _ = promise.advance(TERMS, State.new(), z, np.arange(200) + 1000)
    assert state.since == 1000 + int(np.argmax(path >= 1000.0))


def test_a_payoff_beyond_the_bound_ends_the_test() -> None:
    z = np.array([1.0, -10.0, -10.1, 500.0])
    state, path = promise.advance(TERMS, State.new(), z, np.arange(4))
    assert (len(path), state.ticks, state.failed, state.through, state.since) == (2, 2, -10.1, 2, None)
    again, path = promise.advance(TERMS, state, np.full(50, 500.0), np.arange(50) + 4)
    assert again == state
    assert len(path) == 0


# -------------------------------------------------------------------------------------------------------------------------- ticks


def test_a_unit_is_a_tick_when_its_last_decision_is_due() -> None:
    rows = decisions(6, np.array([4.0, 1.0, 5.0, 5.0, 5.0, -9.0]), np.array([9, 9, 4, 4, 5, 9]))
    found = promise.ticks(rows, replace(TERMS, span_us=2 * DAY), 8 * DAY)
    assert (found.at // DAY).tolist() == [0, 2]
    assert (found.enters // DAY).tolist() == [5, 7]
    assert found.z.tolist() == [(1.0 + 4.0) / 2 - 0.5, -0.5]
    assert len(promise.ticks(rows, replace(TERMS, span_us=2 * DAY), 5 * DAY - 1)) == 0


def test_a_unit_that_comes_again_counts_once_unless_asked() -> None:
    rows = decisions(6, np.array([4.0, 1.0, 5.0, 3.0, 5.0, -9.0]), np.zeros(6))
    assert promise.ticks(rows, replace(TERMS, span_us=2 * DAY), 90 * DAY).z.tolist() == [2.0]
    again = promise.ticks(rows, replace(TERMS, span_us=2 * DAY, again=True), 90 * DAY)
    assert again.z.tolist() == [2.0, 0.5, 6.5]
    assert (again.enters // DAY).tolist() == [5, 7, 9]


def test_a_block_is_one_tick_of_its_units() -> None:
    rows = decisions(6, np.array([5.0, 1.0, 3.0, 5.0, 5.0, 5.0]))
    found = promise.ticks(rows, replace(TERMS, block_us=3 * DAY), 8 * DAY)
    assert found.z.tolist() == [2.0 - 0.5]
    assert (found.enters // DAY).tolist() == [6]
    assert promise.ticks(rows, replace(TERMS, block_us=3 * DAY), 9 * DAY).z.tolist() == [1.5, -0.5]


def test_decisions_in_any_order_make_the_same_ticks() -> None:
    rng = np.random.default_rng(1)
    rows = decisions(300, rng.normal(5.0, 1.0, 300), rng.integers(0, 80, 300))
    rows = replace(rows, known_at=np.where(rng.random(300) < 0.3, NEVER, rows.known_at), segment=rng.integers(0, 3, 300))
    shuffled = rows.take(rng.permutation(300))
    for terms in (
        replace(TERMS, span_us=5 * DAY, floor=0.1),
        replace(TERMS, span_us=5 * DAY, again=True, floor=0.1),
        replace(TERMS, span_us=DAY, block_us=9 * DAY, floor=0.1),
    ):
        a, b = promise.ticks(rows, terms, 290 * DAY), promise.ticks(shuffled, terms, 290 * DAY)
        assert a.enters.tolist() == b.enters.tolist()
        np.testing.assert_allclose(a.z, b.z)
        np.testing.assert_allclose(a.missing, b.missing)


def test_early_outcomes_wait_and_late_ones_are_missing() -> None:
    rows = decisions(4)
    early = replace(rows, known_at=rows.at)
    assert promise.ticks(early, TERMS, 5 * DAY).z.tolist() == promise.ticks(rows, TERMS, 5 * DAY).z.tolist()
    assert len(promise.ticks(early, TERMS, 3 * DAY - 1)) == 0
    late = replace(rows, known_at=rows.at + np.array([3, 4, 3, 3]) * DAY)
    found = promise.ticks(late, replace(TERMS, missing="failure"), 90 * DAY)
    assert found.z.tolist() == [0.5, 13.5, 0.5, 0.5]
    assert found.missing.tolist() == [0.0, 1.0, 0.0, 0.0]
    assert promise.ticks(late, replace(TERMS, missing=5.0), 90 * DAY).z.tolist() == [0.5, -0.5, 0.5, 0.5]


def test_imputing_weighs_by_what_earlier_ticks_showed() -> None:
    rows = decisions(4)
    rows = replace(rows, known_at=np.where(np.arange(4) == 1, NEVER, rows.known_at))
    found = promise.ticks(rows, replace(TERMS, floor=0.1), 90 * DAY)
    np.testing.assert_allclose(found.z, [0.5, 0.0, 0.5 * 3 / 2, 0.5 * 4 / 3])


def test_what_reveals_nothing_is_tested_only_where_it_is_known_all_the_same() -> None:
    rows = decisions(3, np.array([4.0, np.nan, 5.0]))
    rows = replace(rows, revealed=np.array([True, False, False]))
    found = promise.ticks(rows, TERMS, 90 * DAY)
    assert found.z.tolist() == [0.5, -0.5]
    assert found.missing.tolist() == [0.0, 0.0]


@given(st.lists(st.integers(0, 130), max_size=5), st.booleans(), st.integers(0, 30))
def test_reviews_at_any_times_find_the_same(times: list[int], again: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = decisions(120, rng.uniform(-3.0, 10.0, 120), rng.integers(0, 60, 120))
    delay = np.where(rng.random(120) < 0.2, 9, rng.integers(0, 4, 120))
    rows = replace(rows, known_at=rows.at + delay * DAY)
    terms = replace(TERMS, bound=60.0, span_us=2 * DAY, again=again, floor=0.2, missing_share=0.1)
    room = rng.choice([np.nan, 3.0, 70.0, 90.0], 120)
    whole, alarm = promise.watch(rows, terms, 130 * DAY, room=room)
    state = None
    for day in [*sorted(times), 130]:
        made = rows.take(np.flatnonzero(rows.at <= day * DAY))
        seen = replace(made, paid=np.where(made.known_at <= day * DAY, made.paid, np.nan))
        state, other = promise.watch(seen, terms, day * DAY, state, room=room[: len(made)])
        state = Watch.from_json(json.loads(json.dumps(state.to_json())))
    assert state is not None
    np.testing.assert_allclose(state.promise.evidence, whole.promise.evidence, rtol=1e-9)
    np.testing.assert_allclose(state.missing.evidence, whole.missing.evidence, rtol=1e-9)
    assert (other.raised, other.since, other.ticks) == (alarm.raised, alarm.since, alarm.ticks)


def test_a_correction_that_comes_later_changes_nothing() -> None:
    rows = decisions(50)
    state, _ = promise.watch(rows, TERMS, 52 * DAY)
    corrected = replace(rows, paid=np.full(50, 5.0))
    later, _ = promise.watch(corrected, TERMS, 52 * DAY, state)
    assert later == state


def test_no_decisions_are_no_ticks() -> None:
    state, alarm = promise.watch(decisions(0), TERMS, DAY)
    assert state == Watch.new()
    assert alarm.why == "No decision is due yet, so nothing can be said: the first is after about 3 days."
    assert alarm.expected_delay == np.inf
    assert alarm.path == ()


# ---------------------------------------------------------------------------------------------------------------------- the verdict


def test_a_broken_promise_is_said_in_words() -> None:
    _, alarm = promise.watch(decisions(400, -1.0), TERMS, 500 * DAY, unit="EUR")
    assert alarm.raised
    assert alarm.since is not None
    assert alarm.why == (
        "The promise is broken: the evidence reached 1,000, which a kept promise does within N ticks with probability N/1,000 at the most. "
        "Over all 400 ticks, decisions pay 6 EUR less a decision than promised; 0.5 are tolerated."
    )
    assert alarm.expected_delay == pytest.approx(10.0 * np.log(1000.0) / 5.5)
    assert alarm.ticks == 400
    assert len(alarm.path) <= 240
    assert max(evidence for _, evidence in alarm.path) >= 1000.0
    assert (alarm.limit, alarm.bound, alarm.tolerance) == (1000.0, 10.0, 0.5)


def test_too_early_says_how_long() -> None:
    _, alarm = promise.watch(decisions(10, 3.5), TERMS, 500 * DAY, unit="EUR")
    assert not alarm.raised
    assert alarm.why.startswith("Too early to tell. Over 10 ticks, decisions pay 1.5 EUR less a decision than promised; 0.5 are tolerated")
    assert alarm.why.endswith("A gap of this size takes at least 69 ticks from its beginning, about 62 days.")
    at_once = replace(decisions(10, 3.5), at=np.zeros(10, np.int64), known_at=np.zeros(10, np.int64))
    assert promise.watch(at_once, TERMS, 500 * DAY)[1].why.endswith("two minutes at most.")


def test_a_kept_promise_is_said_in_words() -> None:
    _, alarm = promise.watch(decisions(100, 5.0), TERMS, 500 * DAY)
    assert alarm.why.startswith("No sign of a broken promise. Over 100 ticks, decisions pay what was promised")
    assert alarm.expected_delay == np.inf
    _, alarm = promise.watch(decisions(100, 7.0), TERMS, 500 * DAY, unit="EUR")
    assert "decisions pay 2 EUR more a decision than promised" in alarm.why


def test_a_failed_bound_is_said_in_words() -> None:
    _, alarm = promise.watch(decisions(9, np.array([5.0] * 8 + [70.0])), TERMS, 500 * DAY)
    assert alarm.why == (
        "The test ended after 8 ticks: a decision turned out 65.5 better than promised and tolerated, and the bound said at most 10. "
        "Start it anew with a bound that no payoff passes."
    )


def test_a_decision_that_can_pay_more_raises_the_bound_from_then_on() -> None:
    rows = decisions(6, np.array([5.0, 4.0, 70.0, 4.0, 5.0, 4.0]))
    room = np.array([1.0, np.nan, 69.5, 3.0, 20.0, np.nan])
    found = promise.ticks(rows, TERMS, 500 * DAY, room)
    assert found.bound.tolist() == [10.0, 10.0, 70.0, 70.0, 70.0, 70.0]
    assert promise.ticks(rows, replace(TERMS, floor=0.5, missing="impute"), 500 * DAY, room).bound[-1] == 140.0
    _, alarm = promise.watch(rows, TERMS, 500 * DAY, room=room)
    assert alarm.ticks == 6
    assert alarm.bound == 70.0
    assert alarm.evidence == pytest.approx(plain(found.z / found.bound, 1.0)[-1])
    assert promise.watch(rows.take(np.arange(2)), TERMS, 5 * DAY, room=room[:2])[1].bound == 10.0
    assert "could turn out" not in alarm.why
    assert promise.ticks(rows, replace(TERMS, block_us=3 * DAY), 500 * DAY, room).bound.tolist() == [70.0, 70.0]


def test_one_absurd_amount_cannot_silence_the_test_unseen() -> None:
    rows = decisions(200, 4.0)
    _, alarm = promise.watch(rows, replace(TERMS, limit=1e9), 500 * DAY, room=np.where(np.arange(200) == 3, 1e12, 1.0))
    assert not alarm.raised
    assert alarm.why.startswith("Too early to tell.")
    assert (
        "One decision could turn out 1e+12 better than promised and tolerated, held-out ones 10 at the most: look at its inputs"
        in alarm.why
    )


def test_outcomes_that_stop_coming_have_an_alarm_of_their_own() -> None:
    rows = decisions(400, 5.0)
    rows = replace(rows, known_at=np.where(np.arange(400) % 2, NEVER, rows.known_at))
    _, alarm = promise.watch(rows, replace(TERMS, floor=0.2, missing_share=0.1), 500 * DAY)
    assert not alarm.raised
    assert alarm.missing is not None
    assert alarm.missing.raised
    assert "Over all 400 ticks, 50.0% of the outcomes had not come when they were due; 10% may be late." in alarm.missing.why
    _, alarm = promise.watch(rows, replace(TERMS, floor=0.2, missing_share=0.6), 500 * DAY)
    assert alarm.missing is not None
    assert not alarm.missing.raised


def test_the_path_shows_the_tick_that_raised_the_alarm() -> None:
    z = np.concatenate([np.full(2000, -0.5), np.full(30, 60.0), np.full(3000, -10.0)])
    _, alarm = promise.watch(decisions(len(z), 4.5 - z), TERMS, len(z) * 2 * DAY)
    assert alarm.raised
    assert alarm.evidence < alarm.limit
    assert max(evidence for _, evidence in alarm.path) >= alarm.limit


# ----------------------------------------------------------------------------------------------------------------- what is declared


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("bound", 0.0, "promise.bound: got '0.0'; expected a number above 0; declare it for the bundle"),
        ("bound", np.inf, "promise.bound: got 'inf'; expected a number above 0"),
        ("limit", 1.0, "promise.limit: got '1.0'; expected a number above 1"),
        ("overlap", 0, "promise.overlap: got '0'; expected at least 1 tick; write 1 where outcomes do not overlap"),
    ],
)
def test_terms_that_cannot_be_are_refused(name: str, given: float, message: str) -> None:
    with pytest.raises(CaseError) as caught:
        replace(TERMS, **{name: given})
    assert message in str(caught.value)


def test_a_payoff_without_a_most_has_no_bound() -> None:
    with pytest.raises(CaseError, match="a payoff without a most"):
        promise.bound(np.array([1.0, np.inf]), np.zeros(2))
    assert promise.bound(np.array([-1.0]), np.zeros(1)) > 0.0


def test_a_gap_without_an_interval_gives_no_tolerance() -> None:
    with pytest.raises(Refused, match="a held-out gap with an interval, which needs 6 independent units"):
        promise.tolerance(1.0, Estimate(0.0, np.nan, np.nan))


def test_tolerance_is_of_the_standard_error_at_any_level() -> None:
    assert promise.tolerance(0.0, Estimate(0.0, -2.5758, 2.5758, level=0.99)) == pytest.approx(2.0, abs=1e-3)


def test_the_limit_is_by_ticks_and_probability() -> None:
    assert promise.limit(1000.0, 0.01) == 100_000.0
    assert promise.limit(0.0, 0.01) == 2.0


# ------------------------------------------------------------------------------------------------------------------------- outlook


def test_the_outlook_covers_with_clusters() -> None:
    """Null: both promise the same. Taking decisions for independent fails the same check."""
    rng, hits, naive, runs = np.random.default_rng(4), 0, 0, 400
    for _ in range(runs):
        unit = np.repeat(np.arange(60), 5)
        waiting, reference = rng.normal(0, 1, 60)[unit] + rng.normal(0, 0.3, 300), rng.normal(0, 1, 500)
        found, wrong = promise.outlook(waiting, reference, clusters=unit), promise.outlook(waiting, reference)
        hits += found.low <= 0.0 <= found.high
        naive += wrong.low <= 0.0 <= wrong.high
    error = float(np.sqrt(0.95 * 0.05 / runs))
    assert abs(hits / runs - 0.95) <= 3.0 * error
    assert naive / runs < 0.95 - 3.0 * error


def test_an_outlook_of_little_has_no_interval() -> None:
    assert np.isnan(promise.outlook(np.zeros(0), np.ones(9)).value)
    few = promise.outlook(np.zeros(3), np.ones(9))
    assert few.value == -1.0
    assert np.isnan(few.low)
    same = promise.outlook(np.full(9, 2.0), np.ones(9))
    assert (same.low, same.value, same.high) == (1.0, 1.0, 1.0)
