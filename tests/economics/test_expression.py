from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makegood.contracts import Columns, Floats
from makegood.economics.expression import Expression, kinds_of, parse
from makegood.errors import CaseError, DataError

KINDS = {
    "amount": "number",
    "age": "number",
    "flag": "boolean",
    "region": "category",
    "id": "id",
    "note": "text",
    "opened": "date",
    "closed": "date",
}
NAN = math.nan


def on(text: str, **columns: list[float] | list[str | None]) -> list[float]:
    """Evaluate a text on columns given as lists."""
    made = {k: np.array(v, dtype=object if any(isinstance(x, str) or x is None for x in v) else np.float64) for k, v in columns.items()}
    return parse(text, "payoff").evaluate(made, len(next(iter(made.values())))).tolist()


# --------------------------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 + 3 * 4 - 1", 13),
        ("7 / 2", 3.5),
        ("2 ** 10", 1024),
        ("2 ** -1", 0.5),
        ("-2 ** 2", -4),
        ("abs(-3) + min(4, 2, 8) + max(1, 5)", 10),
        ("clip(12, 0, 10) + clip(-1, 0, 10)", 10),
        ("log(exp(2))", 2),
        ("where(1 > 2, 3, 4)", 4),
        ("(1 < 2) + (2 <= 2) + (3 > 2) + (2 >= 3) + (1 == 1) + (1 != 1)", 4),
        ("1 and 0 or not 0", 1),
        ("'a' == 'a'", 1),
        ("'a' != 'a'", 0),
        ("0 * -1", 0),
    ],
)
def test_constants_have_known_values(text: str, value: float) -> None:
    assert on(text, x=[1.0]) == [value]
    assert math.copysign(1, on("0 * -1", x=[1.0])[0]) == 1  # never −0.0


def test_an_expression_is_evaluated_on_all_rows_at_once() -> None:
    columns: dict[str, list[float]] = {"amount": [100.0, 200.0], "months to run": [12.0, 24.0]}
    assert on("0.25 * amount * `months to run` / 12", **columns) == [25.0, 100.0]
    assert on("where(region == 'north', 1, -1)", region=["north", "south"]) == [1.0, -1.0]
    assert on("(a == b) + 2 * (a != b)", a=["x", "y"], b=["x", "z"]) == [1.0, 2.0]


def test_outcomes_and_quantities_broadcast_against_the_rows() -> None:
    margin = parse("price * min(quantity, outcome)", "payoff")
    outcome, quantity = np.array([[1.0, 5.0], [9.0, 2.0]]), np.array([0.0, 3.0, 6.0])[:, None, None]
    value = margin.evaluate({"price": np.array([2.0, 3.0])}, 2, outcome, quantity)
    assert value.shape == (3, 2, 2)
    assert value[2].tolist() == [[2.0, 15.0], [12.0, 6.0]]
    assert parse("5", "payoff").evaluate({}, 3).tolist() == [5.0, 5.0, 5.0]
    assert parse("outcome == 'yes'", "payoff").evaluate({}, 2, "yes").tolist() == [1.0, 1.0]
    assert parse("where(action == 'wait', 1, 2)", "payoff").evaluate({}, 1, action="wait").tolist() == [1.0]


LEAVES = st.sampled_from(["a", "b"]) | st.integers(-9, 9).map(lambda i: f"({i})") | st.floats(0.01, 99).map(lambda f: f"{f:.4f}")
A, B = np.array([1.5, -2.0, 0.25, 7.0, -0.0]), np.array([3.0, 0.5, -4.0, 0.125, 6.0])


def leaf_value(text: str) -> Floats:
    return {"a": A, "b": B}.get(text, np.full(5, 0.0)) if text in "ab" else np.full(5, float(text.strip("()")))


Pair = tuple[str, Floats]
BINARY: dict[str, Callable[[Floats, Floats], Floats]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "<": np.less,
    ">=": np.greater_equal,
}


def combined(children: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    binary = st.tuples(children, st.sampled_from(sorted(BINARY)), children).map(
        lambda t: (f"({t[0][0]} {t[1]} {t[2][0]})", BINARY[t[1]](t[0][1], t[2][1]).astype(np.float64))
    )
    least = st.tuples(children, children).map(lambda t: (f"min({t[0][0]}, {t[1][0]})", np.minimum(t[0][1], t[1][1])))
    chosen = st.tuples(children, children, children).map(
        lambda t: (f"where({t[0][0]} > 0, {t[1][0]}, {t[2][0]})", np.where(t[0][1] > 0, t[1][1], t[2][1]))
    )
    negative = children.map(lambda t: (f"-{t[0]}", -t[1]))
    return binary | least | chosen | negative


@given(st.recursive(LEAVES.map(lambda text: (text, leaf_value(text))), combined, max_leaves=12))
def test_values_agree_with_numpy_on_random_trees(pair: Pair) -> None:
    text, value = pair
    assert np.array_equal(parse(text, "payoff").evaluate({"a": A, "b": B}, 5), value + 0.0)


def test_a_row_alone_has_the_same_bits_as_among_others() -> None:
    rng = np.random.default_rng(0)
    columns = {"x": rng.lognormal(size=1001), "k": rng.integers(0, 4, 1001).astype(np.float64), "e": rng.normal(size=1001)}
    for text in ("exp(e) * log(x)", "x ** k", "x ** 2 + e ** 3", "2 ** e / x", "1.7 ** k - x * e"):
        expression = parse(text, "payoff")
        batch = expression.evaluate(columns, 1001)
        alone = [expression.evaluate({n: v[i : i + 1] for n, v in columns.items()}, 1)[0] for i in range(1001)]
        assert batch.tolist() == alone


def test_powers_of_a_quantity_have_the_same_bits_for_one_row_and_many() -> None:
    x, quantity = np.random.default_rng(1).lognormal(size=500), np.array([1.0, 2.0, 3.0])[:, None, None]
    power = parse("x ** quantity", "payoff")
    batch = power.evaluate({"x": x}, 500, quantity=quantity)
    assert all((power.evaluate({"x": x[i : i + 1]}, 1, quantity=quantity)[..., 0] == batch[..., i]).all() for i in range(500))


# ------------------------------------------------------------------------------------------------------------------ missing


def test_a_branch_that_is_not_taken_may_be_missing() -> None:
    assert on("where(b == 0, 0, a / b)", a=[4.0, 1.0], b=[2.0, 0.0]) == [2.0, 0.0]
    assert on("where(flag, x, 1)", flag=[1.0, 0.0], x=[7.0, NAN]) == [7.0, 1.0]


def test_truth_with_a_missing_part_is_decided_by_the_other_where_it_can_be() -> None:
    assert on("(x > 1) and flag", x=[NAN, 2.0], flag=[0.0, 1.0]) == [0.0, 1.0]
    assert on("(x > 1) or flag", x=[NAN, 0.0], flag=[1.0, 0.0]) == [1.0, 0.0]
    assert on("not flag", flag=[1.0, 0.0]) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2 * x", "payoff: got 'x missing in 1 of 3 rows, first in row 2'; expected a value in every row; fill it, or leave these rows out"),
        ("where(x > 1, 1, 0)", "payoff: got 'x missing in 1 of 3 rows, first in row 2'; expected a value in every row; fill it, or leave these rows out"),
        ("(x > 1) and ok", "payoff: got 'x missing in 1 of 3 rows, first in row 2'; expected a value in every row; fill it, or leave these rows out"),
        ("where(ok, x, 0)", "payoff: got 'x missing in 1 of 3 rows, first in row 2'; expected a value in every row; fill it, or leave these rows out"),
        ("where(not ok, 0, x)", "payoff: got 'x missing in 1 of 3 rows, first in row 2'; expected a value in every row; fill it, or leave these rows out"),
        ("where(region == 'north', 1, 0)", "payoff: got 'region missing in 2 of 3 rows, first in row 1'; expected a value in every row; fill it, or leave these rows out"),
        ("'north' == region", "payoff: got 'region missing in 2 of 3 rows, first in row 1'; expected a value in every row; fill it, or leave these rows out"),
        ("region != 'north'", "payoff: got 'region missing in 2 of 3 rows, first in row 1'; expected a value in every row; fill it, or leave these rows out"),
        ("1 + ok / (z - 1)", "payoff: got 'z - 1 zero in 2 of 3 rows, first in row 2'; expected no division by zero in ok / (z - 1); guard it, as in where(z - 1 == 0, 0, … / z - 1), or leave these rows out"),
        ("log(z - 1)", "payoff: got 'z - 1 not positive in 2 of 3 rows, first in row 2'; expected logarithms of positive values only; guard it with where or max, or leave these rows out"),
        ("exp(400 * z)", "payoff: got 'exp(400 * z) not a finite number in 1 of 3 rows, first in row 1'; expected a finite number; bound it with clip, or leave these rows out"),
        ("(1 - z) ** -1", "payoff: got '(1 - z) ** -1 not a finite number in 2 of 3 rows, first in row 2'; expected a finite number; bound it with clip, or leave these rows out"),
        ("(0 - z) ** 0.5", "payoff: got '(0 - z) ** 0.5 not a finite number in 3 of 3 rows, first in row 1'; expected a finite number; bound it with clip, or leave these rows out"),
    ],
)  # fmt: skip
def test_no_value_is_an_error_that_names_the_cause_and_the_rows(text: str, message: str) -> None:
    columns: Columns = {
        "x": np.array([1.0, NAN, 3.0]),
        "z": np.array([2.0, 1.0, 1.0]),
        "ok": np.ones(3),
        "region": np.array([None, "north", None], dtype=object),
    }
    with pytest.raises(DataError) as caught:
        parse(text, "payoff").evaluate(columns, 3)
    assert str(caught.value) == message


def test_a_missing_outcome_is_named_with_the_first_of_its_rows() -> None:
    with pytest.raises(DataError, match=r"outcome missing in 1 of 3 rows, first in row 3"):
        parse("2 * outcome + x", "payoff").evaluate({"x": np.zeros(3)}, 3, np.array([[1.0, 2.0, 3.0], [1.0, 2.0, NAN]]))


def test_a_division_by_a_difference_with_the_quantity_names_the_divisor() -> None:
    with pytest.raises(DataError, match=r"quantity - x zero in 1 of 2 rows, first in row 2"):
        parse("1 / (quantity - x)", "payoff").evaluate({"x": np.array([9.0, 3.0])}, 2, quantity=np.array([1.0, 3.0])[:, None, None])


# ------------------------------------------------------------------------------------------------------------------- checks


def test_what_an_expression_reads_is_known() -> None:
    expression = parse("where(action == 'a', `x y`, b) * quantity - outcome", "payoff")
    assert expression.names == {"x y", "b"}
    assert expression.givens == {"action", "quantity", "outcome"}
    assert (expression.uses_outcome, expression.uses_quantity) == (True, True)
    assert (parse("b", "payoff").uses_outcome, parse("b", "payoff").uses_quantity) == (False, False)


@pytest.mark.parametrize("text", ["amount + flag", "where(region == 'x' and id == '7', age, 0)", "closed > opened", "note != region", "2"])
def test_expressions_that_fit_the_schema_pass(text: str) -> None:
    parse(text, "payoff").check(KINDS, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.1 * amuont", "p: got 'amuont'; expected a column of the data; did you mean 'amount'?"),
        ("zzz", "p: got 'zzz'; expected a column of the data; the columns are amount, age, flag, region, id, note, opened, closed, `total-due`"),
        ("total - due", "p: got 'due'; expected a column of the data; write `total-due` if that is the column\np: got 'total'; expected a column of the data; write `total-due` if that is the column"),
        ("quantity - previous", "p: got 'previous'; expected a column of the data; add a column of that name with the quantity in force"),
        ("2 * region", "p, character 5: got 'region'; expected a number for *; it is text: compare it with ==, or clean the column if it should hold numbers"),
        ("-region", "p, character 2: got 'region'; expected a number for -; it is text: compare it with ==, or clean the column if it should hold numbers"),
        ("log(id)", "p, character 5: got 'id'; expected a number for log; it is text: compare it with ==, or clean the column if it should hold numbers"),
        ("amount * '3'", "p, character 10: got \"'3'\"; expected a number for *; write a number without quotes"),
        ("amount * 'x'", "p, character 10: got \"'x'\"; expected a number for *; compare a text with ==, as in region == 'x'"),
        ("2 * outcome", "p, character 5: got 'outcome'; expected a number for *; the outcome is a class: compare it, as in outcome == 'yes', write number(outcome), or give one payoff for each class"),
        ("closed - opened", "p, character 1: got 'closed'; expected a number for -; a date is no amount: make a number column out of closed first"),
        ("amount == '3'", "p, character 1: got \"amount == '3'\"; expected two values of one kind, not number and text; put quotes around a text, and none around a number"),
        ("region == 3", "p, character 1: got 'region == 3'; expected two values of one kind, not text and number; put quotes around a text, and none around a number"),
        ("outcome == 1", "p, character 1: got 'outcome == 1'; expected two values of one kind, not text and number; put quotes around a text, and none around a number"),
        ("opened > 3", "p, character 1: got 'opened > 3'; expected two values of one kind, not date and number; dates compare with date columns only"),
        ("region < 'x'", "p, character 1: got \"region < 'x'\"; expected == or != between texts; texts have no order: compare them with =="),
        ("region", "p: got 'region'; expected a number of money; it is text: compare it, as in where(… == 'x', 1, 0)"),
        ("opened", "p: got 'opened'; expected a number of money; it is date: compare it, as in where(… == 'x', 1, 0)"),
        ("where(1, 'x', 'y')", "p, character 10: got \"'x'\"; expected a number for where; compare a text with ==, as in region == 'x'"),
        ("action == 'x'", "p, character 1: got 'action'; expected no action here; an action's own payoff need not ask for it"),
    ],
)  # fmt: skip
def test_an_expression_that_does_not_fit_the_schema_is_an_error(text: str, message: str) -> None:
    with pytest.raises(CaseError) as caught:
        parse(text, "p").check(KINDS | {"total-due": "number"}, {"outcome": "text", "quantity": "number"})
    assert str(caught.value) == message


def test_a_quantity_that_is_not_declared_and_an_outcome_that_is_not_known_are_errors() -> None:
    with pytest.raises(CaseError, match=r"got 'quantity'; expected no quantity here; declare quantity: {min, max, step} for this action"):
        parse("3 * quantity", "p").check({}, {"outcome": "number"})
    with pytest.raises(CaseError, match=r"expected no outcome here; a cost is known before the outcome: use columns"):
        parse("3 * outcome", "p").check(None, {})


def test_columns_at_hand_are_checked_by_what_they_hold() -> None:
    assert kinds_of({"a": np.zeros(1), "b": np.zeros(1, dtype=np.float32), "c": np.array(["x"], dtype=object)}) == {
        "a": "number",
        "b": "number",
        "c": "category",
    }
    with pytest.raises(CaseError, match=r"got 'a'; expected a number for \*"):
        on("2 * a", a=["x"])
    with pytest.raises(CaseError, match=r"got 'amuont'; expected a column of the data; did you mean 'amount'\?"):
        on("2 * amuont", amount=[1.0])


@pytest.mark.parametrize(
    ("text", "affine"),
    [
        ("3", True),
        ("3 * outcome - x", True),
        ("-(outcome + x) / x", True),
        ("where(x > 1, outcome, 2 * outcome)", True),
        ("where(outcome > 1, 1, 0)", False),
        ("outcome * outcome", False),
        ("outcome ** 1", False),
        ("x / outcome", False),
        ("min(outcome, x)", False),
        ("abs(outcome) * 0", False),
    ],
)
def test_affine_payoffs_are_recognised(text: str, affine: bool) -> None:
    assert parse(text, "p").affine is affine


def test_an_expression_is_a_value() -> None:
    assert parse("a + 1", "p") == parse("a + 1", "p")
    assert isinstance(parse("a", "p"), Expression)
