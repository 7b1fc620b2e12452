from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from makegood.economics.grammar import FUNCTIONS, MAX_DEPTH, MAX_LENGTH, Call, Column, Given, Node, Number, Word, nodes, quoted, tree_of
from makegood.errors import CaseError


def shape(node: Node) -> str:
    """Return a tree as a fully parenthesised text."""
    match node:
        case Number(value=value):
            return f"{value:g}"
        case Word(value=value):
            return repr(value)
        case Column(name=name) | Given(name=name):
            return name
        case Call(op=op, args=args):
            return f"({op} {' '.join(map(shape, args))})"


def names(text: str) -> list[str]:
    return [n.name for n in nodes(tree_of(text, "payoff")) if isinstance(n, Column)]


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("1 + 2 * 3", "(+ 1 (* 2 3))"),
        ("(1 + 2) * 3", "(* (+ 1 2) 3)"),
        ("8 - 4 - 2", "(- (- 8 4) 2)"),
        ("8 / 4 / 2", "(/ (/ 8 4) 2)"),
        ("2 ** 3 ** 2", "(** 2 (** 3 2))"),
        ("-2 ** 2", "(neg (** 2 2))"),
        ("2 ** -1 * 3", "(* (** 2 (neg 1)) 3)"),
        ("- -a", "(neg (neg a))"),
        ("+a - +b", "(- a b)"),
        ("-a * b", "(* (neg a) b)"),
        ("a or b and not c == d", "(or a (and b (not (== c d))))"),
        ("not a and b", "(and (not a) b)"),
        ("a + 1 > b", "(> (+ a 1) b)"),
        ("(a < b) == (b < c)", "(== (< a b) (< b c))"),
        ("where(a >= 1.5e2, min(a, .5), clip(b, 0,100))", "(where (>= a 150) (min a 0.5) (clip b 0 100))"),
        ("region != 'north west'", "(!= region 'north west')"),
        ('region == "it\'s"', '(== region "it\'s")'),
        ("outcome * quantity", "(* outcome quantity)"),
        ("action == 'approve'", "(== action 'approve')"),
        ("max + 1", "(+ max 1)"),  # a function's name without a parenthesis is a column
    ],
)
def test_an_expression_binds_as_in_mathematics(text: str, tree: str) -> None:
    assert shape(tree_of(text, "payoff")) == tree


@pytest.mark.parametrize(
    "name",
    ["amount", "_x1", "金额", "貸付金額2", "сумма", "राशि", "مبلغ", "می\u200cخواهم", "größe", "cafe\u0301", "ⅷ_"],
)
def test_any_letter_of_any_script_is_a_letter(name: str) -> None:
    assert names(f"2*{name}+1") == [name]
    assert quoted(name) == name


@pytest.mark.parametrize("name", ["mean radius", "total-amount", "2nd", "a.b", "", "outcome", "and", "AND", "x²", "%"])
def test_backticks_quote_any_other_name(name: str) -> None:
    assert quoted(name) == f"`{name}`"
    if name:
        assert names(f"1 + {quoted(name)}") == [name]


def test_a_reserved_word_in_backticks_is_a_column() -> None:
    assert shape(tree_of("`quantity`", "p")) == "quantity"
    assert isinstance(tree_of("`quantity`", "p"), Column)
    assert isinstance(tree_of("quantity", "p"), Given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "p, character 1: got 'nothing'; expected a number, a column or a function"),
        ("1 +", "p, character 4: got 'its end'; expected a number, a column or a function"),
        ("* 2", "p, character 1: got '*'; expected a number, a column or a function"),
        ("a and or b", "p, character 7: got 'or'; expected a number, a column or a function"),
        ("1,000 * a", "p, character 1: got '1,000'; expected a number without separators; write 1000, or 1, 000 with a blank for two numbers"),
        ("min(1,200, a)", "p, character 5: got '1,200'; expected a number without separators; write 1200, or 1, 200 with a blank for two numbers"),
        ("1 000", "p, character 3: got '000'; expected an operator before it; write a number without blanks"),
        ("1,5 * a", "p, character 2: got ','; expected a comma only between the arguments of a function; write decimals with a point: 1.5"),
        ("5%", "p, character 1: got '5%'; expected a number without a percent sign; write 0.05"),
        ("2‰", "p, character 1: got '2‰'; expected a number without a percent sign; write 0.002"),
        ("a % b", "p, character 3: got '%'; expected an operator + - * / **; write a share as a number: 0.05 for five in a hundred"),
        ("€3", "p, character 1: got '€3'; expected a number without a currency sign; leave it out: the unit is declared once, in decision.unit"),
        ("a - 3$", "p, character 6: got '$'; expected a number without a currency sign; leave it out: the unit is declared once, in decision.unit"),
        ("3 EUR", "p, character 3: got 'EUR'; expected an operator before it; units are declared once, in decision.unit; multiply with *"),
        ("5k", "p, character 1: got '5k'; expected a number without a unit; write it out in full and alone (5000 for 5k); units are declared in decision.unit; multiply with *"),
        ("mean radius", "p, character 6: got 'radius'; expected an operator before it; put backticks around a name with blanks; multiply with *"),
        ("a ^ 2", "p, character 3: got '^'; expected '**' here; write **"),
        ("a = 3", "p, character 3: got '='; expected '==' here; write =="),
        ("a − b", "p, character 3: got '−'; expected '-' here; write -"),
        ("min（a，b）", "p, character 4: got '（'; expected '(' here; write ("),
        ("٣ + 1", "p, character 1: got '٣'; expected digits 0 to 9; write 3"),
        ("a AND b", "p, character 3: got 'AND'; expected 'and' here; write and"),
        ("a if b else c", "p, character 3: got 'if'; expected 'where(condition, then, otherwise)' here; write where(condition, then, otherwise)"),
        ("if", "p, character 1: got 'if'; expected 'where(condition, then, otherwise)' here; write where(condition, then, otherwise)"),
        ("a.b", "p, character 2: got '.'; expected columns, numbers, operators and functions; put backticks around a column's name that is not a plain word"),
        ("`a", "p, character 1: got '`a'; expected a closing `"),
        ("``", "p, character 1: got '``'; expected a column's name between the backticks"),
        ("a == 'north", "p, character 6: got \"'north\"; expected a closing '"),
        ("(a + b", "p, character 1: got '(a + b'; expected a closing parenthesis"),
        ("(a))", "p, character 4: got ')'; expected an opening parenthesis before it"),
        ("(a b)", "p, character 4: got 'b'; expected an operator before it; put backticks around a name with blanks; multiply with *"),
        ("a)", "p, character 2: got ')'; expected an opening parenthesis before it"),
        ("0 < a < 3", "p, character 7: got '<'; expected one comparison at a time; write a < b and b < c for a < b < c"),
        ("mni(a, 2)", "p, character 1: got 'mni'; expected a function: one of min, max, abs, clip, where, log, exp, number; did you mean 'min'?"),
        ("amount(3)", "p, character 1: got 'amount'; expected a function: one of min, max, abs, clip, where, log, exp, number; write amount * ( to multiply"),
        ("min(a)", "p, character 1: got 'min of 1'; expected min(a, b, …); give it 2 to 16"),
        ("clip(a, 1)", "p, character 1: got 'clip of 2'; expected clip(x, low, high); give it 3"),
        ("min()", "p, character 5: got ')'; expected a number, a column or a function"),
        ("1e999", "p, character 1: got '1e999'; expected a number below 1e308"),
        ("a" * (MAX_LENGTH + 1), f"p: got '{MAX_LENGTH + 1} characters'; expected at most {MAX_LENGTH}; make a column of a part of it"),
        ("(" * 200 + "a" + ")" * 200, f"p, character 102; expected at most {MAX_DEPTH} levels of nesting; make a column of a part of it"),
        ("-" * 200 + "a", f"p, character 102; expected at most {MAX_DEPTH} levels of nesting; make a column of a part of it"),
        ("+".join(["a"] * 200), f"p, character 1; expected at most {MAX_DEPTH} operations in a chain; make a column of a part of it"),
    ],
)  # fmt: skip
def test_a_mistake_is_located_and_mended(text: str, message: str) -> None:
    with pytest.raises(CaseError) as caught:
        tree_of(text, "p")
    assert str(caught.value) == message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message  # noqa: S301


@given(
    st.text(max_size=60)
    | st.text("+-*/()<>=!&|.,'\"`1a ", max_size=40)
    | st.lists(st.sampled_from([*FUNCTIONS, "(", ")", "and", "not", "a", "1", ",", "-", "**", "outcome", "'x'"]), max_size=40).map(" ".join)
)
def test_any_text_is_a_tree_or_a_case_error(text: str) -> None:
    try:
        tree = tree_of(text, "p")
    except CaseError:
        return
    for node in nodes(tree):
        assert 0 <= node.start < node.end <= len(text)
        assert node.height <= MAX_DEPTH


@pytest.mark.parametrize(
    "hostile", ["((-" * 1300 + "a", "a" + "**a" * 1300, "not " * 900 + "a", "min(" * 900 + "a", "where(a,where(" * 250]
)
def test_hostile_input_ends_in_an_error_not_in_a_stack_overflow(hostile: str) -> None:
    with pytest.raises(CaseError):
        tree_of(hostile, "p")
