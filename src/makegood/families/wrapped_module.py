"""Any `torch.nn.Module` as a family: trained in our loop, exported to ONNX at once, and from then on scored by ONNX alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Self

import torch
from torch import Tensor, nn

from makegood.contracts import Budget, Dataset, Task
from makegood.errors import CaseError, Problem, nearest
from makegood.families._torch.loop import Recipe, Runtime
from makegood.families._torch.uncertainty import ONCE, Sampling
from makegood.families.tabular import features_of
from makegood.families.trained import Forms, Plan, Trained

DEFAULT = Recipe(epochs=100, batch_size=64, lr=2e-3, weight_decay=1e-2, clip=1.0, patience=8)
"""How a module is trained where `wrap` is given no other recipe."""


def recipe_of(changes: Mapping[str, Any]) -> tuple[Recipe, Sampling]:
    """Return the default recipe with changes, and how many answers make one; raises `CaseError` for a name or a value that is wrong."""
    steps, votes = [field.name for field in fields(Recipe)], [field.name for field in fields(Sampling)]
    known = [*steps, *votes]
    if strange := [name for name in changes if name not in known]:
        raise CaseError(*(Problem("recipe", name, f"some of {', '.join(known)}", nearest(name, known)) for name in strange))
    sampling = Sampling(**{name: changes[name] for name in votes if name in changes})
    return Recipe(**{name: changes.get(name, getattr(DEFAULT, name)) for name in steps}), sampling


class Module(Trained):
    """A copy of a module of features (n, n_features), or of images (n, channels, height, width), to logits or a number (n, 1).

    Training starts from the weights given; lazy layers are made on the first rows. Of an ensemble, that is the first member: in the
    others every layer that learns, and knows how (`reset_parameters`), draws its first weights anew.
    """

    def __init__(
        self, task: Task, module: nn.Module | None = None, recipe: Recipe = DEFAULT, sampling: Sampling = ONCE, forms: Forms | None = None
    ) -> None:
        super().__init__(task)
        self.forms = {} if forms is None else forms
        self.module = module
        self.recipe = recipe
        self.sampling = sampling

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        """Return self; raises `CaseError` where the module does not fit the rows, `Refused` where its ONNX form does not agree with it."""
        assert self.module is not None, "a loaded model is not fitted again"
        return super().fit(train, valid, budget=budget, seed=seed)

    @property
    def _where(self) -> str:
        return f"wrap({type(self.module).__name__})"

    def _plan(self, data: Dataset) -> Plan:
        return Plan(self.recipe, Runtime(threads=1))

    def _restart(self, module: nn.Module) -> None:
        for layer in module.modules():
            mine = [*layer.parameters(recurse=False)]
            reset = getattr(layer, "reset_parameters", getattr(layer, "_reset_parameters", None))  # attention's own is private
            if callable(reset) and any(parameter.requires_grad for parameter in mine):
                reset()

    def _start(self, data: Dataset) -> nn.Module:
        """Return the copy; raises `CaseError` unless it takes the features and returns what the task needs."""
        module = copy.deepcopy(self.module)
        assert module is not None
        k = len(self.task.classes) if self.task.kind == "classes" else 1
        inputs = self._inputs(features_of(data)[:2], data.shape)
        n = len(inputs)
        expected = f"logits (n, {k}), one a class" if self.task.kind == "classes" else "a number (n, 1)"
        module.eval()
        try:
            with torch.no_grad():
                output = module(inputs)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            got = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160]}"
            if data.shape is None:
                wanted, mend = (
                    "features (n, {})".format(*inputs.shape[1:]),
                    "its first layer must take that many; nn.LazyLinear finds out by itself",
                )
            else:
                wanted, mend = (
                    "images (n, {}, {}, {})".format(*inputs.shape[1:]),
                    "channels come first; nn.Flatten makes them one row of numbers",
                )
            raise CaseError(Problem(self._where, got, f"a module of {wanted} float32", mend)) from None
        if not isinstance(output, Tensor) or tuple(output.shape) != (n, k):
            got = f"{type(output).__name__} {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise CaseError(Problem(self._where, got, expected, "change its last layer; softmax is added by us"))
        return module
