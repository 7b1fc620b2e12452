"""The tables of a ledger, for SQLite and PostgreSQL alike."""

from __future__ import annotations

import sqlalchemy as sa

VERSION = 1
"""Of the schema; a ledger of another version is refused or brought up to it, never guessed at."""

metadata = sa.MetaData()

meta = sa.Table(
    "makegood_meta",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),  # version, ledger (its id), salt (of pseudonyms); of a replay, clock
    sa.Column("value", sa.Text, nullable=False),
)

events = sa.Table(
    "makegood_events",
    metadata,
    sa.Column("partition", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("case_name", sa.Text, nullable=False),
    sa.Column("about", sa.Text, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("request", sa.LargeBinary, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("commitment", sa.LargeBinary, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

private = sa.Table(
    "makegood_private",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),  # of the event
    sa.Column("salt", sa.LargeBinary, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

segments = sa.Table(
    "makegood_segments",  # runs of events that were moved out of the tables into files
    metadata,
    sa.Column("partition", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("first", sa.BigInteger, primary_key=True, autoincrement=False),  # seq
    sa.Column("last", sa.BigInteger, nullable=False),
    sa.Column("before", sa.LargeBinary, nullable=False),  # the hash that its first event is chained to
    sa.Column("hash", sa.LargeBinary, nullable=False),  # of its last event
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
)

archived = sa.Table(
    "makegood_archived",  # what the segments hold: no id is given twice, and private parts of it are found
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("partition", sa.BigInteger, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("about", sa.Text, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
)


def _index(name: str, condition: str, *columns: sa.Column[str] | sa.Column[int]) -> None:
    sa.Index(name, *columns, sqlite_where=sa.text(condition), postgresql_where=sa.text(condition))


_index("makegood_about", "about <> ''", events.c.about)
_index("makegood_unit", "unit <> ''", events.c.unit)
_index("makegood_promotions", "kind = 'promotion'", events.c.case_name, events.c.partition, events.c.seq)
