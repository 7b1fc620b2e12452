"""A ledger's identity: made once with its tables, and checked whenever it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from makegood.errors import LedgerError, Problem
from makegood.ledger import chain, schema

SETTINGS = ("version", "ledger", "salt")
CLOCK, REPLAYED = "clock", "replayed"
"""The name and the value of the setting that a replay has and a live ledger has not."""


@dataclass(frozen=True)
class Identity:
    """What a ledger is called, the salt of its pseudonyms, and whether it is a replay: then its clock is told the time."""

    ledger: str
    salt: str
    replayed: bool = False


def founded(connection: sa.Connection, *, replayed: bool = False) -> Identity:
    """Return the identity of the ledger at a connection, whose tables are made where there are none, in the transaction at hand.

    `replayed` says which kind is to be opened, or made. Raises `LedgerError` where the ledger is of the other, or of another version.
    """
    if sa.inspect(connection).has_table(schema.meta.name):
        there = identity(_settings(connection))  # another version's tables, and another kind's, stay as they are
        if there.replayed != replayed:
            raise _other(there)
    schema.metadata.create_all(connection)
    found = _settings(connection)
    if not found:
        salt = chain.salted().hex() + chain.salted().hex()
        found = {"version": str(schema.VERSION), "ledger": chain.named(salt, replayed=replayed), "salt": salt}
        found |= {CLOCK: REPLAYED} if replayed else {}
        connection.execute(schema.meta.insert(), [{"name": name, "value": value} for name, value in found.items()])
    return identity(found)


def _other(there: Identity) -> LedgerError:
    """Return the error for a ledger of the other kind: what is decided in earnest, and what is replayed, never lie together."""
    if there.replayed:
        return LedgerError(Problem("ledger", "a replay", "a live ledger", "open it as a replay, or name another"))
    return LedgerError(Problem("ledger", "a live ledger", "a replay, or no ledger yet", "name another: no replay goes into a live one"))


def _settings(connection: sa.Connection) -> dict[str, str]:
    return {str(name): str(value) for name, value in connection.execute(sa.select(schema.meta))}


def identity(found: Mapping[str, str]) -> Identity:
    """Return the identity that the rows of `makegood_meta` tell; raises `LedgerError` for another version, or where they are not whole."""
    if missing := [name for name in SETTINGS if name not in found]:
        raise LedgerError(Problem("ledger", f"no {', '.join(missing)} in makegood_meta", "a whole ledger", "restore it from a copy"))
    if found["version"] != str(schema.VERSION):
        mend = "use the version of makegood that wrote it, or start a new ledger"
        raise LedgerError(Problem("ledger", f"version {found['version']}", f"version {schema.VERSION}", mend))
    if (clock := found.get(CLOCK, "")) not in ("", REPLAYED):
        raise LedgerError(Problem("ledger", f"the clock {clock!r}", f"{REPLAYED!r}, or none", "restore it from a copy"))
    if found["ledger"] != chain.named(found["salt"], replayed=bool(clock)):
        raise LedgerError(Problem("ledger", f"the id {found['ledger']}", "the one that its salt gives", "restore it from a copy"))
    return Identity(found["ledger"], found["salt"], bool(clock))
