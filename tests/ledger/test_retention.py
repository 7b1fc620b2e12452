"""Retention: what goes into files, what stays, and that verification goes on across them."""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.ledger import corpus

from makegood.errors import LedgerError
from makegood.ledger import retention, schema
from makegood.ledger.verify import verify

DAY = corpus.START + 10 * corpus.STEP * 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a ledger of which nothing is archived yet."""
    return corpus.build(tmp_path, archived=False)


@pytest.fixture
def connection(path: Path) -> Iterator[sa.Connection]:
    """Return a connection that writes to it."""
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    with engine.connect() as connection:
        yield connection


def test_the_oldest_run_of_each_partition_is_due(connection: sa.Connection) -> None:
    runs = list(retention.due(connection, DAY))
    assert [run[:2] for run in runs] == [(0, 1), (1, 1)]
    at = schema.events.c.at
    for partition, _, last in runs:
        place = (schema.events.c.partition == partition, schema.events.c.seq)
        assert connection.scalar(sa.select(sa.func.max(at)).where(place[0], place[1] <= last)) < DAY
        assert connection.scalar(sa.select(at).where(place[0], place[1] == last + 1)) >= DAY


def test_the_head_of_a_partition_stays(connection: sa.Connection) -> None:
    assert list(retention.due(connection, corpus.START * 2)) == [(0, 1, 49), (1, 1, 49)]
    assert list(retention.due(connection, corpus.START)) == []


def test_segments_follow_each_other(path: Path, connection: sa.Connection) -> None:
    before = {row.id: tuple(row) for row in connection.execute(sa.select(schema.events))}
    for day in (DAY, DAY + 50 * corpus.STEP):
        for run in list(retention.due(connection, day)):
            retention.take_out(connection, retention.write(connection, corpus.LEDGER, path.parent, run))
    connection.commit()
    segments = retention.segments(connection)
    assert [(s.partition, s.first) for s in segments] == [(0, 1), (0, segments[0].last + 1), (1, 1), (1, segments[2].last + 1)]
    assert segments[0].hash == segments[1].before
    assert verify(str(path)).findings == ()
    stored = [s for segment in segments for s in retention.events(path.parent / segment.file)]
    assert len(stored) == sum(segment.n for segment in segments)
    for s in stored:
        e = s.event
        row = (s.partition, s.seq, e.id, e.kind, e.case, e.about, e.unit, e.at, e.request, e.body, s.commitment, s.hash)
        assert before[e.id] == row
    left = {row.id for row in connection.execute(sa.select(schema.events.c.id))}
    assert left >= {"p0-promote", "p1-promote"}, "what serves is still known"
    assert before.keys() - left == {s.event.id for s in stored if s.event.kind != "promotion"}


def test_what_is_damaged_is_not_archived(path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE makegood_events SET about = 'x' WHERE id = 'd0.0001'")
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    with (
        engine.begin() as connection,
        pytest.raises(
            LedgerError,
            match=r"partition 0: got 'event \d+: d0\.0001'; expected the event that was written as \d+; makegood ledger verify says more",
        ),
    ):
        retention.write(connection, corpus.LEDGER, path.parent, next(retention.due(connection, DAY)))
    assert list((path.parent / retention.FOLDER).iterdir()) == []


def test_a_file_that_cannot_be_written_is_said(path: Path, connection: sa.Connection) -> None:
    (path.parent / retention.FOLDER).touch()
    with pytest.raises(LedgerError, match=r"\.jsonl\.gz: got '.+'; expected a file for old events"):
        retention.write(connection, corpus.LEDGER, path.parent, next(retention.due(connection, DAY)))


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(retention.Damaged) as said:
        list(retention.events(tmp_path / "none"))
    assert said.value.got == "no file"
    (tmp_path / "text").write_text("hello")
    with pytest.raises(retention.Damaged, match="Not a gzipped file"):
        list(retention.events(tmp_path / "text"))
    (tmp_path / "lines").write_bytes(gzip.compress(b'{"partition":"x"}\n'))
    with pytest.raises(retention.Damaged, match="Expected `int`, got `str`"):
        list(retention.events(tmp_path / "lines"))
    with pytest.raises(retention.Damaged, match="No such file"):
        retention.digest(tmp_path / "none")
