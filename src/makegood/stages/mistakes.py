"""The held-out decisions on images that lost most against hindsight: what a page shows as pictures."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from makegood.contracts import Floats, Ints, Mistake, Mistakes, Predictive, Probabilities, Quantiles
from makegood.data import galleries, images
from makegood.economics import policy as policies
from makegood.stages.learn import Trials
from makegood.stages.prepare import Prepared

SHOWN = 12
_REAL = 1e-9  # of a row's largest payoff: less is the rounding of a sum


def costliest(prepared: Prepared, trials: Trials, *, shown: int = SHOWN) -> Mistakes | None:
    """Return the mistakes on held-out rows by their regret, limits aside; None where the case has no column of images.

    Regret is what the best option in hindsight paid more than the chosen one. Of equal regrets, those whose outcome was held for
    the least probable come first. Of several columns of images the first is shown.
    """
    column = next((field.name for field in prepared.table.schema if pa.types.is_binary(field.type)), None)
    if column is None:
        return None
    held = trials.held
    rows = np.concatenate([fold.test for fold in prepared.splits.folds])[: len(held)]  # pooled in order, up to an interruption
    regret = held.realised.max(axis=1) - held.payoff
    real = np.flatnonzero(regret > _REAL * np.abs(held.realised).max(axis=1))
    said = _said(held.reported or held.predictive, held.outcome)
    worst = real[np.lexsort((rows[real], said.p_outcome[real], -regret[real]))][:shown]
    names = [option.name for option in policies.options(held.predictive, prepared.policy.payoffs)]
    pictures = _pictures(prepared.table, column, rows[worst])
    found = tuple(
        Mistake(
            image=pixels,
            place=place,
            outcome=said.outcome[i],
            predicted=said.predicted[i],
            p_outcome=float(said.p_outcome[i]),
            p_predicted=float(said.p_predicted[i]),
            action=names[held.choices.option[i]],
            best=names[held.realised[i].argmax()],
            loss=float(regret[i]),
        )
        for i, (pixels, place) in zip(worst.tolist(), pictures, strict=True)
    )
    return Mistakes(prepared.policy.payoffs.unit, len(held), len(real), float(regret[real].sum()), found)


class _Said(NamedTuple):
    """What came true and what was predicted on each row, in words, with their predicted probabilities."""

    outcome: list[str]
    predicted: list[str]
    p_outcome: Floats
    p_predicted: Floats


def _said(predictive: Predictive, outcome: NDArray[Any]) -> _Said:
    rows = np.arange(len(outcome))
    if isinstance(predictive, Probabilities):
        top = predictive.p.argmax(axis=1)
        names = np.array(predictive.classes, dtype=object)
        return _Said(names[outcome].tolist(), names[top].tolist(), predictive.p[rows, outcome], predictive.p[rows, top])
    assert isinstance(predictive, Quantiles), "images are told into classes or to a number"
    unknown = np.full(len(outcome), np.nan)
    median = predictive.q[:, predictive.levels.index(0.5)]
    return _Said([f"{y:g}" for y in outcome], [f"{y:.4g}" for y in median], unknown, unknown)


def _pictures(table: pa.Table, column: str, rows: Ints) -> list[tuple[NDArray[np.uint8] | None, str]]:
    """Return the pixels of each row's image, None where it could not be read, and where the image lies."""
    shape = images.stored_shape(table.schema.field(column))
    assert shape is not None, "images were decoded when the rows were prepared"
    kept, place = table.take(pa.array(rows)), galleries.place_of(table)
    places = [""] * len(rows) if place is None else [where or "" for where in kept[place].to_pylist()]
    pixels = [None if raw is None else np.frombuffer(raw, np.uint8).reshape(shape) for raw in kept[column].to_pylist()]
    return list(zip(pixels, places, strict=True))
