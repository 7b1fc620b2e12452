"""Whether a text comes from where the texts came that were learnt from, as a number that payoffs may use.

A text is *strange* in its words: minus the mean, over its tokens, of ln(0.8 p(token | token before) + 0.2 p(token | level)), Jelinek &
Mercer's (1980) mixture of counts. Where levels are declared (the essays' prompts), it is strange for its level as well: minus the mean of
ln(p(token | level) / p(token)). Each is compared with texts of like length that were held aside from the counts, as a conformal p-value
(Vovk, Gammerman & Shafer 2005, §4.5; Bates et al. 2023, eq. 2): the share that is at least as strange. *Familiarity* is that share, or,
of two, twice the lesser (Bonferroni). Of texts exchangeable with those held aside, at most a share a has a familiarity of a or less.

NumPy alone, row by row: strangeness is a sum of whole numbers, so a text has the same familiarity alone as among others.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from makegood.contracts import Bools, Floats, Ints
from makegood.data import values
from makegood.data.texts import Tokenizer

NAME = "familiarity"
"""What payoffs and limits call it."""

FEWEST = 200
"""Texts that it takes, twice as many with levels: half of them are held aside, and fewer than a hundred cannot tell one in a hundred."""

_ASIDE, _MOST_ASIDE = 0.2, 20_000  # the share of texts held aside, and how many at most
_BAND, _BANDS = 250, 8  # texts aside in a band of lengths, about, for each comparison, and bands at most
_LEVELS, _OWN = 64, 20  # levels with counts of their own, at most, and texts that each needs
_BITS = 16
_BUCKETS = 1 << _BITS  # of pairs of tokens
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing (Knuth 1998, §6.4): its upper bits are the bucket
_PAIR, _ALL = 0.8, 0.25  # weights: of the token before against the level; of all texts against those of the level
_UNIT = 1 << 16  # strangeness is summed in whole parts of that many
_CHUNK = 1 << 19  # tokens at a time


def fewest(leveled: bool) -> int:
    """Return how many texts it takes."""
    return 2 * FEWEST if leveled else FEWEST


def aside(present: Sequence[bool], leveled: bool = False) -> Bools:
    """Return which of the rows (n,) are held aside from the counts, drawn by their position; a row without a text is not.

    A fifth of the texts, and of few of them up to a half.

    >>> int(aside([True] * 2000 + [False]).sum()), int(aside([True] * 200).sum()), int(aside([True] * 800, leveled=True).sum())
    (400, 100, 400)
    """
    rows = np.flatnonzero(present)
    n = len(rows)
    size = min(max(int(n * _ASIDE), min(n // 2, fewest(leveled))), _MOST_ASIDE)
    out = np.zeros(len(present), dtype=np.bool_)
    out[np.random.default_rng(0).permutation(rows)[:size]] = True
    return out


def levels_of(cells: Sequence[Any]) -> list[str | None]:
    """Return the levels that read cells name, None where they are missing; a number's level is as it is written.

    >>> levels_of([1.0, float("nan"), "b", None])
    ['1', None, 'b', None]
    """
    return [None if cell is None or cell != cell else values.text_of(cell) for cell in cells]


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Counts of tokens, and how strange the texts were that were held aside.

    `counts` (1 + n_levels, vocabulary) are of all texts, then of those of each of the `levels` of the column `scale` ("": none);
    `pairs` (2^16,) of a token and the one before it, hashed. `edges` part the lengths into bands, and `held` has, for each way of being
    strange and each band, how strange the texts held aside are, ascending. `pad` is the id that fills up, and
    stands for what comes before the first token: its count is how often it does. A text has more than `room` tokens.
    """

    pad: int
    room: int
    scale: str
    levels: tuple[str, ...]
    counts: Ints
    pairs: Ints
    edges: Ints
    held: tuple[tuple[Floats, ...], ...]

    def __post_init__(self) -> None:
        """Raise `ValueError` where the parts do not fit together: a bundle may come from anywhere."""
        fits = len(set(self.levels)) == len(self.levels) <= _LEVELS and bool(self.scale or not self.levels)
        fits = fits and len(self.counts) == 1 + len(self.levels) and len(self.pairs) == _BUCKETS
        fits = fits and len(self.held) == (2 if self.levels else 1) and bool((np.diff(self.edges) > 0).all())
        fits = fits and all(len(bands) == len(self.edges) + 1 <= _BANDS and sum(map(len, bands)) <= _MOST_ASIDE for bands in self.held)
        fits = fits and all(bool(np.isfinite(part).all() and (np.diff(part) >= 0).all()) for bands in self.held for part in bands)
        if not fits:
            raise ValueError("a familiarity whose parts do not fit together")

    @property
    def n(self) -> int:
        """How many texts were held aside."""
        return sum(map(len, self.held[0]))

    def apply(self, ids: Ints, levels: Sequence[str | None] | None = None) -> Floats:
        """Return the familiarity (n,) of texts, in (0, 1], from their ids (n, length) and the level of each.

        A text without a token is as strange as can be: 1 / (1 + n). One of an unknown level is compared with the texts of all.
        """
        rows = self.rows_of([None] * len(ids) if levels is None else levels)
        strange, length = self.strangeness(ids, rows)
        out = np.ones(len(ids))
        band = np.searchsorted(self.edges, length, side="right")
        for how, bands in enumerate(self.held):
            for i in set(band.tolist()):
                held = bands[i]
                mine = np.flatnonzero((band == i) & ((rows > 0) | (how == 0)))  # no text is strange for a level that nobody knows
                above = len(held) - np.searchsorted(held, strange[how, mine], side="left")
                out[mine] = np.minimum(out[mine], len(self.held) * (1.0 + above) / (1.0 + len(held)))
        out[length <= self.room] = 1.0 / (1.0 + self.n)
        return out

    def each(self, texts: Sequence[Any], cells: Sequence[Any], ids: Callable[[list[int]], Ints]) -> Floats:
        """Return the familiarity (n,) of texts and the cells of their scale, of which many may be the same, as with reasons.

        `ids` makes the ids of the texts at some places: each text of a level is looked at once.
        """
        pairs, first = list(zip(texts, levels_of(cells), strict=True)), dict[Any, int]()
        for i, pair in enumerate(pairs):
            first.setdefault(pair, i)
        found = self.apply(ids(list(first.values())), [level for _, level in first])
        each = dict(zip(first, found.tolist(), strict=True))
        return np.array([each[pair] for pair in pairs], dtype=np.float64)

    def rows_of(self, levels: Sequence[str | None]) -> Ints:
        """Return the row of `counts` (n,) of each level."""
        place: dict[str | None, int] = {level: i for i, level in enumerate(self.levels, 1)}
        return np.array([place.get(level, 0) for level in levels], dtype=np.int64)

    def strangeness(self, ids: Ints, rows: Ints) -> tuple[Floats, Ints]:
        """Return how strange texts are, in nats a token (2, n): in their words, and for their level; and how many tokens they have (n,).

        `rows` (n,) are those of `counts`.
        """
        strange, length = np.zeros((2, len(ids))), np.zeros(len(ids), dtype=np.int64)
        step = max(1, _CHUNK // max(ids.shape[1], 1))
        totals, vocabulary = self._totals, self.counts.shape[1]
        for start in range(0, len(ids), step):
            part, row = ids[start : start + step], rows[start : start + step, None]
            there, before = part != self.pad, _before(part, self.pad)
            everywhere = (self.counts[0][part] + 0.5) / (totals[0] + 0.5 * vocabulary)
            of_level = np.where(row > 0, (1.0 - _ALL) * self.counts[row, part] / totals[row] + _ALL * everywhere, everywhere)
            after = np.minimum(self.pairs[_bucket(before, part, vocabulary)] / np.maximum(self.counts[0][before], 1), 1.0)
            p = _PAIR * after + (1.0 - _PAIR) * of_level
            here = slice(start, start + step)
            length[here] = there.sum(axis=1)
            for how, nats in enumerate((-np.log(p), np.log(everywhere / of_level))):
                whole = np.where(there, np.rint(nats * _UNIT), 0.0).astype(np.int64)
                strange[how, here] = whole.sum(axis=1) / np.maximum(length[here], 1) / _UNIT
        return strange, length

    @cached_property
    def _totals(self) -> Ints:
        """How many tokens each row of `counts` (1 + n_levels,) has, at least 1."""
        return np.asarray(np.maximum(self.counts.sum(axis=1) - self.counts[:, self.pad], 1))

    def to_state(self) -> str:
        """Return the text, JSON, from which `from_state` makes the same."""
        parts = [part for bands in self.held for part in bands]
        state = {
            "scale": self.scale,
            "levels": self.levels,
            "counts": _packed(self.counts.astype("<u4")),
            "pairs": _packed(self.pairs.astype("<u4")),
            "edges": self.edges.tolist(),
            "sizes": [len(part) for part in parts],
            "held": _packed(np.concatenate(parts).astype("<f8")),
        }
        return json.dumps(state, ensure_ascii=False, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_state(cls, state: str, *, pad: int, room: int, vocabulary: int) -> Familiarity:
        """Return what `to_state` wrote, for a tokenizer with that `pad`, `room` and `vocabulary`; raises `ValueError` on anything else."""
        try:
            raw = json.loads(state)
            levels, sizes = tuple(map(str, raw["levels"])), [int(size) for size in raw["sizes"]]
            if len(levels) > _LEVELS or not all(0 <= size <= _MOST_ASIDE for size in sizes) or len(sizes) > 2 * _BANDS:
                raise ValueError("a familiarity of too many levels or texts")
            counts = _unpacked(raw["counts"], "<u4", (1 + len(levels)) * vocabulary).reshape(1 + len(levels), vocabulary)
            pairs, held = _unpacked(raw["pairs"], "<u4", _BUCKETS), _unpacked(raw["held"], "<f8", sum(sizes))
            edges = np.array(raw["edges"], dtype=np.int64).reshape(-1)
            ends = np.cumsum([0, *sizes]).tolist()
            parts, n = tuple(held[low:high] for low, high in pairwise(ends)), len(edges) + 1
            ways = tuple(parts[i : i + n] for i in range(0, len(parts), n))
            return cls(pad, room, str(raw["scale"]), levels, counts.astype(np.int64), pairs.astype(np.int64), edges, ways)
        except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, zlib.error) as error:
            raise ValueError(f"a familiarity that cannot be read: {error}") from None


def read(state: str, tokenizer: Tokenizer, columns: Collection[str]) -> Familiarity:
    """Return the familiarity that a state holds, for a tokenizer and the columns that are read; raises `ValueError` on any other."""
    made = Familiarity.from_state(state, pad=tokenizer.pad, room=tokenizer.room, vocabulary=tokenizer.vocabulary)
    if made.scale and made.scale not in columns:
        raise ValueError(f"a familiarity by the column {made.scale!r}, which is not read")
    return made


def learn(ids: Ints, held: Bools, levels: Sequence[str | None] | None, tokenizer: Tokenizer, scale: str = "") -> Familiarity:
    """Return the counts of texts, from their ids (n, length), and the strangeness of those that are `held` (n,) aside.

    `levels` (n,) are those of the column `scale`: the most frequent have counts of their own, where these come from enough texts.
    """
    pad, room, vocabulary = tokenizer.pad, tokenizer.room, tokenizer.vocabulary
    length = (ids != pad).sum(axis=1)
    there = length > room
    counted, waiting = np.flatnonzero(there & ~held), np.flatnonzero(there & held)
    named: Sequence[str | None] = [None] * len(ids) if levels is None else levels
    texts = Counter(level for level in (named[i] for i in counted.tolist()) if level is not None)
    known = sorted((level for level, n in texts.items() if n >= _OWN), key=lambda level: (-texts[level], level))[:_LEVELS]
    place: dict[str | None, int] = {level: i for i, level in enumerate(known, 1)}
    rows = np.array([place.get(level, 0) for level in named], dtype=np.int64)

    counts, pairs = np.zeros((1 + len(known), vocabulary), dtype=np.int64), np.zeros(_BUCKETS, dtype=np.int64)
    step = max(1, _CHUNK // max(ids.shape[1], 1))
    for start in range(0, len(counted), step):
        chunk = counted[start : start + step]
        part, row = ids[chunk], rows[chunk]
        seen, before = part != pad, _before(part, pad)
        tokens, earlier = part[seen], before[seen]
        counts[0] += np.bincount(tokens, minlength=vocabulary)
        counts[0, pad] += int((earlier == pad).sum())
        pairs += np.bincount(_bucket(earlier, tokens, vocabulary), minlength=_BUCKETS)
        if known:
            at = np.broadcast_to(row[:, None], part.shape)[seen] * vocabulary + tokens
            counts[1:] += np.bincount(at, minlength=counts.size).reshape(counts.shape)[1:]

    ways = 2 if known else 1
    n_bands = int(np.clip(len(waiting) // (_BAND * ways), 1, _BANDS))
    edges = np.empty(0, dtype=np.int64)
    if len(counted):  # by the texts that are counted: bands must not know those that they are to judge
        edges = np.unique(np.quantile(length[counted], np.arange(1, n_bands) / n_bands, method="higher")).astype(np.int64)
    none = ((np.empty(0),) * (len(edges) + 1),) * ways
    made = Familiarity(pad, room, scale, tuple(known), counts, pairs, edges, none)
    strange, _ = made.strangeness(ids[waiting], rows[waiting])
    band = np.searchsorted(edges, length[waiting], side="right")
    ours = rows[waiting] > 0
    parts = [tuple(np.sort(strange[how, (band == i) & (ours | (how == 0))]) for i in range(len(edges) + 1)) for how in range(ways)]
    return replace(made, held=tuple(parts))


def _before(ids: Ints, pad: int) -> Ints:
    """Return the token before each (n, length); `pad` before the first."""
    out = np.empty_like(ids)
    out[:, :1], out[:, 1:] = pad, ids[:, :-1]
    return out


def _bucket(before: Ints, ids: Ints, vocabulary: int) -> Ints:
    pair = before.astype(np.uint64) * np.uint64(vocabulary) + ids.astype(np.uint64)
    return ((pair * _SPREAD) >> np.uint64(64 - _BITS)).astype(np.int64)


def _packed(array: Any) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()


def _unpacked(text: str, kind: str, size: int) -> Any:
    """Return an array (size,) of `_packed`, of exactly that size: what would unpack to more is not unpacked."""
    data = base64.b64decode(text, validate=True)
    want = size * np.dtype(kind).itemsize
    found = zlib.decompressobj().decompress(data, want + 1)
    if len(found) != want:
        raise ValueError(f"an array of other than {size} numbers")
    return np.frombuffer(found, dtype=kind)
