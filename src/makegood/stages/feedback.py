"""The feedback stage: what a case's decisions earned against what they promised, why that changed, and what to do.

Everything is reckoned from a `Log` of decisions, the bundles that took or shadowed them, and who stands where; the mathematics is in
`monitoring`. Whatever needs a row's inputs is reckoned on a sample of whole units, so that a review of millions stays a review of seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from makegood.contracts import Bools, Estimate, Floats
from makegood.errors import Problem, Refused
from makegood.model import Model
from makegood.monitoring import maturity, promise, realised
from makegood.monitoring.review import Alarm, Challenge, Review
from makegood.stages import because, comparing
from makegood.stages.facts import Facts, Standing
from makegood.stages.observe import Log

DAY_US = 86_400_000_000
MOST_MISSING = 0.05
"""How many outcomes may fail to come before that is an alarm of its own."""
LEAST_COME = 0.5
"""The least share of outcomes by which the promise test divides. Below it what is missing is not made up for, which costs power and no
validity: z shrinks and keeps its sign. A smaller one would multiply the bound, and the delay of every alarm, by its inverse."""
_PERIODS = 24
FEWEST_TO_RETRAIN = 500
"""Decisions with an outcome since a promise broke, below which a new model would learn the change from too few."""


@dataclass(frozen=True)
class Told:
    """What a review says of its data beside what the log knows."""

    replayed: bool = False
    injected: str = ""


_TOLD = Told()


def review(log: Log, standing: Standing, models: Mapping[str, Model], now: int, said: Told = _TOLD, *, thorough: bool = True) -> Review:
    """Return what the decisions in a log say at `now` (microseconds since 1970, UTC), with a verdict and its reason.

    `models` are the bundles by the names that the log knows them by. A review that is not `thorough` is of what decides the next step
    alone: money, the promise test and the trials. It leaves out drift, attribution and values, which ask the bundles about many rows, and
    the intervals of the money of each period.
    Raises `Refused` where the champion's bundle is not among the models.
    """
    facts = Facts(log, models, standing, now)
    with facts.timed("outcomes"):
        outcomes = facts.outcomes
    with facts.timed("promise"):
        alarm = watched(facts, standing.champion)
    with facts.timed("money"):
        money = _money(facts, outcomes)
        mine = facts.of(standing.champion)
        due, waiting = mine & facts.due, mine & ~facts.due
        promised, earned, gap = realised.earned(_only(money, mine), log.unit)
        periods = realised.periods(money, log.names, _edges(facts), log.unit, bare=not thorough)
        coming = promise.outlook(log.promise[waiting], log.promise[due], log.unit, clusters=log.entity[waiting])
        curve = maturity.curve(outcomes.take(np.flatnonzero(mine)), now)
    with facts.timed("challengers"):
        challenges = comparing.challenges(facts)
    verdict, why, then = _verdict(facts, alarm, challenges, int(due.sum()))
    found = Review(
        case=log.case,
        unit=log.unit,
        at=now,
        model=standing.champion,
        n=int(mine.sum()),
        matured=int(due.sum()),
        overridden=int((mine & (log.done != log.decided)).sum()),
        promised=promised if due.any() else _mean(log.promise[mine], log.unit),
        realised=earned,
        gap=gap,
        outlook=coming if waiting.any() else None,
        alarm=alarm,
        periods=periods,
        maturity=curve,
        challenges=challenges,
        drift=(),
        attribution=None,
        worths=(),
        ratio=None,
        verdict=verdict,
        why=why,
        next=then,
        seconds=facts.seconds,
        replayed=said.replayed,
        injected=said.injected,
    )
    return _explained(facts, found) if thorough else found


def _explained(facts: Facts, found: Review) -> Review:
    """Return a review with why the money is as it is, and what other bundles would have earned."""
    with facts.timed("values"):
        worths, ratio = comparing.worths(facts), comparing.ratio(facts)
    with facts.timed("drift"):
        moved = because.moved(facts)
    with facts.timed("attribution"):
        attribution = because.attribution(facts, found.alarm)
    return replace(found, worths=worths, ratio=ratio, drift=moved, attribution=attribution)


# ------------------------------------------------------------------------------------------------------------------- promise


def watched(facts: Facts, name: str) -> Alarm:
    """Return the promise test of a bundle; one that was never held out, so that no test can be declared of it, is told so.

    Its bound is the most by which a held-out decision can turn out better than promised, until one was taken that can do so by more.
    """
    reference, unit = facts.model(name).reference, facts.log.unit
    kept = None if reference is None else reference.kept
    outcomes = facts.tested(name)
    try:
        if kept is None:
            raise Refused(Problem("promise", "no reference", "how the promise was kept on held-out rows", "make the bundle anew"))
        tolerance = promise.tolerance(facts.terms.tolerance, kept.estimate(unit))
    except Refused as error:
        problem = error.problems[0]
        why = f"The promise cannot be tested: the bundle says nothing of {problem.expected}. Next: {problem.next}."
        return Alarm(False, 0.0, np.inf, None, 0, facts.terms.tolerance, np.inf, np.inf, why)
    floor = LEAST_COME if facts.terms.missing == "impute" else 1.0
    terms = promise.Terms(
        bound=max((kept.room + tolerance) / floor, np.finfo(np.float64).tiny),
        tolerance=tolerance,
        limit=promise.limit(_pace(outcomes, facts.delay_us) * facts.terms.false_alarm.per, facts.terms.false_alarm.probability),
        delay_us=facts.delay_us,
        block_us=int((facts.terms.block or 0.0) * 1e6),
        missing=facts.terms.missing,
        floor=floor,
        missing_share=MOST_MISSING,
    )
    return promise.watch(outcomes, terms, facts.now, unit=unit, room=facts.room(name))[1]


def _pace(outcomes: maturity.Outcomes, delay_us: int) -> float:
    """Return how many units a second come, by those before the first of them can be due: no outcome has a part in it."""
    if not len(outcomes):
        return 1.0 / 86_400.0
    began = int(outcomes.at.min())
    window = max(delay_us, DAY_US)
    early = outcomes.at < began + window
    spent = min(window, int(outcomes.at.max()) - began)
    return len(np.unique(outcomes.unit[early])) / max(spent / 1e6, 3600.0)


# --------------------------------------------------------------------------------------------------------------------- money


def _money(facts: Facts, outcomes: maturity.Outcomes) -> realised.Money:
    """Return what was promised and paid, outcomes that never came by the declared rule."""
    log, rule = facts.log, facts.terms.missing
    known = outcomes.known(facts.now)
    share = None
    if rule == "impute":
        counted = facts.due & outcomes.revealed
        made = np.bincount(outcomes.segment[counted], minlength=len(log.options))
        came = np.bincount(outcomes.segment[counted], known[counted], minlength=len(log.options))
        rate = np.divide(came, made, out=np.ones(len(made)), where=made > 0)
        share = np.maximum(rate, maturity.LEAST_OBSERVED)[outcomes.segment]
    paid, weight = maturity.settled(outcomes, known, rule, share)
    return realised.Money(log.model, log.at, log.entity, log.promise, np.nan_to_num(paid), weight, facts.due)


def _only(money: realised.Money, rows: Bools) -> realised.Money:
    return replace(money, due=money.due & rows)


def _edges(facts: Facts) -> list[int]:
    """Return the ends of up to two dozen stretches of time, each of whole review periods."""
    at = facts.log.at
    if not len(at):
        return []
    every = int(facts.terms.review * 1e6)
    began, ended = int(at[0]), max(int(at[-1]), int(at[0])) + 1
    step = every * max(-(-(ended - began) // (every * _PERIODS)), 1)
    return list(range(began, ended + step, step))


def _mean(x: Floats, unit: str) -> Estimate:
    mean = float(x.mean()) if len(x) else float("nan")
    return Estimate(mean, float("nan"), float("nan"), unit)


# ------------------------------------------------------------------------------------------------------------------- verdict


def _verdict(facts: Facts, alarm: Alarm, challenges: tuple[Challenge, ...], matured: int) -> tuple[str, str, str]:
    """Return the verdict, its reason and the next step; what is surest in money goes first."""
    case, standing = facts.log.case, facts.standing
    person = " --by NAME" if facts.case.decision.high_stakes else ""
    for challenge in challenges:
        if challenge.decision == "rollback":
            return "rollback", challenge.why, f"makegood rollback {case} --why TEXT{person}"
    for challenge in challenges:
        if challenge.decision == "promote":
            return "promote", challenge.why, f"makegood promote {case} {challenge.model}{person}"
    trying = [c for c in challenges if c.decision == "wait"]
    if alarm.raised and trying:
        return "alarm", f"{alarm.why} A challenger is on trial: {trying[0].why}", "wait for its test, or roll back"
    if alarm.raised:
        since = int(((facts.log.at >= (alarm.since or 0)) & facts.of(standing.champion) & (facts.log.known_at <= facts.now)).sum())
        if since < FEWEST_TO_RETRAIN:
            more = FEWEST_TO_RETRAIN - since
            return "alarm", f"{alarm.why} A new model needs {more:,} more outcomes from after the change.", "collect outcomes"
        return "retrain", alarm.why, f"makegood run {case}, with the decisions' own rows: makegood loop {case} --live does it"
    if alarm.missing is not None and alarm.missing.raised:
        return "alarm", alarm.missing.why, "see what reports outcomes: the figures rest on those that came"
    dropped = [c for c in challenges if c.decision in ("drop", "failed")]
    if dropped:
        return "keep", dropped[0].why, f"retire {dropped[0].model}"
    if trying:
        return "wait", trying[0].why, "go on: looks are free"
    if not matured:
        return "wait", alarm.why, "report outcomes as they come: makegood outcome"
    return "keep", alarm.why, "go on: looks are free"
