"""What DuckDB counts over a table: the only figures that profiling and preparation learn from.

Counts, distinct counts, quantiles and levels: none of them is a sum of floats, so they are the same bits for every order of the
rows and number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from makegood.data import values

if TYPE_CHECKING:
    from collections.abc import Collection

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_MANY = 200_000  # rows
DAY_US = 86_400_000_000.0


@dataclass(frozen=True)
class Summary:
    """One column counted: `quantiles` at `QUANTILES` for numbers (days since 1970 for dates), `levels` for texts, most frequent first."""

    n_missing: int
    n_unique: int
    quantiles: tuple[float, ...] = ()
    levels: tuple[tuple[str, int], ...] = ()
    length: float = 0.0  # mean characters
    words: float = 0.0  # mean words


def summarise(table: pa.Table, texts: Collection[str] = (), max_levels: int = 20) -> dict[str, Summary]:
    """Return the summary of every column; those in `texts` are counted as canonical texts whatever their type.

    >>> summarise(pa.table({"x": [3.0, 1.0, None, 2.0]}))["x"].quantiles[4]
    2.0
    """
    if not table.num_columns:
        return {}
    # Positional names: DuckDB folds case, so that `a` and `A` would be one column.
    named = {f"c{i}": name for i, name in enumerate(table.column_names)}
    textual = [c for c, name in named.items() if name in texts or pa.types.is_string(table.schema.field(name).type)]
    safe = pa.table({c: (as_text if c in textual else as_numbers)(table[name]) for c, name in named.items()})
    numeric = [c for c in named if c not in textual]
    found: dict[str, Summary] = {}
    with duckdb.connect() as connection:
        connection.register("t", safe)
        for name, count, unique, quantiles in connection.execute(_of_numbers(numeric, len(table))).fetchall() if numeric else ():
            found[name] = Summary(len(table) - count, unique, tuple(quantiles or ()))
        for name, count, unique, length, words, levels in connection.execute(_of_texts(textual, max_levels)).fetchall() if textual else ():
            found[name] = Summary(len(table) - count, unique, levels=tuple(levels), length=length / count, words=words / count)
    return {name: found.get(c, Summary(len(table), 0)) for c, name in named.items()}


def _of_numbers(names: list[str], n: int) -> str:
    """Return SQL for (name, count, distinct count, quantiles) of each column: the same figures by either of two plans.

    One long column is planned 10 times as fast, which counts when few rows are summarised often (ten folds); a query for each
    column runs twice as fast on many rows.
    """
    figures = f"count({{0}}), count(DISTINCT {{0}}), quantile_cont({{0}}, {list(QUANTILES)})"
    if n < _MANY:
        return f"SELECT name, {figures.format('x')} FROM (UNPIVOT t ON {', '.join(names)} INTO NAME name VALUE x) GROUP BY name"
    return " UNION ALL ".join(f"SELECT '{name}' AS name, {figures.format(name)} FROM t" for name in names)


def _of_texts(names: list[str], max_levels: int) -> str:
    """Return SQL for (name, count, distinct count, characters, words, levels) of each column."""
    return f"""
        WITH counted AS (
            SELECT name, level, count(*) AS n FROM (UNPIVOT t ON {", ".join(names)} INTO NAME name VALUE level) GROUP BY ALL
        )
        SELECT name, sum(n)::BIGINT, count(*), sum(n * length(level))::BIGINT,
               sum(n * (length(level) - length(replace(level, ' ', '')) + 1))::BIGINT,
               list((level, n) ORDER BY n DESC, level)[:{max_levels}]
        FROM counted GROUP BY name"""


def as_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return numbers, booleans and moments as float64; moments in days since 1970."""
    if pa.types.is_timestamp(column.type):
        return pc.divide(column.cast(pa.int64()).cast(pa.float64(), safe=False), DAY_US)
    return column.cast(pa.float64(), safe=False)


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return each value's canonical text (`values.text_of`), so that 1, 1.0 and "1" are one level."""
    if pa.types.is_string(column.type):
        return column
    encoded = column.combine_chunks().dictionary_encode()
    texts = pa.array([values.text_of(value) for value in encoded.dictionary.to_pylist()], pa.string())
    return pa.chunked_array([texts.take(encoded.indices)])
