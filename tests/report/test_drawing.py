from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from makegood.report.charts import Bars, Chart, Dots, Flag, Lines, Mark, Ranges, Series, Span, Steps
from makegood.report.drawing import Axis, draw, figure

NAN, INF = math.nan, math.inf
amounts = st.floats(-1e12, 1e12, allow_nan=False).filter(lambda v: v == 0 or abs(v) > 1e-9)


@given(st.lists(amounts, min_size=1, max_size=20), st.booleans(), st.booleans())
def test_an_axis_holds_its_values_and_has_a_few_round_ticks(values: list[float], zero: bool, share: bool) -> None:
    axis = Axis.of(values, zero=zero, share=share)
    assert all(axis.low <= v <= axis.high for v in values)
    assert all(axis.start <= axis.at(v) <= axis.end for v in values)
    assert 1 <= len(axis.ticks()) <= 7
    if not zero and max(values) - min(values) > 1e-6 * max(map(abs, values)):
        assert len({axis.text(t) for t in axis.ticks()}) == len(axis.ticks())


def test_an_axis_shows_zero_where_it_is_cheap() -> None:
    assert Axis.of([3.0, 7.0]).low == 0.0
    assert Axis.of([-7.0, -3.0]).high == 0.0
    assert Axis.of([97.0, 99.0]).low > 90
    assert Axis.of([97.0, 99.0], zero=True).low == 0.0


@pytest.mark.parametrize("values", [[], [NAN], [INF], [0.0], [5.0], [-5.0]])
def test_an_axis_of_little_is_an_axis(values: list[float]) -> None:
    axis = Axis.of(values)
    assert axis.low < axis.high
    assert axis.ticks()


def test_a_logarithmic_axis_holds_beyond_its_ends() -> None:
    axis = Axis(0.5, 2, 0, 100, log=True)
    assert [axis.at(v) for v in (-INF, 0.0, 0.5, 1.0, 2.0, INF)] == [0, 0, 0, 50, 100, 100]
    assert [axis.text(t) for t in axis.ticks()] == ["×0.5", "×1", "×2"]


DAY = 86_400e6
CHARTS: list[Chart] = [
    Steps("steps", "Steps", "what it shows", "EUR", (Mark("a", 2.0, 1.0, 3.0), Mark("b", -3.0), Mark("c", NAN)), Mark("all", -1.0)),
    Lines(
        "times",
        "Times",
        "what it shows",
        "time",
        "y",
        (Series("s", ((0.0, 1e-7), (DAY, 1e7)), band=((NAN, NAN), (1e6, 1e8))),),
        time_x=True,
        log_y=True,
        flags=(Flag(DAY, "late", "bad"), Flag(0.0, "early")),
    ),
    Lines("unsure", "Unsure", "what it shows", "x", "y", (Series("s", ((0.0, 1.0), (1.0, 2.0)), band=((NAN, NAN), (NAN, NAN))),)),
    Lines("moment", "Moment", "what it shows", "time", "y", (Series("s", ((DAY, 5.0),), band=((4.0, 6.0),)),), time_x=True, log_y=True),
    Dots("dots", "Dots", "what it shows", "EUR", (Mark("a", 1.0, 0.5, 1.5, "1"), Mark("b", NAN), Mark("c", 3.0)), 2.0),
    Dots("shares", "Shares", "what it shows", "", (Mark("a", 0.2, 0.1, 0.3, "20%"),), share=True),
    Bars("bars", "Bars", "what it shows", "EUR", (Mark("a", 1.0), Mark("b", -1.0))),
    Bars("parts", "Parts", "what it shows", "", (Mark("a", 0.3),), share=True),
    Ranges("ranges", "Ranges", "what it shows", (Span("a", 0.7, INF, 0.9, 1.1, 0.6), Span("b", -INF, INF, NAN, NAN, NAN)), "o", "i", "t"),
    Lines("lines", "Lines", "what it shows", "x", "y", (Series("s", ((0.0, 1.0), (1.0, NAN), (2.0, 3.0))), Series("e", ()))),
    Lines(
        "points", "Points", "what it shows", "x", "y", (Series("s", ((0.1, 0.2), (NAN, 0.4)), sizes=(10, 0)),), square=True, share_x=True
    ),
]


def test_a_waterfall_begins_each_step_where_the_last_ended() -> None:
    marks = (Mark("up", 4.0), Mark("down", -1.0))
    _, body = draw(Steps("steps", "Steps", "", "EUR", marks, Mark("all", 3.0)))
    axis = Axis.of([0.0, 4.0, 3.0], zero=True)
    bars = [(float(x), float(w)) for x, w in re.findall(r'<rect x="([\d.]+)%" width="([\d.]+)%"', body)]
    ends = [(axis.at(a), axis.at(b)) for a, b in ((0.0, 4.0), (3.0, 4.0), (0.0, 3.0))]
    assert bars == [(pytest.approx(a, abs=0.01), pytest.approx(b - a, abs=0.01)) for a, b in ends]


def test_a_band_lies_around_its_line_and_not_below_the_floor() -> None:
    series = (Series("s", ((0.0, 1.0), (1.0, 2.0)), band=((-90.0, 2.0), (1.0, 3.0))),)
    _, body = draw(Lines("lines", "Lines", "", "x", "y", series, floor=0.0))
    band = re.search(r'<path d="M([^"]*)Z" class="band model">', body)
    line = re.search(r'<path d="M([^"]*)" class="line model">', body)
    assert band
    assert line
    heights = [float(p.split()[1]) for p in band[1].split("L")]
    middle = [float(p.split()[1]) for p in line[1].split("L")]
    assert max(heights) <= 250  # downwards, the foot of the plot
    assert heights[0] < middle[0] < heights[3]
    assert heights[1] < middle[1] < heights[2]


def test_flags_do_not_leave_the_chart_nor_lie_on_one_another() -> None:
    flags = tuple(Flag(t, "promoted") for t in (0.0, DAY, DAY))
    _, body = draw(Lines("lines", "Lines", "", "time", "y", (Series("s", ((0.0, 1.0), (DAY, 2.0))),), time_x=True, flags=flags))
    assert re.findall(r'<text x="(-?\d+)" y="(\d+)" text-anchor="(\w+)" class="flag other">', body) == [
        ("4", "12", "start"), ("-4", "27", "end"), ("-4", "42", "end"),
    ]  # fmt: skip


@pytest.mark.parametrize("decades", range(1, 40))
def test_a_logarithmic_axis_of_many_decades_has_a_few_ticks(decades: int) -> None:
    axis = Axis.of_log([1.0, 10.0**decades], start=0, end=100)
    assert 2 <= len(axis.ticks()) <= 8
    assert len({axis.text(t) for t in axis.ticks()}) == len(axis.ticks())


def test_powers_of_ten_are_written_as_powers_where_they_are_long() -> None:
    axis = Axis(1e-9, 1e12, log=True, sign="")
    assert [axis.text(t) for t in (1e-9, 0.001, 100_000.0, 1e6, 1e12)] == ["10⁻⁹", "0.001", "100,000", "10⁶", "10¹²"]


@pytest.mark.parametrize("chart", CHARTS, ids=lambda c: c.key)
def test_every_chart_has_an_alternative_in_words_and_in_numbers(chart: Chart) -> None:
    page = figure(chart)
    key = chart.key
    assert f'role="img" aria-labelledby="{key}-title {key}-desc"' in page
    assert f'<title id="{key}-title">{chart.title}</title>' in page
    assert f'<desc id="{key}-desc">what it shows</desc>' in page
    assert re.search(r"<details class=.data.><summary>The numbers</summary>.*<tbody><tr>", page)
    assert "nan" not in re.sub("<[^>]*class=.data.*", "", page)


def test_what_reaches_beyond_the_axis_ends_in_an_arrow() -> None:
    inside = Ranges("r", "", "", (Span("a", 0.7, 1.4, 0.9, 1.1, NAN),), "o", "i", "t")
    open_right = Ranges("r", "", "", (Span("a", 0.7, INF, 0.9, 1.1, NAN),), "o", "i", "t")
    everywhere = Ranges("r", "", "", (Span("a", -INF, INF, 0.9, 1.1, NAN),), "o", "i", "t")
    assert [draw(c)[1].count("<path") for c in (inside, open_right, everywhere)] == [0, 1, 2]


def test_nothing_is_drawn_below_the_floor() -> None:
    falling = Series("s", tuple((float(i), -float(i)) for i in range(100)))
    _, drawn = draw(Lines("l", "", "", "x", "y", (falling,), floor=-10.0))
    path = re.search(r'd="M([^"]*)"', drawn)
    assert path is not None
    assert len(path[1].split("L")) == 11


def test_a_long_line_is_thinned_and_keeps_its_ends() -> None:
    page = figure(Lines("l", "", "", "x", "y", (Series("s", tuple((float(i), float(i)) for i in range(1000))),)))
    assert page.count("<tr>") == 1 + 101
    assert '<data value="999.0">' in page


def test_a_row_chart_keeps_its_order_and_its_full_names() -> None:
    names = [f"a very long name that must not be lost, number {i}" for i in range(30)]
    _, drawn = draw(Bars("b", "", "", "", tuple(Mark(n, 1.0) for n in names)))
    assert re.findall("a very long name that must not be lost, number [0-9]+", drawn) == names
