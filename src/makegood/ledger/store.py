"""The ledger as its users see it: open one, submit events, read them."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import sqlalchemy as sa

from makegood.errors import DataError, LedgerError, Problem
from makegood.ledger.clock import BEGINNING, Clock
from makegood.ledger.events import KINDS, Event, Receipt, now_us
from makegood.ledger.reading import Reader, foreign
from makegood.ledger.spool import Spool
from makegood.ledger.sqlite import SQLite
from makegood.ledger.writer import Done, Home, LedgerBusy, State, Writer

__all__ = ["Ledger", "LedgerBusy", "Reader", "State"]

T = TypeVar("T")
QUEUE = 8192
"""How many events may wait."""


class Ledger:
    """The one writer of a ledger, or of its partition on a server; `id` names the ledger, `reader` reads it.

    `replayed` says that it is a replay: its clock stands until it is told the time (`advance`), at first at that of its latest event.
    """

    def __init__(self, home: Home, reader: Reader, url: str, queue: int, spool: Spool | None) -> None:
        self.url = url
        self.id, self._salt = home.identity.ledger, home.identity.salt.encode()
        self.reader, self.replayed = reader, home.identity.replayed
        latest = reader.latest() if self.replayed else None
        self._clock = Clock(BEGINNING if latest is None else latest)
        self._writer = Writer(home, queue, spool)

    @classmethod
    def open(cls, url: str, *, spool: Path | None = None, queue: int = QUEUE, replayed: bool = False) -> Self:
        """Return the writer of the ledger at a URL, made where there is none: `sqlite:///PATH` or `postgresql://…`.

        `spool` is the file that takes events while a server is away; what is left in it is written first. `replayed` says that the
        ledger is a replay; one writes into it alone, and nothing that was spooled, since that is of a live one.

        Raises `LedgerError` where it cannot be written, is another's to write, is of another version, or is live where a replay is
        meant, or the other way round.
        """
        if replayed and spool is not None:
            raise LedgerError(Problem("spool", str(spool), "none for a replay", "leave it out: a replay waits for its database"))
        named = sa.make_url(url)
        home: Home
        if named.get_backend_name() == "sqlite":
            if not named.database or named.database == ":memory:":
                raise LedgerError(Problem("ledger", url, "sqlite:///PATH", "name a file: what is only in memory is lost"))
            home = SQLite(Path(named.database).resolve(), replayed=replayed)
        elif named.get_backend_name() == "postgresql":
            from makegood.ledger.postgres import Postgres  # its driver is an extra

            home = Postgres(named, replayed=replayed)
        else:
            raise foreign(url)
        with contextlib.ExitStack() as undo:
            undo.callback(home.release)
            reader = Reader.open(url)
            undo.callback(reader.close)
            waiting = None if spool is None else Spool(spool)
            if waiting is not None:
                undo.callback(waiting.close)
            ledger = cls(home, reader, url, queue, waiting)
            undo.pop_all()
            return ledger

    def submit(self, events: Sequence[Event], done: Done) -> None:
        """Queue events to be committed together, and return at once.

        `done` is called once, in the writer's thread, and must not raise: after the commit with a receipt for each event, or with the
        error. Raises `LedgerBusy` where too many wait, `LedgerError` where nothing can be written, `DataError` for an event that no
        ledger can hold; then `done` is not called.
        """
        for event in events:
            _check(event)
        self._writer.submit(events, done)

    def append(self, events: Sequence[Event], timeout_s: float = 30.0) -> list[Receipt]:
        """Return the receipts of events, once they are durable; raises `LedgerError` where they are not."""
        return self._waited(partial(self.submit, events), timeout_s)

    def maintain(self, work: Callable[[sa.Connection, Callable[[Sequence[Event]], None]], T], timeout_s: float = 600.0) -> T:
        """Return what `work` returns, once what it did on the tables, by the connection that it is given, is durable.

        It may write events, once, by the function that it is given, in the same transaction; whatever it raises undoes all of it.
        """
        out: list[T] = []
        self._waited(partial(self._writer.maintain, lambda connection, write: out.append(work(connection, write))), timeout_s)
        return out[-1]

    def _waited(self, queue: Callable[[Done], None], timeout_s: float) -> list[Receipt]:
        over = threading.Event()
        answer: list[list[Receipt] | LedgerError] = []

        def done(receipts: list[Receipt] | LedgerError) -> None:
            answer.append(receipts)
            over.set()

        queue(done)
        if not over.wait(timeout_s):
            mend = "repeat it with the same ids: what was written is not written twice"
            raise LedgerError(Problem("ledger", f"no answer in {timeout_s:g} s", "a commit", mend))
        if isinstance(answer[0], LedgerError):
            raise answer[0]
        return answer[0]

    def pseudonym(self, unit: str) -> str:
        """Return what stands for a unit in the ledger, 32 hexadecimal digits; "" for ""."""
        return hmac.new(self._salt, unit.encode(), hashlib.sha256).hexdigest()[:32] if unit else ""

    def now_us(self) -> int:
        """Return the time that events are to bear, in microseconds since 1970, UTC: the wall's, or of a replay what it was told last."""
        return self._clock.now_us() if self.replayed else now_us()

    def advance(self, at: int) -> None:
        """Tell a replay the time; it goes forward alone. Raises `DataError` for an earlier one, `LedgerError` where the ledger is live."""
        if not self.replayed:
            raise LedgerError(Problem("ledger", "a live ledger", "a replay", "a live one has the time of the wall"))
        self._clock.advance(at)

    @property
    def state(self) -> State:
        """How the ledger does."""
        return self._writer.state

    def close(self) -> None:
        """Write what waits, fold the log into the file, and let it go."""
        self._writer.close()
        self.reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check(event: Event) -> None:
    """Raise `DataError` for an event that no ledger can hold; one of them would fail everything that is committed with it."""
    text = f"{event.id}{event.case}{event.about}{event.unit}"
    if not event.id or event.kind not in KINDS or not text.isprintable() or not -(2**63) <= event.at < 2**63:
        expected = f"an id, a kind of {', '.join(KINDS)}, text that can be printed, and a time in 64 bits"
        raise DataError(Problem(f"event {event.id!r}", f"kind {event.kind!r}, at {event.at}", expected))
