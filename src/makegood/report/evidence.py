"""The sections of evidence: what the model does, what drives it, groups, metrics, data, and how it was made."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from makegood.contracts import Compute, Evaluation, Finding, Slice, Usage
from makegood.report import words
from makegood.report.charts import Bars, Dots, Mark
from makegood.report.drawing import figure, table
from makegood.report.markup import Child, Markup, join, tag
from makegood.report.money import Section, mark

if TYPE_CHECKING:
    from makegood.trust.fairness import Group

_MOST_BARS, _MOST_SLICES, _MOST_ACTIONS = 20, 24, 4
_SPLITS = {
    "time": "Out of time: trained on earlier rows, measured on later ones, as it will be in use.",
    "declared": "As declared: a column of the data says which rows are held out.",
    "group": "By group: no group has rows on both sides.",
    "stratified": "Stratified: rows drawn at random, with the same shares of the outcome on both sides.",
    "crossfit": "Cross-fitted: every row was measured once, by a model made without it.",
}
_FACTS = {"n": "rows", "hash": "hash of the test rows", "purged": "rows purged, outcome not yet known"}
_SEVERITY = ("leak", "warning", "note")


# ---------------------------------------------------------------------------------------------------------- what it does


def actions(evaluation: Evaluation, decision: Mapping[str, Any], outcome: str) -> Section:
    """Return the share of each action, the limits on them, and actions against outcomes."""
    ordered = sorted(evaluation.shares.items(), key=lambda item: -item[1])
    marks = tuple(Mark(name, share, text=words.percent(share), tone="model") for name, share in ordered[:_MOST_BARS])
    summary = "; ".join(f"{m.label}: {m.text}" for m in marks) + "."
    rest = len(ordered) - len(marks)
    title = f"Share of each action{f', the {_MOST_BARS} most frequent of {len(ordered)}' if rest else ''}"
    body = [
        _limits(decision.get("limits", {})),
        _unseen([name for name, action in decision.get("actions", {}).items() if not action.get("reveals", True)]),
        figure(Bars("actions-chart", title, summary, "", marks, share=True)),
        _confusion(evaluation.confusion, outcome) if evaluation.confusion else None,
    ]
    return Section("actions", "What it does", join(body))


def _limits(limits: Mapping[str, Mapping[str, Any]]) -> Markup | None:
    said = [tag("li", tag("b", name), ": ", words.listed(_limit(spec))) for name, spec in limits.items()]
    return join(tag("p", "It keeps these limits:"), tag("ul", said)) if said else None


def _limit(spec: Mapping[str, Any]) -> list[str]:
    per = f" per {words.number(float(spec['per']))} decisions" if spec.get("per") else ""
    said = []
    if spec.get("max_share") is not None:
        said.append(f"at most {100 * float(spec['max_share']):g}% of the decisions")
    if spec.get("max_count") is not None:
        said.append(f"at most {words.number(float(spec['max_count']))}{per}")
    if spec.get("max_budget") is not None:
        said.append(f"a budget of {words.number(float(spec['max_budget']), 2)}{per}, each costing {spec['cost']}")
    return said


def _unseen(names: Sequence[str]) -> Markup | None:
    if not names:
        return None
    after = words.listed([f"“{n}”" for n in names], "or")
    return tag("p", f"The outcome is not seen after {after}: the figures hold for rows like those whose outcome is known.")


def _confusion(confusion: Mapping[str, Mapping[str, int]], outcome: str) -> Markup:
    outcomes = list(dict.fromkeys(o for row in confusion.values() for o in row))
    total: Counter[str] = Counter()
    for row in confusion.values():
        total.update(row)
    lines = [_counts(action, row, outcomes) for action, row in confusion.items()]
    head = ["action", *(f"{outcome}: {o}" for o in outcomes), "all"]
    return table(head, [*lines, _counts("all", total, outcomes)], caption="Rows by action and outcome, with the share of the action’s rows")


def _counts(action: str, row: Mapping[str, int], outcomes: Sequence[str]) -> list[Child]:
    of = sum(row.values())
    counts = [row.get(o, 0) for o in outcomes]
    cells = [join(words.whole(n), tag("span", words.percent(n / of), class_="line soft") if of else None) for n in counts]
    return [action, *cells, words.whole(of)]


def drivers(evaluation: Evaluation) -> Section | None:
    """Return what moves the decisions, in money; None where no reasons were computed."""
    if not evaluation.drivers:
        return None
    ordered = sorted(evaluation.drivers, key=lambda d: -d[1])
    n = words.digits(evaluation.unit, *(money for _, money in ordered))
    marks = tuple(Mark(column, money, text=words.number(money, n), tone="model") for column, money in ordered[:_MOST_BARS])
    summary = "; ".join(f"{m.label}: {m.text}" for m in marks) + f". In {evaluation.unit} per decision."
    of = f", the {_MOST_BARS} strongest of {len(ordered)} columns" if len(ordered) > _MOST_BARS else ""
    lead = tag(
        "p",
        "How much each column moves the chosen action’s margin over the next best, averaged over rows without its sign. "
        "This says what the model uses, not what causes the outcome.",
    )
    chart = Bars("drivers-chart", f"Mean effect on the margin, {evaluation.unit} per decision{of}", summary, evaluation.unit, marks)
    return Section("drivers", "What drives it", join(lead, figure(chart)))


# ----------------------------------------------------------------------------------------------------------------- groups


def groups(evaluation: Evaluation, fairness: Sequence[Group], protected: Sequence[str]) -> Section | None:
    """Return what each group of rows earns and how it is treated; None where there are no groups."""
    if not evaluation.slices and not fairness:
        return None
    names = words.listed(f"“{p}”" for p in protected)
    body = [
        tag("p", f"Protected columns, never given as a reason: {names}. Differences are shown, not judged.") if protected else None,
        _fairness(fairness) if fairness else None,
        figure(_slice_chart(evaluation)) if evaluation.slices else None,
        _slice_table(evaluation.slices, evaluation.unit) if evaluation.slices else None,
    ]
    return Section("groups", "Groups", join(body))


def _slice_name(part: Slice) -> str:
    return f"{part.column}: {part.level}"


def _slice_chart(evaluation: Evaluation) -> Dots:
    largest = sorted(evaluation.slices, key=lambda s: -s.n)[:_MOST_SLICES]
    shown = [s for s in evaluation.slices if s in largest]
    of = f", the {_MOST_SLICES} largest of {len(evaluation.slices)} groups" if len(shown) < len(evaluation.slices) else ""
    marks = tuple(mark(_slice_name(s), s.value, "bad" if s.value.high < 0 else "model") for s in shown)
    summary = "; ".join(f"{m.label}: {m.text}" for m in marks) + f". All rows: {words.short(evaluation.value)}."
    title = f"Value per decision by group, {evaluation.unit}; dashed: all rows{of}"
    return Dots("slices", title, summary, evaluation.unit, marks, evaluation.value.value)


def _slice_table(slices: Sequence[Slice], unit: str) -> Markup:
    names = list(dict.fromkeys(a for s in slices for a in s.shares))
    names = names if len(names) <= _MOST_ACTIONS else []
    rows = [
        [
            join(_slice_name(s), tag("span", "protected", class_="line soft") if s.protected else None),
            words.whole(s.n),
            words.bare(s.value),
            words.bare(s.gap),
            *(words.percent(s.shares.get(a, 0.0)) for a in names),
        ]
        for s in slices
    ]
    head = ["group", "rows", "value", "promised − realised", *(f"share: {a}" for a in names)]
    return table(head, rows, caption=f"Every group: what it earns, whether its promises hold, how it is treated; {unit} per decision")


def _fairness(fairness: Sequence[Group]) -> Markup:
    """Return the share that gets the action in question by protected group, and how value and error rates compare."""
    selected, unit = fairness[0].selected, fairness[0].value.unit
    names = [f"{g.column}: {g.level}" for g in fairness]
    marks = tuple(
        replace(mark(name, g.selection, "other" if g.reference else "model"), text=words.percent(g.selection.value))
        for name, g in zip(names, fairness, strict=True)
    )
    summary = "; ".join(f"{m.label}: {m.text}" for m in marks) + "."
    chart = Dots("fairness", f"Share of “{selected}” by protected group; grey: the column’s largest group", summary, "", marks, share=True)
    head = ["group", "rows", f"value, {unit}", f"share: {selected}", "ratio", "difference"]
    rates = [f"{selected}, of positives", f"{selected}, of negatives"] if any(g.tpr for g in fairness) else []
    rows = [
        [
            join(name, tag("span", "reference", class_="line soft") if g.reference else None),
            words.whole(g.n),
            words.bare(g.value),
            words.rate(g.selection),
            *((words.MISSING, words.MISSING) if g.reference else (words.bare(g.ratio), words.rate(g.difference))),
            *([words.rate(g.tpr), words.rate(g.fpr)] if rates else []),
        ]
        for name, g in zip(names, fairness, strict=True)
    ]
    caption = "Protected groups; ratios and differences of shares are against the column’s largest group"
    return join(figure(chart), table([*head, *rates], rows, caption=caption))


# ---------------------------------------------------------------------------------------------------------------- metrics


def metrics(evaluation: Evaluation) -> Section | None:
    """Return the metrics with their intervals; None where there are none."""
    if not evaluation.metrics:
        return None
    rows = []
    for name, estimate in evaluation.metrics.items():
        known = words.metric(name)
        about = join(known.meaning, tag("span", f"{known.better} is better", class_="line soft") if known.better else None)
        rows.append([known.label, words.with_interval(estimate), about])
    lead = tag("p", "Scores help to compare models; the money above decides.")
    all_of_them = table(["metric", "value", "what it says"], rows, caption="Metrics on unseen rows", words_in=(0, 2))
    return Section("metrics", "Metrics", join(lead, all_of_them))


# ------------------------------------------------------------------------------------------------------------------- data


def data(evaluation: Evaluation, findings: Sequence[Finding], split: Mapping[str, Any]) -> Section:
    """Return everything that the data showed and what was done about it, and how rows were held out."""
    method = str(split.get("method", ""))
    held_out = {**{f"rows, {k}": v for k, v in evaluation.n.items()}, **{_FACTS.get(k, k): v for k, v in split.items()}}
    body = [
        _findings(findings) if findings else tag("p", "The data showed nothing unusual."),
        tag("h3", "How rows were held out"),
        tag("p", _SPLITS[method]) if method in _SPLITS else None,
        facts(held_out),
    ]
    return Section("data", "What the data showed", join(body))


def _findings(findings: Sequence[Finding]) -> Markup:
    ordered = sorted(findings, key=lambda f: _SEVERITY.index(f.severity) if f.severity in _SEVERITY else len(_SEVERITY))
    rows = [
        [
            tag("span", words.plain(f.kind), class_=f"finding {f.severity}"),
            words.column(f.column) if f.column else "rows",
            words.whole(f.count),
            f.detail,
            f.action,
        ]
        for f in ordered
    ]
    head = ["finding", "column", "count", "what was found", "what was done"]
    return table(head, rows, caption="Findings, suspected leaks first", words_in=(0, 1, 3, 4))


def facts(values: Mapping[str, Any]) -> Markup:
    """Return names with their values as a description list; empty values are left out."""
    known = [(words.plain(str(k)), words.anything(v)) for k, v in values.items() if v not in (None, "")]
    return tag("dl", [[tag("dt", name), tag("dd", value)] for name, value in known], class_="facts")


# ----------------------------------------------------------------------------------------------------------- how it was made


def candidates(evaluation: Evaluation) -> Markup | None:
    """Return the models that were tried, with their weights in the ensemble; None where none are recorded."""
    rows = evaluation.candidates
    if not rows:
        return None
    names = list(dict.fromkeys(k for row in rows for k in row))
    text = [i for i, k in enumerate(names) if all(isinstance(row.get(k), str | None) for row in rows)]
    cells = [[_candidate(k, row.get(k), evaluation.unit) for k in names] for row in rows]
    head = [f"value, {evaluation.unit}" if k == "value" else words.plain(k) for k in names]
    net = ", where values are before computing" if evaluation.cost else ""
    return table(head, cells, caption=f"Candidates, chosen on validation rows{net}", words_in=text)


def _candidate(key: str, value: Any, unit: str) -> Child:
    if not isinstance(value, int | float) or math.isnan(value):
        return words.anything(value)
    if key == "weight":
        return words.percent(float(value))
    if key == "value":
        return words.figure(value, words.digits(unit, value))
    return words.anything(float(value))


def computing(used: Compute, unit: str) -> Markup:
    """Return what training, each candidate and one decision took, with its money where there are prices."""
    paid = used.per_decision > 0
    lines = [
        _took("training, all rounds", used.training, unit, paid),
        *(_took(f"{name}, last round", took, unit, paid) for name, took in used.candidates.items()),
        _took("one decision", used.decision, unit, paid),
    ]
    head = ["", "time", "CPU", "GPU", "most memory", *(["money"] if paid else [])]
    caption = f"Computing, measured in this run; a decision is the median of {used.rows:,}, taken one at a time"
    note = tag(
        "p",
        "CPU time is of all threads, and of child processes. Memory is the most that the process held meanwhile, whatever for: one that "
        "only decides holds less. Another run, or another machine, takes more or less: these figures have no interval. ",
        None if paid else ["No price is declared, so nothing is taken off: ", tag("code", "compute"), " in a case declares them."],
        class_="soft",
    )
    return join(table(head, lines, caption=caption), note)


def _took(name: str, used: Usage, unit: str, paid: bool) -> list[Child]:
    seconds = (used.wall_s, used.cpu_s, used.gpu_s)
    cells: list[Child] = [name, *(words.duration(s) if s else words.MISSING for s in seconds), words.memory(used.peak_bytes)]
    return [*cells, words.cost(used.money, unit)] if paid else cells


def making(
    evaluation: Evaluation, seconds: Mapping[str, float], hashes: Mapping[str, str], versions: Mapping[str, str], case_text: str
) -> Section:
    """Return how the model was made: candidates, computing, calibrator, time, versions, hashes, and the case file verbatim."""
    calibrator = evaluation.calibrator
    took = {k: words.duration(v) for k, v in seconds.items()}
    if len(took) > 1:
        took["all"] = words.duration(sum(seconds.values()))
    lists = (("Time", took), ("Versions", versions), ("Hashes", hashes))
    body = [
        candidates(evaluation),
        [tag("h3", "What computing took"), computing(evaluation.compute, evaluation.unit)] if evaluation.compute else None,
        tag("p", "Calibrator, chosen by cross-validated loss: ", tag("b", calibrator), ".") if calibrator else None,
        tag("div", [tag("div", tag("h3", title), facts(values)) for title, values in lists if values], class_="pair"),
        [tag("h3", "The case file"), tag("pre", tag("code", case_text))] if case_text else None,
    ]
    return Section("making", "How it was made", join(body))
