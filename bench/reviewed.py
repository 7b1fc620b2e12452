"""B7: a whole review of 1 M (and 10 M) decisions × 20 columns in a real ledger, from `makegood review`'s call to its verdict.

    python bench/reviewed.py
    python bench/reviewed.py --rows 10000000

A case with 14 numbers, 6 categories and an amount is trained; its decisions on made-up rows, of which each unit has two, are written into a
SQLite ledger with their inputs, a challenger in shadow from the middle on, and an outcome for each. Three columns move in the second
half. Timed are: the first look, which reads all events; a second one; and one after another 1% of the decisions came, as on the next day.
A review computes money, the promise test, drift, attribution and the challenger's test; each runs in a process of its own, whose
imports are not timed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

import makegood as mg
import result
from makegood.ledger.events import Decided, Event, Happened, Promoted, Shadow, encode, micro
from makegood.ledger.store import Ledger
from makegood.model import Model

HISTORY, BLOCK, DAY = 5_000, 20_000, 86_400_000_000
START = 1_700_000_000_000_000
NUMBERS, CATEGORIES = [f"number {j}" for j in range(13)], [f"category {j}" for j in range(6)]
CASE = """
case: reviewed
data: {source: rows.parquet, outcome: bad, outcome_delay: 1d, time: at}
decision:
  unit: EUR
  actions:
    approve: {payoff: {no: 0.07 * amount, yes: -0.5 * amount}}
    decline: {payoff: 0}
train: {budget: 4s, families: linear, seed: SEED}
feedback: {missing: 0, promote: {cap: [-2500, 350]}}
"""


def rows(rng: np.random.Generator, n: int, moved: bool) -> dict[str, np.ndarray]:
    """Return columns; where `moved`, three of them are not as they were."""
    seen = {name: rng.normal(0.15 * (moved and j < 3), 1.0, n).round(4) for j, name in enumerate(NUMBERS)}
    seen |= {name: np.array([f"level {c}" for c in range(8)], dtype=object)[rng.integers(0, 8, n)] for name in CATEGORIES}
    seen["amount"] = rng.gamma(3.0, 400.0, n).clip(100, 5000).round(2)
    return seen


def outcome(rng: np.random.Generator, seen: dict[str, np.ndarray]) -> np.ndarray:
    """Return who does not pay back."""
    score = np.column_stack([seen[name] for name in NUMBERS[:5]]) @ np.array([0.9, -0.6, 0.5, 0.4, -0.3]) - 2.2
    return np.where(rng.random(len(score)) < 1.0 / (1.0 + np.exp(-score)), "yes", "no")


def trained(folder: Path, rng: np.random.Generator, seed: int) -> mg.Run:
    """Return a run on a history of its own."""
    seen = rows(rng, HISTORY, moved=False)
    at = (np.arange(HISTORY) * (100 * DAY // HISTORY) + START - 200 * DAY).astype("datetime64[us]")
    table = pa.table({**seen, "at": at, "bad": outcome(rng, seen)})
    return mg.run(mg.Case.parse(CASE.replace("SEED", str(seed))), data=table, workspace=folder, until="bundle")


def written(ledger: Ledger, models: tuple[tuple[str, Model], ...], span: tuple[int, int], total: int) -> None:
    """Write decisions `span` of `total`, a hundred days, and an outcome for each."""
    (name, model), (other, shadow) = models
    for first in range(*span, BLOCK):
        rng = np.random.default_rng(first)
        n = min(BLOCK, span[1] - first)
        seen = rows(rng, n, moved=first >= total // 2)
        bad = outcome(rng, seen)
        made = START + ((first + np.arange(n)) * (100 * DAY / total)).astype(np.int64)
        raw = {**seen, "at": made.astype("datetime64[us]")}
        mine = model.decide_columns(raw, reasons=0)
        theirs = shadow.decide_columns(raw, reasons=0) if first >= total // 2 else None
        pays = model.realised(raw, bad.tolist())
        options = tuple(option.name for option in model.policy.payoffs.options)
        cells = {k: v.tolist() for k, v in seen.items()}
        events = []
        for i in range(n):
            action, did = str(mine.action[i]), int(mine.choices.option[i])
            beside = () if theirs is None else (Shadow(other, str(theirs.action[i]), micro(float(theirs.choices.promise[i]))),)
            body = Decided(
                action=action,
                promise=micro(float(mine.choices.promise[i])),
                unit="EUR",
                propensity=1.0,
                options=options,
                propensities=tuple(float(j == did) for j in range(len(options))),
                predictive={"no": 0.9, "yes": 0.1},
                model=name,
                model_hash="0" * 64,
                case_hash="0" * 64,
                shadows=beside,
            )
            place, at = first + i, int(made[i])
            inputs = {k: cells[k][i] for k in cells}
            id = f"d{place}"
            unit = f"{place // 2:032x}"
            events.append(Event(id, "decision", "reviewed", "", unit, at, b"", encode(body), encode({"inputs": inputs})))
            said = Happened(str(bad[i]), at + DAY // 2, "bench", micro(float(pays[i, did])), "EUR")
            events.append(Event(f"o{place}", "outcome", "reviewed", id, unit, at + DAY // 2, b"", encode(said)))
        for k in range(0, len(events), 500):
            ledger.append(events[k : k + 500], timeout_s=300.0)


LOOK = """
import importlib.util, json, resource, sys, time
import onnxruntime, scipy.special
if importlib.util.find_spec("pandas"):
    import pandas  # which pyarrow does where it is installed
from pathlib import Path
from makegood import reviewing
began = time.perf_counter()
found = reviewing.review("reviewed", workspace=Path(sys.argv[1]), now=int(sys.argv[2])).review
spent = time.perf_counter() - began
print(json.dumps({"seconds": round(spent, 3), "parts": {k: round(v, 3) for k, v in found.seconds.items()}, "n": found.n,
    "verdict": found.verdict, "challenger": [c.decision for c in found.challenges], "attribution": found.attribution is not None,
    "drift": len(found.drift), "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)}))
"""


def look(folder: Path) -> dict[str, object]:
    """Return what a review in a process of its own takes."""
    told = subprocess.run([sys.executable, "-c", LOOK, str(folder), str(START + 102 * DAY)], capture_output=True, text=True, check=False)
    if told.returncode:
        raise SystemExit(told.stderr)
    return dict(json.loads(told.stdout.splitlines()[-1]))


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    n = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rng = np.random.default_rng(0)
        models = []
        for seed in (1, 0):
            made = trained(folder, rng, seed)
            assert made.bundle is not None
            model = mg.load(made.bundle)
            models.append((f"reviewed@{result_hash(made.bundle)}", model))
        place = folder / "reviewed" / "service"
        place.mkdir()
        with Ledger.open(f"sqlite:///{place / 'ledger.sqlite'}") as ledger:
            for verb, (name, _), at in (("promote", models[0], START - DAY), ("shadow", models[1], START + 50 * DAY - 1)):
                body = encode(Promoted(verb, name, "0" * 64, "bench"))
                ledger.append([Event(f"{verb}:{name}", "promotion", "reviewed", "", "", at, b"", body)])
            began = time.perf_counter()
            written(ledger, (models[0], models[1]), (0, n - n // 100), n)
            spent = time.perf_counter() - began
        looks = {"first": look(folder), "again": look(folder)}
        with Ledger.open(f"sqlite:///{place / 'ledger.sqlite'}") as ledger:
            written(ledger, (models[0], models[1]), (n - n // 100, n), n)
        looks["a day later"] = look(folder)
        looks["once more"] = look(folder)
    figures = {
        "rows": n,
        "columns": len(NUMBERS) + len(CATEGORIES) + 1,
        "target": "≤ 3 s at 1 M, ≤ 30 s at 10 M",
        "written_s": round(spent, 1),
        "looks": looks,
        "peak_gb_of_writing": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
    }
    result.write("reviewed" if n == 1_000_000 else f"reviewed_{n}", figures, ("numpy", "pyarrow", "makegood"))


def result_hash(bundle: Path) -> str:
    """Return the short hash by which decisions name a bundle."""
    return hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()[:12]


if __name__ == "__main__":
    main()
