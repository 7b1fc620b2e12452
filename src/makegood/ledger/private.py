"""Private parts of events: which of them an erasure is about, archived events' included, and their destruction."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from makegood.ledger import schema


@dataclass(frozen=True)
class Erasure:
    """What is to be erased: all of a unit (its pseudonym), or one decision with what was said of it; the other is ""."""

    about: str = ""
    unit: str = ""


def private_ids(erasure: Erasure) -> sa.Select[tuple[str]]:
    """Return the query for the ids of private parts that an erasure is about, archived events' included."""
    p = schema.private.c
    tables = (schema.events.c, schema.archived.c)
    if erasure.about:
        said = [sa.select(t.id).where(t.about == erasure.about, t.about != "") for t in tables]
        return sa.select(p.id).where((p.id == erasure.about) | p.id.in_(sa.union_all(*said)))
    own = [sa.select(t.id).where(t.unit == erasure.unit, t.unit != "") for t in tables]
    decided = sa.union_all(*own).subquery()
    said = [sa.select(t.id).where(t.about.in_(sa.select(decided.c.id)), t.about != "") for t in tables]
    return sa.select(p.id).where(p.id.in_(sa.select(decided.c.id)) | p.id.in_(sa.union_all(*said)))


def destroy(connection: sa.Connection, erasure: Erasure) -> int:
    """Delete the private parts that an erasure is about, and return how many there were."""
    p = schema.private
    return connection.execute(p.delete().where(p.c.id.in_(private_ids(erasure)))).rowcount
