"""How the page says times: moments, ages, and the ticks of an axis of time. Times are microseconds since 1970, UTC."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from makegood.report import words

SECOND = 1_000_000
_START = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_STEPS = (1, 5, 15, _MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 7 * _DAY, 14 * _DAY)
_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120, 240, 600, 1200)
_MOST_TICKS = 5


def _time(at: float) -> datetime:
    return _START + timedelta(microseconds=round(at))


def day(at: float) -> str:
    """Return the day of a time.

    >>> day(1_772_546_400_000_000)
    '3 Mar 2026'
    """
    time = _time(at)
    return f"{time.day} {time:%b} {time.year}"


def moment(at: float) -> str:
    """Return a time to the minute.

    >>> moment(1_772_546_400_000_000)
    '3 Mar 2026 14:00 UTC'
    """
    return f"{day(at)} {_time(at):%H:%M} UTC"


def exact(at: float) -> str:
    """Return a time as machines write it (ISO 8601).

    >>> exact(1_772_546_400_000_000)
    '2026-03-03T14:00:00Z'
    """
    return _time(at).isoformat().replace("+00:00", "Z")


def age(seconds: float) -> str:
    """Return an age in the unit that suits it.

    >>> age(90), age(5400), age(86_400), age(30 * 86_400)
    ('1 min 30 s', '1 h 30 min', '1 day', '30 days')
    """
    if seconds < _DAY:
        return words.duration(seconds)
    days = seconds / _DAY
    return "1 day" if days == 1 else f"{words.number(days, 0 if days >= 10 or days == round(days) else 1)} days"


def ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return at most five round times from `low` to `high`, each with its text.

    >>> [text for _, text in ticks(1_767_225_600_000_000, 1_782_000_000_000_000)]
    ['Jan 2026', 'Mar 2026', 'May 2026']
    """
    span = (high - low) / SECOND
    step = next((s for s in _STEPS if span / s < _MOST_TICKS), None)
    if step is None:
        return _months(low, high)
    first, last = math.ceil(low / SECOND / step), math.floor(high / SECOND / step)
    return [(i * step * SECOND, _text(i * step * SECOND, step)) for i in range(first, last + 1)]


def _text(at: float, step: int) -> str:
    time = _time(at)
    if step >= _DAY:
        return f"{time.day} {time:%b}"
    if step < _MINUTE:
        return f"{time:%H:%M:%S}"
    return f"{time.day} {time:%b} {time:%H:%M}" if step >= _HOUR else f"{time:%H:%M}"


def _months(low: float, high: float) -> list[tuple[float, str]]:
    """Return firsts of months, or of years where there are many."""
    first, last = ((t.year * 12 + t.month - 1) for t in map(_time, (low, high)))
    step = next((m for m in _MONTHS if (last - first) / m < _MOST_TICKS), _MONTHS[-1])
    starts = [datetime(i // 12, i % 12 + 1, 1, tzinfo=UTC) for i in range(-(-first // step) * step, last + 1, step)]
    found = [(float((s - _START) // timedelta(microseconds=1)), s) for s in starts]
    return [(at, f"{s.year}" if step >= 12 else f"{s:%b} {s.year}") for at, s in found if low <= at <= high]
