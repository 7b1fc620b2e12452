"""How fast this machine is now: what must be quick is asked for in its own seconds.

Bounds in seconds were set on the machine of bench/results/start.json while it did nothing else. Another, or the same one beside other
work, is given as many times as long as a fixed piece of work takes there, and never less than the bound: what grows slower by itself is
still found.
"""

from __future__ import annotations

import json
import time

import numpy as np

REFERENCE_S = 0.065
"""What `work` takes where the bounds were set, at the most. It took 0.13 s where bench/start.py found the bare interpreter, the import and
the help 2.5 to 2.8 times as slow as there, which makes 0.046 to 0.052 s; the rest is left out of what is allowed."""


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
