"""The section on ratings: how well the model's ranks agree with the true ones, beside how well people agree with each other."""

from __future__ import annotations

from makegood.contracts import Evaluation, Rated
from makegood.report import words
from makegood.report.charts import Dots, Mark
from makegood.report.drawing import figure, table
from makegood.report.markup import join, tag
from makegood.report.money import Section, mark


def ratings(evaluation: Evaluation, scale: str) -> Section | None:
    """Return kappa and the mean difference by level of the scale and by protected group; None where nothing is rated."""
    if not evaluation.ratings:
        return None
    every, *groups = evaluation.ratings
    raters = every.raters
    lead = f"Quadratic weighted kappa is {every.kappa.value:.3f}, taken within each level of “{scale}” and averaged, never pooled"
    beside = "." if raters is None else f"; between the two raters who agree least it is {raters.value:.3f}."
    marks = tuple(m for r in groups for m in _marks(r))
    head = ["rows of", "rows", "kappa", *(["kappa between raters"] if raters is not None else []), "mean difference"]
    rows = [
        [
            _name(r) or "all, averaged",
            words.whole(r.n),
            words.bare(r.kappa),
            *([words.bare(r.raters)] if r.raters is not None else []),
            words.bare(r.difference),
        ]
        for r in evaluation.ratings
    ]
    body = [
        tag("p", lead, beside),
        figure(Dots("ratings", "Weighted kappa by group; dashed: the mean", _spoken(marks), "", marks, every.kappa.value)),
        table(head, rows, caption="Ranks given against true ranks on unseen rows; a difference above 0 is lenient"),
        tag(
            "p",
            "Ranks are cut from the expected rank where kappa was highest on validation rows; actions are chosen by money alone.",
            class_="soft",
        ),
    ]
    return Section("ratings", "Ratings", join(body))


def _marks(rated: Rated) -> list[Mark]:
    """Return the rows of the chart for a group: the model, and the raters where there are any."""
    of_raters = [] if rated.raters is None else [mark(f"{_name(rated)}, raters", rated.raters)]
    return [mark(_name(rated), rated.kappa, "model"), *of_raters]


def _spoken(marks: tuple[Mark, ...]) -> str:
    return "; ".join(f"{m.label}: {m.text}" for m in marks) + "."


def _name(rated: Rated) -> str:
    return f"{rated.column}: {rated.level}" if rated.column else ""
