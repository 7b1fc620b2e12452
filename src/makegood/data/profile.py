"""What each column is, by its values and by what the case says of it.

A column of whole numbers stays a number, however few values it has, unless `data.categories` names it: 0, 1, 2 may be a count.
Ids, constants and empty columns carry nothing that a model could use on a new row, and long texts nothing that one could use who is not
told to read them (`data.text`); they are excluded by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from makegood.contracts import Finding
from makegood.data.aggregates import Summary, summarise
from makegood.data.sources import style_of
from makegood.errors import CaseError, NotBuilt, Problem, nearest

if TYPE_CHECKING:
    from makegood.case import Data

TRUTH_PAIRS = ({"yes", "no"}, {"y", "n"}, {"true", "false"}, {"t", "f"})
UNUSED = ("id", "long text", "constant", "empty", "place")
"""Kinds that make no features."""

_ID_NAME = re.compile(r"(?i:(^|[_\W])(id|uuid|guid|key|nr|no|number|index|rownames?|unnamed_\d+)$|^id[_\W])|[a-z]I[dD]$|编号$")
_MIN_ID_ROWS = 20  # among fewer rows, unique values say nothing


@dataclass(frozen=True)
class Field:
    """One column.

    `kind` is number, category, boolean, date, image, text, id, long text (which the case does not name), place (of an image), constant
    or empty; `reads` how its values are read whatever its use: number, boolean, date, category, image or text. `quantiles` at
    `aggregates.QUANTILES`; dates in days since 1970.
    """

    name: str
    kind: str
    reads: str
    n_missing: int
    n_unique: int
    quantiles: tuple[float, ...] = ()
    top: tuple[tuple[str, int], ...] = ()
    style: str = ""  # how its numbers or dates are written, see `values`

    @property
    def numeric(self) -> bool:
        """Whether the values are read as float64."""
        return self.reads not in ("category", "image", "text")


@dataclass(frozen=True)
class Profile:
    """The columns of a table of `n` rows, and what was found about them."""

    n: int
    fields: tuple[Field, ...]
    findings: tuple[Finding, ...] = ()

    def __getitem__(self, name: str) -> Field:
        """Return the field of that name; raises KeyError."""
        return {f.name: f for f in self.fields}[name]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(f.name for f in self.fields)

    @property
    def kinds(self) -> dict[str, str]:
        """Column → number, boolean, date, category, image, id or text: what a payoff may do with it."""
        kinds = {"id": "id", "text": "text", "long text": "text"}
        return {f.name: kinds.get(f.kind, f.reads) if not f.numeric else f.reads for f in self.fields}


def require(table: pa.Table, name: str, where: str) -> None:
    """Raise `CaseError` with the nearest name when a table has no such column."""
    if name not in table.column_names:
        raise CaseError(Problem(where, name, f"a column of the data: {_shown(table.column_names)}", nearest(name, table.column_names)))


def _shown(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def profile(table: pa.Table, data: Data) -> Profile:
    """Return the kinds, counts, quantiles and top levels of all columns; raises `CaseError` when the case names an absent one."""
    _check_names(table, data)
    pictures = [f.name for f in table.schema if pa.types.is_binary(f.type)]
    summaries = summarise(table.drop_columns(pictures), texts=data.categories)
    _check_text(table, data, summaries)
    summaries |= {name: Summary(table[name].null_count, pc.count_distinct(table[name]).as_py()) for name in pictures}
    fields = tuple(_field(name, table, summaries[name], data) for name in table.column_names)
    findings = tuple(f for field in fields if field.name != data.outcome for f in _findings(field, table.num_rows))
    return Profile(table.num_rows, fields, findings)


def _check_names(table: pa.Table, data: Data) -> None:
    require(table, data.outcome, "data.outcome")
    for role in ("time", "group", "holdout", "scale"):
        name = getattr(data, role)
        if name is not None:
            require(table, name, f"data.{role}")
    if data.text is not None:
        require(table, data.text.column, "data.text")
    for role in ("known_later", "raters", "keep", "protected", "categories"):
        for name in getattr(data, role):
            require(table, name, f"data.{role}")
    for role in ("outcome", "time", "group", "holdout", "scale", "protected", "categories"):
        named = getattr(data, role)
        for name in named if isinstance(named, tuple) else (named,):
            if name is not None and pa.types.is_binary(table.schema.field(name).type):
                raise CaseError(Problem(f"data.{role}", name, "a column of values, not of images", "name another column"))
    if (data.image.size or data.image.channels) and not any(pa.types.is_binary(kind) for kind in table.schema.types):
        mend = "remove it, or name a column of paths in data.path"
        raise CaseError(Problem("data.image", "a size or channels", "data that hold images", mend))
    both = set(data.keep) & set(data.later)
    if both:
        other = "raters" if min(both) in data.raters else "known_later"
        raise CaseError(Problem("data.keep", min(both), f"a column that is not in data.{other} too", "take it out of one of the two"))


def _check_text(table: pa.Table, data: Data, summaries: dict[str, Summary]) -> None:
    """Raise where the case names a text column that holds something else, or one value at most."""
    if data.text is None:
        return
    name = data.text.column
    where, mend = f"data.text: {name!r}", "name another column, or leave data.text out"
    kind = table.schema.field(name).type
    if not pa.types.is_string(kind):
        got = "images" if pa.types.is_binary(kind) else f"{_reads(kind, summaries[name])}s"
        raise CaseError(Problem(where, got, "a column of texts", mend))
    if summaries[name].n_unique < 2:
        got = "one text in all rows" if summaries[name].n_unique else "no text at all"
        raise CaseError(Problem(where, got, "texts that differ", mend))
    if pictures := [field.name for field in table.schema if pa.types.is_binary(field.type)]:
        got = f"images too, in {pictures[0]!r}"
        raise NotBuilt(Problem(where, got, "texts without images", "leave one of the two out; see ROADMAP.md"))


def _field(name: str, table: pa.Table, summary: Summary, data: Data) -> Field:
    column = table[name]
    reads = "category" if name in data.categories else _reads(column.type, summary)
    if data.text is not None and name == data.text.column:
        kind = reads = "text"
    elif (table.schema.field(name).metadata or {}).get(b"role") == b"place":
        kind = "place"
    elif summary.n_unique == 0:
        kind, reads = "empty", "number" if reads == "category" else reads
    elif summary.n_unique == 1 and summary.n_missing == 0:
        kind = "constant"
    elif name in data.categories:
        kind = "category"
    elif reads == "category" and _is_long_text(summary, table.num_rows):
        kind = "long text"
    elif name not in (data.group, data.time, *data.keep) and _is_id(name, column, summary, table.num_rows):
        kind = "id"
    else:
        kind = reads
    return Field(name, kind, reads, summary.n_missing, summary.n_unique, summary.quantiles, summary.levels, style_of(table, name))


def _reads(kind: pa.DataType, summary: Summary) -> str:
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_timestamp(kind):
        return "date"
    if pa.types.is_binary(kind):
        return "image"
    if not pa.types.is_string(kind):
        return "number"
    levels = {level.lower() for level, _ in summary.levels}
    return "boolean" if levels and any(levels <= pair for pair in TRUTH_PAIRS) else "category"


def _is_long_text(summary: Summary, n: int) -> bool:
    """Return whether values are prose: four words or forty characters on average, most of them different."""
    return (summary.words >= 4 or summary.length > 40) and summary.n_unique > max(20, 0.5 * (n - summary.n_missing))


def _is_id(name: str, column: pa.ChunkedArray, summary: Summary, n: int) -> bool:
    """Return whether values only name their row.

    Texts: at least 99% different. Whole numbers: all different and none missing, and either called an id, without gaps, or
    increasing from row to row. Other numbers and dates never.
    """
    present = n - summary.n_missing
    if present < _MIN_ID_ROWS:
        return False
    if pa.types.is_string(column.type):
        return summary.n_unique >= 0.99 * present
    if not pa.types.is_integer(column.type) or summary.n_unique < n:
        return False
    dense = summary.quantiles[-1] - summary.quantiles[0] == n - 1
    return dense or _ID_NAME.search(name) is not None or bool((np.diff(column.to_numpy()) > 0).all())


def _findings(field: Field, n: int) -> tuple[Finding, ...]:
    said = {
        "empty": "holds no value at all",
        "constant": "holds one value only",
        "id": f"names its row ({field.n_unique} different values in {n} rows)",
        "long text": "holds long text, which is read where the case says so",
        "place": "says where an image lies",
    }
    if field.kind not in said:
        return ()
    hints = {"id": "; name it in data.keep to use it", "long text": f"; write data.text: {field.name} to use it"}
    hint = hints.get(field.kind, "")
    kind = "text" if field.kind == "long text" else field.kind
    return (Finding(kind, field.name, n, f"Column {field.name!r} {said[field.kind]}; it makes no feature{hint}.", "excluded"),)
