"""HTML and SVG as values: text is escaped unless it is markup already, so that no column name can become code."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape as _escape
from typing import TypeAlias

_VOID = frozenset({"br", "col", "hr", "img", "meta", "wbr"})
# Control characters, lone surrogates (they cannot be written as UTF-8) and the overrides that would reverse the text after them.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Markup(str):
    """Text that is markup already and is never escaped again."""

    __slots__ = ()


Child: TypeAlias = "str | Iterable[Child] | None"
Attribute = str | float | bool | None


def escape(text: str) -> Markup:
    """Return the text as markup that shows it, whatever it holds.

    >>> escape("<b onclick='x'>")
    '&lt;b onclick=&#x27;x&#x27;&gt;'
    """
    return Markup(_escape(printable(text)))


def printable(text: str) -> str:
    """Return the text with a mark in place of each character that would steer the screen or turn the text around.

    >>> printable("a\\x1b[2Jb") == "a\\ufffd[2Jb"
    True
    """
    return _UNPRINTABLE.sub("\ufffd", text)


def join(*children: Child) -> Markup:
    """Return the children one after the other: strings escaped, markup as it is, None left out, iterables walked.

    >>> join("a < b", tag("br"), None, ["c", "d"])
    'a &lt; b<br>cd'
    """
    parts: list[str] = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(escape(child))
        elif child is not None:
            parts.append(join(*child))
    return Markup("".join(parts))


def tag(name: str, *children: Child, **attributes: Attribute) -> Markup:
    """Return an element. `class_` is written class, `aria_label` aria-label; None and False are left out, True is bare.

    >>> tag("a", "R&D", href="#rd", class_="x", hidden=False)
    '<a href="#rd" class="x">R&amp;D</a>'
    """
    written = "".join(_attribute(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    if value is True:
        return f" {key}"
    return f' {key}="{escape(value if isinstance(value, str) else f"{value:.6g}")}"'
