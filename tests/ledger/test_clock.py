"""The clock of a replay: it goes forward alone, a restart goes on from the latest event, and no replay is ever opened as a live ledger."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.ledger.make_golden import GOLDEN
from tests.ledger.test_store import decision
from typer.testing import CliRunner

from makegood.cli import app
from makegood.errors import DataError, LedgerError
from makegood.ledger import anchors, chain, snapshot
from makegood.ledger.clock import BEGINNING, END, Clock, instant, iso
from makegood.ledger.erasure import erase
from makegood.ledger.events import now_us
from makegood.ledger.reading import Reader
from makegood.ledger.retention import archive
from makegood.ledger.store import Ledger
from makegood.ledger.verify import verify

DAY = 86_400_000_000


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a ledger that is not there yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'replay.sqlite'}"
    return str(request.getfixturevalue("postgres"))


def wrote(ledger: Ledger, id: str, kind: str = "decision") -> int:
    """Append an event at the ledger's time and return the time that it bears there."""
    ledger.append([replace(decision(id, kind=kind), at=ledger.now_us())])
    stored = ledger.reader.event(id)
    assert stored is not None
    return stored.event.at


# ------------------------------------------------------------------------------------------------------------------- times


def test_times_are_read_in_iso_8601_or_as_microseconds() -> None:
    assert instant("2024-02-29") == instant("2024-02-29T00:00:00Z") == instant("2024-02-29T05:30:00+05:30")
    assert iso(instant("2024-02-29 12:00")) == "2024-02-29T12:00:00Z"
    assert iso(instant(-1)) == "1969-12-31T23:59:59.999999Z"
    assert (iso(BEGINNING), iso(END)) == ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z")


@pytest.mark.parametrize("said", ["", "soon", "2023-02-29", True, 1.5, None, END + 1, BEGINNING - 1, [], "0001-01-01T00:00:00+01:00"])
def test_what_is_no_time_is_refused(said: object) -> None:
    with pytest.raises(DataError) as caught:
        instant(said, "--at")
    (problem,) = caught.value.problems
    assert (problem.where, problem.expected) == ("--at", "a time such as 2024-02-29T12:00:00Z, a date, or microseconds since 1970")


@given(st.datetimes(timezones=st.just(UTC)))
def test_what_is_shown_is_read_as_the_same_time(at: datetime) -> None:
    assert datetime.fromisoformat(iso(instant(at.isoformat()))) == at
    assert instant(iso(instant(at.isoformat()))) == instant(at.isoformat())


def test_a_clock_goes_forward_alone() -> None:
    clock = Clock()
    assert clock.now_us() == BEGINNING
    for at in (-DAY, 0, 0, DAY, END):
        clock.advance(at)
        assert clock.now_us() == at
    with pytest.raises(DataError, match=r"at: got '1970-01-02T00:00:00Z'; expected 9999-12-31T23:59:59.999999Z or later: the time of a"):
        clock.advance(DAY)
    with pytest.raises(DataError, match=f"got '{END + 1}'; expected a time up to 9999-12-31"):
        clock.advance(END + 1)
    assert clock.now_us() == END


# ------------------------------------------------------------------------------------------------------------- live, replay


def test_a_live_ledger_has_the_time_of_the_wall(url: str) -> None:
    before = now_us()
    with Ledger.open(url) as ledger:
        assert (ledger.replayed, ledger.reader.replayed) == (False, False)
        assert before <= ledger.now_us() <= now_us()
        with pytest.raises(LedgerError, match="got 'a live ledger'; expected a replay; a live one has the time of the wall"):
            ledger.advance(now_us() + DAY)


def test_a_replay_has_the_time_that_it_was_told_and_goes_on_from_its_latest_event(url: str) -> None:
    with Ledger.open(url, replayed=True) as ledger:
        assert (ledger.replayed, ledger.reader.replayed, ledger.reader.latest()) == (True, True, None)
        assert ledger.now_us() == BEGINNING
        ledger.advance(-5 * DAY)
        assert wrote(ledger, "early") == -5 * DAY
        ledger.advance(DAY)
        assert wrote(ledger, "late") == DAY
        ledger.advance(2 * DAY)  # and nothing happened
    with Ledger.open(url, replayed=True) as ledger:
        assert ledger.now_us() == DAY == ledger.reader.latest()
        with pytest.raises(DataError, match="expected 1970-01-02T00:00:00Z or later"):
            ledger.advance(DAY - 1)
        ledger.advance(DAY)
    assert snapshot_says(url)


def snapshot_says(url: str) -> bool:
    with snapshot.reading(url) as connection:
        return snapshot.replayed(connection)


def test_neither_is_opened_as_the_other(url: str, tmp_path: Path) -> None:
    with Ledger.open(url, replayed=True) as ledger:
        wrote(ledger, "replayed")
    with pytest.raises(LedgerError, match="got 'a replay'; expected a live ledger; open it as a replay, or name another"):
        Ledger.open(url)
    with Ledger.open(f"sqlite:///{tmp_path / 'live.sqlite'}") as ledger:
        wrote(ledger, "live")
    with pytest.raises(LedgerError, match="got 'a live ledger'; expected a replay, or no ledger yet; name another"):
        Ledger.open(f"sqlite:///{tmp_path / 'live.sqlite'}", replayed=True)
    with Ledger.open(url, replayed=True) as ledger:
        assert [stored.event.id for batch in ledger.reader.scan() for stored in batch] == ["replayed"]
    with closing(Reader.open(f"sqlite:///{tmp_path / 'live.sqlite'}")) as reader:
        assert [stored.event.id for batch in reader.scan() for stored in batch] == ["live"]


def test_a_live_ledger_on_a_server_is_no_replay_either(postgres: str) -> None:
    with Ledger.open(postgres) as ledger:
        wrote(ledger, "live")
    with pytest.raises(LedgerError, match="got 'a live ledger'"):
        Ledger.open(postgres, replayed=True)


def test_a_golden_ledger_is_a_live_one(tmp_path: Path) -> None:
    path = Path(shutil.copytree(GOLDEN / "schema-1", tmp_path / "golden")) / "ledger.sqlite"
    with pytest.raises(LedgerError, match="got 'a live ledger'"):
        Ledger.open(f"sqlite:///{path}", replayed=True)
    with Ledger.open(f"sqlite:///{path}") as ledger:
        assert not ledger.replayed
    assert verify(str(path)).ok


def test_one_alone_replays_into_a_ledger(url: str) -> None:
    words = "writes to it" if url.startswith("sqlite") else "another process replays into it'; expected a replay of one's own; stop that"
    with Ledger.open(url, replayed=True), pytest.raises(LedgerError, match=words):
        Ledger.open(url, replayed=True)


def test_nothing_that_was_spooled_goes_into_a_replay(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="expected none for a replay; leave it out"):
        Ledger.open(f"sqlite:///{tmp_path / 'replay.sqlite'}", spool=tmp_path / "spool.jsonl", replayed=True)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------------------- proof


def test_a_replay_cannot_be_made_a_live_ledger_by_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "replay.sqlite"
    with Ledger.open(f"sqlite:///{path}", replayed=True) as ledger:
        wrote(ledger, "a")
    assert verify(str(path)).ok
    for said, complaint in (
        ("DELETE FROM makegood_meta WHERE name = 'clock'", "the id"),
        ("UPDATE makegood_meta SET value = 'wall' WHERE name = 'clock'", "'wall'"),
    ):
        other = Path(shutil.copy(path, tmp_path / "other.sqlite"))
        with closing(sqlite3.connect(other)) as connection:
            connection.execute(said)
            connection.commit()
        for replayed in (False, True):
            with pytest.raises(LedgerError, match=complaint):
                Ledger.open(f"sqlite:///{other}", replayed=replayed)
        assert not verify(str(other)).ok
    live = tmp_path / "live.sqlite"
    with Ledger.open(f"sqlite:///{live}") as ledger:
        wrote(ledger, "a")
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("INSERT INTO makegood_meta VALUES ('clock', 'replayed')")
        connection.commit()
    with pytest.raises(LedgerError, match="the one that its salt gives"):
        Ledger.open(f"sqlite:///{live}", replayed=True)
    assert "makegood_meta: ledger" in [problem.where for problem in verify(str(live)).findings]
    assert chain.named("salt") != chain.named("salt", replayed=True)


def test_a_replay_verifies_beside_the_anchors_of_a_live_ledger(tmp_path: Path) -> None:
    live, path = tmp_path / "ledger.sqlite", tmp_path / "replay.sqlite"
    with Ledger.open(f"sqlite:///{live}") as ledger:
        wrote(ledger, "live")
    anchors.anchor(str(live))
    with Ledger.open(f"sqlite:///{path}", replayed=True) as ledger:
        wrote(ledger, "replayed")
    found = verify(str(path))
    assert (found.ok, found.anchored, found.key) == (True, 0, "")
    assert [str(problem) for problem in found.findings] == [
        "ledger: got 'a replay'; expected a live ledger, if it is to prove what was decided, and when"
    ]
    assert not verify(str(path), public_key=tmp_path / anchors.PUBLIC).ok  # whoever names a key wants it proved
    assert verify(str(live)).findings == ()
    with pytest.raises(LedgerError, match="got 'a replay'; expected a live ledger; nothing is anchored of a replay"):
        anchors.anchor(str(path))


def test_the_commands_say_that_it_is_a_replay(tmp_path: Path) -> None:
    path, run = tmp_path / "replay.sqlite", CliRunner().invoke
    with Ledger.open(f"sqlite:///{path}", replayed=True) as ledger:
        ledger.advance(instant("2020-01-01"))
        wrote(ledger, "a")
        ledger.advance(instant("2021-01-01"))
        wrote(ledger, "b")
    said = run(app, ["ledger", "verify", str(path)])
    assert (said.exit_code, "warning: ledger: got 'a replay'" in said.output) == (0, True)
    (tmp_path / "spool.jsonl").write_bytes(b"a live ledger's")
    said = run(app, ["ledger", "erase", str(path), "--decision", "a", "--by", "Ada"])
    assert (said.exit_code, (tmp_path / "spool.jsonl").read_bytes()) == (0, b"a live ledger's")
    with closing(Reader.open(f"sqlite:///{path}")) as reader:
        (erased,) = reader.about("a")
    assert iso(erased.event.at) == "2021-01-01T00:00:00Z"


def test_an_export_says_in_the_file_that_it_is_of_a_replay(tmp_path: Path) -> None:
    replayed, live = tmp_path / "replay.sqlite", tmp_path / "live.sqlite"
    for path in (replayed, live):
        with Ledger.open(f"sqlite:///{path}", replayed=path is replayed):
            pass
        said = CliRunner().invoke(app, ["ledger", "export", str(path), "--out", str(path.with_suffix(".parquet")), "--json"])
        assert ("0 decisions, of a replay" in said.stderr, '"replayed":true' in said.stdout.replace(" ", "")) == ((path is replayed),) * 2
    assert pq.read_schema(replayed.with_suffix(".parquet")).metadata == {b"makegood.clock": b"replayed"}
    assert not pq.read_schema(live.with_suffix(".parquet")).metadata


def test_erasures_and_archives_go_by_the_clock_of_the_replay(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'replay.sqlite'}"
    with Ledger.open(url, replayed=True) as ledger:
        ledger.advance(DAY)
        wrote(ledger, "a")
        ledger.advance(3 * DAY)
        assert erase(ledger, unit=None, decisions=["a"], by="Ada") == 1
        assert ledger.reader.about("a")[0].event.at == 3 * DAY
        assert archive(ledger, 2 * DAY, tmp_path)
    with Ledger.open(url, replayed=True) as ledger:
        assert ledger.now_us() == 3 * DAY
    assert verify(url).ok


# -------------------------------------------------------------------------------------------------------------- any order


class Replay(RuleBasedStateMachine):
    """A replay that is told times, writes events, and is closed and opened again, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.url = f"sqlite:///{self.folder.name}/replay.sqlite"
        self.ledger = Ledger.open(self.url, replayed=True)
        self.told = BEGINNING
        self.n = 0

    @rule(step=st.integers(0, 3 * DAY))
    def forward(self, step: int) -> None:
        self.ledger.advance(self.told + step)
        self.told += step

    @rule(step=st.integers(1, DAY))
    def back(self, step: int) -> None:
        with pytest.raises(DataError):
            self.ledger.advance(self.told - step)

    @rule(kind=st.sampled_from(["decision", "outcome:x", "promotion"]), n=st.integers(1, 4))
    def write(self, kind: str, n: int) -> None:
        name = kind.partition(":")[0]
        for _ in range(n):
            self.n += 1
            at = wrote(self.ledger, f"{self.n}:x" if name == "outcome" else str(self.n), name)
            assert at >= self.told if name == "promotion" else at == self.told

    @precondition(lambda self: self.n)
    @rule()
    def again(self) -> None:
        self.ledger.close()
        self.ledger = Ledger.open(self.url, replayed=True)
        latest = self.ledger.reader.latest()
        assert latest is not None
        assert self.ledger.now_us() == latest
        self.told = latest

    @invariant()
    def it_shows_what_it_was_told(self) -> None:
        assert self.ledger.now_us() == self.told

    @invariant()
    def times_are_in_the_order_of_the_chain(self) -> None:
        """But for promotions, each of which has a time of its own: microseconds later than others of the same time."""
        events = [stored.event for batch in self.ledger.reader.scan() for stored in batch]
        others = [event.at for event in events if event.kind != "promotion"]
        promoted = [event.at for event in events if event.kind == "promotion"]
        assert others == sorted(others)
        assert promoted == sorted(set(promoted))

    def teardown(self) -> None:
        self.ledger.close()
        assert verify(self.url).ok
        self.folder.cleanup()


def test_time_never_goes_back_whatever_is_done() -> None:
    run_state_machine_as_test(Replay, settings=settings(max_examples=15, stateful_step_count=20, deadline=None))


def test_a_replay_on_a_server_that_lost_its_connection_goes_on_alone(postgres: str) -> None:
    with Ledger.open(postgres, replayed=True) as ledger:
        ledger.advance(DAY)
        wrote(ledger, "a")
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'makegood' AND datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert wrote(ledger, "b") == DAY
        stored = ledger.reader.event("b")
        assert stored is not None
        assert stored.partition == 0
