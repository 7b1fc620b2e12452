"""The service's log: one JSON line a request, and one for whatever else happens, on stderr.

A line tells of a request who asked, for what, how it ended and how long that took; never a key, a password, or a value of a row. Of an
error that nobody foresaw it tells the kind and the lines of code, not the message, which could quote a value.

Lines are written by a thread, some 50 ms later and many at once: a full pipe behind stderr holds up nobody's answer. Killed with -9, the
service loses the last of them. They are for watching; what must be known for good is in the ledger.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

Level = Literal["info", "warning", "error"]
_EVERY_S = 0.05


class _Request(msgspec.Struct, gc=False):
    time: datetime
    level: Level
    id: str
    method: str
    path: str
    status: int
    ms: float
    rows: int
    key: str


class Log:
    """Lines to a file descriptor, stderr's unless another is given; when it takes none for so long that more than `most` would wait,
    they are counted instead."""

    def __init__(self, to: int = 2, most: int = 100_000) -> None:
        self._to, self._most = to, most
        self._encode = msgspec.json.Encoder().encode
        self._lines: deque[bytes] = deque()
        self._dropped = 0
        self._some = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)  # a reader that reads no more holds up no exit
        self._thread.start()

    def request(self, id: str, method: str, path: str, status: int, seconds: float, key: str, rows: int) -> None:
        """Tell of a request that ended; `path` is a route, in which ids are not written out; status 0 says that its client went away."""
        level: Level = "error" if status == 500 else "info"
        line = _Request(datetime.now(UTC), level, id, method[:16], path, status, round(seconds * 1e3, 3), rows, key)
        self._add(self._encode(line))

    def say(self, level: Level, event: str, facts: Mapping[str, Any] | None = None) -> None:
        """Tell of anything else that happened."""
        self._add(self._encode({"time": datetime.now(UTC), "level": level, "event": event, **(facts or {})}))

    def _add(self, line: bytes) -> None:
        if len(self._lines) >= self._most:
            self._dropped += 1
            return
        self._lines.append(line)
        if not self._some.is_set():
            self._some.set()

    def _write(self) -> None:
        while not self._closing:
            self._some.wait()
            if not self._closing:
                time.sleep(_EVERY_S)
            self._some.clear()
            self._pour()
        self._pour()

    def _pour(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            lines.append(self._encode({"time": datetime.now(UTC), "level": "warning", "event": "lines were dropped", "lines": dropped}))
        left = memoryview(b"".join(line + b"\n" for line in lines))
        while left:
            try:
                left = left[os.write(self._to, left) :]
            except BlockingIOError:
                time.sleep(_EVERY_S)
            except OSError:  # nobody reads it any more
                return

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what is left, as long as that takes no longer."""
        self._closing = True
        self._some.set()
        self._thread.join(timeout_s)

    def take_over(self) -> None:
        """Tell what the libraries below say by Python's `logging`, warnings and worse, in lines like our own."""
        bridge = _Bridge(self)
        logging.basicConfig(level=logging.WARNING, handlers=[bridge], force=True)


class _Bridge(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        facts: dict[str, Any] = {"logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            facts |= told(record.exc_info[1])
        self._log.say("error" if record.levelno >= logging.ERROR else "warning", record.getMessage().strip(), facts)


def told(error: BaseException) -> dict[str, Any]:
    """Return what the log may hold of an error: its kind and the lines of code, its cause's as well.

    >>> told(ValueError("4111 1111 1111 1111"))
    {'error': 'ValueError', 'at': []}
    """
    at = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return {"error": type(error).__name__, "at": at} | ({} if cause is None else {"cause": told(cause)})
