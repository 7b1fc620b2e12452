"""B10: seconds and memory of our training loop, beside the plainest PyTorch loop of the same model on the same rows.

    python bench/loop.py

Every run is a process of its own, ours and the plain one in turn; both take the same batches in the same order through AdamW, and
allocate under the same settings of the heap. The ratio is the median over pairs of runs.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

import result

PAIRS = 5
LIMIT = 1.05

SETUP = """
import json, resource, sys, time
import torch
from torch import nn
from makegood.contracts import Budget
from makegood.families._torch import loop, losses
torch.manual_seed(0)
name, kind = sys.argv[1:]
if name == "convolutional network, batch 128":
    X, y, batch = torch.randn(12_800, 1, 28, 28), torch.randint(0, 10, (12_800,)), 128
    head = nn.Sequential(nn.Linear(5408, 128), nn.ReLU(), nn.Linear(128, 10))
    model = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), head)
elif name == "perceptron 64-256-256-10, batch 256":
    X, y, batch = torch.randn(102_400, 64), torch.randint(0, 10, (102_400,)), 256
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
else:
    X, y, batch = torch.randn(3_200, 32, 64), torch.randint(0, 10, (3_200,)), 64
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Flatten(), nn.Linear(2048, 10))
steps = len(X) // batch

def plain():
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    model.train()
    for rows in loop.order(len(X), 0, 0).split(batch):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(X[rows]), y[rows]).backward()
        optimiser.step()

def ours():
    recipe = loop.Recipe(epochs=1, batch_size=batch, lr=1e-3, schedule="constant")
    session = loop.Session(Budget(600.0, time.perf_counter()), 0)
    loop.train(loop.Task(model, losses.cross_entropy()), loop.Rows(X, y), None, recipe, loop.Runtime(), session)

run = {"plain": plain, "ours": ours}[kind]
with loop.Runtime().applied():
    run()
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
print(json.dumps({"step_ms": 1000 * seconds / steps, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""
MODELS = ("convolutional network, batch 128", "perceptron 64-256-256-10, batch 256", "Transformer of 2 layers, 32 columns, batch 64")


def main() -> None:
    """Measure every model in pairs of runs, and write medians and ratios."""
    rows: dict[str, Any] = {}
    for name in MODELS:
        found: dict[str, list[dict[str, float]]] = {"plain": [], "ours": []}
        for pair in range(PAIRS):
            for kind in ("plain", "ours") if pair % 2 else ("ours", "plain"):
                done = subprocess.run([sys.executable, "-c", SETUP, name, kind], capture_output=True, text=True, check=True)
                found[kind].append(json.loads(done.stdout))
        ratios = {key: ratio(found, key) for key in ("step_ms", "peak_mb")}
        medians = {kind: {key: round(statistics.median(r[key] for r in runs), 3) for key in ratios} for kind, runs in found.items()}
        rows[name] = {**medians, "ratio": ratios, "limit": LIMIT, "met": all(value <= LIMIT for value in ratios.values())}
        print(name, rows[name], file=sys.stderr, flush=True)
    result.write("loop", {"pairs": PAIRS, "rows": rows}, ("makegood", "torch"))


def ratio(found: dict[str, list[dict[str, float]]], key: str) -> float:
    """Return the median of ours over plain, pair by pair."""
    return round(statistics.median(a[key] / b[key] for a, b in zip(found["ours"], found["plain"], strict=True)), 3)


if __name__ == "__main__":
    main()
