"""Old events moved out of the tables into files: segments, which the chain goes through.

A segment is a run of a partition's events from its oldest on, as JSON lines, compressed. Its row in the ledger holds the file's name and
SHA-256, and the hashes before and after the run, so that `verify` goes on across it. Private parts stay in the database, where they can
be erased. Two things stay in the tables as well: promotions, which say what serves, and the last event of a partition, which the writer
chains to. Every archived id is remembered, so that reading one says where it is and writing one anew is refused.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from makegood.errors import LedgerError, Problem
from makegood.ledger import chain, schema
from makegood.ledger.anchors import heads
from makegood.ledger.events import Event, Stored
from makegood.ledger.store import Ledger

FOLDER = "segments"
"""Where the files lie, in the ledger's folder."""
KEPT = "promotion"
"""The kind of events that stay in the table when they are archived."""
_BATCH = 2000


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a segment's file: a row of the table of events; bytes are in base 64."""

    partition: int
    seq: int
    id: str
    kind: str
    case_name: str
    about: str
    unit: str
    at: int
    request: bytes
    body: bytes
    commitment: bytes
    hash: bytes


class Damaged(Exception):
    """A segment's file is not what was written; `got` and `expected` say how."""

    def __init__(self, got: str, expected: str) -> None:
        super().__init__(got, expected)
        self.got, self.expected = got, expected


def events(path: Path) -> Iterator[Stored]:
    """Yield the events of a segment's file, in order; raises `Damaged` where it cannot be read."""
    decode = msgspec.json.Decoder(Line).decode
    try:
        with gzip.open(path, "rb") as file:
            for text in file:
                line = decode(text)
                event = Event(line.id, line.kind, line.case_name, line.about, line.unit, line.at, line.request, line.body)
                yield Stored(event, line.partition, line.seq, line.commitment, line.hash)
    except FileNotFoundError:
        raise Damaged("no file", "the segment's file, where it was written") from None
    except (OSError, EOFError, zlib.error, msgspec.DecodeError) as error:
        raise Damaged(str(error), "a file of events, compressed") from None


def digest(path: Path) -> str:
    """Return a file's SHA-256; raises `Damaged` where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Damaged(error.strerror or "unreadable", "the segment's file, where it was written") from None


def rows(connection: sa.Connection, partition: int, first: int, last: int) -> Iterator[sa.Row[Any]]:
    """Yield the rows of a run of events, in order."""
    e = schema.events.c
    wanted = sa.select(schema.events).where(e.partition == partition, e.seq >= first, e.seq <= last).order_by(e.seq)
    yield from connection.execute(wanted, execution_options={"yield_per": _BATCH})


@dataclass(frozen=True)
class Segment:
    """A run of events that lies in a file: `first` to `last` of a partition; the hash it is chained to, its last event's, its file."""

    partition: int
    first: int
    last: int
    before: bytes
    hash: bytes
    file: str
    sha256: str

    @property
    def n(self) -> int:
        """How many events it holds."""
        return self.last - self.first + 1


def segments(connection: sa.Connection) -> list[Segment]:
    """Return a ledger's segments, by partition and place."""
    s = schema.segments
    return [Segment(*row) for row in connection.execute(sa.select(s).order_by(s.c.partition, s.c.first))]


def due(connection: sa.Connection, before: int) -> Iterator[tuple[int, int, int]]:
    """Yield partition, first and last of each run that can go: all older than `before`, from the oldest on, short of the head."""
    e, filed = schema.events.c, {s.partition: s.last for s in segments(connection)}
    for partition, head in heads(connection).items():
        first = filed.get(partition, 0) + 1
        newer = sa.select(sa.func.min(e.seq)).where(e.partition == partition, e.seq >= first, e.at >= before)
        last = min(connection.scalar(newer) or head.seq, head.seq) - 1
        if last >= first:
            yield partition, first, last


def _pack(connection: sa.Connection, run: tuple[int, int, int], before: bytes, file: gzip.GzipFile) -> bytes:
    """Write a run's lines and return the hash of its last event; what verification would not pass is not archived."""
    partition, seq, _ = run
    encode = msgspec.json.Encoder().encode
    for row in rows(connection, *run):
        line = Line(*tuple(row))
        event = Event(line.id, line.kind, line.case_name, line.about, line.unit, line.at, line.request, line.body)
        before = chain.link(before, partition, seq, event, line.commitment)
        if (line.seq, line.hash) != (seq, before):
            got = f"event {line.seq}: {line.id}"
            raise LedgerError(
                Problem(f"partition {partition}", got, f"the event that was written as {seq}", "makegood ledger verify says more")
            )
        file.write(encode(line) + b"\n")
        seq += 1
    return before


def write(connection: sa.Connection, ledger: str, folder: Path, run: tuple[int, int, int]) -> Segment:
    """Write a run's file, durably and whole or not at all, and return what is to be remembered of it."""
    partition, first, last = run
    file = f"{FOLDER}/{ledger[:12]}-{partition}-{first}-{last}.jsonl.gz"
    path = folder / file
    part = path.with_name(f".{path.name}.part")
    before = chain.genesis(ledger, partition)
    if first > 1:
        s = schema.segments.c
        before = connection.execute(sa.select(s.hash).where(s.partition == partition, s.last == first - 1)).scalar_one()
    try:
        path.parent.mkdir(exist_ok=True)
        try:
            with part.open("wb") as raw:
                with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=6, mtime=0, filename="") as packed:
                    hash = _pack(connection, run, before, packed)
                raw.flush()
                os.fsync(raw.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        made = os.open(path.parent, os.O_RDONLY)  # its name is to last as well
        os.fsync(made)
        os.close(made)
    except OSError as error:
        raise LedgerError(Problem(str(path), error.strerror or "cannot be written", "a file for old events")) from None
    return Segment(partition, first, last, before, hash, file, digest(path))


def take_out(connection: sa.Connection, segment: Segment) -> None:
    """Remember a segment and delete its events, all in the transaction of the connection."""
    e = schema.events.c
    run = (e.partition == segment.partition, e.seq >= segment.first, e.seq <= segment.last, e.kind != KEPT)
    connection.execute(schema.segments.insert(), [asdict(segment)])
    kept = list(schema.archived.c.keys())
    connection.execute(schema.archived.insert().from_select(kept, sa.select(*(e[name] for name in kept)).where(*run)))
    connection.execute(schema.events.delete().where(*run))


def archive(ledger: Ledger, before: int, folder: Path) -> list[Segment]:
    """Move all that is older than `before` (microseconds since 1970, UTC) into files under `folder`; return the new segments.

    Each file is durable before its events are deleted, in one transaction of the one writer: a crash between the two leaves a file that
    nobody names, and the next archive writes it anew. Raises `LedgerError` where the ledger is damaged or cannot be written.
    """

    def work(connection: sa.Connection, _: object) -> list[Segment]:
        moved = []
        for run in list(due(connection, before)):
            moved.append(write(connection, ledger.id, folder, run))
            take_out(connection, moved[-1])
        return moved

    return ledger.maintain(work)
