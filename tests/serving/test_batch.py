"""What waits while a batch is scored is the next one; an answer is given once it is durable, and never for what is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.bundles import ROW
from tests.serving import lives
from tests.serving.running import Now

from makegood.errors import LedgerError, Problem
from makegood.ledger.events import Event, Receipt
from makegood.ledger.store import Ledger, LedgerBusy
from makegood.serving.batch import Answered, Batcher
from makegood.serving.metrics import Metrics
from makegood.serving.problems import Trouble
from makegood.serving.rollout import Rollout
from makegood.serving.rows import Asked


class Gate:
    """Stands before a ledger, and lets nothing through while it is shut; or tells a failure."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.open, self.waiting = ledger, True, list[Callable[[], None]]()
        self.refuses: LedgerError | None = None
        self.pseudonym, self.now_us = ledger.pseudonym, ledger.now_us

    def submit(self, events: Sequence[Event], done: Callable[[list[Receipt] | LedgerError], None]) -> None:
        if self.refuses is not None:
            raise self.refuses
        if self.open:
            self.ledger.submit(events, done)
        else:
            self.waiting.append(lambda: self.ledger.submit(events, done))

    def release(self) -> None:
        self.open = True
        for submit in self.waiting:
            submit()
        self.waiting.clear()


class Desk:
    """A batcher and all that it works with."""

    def __init__(self, batcher: Batcher, ledger: Ledger, gate: Gate, rollouts: Now, metrics: Metrics) -> None:
        self.batcher, self.ledger, self.gate, self.rollouts, self.metrics = batcher, ledger, gate, rollouts, metrics

    def asked(self, sent: Any) -> Asked:
        return self.batcher.reader.read(json.dumps(sent).encode())

    async def decide(self, sent: Any, key: str = "") -> Answered:
        return await self.batcher.decide(self.asked(sent), key)

    async def all(self, *asks: Coroutine[Any, Any, Answered]) -> list[Answered | BaseException]:
        return await asyncio.gather(*asks, return_exceptions=True)

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"makegood_{name}", labels) or 0.0

    async def until(self, true: Callable[[], object]) -> None:
        for _ in range(1000):
            if true():
                return
            await asyncio.sleep(0.005)
        raise AssertionError("it never came true")


@asynccontextmanager
async def desk(folder: Path, rollout: Rollout | None = None, **limits: Any) -> AsyncIterator[Desk]:
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}")
    gate, now, metrics = Gate(ledger), Now(rollout or Rollout(lives.champion())), Metrics()
    batcher = Batcher(now, gate, metrics, **limits)  # type: ignore[arg-type]
    batcher.start()
    try:
        yield Desk(batcher, ledger, gate, now, metrics)
    finally:
        gate.release()
        await batcher.close()
        ledger.close()


def run(test: Callable[[Path], Awaitable[None]]) -> Callable[[Path], None]:
    """Run a test in an event loop of its own."""

    def wrapped(tmp_path: Path) -> None:
        async def inner() -> None:
            await test(tmp_path)

        asyncio.run(asyncio.wait_for(inner(), 60))

    wrapped.__name__ = test.__name__
    return wrapped


def action(answered: object) -> str:
    assert isinstance(answered, Answered)
    return str(json.loads(answered.body)["action"])


@run
async def test_an_answer_waits_until_it_is_durable(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.gate.open = False
        asking = asyncio.create_task(at.decide(ROW, "a"))
        await at.until(lambda: at.gate.waiting)
        await asyncio.sleep(0.05)
        assert not asking.done()
        assert at.ledger.reader.event("a") is None
        at.gate.release()
        answered = await asking
        stored = at.ledger.reader.event("a")
        assert stored is not None
        assert (json.loads(answered.body)["id"], stored.event.id, answered.replayed) == ("a", "a", False)


@run
async def test_what_arrives_meanwhile_is_the_next_batch(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        await at.decide(ROW)
        told = await at.all(*(at.decide(ROW | {"amount": 100 * i}) for i in range(1, 201)))
        assert [action(answered) for answered in told] == [
            lives.champion().model.decide(ROW | {"amount": 100 * i}).action for i in range(1, 201)
        ]
        assert len({json.loads(a.body)["id"] for a in told if isinstance(a, Answered)}) == 200
        assert at.count("batch_rows_sum") == 201
        assert at.count("batch_rows_count") < 30
        assert sum(at.count("decisions_total", model=lives.champion().name, action=name) for name in ("approve", "refer", "decline")) == 201
        promises = [json.loads(a.body)["promise"] for a in told if isinstance(a, Answered)] + [lives.champion().model.decide(ROW).promise]
        assert at.count("promised", model=lives.champion().name, unit="EUR") == pytest.approx(sum(promises), abs=1e-3)
        assert at.batcher.rows == 0


@run
async def test_a_row_that_cannot_be_decided_refuses_its_request_alone(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        good = [at.decide(ROW, f"g{i}") for i in range(5)]
        bad = at.decide(ROW | {"amount": None}, "bad")
        many = at.decide([ROW, ROW | {"applied on": "2024-02-30"}, ROW | {"applied on": "soon"}], "many")
        told = await at.all(*good[:2], bad, many, *good[2:])
        assert [action(t) for t in (*told[:2], *told[4:])] == ["approve"] * 5
        one, three = told[2], told[3]
        assert isinstance(one, Trouble)
        assert isinstance(three, Trouble)
        assert (one.status, one.detail) == (422, "No decision can be made on this")
        assert [(p.where, p.got) for p in one.problems] == [("decision.actions.approve.payoff.no", "amount missing")]
        assert [(p.where, p.got) for p in three.problems] == [
            ("row 2: applied on", '"2024-02-30"'),
            ("row 3: applied on", '"soon"'),
        ]
        known = at.ledger.reader.events(["g0", "g4", "bad", "many.0", "many.1", "many.2"])
        assert sorted(known) == ["g0", "g4"]


@run
async def test_no_more_than_a_hundred_problems_are_looked_for(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        (trouble,) = await at.all(at.decide([ROW | {"amount": None}] * 150))
        assert isinstance(trouble, Trouble)
        assert len(trouble.problems) == 100


@run
async def test_an_array_is_answered_as_one(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        sent = [ROW | {"amount": 1000 * i} for i in range(1, 8)]
        first, again = await at.decide(sent, "k"), await at.decide(sent, "k")
        said = json.loads(first.body)
        assert [one["id"] for one in said] == [f"k.{i}" for i in range(7)]
        assert [one["action"] for one in said] == [lives.champion().model.decide(row).action for row in sent]
        assert (again.body, first.replayed, again.replayed) == (first.body, False, True)
        for other in (sent[:6], [*sent, ROW], sent[::-1]):
            with pytest.raises(Trouble, match=r"The id k\.0 holds another request") as caught:
                await at.decide(other, "k")
            assert caught.value.status == 409


@run
async def test_a_repetition_within_a_batch_is_answered_once_and_again(tmp_path: Path) -> None:
    async with desk(tmp_path, Rollout(lives.reasoning())) as at:
        told = await at.all(at.decide(ROW, "a"), at.decide(ROW, "a"), at.decide(ROW | {"age": 20}, "a"))
        first, same, other = told
        assert isinstance(first, Answered)
        assert isinstance(same, Answered)
        assert isinstance(other, Trouble)
        assert (first.body, first.replayed, same.replayed, other.status) == (same.body, False, True, 409)
        assert await at.decide(ROW, "a") == Answered(first.body, True)
        assert [stored.event.id for batch in at.ledger.reader.scan() for stored in batch] == ["a"]


@run
async def test_another_case_with_the_same_id_is_another_request(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        asked = at.asked(ROW)
        await at.batcher.decide(asked, "a")
        at.rollouts.now = Rollout(lives.stock())
        with pytest.raises(Trouble, match="The id a holds another request"):
            await at.batcher.decide(asked, "a")


@run
async def test_a_full_queue_refuses_and_says_when(tmp_path: Path) -> None:
    async with desk(tmp_path, rows=5) as at:
        at.gate.open = False
        waiting = [asyncio.create_task(at.decide(ROW)) for _ in range(5)]
        await at.until(lambda: at.batcher.rows == 5)
        with pytest.raises(Trouble, match="5 rows are waiting: there is no room for more") as caught:
            await at.decide(ROW)
        assert (caught.value.status, caught.value.headers()["retry-after"]) == (503, "1")
        at.gate.release()
        assert len(await asyncio.gather(*waiting)) == 5
        assert len(json.loads((await at.decide([ROW] * 9)).body)) == 9  # more than there is room for, into an empty queue


@run
async def test_who_waits_too_long_is_refused_and_not_decided(tmp_path: Path) -> None:
    async with desk(tmp_path, Rollout(lives.reasoning()), deadline_s=0.03) as at:
        await at.decide(ROW)
        told = await at.all(*(at.decide(ROW, f"k{i}") for i in range(60)))
        late = [i for i, one in enumerate(told) if isinstance(one, Trouble)]
        assert 0 < len(late) < 60
        assert {(t.status, t.detail) for t in told if isinstance(t, Trouble)} == {(503, "This request waited 0.03 s and was not decided")}
        await at.until(lambda: at.batcher.rows == 0)
        await asyncio.sleep(0.1)
        kept = at.ledger.reader.events([f"k{i}" for i in range(60)])
        assert sorted(kept) == sorted(f"k{i}" for i in range(60) if i not in late)


@run
async def test_who_was_decided_and_is_not_durable_is_told_that_nobody_knows(tmp_path: Path) -> None:
    async with desk(tmp_path, deadline_s=0.05, unsure_s=0.05) as at:
        at.gate.open = False
        with pytest.raises(Trouble, match="Nobody knows yet whether this was decided: ask again under the same Idempotency-Key") as caught:
            await at.decide(ROW, "a")
        assert caught.value.status == 503
        at.gate.release()
        await at.until(lambda: at.ledger.reader.event("a"))
        assert (await at.decide(ROW, "a")).replayed


@run
async def test_without_the_ledger_nothing_is_answered(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.gate.refuses = LedgerBusy(Problem("ledger", "full", "room"))
        (busy,) = await at.all(at.decide(ROW))
        at.gate.refuses = LedgerError(Problem("ledger", "No space left on device", "a disk with room", "free some"))
        (away,) = await at.all(at.decide(ROW))
        at.gate.refuses = None
        at.ledger.close()
        (closed,) = await at.all(at.decide(ROW))
        for trouble, words in (
            (busy, "more to write than it can take"),
            (away, "No space left on device"),
            (closed, "The ledger cannot be written"),
        ):
            assert isinstance(trouble, Trouble)
            assert (trouble.status, trouble.retry_after_s is not None, words in trouble.detail) == (503, True, True)


@run
async def test_a_commit_that_fails_is_no_answer(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        failed = LedgerError(Problem("ledger", "disk I/O error", "a disk that works", "see the system's log"))
        at.gate.ledger = Failing(failed)  # type: ignore[assignment]
        told = await at.all(at.decide(ROW), at.decide(ROW))
        assert [(t.status, "disk I/O error" in t.detail) for t in told if isinstance(t, Trouble)] == [(503, True)] * 2


class Failing:
    """A ledger whose every commit fails; the real one's are `tests/ledger`'s matter."""

    def __init__(self, error: LedgerError) -> None:
        self.error = error

    def submit(self, events: Sequence[Event], done: Callable[[list[Receipt] | LedgerError], None]) -> None:
        done(self.error)


@run
async def test_a_change_of_the_rollout_counts_from_the_next_batch(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        asked = at.asked(ROW)
        at.rollouts.now = Rollout(lives.challenger())
        said = json.loads((await at.batcher.decide(asked)).body)
        assert said["model"] == lives.challenger().name
        assert at.batcher.reader is not asked.reader
        both = await at.all(at.batcher.decide(asked), at.decide(ROW))
        assert [json.loads(a.body)["model"] for a in both if isinstance(a, Answered)] == [lives.challenger().name] * 2


@run
async def test_a_client_that_goes_away_is_decided_all_the_same(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.gate.open = False
        asking = asyncio.create_task(at.decide(ROW, "a"))
        await at.until(lambda: at.gate.waiting)
        asking.cancel()
        at.gate.release()
        await at.until(lambda: at.ledger.reader.event("a"))
        assert at.batcher.rows == 0
        gone = asyncio.create_task(at.decide(ROW, "b"))
        await asyncio.sleep(0)
        gone.cancel()
        assert action(await at.decide(ROW, "c")) == "approve"
        assert at.ledger.reader.event("b") is None
        refused = asyncio.create_task(at.decide(ROW | {"amount": None}))
        for _ in range(2):  # it is asked, then taken
            await asyncio.sleep(0)
        assert at.batcher._busy
        refused.cancel()
        await at.until(lambda: not at.batcher._busy)
        assert refused.cancelled()


@run
async def test_what_nobody_foresaw_reaches_who_asked(tmp_path: Path) -> None:
    live = lives.champion()
    broken = replace(live, model=replace(live.model, policy=replace(live.model.policy, prices=(1.0, 2.0, 3.0))))
    async with desk(tmp_path) as at:
        asked = at.asked(ROW)
        at.rollouts.now = Rollout(broken)
        told = await at.all(at.batcher.decide(asked), at.batcher.decide(asked))
        assert [isinstance(t, Exception) and not isinstance(t, Trouble) for t in told] == [True, True]
        at.rollouts.now = Rollout(live)
        assert action(await at.decide(ROW)) == "approve"


@run
async def test_the_loop_answers_others_while_a_dear_model_scores(tmp_path: Path) -> None:
    async with desk(tmp_path, Rollout(lives.reasoning())) as at:
        asking = asyncio.create_task(at.decide([ROW] * 12))
        ticks = 0
        while not asking.done():
            await asyncio.sleep(0.002)
            ticks += 1
        assert len(json.loads(asking.result().body)) == 12
        assert ticks >= 10


@run
async def test_dear_rows_make_small_batches(tmp_path: Path) -> None:
    async with desk(tmp_path, Rollout(lives.reasoning())) as at:
        at.batcher._row_s = 0.02
        assert len(await at.all(*(at.decide(ROW) for _ in range(12)))) == 12
        assert at.count("batch_rows_count") >= 4


@run
async def test_closing_refuses_who_comes_and_answers_who_came(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        asking = [asyncio.create_task(at.decide(ROW)) for _ in range(20)]
        await asyncio.sleep(0)
        await at.batcher.close()
        assert [action(one.result()) for one in asking] == ["approve"] * 20
        with pytest.raises(Trouble, match="The service is stopping"):
            await at.decide(ROW)
