"""Erasure: the private parts of a person's decisions destroyed, and that on record.

What an event says of a person (inputs, reasons, notes) is not in the chain, only a salted commitment to it is; the row that holds the
part and its salt is deleted, its bytes are overwritten (secure_delete), and the log that still has them is emptied. The erasure is an
event, so that verification knows why the part is gone. All that is one transaction of the one writer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import sqlalchemy as sa

from makegood.errors import DataError, LedgerError, Problem
from makegood.ids import uuid7
from makegood.ledger.events import Erased, Event, encode, request_hash
from makegood.ledger.private import Erasure, destroy
from makegood.ledger.store import Ledger

Write = Callable[[Sequence[Event]], None]


def erase(ledger: Ledger, *, unit: str | None, decisions: Sequence[str], by: str, why: str = "") -> int:
    """Destroy the private parts of a unit's decisions, or of decisions by id and of what was said of them; return how many there were.

    `unit` is the id that decisions were asked with; `by` says on whose word, and both `by` and `why` are kept for ever. An erasure is
    written for each even if nothing is left to destroy: it was asked for. All happens in one transaction, or nothing does. Raises
    `DataError` where nothing is named, `LedgerError` where a decision is unknown or events still wait in the spool.
    """
    if not (unit or decisions) or not by:
        got = "no name" if unit or decisions else "neither a unit nor a decision"
        raise DataError(Problem("erasure", got, "whose data, and on whose word", "give --unit or --decision, and --by"))
    if spooled := ledger.state.spooled:
        raise LedgerError(Problem("erasure", f"{spooled} events in the spool", "none", "wait until the database has them"))
    wanted = [Erasure(unit=ledger.pseudonym(unit))] if unit else []
    wanted += [Erasure(about=id) for id in dict.fromkeys(decisions)]
    known = ledger.reader.events(decisions).keys() | ledger.reader.archived(decisions).keys()
    if unknown := [id for id in decisions if id not in known]:
        raise LedgerError(Problem("erasure", ", ".join(unknown), "decisions of this ledger", "nothing was erased"))

    def work(connection: sa.Connection, write: Write) -> int:
        counts = [destroy(connection, each) for each in wanted]
        bodies = [encode(Erased(by, n, why)) for n in counts]
        ids, at = uuid7(len(wanted)), ledger.now_us()
        write(
            [
                Event(id, "erasure", "", each.about, each.unit, at, request_hash(body), body)
                for id, each, body in zip(ids, wanted, bodies, strict=True)
            ]
        )
        return sum(counts)

    return ledger.maintain(work)
