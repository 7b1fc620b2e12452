"""How groups of people are treated: shares, value and error rates by level of each protected column, with intervals.

A table, not a verdict: which of these figures ought to be equal is a question about the decision, and they cannot all be equal at
once (Kleinberg, Mullainathan & Raghavan 2017; Chouldechova 2017).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from makegood.contracts import Bools, Columns, Estimate, Floats, Ints
from makegood.economics.value import bounded, estimate

MISSING, OTHERS = "(missing)", "(others)"
FEW, MOST = 6, 8
"""Distinct numbers up to which each is a level of its own, and levels of a category that are kept apart."""

Compared = tuple[Estimate, Estimate, Estimate]
"""A rate, its difference from the reference's, and their ratio."""


@dataclass(frozen=True)
class Treatment:
    """What was chosen for n rows, what it paid, and (for a yes-or-no outcome) which rows turned out positive.

    `action` (n,) positions in `actions`; `selected` is the position of the action whose rates are compared: for a binary outcome
    the one that pays most when the positive class is true, so that its share among positives is the true positive rate.
    """

    unit: str
    actions: tuple[str, ...]
    action: Ints
    payoff: Floats
    selected: int
    positive: Bools | None = None
    clusters: Ints | None = None


@dataclass(frozen=True)
class Group:
    """One level of a protected column. Ratio and differences are against the column's largest level, the `reference`."""

    column: str
    level: str
    n: int
    reference: bool
    selected: str  # the action that the rates are about
    value: Estimate  # payoff per decision
    shares: Mapping[str, Estimate]  # action → share of the rows
    selection: Estimate
    difference: Estimate  # of `selection` (demographic parity difference)
    ratio: Estimate  # of `selection` (disparate impact); NaN where the reference has none
    tpr: Estimate | None = None  # share selected among positives
    fpr: Estimate | None = None  # share selected among negatives
    tpr_difference: Estimate | None = None  # with the next: equalised odds
    fpr_difference: Estimate | None = None


def compare(treatment: Treatment, protected: Columns) -> tuple[Group, ...]:
    """Return one `Group` for each level of each protected column, the largest level of a column first.

    Levels are those of `levels`. Intervals are at 95%, by cluster where there are clusters; a rate that nobody could have (no
    positives in the group) is NaN.
    """
    groups: list[Group] = []
    for column, values in protected.items():
        names, code = levels(values)
        order = np.argsort(-np.bincount(code, minlength=len(names)), kind="stable")
        groups += [_group(treatment, column, names[j], code == j, code == order[0]) for j in order]
    return tuple(groups)


def levels(values: NDArray[Any], most: int = MOST) -> tuple[tuple[str, ...], Ints]:
    """Return the names of a column's levels and the level (n,) of each row; every level has a row.

    Numbers of more than six distinct values are split at their quartiles. Of categories the `most` frequent are levels, the rest
    one level together. Missing values are a level.

    >>> levels(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, np.nan]))[0]
    ('up to 2.75', '2.75 to 4.5', '4.5 to 6.25', 'over 6.25', '(missing)')
    >>> names, code = levels(np.array(["b", "a", None, "b"], dtype=object))
    >>> names, code.tolist()
    (('b', 'a', '(missing)'), [0, 1, 2, 0])
    """
    numeric = values.dtype.kind in "fiub"
    names, code = _intervals(values.astype(np.float64)) if numeric else _categories(values, most)
    used = np.bincount(code, minlength=len(names)) > 0
    return tuple(name for name, any_row in zip(names, used, strict=True) if any_row), np.asarray((np.cumsum(used) - 1)[code])


def _intervals(x: Floats) -> tuple[list[str], Ints]:
    known = x[~np.isnan(x)]
    distinct = np.unique(known)
    if len(distinct) <= FEW:
        names, code = [f"{v:.10g}" for v in distinct], np.searchsorted(distinct, x)
    else:
        edges = np.unique(np.quantile(known, [0.25, 0.5, 0.75]))
        shown = [f"{e:.0f}" if abs(e) >= 1000 else f"{e:.4g}" for e in edges]
        between = [f"{low} to {high}" for low, high in pairwise(shown)]
        names, code = [f"up to {shown[0]}", *between, f"over {shown[-1]}"], np.searchsorted(edges, x)
    return [*names, MISSING], np.where(np.isnan(x), len(names), code)


def _categories(values: NDArray[Any], most: int) -> tuple[list[str], Ints]:
    counts = Counter(values.tolist())
    missing = counts.pop(None, 0)
    kept = [name for name, _ in counts.most_common(most)]
    place = {name: j for j, name in enumerate(kept)} | ({None: len(kept) + 1} if missing else {})
    code = np.array([place.get(v, len(kept)) for v in values.tolist()], dtype=np.int64)
    return [*map(str, kept), OTHERS, MISSING], code


def _group(t: Treatment, column: str, level: str, rows: Bools, reference: Bools) -> Group:
    clusters = None if t.clusters is None else t.clusters[rows]
    chosen = (t.action == t.selected).astype(np.float64)
    selection, difference, ratio = _compared(chosen, rows, reference, t.clusters)
    tpr: Compared | tuple[None, None, None] = (None, None, None)
    fpr: Compared | tuple[None, None, None] = (None, None, None)
    if t.positive is not None:
        tpr = _compared(chosen, rows & t.positive, reference & t.positive, t.clusters)
        fpr = _compared(chosen, rows & ~t.positive, reference & ~t.positive, t.clusters)
    return Group(
        column=column,
        level=level,
        n=int(rows.sum()),
        reference=bool((rows == reference).all()),
        selected=t.actions[t.selected],
        value=estimate(t.payoff[rows], t.unit, clusters=clusters),
        shares={
            name: bounded((t.action[rows] == j).astype(np.float64), bounds=(0.0, 1.0), clusters=clusters)
            for j, name in enumerate(t.actions)
        },
        selection=selection,
        difference=difference,
        ratio=ratio,
        tpr=tpr[0],
        fpr=fpr[0],
        tpr_difference=tpr[1],
        fpr_difference=fpr[1],
    )


def _compared(chosen: Floats, rows: Bools, reference: Bools, clusters: Ints | None) -> Compared:
    """Return the mean of `chosen` over `rows`, its difference from that over `reference`, and their ratio.

    Difference and ratio are taken on pseudo-values over both groups at once, so that a cluster that lies in both counts once.
    """
    unknown = Estimate(np.nan, np.nan, np.nan)
    if not rows.any():
        return unknown, unknown, unknown
    rate = _rate(chosen[rows], None if clusters is None else clusters[rows])
    if not reference.any():
        return rate, unknown, unknown
    both = rows | reference
    units = None if clusters is None else clusters[both]
    here, there = _among(chosen[both], rows[both]), _among(chosen[both], reference[both])
    difference = bounded(here - there, bounds=(-1.0, 1.0), clusters=units)
    base = float(there.mean())
    if base == 0.0:
        return rate, difference, unknown
    quotient = float(here.mean()) / base
    return rate, difference, bounded(quotient + (here - quotient * there) / base, bounds=(0.0, np.inf), clusters=units)


def _rate(chosen: NDArray[Any], clusters: Ints | None) -> Estimate:
    return bounded(chosen.astype(np.float64), bounds=(0.0, 1.0), clusters=clusters)


def _among(x: Floats, rows: Bools) -> Floats:
    """Return pseudo-values (n,) of the mean of x over `rows`: the mean plus each row's influence on it, zero outside them."""
    mean, share = float(x[rows].mean()), float(rows.mean())
    return np.asarray(mean + np.where(rows, x - mean, 0.0) / share)
