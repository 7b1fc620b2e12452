"""A small ledger with everything in it, written without the writer: what a reader and a verifier must cope with.

Two partitions; every kind of event; decisions with and without private parts; outcomes before and after corrections; erasures of units
and of decisions; segments; anchors taken on the way and at the end. The rows are chained here from the definition of the chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa

from makegood.ledger import anchors, chain, retention, schema
from makegood.ledger.events import Alarmed, Decided, Erased, Event, Happened, Overridden, Private, Promoted, Shadow, encode, request_hash

SALT = "5eed" * 16
LEDGER = chain.named(SALT)
START = 1_750_000_000_000_000
STEP = 1_000_000


def decision(id: str, unit: str, at: int, *, private: bool = True, case: str = "credit-risk") -> Event:
    """Return a decision."""
    body = Decided(
        action="approve",
        promise=-16_000 if at % 2 else 2_500_000,
        unit="EUR",
        propensity=0.98,
        options=("approve", "decline"),
        propensities=(0.98, 0.02),
        predictive={"no": 0.91, "yes": 0.09},
        model="credit-risk@1a2b3c4d5e6f",
        model_hash="1a" * 32,
        case_hash="2b" * 32,
        guaranteed=-900_000,
        prediction_set=("no",),
        shadows=(Shadow("credit-risk@ffffffffffff", "decline", 0),),
    )
    said = Private({"amount": 5000 + at % 97, "name": f"Ada {id}"}, (("amount", "5000", -12.5),), ("months was missing",))
    return Event(id, "decision", case, "", unit, at, request_hash(id.encode()), encode(body), encode(said) if private else None)


def about(kind: str, id: str, decided: str, at: int, value: str | float = "yes") -> Event:
    """Return an outcome, a correction or an override of a decision."""
    if kind == "override":
        body: Overridden | Happened = Overridden("decline", "clerk 7", at, "the branch said no", 2.0)
    else:
        body = Happened(value, at - STEP, "core banking", -2_750_000, "EUR", "a typing error" if kind == "correction" else "")
    return Event(id, kind, "credit-risk", decided, "", at, request_hash(id.encode(), kind.encode()), encode(body))


def promotion(id: str, at: int, verb: str = "promote") -> Event:
    """Return a promotion; one that makes a champion rests on evidence."""
    proof: dict[str, str | int | float] = {"test": "betting", "evidence": 27.125, "limit": 20, "units": 5120} if verb == "promote" else {}
    body = Promoted(verb, "credit-risk@1a2b3c4d5e6f", "1a" * 32, "Grace", share=0.1 if verb == "canary" else None, evidence=proof)
    return Event(id, "promotion", "credit-risk", "", "", at, request_hash(id.encode()), encode(body))


def alarm(id: str, at: int) -> Event:
    """Return an alarm."""
    body = Alarmed("promise", "credit-risk@1a2b3c4d5e6f", "1a" * 32, 1234.5, 1000.0, at - STEP, 42, "it earns less than it promised")
    return Event(id, "alarm", "credit-risk", "", "", at, request_hash(id.encode()), encode(body))


def erasure(id: str, at: int, *, decided: str = "", unit: str = "", n: int = 1) -> Event:
    """Return an erasure of a decision's or a unit's private parts."""
    return Event(
        id, "erasure", "", decided, unit, at, request_hash(id.encode()), encode(Erased("the data protection officer", n, "asked to"))
    )


def story(partition: int, n: int) -> list[Event]:
    """Return the events of a partition: n decisions and what became of them."""
    at = START + partition * 137
    told = [promotion(f"p{partition}-promote", at), promotion(f"p{partition}-canary", at + STEP, "canary")]
    for i in range(n):
        at += 10 * STEP
        id = f"d{partition}.{i:04}"
        told.append(decision(id, f"{i % 5:032x}" if i % 3 else "", at, private=i % 4 != 3))
        if i % 2:
            told.append(about("outcome", f"outcome:{id}", id, at + 2 * STEP, "yes" if i % 4 == 1 else 12.5))
        if i % 6 == 1:
            told.append(about("correction", f"c{partition}.{i:04}", id, at + 3 * STEP, "no"))
        if i % 5 == 2:
            told.append(about("override", f"o{partition}.{i:04}", id, at + 4 * STEP))
        if i == n // 2:
            told.append(alarm("a1-later", at + 5 * STEP) if partition else promotion("p0-later", at + 5 * STEP))
    return told


def write(connection: sa.Connection, partition: int, events: Sequence[Event]) -> None:
    """Append events to a partition, chained; an erasure deletes what it is about."""
    head = anchors.heads(connection).get(partition, anchors.Head(0, chain.genesis(LEDGER, partition)))
    for seq, event in enumerate(events, head.seq + 1):
        salt = chain.salted()
        commitment = chain.commitment(salt, event.private)
        hash = chain.link(head.hash, partition, seq, event, commitment)
        head = anchors.Head(seq, hash)
        row = (
            partition,
            seq,
            event.id,
            event.kind,
            event.case,
            event.about,
            event.unit,
            event.at,
            event.request,
            event.body,
            commitment,
            hash,
        )
        connection.execute(schema.events.insert().values(row))
        if event.private is not None:
            connection.execute(schema.private.insert().values((event.id, salt, event.private)))
        if event.kind == "erasure":
            e = schema.events.c
            about = sa.select(e.id).where((e.unit == event.unit) if event.unit else (e.id == event.about))
            connection.execute(schema.private.delete().where(schema.private.c.id.in_(about)))


def build(folder: Path, n: int = 24, *, archived: bool = True, anchored: bool = True) -> Path:
    """Write a ledger of two partitions with n decisions each, its segments and its anchors; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "ledger.sqlite"
    fill(f"sqlite:///{path}", folder, n, archived=archived, anchored=anchored)
    return path


def fill(url: str, folder: Path, n: int, *, archived: bool = True, anchored: bool = True) -> None:
    """Write that ledger at a URL, and its files into a folder."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    signer = anchors.Anchors(folder) if anchored else None
    with engine.begin() as connection:
        schema.metadata.create_all(connection)
        meta = {"version": str(schema.VERSION), "ledger": LEDGER, "salt": SALT}
        connection.execute(schema.meta.insert(), [{"name": name, "value": value} for name, value in meta.items()])
        stories = {partition: story(partition, n) for partition in (0, 1)}
        for share in (0.5, 1.0):
            for partition, told in stories.items():
                write(connection, partition, told[int(len(told) * (share - 0.5)) : int(len(told) * share)])
            if signer:
                signer.write(LEDGER, anchors.heads(connection))
        end = START + 10 * STEP * (n + 1)
        write(connection, 0, [erasure("e-unit", end, unit=f"{1:032x}", n=4), erasure("e-decision", end + STEP, decided="d0.0004")])
        write(connection, 1, [decision("d1.last", f"{1:032x}", end + 600 * STEP), promotion("p1-last", end + 601 * STEP, "retire")])
        if archived:
            for run in list(retention.due(connection, START + 10 * STEP * (n // 3))):
                retention.take_out(connection, retention.write(connection, LEDGER, folder, run))
        if signer:
            signer.write(LEDGER, anchors.heads(connection))
    engine.dispose()
