from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makegood.contracts import LEVELS, Effects, Floats, Predictive, Probabilities, Quantiles, Ranking, Text
from makegood.economics.payoff import Option, Payoffs
from makegood.economics.scenarios import Scenario, happened, nodes, options, possible
from makegood.errors import CaseError


def values(levels: tuple[float, ...], q: list[float]) -> tuple[Floats, Floats]:
    (scenario,) = possible(Quantiles(levels, np.array([q])), "a")
    assert not isinstance(scenario.outcome, str)
    return scenario.outcome[:, 0], scenario.weight[0, :, 0]


levels_and_quantiles = st.lists(
    st.tuples(st.floats(0.01, 0.99), st.floats(-1e3, 1e3)), min_size=2, max_size=9, unique_by=lambda t: round(t[0], 3)
).map(lambda pairs: (tuple(sorted(round(p[0], 3) for p in pairs)), sorted(p[1] for p in pairs)))


@given(levels_and_quantiles)
def test_the_mean_is_that_of_the_declared_distribution(pair: tuple[tuple[float, ...], list[float]]) -> None:
    levels, q = pair
    first, last = (q[1] - q[0]) / (levels[1] - levels[0]), (q[-1] - q[-2]) / (levels[-1] - levels[-2])
    t = np.array([0.0, *levels, 1.0])
    y = np.array([q[0] - first * levels[0], *q, q[-1] + last * (1 - levels[-1])])
    exact = float(((y[1:] + y[:-1]) / 2 * np.diff(t)).sum())
    x, w = values(levels, q)
    assert w.sum() == pytest.approx(1)
    assert float((x * w).sum()) == pytest.approx(exact, rel=1e-9, abs=1e-9 * (1 + float(np.abs(y).max())))
    assert (np.diff(x) >= -1e-9).all()


def test_a_uniform_distribution_is_exact_up_to_degree_seven() -> None:
    x, w = values(LEVELS, [100 * level for level in LEVELS])
    for k in range(8):
        assert float((x**k * w).sum()) == pytest.approx(100**k / (k + 1), rel=1e-12)


def test_a_kink_is_integrated_within_the_documented_bound() -> None:
    x, w = values(LEVELS, [100 * level for level in LEVELS])  # pieces 10 wide of probability 0.1
    for kink in np.linspace(0, 100, 257):
        exact = kink - kink**2 / 200
        assert abs(float((np.minimum(x, kink) * w).sum()) - exact) <= 0.0092 * 10 * 0.1


def test_a_single_level_is_the_whole_distribution() -> None:
    assert [v.tolist() for v in values((0.5,), [7.0])] == [[7.0], [1.0]]
    assert nodes((0.5,))[2].tolist() == [1.0]


def test_probabilities_are_scenarios_of_their_classes() -> None:
    p = Probabilities(("no", "yes"), np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert [(s.outcome, s.weight.tolist()) for s in possible(p, "a")] == [("no", [[[0.9, 0.2]]]), ("yes", [[[0.1, 0.8]]])]
    assert [(s.outcome, s.weight.tolist()) for s in happened(p, np.array([1, 0]), "a")] == [("no", [[[0.0, 1.0]]]), ("yes", [[[1.0, 0.0]]])]


def test_a_horizon_is_one_scenario_a_step() -> None:
    q = Quantiles((0.25, 0.75), np.arange(12.0).reshape(2, 3, 2))
    assert len(list(possible(q, "a"))) == 3
    assert [
        s.outcome.tolist() for s in happened(q, np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), "a") if not isinstance(s.outcome, str)
    ] == [
        [[1.0, 4.0]],
        [[2.0, 5.0]],
        [[3.0, 6.0]],
    ]


def test_effects_are_means_of_their_action() -> None:
    effects = Effects(("a", "b"), np.array([[1.0, 2.0]]), np.zeros((1, 2)))
    (mean,) = possible(effects, "b")
    (true,) = happened(effects, np.array([[5.0, 6.0]]), "b")
    assert (mean.outcome, mean.is_mean) == (np.array([[2.0]]), True)
    assert (true.outcome, true.is_mean) == (np.array([[6.0]]), False)


def test_items_are_hit_or_missed_and_answers_right_or_wrong() -> None:
    ranking = Ranking(np.array([["x", "y"], ["z", "x"]], dtype=object), np.array([[0.5, 0.25], [0.75, 0.5]]))
    hit, miss = happened(ranking, np.array([{"y"}, ("z", "q")], dtype=object), "a")
    assert hit.weight[:, 0].tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert (hit.outcome, miss.outcome, (hit.weight + miss.weight == 1).all()) == ("hit", "miss", True)
    assert next(iter(possible(ranking, "a"))).weight[:, 0].tolist() == [[0.5, 0.75], [0.25, 0.5]]
    text = Text(("Paris", "Rome"), np.array([0.9, 0.4]), ((), ()))
    right, wrong = happened(text, np.array(["Paris", "Oslo"], dtype=object), "a")
    assert (right.outcome, right.weight.tolist(), wrong.weight.tolist()) == ("right", [[[1.0, 0.0]]], [[[0.0, 1.0]]])
    assert [s.weight.tolist() for s in possible(text, "a")] == [[[[0.9, 0.4]]], [[[1 - 0.9, 0.6]]]]


def test_options_are_those_of_the_payoffs_or_the_positions_of_a_ranking() -> None:
    one = Payoffs.of({"recommend": {"payoff": {"hit": "1", "miss": "0"}}}, "EUR", ("hit", "miss"))
    two = Payoffs.of({"recommend": {"payoff": "1"}, "nothing": {"payoff": "0"}}, "EUR", ("hit", "miss"))
    ranking = Ranking(np.array([["x", "y"]], dtype=object), np.array([[0.5, 0.25]]))
    assert options(ranking, one) == (Option("recommend #1", "recommend"), Option("recommend #2", "recommend"))
    assert options(Probabilities(("hit", "miss"), np.ones((1, 2))), two) == two.options
    with pytest.raises(
        CaseError,
        match=r"decision.actions: got 'recommend, nothing'; expected one action, without quantity: what is done with an item of the ranking; declare one",
    ):
        options(ranking, two)


def test_what_is_no_predictive_is_refused() -> None:
    with pytest.raises(TypeError, match="str is none of the five kinds of predictive"):
        possible("a", "a")
    with pytest.raises(TypeError, match="str is none of the five kinds of predictive"):
        happened("a", np.zeros(1), "a")


@pytest.mark.parametrize(
    "predictive",
    [Probabilities(("a", "b"), np.array([[0.25, 0.75]])), Quantiles(LEVELS, np.sort(np.random.default_rng(0).normal(size=(1, 11)))), Text(("x",), np.array([0.3]), ((),))],
)  # fmt: skip
def test_what_is_possible_has_probability_one(predictive: Predictive) -> None:
    assert sum(float(s.weight.sum()) for s in possible(predictive, "a")) == pytest.approx(1)
    assert all(isinstance(s, Scenario) for s in possible(predictive, "a"))
