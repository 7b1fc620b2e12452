"""A review of decisions whose truth is known: it finds what changed, says why, and knows what it does not know."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest

from makegood import model as models
from makegood import pipeline
from makegood.contracts import Estimate, Ints
from makegood.errors import Refused
from makegood.loop.inside import Inside
from makegood.loop.tape import Tape, of_stream
from makegood.model import Model
from makegood.monitoring.exploring import losses, pair
from makegood.monitoring.review import Challenge, Review
from makegood.report.review_page import render
from makegood.report.summary import review_json, review_text
from makegood.stages import because, comparing, feedback, pricing
from makegood.stages.facts import Entrant, Facts, Standing, sample
from makegood.stages.observe import Log, Shadowed
from makegood.streams import stream

N, HISTORY = 6_000, 8_000
VERDICTS = {"keep", "wait", "alarm", "retrain", "promote", "rollback"}


@cache
def tape(kind: str) -> Tape:
    """Return a short stream of loans whose outcomes all show."""
    made = of_stream(stream(kind, seed=3, n=N, history=HISTORY, selective=False))
    said = made.case.to_json()
    said["train"] = {"budget": 3.0, "families": ["linear"]}
    return replace(made, case=type(made.case).of(said))


@cache
def trained(kind: str) -> Model:
    """Return a model of a stream's past."""
    made = tape(kind)
    done = pipeline.run(made.case, data=made.history, workspace=Path(mkdtemp()), until="bundle")
    assert done.bundle is not None
    return models.load(done.bundle)


@cache
def lived(kind: str) -> Inside:
    """Return a house in which the first model decided on everything, and every outcome that came is known."""
    made = tape(kind)
    house = Inside(made, trained(kind), Path(mkdtemp()))
    house.decide(slice(0, len(made)))
    house.tell(made.end + 1)
    return house


@cache
def reviewed(kind: str) -> Review:
    """Return what a review says of it when everything is due."""
    house = lived(kind)
    return feedback.review(house.log(), house.standing(), house.models, tape(kind).end + 1)


def shown(review: Review) -> str:
    """Return a review's text, having made its page and its JSON too."""
    page = render(review)
    assert review.why in page.replace("&#x27;", "'").replace("&quot;", '"').replace("&#39;", "'") or review.why[:20] in page
    json.dumps(review_json(review), allow_nan=False)
    return review_text(review)


def test_a_world_that_changes_breaks_the_promise_and_is_named_as_the_cause() -> None:
    review = reviewed("sudden")
    assert review.alarm.raised
    assert review.gap.low > 0
    assert review.verdict == "retrain"
    assert "broken" in review.why
    assert review.alarm.since is not None
    assert review.alarm.since > tape("sudden").changed_at[0]
    found = review.attribution
    assert found is not None
    causes = {name: estimate.value for name, estimate in found.causes.items()}
    assert min(causes, key=lambda name: causes[name]) == "world"
    assert found.causes["world"].high < 0
    assert sum(causes.values()) + found.unexplained.value == pytest.approx(found.change.value, abs=1e-9)
    assert causes["model"] == causes["policy"] == causes["terms"] == 0
    assert abs(because.began(review.alarm) - tape("sudden").changed_at[0]) < 0.2 * (tape("sudden").end - tape("sudden").start)  # type: ignore[operator]
    assert "RETRAIN" in shown(review)


def test_a_stable_world_keeps_its_promise() -> None:
    review = reviewed("stable")
    assert not review.alarm.raised
    assert review.verdict == "keep"
    assert review.gap.low < 0 < review.gap.high or abs(review.gap.value) < 3 * review.alarm.tolerance
    assert review.matured == review.n == N
    assert review.ratio is None  # nothing was left to chance
    assert review.outlook is None
    shown(review)


def test_rows_that_come_from_elsewhere_are_told_by_the_money_at_stake() -> None:
    review = reviewed("mix")
    names = [moved.column for moved in review.drift if moved.column]
    stakes = {m.column: m.distance for m in review.drift if m.kind != "missing"}
    assert max(stakes, key=lambda c: stakes[c]) in names[:3] or review.drift[0].column == ""
    assert max(stakes.values()) > 0.2
    shown(review)


def test_outcomes_that_stop_coming_are_an_alarm_of_their_own() -> None:
    made = tape("stable")
    house = Inside(made, trained("stable"), Path(mkdtemp()))
    house.decide(slice(0, N))
    house.tell(made.end + 1)
    log = house.log()
    gone = np.arange(N) >= N // 2
    log = replace(
        log,
        known_at=np.where(gone, np.iinfo(np.int64).max, log.known_at),
        first=np.where(gone, np.nan, log.first),
        paid=np.where(gone, np.nan, log.paid),
        outcome=np.where(gone, np.nan, log.outcome),
    )
    review = feedback.review(log, house.standing(), house.models, made.end + 1)
    assert review.alarm.missing is not None
    assert review.alarm.missing.raised
    assert review.verdict == "alarm"
    assert review.maturity[-1].known.value < 0.7
    shown(review)


def test_before_anything_is_due_it_says_when_something_will_be() -> None:
    house, made = lived("stable"), tape("stable")
    log = house.log()
    early = made.start + 86_400_000_000
    few = _cut(log, int((log.at < early).sum()))
    review = feedback.review(few, house.standing(), house.models, early)
    assert (review.matured, review.verdict) == (0, "wait")
    assert "due" in review.why
    assert review.attribution is None
    assert review.outlook is not None
    assert "WAIT" in shown(review)
    nothing = feedback.review(_cut(log, 0), house.standing(), house.models, early)
    assert (nothing.n, nothing.verdict) == (0, "wait")
    assert nothing.periods == ()
    shown(nothing)


def test_a_better_challenger_in_shadow_is_promoted_and_a_harmful_one_is_not() -> None:
    made = tape("sudden")
    cut = int(np.searchsorted(made.at, made.changed_at[0]))
    house = Inside(made, trained("sudden"), Path(mkdtemp()))
    half = (cut + N) // 2
    house.decide(slice(0, half))
    house.tell(int(made.at[half]))
    made_now = house.retrain(int(made.at[half]), made.changed_at[0])
    begins = int(made.at[half])
    old = house.standing().champion
    house._standing = Standing(old, made.start, (Entrant(made_now.name, begins),))
    house.decide(slice(half, N))
    house.tell(made.end + 1)
    review = feedback.review(house.log(), house.standing(), house.models, made.end + 1)
    (challenge,) = review.challenges
    assert challenge.design == "paired"
    assert challenge.test == "betting"
    assert challenge.gain.value > 0
    assert (challenge.decision, review.verdict) == ("promote", "promote")
    assert challenge.evidence >= challenge.limit
    assert review.next.startswith("makegood promote")
    assert [w.model for w in review.worths] == [old, made_now.name]
    shown(review)
    explored(house, made_now.name, begins)
    # the other way round: the old model as the challenger of the new one
    log = house.log()
    place, other = log.names.index(old), log.names.index(made_now.name)
    late = np.flatnonzero(log.at >= begins)
    shadow = log.shadows[other]
    swapped = replace(
        log,
        model=np.where(log.at >= begins, other, log.model),
        decided=np.where(log.at >= begins, shadow.option, log.decided),
        done=np.where(log.at >= begins, shadow.option, log.done),
        promise=np.where(log.at >= begins, shadow.promise, log.promise),
        shadows={place: type(shadow)(np.where(log.at >= begins, log.decided, -1), log.promise)},
    )
    paid = np.array(house.models[old].realised(log.rows(late), made.outcome[late].tolist()))[np.arange(len(late)), shadow.option[late]]
    first, last = swapped.first.copy(), swapped.paid.copy()
    first[late] = last[late] = paid
    swapped = replace(swapped, first=first, paid=last)
    worse = feedback.review(swapped, Standing(made_now.name, begins, (Entrant(old, begins),)), house.models, made.end + 1)
    assert worse.challenges[0].gain.value < 0
    assert worse.challenges[0].decision in ("wait", "drop")
    assert worse.challenges[0].why
    shown(worse)


def explored(house: Inside, name: str, now: int) -> None:
    """See that a budget is what it would cost to try a challenger, and that too small a one is refused by name."""
    standing, log = house.standing(), house.log()

    def facts(budget: float) -> Facts:
        terms = {"explore": {"budget": [budget, 7 * 86400.0], "least": 0.02}}
        told = {n: replace(m, case={**m.case, "feedback": {**m.case.get("feedback", {}), **terms}}) for n, m in house.models.items()}
        return Facts(log, told, standing, now)

    found = comparing.exploration(facts(800.0), name)
    assert found is not None
    rows = np.arange(len(log))
    mine, theirs = (pricing.choices(log, house.models[n], rows).option for n in (standing.champion, name))
    apart = rows[mine != theirs]
    by = [pricing.expected(log, house.models[n], apart) for n in (standing.champion, name)]
    loss = losses(mine[apart], theirs[apart], *by)
    names = list(found.spread)
    segment = np.array([names.index(pair(log.options[a], log.options[b])) for a, b in zip(mine[apart], theirs[apart], strict=True)])
    chances = found.chances(mine[apart], theirs[apart], loss, segment)
    weeks = float(log.at.max() - log.at.min()) / 1e6 / (7 * 86400.0)
    assert float((chances * found.cost(loss)).sum()) / weeks == pytest.approx(800.0, rel=0.02)
    with pytest.raises(Refused, match=r"explore\.budget"):
        comparing.exploration(facts(1.0), name)
    assert comparing.exploration(Facts(log, house.models, standing, now), name) is None


def test_what_people_did_instead_counts_as_done_and_not_against_the_promise() -> None:
    house, made = lived("stable"), tape("stable")
    log = house.log()
    over = np.arange(N) % 4 == 0
    done = np.where(over, (log.decided + 1) % len(log.options), log.decided)
    pays = house.models[house.standing().champion].realised(log.rows(np.arange(N)), made.outcome.tolist())
    paid = pays[np.arange(N), done]
    changed = replace(log, done=done, first=paid, paid=paid, known_at=log.at)
    review = feedback.review(changed, house.standing(), house.models, made.end + 1)
    assert review.overridden == int(over.sum())
    assert review.realised.value == pytest.approx(float(paid.mean()))
    facts = Facts(changed, house.models, house.standing(), made.end + 1)
    assert len(facts.tested(house.standing().champion)) == int((~over).sum())
    assert "overridden" in shown(review)


def test_a_bundle_without_reference_is_not_tested_and_a_missing_one_is_refused() -> None:
    house, made = lived("stable"), tape("stable")
    name = house.standing().champion
    bare = {name: replace(house.models[name], reference=None)}
    review = feedback.review(house.log(), house.standing(), bare, made.end + 1)
    assert not review.alarm.raised
    assert "cannot be tested" in review.alarm.why
    assert review.drift == ()
    shown(review)
    with pytest.raises(Refused, match="no bundle of it here"):
        feedback.review(house.log(), house.standing(), {}, made.end + 1)


def test_several_at_once_must_show_more() -> None:
    one = Challenge("b", "paired", "betting", 9, 9, *(Estimate(1, 0, 2, "EUR"),) * 2, 39.0, 20.0, 0.0, "promote", "It pays more.")
    other = replace(one, model="c", evidence=1.0, decision="wait")
    assert comparing._together([one], 0.05) == [one]
    held, same = comparing._together([one, other], 0.05)
    assert held.decision == same.decision == "wait"
    assert "2 are on trial at once" in held.why
    assert [c.decision for c in comparing._together([replace(one, evidence=40.0), other], 0.05)] == ["promote", "wait"]
    both = [one, replace(one, model="c", evidence=21.0)]
    assert comparing._together(both, 0.05) == both


def test_a_bundle_that_was_held_out_on_few_rows_is_tested_by_what_its_decisions_can_pay() -> None:
    house, made = lived("sudden"), tape("sudden")
    old = house.standing().champion
    found = feedback.watched(Facts(house.log(), house.models, house.standing(), made.end + 1), old)
    reference = house.models[old].reference
    assert reference is not None
    assert reference.kept is not None
    narrow = replace(reference, kept=replace(reference.kept, room=1e-3))  # no large loan was among them
    models = {**house.models, old: replace(house.models[old], reference=narrow)}
    facts = Facts(house.log(), models, house.standing(), made.end + 1)
    again = feedback.watched(facts, old)
    assert "The test ended" not in again.why
    assert again.ticks == found.ticks
    room, outcomes = facts.room(old), facts.tested(old)
    assert again.bound == pytest.approx((np.max(room) + again.tolerance) / feedback.LEAST_COME)
    assert again.bound <= found.bound
    assert np.nanmax(outcomes.paid - outcomes.promised - room) <= 1e-9
    assert not len(Facts(house.log(), models | {"idle": models[old]}, house.standing(), made.end + 1).room("idle"))
    erased = replace(house.log(), readable=np.zeros(N, dtype=np.bool_))
    assert np.isnan(Facts(erased, models, house.standing(), made.end + 1).room(old)).all()


def test_a_glance_has_the_money_of_each_period_without_intervals() -> None:
    house, made = lived("stable"), tape("stable")
    glance, whole = (house.review(made.end + 1, thorough=thorough) for thorough in (False, True))
    assert [(p.model, p.n, p.gap.value) for p in glance.periods] == [(p.model, p.n, p.gap.value) for p in whole.periods]
    assert all(np.isnan(p.gap.low) for p in glance.periods)
    assert not all(np.isnan(p.gap.low) for p in whole.periods)


def test_challengers_of_one_year_spend_one_chance_of_a_false_promotion() -> None:
    house, made = lived("stable"), tape("stable")
    old = house.standing().champion
    log = replace(house.log(), names=(old, "new"), shadows={1: Shadowed(house.log().decided, house.log().promise)})
    models = {old: house.models[old], "new": house.models[old]}
    limits = []
    for place in (1, 2, 3):
        standing = Standing(old, made.start, (Entrant("new", made.start, place=place),))
        (found,) = comparing.challenges(Facts(log, models, standing, made.end + 1))
        limits.append(found.limit)
    assert sum(1.0 / limit for limit in limits) < 0.2
    assert limits[0] == pytest.approx(np.pi**2 / 6.0 / 0.2)


def test_a_canary_counts_what_was_never_tried_at_its_worst_and_survives_an_erasure() -> None:
    house, made = lived("stable"), tape("stable")
    log, old = house.log(), house.standing().champion
    rng = np.random.default_rng(0)
    other = (log.decided + (rng.random(N) < 0.3)) % len(log.options)
    apart = other != log.decided
    hers = apart & (rng.random(N) < 0.5)
    decided = np.where(hers, other, log.decided)
    chances = np.zeros((N, len(log.options)))
    chances[np.arange(N), log.decided] += 0.5
    chances[np.arange(N), other] += 0.5
    pays = house.models[old].realised(log.rows(np.arange(N)), made.outcome.tolist())
    paid = np.where(np.isnan(log.paid), np.nan, pays[np.arange(N), decided])
    hidden = replace(house.models[old].policy.payoffs.actions[-1], reveals=False)
    policy = house.models[old].policy
    selective = replace(policy, payoffs=replace(policy.payoffs, actions=(*policy.payoffs.actions[:-1], hidden)))
    both = {old: replace(house.models[old], policy=selective), "new": replace(house.models[old], policy=selective)}
    tried = replace(
        log,
        names=(old, "new"),
        model=hers.astype(np.int64),
        canary=hers,
        decided=decided,
        done=decided,
        chances=chances,
        first=paid,
        paid=paid,
        shadows={0: type_of(log, log.decided), 1: type_of(log, other)},
    )
    standing = Standing(old, made.start, (Entrant("new", made.start, 0.5),))
    (fair,) = comparing.challenges(Facts(tried, both, standing, made.end + 1))
    assert fair.design == "disagreement"
    assert "count at their worst" not in fair.why
    half = made.start + (made.end - made.start) // 2
    since, later = (
        comparing.challenges(Facts(tried, both, replace(standing, entrants=(entrant,)), made.end + 1))[0]
        for entrant in (Entrant("new", half, 0.5), Entrant("new", made.start, 0.5, drawn=half))
    )
    assert later == since != fair, "only what is drawn counts where an action hides the outcome"
    spent = apart & ~hers & (np.arange(N) % 2 == 0)  # here the money was gone: the champion acted for certain
    sure = chances.copy()
    sure[spent] = 0.0
    sure[spent, log.decided[spent]] = 1.0
    gone = replace(tried, chances=sure, readable=log.readable & (np.arange(N) % 50 != 0))
    (found,) = comparing.challenges(Facts(gone, both, standing, made.end + 1))
    assert "count at their worst" in found.why
    assert found.gain.low < fair.gain.low
    assert found.decision != "promote"


def type_of(log: Log, option: Ints) -> Shadowed:
    """Return what a model would have chosen."""
    return Shadowed(option, log.promise)


def test_a_sample_is_of_whole_units() -> None:
    house = lived("stable")
    log = house.log()
    log = replace(log, entity=np.repeat(np.arange(N // 4), 4))
    rows = sample(log, np.arange(N), most=N // 3)
    assert N // 5 < len(rows) < N // 2
    assert set(np.unique(np.bincount(log.entity[rows])).tolist()) == {0, 4}
    assert len(sample(log, np.arange(10))) == 10


@pytest.mark.parametrize("kind", ["stable", "sudden", "mix"])
def test_every_verdict_has_its_reason_and_a_next_step(kind: str) -> None:
    review = reviewed(kind)
    assert review.verdict in VERDICTS
    assert len(review.why) > 30
    assert review.next


def _cut(log: Log, n: int) -> Log:
    """Return the first n decisions of a log."""
    names = ("at", "entity", "model", "canary", "decided", "done", "promise", "chances", "known_at", "first", "paid", "outcome", "readable")
    parts = {name: getattr(log, name)[:n] for name in names}
    return replace(log, **parts, shadows={k: type(s)(s.option[:n], s.promise[:n]) for k, s in log.shadows.items()})
