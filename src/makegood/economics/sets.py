"""Prediction sets: the classes that an outcome may turn out to be, with a declared coverage (MATHEMATICS §13).

A class is scored by the probability of all classes likelier than it: 0 for the likeliest, the same for classes that tie, so that
nothing is drawn by lot (adaptive prediction sets, Romano, Sesia & Candès 2020, without their randomisation). A set of coverage
1 − α holds every class whose score is below 1 − α, which are the fewest, from the likeliest on, that have 1 − α of the predicted
probability between them; and every class scored no higher than the 1 − α quantile of the true classes' scores on rows that the
models had not seen. The second part widens the sets of a model that is surer than it should be; the first keeps the sets of
doubtful rows wide where a model is right more often than 1 − α, and the quantile alone would leave one class everywhere.

What is promised: by the first part, each row's set holds 1 − α of the predicted probability. By the second, at least 1 − α of
exchangeable rows get a set that holds their outcome, for scores of rows that served nothing else; it is marginal, over all rows
and not for each kind. Scores out of fold are not quite that: each is by one fold's models, and new rows are scored by the average
of all of them. Sets that compare a new row with every fold's own models hold 1 − 2α − √(2/n), whatever the model
(cross-conformal and CV+, Barber, Candès, Ramdas & Tibshirani 2021, theorem 4), and near 1 − α where models are stable; for the
average there is no such theorem, and held-out rows tell what it holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from makegood.contracts import Bools, Floats, Ints
from makegood.errors import BundleError, Problem

_SLACK = 1e-9  # of probability: what another order of the same sum may be off, and 19 · (1/20) is not quite .95


@dataclass(frozen=True)
class Sets:
    """Prediction sets of coverage `level`: classes scored below `level`, or no higher than `reach`.

    `n` tells the rows (or groups) behind `reach`, which is infinite where they are too few for the level: a set is then all classes.

    >>> Sets(0.9, reach=0.6).apply(np.array([[0.95, 0.04, 0.01], [0.5, 0.3, 0.2]])).tolist()
    [[True, False, False], [True, True, True]]
    """

    level: float
    reach: float
    n: int = 0

    def apply(self, p: Floats) -> Bools:
        """Return which classes are in the set of each row: (n, n_classes) of probabilities (n, n_classes), never none of a row."""
        score = scores(p)
        return np.asarray((score <= self.reach + _SLACK) | (score < self.level - _SLACK))

    def to_json(self) -> dict[str, Any]:
        """Return plain data from which `from_json` makes the same sets; a reach that is infinite becomes None."""
        return {"level": self.level, "reach": self.reach if np.isfinite(self.reach) else None, "n": self.n}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Sets:
        """Return the sets of `to_json`; raises `BundleError` where the level is no share or the reach no probability."""
        level, reach = float(raw["level"]), np.inf if raw["reach"] is None else float(raw["reach"])
        if not 0 < level < 1 or not reach >= 0:
            got = f"level {level:g}, reach {reach:g}"
            raise BundleError(Problem("sets", got, "a level between 0 and 1 and a reach from 0 on", "run the case again"))
        return cls(level, reach, int(raw["n"]))


def scores(p: Floats) -> Floats:
    """Return the probability of all classes likelier than each one: (n, n_classes) of (n, n_classes).

    Sums run along each row from its likeliest class down, so that a row has the same bits alone and among others.

    >>> scores(np.array([[0.5, 0.25, 0.25], [0.25, 0.125, 0.625]])).tolist()
    [[0.0, 0.5, 0.5], [0.625, 0.875, 0.0]]
    """
    order = np.argsort(-p, axis=1, kind="stable")
    ranked = np.take_along_axis(p, order, axis=1)
    before = np.cumsum(ranked, axis=1)
    before[:, 1:], before[:, :1] = before[:, :-1].copy(), 0.0
    first = np.ones(p.shape, dtype=np.bool_)
    first[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    tied = np.maximum.accumulate(np.where(first, np.arange(p.shape[1]), 0), axis=1)
    out = np.empty_like(before)
    np.put_along_axis(out, order, np.take_along_axis(before, tied, axis=1), axis=1)
    return out


def fit_sets(p: Floats, y: Ints, level: float, *, clusters: Ints | None = None) -> Sets:
    """Return the sets of coverage `level` that probabilities `p` (n, n_classes) of classes `y` (n,) call for.

    The models behind `p` have not seen these rows. With `clusters` (n,) each group weighs the same, as in `conformal.fit_conformal`:
    groups are exchangeable and rows of one are not (Lee, Barber & Willett 2023). One row (or group) more, not yet seen, has its
    share of the weight and may score anything: fewer than 1/α − 1 of them call for all classes.

    >>> p = np.array([[0.6, 0.3, 0.1]] * 99)
    >>> y = np.repeat([0, 1, 2], [85, 12, 2])
    >>> fit_sets(p, y, 0.85), fit_sets(p, y, 0.95).reach, fit_sets(p[:9], y[:9], 0.95).reach
    (Sets(level=0.85, reach=0.0, n=99), 0.6, inf)
    """
    own = scores(np.asarray(p, dtype=np.float64))[np.arange(len(y)), y]
    group = np.arange(len(y)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    size = np.bincount(group)
    order = np.argsort(own, kind="stable")
    below = np.cumsum(1.0 / size[group[order]]) / (len(size) + 1)
    first = int(np.searchsorted(below, level - _SLACK))
    return Sets(level, float(own[order[first]]) if first < len(own) else np.inf, len(size))
