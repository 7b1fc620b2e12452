"""What feedback looks at: a case's decisions and what is known of them, column by column."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from makegood.contracts import Bools, Floats, Ints
from makegood.errors import DataError, Problem
from makegood.ledger import mirror
from makegood.ledger.columns import SAID
from makegood.ledger.events import MICRO
from makegood.model import Raw
from makegood.monitoring.maturity import NEVER

_BLOCK = 1 << 16  # rows that are looked at, at once, for what has not occurred yet


@dataclass(frozen=True)
class Shadowed:
    """What a model would have done, all (n,): `option` −1 where it scored nothing (`promise` NaN there)."""

    option: Ints
    promise: Floats


@dataclass(frozen=True, eq=False)
class Log:
    """A case's decisions in the order in which they were made; all (n,) unless said. Money is in `unit`, times microseconds, UTC.

    `options` are all actions that could be done, `names` the bundles that decided or scored; `model` says by position which decided and
    `canary` whether as one. `entity` codes whom a decision is about; one about nobody named has a code of its own. `decided` and `done`
    (after the last override; −1: no option) are positions in `options`, `chances` (n, n_options) the logged e(a|x). `known_at` is when
    the first word on the outcome arrived (`maturity.NEVER`: none did); `first` what was done paid by that word and `paid` by the last,
    NaN where nobody knows, as where nothing was revealed. `outcome` is the last word itself: a number, or a position in `classes`; NaN
    where there is none. `shadows` are by position in `names`. `rows` returns the inputs of the rows at given positions, as columns;
    `readable` says of which decisions there are any (kept, and not erased).
    """

    case: str
    unit: str
    options: tuple[str, ...]
    names: tuple[str, ...]
    classes: tuple[str, ...]
    at: Ints
    entity: Ints
    model: Ints
    canary: Bools
    decided: Ints
    done: Ints
    promise: Floats
    chances: Floats
    known_at: Ints
    first: Floats
    paid: Floats
    outcome: Floats
    readable: Bools
    rows: Callable[[Ints], Raw]
    shadows: Mapping[int, Shadowed] = field(default_factory=dict)
    heard: Floats | None = None

    def __len__(self) -> int:
        return len(self.at)


def load(ledger: str, case: str, now: int, cache: Path | None = None) -> Log:
    """Return a case's decisions in a ledger (a URL, or the path of its file) as they were known at `now`, microseconds.

    What happened later does not count, what was archived is not there. An outcome is known from when the ledger got it, whatever its sender
    says. `cache` is a folder in which the decisions are kept as columns from one look to the next; without it all events are read.
    A correction outweighs every outcome, and the last one those before it. Where an override came after a word on the outcome, the
    ledger does not know what was paid (`pricing.repriced` does). Raises `LedgerError` where the ledger cannot be read, `DataError` where
    the decisions are in more than one unit, or outcomes are classes here and numbers there.
    """
    found = _Found(mirror.opened(ledger, case, None if cache is None else mirror.beside(cache, ledger, case)), now)
    made, inputs, order = found.decisions, found.inputs, found.order
    options, names, classes = found.options(), found.names(), found.classes(case)
    decided = made.texts("option").among(options)
    return Log(
        case=case,
        unit=found.unit(case),
        options=options,
        names=names,
        classes=classes,
        at=made.numbers("at"),
        entity=found.entities(),
        model=made.texts("model").among(names),
        canary=made.numbers("canary"),
        decided=decided,
        promise=made.money("promise"),
        chances=found.chances(decided, options),
        readable=inputs.kept[order],
        rows=lambda rows: _Columns(inputs, order[rows]),
        shadows=found.shadows(names, options),
        **found.known(decided, options, classes),
    )


def widened(log: Log, options: Iterable[str]) -> Log:
    """Return a log that knows further options, which nobody chose in it.

    >>> nothing, none = np.empty(0, dtype=np.int64), np.empty(0)
    >>> log = Log("a", "EUR", ("yes",), (), (), *(nothing,) * 6, none, np.empty((0, 1)), nothing, *(none,) * 4, lambda rows: {})
    >>> widened(log, ["no", "yes"]).options
    ('yes', 'no')
    """
    new = tuple(name for name in dict.fromkeys(options) if name not in log.options)
    if not new:
        return log
    return replace(log, options=log.options + new, chances=np.hstack([log.chances, np.zeros((len(log), len(new)))]))


# ------------------------------------------------------------------------------------------------------------------ reading


class _Columns(Mapping[str, NDArray[Any]]):
    """The inputs of some decisions; each column is read when it is asked for."""

    def __init__(self, inputs: mirror.Inputs, rows: Ints) -> None:
        self._inputs, self._rows = inputs, rows
        self._read: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._inputs.names:
            raise KeyError(name)
        if name not in self._read:
            self._read[name] = self._inputs.column(name, self._rows)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._inputs.names)

    def __len__(self) -> int:
        return len(self._inputs.names)


@dataclass(frozen=True)
class _Codes:
    """Texts (n,) as positions in `levels`, −1 where there is none."""

    codes: Ints
    levels: Sequence[str]

    def occurring(self) -> list[str]:
        """Return the levels that occur, in order of their first appearance.

        >>> _Codes(np.array([2, -1, 0, 2]), ["a", "b", "c"]).occurring()
        ['c', 'a']
        """
        found: list[int] = []
        seen = np.append(np.zeros(len(self.levels), dtype=np.bool_), True)  # −1, no text, is the last
        for start in range(0, len(self.codes), _BLOCK):
            if seen.all():
                break
            part = self.codes[start : start + _BLOCK]
            fresh, first = np.unique(part[~seen[part]], return_index=True)
            seen[fresh] = True
            found += fresh[np.argsort(first)].tolist()
        return [self.levels[code] for code in found]

    def among(self, names: Sequence[str]) -> Ints:
        """Return the position of each text among `names`, −1 where it is not among them."""
        place = {name: i for i, name in enumerate(names)}
        return np.array([*(place.get(level, -1) for level in self.levels), -1], dtype=np.int64)[self.codes]


class _Lines:
    """Some lines of a table, in an order (None: all, as they lie); `row` tells by position which decisions they are about, where they are
    none themselves."""

    def __init__(self, table: pa.Table, lines: Ints | None, row: Ints) -> None:
        self._table, self._lines, self.row = table, lines, row
        self._codes: dict[str, _Codes] = {}

    def numbers(self, name: str, missing: int | None = None) -> NDArray[Any]:
        """Return a column of numbers or truths; what is null is `missing`, or NaN (then all are float64)."""
        column = self._table[name] if missing is None else self._table[name].fill_null(missing)
        return self._of(column.to_numpy())

    def money(self, name: str) -> Floats:
        """Return a column of millionths as money, NaN where null."""
        return np.asarray(self.numbers(name) / MICRO)

    def texts(self, name: str) -> _Codes:
        """Return a column of texts."""
        if name not in self._codes:
            column = self._table[name].unify_dictionaries().combine_chunks()
            codes = column.indices.fill_null(-1) if column.null_count else column.indices
            self._codes[name] = _Codes(self._of(codes.to_numpy()), column.dictionary.to_pylist())
        return self._codes[name]

    def _of(self, column: NDArray[Any]) -> NDArray[Any]:
        return column if self._lines is None else np.asarray(column[self._lines])


def _ordered(table: pa.Table, now: int) -> Ints:
    """Return which lines of a table were written by now, in order of time; of one moment, in that of the chains."""
    at, partition, seq = (table[name].to_numpy() for name in ("at", "partition", "seq"))
    if len(at) == 0 or partition.min() == partition.max():  # the lines of one partition are in the order of its chain
        order = np.arange(len(at)) if bool((at[1:] >= at[:-1]).all()) else np.argsort(at, kind="stable")
    else:
        order = np.lexsort((seq, partition, at))
    return np.asarray(order[: np.searchsorted(at[order], now, side="right")])


def _lines(table: pa.Table, lines: Ints, row: Ints) -> _Lines:
    """Return lines of a table; all of them, in the order in which they lie, need no copy."""
    whole = len(lines) == len(table) and bool((lines[1:] > lines[:-1]).all())
    return _Lines(table, None if whole else lines, row)


class _Found:
    """A mirror's tables as they were at a moment: the decisions made by then, and what is said of them."""

    def __init__(self, found: mirror.Mirror, now: int) -> None:
        order = _ordered(found.decisions, now)
        place = np.full(len(found.decisions), -1, dtype=np.int64)
        place[order] = np.arange(len(order))
        self.order = order
        self.decisions = _lines(found.decisions, order, order[:0])
        self.odds, self.tried = (_about(table, place, np.arange(len(table))) for table in (found.odds, found.tried))
        self.said = _about(found.said, place, _ordered(found.said, now))
        self.inputs = found.inputs

    def unit(self, case: str) -> str:
        """Return the unit of money; raises `DataError` where there are several."""
        units = self.decisions.texts("unit").occurring()
        if len(units) > 1:
            mend = "give the case another name when its unit changes"
            raise DataError(Problem(f"decisions of {case}", f"money in {', '.join(units)}", "one unit", mend))
        return units[0] if units else ""

    def names(self) -> tuple[str, ...]:
        """Return who decided, then who only scored, each in order of first appearance."""
        return tuple(dict.fromkeys(name for lines in (self.decisions, self.tried) for name in lines.texts("model").occurring()))

    def options(self) -> tuple[str, ...]:
        """Return what could be done, in order of first appearance; then what was done, or would have been, all the same."""
        menus = (msgspec.json.decode(menu) for menu in self.decisions.texts("menu").occurring())
        more = (lines.texts("option").occurring() for lines in (self.decisions, self.said, self.tried))
        return tuple(dict.fromkeys(name for names in (*menus, *more) for name in names))

    def classes(self, case: str) -> tuple[str, ...]:
        """Return the classes of the outcome, as predictions name them; () where it is a number, or none came yet.

        Raises `DataError` where there are both.
        """
        values = self.said.texts("value").occurring()
        if values and not np.isnan(self.said.numbers("number")).all():
            mend = "give the case another name when its outcome is another"
            raise DataError(Problem(f"outcomes of {case}", f"numbers, and classes such as {values[0]}", "one kind of outcome", mend))
        reports = (msgspec.json.decode(report) for report in self.decisions.texts("report").occurring() if values)
        return tuple(dict.fromkeys(name for names in (*reports, values) for name in names))

    def entities(self) -> Ints:
        """Return whole numbers for whom decisions are about, in order of first appearance; a new one where nobody is named."""
        hashes = self.decisions.numbers("entity", missing=-1)
        coded = pa.array(hashes).dictionary_encode()
        codes, nobody = np.asarray(coded.indices).astype(np.int64), hashes < 0
        codes[nobody] = len(coded.dictionary) + np.arange(int(nobody.sum()))
        return codes

    def chances(self, decided: Ints, options: Sequence[str]) -> Floats:
        """Return the logged chance of each option (n, n_options): 1 of what was decided, where no other could be."""
        chances = np.zeros((len(decided), len(options)))
        chances[np.arange(len(decided)), decided] = 1.0
        chances[self.odds.row] = 0.0
        chances[self.odds.row, self.odds.texts("option").among(options)] = self.odds.numbers("chance")
        return chances

    def shadows(self, names: Sequence[str], options: Sequence[str]) -> dict[int, Shadowed]:
        """Return what each model that scored without deciding would have done."""
        who, what, promise = self.tried.texts("model").among(names), self.tried.texts("option").among(options), self.tried.money("promise")
        out = {}
        for model in np.unique(who).tolist():
            mine = who == model
            option, promised = np.full(len(self.order), -1, dtype=np.int64), np.full(len(self.order), np.nan)
            option[self.tried.row[mine]], promised[self.tried.row[mine]] = what[mine], promise[mine]
            out[model] = Shadowed(option, promised)
        return out

    def known(self, decided: Ints, options: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
        """Return the columns of a log that tell what was done in the end, and what came of it."""
        said, n = self.said, len(decided)
        kind, at = said.numbers("kind"), np.append(said.numbers("at"), np.iinfo(np.int64).min)
        corrected, overridden = kind == SAID.index("correction"), kind == SAID.index("override")
        first, over = _first(said.row, ~overridden, n), _last(said.row, overridden, n)
        last, correction = _last(said.row, kind == SAID.index("outcome"), n), _last(said.row, corrected, n)
        last = np.where(correction >= 0, correction, last)
        value = said.texts("value").among(classes)
        meant = np.append(np.where(value >= 0, value, said.numbers("number")), np.nan)
        realised = np.append(said.money("realised"), np.nan)
        outcome, heard = meant[last], meant[first]
        return {
            "done": np.where(over >= 0, np.append(said.texts("option").among(options), -1)[over], decided),
            "known_at": np.where(first >= 0, np.maximum(at[first], self.decisions.numbers("at")), NEVER),
            "first": np.where(at[over] <= at[first], realised[first], np.nan),
            "paid": np.where(at[over] <= at[last], realised[last], np.nan),
            "outcome": outcome,
            "heard": None if np.array_equal(outcome, heard, equal_nan=True) else heard,
        }


def _about(table: pa.Table, place: Ints, lines: Ints) -> _Lines:
    """Return those of some lines that are about decisions with a place."""
    row = place[table["row"].to_numpy()[lines]]
    there = row >= 0
    return _lines(table, lines[there], row[there])


def _first(row: Ints, among: Bools, n: int) -> Ints:
    """Return the first line that is about each of n decisions, −1 (the end of what the lines hold) where none is."""
    lines = np.flatnonzero(among)[::-1]
    out = np.full(n, -1, dtype=np.int64)
    out[row[lines]] = lines  # of several the last assignment stays
    return out


def _last(row: Ints, among: Bools, n: int) -> Ints:
    """Return the last line that is about each of n decisions, −1 where none is."""
    lines = np.flatnonzero(among)
    out = np.full(n, -1, dtype=np.int64)
    out[row[lines]] = lines
    return out
