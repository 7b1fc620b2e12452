"""Disks that fail under a writer, one way at a time: what it says, and what is there once the disk is whole again.

    python -m tests.ledger.failing FOLDER FAULTS     each fault by itself, in a process and a ledger of its own
    python -m tests.ledger.failing FOLDER full       FOLDER lies on a small file system, which is filled and emptied
    python -m tests.ledger.failing FOLDER limited    the system lets no file grow beyond 200 kB

What came of it is written as JSON. A submission that is refused is repeated a few times, then the power is cut.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.ledger import faults
from tests.ledger.crashing import Figures, audit, sent

from makegood.errors import LedgerError
from makegood.ledger.store import Ledger

SUBMISSIONS = 12
ATTEMPTS = 4
LIMIT = 200_000


@dataclass
class Told:
    """What a writer acknowledged (its next number), what it refused with, and its state at the end."""

    acknowledged: int = 0
    refusals: list[str] = field(default_factory=list)
    wrote_again: bool = False
    injected: int = 0
    state_ok: bool = False
    opened: bool = False


def write(url: str, submissions: int) -> Told:
    """Submit one thing after another; give up on one that is refused `ATTEMPTS` times."""
    told = Told()
    try:
        ledger = Ledger.open(url)
    except LedgerError as error:
        told.refusals.append(str(error))
        return told
    told.opened = True
    while told.acknowledged < submissions:
        for _ in range(ATTEMPTS):
            try:
                ledger.append(sent(0, told.acknowledged))
                break
            except LedgerError as error:
                told.refusals.append(str(error))
        else:
            break
        told.wrote_again = bool(told.refusals)
        told.acknowledged += 1
    told.state_ok = ledger.state.ok
    return told


def forked(do: Callable[[], Told]) -> Told:
    """Return what a process of its own told; it ends without closing anything."""
    read, pipe = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(pipe, json.dumps(asdict(do())).encode()[:60_000])
        os._exit(0)
    os.close(pipe)
    with os.fdopen(read, "rb") as said:
        answer = said.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, answer
    return Told(**json.loads(answer))


def found(url: str, told: Told) -> dict[str, Any]:
    """Return what was told and what a full read finds, where there is a ledger."""
    figures = Figures()
    if told.opened:
        audit(url, {0: told.acknowledged}, figures)
    return {**asdict(told), "found": asdict(figures)}


def injected(folder: Path, number: int, fault: dict[str, Any]) -> dict[str, Any]:
    """Return what came of one fault: a disk with it, then the ledger as it lies there, opened again and written to."""
    url = f"sqlite:///{folder / f'{number}.sqlite'}"

    def first() -> Told:
        disk = faults.Disk(**fault)
        disk.install()
        told = write(url, SUBMISSIONS)
        told.injected = disk.failed
        return told

    told = forked(first)
    again = forked(lambda: _more(url, told.acknowledged))
    return {"fault": fault, **found(url, told), "reopened": again.acknowledged == told.acknowledged + 2 and not again.refusals}


def _more(url: str, n: int) -> Told:
    """Repeat what was perhaps written, and then nothing else: two submissions."""
    told = Told(acknowledged=n)
    with Ledger.open(url) as ledger:
        before = [receipt.state for receipt in ledger.append(sent(0, n))]
        assert len(set(before)) == 1, f"a part of a submission was there: {before}"
        assert {receipt.state for receipt in ledger.append(sent(0, n))} == {"same"}
    told.acknowledged += 2
    return told


def full(folder: Path) -> dict[str, Any]:
    """Return what a writer told on a full file system, and whether it went on by itself once there was room."""
    url, ballast, told = f"sqlite:///{folder / 'ledger.sqlite'}", folder / "ballast", Told(opened=True)
    room = os.statvfs(folder)
    with Ledger.open(url) as ledger:
        ballast.write_bytes(bytes(room.f_bavail * room.f_frsize // 2))
        while not told.refusals:
            try:
                ledger.append(sent(0, told.acknowledged))
                told.acknowledged += 1
            except LedgerError as error:
                told.refusals.append(str(error))
        filled = told.acknowledged
        told.state_ok = ledger.state.ok
        ballast.unlink()
        for _ in range(20):
            ledger.append(sent(0, told.acknowledged))
            told.acknowledged += 1
        told.wrote_again = ledger.state.ok
    return {"filled": filled, **found(url, told)}


def limited(folder: Path) -> dict[str, Any]:
    """Return what a writer told that the system forbids to make its file longer."""
    url = f"sqlite:///{folder / 'ledger.sqlite'}"

    def first() -> Told:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return write(url, 100_000)

    told = forked(first)
    again = forked(lambda: _more(url, told.acknowledged))
    return {**found(url, told), "reopened": again.acknowledged == told.acknowledged + 2}


def main() -> None:
    """Do what the arguments say."""
    folder, what = Path(sys.argv[1]), sys.argv[2]
    if what in ("full", "limited"):
        out: Any = {"full": full, "limited": limited}[what](folder)
    else:
        out = [injected(folder, n, fault) for n, fault in enumerate(json.loads(what))]
    sys.stdout.write(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
