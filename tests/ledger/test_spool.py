"""The spool: on the disk before it answers, whole after a crash, full or failing it refuses."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ledger.test_store import decision, states

from makegood.errors import LedgerError
from makegood.ledger.spool import NOWHERE, Spool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the spool will lie."""
    return tmp_path / "service" / "spool"


def opened(path: Path) -> list[str]:
    """Return the ids that a spool holds when it is opened."""
    spool = Spool(path)
    ids = [event.id for event in spool]
    assert len(spool) == len(ids)
    spool.close()
    return ids


def test_what_is_answered_is_there_again(path: Path) -> None:
    spool = Spool(path)
    receipts = spool.append([decision("a"), decision("a"), decision("a", b"other"), decision("b", private=None)])
    assert states(receipts) == ["new", "same", "conflict", "new"]
    first = receipts[1].first
    assert first is not None
    assert (first.event, first.partition) == (decision("a"), NOWHERE)
    assert states(spool.append([decision("b", private=None), decision("c")])) == ["same", "new"]
    spool.close()
    again = Spool(path)
    assert list(again) == [decision("a"), decision("b", private=None), decision("c")]
    assert path.stat().st_mode & 0o777 == 0o600
    again.clear()
    assert (len(again), path.stat().st_size) == (0, 0)
    assert states(again.append([decision("a")])) == ["new"]
    again.close()
    assert opened(path) == ["a"]


@given(cut=st.integers(0, 400), zeros=st.booleans())
def test_a_torn_end_is_cut_off_and_all_before_it_is_there(tmp_path_factory: pytest.TempPathFactory, cut: int, zeros: bool) -> None:
    path = tmp_path_factory.mktemp("spool") / "spool"
    spool = Spool(path)
    spool.append([decision("a"), decision("b")])
    whole = path.stat().st_size
    spool.append([decision("c")])
    spool.close()
    data = path.read_bytes()
    end = min(whole + cut, len(data))
    path.write_bytes(data[:end] + bytes((len(data) - end) if zeros else 0))
    expected = ["a", "b", "c"] if end == len(data) else ["a", "b"]
    assert opened(path) == expected
    assert path.stat().st_size == (len(data) if len(expected) == 3 else whole)
    torn = path.with_name("spool.torn")
    assert (torn.read_bytes() if torn.exists() else b"") == (b"" if len(expected) == 3 else data[whole:end].rstrip(b"\0"))


def test_what_is_damaged_is_kept_beside_it(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(path)
    spool.append([decision("a")])
    whole = path.stat().st_size
    spool.append([decision("b"), decision("c")])
    spool.close()
    data = bytearray(path.read_bytes())
    data[whole + 20] ^= 1
    path.write_bytes(data)
    assert opened(path) == ["a"]
    assert path.with_name("spool.torn").read_bytes() == data[whole:]
    assert f"ends in {len(data) - whole} bytes that are no whole record; they are in {path}.torn" in caplog.text


def test_each_process_has_a_spool_of_its_own(path: Path) -> None:
    one, two = Spool(path), Spool(path)
    one.append([decision("a")])
    two.append([decision("b")])
    assert (one.path.name, two.path.name) == ("spool", "spool.1")
    one.close()
    assert opened(path) == ["a"]
    two.close()


def test_a_full_spool_refuses(path: Path) -> None:
    spool = Spool(path, limit=600)
    assert states(spool.append([decision("a", b"x" * 200)])) == ["new"]
    with pytest.raises(LedgerError, match=r"the spool failed: it holds \d+ bytes, of 600 that it may'; expected a database, or a spool"):
        spool.append([decision("b", b"x" * 400)])
    assert states(spool.append([decision("c")])) == ["new"]
    spool.close()
    assert opened(path) == ["a", "c"]


def test_where_no_file_can_be_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="expected a file that can be written; free its disk or mend its permissions"):
        Spool(tmp_path / "file" / "spool")


def test_a_spool_that_cannot_be_read_is_let_go(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(LedgerError, match="Is a directory"):
        Spool(path)
    path.rmdir()
    spool = Spool(path)
    spool.append([decision("a", b"x")])
    spool.close()
    path.write_bytes(path.read_bytes() + b"torn")
    path.with_name("spool.torn").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(LedgerError, match="Is a directory"):
        Spool(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_could_not_be_written_whole_is_taken_back(path: Path) -> None:
    """The system lets no file grow beyond 1,000 bytes, in a process of its own."""
    ran = subprocess.run([sys.executable, "-m", "tests.ledger.test_spool", str(path)], cwd=Path(__file__).parents[2], check=False)
    assert ran.returncode == 0
    assert opened(path) == ["a", "c"]


def test_a_spool_whose_disk_is_in_doubt_takes_nothing_more(path: Path) -> None:
    spool = Spool(path)
    spool.append([decision("a")])
    reading, writing = os.pipe()  # which cannot be synced, cut or sought in
    file = os.dup(spool._file)
    os.dup2(writing, spool._file)
    with pytest.raises(LedgerError, match="the spool failed: Invalid argument"):
        spool.append([decision("b")])
    os.dup2(file, spool._file)
    with pytest.raises(LedgerError, match="the spool failed: Invalid argument'; expected a database, or a spool that can be written"):
        spool.append([decision("b")])
    assert spool.why == "Invalid argument"
    spool.close()
    for each in (reading, writing, file):
        os.close(each)
    assert opened(path) == ["a"]


def test_what_cannot_be_taken_back_ends_it(path: Path) -> None:
    spool = Spool(path)
    os.close(spool._file)
    with pytest.raises(LedgerError, match="Bad file descriptor"):
        spool.append([decision("a")])
    assert spool.why == "Bad file descriptor"
    spool.clear()
    assert len(spool) == 0


def limited(path: Path) -> None:
    """Write to a spool that cannot grow beyond 1,000 bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    spool = Spool(path)
    assert states(spool.append([decision("a")])) == ["new"]
    with pytest.raises(LedgerError, match="the spool failed: File too large"):
        spool.append([decision("b", b"x" * 3000)])
    assert spool.why == ""
    assert states(spool.append([decision("c")])) == ["new"]


if __name__ == "__main__":
    limited(Path(sys.argv[1]))
