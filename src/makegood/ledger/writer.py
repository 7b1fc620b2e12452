"""The writer of a ledger: one thread, and whatever is queued when the last commit returns is the next group.

Nothing is acknowledged before it is committed. A group that fails is acknowledged to nobody; after an error that leaves in doubt what
reached the disk, the writer stops, and a restart finds out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import sqlalchemy as sa

from makegood.errors import LedgerError, MakegoodError, Problem
from makegood.ledger.events import Event, Receipt, request_hash
from makegood.ledger.founding import Identity
from makegood.ledger.partition import After, Partition, Work
from makegood.ledger.reading import told
from makegood.ledger.spool import Spool

_LOG = logging.getLogger("makegood.ledger")
LOOK_S = 1.0
"""Between two looks for a database that is away."""
ATTEMPTS = 4
"""At one group, on connections that are lost one after another."""
AT_ONCE = ("promotion", "erasure")
"""The kinds of events that no spool takes."""
GROUP = 512
"""The most events of one commit, but for a longer submission, which is not split."""

Done = Callable[[list[Receipt] | LedgerError], None]


class LedgerBusy(LedgerError):
    """More events wait to be written than may."""


class Home(Protocol):
    """Where a partition lies."""

    @property
    def identity(self) -> Identity: ...

    @property
    def partition(self) -> Partition: ...

    def after(self, error: sa.exc.DBAPIError) -> After: ...

    def reopen(self) -> None: ...

    def forget(self) -> None: ...

    def close(self) -> None: ...

    def release(self) -> None: ...


@dataclass(frozen=True)
class State:
    """How a ledger does: whether it can be written, else why not; what waits, and what was done since it was opened."""

    ok: bool
    why: str
    queued: int
    spooled: int
    events: int
    commits: int
    last_commit_s: float


Group = list[tuple[Sequence[Event] | Work, Done]]
"""Submissions that are committed together, or one piece of work."""


class Writer:
    """The queue before a partition, and the thread that empties it; while the database is away, into the spool where there is one."""

    def __init__(self, home: Home, limit: int, spool: Spool | None) -> None:
        self._home, self._limit, self._spool = home, limit, spool
        self._ledger = home.identity.ledger
        self._waiting: deque[tuple[Sequence[Event] | Work, Done]] = deque()
        self._queued = self._events = self._commits = 0
        self._last_commit_s = 0.0
        self._why = ""  # the ledger cannot be written
        self._away = self._over = self._closing = False  # it may come back; it does not; it is not wanted any more
        self._tried = 0.0  # when it was last looked for
        self._wake = threading.Condition()
        if spool:
            try:
                self._replay(spool)
            except sa.exc.DBAPIError as error:
                mend = "see its log; what is spooled is safe"
                raise LedgerError(Problem("ledger", told(error), "a ledger that takes what is spooled", mend)) from None
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def submit(self, events: Sequence[Event], done: Done) -> None:
        """Queue events; see `Ledger.submit`."""
        with self._wake:
            self._check(spools=True)
            if self._queued and self._queued + len(events) > self._limit:
                raise LedgerBusy(Problem("ledger", f"{self._queued} events that wait", f"at most {self._limit}", "try again in a moment"))
            self._waiting.append((events, done))
            self._queued += len(events)
            self._wake.notify()

    def maintain(self, work: Work, done: Done) -> None:
        """Queue work on the tables; see `Ledger.maintain`."""
        with self._wake:
            self._check(spools=False)
            self._waiting.append((work, done))
            self._wake.notify()

    def _check(self, *, spools: bool) -> None:
        if self._over or self._closing or (self._away and not (spools and self._spool is not None)):
            raise self._refusal("try again in a moment" if self._away else "start the service again; what was acknowledged is safe")

    def _refusal(self, mend: str) -> LedgerError:
        return LedgerError(Problem("ledger", self._why or "closed", "a ledger that can be written", mend))

    @property
    def state(self) -> State:
        """How the ledger does now."""
        with self._wake:
            spooled = 0 if self._spool is None else len(self._spool)
            spools = self._away and self._spool is not None and not self._spool.why
            ok = (not self._why or spools) and not self._closing
            return State(ok, self._why, self._queued, spooled, self._events, self._commits, self._last_commit_s)

    def close(self) -> None:
        """Write what waits, then stop."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    # -------------------------------------------------------------------------------------------------------- in its thread

    def _run(self) -> None:
        try:
            self._serve()
        finally:
            self._end()

    def _serve(self) -> None:
        while True:
            if self._why and not self._over and time.monotonic() - self._tried >= LOOK_S:
                self._come_back() if self._away else self._look()
            group = self._next()
            if group:
                self._write(group)
                del group  # or its requests would live until the next one
            elif self._over or self._closing:
                break

    def _end(self) -> None:
        """Let go; where a `done` raised, which it must not, nobody else is to wait for ever."""
        with self._wake:
            if not self._closing:
                self._over, self._why = True, self._why or "its writer ended"
            left = list(self._waiting)
            self._waiting.clear()
            self._queued = 0
            refusal = self._refusal("start the service again; what was acknowledged is safe")
        _refuse(left, refusal)
        if self._over:
            self._home.release()
        else:
            self._home.close()
        if self._spool is not None:
            self._spool.close()

    def _next(self) -> Group:
        """Return the next group; none at the end, and none when it is time to look for the database again."""
        with self._wake:
            while not self._waiting and not self._closing and not self._over:
                if not self._wake.wait(LOOK_S if self._why else None):
                    return []
            group: Group = []
            n = 0
            while self._waiting:
                first = self._waiting[0][0]
                if callable(first):
                    if not group:
                        group.append(self._waiting.popleft())
                    break
                if group and n + len(first) > GROUP:
                    break
                group.append(self._waiting.popleft())
                n += len(first)
            self._queued -= n
            return group

    def _write(self, group: Group) -> None:
        work = group[0][0]
        if callable(work):
            self._work(work, group)
            return
        events = [event for each, _ in group if not callable(each) for event in each]
        if self._away:
            self._put_aside(group, events)
            return
        started = time.perf_counter()
        try:
            receipts = self._written(events)
        except sa.exc.DBAPIError as error:
            self._fail(group, events, error)
            return
        except LedgerError as error:
            self._leave(error.problems[0].got)
            self._put_aside(group, events)
            return
        with self._wake:
            self._why = ""
            self._events, self._commits = self._events + len(events), self._commits + 1
            self._last_commit_s = time.perf_counter() - started
        _answer(group, receipts)

    def _written(self, events: Sequence[Event]) -> list[Receipt]:
        """Return the receipts of events that are committed.

        Two writers that were given one id at once collide: the second looks again. Where the connection was lost, events that lie
        in the ledger after all were written by the commit whose end nobody saw. Raises `LedgerError` where the database stays away.
        """
        before = self._home.partition
        number, seq, lost = before.number, before.seq, False
        for attempt in range(ATTEMPTS):
            try:
                receipts = self._home.partition.write(events)
            except sa.exc.IntegrityError:
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            except sa.exc.DBAPIError as error:
                if self._home.after(error) != "reopen":
                    raise
                lost = True
                time.sleep(0.05 * 2**attempt)
                self._reopen()
                continue
            if not lost:
                return receipts
            return [_settled(receipt, number, seq) for receipt in receipts]
        raise LedgerError(Problem("ledger", "the connection was lost again and again", "a database that stays", "see its log"))

    def _reopen(self) -> None:
        self._tried = time.monotonic()
        self._home.reopen()
        if self._home.identity.ledger != self._ledger:
            self._home.release()
            raise LedgerError(Problem("ledger", "another ledger at this address", f"the ledger {self._ledger}", "bring that one back"))

    def _work(self, work: Work, group: Group) -> None:
        try:
            self._home.partition.maintain(work)
            self._home.forget()
        except sa.exc.DBAPIError as error:
            self._fail(group, [], error)
        except MakegoodError as error:  # of the work: nothing was done
            _refuse(group, error if isinstance(error, LedgerError) else LedgerError(*error.problems))
        else:
            _answer(group, [])

    def _fail(self, group: Group, events: Sequence[Event], error: sa.exc.DBAPIError) -> None:
        """Refuse a group, and all that waits where nothing is to be written any more."""
        after = self._home.after(error)
        if after == "reopen":
            self._leave(told(error))
            self._put_aside(group, events)
            return
        with self._wake:
            self._why, self._tried = told(error), time.monotonic()
            mend = "free space on its disk"
            if after == "stop":
                mend = "start the service again; what was acknowledged is safe"
                self._over = True
                group = [*group, *self._waiting]
                self._waiting.clear()
                self._queued = 0
            refusal = self._refusal(mend)
        _refuse(group, refusal)

    def _look(self) -> None:
        """See whether the ledger can be written again: who balances load sends nothing here by which it would be noticed."""
        try:
            self._home.partition.touch()
        except sa.exc.DBAPIError as error:
            self._fail([], [], error)
        else:
            with self._wake:
                self._why = ""

    # -------------------------------------------------------------------------------------------------------- while it is away

    def _leave(self, why: str) -> None:
        with self._wake:
            self._why, self._away = why, True
        _LOG.error("the ledger is away: %s", why)

    def _put_aside(self, group: Group, events: Sequence[Event]) -> None:
        """Answer from the spool, but for what changes how things are done: promotions, erasures and work wait for the ledger."""
        if self._spool is None or not events or any(event.kind in AT_ONCE for event in events):
            if len(group) > 1 and self._spool is not None:
                for one in group:
                    self._put_aside([one], [] if callable(one[0]) else one[0])
                return
            _refuse(group, self._refusal("try again in a moment: what was under way may be there, so repeat it under the same ids"))
            return
        try:
            receipts = self._spool.append(events)
        except LedgerError as error:
            _refuse(group, error)
        else:
            _answer(group, receipts)

    def _come_back(self) -> None:
        try:
            self._reopen()
            if self._spool is not None:
                self._replay(self._spool)
        except (LedgerError, sa.exc.DBAPIError) as error:
            with self._wake:
                self._why = error.problems[0].got if isinstance(error, LedgerError) else told(error)
            return
        with self._wake:
            self._away, self._why = False, ""
        _LOG.warning("the ledger is back")

    def _replay(self, spool: Spool) -> None:
        """Write what the spool holds, and empty it; what has been written before is not written again."""
        events = list(spool)
        for at in range(0, len(events), GROUP):
            part = events[at : at + GROUP]
            taken = [event for event, receipt in zip(part, self._written(part), strict=True) if _is_other(event, receipt)]
            for event in taken:
                _LOG.error("spooled event %s: its id holds another; it is kept as %s", event.id, _otherwise(event).id)
            self._written([_otherwise(event) for event in taken])
        spool.clear()


def _settled(receipt: Receipt, number: int, seq: int) -> Receipt:
    """Return a receipt of a second attempt: what the first one wrote beyond `seq` of its partition is new."""
    first = receipt.first
    ours = first is not None and receipt.state == "same" and first.partition == number and first.seq > seq
    return Receipt(receipt.id, "new") if ours else receipt


def _is_other(event: Event, receipt: Receipt) -> bool:
    """Tell whether an id holds something else than a spooled event that was acknowledged."""
    there = None if receipt.first is None else receipt.first.event
    return there is not None and (there.request, there.body) != (event.request, event.body)


def _otherwise(event: Event) -> Event:
    """Return an event under an id of its own, the same at each replay."""
    return replace(event, id=f"{event.id}:{request_hash(event.request, event.body).hex()[:16]}")


def _answer(group: Group, receipts: Sequence[Receipt]) -> None:
    at = 0
    for events, done in group:
        n = 0 if callable(events) else len(events)
        done(list(receipts[at : at + n]))
        at += n


def _refuse(group: Group, error: LedgerError) -> None:
    for _, done in group:
        done(error)
