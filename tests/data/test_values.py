from __future__ import annotations

import math
from datetime import UTC, date, datetime

import pytest

from makegood.data import values


@pytest.mark.parametrize("text", ["", " ", "NA", "N/A", "null", "NULL", "nan", "?", "NaT", "#N/A"])
def test_markers_are_missing_in_every_column(text: str) -> None:
    assert values.is_missing(text, numeric=False)
    assert values.is_missing(text, numeric=True)


@pytest.mark.parametrize("text", ["-", ".", "—", "None", "unknown", "#DIV/0!"])
def test_some_markers_are_levels_where_the_others_are_no_numbers(text: str) -> None:
    assert values.is_missing(text, numeric=True)
    assert not values.is_missing(text, numeric=False)


@pytest.mark.parametrize(
    ("text", "style", "number"),
    [
        ("5", "plain", 5.0),
        (" -1.5e3 ", "plain", -1500.0),
        (".5", "plain", 0.5),
        ("€ 5", "plain", 5.0),
        ("12%", "plain", 12.0),
        ("1,234.5", "point", 1234.5),
        ("1234.5", "point", 1234.5),
        ("1'234", "point", 1234.0),
        ("1\u202f234", "point", 1234.0),
        ("1.234,5", "comma", 1234.5),
        ("0,5", "comma", 0.5),
        ("1,234.5", "plain", None),
        ("1.5", "comma", None),
        ("1_000", "plain", None),
        ("0x10", "plain", None),
        ("inf", "plain", None),
        ("twelve", "plain", None),
        ("１２", "plain", None),
        ("12 34", "point", None),
    ],
)
def test_numbers_in_text(text: str, style: str, number: float | None) -> None:
    assert values.number(text, style) == number


@pytest.mark.parametrize(
    ("text", "style", "when"),
    [
        ("2024-02-29", "year-month-day", datetime(2024, 2, 29, tzinfo=UTC)),
        ("2024-2-9 7:05", "year-month-day", datetime(2024, 2, 9, 7, 5, tzinfo=UTC)),
        ("2024/02/29T23:59:59.123456789Z", "year-month-day", datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC)),
        ("2024-02-29 01:00:00+02:00", "year-month-day", datetime(2024, 2, 28, 23, tzinfo=UTC)),
        ("2024-02-29 01:00-0130", "year-month-day", datetime(2024, 2, 29, 2, 30, tzinfo=UTC)),
        ("31.12.1999", "day/month/year", datetime(1999, 12, 31, tzinfo=UTC)),
        ("12/31/1999 12:30 AM", "month/day/year", datetime(1999, 12, 31, 0, 30, tzinfo=UTC)),
        ("12/31/1999 12:30 pm", "month/day/year", datetime(1999, 12, 31, 12, 30, tzinfo=UTC)),
        ("19991231", "yearmonthday", datetime(1999, 12, 31, tzinfo=UTC)),
        ("5-JAN-2020", "day month year", datetime(2020, 1, 5, tzinfo=UTC)),
        ("5 March 2020", "day month year", datetime(2020, 3, 5, tzinfo=UTC)),
        ("2020年1月5日", "年月日", datetime(2020, 1, 5, tzinfo=UTC)),
        ("0001-01-01", "year-month-day", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_dates_in_text(text: str, style: str, when: datetime) -> None:
    us = values.date_us(text, style)
    assert us == round((when - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 1_000_000 + when.microsecond


@pytest.mark.parametrize(
    ("text", "style"),
    [
        ("2023-02-29", "year-month-day"),
        ("31/04/2020", "day/month/year"),
        ("5-XXX-2020", "day month year"),
        ("1/2/2020 13:00 PM", "day/month/year"),
        ("2020-01-01 25:00", "year-month-day"),
        ("2020-01", "year-month-day"),
    ],
)
def test_what_looks_like_a_date_and_is_none(text: str, style: str) -> None:
    assert values.date_us(text, style) is None


def test_served_moments() -> None:
    day = 86_400_000_000
    assert values.moment_us("1970-01-02", "day/month/year") == day, "a client may always write ISO 8601"
    assert values.moment_us(datetime(1970, 1, 2), "year-month-day") == day, "naive means UTC"
    assert values.moment_us(date(1970, 1, 2), "年月日") == day
    assert values.moment_us(19700102.0, "yearmonthday") == day
    assert values.moment_us(19700102, "year-month-day") is None
    assert values.moment_us(True, "yearmonthday") is None
    assert values.moment_us(math.inf, "yearmonthday") is None
    assert values.moment_us([], "yearmonthday") is None


def test_canonical_texts() -> None:
    assert values.text_of(2**60) == str(2**60)
    assert values.text_of(1e20) == "1e+20"
    assert values.text_of(date(2020, 1, 2)) == "2020-01-02"
    assert values.text_of(10**5000) is None
    assert values.text_of(b"bytes") is None
    assert values.text_of(None) is None
