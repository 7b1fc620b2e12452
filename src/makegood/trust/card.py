"""The model card: one Markdown page that goes with a bundle, for whoever has to answer for it.

The sections are those of Mitchell et al. (2019), "Model Cards for Model Reporting", section 4, with money as the first measure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from makegood.case import Case, Limit
from makegood.contracts import Estimate, Evaluation, Finding, Splits
from makegood.trust.fairness import Group


def card(
    case: Case,
    evaluation: Evaluation,
    splits: Splits,
    findings: Sequence[Finding] = (),
    groups: Sequence[Group] = (),
    versions: Mapping[str, str] | None = None,
) -> str:
    """Return the model card as Markdown.

    `findings` are what the data showed, `groups` the fairness table, `versions` what made the model ("makegood" → "0.1.0", a
    date, a host). Text of the case and the data is escaped: no name can break a table.
    """
    sections = (
        ("", _head(case, evaluation)),
        ("Model details", _details(case, evaluation, versions or {})),
        ("Intended use", _use(case)),
        ("Value", _value(evaluation)),
        ("How far the payoffs may be off", _ranges(evaluation)),
        ("Metrics", _metrics(evaluation)),
        ("Factors", _factors(evaluation)),
        ("Data", _data(case, evaluation, splits)),
        ("What the data showed", _findings(findings)),
        ("Ethical considerations", _ethics(case, groups)),
        ("Caveats", _caveats(case, evaluation)),
    )
    return "\n\n".join(f"## {title}\n\n{body}" if title else body for title, body in sections if body) + "\n"


def _head(case: Case, e: Evaluation) -> str:
    about = f"{_text(case.about)}\n\n" if case.about else ""
    return f"# {_text(case.case)}: model card\n\n{about}**Verdict: {e.verdict}.** {_text(e.why)}"


def _details(case: Case, e: Evaluation, versions: Mapping[str, str]) -> str:
    made = [(_text(name), _text(version)) for name, version in versions.items()]
    made += [("training budget", f"{case.train.budget:g} s"), ("seed", str(case.train.seed))]
    made += [("calibration", _text(e.calibrator))] if e.calibrator else []
    keys = list(dict.fromkeys(k for c in e.candidates for k in c))
    rows = ([_plain(c.get(k, "")) for k in keys] for c in e.candidates)
    tried = f"\n\nModels tried:\n\n{_table([_text(k) for k in keys], rows)}" if e.candidates else ""
    return _table(("", ""), made) + tried


def _use(case: Case) -> str:
    rows = []
    for name, action in case.decision.actions.items():
        cells = {"any": action.payoff} if isinstance(action.payoff, str) else action.payoff
        quantity = f" from {action.quantity.min:g} to {action.quantity.max:g} by {action.quantity.step:g}" if action.quantity else ""
        rows += [(_text(name) + quantity, _text(outcome), _code(payoff)) for outcome, payoff in cells.items()]
    lines = [
        f"One of these actions is chosen for each row, by its expected payoff in {_text(case.decision.unit)}:",
        _table(("action", "outcome", "payoff"), rows),
    ]
    if case.decision.today:
        lines.append(f"Done today: {_code(case.decision.today)}.")
    lines += [f"Limit on {_code(name)}: {_limit(limit)}." for name, limit in case.decision.limits.items()]
    lines.append(
        "The model is meant for rows that come about as those it was made from did, at the moment of the decision, with the same columns. "
        "It is not meant for other decisions, other payoffs or other populations."
    )
    if case.decision.high_stakes:
        lines.append("The stakes are declared high: nothing is explored on live decisions, and a person approves each new version.")
    return "\n\n".join(lines)


def _limit(limit: Limit) -> str:
    parts = [
        f"at most {limit.max_share:.0%} of decisions" if limit.max_share is not None else "",
        f"at most {limit.max_count:g} in {limit.per:g} decisions" if limit.max_count is not None else "",
        f"at most {limit.max_budget:g} in {limit.per:g} decisions, each costing {_code(limit.cost or '')}"
        if limit.max_budget is not None
        else "",
    ]
    return "; ".join(p for p in parts if p)


def _value(e: Evaluation) -> str:
    rows = [("this model, after computing" if e.cost else "this model", e.value)]
    rows += [("promised by it", e.promised), ("promised less realised", e.gap)]
    rows += [(name, x) for name, x in e.baselines.items()]
    rows += [(f"gain over {name}", x) for name, x in e.gains.items()]
    rows += [("knowing the outcome (a ceiling)", e.oracle)]
    shares = ", ".join(f"{_text(a)} {share:.1%}" for a, share in e.shares.items())
    net = f"The model's value and gains are after {_number(e.cost)} {_text(e.unit)} per decision for computing; promises are before it."
    said = f"{net}\n\n" if e.cost else ""
    return f"{_estimates(rows, f'{e.unit} per decision')}\n\n{said}{_guarantee(e)}What it does: {shares}."


def _guarantee(e: Evaluation) -> str:
    """Return what is guaranteed of the decisions, as a paragraph; nothing where there are no prediction sets."""
    if (found := e.guarantee) is None:
        return ""
    by = "by the payoff that is guaranteed" if found.averse else "by expected payoff"
    rows = [(f"guaranteed on average, {e.unit}", found.amount), ("share of decisions that paid less", found.broken)]
    said = f"Actions are chosen {by}. A guarantee holds with probability {found.level:.4g}, over all decisions."
    return f"{_estimates(rows)}\n\n{said}\n\n"


def _ranges(e: Evaluation) -> str:
    rows = [
        (
            f"{_text(r.action)}{f' / {_text(r.outcome)}' if r.outcome else ''}",
            _code(r.expression),
            _number(r.mean),
            f"{_number(r.verdict_low)} to {_number(r.verdict_high)}",
            "never" if math.isnan(r.break_even) else f"× {_number(r.break_even)}",
            f"{_number(r.actions_low)} to {_number(r.actions_high)}",
        )
        for r in e.payoff_ranges
    ]
    head = ("payoff", "declared", f"mean, {_text(e.unit)}", "verdict stands for factors", "gain is nought at", "actions stand for factors")
    return _table(head, rows) if rows else ""


def _metrics(e: Evaluation) -> str:
    parts = [_estimates(e.metrics.items())] if e.metrics else []
    if e.confusion:
        outcomes = list(dict.fromkeys(o for by in e.confusion.values() for o in by))
        rows = ((_text(a), *(str(by.get(o, 0)) for o in outcomes)) for a, by in e.confusion.items())
        parts.append("Rows by what was chosen and what turned out:\n\n" + _table(("action", *map(_text, outcomes)), rows))
    return "\n\n".join(parts)


def _factors(e: Evaluation) -> str:
    parts = []
    if e.drivers:
        rows = ((_text(column), _number(money)) for column, money in e.drivers)
        parts.append("What moves the decisions:\n\n" + _table(("column", f"mean absolute effect, {_text(e.unit)}"), rows))
    if e.slices:
        slices = (
            (_text(s.column) + (" (protected)" if s.protected else ""), _text(s.level), f"{s.n:,}", _interval(s.value), _interval(s.gap))
            for s in e.slices
        )
        head = ("column", "level", "rows", f"value, {_text(e.unit)}", "promised less realised")
        parts.append("How groups of rows fare:\n\n" + _table(head, slices))
    return "\n\n".join(parts)


def _data(case: Case, e: Evaluation, splits: Splits) -> str:
    rows = [("source", _text(case.data.source or "a table passed in Python")), ("outcome", _code(case.data.outcome))]
    rows += [(name, _code(column)) for name, column in (("time", case.data.time), ("group", case.data.group)) if column]
    rows += [(f"{name} rows", f"{count:,}") for name, count in e.n.items()]
    rows += [("held out", f"{splits.method}{f': {_text(splits.detail)}' if splits.detail else ''}")]
    rows += [("purged rows", f"{splits.purged:,}")] if splits.purged else []
    rows += [("split seed", str(splits.seed)), ("split hash", _code(splits.hash))]
    return _table(("", ""), rows)


def _findings(findings: Sequence[Finding]) -> str:
    ranked = sorted(findings, key=lambda f: ("leak", "warning", "note").index(f.severity) if f.severity in ("leak", "warning") else 2)
    rows = ((_text(f.kind), _code(f.column) if f.column else "rows", f"{f.count:,}", _text(f.detail), _text(f.action)) for f in ranked)
    return _table(("finding", "column", "count", "detail", "what was done"), rows) if findings else ""


def _ethics(case: Case, groups: Sequence[Group]) -> str:
    if not case.data.protected:
        return "No column is declared protected, so no group was compared."
    names = ", ".join(map(_code, case.data.protected))
    lines = [f"Protected: {names}. They are never given as a reason. The table compares groups; it judges nothing."]
    if groups:
        rows = (
            (
                _text(g.column),
                _text(g.level) + (" (reference)" if g.reference else ""),
                f"{g.n:,}",
                _interval(g.value),
                _interval(g.selection),
                _interval(g.ratio),
                *([_interval(g.tpr), _interval(g.fpr)] if g.tpr and g.fpr else ["", ""]),
            )
            for g in groups
        )
        unit = groups[0].value.unit
        chosen = _text(groups[0].selected)
        head = (
            "column",
            "level",
            "rows",
            f"value, {_text(unit)}",
            f"share of {chosen}",
            "ratio to reference",
            "true positive rate",
            "false positive rate",
        )
        lines.append(_table(head, rows))
    return "\n\n".join(lines)


def _caveats(case: Case, e: Evaluation) -> str:
    lines = [
        f"The verdict is taken at level {e.level:.4g}; these test rows were opened {'once' if e.opened == 1 else f'{e.opened} times'}."
    ]
    lines += ["The payoffs are as declared in the case; see above how far they may be off."]
    if e.value.tail_limited or e.gain.tail_limited:
        lines.append("The payoffs have heavy tails for this many rows: intervals marked * may cover less often than they say.")
    hidden = [_code(name) for name, action in case.decision.actions.items() if not action.reveals]
    if hidden:
        lines.append(f"The outcome is not seen after {', '.join(hidden)}: the figures hold for rows like those whose outcome is known.")
    if case.data.outcome_delay:
        lines.append(f"The outcome is known {case.data.outcome_delay / 86400:g} days after the decision.")
    lines.append("Figures are means per decision on rows that the model had not seen; the future may differ from them.")
    return "\n".join(f"- {line}" for line in lines)


# --------------------------------------------------------------------------------------------------------------- Markdown


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _estimates(rows: Iterable[tuple[str, Estimate]], unit: str = "") -> str:
    head = ("", _text(unit) or "value", "low", "high")
    return _table(head, ((_text(n), _number(x.value) + ("*" if x.tail_limited else ""), _number(x.low), _number(x.high)) for n, x in rows))


def _interval(x: Estimate) -> str:
    return f"{_number(x.value)} [{_number(x.low)}, {_number(x.high)}]"


def _number(x: float) -> str:
    if math.isnan(x):
        return "–"
    size = abs(x)
    return ("−" if x < 0 else "") + ("∞" if math.isinf(x) else f"{size:,.0f}" if size >= 1000 else f"{size:.3g}")


def _plain(value: Any) -> str:
    return _number(float(value)) if isinstance(value, int | float) else _text(str(value))


_MARKS = str.maketrans({c: f"\\{c}" for c in "\\`*_[]<>|#"} | {"\n": " ", "\r": " "})


def _text(text: str) -> str:
    return text.translate(_MARKS)


def _code(text: str) -> str:
    """Return text in code marks that no backtick or bar inside can break out of (CommonMark 6.1; GFM 4.10 splits cells first)."""
    text = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"
