"""A ledger's identity: made once with its tables, and checked whenever it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from makegood.errors import LedgerError, Problem
from makegood.ledger import chain, schema

SETTINGS = ("version", "ledger", "salt")


@dataclass(frozen=True)
class Identity:
    """What a ledger is called, and the salt of its pseudonyms."""

    ledger: str
    salt: str


def founded(connection: sa.Connection) -> Identity:
    """Return the identity of the ledger at a connection, whose tables are made where there are none, in the transaction at hand.

    Raises `LedgerError` where the ledger is of another version.
    """
    if sa.inspect(connection).has_table(schema.meta.name):
        identity(_settings(connection))  # another version's tables stay as they are
    schema.metadata.create_all(connection)
    found = _settings(connection)
    if not found:
        salt = chain.salted().hex() + chain.salted().hex()
        found = {"version": str(schema.VERSION), "ledger": chain.named(salt), "salt": salt}
        connection.execute(schema.meta.insert(), [{"name": name, "value": value} for name, value in found.items()])
    return identity(found)


def _settings(connection: sa.Connection) -> dict[str, str]:
    return {str(name): str(value) for name, value in connection.execute(sa.select(schema.meta))}


def identity(found: Mapping[str, str]) -> Identity:
    """Return the identity that the rows of `makegood_meta` tell; raises `LedgerError` for another version, or where they are not whole."""
    if missing := [name for name in SETTINGS if name not in found]:
        raise LedgerError(Problem("ledger", f"no {', '.join(missing)} in makegood_meta", "a whole ledger", "restore it from a copy"))
    if found["version"] != str(schema.VERSION):
        mend = "use the version of makegood that wrote it, or start a new ledger"
        raise LedgerError(Problem("ledger", f"version {found['version']}", f"version {schema.VERSION}", mend))
    if found["ledger"] != chain.named(found["salt"]):
        raise LedgerError(Problem("ledger", f"the id {found['ledger']}", "the one that its salt gives", "restore it from a copy"))
    return Identity(found["ledger"], found["salt"])
