"""Drift put into a real table that has no time: its rows in a seeded order, at given times, and from one row on its columns recoded.

Outcomes are never touched, and no value is made up: values of a column are dealt to other rows, so that from that row on a row's
outcome goes with other values than before; pictures are turned. What is made so is *injected*, and whoever shows it says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.random import Generator

from makegood.contracts import Bools, Floats, Ints
from makegood.errors import CaseError, DataError, Problem, nearest
from makegood.streams.truth import DAY, RAMP, START

SHAPE = b"shape"
"""What the metadata of a column of pictures holds (as `data.images` has it)."""

TIME = "decided_at"
"""The column of times that `inject` adds."""

INJECTED = ("stable", "sudden", "gradual", "mix", "outage")
"""The kinds of drift that `inject` knows."""

RECODED = 8
"""How many columns are recoded at most: those that tell most of the outcome."""

RARE = 6.0  # the odds against a row of the rising part before the mix changes
PRIOR = 50.0  # how many rows of the mean a level's risk is shrunk by
LEVELS = 20  # a number outcome with more values is ranked; with fewer it is a class
TELLS = 2.5  # standard errors of a correlation without which a column is taken to tell nothing


@dataclass(frozen=True)
class Timing:
    """When the rows of a table without time are said to have come: so many a day, from `start` (microseconds since 1970, UTC)."""

    per_day: float = 100.0
    start: int = START


def inject(
    table: pa.Table, kind: str, at: int, seed: int, *, outcome: str, keep: Sequence[str] = (), timing: Timing | None = None
) -> tuple[pa.Table, str]:
    """Return the table in a seeded order with a first column `decided_at`, changed from row `at` on, and in words what was done.

    `kind` is one of `INJECTED`. sudden: the (at most eight) columns that tell most of the outcome are mirrored: the row with the highest
    value gets the lowest, and rows of a category's riskiest level get its safest. gradual: so are more and more rows. mix: rows with a
    high value in the most telling column come rarely before and mostly after. outage: that column goes missing. stable: nothing changes.
    Mirrored columns keep every value as often as they had it, before `at` and after. What tells is measured on the rows before `at`, by
    rank correlation with the number, or with the rarest class; of the columns in `keep`, such as those that payoffs are made of, none is
    touched. Where a column holds pictures, sudden and gradual turn them, and them alone. Raises `CaseError` and `DataError`.

    >>> table = pa.table({"x": range(400), "bad": ["no"] * 300 + ["yes"] * 100})
    >>> changed, words = inject(table, "sudden", 200, seed=0, outcome="bad")
    >>> words.partition("; ")[2]
    'from row 201 of 400 on x is mirrored: highest and lowest values, riskiest and safest levels change places.'
    >>> changed.column_names, changed.num_rows, sorted(changed["x"].to_pylist()) == list(range(400))
    (['decided_at', 'x', 'bad'], 400, True)
    """
    _check(table, kind, at, outcome)
    timing, rng, n = timing or Timing(), np.random.default_rng(seed), table.num_rows
    table = table.take(pa.array(rng.permutation(n)))
    words = f"Injected: the rows have no time and come in a seeded order; from row {at + 1:,} of {n:,} on "
    pictures = [field.name for field in table.schema if field.metadata and SHAPE in field.metadata]
    if kind == "stable":
        done = "nothing changes"
    elif pictures and kind in ("sudden", "gradual"):
        rows = _changed(rng, n, at, gradual=kind == "gradual")
        for name in pictures:
            table = _with(table, name, _turned(table[name], rows, (table.field(name).metadata or {})[SHAPE]))
        done = f"{'more and more pictures' if kind == 'gradual' else 'all pictures'} lie on their side, as from another scanner"
    else:
        keys = _telling(table, outcome, at, keep)
        first = next(iter(keys))
        if kind == "mix":
            table = table.take(pa.array(_late(rng, keys[first], at)))
            done = f"most rows are of the highest third in {first}, which are rare before; nothing is recoded"
        elif kind == "outage":
            table = _with(table, first, pc.if_else(pa.array(np.arange(n) < at), table[first].combine_chunks(), None))
            done = f"{first} is missing"
        else:
            rows = _changed(rng, n, at, gradual=kind == "gradual")
            for name, key in keys.items():
                table = _with(table, name, table[name].take(pa.array(_mirrored(key, rows))))
            verb = "is" if len(keys) == 1 else "are"
            whom = f"more and more rows have {_listed(keys)}" if kind == "gradual" else f"{_listed(keys)} {verb}"
            done = f"{whom} mirrored: highest and lowest values, riskiest and safest levels change places"
    when = pa.array(timing.start + (np.arange(n) * (DAY / timing.per_day)).astype(np.int64), pa.timestamp("us", tz="UTC"))
    return table.add_column(0, TIME, when), f"{words}{done}."


def _check(table: pa.Table, kind: str, at: int, outcome: str) -> None:
    names = table.column_names
    absent = "a table that has no such column"
    checks = (
        (kind in INJECTED, Problem("kind", kind, f"one of {', '.join(INJECTED)}", nearest(kind, INJECTED))),
        (outcome in names, Problem("outcome", outcome, f"one of {', '.join(names)}", nearest(outcome, names))),
        (TIME not in names, Problem(f"column {TIME!r}", "a column of the table", absent, "rename it, or replay the table by its own time")),
        (0 < at < table.num_rows, Problem("at", str(at), f"a row after the first of {table.num_rows}", "write where the change begins")),
    )
    if not all(right for right, _ in checks):
        raise CaseError(*(problem for right, problem in checks if not right))


def _telling(table: pa.Table, outcome: str, at: int, keep: Sequence[str]) -> dict[str, Floats]:
    """Return the columns that tell most of the outcome, with the key (n,) by which each is ordered; the most telling first.

    Half of the rows before `at` say how risky each level of a category is, the other half how well every column tells.
    """
    target, place = _target(table[outcome]), np.arange(table.num_rows)
    learnt, judged = (place < at) & (place % 2 == 0), (place < at) & (place % 2 == 1)
    keys = {name: _key(table[name], target, learnt) for name in table.column_names if name not in (outcome, *keep)}
    told = {name: _correlation(key[judged], target[judged]) for name, key in keys.items()}
    best = sorted((name for name in told if told[name] > 0), key=lambda name: -told[name])[:RECODED]
    if not best:
        expected, mend = "a column that tells something of it", "bring more rows before the change, or another table"
        raise DataError(Problem(f"outcome {outcome!r}", "columns that tell nothing of it", expected, mend))
    return {name: keys[name] for name in best}


def _target(column: pa.ChunkedArray) -> Floats:
    """Return the outcome as a number (n,), NaN where it is null: its rank, or whether it is the rarest class."""
    valid = column.is_valid().to_numpy()
    target = np.full(len(column), np.nan)
    values = column.drop_null()
    counts = values.value_counts()
    if _numeric(column.type) and len(counts) > LEVELS:
        target[valid] = _ranks(values.to_numpy())
    elif len(counts):
        rarest = min(counts.to_pylist(), key=lambda count: (count["counts"], str(count["values"])))["values"]
        target[valid] = pc.equal(values, rarest).to_numpy()
    return target


def _numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _key(column: pa.ChunkedArray, target: Floats, learnt: Bools) -> Floats:
    """Return by what a column is ordered (n,), NaN where it is null: its numbers, or the risk of its levels; NaN throughout if neither."""
    if _numeric(column.type):
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_boolean(column.type)):
        return np.full(len(column), np.nan)
    encoded = column.combine_chunks().dictionary_encode()
    code = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy()
    used = learnt & ~np.isnan(target)
    count = np.bincount(code[used], minlength=len(encoded.dictionary) + 1)
    total = np.bincount(code[used], weights=target[used], minlength=len(encoded.dictionary) + 1)
    mean = float(target[used].mean()) if used.any() else 0.0
    risk = (total + PRIOR * mean) / (count + PRIOR)
    risk[-1] = np.nan
    return np.asarray(risk[code])


def _correlation(key: Floats, target: Floats) -> float:
    """Return the rank correlation, without its sign, on the rows that have both; 0 where it cannot be told from none."""
    both = ~(np.isnan(key) | np.isnan(target))
    if both.sum() < 3 or np.ptp(key[both]) == 0 or np.ptp(target[both]) == 0:
        return 0.0
    found = abs(float(np.corrcoef(_ranks(key[both]), _ranks(target[both]))[0, 1]))
    return found if found * np.sqrt(both.sum()) > TELLS else 0.0


def _ranks(values: Floats) -> Floats:
    """Return the rank of each value (n,), from 1; equal ones share the mean of theirs."""
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[at])


def _changed(rng: Generator, n: int, at: int, *, gradual: bool) -> Bools:
    """Return the rows (n,) that are changed: all from `at` on, or more and more of them."""
    since = np.arange(n) - at
    return np.asarray((since >= 0) & ((not gradual) | (rng.random(n) * RAMP * n < since)))


def _mirrored(key: Floats, rows: Bools) -> Ints:
    """Return from which row each takes its value (n,): of the given rows that have one, the k-th highest from the k-th lowest."""
    source = np.arange(len(key))
    order = np.flatnonzero(rows & ~np.isnan(key))
    order = order[np.argsort(key[order], kind="stable")]
    source[order] = order[::-1]
    return source


def _late(rng: Generator, key: Floats, at: int) -> Ints:
    """Return an order (n,) in which rows of the highest third are rare among the first `at`; within both parts the order is random."""
    filled = np.where(np.isnan(key), -np.inf, key)
    high = np.zeros(len(key), dtype=np.bool_)
    high[np.argsort(filled, kind="stable")[-(len(key) // 3) :]] = True
    order = np.argsort(rng.exponential(1.0, len(key)) * np.where(high, RARE, 1.0))  # Efraimidis & Spirakis 2006: weights without return
    return np.concatenate([rng.permutation(order[:at]), rng.permutation(order[at:])])


def _turned(column: pa.ChunkedArray, rows: Bools, shape: bytes) -> pa.Array:
    """Return pictures of a shape (height, width, channels), 8 bits a pixel, of which those of the given rows (n,) are turned clockwise.

    By a quarter where they are square, else by half.
    """
    height, width, channels = map(int, shape.split(b","))
    turns = -1 if height == width else 2

    def turned(cell: bytes) -> bytes:
        return np.rot90(np.frombuffer(cell, np.uint8).reshape(height, width, channels), turns).tobytes()

    cells = zip(column.to_pylist(), rows.tolist(), strict=True)
    return pa.array([turned(cell) if changed and cell is not None else cell for cell, changed in cells], column.type)


def _with(table: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(name), table.field(name), column)


def _listed(keys: dict[str, Floats]) -> str:
    names = list(keys)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
