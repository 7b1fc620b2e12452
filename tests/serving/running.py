"""A service that runs: the real application behind uvicorn on a port of its own, in a thread of the test."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import uvicorn
import uvloop

from makegood.ledger.store import Ledger
from makegood.serving.app import app
from makegood.serving.batch import Batcher
from makegood.serving.keys import FILE, Keyring
from makegood.serving.log import Log
from makegood.serving.metrics import Metrics
from makegood.serving.rates import Rates
from makegood.serving.rollout import Rollout
from makegood.serving.service import Service


@dataclass
class Now:
    """What serves, as a test sets it: how the ledger's events bring it about is `test_rollout.py`'s matter."""

    now: Rollout


@dataclass(frozen=True)
class Running:
    """A service, its client, and the log's lines so far."""

    service: Service
    client: httpx2.Client
    port: int
    rollouts: Now
    log: Path


@contextmanager
def running(folder: Path, rollout: Rollout, *, rows: int = 4096, deadline_s: float = 5.0) -> Iterator[Running]:
    """Yield a running service with a ledger of its own in the folder; nobody's key is asked for unless the folder has keys."""
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}")
    log_file = os.open(folder / "log.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    log, metrics, now = Log(log_file), Metrics(), Now(rollout)
    batcher = Batcher(now, ledger, metrics, rows=rows, deadline_s=deadline_s)  # type: ignore[arg-type]
    service = Service(now, ledger, Keyring.open(folder / FILE), Rates(), metrics, log, batcher)  # type: ignore[arg-type]
    server = uvicorn.Server(uvicorn.Config(app(service), host="127.0.0.1", port=0, log_config=None, access_log=False, lifespan="on"))
    thread = threading.Thread(target=lambda: uvloop.run(server.serve()))
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            yield Running(service, client, port, now, folder / "log.jsonl")
    finally:
        server.should_exit = True
        thread.join()
        ledger.close()
        log.close()
        os.close(log_file)
