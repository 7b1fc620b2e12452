"""From a learnt model to the variant of it that is deployed: measured here, compared in money, chosen by `economics.variants`.

A variant is a procedure. On each outer fold it is applied to the model that was learnt without that fold, with that model's own rows, and
decides the fold's held-out rows under the same calibration and policy: what it pays there, less what the start pays, is paired by row.
Only then is it the same procedure, applied to the model of all rows, that is deployed. The evaluation's own figures stay those of the
start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from makegood.contracts import Dataset, Estimate, Floats, Predictive, Probabilities, Quantiles, Task
from makegood.economics import value
from makegood.economics.compute import Prices
from makegood.economics.variants import SHARE, Measured, Optimised, Terms, Variant, choose, level
from makegood.families.onnx import Scorable, merge
from makegood.families.smaller import CALIBRATED, Lesson, Made, Part, Recipe, Start
from makegood.model import Model
from makegood.scorer import Scorer
from makegood.stages.held_out import HeldOut
from makegood.stages.learn import Learnt, Round, Trials, held_out, refer_to
from makegood.stages.measuring import Served, measure
from makegood.stages.prepare import Prepared

START = "as trained"
MEASURING = 0.15
"""Share of the budget that measuring latency may take, and memory as much again."""

COMPARING = 0.6
"""Share of the budget that is left to measuring and comparing: no variant is made after that."""

_UNTRIED = "the budget was over"


@dataclass(frozen=True)
class Search:
    """How to search: the seconds that it may take, the prices of computing, and the rows that are decided to measure, as served."""

    budget: float
    prices: Prices
    served: Served
    recipes: tuple[Recipe, ...]


def terms(prepared: Prepared, gain: Estimate) -> Terms:
    """Return what the case lets a variant lose: what it declares, else `SHARE` of the gain over the best baseline, if there is one."""
    case = prepared.case
    declared = case.optimise.tolerance if case.optimise else None
    tolerance = SHARE * max(0.0, gain.value) if declared is None else declared
    latency = case.serve.latency
    return Terms(prepared.policy.payoffs.unit, float(tolerance), None if latency is None else 1e3 * latency)


def optimise(
    prepared: Prepared, trials: Trials, terms: Terms, search: Search, progress: Callable[[str, float], None] = lambda stage, done: None
) -> tuple[Optimised, Model]:
    """Return what was found, and the model with the chosen scorer, which says so itself (`Model.optimised`).

    The budget is kept to within a fit: variants that it leaves no time for are listed as not tried.
    """
    began = time.perf_counter()
    final = _start(prepared, trials.learnt, trials.model.scorer)
    rounds = [(r, _start(prepared, r.learnt, None)) for r in trials.rounds]
    pieces = len(rounds) + 1

    def left() -> float:
        return search.budget - (time.perf_counter() - began)

    def make(recipe: Recipe) -> Made | None:
        progress(f"optimise: {recipe.name}", 0.86)
        return _made(recipe, final, left() / pieces / 2.0) if left() > COMPARING * search.budget else None

    found, models = tried(trials.model, search.recipes, make)
    progress("optimise: measure", 0.87)
    figures = measure(list(models.values()), search.served, search.prices, MEASURING * search.budget)
    measured = dict(zip(models, figures, strict=True))
    pools: dict[str, HeldOut] = {}
    recipes = {recipe.name: recipe for recipe in search.recipes}
    for name in sorted(set(measured) - {START}, key=lambda name: (measured[name].decide.p50_ms, name)):  # the quickest first
        progress(f"optimise: {name} on held-out rows", 0.88)
        pool = _compared(prepared, recipes[name], rounds, left)
        if pool is not None:
            pools[name] = pool
    start = HeldOut.pool([r.held for r in trials.rounds])
    variants, why = judged(found, measured, {name: (pool.payoff, start.payoff) for name, pool in pools.items()}, terms, start.clusters)
    done = Optimised(terms, variants, why, len(start), "held-out rows of every outer fold", search.budget, time.perf_counter() - began)
    model = replace(models[done.chosen.name], optimised=done.to_json())
    if done.chosen.name in pools:  # what drift and promises are told from is what this model does
        model = replace(model, reference=refer_to(prepared, pools[done.chosen.name], model.transform))
    return done, model


def judged(
    found: Sequence[Variant],
    measured: Mapping[str, Measured],
    paid: Mapping[str, tuple[Floats, Floats]],
    terms: Terms,
    clusters: Any = None,
    seed: int = 0,
) -> tuple[tuple[Variant, ...], str]:
    """Return the variants with their figures and what becomes of each, and why the chosen one is.

    `paid` holds what each variant and the start paid on the same rows. The intervals hold together for all variants but those that are
    slower than the start, which cannot be accepted, whatever they pay.
    """
    bare = [replace(v, measured=measured.get(v.name)) for v in found]
    same = Estimate(0.0, 0.0, 0.0, terms.unit)
    hopeful, _ = choose([replace(v, delta=same) if v.measured else v for v in bare], terms)
    confidence = level(sum(v.name in paid and v.status in ("accepted", "chosen") for v in hopeful))
    full = []
    for v in bare:
        if v.name in paid:
            a, b = paid[v.name]
            v = replace(v, delta=value.paired(a, b, terms.unit, clusters=clusters, level=confidence, seed=seed))
        elif v.measured is not None and v is not bare[0]:
            v = replace(v, status="not tried", reason=_UNTRIED)
        full.append(v)
    full[0] = replace(full[0], delta=replace(same, level=confidence))
    return choose(full, terms)


def tried(model: Model, recipes: Sequence[Recipe], make: Callable[[Recipe], Made | None]) -> tuple[list[Variant], dict[str, Model]]:
    """Return every variant, the start first, and a model for each that there is; `make` gives None where there was no time left."""
    found, models = [Variant(START, 0)], {START: model}
    for recipe in recipes:
        made = make(recipe)
        if isinstance(made, Scorer):
            models[recipe.name] = replace(model, scorer=made)
        found.append(_variant(recipe, made))
    return found, models


def _variant(recipe: Recipe, made: Made | None) -> Variant:
    if made is None:
        return Variant(recipe.name, recipe.steps, status="not tried", reason=_UNTRIED)
    if isinstance(made, str):
        return Variant(recipe.name, recipe.steps, status="unsuited", reason=made)
    return Variant(recipe.name, recipe.steps)


def _made(recipe: Recipe, start: Start, seconds: float) -> Made:
    """Return what a recipe makes of a start; what it fits, it fits within `seconds`."""
    lesson = None if start.lesson is None else replace(start.lesson, seconds=max(seconds, 0.0))
    return recipe.make(replace(start, lesson=lesson))


def _compared(prepared: Prepared, recipe: Recipe, rounds: Sequence[tuple[Round, Start]], left: Callable[[], float]) -> HeldOut | None:
    """Return what the variant does on the held-out rows of all outer folds; None where the budget ended first.

    Where it does not suit a fold's model, which may be an average of fewer, that fold's start stands for it: so would it be deployed.
    """
    parts = []
    for i, (r, start) in enumerate(rounds):
        if left() <= 0.0:
            return None
        made = _made(recipe, start, left() / (len(rounds) - i) / 2.0)
        parts.append(r.held if isinstance(made, str) else held_out(prepared, r.learnt, r.rows, _predicting(made, prepared.outcome.task)))
    return HeldOut.pool(parts)


def _predicting(scorer: Scorer, task: Task) -> Callable[[Dataset], Predictive]:
    def predict(data: Dataset) -> Predictive:
        raw = scorer(np.ascontiguousarray(data.features, np.float32))
        return Probabilities(task.classes, raw) if task.kind == "classes" else Quantiles(task.levels, raw)

    return predict


def _start(prepared: Prepared, learnt: Learnt, scorer: Scorer | None) -> Start:
    """Return what variants of a learnt model are made of."""
    task, trained, features = prepared.outcome.task, learnt.trained, np.asarray(learnt.data.features)
    k = len(task.classes) if task.kind == "classes" else len(task.levels)
    parts = tuple(Part(m.name, m.weight, m.model) for m in trained.members if isinstance(m.model, Scorable))
    out = trained.oof_folds == trained.oof_folds.min()
    lesson = Lesson(learnt.data, trained.oof_rows[~out], trained.oof_rows[out], task, 0.0, prepared.case.train.seed)
    drawn = np.sort(np.random.default_rng(prepared.case.train.seed).permutation(len(features))[:CALIBRATED])
    made = scorer or merge([(part.model, part.weight) for part in parts], features.shape[1], k)
    return Start(made, features[drawn], k, parts, lesson)
