from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from makegood.contracts import Ints
from makegood.economics import value
from makegood.monitoring import realised
from makegood.monitoring.realised import Money

DAY = 86_400_000_000


def money(n: int, seed: int = 0, units: int | None = None) -> Money:
    """Return decisions of two models over ten days, with an effect of the unit in the gap."""
    rng = np.random.default_rng(seed)
    unit: Ints = rng.integers(0, units, n) if units else np.arange(n)
    effect = rng.normal(0.0, 1.0, int(unit.max(initial=0)) + 1)[unit]
    promised = rng.gamma(2.0, 1.0, n)
    at = np.sort(rng.integers(0, 10 * DAY, n))
    return Money(rng.integers(0, 2, n), at, unit, promised, promised - effect - rng.normal(0.0, 1.0, n), np.ones(n), np.ones(n, np.bool_))


@pytest.mark.parametrize(("n", "units"), [(5, None), (30, None), (300, None), (300, 30), (1500, 200)])
def test_the_figures_are_those_of_economics(n: int, units: int | None) -> None:
    given = money(n, units=units)
    promised, paid, gap = realised.earned(given, "EUR")
    for found, expected in (
        (promised, value.estimate(given.promised, "EUR", clusters=given.unit)),
        (paid, value.estimate(given.paid, "EUR", clusters=given.unit)),
        (gap, value.paired(given.promised, given.paid, "EUR", clusters=given.unit)),
    ):
        assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high), nan_ok=True)
        assert (found.unit, found.tail_limited) == (expected.unit, expected.tail_limited)


def test_blocks_of_units_have_the_interval_of_units() -> None:
    given = money(40_000, units=8_000)
    gap = realised.earned(given)[2]
    expected = value.paired(given.promised, given.paid, clusters=given.unit)
    assert gap.value == pytest.approx(expected.value)
    assert gap.high - gap.low == pytest.approx(expected.high - expected.low, rel=0.15)
    alone = value.paired(given.promised, given.paid)  # the wrong way: a unit's decisions are not independent
    assert gap.high - gap.low > 1.4 * (alone.high - alone.low)


def test_intervals_by_blocks_cover_and_intervals_by_row_do_not() -> None:
    """Null: the gap is 0; 3,000 decisions about 600 units whose effects persist."""
    runs, hits, naive = 200, 0, 0
    for seed in range(runs):
        given = money(3_000, seed, units=600)
        gap = realised.earned(given)[2]
        hits += gap.low <= 0.0 <= gap.high
        row = realised.earned(replace(given, unit=np.arange(3_000)))[2]
        naive += row.low <= 0.0 <= row.high
    error = float(np.sqrt(0.95 * 0.05 / runs))
    assert abs(hits / runs - 0.95) <= 3 * error
    assert naive / runs < 0.95 - 3 * error


def test_few_units_in_many_rows_get_students_interval_or_none() -> None:
    narrow = realised.earned(money(5_000, units=4))[2]
    assert np.isnan(narrow.low)
    assert np.isfinite(realised.earned(money(5_000, units=20))[2].low)


def test_weights_stand_for_what_is_missing() -> None:
    n = np.arange(400)
    large = n % 2 == 1
    seen = ~large | (n % 4 == 1)  # of the large half the outcomes
    given = Money(
        n * 0, n, n, np.where(large, 10.0, 2.0), np.where(large, 7.0, 1.0), np.where(seen, np.where(large, 2.0, 1.0), 0.0), n < 400
    )
    promised, paid, gap = realised.earned(given)
    assert (promised.value, paid.value, gap.value) == pytest.approx((6.0, 4.0, 2.0))
    plain = realised.earned(replace(given, weight=seen * 1.0))[1]
    assert plain.value < 3.1  # without weights what is missing counts for what is not


def test_without_outcomes_there_is_no_figure() -> None:
    given = replace(money(50), weight=np.zeros(50))
    assert np.isnan(realised.earned(given)[2].value)
    assert np.isfinite(realised.earned(given)[0].value)
    assert np.isnan(realised.earned(replace(given, due=np.zeros(50, np.bool_)))[0].value)


def test_periods_are_of_each_model_and_only_of_what_is_due() -> None:
    given = money(9_000)
    order = np.random.default_rng(3).permutation(9_000)
    given = Money(*(column[order] for column in (given.model, given.at, given.unit, given.promised, given.paid, given.weight, given.due)))
    given = replace(given, due=given.at < 7 * DAY)
    edges = [DAY, 5 * DAY, 6 * DAY, 8 * DAY, 20 * DAY]
    found = realised.periods(given, ["old", "new"], edges, "EUR")
    assert [(p.model, p.start // DAY, p.end // DAY) for p in found[:3]] == [("old", 1, 5), ("new", 1, 5), ("old", 5, 6)]
    assert len(found) == 8
    for period in found:
        here = (given.at >= period.start) & (given.at < period.end) & (given.model == ["old", "new"].index(period.model))
        assert period.n == here.sum()
        assert period.matured == (here & given.due).sum()
        if period.matured:
            own = realised.earned(replace(given, due=here & given.due), "EUR")
            assert (period.promised.value, period.realised.value) == pytest.approx((own[0].value, own[1].value))
            assert period.gap.low == pytest.approx(own[2].low)
        else:
            assert np.isnan(period.gap.value)
    bare = realised.periods(given, ["old", "new"], edges, "EUR", bare=True)
    assert [(p.n, p.matured) for p in bare] == [(p.n, p.matured) for p in found]
    np.testing.assert_array_equal([p.gap.value for p in bare], [p.gap.value for p in found])
    assert np.isnan([(p.gap.low, p.gap.high) for p in bare]).all()


def test_no_stretch_is_no_period() -> None:
    assert realised.periods(money(10), ["old", "new"], []) == ()
    assert realised.periods(money(10), ["old", "new"], [50 * DAY, 60 * DAY]) == ()
