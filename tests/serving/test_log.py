"""The log: what a line says, that it never says more, and that nobody waits for it."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from makegood.serving.log import Log


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Python's root logger, given back as it was."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:], logger.level = handlers, level


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_request_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        log = Log(file.fileno())
        log.request("r-1", "POST", "/v1/decisions", 200, 0.0012345, "shop", 3)
        log.request("r\n2", "X" * 99, "/v1/decisions/{id}", 500, 1.0, "", 0)
        log.close()
    first, second = lines(path)
    assert first.pop("time").endswith("Z")
    said = {"level": "info", "id": "r-1", "method": "POST", "path": "/v1/decisions", "status": 200, "ms": 1.234, "rows": 3, "key": "shop"}
    assert first == said | {"ms": pytest.approx(1.2345, abs=1e-3)}
    assert (second["level"], second["id"], second["method"]) == ("error", "r\n2", "X" * 16)


def test_lines_come_while_the_service_runs(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        log = Log(file.fileno())
        log.say("info", "ready", {"port": 8000})
        give_up = time.monotonic() + 5
        while not path.stat().st_size and time.monotonic() < give_up:
            time.sleep(0.01)
        assert [(line["event"], line["port"]) for line in lines(path)] == [("ready", 8000)]
        log.close()


def test_no_line_is_lost_or_torn_under_many_threads_worth_of_them(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        log = Log(file.fileno())
        for i in range(20_000):
            log.request(f"r{i}", "GET", "/", 200, 0.0, "", 0)
        log.close(10)
    assert [line["id"] for line in lines(path)] == [f"r{i}" for i in range(20_000)]


def test_a_reader_that_reads_nothing_holds_up_nobody_and_is_told_what_it_missed() -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETFL, os.O_NONBLOCK)
    log = Log(write, most=1000)
    began = time.perf_counter()
    sent = 0
    while not log._dropped:
        log.request("r" * 60, "GET", "/", 200, 0.0, "", 0)
        sent += 1
    assert time.perf_counter() - began < 5
    log._closing = True  # whoever reads comes late, and finds the rest
    log._some.set()
    taken = bytearray()
    while (wrote := select.select([read], [], [], 0.05)[0]) or log._thread.is_alive():
        taken += os.read(read, 1 << 20) if wrote else b""
    told = [json.loads(line) for line in bytes(taken).splitlines()]
    dropped = sum(line["lines"] for line in told if line.get("event") == "lines were dropped")
    assert dropped > 0
    assert sum("id" in line for line in told) + dropped == sent
    os.close(read)
    os.close(write)


def test_a_reader_that_is_gone_ends_nothing() -> None:
    read, write = os.pipe()
    os.close(read)
    log = Log(write)
    log.say("info", "to nobody")
    log.close()
    assert not log._thread.is_alive()
    os.close(write)


def test_what_libraries_log_becomes_lines_without_the_message_of_an_error(tmp_path: Path, root: logging.Logger) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        log = Log(file.fileno())
        log.take_over()
        logging.getLogger("asyncio").warning("slow callback\n")
        logging.getLogger("quiet").info("never")
        try:
            try:
                raise KeyError("4111 1111 1111 1111")
            except KeyError as error:
                raise ValueError("4111 1111 1111 1111") from error
        except ValueError:
            logging.getLogger("makegood.serving").exception("request %s failed", "r-7")
        log.close()
    slow, failed = lines(path)
    assert (slow["level"], slow["event"], slow["logger"]) == ("warning", "slow callback", "asyncio")
    assert (failed["level"], failed["event"], failed["error"]) == ("error", "request r-7 failed", "ValueError")
    assert failed["at"][0].rsplit(" ", 1)[1].startswith("test_what_libraries_log")
    assert failed["cause"]["error"] == "KeyError"
    assert "4111" not in path.read_text(encoding="utf-8")
