"""Anchors: signed statements of what the heads of a ledger's partitions were, by which a tail cut off later is seen.

A hash chain shows any change but one: that its end is missing. An anchor says "at this time partition p had come to event n with this
hash", signed with Ed25519 (RFC 8032). They are appended to a file of lines beside the ledger; a copy of that file, and of the public
key, on another machine makes even its owner's rewriting visible.

FOLDER/anchor.key       the private key (PEM, readable by its owner alone), made at first use
FOLDER/anchor.pub       the public key, 64 hexadecimal digits
FOLDER/anchors.jsonl    one anchor a line
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import sqlalchemy as sa
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from makegood.errors import LedgerError, Problem
from makegood.ledger import schema, snapshot
from makegood.ledger.events import now_us

KEY, PUBLIC, LINES = "anchor.key", "anchor.pub", "anchors.jsonl"


class Head(NamedTuple):
    """The last event of a partition: its `seq`, which counts the partition's events, and its hash."""

    seq: int
    hash: bytes


class Anchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One signed head; `hash` and `signature` are hexadecimal, `at` is in microseconds since 1970, UTC."""

    ledger: str
    partition: int
    seq: int
    hash: str
    at: int
    signature: str = ""

    def said(self) -> bytes:
        """Return the bytes that are signed."""
        return b"makegood anchor 1\0" + msgspec.json.encode((self.ledger, self.partition, self.seq, self.hash, self.at))

    def is_signed_by(self, public: Ed25519PublicKey) -> bool:
        """Return whether the signature is that key's, over all that the anchor says."""
        try:
            public.verify(bytes.fromhex(self.signature), self.said())
        except (InvalidSignature, ValueError):
            return False
        return True


def heads(connection: sa.Connection) -> dict[int, Head]:
    """Return the last event of each partition, by one look at the primary key's index for each."""
    e, found = schema.events.c, dict[int, Head]()
    first = sa.select(sa.func.min(e.partition))
    partition = connection.scalar(first)
    while partition is not None:
        last = sa.select(e.seq, e.hash).where(e.partition == partition).order_by(e.seq.desc()).limit(1)
        found[partition] = Head(*connection.execute(last).one())
        partition = connection.scalar(first.where(e.partition > partition))
    return found


def public_key(path: Path) -> Ed25519PublicKey:
    """Return the key of a file such as anchor.pub; raises `LedgerError` where there is none."""
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(path.read_text(encoding="ascii").strip()))
    except (OSError, ValueError) as error:
        got = (error.strerror or "unreadable") if isinstance(error, OSError) else "no such key"
        raise LedgerError(Problem(str(path), got, "an Ed25519 public key, 64 hexadecimal digits", "give anchor.pub's copy")) from None


def lines(path: Path, size: int | None = None) -> Iterator[tuple[int, Anchor | None, bool]]:
    """Yield each line of the first `size` bytes of a file: its number, the anchor (None where it is none), whether the line has an end.

    A line without an end is what a crash leaves of one that was never acknowledged. A file that is not there has no lines.
    Raises `LedgerError` where it cannot be read.
    """
    try:
        opened = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise LedgerError(Problem(str(path), error.strerror or "unreadable", "a file of anchors")) from None
    with opened as file:
        for number, line in enumerate(file, 1):
            if size is not None and file.tell() > size:
                return
            try:
                yield number, msgspec.json.decode(line, type=Anchor), line.endswith(b"\n")
            except msgspec.DecodeError:
                yield number, None, line.endswith(b"\n")


class Anchors:
    """The anchors of one folder: its key, made at first use, and its lines.

    `public` is the public key, in hexadecimal. Several processes may write at once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = _key(folder / KEY)
        self.public = self._key.public_key().public_bytes_raw().hex()
        if not (folder / PUBLIC).exists():
            _write_new(folder / PUBLIC, f"{self.public}\n".encode(), 0o644)
        self._last: dict[int, Head] = {}

    def write(self, ledger: str, heads: Mapping[int, Head]) -> tuple[Anchor, ...]:
        """Sign the heads that are new since this object last did, append and fsync them; return the new anchors.

        `ledger` is the ledger's id. Raises `LedgerError` where the folder's anchors are another ledger's, or cannot be written.
        """
        fresh = {partition: head for partition, head in heads.items() if self._last.get(partition) != head}
        if not fresh:
            return ()
        at = now_us()
        unsigned = (Anchor(ledger, partition, head.seq, head.hash.hex(), at) for partition, head in sorted(fresh.items()))
        signed = tuple(msgspec.structs.replace(a, signature=self._key.sign(a.said()).hex()) for a in unsigned)
        path = self.folder / LINES
        first = next((anchor for _, anchor, _ in lines(path) if anchor), None)
        if first and first.ledger != ledger:
            got = f"anchors of ledger {first.ledger}"
            raise LedgerError(Problem(str(path), got, f"those of ledger {ledger}", "keep each ledger in a folder of its own"))
        try:
            _append(path, signed)
        except OSError as error:
            raise LedgerError(Problem(str(path), error.strerror or "cannot be written", "a file to append anchors to")) from None
        self._last.update(fresh)
        return signed


def _append(path: Path, anchors: Iterable[Anchor]) -> None:
    """Append lines in one write; what a crash left of a line is taken away before."""
    import fcntl

    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(max(0, file.tell() - 4096))  # a line is shorter
        tail = file.read()
        if torn := len(tail) - tail.rfind(b"\n") - 1:
            file.truncate(file.tell() - torn)
        file.write(b"".join(msgspec.json.encode(a) + b"\n" for a in anchors))
        file.flush()
        os.fsync(file.fileno())


def _key(path: Path) -> Ed25519PrivateKey:
    """Return the folder's private key; make it where there is none."""
    if not path.exists():
        made = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write_new(path, made, 0o600)
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError) as error:
        got = (error.strerror or "unreadable") if isinstance(error, OSError) else "not a key"
        raise LedgerError(Problem(str(path), got, "the Ed25519 key that signs anchors", "restore it from a copy")) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise LedgerError(Problem(str(path), "another kind of key", "the Ed25519 key that signs anchors", "restore it from a copy"))
    return key


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole, durably and with these rights, or leave the one that another process wrote first."""
    part = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)
        except FileExistsError:
            return
        finally:
            part.unlink()
    except OSError as error:
        raise LedgerError(Problem(str(path), error.strerror or "cannot be written", "a folder to keep the anchors' key in")) from None


def anchor(url: str, folder: Path | None = None) -> tuple[Anchor, ...]:
    """Sign the heads of a ledger as they are now, and return the anchors; a service may be writing to it.

    Raises `LedgerError` where it is a replay: it proves nothing of what was decided, and anchors beside it are those of a live ledger.
    """
    with snapshot.reading(url) as connection:
        if snapshot.replayed(connection):
            raise LedgerError(Problem("ledger", "a replay", "a live ledger", "nothing is anchored of a replay: replay it again"))
        ledger, now = snapshot.named(connection), heads(connection)
    return Anchors(folder or snapshot.folder(url)).write(ledger, now)
