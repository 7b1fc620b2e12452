"""What one value means: missing, a number, a truth, a date, a text.

Reading a file and reading a served row share these rules, so a value cannot mean one thing in training and another at the
service. Standard library only: a served bundle imports it.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Any

MISSING = frozenset(
    {"", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "<NA>", "NaN", "nan", "-nan", "NULL", "Null", "null", "NaT", "?"},
)
"""Texts that are a missing value in any column."""

MISSING_NUMBER = frozenset(
    {"-", "--", ".", "–", "—", "n.a.", "nil", "none", "missing", "unknown", "#div/0!", "#value!", "#ref!", "#num!"},
)
"""Texts (in lower case) that are a missing value where the other values are numbers or dates; elsewhere they are levels."""

TRUTHS = {"true": 1.0, "yes": 1.0, "y": 1.0, "t": 1.0, "false": 0.0, "no": 0.0, "n": 0.0, "f": 0.0}

# The same expressions run in RE2 over an Arrow column and in `re` over one served text: keep to what both understand.
_GAP = r"'’\x{00a0}\x{202f} "
_SIGN = r"^[+-]?"
AFFIX = r"^[€$£¥]\s*|\s*[€$£¥%]$"
STYLES = {
    "plain": (_SIGN + r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$", ""),
    "point": (_SIGN + r"([1-9][0-9]{0,2}([,GAP][0-9]{3})+|[0-9]+)(\.[0-9]+)?$".replace("GAP", _GAP), f"[,{_GAP}]"),
    "comma": (_SIGN + r"([1-9][0-9]{0,2}([.GAP][0-9]{3})+|[0-9]+)(,[0-9]+)?$".replace("GAP", _GAP), f"[.{_GAP}]"),
}
"""How numbers are written: style → (what such a number looks like, the separators to leave out). 1234.5, 1,234.5, 1.234,5"""

CODE = r"^[+-]?0[0-9xX]|^[+-]?[0-9]{16,}$"
"""A text of digits that is no amount: a leading zero, or more digits than a float64 holds."""

DATES = {
    "year-month-day": r"(?P<year>[0-9]{4})[-/.](?P<month>[0-9]{1,2})[-/.](?P<day>[0-9]{1,2})",
    "day/month/year": r"(?P<day>[0-9]{1,2})[-/.](?P<month>[0-9]{1,2})[-/.](?P<year>[0-9]{4})",
    "month/day/year": r"(?P<month>[0-9]{1,2})[-/.](?P<day>[0-9]{1,2})[-/.](?P<year>[0-9]{4})",
    "yearmonthday": r"(?P<year>(?:19|20)[0-9]{2})(?P<month>[0-9]{2})(?P<day>[0-9]{2})",
    "day month year": r"(?P<day>[0-9]{1,2})[- ](?P<month>[A-Za-z]{3,9})\.?[- ](?P<year>[0-9]{4})",
    "年月日": r"(?P<year>[0-9]{4})年(?P<month>[0-9]{1,2})月(?P<day>[0-9]{1,2})日",
}
"""How dates are written, each with an optional time of day and offset behind it."""

_TIME = (
    r"(?:[T ,]+(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]{1,9}))?)?"
    r"\s*(?P<half>[AaPp][Mm])?\s*(?P<zone>Z|UTC|[+-][0-9]{2}:?[0-9]{2})?)?"
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _python(pattern: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\x\{([0-9a-f]{4})\}", r"\\u\1", pattern))


_AFFIX = _python(AFFIX)
_NUMBERS = {name: (_python(shape), _python(drop) if drop else None) for name, (shape, drop) in STYLES.items()}
_DATES = {name: re.compile(shape + _TIME) for name, shape in DATES.items()}


def is_missing(text: str, numeric: bool) -> bool:
    """Return whether a text stands for a missing value, in a column of numbers or dates (`numeric`) or of anything else.

    >>> is_missing("-", numeric=True), is_missing("-", numeric=False), is_missing(" NA ", numeric=False)
    (True, False, True)
    """
    text = text.strip()
    return text in MISSING or (numeric and text.lower() in MISSING_NUMBER)


def number(text: str, style: str = "plain") -> float | None:
    """Return the number that a text holds, in the style of its column; None when it holds none.

    >>> number("1.234,5 €", "comma"), number("1,234.5", "point"), number("1e3"), number("twelve")
    (1234.5, 1234.5, 1000.0, None)
    """
    text = _AFFIX.sub("", text.strip())
    for name in ("comma",) if style == "comma" else ("plain", style):
        shape, separators = _NUMBERS[name]
        if shape.match(text):
            return float((separators.sub("", text) if separators else text).replace(",", "."))
    return None


def truth(text: str) -> float | None:
    """Return 1.0 for yes, true, y, t and 0.0 for no, false, n, f, in any case; None otherwise.

    >>> truth("Yes"), truth("f"), truth("maybe")
    (1.0, 0.0, None)
    """
    return TRUTHS.get(text.strip().lower())


def date_us(text: str, style: str) -> int | None:
    """Return the microseconds since 1970-01-01 UTC of a date written in a style of `DATES`; None when it is none.

    A date without an offset is taken as UTC; fractions of a second are cut after six digits.

    >>> date_us("1970-01-02", "year-month-day"), date_us("02/01/1970 01:00 PM", "day/month/year"), date_us("soon", "年月日")
    (86400000000, 133200000000, None)
    """
    match = _DATES[style].fullmatch(text.strip())
    if match is None:
        return None
    part = match.groupdict()
    hour, fraction, zone = int(part["hour"] or 0), (part["fraction"] or "")[:6], part["zone"]
    try:
        if part["half"]:
            if not 1 <= hour <= 12:
                return None
            hour = hour % 12 + (12 if part["half"].lower() == "pm" else 0)
        month = int(part["month"]) if part["month"].isdigit() else _MONTHS.index(part["month"][:3].lower()) + 1
        when = datetime(
            int(part["year"]), month, int(part["day"]), hour, int(part["minute"] or 0), int(part["second"] or 0),
            int(fraction.ljust(6, "0")), tzinfo=UTC,
        )  # fmt: skip
    except ValueError:
        return None
    us = _microseconds(when)
    if zone and zone[0] in "+-":
        minutes = int(zone[1:3]) * 60 + int(zone[-2:])
        us -= (minutes if zone[0] == "+" else -minutes) * 60_000_000
    return us


def _microseconds(when: datetime) -> int:
    """Return whole microseconds since 1970 (`timestamp()` would round through a float)."""
    span = (when if when.tzinfo else when.replace(tzinfo=UTC)) - _EPOCH
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds


def moment_us(value: Any, style: str) -> int | None:
    """Return the microseconds since 1970 of a served date: text, `date`, `datetime` or, in "yearmonthday", an integer.

    >>> moment_us(date(1970, 1, 2), "year-month-day"), moment_us(20200101, "yearmonthday"), moment_us(3.5, "年月日")
    (86400000000, 1577836800000000, None)
    """
    if isinstance(value, str):
        us = date_us(value, style)
        return date_us(value, "year-month-day") if us is None else us  # a client may always write ISO 8601
    if isinstance(value, datetime):
        return _microseconds(value)
    if isinstance(value, date):
        return _microseconds(datetime(value.year, value.month, value.day, tzinfo=UTC))
    if style == "yearmonthday" and isinstance(value, int | float) and 0 < value < 1e8:
        return date_us(f"{value:.0f}", style)
    return None


def text_of(value: Any) -> str | None:
    """Return the canonical text of a value, so that 1, 1.0 and "1" are one level; None when it is no single value.

    >>> text_of(1), text_of(1.0), text_of(" 1 "), text_of(0.5), text_of(True), text_of([1])
    ('1', '1', '1', '0.5', 'true', None)
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if value.bit_length() < 4096 else None  # str of a longer integer is refused by Python itself
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(float(value))
    if isinstance(value, date):
        return value.isoformat()
    return None
