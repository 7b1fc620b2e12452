"""The conformance suite over every family: the built-in ones, wrapped estimators, and the throwaway ones of every other kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.ensemble import ExtraTreesClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from tests.families import throwaway
from tests.families.conformance import CHECKS, Subject, named
from tests.families.throwaway import CoOccurrence, NearestQuestion, SeasonalNaive, TLearner
from torch import nn

from makegood.case import IMAGE_NETWORKS, TEXT_FAMILIES, TEXT_NETWORKS
from makegood.contracts import Dataset, Family, Task, Tokens
from makegood.families import TABLE, beside_texts, find, wrap
from makegood.families._torch.loop import Recipe

TASKS = {
    "two classes": Task("classes", ("no", "yes")),
    "three classes": Task("classes", ("a", "b", "c")),
    "number": Task("number"),
}


def _table(task: Task, n: int = 240, seed: int = 3) -> Dataset:
    """Return prepared rows: numbers, one-hot categories, flags; the outcome follows the first two features."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.normal(size=(n, 3)), rng.integers(0, 2, (n, 3))]).astype(np.float32)
    signal = 2.0 * X[:, 0] + np.abs(X[:, 1]) + X[:, 3] + rng.normal(0.0, 0.5, n)
    k = len(task.classes)
    outcome = np.searchsorted(np.quantile(signal, np.arange(1, k) / k), signal) if k else 1000.0 + 50.0 * signal
    return Dataset(pa.table({"row": np.arange(n)}), X, outcome)


def _strange() -> Dataset:
    """Return prepared rows outside all that was seen: no category set, all flags set, zeros, and the largest magnitudes."""
    X = np.zeros((6, 6), np.float32)
    X[1], X[2], X[3], X[4, 0], X[5, 1] = 1.0, 3e38, -3e38, 3e38, np.float32(1e-40)
    return Dataset(pa.table({"row": np.arange(6)}), X)


def _maker(name: str, task: Task) -> Callable[[], Family]:
    candidate = find([name])[0]
    return lambda: candidate.make(task)


def network(outputs: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # its last layer is drawn here
        return nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, outputs))


BUILT_IN = [
    Subject(f"{name}, {label}", _maker(name, task), _table(task), _strange(), learns=name != "constant")
    for name in TABLE
    if name not in (*IMAGE_NETWORKS, *TEXT_FAMILIES, *TEXT_NETWORKS)
    for label, task in TASKS.items()
]
WRAPPED = [
    Subject(f"{candidate.name}, {label}", lambda c=candidate, t=TASKS[label]: c.make(t), _table(TASKS[label]), _strange())
    for candidate, label in (
        (wrap(LogisticRegression()), "two classes"),
        (wrap(ExtraTreesClassifier(10)), "three classes"),
        (wrap(RandomForestRegressor(10)), "number"),
        (wrap(network(2), recipe={"epochs": 20, "lr": 0.02}), "two classes"),
        (wrap(network(3), recipe={"epochs": 20, "lr": 0.02}), "three classes"),
        (wrap(network(1), recipe={"epochs": 20, "lr": 0.02}), "number"),
        (wrap(network(3), name="ensemble in passes", recipe={"epochs": 20, "lr": 0.02, "members": 2, "passes": 8}), "three classes"),
        (wrap(network(1), name="ensemble in passes", recipe={"epochs": 20, "lr": 0.02, "members": 2, "passes": 8}), "number"),
    )
]


def _images(task: Task, shape: tuple[int, int, int], n: int = 120, seed: int = 3) -> Dataset:
    """Return noise with a bright left part; the outcome is how wide it is."""
    rng = np.random.default_rng(seed)
    wide = rng.uniform(0.0, shape[1], n)
    lit = np.arange(shape[1])[None, None, :, None] < wide[:, None, None, None]
    X = (0.2 * rng.random((n, *shape)) + 0.8 * lit).reshape(n, -1).astype(np.float32)
    k = len(task.classes)
    outcome = np.searchsorted(np.quantile(wide, np.arange(1, k) / k), wide) if k else 1000.0 + 50.0 * wide
    return Dataset(pa.table({"row": np.arange(n)}), X, outcome, shape=shape)


def _strange_images(shape: tuple[int, int, int]) -> Dataset:
    """Return images of no light, of all, and of pixels far out of their range."""
    X = np.zeros((5, int(np.prod(shape))), np.float32)
    X[1], X[2], X[3], X[4, 0] = 1.0, 3e38, -3e38, np.float32(1e-40)
    return Dataset(pa.table({"row": np.arange(5)}), X, shape=shape)


def _quick(name: str, task: Task) -> Callable[[], Family]:
    """Return what makes one of the networks for images, whose recipe is short."""
    recipe = Recipe(8, 16, 3e-3, clip=1.0)
    base: Any = find([name])[0].make
    family = type(base.__name__, (base,), {"_recipe": lambda self, n: recipe})
    return lambda: family(task)


IMAGES = [
    Subject(f"{name}, {label}", _quick(name, TASKS[label]), _images(TASKS[label], shape), _strange_images(shape))
    for name, label, shape in (("cnn", "three classes", (6, 8, 1)), ("resnet", "number", (5, 7, 3)), ("vit", "two classes", (4, 6, 3)))
]


def _texts(task: Task, n: int = 120, seed: int = 3) -> Dataset:
    """Return two windows of ids between two numbers; the outcome is how often the text has the word 5."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(6, 12, (n, 2, 8))
    told = rng.uniform(size=n)
    ids[rng.uniform(size=ids.shape) < told[:, None, None]] = 5
    ids[rng.random(n) < 0.5, 1] = 0
    X = np.column_stack([rng.normal(size=n), ids.reshape(n, -1), rng.normal(size=n)]).astype(np.float32)
    k = len(task.classes)
    outcome = np.searchsorted(np.quantile(told, np.arange(1, k) / k), told) if k else 1000.0 + 50.0 * told
    return Dataset(pa.table({"row": np.arange(n)}), X, outcome, tokens=TOKENS)


def _strange_texts() -> Dataset:
    """Return texts without a token, of one, of ids between two and outside the vocabulary, and the largest magnitudes beside them."""
    X = np.zeros((6, 18), np.float32)
    X[1, 1], X[2], X[3], X[4, 1:9], X[5, 9:17] = 5.0, 3e38, -3e38, np.float32(5.5), 1e9
    return Dataset(pa.table({"row": np.arange(6)}), X, tokens=TOKENS)


TOKENS = Tokens(first=1, windows=2, length=8, vocabulary=12, pad=0)
TEXTS = [Subject(f"encoder, {label}", _quick("encoder", TASKS[label]), _texts(TASKS[label]), _strange_texts()) for label in TASKS]
TEXTS += [Subject(f"ngrams, {label}", _maker("ngrams", TASKS[label]), _texts(TASKS[label]), _strange_texts()) for label in TASKS]


def _beside(name: str, task: Task) -> Subject:
    """Return a family for numbers beside texts; of the other columns the first tells of the outcome."""
    candidate, data = beside_texts(find([name]), others=True)[0], _texts(task)
    assert data.features is not None
    assert data.outcome is not None
    data.features[:, 0] += 3.0 * (data.outcome - data.outcome.mean()) / data.outcome.std()
    return Subject(f"{name} beside texts", lambda: candidate.make(task), data, _strange_texts())


TEXTS += [_beside("linear", TASKS["number"]), _beside("lightgbm", TASKS["three classes"])]
_nothing = {"seen": pa.array([None, ["caviar"]], pa.list_(pa.string()))}
_no_past = {"past": pa.array([None, [None] * 8, [1e300] * 8], pa.list_(pa.float64()))}
THROWAWAY = [
    Subject("effects", TLearner, throwaway.trial(), Dataset(pa.table({"done": [0] * 2}), np.array([[3e38] * 3, [0.0] * 3], np.float32))),
    Subject("ranking", CoOccurrence, throwaway.baskets(), throwaway.strange(**_nothing)),
    Subject("quantiles over a horizon", SeasonalNaive, throwaway.demand(), throwaway.strange(**_no_past)),
    Subject("text", NearestQuestion, throwaway.questions(), throwaway.strange(question=["", "什么", None])),
]


@pytest.mark.parametrize("check", CHECKS, ids=named)
@pytest.mark.parametrize("subject", [*BUILT_IN, *WRAPPED, *IMAGES, *TEXTS, *THROWAWAY], ids=str)
def test_family(subject: Subject, check: Callable[[Subject, Path], None], tmp_path: Path) -> None:
    check(subject, tmp_path)
