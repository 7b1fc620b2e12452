"""What the optimise stage finds on each kind of model: latency, memory, size and paired value of every variant, and the choice.

Real data that come along: digits by a CNN, and by an ensemble of MLPs on their pixels as a table; store-card applications by an ensemble
of trees. One outer fold is learnt, and then as many more as FOLDS says; the start is the average that would be deployed. The model's own
figures are the peer: each variant is measured in turns with it. Usage: python bench/optimise.py [KIND …]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.datasets import load_digits

import result
from makegood import cases
from makegood.case import Case
from makegood.contracts import Estimate
from makegood.economics.compute import Prices
from makegood.economics.variants import Optimised, Terms
from makegood.families.smaller import table
from makegood.golden import json_cell
from makegood.stages.learn import Trials, learn_all
from makegood.stages.optimise import Search, optimise, terms
from makegood.stages.prepare import Prepared, prepare_rows

FOLDS, DECISIONS = 3, 300
CHEAPER = 2.0
"""How many times cheaper, by the scorer's median, some accepted variant is to be on at least two kinds."""


def cnn() -> tuple[Case, pa.Table | None]:
    """Return digits as images."""
    raw = cases.load("digits").to_json()
    return Case.of({**raw, "train": {"families": ["cnn"], "budget": 240.0}, "optimise": {"tolerance": 0.02, "budget": 300.0}}), None


def mlp() -> tuple[Case, pa.Table | None]:
    """Return digits as a table of 64 numbers."""
    raw = cases.load("digits").to_json()
    X, y = load_digits(return_X_y=True)
    columns = {f"pixel {i}": X[:, i] for i in range(X.shape[1])} | {"digit": y.astype(str)}
    data = {**raw["data"], "source": "digits.parquet"}
    train = {"families": ["mlp"], "budget": 240.0}
    return Case.of({**raw, "data": data, "train": train, "optimise": {"tolerance": 0.02, "budget": 300.0}}), pa.table(columns)


def trees() -> tuple[Case, pa.Table | None]:
    """Return applications for a store card."""
    raw = cases.load("credit-risk").to_json()
    return Case.of({**raw, "train": {"families": ["lightgbm"], "budget": 120.0}, "optimise": {"tolerance": 2.0, "budget": 300.0}}), None


KINDS: dict[str, Callable[[], tuple[Case, pa.Table | None]]] = {"CNN": cnn, "MLP ensemble": mlp, "tree ensemble": trees}


def learnt(case: Case, data: pa.Table | None) -> tuple[Prepared, Trials]:
    """Return what is learnt on the first outer folds and on all rows."""
    prepared = prepare_rows(case, data)
    prepared = replace(prepared, splits=replace(prepared.splits, folds=prepared.splits.folds[:FOLDS]))
    return prepared, learn_all(prepared, (), lambda stage, done: print(f"{done:4.0%} {stage}", file=sys.stderr))


def found(kind: str) -> Optimised:
    """Return what optimising a kind comes to."""
    case, data = KINDS[kind]()
    prepared, trials = learnt(case, data)
    names = trials.model.transform.inputs
    served = [{name: json_cell(trials.golden[name][i]) for name in names} for i in range(len(trials.golden[names[0]]))][:DECISIONS]
    assert case.optimise is not None
    limits: Terms = terms(prepared, Estimate(np.nan, np.nan, np.nan))
    return optimise(
        prepared, trials, limits, Search(case.optimise.budget, Prices(), served, table()), lambda stage, done: print(stage, file=sys.stderr)
    )[0]


def figures(kinds: list[str]) -> dict[str, Any]:
    """Return every kind's variants, and how many times cheaper the cheapest accepted one's scorer and decision are."""
    told: dict[str, Any] = {}
    for kind in kinds:
        began = time.perf_counter()
        it = found(kind)
        start = it.start.measured
        assert start is not None
        taken = [v.measured for v in it.variants if v.status in ("accepted", "chosen") and v.measured is not None]
        scorer = max((start.score.p50_ms / m.score.p50_ms for m in taken), default=1.0)
        decision = max((start.decide.p50_ms / m.decide.p50_ms for m in taken), default=1.0)
        told[kind] = {
            **it.to_json(),
            "scorer_times_cheaper": scorer,
            "decision_times_cheaper": decision,
            "seconds": time.perf_counter() - began,
        }
    met = sum(it["scorer_times_cheaper"] >= CHEAPER for it in told.values()) >= 2
    return {"kinds": told, "target": f"on two kinds a variant {CHEAPER:g} times cheaper, accepted", "met": met}


if __name__ == "__main__":
    result.write("optimise", figures(sys.argv[1:] or list(KINDS)), ("numpy", "lightgbm", "onnxruntime", "torch"))
