"""Export: a row a decision with what became of it, exact money, whole files."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.ledger import corpus

from makegood.errors import DataError, LedgerError
from makegood.ledger import export
from makegood.ledger.export import Chosen


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a ledger with nothing archived."""
    return corpus.build(tmp_path_factory.mktemp("export"), archived=False)


def table(path: Path, **chosen: object) -> pa.Table:
    """Return the export as a table."""
    return pa.Table.from_batches(export.arrow(str(path), Chosen(**chosen)), export.SCHEMA)  # type: ignore[arg-type]


def test_each_decision_has_its_row_with_its_latest_outcome(path: Path) -> None:
    rows = {row["id"]: row for row in table(path).to_pylist()}
    assert len(rows) == 49
    plain = rows["d0.0005"]
    assert (plain["promise"], plain["guaranteed"], plain["unit"]) == (Decimal("2.500000"), Decimal("-0.900000"), "EUR")
    assert (plain["outcome"], plain["outcome_value"], plain["corrections"], plain["source"]) == ("yes", None, 0, "core banking")
    assert (plain["realised"], plain["options"], plain["propensities"]) == (Decimal("-2.750000"), ["approve", "decline"], [0.98, 0.02])
    assert json.loads(plain["inputs"])["name"] == "Ada d0.0005"
    assert json.loads(plain["predictive"]) == {"no": 0.91, "yes": 0.09}
    assert json.loads(plain["reasons"]) == [["amount", "5000", -12.5]]
    assert json.loads(plain["shadows"])[0]["model"] == "credit-risk@ffffffffffff"
    assert (plain["notes"], plain["entity"], plain["prediction_set"]) == (["months was missing"], f"{0:032x}", ["no"])
    corrected = rows["d1.0001"]
    assert (corrected["outcome"], corrected["corrections"]) == ("no", 1)
    number = rows["d0.0003"]
    assert (number["outcome"], number["outcome_value"], number["inputs"], number["entity"]) == ("12.5", 12.5, None, None)
    overridden = rows["d0.0002"]
    assert (overridden["done"], overridden["done_quantity"], overridden["done_by"]) == ("decline", 2.0, "clerk 7")
    assert (overridden["outcome"], overridden["known_at"], overridden["realised"]) == (None, None, None)
    assert rows["d0.0004"]["inputs"] is None, "it was erased"


def test_a_negative_promise_is_exact(path: Path) -> None:
    assert set(table(path)["promise"].to_pylist()) == {Decimal("-0.016000"), Decimal("2.500000")}


def test_a_correction_outweighs_an_outcome_that_came_in_later(tmp_path: Path) -> None:
    path = corpus.build(tmp_path, 2, archived=False, anchored=False)
    import sqlalchemy as sa

    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    with engine.begin() as connection:
        late = corpus.START * 2
        corpus.write(
            connection, 0, [corpus.about("correction", "c", "d1.0000", late, "no"), corpus.about("outcome", "o", "d1.0000", late + 5)]
        )
    row = next(r for r in table(path).to_pylist() if r["id"] == "d1.0000")
    assert (row["outcome"], row["corrections"]) == ("no", 1)


def test_decisions_are_chosen_by_case_and_time(path: Path) -> None:
    assert table(path, case="another").num_rows == 0
    assert table(path, case="credit-risk").num_rows == 49
    at = corpus.START + 100_000_000
    assert table(path, since=at).num_rows + table(path, until=at).num_rows == 49
    assert 0 < table(path, since=at, until=at + 50_000_000, case="credit-risk").num_rows < 20


def test_a_parquet_file_is_written_whole_or_not_at_all(path: Path, tmp_path: Path) -> None:
    written, n = export.parquet(str(path), tmp_path / "new" / "out.parquet")
    assert (written, n) == (tmp_path / "new" / "out.parquet", 49)
    assert pq.read_table(written).equals(table(path))
    assert export.parquet(str(path), tmp_path / "folder")[0] == tmp_path / "folder" / "decisions.parquet"
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(path.read_bytes())
    with closing(sqlite3.connect(damaged)) as connection, connection:
        connection.execute("UPDATE makegood_events SET unit = CAST(x'ff' AS TEXT) WHERE id = 'd1.0020'")
    with pytest.raises(LedgerError, match="Could not decode to UTF-8 column 'unit'"):
        export.parquet(str(damaged), written)
    assert pq.read_table(written).num_rows == 49, "the file of before is still there"
    assert [p.name for p in written.parent.iterdir()] == ["out.parquet"]


def test_another_kind_of_file_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"decisions\.csv'; expected FILE\.parquet, or a folder; write .*decisions\.parquet"):
        export.parquet(str(path), tmp_path / "decisions.csv")
    assert list(tmp_path.iterdir()) == []


def test_where_it_cannot_be_written_is_said(path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"--out: got '.*decisions\.parquet: .*'; expected a file or a folder that can be written to"):
        export.parquet(str(path), tmp_path / "file")
