"""The ledgers of all releases open, verify and export."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from tests.ledger.make_golden import GOLDEN

from makegood.ledger import export, snapshot
from makegood.ledger.events import Alarmed, Promoted
from makegood.ledger.reading import Reader
from makegood.ledger.verify import verify

EXPECTED = {  # ledger, events of each partition, decisions in the tables, their promises' sum, what is not erased of them
    "schema-1": ("3e7aa9c7928c31ef601fe2d3d5152642", {0: 21, 1: 21}, 15, "19.888000", 8),
    "schema-1-alarms": ("3e7aa9c7928c31ef601fe2d3d5152642", {0: 21, 1: 21}, 15, "19.888000", 8),
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_golden_ledger_opens_verifies_and_exports(name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / name, tmp_path / name))
    ledger, events, n, promised, private = EXPECTED[name]
    found = verify(str(folder / "ledger.sqlite"))
    assert (found.ok, found.findings, found.ledger) == (True, (), ledger)
    assert {p: head.seq for p, head in found.partitions.items()} == events
    table = pa.Table.from_batches(export.arrow(str(folder / "ledger.sqlite")), export.SCHEMA)
    assert table.num_rows == n
    assert str(sum(table["promise"].to_pylist())) == promised
    assert n - table["inputs"].null_count == private


def test_alarms_and_evidence_are_read_back(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "schema-1-alarms", tmp_path / "copy"))
    reader = Reader.open(f"sqlite:///{folder / 'ledger.sqlite'}")
    (alarm,) = reader.alarms("credit-risk")
    told = msgspec.json.decode(alarm.event.body, type=Alarmed)
    assert (told.test, told.evidence, told.limit, told.ticks, told.by) == ("promise", 1234.5, 1000.0, 42, "review")
    first = msgspec.json.decode(reader.promotions("credit-risk")[0].event.body, type=Promoted)
    reader.close()
    assert first.evidence == {"test": "betting", "evidence": 27.125, "limit": 20, "units": 5120}


def test_every_golden_ledger_is_expected_and_small() -> None:
    folders = sorted(path for path in GOLDEN.iterdir() if path.is_dir())
    assert [path.name for path in folders] == sorted(EXPECTED)
    for folder in folders:
        assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 100_000
        assert not list(folder.glob("*-wal"))
        assert not list(folder.glob("anchor.key"))


def test_a_golden_ledger_is_found_by_its_url(tmp_path: Path) -> None:
    path = shutil.copy(GOLDEN / "schema-1" / "ledger.sqlite", tmp_path)
    assert snapshot.at_url(path) == f"sqlite:///{path}"
    assert snapshot.folder(snapshot.at_url(path)) == tmp_path
    assert snapshot.folder("postgresql://somewhere/ledger") == Path()
    with snapshot.reading(snapshot.at_url(path)) as connection:
        assert snapshot.named(connection) == EXPECTED["schema-1"][0]
