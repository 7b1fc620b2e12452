from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from makegood.economics.limits import Constraint, Limit, kept, on_rows, priced
from makegood.economics.payoff import Payoffs
from makegood.errors import CaseError, DataError, NotBuilt

LOAN = Payoffs.of({"approve": {"payoff": "outcome"}, "refer": {"payoff": "-1"}, "decline": {"payoff": "0"}}, "EUR")
STOCK = Payoffs.of({"stock": {"payoff": "outcome", "quantity": {"min": 0, "max": 4, "step": 2}}, "none": {"payoff": "0"}}, "EUR")


def wrong(spec: dict[str, dict[str, Any]], payoffs: Payoffs = LOAN) -> str:
    with pytest.raises(CaseError) as caught:
        Limit.declared(spec, payoffs)
    return str(caught.value)


def test_limits_are_capacities_a_decision() -> None:
    spec = {
        "approve": {"max_share": "0.8", "max_budget": "9000", "cost": "amount", "per": "300"},
        "refer": {"max_count": 50.0, "per": 1000.0, "max_share": None},
    }
    share, budget, count = Limit.declared(spec, LOAN)
    assert (share.action, share.kind, share.capacity) == ("approve", "share", 0.8)
    assert (budget.kind, budget.capacity, budget.cost and budget.cost.names) == ("budget", 30.0, {"amount"})
    assert (count.action, count.kind, count.capacity) == ("refer", "count", 0.05)


def test_a_limit_on_rows_says_what_each_option_uses() -> None:
    (count,) = Limit.declared({"refer": {"max_count": 5, "per": 10}}, LOAN)
    on = count.on({}, 4, LOAN)
    assert (on.options, on.use.tolist(), on.capacity) == (slice(1, 2), [[1.0]] * 4, 2.0)
    (budget,) = Limit.declared({"stock": {"max_budget": 10, "per": 1, "cost": "price * quantity"}}, STOCK)
    on = budget.on({"price": np.array([1.0, 3.0])}, 2, STOCK)
    assert (on.options, on.use.tolist(), on.capacity) == (slice(0, 3), [[0.0, 2.0, 4.0], [0.0, 6.0, 12.0]], 20.0)


def test_use_and_excess_are_sums_over_what_is_chosen() -> None:
    c = Constraint(slice(1, 3), np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), 7.0)
    assert (c.used(np.array([0, 1, 2])), c.excess(np.array([0, 1, 2])), c.excess(np.array([2, 2, 3]))) == (9.0, 2.0, 0.0)
    assert (kept(np.array([0, 0, 2]), [c]), kept(np.array([0, 2, 2]), [c])) == (True, False)
    assert Constraint(slice(0, 1), np.full((3, 1), 0.1), 0.3).excess(np.zeros(3, dtype=np.int64)) == 0  # 0.1 + 0.1 + 0.1 > 0.3


def test_prices_are_taken_off_row_by_row() -> None:
    values = np.zeros((2, 3))
    c = Constraint(slice(1, 3), np.array([[1.0, 2.0], [3.0, 4.0]]), 7.0)
    assert priced(values, [c, c], [0.5, 0.0]).tolist() == [[0.0, -0.5, -1.0], [0.0, -1.5, -2.0]]
    assert values.sum() == 0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"aprove": {"max_share": 0.5}}, "decision.limits.aprove: got 'aprove'; expected an action: approve, refer, decline; limit an action that is declared"),
        ({"approve": {"max_budget": 1, "per": 1, "cost": "5%"}}, "decision.limits.approve.cost, character 1: got '5%'; expected a number without a percent sign; write 0.05"),
        ({"approve": {"max_budget": 1, "per": 1, "cost": "outcome"}}, "decision.limits.approve.cost, character 1: got 'outcome'; expected no outcome here; a cost is known before the outcome: use columns"),
        ({"approve": {"max_budget": 1, "per": 1, "cost": "quantity"}}, "decision.limits.approve.cost, character 1: got 'quantity'; expected no quantity here; declare quantity: {min, max, step} for this action, or put backticks around a column of that name"),
        ({a: {"max_share": 0.3} for a in ("approve", "refer", "decline")}, "decision.limits: got 'room for 0.9 of the decisions (approve 0.3, refer 0.3, decline 0.3)'; expected an action for every decision; raise a limit, or declare an action without one (doing nothing: payoff 0)"),
    ],
)  # fmt: skip
def test_wrong_limits_are_named_by_their_path(spec: dict[str, dict[str, Any]], message: str) -> None:
    assert wrong(spec) == message


def test_a_cost_is_checked_against_the_schema_and_may_not_be_negative() -> None:
    share, budget = Limit.declared({"approve": {"max_share": 0.5, "max_budget": 1, "per": 1, "cost": "amount"}}, LOAN)
    share.check({}, LOAN)
    budget.check({"amount": "number"}, LOAN)
    with pytest.raises(
        CaseError, match=r"decision.limits.approve.cost: got 'amount'; expected a column of the data; did you mean 'amounts'\?"
    ):
        budget.check({"amounts": "number"}, LOAN)
    with pytest.raises(
        DataError,
        match=r"decision.limits.approve.cost: got 'amount negative in row 2'; expected a cost of 0 or more; bound it: max\(0, …\)",
    ):
        budget.on({"amount": np.array([1.0, -1.0])}, 2, LOAN)
    with pytest.raises(DataError, match="amount missing in 1 of 1 rows"):
        budget.on({"amount": np.array([np.nan])}, 1, LOAN)


def test_limits_on_a_ranking_are_not_built() -> None:
    limits = Limit.declared({"approve": {"max_share": 0.5}}, LOAN)
    with pytest.raises(
        NotBuilt, match=r"decision.limits: got 'limits on a ranking'; expected a ranking without limits; remove them; see ROADMAP.md"
    ):
        on_rows(limits, LOAN, {}, np.zeros((2, 5)))
    assert on_rows((), LOAN, {}, np.zeros((2, 5))) == []
    assert len(on_rows(limits, LOAN, {}, np.zeros((2, 3)))) == 1


def test_limits_survive_json() -> None:
    limits = Limit.declared({"approve": {"max_share": 0.5, "max_budget": 1, "per": 3, "cost": "amount"}}, LOAN)
    assert tuple(Limit.from_json(json.loads(json.dumps(limit.to_json()))) for limit in limits) == limits
