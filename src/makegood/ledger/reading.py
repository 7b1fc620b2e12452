"""Reads of a ledger, beside its writer or without one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import msgspec
import sqlalchemy as sa

from makegood.errors import LedgerError, MissingExtra, Problem
from makegood.ledger import schema
from makegood.ledger.events import KINDS, Event, Stored
from makegood.ledger.founding import identity

BATCH = 1000
_E, _P = schema.events.c, schema.private.c
_STORED = sa.select(
    *(_E[name] for name in ("id", "kind", "case_name", "about", "unit", "at", "request", "body")),
    _P.data,
    *(_E[name] for name in ("partition", "seq", "commitment", "hash")),
).select_from(schema.events.outerjoin(schema.private, _P.id == _E.id))
_AMONG = {
    "sqlite": f"{_STORED} WHERE makegood_events.id IN (SELECT value FROM json_each(?))",
    "postgresql": f"{_STORED} WHERE makegood_events.id = ANY(%s)",
}

_ARCHIVED = {
    "sqlite": "SELECT id, about, unit, partition, seq FROM makegood_archived WHERE id IN (SELECT value FROM json_each(?))",
    "postgresql": "SELECT id, about, unit, partition, seq FROM makegood_archived WHERE id = ANY(%s)",
}

_ABOUT = {
    name: f"{_STORED} WHERE makegood_events.about <> '' AND makegood_events.about {among}"
    " ORDER BY makegood_events.at, makegood_events.partition, makegood_events.seq"
    for name, among in {"sqlite": "IN (SELECT value FROM json_each(?))", "postgresql": "= ANY(%s)"}.items()
}
"""What was said of decisions; `about <> ''` lets SQLite see that its index on `about` will do."""


def stored_among(connection: sa.Connection, ids: Sequence[str]) -> dict[str, Stored]:
    """Return those of the ids that the ledger holds, with what it holds."""
    name = connection.dialect.name
    return {row[0]: _stored(row) for row in connection.exec_driver_sql(_AMONG[name], (_given(name, ids),))}


def archived_among(connection: sa.Connection, ids: Sequence[str]) -> dict[str, Stored]:
    """Return those of the ids whose events lie in a segment's file, each as an event of the kind "archived" that says no more."""
    name = connection.dialect.name
    rows = connection.exec_driver_sql(_ARCHIVED[name], (_given(name, ids),)).all()
    gone = {id: Event(id, "archived", "", about, unit, 0, b"", b"") for id, about, unit, _, _ in rows}
    return {id: Stored(gone[id], partition, seq, b"", b"") for id, _, _, partition, seq in rows}


def _given(name: str, ids: Sequence[str]) -> Any:
    """Return ids as one parameter of a database's query."""
    return msgspec.json.encode(ids).decode() if name == "sqlite" else list(ids)


def _stored(row: Sequence[Any]) -> Stored:
    request, body, data = bytes(row[6]), bytes(row[7]), row[8]
    event = Event(row[0], row[1], row[2], row[3], row[4], row[5], request, body, None if data is None else bytes(data))
    return Stored(event, row[9], row[10], bytes(row[11]), bytes(row[12]))


def read_only(path: Path) -> sa.URL:
    """Return the URL by which a SQLite file is only read."""
    return sa.URL.create("sqlite", database=path.resolve().as_uri(), query={"mode": "ro", "uri": "true"})


def driven(url: sa.URL) -> sa.URL:
    """Return a PostgreSQL server's URL with the driver that we use; raises `MissingExtra` where it is not installed."""
    if find_spec("psycopg") is None:
        raise MissingExtra(Problem("ledger", "psycopg is not installed", "it, for a PostgreSQL ledger", "pip install 'makegood[postgres]'"))
    return url.set(drivername="postgresql+psycopg")


def told(error: BaseException) -> str:
    """Return what a database said, in one line."""
    said = str(getattr(error, "orig", None) or error).strip()
    return said.splitlines()[0] if said else type(error).__name__


class Reader:
    """What a ledger holds, for any number of threads; nothing is ever written. `replayed` says that it is a replay, and not live."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self.replayed = False

    @classmethod
    def open(cls, url: str) -> Self:
        """Return a reader of the ledger at a URL; raises `LedgerError` where there is none."""
        named = sa.make_url(url)
        if named.get_backend_name() == "sqlite":
            path = Path(named.database or "")
            if not path.is_file():
                raise LedgerError(Problem("ledger", str(path), "a ledger's file", "makegood serve CASE makes it"))
            engine = sa.create_engine(read_only(path))
        elif named.get_backend_name() == "postgresql":
            engine = sa.create_engine(driven(named), isolation_level="AUTOCOMMIT", pool_pre_ping=True)
        else:
            raise foreign(url)
        reader = cls(engine)
        try:
            with reader._reading() as connection:
                found = {str(name): str(value) for name, value in connection.execute(sa.select(schema.meta))}
            reader.replayed = identity(found).replayed
        except LedgerError:
            engine.dispose()
            raise
        return reader

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            shown = self._engine.url.render_as_string(hide_password=True)
            raise LedgerError(Problem("ledger", f"{shown}: {told(error)}", "a ledger that can be read", "see that it is there")) from None

    def event(self, id: str) -> Stored | None:
        """Return an event, None where there is none of this id; raises `LedgerError` where the ledger cannot be read, as all reads do."""
        return self.events([id]).get(id)

    def events(self, ids: Sequence[str]) -> dict[str, Stored]:
        """Return those events that are there, by id."""
        with self._reading() as connection:
            return stored_among(connection, ids)

    def archived(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the names of the segments' files in which those events lie that are archived, by id."""
        with self._reading() as connection:
            there = archived_among(connection, ids)
            s = schema.segments.c
            found = {}
            for id, stored in there.items():
                place = (s.partition == stored.partition, s.first <= stored.seq, s.last >= stored.seq)
                found[id] = str(connection.execute(sa.select(s.file).where(*place)).scalar_one())
            return found

    def about(self, decision: str) -> list[Stored]:
        """Return the outcome, the corrections and the overrides of a decision, and its erasures, in order of time."""
        return self.all_about([decision]).get(decision, [])

    def all_about(self, decisions: Sequence[str]) -> dict[str, list[Stored]]:
        """Return the same of several decisions, those of which nothing was said left out."""
        said: dict[str, list[Stored]] = {}
        with self._reading() as connection:
            name = connection.dialect.name
            for row in connection.exec_driver_sql(_ABOUT[name], (_given(name, decisions),)):
                said.setdefault(row[3], []).append(_stored(row))
        return said

    def promotions(self, case: str) -> list[Stored]:
        """Return what was promoted, rolled back or tried in a case, in order."""
        return self._of_kind("promotion", case)

    def alarms(self, case: str) -> list[Stored]:
        """Return the alarms of a case, in order, but for those that were archived."""
        return self._of_kind("alarm", case)

    def _of_kind(self, kind: str, case: str) -> list[Stored]:
        with self._reading() as connection:
            rows = connection.execute(_STORED.where(_E.kind == kind, _E.case_name == case).order_by(_E.at))
            return [_stored(row) for row in rows]

    def latest(self) -> int | None:
        """Return the time of the latest event, None where there is none; what was archived is older."""
        with self._reading() as connection:
            at: int | None = connection.scalar(sa.select(sa.func.max(_E.at)))
            return at

    def scan(
        self, *, case: str | None = None, after: Mapping[int, int] | None = None, kinds: Sequence[str] = KINDS
    ) -> Iterator[list[Stored]]:
        """Yield events in batches, partition by partition, in the order of their chain.

        `after` tells for a partition the `seq` up to which they are known already.
        """
        known = after or {}
        with self._reading() as connection:
            partitions = connection.scalars(sa.select(_E.partition).distinct().order_by(_E.partition)).all()
        for partition in partitions:
            seq = known.get(partition, 0)
            while True:
                wanted = _STORED.where(_E.partition == partition, _E.seq > seq, _E.kind.in_(kinds)).order_by(_E.seq).limit(BATCH)
                with self._reading() as connection:
                    batch = [_stored(row) for row in connection.execute(wanted if case is None else wanted.where(_E.case_name == case))]
                if batch:
                    yield batch
                    seq = batch[-1].seq
                if len(batch) < BATCH:
                    break

    def decided_since(self, case: str, at: int) -> Iterator[tuple[str, int, bytes]]:
        """Yield id, time and body of a case's decisions after a time, the last of each partition first.

        A partition is walked back until a whole batch of it is older: its order is that of time but for a clock that was set. Raises
        `LedgerError`, at the end, where some of these decisions may have been archived.
        """
        with self._reading() as connection:
            ends = connection.execute(sa.select(_E.partition, sa.func.max(_E.seq)).group_by(_E.partition)).all()
            archived = set(connection.scalars(sa.select(schema.segments.c.partition)))
        for partition, last in ends:
            seq, older = last + 1, False
            while True:
                asked = sa.select(_E.seq, _E.id, _E.at, _E.body, _E.kind, _E.case_name)
                with self._reading() as connection:
                    wanted = asked.where(_E.partition == partition, _E.seq < seq).order_by(_E.seq.desc()).limit(BATCH)
                    batch = connection.execute(wanted).all()
                yield from ((row.id, row.at, bytes(row.body)) for row in batch if row[4:] == ("decision", case) and row.at > at)
                older |= any(row.at <= at and row.kind != "promotion" for row in batch)  # promotions are never archived
                if len(batch) < BATCH or all(row.at <= at for row in batch):
                    break
                seq = batch[-1].seq
            if partition in archived and not older:
                got = f"partition {partition}: events that were archived may be as recent"
                raise LedgerError(Problem("ledger", got, "all decisions of that time", "archive older ones alone"))

    def close(self) -> None:
        """Let every connection go."""
        self._engine.dispose()


def foreign(url: str) -> LedgerError:
    """Return the error for a URL of a database that no ledger lies in."""
    scheme = url.partition(":")[0]
    return LedgerError(Problem("ledger", scheme, "sqlite:///PATH or postgresql://USER@HOST/DATABASE", "set MAKEGOOD_LEDGER to such a URL"))
