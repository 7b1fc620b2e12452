from __future__ import annotations

from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from makegood.report.markup import Markup, escape, join, tag


@given(st.text())
def test_escaped_text_is_text_and_can_be_written(text: str) -> None:
    escaped = escape(text)
    assert not set(escaped) & set("<>\"'\x00\u202e")
    assert len(unescape(escaped)) == len(text)
    escaped.encode("utf-8")


def test_escape_replaces_what_cannot_be_written_or_would_reverse_the_page() -> None:
    assert escape("a\x00b\u202ec\ud800d\te") == "a\ufffdb\ufffdc\ufffdd\te"


def test_markup_is_not_escaped_twice() -> None:
    inner = tag("b", "a < b")
    assert join(inner, inner) == "<b>a &lt; b</b><b>a &lt; b</b>"
    assert isinstance(join("x"), Markup)


@pytest.mark.parametrize(
    ("value", "written"),
    [(None, ""), (False, ""), (True, " x"), (2, ' x="2"'), (0.125, ' x="0.125"'), ('a"b', ' x="a&quot;b"')],
)
def test_attributes(value: str | float | bool | None, written: str) -> None:
    assert tag("i", x=value) == f"<i{written}></i>"


def test_names_of_attributes() -> None:
    assert tag("i", class_="a", aria_label="b", viewBox="c") == '<i class="a" aria-label="b" viewBox="c"></i>'


def test_an_empty_element_has_no_end() -> None:
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'
