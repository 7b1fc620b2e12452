"""Drift, in money: which columns are no longer as they were, and how much of the mean promise each of them moved.

The *stake* of a column is the change of the mean promise that its own move explains: Σ over its bins of (share now − share then) ·
(mean promise of the bin then), the reference rows reweighted to the column's distribution now (DiNardo, Fortin & Lemieux 1996,
one column at a time). It needs no scoring. Columns that go together share what they explain, so stakes do not add up.

A column's interval is its own, at its level: of twenty columns that did not move, one in twenty shows one without zero. So nothing is
raised on it: alarms are the promise test's. What is said in words is corrected for all columns at once (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from makegood.contracts import Estimate, Floats, Ints
from makegood.economics import resample, value
from makegood.monitoring.reference import Bins, Column, Profile, Reference, as_column, blocks, check_length, check_promise
from makegood.monitoring.review import Moved


def drift(
    reference: Reference,
    columns: Mapping[str, Any],
    promise: Floats,
    unit: str = "",
    *,
    units: Ints | None = None,
    level: float = 0.95,
) -> tuple[Moved, ...]:
    """Return how each column of the reference moved, the most money that is surely at stake first.

    `columns` are those of n rows that the bundle decided (see `reference.Column`; "" is the prediction; those that the reference does
    not know are passed over, and a column of its that is not given is left out); `promise` (n,) what was promised on them, and
    `units` (n,) the entity of each. Money is ranked by the nearer end of its interval, then by its size. Where values may be missing,
    the column has two entries: its present values, and "missing"; their stakes add up to the whole column's. Raises `DataError`.

    >>> from makegood.monitoring.reference import refer
    >>> then = refer({"age": np.arange(1000.0)}, np.arange(1000.0))
    >>> found = drift(then, {"age": np.arange(1000.0) / 2}, np.arange(1000.0) / 2, "EUR")[0]
    >>> print(found.column, found.kind, round(found.stake.value), round(found.distance, 1))
    age number -250 0.4
    """
    promise = check_promise(promise)
    n = len(promise)
    if not n:
        return ()
    block, count = blocks(units, n)
    size = np.bincount(block, minlength=count).astype(np.float64)
    known = [profile for profile in reference.columns if profile.column in columns]
    found: list[Moved] = []
    for profile in known:
        column = as_column(columns[profile.column])
        check_length(profile.column, column, n)
        found += _moved(profile, column, _Now(promise, block, size), Estimate(0, 0, 0, unit, level), len(known))
    return tuple(sorted(found, key=_surely, reverse=True))


def _surely(moved: Moved) -> tuple[float, float]:
    stake = moved.stake
    nearer = max(0.0, float(np.nan_to_num(stake.low)), -float(np.nan_to_num(stake.high)))
    return nearer, abs(stake.value)


class _Now:
    """The rows that are reviewed, counted by block and bin."""

    def __init__(self, promise: Floats, block: Ints, size: Floats) -> None:
        self.promise, self.block, self.size = promise, block, size

    def count(self, bin: Ints, then: Bins) -> tuple[Floats, Floats]:
        """Return the rows of each block in each bin, and the mean promise of each bin: leaving out each block, and with all.

        Both (n_blocks + 1, n_bins); the last row is of all blocks. Where the reference has no row in a bin, its mean is that of now.
        """
        blocks_, bins = len(self.size), len(then.rows)
        place = self.block * bins + bin
        each = np.bincount(place, minlength=blocks_ * bins).reshape(blocks_, bins).astype(np.float64)
        rows = np.vstack([each.sum(axis=0) - each, each.sum(axis=0)])
        mean = np.broadcast_to(np.array(then.promise), rows.shape)
        strange = np.array(then.rows) == 0
        if (rows[-1, strange] > 0).any():
            money = np.bincount(place, self.promise, blocks_ * bins).reshape(blocks_, bins)
            now = np.vstack([money.sum(axis=0) - money, money.sum(axis=0)]) / np.maximum(rows, 1.0)
            mean = np.where(strange, now, mean)
        return rows, mean


def _moved(profile: Profile, column: Column, now: _Now, like: Estimate, among: int) -> Iterator[Moved]:
    """Yield what moved of one column; a vector's stake is along its first direction, its distance the mean over all of them."""
    places = profile.place(column)
    counted = [now.count(bin, then) for bin, then in zip(places, profile.bins, strict=True)]
    distances = [_distance(then, rows) for then, (rows, _) in zip(profile.bins, counted, strict=True)]
    then, (rows, mean) = profile.bins[0], counted[0]
    share = rows / np.maximum(rows.sum(axis=1, keepdims=True), 1.0)
    gone, went = share[:, -1], float(then.share[-1])
    if share[-1, -1] < 1 and went < 1:
        inside, old = share[:, :-1] / np.maximum(1.0 - gone, 1e-300)[:, None], then.share[:-1] / (1.0 - went)
        base = float(old @ np.array(then.promise[:-1]))
        stake = (1.0 - gone) * ((inside * mean[:, :-1]).sum(axis=1) - base)
        ratio = np.divide(inside[-1], old, out=np.ones_like(old), where=old > 0)
        ups = old @ ((ratio - 1.0) ** 2 * np.square(then.spread[:-1]) + (np.array(then.promise[:-1]) - base) ** 2)
        error = float((1.0 - gone[-1]) ** 2 / (1.0 - went) * ups / then.effective)
        most = int(np.argmax(np.abs(inside[-1] - old)))
        words = f"{profile.name(most)}: {old[most]:.1%} → {inside[-1, most]:.1%}"
        yield _entry(profile, profile.kind, (stake, error, words), (now, like, among), float(np.mean(distances)))
    if went > 0 or gone[-1] > 0:
        inner, total = np.array(then.rows[:-1]), max(sum(then.rows[:-1]), 1)
        base = float(inner @ np.array(then.promise[:-1]) / total)
        within = float(inner @ (np.square(then.spread[:-1]) + (np.array(then.promise[:-1]) - base) ** 2) / total)
        apart, more = mean[:, -1] - base, gone - went
        lost = then.spread[-1] ** 2 / went if went > 0 else 0.0
        kept = within / (1.0 - went) if went < 1 else 0.0
        error = float((apart[-1] ** 2 * went * (1.0 - went) + more[-1] ** 2 * (lost + kept)) / then.effective)
        words = f"missing: {went:.1%} → {gone[-1]:.1%}"
        yield _entry(profile, "missing", (more * apart, error, words), (now, like, among), float(abs(more[-1])))


def _entry(profile: Profile, kind: str, found: tuple[Floats, float, str], at: tuple[_Now, Estimate, int], distance: float) -> Moved:
    """Return one entry: `found` is the stake without each block and with all, the reference's share of its variance, and words."""
    (stake, error, words), (now, like, among) = found, at
    amount, effective = float(stake[-1]), resample.effective(now.size)
    low = high = np.nan
    if effective >= value.FEWEST:
        without = stake[:-1]
        spread = float(np.sqrt(((without - without.mean()) ** 2).sum() * (len(without) - 1) / len(without) + error))
        reach = value.critical(now.size, like.level) * spread
        low, high = amount - reach, amount + reach
        sure = abs(amount) > value.critical(now.size, 1.0 - (1.0 - like.level) / among) * spread
        words += "; more than chance does" if sure else "; chance among so many columns may do as much"
        words += f" ({among} looked at)"
    return Moved(profile.column, kind, Estimate(amount, low, high, like.unit, like.level), distance, words)


def _distance(then: Bins, rows: Floats) -> float:
    """Return the total variation between two distributions over bins, above what sampling alone makes of it on average; 0 to 1."""
    share = rows / np.maximum(rows.sum(axis=1, keepdims=True), 1.0)
    without = share[:-1]
    now = ((without - without.mean(axis=0)) ** 2).sum(axis=0) * (len(without) - 1) / max(len(without), 1)
    noise = np.sqrt(2.0 / np.pi * (now + then.share * (1.0 - then.share) / then.effective))  # E|N(0, v)|
    return float(max(0.0, 0.5 * (np.abs(share[-1] - then.share) - noise).sum()))
