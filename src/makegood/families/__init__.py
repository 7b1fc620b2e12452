"""What learns: one explicit table of the built-in families, and the door through which any scikit-learn estimator comes in.

A family turns a `Dataset` into one of the five kinds of prediction (`makegood.contracts.Family`); everything after it knows the
kind and not the family.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from makegood.errors import CaseError, Problem, nearest

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from makegood.contracts import Family, Task

TABLE = {
    "constant": "makegood.families.tabular:Constant",
    "linear": "makegood.families.tabular:Linear",
    "lightgbm": "makegood.families.tabular:LightGBM",
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
        module, attribute = TABLE[name].split(":")
        candidates.append(Candidate(name, getattr(import_module(module), attribute)))
    return tuple(candidates)


def wrap(estimator: BaseEstimator, *, name: str = "") -> Candidate:
    """Return a scikit-learn classifier (with `predict_proba`) or regressor as a candidate; it is cloned, never changed.

    Raises `CaseError` when it is neither, and when trained if it cannot be converted to ONNX.
    """
    from makegood.families.wrapped import Wrapped, check_estimator

    check_estimator(estimator)
    return Candidate(name or type(estimator).__name__, lambda task: Wrapped(task, estimator))
