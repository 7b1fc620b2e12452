"""A file, a frame or a built-in case becomes one typed Arrow table, with a fingerprint and the count of its rows.

Columns are int64, float64, bool, timestamp[us] (UTC), string or binary (images); every missing or infinite value is null.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import narwhals as nw
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from makegood.contracts import Finding
from makegood.data import delimited, downloads, galleries
from makegood.data.identity import fingerprint
from makegood.data.parsing import Typed, as_trained, typed
from makegood.errors import CaseError, DataError, NotBuilt, Problem, nearest

if TYPE_CHECKING:
    from collections.abc import Collection

    from makegood.cases import Published

_DELIMITED = (".csv", ".tsv", ".txt", ".tab", ".psv", ".dat", ".data")
_PARQUET = (".parquet", ".pq")
_COMPRESSED = (".gz", ".zst")
_GALLERIES = (".npz", ".zip", ".tar", ".tgz")
_FETCHED = ("https", "http", "file", "ftp")  # all but https are refused with the reason
_PLANNED = {
    "JSON": (".json", ".jsonl", ".ndjson"),
    "Excel workbooks": (".xlsx", ".xls"),
    "Arrow files": (".arrow", ".feather"),
    "databases": (".sqlite", ".db", ".duckdb"),
}
_READ = (
    "a .csv, .tsv or .txt file (also .gz, .zst), a .parquet file, a folder, .zip, .tar or .npz of images, an image, the https address of "
    "such a file, builtin:NAME, or a polars, pandas or Arrow table"
)


@dataclass(frozen=True)
class Source:
    """Data as read. `in_file` rows stood in the source; `set_aside` of them are not in the table (findings say why)."""

    table: pa.Table
    findings: tuple[Finding, ...]
    name: str
    fingerprint: str
    in_file: int
    set_aside: int = 0


def read(
    source: Any,
    *,
    folder: Path | None = None,
    plain: Collection[str] | None = None,
    path: str | None = None,
    sha256: str | None = None,
    cache: Path | None = None,
) -> Source:
    """Return the rows of a path, an https address, `builtin:NAME`, or a polars, pandas or Arrow table.

    Relative paths start at `folder`. `path` names a column of paths to images, relative to the file that holds it: the images become
    the column `image`. A file's SHA-256 must be `sha256` where that is given, as it must be for an address, whose file is kept in `cache`
    (see `downloads.fetched`). To score rows, pass `Transform.plain`: then only those columns are made numbers, and all other
    text is left as it is for `Transform.read`, which knows how it was written in training. Raises `CaseError` when there is no such
    source, `NotBuilt` for planned kinds, and `DataError` when the content is damaged, empty, has duplicate names, or mixes types
    that no column can hold.

    >>> read(pa.table({"x": ["1", "NA"], "y": ["a", "b"]})).table.to_pydict()
    {'x': [1, None], 'y': ['a', 'b']}
    """
    if path is not None:
        beside = Path(folder or "", str(source)).parent if isinstance(source, str | Path) else folder or Path()
        if isinstance(source, str) and "://" in source:
            raise CaseError(Problem("data.path", path, "a table that lies beside its images", "fetch both, and write data.source: PATH"))
        return _with_images(read(source, folder=folder, plain=plain, sha256=sha256), path, beside, scored=plain is not None)
    if not isinstance(source, str | Path):
        return _finished(_frame(source), "table", plain)
    text = str(source)
    if not text:
        raise CaseError(Problem("data.source", "nothing", _READ))
    if text.startswith("builtin:"):
        from makegood.cases import builtin, published  # built-in cases bring heavy packages; nobody else pays for them

        if sha256 is not None:
            raise CaseError(Problem("data.sha256", sha256, "none for a built-in table, which comes with its package", "remove it"))
        if (elsewhere := published(text.removeprefix("builtin:"))) is not None:
            return _published(elsewhere, text, cache)
        table = builtin(text.removeprefix("builtin:"))
        return _finished(table, text, plain, delimited.Rows(table, table.num_rows, 0))
    scheme, there, _ = text.partition("://")
    if there and scheme.lower() not in _FETCHED:  # what follows may hold a password
        raise NotBuilt(Problem("data.source", f"{scheme}://…", _READ, "databases and other stores: not built yet; see ROADMAP.md"))
    if there:
        return _file(downloads.fetched(text, sha256, cache), plain, None)
    return _file(Path(folder or "", text), plain, sha256)


def _published(table: Published, name: str, cache: Path | None) -> Source:
    """Return a table whose parts lie at addresses, with the column that names the parts."""
    parts = {part: _file(downloads.fetched(address, sha256, cache), None, None) for part, (address, sha256) in table.files.items()}
    column = pa.array([part for part, source in parts.items() for _ in range(source.table.num_rows)])
    rows = pa.concat_tables([source.table for source in parts.values()]).append_column(table.column, column)
    found = tuple(finding for source in parts.values() for finding in source.findings)
    counts = [(source.in_file, source.set_aside) for source in parts.values()]
    return Source(rows, found, name, fingerprint(rows), *(sum(column) for column in zip(*counts, strict=True)))


def _with_images(source: Source, path: str, folder: Path, *, scored: bool) -> Source:
    """Return the source with the images that its column `path` names; rows to score may hold them already."""
    names = source.table.column_names
    if path not in names:
        if scored:
            return source
        raise CaseError(Problem("data.path", path, f"a column of the data: {', '.join(names)}", nearest(path, names)))
    table, found = galleries.paths(source.table, path, folder)
    return replace(source, table=table, findings=source.findings + found, fingerprint=fingerprint(table))


def style_of(table: pa.Table, name: str) -> str:
    """Return how the numbers or dates of a column were written in the source (a key of `values.STYLES`, `DATES`), or ""."""
    return ((table.schema.field(name).metadata or {}).get(b"style") or b"").decode()


def _file(path: Path, plain: Collection[str] | None, sha256: str | None) -> Source:
    suffix = path.suffix.lower()
    inner = Path(path.stem).suffix.lower() if suffix in _COMPRESSED else suffix
    for what, suffixes in _PLANNED.items():
        if inner in suffixes:
            raise NotBuilt(Problem("data.source", path.name, _READ, f"{what}: not built yet; see ROADMAP.md"))
    if path.is_dir():
        if sha256 is not None:
            raise CaseError(Problem("data.sha256", sha256, "a file; a folder has none", "remove it, or pack the folder into a .zip"))
        gallery = galleries.folder(path)
        return _finished(gallery.table, path.name, plain, gallery)
    known = inner in _DELIMITED + _PARQUET + _GALLERIES or suffix in galleries.SUFFIXES
    if not known or (inner == ".tar" and suffix == ".zst"):
        raise CaseError(Problem("data.source", path.name, _READ))
    try:
        path.open("rb").close()
    except OSError as error:
        raise _absent(path, error) from None
    if sha256 is not None:
        downloads.verified(path, sha256, path.name)
    if inner in _GALLERIES or suffix in galleries.SUFFIXES:
        read_ = galleries.arrays if inner == ".npz" else galleries.archive if inner in _GALLERIES else galleries.one
        gallery = read_(path)
        return _finished(gallery.table, path.name, plain, gallery)
    if inner in _PARQUET:
        try:
            return _finished(pq.read_table(path), path.name, plain)
        except (OSError, pa.ArrowInvalid):
            raise DataError(Problem(path.name, "a damaged file", "a whole Parquet file", "write or copy it again")) from None
    data, findings = delimited.decode(delimited.decompress(path.read_bytes(), path.name), path.name)
    rows = delimited.parse(data, path.name, usual="\t" if inner in (".tsv", ".tab") else ",")
    return _finished(rows.table, path.name, plain, replace(rows, findings=findings + rows.findings))


def _absent(path: Path, error: OSError) -> CaseError:
    beside = os.listdir(path.parent) if path.parent.is_dir() else []
    return CaseError(Problem("data.source", str(path), "a readable file", nearest(path.name, beside) or str(error.strerror or "")))


def _frame(source: Any) -> pa.Table:
    if isinstance(source, pa.RecordBatch):
        return pa.Table.from_batches([source])
    if isinstance(source, pa.Table):
        return source
    try:
        frame: Any = nw.from_native(source)
        frame = frame.collect("pyarrow") if isinstance(frame, nw.LazyFrame) else frame
        table = frame.to_arrow()
    except TypeError:
        raise CaseError(Problem("data.source", type(source).__name__, _READ)) from None
    except nw.exceptions.DuplicateError:
        names = list(map(str, source.columns))
        raise _twice(names) from None
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        got = "; ".join(map(str, error.args))
        raise DataError(Problem("table", got, "one type in each column", "convert that column to text or to numbers")) from None
    return table.rename_columns([str(name) for name in table.column_names])


def _twice(names: list[str]) -> DataError:
    name, n = Counter(names).most_common(1)[0]
    return DataError(Problem("table", f"the column name {name!r} {n} times", "each name once", "rename one of them"))


def _finished(raw: pa.Table, name: str, plain: Collection[str] | None, rows: delimited.Rows | None = None) -> Source:
    """Return the source with its columns typed and its fingerprint taken."""
    if len(set(raw.column_names)) < raw.num_columns:
        raise _twice(raw.column_names)
    if raw.num_rows == 0:
        raise DataError(Problem(name, "no rows", "a table with rows"))
    if raw.num_columns < 2 and plain is None:  # rows to score need no outcome
        mend = "is the delimiter one of , ; tab | ?"
        raise DataError(Problem(name, f"{raw.num_columns} column", "an outcome and at least one other column", mend))
    ours = rows is not None  # what a file or frame says of its columns by metadata is not to be trusted
    rows = rows or delimited.Rows(raw, raw.num_rows, 0)
    columns, fields, findings = [], [], rows.findings
    for column_name, column in zip(raw.column_names, raw.columns, strict=True):
        done = _column(column_name, column, plain)
        findings += done.findings
        if done.column is not None:
            columns.append(done.column)
            said = dict((raw.schema.field(column_name).metadata if ours else None) or {})
            said |= {b"style": done.style.encode()} if done.style else {}
            fields.append(pa.field(column_name, done.column.type, metadata=said or None))
    table = pa.table(columns, schema=pa.schema(fields))
    return Source(table, findings, name, fingerprint(table), rows.in_file, rows.set_aside)


def _column(name: str, column: pa.ChunkedArray, plain: Collection[str] | None) -> Typed:
    """Return a column in one of the six types; text becomes numbers or dates where its values say so."""
    kind = column.type
    if pa.types.is_dictionary(kind):  # declared a category: its texts stay texts
        return Typed(pc.utf8_trim_whitespace(column.cast(kind.value_type).cast(pa.string())))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        text = column.cast(pa.string())
        return _finite(name, typed(name, text) if plain is None else Typed(as_trained(text, name in plain)))
    if pa.types.is_boolean(kind):
        return Typed(column)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return Typed(column.cast(pa.binary()))
    if pa.types.is_integer(kind):
        fits = kind != pa.uint64() or (pc.max(column).as_py() or 0) < 2**63
        return Typed(column.cast(pa.int64() if fits else pa.float64(), safe=fits))
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _finite(name, Typed(column.cast(pa.float64())))
    if pa.types.is_timestamp(kind):
        return Typed(column.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64()).cast(pa.timestamp("us")), "year-month-day")
    if pa.types.is_date(kind):
        return Typed(column.cast(pa.timestamp("us")), "year-month-day")
    if pa.types.is_null(kind):
        return Typed(column.cast(pa.string()))
    detail = f"Column {name!r} holds {kind} values, which are not built yet; it was left out."
    return Typed(None, findings=(Finding("unsupported", name, len(column), detail, "excluded", "warning"),))


def _finite(name: str, done: Typed) -> Typed:
    """Return the column with NaN and infinite numbers as null; the infinite ones are counted."""
    column = done.column
    if column.type != pa.float64() or pc.all(pc.is_finite(column)).as_py() in (True, None):
        return done
    infinite = pc.sum(pc.is_inf(column)).as_py() or 0
    column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, pa.float64()))
    if not infinite:
        return Typed(column, done.style, done.findings)
    detail = f"{infinite} values of {name!r} are infinite and were read as missing."
    found = Finding("infinite", name, infinite, detail, "treated as missing", "warning")
    return Typed(column, done.style, (*done.findings, found))
