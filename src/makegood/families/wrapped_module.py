"""Any `torch.nn.Module` as a family: trained in our loop, exported to ONNX at once, and from then on scored by ONNX alone."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from importlib.util import find_spec
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from makegood.contracts import Budget, Dataset, Floats, Task
from makegood.errors import CaseError, MissingExtra, Problem, Refused, nearest
from makegood.families._torch import loop, losses
from makegood.families._torch.loop import Recipe, Rows, Runtime, Session
from makegood.families._torch.loop import Task as Training
from makegood.families.converted import Converted
from makegood.families.onnx import OPSETS
from makegood.families.tabular import features_of
from makegood.scorer import INPUT

DEFAULT = Recipe(epochs=100, batch_size=64, lr=2e-3, weight_decay=1e-2, clip=1.0, patience=8)
"""How a module is trained where `wrap` is given no other recipe."""


def recipe_of(changes: Mapping[str, Any]) -> Recipe:
    """Return the default recipe with changes; raises `CaseError` for a name that is none, or a value out of range."""
    known = [field.name for field in fields(Recipe)]
    if strange := [name for name in changes if name not in known]:
        raise CaseError(*(Problem("recipe", name, f"some of {', '.join(known)}", nearest(name, known)) for name in strange))
    return Recipe(**{name: changes.get(name, getattr(DEFAULT, name)) for name in known})


def check_exporter() -> None:
    """Raise `MissingExtra` where torch can train and its models cannot be exported."""
    if find_spec("onnxscript") is None:
        raise MissingExtra(Problem("wrap", "", "onnxscript, which exports torch models to ONNX", "pip install 'makegood[deep]'"))


class Module(Converted):
    """A copy of a module from features (n, n_features) float32 to logits (n, n_classes), or to a number (n, 1).

    Training starts from the weights given; lazy layers are made on the first rows. The weights that are best on the validation rows
    stand. A number is learnt in standard deviations from its mean, by the squared loss.
    """

    def __init__(self, task: Task, module: nn.Module | None = None, recipe: Recipe = DEFAULT) -> None:
        super().__init__(task)
        self.module = module
        self.recipe = recipe

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        """Return self; raises `CaseError` where the module does not fit the rows, `Refused` where its ONNX form does not agree with it."""
        assert self.module is not None, "a loaded model is not fitted again"
        classes = self.task.kind == "classes"
        self._keep_range(features_of(train))
        y = np.asarray(train.outcome, np.float64)
        centre, scale = (0.0, 1.0) if classes else (float(y.mean()), float(y.std()) or 1.0)
        module, runtime = copy.deepcopy(self.module), Runtime(threads=1)
        with runtime.applied():
            torch.manual_seed(seed)  # lazy layers draw their first weights
            self._try(module, features_of(train))
            loss = losses.cross_entropy() if classes else losses.squared()
            task = Training(module, loss)
            parts = [self._rows(data, centre, scale) for data in (train, valid)]
            loop.train(task, parts[0], parts[1], self.recipe, runtime, Session(budget, seed))
            module.eval()
            scored = _Scored(module, classes, centre, scale).eval()
            self.model_ = _exported(scored, len(self.low_), self._name)
        self.codes_ = np.arange(len(self.task.classes))

        def native(X: Floats) -> Floats:
            with torch.no_grad():
                found: Floats = scored(torch.from_numpy(np.ascontiguousarray(X, np.float32))).double().numpy()
            return found if classes else found[:, 0]

        self._accept(native, train, valid, seed, self._name)
        return self

    @property
    def _name(self) -> str:
        return type(self.module).__name__

    def _rows(self, data: Dataset, centre: float, scale: float) -> Rows:
        X = torch.from_numpy(np.ascontiguousarray(self._clipped(features_of(data)), np.float32))
        y = np.asarray(data.outcome)
        weight = None if data.weight is None else torch.from_numpy(np.asarray(data.weight, np.float32))
        if self.task.kind == "classes":
            return Rows(X, torch.from_numpy(y.astype(np.int64)), weight)
        return Rows(X, torch.from_numpy(((y - centre) / scale).astype(np.float32)[:, None]), weight)

    def _try(self, module: nn.Module, X: Floats) -> None:
        """Raise `CaseError` unless the module takes the features and returns what the task needs; lazy layers are made here."""
        k = len(self.task.classes) if self.task.kind == "classes" else 1
        where, n = f"wrap({self._name})", min(2, len(X))
        expected = f"logits (n, {k}), one a class" if self.task.kind == "classes" else "a number (n, 1)"
        module.eval()
        try:
            with torch.no_grad():
                output = module(torch.from_numpy(np.ascontiguousarray(self._clipped(X[:n]), np.float32)))
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            got = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160]}"
            mend = "its first layer must take that many; nn.LazyLinear finds out by itself"
            raise CaseError(Problem(where, got, f"a module of features (n, {X.shape[1]}) float32", mend)) from None
        if not isinstance(output, Tensor) or tuple(output.shape) != (n, k):
            got = f"{type(output).__name__} {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise CaseError(Problem(where, got, expected, "change its last layer; softmax is added by us"))


class _Scored(nn.Module):
    """A module with what turns its output into a prediction: softmax, or the outcome's own unit."""

    def __init__(self, module: nn.Module, classes: bool, centre: float, scale: float) -> None:
        super().__init__()
        self.module, self.classes, self.centre, self.scale = module, classes, centre, scale

    def forward(self, features: Tensor) -> Tensor:
        """Return probabilities (n, n_classes), or means (n, 1)."""
        output: Tensor = self.module(features)
        return output.softmax(-1) if self.classes else output * self.scale + self.centre


def _exported(module: nn.Module, n_features: int, name: str) -> bytes:
    """Return a module as ONNX for one row at a time, without the traces of where it was made; raises `Refused` where it has no form."""
    with _quiet():
        try:
            program = torch.onnx.export(
                module,
                (torch.zeros(1, n_features),),
                dynamo=True,
                opset_version=OPSETS[""],
                input_names=[INPUT],
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0][:160]
            expected = "a module that exports to ONNX"
            raise Refused(Problem(f"wrap({name})", reason, expected, "no branches on the data; operators of the standard set")) from None
    assert program is not None, "dynamo exports return a program"
    model = program.model_proto
    if model.functions or any(node.domain for node in model.graph.node):
        strange = ", ".join(sorted({node.op_type for node in model.graph.node if node.domain}))
        raise Refused(Problem(f"wrap({name})", f"operators {strange}", "operators of standard ONNX", "replace these layers"))
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    return bytes(model.SerializeToString(deterministic=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from telling of packages that it could use and of its own deprecated parts."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
