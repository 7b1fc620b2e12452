"""Which table this is, and which row: content hashes that do not depend on chunking, file format or the order of columns."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from makegood.contracts import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from makegood.contracts import Bools

Hashes = NDArray[np.uint64]
_TELLING = 0.9  # share of the distinct rows that one column must tell apart for equal rows to be copies of one record


def fingerprint(table: pa.Table) -> str:
    """Return the SHA-256 of a table's names, types and values, in order; the same for every chunking of the same values."""
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        digest.update(f"{name}\0{column.type}\0{len(column)}\0".encode())
        for part in _parts(column):
            digest.update(part)
    return digest.hexdigest()


def _parts(column: pa.ChunkedArray) -> Iterable[Any]:
    """Yield the bytes that tell a column's values: which are null, then the values with the nulls blanked."""
    yield np.packbits(column.is_null().to_numpy())
    if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
        column = pc.fill_null(column, "" if pa.types.is_string(column.type) else b"")
        yield pc.binary_length(column).to_numpy()
        for chunk in column.chunks:
            _, offsets, data = chunk.buffers()
            ends = np.frombuffer(offsets, dtype=np.int32)[[chunk.offset, chunk.offset + len(chunk)]] if len(chunk) else (0, 0)
            yield memoryview(data)[ends[0] : ends[1]] if data else b""
    else:
        yield _bits(column)


def _bits(column: pa.ChunkedArray) -> Hashes:
    """Return the 64 bits of each number, boolean or moment; a null is 0, and so is −0.0."""
    if pa.types.is_floating(column.type):
        return np.ascontiguousarray(pc.fill_null(column, 0.0).to_numpy() + 0.0).view(np.uint64)
    return np.ascontiguousarray(pc.fill_null(column.cast(pa.int64()), 0).to_numpy()).view(np.uint64)


def row_hashes(table: pa.Table) -> Hashes:
    """Return a 64-bit hash of each row's content (n,): equal for equal rows, whatever their place or the columns' order."""
    total = np.zeros(table.num_rows, dtype=np.uint64)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_string(column.type):
            encoded = pc.fill_null(column, "").combine_chunks().dictionary_encode()
            levels = np.array([_hash_of(text) for text in encoded.dictionary.to_pylist()], dtype=np.uint64)
            bits = levels[encoded.indices.to_numpy()]
        elif pa.types.is_binary(column.type):
            bits = np.array([_hash_of(value or b"") for value in column.to_pylist()], dtype=np.uint64)
        else:
            bits = _bits(column)
        nulls = column.is_null().to_numpy().astype(np.uint64)
        total += mixed(bits ^ np.uint64(_hash_of(name)) ^ (nulls << np.uint64(63)))
    return mixed(total)


def looks(table: pa.Table) -> Hashes:
    """Return a hash (n,) of what a model could recognise a row by: of its images alone where it has all of them, else of the row."""
    return _with_images(table, [f.name for f in table.schema if pa.types.is_binary(f.type)])


def _content(table: pa.Table, apart: str | None) -> list[str]:
    """Return the columns that tell one record from another: all but those that say where an image lies, `apart` among them or not."""
    return [f.name for f in table.schema if f.name == apart or (f.metadata or {}).get(b"role") != b"place"]


def _with_images(table: pa.Table, names: list[str]) -> Hashes:
    """Return a hash (n,) of the named columns where no image is missing, else of the whole row: that two are missing says nothing."""
    pictures = [column for column in table.columns if pa.types.is_binary(column.type)]
    whole = row_hashes(table)
    if not pictures:
        return whole
    return np.where(np.logical_and.reduce([c.is_valid().to_numpy() for c in pictures]), row_hashes(table.select(names)), whole)


def _hash_of(value: str | bytes) -> int:
    data = value.encode() if isinstance(value, str) else value
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def mixed(x: Hashes) -> Hashes:
    """Return SplitMix64's finaliser of each number (Steele, Lea & Flood 2014): every bit in moves half of the bits out."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def deduplicate(table: pa.Table, *, apart: str | None = None) -> tuple[pa.Table, tuple[Finding, ...]]:
    """Return the table without copies of a record, and what was found about equal rows.

    Rows that are equal in every column, wherever their images lie, are copies of one record when some column alone tells at least
    90% of the distinct rows
    apart (an id, a time stamp, a measurement): two records would have differed there. The first is kept. Without such a column
    they may be two entities that look alike: they are kept, and `splits` never puts one in training and the other in a test. Rows
    that differ in the column `apart` are none, whatever it says of places: a declared test stays whole.
    """
    names = _content(table, apart)
    hashes = _with_images(table, names)
    distinct, first = np.unique(hashes, return_index=True)
    n = table.num_rows - len(distinct)
    if not n:
        return table, ()
    keep: Bools = np.zeros(table.num_rows, dtype=np.bool_)
    keep[first] = True
    telling = next((c for c in names if pc.count_distinct(table[c]).as_py() >= _TELLING * len(distinct)), None)
    if telling is None:
        detail = f"{n} rows equal another row in every column; no column identifies a record, so they were kept and are never split apart."
        return table, (Finding("duplicate", "", n, detail, "kept"),)
    detail = f"{n} rows equal another row in every column, {telling!r} included: they are copies, and one of each was kept."
    return table.filter(pa.array(keep)), (Finding("duplicate", "", n, detail, "dropped", "warning"),)
