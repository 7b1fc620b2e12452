from __future__ import annotations

import math
import re
import runpy
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from makegood.contracts import Estimate
from makegood.monitoring.review import Alarm, Plan, Review
from makegood.report import words
from makegood.report.keeping import kept
from makegood.report.review_page import VERDICTS, headline, render

SAMPLES = runpy.run_path(str(Path(__file__).with_name("reviews.py")))
Page = runpy.run_path(str(Path(__file__).with_name("test_page.py")))["Page"]
HOSTILE: str = SAMPLES["HOSTILE"]


@pytest.fixture(params=SAMPLES["REVIEWS"])
def review(request: pytest.FixtureRequest) -> Review:
    made: Review = SAMPLES["REVIEWS"][request.param]()
    return made


def sample(name: str) -> Review:
    made: Review = SAMPLES["REVIEWS"][name]()
    return made


def text(html: str) -> str:
    return "".join(Page(html).text)


def estimates(value: Any) -> Iterator[Estimate]:
    if isinstance(value, Estimate):
        yield value
    elif isinstance(value, tuple):
        for v in value:
            yield from estimates(v)
    elif isinstance(value, dict):
        yield from estimates(tuple(value.values()))
    elif is_dataclass(value):
        yield from estimates(tuple(getattr(value, f.name) for f in fields(value)))


def test_the_page_is_well_formed_and_its_links_arrive(review: Review) -> None:
    page = Page(render(review))
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"] for tag, a in page.elements if tag == "a"} <= {f"#{i}" for i in ids}
    assert page.headings[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(page.headings))


def test_nothing_runs_and_nothing_is_fetched(review: Review) -> None:
    html = render(review)
    assert not {tag for tag, _ in Page(html).elements} & {"script", "link", "iframe", "object", "embed", "base", "form", "img"}
    assert not re.search(r"https?:|url\(|@import|javascript:", html)
    assert html.count("</style>") == 1
    assert len(html.encode()) < 300_000


def test_every_estimate_is_on_the_page_with_its_interval(review: Review) -> None:
    exact = {value for value, _ in Page(render(review)).data}
    shown = [e for e in estimates(review) if math.isfinite(e.value)]
    assert shown or not review.n
    for estimate in shown:
        assert estimate.value in exact, estimate
        if words.has_interval(estimate):
            assert {estimate.low, estimate.high} <= exact, estimate


def test_the_verdict_comes_first_and_what_is_not_real_before_it() -> None:
    html = render(sample("alarm"))
    order = re.findall(r'<section id="([a-z]+)"', html.replace(' class="alerts"', ""))
    assert order == ["alerts", "verdict", "money", "alarm", "challengers", "causes", "drift", "worths", "maturity", "making"]
    shown = text(html)
    assert shown.index("Replayed. ") < shown.index("Injected. From March on") < shown.index("The model earns 1.90")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("good", "The challenger c2d39f00117a earns 0.83 EUR more per decision than the model."),
        ("alarm", "The model earns 1.90 EUR less per decision than it promised."),
        ("refused", "Whether the promise is kept cannot be told yet: there are too few independent outcomes."),
        ("empty", "No outcome is due yet: the 318 decisions so far promise 12.10 EUR each."),
        ("unused", "No decision has been taken yet."),
    ],
)
def test_the_headline_says_what_was_found(name: str, sentence: str) -> None:
    assert re.sub("<[^>]*>", "", headline(sample(name))).replace("\xa0", " ") == sentence


def test_the_headline_of_a_kept_and_of_an_exceeded_promise() -> None:
    held = replace(sample("good"), verdict="keep")
    assert "keeps its promise" in headline(held)
    assert "no longer keeps its promise" in headline(replace(held, alarm=sample("alarm").alarm))
    assert "more per decision than it promised" in headline(replace(held, gap=Estimate(-1.0, -1.5, -0.5, "EUR")))


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_is_a_page(verdict: str) -> None:
    word, _ = VERDICTS[verdict]
    assert f">{word}</span>" in render(replace(sample("good"), verdict=verdict))


def test_refusals_are_in_words() -> None:
    shown = text(render(sample("refused")))
    assert "No value is given for linear-baseline. It would approve 38% of rows" in shown
    assert "The chances logged are not those by which was acted" in shown
    assert "(no interval: fewer than 6 groups)" in shown
    assert "A payoff of −412 EUR lies beyond the declared cap" in shown
    assert "broken" in shown


def test_what_is_not_there_yet_says_when_it_will_be() -> None:
    shown = text(render(sample("unused")))
    for sentence in (
        "No decision is in the ledger yet.",
        "It waits for its first outcome.",
        "No challenger is being tested.",
        "Two periods with outcomes are needed",
        "No column has moved",
        "No outcome has come yet",
    ):
        assert sentence in shown
    assert "<figure" not in render(sample("unused"))


def test_drift_is_ranked_by_money() -> None:
    html = render(replace(sample("alarm"), drift=tuple(sorted(sample("alarm").drift, key=lambda m: abs(m.stake.value)))))
    table = html[html.index('id="drift"') : html.index('id="worths"')]
    assert re.findall("<th scope=.row.>(.*?)</th>", table) == [
        "the prediction", "<code>income_<wbr>monthly</code>", "<code>region</code>", "<code>employer</code>",
    ]  # fmt: skip


def test_only_the_most_dear_moves_and_the_last_periods_are_listed_and_that_is_said() -> None:
    review = sample("alarm")
    html = render(replace(review, drift=review.drift * 10, periods=review.periods * 4))
    assert "per decision: 15 of 40" in html
    assert "the latest first: 60 of 72" in html


def test_a_plan_says_how_long_still_or_that_it_cannot_be_told() -> None:
    review = sample("good")
    waiting = review.challenges[1]
    assert "39 more days" in text(render(review))
    assert "Waiting is worth 2,140" in text(render(review))
    endless = replace(waiting, plan=Plan(0.5, 0.8, 2100, math.inf, math.inf, -3.0))
    shown = text(render(replace(review, challenges=(endless,))))
    assert "it cannot be told when the test ends; with fewer than 2,100 no evidence can suffice." in shown
    boundless = text(render(replace(review, challenges=(replace(endless, plan=replace(endless.plan, least=0.0)),))))
    assert "it cannot be told when the test ends. Waiting" in boundless
    assert "Waiting is worth nothing: −3.00" in shown
    assert "How long still" not in text(render(replace(review, challenges=review.challenges[:1])))


def test_an_early_interval_does_not_flatten_the_chart_of_a_test() -> None:
    review = sample("good")
    wild = replace(review.challenges[0], path=((10, -9000.0, 0.0, 9000.0), *review.challenges[0].path))
    html = render(replace(review, challenges=(wild,)))
    assert "9000" not in html
    assert ">9,000<" not in html


def test_an_alarm_on_missing_outcomes_is_told_before_the_verdict() -> None:
    review = sample("alarm")
    missing = Alarm(True, 9e4, 36_500.0, None, 50, 0.02, 1.0, 12.0, "A fifth of the outcomes never came.")
    shown = text(render(replace(review, alarm=replace(review.alarm, missing=missing))))
    assert "Missing outcomes. A fifth of the outcomes never came." in shown
    assert shown.index("Missing outcomes. ") < shown.index("The model earns")


def test_a_model_of_one_period_is_drawn_over_its_length() -> None:
    review = sample("refused")
    html = render(review)
    chart = html[html.index('id="over-time"') :]
    assert re.search(r'<path d="M0.0 [\d.]+L1000.0 [\d.]+" class="line', chart)


def test_the_chance_of_a_sample_ratio_that_is_small_is_not_written_as_nothing() -> None:
    assert "p &lt;0.001" in render(sample("refused"))
    assert "p 0.41" in render(sample("good"))


def test_neither_values_nor_chances_make_no_section() -> None:
    assert 'id="worths"' not in render(replace(sample("good"), worths=(), ratio=None))
    assert "doubly robust" not in render(replace(sample("good"), worths=()))


def test_hostile_names_stay_names() -> None:
    html = render(sample("stakes"))
    assert "<script" not in html
    assert "<img" not in html
    assert text(html).count(HOSTILE.replace("\x00", "\ufffd").replace("\u202e", "\ufffd")) > 10
    html.encode("utf-8")


def test_every_chart_has_its_alternatives() -> None:
    charts = re.findall(r"<figure.*?</figure>", render(sample("alarm")) + render(sample("good")), re.DOTALL)
    assert len(charts) >= 9
    for chart in charts:
        assert chart.count('role="img"') == 1
        assert re.search(r"<title id=[^>]*>[^<]+</title><desc id=[^>]*>[^<]+</desc>", chart)
        assert "<table" in chart
        assert "nan" not in re.sub(r"value=.nan.", "", chart)


def test_a_gap_is_kept_only_with_an_interval() -> None:
    assert kept(Estimate(-1.0, -1.5, -0.5)) == "exceeded"
    assert kept(Estimate(5.0, math.nan, math.nan)) == "unknown"


def test_the_other_tests_lower_limit_is_drawn_where_there_is_one() -> None:
    review = sample("good")
    assert "lower limit now, asymptotic" in render(review)
    without = replace(review.challenges[0], beside=Estimate(0.8, math.nan, math.nan, "EUR"))
    assert "lower limit now" not in render(replace(review, challenges=(without,)))
