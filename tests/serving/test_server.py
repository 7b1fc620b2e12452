"""A service as a process: what it survives, what it keeps to itself, and that it stops without losing an answer."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from tests.bundles import ROW
from tests.serving import lives
from tests.serving.processes import serving, workspace

from makegood.ledger.store import Ledger, State
from makegood.serving import keys, server
from makegood.serving.batch import Batcher
from makegood.serving.keys import Keyring
from makegood.serving.locate import locate
from makegood.serving.log import Log
from makegood.serving.metrics import Metrics
from makegood.serving.rates import Rates
from makegood.serving.rollout import Rollout, Rollouts
from makegood.serving.service import Service
from makegood.workspace import Workspace

JSON = {"content-type": "application/json"}


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A workspace of the test's own."""
    return workspace(tmp_path / "space", lives.champion())


def decided(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


# -------------------------------------------------------------------------------------------------------------- hardening


def test_what_is_too_large_is_refused_and_the_connection_lives_on(space: Path) -> None:
    with serving(space) as at, socket.create_connection(at.address, timeout=30) as sock:
        body = b"[" + b" " * (1 << 20) + b"]"
        sock.sendall(b"POST /v1/decisions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body))
        sock.sendall(body)
        first = sock.recv(1 << 16)
        assert first.startswith(b"HTTP/1.1 413 ")
        assert b"application/problem+json" in first
        lone = at.ask("POST", "/v1/decisions", content=body, headers=JSON)
        assert (lone.status_code, lone.json()["title"]) == (413, "The request is too large")
        wrong = at.ask("PUT", "/v1/decisions", json=ROW)
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        assert at.ask("GET", "/healthz").status_code == 200


def test_a_thousand_connections_are_served(space: Path) -> None:
    body = json.dumps(ROW).encode()
    ask = b"POST /v1/decisions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body

    async def one(address: tuple[str, int], go: asyncio.Event) -> bytes:
        reader, writer = await asyncio.open_connection(*address)
        await go.wait()
        writer.write(ask)
        head = await reader.readuntil(b"\r\n")
        writer.close()
        await writer.wait_closed()
        return head

    async def all_of(address: tuple[str, int]) -> list[bytes]:
        go = asyncio.Event()
        tasks = [asyncio.create_task(one(address, go)) for _ in range(1000)]
        await asyncio.sleep(0.5)
        go.set()
        return await asyncio.gather(*tasks)

    with serving(space) as at:
        heads = asyncio.run(all_of(at.address))
        assert set(heads) == {b"HTTP/1.1 200 OK\r\n"}


def test_nothing_secret_is_in_the_log(space: Path) -> None:
    token = keys.create(locate("loans", space).service / keys.FILE, "shop", ("decide",))
    observes = {"Authorization": "Bearer " + keys.create(locate("loans", space).service / keys.FILE, "ops", ("observe",))}
    secret = {"Authorization": f"Bearer {token}", "X-Request-Id": "r-1"}
    row = ROW | {"region": "Sekretonia", "amount": 77123.5}
    with serving(space) as at:
        decided(at.ask("POST", "/v1/decisions", json=row, headers=secret))
        assert at.ask("POST", "/v1/decisions", json=row | {"amount": "Sekretonia"}, headers=secret).status_code == 422
        assert at.ask("GET", "/v1/decisions/Sekretonia?q=Sekretonia", headers=secret).status_code in (403, 404)
        assert at.ask("POST", "/v1/decisions", json=row, headers={"Authorization": "Bearer mg_Sekretonia"}).status_code == 401
        with socket.create_connection(at.address, timeout=30) as sock:
            sock.sendall(b"Sekretonia\r\n\r\n")
            assert sock.recv(1 << 16).startswith(b"HTTP/1.1 400 ")
        assert 'makegood_requests_total{route="unread",status="400"} 1.0' in at.ask("GET", "/metrics", headers=observes).text
        assert at.stop() == 0
    text = at.log.read_text(encoding="utf-8")
    assert not [word for word in (token, token[3:], "Sekretonia", "77123", "mg_") if word in text]
    first = next(line for line in at.lines() if line.get("id") == "r-1")
    assert (first["path"], first["status"], first["rows"], first["key"]) == ("/v1/decisions", 200, 1, "shop")
    assert [line["status"] for line in at.lines() if line.get("path") == "unread"] == [400]
    assert [line["event"] for line in at.lines() if "event" in line][:1] == ["starts"]
    assert [line["event"] for line in at.lines() if "event" in line][-1:] == ["stopped"]
    assert all("time" in line and "level" in line for line in at.lines())


# ------------------------------------------------------------------------------------------------------------------- stop


async def _load(address: tuple[str, int], connections: int, stop_after_s: float, stop: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Ask on connections that are kept, and stop the service under way; return the status by id, and how connections ended.

    "cut" is a connection that was closed before an answer began, "half" within one, and "refused" one that found nobody.
    """
    body = json.dumps(ROW).encode()
    answers: dict[str, int] = {}
    counts = {"cut": 0, "half": 0, "refused": 0}

    async def one(c: int) -> None:
        n = 0
        while True:
            try:
                reader, writer = await asyncio.open_connection(*address)
            except OSError:
                counts["refused"] += 1
                return
            try:
                while True:
                    id, n = f"c{c}-{n}", n + 1
                    head = f"POST /v1/decisions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nidempotency-key: {id}\r\n"
                    writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
                    said = await reader.readuntil(b"\r\n\r\n")
                    length = int(said.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                    await reader.readexactly(length)
                    answers[id] = int(said.split(b" ")[1])
                    if b"connection: close" in said.lower():
                        break
            except asyncio.IncompleteReadError as error:
                counts["half" if error.partial else "cut"] += 1
            except ConnectionError:
                counts["cut"] += 1
            finally:
                writer.close()

    tasks = [asyncio.create_task(one(c)) for c in range(connections)]
    await asyncio.sleep(stop_after_s)
    stop()
    await asyncio.gather(*tasks)
    return answers, counts


def test_sigterm_under_load_loses_no_answer(space: Path) -> None:
    with serving(space) as at:
        began: list[float] = []

        def stop() -> None:
            began.append(time.monotonic())
            at.process.send_signal(signal.SIGTERM)

        answers, ended = asyncio.run(_load(at.address, 24, 1.0, stop))
        assert at.process.wait(60) == 0
        assert time.monotonic() - began[0] < 10
    assert set(answers.values()) == {200}
    assert (ended["half"], ended["refused"]) == (0, 24)  # every client ended by finding nobody
    assert len(answers) > 24
    with serving(space) as at:  # what was answered is there, and what was cut off was either decided whole or not at all
        for id in [*list(answers)[:5], *list(answers)[-15:]]:
            again = at.ask("POST", "/v1/decisions", content=json.dumps(ROW), headers=JSON | {"Idempotency-Key": id})
            assert (again.status_code, again.headers.get("idempotent-replay")) == (200, "true")


def test_a_request_that_is_half_here_is_waited_for(space: Path) -> None:
    body = json.dumps(ROW).encode()
    with serving(space) as at, socket.create_connection(at.address, timeout=30) as sock:
        sock.sendall(b"POST /v1/decisions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body))
        time.sleep(0.3)
        at.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(at.address, timeout=5)
        sock.sendall(body)
        told = b""
        while part := sock.recv(1 << 16):
            told += part
        assert told.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"connection: close" in told
        assert at.process.wait(30) == 0


def test_a_second_signal_leaves_at_once_with_the_ledger_closed(space: Path) -> None:
    with serving(space) as at, socket.create_connection(at.address, timeout=30) as sock:
        decided(at.ask("POST", "/v1/decisions", json=ROW))
        sock.sendall(b"POST /v1/decisions HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n")
        time.sleep(0.3)
        at.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert at.process.poll() is None
        began = time.monotonic()
        assert at.stop(signal.SIGINT) == 0
        assert time.monotonic() - began < 5
    service = locate("loans", space).service
    assert not (service / "ledger.sqlite-wal").exists() or os.path.getsize(service / "ledger.sqlite-wal") == 0
    assert "leaves at once" in [line.get("event") for line in at.lines()]
    anchored = json.loads((service / "anchors.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert anchored["seq"] >= 1


class Broken(Metrics):
    """Metrics of which one part fails, as a defect would."""

    def beat(self, ledger: State, rollout: Rollout, waiting: int) -> None:
        """Fail."""
        raise ZeroDivisionError


def test_a_service_of_which_a_part_fails_ends_with_what_it_failed_of(tmp_path: Path) -> None:
    log_file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    log, metrics = Log(log_file), Broken()
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as ledger:
        space = workspace(tmp_path / "space", lives.champion())
        rollouts = Rollouts.open(ledger, Workspace(space), "loans")
        batcher = Batcher(rollouts, ledger, metrics)
        service = Service(rollouts, ledger, Keyring.open(tmp_path / keys.FILE), Rates(), metrics, log, batcher)
        process = server._Process(service, lambda: None)
        ready: list[str] = []
        sock = socket.create_server(("127.0.0.1", 0))
        with asyncio.Runner() as runner, pytest.raises(ZeroDivisionError):
            runner.run(process.serve(sock, None, lambda: ready.append("ready")))
    log.close()
    os.close(log_file)
    assert ready == ["ready"]
    failed, stops = (json.loads(line) for line in (tmp_path / "log").read_text(encoding="utf-8").splitlines())
    assert (failed["level"], failed["event"], failed["error"]) == ("error", "a part of the service failed", "ZeroDivisionError")
    assert stops["why"] == "a part of the service failed"
