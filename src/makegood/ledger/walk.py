"""One pass over all events of a ledger in the order of their chains: each hash recomputed, each private part, each anchor compared.

What concerns events far apart (an id twice, an erasure of what is gone) is judged afterwards, in SQL, on a scratch database that holds
a few columns of each event; memory does not grow with the ledger.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from makegood.errors import Problem
from makegood.ledger import chain, retention, schema
from makegood.ledger.anchors import Head
from makegood.ledger.events import Event, Stored
from makegood.ledger.retention import Segment

FINDINGS = 1000
"""At most so many are listed."""
SKEW_US = 300_000_000
"""How far the clocks of services that share a ledger may be apart: five minutes."""
UNREADABLE = (sa.exc.DBAPIError, UnicodeDecodeError)
"""What reading a damaged database raises."""
_BATCH = 2000
_NONE, _THERE, _GONE = range(3)  # of an event's private part

# Plain SQL, without the types of `schema`: what lies there must be seen as it is, not as it should be.
_EVENTS = sa.text(
    "SELECT e.partition, e.seq, e.id, e.kind, e.case_name, e.about, e.unit, e.at, e.request, e.body, e.commitment, e.hash,"
    " p.id, p.salt, p.data FROM makegood_events e LEFT JOIN makegood_private p ON p.id = e.id ORDER BY e.partition, e.seq"
)
_PRIVATE = sa.text("SELECT id, salt, data FROM makegood_private WHERE id IN :ids").bindparams(sa.bindparam("ids", expanding=True))
_TYPES = (int, int, str, str, str, str, str, int, bytes, bytes, bytes, bytes)
_NAMES = tuple(c.name for c in schema.events.columns)
_SEGMENTS = "SELECT partition, first, last, before, hash, file, sha256 FROM makegood_segments ORDER BY partition, first"
_SEGMENT_TYPES = (int, int, int, bytes, bytes, str, str)
SCRATCH = """
CREATE TABLE event (id, about, unit, whose, partition INTEGER, seq INTEGER, at INTEGER, private INTEGER, filed INTEGER);
CREATE TABLE private (id);
CREATE TABLE archived (id, partition INTEGER, seq INTEGER, about, unit);
CREATE TABLE erasure (about, unit, partition INTEGER, seq INTEGER, at INTEGER);
CREATE TABLE anchor (partition INTEGER, seq INTEGER, hash TEXT, line INTEGER);
CREATE INDEX anchored ON anchor (partition, seq);
"""
"""Of the scratch database."""
_INDEXES = """
CREATE INDEX event_id ON event (id);
CREATE INDEX event_about ON event (about);
UPDATE event SET whose = coalesce((SELECT d.unit FROM event d WHERE d.id = event.about), '')
 WHERE unit = '' AND about <> '' AND EXISTS (SELECT 1 FROM erasure WHERE unit IS NOT NULL);
CREATE INDEX event_whose ON event (whose);
CREATE INDEX private_id ON private (id);
CREATE INDEX erasure_about ON erasure (about);
CREATE INDEX erasure_unit ON erasure (unit);
"""
_OF = "(e.id = x.about OR e.about = x.about OR e.whose = x.unit)"  # null, what an erasure is not about, equals nothing
# Within a partition the order is known; between two, only as well as their clocks agree.
_TWICE = "SELECT min(partition), min(seq), id FROM event GROUP BY id HAVING count(*) > 1"
_BACK = f"""
SELECT DISTINCT e.partition, e.seq, e.id FROM erasure x JOIN event e ON {_OF} WHERE e.private = {_THERE}
AND (x.partition = e.partition AND x.seq > e.seq OR x.partition <> e.partition AND x.at > e.at + {SKEW_US})
"""
_FILED = "SELECT id, partition, seq, about, unit FROM event WHERE filed"
_LISTED = "SELECT id, partition, seq, about, unit FROM archived"
_UNLISTED = f"SELECT partition, seq, id FROM ({_FILED} EXCEPT {_LISTED})"
# The rest says that something is absent, which proves nothing where a part could not be read.
_UNERASED = f"""
SELECT e.partition, e.seq, e.id FROM event e WHERE e.private = {_GONE} AND NOT EXISTS (SELECT 1 FROM erasure x WHERE {_OF}
AND (x.partition = e.partition AND x.seq > e.seq OR x.partition <> e.partition AND x.at > e.at - {SKEW_US}))
"""
_ORPHANS = "SELECT id FROM private p WHERE NOT EXISTS (SELECT 1 FROM event e WHERE e.id = p.id)"
_UNFILED = f"SELECT partition, seq, id FROM ({_LISTED} EXCEPT {_FILED})"


@dataclass
class Found:
    """Findings, the first `FINDINGS` of them; `whole` turns false where a part could not be read, and absence proves nothing."""

    problems: list[Problem] = field(default_factory=list)
    n: int = 0
    whole: bool = True

    def add(self, where: str, got: object, expected: str, severity: str = "error") -> None:
        """Note one."""
        self.n += 1
        if self.n <= FINDINGS:
            self.problems.append(Problem(where, str(got), expected, severity=severity))

    def unread(self, where: str, error: Exception) -> None:
        """Note that something could not be read."""
        self.whole = False
        self.add(where, str(getattr(error, "orig", None) or error).splitlines()[0], "what can be read")

    def listed(self) -> tuple[Problem, ...]:
        """Return them, and how many there are more."""
        more = self.n - FINDINGS
        return (*self.problems, *([Problem("verify", f"{more:,} findings more", f"at most {FINDINGS:,} listed")] if more > 0 else []))


@dataclass(frozen=True)
class Reading:
    """What is walked: a connection that sees one moment, the ledger's id, and the folder of its segments; and a scratch database."""

    connection: sa.Connection
    ledger: str
    folder: Path
    scratch: sqlite3.Connection


def walk(reading: Reading, found: Found) -> dict[int, Head]:
    """Return the head of each partition as it was reached; what is wrong on the way goes to `found`."""
    walked = _Walk(reading, found)
    heads = walked.events()
    _across(reading, found)
    return heads


class _Walk:
    """Where the pass is: the partition, its head so far, and the anchor that comes next."""

    def __init__(self, reading: Reading, found: Found) -> None:
        self.reading, self.found = reading, found
        self.heads: dict[int, Head] = {}
        self.seen: list[tuple[object, ...]] = []  # for the scratch database
        self.erasures: list[tuple[object, ...]] = []
        self.due: Iterator[tuple[int, str, int]] = iter(())  # anchors of the partition that come after `next`
        self.next: tuple[int, str, int] | None = None
        self.filed = 0  # the last event of the partition that lies in a file
        self.kept: dict[int, Stored] = {}  # of those, the ones that must lie in the table too, not yet seen there

    def events(self) -> dict[int, Head]:
        segments = self._segments()
        partition = -1
        try:
            for batch in self.reading.connection.execute(_EVENTS, execution_options={"yield_per": _BATCH}).partitions():
                for row in batch:
                    if tuple(map(type, row[:12])) != _TYPES or row[0] < 0 or row[1] < 1:
                        wrong = [f"{n}: {v!r:.60}" for n, v, t in zip(_NAMES, row, _TYPES, strict=False) if type(v) is not t]
                        self.found.add(f"partition {row[0]}, event {row[1]}: {row[2]}", ", ".join(wrong), "values of the columns' types")
                        continue
                    if row[0] != partition:
                        self._end(partition)
                        partition = row[0]
                        self._begin(partition, segments.pop(partition, ()))
                    self._row(row)
                self._flush()
        except UNREADABLE as error:
            self.found.unread(f"partition {partition}, after event {self.heads[partition].seq}" if self.heads else "makegood_events", error)
        self._end(partition)
        for partition, filed in sorted(segments.items()):
            self._begin(partition, filed)
            self._end(partition)
        self._flush()
        for partition, line in self.reading.scratch.execute("SELECT partition, max(line) FROM anchor GROUP BY partition").fetchall():
            if partition not in self.heads and self.found.whole:
                self.found.add(f"partition {partition}", "no event", f"those of the anchor of line {line}")
        return self.heads

    def _row(self, row: Sequence[Any]) -> None:
        """Walk an event of the table: the next of the chain, or one that stayed when it was archived."""
        partition, seq, event = row[0], row[1], Event(*row[2:10])
        if seq > self.filed:
            self._event(partition, seq, event, row[10], row[11])
            self._keep(partition, seq, event, self._private(*row[:3], row[10], *row[12:15]), filed=False)
        elif self.kept.pop(seq, None) != Stored(event, partition, seq, row[10], row[11]):
            self.found.add(
                f"partition {partition}, event {seq}: {event.id}", "another", "what lies in the segment's file, a promotion, once"
            )

    def _segments(self) -> dict[int, list[Segment]]:
        """Return the segments of each partition, in order."""
        segments: dict[int, list[Segment]] = {}
        try:
            for row in self.reading.connection.exec_driver_sql(_SEGMENTS):
                if tuple(map(type, row)) == _SEGMENT_TYPES and min(row[:3]) >= 0:
                    segments.setdefault(row[0], []).append(Segment(*row))
                else:
                    self.found.add("makegood_segments", tuple(row), "values of the columns' types")
        except UNREADABLE as error:
            self.found.unread("makegood_segments", error)
        return segments

    def _begin(self, partition: int, segments: Sequence[Segment]) -> None:
        self.heads[partition] = Head(0, chain.genesis(self.reading.ledger, partition))
        due = "SELECT seq, hash, line FROM anchor WHERE partition = ? ORDER BY seq"
        self.due = self.reading.scratch.execute(due, (partition,))
        self.next = next(self.due, None)
        self.filed = 0
        for segment in segments:
            self._segment(segment)

    def _end(self, partition: int) -> None:
        """Compare the end of a partition with what should have come."""
        for seq in self.kept if self.found.whole else ():
            self.found.add(f"partition {partition}, event {seq}", "only in the segment's file", "in the table too: it is a promotion")
        self.kept.clear()
        beyond = [self.next, *self.due][-1]
        if beyond and self.found.whole:
            there = f"{self.heads[partition].seq:,} events"
            self.found.add(
                f"partition {partition}", there, f"event {beyond[0]:,}, which the anchor of line {beyond[2]} saw: the end is missing"
            )

    def _segment(self, segment: Segment) -> None:
        """Walk the events of a file; where it is not what was written, go on behind it."""
        partition, head = segment.partition, self.heads[segment.partition]
        where, path = f"partition {partition}, segment {segment.first} to {segment.last}", self.reading.folder / segment.file
        if (segment.first, segment.before) != (head.seq + 1, head.hash):
            self.found.add(where, f"after {segment.before.hex()}", f"event {head.seq + 1} after {head.hash.hex()}")
        end = Head(segment.last, segment.hash)
        self.filed = segment.last
        try:
            if (seen := retention.digest(path)) != segment.sha256:
                raise retention.Damaged(f"SHA-256 {seen}", segment.sha256)
            self.heads[partition] = Head(segment.first - 1, segment.before)
            events = retention.events(path)
            while batch := list(islice(events, _BATCH)):
                self._filed(partition, batch)
        except retention.Damaged as error:
            self.found.whole = False
            self.found.add(f"{where}: {path}", error.got, error.expected)
        except UNREADABLE as error:
            self.found.unread(where, error)
        else:
            if self.heads[partition] != end:
                self.found.add(
                    f"{where}: {path}", f"an end at event {self.heads[partition].seq}", f"at {end.seq} with hash {end.hash.hex()}"
                )
        self.heads[partition] = end

    def _filed(self, partition: int, batch: Sequence[Stored]) -> None:
        """Walk events of a file; their private parts lie in the database, where they can be erased."""
        ids = [stored.event.id for stored in batch]
        parts = {id: (id, salt, data) for id, salt, data in self.reading.connection.execute(_PRIVATE, {"ids": ids})}
        for stored in batch:
            self._event(partition, stored.seq, stored.event, stored.commitment, stored.hash)
            if stored.partition != partition:
                self.found.add(
                    f"partition {partition}, event {stored.seq}: {stored.event.id}", f"partition {stored.partition}", f"{partition}"
                )
            if stored.event.kind == retention.KEPT:
                self.kept[stored.seq] = stored
            row = (partition, stored.seq, stored.event.id, stored.commitment, *parts.get(stored.event.id, (None, None, None)))
            self._keep(partition, stored.seq, stored.event, self._private(*row), filed=True)
        self._flush()

    def _event(self, partition: int, seq: int, event: Event, commitment: bytes, hash: bytes) -> None:
        """Compare an event with what the chain, and an anchor, say of it."""
        head = self.heads[partition]
        where = f"partition {partition}, event {seq}: {event.id}"
        if seq == head.seq + 1:
            expected = chain.link(head.hash, partition, seq, event, commitment)
            if hash != expected:
                self.found.add(
                    where, f"hash {hash.hex()}", f"{expected.hex()}: the event, or what came before it, is another than was written"
                )
        elif seq > head.seq:
            self.found.add(where, "", f"event {head.seq + 1}: {seq - head.seq - 1:,} are missing")
        else:
            self.found.add(where, "", f"an event after {head.seq}: the order is another")
        self.heads[partition] = Head(seq, hash)
        while self.next and self.next[0] <= seq:
            if self.next[0] == seq and self.next[1] != hash.hex():
                self.found.add(where, f"hash {hash.hex()}", f"{self.next[1]}, which the anchor of line {self.next[2]} saw")
            self.next = next(self.due, None)

    def _private(self, *row: Any) -> int:
        """Return whether an event's private part is there; compare it with its commitment."""
        partition, seq, id, commitment, owner, salt, data = row
        if owner is None:
            return _GONE if commitment else _NONE
        if type(salt) is not bytes or type(data) is not bytes or chain.commitment(salt, data) != commitment:
            expected = "the one that the chain's commitment is of" if commitment else "none"
            self.found.add(f"partition {partition}, event {seq}: {id}", "another private part", expected)
        return _THERE

    def _keep(self, partition: int, seq: int, event: Event, private: int, *, filed: bool) -> None:
        self.seen.append(
            (event.id, event.about, event.unit, event.unit, partition, seq, event.at, private, filed and event.kind != retention.KEPT)
        )
        if event.kind == "erasure":
            self.erasures.append((event.about or None, event.unit or None, partition, seq, event.at))

    def _flush(self) -> None:
        self.reading.scratch.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", self.seen)
        self.reading.scratch.executemany("INSERT INTO erasure VALUES (?, ?, ?, ?, ?)", self.erasures)
        self.seen.clear()
        self.erasures.clear()


def _across(reading: Reading, found: Found) -> None:
    """Judge what concerns events that lie apart."""
    scratch = reading.scratch
    for table, columns in (("private", "id"), ("archived", "id, partition, seq, about, unit")):
        marks = ", ".join("?" * (columns.count(",") + 1))
        try:
            rows = reading.connection.execute(sa.text(f"SELECT {columns} FROM makegood_{table}"), execution_options={"yield_per": _BATCH})
            for batch in rows.partitions():
                scratch.executemany(f"INSERT INTO {table} VALUES ({marks})", [tuple(row) for row in batch])
        except UNREADABLE as error:
            found.unread(f"makegood_{table}", error)
    scratch.executescript(_INDEXES)
    judged = [
        (_TWICE, "an id that another event has too", "an id of its own"),
        (_BACK, "a private part", "none: a later erasure destroyed it"),
        (_UNLISTED, "not in makegood_archived", "the place of what lies in a file"),
    ]
    if found.whole:
        judged += [
            (_UNERASED, "no private part", "it, or a later erasure of it"),
            (_UNFILED, "in makegood_archived", "an event in a segment's file"),
        ]
        for (id,) in scratch.execute(_ORPHANS):
            found.add(f"makegood_private: {id}", "a private part", "an event that it belongs to")
    for query, got, expected in judged:
        for partition, seq, id in scratch.execute(query):
            found.add(f"partition {partition}, event {seq}: {id}", got, expected)
