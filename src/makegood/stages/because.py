"""Why a case's decisions earn otherwise than before: which columns moved, and which causes moved the money."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from makegood.contracts import Floats, Ints
from makegood.decided import values_of
from makegood.economics.policy import expected as expected_payoffs
from makegood.errors import DataError
from makegood.model import Model
from makegood.monitoring import attribution as shares
from makegood.monitoring import drift, logged, promise
from makegood.monitoring.reference import observed
from makegood.monitoring.review import Alarm, Attribution, Moved
from makegood.stages import pricing
from makegood.stages.facts import Facts, sample
from makegood.stages.observe import Log

FEWEST = 200
"""Decisions with a payoff that each of two periods must have before they are compared."""
_RECENT = 1_000


def moved(facts: Facts) -> tuple[Moved, ...]:
    """Return how the columns of the champion's latest decisions moved from those that it was judged on; the last quarter of them."""
    model, log = facts.champion, facts.log
    mine = np.flatnonzero(facts.of(facts.standing.champion))
    rows = sample(log, mine[-max(len(mine) // 4, _RECENT) :])
    if model.reference is None or not len(rows):
        return ()
    columns, _ = model.transform.read(pricing.inputs(log, model, rows))
    seen = observed(columns, model.transform.images, values_of(model.assess(columns)[0]), model.transform.texts)
    return drift.drift(model.reference, seen, log.promise[rows], log.unit, units=log.entity[rows])


def began(alarm: Alarm) -> int | None:
    """Return about when a broken promise broke; None where it did not."""
    if not alarm.raised or not alarm.path:
        return None
    at, _ = promise.turned(alarm, alarm.since)
    return alarm.path[0][0] if at is None else at


def attribution(facts: Facts, alarm: Alarm) -> Attribution | None:
    """Return why the decisions since a change paid otherwise than those before it; None with too few on either side.

    The change is where the promise broke, else the last promotion, else the middle of all decisions that are due.
    """
    log, outcomes = facts.log, facts.outcomes
    known = facts.due & outcomes.known(facts.now) & log.readable & (log.done >= 0) & (log.decided >= 0)
    there = np.flatnonzero(known)
    if len(there) < 2 * FEWEST:
        return None
    middle = int(log.at[there[len(there) // 2]])
    for cut in (began(alarm), facts.standing.since, middle):
        if cut is not None:
            sides = [there[log.at[there] < cut], there[log.at[there] >= cut]]
            if min(map(len, sides)) >= FEWEST:
                break
    else:
        return None
    rows = [sample(log, side) for side in sides]
    models = [facts.model(log.names[int(np.bincount(log.model[side]).argmax())]) for side in rows]
    try:
        return _compared(facts, rows, models)
    except DataError:  # so many options that no cell holds enough rows, or bundles of different options
        return None


def _compared(facts: Facts, rows: Sequence[Ints], models: Sequence[Model]) -> Attribution:
    log = facts.log
    expected = [_expected(log, models, side) for side in rows]  # each (2 models, 2 terms, n, n_options)
    decided = [_decided(log, models, side, own) for own, side in enumerate(rows)]
    seen = [_seen(facts, models, side) for side in rows]  # each (payoffs (2, n, n_options), known (n, n_options))
    base = [_worlds(log.entity[side], [part[1] for part in expected], seen, i) for i, side in enumerate(rows)]
    strata = shares.stratify(expected[0][1, 1].max(axis=1), expected[1][1, 1].max(axis=1))
    parts = [
        shares.Rows(
            span=(int(log.at[side].min()), int(log.at[side].max())),
            units=log.entity[side],
            stratum=strata[i],
            decided=decided[i],
            done=log.done[side],
            paid=facts.outcomes.paid[side],
            expected=base[i],
            payoffs=seen[i][0],
            known=seen[i][1],
        )
        for i, side in enumerate(rows)
    ]
    low, high = zip(*(pricing.ends(log, model, side) for model, side in zip(models, rows, strict=True)), strict=True)
    ends = min(float(part.min()) for part in low), max(float(part.max()) for part in high)
    return shares.attribute(parts[0], parts[1], log.unit, bounds=ends if np.isfinite(ends).all() else None)


def _expected(log: Log, models: Sequence[Model], rows: Ints) -> Floats:
    """Return what each bundle expects of each option under the terms of each: (2 models, 2 terms, n, n_options)."""
    out = np.zeros((2, 2, len(rows), len(log.options)))
    for m, model in enumerate(models):
        if m and model is models[0]:
            out[1] = out[0]
            continue
        columns, _ = model.transform.read(pricing.inputs(log, model, rows))
        predictive = model.assess(columns)[0]
        for t, terms in enumerate(models):
            priced = pricing.priced(log, terms, rows)
            out[m, t][:, pricing.places(log, terms)] = expected_payoffs(terms.policy.payoffs, predictive, priced)
    return out


def _decided(log: Log, models: Sequence[Model], rows: Ints, own: int) -> Ints:
    """Return what each bundle would have chosen under the policy of each: (2 models, 2 policies, n); its own is what was logged."""
    out = np.tile(log.decided[rows], (2, 2, 1))
    if models[0] is models[1]:
        return out
    for m, model in enumerate(models):
        columns, _ = model.transform.read(pricing.inputs(log, model, rows))
        predictive = model.assess(columns)[0]
        for p, other in enumerate(models):
            if m == p == own:
                continue
            policy = other.policy
            if m == p or policy.averse:  # what an averse policy guarantees hangs on the sets of its own bundle
                out[m, p] = pricing.choices(log, model, rows).option
                continue
            priced = pricing.priced(log, other, rows)
            option = policy.decide(expected_payoffs(policy.payoffs, predictive, priced), priced).option
            out[m, p] = pricing.places(log, other)[option]
    return out


def _seen(facts: Facts, models: Sequence[Model], rows: Ints) -> tuple[Floats, Floats]:
    """Return what each option paid under each terms (2, n, n_options), and the inverse chance of its being known (n, n_options)."""
    log = facts.log
    decisions = logged.Decisions(log.at[rows], log.entity[rows], log.decided[rows], log.chances[rows])
    tables = []
    known = np.zeros((len(rows), len(log.options)))
    for model in models:
        paid = pricing.payoffs(log, model, rows)
        recorded = ~np.isnan(log.outcome[rows])
        seen = logged.by_outcome(
            decisions, paid, logged.observed(decisions, recorded), pricing.reveals(log, model), pricing.sure(log, model, rows)
        )
        there = ~np.isnan(seen.paid) & (seen.chance > 0.0)
        known = np.divide(1.0, seen.chance, out=np.zeros(known.shape), where=there)
        tables.append(np.where(there, seen.paid, 0.0))
    return np.stack(tables), known


def _line(expected: Floats, paid: Floats, known: Floats) -> tuple[Floats, Floats]:
    """Return shift and slope (n_options,) that bring what was expected to what was paid; a few rows move nothing far."""
    used = known > 0.0
    m, d = np.where(used, expected, 0.0), np.where(used, paid - expected, 0.0)
    return logged.stretched(*(part.sum(axis=0) for part in (used.astype(np.float64), m, d, m * m, m * d)))


def _worlds(entity: Ints, expected: Sequence[Floats], seen: Sequence[tuple[Floats, Floats]], side: int) -> Floats:
    """Return what the rows of a period are expected to pay in each world under each terms: (2 worlds, 2 terms, n, n_options).

    `expected` (2 terms, n, n_options) of each period is the later bundle's, brought to what that world's rows paid: in the rows' own world
    to those of the other half of the units (by `entity`), so that none is expected to pay what it paid.
    """
    out = np.empty((2, *expected[side].shape))
    for terms in range(2):
        mine, (paid, known) = expected[side][terms], seen[side]
        for half in range(2):
            teach, use = entity % 2 != half, entity % 2 == half
            shift, slope = _line(mine[teach], paid[terms][teach], known[teach])
            out[side, terms][use] = mine[use] + shift + slope * mine[use]
        (paid, known), theirs = seen[1 - side], expected[1 - side][terms]
        shift, slope = _line(theirs, paid[terms], known)
        out[1 - side, terms] = mine + shift + slope * mine
    return out
