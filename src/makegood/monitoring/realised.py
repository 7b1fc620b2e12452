"""What decisions promised and what they paid, by model and period, with intervals by unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from makegood.contracts import Bools, Estimate, Floats, Ints
from makegood.economics import resample, value
from makegood.monitoring.review import Period

BLOCKS = 250
"""Into so many blocks of units the rows of a large table are gathered before they are drawn again."""

_LARGE = 2_000  # rows of one figure, above which units are gathered in blocks


def blocks(unit: Ints) -> Ints:
    """Return the block (n,), 0 to 249, in which a unit and all its rows lie, by a hash of the unit (Fibonacci: Knuth 1973, §6.4).

    Sums over random blocks of independent units are independent, and mean, standard error and skewness/√n are as of the units
    (`resample.pool`); no sort of a million units is needed for it, and the blocks of all periods are the same.

    >>> units = np.arange(100_000)
    >>> counts = np.bincount(blocks(units))
    >>> len(counts), bool(counts.min() > 300), bool((blocks(units[::-1])[::-1] == blocks(units)).all())
    (250, True, True)
    """
    mixed = unit.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    return np.asarray((mixed >> np.uint64(40)) * np.uint64(BLOCKS) >> np.uint64(24), dtype=np.int64)


@dataclass(frozen=True)
class Money:
    """Decisions, all (n,): which `model` made each, as positions in a list of names, when (`at`, microseconds), about which `unit`, what
    it `promised`, what it `paid` by the rule for missing outcomes and with which `weight` (`maturity.settled`), and whether it is `due`.
    Where the weight is 0, and where it is not due, `paid` may be anything that is finite.
    """

    model: Ints
    at: Ints
    unit: Ints
    promised: Floats
    paid: Floats
    weight: Floats
    due: Bools


def earned(money: Money, unit: str = "", level: float = 0.95) -> tuple[Estimate, Estimate, Estimate]:
    """Return what the decisions that are due promised on average, what they paid, and the gap, paired; with intervals by unit.

    Payoff and gap, promised − paid, are Σw·x/Σw (Hájek 1971) and the promise is the mean over all that are due: the three add up where
    every weight is 1, and else but for how the decisions without an outcome differ. The intervals are made as by `value.estimate`, of
    more than 2,000 decisions by `blocks`. NaN where there is none of a weight.

    >>> n = np.arange(100)
    >>> [str(part) for part in earned(Money(n * 0, n, n, n + 1.0, n + 0.0, np.ones(100), n < 200), "EUR")]
    ['50.5 [44.9, 56.1] EUR', '49.5 [43.9, 55.1] EUR', '1 [1, 1] EUR']
    """
    rows = np.flatnonzero(money.due)
    sums, about = _sums(money, rows), money.unit[rows]
    return _figures(_gathered(sums, blocks(about) if len(rows) > _LARGE else _codes(about)), unit, level)


def periods(money: Money, names: Sequence[str], edges: Sequence[int], unit: str = "", *, bare: bool = False) -> tuple[Period, ...]:
    """Return a `Period` for each model and each stretch between two `edges`, microseconds, in which it decided; in order of time.

    `names` (n_models,) are those of the models. What is said of money is said of the decisions that are due, as in `earned`: of those that
    are not, the ones with an outcome are those that show early. `bare` figures have no intervals, which are most of the work.

    >>> n = np.arange(100)
    >>> found = periods(Money(n * 0, n, n, n + 1.0, n + 0.0, np.ones(100), n < 80), ["a"], [0, 50, 100])
    >>> [(p.start, p.n, p.matured, p.gap.value) for p in found]
    [(0, 50, 50, 1.0), (50, 50, 30, 1.0)]
    """
    cuts = np.asarray(edges, dtype=np.int64)
    n_cells = max(len(cuts) - 1, 0) * len(names)
    stretch = np.searchsorted(cuts, money.at, side="right") - 1
    inside = (stretch >= 0) & (stretch < len(cuts) - 1)
    cell = np.where(inside, stretch * len(names) + money.model, n_cells)
    made = np.bincount(cell, minlength=n_cells + 1)
    order = np.flatnonzero(inside & money.due)
    if (np.diff(cell[order]) < 0).any():
        order = order[np.argsort(cell[order], kind="stable")]
    ends = np.searchsorted(cell[order], np.arange(n_cells + 1))
    found = []
    for here in np.flatnonzero(made[:n_cells]).tolist():
        rows = order[ends[here] : ends[here + 1]]
        sums, about = _sums(money, rows), money.unit[rows]
        figures = _figures(_gathered(sums, blocks(about) if len(rows) > _LARGE else _codes(about)), unit, 0.95, bare=bare)
        time, who = divmod(here, len(names))
        found.append(Period(names[who], int(cuts[time]), int(cuts[time + 1]), int(made[here]), len(rows), *figures))
    return tuple(found)


def _codes(unit: Ints) -> Ints:
    return np.asarray(np.unique(unit, return_inverse=True)[1])


def _sums(money: Money, rows: Ints) -> tuple[Floats, ...]:
    """Return of each row: its promise and 1, w·paid, w·gap, and w."""
    promised, paid, weight = money.promised[rows], money.paid[rows], money.weight[rows]
    return promised, np.ones(len(rows)), weight * paid, weight * (promised - paid), weight


def _gathered(sums: tuple[Floats, ...], where: Ints) -> Floats:
    """Return the totals (n_units, 5) of each unit, or block of units."""
    return np.column_stack([np.bincount(where, weights=part) for part in sums])


def _figures(units: Floats, name: str, level: float, *, bare: bool = False) -> tuple[Estimate, Estimate, Estimate]:
    """Return promise, payoff and gap of the totals of units (n_units, 5)."""
    promised, paid, gap = (_ratio(units[:, part], name, level, bare=bare) for part in ((0, 1), (2, 4), (3, 4)))
    return promised, paid, gap


def _ratio(units: Floats, name: str, level: float, *, bare: bool) -> Estimate:
    """Return the ratio of the totals of `units` (n_units, 2), with the interval that `value.estimate` gives a mean over rows."""
    units = units[units[:, 1] > 0.0]
    if not len(units):
        return Estimate(np.nan, np.nan, np.nan, name, level)
    mean = float(units[:, 0].sum() / units[:, 1].sum())
    tail_limited = resample.skewed(units[:, 0] - mean * units[:, 1])
    if bare or len(units) < value.FEWEST:
        low = high = np.nan
    elif resample.effective(units[:, 1]) < value.FEW:
        reach = value.critical(units[:, 1], level) * float(np.sqrt(resample.jackknife(units)[1][0, 0]))
        low, high = mean - reach, mean + reach
    else:
        low, high = resample.studentised(resample.pool(units, seed=0), level=level, seed=0)
    return Estimate(mean, low, high, name, level, tail_limited)
