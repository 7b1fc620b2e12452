"""Verification, anchors, export, segments and erasure on a real PostgreSQL: the same as on SQLite."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pytest
import sqlalchemy as sa
from tests.databases import Server
from tests.ledger import corpus

from makegood.errors import LedgerError
from makegood.ledger import anchors, export, retention, snapshot
from makegood.ledger.erasure import erase
from makegood.ledger.store import Ledger
from makegood.ledger.verify import Verified, verify


@pytest.fixture
def url(postgres: str, tmp_path: Path) -> str:
    """Return the URL of a ledger with everything in it, whose files lie in `tmp_path`."""
    corpus.fill(driver(postgres), tmp_path, 12)
    return postgres


def driver(url: str) -> str:
    """Return the URL with the driver's name."""
    return sa.make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def changed(url: str, folder: Path, *statements: str) -> Verified:
    """Return what verification finds after these statements, which are taken back."""
    engine = sa.create_engine(driver(url), poolclass=sa.NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    return verify(url, folder=folder)


def test_a_whole_ledger_is_whole(url: str, tmp_path: Path) -> None:
    found = verify(url, folder=tmp_path)
    assert (found.ok, found.findings, found.anchored, found.ledger) == (True, (), 6, corpus.LEDGER)
    made = anchors.anchor(url, tmp_path)
    assert {a.partition: a.seq for a in made} == {p: head.seq for p, head in found.partitions.items()}
    table = pa.Table.from_batches(export.arrow(url), export.SCHEMA)
    elsewhere = corpus.build(tmp_path / "file", 12)
    same = pa.Table.from_batches(export.arrow(str(elsewhere)), export.SCHEMA)
    assert table.equals(same)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE makegood_events SET unit = 'x' WHERE id = 'd0.0010'", "d0.0010: got 'hash "),
        ("DELETE FROM makegood_events WHERE partition = 0 AND seq = 20", "expected event 20: 1 are missing"),
        ("DELETE FROM makegood_private WHERE id = 'd0.0010'", "expected it, or a later erasure of it"),
        ("INSERT INTO makegood_private VALUES ('nobody', '', '')", "makegood_private: nobody: got 'a private part'"),
        ("UPDATE makegood_private SET data = '' WHERE id = 'd0.0010'", "'another private part'"),
        (
            "ALTER TABLE makegood_events ALTER COLUMN at TYPE text",
            "database: makegood_events.at: got 'text not null'; expected bigint not null",
        ),
        ("DROP INDEX makegood_unit", "database: makegood_unit: got 'no such index'; expected an index of makegood_events"),
        ("CREATE RULE forget AS ON DELETE TO makegood_private DO INSTEAD NOTHING", "database: rule forget: got 'on makegood_private'"),
        ("DROP TABLE makegood_archived", 'relation "makegood_archived" does not exist'),
        ("DELETE FROM makegood_events WHERE partition = 1 AND seq > 20", "partition 1: got '20 events'"),
    ],
)
def test_damage_is_said(url: str, tmp_path: Path, statement: str, expected: str) -> None:
    found = changed(url, tmp_path, statement)
    assert not found.ok
    assert expected in "\n".join(map(str, found.findings))


def test_two_writers_archive_and_erase(postgres: str, tmp_path: Path) -> None:
    with Ledger.open(postgres) as one, Ledger.open(postgres) as two:
        for i in range(12):
            (one, two)[i % 2].append([corpus.decision(f"d{i}", one.pseudonym("ada"), corpus.START + i)])
        assert [(s.partition, s.first, s.last) for s in retention.archive(one, corpus.START + 6, tmp_path)] == [(0, 1, 3), (1, 1, 3)]
        assert two.reader.archived(["d0", "d11"]).keys() == {"d0"}
        assert [r.state for r in two.append([corpus.decision("d0", "", corpus.START)])] == ["conflict"]
        assert erase(two, unit="ada", decisions=(), by="Grace") == 12
        assert two.reader.event("d11").event.private is None
        found = verify(postgres, folder=tmp_path)
        assert (found.ok, {p: head.seq for p, head in found.partitions.items()}) == (True, {0: 6, 1: 7})


def test_what_is_no_ledger_is_said(postgres: str) -> None:
    with pytest.raises(LedgerError, match='relation "makegood_meta" does not exist'), snapshot.reading(postgres):
        pass
    with pytest.raises(LedgerError, match="expected a ledger that can be read"):
        verify("postgresql://nobody@127.0.0.1:9/none")


def test_what_is_not_ours_may_have_triggers(url: str, tmp_path: Path) -> None:
    found = changed(url, tmp_path, "CREATE TABLE theirs (x int)", "CREATE RULE theirs AS ON DELETE TO theirs DO INSTEAD NOTHING")
    assert found.findings == ()


def test_erasure_waits_for_what_is_spooled(postgres_server: Server, tmp_path: Path) -> None:
    url, spool = postgres_server.fresh(), tmp_path / "spool"
    with Ledger.open(url, spool=spool) as ledger:
        ledger.append([corpus.decision("d0", ledger.pseudonym("ada"), corpus.START)])
        postgres_server.stop()
        try:
            ledger.append([corpus.decision("d1", ledger.pseudonym("ada"), corpus.START + 1)])
            assert b"Ada d1" in spool.read_bytes()
            with pytest.raises(LedgerError, match=r"erasure: got '1 events in the spool'; expected none; wait until the database has them"):
                erase(ledger, unit="ada", decisions=(), by="Grace")
        finally:
            postgres_server.start()
        for _ in range(300):
            if not ledger.state.spooled:
                break
            time.sleep(0.1)
        assert erase(ledger, unit="ada", decisions=(), by="Grace") == 2
        assert b"Ada" not in spool.read_bytes()
        assert ledger.reader.event("d1").event.private is None
