"""Learning, as it is judged and as it is deployed: the same procedure on each outer fold and on all rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from makegood import families
from makegood.contracts import Budget, Columns, Dataset, Floats, Ints, Predictive, Probabilities, Quantiles, Usage
from makegood.data import prepare as preparation
from makegood.data import splits
from makegood.data.transform import Transform
from makegood.decided import values_of
from makegood.economics import policy as policies
from makegood.economics import value
from makegood.economics.calibrate import fit_promise
from makegood.economics.policy import Policy
from makegood.economics.sets import Sets, fit_sets
from makegood.errors import CaseError, Problem
from makegood.model import Model, Raw
from makegood.monitoring.reference import Kept, Reference, observed, refer
from makegood.stages.convert import convert
from makegood.stages.held_out import HeldOut, Rows, hold_out
from makegood.stages.meter import Meter
from makegood.stages.metrics import ranks_of
from makegood.stages.predictives import calibrated
from makegood.stages.prepare import Prepared, declared_limits
from makegood.stages.ratings import Cuts, fit_cuts
from makegood.stages.train import Money, Resampling, Trained, share, train

BACKGROUND, EXPLAINED = 64, 200  # rows that reasons compare with, and rows whose reasons make the drivers
JUDGED = 50_000  # held-out rows, at most, that drift is told from

Progress = Callable[[str, float], None]
"""Told the stage, and the share of the whole work that is done."""


@dataclass(frozen=True)
class Learnt:
    """What one round of learning gives: preparation, model and policy, all from the same rows."""

    transform: Transform
    trained: Trained
    policy: Policy
    reference: Floats  # each option's mean payoff on the rows learnt from: what baselines may know
    data: Dataset
    money: Money
    sets: Sets | None = None
    cuts: Cuts | None = None


def learn(prepared: Prepared, rows: Ints, candidates: Sequence[families.Candidate], budget: Budget, progress: Progress) -> Learnt:
    """Return what is learnt from the given rows: features, model, prediction sets, prices of limits, and the map to promises."""
    case, task, payoffs = prepared.case, prepared.outcome.task, prepared.policy.payoffs
    table = prepared.table.take(pa.array(rows))
    transform = prepared.transform(rows)
    columns, _ = transform.read(preparation.raw_columns(table))
    data = Dataset(table, transform.apply(columns), prepared.outcome.values[rows], shape=transform.shape, tokens=transform.tokens)
    target, priced = np.asarray(data.outcome), transform.named(columns, prepared.policy.names)

    def expected(predictive: Predictive, at: Ints) -> Floats:
        return policies.expected(payoffs, predictive, _take(priced, at))

    def realised(predictive: Predictive, at: Ints) -> Floats:
        return policies.realised(payoffs, predictive, target[at], _take(priced, at))

    money = Money(expected, realised)
    clusters = prepared.splits.clusters
    folds = Resampling(
        splits.inner(prepared.splits, prepared.outcome, case, prepared.table, rows), clusters=None if clusters is None else clusters[rows]
    )
    if task.kind == "number":
        folds = folds.with_aside(len(rows), case.train.seed)
    makes = {c.name: partial(c.make, task) for c in candidates}
    trained = train(data, makes, folds, money, budget=budget, seed=case.train.seed, progress=lambda done, what: progress(what, done))
    at, seen = trained.oof_rows, _take(priced, trained.oof_rows)
    worth = expected(trained.oof, at)
    policy = Policy.fit(payoffs, declared_limits(case), worth, seen, averse=prepared.policy.averse)
    sets, least = None, None
    if case.coverage is not None and isinstance(trained.oof, Probabilities):
        units = None if folds.clusters is None else folds.clusters[at]
        sets = fit_sets(trained.oof.p, target[at], case.coverage, clusters=units)
        least = policies.guaranteed(payoffs, trained.oof, seen, sets.apply(trained.oof.p))
    chosen, paid = policy.decide(worth, seen, least), realised(trained.oof, at)
    policy = policy.promising(fit_promise(chosen.promise, paid[np.arange(len(at)), chosen.option]))
    cuts, rank = None, ranks_of(task.classes)
    if case.data.scale is not None and rank is not None and isinstance(trained.oof, Probabilities):
        cuts = fit_cuts(trained.oof.p @ rank, rank[target[at]], columns[case.data.scale][at])
    return Learnt(transform, trained, policy, paid.mean(axis=0), data, money, sets, cuts)


@dataclass(frozen=True)
class Round:
    """One outer fold: what was learnt without its test `rows` (positions), and what was decided on them."""

    learnt: Learnt
    rows: Ints
    held: HeldOut


@dataclass(frozen=True)
class Trials:
    """What was learnt on each outer fold, seen on the rows held out, and the model made from all rows; `used` is what all of it took.

    `rounds` are the outer folds one by one, kept only where the case has variants tried on them.
    """

    held: HeldOut
    learnt: Learnt
    model: Model
    golden: Raw
    used: Usage
    rounds: tuple[Round, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data for the run's folder."""
        trained = self.learnt.trained
        candidates = [{**t.to_json(), "used": asdict(t.used)} for t in trained.trials]
        return {"candidates": candidates, "interrupted": trained.interrupted, "used": asdict(self.used)}


def learn_all(prepared: Prepared, extra: Sequence[families.Candidate], progress: Progress) -> Trials:
    """Return the outer folds' held-out decisions and the model to deploy, within the case's budget.

    Ctrl-C ends the training: what is finished stands, and the last round's model is the one to deploy.
    """
    with Meter() as meter:
        held, learnt, rounds = _rounds(prepared, extra, progress)
        model = _model(prepared, learnt)
    model = replace(model, reference=refer_to(prepared, held, learnt.transform))
    golden = preparation.raw_columns(prepared.table.take(pa.array(_drawn(prepared, EXPLAINED))))
    return Trials(held, learnt, model, golden, meter.used, rounds)


def _rounds(prepared: Prepared, extra: Sequence[families.Candidate], progress: Progress) -> tuple[HeldOut, Learnt, tuple[Round, ...]]:
    """Return the decisions that the outer folds hold out, what was learnt last, and the folds one by one where they are asked for."""
    case = prepared.case
    candidates = (*families.find(_families(prepared)), *extra)
    if prepared.whole.tokens is not None:
        candidates = families.beside_texts(candidates, others=_others(prepared.whole))
    names = [c.name for c in candidates]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise CaseError(*(Problem("candidates", name, "a name of its own for each candidate", "give mg.wrap(…, name=…)") for name in twice))
    budget = Budget(case.train.budget, time.perf_counter())
    folds, held = prepared.splits.folds, list[HeldOut]()
    rounds, kept = len(folds) + 1, list[Round]()
    learnt: Learnt | None = None
    try:
        for i, fold in enumerate(folds):
            shown = partial(_shown, progress, i, rounds)
            learnt = learn(prepared, fold.train, candidates, share(budget, rounds - i), shown)
            held.append(held_out(prepared, learnt, fold.test))
            if case.optimise is not None:
                kept.append(Round(learnt, fold.test, held[-1]))
            if learnt.trained.interrupted:
                break
        if learnt is not None and not learnt.trained.interrupted:
            learnt = learn(prepared, prepared.known, candidates, share(budget, 1), partial(_shown, progress, len(folds), rounds))
    except KeyboardInterrupt:  # between two trainings, or before this one had anything
        if learnt is None or not held:
            raise
        learnt = replace(learnt, trained=replace(learnt.trained, interrupted=True))
    assert learnt is not None, "a split has at least one fold"
    return HeldOut.pool(held), learnt, tuple(kept)


def _families(prepared: Prepared) -> tuple[str, ...]:
    """Return the families to train, in order: those that the case names, and the networks that join `auto` where there is time.

    A fit's time is what the budget gives each of all the fits to come. On images with a network, `auto` has no trees; on texts it has
    families for these, and those for numbers where there are other columns.
    """
    case, fields = prepared.case, prepared.profile.fields
    chosen = case.train.chosen
    if "auto" not in case.train.families:
        return chosen
    seconds = case.train.budget / (len(prepared.splits.folds) + 1) / (1 if case.data.time else splits.INNER)
    joined: tuple[str, ...] = ()
    if (tokens := prepared.whole.tokens) is not None:
        joined = families.joining_texts(seconds, len(prepared.known), tokens.windows * tokens.length)
        kept = ("constant", *case.train.families)
        chosen = tuple(name for name in chosen if _others(prepared.whole) or name in kept)
    elif not any(f.kind == "image" for f in fields):
        joined = families.joining(seconds, len(prepared.known), len(fields))
    elif shape := prepared.transform(prepared.splits.folds[0].train).shape:
        joined = families.joining_images(seconds, len(prepared.known), shape)
        if joined:
            chosen = tuple(name for name in chosen if name != "lightgbm" or name in case.train.families)
    return (*chosen, *(name for name in joined if name not in chosen))


def _others(transform: Transform) -> bool:
    """Return whether there are features beside the tokens of a text."""
    return transform.tokens is not None and len(transform.features) > transform.tokens.windows * transform.tokens.length


def _shown(progress: Progress, i: int, rounds: int, what: str, done: float) -> None:
    progress(f"train, round {i + 1} of {rounds}: {what}", 0.8 * (i + done) / rounds)


def held_out(prepared: Prepared, learnt: Learnt, rows: Ints, predict: Callable[[Dataset], Predictive] | None = None) -> HeldOut:
    """Return what the policy does on rows that it did not learn from; `predict` stands in for the model, before calibration."""
    table = prepared.table.take(pa.array(rows))
    columns, _ = learnt.transform.read(preparation.raw_columns(table))
    transform = learnt.transform
    data = Dataset(table, transform.apply(columns), shape=transform.shape, tokens=transform.tokens)
    predictive = learnt.trained.predict(data) if predict is None else calibrated(predict(data), learnt.trained.calibrator)
    conformal, reported = learnt.trained.conformal, None
    if conformal is not None and isinstance(predictive, Quantiles):
        reported = replace(predictive, q=conformal.apply(predictive.q))
    clusters = prepared.splits.clusters
    held = Rows(
        columns=_only(columns, _sliceable(prepared)) | transform.named(columns, prepared.policy.names),
        outcome=prepared.outcome.values[rows],
        today=prepared.today(rows),
        clusters=None if clusters is None else clusters[rows],
    )
    done = hold_out(learnt.policy, predictive, held, learnt.reference, reported, learnt.sets)
    rank, scale = ranks_of(prepared.outcome.task.classes), prepared.case.data.scale
    if learnt.cuts is None or rank is None or scale is None or not isinstance(predictive, Probabilities):
        return done
    return replace(done, rating=learnt.cuts.apply(predictive.p @ rank, columns[scale]))


def _sliceable(prepared: Prepared) -> tuple[str, ...]:
    """Return the columns that payoffs are made of or that rows can be grouped by."""
    data = prepared.case.data
    needed = {*prepared.policy.names, *data.protected, data.scale}
    fields = prepared.profile.fields
    return tuple(
        f.name for f in fields if f.name in needed or (f.name not in prepared.excluded and f.kind not in ("date", "image", "text"))
    )


def _model(prepared: Prepared, learnt: Learnt) -> Model:
    converted = convert(learnt.trained, learnt.data, learnt.money, seed=prepared.case.train.seed)
    background = preparation.raw_columns(prepared.table.take(pa.array(_drawn(prepared, BACKGROUND))))
    return Model(
        case=prepared.case.to_json(),
        task=prepared.outcome.task,
        transform=learnt.transform,
        scorer=converted.scorer,
        policy=learnt.policy,
        background={name: background[name] for name in learnt.transform.inputs},
        calibrator=learnt.trained.calibrator,
        conformal=learnt.trained.conformal,
        sets=learnt.sets,
    )


def refer_to(prepared: Prepared, held: HeldOut, transform: Transform) -> Reference:
    """Return what held-out rows were like: promises and predictions on rows that were learnt from would be surer than those to come."""
    rows = np.concatenate([fold.test for fold in prepared.splits.folds])[: len(held)]
    drawn = np.sort(np.random.default_rng(prepared.case.train.seed).permutation(len(held))[:JUDGED])
    columns, _ = transform.read(preparation.raw_columns(prepared.table.take(pa.array(rows[drawn])).select(transform.inputs)), tokens=False)
    assert isinstance(held.predictive, Probabilities | Quantiles), "what a model predicts"
    seen = observed(columns, transform.images, values_of(held.predictive)[drawn], transform.texts)
    payoffs, promise = prepared.policy.payoffs, held.choices.promise
    gap = value.paired(promise, held.payoff, payoffs.unit, clusters=held.clusters, seed=prepared.case.train.seed)
    kept = Kept.of(gap, held.room(payoffs))
    return refer(seen, promise[drawn], None if held.clusters is None else held.clusters[drawn], kept)


def _drawn(prepared: Prepared, n: int) -> Ints:
    """Return up to n positions of known rows, drawn by the seed."""
    return np.sort(np.random.default_rng(prepared.case.train.seed).permutation(prepared.known)[:n])


def _only(columns: Columns, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    return {name: columns[name] for name in columns if name in names}


def _take(columns: Columns, rows: Ints) -> Columns:
    return {name: values[rows] for name, values in columns.items()}
