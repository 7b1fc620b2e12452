"""Whether a ledger is whole: every event recomputed, every private part against its commitment, every head against its anchors.

What is found whatever was changed: any value of any row, rows deleted, inserted, swapped or written twice, a gap, private parts that
changed, that are gone without an erasure, that nobody owns or that came back, segments' files, tables and triggers that are not ours,
and, given anchors, a tail that was cut off and a chain that was computed anew. One pass in the chain's order and a private scratch
database on disk: memory does not grow with the ledger.

What cannot be found: without anchors, a tail that is missing or was rewritten together with all that follows it (the hashes have no
key); with anchors, the same after the last one. Whoever can write the ledger, the anchors and their key can make all three anew, so
keep a copy of anchor.pub and of anchors.jsonl elsewhere and give them to `verify`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from makegood.errors import LedgerError, Problem
from makegood.ledger import anchors as signed
from makegood.ledger import chain, schema, snapshot
from makegood.ledger.anchors import Head
from makegood.ledger.founding import CLOCK, REPLAYED, SETTINGS
from makegood.ledger.walk import FINDINGS, SCRATCH, UNREADABLE, Found, Reading, walk

_ACTING = "SELECT type, name, tbl_name FROM sqlite_master WHERE type IN ('trigger', 'view')"
_ACTING_POSTGRES = """
SELECT 'trigger', tgname, relname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
 WHERE NOT tgisinternal AND relnamespace = current_schema()::regnamespace
UNION ALL SELECT 'rule', rulename, tablename FROM pg_rules WHERE schemaname = current_schema()
UNION ALL SELECT 'view', viewname, viewname FROM pg_views WHERE schemaname = current_schema()
"""
_COLUMNS_POSTGRES = (
    "SELECT column_name, data_type, is_nullable = 'NO' FROM information_schema.columns"
    " WHERE table_schema = current_schema() AND table_name = :t"
)


@dataclass(frozen=True)
class Verified:
    """What verification found.

    `partitions` holds the head of each partition as it was read, archived events included; `anchored` is how many anchors were
    compared and `key` where the public key came from ("" for none). `findings` of severity "warning" say what could not be checked.
    """

    ledger: str
    partitions: Mapping[int, Head]
    findings: tuple[Problem, ...]
    anchored: int
    key: str

    @property
    def ok(self) -> bool:
        """Whether nothing but warnings was found."""
        return all(f.severity == "warning" for f in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the values for JSON; hashes are hexadecimal."""
        return {
            "ledger": self.ledger,
            "ok": self.ok,
            "partitions": {str(p): {"events": head.seq, "hash": head.hash.hex()} for p, head in self.partitions.items()},
            "anchors": self.anchored,
            "key": self.key,
            "findings": [vars(f) for f in self.findings],
        }


def verify(url: str, *, anchors: Path | None = None, public_key: Path | None = None, folder: Path | None = None) -> Verified:
    """Return what is wrong with a ledger, if anything; it is only read, and may be written to meanwhile.

    `anchors` is a file of anchors and `public_key` one with the key that signed them; without them, those in `folder` are taken, where
    the segments lie too: by default that of a SQLite file. A replay, of which a warning tells, has no anchors: those beside it are
    a live ledger's. Raises `LedgerError` where the ledger, or a file that was named, cannot be read at all.
    """
    folder = folder or snapshot.folder(url)
    path = anchors or folder / signed.LINES
    if anchors and not anchors.exists():
        raise LedgerError(Problem("--anchors", str(anchors), "a file of anchors"))
    pub = public_key or folder / signed.PUBLIC
    key = signed.public_key(pub) if public_key or pub.exists() else None
    size = path.stat().st_size if path.exists() else 0  # before the ledger: an anchor of what comes later is not of what is read
    found = Found()
    with closing(sqlite3.connect("", isolation_level=None)) as scratch, snapshot.reading(url) as connection:
        scratch.executescript(SCRATCH)
        _tables(connection, found)
        meta = _meta(connection, found)
        ledger = meta.get("ledger", "")
        if alone := CLOCK in meta and not (anchors or public_key):
            size, key = 0, None
        compared = _anchors((path, size), ledger, key, found, scratch)
        partitions = walk(Reading(connection, ledger, folder, scratch), found)
    if size and key is None:
        found.add(str(pub), "no key", "the key that signed the anchors")
    elif alone:
        found.add("ledger", "a replay", "a live ledger, if it is to prove what was decided, and when", "warning")
    elif not compared:  # whoever takes anchors away takes the key beside them as well: only a key that was kept elsewhere proves it
        severity = "error" if public_key or anchors else "warning"
        found.add(str(path), "no anchor", "one: without it nobody can tell whether a partition's end is missing", severity)
    return Verified(ledger, partitions, found.listed(), compared, str(pub) if key else "")


def _tables(connection: sa.Connection, found: Found) -> None:
    """Look whether the database is sound, has our tables as they should be, and nothing that would act on them."""
    sqlite = connection.dialect.name == "sqlite"
    try:
        if sqlite:
            for (said,) in connection.exec_driver_sql(f"PRAGMA integrity_check({FINDINGS})"):
                if said != "ok":
                    found.add("database", said, "ok")
        for table in schema.metadata.sorted_tables:
            _columns(connection, table, found)
        acting = _ACTING if sqlite else _ACTING_POSTGRES
        for kind, name, of in connection.exec_driver_sql(acting):
            if sqlite or of in schema.metadata.tables:
                found.add(f"database: {kind} {name}", f"on {of}", "none: a ledger's tables have no triggers, and no views stand for them")
    except UNREADABLE as error:
        found.unread("database", error)


def _columns(connection: sa.Connection, table: sa.Table, found: Found) -> None:
    if connection.dialect.name == "sqlite":
        rows = connection.execute(sa.text('SELECT name, type, "notnull" FROM pragma_table_xinfo(:t)'), {"t": table.name})
        there = [(name, kind.lower(), required) for name, kind, required in rows]
        indexes = {i for (i,) in connection.execute(sa.text("SELECT name FROM pragma_index_list(:t)"), {"t": table.name})}
    else:
        rows = connection.execute(sa.text(_COLUMNS_POSTGRES), {"t": table.name})
        there = [(name, kind, required) for name, kind, required in rows]
        named = "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema() AND tablename = :t"
        indexes = {i for (i,) in connection.execute(sa.text(named), {"t": table.name})}
    columns = {name: f"{kind}{' not null' if required else ''}" for name, kind, required in there}
    wanted = {c.name: f"{c.type.compile(connection.dialect).lower()}{'' if c.nullable else ' not null'}" for c in table.columns}
    for name in sorted(wanted.keys() | columns.keys()):
        if (got := columns.get(name, "no such column")) != (expected := wanted.get(name, "no such column")):
            found.add(f"database: {table.name}.{name}", got, expected)
    for index in sorted({str(i.name) for i in table.indexes} - indexes):
        found.add(f"database: {index}", "no such index", f"an index of {table.name}")


def _meta(connection: sa.Connection, found: Found) -> dict[str, str]:
    """Return what the ledger says of itself."""
    try:
        rows = [tuple(row) for row in connection.exec_driver_sql("SELECT name, value FROM makegood_meta")]
    except UNREADABLE as error:
        found.unread("makegood_meta", error)
        return {}
    meta = {name: value for name, value in rows if type(name) is str and type(value) is str}
    if len(meta) != len(rows):
        found.add("makegood_meta", "a value that is no text", "text")
    if meta.get("version") != str(schema.VERSION):
        found.add("makegood_meta: version", meta.get("version", "none"), f"{schema.VERSION}, which this release reads")
    if meta.get("ledger") != (given := chain.named(meta.get("salt", ""), replayed=CLOCK in meta)):
        found.add("makegood_meta: ledger", meta.get("ledger", "none"), f"{given}, which the salt gives")
    if meta.get(CLOCK, REPLAYED) != REPLAYED:
        found.add(f"makegood_meta: {CLOCK}", meta[CLOCK], f"{REPLAYED}, or nothing of this name")
    for name in sorted(meta.keys() - {*SETTINGS, CLOCK}):
        found.add(f"makegood_meta: {name}", meta[name], "nothing of this name")
    return meta


def _anchors(file: tuple[Path, int], ledger: str, key: Ed25519PublicKey | None, found: Found, scratch: sqlite3.Connection) -> int:
    """Check the anchors in the first bytes of a file, put them in order for the walk, and return how many are signed by the key."""
    if key is None:
        return 0
    n = 0
    for number, anchor, whole in signed.lines(*file):
        where = f"{file[0]}: line {number}"
        if anchor is None:
            found.add(where, "no anchor", "one", "error" if whole else "warning")
        elif not anchor.is_signed_by(key):
            found.add(where, "a signature by another key, or of something else", "one by the ledger's key of what the line says")
        elif anchor.ledger != ledger:
            found.add(where, f"an anchor of ledger {anchor.ledger}", f"one of {ledger}")
        else:
            scratch.execute("INSERT INTO anchor VALUES (?, ?, ?, ?)", (anchor.partition, anchor.seq, anchor.hash, number))
            n += 1
    return n
