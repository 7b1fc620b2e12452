"""B9: how long `makegood --help`, `import makegood`, and `makegood serve` up to its first decision take.

    python bench/start.py

Medians of nine runs after one that warms the file cache, each a process of its own; the bare interpreter is measured beside them,
since it is part of every figure. The service serves `diagnosis`, with its three reasons, from a ledger of its own at each start; the
decision is asked for by HTTP as soon as something listens, and is durable when it is answered.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import result
from makegood import pipeline

RUNS = 9
MAKEGOOD = str(Path(sys.executable).parent / "makegood")


def main() -> None:
    """Measure in turn, so that a slow moment of the machine hits all alike, and write the result."""
    with tempfile.TemporaryDirectory() as folder:
        run = pipeline.run(pipeline.override("diagnosis", budget="5s"), workspace=folder)
        assert run.bundle is not None
        measured: dict[str, tuple[Callable[[], float], float | None]] = {
            "python": (lambda: timed([sys.executable, "-c", "pass"]), None),
            "import makegood": (lambda: timed([sys.executable, "-c", "import makegood"]), 0.5),
            "makegood --help": (lambda: timed([MAKEGOOD, "--help"]), 0.3),
            "makegood serve, to its first answer": (lambda: served(Path(folder), run.bundle), 2.0),
        }
        seconds: dict[str, list[float]] = {name: [] for name in measured}
        for _ in range(1 + RUNS):
            for name, (measure, _limit) in measured.items():
                seconds[name].append(measure())
    rows = {}
    for name, (_measure, limit) in measured.items():
        median = statistics.median(seconds[name][1:])
        rows[name] = {
            "seconds": round(median, 4),
            "fastest": round(min(seconds[name][1:]), 4),
            "slowest": round(max(seconds[name][1:]), 4),
            "limit": limit,
            "met": None if limit is None else median <= limit,
        }
    result.write("start", {"runs": RUNS, "rows": rows}, ("makegood", "typer", "uvicorn"))


def timed(command: list[str]) -> float:
    """Return the seconds of one run; a command that fails stops the benchmark."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def served(workspace: Path, bundle: Path | None) -> float:
    """Return the seconds from the start of a service to its first decision, and stop it."""
    assert bundle is not None
    row = json.dumps(json.loads((bundle / "golden.json").read_bytes())["rows"][0]).encode()
    start = time.perf_counter()
    command = [MAKEGOOD, "serve", "diagnosis", "--workspace", str(workspace), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        request = urllib.request.Request(f"{url}/v1/decisions", row, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            assert json.loads(answer.read())["action"] in ("biopsy", "watch")
        took = time.perf_counter() - start
        process.terminate()
    return took


if __name__ == "__main__":
    main()
