"""Which rows a model may learn from, and which are kept to value it.

With `data.time` the test is the last fifth of the rows in time, and nothing else is allowed; with `data.holdout` it is the rows that the
data name. Without either, fewer than 20,000 rows are cross-fitted in ten folds, and more are split 80/20; rows of one `data.group` are
never split apart, and neither are equal rows, or rows with equal images. Rows whose text nearly repeats one of the test
(`data.text`) are not learnt from.

Where a row goes is a pure function of the seed and of the row's (or its group's) content, not of its place in the file: shuffling
the file changes nothing. The published hash is that of the test rows' content, whatever the seed or the folds.
"""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from makegood.contracts import Fold, Splits
from makegood.data.aggregates import as_numbers, as_text
from makegood.data.alike import Alike
from makegood.data.galleries import PARTS
from makegood.data.identity import Hashes, looks, mixed, row_hashes
from makegood.errors import CaseError, DataError, Problem

if TYPE_CHECKING:
    from makegood.case import Case, Data
    from makegood.contracts import Bools, Floats, Ints
    from makegood.data.outcome import Outcome

Method = Literal["auto", "time", "declared", "group", "stratified", "crossfit"]

ONE_SPLIT = 20_000  # rows from which one split is precise enough (MATHEMATICS §2)
FOLDS = 10
INNER = 5  # folds within the rows learnt from
TEST_SHARE = 0.2
MIN_ROWS = 50  # to learn from, and in all
MIN_TEST = 20
MIN_GROUPS = 6  # fewer give no interval (MATHEMATICS §2)
BLOCKS = 50  # time blocks in the test, the units of resampling
MAX_UNTIMED = 0.05


def make(outcome: Outcome, case: Case, table: pa.Table, *, seed: int = 0, method: Method = "auto") -> Splits:
    """Return the outer split: over rows whose outcome is known, positions in `table`.

    Rows whose text nearly repeats one of a fold's test are in no fold's train beside it. Raises `CaseError` when a random split is asked
    for and the case declares a time, and `DataError` when rows, groups, distinct times or classes are too few, saying how many are needed.
    """
    made = _made(outcome, case, table, seed, method)
    return made if case.data.text is None else _without_repeats(made, outcome, table, case.data.text.column)


def _made(outcome: Outcome, case: Case, table: pa.Table, seed: int, method: Method) -> Splits:
    data = case.data
    if data.time is not None and method not in ("auto", "time"):
        expected = f"a split out of time, since {data.time!r} is declared"
        raise CaseError(Problem("data.time", f"a {method} split", expected, "a random one would learn from the future"))
    if method == "time" and data.time is None:
        raise CaseError(Problem("data.time", "nothing", "a column of times, for a split out of time", "declare data.time"))
    rows = np.flatnonzero(outcome.known)
    if data.holdout is not None and method not in ("auto", "declared"):
        expected = f"the split that {data.holdout!r} declares"
        raise CaseError(Problem("data.holdout", f"a {method} split", expected, "leave data.holdout out for another"))
    if method == "declared" and data.holdout is None:
        raise CaseError(Problem("data.holdout", "nothing", "a column of train and test, for a declared split", "declare data.holdout"))
    if len(rows) < MIN_ROWS:
        raise DataError(Problem("data", f"{len(rows)} rows with a known outcome", f"at least {MIN_ROWS}", "bring more rows"))
    groups = None if data.group is None else _groups(table, data.group)
    if data.time is not None:
        return _out_of_time(outcome, case, table, rows, seed)
    if data.holdout is not None:
        return _declared(outcome, case, table, rows, seed)
    keys = _keys(looks(table), seed)
    once = method in ("group", "stratified") or (method == "auto" and len(rows) >= ONE_SPLIT)
    k = round(1 / TEST_SHARE) if once else FOLDS
    folds, detail = _folds(outcome, rows, keys, None if groups is None else _keyed(groups, seed), k)
    name = ("stratified" if groups is None else "group") if once else "crossfit"
    folds = folds[:1] if once else folds
    _check_folds(folds, outcome, name)
    what = "80/20" if once else f"{len(folds)} folds"
    clusters = None if groups is None else groups.codes
    return Splits(name, folds, _published(table, folds), seed, clusters, detail=f"{what}, {detail}")


def _without_repeats(made: Splits, outcome: Outcome, table: pa.Table, name: str) -> Splits:
    alike = Alike(as_text(table[name]).to_pylist())
    folds, left_out = [], set[int]()
    for fold in made.folds:
        repeats = alike.among(fold.train, fold.test)
        left_out |= {*fold.train[repeats].tolist()}
        folds.append(Fold(fold.train[~repeats], fold.test))
    if not left_out:
        return made
    _check_folds(tuple(folds), outcome, made.method)
    detail = f"{made.detail}; {len(left_out)} rows left out where their {name} nearly repeats one of the test"
    return replace(made, folds=tuple(folds), repeated=len(left_out), detail=detail)


def inner(splits: Splits, outcome: Outcome, case: Case, table: pa.Table, rows: Ints, *, k: int = INNER) -> tuple[Fold, ...]:
    """Return the folds within the train rows `rows` (positions in `table`), as positions in `rows`.

    One fold, the last fifth in time, where there is a time; else k stratified folds, by group where there is one. Outcomes not
    yet known when the validation rows begin are left out, as in the outer split.
    """
    data = case.data
    groups = None if data.group is None else _groups(table, data.group)
    if data.time is not None:
        cut = _cut(_Clock.of(table, data.time, data.outcome_delay), rows, groups)
        folds: tuple[Fold, ...] = (Fold(cut.train, cut.test),)
    else:
        seed = splits.seed + 1  # folds within must not repeat the folds without
        keys = _keys(_looks(table, data), seed)
        folds, _ = _folds(outcome, rows, keys, None if groups is None else _keyed(groups, seed), k)
    _check_folds(folds, outcome, "inner")
    place = np.full(table.num_rows, -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    return tuple(Fold(place[fold.train], place[fold.test]) for fold in folds)


# --------------------------------------------------------------------------------------------------------------- in folds


@dataclass(frozen=True)
class _Groups:
    """`codes` (n,) of each row's group, and a `key` (n_groups,) for each group."""

    name: str
    codes: Ints
    keys: Hashes


def _groups(table: pa.Table, name: str) -> _Groups:
    keys, codes = np.unique(row_hashes(table.select([name])), return_inverse=True)  # rows without a group are one group
    return _Groups(name, codes.astype(np.int64), keys)


def _keys(hashes: Hashes, seed: int) -> Hashes:
    return mixed(hashes ^ mixed(np.array([seed % 2**64], dtype=np.uint64)))


def _keyed(groups: _Groups, seed: int) -> _Groups:
    return _Groups(groups.name, groups.codes, _keys(groups.keys, seed))


def _folds(outcome: Outcome, rows: Ints, keys: Hashes, groups: _Groups | None, k: int) -> tuple[tuple[Fold, ...], str]:
    """Return k folds over `rows`, and how they were made, in words."""
    if groups is None:
        fold, detail = _stratified(keys[rows], _gathered(keys[rows], _strata(outcome, rows)), k)
    else:
        present, codes = np.unique(groups.codes[rows], return_inverse=True)
        if len(present) < MIN_GROUPS:
            where, mend = f"data.group: {groups.name!r}", "leave data.group out, or bring more groups"
            raise DataError(Problem(where, f"{len(present)} groups", f"at least {MIN_GROUPS}", mend))
        fold = _balanced(codes, groups.keys[present], min(k, len(present)))
        detail = f"rows of one {groups.name} together"
    return tuple(Fold(rows[fold != f], rows[fold == f]) for f in range(int(fold.max()) + 1)), detail


def _strata(outcome: Outcome, rows: Ints) -> Ints:
    """Return what folds are balanced by: the class, or the tenth of a number outcome."""
    values = outcome.values[rows]
    if outcome.task.kind == "classes":
        return values.astype(np.int64)
    return np.searchsorted(np.quantile(values, np.linspace(0, 1, 11)[1:-1]), values, side="right")


def _gathered(keys: Hashes, strata: Ints) -> Ints:
    """Return the strata (n,) with rows of equal keys in the first of theirs: one image with two labels stays on one side."""
    distinct, at = np.unique(keys, return_inverse=True)
    first = np.full(len(distinct), np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(first, at, strata)
    return np.asarray(first[at])


def _stratified(keys: Hashes, strata: Ints, k: int) -> tuple[Ints, str]:
    """Return the fold (n,) of each row: each stratum, ordered by key, is cut into k runs; equal rows (equal keys) stay together.

    Where so many rows are equal that folds would come out uneven, equal rows are parted after all, and the words say so.
    """
    order = np.lexsort((keys, strata))
    first = np.r_[True, strata[order][1:] != strata[order][:-1]]
    start = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    place = np.arange(len(order)) - start
    size = np.bincount(strata, minlength=int(strata.max()) + 1)[strata[order]]
    run = np.r_[True, keys[order][1:] != keys[order][:-1]] | first
    tied = np.maximum.accumulate(np.where(run, np.arange(len(order)), 0)) - start
    folds = np.empty((2, len(order)), dtype=np.int64)
    folds[0, order], folds[1, order] = tied * k // size, place * k // size
    sizes = np.bincount(folds[0], minlength=k)
    if sizes.min() >= 0.5 * len(order) / k and sizes.max() <= 1.5 * len(order) / k:
        return folds[0], "stratified by outcome"
    return folds[1], "stratified by outcome; many rows are equal, and equal rows may stand on both sides"


def _balanced(codes: Ints, keys: Hashes, k: int) -> Ints:
    """Return the fold (n,) of each row: groups, ordered by key, each go to the fold with the fewest rows so far."""
    sizes = np.bincount(codes, minlength=len(keys))
    fold_of = np.empty(len(keys), dtype=np.int64)
    heap = [(0, f) for f in range(k)]
    for group in np.argsort(keys, kind="stable"):
        filled, f = heap[0]
        fold_of[group] = f
        heapq.heapreplace(heap, (filled + int(sizes[group]), f))
    return fold_of[codes]


def _check_folds(folds: tuple[Fold, ...], outcome: Outcome, name: str) -> None:
    """Raise `DataError` when a fold cannot be learnt from, or when one split's test cannot be valued."""
    where, least = f"the {name} split", MIN_ROWS // 2
    for fold in folds:
        if len(fold.train) < least or not len(fold.test):
            got, expected = f"{len(fold.train)} rows to learn from", f"at least {least}, and some to test on"
            raise DataError(Problem(where, got, expected, "bring more rows"))
        if outcome.task.kind != "classes":
            continue
        for code, level in enumerate(outcome.task.classes):
            if not (outcome.values[fold.train] == code).any():
                got, expected = f"no row of {level!r} to learn from", "each class among the rows to learn from"
                raise DataError(Problem(where, got, expected, "bring more rows, or merge classes"))
        if len(folds) == 1 and name != "inner" and len(np.unique(outcome.values[fold.test])) < 2:
            level = outcome.task.classes[int(outcome.values[fold.test][0])]
            got = f"only {level!r} among the {len(fold.test)} test rows"
            raise DataError(Problem(where, got, "at least two classes", "bring more rows"))


def _published(table: pa.Table, folds: tuple[Fold, ...]) -> str:
    """Return the SHA-256 of the test rows' content; the same for any order, seed and number of folds."""
    rows = np.unique(np.concatenate([fold.test for fold in folds]))
    return hashlib.sha256(np.sort(row_hashes(table.take(pa.array(rows)))).tobytes()).hexdigest()


# --------------------------------------------------------------------------------------------------------------- declared


def _looks(table: pa.Table, data: Data) -> Hashes:
    """Return what a model could recognise each row by (n,): where a row is said to belong is no part of it."""
    return looks(table if data.holdout is None else table.drop_columns([data.holdout]))


def _declared(outcome: Outcome, case: Case, table: pa.Table, rows: Ints, seed: int) -> Splits:
    """Return the split that a column declares: the test stays whole, and rows that would tell of it are not learnt from."""
    data = case.data
    assert data.holdout is not None
    parts = _parts(data.holdout, table[data.holdout].take(pa.array(rows)))
    test, before = rows[parts == "test"], rows[parts != "test"]
    groups = None if data.group is None else _groups(table, data.group)
    related: Bools = np.zeros(len(before), dtype=np.bool_)
    if groups is not None:
        related = np.isin(groups.codes[before], groups.codes[test])
    keys = _looks(table, data)
    equal = np.isin(keys[before], keys[test]) & ~related
    detail = f"tested on the rows whose {data.holdout} is test, trained on the others"
    detail += f"; {related.sum()} rows left out, since their {data.group} is in the test" if related.any() else ""
    detail += f"; {equal.sum()} rows left out, since they look like a row of the test" if equal.any() else ""
    train = before[~(related | equal)]
    for part, needed, what in ((train, MIN_ROWS, "to learn from"), (test, MIN_TEST, "to test on")):
        if len(part) < needed:
            raise DataError(Problem("the declared split", f"{len(part)} rows {what} ({detail})", f"at least {needed}", "bring more rows"))
    folds = (Fold(train, test),)
    _check_folds(folds, outcome, "declared")
    return Splits("declared", folds, _published(table, folds), seed, None if groups is None else groups.codes, detail=detail)


def _parts(name: str, column: pa.ChunkedArray) -> NDArray[np.object_]:
    """Return train, valid or test of each row (n,); raises `DataError` for any other value: it may be a test row by another name."""
    texts = as_text(column).to_pylist()
    parts = [None if text is None else PARTS.get(text.strip().lower()) for text in texts]
    if None in parts:
        wrong = texts[parts.index(None)]
        got = f"nothing in {texts.count(None)} of {len(texts)} rows" if wrong is None else wrong
        mend = "write one of them in each row, or leave data.holdout out"
        raise DataError(Problem(f"data.holdout: {name!r}", got, "train, valid or test in every row", mend))
    return np.array(parts, dtype=object)


# ---------------------------------------------------------------------------------------------------------------- in time


@dataclass(frozen=True)
class _Clock:
    """`at` (n,) when each row was decided, NaN unknown; `matures` (n,) when its outcome was known; `dates`: in days since 1970."""

    at: Floats
    matures: Floats
    dates: bool

    @classmethod
    def of(cls, table: pa.Table, name: str, delay_s: float) -> _Clock:
        column = table[name]
        dates = bool(pa.types.is_timestamp(column.type))
        if not dates and not pa.types.is_integer(column.type) and not pa.types.is_floating(column.type):
            example = str(column.drop_null()[0].as_py()) if column.null_count < len(column) else "nothing"
            expected = "dates such as 2024-01-31, or numbers in time order"
            raise DataError(Problem(f"data.time: {name!r}", example, expected, "name another column"))
        if not dates and delay_s:
            expected = "dates, since data.outcome_delay is declared"
            raise DataError(Problem(f"data.time: {name!r}", "numbers", expected, "write the times as dates"))
        at = np.asarray(as_numbers(column).to_numpy(), dtype=np.float64)
        return cls(at, at + delay_s / 86_400, dates)

    def shown(self, at: float) -> str:
        """Return a moment as text."""
        if not self.dates:
            return f"{at:g}"
        when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=at)
        return f"{when:%Y-%m-%d}" if at == np.floor(at) else f"{when:%Y-%m-%d %H:%M}"


@dataclass(frozen=True)
class _Cut:
    """Rows before and after a moment: `train` whose outcome was known by then, `test` from then on."""

    start: float
    train: Ints
    test: Ints
    purged: int
    parted: int  # rows before, of groups that are in the test


def _cut(clock: _Clock, rows: Ints, groups: _Groups | None) -> _Cut:
    """Return the cut at the distinct time that leaves nearest to a fifth of the rows behind it; equal times stay together."""
    at = clock.at[rows]
    times, counts = np.unique(at, return_counts=True)
    if len(times) < 2:
        mend = "name another column, or leave data.time out"
        raise DataError(Problem("data.time", "one time in all rows", "at least two different times", mend))
    behind = 1 - (np.cumsum(counts) - counts) / len(at)
    start = float(times[1:][np.argmin(np.abs(behind[1:] - TEST_SHARE))])
    test, before = at >= start, at < start
    train = before & (clock.matures[rows] <= start)
    purged, parted = int((before & ~train).sum()), 0
    if groups is not None:
        apart: Bools = ~np.isin(groups.codes[rows], groups.codes[rows][test])
        parted = int((train & ~apart).sum())
        train &= apart
    return _Cut(start, rows[train], rows[test], purged, parted)


def _out_of_time(outcome: Outcome, case: Case, table: pa.Table, rows: Ints, seed: int) -> Splits:
    data = case.data
    assert data.time is not None
    clock = _Clock.of(table, data.time, data.outcome_delay)
    timed = rows[~np.isnan(clock.at[rows])]
    untimed = len(rows) - len(timed)
    if untimed > MAX_UNTIMED * len(rows):
        got = f"no time in {untimed} of {len(rows)} rows"
        raise DataError(Problem(f"data.time: {data.time!r}", got, "a time in at least 95% of the rows", "fill it in"))
    groups = None if data.group is None else _groups(table, data.group)
    cut = _cut(clock, timed, groups)
    left_out = f" ({cut.purged} rows were not yet known when the test began; {cut.parted} are of groups in the test)"
    for part, needed, what in ((cut.train, MIN_ROWS, "to learn from"), (cut.test, MIN_TEST, "to test on")):
        if len(part) < needed:
            raise DataError(Problem("the time split", f"{len(part)} rows {what}{left_out}", f"at least {needed}", "bring a longer history"))
    folds = (Fold(cut.train, cut.test),)
    _check_folds(folds, outcome, "time")
    order = np.full(len(clock.at), -1, dtype=np.int64)
    has_time = ~np.isnan(clock.at)
    order[has_time] = np.unique(clock.at[has_time], return_inverse=True)[1]
    clusters = groups.codes if groups is not None else _blocks(clock.at, cut)
    end = clock.shown(float(clock.at[cut.test].max()))
    detail = f"trained on {data.time} before {clock.shown(cut.start)}, tested from then until {end}"
    detail += f"; {cut.purged} rows left out, since their outcome was not known by then" if cut.purged else ""
    detail += f"; {cut.parted} rows left out, since their {data.group} is in the test" if cut.parted else ""
    detail += f"; {untimed} rows left out, since they have no time" if untimed else ""
    return Splits("time", folds, _published(table, folds), seed, clusters, order, cut.purged, detail)


def _blocks(at: Floats, cut: _Cut) -> Ints:
    """Return the time block (n,) of each row: runs of about a fiftieth of the test; equal times in one block."""
    size = -(-len(cut.test) // BLOCKS)
    order = np.argsort(at, kind="stable")
    first = np.r_[True, at[order][1:] != at[order][:-1]]
    # counted from the test's start, so that no block straddles it
    place = np.arange(len(at)) - int((at < cut.start).sum())
    block = np.empty(len(at), dtype=np.int64)
    block[order] = np.maximum.accumulate(np.where(first, place, place.min())) // size
    return np.unique(block, return_inverse=True)[1].astype(np.int64)
