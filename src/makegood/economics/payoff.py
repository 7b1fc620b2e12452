"""Payoffs: what every option pays under every outcome, declared as expressions and checked before anything is trained.

An *option* is an action, or one step of an action with a quantity. A *clause* is one expression as it was declared: of an action
under one outcome, or of an action under all of them ("").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from makegood.contracts import Columns, Floats, Ints, rows_of
from makegood.economics.expression import Expression, parse
from makegood.economics.grammar import Call, Given, Node, Word
from makegood.errors import CaseError, DataError, Problem, nearest

__all__ = ["Clause", "Expression", "Option", "Payoffs", "Terms", "canonical", "parse"]


@dataclass(frozen=True)
class Option:
    """What can be chosen for a row: an action, or one `quantity` of it, then named "stock=50"."""

    name: str
    action: str
    quantity: float | None = None


@dataclass(frozen=True)
class Clause:
    """One declared expression: what `action` pays when the outcome is `outcome` (a class; "" whatever it is)."""

    action: str
    outcome: str
    expression: Expression


@dataclass(frozen=True)
class Terms:
    """What one action was declared to be: its clauses, its quantity (min, max, step) and whether it reveals the outcome."""

    name: str
    clauses: tuple[Clause, ...]
    quantity: tuple[float, float, float] | None = None
    reveals: bool = True

    @cached_property
    def options(self) -> tuple[Option, ...]:
        """The action, or each step from min to max."""
        if self.quantity is None:
            return (Option(self.name, self.name),)
        low, high, step = self.quantity
        grid = [float(f"{low + i * step:.12g}") for i in range(int((high - low) / step + 1e-9) + 1)]
        return tuple(Option(f"{self.name}={q:.12g}", self.name, q) for q in grid)

    @cached_property
    def steps(self) -> Floats | None:
        """The quantities (n_options, 1, 1), so that they broadcast against outcomes (m, n); None without a quantity."""
        return None if self.quantity is None else np.array([o.quantity for o in self.options], dtype=np.float64)[:, None, None]

    def evaluate(self, clause: Clause, columns: Columns, n: int, outcome: str | Floats) -> Floats:
        """Return what each option pays on n rows, if the outcome is a class, or numbers (m, n): (n_options, m, n)."""
        m = 1 if isinstance(outcome, str) else len(outcome)
        value = clause.expression.evaluate(columns, n, outcome, self.steps, self.name)
        return np.broadcast_to(value, (len(self.options), m, n))

    def to_json(self) -> dict[str, Any]:
        """Return the action as a case declares it, with its name."""
        payoff = {c.outcome: c.expression.text for c in self.clauses}
        quantity = None if self.quantity is None else dict(zip(("min", "max", "step"), self.quantity, strict=True))
        return {"name": self.name, "payoff": payoff.get("", payoff), "quantity": quantity, "reveals": self.reveals}


# ----------------------------------------------------------------------------------------------------------------- classes


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _finite(text: str) -> bool:
    number = _number(text)
    return number is not None and isfinite(number)


def _truth(text: str) -> str | None:
    return text.lower() if text.lower() in ("true", "false") else None


_FORMS: tuple[Callable[[str], Any], ...] = (str, str.strip, _number, _truth)


def canonical(key: str, classes: Sequence[str], where: str) -> str:
    """Return the class that a key of the case means; raises `CaseError` where it means none, or several.

    A key means the class of exactly that text; else the one that differs by blanks around it; else the equal number; else, for
    true and false, the one that differs by capitals.

    >>> canonical("0", ["0.0", "1.0"], "payoff"), canonical("true", ["False", "True"], "payoff")
    ('0.0', 'True')
    """
    expected = f"one of {_listed(classes)}"
    for form in _FORMS:
        found = [c for c in classes if form(key) is not None and form(c) == form(key)]
        if len(found) == 1:
            return found[0]
        if found:
            raise CaseError(Problem(where, key, expected, f"it could mean {_listed(found)}: write it exactly"))
    raise CaseError(Problem(where, key, expected, nearest(key, classes) or "write it as the data do"))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(n) for n in names[:12]) + (", …" if len(names) > 12 else "")


def _closed(node: Node, names: Mapping[str, Sequence[str]], where: str) -> Node:
    """Return a tree in which every text that is compared with `outcome` or `action` is one of their values; see `number(outcome)` too."""

    def meant(word: Node, other: Node) -> Node:
        if isinstance(word, Word) and isinstance(other, Given) and other.name in names:
            return replace(word, value=canonical(word.value, names[other.name], where))
        return word

    if not isinstance(node, Call):
        return node
    args = tuple(_closed(arg, names, where) for arg in node.args)
    if node.op == "number" and isinstance(args[0], Given) and (words := [name for name in names.get("outcome", ()) if not _finite(name)]):
        raise CaseError(Problem(where, "number(outcome)", f"classes that are numbers, not {_listed(words)}", "compare it: outcome == 'x'"))
    if node.op in ("==", "!="):
        args = (meant(args[0], args[1]), meant(args[1], args[0]))
    return replace(node, args=args)


# ----------------------------------------------------------------------------------------------------------------- payoffs


@dataclass(frozen=True)
class Payoffs:
    """The declared payoffs of a decision, in `unit`; `classes` is empty when the outcome is a number.

    >>> loan = {"approve": {"payoff": {"no": "0.1 * amount", "yes": "-0.5 * amount"}}, "decline": {"payoff": "0"}}
    >>> payoffs = Payoffs.of(loan, "EUR", ("no", "yes"))
    >>> payoffs.table({"amount": np.array([100.0])}).tolist()
    [[[10.0, -50.0], [0.0, 0.0]]]
    """

    unit: str
    classes: tuple[str, ...]
    actions: tuple[Terms, ...]

    @classmethod
    def of(cls, actions: Mapping[str, Mapping[str, Any]], unit: str, classes: Sequence[str] = ()) -> Payoffs:
        """Return the payoffs that the case's actions declare: plain data with `payoff`, and maybe `quantity` and `reveals`.

        Raises `CaseError` on a bad expression, an outcome that the data do not have, or one without a payoff; every action is
        looked at before it does.
        """
        terms: list[Terms] = []
        problems: list[Problem] = []
        for name, declared in actions.items():
            try:
                terms.append(_terms(name, declared, tuple(actions), tuple(classes)))
            except CaseError as error:
                problems.extend(error.problems)
        if problems:
            raise CaseError(*problems)
        return cls(unit, tuple(classes), tuple(terms))

    @cached_property
    def options(self) -> tuple[Option, ...]:
        """Every option, action by action as declared."""
        return tuple(option for terms in self.actions for option in terms.options)

    @cached_property
    def slices(self) -> Mapping[str, slice]:
        """Where each action's options stand among `options`."""
        ends = np.cumsum([len(terms.options) for terms in self.actions]).tolist()
        return {terms.name: slice(end - len(terms.options), end) for terms, end in zip(self.actions, ends, strict=True)}

    @cached_property
    def names(self) -> frozenset[str]:
        """The columns that payoffs are made of."""
        return frozenset(name for _, clause in self.clauses() for name in clause.expression.names)

    def clauses(self) -> Iterator[tuple[Terms, Clause]]:
        """Yield every declared expression with the action it belongs to."""
        return ((terms, clause) for terms in self.actions for clause in terms.clauses)

    def check(self, kinds: Mapping[str, str]) -> None:
        """Raise `CaseError`, with every problem, where an expression does not fit the columns' kinds.

        Kinds are number, boolean, date, category, id and text. Kinds that fit are remembered: each row served has the same ones.
        """
        seen = tuple(kinds.items())
        if seen in self._fitting:
            return
        problems: list[Problem] = []
        for terms, clause in self.clauses():
            try:
                clause.expression.check(kinds, _given_kinds(self.classes, terms.quantity is not None))
            except CaseError as error:
                problems.extend(error.problems)
        if problems:
            raise CaseError(*dict.fromkeys(problems))
        self._fitting.add(seen)

    @cached_property
    def _fitting(self) -> set[tuple[tuple[str, str], ...]]:
        return set()

    def table(self, columns: Columns) -> Floats:
        """Return the payoff of each option under each class: (n, n_options, n_classes)."""
        n = rows_of(columns)
        out = np.zeros((n, len(self.options), len(self.classes)))
        for c, name in enumerate(self.classes):
            for terms, clause in self.clauses():
                if clause.outcome in ("", name):
                    out[:, self.slices[terms.name], c] = terms.evaluate(clause, columns, n, name)[:, 0].T
        return out

    def at(self, columns: Columns, outcome: Floats) -> Floats:
        """Return the payoff of each option at number outcomes: (n, n_options) of (n,), or (n, m, n_options) of (n, m)."""
        by_row = outcome.reshape(len(outcome), -1).T
        parts = [terms.evaluate(clause, columns, len(outcome), by_row) for terms, clause in self.clauses()]
        out = np.concatenate(parts).transpose(2, 1, 0)
        return out if outcome.ndim == 2 else out[:, 0]

    def positions(self, done: Sequence[Any] | NDArray[Any], where: str = "decision.today") -> Ints:
        """Return the option (n,) of each action that was done: its name, "stock=50", or the number itself of the only action.

        A number between two steps counts as the nearer one. Raises `DataError` on anything else, a missing value included.
        """
        if len(self.actions) == 1 and self.actions[0].quantity is not None and not any(isinstance(d, str) for d in done):
            amounts, grid = np.asarray(done, dtype=np.float64), np.array([o.quantity for o in self.options], dtype=np.float64)
            if np.isnan(amounts).any():
                raise DataError(Problem(where, "a missing quantity", "what was done in every row", "fill it, or leave these rows out"))
            nearest_step: Ints = np.abs(amounts[:, None] - grid).argmin(axis=1)
            return nearest_step
        place = {option.name: i for i, option in enumerate(self.options)}
        names = list(map(str, done))
        if unknown := next((name for name in names if name not in place), None):
            mend = nearest(unknown, place) or "declare it as an action, or correct the column"
            raise DataError(Problem(where, unknown, f"one of {_listed(tuple(place))}", mend))
        return np.array([place[name] for name in names], dtype=np.int64)

    def to_json(self) -> dict[str, Any]:
        """Return plain data from which `from_json` makes the same payoffs; a list keeps the order of the actions."""
        return {"unit": self.unit, "classes": list(self.classes), "actions": [terms.to_json() for terms in self.actions]}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Payoffs:
        """Return the payoffs of `to_json`."""
        return cls.of({declared["name"]: declared for declared in raw["actions"]}, raw["unit"], raw["classes"])


def _given_kinds(classes: Sequence[str], quantity: bool) -> dict[str, str]:
    return {"outcome": "text" if classes else "number", "action": "text"} | ({"quantity": "number"} if quantity else {})


def _terms(name: str, declared: Mapping[str, Any], actions: tuple[str, ...], classes: tuple[str, ...]) -> Terms:
    """Return one action's terms; raises `CaseError` at the first mistake."""
    where, payoff, quantity = f"decision.actions.{name}.payoff", declared["payoff"], declared.get("quantity")
    names = {"action": actions} | ({"outcome": classes} if classes else {})

    def clause(text: Any, outcome: str, where: str) -> Clause:
        written = parse(str(text), where)
        expression = Expression(written.text, where, _closed(written.tree, names, where))
        expression.check(None, _given_kinds(classes, quantity is not None))
        return Clause(name, outcome, expression)

    grid = None if quantity is None else (float(quantity["min"]), float(quantity["max"]), float(quantity["step"]))
    if not isinstance(payoff, Mapping):
        return Terms(name, (clause(payoff, "", where),), grid, bool(declared.get("reveals", True)))
    if not classes:
        got = ", ".join(payoff)
        raise CaseError(Problem(where, got, "one expression, since the outcome is a number", "use outcome in it: 3.2 * outcome"))
    clauses: dict[str, Clause] = {}
    for key, text in payoff.items():
        outcome = canonical(str(key), classes, where)
        if outcome in clauses:
            raise CaseError(Problem(f"{where}.{key}", str(key), f"one payoff for the outcome {outcome!r}", "remove one of them"))
        clauses[outcome] = clause(text, outcome, f"{where}.{key}")
    if missing := [c for c in classes if c not in clauses]:
        got = f"none for {_listed(missing)}"
        raise CaseError(Problem(where, got, f"a payoff for each of {_listed(classes)}", "add it: 0 pays nothing"))
    return Terms(name, tuple(clauses.values()), grid, bool(declared.get("reveals", True)))
