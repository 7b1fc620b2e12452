"""The grammar of payoffs: a text becomes a small tree of our own, or an error that says what to write instead.

Numbers, 'texts', columns (any letter of any script; backticks around other names), `outcome action quantity`, arithmetic
`+ - * / **`, comparisons, `and or not`, parentheses, and the functions of `FUNCTIONS`. Binding, loosest first: or, and, not,
comparison (never chained), + -, * /, unary minus, ** (to the right). Nothing is ever handed to Python's own evaluation.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

from makegood.errors import CaseError, Problem, nearest

MAX_LENGTH = 4000  # characters of one expression
MAX_DEPTH = 100  # of nesting, and of the tree: hostile input ends in an error and never in a stack overflow

RESERVED = ("outcome", "action", "quantity")
FUNCTIONS: dict[str, tuple[int, int, str]] = {
    "min": (2, 16, "min(a, b, …)"),
    "max": (2, 16, "max(a, b, …)"),
    "abs": (1, 1, "abs(x)"),
    "clip": (3, 3, "clip(x, low, high)"),
    "where": (3, 3, "where(condition, then, otherwise)"),
    "log": (1, 1, "log(x)"),
    "exp": (1, 1, "exp(x)"),
    "number": (1, 1, "number(outcome)"),
}
"""Name → fewest arguments, most arguments, how it is written."""

COMPARISONS = frozenset(("==", "!=", "<", "<=", ">", ">="))
_NOT, _COMPARISON, _UNARY = 3, 4, 7
_LEVEL = {"or": 1, "and": 2, **dict.fromkeys(COMPARISONS, _COMPARISON), "+": 5, "-": 5, "*": 6, "/": 6, "**": 8}

_INSTEAD = {
    "=": "==", "^": "**", "²": "** 2", "³": "** 3", "&": "and", "|": "or", "!": "not", "−": "-", "–": "-", "×": "*", "·": "*", "÷": "/",
    "∕": "/", "≤": "<=", "≥": ">=", "≠": "!=", "“": "'", "”": "'", "‘": "'", "’": "'", "（": "(", "）": ")", "，": ",", "；": ",", ";": ",",
    "＋": "+", "－": "-", "＊": "*", "／": "/", "＝": "==", "＜": "<", "＞": ">", "[": "(", "]": ")", "{": "(", "}": ")",
}  # fmt: skip
_INSTEAD_OF_WORDS = {"AND": "and", "OR": "or", "NOT": "not", "if": FUNCTIONS["where"][2], "else": FUNCTIONS["where"][2]}

_BLANK = re.compile(r"\s+")
_NUMBER = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])")
_OPERATOR = re.compile(r"\*\*|[<>=!]=|[-+*/<>(),]")
_QUOTED = re.compile(r"`([^`]*)`|'([^']*)'|\"([^\"]*)\"")


# -------------------------------------------------------------------------------------------------------------------- tree


@dataclass(frozen=True, slots=True)
class Leaf:
    """A piece of the text, from character `start` up to `end`."""

    start: int
    end: int
    height: int = field(default=0, kw_only=True)


@dataclass(frozen=True, slots=True)
class Number(Leaf):
    """A number that stands in the text."""

    value: float


@dataclass(frozen=True, slots=True)
class Word(Leaf):
    """A 'text' in quotes."""

    value: str


@dataclass(frozen=True, slots=True)
class Column(Leaf):
    """A column of the data."""

    name: str


@dataclass(frozen=True, slots=True)
class Given(Leaf):
    """What the decision gives: one of `RESERVED`."""

    name: str


@dataclass(frozen=True, slots=True)
class Call(Leaf):
    """An operation on other nodes: an operator, a function, or "neg" for a leading minus."""

    op: str
    args: tuple[Node, ...]


Node = Number | Word | Column | Given | Call


def nodes(tree: Node) -> list[Node]:
    """Return a node and all below it, parents first.

    >>> [type(n).__name__ for n in nodes(tree_of("2 * amount", "payoff"))]
    ['Call', 'Number', 'Column']
    """
    return [tree, *(n for arg in tree.args for n in nodes(arg))] if isinstance(tree, Call) else [tree]


def tree_of(text: str, where: str) -> Node:
    """Return the tree of an expression; `where` is its path in the case. Raises `CaseError` at the first mistake.

    >>> tree_of("amount > €5", "payoff")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    makegood.errors.CaseError: payoff, character 10: got '€5'; expected a number without a currency sign; leave it out: ...
    """
    if len(text) > MAX_LENGTH:
        raise CaseError(Problem(where, f"{len(text)} characters", f"at most {MAX_LENGTH}", "make a column of a part of it"))
    return _Parser(text, where).whole()


def quoted(name: str) -> str:
    """Return a column's name as an expression writes it: in backticks, unless it is a plain word.

    >>> quoted("amount"), quoted("mean radius"), quoted("outcome")
    ('amount', '`mean radius`', '`outcome`')
    """
    plain = _starts_word(name[:1] or " ") and all(map(_in_word, name)) and name not in (*RESERVED, *_LEVEL, "not", *_INSTEAD_OF_WORDS)
    return name if plain else f"`{name}`"


# ------------------------------------------------------------------------------------------------------------------ tokens


class _Token(NamedTuple):
    kind: str  # number, word, column, text, operator, end
    text: str
    start: int
    end: int


def _starts_word(char: str) -> bool:
    return char == "_" or unicodedata.category(char)[0] == "L" or unicodedata.category(char) == "Nl"


def _in_word(char: str) -> bool:
    """Tell whether a character continues a bare name: letters, marks and digits of any script, and the joiners of some."""
    return _starts_word(char) or unicodedata.category(char) in ("Mn", "Mc", "Nd") or char in "\u200c\u200d"


class _Parser:
    """One expression on its way to a tree."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where = text, where
        self.tokens = self._tokens()
        self.position = 0
        self.end = 0  # of the last token taken

    def fail(self, start: int, got: str, expected: str, next: str = "") -> NoReturn:
        raise CaseError(Problem(f"{self.where}, character {start + 1}", got, expected, next))

    # -- text → tokens

    def _tokens(self) -> list[_Token]:
        tokens, at = [], 0
        while at < len(self.text):
            if blank := _BLANK.match(self.text, at):
                at = blank.end()
                continue
            tokens.append(self._token(at))
            at = tokens[-1].end
        return [*tokens, _Token("end", "", at, at)]

    def _token(self, at: int) -> _Token:
        char = self.text[at]
        if number := _NUMBER.match(self.text, at):
            return self._number(number)
        if _starts_word(char):
            end = at + 1
            while end < len(self.text) and _in_word(self.text[end]):
                end += 1
            return _Token("word", self.text[at:end], at, end)
        if quoted := _QUOTED.match(self.text, at):
            kind = "column" if char == "`" else "text"
            inside = quoted[quoted.lastindex or 0]
            if kind == "column" and not inside:
                self.fail(at, "``", "a column's name between the backticks")
            return _Token(kind, inside, at, quoted.end())
        if operator := _OPERATOR.match(self.text, at):
            return _Token("operator", operator[0], at, operator.end())
        if char in "`'\"":
            self.fail(at, self.text[at : at + 20], f"a closing {char}")
        self._foreign(at, char)

    def _number(self, match: re.Match[str]) -> _Token:
        """Return a number's token, or say how a number with a unit, a percent sign or separators is written."""
        start, end = match.span()
        if thousands := _THOUSANDS.match(self.text, start):
            got = thousands[0]
            two = got.replace(",", ", ")
            self.fail(start, got, "a number without separators", f"write {got.replace(',', '')}, or {two} with a blank for two numbers")
        if not math.isfinite(float(match[0])):
            self.fail(start, match[0], "a number below 1e308")
        behind = self.text[end : end + 1]
        if behind in ("%", "‰"):
            share = float(match[0]) / (100 if behind == "%" else 1000)
            self.fail(start, match[0] + behind, "a number without a percent sign", f"write {share:.12g}")
        if behind and _in_word(behind):
            while end < len(self.text) and _in_word(self.text[end]):
                end += 1
            unit = "write it out in full and alone (5000 for 5k); units are declared in decision.unit; multiply with *"
            self.fail(start, self.text[start:end], "a number without a unit", unit)
        return _Token("number", match[0], start, end)

    def _foreign(self, at: int, char: str) -> NoReturn:
        """Say what to write instead of a character that the grammar does not have."""
        if unicodedata.category(char) == "Sc":
            self.fail(
                at, self.text[at : at + 8], "a number without a currency sign", "leave it out: the unit is declared once, in decision.unit"
            )
        if char in _INSTEAD:
            self.fail(at, char, f"{_INSTEAD[char]!r} here", f"write {_INSTEAD[char]}")
        if char.isdigit():
            self.fail(at, char, "digits 0 to 9", f"write {unicodedata.digit(char)}")
        if char in "%‰":
            self.fail(at, char, "an operator + - * / **", "write a share as a number: 0.05 for five in a hundred")
        self.fail(at, char, "columns, numbers, operators and functions", "put backticks around a column's name that is not a plain word")

    # -- tokens → tree

    @property
    def token(self) -> _Token:
        return self.tokens[self.position]

    def take(self) -> _Token:
        token = self.token
        self.position += 1
        self.end = token.end
        return token

    def whole(self) -> Node:
        tree = self.expression(0, 0)
        if self.token.kind != "end":
            self.unexpected()
        return tree

    def expression(self, floor: int, depth: int) -> Node:
        """Climb: read one operand, then every operator that binds at least as tightly as `floor`."""
        if depth > MAX_DEPTH:
            self.fail(self.token.start, "", f"at most {MAX_DEPTH} levels of nesting", "make a column of a part of it")
        start = self.token.start
        left = self.prefix(depth)
        while (level := self.level()) >= floor:
            op = self.take().text
            right = self.expression(_UNARY if op == "**" else level + 1, depth + 1)
            left = self.call(op, (left, right), start)
            if level == _COMPARISON and self.level() == _COMPARISON:
                self.fail(self.token.start, self.token.text, "one comparison at a time", "write a < b and b < c for a < b < c")
        return left

    def level(self) -> int:
        """Return how tightly the operator at hand binds; -1 when there is none."""
        return _LEVEL.get(self.token.text, -1) if self.token.kind in ("operator", "word") else -1

    def call(self, op: str, args: tuple[Node, ...], start: int) -> Node:
        height = 1 + max(a.height for a in args)
        if height > MAX_DEPTH:
            self.fail(start, "", f"at most {MAX_DEPTH} operations in a chain", "make a column of a part of it")
        return Call(start, self.end, op, args, height=height)

    def prefix(self, depth: int) -> Node:
        """Read one operand: a literal, a name, a function, something in parentheses, or a sign and its operand."""
        kind, text, start, _ = token = self.token
        if text in ("-", "+", "not") and kind in ("operator", "word"):
            self.take()
            operand = self.expression(_NOT if text == "not" else _UNARY, depth + 1)
            return operand if text == "+" else self.call("neg" if text == "-" else text, (operand,), start)
        if text == "(" and kind == "operator":
            self.take()
            inner = self.expression(0, depth + 1)
            self.close(start)
            return inner
        if kind in ("operator", "end") or (kind == "word" and (text in _LEVEL or text in _INSTEAD_OF_WORDS)):
            self.unexpected()
        self.take()
        if kind == "number":
            return Number(start, token.end, float(text))
        if kind == "text":
            return Word(start, token.end, text)
        if kind == "word" and self.token.text == "(" and self.token.kind == "operator":
            return self.function(token, depth)
        return Given(start, token.end, text) if kind == "word" and text in RESERVED else Column(start, token.end, text)

    def function(self, name: _Token, depth: int) -> Node:
        if name.text not in FUNCTIONS:
            mend = nearest(name.text, FUNCTIONS) or f"write {name.text} * ( to multiply"
            self.fail(name.start, name.text, f"a function: one of {', '.join(FUNCTIONS)}", mend)
        opening = self.take().start
        args = [self.expression(0, depth + 1)]
        while self.token.text == "," and self.token.kind == "operator":
            self.take()
            args.append(self.expression(0, depth + 1))
        self.close(opening)
        least, most, form = FUNCTIONS[name.text]
        if not least <= len(args) <= most:
            self.fail(name.start, f"{name.text} of {len(args)}", form, f"give it {least if least == most else f'{least} to {most}'}")
        return self.call(name.text, tuple(args), name.start)

    def close(self, opening: int) -> None:
        if self.token.kind == "end":
            self.fail(opening, self.text[opening : opening + 20], "a closing parenthesis")
        if self.token.text != ")" or self.token.kind != "operator":
            self.unexpected()
        self.take()

    def unexpected(self) -> NoReturn:
        """Say what is wrong with the token at hand, given what stands before it."""
        kind, text, start, _ = self.token
        before = self.tokens[self.position - 1] if self.position else _Token("end", "", 0, 0)
        after_value = before.kind in ("number", "word", "column", "text") or before.text == ")"
        if kind == "end":
            self.fail(start, "nothing" if self.position == 0 else "its end", "a number, a column or a function")
        if text in _INSTEAD_OF_WORDS and kind == "word":
            self.fail(start, text, f"{_INSTEAD_OF_WORDS[text]!r} here", f"write {_INSTEAD_OF_WORDS[text]}")
        if kind == "operator" and text == ",":
            self.fail(start, text, "a comma only between the arguments of a function", "write decimals with a point: 1.5")
        if kind == "operator" and text == ")" and after_value:
            self.fail(start, text, "an opening parenthesis before it")
        if kind == "operator" or (kind == "word" and text in _LEVEL):
            self.fail(start, text, "a number, a column or a function")
        mend = "units are declared once, in decision.unit; multiply with *"
        if before.kind == kind:
            mend = "write a number without blanks" if kind == "number" else "put backticks around a name with blanks; multiply with *"
        self.fail(start, text, "an operator before it", mend)
