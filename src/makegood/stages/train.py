"""From rows to a model with a price tag: candidates are fitted on inner folds, averaged, calibrated and judged in money.

Each inner fold's models predict the rows that the fold held out, so that weights and calibration, and later the promises and the
prices of limits, are learnt from predictions of unseen rows. What is deployed is the average of the very models that were judged.
The same rows, the same seed and an ample budget give the same model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from makegood.contracts import Budget, Dataset, Family, Floats, Fold, Ints, Predictive, Quantiles, Usage
from makegood.economics.calibrate import Calibrator
from makegood.economics.conformal import Conformal, fit_conformal
from makegood.stages.ensemble import Contender, choose, contenders
from makegood.stages.fitting import Fitted, Make, Progress, fit_folds
from makegood.stages.predictives import LOSS, blend, calibrated

FINISH = 0.15
"""Share of a budget that is kept for what comes after the fits."""

ASIDE = 0.15
"""Share of the rows that is kept for conformal intervals, where the outcome is a number."""

_BLOCKS = 5  # for calibration, where one inner fold made all predictions


@dataclass(frozen=True)
class Money:
    """What predictions are worth, as functions of the positions of their rows in the training data.

    Both take a prediction of those rows and return (n, n_options) money: `expected` before the outcome is known, `realised` once
    it is.
    """

    expected: Callable[[Predictive, Ints], Floats]
    realised: Callable[[Predictive, Ints], Floats]

    def payoffs(self, predictive: Predictive, rows: Ints) -> Floats:
        """Return what each row's best option by expectation turned out to pay (n,)."""
        best = self.expected(predictive, rows).argmax(axis=1)
        return np.asarray(self.realised(predictive, rows)[np.arange(len(rows)), best])


@dataclass(frozen=True)
class Resampling:
    """How the training rows are used: inner `folds`; rows set `aside` for intervals alone; `clusters` (n,) that stay together."""

    folds: tuple[Fold, ...]
    aside: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    clusters: Ints | None = None

    def with_aside(self, n: int, seed: int) -> Resampling:
        """Return the same folds without a random `ASIDE` of the n rows, whole clusters, which serve nothing else."""
        units = np.arange(n) if self.clusters is None else self.clusters
        names = np.unique(units)
        out = np.isin(units, np.random.default_rng(seed).permutation(names)[: int(ASIDE * len(names))])
        folds = tuple(Fold(fold.train[~out[fold.train]], fold.test[~out[fold.test]]) for fold in self.folds)
        return replace(self, folds=folds, aside=np.flatnonzero(out))


@dataclass(frozen=True)
class Member:
    """One fitted model of the average."""

    name: str
    weight: float
    model: Family


@dataclass(frozen=True)
class Trial:
    """What a candidate, or the ensemble, was worth on rows that it had not seen, and what its fits took."""

    name: str
    weight: float  # in what is deployed; the ensemble's own is 1 or 0
    loss_name: str  # log_loss, pinball, …
    loss: float
    value: float  # money per decision, before computing: what is measured must not choose, or no run could be repeated
    used: Usage

    def to_json(self) -> dict[str, Any]:
        """Return plain data, as `Evaluation.candidates` holds it: what the same seed gives again, so nothing measured."""
        return {"name": self.name, "weight": self.weight, self.loss_name: self.loss, "value": self.value}


@dataclass(frozen=True)
class Trained:
    """A model, and what is known of it from the training rows alone.

    `oof` are calibrated predictions of the training rows `oof_rows`, each by models and a calibrator that did not see the row;
    `oof_folds` (n,) tells what held each out. `conformal` moves the quantiles that are reported and no decision
    (MATHEMATICS §13).
    """

    members: tuple[Member, ...]
    calibrator: Calibrator | None
    conformal: Conformal | None
    oof: Predictive
    oof_rows: Ints
    oof_folds: Ints
    trials: tuple[Trial, ...]
    seconds: float
    interrupted: bool

    def raw(self, data: Dataset) -> Predictive:
        """Return the weighted average of the members' predictions."""
        return blend([member.model.predict(data) for member in self.members], [member.weight for member in self.members])

    def predict(self, data: Dataset) -> Predictive:
        """Return the calibrated prediction, which the policy integrates."""
        return calibrated(self.raw(data), self.calibrator)


def share(budget: Budget, pieces: int) -> Budget:
    """Return what is left of a budget divided by the pieces of work to come, for the next of them.

    A piece that needs less leaves more to the others.

    >>> round(share(Budget(60.0, time.perf_counter()), 3).seconds)
    20
    """
    now = time.perf_counter()
    return Budget(budget.left(now) / pieces, now)


def train(
    data: Dataset,
    makes: Mapping[str, Make],
    resampling: Resampling,
    money: Money,
    *,
    budget: Budget,
    seed: int,
    progress: Progress = lambda done, what: None,
) -> Trained:
    """Return the model to deploy; `makes` maps each candidate's name to what makes a new one, the simple ones first.

    Keeps to the budget within a fifth, as far as the candidates keep theirs; the first inner fold is finished in any case. Ctrl-C
    keeps what is finished (`Trained.interrupted`) and raises `KeyboardInterrupt` only when nothing is.
    """
    start = time.perf_counter()
    fits = fit_folds(
        data,
        makes,
        resampling.folds,
        budget=Budget(budget.left(start) * (1.0 - FINISH), start),
        seed=seed,
        progress=lambda done, what: progress(done * (1.0 - FINISH), what),
    )
    progress(1.0 - FINISH, "calibrate and choose")
    outcome = np.asarray(data.outcome)[fits.rows]
    clusters = None if resampling.clusters is None else resampling.clusters[fits.rows]
    folds = fits.folds if fits.folds.max() > 0 else _blocks(len(fits.rows), clusters, seed)
    with threadpool_limits(1, "blas"):  # many small problems: more threads cost more than they bring, and change the last bits
        judged = contenders(fits.held, outcome, folds, lambda oof: money.payoffs(oof, fits.rows), dear=fits.dear, seed=seed)
    winner = judged[choose(judged, clusters, dear=fits.dear)]
    trained = Trained(
        tuple(Member(name, w / len(fits.models[name]), model) for name, w in winner.weights.items() for model in fits.models[name]),
        winner.calibrator,
        None,
        winner.oof,
        fits.rows,
        folds,
        tuple(_trial(name, contender, winner, fits) for name, contender in judged.items()),
        0.0,
        fits.interrupted,
    )
    trained = replace(trained, conformal=_conformal(trained, data, resampling))
    progress(1.0, "trained")
    return replace(trained, seconds=time.perf_counter() - start)


def _blocks(n: int, clusters: Ints | None, seed: int) -> Ints:
    """Return a random block in range(`_BLOCKS`) for each of n rows; clusters stay whole."""
    unit = np.arange(n) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    return np.asarray((np.random.default_rng(seed).permutation(int(unit.max()) + 1) % _BLOCKS)[unit])


def _trial(name: str, contender: Contender, winner: Contender, fits: Fitted) -> Trial:
    weight = winner.weights.get(name, 0.0) if name in fits.models else float(contender is winner)
    used = sum((fits.used[part] for part in contender.weights), Usage())
    return Trial(name, weight, LOSS[type(contender.oof)], float(contender.losses.mean()), float(contender.payoffs.mean()), used)


def _conformal(trained: Trained, data: Dataset, resampling: Resampling) -> Conformal | None:
    rows = resampling.aside
    predictive = trained.predict(data.take(rows).without_outcome())
    if not len(rows) or not isinstance(predictive, Quantiles):
        return None
    clusters = None if resampling.clusters is None else resampling.clusters[rows]
    return fit_conformal(predictive.q, np.asarray(data.outcome)[rows], predictive.levels, clusters=clusters)
