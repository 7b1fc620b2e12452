"""The section of mistakes on images: the pictures themselves, what was seen in them, and what it cost."""

from __future__ import annotations

import base64
import math

from makegood.contracts import Mistake, Mistakes
from makegood.report import png, words
from makegood.report.markup import Markup, join, tag
from makegood.report.money import Section

_SIDE = 96  # pixels of a picture's longer side: a page stays small, and a reader needs no more to see what it is


def mistakes(found: Mistakes | None, outcome: str) -> Section | None:
    """Return how many rows hindsight would have decided better, and the costliest as pictures; None where there are no images.

    `outcome` is the outcome's name.
    """
    if found is None:
        return None
    n = words.digits(found.unit, *(mistake.loss for mistake in found.costliest))
    pictures = [_item(mistake, words.figure(mistake.loss, n, found.unit), outcome) for mistake in found.costliest]
    return Section("mistakes", "The costliest mistakes", join(_lead(found), tag("ul", pictures, class_="gallery") if pictures else None))


def _lead(found: Mistakes) -> Markup:
    if not found.count:
        return tag("p", "On none of the ", words.whole(found.n), " held-out rows would another action have paid more.")
    shown = len(found.costliest)
    below = "The one that lost most is below: it lost " if shown == 1 else f"The {shown} that lost most are below: they lost "
    part = [" ", below, words.money(math.fsum(m.loss for m in found.costliest), found.unit), " of that."]
    return tag(
        "p",
        "On ",
        words.whole(found.count),
        " of ",
        words.whole(found.n),
        f" held-out rows ({words.percent(found.count / found.n)}) another action would have paid more, as is known in hindsight: ",
        tag("b", words.money(found.total, found.unit)),
        " in all.",
        part if shown < found.count else None,
        " Caution counts as well, where a bolder action would have paid.",
    )


def _item(mistake: Mistake, loss: Markup, outcome: str) -> Markup:
    return tag(
        "li",
        _picture(mistake, outcome),
        tag("b", "lost ", loss),
        tag("span", f"{outcome}: ", tag("strong", mistake.outcome), class_="line"),
        tag("span", f"done: {mistake.action}", class_="line"),
        tag("span", f"best: {mistake.best}", class_="line"),
        tag("span", _prediction(mistake), class_="line soft"),
        tag("code", mistake.place) if mistake.place else None,
    )


def _picture(mistake: Mistake, outcome: str) -> Markup:
    """Return the image inside the page, enlarged by the style sheet."""
    if mistake.image is None:
        return tag("span", "no image that could be read", class_="picture soft")
    pixels = png.shrunk(mistake.image, _SIDE)
    height, width, _ = pixels.shape
    source = f"data:image/png;base64,{base64.b64encode(png.encode(pixels)).decode('ascii')}"
    alt = f"The image of a row whose {outcome} was {mistake.outcome}"
    return tag("img", src=source, width=width, height=height, alt=alt, class_="picture")


def _prediction(mistake: Mistake) -> str:
    """Return what was predicted, in words: of classes with the probability, and that of what came true."""
    if math.isnan(mistake.p_predicted):
        return f"predicted: {mistake.predicted}"
    said = f"predicted: {mistake.predicted} ({words.percent(mistake.p_predicted)})"
    return said if mistake.predicted == mistake.outcome else f"{said}, not {mistake.outcome} ({words.percent(mistake.p_outcome)})"
