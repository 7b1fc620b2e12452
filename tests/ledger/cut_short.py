"""A look at a ledger that is killed at every step by which its mirror's files change: the next look must find all that there is.

    python -m tests.ledger.cut_short URL CASE BEHIND

BEHIND is a folder of files that lack a part of the ledger. Prints how often it was killed, and at how many of these the files were left
as they were before.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from makegood.ledger import mirror

CHANGES = ("fsync", "replace", "unlink")


def counted(do: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    """Return what does the same, but kills the process when nothing is left to count down."""

    def step(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return do(*arguments, **named)

    return step


def killed(url: str, case: str, folder: Path, at: int) -> bool:
    """Look in a process of its own, which dies before change number `at`; return whether it did."""
    pid = os.fork()
    if pid == 0:
        left = [at]
        for name in CHANGES:
            setattr(os, name, counted(getattr(os, name), left))
        mirror.opened(url, case, folder)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def told(found: mirror.Mirror) -> list[Any]:
    """Return all that a mirror holds, as plain values."""
    tables = [getattr(found, name).to_pylist() for name in ("decisions", "odds", "tried", "said")]
    rows = np.arange(len(found.decisions))
    cells = {name: found.inputs.column(name, rows).tolist() for name in found.inputs.names}
    inputs = {name: [None if cell is None or cell != cell else cell for cell in column] for name, column in cells.items()}
    return [*tables, found.inputs.kept.tolist(), inputs]


def main() -> None:
    """Kill it at every change, and print the figures."""
    url, case, behind = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    work = behind.with_name("work")
    state = (behind / mirror.STATE).read_bytes()
    whole = told(mirror.opened(url, case))
    kills = before = 0
    while True:
        shutil.copytree(behind, work)
        if not killed(url, case, work, kills):
            break
        before += (work / mirror.STATE).read_bytes() == state
        assert told(mirror.opened(url, case, work)) == whole, f"after {kills} changes"
        named = {file for files in json.loads((work / mirror.STATE).read_bytes())["parts"].values() for file, _ in files}
        left = {path.name for path in work.iterdir()} - named
        assert left == {mirror.STATE, mirror.LOCK}, f"after {kills} changes"
        shutil.rmtree(work)
        kills += 1
    sys.stdout.write(json.dumps({"kills": kills, "before": before}))


if __name__ == "__main__":
    main()
