from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from makegood.contracts import Floats
from makegood.monitoring import experiments, guardrails
from makegood.monitoring.experiments import Terms, Trial
from makegood.monitoring.maturity import NEVER, Outcomes

TERMS = Terms(cap=(0.0, 10.0), missing=0.0, unit="EUR")


def shadow(paid: Floats, known: float = 1.0) -> Trial:
    n = len(paid)
    at, none = np.arange(n), np.zeros(n, np.int64)
    known_at = np.where(np.random.default_rng(0).random(n) < known, at, NEVER)
    rows = Outcomes(at, at, np.zeros(n), np.where(known_at < NEVER, paid, np.nan), known_at, np.ones(n, np.bool_), none, np.full(n, -9.0))
    return experiments.paired(rows, np.ones(n, np.bool_))


def test_few_harmed_decisions_hold_many_do_not_and_few_units_tell_nothing() -> None:
    z = np.where(np.arange(2000) % 20 == 0, -9.0, 1.0)
    held = guardrails.harm(shadow(z), TERMS, NEVER, limit=0.1)
    assert (held.name, held.limit, held.held) == ("harm", 0.1, True)
    assert held.found.value == 0.05
    assert 0.0 < held.found.low < 0.05 < held.found.high < 0.1
    assert guardrails.harm(shadow(z), TERMS, NEVER, limit=0.02).held is False
    assert guardrails.harm(shadow(z), TERMS, NEVER, limit=0.05).held is None
    nothing = guardrails.harm(shadow(z), replace(TERMS, since=NEVER), NEVER - 1, limit=0.1)
    assert nothing.held is None
    assert np.isnan(nothing.found.value)


def test_harm_without_an_outcome_is_that_of_the_rule() -> None:
    z = np.where(np.arange(4000) % 10 == 0, -9.0, 1.0)
    some = shadow(z, known=0.5)
    assert guardrails.harm(some, TERMS, NEVER, 0.5).found.value == pytest.approx(0.05, abs=0.02)
    assert guardrails.harm(some, replace(TERMS, missing="failure"), NEVER, 0.5).found.value == pytest.approx(0.55, abs=0.03)
    imputed = guardrails.harm(some, replace(TERMS, missing="impute"), NEVER, 0.5).found
    assert imputed.value == pytest.approx(0.1, abs=0.03)
    assert imputed.low < 0.1 < imputed.high


def test_what_is_not_revealed_may_have_harmed_and_may_not() -> None:
    hidden = np.arange(4000) % 4 == 0
    trial = shadow(np.where(hidden, np.nan, 1.0))
    trial = experiments.paired(replace(trial.outcomes, revealed=~hidden), np.ones(4000, np.bool_))
    found = guardrails.harm(trial, TERMS, NEVER, limit=0.1)
    assert (found.held, found.found.low < 0.01, found.found.high > 0.25) == (None, True, True)
    assert guardrails.harm(trial, TERMS, NEVER, limit=0.3).held is True
    levels = {"sex": np.array(["f"] * 4000, dtype=object)}
    for terms in (TERMS, replace(TERMS, cap=None)):
        rails = guardrails.slices(trial, terms, NEVER, levels, limit=1.0)
        assert rails[0].held is None  # at −9 for each of them it pays 1.5 less on average, and may pay more
        assert rails[0].found.low < -1.0
    endless = replace(trial, outcomes=replace(trial.outcomes, worst=np.full(4000, -np.inf)))
    assert np.isnan(guardrails.slices(endless, replace(TERMS, cap=None), NEVER, levels, limit=1.0)[0].found.value)


def test_of_a_randomised_trial_only_the_share_that_differs_is_known() -> None:
    at = np.arange(2000)
    rows = Outcomes(at, at, at * 0.0, at * 0.0, at, np.ones(2000, np.bool_), at * 0, at * 0.0)
    trial = experiments.weighted(rows, at % 10 == 0, at % 20 == 0, np.full(2000, 0.5))
    found = guardrails.harm(trial, TERMS, NEVER, limit=0.2)
    assert (found.held, found.found.value, found.found.low) == (True, 0.1, 0.0)
    assert guardrails.harm(trial, TERMS, NEVER, limit=0.05).held is None


def test_each_level_is_held_to_the_limit_and_all_share_the_error() -> None:
    z = np.where(np.arange(3000) % 3 == 0, -4.0, 2.0)
    columns = {"sex": np.where(np.arange(3000) % 3 == 0, "f", "m").astype(object), "all": np.array(["x"] * 3000, dtype=object)}
    found = guardrails.slices(shadow(z), TERMS, NEVER, columns, limit=1.0)
    assert [(rail.name, rail.held, rail.limit) for rail in found] == [
        ("sex=f", False, -1.0),
        ("sex=m", True, -1.0),
        ("all=x", True, -1.0),
    ]
    assert found[0].found.level == pytest.approx(1.0 - 2.0 * 0.05 / 3.0)
    assert (found[0].found.value, found[0].found.unit) == (-4.0, "EUR")
    assert guardrails.slices(shadow(z), TERMS, NEVER, {}, limit=1.0) == ()


def test_a_small_level_is_undecided_and_a_payoff_beyond_its_cap_leaves_it_so() -> None:
    few = guardrails.slices(shadow(np.ones(5)), TERMS, NEVER, {"sex": np.array(["f"] * 5, dtype=object)}, limit=1.0)
    assert few[0].held is None
    beyond = guardrails.slices(shadow(np.full(5000, -11.0)), TERMS, NEVER, {"sex": np.array(["f"] * 5000, dtype=object)}, limit=1.0)
    assert beyond[0].held is None
    assert (beyond[0].found.value, np.isnan(beyond[0].found.low)) == (-11.0, True)


def test_without_caps_levels_have_the_asymptotic_interval() -> None:
    z = np.random.default_rng(1).normal(3.0, 1.0, 2000)
    found = guardrails.slices(shadow(z), replace(TERMS, cap=None), NEVER, {"sex": np.array(["f"] * 2000, dtype=object)}, limit=1.0)
    assert found[0].held is True
    assert 2.8 < found[0].found.low < 3.0 < found[0].found.high < 3.2


def test_latency_is_the_ratio_of_two_medians() -> None:
    rng = np.random.default_rng(2)
    mine, theirs = rng.lognormal(-5.0, 0.3, 500), rng.lognormal(-4.6, 0.3, 500)
    found = guardrails.latency(mine, theirs, limit=2.0)
    assert (found.name, found.held, found.found.unit) == ("latency", True, "×")
    assert found.found.low < np.exp(0.4) < found.found.high
    assert guardrails.latency(mine, theirs, limit=1.1).held is False
    assert guardrails.latency(mine, theirs, limit=1.5).held is None


@pytest.mark.parametrize("n", [0, 1, 10])
def test_few_times_tell_nothing(n: int) -> None:
    found = guardrails.latency(np.ones(n), np.ones(n), limit=1.5)
    assert found.held is None
    assert found.found.high == np.inf
    assert found.found.low == 0.0


def test_the_interval_of_a_median_holds_it_at_all_times() -> None:
    missed = 0
    for seed in range(200):
        x = np.random.default_rng([seed, 13]).exponential(size=3000)
        for n in np.unique(np.geomspace(5, 3000, 15).astype(int)).tolist():
            _, low, high = guardrails._quantile(np.sort(x[:n]), 0.1)
            if not low <= np.log(2.0) <= high:
                missed += 1
                break
    assert missed / 200 <= 0.1 + 2.33 * np.sqrt(0.1 * 0.9 / 200)
