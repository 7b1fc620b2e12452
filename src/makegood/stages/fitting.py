"""Candidates fitted on inner folds, in any amount of time.

Folds are worked through in turn and the candidates within a fold in the order given, the simple ones first. When the budget is
spent or Ctrl-C comes, the folds that are finished stand.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from makegood.contracts import Budget, Dataset, Family, Fold, Ints, Predictive, Usage
from makegood.stages.meter import Meter
from makegood.stages.predictives import concatenate, take

Make = Callable[[], Family]
Progress = Callable[[float, str], None]
"""Told the share of the work that is done, in [0, 1], and what comes next."""

FIRST = 0.75
"""Share of the budget that the first of several folds may use: one good model is worth more than two hurried ones."""


@runtime_checkable
class Patient(Protocol):
    """A family that may use all the time that it is given: it gets the same on every fold, or the first would leave none."""

    patient: Literal[True]


@dataclass(frozen=True)
class Fitted:
    """What the finished folds gave: for each candidate its models, one a fold, their predictions of the rows held out, and what both took.

    `rows` (n,) are the held-out rows, ascending; `folds` (n,) tells the fold of each.
    """

    models: Mapping[str, tuple[Family, ...]]
    held: Mapping[str, Predictive]
    used: Mapping[str, Usage]
    rows: Ints
    folds: Ints
    interrupted: bool

    @property
    def dear(self) -> tuple[str, ...]:
        """The candidates that take all the time they may."""
        return tuple(name for name, models in self.models.items() if isinstance(models[0], Patient))


@dataclass(frozen=True)
class _Fit:
    model: Family
    held: Predictive
    used: Usage


def fit_folds(data: Dataset, makes: Mapping[str, Make], folds: Sequence[Fold], *, budget: Budget, seed: int, progress: Progress) -> Fitted:
    """Return every candidate fitted on every fold that the budget allows.

    The first fold is always finished, and may use `FIRST` of the budget. Another is begun only if the longest so far would fit into
    what is left. Ctrl-C ends the work: a fold that it cuts short counts only if it is the first, with the candidates that can
    predict by then. Raises `KeyboardInterrupt` when there are none.
    """
    finished: list[dict[str, _Fit]] = []
    longest, interrupted = 0.0, False
    for i, fold in enumerate(folds):
        began = time.perf_counter()
        if finished and budget.left(began) < longest:
            break

        def report(share: float, name: str, i: int = i) -> None:
            progress((i + share) / len(folds), f"{name}, fold {i + 1} of {len(folds)}")

        left = budget.left(began)
        most = left if finished or len(folds) == 1 else left * FIRST
        portions = Budget(most, began), Budget(left / (len(folds) - i), began)
        fits: dict[str, _Fit] = {}
        try:
            fits.update(_fit_fold(data, makes, fold, portions, seed + i, report))  # what came before an interrupt stays
        except KeyboardInterrupt:
            interrupted = True
        if not interrupted or not finished:
            finished.append(fits)
        if interrupted:
            break
        longest = max(longest, time.perf_counter() - began)
    if not finished[0]:
        raise KeyboardInterrupt
    return _gathered(finished, [fold.test for fold in folds[: len(finished)]], interrupted)


def _fit_fold(
    data: Dataset, makes: Mapping[str, Make], fold: Fold, budgets: tuple[Budget, Budget], seed: int, report: Progress
) -> Iterator[tuple[str, _Fit]]:
    """Yield each candidate fitted on one fold: it may use its equal share of what is left.

    It is what is left of the first budget, or, for a `Patient` one, of the second. Raises `KeyboardInterrupt` when Ctrl-C came, after
    the candidate that it cut short if that can predict.
    """
    train, held = data.take(fold.train), data.take(fold.test)
    for j, (name, make) in enumerate(makes.items()):
        report(j / len(makes), name)
        now, model, predicted, interrupted = time.perf_counter(), make(), None, False
        seconds = budgets[isinstance(model, Patient)].left(now) / (len(makes) - j)

        def tell(words: str, j: int = j, name: str = name) -> None:
            report(j / len(makes), f"{name}: {words}")

        with Meter() as meter:
            try:
                model.fit(train, held, budget=Budget(seconds, now, tell), seed=seed)
            except KeyboardInterrupt:
                interrupted = True
            if not interrupted or _is_fitted(model):
                predicted = model.predict(held.without_outcome())
        if predicted is not None:
            yield name, _Fit(model, predicted, meter.used)
        if interrupted:
            raise KeyboardInterrupt


def _is_fitted(model: Family) -> bool:
    """Return whether the family has learnt something, by scikit-learn's sign for it: an attribute that ends in "_"."""
    return any(name.endswith("_") and not name.startswith("_") for name in vars(model))


def _gathered(finished: Sequence[Mapping[str, _Fit]], tests: Sequence[Ints], interrupted: bool) -> Fitted:
    rows = np.concatenate(tests)
    order = np.argsort(rows, kind="stable")
    names = list(finished[0])
    return Fitted(
        {name: tuple(fits[name].model for fits in finished) for name in names},
        {name: take(concatenate([fits[name].held for fits in finished]), order) for name in names},
        {name: sum((fits[name].used for fits in finished), Usage()) for name in names},
        rows[order],
        np.repeat(np.arange(len(tests)), [len(test) for test in tests])[order],
        interrupted,
    )
