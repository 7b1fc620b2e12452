"""The page in a real browser: nothing is fetched, nothing runs, nothing hangs over the edge, from a phone to a wide screen."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from makegood.report import loop_page, review_page
from makegood.report.page import ReportInput, render

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium on the path")
    with sync.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


SAMPLES = runpy.run_path(str(Path(__file__).with_name("reviews.py")))


def html_of(name: str, request: pytest.FixtureRequest) -> str:
    if name in SAMPLES["REVIEWS"]:
        return review_page.render(SAMPLES["REVIEWS"][name]())
    if name in SAMPLES["LOOPS"]:
        return loop_page.render(SAMPLES["LOOPS"][name]())
    report: ReportInput = request.getfixturevalue(name)
    return render(report)


@pytest.mark.parametrize("name", ["credit", "school", "hard", "digits", *SAMPLES["REVIEWS"], *SAMPLES["LOOPS"]])
def test_a_page_in_a_browser(browser: Browser, name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    file = tmp_path / "report.html"
    file.write_text(html_of(name, request), encoding="utf-8")
    page = browser.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda r: asked.append(r.url))
    page.on("console", lambda m: said.append(m.text))
    page.on("dialog", lambda d: (said.append(d.message), d.dismiss()))
    page.goto(file.as_uri())
    assert asked == [file.as_uri()]
    assert said == []
    pictures = page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight])")
    assert len(pictures) == (11 if name == "digits" else 0)
    assert all(complete and width and height for complete, width, height in pictures)
    for width in (360, 768, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # text that hangs out of its box, and is neither cut with an ellipsis nor scrolled, lies over something else
        loose = page.evaluate(
            """() => [...document.querySelectorAll('p, li, dd, dt, h1, h2, .row b, figcaption, caption, td, th')]
                .filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 && !e.closest('nav')).map(e => e.textContent)"""
        )
        assert loose == []
    page.close()


def test_colours_follow_the_reader_and_paper_is_light(browser: Browser, credit: ReportInput, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(render(credit), encoding="utf-8")
    page = browser.new_page(color_scheme="dark")
    page.goto(file.as_uri())
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(20, 23, 27)"
    page.emulate_media(media="print")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.close()
