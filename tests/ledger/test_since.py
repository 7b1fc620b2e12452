"""A case's decisions since a time are read from the end of each partition, however the clock was set, and archived ones are missed."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.ledger import corpus

from makegood.errors import LedgerError
from makegood.ledger import reading, retention
from makegood.ledger.reading import Reader
from makegood.ledger.store import Ledger

CASE = "credit-risk"


def since(url: str, at: int, case: str = CASE) -> list[tuple[str, int]]:
    reader = Reader.open(url)
    try:
        return [(id, when) for id, when, body in reader.decided_since(case, at) if body]
    finally:
        reader.close()


@pytest.mark.parametrize("batch", [1000, 7])
def test_it_is_what_a_scan_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    path = corpus.build(tmp_path, archived=False)
    url = f"sqlite:///{path}"
    with Ledger.open(url) as ledger:
        ledger.append([corpus.decision("bakery", "", corpus.START + 9, case="bakery")])
        found = [stored for events in ledger.reader.scan(kinds=["decision"]) for stored in events]
    monkeypatch.setattr(reading, "BATCH", batch)
    for at in (0, corpus.START + 100 * corpus.STEP, corpus.START + 10_000 * corpus.STEP):
        expected = {(s.event.id, s.event.at) for s in found if s.event.case == CASE and s.event.at > at}
        got = since(url, at)
        assert (set(got), len(got)) == (expected, len(expected))
    assert since(url, 0, "bakery") == [("bakery", corpus.START + 9)]


def test_each_partition_begins_with_its_last(tmp_path: Path) -> None:
    url = f"sqlite:///{corpus.build(tmp_path, archived=False)}"
    ids = [id for id, _ in since(url, corpus.START)]
    assert [id for id in ids if id.startswith("d0")] == sorted((id for id in ids if id.startswith("d0")), reverse=True)


def test_a_clock_that_was_set_back_for_a_while_hides_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    with Ledger.open(url) as ledger:
        ledger.append([corpus.decision("before", "", corpus.START)])
        ledger.append([corpus.decision(f"wrong{i}", "", corpus.START - 10**9 + i) for i in range(900)])
        ledger.append([corpus.decision("after", "", corpus.START + 1)])
    assert [id for id, _ in since(url, corpus.START - 1)] == ["after", "before"]


def test_where_archived_ones_may_be_as_recent_it_is_said(tmp_path: Path) -> None:
    path = corpus.build(tmp_path, archived=False)
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    with engine.begin() as connection:
        for run in list(retention.due(connection, corpus.START + 100 * corpus.STEP)):
            retention.take_out(connection, retention.write(connection, corpus.LEDGER, path.parent, run))
    engine.dispose()
    url = f"sqlite:///{path}"
    assert since(url, corpus.START + 150 * corpus.STEP)  # older ones are in the tables still: nothing is missing
    with pytest.raises(LedgerError, match="partition 0: events that were archived may be as recent"):
        since(url, corpus.START)
