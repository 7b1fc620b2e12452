from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from makegood.contracts import LEVELS, Columns, Effects, Floats, Predictive, Probabilities, Quantiles, Ranking, Text, rows_of
from makegood.economics.calibrate import PromiseMap
from makegood.economics.limits import Limit
from makegood.economics.payoff import Payoffs
from makegood.economics.policy import Policy, baseline_payoffs, baseline_weights, cells, expected, realised
from makegood.errors import CaseError, DataError

LOAN = Payoffs.of({"approve": {"payoff": {"no": "0.1 * amount", "yes": "-0.5 * amount"}}, "decline": {"payoff": "0"}}, "EUR", ("no", "yes"))
AMOUNT: Columns = {"amount": np.array([100.0, 1000.0, 10.0])}
RISK = Probabilities(("no", "yes"), np.array([[0.9, 0.1], [0.75, 0.25], [0.5, 0.5]]))
DEFAULTED = np.array([0, 1, 0])


def stock(top: float, step: float, payoff: str = "3 * min(quantity, outcome) - 1.2 * quantity") -> Payoffs:
    return Payoffs.of({"stock": {"payoff": payoff, "quantity": {"min": 0, "max": top, "step": step}}}, "EUR")


# ------------------------------------------------------------------------------------------------- expected and realised


def test_probabilities_weigh_the_payoffs_of_their_classes() -> None:
    assert expected(LOAN, RISK, AMOUNT) == pytest.approx(np.array([[4.0, 0.0], [-50.0, 0.0], [-2.0, 0.0]]))
    assert realised(LOAN, RISK, DEFAULTED, AMOUNT).tolist() == [[10.0, 0.0], [-500.0, 0.0], [1.0, 0.0]]


def test_the_order_of_the_classes_does_not_matter() -> None:
    turned = Probabilities(("yes", "no"), RISK.p[:, ::-1])
    assert expected(LOAN, turned, AMOUNT) == pytest.approx(expected(LOAN, RISK, AMOUNT))
    assert (realised(LOAN, turned, 1 - DEFAULTED, AMOUNT) == realised(LOAN, RISK, DEFAULTED, AMOUNT)).all()


def test_a_class_that_is_not_known_pays_nothing() -> None:
    assert realised(LOAN, RISK, np.array([-1, 0, 1]), AMOUNT)[0].tolist() == [0.0, 0.0]


def test_the_newsvendor_stocks_the_critical_quantile() -> None:
    """Demand uniform on (0, 100): profit 3·E min(q, D) − 1.2 q, best at F(q) = 1 − 1.2/3 (Arrow, Harris & Marschak 1951)."""
    demand = Quantiles(LEVELS, np.array([[100 * level for level in LEVELS]]))
    quantity = np.arange(0, 101.0)
    value = expected(stock(100, 1), demand, {})[0]
    closed = 3 * (quantity - quantity**2 / 200) - 1.2 * quantity
    assert quantity[value.argmax()] == pytest.approx(60, abs=1)
    assert np.abs(value - closed).max() <= 3 * 0.0092 * 10 * 0.1
    assert closed[value.argmax()] >= closed.max() - 0.02


def test_affine_payoffs_are_exact_at_the_mean_of_the_declared_distribution() -> None:
    q = Quantiles((0.25, 0.5, 0.75), np.array([[1.0, 2.0, 5.0], [0.0, 0.0, 4.0]]))  # pieces to 0 and 8, to 0 and 8
    pays = Payoffs.of({"sell": {"payoff": "2 * outcome - cost"}, "keep": {"payoff": "0"}}, "EUR")
    assert expected(pays, q, {"cost": np.array([1.0, 1.0])}) == pytest.approx(np.array([[5.0, 0.0], [3.0, 0.0]]))
    assert realised(pays, q, np.array([7.0, 1.0]), {"cost": np.array([1.0, 1.0])}).tolist() == [[13.0, 0.0], [1.0, 0.0]]


def test_a_horizon_is_summed() -> None:
    q = np.array([[[1.0, 3.0], [2.0, 6.0]]])  # two steps, symmetric about 2 and 4
    pays = Payoffs.of({"sell": {"payoff": "price * outcome"}, "keep": {"payoff": "1"}}, "EUR")
    assert expected(pays, Quantiles((0.25, 0.75), q), {"price": np.array([10.0])}) == pytest.approx(np.array([[60.0, 2.0]]))
    assert realised(pays, Quantiles((0.25, 0.75), q), np.array([[1.0, 5.0]]), {"price": np.array([10.0])}).tolist() == [[60.0, 2.0]]


def test_effects_are_taken_at_their_mean_and_potential_outcomes_as_they_are() -> None:
    pays = Payoffs.of({"treat": {"payoff": "1000 * outcome - 50"}, "wait": {"payoff": "1000 * outcome"}}, "EUR")
    effects = Effects(("wait", "treat"), np.array([[0.25, 0.5], [0.25, 0.25]]), np.zeros((2, 2)))
    assert expected(pays, effects, {}).tolist() == [[450.0, 250.0], [200.0, 250.0]]
    assert realised(pays, effects, np.array([[0.0, 1.0], [1.0, 0.0]]), {}).tolist() == [[950.0, 0.0], [-50.0, 1000.0]]


def test_positions_of_a_ranking_pay_by_hit_or_miss() -> None:
    pays = Payoffs.of({"recommend": {"payoff": {"hit": "fee", "miss": "-1"}}}, "EUR", ("hit", "miss"))
    ranking = Ranking(np.array([["a", "b", "c"]], dtype=object), np.array([[0.5, 0.25, 0.0]]))
    wanted = np.array([{"b"}], dtype=object)
    assert expected(pays, ranking, {"fee": np.array([7.0])}).tolist() == [[3.0, 1.0, -1.0]]
    assert realised(pays, ranking, wanted, {"fee": np.array([7.0])}).tolist() == [[-1.0, 7.0, -1.0]]


def test_answers_pay_by_right_or_wrong() -> None:
    pays = Payoffs.of({"answer": {"payoff": {"right": "5", "wrong": "-20"}}, "escalate": {"payoff": "-4"}}, "EUR", ("right", "wrong"))
    text = Text(("Paris", "Rome"), np.array([0.5, 0.75]), ((), ()))
    assert expected(pays, text, {}).tolist() == [[-7.5, -4.0], [-1.25, -4.0]]
    assert realised(pays, text, np.array(["Paris", "Oslo"], dtype=object), {}).tolist() == [[5.0, -4.0], [-20.0, -4.0]]


# --------------------------------------------------------------------------------------------------------------- every kind


def of_every_kind(n: int) -> list[tuple[Payoffs, Predictive, NDArray[Any], Columns]]:
    rng = np.random.default_rng(7)
    columns: Columns = {"amount": rng.lognormal(size=n)}
    p = rng.dirichlet((1, 1, 1), size=n)
    three = Payoffs.of({"go": {"payoff": {"a": "amount", "b": "-exp(amount / 9)", "c": "log(amount + 1)"}}, "no": {"payoff": "where(outcome == 'a', -amount, 0.1)"}}, "EUR", ("a", "b", "c"))  # fmt: skip
    curve = "amount ** 1.5 * min(quantity, outcome) - quantity ** 2"
    q = np.sort(rng.normal(size=(n, 11)) + 2, axis=1)
    steps = np.sort(rng.normal(size=(n, 3, 11)) + 2, axis=2)
    affine = Payoffs.of({"a": {"payoff": "amount * outcome"}, "b": {"payoff": "outcome - 0.1"}}, "EUR")
    hit = Payoffs.of({"show": {"payoff": {"hit": "amount", "miss": "-0.1"}}}, "EUR", ("hit", "miss"))
    answer = Payoffs.of({"answer": {"payoff": {"right": "amount", "wrong": "-1"}}, "ask": {"payoff": "0"}}, "EUR", ("right", "wrong"))
    items = np.array([[f"i{k}" for k in range(4)]] * n, dtype=object)
    wanted = np.array([("i1", f"i{i % 4}") for i in range(n)] + [None], dtype=object)[:-1]
    return [
        (three, Probabilities(("a", "b", "c"), p), rng.integers(0, 3, n), columns),
        (stock(3, 0.5, curve), Quantiles(LEVELS, q), q[:, 3], columns),
        (stock(3, 0.5, curve), Quantiles(LEVELS, steps), steps[:, :, 4], columns),
        (affine, Effects(("a", "b"), rng.normal(size=(n, 2)), np.ones((n, 2))), rng.normal(size=(n, 2)), columns),
        (hit, Ranking(items, np.sort(rng.uniform(size=(n, 4)))[:, ::-1]), wanted, columns),
        (answer, Text(("x",) * n, rng.uniform(size=n), ((),) * n), np.array(["x", "y"] * n, dtype=object)[:n], columns),
    ]


def row(predictive: Predictive, i: int) -> Predictive:
    parts = {
        k: v[i : i + 1] if len(v) == len(predictive) and k not in ("classes", "levels", "actions") else v
        for k, v in vars(predictive).items()
    }
    return type(predictive)(**parts)


@pytest.mark.parametrize("kind", range(6))
def test_a_row_alone_gets_the_same_bits_as_among_others(kind: int) -> None:
    payoffs, predictive, outcome, columns = of_every_kind(300)[kind]
    batch, came = expected(payoffs, predictive, columns), realised(payoffs, predictive, outcome, columns)
    for i in range(300):
        one = {name: v[i : i + 1] for name, v in columns.items()}
        assert (expected(payoffs, row(predictive, i), one) == batch[i]).all()
        assert (realised(payoffs, row(predictive, i), outcome[i : i + 1], one) == came[i]).all()


@pytest.mark.parametrize("kind", range(6))
def test_cells_add_up_to_expected_and_realised(kind: int) -> None:
    payoffs, predictive, outcome, columns = of_every_kind(20)[kind]
    found = list(cells(payoffs, predictive, outcome, columns))
    assert [(c.action, c.outcome, c.expression) for c in found] == [(c.action, c.outcome, c.expression.text) for _, c in payoffs.clauses()]
    assert sum(c.expected_part for c in found) == pytest.approx(expected(payoffs, predictive, columns))
    assert sum(c.realised_part for c in found) == pytest.approx(realised(payoffs, predictive, outcome, columns))


def test_a_cell_is_one_action_under_one_outcome() -> None:
    good, bad, declined = cells(LOAN, RISK, DEFAULTED, AMOUNT)
    assert good.expected_part[:, 0] == pytest.approx([9.0, 75.0, 0.5])
    assert bad.realised_part.tolist() == [[0.0, 0.0], [-500.0, 0.0], [0.0, 0.0]]
    assert not declined.expected_part.any()


def test_a_fine_grid_of_quantities_is_evaluated_in_blocks_of_rows() -> None:
    rng = np.random.default_rng(0)
    q = np.sort(rng.uniform(0, 1000, size=(40, 11)), axis=1)
    pays = stock(1000, 1)  # 1001 options × 48 nodes: one row a block
    value = expected(pays, Quantiles(LEVELS, q), {})
    assert value.shape == (40, 1001)
    assert (value[17] == expected(pays, Quantiles(LEVELS, q[17:18]), {})[0]).all()


# ------------------------------------------------------------------------------------------------------------------- errors


def test_a_payoff_without_a_value_names_its_row_whatever_the_block() -> None:
    q = np.sort(np.random.default_rng(0).uniform(0, 1000, size=(40, 11)), axis=1)
    price = np.where(np.arange(40) == 33, np.nan, 1.0)
    pays = stock(1000, 1, "price * min(quantity, outcome)")
    with pytest.raises(DataError, match=r"decision.actions.stock.payoff: got 'price missing in 1 of 40 rows, first in row 34'"):
        expected(pays, Quantiles(LEVELS, q), {"price": price})
    with pytest.raises(DataError, match=r"payoff.no: got 'amount missing in 1 of 3 rows, first in row 2'"):
        expected(LOAN, RISK, {"amount": np.array([1.0, np.nan, 1.0])})


def test_a_division_that_only_some_outcomes_make_is_found() -> None:
    pays = Payoffs.of({"a": {"payoff": "1 / (outcome - 5)"}, "b": {"payoff": "0"}}, "EUR")
    with pytest.raises(DataError, match=r"outcome - 5 zero in 1 of 2 rows, first in row 2"):
        realised(pays, Quantiles((0.5,), np.zeros((2, 1))), np.array([1.0, 5.0]), {})


def test_columns_that_do_not_fit_are_named() -> None:
    with pytest.raises(CaseError, match=r"got 'amount'; expected a column of the data; did you mean 'amounts'\?"):
        expected(LOAN, RISK, {"amounts": np.zeros(3)})


def test_payoffs_that_do_not_fit_the_predictive_are_named() -> None:
    number, three = stock(1, 1), Payoffs.of({"a": {"payoff": {"x": "1", "y": "0"}}, "b": {"payoff": "0"}}, "EUR", ("x", "y"))
    with pytest.raises(
        CaseError,
        match=r"decision.actions.stock.payoff: got 'one expression of a number'; expected a payoff for the outcome 'no'; declare the payoff by outcome",
    ):
        expected(number, RISK, {})
    with pytest.raises(CaseError, match=r"decision.actions.a.payoff.x: got 'x, y'; expected a payoff for the outcome 'no'"):
        expected(three, RISK, {})
    with pytest.raises(
        CaseError,
        match=r"decision.actions.a.payoff.x: got 'x, y'; expected a payoff of a number outcome; write one expression that uses outcome",
    ):
        expected(three, Quantiles((0.5,), np.zeros((1, 1))), {})
    with pytest.raises(
        CaseError,
        match=r"decision.actions.a.payoff: got 'min\(outcome, 1\)'; expected a payoff that is affine in outcome; effects are means: a payoff of them is a \+ b \* outcome",
    ):
        expected(Payoffs.of({"a": {"payoff": "min(outcome, 1)"}}, "EUR"), Effects(("a",), np.zeros((1, 1)), np.zeros((1, 1))), {})


def test_a_predictive_that_is_no_number_is_our_fault() -> None:
    with pytest.raises(AssertionError, match="a predictive holds values that are no numbers"):
        expected(LOAN, Probabilities(("no", "yes"), np.full((3, 2), np.nan)), AMOUNT)


# ------------------------------------------------------------------------------------------------------------------ the trap


def test_payoffs_averaged_first_rank_two_models_wrongly() -> None:
    """MATHEMATICS §1. Of ten loans one is of 1,000 and bad, and three of the nine of 10 are: which mistakes cost the money?

    `careful` declines the large loan and lends to every small one: 6·1 − 3·5 = −9. `accurate` errs once and not three times, on the
    large loan: 6·1 − 500 = −494. With the mean amount of 109 in every row it would look like 6·10.9 − 54.5 = 10.9 against −98.1.
    """
    amount = np.array([1000.0] + [10.0] * 9)
    bad = np.array([1] * 4 + [0] * 6)
    sure = Probabilities(("no", "yes"), np.zeros((10, 2)))
    careful, accurate = np.array([1] + [0] * 9), np.array([0, 1, 1, 1] + [0] * 6)

    def worth(option: NDArray[Any], columns: Columns) -> float:
        return float(realised(LOAN, sure, bad, columns)[np.arange(10), option].sum())

    assert worth(careful, {"amount": amount}) == pytest.approx(-9)
    assert worth(accurate, {"amount": amount}) == pytest.approx(-494)
    averaged = {"amount": np.full(10, amount.mean())}
    assert worth(careful, averaged) == pytest.approx(-98.1)
    assert worth(accurate, averaged) == pytest.approx(10.9)


def test_a_policy_decides_on_each_row_s_own_payoffs() -> None:
    fee = Payoffs.of(
        {"lend": {"payoff": {"no": "0.1 * amount - 5", "yes": "-0.5 * amount"}}, "decline": {"payoff": "0"}}, "EUR", ("no", "yes")
    )
    columns: Columns = {"amount": np.array([10.0, 1000.0])}
    p = Probabilities(("no", "yes"), np.array([[0.9, 0.1], [0.9, 0.1]]))  # the same risk: only the amount decides
    assert Policy(fee).decide(expected(fee, p, columns), columns).option.tolist() == [1, 0]


# ------------------------------------------------------------------------------------------------------------------- policy


def test_ties_go_to_the_option_declared_first() -> None:
    choices = Policy(LOAN).decide(np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), {})
    assert choices.option.tolist() == [0, 0, 1]
    assert choices.propensity.tolist() == [1.0, 1.0, 1.0]


def test_a_promise_is_the_corrected_expected_payoff_of_what_was_chosen() -> None:
    values = np.array([[4.0, 0.0], [-2.0, 0.0]])
    policy = Policy(LOAN).promising(PromiseMap(0.5, -1.0, certain=(0.0,)))
    choices = policy.decide(values, {})
    assert (choices.option.tolist(), choices.promise.tolist(), choices.expected.tolist()) == ([0, 1], [1.0, 0.0], values.tolist())
    assert Policy(LOAN).decide(values, {}).promise.tolist() == [4.0, 0.0]


def test_limits_hold_by_prices_in_expectation_and_exactly_on_a_batch() -> None:
    rng = np.random.default_rng(0)
    values, fresh = (np.column_stack([rng.normal(size=4000), np.zeros(4000)]) for _ in range(2))
    policy = Policy.fit(LOAN, {"approve": {"max_share": 0.2}}, values, {})
    assert policy.prices[0] == pytest.approx(0.8416, abs=0.06)  # the normal's 80% quantile
    assert np.allclose(policy.net(values, {}), values - [policy.prices[0], 0.0])
    assert (policy.decide(fresh, {}).option == 0).mean() == pytest.approx(0.2, abs=0.03)
    exact = policy.decide_all(fresh, {})
    assert (exact.option == 0).sum() == 800
    assert set(np.flatnonzero(exact.option == 0)) == set(np.argsort(-fresh[:, 0])[:800])
    assert exact.promise.sum() == pytest.approx(np.sort(fresh[:, 0])[-800:].sum())


def test_a_row_s_decision_does_not_depend_on_its_batch() -> None:
    rng = np.random.default_rng(0)
    values, columns = rng.normal(size=(500, 2)), {"amount": rng.lognormal(size=500)}
    policy = Policy.fit(LOAN, {"approve": {"max_budget": 100, "per": 500, "cost": "amount"}}, values, columns)
    batch = policy.decide(values, columns)
    alone = [policy.decide(values[i : i + 1], {"amount": columns["amount"][i : i + 1]}) for i in range(500)]
    assert [int(c.option[0]) for c in alone] == batch.option.tolist()
    assert [c.promise[0] for c in alone] == batch.promise.tolist()


def test_limits_without_room_are_refused_at_once() -> None:
    with pytest.raises(CaseError, match=r"room for 0.6 of the decisions \(approve 0.3, decline 0.3\)"):
        Policy.fit(LOAN, {"approve": {"max_share": 0.3}, "decline": {"max_share": 0.3}}, np.zeros((10, 2)), {})


def test_a_policy_without_rows_has_its_limits_and_no_prices() -> None:
    policy = Policy.fit(LOAN, {"approve": {"max_budget": 1, "per": 1, "cost": "effort"}}, np.zeros((0, 2)), {})
    assert (policy.prices, policy.names) == ((0.0,), {"amount", "effort"})


def test_a_policy_knows_and_checks_its_columns() -> None:
    policy = Policy(LOAN, Limit.declared({"approve": {"max_budget": 1, "per": 1, "cost": "effort", "max_share": 0.5}}, LOAN), (0.0, 0.0))
    assert policy.names == {"amount", "effort"}
    policy.check({"amount": "number", "effort": "number"})
    with pytest.raises(CaseError, match=r"decision.limits.approve.cost: got 'effort'; expected a column of the data"):
        policy.check({"amount": "number"})


def test_a_policy_survives_json() -> None:
    columns: Columns = {"amount": np.array([1.0, 2.0, 3.0])}
    policy = Policy.fit(LOAN, {"approve": {"max_budget": 1, "per": 1, "cost": "amount"}}, np.array([[5.0, 0.0]] * 3), columns)
    policy = policy.promising(PromiseMap(0.9, -0.1, (0.0,), 500))
    assert Policy.from_json(json.loads(json.dumps(policy.to_json(), sort_keys=True))) == policy


# ---------------------------------------------------------------------------------------------------------------- baselines

PAID = np.array([[10.0, 0.0], [-50.0, 0.0], [10.0, 0.0], [10.0, 0.0]])


def limited(**spec: float) -> Policy:
    return Policy(LOAN, Limit.declared({"approve": dict(spec)}, LOAN), (0.0,))


def test_baselines_are_today_and_each_constant_action() -> None:
    found = baseline_payoffs(Policy(LOAN), PAID, {}, np.array([1.0, 0.0]), np.array([1, 1, 0, 0]))
    assert {name: v.tolist() for name, v in found.items()} == {
        "today": [0.0, 0.0, 10.0, 10.0],
        "always approve": [10.0, -50.0, 10.0, 10.0],
        "always decline": [0.0, 0.0, 0.0, 0.0],
    }
    assert list(baseline_payoffs(Policy(LOAN), PAID, {}, np.array([1.0, 0.0]))) == ["always approve", "always decline"]


def test_a_baseline_that_exceeds_a_limit_is_randomised_down_to_it() -> None:
    weights = baseline_weights(limited(max_share=0.25), 4, {}, np.array([1.0, 0.0]), np.array([0, 0, 1, 1]))
    assert weights["today"].tolist() == [[0.5, 0.5], [0.5, 0.5], [0.0, 1.0], [0.0, 1.0]]
    assert weights["always approve"].tolist() == [[0.25, 0.75]] * 4
    assert weights["always decline"].tolist() == [[0.0, 1.0]] * 4


def test_what_a_limit_leaves_over_goes_to_the_next_best_with_room() -> None:
    three = Payoffs.of({"a": {"payoff": "0"}, "b": {"payoff": "0"}, "c": {"payoff": "0"}}, "EUR", ("x", "y"))
    spec = {"a": {"max_share": 0.25}, "c": {"max_count": 1, "per": 4}}
    weights = baseline_weights(Policy(three, Limit.declared(spec, three), (0.0, 0.0)), 8, {}, np.array([1.0, 2.0, 3.0]))
    assert weights["always a"].tolist() == [[0.25, 0.5, 0.25]] * 8
    assert weights["always b"].tolist() == [[0.0, 1.0, 0.0]] * 8
    assert weights["always c"].tolist() == [[0.0, 0.75, 0.25]] * 8


def test_a_budget_is_spent_in_expectation() -> None:
    policy = Policy(LOAN, Limit.declared({"approve": {"max_budget": 3, "per": 1, "cost": "amount"}}, LOAN), (0.0,))
    weights = baseline_weights(policy, 2, {"amount": np.array([2.0, 10.0])}, np.array([1.0, 0.0]))["always approve"]
    assert weights.tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_baselines_need_room_too() -> None:
    policy = Policy(
        LOAN, Limit.declared({"approve": {"max_share": 0.5}, "decline": {"max_budget": 1, "per": 1, "cost": "4"}}, LOAN), (0.0, 0.0)
    )
    with pytest.raises(CaseError, match=r"decision.limits: got 'no randomised baseline for 4 rows that keeps to every limit'"):
        baseline_weights(policy, 4, {}, np.array([1.0, 0.0]))


def test_a_quantity_has_its_best_its_least_and_its_greatest_as_constants() -> None:
    pays = stock(10, 5)
    paid = np.array([[0.0, 1.0, 2.0], [0.0, 3.0, -4.0]])
    found = baseline_payoffs(Policy(pays), paid, {}, np.array([0.0, 2.0, 1.0]), "stock=10")
    assert {name: v.tolist() for name, v in found.items()} == {
        "today": [2.0, -4.0],
        "always the best stock": [1.0, 3.0],
        "always stock=0": [0.0, 0.0],
        "always stock=10": [2.0, -4.0],
    }


def test_the_baseline_of_a_ranking_is_an_item_drawn_at_random() -> None:
    pays = Payoffs.of({"recommend": {"payoff": {"hit": "1", "miss": "0"}}}, "EUR", ("hit", "miss"))
    found = baseline_payoffs(Policy(pays), np.array([[3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), {}, np.zeros(3), np.array([0, 2]))
    assert {name: v.tolist() for name, v in found.items()} == {"today": [3.0, 0.0], "always recommend": [1.0, 0.0]}


def test_today_must_be_an_option() -> None:
    with pytest.raises(CaseError, match=r"decision.today: got 'aprove'; expected one of approve, decline; did you mean 'approve'\?"):
        baseline_weights(Policy(LOAN), 4, {}, np.zeros(2), "aprove")
    with pytest.raises(
        CaseError,
        match=r"decision.today: got 'x'; expected one of approve, decline; name an action, or the column that holds what was done",
    ):
        baseline_weights(Policy(LOAN), 4, {}, np.zeros(2), "x")


@given(st.integers(1, 30), st.floats(0, 1), st.floats(0.1, 3), st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_baselines_keep_to_the_limits_in_expectation(n: int, share: float, budget: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    three = Payoffs.of({"a": {"payoff": "0"}, "b": {"payoff": "0"}, "c": {"payoff": "0"}}, "EUR")
    spec = {"a": {"max_share": share}, "b": {"max_budget": budget, "per": 1, "cost": "cost"}}
    columns: Columns = {"cost": rng.lognormal(size=n)}
    policy = Policy(three, Limit.declared(spec, three), (0.0, 0.0))
    for weights in baseline_weights(policy, n, columns, rng.normal(size=3), rng.integers(0, 3, n)).values():
        assert (weights >= 0).all()
        assert weights.sum(axis=1) == pytest.approx(np.ones(n))
        assert weights[:, 0].sum() <= share * n + 1e-9
        assert float((weights[:, 1] * columns["cost"]).sum()) <= budget * n + 1e-9


# ------------------------------------------------------------------------------------------------------------------- whole


@given(st.integers(0, 2**32), st.floats(0.05, 1))
@settings(max_examples=25, deadline=None)
def test_the_choices_of_a_batch_beat_those_of_every_baseline_in_expectation(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    n = 60
    columns: Columns = {"amount": rng.lognormal(size=n)}
    p = rng.beta(1, 4, n)
    values = expected(LOAN, Probabilities(("no", "yes"), np.column_stack([1 - p, p])), columns)
    policy = Policy.fit(LOAN, {"approve": {"max_share": share}}, values, columns)
    chosen = policy.decide_all(values, columns)
    assert (chosen.option == 0).sum() <= share * rows_of(columns) + 1e-9
    best: Floats = chosen.expected[np.arange(n), chosen.option]
    for weights in baseline_weights(policy, n, columns, values.mean(axis=0)).values():
        # a draw may use parts of a row: at most one more of the largest margin
        assert best.sum() >= (weights * values).sum() - np.ptp(values, axis=1).max() - 1e-9


def test_a_constant_without_a_value_is_named_and_one_of_another_outcome_is_left_alone() -> None:
    predictive = Probabilities(("no", "yes"), np.array([[0.5, 0.5]]))
    for bad, good in (("yes", "no"), ("no", "yes")):
        payoffs = Payoffs.of({"lend": {"payoff": {bad: "1 / 0", good: "amount"}}, "not": {"payoff": "0"}}, "EUR", ("no", "yes"))
        with pytest.raises(DataError, match=f"decision.actions.lend.payoff.{bad}: got '0 zero in 1 of 1 rows, first in row 1'"):
            expected(payoffs, predictive, {"amount": np.ones(1)})
