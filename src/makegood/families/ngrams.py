"""Texts as bags of n-grams: which tokens and which pairs of neighbours occur, read by a linear model.

The n-grams of a row are hashed into buckets (the hashing trick, Weinberger et al. 2009), each bucket counts once, weighs its inverse
document frequency (Spärck Jones 1972), and the weights of a row have the norm one. All that depends on an order is done in integers,
hashes as well as sums, so that a row alone and the same row in a batch agree in every bit, in NumPy and in ONNX Runtime alike.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from makegood.contracts import Budget, Dataset, Floats, Ints, Predictive, Task, Tokens
from makegood.errors import CaseError, Problem
from makegood.families.regression import Affine, Scaled, log_loss, softmax
from makegood.families.tabular import features_of, load_state, predictive, save_state

if TYPE_CHECKING:
    from makegood.families.onnx import Graph

STRENGTHS = (1e-3, 1e-4, 1e-5, 1e-6)
"""Penalties tried, per row, where each row's features have the norm one: from simple to free."""

ORDERS = (1, 2)
"""Lengths of the n-grams."""

BUCKETS = 1 << 16
"""What n-grams are hashed into."""

_FACTOR, _PRIME = 0x9E3779B1, (1 << 31) - 1  # a product of the factor and a rest of the prime stays below 2^63
_LEAST = 2  # training rows that an n-gram must occur in: what occurs once is learnt by heart
_WEIGHTS = 1 << 22  # at most: coefficients of all buckets and outputs
_SQUARE = float(1 << 16)  # squares of weights are whole numbers of 1/65536
_STEPS = 40  # at most, of the solver, for each strength
_MEMORY = 5  # steps that the solver remembers
_BLOCK = 4096  # rows hashed at once
_ROWS, _PRODUCTS = 4096, 1 << 22  # rows, and terms of sums, in a graph's memory at once
_INT16, _INT32, _INT64 = 5, 6, 7  # as ONNX numbers its types


@dataclass(frozen=True)
class Buckets:
    """Which buckets count, and how much: `place` (BUCKETS + 1,) is a bucket's row in the tables, 0 for those that do not count.

    `square` (used + 1,) int64 is each row's squared weight in units of 1/65536; the first is zero. The last bucket is that of n-grams
    that hold padding.
    """

    tokens: Tokens
    place: NDArray[np.int32]
    square: NDArray[np.int64]

    @classmethod
    def of(cls, X: Floats, tokens: Tokens, most: int) -> Self:
        """Return what the training rows X (n, n_features) show, of at most so many buckets."""
        frequency = np.zeros(BUCKETS + 1, np.int64)
        for start in range(0, len(X), _BLOCK):
            found = _distinct(hashed(X[start : start + _BLOCK], tokens))
            frequency += np.bincount(found[found >= 0], minlength=BUCKETS + 1)
        frequency[BUCKETS] = 0
        used = np.argsort(-frequency, kind="stable")[:most]
        used = np.sort(used[frequency[used] >= min(_LEAST, len(X))])
        place = np.zeros(BUCKETS + 1, np.int32)
        place[used] = np.arange(1, len(used) + 1)
        idf = np.log((1.0 + len(X)) / (1.0 + frequency[used])) + 1.0
        return cls(tokens, place, np.concatenate([[0], np.rint(idf**2 * _SQUARE).astype(np.int64)]))

    @cached_property
    def weight(self) -> Floats:
        """Each row's weight (used + 1,)."""
        return np.asarray(np.sqrt(self.square / _SQUARE))

    def counts(self, X: Floats) -> sp.csr_array:
        """Return which rows of the tables count (n, used + 1): ones and zeros, the first column empty."""
        parts = []
        for start in range(0, len(X), _BLOCK):
            found = _distinct(hashed(X[start : start + _BLOCK], self.tokens))
            places = np.where(found >= 0, self.place[found], 0)
            row, at = np.nonzero(places)
            shape = (len(places), len(self.square))
            parts.append(sp.csr_array((np.ones(len(row)), (row, places[row, at])), shape))
        return sp.csr_array(sp.vstack(parts)) if parts else sp.csr_array((0, len(self.square)))

    def norms(self, counts: sp.csr_array) -> Floats:
        """Return the norm (n,) of each row's weights; where none counts, that of the least weight there can be."""
        return np.asarray(np.sqrt(np.maximum(counts @ self.square.astype(np.float64), 1.0) * (1.0 / _SQUARE)))


def hashed(X: Floats, tokens: Tokens) -> Ints:
    """Return the bucket of every n-gram (n, m) of rows X (n, n_features), `BUCKETS` where it holds padding.

    >>> hashed(np.array([[5.0, 7.0, 0.0]], np.float32), Tokens(0, 1, 3, 9, 0)).tolist()[0][2]
    65536
    """
    ids = np.rint(np.clip(X[:, tokens.columns], 0.0, tokens.vocabulary - 1.0)).astype(np.int64)
    ids = ids.reshape(len(X), tokens.windows, tokens.length)
    out = []
    for order in ORDERS:
        room = tokens.length - order + 1
        key, real = np.full((), order, np.int64), np.ones((), np.bool_)
        for i in range(order):
            part = ids[:, :, i : i + room]
            key, real = (key * _FACTOR + part + 1) % _PRIME, real & (part != tokens.pad)
        out.append(np.where(real, key % BUCKETS, BUCKETS).reshape(len(X), -1))
    return np.concatenate(out, axis=1)


def _distinct(buckets: Ints) -> Ints:
    """Return each row in order, with −1 for what stood there before."""
    buckets = np.sort(buckets, axis=1)
    buckets[:, 1:][buckets[:, 1:] == buckets[:, :-1]] = -1
    return buckets


@dataclass
class _Problem:
    """Mean loss + strength/2·|W|² over rows Z (n, p), sparse: log loss of classes, or half the squared error of a number.

    Each class gets half a pseudo-row without features (Krichevsky & Trofimov 1981), so that a class without rows keeps a finite
    intercept. `theta` (p + 1, k) is where the last solve ended and the next begins; its last row is the intercept.
    """

    Z: sp.csr_array
    target: Floats  # (n, k): one-hot, or the standardised number
    mass: Floats  # (n, 1)
    classes: bool
    theta: Floats

    @classmethod
    def of(cls, Z: sp.csr_array, target: Floats, weight: Floats | None, *, classes: bool) -> Self:
        """Return the problem of rows Z with a target (n, k) each."""
        mass = np.ones(len(target)) if weight is None else weight / weight.mean()
        k = target.shape[1]
        if classes:
            Z = sp.csr_array(sp.vstack([Z, sp.csr_array((k, Z.shape[1]))]))
            target, mass = np.concatenate([target, np.eye(k)]), np.concatenate([mass, np.full(k, 0.5)])
        return cls(Z, target, mass[:, None], classes, np.zeros((Z.shape[1] + 1, k)))

    @cached_property
    def _turned(self) -> sp.csr_array:
        return sp.csr_array(self.Z.T)

    def scores(self, Z: sp.csr_array) -> Floats:
        """Return the model's scores (n, k) of rows Z (n, p)."""
        return np.asarray(Z @ self.theta[:-1] + self.theta[-1])

    def solve(self, strength: float, out_of_time: Callable[[], bool]) -> None:
        """Move `theta` to the best at one strength; when time runs out, as far as the solver came."""
        shape, total = self.theta.shape, float(self.mass.sum())

        def objective(flat: Floats) -> tuple[float, Floats]:
            theta = flat.reshape(shape)
            z = self.Z @ theta[:-1] + theta[-1]
            if self.classes:
                z -= z.max(axis=1, keepdims=True)
                e = np.exp(z)
                norm = e.sum(axis=1, keepdims=True)
                loss = float((self.mass * (np.log(norm) - (self.target * z).sum(axis=1, keepdims=True))).sum())
                slope = self.mass * (e / norm - self.target)
            else:
                off = z - self.target
                loss, slope = 0.5 * float((self.mass * off**2).sum()), self.mass * off
            step = np.empty(shape)
            step[:-1] = self._turned @ (slope / total)
            step[:-1] += strength * theta[:-1]
            step[-1] = slope.sum(axis=0) / total
            return loss / total + 0.5 * strength * float((theta[:-1] ** 2).sum()), step.ravel()

        def stop(_: NDArray[Any]) -> None:
            if out_of_time():
                raise StopIteration

        options = {"maxiter": _STEPS, "maxcor": _MEMORY, "gtol": 1e-6, "ftol": 1e-6}
        found = minimize(objective, self.theta.ravel(), jac=True, method="L-BFGS-B", callback=stop, options=options)
        self.theta = found.x.reshape(shape)


class NGrams:
    """Classes: multinomial logistic regression on n-grams, its penalty chosen on the validation rows. Number: ridge regression.

    The other columns of a row join as standardised features, which weigh together as much as the text. Quantiles of a number are its
    mean and the quantiles of the residuals on the validation rows. Coefficients are kept as 16-bit integers with one scale for each
    output; these are the model, everywhere.
    """

    buckets_: Buckets
    table_: NDArray[np.int16]  # (used + 1, k)
    scale_: Floats  # (k,)
    line_: Affine  # of the other columns; its intercept is the model's
    shape_: Floats  # number: quantiles of the residuals (n_levels,)

    def __init__(self, task: Task) -> None:
        self.task = task

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        """Return self; it always finishes: out of time, the best of the penalties tried so far stands.

        Raises `CaseError` for rows without a text.
        """
        if train.tokens is None:
            mend = "name it: data.text: COLUMN"
            raise CaseError(Problem("train.families: ngrams", "rows without a text", "a column of texts", mend))
        classes, y = self.task.kind == "classes", np.asarray(train.outcome)
        target = np.eye(len(self.task.classes))[y] if classes else y.astype(np.float64)[:, None]
        buckets = Buckets.of(features_of(train), train.tokens, _WEIGHTS // target.shape[1])
        scaled = Scaled.of(_others(features_of(train), train.tokens))
        centre, spread = (0.0, 1.0) if classes else (float(y.mean()), float(y.std()) or 1.0)
        with threadpool_limits(1, "blas"):  # more threads cost more than they bring, and change the last bits
            rows = _Rows(buckets, scaled)
            problem = _Problem.of(rows.of(features_of(train), scaled.Z), (target - centre) / spread, train.weight, classes=classes)
            theta = _best(problem, rows.of(features_of(valid)), (np.asarray(valid.outcome) - centre) / spread, budget)
        self._keep(rows, theta * spread, centre)
        self.shape_ = np.zeros(len(self.task.levels))
        if not classes:
            self.shape_ = np.quantile(np.asarray(valid.outcome) - self._scores(features_of(valid))[:, 0], self.task.levels)
        return self

    def _keep(self, rows: _Rows, theta: Floats, centre: float) -> None:
        """Write coefficients (used + 1 + n_others + 1, k) as what is scored."""
        at = len(rows.buckets.square)
        weights = theta[:at] * rows.buckets.weight[:, None]
        most = np.abs(weights).max(axis=0)
        self.scale_ = np.where(most > 0.0, most, 1.0) / np.iinfo(np.int16).max
        self.buckets_, self.table_ = rows.buckets, np.rint(weights / self.scale_).astype(np.int16)
        self.line_ = rows.scaled.affine(theta[at:-1] * rows.share, theta[-1] + centre)

    def _scores(self, X: Floats) -> Floats:
        """Return scores (n, k): sums of whole numbers, in float64, are exact in any order."""
        counts = self.buckets_.counts(X)
        sums = np.asarray(counts @ self.table_.astype(np.float64))
        return sums * self.scale_ / self.buckets_.norms(counts)[:, None] + self.line_(_others(X, self.buckets_.tokens))

    def predict(self, data: Dataset) -> Predictive:
        """Return probabilities or quantiles; n-grams that the training rows did not have count for nothing."""
        z = self._scores(features_of(data))
        return predictive(self.task, softmax(z) if self.task.kind == "classes" else z + self.shape_)

    @property
    def rows(self) -> int:
        """Rows that a graph scores at once: each needs a term for every n-gram and output."""
        tokens = self.buckets_.tokens
        terms = len(ORDERS) * tokens.windows * tokens.length * self.table_.shape[1]
        return int(max(1, min(_ROWS, _PRODUCTS // max(1, terms))))

    def write(self, graph: Graph) -> str:
        """Add the sums, and softmax or quantiles, to a graph."""
        tokens = self.buckets_.tokens
        place = self._write_places(graph)
        one = np.array([1])
        squares = graph.op("ReduceSum", graph.op("Gather", self.buckets_.square, place), one)
        norms = graph.op("Sqrt", graph.op("Mul", graph.op("Max", graph.double(squares), np.array(1.0)), np.array(1.0 / _SQUARE)))
        terms = graph.op("Cast", graph.op("Gather", self.table_, place), to=_INT32)
        sums = graph.double(graph.op("ReduceSum", terms, one, keepdims=0))
        z = graph.op("Div", graph.op("Mul", sums, self.scale_), norms)
        if len(self.line_.centre):
            columns = np.delete(np.arange(len(self.line_.centre) + tokens.windows * tokens.length), tokens.columns)
            others = replace(graph, features=graph.op("Gather", graph.features, columns, axis=1))
            z = graph.op("Add", z, others.affine(self.line_))
        else:
            z = graph.op("Add", z, self.line_.intercept)
        return graph.softmax(graph.single(z)) if self.task.kind == "classes" else graph.op("Add", z, self.shape_)

    def _write_places(self, graph: Graph) -> str:
        """Add what finds the rows of the tables that count (n, m), each once; the rest is 0."""
        tokens = self.buckets_.tokens
        zero, one, two = np.array([0]), np.array([1]), np.array([2])
        start, stop = (np.array([at]) for at in (tokens.columns.start, tokens.columns.stop))
        ids = graph.op("Slice", graph.features, start, stop, one)
        ids = graph.op("Min", graph.op("Max", ids, np.array(0.0, np.float32)), np.array(tokens.vocabulary - 1, np.float32))
        ids = graph.op("Cast", graph.op("Round", ids), to=_INT64)
        ids = graph.op("Reshape", ids, np.array([-1, tokens.windows, tokens.length]))
        padded, found = graph.op("Equal", ids, np.array(tokens.pad)), []
        for order in ORDERS:
            room = tokens.length - order + 1
            key, lost = "", ""
            for i in range(order):
                part, gap = (graph.op("Slice", name, np.array([i]), np.array([i + room]), two) for name in (ids, padded))
                moved = graph.op("Mul", key, np.array(_FACTOR)) if key else np.array(order * _FACTOR)
                key = graph.op("Mod", graph.op("Add", graph.op("Add", moved, part), np.array(1)), np.array(_PRIME))
                lost = graph.op("Or", lost, gap) if lost else gap
            bucket = graph.op("Where", lost, np.array(BUCKETS), graph.op("Mod", key, np.array(BUCKETS)))
            found.append(graph.op("Reshape", bucket, np.array([-1, tokens.windows * room])))
        m = tokens.windows * sum(tokens.length - order + 1 for order in ORDERS)
        ordered = graph.sort(graph.op("Concat", *found, axis=1), m)
        before = graph.op("Pad", graph.op("Slice", ordered, zero, np.array([-1]), one), np.array([0, 1, 0, 0]), np.array(-1))
        places = graph.op("Gather", self.buckets_.place, ordered)
        return graph.op("Where", graph.op("Equal", ordered, before), np.array(0, np.int32), places)

    def save(self, folder: Path) -> None:
        """Write the tables and the line."""
        buckets = self.buckets_
        arrays: dict[str, NDArray[Any]] = {"place": buckets.place, "square": buckets.square, "table": self.table_}
        coded = {name: base64.b64encode(array.tobytes()).decode() for name, array in arrays.items()}
        tokens = [getattr(buckets.tokens, name) for name in Tokens.__dataclass_fields__]
        plain = {"tokens": tokens, "scale": self.scale_.tolist(), "line": self.line_.to_json(), "shape": self.shape_.tolist()}
        save_state(folder, self.task, {**coded, **plain})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return what was saved."""
        task, state = load_state(folder)
        self = cls(task)
        place, square, table = (base64.b64decode(state[name]) for name in ("place", "square", "table"))
        self.buckets_ = Buckets(Tokens(*state["tokens"]), np.frombuffer(place, np.int32), np.frombuffer(square, np.int64))
        self.scale_, self.shape_ = np.array(state["scale"]), np.array(state["shape"])
        self.table_, self.line_ = np.frombuffer(table, np.int16).reshape(-1, len(self.scale_)), Affine.from_json(state["line"])
        return self


@dataclass(frozen=True)
class _Rows:
    """What makes sparse rows (n, used + 1 + n_others) of features: the weights of a text's n-grams, then the other columns."""

    buckets: Buckets
    scaled: Scaled

    @property
    def share(self) -> float:
        """What a standardised column is multiplied with, so that all of them together have about the norm one, as a text has."""
        return float(1.0 / np.sqrt(max(1, self.scaled.Z.shape[1])))

    def of(self, X: Floats, others: Floats | None = None) -> sp.csr_array:
        """Return rows X (n, n_features); `others` are their standardised other columns, where these are known."""
        counts = self.buckets.counts(X)
        others = self.scaled.apply(_others(X, self.buckets.tokens)) if others is None else others
        texts = sp.diags_array(1.0 / self.buckets.norms(counts)) @ counts @ sp.diags_array(self.buckets.weight)
        return sp.csr_array(sp.hstack([texts, sp.csr_array(others * self.share)]))


def _best(problem: _Problem, held: sp.csr_array, outcome: NDArray[Any], budget: Budget) -> Floats:
    """Return the coefficients of the strength with the least loss on held-out rows; each solve starts from the one before."""
    best: tuple[float, Floats] | None = None
    for strength in STRENGTHS:
        problem.solve(strength, lambda: budget.left(time.perf_counter()) <= 0.0)
        z = problem.scores(held)
        loss = log_loss(z, outcome.astype(np.int64)) if problem.classes else float(((z[:, 0] - outcome) ** 2).mean())
        if best is not None and not loss < best[0]:
            break
        best = loss, problem.theta
        if budget.left(time.perf_counter()) <= 0.0:
            break
    assert best is not None
    return best[1]


def _others(X: Floats, tokens: Tokens) -> Floats:
    """Return the features (n, n_others) that are no token ids."""
    return np.delete(X, tokens.columns, axis=1)
