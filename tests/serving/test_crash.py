"""`kill -9` of a whole service under load: no decision and no outcome that it answered is lost, doubled or changed."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import statistics
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from tests.bundles import ROW
from tests.pace import allowed
from tests.serving import lives
from tests.serving.processes import Running, serving, workspace

from makegood.ledger.events import Decided, Happened, Private, Stored, micro
from makegood.ledger.store import Reader
from makegood.ledger.verify import verify
from makegood.serving.locate import LEDGER, locate

KILLS, CLIENTS = 30, 8
UNTRACED = {"COVERAGE_PROCESS_CONFIG": None}
"""A killed process saves no coverage, and measuring it would be a quarter of the start that is timed."""


def rows(client: int, n: int) -> list[dict[str, Any]]:
    """Return what a client asks as its n-th: one row, every fourth time two."""
    return [{**ROW, "amount": 500 + 97 * ((n + i) % 191), "age": 18 + (client + n) % 60} for i in range(2 if n % 4 == 3 else 1)]


@dataclass
class Load:
    """Clients that ask, report the outcome of what they got, and repeat under the same ids what was not answered."""

    addresses: dict[int, tuple[str, int]] = field(default_factory=dict)  # of the services that run now
    decisions: dict[str, tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict)  # row and answer, by id
    outcomes: dict[str, str] = field(default_factory=dict)  # by decision
    asked: set[str] = field(default_factory=set)  # ids of decisions, answered or not
    cut: int = 0  # requests whose connection ended before their answer
    replayed: int = 0  # repetitions of what had been stored
    over: bool = False

    async def client(self, number: int) -> None:
        """Ask until it is over, and until the last request is answered."""
        n = 0
        while not self.over:
            key, sent = f"c{number}-{n}", rows(number, n)
            names = [key] if len(sent) == 1 else [f"{key}.{i}" for i in range(len(sent))]
            self.asked |= set(names)
            said = await self.answer("/v1/decisions", key, sent[0] if len(sent) == 1 else sent, 200)
            answers = said if isinstance(said, list) else [said]
            assert [answer["id"] for answer in answers] == names
            for name, row, answer in zip(names, sent, answers, strict=True):
                self.decisions[name] = row, answer
            for name in names:
                value = "yes" if n % 3 == 0 else "no"
                receipt = await self.answer("/v1/outcomes", f"o-{name}", {"decision": name, "outcome": value}, 201)
                assert receipt["decision"] == name
                self.outcomes[name] = value
            n += 1

    async def answer(self, path: str, key: str, body: Any, status: int) -> Any:
        """Return the answer to a request, which is sent again, as it was, whenever its connection ends without one."""
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nidempotency-key: {key}\r\nconnection: close\r\n"
        for turn in count(len(self.asked)):  # whoever answered last
            try:
                reader, writer = await asyncio.open_connection(*self.addresses[turn % len(self.addresses)])
            except OSError:  # nobody listens there now
                await asyncio.sleep(0.02)
                continue
            try:
                writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(content) + content)
                top = (await reader.readuntil(b"\r\n\r\n")).lower()
                said = await reader.readexactly(int(top.split(b"content-length: ")[1].split(b"\r\n")[0]))
            except (asyncio.IncompleteReadError, ConnectionError):
                self.cut += 1
                continue
            finally:
                writer.close()
            again = b"idempotent-replay: true" in top
            self.replayed += again
            assert int(top.split(b" ")[1]) in ({status, 200} if again else {status}), (top, said)
            return json.loads(said)

    def run(self) -> None:
        """Let every client ask."""

        async def every() -> None:
            await asyncio.gather(*(self.client(number) for number in range(CLIENTS)))

        asyncio.run(every())


def stored(ledger: str) -> dict[str, Stored]:
    """Return what lies in a ledger, by id, each id once."""
    reader = Reader.open(ledger)
    every = [event for batch in reader.scan() for event in batch]
    reader.close()
    assert len({one.event.id for one in every}) == len(every)
    return {one.event.id: one for one in every}


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("services", [1, 2], ids=["SQLite", "two on PostgreSQL"])
def test_no_kill_of_a_service_loses_or_doubles_what_it_answered(services: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    live = lives.champion()
    space = workspace(tmp_path / "space", live)
    url = locate("loans", space).ledger if services == 1 else str(request.getfixturevalue("postgres"))
    load, starts, errors = Load(), list[float](), list[BaseException]()

    def loaded() -> None:
        try:
            load.run()
        except (AssertionError, OSError, ValueError) as error:
            errors.append(error)

    thread = threading.Thread(target=loaded)
    running: dict[int, Running] = {}
    last = KILLS + services - 1
    try:
        with ExitStack() as stack:
            for turn in range(last + 1):
                began = time.perf_counter()
                at = stack.enter_context(serving(space, env={LEDGER: url, **UNTRACED}))
                assert at.ask("POST", "/v1/decisions", json=ROW, headers={"Idempotency-Key": f"first-{turn}"}).status_code == 200
                starts.append((time.perf_counter() - began) / allowed(1.0))
                running[turn % services] = at
                load.addresses[turn % services] = at.address
                if len(running) < services:
                    continue
                if not load.asked:
                    thread.start()
                time.sleep(0.05 + 0.6 / services * (turn * 0.618 % 1))
                if turn < last:
                    assert running[(turn + 1) % services].stop(signal.SIGKILL) == -signal.SIGKILL
                else:  # those that live answer all that is left
                    load.over = True
                    thread.join(60)
                assert errors == []
    finally:
        load.over = True
    assert not thread.is_alive()
    found = verify(url, folder=locate("loans", space).service)
    assert found.ok, found.findings
    there = stored(url)
    decided, happened = ({id: one for id, one in there.items() if one.event.kind == kind} for kind in ("decision", "outcome"))
    assert decided.keys() == load.decisions.keys() | {f"first-{turn}" for turn in range(last + 1)}
    assert load.asked == load.decisions.keys(), "in the end each was answered"
    for id, (row, answer) in load.decisions.items():
        event = decided[id].event
        body, private = msgspec.json.decode(event.body, type=Decided), msgspec.json.decode(event.private or b"", type=Private)
        assert (answer["model"], body.model) == (live.name, live.name)
        assert (answer["action"], micro(answer["promise"])) == (body.action, body.promise)
        assert {name: private.inputs[name] for name in row} == row
        alone = live.model.decide(row)
        assert (answer["action"], micro(answer["promise"])) == (alone.action, micro(alone.promise))
    assert {one.event.about: msgspec.json.decode(one.event.body, type=Happened).value for one in happened.values()} == load.outcomes
    assert len(happened) == len(load.outcomes)
    assert load.cut >= KILLS, "requests were under way when it was killed"
    assert load.replayed > 0, "some of them had been stored"
    assert len(load.decisions) > 500
    # In seconds of the machine that the bound is for. Of two, the other one answers all the load meanwhile, on the cores that a start needs.
    assert statistics.median(starts) <= 2 * services, sorted(starts)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="no limit can be set on another process here")
def test_a_disk_that_takes_no_more_is_told_of_and_nothing_is_acknowledged_falsely(tmp_path: Path) -> None:
    live = lives.champion()
    space = workspace(tmp_path / "space", live)
    place = locate("loans", space)
    answered: dict[str, bool] = {}
    with serving(space) as at:

        def ask(key: str) -> httpx2.Response:
            said = at.ask("POST", "/v1/decisions", json=ROW, headers={"Idempotency-Key": key})
            answered[key] = said.status_code == 200
            return said

        assert all(ask(f"before-{i}").status_code == 200 for i in range(40))
        grown = max(os.path.getsize(place.service / name) for name in ("ledger.sqlite", "ledger.sqlite-wal"))
        resource.prlimit(at.process.pid, resource.RLIMIT_FSIZE, (grown + 1, resource.RLIM_INFINITY))
        said = ask("during")
        assert (said.status_code, said.headers["content-type"]) == (503, "application/problem+json")
        assert "The ledger cannot be written" in said.json()["detail"]
        assert int(said.headers["retry-after"]) >= 1
        outcome = at.ask("POST", "/v1/outcomes", json={"decision": "before-0", "outcome": "yes"})
        assert outcome.status_code == 503
        ready = at.ask("GET", "/readyz")
        assert ready.status_code == 503
        assert "ledger" in ready.text
        assert at.ask("GET", "/healthz").status_code == 200
        assert at.ask("GET", "/v1/decisions/before-0").json()["outcomes"] == []
        resource.prlimit(at.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert at.stop() == 0
    with serving(space) as at:
        again = at.ask("POST", "/v1/decisions", json=ROW, headers={"Idempotency-Key": "before-0"})
        assert again.headers["idempotent-replay"] == "true"
        assert at.ask("POST", "/v1/decisions", json=ROW, headers={"Idempotency-Key": "during"}).status_code == 200
    there = {id for id, one in stored(place.ledger).items() if one.event.kind == "decision"}
    assert {id for id, durable in answered.items() if durable} | {"during"} == there
    assert verify(place.ledger, folder=place.service).ok
