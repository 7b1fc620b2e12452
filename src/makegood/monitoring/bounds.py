"""What a policy can have earned where what it would have done was never seen: an interval of identification (MATHEMATICS §4).

On a row whose payoff is not known it is bounded by the least and the most that its action pays over the declared outcomes. No
assumption about who was chosen for what enters: more rows narrow the sampling error, never this interval.
"""

from __future__ import annotations

import numpy as np

from makegood.contracts import Estimate, Floats, Ints
from makegood.economics import resample
from makegood.economics.value import FEWEST

Ends = tuple[Floats, Floats]
"""The least and the most (n, n_options) that each option can pay on each row."""


def ends(table: Floats) -> Ends:
    """Return the least and the most (n, n_options) that each option pays over the outcomes of `table` (n, n_options, n_outcomes).

    For an outcome that is a number, the declared caps stand in for both.

    >>> low, high = ends(np.array([[[10.0, -50.0], [0.0, 0.0]]]))
    >>> low.tolist(), high.tolist()
    ([[-50.0, 0.0]], [[10.0, 0.0]])
    """
    return np.asarray(table.min(axis=2)), np.asarray(table.max(axis=2))


def along(policy: Floats | Ints, *tables: Floats) -> tuple[Floats, ...]:
    """Return the chances of a policy, and `tables` (n, n_options) where it looks: all of them (n, m).

    `policy` is the option (n,) that it takes on each row (then m = 1), or the chance of each (n, n_options).

    >>> share, paid = along(np.array([1, 0]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> share.tolist(), paid.tolist()
    ([[1.0], [1.0]], [[2.0], [3.0]])
    """
    if policy.ndim == 2:
        return np.asarray(policy, dtype=np.float64), *tables
    at = np.asarray(policy, dtype=np.int64)[:, None]
    return np.ones(at.shape), *(np.take_along_axis(table, at, axis=1) for table in tables)


def payoffs(policy: Floats | Ints, paid: Floats, between: Ends) -> tuple[Floats, Floats]:
    """Return the least and the most (n,) that a policy can have earned on each row, whatever the chances of what was done were.

    `paid` (n, n_options) is what each option paid or would have paid, NaN where that is not known: wherever what was done is not
    what the policy does, unless its payoff is known whatever comes, or the outcome is the same under every action.

    >>> paid = np.array([[np.nan, 0.0], [10.0, 0.0]])
    >>> low, high = payoffs(np.array([0, 0]), paid, (np.array([[-50.0, 0.0]] * 2), np.array([[10.0, 0.0]] * 2)))
    >>> low.tolist(), high.tolist()
    ([-50.0, 10.0], [10.0, 10.0])
    """
    share, paid, low, high = along(policy, paid, *between)
    known = ~np.isnan(paid)
    return _mean(share, np.where(known, paid, low)), _mean(share, np.where(known, paid, high))


def _mean(share: Floats, payoff: Floats) -> Floats:
    """Return the payoff (n,) of a policy; what it never does counts nothing, be it infinite."""
    return np.asarray((share * np.where(share > 0.0, payoff, 0.0)).sum(axis=1))


def identified(low: Floats, high: Floats, unit: str = "", *, clusters: Ints | None = None, level: float = 0.95) -> Estimate:
    """Return the middle of the means of `low` and `high` (n,), and an interval that holds the true value at `level`.

    The interval runs from mean(low) − C·se(low) to mean(high) + C·se(high) with F(C + Δ/max(se)) − F(−C) = level, Δ the distance of
    the two means (Imbens & Manski 2004, equations 6 and 7): the truth can be missed on one side alone once Δ is wide, on both when it
    is nought. low ≤ high on every row, so that it covers uniformly in Δ (Stoye 2009, lemma 3). F is Student's, on the effective number
    of `clusters` less one; the standard errors leave one cluster out at a time. On the side of a long tail the interval reaches
    se·|skewness|·(2C² + 1)/(6√n) farther (Johnson 1978): one end alone is to be right, so nothing on the other makes up for it.

    Fewer than six clusters: the ends are NaN. Bounds that are infinite: so are the ends, and there is no middle.

    >>> x = np.arange(100.0)
    >>> print(identified(x, x), identified(x, x + 100), sep="; ")
    49.5 [43.7, 55.3]; 99.5 [44.7, 154]
    """
    from scipy.special import stdtr

    assert len(low) == len(high) > 0, "rows"
    n_units, degrees = 0, 0.0
    found, errors, skews, tails = np.empty(2), np.zeros(2), np.zeros(2), []
    for i, x in enumerate((np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64))):
        found[i] = x.mean()
        units = resample.gather(np.column_stack([np.where(np.isfinite(x), x, 0.0), np.ones(len(x))]), clusters)
        n_units, degrees = len(units), max(resample.effective(units[:, 1]) - 1.0, 1.0)
        if n_units > 1 and np.isfinite(found[i]):
            errors[i] = np.sqrt(resample.jackknife(units)[1][0, 0])
            residual = units[:, 0] - found[i] * units[:, 1]
            tails.append(resample.skewed(residual))
            skews[i] = (residual**3).sum() / max(float((residual @ residual) ** 1.5), np.finfo(np.float64).tiny)  # skewness/√n
    middle = float(found.mean()) if np.isfinite(found).all() else np.nan
    if n_units < FEWEST:
        return Estimate(middle, np.nan, np.nan, unit, level)
    width = (found[1] - found[0]) / errors.max() if errors.max() > 0.0 else np.inf
    below, above = 0.0, 1e6
    for _ in range(80):  # the left side grows in C: halving finds it to the last digit
        reach = (below + above) / 2.0
        covered = stdtr(degrees, reach + width) - stdtr(degrees, -reach)
        below, above = (reach, above) if covered < level else (below, reach)
    farther = np.maximum([-skews[0], skews[1]], 0.0) * (2.0 * above**2 + 1.0) / 6.0
    reaches = errors * (above + farther)
    return Estimate(middle, float(found[0] - reaches[0]), float(found[1] + reaches[1]), unit, level, any(tails))
