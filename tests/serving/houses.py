"""A service with its workspace, ledger and rollouts, all real, behind uvicorn on a port of its own in a thread of the test."""

from __future__ import annotations

import os
import shutil
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
from makegood.serving.live import Live
from makegood.serving.log import Log
from makegood.serving.metrics import Metrics
from makegood.serving.rates import Rates
from makegood.serving.rollout import Rollouts
from makegood.serving.service import Service
from makegood.workspace import Workspace

PROOF = {"test": "betting", "design": "paired", "evidence": 27.1, "limit": 20.0, "gain": 0.12, "low": 0.03, "high": 0.21, "units": 5120}
"""What a promotion rests on, as a review reckons it."""


def workspace(folder: Path, case: str, *lives: Live) -> Workspace:
    """Return a workspace with these bundles, a run each, in this order; the last is the case's latest."""
    root = folder / "workspace"
    for i, live in enumerate(lives, 1):
        run = root / case / f"run-{i}"
        run.mkdir(parents=True)
        shutil.copytree(live.folder, run / "bundle")
        (root / case / "latest").write_text(run.name)
    return Workspace(root)


@dataclass(frozen=True)
class House:
    """A running service and its client."""

    service: Service
    client: httpx2.Client
    url: str
    workspace: Workspace

    @property
    def rollouts(self) -> Rollouts:
        return self.service.rollouts


@contextmanager
def house(folder: Path, case: str, first: Live, *others: Live) -> Iterator[House]:
    """Yield a running service of a case, whose champion is `first`; nobody's key is asked for unless the folder has keys."""
    place = workspace(folder, case, first, *others)
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}")
    log_file = os.open(folder / "log.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    log, metrics = Log(log_file), Metrics()
    rollouts = Rollouts.open(ledger, place, case, place.bundles(case)[0], force=first.model.verdict == "refuse")
    batcher = Batcher(rollouts, ledger, metrics)
    service = Service(rollouts, ledger, Keyring.open(folder / FILE), Rates(), metrics, log, batcher)
    server = uvicorn.Server(uvicorn.Config(app(service), host="127.0.0.1", port=0, log_config=None, access_log=False, lifespan="on"))
    thread = threading.Thread(target=lambda: uvloop.run(server.serve()))
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        with httpx2.Client(base_url=url, timeout=20) as client:
            yield House(service, client, url, place)
    finally:
        server.should_exit = True
        thread.join()
        ledger.close()
        log.close()
        os.close(log_file)
