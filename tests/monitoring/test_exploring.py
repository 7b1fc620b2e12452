from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makegood.errors import Refused
from makegood.monitoring import exploring
from makegood.monitoring.exploring import Exploration

DAY = 86400.0


def test_the_worse_opinion_of_two_counts_and_no_gain_is_a_loss() -> None:
    mine, theirs = np.array([0, 0, 0]), np.array([1, 1, 1])
    by_mine = np.array([[5.0, 2.0], [5.0, 4.0], [1.0, 3.0]])
    by_theirs = np.array([[1.0, 6.0], [9.0, 2.0], [2.0, 4.0]])
    assert exploring.losses(mine, theirs, by_mine, by_theirs).tolist() == [3.0, 7.0, 0.0]


def test_spreads_are_the_residuals_of_each_segment_where_there_are_many() -> None:
    rng = np.random.default_rng(0)
    segment = np.arange(30_000) % 3
    x = rng.normal(size=30_000) * np.array([1.0, 2.0, 5.0])[segment]
    assert exploring.spreads(x, segment, 3) == pytest.approx((1.0, 2.0, 5.0), rel=0.03)


def test_spreads_weigh_rows_by_the_chance_with_which_they_were_seen() -> None:
    rng = np.random.default_rng(1)
    size = rng.integers(1, 3, 40_000).astype(np.float64)
    chance = np.where(size == 1.0, 0.8, 0.1)
    seen = rng.random(40_000) < chance
    x, segment = rng.normal(size=seen.sum()) * size[seen], np.zeros(seen.sum(), dtype=np.int64)
    weighted, plain = exploring.spreads(x, segment, 1, 1.0 / chance[seen])[0], exploring.spreads(x, segment, 1)[0]
    assert weighted == pytest.approx(np.sqrt((1.0 + 4.0) / 2.0), rel=0.03)
    assert plain == pytest.approx(weighted, rel=0.5)
    assert plain < 1.3


def test_one_row_does_not_set_a_segment_apart_and_none_has_the_whole() -> None:
    x = np.append(np.ones(1000), 100.0)
    first, second, none = exploring.spreads(x, np.append(np.zeros(1000, dtype=np.int64), 1), 3)
    assert first == pytest.approx(1.0, rel=0.1)
    assert none == pytest.approx(np.sqrt((x**2).mean()))
    assert second < 35.0


def test_chances_are_those_of_the_formula() -> None:
    rng = np.random.default_rng(2)
    loss, segment, theirs = rng.lognormal(0.0, 2.0, 500), rng.integers(0, 2, 500), rng.integers(0, 2, 500)
    explored = Exploration(0.1, {"a": 1.0, "b": 4.0}, 0.5, 0.02, 100.0, DAY)
    found = explored.chances(np.zeros(500, dtype=np.int64), theirs, loss, segment)
    s = np.where(segment == 0, 1.0, 4.0)
    expected = np.clip(0.1 * s / np.sqrt(np.maximum(loss, 0.5)), 0.02, 0.5)
    np.testing.assert_allclose(found, np.where(theirs == 0, 0.0, expected))
    assert {0.0, 0.02, 0.5} < set(found.tolist())


def test_it_survives_json() -> None:
    explored = Exploration(0.1, {"a": 1.0, "b": 4.0}, 0.5, 0.02, 100.0, DAY)
    assert Exploration(**json.loads(json.dumps(explored.to_json()))) == explored


@given(
    st.lists(st.tuples(st.just(0.0) | st.floats(1e-3, 1e4), st.integers(0, 2)), min_size=1, max_size=40),
    st.lists(st.just(0.0) | st.just(1e-200) | st.floats(0.01, 100.0), min_size=3, max_size=3),
    st.floats(0.0, 2.0),
)
def test_the_budget_is_met_to_the_last_unit(rows: list[tuple[float, int]], s: list[float], share: float) -> None:
    loss, segment = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    spread = dict(zip("abc", s, strict=True))
    floored = np.maximum(loss, max(0.01 * loss.mean(), 1e-300))
    budget = (0.02 + share * 0.48) * floored.sum() * 1.000001
    explored = exploring.budgeted(loss, segment, spread, (budget, DAY), DAY, 0.02)
    assert explored.floor == pytest.approx(floored.min())
    e = explored.chances(np.zeros(len(loss), dtype=np.int64), np.ones(len(loss), dtype=np.int64), loss, segment)
    most = np.where(np.array(s)[segment] > 1e-100, 0.5, 0.02) @ floored
    assert (e * floored).sum() == pytest.approx(min(budget, most), rel=1e-6)
    assert ((e >= 0.02) & (e <= 0.5)).all()


def test_a_longer_past_counts_for_less() -> None:
    loss, segment = np.random.default_rng(3).lognormal(size=200), np.zeros(200, dtype=np.int64)
    short = exploring.budgeted(loss, segment, {"": 1.0}, (20.0, DAY), DAY, 0.02)
    long = exploring.budgeted(np.tile(loss, 5), np.tile(segment, 5), {"": 1.0}, (20.0, DAY), 5 * DAY, 0.02)
    assert long.k == pytest.approx(short.k)
    assert exploring.budgeted(loss, segment, {"": 1.0}, (40.0, DAY), DAY, 0.02).k > short.k


def test_a_budget_below_the_least_chance_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        exploring.budgeted(np.full(1000, 10.0), np.zeros(1000, dtype=np.int64), {"": 1.0}, (20.0, 7 * DAY), 14 * DAY, 0.02)
    assert str(refused.value) == (
        "feedback.explore.budget: got '20 for 7 days'; expected at least 100, which the least chance costs wherever the models disagree; "
        "raise it, or lower explore.least from 0.02"
    )


@given(st.integers(0, 10_000), st.floats(0.0, 30.0))
def test_what_is_explored_never_costs_more_than_is_left(seed: int, left: float) -> None:
    rng = np.random.default_rng(seed)
    explored = Exploration(0.2, {"": 3.0}, 1.0, 0.02, 100.0, DAY)
    cost, drawn = explored.cost(rng.lognormal(1.0, 1.0, 60)), rng.random(60)
    wished = np.where(rng.random(60) < 0.8, explored.k * 3.0 / np.sqrt(cost), 0.0)
    found = explored.within(wished, cost, drawn, left)
    assert (cost[drawn < found]).sum() <= left
    assert ((found == wished) | (found == 0.0)).all()
    # a chance depends on the draws before it alone
    i = int(rng.integers(60))
    other = drawn.copy()
    other[i:] = rng.random(60 - i)
    assert explored.within(wished, cost, other, left)[: i + 1].tolist() == found[: i + 1].tolist()


def test_without_a_stop_the_budget_would_be_overspent() -> None:
    rng = np.random.default_rng(4)
    explored = Exploration(1.0, {"": 1.0}, 1.0, 0.02, 10.0, DAY)
    cost, drawn, wished = np.ones(100), rng.random(100), np.full(100, 0.5)
    assert cost[drawn < wished].sum() > 10.0
    assert cost[drawn < explored.within(wished, cost, drawn, 10.0)].sum() == 10.0
    assert explored.within(wished, cost, drawn, 1000.0).tolist() == wished.tolist()


def test_several_challengers_share_a_half_and_none_falls_below_the_least() -> None:
    rng = np.random.default_rng(5)
    wished = np.where(rng.random((200, 4)) < 0.5, rng.uniform(0.02, 0.5, (200, 4)), 0.0)
    found = exploring.together(wished, 0.02)
    assert found.sum(axis=1).max() == pytest.approx(0.5)
    assert found[wished > 0.0].min() >= 0.02 - 1e-12
    assert not found[wished == 0.0].any()
    few = wished.sum(axis=1) <= 0.5
    np.testing.assert_allclose(found[few], wished[few])
    assert 0.1 < few.mean() < 0.9
    np.testing.assert_allclose(exploring.together(np.full((1, 4), 0.2), 0.2), np.full((1, 4), 0.125))


@given(st.integers(0, 10_000))
def test_to_price_never_costs_more_than_one_rate(seed: int) -> None:
    rng = np.random.default_rng(seed)
    c, s = rng.lognormal(0.0, 2.0, 50), rng.lognormal(0.0, 1.0, 50)
    assert exploring.saving(c, s) >= 1.0
    assert exploring.saving(c, np.sqrt(c)) == pytest.approx(1.0)


def test_a_service_loads_no_scipy_for_it() -> None:
    code = "import sys, makegood.monitoring.exploring; sys.exit('scipy' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
