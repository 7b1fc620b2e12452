"""Several workers on one port, over a real PostgreSQL: that they share the work, and that one that dies takes nothing with it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.bundles import ROW
from tests.databases import Server
from tests.serving import lives
from tests.serving.houses import PROOF
from tests.serving.processes import Running, refused, serving, workspace

from makegood.errors import BundleError, Problem
from makegood.ledger.store import Reader
from makegood.serving import supervisor
from makegood.serving.locate import LEDGER

JSON = {"content-type": "application/json"}


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A workspace of the test's own."""
    return workspace(tmp_path / "space", lives.champion())


def workers(at: Running) -> list[int]:
    """Return the process ids of the workers that were ready and are alive."""
    said = [line["pid"] for line in at.lines() if line.get("event") == "a worker serves"]
    return [pid for pid in said if alive(pid)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something holds."""
    give_up = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def both(at: Running) -> list[int]:
    """Return the process ids of two workers, once the log tells them."""
    until(lambda: len(workers(at)) == 2)
    return workers(at)


async def load(at: Running, ids: list[str], meanwhile: Callable[[], None]) -> list[str]:
    """Ask for a decision under each id, over and over until it is answered, while something happens; return the answered ids."""
    body = json.dumps(ROW).encode()
    left, answered = ids[::-1], list[str]()

    async def one() -> None:
        while left:
            id = left.pop()
            while True:
                try:
                    reader, writer = await asyncio.open_connection(*at.address)
                    head = f"POST /v1/decisions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nidempotency-key: {id}\r\n"
                    writer.write(head.encode() + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
                    whole = await reader.read()
                    writer.close()
                except ConnectionError:
                    continue
                if whole.startswith(b"HTTP/1.1 200 ") and whole.endswith(b"}"):
                    answered.append(id)
                    break

    tasks = [asyncio.create_task(one()) for _ in range(16)]
    other = asyncio.get_running_loop().run_in_executor(None, meanwhile)
    await asyncio.gather(*tasks, other)
    return answered


def test_workers_share_a_port_and_one_that_is_killed_loses_nothing(space: Path, postgres: str) -> None:
    with serving(space, "--workers", "2", env={LEDGER: postgres}) as at:
        assert (at.said["workers"], at.said["pid"], at.said["model"]) == (2, at.process.pid, lives.champion().name)
        assert at.said["ledger"].startswith("postgresql://")
        first, second = both(at)

        def killing() -> None:
            time.sleep(0.3)
            os.kill(first, signal.SIGKILL)

        ids = [f"d{i}" for i in range(400)]
        answered = asyncio.run(load(at, ids, killing))
        assert sorted(answered) == sorted(ids)
        until(lambda: len(workers(at)) == 2)
        assert second in workers(at)
        assert first not in workers(at)
        died = [line for line in at.lines() if line.get("event") == "a worker ended and is started again"]
        assert [(line["pid"], line["code"]) for line in died] == [(first, -signal.SIGKILL)]
        metrics = at.ask("GET", "/metrics").text  # whichever worker answers tells of all, and of the dead one what it had counted
        counted = sum(float(line.rpartition(" ")[2]) for line in metrics.splitlines() if line.startswith("makegood_decisions_total{"))
        assert 0 < counted <= 400
        assert f'makegood_model_serving{{model="{lives.champion().name}",role="champion"}} 1.0' in metrics
        assert at.stop() == 0
    reader = Reader.open(postgres)
    stored = [stored.event.id for batch in reader.scan(kinds=("decision",)) for stored in batch]
    reader.close()
    assert sorted(stored) == sorted(ids)  # each of them, and each once
    assert not workers(at)


def test_a_change_reaches_every_worker_and_a_signal_ends_them_all(space: Path, postgres: str) -> None:
    live = lives.challenger()
    run = space / "loans" / "20260102-000000-0000"
    run.mkdir()
    (run / "bundle").symlink_to(live.folder)
    with serving(space, "--workers", "2", env={LEDGER: postgres}) as at:
        assert at.ask("POST", f"/v1/models/{live.name}/promote", json={"evidence": PROOF}).status_code == 200

        def everywhere() -> bool:
            answers = [at.ask("POST", "/v1/decisions", content=json.dumps(ROW), headers=JSON).json()["model"] for _ in range(8)]
            return set(answers) == {live.name}

        until(everywhere, 10)
        pids = both(at)
        os.kill(at.process.pid, signal.SIGINT)
        assert at.process.wait(30) == 0
        assert not any(map(alive, pids))


def test_workers_whose_supervisor_is_killed_stop_as_if_they_were_told_to(space: Path, postgres: str) -> None:
    with serving(space, "--workers", "2", env={LEDGER: postgres}) as at:
        pids = both(at)
        at.process.kill()
        at.process.wait(10)
        until(lambda: not any(map(alive, pids)))
        stops = [line["why"] for line in at.lines() if str(line.get("event")).startswith("stops")]
        assert stops == ["the supervisor is gone"] * 2


def test_workers_that_never_come_up_end_the_service_with_what_was_the_matter(space: Path) -> None:
    code, said = refused(
        "serve", "loans", "--port", "0", "--workers", "2", "--workspace", space, env={LEDGER: "postgresql://u:secret@127.0.0.1:1/none"}
    )
    assert code == 2, said
    assert "error: ledger" in said
    assert "secret" not in said
    assert said.count("error: ") == 1


def test_what_a_worker_says_of_its_end_is_what_the_service_says() -> None:
    said = json.dumps({"error": "BundleError", "problems": [vars(Problem("a", "b", "c"))]}).encode() + b"\n"
    assert repr(supervisor._why(said, 2)) == repr(BundleError(Problem("a", "b", "c")))
    assert repr(supervisor._why(b"", -11)) == repr(RuntimeError("a worker ended with code -11 before it served"))


def test_a_second_signal_is_passed_on(space: Path, postgres: str) -> None:
    with serving(space, "--workers", "2", env={LEDGER: postgres}) as at, socket.create_connection(at.address, timeout=30) as sock:
        sock.sendall(b"POST /v1/decisions HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n")
        time.sleep(0.3)
        at.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert at.process.poll() is None
        began = time.monotonic()
        assert at.stop() == 0
        assert time.monotonic() - began < 10


def test_a_service_outlives_its_database_and_says_meanwhile_what_is_the_matter(space: Path, postgres: str, postgres_server: Server) -> None:
    def said(event: str) -> bool:
        return event in [line.get("event") for line in at.lines()]

    with serving(space, env={LEDGER: postgres}) as at:
        assert at.ask("POST", "/v1/decisions", json=ROW).status_code == 200
        postgres_server.stop("immediate")
        try:
            refusal = at.ask("POST", "/v1/decisions", json=ROW)
            assert (refusal.status_code, refusal.headers["content-type"]) == (503, "application/problem+json")
            assert "retry-after" in refusal.headers
            until(lambda: said("the ledger cannot be read"))
            until(lambda: at.ask("GET", "/readyz").status_code == 503)
            assert at.ask("GET", "/healthz").status_code == 200
        finally:
            postgres_server.start()
        until(lambda: at.ask("POST", "/v1/decisions", json=ROW).status_code == 200)
        until(lambda: at.ask("GET", "/readyz").status_code == 200)
        assert [line.get("event") for line in at.lines()].count("the ledger cannot be read") == 1
        postgres_server.stop("immediate")
        try:
            assert at.stop() == 0
        finally:
            postgres_server.start()
        assert said("no anchor was written")
