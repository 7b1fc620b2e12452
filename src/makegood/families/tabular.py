"""The families for tables: a constant, a linear model, gradient-boosted trees. They read `Dataset.features` and nothing else."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import lightgbm as lgb
import numpy as np
from threadpoolctl import threadpool_limits

from makegood.contracts import Budget, Dataset, Floats, Predictive, Probabilities, Quantiles, Task
from makegood.families.regression import STRENGTHS, Affine, Scaled, SoftmaxRegression, log_loss, ridge, softmax
from makegood.families.trees import parse

if TYPE_CHECKING:
    from makegood.families.onnx import Graph

_ROWS = 4096  # scored at once by a graph
_PRODUCTS = 1 << 22  # in a graph's memory at once
_STATE = "family.json"


def features_of(data: Dataset) -> Floats:
    """Return the features (n, n_features) float32; a family for tables cannot do without."""
    assert data.features is not None, "preparation comes before a family for tables"
    return data.features


def predictive(task: Task, values: Floats) -> Predictive:
    """Return (n, k) values as what the task asks for: probabilities of its classes, or quantiles at its levels."""
    if task.kind == "classes":
        return Probabilities(task.classes, values)
    return Quantiles(task.levels, values)


def save_state(folder: Path, task: Task, state: dict[str, Any]) -> None:
    """Write a fitted model's state as JSON, whose decimal numbers restore every bit."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _STATE).write_text(json.dumps({"task": asdict(task), **state}), encoding="utf-8")


def load_state(folder: Path) -> tuple[Task, dict[str, Any]]:
    """Return the task and the state that `save_state` wrote."""
    state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    task = state.pop("task")
    return Task(task["kind"], tuple(task["classes"]), tuple(task["levels"])), state


class Constant:
    """The same prediction for every row: class rates, or the outcome's quantiles. What a model must beat."""

    rows = _ROWS
    values_: Floats  # (k,)

    def __init__(self, task: Task) -> None:
        self.task = task

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        """Return self; rates carry half a pseudo-row a class, so that no class is impossible (Krichevsky & Trofimov 1981)."""
        y = np.asarray(train.outcome)
        weight = np.ones(len(y)) if train.weight is None else train.weight / train.weight.mean()
        if self.task.kind == "classes":
            k = len(self.task.classes)
            self.values_ = (np.bincount(y, weight, k) + 0.5) / (weight.sum() + 0.5 * k)
        else:
            self.values_ = np.quantile(y, self.task.levels, weights=weight, method="inverted_cdf")
        return self

    def predict(self, data: Dataset) -> Predictive:
        """Return the constant for each row."""
        return predictive(self.task, np.tile(self.values_, (len(data), 1)))

    def write(self, graph: Graph) -> str:
        """Add the constant to a graph; it takes the number of rows from one feature's shape."""
        n = graph.op("Shape", graph.features, start=0, end=1)
        shape = graph.op("Concat", n, np.array([len(self.values_)]), axis=0)
        return graph.op("Expand", self.values_[None, :], shape)

    def save(self, folder: Path) -> None:
        """Write the constant."""
        save_state(folder, self.task, {"values": self.values_.tolist()})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return what was saved."""
        task, state = load_state(folder)
        self = cls(task)
        self.values_ = np.array(state["values"])
        return self


class Linear:
    """Classes: multinomial logistic regression, its penalty chosen on the validation rows. Number: a line and its spread.

    The spread is a second line, fitted to the absolute leave-one-out residuals (Glejser 1969), kept within a factor `SPREAD` of
    its mean; quantiles are mean + spread · (quantiles of the standardised residuals), so they never cross.
    """

    SPREAD = 4.0
    line_: Affine  # logits (n, n_classes), or mean and spread (n, 2)
    shape_: Floats  # number: quantiles of the standardised residuals (n_levels,)
    limits_: tuple[float, float]  # number: of the spread

    def __init__(self, task: Task) -> None:
        self.task = task

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        """Return self; it always finishes: out of time, the best of the penalties tried so far stands."""
        scaled = Scaled.of(features_of(train))
        with threadpool_limits(1, "blas"):  # more threads cost more than they bring, and change the last bits
            if self.task.kind == "classes":
                self._fit_classes(scaled, train, valid, budget)
            else:
                self._fit_number(scaled, train)
        return self

    def _fit_classes(self, scaled: Scaled, train: Dataset, valid: Dataset, budget: Budget) -> None:
        def out_of_time() -> bool:
            return budget.left(time.perf_counter()) <= 0.0

        problem = SoftmaxRegression.of(scaled.Z, np.asarray(train.outcome), len(self.task.classes), train.weight)
        Z, y = scaled.apply(features_of(valid)), np.asarray(valid.outcome)
        solved: list[tuple[float, Floats, Floats]] = []
        for strength in reversed(STRENGTHS):  # from simple to free: each solve starts from the one before
            W, intercept = problem.solve(strength, out_of_time)
            solved.append((log_loss(Z @ W + intercept, y), W, intercept))
            if out_of_time():
                break
        _, W, intercept = min(solved, key=lambda found: found[0])
        self.line_, self.shape_, self.limits_ = scaled.affine(W, intercept), np.empty(0), (0.0, 0.0)

    def _fit_number(self, scaled: Scaled, train: Dataset) -> None:
        y = np.asarray(train.outcome, np.float64)
        mean = ridge(scaled.Z, y, train.weight)
        spread = ridge(scaled.Z, np.abs(mean.residuals), train.weight)
        typical = max(float(np.abs(mean.residuals).mean()), np.finfo(np.float64).tiny)
        self.limits_ = typical / self.SPREAD, typical * self.SPREAD
        coefficients = np.column_stack([mean.coefficients, spread.coefficients])
        self.line_ = scaled.affine(coefficients, np.array([mean.intercept, spread.intercept]))
        here = np.clip(self.line_(features_of(train))[:, 1], *self.limits_)
        self.shape_ = np.quantile(mean.residuals / here, self.task.levels)

    def predict(self, data: Dataset) -> Predictive:
        """Return probabilities or quantiles; rows outside the training range are read as if on its border."""
        z = self.line_(features_of(data))
        if self.task.kind == "classes":
            return predictive(self.task, softmax(z))
        return predictive(self.task, z[:, :1] + np.clip(z[:, 1:], *self.limits_) * self.shape_)

    @property
    def rows(self) -> int:
        """Rows that a graph scores at once: each needs a product for every feature and output."""
        return max(1, min(_ROWS, _PRODUCTS // max(1, self.line_.weights.size)))

    def write(self, graph: Graph) -> str:
        """Add the line, and softmax or spread, to a graph."""
        z = graph.affine(self.line_)
        if self.task.kind == "classes":
            return graph.softmax(graph.single(z))
        mean, spread = (graph.op("Gather", z, np.array([column]), axis=1) for column in (0, 1))
        spread = graph.op("Min", graph.op("Max", spread, np.array(self.limits_[0])), np.array(self.limits_[1]))
        return graph.op("Add", mean, graph.op("Mul", spread, self.shape_))

    def save(self, folder: Path) -> None:
        """Write the coefficients."""
        save_state(folder, self.task, {"line": self.line_.to_json(), "shape": self.shape_.tolist(), "limits": list(self.limits_)})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return what was saved."""
        task, state = load_state(folder)
        self = cls(task)
        self.line_ = Affine.from_json(state["line"])
        self.shape_, self.limits_ = np.array(state["shape"]), (state["limits"][0], state["limits"][1])
        return self


class LightGBM:
    """Gradient-boosted trees (Ke et al. 2017), stopped early on the validation rows.

    Classes: one booster for the log loss. Number: one booster a level for the pinball loss, on the standardised outcome; quantiles
    that cross are sorted (Chernozhukov, Fernández-Val & Galichon 2010). Out of time or interrupted, the trees so far stand.
    """

    TREES = 2000
    PATIENCE = 50  # trees without a gain on the held-out rows
    rows = _ROWS
    texts_: tuple[str, ...]  # one booster each, as LightGBM writes it
    centre_: float
    scale_: float

    def __init__(self, task: Task) -> None:
        self.task = task

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        """Return self; the same rows and seed give the same trees, unless the budget cut them short.

        An interrupt is passed on, after the trees so far were kept where they can already predict.
        """
        y, y_valid = np.asarray(train.outcome, np.float64), np.asarray(valid.outcome, np.float64)
        centre, scale = (0.0, 1.0) if self.task.kind == "classes" else (float(np.median(y)), float(y.std()) or 1.0)
        params = _params(self.task, len(train), seed) | {"num_threads": _threads(features_of(train))}
        rows = lgb.Dataset(features_of(train), (y - centre) / scale, weight=train.weight, params=params)
        held = rows.create_valid(features_of(valid), (y_valid - centre) / scale, weight=valid.weight, params=params)
        objectives, texts, interrupted = _objectives(self.task), list[str](), False
        for pending, objective in zip(range(len(objectives), 0, -1), objectives, strict=True):
            start = time.perf_counter()
            text, interrupted = _boost(params | objective, rows, held, Budget(budget.left(start) / pending, start))
            texts.append(text)
            if interrupted:
                break
        if len(texts) == len(objectives):
            self._keep(texts, centre, scale)
        if interrupted:
            raise KeyboardInterrupt
        return self

    def _keep(self, texts: Sequence[str], centre: float, scale: float) -> None:
        self.texts_, self.centre_, self.scale_ = tuple(texts), centre, scale
        self._boosters = tuple(lgb.Booster(model_str=text) for text in texts)

    def predict(self, data: Dataset) -> Predictive:
        """Return probabilities, or quantiles in order."""
        X = features_of(data)
        width = len(self.task.classes) if len(self.task.classes) > 2 else 1
        parts = [
            np.asarray(b.predict(X, raw_score=True, num_threads=_threads(X))) if len(X) else np.empty((0, width)) for b in self._boosters
        ]
        raw = np.column_stack(parts)
        if self.task.kind == "number":
            return predictive(self.task, np.sort(self.centre_ + self.scale_ * raw, axis=1))
        return predictive(self.task, softmax(np.column_stack([np.zeros(len(X)), raw]) if width == 1 else raw))

    def write(self, graph: Graph) -> str:
        """Add one tree ensemble to a graph, and what turns its sums into the prediction."""
        trees = [parse(text) for text in self.texts_]
        if self.task.kind == "number":
            targets = [level for level, part in enumerate(trees) for _ in part]
            raw = graph.double(graph.trees([tree for part in trees for tree in part], targets, len(trees)))
            return graph.sort(graph.op("Add", graph.op("Mul", raw, np.array(self.scale_)), np.array(self.centre_)), len(trees))
        k = len(self.task.classes)
        targets = [1 if k == 2 else i % k for i in range(len(trees[0]))]
        return graph.softmax(graph.trees(trees[0], targets, k))

    def save(self, folder: Path) -> None:
        """Write the boosters as text."""
        save_state(folder, self.task, {"texts": list(self.texts_), "centre": self.centre_, "scale": self.scale_})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return what was saved."""
        task, state = load_state(folder)
        self = cls(task)
        self._keep(state["texts"], state["centre"], state["scale"])
        return self


def _objectives(task: Task) -> list[dict[str, Any]]:
    if task.kind == "number":
        return [{"objective": "quantile", "metric": "quantile", "alpha": level} for level in task.levels]
    if len(task.classes) == 2:
        return [{"objective": "binary", "metric": "binary_logloss"}]
    return [{"objective": "multiclass", "metric": "multi_logloss", "num_class": len(task.classes)}]


def _params(task: Task, n: int, seed: int) -> dict[str, Any]:
    """Return defaults that hold from a few hundred rows (shallow trees) to hundreds of thousands.

    The pinball loss learns as well in half the steps, which matters for one booster a level, and wants more features a tree.
    """
    classes = task.kind == "classes"
    return {
        "num_leaves": 6 if n < 5000 else 31,
        "learning_rate": 0.05 if classes else 0.1,
        "min_data_in_leaf": max(5, min(100, n // 40)),
        "feature_fraction": 0.5 if classes else 0.8,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 1.0,
        "max_bin": 255,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }


def _threads(X: Floats) -> int:
    """Return how many threads pay for themselves; the trees are the same with any number (`deterministic`, tested)."""
    return max(1, min(os.cpu_count() or 1, 8, X.size // 5_000_000))


def _boost(params: dict[str, Any], rows: lgb.Dataset, held: lgb.Dataset, budget: Budget) -> tuple[str, bool]:
    """Return the best booster on the held-out rows as text, and whether it was interrupted; there is at least one tree."""
    booster = lgb.Booster(params, rows)
    booster.add_valid(held, "held")
    best, best_at, interrupted = np.inf, 1, False
    try:
        for i in range(1, LightGBM.TREES + 1):
            exhausted = booster.update()
            loss = booster.eval_valid()[0][2]
            if loss < best:
                best, best_at = loss, i
            if exhausted or i - best_at >= LightGBM.PATIENCE or budget.left(time.perf_counter()) <= 0.0:
                break
    except KeyboardInterrupt:
        if not booster.num_trees():
            raise
        interrupted = True
    return booster.model_to_string(num_iteration=best_at), interrupted
