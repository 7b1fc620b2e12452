"""Measures of a predictive as pseudo-values: n numbers a metric, whose mean is the metric.

A mean (accuracy, log loss) is its own list of pseudo-values. A smooth statistic T (area under the curve, a root, a ratio) is
linearised: T + ψ_i, ψ its influence function, of mean zero (the infinitesimal jackknife, Jaeckel 1972; Efron 1982, chapter 6).
Whatever gives an interval for a mean, clusters included, so gives one for every metric, in one pass over the rows.

Dispatch is on the kind of predictive. A row that a metric does not count is NaN; a metric that is not defined on any of the rows
(one class only, no item wanted) is left out.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from makegood.contracts import Bools, Effects, Floats, Ints, Predictive, Probabilities, Quantiles, Ranking, Text

BINS = 10
"""Bins of equal mass in the calibration error and in the curves."""

_TINY = float(np.finfo(np.float64).eps)  # probabilities are clipped this far from 0 and 1 in the log loss, as in scikit-learn

Terms = dict[str, Floats]


def equal_mass(score: Floats, bins: int = BINS) -> Ints:
    """Return the bin (n,) of each score, `bins` at most and about equally full; equal scores share a bin.

    >>> equal_mass(np.array([.1, .2, .3, .4]), 2).tolist()
    [0, 0, 1, 1]
    >>> equal_mass(np.array([.5, .5, .5]), 2).tolist()
    [0, 0, 0]
    """
    edges = np.quantile(score, np.arange(1, bins) / bins) if len(score) else np.empty(0)
    code = np.searchsorted(np.unique(edges), score, side="left")
    used = np.bincount(code) > 0
    return np.asarray((np.cumsum(used) - 1)[code])


def roc_auc(score: Floats, hit: NDArray[np.bool_]) -> Floats:
    """Return pseudo-values (n,) of the area under the ROC curve; NaN when one class is absent.

    The influence of a positive is the share of negatives below it less the area, divided by the share of positives, and the
    other way round (DeLong, DeLong & Clarke-Pearson 1988, equations 4-5).

    >>> roc_auc(np.array([.1, .4, .35, .8]), np.array([False, False, True, True])).mean()
    np.float64(0.75)
    """
    n, positives, negatives = len(score), np.sort(score[hit]), np.sort(score[~hit])
    if not len(positives) or not len(negatives):
        return np.full(n, np.nan)
    below = _below(negatives, score) / len(negatives)
    above = 1.0 - _below(positives, score) / len(positives)
    area = float(below[hit].mean())
    return area + np.where(hit, (below - area) * n / len(positives), (above - area) * n / len(negatives))


def _below(ordered: Floats, score: Floats) -> Floats:
    """Return how many of `ordered` lie below each score, ties counting one half."""
    return np.asarray((np.searchsorted(ordered, score, "left") + np.searchsorted(ordered, score, "right")) / 2.0)


def calibration_error(p: Floats, hit: Floats, bins: int = BINS) -> Floats:
    """Return pseudo-values (n,) of the expected calibration error: the mean over rows of |mean p − share of hits| in their bin.

    Bins of equal mass (Naeini, Cooper & Hauskrecht 2015, with equal-mass bins as in Nixon et al. 2019). An absolute value of a
    noisy difference is biased upwards by about √(p(1−p)·bins/n): the interval tells how the figure varies, not its bias.

    >>> calibration_error(np.array([.2, .2, .8, .8]), np.array([0., 0., 1., 1.]), 2).mean().round(3)
    np.float64(0.2)
    """
    code = equal_mass(p, bins)
    miss = p - hit
    sign = np.sign(np.bincount(code, miss))
    return np.asarray(sign[code] * miss)


def quadratic_kappa(code: NDArray[Any], other: NDArray[Any]) -> Floats:
    """Return pseudo-values (n,) of Cohen's kappa with quadratic weights between two integer ratings; NaN without variation.

    κ = 1 − E(a−b)² / E(a−b')², b' independent of a (Cohen 1968); linearised as a ratio of means.

    >>> quadratic_kappa(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 1])).mean().round(3)
    np.float64(0.8)
    """
    a, b = code.astype(np.float64), other.astype(np.float64)
    apart, both = (a - b) ** 2, float(a.mean() * b.mean())
    chance = a**2 + b**2 - 2 * (a * b.mean() + a.mean() * b) + 2 * both  # pseudo-values of E(a−b')²
    expected = float(chance.mean())
    if expected <= 0:
        return np.full(len(a), np.nan)
    return np.asarray(1.0 - (apart - float(apart.mean()) / expected * (chance - expected)) / expected)


def mean_kappa(code: NDArray[Any], other: NDArray[Any], scale: NDArray[Any]) -> Floats:
    """Return pseudo-values (n,) of the mean of the kappas within each level of `scale` (n,), each level counting alike.

    Ratings on scales of their own must not be pooled: that a rater tells one prompt from another is no agreement about essays, and
    lifts the pooled figure. A level without variation has no kappa and is left out, its rows are NaN; all are where no level has one.

    >>> code, other = np.array([0, 1, 0, 1, 5, 6, 5, 6]), np.array([0, 1, 1, 0, 5, 6, 6, 5])
    >>> mean_kappa(code, other, np.array(list("aaaabbbb"))).mean().round(3), quadratic_kappa(code, other).mean().round(3)
    (np.float64(0.0), np.float64(0.962))
    """
    level = np.unique(scale.astype(str), return_inverse=True)[1].reshape(-1)
    parts = {at: quadratic_kappa(code[level == at], other[level == at]) for at in range(int(level.max(initial=-1)) + 1)}
    defined = {at: x for at, x in parts.items() if not np.isnan(x).any()}
    out = np.full(len(code), np.nan)
    if not defined:
        return out
    mean = float(np.mean([x.mean() for x in defined.values()]))
    counted = sum(map(len, defined.values()))
    for at, x in defined.items():
        out[level == at] = mean + (x - x.mean()) * counted / (len(defined) * len(x))
    return out


def _root(squares: Floats) -> Floats:
    """Return pseudo-values of the root of the mean of `squares`."""
    known = squares[~np.isnan(squares)]
    mean = float(known.mean()) if len(known) else np.nan
    return np.asarray(np.sqrt(mean) + (squares - mean) / (2.0 * np.sqrt(mean)) if mean != 0 else squares)


@singledispatch
def terms(predictive: Predictive, outcome: NDArray[Any], positive: int = -1) -> Terms:
    """Return the metrics of a predictive against what turned out, by name: pseudo-values (n,) whose mean is the metric.

    `outcome` is as `policy.realised` takes it: class codes (n,), values (n,) or (n, horizon), potential outcomes (n, n_actions),
    wanted items or right answers (n,). `positive` is the class that a binary calibration error is about.
    """
    raise TypeError(f"not a predictive: {type(predictive).__name__}")


@terms.register
def _(predictive: Probabilities, outcome: NDArray[Any], positive: int = -1) -> Terms:
    p, code, k = predictive.p, outcome.astype(np.int64), len(predictive.classes)
    rows, hit = np.arange(len(p)), code[:, None] == np.arange(k)
    best = p.argmax(axis=1)
    squares = ((p - hit) ** 2).sum(axis=1)
    if k == 2:
        area = roc_auc(p[:, positive], hit[:, positive])
        squares = squares / 2.0  # Brier's score of the positive class alone, as scikit-learn has it
    else:
        against_rest = [x for x in (roc_auc(p[:, c], hit[:, c]) for c in range(k)) if np.isfinite(x).all()]
        area = np.mean(against_rest, axis=0) if against_rest else np.full(len(p), np.nan)
    ece = calibration_error(*claims(predictive, outcome, positive))
    right, loss = (best == code).astype(np.float64), -np.log(np.clip(p[rows, code], _TINY, 1.0 - _TINY))
    out = {"roc_auc": area, "accuracy": right, "log_loss": loss, "brier": squares, "ece": ece}
    rank = ranks_of(predictive.classes)
    if rank is not None:
        out["qwk"] = quadratic_kappa(np.rint((p * rank).sum(axis=1)).astype(np.int64), rank[code])
    return _defined(out)


@terms.register
def _(predictive: Quantiles, outcome: NDArray[Any], positive: int = -1) -> Terms:
    levels, q = np.asarray(predictive.levels), predictive.q
    y = outcome.astype(np.float64)
    miss = y[..., None] - q
    median = _at(levels, q, 0.5)
    size = np.abs(y) + np.abs(median)
    out = {
        "rmse": _root(_by_row((y - (q * _weights(levels)).sum(axis=-1)) ** 2)),
        "mae": _by_row(np.abs(y - median)),
        "pinball": _by_row(np.maximum(levels * miss, (levels - 1.0) * miss).mean(axis=-1)),
        "smape": _by_row(200.0 * np.abs(y - median) / np.where(size > 0, size, 1.0)),
    }
    low, high = int(levels.argmin()), int(levels.argmax())
    if np.isclose(levels[low] + levels[high], 1.0) and low != high:
        inside = ((q[..., low] <= y) & (y <= q[..., high])).astype(np.float64)
        out[f"coverage_{round(100 * (levels[high] - levels[low]))}"] = _by_row(np.where(np.isnan(y), np.nan, inside))
    return _defined(out)


@terms.register
def _(predictive: Effects, outcome: NDArray[Any], positive: int = -1) -> Terms:
    miss = outcome.astype(np.float64) - predictive.mean
    return _defined({"rmse": _root(_by_row(miss**2)), "mae": _by_row(np.abs(miss))})


@terms.register
def _(predictive: Ranking, outcome: NDArray[Any], positive: int = -1) -> Terms:
    n, k = predictive.items.shape
    hit = claims(predictive, outcome)[1].reshape(n, k)
    count = np.array([len(set(items)) for items in outcome], dtype=np.int64)
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.append(np.nan, np.cumsum(discount))[np.minimum(count, k)]  # NaN where nothing is wanted
    recall = hit.sum(axis=1) / np.where(count > 0, count, np.nan)
    return _defined({f"recall_at_{k}": recall, f"ndcg_at_{k}": (hit * discount).sum(axis=1) / ideal})


@terms.register
def _(predictive: Text, outcome: NDArray[Any], positive: int = -1) -> Terms:
    p, right = claims(predictive, outcome)
    return _defined(
        {
            "roc_auc": roc_auc(p, right > 0),
            "accuracy": right,
            "log_loss": -np.log(np.clip(np.where(right > 0, p, 1.0 - p), _TINY, 1.0 - _TINY)),
            "brier": (p - right) ** 2,
            "ece": calibration_error(p, right),
        }
    )


def set_terms(sets: Bools, outcome: Ints) -> Terms:
    """Return whether each row's prediction set (n, n_classes) holds its class (n,), and how many classes it has, by metric.

    >>> {name: x.tolist() for name, x in set_terms(np.array([[True, False], [True, True]]), np.array([1, 1])).items()}
    {'set_coverage': [0.0, 1.0], 'set_size': [1.0, 2.0]}
    """
    inside = sets[np.arange(len(sets)), outcome.astype(np.int64)]
    return {"set_coverage": inside.astype(np.float64), "set_size": sets.sum(axis=1).astype(np.float64)}


@singledispatch
def claims(predictive: Predictive, outcome: NDArray[Any], positive: int = -1) -> tuple[Floats, Floats]:
    """Return what was claimed and what came, both (m,): probabilities and hits, or expected and true outcomes.

    A claim is made for each row (two classes: the positive one; more: the likeliest; an answer: that it is right), for each ranked
    item, or for each action's known outcome.
    """
    raise TypeError(f"not a predictive of claims: {type(predictive).__name__}")


@claims.register
def _(predictive: Probabilities, outcome: NDArray[Any], positive: int = -1) -> tuple[Floats, Floats]:
    p = predictive.p
    claimed = p.argmax(axis=1) if p.shape[1] != 2 else np.full(len(p), positive % 2)
    return p[np.arange(len(p)), claimed], (claimed == outcome).astype(np.float64)


@claims.register
def _(predictive: Ranking, outcome: NDArray[Any], positive: int = -1) -> tuple[Floats, Floats]:
    wanted = [set(items) for items in outcome]
    hit = [item in items for row, items in zip(predictive.items.tolist(), wanted, strict=True) for item in row]
    return predictive.scores.reshape(-1), np.array(hit, dtype=np.float64)


@claims.register
def _(predictive: Text, outcome: NDArray[Any], positive: int = -1) -> tuple[Floats, Floats]:
    right = [answer == true for answer, true in zip(predictive.answers, outcome, strict=True)]
    return predictive.confidence.astype(np.float64), np.array(right, dtype=np.float64)


@claims.register
def _(predictive: Effects, outcome: NDArray[Any], positive: int = -1) -> tuple[Floats, Floats]:
    known = ~np.isnan(outcome.astype(np.float64))
    return predictive.mean[known], outcome[known].astype(np.float64)


Curve = tuple[tuple[float, float, int], ...]
"""(claimed, came, n) by bin."""


def curve(claimed: Floats, came: Floats, bins: int = BINS) -> Curve:
    """Return the mean claim, the mean of what came, and the number, in bins of equal mass.

    >>> curve(np.array([.2, .2, .8, .8]), np.array([0., 0., 1., 0.]), 2)
    ((0.2, 0.0, 2), (0.8, 0.5, 2))
    """
    code = equal_mass(claimed, bins)
    n = np.bincount(code)
    means = (np.bincount(code, weights=x) / n for x in (claimed, came))
    return tuple(zip(*(m.tolist() for m in means), n.tolist(), strict=True))


def calibration(predictive: Predictive, outcome: NDArray[Any], positive: int = -1) -> Curve:
    """Return the calibration curve: claims against what came; of quantiles, each level against the share of outcomes below it."""
    if not isinstance(predictive, Quantiles):
        return curve(*claims(predictive, outcome, positive))
    y = outcome.astype(np.float64)
    known = ~np.isnan(y)
    below = (y[..., None] <= predictive.q)[known].mean(axis=0)
    return tuple((float(level), float(share), int(known.sum())) for level, share in zip(predictive.levels, below, strict=True))


def bounds(name: str) -> tuple[float, float]:
    """Return the least and the largest value that a metric can take, to which its interval is cut.

    >>> bounds("roc_auc"), bounds("rmse")
    ((0.0, 1.0), (0.0, inf))
    """
    if name == "qwk":
        return -1.0, 1.0
    if name == "smape":
        return 0.0, 200.0
    if name == "set_size":
        return 1.0, np.inf
    return 0.0, np.inf if name in ("rmse", "mae", "pinball", "log_loss", "brier") else 1.0


def _defined(out: Terms) -> Terms:
    return {name: x for name, x in out.items() if not np.isnan(x).all()}


def _by_row(x: Floats) -> Floats:
    """Return the mean over what is known of the horizon (or the actions): one number a row, the unit that is resampled."""
    known = ~np.isnan(x).reshape(len(x), -1)
    total, count = np.nansum(x.reshape(len(x), -1), axis=1), known.sum(axis=1)
    return np.asarray(total / np.where(count > 0, count, np.nan))


def _at(levels: Floats, q: Floats, level: float) -> Floats:
    """Return the quantile at `level`, linear between the two nearest levels and flat beyond the outermost."""
    right = int(np.clip(np.searchsorted(levels, level), 1, len(levels) - 1)) if len(levels) > 1 else 0
    left = max(right - 1, 0)
    width = levels[right] - levels[left]
    share = float(np.clip((level - levels[left]) / width, 0.0, 1.0)) if width > 0 else 0.0
    return np.asarray(q[..., left] + share * (q[..., right] - q[..., left]))


def _weights(levels: Floats) -> Floats:
    """Return weights that turn quantiles into the mean: each level stands for the levels nearest to it."""
    edges = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2.0, [1.0]])
    return np.asarray(np.diff(edges))


def ranks_of(classes: tuple[str, ...]) -> Ints | None:
    """Return the rank of each class where there are three or more and all are integers, else None.

    >>> ranks_of(("1", "10", "2")).tolist(), ranks_of(("a", "b", "c"))
    ([0, 2, 1], None)
    """
    try:
        values = np.array([int(c) for c in classes])
    except ValueError:
        return None
    return np.argsort(np.argsort(values)) if len(classes) > 2 else None
