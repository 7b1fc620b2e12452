"""What exploration has cost of late, as the ledger has it: never more is spent than a case allows, through restarts as well.

Each decision by which something was tried says in the ledger what it counts for. In no stretch of a period's length does that add up
to more than the budget. One process alone may spend: a ledger that several may write to is nobody's purse.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from makegood.errors import LedgerError
from makegood.ledger.events import MICRO, Receipt

if TYPE_CHECKING:
    from makegood.ledger.store import Ledger
    from makegood.monitoring.exploring import Exploration

_RETRY_S = 5.0  # after which a ledger that could not be read is tried again


class _Tried(msgspec.Struct):
    """Of a decision's body, what trying it counts for."""

    explored: int | None = None


_tried = msgspec.json.Decoder(_Tried).decode


def alone(ledger: Ledger) -> bool:
    """Return whether this process alone writes to the ledger, and so can know what was spent.

    A replay has one writer wherever it lies.
    """
    return ledger.replayed or ledger.url.startswith("sqlite:")


class Purse:
    """What was spent in the last period, by decision; money in millionths.

    What was spent before this process began is read in a thread of its own; until it is known, nothing is left. `pay` is called before
    decisions are handed to the ledger and `settle` with what became of them, so that a decision that may be durable always counts.
    """

    def __init__(self, ledger: Ledger, case: str) -> None:
        self._ledger, self._case = ledger, case
        self._lock = threading.Lock()
        self._spent: dict[str, tuple[int, int]] = {}  # by decision: when, and how much
        self._early: list[tuple[int, str]] = []  # the same decisions by time, a heap; what is not in `_spent` any more is passed over
        self._total = 0
        self._known_s = 0.0  # how much of the past is known
        self._reading: threading.Thread | None = None
        self._retry_at = 0.0

    def left(self, explored: Exploration) -> int:
        """Return what may be spent now; 0 as long as nobody knows."""
        if not alone(self._ledger):
            return 0
        now = self._ledger.now_us()
        since = now - int(explored.period_s * MICRO)
        with self._lock:
            if explored.period_s > self._known_s:
                self._look(explored.period_s, since)
                return 0
            self._known_s = explored.period_s
            while self._early and self._early[0][0] <= since:
                at, id = heapq.heappop(self._early)
                if self._spent.get(id, (None,))[0] == at:
                    self._drop(id)
            return max(0, int(explored.budget * MICRO) - self._total)

    def pay(self, costs: Iterable[tuple[str, int, int]]) -> list[str]:
        """Count decisions that are about to be handed to the ledger: id, time, cost; return the ids of those that were not counted yet."""
        fresh: list[str] = []
        with self._lock:
            for id, at, cost in costs:
                if id not in self._spent:
                    self._add(id, at, cost)
                    fresh.append(id)
        return fresh

    def settle(self, receipts: Iterable[Receipt]) -> None:
        """Take back what was counted for decisions that had been made before: what they cost then is what they cost."""
        if not self._spent:
            return
        with self._lock:
            for receipt in receipts:
                if receipt.first is not None and receipt.id in self._spent:
                    self._drop(receipt.id)
                    event = receipt.first.event
                    cost = _tried(event.body).explored if event.kind == "decision" else None
                    if cost is not None:
                        self._add(receipt.id, event.at, cost)

    def take_back(self, paid: Iterable[str]) -> None:
        """Take back what `pay` counted for decisions that were not handed over."""
        with self._lock:
            for id in paid:
                if id in self._spent:
                    self._drop(id)

    def _add(self, id: str, at: int, cost: int) -> None:
        self._spent[id] = at, cost
        self._total += cost
        heapq.heappush(self._early, (at, id))

    def _drop(self, id: str) -> None:
        self._total -= self._spent.pop(id)[1]

    # ------------------------------------------------------------------------------------------------------------- the past

    def _look(self, period_s: float, since: int) -> None:
        if self._reading is None and time.monotonic() >= self._retry_at:
            self._reading = threading.Thread(target=self._past, args=(period_s, since), name="purse", daemon=True)
            self._reading.start()

    def _past(self, period_s: float, since: int) -> None:
        """Read what was spent since then; of what this process decided meanwhile, whatever is not there yet was counted by `pay`."""
        found: list[tuple[str, int, int]] = []
        try:
            for id, at, body in self._ledger.reader.decided_since(self._case, since):
                cost = _tried(body).explored
                if cost is not None:
                    found.append((id, at, cost))
        except LedgerError:
            with self._lock:
                self._reading, self._retry_at = None, time.monotonic() + _RETRY_S
            return
        with self._lock:
            for id, at, cost in found:
                if id not in self._spent:
                    self._add(id, at, cost)
            self._known_s, self._reading = period_s, None
