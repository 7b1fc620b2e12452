from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from makegood.economics.payoff import Option, Payoffs, canonical, parse
from makegood.errors import CaseError, DataError

LOAN: dict[str, dict[str, Any]] = {
    "approve": {"payoff": {"no": "0.1 * amount", "yes": "-0.5 * amount"}, "quantity": None, "reveals": True},
    "decline": {"payoff": "0", "quantity": None, "reveals": False},
}
STOCK: dict[str, dict[str, Any]] = {
    "stock": {"payoff": "3 * min(quantity, outcome) - quantity", "quantity": {"min": "0", "max": "10", "step": "5"}}
}


def wrong(actions: dict[str, Any], classes: tuple[str, ...] = ("no", "yes")) -> str:
    with pytest.raises(CaseError) as caught:
        Payoffs.of(actions, "EUR", classes)
    return str(caught.value)


def test_each_option_pays_by_class() -> None:
    payoffs = Payoffs.of(LOAN, "EUR", ("no", "yes"))
    assert payoffs.options == (Option("approve", "approve"), Option("decline", "decline"))
    assert payoffs.names == {"amount"}
    assert [t.reveals for t in payoffs.actions] == [True, False]
    assert payoffs.table({"amount": np.array([100.0, 10.0])}).tolist() == [[[10.0, -50.0], [0.0, 0.0]], [[1.0, -5.0], [0.0, 0.0]]]


def test_one_expression_may_compare_the_outcome() -> None:
    payoffs = Payoffs.of(
        {"go": {"payoff": "where(outcome == '1', 5, -x) + (action == 'go')"}, "stay": {"payoff": 0}}, "EUR", ("0.0", "1.0")
    )
    assert payoffs.table({"x": np.array([2.0])}).tolist() == [[[-1.0, 6.0], [0.0, 0.0]]]
    reverse = Payoffs.of({"go": {"payoff": "'1' != outcome"}, "stay": {"payoff": 0}}, "EUR", ("0.0", "1.0"))
    assert reverse.table({"x": np.array([2.0])})[0, 0].tolist() == [1.0, 0.0]


def test_classes_that_are_numbers_may_be_reckoned_with() -> None:
    score = {
        "score": {"payoff": "-abs(number(outcome) - quantity)", "quantity": {"min": 0, "max": 2, "step": 1}},
        "ask": {"payoff": "-0.5"},
    }
    payoffs = Payoffs.of(score, "EUR", ("0", "1", "2"))
    table = [[0.0, -1.0, -2.0], [-1.0, 0.0, -1.0], [-2.0, -1.0, 0.0], [-0.5, -0.5, -0.5]]
    assert payoffs.table({"x": np.array([2.0])}).tolist() == [table]
    amount = Payoffs.of({"go": {"payoff": "2 * number(outcome)"}, "stay": {"payoff": 0}}, "EUR")
    assert amount.actions[0].clauses[0].expression.affine
    assert amount.at({"x": np.zeros(1)}, np.array([4.0])).tolist() == [[8.0, 0.0]]
    assert "expected classes that are numbers, not 'A', 'inf'" in wrong(score, ("0", "A", "inf"))
    assert "expected outcome, in number(outcome)" in wrong({"go": {"payoff": "number(x)"}, "stay": {"payoff": 0}})


def test_a_quantity_becomes_an_option_for_each_step() -> None:
    payoffs = Payoffs.of(STOCK, "EUR")
    assert payoffs.options == tuple(Option(f"stock={q}", "stock", float(q)) for q in (0, 5, 10))
    assert payoffs.at({}, np.array([4.0, 20.0])).tolist() == [[0.0, 7.0, 2.0], [0.0, 10.0, 20.0]]
    assert payoffs.at({}, np.array([[4.0, 20.0]])).tolist() == [[[0.0, 7.0, 2.0], [0.0, 10.0, 20.0]]]
    fine = Payoffs.of({"dose": {"payoff": "outcome", "quantity": {"min": 0, "max": 0.7, "step": 0.1}}}, "QALY")
    assert [o.name for o in fine.options] == ["dose=0", *(f"dose=0.{i}" for i in range(1, 8))]
    assert fine.options[3].quantity == 0.3


def test_options_of_several_actions_stand_in_order() -> None:
    payoffs = Payoffs.of({"wait": {"payoff": "0"}, **STOCK, "close": {"payoff": "-1"}}, "EUR")
    assert payoffs.slices == {"wait": slice(0, 1), "stock": slice(1, 4), "close": slice(4, 5)}
    assert payoffs.at({}, np.array([1.0])).tolist() == [[0.0, 0.0, -2.0, -7.0, -1.0]]


def test_previous_is_the_column_of_that_name() -> None:
    payoffs = Payoffs.of({"stock": {"payoff": "outcome - abs(quantity - previous)", "quantity": {"min": 0, "max": 1, "step": 1}}}, "EUR")
    assert payoffs.names == {"previous"}
    assert payoffs.at({"previous": np.array([1.0])}, np.array([5.0])).tolist() == [[4.0, 5.0]]
    with pytest.raises(
        CaseError,
        match=r"decision.actions.stock.payoff: got 'previous'; expected a column of the data; add a column of that name with the quantity in force",
    ):
        payoffs.check({"x": "number"})


# ------------------------------------------------------------------------------------------------------------------ classes


@pytest.mark.parametrize(
    ("key", "classes", "meant"),
    [
        ("no", ("no", "yes"), "no"),
        ("0", ("0", "0.0"), "0"),
        ("0", ("0.0", "1.0"), "0.0"),
        ("1.00", ("0", "1"), "1"),
        ("1e3", ("1000", "2000"), "1000"),
        ("true", ("False", "True"), "True"),
        ("FALSE", ("false", "true"), "false"),
        ("<=50K", (" <=50K", " >50K"), " <=50K"),
        ("nan", ("nan", "x"), "nan"),
    ],
)
def test_a_key_means_a_class(key: str, classes: tuple[str, ...], meant: str) -> None:
    assert canonical(key, classes, "payoff") == meant


@pytest.mark.parametrize(
    ("key", "classes", "message"),
    [
        ("1.00", ("1", "1.0"), "p: got '1.00'; expected one of '1', '1.0'; it could mean '1', '1.0': write it exactly"),
        ("TRUE", ("true", "True"), "p: got 'TRUE'; expected one of 'true', 'True'; it could mean 'true', 'True': write it exactly"),
        ("yess", ("no", "yes"), "p: got 'yess'; expected one of 'no', 'yes'; did you mean 'yes'?"),
        ("2", ("no", "yes"), "p: got '2'; expected one of 'no', 'yes'; write it as the data do"),
        ("zz", tuple("abcdefghijklmn"), "p: got 'zz'; expected one of 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', …; write it as the data do"),
    ],
)  # fmt: skip
def test_a_key_that_means_no_class_or_several_is_an_error(key: str, classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(CaseError) as caught:
        canonical(key, classes, "p")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("payoff", "message"),
    [
        ({"no": "1", "maybe": "2"}, "decision.actions.go.payoff: got 'maybe'; expected one of 'no', 'yes'; write it as the data do"),
        ({"no": "1"}, "decision.actions.go.payoff: got \"none for 'yes'\"; expected a payoff for each of 'no', 'yes'; add it: 0 pays nothing"),
        ({"no": "1", " no": "2", "yes": "3"}, "decision.actions.go.payoff. no: got ' no'; expected one payoff for the outcome 'no'; remove one of them"),
        ({"no": "5%", "yes": "0"}, "decision.actions.go.payoff.no, character 1: got '5%'; expected a number without a percent sign; write 0.05"),
        ("3 * outcome", "decision.actions.go.payoff, character 5: got 'outcome'; expected a number for *; the outcome is a class: compare it, as in outcome == 'yes', write number(outcome), or give one payoff for each class"),
        ("where(outcome == 'ye', 1, 0)", "decision.actions.go.payoff: got 'ye'; expected one of 'no', 'yes'; did you mean 'yes'?"),
        ("where(action == 'goo', 1, 0)", "decision.actions.go.payoff: got 'goo'; expected one of 'go', 'stay'; did you mean 'go'?"),
        ("3 * quantity", "decision.actions.go.payoff, character 5: got 'quantity'; expected no quantity here; declare quantity: {min, max, step} for this action, or put backticks around a column of that name"),
        ("'north'", "decision.actions.go.payoff: got \"'north'\"; expected a number of money; it is text: compare it, as in where(… == 'x', 1, 0)"),
    ],
)  # fmt: skip
def test_a_wrong_payoff_is_named_by_its_path(payoff: Any, message: str) -> None:
    assert wrong({"go": {"payoff": payoff}, "stay": {"payoff": "0"}}) == message


def test_every_action_is_looked_at() -> None:
    assert wrong({"go": {"payoff": "€3"}, "stay": {"payoff": "1 +"}}).count("\n") == 1


def test_a_number_outcome_takes_one_expression() -> None:
    assert wrong({"go": {"payoff": {"0": "1", "1": "2"}}}, ()) == (
        "decision.actions.go.payoff: got '0, 1'; expected one expression, since the outcome is a number; use outcome in it: 3.2 * outcome"
    )
    assert "got \"outcome == 'yes'\"; expected two values of one kind, not number and text" in wrong(
        {"go": {"payoff": "outcome == 'yes'"}}, ()
    )


# ------------------------------------------------------------------------------------------------------------------- schema


def test_payoffs_are_checked_against_the_schema() -> None:
    payoffs = Payoffs.of(LOAN, "EUR", ("no", "yes"))
    payoffs.check({"amount": "number", "x": "text"})
    with pytest.raises(CaseError) as caught:
        payoffs.check({"amuont": "number"})
    assert str(caught.value).splitlines() == [
        f"decision.actions.approve.payoff.{c}: got 'amount'; expected a column of the data; did you mean 'amuont'?" for c in ("no", "yes")
    ]
    with pytest.raises(CaseError, match="expected a number for"):
        payoffs.check({"amount": "category"})


def test_values_that_give_no_money_are_an_error_before_training() -> None:
    payoffs = Payoffs.of({"go": {"payoff": {"no": "1 / days", "yes": "amount"}}, "stay": {"payoff": "0"}}, "EUR", ("no", "yes"))
    with pytest.raises(DataError, match=r"decision.actions.go.payoff.no: got 'days zero in 1 of 2 rows, first in row 2'"):
        payoffs.table({"days": np.array([1.0, 0.0]), "amount": np.ones(2)})
    with pytest.raises(DataError, match=r"decision.actions.go.payoff.yes: got 'amount missing in 1 of 2 rows, first in row 1'"):
        payoffs.table({"days": np.ones(2), "amount": np.array([np.nan, 1.0])})


# --------------------------------------------------------------------------------------------------------------------- done


def test_what_was_done_becomes_options() -> None:
    loan = Payoffs.of(LOAN, "EUR", ("no", "yes"))
    assert loan.positions(np.array(["decline", "approve"], dtype=object)).tolist() == [1, 0]
    stock = Payoffs.of(STOCK, "EUR")
    assert stock.positions(np.array([0.0, 2.0, 4.0, 99.0])).tolist() == [0, 0, 1, 2]
    assert stock.positions(["stock=5", "stock=10"]).tolist() == [1, 2]


def test_what_was_done_must_be_an_option() -> None:
    loan, stock = Payoffs.of(LOAN, "EUR", ("no", "yes")), Payoffs.of(STOCK, "EUR")
    with pytest.raises(DataError, match=r"decision.today: got 'aprove'; expected one of 'approve', 'decline'; did you mean 'approve'\?"):
        loan.positions(["aprove"])
    with pytest.raises(
        DataError, match=r"decision.today: got 'None'; expected one of 'approve', 'decline'; declare it as an action, or correct the column"
    ):
        loan.positions(["approve", None])
    with pytest.raises(
        DataError, match=r"decision.today: got 'a missing quantity'; expected what was done in every row; fill it, or leave these rows out"
    ):
        stock.positions([1.0, np.nan])


# --------------------------------------------------------------------------------------------------------------------- json


@pytest.mark.parametrize(
    ("actions", "classes"), [(LOAN, ("no", "yes")), (STOCK, ()), ({"b": {"payoff": "1"}, "a": {"payoff": "x"}}, ("0.0", "1.0"))]
)
def test_payoffs_survive_json(actions: dict[str, Any], classes: tuple[str, ...]) -> None:
    payoffs = Payoffs.of(actions, "EUR", classes)
    again = Payoffs.from_json(json.loads(json.dumps(payoffs.to_json(), sort_keys=True)))
    assert again == payoffs
    assert again.options == payoffs.options


def test_parse_is_at_hand_here() -> None:
    assert parse("2 * a", "p").names == {"a"}


def test_kinds_that_fit_are_remembered_and_others_are_still_refused() -> None:
    payoffs = Payoffs.of({"lend": {"payoff": "0.1 * amount"}, "not": {"payoff": "0"}}, "EUR")
    for _ in range(2):
        payoffs.check({"amount": "number"})
        with pytest.raises(CaseError, match="amount"):
            payoffs.check({"amount": "text"})
