"""The ledger as its users see it, on SQLite and on PostgreSQL: what is acknowledged is there, once, as it was sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.databases import Server

from makegood.errors import DataError, LedgerError
from makegood.ledger import chain
from makegood.ledger.events import Event, Receipt, request_hash
from makegood.ledger.reading import Reader
from makegood.ledger.store import Ledger, LedgerBusy
from makegood.ledger.verify import verify


def decision(id: str, said: bytes = b"{}", *, private: bytes | None = b'{"inputs":{}}', unit: str = "", kind: str = "decision") -> Event:
    """Return an event that follows from its id and what it says."""
    about = "" if kind in ("decision", "promotion") else id.partition(":")[2]
    return Event(id, kind, "loans", about, unit, 7, request_hash(id.encode(), said), said, private)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a ledger that is not there yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    return str(request.getfixturevalue("postgres"))


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    """An open ledger."""
    with Ledger.open(url) as opened:
        yield opened


def states(receipts: list[Receipt]) -> list[str]:
    """Return what became of each event."""
    return [receipt.state for receipt in receipts]


# -------------------------------------------------------------------------------------------------------------- one by one


def test_the_same_id_is_written_once(ledger: Ledger) -> None:
    event = decision("a", b'{"x":1}', unit=ledger.pseudonym("Ada"))
    assert ledger.append([event]) == [Receipt("a", "new")]
    (again,) = ledger.append([replace(event, body=b"another answer", at=9)])  # the request is what counts
    assert (again.state, again.first and again.first.event) == ("same", event)
    (other,) = ledger.append([decision("a", b'{"x":2}')])
    assert (other.state, other.first) == ("conflict", again.first)
    assert ledger.reader.event("a") == again.first


def test_what_is_doubled_in_one_submission_is_written_once(ledger: Ledger) -> None:
    event = decision("a")
    receipts = ledger.append([event, event, decision("a", b"other"), decision("b")])
    assert states(receipts) == ["new", "same", "conflict", "new"]
    assert receipts[1].first == receipts[2].first == ledger.reader.event("a")


def test_reads(ledger: Ledger) -> None:
    ledger.append([decision("d"), decision("e", private=None), decision("outcome:d", kind="outcome", private=None)])
    ledger.append([decision("correction:d", kind="correction", private=None), decision("override:e", kind="override")])
    reader = ledger.reader
    assert [stored.event.id for stored in reader.about("d")] == ["outcome:d", "correction:d"]
    assert reader.about("") == reader.about("nobody") == []
    assert reader.all_about(["d", "nobody", "", "d"]) == {"d": reader.about("d")}
    assert reader.event("nobody") is None
    assert {id: stored.event.private for id, stored in reader.events(["d", "e", "x"]).items()} == {"d": b'{"inputs":{}}', "e": None}
    assert [s.event.id for batch in reader.scan(kinds=["outcome", "override"]) for s in batch] == ["outcome:d", "override:e"]
    assert [s.seq for batch in reader.scan(after={0: 2}) for s in batch] == [3, 4, 5]
    assert list(reader.scan(case="other")) == []


def test_a_long_ledger_is_scanned_in_batches(ledger: Ledger) -> None:
    ledger.append([decision(f"d{i}", private=None) for i in range(2300)])
    assert [len(batch) for batch in ledger.reader.scan(case="loans")] == [1000, 1000, 300]


def test_promotions_get_times_of_their_own_in_their_order(ledger: Ledger) -> None:
    ids = [f"p{i}" for i in range(5)]
    for id in ids:
        ledger.append([replace(decision(id, kind="promotion", private=None), at=100 - int(id[1:]))])
    ledger.append([replace(decision(id, kind="promotion", private=None), at=50) for id in ("p5", "p6")])
    stored = ledger.reader.promotions("loans")
    assert [(s.event.id, s.event.at) for s in stored] == [(f"p{i}", 100 + i) for i in range(7)]


def test_pseudonyms_are_the_ledgers_own(ledger: Ledger, tmp_path: Path) -> None:
    one = ledger.pseudonym("Ada")
    assert (len(one), ledger.pseudonym("Ada"), ledger.pseudonym("")) == (32, one, "")
    assert int(one, 16) != int(ledger.pseudonym("Bob"), 16)
    with Ledger.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other:
        assert other.pseudonym("Ada") != one
        assert other.id != ledger.id


def test_a_ledger_goes_on_where_it_was(url: str, tmp_path: Path) -> None:
    with Ledger.open(url) as first:
        first.append([decision("a"), decision("b")])
        known = first.id, first.pseudonym("Ada")
    with Ledger.open(url) as second:
        assert (second.id, second.pseudonym("Ada")) == known
        assert states(second.append([decision("a"), decision("c")])) == ["same", "new"]
    found = verify(url, folder=tmp_path)
    assert (found.ok, found.partitions[0].seq) == (True, 3)


def test_state_counts(ledger: Ledger) -> None:
    assert (ledger.state.ok, ledger.state.why, ledger.state.events) == (True, "", 0)
    ledger.append([decision("a"), decision("b")])
    state = ledger.state
    assert (state.ok, state.events, state.commits, state.queued, state.spooled) == (True, 2, 1, 0, 0)
    assert 0 < state.last_commit_s < 30


def test_what_no_ledger_can_hold_is_refused_before_it_is_queued(ledger: Ledger) -> None:
    for bad in (
        decision(""),
        decision("a\0b"),
        replace(decision("a"), unit="\ud800"),
        decision("a", kind="rumour"),
        replace(decision("a"), at=2**63),
    ):
        with pytest.raises(DataError, match="expected an id, a kind of decision, outcome"):
            ledger.append([decision("good"), bad])
    assert ledger.reader.event("good") is None
    assert states(ledger.append([decision("good")])) == ["new"]


def test_closing_writes_what_waits(url: str) -> None:
    ledger = Ledger.open(url)
    told: list[Any] = []
    for i in range(300):
        ledger.submit([decision(f"d{i}")], told.append)
    ledger.close()
    assert [states(receipts) for receipts in told] == [["new"]] * 300
    with pytest.raises(LedgerError, match="ledger: got 'closed'; expected a ledger that can be written"):
        ledger.submit([decision("late")], told.append)
    assert not ledger.state.ok
    reader = Reader.open(url)
    assert sum(len(batch) for batch in reader.scan()) == 300
    reader.close()


def test_more_than_may_wait_is_refused(url: str) -> None:
    held, go = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        held.set()
        go.wait(30)

    with Ledger.open(url, queue=10) as ledger:
        ledger.submit([decision("first")], hold)
        assert held.wait(30)
        told: list[Any] = []
        ledger.submit([decision(f"d{i}") for i in range(12)], told.append)  # more than may wait, but nothing waits
        with pytest.raises(LedgerBusy, match="got '12 events that wait'; expected at most 10; try again in a moment"):
            ledger.submit([decision("too much")], told.append)
        assert ledger.state.queued == 12
        with pytest.raises(LedgerError, match=r"no answer in 0\.01 s"):
            ledger.maintain(lambda connection, write: None, 0.01)
        go.set()
    assert states(told[0]) == ["new"] * 12


def test_work_on_the_tables_is_done_whole_or_not_at_all(ledger: Ledger) -> None:
    def count(connection: sa.Connection, write: Any) -> int:
        write([decision("within")])
        return int(connection.exec_driver_sql("SELECT count(*) FROM makegood_events").scalar_one())

    def fail(connection: sa.Connection, write: Any) -> None:
        write([decision("undone")])
        raise DataError("no, after all")

    ledger.append([decision("before")])
    assert ledger.maintain(count) == 2
    with pytest.raises(LedgerError, match="no, after all"):
        ledger.maintain(fail)
    assert ledger.reader.events(["within", "undone"]).keys() == {"within"}
    ledger.append([decision("after")])
    assert [s.seq for batch in ledger.reader.scan() for s in batch] == [1, 2, 3]


# ------------------------------------------------------------------------------------------------------------ what is opened


def test_other_databases_are_refused() -> None:
    for opened in (Ledger.open, Reader.open):
        with pytest.raises(LedgerError, match="postgresql://USER@HOST/DATABASE; set MAKEGOOD_LEDGER to such a URL"):
            opened("mysql://host/name")
    for memory in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(LedgerError, match="expected sqlite:///PATH; name a file: what is only in memory is lost"):
            Ledger.open(memory)


def change(url: str, statement: str) -> None:
    """Change a ledger behind its back."""
    named = sa.make_url(url)
    engine = sa.create_engine(named if named.drivername == "sqlite" else named.set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE makegood_meta SET value = '9' WHERE name = 'version'", "got 'version 9'; expected version 1; use the version of makegood"),
        ("DELETE FROM makegood_meta WHERE name = 'salt'", "got 'no salt in makegood_meta'; expected a whole ledger; restore it"),
        ("UPDATE makegood_meta SET value = 'x' WHERE name = 'salt'", "expected the one that its salt gives; restore it from a copy"),
    ],
)
def test_a_ledger_of_another_make_is_refused_by_all(url: str, statement: str, message: str) -> None:
    Ledger.open(url).close()
    change(url, statement)
    for opened in (Ledger.open, Reader.open):
        with pytest.raises(LedgerError, match=message):
            opened(url)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE makegood_events SET unit = 'x' WHERE seq = 3",
        "UPDATE makegood_events SET hash = request WHERE seq = 2",
        "DELETE FROM makegood_events WHERE seq = 2",
    ],
)
def test_a_damaged_end_is_not_built_upon(url: str, statement: str) -> None:
    with Ledger.open(url) as ledger:
        ledger.append([decision("a"), decision("b"), decision("c")])
    change(url, statement)
    with pytest.raises(LedgerError, match="got 'partition 0, event 3: it does not fit to the one before it'; expected a whole chain"):
        Ledger.open(url)


def test_the_first_event_is_chained_to_the_ledgers_id(url: str) -> None:
    with Ledger.open(url) as ledger:
        ledger.append([decision("a")])
        id, stored = ledger.id, ledger.reader.event("a")
    assert stored is not None
    assert stored.hash == chain.link(chain.genesis(id, 0), 0, 1, stored.event, stored.commitment)
    change(url, "UPDATE makegood_events SET at = 8")
    with pytest.raises(LedgerError, match="event 1: it does not fit"):
        Ledger.open(url)


# ------------------------------------------------------------------------------------------------------- against a dictionary


class AgainstADictionary(RuleBasedStateMachine):
    """A ledger does what a dictionary does: the first that comes under an id stays."""

    url = ""
    ids: Bundle[str] = Bundle("ids")

    @initialize()
    def begin(self) -> None:
        """Open it; its tables are emptied rather than made again."""
        self.there: dict[str, Event] = {}
        self.ledger = Ledger.open(self.url)
        self.ledger.maintain(_emptied)
        self.ledger.close()
        self.ledger = Ledger.open(self.url)

    def submitted(self, events: list[Event]) -> None:
        """Submit events, and compare each receipt with what the dictionary had."""
        expected = []
        for event in events:
            first = self.there.setdefault(event.id, event)
            known = "new" if first is event else "same" if first.request == event.request else "conflict"
            expected.append((event.id, known, None if known == "new" else first))
        receipts = self.ledger.append(events)
        assert [(r.id, r.state, r.first and r.first.event) for r in receipts] == expected

    @rule(target=ids, id=st.text("abcdefgh", min_size=1, max_size=3), said=st.sampled_from([b"1", b"2"]), secret=st.booleans())
    def one(self, id: str, said: bytes, secret: bool) -> str:
        """Decide."""
        self.submitted([decision(id, said, private=b"p" + said if secret else None)])
        return id

    @rule(id=ids, said=st.sampled_from([b"1", b"2"]))
    def repeat(self, id: str, said: bytes) -> None:
        """Decide again, or otherwise under the same id."""
        self.submitted([decision(id, said)])

    @rule(id=ids, said=st.sampled_from([b"yes", b"no"]))
    def outcome(self, id: str, said: bytes) -> None:
        """Say what came of it."""
        self.submitted([decision(f"outcome:{id}", said, kind="outcome", private=None)])

    @rule(many=st.lists(st.tuples(st.text("abcdefgh", min_size=1, max_size=2), st.sampled_from([b"1", b"2"])), max_size=20))
    def together(self, many: list[tuple[str, bytes]]) -> None:
        """Decide on several rows, some of them twice."""
        self.submitted([decision(id, said) for id, said in many])

    @rule()
    def reopen(self) -> None:
        """Stop and start."""
        self.ledger.close()
        self.ledger = Ledger.open(self.url)

    @invariant()
    def all_is_there(self) -> None:
        """Compare all, and the order of the chain with the order of the dictionary."""
        found = [stored for batch in self.ledger.reader.scan() for stored in batch]
        assert [stored.event for stored in found] == list(self.there.values())
        before = chain.genesis(self.ledger.id, 0)
        for seq, stored in enumerate(found, 1):
            before = chain.link(before, 0, seq, stored.event, stored.commitment)
            assert (stored.partition, stored.seq, stored.hash) == (0, seq, before)

    def teardown(self) -> None:
        """Close it."""
        if hasattr(self, "ledger"):
            self.ledger.close()


def _emptied(connection: sa.Connection, _: object) -> None:
    for table in ("events", "private"):
        connection.exec_driver_sql(f"DELETE FROM makegood_{table}")


@pytest.mark.slow
def test_a_ledger_does_what_a_dictionary_does(url: str) -> None:
    class Here(AgainstADictionary):
        pass

    Here.url = url
    examples = 20 if url.startswith("sqlite") else 10
    run_state_machine_as_test(Here, settings=settings(max_examples=examples, stateful_step_count=12, deadline=None))


# ---------------------------------------------------------------------------------------------------------- several at once


def test_threads_that_send_the_same_get_one_answer(ledger: Ledger) -> None:
    answers: list[list[Receipt]] = []
    threads = [threading.Thread(target=lambda: answers.append(ledger.append([decision(f"d{i}") for i in range(50)]))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sum(receipts[i].state == "new" for receipts in answers) for i in range(50)] == [1] * 50
    assert sum(len(batch) for batch in ledger.reader.scan()) == 50


def test_each_writer_of_a_server_has_a_partition(postgres_server: Server, postgres: str, tmp_path: Path) -> None:
    with Ledger.open(postgres) as one, Ledger.open(postgres) as two:
        assert one.id == two.id
        one.append([decision("a")])
        two.append([decision("b")])
        assert states(two.append([decision("a"), decision("b")])) == ["same", "same"]
        places = {id: stored.partition for id, stored in one.reader.events(["a", "b"]).items()}
        assert places == {"a": 0, "b": 1}
    with Ledger.open(postgres) as again:
        again.append([decision("c")])
        assert [(s.partition, s.seq) for batch in again.reader.scan() for s in batch] == [(0, 1), (0, 2), (1, 1)]
    assert verify(postgres, folder=tmp_path).ok
