"""B5: durable events a second, beside a raw SQLite insert loop and PostgreSQL's COPY.

    python bench/ledger.py --postgres postgresql://user@host/database

A decision of 300 bytes: a body of 200 and a private part of 100 with its salt, in a hash chain. `synchronous=FULL`: what is
acknowledged is on the disk, whose own fsync is printed. Cells: batches of 64, one after another, each waited for; bulk, batches of
4,096; and 64 submitters of one event each, as a service has them, who submit again when they are acknowledged. The raw loop inserts the
same bytes without chain, salt, or a look whether the id is known; so does COPY, in one server process with `fsync` and
`synchronous_commit` on. Rounds are interleaved; a figure is the median over rounds.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any, LiteralString

import numpy as np
import psycopg

import result
from makegood.errors import LedgerError
from makegood.ids import uuid7
from makegood.ledger.events import Event, Receipt, now_us, request_hash
from makegood.ledger.store import Ledger

BATCH, BULK, SUBMITTERS = 64, 4096, 64
BODY, PRIVATE = 200, 100
CREATE: LiteralString = "create table event (id text primary key, at bigint, unit text, request {bytes}, body {bytes}, private {bytes})"
COPY: LiteralString = "copy event (id, at, unit, request, body, private) from stdin (format binary)"
TARGETS = {"batches_per_second": 10_000, "bulk_per_second": 30_000, "p99_ms": 25.0, "fsync_ms": 4.0}


def events(seed: int) -> Iterator[Event]:
    """Yield decisions of 300 bytes, without end."""
    rng = np.random.default_rng(seed)
    body = b'{"text":"' + b"x" * (BODY - 11) + b'"}'
    for n in count():
        private = b'{"inputs":{"n":"' + f"{n:012d}".encode() + rng.bytes((PRIVATE - 31) // 2).hex().encode()
        private = private[: PRIVATE - 3].ljust(PRIVATE - 3, b"0") + b'"}}'
        (id,) = uuid7(1)
        yield Event(id, "decision", "loans", "", f"{n % 1000:032x}", now_us(), request_hash(private), body, private)


Write = Callable[[Sequence[Event]], None]


def timed(write: Write, batches: Sequence[Sequence[Event]]) -> dict[str, float]:
    """Return events a second, and the time until a batch is durable, of batches one after another."""
    spent, start = [], time.perf_counter()
    for batch in batches:
        began = time.perf_counter()
        write(batch)
        spent.append(time.perf_counter() - began)
    return figures(sum(map(len, batches)), time.perf_counter() - start, spent)


def figures(n: int, seconds: float, spent: Sequence[float]) -> dict[str, float]:
    """Return what the result holds of a cell."""
    p50, p99 = (float(np.percentile(spent, p)) * 1000 for p in (50, 99))
    return {"per_second": round(n / seconds, 1), "p50_ms": round(p50, 3), "p99_ms": round(p99, 3), "events": n}


def submitted(ledger: Ledger, stock: Iterator[Event], seconds: float) -> dict[str, float]:
    """Return the same of submitters of one event each; the next is submitted by the acknowledgement of the last."""
    spent: list[float] = []
    start = time.perf_counter()
    end, over, left = start + seconds, threading.Event(), SUBMITTERS

    def submit() -> None:
        began = time.perf_counter()

        def done(told: list[Receipt] | LedgerError) -> None:  # in the writer's thread, one at a time
            nonlocal left
            now = time.perf_counter()
            if isinstance(told, LedgerError):
                raise told
            spent.append(now - began)
            if now < end:
                submit()
            else:
                left -= 1
                if not left:
                    over.set()

        ledger.submit([next(stock)], done)

    for _ in range(SUBMITTERS):
        submit()
    if not over.wait(seconds + 30):
        raise TimeoutError("the ledger acknowledges no more")
    return figures(len(spent), time.perf_counter() - start, spent)


def row(event: Event) -> tuple[Any, ...]:
    """Return an event as the raw tables hold it."""
    return event.id, event.at, event.unit, event.request, event.body, event.private


def raw_sqlite(path: Path) -> tuple[Write, Callable[[], None]]:
    """Return what inserts a batch and commits it, and what closes the file."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=full")
    connection.execute(CREATE.format(bytes="blob"))

    def write(batch: Sequence[Event]) -> None:
        connection.execute("begin immediate")
        for event in batch:
            connection.execute("insert into event values (?, ?, ?, ?, ?, ?)", row(event))
        connection.execute("commit")

    return write, connection.close


def copied(url: str) -> tuple[Write, Callable[[], None]]:
    """Return what copies a batch into a new table and commits it, and what drops the table."""
    connection = psycopg.connect(url)
    connection.execute("drop table if exists event")
    connection.execute(CREATE.format(bytes="bytea"))
    connection.commit()

    def write(batch: Sequence[Event]) -> None:
        with connection.cursor() as cursor, cursor.copy(COPY) as copy:
            copy.set_types(["text", "int8", "text", "bytea", "bytea", "bytea"])
            for event in batch:
                copy.write_row(row(event))
        connection.commit()

    def close() -> None:
        connection.execute("drop table event")
        connection.commit()
        connection.close()

    return write, close


def fsync_ms(folder: Path) -> dict[str, float]:
    """Return what appending 4 KiB and fdatasync take on this disk."""
    spent = []
    with (folder / "probe").open("wb") as file:
        for _ in range(300):
            file.write(b"x" * 4096)
            file.flush()
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            spent.append(time.perf_counter() - start)
    return {"p50_ms": round(statistics.median(spent) * 1000, 3), "p99_ms": round(float(np.percentile(spent, 99)) * 1000, 3)}


def one_round(folder: Path, seed: int, n: int, seconds: float, url: str | None) -> dict[str, dict[str, float]]:
    """Return every cell once; events are made beforehand."""
    stock = events(seed)
    small = [list(islice(stock, BATCH)) for _ in range(n // BATCH)]
    large = [list(islice(stock, BULK)) for _ in range(n // BULK)]
    ready = iter(list(islice(stock, int(40_000 * seconds))))
    out = {}
    with Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}") as ledger:

        def append(batch: Sequence[Event]) -> None:
            ledger.append(batch)

        append(list(islice(stock, BATCH)))
        out["ledger: batches of 64"] = timed(append, small)
        out["ledger: bulk"] = timed(append, large)
        out["ledger: 64 submitters"] = submitted(ledger, ready, seconds)
    peers = {"sqlite3": raw_sqlite(folder / "raw.sqlite")} | ({} if url is None else {"COPY": copied(url)})
    for name, (write, close) in peers.items():
        out[f"{name}: batches of 64"] = timed(write, small)
        out[f"{name}: bulk"] = timed(write, large)
        close()
    return out


def main() -> None:
    """Measure, and write the result."""
    options = argparse.ArgumentParser()
    options.add_argument("--postgres", help="the URL of a database in which a table `event` may be made and dropped")
    options.add_argument("--events", type=int, default=65_536, help="a cell")
    options.add_argument("--seconds", type=float, default=5.0, help="of the cell of submitters")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--folder", type=Path, help="on the disk to measure; the system's temporary one unless given")
    options.add_argument("--name", default="ledger", help="of the result")
    said = options.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory(prefix="makegood-b5-", dir=said.folder) as folder:
        disk = fsync_ms(Path(folder))
        for seed in range(said.rounds):
            place = Path(folder) / str(seed)
            place.mkdir()
            rounds.append(one_round(place, seed, said.events, said.seconds, said.postgres))
    cells = {name: {of: round(statistics.median(one[name][of] for one in rounds), 3) for of in rounds[0][name]} for name in rounds[0]}
    small, bulk = cells["ledger: batches of 64"], cells["ledger: bulk"]
    met = {
        "batches_per_second": small["per_second"] >= TARGETS["batches_per_second"],
        "bulk_per_second": bulk["per_second"] >= TARGETS["bulk_per_second"],
        "p99_ms": max(small["p99_ms"], cells["ledger: 64 submitters"]["p99_ms"]) <= TARGETS["p99_ms"],
        "fsync_ms": disk["p50_ms"] <= TARGETS["fsync_ms"],
    }
    versions = {"sqlite": sqlite3.sqlite_version}
    if said.postgres:
        with psycopg.connect(said.postgres) as connection:
            versions["postgresql"] = str(connection.info.server_version)
    told = {"rounds": said.rounds, "event_bytes": BODY + PRIVATE, "fsync": disk, "cells": cells, "targets": TARGETS, "met": met}
    result.write(said.name, told | {"databases": versions}, ("makegood", "sqlalchemy", "psycopg", "cryptography"))


if __name__ == "__main__":
    main()
