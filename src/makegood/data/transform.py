"""A batch of raw columns becomes features: one function for training and for a served row.

NumPy and the standard library only; files of images need Pillow too, and texts need tokenizers. Reading makes float64 of numbers,
truths and dates (days since 1970), raw pixels of images, mended texts, and canonical texts of the rest, whether the values come from
Arrow or out of JSON; applying makes float32 features of them. Both work element by element, so a row gives the same bits alone as
inside any batch. Nothing that a row may hold raises: what cannot be used is missing, and noted.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from itertools import chain, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from makegood.contracts import Bools, Columns, Floats, Ints, Tokens
from makegood.data import familiarity, images, measures, texts, values

DAY_US = 86_400_000_000.0
_PLAIN = frozenset((float, int, bool, type(None)))
_TRUTHS: dict[Any, float] = {None: np.nan, True: 1.0, False: 0.0}
_TRUTHS |= {written: truth for text, truth in values.TRUTHS.items() for written in (text, text.title(), text.upper())}
_CHUNK = 1 << 16  # rows at a time: what is in flight stays near the cache
_Cells = Sequence[Any] | NDArray[Any]


@dataclass(frozen=True)
class Column:
    """How one column is read and what features it makes; plain data.

    `reads` is number, boolean, date, category, image or text. Without `feature` the column is only read, for payoffs and limits.
    Numbers and dates: missing becomes `fill`, the rest is cut to [low, high], less `center`, over `scale`. `flag`: values were missing
    when this was fitted, and missing is a feature. `clock`: the dates have a time of day. Categories: all known `levels`, most frequent
    first, of which the first `frequent` have a feature of their own. Images: each pixel of `shape`, from 0 (also where there is no
    image) to 1; `stored` is another shape that raw pixels may come in. Texts: the token ids of `windows` of `length`, by a
    `tokenizer` as JSON, and, if asked for, its `measures`; `flag` makes no feature of them; `familiar` is the state of
    `familiarity.Familiarity`, "" where nothing uses it.
    """

    name: str
    reads: str
    style: str = ""
    feature: bool = True
    fill: float = 0.0
    center: float = 0.0
    scale: float = 1.0
    low: float = 0.0
    high: float = 0.0
    flag: bool = False
    clock: bool = False
    levels: tuple[str, ...] = ()
    frequent: int = 0
    shape: images.Shape | None = None
    stored: images.Shape | None = None
    tokenizer: str = ""
    length: int = 0
    windows: int = 0
    measures: bool = False
    familiar: str = ""

    def __post_init__(self) -> None:
        """Raise `ValueError` for an image without a sensible shape, or a text without windows: a bundle may come from anywhere."""
        if self.reads == "text":
            low, high = texts.LENGTHS
            if not (self.tokenizer and self.feature and low <= self.length <= high and 1 <= self.windows <= texts.WINDOWS):
                raise ValueError(f"a text in {self.windows} windows of {self.length} tokens")
        elif self.tokenizer or self.length or self.windows or self.measures or self.familiar:
            raise ValueError(f"a column {self.name!r} that is no text, and has tokens")
        for shape in (self.shape, self.stored):
            if shape is not None:
                height, width, channels = shape
                if min(shape) < 1 or math.prod(shape) > MAX_PIXELS or channels not in (1, 3):
                    raise ValueError(f"an image of {height} × {width} × {channels}")
        if (self.reads == "image") != (self.shape is not None):
            raise ValueError(f"a column {self.name!r} that is an image without a shape, or has a shape and is none")

    @property
    def features(self) -> tuple[str, ...]:
        """The features' names, in order."""
        if not self.feature:
            return ()
        if self.shape is not None:
            height, width, channels = self.shape
            last = [""] if channels == 1 else [f",{c}" for c in range(channels)]
            return tuple(f"{self.name}[{y},{x}{c}]" for y in range(height) for x in range(width) for c in last)
        if self.reads == "text":
            ids = [f"{self.name}[{window},{i}]" for window in range(self.windows) for i in range(self.length)]
            return (*ids, *(f"{self.name}: {measure}" for measure in measures.NAMES if self.measures))
        if self.reads == "category":
            names = [f"{self.name} = {level}" for level in self.levels[: self.frequent]]
            if self.frequent < len(self.levels):
                names += [f"{self.name} = (rare)", f"{self.name}: frequency"]
        else:
            names = [self.name]
            if self.reads == "date":
                names += [f"{self.name}: month", f"{self.name}: weekday"] + [f"{self.name}: hour"] * self.clock
        return tuple(names + [f"{self.name} missing"] * self.flag)


@dataclass(frozen=True)
class Note:
    """Values of one column that could not be used as they were.

    `kind` is missing, unseen, infinite, extreme, text or wrong, or "image " and one of
    `images.TREATMENTS`, or "text " and one of `texts.TREATMENTS`; `rows` are their positions, `example` the first of them.
    """

    column: str
    kind: str
    rows: tuple[int, ...]
    example: str

    def __str__(self) -> str:
        many = f" ({len(self.rows)} rows)" if len(self.rows) > 1 else ""
        return f"{self.column}: {_SAID[self.kind].format(self.example)}{many}"


_SAID = {
    "missing": "missing, though it never was in training",
    "unseen": "{} did not occur in training",
    "infinite": "{} is not finite; treated as missing",
    "extreme": "{} is far outside what training saw; cut to its range",
    "text": "{} is text; read as a number",
    "wrong": "{} cannot be read; treated as missing",
}
_SAID |= {
    f"image {name}": f"images that {said}" + "; treated as missing" * (name in images.UNREAD) for name, said in images.TREATMENTS.items()
}
_SAID |= {f"text {name}": f"texts that {said}" + "; treated as missing" * (name == "empty") for name, said in texts.TREATMENTS.items()}
MAX_PIXELS = 1 << 20  # features of one image


class Batch(Mapping[str, NDArray[Any]]):
    """A columnar batch as `contracts.Columns`, which keeps its numbers in one block (n_columns, n), and the `ids` of texts, if made."""

    __slots__ = ("block", "codes", "ids", "rows", "texts")

    def __init__(
        self, rows: Mapping[str, int], block: Floats, codes: Ints, texts: Mapping[str, _Cells], ids: Mapping[str, Ints] | None = None
    ) -> None:
        self.rows, self.block, self.codes, self.texts, self.ids = rows, block, codes, texts, ids or {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name in self.rows:
            row: Floats = self.block[self.rows[name]]
            return row
        column = np.empty(self.block.shape[1], dtype=object)
        column[:] = self.texts[name]
        return column

    def __iter__(self) -> Iterator[str]:
        return chain(self.rows, self.texts)

    def __len__(self) -> int:
        return len(self.rows) + len(self.texts)


class Transform:
    """What preparation learnt, at work.

    `inputs` are the columns that it reads, `features` the features' names, `origin` the column that each comes from, `plain` the
    inputs that are numbers without separators (see `sources.read`), `images` those that are images, `texts` those that are texts.
    `shape` is that of the one image whose pixels are all features that there are, else None; `tokens` says which features are the
    token ids of a text, and `tokenizer` is what made them, None where there is none.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        names = [name for column in columns for name in column.features]
        self.features = tuple(_unique(names))
        self.origin = dict(zip(self.features, (c.name for c in columns for _ in c.features), strict=True))
        self.inputs = tuple(c.name for c in columns)
        self.plain = frozenset(c.name for c in columns if c.reads == "number" and not c.style)
        self._plan()

    def _plan(self) -> None:
        """Lay the columns out: numbers, truths, then dates as rows of one block; levels as one table of codes."""
        by_reads = {
            kind: [c for c in self.columns if c.reads == kind] for kind in ("number", "boolean", "date", "category", "image", "text")
        }
        numeric = by_reads["number"] + by_reads["boolean"] + by_reads["date"]
        self._plain = tuple(c for c in numeric if c.reads != "date")
        self._dates, self._categories = tuple(by_reads["date"]), tuple(by_reads["category"])
        self._plain_names, self._wanted = tuple(c.name for c in self._plain), set(self.inputs)
        self._rows = {c.name: row for row, c in enumerate(numeric)}
        self._truths = slice(len(by_reads["number"]), len(self._plain))

        first = dict(zip(self.inputs, np.cumsum([0] + [len(c.features) for c in self.columns])[:-1].tolist(), strict=True))
        used = [c for c in numeric if c.feature]
        self._used = np.array([self._rows[c.name] for c in used], dtype=np.int64)
        self._used_at = np.array([first[c.name] for c in used], dtype=np.int64)
        parts = np.array([[c.fill, c.low, c.high, c.center, c.scale] for c in used], dtype=np.float64).reshape(-1, 5)
        self._fill, self._low, self._high, self._center, self._scale = (parts[:, [i]] for i in range(5))
        self._flagged = np.array([i for i, c in enumerate(used) if c.flag], dtype=np.int64)
        self._flagged_at = np.array([first[c.name] + len(c.features) - 1 for c in used if c.flag], dtype=np.int64)
        self._dated = [(i, first[c.name] + 1, c.clock) for i, c in enumerate(used) if c.reads == "date"]
        self._images = tuple((c, first[c.name], math.prod(c.shape)) for c in by_reads["image"] if c.shape is not None)
        self.images = frozenset(c.name for c, _, _ in self._images)
        self.shape = self._images[0][0].shape if len(self._images) == 1 and self._images[0][2] == len(self.features) else None
        if len(by_reads["text"]) > 1:
            raise ValueError("more than one column of texts")
        self._texts = tuple((c, first[c.name], texts.Tokenizer(c.tokenizer)) for c in by_reads["text"])
        self.texts = frozenset(c.name for c, _, _ in self._texts)
        self.tokenizer = self._texts[0][2] if self._texts else None
        self._familiar = next((familiarity.read(c.familiar, made, self.inputs) for c, _, made in self._texts if c.familiar), None)
        self.tokens = next((Tokens(at, c.windows, c.length, made.vocabulary, made.pad) for c, at, made in self._texts), None)
        self._may_miss = np.array([[c.flag] for c in numeric], dtype=np.bool_).reshape(-1, 1)
        ranged = [(c.low, c.high) if c.feature and c.reads != "boolean" else (-np.inf, np.inf) for c in numeric]
        self._seen_low, self._seen_high = (np.array([[r[end]] for r in ranged], dtype=np.float64).reshape(-1, 1) for end in (0, 1))
        self._plan_levels(first)

    def _plan_levels(self, first: Mapping[str, int]) -> None:
        """Give each level of each column a code, one for missing and one for unseen; say per code which feature is 1."""
        hot: list[int] = []
        rank: list[float] = []
        self._lookup: list[dict[str | None, int]] = []
        self._unseen: list[int] = []
        never: list[int] = []  # the code of a missing value, where there was none in training; −1 elsewhere
        self._ranked_rows, self._ranked_at = [], []
        for row, column in enumerate(self._categories):
            at, n_levels, rare = first[column.name], len(column.levels), column.frequent < len(column.levels)
            self._lookup.append({level: len(hot) + i for i, level in enumerate(column.levels)} | {None: len(hot) + n_levels})
            self._unseen.append(len(hot) + n_levels + 1)
            never.append(len(hot) + n_levels if column.feature and not column.flag else -1)
            rare_at = at + column.frequent if rare and column.feature else -1
            own = column.frequent if column.feature else 0
            missing_at = at + len(column.features) - 1 if column.flag and column.feature else -1
            hot += [at + i if i < own else rare_at for i in range(n_levels)] + [missing_at, rare_at]
            rank += [i / max(n_levels, 1) for i in range(n_levels)] + [1.0, 1.0]
            if rare and column.feature:
                self._ranked_rows.append(row)
                self._ranked_at.append(rare_at + 1)
        self._never_missing = np.array(never, dtype=np.int64).reshape(-1, 1)
        self._hot, self._rank = np.array(hot, dtype=np.int64), np.array(rank, dtype=np.float32)

    # ------------------------------------------------------------------------------------------------------------- reading

    def read(self, raw: Mapping[str, _Cells], *, tokens: bool = True) -> tuple[Batch, tuple[Note, ...]]:
        """Return the columns that this transform knows, as `contracts.Columns`, and notes on what could not be used as it was.

        `raw` maps names to arrays (from Arrow: `prepare.raw_columns`) or lists (out of JSON), all of one length; other names are
        ignored, and a name that is not there is missing in all rows. Dates are days since 1970, UTC; truths 0 and 1. Without `tokens`
        no text is tokenized, for who wants no features, and none is noted as cut to its windows.
        """
        notes: list[Note] = []
        n = len(next(iter(raw.values()))) if raw else 0
        if not self._wanted <= raw.keys():
            raw = {**dict.fromkeys(self.inputs, [None] * n), **raw}
        block = np.empty((len(self._rows), n), dtype=np.float64)
        self._read_plain([raw[name] for name in self._plain_names], block[: len(self._plain)], notes)
        for row, column in enumerate(self._dates, len(self._plain)):
            block[row] = _days(column, raw[column.name], notes)
        self._check(block, notes)
        codes, cells = self._read_levels(raw, n, notes)
        cells |= {c.name: _pixels(c, raw[c.name], notes) for c, _, _ in self._images}
        ids = {}
        for column, _, made in self._texts:
            cells[column.name] = wording = _wording(column, raw[column.name], notes)
            if tokens:
                ids[column.name], cut = made.encode(wording, column.length, column.windows)
                _note(notes, column.name, "text cut", np.flatnonzero(cut), wording)
        return Batch(self._rows, block, codes, cells, ids), tuple(notes)

    def _read_levels(self, raw: Mapping[str, _Cells], n: int, notes: list[Note]) -> tuple[Ints, dict[str, _Cells]]:
        if not self._categories:
            return np.empty((0, n), dtype=np.int64), {}
        flat = array("q")
        read: dict[str, _Cells] = {}
        for column, lookup, unseen in zip(self._categories, self._lookup, self._unseen, strict=True):
            cells = _listed(raw[column.name])
            try:
                flat.extend([lookup[cell] for cell in cells])  # every cell is a known level, or None
            except (KeyError, TypeError):
                cells = _canonical(column.name, lookup, cells, notes)
                flat.extend([lookup.get(cell, unseen) for cell in cells])
                if column.feature:
                    _note(notes, column.name, "unseen", np.flatnonzero([cell not in lookup for cell in cells]), cells)
            read[column.name] = cells
        codes = np.array(flat, dtype=np.int64).reshape(len(self._categories), n)
        missing = codes == self._never_missing
        if missing.any():
            for row in np.flatnonzero(missing.any(axis=1)):
                name = self._categories[row].name
                for note in notes:  # what was unreadable is not noted twice
                    if note.kind == "wrong" and note.column == name:
                        missing[row, list(note.rows)] = False
                _note(notes, name, "missing", np.flatnonzero(missing[row]), read[name])
        return codes, read

    def _read_plain(self, cells: Sequence[_Cells], block: Floats, notes: list[Note]) -> None:
        """Fill the rows of numbers and truths: all at once where every cell is plain, else column by column."""
        if np.ndarray not in set(map(type, cells)):
            flat = list(chain.from_iterable(cells))
            if _PLAIN.issuperset(map(type, flat)):
                try:
                    block[:] = np.array(flat, dtype=np.float64).reshape(block.shape)
                    return
                except OverflowError:  # a whole number beyond float64
                    pass
        for row, column in enumerate(self._plain):
            block[row] = _numbers(column, cells[row], notes)

    def _check(self, block: Floats, notes: list[Note]) -> None:
        """Note and blank what is infinite or no truth; note what is far outside, or missing where nothing was in training."""
        truths = block[self._truths]
        wrong = (truths != 0) & (truths != 1) & ~np.isnan(truths)
        if wrong.any():
            self._note_block(notes, "wrong", wrong, truths, self._truths.start)
            truths[wrong] = np.nan
        lost = ~np.isfinite(block)
        if lost.any():
            infinite = np.isinf(block)
            self._note_block(notes, "infinite", infinite, block)
            block[infinite] = np.nan
            unexpected = lost & ~infinite & ~self._may_miss
            for note in notes:  # what was unreadable is not noted twice
                if note.kind == "wrong":
                    unexpected[self._rows[note.column], list(note.rows)] = False
            self._note_block(notes, "missing", unexpected, block)
        self._note_block(notes, "extreme", (block < self._seen_low) | (block > self._seen_high), block)

    def _note_block(self, notes: list[Note], kind: str, mask: Bools, block: Floats, start: int = 0) -> None:
        if mask.any():
            for row in np.flatnonzero(mask.any(axis=1)):
                name = (*self._plain, *self._dates)[start + row].name
                _note(notes, name, kind, np.flatnonzero(mask[row]), block[row])

    # ------------------------------------------------------------------------------------------------------------ applying

    def apply(self, columns: Columns) -> Floats:
        """Return the features (n, n_features) of read columns: float32, C-contiguous, finite."""
        batch = columns if isinstance(columns, Batch) and columns.rows is self._rows else self._batch(columns)
        n = batch.block.shape[1]
        out = np.zeros((n, len(self.features)), dtype=np.float32)
        for start in range(0, n, _CHUNK):
            part = slice(start, start + _CHUNK)
            self._apply_numbers(batch.block[:, part], out[part])
            self._apply_levels(batch.codes[:, part], out[part])
        for column, at, size in self._images:
            images.write_pixels(_listed(batch.texts[column.name]), size, out[:, at : at + size])
        for column, at, made in self._texts:
            ids = batch.ids.get(column.name)
            if ids is None:
                ids = made.each(_listed(batch.texts[column.name]), column.length, column.windows)
            end = at + ids.shape[1]
            out[:, at:end] = ids
            if column.measures:
                out[:, end : end + len(measures.NAMES)] = measures.measured(_listed(batch.texts[column.name]))
        return out

    def needs(self, names: Collection[str]) -> frozenset[str]:
        """Return the columns that names of payoffs and limits are read from: for `familiarity`, the text and the column of its scale."""
        if self._familiar is None or familiarity.NAME not in names:
            return frozenset(names)
        return frozenset({*names, *self.texts, self._familiar.scale} - {familiarity.NAME, ""})

    def only(self, names: Collection[str]) -> Transform:
        """Return a transform of those columns alone that these names are read from."""
        return Transform([column for column in self.columns if column.name in self.needs(names)])

    def named(self, columns: Columns, names: Collection[str]) -> dict[str, NDArray[Any]]:
        """Return what names of payoffs and limits stand for on read columns: these, and the familiarity of their texts."""
        found = self._familiar
        if found is None or familiarity.NAME not in names:
            return {name: columns[name] for name in names}
        (column, _, made), wording = self._texts[0], _listed(columns[next(iter(self.texts))])
        known = columns.ids.get(column.name) if isinstance(columns, Batch) else None

        def ids(rows: Sequence[int]) -> Ints:
            return made.encode([wording[i] for i in rows], column.length, column.windows)[0] if known is None else known[rows]

        levels = _listed(columns[found.scale]) if found.scale else [None] * len(wording)
        return {name: columns[name] for name in names if name != familiarity.NAME} | {familiarity.NAME: found.each(wording, levels, ids)}

    def _batch(self, columns: Columns) -> Batch:
        """Return columns that were put together by hand (a background value, say) as a batch."""
        n = len(next(iter(columns.values()))) if columns else 0
        block = np.empty((len(self._rows), n), dtype=np.float64)
        for name, row in self._rows.items():
            block[row] = columns[name]
        codes = np.empty((len(self._categories), n), dtype=np.int64)
        for row, column in enumerate(self._categories):
            codes[row] = list(map(self._lookup[row].get, columns[column.name].tolist(), repeat(self._unseen[row])))
        names = (*(c.name for c in self._categories), *self.images, *self.texts)
        return Batch(self._rows, block, codes, {name: columns[name] for name in names})

    def _apply_numbers(self, block: Floats, out: Floats) -> None:
        x = block[self._used]
        missing = np.isnan(x)
        x = np.where(missing, self._fill, x)
        np.maximum(x, self._low, out=x)
        np.minimum(x, self._high, out=x)
        for row, at, clock in self._dated:
            _calendar(x[row], clock, out[:, at:])
        x -= self._center
        x /= self._scale
        out[:, self._used_at] = x.T
        out[:, self._flagged_at] = missing[self._flagged].T

    def _apply_levels(self, codes: Ints, out: Floats) -> None:
        if not len(codes):
            return
        hot = self._hot[codes]
        column, row = np.nonzero(hot >= 0)
        out[row, hot[column, row]] = 1.0
        if self._ranked_rows:
            out[:, self._ranked_at] = self._rank[codes[self._ranked_rows]].T

    # --------------------------------------------------------------------------------------------------------------- state

    def to_json(self) -> dict[str, Any]:
        """Return plain data from which `from_json` makes the same transform."""
        return {"columns": [asdict(column) for column in self.columns]}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Transform:
        """Return the transform of `to_json`."""
        return cls(
            [Column(**{**column, **{k: tuple(column[k]) for k in _TUPLES if column.get(k) is not None}}) for column in state["columns"]]
        )


_TUPLES = ("levels", "shape", "stored")


def _pixels(column: Column, cells: _Cells, notes: list[Note]) -> list[bytes | None]:
    """Return the raw pixels of each image, None where there is none; note what was done to those that were not as they should be."""
    assert column.shape is not None
    out: list[bytes | None] = []
    odd: dict[str, list[int]] = {}
    for i, cell in enumerate(_listed(cells)):
        data, treatment = images.bytes_of(cell)
        if data is not None:
            image = images.of(data, column.shape, column.stored)
            data, treatment = None if image.pixels is None else image.pixels.tobytes(), f"image {image.treatment}"
        out.append(data)
        if treatment != "image ok":
            odd.setdefault(treatment, []).append(i)
    for treatment, rows in odd.items():
        _note(notes, column.name, treatment, np.array(rows), cells)
    return out


def _wording(column: Column, cells: _Cells, notes: list[Note]) -> list[str | None]:
    """Return each text, mended, None where there is none; note what was done to those that were not as they should be."""
    out: list[str | None] = []
    odd: dict[str, list[int]] = {}
    for i, cell in enumerate(_listed(cells)):
        text, done = texts.cleaned(cell)
        out.append(text)
        if text is None and not done and not column.flag:
            done = ("missing",)
        for treatment in done:
            odd.setdefault(f"text {treatment}" if treatment in texts.TREATMENTS else treatment, []).append(i)
    for kind, rows in odd.items():
        _note(notes, column.name, kind, np.array(rows), cells)
    return out


def _unique(names: Sequence[str]) -> Iterator[str]:
    """Yield the names, a repeated one with its number: a column `a = b` may stand beside level `b` of column `a`."""
    seen: Counter[str] = Counter()
    for name in names:
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name} ({seen[name]})"


def _calendar(days: Floats, clock: bool, out: Floats) -> None:
    """Write month, weekday (Monday first) and hour, each within 0 … 1, into the first columns of `out`."""
    day = np.floor(days)
    whole = day.astype(np.int64)
    out[:, 0] = whole.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12 / 11
    out[:, 1] = (whole + 3) % 7 / 6  # 1970 began on a Thursday
    if clock:
        out[:, 2] = days - day


def _note(notes: list[Note], column: str, kind: str, rows: Ints, cells: _Cells) -> None:
    if len(rows):
        notes.append(Note(column, kind, tuple(rows.tolist()), _shown(cells[rows[0]])))


def _shown(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:g}"
    try:
        return repr(cell)[:80]
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return f"a huge {type(cell).__name__}"


def _listed(cells: _Cells) -> Sequence[Any]:
    listed: Sequence[Any] = cells.tolist() if isinstance(cells, np.ndarray) else cells
    return listed


def _numbers(column: Column, cells: _Cells, notes: list[Note]) -> Floats:
    """Return the numbers (or truths) of a column, NaN where there is none."""
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "fiub":
        return cells.astype(np.float64)
    cells = _listed(cells)
    try:
        if column.reads == "boolean":
            return np.array([_TRUTHS[cell] for cell in cells], dtype=np.float64)
        if _PLAIN.issuperset(map(type, cells)):
            return np.array(cells, dtype=np.float64)
    except (KeyError, TypeError, OverflowError):  # a cell that must be looked at: an odd truth, a whole number beyond float64
        pass
    return _each(column, cells, _truth if column.reads == "boolean" else _number, notes)


def _days(column: Column, cells: _Cells, notes: list[Note]) -> Floats:
    """Return the days since 1970 of a column of dates, NaN where there is none."""
    if isinstance(cells, np.ndarray) and cells.dtype.kind == "M":
        us = cells.astype("datetime64[us]").view(np.int64)
        return np.where(np.isnat(cells), np.nan, us.astype(np.float64) / DAY_US)
    return _each(column, _listed(cells), _day, notes)


def _each(column: Column, cells: Sequence[Any], convert: Callable[[Any, str], tuple[float, str]], notes: list[Note]) -> Floats:
    """Return each cell converted, and note by kind those that were not as they should be."""
    out = np.empty(len(cells), dtype=np.float64)
    odd: dict[str, list[int]] = {}
    for i, cell in enumerate(cells):
        out[i], kind = convert(cell.item() if isinstance(cell, np.generic) else cell, column.style)
        if kind:
            odd.setdefault(kind, []).append(i)
    for kind, rows in odd.items():
        _note(notes, column.name, kind, np.array(rows), cells)
    return out


def _number(cell: Any, style: str) -> tuple[float, str]:
    if cell is None:
        return np.nan, ""
    if isinstance(cell, str):
        if values.is_missing(cell, numeric=True):
            return np.nan, ""
        number = values.number(cell, style or "plain")
        return (np.nan, "wrong") if number is None else (number, "text")
    if isinstance(cell, int | float | Decimal):
        try:
            return float(cell), ""
        except OverflowError:
            return np.inf if cell > 0 else -np.inf, ""
        except ValueError:  # a signalling NaN
            return np.nan, "wrong"
    return np.nan, "wrong"


def _truth(cell: Any, style: str) -> tuple[float, str]:
    truth = values.truth(cell) if isinstance(cell, str) else None
    if truth is not None:
        return truth, ""
    number, kind = _number(cell, style)
    return (number, kind) if number in (0.0, 1.0) or np.isnan(number) else (np.nan, "wrong")


def _day(cell: Any, style: str) -> tuple[float, str]:
    if cell is None or (isinstance(cell, str) and values.is_missing(cell, numeric=True)) or (isinstance(cell, float) and np.isnan(cell)):
        return np.nan, ""
    us = values.moment_us(cell, style)
    return (np.nan, "wrong") if us is None else (us / DAY_US, "")


def _canonical(column: str, known: Mapping[str | None, int], cells: Sequence[Any], notes: list[Note]) -> list[str | None]:
    """Return canonical texts, None where missing: a known level is never missing, whatever it looks like."""
    texts: list[str | None] = []
    wrong = []
    for i, cell in enumerate(cells):
        text = values.text_of(cell.item() if isinstance(cell, np.generic) else cell)
        if text is None and cell is not None:
            wrong.append(i)
        texts.append(None if text is None or (text not in known and values.is_missing(text, numeric=False)) else text)
    _note(notes, column, "wrong", np.array(wrong, dtype=np.int64), cells)
    return texts
