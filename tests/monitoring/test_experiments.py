from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makegood.contracts import Bools, Estimate, Floats, Ints
from makegood.errors import CaseError, DataError
from makegood.monitoring import asymptotic, betting, experiments, maturity
from makegood.monitoring.experiments import Terms, Trial
from makegood.monitoring.maturity import NEVER, Outcomes
from makegood.monitoring.review import Guardrail

DAY = 86_400_000_000


def decisions(paid: Floats, unit: Ints | None = None, at: Ints | None = None, known_at: Ints | None = None) -> Outcomes:
    """Return decisions, one a day about a unit each, whose outcomes come in two days; at worst they pay −9."""
    n = len(paid)
    at = np.arange(n) * DAY if at is None else np.asarray(at)
    known_at = at + 2 * DAY if known_at is None else np.asarray(known_at)
    unit = np.arange(n) if unit is None else np.asarray(unit)
    none = np.zeros(n, np.int64)
    return Outcomes(at, unit, np.zeros(n), np.asarray(paid, dtype=np.float64), known_at, np.ones(n, np.bool_), none, np.full(n, -9.0))


def all_of(n: int) -> Bools:
    return np.ones(n, np.bool_)


def shadow(paid: Floats, **said: Ints) -> Trial:
    return experiments.paired(decisions(paid, **said), all_of(len(paid)))


TERMS = Terms(cap=(0.0, 10.0), delay_us=2 * DAY, missing=0.0, unit="EUR")


# ------------------------------------------------------------------------------------------------------------------------------ ticks


def test_a_unit_counts_once_by_the_mean_of_its_first_decisions() -> None:
    trial = shadow(np.array([4.0, 2.0, 7.0, 5.0]), unit=np.array([3, 3, 8, 3]), at=np.array([0, 1, 1, 5]) * DAY)
    found = experiments.ticks(trial, replace(TERMS, span_us=2 * DAY), 99 * DAY)
    assert found.z.tolist() == [3.0, 7.0]
    assert found.began.tolist() == [0, DAY]
    assert found.enters.tolist() == [4 * DAY, 5 * DAY]
    assert found.differ == 3
    assert experiments.ticks(trial, TERMS, 99 * DAY).z.tolist() == [4.0, 7.0]


def test_decisions_of_units_that_take_turns_stay_with_their_unit() -> None:
    trial = shadow(np.array([4.0, 2.0, 6.0]), unit=np.array([3, 8, 3]), at=np.array([0, 1, 2]) * DAY)
    assert experiments.ticks(trial, replace(TERMS, span_us=3 * DAY), 99 * DAY).z.tolist() == [5.0, 2.0]


def test_where_two_agree_a_decision_counts_and_pays_no_difference() -> None:
    rows = decisions(np.array([4.0, np.nan, 7.0, 2.0]), unit=np.array([0, 0, 1, 2]), at=np.array([0, 0, 1, 2]) * DAY)
    trial = experiments.paired(rows, np.array([True, False, False, True]))
    found = experiments.ticks(trial, TERMS, 99 * DAY)
    assert found.z.tolist() == [2.0, 0.0, 2.0]
    assert found.differ == 2


def test_only_decisions_since_the_beginning_that_are_due_count() -> None:
    trial = shadow(np.arange(6.0))
    assert experiments.ticks(trial, replace(TERMS, since=2 * DAY), 6 * DAY).z.tolist() == [2.0, 3.0, 4.0]
    assert experiments.ticks(trial, replace(TERMS, since=2 * DAY), 4 * DAY - 1).z.tolist() == []
    # a unit that was decided about before the test begins in it with its first decision there
    twice = shadow(np.array([1.0, 2.0]), unit=np.array([4, 4]))
    assert experiments.ticks(twice, replace(TERMS, since=DAY), 9 * DAY).z.tolist() == [2.0]


def test_a_block_of_time_is_one_tick_of_its_units() -> None:
    trial = shadow(np.array([1.0, 3.0, 5.0, 7.0]), unit=np.array([0, 1, 2, 3]), at=np.array([0, 0, 1, 2]) * DAY)
    terms = replace(TERMS, block_us=2 * DAY)
    found = experiments.ticks(trial, terms, 99 * DAY)
    assert found.z.tolist() == [3.0, 7.0]
    assert found.began.tolist() == [0, 2 * DAY]
    assert found.enters.tolist() == [4 * DAY, 6 * DAY]
    assert len(experiments.ticks(trial, terms, 6 * DAY - 1)) == 1


def test_what_comes_late_counts_as_the_rule_says_and_no_correction_counts_after() -> None:
    rows = decisions(np.array([4.0, 6.0]), known_at=np.array([3 * DAY, 2 * DAY]))
    trial = experiments.weighted(rows, all_of(2), np.array([True, False]), np.full(2, 0.5))
    for rule, expected in ((1.5, [3.0, -12.0]), ("failure", [-18.0, -12.0]), ("impute", [0.0, -24.0])):
        assert experiments.ticks(trial, replace(TERMS, missing=rule), 99 * DAY).z.tolist() == expected
    # of two actions under the same unknown outcome both count for the declared amount
    assert experiments.ticks(experiments.paired(rows, all_of(2)), replace(TERMS, missing=1.5), 99 * DAY).z.tolist() == [0.0, 6.0]
    assert experiments.ticks(experiments.paired(rows, all_of(2)), replace(TERMS, missing="failure"), 99 * DAY).z.tolist() == [-9.0, 6.0]


def test_imputing_weighs_by_shares_that_were_known_before_and_scales_by_the_least_of_any_segment() -> None:
    rows = decisions(np.full(5, 2.0), known_at=np.array([0, NEVER, 2 * DAY, 3 * DAY, 4 * DAY]))
    rows = replace(rows, segment=np.array([0, 0, 1, 0, 1]))
    found = experiments.ticks(experiments.paired(rows, all_of(5)), replace(TERMS, missing="impute"), 99 * DAY)
    assert found.scale == pytest.approx([1.0, 1.0, 2 / 3, 2 / 3, 3 / 4])
    assert found.z == pytest.approx([2.0, 0.0, 2.0, 3.0, 2.0])
    assert experiments.ticks(experiments.paired(rows, all_of(5)), replace(TERMS, missing="impute", floor=0.7), 99 * DAY).scale.min() == 0.7


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6), st.integers(0, 7), st.booleans()), max_size=40),
    st.integers(0, 3),
    st.sampled_from(["impute", "failure", 0.5]),
    st.sampled_from([0, 3]),
)
def test_later_looks_add_ticks_and_change_none(rows: list[tuple[int, int, int, bool]], span: int, rule: str | float, block: int) -> None:
    at = np.array([row[0] for row in rows], dtype=np.int64)
    late = np.array([row[2] for row in rows], dtype=np.int64)
    paid = np.where(late == 7, np.nan, late - 3.0)
    outcomes = replace(decisions(paid, np.array([row[1] for row in rows], dtype=np.int64), at, at + late), segment=at % 2)
    trial = experiments.paired(outcomes, np.array([row[3] for row in rows], dtype=np.bool_))
    terms = Terms(delay_us=4, span_us=span, missing=rule, since=1, block_us=block)
    last = experiments.ticks(trial, terms, 99)
    for now in range(0, 25, 3):
        seen = np.flatnonzero(outcomes.at <= now)  # what had been decided by then, and what was known
        known = np.where(outcomes.known_at[seen] <= now, outcomes.paid[seen], np.nan)
        then = replace(trial.take(seen), outcomes=replace(outcomes.take(seen), paid=np.where(trial.differs[seen], known, 0.0)))
        then = experiments.paired(replace(then.outcomes, revealed=outcomes.revealed[seen]), trial.differs[seen])
        found = experiments.ticks(then, terms, now)
        assert found.z.tolist() == last.z[: len(found)].tolist()
        assert found.scale.tolist() == last.scale[: len(found)].tolist()
        assert len(found) == int((last.enters <= now).sum())


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-3, 10**12)), max_size=30), st.integers(0, 4))
def test_units_are_those_of_the_plain_loop(rows: list[tuple[int, int]], span: int) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    first: dict[int, tuple[int, int]] = {}
    expected = []
    for at, unit in rows:
        rank, began = first.setdefault(unit, (len(first), at))
        expected.append(rank if at - began < max(span, 1) else -1)
    at, unit = (np.array([row[i] for row in rows], dtype=np.int64) for i in range(2))
    tick, start = experiments._units(at, unit, span)
    assert tick.tolist() == expected
    assert start.tolist() == [began for _, began in first.values()]


# ---------------------------------------------------------------------------------------------------------------------------- designs


def test_a_weighted_difference_has_the_gain_for_its_mean() -> None:
    rng = np.random.default_rng(0)
    n = 200_000
    differs, challenger, chance = rng.random(n) < 0.5, rng.random(n), np.where(np.arange(n) % 2 > 0, 0.1, 0.4)
    theirs = challenger < chance
    paid = np.where(theirs & differs, 3.0, 2.0) + rng.normal(size=n)
    done = np.where(theirs, chance, 1.0 - chance)
    found = experiments.ticks(experiments.weighted(decisions(paid), differs, theirs, done), replace(TERMS, least=0.1), NEVER)
    assert found.z.mean() == pytest.approx(0.5, abs=4 * found.z.std() / np.sqrt(n))
    assert found.chance == 0.1


def test_what_reveals_nothing_counts_at_its_worst_and_no_worse_than_the_caps_allow() -> None:
    rows = replace(decisions(np.array([2.0, np.nan, np.nan])), revealed=np.array([True, False, False]), worst=np.array([-1.0, -4.0, -1e9]))
    trial = experiments.paired(rows, all_of(3))
    found = experiments.ticks(trial, TERMS, NEVER)
    assert found.z.tolist() == [2.0, -4.0, -10.0]
    assert found.unrevealed == 2
    assert found.most.tolist() == [2.0, 10.0, 10.0]
    assert experiments.ticks(trial.mirrored(), TERMS, NEVER).z.tolist() == [-2.0, -10.0, -10.0]
    assert "2 of these reveal nothing and count at their worst" in experiments.challenge(trial, TERMS, 99 * DAY).why


def test_what_is_not_revealed_speaks_neither_for_nor_against_the_challenger() -> None:
    hidden = np.arange(2000) % 2 > 0
    rows = decisions(np.where(hidden, np.nan, np.tile([3.0, 3.0, -1.0, -1.0], 500)))
    trial = experiments.paired(replace(rows, revealed=~hidden), all_of(2000))
    found = experiments.challenge(trial, TERMS, NEVER)
    assert found.decision == "wait"
    assert found.gain.low < 0.0
    assert found.gain.high > 5.0  # half of the decisions could pay 10 more, for all that is known
    assert found.gain.value == -4.0
    assert found.why.endswith("is learnt only where the challenger acts: make it a canary, for a share of the units.")
    without = experiments.challenge(trial, replace(TERMS, cap=None), NEVER)
    assert without.gain.high == np.inf
    assert without.decision == "wait"


def test_an_action_that_never_tells_what_it_paid_is_refused() -> None:
    rows = replace(decisions(np.array([2.0, np.nan])), revealed=np.array([True, False]))
    with pytest.raises(DataError, match=r"payoff of decision 1: got 'never known'; expected an action whose payoff is sure or is revealed"):
        experiments.weighted(rows, all_of(2), all_of(2), np.full(2, 0.5))
    assert len(experiments.weighted(rows, np.array([True, False]), all_of(2), np.full(2, 0.5))) == 2


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"alpha": 0.0}, r"promote.alpha: got '0.0'; expected a number above 0 and at most 0.5"),
        ({"least": 0.6}, r"promote.least: got '0.6'; expected a number above 0 and at most 0.5"),
        ({"floor": 1.1}, r"promote.floor: got '1.1'; expected a number above 0 and at most 1"),
        ({"cap": (1.0, 1.0)}, r"promote.cap: got '\[1.0, 1.0\]'; expected the lowest and the highest payoff of a decision"),
        ({"cap": (0.0, np.inf)}, r"promote.cap: got '\[0.0, inf\]'"),
        ({"cap": (0.0, 1.0), "min_gain": -1.0}, r"promote.min_gain: got '-1.0'; expected 0 or more"),
    ],
)
def test_terms_that_declare_nothing_are_refused(said: dict[str, float], message: str) -> None:
    with pytest.raises(CaseError, match=message):
        Terms(**said)  # type: ignore[arg-type]


def test_bounds_are_after_weighting() -> None:
    assert TERMS.bound("paired") == 10.0
    assert replace(TERMS, cap=(-50.0, 10.0), least=0.02).bound("disagreement") == 2500.0
    assert replace(TERMS, cap=(5.0, 10.0), least=0.5).bound("disagreement") == 20.0


# --------------------------------------------------------------------------------------------------------------------------- verdicts


def test_a_better_challenger_is_promoted_when_the_evidence_is_enough() -> None:
    z = np.tile([9.0, -5.0, 0.0], 300)
    found = experiments.challenge(shadow(z), TERMS, 2000 * DAY, "b", left=1e6)
    expected = betting.sequence(z, 10.0, 0.05, above=10.0)
    assert (found.model, found.design, found.test, found.decision) == ("b", "paired", "betting", "promote")
    assert (found.units, found.disagreements, found.limit, found.min_gain) == (900, 900, 20.0, 0.0)
    assert found.gain == Estimate(float(z.mean()), float(expected.low[-1]), float(expected.high[-1]), "EUR", 0.9)
    assert found.beside.low == pytest.approx(asymptotic.sequence(z, 0.05).low[-1])
    assert found.evidence == pytest.approx(betting.evidence(betting.log_wealth(z, 10.0, np.array([900]))[0], 900, 0.0, 10.0))
    assert found.evidence >= 20.0
    assert found.gain.low >= 0.0
    assert len(found.path) == 240
    assert found.path[-1][0] == 900
    assert found.why.startswith("The challenger pays 1.333 EUR more a decision, between")
    assert "Over 900 units (in 900 of their decisions the two differ) the evidence is" in found.why
    assert found.why.endswith("That is enough: one that pays no more than is asked for ever reaches 20 with a probability of 0.05 at most.")
    assert found.plan is None


def test_evidence_and_interval_agree_at_any_least_gain() -> None:
    rng = np.random.default_rng(1)
    trial = shadow(rng.choice([9.0, -5.0, 0.0], size=900))
    low = experiments.challenge(trial, TERMS, NEVER).gain.low
    assert experiments.challenge(trial, replace(TERMS, min_gain=low - 1e-6), NEVER).decision == "promote"
    found = experiments.challenge(trial, replace(TERMS, min_gain=low + 1e-6), NEVER)
    assert found.decision == "wait"
    assert found.evidence == pytest.approx(20.0, rel=1e-3)


def test_a_worse_challenger_is_dropped_and_so_is_one_that_is_better_by_too_little() -> None:
    worse = experiments.challenge(shadow(np.tile([4.0, -8.0], 400)), TERMS, NEVER)
    assert worse.decision == "drop"
    assert "The challenger pays 2 EUR less a decision" in worse.why
    assert worse.why.endswith(f"So it pays at least {-worse.gain.high:.4g} EUR less, and 0 EUR more is asked for.")
    little = experiments.challenge(shadow(np.tile([4.0, -3.0], 4000)), replace(TERMS, min_gain=1.0), NEVER)
    assert little.decision == "drop"
    assert little.why.endswith(f"So it pays at most {little.gain.high:.4g} EUR more, and 1 EUR more is asked for.")


def test_one_that_waits_is_told_about_how_long() -> None:
    found = experiments.challenge(shadow(np.tile([9.0, -8.0], 60)), TERMS, NEVER)
    assert found.decision == "wait"
    assert found.plan is not None
    assert found.plan.days == pytest.approx(found.plan.units)  # one a day
    assert f"about {found.plan.units:,.0f} units more show it with a probability of 0.8, which is about" in found.why
    assert found.plan.worth == 0.0  # nothing follows
    assert experiments.challenge(shadow(np.tile([9.0, -8.0], 60)), TERMS, NEVER, left=1e6).plan.worth > 1e4  # type: ignore[union-attr]
    hoped = experiments.challenge(shadow(np.tile([9.0, -8.0], 60)), TERMS, NEVER, hoped=3.0)
    assert hoped.plan is not None
    assert hoped.plan.units < found.plan.units
    assert "If the gain is 3 EUR" in hoped.why


def test_without_a_gain_it_is_told_how_long_until_that_is_shown() -> None:
    found = experiments.challenge(shadow(np.tile([8.0, -9.0], 60)), TERMS, NEVER)
    assert found.decision == "wait"
    assert "A gain of -0.5 EUR is not above the 0 EUR asked for; about" in found.why
    even = experiments.challenge(shadow(np.tile([9.0, -9.0], 60)), TERMS, NEVER)
    assert even.why.endswith("As far as can be told it pays just what is asked for, so that no number of units would tell.")
    same = experiments.challenge(experiments.paired(decisions(np.ones(50)), ~all_of(50)), TERMS, NEVER)
    assert (same.decision, same.disagreements) == ("wait", 0)
    assert same.why.endswith("Until the two differ there is nothing to compare.")


def test_before_a_unit_is_due_it_is_told_when_the_first_will_be() -> None:
    trial = shadow(np.ones(5))
    found = experiments.challenge(trial, TERMS, 0)
    assert (found.decision, found.units, found.path, found.plan) == ("wait", 0, (), None)
    assert np.isnan([found.gain.value, found.gain.low]).all()
    assert found.why == "No unit is due yet, so nothing can be said: the first is in about 2 days."
    later = experiments.challenge(trial, replace(TERMS, block_us=5 * DAY), 0)
    assert later.why.endswith("the first is in about 7 days.")
    nothing = experiments.challenge(trial, replace(TERMS, since=99 * DAY), 0)
    assert nothing.why == "No decision has been made since the test began, so nothing can be said."
    one = experiments.challenge(trial, TERMS, 2 * DAY)
    assert one.why.endswith("That is too little to tell: more units must come.")


def test_a_payoff_beyond_its_cap_ends_the_test() -> None:
    z = np.append(np.tile([9.0, -5.0], 200), [-10.5, 9.0, 9.0])
    found = experiments.challenge(shadow(z), TERMS, NEVER)
    assert (found.decision, found.units, found.plan) == ("failed", 400, None)
    assert found.why == (
        "After 400 units one brought -10.5, and with the declared caps none can bring less than -10: the test has ended and says nothing. "
        "Start it anew with caps that no payoff passes."
    )
    gained = experiments.challenge(shadow(np.append(np.tile([9.0, -5.0], 400), 10.5)), TERMS, NEVER)
    assert gained.decision == "promote"
    assert gained.gain.high == np.inf
    assert gained.path == ()


def test_a_chance_below_the_declared_one_fails_the_test() -> None:
    trial = experiments.weighted(decisions(np.ones(4)), all_of(4), np.array([True, False, True, False]), np.array([0.5, 0.5, 0.01, 0.5]))
    found = experiments.challenge(trial, TERMS, NEVER)
    assert found.decision == "failed"
    assert "decided with a chance of 0.01, and none below 0.5 was declared" in found.why
    impossible = experiments.weighted(decisions(np.ones(4)), all_of(4), all_of(4), np.zeros(4))
    assert experiments.challenge(impossible, TERMS, NEVER).decision == "failed"


def test_losses_without_bound_and_without_caps_fail_the_test() -> None:
    rows = replace(decisions(np.array([2.0, np.nan])), revealed=np.array([True, False]), worst=np.full(2, -np.inf))
    found = experiments.challenge(experiments.paired(rows, all_of(2)), replace(TERMS, cap=None), NEVER)
    assert (found.decision, found.units) == ("failed", 1)
    assert "Declare feedback.promote.cap, or let the challenger act in a share of the disagreements." in found.why


def test_without_caps_the_test_is_asymptotic_and_says_so() -> None:
    z = np.random.default_rng(2).normal(1.0, 3.0, 2000)
    terms = replace(TERMS, cap=None)
    found = experiments.challenge(shadow(z), terms, NEVER)
    assert (found.test, found.decision) == ("asymptotic", "promote")
    assert found.evidence == pytest.approx(asymptotic.evidence(z, 0.0, 0.05))
    assert found.gain.low == pytest.approx(asymptotic.sequence(z, 0.05).low[-1])
    assert not found.gain.tail_limited
    assert np.isnan(found.beside.low)
    assert found.beside.value == found.gain.value
    assert "(asymptotic: no caps are declared, so that the error is not exactly as stated)" in found.why
    assert np.isfinite(found.path).all()
    few = experiments.challenge(shadow(z[:50]), terms, NEVER)
    assert few.decision == "wait"
    assert "with no interval yet" in few.why
    heavy = experiments.challenge(shadow(np.random.default_rng(3).lognormal(0.0, 2.5, 300)), terms, NEVER)
    assert heavy.gain.tail_limited


def test_where_outcomes_are_missing_evidence_and_interval_still_agree() -> None:
    rng = np.random.default_rng(4)
    z = rng.choice([9.0, -5.0, 0.0], size=1200)
    known_at = np.where(rng.random(1200) < 0.6, np.arange(1200) * DAY, NEVER)
    trial = shadow(np.where(known_at < NEVER, z, np.nan), known_at=known_at)
    terms = replace(TERMS, missing="impute")
    found = experiments.challenge(trial, terms, 9999 * DAY)
    assert found.decision == "promote"
    assert 0.0 < found.gain.low < 4 / 3 < found.gain.high
    at_low = experiments.challenge(trial, replace(terms, min_gain=found.gain.low), 9999 * DAY)
    assert at_low.evidence == pytest.approx(20.0, rel=1e-3)


# ------------------------------------------------------------------------------------------------------------------------- guardrails

HELD = Guardrail("harm", Estimate(0.01, 0.0, 0.02), 0.1, True)
OPEN = Guardrail("latency", Estimate(1.1, 0.9, 2.0, "×"), 1.5, None)
BROKEN = Guardrail("sex=f", Estimate(-2.0, -3.0, -1.0, "EUR"), -0.5, False)


def test_a_guardrail_holds_back_or_ends_what_the_gain_would_promote() -> None:
    trial = shadow(np.tile([9.0, -5.0, 0.0], 300))
    assert experiments.challenge(trial, TERMS, NEVER, guardrails=[HELD]).decision == "promote"
    undecided = experiments.challenge(trial, TERMS, NEVER, guardrails=(HELD, OPEN))
    assert undecided.decision == "wait"
    assert undecided.why.endswith(
        "That is enough, but of latency 1.1 [0.9, 2] × against 1.5 there is too little to tell: let more units come."
    )
    assert undecided.guardrails == (HELD, OPEN)
    broken = experiments.challenge(trial, TERMS, NEVER, guardrails=(OPEN, BROKEN))
    assert broken.decision == "drop"
    assert broken.why.endswith("But a guardrail is broken: sex=f -2 [-3, -1] EUR against -0.5.")


# --------------------------------------------------------------------------------------------------------------------------- rollback


def promoted(new: float, old: float) -> Trial:
    """Return what came of a new champion that leaves a tenth of the disagreements to the old one."""
    rng = np.random.default_rng(5)
    theirs = rng.random(4000) < 0.9
    paid = np.where(theirs, new, old) + rng.choice([-1.0, 1.0], size=4000)
    return experiments.weighted(decisions(paid), all_of(4000), theirs, np.where(theirs, 0.9, 0.1))


def test_the_mirrored_test_takes_a_worse_champion_back() -> None:
    terms = replace(TERMS, least=0.1, min_gain=99.0)
    found = experiments.rollback(promoted(2.0, 8.0), terms, NEVER, "old")
    assert (found.model, found.decision, found.min_gain, found.design) == ("old", "rollback", 0.0, "disagreement")
    assert 0.0 < found.gain.low < 6.0 < found.gain.high
    assert found.why.startswith("The old champion pays")
    kept = experiments.rollback(promoted(8.0, 2.0), terms, NEVER, "old")
    assert kept.decision == "keep"
    even = experiments.rollback(promoted(5.0, 5.0), terms, NEVER, "old")
    assert even.decision == "wait"
    low = experiments.challenge(promoted(8.0, 2.0), replace(terms, min_gain=0.0), NEVER)
    assert (low.gain.low, low.gain.high) == (-kept.gain.high, -kept.gain.low)


def test_a_loss_beyond_the_cap_fails_the_mirrored_test_by_its_own_bound() -> None:
    trial = experiments.weighted(decisions(np.array([50.0])), all_of(1), all_of(1), np.array([0.5]))
    assert experiments.rollback(trial, TERMS, NEVER).decision == "failed"
    assert experiments.challenge(trial, TERMS, NEVER).decision == "wait"


def test_what_was_given_is_not_changed() -> None:
    trial = shadow(np.tile([9.0, -5.0], 200))
    before = trial.outcomes.paid.copy()
    experiments.challenge(trial, TERMS, NEVER)
    assert (trial.outcomes.paid == before).all()
    assert TERMS.floor == maturity.LEAST_OBSERVED


def test_disagreements_that_nothing_was_left_to_count_at_their_worst() -> None:
    n = np.arange(40)
    unseen = n % 4 == 0
    chance = np.where(unseen, 1.0, 0.5)
    paid = np.where(unseen, np.nan, 3.0)
    rows = Outcomes(n, n, n * 0.0, paid, n, ~unseen, n * 0, np.where(unseen, -7.0, 0.0))
    trial = experiments.weighted(rows, np.ones(40, bool), np.ones(40, bool), chance, unseen)
    assert experiments.ticks(trial, Terms(missing=0.0), now=99).z.tolist() == np.where(unseen, -7.0, 6.0).tolist()
    assert trial.unrevealed.sum() == 10
    with pytest.raises(DataError, match="never known"):
        experiments.weighted(rows, np.ones(40, bool), np.ones(40, bool), chance)
    # better where it is tried, and ruinous where it never is: no evidence that it is better
    terms = Terms(cap=(-100.0, 10.0), missing=0.0)
    many = np.arange(4000)
    where = many % 4 == 0
    outcomes = Outcomes(many, many, many * 0.0, np.where(where, np.nan, 5.0), many, ~where, many * 0, np.where(where, -100.0, 0.0))
    done = experiments.weighted(outcomes, np.ones(4000, bool), np.ones(4000, bool), np.where(where, 1.0, 0.5), where)
    assert experiments.challenge(done, terms, 9999).decision != "promote"
    assert experiments.challenge(done.take(np.flatnonzero(~where)), terms, 9999).decision == "promote"
