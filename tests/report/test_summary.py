from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from makegood.monitoring.review import CAUSES, Review
from makegood.report.looped import Event, Looping
from makegood.report.review_page import VERDICTS, render
from makegood.report.summary import loop_json, loop_text, review_json, review_text

SAMPLES = runpy.run_path(str(Path(__file__).with_name("reviews.py")))
ESTIMATE = {"value", "low", "high", "unit"}


@pytest.fixture(params=SAMPLES["REVIEWS"])
def review(request: pytest.FixtureRequest) -> Review:
    made: Review = SAMPLES["REVIEWS"][request.param]()
    return made


@pytest.fixture(params=SAMPLES["LOOPS"])
def loop(request: pytest.FixtureRequest) -> Looping:
    made: Looping = SAMPLES["LOOPS"][request.param]()
    return made


def test_the_json_of_a_review_holds_what_is_promised(review: Review) -> None:
    found = json.loads(json.dumps(review_json(review), allow_nan=False))
    assert found.keys() >= {
        "case", "matured", "promised", "realised", "gap", "alarm", "challengers", "attribution", "verdict", "why", "next", "replayed",
    }  # fmt: skip
    assert found["promised"].keys() >= ESTIMATE
    assert found["alarm"].keys() >= {"raised", "evidence", "limit", "since"}
    assert "path" not in json.dumps(found)
    for challenger in found["challengers"]:
        assert challenger.keys() >= {"model", "gain", "evidence", "decision"}
        assert challenger["gain"].keys() >= ESTIMATE
    if review.attribution is not None:
        assert found["attribution"].keys() >= {*CAUSES, "unexplained", "change"}
        assert found["attribution"]["before"][0] == "2026-01-01T00:00:00Z"


def test_the_json_of_a_review_is_its_figures() -> None:
    review = SAMPLES["alarm"]()
    found = review_json(review)
    assert found["gap"]["value"] == review.gap.value
    assert found["attribution"]["world"]["low"] == review.attribution.causes["world"].low
    assert found["alarm"]["since"] == "2026-04-18T16:00:00Z"
    assert found["alarm"]["missing"]["expected_delay"] is None
    assert found["periods"][0]["end"] == "2026-01-08T00:00:00Z"


def test_the_json_of_a_loop_holds_what_is_promised(loop: Looping) -> None:
    found = json.loads(json.dumps(loop_json(loop, "loop.html"), allow_nan=False))
    assert found.keys() >= {"case", "money", "gains", "alarms", "retrained", "promoted", "report", "injected", "replayed"}
    assert all(money.keys() >= ESTIMATE for money in found["money"].values())
    assert found["report"] == "loop.html"
    assert [r["verdict"] for r in found["reviews"]] == [r.verdict for r in loop.reviews]


def test_the_json_of_a_loop_lists_its_events_by_kind() -> None:
    found = loop_json(SAMPLES["looped"](), "")
    assert (found["alarms"], found["promoted"]) == (["2026-05-21T00:00:00Z"], ["2026-06-26T00:00:00Z"])


def test_a_terminal_is_told_the_verdict_first_in_25_lines(review: Review) -> None:
    lines = review_text(review).splitlines()
    assert len(lines) <= 25
    assert lines[0].startswith(VERDICTS[review.verdict][0].upper())
    assert all(len(line) <= 100 for line in lines)
    assert not any(ord(c) < 32 or c in "\x7f\u202e" for line in lines for c in line)


def test_what_a_terminal_is_told_of_a_review() -> None:
    shown = review_text(SAMPLES["alarm"]())
    assert "gap           1.90 [1.40, 2.40] EUR" in shown
    assert "alarm         raised, since 18 Apr 2026 16:00 UTC: evidence 2.94e+07 of 36,500" in shown
    assert shown.index("moved         the prediction") < shown.index("moved         income_monthly")
    assert "Replayed: " in shown
    assert "Injected: From March on" in shown
    assert shown.rstrip().splitlines()[-1].startswith("Next: makegood run")


def test_a_gap_over_other_decisions_than_the_promise_says_so() -> None:
    review = SAMPLES["alarm"]()
    whole = replace(review, promised=replace(review.realised, value=review.realised.value + review.gap.value))
    assert "whose outcome came" not in review_text(whole)
    other = replace(whole, promised=replace(whole.promised, value=whole.promised.value + 1.0))
    assert "gap           1.90 [1.40, 2.40] EUR, over those whose outcome came" in review_text(other)
    assert "over those of them whose outcome came" in render(other)
    assert "over those of them whose outcome came" not in render(whole)


def test_a_terminal_is_told_of_missing_outcomes() -> None:
    review = SAMPLES["alarm"]()
    missing = replace(review.alarm.missing, raised=True, why="A fifth never came.")
    assert "missing       A fifth never came." in review_text(replace(review, alarm=replace(review.alarm, missing=missing)))


def test_a_terminal_is_told_the_gain_first_in_25_lines(loop: Looping) -> None:
    lines = loop_text(loop).splitlines()
    assert len(lines) <= 25
    assert all(len(line) <= 100 for line in lines)
    assert any("never retraining" in line for line in lines[1:3])


def test_what_is_cut_is_said_and_the_notes_stay() -> None:
    loop = SAMPLES["looped"]()
    many = replace(loop, events=tuple(Event(loop.start, "alarm", str(i)) for i in range(100)))
    lines = loop_text(many).splitlines()
    assert len(lines) == 25
    assert lines[-3] == "… 89 more lines are on the page"
    assert lines[-1].startswith("Injected: ")
