from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise

import pytest

from makegood.report import words
from makegood.report.page import ReportInput, render
from makegood.report.verdict import estimates

VOID = {"br", "col", "hr", "img", "meta", "wbr"}
CSS = (files("makegood.report") / "templates" / "page.css").read_text("utf-8")
PAGES = ("credit", "school", "hard", "digits")


class Page(HTMLParser):
    """What a browser would see: elements that close where they opened, their attributes, headings, exact values with their text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[int] = []
        self.data: list[tuple[float, str]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"repeated attribute in {tag}: {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "data":
            self.data.append((float(dict(attrs)["value"] or "nan"), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "data":
            self.data[-1] = (self.data[-1][0], self.data[-1][1] + data)
        if "style" not in self.open:
            self.text.append(data)


@pytest.fixture(params=PAGES)
def report(request: pytest.FixtureRequest) -> ReportInput:
    made: ReportInput = request.getfixturevalue(request.param)
    return made


def test_the_page_is_well_formed_and_its_links_arrive(report: ReportInput) -> None:
    page = Page(render(report))
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"] for tag, a in page.elements if tag == "a"} <= {f"#{i}" for i in ids}
    named = " ".join(a["aria-labelledby"] or "" for _, a in page.elements if "aria-labelledby" in a).split()
    assert set(named) <= set(ids)
    assert page.elements[0] == ("html", {"lang": "en"})


def test_headings_are_in_order(report: ReportInput) -> None:
    levels = Page(render(report)).headings
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_page_asks_nothing_of_a_network_and_runs_nothing(report: ReportInput) -> None:
    html = render(report)
    page = Page(html)
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "embed", "base", "form", "image", "use"}
    assert not any(name.startswith("on") or name in {"srcset", "xlink:href", "style"} for _, a in page.elements for name in a)
    sources = [(tag, a["src"] or "") for tag, a in page.elements if "src" in a]
    assert all(tag == "img" and re.fullmatch("data:image/png;base64,[A-Za-z0-9+/=]+", source) for tag, source in sources)
    assert "http:" not in html
    assert "https:" not in html
    assert not re.search(r"url\(|@import|@font-face|javascript:", html)
    assert "default-src 'none'" in html.replace("&#x27;", "'")


def test_hostile_names_stay_names(hard: ReportInput, hostile: str) -> None:
    html = render(hard)
    shown = "".join(Page(html).text)
    readable = hostile.replace("\x00", "\ufffd").replace("\u202e", "\ufffd")
    assert "<script" not in html
    assert "<img" not in html
    assert html.count("</style>") == 1
    assert shown.count(readable) > 20
    html.encode("utf-8")


def test_no_user_text_escapes_from_any_field(credit: ReportInput, hostile: str) -> None:
    e = credit.evaluation
    unit = replace(
        e,
        unit=hostile,
        gain_over=hostile,
        baselines={hostile: replace(e.value, unit=hostile)},
        gains={hostile: replace(e.gain, unit=hostile)},
        gain=replace(e.gain, unit=hostile),
        value=replace(e.value, unit=hostile),
        shares={hostile: 1.0},
        confusion={hostile: {hostile: 1}},
        payoff_ranges=(replace(e.payoff_ranges[0], action=hostile, outcome=hostile, expression=hostile),),
        slices=(replace(e.slices[0], column=hostile, level=hostile, shares={hostile: 1.0}),),
    )
    limits = {hostile: {"max_budget": 1, "cost": hostile, "per": 1}}
    decision = {"limits": limits, "actions": {hostile: {"reveals": False}}}
    fairness = (replace(credit.fairness[0], column=hostile, level=hostile, selected=hostile),)
    html = render(
        replace(
            credit,
            evaluation=unit,
            case={"case": hostile, "data": {"outcome": hostile, "protected": [hostile]}, "decision": decision},
            fairness=fairness,
            seconds={hostile: 1.0},
        )
    )
    Page(html)
    assert "<script" not in html
    assert "<img" not in html


def test_every_figure_is_the_evaluations(report: ReportInput) -> None:
    page = Page(render(report))
    exact = {value for value, _ in page.data}
    e = report.evaluation
    for estimate in estimates(e):
        assert {estimate.value} <= exact, estimate
        if words.has_interval(estimate):
            assert {estimate.low, estimate.high} <= exact, estimate
    assert {float(n) for row in e.confusion.values() for n in row.values()} <= exact
    assert {float(f.count) for f in report.findings} <= exact
    assert {r.mean for r in e.payoff_ranges} <= exact
    assert {y for curve in (e.curve, e.promise_curve, e.calibration) for _, y, *_ in curve} <= exact
    assert {money for _, money in sorted(e.drivers, key=lambda d: -d[1])[:20]} <= exact


def test_what_is_read_is_the_exact_value_rounded(report: ReportInput) -> None:
    for value, shown in Page(render(report)).data:
        match = re.match(r"(−?)([\d,]+)(\.\d+)?(%?)", shown)
        if match is None:  # a dash, or a share too small to be written
            assert shown.startswith(("–", "<", ">")), shown
            continue
        sign, whole, fraction, per_cent = match.groups("")
        read = float((whole + fraction).replace(",", "")) * (-1 if sign else 1)
        assert read == pytest.approx(value * (100 if per_cent else 1), abs=0.5000001 * 10.0 ** -max(len(fraction) - 1, 0))


def test_every_chart_has_its_alternatives(report: ReportInput) -> None:
    html = render(report)
    charts = re.findall(r"<figure.*?</figure>", html, re.DOTALL)
    assert len(charts) >= 6
    for chart in charts:
        assert chart.count('role="img"') == 1
        assert re.search(r"<title id=[^>]*>[^<]+</title><desc id=[^>]*>[^<]+</desc>", chart)
        assert "<details" in chart
        assert "<table" in chart
        assert "nan" not in re.sub(r"value=.nan.", "", chart)


def test_sections_in_the_order_of_reading(credit: ReportInput) -> None:
    html = render(credit)
    order = re.findall(r'<section id="([a-z]+)"', html.replace(' class="alerts"', ""))
    assert order == [
        "alerts", "verdict", "worth", "payoffs", "curves", "promises", "actions", "drivers", "groups", "metrics", "data", "making",
    ]  # fmt: skip
    assert [a["href"] for tag, a in Page(html).elements if tag == "a" and a["href"] != "#tail-limited"][1:] == [f"#{s}" for s in order[1:]]


def test_leaks_and_simulations_come_before_the_verdict(hard: ReportInput) -> None:
    shown = "".join(Page(render(hard)).text)
    assert shown.index("Not real data. The outcomes are simulated.") < shown.index("Suspected leak") < shown.rindex("Do not deploy")


def test_a_refusal_without_intervals_is_a_page(school: ReportInput) -> None:
    html = render(school)
    assert "<title>学生成绩: do not deploy · makegood</title>" in html
    assert "(no interval: fewer than 6 groups)" in html
    assert "谁需要辅导?" in html
    assert "decision-curve" not in html


def test_the_least_input_makes_a_page(credit: ReportInput) -> None:
    bare = replace(
        credit.evaluation, why="", n={}, metrics={}, curve=(), decision_curve=(), calibration=(), promise_curve=(), payoff_ranges=(),
        slices=(), drivers=(), confusion={}, candidates=(), calibrator="",
    )  # fmt: skip
    html = render(ReportInput(case={}, case_text="", evaluation=bare, run="r"))
    Page(html)
    assert "Deploy" in html


def test_the_page_is_the_same_each_time_and_small(report: ReportInput) -> None:
    html = render(report)
    assert html == render(report)
    assert len(html.encode()) < 400_000


# ---------------------------------------------------------------------------------------------------------------- colours


def _schemes() -> dict[str, dict[str, str]]:
    light, dark = (dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", block)) for block in re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[:2])
    return {"light": light, "dark": {**light, **dark}}


def _luminance(colour: str) -> float:
    """Return relative luminance (WCAG 2.2)."""
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def _contrast(a: str, b: str) -> float:
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_computed_as_it_should_be() -> None:
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)
    assert _contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("ground", ["paper", "raised"])
@pytest.mark.parametrize("colour", ["ink", "soft", "model", "good", "bad", "warn"])
def test_text_is_readable(scheme: str, ground: str, colour: str) -> None:
    colours = _schemes()[scheme]
    assert _contrast(colours[colour], colours[ground]) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("mark", ["model", "other", "ceiling", "good", "bad"])
def test_marks_can_be_seen(scheme: str, mark: str) -> None:
    colours = _schemes()[scheme]
    assert _contrast(colours[mark], colours["paper"]) >= 3


def test_every_colour_is_a_variable_and_every_variable_is_there() -> None:
    rules = re.sub(r":root \{.*?\}", "", CSS, flags=re.DOTALL)
    assert not re.search(r"#[0-9a-f]{3,6}\b|rgb\(|hsl\(", rules.replace("#verdict", "").replace("#making", ""))
    assert set(re.findall(r"var\(--([a-z]+)\)", rules)) - {"tone"} <= _schemes()["light"].keys()
    assert _schemes()["light"].keys() == _schemes()["dark"].keys()


def test_paper_is_always_light_and_on_a4() -> None:
    assert "@media screen and (prefers-color-scheme: dark)" in CSS
    assert "size: A4" in CSS
    assert "break-inside: avoid" in CSS
