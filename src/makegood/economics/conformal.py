"""Quantiles that hold their share of outcomes: conformal offsets (MATHEMATICS §13).

Each level has an offset, the quantile of outcome − predicted quantile over rows that served nothing else; predicted quantiles move
by it and are sorted again. For exchangeable rows the outcome then lies below the level-α quantile with probability α, give or take
one row's weight, whatever the model (Romano, Patterson & Candès 2019, §3, one side at a time). Coverage is marginal: over all
rows, not for each kind of row, and out of time it is reported, not promised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from makegood.contracts import Floats, Ints


@dataclass(frozen=True, eq=False)
class Conformal:
    """Offsets of predicted quantiles: (n_levels,), or (horizon, n_levels) over a horizon. `n` tells the rows (or groups) behind.

    >>> Conformal(np.array([-1.0, 0.0, 1.0])).apply(np.array([[1.0, 2.0, 3.0]])).tolist()
    [[0.0, 2.0, 4.0]]
    """

    offsets: Floats
    n: int = 0

    def apply(self, q: Floats) -> Floats:
        """Return the quantiles, shape of `q`, moved and in order (Chernozhukov, Fernández-Val & Galichon 2010)."""
        return np.sort(np.asarray(q, dtype=np.float64) + self.offsets, axis=-1)

    def to_json(self) -> dict[str, Any]:
        """Return plain data from which `from_json` makes the same offsets."""
        return {"offsets": self.offsets.tolist(), "n": self.n}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Conformal:
        """Return the offsets of `to_json`."""
        return cls(np.asarray(raw["offsets"], dtype=np.float64), int(raw["n"]))


def fit_conformal(q: Floats, y: Floats, levels: tuple[float, ...], *, clusters: Ints | None = None) -> Conformal:
    """Return the offsets at which each predicted quantile held its share of the outcomes.

    `q` (n, n_levels) or (n, horizon, n_levels), `y` (n,) or (n, horizon) with NaN where unknown; rows used for nothing else. With
    `clusters` (n,) each group weighs the same, since groups are exchangeable and rows of one are not (Lee, Barber & Willett 2023).
    Levels below one half err low and those above err high, so that the interval between two covers at least its share. A level
    beyond what the rows can show takes the outermost of them; no rows, no offset.

    >>> y = np.arange(1.0, 100.0)
    >>> fit_conformal(np.zeros((99, 3)), y, (0.05, 0.5, 0.95)).offsets.tolist()
    [5.0, 50.0, 95.0]
    """
    q, y = np.asarray(q, dtype=np.float64), np.asarray(y, dtype=np.float64)
    miss = y[..., None] - q
    group = np.arange(len(y)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    flat = miss.reshape(len(y), -1)
    each = np.tile(levels, flat.shape[1] // len(levels))
    offsets = [_quantile(flat[:, j], group, level) for j, level in enumerate(each)]
    return Conformal(np.array(offsets).reshape(q.shape[1:]), len(np.unique(group)))


def _quantile(miss: Floats, group: Ints, level: float) -> float:
    """Return the level-quantile of the misses, where one group more, not yet seen, holds its share of the weight."""
    known = np.isfinite(miss)
    miss, group = miss[known], group[known]
    if not len(miss):
        return 0.0
    order = np.argsort(miss, kind="stable")
    size = np.bincount(group)
    below = np.cumsum(1.0 / size[group[order]]) / (np.count_nonzero(size) + 1)
    slack = 1e-9  # 19 · (1/20) is not quite .95
    first = int(np.searchsorted(below, level - slack))  # the least with at least `level` at or below it
    last = int(np.searchsorted(below, level + slack, side="right")) - 1  # the greatest with at most `level` at or below it
    low, high = (float(miss[order[int(np.clip(i, 0, len(miss) - 1))]]) for i in (last, first))
    return low if level < 0.5 else high if level > 0.5 else (low + high) / 2.0
