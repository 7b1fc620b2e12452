"""The body of a request becomes rows as a model reads them, or is refused with every field that is wrong.

Fast: msgspec decodes a body straight into typed rows, compiled from the bundle's own columns. What that refuses, or cannot vouch for
(a name that stands twice, a field that no model knows), is read again value by value, slowly, so that all of it can be told at once.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any

import msgspec

from makegood import bundle
from makegood.data import images, texts, values
from makegood.data.transform import Column
from makegood.errors import BundleError, Problem, nearest
from makegood.model import Model
from makegood.serving.problems import Trouble

MOST_ROWS = 1_000
"""In one request."""
MOST_PROBLEMS = 100
"""That one answer names."""
_MOST_IGNORED = 20  # fields that a row's notes name
_ODD = re.compile(r'[\x00-\x1f"\\]')
"""What the name of a field that is decoded at once may not hold."""
_MISREAD = (ValueError, RecursionError)  # what msgspec raises on bytes that are not what it is to read

Plain = str | float | int | bool | None
_TYPES: dict[str, Any] = {"number": float | None, "boolean": bool | None, "date": str | None, "category": Plain, "image": str | None}
_TYPES |= {"text": Annotated[str, msgspec.Meta(max_length=texts.MOST)] | None}
_REFUSED = object()


@dataclass(frozen=True, slots=True)
class Asked:
    """What one request asks: rows, read by `reader`, of an `array` or of one object.

    `digest` is the SHA-256 of the body, by which a repetition is told from another request; `ignored` the fields of each row that no
    model knows, () where there are none at all.
    """

    reader: Reader
    rows: Sequence[msgspec.Struct]
    array: bool
    digest: bytes
    ignored: tuple[tuple[str, ...], ...] = ()

    def where(self, i: int, name: str = "") -> str:
        """Return what a problem's reader calls a field of row i, or the row."""
        row = f"row {i + 1}" if self.array else ""
        return ": ".join(filter(None, (row, name))) or "the row"


class Reader:
    """Reads rows for the models of a case: every column of any of them, the unit's and the time's, and no other.

    A column that several models read is read as the first of them does. What `acting` models need for payoffs and limits must be
    there; any other column may be missing, which is a missing value.
    """

    def __init__(self, case: Mapping[str, Any], acting: Sequence[Model], shadows: Sequence[Model] = ()) -> None:
        models = (*acting, *shadows)
        self.columns = {c.name: c for model in reversed(models) for c in model.transform.columns}
        data = case.get("data", {})
        extra = [data[role] for role in ("group", "time") if data.get(role)]
        self.names = tuple(sorted({*self.columns, *extra}))
        """Of the columns, in the order of a row's fields."""
        self.needed = frozenset(name for model in acting for name in model.needed)
        fields = {name: f"c{i}" for i, name in enumerate(self.names)}
        self._fields = fields
        self._plain = not any(_ODD.search(name) for name in self.names)  # else rows are read value by value
        self._row: type[msgspec.Struct] = msgspec.defstruct(
            "Row",
            [(fields[name], self._type(name)) if name in self.needed else (fields[name], self._type(name), None) for name in self.names],
            rename={field: name for name, field in fields.items()} if self._plain else None,
            kw_only=True,
            frozen=True,
            forbid_unknown_fields=True,
            omit_defaults=True,
            gc=False,
        )
        self._one: Callable[[bytes], Any] = msgspec.json.Decoder(self._row).decode
        self._many: Callable[[bytes], Any] = msgspec.json.Decoder(list[self._row]).decode  # type: ignore[name-defined]
        self._unit: Callable[[Any], Any] | None = attrgetter(fields[data["group"]]) if data.get("group") else None
        first = acting[0].transform
        self.image = first.inputs[0] if first.shape is not None and len(first.inputs) == 1 else None
        """The column that is all there is to a row, where that is an image: a body may be the image itself."""

    def _type(self, name: str) -> Any:
        column = self.columns.get(name)
        return Plain if column is None else str | int | None if column.style == "yearmonthday" else _TYPES[column.reads]

    # ------------------------------------------------------------------------------------------------------------ as asked

    def read(self, body: bytes) -> Asked:
        """Return the rows of a JSON body, one object or an array of them.

        Raises `Trouble`: 400 where it is no JSON, 413 where it has too many rows, 422, with every bad field, where it has other rows
        than this case's.
        """
        if not self._plain:
            return self._slowly(body)
        array = body[:1] == b"[" or body[:64].lstrip()[:1] == b"["
        try:
            rows = self._many(body) if array else (self._one(body),)
        except _MISREAD:
            return self._slowly(body)
        if not 0 < len(rows) <= MOST_ROWS or not _once(body, [msgspec.structs.astuple(row) for row in rows]):
            return self._slowly(body)
        return Asked(self, rows, array, hashlib.sha256(body).digest())

    def picture(self, body: bytes) -> Asked:
        """Return the row of a body that is an image; raises `Trouble` (415, 422) where the case has other rows, or it is none."""
        if self.image is None:
            raise Trouble(415, "This case's rows are JSON objects: send application/json")
        column = self.columns[self.image]
        if not _pictured(body, column):
            raise _refusal([Problem(self.image, f"{len(body)} bytes", allowed(column), "send the file as it is")])
        row = self._row(**{self._fields[self.image]: base64.b64encode(body).decode()})
        return Asked(self, (row,), False, hashlib.sha256(body).digest())

    def _slowly(self, body: bytes) -> Asked:
        value = strict(body)
        array = isinstance(value, list)
        found = value if array else [value]
        if not found:
            raise _refusal([Problem("body", "an empty array", "at least one row", "send the rows")])
        if len(found) > MOST_ROWS:
            raise Trouble(413, f"{len(found)} rows: at most {MOST_ROWS} in one request")
        asked = Asked(self, [], array, hashlib.sha256(body).digest(), tuple(self._strangers(row) for row in found))
        rows: list[msgspec.Struct] = []
        problems: list[Problem] = []
        for i, row in enumerate(found):
            taken, wrong = self._checked(row)
            problems += [Problem(asked.where(i, p.where), p.got, p.expected, p.next) for p in wrong]
            if len(problems) >= MOST_PROBLEMS:
                break
            if not problems:
                rows.append(self._row(**taken))
        if problems:
            raise _refusal(problems)
        return Asked(self, rows, array, asked.digest, asked.ignored if any(asked.ignored) else ())

    def _strangers(self, row: Any) -> tuple[str, ...]:
        return tuple(name for name in row if name not in self._fields) if isinstance(row, dict) else ()

    def _checked(self, row: Any) -> tuple[dict[str, Any], list[Problem]]:
        """Return a row's values by field, and everything that is wrong with it."""
        if not isinstance(row, dict):
            return {}, [Problem("", _kind(row), "an object from column to value", "give names with the values")]
        taken, problems = {}, []
        for name in self.names:
            cell = row.get(name)
            if name in row:
                value = None if cell is None else _plain(cell) if (column := self.columns.get(name)) is None else _as_read(column, cell)
                if value is _REFUSED:
                    problems.append(self.problem(name, cell))
                taken[self._fields[name]] = value
            elif name in self.needed:
                mend = nearest(name, self._strangers(row)) or "add it"
                problems.append(Problem(name, "nothing", f"{self._allowed(name)}: payoffs or limits are made of it", mend))
        return taken, problems

    def problem(self, name: str, cell: Any) -> Problem:
        """Return what is wrong with a value that cannot be used: it, what is allowed, what to do."""
        mend = "leave it out where it is not known"
        if isinstance(cell, str) and self._reads(name) == "number" and (number := values.number(cell)) is not None:
            mend = f"write {number:.15g} without quotes"
        return Problem(name, _shown(cell), self._allowed(name), mend)

    def _reads(self, name: str) -> str:
        return self.columns[name].reads if name in self.columns else ""

    def _allowed(self, name: str) -> str:
        return allowed(self.columns[name]) if name in self.columns else "a text, a number or null"

    # ------------------------------------------------------------------------------------------------------------- as used

    def raw(self, rows: Iterable[msgspec.Struct]) -> dict[str, Sequence[Any]]:
        """Return the rows' raw columns, as `Model.decide_columns` takes them; at least one row."""
        return dict(zip(self.names, zip(*map(msgspec.structs.astuple, rows), strict=True), strict=True))

    def kept(self, row: msgspec.Struct) -> bytes:
        """Return a row as the ledger holds it: the JSON object of what it says, under the columns' own names."""
        if self._plain:
            return msgspec.json.encode(row)
        cells = zip(self.names, msgspec.structs.astuple(row), strict=True)
        return msgspec.json.encode({name: cell for name, cell in cells if cell is not None})

    def unit(self, row: msgspec.Struct) -> str:
        """Return the id of the entity that a row is about, "" where nobody says; 17, 17.0 and "17" are one."""
        value = None if self._unit is None else self._unit(row)
        return "" if value is None else values.text_of(value) or ""


def _once(body: bytes, rows: Sequence[tuple[Any, ...]]) -> bool:
    """Return True only if no name stands twice in an object of the body, told by its colons: one for each value that is there.

    Those within texts are counted out, unless one may be written by its number. A null has a colon and is not there: it leaves a
    doubt, and False.
    """
    spare = body.count(b":") - sum(len(row) - row.count(None) for row in rows)
    if spare > 0 and b"\\u003" not in body:
        spare -= sum(cell.count(":") for row in rows for cell in row if type(cell) is str)
    return spare == 0


def strict(body: bytes) -> Any:
    """Return the value of a JSON body; raises `Trouble` (400) where it is not strict JSON.

    That is: UTF-8, no name twice in an object, no NaN or infinity, at most 32 levels deep.
    """
    if not body.strip():
        raise Trouble(400, "The body is empty: send JSON")
    try:
        msgspec.json.decode(body)  # tells the byte, and refuses half of a surrogate pair, which the next line would take
        return bundle.parse_json(body, "body")
    except BundleError as error:
        raise Trouble(400, f"The body is not strict JSON: {error.problems[0].got}") from None
    except RecursionError:
        raise Trouble(400, f"The body is not strict JSON: more than {bundle.MAX_DEPTH} levels deep") from None
    except ValueError as error:
        raise Trouble(400, f"The body is not strict JSON: {error}") from None


def ignored(names: Sequence[str]) -> tuple[str, ...]:
    """Return the notes on fields that no model knows."""
    said = tuple(f"{name[:80]}: not a column of this model; ignored" for name in names[:_MOST_IGNORED])
    return said if len(names) <= _MOST_IGNORED else (*said, f"{len(names) - _MOST_IGNORED} more fields: ignored")


def allowed(column: Column) -> str:
    """Return what a column may hold, with the limits to which its numbers are cut, or the levels that training saw.

    >>> allowed(Column("radius", "number", low=-14.148, high=49.239))
    'a number or null; cut to -14.1 … 49.2'
    """
    match column.reads:
        case "boolean":
            return "true, false or null"
        case "date":
            return "a date such as 2024-02-29 or 2024-02-29T12:00:00Z, or null"
        case "image":
            return "a PNG, JPEG, GIF, BMP, TIFF, WebP or PPM file, in base64 where it stands in JSON"
        case "text":
            return f"a text of at most {texts.MOST:,} characters, or null"
        case "category":
            more = f" and {len(column.levels) - 6} more" if len(column.levels) > 6 else ""
            return f"a text or null; training saw {', '.join(level[:40] for level in column.levels[:6]) or 'none'}{more}"
    cut = f"; cut to {column.low:.3g} … {column.high:.3g}" if column.low < column.high else ""
    return f"a number or null{cut}"


# ---------------------------------------------------------------------------------------------------------- value by value


def _as_read(column: Column, cell: Any) -> Any:
    """Return a value as a row holds it, `_REFUSED` where the column cannot be that.

    What the data's own files say is taken: a number in their style, yes and no, dates as they write them.
    """
    match column.reads:
        case "number":
            if isinstance(cell, str):
                number = values.number(cell, column.style) if column.style else None
                return _REFUSED if number is None else number
            return _REFUSED if isinstance(cell, bool) else _finite(cell)
        case "boolean":
            truth = values.truth(cell) if isinstance(cell, str) else cell if isinstance(cell, bool | int | float) else None
            return bool(truth) if truth in (0, 1) else _REFUSED
        case "date":
            if isinstance(cell, bool) or not isinstance(cell, str | int):
                return _REFUSED
            return _REFUSED if values.moment_us(cell, column.style) is None else cell
        case "image":
            return cell if isinstance(cell, str) and _pictured(_decoded(cell), column) else _REFUSED
        case "text":
            return cell if isinstance(cell, str) and len(cell) <= texts.MOST else _REFUSED
    return _plain(cell)


def _finite(cell: Any) -> Any:
    try:
        number = float(cell)
    except (TypeError, OverflowError):
        return _REFUSED
    return number if math.isfinite(number) else _REFUSED


def _plain(cell: Any) -> Any:
    return cell if values.text_of(cell) is not None else _REFUSED


def _decoded(cell: str) -> bytes:
    try:
        return base64.b64decode(cell, validate=True)
    except ValueError:
        return b""


def _pictured(data: bytes, column: Column) -> bool:
    """Return whether bytes begin as an image file does, or are as many as the column's pixels."""
    shapes = [math.prod(shape) for shape in (column.shape, column.stored) if shape is not None]
    return images.kind_of(data) is not None or len(data) in shapes


def _kind(cell: Any) -> str:
    match cell:
        case dict():
            return "an object"
        case list():
            return "an array"
        case None:
            return "null"
    return _shown(cell)


def _shown(cell: Any) -> str:
    """Return a value for the reader of a problem, as JSON of at most 80 characters."""
    if isinstance(cell, dict | list):
        return _kind(cell)
    text = msgspec.json.encode(cell).decode()
    return text if len(text) <= 80 else f"{text[:77]}…"


def _refusal(problems: Sequence[Problem]) -> Trouble:
    n = len(problems)
    many = f"At least {n} fields are" if n >= MOST_PROBLEMS else "1 field is" if n == 1 else f"{n} fields are"
    return Trouble(422, f"{many} not as this case's data are", problems[:MOST_PROBLEMS])
