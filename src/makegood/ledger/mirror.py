"""A case's decisions and what came of them, column by column, beside the ledger: kept up with it, and never believed against it.

A review reads millions of decisions. Their events are JSON, in the order of their chains; here they lie decoded, in Arrow files that are
mapped into memory, and only what is new since the last look is read from the ledger. What the files say of themselves (which ledger,
which case, how far, and the hash of the chain there) is compared with the ledger at every look: where anything does not fit, they are made
anew. The files hold what people were decided by, so that they have the ledger's own permissions, and an erasure takes its rows out of
them at the next look; what a file system does with the blocks of a deleted file is its own affair.

DIR/state.json        how far, and the names of the parts; written last, whole or not at all: a crash leaves what was there before
DIR/TABLE-….arrow     a part of a table; it is never changed, only replaced
DIR/lock              held by who looks
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from numpy.typing import NDArray

from makegood.contracts import Bools, Ints
from makegood.errors import LedgerError, Problem
from makegood.ledger import columns, schema, snapshot
from makegood.ledger.anchors import heads

if os.name == "posix":
    import fcntl

VERSION = 1
"""Of the files; those of another version are made anew."""
ROWS, BYTES = 1 << 17, 1 << 27
"""A part that has as many rows, or bytes, is not added to: what is new goes into the next one."""
STATE, LOCK = "state.json", "lock"
_BATCH = 4000
_TABLES = (*columns.SCHEMAS, "inputs")


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the files say of themselves: `heads` is the last event that was read of each partition, with its hash in hexadecimal; `filed`
    up to where a partition's events were archived; `parts` names each table's files, with their sizes."""

    version: int
    ledger: str
    case: str
    heads: dict[int, tuple[int, str]] = {}
    filed: dict[int, int] = {}
    parts: dict[str, list[tuple[str, int]]] = {}


class _Stale(Exception):
    """The files are not what the ledger says, or not whole: they are made anew."""


@dataclass
class _Part:
    """A piece of a table, and the file that it lies in, "" where that is yet to be written."""

    table: pa.Table
    file: str = ""
    size: int = 0

    @property
    def full(self) -> bool:
        return len(self.table) >= ROWS or self.table.nbytes >= BYTES


@dataclass
class _Series:
    """A table in parts; `waiting` are its newest rows, of which no part is made yet."""

    name: str
    folder: Path | None
    parts: list[_Part] = field(default_factory=list)
    waiting: list[pa.Table] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(len(part.table) for part in self.parts) + sum(map(len, self.waiting))

    def add(self, table: pa.Table) -> None:
        """Add rows; a part is made of them as soon as they suffice for one."""
        if len(table):
            self.waiting.append(table)
            if sum(map(len, self.waiting)) >= ROWS or sum(table.nbytes for table in self.waiting) >= BYTES:
                self.finish()

    def finish(self) -> None:
        """Make a part of what waits, together with the last part where that is not full."""
        if not self.waiting:
            return
        if self.parts and not self.parts[-1].full:
            self.waiting.insert(0, self.parts.pop().table)
        self.parts.append(self._made(columns.joined_inputs(self.waiting) if self.name == "inputs" else columns.joined(self.waiting)))
        self.waiting = []

    def _made(self, table: pa.Table) -> _Part:
        """Return a part of a table: in memory, or in a file that is mapped and whose bytes are durable."""
        if self.folder is None:
            return _Part(table)
        name = f"{self.name}-{os.urandom(6).hex()}.arrow"
        path = self.folder / name
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
            file.flush()
            os.fsync(file.fileno())
        return _mapped(self.folder, name, path.stat().st_size)

    def erase(self, gone: Ints) -> None:
        """Take rows out of the parts that they lie in."""
        first = 0
        for i, part in enumerate(self.parts):
            end = first + len(part.table)
            here = gone[(gone >= first) & (gone < end)] - first
            if len(here):
                self.parts[i] = self._made(columns.without(part.table, np.isin(np.arange(len(part.table)), here)))
            first = end


def _mapped(folder: Path, name: str, size: int) -> _Part:
    """Return a part that lies in a file; raises `_Stale` where it is not the file that was written."""
    path = folder / name
    try:
        if path.stat().st_size != size:
            raise _Stale
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            table = reader.read_all()
        table.validate(full=not name.startswith("inputs"))  # inputs are looked at when they are read
    except (OSError, pa.ArrowInvalid):
        raise _Stale from None
    return _Part(table, name, size)


# ------------------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, eq=False)
class Inputs:
    """What decisions were made on, column by column; a column is read from the files when it is asked for."""

    parts: tuple[pa.Table, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(dict.fromkeys(name[1:] for part in self.parts for name in part.column_names[1:]))

    @cached_property
    def kept(self) -> Bools:
        """Of which decisions (n,) there are inputs."""
        return np.concatenate([np.empty(0, dtype=np.bool_), *(columns.cells(part[columns.KEPT]) for part in self.parts)])

    def column(self, name: str, rows: Ints) -> NDArray[Any]:
        """Return a column's values on rows: numbers with NaN where missing, truths, or objects with None."""
        starts = np.cumsum([0, *map(len, self.parts)])
        order = np.argsort(rows, kind="stable") if len(rows) and (np.diff(rows) < 0).any() else np.arange(len(rows))
        ends = np.searchsorted(rows[order], starts)
        found = []
        for part, start, begin, end in zip(self.parts, starts[:-1].tolist(), ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            if end > begin:
                found.append(_taken(part, f"={name}", rows[order[begin:end]] - start))
        if not found:
            return np.empty(0)
        cells = columns.together(found)
        out = np.empty_like(cells)
        out[order] = cells
        return out


def _taken(part: pa.Table, name: str, rows: Ints) -> NDArray[Any]:
    if name not in part.column_names:
        return np.full(len(rows), np.nan)
    column = part[name]
    column.validate(full=True)
    if len(rows) * 8 < len(column) and column.type != pa.float64():
        return columns.cells(column.take(pa.array(rows)))
    return np.asarray(columns.cells(column)[rows])


@dataclass(frozen=True, eq=False)
class Mirror:
    """A case's decisions as the ledger has them at one moment; each table (see `columns.SCHEMAS`) is in pieces, as its parts are mapped.

    A row is a decision, in the order in which they were read: by partition, and in it by the chain, one look after the other.
    """

    decisions: pa.Table
    odds: pa.Table
    tried: pa.Table
    said: pa.Table
    inputs: Inputs


def beside(cache: Path, ledger: str, case: str) -> Path:
    """Return the folder under `cache` in which a case's decisions in a ledger (a URL, or the path of its file) are mirrored.

    >>> beside(Path("service"), "sqlite:////srv/replay.sqlite", "loans").name
    'loans-replay.mirror'
    """
    return cache / f"{case}-{Path(sa.make_url(snapshot.at_url(ledger)).database or '').stem}.mirror"


def follow(ledger: str, cache: Path) -> int:
    """Bring what mirrors a ledger under `cache` up to date, and return how many cases it is: an erasure is to reach them at once."""
    with snapshot.reading(ledger) as connection:
        id = snapshot.named(connection)
    states = {path.parent: _state(path.parent) for path in cache.glob(f"*.mirror/{STATE}")}
    mine = {folder: state.case for folder, state in states.items() if state is not None and state.ledger == id}
    for folder, case in mine.items():
        opened(ledger, case, folder)
    return len(mine)


def opened(ledger: str, case: str, folder: Path | None = None) -> Mirror:
    """Return a case's decisions in a ledger (a URL, or the path of its file), all that there are now.

    `folder` is where the files lie, kept up by this; without one all is read anew. Raises `LedgerError` where the ledger cannot be read,
    or the folder not be written to.
    """
    if folder is None:
        with snapshot.reading(ledger) as connection:
            return _Reading.fresh(connection, case, None).followed(connection)
    try:
        with _locked(folder), snapshot.reading(ledger) as connection:
            try:
                return _Reading.kept(connection, case, folder).followed(connection)
            except _Stale:
                return _Reading.fresh(connection, case, folder).followed(connection)
    except OSError as error:
        got = f"{folder}: {error.strerror or error}"
        raise LedgerError(Problem("mirror", got, "a folder that can be written to", "mend its permissions, or make room")) from None


def _state(folder: Path) -> _State | None:
    """Return what the files of a folder say of themselves, None where they say nothing that can be read."""
    try:
        return msgspec.json.decode((folder / STATE).read_bytes(), type=_State)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder, made where there is none; another who looks at it waits meanwhile."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600), "wb") as lock:
        if os.name == "posix":
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass
class _Reading:
    """One look: the state that the files are in, and the tables as far as they are read."""

    state: _State
    folder: Path | None
    tables: dict[str, _Series]

    @classmethod
    def fresh(cls, connection: sa.Connection, case: str, folder: Path | None) -> _Reading:
        """Return a look that begins at the beginning."""
        state = _State(VERSION, snapshot.named(connection), case, filed=_filed(connection))
        return cls(state, folder, {name: _Series(name, folder) for name in _TABLES})

    @classmethod
    def kept(cls, connection: sa.Connection, case: str, folder: Path) -> _Reading:
        """Return a look that goes on where the last one ended; raises `_Stale` where the files do not fit the ledger."""
        state = _state(folder)
        if state is None or set(state.parts) != set(_TABLES):
            raise _Stale
        if (state.version, state.ledger, state.case, state.filed) != (VERSION, snapshot.named(connection), case, _filed(connection)):
            raise _Stale
        e = schema.events.c
        for partition, (seq, hash) in state.heads.items():
            there = connection.scalar(sa.select(e.hash).where(e.partition == partition, e.seq == seq))
            if there is None or bytes(there).hex() != hash:
                raise _Stale
        tables = {name: _Series(name, folder, [_mapped(folder, *part) for part in parts]) for name, parts in state.parts.items()}
        return cls(state, folder, tables)

    def followed(self, connection: sa.Connection) -> Mirror:
        """Read what is new in the ledger, write it down, and return all of it."""
        now = {partition: (head.seq, head.hash.hex()) for partition, head in heads(connection).items()}
        if now != self.state.heads or not self.state.parts:
            after = {partition: self.state.heads.get(partition, (0, ""))[0] for partition in now}
            self._decisions(connection, after)
            self._said(connection, after)
            self._erased(connection, after)
            self._write(now)
        self._sweep()
        whole = {
            name: pa.concat_tables([shape.empty_table(), *(part.table for part in self.tables[name].parts)])
            for name, shape in columns.SCHEMAS.items()
        }
        return Mirror(**whole, inputs=Inputs(tuple(part.table for part in self.tables["inputs"].parts)))

    def _decisions(self, connection: sa.Connection, after: Mapping[int, int]) -> None:
        e, p = schema.events.c, schema.private.c
        both = schema.events.outerjoin(schema.private, p.id == e.id)
        wanted = sa.select(e.partition, e.seq, e.at, e.unit, e.body, p.data).select_from(both)
        for partition, seq in sorted(after.items()):
            own = wanted.where(e.partition == partition, e.seq > seq, e.kind == "decision", e.case_name == self.state.case)
            for rows in _batches(connection, own.order_by(e.seq)):
                for name, table in columns.decided(rows, len(self.tables["decisions"])).items():
                    self.tables[name].add(table)
        for series in self.tables.values():
            series.finish()

    def _said(self, connection: sa.Connection, after: Mapping[int, int]) -> None:
        e, d = schema.events.c, schema.events.alias("d").c
        of = (d.id == e.about, d.kind == "decision", d.case_name == self.state.case)
        wanted = sa.select(d.partition, d.seq, e.at, e.partition, e.seq, e.kind, e.body).where(*of, e.kind.in_(columns.SAID))
        for partition, seq in sorted(after.items()):
            for rows in _batches(connection, wanted.where(e.partition == partition, e.seq > seq).order_by(e.seq)):
                self.tables["said"].add(columns.said([row[2:] for row in rows], self._rows(rows)))
        self.tables["said"].finish()

    def _erased(self, connection: sa.Connection, after: Mapping[int, int]) -> None:
        """Take out the inputs that erasures destroyed of decisions which were read before."""
        e, x, p = schema.events.c, schema.events.alias("x").c, schema.private.c
        mine = (e.kind == "decision", e.case_name == self.state.case, p.id.is_(None))
        there = schema.events.outerjoin(schema.private, p.id == e.id)
        gone: list[Sequence[Any]] = []
        for partition, seq in after.items():
            asked = sa.select(x.about, x.unit).where(x.kind == "erasure", x.partition == partition, x.seq > seq)
            for about, unit in connection.execute(asked).all():
                of = (e.unit == unit, e.unit != "") if unit else (e.id == about,)
                gone += connection.execute(sa.select(e.partition, e.seq).select_from(there).where(*mine, *of)).all()
        if gone:
            rows = self._rows(gone)
            kept = Inputs(tuple(part.table for part in self.tables["inputs"].parts)).kept
            self.tables["inputs"].erase(np.unique(rows[kept[rows]]))

    def _rows(self, places: Sequence[Sequence[Any]]) -> Ints:
        """Return the rows of decisions by their partition and place in it, the first two of each of `places`."""
        partitions, seqs = (np.array(part, dtype=np.int64) for part in list(zip(*places, strict=True))[:2])
        out = np.empty(len(places), dtype=np.int64)
        for partition in np.unique(partitions).tolist():
            known, rows = self._places[partition]
            here = partitions == partition
            out[here] = rows[np.searchsorted(known, seqs[here])]
        return out

    @cached_property
    def _places(self) -> dict[int, tuple[Ints, Ints]]:
        """Of each partition: the places of its decisions, ascending, and their rows; asked for once they are all read."""
        parts = [part.table for part in self.tables["decisions"].parts]
        partition, seq = (np.concatenate([columns.cells(part[name]) for part in parts]) for name in ("partition", "seq"))
        rows = {number: np.flatnonzero(partition == number) for number in np.unique(partition).tolist()}
        return {number: (seq[own], own) for number, own in rows.items()}

    def _write(self, now: Mapping[int, tuple[int, str]]) -> None:
        """Make what was read the state of the files."""
        if self.folder is None:
            return
        parts = {name: [(part.file, part.size) for part in series.parts] for name, series in self.tables.items()}
        self.state = msgspec.structs.replace(self.state, heads=dict(now), parts=parts)
        path = self.folder / STATE
        part = path.with_name(f".{STATE}.{os.urandom(4).hex()}")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.encode(self.state))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        made = os.open(self.folder, os.O_RDONLY)  # the names are to last as well
        os.fsync(made)
        os.close(made)

    def _sweep(self) -> None:
        """Delete what is no part of the files: what was replaced, and what a look that was cut short left."""
        if self.folder is not None:
            named = {STATE, LOCK, *(file for files in self.state.parts.values() for file, _ in files)}
            for stray in self.folder.iterdir():
                if stray.name not in named:
                    stray.unlink()


def _batches(connection: sa.Connection, wanted: sa.Select[Any]) -> Iterator[Sequence[Sequence[Any]]]:
    yield from connection.execute(wanted, execution_options={"yield_per": _BATCH}).partitions()


def _filed(connection: sa.Connection) -> dict[int, int]:
    """Return up to where each partition was archived."""
    s = schema.segments.c
    return {int(p): int(last) for p, last in connection.execute(sa.select(s.partition, sa.func.max(s.last)).group_by(s.partition))}
