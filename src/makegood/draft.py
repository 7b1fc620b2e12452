"""A first case file out of a table: what `makegood init` writes.

The data say what the outcome is; the user says what right and wrong are worth, in money, in net benefit, or in points.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from makegood.case import Case
from makegood.data import images, sources
from makegood.data import outcome as outcomes
from makegood.data import profile as profiles
from makegood.economics.payoff import Payoffs
from makegood.errors import CaseError, Problem, nearest

Ask = Callable[[str, str], str]
POSITIVE = ("1", "yes", "true", "y", "bad", "positive", "malignant", "churn", "default")
SENSITIVE = re.compile(r"^(sex|gender|age|race|ethnic|religio|nationalit|marital|marriage|disab|pregnan)", re.IGNORECASE)


@dataclass(frozen=True)
class Answers:
    """What the user said about outcome and money; anything left open is asked for, or takes a stated default."""

    outcome: str
    unit: str | None = None
    payoffs: tuple[str, ...] = ()  # ACTION:OUTCOME=EXPRESSION, or ACTION=EXPRESSION
    worth: float | None = None  # needless actions that one found case is worth
    positive: str | None = None


@dataclass(frozen=True)
class _Decision:
    """The part of the file that is about money: action → payoff (one expression, or one an outcome)."""

    unit: str
    actions: dict[str, str | dict[str, str]]
    remark: str
    quantity: str = ""  # of the one action, as YAML


def draft(data: str, answers: Answers, out: Path | None, *, ask: Ask | None, say: Callable[[str], None]) -> Path:
    """Write a case file for the table `data` and return its path; `ask` is None off a terminal.

    Raises `CaseError` when the outcome is no column, a payoff cannot be read, or the file is there already.
    """
    source = sources.read(data)
    if answers.outcome not in source.table.column_names:
        hint = nearest(answers.outcome, source.table.column_names)
        raise CaseError(Problem("--outcome", answers.outcome, f"a column of {source.name}: {', '.join(source.table.column_names)}", hint))
    name = (
        re.sub(r"[^\w.-]+", "-", re.sub(r"(\.(csv|tsv|txt|parquet|gz|zst|zip|tar|tgz|npz))+$", "", Path(data).name)).strip("-.") or "case"
    )
    path = out or Path(f"{name}.yaml")
    if path.exists():
        raise CaseError(Problem(str(path), "a file that is there already", "a new file", "give another name with --out, or remove it"))
    provisional = Case.of(_raw(name, data, answers.outcome))
    known = outcomes.type_outcome(source.table, provisional)
    binary = len(known.task.classes) == 2
    if not binary and (answers.worth is not None or answers.positive is not None):
        got = f"{len(known.task.classes)} outcomes" if known.task.classes else "a number"
        raise CaseError(Problem("--worth, --positive", got, "an outcome with two values", "give the money with --payoff"))
    if answers.payoffs:
        decision = _Decision(answers.unit or "points", _table(answers.payoffs, known.task.classes), "The payoffs are yours.")
    elif known.task.kind == "number":
        decision = _number(known.values[known.known].tolist(), answers.unit or "points")
    elif binary:
        shares = {c: float((known.values[known.known] == i).mean()) for i, c in enumerate(known.task.classes)}
        decision = _classes(shares, answers, ask)
    else:
        decision = _name_the_class(known.task.classes, answers.unit or "points")
    columns = profiles.profile(source.table, provisional.data)
    hints = _hints(columns, answers.outcome) + _pixels(source.table)
    relative = os.path.relpath(Path(data).resolve(), path.resolve().parent)
    text = _yaml(name, relative if not relative.startswith("..") else str(Path(data).resolve()), answers.outcome, decision, hints)
    written = Case.parse(text, where=path.name)  # what we write, a run can read
    payoffs = Payoffs.of(outcomes.payoffs_by_class(written, known.task.classes), decision.unit, known.task.classes)
    payoffs.check({name: kind for name, kind in columns.kinds.items() if name != answers.outcome})
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CaseError(Problem("--out", str(path), "a file that can be written", error.strerror or str(error))) from None
    say(decision.remark)
    say(f"next: makegood run {path}")
    return path


def _raw(name: str, data: str, outcome: str) -> dict[str, object]:
    """Return a case that says nothing yet about money, so that the data can be read by the rules of any case."""
    return {
        "case": name,
        "data": {"source": data, "outcome": outcome},
        "decision": {"unit": "points", "actions": {"a": {"payoff": "0"}, "b": {"payoff": "0"}}},
    }


def _classes(shares: dict[str, float], answers: Answers, ask: Ask | None) -> _Decision:
    """Two outcomes: act or leave; the table of money is given, asked for, or set so that acting on everybody earns nothing."""
    positive = answers.positive or _positive(shares)
    if positive not in shares:
        raise CaseError(Problem("--positive", positive, f"one of the outcomes: {', '.join(shares)}", nearest(positive, shares)))
    (negative,) = (c for c in shares if c != positive)
    act, leave, worth = "act", "leave", answers.worth
    if ask and worth is None:
        act = ask(f"What is done where the outcome is {positive!r}? (a word)", act)
        leave = ask("And otherwise?", leave)
        unit = ask("The unit: money such as EUR, 'net benefit', or points", answers.unit or "points")
        if unit not in ("net benefit", "points"):
            cells = ((act, positive), (act, negative), (leave, positive), (leave, negative))
            table = tuple(
                f"{a}:{o}={ask(f'{unit} for {a} where the outcome is {o!r} (a number, or a formula over columns)', '0')}" for a, o in cells
            )
            return _Decision(unit, _table(table, tuple(shares)), "The payoffs are yours.")
        worth = _amount(ask(f"How many needless {act} is one found {positive!r} worth?", f"{shares[negative] / shares[positive]:.2g}"))
    stated = worth is not None
    worth = float(f"{shares[negative] / shares[positive]:.2g}") if worth is None else worth
    if not 0 < worth < math.inf:
        raise CaseError(Problem("--worth", f"{worth:g}", "a number above 0", "say how many needless actions one found case is worth"))
    remark = f"One found {positive!r} is worth {worth:g} needless actions: " + (
        "as you said." if stated else "a default from the data, at which acting on all and on none earn the same. Put money in its place."
    )
    return _Decision(
        answers.unit or ("net benefit" if stated else "points"), {act: {positive: "1", negative: f"-1 / {worth:g}"}, leave: "0"}, remark
    )


def _amount(reply: str) -> float:
    try:
        return float(reply)
    except ValueError:
        raise CaseError(Problem("worth", reply, "a number", "say how many needless actions one found case is worth")) from None


def _positive(shares: dict[str, float]) -> str:
    """Return the outcome that calls for action: one that says so, or the rarer one."""
    named = [c for c in shares if c.lower() in POSITIVE]
    return named[0] if len(named) == 1 else min(shares, key=lambda c: shares[c])


def _table(entries: Sequence[str], classes: tuple[str, ...]) -> dict[str, str | dict[str, str]]:
    """Return action → payoffs from entries such as `approve:no=0.1 * amount` and `decline=0`."""
    actions: dict[str, str | dict[str, str]] = {}
    for entry in entries:
        match = re.fullmatch(r"\s*([^:=]+?)\s*(?::\s*([^=]+?))?\s*=\s*(.+)", entry)
        if match is None:
            raise CaseError(Problem("--payoff", entry, "ACTION:OUTCOME=AMOUNT or ACTION=AMOUNT", "write for example approve:no=0.1*amount"))
        action, outcome, amount = match.groups()
        if outcome is not None and outcome not in classes:
            expected = f"an outcome out of {', '.join(classes)}" if classes else "ACTION=AMOUNT, where the amount may use outcome"
            raise CaseError(Problem("--payoff", entry, expected, nearest(outcome, classes)))
        cell = actions.get(action, {})
        if isinstance(cell, str) or (outcome is None and cell) or outcome in cell:
            raise CaseError(
                Problem("--payoff", entry, f"one way to give the payoff of {action!r}", f"give {action}=… or {action}:OUTCOME=…, once")
            )
        actions[action] = amount if outcome is None else {**cell, outcome: amount}
    for action, cell in actions.items():
        missing = [c for c in classes if c not in cell] if isinstance(cell, dict) else []
        if missing:
            raise CaseError(Problem("--payoff", action, f"an amount for each of {', '.join(classes)}", f"add {action}:{missing[0]}=…"))
    return actions


def _name_the_class(classes: tuple[str, ...], unit: str) -> _Decision:
    """More than two outcomes: the action is to name one, and right is worth a point."""
    actions: dict[str, str | dict[str, str]] = {f"say {c}": {o: "1" if o == c else "0" for o in classes} for c in classes}
    return _Decision(unit, actions, "Naming the outcome earns a point where it is right. Put your actions and your money in its place.")


def _number(values: list[float], unit: str) -> _Decision:
    """A number: the action is to state it, and every unit of error costs a point."""
    low, high = min(values), max(values)
    whole = all(float(v).is_integer() for v in values)
    step = max(1.0, round((high - low) / 200)) if whole else float(f"{(high - low) / 200:.1g}")
    quantity = f"{{min: {low:g}, max: {low + step * -(-(high - low) // step):g}, step: {step:g}}}"
    return _Decision(
        unit,
        {"state": "-abs(quantity - outcome)"},
        "Each unit of error costs a point. Put your decision and your money in its place.",
        quantity,
    )


def _hints(columns: profiles.Profile, outcome: str) -> list[str]:
    """Return commented lines about columns that look like a time, a text or a protected attribute: only the user can know.

    The line of a text is no comment where the data hold nothing else to learn from.
    """
    dates = [f.name for f in columns.fields if f.kind == "date" and f.name != outcome]
    sensitive = [f.name for f in columns.fields if SENSITIVE.match(f.name) and f.name != outcome]
    texts = [f.name for f in columns.fields if f.kind == "long text" and f.name != outcome]
    alone = all(f.kind in profiles.UNUSED for f in columns.fields if f.name != outcome)
    hints = [f"  {'' if alone else '# '}text: {_text(texts[0])}    # read by the words in it"] if texts else []
    hints += [f"  # time: {_text(dates[0])}    # if decisions were taken then: the test is later than the training"] if dates else []
    if sensitive:
        hints.append(f"  # protected: [{', '.join(map(_text, sensitive))}]    # kept out of the model, always in the fairness table")
    return hints


def _pixels(table: pa.Table) -> list[str]:
    """Return a commented line that says what pixels images are given, where there are images."""
    shapes = [images.stored_shape(field) or images.DEFAULT for field in table.schema if pa.types.is_binary(field.type)]
    return [f"  # image: {{size: [{h}, {w}], channels: {c}}}    # the pixels that every image is given" for h, w, c in shapes[:1]]


def _text(value: str) -> str:
    """Return YAML for a text, quoted where it must be."""
    plain = re.fullmatch(r"[\w./][\w ./%+*()'-]*", value) and not re.search(r"\s$|: | #", value)
    return value if plain else json.dumps(value, ensure_ascii=False)


def _yaml(name: str, source: str, outcome: str, decision: _Decision, hints: list[str]) -> str:
    lines = [
        f"case: {name}",
        "about: ",
        "data:",
        f"  source: {_text(source)}",
        f"  outcome: {_text(outcome)}",
        *hints,
        "  # known_later: []      # columns that are known only after the decision",
        "decision:",
        f"  unit: {_text(decision.unit)}",
        "  # today: ACTION        # what is done today, or the column that holds it: the model must beat it",
        "  actions:",
    ]
    for action, payoff in decision.actions.items():
        lines.append(f"    {_text(action)}:")
        if decision.quantity:
            lines.append(f"      quantity: {decision.quantity}")
        if isinstance(payoff, str):
            lines.append(f"      payoff: {_text(payoff)}")
        else:
            lines += ["      payoff:", *(f"        {_text(o)}: {_text(amount)}" for o, amount in payoff.items())]
    return "\n".join([*lines, "train: {budget: 60s}", "serve: {reasons: 3}", ""])
