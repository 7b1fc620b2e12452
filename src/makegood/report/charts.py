"""Charts described as data: what is shown, not how. `drawing` makes SVG, a text alternative and a table of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Tone = Literal["model", "other", "ceiling", "good", "bad", "unsure"]
"""What a mark stands for; the style sheet gives it a colour in the light, in the dark and on paper."""


@dataclass(frozen=True)
class Mark:
    """One row of a chart: its label, its value, the interval where there is one, and the figure as text."""

    label: str
    value: float
    low: float = math.nan
    high: float = math.nan
    text: str = ""
    tone: Tone = "other"


@dataclass(frozen=True)
class Dots:
    """Values with intervals, one a row, on one axis. `guide` is a value to compare with (NaN: none).

    `zero` keeps zero on the axis, however far it is; `share` writes per cent.
    """

    key: str
    title: str
    summary: str
    unit: str
    marks: tuple[Mark, ...]
    guide: float = math.nan
    zero: bool = False
    share: bool = False


@dataclass(frozen=True)
class Bars:
    """Amounts from zero, one a row; `share` writes them in per cent."""

    key: str
    title: str
    summary: str
    unit: str
    marks: tuple[Mark, ...]
    share: bool = False


@dataclass(frozen=True)
class Steps:
    """A waterfall: each amount begins where the one before ended, and `total`, from zero, is what they come to."""

    key: str
    title: str
    summary: str
    unit: str
    marks: tuple[Mark, ...]
    total: Mark


@dataclass(frozen=True)
class Span:
    """How far one factor may move: `low` to `high`, within it `inner_low` to `inner_high`; where it turns (NaN: nowhere)."""

    label: str
    low: float
    high: float
    inner_low: float
    inner_high: float
    turn: float
    text: str = ""


@dataclass(frozen=True)
class Ranges:
    """Factors around 1 on a logarithmic axis; what reaches beyond it ends in an arrow. `outer`, `inner` and `turn` name the marks."""

    key: str
    title: str
    summary: str
    spans: tuple[Span, ...]
    outer: str
    inner: str
    turn: str


@dataclass(frozen=True)
class Series:
    """A line, or points where `sizes` (the rows behind each) are given; a dashed one is there to compare with.

    `band` is the interval around each point of a line, where there is one.
    """

    label: str
    points: tuple[tuple[float, float], ...]
    tone: Tone = "model"
    sizes: tuple[int, ...] = ()
    dashed: bool = False
    band: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Flag:
    """Something that happened at `x`: an upright line with a few characters beside it."""

    x: float
    text: str
    tone: Tone = "other"


@dataclass(frozen=True)
class Lines:
    """Series over two axes. `square` gives both axes one range; `share_x` and `share_y` write per cent; nothing is drawn below `floor`.

    `time_x` says that x is a time (microseconds since 1970, UTC); `log_y` makes the other axis logarithmic.
    """

    key: str
    title: str
    summary: str
    x: str
    y: str
    series: tuple[Series, ...]
    square: bool = False
    share_x: bool = False
    share_y: bool = False
    floor: float = -math.inf
    time_x: bool = False
    log_y: bool = False
    flags: tuple[Flag, ...] = ()


Chart = Dots | Bars | Steps | Ranges | Lines
