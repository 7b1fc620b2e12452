"""Every way to change a ledger's files that we could think of, and what a reader of the ledger sees before and after.

A change that no read shows (a bit in a page that nothing uses) is no mutation: `reads` says what all reads give.
"""

from __future__ import annotations

import gzip
import os
import random
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from makegood.errors import LedgerError
from makegood.ledger import chain, schema
from makegood.ledger.events import Event
from makegood.ledger.verify import verify

Mutate = Callable[[Path], None]
TABLES = {table.name: [c.name for c in table.columns] for table in schema.metadata.sorted_tables}
KEYS = {table.name: [c.name for c in table.primary_key] for table in schema.metadata.sorted_tables}
LOOKUPS = {  # whatever a reader finds by an index
    "SELECT * FROM makegood_events WHERE id = ?": "SELECT id FROM makegood_events",
    "SELECT * FROM makegood_events WHERE about <> '' AND about = ?": "SELECT id FROM makegood_events",
    "SELECT * FROM makegood_events WHERE unit <> '' AND unit = ?": "SELECT DISTINCT unit FROM makegood_events",
    "SELECT * FROM makegood_events WHERE kind = 'promotion' AND case_name = ?": "SELECT DISTINCT case_name FROM makegood_events",
    "SELECT * FROM makegood_private WHERE id = ?": "SELECT id FROM makegood_private",
    "SELECT * FROM makegood_archived WHERE id = ?": "SELECT id FROM makegood_archived",
    "SELECT * FROM makegood_meta WHERE name = ?": "SELECT name FROM makegood_meta",
    "SELECT * FROM makegood_events WHERE partition = ? ORDER BY seq DESC LIMIT 1": "SELECT DISTINCT partition FROM makegood_segments",
}


def reads(folder: Path) -> object:
    """Return what all reads of a ledger and its segments give; an error is a reading too."""
    seen: list[object] = []
    try:
        with closing(sqlite3.connect(f"file:{folder / 'ledger.sqlite'}?mode=ro", uri=True)) as connection:
            for table, columns in TABLES.items():
                seen.append([_typed(row) for row in connection.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY 1, 2")])
            for lookup, keys in LOOKUPS.items():
                seen.append([[_typed(row) for row in connection.execute(lookup, key)] for key in connection.execute(keys).fetchall()])
    except (sqlite3.Error, UnicodeDecodeError) as error:
        seen.append(type(error).__name__)
    for path in sorted((folder / "segments").glob("*")):
        try:
            seen.append((path.name, gzip.decompress(path.read_bytes())))
        except (OSError, EOFError, zlib.error):
            seen.append((path.name, None))
    return seen


def _typed(row: tuple[Any, ...]) -> list[tuple[str, Any]]:
    return [(type(value).__name__, value) for value in row]


def detected(folder: Path, *, warned: bool = False) -> bool:
    """Return whether verification finds something, or, with `warned`, at least warns; whatever else it raises goes up."""
    try:
        found = verify(str(folder / "ledger.sqlite"))
        return bool(found.findings) if warned else not found.ok
    except LedgerError:
        return True


def undetected(original: Path, scratch: Path, mutations: Iterator[tuple[str, Mutate]]) -> tuple[list[str], int, int]:
    """Try each mutation on a copy; return those that a reader sees and verification does not, how many were seen, and how many not."""
    before, seen, unseen, missed = reads(original), 0, 0, list[str]()
    for name, mutate in mutations:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(original, scratch)
        try:
            mutate(scratch)
        except sqlite3.IntegrityError:  # what SQLite itself refuses
            continue
        if name.startswith("anchors") or reads(scratch) != before:
            seen += 1
            if not detected(scratch, warned=name == "anchors gone"):
                missed.append(name)
        else:
            unseen += 1
    return missed, seen, unseen


def _sql(*statements: tuple[str, tuple[Any, ...]]) -> Mutate:
    def mutate(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "ledger.sqlite")) as connection, connection:
            for statement, values in statements:
                connection.execute(statement, values)

    return mutate


def _script(script: str) -> Mutate:
    def mutate(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "ledger.sqlite")) as connection:
            connection.executescript(script)

    return mutate


def _forged(partition: int, change: Callable[[list[Any]], list[Any]]) -> Mutate:
    def mutate(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "ledger.sqlite")) as connection, connection:
            chained_anew(connection, partition, change)

    return mutate


def _file(name: str, change: Callable[[Path], object]) -> Mutate:
    def mutate(folder: Path) -> None:
        change(folder / name)

    return mutate


def others(value: object) -> list[object]:
    """Return values that a column might hold in place of this one."""
    if isinstance(value, int):
        return [value + 1, value - 1, -value, value ^ 1 << 40, value + 0.5, f"{value}x", None]
    if isinstance(value, str):
        flipped = chr(ord(value[0]) ^ 1) + value[1:] if value else "x"
        return [flipped, value[:-1], value + "x", value + " ", value.swapcase(), value.encode(), "", None, 7]
    assert isinstance(value, bytes)
    ends = [bytes([value[0] ^ 1]) + value[1:], value[:-1] + bytes([value[-1] ^ 128])] if value else []
    return [*ends, value[:-1], value + b"\0", value.hex(), b"", None, 7]


def every_value(path: Path, pick: random.Random, rows: int) -> Iterator[tuple[str, Mutate]]:
    """Yield a change of every column of some rows of every table, to every kind of other value."""
    with closing(sqlite3.connect(path)) as connection:
        for table, columns in TABLES.items():
            keys = KEYS[table]
            there = connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            chosen = {0, len(there) // 2, len(there) - 1, *(pick.randrange(len(there)) for _ in range(rows))}
            where = " AND ".join(f"{k} = ?" for k in keys)
            for row in (there[i] for i in sorted(chosen)):
                key = tuple(row[columns.index(k)] for k in keys)
                for column, value in zip(columns, row, strict=True):
                    for other in others(value):
                        update = f"UPDATE {table} SET {column} = ? WHERE {where}"
                        yield f"{table} {key}: {column} = {other!r:.40}", _sql((update, (other, *key)))


def every_row(path: Path) -> Iterator[tuple[str, Mutate]]:
    """Yield the deletion of every row, a copy of it under another key, and its exchange with the next."""
    with closing(sqlite3.connect(path)) as connection:
        for table, columns in TABLES.items():
            keys, marks = KEYS[table], ", ".join("?" * len(TABLES[table]))
            where = " AND ".join(f"{k} = ?" for k in keys)
            there = connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for i, row in enumerate(there):
                key = tuple(row[columns.index(k)] for k in keys)
                delete = f"DELETE FROM {table} WHERE {where}"
                yield f"{table} {key}: deleted", _sql((delete, key))
                new = {"seq": 1000 + i, "first": 1000 + i, "last": 1001 + i, "id": f"copy-{i}", "name": f"copy-{i}"}
                copy = tuple(new.get(column, value) for column, value in zip(columns, row, strict=True))
                insert = f"INSERT INTO {table} VALUES ({marks})"
                yield f"{table} {key}: copied", _sql((insert, copy))
                if i + 1 < len(there):
                    rest = [column not in keys for column in columns]
                    pair = (row, there[i + 1])
                    exchanged = [tuple(b if r else a for a, b, r in zip(x, y, rest, strict=True)) for x, y in (pair, pair[::-1])]
                    old = [(delete, tuple(r[columns.index(k)] for k in keys)) for r in pair]
                    yield f"{table} {key}: exchanged with the next", _sql(*old, *((insert, r) for r in exchanged))


def chained_anew(connection: sqlite3.Connection, partition: int, change: Callable[[list[Any]], list[Any]]) -> None:
    """Change the rows of a partition as a forger would who has no key: all hashes after the change are right again."""
    rows = connection.execute("SELECT * FROM makegood_events WHERE partition = ? ORDER BY seq", (partition,)).fetchall()
    filed = connection.execute("SELECT max(last) FROM makegood_segments WHERE partition = ?", (partition,)).fetchone()[0] or 0
    row = connection.execute("SELECT hash FROM makegood_segments WHERE partition = ? AND last = ?", (partition, filed)).fetchone()
    ledger = connection.execute("SELECT value FROM makegood_meta WHERE name = 'ledger'").fetchone()[0]
    before = row[0] if row else chain.genesis(ledger, partition)
    connection.execute("DELETE FROM makegood_events WHERE partition = ? AND seq > ?", (partition, filed))
    for seq, row in enumerate(change([list(r) for r in rows if r[1] > filed]), filed + 1):
        _, _, *said, commitment, _ = row
        before = chain.link(before, partition, seq, Event(*said), commitment)
        connection.execute(
            "INSERT INTO makegood_events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (partition, seq, *said, commitment, before)
        )


def forgeries(path: Path) -> Iterator[tuple[str, Mutate]]:
    """Yield what somebody can do who may write the ledger and knows its format, but has no key to sign anchors with."""
    with closing(sqlite3.connect(path)) as connection:
        kinds = connection.execute("SELECT partition, kind, count(*) FROM makegood_events GROUP BY 1, 2").fetchall()
    for partition in (0, 1):

        def inserted(rows: list[Any]) -> list[Any]:
            new = ["forged" if i == 2 else value for i, value in enumerate(rows[3])]
            return [*rows[:3], new, *rows[3:]]

        def ends(rows: list[Any]) -> list[Any]:
            return rows[:-1]

        def swapped(rows: list[Any]) -> list[Any]:
            return [rows[1], rows[0], *rows[2:]]

        def paid(rows: list[Any]) -> list[Any]:
            rows[5][9] = rows[5][9].replace(b"2", b"3")
            return rows

        for change in (inserted, ends, swapped, paid):
            yield f"partition {partition}: {change.__name__}, chained anew", _forged(partition, change)
        for k in range(1, 12):
            tail = "WHERE partition = ? AND seq > (SELECT max(seq) FROM makegood_events WHERE partition = ?) - ?"
            gone = f"DELETE FROM makegood_private WHERE id IN (SELECT id FROM makegood_events {tail})"
            cut, values = f"DELETE FROM makegood_events {tail}", (partition, partition, k)
            yield f"partition {partition}: the last {k} cut off", _sql((gone, values), (cut, values))
    for partition, kind, n in kinds:

        def without(rows: list[Any], kind: str = kind) -> list[Any]:
            return [row for row in rows if row[3] != kind]

        if kind != "promotion" or n > 2:
            yield f"partition {partition}: no {kind}, chained anew", _forged(partition, without)
    statements = {
        "a partition gone": "DELETE FROM makegood_events WHERE partition = 1",
        "all events gone": "DELETE FROM makegood_events",
        "all private parts gone": "DELETE FROM makegood_private",
        "all segments gone": "DELETE FROM makegood_segments",
        "partitions exchanged": "UPDATE makegood_events SET partition = 1 - partition",
        "files exchanged": "UPDATE makegood_segments AS s SET file = (SELECT o.file FROM makegood_segments o WHERE o.partition <> s.partition)",
        "commitments emptied": "UPDATE makegood_events SET commitment = x''",
        "a table gone": "DROP TABLE makegood_private",
        "a view for a table": "ALTER TABLE makegood_meta RENAME TO other; CREATE VIEW makegood_meta AS SELECT * FROM other",
        "a column more": "ALTER TABLE makegood_events ADD COLUMN extra TEXT; UPDATE makegood_events SET extra = 'x', id = id || ''",
    }
    for name, script in statements.items():
        yield name, _script(script)


def files(original: Path) -> Iterator[tuple[str, Mutate]]:
    """Yield changes of the files beside the database."""
    for path in sorted((original / "segments").glob("*")):
        name, size = f"segments/{path.name}", path.stat().st_size
        yield f"{name}: gone", _file(name, Path.unlink)
        for at in range(0, size, max(1, size // 40)):
            yield f"{name}: byte {at}", _file(name, partial(flip, at=at, bits=0x10))
        yield f"{name}: shorter", _file(name, partial(os.truncate, length=size // 2))
    lines = (original / "anchors.jsonl").read_bytes()
    for at in range(0, len(lines) - 1, 7):
        yield f"anchors.jsonl: byte {at}", _file("anchors.jsonl", partial(flip, at=at, bits=1))
    yield "anchors gone", _file("anchors.jsonl", Path.unlink)
    yield "anchors: no key", _file("anchor.pub", Path.unlink)
    yield "anchors: another key", _file("anchor.pub", partial(Path.write_text, data="00" * 32))


def flip(path: Path, at: int, bits: int) -> None:
    """Flip bits of one byte of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ bits]))


def bytes_of_the_database(path: Path, pick: random.Random, n: int) -> Iterator[tuple[str, Mutate]]:
    """Yield n flips of a bit, or of a whole byte, anywhere in the database's file, half of them where SQLite keeps its structure."""
    size = path.stat().st_size
    for i in range(n):
        at = pick.randrange(size)
        if i % 2:
            at = at // 4096 * 4096 + pick.randrange(120)  # the head of a page: its kind, its cells' places; of the first, the file's
        bits = pick.choice([1, 2, 4, 8, 16, 32, 64, 128, 255])
        yield f"byte {at} ^ {bits}", _file("ledger.sqlite", partial(flip, at=at, bits=bits))
