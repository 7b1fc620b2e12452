"""Several workers on one port: a parent that binds it, keeps them alive, and stops them.

The parent serves nothing itself and imports next to nothing. Each worker is a process of its own that inherits the listening socket,
so that the system hands a connection to whichever is free, and a tie: a pair of sockets over which a worker says that it is ready, or
why it is not, and whose closing tells either side that the other is gone. A worker whose parent is gone stops as if it was told to.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from makegood import errors
from makegood.serving.log import Log

_QUICK_S = 10.0  # a worker that lived shorter than that died at once
_LONGEST_S = 30.0  # between two attempts
_STOP_S = 45.0  # after which a worker that was told to stop is killed: more than a drain and a close may take
SHARED = "PROMETHEUS_MULTIPROC_DIR"


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    tie: socket.socket
    since: float
    said: bytes = b""
    model: str = field(default="")  # that it serves, once it is ready


class Supervisor:
    """`n` workers, each told `what` to serve, on the listening socket `sock`."""

    def __init__(self, what: dict[str, str | bool], sock: socket.socket, n: int) -> None:
        self._what, self._sock, self._n = what, sock, n
        self._log = Log()
        self._workers: list[_Worker] = []
        self._due: list[float] = []  # when workers that died are to be started again
        self._quick = 0  # deaths in a row that came at once
        self._asked = 0  # how often we were told to stop
        self._came_up = False

    def run(self, ready: Callable[[str], None]) -> None:
        """Serve until told to stop; call `ready` once, with the model's name, when all workers are.

        Raises what the first worker raised, where none ever came up.
        """
        heard, told = socket.socketpair()
        heard.setblocking(False)
        told.setblocking(False)
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        wakeup = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        try:
            with TemporaryDirectory(prefix="makegood-") as folder, selectors.DefaultSelector() as selector:
                selector.register(heard, selectors.EVENT_READ)
                self._serve(selector, heard, Path(folder), ready)
        finally:
            for worker in self._workers:
                worker.process.kill()
                worker.process.wait()
                worker.tie.close()
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            heard.close()
            told.close()
            self._log.close()

    def _serve(self, selector: selectors.BaseSelector, heard: socket.socket, folder: Path, ready: Callable[[str], None]) -> None:
        self._start(selector, folder)  # one alone first: it makes the ledger's tables, and tells whether anything can be served at all
        announced, stopped, deadline = False, 0, float("inf")
        while self._workers or self._due:
            if self._asked > stopped:
                stopped = self._asked
                self._sock.close()
                self._due.clear()
                deadline = min(deadline, time.monotonic() + _STOP_S)
                for worker in self._workers:
                    worker.process.send_signal(signal.SIGTERM)
            if time.monotonic() > deadline:
                self._log.say("error", "workers did not stop in time and are killed", {"pids": [w.process.pid for w in self._workers]})
                for worker in self._workers:
                    worker.process.kill()
                deadline = float("inf")
            for key, _ in selector.select(self._wait_s(deadline)):
                if key.fileobj is heard:
                    while _received(heard):
                        pass
                else:
                    self._hear(key.data, selector, folder)
            while self._due and self._due[0] <= time.monotonic():
                self._due.pop(0)
                self._start(selector, folder)
            if not announced and all(worker.model for worker in self._workers) and len(self._workers) == self._n:
                announced = True
                ready(self._workers[0].model)

    def _wait_s(self, deadline: float) -> float | None:
        soonest = min([deadline, *self._due])
        return None if soonest == float("inf") else max(0.0, soonest - time.monotonic())

    def _stop(self, *_: object) -> None:
        self._asked += 1

    def _start(self, selector: selectors.BaseSelector, folder: Path) -> None:
        ours, theirs = socket.socketpair()
        what = json.dumps({**self._what, "listen": self._sock.fileno(), "tie": theirs.fileno()})
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "makegood.serving.worker", what],
            pass_fds=(self._sock.fileno(), theirs.fileno()),
            env={**os.environ, SHARED: str(folder)},
            stdin=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is for the parent, which passes it on
        )
        theirs.close()
        ours.setblocking(False)
        worker = _Worker(process, ours, time.monotonic())
        self._workers.append(worker)
        selector.register(ours, selectors.EVENT_READ, worker)

    def _hear(self, worker: _Worker, selector: selectors.BaseSelector, folder: Path) -> None:
        """Take in what a worker says, which is one line; or that it is gone."""
        data = _received(worker.tie)
        if data is None:
            return
        worker.said += data
        if data:
            if worker.said.endswith(b"\n") and (model := json.loads(worker.said).get("ready")):
                worker.model = model
                self._log.say("info", "a worker serves", {"pid": worker.process.pid, "model": model})
                if not self._came_up and not self._asked:
                    self._came_up = True
                    self._due = [time.monotonic()] * (self._n - 1)
            return
        selector.unregister(worker.tie)
        worker.tie.close()
        self._workers.remove(worker)
        code = worker.process.wait()
        for file in folder.glob(f"gauge_live*_{worker.process.pid}.db"):  # what it said of the present is past; its counts still count
            file.unlink()
        if self._asked:
            return
        if not self._came_up:
            raise _why(worker.said, code)
        self._quick = self._quick + 1 if time.monotonic() - worker.since < _QUICK_S else 0
        wait_s = min(_LONGEST_S, 0.25 * 2 ** (self._quick - 1)) if self._quick else 0.0
        facts = {"pid": worker.process.pid, "code": code, "again_in_s": wait_s}
        self._log.say("error", "a worker ended and is started again", facts)
        self._due = sorted([*self._due, time.monotonic() + wait_s])


def _received(sock: socket.socket) -> bytes | None:
    """Return what has come, b"" at the end, None where nothing has."""
    try:
        return sock.recv(1 << 16)
    except BlockingIOError:
        return None
    except ConnectionResetError:
        return b""


def _why(said: bytes, code: int) -> Exception:
    """Return what a worker that never served said was the matter."""
    if not said.endswith(b"\n"):
        return RuntimeError(f"a worker ended with code {code} before it served")
    told = json.loads(said)
    kind: type[errors.MakegoodError] = getattr(errors, told["error"])
    return kind(*(errors.Problem(**problem) for problem in told["problems"]))
