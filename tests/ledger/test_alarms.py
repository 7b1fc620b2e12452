"""Alarms in the ledger: read back by case, in order of time, and part of the chain."""

from __future__ import annotations

from pathlib import Path

import msgspec

from makegood.ledger.events import Alarmed, Event, encode, request_hash
from makegood.ledger.store import Ledger
from makegood.ledger.verify import verify


def alarm(id: str, case: str, at: int, body: Alarmed) -> Event:
    data = encode(body)
    return Event(id, "alarm", case, "", "", at, request_hash(data), data)


def test_alarms_are_read_back_by_case_in_order_of_time_and_their_ledger_verifies(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    late = Alarmed("promise", "loans@0123456789ab", "ab" * 32, 1234.5, 1000.0, 5, 42, "it earns less than it promised")
    early = Alarmed("missing", "loans@0123456789ab", "ab" * 32, 30.0, 20.0, None, 7, "outcomes stay away", "Ada")
    with Ledger.open(url) as ledger:
        events = [alarm("late", "loans", 20, late), alarm("early", "loans", 10, early), alarm("other", "bakery", 15, late)]
        assert [receipt.state for receipt in ledger.append(events)] == ["new"] * 3
        found = ledger.reader.alarms("loans")
        assert [one.event.id for one in found] == ["early", "late"]
        assert [msgspec.json.decode(one.event.body, type=Alarmed) for one in found] == [early, late]
        assert ledger.reader.promotions("loans") == []
        assert ledger.append([alarm("late", "loans", 20, early)])[0].state == "conflict"
    assert verify(url, folder=tmp_path).ok
