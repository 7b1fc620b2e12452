"""What is to be predicted: one of a few classes, or a number.

An outcome is classes when payoffs are declared by outcome, and when its values are text or truths. Numbers are classes when at most
20 of them differ, unless a payoff is an expression of `outcome` (and more than two differ), or more than 10 differ and some are too
rare for a class, as with marks. `data.type` overrules all of this.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from makegood.contracts import Bools, Finding, Task
from makegood.data import values
from makegood.data.aggregates import as_numbers, as_text
from makegood.data.profile import require
from makegood.errors import CaseError, DataError, NotBuilt, Problem, nearest

if TYPE_CHECKING:
    from makegood.case import Case

FEW = 20  # distinct numbers up to which an outcome is classes
FEWER = 10  # up to which it is classes even if some are rare
MIN_CLASS = 10  # rows that each class needs, so that every one of ten folds can learn it
MAX_CLASSES = 100
_MENTIONS_OUTCOME = re.compile(r"(?<![\w`])outcome(?![\w`])")


@dataclass(frozen=True)
class Outcome:
    """The outcome of every row: `values` (n,) int64 class codes (−1 unknown) or float64 (NaN unknown); `known` (n,) says where."""

    task: Task
    values: NDArray[Any]
    known: Bools
    findings: tuple[Finding, ...] = ()


def type_outcome(table: pa.Table, case: Case) -> Outcome:
    """Return the outcome as classes or as a number.

    Raises `CaseError` when there is no such column or a payoff names a value that the data do not hold, and `DataError` when
    there is nothing to predict: no known outcome, one class or value only, a class with fewer than 10 rows, text where a number
    is declared. `NotBuilt` where a row has a list of outcomes.
    """
    name = case.data.outcome
    require(table, name, "data.outcome")
    column = table[name]
    if pa.types.is_timestamp(column.type):
        raise DataError(Problem(f"data.outcome: {name!r}", "dates", "classes or numbers", "derive a number of days, or a class, from it"))
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        expected = "one label a row: several are not built yet"
        raise NotBuilt(Problem(f"data.outcome: {name!r}", "lists", expected, "write a case for each label; see ROADMAP.md"))
    known = column.is_valid().to_numpy()
    if not known.any():
        raise DataError(Problem(f"data.outcome: {name!r}", "no known outcome in any row", "rows with outcomes", "choose another outcome"))
    findings: tuple[Finding, ...] = ()
    missing = int((~known).sum())
    if missing:
        detail = f"The outcome {name!r} is not known in {missing} rows; they are neither trained on nor evaluated."
        findings = (Finding("missing_outcome", name, missing, detail, "set aside", "warning"),)
    if _is_number(column, case):
        return Outcome(Task("number"), _numbers(name, column), known, findings)
    classes, codes = _classes(name, column, case)
    return Outcome(Task("classes", classes), codes, known, findings)


def _is_number(column: pa.ChunkedArray, case: Case) -> bool:
    if case.data.type != "auto":
        return case.data.type == "number"
    payoffs = [action.payoff for action in case.decision.actions.values()]
    if any(isinstance(payoff, dict) for payoff in payoffs) or not _is_numeric(column):
        return False
    counts = pc.value_counts(column.drop_null()).field("counts").to_numpy()
    uses_outcome = any(_MENTIONS_OUTCOME.search(payoff) for payoff in payoffs if isinstance(payoff, str))
    return len(counts) > FEW or (uses_outcome and len(counts) > 2) or (len(counts) > FEWER and int(counts.min()) < MIN_CLASS)


def _is_numeric(column: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_integer(column.type) or pa.types.is_floating(column.type))


def _numbers(name: str, column: pa.ChunkedArray) -> NDArray[Any]:
    if not _is_numeric(column):
        example = column.drop_null()[0].as_py()
        raise DataError(Problem(f"data.outcome: {name!r}", f"{example!r}", "numbers, since data.type is number", "write type: classes"))
    if pc.count_distinct(column).as_py() < 2:
        raise DataError(Problem(f"data.outcome: {name!r}", "one value in all rows", "a number that varies", "choose another outcome"))
    return np.asarray(as_numbers(column).to_numpy(), dtype=np.float64)


def _classes(name: str, column: pa.ChunkedArray, case: Case) -> tuple[tuple[str, ...], NDArray[Any]]:
    where = f"data.outcome: {name!r}"
    texts = as_text(column)
    distinct = pc.count_distinct(texts).as_py()
    if distinct > MAX_CLASSES:
        next_step = "choose another outcome" if pa.types.is_string(column.type) else "write data.type: number"
        raise DataError(Problem(where, f"{distinct} different values", f"at most {MAX_CLASSES} classes", next_step))
    counts = {c["values"]: c["counts"] for c in pc.value_counts(texts.drop_null()).to_pylist()}
    classes = tuple(sorted(counts, key=_rank))
    _check_payoffs(case, classes)
    if len(classes) == 1:
        got = f"{classes[0]!r} in all {counts[classes[0]]} rows"
        raise DataError(Problem(where, got, "at least two classes", "add rows with another outcome"))
    for level in sorted(counts, key=lambda c: counts[c]):
        if counts[level] < MIN_CLASS:
            expected = f"at least {MIN_CLASS} rows of each class"
            mend = "merge it with another class, or leave those rows out" + (", or write data.type: number" if _is_numeric(column) else "")
            raise DataError(Problem(where, f"{counts[level]} rows of {level!r}", expected, mend))
    codes = pc.fill_null(pc.index_in(texts, value_set=pa.array(classes)), -1)
    return classes, np.asarray(codes.to_numpy(), dtype=np.int64)


def _rank(level: str) -> tuple[float, float, str]:
    """Order classes as a reader would: false before true, numbers by size, texts by letter."""
    truth, number = values.truth(level), values.number(level)
    return (0.0, truth, level) if truth is not None else (1.0, number, level) if number is not None else (2.0, 0.0, level)


def _check_payoffs(case: Case, classes: tuple[str, ...]) -> None:
    unknown = []
    for action_name, action in case.decision.actions.items():
        for key in action.payoff if isinstance(action.payoff, dict) else ():
            if class_of(key, classes) is None:
                where = f"decision.actions.{action_name}.payoff.{key}"
                unknown.append(Problem(where, key, f"a value of {case.data.outcome!r}: {', '.join(classes)}", nearest(key, classes)))
    if unknown:
        raise CaseError(*unknown)


def class_of(key: str, classes: tuple[str, ...]) -> str | None:
    """Return the class that a key of a payoff means: the same text, or the same number; None when there is none.

    >>> class_of("0.0", ("0", "1")), class_of("no", ("no", "yes")), class_of("maybe", ("no", "yes"))
    ('0', 'no', None)
    """
    if key in classes:
        return key
    wanted = values.number(key)
    return next((c for c in classes if wanted is not None and values.number(c) == wanted), None)


def payoffs_by_class(case: Case, classes: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return the declared actions as plain data, with the keys of payoffs by outcome written as the classes are.

    For `economics.payoff.Payoffs.of`. A number outcome (`classes` empty) leaves them as declared.
    """
    actions = {name: action.model_dump() for name, action in case.decision.actions.items()}
    for action in actions.values():
        if isinstance(action["payoff"], dict) and classes:
            action["payoff"] = {class_of(key, classes) or key: expression for key, expression in action["payoff"].items()}
    return actions
