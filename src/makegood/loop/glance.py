"""A review that only says what a controller acts on: the promise test, the trials and what each period lost. The rest comes when asked for.

A loop looks some hundred times, and most looks change nothing: intervals by resampling, drift and attribution are for those that do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from makegood.contracts import Estimate, Floats
from makegood.model import Model
from makegood.monitoring.review import Alarm, Challenge, Period, Review
from makegood.stages import comparing, feedback
from makegood.stages.facts import Facts, Standing
from makegood.stages.feedback import Told
from makegood.stages.observe import Log

PERIODS = 24
"""Stretches of equal length, from the champion's first decision on."""


def glance(log: Log, standing: Standing, models: Mapping[str, Model], now: int, said: Told = Told()) -> Review:  # noqa: B008
    """Return a review without drift, attribution and values, whose money has no intervals. Raises as `feedback.review` does."""
    facts = Facts(log, models, standing, now)
    with facts.timed("promise"):
        alarm = feedback.watched(facts, standing.champion)
    with facts.timed("challengers"):
        challenges = comparing.challenges(facts)
    with facts.timed("money"):
        periods, mine, due = _periods(facts)
        promised, realised, gap = (_plain(_weighted(periods, name), log.unit) for name in ("promised", "realised", "gap"))
    verdict, why = _verdict(alarm, challenges)
    return Review(
        case=log.case,
        unit=log.unit,
        at=now,
        model=standing.champion,
        n=mine,
        matured=due,
        overridden=int((facts.of(standing.champion) & (log.done != log.decided)).sum()),
        promised=promised,
        realised=realised,
        gap=gap,
        outlook=None,
        alarm=alarm,
        periods=periods,
        maturity=(),
        challenges=challenges,
        drift=(),
        attribution=None,
        worths=(),
        ratio=None,
        verdict=verdict,
        why=why,
        next="",
        seconds=facts.seconds,
        replayed=said.replayed,
        injected=said.injected,
    )


def _periods(facts: Facts) -> tuple[tuple[Period, ...], int, int]:
    """Return the champion's periods by what is known, and how many decisions it took and how many of them are due."""
    log, outcomes = facts.log, facts.outcomes
    mine = np.flatnonzero(facts.of(facts.standing.champion))
    if not len(mine):
        return (), 0, 0
    due, known = facts.due[mine], outcomes.known(facts.now)[mine]
    begin = int(log.at[mine[0]])
    length = max(-(-(int(log.at[mine[-1]]) + 1 - begin) // PERIODS), 1)
    place = (log.at[mine] - begin) // length
    counted = due & known
    sums = [
        np.bincount(place[counted], weights, minlength=PERIODS) for weights in (log.promise[mine][counted], outcomes.paid[mine][counted])
    ]
    made, matured, seen = (np.bincount(place[which], minlength=PERIODS) for which in (np.ones(len(mine), np.bool_), due, counted))
    found = []
    for i in np.flatnonzero(made).tolist():
        promised, paid = (float(part[i] / seen[i]) if seen[i] else math.nan for part in sums)
        money = [_plain(x, log.unit) for x in (promised, paid, promised - paid)]
        found.append(Period(facts.standing.champion, begin + i * length, begin + (i + 1) * length, int(made[i]), int(matured[i]), *money))
    return tuple(found), len(mine), int(due.sum())


def _weighted(periods: tuple[Period, ...], name: str) -> float:
    values: Floats = np.array([getattr(p, name).value for p in periods], dtype=np.float64)
    weights = np.array([p.matured for p in periods], dtype=np.float64)
    there = np.isfinite(values) & (weights > 0.0)
    return float(values[there] @ weights[there] / weights[there].sum()) if there.any() else math.nan


def _plain(x: float, unit: str) -> Estimate:
    return Estimate(x, math.nan, math.nan, unit)


def _verdict(alarm: Alarm, challenges: tuple[Challenge, ...]) -> tuple[str, str]:
    """Return what is surest in money, and why."""
    for word in ("rollback", "promote"):
        for challenge in challenges:
            if challenge.decision == word:
                return word, challenge.why
    if alarm.raised:
        return "alarm", alarm.why
    for challenge in challenges:
        return ("wait" if challenge.decision == "wait" else "keep"), challenge.why
    return ("keep" if alarm.ticks else "wait"), alarm.why
