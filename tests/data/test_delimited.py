from __future__ import annotations

import csv
import gzip
import io

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makegood.data import delimited
from makegood.errors import DataError


def rows(text: str | bytes, usual: str = ",") -> delimited.Rows:
    data, _ = delimited.decode(text.encode() if isinstance(text, str) else text, "f.csv")
    return delimited.parse(data, "f.csv", usual)


def told(found: delimited.Rows) -> list[tuple[str, int]]:
    return [(f.kind, f.count) for f in found.findings]


# --------------------------------------------------------------------------------------------------------------- encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_encodings(encoding: str) -> None:
    text = "größe,名\nÄ,一\nb,二\n" + "".join(f"plain {i},x\n" for i in range(20))
    data, findings = delimited.decode(text.encode(encoding), "f.csv")
    assert data.decode() == text
    assert [f.severity for f in findings] == ([] if encoding.startswith("utf-8") else ["note"])


def test_latin_letters_are_assumed_and_said_to_be() -> None:
    data, findings = delimited.decode("café,Müller\nnaïve,1\n".encode("latin-1"), "f.csv")
    assert data.decode() == "café,Müller\nnaïve,1\n"
    assert findings[0].kind == "encoding"
    assert findings[0].detail == "The file is not UTF-8: its bytes were taken as Windows-1252 (Latin-1); check the letters beyond ASCII."
    assert findings[0].severity == "warning"


def test_chinese_in_gb18030() -> None:
    text = "姓名,城市\n张三,北京\n李四,上海\n"
    data, findings = delimited.decode(text.encode("gb18030"), "f.csv")
    assert data.decode() == text
    assert findings[0].detail == "The file is not UTF-8: its bytes were taken as GB18030; check the letters beyond ASCII."


def test_a_broken_byte_in_a_utf8_file_names_its_line() -> None:
    with pytest.raises(DataError, match=r"^f.csv, line 3: got 'the byte 0xff'; expected text in utf-8; save the file as UTF-8$"):
        delimited.decode("名,值\n一,1\n".encode() + b"\xff,2\n", "f.csv")


def test_bytes_that_no_encoding_fits_name_their_line() -> None:
    with pytest.raises(DataError, match=r"^f.csv, line 2: got 'the byte 0x81'; expected text in \S+; save the file as UTF-8$"):
        delimited.decode(b"a,b\n\x81\x20,\xff\x01\n", "f.csv")


def test_a_cut_off_utf16_file_names_its_line() -> None:
    with pytest.raises(DataError, match=r"^f.csv, line 2: got 'the byte 0x0a'; expected text in utf-16-le"):
        delimited.decode("a,b\n1,2\n".encode("utf-16")[:-1], "f.csv")


def test_a_nul_byte_names_its_line() -> None:
    with pytest.raises(DataError, match=r"^f.csv, line 2: got 'a NUL byte'; expected a text file; the file is binary or damaged"):
        delimited.decode(b"a,b\n1,\x002\n", "f.csv")


# ------------------------------------------------------------------------------------------------------------- compression


def test_compressed_bytes() -> None:
    plain = b"a,b\n1,2\n"
    assert delimited.decompress(gzip.compress(plain) + gzip.compress(plain), "f") == plain * 2
    assert delimited.decompress(pa.compress(plain, codec="zstd", asbytes=True), "f") == plain
    assert delimited.decompress(plain, "f") == plain


@pytest.mark.parametrize(
    "data",
    [gzip.compress(b"abc" * 500, mtime=0)[:-12], pa.compress(b"abc" * 500, codec="zstd", asbytes=True)[:-3], b"\x1f\x8bnonsense-nonsense"],
)
def test_damaged_compression(data: bytes) -> None:
    with pytest.raises(
        DataError, match=r"^f.csv.gz: got 'damaged compression \(.*\)'; expected a whole .gz or .zst file; copy or download it again$"
    ):
        delimited.decompress(data, "f.csv.gz")


# -------------------------------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_told_and_named(delimiter: str) -> None:
    found = rows(f'a{delimiter}b\n1{delimiter}"x{delimiter}y"\n2{delimiter}z\n')
    assert found.table.to_pydict() == {"a": ["1", "2"], "b": [f"x{delimiter}y", "z"]}
    assert told(found) == ([] if delimiter == "," else [("delimiter", 2)])


def test_decimal_commas_do_not_hide_semicolons() -> None:
    assert rows("a;b;c\n1,5;2,5;3\n4,5;6,5;7\n").table.column_names == ["a", "b", "c"]


def test_a_tsv_file_is_not_told_that_it_has_tabs() -> None:
    assert told(rows("a\tb\n1\t2\n", usual="\t")) == []


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends(end: str, last: bool) -> None:
    found = rows(end.join(["a,b", "1,2", "3,4"]) + end * last)
    assert found.table.to_pydict() == {"a": ["1", "3"], "b": ["2", "4"]}


def test_ragged_rows_are_set_aside_counted_and_located() -> None:
    found = rows("a,b\n" + "1,2\n" * 60 + "3\n" + "4,5,6\n" + "7,8\n")
    assert (found.in_file, found.set_aside, found.table.num_rows) == (63, 2, 61)
    assert told(found) == [("ragged_row", 2)]
    assert (
        found.findings[0].detail
        == "There are 2 of 63 rows with 1 or 3 fields (first: row 62, row 63; the header is row 1), where the header has 2."
    )


def test_too_many_ragged_rows_are_refused() -> None:
    message = r"got '2 of 12 rows with 3 fields \(first: row 3, row 4; the header is row 1\)'; expected 2 fields as in the header; quote values that hold the delimiter"
    with pytest.raises(DataError, match=message):
        rows("a,b\n1,2\n1,2,3\n1,2,3\n" + "1,2\n" * 9)
    with pytest.raises(DataError, match="1 or 3 or 4 or more fields"):
        rows("a,b\n1,2\n1\n1,2,3\n1,2,3,4\n1,2,3,4,5\n")


def test_blank_rows_are_counted() -> None:
    found = rows("a,b\n1,2\n\n,\n3,4\n\n")
    assert (found.in_file, found.set_aside, found.table.num_rows) == (5, 3, 2)
    assert told(found) == [("blank_row", 3)]


def test_line_breaks_within_quotes_are_one_value() -> None:
    found = rows('a,b\n"x\ny",2\n3,4\n')
    assert found.table["a"].to_pylist() == ["x\ny", "3"]
    assert told(found) == [("line_break", 1)]


def test_a_header_over_two_lines() -> None:
    assert rows('\n"a\nb",c\n1,2\n').table.to_pydict() == {"a\nb": ["1"], "c": ["2"]}


@pytest.mark.parametrize(("text", "row"), [('a,b\n1,"x\n3,4,5\n', 2), ('a,b\n1,2\n"x,2\n3,4,5\n', 3)])
def test_a_quote_that_never_closes_is_refused(text: str, row: int) -> None:
    message = rf"^f.csv: got 'a quotation mark that is never closed'; expected quoted values that end; look near row {row} of the file$"
    with pytest.raises(DataError, match=message):
        rows(text)


def test_a_quote_that_never_closes_is_text_where_every_row_then_has_its_fields() -> None:
    assert rows('a,b\n1,"x\n3,4\n').table.to_pydict() == {"a": ["1", "3"], "b": ['"x', "4"]}


def test_one_very_long_value() -> None:
    found = rows("a\tb\n1\t" + "x" * 200_000 + "\n2\ty\n", usual="\t")
    assert found.table.num_rows == 2


def test_quotation_marks_that_are_text() -> None:
    found = rows('a\tb\n1\t"he said\n2\tyes" and "no"\n', usual="\t")
    assert found.table["b"].to_pylist() == ['"he said', 'yes" and "no"']
    assert told(found) == [("quoting", 2)]


def test_a_quote_within_a_value_and_a_doubled_one() -> None:
    assert rows('a,b\n1,"x""y"\n5" pipe,6\n').table.to_pydict() == {"a": ["1", '5" pipe'], "b": ['x"y', "6"]}


@pytest.mark.parametrize("text", ["", "  \n\n "])
def test_an_empty_file(text: str) -> None:
    with pytest.raises(DataError, match=r"^f.csv: got 'an empty file'; expected a header and rows below it$"):
        rows(text)


@pytest.mark.parametrize("text", ["a,b", "a,b\n", "a,b\n,\n"])
def test_a_header_only(text: str) -> None:
    with pytest.raises(DataError, match=r"^f.csv: got 'a header without rows'; expected a header and rows below it$"):
        rows(text)


def test_a_header_that_cannot_be_read() -> None:
    with pytest.raises(
        DataError,
        match=r"^f.csv: got 'no readable header'; expected a first line with the columns' names; look for an unclosed quotation mark$",
    ):
        rows('"' + "a" * 200_000 + "\n1,2\n")


def test_a_row_longer_than_a_block() -> None:
    with pytest.raises(DataError, match=r"expected rows shorter than 32 MB; look for an unclosed quotation mark"):
        rows("a,b\n1," + "x" * (1 << 26) + "\n2,3\n")


def test_duplicate_names() -> None:
    with pytest.raises(
        DataError,
        match=r"^f.csv: got \"the column name 'a' 2 times\"; expected each name once; rename one, or add a line of names if the file has none$",
    ):
        rows("a, a ,b\n1,2,3\n")


def test_names_that_are_empty_are_numbered() -> None:
    found = rows(",unnamed_1,\n1,2,3\n4,5,6\n")
    assert found.table.column_names == ["unnamed_2", "unnamed_1", "unnamed_3"]
    assert told(found) == [("unnamed_column", 1), ("unnamed_column", 1)]


def test_row_names_without_a_header_of_their_own() -> None:
    assert rows('"a","b"\n"1",5,6\n"2",7,8\n').table.to_pydict() == {"unnamed_1": ["1", "2"], "a": ["5", "7"], "b": ["6", "8"]}


@pytest.mark.parametrize("text", ["a,b\n1,2,\n3,4,\n", "a,b,\n1,2,\n3,4,\n"])
def test_a_delimiter_at_the_end_of_each_line(text: str) -> None:
    found = rows(text)
    assert found.table.to_pydict() == {"a": ["1", "3"], "b": ["2", "4"]}
    assert found.findings[-1].detail == "The unnamed column 'unnamed_3' holds nothing: a delimiter stands at the end of each line."


def test_names_that_are_numbers_may_be_data() -> None:
    assert (
        rows("1,2.5\n3,4\n").findings[0].detail
        == "All column names are numbers (1, 2.5, …): if the first line is data, add a line of names above it."
    )


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\x1e"), max_size=8)


@given(st.lists(st.lists(cells, min_size=1, max_size=4), min_size=1, max_size=12), st.sampled_from(",;\t|"))
def test_every_row_of_a_written_file_is_accounted_for(table: list[list[str]], delimiter: str) -> None:
    table.insert(0, ["x", "y", "z"])
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(["a", "b", "c"])
    writer.writerows(table)
    whole = [row for row in table if len(row) == 3 and any(row)]
    blank = [row for row in table if len(row) == 3 and not any(row)]
    data = buffer.getvalue().encode()
    attempt = delimited._Attempt.of(data, delimiter, "f.csv", quoted=True)
    assert not attempt.unclosed
    assert attempt.rows == len(whole) + len(blank)
    assert len(attempt.ragged) == len(table) - attempt.rows
    if whole and len(attempt.ragged) <= delimited.MAX_RAGGED * len(table):
        found = attempt.accounted("f.csv", ())
        assert found.in_file == len(table) == found.table.num_rows + found.set_aside
        assert [list(row.values()) for row in found.table.to_pylist()] == whole
