"""How fast this machine is now: what must be quick is asked for in its own seconds.

Bounds in seconds were set on one machine while it did nothing else. Another, or the same one beside other work, is given as many times as long as
a fixed piece of work takes there, and never less than the bound: what grows slower by itself is still found.
"""

from __future__ import annotations

import json
import time

import numpy as np

REFERENCE_S = 0.065
"""What `work` took where the bounds were set."""


def work() -> None:
    """Compute what a decision is made of: Python, JSON and small arrays."""
    row = {f"column {i}": i / 7 for i in range(40)}
    for _ in range(600):
        told = json.loads(json.dumps(row))
        x = np.array(list(told.values()))
        (x * 2.0 - x.mean()).tolist()
        sum(i * i for i in range(1000))


def allowed(seconds: float) -> float:
    """Return the seconds that may be taken here and now by what may take so many there."""
    began = time.perf_counter()
    work()
    return seconds * max(1.0, (time.perf_counter() - began) / REFERENCE_S)
