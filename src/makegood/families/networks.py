"""Networks for tables, `MLP` and `Transformer`: trained by torch, scored by ONNX alone from then on.

The graph is written by hand from the weights. A matrix product's bits depend on how many rows it is given, so a row at a time is
scored, and what is evaluated is what is deployed. What trains is imported with this module, so that no training budget pays for it;
`makegood.families.find` imports it when a network is first asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from makegood.contracts import Budget, Dataset, Floats, Ints, Predictive, Task
from makegood.errors import Problem, Refused
from makegood.families._torch.loop import Recipe, Report, Session
from makegood.families._torch.modules import FAR, SOFT, FeatureTransformer, Mixture, Sample, learn, outputs, refill, seeded, weights
from makegood.families.converted import PARITY
from makegood.families.onnx import edge_rows, merge
from makegood.families.tabular import features_of, load_state, predictive, save_state

if TYPE_CHECKING:
    from makegood.families.onnx import Graph
    from makegood.scorer import Scorer

Arrays = dict[str, NDArray[Any]]

CHECKED = 1000  # validation rows on which the two are compared
PIECES = 16  # of a number's range, with equally many rows each
ROWS_A_PIECE = 40
COLUMNS = 2048  # encoded, of all numbers together
TOKENS = 48
_ARRAYS = "weights.npz"


def encoding(X: Floats) -> Arrays:
    """Return how features (n, p) are encoded: the arrays that `Encoder` names, the ranges "low" and "high" (p,), and two more.

    Features that are only ever 0 or 1 stay as they are; those that do not vary are left out. "owner" names the feature of each
    encoded column (width,), and "token" the token that it belongs to: one a number, and one for a run of binary features that
    are never set together, as the levels of a category are.
    """
    low, high = X.min(axis=0), X.max(axis=0)
    ones = ((X == 0.0) | (X == 1.0)).all(axis=0)
    varies = low < high
    numbers, binary = np.flatnonzero(varies & ~ones), np.flatnonzero(varies & ones)
    if not varies.any():
        binary = np.array([0])
    centre, scale = _robust(X[:, numbers].astype(np.float64))
    pieces, start, steep = _pieces(X[:, numbers].astype(np.float64), scale)
    owner = np.concatenate([numbers, numbers[pieces], binary])
    token = np.empty(X.shape[1], np.int64)
    token[numbers] = np.arange(len(numbers))
    token[binary] = len(numbers) + _categories(X[:, binary])
    token = token[owner]
    token //= -(-(int(token.max()) + 1) // TOKENS)  # neighbours share one where there would be too many
    single = {"low": low, "high": high, "centre": centre, "slope": 1.0 / scale, "start": start, "steep": steep}
    whole = {"numbers": numbers, "binary": binary, "pieces": pieces, "owner": owner, "token": token}
    return {name: value.astype(np.float32) for name, value in single.items()} | whole


def _robust(X: Floats) -> tuple[Floats, Floats]:
    """Return median and spread of numbers (n, a): the quartiles' distance as a standard deviation, or half the range if that is 0."""
    if not X.shape[1]:
        return np.empty(0), np.empty(0)
    q25, centre, q75 = np.quantile(X, [0.25, 0.5, 0.75], axis=0)
    return centre, np.maximum(np.where(q75 > q25, (q75 - q25) / 1.349, np.ptp(X, axis=0) / 2.0), 1e-30)


def _pieces(X: Floats, scale: Floats) -> tuple[Ints, Floats, Floats]:
    """Return number, start and steepness of each piece of numbers (n, a): between quantiles that differ by more than rounding."""
    n, a = X.shape
    count = max(2, min(PIECES, n // ROWS_A_PIECE, COLUMNS // max(1, a)))
    owner, start, steep = [np.empty(0, np.int64)], [np.empty(0)], [np.empty(0)]
    for j in range(a):
        knots = np.unique(np.quantile(X[:, j], np.linspace(0.0, 1.0, count + 1)))
        knots = knots[np.concatenate([[True], np.diff(knots) > 1e-4 * scale[j]])]
        owner.append(np.full(len(knots) - 1, j))
        start.append(knots[:-1])
        steep.append(1.0 / np.diff(knots))
    return np.concatenate(owner), np.concatenate(start), np.concatenate(steep)


def _categories(X: Floats) -> Ints:
    """Return the group (b,) of each binary feature (n, b): a run of neighbours of which at most one is set in any row.

    >>> _categories(np.array([[1, 0, 1], [0, 1, 1]])).tolist()
    [0, 0, 1]
    """
    group = np.zeros(X.shape[1], np.int64)
    taken = np.zeros(len(X), bool)
    for j in range(X.shape[1]):
        here = X[:, j] > 0.0
        clash = bool((taken & here).any())
        group[j] = (group[j - 1] if j else 0) + clash
        taken = here if clash else taken | here
    return group


class _Network(ABC):
    """A network as its weights. Classes: probabilities. Number: quantiles of the standardised outcome, sorted.

    Rows outside the range of the training rows are read as if on its border, so that no input overflows.
    """

    MEMBERS = 1
    rows = 1  # a matrix product may treat a row otherwise inside a batch
    patient = True  # uses the time that it is given
    arrays_: Arrays  # the encoding and the weights
    centre_: float  # number: of the outcome
    scale_: float

    def __init__(self, task: Task) -> None:
        self.task = task

    @property
    def _k(self) -> int:
        return len(self.task.classes) if self.task.kind == "classes" else len(self.task.levels)

    @abstractmethod
    def _module(self, arrays: Arrays) -> Mixture | FeatureTransformer:
        """Return an untrained module."""

    @abstractmethod
    def _recipe(self, n: int) -> Recipe:
        """Return how to train it on n rows."""

    @abstractmethod
    def _body(self, graph: Graph, encoded: str) -> str:
        """Add the network behind the encoder and return its outputs (n, MEMBERS, k), float32."""

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        """Return self; the same rows and seed give the same weights, unless the budget cut them short.

        An interrupt is passed on, after the best weights so far were kept if an epoch was finished. Raises `Refused` where the
        loss is never finite, or ONNX does not agree with torch.
        """
        y = np.asarray(train.outcome)
        unit = (0.0, 1.0) if self.task.kind == "classes" else (float(y.mean()), float(y.std()) or 1.0)
        arrays = encoding(features_of(train))
        model = seeded(lambda: self._module(arrays), seed)
        return self._learn(model, arrays, (train, valid), unit, self._recipe(len(train)), budget, seed)

    def _learn(
        self,
        model: Mixture | FeatureTransformer,
        arrays: Arrays,
        rows: tuple[Dataset, Dataset],
        unit: tuple[float, float],
        recipe: Recipe,
        budget: Budget,
        seed: int,
    ) -> Self:
        """Train a module behind an encoding, keep its weights, and hold its ONNX form to it; `unit` is a number's (centre, scale)."""
        classes, low, high = self.task.kind == "classes", arrays["low"], arrays["high"]

        def sample(data: Dataset) -> Sample:
            y = np.asarray(data.outcome)
            return Sample(np.clip(features_of(data), low, high), y if classes else (y - unit[0]) / unit[1], data.weight)

        epochs: list[Report] = []

        def heard(report: Report) -> None:
            epochs.append(report)
            budget.tell(str(report))

        levels = () if classes else self.task.levels
        try:
            learn(model, (sample(rows[0]), sample(rows[1])), levels, recipe, Session(budget, seed, progress=heard))
        except KeyboardInterrupt:
            if epochs:
                self._keep(arrays | weights(model), *unit)
            raise
        self._keep(arrays | weights(model), *unit)
        self._check(model, features_of(rows[1])[:CHECKED], seed)
        return self

    def _keep(self, arrays: Arrays, centre: float, scale: float) -> None:
        self.arrays_, self.centre_, self.scale_ = arrays, centre, scale
        self._scorer: Scorer = merge([(self, 1.0)], len(arrays["low"]), self._k)

    def _check(self, model: Mixture | FeatureTransformer, X: Floats, seed: int) -> None:
        rows = np.concatenate([X, edge_rows(self._scorer, X, seed)[0]])
        classes = self.task.kind == "classes"
        wanted = outputs(model, np.clip(rows, self.arrays_["low"], self.arrays_["high"]), classes=classes)
        if not classes:
            wanted = np.sort(wanted, axis=1)
        worst = float(np.abs(wanted - (self._scorer(rows) - self.centre_) / self.scale_).max())
        if not worst <= PARITY:
            got = f"an ONNX model that differs by {worst:.2g}"
            mend = "leave it out of train.families, or look for extreme values"
            raise Refused(Problem(type(self).__name__, got, f"at most {PARITY:g}", mend))

    def predict(self, data: Dataset) -> Predictive:
        """Return probabilities, or quantiles in order."""
        return predictive(self.task, self._scorer(np.ascontiguousarray(features_of(data), np.float32)))

    def write(self, graph: Graph) -> str:
        """Add the encoder, the network, and the mean of its members to a graph."""
        out = self._body(graph, self._encoded(graph))
        out = graph.softmax(out) if self.task.kind == "classes" else graph.double(out)
        members = [graph.op("Gather", out, np.array([member]), axis=1) for member in range(self.MEMBERS)]
        total = members[0]
        for member in members[1:]:
            total = graph.op("Add", total, member)
        mean = graph.op("Mul", graph.op("Squeeze", total, np.array([1])), np.array(1.0 / self.MEMBERS))
        if self.task.kind == "classes":
            return mean
        return graph.sort(graph.op("Add", graph.op("Mul", mean, np.array(self.scale_)), np.array(self.centre_)), self._k)

    def _encoded(self, graph: Graph) -> str:
        """Add what `Encoder` computes: (n, width) float32."""
        at, one = self.arrays_, np.array(1.0, np.float32)
        x = graph.op("Min", graph.op("Max", graph.features, at["low"]), at["high"])
        parts = []
        if len(at["numbers"]):
            numbers = graph.op("Gather", x, at["numbers"], axis=1)
            z = graph.op("Mul", graph.op("Sub", numbers, at["centre"]), at["slope"])
            z = graph.op("Min", graph.op("Max", z, np.array(-FAR, np.float32)), np.array(FAR, np.float32))
            square = graph.op("Mul", graph.op("Mul", z, z), np.array(1.0 / SOFT**2, np.float32))
            parts.append(graph.op("Div", z, graph.op("Sqrt", graph.op("Add", square, one))))
            own = graph.op("Gather", numbers, at["pieces"], axis=1)
            rise = graph.op("Mul", graph.op("Sub", own, at["start"]), at["steep"])
            parts.append(graph.op("Min", graph.op("Max", rise, np.array(0.0, np.float32)), one))
        if len(at["binary"]):
            parts.append(graph.op("Gather", x, at["binary"], axis=1))
        return graph.op("Concat", *parts, axis=1)

    def save(self, folder: Path) -> None:
        """Write the weights; what trained them is not kept."""
        save_state(folder, self.task, {"centre": self.centre_, "scale": self.scale_})
        np.savez(folder / _ARRAYS, allow_pickle=False, **self.arrays_)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return what was saved."""
        task, state = load_state(folder)
        self = cls(task)
        with np.load(folder / _ARRAYS, allow_pickle=False) as arrays:
            self._keep(dict(arrays), state["centre"], state["scale"])
        return self


class MLP(_Network):
    """An ensemble of MLPs in one network (TabM: Gorishniy et al. 2025) on piecewise-linear numbers (Gorishniy et al. 2022)."""

    MEMBERS = 8
    DEPTH = 2
    WIDTH = 128

    def _module(self, arrays: Arrays) -> Mixture:
        return Mixture(arrays, self._k, width=self.WIDTH, depth=self.DEPTH, members=self.MEMBERS, dropout=0.2)

    def _recipe(self, n: int) -> Recipe:
        return Recipe(_epochs(n, 40), _batch(n), lr=4e-3, weight_decay=0.3, clip=1.0, patience=10, average=0.98)

    def pruned(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        """Return a network with half of each layer's hidden units, fine-tuned on the rows: those left out have the least weight.

        A unit's weight is the norm of what leads to it times the norm of what leads on from it, as in structured magnitude pruning (Li et
        al. 2017, §3.1). Whole units go, so that every matrix is smaller. Raises as `fit` does.
        """
        assert self.arrays_["head"].shape[1] > 1, "a layer has two units at least"
        narrow = type(self)(self.task)
        arrays, narrow.WIDTH = self._halved()
        model = seeded(lambda: narrow._module(arrays), seed)
        refill(model, arrays)
        whole = self._recipe(len(train))
        recipe = replace(whole, epochs=max(1, whole.epochs // 4), lr=whole.lr / 4.0)
        return narrow._learn(model, arrays, (train, valid), (self.centre_, self.scale_), recipe, budget, seed)

    def _halved(self) -> tuple[Arrays, int]:
        """Return the arrays with half of the hidden units, and how many a layer then has."""
        arrays, m, width = dict(self.arrays_), self.MEMBERS, self.arrays_["head"].shape[1] // 2
        for i in range(self.DEPTH):
            here, after = f"layers.{i}.", f"layers.{i + 1}."
            last = i == self.DEPTH - 1
            into = np.linalg.norm(arrays[f"{here}weight"], axis=0) * np.abs(arrays[f"{here}s"].reshape(m, -1)).mean(axis=0)
            if last:
                onward = np.linalg.norm(arrays["head"], axis=(0, 2))
            else:
                onward = np.linalg.norm(arrays[f"{after}weight"], axis=1) * np.abs(arrays[f"{after}r"].reshape(m, -1)).mean(axis=0)
            kept = np.sort(np.argsort(-into * onward, kind="stable")[:width])
            arrays[f"{here}weight"] = arrays[f"{here}weight"][:, kept]
            vectors = [f"{here}s", f"{here}bias", *([] if last else [f"{after}r"])]
            arrays |= {name: arrays[name].reshape(m, -1)[:, kept].flatten() for name in vectors}
            if last:
                arrays["head"] = arrays["head"][:, kept]
            else:
                arrays[f"{after}weight"] = arrays[f"{after}weight"][kept]
        return arrays, width

    def _body(self, graph: Graph, encoded: str) -> str:
        h = graph.op("Unsqueeze", encoded, np.array([1]))
        m = self.MEMBERS
        for i in range(self.DEPTH):
            weight, r, s, bias = (self.arrays_[f"layers.{i}.{name}"] for name in ("weight", "r", "s", "bias"))
            product = graph.op("MatMul", graph.op("Mul", h, r.reshape(m, -1)), weight)
            h = graph.op("Relu", graph.op("Add", graph.op("Mul", product, s.reshape(m, -1)), bias.reshape(m, -1)))
        out = graph.op("MatMul", graph.op("Unsqueeze", h, np.array([2])), self.arrays_["head"])
        return graph.op("Add", graph.op("Squeeze", out, np.array([2])), self.arrays_["bias"].reshape(m, -1))


class Transformer(_Network):
    """A small Transformer over features (FT-Transformer: Gorishniy et al. 2021), a category's levels one token."""

    D = 24
    HEADS = 4
    DEPTH = 2

    def _module(self, arrays: Arrays) -> FeatureTransformer:
        return FeatureTransformer(arrays, self._k, d=self.D, heads=self.HEADS, depth=self.DEPTH, dropout=0.3)

    def _recipe(self, n: int) -> Recipe:
        return Recipe(_epochs(n, 20), _batch(n), lr=2e-3, weight_decay=0.3, warm_up=0.05, clip=1.0, patience=10, average=0.98)

    def _body(self, graph: Graph, encoded: str) -> str:
        tokens = graph.op("Reshape", graph.op("MatMul", encoded, self.arrays_["spread"]), np.array([0, -1, self.D]))
        padded = graph.op("Pad", tokens, np.array([0, 1, 0, 0, 0, 0]))
        h = graph.op("Add", padded, self.arrays_["bias"].reshape(-1, self.D))
        for i in range(self.DEPTH):
            h = self._block(graph, h, f"blocks.{i}", first=i == self.DEPTH - 1)
        return self._line(graph, graph.op("Relu", self._norm(graph, h, "norm")), "head")

    def _block(self, graph: Graph, x: str, name: str, *, first: bool) -> str:
        """Add attention and the gated net; `first` as in `Block`."""
        h = asking = self._norm(graph, x, f"{name}.norm")
        if first:
            x, asking = (graph.op("Gather", part, np.array([0]), axis=1) for part in (x, h))
        split, size = np.array([0, -1, self.HEADS, self.D // self.HEADS]), np.array((self.D // self.HEADS) ** -0.5, np.float32)
        q, k, v = (
            graph.op("Transpose", graph.op("Reshape", self._line(graph, part, f"{name}.{letter}"), split), perm=perm)
            for part, letter, perm in ((asking, "q", (0, 2, 1, 3)), (h, "k", (0, 2, 3, 1)), (h, "v", (0, 2, 1, 3)))
        )
        share = graph.op("Softmax", graph.op("Mul", graph.op("MatMul", q, k), size), axis=-1)
        seen = graph.op("Transpose", graph.op("MatMul", share, v), perm=(0, 2, 1, 3))
        x = graph.op("Add", x, self._line(graph, graph.op("Reshape", seen, np.array([0, -1, self.D])), f"{name}.o"))
        up = self._line(graph, self._norm(graph, x, f"{name}.feed_norm"), f"{name}.up")
        hidden = self.arrays_[f"{name}.down.weight"].shape[1]
        value, gate = (graph.op("Gather", up, np.arange(start, start + hidden), axis=2) for start in (0, hidden))
        return graph.op("Add", x, self._line(graph, graph.op("Mul", value, graph.op("Relu", gate)), f"{name}.down"))

    def _norm(self, graph: Graph, x: str, name: str) -> str:
        weight, bias = self.arrays_[f"{name}.weight"], self.arrays_[f"{name}.bias"]
        return graph.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=1e-5)

    def _line(self, graph: Graph, x: str, name: str) -> str:
        product = graph.op("MatMul", x, self.arrays_[f"{name}.weight"].T)
        return graph.op("Add", product, self.arrays_[f"{name}.bias"])


def _batch(n: int) -> int:
    """Return rows a step: some thirty steps an epoch on small tables, and at most 512 rows."""
    return int(np.clip(2 ** round(np.log2(max(1, n) / 30)), 32, 512))


def _epochs(n: int, most: int) -> int:
    """Return the epochs, over which the learning rate falls: more on tables so small that an epoch has a few steps.

    Large tables overfit, and cost, by the epoch.
    """
    return max(16_000 // max(1, n), int(np.clip(1600.0 / np.sqrt(max(1, n)), 8, most)))
