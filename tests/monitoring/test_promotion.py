"""What bench/promotion.py simulates in full, with fewer repetitions and bounds that are wider by their standard errors."""

from __future__ import annotations

import numpy as np
import pytest
from tests import benches

from makegood.monitoring import asymptotic, betting

simulated = benches.load("promotion")


@pytest.mark.slow
@pytest.mark.parametrize("name", simulated.SIMULATIONS)
def test_what_is_promised_holds_and_what_is_wrong_fails(name: str) -> None:
    for figure in simulated.SIMULATIONS[name](80):
        assert figure.holds(2.33), figure


@pytest.mark.slow
@pytest.mark.parametrize("chance", simulated.CHANCES)
def test_betting_on_disagreements_is_valid_and_finds_more_than_an_ordinary_test(chance: float) -> None:
    rows = simulated.table(25, chance)
    assert simulated.verdict(rows, 25) == {"valid": True, "disagreement above A/B": True}
    peeked = [row["promoted"] for row in rows if row["gain"] == 0.0 and row["method"] == "z at every look"]
    assert min(peeked) > simulated.ALPHA + 2.33 * np.sqrt(0.05 * 0.95 / 25)


def test_the_ways_of_testing_are_those_of_the_package() -> None:
    z, _ = simulated.experiment(0, 0.5, 0.04)
    limits = asymptotic.boundary(simulated.LOOKS, 0.05, asymptotic.precision(0.05))
    for moved in np.linspace(-0.1, 0.1, 21).tolist():
        found = simulated.promoted(z + moved, 45.0, limits)
        assert found[0] == (betting.sequence(z + moved, 45.0, 0.05, ends=simulated.LOOKS).low >= 0.0).any()
        assert found[1] == (asymptotic.sequence(z + moved, 0.05, simulated.LOOKS).low >= 0.0).any()


def test_challengers_have_the_gain_that_is_said() -> None:
    for gain in (0.0, 0.5):
        mine, theirs = simulated.payoffs(np.random.default_rng(0), 2_000_000, gain)
        difference = theirs - mine
        assert difference.mean() == pytest.approx(gain, abs=4 * difference.std() / np.sqrt(len(difference)))
        assert abs(difference).max() <= simulated.CAP * 2
        assert min(mine.min(), theirs.min()) >= -simulated.CAP
        assert max(mine.max(), theirs.max()) <= simulated.CAP


def test_a_check_that_fails_is_noticed() -> None:
    assert simulated.Figure(0.20, 0.02, 0.0, 0.05).holds(2.33) is False
    assert simulated.Figure(0.09, 0.02, 0.0, 0.05).holds(2.33) is True
    assert simulated.Figure(0.09, 0.02, 0.0, 0.05, attack=True).holds(2.33) is False
    assert simulated.Figure(0.20, 0.02, 0.0, 0.05, attack=True).holds(2.33) is True
    row = {"chance": 0.0, "gain": 0.0, "design": "", "method": "", "promoted": 0.0, "error": 0.0}
    table = [
        {**row, "chance": c, "gain": g, "design": d, "method": m, "promoted": 0.2 if g == 0.0 else 0.5}
        for c in simulated.CHANCES
        for g in simulated.GAINS[c]
        for d in ("A/B", "disagreement")
        for m in simulated.METHODS
    ]
    assert simulated.verdict(table, 2000) == {"valid": False, "disagreement above A/B": False}
