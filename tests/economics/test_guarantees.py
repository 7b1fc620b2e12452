"""The simulations of bench/guarantees.py, shorter: within the same bounds, widened by three standard errors."""

from __future__ import annotations

import pytest
from tests import benches

guarantees = benches.load("guarantees")

SHARE = 0.1
"""Of the full repetitions."""


@pytest.mark.slow
@pytest.mark.parametrize("name", guarantees.SIMULATIONS)
def test_the_guarantee_holds(name: str) -> None:
    repetitions, simulate = guarantees.SIMULATIONS[name]
    rate = simulate(max(int(repetitions * SHARE), 40))
    assert rate.holds(standard_errors=3.0), rate


def test_a_broken_guarantee_is_noticed() -> None:
    assert not guarantees.Rate(0.90, 400, 0.94, 0.96).holds(standard_errors=3.0)
    assert not guarantees.Rate(0.06, 400, None, 0.025).holds(standard_errors=3.0)
    assert guarantees.Rate(0.93, 400, 0.94, 0.96).holds(standard_errors=3.0)
    assert not guarantees.Rate(0.93, 400, 0.94, 0.96).holds()
