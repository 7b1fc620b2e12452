"""A replay: a service that decides at the time that it is told, in a ledger of its own, and never mixes with a live one."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from tests.bundles import ROW
from tests.serving import lives
from tests.serving.processes import Running, command, refused, serving, workspace
from tests.serving.test_openapi import CHECKS
from typer.testing import CliRunner

from makegood import AsyncClient, Client, ServiceError
from makegood.cli import app
from makegood.client import Outcome
from makegood.errors import CaseError, MakegoodError
from makegood.ledger.clock import BEGINNING, END, instant, iso
from makegood.ledger.events import Happened, Private, Stored
from makegood.ledger.reading import Reader
from makegood.ledger.verify import verify
from makegood.serving import keys
from makegood.serving.history import Word, all_paid, paid
from makegood.serving.locate import LEDGER

LIVE = {LEDGER: None}
ELSEWHERE = {LEDGER: "postgresql://nobody@192.0.2.1/live"}
"""Where a live ledger would lie, which no replay is to look at."""


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with loans."""
    return workspace(tmp_path_factory.mktemp("space"), lives.champion())


@pytest.fixture(scope="module")
def replay(space: Path) -> Iterator[Running]:
    """A replay that begins in 2020."""
    with serving(space, "--replay", "--at", "2020-01-01", env=ELSEWHERE) as at:
        yield at


@pytest.fixture
def client(replay: Running) -> Iterator[Client]:
    with Client(replay.url) as asking:
        yield asking


def service(space: Path) -> Path:
    return space / "loans" / "service"


def stored(path: Path) -> dict[str, Stored]:
    """Return all events of a ledger's file, by id."""
    with closing(Reader.open(f"sqlite:///{path}")) as reader:
        return {one.event.id: one for batch in reader.scan() for one in batch}


# -------------------------------------------------------------------------------------------------------------- one replay


def test_it_says_that_it_is_a_replay(space: Path, replay: Running, client: Client) -> None:
    assert (replay.said["replayed"], replay.said["ledger"]) == (True, f"sqlite:///{service(space).resolve()}/replay.sqlite")
    assert replay.ask("GET", "/readyz").json() == {"ready": True, "champion": lives.champion().name, "replayed": True}
    assert client.clock() >= datetime(2020, 1, 1, tzinfo=UTC)
    (starts,) = [line for line in replay.lines() if line.get("event") == "starts"]
    assert (starts["replayed"], starts["at"]) == (True, "2020-01-01T00:00:00Z")
    assert not (service(space) / "anchor.key").exists()


def test_all_that_is_written_bears_the_time_that_it_was_told(space: Path, replay: Running, client: Client) -> None:
    times: dict[str, str] = {}
    client.clock("2020-02-01T12:00:00.000001Z")
    made = client.decide([{**ROW, "amount": 1000 + 10 * i} for i in range(50)])
    times |= {one.id: "2020-02-01T12:00:00.000001Z" for one in made}
    client.clock(datetime(2020, 3, 1, tzinfo=UTC))
    receipts = client.outcomes([Outcome(one, "no") for one in made])
    assert {receipt.state for receipt in receipts} == {"stored"}
    times |= {str(receipt.said["id"]): "2020-03-01T00:00:00Z" for receipt in receipts}
    client.clock(instant("2020-04-01"))
    times[str(client.correct(Outcome(made[0], "yes"), why="a typing error").said["id"])] = "2020-04-01T00:00:00Z"
    times[str(client.override(made[1], "decline", by="Ada").said["id"])] = "2020-04-01T00:00:00Z"
    assert client.decision(made[0].id)["at"] == "2020-02-01T12:00:00Z"
    there = stored(service(space) / "replay.sqlite")
    assert {id: iso(there[id].event.at) for id in times} == times
    (first,) = [one.event for one in there.values() if one.event.kind == "promotion"]
    assert iso(first.at) == "2020-01-01T00:00:00Z"
    happened = msgspec.json.decode(there[f"outcome:{made[0].id}"].event.body, type=Happened)
    assert iso(happened.known_at) == "2020-03-01T00:00:00Z"
    assert made[0].id > "0190"  # ids are the wall's: a UUID of version 7 made in 2020 would be below


def test_what_is_known_later_than_now_is_refused(client: Client) -> None:
    now = client.clock()
    made = client.decide(ROW)
    with pytest.raises(ServiceError, match=f"a time that has come; it is {now:%Y-%m-%dT%H:%M:%SZ}"):
        client.outcome(made, "no", known_at=now + timedelta(days=1))
    assert client.outcome(made, "no", known_at=now).state == "stored"


def test_the_time_goes_forward_alone(replay: Running, client: Client) -> None:
    now = client.clock()
    assert client.clock(now) == now  # a repetition, since an answer may be lost
    later = now + timedelta(hours=1)
    assert asyncio.run(awaited(replay.url, later)) == (later, later)
    answer = replay.ask("POST", "/v1/clock", json={"at": now.isoformat()})
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
    assert answer.json()["detail"] == "The time of a replay goes forward alone"
    (error,) = answer.json()["errors"]
    assert error["expected"] == f"{iso(instant(later.isoformat()))} or later: the time of a replay goes forward"
    with pytest.raises(ServiceError, match="or later: the time of a replay goes forward"):
        client.clock(now)
    assert client.clock() == later


async def awaited(url: str, at: datetime) -> tuple[datetime, datetime]:
    async with AsyncClient(url) as asking:
        return await asking.clock(at), await asking.clock()


WRONG: list[Any] = [{}, [], {"at": "soon"}, {"at": True}, {"at": None}, {"at": 1.5}, {"at": END + 1}, {"at": "2030-01-01", "by": "Ada"}]


@pytest.mark.parametrize("said", WRONG)
def test_what_is_no_time_is_refused(replay: Running, client: Client, said: Any) -> None:
    before = client.clock()
    answer = replay.ask("POST", "/v1/clock", json=said)
    assert (answer.status_code, answer.json()["status"]) == (422, 422)
    assert len(answer.json()["errors"]) == 1
    assert client.clock() == before


def test_a_client_is_told_which_times_there_are(replay: Running, client: Client) -> None:
    with pytest.raises(CaseError, match="expected a time with its zone"):
        client.clock(datetime(2031, 1, 1))
    answer = replay.ask("POST", "/v1/clock", content=b"at=2031-01-01", headers={"content-type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 415


def test_the_description_has_the_clock(replay: Running) -> None:
    found = replay.ask("GET", "/openapi.json").json()
    clock = found["paths"]["/v1/clock"]
    assert (clock["get"]["operationId"], clock["post"]["operationId"]) == ("clock", "advance")
    schema = clock["post"]["requestBody"]["content"]["application/json"]["schema"]
    right = jsonschema_rs.validator_for(schema)
    assert all(right.is_valid({"at": at}) for at in ("2020-01-01", BEGINNING, END))
    assert not any(right.is_valid(said) for said in WRONG if said != {"at": "soon"})  # which times a text tells, no schema says
    told = jsonschema_rs.validator_for(clock["get"]["responses"]["200"]["content"]["application/json"]["schema"])
    assert told.is_valid(replay.ask("GET", "/v1/clock").json())


def test_whatever_time_is_told_is_answered_as_described(replay: Running) -> None:
    """The last of this replay: it may be at the end of the calendar now."""
    asked: set[int] = set()
    for found in schemathesis.openapi.from_url(f"{replay.url}/openapi.json").include(path="/v1/clock").get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]

        @settings(max_examples=20, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), deadline=None)
        @given(case=st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode)))
        def ask(case: Any) -> None:
            answer = case.call()
            asked.add(answer.status_code)
            case.validate_response(answer, checks=CHECKS)

        ask()
    assert {200, 422} <= asked


def test_a_key_that_changes_things_is_needed_to_tell_the_time(tmp_path: Path) -> None:
    space = workspace(tmp_path / "space", lives.champion())
    watcher = keys.create(service(space) / keys.FILE, "watcher", ("decide", "observe"))
    keeper = keys.create(service(space) / keys.FILE, "keeper", ("admin",))
    bait = service(space) / "spool.jsonl"
    bait.write_bytes(b"of a live ledger")
    with serving(space, "--replay", "--ledger", tmp_path / "other.sqlite", env=ELSEWHERE) as at:
        assert at.said["ledger"] == f"sqlite:///{tmp_path.resolve()}/other.sqlite"
        with Client(at.url, watcher) as client:
            assert client.clock() == datetime(1970, 1, 1, tzinfo=UTC)
            with pytest.raises(ServiceError, match="admin"):
                client.clock("1990-01-01")
        with Client(at.url, keeper) as client:
            assert client.clock("1990-01-01") == datetime(1990, 1, 1, tzinfo=UTC)
        assert at.stop() == 0
    assert (bait.read_bytes(), (service(space) / "replay.sqlite").exists()) == (b"of a live ledger", False)


# ------------------------------------------------------------------------------------------------------- live and replayed


def test_a_restart_goes_on_and_nothing_mixes(tmp_path: Path) -> None:
    space = workspace(tmp_path / "space", lives.champion())
    with serving(space, "--replay", "--at", "2001-01-01", env=LIVE) as at, Client(at.url) as client:
        client.clock("2001-02-01")
        client.decide(ROW, id="one")
        client.clock("2001-03-01")
        code, said = refused("serve", "loans", "--replay", "--port", "0", "--workspace", space)
        assert (code, "writes to it" in said) == (2, True)
        with serving(space, env=LIVE) as live, Client(live.url) as other:  # beside it, in the ledger that is its own
            other.decide(ROW, id="two")
            assert "replayed" not in live.said
            assert "replayed" not in live.ask("GET", "/readyz").json()
            assert "/v1/clock" not in live.ask("GET", "/openapi.json").json()["paths"]
            with pytest.raises(ServiceError, match="Nothing is at /v1/clock"):
                other.clock("2001-04-01")
            assert live.ask("GET", "/v1/clock").status_code == 404
            assert live.stop() == 0
        assert at.stop() == 0
    with serving(space, "--replay", "--at", "2001-01-15", env=LIVE) as at, Client(at.url) as client:
        assert client.clock() == datetime(2001, 2, 1, tzinfo=UTC)  # of the latest event, which is later than --at
        client.decide(ROW, id="three")
        assert at.stop() == 0
    ledger, replayed = service(space) / "ledger.sqlite", service(space) / "replay.sqlite"
    start = f"start:{lives.champion().name}"
    assert stored(ledger).keys() == {start, "two"}
    assert {id: iso(one.event.at) for id, one in stored(replayed).items()} == {
        start: "2001-01-01T00:00:00Z",
        "one": "2001-02-01T00:00:00Z",
        "three": "2001-02-01T00:00:00Z",
    }
    assert abs(datetime.now(UTC).timestamp() - stored(ledger)["two"].event.at / 1e6) < 600
    assert (verify(str(ledger)).findings, verify(str(replayed)).ok) == ((), True)
    code, said = refused("serve", "loans", "--port", "0", "--workspace", space, env={LEDGER: f"sqlite:///{replayed}"})
    assert (code, said) == (2, "error: ledger: got 'a replay'; expected a live ledger; open it as a replay, or name another\n")
    code, said = refused("serve", "loans", "--replay", "--ledger", ledger, "--port", "0", "--workspace", space)
    assert (code, "ledger: got 'a live ledger'; expected a replay, or no ledger yet" in said) == (2, True)
    assert stored(ledger).keys() == {start, "two"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--replay", "--host", "0.0.0.0"),
            "--host: got '0.0.0.0'; expected an address that this machine alone reaches, since it is a replay",
        ),
        (("--replay", "--workers", "2"), "--workers: got '2 and a replay'; expected 1, since the clock of a replay is one process's"),
        (("--replay", "--at", "soon"), "--at: got 'soon'; expected a time such as 2024-02-29T12:00:00Z, a date"),
        (("--ledger", "other.sqlite"), "--ledger: got 'other.sqlite'; expected --replay as well; a live service has the wall's time"),
        (("--at", "2020-01-01"), "--at: got '2020-01-01'; expected --replay as well"),
    ],
)
def test_what_cannot_be_replayed_is_told(space: Path, words: tuple[str, ...], said: str) -> None:
    folder = workspace(space / "keyed", lives.champion()) if "--host" in words else space
    if folder != space:
        keys.create(service(folder) / keys.FILE, "whoever", ("decide",))  # with which a live service would listen there
    told = CliRunner().invoke(app, ["serve", "loans", "--port", "0", "--workspace", str(folder), *words])
    assert isinstance(told.exception, MakegoodError)
    assert str(told.exception).startswith(said)


def test_the_line_for_people_says_it(tmp_path: Path) -> None:
    space = workspace(tmp_path / "space", lives.champion())
    process = subprocess.Popen(
        command("serve", "loans", "--replay", "--port", "0", "--workspace", space),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    process.terminate()
    process.communicate(timeout=60)
    assert line.startswith(f"{lives.champion().name} replays at http://127.0.0.1:")


# ------------------------------------------------------------------------------------------------------------- many at once

WORDS = st.tuples(
    st.sampled_from(["no", "yes"]),
    st.sampled_from([("approve", None), ("refer", None), ("decline", None), ("approve", 2.0), ("nothing", None)]),
    st.dictionaries(st.sampled_from(["amount", "months"]), st.sampled_from([None, 5000, 1e300, "many", 12.5]), max_size=2),
    st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(WORDS, max_size=12))
def test_what_many_decisions_paid_is_what_each_of_them_did(said: list[Any]) -> None:
    live = lives.champion()
    words = [Word(Private() if erased else Private({**ROW, **cells}), outcome, done) for outcome, done, cells, erased in said]
    assert all_paid(live, words) == [paid(live, word.private, word.outcome, word.done) for word in words]
