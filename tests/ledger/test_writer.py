"""The queue before a ledger: what is committed together, in which order, and when it gives up on a connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from makegood.errors import DataError, LedgerError
from makegood.ledger.events import Event, Receipt, micro, request_hash
from makegood.ledger.founding import Identity
from makegood.ledger.partition import After
from makegood.ledger.store import Ledger
from makegood.ledger.writer import ATTEMPTS, Writer


def event(id: str) -> Event:
    """Return a decision."""
    return Event(id, "decision", "loans", "", "", 7, request_hash(id.encode()), b"{}")


def test_work_on_the_tables_keeps_its_place_in_the_queue(tmp_path: Path) -> None:
    held, go = threading.Event(), threading.Event()
    order: list[str] = []

    def noted(name: str) -> Callable[[list[Receipt] | LedgerError], None]:
        return lambda told: order.append(f"{name}: {len(told) if isinstance(told, list) else told}")

    def holds(connection: sa.Connection, write: object) -> None:
        held.set()
        assert go.wait(30)

    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as ledger:
        first = threading.Thread(target=ledger.maintain, args=(holds,))
        first.start()
        assert held.wait(30)
        ledger.submit([event(f"a{i}") for i in range(300)], noted("a"))
        ledger.submit([event(f"b{i}") for i in range(300)], noted("b"))
        seen: list[int] = []
        second = threading.Thread(
            target=ledger.maintain,
            args=(lambda connection, write: seen.append(connection.scalar(sa.text("SELECT count(*) FROM makegood_events"))),),
        )
        second.start()
        while len(ledger._writer._waiting) < 3:
            time.sleep(0.001)
        ledger.submit([event("c")], noted("c"))
        go.set()
        first.join(30)
        second.join(30)
    assert order == ["a: 300", "b: 300", "c: 1"]
    assert ledger.state.commits == 3, "600 events are more than one commit takes"
    assert seen == [600], "what was queued before is there, what was queued after is not"


@dataclass
class Torn:
    """A partition whose every write ends its connection."""

    number: int = 0
    seq: int = 0
    writes: int = 0

    def write(self, events: Sequence[Event]) -> list[Receipt]:
        """Lose the connection."""
        self.writes += 1
        raise sa.exc.OperationalError("INSERT", {}, ConnectionResetError("gone"), connection_invalidated=True)


class Flapping:
    """A server that can always be reached again, and never for long."""

    identity = Identity("a ledger", "a salt")

    def __init__(self) -> None:
        self.partition = Torn()

    def after(self, error: sa.exc.DBAPIError) -> After:
        """Try again."""
        return "reopen"

    def reopen(self) -> None:
        """Reach it."""

    def forget(self) -> None:
        """Nothing to forget."""

    def close(self) -> None:
        """Nothing to close."""

    release = close


def test_a_connection_that_is_lost_again_and_again_is_given_up_for_now() -> None:
    home = Flapping()
    writer = Writer(home, 10, None)  # type: ignore[arg-type]  # a partition by its names
    answers: list[list[Receipt] | LedgerError] = []
    over = threading.Event()

    def done(told: list[Receipt] | LedgerError) -> None:
        answers.append(told)
        over.set()

    writer.submit([event("a")], done)
    assert over.wait(30)
    assert isinstance(answers[0], LedgerError)
    assert "the connection was lost again and again" in str(answers[0])
    assert home.partition.writes == ATTEMPTS
    assert (writer.state.ok, writer.state.why) == (False, "the connection was lost again and again")
    writer.close()


@pytest.mark.parametrize("amount", [1e13, float("nan"), float("-inf")])
def test_money_that_no_ledger_can_hold_is_refused(amount: float) -> None:
    with pytest.raises(DataError, match=r"expected a number of at most 9.2e\+12; declare payoffs in a larger unit"):
        micro(amount)
