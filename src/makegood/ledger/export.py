"""Decisions with what became of them, as Arrow batches and as a Parquet file: for reviews, audits and whoever has tools of his own.

One row a decision, in the order of the chains, as the ledger is at one moment. Its outcome is the last that was said: the outcome, or
the last correction of it. Money is exact: a decimal number with six places. Predictives, inputs, reasons and shadows, which differ from
case to case, are JSON. Archived decisions are not among them: they lie in their files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from makegood.errors import DataError, Problem
from makegood.ledger import schema, snapshot
from makegood.ledger.events import Happened, Overridden
from makegood.ledger.founding import CLOCK, REPLAYED

_BATCH = 4000
_NULL = msgspec.Raw(b"null")
_MONEY = pa.decimal128(19, 6)  # a whole number of millionths in 64 bits
_TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("case", pa.string()),
        ("at", _TIME),
        ("entity", pa.string()),  # the pseudonym of the one decided on
        ("model", pa.string()),
        ("model_hash", pa.string()),
        ("case_hash", pa.string()),
        ("role", pa.string()),
        ("forced", pa.bool_()),
        ("action", pa.string()),
        ("quantity", pa.float64()),
        ("promise", _MONEY),
        ("unit", pa.string()),
        ("guaranteed", _MONEY),
        ("propensity", pa.float64()),
        ("options", pa.list_(pa.string())),
        ("propensities", pa.list_(pa.float64())),
        ("prediction_set", pa.list_(pa.string())),
        ("predictive", pa.string()),
        ("shadows", pa.string()),
        ("inputs", pa.string()),
        ("inputs_mac", pa.string()),
        ("reasons", pa.string()),
        ("notes", pa.list_(pa.string())),
        ("outcome", pa.string()),
        ("outcome_value", pa.float64()),  # where it is a number
        ("known_at", _TIME),
        ("source", pa.string()),
        ("realised", _MONEY),
        ("corrections", pa.int32()),
        ("done", pa.string()),  # in place of the action
        ("done_quantity", pa.float64()),
        ("done_by", pa.string()),
        ("done_at", _TIME),
        ("partition", pa.int64()),
        ("seq", pa.int64()),
    ]
)
"""The columns, null where nothing is known or private parts were erased."""


class _Decided(msgspec.Struct, frozen=True):
    """`Decided`, of which what becomes JSON again stays as it is."""

    action: str
    promise: int
    unit: str
    propensity: float
    options: list[str]
    propensities: list[float]
    predictive: msgspec.Raw
    model: str
    model_hash: str
    case_hash: str
    quantity: float | None = None
    role: str = "champion"
    prediction_set: list[str] | None = None
    guaranteed: int | None = None
    shadows: msgspec.Raw = _NULL
    inputs_mac: str | None = None
    forced: bool = False


class _Private(msgspec.Struct, frozen=True):
    inputs: msgspec.Raw = _NULL
    reasons: msgspec.Raw = _NULL
    notes: list[str] | None = None


_decided = msgspec.json.Decoder(_Decided).decode
_private = msgspec.json.Decoder(_Private).decode
_happened = msgspec.json.Decoder(Happened).decode
_overridden = msgspec.json.Decoder(Overridden).decode
_NOTHING = _Private()


@dataclass(frozen=True)
class Chosen:
    """Which decisions: of one case, made at or after `since` and before `until` (microseconds since 1970, UTC); all by default."""

    case: str | None = None
    since: int | None = None
    until: int | None = None


def arrow(ledger: str, chosen: Chosen = Chosen()) -> Iterator[pa.RecordBatch]:
    """Yield the decisions of a ledger (a URL, or the path of its file) as batches of `SCHEMA`; memory does not grow with the ledger.

    Raises `LedgerError` where it cannot be read.
    """
    e, p = schema.events.c, schema.private.c
    conditions = [e.kind == "decision"]
    conditions += [e.case_name == chosen.case] if chosen.case else []
    conditions += [e.at >= chosen.since] if chosen.since is not None else []
    conditions += [e.at < chosen.until] if chosen.until is not None else []
    columns = (e.id, e.case_name, e.at, e.unit, e.body, e.partition, e.seq, p.data)
    both = schema.events.outerjoin(schema.private, p.id == e.id)
    wanted = sa.select(*columns).select_from(both).where(*conditions).order_by(e.partition, e.seq)
    with snapshot.reading(ledger) as connection:
        for rows in connection.execute(wanted, execution_options={"yield_per": _BATCH}).partitions():
            yield _batch(rows, _after(connection, [row[0] for row in rows]))


@dataclass(slots=True)
class _After:
    """What was said of a decision later."""

    happened: Happened | None = None
    corrections: int = 0
    done: Overridden | None = None


def _after(connection: sa.Connection, ids: Sequence[str]) -> dict[str, _After]:
    e, said = schema.events.c, dict[str, _After]()
    kinds = ("outcome", "correction", "override")
    # `about <> ''` lets SQLite see that its index on `about` will do
    wanted = sa.select(e.about, e.kind, e.body).where(e.about != "", e.about.in_(ids), e.kind.in_(kinds)).order_by(e.at, e.partition, e.seq)
    for about, kind, body in connection.execute(wanted):
        after = said.setdefault(about, _After())
        if kind == "override":
            after.done = _overridden(body)
        elif kind == "correction":
            after.happened, after.corrections = _happened(body), after.corrections + 1
        elif not after.corrections:
            after.happened = _happened(body)
    return said


def _batch(rows: Sequence[Sequence[Any]], said: dict[str, _After]) -> pa.RecordBatch:
    ids, cases, at, entities, bodies, partitions, seqs, data = zip(*rows, strict=True)
    decided = [_decided(body) for body in bodies]
    private = [_NOTHING if part is None else _private(part) for part in data]
    nothing = _After()
    after = [said.get(id, nothing) for id in ids]
    happened = [a.happened for a in after]
    done = [a.done for a in after]
    columns: dict[str, Any] = {
        "id": ids,
        "case": cases,
        "at": at,
        "entity": [unit or None for unit in entities],
        "predictive": [_text(d.predictive) for d in decided],
        "shadows": [_text(d.shadows) for d in decided],
        "inputs": [_text(p.inputs) for p in private],
        "reasons": [_text(p.reasons) for p in private],
        "notes": [p.notes for p in private],
        "outcome": [None if h is None else str(h.value) for h in happened],
        "outcome_value": [h.value if h and not isinstance(h.value, str) else None for h in happened],
        "known_at": [h and h.known_at for h in happened],
        "source": [h and h.source for h in happened],
        "realised": [h and h.realised for h in happened],
        "corrections": [a.corrections for a in after],
        "done": [o and o.action for o in done],
        "done_quantity": [o and o.quantity for o in done],
        "done_by": [o and o.by for o in done],
        "done_at": [o and o.at for o in done],
        "partition": partitions,
        "seq": seqs,
    }
    for field in SCHEMA.names:
        if field not in columns:
            columns[field] = [getattr(d, field) for d in decided]
    arrays = [_money(columns[f.name]) if f.type == _MONEY else pa.array(columns[f.name], f.type) for f in SCHEMA]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _text(raw: msgspec.Raw) -> str | None:
    return None if raw is _NULL else str(bytes(raw), "utf-8")


def _money(amounts: Sequence[int | None]) -> pa.Array:
    """Return millionths as decimals: their bytes are those of the whole number, in 128 bits."""
    there = pa.array(amounts, pa.int64())
    low = there.fill_null(0).to_numpy()
    wide = np.stack([low, low >> 63], axis=1)
    return pa.Array.from_buffers(_MONEY, len(low), [there.is_valid().buffers()[1], pa.py_buffer(wide)])


def parquet(ledger: str, out: Path, chosen: Chosen = Chosen()) -> tuple[Path, int]:
    """Write the decisions to a Parquet file, whole or not at all; return its path and how many there are.

    `out` is the file, or a folder in which it is called decisions.parquet. The file's metadata say `makegood.clock: replayed` of a
    replay's decisions, whose times are those that it was told. Raises `DataError` where it cannot be written, or is to be another
    kind of file.
    """
    if out.suffix not in ("", ".parquet") and not out.is_dir():
        raise DataError(Problem("--out", str(out), "FILE.parquet, or a folder", f"write {out.with_suffix('.parquet')}"))
    path = out if out.suffix == ".parquet" else out / "decisions.parquet"
    with snapshot.reading(ledger) as connection:
        said = {f"makegood.{CLOCK}": REPLAYED} if snapshot.replayed(connection) else None
    part = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    n = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                with pq.ParquetWriter(file, SCHEMA.with_metadata(said), compression="zstd") as writer:
                    for batch in arrow(ledger, chosen):
                        writer.write_batch(batch)
                        n += len(batch)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(Problem("--out", f"{path}: {error.strerror}", "a file or a folder that can be written to")) from None
    return path, n
