"""A ledger in one SQLite file: one connection writes and checkpoints, under a lock that the file's folder shows.

Before SQLite 3.51.3 a write-ahead log could be reset under a second connection that writes or checkpoints; here there is none.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa

from makegood.errors import LedgerError, Problem
from makegood.ledger import schema
from makegood.ledger.founding import Identity, founded
from makegood.ledger.partition import After, Partition
from makegood.ledger.reading import told

if os.name == "posix":
    import fcntl

BUSY_S = 2
"""How long a commit waits for who else may hold the file: nobody should."""
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "wal_autocheckpoint=1000", "temp_store=MEMORY")


class SQLite:
    """A file that this process alone writes to, live or a replay; `partition` is its one partition."""

    def __init__(self, path: Path, *, replayed: bool = False) -> None:
        self.path = path
        self._lock = _locked(path)
        named = sa.URL.create("sqlite", database=str(path))
        self._engine = sa.create_engine(named, poolclass=sa.StaticPool, connect_args={"check_same_thread": False, "timeout": BUSY_S})
        sa.event.listen(self._engine, "connect", _prepared)
        sa.event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        try:
            self.connection = self._engine.connect()
            with self.connection.begin():
                self.identity: Identity = founded(self.connection, replayed=replayed)
            with self.connection.begin():
                self.partition = Partition(self.connection, self.identity.ledger, 0)
        except sa.exc.DatabaseError as error:
            self.release()
            mend = "give a ledger's file, or one that does not exist yet"
            raise LedgerError(Problem("ledger", f"{path}: {told(error)}", "a file that a ledger can lie in", mend)) from None
        except LedgerError:
            self.release()
            raise

    def after(self, error: sa.exc.DBAPIError) -> After:
        """Return what to do after an error: a full disk may have room again; what else fails leaves in doubt what is on the disk."""
        code = getattr(error.orig, "sqlite_errorcode", 0)
        return "go on" if code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY) or code == sqlite3.SQLITE_IOERR_SHMSIZE else "stop"

    def reopen(self) -> None:
        """Never: a file does not go away and come back."""
        raise AssertionError("a file is not reopened")

    def forget(self) -> None:
        """Empty the write-ahead log, in which what was erased still lies."""
        driver: Any = self.connection.connection.dbapi_connection  # SQLAlchemy would begin a transaction, where there is no checkpoint
        try:
            busy, _, _ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            raise sa.exc.DatabaseError("wal_checkpoint", None, error) from None
        if busy:
            mend = "what was erased can be read no more; its bytes leave the log with the next erasure, or when the service stops"
            raise LedgerError(Problem("ledger", f"{self.path}: a reader that holds the log", f"none for {BUSY_S} seconds", mend))

    def close(self) -> None:
        """Fold the log into the file and let both go."""
        with contextlib.suppress(sa.exc.DBAPIError, LedgerError):  # the log is as good a place for what could not be folded in
            self.forget()
        self.release()

    def release(self) -> None:
        """Let the file and its lock go as they are."""
        if hasattr(self, "connection"):
            with contextlib.suppress(sa.exc.DBAPIError):
                self.connection.close()
        self._engine.dispose()
        self._lock.close()


def _prepared(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions begin where we say
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and schema.meta.name not in tables:
        connection.close()
        mend = "give a ledger's file, or one that does not exist yet"
        raise LedgerError(Problem("ledger", "a SQLite file of another program", "a ledger's", mend))
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").fetchall()  # an error may come after the first row
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    level = connection.execute("PRAGMA synchronous").fetchone()[0]
    if (mode, level) != ("wal", 2):
        raise LedgerError(Problem("ledger", f"journal_mode {mode}, synchronous {level}", "a file system on which SQLite can be durable"))


def _locked(path: Path) -> IO[str]:
    """Return the lock of a ledger's file, held until it is closed; raises `LedgerError` where another process holds it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # it tells of people; SQLite gives the log beside it the same mode
        lock = path.with_name(f"{path.name}.lock").open("a+", encoding="ascii")
    except OSError as error:
        got = f"{path.parent}: {error.strerror}"
        raise LedgerError(Problem("ledger", got, "a folder that can be written to", "mend its permissions")) from None
    try:
        if os.name == "posix":
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        mend = "stop that one, or give several services one PostgreSQL by MAKEGOOD_LEDGER"
        raise LedgerError(
            Problem("ledger", f"{path}: process {holder} writes to it", "a ledger that nobody else writes to", mend)
        ) from None
    lock.seek(0)
    lock.truncate()
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock
