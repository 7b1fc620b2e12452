"""Text columns become numbers or dates where their values say so; everything that is lost on the way is counted.

The rules for one column, in this order: markers of a missing value become missing (`values.MISSING`); a column is numbers or
dates when at least 95% of its other values are, and the strays become missing, counted and named; texts of digits with a leading
zero or of more than 15 digits are codes and stay text; the rest stays text. How numbers or dates are written is kept in the
field's metadata, so that a served text is read in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from makegood.contracts import Finding
from makegood.data import values

if TYPE_CHECKING:
    from makegood.contracts import Bools, Ints

ENOUGH = 0.95  # share of the values that must be numbers (dates) for the column to be numbers (dates)
_HOPE = 0.2  # share of a sample of the levels below which a column is not tried in full


@dataclass(frozen=True)
class Typed:
    """A column with its type, how its values were written ("" when as usual), and what was found."""

    column: pa.ChunkedArray
    style: str = ""
    findings: tuple[Finding, ...] = ()


def as_trained(text: pa.ChunkedArray, plain: bool) -> pa.ChunkedArray:
    """Return a string column to be scored: float64 when it was plain numbers in training and is so here, else the texts.

    What was learnt of the column decides, not the few values at hand: `Transform.read` reads the texts as in training.

    >>> as_trained(pa.chunked_array([["1", "NA"]]), plain=True).to_pylist()
    [1.0, None]
    """
    if plain:
        try:
            return pc.cast(_marked(pc.utf8_trim_whitespace(text))[0], pa.float64())
        except pa.ArrowInvalid:
            pass
    return text


def _marked(text: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Return the texts with markers of a missing value as null, and those markers."""
    marked = pc.is_in(text, value_set=pa.array(sorted(values.MISSING)))
    return pc.if_else(marked, pa.scalar(None, pa.string()), text), text.filter(marked)


def typed(name: str, text: pa.ChunkedArray) -> Typed:
    """Return a string column as numbers (int64, float64), moments (timestamp[us], UTC) or trimmed text.

    >>> typed("x", pa.chunked_array([["1", "?", " 3"]])).column.to_pylist()
    [1, None, 3]
    """
    text, markers = _marked(pc.utf8_trim_whitespace(text))
    findings = _markers(name, markers)
    if text.null_count == len(text):
        return Typed(text, findings=findings)
    quick = _quick(text)
    if quick is not None:
        return Typed(quick, findings=findings)
    levels = _Levels.of(text)
    found = _dates(name, levels) or _numbers(name, levels) or Typed(text, findings=_mixed(name, levels))
    return Typed(found.column, found.style, findings + found.findings)


@dataclass(frozen=True)
class _Levels:
    """The distinct texts of a column, how often each occurs, and which of them each row holds."""

    texts: pa.Array
    counts: Ints
    rows: pa.Array  # int32 positions in `texts`, null where missing

    @classmethod
    def of(cls, text: pa.ChunkedArray) -> _Levels:
        encoded = text.combine_chunks().dictionary_encode()
        rows = encoded.indices
        counts = np.bincount(rows.drop_null().to_numpy(), minlength=len(encoded.dictionary))
        return cls(encoded.dictionary, counts, rows)

    def spread(self, per_level: pa.Array) -> pa.ChunkedArray:
        """Return the value of each row's level."""
        return pa.chunked_array([per_level.take(self.rows)])

    def sample(self) -> pa.Array:
        """Return a spread of the levels: a cheap look before the whole column is tried."""
        return self.texts.take(pa.array(np.unique(np.linspace(0, len(self.texts) - 1, 1000).astype(np.int64))))

    def present(self) -> Bools:
        """Return which levels are values, given that the column holds numbers or dates."""
        marked = pc.is_in(pc.utf8_lower(self.texts), value_set=pa.array(sorted(values.MISSING_NUMBER)))
        return ~np.asarray(marked.to_numpy(zero_copy_only=False), dtype=np.bool_)

    def share(self, ok: Bools, present: Bools) -> float:
        """Return the share of the present values (rows, not levels) that is `ok`."""
        total = self.counts[present].sum()
        return float(self.counts[ok & present].sum() / total) if total else 0.0


def _markers(name: str, marked: pa.ChunkedArray) -> tuple[Finding, ...]:
    counts = {c["values"]: c["counts"] for c in pc.value_counts(marked).to_pylist() if c["values"]}
    if not counts:
        return ()
    shown = ", ".join(f"{text!r} ({n})" for text, n in sorted(counts.items()))
    detail = f"In {name!r} these texts were read as missing values: {shown}."
    return (Finding("missing_marker", name, sum(counts.values()), detail, "treated as missing"),)


def _quick(text: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Return the column as int64 or float64 when every value is a plain number, else None."""
    for kind in (pa.int64(), pa.float64()):
        try:
            pc.cast(text.slice(0, 100), kind)  # a cast that fails costs as much as one that works: ask a few values first
            column = pc.cast(text, kind)
        except pa.ArrowInvalid:
            continue
        codes = pc.any(pc.match_substring_regex(text, values.CODE)).as_py()
        if codes or (kind == pa.int64() and _compact_dates(column)):
            return None
        return column
    return None


def _compact_dates(column: pa.ChunkedArray) -> bool:
    """Return whether whole numbers look like 20240131: all within 1900…2099, and enough of them to tell."""
    ends = pc.min_max(column).as_py()
    return bool(ends["min"] >= 19_000_101 and ends["max"] <= 20_991_231 and pc.count_distinct(column).as_py() >= 5)


def _dates(name: str, levels: _Levels) -> Typed | None:
    sample, present = levels.sample(), levels.present()
    fits = {style: _moments(levels.texts, style) for style in values.DATES if _valid(_moments(sample, style)).mean() >= _HOPE}
    if not fits:
        return None
    shares = {style: levels.share(_valid(us), present) for style, us in fits.items()}
    style = max(shares, key=lambda s: shares[s])  # the first of equals: day before month
    if shares[style] < (1.0 if style == "yearmonthday" else ENOUGH):
        return None
    findings = _strays(name, levels, _valid(fits[style]), present, "dates")
    if style == "day/month/year" and shares.get("month/day/year") == shares[style]:
        example = levels.texts[0].as_py()
        detail = f"Dates in {name!r} such as {example!r} were read as day/month/year: nothing in the column tells day from month."
        findings += (Finding("ambiguous_date", name, len(levels.rows), detail, "kept", "warning"),)
    return Typed(levels.spread(fits[style].cast(pa.timestamp("us"))), style, findings)


def _moments(texts: pa.Array, style: str) -> pa.Array:
    """Return the microseconds since 1970 (int64) of each text, null where it is no date in this style."""
    for zone in (None, "UTC") if style == "year-month-day" else ():
        try:  # Arrow's parser of ISO 8601 is some 50 times as fast as ours, and refuses the column at the first other text
            return pc.cast(texts, pa.timestamp("us", zone)).cast(pa.int64())
        except pa.ArrowInvalid:
            continue
    return pa.array([values.date_us(t, style) for t in texts.to_pylist()], pa.int64())


def _numbers(name: str, levels: _Levels) -> Typed | None:
    if _look(pc.replace_substring_regex(levels.sample(), values.AFFIX, ""), *values.STYLES).mean() < _HOPE:
        return None
    bare, present = pc.replace_substring_regex(levels.texts, values.AFFIX, ""), levels.present()
    if (_look(bare, *values.STYLES) & _matches(bare, values.CODE)).any():
        return None
    fits = {"plain": _look(bare, "plain"), "point": _look(bare, "plain", "point"), "comma": _look(bare, "comma")}
    shares = {style: levels.share(ok, present) for style, ok in fits.items()}
    style = max(shares, key=lambda s: shares[s])  # the first of equals: the plainest
    ok = fits[style]
    if shares[style] < ENOUGH:
        return None
    doubt = style == "point" and shares["comma"] == shares["point"] and bool(_matches(bare, ",").any())
    findings = _strays(name, levels, ok, present, "numbers") + _dress(name, levels, ok & ~_look(levels.texts, "plain"), style, doubt)
    if style != "plain":
        bare = pc.replace_substring(pc.replace_substring_regex(bare, values.STYLES[style][1], ""), ",", ".")
    numbers = pc.cast(pc.if_else(pa.array(ok), bare, pa.scalar(None, pa.string())), pa.float64())
    return Typed(levels.spread(numbers), "" if style == "plain" else style, findings)


def _dress(name: str, levels: _Levels, dressed: Bools, style: str, doubt: bool) -> tuple[Finding, ...]:
    """Return what numbers with separators, currency signs or percent signs were taken for."""
    if not dressed.any():
        return ()
    example = levels.texts.filter(pa.array(dressed))[0].as_py()
    detail = f"Numbers in {name!r} are written such as {example!r}, which was read as {values.number(example, style):.15g}"
    detail += "; nothing in the column tells whether the comma groups thousands or marks decimals." if doubt else "."
    return (Finding("number_format", name, int(levels.counts[dressed].sum()), detail, "kept", "warning" if doubt else "note"),)


def _strays(name: str, levels: _Levels, ok: Bools, present: Bools, kind: str) -> tuple[Finding, ...]:
    """Return what was made missing in a column of numbers or dates."""
    findings = []
    for mask, what, severity in ((~present, "missing_marker", "note"), (present & ~ok, "mixed_type", "warning")):
        if mask.any():
            n = int(levels.counts[mask].sum())
            detail = f"Column {name!r} holds {kind}; {n} other values were read as missing, such as {_examples(levels, mask)}."
            findings.append(Finding(what, name, n, detail, "treated as missing", severity))
    return tuple(findings)


def _mixed(name: str, levels: _Levels) -> tuple[Finding, ...]:
    """Return a warning about a text column of which a good part, yet not enough, is numbers."""
    ok = _look(levels.texts, "plain")
    n = int(levels.counts[ok].sum())
    if n < 0.5 * levels.counts.sum() or ok.all() or _matches(levels.texts, values.CODE).any():
        return ()
    detail = f"Column {name!r} mixes numbers ({n} values) with text such as {_examples(levels, ~ok)}; it was kept as text."
    return (Finding("mixed_type", name, int(levels.counts[~ok].sum()), detail, "kept", "warning"),)


def _examples(levels: _Levels, mask: Bools) -> str:
    order = np.argsort(-levels.counts[mask], kind="stable")[:3]
    return ", ".join(repr(t) for t in levels.texts.filter(pa.array(mask)).take(pa.array(order)).to_pylist())


def _look(texts: pa.Array, *styles: str) -> Bools:
    """Return which texts are numbers in one of the styles."""
    return np.asarray(np.logical_or.reduce([_matches(texts, values.STYLES[style][0]) for style in styles]), dtype=np.bool_)


def _matches(texts: pa.Array, pattern: str) -> Bools:
    return np.asarray(pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False), dtype=np.bool_)


def _valid(array: pa.Array) -> Bools:
    return np.asarray(array.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
