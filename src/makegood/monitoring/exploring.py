"""What it costs to learn, and where it pays: exploration priced by a budget of money (MATHEMATICS §5).

Where champion and challenger disagree, the challenger's option is tried with a chance that is large where its payoff is uncertain and
small where it is expected to lose much. A service asks an `Exploration` for the chances of its rows; it imports NumPy alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from makegood.contracts import Floats, Ints
from makegood.errors import Problem, Refused

MOST = 0.5
"""The largest chance with which a row may be explored, all its alternatives together."""

FLOOR = 0.01
"""The least loss that is reckoned with, as a share of the mean one: a chance is not to grow without bound where nothing is lost."""


def pair(mine: str, theirs: str) -> str:
    """Return the name of the segment of rows on which the champion would do `mine` and the challenger `theirs`.

    A service looks a row's s up by it, and under "" where `Exploration.spread` does not name it.

    >>> pair("approve", "decline")
    'approve > decline'
    """
    return f"{mine} > {theirs}"


def losses(mine: Ints, theirs: Ints, by_mine: Floats, by_theirs: Floats) -> Floats:
    """Return what is lost (n,) by doing `theirs` in place of `mine` (n,), as the model expects that thinks worse of it; at least 0.

    `by_mine` and `by_theirs` (n, n_options) are the payoffs that champion and challenger expect of each option.

    >>> expected = np.array([[5.0, 2.0]])
    >>> losses(np.array([0]), np.array([1]), expected, expected[:, ::-1]).tolist()
    [3.0]
    """
    rows = np.arange(len(mine))
    found = [by[rows, mine] - by[rows, theirs] for by in (by_mine, by_theirs)]
    return np.asarray(np.maximum(np.maximum(*found), 0.0))


def spreads(x: Floats, segment: Ints, count: int, weight: Floats | None = None) -> tuple[float, ...]:
    """Return s of each of `count` segments: the root of the mean of x² (n,), by weight.

    `x` is what the estimator that will use the data cannot foresee: r − q̂ if it is doubly robust, r if it is inverse weighting;
    `weight` (n,) 1/chance of each row that was seen. Each segment is given ten rows of the whole, so that a few rows of it, or none,
    do not set it apart.

    >>> [round(s, 2) for s in spreads(np.array([3.0, -3.0, 1.0, 1.0]), np.array([0, 0, 1, 1]), 3)]
    [2.38, 2.08, 2.24]
    """
    assert len(x), "rows that were seen"
    w = np.ones(len(x)) if weight is None else weight
    overall = float((w * x**2).sum() / w.sum())
    # what the weights of a segment are worth in rows (Kish 1965, §8.2)
    total, square = (np.bincount(segment, power, count) for power in (w, w * w))
    rows = np.divide(total**2, square, out=np.zeros(count), where=square > 0.0)
    mean = np.divide(np.bincount(segment, w * x**2, count), total, out=np.zeros(count), where=total > 0.0)
    return tuple(float(s) for s in np.sqrt((rows * mean + 10.0 * overall) / (rows + 10.0)))


@dataclass(frozen=True)
class Exploration:
    """With which chance the challenger's option is tried: e* = clip(k·s/√c, least, most) where the two disagree, 0 elsewhere.

    `spread` maps each segment to its s, the deviation of payoffs there; c is the loss that is expected, at least `floor`, in money.
    `budget` is what a period of `period_s` seconds may cost.
    """

    k: float
    spread: Mapping[str, float]
    floor: float
    least: float
    budget: float
    period_s: float
    most: float = MOST

    def cost(self, loss: Floats) -> Floats:
        """Return what it counts for (n,) to explore a row: its `losses`, at least `floor`.

        >>> Exploration(1.0, {"": 1.0}, 2.0, 0.02, 100.0, 86400.0).cost(np.array([0.0, 4.0])).tolist()
        [2.0, 4.0]
        """
        return np.asarray(np.maximum(loss, self.floor))

    def chances(self, mine: Ints, theirs: Ints, loss: Floats, segment: Ints) -> Floats:
        """Return the chance (n,) with which each row shall get `theirs` in place of `mine`.

        `loss` (n,) by `losses`, `segment` (n,) the row's place in `spread`.

        >>> explored = Exploration(0.1, {"": 3.0}, 1.0, 0.02, 100.0, 86400.0)
        >>> explored.chances(np.array([0, 0, 0]), np.array([0, 1, 1]), np.array([9.0, 9.0, 9e6]), np.zeros(3, int)).round(3).tolist()
        [0.0, 0.1, 0.02]
        """
        s = np.fromiter(self.spread.values(), dtype=np.float64)[segment]
        return np.where(mine != theirs, np.clip(self.k * s / np.sqrt(self.cost(loss)), self.least, self.most), 0.0)

    def within(self, chances: Floats, cost: Floats, drawn: Floats, left: float) -> Floats:
        """Return the chances (n,) that hold while `left` money is: exploration ends with the row that could overspend it.

        `drawn` (n,) in [0, 1) is what decides, row by row in order: a row is explored where it is below the chance. Each chance
        depends on earlier draws alone, so that it is what is to be logged. A row that costs more than `left` at the outset is passed over.

        >>> explored = Exploration(0.1, {"": 3.0}, 1.0, 0.02, 100.0, 86400.0)
        >>> explored.within(np.full(5, 0.5), np.array([9.0, 2, 2, 2, 2]), np.array([0.1, 0.1, 0.9, 0.1, 0.1]), 5.0).tolist()
        [0.0, 0.5, 0.5, 0.5, 0.0]
        """
        chances = np.where(cost <= left, chances, 0.0)
        spent = np.where(drawn < chances, cost, 0.0)
        before = np.cumsum(spent) - spent
        over = (chances > 0.0) & (before + cost > left)
        if over.any():
            chances[int(np.argmax(over)) :] = 0.0
        return chances

    def to_json(self) -> dict[str, Any]:
        """Return plain data, of which `Exploration(**data)` is the same."""
        return asdict(self)


def together(chances: Floats, least: float, most: float = MOST) -> Floats:
    """Return the chances (n, n_challengers) of several challengers, of which a row gives at most `most` to all of them together.

    What is above `least` is scaled down: a chance under it would not count as a trial. Where even `least` for each is too much, it is
    shared evenly.

    >>> together(np.array([[0.5, 0.5], [0.5, 0.02], [0.1, 0.2]]), 0.02).round(3).tolist()
    [[0.25, 0.25], [0.48, 0.02], [0.1, 0.2]]
    """
    base = np.where(chances > 0.0, np.minimum(least, most / np.maximum((chances > 0.0).sum(axis=1, keepdims=True), 1)), 0.0)
    above = np.maximum(chances - base, 0.0)
    room, wanted = most - base.sum(axis=1, keepdims=True), above.sum(axis=1, keepdims=True)
    return np.asarray(base + above * np.minimum(1.0, room / np.maximum(wanted, np.finfo(np.float64).tiny)))


def budgeted(
    loss: Floats, segment: Ints, spread: Mapping[str, float], rate: tuple[float, float], covered_s: float, least: float
) -> Exploration:
    """Return the exploration that is expected to cost `rate` (money, seconds) if rows keep coming as the recent ones did.

    `loss` and `segment` (n,) are of the recent rows on which the models disagree, which came in `covered_s` seconds. What it costs,
    Σ c·clip(k·s/√c, least, most), is piecewise linear and grows in k, so k is exact. Where money is left with every row at `most`, k
    is the least that brings them there. Raises `Refused` where the `least` chance everywhere costs more than there is.

    >>> loss, segment = np.array([1.0, 4.0]), np.array([0, 0])
    >>> budgeted(loss, segment, {"": 2.0}, (0.9, 86400.0), 86400.0, 0.02).k
    0.15
    """
    money, period_s = rate
    assert len(loss), "rows on which they disagree"
    assert 0.0 < least <= MOST, "a chance"
    cost = np.maximum(loss, max(FLOOR * float(loss.mean()), np.finfo(np.float64).tiny))
    s = np.fromiter(spread.values(), dtype=np.float64)[segment]
    goal = money * covered_s / period_s
    if (cheapest := least * float(cost.sum())) > goal:
        got, needed = f"{money:.4g} for {period_s / 86400:.4g} days", cheapest * period_s / covered_s
        mend = f"raise it, or lower explore.least from {least:.4g}"
        expected = f"at least {needed:.4g}, which the least chance costs wherever the models disagree"
        raise Refused(Problem("feedback.explore.budget", got, expected, mend))
    floor = float(cost.min())
    return Exploration(_solved(cost, s, least, goal), dict(spread), floor, least, money, period_s)


def _solved(cost: Floats, s: Floats, least: float, goal: float) -> float:
    """Return the least k at which Σ cost·clip(k·s/√cost, least, MOST) is `goal`, or nothing more can be spent."""
    moves = s > 1e-100  # less is nothing to be learnt, and k would overflow
    root, s = np.sqrt(cost[moves]), s[moves]
    turns = np.concatenate([least * root / s, MOST * root / s])  # where a row begins to rise, and where it ends
    order = np.argsort(turns, kind="stable")
    turns, slopes = turns[order], np.cumsum(np.concatenate([s * root, -s * root])[order])
    spent = least * float(cost.sum()) + np.append(0.0, np.cumsum(slopes[:-1] * np.diff(turns)))
    return float(np.interp(goal, spent, turns)) if len(turns) else 0.0


def saving(cost: Floats, s: Floats) -> float:
    """Return how many times less it costs to learn as much by e* as by one rate for all: E[c]·E[s²]/(E[s·√c])², at least 1.

    `cost` and `s` (n,) are of rows on which the models disagree. The variance of an inversely weighted mean is E[s²/e] and its cost
    E[c·e]; of all e(x) at one cost, s/√c has the least variance (Cauchy & Schwarz), and this is the ratio where nothing is clipped.

    >>> saving(np.array([1.0, 9.0]), np.array([1.0, 1.0]))
    1.25
    """
    return float(cost.mean() * (s**2).mean() / (s * np.sqrt(cost)).mean() ** 2)
