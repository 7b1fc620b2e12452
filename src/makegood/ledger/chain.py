"""The hash chain of a partition: each event's hash covers all that it says and the hash before it.

The private part of an event is covered by a salted commitment, so that it can be erased and the chain still holds: without the salt,
which is erased with it, the commitment tells nothing.
"""

from __future__ import annotations

import hashlib
import os

from makegood.ledger.events import Event

SALT_BYTES = 16


def named(salt: str, *, replayed: bool = False) -> str:
    """Return the id of a ledger: it comes from the salt of its pseudonyms, so that the chain covers the salt as well.

    The id of a replay is another than that of a live ledger with the same salt, so that every hash tells which of the two it is.
    """
    kind = b"makegood replayed ledger id 1\0" if replayed else b"makegood ledger id 1\0"
    return hashlib.sha256(kind + salt.encode()).hexdigest()[:32]


def genesis(ledger: str, partition: int) -> bytes:
    """Return what the first event of a partition is chained to."""
    return hashlib.sha256(b"makegood ledger 1\0" + ledger.encode() + partition.to_bytes(8, "big")).digest()


def salted() -> bytes:
    """Return a fresh salt."""
    return os.urandom(SALT_BYTES)


def commitment(salt: bytes, private: bytes | None) -> bytes:
    """Return what the chain holds of a private part: SHA-256 of its salt and itself, b"" where there is none."""
    return b"" if private is None else hashlib.sha256(salt + private).digest()


def link(before: bytes, partition: int, seq: int, event: Event, committed: bytes) -> bytes:
    """Return the hash of an event at `seq` of a partition, after the event whose hash is `before`.

    Every field goes in with its length, so that no two events have the same bytes.
    """
    fields = (
        before,
        partition.to_bytes(8, "big"),
        seq.to_bytes(8, "big"),
        event.id.encode(),
        event.kind.encode(),
        event.case.encode(),
        event.about.encode(),
        event.unit.encode(),
        event.at.to_bytes(8, "big", signed=True),
        event.request,
        event.body,
        committed,
    )
    return hashlib.sha256(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).digest()
