"""Decisions, and what came back of them, as Arrow columns: what a review needs of millions of events, decoded once.

A decision is a row, counted from 0 in the order in which rows were read. Money is in millionths of its unit and times are microseconds,
as in the ledger. What most rows lack stands in tables of its own, which name the row: chances other than 1, and what shadows would have
done. Inputs are columns too, of the least type that holds every value exactly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from makegood.contracts import Bools, Ints
from makegood.ledger.events import Happened, Overridden

SAID = ("outcome", "correction", "override")
"""The kinds of events that tell of a decision, by their number in the table of what was said."""

_CODE = pa.dictionary(pa.int32(), pa.string())
_JSON = pa.large_binary()
_EXACT = 2**53

SCHEMAS = {
    "decisions": pa.schema(
        [
            ("partition", pa.int64()),
            ("seq", pa.int64()),
            ("at", pa.int64()),
            ("entity", pa.int64()),  # a hash of the pseudonym; null: about nobody named
            ("model", _CODE),
            ("canary", pa.bool_()),
            ("option", _CODE),  # by the name that payoffs give it: stock=50
            ("menu", _CODE),  # what could be done, as JSON
            ("report", _CODE),  # the names under which the prediction was reported, as JSON
            ("unit", _CODE),
            ("promise", pa.int64()),
        ]
    ),
    "odds": pa.schema([("row", pa.int64()), ("option", _CODE), ("chance", pa.float64())]),  # of rows on which several could be done
    "tried": pa.schema([("row", pa.int64()), ("model", _CODE), ("option", _CODE), ("promise", pa.int64())]),  # by models that did not act
    "said": pa.schema(
        [
            ("row", pa.int64()),
            ("at", pa.int64()),
            ("partition", pa.int64()),
            ("seq", pa.int64()),
            ("kind", pa.int8()),  # position in `SAID`
            ("option", _CODE),  # of an override: what was done
            ("value", _CODE),  # of an outcome that is a class
            ("number", pa.float64()),  # of one that is a number
            ("realised", pa.int64()),
        ]
    ),
}
"""The tables, but for that of inputs, whose columns are the case's own."""


class _Shadow(msgspec.Struct, frozen=True, gc=False):
    model: str
    action: str
    promise: int
    quantity: float | None = None


class _Decided(msgspec.Struct, frozen=True, gc=False):
    """What columns are made of; the rest of the body is not read."""

    action: str
    promise: int
    unit: str
    propensity: float
    options: tuple[str, ...]
    propensities: tuple[float, ...]
    predictive: dict[str, msgspec.Raw]
    model: str
    quantity: float | None = None
    role: str = "champion"
    shadows: tuple[_Shadow, ...] = ()
    inputs_mac: str = ""


class _Private(msgspec.Struct, frozen=True, gc=False):
    inputs: dict[str, Any] = {}


_decided = msgspec.json.Decoder(_Decided).decode
_private = msgspec.json.Decoder(_Private).decode
_happened = msgspec.json.Decoder(Happened).decode
_overridden = msgspec.json.Decoder(Overridden).decode
_json, _parsed = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode


@lru_cache(maxsize=4096)
def option(action: str, quantity: float | None) -> str:
    """Return the name by which payoffs know an action, or a step of its quantity.

    >>> option("decline", None), option("stock", 50.0)
    ('decline', 'stock=50')
    """
    return action if quantity is None else f"{action}={quantity:.12g}"


@lru_cache(maxsize=4096)
def _listed(names: tuple[str, ...]) -> str:
    return _json(names).decode()


def _entity(unit: str) -> int | None:
    """Return 63 bits of a hash of a pseudonym: among ten million, two that differ are taken for one with a chance of 5 in a million."""
    return int.from_bytes(hashlib.blake2b(unit.encode(), digest_size=8).digest(), "big") >> 1 if unit else None


# ------------------------------------------------------------------------------------------------------------------ events


def decided(rows: Sequence[Sequence[Any]], first: int) -> dict[str, pa.Table]:
    """Return the tables decisions, odds, tried and inputs of decisions, of which the first is row `first`.

    `rows` are partition, seq, at, unit, body and private part (None where there is none any more) of each.
    """
    partitions, seqs, ats, units, written, parts = zip(*rows, strict=True)
    bodies = [_decided(body) for body in written]
    done = [option(d.action, d.quantity) for d in bodies]
    columns = {
        "partition": partitions,
        "seq": seqs,
        "at": ats,
        "entity": list(map(_entity, units)),
        "model": [d.model for d in bodies],
        "canary": [d.role == "canary" for d in bodies],
        "option": done,
        "menu": [_listed(d.options) for d in bodies],
        "report": [_listed(tuple(d.predictive)) for d in bodies],
        "unit": [d.unit for d in bodies],
        "promise": [d.promise for d in bodies],
    }
    odds = [
        (row, name, chance)
        for row, d in enumerate(bodies, first)
        if d.propensity < 1.0
        for name, chance in zip(d.options, d.propensities, strict=True)
        if chance > 0.0
    ]
    tried = [(row, s.model, option(s.action, s.quantity), s.promise) for row, d in enumerate(bodies, first) for s in d.shadows]
    inputs = [None if part is None or d.inputs_mac else _private(part).inputs for d, part in zip(bodies, parts, strict=True)]
    return {
        "decisions": _table("decisions", columns),
        "odds": _table("odds", _turned("odds", odds)),
        "tried": _table("tried", _turned("tried", tried)),
        "inputs": as_inputs(inputs),
    }


def said(rows: Sequence[Sequence[Any]], of: Ints) -> pa.Table:
    """Return the table of what was said: `rows` are at, partition, seq, kind and body of each, `of` (n,) the decisions' rows."""
    out = []
    for row, (at, partition, seq, kind, body) in zip(of.tolist(), rows, strict=True):
        done: str | None = None
        value: str | None = None
        number: float | None = None
        realised: int | None = None
        if kind == "override":
            over = _overridden(body)
            done = option(over.action, over.quantity)
        else:
            happened = _happened(body)
            value, number = (happened.value, None) if isinstance(happened.value, str) else (None, happened.value)
            realised = happened.realised
        out.append((row, at, partition, seq, SAID.index(kind), done, value, number, realised))
    return _table("said", _turned("said", out))


def _turned(name: str, rows: Sequence[Sequence[Any]]) -> dict[str, Sequence[Any]]:
    return dict(zip(SCHEMAS[name].names, zip(*rows, strict=True) if rows else [()] * len(SCHEMAS[name]), strict=True))


def _table(name: str, columns: dict[str, Sequence[Any]]) -> pa.Table:
    return pa.table([_array(columns[field.name], field.type) for field in SCHEMAS[name]], schema=SCHEMAS[name])


def _array(values: Sequence[Any], of: pa.DataType) -> pa.Array:
    return pa.array(values, of.value_type).dictionary_encode() if pa.types.is_dictionary(of) else pa.array(values, of)


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Return tables of one schema as one, each column in one piece."""
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


# ------------------------------------------------------------------------------------------------------------------ inputs

KEPT = "kept"
"""The column that tells whether a decision's inputs are there; a column of the case has a = before its name."""


def as_inputs(rows: Sequence[dict[str, Any] | None]) -> pa.Table:
    """Return the inputs of decisions as a table; None where there are none (erased, or only hashed).

    >>> table = as_inputs([{"age": 41, "city": "Ulm"}, {"age": None, "city": "Ulm"}, None])
    >>> table.column_names, cells(table["=age"]).tolist(), cells(table["=city"]).tolist()
    (['kept', '=age', '=city'], [41.0, nan, nan], ['Ulm', 'Ulm', None])
    """
    there: list[dict[str, Any]] = [{} if row is None else row for row in rows]
    columns = {KEPT: pa.array([row is not None for row in rows], pa.bool_())}
    shapes = dict.fromkeys(map(tuple, there))
    if len(shapes) == 1:  # rows of one service have the same columns in the same order
        found = dict(zip(*shapes, zip(*map(dict.values, there), strict=True), strict=True))
    else:
        found = {name: tuple(row.get(name) for row in there) for name in dict.fromkeys(name for shape in shapes for name in shape)}
    return pa.table(columns | {f"={name}": _column(values) for name, values in found.items()})


def _column(values: Sequence[Any]) -> pa.Array:
    """Return the values of one input, None where missing, as numbers, truths or texts where they all are, else each as JSON."""
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pa.nulls(len(values))
    if kinds == {float} or (kinds <= {int, float} and all(-_EXACT <= v <= _EXACT for v in values if type(v) is int)):
        return pa.array(np.array(values, dtype=np.float64))
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {str}:
        return pa.array(values, pa.large_string()).dictionary_encode()
    return pa.array([None if value is None else _json(value) for value in values], _JSON)


def cells(column: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    """Return the values of a column of inputs as a model takes them: numbers with NaN, truths, or objects with None."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if pa.types.is_dictionary(column.type):
        levels = np.array([*column.dictionary.to_pylist(), None], dtype=object)
        return np.asarray(levels[column.indices.fill_null(-1).to_numpy()])
    if column.type == _JSON:
        return objects([None if value is None else _parsed(value) for value in column.to_pylist()])
    if pa.types.is_boolean(column.type) and column.null_count:
        return objects(column.to_pylist())
    return np.asarray(column.to_numpy(zero_copy_only=False))


def objects(values: Sequence[Any]) -> NDArray[Any]:
    """Return values as an array of objects, lists among them as they are."""
    return np.fromiter(values, dtype=object, count=len(values))


def together(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return cells that lie in several parts, which need not be of one type, as one array.

    >>> together([np.array([1.0, np.nan]), np.array(["a"], dtype=object)]).tolist()
    [1.0, None, 'a']
    """
    if len({part.dtype for part in parts}) == 1:
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
    return np.concatenate([_as_objects(part) for part in parts])


def _as_objects(part: NDArray[Any]) -> NDArray[Any]:
    if part.dtype != np.float64:
        return part.astype(object)
    out = part.astype(object)
    out[np.isnan(part)] = None
    return out


def joined_inputs(tables: Sequence[pa.Table]) -> pa.Table:
    """Return tables of inputs as one, each column in one piece; where one is of several types, every value of it as JSON."""
    n = [len(table) for table in tables]
    columns = {}
    for name in dict.fromkeys(name for table in tables for name in table.column_names):
        parts = [table[name] if name in table.column_names else pa.chunked_array([pa.nulls(len(table))]) for table in tables]
        kinds = {part.type for part in parts if not pa.types.is_null(part.type)}
        if len(kinds) > 1:
            columns[name] = _column_of([value for part in parts for value in _plain(cells(part))], _JSON)
        else:
            columns[name] = _one(parts, kinds.pop() if kinds else pa.null())
    assert all(len(column) == sum(n) for column in columns.values()), "as many of each"
    return pa.table(columns)


def _one(parts: Sequence[pa.ChunkedArray], of: pa.DataType) -> pa.Array:
    """Return parts of one type, or without any value, as one array."""
    if of == pa.float64():
        return pa.array(np.concatenate([cells(part) for part in parts]))
    filled = [part if part.type == of else pa.chunked_array([pa.nulls(len(part), of)]) for part in parts]
    chunks = [chunk for part in filled for chunk in part.chunks]
    return pa.chunked_array(chunks, of).unify_dictionaries().combine_chunks()


def _plain(values: NDArray[Any]) -> Iterable[Any]:
    """Yield cells as JSON has them, None where missing."""
    return (None if value is None or value != value else value for value in values.tolist())


def _column_of(values: Sequence[Any], of: pa.DataType) -> pa.Array:
    """Return values as a column of a type of inputs."""
    if of == pa.float64():
        return pa.array(np.array(values, dtype=np.float64))
    if of == _JSON:
        return pa.array([None if value is None else _json(value) for value in values], _JSON)
    return _array(values, of)


def without(table: pa.Table, gone: Bools) -> pa.Table:
    """Return a table of inputs without those of the rows in `gone` (n,): no value of theirs is in any byte of it."""
    columns = {KEPT: pa.array(cells(table[KEPT]) & ~gone)}
    for name in table.column_names[1:]:
        values = objects(list(_plain(cells(table[name]))))
        values[gone] = None
        columns[name] = _column_of(values.tolist(), table[name].type)
    return pa.table(columns)
