"""A ledger as it is at one moment, read without a writer and without a trace: for those who verify, sign, export and archive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from makegood.errors import LedgerError, Problem
from makegood.ledger.founding import CLOCK, REPLAYED
from makegood.ledger.reading import driven, read_only


def at_url(ledger: str | Path) -> str:
    """Return the URL of a ledger that is named by a URL or by the path of its SQLite file."""
    named = str(ledger)
    return named if "://" in named else f"sqlite:///{named}"


def folder(url: str) -> Path:
    """Return where a ledger's anchors and segments lie: beside a SQLite file, in the current folder for a server's."""
    named = sa.make_url(at_url(url))
    return Path(named.database or "").parent if named.get_backend_name() == "sqlite" else Path()


@contextmanager
def reading(ledger: str) -> Iterator[sa.Connection]:
    """Yield a connection that only reads, and sees the ledger as it is at its first look, whatever is written meanwhile.

    Raises `LedgerError` where there is no ledger, or where what is there is none.
    """
    url = sa.make_url(at_url(ledger))
    if url.get_backend_name() == "sqlite":
        path = Path(url.database or "")
        if not path.is_file():
            raise LedgerError(Problem("ledger", str(path), "a ledger's file", "makegood serve CASE makes it"))
        engine = sa.create_engine(read_only(path), poolclass=sa.NullPool)
    else:
        engine = sa.create_engine(
            driven(url),
            poolclass=sa.NullPool,
            isolation_level="REPEATABLE READ",
            connect_args={"options": "-c default_transaction_read_only=on"},
        )
    shown = url.render_as_string(hide_password=True)
    try:
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN")  # the driver itself begins none for what only reads
            connection.exec_driver_sql("SELECT count(*) FROM makegood_meta")
            yield connection
    except (sa.exc.DBAPIError, UnicodeDecodeError) as error:  # SQLite quotes damaged names in its messages
        said = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise LedgerError(Problem("ledger", f"{shown}: {said}", "a ledger that can be read")) from None
    finally:
        engine.dispose()


def replayed(connection: sa.Connection) -> bool:
    """Return whether the ledger is a replay, and not live."""
    return connection.execute(sa.text("SELECT value FROM makegood_meta WHERE name = :name"), {"name": CLOCK}).scalar() == REPLAYED


def named(connection: sa.Connection) -> str:
    """Return the ledger's id."""
    return str(connection.exec_driver_sql("SELECT value FROM makegood_meta WHERE name = 'ledger'").scalar_one())
