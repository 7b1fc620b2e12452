"""From a chart as data to inline SVG with a text alternative and a table of its numbers; no script.

Positions across are percentages and text keeps its size, so that one drawing serves a phone, a wide screen and paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from makegood.report import dates, words
from makegood.report.charts import Bars, Chart, Dots, Flag, Lines, Mark, Ranges, Series, Steps
from makegood.report.markup import Child, Markup, join, tag

_ROW, _TRACK, _FOOT = 48, 30, 26  # pixels: height of a row, the middle of its track, the axis below
_PLOT = 250  # pixels: height of a line chart without its axis
_MOST_POINTS = 101  # more cannot be told apart, on a screen or in print
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_Point = TypeVar("_Point")


@dataclass(frozen=True)
class Axis:
    """A range of values laid out from `start` to `end` per cent; `sign` is written before the ticks of a logarithmic one."""

    low: float
    high: float
    start: float = 1.5
    end: float = 98.5
    log: bool = False
    share: bool = False
    time: bool = False
    sign: str = "×"

    @classmethod
    def of(cls, values: Iterable[float], *, zero: bool = False, share: bool = False, start: float = 1.5, end: float = 98.5) -> Axis:
        """Return the axis that holds every finite value, and zero where it is asked for or costs less than half of the room.

        >>> Axis.of([1.0, 3.0]).low, Axis.of([100.0, 101.0]).low
        (0.0, 99.96)
        """
        finite = [v for v in values if math.isfinite(v)] or [0.0]
        low, high = min(finite), max(finite)
        if zero or 0 < low <= high - low or low - high <= high < 0:
            low, high = min(low, 0.0), max(high, 0.0)
        margin = 0.04 * (high - low) or abs(high) or 1.0
        return cls(low - margin if low else 0.0, high + margin if high else 0.0 if low else 1.0, start, end, share=share)

    @classmethod
    def of_time(cls, times: Iterable[float], *, start: float, end: float) -> Axis:
        """Return the axis of time from the first to the last; of one moment, an hour on either side.

        >>> Axis.of_time([0.0], start=0, end=100).high
        3600000000.0
        """
        finite = [t for t in times if math.isfinite(t)] or [0.0]
        low, high = min(finite), max(finite)
        spare = 0.0 if high > low else 3600.0 * dates.SECOND
        return cls(low - spare, high + spare, start, end, time=True)

    @classmethod
    def of_log(cls, values: Iterable[float], *, start: float, end: float) -> Axis:
        """Return the logarithmic axis of amounts above zero, from one power of ten to another.

        >>> axis = Axis.of_log([0.5, 300.0], start=0, end=100)
        >>> axis.low, axis.high, [axis.text(t) for t in axis.ticks()]
        (0.1, 1000.0, ['0.1', '1', '10', '100', '1,000'])
        """
        positive = [v for v in values if 0 < v < math.inf] or [1.0]
        low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
        return cls(10.0**low, 10.0 ** max(high, low + 1), start, end, log=True, sign="")

    def at(self, value: float) -> float:
        """Return where a value lies, in per cent, held inside the axis.

        >>> Axis(0, 10, 0, 100).at(2.5), Axis(0.1, 10, 0, 100, log=True).at(1)
        (25.0, 50.0)
        """
        value = min(max(value, self.low), self.high)
        scale: Callable[[float], float] = math.log if self.log else float
        part = (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))
        return round(self.start + part * (self.end - self.start), 2)

    def ticks(self) -> list[float]:
        """Return round values inside the axis.

        >>> Axis(0, 10.3).ticks(), Axis(0.25, 4, log=True).ticks()
        ([0.0, 2.5, 5.0, 7.5, 10.0], [0.5, 1.0, 2.0])
        """
        if self.time:
            return [at for at, _ in dates.ticks(self.low, self.high)]
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            if len(decades) > 3:
                every = math.ceil(len(decades) / 7)
                return [t for d in decades[::every] if self.low <= (t := 10.0**d) <= self.high]
            return [t for d in decades for m in (1, 2, 5) if self.low <= (t := round(m * 10.0**d, 10)) <= self.high]
        return [round(i * self.step, 12) for i in range(math.ceil(self.low / self.step), math.floor(self.high / self.step) + 1)]

    @property
    def step(self) -> float:
        """The distance of two ticks: 1, 2, 2.5 or 5 times a power of ten, so that there are two to five of them."""
        rough = (self.high - self.low) / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        return unit * next(m for m in (1, 2, 2.5, 5, 10) if m * unit >= rough)

    def text(self, tick: float) -> str:
        """Return a tick as it is written.

        >>> Axis(0, 0.5, share=True).text(0.2), Axis(-4000, 0).text(-2000), Axis(0.5, 2, log=True).text(2)
        ('20%', '−2,000', '×2')
        """
        if self.time:
            return dict(dates.ticks(self.low, self.high))[tick]
        if self.log:
            if self.sign or 1e-4 < tick < 1e6:
                return f"{self.sign}{tick:,g}"
            return f"10{str(round(math.log10(tick))).translate(_RAISED)}"
        scale = 100 if self.share else 1
        step = self.step * scale
        decimals = next(d for d in range(300) if math.isclose(round(step, d), step, rel_tol=1e-6))
        return words.number(tick * scale, decimals) + ("%" if self.share else "")


def figure(chart: Chart) -> Markup:
    """Return the chart with its caption, its text alternative and its numbers as a table."""
    title, desc = f"{chart.key}-title", f"{chart.key}-desc"
    height, body = draw(chart)
    drawing = tag(
        "svg",
        tag("title", chart.title, id=title),
        tag("desc", chart.summary, id=desc),
        body,
        class_="chart",
        role="img",
        aria_labelledby=f"{title} {desc}",
        width="100%",
        height=height,
    )
    caption = tag("figcaption", tag("strong", chart.title), _legend(chart))
    return tag("figure", caption, drawing, tag("details", tag("summary", "The numbers"), _numbers(chart), class_="data"), id=chart.key)


def draw(chart: Chart) -> tuple[float, Markup]:
    """Return the height in pixels and the SVG elements of a chart."""
    match chart:
        case Dots():
            return _draw_dots(chart)
        case Bars():
            return _draw_bars(chart)
        case Steps():
            return _draw_steps(chart)
        case Ranges():
            return _draw_ranges(chart)
        case Lines():
            return _draw_lines(chart)


# -------------------------------------------------------------------------------------------------------------- row charts


def _draw_dots(chart: Dots) -> tuple[float, Markup]:
    axis = Axis.of([v for m in chart.marks for v in (m.value, m.low, m.high)] + [chart.guide], zero=chart.zero, share=chart.share)
    tracks = [
        join(
            _bar(axis, (m.low, m.high), 8, f"interval {m.tone}"),
            tag("circle", cx=f"{axis.at(m.value)}%", r=5, class_=f"dot {m.tone}") if math.isfinite(m.value) else None,
        )
        for m in chart.marks
    ]
    return _rows([(m.label, m.text) for m in chart.marks], tracks, axis, chart.guide)


def _draw_bars(chart: Bars) -> tuple[float, Markup]:
    axis = Axis.of([m.value for m in chart.marks], zero=True, share=chart.share)
    tracks = [join(_bar(axis, (min(m.value, 0), max(m.value, 0)), 10, f"bar {m.tone}")) for m in chart.marks]
    return _rows([(m.label, m.text) for m in chart.marks], tracks, axis)


def _draw_steps(chart: Steps) -> tuple[float, Markup]:
    ends = [0.0]
    for m in chart.marks:
        ends.append(ends[-1] + (m.value if math.isfinite(m.value) else 0.0))
    starts = [*ends[:-1], 0.0]
    marks = [*chart.marks, chart.total]
    axis = Axis.of([s + v for s, m in zip(starts, marks, strict=True) for v in (0.0, m.value, m.low, m.high)], zero=True)
    tracks = [
        join(
            _bar(axis, (s + min(m.value, 0), s + max(m.value, 0)), 12, f"bar {m.tone}"),
            _bar(axis, (s + m.low, s + m.high), 3, "whisker"),
        )
        for s, m in zip(starts, marks, strict=True)
    ]
    return _rows([(m.label, m.text) for m in marks], tracks, axis)


def _draw_ranges(chart: Ranges) -> tuple[float, Markup]:
    ends = [v for s in chart.spans for v in (s.low, s.high, s.inner_low, s.inner_high, s.turn) if 0 < v < math.inf]
    low, high = min(ends, default=1.0), max(ends, default=1.0)
    axis = Axis(min(0.5, max(0.1, 0.85 * low)), max(2.0, min(10.0, 1.15 * high)), 3, 97, log=True)
    tracks = [
        join(
            _bar(axis, (s.low, s.high), 14, "interval model"),
            _bar(axis, (s.inner_low, s.inner_high), 4, "bar model"),
            _upright(axis.at(s.turn), -11, 11, "turn") if axis.low <= s.turn <= axis.high else None,
        )
        for s in chart.spans
    ]
    return _rows([(s.label, s.text) for s in chart.spans], tracks, axis, 1.0)


def _rows(labels: Sequence[tuple[str, str]], tracks: Sequence[Markup], axis: Axis, guide: float = math.nan) -> tuple[float, Markup]:
    """Return rows of a label and a figure above a track, on a common grid."""
    bottom = _ROW * len(tracks)
    grid = [
        [
            _upright(axis.at(t), 0, bottom + 4, "grid" if t or axis.log else "zero"),
            tag("text", axis.text(t), x=f"{axis.at(t)}%", y=bottom + 18, text_anchor="middle"),
        ]
        for t in axis.ticks()
    ]
    rows = [
        [
            tag("rect", y=i * _ROW, width="100%", height=21, class_="ground"),  # no line of the grid runs through text
            # HTML inside the drawing: only it shortens a long name to the room that is left beside the figure
            tag("foreignObject", tag("div", tag("span", name), tag("b", text), class_="row"), y=i * _ROW, width="100%", height=22),
            tag("svg", track, y=i * _ROW + _TRACK, width="100%", height=1, overflow="visible"),
        ]
        for i, ((name, text), track) in enumerate(zip(labels, tracks, strict=True))
    ]
    return bottom + _FOOT, join(grid, _upright(axis.at(guide), 0, bottom + 4, "guide") if math.isfinite(guide) else None, rows)


def _bar(axis: Axis, ends: tuple[float, float], thickness: float, class_: str) -> Markup | None:
    """Return a bar around the track's middle, an arrow at each end that lies beyond the axis; None without ends."""
    low, high = ends
    if math.isnan(low) or math.isnan(high):
        return None
    a, b = axis.at(low), axis.at(high)
    bar = tag("rect", x=f"{a}%", width=f"{max(b - a, 0.3):.2f}%", y=-thickness / 2, height=thickness, class_=class_)
    half = thickness / 2
    tips = [
        tag("svg", tag("path", d=f"M0 {-half}L{d * half} 0L0 {half}Z", class_=class_), x=f"{x}%", width=1, height=1, overflow="visible")
        for x, d, beyond in ((a, -1, low < axis.low), (b, 1, high > axis.high))
        if beyond
    ]
    return join(bar, tips)


def _upright(x: float, top: float, bottom: float, class_: str) -> Markup:
    return tag("line", x1=f"{x}%", x2=f"{x}%", y1=top, y2=bottom, class_=class_)


# ------------------------------------------------------------------------------------------------------------- line charts


def _draw_lines(chart: Lines) -> tuple[float, Markup]:
    xs, ys = ([p[i] for s in chart.series for p in s.points] for i in (0, 1))
    if chart.square:
        xs = ys = xs + ys
    held = [v for v in ys + [v for s in chart.series for b in s.band for v in b] if v >= chart.floor]
    y = Axis.of_log(held, start=100, end=0) if chart.log_y else Axis.of(held, share=chart.share_y, start=100, end=0)
    labels = [y.text(t) for t in y.ticks()]
    left = 4 + 2 * max(map(len, labels), default=0)
    times = [*xs, *(f.x for f in chart.flags)]
    x = Axis.of_time(times, start=left, end=97) if chart.time_x else Axis.of(xs, share=chart.share_x, start=left, end=97)
    levels = [
        [
            tag("line", x1=f"{x.start}%", x2=f"{x.end}%", y1=_height(y, t), y2=_height(y, t), class_="grid" if t else "zero"),
            tag("text", label, x=f"{x.start - 1.5}%", y=_height(y, t) + 4, text_anchor="end"),
        ]
        for t, label in zip(y.ticks(), labels, strict=True)
    ]
    feet = [tag("text", x.text(t), x=f"{x.at(t)}%", y=_PLOT + 18, text_anchor="middle") for t in x.ticks()]
    name = tag("text", chart.x, x=f"{(x.start + x.end) / 2}%", y=_PLOT + 40, text_anchor="middle", class_="axis")
    stretched = tag(  # a path knows no percentages: it is drawn on 1,000 units and stretched, its stroke is not
        "svg",
        [_band(s, Axis(x.low, x.high, 0, 1000), y, chart.floor) for s in chart.series if s.band],
        [_line(s, Axis(x.low, x.high, 0, 1000), y, chart.floor) for s in chart.series if not s.sizes],
        x=f"{x.start}%",
        width=f"{x.end - x.start}%",
        height=_PLOT,
        viewBox=f"0 0 1000 {_PLOT}",
        preserveAspectRatio="none",
        overflow="visible",
    )
    flags = [_flag(i, f, x) for i, f in enumerate(chart.flags)]
    return _PLOT + 48, join(levels, feet, name, stretched, flags, [_points(s, x, y) for s in chart.series if s.sizes])


def _height(axis: Axis, value: float) -> float:
    return round(axis.at(value) * _PLOT / 100, 1)


def _line(series: Series, x: Axis, y: Axis, floor: float) -> Markup | None:
    points = [f"{x.at(a):.1f} {_height(y, b):.1f}" for a, b in _thinned(series.points) if math.isfinite(a) and floor <= b < math.inf]
    return tag("path", d="M" + "L".join(points), class_=f"line {series.tone}{' dashed' if series.dashed else ''}") if points else None


def _band(series: Series, x: Axis, y: Axis, floor: float) -> Markup | None:
    """Return the area between the limits of a series, None where no point has both."""
    both = list(zip((a for a, _ in series.points), series.band, strict=True))
    there = [(a, low, high) for a, (low, high) in _thinned(both) if math.isfinite(a) and math.isfinite(low) and math.isfinite(high)]
    if not there:
        return None
    edge = [(a, high) for a, _, high in there] + [(a, max(low, floor)) for a, low, _ in reversed(there)]
    return tag("path", d=f"M{'L'.join(f'{x.at(a):.1f} {_height(y, b):.1f}' for a, b in edge)}Z", class_=f"band {series.tone}")


def _flag(i: int, flag: Flag, x: Axis) -> Markup:
    """Return an upright line with its text; neighbours are written at three heights, so that they do not lie on one another."""
    at = x.at(flag.x)
    side, anchor = (-4, "end") if at > 75 else (4, "start")
    text = tag("text", flag.text, x=side, y=12 + 15 * (i % 3), text_anchor=anchor, class_=f"flag {flag.tone}")
    return join(_upright(at, 0, _PLOT, f"flag {flag.tone}"), tag("svg", text, x=f"{at}%", overflow="visible"))


def _points(series: Series, x: Axis, y: Axis) -> Markup:
    most = max(max(series.sizes), 1)
    return join(
        tag("circle", cx=f"{x.at(a)}%", cy=_height(y, b), r=round(3 + 4 * math.sqrt(n / most), 1), class_=f"point {series.tone}")
        for (a, b), n in zip(series.points, series.sizes, strict=True)
        if math.isfinite(a) and math.isfinite(b)
    )


def _thinned(points: Sequence[_Point]) -> Sequence[_Point]:
    """Return at most 101 of the points, evenly, both ends included."""
    if len(points) <= _MOST_POINTS:
        return points
    return [points[round(i * (len(points) - 1) / (_MOST_POINTS - 1))] for i in range(_MOST_POINTS)]


# ------------------------------------------------------------------------------------------------------ legends and tables


def _legend(chart: Chart) -> Markup | None:
    match chart:
        case Ranges():
            keys = [("interval model", chart.outer), ("bar model", chart.inner), ("turn", chart.turn)]
        case Lines():
            keys = [(f"{'point' if s.sizes else 'dashed' if s.dashed else 'line'} {s.tone}", s.label) for s in chart.series]
        case Dots() | Bars() | Steps():
            return None
    return join(
        tag("span", chart.y, class_="axis") if isinstance(chart, Lines) else None,
        tag("ul", [tag("li", tag("i", class_=class_), label) for class_, label in keys], class_="legend"),
    )


def table(head: Sequence[Child], rows: Iterable[Sequence[Child]], *, caption: str, words_in: Sequence[int] = (0,)) -> Markup:
    """Return a table that scrolls by itself where the page is narrow; columns are figures but those in `words_in`."""

    def cell(i: int, content: Child) -> Markup:
        return tag("th" if i == 0 else "td", content, scope="row" if i == 0 else None, class_=None if i in words_in else "n")

    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag("thead", tag("tr", [tag("th", h, scope="col", class_=None if i in words_in else "n") for i, h in enumerate(head)])),
            tag("tbody", [tag("tr", [cell(i, c) for i, c in enumerate(row)]) for row in rows]),
        ),
        class_="scroll",
        role="region",
        aria_label=caption,
        tabindex=0,
    )


def _numbers(chart: Chart) -> Markup:
    match chart:
        case Dots():
            return table(["", "value", "low", "high"], [_dot_row(m, chart) for m in chart.marks], caption=chart.title)
        case Bars():
            rows = [[m.label, words.percent(m.value) if chart.share else _exact(m.value, chart.unit)] for m in chart.marks]
            return table(["", "share" if chart.share else "value"], rows, caption=chart.title)
        case Steps():
            steps = (*chart.marks, chart.total)
            return table(["", "value", "low", "high"], [_dot_row(m, chart) for m in steps], caption=chart.title)
        case Ranges():
            head = ["", f"{chart.outer}: from", "to", f"{chart.inner}: from", "to", chart.turn]
            factors = [[s.label, *map(words.factor, (s.low, s.high, s.inner_low, s.inner_high, s.turn))] for s in chart.spans]
            return table(head, factors, caption=chart.title)
        case Lines():
            head = ["series", chart.x, chart.y, *(["rows"] if any(s.sizes for s in chart.series) else [])]
            head += ["low", "high"] if any(s.band for s in chart.series) else []
            return table(head, [r for s in chart.series for r in _line_rows(s, chart)], caption=chart.title)


def _dot_row(mark: Mark, chart: Dots | Steps) -> list[Child]:
    n = words.digits(chart.unit, mark.value, mark.low, mark.high)
    share = isinstance(chart, Dots) and chart.share
    return [mark.label, *(words.percent(v) if share else words.figure(v, n) for v in (mark.value, mark.low, mark.high))]


def _exact(value: float, unit: str) -> Markup:
    return words.figure(value, words.digits(unit, value))


def _line_rows(series: Series, chart: Lines) -> list[list[Child]]:
    points = _thinned(series.points)
    rows: list[list[Child]] = [[series.label, dates.moment(a) if chart.time_x else _exact(a, ""), _exact(b, "")] for a, b in points]
    if series.sizes:
        rows = [[*row, words.whole(n)] for row, n in zip(rows, series.sizes, strict=True)]
    if series.band:
        rows = [[*row, _exact(low, ""), _exact(high, "")] for row, (low, high) in zip(rows, _thinned(series.band), strict=True)]
    return rows
