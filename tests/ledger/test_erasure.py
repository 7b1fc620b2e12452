"""Erasure: what was said of a person is gone from every byte, and verification knows why."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.ledger import corpus

from makegood.errors import DataError, LedgerError
from makegood.ledger import anchors, retention
from makegood.ledger.erasure import erase
from makegood.ledger.events import Erased, Event
from makegood.ledger.private import Erasure
from makegood.ledger.store import Ledger, Reader
from makegood.ledger.verify import verify

AT = corpus.START


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Return a ledger with decisions on two people, and what was said of one of them."""
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as opened:
        opened.append([decision(opened, f"d{i}", "ada" if i % 2 else "grace", AT + i) for i in range(40)])
        opened.append([corpus.about("outcome", "outcome:d1", "d1", AT + 100), noted("c1", "d1", AT + 101)])
        yield opened


def decision(ledger: Ledger, id: str, unit: str, at: int) -> Event:
    """Return a decision on a unit, with a private part that names it."""
    plain = corpus.decision(id, ledger.pseudonym(unit), at)
    return Event(*(getattr(plain, name) for name in Event.__slots__[:-1]), secret(unit, id))


def noted(id: str, about: str, at: int) -> Event:
    """Return a correction that has a private part of its own and names no unit."""
    plain = corpus.about("correction", id, about, at, "no")
    return Event(*(getattr(plain, name) for name in Event.__slots__[:-1]), secret("ada", id))


def secret(unit: str, id: str) -> bytes:
    """Return a private part that is easily found in a file's bytes."""
    return json.dumps({"inputs": {"name": f"SECRET-{unit}-{id}-"}}).encode()


def everything(folder: Path) -> bytes:
    """Return the bytes of all files of a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_unit_is_gone_from_every_byte(ledger: Ledger, tmp_path: Path) -> None:
    assert b"SECRET-ada-" in everything(tmp_path)
    assert erase(ledger, unit="ada", decisions=(), by="the data protection officer", why="asked to") == 21
    left = everything(tmp_path)
    assert b"SECRET-ada-" not in left
    assert left.count(b"SECRET-grace-d0-") >= 1
    assert ledger.reader.event("d1").event.private is None
    assert ledger.reader.event("c1").event.private is None, "it names no unit, but the decision that it is about does"
    assert ledger.reader.event("d2").event.private == secret("grace", "d2")
    found = verify(str(tmp_path / "ledger.sqlite"))
    assert (found.ok, found.partitions[0].seq) == (True, 43)
    ledger.append([decision(ledger, "d99", "ada", AT + 200)])
    assert ledger.reader.event("d99").event.private is not None, "what comes later is not erased"
    assert verify(str(tmp_path / "ledger.sqlite")).ok


def test_decisions_are_erased_with_what_was_said_of_them(ledger: Ledger, tmp_path: Path) -> None:
    assert erase(ledger, unit=None, decisions=("d1", "d3", "d1"), by="Grace") == 3
    left = everything(tmp_path)
    assert not any(f"SECRET-ada-{id}-".encode() in left for id in ("d1", "d3", "c1"))
    assert b"SECRET-ada-d5-" in left
    (erased,) = (s for s in ledger.reader.about("d1") if s.event.kind == "erasure")
    assert msgspec.json.decode(erased.event.body, type=Erased) == Erased("Grace", 2)
    assert verify(str(tmp_path / "ledger.sqlite")).ok
    assert erase(ledger, unit=None, decisions=("d1",), by="Grace") == 0, "asked for again, and on record again"


def test_archived_decisions_are_erased_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    with Ledger.open(url) as ledger:
        ledger.append(
            [decision(ledger, f"d{i}", "ada", AT + i) for i in range(9)] + [noted("c1", "d1", AT + 9), noted("c2", "d8", AT + 10)]
        )
        (segment,) = retention.archive(ledger, AT + 5, tmp_path)
    assert (segment.first, segment.last) == (1, 5)
    assert b"SECRET" not in (tmp_path / segment.file).read_bytes()
    with Ledger.open(url) as ledger:
        assert ledger.reader.event("d1") is None
        assert ledger.reader.archived(["d1", "d8", "nobody"]) == {"d1": segment.file}
        assert erase(ledger, unit=None, decisions=("d1",), by="Grace") == 2
        assert b"SECRET-ada-d1-" not in everything(tmp_path)
        assert b"SECRET-ada-c1-" not in everything(tmp_path)
        assert b"SECRET-ada-d2-" in everything(tmp_path)
        assert erase(ledger, unit="ada", decisions=(), by="Grace") == 9
        assert b"SECRET" not in everything(tmp_path)
        assert verify(url).ok


def test_an_id_is_not_given_twice_after_it_was_archived(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    with Ledger.open(url) as ledger:
        ledger.append([decision(ledger, f"d{i}", "ada", AT + i) for i in range(9)])
        assert [(s.first, s.last) for s in retention.archive(ledger, AT + 5, tmp_path)] == [(1, 5)]
        assert [(s.first, s.last) for s in retention.archive(ledger, AT + 8, tmp_path)] == [(6, 8)]
        assert retention.archive(ledger, AT * 2, tmp_path) == [], "the head stays"
        (receipt,) = ledger.append([decision(ledger, "d1", "ada", AT + 1)])
        assert (receipt.state, receipt.first.event.kind) == ("conflict", "archived")
        (receipt,) = ledger.append([decision(ledger, "new", "ada", AT + 20)])
        assert receipt.state == "new"
    found = verify(url)
    assert (found.ok, found.partitions[0].seq) == (True, 10)


def test_what_is_asked_wrongly_erases_nothing(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"erasure: got 'neither a unit nor a decision'; expected whose data, and on whose word; give --unit or --decision, and --by",
    ):
        erase(ledger, unit=None, decisions=(), by="Grace")
    with pytest.raises(DataError, match="got 'no name'"):
        erase(ledger, unit="ada", decisions=(), by="")
    with pytest.raises(LedgerError, match=r"erasure: got 'd77, d78'; expected decisions of this ledger; nothing was erased"):
        erase(ledger, unit="ada", decisions=("d1", "d77", "d78"), by="Grace")
    assert b"SECRET-ada-d1-" in everything(tmp_path)
    assert not any(s.event.kind == "erasure" for batch in ledger.reader.scan() for s in batch)


def test_erasure_beside_writers_and_readers(ledger: Ledger, tmp_path: Path) -> None:
    """The log is emptied although others write, and a reader looks on."""
    stop = threading.Event()

    def load(name: str) -> None:
        i = 0
        while not stop.is_set():
            ledger.append([decision(ledger, f"{name}{i}", "grace", AT + 1000 + i)])
            i += 1

    writers = [threading.Thread(target=load, args=(name,)) for name in "xy"]
    for writer in writers:
        writer.start()
    try:
        assert erase(ledger, unit="ada", decisions=(), by="Grace") == 21
        assert b"SECRET-ada-" not in everything(tmp_path)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert verify(str(tmp_path / "ledger.sqlite")).ok


def test_what_the_writer_writes_is_anchored_and_verified(ledger: Ledger, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    made = anchors.anchor(url)
    assert [(a.ledger, a.partition, a.seq) for a in made] == [(ledger.id, 0, 42)]
    found = verify(url)
    assert (found.findings, found.anchored, found.ledger) == ((), 1, ledger.id)
    reader = Reader.open(url)
    assert reader.event("d3").seq == 4
    reader.close()


def test_an_erasure_is_of_a_unit_or_of_a_decision() -> None:
    assert Erasure(about="d1") != Erasure(unit="d1")
