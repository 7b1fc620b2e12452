"""The controller: one champion, one change at a time, nothing promoted without evidence, nothing retrained without new outcomes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makegood.case import Case
from makegood.contracts import Estimate
from makegood.loop.controller import FEWEST, GROWN, SOON, Act, Entering, Memory, Terms, entering, hoped, step
from makegood.monitoring.promise import turned
from makegood.monitoring.review import Alarm, Challenge, Guardrail, Period, Review
from makegood.stages.facts import Entrant, Standing

DAY = 86_400_000_000
NONE = Estimate(math.nan, math.nan, math.nan)
TERMS = Terms(500.0, 60 * DAY, "shadow", 0.5, 0.1, 30 * DAY, 21 * DAY, 0.05, 365 * DAY, high_stakes=False)
FIRST = Memory(were=("a",))
CASE = """
case: loans
data: {source: loans.csv, outcome: bad, outcome_delay: 14d}
decision:
  unit: EUR
  actions:
    approve: {payoff: {no: 1, yes: -5}}
    decline: {payoff: 0}
feedback: {review: 7d, retrain: {cost: 500, horizon: 60d}, promote: {holdback: 0.2}}
"""


def alarm(evidence: float = 0.0, ticks: int = 2000, *, raised: bool = False, turn: float = 0.5) -> Alarm:
    """Return a promise test whose evidence rises after the share `turn` of its ticks."""
    points = 20
    path = tuple((i * 5 * DAY, 0.5 if i < turn * points else max(evidence, 1.0) * 1e3) for i in range(points))
    return Alarm(raised, evidence, 730_000.0, 9 * DAY if raised else None, ticks, 2.0, 300.0, math.inf, "Words of the alarm.", path)


def challenge(model: str = "b", decision: str = "wait", evidence: float = 1.0, *, held: tuple[bool | None, ...] = ()) -> Challenge:
    """Return a test of a challenger."""
    rails = tuple(Guardrail("harm", NONE, 0.1, h) for h in held)
    gain = Estimate(3.0, 1.0, 5.0, "EUR")
    why = f"Words of {decision}."
    return Challenge(model, "paired", "betting", 900, 300, gain, gain, evidence, 20.0, 0.0, decision, why, guardrails=rails)


def review(at: int = 100, promise: Alarm | None = None, challenges: tuple[Challenge, ...] = (), gap: float = 30.0) -> Review:
    """Return a review on day `at` of champion a, that lost `gap` EUR a decision since day 50."""
    lost = Estimate(gap, gap - 5, gap + 5, "EUR")
    periods = (
        Period("a", 0, 50 * DAY, 5000, 5000, NONE, NONE, replace(lost, value=0.0)),
        Period("a", 50 * DAY, 100 * DAY, 5000, 3000, NONE, NONE, lost),
    )
    found = alarm() if promise is None else promise
    return Review(
        "loans",
        "EUR",
        at * DAY,
        "a",
        10_000,
        8000,
        0,
        NONE,
        NONE,
        lost,
        None,
        found,
        periods,
        (),
        challenges,
        (),
        None,
        (),
        None,
        "keep",
        "",
        "",
    )


def champion(entrants: tuple[Entrant, ...] = (), before: Entrant | None = None, since: int = 0) -> Standing:
    """Return a standing in which a decides."""
    return Standing("a", since * DAY, entrants, before)


def verbs(acts: tuple[Act, ...]) -> list[str]:
    """Return what is done."""
    return [act.verb for act in acts]


# ------------------------------------------------------------------------------------------------------------------------ terms


def test_terms_are_read_from_the_case() -> None:
    terms = Terms.of(Case.parse(CASE))
    assert terms == Terms(500.0, 60 * DAY, "shadow", 0.5, 0.2, 30 * DAY, 21 * DAY, 0.01, 365 * DAY, high_stakes=False)


@pytest.mark.parametrize(("high_stakes", "mode"), [("no", "canary"), ("yes", "shadow")])
def test_a_canary_lets_hidden_outcomes_be_seen_but_not_where_stakes_are_high(high_stakes: str, mode: str) -> None:
    text = CASE.replace("decline: {payoff: 0}", "decline: {payoff: 0, reveals: no}").replace(
        "unit: EUR", f"unit: EUR\n  high_stakes: {high_stakes}"
    )
    assert Terms.of(Case.parse(text)).mode == mode


# ------------------------------------------------------------------------------------------------------------------- retraining


def test_nothing_is_done_while_the_promise_is_kept() -> None:
    assert step(Memory(), review(), champion(), TERMS) == (FIRST, ())


def test_a_new_model_is_made_as_soon_as_it_is_worth_its_cost_and_before_any_alarm() -> None:
    memory, (act,) = step(Memory(), review(promise=alarm(evidence=6000.0)), champion(), TERMS)
    assert act.verb == "retrain"
    assert act.since == 45 * DAY
    assert "costs 500" in act.why
    assert memory == Memory(100 * DAY, "a", 1000, 45 * DAY, hoped(review(promise=alarm(evidence=6000.0)), champion(), TERMS), were=("a",))


@pytest.mark.parametrize(
    "found",
    [
        review(promise=alarm(evidence=2100.0), gap=0.5),  # what is lost is not worth the cost
        review(promise=alarm(evidence=6000.0), gap=-30.0),  # nothing is lost
        review(promise=alarm(evidence=1900.0)),  # no more than a kept promise gives
        review(promise=alarm(evidence=6000.0, ticks=2 * FEWEST - 2)),  # too few since the change
        review(at=20, promise=alarm(evidence=6000.0)),  # too soon after the champion came
    ],
)
def test_no_new_model_where_it_is_not_worth_its_cost(found: Review) -> None:
    assert step(Memory(), found, champion(), TERMS)[1] == ()


def test_the_same_break_is_retrained_for_again_only_with_more_outcomes() -> None:
    first, _ = step(Memory(), review(promise=alarm(evidence=6000.0)), champion(), TERMS)
    later = review(at=130, promise=alarm(evidence=60000.0, ticks=4000))
    same = step(first, review(at=130, promise=alarm(evidence=60000.0)), champion(), TERMS)
    soon = step(first, replace(later, at=107 * DAY), champion(), TERMS)
    again = step(first, later, champion(), TERMS)
    other = step(replace(first, champion="z"), review(at=130, promise=alarm(evidence=6000.0)), champion(), TERMS)
    assert [verbs(acts) for _, acts in (same, soon, again, other)] == [[], [], ["retrain"], ["retrain"]]


def test_of_one_break_the_most_is_remembered_that_was_ever_hoped_for() -> None:
    first, _ = step(Memory(), review(promise=alarm(evidence=60000.0)), champion(), TERMS)
    less = review(at=130, promise=alarm(evidence=60000.0, ticks=4000), gap=10.0)
    again, (act,) = step(first, less, champion(), TERMS)
    assert act.verb == "retrain"
    assert again.hoped == first.hoped > hoped(less, champion(), TERMS) > 500


def test_a_model_of_a_young_world_is_made_anew_as_its_rows_double() -> None:
    """It learnt on day 60 what had begun on day 50: on day 70 there are twice as many rows of it, and half of what was hoped is half again."""
    learnt = Memory(60 * DAY, "z", 400, broke=50 * DAY, hoped=4000.0, were=("z", "a"))
    soon, standing = replace(TERMS, rest_us=9 * DAY), champion(since=61)
    memory, (act,) = step(learnt, review(at=70), standing, soon)
    assert (act.verb, act.since, memory.ticks, memory.broke) == ("retrain", None, 0, 50 * DAY)
    assert "another for 10 days, and now it has for 20: its rows can be expected to teach 1,000 EUR more" in act.why
    for other, found, where in (
        (replace(learnt, hoped=1999.0), review(at=70), standing),  # less than it costs
        (learnt, review(at=69), standing),  # too soon
        (learnt, review(at=70), champion(since=50)),  # a champion from before the change, which its promise speaks for
        (replace(learnt, broke=None), review(at=70), standing),
        (replace(learnt, at=None), review(at=70), standing),
    ):
        assert step(other, found, where, replace(soon, rest_us=0))[1] == (), other
    assert step(learnt, review(at=70), standing, replace(soon, rest_us=11 * DAY))[1] == ()


def test_an_alarm_is_told_once() -> None:
    found = review(promise=alarm(evidence=8e5, raised=True))
    missing = replace(found.alarm, why="Outcomes do not come.")
    found = replace(found, alarm=replace(found.alarm, missing=missing))
    memory, acts = step(Memory(), found, champion(), TERMS)
    assert verbs(acts) == ["alarm", "alarm", "retrain"]
    assert acts[0].evidence == {"test": "promise", "evidence": 8e5, "limit": 730_000.0}
    assert acts[1].why == "Outcomes do not come."
    assert step(memory, found, champion(), TERMS)[1] == ()
    quiet = replace(found, alarm=replace(found.alarm, missing=replace(missing, raised=False)))
    assert verbs(step(Memory(), quiet, champion(), TERMS)[1]) == ["alarm", "retrain"]


def test_what_is_hoped_for_is_the_chance_times_half_of_what_was_lost_times_the_decisions_to_come() -> None:
    found = review(promise=alarm(evidence=2000.0 + 36_500.0, turn=0.6))  # even odds of one change a year
    assert hoped(found, champion(), TERMS) == pytest.approx(0.5 * 0.5 * 30.0 * 100 * 60)
    assert hoped(replace(found, periods=()), champion(), TERMS) == pytest.approx(0.5 * 0.5 * 30.0 * 100 * 60)
    earlier = review(promise=alarm(evidence=2000.0 + 36_500.0, turn=0.4))  # nothing was lost in the 5,000 before the 3,000
    assert hoped(earlier, champion(), TERMS) == pytest.approx(0.5 * 0.5 * 30.0 * 3 / 8 * 100 * 60)
    assert hoped(found, champion(since=100), TERMS) == 0.0
    assert hoped(replace(found, alarm=replace(found.alarm, limit=math.inf)), champion(), TERMS) == 0.0
    sure = replace(found, alarm=replace(found.alarm, evidence=math.inf))
    assert hoped(sure, champion(), TERMS) == pytest.approx(0.5 * 30.0 * 100 * 60)


def test_a_new_model_is_looked_for_where_the_promise_is_kept_the_longer_ago_the_last_was() -> None:
    kept = replace(review(), realised=Estimate(40.0, 38.0, 42.0, "EUR"))
    late, soon = replace(TERMS, horizon_us=1825 * DAY), replace(TERMS, horizon_us=60 * DAY)
    memory, (act,) = step(Memory(), kept, champion(), late)
    assert (act.verb, act.since, memory.ticks) == ("retrain", None, 0)
    assert "The promise is kept, but nobody has looked for 100 days" in act.why
    assert step(Memory(), kept, champion(), soon)[1] == ()
    assert step(Memory(90 * DAY, "a"), kept, champion(), late)[1] == ()
    assert step(Memory(), replace(kept, matured=FEWEST - 1), champion(), late)[1] == ()


def test_the_turn_of_a_promise_is_after_the_last_quiet_moment() -> None:
    assert turned(alarm(evidence=6000.0)) == (45 * DAY, 1000)
    assert turned(alarm(evidence=6000.0, turn=0.0)) == (None, 2000)
    assert turned(replace(alarm(), path=())) == (None, 0)
    assert turned(alarm(evidence=6000.0, turn=1.0)) == (95 * DAY, 0)


# ----------------------------------------------------------------------------------------------------------------------- trials


def test_a_new_model_takes_the_place_of_the_one_that_gains_least() -> None:
    trials = champion((Entrant("b", 0), Entrant("c", 5)))
    found = review(challenges=(challenge("b"), replace(challenge("c"), gain=Estimate(1.0, 0.0, 2.0))))
    acts = entering(Entering("d"), FIRST, found, trials, TERMS)
    assert [(act.verb, act.model) for act in acts] == [("drop", "c"), ("canary", "d")]
    acts = entering(Entering("d"), FIRST, found, champion((Entrant("b", 0, 0.5),)), TERMS)
    assert [(act.verb, act.model) for act in acts] == [("shadow", "b"), ("canary", "d")], "one canary at a time"
    drawn = champion((Entrant("b", 0, 0.5),))
    assert verbs(entering(Entering("d", refused=True), FIRST, found, drawn, TERMS)) == ["shadow"]
    old = replace(FIRST, were=("c", "a"))  # the old champion guards, and is no trial
    assert [act.model for act in entering(Entering("d"), old, found, trials, TERMS)] == ["d"]


def test_a_canary_takes_its_share_and_is_asked_for_where_stakes_are_high() -> None:
    drawn = replace(TERMS, mode="canary")
    (act,) = entering(Entering("c"), FIRST, review(), champion(), drawn)
    assert (act.verb, act.share, act.asks) == ("canary", 0.5, False)
    assert entering(Entering("c"), FIRST, review(), champion(), replace(drawn, high_stakes=True))[0].asks
    assert verbs(entering(Entering("c", refused=True), FIRST, review(), champion(), drawn)) == ["shadow"]


def test_half_of_the_units_are_spared_the_wait_for_the_test_where_that_puts_nobody_at_risk() -> None:
    (act,) = entering(Entering("c"), FIRST, review(), champion(), TERMS)
    assert (act.verb, act.share, act.asks) == ("canary", 0.5, False)
    assert "it was made since it can be expected to earn more" in act.why
    assert verbs(entering(Entering("c"), FIRST, review(), champion(before=Entrant("b", 0, 0.1)), TERMS)) == ["shadow"]
    assert verbs(entering(Entering("c", refused=True), FIRST, review(), champion(), TERMS)) == ["shadow"]
    assert verbs(entering(Entering("c"), FIRST, review(), champion(), replace(TERMS, high_stakes=True))) == ["shadow"]


def test_a_canary_is_who_earns_most_by_what_is_known() -> None:
    def after(gains: dict[str, float], holder: str = "", memory: Memory = FIRST, terms: Terms = TERMS, units: int = 900) -> list[str]:
        """Return what is done with b and c, on trial since day 40, the `holder` as a canary."""
        trials = champion(tuple(Entrant(name, 40 * DAY, 0.5 if name == holder else None) for name in "bc"))
        said = tuple(replace(challenge(name), gain=Estimate(gain, math.nan, math.nan), units=units) for name, gain in gains.items())
        return [f"{act.verb} {act.model}" for act in step(memory, review(at=50, challenges=said), trials, terms)[1]]

    assert after({"b": 3.0, "c": 5.0}) == ["canary c"]
    assert after({"b": 3.0, "c": 5.0}, "c") == []
    assert after({"b": 3.0, "c": 5.0}, "b") == ["shadow b", "canary c"]
    assert after({"b": -3.0, "c": -5.0}) == []
    assert after({"b": -3.0, "c": -5.0}, "b") == ["shadow b"]
    assert after({"b": 3.0, "c": math.nan}, "c") == [], "one of which nothing is known yet keeps what it was given"
    assert after({"b": 3.0, "c": 5.0}, units=SOON - 1) == []
    assert after({"b": 3.0, "c": 5.0}, memory=replace(FIRST, unfit=frozenset("c"))) == ["canary b"]
    assert after({"b": 3.0, "c": 5.0}, memory=replace(FIRST, were=("c", "a")))[-1] == "canary b", "the old champion guards, and is no trial"
    assert after({"b": 3.0}, terms=replace(TERMS, high_stakes=True)) == []
    assert after({"b": 3.0}, terms=replace(TERMS, mode="canary")) == []


def test_a_canary_is_scored_only_once_another_is_promoted() -> None:
    trials = champion((Entrant("b", 0), Entrant("c", 0, 0.5)))
    found = review(at=50, challenges=(challenge("b", "promote", 41.0), challenge("c")))
    assert [f"{act.verb} {act.model}" for act in step(FIRST, found, trials, TERMS)[1]] == ["promote b", "shadow c"]
    leaves = review(at=50, challenges=(challenge("b", "promote", 41.0), challenge("c", "drop")))
    assert [f"{act.verb} {act.model}" for act in step(FIRST, leaves, trials, TERMS)[1]] == ["promote b", "drop c"]


def test_a_challenger_is_promoted_on_evidence_whose_guardrails_hold() -> None:
    found = review(challenges=(challenge(decision="promote", evidence=25.0, held=(True, True)),))
    _, (act,) = step(Memory(), found, champion((Entrant("b", 0),)), TERMS)
    assert (act.verb, act.model, act.why, act.share, act.asks) == ("promote", "b", "Words of promote.", None, False)
    assert act.evidence["evidence"] == 25.0
    assert act.evidence["limit"] == 20.0
    _, (told,) = step(Memory(), found, champion((Entrant("b", 0, 0.5),)), TERMS)
    assert told.share is None, "where an outcome tells of both actions the old champion guards in the shadow"
    found = replace(found, challenges=(replace(found.challenges[0], design="disagreement"),))
    _, (drawn,) = step(Memory(), found, champion((Entrant("b", 0, 0.5),)), replace(TERMS, high_stakes=True))
    assert (drawn.share, drawn.asks) == (0.1, True)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (challenge(decision="wait", evidence=3.0), ["canary"]),
        (challenge(decision="promote", evidence=19.0), ["canary"]),  # not what the evidence says
        (replace(challenge(decision="promote", evidence=25.0), limit=math.nan), ["canary"]),
        (challenge(decision="promote", evidence=25.0, held=(True, None)), ["canary"]),
        (challenge(decision="promote", evidence=25.0, held=(False, True)), ["drop"]),
        (challenge(decision="drop"), ["drop"]),
        (challenge(decision="failed"), ["drop"]),
        (challenge(model="another", decision="promote", evidence=25.0), []),
    ],
)
def test_a_trial_goes_on_or_ends_as_its_test_says(said: Challenge, expected: list[str]) -> None:
    assert verbs(step(Memory(), review(at=50, challenges=(said,)), champion((Entrant("b", 0),)), TERMS)[1]) == expected


def test_of_several_that_are_shown_to_be_better_the_one_that_surely_gains_most_is_promoted() -> None:
    trials = champion((Entrant("b", 0), Entrant("c", 0)))
    b, c = challenge("b", "promote", 41.0), replace(challenge("c", "promote", 44.0), gain=Estimate(9.0, 2.0, 16.0))
    assert [act.model for act in step(Memory(), review(at=50, challenges=(b, c)), trials, TERMS)[1]] == ["c"]
    unsure = replace(c, gain=Estimate(0.5, math.nan, math.nan))
    assert [act.model for act in step(Memory(), review(at=50, challenges=(b, unsure)), trials, TERMS)[1]] == ["b"]


def test_a_trial_without_a_difference_ends_with_the_horizon() -> None:
    _, (act,) = step(Memory(), review(challenges=(challenge(),)), champion((Entrant("b", 0),)), TERMS)
    assert act.verb == "drop"
    assert "No difference was shown" in act.why


def test_a_broken_promise_brings_another_challenger_while_one_is_on_trial() -> None:
    found = review(challenges=(challenge(),), promise=alarm(evidence=60000.0))
    assert verbs(step(Memory(), found, champion((Entrant("b", 90 * DAY, 0.5),)), TERMS)[1]) == ["retrain"]
    assert step(Memory(), found, champion((Entrant("b", 90 * DAY, 0.5),)), replace(TERMS, mode="canary"))[1] == ()


# ------------------------------------------------------------------------------------------------------------------------ guard


def test_the_old_champion_comes_back_on_evidence() -> None:
    drawn = review(challenges=(challenge("old", "rollback", 30.0),), promise=alarm(evidence=6000.0))
    _, (act,) = step(Memory(), drawn, champion(before=Entrant("old", 80 * DAY, 0.1), since=80), TERMS)
    assert (act.verb, act.model) == ("rollback", "a")
    weak = review(challenges=(challenge("old", "rollback", 3.0), challenge("x", "rollback", 30.0)))
    assert step(Memory(), weak, champion(before=Entrant("old", 80 * DAY, 0.1), since=80), TERMS)[1] == ()
    shadowed = review(challenges=(challenge("old", "promote", 30.0),))
    _, (act,) = step(Memory(were=("old",)), shadowed, champion((Entrant("old", 80 * DAY),), since=80), TERMS)
    assert (act.verb, act.model) == ("rollback", "a")


def test_the_old_champion_is_let_go_after_the_guard() -> None:
    _, (act,) = step(Memory(), review(), champion(before=Entrant("old", 0, 0.1)), TERMS)
    assert (act.verb, act.model) == ("release", "old")
    _, (act,) = step(Memory(were=("old",)), review(challenges=(challenge("old"),)), champion((Entrant("old", 0),)), TERMS)
    assert (act.verb, act.model) == ("release", "old")


def test_nothing_is_trained_while_an_old_champion_holds_the_canary() -> None:
    found = review(promise=alarm(evidence=6000.0))
    guarded = champion(before=Entrant("old", 75 * DAY, 0.1), since=75)
    assert step(Memory(), found, guarded, replace(TERMS, mode="canary"))[1] == ()
    assert verbs(step(Memory(), found, guarded, TERMS)[1]) == ["retrain"]


# ------------------------------------------------------------------------------------------------------------- whatever may come


numbers = st.floats(allow_nan=True, allow_infinity=True)
alarms = st.builds(alarm, st.floats(0, 1e7), st.integers(0, 10_000), raised=st.booleans(), turn=st.floats(0, 1)) | st.builds(
    lambda e, limit: replace(alarm(), evidence=e, limit=limit), numbers, numbers
)
challenges = st.builds(
    lambda model, decision, evidence, limit, held: replace(challenge(model, decision, evidence, held=tuple(held)), limit=limit),
    st.sampled_from(["b", "c", "old", "m1", "m2"]),
    st.sampled_from(["promote", "wait", "drop", "failed", "rollback", "?"]),
    numbers,
    numbers | st.just(20.0),
    st.lists(st.sampled_from([True, False, None]), max_size=2),
)
reviews = st.builds(review, st.integers(0, 400), alarms, st.lists(challenges, max_size=3).map(tuple), numbers)
terms = st.builds(
    lambda mode, high, cost: replace(TERMS, mode=mode, high_stakes=high, cost=cost),
    st.sampled_from(["shadow", "canary"]),
    st.booleans(),
    st.floats(0, 1e6),
)


def lived(standing: Standing, acts: tuple[Act, ...], at: int, line: list[str]) -> Standing:
    """Return who stands where after acts, as a house does them; `line` are the champions so far."""
    for act in acts:
        others = tuple(e for e in standing.entrants if e.model != act.model)
        match act.verb:
            case "shadow" | "canary":
                standing = replace(standing, entrants=(*others, Entrant(act.model, at, act.share)))
            case "promote":
                old = Entrant(standing.champion, at, act.share)
                line.append(act.model)
                standing = Standing(act.model, at, others, old) if act.share else Standing(act.model, at, (*others, old))
            case "rollback":
                line.pop()
                standing = Standing(line[-1], at)
            case "drop" | "release":
                kept = standing.before if standing.before and standing.before.model != act.model else None
                standing = Standing(standing.champion, standing.since, others, kept)
    return standing


@settings(max_examples=100)
@given(st.lists(reviews, min_size=1, max_size=8), terms)
def test_whatever_a_loop_lives_through_its_rules_hold(lives: list[Review], said: Terms) -> None:
    memory, standing, made, line = Memory(), champion(), 0, ["a"]
    last: tuple[str, int] | None = None
    for i, seen in enumerate(sorted(lives, key=lambda r: r.at)):
        found = replace(seen, at=seen.at + i, model=standing.champion)
        before = standing.champion
        memory, acts = step(memory, found, standing, said)
        deciding = [act for act in acts if act.verb in ("promote", "rollback")]
        assert len(deciding) <= 1, "one change of who decides at a time"
        assert all(act.why for act in acts)
        for act in deciding:
            evidence, limit = act.evidence["evidence"], act.evidence["limit"]
            assert isinstance(evidence, float)
            assert isinstance(limit, float)
            assert evidence >= limit > 0, "never without evidence"
            assert act.asks == said.high_stakes
            assert act.verb == "rollback" or act.model in {e.model for e in standing.entrants}
        if any(act.verb == "rollback" for act in acts):
            assert len(line) > 1, "there is somebody to go back to"
        if any(act.verb == "retrain" for act in acts):
            assert not deciding
            assert memory.at == found.at
            if memory.ticks and last is not None and last[0] == standing.champion:
                assert memory.ticks >= GROWN * last[1], "never twice without new outcomes"
            last = (standing.champion, memory.ticks) if memory.ticks else None
        standing = lived(standing, tuple(act for act in acts if not act.asks), found.at, line)
        if any(act.verb == "retrain" for act in acts):
            made += 1
            follow = entering(Entering(f"m{made}"), memory, found, standing, said)
            standing = lived(standing, tuple(act for act in follow if not act.asks), found.at, line)
        assert len(standing.entrants) <= 3, "two on trial at most, and the old champion"
        assert said.mode == "shadow" or len(standing.entrants) <= 1, "a canary is alone"
        assert sum(e.least is not None for e in standing.entrants if e.model not in line) <= 1, "one canary at a time"
        if said.high_stakes:
            assert standing.champion == before == "a", "nobody but a person changes who decides"
            assert all(e.least is None for e in standing.entrants)


def test_a_review_without_numbers_leads_nowhere() -> None:
    broken = review(promise=replace(alarm(), evidence=np.nan, ticks=0), gap=np.nan)
    assert step(Memory(), broken, champion(), TERMS)[1] == ()
