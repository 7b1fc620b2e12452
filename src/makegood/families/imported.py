"""A Keras model that somebody saved: never opened here and never trained again, but read behind walls and scored by ONNX alone."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import numpy as np

from makegood.contracts import Budget, Dataset, Floats, Task
from makegood.errors import MissingExtra, Problem
from makegood.families import saved
from makegood.families.converted import Converted
from makegood.families.keras_form import Form, answer, converted, head_of, predicted, with_head
from makegood.families.tabular import features_of

NOTE = (
    "The model saved in {!r} was trained elsewhere: if it has seen rows that are held out here, every figure of it on this page is "
    "too good. It was imported as it is and not trained again."
)


class Archive:
    """A copy of a saved model that passed `saved.check`; it goes when this object does."""

    def __init__(self, path: Path) -> None:
        """Raises as `saved.check` does, and `MissingExtra` without what reads and converts it."""
        for package, extra in (("keras", "keras"), ("torch", "deep"), ("onnxscript", "deep")):
            if find_spec(package) is None:
                raise MissingExtra(Problem(path.name, "", f"{package}, which reads or converts it", f"pip install 'makegood[{extra}]'"))
        saved.check(path)  # what is no file, or far too large, is not copied
        self.name = path.name
        folder = Path(tempfile.mkdtemp(prefix="makegood-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        copy = folder / path.name
        shutil.copyfile(path, copy)
        self.path = copy.rename(copy.with_name(f"model.{saved.check(copy)}"))  # Keras goes by the name, and not by what is inside
        self.agrees = False

    @cached_property
    def graph(self) -> tuple[Form, bytes]:
        """The model's form and its ONNX graph."""
        return converted(self.path, self.name)


class Imported(Converted):
    """A saved model; a number gets the quantiles of its residuals on the validation rows. Outputs stand in the order of the classes."""

    def __init__(self, task: Task, archive: Archive | None = None) -> None:
        super().__init__(task)
        self.archive = archive

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        """Return self: only the range of the rows is learnt.

        Raises `CaseError` where the model does not fit the rows, `Refused` where ONNX does not agree with it. It is asked itself on the
        first fold; from then on the graph is known to be right.
        """
        archive = self.archive
        assert archive is not None, "a loaded model is not fitted again"
        form, graph = archive.graph
        form.check(train, self.task, archive.name)
        head = head_of(form, self.task, None, archive.name)
        self._keep_range(features_of(train))
        self.model_ = with_head(graph, head)
        self.codes_ = np.arange(len(self.task.classes))
        self.shape_ = np.zeros(len(self.task.levels))
        plain, classes = self._scorer(), self.task.kind == "classes"

        def native(X: Floats) -> Floats:
            found = plain(X) if archive.agrees else answer(predicted(archive.path, X, archive.name).astype(np.float32), head)
            return found if classes else found[:, 0]

        self._accept(native, train, valid, seed, archive.name)
        archive.agrees = True
        return self
