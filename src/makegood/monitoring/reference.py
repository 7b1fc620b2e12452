"""What the rows were like on which a bundle was judged, kept so small that it travels in the bundle.

Every column is cut into bins, and each bin keeps how many rows fell into it and what was promised on them. Numbers are cut at their
quantiles; categories by level; texts, images and embeddings are vectors, cut along a few directions: the one in which the promise
changes most (least squares), and random ones, as in sliced distances (Rabin et al. 2012). The last bin of each holds what is missing.

This module needs NumPy alone: a bundle at work reads it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from makegood.contracts import Columns, Estimate, Floats, Ints
from makegood.economics import resample
from makegood.errors import DataError, Problem

BINS, LEVELS, DIRECTIONS, BLOCKS = 24, 64, 6, 512
"""Bins of a number, levels of a category that have a bin of their own, directions of a vector, and most blocks of units."""

WORDS = 16
"""Numbers that `text_vectors` makes of a text's words."""

_KINDS = ("number", "category", "text", "embedding", "prediction")
_SEED = 20
_UNSPACED = "\u0e00"  # from here on lie Thai, Chinese and other scripts that are written without spaces
_CHUNK = 1 << 15  # rows at a time: what is compared stays in the cache


# ---------------------------------------------------------------------------------------------------------------- columns


@dataclass(frozen=True, eq=False)
class Coded:
    """A column of categories: `codes` (n,) are positions in `levels`, −1 where the value is missing."""

    codes: Ints
    levels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.codes)

    @classmethod
    def of(cls, values: Sequence[str | None] | NDArray[Any]) -> Coded:
        """Return texts (n,) as codes; levels in the order of the alphabet.

        >>> Coded.of(["b", None, "a", "b"]).codes.tolist()
        [1, -1, 0, 1]
        """
        levels = sorted({*values} - {None})
        place: dict[str | None, int] = {level: code for code, level in enumerate(levels)} | {None: -1}
        return cls(np.fromiter(map(place.__getitem__, values), dtype=np.int32, count=len(values)), tuple(levels))


@dataclass(frozen=True, eq=False)
class Vectors:
    """A column of vectors: `values` (n, d), NaN where one is missing; `kind` is text, embedding or prediction."""

    values: Floats
    kind: str = "embedding"

    def __len__(self) -> int:
        return len(self.values)


Column = Floats | Coded | Vectors


def text_vectors(texts: Sequence[str | None] | NDArray[Any]) -> Vectors:
    """Return texts (n,) as vectors (n, 3 + `WORDS`): ln(1 + characters), the shares of digits and of letters beyond ASCII, and its words.

    Of the words, each drawn to a corner of a cube by its hash (BLAKE2b), the sum, at length 1: a random projection of how often each
    word occurs (Achlioptas 2003). In scripts that are written without spaces a word is one character.

    >>> vectors = text_vectors(["Room 101", "", None]).values
    >>> np.expm1(vectors[:, 0]).round(6).tolist(), vectors[0, 1:3].tolist(), round(float(np.linalg.norm(vectors[0, 3:])), 6)
    ([8.0, 0.0, nan], [0.375, 0.0], 1.0)
    """
    out = np.zeros((len(texts), 3 + WORDS))
    for row, text in enumerate(texts):
        if text is None:
            out[row] = np.nan
        elif text:
            beyond = 0 if text.isascii() else sum(letter > "\x7f" and letter.isalpha() for letter in text)
            out[row, :3] = np.log1p(len(text)), sum(map(str.isdigit, text)) / len(text), beyond / len(text)
            total = np.sum([_corner(word) * float(n) for word, n in Counter(_words(text)).items()], axis=0)
            out[row, 3:] = total / max(float(np.linalg.norm(total)), 1e-12)
    return Vectors(out, "text")


def _words(text: str) -> list[str]:
    words = text.lower().split()
    return words if text.isascii() else [part for word in words for part in (word if max(word) >= _UNSPACED else (word,))]


@lru_cache(1 << 16)
def _corner(word: str) -> Floats:
    drawn = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=WORDS // 8).digest()
    return np.unpackbits(np.frombuffer(drawn, np.uint8)) * 2.0 - 1.0


def image_vectors(pixels: Sequence[bytes | None] | NDArray[Any]) -> Vectors:
    """Return raw images (n,) as vectors (n, 2): brightness and contrast, the mean and the standard deviation of their pixels, in [0, 1].

    >>> image_vectors([bytes([0, 255]), None]).values.tolist()
    [[0.5, 0.5], [nan, nan]]
    """
    sizes = np.fromiter((len(image or b"") for image in pixels), dtype=np.int64, count=len(pixels))
    values = np.full((len(pixels), 2), np.nan)
    for size in set(sizes.tolist()) - {0}:
        rows = np.flatnonzero(sizes == size)
        for part in np.array_split(rows, -(-len(rows) * size // (1 << 26))):  # 64 MiB of pixels at a time
            raw = np.frombuffer(b"".join(pixels[i] or b"" for i in part.tolist()), dtype=np.uint8).reshape(len(part), size)
            values[part] = np.column_stack([raw.mean(axis=1), raw.std(axis=1)]) / 255.0
    return Vectors(values)


def predicted(numbers: Floats) -> Column:
    """Return the numbers of predictions (n, k) as a column: the last of two probabilities (or of one number), all of more.

    >>> predicted(np.array([[0.25, 0.75]])).tolist()
    [0.75]
    """
    return numbers[:, -1] if numbers.shape[1] <= 2 else Vectors(numbers, "prediction")


def observed(columns: Columns, images: frozenset[str], predictions: Floats, texts: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return what a reference is made of, and compared with: columns as a transform reads them, its images and texts as vectors, and "".

    `predictions` (n, k) are probabilities of classes, or quantiles.

    >>> sorted(observed({"age": np.zeros(2)}, frozenset(), np.zeros((2, 2))))
    ['', 'age']
    """
    kinds = dict.fromkeys(images, image_vectors) | dict.fromkeys(texts, text_vectors)
    seen = {name: kinds[name](values) if name in kinds else values for name, values in columns.items()}
    return {**seen, "": predicted(predictions)}


def as_column(values: Any) -> Column:
    """Return a column as it is, and texts (n,) of objects as codes.

    >>> as_column(np.array(["a", None], dtype=object)).levels
    ('a',)
    """
    if isinstance(values, Coded | Vectors):
        return values
    array = np.asarray(values)
    return Coded.of(array) if array.dtype == object else array


# ----------------------------------------------------------------------------------------------------------------- blocks


def blocks(units: Ints | None, n: int, most: int = BLOCKS) -> tuple[Ints, int]:
    """Return the block (n,) of each row, and how many there are: one for each unit, or `most` of units that are dealt out evenly.

    Sums of many independent units are independent again: variances between blocks are those between units (`resample.pool`).

    >>> blocks(np.array([7, 7, 9]), 3)[0].tolist()
    [0, 0, 1]
    """
    if units is None:
        unit, count = np.arange(n, dtype=np.int64), n
    else:
        unit = np.unique(units, return_inverse=True)[1] if n else np.zeros(0, dtype=np.int64)
        count = int(unit.max(initial=-1)) + 1
    if count <= most:
        return unit, count
    dealt = np.random.default_rng(_SEED).permutation(count) % most
    return dealt[unit].astype(np.int64), most


# ---------------------------------------------------------------------------------------------------------------- profile


@dataclass(frozen=True)
class Bins:
    """How many `rows` of the reference fell into each bin, and the mean and the standard deviation of what was promised on them.

    The last bin holds what is missing. `effective` is how many independent rows these are worth, for the means of the bins.
    """

    rows: tuple[int, ...]
    promise: tuple[float, ...]
    spread: tuple[float, ...]
    effective: float

    def __post_init__(self) -> None:
        """Raise `ValueError` for what no reference holds: a bundle may come from anywhere."""
        if not len(self.rows) == len(self.promise) == len(self.spread) >= 2 or min(self.rows) < 0 or sum(self.rows) < 1:
            raise ValueError("bins whose counts and promises do not fit each other")
        if not (min(self.spread) >= 0 and 0 < self.effective <= sum(self.rows)):
            raise ValueError("bins with a spread below 0, or worth more rows than they hold")

    @cached_property
    def share(self) -> Floats:
        """The share of the rows in each bin."""
        rows = np.array(self.rows, dtype=np.float64)
        return np.asarray(rows / rows.sum())


@dataclass(frozen=True)
class Profile:
    """One column of the reference.

    `edges`: of a number, the values at which a bin begins, but for the first; of vectors, those along each of the `directions`
    (k, d), after `center` (d,) is taken off. `levels`: of a category, those with a bin of their own; the others share one.
    """

    column: str
    kind: str
    bins: tuple[Bins, ...]
    edges: tuple[tuple[float, ...], ...] = ()
    levels: tuple[str, ...] = ()
    center: tuple[float, ...] = ()
    directions: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        """Raise `ValueError` where the parts do not fit each other."""
        if self.kind not in _KINDS or not self.bins:
            raise ValueError(f"a column of the kind {self.kind!r}")
        sizes = [len(edges) + 2 for edges in self.edges] if self.edges else [len(self.levels) + 2]
        if [len(b.rows) for b in self.bins] != sizes or len(self.bins) != max(len(self.directions), 1):
            raise ValueError(f"bins of {self.column!r} that do not fit its edges, levels or directions")
        if max(sizes) > 256:
            raise ValueError(f"{max(sizes)} bins of {self.column!r}")
        if any(not low < high for edges in self.edges for low, high in pairwise(edges)):
            raise ValueError(f"edges of {self.column!r} that do not grow")
        if any(len(direction) != len(self.center) for direction in self.directions):
            raise ValueError(f"directions of {self.column!r} of another length than its center")

    def place(self, column: Column) -> list[Ints]:
        """Return the bin (n,) of each row, along each direction where there are several; raises `DataError` on another kind of column."""
        got = "vectors" if isinstance(column, Vectors) else "categories" if isinstance(column, Coded) else "numbers"
        expected = "vectors" if self.directions else "numbers" if self.edges else "categories"
        if got != expected:
            mend = "review it with the bundle that decided these rows"
            raise DataError(Problem(f"column {self.column}", got, f"{expected}, as in the reference", mend))
        if isinstance(column, Coded):
            return [_levelled(column, self.levels)]
        if not isinstance(column, Vectors):
            return [_cut(np.asarray(column), np.array(self.edges[0]))]
        if column.values.ndim != 2 or column.values.shape[1] != len(self.center):
            got, mend = f"an array of shape {column.values.shape}", "embed it by the same model"
            raise DataError(Problem(f"column {self.column}", got, f"(n, {len(self.center)}), as in the reference", mend))
        along = (column.values - np.array(self.center)) @ np.array(self.directions).T
        return [_cut(along[:, k], np.array(edges)) for k, edges in enumerate(self.edges)]

    def name(self, bin: int, direction: int = 0) -> str:
        """Return a bin in words.

        >>> bins = Bins((5, 5, 0), (1.0, 2.0, 0.0), (0.0, 0.0, 0.0), 10.0)
        >>> Profile("age", "number", (bins,), edges=((40.0,),)).name(1)
        'from 40 on'
        """
        if bin == len(self.bins[direction].rows) - 1:
            return "missing"
        if not self.edges:
            return f"'{self.levels[bin]}'" if bin < len(self.levels) else "levels that are rare or were never seen"
        edges = self.edges[direction]
        low, high = (f"{edges[bin - 1]:.4g}" if bin else ""), (f"{edges[bin]:.4g}" if bin < len(edges) else "")
        span = f"{low} to {high}" if low and high else f"from {low} on" if low else f"below {high}"
        return f"{span} along a direction" if self.directions else span


@dataclass(frozen=True)
class Kept:
    """How the promise was kept on rows that the model had not seen: what a promise test is declared from.

    `gap` is promised − realised, with its interval at `level` (None: too few units for one); `room` the most by which a decision could
    have paid more than it promised, whatever had come true.
    """

    gap: float
    low: float | None
    high: float | None
    level: float
    room: float

    @classmethod
    def of(cls, gap: Estimate, room: float) -> Self:
        """Return what an estimate of the gap says.

        >>> Kept.of(Estimate(0.5, float("nan"), float("nan"), "EUR"), 9.0)
        Kept(gap=0.5, low=None, high=None, level=0.95, room=9.0)
        """
        plain = gap.to_json()
        return cls(gap.value, plain["low"], plain["high"], gap.level, room)

    def estimate(self, unit: str = "") -> Estimate:
        """Return the gap with its interval.

        >>> print(Kept(0.5, 0.0, 1.0, 0.95, 9.0).estimate("EUR"))
        0.5 [0, 1] EUR
        """
        low, high = (np.nan if end is None else end for end in (self.low, self.high))
        return Estimate(self.gap, low, high, unit, self.level)


@dataclass(frozen=True)
class Reference:
    """The rows on which a bundle was judged: how many, the mean promise with its standard error (by unit), each column, and the gap."""

    n: int
    promise: float
    error: float
    columns: tuple[Profile, ...]
    kept: Kept | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for a column that is there twice, and for an error that is none."""
        names = [c.column for c in self.columns]
        if len(set(names)) < len(names) or self.n < 1 or not self.error >= 0:
            raise ValueError("a reference with a column twice, without rows, or with an error below 0")


def refer(columns: Mapping[str, Any], promise: Floats, units: Ints | None = None, kept: Kept | None = None) -> Reference:
    """Return the reference that rows make: `columns` of n rows each (see `Column`; objects are categories), `promise` (n,) on them.

    The column "" is the prediction. `units` (n,) name the entity of each row; None: rows are independent. `kept` says how the promise was
    kept on them. Raises `DataError` where there is no row, a promise is not finite, or lengths differ.

    >>> made = refer({"age": np.arange(100.0)}, np.arange(100.0))
    >>> made.n, made.promise, len(made.columns[0].bins[0].rows)
    (100, 49.5, 25)
    """
    promise = check_promise(promise)
    n = len(promise)
    if not n:
        raise DataError(Problem("reference", "no rows", "the rows on which the model was judged", "give at least one"))
    block, count = blocks(units, n)
    size = np.bincount(block, minlength=count).astype(np.float64)
    total = np.bincount(block, promise, count)
    error = float(np.sqrt(resample.jackknife(np.column_stack([total, size]))[1][0, 0])) if count > 1 else 0.0
    profiles = []
    for name, values in columns.items():
        column = as_column(values)
        check_length(name, column, n)
        profiles.append(_profile(name, column, promise, block, size))
    return Reference(n, float(promise.mean()), error, tuple(profiles), kept)


def check_promise(promise: Floats) -> Floats:
    """Return promises (n,) as float64; raises `DataError` where one is not finite.

    >>> check_promise(np.array([1, 2])).tolist()
    [1.0, 2.0]
    """
    promise = np.asarray(promise, dtype=np.float64)
    if not np.isfinite(promise).all():
        raise DataError(Problem("promise", "a value that is not finite", "the promise of every row", "leave out rows without one"))
    return promise


def check_length(name: str, column: Column, n: int) -> None:
    """Raise `DataError` where a column has not as many rows as there are promises.

    >>> check_length("age", np.zeros(3), 3)
    """
    if len(column) != n:
        raise DataError(Problem(f"column {name}", f"{len(column)} rows", f"{n}, one for each promise", "complete it"))


def _profile(name: str, column: Column, promise: Floats, block: Ints, size: Floats) -> Profile:
    kind = "prediction" if name == "" else column.kind if isinstance(column, Vectors) else ""
    if isinstance(column, Coded):
        rows = np.bincount(column.codes + 1, minlength=len(column.levels) + 1)[1:]
        top = np.argsort(-rows, kind="stable")[:LEVELS]
        levels = tuple(column.levels[i] for i in top.tolist() if rows[i])
        bins_ = _bins(_levelled(column, levels), len(levels) + 2, promise, block, size)
        return Profile(name, kind or "category", (bins_,), levels=levels)
    center: tuple[float, ...] = ()
    directions: tuple[tuple[float, ...], ...] = ()
    along = np.asarray(column.values if isinstance(column, Vectors) else column, dtype=np.float64)
    if isinstance(column, Vectors):
        center, directions = _directions(along, promise)
        along = (along - np.array(center)) @ np.array(directions).T
    else:
        along = along[:, None]
    edges = [_edges(along[:, k]) for k in range(along.shape[1])]
    bins = [_bins(_cut(along[:, k], e), len(e) + 2, promise, block, size) for k, e in enumerate(edges)]
    return Profile(name, kind or "number", tuple(bins), tuple(tuple(e.tolist()) for e in edges), (), center, directions)


def _levelled(column: Coded, levels: tuple[str, ...]) -> Ints:
    """Return the bin (n,) of each code: its level's, the one that other levels share, or the last where it is missing."""
    place = {level: bin for bin, level in enumerate(levels)}
    other = len(levels)
    return np.array([place.get(level, other) for level in column.levels] + [other + 1])[column.codes]  # −1 takes the last


def _cut(x: Floats, edges: Floats) -> Ints:
    """Return the bin (n,) of each number; one that is not a number, or infinite, is missing."""
    bin = np.zeros(len(x), dtype=np.uint8)
    for at in range(0, len(x), _CHUNK):  # a comparison with each edge takes a third of the time of a binary search
        part, count = x[at : at + _CHUNK], bin[at : at + _CHUNK]
        for edge in edges:
            count += part >= edge
        count[~np.isfinite(part)] = len(edges) + 1
    return bin


def _edges(x: Floats) -> Floats:
    """Return where bins of equal numbers of rows begin; values that many rows share begin one of their own."""
    known = x[np.isfinite(x)]
    if not len(known):
        return np.zeros(1)
    edges = np.unique(np.quantile(known, np.arange(1, BINS) / BINS, method="inverted_cdf"))
    edges = edges[edges > known.min()]
    return edges if len(edges) else known[:1]  # one value only: whatever is below it was never seen


def _directions(x: Floats, promise: Floats) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
    """Return the mean (d,) of vectors (n, d), and directions (k, d) of unit length on columns of equal spread."""
    known = np.isfinite(x).all(axis=1)
    if not known.any():
        return (0.0,) * x.shape[1], ((1.0,) + (0.0,) * (x.shape[1] - 1),)
    center, scale = x[known].mean(axis=0), x[known].std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    scaled = (x[known] - center) / scale
    gram = scaled.T @ scaled
    ridge = gram + np.eye(len(gram)) * max(1e-3 * float(np.trace(gram)) / len(gram), 1e-12)
    steepest = np.linalg.solve(ridge, scaled.T @ (promise[known] - promise[known].mean()))
    drawn = np.random.default_rng(_SEED).standard_normal((DIRECTIONS - 1, x.shape[1]))
    every = np.vstack([steepest if np.any(steepest) else np.ones(x.shape[1]), drawn])
    every = every / np.linalg.norm(every, axis=1, keepdims=True) / scale
    return tuple(center.tolist()), tuple(tuple(direction) for direction in every.tolist())


def _bins(bin: Ints, count: int, promise: Floats, block: Ints, size: Floats) -> Bins:
    rows = np.bincount(bin, minlength=count).astype(np.float64)
    mean = np.bincount(bin, promise, count) / np.maximum(rows, 1.0)
    off = promise - mean[bin]
    spread = np.sqrt(np.bincount(bin, off * off, count) / np.maximum(rows, 1.0))
    centred = mean - float(rows @ mean) / rows.sum()
    plain = float(rows @ centred**2) / rows.sum() ** 2  # the variance of the bins' mean promise, were rows independent
    effective = rows.sum()
    if len(size) > 1 and plain > 0:
        totals = np.bincount(block, centred[bin], len(size))
        clustered = float(resample.jackknife(np.column_stack([totals, size]))[1][0, 0])
        effective = min(effective, effective * plain / clustered) if clustered > 0 else effective
    return Bins(tuple(rows.astype(np.int64).tolist()), tuple(mean.tolist()), tuple(spread.tolist()), float(effective))
