"""Verification: what it says of a whole ledger, and of each kind of damage."""

from __future__ import annotations

import gzip
import random
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import chain as all_of
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.ledger import corpus, mutations

from makegood.errors import LedgerError
from makegood.ledger import anchors, schema, walk
from makegood.ledger.erasure import erase
from makegood.ledger.store import Ledger
from makegood.ledger.verify import Verified, verify


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a ledger with everything in it."""
    return corpus.build(tmp_path_factory.mktemp("corpus") / "ledger").parent


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """Return a copy of it that a test may damage."""
    return Path(shutil.copytree(original, tmp_path / "copy"))


def changed(folder: Path, *statements: str) -> Verified:
    """Return what verification finds after these statements."""
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as connection, connection:
        for statement in statements:
            connection.execute(statement)
    return verify(str(folder / "ledger.sqlite"))


def said(found: Verified) -> str:
    """Return the findings, one a line."""
    return "\n".join(map(str, found.findings))


def test_a_whole_ledger_is_whole(original: Path) -> None:
    found = verify(str(original / "ledger.sqlite"))
    assert (found.ok, found.findings, found.anchored) == (True, (), 6)
    assert found.ledger == corpus.LEDGER
    assert found.key == str(original / "anchor.pub")
    with closing(sqlite3.connect(original / "ledger.sqlite")) as connection:
        last = dict(connection.execute("SELECT partition, max(seq) FROM makegood_events GROUP BY 1").fetchall())
        kinds = {kind for (kind,) in connection.execute("SELECT DISTINCT kind FROM makegood_events")}
    assert {p: head.seq for p, head in found.partitions.items()} == last
    assert kinds == {"decision", "outcome", "correction", "override", "promotion", "erasure", "alarm"}
    assert found.to_json()["partitions"]["1"] == {"events": last[1], "hash": found.partitions[1].hash.hex()}


def corpus_of_mutations(path: Path, pick: random.Random) -> Iterator[tuple[str, mutations.Mutate]]:
    """Return a sample of all mutations; bench/ledger_mutations.py tries many more."""
    values = (m for m in mutations.every_value(path, pick, 0) if pick.random() < 0.35)
    rows = (m for m in mutations.every_row(path) if pick.random() < 0.3)
    files = (m for m in mutations.files(path.parent) if pick.random() < 0.3)
    return all_of(values, rows, mutations.forgeries(path), files, mutations.bytes_of_the_database(path, pick, 300))


@pytest.mark.slow
def test_every_mutation_that_a_reader_sees_is_detected(original: Path, tmp_path: Path) -> None:
    path = original / "ledger.sqlite"
    assert not mutations.detected(original)
    missed, seen, _ = mutations.undetected(original, tmp_path / "copy", corpus_of_mutations(path, random.Random(7)))
    assert missed == []
    assert seen > 450


def test_a_changed_event_is_named_with_both_hashes(folder: Path) -> None:
    found = changed(folder, "UPDATE makegood_events SET body = CAST(replace(body, 'EUR', 'USD') AS BLOB) WHERE id = 'd0.0010'")
    assert len(found.findings) == 1
    assert found.findings[0].where == "partition 0, event 22: d0.0010"
    assert found.findings[0].expected.endswith(": the event, or what came before it, is another than was written")


def test_a_gap_says_how_many_are_missing(folder: Path) -> None:
    found = changed(folder, "DELETE FROM makegood_events WHERE partition = 0 AND seq IN (30, 31)")
    assert "partition 0, event 32" in said(found)
    assert "expected event 30: 2 are missing" in said(found)


def test_an_end_that_is_missing_is_known_by_its_anchor(folder: Path) -> None:
    found = changed(folder, "DELETE FROM makegood_events WHERE partition = 1 AND seq = 50")
    assert said(found) == "partition 1: got '49 events'; expected event 50, which the anchor of line 6 saw: the end is missing"
    for name in (anchors.LINES, anchors.PUBLIC):
        (folder / name).unlink()
    found = verify(str(folder / "ledger.sqlite"))
    assert found.ok, "without anchors nobody can tell: this is their limit, and why they are made"
    assert said(found) == (
        f"{folder / anchors.LINES}: got 'no anchor'; expected one: without it nobody can tell whether a partition's end is missing"
    )


def test_an_older_copy_is_known_by_newer_anchors(folder: Path, tmp_path: Path) -> None:
    older = Path(shutil.copy(folder / "ledger.sqlite", tmp_path / "older"))
    engine = sa.create_engine(f"sqlite:///{folder / 'ledger.sqlite'}", poolclass=sa.NullPool)
    with engine.begin() as connection:
        corpus.write(connection, 0, [corpus.decision("new", "", corpus.START * 2)])
    made = anchors.anchor(str(folder / "ledger.sqlite"))
    assert next((a.partition, a.seq) for a in made) == (0, 51)
    assert verify(str(folder / "ledger.sqlite")).ok
    shutil.copy(older, folder / "ledger.sqlite")
    assert "expected event 51, which the anchor of line 7 saw: the end is missing" in said(verify(str(folder / "ledger.sqlite")))


def test_what_was_chained_anew_is_known_by_its_anchor(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as connection, connection:

        def paid(rows: list[list[object]]) -> list[list[object]]:
            rows[-1][4] = "another"
            return rows

        mutations.chained_anew(connection, 1, paid)
    found = verify(str(folder / "ledger.sqlite"))
    assert len(found.findings) == 1
    assert "which the anchor of line 6 saw" in said(found)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "UPDATE makegood_private SET data = '{}' WHERE id = 'd0.0010'",
            "'another private part'; expected the one that the chain's commitment is of",
        ),
        ("DELETE FROM makegood_private WHERE id = 'd0.0010'", "'no private part'; expected it, or a later erasure of it"),
        (
            "INSERT INTO makegood_private VALUES ('nobody', x'00', x'00')",
            "makegood_private: nobody: got 'a private part'; expected an event that it belongs to",
        ),
        ("INSERT INTO makegood_private VALUES ('d0.0004', x'00', x'00')", "'a private part'; expected none: a later erasure destroyed it"),
        ("INSERT INTO makegood_private VALUES ('d0.0011', x'00', x'00')", "'another private part'; expected none"),
        (
            "UPDATE makegood_meta SET value = '2' WHERE name = 'version'",
            "makegood_meta: version: got '2'; expected 1, which this release reads",
        ),
        ("UPDATE makegood_meta SET value = 'x' WHERE name = 'salt'", "which the salt gives"),
        ("DELETE FROM makegood_meta WHERE name = 'ledger'", "makegood_meta: ledger: got 'none'"),
        ("UPDATE makegood_meta SET value = x'00' WHERE name = 'salt'", "makegood_meta: got 'a value that is no text'; expected text"),
        ("UPDATE makegood_meta SET value = CAST(x'ff' AS TEXT) WHERE name = 'salt'", 'makegood_meta: got "Could not decode to UTF-8'),
        ("INSERT INTO makegood_meta VALUES ('note', 'hello')", "makegood_meta: note: got 'hello'; expected nothing of this name"),
        ("DROP TABLE makegood_private", "database: makegood_private.id: got 'no such column'; expected text not null"),
        ("DROP TABLE makegood_segments", "makegood_segments: got 'no such table: makegood_segments'; expected what can be read"),
        ("DROP INDEX makegood_about", "database: makegood_about: got 'no such index'; expected an index of makegood_events"),
        ("ALTER TABLE makegood_events ADD COLUMN extra TEXT", "database: makegood_events.extra: got 'text'; expected no such column"),
        (
            "CREATE TRIGGER forget AFTER INSERT ON makegood_events BEGIN DELETE FROM makegood_private; END",
            "database: trigger forget: got 'on makegood_events'; expected none: a ledger's tables have no triggers, and no views stand for them",
        ),
        ("UPDATE makegood_segments SET file = 'segments/none' WHERE partition = 0", "expected the segment's file, where it was written"),
        ("UPDATE makegood_segments SET sha256 = 'x' WHERE partition = 0", "expected x"),
        ("UPDATE makegood_segments SET last = 3.5 WHERE partition = 0", "expected values of the columns' types"),
        ("UPDATE makegood_segments SET before = x'00' WHERE partition = 0", "expected event 1 after"),
        ("UPDATE makegood_segments SET last = last + 1 WHERE partition = 0", "expected at 15 with hash"),
        ("DELETE FROM makegood_archived WHERE id = 'd0.0001'", "got 'not in makegood_archived'; expected the place of what lies in a file"),
        ("INSERT INTO makegood_archived VALUES ('x', 0, 1, '', '')", "got 'in makegood_archived'; expected an event in a segment's file"),
        (
            "DELETE FROM makegood_events WHERE id = 'p0-promote'",
            'got "only in the segment\'s file"; expected in the table too: it is a promotion',
        ),
        ("UPDATE makegood_events SET unit = 'x' WHERE id = 'p0-promote'", "expected what lies in the segment's file, a promotion, once"),
        ("UPDATE makegood_events SET at = 'soon' WHERE id = 'd0.0010'", "expected values of the columns' types"),
        ("UPDATE makegood_events SET unit = CAST(x'ff' AS TEXT) WHERE id = 'd0.0020'", "Could not decode to UTF-8 column 'unit'"),
        (
            "DELETE FROM makegood_events WHERE partition = 1",
            "partition 1: got '14 events'; expected event 50, which the anchor of line 6 saw",
        ),
        ("UPDATE makegood_events SET id = 'd0.0001' WHERE id = 'd1.0020'", "'an id that another event has too'; expected an id of its own"),
    ],
)
def test_each_kind_of_damage_is_said(folder: Path, statement: str, expected: str) -> None:
    found = changed(folder, statement)
    assert not found.ok
    assert expected in said(found)


def test_a_partition_that_is_gone_is_known_by_its_anchor(tmp_path: Path) -> None:
    path = corpus.build(tmp_path, archived=False)
    found = changed(tmp_path, "DELETE FROM makegood_events WHERE partition = 1")
    assert "partition 1: got 'no event'; expected those of the anchor of line 6" in said(found)
    assert path.exists()


def test_an_erasure_does_not_excuse_what_is_gone_of_later_decisions(tmp_path: Path) -> None:
    corpus.build(tmp_path, archived=False)
    found = changed(tmp_path, "DELETE FROM makegood_private WHERE id = 'd1.last'")  # made long after its unit's erasure
    assert said(found).endswith("d1.last: got 'no private part'; expected it, or a later erasure of it")


def test_a_segment_of_another_partition_and_order_is_seen(folder: Path) -> None:
    """Its file's SHA-256 is right: somebody wrote the row anew as well."""
    from hashlib import sha256

    (zero,) = (folder / "segments").glob("*-0-1-14.*")
    for change in (lambda t: t.replace(b'"partition":0', b'"partition":5', 1), lambda t: t + t[: t.index(b"\n") + 1], lambda t: t[:-9]):
        copy = zero.with_name("forged.jsonl.gz")
        copy.write_bytes(gzip.compress(change(gzip.decompress(zero.read_bytes()))))
        digest = sha256(copy.read_bytes()).hexdigest()
        found = changed(folder, f"UPDATE makegood_segments SET file = 'segments/{copy.name}', sha256 = '{digest}' WHERE partition = 0")
        assert not found.ok
        assert (
            "got 'partition 5'; expected 0" in said(found)
            or "the order is another" in said(found)
            or "Input data was truncated" in said(found)
        )


def test_findings_are_listed_up_to_a_limit(tmp_path: Path) -> None:
    corpus.build(tmp_path, 400, archived=False)
    found = changed(tmp_path, "UPDATE makegood_events SET request = x'00'")
    assert len(found.findings) == walk.FINDINGS + 1
    assert str(found.findings[-1]).endswith("findings more'; expected at most 1,000 listed")


def test_what_cannot_be_read_at_all_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"ledger: got '.*none\.sqlite'; expected a ledger's file; makegood serve CASE makes it"):
        verify(str(tmp_path / "none.sqlite"))
    with pytest.raises(LedgerError, match=r"--anchors: got 'none'; expected a file of anchors"):
        verify(str(folder / "ledger.sqlite"), anchors=Path("none"))
    mutations.flip(folder / "ledger.sqlite", 3, 1)
    with pytest.raises(LedgerError, match="file is not a database'; expected a ledger that can be read"):
        verify(str(folder / "ledger.sqlite"))
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(LedgerError, match="no such table: makegood_meta"):
        verify(str(tmp_path / "empty.sqlite"))


def test_a_damaged_page_is_a_finding(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'makegood_events'").fetchone()
    for byte in range((root - 1) * 4096, (root - 1) * 4096 + 12):
        mutations.flip(folder / "ledger.sqlite", byte, 255)
    found = verify(str(folder / "ledger.sqlite"))
    assert "database disk image is malformed'; expected what can be read" in said(found)
    assert "missing" not in said(found), "absence proves nothing where a part could not be read"


def test_anchors_kept_elsewhere_are_taken(folder: Path, tmp_path: Path) -> None:
    kept, key = shutil.move(folder / anchors.LINES, tmp_path / "kept"), shutil.move(folder / anchors.PUBLIC, tmp_path / "key")
    found = verify(str(folder / "ledger.sqlite"), anchors=kept, public_key=key)
    assert (found.ok, found.anchored, found.key) == (True, 6, str(tmp_path / "key"))
    found = verify(str(folder / "ledger.sqlite"), anchors=kept)
    assert said(found) == f"{folder / anchors.PUBLIC}: got 'no key'; expected the key that signed the anchors"
    found = verify(str(folder / "ledger.sqlite"), public_key=key)
    assert not found.ok, "a key that was kept elsewhere says that there were anchors"
    assert said(found).startswith(f"{folder / anchors.LINES}: got 'no anchor'; expected one: without it nobody can tell")


def test_an_unsound_database_is_a_finding(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        sql = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'makegood_about'").fetchone()[0]
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'makegood_about'", (sql.replace("''", "'x'"),))
    found = verify(str(folder / "ledger.sqlite"))
    assert "database: got 'wrong # of entries in index makegood_about'; expected ok" in said(found)


def test_anchors_of_later_are_not_waited_for(folder: Path) -> None:
    """Verification beside a service: what is anchored after the file was looked at is not compared."""
    path = folder / anchors.LINES
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"{}\n")
    assert len(list(anchors.lines(path, size))) == 6
    assert len(list(anchors.lines(path))) == 7


def test_verification_beside_a_writer_finds_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    stop = threading.Event()
    with Ledger.open(url) as ledger:

        def load() -> None:
            i = 0
            while not stop.is_set():
                ledger.append([corpus.decision(f"d{i + j}", ledger.pseudonym("ada"), corpus.START + i) for j in range(20)])
                if i == 400:
                    erase(ledger, unit="ada", decisions=(), by="Grace")
                i += 20

        writer = threading.Thread(target=load)
        writer.start()
        try:
            seen = []
            for _ in range(12):
                anchors.anchor(url)
                found = verify(url)
                assert found.ok, found.findings
                seen.append(found.partitions[0].seq if found.partitions else 0)
        finally:
            stop.set()
            writer.join()
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


def test_schema_names_what_walk_reads() -> None:
    assert tuple(schema.segments.c.keys()) == ("partition", "first", "last", "before", "hash", "file", "sha256")
