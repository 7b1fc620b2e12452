"""Bytes of a delimited text file become a table of texts, with every row accounted for.

Rows that were read, rows set aside since their number of fields is not the header's, and blank rows add up to the rows of the
file. Delimiter, quoting and encoding are detected, and named wherever they are not the usual ones.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from makegood.contracts import Finding
from makegood.errors import DataError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
MAX_RAGGED = 0.05  # share of rows with a wrong number of fields above which the file is refused
_BOMS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_LOOK = 200  # lines looked at to tell the delimiter
_END = "\x1e"  # a last row of our own; a quote that never closes swallows it


@dataclass(frozen=True)
class Rows:
    """A table of texts; `in_file` counts the rows below the header, of which `set_aside` are not in the table."""

    table: pa.Table
    in_file: int
    set_aside: int
    findings: tuple[Finding, ...] = ()


def decompress(data: bytes, where: str) -> bytes:
    """Return the bytes within gzip or Zstandard, told by their first bytes; other bytes as they are. Raises `DataError`."""
    try:
        if data.startswith(b"\x1f\x8b"):
            return gzip.decompress(data)
        if data.startswith(b"\x28\xb5\x2f\xfd"):
            return bytes(pa.input_stream(io.BytesIO(data), compression="zstd").read())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(Problem(where, f"damaged compression ({error})", "a whole .gz or .zst file", "copy or download it again")) from None
    return data


def decode(data: bytes, where: str) -> tuple[bytes, tuple[Finding, ...]]:
    """Return the text as UTF-8, and a finding that names the encoding where it is not UTF-8.

    Tried in this order: a byte-order mark, UTF-16 without one, UTF-8, GB18030 (when most letters beyond ASCII are among the
    common Chinese ones), Windows-1252 (of which Latin-1's letters are a part). Raises `DataError` with the line when none fits,
    when a file in UTF-8 holds a few broken bytes, or when there is a NUL byte.
    """
    encoding = next((name for bom, name in _BOMS if data.startswith(bom)), None) or _unmarked_utf16(data)
    if encoding is None:
        encoding = _guess(data, where)
    if encoding != "utf-8":
        try:
            data = data.decode(encoding).encode()
        except UnicodeDecodeError as error:
            raise _undecodable(where, data, error) from None
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise DataError(Problem(f"{where}, line {line}", "a NUL byte", "a text file", "the file is binary or damaged: export it again"))
    if encoding in ("utf-8", "utf-8-sig"):
        return data, ()
    sure = encoding.startswith("utf")
    name = {"cp1252": "Windows-1252 (Latin-1)", "gb18030": "GB18030"}.get(encoding, encoding.upper())
    guess = f"The file is not UTF-8: its bytes were taken as {name}; check the letters beyond ASCII."
    detail = f"The file is in {name}." if sure else guess
    return data, (Finding("encoding", "", 1, detail, "kept", "note" if sure else "warning"),)


def _unmarked_utf16(data: bytes) -> str | None:
    """Return UTF-16's byte order when every second byte of ASCII text is zero, else None."""
    head = np.frombuffer(data[:4096], dtype=np.uint8)
    if len(head) < 4:
        return None
    even, odd = (head[0::2] == 0).mean(), (head[1::2] == 0).mean()
    return "utf-16-le" if odd > 0.4 and even < 0.1 else "utf-16-be" if even > 0.4 and odd < 0.1 else None


def _guess(data: bytes, where: str) -> str:
    """Return utf-8, gb18030 or cp1252, whichever decodes the bytes to likely letters."""
    try:
        data.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError as error:
        broken = error
    text = data.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    good = len(text) - len(text.encode("ascii", "ignore")) - bad
    if good > bad:
        raise _undecodable(where, data, broken)
    for encoding in ("gb18030", "cp1252"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError as error:
            broken = error
            continue
        letters = "".join(match[0] for match in islice(re.finditer(r"[^\x00-\x7f]+", text), 10_000))
        common = len(letters.encode("gb2312", "ignore")) // 2  # GB 2312 holds the common characters, in two bytes each
        if encoding == "cp1252" or common >= 0.5 * len(letters):
            return encoding
    raise _undecodable(where, data, broken)


def _undecodable(where: str, data: bytes, error: UnicodeDecodeError) -> DataError:
    line = data[: error.start].decode(error.encoding, "ignore").count("\n") + 1
    byte = f"the byte 0x{data[error.start]:02x}"
    return DataError(Problem(f"{where}, line {line}", byte, f"text in {error.encoding}", "save the file as UTF-8"))


def parse(data: bytes, where: str, usual: str = ",") -> Rows:
    """Return the rows of delimited UTF-8 text; a delimiter other than the `usual` one is named.

    Raises `DataError` when there are no rows, when more than 5% of them have a wrong number of fields, when a quotation mark is
    never closed and when a column's name stands twice.
    """
    if not data.strip():
        raise DataError(Problem(where, "an empty file", "a header and rows below it"))
    delimiter = _delimiter(data)
    found = _Attempt.of(data, delimiter, where, quoted=True)
    findings: tuple[Finding, ...] = ()
    if b'"' in data and (found.unclosed or found.ragged or found.breaks):
        plain = _Attempt.of(data, delimiter, where, quoted=False)
        if not plain.ragged:
            found = plain
            detail = "Quotation marks in this file are text, not quoting: read so, every row has its fields."
            findings = (Finding("quoting", "", found.rows, detail, "kept"),)
    if found.unclosed:
        got, mend = "a quotation mark that is never closed", f"look near row {found.last_row} of the file"
        raise DataError(Problem(where, got, "quoted values that end", mend))
    if delimiter != usual and found.table.num_columns > 1:
        findings += (Finding("delimiter", "", found.rows, f"Fields are separated by {DELIMITERS[delimiter]}.", "kept"),)
    return found.accounted(where, findings)


def _lines(data: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="")


def _delimiter(data: bytes) -> str:
    """Return the delimiter with which the first lines have most fields, among those that give the same number on nearly all."""
    lines = list(islice(_lines(data), _LOOK))
    best, best_score = ",", (False, 1, 0.0)
    for delimiter in DELIMITERS:
        widths = [len(record) for record in _records(csv.reader(lines, delimiter=delimiter))]
        agree = float(np.mean([w == widths[0] for w in widths])) if widths else 0.0
        if widths and widths[0] > 1 and (agree >= 0.9, widths[0], agree) > best_score:
            best, best_score = delimiter, (agree >= 0.9, widths[0], agree)
    return best


def _records(reader: Iterator[list[str]]) -> list[list[str]]:
    """Return the next records that are not blank, up to one with a value longer than the csv module reads."""
    records: list[list[str]] = []
    with suppress(csv.Error):
        records.extend(record for record in islice(reader, _LOOK) if record)
    return records


@dataclass(frozen=True)
class _Attempt:
    """One reading of the file: with quotation marks as quoting, or as text."""

    table: pa.Table
    ragged: tuple[tuple[int, int], ...]  # (row of the file, number of fields); the header is row 1
    unclosed: bool
    breaks: int  # line breaks within values
    findings: tuple[Finding, ...]

    @property
    def rows(self) -> int:
        return int(self.table.num_rows)

    @property
    def last_row(self) -> int:
        return max(self.rows + len(self.ragged), 1) + 1

    @classmethod
    def of(cls, data: bytes, delimiter: str, where: str, *, quoted: bool) -> _Attempt:
        reader = csv.reader(_lines(data), delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
        try:
            header = next(record for record in reader if any(cell.strip() for cell in record))
        except (csv.Error, StopIteration):
            mend = "look for an unclosed quotation mark"
            raise DataError(Problem(where, "no readable header", "a first line with the columns' names", mend)) from None
        start = reader.line_num
        names, findings = _names(_fitted(header, _records(reader)), where)
        ragged: list[tuple[int, int]] = []

        def set_aside(row: Any) -> str:
            ragged.append((row.number, row.actual_columns))
            return "skip"

        end = b"\n" * (not data.endswith((b"\n", b"\r"))) + delimiter.join([_END] * len(names)).encode() + b"\n"
        try:
            table = pa_csv.read_csv(
                pa.py_buffer(data + end),
                # one thread, since only then do rows have numbers; a block must hold the longest row
                read_options=pa_csv.ReadOptions(use_threads=False, column_names=names, skip_rows=start, block_size=1 << 25),
                parse_options=pa_csv.ParseOptions(
                    delimiter=delimiter,
                    quote_char='"' if quoted else False,
                    newlines_in_values=quoted,
                    ignore_empty_lines=False,
                    invalid_row_handler=set_aside,
                ),
                convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), check_utf8=False),
            )
        except pa.ArrowInvalid as error:
            problem = Problem(where, str(error).split("\n")[0], "rows shorter than 32 MB", "look for an unclosed quotation mark")
            raise DataError(problem) from None
        closed = table.num_rows > 0 and table.column(0)[-1].as_py() == _END
        table = table.slice(0, table.num_rows - closed)
        breaks = sum(pc.sum(pc.count_substring(c, "\n")).as_py() or 0 for c in table.columns) if quoted and b'"' in data else 0
        return cls(table, tuple(ragged), not closed, breaks, findings)

    def accounted(self, where: str, findings: tuple[Finding, ...]) -> Rows:
        """Return the rows with a finding for each kind that was set aside; raises `DataError` when too few are left."""
        findings = self.findings + findings
        width, in_file = self.table.num_columns, self.rows + len(self.ragged)
        if self.ragged:
            widths = Counter(n for _, n in self.ragged)
            lines = ", ".join(f"row {row}" for row, _ in self.ragged[:3])
            shown = " or ".join(map(str, sorted(widths)[:3])) + ("" if len(widths) < 4 else " or more")
            got = f"{len(self.ragged)} of {in_file} rows with {shown} fields (first: {lines}; the header is row 1)"
            if len(self.ragged) > MAX_RAGGED * in_file:
                mend = "quote values that hold the delimiter, or mend those rows"
                raise DataError(Problem(where, got, f"{width} fields as in the header", mend))
            detail = f"There are {got}, where the header has {width}."
            findings += (Finding("ragged_row", "", len(self.ragged), detail, "dropped", "warning"),)
        if self.breaks:
            detail = f"{self.breaks} line breaks stand within quoted values; each such value is one value."
            findings += (Finding("line_break", "", self.breaks, detail, "kept"),)
        table, blank = _without_blank_rows(self.table)
        if blank:
            findings += (Finding("blank_row", "", blank, f"{blank} rows hold nothing at all.", "dropped"),)
        if table.num_rows == 0:
            raise DataError(Problem(where, "a header without rows", "a header and rows below it"))
        table, more = _without_empty_unnamed(table)
        return Rows(table, in_file, len(self.ragged) + blank, findings + more)


def _fitted(header: list[str], records: list[list[str]]) -> list[str]:
    """Return the header with a name too few made good, when all rows have one field more: row names, or a last delimiter."""
    if not records or any(len(record) != len(header) + 1 for record in records):
        return header
    return ["", *header] if any(record[-1] for record in records) else [*header, ""]


def _names(header: list[str], where: str) -> tuple[list[str], tuple[Finding, ...]]:
    """Return the columns' names: trimmed, unnamed ones numbered; raises `DataError` on duplicates."""
    names = [cell.strip() for cell in header]
    twice = [name for name, n in Counter(names).items() if n > 1 and name]
    if twice:
        got, mend = f"the column name {twice[0]!r} {names.count(twice[0])} times", "rename one, or add a line of names if the file has none"
        raise DataError(Problem(where, got, "each name once", mend))
    findings = []
    for i, name in enumerate(names):
        if not name:
            names[i] = next(n for n in (f"unnamed_{i + 1 + k}" for k in range(len(names) + 1)) if n not in names)
            findings.append(Finding("unnamed_column", names[i], 1, f"Column {i + 1} has no name; it is called {names[i]!r}.", "kept"))
    if all(_is_number(name) for name in names):
        detail = f"All column names are numbers ({', '.join(names[:3])}, …): if the first line is data, add a line of names above it."
        findings.append(Finding("header", "", 1, detail, "kept", "warning"))
    return names, tuple(findings)


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _without_blank_rows(table: pa.Table) -> tuple[pa.Table, int]:
    """Return the table without rows of which every field is empty, and their number."""
    blank = pc.equal(table.column(0), "")
    for column in table.columns[1:]:
        if not pc.any(blank).as_py():
            return table, 0
        blank = pc.and_(blank, pc.equal(column, ""))
    n = int(pc.sum(blank).as_py() or 0)
    return (table.filter(pc.invert(blank)), n) if n else (table, 0)


def _without_empty_unnamed(table: pa.Table) -> tuple[pa.Table, tuple[Finding, ...]]:
    """Return the table without unnamed columns that hold nothing: what a delimiter at the end of each line leaves."""
    drop = [c for c in table.column_names if c.startswith("unnamed_") and pc.all(pc.equal(table[c], "")).as_py()]
    detail = "The unnamed column {!r} holds nothing: a delimiter stands at the end of each line."
    return table.drop_columns(drop), tuple(Finding("unnamed_column", c, table.num_rows, detail.format(c), "dropped") for c in drop)
