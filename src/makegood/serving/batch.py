"""Requests become batches without any timer: what arrived while the last batch was scored is the next one.

Scoring has a thread of its own. In the event loop it would be a little faster on cheap models, and would hold up health checks,
other requests and the answers of the last batch on dear ones. The loop forms batches, the thread scores them and hands their events
to the ledger, the ledger's writer tells the loop when they are durable, and only then a request is answered.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from makegood.errors import DataError, LedgerError, Problem
from makegood.ids import uuid7
from makegood.ledger.events import Receipt, money
from makegood.ledger.store import LedgerBusy
from makegood.serving.answers import again
from makegood.serving.deciding import Made, Row, decide, keyed
from makegood.serving.problems import Trouble
from makegood.serving.purse import Purse
from makegood.serving.rows import MOST_PROBLEMS, Asked, Reader

if TYPE_CHECKING:
    from makegood.ledger.store import Ledger
    from makegood.serving.metrics import Metrics
    from makegood.serving.rollout import Rollout, Rollouts

MOST_ROWS = 512
"""In a batch, unless one request alone has more."""
_SLICE_S = 0.05  # that a batch may take, by what rows took of late: who comes next waits no longer
_SWITCH_S = 0.001  # after which a thread that computes lets the loop in: Python's 5 ms would be most of an answer's time
_ALONE = " in 1 of 1 rows, first in row 1"  # how a payoff's error counts the rows of one


@dataclass(frozen=True, slots=True)
class Answered:
    """A durable answer; `replayed` says that it was given before."""

    body: bytes
    replayed: bool = False


@dataclass(slots=True, eq=False)
class _Ask:
    """A request that waits: its rows' ids are `key`'s, or fresh."""

    asked: Asked
    key: str
    answer: asyncio.Future[Answered]
    timer: asyncio.TimerHandle | None = None
    taken: bool = False
    made: list[Made] = field(default_factory=list)


class Batcher:
    """The queue before the models.

    At most `rows` of them are on their way at once. Who waits longer than `deadline_s` is refused and not decided; who was decided and
    is not durable after `unsure_s` more is told that nobody knows.
    """

    def __init__(
        self, rollouts: Rollouts, ledger: Ledger, metrics: Metrics, *, rows: int = 4096, deadline_s: float = 5.0, unsure_s: float = 25.0
    ) -> None:
        self._rollouts, self._ledger, self._metrics = rollouts, ledger, metrics
        self._room, self._deadline_s, self._unsure_s = rows, deadline_s, unsure_s
        self.rows = 0
        """On their way: waiting, being scored, or being committed."""
        self._waiting: deque[_Ask] = deque()
        self._busy = self._stopping = False
        self._row_s = 0.0  # that scoring a row took of late
        self._scorer = ThreadPoolExecutor(1, "scorer")
        self._secret = ledger.pseudonym(" requests and inputs").encode()  # no unit begins with a blank: it is nobody's pseudonym
        self._read: tuple[Rollout, Reader] | None = None
        self._purse = Purse(ledger, str(rollouts.now.champion.model.case["case"]))

    @property
    def reader(self) -> Reader:
        """What reads the rows of the models that serve now."""
        now = self._rollouts.now
        if self._read is None or self._read[0] is not now:
            acting = [now.champion.model, *([] if now.canary is None else [now.canary.live.model])]
            self._read = now, Reader(now.champion.model.case, acting, [shadow.model for shadow in now.shadows])
        return self._read[1]

    def start(self) -> None:
        """Begin: called in the event loop that requests come from."""
        self._loop = asyncio.get_running_loop()
        sys.setswitchinterval(_SWITCH_S)

    async def close(self) -> None:
        """Refuse what comes, wait until what came is answered, and end the thread."""
        self._stopping = True
        while self.rows:
            await asyncio.sleep(0.005)
        self._scorer.shutdown()

    # ---------------------------------------------------------------------------------------------------------- in the loop

    async def decide(self, asked: Asked, key: str = "") -> Answered:
        """Return the answer once it is durable: JSON of one decision, or of an array of them, under the id `key` if there is one.

        Raises `Trouble`: 409 where the id holds another request, 422 where a row cannot be decided, 503 where it would take too long.
        """
        n = len(asked.rows)
        if self._stopping:
            raise Trouble(503, "The service is stopping", retry_after_s=1)
        if self.rows and self.rows + n > self._room:
            raise Trouble(503, f"{self.rows} rows are waiting: there is no room for more", retry_after_s=1)
        ask = _Ask(asked, key, self._loop.create_future())
        ask.timer = self._loop.call_later(self._deadline_s, self._late, ask)
        self.rows += n
        self._waiting.append(ask)
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._next)  # after whatever else arrived in this turn
        try:
            return await ask.answer
        finally:
            ask.timer.cancel()
            self.rows -= n

    def _late(self, ask: _Ask) -> None:
        if ask.taken:
            ask.timer = self._loop.call_later(self._unsure_s, self._lost, ask)
        else:
            words = f"This request waited {self._deadline_s:g} s and was not decided"
            _refuse(ask, Trouble(503, words, retry_after_s=1))

    def _lost(self, ask: _Ask) -> None:
        words = "Nobody knows yet whether this was decided: ask again under the same Idempotency-Key"
        _refuse(ask, Trouble(503, words, retry_after_s=5))

    def _next(self) -> None:
        """Give the scorer all that waits, up to a batch."""
        most = MOST_ROWS if self._row_s == 0 else max(1, min(MOST_ROWS, int(_SLICE_S / self._row_s)))
        batch: list[_Ask] = []
        n = 0
        while self._waiting and (not batch or n + len(self._waiting[0].asked.rows) <= most):
            ask = self._waiting.popleft()
            if not ask.answer.done():
                ask.taken = True
                batch.append(ask)
                n += len(ask.asked.rows)
        if not batch:
            self._busy = False
            return
        began = self._loop.time()
        scored = self._scorer.submit(self._score, batch)
        scored.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._scored, batch, done, n, began))

    def _scored(self, batch: list[_Ask], done: Future[dict[_Ask, Trouble]], n: int, began: float) -> None:
        seconds = self._loop.time() - began
        self._metrics.batch(n, seconds)
        took = seconds / n
        self._row_s = took if self._row_s == 0 else 0.8 * self._row_s + 0.2 * took
        error = done.exception()
        for ask in batch:
            if error is not None:
                _refuse(ask, error)
            elif ask in done.result():
                _refuse(ask, done.result()[ask])
        self._next()

    def _committed(self, batch: list[_Ask], began: float, told: list[Receipt] | LedgerError) -> None:
        """Answer what is durable."""
        if isinstance(told, LedgerError):
            for ask in batch:
                _refuse(ask, _away(told))
            return
        self._metrics.committed(self._loop.time() - began)
        self._purse.settle(told)
        at = 0
        new: list[Made] = []
        for ask in batch:
            receipts = told[at : at + len(ask.made)]
            at += len(receipts)
            new += [made for made, receipt in zip(ask.made, receipts, strict=True) if receipt.state == "new"]
            if ask.answer.done():
                continue
            if taken := [receipt.id for receipt in receipts if receipt.state == "conflict"]:
                _refuse(ask, Trouble(409, f"The id {taken[0]} holds another request: send this one under another Idempotency-Key"))
                continue
            bodies = [
                made.answer if receipt.first is None else again(receipt.first) for made, receipt in zip(ask.made, receipts, strict=True)
            ]
            body = b"[" + b",".join(bodies) + b"]" if ask.asked.array else bodies[0]
            ask.answer.set_result(Answered(body, all(receipt.state == "same" for receipt in receipts)))
        self._count(new)

    def _count(self, new: list[Made]) -> None:
        for (model, action), n in Counter((made.model, made.action) for made in new).items():
            self._metrics.decided(model, action, n)
        for model, unit in {(made.model, made.unit) for made in new}:
            self._metrics.promised(model, unit, sum(made.promise for made in new if made.model == model))
        if tried := [made for made in new if made.explored is not None]:
            self._metrics.explored(tried[0].unit, money(sum(made.explored or 0 for made in tried)))

    # -------------------------------------------------------------------------------------------------------- in its thread

    def _score(self, batch: list[_Ask]) -> dict[_Ask, Trouble]:
        """Decide on a batch and hand it to the ledger; return the requests that are refused."""
        rollout = self._rollouts.now
        readers: dict[Reader, list[_Ask]] = {}
        for ask in batch:  # those that came before the last change of the rollout were read by another reader
            readers.setdefault(ask.asked.reader, []).append(ask)
        refused: dict[_Ask, Trouble] = {}
        paid: list[str] = []
        for reader, asks in readers.items():
            refused |= self._decide(rollout, reader, asks, paid)
        good = [ask for ask in batch if ask not in refused]
        events = [made.event for ask in good for made in ask.made]
        if not events:
            return refused

        began = self._loop.time()

        def done(told: list[Receipt] | LedgerError) -> None:
            with suppress(RuntimeError):  # the loop is gone, and with it all who waited
                self._loop.call_soon_threadsafe(self._committed, good, began, told)

        try:
            self._ledger.submit(events, done)
        except LedgerError as error:
            self._purse.take_back(paid)
            refused |= dict.fromkeys(good, _away(error))
        return refused

    def _decide(self, rollout: Rollout, reader: Reader, asks: list[_Ask], paid: list[str]) -> dict[_Ask, Trouble]:
        """Decide on requests together, or one by one where one of them cannot be decided; return those.

        The ids of decisions that cost something, since they try what the champion would not do, are put into `paid`.
        """
        fresh = iter(uuid7(sum(len(ask.asked.rows) for ask in asks if not ask.key)))
        case = str(rollout.champion.model.case["case"]).encode()  # several cases may share a ledger
        explored = None if rollout.canary is None else rollout.canary.explored
        left = 0 if explored is None else self._purse.left(explored)  # before the rows get their time: what leaves the period then counts
        rows = [self._rows(ask, fresh, case) for ask in asks]
        try:
            decided = decide(rollout, reader, [row for many in rows for row in many], self._secret, left)
        except DataError:
            if len(asks) == 1:
                return {asks[0]: self._undecidable(rollout, asks[0].asked, rows[0])}
            return {ask: trouble for one in asks for ask, trouble in self._decide(rollout, reader, [one], paid).items()}
        if explored is not None:
            paid += self._purse.pay((one.event.id, one.event.at, one.explored) for one in decided if one.explored is not None)
        made = iter(decided)
        for ask, many in zip(asks, rows, strict=True):
            ask.made = [next(made) for _ in many]
        return {}

    def _rows(self, ask: _Ask, fresh: Iterator[str], case: bytes) -> list[Row]:
        asked, n = ask.asked, len(ask.asked.rows)
        ids: Iterable[str] = islice(fresh, n) if not ask.key else [f"{ask.key}.{i}" for i in range(n)] if asked.array else [ask.key]
        requests = [keyed(self._secret, asked.digest + i.to_bytes(2) + case) for i in range(n)]  # keyed: it outlives inputs that are erased
        units = [self._ledger.pseudonym(asked.reader.unit(row)) for row in asked.rows]
        return list(map(Row, ids, asked.rows, units, requests, (self._ledger.now_us(),) * n, asked.ignored or ((),) * n))

    def _undecidable(self, rollout: Rollout, asked: Asked, rows: Sequence[Row]) -> Trouble:
        """Return what is wrong with a request's rows, each looked at alone."""
        problems: list[Problem] = []
        for i, row in enumerate(rows):
            try:
                decide(rollout, asked.reader, [row], self._secret)
            except DataError as error:
                problems += [replace(p, where=asked.where(i, p.where), got=p.got.removesuffix(_ALONE)) for p in error.problems]
            if len(problems) >= MOST_PROBLEMS:
                break
        return Trouble(422, "No decision can be made on this", problems)


def _refuse(ask: _Ask, why: BaseException) -> None:
    if not ask.answer.done():
        ask.answer.set_exception(why)


def _away(error: LedgerError) -> Trouble:
    busy = isinstance(error, LedgerBusy)
    words = "The ledger has more to write than it can take just now" if busy else f"The ledger cannot be written: {error.problems[0]}"
    return Trouble(503, words, retry_after_s=1 if busy else 5)
