"""Power cuts, full disks and disks that fail: what was acknowledged is there, and nothing else was acknowledged.

The disk is `faults.py`'s, whose own tests come first: under it SQLite loses what it does not sync, so that these tests can fail.
"""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from tests.ledger import faults

from makegood.errors import LedgerError
from makegood.ledger.store import Ledger

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(bool(faults.unavailable()), reason=faults.unavailable())


def told(module: str, *arguments: str, before: tuple[str, ...] = ()) -> Any:
    """Return what a program of these tests wrote."""
    command = [*before, sys.executable, "-m", f"tests.ledger.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return json.loads(done.stdout)


def siege(path: Path, **plan: Any) -> dict[str, Any]:
    """Return the figures of writers that are killed."""
    return dict(told("crashing", f"sqlite:///{path}", json.dumps(plan)))


def amiss(found: dict[str, Any]) -> dict[str, Any]:
    """Return what is wrong: nothing where all is there, once, as it was sent, in a chain that holds, and nothing else is."""
    wrong = ("lost", "changed", "doubled", "torn", "unasked", "errors")
    return {name: found[name] for name in wrong if found[name]} | ({} if found["chain"] else {"chain": False})


# -------------------------------------------------------------------------------------------------------------- the disk

COMMITS = """
import sqlite3, sys
from tests.ledger import faults
disk = faults.Disk(survive=sys.argv[3] == "some", seed=int(sys.argv[4]))
disk.install()
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(f"PRAGMA synchronous = {sys.argv[2]}")
for n in range(50):
    connection.execute("INSERT INTO t VALUES (?, randomblob(700))", (n,))
assert connection.execute("SELECT count(*) FROM t").fetchone() == (50,)
disk.cut()
"""


def after_a_cut(path: Path, synchronous: str, survive: str = "none", seed: int = 0) -> tuple[int, bytes]:
    """Return how many of 50 committed rows a power cut leaves, and the log that it leaves."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
        connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, data)")
    command = [sys.executable, "-c", COMMITS, str(path), synchronous, survive, str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    log = path.with_name(f"{path.name}-wal").read_bytes()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        numbers = [n for (n,) in connection.execute("SELECT n FROM t ORDER BY n")]
    assert numbers == list(range(len(numbers)))
    return len(numbers), log


def test_a_cut_loses_what_is_not_synced_and_nothing_else(tmp_path: Path) -> None:
    assert after_a_cut(tmp_path / "off", "OFF") == (0, b"")
    assert after_a_cut(tmp_path / "normal", "NORMAL")[0] == 0  # in WAL mode it syncs at checkpoints alone
    assert after_a_cut(tmp_path / "full", "FULL")[0] == 50


def test_some_of_what_is_not_synced_may_survive_a_cut(tmp_path: Path) -> None:
    left = [after_a_cut(tmp_path / f"{seed}", "OFF", "some", seed) for seed in range(8)]
    assert {n for n, _ in left} >= {0, 50}
    torn = [log for n, log in left if n < 50 and log]
    assert len(set(torn)) > 2, "every time another part"
    assert after_a_cut(tmp_path / "full", "FULL", "some")[0] == 50


# ---------------------------------------------------------------------------------------------------------------- cuts


def test_a_disk_that_lies_loses_what_was_acknowledged_so_the_search_for_it_can_fail(tmp_path: Path) -> None:
    found = siege(tmp_path / "ledger.sqlite", kills=6, seconds=20, life_s=0.3, power=True, lies=True)
    assert found["acknowledged"] > 0
    assert found["lost"] >= found["acknowledged"]


@pytest.mark.slow
@pytest.mark.parametrize("survive", [False, True])
def test_no_power_cut_loses_what_was_acknowledged(tmp_path: Path, survive: bool) -> None:
    found = siege(tmp_path / "ledger.sqlite", kills=110, seconds=100, life_s=0.6, power=True, survive=survive, seed=2 + survive)
    assert amiss(found) == {}
    assert (found["kills"], found["failures"]) == (110, {})
    assert found["cuts"] >= 20, "in the middle of a write or of a sync"
    assert found["acknowledged"] > 500
    assert found["worst_open_s"] <= 2


# --------------------------------------------------------------------------------------------------------------- failures


def faulty() -> Iterator[dict[str, Any]]:
    """Yield what may fail: each of the first syncs, and writes here and there, once, for a while, or for ever."""
    yield from ({"syncs_to_fail": (n, 1)} for n in (1, 2, 4, 5, 6, 7, 11, 16))
    yield from ({"writes_to_fail": (n, *how)} for n, how in product((1, 29, 33, 41, 54, 79), FAILURES))


FAILURES = ((1, faults.FULL), (6, faults.FULL), (10**6, faults.FULL), (1, faults.IOERR_WRITE))


@pytest.mark.slow
def test_nothing_is_acknowledged_that_a_failing_disk_does_not_have(tmp_path: Path) -> None:
    outcomes = told("failing", str(tmp_path), json.dumps(list(faulty())))
    assert len(outcomes) == 32
    for found in outcomes:
        assert found["injected"] > 0, found
        assert found["refusals"], found
        assert found["reopened"], found
        assert not found["opened"] or amiss(found["found"]) == {}, found
        once = found["fault"].get("writes_to_fail", [0, 0, 0])[1:] == [1, faults.FULL]
        if not found["opened"]:
            assert "expected a file that a ledger can lie in" in found["refusals"][0]
        elif once:  # a full disk that has room again is written to again
            assert (found["wrote_again"], found["acknowledged"], found["state_ok"]) == (True, 12, True), found
            assert found["refusals"] == [FULL]
        elif found["fault"].get("writes_to_fail", [0, 0, 0])[2] == faults.FULL:
            assert (found["wrote_again"], found["state_ok"]) == (False, False), found
            assert set(found["refusals"]) == {FULL}
        else:  # whatever else fails stops the writer: what it wrote is in doubt
            assert (found["wrote_again"], found["state_ok"], found["injected"]) == (False, False, 1), found
            assert set(found["refusals"]) == {STOPPED}
    assert {found["opened"] for found in outcomes} == {False, True}


FULL = "ledger: got 'database or disk is full'; expected a ledger that can be written; free space on its disk"
STOPPED = "ledger: got 'disk I/O error'; expected a ledger that can be written; start the service again; what was acknowledged is safe"


def test_a_full_file_system_is_said_to_be_full_and_is_written_to_again_once_there_is_room(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=900k tmpfs {tmp_path}"
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-Urm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("this system lets no user mount a small file system")
    found = told("failing", str(tmp_path), "full", before=(unshare, "-Urm", "sh", "-c", f'{mount} && exec "$@"', "sh"))
    assert found["refusals"] == [FULL]
    assert found["filled"] > 0
    assert (found["state_ok"], found["wrote_again"]) == (False, True)
    assert amiss(found["found"]) == {}, found


def test_a_file_that_may_not_grow_stops_the_writer_and_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    found = told("failing", str(tmp_path), "limited")
    assert found["acknowledged"] > 0
    assert set(found["refusals"]) == {STOPPED}
    assert found["reopened"]
    assert amiss(found["found"]) == {}, found


def test_a_stopped_writer_leaves_the_ledger_to_the_next_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    with Ledger.open(url), pytest.raises(LedgerError, match=r"process [0-9]+ writes to it"):
        Ledger.open(url)
    Ledger.open(url).close()
