"""Where runs are kept, and how often each set of test rows was opened.

DIR/openings.jsonl            one line for each verdict on test rows, never rewritten
DIR/CASE/latest               the name of the last run that made a bundle
DIR/CASE/RUN/                 one run: a JSON file a stage, the bundle, the report
DIR/CASE/service/             what a service of the case keeps: its ledger, its keys
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from makegood.errors import CaseError, Problem, nearest


@dataclass(frozen=True)
class Workspace:
    """A folder of runs; `aside`: those made here do not become their case's latest."""

    root: Path
    aside: bool = False

    def new_run(self, case: str) -> Path:
        """Make and return the folder of a new run; its name sorts by time."""
        name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        folder = self.root / case / name
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            got = f"{self.root}: {error.strerror}"
            raise CaseError(Problem("--workspace", got, "a folder that can be written to", "give another with --workspace")) from None
        return folder

    def finish(self, run: Path) -> None:
        """Make a run its case's latest, unless it is made aside: readers see the one before, or this one."""
        if not self.aside:
            write(run.parent / "latest", run.name)

    def last(self, case: str) -> Path:
        """Return the folder of the last run that made a bundle; raises `CaseError` when there is none."""
        pointer = self.root / case / "latest"
        try:
            return self.root / case / pointer.read_text(encoding="utf-8").strip()
        except OSError:
            known = [p.parent.name for p in self.root.glob("*/latest")]
            raise CaseError(
                Problem(f"workspace {self.root}", case, "a case that was run", nearest(case, known) or f"makegood run {case}")
            ) from None

    def bundles(self, case: str) -> list[Path]:
        """Return the folders of a case's bundles, the oldest run first."""
        return sorted(self.root.glob(f"{case}/*/bundle"))

    def service(self, case: str) -> Path:
        """Return the folder of what a service of the case keeps; whoever writes to it makes it."""
        return self.root / case / "service"

    def open_test(self, test: str, run: Path) -> int:
        """Record that the test rows with this hash are opened for a verdict; return how often they were, this time included.

        The line is durable before the rows are looked at: a run that dies has opened them all the same.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        entry = json.dumps({"test": test, "case": run.parent.name, "run": run.name, "at": datetime.now(UTC).isoformat(timespec="seconds")})
        path = self.root / "openings.jsonl"
        with path.open("ab") as file:  # one write in append mode: two runs at once get a line each
            file.write((entry + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        lines = path.read_text(encoding="utf-8").splitlines()
        mine = lines.index(entry)
        return sum(json.loads(line)["test"] == test for line in lines[: mine + 1])


def write(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def write_json(path: Path, value: dict[str, Any]) -> str:
    """Write a JSON file and return its sha256, the fingerprint by which later stages name it."""
    text = json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)
    write(path, text)
    return hashlib.sha256(text.encode()).hexdigest()
