"""Columns that know too much: those that could only be filled after the outcome, or the decision.

A column is suspected when it alone tells the outcome (AUC, or rank correlation, above .98), when it is nearly a copy of it, when
it is filled or missing only with one outcome, or when its dates lie after the decision. It is then excluded, and named first in the
report; `data.keep` restores it. On few rows a strong, honest column reaches .98 by luck: what must exceed a threshold is therefore
the lower end of a one-sided 90% interval, so that a copy is caught at any size and luck is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from makegood.contracts import Finding
from makegood.data.aggregates import as_numbers
from makegood.data.galleries import PART

if TYPE_CHECKING:
    from makegood.case import Data
    from makegood.contracts import Bools, Floats, Ints
    from makegood.data.outcome import Outcome
    from makegood.data.profile import Field, Profile

THRESHOLD = 0.98  # AUC with one column, or rank correlation with a number outcome
COPY = 0.9  # Cohen's kappa between the outcome and a column with as many levels
CHANCE = 1e-9  # probability below which "only with one outcome" is no accident
LATER = 0.01  # share of dates after the decision from which a column is later than the decision
_Z = 1.2816
_SAMPLE = 100_000
_BINS = 50
_FOLDS = 5
_ENTITY = re.compile(r"(?i:(^|[_\W])(id|uuid|guid|key)$|^id[_\W])|[a-z]I[dD]$|编号$")


def find(table: pa.Table, profile: Profile, outcome: Outcome, data: Data) -> tuple[Finding, ...]:
    """Return a finding for each suspected column: excluded, or kept where the case vouches for it; then warnings."""
    known = np.flatnonzero(outcome.known)
    rows = known[np.unique(np.linspace(0, len(known) - 1, min(len(known), _SAMPLE)).astype(np.int64))]
    sample, target = table.take(pa.array(rows)), _target(outcome, rows)
    found = []
    for field in profile.fields:
        if field.name == data.outcome:
            continue
        why = _why(field, table, sample, target, data)
        if why:
            found.append(_finding(field.name, why, table.num_rows, data))
    return (*found, *_hints(profile, data))


def excluded(findings: tuple[Finding, ...]) -> tuple[str, ...]:
    """Return the columns that findings exclude."""
    return tuple(dict.fromkeys(f.column for f in findings if f.action == "excluded" and f.column))


def _finding(column: str, why: str, n: int, data: Data) -> Finding:
    if column in data.keep:
        return Finding("leak", column, n, f"Column {column!r} {why}. It was kept, since data.keep vouches for it.", "kept", "warning")
    if data.text is not None and column == data.text.column:  # its words are asked for; that it is there at all may still tell too much
        return Finding("leak", column, n, f"Column {column!r} {why}. It was kept, since data.text names it.", "kept", "warning")
    vouch = "" if column in data.later else "; data.keep restores it"
    return Finding("leak", column, n, f"Column {column!r} {why}. It was excluded{vouch}.", "excluded", "leak")


def _why(field: Field, table: pa.Table, sample: pa.Table, target: _Target, data: Data) -> str | None:
    """Return why a column is suspected, as the end of a sentence that begins with its name; None when it is not."""
    if field.name in data.later:
        return "is declared as known only after the decision"
    if data.time and field.name != data.time and all(pa.types.is_timestamp(table[c].type) for c in (field.name, data.time)):
        later = _later(table[field.name], table[data.time])
        if later:
            return f"is later than the decision ({data.time!r}) in {later} rows"
    if field.kind in ("constant", "empty") or field.name in (data.time, data.group, data.holdout):
        return None
    column = sample[field.name]
    filled = target.told_by_presence(column.is_valid().to_numpy())
    if filled or field.kind in ("id", "text", "long text", "place", "image"):
        return filled
    return target.told_by(_Values.of(field, column))


def _later(column: pa.ChunkedArray, decision: pa.ChunkedArray) -> int:
    """Return in how many rows a date is after the decision; 0 when in less than 1% of those where both are known."""
    days = [as_numbers(c).to_numpy() for c in (column, decision)]
    if any((d == np.floor(d))[~np.isnan(d)].all() for d in days):  # one of the two has no time of day: compare days
        days = [np.floor(d) for d in days]
    both = ~np.isnan(days[0]) & ~np.isnan(days[1])
    later = int((days[0][both] > days[1][both]).sum())
    return later if later > LATER * both.sum() else 0


@dataclass(frozen=True)
class _Values:
    """A column as `codes` (n,) of its levels or bins, −1 missing, and as `numbers` (n,), None when it has no order."""

    codes: Ints
    n_levels: int
    numbers: Floats | None
    binned: bool

    @classmethod
    def of(cls, field: Field, column: pa.ChunkedArray) -> _Values:
        if pa.types.is_string(column.type):
            encoded = column.combine_chunks().dictionary_encode()
            return cls(pc.fill_null(encoded.indices, -1).to_numpy(), len(encoded.dictionary), None, False)
        numbers = np.asarray(as_numbers(column).to_numpy(), dtype=np.float64)
        present = numbers[~np.isnan(numbers)]
        levels = np.unique(present)
        binned = len(levels) > _BINS
        if binned:
            levels = np.unique(np.quantile(present, np.linspace(0, 1, _BINS + 1)[1:-1]))
            codes = np.searchsorted(levels, numbers, side="right")
        else:
            codes = np.searchsorted(levels, numbers)
        codes[np.isnan(numbers)] = -1
        return cls(codes, len(levels) + binned, None if field.kind == "category" else numbers, binned)


def _target(outcome: Outcome, rows: Ints) -> _Target:
    values = outcome.values[rows]
    return _Classes(values, outcome.task.classes) if outcome.task.kind == "classes" else _Number(values)


@dataclass(frozen=True)
class _Classes:
    """An outcome of classes: `codes` (n,)."""

    codes: Ints
    classes: tuple[str, ...]

    def told_by_presence(self, filled: Bools) -> str | None:
        """Return why the rows that are filled (or missing) tell the outcome; None when they do not."""
        n, n_filled = len(filled), int(filled.sum())
        if min(n_filled, n - n_filled) < 10:
            return None
        shares = np.bincount(self.codes, minlength=len(self.classes)) / n
        for mask, word, limit in ((filled, "filled", 1.0), (~filled, "missing", 0.5)):
            inside = np.bincount(self.codes[mask], minlength=len(self.classes))
            top = int(inside.argmax())
            # missing with the common outcome alone is how a question reads that does not apply (no car, no claim): no leak
            if inside[top] == mask.sum() and shares[top] <= limit and mask.sum() * np.log(shares[top]) < np.log(CHANCE):
                return f"is {word} only where the outcome is {self.classes[top]!r} ({mask.sum()} rows)"
        least, estimate = self._auc(_Values(filled.astype(np.int64), 2, None, False))
        return f"tells the outcome by being filled or not, with an AUC of {estimate:.4f}" if least > THRESHOLD else None

    def told_by(self, values: _Values) -> str | None:
        """Return why a column's values tell the outcome; None when they do not."""
        kappa = self._kappa(values)
        if kappa > COPY:
            return f"is nearly a copy of the outcome (Cohen's kappa at least {kappa:.3f})"
        least, estimate = self._auc(values)
        return f"alone tells the outcome with an AUC of {estimate:.4f}" if least > THRESHOLD else None

    def _auc(self, values: _Values) -> tuple[float, float]:
        """Return (lower end, estimate) of the AUC for the class that is told worst from the rest: a copy tells every class."""
        classes = range(1, 2) if len(self.classes) == 2 else range(len(self.classes))
        return min(self._auc_of(values, self.codes == k) for k in classes)

    def _auc_of(self, values: _Values, positive: Bools) -> tuple[float, float]:
        """Return (lower end, estimate) of the AUC by out-of-fold rates of the levels or, where better, by the values' order."""
        best = _bounded(auc(_out_of_fold(values, positive.astype(np.float64)), positive), positive)
        if values.numbers is not None:
            present = ~np.isnan(values.numbers)
            ordered = auc(values.numbers[present], positive[present])
            best = max(best, _bounded(max(ordered, 1 - ordered), positive[present]))
        return best

    def _kappa(self, values: _Values) -> float:
        """Return the lower end of Cohen's kappa between the outcome and each level's most frequent class (Cohen 1960)."""
        k, n = len(self.classes), len(self.codes)
        if values.binned or values.n_levels > k + 1 or (values.codes < 0).mean() > 0.5:
            return 0.0
        table = np.zeros((values.n_levels + 1, k))
        np.add.at(table, (values.codes, self.codes), 1)  # missing is the last level
        guess = table.argmax(axis=1)
        if len(np.unique(guess)) < k:
            return 0.0
        agree = table.max(axis=1).sum() / n
        rows = np.zeros(k)
        np.add.at(rows, guess, table.sum(axis=1))
        chance = float((rows / n * table.sum(axis=0) / n).sum())
        return float((agree - chance - _Z * np.sqrt(agree * (1 - agree) / n)) / (1 - chance))


@dataclass(frozen=True)
class _Number:
    """An outcome that is a number: `values` (n,)."""

    values: Floats

    def told_by_presence(self, filled: Bools) -> str | None:
        """Return None: one flag cannot order a number."""
        return None

    def told_by(self, values: _Values) -> str | None:
        """Return why a column's values tell the outcome; None when they do not."""
        found = [("correlation", values.codes >= -1, _out_of_fold(values, self.values), self.values)]
        if values.numbers is not None:
            present = ~np.isnan(values.numbers)
            found.append(("rank correlation", present, _ranks(values.numbers[present]), _ranks(self.values[present])))
        for name, rows, x, y in found:
            n = int(rows.sum())
            if n < 30 or np.ptp(x) == 0 or np.ptp(y) == 0:
                continue
            r = abs(float(np.corrcoef(x, y)[0, 1]))
            # Fisher's z; 1.06 is the standard error's factor for ranks (Fieller, Hartley & Pearson 1957)
            if r >= 1 or np.tanh(np.arctanh(r) - _Z * 1.06 / np.sqrt(n - 3)) > THRESHOLD:
                return f"alone tells the outcome: its {name} with it is {r:.4f}"
        return None


_Target = _Classes | _Number


def auc(score: Floats, positive: Bools) -> float:
    """Return the area under the ROC curve of a score, ties counted half (Mann & Whitney 1947); .5 with one class only.

    >>> auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.75
    """
    n1 = int(positive.sum())
    n0 = len(positive) - n1
    if not n1 or not n0:
        return 0.5
    return float((_ranks(score)[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def _ranks(x: Floats) -> Floats:
    """Return ranks from 1, ties at their mean."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _bounded(a: float, positive: Bools) -> tuple[float, float]:
    """Return (lower end of a one-sided 90% interval, estimate) of an AUC, with the error of Hanley & McNeil 1982."""
    n1 = int(positive.sum())
    n0 = len(positive) - n1
    if min(n1, n0) < 10:
        return 0.0, a
    both_positive, both_negative = a / (2 - a) - a * a, 2 * a * a / (1 + a) - a * a
    variance = (a * (1 - a) + (n1 - 1) * both_positive + (n0 - 1) * both_negative) / (n1 * n0)
    return a - _Z * float(np.sqrt(max(variance, 0.0))), a


def _out_of_fold(values: _Values, y: Floats) -> Floats:
    """Return for each row the mean of y in its level among the other folds' rows, drawn to the overall mean by one row."""
    fold = np.arange(len(y)) % _FOLDS
    cell = (values.codes + 1) * _FOLDS + fold
    shape = (values.n_levels + 1, _FOLDS)
    count = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
    total = np.bincount(cell, weights=y, minlength=shape[0] * shape[1]).reshape(shape)
    others, others_total = count.sum(axis=1, keepdims=True) - count, total.sum(axis=1, keepdims=True) - total
    return np.asarray(((others_total + y.mean()) / (others + 1)).ravel()[cell])


def _hints(profile: Profile, data: Data) -> tuple[Finding, ...]:
    """Return warnings about leaks that only the user can tell: a time, a group or a test that is not declared."""
    found = []
    for field in profile.fields:
        repeats = field.kind in ("number", "category") and 10 < field.n_unique < 0.8 * (profile.n - field.n_missing)
        if data.group is None and repeats and _ENTITY.search(field.name) and field.name != data.outcome:
            detail = f"Values of {field.name!r} recur: if it names a customer, patient or the like, write data.group: {field.name}, "
            detail += "so that none stands on both sides of a split."
            found.append(Finding("group", field.name, profile.n, detail, "kept", "warning"))
        if data.holdout is None and field.name == PART and field.kind == "place" and field.n_unique > 1:
            detail = f"{field.name!r} says which images are to test on: if figures are to be compared with others', write "
            detail += f"data.holdout: {field.name}; without it they are learnt from like the rest."
            found.append(Finding("holdout", field.name, profile.n, detail, "kept", "warning"))
        if data.time is None and field.kind == "date":
            detail = f"{field.name!r} holds dates: if decisions are taken over time, write data.time: COLUMN, "
            detail += "so that the test lies after the training."
            found.append(Finding("time", field.name, profile.n, detail, "kept", "warning"))
    return tuple(found)
