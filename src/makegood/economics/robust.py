"""How far each payoff may be off before the actions, or the verdict, would be others (MATHEMATICS §11).

Multiply one payoff by a factor s = 1 + t. With the chosen actions held, a row's gain over a baseline is linear in t, so the lower
limit of the mean gain is mean(t) − q·√variance(t), a line less a norm: concave, and where it is zero a quadratic says (Fieller
1954). The region where every baseline is beaten is therefore one interval, found in closed form, and so is the region of factors
where one row keeps its action. Nothing is searched for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from makegood.contracts import Floats, Ints, PayoffRange
from makegood.economics import resample, value

if TYPE_CHECKING:
    from makegood.economics.policy import Cell

CHANGED = 0.05
"""Share of the rows that may change their action before the actions count as changed."""

Span = tuple[float, float]
"""An interval of t; empty when its low end is above its high one."""

_ALL: Span = (-math.inf, math.inf)
_NONE: Span = (math.inf, -math.inf)


def payoff_ranges(
    cells: Iterable[Cell],
    *,
    chosen: Ints,
    scores: Floats | None,
    realised: Floats,
    baselines: Mapping[str, Floats],
    gain: value.Gain,
    clusters: Ints | None = None,
) -> tuple[PayoffRange, ...]:
    """Return the range of each payoff over which the verdict and the actions stand.

    `chosen` (n,) option positions, `scores` (n, n_options) what the policy maximises (expected payoff less shadow prices; None
    where it is averse, and the range of the actions is then NaN), `realised` (n, n_options) payoffs under the outcome, `baselines`
    per name weights (n, n_options) with which it takes each option, `gain` what the verdict was taken on, net of its `cost`. The
    critical value q is the verdict's own, baseline by baseline: at factor one the limit is the one that was reported. Payoffs that
    are zero on every row are left out: a factor says nothing of them.
    """
    taken = np.zeros_like(realised, dtype=np.float64)
    taken[np.arange(len(chosen)), chosen] = 1.0
    swaps = {name: taken - weights for name, weights in baselines.items()}
    before = {name: (swap * realised).sum(axis=1) - gain.cost for name, swap in swaps.items()}
    deployed = gain.estimate.low > 0
    found = []
    for cell in cells:
        declared = cell.realised_part[cell.realised_part != 0]
        if not len(declared) and not cell.expected_part.any():
            continue
        beaten, ahead = _ALL, _ALL
        for name, swap in swaps.items():
            parts = np.column_stack([before[name], (swap * cell.realised_part).sum(axis=1), np.ones(len(chosen))])
            mean, covariance = resample.jackknife(resample.gather(parts, clusters))
            beaten = _both(beaten, _positive(mean, covariance, _reach(gain, name, covariance[0, 0])))
            ahead = _both(ahead, _above(float(mean[0]), float(mean[1])))
        low, high = _standing(beaten, deployed)
        actions_low, actions_high = (math.nan, math.nan) if scores is None else same_actions(scores, cell.expected_part)
        found.append(
            PayoffRange(
                action=cell.action,
                outcome=cell.outcome,
                expression=cell.expression,
                mean=float(declared.mean()) if len(declared) else 0.0,
                verdict_low=1.0 + low,
                verdict_high=1.0 + high,
                break_even=1.0 + _nearest(ahead),
                actions_low=actions_low,
                actions_high=actions_high,
            )
        )
    return tuple(found)


def same_actions(scores: Floats, part: Floats, changed: float = CHANGED) -> Span:
    """Return the factors between which all but a share `changed` of the rows keep the option that `scores` puts first.

    `part` (n, n_options) is the payoff's contribution to `scores`. The lead d of a row's best option over another one changes by
    t times the difference s of their parts, so the row changes at t = −d/s: upwards the least of these over options, downwards
    the greatest; the range is where the next row beyond the allowed share would change.

    >>> same_actions(np.array([[1.0, 0.0]]), np.array([[-2.0, 0.0]]))
    (-inf, 1.5)
    """
    n = len(scores)
    if not n:
        return _ALL
    rows, best = np.arange(n), scores.argmax(axis=1)
    lead = scores[rows, best][:, None] - scores
    slope = part[rows, best][:, None] - part
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = lead / np.abs(slope)
    up = np.sort(np.where(slope < 0, turn, np.inf).min(axis=1))
    down = np.sort(np.where(slope > 0, turn, np.inf).min(axis=1))
    allowed = int(changed * n + 1e-9)
    return 1.0 - float(down[allowed]), 1.0 + float(up[allowed])


def _reach(gain: value.Gain, name: str, variance: float) -> float:
    """Return how many standard errors the reported lower limit lies below the mean; NaN where there is no limit."""
    found = gain.estimates[name]
    if variance > 0:
        return (found.value - found.low) / math.sqrt(variance)
    return NormalDist().inv_cdf(0.5 + found.level / 2.0)


def _positive(mean: Floats, covariance: Floats, q: float) -> Span:
    """Return the interval of t where mean₀ + t·mean₁ − q·√(v₀₀ + 2t·v₀₁ + t²·v₁₁) is above zero.

    Squared, it is a·t² + 2b·t + c. Where a < 0 the error outgrows the mean on both sides and the interval lies between the roots,
    or is empty if the mean is negative there; where a > 0 it is the half-line on the side to which the mean grows.
    """
    (m0, m1), (v00, v01, v11) = mean.tolist(), covariance[np.triu_indices(2)].tolist()
    if math.isnan(q):
        return _NONE
    a, b, c = m1**2 - q**2 * v11, m0 * m1 - q**2 * v01, m0**2 - q**2 * v00
    if v11 == 0.0:
        return _above(m0 - q * math.sqrt(v00), m1)
    root = math.sqrt(max(b**2 - a * c, 0.0))
    far = -(b + math.copysign(root, b))  # the sum without cancellation; the other root follows from the product
    two = c / far if far else 0.0
    one = far / a if a else two
    low, high = min(one, two), max(one, two)
    if a < 0:
        return (low, high) if root > 0 and m0 + m1 * (low + high) / 2.0 > 0 else _NONE
    return (high, math.inf) if m1 > 0 else (-math.inf, low)


def _above(level: float, slope: float) -> Span:
    """Return the half-line of t where level + t·slope is above zero; all of it, or none, without a slope."""
    if slope == 0.0:
        return _ALL if level > 0 else _NONE
    return (-level / slope, math.inf) if slope > 0 else (-math.inf, -level / slope)


def _both(one: Span, two: Span) -> Span:
    return max(one[0], two[0]), min(one[1], two[1])


def _standing(beaten: Span, deployed: bool) -> Span:
    """Return the interval around t = 0 with the same verdict, given the one in which every baseline is beaten."""
    low, high = beaten
    if deployed:
        return beaten
    if low >= high:
        return _ALL
    return (-math.inf, low) if -low <= high else (high, math.inf)


def _nearest(ahead: Span) -> float:
    """Return the end of the interval that is nearest to t = 0; NaN where there is none."""
    ends = [t for t in ahead if math.isfinite(t)] if ahead[0] < ahead[1] else []
    return min(ends, key=abs, default=math.nan)
