from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makegood.data import values
from makegood.data.parsing import Typed, as_trained, typed


def parse(*texts: str | None) -> Typed:
    return typed("x", pa.chunked_array([pa.array(texts, pa.string())]))


def told(done: Typed) -> list[tuple[str, int, str]]:
    return [(f.kind, f.count, f.severity) for f in done.findings]


def test_whole_and_decimal_numbers() -> None:
    assert parse("1", " 2 ", "-3").column.type == pa.int64()
    assert parse("1", "2.5", "1e3").column.to_pylist() == [1.0, 2.5, 1000.0]


def test_markers_are_missing_and_counted() -> None:
    done = parse("1", "?", "NA", "", "?")
    assert done.column.to_pylist() == [1, None, None, None, None]
    assert done.findings[0].detail == "In 'x' these texts were read as missing values: '?' (2), 'NA' (1)."
    assert done.findings[0].count == 3


def test_a_dash_is_missing_among_numbers_and_a_level_among_texts() -> None:
    assert parse("1", "2", "-").column.to_pylist() == [1.0, 2.0, None]
    assert told(parse("1", "2", "-")) == [("missing_marker", 1, "note")]
    assert parse("+", "-", "+").column.to_pylist() == ["+", "-", "+"]


def test_stray_text_in_a_column_of_numbers_is_missing_counted_and_named() -> None:
    done = parse(*["1.5"] * 40, "oops", "tba")
    assert done.column.null_count == 2
    assert done.findings[0].detail == "Column 'x' holds numbers; 2 other values were read as missing, such as 'oops', 'tba'."
    assert told(done) == [("mixed_type", 2, "warning")]


def test_too_many_strays_leave_the_column_text() -> None:
    done = parse("1", "2", "3", "3+")
    assert done.column.to_pylist() == ["1", "2", "3", "3+"]
    assert done.findings[0].detail == "Column 'x' mixes numbers (3 values) with text such as '3+'; it was kept as text."


@pytest.mark.parametrize("texts", [("007", "123"), ("12", "1234567890123456"), ("0x1F", "0x2A"), ("00", "1.5")])
def test_codes_of_digits_stay_text(texts: tuple[str, ...]) -> None:
    done = parse(*texts)
    assert done.column.to_pylist() == list(texts)
    assert not done.findings


@pytest.mark.parametrize(
    ("texts", "numbers", "style", "severity"),
    [
        (("1.234,5", "7", "0,25"), [1234.5, 7.0, 0.25], "comma", "note"),
        (("1,234.5", "7", "0.25"), [1234.5, 7.0, 0.25], "point", "note"),
        (("1 234", "5"), [1234.0, 5.0], "point", "note"),
        (("1,234", "5,678"), [1234.0, 5678.0], "point", "warning"),
        (("€ 5", "7.5 €"), [5.0, 7.5], "", "note"),
        (("12%", "3.5%"), [12.0, 3.5], "", "note"),
    ],
)
def test_numbers_with_separators_and_signs(texts: tuple[str, ...], numbers: list[float], style: str, severity: str) -> None:
    done = parse(*texts)
    assert done.column.to_pylist() == numbers
    assert done.style == style
    assert [f.kind for f in done.findings] == ["number_format"]
    assert done.findings[0].severity == severity


def test_number_format_says_what_was_read_and_what_is_in_doubt() -> None:
    assert parse("1.234,5", "7").findings[0].detail == "Numbers in 'x' are written such as '1.234,5', which was read as 1234.5."
    assert (
        parse("1,234", "5").findings[0].detail.endswith("nothing in the column tells whether the comma groups thousands or marks decimals.")
    )


@pytest.mark.parametrize(
    ("texts", "first", "style"),
    [
        (("2024-01-31", "2024-02-01"), datetime(2024, 1, 31), "year-month-day"),
        (("2024-01-31T10:00:00Z", "2024-02-01T10:00:00+02:00"), datetime(2024, 1, 31, 10), "year-month-day"),
        (("2024-1-31", "2024-02-01"), datetime(2024, 1, 31), "year-month-day"),
        (("31/01/2024", "1/2/2024"), datetime(2024, 1, 31), "day/month/year"),
        (("1/31/2024 3:04 PM", "2/1/2024 3:04 AM"), datetime(2024, 1, 31, 15, 4), "month/day/year"),
        (("31-Jan-2024", "1-Feb-2024"), datetime(2024, 1, 31), "day month year"),
        (("2024年1月31日", None), datetime(2024, 1, 31), "年月日"),
        (("20240131", "20240201", "20240202", "20240203", "20240204"), datetime(2024, 1, 31), "yearmonthday"),
    ],
)
def test_dates(texts: tuple[str | None, ...], first: datetime, style: str) -> None:
    done = parse(*texts)
    assert done.column[0].as_py() == first
    assert done.style == style
    assert not done.findings


def test_dates_that_do_not_tell_day_from_month() -> None:
    done = parse("01/02/2024", "03/04/2024")
    assert done.column[0].as_py() == datetime(2024, 2, 1)
    assert (
        done.findings[0].detail
        == "Dates in 'x' such as '01/02/2024' were read as day/month/year: nothing in the column tells day from month."
    )
    assert told(done) == [("ambiguous_date", 2, "warning")]


def test_stray_text_among_dates() -> None:
    done = parse(*["2024-01-31"] * 30, "2024-01-30", "soon", "-")
    assert done.column.null_count == 2
    assert told(done) == [("missing_marker", 1, "note"), ("mixed_type", 1, "warning")]


@pytest.mark.parametrize("texts", [("20240131", "20240201"), ("20240131", "20240201", "20240202", "20240203", "20241399")])
def test_whole_numbers_that_only_resemble_dates(texts: tuple[str, ...]) -> None:
    assert parse(*texts).column.to_pylist() == [int(t) for t in texts]


@pytest.mark.parametrize("texts", [("a b", "c"), ("10:30", "11:45"), ("2024-01", "2024-02"), ("true", "false"), ("٣", "١")])
def test_text_stays_text(texts: tuple[str, ...]) -> None:
    assert parse(*texts).column.to_pylist() == list(texts)


def test_nothing_but_missing_values() -> None:
    done = parse("", "NA", None)
    assert done.column.null_count == 3
    assert done.column.type == pa.string()


def test_scoring_trusts_training_not_the_few_values_at_hand() -> None:
    texts = pa.chunked_array([["1", " 2", ""]])
    assert as_trained(texts, plain=True).to_pylist() == [1.0, 2.0, None]
    assert as_trained(texts, plain=False).to_pylist() == ["1", " 2", ""]
    assert as_trained(pa.chunked_array([["1", "x"]]), plain=True).to_pylist() == ["1", "x"]


@given(st.lists(st.floats(-1e12, 1e12, allow_subnormal=False), min_size=3, max_size=20), st.sampled_from(["comma", "point"]))
def test_a_column_and_a_served_text_are_read_alike(numbers: list[float], style: str) -> None:
    texts = [f"{x:,.2f}" for x in (*numbers, 1234567.25)]
    if style == "comma":
        texts = [t.translate(str.maketrans(",.", ".,")) for t in texts]
    done = parse(*texts)
    assert done.style == style
    assert done.column.to_pylist() == [values.number(t, style) for t in texts]


@given(st.lists(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), min_size=1, max_size=10), st.sampled_from(["T", " "]))
def test_the_fast_parser_of_iso_dates_agrees_with_the_served_one(moments: list[datetime], gap: str) -> None:
    texts = [m.isoformat(gap) for m in moments]
    column = parse(*texts).column
    assert column.cast(pa.int64()).to_pylist() == [values.date_us(t, "year-month-day") for t in texts]
