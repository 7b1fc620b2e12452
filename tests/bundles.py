"""Models of real components, fitted on small tables, for the tests of models and bundles."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from makegood.case import Case
from makegood.contracts import Budget, Dataset, Decision, Floats, Task
from makegood.data import prepare, sources
from makegood.data.profile import profile
from makegood.economics.calibrate import PromiseMap, fit_calibrator
from makegood.economics.conformal import Conformal
from makegood.economics.payoff import Payoffs
from makegood.economics.policy import Policy
from makegood.families.onnx import merge
from makegood.families.tabular import LightGBM, Linear
from makegood.model import Model, Scorer

CASE = """
case: loans
data: {source: loans.csv, outcome: defaulted, protected: [sex]}
decision:
  unit: EUR
  actions:
    approve: {payoff: {no: 0.035 * amount * months / 12, yes: -0.55 * amount}}
    refer: {payoff: {no: 0.02 * amount - 40, yes: -40}}
    decline: {payoff: 0}
  limits: {refer: {max_share: 0.2}}
serve: {reasons: 2}
"""
STOCK = """
case: bakery
data: {source: sales.csv, outcome: sold}
decision:
  unit: EUR
  actions:
    stock:
      quantity: {min: 0, max: 300, step: 20}
      payoff: 3.2 * min(quantity, outcome) - 1.9 * quantity
"""
N = 500
REGIONS = np.array(["Süd", "Nord", "West", "Île", "东", "a = b", "x", "y", "z", *(f"r{i}" for i in range(40))], dtype=object)


def table(n: int = N, seed: int = 0) -> tuple[pa.Table, Floats]:
    """Return columns of every kind that preparation knows, and a latent risk."""
    rng = np.random.default_rng(seed)
    age, income = rng.integers(18, 80, n).astype(float), np.exp(rng.normal(8, 1, n))
    region = REGIONS[np.minimum(rng.geometric(0.25, n) - 1, len(REGIONS) - 1)]
    employed = rng.random(n) < 0.7
    risk = 0.03 * (40 - age) + 0.8 * (8 - np.log(income)) - 0.9 * employed + 0.6 * (region == "Nord") + rng.normal(0, 0.7, n)
    start = datetime(2023, 1, 1)
    columns = {
        "amount": rng.integers(5, 200, n) * 100.0,
        "months": rng.integers(6, 61, n),
        "age": [None if u < 0.1 else a for u, a in zip(rng.random(n), age, strict=True)],
        "income": [None if u < 0.05 else x for u, x in zip(rng.random(n), income, strict=True)],
        "employed": [None if u < 0.02 else bool(e) for u, e in zip(rng.random(n), employed, strict=True)],
        "applied on": [
            start + timedelta(days=int(d), hours=int(h)) for d, h in zip(rng.integers(0, 600, n), rng.integers(0, 24, n), strict=True)
        ],
        "region": [None if u < 0.05 else r for u, r in zip(rng.random(n), region, strict=True)],
        "用途": rng.choice(["车", "房", "学"], n),
        "sex": rng.choice(["f", "m"], n),
    }
    return sources.read(pa.table(columns)).table, risk


def fitted(task: Task, X: Floats, y: Any, seed: int = 0) -> Scorer:
    half = len(X) // 2
    parts = [Dataset(pa.table({"x": np.zeros(half)}), X[at : at + half], y[at : at + half]) for at in (0, half)]
    budget = Budget(20.0, time.perf_counter())
    members = [(family(task).fit(*parts, budget=budget, seed=seed), 0.5) for family in (Linear, LightGBM)]
    return merge(members, X.shape[1], len(task.classes if task.kind == "classes" else task.levels))


def assembled(text: str, outcome: Any, task: Task, frame: pa.Table) -> Model:
    """Return a model of real components, fitted on a small table."""
    case = Case.parse(text)
    whole = frame.append_column(case.data.outcome, pa.array(outcome))
    shape = profile(whole, case.data)
    payoffs = Payoffs.of({name: a.model_dump() for name, a in case.decision.actions.items()}, case.decision.unit, task.classes)
    extra = payoffs.names
    excluded, _ = prepare.unused(shape, (), case.data)
    transform = prepare.fit(whole, shape, excluded, extra=extra)
    raw = prepare.raw_columns(whole)
    columns, _ = transform.read(raw)
    y = np.array([task.classes.index(o) for o in outcome]) if task.kind == "classes" else np.asarray(outcome, dtype=np.float64)
    X = transform.apply(columns)
    scorer = fitted(task, X, y)
    calibrator = fit_calibrator(scorer(X), y) if task.kind == "classes" else None
    conformal = None if calibrator else Conformal(np.linspace(-9.0, 9.0, len(task.levels)), 50)
    background = {name: values[:64] for name, values in raw.items()}
    model = Model(case.to_json(), task, transform, scorer, Policy(payoffs), background, calibrator, conformal, verdict="deploy")
    limits = {name: limit.model_dump() for name, limit in case.decision.limits.items()}
    policy = Policy.fit(payoffs, limits, model.assess(columns)[1], columns).promising(PromiseMap(0.9, -1.0, (0.0,), 400))
    return replace(model, policy=policy)


@cache
def loans() -> Model:
    """Return a model of two classes, three actions and a limit."""
    frame, risk = table()
    return assembled(CASE, np.where(risk > 0.7, "yes", "no").tolist(), Task("classes", ("no", "yes")), frame)


@cache
def bakery() -> Model:
    """Return a model of a number, with one action that has a quantity."""
    frame, risk = table(seed=1)
    return assembled(STOCK, np.round(120 + 40 * risk).clip(0), Task("number"), frame)


ROW = {
    "amount": 5000, "months": 24, "age": 41, "income": 3100.5, "employed": True, "applied on": "2024-02-29T12:00:00", "region": "Nord",
    "用途": "车",
}  # fmt: skip


def bits(d: Decision) -> tuple[object, ...]:
    """Return everything but the id, comparable to the last bit."""
    return replace(d, id=""), float(d.promise).hex(), tuple(float(v).hex() for v in d.predictive.values())
