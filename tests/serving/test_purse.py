"""What exploration has cost is known through restarts, repetitions and a clock of one's own, and is never more than the budget."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger import corpus

from makegood.ledger import retention
from makegood.ledger.events import MICRO, Decided, Event, Promoted, encode, request_hash
from makegood.ledger.store import Ledger
from makegood.monitoring.exploring import Exploration
from makegood.serving import purse
from makegood.serving.purse import Purse, alone

DAY = 86_400
START = corpus.START


def exploration(budget: float = 10.0, period_s: float = DAY) -> Exploration:
    return Exploration(1.0, {"": 1.0}, 0.5, 0.02, budget, period_s)


def decided(id: str, at: int, cost: float | None, case: str = "loans") -> Event:
    explored = None if cost is None else round(cost * MICRO)
    body = encode(Decided("approve", 0, "EUR", 0.5, ("approve",), (1.0,), {}, "loans@1", "1", "2", explored=explored))
    return Event(id, "decision", case, "", "", at, request_hash(id.encode()), body)


def known(of: Purse, explored: Exploration, timeout_s: float = 30.0) -> int:
    """Return what is left once the past has been read."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        left = of.left(explored)
        if of._known_s >= explored.period_s:
            return left
        assert left == 0, "nothing is left while nobody knows"
        time.sleep(0.002)
    raise AssertionError("the past was not read")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'replay.sqlite'}", replayed=True) as opened:
        opened.advance(START)
        yield opened


def spend(ledger: Ledger, of: Purse, id: str, cost: float) -> None:
    event = decided(id, ledger.now_us(), cost)
    of.pay([(id, event.at, round(cost * MICRO))])
    of.settle(ledger.append([event]))


def test_what_was_spent_counts_for_a_period_and_no_longer(ledger: Ledger) -> None:
    one = Purse(ledger, "loans")
    assert one.left(exploration()) == 0  # nobody knows yet
    assert known(one, exploration()) == 10 * MICRO
    spend(ledger, one, "a", 4.0)
    ledger.advance(START + DAY * MICRO // 2)
    spend(ledger, one, "b", 2.5)
    assert one.left(exploration()) == round(3.5 * MICRO)
    ledger.advance(START + DAY * MICRO - 1)
    assert one.left(exploration()) == round(3.5 * MICRO)
    ledger.advance(START + DAY * MICRO)
    assert one.left(exploration()) == round(7.5 * MICRO)
    assert one.left(exploration(2.0)) == 0  # a smaller budget is spent already
    ledger.advance(START + 2 * DAY * MICRO)
    assert one.left(exploration()) == 10 * MICRO
    assert (one._spent, one._total) == ({}, 0)


def test_another_process_knows_what_the_one_before_it_spent(ledger: Ledger) -> None:
    one = Purse(ledger, "loans")
    known(one, exploration())
    for i in range(6):
        spend(ledger, one, f"d{i}", 1.25)
    ledger.append([decided("other", START, 5.0, "bakery"), decided("plain", START, None)])
    assert known(Purse(ledger, "loans"), exploration()) == one.left(exploration()) == round(2.5 * MICRO)
    assert known(Purse(ledger, "bakery"), exploration()) == 5 * MICRO
    ledger.advance(START + 3 * DAY * MICRO)
    later = Purse(ledger, "loans")
    assert known(later, exploration()) == 10 * MICRO
    spend(ledger, later, "late", 1.0)
    longer = exploration(10.0, 5 * DAY)  # what was forgotten, or never looked at, is read again
    assert later.left(longer) == 0
    assert known(later, longer) == round(1.5 * MICRO)
    assert later.left(exploration()) == 9 * MICRO


def test_what_is_on_its_way_while_the_past_is_read_counts_once(ledger: Ledger) -> None:
    one = Purse(ledger, "loans")
    one.pay([("a", START, 3 * MICRO)])  # not durable yet
    one.pay([("b", START, 2 * MICRO)])
    ledger.append([decided("b", START, 2.0)])
    assert known(one, exploration()) == 5 * MICRO


def test_a_repetition_costs_nothing(ledger: Ledger) -> None:
    one = Purse(ledger, "loans")
    known(one, exploration())
    spend(ledger, one, "a", 4.0)
    assert one.pay([("a", START, MICRO)]) == []
    one.settle(ledger.append([decided("a", START, 1.0)]))  # the same id: what is durable is the first
    assert one.left(exploration()) == 6 * MICRO
    ledger.append([decided("plain", START, None)])
    body = encode(Promoted("promote", "m", "h", "Ada"))
    ledger.append([Event("promotion", "promotion", "loans", "", "", START, request_hash(body), body)])
    for id in ("plain", "promotion"):  # the id holds a decision that tried nothing, and no decision at all
        assert one.pay([(id, START, 3 * MICRO)]) == [id]
        assert one.left(exploration()) == 3 * MICRO
        one.settle(ledger.append([decided(id, START, 3.0)]))
        assert one.left(exploration()) == 6 * MICRO


def test_what_was_not_handed_over_is_taken_back(ledger: Ledger) -> None:
    one = Purse(ledger, "loans")
    known(one, exploration())
    spend(ledger, one, "a", 4.0)
    paid = one.pay([("a", START, 4 * MICRO), ("b", START, MICRO), ("c", START, MICRO)])
    assert paid == ["b", "c"]
    one.settle(ledger.append([decided("c", START, 1.0)]))
    one.take_back(["b", "gone"])
    assert one.left(exploration()) == 5 * MICRO


def test_without_a_ledger_that_can_be_read_nothing_is_spent(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purse, "_RETRY_S", 0.05)
    with ledger._writer._home.connection.begin() as _:  # type: ignore[attr-defined]
        ledger._writer._home.connection.execute(sa.text("ALTER TABLE makegood_events RENAME TO elsewhere"))  # type: ignore[attr-defined]
    one = Purse(ledger, "loans")
    for _ in range(20):
        assert one.left(exploration()) == 0
        time.sleep(0.01)
    with ledger._writer._home.connection.begin() as _:  # type: ignore[attr-defined]
        ledger._writer._home.connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO makegood_events"))  # type: ignore[attr-defined]
    assert known(one, exploration()) == 10 * MICRO


def test_decisions_that_were_archived_may_have_cost_something(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as live:
        now = live.now_us()
        live.append([decided("old", now - 2 * DAY * MICRO, 1.0), decided("a", now - 2, 3.0), decided("b", now - 1, 2.0)])
        assert known(Purse(live, "loans"), exploration()) == 5 * MICRO
        retention.archive(live, now - 1, tmp_path)
        unsure = Purse(live, "loans")
        for _ in range(5):
            assert unsure.left(exploration()) == 0
            time.sleep(0.02)
        assert unsure._known_s == 0.0


def test_a_ledger_of_several_writers_is_nobodys_purse(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as live:
        assert alone(live)
        live.url = "postgresql://somewhere/ledger"
        assert not alone(live)
        one = Purse(live, "loans")
        assert one.left(exploration()) == 0
        assert one._reading is None


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, DAY // 2), st.lists(st.floats(0.1, 4.0), max_size=4), st.integers(0, 9)), max_size=14))
def test_no_stretch_of_a_period_costs_more_than_the_budget(steps: list[tuple[int, list[float], int]]) -> None:
    """Whoever pays only what is left, through restarts at any moment, never overspends in any window."""
    explored, spent = exploration(), []
    with tempfile.TemporaryDirectory() as folder, Ledger.open(f"sqlite:///{folder}/replay.sqlite", replayed=True) as ledger:
        ledger.advance(START)
        one, at = Purse(ledger, "loans"), START
        for i, (passes, costs, fate) in enumerate(steps):
            at += passes * MICRO
            ledger.advance(at)
            if fate == 0:
                one = Purse(ledger, "loans")  # killed, and started again
            left = known(one, explored)
            made = []
            for j, cost in enumerate(costs):
                micro = round(cost * MICRO)
                if micro <= left:
                    left -= micro
                    made.append((f"d{i}.{j}", at, micro))
            one.pay(made)
            receipts = ledger.append([decided(id, when, micro / MICRO) for id, when, micro in made])
            spent += made
            if fate != 1:  # killed after the commit, before anybody heard of it
                one.settle(receipts)
            else:
                one = Purse(ledger, "loans")
    for _, end, _ in spent:
        assert sum(micro for _, when, micro in spent if end - DAY * MICRO < when <= end) <= 10 * MICRO
