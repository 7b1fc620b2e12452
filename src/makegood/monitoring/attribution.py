"""Why the money changed between two periods: a Shapley split over six causes, with intervals (MATHEMATICS §8).

The value of decisions is a function of six things, each of which may be the earlier period's or the later one's: the mix of rows, the
world (outcomes given row and action), the model, the policy, the terms (payoffs), and operations (what is done, given what was
decided). These are 2⁶ = 64 cells, each estimated from the rows of both periods; a cause gets the mean, over all orders of changing
them one by one, of what its own change does (Shapley 1953). What the cells do not account for stays unexplained, and is said.

A cell of mix t and world w is doubly robust to the shift between them: the mean over the rows of t of q̂_w, plus what the rows of w
say q̂_w got wrong, reweighted stratum by stratum to the mix of t. With w = t it is the estimator of §3; where the outcome does not
depend on the action it is each row's own outcome, on the rows of w. It is right if either q̂ is, or the strata hold what moved
(compare Quintas-Martínez, Bahadori, Santiago, Mu & Heckerman 2024).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from makegood.contracts import Estimate, Floats, Ints
from makegood.economics import resample, value
from makegood.errors import DataError, Problem
from makegood.monitoring.review import CAUSES, Attribution

MOST = 1_000
"""Strata times pairs (decided, done) that are worked with."""

_REPETITIONS, _BLOCKS, _CELLS = 499, 500, 1 << 23


@dataclass(frozen=True, eq=False)
class Rows:
    """A period's matured rows, or a sample of them by unit; index 0 means as in the earlier period, 1 as in the later one.

    `span` is (start, end). `units` (n,) name entities, of both periods alike. `stratum` (n,) counts from 0; see `stratify`. `decided`
    (2, 2, n) is the option that each model chose under each policy; `done` (n,) what was done, `paid` (n,) what it paid, missing
    outcomes filled by the declared rule. `expected` (2, 2, n, n_options) is q̂: what each option is expected to pay in each world under
    each terms. `payoffs` (2, n, n_options) is what it did pay under each terms, where `known` (n, n_options) is not 0: 1 where the
    outcome tells it for certain, 1/chance of its being known where that was left to chance (§3).
    """

    span: tuple[int, int]
    units: Ints
    stratum: Ints
    decided: Ints
    done: Ints
    paid: Floats
    expected: Floats
    payoffs: Floats
    known: Floats

    def __len__(self) -> int:
        return len(self.done)


def stratify(before: Floats, after: Floats, strata: int = 8) -> tuple[Ints, Ints]:
    """Return the stratum of each row of two periods, by a score (what the model expects, say): quantiles of both together.

    >>> [s.tolist() for s in stratify(np.array([1.0, 2.0]), np.array([3.0, 4.0]), 2)]
    [[0, 0], [1, 1]]
    """
    edges = np.unique(np.quantile(np.concatenate([before, after]), np.arange(1, strata) / strata))
    return np.searchsorted(edges, before, side="right"), np.searchsorted(edges, after, side="right")


def shapley(cells: Floats) -> Floats:
    """Return what each of k causes contributes (…, k), of the values (…, 2, 2, … 2) of all combinations; they add up to the whole change.

    φ_j = Σ_S |S|!(k − |S| − 1)!/k! · (v(S ∪ j) − v(S)) over the subsets S without j (Shapley 1953). The last k = 6 axes are causes.

    >>> cells = np.arange(2.0).reshape(2, 1, 1, 1, 1, 1) * np.arange(2.0).reshape(2, 1, 1, 1, 1) + np.zeros((2,) * 6)
    >>> shapley(cells).tolist()
    [0.5, 0.5, 0.0, 0.0, 0.0, 0.0]
    """
    k = len(CAUSES)
    weight = _weights(k)
    parts = []
    for j in range(k):
        step = np.diff(cells, axis=j - k).squeeze(axis=j - k)
        parts.append((step * weight).sum(axis=tuple(range(-(k - 1), 0))))
    return np.stack(parts, axis=-1)


def _weights(k: int) -> Floats:
    """Return |S|!(k − |S| − 1)!/k! for each subset S of the other causes: (2, … 2), k − 1 axes."""
    weight = np.array([math.factorial(s) * math.factorial(k - 1 - s) / math.factorial(k) for s in range(k)])
    return np.asarray(weight[np.indices((2,) * (k - 1)).sum(axis=0)])


def attribute(
    before: Rows, after: Rows, unit: str = "", *, bounds: tuple[float, float] | None = None, level: float = 0.95, seed: int = 0
) -> Attribution:
    """Return why `after` paid otherwise than `before`, a decision: each cause's share with its interval, and what is unexplained.

    Intervals are by a Bayesian bootstrap over units (Rubin 1981), in which everything is estimated again but q̂, stretched to Student's t
    for few of them; NaN under six. Where an option was never tried in a stratum of a world, q̂ alone would speak: with
    `bounds` (the least and the most that a decision may pay) intervals are widened by all that such rows may hide; without, the words
    name their share. Raises `DataError` on arrays that do not fit, or with too many options.
    """
    sides = (before, after)
    for name, rows in zip(("before", "after"), sides, strict=True):
        _check(name, rows, before.expected.shape[-1])
    strata = 1 + max(int(rows.stratum.max()) for rows in sides)
    pairs = _pairs(sides, strata)
    counts = _Counts(sides, strata, pairs)
    drawn = np.random.default_rng(seed).standard_exponential((_REPETITIONS, counts.blocks))
    weights = np.vstack([np.ones(counts.blocks), drawn])
    cells, paid = counts.cells(weights)
    change = paid[:, 1] - paid[:, 0]
    causes = shapley(cells)
    hidden = counts.unsupported()
    room = np.zeros(len(CAUSES)) if bounds is None else _room(hidden) * (bounds[1] - bounds[0])
    figures = np.column_stack([change, causes, change - causes.sum(axis=1)])
    whole, *shares, rest = (
        _estimate(figures[:, j], counts.effective, extra, Estimate(0, 0, 0, unit, level))
        for j, extra in enumerate([0.0, *room.tolist(), float(room.sum())])
    )
    named = dict(zip(CAUSES, shares, strict=True))
    return Attribution(before.span, after.span, whole, named, rest, words(whole, named, rest, float(hidden.max()), bounds is not None))


def _check(name: str, rows: Rows, options: int) -> None:
    """Raise `DataError` where the arrays of a period do not fit each other."""
    n = len(rows)
    if not n:
        raise DataError(Problem(f"attribution, {name}", "no rows", "matured decisions in both periods", "wait, or compare longer periods"))
    shapes: dict[str, tuple[int, ...]] = {
        "units": (n,), "stratum": (n,), "decided": (2, 2, n), "paid": (n,),
        "expected": (2, 2, n, options), "payoffs": (2, n, options), "known": (n, options),
    }  # fmt: skip
    for part, shape in shapes.items():
        if (got := np.shape(getattr(rows, part))) != shape:
            raise DataError(Problem(f"attribution, {name}.{part}", f"shape {got}", f"shape {shape}", "give one for each row"))
    for part in ("decided", "done", "stratum"):
        codes = getattr(rows, part)
        if codes.min() < 0 or (part != "stratum" and codes.max() >= options):
            raise DataError(Problem(f"attribution, {name}.{part}", f"{codes.min()} to {codes.max()}", "positions from 0 on", "see `Rows`"))
    known = np.asarray(rows.known)
    finite = np.isfinite(rows.paid).all() and np.isfinite(rows.expected).all() and np.isfinite(known).all()
    if not (finite and (known >= 0).all() and np.isfinite(np.where(known > 0, rows.payoffs, 0.0)).all()):
        raise DataError(Problem(f"attribution, {name}", "a payoff that is not finite", "numbers", "leave out rows without a payoff"))


def _pairs(sides: tuple[Rows, Rows], strata: int) -> Ints:
    """Return the number of each pair (decided, done) (n_options, n_options), −1 for those that nobody met; raises `DataError`."""
    options = sides[0].expected.shape[-1]
    met = np.zeros((options, options), dtype=np.bool_)
    for t, rows in enumerate(sides):
        chosen = np.unique(rows.decided)
        met[chosen, chosen] = True
        met[rows.decided[t, t], rows.done] = True
    number = np.where(met, np.cumsum(met).reshape(met.shape) - 1, -1)
    if (number.max() + 1) * strata > MOST:
        got = f"{number.max() + 1} pairs of an option decided and one done, in {strata} strata"
        raise DataError(Problem("attribution", got, f"{MOST} in all", "merge options (quantities into coarser steps) or strata"))
    return number


class _Counts:
    """Totals by block of units, from which all cells are made again at any weights of the blocks.

    Axes: b block, t period, m model, p policy, w world, k terms, s stratum, q pair (decided, done).
    """

    def __init__(self, sides: tuple[Rows, Rows], strata: int, pairs: Ints) -> None:
        self.strata, self.count = strata, int(pairs.max()) + 1
        self._decided_of, self._done_of = np.divmod(np.flatnonzero(pairs.ravel() >= 0), len(pairs))
        entity = np.unique(np.concatenate([rows.units for rows in sides]), return_inverse=True)[1]
        size = np.bincount(entity).astype(np.float64)
        self.effective = resample.effective(size)
        width = strata * self.count
        most = max(64, min(_BLOCKS, _CELLS // (48 * width)))
        dealt = np.random.default_rng(0).permutation(len(size)) % most
        self.blocks = min(most, len(size))
        block = (dealt if len(size) > most else np.arange(len(size)))[entity]
        blocks = np.split(block, [len(sides[0])])
        shape = (self.blocks, strata, self.count)
        self.model = np.zeros((2, 2, 2, 2, 2, *shape))  # t m p w k: Σ q̂
        self.wrong = np.zeros((2, 2, 2, 2, *shape))  # w m p k: Σ known · (payoff − q̂)
        self.tried = np.zeros((2, strata, len(pairs)))  # w: Σ known by option
        self.cases = np.zeros((2, 2, 2, *shape))  # t m p: rows
        self.done = np.zeros((2, *shape))  # t: rows in which the pair was decided and done
        self.size, self.paid = np.zeros((2, self.blocks, strata)), np.zeros((2, self.blocks))
        for t, (rows, at) in enumerate(zip(sides, blocks, strict=True)):
            cell = at * strata + rows.stratum
            self.size[t] = np.bincount(cell, minlength=self.blocks * strata).reshape(self.blocks, strata)
            self.paid[t] = np.bincount(at, rows.paid, self.blocks)
            pair = pairs[rows.decided[t, t], rows.done]
            self.done[t] = np.bincount(cell * self.count + pair, minlength=self.blocks * width).reshape(shape)
            for option in range(len(pairs)):
                self.tried[t, :, option] = np.bincount(rows.stratum, rows.known[:, option], strata)
            self._add(t, rows, cell, pairs)

    def _add(self, t: int, rows: Rows, cell: Ints, pairs: Ints) -> None:
        """Add a period's rows to what each model and policy would have had done."""
        shape = self.done.shape[1:]
        missed = np.where(rows.known > 0, rows.known * (np.where(rows.known > 0, rows.payoffs, 0.0) - rows.expected[t]), 0.0)
        for m, p in np.ndindex(2, 2):
            for option in range(len(pairs)):
                pair = pairs[rows.decided[m, p], option]
                met = np.flatnonzero(pair >= 0)
                if not len(met):
                    continue
                place, length = cell[met] * self.count + pair[met], math.prod(shape)
                self.cases[t, m, p] += np.bincount(place, minlength=length).reshape(shape)
                for k in range(2):
                    self.wrong[t, m, p, k] += np.bincount(place, missed[k, met, option], length).reshape(shape)
                    for w in range(2):
                        self.model[t, m, p, w, k] += np.bincount(place, rows.expected[w, k, met, option], length).reshape(shape)

    def follows(self, done: Floats) -> Floats:
        """Return P(done | decided, stratum) (…, strata, pairs) of counts (…, strata, pairs).

        Where an option was never decided in a stratum, as in all strata; where it never was at all, it is done as decided.
        """
        of = (self._decided_of[:, None] == self._decided_of).astype(np.float64)
        by_stratum, overall = done @ of, done.sum(axis=-2, keepdims=True)
        everywhere = np.divide(overall, overall @ of, out=np.zeros_like(overall), where=overall @ of > 0)
        as_decided = (self._decided_of == self._done_of).astype(np.float64)
        everywhere = np.where(overall @ of > 0, everywhere, as_decided)
        return np.where(by_stratum > 0, done / np.where(by_stratum > 0, by_stratum, 1.0), everywhere)

    def cells(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return the cells (r, 2, 2, 2, 2, 2, 2) in the order of `CAUSES`, and what both periods paid (r, 2), at weights (r, blocks)."""

        def weighed(totals: Floats) -> Floats:
            flat = np.moveaxis(totals, -3, 0)
            return np.asarray((weights @ flat.reshape(len(flat), -1)).reshape(len(weights), *flat.shape[1:]))

        size = np.einsum("rb,tbs->rts", weights, self.size)
        rows = size.sum(axis=2)
        chance = self.follows(weighed(self.done))  # r o s q
        share = size / rows[:, :, None]
        lift = np.divide(share[:, :, None], size[:, None], out=np.zeros((*share.shape[:2], 2, self.strata)), where=size[:, None] > 0)
        modelled = (
            np.einsum("rtmpwksq,rosq->rtwmpko", weighed(self.model), chance, optimize=True) / rows[:, :, None, None, None, None, None]
        )
        put_right = np.einsum("rtws,rwmpksq,rosq->rtwmpko", lift, weighed(self.wrong), chance, optimize=True)
        return np.asarray(modelled + put_right), np.einsum("rb,tb->rt", weights, self.paid) / rows

    def unsupported(self) -> Floats:
        """Return the share (2, 2, 2, 2, 2, 2) of each cell's rows on which an option is done that its world never showed in the stratum."""
        strange = (self.tried == 0)[:, :, self._done_of].astype(np.float64)  # w s q
        chance, cases = self.follows(self.done.sum(axis=1)), self.cases.sum(axis=3)
        rows = self.size.sum(axis=(1, 2))
        share = np.einsum("tmpsq,wsq,osq->twmpo", cases, strange, chance) / rows[:, None, None, None, None]
        return np.asarray(np.broadcast_to(share[:, :, :, :, None, :], (2,) * 6))


def _room(hidden: Floats) -> Floats:
    """Return by how much of the payoffs' range each cause may be off: Σ |Shapley weight| · hidden share, over its cells."""
    return np.array([float((hidden.sum(axis=j) * _weights(hidden.ndim)).sum()) for j in range(hidden.ndim)])


def _estimate(figures: Floats, units: float, extra: float, like: Estimate) -> Estimate:
    """Return the first figure with the interval of the others about it, widened by `extra` either way."""
    amount = float(figures[0])
    if units < value.FEWEST:
        return Estimate(amount, np.nan, np.nan, like.unit, like.level)
    from scipy.special import ndtri

    tail = (1.0 - like.level) / 2.0
    stretch = value.critical(np.ones(int(units)), like.level) / float(ndtri(1.0 - tail)) * math.sqrt((units + 1.0) / (units - 1.0))
    low, high = (float(end) for end in np.quantile(figures[1:] - amount, [tail, 1.0 - tail]))
    return Estimate(amount, amount + min(low, 0.0) * stretch - extra, amount + max(high, 0.0) * stretch + extra, like.unit, like.level)


# ------------------------------------------------------------------------------------------------------------------ words

_SAID: Mapping[str, tuple[str, str]] = {
    "mix": ("other rows came", "see under drift which columns moved"),
    "world": ("like rows, treated alike, turned out otherwise", "train again on newer outcomes"),
    "model": ("another model decided", "go back to the earlier model if this is a loss"),
    "policy": ("the same predictions led to other actions", "look at what changed in the limits and their prices"),
    "terms": ("the same outcomes pay otherwise", "check the payoffs that the case declares"),
    "operations": ("what was done followed the decisions otherwise", "ask who overrides decisions, and why"),
    "unexplained": ("none of the six accounts for it", "look for outcomes that depend on more than row, action and time"),
}


def words(change: Estimate, causes: Mapping[str, Estimate], unexplained: Estimate, hidden: float, bounded: bool) -> str:
    """Return the attribution in words: how much, by which causes, which of them are uncertain, and what to do.

    >>> up, none = Estimate(-2.0, -3.0, -1.0, "EUR"), Estimate(0.0, -0.1, 0.1, "EUR")
    >>> for sentence in words(up, {"mix": none, "world": up}, none, 0.0, False).split(". "):
    ...     print(sentence)
    A decision paid 2 EUR less than before
    World: −2 EUR [−3, −1] (like rows, treated alike, turned out otherwise)
    No change is shown in mix, unexplained
    Next: train again on newer outcomes.
    """
    every = {**causes, "unexplained": unexplained}
    shown = [name for name in every if every[name].low > 0 or every[name].high < 0]
    shown.sort(key=lambda name: -abs(every[name].value))
    direction = "less" if change.value < 0 else "more"
    said = [f"A decision paid {_amount(abs(change.value))} {change.unit}".rstrip() + f" {direction} than before."]
    if math.isnan(change.low):
        said.append(f"Fewer than {value.FEWEST} independent units allow no interval: nothing is shown, and more decisions must mature.")
        return " ".join(said)
    for name in shown:
        x = every[name]
        ends = f"[{_amount(x.low)}, {_amount(x.high)}]"
        said.append(f"{name.capitalize()}: {_amount(x.value)} {x.unit}".rstrip() + f" {ends} ({_SAID[name][0]}).")
    if doubtful := [name for name in every if name not in shown]:
        said.append(f"No change is shown in {', '.join(doubtful)}.")
    if hidden > 0:
        what = "intervals allow for all that it may have paid" if bounded else "there the expected payoffs alone speak"
        said.append(f"Up to {hidden:.1%} of the rows would have had done what was never tried on their like: {what}.")
    said.append(f"Next: {_SAID[shown[0]][1]}." if shown else "Next: nothing; more matured decisions would narrow the intervals.")
    return " ".join(said)


def _amount(x: float) -> str:
    return (f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.3g}").replace("-", "−")


__all__: Sequence[str] = ["MOST", "Rows", "attribute", "shapley", "stratify", "words"]
