"""A ledger in a SQLite file: durable settings, one writer, full disks, foreign files, readers without a writer."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.ledger.test_store import decision, states

from makegood.errors import LedgerError
from makegood.ledger.reading import Reader
from makegood.ledger.sqlite import SQLite, _prepared
from makegood.ledger.store import Ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the ledger will lie; URLs and SQLite must both cope with such a name."""
    return tmp_path / "of ünits & #1" / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    """An open ledger."""
    with Ledger.open(f"sqlite:///{path}") as opened:
        yield opened


def pragma(ledger: Ledger, name: str) -> object:
    """Return a setting of the connection that writes."""
    return ledger.maintain(lambda connection, _: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())


def test_the_connection_that_writes_is_durable(ledger: Ledger, path: Path) -> None:
    expected = {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "wal_autocheckpoint": 1000}
    assert {name: pragma(ledger, name) for name in expected} == expected
    with closing(sqlite3.connect(":memory:")) as memory, pytest.raises(LedgerError, match="got 'journal_mode memory, synchronous 2'"):
        _prepared(memory, None)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_nobody_else_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.sqlite"
    with Ledger.open(f"sqlite:///{path}") as ledger:
        ledger.append([decision("a")])
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.glob("ledger.sqlite*") if not file.name.endswith(".lock")}
    assert modes == dict.fromkeys(("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"), 0o600)
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_one_process_writes(ledger: Ledger, path: Path) -> None:
    code = "import sys; from makegood.ledger.store import Ledger; Ledger.open(sys.argv[1])"
    told = subprocess.run([sys.executable, "-c", code, ledger.url], capture_output=True, text=True, check=False)
    said = f"process {os.getpid()} writes to it'; expected a ledger that nobody else writes to; stop that one"
    assert said in told.stderr.replace("\n", " ")
    with pytest.raises(LedgerError, match=f"process {os.getpid()} writes to it"):
        Ledger.open(ledger.url)
    assert states(ledger.append([decision("a")])) == ["new"]


def test_a_full_disk_refuses_and_the_writer_goes_on(ledger: Ledger) -> None:
    ledger.append([decision("a")])
    pages = pragma(ledger, "page_count")
    pragma(ledger, f"max_page_count = {pages}")
    with pytest.raises(LedgerError, match="got 'database or disk is full'; expected a ledger that can be written; free space on its disk"):
        ledger.append([decision(f"d{i}", b"x" * 3000) for i in range(20)])
    assert (ledger.state.ok, ledger.state.why) == (False, "database or disk is full")
    assert [stored.event.id for batch in ledger.reader.scan() for stored in batch] == ["a"]
    pragma(ledger, "max_page_count = 1000000")
    patience = time.monotonic() + 20
    while not ledger.state.ok:  # found by itself: nobody sends requests to a service that is not ready
        assert time.monotonic() < patience
        time.sleep(0.05)
    assert states(ledger.append([decision("a"), decision("b")])) == ["same", "new"]
    assert [stored.seq for batch in ledger.reader.scan() for stored in batch] == [1, 2]


def test_while_the_file_stays_locked_the_ledger_says_so(ledger: Ledger, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="database is locked"):
            ledger.append([decision("a")])
        time.sleep(3.5)  # one more look, which the lock keeps from its end for two seconds
        assert ledger.state.why == "database is locked"
        other.execute("ROLLBACK")
    assert states(ledger.append([decision("a")])) == ["new"]
    assert ledger.state.ok


def test_what_leaves_the_disk_in_doubt_stops_the_writer(ledger: Ledger) -> None:
    def refuse(connection: sa.Connection, _: object) -> None:
        connection.exec_driver_sql(
            "CREATE TRIGGER no BEFORE INSERT ON makegood_events WHEN NEW.id = 'bad' BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        )

    ledger.maintain(refuse)
    told: list[object] = []
    with pytest.raises(LedgerError, match="got 'not this one'; expected a ledger that can be written; start the service again"):
        ledger.append([decision("good"), decision("bad")])
    assert (ledger.state.ok, ledger.state.why) == (False, "not this one")
    with pytest.raises(LedgerError, match="start the service again; what was acknowledged is safe"):
        ledger.submit([decision("late")], told.append)
    with pytest.raises(LedgerError, match="not this one"):
        ledger.maintain(refuse)
    assert (ledger.reader.event("good"), told) == (None, [])
    ledger.close()
    with Ledger.open(ledger.url) as again:
        assert states(again.append([decision("good")])) == ["new"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_a_writer_that_a_callback_ended(ledger: Ledger) -> None:
    def fail(_: object) -> None:
        told: list[object] = []
        ledger.submit([decision("b")], told.append)
        waiting.append(told)
        raise ZeroDivisionError

    waiting: list[list[object]] = []
    ledger.submit([decision("a")], fail)
    patience = time.monotonic() + 20
    while not (waiting and waiting[0]):
        assert time.monotonic() < patience
        time.sleep(0.01)
    assert "its writer ended" in str(waiting[0][0])
    with pytest.raises(LedgerError, match="its writer ended"):
        ledger.append([decision("c")])
    ledger.close()
    with Ledger.open(ledger.url) as again:
        assert states(again.append([decision("a"), decision("b")])) == ["same", "new"]


def test_files_of_others_stay_as_they_are(tmp_path: Path) -> None:
    text, other = tmp_path / "notes.txt", tmp_path / "other.sqlite"
    text.write_text("not a database, but of more than a hundred bytes, " * 30, encoding="utf-8")
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    before = {path: path.read_bytes() for path in (text, other)}
    with pytest.raises(LedgerError, match="file is not a database'; expected a file that a ledger can lie in"):
        Ledger.open(f"sqlite:///{text}")
    with pytest.raises(LedgerError, match="got 'a SQLite file of another program'; expected a ledger's; give a ledger's file"):
        Ledger.open(f"sqlite:///{other}")
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(LedgerError, match=re.escape(f"{text}: ")):
        Ledger.open(f"sqlite:///{text / 'ledger.sqlite'}")
    with pytest.raises(LedgerError, match="expected a ledger's file; makegood serve CASE makes it"):
        Reader.open(f"sqlite:///{tmp_path / 'none.sqlite'}")
    with pytest.raises(LedgerError, match="expected a ledger that can be read"):
        Reader.open(f"sqlite:///{text}")


def test_what_a_killed_writer_left_is_read_and_gone_on_from(path: Path) -> None:
    url = f"sqlite:///{path}"
    code = (
        "import os, sys; from makegood.ledger.store import Ledger; from tests.ledger.test_store import decision;"
        "Ledger.open(sys.argv[1]).append([decision('a'), decision('b')]); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, url], check=False, cwd=Path(__file__).parents[2]).returncode == -9
    log = path.with_name(f"{path.name}-wal")
    size = log.stat().st_size
    assert size > 0
    reader = Reader.open(url)
    assert reader.events(["a", "b"]).keys() == {"a", "b"}
    reader.close()
    assert log.stat().st_size == size  # who reads folds nothing in
    with Ledger.open(url) as ledger:
        assert states(ledger.append([decision("a"), decision("c")])) == ["same", "new"]
    assert log.stat().st_size == 0


@pytest.mark.slow
def test_a_reader_that_holds_the_log_is_told_of(ledger: Ledger, path: Path) -> None:
    ledger.append([decision("a")])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM makegood_events").fetchone()
        ledger.append([decision("b")])
        with pytest.raises(LedgerError, match="a reader that holds the log'; expected none for 2 seconds; what was erased can be"):
            ledger.maintain(lambda connection, write: write([decision("c")]))
    assert ledger.reader.event("c") is not None


def test_a_log_that_cannot_be_folded_in_stops_the_writer(tmp_path: Path) -> None:
    home = SQLite(tmp_path / "ledger.sqlite")
    home.connection.connection.dbapi_connection.close()  # type: ignore[union-attr]
    with pytest.raises(sa.exc.DatabaseError, match="closed database") as caught:
        home.forget()
    assert home.after(caught.value) == "stop"
    with pytest.raises(AssertionError, match="a file is not reopened"):
        home.reopen()
    home.close()
