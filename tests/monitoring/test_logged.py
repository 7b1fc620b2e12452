from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests import benches

from makegood.contracts import Floats, Ints
from makegood.errors import DataError
from makegood.monitoring import bounds, logged
from makegood.monitoring.logged import Decisions, Seen

simulated = benches.load("logged_value")

DAY = 86_400_000_000


def decided(n: int, seed: int = 0, units: int | None = None, n_options: int = 3) -> Decisions:
    """Return decisions, one a minute, by chances that differ from row to row."""
    rng = np.random.default_rng(seed)
    e = 0.1 + (1.0 - 0.1 * n_options) * rng.dirichlet(np.ones(n_options), n)
    done = (rng.random(n)[:, None] > np.cumsum(e, axis=1)).sum(axis=1).clip(max=n_options - 1)
    unit = np.arange(n) if units is None else rng.integers(0, units, n)
    return Decisions(np.arange(n) * 60_000_000, unit, done, e)


def half(n: int, low: float = 0.0, high: float = 9.0) -> tuple[Decisions, Seen, Floats, bounds.Ends]:
    """Return a fair experiment of two options that pay 1 and 3, decided a day apart, with what is expected and the ends."""
    done = np.arange(n) % 2
    decisions = Decisions(np.arange(n) * DAY, np.arange(n), done, np.full((n, 2), 0.5))
    q = np.tile([1.0, 3.0], (n, 1))
    return decisions, logged.by_action(decisions, 1.0 + 2.0 * done, np.ones((n, 2))), q, (np.full((n, 2), low), np.full((n, 2), high))


# -------------------------------------------------------------------------------------------------------------- simulations


@pytest.mark.slow
@pytest.mark.parametrize("name", simulated.SIMULATIONS)
def test_what_is_promised_holds_and_what_is_wrong_fails(name: str) -> None:
    _, repetitions, simulate = simulated.SIMULATIONS[name]
    figure = simulate(repetitions)
    assert figure.holds(0.0 if "bias" in name or "exploration" in name else 3.0), figure


def test_a_broken_promise_is_noticed() -> None:
    assert not simulated.Figure(0.90, 0.01, 0.94, 0.96).holds(3.0)
    assert simulated.Figure(0.92, 0.01, 0.94, 0.96).holds(3.0)
    assert simulated.Figure(0.90, 0.01, 0.94, 0.96, attack=True).holds(3.0)
    assert not simulated.Figure(0.92, 0.01, 0.94, 0.96, attack=True).holds(3.0)


# ---------------------------------------------------------------------------------------------------------------- decisions


@pytest.mark.parametrize("chances", [[0.5, 0.4], [1.2, -0.2], [np.nan, 1.0]])
def test_chances_that_are_none_are_refused(chances: list[float]) -> None:
    rows = np.tile([0.5, 0.5], (3, 1))
    rows[1] = chances
    with pytest.raises(
        DataError, match=r"^propensities of decision 1: got '.*'; expected chances that add up to 1; leave these decisions out"
    ):
        Decisions(np.arange(3), np.arange(3), np.zeros(3, dtype=np.int64), rows)


@pytest.mark.parametrize("units", [[7, -3, 7, 9], [7, -3, 7, 900]])
def test_units_are_numbered_without_a_gap(units: list[int]) -> None:
    found = Decisions(np.arange(4), np.array(units), np.zeros(4, dtype=np.int64), np.ones((4, 1)))
    assert found.codes.tolist() == [1, 0, 1, 2]


# --------------------------------------------------------------------------------------------------------------------- seen


def test_recorded_shares_are_counted_by_option_and_segment() -> None:
    decisions = decided(5000)
    rng = np.random.default_rng(1)
    segment, recorded = rng.integers(0, 4, 5000), rng.random(5000) < 0.6
    found = logged.observed(decisions, recorded, segment)
    for s in range(4):
        for a in range(3):
            rows = (segment == s) & (decisions.done == a)
            np.testing.assert_allclose(found[segment == s, a], recorded[rows].mean())


def test_what_is_rarely_tried_or_rarely_recorded_is_no_trial() -> None:
    chance = np.array([[0.98, 0.02], [0.995, 0.005]])
    decisions = Decisions(np.arange(2), np.arange(2), np.array([0, 1]), chance)
    seen = logged.by_action(decisions, np.array([5.0, 7.0]), np.array([[0.5, 0.5], [0.04, 0.5]]))
    np.testing.assert_allclose(seen.chance, [[0.49, 0.01], [0.0, 0.0]])
    assert logged.by_action(decisions, np.array([5.0, 7.0]), np.ones((2, 2)), least=0.001).chance.tolist() == chance.tolist()


def test_what_is_known_whatever_comes_needs_no_trial() -> None:
    decisions = Decisions(np.arange(3), np.arange(3), np.zeros(3, dtype=np.int64), np.tile([1.0, 0.0], (3, 1)))
    known = np.array([[np.nan, 0.0], [np.nan, 0.0], [np.nan, np.nan]])
    seen = logged.by_action(decisions, np.array([5.0, np.nan, 2.0]), np.full((3, 2), 0.5), known)
    np.testing.assert_array_equal(seen.paid, [[5.0, 0.0], [np.nan, 0.0], [2.0, np.nan]])
    np.testing.assert_array_equal(seen.chance, [[0.5, 1.0], [0.5, 1.0], [0.5, 0.0]])
    phi, weight, unsupported = logged.doubly_robust(seen, np.array([1, 1, 1]), np.full((3, 2), 99.0))
    assert (phi.tolist(), weight.tolist(), unsupported.tolist()) == ([0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0])


def test_an_outcome_that_no_action_moves_tells_of_every_action() -> None:
    """A loan's default: approving reveals it, and what to decline would have paid is known with it; unbiased with a wrong q̂."""
    rng = np.random.default_rng(2)
    n = 200_000
    x = rng.normal(size=n)
    bad = rng.random(n) < 1.0 / (1.0 + np.exp(-x))
    e = 0.1 + 0.8 / (1.0 + np.exp(x))
    done = (rng.random(n) > e).astype(np.int64)  # 0 approves
    table = np.column_stack([np.where(bad, -5.0, 1.0), np.where(bad, 0.5, -0.2)])
    recorded = (done == 0) & (rng.random(n) < 0.7)
    decisions = Decisions(np.arange(n), np.arange(n), done, np.column_stack([e, 1.0 - e]))
    paid = np.where(recorded[:, None], table, np.nan)
    observed = logged.observed(decisions, recorded)
    seen = logged.by_outcome(decisions, paid, observed, np.array([True, False]))
    share = np.column_stack([x < 0, x >= 0]).astype(np.float64)
    difference = logged.doubly_robust(seen, share, np.zeros((n, 2)))[0] - (share * table).sum(axis=1)
    assert abs(difference.mean()) < 3.0 * difference.std() / np.sqrt(n)
    only = logged.by_action(decisions, np.where(recorded, table[:, 0], np.nan), observed)
    assert logged.doubly_robust(only, share, np.zeros((n, 2)))[2].mean() == pytest.approx(0.5, abs=0.01)  # declined: nothing is seen


def test_an_outcome_seldom_revealed_is_not_seen() -> None:
    decisions = Decisions(np.arange(2), np.arange(2), np.array([1, 0]), np.array([[0.001, 0.999], [0.5, 0.5]]))
    paid, reveals = np.ones((2, 2)), np.array([True, False])
    assert logged.by_outcome(decisions, paid, np.ones((2, 2)), reveals).chance.tolist() == [[0.0, 0.0], [0.5, 0.5]]
    assert logged.by_outcome(decisions, paid, np.full((2, 2), 0.01), reveals).chance.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    known = logged.by_outcome(decisions, paid, np.ones((2, 2)), reveals, np.array([[np.nan, 0.0]] * 2))
    np.testing.assert_array_equal(known.paid, [[np.nan, 0.0], [1.0, 0.0]])  # what does not reveal cannot have been seen
    assert known.chance.tolist() == [[0.0, 1.0], [0.5, 1.0]]


# ------------------------------------------------------------------------------------------------------------ cross-fitting


@pytest.mark.parametrize("units", [None, 40, 300])
def test_folds_learn_from_earlier_times_and_other_units(units: int | None) -> None:
    decisions = decided(1000, units=units)
    decisions = replace(decisions, at=np.random.default_rng(3).permutation(decisions.at))
    found = logged.folds(decisions)
    assert np.array_equal(np.sort(np.concatenate([fold.test for fold in found])), np.arange(1000))
    for fold in found:
        assert not set(decisions.unit[fold.train]) & set(decisions.unit[fold.test])
        assert not len(fold.train) or decisions.at[fold.train].max() < decisions.at[fold.test].min()
    assert len(found) == (5 if units is None else 10)
    assert max(len(fold.train) for fold in found) > (700 if units is None else 300)


def test_decisions_of_one_moment_share_a_fold() -> None:
    decisions = Decisions(np.zeros(10, dtype=np.int64), np.arange(10), np.zeros(10, dtype=np.int64), np.ones((10, 1)))
    (fold,) = logged.folds(decisions)
    assert (len(fold.train), len(fold.test)) == (0, 10)


def test_a_given_learner_sees_each_fold_once() -> None:
    decisions = decided(500, units=60)
    calls: list[tuple[Ints, Ints]] = []

    def fit(train: Ints, test: Ints) -> Floats:
        calls.append((train, test))
        return np.column_stack([test, np.full(len(test), len(train)), test * 0.0])

    found = logged.cross_fitted(decisions, fit)
    assert found[:, 0].tolist() == list(range(500))
    assert len(calls) == len(logged.folds(decisions))


def test_a_bundle_that_is_right_is_left_nearly_as_it_is_and_one_that_is_off_is_mended() -> None:
    rng = np.random.default_rng(4)
    decisions = decided(20_000)
    mean = rng.normal(size=(20_000, 3)) + np.array([0.0, 5.0, 100.0])
    paid = mean[np.arange(20_000), decisions.done] + rng.normal(size=20_000)
    seen = logged.by_action(decisions, paid, np.ones((20_000, 3)))
    late = decisions.at > decisions.at[5000]
    for expected in (mean, 2.0 * mean - 7.0, 0.1 * mean + 50.0):
        found = logged.recalibrated(decisions, seen, expected)
        assert np.abs(found - mean)[late].max() < 1.0
        assert found[:4000].tolist() == expected[:4000].tolist()  # nothing was known yet
    assert np.abs(0.1 * mean + 50.0 - mean)[late].mean() > 10.0


def test_few_rows_move_an_expectation_little_and_none_do_not_at_all() -> None:
    decisions = Decisions(np.arange(10), np.arange(10), np.zeros(10, dtype=np.int64), np.tile([1.0, 0.0], (10, 1)))
    seen = logged.by_action(decisions, np.full(10, 12.0), np.ones((10, 2)))
    found = logged.recalibrated(decisions, seen, np.ones((10, 2)))
    np.testing.assert_allclose(
        found[:, 0], 1.0 + 11.0 * np.array([0, 0, 2, 2, 4, 4, 6, 6, 8, 8]) / (np.array([0, 0, 2, 2, 4, 4, 6, 6, 8, 8]) + 10.0)
    )
    assert found[:, 1].tolist() == [1.0] * 10


def test_no_row_moves_its_own_expectation_nor_that_of_its_unit_or_its_past() -> None:
    decisions = decided(2000, units=150)
    rng = np.random.default_rng(5)
    paid, expected = rng.normal(size=2000), rng.normal(size=(2000, 3))
    before = logged.recalibrated(decisions, logged.by_action(decisions, paid, np.ones((2000, 3))), expected)
    moved = 0
    for i in (3, 500, 1000, 1500):
        other = paid.copy()
        other[i] += 1000.0
        after = logged.recalibrated(decisions, logged.by_action(decisions, other, np.ones((2000, 3))), expected)
        changed = (after != before).any(axis=1)
        assert not changed[decisions.unit == decisions.unit[i]].any()
        assert not changed[: i + 1].any()
        moved += int(changed.sum())
    assert moved > 1000


# -------------------------------------------------------------------------------------------------------------------- value


def test_it_is_the_formula_row_by_row() -> None:
    decisions = decided(300)
    rng = np.random.default_rng(6)
    recorded = rng.random(300) < 0.7
    paid, g, q, share = rng.normal(size=300), rng.uniform(0.5, 1.0, (300, 3)), rng.normal(size=(300, 3)), rng.dirichlet(np.ones(3), 300)
    seen = logged.by_action(decisions, np.where(recorded, paid, np.nan), g)
    phi, weight, unsupported = logged.doubly_robust(seen, share, q)
    for i in range(300):
        a = decisions.done[i]
        w = share[i, a] / decisions.chance[i, a] * recorded[i] / g[i, a]
        assert phi[i] == pytest.approx(sum(share[i, b] * q[i, b] for b in range(3)) + w * (paid[i] - q[i, a]))
        assert weight[i] == pytest.approx(w)
    assert not unsupported.any()


def test_a_choice_is_a_chance_of_one() -> None:
    decisions = decided(500)
    rng = np.random.default_rng(7)
    choice, q = rng.integers(0, 3, 500), rng.normal(size=(500, 3))
    seen = logged.by_action(decisions, rng.normal(size=500), np.ones((500, 3)))
    for one, other in zip(logged.doubly_robust(seen, choice, q), logged.doubly_robust(seen, np.eye(3)[choice], q), strict=True):
        np.testing.assert_allclose(one, other)


def test_the_logging_policy_is_worth_what_it_paid() -> None:
    decisions = Decisions(np.arange(200), np.arange(200), np.zeros(200, dtype=np.int64), np.ones((200, 1)))
    paid = np.random.default_rng(8).normal(size=200)
    seen = logged.by_action(decisions, paid, np.ones((200, 1)))
    found = logged.worth("m", decisions, seen, np.zeros(200, dtype=np.int64), np.zeros((200, 1)), (paid[:, None], paid[:, None]), "EUR")
    assert found.value is not None
    assert found.value.value == pytest.approx(paid.mean())
    assert (found.model, found.why, found.effective, found.unsupported, found.bounds) == ("m", "", 200.0, 0.0, found.value)
    assert found.value.unit == "EUR"


def test_nothing_due_is_said() -> None:
    none = Decisions(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty((0, 2)))
    seen = logged.by_action(none, np.empty(0), np.empty((0, 2)))
    q = logged.recalibrated(none, seen, np.empty((0, 2)))
    found = logged.worth("m", none, seen, np.empty(0, dtype=np.int64), q, (q, q))
    assert found.value is None
    assert found.why == "No decision is due yet: the first estimate needs 100."
    assert np.isnan(found.bounds.value)
    assert logged.folds(none) == ()


def test_what_was_never_tried_has_bounds_alone() -> None:
    n = 400
    decisions = Decisions(np.arange(n), np.arange(n), np.zeros(n, dtype=np.int64), np.tile([1.0, 0.0], (n, 1)))
    seen = logged.by_action(decisions, np.full(n, 2.0), np.ones((n, 2)))
    between = np.tile([0.0, -1.0], (n, 1)), np.tile([9.0, 5.0], (n, 1))
    found = logged.worth("m", decisions, seen, (np.arange(n) < 100).astype(np.int64), np.zeros((n, 2)), between)
    assert found.value is None
    assert found.why.startswith("On 25.0% of the decisions it would have done what was never tried, or hardly ever: no number of rows")
    assert (found.unsupported, found.bounds.value) == (0.25, 0.75 * 2.0 + 0.25 * 2.0)
    assert found.bounds.low < 0.75 * 2.0 - 0.25 * 1.0
    assert found.bounds.high > 0.75 * 2.0 + 0.25 * 5.0
    never = logged.worth("m", decisions, seen, np.ones(n, dtype=np.int64), np.zeros((n, 2)), between)
    assert (never.value, never.effective, never.unsupported) == (None, 0.0, 1.0)
    assert never.why == "Nothing that it would have done was tried and seen. At the present rate no waiting helps: only exploration does."
    assert (never.bounds.low, never.bounds.high) == (-1.0, 5.0)


def test_too_few_trials_are_refused_with_the_time_that_they_need() -> None:
    decisions, seen, q, between = half(120)
    found = logged.worth("m", decisions, seen, np.ones(120, dtype=np.int64), q, between)
    assert found.value is None
    assert found.effective == 60.0
    assert (
        found.why == "What was tried is worth 60 decisions of its own, and an estimate needs 100: about 79 days more at the present rate."
    )
    assert found.bounds.low < (60 * 3.0 + 60 * 0.0) / 120 < (60 * 3.0 + 60 * 9.0) / 120 < found.bounds.high
    assert logged.worth("m", *_first(200), np.ones(200, dtype=np.int64), *half(200)[2:]).value is not None


def _first(n: int) -> tuple[Decisions, Seen]:
    return half(n)[:2]


@pytest.mark.parametrize(("step", "words"), [(DAY // 48, "about 40 hours"), (DAY // 1440, "about 79 minutes"), (1, "two minutes at most")])
def test_the_time_that_is_missing_is_told_in_words(step: int, words: str) -> None:
    decisions, seen, q, between = half(120)
    quick = replace(decisions, at=np.arange(120) * step)
    assert logged.worth("m", quick, seen, np.ones(120, dtype=np.int64), q, between).why.endswith(f": {words} more at the present rate.")


def test_one_heavy_decision_is_refused() -> None:
    decisions, seen, q, between = half(1200)
    chance = decisions.chance.copy()
    chance[1] = [0.985, 0.015]
    heavy = replace(decisions, chance=chance)
    seen = logged.by_action(heavy, seen.paid[np.arange(1200), decisions.done], np.ones((1200, 2)))
    found = logged.worth("m", heavy, seen, np.ones(1200, dtype=np.int64), q, between)
    assert found.value is None
    assert found.effective > 100.0
    assert found.why == "One decision carries 5.3% of the weight, and none may carry more than 5%: about 65 days more at the present rate."


def test_few_units_are_refused() -> None:
    decisions, seen, q, between = half(1000)
    few = replace(decisions, unit=np.arange(1000) // 250)
    found = logged.worth("m", few, seen, np.ones(1000, dtype=np.int64), q, between)
    assert found.value is None
    assert found.why == "The decisions are about 4 units, and an interval needs 6: about 500 days more at the present rate."


def test_chances_by_which_was_not_acted_are_refused() -> None:
    decisions, _, q, between = half(2000)
    wrong = replace(decisions, chance=np.tile([0.6, 0.4], (2000, 1)))
    seen = logged.by_action(wrong, 1.0 + 2.0 * decisions.done, np.ones((2000, 2)))
    found = logged.worth("m", wrong, seen, np.ones(2000, dtype=np.int64), q, between)
    assert found.value is None
    assert found.why == (
        "The mean weight is +0.25 from what the logged chances promise, which is 8.9 standard errors: what was done was not done by these "
        "chances, or outcomes were recorded otherwise than assumed. No waiting mends that."
    )
    bunched = replace(wrong, unit=np.arange(2000) % 1000 // 50 * 2 + decisions.done)  # units of fifty that did the same: twenty a side
    assert logged.worth("m", bunched, seen, np.ones(2000, dtype=np.int64), q, between).value is not None


# ------------------------------------------------------------------------------------------------------------- sample ratio


def test_the_p_value_is_never_below_that_of_the_exact_martingale_and_near_it() -> None:
    rng = np.random.default_rng(9)
    n = 20_000
    e = rng.uniform(0.02, 0.6, n)
    done = (rng.random(n) < np.clip(e * 1.08, 0, 1)).astype(np.int64)
    found = logged.ratio(Decisions(np.arange(n), np.arange(n), done, np.column_stack([1.0 - e, e])), ("a", "b"))
    logs = []
    for chance, y in ((1.0 - e, done == 0), (e, done == 1)):
        for tilt in logged._TILTS:
            steps = tilt * y - np.log1p(chance * np.expm1(tilt))
            logs.append(np.cumsum(steps)[(np.arange(1, 65) * n - 1) // 64])
    of_done = np.where(done == 1, e, 1.0 - e)
    for power in (0.0, 0.5, 2.0):
        steps = np.log(of_done**power / (e**power + (1.0 - e) ** power) / of_done)
        logs.append(np.cumsum(steps)[(np.arange(1, 65) * n - 1) // 64])
    exact = 1.0 / np.exp(logs).mean(axis=0).max()
    assert exact < 1e-3
    assert exact <= found.p <= 1.05 * exact
    assert not found.ok
    assert found.detail.startswith("Of 20,000 units that chance decided, ")


def test_chances_that_are_right_on_the_whole_and_not_by_row_are_noticed() -> None:
    decisions = decided(3000)
    assert decisions.chance[:, 0].mean() == pytest.approx(decisions.chance[:, 1].mean(), abs=0.02)
    swapped = replace(decisions, chance=decisions.chance[:, [1, 0, 2]])
    found = [logged.ratio(_until(swapped, n), "abc").p for n in (300, 1000, 3000)]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 1e-6
    assert logged.ratio(decisions, "abc").ok


def _until(d: Decisions, n: int) -> Decisions:
    return Decisions(d.at[:n], d.unit[:n], d.done[:n], d.chance[:n])


def test_the_first_draw_of_a_unit_counts_whatever_the_order_of_rows() -> None:
    decisions = decided(3000, units=400)
    mixed = np.random.default_rng(10).permutation(3000)
    other = Decisions(decisions.at[mixed], decisions.unit[mixed], decisions.done[mixed], decisions.chance[mixed])
    assert logged.ratio(other, "abc") == logged.ratio(decisions, "abc")
    assert logged.ratio(decisions, "abc").detail.startswith("Of 400 units ")


def test_what_had_no_chance_is_proof() -> None:
    found = logged.ratio(Decisions(np.arange(3), np.arange(3), np.array([0, 1, 1]), np.tile([1.0, 0.0], (3, 1))), "ab")
    assert (found.p, found.ok, found.detail) == (0.0, False, "2 decisions of 3 did what was logged to have no chance.")


def test_without_chance_there_is_nothing_to_test() -> None:
    found = logged.ratio(Decisions(np.arange(3), np.arange(3), np.zeros(3, dtype=np.int64), np.tile([1.0, 0.0], (3, 1))), "ab")
    assert (found.p, found.ok, found.detail) == (1.0, True, "Nothing was left to chance.")
    none = Decisions(*(np.empty(0, dtype=np.int64),) * 3, np.empty((0, 2)))
    assert logged.ratio(none, "ab") == found


def test_the_option_farthest_off_is_named() -> None:
    n = 5000
    done = np.random.default_rng(11).choice(3, n, p=[0.3, 0.4, 0.3])
    chance = np.tile([0.3, 0.3, 0.4, 0.0], (n, 1))
    found = logged.ratio(Decisions(np.arange(n), np.arange(n), done, chance), ("a", "b", "c", "never"))
    assert not found.ok
    assert "got 'b', of which 30.00% was logged" in found.detail or "got 'c', of which 40.00% was logged" in found.detail
