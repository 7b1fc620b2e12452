from __future__ import annotations

import gzip
import time
import zipfile
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from makegood.data.sources import Source, read, style_of
from makegood.errors import CaseError, DataError, NotBuilt

CSV = "id;Höhe in cm;when;note\n001;1,5;31.01.2024;a\n002;?;28.02.2024;b\n003;2,5;01.03.2024;\n"


def test_a_file_becomes_a_typed_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(CSV, encoding="utf-8")
    source = read("t.csv", folder=tmp_path)
    assert source.table.to_pydict() == {
        "id": ["001", "002", "003"],
        "Höhe in cm": [1.5, None, 2.5],
        "when": [datetime(2024, 1, 31), datetime(2024, 2, 28), datetime(2024, 3, 1)],
        "note": ["a", "b", None],
    }
    assert (source.name, source.in_file, source.set_aside) == ("t.csv", 3, 0)
    assert [f.kind for f in source.findings] == ["delimiter", "missing_marker", "number_format"]
    assert (style_of(source.table, "Höhe in cm"), style_of(source.table, "when"), style_of(source.table, "id")) == (
        "comma",
        "day/month/year",
        "",
    )


def test_the_same_values_have_one_fingerprint_in_every_format(tmp_path: Path) -> None:
    data = "a,b\n" + "".join(f"{i / 4},x{i % 3}\n" for i in range(50))
    (tmp_path / "t.csv").write_text(data)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(data.encode()))
    (tmp_path / "t.txt.zst").write_bytes(pa.compress(data.encode(), codec="zstd", asbytes=True))
    (tmp_path / "t.tsv").write_text(data.replace(",", "\t"))
    frame = pd.read_csv(tmp_path / "t.csv")
    frame.to_parquet(tmp_path / "t.parquet", row_group_size=7)
    sources: list[Any] = [tmp_path / f"t.{end}" for end in ("csv", "csv.gz", "txt.zst", "tsv", "parquet")]
    sources += [frame, pl.from_pandas(frame), pl.from_pandas(frame).lazy(), pa.Table.from_pandas(frame), pa.RecordBatch.from_pandas(frame)]
    assert len({read(s).fingerprint for s in sources}) == 1


def test_every_type_of_a_frame() -> None:
    zoned = datetime(2024, 1, 1, 12, tzinfo=UTC).astimezone()
    table = pa.table(
        {
            "int8": pa.array([1, None], pa.int8()),
            "uint64": pa.array([1, 2**64 - 1], pa.uint64()),
            "small uint64": pa.array([1, 2], pa.uint64()),
            "float32": pa.array([0.5, float("nan")], pa.float32()),
            "decimal": [Decimal("1.50"), None],
            "bool": [True, None],
            "date": [date(2024, 1, 1), None],
            "ns": pa.array([1_704_067_200_000_000_123, None], pa.timestamp("ns")),
            "zoned": pa.array([zoned, None], pa.timestamp("us", "Europe/Berlin")),
            "category": pa.array(["01", "02"]).dictionary_encode(),
            "coded category": pa.array([1, 2]).dictionary_encode(),
            "large": pa.array([" a ", "b"], pa.large_string()),
            "null": pa.nulls(2),
        }
    )
    source = read(table)
    assert not source.findings
    assert source.table.to_pydict() == {
        "int8": [1, None],
        "uint64": [1.0, 2.0**64],
        "small uint64": [1, 2],
        "float32": [0.5, None],
        "decimal": [1.5, None],
        "bool": [True, None],
        "date": [datetime(2024, 1, 1), None],
        "ns": [datetime(2024, 1, 1), None],
        "zoned": [datetime(2024, 1, 1, 12), None],
        "category": ["01", "02"],
        "coded category": ["1", "2"],
        "large": ["a", "b"],
        "null": [None, None],
    }


def test_columns_of_lists_are_left_out_by_name() -> None:
    source = read(pa.table({"a": [1, 2], "b": [[1], [2]], "c": [1, 2], "d": [timedelta(1), None]}))
    assert source.table.column_names == ["a", "c"]
    assert source.findings[0].detail == "Column 'b' holds list<item: int64> values, which are not built yet; it was left out."
    assert [f.action for f in source.findings] == ["excluded", "excluded"]


def test_infinite_numbers_are_missing_and_counted() -> None:
    source = read(pa.table({"a": [1.0, float("inf"), -float("inf"), None], "b": ["1", "inf", "2", "1e999"]}))
    assert source.table.to_pydict() == {"a": [1.0, None, None, None], "b": [1.0, None, 2.0, None]}
    assert [f.detail for f in source.findings] == [f"2 values of {c!r} are infinite and were read as missing." for c in "ab"]


def test_pandas_names_that_are_no_text() -> None:
    assert read(pd.DataFrame({1: [1], 2: ["x"]})).table.column_names == ["1", "2"]


def test_rows_to_score_are_read_as_in_training() -> None:
    table = pa.table({"n": ["1", "2"], "date": ["01/02/2024", "02/02/2024"], "code": ["1", "2"], "odd": ["1", "x"]})
    scored = read(table, plain={"n", "odd"}).table
    assert scored.to_pydict() == {"n": [1.0, 2.0], "date": ["01/02/2024", "02/02/2024"], "code": ["1", "2"], "odd": ["1", "x"]}


def test_a_built_in_table() -> None:
    assert read("builtin:diagnosis").in_file == 569
    with pytest.raises(
        CaseError, match=r"^data.source: got 'builtin:diagnoses'; expected one of .*builtin:diagnosis.*; did you mean 'diagnosis'\?$"
    ):
        read("builtin:diagnoses")


# ------------------------------------------------------------------------------------------------------------------ errors


def test_a_file_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "loans.csv").write_text("a,b\n1,2\n")
    for name in ("loan.csv", "loan.csv.parquet"):
        with pytest.raises(CaseError, match=r"^data.source: got '.*loan.csv.*'; expected a readable file; .+$"):
            read(name, folder=tmp_path)
    with pytest.raises(CaseError, match=r"did you mean 'loans.csv'\?$"):
        read("loan.csv", folder=tmp_path)
    with pytest.raises(CaseError, match=r"expected a readable file; No such file or directory$"):
        read("nowhere/loan.csv", folder=tmp_path)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("t.json", "JSON"),
        ("t.jsonl.gz", "JSON"),
        ("t.xlsx", "Excel workbooks"),
        ("t.feather", "Arrow files"),
        ("t.sqlite", "databases"),
        ("postgresql://me:secret@host/db", "databases and other stores"),
    ],
)
def test_planned_sources_are_refused_by_name(source: str, what: str) -> None:
    with pytest.raises(NotBuilt, match=rf"^data.source: .*; expected a \.csv, .*builtin:NAME.*; {what}: not built yet; see ROADMAP.md$"):
        read(source)


@pytest.mark.parametrize("source", ["", "t.doc", "noextension", 5, [1, 2], {"a": [1]}])
def test_other_sources_are_refused(source: object) -> None:
    with pytest.raises(
        CaseError, match=r"^data.source: got '(nothing|t.doc|noextension|int|list|dict)'; expected a \.csv, \.tsv or \.txt file"
    ):
        read(source)


@pytest.mark.parametrize("content", [b"PAR1 no parquet at all PAR1", b"x"])
def test_damaged_parquet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"^t.parquet: got 'a damaged file'; expected a whole Parquet file; write or copy it again$"):
        read(tmp_path / "t.parquet")


def test_a_table_without_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([], pa.int64()), "b": pa.array([], pa.string())}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"^t.parquet: got 'no rows'; expected a table with rows$"):
        read(tmp_path / "t.parquet")


def test_a_table_of_one_column() -> None:
    with pytest.raises(
        DataError,
        match=r"^table: got '1 column'; expected an outcome and at least one other column; is the delimiter one of , ; tab \| \?$",
    ):
        read(pa.table({"a": [1]}))


@pytest.mark.parametrize("frame", [pd.DataFrame([[1, 2, 3]], columns=["a", "a", "b"]), pa.table([[1], [2], [3]], names=["a", "a", "b"])])
def test_duplicate_names_in_a_frame(frame: object) -> None:
    with pytest.raises(DataError, match=r"^table: got \"the column name 'a' 2 times\"; expected each name once; rename one of them$"):
        read(frame)


def test_mixed_types_in_a_frame() -> None:
    with pytest.raises(
        DataError, match=r"^table: got .*column m.*; expected one type in each column; convert that column to text or to numbers$"
    ):
        read(pd.DataFrame({"a": [1, 2], "m": [1, "x"]}))


# ------------------------------------------------------------------------------------------------------------------- scale


@pytest.mark.slow
def test_a_million_rows_are_read_in_seconds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 1_000_000
    table = pa.table(
        {"x": rng.normal(size=n).round(4), "k": rng.integers(0, 1000, n), "s": pa.array(["aa", "bb", "c c"]).take(rng.integers(0, 3, n))}
    )
    pa.csv.write_csv(table, tmp_path / "big.csv")
    start = time.perf_counter()
    source = read(tmp_path / "big.csv")
    assert source.table.num_rows == source.in_file == n
    assert source.table.schema.types == [pa.float64(), pa.int64(), pa.string()]
    assert time.perf_counter() - start < 10


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "n", "columns", "kinds"),
    [
        ("risk/german_credit.csv", 1000, 21, []),
        ("risk/taiwan_default.csv.gz", 30_000, 25, []),
        ("diagnosis/pima_diabetes.csv", 768, 9, []),
        ("assessment/student_maths.csv.gz", 395, 33, ["delimiter"]),
        ("general/telco_churn.csv.gz", 7043, 21, []),
        ("assessment/asap_prompts_1_4.tsv.gz", 7081, 6, ["quoting"]),
        ("courses/ml100k.tsv.gz", 100_000, 4, []),
        ("treatment/actg175.csv", 2139, 28, ["unnamed_column", "missing_marker"]),
    ],
)
def test_real_files(shared: Any, name: str, n: int, columns: int, kinds: list[str]) -> None:
    source = read(shared(name))
    assert (source.in_file, source.table.num_rows, source.table.num_columns) == (n, n, columns)
    assert [f.kind for f in source.findings] == kinds


@pytest.mark.data
def test_a_real_file_without_a_header(shared: Any) -> None:
    with pytest.raises(DataError, match=r"the column name '1' 8 times.*add a line of names if the file has none"):
        read(shared("treatment/ihdp_1.csv.gz"))


def images_of(source: Source) -> list[bytes | None]:
    return source.table["image"].to_pylist()


PICTURES = {"0/a.png": b"\x89PNG\r\n\x1a\none", "1/b.png": b"\x89PNG\r\n\x1a\ntwo"}


def test_a_folder_and_an_archive_of_images_are_the_same_table(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as pack:
        for name, data in PICTURES.items():
            pack.writestr(name, data)
            (tmp_path / "t" / name).parent.mkdir(parents=True)
            (tmp_path / "t" / name).write_bytes(data)
    folder, archive = read("t", folder=tmp_path), read("t.zip", folder=tmp_path)
    assert folder.table.to_pydict() == {"image": list(PICTURES.values()), "path": list(PICTURES), "label": [0, 1]}
    assert (folder.table.equals(archive.table), folder.fingerprint == archive.fingerprint, folder.in_file) == (True, True, 2)
    assert folder.table.schema.field("path").metadata == {b"role": b"place"}


def test_arrays_keep_the_shape_of_their_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", images=np.arange(8, dtype=np.uint8).reshape(2, 2, 2), labels=[0, 1])
    table = read("t.npz", folder=tmp_path).table
    assert (table["image"].to_pylist(), table.schema.field("image").metadata) == (
        [bytes(range(4)), bytes(range(4, 8))],
        {b"shape": b"2,2,1"},
    )


@pytest.mark.parametrize("name", ["t.tar.zst", "t.npz.gz"])
def test_archives_in_other_wrappings_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises((CaseError, DataError), match="expected"):
        read(name, folder=tmp_path)


def test_a_column_of_paths_brings_its_images(tmp_path: Path) -> None:
    for name, data in PICTURES.items():
        (tmp_path / "t" / name).parent.mkdir(parents=True)
        (tmp_path / "t" / name).write_bytes(data)
    (tmp_path / "t" / "t.csv").write_text('image,height\n0/a.png,"1,5"\n1/b.png,"2,5"\n1/c.png,"3,5"\n')
    source = read("t/t.csv", folder=tmp_path, path="image")
    assert source.table.column_names == ["path", "height", "image"]
    assert images_of(source) == [*PICTURES.values(), None]
    assert style_of(source.table, "height") == "comma"
    assert [f.kind for f in source.findings if f.column == "image"] == ["unreadable"]
    assert source.fingerprint != read("t/t.csv", folder=tmp_path).fingerprint
    framed = read(pa.table({"file": ["0/a.png", None], "y": [1, 2]}), folder=tmp_path / "t", path="file")
    assert images_of(framed) == [PICTURES["0/a.png"], None]


def test_a_column_of_paths_that_is_not_there() -> None:
    table = pa.table({"file": ["a.png"], "image": pa.array([b"x"])})
    with pytest.raises(CaseError, match=r"^data.path: got 'fill'; expected a column of the data: file, image; did you mean 'file'\?$"):
        read(table, path="fill")
    assert images_of(read(table, path="other", plain=())) == [b"x"]  # rows to score may hold the images


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_bytes_stay_bytes_and_nobody_else_says_their_shape(kind: pa.DataType) -> None:
    field = pa.field("photo", kind, metadata={b"shape": b"1,1,9", b"role": b"place"})
    table = pa.table([pa.array([b"a", None], kind), pa.array([1, 2])], schema=pa.schema([field, pa.field("y", pa.int64())]))
    kept = read(table).table
    assert (kept.schema.field("photo").type, kept.schema.field("photo").metadata) == (pa.binary(), None)
    assert kept["photo"].to_pylist() == [b"a", None]


def test_an_image_alone_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "1.PNG").write_bytes(b"\x89PNG")
    source = read(tmp_path / "1.PNG")
    assert (source.name, source.table.to_pydict()) == ("1.PNG", {"image": [b"\x89PNG"], "path": ["1.PNG"], "label": [None]})
    with pytest.raises(CaseError, match=r"^data\.source: got '.*2\.png'; expected a readable file"):
        read(tmp_path / "2.png")


def test_a_password_in_an_address_is_not_shown() -> None:
    with pytest.raises(NotBuilt) as caught:
        read("postgresql://me:secret@host/db")
    assert "secret" not in str(caught.value)


def test_built_in_images_keep_their_shape() -> None:
    assert (read("builtin:digits").table.schema.field("image").metadata or {})[b"shape"] == b"8,8,1"
