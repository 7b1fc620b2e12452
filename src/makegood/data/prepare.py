"""Preparation is fitted: what `Transform` needs to know, counted by DuckDB on the train rows alone, the words of texts by ourselves.

A protected column is never a feature, unless `data.keep` names it: a decision that may not be reasoned by it should not rest on it.
Neither are the outcome, the time (its values in the test lie beyond those in training), the group, and the column that names the rows
held out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from makegood.contracts import Finding
from makegood.data import familiarity, images, leaks, texts, values
from makegood.data.aggregates import QUANTILES, Summary, as_numbers, summarise
from makegood.data.profile import UNUSED
from makegood.data.transform import Column, Transform
from makegood.errors import CaseError, DataError, Problem, nearest

if TYPE_CHECKING:
    from collections.abc import Collection

    from makegood.case import Data
    from makegood.contracts import Ints
    from makegood.data.profile import Field, Profile

FREQUENT = 32  # levels with a feature of their own
MIN_LEVEL = 5  # rows that such a level needs
MAX_LEVELS = 10_000  # levels that are remembered; rarer ones are as if unseen
LONGEST = 256  # tokens of a window, where the case does not say
_COVERED = 0.99  # of the texts, that a window holds whole where the case does not say
_MEASURED = 5_000  # texts, at most, that this is told from
_MEDIAN = QUANTILES.index(0.5)
_HUGE = 1e300
_FAR = 1e30  # in units of the scale: beyond it float32 would end
_YEAR_1, _YEAR_9999 = -719_162.0, 2_932_896.0  # days since 1970


@dataclass(frozen=True)
class Wording:
    """How texts are read: windows of how many `tokens` (None: what covers 99% of the texts), and the `tokenizer` (None: learnt).

    `measures`: what can be counted of a text stands beside its tokens. `familiar`: payoffs or limits ask how familiar a text is, by level
    of the column `scale` where there is one.
    """

    tokens: int | None = None
    windows: int = 1
    tokenizer: str | None = None
    measures: bool = False
    familiar: bool = False
    scale: str | None = None


def mended(table: pa.Table, name: str) -> tuple[pa.Table, tuple[Finding, ...]]:
    """Return the table with the texts of a column as `texts.cleaned` makes them, and what was found; as it is where that is no text."""
    if name not in table.column_names or not pa.types.is_string(table.schema.field(name).type):
        return table, ()
    out, counts = [], Counter[str]()
    for cell in table[name].to_pylist():
        text, done = texts.cleaned(cell)
        out.append(text)
        counts.update(done)
    at = table.column_names.index(name)
    return table.set_column(at, table.schema.field(at), pa.array(out, pa.string())), _said(name, counts)


def shortened(column: str, n: int) -> tuple[Finding, ...]:
    """Return the finding that n texts are longer than their windows; none where n is 0."""
    return _said(column, Counter(cut=n))


def _said(column: str, counts: Counter[str]) -> tuple[Finding, ...]:
    out = []
    for name, said in texts.TREATMENTS.items():
        if n := counts[name]:
            lost = name == "empty"
            detail = f"{n} {images.agreed(n, 'texts')} of {column!r} {images.agreed(n, said)}."
            out.append(Finding("text", column, n, detail, "treated as missing" if lost else "kept", "warning" if lost else "note"))
    return tuple(out)


def unused(profile: Profile, found: tuple[Finding, ...], data: Data) -> tuple[tuple[str, ...], tuple[Finding, ...]]:
    """Return the columns that make no features, and a finding for each that is left out by its role in the case."""
    findings = [
        Finding("protected", name, profile.n, f"Column {name!r} is protected: it makes no feature and is watched for fairness.", "excluded")
        for name in data.protected
        if name not in data.keep
    ]
    for name, role, what in ((data.time, "time", "time"), (data.group, "group", "group"), (data.holdout, "holdout", "part")):
        if name is not None:
            detail = f"Column {name!r} is the {what} of the rows; it splits them and makes no feature."
            findings.append(Finding(role, name, profile.n, detail, "excluded"))
    by_kind = [field.name for field in profile.fields if field.kind in UNUSED]
    names = dict.fromkeys((data.outcome, *by_kind, *leaks.excluded((*found, *findings))))
    return tuple(names), tuple(findings)


def fit(
    table: pa.Table,
    profile: Profile,
    excluded: Collection[str],
    *,
    rows: Ints | None = None,
    extra: Collection[str] = (),
    wording: Wording | None = None,
) -> Transform:
    """Return the transform fitted on `rows` of a table (all, when None).

    `excluded` columns make no features; those of them in `extra` (used by payoffs, limits, `today`) are read all the same. `wording`
    says how a column of texts is read.
    Raises `DataError` when no column is left to learn from, `CaseError` when an extra one does not exist, or where there are too few texts
    to tell what is familiar.
    """
    for name in extra:
        if name not in profile.names:
            raise CaseError(Problem("decision", name, "a column of the data", nearest(name, profile.names)))
    fields = [f for f in profile.fields if f.name not in excluded or f.name in extra]
    if all(f.name in excluded for f in fields):
        expected = "at least one that is no id, text, constant, suspected leak or protected column"
        raise DataError(Problem("data", "no column to learn from", expected, "see the findings; data.keep restores a column"))
    train = table.select([f.name for f in fields])
    train = train if rows is None else train.take(pa.array(rows))
    uncounted = [f.name for f in fields if f.reads in ("image", "text")]
    summaries = summarise(train.drop_columns(uncounted), texts=[f.name for f in fields if f.reads == "category"], max_levels=MAX_LEVELS)
    wording = wording or Wording()
    made = Transform(
        [
            _worded(f.name, train[f.name], wording)
            if f.reads == "text"
            else _column(f, summaries.get(f.name), train, feature=f.name not in excluded)
            for f in fields
        ]
    )
    return _acquainted(made, train, wording) if wording.familiar else made


def _worded(name: str, column: pa.ChunkedArray, wording: Wording) -> Column:
    """Return a column of texts with its tokenizer, learnt from these where none is given, and windows that suit them."""
    written = [text for text, _ in map(texts.cleaned, column.to_pylist())]
    missing = None in written
    if wording.familiar:  # a tokenizer that knew the texts held aside would find these too familiar, or too strange
        aside = familiarity.aside([text is not None for text in written], wording.scale is not None)
        written = [text for text, held in zip(written, aside, strict=True) if not held]
    present = [text for text in written if text is not None]
    state = wording.tokenizer
    if state is None:
        state = texts.train_tokenizer(present)
    try:
        made = texts.Tokenizer(state)
    except ValueError as error:
        mend = "write it anew: AutoTokenizer.from_pretrained(…).save_pretrained(FOLDER)"
        raise CaseError(Problem("train.pretrained", str(error), "a tokenizer that the library tokenizers reads", mend)) from None
    length = wording.tokens
    if length is None:
        spread = np.unique(np.linspace(0, len(present) - 1, min(len(present), _MEASURED)).astype(np.int64)) if present else ()
        longest = np.quantile(made.lengths([present[i] for i in spread]), _COVERED, method="higher") if present else 0
        length = int(np.clip(-(-longest // 8) * 8, texts.LENGTHS[0], LONGEST))
    return Column(name, "text", flag=missing, tokenizer=state, length=length, windows=wording.windows, measures=wording.measures)


def _acquainted(made: Transform, train: pa.Table, wording: Wording) -> Transform:
    """Return the transform with what its texts are like; raises `CaseError` where they are too few, or left out."""
    where, expected = f"decision: {familiarity.NAME}", "a column of texts that is learnt from"
    if not made.texts:
        raise CaseError(Problem(where, "data.text left out, see the findings", expected, "data.keep restores a column"))
    (name,) = made.texts
    read = Transform([c for c in made.columns if c.name in (name, wording.scale)])
    columns, _ = read.read(raw_columns(train.select(read.inputs)))
    assert made.tokenizer is not None, "where there are texts"
    present, fewest = [text is not None for text in columns[name]], familiarity.fewest(wording.scale is not None)
    if sum(present) < fewest:
        got = f"{sum(present)} texts to learn from"
        mend = f"give more texts, or leave {familiarity.NAME} out of payoffs and limits"
        raise CaseError(Problem(where, got, f"at least {fewest}: some are held aside, to compare with", mend))
    levels = None if wording.scale is None else familiarity.levels_of(columns[wording.scale].tolist())
    aside = familiarity.aside(present, wording.scale is not None)
    state = familiarity.learn(columns.ids[name], aside, levels, made.tokenizer, wording.scale or "").to_state()
    return Transform([replace(c, familiar=state) if c.name == name else c for c in made.columns])


def _column(field: Field, summary: Summary | None, train: pa.Table, *, feature: bool) -> Column:
    if summary is None:
        pixels = train.schema.field(field.name)
        return Column(field.name, "image", shape=images.stored_shape(pixels), stored=images.stored_shape(pixels, images.SOURCE))
    blank = Column(field.name, field.reads, field.style, feature, flag=feature and summary.n_missing > 0)
    if not feature:
        return blank
    if field.reads == "category":
        frequent = sum(n >= MIN_LEVEL for _, n in summary.levels[:FREQUENT])
        return replace(blank, levels=tuple(level for level, _ in summary.levels), frequent=frequent)
    if field.reads == "boolean":
        top = values.truth(summary.levels[0][0]) if summary.levels else None
        return replace(blank, fill=float(summary.quantiles[_MEDIAN] >= 0.5) if summary.quantiles else top or 0.0, high=1.0)
    return _scaled(blank, summary.quantiles, as_numbers(train[field.name]))


def _scaled(column: Column, quantiles: tuple[float, ...], numbers: pa.ChunkedArray) -> Column:
    """Return the column with its centre (median), scale (interquartile range, or the next wider spread) and range.

    The range is the seen one, widened by its own width on both sides: what lies farther is cut to it.
    """
    if not quantiles:
        return column
    q = np.clip(quantiles, -_HUGE, _HUGE)
    spreads = [q[-1 - i] - q[i] for i in (3, 2, 1, 0)]
    center, scale = float(q[_MEDIAN]), float(next((s for s in spreads if s > 1 / _HUGE), 1.0))
    width = min(float(spreads[-1]), _HUGE)
    ends = [_YEAR_1, _YEAR_9999] if column.reads == "date" else [-_FAR * scale, _FAR * scale]
    low, high = max(float(q[0]) - width, ends[0]), min(float(q[-1]) + width, ends[1])
    clock = column.reads == "date" and bool((np.asarray(numbers.drop_null().to_numpy()) % 1 != 0).any())
    return replace(column, fill=center, center=center, scale=scale, low=low, high=high, clock=clock)


def raw_columns(table: pa.Table) -> dict[str, NDArray[Any]]:
    """Return a table as `Transform.read` takes it: numbers with NaN where missing, moments, and objects for the rest."""
    return {name: _raw(column) for name, column in zip(table.column_names, table.columns, strict=True)}


def _raw(column: pa.ChunkedArray) -> NDArray[Any]:
    ends = pc.min_max(column).as_py() if pa.types.is_integer(column.type) and column.null_count else {}
    exact = any(abs(end or 0) > 2**53 for end in ends.values())  # NumPy would make floats of whole numbers with nulls
    if (
        pa.types.is_string(column.type)
        or pa.types.is_binary(column.type)
        or (pa.types.is_boolean(column.type) and column.null_count)
        or exact
    ):
        out = np.empty(len(column), dtype=object)
        out[:] = column.to_pylist()
        return out
    return np.asarray(column.to_numpy())
