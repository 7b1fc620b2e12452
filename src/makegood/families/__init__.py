"""What learns: one explicit table of the built-in families, and the door through which the user's own models come in.

A family turns a `Dataset` into one of the five kinds of prediction (`makegood.contracts.Family`); everything after it knows the
kind and not the family.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from makegood.case import NETWORKS
from makegood.errors import CaseError, MissingExtra, Problem, nearest

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator
    from torch.nn import Module

    from makegood.contracts import Family, Task

TABLE = {
    "constant": "makegood.families.tabular:Constant",
    "linear": "makegood.families.tabular:Linear",
    "lightgbm": "makegood.families.tabular:LightGBM",
    "mlp": "makegood.families.networks:MLP",
    "transformer": "makegood.families.networks:Transformer",
}
"""Name → where the family is; each is made from a `Task`."""


@dataclass(frozen=True)
class Candidate:
    """A family that may be trained: its name, and what makes a new, unfitted one for a task."""

    name: str
    make: Callable[[Task], Family]


def find(names: Sequence[str]) -> tuple[Candidate, ...]:
    """Return the candidates of these names, their libraries loaded (so that no training budget pays for it)."""
    candidates = []
    for name in names:
        if name not in TABLE:
            raise CaseError(Problem("train.families", name, f"some of {', '.join(TABLE)}", nearest(name, TABLE)))
        if name in NETWORKS and find_spec("torch") is None:
            raise MissingExtra(Problem("train.families", name, "torch, which trains networks", "pip install 'makegood[deep]'"))
        module, attribute = TABLE[name].split(":")
        candidates.append(Candidate(name, getattr(import_module(module), attribute)))
    return tuple(candidates)


def wrap(estimator: BaseEstimator | Module, *, name: str = "", recipe: Mapping[str, Any] | None = None) -> Candidate:
    """Return an estimator as a candidate; it is copied, never changed.

    A scikit-learn classifier (with `predict_proba`) or regressor; or a `torch.nn.Module` from features (n, n_features) float32 to
    logits (n, n_classes) or a number (n, 1), which `recipe` says how to train (fields of `families._torch.loop.Recipe`: epochs,
    batch_size, lr, optimiser, schedule, …). Raises `CaseError` when it is none of these, and when trained if it cannot be converted
    to ONNX.
    """
    title = name or type(estimator).__name__
    torch = sys.modules.get("torch")  # whoever has a module has imported torch
    if torch is not None and isinstance(estimator, torch.nn.Module):
        from makegood.families import wrapped_module

        wrapped_module.check_exporter()
        training = wrapped_module.recipe_of(recipe or {})
        return Candidate(title, lambda task: wrapped_module.Module(task, estimator, training))
    from makegood.families.wrapped import Wrapped, check_estimator

    check_estimator(estimator)
    if recipe is not None:
        raise CaseError(Problem("wrap", "a recipe", "none for a scikit-learn estimator", "set the estimator's own parameters"))
    return Candidate(title, lambda task: Wrapped(task, estimator))
