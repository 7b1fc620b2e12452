"""Units of resampling: what is drawn again when a mean is asked how sure it is.

A unit is a row, a group or a time block. The mean over rows is the ratio of the units' totals to their sizes, so that groups of
unequal size need no special case: the mean of group means would answer another question where size and payoff go together.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from makegood.contracts import Floats, Ints

MAX_UNITS = 2000
"""More units than this are gathered in random blocks of equal numbers before they are drawn again."""


def gather(parts: Floats, clusters: Ints | None = None) -> Floats:
    """Return the totals (n_units, d) of the columns of `parts` (n, d) over the rows of each cluster; rows stay as they are without.

    >>> gather(np.array([[1.0, 1.0], [2.0, 1.0], [4.0, 1.0]]), np.array([7, 9, 7])).tolist()
    [[5.0, 2.0], [2.0, 1.0]]
    """
    if clusters is None:
        return parts
    _, unit = np.unique(clusters, return_inverse=True)
    return np.column_stack([np.bincount(unit, weights=column) for column in parts.T])


def pool(units: Floats, seed: int) -> Floats:
    """Return at most `MAX_UNITS` units: random blocks of equal numbers of the given ones, or these themselves.

    Sums of m independent units are independent, and m multiplies the variance, and divides the squared skewness, as n/m divides
    the number: mean, standard error and skewness/√n, on which the studentised bootstrap rests, are the same (measured: bench).

    >>> pool(np.ones((5000, 2)), seed=0).sum(axis=0).tolist()
    [5000.0, 5000.0]
    """
    if len(units) <= MAX_UNITS:
        return units
    size = -(-len(units) // MAX_UNITS)
    order = np.random.default_rng(seed).permutation(len(units))
    return np.asarray(np.add.reduceat(units[order], np.arange(0, len(units), size), axis=0))


def effective(sizes: Floats) -> float:
    """Return how many units of equal size are worth as much as these: (Σ size)² / Σ size² (Kish 1965, §8.2).

    >>> effective(np.array([10.0, 10.0, 10.0])), round(effective(np.array([100.0, 1.0, 1.0])), 2)
    (3.0, 1.04)
    """
    return float(sizes.sum() ** 2 / (sizes @ sizes)) if len(sizes) else 0.0


def skewed(residuals: Floats) -> bool:
    """Return whether n < 25·skew² (MATHEMATICS §2): an interval of the mean of these then covers less than it says.

    `residuals` (n,) have mean zero.

    >>> skewed(np.array([-1.0, 1.0] * 50)), skewed(np.array([99.0] + [-1.0] * 99))
    (False, True)
    """
    second = float((residuals**2).sum())
    third = float((residuals**3).sum())
    return third**2 * 25.0 > second**3  # n·(Σr³/n)² · 25 / (Σr²/n)³ > n², both sides cleared of division


def jackknife(units: Floats) -> tuple[Floats, Floats]:
    """Return the means (d,) and their covariance (d, d) by leaving out one unit at a time.

    `units` (n_units, d + 1): totals, then sizes. The covariance is CR3 of cluster-robust regression (Bell & McCaffrey 2002): with
    units of equal size exactly the variance of the unit means over their number, with unequal ones unbiased or slightly above.

    >>> mean, covariance = jackknife(np.array([[2.0, 1.0], [4.0, 1.0], [6.0, 1.0]]))
    >>> mean.tolist(), covariance.round(4).tolist()
    ([4.0], [[1.3333]])
    """
    totals, sizes = units[:, :-1], units[:, -1]
    mean = totals.sum(axis=0) / sizes.sum()
    moved = (totals - sizes[:, None] * mean) / (sizes.sum() - sizes)[:, None]
    moved = moved - moved.mean(axis=0)
    return np.asarray(mean), np.asarray(moved.T @ moved * (len(units) - 1) / len(units))


def studentised(units: Floats, *, level: float, seed: int) -> tuple[float, float]:
    """Return the lower and the upper end of a mean's studentised bootstrap interval (Efron 1979; Hall 1992, §3.2).

    `units` (n_units, 2): totals and sizes. Each resample is divided by its own standard error, which corrects the skewness of
    money to second order, in the direction that matters: losses with a long tail push the lower end down. A resample that drew
    none of the rare large payoffs has hardly an error; a third of the sample's own is the least it is given.

    >>> low, high = studentised(np.column_stack([np.arange(100.0), np.ones(100)]), level=0.95, seed=0)
    >>> round(low, 1), round(high, 1)
    (43.9, 55.1)
    """
    totals, sizes = units[:, 0], units[:, 1]
    count, mean = len(units), float(totals.sum() / sizes.sum())
    size = sizes / sizes.mean()
    residual = totals / sizes.mean() - size * mean
    error = float(np.sqrt(residual @ residual / (count - 1) / count))
    if error == 0.0:
        return mean, mean
    tail = (1.0 - level) / 2.0
    repetitions = 1999 if tail >= 0.005 else 9999
    moments = np.column_stack([residual, size, residual * residual, residual * size, size * size])
    shift, scale, rr, rs, ss = _resample(moments, repetitions, seed).T / count
    shift = shift / scale
    variance = (rr - 2.0 * shift * rs + shift**2 * ss) / (scale**2 * (count - 1))
    ratio = shift / np.sqrt(np.maximum(variance, (error / 3.0) ** 2))
    below, above = np.quantile(ratio, [tail, 1.0 - tail])
    return float(mean - max(above, 0.0) * error), float(mean - min(below, 0.0) * error)


def _resample(units: Floats, repetitions: int, seed: int) -> Floats:
    """Return the totals (repetitions, d) of as many units, drawn with replacement."""
    counts = _draws(len(units), repetitions, seed)
    step = 32  # resamples at a time: counts are kept as bytes; a larger product would wake the threads of BLAS, twenty times slower
    return np.concatenate([counts[i : i + step].astype(np.float64) @ units for i in range(0, repetitions, step)])


@lru_cache(maxsize=8)
def _draws(count: int, repetitions: int, seed: int) -> Ints:
    """Return how often (repetitions, count) each unit is drawn: the same for every figure on the same rows, so kept."""
    rng = np.random.default_rng(seed)
    draws = np.empty((repetitions, count), dtype=np.uint8)
    step = max(1, 2**17 // count)  # resamples at a time: a call for each costs more than its draws, all at once outgrow the caches
    for i in range(0, repetitions, step):
        some = draws[i : i + step]
        drawn = rng.integers(0, count, some.shape) + count * np.arange(len(some))[:, None]
        some[:] = np.bincount(drawn.ravel(), minlength=some.size).reshape(some.shape)
    draws.flags.writeable = False
    return draws
