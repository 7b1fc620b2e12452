"""B9: how long `makegood --help` and `import makegood` take.

    python bench/start.py

Medians of nine runs after one that warms the file cache, each a process of its own; the bare interpreter is measured beside them,
since it is part of both figures.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import result

RUNS = 9
MAKEGOOD = Path(sys.executable).parent / "makegood"
COMMANDS = {
    "python": ([sys.executable, "-c", "pass"], None),
    "import makegood": ([sys.executable, "-c", "import makegood"], 0.5),
    "makegood --help": ([str(MAKEGOOD), "--help"], 0.3),
}
"""What is run, and the seconds it may take."""


def main() -> None:
    """Measure in turn, so that a slow moment of the machine hits all alike, and write the result."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(1 + RUNS):
        for name, (command, _limit) in COMMANDS.items():
            seconds[name].append(timed(command))
    rows = {}
    for name, (_command, limit) in COMMANDS.items():
        median = statistics.median(seconds[name][1:])
        rows[name] = {
            "seconds": round(median, 4),
            "fastest": round(min(seconds[name][1:]), 4),
            "slowest": round(max(seconds[name][1:]), 4),
            "limit": limit,
            "met": None if limit is None else median <= limit,
        }
    result.write("start", {"runs": RUNS, "rows": rows}, ("makegood", "typer"))


def timed(command: list[str]) -> float:
    """Return the seconds of one run; a command that fails stops the benchmark."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
