"""Where events wait when the database is away: a file of framed records, on the disk before anybody is answered.

A record is its length and its CRC-32, four bytes each, and an event as msgpack. What a crash leaves of a record that was never
acknowledged is cut off when the file is opened; it goes to PATH.torn, for a record that is damaged otherwise may have others after it.
Several processes may name one path: each takes the first of PATH, PATH.1, PATH.2… that no other holds.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from makegood.errors import LedgerError, Problem
from makegood.ledger.events import Event, Receipt, Stored

if os.name == "posix":
    import fcntl

NOWHERE = -1
"""The partition of what is not in the ledger yet."""
LIMIT = 256 * 2**20
"""The largest file, in bytes; its events are in memory as well."""

_LOG = logging.getLogger("makegood.ledger")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Event).decode


class Spool:
    """A file that one process appends to, of at most `limit` bytes; `len` counts its events, `why` says why it takes no more ever."""

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self._limit, self.why = limit, ""
        self._events: dict[str, Event] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path, self._file = _claimed(path)
            try:
                self._size = self._read()
                _sync_folder(path.parent)
            except OSError:
                os.close(self._file)
                raise
        except OSError as error:
            mend = "free its disk or mend its permissions"
            raise LedgerError(Problem("spool", f"{path}: {error.strerror}", "a file that can be written", mend)) from None

    def _read(self) -> int:
        """Read the events, cut off what is no record, and return how many bytes are left."""
        with os.fdopen(os.dup(self._file), "rb") as file:
            data = file.read()
        whole = 0
        for event, end in _records(data):
            self._events[event.id] = event
            whole = end
        if torn := data[whole:].rstrip(b"\0"):
            kept = self.path.with_name(f"{self.path.name}.torn")
            _LOG.warning("%s ends in %d bytes that are no whole record; they are in %s", self.path, len(torn), kept)
            with kept.open("ab") as file:
                file.write(torn)
                file.flush()
                os.fsync(file.fileno())
        self._cut(whole)
        os.fsync(self._file)
        return whole

    def _cut(self, size: int) -> None:
        os.ftruncate(self._file, size)
        os.lseek(self._file, size, os.SEEK_SET)

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return iter(list(self._events.values()))

    def append(self, events: Sequence[Event]) -> list[Receipt]:
        """Return what became of events, each on the disk now, or there already; raises `LedgerError` where that failed."""
        receipts: list[Receipt] = []
        fresh: dict[str, Event] = {}
        for event in events:
            there = self._events.get(event.id) or fresh.get(event.id)
            if there is None:
                fresh[event.id] = event
                receipts.append(Receipt(event.id, "new"))
            else:
                same = there.request == event.request
                receipts.append(Receipt(event.id, "same" if same else "conflict", Stored(there, NOWHERE, 0, b"", b"")))
        self._write(b"".join(map(_framed, fresh.values())))
        self._events |= fresh
        return receipts

    def _write(self, data: bytes) -> None:
        if self.why:
            raise _refusal(self.why)
        if self._size + len(data) > self._limit:
            raise _refusal(f"it holds {self._size:,} bytes, of {self._limit:,} that it may")
        try:
            rest = data
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:  # nothing is lost: what there is of it goes again
            try:
                self._cut(self._size)
            except OSError as second:
                self.why = str(second.strerror)
            raise _refusal(str(error.strerror)) from None
        try:
            os.fsync(self._file)
        except OSError as error:  # what is on the disk is in doubt, and a second fsync would not tell
            self.why = str(error.strerror)
            raise _refusal(self.why) from None
        self._size += len(data)

    def clear(self) -> None:
        """Empty the file, durably: all that it held is in the ledger. Where that fails it is replayed again, which changes nothing."""
        try:
            self._cut(0)
            os.fsync(self._file)
        except OSError as error:
            self.why = str(error.strerror)
        self._size = 0
        self._events.clear()

    def close(self) -> None:
        """Let the file go."""
        os.close(self._file)


def _claimed(path: Path) -> tuple[Path, int]:
    named, number = path, 0
    while True:
        file = os.open(named, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.name == "posix":
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            number += 1
            named = path.with_name(f"{path.name}.{number}")
        else:
            return named, file


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refusal(why: str) -> LedgerError:
    got = f"the database is away, and the spool failed: {why}"
    return LedgerError(Problem("ledger", got, "a database, or a spool that can be written", "bring the database back"))


def _framed(event: Event) -> bytes:
    data = _encode(event)
    return len(data).to_bytes(4, "big") + zlib.crc32(data).to_bytes(4, "big") + data


def _records(data: bytes) -> Iterator[tuple[Event, int]]:
    """Yield each whole record's event, and where the record ends; stop at the first that is not whole."""
    at = 0
    while at + 8 <= len(data):
        size, check = int.from_bytes(data[at : at + 4], "big"), int.from_bytes(data[at + 4 : at + 8], "big")
        body = data[at + 8 : at + 8 + size]
        if not size or len(body) < size or zlib.crc32(body) != check:
            return
        at += 8 + size
        yield _decode(body), at
