"""Files and a running service: rows that it is to decide on, and outcomes that come back late.

Both may be interrupted and begun again. The ids of decisions are made of the file's content and the row's number, and an outcome's
of its decision, so that the service tells what it has already and nothing is in its ledger twice.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.csv

from makegood import decision_file
from makegood.client import Client, Outcome, Receipt, described, rows_asked
from makegood.contracts import Decision
from makegood.data import galleries, sources, values
from makegood.errors import CaseError, DataError, Problem, ServiceError, nearest
from makegood.retry import failed

MOST_ROWS = 50
"""To decide on in one request: with reasons a slow model takes some 10 ms a row, and a service gives a request 5 s."""
MOST_OUTCOMES = 500
"""In one request."""
MOST_BYTES = 900_000
"""Of one request, unless it has a single row; a service takes 1 MiB."""
_OUTCOMES = ("decision", "outcome", "known_at", "source")
_REFUSED = ("row", "why")
"""What a file of refused outcomes has beside them: it can be sent again."""
_ENTRY = re.compile(r"entry \d+(: )?")  # of one request

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Told:
    """What a service decided on a file: `again` of the n decisions had been made before, by a run that got further than its file."""

    n: int
    actions: dict[str, int]
    promised: float
    unit: str
    out: Path
    notes: tuple[str, ...]
    models: dict[str, int]
    again: int

    def to_json(self) -> dict[str, Any]:
        """Return what `makegood decide --url --json` prints."""
        return {**asdict(self), "out": str(self.out.resolve()), "notes": list(self.notes)}


@dataclass(frozen=True)
class Posted:
    """What became of a file's outcomes: stored now, there before, or refused, for reasons that lie row by row in the file `refusals`."""

    stored: int
    there: int
    refused: int
    refusals: Path | None

    def to_json(self) -> dict[str, Any]:
        """Return what `makegood outcome --file --json` prints."""
        return {**asdict(self), "refusals": self.refusals and str(self.refusals.resolve())}


def decide_file(client: Client, rows: Path, out: Path, progress: Progress) -> Told:
    """Have a service decide on every row of a file, write the decisions as `makegood decide` does, and return what was done.

    Each request is one of fixed rows under a fixed id: repeated, it is answered with the decisions of the first time. Raises
    `ServiceError` where the service refuses a row, naming it, or is away for longer than the client's patience.
    """
    decision_file.check(out)
    fields = _kinds(client.ask(described()), "Row")
    source = sources.read(rows, plain={name for name, kind in fields.items() if kind == "number"})
    place = galleries.place_of(source.table)
    mark = _mark(rows, source.fingerprint)
    table, unread = _readable(source.table.select([name for name in source.table.column_names if name in fields]), fields)
    decided: list[Decision] = []
    again = 0
    for first, part in _parts(table):
        try:
            made, replayed = client.ask(rows_asked(part, f"{mark}:{first}"))
        except ServiceError as error:
            raise _placed(error, rows.name, first) from None
        decided += made
        again += len(made) * replayed
        progress("decide", len(decided) / table.num_rows)
    decision_file.write(out, decided, None if place is None else source.table[place])
    strange = [n for n in source.table.column_names if n not in fields and n not in galleries.roles(source.table)]
    notes = [*(f.detail for f in source.findings if f.kind != "missing_outcome"), *unread]
    notes += [f"{note} ({n:,} rows)" for note, n in Counter(note for d in decided for note in d.notes).most_common(20)]
    notes += [f"columns that the model does not know were ignored: {', '.join(strange)}"] if strange else []
    actions, promised = dict(sorted(Counter(d.action for d in decided).items())), sum(d.promise for d in decided)
    return Told(len(decided), actions, promised, decided[0].unit, out, tuple(notes), dict(Counter(d.model for d in decided)), again)


def _readable(table: pa.Table, kinds: Mapping[str, str]) -> tuple[pa.Table, list[str]]:
    """Return the table with texts as the service takes them, missing where the bundle would find nothing in them; and notes on those."""
    notes = []
    for i, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            kind = kinds[field.name]
            cells = [
                cell if cell is None or not values.is_missing(cell.strip(), bool(kind)) else None for cell in table.column(i).to_pylist()
            ]
            if kind:
                read = [None if cell is None else (values.number if kind == "number" else values.truth)(cell) for cell in cells]
                lost = [cell for cell, value in zip(cells, read, strict=True) if value is None and cell is not None]
                notes += [f"{field.name}: {lost[0][:80]!r} is no {kind}; taken as missing ({len(lost):,} rows)"] if lost else []
                made = pa.array(read, pa.float64()).cast(pa.bool_() if kind == "boolean" else pa.float64())
            table = table.set_column(i, field.name, made if kind else pa.array(cells, pa.string()))
    return table, notes


def _mark(rows: Path, fingerprint: str) -> str:
    """Return what stands for a file's content in the ids of its decisions: 128 bits of the SHA-256 of its bytes, or of its rows."""
    if not rows.is_file():
        return fingerprint[:32]
    with rows.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _parts(table: pa.Table) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield the rows of each request, and the number of the first (from 0); which rows go together depends on the rows alone."""
    part: list[dict[str, Any]] = []
    first = size = 0
    for batch in table.to_batches(max_chunksize=MOST_ROWS):
        for row in batch.to_pylist():
            own = len(msgspec.json.encode(row)) + 1
            if part and (len(part) == MOST_ROWS or size + own > MOST_BYTES):
                yield first, part
                first, part, size = first + len(part), [], 0
            part.append(row)
            size += own
    yield first, part


def _kinds(document: Any, schema: str) -> dict[str, str]:
    """Return the fields of a schema of the service's description: number or boolean where they hold that alone, "" where they do not."""
    try:
        properties = document["components"]["schemas"][schema]["properties"]
        types = {name: said.get("type", ()) for name, said in properties.items()}
    except (KeyError, TypeError, AttributeError):
        raise CaseError(Problem("--url", "another service", "a service of `makegood serve`", "is the URL right?")) from None
    alone = {name: {kinds} if isinstance(kinds, str) else {*kinds} - {"null"} for name, kinds in types.items()}
    return {name: next((kind for kind in ("number", "boolean") if kinds == {kind}), "") for name, kinds in alone.items()}


def _placed(error: ServiceError, file: str, first: int) -> ServiceError:
    """Return a refusal that names the file's rows, where the service named those of one request."""
    placed = []
    for problem in error.problems:
        row = re.match(r"row (\d+)", problem.where)
        where = f"row {first + int(row[1])}{problem.where[row.end() :]}" if row else problem.where
        placed.append(replace(problem, where=f"{file}, {where}" if row else where))
    return failed(error.status, placed)


def outcome(client: Client, said: Outcome) -> Receipt:
    """Record one outcome, which was written as text; return the receipt."""
    number = _kinds(client.ask(described()), "Outcome")["outcome"] == "number"
    return client.outcome(said.decision, _value(said.value, number), said.known_at, said.source)


def _value(cell: Any, number: bool) -> str | float:
    """Return an outcome as the service takes it: a number where outcomes are numbers and it is one; else the service says what is wrong."""
    read = values.number(cell) if number and isinstance(cell, str) else None
    return "" if cell is None else cell if read is None else read


def outcome_file(client: Client, file: Path, progress: Progress) -> Posted:
    """Record the outcomes of a file with the columns decision, outcome and, if wanted, known_at and source; return what became of them.

    The rows that are refused are written beside it, with the reasons, under the same columns: mended, that file can be sent. Raises
    `DataError` where a column is another, or a row cannot be read: then nothing is sent.
    """
    source = sources.read(file, plain=())
    table = source.table
    names = table.column_names
    for name in (*(n for n in _OUTCOMES[:2] if n not in names), *(n for n in names if n not in (*_OUTCOMES, *_REFUSED))):
        got = f"{'a' if name in names else 'no'} column {name}"
        raise DataError(
            Problem(
                file.name, got, f"the columns {', '.join(_OUTCOMES)}; the last two may be left out", nearest(name, (*names, *_OUTCOMES))
            )
        )
    if source.set_aside:
        raise DataError(
            *(Problem(file.name, f.detail, "rows that can be read", "mend them: no outcome is left out") for f in source.findings)
        )
    number = _kinds(client.ask(described()), "Outcome")["outcome"] == "number"
    counts, refused = Counter[str](), dict[int, Receipt]()
    for first in range(0, table.num_rows, MOST_OUTCOMES):
        part = table.slice(first, MOST_OUTCOMES).to_pylist()
        receipts = client.outcomes([_sent(row, number) for row in part])
        counts.update(receipt.state for receipt in receipts)
        refused |= {i: receipt for i, receipt in enumerate(receipts, first) if receipt.state == "refused"}
        progress("outcomes", (first + len(part)) / table.num_rows)
    return Posted(counts["stored"], counts["there"], len(refused), _refusals(file, table, refused))


def _sent(row: Mapping[str, Any], number: bool) -> Outcome:
    at = row.get("known_at")
    at = at.replace(tzinfo=UTC) if isinstance(at, datetime) else at  # a table's times are UTC
    return Outcome(str(row["decision"] or ""), _value(row["outcome"], number), at, row.get("source") or "")


def _refusals(file: Path, table: pa.Table, refused: Mapping[int, Receipt]) -> Path | None:
    """Write the rows that were refused and return the path, or None where there are none: what an earlier run wrote is then removed."""
    path = file.with_name(f"{file.name.partition('.')[0]}.refused.csv")
    if not refused:
        path.unlink(missing_ok=True)
        return None
    rows = list(refused)
    kept = table.select([name for name in table.column_names if name in _OUTCOMES]).take(pa.array(rows))
    why = ["; ".join(str(replace(p, where=_ENTRY.sub("", p.where)))[:500] for p in refused[i].problems) for i in rows]
    kept = kept.append_column("row", pa.array([i + 1 for i in rows])).append_column("why", pa.array(why))
    try:
        pyarrow.csv.write_csv(kept, path)
    except OSError as error:
        raise CaseError(
            Problem(str(path), error.strerror or str(error), "a file that can be written", "move the file to another folder")
        ) from None
    return path
