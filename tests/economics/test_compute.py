"""Measured quantities become money at the declared prices, and a training is spread over the decisions that it serves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from makegood.contracts import Usage
from makegood.economics.compute import Prices, compute

HOUR = Usage(wall_s=3600.0, cpu_s=7200.0, gpu_s=1800.0, peak_bytes=3_000_000_000)
ONE = Usage(wall_s=0.002, cpu_s=0.0018, peak_bytes=500_000_000)


@pytest.mark.parametrize(
    ("prices", "money"),
    [
        (Prices(cpu_hour=0.05, decisions=1.0), 0.1),  # two CPUs for an hour
        (Prices(gpu_hour=2.5, decisions=1.0), 1.25),  # half an hour of it
        (Prices(memory_gb_hour=0.005, decisions=1.0), 0.015),  # three gigabytes for an hour
        (Prices(0.05, 2.5, 0.005, 1.0), 1.365),
        (Prices(), 0.0),
    ],
)
def test_an_hour_is_paid_for_at_each_price(prices: Prices, money: float) -> None:
    priced = prices.of(HOUR)
    assert priced.money == pytest.approx(money, rel=1e-12)
    assert (priced.wall_s, priced.cpu_s, priced.gpu_s, priced.peak_bytes) == (3600.0, 7200.0, 1800.0, 3_000_000_000)


def test_memory_that_is_not_told_costs_nothing() -> None:
    assert Prices(memory_gb_hour=1.0, decisions=1.0).of(Usage(wall_s=3600.0)).money == 0.0


def test_a_decision_pays_its_share_of_the_training_and_for_itself() -> None:
    found = compute(HOUR, {"linear": ONE}, ONE, 300, Prices(cpu_hour=0.05, gpu_hour=2.5, decisions=100_000))
    assert found.training.money == pytest.approx(1.35)
    assert found.decision.money == pytest.approx(0.05 * 0.0018 / 3600)
    assert found.candidates["linear"].money == found.decision.money
    assert found.per_decision == pytest.approx(1.35 / 100_000 + 0.05 * 0.0018 / 3600)
    assert (found.rows, found.decisions) == (300, 100_000)


def test_without_prices_it_is_measured_all_the_same() -> None:
    found = compute(HOUR, {"linear": ONE}, ONE, 300, Prices())
    assert found.per_decision == 0.0
    assert (found.training, found.candidates, found.decision) == (HOUR, {"linear": ONE}, ONE)


def test_the_number_of_decisions_alone_is_no_price() -> None:
    assert compute(HOUR, {}, ONE, 300, Prices(decisions=10.0)).per_decision == 0.0


SECONDS = st.floats(0.0, 1e6)
USAGES = st.builds(Usage, SECONDS, SECONDS, SECONDS, st.none() | st.integers(0, 10**12), SECONDS)


@given(USAGES, USAGES, USAGES)
def test_one_after_the_other_takes_the_sum_of_the_seconds_and_the_larger_memory(a: Usage, b: Usage, c: Usage) -> None:
    found = a + b
    assert (found.wall_s, found.cpu_s, found.gpu_s) == (a.wall_s + b.wall_s, a.cpu_s + b.cpu_s, a.gpu_s + b.gpu_s)
    assert found.money == a.money + b.money
    assert found.peak_bytes in (a.peak_bytes, b.peak_bytes)
    assert all((found.peak_bytes or 0) >= (part.peak_bytes or 0) for part in (a, b))
    assert a + b == b + a
    assert Usage() + a == a
    assert (a + b + c).peak_bytes == (a + (b + c)).peak_bytes
