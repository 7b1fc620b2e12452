"""The section on variants: what was tried to make decisions cheaper, what each takes and pays, and why one was chosen."""

from __future__ import annotations

import math

from makegood.economics.variants import Optimised, Speed, Variant, front
from makegood.report import words
from makegood.report.charts import Lines, Series, Tone
from makegood.report.drawing import figure, table
from makegood.report.markup import Child, Markup, join, tag
from makegood.report.money import Section

_WORDS = {"start": "as trained", "chosen": "chosen", "accepted": "accepted", "rejected": "rejected"}
_TONES: dict[str, Tone] = {"start": "other", "chosen": "model", "accepted": "good", "rejected": "bad"}


def variants(found: Optimised | None) -> Section | None:
    """Return the variants with their chart, their figures and their reasons; None where none were tried."""
    if found is None:
        return None
    measured = [v for v in found.variants if v.measured is not None]
    compared = [v for v in measured if v.delta is not None]
    left_out = [v for v in found.variants if v.measured is None or v.delta is None]
    unit, why = found.terms.unit, found.why.removeprefix(f"{found.chosen.name}: ")
    limit = "" if found.terms.latency_ms is None else f", and 99 of 100 decisions may take {words.duration(found.terms.latency_ms / 1e3)}"
    body = [
        tag("p", tag("b", "Chosen: ", found.chosen.name, ". "), why[:1].upper(), why[1:], "."),
        tag(
            "p",
            f"A variant may lose {words.money_text(found.terms.tolerance, unit)} per decision{limit}. What each pays less what the "
            f"model pays as it was trained is compared on {words.number(found.rows)} decisions ({found.source}), "
            "by intervals that hold together for all variants; the figures of the other sections are those of the model as it was trained.",
        ),
        figure(_chart(compared, unit)) if len(compared) > 1 else None,
        _figures(measured, unit),
        _reasons(found, left_out),
        tag(
            "p",
            "Each is measured in turns with the others on one machine, a row at a time; the memory is that of a fresh process which only "
            "scores. Another machine takes more or less: compare the figures with each other.",
            class_="soft",
        ),
    ]
    return Section("variants", "Cheaper variants", join(body))


def _chart(compared: list[Variant], unit: str) -> Lines:
    """Return latency against value, and the line of those that no other beats in both."""
    series = []
    for status, label in _WORDS.items():
        points = tuple(_point(v) for v in compared if v.status == status)
        if points:
            series.append(Series(label, points, _TONES[status], sizes=(1,) * len(points)))
    best = front(compared)
    if len(best) > 1:
        series.append(Series("beaten by none in both", tuple(_point(v) for v in best), "ceiling", dashed=True))
    summary = "; ".join(f"{v.name}: {words.duration(x / 1e3)}, {words.money_text(y, unit)}" for v in compared for x, y in [_point(v)])
    title = "Latency of a decision, and its value less that of the model as trained"
    return Lines("pareto", title, f"{summary}.", "median of a decision, milliseconds", f"{unit} per decision", tuple(series))


def _point(variant: Variant) -> tuple[float, float]:
    assert variant.measured is not None
    assert variant.delta is not None
    return variant.measured.decide.p50_ms, variant.delta.value


def _figures(measured: list[Variant], unit: str) -> Markup:
    paid = any(v.measured is not None and v.measured.cost for v in measured)
    head = ["", "", "value less the start's", *(["cost"] if paid else []), "decision", "scorer", "rows a second", "memory", "size"]
    caption = "Median and, after the stroke, 99th percentile; rows a second in batches of 64"
    return table(head, [_row(v, unit, paid) for v in measured], caption=caption, words_in=(0, 1))


def _row(variant: Variant, unit: str, paid: bool) -> list[Child]:
    m = variant.measured
    assert m is not None
    delta = variant.delta
    told: Child = words.MISSING
    if variant.status != "start" and delta is not None:
        told = words.with_interval(delta) if math.isfinite(delta.low) else words.money(delta.value, unit)
    head: list[Child] = [variant.name, _WORDS.get(variant.status, variant.status), told, *([words.cost(m.cost, unit)] if paid else [])]
    return [*head, _speed(m.decide), _speed(m.score), words.figure(m.rows_per_s, 0), words.memory(m.peak_bytes), _size(m.bytes)]


def _speed(speed: Speed) -> str:
    return f"{words.duration(speed.p50_ms / 1e3)} / {words.duration(speed.p99_ms / 1e3)}"


def _size(size: int) -> str:
    """Return a size in bytes.

    >>> _size(7375), _size(12_345_678)
    ('7.4 kB', '12.3 MB')
    """
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def _reasons(found: Optimised, left_out: list[Variant]) -> Markup | None:
    """Return why the others were not: those rejected first, then those that do not suit, then those not tried."""
    rejected = [v for v in found.variants if v.status == "rejected" and v not in left_out]
    told = [*rejected, *(v for status in ("rejected", "unsuited", "not tried") for v in left_out if v.status == status)]
    if not told:
        return None
    rows: list[list[Child]] = [[v.name, {"unsuited": "does not suit"}.get(v.status, v.status), v.reason] for v in told]
    return table(["variant", "", "why"], rows, caption="What was not taken, and why", words_in=(0, 1, 2))
