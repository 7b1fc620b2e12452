from __future__ import annotations

import math
import re
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from makegood.contracts import Estimate
from makegood.report.loop_page import render, result
from makegood.report.looped import KINDS, Looping

SAMPLES = runpy.run_path(str(Path(__file__).with_name("reviews.py")))
Page = runpy.run_path(str(Path(__file__).with_name("test_page.py")))["Page"]


def sample(name: str) -> Looping:
    made: Looping = SAMPLES["LOOPS"][name]()
    return made


def text(html: str) -> str:
    return "".join(Page(html).text).replace("\xa0", " ")


@pytest.mark.parametrize("name", SAMPLES["LOOPS"])
def test_the_page_is_well_formed_and_nothing_runs(name: str) -> None:
    html = render(sample(name))
    page = Page(html)
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"] for tag, a in page.elements if tag == "a"} <= {f"#{i}" for i in ids}
    assert not {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "form"}
    assert not re.search(r"https?:|url\(|javascript:", html)
    assert html.count("</style>") == 1


def test_money_comes_first_with_its_interval_and_what_is_injected_before_it() -> None:
    loop = sample("looped")
    html = render(loop)
    shown = text(html)
    assert "<title>consumer-loans: gained · makegood</title>" in html
    assert shown.index("Injected. ") < shown.index("Closing the loop earned 77,000 EUR more than never retraining.")
    assert "[67,500, 86,500]" in shown
    assert "80.2% of what knowing every change beforehand would have gained" in shown
    exact = {value for value, _ in Page(html).data}
    for estimate in (*loop.money.values(), *loop.gains.values()):
        assert {estimate.value, estimate.low, estimate.high} <= exact


def test_what_was_lost_against_the_calendar_is_in_the_headline() -> None:
    loop = sample("looped")
    lost = replace(loop, gains={**loop.gains, "scheduled": Estimate(-9000.0, -12_000.0, -6000.0, "EUR")})
    shown = text(render(lost))
    assert "Closing the loop earned 77,000 EUR more than never retraining, but 9,000 EUR less than retraining by the calendar." in shown
    assert 'class="verdict good"' in render(loop)
    assert 'class="verdict good"' not in render(lost)
    unsure = replace(loop, gains={**loop.gains, "scheduled": Estimate(-9000.0, -12_000.0, 6000.0, "EUR")})
    assert "more than never retraining." in text(render(unsure))


def test_events_are_numbered_in_the_chart_as_in_the_table() -> None:
    loop = sample("looped")
    html = render(loop)
    assert [e.kind for e in loop.events] == list(KINDS)
    assert re.findall(r'class="flag (\w+)">(\d)</text>', html) == [
        ("bad", "1"), ("other", "2"), ("other", "3"), ("other", "4"), ("good", "5"), ("other", "6"), ("bad", "7"),
    ]  # fmt: skip
    rows = re.findall(r"<tr><th scope=.row.>(\d)</th>.*?</tr>", html)
    assert rows == [str(i) for i in range(1, 8)]
    assert text(html).count("c2d39f00117a broke a guardrail in its guard period.") == 1


@pytest.mark.parametrize(
    ("gain", "word", "sentence"),
    [
        (Estimate(9.0, -1.0, 19.0, "EUR"), "No gain shown", "which chance can explain"),
        (Estimate(9.0, math.nan, math.nan, "EUR"), "No gain shown", "which chance can explain"),
        (Estimate(-9.0, -12.0, -6.0, "EUR"), "Lost", "9.00 EUR less than never retraining"),
        (Estimate(9.0, 6.0, 12.0, "EUR"), "Gained", "9.00 EUR more than never retraining"),
    ],
)
def test_a_gain_is_said_only_where_it_is_shown(gain: Estimate, word: str, sentence: str) -> None:
    html = render(replace(sample("looped"), gains={"never": gain}))
    assert f">{word}</span>" in html
    assert sentence in text(html)
    assert ("of what knowing every change" in text(html)) == (word == "Gained")


def test_a_loop_in_which_nothing_happened_is_a_page() -> None:
    shown = text(render(sample("still")))
    assert "it was not compared with never retraining" in shown
    assert "no alarm was raised, and no other model was tried" in shown
    assert "there is no money to compare" in shown
    assert 'id="reviews"' not in render(sample("still"))


def test_reviews_have_their_essentials() -> None:
    html = render(sample("looped"))
    assert "7 May 2026: retrain" in html
    assert "The model earns 1.90 EUR less per decision than it promised." in text(html)
    many = replace(sample("looped"), reviews=sample("looped").reviews * 40)
    assert "the last 60 of 80" in render(many)
    calm = replace(sample("looped").reviews[0], verdict="keep")
    assert "<h3>" not in render(replace(sample("looped"), reviews=(calm,)))


def test_no_share_of_nothing() -> None:
    loop = sample("looped")
    money = {**loop.money, "oracle": loop.money["never"]}
    assert "of what knowing every change" not in text(render(replace(loop, money=money)))


def test_hostile_names_stay_names() -> None:
    html = render(sample("strange"))
    assert "<script" not in html
    assert "<img" not in html
    assert "less than never retraining" in result(sample("strange"))
