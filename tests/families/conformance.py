"""What every family promises, whatever it learns and whatever kind of prediction it returns: one suite, run over all of them.

A family joins with one `Subject`; `CHECKS` are plain functions of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from makegood.contracts import Budget, Dataset, Effects, Family, Predictive, Probabilities, Quantiles, Ranking, Text
from makegood.stages.predictives import losses, take


@dataclass(frozen=True)
class Subject:
    """A family, rows to learn from, and rows as none of them was: unknown categories, missing values, extremes, as prepared."""

    name: str
    make: Callable[[], Family]
    data: Dataset
    strange: Dataset
    learns: bool = True  # False: the prediction does not depend on the row

    @property
    def train(self) -> Dataset:
        return self.data.take(np.arange(0, len(self.data) * 2 // 3))

    @property
    def valid(self) -> Dataset:
        return self.data.take(np.arange(len(self.data) * 2 // 3, len(self.data)))

    def fit(self, seed: int = 7, seconds: float = 60.0) -> Family:
        return self.make().fit(self.train, self.valid, budget=Budget(seconds, time.perf_counter()), seed=seed)

    @cached_property
    def fitted(self) -> Family:
        return self.fit()

    def __str__(self) -> str:
        return self.name


def assert_same(a: Predictive, b: Predictive) -> None:
    """Assert that two predictions agree to the last bit."""
    assert type(a) is type(b)
    for field in fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype
            assert x.shape == y.shape
            assert x.tolist() == y.tolist(), field.name
        else:
            assert x == y, field.name


def assert_valid(predictive: Predictive, n: int) -> None:
    """Assert what `makegood.contracts` says of a prediction's shape and range."""
    assert len(predictive) == n
    match predictive:
        case Probabilities():
            assert predictive.p.shape == (n, len(predictive.classes))
            assert ((predictive.p >= 0.0) & (predictive.p <= 1.0 + 1e-6)).all()
            np.testing.assert_allclose(predictive.p.sum(axis=1), 1.0, atol=1e-6)
        case Quantiles():
            assert predictive.q.shape[0] == n
            assert predictive.q.shape[-1] == len(predictive.levels)
            assert np.isfinite(predictive.q).all()
            assert (np.diff(predictive.q, axis=-1) >= 0.0).all()
        case Ranking():
            assert predictive.items.shape == predictive.scores.shape
            assert ((predictive.scores >= 0.0) & (predictive.scores <= 1.0)).all()
            assert (np.diff(predictive.scores, axis=1) <= 0.0).all()
            assert all(len(set(row)) == len(row) for row in predictive.items.tolist())
        case Effects():
            assert predictive.mean.shape == predictive.se.shape == (n, len(predictive.actions))
            assert np.isfinite(predictive.mean).all()
            assert (predictive.se >= 0.0).all()
        case Text():
            assert len(predictive.answers) == len(predictive.citations) == n
            assert ((predictive.confidence >= 0.0) & (predictive.confidence <= 1.0)).all()


def fit_returns_itself_and_leaves_the_data_alone(subject: Subject, folder: Path) -> None:
    train, valid = subject.train, subject.valid
    before = [None if part is None else part.tobytes() for part in (train.features, valid.features)]
    family = subject.make()
    assert family.fit(train, valid, budget=Budget(60.0, time.perf_counter()), seed=7) is family
    assert before == [None if part is None else part.tobytes() for part in (train.features, valid.features)]


def prediction_is_valid(subject: Subject, folder: Path) -> None:
    assert_valid(subject.fitted.predict(subject.data.without_outcome()), len(subject.data))


def rows_keep_their_order(subject: Subject, folder: Path) -> None:
    order = np.random.default_rng(0).permutation(len(subject.data))
    data = subject.data.without_outcome()
    assert_same(subject.fitted.predict(data.take(order)), take(subject.fitted.predict(data), order))


def learns_what_belongs_to_the_row(subject: Subject, folder: Path) -> None:
    valid = subject.valid
    predictive, outcome = subject.fitted.predict(valid.without_outcome()), np.asarray(valid.outcome)
    own, other = (float(losses(predictive, y).mean()) for y in (outcome, np.roll(outcome, 1, axis=0)))
    assert own < other if subject.learns else own == other


def the_same_seed_gives_the_same_model(subject: Subject, folder: Path) -> None:
    data = subject.data.without_outcome()
    assert_same(subject.fitted.predict(data), subject.fit().predict(data))


def a_saved_model_predicts_identically(subject: Subject, folder: Path) -> None:
    subject.fitted.save(folder / "model")
    loaded = type(subject.fitted).load(folder / "model")
    data = subject.data.without_outcome()
    assert_same(loaded.predict(data), subject.fitted.predict(data))
    loaded.save(folder / "again")
    assert_same(type(loaded).load(folder / "again").predict(data), loaded.predict(data))


def nothing_saved_is_code(subject: Subject, folder: Path) -> None:
    subject.fitted.save(folder / "model")
    for path in (folder / "model").rglob("*"):
        assert path.suffix in {".json", ".onnx", ".safetensors", ".npz", ".txt"}, path.name


def a_row_alone_is_predicted_as_in_a_batch(subject: Subject, folder: Path) -> None:
    data = subject.data.without_outcome()
    whole = subject.fitted.predict(data)
    for size in (1, 2, 3, 7):  # vectors and their tails, aligned and not
        for start in range(0, min(len(data), 40 * size), size):
            rows = np.arange(start, min(start + size, len(data)))
            assert_same(subject.fitted.predict(data.take(rows)), take(whole, rows))


def predict_does_not_see_the_outcome(subject: Subject, folder: Path) -> None:
    data = subject.data
    absent = subject.fitted.predict(data.without_outcome())
    assert_same(subject.fitted.predict(data), absent)
    turned = Dataset(data.table, data.features, np.asarray(data.outcome)[::-1])
    assert_same(subject.fitted.predict(turned), absent)


def strange_rows_get_a_valid_prediction(subject: Subject, folder: Path) -> None:
    assert_valid(subject.fitted.predict(subject.strange), len(subject.strange))
    for i in range(len(subject.strange)):
        row = np.array([i])
        assert_same(subject.fitted.predict(subject.strange.take(row)), take(subject.fitted.predict(subject.strange), row))


def no_rows_give_an_empty_prediction(subject: Subject, folder: Path) -> None:
    none = subject.data.without_outcome().take(np.empty(0, np.int64))
    got, some = subject.fitted.predict(none), subject.fitted.predict(subject.data.without_outcome())
    assert_same(got, take(some, np.empty(0, np.int64)))


def without_time_there_is_still_a_model(subject: Subject, folder: Path) -> None:
    assert_valid(subject.fit(seconds=0.0).predict(subject.data.without_outcome()), len(subject.data))


CHECKS: tuple[Callable[[Subject, Path], None], ...] = (
    fit_returns_itself_and_leaves_the_data_alone,
    prediction_is_valid,
    rows_keep_their_order,
    learns_what_belongs_to_the_row,
    the_same_seed_gives_the_same_model,
    a_saved_model_predicts_identically,
    nothing_saved_is_code,
    a_row_alone_is_predicted_as_in_a_batch,
    predict_does_not_see_the_outcome,
    strange_rows_get_a_valid_prediction,
    no_rows_give_an_empty_prediction,
    without_time_there_is_still_a_model,
)


def named(check: Any) -> str:
    """Return a check's name for a test's id."""
    return str(check.__name__)
