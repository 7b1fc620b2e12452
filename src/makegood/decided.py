"""What was decided on rows, column by column, and how the parts of a long table become one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from makegood.contracts import Bools, Choices, Decision, Floats, Probabilities, Quantiles, Reason, Task
from makegood.data import values
from makegood.data.transform import Note
from makegood.economics.payoff import canonical
from makegood.errors import CaseError, DataError, Problem
from makegood.ids import uuid7

Predicted = Probabilities | Quantiles
"""The two kinds of prediction that a bundle of this version makes."""


@dataclass(frozen=True, eq=False)
class Decided:
    """What was decided on n rows, column by column; `decided[i]` is row i's `Decision`.

    `action` (n,) names; `quantity` (n,), NaN where the action has none; `choices` the options with expected payoff, promise and
    propensity; `predictive` as reported; `reasons` one tuple a row; `notes` on values that could not be used as they were;
    `ignored` columns that the model does not know; `sets` (n, n_classes) the classes in each row's prediction set, None without sets.
    """

    action: NDArray[Any]
    quantity: Floats
    choices: Choices
    predictive: Predicted
    reasons: tuple[tuple[Reason, ...], ...]
    notes: tuple[Note, ...]
    ignored: tuple[str, ...]
    unit: str
    model: str
    sets: Bools | None = None

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """A fresh id for each decision, drawn when first asked for: a service has ids of its own."""
        return uuid7(len(self))

    def __len__(self) -> int:
        return len(self.action)

    def __getitem__(self, i: int) -> Decision:
        quantity = float(self.quantity[i])
        return Decision(
            id=self.ids[i],
            action=self.action[i],
            quantity=None if quantity != quantity else quantity,
            promise=float(self.choices.promise[i]),
            unit=self.unit,
            propensity=float(self.choices.propensity[i]),
            predictive=self._reported(i),
            reasons=self.reasons[i],
            model=self.model,
            prediction_set=self._set(i),
            guaranteed=None if self.choices.guaranteed is None else float(self.choices.guaranteed[i]),
        )

    def __iter__(self) -> Iterator[Decision]:
        return (self[i] for i in range(len(self)))

    def _reported(self, i: int) -> dict[str, Any]:
        predictive = self.predictive
        names = predictive.classes if isinstance(predictive, Probabilities) else [f"{level:g}" for level in predictive.levels]
        return dict(zip(names, values_of(predictive)[i].tolist(), strict=True))

    def _set(self, i: int) -> tuple[str, ...] | None:
        if self.sets is None or not isinstance(self.predictive, Probabilities):
            return None
        return tuple(name for name, held in zip(self.predictive.classes, self.sets[i].tolist(), strict=True) if held)

    @property
    def promise(self) -> Floats:
        """What each decision is expected to pay (n,), calibrated, in `unit`."""
        return self.choices.promise

    @property
    def expected(self) -> Floats:
        """What each option is expected to pay (n, n_options), in `unit`."""
        return self.choices.expected


def values_of(predictive: Predicted) -> Floats:
    """Return the numbers of a prediction: (n, n_classes) or (n, n_levels)."""
    return predictive.p if isinstance(predictive, Probabilities) else predictive.q


def came_true(outcomes: Sequence[str | float], task: Task) -> NDArray[Any]:
    """Return what came true (n,), as a model counts it: int64 positions of classes, or float64 numbers.

    Raises `DataError`, with each row's problem, where an outcome is no class of the task, or no finite number.

    >>> came_true(["yes", "no "], Task("classes", ("no", "yes"))).tolist()
    [1, 0]
    """
    read: dict[tuple[type, str | float], int | float] = {}  # by type too: 1 is True, and yet another outcome
    problems: list[Problem] = []
    for i, outcome in enumerate(outcomes, 1):
        if (type(outcome), outcome) not in read:
            try:
                read[type(outcome), outcome] = _code(outcome, task) if task.kind == "classes" else _number(outcome)
            except CaseError as error:
                problems += [replace(problem, where=f"outcome in row {i}") for problem in error.problems]
    if problems:
        raise DataError(*problems)
    return np.array([read[type(outcome), outcome] for outcome in outcomes], dtype=np.int64 if task.kind == "classes" else np.float64)


def _code(outcome: str | float, task: Task) -> int:
    text = outcome if isinstance(outcome, str) else values.text_of(outcome)
    return task.classes.index(canonical(text if text is not None else str(outcome), task.classes, ""))


def _number(outcome: str | float) -> float:
    try:
        number = values.number(outcome) if isinstance(outcome, str) else None if isinstance(outcome, bool) else float(outcome)
    except (OverflowError, TypeError):  # a whole number beyond float64; nothing at all
        number = None
    if number is None or not np.isfinite(number):
        raise CaseError(Problem("", str(outcome), "a number", "send the number that came true"))
    return number


# ------------------------------------------------------------------------------------------------------- parts of a table


def joined(parts: list[Choices]) -> Choices:
    """Return the choices on all rows of the parts, in order."""
    if len(parts) == 1:
        return parts[0]
    names = ("option", "expected", "promise", "propensity", *(() if parts[0].guaranteed is None else ("guaranteed",)))
    return Choices(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def together(parts: list[Predicted]) -> Predicted:
    """Return the prediction on all rows of the parts, in order."""
    first = parts[0]
    if len(parts) == 1:
        return first
    numbers = np.concatenate([values_of(part) for part in parts])
    return Probabilities(first.classes, numbers) if isinstance(first, Probabilities) else Quantiles(first.levels, numbers)


def merged(notes: Iterable[Note]) -> tuple[Note, ...]:
    """Return one note for each column and kind, whatever the parts in which the rows were read."""
    out: dict[tuple[str, str], Note] = {}
    for note in notes:
        before = out.get((note.column, note.kind))
        out[note.column, note.kind] = note if before is None else replace(before, rows=before.rows + note.rows)
    return tuple(out.values())
