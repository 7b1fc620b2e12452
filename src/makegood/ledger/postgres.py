"""A ledger on a PostgreSQL server that several services share: each writes a partition of its own, which an advisory lock claims.

The lock belongs to the connection that writes. Where that is lost, what it was committing is in doubt: the writer claims a partition
anew and looks its events up by their ids before it says anything.
"""

from __future__ import annotations

import contextlib

import sqlalchemy as sa

from makegood.errors import LedgerError, Problem
from makegood.ledger.founding import Identity, founded
from makegood.ledger.partition import After, Partition
from makegood.ledger.reading import driven, told

LOCKS = 0x6D67
"""The class of the advisory locks: one for each partition, and −1 for making the tables."""
MOST_PARTITIONS = 4096
CONNECT = {
    "connect_timeout": 3,
    "application_name": "makegood",
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


class Postgres:
    """A database in which this process writes `partition`; into a replay it writes alone, since a clock that is told is one's own."""

    def __init__(self, url: sa.URL, *, replayed: bool = False) -> None:
        self._replayed = replayed
        self._shown = url.render_as_string(hide_password=True)
        given = {name: value for name, value in CONNECT.items() if name not in url.query}
        self._engine = sa.create_engine(driven(url), poolclass=sa.NullPool, isolation_level="READ COMMITTED", connect_args=given)
        self.reopen()

    def reopen(self) -> None:
        """Connect, and claim the lowest partition that nobody writes; raises `LedgerError` where that cannot be."""
        self.release()
        try:
            self.connection = self._engine.connect()
            with self.connection.begin():
                self.connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s, -1)", (LOCKS,))
                self._check_durable()
                self.identity: Identity = founded(self.connection, replayed=self._replayed)
            with self.connection.begin():
                self.partition = Partition(self.connection, self.identity.ledger, self._claimed())
        except sa.exc.SQLAlchemyError as error:
            self.release()
            mend = "see that the server runs, and that this user may make tables there"
            raise LedgerError(Problem("ledger", f"{self._shown}: {told(error)}", "a PostgreSQL database", mend)) from None
        except LedgerError:
            self.release()
            raise

    def _check_durable(self) -> None:
        settings = {name: str(self.connection.exec_driver_sql(f"SHOW {name}").scalar()) for name in ("fsync", "full_page_writes")}
        if off := [name for name, value in settings.items() if value != "on"]:
            got = f"{self._shown}: {', '.join(off)} off"
            raise LedgerError(Problem("ledger", got, "a server on which a commit is durable", "set them to on"))

    def _claimed(self) -> int:
        self.connection.exec_driver_sql("SET SESSION synchronous_commit = on")
        for number in range(1 if self._replayed else MOST_PARTITIONS):
            if self.connection.exec_driver_sql("SELECT pg_try_advisory_lock(%s, %s)", (LOCKS, number)).scalar():
                return number
        if self._replayed:
            mend = "stop that one, or replay into another database"
            raise LedgerError(Problem("ledger", f"{self._shown}: another process replays into it", "a replay of one's own", mend))
        raise LedgerError(Problem("ledger", f"{MOST_PARTITIONS} writers", "fewer at once", "stop some"))

    def after(self, error: sa.exc.DBAPIError) -> After:
        """Return what to do after an error: whatever ends the connection, or what the server has no room for, may pass."""
        state = getattr(error.orig, "sqlstate", None) or ""
        passes = error.connection_invalidated or isinstance(error, sa.exc.OperationalError) or state[:2] in ("08", "53", "57", "58")
        return "reopen" if passes else "stop"

    def forget(self) -> None:
        """Leave what was erased to the server's vacuum: it is unreadable to all who ask, and gone once that has run."""

    def close(self) -> None:
        """Let the connection, and the partition with it, go."""
        self.release()

    def release(self) -> None:
        """Let the connection go as it is."""
        if hasattr(self, "connection"):
            with contextlib.suppress(sa.exc.SQLAlchemyError):
                self.connection.invalidate()
                self.connection.close()
