"""Ratings on scales of their own: the rank that each row is given, and how well it agrees with the true one and raters with each other.

A scale is a level of `data.scale`, such as a prompt whose essays are scored from 1 to 6. To minimise squared error is to shrink towards
the middle, which weighted kappa punishes: the expected rank is cut into ranks where kappa is highest on validation rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from makegood.contracts import Bools, Columns, Estimate, Floats, Ints, Probabilities, Rated
from makegood.economics import value
from makegood.stages.held_out import HeldOut
from makegood.stages.metrics import bounds, mean_kappa, ranks_of
from makegood.trust.fairness import levels

_ROUNDS = 20  # through all cuts of a scale; a few are enough


@dataclass(frozen=True)
class Cuts:
    """Where the expected rank is cut: for each level of the scale its ranks, ascending, and one cut less than these."""

    by_level: Mapping[str, tuple[Ints, Floats]]

    def apply(self, expected: Floats, scale: NDArray[np.object_]) -> Ints:
        """Return the rank (n,) of each expected rank (n,); on a level that was not seen, the nearest one.

        >>> Cuts({"a": (np.array([0, 2]), np.array([0.5]))}).apply(np.array([0.4, 0.6, 1.4]), np.array(["a", "a", "b"], dtype=object))
        array([0, 2, 1])
        """
        out = np.rint(expected).astype(np.int64)
        names = scale.astype(str)
        for level, (ranks, cuts) in self.by_level.items():
            rows = names == level
            out[rows] = ranks[np.searchsorted(cuts, expected[rows], side="right")]
        return out


def fit_cuts(expected: Floats, rank: Ints, scale: NDArray[np.object_]) -> Cuts:
    """Return the cuts of the expected rank (n,) at which it agrees best with the true rank (n,) within each level of `scale` (n,).

    Each cut in turn goes where kappa is highest between its neighbours, until none moves: a local maximum, started from halfway
    between ranks.

    >>> cuts = fit_cuts(np.array([0.9, 1.0, 1.1, 1.2]), np.array([0, 0, 2, 2]), np.array(["a"] * 4, dtype=object))
    >>> cuts.by_level["a"][1].round(6).tolist()
    [1.05]
    """
    names = scale.astype(str)
    return Cuts({str(level): _cut(expected[names == level], rank[names == level]) for level in np.unique(names)})


def _cut(expected: Floats, rank: Ints) -> tuple[Ints, Floats]:
    """Return the ranks that occur and the cuts between them."""
    ranks = np.unique(rank)
    order = np.argsort(expected, kind="stable")
    x, t = expected[order], rank[order].astype(np.float64)
    between = np.concatenate([[-np.inf], (x[1:] + x[:-1]) / 2.0, [np.inf]])
    apart = np.concatenate([[True], x[1:] > x[:-1], [True]])  # a cut may lie here
    at = np.searchsorted(x, (ranks[1:] + ranks[:-1]) / 2.0)
    for _ in range(_ROUNDS):
        before = at.copy()
        for j in range(len(at)):
            low, high = at[j - 1] if j else 0, at[j + 1] if j + 1 < len(at) else len(x)
            places = np.arange(low, high + 1)[apart[low : high + 1]]
            if len(places):
                at[j] = _best(t, ranks.astype(np.float64), at, j, places)
        if (at == before).all():
            break
    return ranks, between[at]


def _best(t: Floats, ranks: Floats, at: Ints, j: int, places: Ints) -> int:
    """Return the one of `places` where cut j gives the highest kappa, of equals the nearest to where it is.

    κ = 1 − Σ(s−t)² / (Σs² + Σt² − 2·Σs·Σt/n); rows before the cut have rank j, those behind it rank j + 1.
    """
    n, start = len(t), places[0]
    trial = at.copy()
    trial[j] = start
    s = np.repeat(ranks, np.diff(np.concatenate([[0], trial, [n]])))
    fewer, total = ranks[j] - ranks[j + 1], np.concatenate([[0.0], np.cumsum(t)])
    moved = (places - start).astype(np.float64)
    square = moved * (ranks[j] ** 2 - ranks[j + 1] ** 2)
    apart = float(((s - t) ** 2).sum()) + square - 2.0 * fewer * (total[places] - total[start])
    chance = float((s**2).sum() + (t**2).sum()) + square - 2.0 * (float(s.sum()) + moved * fewer) * float(t.sum()) / n
    kappa = 1.0 - np.divide(apart, chance, out=np.full(len(places), np.inf), where=chance > 0)
    best = np.flatnonzero(kappa >= kappa.max() - 1e-12)
    return int(places[best[np.abs(places[best] - at[j]).argmin()]])


# ------------------------------------------------------------------------------------------------------------------ groups


def rated(held: HeldOut, scale: str, protected: Columns, raters: Floats) -> tuple[Rated, ...]:
    """Return how well held-out rows are rated: over all levels of the scale, in each, and in each group of a protected column.

    `raters` (n, any) are the marks of each rater, NaN where one gave none. Kappa is taken within each level and averaged, never pooled.
    """
    rank = ranks_of(held.predictive.classes) if isinstance(held.predictive, Probabilities) else None
    assert held.rating is not None, "rows without a scale are not rated"
    assert rank is not None, "only classes with ranks have a scale"
    names = held.columns[scale].astype(str)
    true = rank[held.outcome.astype(np.int64)]  # classes may stand in the order of the alphabet: 1, 10, 2
    steps = (held.rating - true).astype(np.float64)
    pairs = list(combinations(range(raters.shape[1]), 2))

    def kappa(a: Floats, b: Floats, rows: Bools) -> Estimate:
        both = rows & ~np.isnan(a) & ~np.isnan(b)
        terms = mean_kappa(a[both], b[both], names[both])
        counted = ~np.isnan(terms)
        clusters = None if held.clusters is None else held.clusters[both][counted]
        return value.bounded(terms[counted], bounds=bounds("qwk"), clusters=clusters)

    def among() -> Iterator[tuple[str, str, Bools]]:
        yield "", "", np.ones(len(held), dtype=np.bool_)
        for column, values in {scale: names, **protected}.items():
            said, code = levels(values) if column != scale else _texts(values)
            yield from ((column, level, code == i) for i, level in enumerate(said))

    found = []
    for column, level, rows in among():
        agree = [kappa(raters[:, a], raters[:, b], rows) for a, b in pairs]
        clusters = None if held.clusters is None else held.clusters[rows]
        found.append(
            Rated(
                column,
                level,
                int(rows.sum()),
                kappa(held.rating.astype(np.float64), true.astype(np.float64), rows),
                min(agree, key=lambda e: e.value) if agree else None,
                value.estimate(steps[rows], "", clusters=clusters),
            )
        )
    return tuple(found)


def _texts(values: NDArray[np.str_]) -> tuple[list[str], Ints]:
    said, code = np.unique(values, return_inverse=True)
    return [str(level) for level in said], code.reshape(-1)
