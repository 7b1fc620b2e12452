"""What to do after a review: a pure function of what was found, who stands where, and what is remembered.

The economics propose, the test vetoes. A new model is trained as soon as what it can be expected to recover exceeds its cost, which is
often long before the promise test may raise its alarm: to train and to score beside the champion changes no decision. Who decides is
changed by the evidence of a test alone, and in a case of high stakes by a person.

Nothing here acts, reads a clock or fails: every review leads to acts in order, and every act says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from makegood.case import Case
from makegood.monitoring import promise
from makegood.monitoring.review import Challenge, Review
from makegood.stages.facts import Standing

Verb = Literal["alarm", "retrain", "shadow", "canary", "promote", "drop", "release", "rollback"]
Mode = Literal["shadow", "canary"]

RECOVERED = 0.5
"""How much of what a broken promise loses a new model is expected to bring back: the rest is a world that got harder."""

FEWEST = 250
"""Ticks since a promise began to break, below which a new model would learn the change from too few."""

SOON = 150
"""The same once the alarm is raised: then it is known that the champion is wrong, and little is better than nothing."""

GROWN = 1.5
"""By how much the outcomes since the change must have grown before the same champion is retrained for once more."""

DOUBLED = 2.0
"""By how much the time since a change must have grown, since the last training, before the model of a young world is made anew."""

RIPENED = 0.5
"""How much of what a first model of a changed world was expected to bring back an old world's worth of its rows adds to that."""

UNNOTICED = 0.0075
"""The share of what the champion earns that a change is expected to take from it if nothing shows of it in its promise, as where it could
earn more by now than it promises."""

MOST = 2
"""Challengers that are scored beside the champion at once. Each must show the more evidence the more there are; a canary is alone."""


@dataclass(frozen=True)
class Terms:
    """What a case declares of its loop; times in microseconds, money in the unit of the payoffs.

    `cost` of a training, and the `horizon_us` over which what it gains is counted; `mode` in which a challenger is tried and its `share`;
    `holdback` of the disagreements that the old champion keeps for `guard_us`; `probability` of a false alarm in `per_us`, in which one
    change of the world is expected; after a change of what serves, nothing is trained for `rest_us`. In a case of `high_stakes` a person
    is asked before who decides changes.
    """

    cost: float
    horizon_us: int
    mode: Mode
    share: float
    holdback: float
    guard_us: int
    rest_us: int
    probability: float
    per_us: int
    high_stakes: bool

    @classmethod
    def of(cls, case: Case) -> Terms:
        """Return the terms of a case.

        A challenger is only scored, and no traffic is at risk, where every outcome shows whatever is done; where an action hides it, a
        canary lets it be seen, but not where stakes are high.
        """
        feedback, actions = case.feedback, case.decision.actions.values()
        seen = not case.data.affected_by_action and all(action.reveals for action in actions)
        return cls(
            cost=feedback.retrain.cost,
            horizon_us=_us(feedback.retrain.horizon),
            mode="shadow" if seen or case.decision.high_stakes else "canary",
            share=feedback.promote.share,
            holdback=feedback.promote.holdback,
            guard_us=_us(feedback.promote.guard),
            rest_us=_us(case.data.outcome_delay + feedback.review),
            probability=feedback.false_alarm.probability,
            per_us=_us(feedback.false_alarm.per),
            high_stakes=case.decision.high_stakes,
        )


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


@dataclass(frozen=True)
class Act:
    """One thing to be done, and why. `evidence` is what a promotion or a rollback rests on; `since` when the change began that a new
    model is to learn; `share` a canary's or, of a promotion, what the old champion keeps. `asks`: a person must say yes first.
    """

    verb: Verb
    model: str
    why: str
    evidence: Mapping[str, float | str] = field(default_factory=dict)
    since: int | None = None
    share: float | None = None
    asks: bool = False


@dataclass(frozen=True)
class Memory:
    """What is remembered from review to review.

    The last training `at`, for which `champion`, and with how many `ticks` since its promise broke (0: it was not for that); since when
    a promise last `broke`, and what a new model was `hoped` to bring back then, in money over the horizon; whose alarms were `told`, as
    (model, test); the champions that there `were`, the one that decides last; and which models are `unfit` to decide on any unit before a
    test has spoken for them.
    """

    at: int | None = None
    champion: str = ""
    ticks: int = 0
    broke: int | None = None
    hoped: float = 0.0
    told: frozenset[tuple[str, str]] = frozenset()
    were: tuple[str, ...] = ()
    unfit: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Entering:
    """A new model by name, and whether its own verdict is refuse."""

    model: str
    refused: bool = False


def step(memory: Memory, review: Review, standing: Standing, terms: Terms) -> tuple[Memory, tuple[Act, ...]]:
    """Return what is remembered next, and what to do now, in order. Total: any review gives an answer.

    At most one of the acts changes who decides. What is asked of a person is asked again at every review until it is answered: the
    evidence of then counts.
    """
    if memory.were[-1:] != (standing.champion,):
        memory = replace(memory, were=(*memory.were, standing.champion))
    memory, alarms = _alarms(memory, review)
    changes = _guarded(memory, review, standing, terms) or _tried(memory, review, standing, terms)
    if any(act.verb in ("promote", "rollback") for act in changes):
        return memory, (*alarms, *changes)
    leaving = {act.model for act in changes}
    staying = replace(
        standing,
        entrants=tuple(e for e in standing.entrants if e.model not in leaving),
        before=None if standing.before is None or standing.before.model in leaving else standing.before,
    )
    changes = (*changes, *_lent(memory, review, staying, terms))
    again = _proposal(memory, review, staying, terms)
    if again is None:
        return memory, (*alarms, *changes)
    ticks = promise.turned(review.alarm)[1] if again.since is not None or review.alarm.raised else 0
    if again.since is not None:
        before = memory.hoped if memory.champion == standing.champion and memory.ticks else 0.0  # of the same break
        memory = replace(memory, broke=again.since, hoped=max(before, hoped(review, standing, terms)))
    memory = replace(memory, at=review.at, champion=standing.champion, ticks=ticks)
    return memory, (*alarms, *changes, again)


def entering(made: Entering, memory: Memory, review: Review, standing: Standing, terms: Terms) -> tuple[Act, ...]:
    """Return what lets a newly trained model be tried; where there are too many on trial, it takes the place of the one that gains
    least. It decides on its share of the units at once, in the place of any other: it was made since it can be expected to earn more, and
    those are spared the wait for the test. One whose verdict is refuse gets no traffic, and none does where stakes are high.
    """
    model, old = made.model, memory.were[-2] if len(memory.were) > 1 else ""
    gains = {challenge.model: challenge.gain.value for challenge in review.challenges if math.isfinite(challenge.gain.value)}
    room = 1 if terms.mode == "canary" else MOST
    ranked = sorted((e for e in standing.entrants if e.model != old), key=lambda e: (gains.get(e.model, 0.0), e.since))
    worn = tuple(
        Act("drop", e.model, f"A newer model, {model}, knows more of the world as it is, and this one gains the least of those on trial.")
        for e in ranked[: max(len(ranked) + 1 - room, 0)]
    )
    deciding = [e.model for e in ranked[len(worn) :] if e.least is not None]
    fit = standing.before is None and not made.refused
    if terms.mode == "canary" and fit and not deciding:
        why = f"{model} decides on {terms.share:.0%} of the units: what is done decides which outcomes are seen."
        return (*worn, Act("canary", model, why, share=terms.share, asks=terms.high_stakes))
    if terms.mode == "shadow" and fit and not terms.high_stakes:
        scored = (Act("shadow", other, f"{other} is only scored on: {model} knows more of the world as it is.") for other in deciding)
        return (*worn, *scored, _canary(model, "it was made since it can be expected to earn more", terms))
    why = f"{model} is scored beside the champion, and never acted on, until the test knows which is better."
    return (*worn, Act("shadow", model, why))


def _canary(model: str, reason: str, terms: Terms) -> Act:
    return Act("canary", model, f"{model} decides on {terms.share:.0%} of the units until the test knows: {reason}.", share=terms.share)


# ------------------------------------------------------------------------------------------------------------------ parts of a step


def _alarms(memory: Memory, review: Review) -> tuple[Memory, tuple[Act, ...]]:
    """Return the alarms that were not told yet, each once for a champion."""
    found = [("promise", review.alarm)]
    if review.alarm.missing is not None:
        found.append(("missing", review.alarm.missing))
    new = [(test, alarm) for test, alarm in found if alarm.raised and (review.model, test) not in memory.told]
    acts = tuple(
        Act("alarm", review.model, alarm.why, {"test": test, "evidence": alarm.evidence, "limit": alarm.limit}, since=alarm.since)
        for test, alarm in new
    )
    return replace(memory, told=memory.told | {(review.model, test) for test, _ in new}), acts


def _guarded(memory: Memory, review: Review, standing: Standing, terms: Terms) -> tuple[Act, ...]:
    """Return a rollback where the old champion is shown to be better, or its release once the guard is over.

    It keeps a share of the disagreements where they were drawn, and else it is scored in the shadow of the new one.
    """
    old = standing.before
    if old is None and len(memory.were) > 1:
        old = next((e for e in standing.entrants if e.model == memory.were[-2]), None)
    if old is None:
        return ()
    for challenge in review.challenges:
        if challenge.model == old.model and challenge.decision in ("rollback", "promote") and _shown(challenge):
            return (Act("rollback", standing.champion, challenge.why, challenge.rests_on(review.model), asks=terms.high_stakes),)
    if review.at >= standing.since + terms.guard_us:
        return (Act("release", old.model, "The guard is over, and nothing spoke for the old champion."),)
    return ()


def _tried(memory: Memory, review: Review, standing: Standing, terms: Terms) -> tuple[Act, ...]:
    """Return the promotion of a challenger that is shown to be better, or else the end of each trial that leads nowhere."""
    by_name = {challenge.model: challenge for challenge in review.challenges}
    over, better = list[Act](), list[tuple[float, Act]]()
    trials = [e for e in standing.entrants if e.model not in memory.were[-2:-1]]
    for entrant in trials:
        challenge = by_name.get(entrant.model)
        if challenge is None:
            continue
        broken = [g for g in challenge.guardrails if g.held is False]
        if challenge.decision == "promote" and _shown(challenge) and all(g.held for g in challenge.guardrails):
            low = challenge.gain.low if math.isfinite(challenge.gain.low) else challenge.gain.value
            better.append((low, _promotion(challenge, review, terms)))
            continue
        if broken:
            over.append(Act("drop", entrant.model, "It breaks a guardrail: " + ", ".join(f"{g.name} {g.found}" for g in broken) + "."))
        elif challenge.decision in ("drop", "failed"):
            over.append(Act("drop", entrant.model, challenge.why))
        elif review.at - entrant.since > terms.horizon_us:
            over.append(Act("drop", entrant.model, "No difference was shown in all the time over which its gain was to be counted."))
    if not better:
        return tuple(over)
    promoted = max(better, key=lambda found: found[0])[1]
    leaving = {promoted.model, *(act.model for act in over)}
    drawn = [] if promoted.share is not None else [e.model for e in trials if e.least is not None and e.model not in leaving]
    return (promoted, *over, *(Act("shadow", model, f"{model} is scored beside the new champion, and not acted on.") for model in drawn))


def _lent(memory: Memory, review: Review, standing: Standing, terms: Terms) -> tuple[Act, ...]:
    """Return what gives a canary's units to the challenger that earns most by what is known, and to none that earns less than the champion.

    The economics propose: of two models the one that is likelier to earn more should decide where nothing else is lost by it. That is so
    where an outcome tells of every action: the test, which alone changes the champion, learns as much from a row whoever decides on it.
    """
    if terms.mode == "canary" or terms.high_stakes or standing.before is not None:
        return ()
    known = {c.model: c.gain.value for c in review.challenges if c.units >= SOON and math.isfinite(c.gain.value)}
    trials = [e for e in standing.entrants if e.model not in memory.were[-2:-1] and e.model not in memory.unfit]
    holder = next((e.model for e in trials if e.least is not None), "")
    best = max((e.model for e in trials if known.get(e.model, 0.0) > 0.0), key=lambda model: known[model], default="")
    if holder == best or (holder and holder not in known) or not (best or known.get(holder, 0.0) < 0.0):
        return ()
    acts = [Act("shadow", holder, f"{holder} is only scored on: by what is known so far it earns no more.")] if holder else []
    if best:
        acts.append(_canary(best, f"so far it earns {known[best]:,.3g} {review.unit} more a decision", terms))
    return tuple(acts)


def _promotion(challenge: Challenge, review: Review, terms: Terms) -> Act:
    held = terms.holdback if challenge.design == "disagreement" else None
    return Act("promote", challenge.model, challenge.why, challenge.rests_on(review.model), share=held, asks=terms.high_stakes)


def _shown(challenge: Challenge) -> bool:
    """Return whether the evidence itself reaches its limit; what several on trial at once need more was asked by the review."""
    return math.isfinite(challenge.limit) and challenge.evidence >= challenge.limit > 0.0


# ------------------------------------------------------------------------------------------------------------------------ retraining


def _proposal(memory: Memory, review: Review, standing: Standing, terms: Terms) -> Act | None:
    """Return the retraining that is worth its cost now, if any is."""
    if review.at < standing.since + terms.rest_us or (terms.mode == "canary" and (standing.before is not None or standing.entrants)):
        return None
    return (
        _mending(memory, review, standing, terms) or _ripening(memory, review, standing, terms) or _looking(memory, review, standing, terms)
    )


def _mending(memory: Memory, review: Review, standing: Standing, terms: Terms) -> Act | None:
    """Return a retraining since the promise is, or may be, broken."""
    began, ticks = promise.turned(review.alarm)
    again = memory.champion == standing.champion and memory.ticks > 0  # for the same break
    gain = hoped(review, standing, terms)
    if ticks < (SOON if review.alarm.raised else FEWEST) or not gain > terms.cost:
        return None
    if again and (ticks < GROWN * memory.ticks or review.at < (memory.at or 0) + terms.rest_us):
        return None
    why = (
        f"Decisions pay less than promised: a new model can be expected to recover {gain:,.4g} {review.unit} over the "
        f"{terms.horizon_us / 86400e6:,.0f} days for which it counts, and costs {terms.cost:,.4g}. {review.alarm.why}"
    )
    return Act("retrain", standing.champion, why, since=began)


def _ripening(memory: Memory, review: Review, standing: Standing, terms: Terms) -> Act | None:
    """Return a retraining since the champion learnt a changed world from its first rows, of which there are many more by now.

    What a model lacks for want of rows falls as one over their number.
    """
    if memory.broke is None or memory.at is None or standing.since <= memory.broke:
        return None
    young, old = memory.at - memory.broke, review.at - memory.broke
    gain = RIPENED * memory.hoped * (1.0 - young / old)
    if old < DOUBLED * young or review.at < memory.at + terms.rest_us or not gain > terms.cost:
        return None
    why = (
        f"When a model was last made, the world had been another for {young / 86400e6:,.0f} days, and now it has for {old / 86400e6:,.0f}: "
        f"its rows can be expected to teach {gain:,.4g} {review.unit} more over the {terms.horizon_us / 86400e6:,.0f} days for which that "
        f"counts; it costs {terms.cost:,.4g}."
    )
    return Act("retrain", standing.champion, why)


def _looking(memory: Memory, review: Review, standing: Standing, terms: Terms) -> Act | None:
    """Return a retraining since the world may have changed in a way that no promise shows; only the longer ago the last one was."""
    waited = review.at - (standing.since if memory.at is None else memory.at)
    spent = review.at - standing.since
    if not (spent > 0 and review.matured >= FEWEST and waited >= terms.rest_us):
        return None
    chance = min(waited / terms.per_us, 1.0)
    gain = chance * UNNOTICED * review.realised.value * _pace(review, standing) * terms.horizon_us
    if not gain > terms.cost:
        return None
    kept = "A broken promise was not mended" if review.alarm.raised else "The promise is kept"
    why = (
        f"{kept}, but nobody has looked for {waited / 86400e6:,.0f} days whether a new model would earn more. With one "
        f"change in {terms.per_us / 86400e6:,.0f} days, and {UNNOTICED:.2%} of what is earned at stake, that is worth "
        f"{gain:,.4g} {review.unit}; it costs {terms.cost:,.4g}."
    )
    return Act("retrain", standing.champion, why)


def hoped(review: Review, standing: Standing, terms: Terms) -> float:
    """Return what a retraining can be expected to bring back over the horizon, in money altogether; 0 where nothing is lost.

    The chance that the promise broke, times `RECOVERED` of what a decision has lost since, times the decisions to come. The evidence M
    adds up, over all moments, how much likelier the money is if the promise broke there than if it never did (Shiryaev 1963): with one
    change expected in N ticks, the period of the declared false alarms, the odds are M/N. What a kept promise gives by itself, a unit a
    tick, is taken off.
    """
    alarm = review.alarm
    calm = alarm.limit * terms.probability  # N
    odds = (alarm.evidence - alarm.ticks) / calm if 0.0 < calm < math.inf else 0.0
    if not (odds > 0.0 and review.at > standing.since):
        return 0.0
    chance = odds / (1.0 + odds) if odds < math.inf else 1.0
    began, _ = promise.turned(alarm)
    lost = [
        (p.gap.value, p.matured)
        for p in review.periods
        if p.model == standing.champion and p.matured and math.isfinite(p.gap.value) and (began is None or p.end > began)
    ]
    rows = sum(n for _, n in lost)
    loss = sum(gap * n for gap, n in lost) / rows if rows else review.gap.value
    money = chance * RECOVERED * loss * _pace(review, standing) * terms.horizon_us
    return money if money > 0.0 else 0.0


def _pace(review: Review, standing: Standing) -> float:
    """Return how many decisions there are in a microsecond, whoever takes them."""
    made = sum(p.n for p in review.periods)
    since = min((p.start for p in review.periods), default=review.at)
    return made / (review.at - since) if made and review.at > since else review.n / max(review.at - standing.since, 1)
