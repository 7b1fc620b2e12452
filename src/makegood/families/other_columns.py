"""Families for numbers where rows have a text too: they see the features that are no token ids, since an id is no amount."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from makegood import families
from makegood.contracts import Budget, Dataset, Ints, Predictive, Task
from makegood.families.tabular import features_of

if TYPE_CHECKING:
    from makegood.families.onnx import Graph

_STATE = "columns.json"


class OtherColumns:
    """A family that is fitted on, and asked about, the other columns of rows with a text."""

    columns_: Ints  # the features that it sees

    def __init__(self, task: Task, inner: Any) -> None:
        self.task, self.inner = task, inner
        if getattr(inner, "patient", False):  # as `stages.fitting` asks of it
            self.patient = True

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        """Return self. An interrupt is passed on; what the family had learnt by then can predict."""
        assert train.tokens is not None, "a family for numbers is put beside texts where there are texts"
        columns = np.delete(np.arange(features_of(train).shape[1]), train.tokens.columns)
        try:
            self.inner.fit(_only(train, columns), _only(valid, columns), budget=budget, seed=seed)
        finally:
            if any(name.endswith("_") for name in vars(self.inner)):
                self.columns_ = columns
        return self

    def predict(self, data: Dataset) -> Predictive:
        """Return what the family predicts from the other columns."""
        found: Predictive = self.inner.predict(_only(data, self.columns_))
        return found

    @property
    def rows(self) -> int:
        """Rows that a graph scores at once, as the family has it."""
        return int(self.inner.rows)

    def write(self, graph: Graph) -> str:
        """Add the family to a graph, which gives it its columns alone."""
        columns = graph.op("Gather", graph.features, self.columns_, axis=1)
        return str(self.inner.write(replace(graph, features=columns)))

    def save(self, folder: Path) -> None:
        """Write the family and its columns."""
        self.inner.save(folder)
        kind = type(self.inner)
        state = {"family": f"{kind.__module__}:{kind.__qualname__}", "columns": self.columns_.tolist()}
        (folder / _STATE).write_text(json.dumps(state), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return what was saved; raises `ValueError` for a family that is none of ours."""
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        if state["family"] not in (*families.TABLE.values(), "makegood.families.wrapped:Wrapped"):
            raise ValueError(f"a family of our own; got {state['family']!r}")
        module, name = state["family"].split(":")
        inner: Any = getattr(import_module(module), name).load(folder)
        self = cls(inner.task, inner)
        self.columns_ = np.array(state["columns"], np.int64)
        return self


def _only(data: Dataset, columns: Ints) -> Dataset:
    return replace(data, features=features_of(data)[:, columns], tokens=None)
