"""The sections on why the money changed: its causes, and the columns that moved, by the money at stake."""

from __future__ import annotations

from makegood.monitoring.review import CAUSES, Attribution, Moved, Review
from makegood.report import dates, words
from makegood.report.charts import Mark, Steps, Tone
from makegood.report.drawing import figure, table
from makegood.report.markup import Markup, join, tag
from makegood.report.money import Section, mark

MEANINGS = {
    "mix": "Mix of rows",
    "world": "The world: outcomes of like rows",
    "model": "The model",
    "policy": "The policy",
    "terms": "Terms: prices and payoffs",
    "operations": "Operations: done is not decided",
}
_MOST_MOVED = 15


def attribution(review: Review) -> Section:
    """Return the waterfall from one period's value to the other's, or what it waits for."""
    found = review.attribution
    if found is None:
        text = "Two periods with outcomes are needed before a change can be taken apart: there is none yet."
        return Section("causes", "Why the money changed", tag("p", text))
    before, after = (f"{dates.day(a)} – {dates.day(b)}" for a, b in (found.before, found.after))
    lead = tag("p", found.words, tag("span", f" {before} against {after}.", class_="soft"))
    note = tag(
        "p",
        "Each cause is its Shapley value over all six; they and what is unexplained add up to the change. A thin line is an interval.",
        class_="soft",
    )
    return Section("causes", "Why the money changed", join(lead, figure(_waterfall(found, review.unit)), note))


def _waterfall(found: Attribution, unit: str) -> Steps:
    marks = [mark(MEANINGS[c], found.causes[c], _way(found.causes[c].value)) for c in CAUSES if c in found.causes]
    marks.append(mark("Unexplained", found.unexplained, "other"))
    total: Mark = mark("Change", found.change, "model")
    summary = "; ".join(f"{m.label}: {m.text}" for m in (*marks, total)) + f". In {unit} per decision."
    return Steps("waterfall", f"What the change is made of, {unit} per decision", summary, unit, tuple(marks), total)


def _way(value: float) -> Tone:
    return "good" if value > 0 else "bad" if value < 0 else "other"


def drift(review: Review) -> Section:
    """Return the columns that moved, by the money that their move explains, or that none did."""
    if not review.drift:
        text = "No column has moved from the rows that the model learnt from, or none has been compared yet."
        return Section("drift", "What moved", tag("p", text))
    ranked = sorted(review.drift, key=lambda m: -abs(m.stake.value))
    rows = [[_column(m), m.kind, words.bare(m.stake), words.percent(m.distance), m.detail] for m in ranked[:_MOST_MOVED]]
    rest = len(ranked) - len(rows)
    caption = f"Moves by the money at stake, {review.unit} per decision{f': {len(rows)} of {len(ranked)}' if rest else ''}"
    lead = tag(
        "p",
        "Ranked by money, not by significance: the stake is how much the mean promise changes because the column did. The distance, from "
        "0% to 100%, is how far its distribution lies from that of the rows that the model learnt from.",
    )
    return Section(
        "drift", "What moved", join(lead, table(["column", "kind", "at stake", "distance", ""], rows, caption=caption, words_in=(0, 1, 4)))
    )


def _column(moved: Moved) -> Markup:
    return words.column(moved.column) if moved.column else join("the prediction")
