"""`kill -9` of a ledger's writers, and of the server beneath them: 0 acknowledged events lost, doubled or changed."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.databases import Server
from tests.ledger import crashing
from tests.ledger.crashing import Figures, audit, sent

from makegood.ledger.store import Ledger

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def besieged(url: str, **plan: Any) -> Iterator[Callable[[], dict[str, Any]]]:
    """Yield what waits for the figures of a process whose writers are killed."""
    command = [sys.executable, "-m", "tests.ledger.crashing", url, json.dumps(plan)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:

        def figures() -> dict[str, Any]:
            said, error = process.communicate(timeout=160)
            assert process.returncode == 0, error
            assert "Traceback" not in error
            return dict(json.loads(said))

        try:
            yield figures
        finally:
            process.kill()


def amiss(found: dict[str, Any]) -> dict[str, Any]:
    """Return what is wrong: nothing where all is there, once, as it was sent, in a chain that holds, and nothing else is."""
    wrong = ("lost", "changed", "doubled", "torn", "unasked", "errors")
    return {name: found[name] for name in wrong if found[name]} | ({} if found["chain"] else {"chain": False})


@pytest.mark.parametrize(
    ("statement", "wrong"),
    [
        ("DELETE FROM makegood_events WHERE id = '0-1.0'", {"lost": 1, "torn": 1, "chain": False}),
        ("UPDATE makegood_events SET at = at + 1 WHERE id = '0-1.0'", {"changed": 1, "chain": False}),
        ("UPDATE makegood_events SET id = '0-9.0' WHERE id = '0-1.0'", {"lost": 1, "unasked": 1, "torn": 1, "chain": False}),
        ("UPDATE makegood_private SET data = x'7b7d' WHERE id = '0-1.0'", {"changed": 1, "chain": False}),
        ("UPDATE makegood_events SET id = 'x' WHERE id = '0-1.0'", {"lost": 1, "unasked": 1, "torn": 1, "chain": False}),
        ("SELECT 1", {}),
    ],
)
def test_the_search_finds_what_is_wrong(tmp_path: Path, statement: str, wrong: dict[str, Any]) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    with Ledger.open(url) as ledger:
        for n in range(6):
            assert {receipt.state for receipt in ledger.append(sent(0, n))} == {"new"}
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as connection, connection:
        connection.execute(statement)
    figures = Figures()
    audit(url, {0: 6}, figures)
    found = {name: getattr(figures, name) for name in ("lost", "changed", "doubled", "torn", "unasked", "chain")}
    assert found == {"lost": 0, "changed": 0, "doubled": 0, "torn": 0, "unasked": 0, "chain": True} | wrong


def test_what_was_sent_follows_from_its_id() -> None:
    every = [(thread, n) for thread in range(crashing.THREADS) for n in range(60)]
    assert {crashing.turn(event.id) for whose in every for event in sent(*whose)} == set(every)
    assert crashing.turn("an id of another") is None
    assert {len(sent(*whose)) for whose in every} == {1, 2, 3}


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_no_kill_of_a_writer_loses_or_doubles_what_it_acknowledged(tmp_path: Path) -> None:
    with besieged(f"sqlite:///{tmp_path / 'ledger.sqlite'}", kills=1000, seconds=90) as figures:
        found = figures()
    assert amiss(found) == {}
    assert found["failures"] == {}
    assert found["kills"] >= 300, "of 1,000, which `python -m tests.ledger.crashing` does whatever time they take"
    assert found["acknowledged"] > 5000
    assert found["repeated"] > 0, "kills between the commit and its acknowledgement"
    assert found["before_open"] > 0, "kills while the ledger was being opened"
    assert found["worst_open_s"] <= 2


@pytest.mark.slow
def test_writers_that_share_a_server_survive_each_others_death(postgres: str) -> None:
    with besieged(postgres, kills=60, seconds=30, writers=2, life_s=0.3, pause_s=0.005) as figures:
        found = figures()
    assert amiss(found) == {}
    assert found["kills"] >= 30
    assert found["failures"] == {}
    assert found["acknowledged"] > 1000
    assert found["worst_open_s"] <= 2


@pytest.mark.slow
def test_ended_connections_and_a_server_that_crashes_lose_nothing(postgres: str, postgres_server: Server) -> None:
    pick, ended = random.Random(4), 0
    end = time.monotonic() + 14
    with besieged(postgres, kills=1000, seconds=24, writers=2, life_s=3.0, pause_s=0.005) as figures:
        for turn in count():
            time.sleep(pick.uniform(0.1, 0.9))
            if time.monotonic() > end:
                break
            if turn % 5 == 4:
                postgres_server.stop("immediate")
                time.sleep(pick.uniform(0, 0.5))
                postgres_server.start()
                continue
            with psycopg.connect(postgres, autocommit=True) as connection:
                backends = connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                ).fetchall()
                ended += len(backends)
        found = figures()
    assert amiss(found) == {}
    assert ended >= 10
    assert found["recovered"] > 0, "writers that outlived it"
    assert found["acknowledged"] > 500
