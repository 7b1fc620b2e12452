"""A review and a loop as plain data for machines, and as a few lines for a terminal."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from html import unescape
from typing import Any

from makegood.contracts import Estimate
from makegood.monitoring.review import CAUSES, Review
from makegood.report import dates, keeping, words
from makegood.report.loop_page import result
from makegood.report.looped import Looping
from makegood.report.markup import Markup, printable
from makegood.report.review_page import VERDICTS, headline

_WIDTH = 100
_TIMES = frozenset(("at", "since", "start", "end"))
_MOST_LINES, _MOST_LISTED = 25, 3


# --------------------------------------------------------------------------------------------------------------- machines


def review_json(review: Review) -> dict[str, Any]:
    """Return a review as plain data: estimates as objects, times in ISO 8601, None for what is not finite; without the paths of charts."""
    found = _plain(review)
    challengers = found.pop("challenges")
    if review.attribution is not None:
        causes = {c: review.attribution.causes[c].to_json() for c in CAUSES if c in review.attribution.causes}
        periods = {k: [dates.exact(t) for t in getattr(review.attribution, k)] for k in ("before", "after")}
        found["attribution"] = {**{k: v for k, v in found["attribution"].items() if k != "causes"}, **causes, **periods}
    return {**found, "challengers": challengers}


def loop_json(loop: Looping, report: str) -> dict[str, Any]:
    """Return a loop as plain data; `report` is where its page lies."""
    found = _plain(loop)
    reviews = [{"at": dates.exact(r.at), "verdict": r.verdict, "why": r.why, "model": r.model} for r in loop.reviews]
    by_kind = {name: [dates.exact(e.at) for e in loop.events if e.kind == kind] for name, kind in _EVENT_LISTS.items()}
    return {**found, **by_kind, "reviews": reviews, "report": report}


_EVENT_LISTS = {"alarms": "alarm", "retrained": "retrained", "promoted": "promoted"}


def _plain(value: Any) -> Any:
    """Return a value as plain data; a path of points is left out, since it is for drawing."""
    match value:
        case Estimate():
            return value.to_json()
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(k): _plain(v) for k, v in value.items()}
        case tuple() | list():
            return [_plain(v) for v in value]
    if not is_dataclass(value):
        return value
    shown = {f.name: getattr(value, f.name) for f in fields(value) if f.name != "path"}
    return {k: dates.exact(v) if k in _TIMES and v is not None else _plain(v) for k, v in shown.items()}


# --------------------------------------------------------------------------------------------------------------- terminal


def review_text(review: Review) -> str:
    """Return a review as at most 25 lines for a terminal, its verdict first."""
    word, _ = VERDICTS[review.verdict]
    lines = [
        *_wrapped(f"{word.upper()} · {review.case} · model {keeping.short(review.model)} · {dates.moment(review.at)}", 1),
        *_wrapped(_unmarked(headline(review)), 2),
        *_wrapped(review.why, 3),
        "",
        *_block(_entries(review)),
    ]
    closing = _notes(review.replayed, review.injected)
    closing += _wrapped(f"Next: {review.next}", 2) if review.next else []
    return _page(lines, closing)


def _entries(review: Review) -> Iterable[tuple[str, str]]:
    """Yield the entries between verdict and next step, the weightiest first."""
    unit, test = review.unit, review.alarm
    overridden = f"; {review.overridden:,} were overridden" if review.overridden else ""
    yield "decisions", f"{review.n:,}, of which {review.matured:,} are due{overridden}"
    if review.n:
        yield "promised", f"{words.short(review.promised)} {unit} per decision"
    if review.matured:
        yield "earned", f"{words.short(review.realised)} {unit}"
        yield "gap", f"{words.short(review.gap)} {unit}" + (", over those whose outcome came" if keeping.partly(review) else "")
    since = f", since {dates.moment(test.since)}" if test.since is not None else ""
    yield "alarm", f"{'raised' if test.raised else 'quiet'}{since}: evidence {test.evidence:,.3g} of {test.limit:,.0f}"
    if test.missing is not None and test.missing.raised:
        yield "missing", test.missing.why
    for c in review.challenges[:_MOST_LISTED]:
        yield (
            "challenger",
            f"{keeping.short(c.model)}: {c.decision}, gain {words.short(c.gain)} {unit}, evidence {c.evidence:,.3g} of {c.limit:,.0f}",
        )
    if review.attribution is not None:
        yield "causes", review.attribution.words
    for m in sorted(review.drift, key=lambda m: -abs(m.stake.value))[:_MOST_LISTED]:
        yield "moved", f"{m.column or 'the prediction'}: {words.short(m.stake)} {unit} at stake"
    for w in review.worths[:_MOST_LISTED]:
        yield "worth", f"{keeping.short(w.model)}: {f'{words.short(w.value)} {unit}' if w.value else f'refused: {w.why}'}"
    if review.ratio is not None and not review.ratio.ok:
        yield "chances", f"not those by which was acted (p {review.ratio.p:.3g})"


def loop_text(loop: Looping) -> str:
    """Return a loop as at most 25 lines for a terminal, what it gained first."""
    lines = [
        *_wrapped(f"{loop.case} · {loop.decisions:,} decisions · {dates.day(loop.start)} to {dates.day(loop.end)}", 1),
        *_wrapped(_unmarked(result(loop)), 2),
        "",
        *_block((arm, f"{words.short(money)} {loop.unit}") for arm, money in loop.money.items()),
        *_block((f"over {arm}", f"{words.short(gain)} {loop.unit}") for arm, gain in loop.gains.items()),
        "",
        *_block((e.kind, f"{dates.moment(e.at)}  {e.words}") for e in loop.events),
    ]
    return _page(lines, _notes(loop.replayed, loop.injected))


def _notes(replayed: bool, injected: str) -> list[str]:
    return [
        *(["Replayed: a replay of past data, not decisions that were taken."] if replayed else []),
        *(_wrapped(f"Injected: {injected}", 2) if injected else []),
    ]


def _page(lines: list[str], closing: list[str]) -> str:
    """Return the lines and their closing, held to 25: what is cut is said."""
    room = _MOST_LINES - len(closing)
    if len(lines) > room:
        lines = [*lines[: room - 1], f"… {len(lines) - room + 1} more lines are on the page"]
    return "\n".join(map(printable, [*lines, *closing])) + "\n"


def _block(entries: Iterable[tuple[str, str]]) -> list[str]:
    """Return entries as names and texts in two columns, each of one line or two."""
    indent = " " * 14
    return [
        line
        for name, text in entries
        for line in textwrap.wrap(f"{name:<13} {text}", _WIDTH, max_lines=2, placeholder=" …", subsequent_indent=indent)
    ]


def _wrapped(text: str, most: int) -> list[str]:
    return textwrap.wrap(text, _WIDTH, max_lines=most, placeholder=" …", break_on_hyphens=False)


def _unmarked(markup: Markup) -> str:
    """Return what markup reads as."""
    return unescape(re.sub("<[^>]*>", "", markup))
