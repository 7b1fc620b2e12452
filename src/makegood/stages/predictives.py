"""What a stage may do with a prediction without knowing who made it: select rows, average, score, calibrate.

Dispatch is on the five kinds. Everything is row by row, and sums run in a fixed order, so that a row has the same bits whatever
rows stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce, singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from makegood.contracts import Effects, Floats, Ints, Predictive, Probabilities, Quantiles, Ranking, Text
from makegood.economics.calibrate import Calibrator, fit_calibrator

_PER_ROW: dict[type, tuple[str, ...]] = {
    Probabilities: ("p",),
    Quantiles: ("q",),
    Ranking: ("items", "scores"),
    Effects: ("mean", "se"),
    Text: ("answers", "confidence", "citations"),
}
"""The fields of each kind that have one entry a row."""

LOSS = {Probabilities: "log_loss", Quantiles: "pinball", Ranking: "log_loss", Effects: "squared_error", Text: "log_loss"}
"""What `losses` is called, by kind."""

_TINY = 1e-15  # no probability counts as less in a log loss


def take(predictive: Predictive, rows: Ints) -> Predictive:
    """Return the given rows of a prediction, in the given order."""

    def chosen(values: Any) -> Any:
        return values[rows] if isinstance(values, np.ndarray) else tuple(values[i] for i in rows)

    return replace(predictive, **{name: chosen(getattr(predictive, name)) for name in _PER_ROW[type(predictive)]})


def concatenate(parts: Sequence[Predictive]) -> Predictive:
    """Return predictions of one kind one after the other."""

    def joined(values: list[Any]) -> Any:
        return np.concatenate(values) if isinstance(values[0], np.ndarray) else tuple(v for part in values for v in part)

    first = parts[0]
    return replace(first, **{name: joined([getattr(part, name) for part in parts]) for name in _PER_ROW[type(first)]})


# ---------------------------------------------------------------------------------------------------------------- average


def blend(parts: Sequence[Predictive], weights: Sequence[float]) -> Predictive:
    """Return the weighted average of predictions of the same rows; weights sum to one."""
    return parts[0] if len(parts) == 1 else _blend(parts[0], parts, weights)


def _mean(arrays: Sequence[Floats], weights: Sequence[float]) -> Floats:
    return reduce(np.add, (array * weight for array, weight in zip(arrays, weights, strict=True)))


@singledispatch
def _blend(first: Predictive, parts: Sequence[Any], weights: Sequence[float]) -> Predictive:
    raise TypeError(f"not a predictive: {type(first).__name__}")


@_blend.register
def _(first: Probabilities, parts: Sequence[Probabilities], weights: Sequence[float]) -> Predictive:
    return replace(first, p=_mean([part.p for part in parts], weights))


@_blend.register
def _(first: Quantiles, parts: Sequence[Quantiles], weights: Sequence[float]) -> Predictive:
    return replace(first, q=_mean([part.q for part in parts], weights))  # averages of quantiles, not of distributions: stays sharp


@_blend.register
def _(first: Effects, parts: Sequence[Effects], weights: Sequence[float]) -> Predictive:
    # Models fitted to overlapping rows err together, so the errors are averaged and not divided by the root of their number.
    return replace(first, mean=_mean([part.mean for part in parts], weights), se=_mean([part.se for part in parts], weights))


@_blend.register
def _(first: Ranking, parts: Sequence[Ranking], weights: Sequence[float]) -> Predictive:
    items, scores = np.empty_like(first.items), np.empty_like(first.scores)
    for i in range(len(first)):
        total: dict[Any, float] = {}
        for part, weight in zip(parts, weights, strict=True):
            for item, score in zip(part.items[i].tolist(), part.scores[i].tolist(), strict=True):
                total[item] = total.get(item, 0.0) + weight * score  # an item that a part left out scores nothing there
        best = sorted(total, key=lambda item: -total[item])[: first.items.shape[1]]
        items[i], scores[i] = best, [total[item] for item in best]
    return Ranking(items, scores)


@_blend.register
def _(first: Text, parts: Sequence[Text], weights: Sequence[float]) -> Predictive:
    answers, confidence, citations = [], [], []
    for i in range(len(first)):
        total: dict[str, float] = {}
        for part, weight in zip(parts, weights, strict=True):
            total[part.answers[i]] = total.get(part.answers[i], 0.0) + weight * float(part.confidence[i])
        best = max(total, key=lambda answer: total[answer])
        answers.append(best)
        confidence.append(total[best])
        citations.append(next(part.citations[i] for part in parts if part.answers[i] == best))
    return Text(tuple(answers), np.array(confidence), tuple(citations))


# ------------------------------------------------------------------------------------------------------------------ score


@singledispatch
def losses(predictive: Predictive, outcome: NDArray[Any]) -> Floats:
    """Return the loss (n,) of each row under a proper score; `LOSS` names it. `outcome` is as `policy.realised` takes it."""
    raise TypeError(f"not a predictive: {type(predictive).__name__}")


@losses.register
def _(predictive: Probabilities, outcome: NDArray[Any]) -> Floats:
    return np.asarray(-np.log(np.maximum(predictive.p[np.arange(len(outcome)), outcome], _TINY)))


@losses.register
def _(predictive: Quantiles, outcome: NDArray[Any]) -> Floats:
    levels = np.array(predictive.levels)
    miss = np.asarray(outcome, np.float64)[..., None] - predictive.q
    pinball = np.maximum(levels * miss, (levels - 1.0) * miss)
    return np.asarray(np.nanmean(pinball.reshape(len(outcome), -1), axis=1))


@losses.register
def _(predictive: Effects, outcome: NDArray[Any]) -> Floats:
    return np.asarray(np.nanmean((outcome - predictive.mean) ** 2, axis=1))  # NaN: the outcome of an action that was not done


@losses.register
def _(predictive: Ranking, outcome: NDArray[Any]) -> Floats:
    hit = np.array([[item in wanted for item in items] for items, wanted in zip(predictive.items.tolist(), outcome, strict=True)])
    p = np.clip(predictive.scores, _TINY, 1.0 - _TINY)
    return np.asarray(-np.where(hit, np.log(p), np.log1p(-p)).mean(axis=1))


@losses.register
def _(predictive: Text, outcome: NDArray[Any]) -> Floats:
    p = np.clip(np.where(_right(predictive, outcome), predictive.confidence, 1.0 - predictive.confidence), _TINY, 1.0)
    return np.asarray(-np.log(p))


def _right(predictive: Text, outcome: NDArray[Any]) -> NDArray[np.bool_]:
    return np.array([answer == right for answer, right in zip(predictive.answers, outcome, strict=True)], np.bool_)


# -------------------------------------------------------------------------------------------------------------- calibrate


@singledispatch
def calibrate(predictive: Predictive, outcome: NDArray[Any], folds: Ints, seed: int) -> tuple[Calibrator | None, Predictive]:
    """Return what makes the predicted probabilities match frequencies, and the prediction calibrated out of fold.

    The rows were not seen by the model that predicts them; `folds` (n,) tells which fold held each out, and each fold is
    calibrated by what the others show. The kind of calibrator is chosen once. A kind of prediction without probabilities of
    classes has no calibrator and stays as it is.
    """
    p = _probabilities(predictive)
    if p is None:
        return None, predictive
    code = _right(predictive, outcome).astype(np.int64) if isinstance(predictive, Text) else outcome
    calibrator = fit_calibrator(p, code, folds, seed=seed)
    out = np.empty_like(p, np.float64)
    for fold in np.unique(folds):
        here = folds == fold
        out[here] = fit_calibrator(p[~here], code[~here], kind=calibrator.kind).apply(p[here])
    return calibrator, _with_probabilities(predictive, out)


def calibrated(predictive: Predictive, calibrator: Calibrator | None) -> Predictive:
    """Return the prediction with calibrated probabilities; unchanged without a calibrator."""
    found = _probabilities(predictive)
    return predictive if calibrator is None or found is None else _with_probabilities(predictive, calibrator.apply(found))


def _probabilities(predictive: Predictive) -> Floats | None:
    """Return probabilities (n, k), for the kinds that have them: an answer is wrong or right."""
    if isinstance(predictive, Probabilities):
        return predictive.p
    if isinstance(predictive, Text):
        return np.column_stack([1.0 - predictive.confidence, predictive.confidence])
    return None


def _with_probabilities(predictive: Predictive, p: Floats) -> Predictive:
    if isinstance(predictive, Text):
        return replace(predictive, confidence=np.ascontiguousarray(p[:, 1]))
    assert isinstance(predictive, Probabilities), "no other kind has probabilities of classes"
    return replace(predictive, p=p)
