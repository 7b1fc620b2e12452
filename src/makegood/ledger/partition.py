"""One partition of a ledger, open for writing: groups of events become rows, in one transaction and one chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import sqlalchemy as sa

from makegood.errors import LedgerError, Problem
from makegood.ledger import chain, schema
from makegood.ledger.events import Event, Receipt, Stored
from makegood.ledger.reading import archived_among, stored_among

After = Literal["go on", "reopen", "stop"]
"""What a writer does after an error: refuse this group alone, connect again, or write no more."""

Work = Callable[[sa.Connection, Callable[[Sequence[Event]], None]], None]
"""What is done on a ledger's connection; it may write events, once, by the function that it is given."""


class Partition:
    """The end of one partition's chain: `seq` and `head` are those of its last event."""

    def __init__(self, connection: sa.Connection, ledger: str, number: int) -> None:
        self.connection, self.number = connection, number
        e = schema.events.c
        last = connection.execute(sa.select(e.seq, e.hash).where(e.partition == number).order_by(e.seq.desc()).limit(1)).first()
        if last is None:
            s = schema.segments.c
            last = connection.execute(sa.select(s.last, s.hash).where(s.partition == number).order_by(s.last.desc()).limit(1)).first()
        self.seq, self.head = (0, chain.genesis(ledger, number)) if last is None else (int(last[0]), bytes(last[1]))
        if not self._fits(ledger):
            got = f"partition {number}, event {self.seq}: it does not fit to the one before it"
            raise LedgerError(Problem("ledger", got, "a whole chain to go on from", "makegood ledger verify says more; restore a copy"))
        mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
        self._insert, self._keep = (_insertion(table, mark) for table in (schema.events, schema.private))

    def _fits(self, ledger: str) -> bool:
        """Tell whether the last event, where it lies in the table, is chained to the one before it."""
        e, s = schema.events.c, schema.segments.c
        own = (e.partition == self.number, e.seq == self.seq)
        row = self.connection.execute(
            sa.select(e.id, e.kind, e.case_name, e.about, e.unit, e.at, e.request, e.body, e.commitment).where(*own)
        ).first()
        if row is None:
            return True
        if self.seq == 1:
            before: bytes | None = chain.genesis(ledger, self.number)
        else:
            asked = sa.select(e.hash).where(e.partition == self.number, e.seq == self.seq - 1)
            filed = sa.select(s.hash).where(s.partition == self.number, s.last == self.seq - 1)
            before = self.connection.scalar(filed) or self.connection.scalar(asked)
        fields, commitment = tuple(row)[:8], bytes(row[8])
        return before is not None and chain.link(before, self.number, self.seq, Event(*fields), commitment) == self.head

    def touch(self) -> None:
        """Write something that changes nothing, to see whether the ledger can be written."""
        with self.connection.begin():
            self.connection.execute(schema.meta.update().where(schema.meta.c.name == "version").values(value=str(schema.VERSION)))

    def write(self, events: Sequence[Event]) -> list[Receipt]:
        """Return what became of each event of one transaction, which is committed when this returns.

        An id that is there already, in the ledger or earlier among these events, is not written again.
        """
        with self.connection.begin():
            there = stored_among(self.connection, [event.id for event in events])
            there |= archived_among(self.connection, [event.id for event in events if event.id not in there])
            fresh: dict[str, Event] = {}
            for event in events:
                if event.id not in there:
                    fresh.setdefault(event.id, event)
            placed = self._placed(list(fresh.values()))
        if placed:
            self.seq, self.head = placed[-1].seq, placed[-1].hash
        there |= {stored.event.id: stored for stored in placed}
        return [self._receipt(event, there[event.id], fresh.pop(event.id, None)) for event in events]

    def maintain(self, work: Work) -> None:
        """Do work on the tables in one transaction with the events that it writes."""
        placed: list[Stored] = []
        with self.connection.begin():
            work(self.connection, lambda events: placed.extend(self._placed(events)))
        if placed:
            self.seq, self.head = placed[-1].seq, placed[-1].hash

    def _receipt(self, event: Event, stored: Stored, written: Event | None) -> Receipt:
        if written is not None:  # the first of its id
            return Receipt(event.id, "new")
        return Receipt(event.id, "same" if event.request == stored.event.request else "conflict", stored)

    def _placed(self, events: Sequence[Event]) -> list[Stored]:
        """Insert events at the end of the chain, and return them as they lie there."""
        out: list[Stored] = []
        latest = self._latest_promotion() if any(event.kind == "promotion" for event in events) else 0
        rows: list[tuple[object, ...]] = []
        parts: list[tuple[object, ...]] = []
        seq, head = self.seq, self.head
        for event in events:
            if event.kind == "promotion":
                latest = max(event.at, latest + 1)
                event = replace(event, at=latest)
            salt = b"" if event.private is None else chain.salted()
            committed = chain.commitment(salt, event.private)
            seq += 1
            head = chain.link(head, self.number, seq, event, committed)
            out.append(Stored(event, self.number, seq, committed, head))
            about, request = (event.case, event.about, event.unit, event.at), (event.request, event.body, committed, head)
            rows.append((self.number, seq, event.id, event.kind, *about, *request))
            if event.private is not None:
                parts.append((event.id, salt, event.private))
        if rows:
            self.connection.exec_driver_sql(self._insert, rows)
        if parts:
            self.connection.exec_driver_sql(self._keep, parts)
        return out

    def _latest_promotion(self) -> int:
        """Return the time of the ledger's last promotion, which no other writer passes while this transaction lasts."""
        if self.connection.dialect.name == "postgresql":
            self.connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({PROMOTIONS})")
        e = schema.events.c
        return self.connection.scalar(sa.select(sa.func.max(e.at)).where(e.kind == "promotion")) or 0


PROMOTIONS = 0x6D67_0000_0000_0001
"""The advisory lock under which promotions of several writers get their times."""


def _insertion(table: sa.Table, mark: str) -> str:
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    return f"INSERT INTO {table.name} ({names}) VALUES ({', '.join(mark for _ in table.columns)})"
