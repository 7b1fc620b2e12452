"""Keys of the service: who may ask, for what, and how much.

A key is 256 random bits, shown once. The file holds its SHA-256 alone, which is enough: nobody can try 2²⁵⁶ of them, so there is
nothing to slow down by a password's hash. The file is looked at with every request: a new key, or one that is revoked, counts at once.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from makegood.errors import CaseError, DataError, Problem, nearest
from makegood.serving.problems import Trouble

SCOPES = ("decide", "observe", "admin")
FILE = "keys.json"
_FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOKEN = re.compile(rb"[Bb]earer (mg_[A-Za-z0-9_-]{43})")
_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)/(s|min|h)")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Key:
    """Who asks: `rate` is how many rows a second it may ask about, None where there is no bound."""

    name: str
    scopes: tuple[str, ...] = SCOPES
    rate: float | None = None


LOCAL = Key("local")
"""Whoever is on this machine, where there are no keys."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key as the file holds it: `sha256` of the token, in hexadecimal, and `rate` as it was written, such as 100/s."""

    name: str
    sha256: str
    scopes: tuple[str, ...]
    created: str
    rate: str = ""

    @property
    def key(self) -> Key:
        """The key as requests know it."""
        return Key(self.name, self.scopes, rate_of(self.rate) if self.rate else None)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    keys: tuple[Entry, ...]


def rate_of(text: str) -> float:
    """Return rows a second; raises `CaseError`.

    >>> rate_of("100/s"), rate_of("90/min")
    (100.0, 1.5)
    """
    match = _RATE.fullmatch(text)
    rate = float(match[1]) / _SECONDS[match[2]] if match else 0.0
    if rate <= 0:
        raise CaseError(Problem("--rate", text, "rows in a time, such as 100/s, 6000/min or 500000/h", "leave it out for no bound"))
    return rate


class Keyring:
    """The keys of a file, as they are now. Without a file there are none to ask for: then `key` grants `LOCAL` everything.

    Once a file was there, keys are asked for even when it is gone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._entries: list[tuple[bytes, Key]] | None = None

    @classmethod
    def open(cls, path: Path) -> Keyring:
        """Return the keys of a file; raises `DataError` where there is one that cannot be read."""
        ring = cls(path)
        ring._look()
        return ring

    def __len__(self) -> int:
        return len(self._entries or ())

    def key(self, authorization: bytes | None, scope: str) -> Key:
        """Return whose key an Authorization header holds.

        Raises `Trouble`: 401 where it holds none of ours, 403 where the key may not do what `scope` says, 503 where keys cannot be read.
        """
        try:
            self._look()
        except DataError:
            raise Trouble(503, "The service's keys cannot be read", retry_after_s=5) from None
        if self._entries is None:
            return LOCAL
        match = _TOKEN.fullmatch(authorization or b"")
        digest = hashlib.sha256(match[1] if match else b"").digest()
        found = None
        for known, key in self._entries:  # each of them, whichever it is: the time tells nothing
            if hmac.compare_digest(known, digest):
                found = key
        if found is None:
            raise Trouble(401, "Send a key of this service: Authorization: Bearer mg_…" if match is None else "This key is not known here")
        if scope not in found.scopes:
            raise Trouble(403, f"The key {found.name} has the scope {', '.join(found.scopes)}; this needs {scope}")
        return found

    def _look(self) -> None:
        """Read the file again if it is another than the one that was read."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            if self._entries is not None:
                self._seen, self._entries = None, []
            return
        except OSError as error:
            raise _unreadable(self.path, error.strerror or "cannot be read") from None
        now = (status.st_mtime_ns, status.st_ino, status.st_size)
        if now != self._seen:
            self._entries = [(bytes.fromhex(entry.sha256), entry.key) for entry in listed(self.path)]
            self._seen = now


def listed(path: Path) -> tuple[Entry, ...]:
    """Return the keys of a file, () where there is none; raises `DataError` where it cannot be read."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _unreadable(path, error.strerror or "cannot be read") from None
    try:
        file = msgspec.json.decode(data, type=_File)
        for entry in file.keys:
            if len(bytes.fromhex(entry.sha256)) != 32 or not _NAME.fullmatch(entry.name) or not set(entry.scopes) <= set(SCOPES):
                raise ValueError(f"the key {entry.name!r}")
            if entry.rate:
                rate_of(entry.rate)
    except (ValueError, CaseError) as error:
        raise _unreadable(path, f"{error}") from None
    if file.format != _FORMAT:
        raise _unreadable(path, f"format {file.format}")
    return file.keys


def create(path: Path, name: str, scopes: tuple[str, ...], rate: str = "") -> str:
    """Make a key and return its token, which is kept nowhere; raises `CaseError` where the name is taken or an argument is wrong."""
    if not _NAME.fullmatch(name):
        raise CaseError(Problem("--name", name, "1 to 64 of A-Z a-z 0-9 . _ -", "say who uses the key"))
    for scope in scopes:
        if scope not in SCOPES:
            raise CaseError(Problem("--scope", scope, f"some of {', '.join(SCOPES)}", nearest(scope, SCOPES)))
    if not scopes:
        raise CaseError(Problem("--scope", "", f"some of {', '.join(SCOPES)}", "such as --scope decide,observe"))
    if rate:
        rate_of(rate)
    token = "mg_" + secrets.token_urlsafe(32)
    with _changing(path) as entries:
        if name in (entry.name for entry in entries):
            raise CaseError(Problem("--name", name, "a name that no key has", "revoke that key first, or take another name"))
        made = datetime.now(UTC).isoformat(timespec="seconds")
        entries.append(Entry(name, hashlib.sha256(token.encode()).hexdigest(), tuple(s for s in SCOPES if s in scopes), made, rate))
    return token


def revoke(path: Path, name: str) -> None:
    """Take a key away; raises `CaseError` where there is none of that name."""
    with _changing(path) as entries:
        kept = [entry for entry in entries if entry.name != name]
        if len(kept) == len(entries):
            names = [entry.name for entry in entries]
            raise CaseError(Problem("NAME", name, f"one of {', '.join(names) or 'no keys at all'}", nearest(name, names)))
        entries[:] = kept


@contextmanager
def _changing(path: Path) -> Iterator[list[Entry]]:
    """Yield the keys of a file to be changed, one process at a time; the file is written whole, durably, for its owner's eyes alone."""
    import fcntl

    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            entries = list(listed(path))
            yield entries
            part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(_File(_FORMAT, tuple(entries)))))
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        got = error.strerror or "cannot be written"
        raise CaseError(Problem(str(path), got, "a folder that can be written to", "give another with --workspace")) from None


def _unreadable(path: Path, got: str) -> DataError:
    return DataError(
        Problem(str(path), got, "the keys of a service, as `makegood keys` writes them", "restore it from a copy, or remove it")
    )
