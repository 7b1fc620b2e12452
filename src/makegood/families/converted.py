"""What a library of its own trained, scored by ONNX alone from then on: what is evaluated is what is deployed.

Nothing is pickled, and a model whose ONNX form does not agree with it is refused before it wins.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from makegood.contracts import Dataset, Floats, Ints, Predictive, Task
from makegood.errors import Problem, Refused
from makegood.families.onnx import edge_rows, merge
from makegood.families.tabular import features_of, load_state, predictive, save_state

if TYPE_CHECKING:
    from makegood.families.onnx import Graph
    from makegood.scorer import Scorer

PARITY = 1e-5
"""The largest difference between the library's prediction and ONNX's: of a probability, or of a number in standard deviations."""


class Converted:
    """A model as ONNX. Classes: probabilities of the classes `codes_`. Number: a mean, to which `shape_` is added.

    Rows outside the range of the training rows are read as if on its border, so that no input overflows.
    """

    rows = 1  # a foreign graph may score a row otherwise inside a batch
    KEPT: ClassVar[Mapping[str, type[np.generic]]] = {"codes_": np.int64, "shape_": np.float64, "low_": np.float32, "high_": np.float32}
    model_: bytes  # ONNX: features float32 (n, n_features) → (n, n_codes) or (n, 1)
    codes_: Ints  # the classes that it knows
    shape_: Floats  # number: quantiles of the residuals on the validation rows
    low_: Floats
    high_: Floats

    def __init__(self, task: Task) -> None:
        self.task = task

    def _keep_range(self, X: Floats) -> None:
        self.low_, self.high_ = X.min(axis=0), X.max(axis=0)

    def _clipped(self, X: Floats) -> Floats:
        return np.clip(X, self.low_, self.high_)

    def _accept(self, native: Callable[[Floats], Floats], train: Dataset, valid: Dataset, seed: int, where: str) -> None:
        """Take the residuals' quantiles, and raise `Refused` unless ONNX agrees with `native` on the validation rows and at their edges.

        `native` takes features within the training range and returns (n, n_codes) probabilities or (n,) means.
        """
        self.shape_ = np.zeros(len(self.task.levels))
        if self.task.kind == "number":
            self._keep_residuals(np.asarray(valid.outcome, np.float64), native(self._clipped(features_of(valid))))
        self._check(native, train, valid, seed, where)

    def _check(self, native: Callable[[Floats], Floats], train: Dataset, valid: Dataset, seed: int, where: str) -> None:
        """Raise `Refused` unless ONNX agrees with `native`, as in `_accept`."""
        X, scorer = features_of(valid), self._scorer()
        rows = np.concatenate([X, self._edges(scorer, X, seed)])
        found = np.asarray(native(self._clipped(rows)), np.float64)
        if self.task.kind == "classes":
            wanted: Floats = np.zeros((len(rows), len(self.task.classes)))
            wanted[:, self.codes_], spread = found, 1.0
        else:
            wanted, spread = self._quantiles(found), float(np.std(np.asarray(train.outcome))) or 1.0
        worst = float(np.abs(wanted - scorer(rows)).max()) / spread
        if not worst <= PARITY:
            got = f"an ONNX model that differs by {worst:.2g}"
            raise Refused(Problem(where, got, f"at most {PARITY:g}", "wrap another estimator, or scale its features"))

    def _edges(self, scorer: Scorer, X: Floats, seed: int) -> Floats:
        """Return rows at the edges of what the model distinguishes, and beyond them."""
        return edge_rows(scorer, X, seed)[0]

    def _keep_residuals(self, outcome: Floats, found: Floats) -> None:
        """Learn from what `native` gives for the validation rows what makes quantiles of it."""
        self.shape_ = np.quantile(outcome - found, self.task.levels)

    def _quantiles(self, found: Floats) -> Floats:
        """Return the quantiles (n, n_levels) of what `native` gives."""
        return found[:, None] + self.shape_

    def _write_quantiles(self, graph: Graph, raw: str) -> str:
        """Add the same to a graph, where `raw` is float64."""
        return graph.op("Add", graph.op("Reshape", raw, np.array([-1, 1])), self.shape_)

    def _scorer(self) -> Scorer:
        k = len(self.task.classes) if self.task.kind == "classes" else len(self.task.levels)
        return merge([(self, 1.0)], len(self.low_), k)

    def predict(self, data: Dataset) -> Predictive:
        """Return probabilities, or quantiles."""
        return predictive(self.task, self._scorer()(np.ascontiguousarray(features_of(data), np.float32)))

    def write(self, graph: Graph) -> str:
        """Add the converted model to a graph."""
        raw = graph.double(graph.include(self.model_, self._write_inputs(graph)))
        if self.task.kind == "number":
            return self._write_quantiles(graph, raw)
        raw = graph.op("Max", raw, np.array(0.0))  # forests' sums may miss zero by a rounding error
        k = len(self.task.classes)
        if len(self.codes_) == k:
            return raw
        column = np.full(k, len(self.codes_))  # classes that it never saw get the column of zeros
        column[self.codes_] = np.arange(len(self.codes_))
        padded = graph.op("Pad", raw, np.array([0, 0, 0, 1]), np.array(0.0))
        return graph.op("Gather", padded, column, axis=1)

    def _write_inputs(self, graph: Graph) -> str:
        """Add what makes of features the inputs of the converted model."""
        return graph.op("Min", graph.op("Max", graph.features, self.low_), self.high_)

    def save(self, folder: Path) -> None:
        """Write the converted model; what it was made from is not kept."""
        arrays = {name: getattr(self, name).tolist() for name in self.KEPT}
        save_state(folder, self.task, {"model": base64.b64encode(self.model_).decode(), **arrays})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return what was saved: it predicts, and cannot be fitted again."""
        task, state = load_state(folder)
        self = cls(task)
        self.model_ = base64.b64decode(state["model"])
        for name, kind in cls.KEPT.items():
            setattr(self, name, np.array(state[name], kind))
        return self
