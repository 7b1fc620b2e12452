"""What a challenger must not worsen while it earns more: the share of decisions that it harms, the time it takes, any group of people.

A guardrail has held when its interval lies within the limit, is broken when it lies outside, and is undecided else. The intervals may
be looked at whenever one likes: each end is wrong ever with a probability of at most α, of groups all together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln

from makegood.contracts import Estimate, Floats
from makegood.monitoring import asymptotic, betting
from makegood.monitoring.experiments import Terms, Ticks, Trial, ticks
from makegood.monitoring.review import Guardrail

QUANTILE = 0.5
"""Of the time that decisions take: the slowest few tell more of the machine than of the model."""

_CENTRED = 100.0  # units' worth of what is bet on in the mixture over shares, about the quantile


def harm(trial: Trial, terms: Terms, now: int, limit: float) -> Guardrail:
    """Return whether the challenger makes at most a share `limit` of the decisions worse, by units.

    In a randomised trial nobody knows what the other action would have paid: what is found is then the share of decisions on which the
    two differ, of which the harmed ones are a part, so that the guardrail may hold, and is undecided else. The interval is the betting one,
    exact at any time, for a share needs no caps. A decision without an outcome is harmed by the rule "failure" only.

    >>> from makegood.monitoring.experiments import paired
    >>> from makegood.monitoring.maturity import Outcomes
    >>> n = np.arange(1000)
    >>> rows = Outcomes(n, n, n, np.where(n % 50 == 0, -5.0, 1.0), n, np.ones(1000, bool), n * 0, n * 0.0)
    >>> found = harm(paired(rows, np.ones(1000, bool)), Terms(missing=0.0), now=1000, limit=0.1)
    >>> found.held, found.found.value
    (True, 0.02)
    """
    known, o = trial.design == "paired", trial.outcomes
    hidden = trial.unrevealed if known else np.zeros(len(trial), np.bool_)
    if known:
        worse = np.where(np.isnan(o.paid), np.nan, (o.paid < 0.0).astype(np.float64))
        o = replace(o, paid=worse, worst=np.where(hidden, 0.0, (o.worst < 0.0).astype(np.float64)))
    else:
        o = replace(o, paid=trial.differs.astype(np.float64), revealed=hidden)
    counted = replace(trial, design="paired", outcomes=o, factor=np.ones(len(trial)), unrevealed=hidden)
    terms = replace(terms, cap=(0.0, 1.0), min_gain=0.0)
    found = _within(ticks(counted, terms, now), (0.0, 1.0), terms.alpha)
    if known:
        return Guardrail("harm", found, limit, _held(found, most=limit))
    return Guardrail("harm", replace(found, low=0.0), limit, True if found.high <= limit else None)


def slices(trial: Trial, terms: Terms, now: int, columns: Mapping[str, NDArray[Any]], limit: float) -> tuple[Guardrail, ...]:
    """Return for each level of each protected column (n,) whether the gain there is at least −`limit`, a decision.

    α is divided among all levels (Bonferroni). The interval is that of the test: the betting one where there are caps, else asymptotic.
    Each level is tested on the decisions that have it, as if there were no others. Columns of numbers are to be cut into levels first.

    >>> from makegood.monitoring.experiments import paired
    >>> from makegood.monitoring.maturity import Outcomes
    >>> n = np.arange(2000)
    >>> rows = Outcomes(n, n, n, np.where(n % 2 > 0, -1.0, 1.0), n, np.ones(2000, bool), n * 0, n * 0.0)
    >>> terms = Terms(cap=(-1.0, 1.0), missing=0.0)
    >>> found = slices(paired(rows, np.ones(2000, bool)), terms, 2000, {"sex": np.where(n % 2 > 0, "f", "m")}, limit=0.5)
    >>> [(rail.name, rail.held) for rail in found]
    [('sex=f', False), ('sex=m', True)]
    """
    assert all(len(column) == len(trial) for column in columns.values()), "a level for each decision of the trial"
    levels = [(name, level, column == level) for name, column in columns.items() for level in sorted(set(column.tolist()), key=str)]
    terms = replace(terms, alpha=terms.alpha / max(len(levels), 1))
    rails = []
    for name, level, rows in levels:
        bound = terms.bound(trial.design)
        found = _within(ticks(trial.take(np.flatnonzero(rows)), terms, now), (-bound, bound), terms.alpha, terms.unit)
        rails.append(Guardrail(f"{name}={level}", found, -limit, _held(found, least=-limit)))
    return tuple(rails)


def latency(champion_s: Floats, challenger_s: Floats, limit: float, alpha: float = 0.05) -> Guardrail:
    """Return whether the median of the challenger's time is at most `limit` times that of the champion's; seconds, (n,) and (m,).

    Each median has the exact interval of a quantile at any time, at α/2 (Howard & Ramdas 2022): the ranks at which a beta mixture, centred
    on one half, has no evidence of 2/α against it. The interval of the ratio goes from the lowest to the highest that they allow.

    >>> slow = np.tile([0.010, 0.012], 2000)
    >>> latency(slow, 2.0 * slow, limit=2.5).held, latency(slow[:20], slow[:20], limit=2.5).held
    (True, None)
    """
    (mine, low, high), (theirs, least, most) = (_quantile(np.sort(x), alpha / 2.0) for x in (champion_s, challenger_s))
    found = Estimate(theirs / mine, least / high, most / low if low > 0.0 else np.inf, "×", 1.0 - 2.0 * alpha)
    return Guardrail("latency", found, limit, _held(found, most=limit))


def _held(found: Estimate, least: float = -np.inf, most: float = np.inf) -> bool | None:
    if found.low >= least and found.high <= most:
        return True
    return False if found.high < least or found.low > most else None


def _within(entered: Ticks, ends: tuple[float, float], alpha: float, unit: str = "") -> Estimate:
    """Return the mean of z with its interval now: betting, z·scale being within `ends`, and asymptotic where these are infinite.

    There is none where a payoff lies beyond, and without a unit. What is not revealed is at its worst for the lower end, at its best for
    the upper one.
    """
    z, level, last = entered.z, 1.0 - 2.0 * alpha, np.array([len(entered)])
    if not len(z):
        return Estimate(np.nan, np.nan, np.nan, unit, level)
    if np.isinf(ends[1]):
        if not np.isfinite(z).all():
            return Estimate(np.nan, np.nan, np.nan, unit, level)
        found = asymptotic.sequence(z, alpha, last)
        high = np.inf if entered.unrevealed else float(found.high[0])
        return Estimate(float(np.mean(z)), float(found.low[0]), high, unit, level)
    half, centre, share = (ends[1] - ends[0]) / 2.0, (ends[1] + ends[0]) / 2.0, float(np.mean(entered.scale))
    moved, most = (x * entered.scale - centre for x in (z, entered.most))
    if not np.all(np.abs(moved) <= half * (1.0 + 1e-9)):
        return Estimate(float(np.mean(z)), np.nan, np.nan, unit, level)
    low = betting.sequence(moved, half, alpha, ends=last).low[0]
    high = -betting.sequence(-most, half, alpha, ends=last).low[0]
    return Estimate(float(np.mean(z)), float(low + centre) / share, float(high + centre) / share, unit, level)


def _quantile(ordered: Floats, alpha: float) -> tuple[float, float, float]:
    """Return the quantile of times in order, (n,), and its interval: from 0, and without end, where there are too few."""
    n = len(ordered)
    if not n:
        return np.nan, 0.0, np.inf
    below = np.arange(n + 1.0)
    a, b = _CENTRED * QUANTILE, _CENTRED * (1.0 - QUANTILE)
    log = betaln(a + below, b + n - below) - betaln(a, b) - below * np.log(QUANTILE) - (n - below) * np.log1p(-QUANTILE)
    allowed = np.flatnonzero(log < -np.log(alpha))  # how many may lie at or below the true quantile: an interval about its share
    first, last = int(allowed[0]), int(allowed[-1])
    low = float(ordered[first - 1]) if first > 0 else 0.0
    return float(np.quantile(ordered, QUANTILE)), low, float(ordered[last]) if last < n else np.inf
