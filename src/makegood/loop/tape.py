"""Decisions to be lived through once more: rows in the order of time, and when the outcome of each becomes known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from makegood.case import Case
from makegood.contracts import Bools, Floats, Ints
from makegood.data.prepare import raw_columns
from makegood.economics.expression import parse
from makegood.errors import CaseError, DataError, Problem
from makegood.model import Raw
from makegood.monitoring.maturity import NEVER
from makegood.report import png
from makegood.streams.injected import INJECTED, SHAPE, Timing, inject
from makegood.streams.truth import Stream

FIRST = 0.4
"""The share of a real table that is the past, from which the first model is made."""

CHANGE = 0.3
"""After which share of the rows that are decided on a drift is injected."""

DAILY = Timing()
"""How the rows of a table without time are said to have come."""

FEWEST = 200
"""Rows that there must be on either side."""


@dataclass(frozen=True, eq=False)
class Tape:
    """What a replay plays: the `history` with its outcomes, and n `rows` to decide on, in the order of time.

    `at` (n,) and `known_at` (n,) (`maturity.NEVER`: never) are microseconds since 1970, UTC; `entity` (n,) names whom a row is about,
    and `outcome` (n,) is what becomes of it, whatever is done: a class by name, or a number. `truth` (n, n_classes) are the probabilities
    of the `classes`, None where nobody knows them; `changed_at` when the world changed, as far as that is known. `injected` says what was
    done to the data, or that they are simulated.
    """

    case: Case
    history: pa.Table
    rows: pa.Table
    at: Ints
    entity: NDArray[Any]
    outcome: NDArray[Any]
    known_at: Ints
    truth: Floats | None = None
    classes: tuple[str, ...] = ()
    changed_at: tuple[int, ...] = ()
    what: str = ""
    injected: str = ""

    def __len__(self) -> int:
        return len(self.at)

    @property
    def start(self) -> int:
        """When the first row is decided on."""
        return int(self.at[0])

    @property
    def end(self) -> int:
        """When the last outcome is due."""
        return int(self.at[-1]) + round(self.case.data.outcome_delay * 1e6)

    @cached_property
    def raw(self) -> Raw:
        """The rows as columns, as a model takes them."""
        return raw_columns(self.rows)

    @cached_property
    def units(self) -> Ints:
        """Whom each row is about (n,), as whole numbers; a row about nobody is about somebody of its own."""
        named = np.array([str(name) if name is not None else "" for name in self.entity.tolist()])
        codes = np.unique(named, return_inverse=True)[1].astype(np.int64)
        return np.where(named == "", len(self) + np.arange(len(self)), codes)

    def take(self, part: slice) -> Raw:
        """Return some of the rows as columns."""
        return {name: values[part] for name, values in self.raw.items()}


def of_stream(stream: Stream) -> Tape:
    """Return a stream with a known truth as a tape; raises `CaseError` where its outcome depends on the action."""
    if stream.outcome.ndim > 1:
        expected = "an outcome that is the same whatever is done"
        raise CaseError(Problem(f"stream {stream.kind}", "an outcome for each action", expected, "treatment cases are not built yet"))
    return Tape(
        case=Case.parse(stream.case),
        history=stream.history,
        rows=stream.rows,
        at=np.asarray(stream.at, dtype=np.int64),
        entity=np.asarray(stream.rows[stream.entity].to_numpy(zero_copy_only=False)),
        outcome=stream.outcome,
        known_at=np.asarray(stream.known_at, dtype=np.int64),
        truth=stream.truth,
        classes=stream.classes,
        changed_at=stream.changed_at,
        what=stream.what,
        injected=f"Simulated: {stream.what}",
    )


def of_table(case: Case, table: pa.Table, *, drift: str = "sudden", first: float = FIRST, seed: int = 0, timing: Timing = DAILY) -> Tape:
    """Return a real table as a tape: its first share is the past, and outcomes are known a delay after their decision.

    Where the case has a time the rows come at their own times and nothing is changed. Else they come in a seeded order at given times, with
    a `drift` (one of `streams.injected.INJECTED`) injected after some of what is to be decided, and the case is given that time. Raises
    `CaseError` and `DataError`.
    """
    if not 0.0 < first < 1.0:
        raise CaseError(Problem("first", f"{first}", "a share between 0 and 1", "such as 0.4"))
    outcome = case.data.outcome
    if outcome not in table.column_names:
        raise DataError(Problem("data.outcome", outcome, f"one of {', '.join(table.column_names[:20])}", "name the column of outcomes"))
    table = table.filter(pc.is_valid(table[outcome]))
    injected, changed = "", None
    past = int(first * table.num_rows)
    if case.data.time is None:
        if drift not in INJECTED:
            raise CaseError(Problem("drift", drift, f"one of {', '.join(INJECTED)}", "write sudden, say"))
        changed = past + int(CHANGE * (table.num_rows - past))
        table, words = inject(table, drift, changed, seed, outcome=outcome, keep=paying(case), timing=timing)
        said = words.removeprefix("Injected: ")
        injected = said[:1].upper() + said[1:]
        time = table.column_names[0]
        case = timed(case, time)
    time = case.data.time or ""
    at = moments(table[time], f"data.time: {time!r}")
    order = np.argsort(at, kind="stable")
    table, at = table.take(pa.array(order)), at[order]
    if min(past, len(at) - past) < FEWEST:
        got = f"{past} and {len(at) - past} rows before and after the start"
        raise DataError(Problem("the replay", got, f"at least {FEWEST} of each", "bring more rows, or move the start"))
    case, table = pictured(case, table)
    delay_us = round(case.data.outcome_delay * 1e6)
    start = int(at[past])
    known: Bools = at + delay_us <= start
    known[past:] = False
    rows = table.slice(past).drop_columns([outcome])
    entity = case.data.group
    return Tape(
        case=case,
        history=table.filter(pa.array(known)),
        rows=rows,
        at=at[past:],
        entity=np.asarray(rows[entity].to_numpy(zero_copy_only=False)) if entity else np.full(len(at) - past, "", dtype=object),
        outcome=np.asarray(table[outcome].slice(past).to_numpy(zero_copy_only=False)),
        known_at=np.minimum(at[past:] + delay_us, NEVER),
        changed_at=() if changed is None or drift == "stable" else (int(at[changed]),),
        injected=injected,
    )


def paying(case: Case) -> tuple[str, ...]:
    """Return the columns that payoffs are made of."""
    clauses = [a.payoff if isinstance(a.payoff, dict) else {"": a.payoff} for a in case.decision.actions.values()]
    return tuple(sorted({name for each in clauses for text in each.values() for name in parse(text, "payoff").names}))


def pictured(case: Case, table: pa.Table) -> tuple[Case, pa.Table]:
    """Return a case and its table with pictures as PNG files in place of bare pixels: so they are sent, and so they are learnt from."""
    for i, field in enumerate(table.schema):
        said = (field.metadata or {}).get(SHAPE)
        if said is None:
            continue
        height, width, channels = map(int, said.split(b","))
        pixels = (None if cell is None else np.frombuffer(cell, np.uint8).reshape(height, width, channels) for cell in table[i].to_pylist())
        files = pa.array([None if cell is None else png.encode(cell) for cell in pixels], pa.binary())
        table = table.set_column(i, field.name, files)
        image = case.data.image
        shape = {"size": list(image.size or (height, width)), "channels": image.channels or channels}
        told = case.to_json()
        case = Case.of({**told, "data": {**told["data"], "image": shape}}, folder=case.folder)
    return case, table


def timed(case: Case, name: str) -> Case:
    """Return a case whose rows have their time in a column of this name: what is learnt from then on is judged out of time."""
    said = case.to_json()
    return Case.of({**said, "data": {**said["data"], "time": name}}, folder=case.folder)


def moments(column: pa.ChunkedArray, where: str) -> Ints:
    """Return times as microseconds since 1970, UTC, of dates, moments with or without a zone, or texts in ISO 8601.

    Raises `DataError` where one is missing or none of these.

    >>> moments(pa.chunked_array([["1970-01-02", "1970-01-01T00:00:01"]]), "at").tolist()
    [86400000000, 1000000]
    """
    kind = column.type
    if column.null_count:
        raise DataError(Problem(where, f"no time in {column.null_count} rows", "a time in every row", "fill it, or leave these rows out"))
    if not (pa.types.is_temporal(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(Problem(where, str(kind), "dates such as 2024-01-31, or moments", "write the times as dates"))
    try:
        if pa.types.is_date(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
            column = pc.cast(column, pa.timestamp("us"))
        return np.asarray(column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None))).cast(pa.int64()).to_numpy(), dtype=np.int64)
    except pa.ArrowInvalid as error:
        raise DataError(Problem(where, str(error), "dates such as 2024-01-31, or moments", "write the times as dates")) from None
