"""Why a decision came out as it did, in money: sampled Shapley values over source columns (MATHEMATICS §12).

The game. The players are the row's columns. A coalition's worth is the margin of the chosen action over the best other one when
the coalition's columns hold the row's own values and the others a background row's, averaged over the background. A column's
reason is its Shapley value in that game: its mean effect on the margin over all orders in which the columns can be switched from
the background to the row (Štrumbelj & Kononenko 2014, algorithm 1).

Protected columns do not play. They keep the row's own values throughout, so that the row is compared with a background that
shares them: no reason can name them, and none carries their effect in disguise. The reasons still sum to the row's margin minus
the mean margin of that background.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import compress

import numpy as np

from makegood.contracts import Bools, Columns, Floats, Ints, rows_of

Margin = Callable[[Columns], Floats]
"""The margin (n,) in money of each row of a columnar batch."""

EXACT = 8  # columns up to which every coalition is tried
SAMPLES = 128  # orders tried beyond that: both directions of 64
EVALUATIONS = 4096  # of the margin at most, for one row
_CHUNK = 8192  # rows in one call of the margin: bounds the memory


@dataclass(frozen=True)
class Explanation:
    """What each column did to the margin: `money` (n_columns,) sums to `margin` − `background`.

    `error` (n_columns,) is the standard error of sampling, zero when `exact`: every coalition was tried. `evaluations` counts the
    rows that the margin was computed on.
    """

    columns: tuple[str, ...]
    money: Floats
    error: Floats
    margin: float
    background: float
    evaluations: int
    exact: bool

    def top(self, k: int) -> tuple[tuple[str, float], ...]:
        """Return the k columns that moved the margin most, with the money; columns that did nothing are left out."""
        order = np.argsort(-np.abs(self.money), kind="stable")[:k]
        return tuple((self.columns[j], float(self.money[j])) for j in order if self.money[j] != 0.0)


def reasons(
    margin: Margin,
    row: Columns,
    background: Columns,
    *,
    protected: Collection[str] = (),
    n_samples: int = SAMPLES,
    evaluations: int = EVALUATIONS,
    seed: int = 0,
) -> Explanation:
    """Return the Shapley value in money of each column of `row` that is not protected.

    `row` holds one row, `background` n_background ≥ 1 rows of the same columns. A column matters when the row's value differs
    from some background value. With at most `EXACT` columns that matter, every coalition is tried if that takes no more than
    `evaluations`; else `n_samples` orders in antithetic pairs (an order and its reverse, on one background row), spread evenly
    over the background, and fewer where `evaluations` says so: a budget of evaluations, since one of seconds would give the
    same row other reasons on a busy day.

    Sampled values miss the exact sum when not every background row was used equally often; the difference is divided in
    proportion to each column's sampling variance, the least change in units of its own error, so that a column without effect
    keeps its zero (equally where no column varied).

    >>> explained = reasons(lambda c: 2 * c["a"] + c["b"], {"a": np.array([3.0]), "b": np.array([1.0])},
    ...                     {"a": np.array([0.0, 2.0]), "b": np.array([1.0, 1.0])})
    >>> explained.columns, explained.money.tolist(), explained.margin - explained.background
    (('a', 'b'), [4.0, 0.0], 4.0)
    """
    n_background = rows_of(background)
    if n_background == 0 or rows_of(row) != 1:
        raise ValueError("reasons need exactly one row, and at least one background row")
    columns = tuple(name for name in row if name not in protected)
    differs = _differs(row, background, columns)
    matter: Bools = np.any(differs, axis=0)
    players = int(matter.sum())
    game = _Game(margin, row, background, tuple(compress(columns, matter)), differs[:, matter])
    if exact := players <= EXACT and n_background << players <= max(evaluations, n_background):
        ends, value = _enumerate(game)
        spread: Floats = np.zeros(players)
    else:  # an order takes players − 1 evaluations: its first is a background row's, its last the row's own
        affordable = (evaluations - n_background - 1) // max(players - 1, 1)
        ends, value, spread = _walk(game, pairs=max(min(n_samples, affordable) // 2, 2), seed=seed)
    money, error = np.zeros(len(columns)), np.zeros(len(columns))
    money[matter], error[matter] = value, spread
    return Explanation(columns, money, error, ends[0], ends[1], game.evaluations, exact)


def drivers(explanations: Iterable[Explanation]) -> tuple[tuple[str, float], ...]:
    """Return each column with the mean size of its reasons over the explained rows, in money, largest first.

    Sampling errors make sizes larger, the more so the fewer the orders: the mean is multiplied by the root of that share of the
    mean square which is no sampling error (exact where the errors only stretch the distribution of the sizes).

    >>> drivers([Explanation(("a", "b"), np.array([1.0, -3.0]), np.zeros(2), 0.0, 2.0, 4, True)])
    (('b', 3.0), ('a', 1.0))
    """
    explained = list(explanations)
    if not explained:
        return ()
    money, error = (np.array([getattr(e, name) for e in explained]) for name in ("money", "error"))
    square, noise = (money**2).mean(axis=0), (error**2).mean(axis=0)
    mean = np.abs(money).mean(axis=0) * np.sqrt(np.maximum(0.0, 1.0 - noise / np.where(square > 0, square, 1.0)))
    return tuple((explained[0].columns[j], float(mean[j])) for j in np.argsort(-mean, kind="stable"))


class _Game:
    """The worth of coalitions: `players` (d,) that matter, `differs` (n_background, d) where their value is not the background's."""

    def __init__(self, margin: Margin, row: Columns, background: Columns, players: tuple[str, ...], differs: Bools) -> None:
        self.margin, self.row, self.background, self.players, self.differs = margin, row, background, players, differs
        self.evaluations = 0

    def worth(self, own: Bools, base: Ints) -> Floats:
        """Return the margin (n,) with the row's value where `own` (n, d) is true and that of background row `base` (n,) elsewhere."""
        own = own & self.differs[base]
        whole = (own == self.differs[base]).all(axis=1)  # the row itself, on whichever background row
        base = np.where(whole, 0, base)
        own = np.where(whole[:, None], True, own)
        state = np.column_stack([base.astype("<u4").view(np.uint8).reshape(-1, 4), np.packbits(own, axis=1)])
        _, first, back = np.unique(state.view(f"V{state.shape[1]}").ravel(), return_index=True, return_inverse=True)
        self.evaluations += len(first)
        parts = [self._margins(own[at], base[at]) for at in np.split(first, range(_CHUNK, len(first), _CHUNK))]
        return np.concatenate(parts)[back]

    def _margins(self, own: Bools, base: Ints) -> Floats:
        batch = {name: np.repeat(values, len(base)) for name, values in self.row.items()}
        for j, name in enumerate(self.players):
            batch[name] = np.where(own[:, j], batch[name], self.background[name][base])
        return np.asarray(self.margin(batch), dtype=np.float64)


def _differs(row: Columns, background: Columns, columns: tuple[str, ...]) -> Bools:
    """Return (n_background, n_columns): where the background's value is another than the row's; missing equals missing."""
    out = np.empty((rows_of(background), len(columns)), dtype=bool)
    for j, name in enumerate(columns):
        own, others = row[name], background[name]
        out[:, j] = own != others
        if others.dtype.kind == "f":
            out[:, j] &= ~(np.isnan(own) & np.isnan(others))
    return out


def _enumerate(game: _Game) -> tuple[tuple[float, float], Floats]:
    """Return (margin, background margin) and the exact Shapley values (d,), by Shapley's (1953) definition."""
    d, n = len(game.players), len(game.differs)
    codes = np.arange(1 << d)
    own = (codes[:, None] >> np.arange(d)) & 1 == 1
    worth = game.worth(np.repeat(own, n, axis=0), np.tile(np.arange(n), 1 << d)).reshape(-1, n).mean(axis=1)
    size = own.sum(axis=1)
    weight = np.array([1.0 / (d * _choose(d - 1, s)) for s in range(d)])
    value = np.empty(d)
    for j in range(d):
        without = codes[~own[:, j]]
        value[j] = np.sum(weight[size[without]] * (worth[without | 1 << j] - worth[without]))
    return (float(worth[-1]), float(worth[0])), value


def _choose(n: int, k: int) -> int:
    out = 1
    for i in range(k):
        out = out * (n - i) // (i + 1)
    return out


def _walk(game: _Game, *, pairs: int, seed: int) -> tuple[tuple[float, float], Floats, Floats]:
    """Return (margin, background margin), the sampled Shapley values (d,), made to sum to their difference, and their errors (d,)."""
    rng = np.random.default_rng(seed)
    d, n = len(game.players), len(game.differs)
    rank = rng.permuted(np.tile(np.arange(d), (pairs, 1)), axis=1)  # (pairs, d): when each column is switched
    rank = np.stack([rank, d - 1 - rank], axis=1).reshape(-1, d)
    base = np.repeat(np.resize(rng.permutation(n), pairs), 2)
    own = rank[:, None, :] < np.arange(d + 1)[None, :, None]  # (walks, steps, d)
    starts = np.zeros((n, d), dtype=bool)
    worth = game.worth(np.concatenate([own.reshape(-1, d), starts]), np.concatenate([np.repeat(base, d + 1), np.arange(n)]))
    margin, background = float(worth[d]), float(worth[-n:].mean())
    step = np.diff(worth[:-n].reshape(-1, d + 1), axis=1)
    moved = np.take_along_axis(step, rank, axis=1).reshape(pairs, 2, d).mean(axis=1)  # (pairs, d)
    value, variance = moved.mean(axis=0), moved.var(axis=0, ddof=1) / pairs
    weight = variance if variance.any() else np.ones(d)  # nothing varied among the sampled rows, and yet may among the others
    share = weight / weight.sum()
    value = value + (margin - background - value.sum()) * share
    return (margin, background), value, np.sqrt(variance * (1.0 - share))  # what is left when the sum of independent errors is known
