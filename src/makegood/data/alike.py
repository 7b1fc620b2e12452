"""Near-duplicates: texts that a model would know again, though they are not equal.

A text whose near-duplicate was learnt from says how well a model remembers, and not how well it decides.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from makegood.data.identity import mixed

if TYPE_CHECKING:
    from makegood.contracts import Bools, Ints

ALIKE = 0.9
"""Jaccard similarity of their runs of five characters from which two texts are near-duplicates."""

_RUN = 5  # characters
_BANDS, _ROWS = 12, 6  # a pair that is `ALIKE` agrees in some band with probability 1 − (1 − 0.9⁶)¹² = 0.9999
_TRIED = 32  # candidates of a text that are compared with it, those first whose signatures agree most
_AT_ONCE = 1 << 22  # characters


class Alike:
    """Which of many texts nearly repeat another: MinHash signatures (Broder 1997) in bands find candidates, sets of runs decide.

    Texts are compared after NFKC, in lower case, each white space as one blank; a missing text is like none.
    """

    def __init__(self, texts: Sequence[str | None]) -> None:
        codes: dict[str, int] = {}
        self._code = np.array([-1 if not text else codes.setdefault(_plain(text), len(codes)) for text in texts], dtype=np.int64)
        self._texts = list(codes)
        self._signatures = _signatures(self._texts)
        bands = self._signatures.astype(np.uint64).reshape(len(codes), _BANDS, _ROWS)
        self._bands = np.zeros((len(codes), _BANDS), dtype=np.uint64)
        for i in range(_ROWS):
            self._bands = mixed(self._bands ^ bands[:, :, i])
        self._runs: dict[int, frozenset[str]] = {}

    def among(self, rows: Ints, others: Ints) -> Bools:
        """Return which of the rows (n,), as positions, nearly repeat one of the others.

        >>> first = "could you tell me how long a transfer to an account abroad takes, please, since I sent money on Monday"
        >>> Alike([first, first + "!", "where is my card"]).among(np.array([1, 2]), np.array([0])).tolist()
        [True, False]
        """
        held = np.unique(self._code[others])
        held = held[held >= 0]
        repeats: Bools = np.isin(np.arange(len(self._texts)), held)
        open_ = np.unique(self._code[rows])
        open_ = open_[open_ >= 0]
        open_ = open_[~repeats[open_]]
        if len(held) and len(open_):
            tables = [_positions(self._bands[held, band]) for band in range(_BANDS)]
            met = np.column_stack([np.isin(self._bands[open_, band], self._bands[held, band]) for band in range(_BANDS)])
            for code, bands in zip(open_[met.any(axis=1)].tolist(), met[met.any(axis=1)], strict=True):
                near = [tables[band][int(self._bands[code, band])] for band in np.flatnonzero(bands)]
                repeats[code] = self._repeats(code, held[np.unique(np.concatenate(near))])
        code = self._code[rows]
        return np.where(code >= 0, repeats[code] if len(repeats) else False, False)

    def _repeats(self, code: int, candidates: Ints) -> bool:
        agree = (self._signatures[candidates] == self._signatures[code]).sum(axis=1)
        return any(self._similarity(code, int(other)) >= ALIKE for other in candidates[np.argsort(-agree, kind="stable")[:_TRIED]])

    def _similarity(self, a: int, b: int) -> float:
        one, other = self._runs_of(a), self._runs_of(b)
        both = len(one & other)
        return both / (len(one) + len(other) - both)

    def _runs_of(self, code: int) -> frozenset[str]:
        if code not in self._runs:
            text = self._texts[code]
            self._runs[code] = frozenset(text[i : i + _RUN] for i in range(len(text) - _RUN + 1))
        return self._runs[code]


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).lower().split()).ljust(_RUN)


def _positions(keys: NDArray[np.uint64]) -> dict[int, Ints]:
    """Return key → where it stands."""
    order = np.argsort(keys, kind="stable")
    distinct, first = np.unique(keys[order], return_index=True)
    return dict(zip(distinct.tolist(), np.split(order, first[1:]), strict=True))


def _signatures(texts: Sequence[str]) -> NDArray[np.uint32]:
    """Return the least value (n, bands · rows) that each of as many fixed hash functions takes over a text's runs of characters."""
    drawn = np.random.default_rng(5).integers(0, 2**64, (2, _BANDS * _ROWS), dtype=np.uint64)
    out = np.empty((len(texts), _BANDS * _ROWS), dtype=np.uint32)
    start = 0
    while start < len(texts):
        stop, total = start, 0
        while stop < len(texts) and (total < _AT_ONCE or stop == start):
            total += len(texts[stop])
            stop += 1
        lengths = np.array([len(text) for text in texts[start:stop]])
        letters = np.frombuffer("".join(texts[start:stop]).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
        runs = np.zeros(len(letters) - _RUN + 1, dtype=np.uint64)
        for i in range(_RUN):
            runs = mixed(runs ^ letters[i : i + len(runs)])
        ends = np.cumsum(lengths)
        inside = np.ones(len(letters), dtype=np.bool_)  # a run must not reach into the next text
        for i in range(1, _RUN):
            inside[ends - i] = False
        runs = runs[inside[: len(runs)]]
        first = np.concatenate([[0], np.cumsum(lengths - _RUN + 1)[:-1]])
        for i, (a, b) in enumerate(drawn.T):
            out[start:stop, i] = np.minimum.reduceat((runs * (a | np.uint64(1)) + b) >> np.uint64(32), first)
        start = stop
    return out
