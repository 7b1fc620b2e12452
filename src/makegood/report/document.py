"""The frame of every page: one self-contained HTML file with its contents and its styles, and a policy that forbids the rest."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from makegood.report.markup import Markup, tag
from makegood.report.money import Section

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def document(title: str, top: tuple[str, Markup], sections: Sequence[Section], source: str) -> str:
    """Return a page: `top` is what the contents call the verdict and all down to it (it has the id verdict), `source` what it is of."""
    name, opening = top
    entries = [("verdict", name), *((s.key, s.title) for s in sections)]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup((files("makegood.report") / "templates" / "page.css").read_text("utf-8"))),
    )
    body = tag(
        "body",
        tag("a", "Skip to the verdict", href="#verdict", class_="skip"),
        tag("nav", tag("ol", [tag("li", tag("a", text, href=f"#{key}")) for key, text in entries]), aria_label="Contents"),
        tag("main", opening, [tag("section", tag("h2", s.title), s.body, id=s.key) for s in sections]),
        tag("footer", "Made by makegood, ", tag("code", source), ". This page is whole in itself and needs no network."),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"
