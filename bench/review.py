"""B7: what a review computes on 1 M (and 10 M) decisions × 20 columns, beside Evidently and NannyML on the same table.

    python bench/review.py --evidently ENV/bin/python --nannyml ENV/bin/python
    python bench/review.py --rows 10000000

The table is made up: 14 numbers and 6 categories, half as many entities as rows; five columns move, three of them matter to the
promise. Measured here is our drift (every column, by unit, ranked by money) and our attribution (20,000 rows of
each period), medians over five runs; each peer, in an environment of its own, compares the same two tables once, one run each. A
peer's seconds are those of its own computation, without reading the file. A peer that fails is reported with its error.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

import result
from makegood.contracts import Floats
from makegood.monitoring.attribution import Rows, attribute
from makegood.monitoring.drift import drift
from makegood.monitoring.reference import Coded, refer

HERE = Path(__file__).resolve().parent
REFERENCE, SAMPLE, RUNS, PEER_S = 50_000, 20_000, 5, 1500
LEVELS = tuple(f"level {i}" for i in range(12))


def columns(rng: np.random.Generator, n: int, moved: bool) -> tuple[dict[str, Any], Floats]:
    """Return 20 columns and the promise on each row; where `moved`, five of the columns are not as they were."""
    seen: dict[str, Any] = {f"number {j}": rng.normal(0.1 * (moved and j in (0, 1, 2)), 1.0, n) for j in range(14)}
    tilt = np.where(np.arange(12) < 6, 1.0 + 0.2 * moved, 1.0)
    for j in range(6):
        p = tilt if j < 2 else np.ones(12)
        seen[f"category {j}"] = Coded(rng.choice(12, n, p=p / p.sum()).astype(np.int32), LEVELS)
    promise = 2.0 * seen["number 0"] - seen["number 3"] + 0.5 * seen["number 1"] ** 2 + 0.2 * seen["category 0"].codes
    return seen, promise + rng.normal(size=n)


def table(seen: dict[str, Any]) -> pa.Table:
    """Return the columns as the peers read them."""
    return pa.table({name: np.array(LEVELS, dtype=object)[c.codes] if isinstance(c, Coded) else c for name, c in seen.items()})


def side(rng: np.random.Generator, n: int, later: int) -> Rows:
    """Return rows of one period for the attribution: three options, an outcome that does not depend on the action, known to all."""
    x = rng.normal(0.2 * later, 1.0, n)
    risk = [1.0 / (1.0 + np.exp(-2.0 * x - 0.3 * w)) for w in range(2)]
    pays = np.array([[1.0, -3.0], [0.4, -1.0], [0.0, 0.0]])
    came = (rng.random(n) < risk[later]).astype(np.int64)
    decided = np.array([[np.digitize((1.0 - 0.3 * m) * x, [-0.3, 0.2 + 0.1 * p]) for p in range(2)] for m in range(2)])
    done = np.where(rng.random(n) < 0.05, 2, decided[later, later])
    payoffs = np.array([pays[:, came].T] * 2)
    expected = np.array([[np.stack([1.0 - p, p], axis=1) @ pays.T] * 2 for p in risk])
    stratum = np.digitize(x, [-1.0, -0.5, 0.0, 0.5, 1.0])
    paid = payoffs[later][np.arange(n), done]
    return Rows((later, later + 1), rng.integers(0, n, n), stratum, decided, done, paid, expected, payoffs, np.ones((n, 3)))


def timed(work: Callable[[], object]) -> float:
    """Return the median seconds of five runs."""
    spent = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


def peer(python: str, script: str, files: tuple[Path, Path]) -> dict[str, Any]:
    """Return what a peer's script prints, or its error."""
    try:
        done = subprocess.run(
            [python, str(HERE / "peers" / script), *map(str, files)], capture_output=True, text=True, check=False, timeout=PEER_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:300]}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--evidently", help="the Python of an environment that holds Evidently")
    parser.add_argument("--nannyml", help="the Python of an environment that holds NannyML")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    then, promised = columns(rng, REFERENCE, moved=False)
    now, promise = columns(rng, given.rows, moved=True)
    units = rng.integers(0, max(given.rows // 2, 1), given.rows)
    reference = refer(then, promised)
    found = drift(reference, now, promise, "EUR", units=units)
    periods = side(rng, SAMPLE, 0), side(rng, SAMPLE, 1)
    ours = {
        "drift_s": timed(lambda: drift(reference, now, promise, "EUR", units=units)),
        "attribution_s": timed(lambda: attribute(*periods, unit="EUR")),
    }
    unit = 1 if sys.platform == "darwin" else 1024
    figures: dict[str, Any] = {
        "rows": given.rows,
        "columns": len(now),
        "target": "drift ≤ 0.6 s and attribution ≤ 0.6 s at 1 M rows, of 3 s for a whole review",
        "makegood": ours | {"peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2)},
        "most at stake": [{"column": m.column, "stake": str(m.stake), "distance": round(m.distance, 3)} for m in found[:5]],
        "peers": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "then.parquet", Path(folder) / "now.parquet"
        for path, seen in zip(files, (then, now), strict=True):
            pyarrow.parquet.write_table(table(seen), path)
        for name, python in (("evidently", given.evidently), ("nannyml", given.nannyml)):
            if python:
                figures["peers"][name] = peer(python, f"{name}_drift.py", files)
    result.write("review" if given.rows == 1_000_000 else f"review_{given.rows}", figures, ("numpy", "scipy", "makegood"))


if __name__ == "__main__":
    main()
