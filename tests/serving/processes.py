"""Real services for tests: processes of the command line, on a port that was free, stopped by the process id that was started."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from makegood.serving.live import Live

Environment = Mapping[str, str | None]
"""What is other in the environment of a process than in that of the test; None is not there at all."""
CODE = "import sys; from makegood.cli import main; sys.argv[0] = 'makegood'; main()"


@dataclass(frozen=True)
class Running:
    """A service: its process, what it said when it was ready, and where its log goes."""

    process: subprocess.Popen[str]
    said: dict[str, Any]
    log: Path

    @property
    def url(self) -> str:
        """Where it listens."""
        return str(self.said["url"])

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, as sockets want it."""
        parts = urlsplit(self.url)
        return str(parts.hostname), int(parts.port or 0)

    def ask(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """Return the answer to one request on a connection of its own."""
        return httpx2.request(method, self.url + path, timeout=30, **more)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def lines(self) -> list[dict[str, Any]]:
        """Return the log so far."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines() if line.startswith("{")]


def workspace(folder: Path, live: Live) -> Path:
    """Return a workspace in which the case of a bundle was run."""
    run = folder / str(live.model.case["case"]) / "20260101-000000-0000"
    shutil.copytree(live.folder, run / "bundle")
    (run.parent / "latest").write_text(run.name, encoding="utf-8")
    return folder


def command(*words: object) -> list[str]:
    """Return a command line of makegood."""
    return [sys.executable, "-c", CODE, *map(str, words)]


def _environment(changes: Environment | None) -> dict[str, str]:
    return {name: value for name, value in {**os.environ, **(changes or {})}.items() if value is not None}


def refused(*words: object, env: Environment | None = None) -> tuple[int, str]:
    """Run a command that is to fail; return its exit code and what it said on stderr."""
    done = subprocess.run(command(*words), capture_output=True, text=True, encoding="utf-8", timeout=60, env=_environment(env))
    return done.returncode, done.stderr


@contextmanager
def serving(space: Path, *words: object, case: object = "loans", env: Environment | None = None) -> Iterator[Running]:
    """Yield a service of a workspace, and end it if the test has not."""
    log = space / f"log-{len(list(space.glob('log-*')))}.jsonl"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command("serve", case, "--port", "0", "--json", "--workspace", space, *words),
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            encoding="utf-8",
            env=_environment(env),
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        said = json.loads(line or "{}")
        assert "url" in said, log.read_text(encoding="utf-8")
        yield Running(process, said, log)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()
            process.stdout.close()
