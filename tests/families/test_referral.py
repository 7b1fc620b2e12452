"""bench/referral.py with fewer seeds: on a task whose truth is known, referring by payoff earns more than never referring."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from tests import benches

referral = benches.load("referral")

SEEDS = 6  # the fewest that have an interval


@pytest.mark.slow
@pytest.mark.timeout(600)  # twelve trainings, each with a graph of its own
def test_referring_by_payoff_earns_more_than_never_referring() -> None:
    figures = referral.classes_figures([referral.decided(seed, 0.02, members=2) for seed in range(SEEDS)])
    for name, part in referral.plain(figures).items():
        sys.stdout.write(f"{name}: {part}\n")
    for name in ("dropout", "ensemble", "both"):
        gain = figures["referring against never"][name]
        assert gain.low > 0.0, (name, gain)
        covered, covered_scarce = figures["votes' range holds p(x)"][name]
        assert 0.0 < covered < 1.0
        assert 0.0 < covered_scarce < 1.0
    oracle = figures["earned"][referral.ORACLE]["refer"].value
    assert all(earned["refer"].value < oracle for name, earned in figures["earned"].items() if name != referral.ORACLE)


@pytest.mark.slow
def test_intervals_of_a_number_are_wider_where_rows_are_scarce() -> None:
    found = referral.held(0, 0.02, {"one network": {}, "both": {"members": 2, "passes": 8}})
    sys.stdout.write(f"90% intervals: {found}\n")
    assert found["one network"]["width"] == pytest.approx(found["one network"]["width, scarce"])
    assert found["both"]["width, scarce"] > 1.2 * found["both"]["width"]
    for held in found.values():  # of 700 rows: the validation rows' draw and the new ones' make .022
        assert abs(held["held"] - 0.9) < 3 * 0.022


def test_a_model_is_judged_by_the_truth_and_not_by_what_it_says() -> None:
    """Three rows of p(yes) = .5: saying a class earns (10 − 40) / 2 = −15, a person 2."""
    p, scarce = np.full((3, 2), 0.5), np.array([False, True, True])
    sure = referral.judged(p, scarce, referral.Probabilities(referral.CLASSES, np.array([[0.9, 0.1], [0.02, 0.98], [0.5, 0.5]])), p[:, 1:])
    assert (sure.refer, sure.never) == ((-15.0 - 15.0 + 2.0) / 3, -15.0)
    assert (sure.referred, sure.referred_scarce) == (0.0, 0.5)
    votes = np.array([[0.4, 0.6], [0.4, 0.6], [0.7, 0.8]])
    seen = referral.judged(p, scarce, referral.Probabilities(referral.CLASSES, p), votes)
    assert (seen.refer, seen.covered, seen.covered_scarce) == (2.0, 1.0, 0.5)
