from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy import stats

from makegood.contracts import Estimate
from makegood.economics import value
from makegood.economics.value import Gain

# --------------------------------------------------------------------------------------------------------------- estimates


def test_under_six_units_there_is_no_interval() -> None:
    found = value.estimate(np.arange(5.0), "EUR")
    assert found.value == 2.0
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    by_group = value.estimate(np.arange(100.0), clusters=np.arange(100) % 5)
    assert math.isnan(by_group.low)
    assert math.isnan(value.estimate(np.array([])).value)


def test_six_to_thirty_nine_blocks_take_t_on_their_means() -> None:
    x, blocks = np.random.default_rng(0).normal(size=120), np.arange(120) // 20
    found = value.estimate(x, clusters=blocks)
    means = x.reshape(6, 20).mean(axis=1)
    expected = stats.t.interval(0.95, 5, loc=means.mean(), scale=stats.sem(means))
    assert (found.low, found.high) == pytest.approx(expected)


def test_one_giant_group_counts_for_little() -> None:
    rng = np.random.default_rng(1)
    group = np.concatenate([np.zeros(1000, dtype=int), np.arange(1, 60)])
    x = rng.normal(size=len(group)) + rng.normal(size=60)[group]
    t = value.critical(np.bincount(group).astype(float), 0.95)
    assert t > 10
    found = value.estimate(x, clusters=group)
    assert found.high - found.low > 5 * 2 * 1.96 * x.std() / math.sqrt(len(x))


def test_groups_of_unequal_size_estimate_the_mean_over_rows() -> None:
    x, group = np.array([1.0] * 90 + [11.0] * 10), np.array([0] * 90 + list(range(1, 11)))
    assert value.estimate(x, clusters=group).value == 2.0


def test_forty_units_are_drawn_again_by_seed() -> None:
    x = np.random.default_rng(2).exponential(size=40)
    assert value.estimate(x, seed=1) == value.estimate(x, seed=1)
    assert value.estimate(x, seed=1) != value.estimate(x, seed=2)
    assert value.estimate(x, level=0.9).low > value.estimate(x).low


def test_a_hundred_thousand_rows_take_well_under_a_second() -> None:
    x = np.random.default_rng(3).exponential(size=100_000)
    value.estimate(x)
    start = time.perf_counter()
    found = value.estimate(x, "EUR")
    assert time.perf_counter() - start < 1.0
    assert found.low < 1.0 < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 / math.sqrt(1e5), rel=0.1)


def test_payoffs_that_are_no_numbers_are_our_fault() -> None:
    with pytest.raises(AssertionError, match="payoffs are checked where they are computed"):
        value.estimate(np.array([1.0, np.nan]))


def test_paired_differences_cancel_what_rows_share() -> None:
    rng = np.random.default_rng(4)
    shared = rng.lognormal(0.0, 2.0, 500)
    gap = value.paired(shared + 1.0 + 0.1 * rng.normal(size=500), shared, "EUR")
    assert 0.98 < gap.low < 1.0 < gap.high < 1.02
    assert gap.unit == "EUR"


# ----------------------------------------------------------------------------------------------------------------- metrics


def test_bounded_is_delong_on_the_logit_scale() -> None:
    rng = np.random.default_rng(5)
    hit = np.arange(200) < 60
    score = rng.normal(size=200) + hit
    wins = (score[hit][:, None] > score[~hit]).astype(float)
    area, v10, v01 = wins.mean(), wins.mean(axis=1), wins.mean(axis=0)
    delong = v10.var(ddof=1) / 60 + v01.var(ddof=1) / 140
    pseudo = np.empty(200)
    pseudo[hit] = area + (v10 - area) * 200 / 60
    pseudo[~hit] = area + (v01 - area) * 200 / 140
    found = value.bounded(pseudo, bounds=(0.0, 1.0))
    reach = stats.t.ppf(0.975, 199) * math.sqrt(delong) / (area * (1 - area))
    logit = math.log(area / (1 - area))
    assert found.value == pytest.approx(area)
    assert found.low == pytest.approx(1 / (1 + math.exp(reach - logit)), abs=1e-3)
    assert found.high == pytest.approx(1 / (1 + math.exp(-reach - logit)), abs=1e-3)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0), (0.0, math.inf)])
def test_bounded_stays_between_its_bounds(bounds: tuple[float, float]) -> None:
    x = np.array([0.0] * 99 + [0.5])
    found = value.bounded(x, "u", bounds=bounds)
    assert bounds[0] < found.low < found.value < found.high < bounds[1]
    assert found.tail_limited


def test_bounded_on_the_bound_is_clopper_and_pearson() -> None:
    share = 0.025 ** (1 / 20)
    for x, bounds, low, high in [
        (1.0, (0.0, 1.0), share, 1.0),
        (0.0, (0.0, 1.0), 0.0, 1.0 - share),
        (-1.0, (-1.0, 1.0), -1.0, 1.0 - 2.0 * share),
        (0.0, (0.0, math.inf), 0.0, 0.0),
    ]:
        found = value.bounded(np.full(20, x), bounds=bounds)
        assert (found.low, found.high) == pytest.approx((low, high))


def test_bounded_of_a_constant_inside_its_bounds_is_a_point() -> None:
    found = value.bounded(np.full(20, 0.5), bounds=(0.0, 1.0))
    assert (found.low, found.value, found.high) == (0.5, 0.5, 0.5)


def test_bounded_by_group_is_wider_where_groups_agree() -> None:
    group = np.repeat(np.arange(50), 10)
    hit = np.repeat(np.random.default_rng(6).random(50) < 0.7, 10).astype(float)
    alone, by_group = (value.bounded(hit, bounds=(0.0, 1.0), clusters=c) for c in (None, group))
    assert by_group.high - by_group.low > 2.5 * (alone.high - alone.low)


def test_bounded_gives_no_interval_under_six_units() -> None:
    assert math.isnan(value.bounded(np.ones(5), bounds=(0.0, 1.0)).low)
    assert math.isnan(value.bounded(np.array([]), bounds=(0.0, 1.0)).value)


# ------------------------------------------------------------------------------------------------------------------ blocks


def test_time_blocks_are_consecutive_equal_and_keep_ties_together() -> None:
    rng = np.random.default_rng(7)
    day = rng.integers(0, 365, 4000)
    blocks = value.time_blocks(day)
    assert len(np.unique(blocks)) == 40
    assert np.bincount(blocks).max() < 130
    order = np.argsort(day, kind="stable")
    assert (np.diff(blocks[order]) >= 0).all()
    assert all(len(np.unique(blocks[day == d])) == 1 for d in np.unique(day))


def test_time_blocks_hold_ten_rows_at_least() -> None:
    assert np.bincount(value.time_blocks(np.arange(399))).min() >= 10
    assert value.time_blocks(np.arange(7)).tolist() == [0] * 7
    assert value.time_blocks(np.array([], dtype=int)).tolist() == []


# -------------------------------------------------------------------------------------------------------- gain and verdict


def test_gain_is_over_the_baseline_with_the_least_lower_limit() -> None:
    policy, noise = np.random.default_rng(8).normal(size=(2, 500))
    noise -= noise.mean()
    found = value.gain(policy, {"sure": policy - 0.2, "noisy": policy - 0.3 - 5.0 * noise}, "EUR")
    assert found.estimates["noisy"].value == pytest.approx(0.3)
    assert found.estimates["noisy"].low < found.estimates["sure"].low == pytest.approx(0.2)
    assert found.over == "noisy"
    assert found.estimate is found.estimates["noisy"]
    assert found.level == 0.95


def test_gain_at_the_third_opening_is_at_a_third_of_the_error() -> None:
    x = np.random.default_rng(9).normal(size=500)
    first, third = (value.gain(x, {"none": np.zeros(500)}, opened=k) for k in (1, 3))
    assert third.level == third.estimate.level == pytest.approx(1 - 0.05 / 3)
    assert third.estimate.low < first.estimate.low


def test_a_tail_limited_gain_is_taken_at_99_percent() -> None:
    x = np.random.default_rng(10).lognormal(0.0, 2.0, 500)
    found = value.gain(x, {"none": np.zeros(500)})
    assert found.estimate.tail_limited
    assert found.estimate.level == 0.99
    assert value.gain(x, {"none": np.zeros(500)}, opened=2).estimate.level == 0.995


def test_gain_without_intervals_names_the_least_gain() -> None:
    found = value.gain(np.ones(3), {"far": -np.ones(3), "near": np.zeros(3)})
    assert found.over == "near"


def test_gain_needs_a_baseline() -> None:
    with pytest.raises(AssertionError, match="every decision has a constant action to be compared with"):
        value.gain(np.ones(3), {})


@pytest.mark.parametrize("n", [4, 20, 500])
def test_a_cost_moves_every_gain_and_its_interval_and_nothing_else(n: int) -> None:
    rng = np.random.default_rng(12)
    policy, baselines = rng.normal(1.0, 1.0, n), {"none": np.zeros(n), "half": rng.normal(0.5, 1.0, n)}
    free, dear = value.gain(policy, baselines, "EUR"), value.gain(policy, baselines, "EUR", cost=0.3)
    for name, before in free.estimates.items():
        after = dear.estimates[name]
        assert (after.value, after.low, after.high) == pytest.approx(
            (before.value - 0.3, before.low - 0.3, before.high - 0.3), abs=1e-12, nan_ok=True
        )
        assert (after.level, after.unit, after.tail_limited) == (before.level, before.unit, before.tail_limited)
    assert (dear.over, dear.level, dear.cost) == (free.over, free.level, 0.3)
    assert value.gain(policy, baselines, "EUR", cost=0.0) == free


@pytest.mark.parametrize(
    ("estimate", "cost", "answer", "why"),
    [
        (
            Estimate(3.0, 1.0, 5.0, "EUR"),
            0.25,
            "deploy",
            "The model earns 3 EUR a decision more than 'approve', the hardest baseline to beat; the 95% interval runs from 1 to 5. "
            "Computing, at 0.25 EUR a decision, is taken off.",
        ),
        (
            Estimate(3.0, 1.0, 5.0, "EUR"),
            1.2e-7,
            "deploy",
            "The model earns 3 EUR a decision more than 'approve', the hardest baseline to beat; the 95% interval runs from 1 to 5. "
            "Computing, at under 0.0001 EUR a decision, is taken off.",
        ),
        (
            Estimate(-2.0, -4.0, 0.0, "EUR"),
            5.0,
            "refuse",
            "The model earns 2 EUR a decision less than 'approve'; the 95% interval runs from -4 to 0. Keep to 'approve'. "
            "Computing costs 5 EUR a decision, and that turns the verdict: before it, the interval runs from 1 to 5.",
        ),
        (
            Estimate(-2.0, -4.0, 0.0),
            4.0,  # not above zero before it either
            "refuse",
            "The model earns 2 a decision less than 'approve'; the 95% interval runs from -4 to 0. Keep to 'approve'. "
            "Computing, at 4 a decision, is taken off.",
        ),
        (
            Estimate(3.0, math.nan, math.nan, "EUR"),
            1.0,
            "refuse",
            "The model earns 3 EUR a decision more than 'approve' on these rows, but fewer than 6 independent units allow no "
            "interval: no gain is shown. Computing, at 1 EUR a decision, is taken off.",
        ),
    ],
)
def test_the_verdict_says_what_computing_does_to_it(estimate: Estimate, cost: float, answer: str, why: str) -> None:
    assert value.verdict(Gain("approve", {"approve": estimate}, cost=cost)) == (answer, why)


def test_no_gain_no_deployment() -> None:
    payoff = np.random.default_rng(11).normal(size=1000)
    assert value.verdict(value.gain(payoff, {"today": payoff.copy()}))[0] == "refuse"


@pytest.mark.parametrize(
    ("estimate", "opened", "answer", "why"),
    [
        (
            Estimate(1234.5, 410, 2050.4, "EUR"),
            1,
            "deploy",
            "The model earns 1,234 EUR a decision more than 'approve', the hardest baseline to beat; "
            "the 95% interval runs from 410 to 2,050.",
        ),
        (
            Estimate(1.2, -0.4, 2.8, "EUR"),
            1,
            "refuse",
            "The model earns 1.2 EUR a decision more than 'approve' on these rows, but the 95% interval runs from -0.4 to 2.8: "
            "it may be chance. More rows would narrow it.",
        ),
        (
            Estimate(-1.2, -2.4, -0.1),
            1,
            "refuse",
            "The model earns 1.2 a decision less than 'approve'; the 95% interval runs from -2.4 to -0.1. Keep to 'approve'.",
        ),
        (Estimate(0.0, 0.0, 0.0, "EUR"), 1, "refuse", "The model earns exactly what 'approve' does, row by row: it adds nothing."),
        (
            Estimate(3.0, math.nan, math.nan, "EUR"),
            1,
            "refuse",
            "The model earns 3 EUR a decision more than 'approve' on these rows, but fewer than 6 independent units allow no "
            "interval: no gain is shown.",
        ),
        (
            Estimate(3.0, 1.0, 5.0, "EUR", 0.995, True),
            2,
            "deploy",
            "The model earns 3 EUR a decision more than 'approve', the hardest baseline to beat; the 99.5% interval runs from 1 to 5. "
            "A few large payoffs weigh heavily, so the interval is taken at 99.5%. "
            "These test rows have been opened 2 times, so the interval is wider than at the first time.",
        ),
    ],
)
def test_the_verdict_says_why_in_words(estimate: Estimate, opened: int, answer: str, why: str) -> None:
    assert value.verdict(Gain("approve", {"approve": estimate}, opened)) == (answer, why)


# ------------------------------------------------------------------------------------------------------------------ curves


def test_profit_curve_runs_from_the_baseline_to_the_model() -> None:
    rng = np.random.default_rng(12)
    margin, policy, baseline = rng.exponential(size=300), rng.normal(size=300), rng.normal(size=300)
    curve = value.profit_curve(margin, policy, baseline)
    assert curve[0] == (0.0, pytest.approx(baseline.mean()))
    assert curve[-1] == (1.0, pytest.approx(policy.mean()))
    top = np.argsort(-margin)[:150]
    mixed = baseline.copy()
    mixed[top] = policy[top]
    assert curve[50] == (0.5, pytest.approx(mixed.mean()))


def test_profit_curve_hands_over_equal_margins_together() -> None:
    policy = np.array([10.0, 0.0, -10.0, 0.0])
    curve = value.profit_curve(np.zeros(4), policy, np.zeros(4), points=5)
    assert [v for _, v in curve] == [0.0] * 5
    assert value.profit_curve(np.array([]), np.array([]), np.array([]), points=2) == ((0.0, 0.0), (1.0, 0.0))


def test_decision_curve_is_net_benefit_by_hand() -> None:
    hit = np.array([True, True, False, False, False])
    p = np.array([0.8, 0.2, 0.5, 0.2, 0.1])
    found = value.decision_curve(hit, p, np.array([0.2, 0.6]))
    assert found[0] == pytest.approx((0.2, 2 / 5 - 2 / 5 * 0.25, 2 / 5 - 3 / 5 * 0.25))
    assert found[1] == pytest.approx((0.6, 1 / 5, 2 / 5 - 3 / 5 * 1.5))
    assert len(value.decision_curve(hit, p)) == 99
    assert value.decision_curve(hit[:0], p[:0], np.array([0.5])) == ((0.5, 0.0, 0.0),)
