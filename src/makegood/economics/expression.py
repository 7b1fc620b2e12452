"""One expression over columns: checked against the schema, evaluated on all rows at once, and able to say why it has no value.

Truth is 1 and 0. A missing value makes what depends on it missing: a comparison with it is neither true nor false, `0 and missing`
is 0, and `where` looks only at the branch that is taken (so that `where(b == 0, 0, a / b)` is a guard). A division by zero and the
logarithm of what is not positive are missing too, and a result that is missing is an error, never a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any, NoReturn

import numpy as np

from makegood.contracts import Columns, Floats
from makegood.economics.grammar import COMPARISONS, Call, Column, Given, Node, Number, Word, nodes, quoted, tree_of
from makegood.errors import CaseError, DataError, Problem, nearest

NUMBERS = frozenset(("number", "boolean"))
"""Kinds of column that arithmetic takes. Dates compare with dates only; every other kind is text."""

Outcome = str | float | Floats
"""The name of a class; or a number, or numbers that broadcast against the rows on their last axis."""


# -------------------------------------------------------------------------------------------------------------- operations


def _divide(a: Floats, b: Floats) -> Floats:
    return np.where(b == 0, np.nan, np.divide(a, b))


def _power(a: Floats, b: Floats) -> Floats:
    # NumPy squares by a product where the exponent's stride is zero, which for one row and for many need not be the same axis
    exponent = b if np.ndim(b) == 0 else np.array(np.broadcast_to(b, np.broadcast_shapes(np.shape(a), np.shape(b))))
    return np.where((a == 0) & (b < 0), np.nan, np.power(a, exponent))


def _log(x: Floats) -> Floats:
    return np.where(x > 0, np.log(x), np.nan)


def _compare(ufunc: np.ufunc) -> Callable[[Floats, Floats], Floats]:
    return lambda a, b: np.where(np.isnan(a) | np.isnan(b), np.nan, ufunc(a, b))


def _not(a: Floats) -> Floats:
    return np.where(np.isnan(a), np.nan, a == 0)


def _and(a: Floats, b: Floats) -> Floats:
    return np.where((a == 0) | (b == 0), 0.0, np.where(np.isnan(a) | np.isnan(b), np.nan, 1.0))


def _or(a: Floats, b: Floats) -> Floats:
    return _not(_and(_not(a), _not(b)))


def _where(condition: Floats, then: Floats, otherwise: Floats) -> Floats:
    return np.where(np.isnan(condition), np.nan, np.where(condition != 0, then, otherwise))


def _as_number(outcome: Any) -> Any:
    return np.float64(outcome) if isinstance(outcome, str) else outcome


_OPERATIONS: dict[str, Callable[..., Floats]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": _divide,
    "**": _power,
    "neg": np.negative,
    "==": _compare(np.equal),
    "!=": _compare(np.not_equal),
    "<": _compare(np.less),
    "<=": _compare(np.less_equal),
    ">": _compare(np.greater),
    ">=": _compare(np.greater_equal),
    "and": _and,
    "or": _or,
    "not": _not,
    "min": lambda *xs: reduce(np.minimum, xs),
    "max": lambda *xs: reduce(np.maximum, xs),
    "abs": np.abs,
    "clip": lambda x, low, high: np.minimum(np.maximum(x, low), high),
    "where": _where,
    "log": _log,
    "exp": np.exp,
    "number": _as_number,
}


_NOTHING = np.array(None, dtype=object)


def _same_text(a: Any, b: Any) -> Floats:
    """Return 1 where two texts are equal, 0 where they differ, NaN where either is missing (None)."""
    a, b = np.asarray(a, dtype=object), np.asarray(b, dtype=object)
    missing = np.equal(a, _NOTHING) | np.equal(b, _NOTHING)
    return np.where(missing, np.nan, np.equal(a, b))


def _value(node: Node, columns: Columns, given: Mapping[str, Any]) -> Any:
    """Return a node's value: float64 that broadcasts against the rows, or text."""
    match node:
        case Number(value=value):
            return np.float64(value)
        case Word(value=word):
            return word
        case Column(name=name):
            return columns[name]
        case Given(name=name):
            return given[name]
    values = [_value(arg, columns, given) for arg in node.args]
    if node.op in ("==", "!=") and _is_text(values[0]):
        same = _same_text(*values)
        return same if node.op == "==" else _not(same)
    return _OPERATIONS[node.op](*values)


def _folded(node: Node, words: Mapping[str, str]) -> Node:
    """Return a tree with a number in place of each part that reads no column and, of what is given, nothing but these words."""
    if not isinstance(node, Call):
        return node
    if all(not isinstance(n, Column) and (not isinstance(n, Given) or n.name in words) for n in nodes(node)):
        return Number(node.start, node.end, float(_value(node, {}, words)))
    return replace(node, args=tuple(_folded(arg, words) for arg in node.args))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, np.ndarray) and value.dtype == object)


# -------------------------------------------------------------------------------------------------------------- expression


@dataclass(frozen=True)
class Expression:
    """A payoff or a cost as it was written, `where` it stands in the case, and its tree.

    >>> margin = parse("0.1 * amount - where(region == 'north', 2, 0)", "payoff")
    >>> sorted(margin.names)
    ['amount', 'region']
    >>> columns = {"amount": np.array([100.0, 50.0]), "region": np.array(["north", "south"], dtype=object)}
    >>> margin.evaluate(columns, 2).tolist()
    [8.0, 5.0]
    """

    text: str
    where: str
    tree: Node

    @cached_property
    def names(self) -> frozenset[str]:
        """The columns that it reads."""
        return frozenset(n.name for n in nodes(self.tree) if isinstance(n, Column))

    @cached_property
    def givens(self) -> frozenset[str]:
        """Which of outcome, action and quantity it reads."""
        return frozenset(n.name for n in nodes(self.tree) if isinstance(n, Given))

    @property
    def uses_outcome(self) -> bool:
        """Whether it depends on the outcome."""
        return "outcome" in self.givens

    @property
    def uses_quantity(self) -> bool:
        """Whether it depends on the quantity chosen."""
        return "quantity" in self.givens

    @cached_property
    def affine(self) -> bool:
        """Whether it is a + b · outcome on every row, so that its expectation is its value at the mean outcome.

        >>> [parse(t, "").affine for t in ("3 * outcome - cost", "min(outcome, 5)", "outcome * outcome", "cost / outcome")]
        [True, False, False, False]
        """
        return _degree(self.tree) <= 1

    def check(self, columns: Mapping[str, str] | None, given: Mapping[str, str]) -> None:
        """Raise `CaseError` on an unknown column, on text in arithmetic, and on numbers compared with text.

        `columns` maps each column to its kind (number, boolean, date, category, id, text); None: not known yet. `given` maps
        those of outcome, action and quantity that exist here to theirs.
        """
        if columns is not None and (unknown := sorted(self.names - set(columns))):
            raise CaseError(*(self._unknown(name, columns) for name in unknown))
        kind = self._kind(self.tree, columns, given)
        if kind not in ("number", "any"):
            raise CaseError(Problem(self.where, self.text, "a number of money", f"it is {kind}: compare it, as in where(… == 'x', 1, 0)"))

    def evaluate(
        self, columns: Columns, n: int, outcome: Outcome | None = None, quantity: float | Floats | None = None, action: str | None = None
    ) -> Floats:
        """Return the value on each of n rows: float64 (n,), or (…, n) where outcome or quantity have more axes.

        Raises `CaseError` where the columns at hand do not fit, and `DataError` naming the column, the number of rows and the
        first of them (counted from 1) where a value is missing, a divisor zero or a result too large.
        """
        given = {k: v for k, v in (("outcome", outcome), ("quantity", quantity), ("action", action)) if v is not None}
        kinds, roles = kinds_of(columns), {k: "text" if _is_text(v) else "number" for k, v in given.items()}
        if (seen := (*kinds.items(), *roles.items())) not in self._fitting:
            self.check(kinds, roles)
            self._fitting.add(seen)
        value = self.compute(columns, given)
        value = value + np.zeros(np.broadcast_shapes(value.shape, (n,)))  # a fresh array of full shape, and no -0.0
        if not np.isfinite(value).all():
            self._explain(~np.isfinite(value), columns, given)
        return value

    def compute(self, columns: Columns, given: Mapping[str, Any]) -> Floats:
        """Return the value unchecked: whatever shape its parts broadcast to, NaN or infinite where there is none."""
        if self._constant is not None:
            return self._constant
        return self._computed(columns, given)

    @cached_property
    def _constant(self) -> Floats | None:
        """The value of an expression that reads nothing, worked out once."""
        return None if self.names or self.givens else self._computed({}, {})

    @cached_property
    def _fitting(self) -> set[tuple[tuple[str, str], ...]]:
        """The kinds that were checked and fit, remembered: each row served has the same ones."""
        return set()

    def _told(self, given: Mapping[str, Any]) -> Node:
        """Return the tree with what depends on the class and the action alone worked out, once for each of them."""
        words = tuple((name, given[name]) for name in sorted(self.givens) if isinstance(given[name], str))
        if words not in self._by_words:
            self._by_words[words] = _folded(self.tree, dict(words))
        return self._by_words[words]

    @cached_property
    def _by_words(self) -> dict[tuple[tuple[str, str], ...], Node]:
        return {}

    def _computed(self, columns: Columns, given: Mapping[str, Any]) -> Floats:
        with np.errstate(all="ignore"):
            return np.asarray(_value(self._told(given), columns, given), dtype=np.float64)

    # -- what is wrong with the text

    def _unknown(self, name: str, columns: Mapping[str, str]) -> Problem:
        mend = nearest(name, columns)
        if name == "previous":
            mend = mend or "add a column of that name with the quantity in force"
        if (longer := next((c for c in columns if name in c and quoted(c) != c), None)) is not None:
            mend = f"write {quoted(longer)} if that is the column"
        return Problem(self.where, name, "a column of the data", mend or f"the columns are {', '.join(map(quoted, list(columns)[:12]))}")

    def _piece(self, node: Node) -> str:
        return self.text[node.start : node.end]

    def _fail(self, node: Node, expected: str, next: str) -> NoReturn:
        raise CaseError(Problem(f"{self.where}, character {node.start + 1}", self._piece(node), expected, next))

    def _kind(self, node: Node, columns: Mapping[str, str] | None, given: Mapping[str, str]) -> str:
        """Return "number", "date", "text" or, where the columns are not known yet, "any"."""
        match node:
            case Number():
                return "number"
            case Word():
                return "text"
            case Column(name=name):
                return "any" if columns is None else _role(columns[name])
            case Given(name=name):
                if name not in given:
                    self._fail(node, f"no {name} here", _ABSENT[name])
                return given[name]
        kinds = [self._kind(arg, columns, given) for arg in node.args]
        if node.op == "number":
            if not (isinstance(node.args[0], Given) and node.args[0].name == "outcome"):
                self._fail(node.args[0], "outcome, in number(outcome)", "a column is used as it is; a column of texts has no number")
            return "number"
        if node.op in COMPARISONS:
            self._comparable(node, kinds)
            return "number"
        for arg, kind in zip(node.args, kinds, strict=True):
            if kind not in ("number", "any"):
                self._fail(arg, f"a number for {_SPOKEN.get(node.op, node.op)}", _mend(arg, kind))
        return "number"

    def _comparable(self, node: Call, kinds: list[str]) -> None:
        known = set(kinds) - {"any"}
        if len(known) > 1:
            mend = "dates compare with date columns only" if "date" in known else "put quotes around a text, and none around a number"
            self._fail(node, f"two values of one kind, not {kinds[0]} and {kinds[1]}", mend)
        if "text" in known and node.op not in ("==", "!="):
            self._fail(node, "== or != between texts", "texts have no order: compare them with ==")

    # -- what is wrong with the values

    def _explain(self, bad: Any, columns: Columns, given: Mapping[str, Any]) -> NoReturn:
        """Raise the error of the first row without a value: the innermost cause, and how many rows have none."""
        n = bad.shape[-1]
        rows = bad.reshape(-1, n).any(axis=0)
        row = int(rows.argmax())
        cell = (*np.unravel_index(bad.reshape(-1, n)[:, row].argmax(), bad.shape[:-1]), row)
        one = {name: columns[name][row : row + 1] for name in self.names}
        alone = {k: v if isinstance(v, str) else np.broadcast_to(v, bad.shape)[cell] for k, v in given.items()}
        with np.errstate(all="ignore"):
            cause = _cause(self.tree, one, alone)
        count = f"in {int(rows.sum())} of {n} rows, first in row {row + 1}"
        leave = "or leave these rows out"
        match cause:
            case Column() | Given():
                problem = Problem(self.where, f"{self._piece(cause)} missing {count}", "a value in every row", f"fill it, {leave}")
            case Call(op="/", args=(_, by)):
                guard = f"guard it, as in where({self._piece(by)} == 0, 0, … / {self._piece(by)}), {leave}"
                problem = Problem(self.where, f"{self._piece(by)} zero {count}", f"no division by zero in {self._piece(cause)}", guard)
            case Call(op="log", args=(of,)):
                guard = f"guard it with where or max, {leave}"
                problem = Problem(self.where, f"{self._piece(of)} not positive {count}", "logarithms of positive values only", guard)
            case _:
                got = f"{self._piece(cause)} not a finite number {count}"
                problem = Problem(self.where, got, "a finite number", f"bound it with clip, {leave}")
        raise DataError(problem)


def parse(text: str, where: str) -> Expression:
    """Return the expression of a text; `where` is its path in the case. Raises `CaseError` at the first mistake.

    >>> parse("0.035 * amount * `months to run` / 12", "decision.actions.approve.payoff").names == {"amount", "months to run"}
    True
    """
    return Expression(text, where, tree_of(text, where))


_ABSENT = {
    "outcome": "a cost is known before the outcome: use columns",
    "action": "an action's own payoff need not ask for it",
    "quantity": "declare quantity: {min, max, step} for this action, or put backticks around a column of that name",
}
_SPOKEN = {"neg": "-"}


def _mend(node: Node, kind: str) -> str:
    match node:
        case Word(value=value):
            return "write a number without quotes" if value.strip("+-.0123456789") == "" else "compare a text with ==, as in region == 'x'"
        case Given(name="outcome"):
            return "the outcome is a class: compare it, as in outcome == 'yes', write number(outcome), or give one payoff for each class"
        case Column(name=name) if kind == "date":
            return f"a date is no amount: make a number column out of {name} first"
        case _:
            return "it is text: compare it with ==, or clean the column if it should hold numbers"


def _role(kind: str) -> str:
    return "number" if kind in NUMBERS else "date" if kind == "date" else "text"


def kinds_of(columns: Columns) -> dict[str, str]:
    """Return what arithmetic may make of columns at hand: "number", or "category" for text.

    >>> kinds_of({"amount": np.zeros(1), "region": np.array(["north"], dtype=object)})
    {'amount': 'number', 'region': 'category'}
    """
    return {name: "category" if values.dtype == object else "number" for name, values in columns.items()}


def _cause(node: Node, columns: Columns, given: Mapping[str, Any]) -> Node:
    """Return the innermost node without a finite value on one row, following `where` only into the branch that is taken."""
    args = node.args if isinstance(node, Call) else ()
    if isinstance(node, Call) and node.op == "where":
        condition = _value(args[0], columns, given)
        args = (args[0],) if np.isnan(condition) else (args[1] if condition != 0 else args[2],)
    for arg in args:
        if not _present(_value(arg, columns, given)):
            return _cause(arg, columns, given)
    return node


def _present(value: Any) -> bool:
    if isinstance(value, str):
        return True
    return value[0] is not None if _is_text(value) else bool(np.isfinite(value).all())


def _degree(node: Node) -> float:
    """Return the degree in the outcome: 0, 1, 2 and more; infinite where it is no polynomial."""
    match node:
        case Given(name="outcome"):
            return 1
        case Call(op=op, args=args):
            degrees = [_degree(arg) for arg in args]
            if not any(degrees):
                return 0
            if op in ("+", "-", "neg", "number"):
                return max(degrees)
            if op == "*":
                return sum(degrees)
            if (op == "/" and not degrees[1]) or (op == "where" and not degrees[0]):
                return max(degrees)
            return np.inf
        case _:
            return 0
