from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from makegood.report import dates

YEAR = 365.25 * 86_400e6
START = 1_767_225_600e6  # 1 Jan 2026


@given(st.floats(0, 60 * YEAR), st.floats(10e6, 100 * YEAR))
def test_ticks_lie_inside_are_few_and_differ(low: float, span: float) -> None:
    found = dates.ticks(low, low + span)
    assert 1 <= len(found) <= 6
    assert all(low - 1e-3 <= at <= low + span for at, _ in found)
    assert len({text for _, text in found}) == len(found)


@pytest.mark.parametrize(
    ("span", "texts"),
    [
        (20e6, ["00:00:00", "00:00:05", "00:00:10", "00:00:15", "00:00:20"]),
        (600e6, ["00:00", "00:05", "00:10"]),
        (6 * 3600e6, ["1 Jan 00:00", "1 Jan 03:00", "1 Jan 06:00"]),
        (3 * 86_400e6, ["1 Jan", "2 Jan", "3 Jan", "4 Jan"]),
        (YEAR, ["Jan 2026", "Apr 2026", "Jul 2026", "Oct 2026", "Jan 2027"]),
        (10 * YEAR, ["2030", "2035"]),
    ],
)
def test_ticks_are_round(span: float, texts: list[str]) -> None:
    assert [text for _, text in dates.ticks(START, START + span)] == texts


def test_ages_and_times() -> None:
    assert dates.age(1.5 * 86_400) == "1.5 days"
    assert dates.age(0.5) == "500 ms"
    assert dates.exact(START + 1) == "2026-01-01T00:00:00.000001Z"
