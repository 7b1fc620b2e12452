from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from makegood.contracts import Floats, Ints, PayoffRange
from makegood.economics import resample, robust, value


@dataclass(frozen=True)
class Cell:
    """One payoff's share in what every option is expected to pay, and pays."""

    action: str
    outcome: str
    expression: str
    expected_part: Floats
    realised_part: Floats


@dataclass(frozen=True)
class World:
    """Loans: approve (0) gains 1 or loses `loss`, decline (1) pays nothing, refer (2) costs 0.1 and gains half."""

    scores: Floats
    realised: Floats
    chosen: Ints
    cells: tuple[Cell, ...]
    baselines: dict[str, Floats]
    cost: float = 0.0  # of each decision of the policy, beyond what it is paid

    def ranges(self, clusters: Ints | None = None) -> tuple[PayoffRange, ...]:
        return robust.payoff_ranges(
            self.cells,
            chosen=self.chosen,
            scores=self.scores,
            realised=self.realised,
            baselines=self.baselines,
            gain=self.gain(self.realised, clusters),
            clusters=clusters,
        )

    def gain(self, realised: Floats, clusters: Ints | None = None) -> value.Gain:
        policy = realised[np.arange(len(self.chosen)), self.chosen]
        payoffs = {name: (weights * realised).sum(axis=1) for name, weights in self.baselines.items()}
        return value.gain(policy, payoffs, "EUR", clusters=clusters, cost=self.cost)


def world(n: int, sharp: float, seed: int = 0, loss: float = 4.0) -> World:
    """Return a world whose model has the default's log odds times `sharp`: one is right, nothing is blind, less is the wrong way."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    bad = rng.random(n) < 1 / (1 + np.exp(1.6 - 1.5 * z))
    p = 1 / (1 + np.exp(1.6 - 1.5 * sharp * z))
    amount = rng.lognormal(0.0, 0.5, n)
    zero = np.zeros(n)

    def cell(action: str, outcome: str, expression: str, money: Floats, position: int) -> Cell:
        part = np.column_stack([money if j == position else zero for j in range(3)])
        yes = outcome == "yes"
        weight, came = (p, bad) if yes else (1 - p, ~bad)
        if not outcome:
            weight, came = np.ones(n), np.ones(n, dtype=bool)
        return Cell(action, outcome, expression, part * weight[:, None], part * came[:, None])

    cells = (
        cell("approve", "no", "amount", amount, 0),
        cell("approve", "yes", f"-{loss} * amount", -loss * amount, 0),
        cell("decline", "", "0", zero, 1),
        cell("refer", "no", "0.5 * amount", 0.5 * amount, 2),
        cell("refer", "yes", "-0.9 * amount", -0.9 * amount, 2),
    )
    scores, realised = (sum(getattr(c, part) for c in cells) for part in ("expected_part", "realised_part"))
    constant = np.eye(3)
    half = np.full((n, 3), 1.0) * np.array([0.6, 0.4, 0.0])
    baselines = {"approve": np.tile(constant[0], (n, 1)), "decline": np.tile(constant[1], (n, 1)), "approve 60%": half}
    return World(scores, realised, scores.argmax(axis=1), cells, baselines)


def lower_limit(w: World, cell: Cell, s: float, clusters: Ints | None = None) -> tuple[float, float]:
    """Return the least lower limit and the least mean gain at factor s, with the critical values of factor one."""
    declared = w.gain(w.realised, clusters)
    limits, means = [], []
    for name, weights in w.baselines.items():
        swap = np.eye(3)[w.chosen] - weights

        def moments(factor: float, swap: Floats = swap) -> tuple[float, float]:
            gain = (swap * (w.realised + (factor - 1.0) * cell.realised_part)).sum(axis=1) - w.cost
            mean, covariance = resample.jackknife(resample.gather(np.column_stack([gain, np.ones(len(gain))]), clusters))
            return float(mean[0]), math.sqrt(covariance[0, 0])

        found = declared.estimates[name]
        q = (found.value - found.low) / moments(1.0)[1]
        mean, error = moments(s)
        limits.append(mean - q * error)
        means.append(mean)
    return min(limits), min(means)


@pytest.mark.parametrize(
    ("sharp", "loss", "cost", "verdict"),
    [
        (1.0, 4.0, 0.0, "deploy"),
        (1.0, 12.0, 0.0, "deploy"),
        (0.5, 0.5, 0.0, "refuse"),
        (-0.5, 4.0, 0.0, "refuse"),
        (-0.5, 12.0, 0.0, "refuse"),
        (1.0, 4.0, 0.1, "deploy"),
        (1.0, 4.0, 0.5, "refuse"),
    ],
)
@pytest.mark.parametrize("grouped", [False, True])
def test_the_verdict_turns_where_the_range_ends(sharp: float, loss: float, cost: float, verdict: str, grouped: bool) -> None:
    w = replace(world(800, sharp, seed=3, loss=loss), cost=cost)
    clusters = np.arange(800) // 16 if grouped else None
    assert value.verdict(w.gain(w.realised, clusters))[0] == verdict
    cells = [c for c in w.cells if c.expression != "0"]
    for cell, found in zip(cells, w.ranges(clusters), strict=True):
        stands = 1.0 if verdict == "deploy" else -1.0
        for end, outside in ((found.verdict_low, -1e-3), (found.verdict_high, 1e-3)):
            if math.isfinite(end):
                assert stands * lower_limit(w, cell, end - outside, clusters)[0] > 0
                assert stands * lower_limit(w, cell, end + outside, clusters)[0] < 0
            else:
                assert stands * lower_limit(w, cell, math.copysign(1e4, end), clusters)[0] >= 0
        for s in np.linspace(max(found.verdict_low, -5) + 1e-6, min(found.verdict_high, 7) - 1e-6, 25):
            assert stands * lower_limit(w, cell, float(s), clusters)[0] >= -1e-12
        if math.isfinite(found.break_even):
            assert lower_limit(w, cell, found.break_even, clusters)[1] == pytest.approx(0.0, abs=1e-9)
        else:
            assert len({lower_limit(w, cell, float(s), clusters)[1] > 0 for s in np.linspace(-50, 50, 41)}) == 1


def test_actions_stay_for_95_percent_of_the_rows_in_the_range_and_not_beyond() -> None:
    w = world(997, 1.0, seed=4)
    cells = [c for c in w.cells if c.expression != "0"]
    for cell, found in zip(cells, w.ranges(), strict=True):
        best = w.scores.argmax(axis=1)

        def same(s: float, part: Floats = cell.expected_part, best: Ints = best) -> float:
            return float(np.mean((w.scores + (s - 1.0) * part).argmax(axis=1) == best))

        for end, outside in ((found.actions_low, -1e-9), (found.actions_high, 1e-9)):
            assert same(end - outside) >= 0.95 if math.isfinite(end) else same(math.copysign(1e6, end)) >= 0.95
            assert not math.isfinite(end) or same(end + outside) < 0.95


def test_known_answer() -> None:
    """Four hundred rows gain 1 or 3 by turns where nothing gains 0: break-even at 0, and the range by hand."""
    payoff = np.tile([1.0, 3.0], 200)
    part = np.column_stack([payoff, np.zeros(400)])
    cell = Cell("act", "", "gain", part, part)
    never = np.tile([0.0, 1.0], (400, 1))
    gain = value.gain(payoff, {"never": np.zeros(400)}, "EUR")
    chosen = np.zeros(400, dtype=int)
    (found,) = robust.payoff_ranges([cell], chosen=chosen, scores=part, realised=part, baselines={"never": never}, gain=gain)
    assert (found.action, found.outcome, found.expression, found.mean) == ("act", "", "gain", 2.0)
    assert found.break_even == pytest.approx(0.0)
    assert (found.verdict_low, found.verdict_high) == (pytest.approx(0.0), math.inf)
    assert (found.actions_low, found.actions_high) == (pytest.approx(0.0), math.inf)


def test_a_payoff_of_zero_is_left_out() -> None:
    assert [(f.action, f.outcome) for f in world(300, 1.0).ranges()] == [
        ("approve", "no"),
        ("approve", "yes"),
        ("refer", "no"),
        ("refer", "yes"),
    ]


def test_an_outcome_that_never_came_has_a_range_of_actions_alone() -> None:
    realised = np.column_stack([np.ones(200), np.zeros(200)])
    cell = Cell("act", "rare", "-100", np.column_stack([np.full(200, -0.5), np.zeros(200)]), np.zeros((200, 2)))
    scores = np.column_stack([np.full(200, 0.5), np.zeros(200)])
    baselines = {"never": np.tile([0.0, 1.0], (200, 1))}
    gain = value.gain(realised[:, 0], {"never": realised[:, 1]})
    (found,) = robust.payoff_ranges(
        [cell], chosen=np.zeros(200, dtype=int), scores=scores, realised=realised, baselines=baselines, gain=gain
    )
    assert found.mean == 0.0
    assert (found.verdict_low, found.verdict_high, found.actions_high) == (-math.inf, math.inf, 2.0)
    assert math.isnan(found.break_even)


def test_a_refusal_for_want_of_units_stands_whatever_is_paid() -> None:
    w = world(300, 1.0)
    for found in w.ranges(np.arange(300) // 100):
        assert (found.verdict_low, found.verdict_high) == (-math.inf, math.inf)


def test_a_policy_that_is_its_baseline_never_breaks_even() -> None:
    part = np.column_stack([np.arange(100.0), np.zeros(100)])
    first = np.tile([1.0, 0.0], (100, 1))
    gain = value.gain(part[:, 0], {"act": part[:, 0]})
    (found,) = robust.payoff_ranges(
        [Cell("act", "", "x", part, part)], chosen=np.zeros(100, dtype=int), scores=part, realised=part, baselines={"act": first}, gain=gain
    )
    assert math.isnan(found.break_even)
    assert (found.verdict_low, found.verdict_high) == (-math.inf, math.inf)


def test_a_gain_that_is_the_same_on_every_row_turns_at_its_zero() -> None:
    """Where rows do not differ at factor one, a change that makes them differ is judged by the normal quantile."""
    n = 400
    cost = np.where(np.arange(n) % 2 == 0, 0.5, 1.5)
    realised = np.column_stack([np.ones(n), np.zeros(n)])
    part = np.column_stack([-cost, np.zeros(n)])  # a part of the payoff; the rest makes every row earn one
    gain = value.gain(realised[:, 0], {"never": realised[:, 1]})
    baselines = {"never": np.tile([0.0, 1.0], (n, 1))}
    (found,) = robust.payoff_ranges(
        [Cell("act", "", "-cost", part, part)],
        chosen=np.zeros(n, dtype=int),
        scores=realised,
        realised=realised,
        baselines=baselines,
        gain=gain,
    )
    assert found.break_even == pytest.approx(2.0)
    assert found.verdict_high == pytest.approx(1.0 + 1.0 / (1.0 + 1.96 * cost.std(ddof=1) / 20), rel=1e-4)


def test_no_rows_no_change() -> None:
    assert robust.same_actions(np.empty((0, 2)), np.empty((0, 2))) == (-math.inf, math.inf)


def test_one_row_in_twenty_may_change() -> None:
    scores = np.column_stack([np.arange(1.0, 21.0), np.zeros(20)])
    part = np.column_stack([np.full(20, -1.0), np.zeros(20)])
    assert robust.same_actions(scores, part) == (-math.inf, 3.0)
    assert robust.same_actions(scores, -part) == (-1.0, math.inf)
