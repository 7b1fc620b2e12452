"""What models take of this machine, side by side: latency of one decision and of its scorer, throughput, memory, size.

Models are measured in turns, forwards and then backwards, so that what else the machine does meanwhile hits all of them alike.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from makegood.contracts import Floats, Usage
from makegood.economics.compute import Prices
from makegood.economics.variants import Measured, Speed
from makegood.model import Model
from makegood.stages import footprint

DECISIONS, SCORED, BATCH = 5, 20, 64  # of each model in one turn; fewer decisions where they take long
FEWEST, MOST = 4, 80
"""Turns that every model gets in any case, and at most."""

Served = Sequence[Mapping[str, Any]]


def measure(models: Sequence[Model], rows: Served, prices: Prices, seconds: float) -> tuple[Measured, ...]:
    """Return what each model takes to decide the same rows, one at a time as a service does; at most about `seconds` on the clocks.

    The memory of each is measured in a process of its own, for as long again; None where that time was over.
    """
    features = _features(models[0], rows)
    spent = [_Spent() for _ in models]
    began = time.perf_counter()
    for model in models:
        model.decide(rows[0])  # what is made at the first decision is no part of the others
        model.scorer(features[:1])
    decisions = max(1, min(DECISIONS, int(DECISIONS * seconds / (FEWEST * DECISIONS * (time.perf_counter() - began)))))
    for turn in range(MOST):
        if turn >= FEWEST and time.perf_counter() - began > seconds:
            break
        for i in range(len(models))[:: -1 if turn % 2 else 1]:
            spent[i].turn(models[i], rows[turn * decisions % len(rows) :][:decisions], features, turn)
    until, found = time.perf_counter() + seconds, list[Measured]()
    for one, model in zip(spent, models, strict=True):
        peak = footprint.held(model.scorer, features) if not found or time.perf_counter() < until else None
        found.append(one.measured(model, peak, prices))
    return tuple(found)


def _features(model: Model, rows: Served) -> Floats:
    """Return the features of rows, as many as a batch has, over again where there are fewer."""
    columns, _ = model.transform.read({name: [row.get(name) for row in rows] for name in model.transform.inputs})
    features = np.ascontiguousarray(model.transform.apply(columns), np.float32)
    return features[np.arange(max(BATCH, len(features))) % len(features)]


class _Spent:
    """The clocks of one model over all turns."""

    def __init__(self) -> None:
        self.decide: list[float] = []
        self.score: list[float] = []
        self.batch: list[float] = []
        self.cpu: list[float] = []

    def turn(self, model: Model, rows: Served, features: Floats, turn: int) -> None:
        cpu = time.process_time()
        for row in rows:
            start = time.perf_counter()
            model.decide(row)
            self.decide.append(time.perf_counter() - start)
        self.cpu.append((time.process_time() - cpu) / len(rows))
        for i in range(SCORED):
            at = (turn * SCORED + i) % len(features)
            start = time.perf_counter()
            model.scorer(features[at : at + 1])
            self.score.append(time.perf_counter() - start)
        start = time.perf_counter()
        model.scorer(features[:BATCH])
        self.batch.append(time.perf_counter() - start)

    def measured(self, model: Model, peak: int | None, prices: Prices) -> Measured:
        decide, score = _speed(self.decide), _speed(self.score)
        used = prices.of(Usage(decide.p50_ms / 1e3, float(np.median(self.cpu)), 0.0, peak))
        return Measured(decide, score, BATCH / float(np.median(self.batch)), peak, len(model.scorer.model), used.money)


def _speed(seconds: Sequence[float]) -> Speed:
    p50, p99 = (1e3 * np.quantile(seconds, (0.5, 0.99))).tolist()
    return Speed(p50, p99)
