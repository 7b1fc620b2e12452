from __future__ import annotations

import base64
import io
import math
import re
from dataclasses import replace
from html import unescape

import numpy as np
import PIL.Image
import pytest

from makegood.contracts import Mistake, Mistakes
from makegood.report import gallery
from makegood.report.page import ReportInput, render

WORST = Mistake(np.arange(64, dtype=np.uint8).reshape(8, 8, 1) * 4, "8/0003.png", "8", "3", 0.0214, 0.961, "read 3", "read 8", 3.0)
REFERRED = replace(WORST, image=None, place="", predicted="8", p_outcome=0.912, p_predicted=0.912, action="person", loss=0.1)
FOUND = Mistakes("EUR", 1797, 14, 4.3, (WORST, REFERRED))


def text(markup: str) -> str:
    return unescape(re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", markup))).replace("\u00a0", " ")


def body(found: Mistakes | None, outcome: str = "digit") -> str:
    section = gallery.mistakes(found, outcome)
    assert section is not None
    assert (section.key, section.title) == ("mistakes", "The costliest mistakes")
    return str(section.body)


def test_a_case_without_images_has_no_gallery() -> None:
    assert gallery.mistakes(None, "digit") is None


def test_each_mistake_says_what_was_true_what_was_done_what_was_predicted_and_what_it_cost() -> None:
    shown = text(body(FOUND))
    assert "lost 3.00 EUR digit: 8 done: read 3 best: read 8 predicted: 3 (96.1%), not 8 (2.1%) 8/0003.png" in shown
    assert "lost 0.10 EUR digit: 8 done: person best: read 8 predicted: 8 (91.2%)" in shown
    assert "no image that could be read" in shown


def test_the_lead_says_how_many_lost_and_how_much_in_all() -> None:
    shown = text(body(FOUND))
    assert "On 14 of 1,797 held-out rows (0.8%) another action would have paid more, as is known in hindsight: 4.30 EUR in all." in shown
    assert "The 2 that lost most are below: they lost 3.10 EUR of that." in shown
    assert "The one that lost most is below: it lost 3.00 EUR of that." in text(body(replace(FOUND, costliest=(WORST,))))
    assert "below" not in text(body(replace(FOUND, count=2, total=3.1)))


def test_without_a_mistake_it_says_so() -> None:
    shown = body(Mistakes("EUR", 1797, 0, 0.0, ()))
    assert "On none of the 1,797 held-out rows would another action have paid more." in text(shown)
    assert "<ul" not in shown


def test_the_picture_is_the_image() -> None:
    (source,) = re.findall(r'<img src="data:image/png;base64,([^"]+)" width="8" height="8" alt="([^"]+)" class="picture">', body(FOUND))
    with PIL.Image.open(io.BytesIO(base64.b64decode(source[0], validate=True))) as image:
        assert np.array_equal(np.asarray(image)[..., None], WORST.image)
    assert source[1] == "The image of a row whose digit was 8"


def test_large_images_are_shrunk_for_the_page() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 300, 3), dtype=np.uint8)
    shown = body(replace(FOUND, costliest=(replace(WORST, image=noise),) * 12))
    assert 'width="50" height="86"' in shown
    assert len(shown) < 250_000


def test_a_number_is_predicted_without_probabilities() -> None:
    number = replace(WORST, outcome="71", predicted="64.2", p_outcome=math.nan, p_predicted=math.nan)
    assert "age: 71 done: read 3 best: read 8 predicted: 64.2 8/0003.png" in text(body(replace(FOUND, costliest=(number,)), "age"))


def test_names_cannot_become_code(hostile: str) -> None:
    bad = Mistake(WORST.image, hostile, hostile, hostile, 0.1, 0.9, hostile, hostile, 1.0)
    shown = body(Mistakes(hostile, 20, 1, 1.0, (bad,)), hostile)
    assert "<script" not in shown
    assert shown.count("<img") == 1
    assert 'onerror="' not in shown.replace("&quot;", "")


@pytest.mark.parametrize("found", [FOUND, Mistakes("EUR", 3, 0, 0.0, ())])
def test_the_page_holds_it_between_what_it_does_and_what_drives_it(credit: ReportInput, found: Mistakes) -> None:
    html = render(replace(credit, mistakes=found))
    order = re.findall(r'<section id="([a-z]+)"', html)
    assert order[order.index("actions") : order.index("drivers") + 1] == ["actions", "mistakes", "drivers"]
    assert '<a href="#mistakes">The costliest mistakes</a>' in html
    assert "img-src data:;" in html
