"""The clock of a replay: what happened long ago is decided anew, in order, at the time of then.

A ledger is live, and its events bear the wall's time, or it is a replay, and they bear the time that it was told last. Which of the two
is settled when it is founded, and its id comes of that: neither is ever opened as the other.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from makegood.errors import DataError, Problem

_EPOCH, _US = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
BEGINNING = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _US
"""The first moment of the calendar, year 1, in microseconds since 1970: what a replay that was told no time has."""
END = (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC) - _EPOCH) // _US
"""The last one."""
_WORDS = "a time such as 2024-02-29T12:00:00Z, a date, or microseconds since 1970"


class Clock:
    """A time in microseconds since 1970, UTC, that goes forward when it is told to and not by itself; for several threads."""

    def __init__(self, at: int = BEGINNING) -> None:
        self._at = at
        self._lock = threading.Lock()

    def now_us(self) -> int:
        """Return the time that it was told last."""
        return self._at

    def advance(self, at: int) -> None:
        """Go forward to `at`, or stay there; raises `DataError` for an earlier time, or for none of the calendar.

        >>> clock = Clock()
        >>> clock.advance(86_400_000_000)
        >>> clock.now_us()
        86400000000
        """
        with self._lock:
            if not self._at <= at <= END:
                expected = f"{iso(self._at)} or later: the time of a replay goes forward" if at < self._at else f"a time up to {iso(END)}"
                raise DataError(Problem("at", iso(at), expected, "begin another replay for what came before" if at < self._at else ""))
            self._at = at


def iso(us: int) -> str:
    """Return a time in ISO 8601, UTC, to the microsecond where it has any; the number itself where the calendar has no such time.

    >>> iso(86_400_000_000), iso(-1), iso(2**62)
    ('1970-01-02T00:00:00Z', '1969-12-31T23:59:59.999999Z', '4611686018427387904')
    """
    return (_EPOCH + us * _US).isoformat().replace("+00:00", "Z") if BEGINNING <= us <= END else str(us)


def instant(said: object, where: str = "at") -> int:
    """Return a time in microseconds since 1970: of ISO 8601 (UTC where it has no zone; of a date, its first moment), or as it is.

    Raises `DataError` for what is no time.

    >>> instant("1970-01-02"), instant("1970-01-02T01:00:00.5+01:00"), instant(7)
    (86400000000, 86400500000, 7)
    """
    at = None
    if isinstance(said, int) and not isinstance(said, bool):
        at = said
    elif isinstance(said, str):
        try:
            read = datetime.fromisoformat(said)
            at = ((read if read.tzinfo else read.replace(tzinfo=UTC)) - _EPOCH) // _US
        except (ValueError, OverflowError):
            at = None
    if at is None or not BEGINNING <= at <= END:
        raise DataError(Problem(where, f"{said}"[:80], _WORDS, "write it in ISO 8601; without a zone it is UTC"))
    return at
