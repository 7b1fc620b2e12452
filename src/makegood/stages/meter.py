"""What work takes of the machine, measured: seconds of CPU and GPU, and the most memory held.

The clocks are the process's: its threads count, and so do its children once they are waited for, and whatever else the process does
meanwhile. Nothing that is learnt or decided depends on them.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from makegood.contracts import Floats, Usage
from makegood.families import accelerator

if sys.platform != "win32":
    import resource

DECISIONS, SECONDS = 300, 2.0
"""Decisions that are measured one at a time, fewer when the time is over."""

BLOCKS = 15
"""Runs of decisions whose means give the median: it leaves out what happens now and then, and needs no fine clock."""

_STATUS, _REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET = "5"  # proc_pid_clear_refs(5): the peak starts again from what is held now


class Meter:
    """What is done inside `with Meter() as meter` is `meter.used` afterwards; meters may be nested.

    On Linux the memory is the peak since the meter was entered, elsewhere that of the process's life, which it cannot exceed.
    """

    used: Usage

    def __enter__(self) -> Self:
        _note()
        reset_peak()
        self._peak: int | None = None
        _open.append(self)
        self._began = _clocks()
        return self

    def __exit__(self, *_: object) -> None:
        wall, cpu, gpu = (_clocks() - self._began).tolist()
        _note()
        _open.remove(self)
        self.used = Usage(wall, cpu, gpu, self._peak)

    def note(self, peak: int) -> None:
        """Take notice of a peak in the memory."""
        self._peak = max(peak, self._peak or 0)


_open: list[Meter] = []  # a reset for an inner one must not lose the peak of those around it


def _note() -> None:
    peak = peak_bytes()
    if peak is not None:
        for meter in _open:
            meter.note(peak)


def reset_peak(refs: Path = _REFS) -> bool:
    """Let the peak of the memory start again from what is held now; return whether that is possible here (on Linux it is).

    Whoever asks the system for this process's peak later, as `time -v` does, hears of the one since.
    """
    try:
        refs.write_text(_RESET)
    except OSError:
        return False
    return True


def _clocks() -> Floats:
    """Return (wall, CPU, GPU) seconds; only their differences mean something."""
    children = os.times()
    cpu = time.process_time() + children.children_user + children.children_system
    return np.array([time.perf_counter(), cpu, accelerator.held_s()])


def peak_bytes(status: Path = _STATUS) -> int | None:
    """Return the most memory that this process has held, since the last reset where there is one; None where nothing tells."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) << 10
    except OSError:  # not Linux
        pass
    if sys.platform == "win32":
        return None
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) << (0 if sys.platform == "darwin" else 10)


def one_decision(decide: Callable[[Mapping[str, Any]], object], rows: Sequence[Mapping[str, Any]]) -> tuple[Usage, int]:
    """Return what one decision takes, and on how many it was measured: rows are decided one at a time, as a service does.

    Seconds are medians over `BLOCKS` runs of the mean within each. The memory is the process's, with all that it holds besides: a
    service that only decides holds less.
    """
    decide(rows[0])  # what is made at the first decision is no part of the others
    with Meter() as meter:
        readings = [_clocks()]
        for row in rows[:DECISIONS]:
            decide(row)
            readings.append(_clocks())
            if readings[-1][0] - readings[0][0] > SECONDS:
                break
    each = np.diff(readings, axis=0)
    blocks = np.array_split(each, min(BLOCKS, len(each)))
    wall, cpu, gpu = np.median([block.mean(axis=0) for block in blocks], axis=0).tolist()
    return Usage(wall, cpu, gpu, meter.used.peak_bytes), len(each)
