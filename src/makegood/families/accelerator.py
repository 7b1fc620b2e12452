"""A clock of the seconds during which training holds a GPU: what CPU clocks do not see, and what is paid for by the hour."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class _Clock:
    seconds: float = 0.0
    depth: int = 0


_clock = _Clock()


@contextmanager
def held() -> Iterator[None]:
    """Count the time inside as a GPU's, whether it computes or waits: nobody else has it meanwhile. Nested, it counts once."""
    began = time.perf_counter()
    _clock.depth += 1
    try:
        yield
    finally:
        _clock.depth -= 1
        if not _clock.depth:
            _clock.seconds += time.perf_counter() - began


def held_s() -> float:
    """Return the seconds for which this process has held a GPU so far, those of the present hold not yet counted."""
    return _clock.seconds
