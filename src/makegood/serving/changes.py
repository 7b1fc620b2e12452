"""A change of what serves, as somebody asks for it: read from a request, with the evidence on which it rests."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from makegood.errors import Problem, nearest
from makegood.monitoring.exploring import MOST, Exploration
from makegood.serving.problems import Trouble

Evidence = Mapping[str, str | int | float]
"""What a change rests on: figures of a test by name, of which `evidence` and `limit` are looked at here."""
MOST_FACTS = 20
"""Entries of evidence."""
LONGEST_NAME, LONGEST_FACT, LONGEST = 40, 200, 2_000
"""Characters of an entry's name, of its text, and of any other text."""
MOST_SEGMENTS = 1_000
"""That an exploration tells apart."""
_KINDS: Mapping[str, tuple[type, str]] = {
    "by": (str, "a person's name"),
    "why": (str, "a text"),
    "share": (float, "a number"),
    "force": (bool, "true or false"),
    "evidence": (dict, f"an object of at most {MOST_FACTS} figures, such as a review's evidence and limit"),
    "explore": (dict, "what a review reckoned: k, spread, floor, least, budget and period_s"),
    "holdback": (float, "a number"),
}
_ROUNDING = 1.0 - 1e-9  # of a limit that was written in decimals


@dataclass(frozen=True)
class Change:
    """What is asked: a `verb` of `rollout.VERBS` and a model's name, whole or short.

    `share` is the canary's, of the units; `explore` what the chances of its rows are reckoned from, in place of a share; `holdback`
    the share of the units that the champion keeps after another is promoted. `force` lets in what the service would refuse.
    """

    verb: str
    model: str
    by: str = ""
    why: str = ""
    share: float | None = None
    force: bool = False
    evidence: Evidence = field(default_factory=dict)
    explore: Exploration | None = None
    holdback: float | None = None

    @classmethod
    def of(cls, verb: str, model: str, found: Any) -> Change:
        """Return the change that a request's JSON asks for; raises `Trouble` (422) with every field that is wrong."""
        if not isinstance(found, dict):
            expected = f"an object with {', '.join(_KINDS)}, or some of them"
            raise Trouble(422, "A change is an object", [Problem("body", type(found).__name__, expected, "send one")])
        problems = [problem for name, value in found.items() for problem in _wrong(name, value)]
        if problems:
            raise Trouble(422, "The change is not as it should be", problems)
        explore = found.get("explore")
        return cls(verb, model, **{**found, "explore": None if explore is None else Exploration(**explore)})

    @property
    def reached(self) -> bool:
        """Whether the evidence has come to its limit."""
        found, limit = _figure(self.evidence, "evidence"), _figure(self.evidence, "limit")
        return found is not None and limit is not None and found >= limit

    def lacking(self, champion: str, confidence: float) -> Iterator[Problem]:
        """Yield what the evidence lacks for a model to take the place of the champion, where `confidence` is asked for."""
        found, limit, least = _figure(self.evidence, "evidence"), _figure(self.evidence, "limit"), 1.0 / (1.0 - confidence)
        mend = "run `makegood review`, which reckons it and says about how long it takes; or send force: true and why"
        if found is None or limit is None:
            got = ", ".join(self.evidence)[:80] or "none"
            yield Problem("evidence", got, f"evidence and limit of a test that this model earns more than {champion}", mend)
            return
        if limit < least * _ROUNDING:
            expected = f"at least {least:.6g}, since feedback.promote.confidence is {confidence:g}"
            yield Problem("evidence: limit", f"{limit:.6g}", expected, mend)
        if found < limit:
            yield Problem("evidence: evidence", f"{found:.6g}", f"at least its limit, {limit:.6g}", mend)
        against = self.evidence.get("champion", champion)
        if against != champion:
            yield Problem("evidence: champion", f"{against}", f"{champion}, which decides now", mend)


def _figure(evidence: Evidence, name: str) -> float | None:
    found = evidence.get(name)
    return None if found is None or isinstance(found, str) else float(found)


# ------------------------------------------------------------------------------------------------------------------ checks


def _wrong(name: str, value: Any) -> Iterator[Problem]:
    """Yield what is wrong with a field of a request."""
    if name not in _KINDS:
        yield Problem(name, str(value)[:80], f"one of {', '.join(_KINDS)}", nearest(name, _KINDS) or "leave it out")
        return
    kind, expected = _KINDS[name]
    right = _number(value) is not None if kind is float else isinstance(value, kind)
    if not right or (isinstance(value, str) and len(value) > LONGEST):
        yield Problem(name, str(value)[:80], expected, "mend it, or leave it out")
    elif name == "evidence":
        yield from _facts(value)
    elif name == "explore":
        yield from _explored(value)


def _number(value: Any) -> float | None:
    """Return a finite number, None for what is none; a ledger holds no whole number beyond 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int | float) or (isinstance(value, int) and not -(2**63) <= value < 2**63):
        return None
    return float(value) if math.isfinite(value) else None


def _facts(evidence: Mapping[str, Any]) -> Iterator[Problem]:
    if len(evidence) > MOST_FACTS:
        yield Problem("evidence", f"{len(evidence)} entries", f"at most {MOST_FACTS}", "send what tells most")
    for name, value in evidence.items():
        if not (0 < len(name) <= LONGEST_NAME and name.isprintable()):
            yield Problem("evidence", name[:80], f"names of 1 to {LONGEST_NAME} characters that can be printed", "shorten it")
        elif _number(value) is None and not (isinstance(value, str) and len(value) <= LONGEST_FACT):
            expected = f"a finite number, or a text of at most {LONGEST_FACT} characters"
            yield Problem(f"evidence: {name}", str(value)[:80], expected, "mend it, or leave it out")


def _explored(explore: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with an exploration's parameters."""
    numbers = [one.name for one in fields(Exploration) if one.name != "spread"]
    for name in explore:
        if name not in (*numbers, "spread"):
            expected = f"one of {', '.join((*numbers, 'spread'))}"
            yield Problem("explore", name[:80], expected, nearest(name, numbers) or "leave it out")
    found = {name: _number(explore.get(name, MOST if name == "most" else None)) for name in numbers}
    least = found["least"] or 0.0
    within = {
        "k": (found["k"] is not None and found["k"] >= 0.0, "a number of at least 0"),
        "least": (0.0 < least <= MOST, f"a chance above 0 and of at most {MOST:g}"),
        "most": (found["most"] is not None and least <= found["most"] <= MOST, f"a chance from least to {MOST:g}"),
        **{name: ((found[name] or 0.0) > 0.0, "a number above 0") for name in ("floor", "budget", "period_s")},
    }
    for name in numbers:
        right, expected = within[name]
        if not right:
            yield Problem(f"explore: {name}", str(explore.get(name, "nothing"))[:80], expected, "send what the review reckoned")
    spread = explore.get("spread")
    if not isinstance(spread, dict) or "" not in spread or len(spread) > MOST_SEGMENTS:
        got = f"{len(spread)} segments" if isinstance(spread, dict) else str(spread)[:80]
        expected = f'an object of at most {MOST_SEGMENTS} segments, with "" for rows of no other'
        yield Problem("explore: spread", got, expected, "send what the review reckoned")
        return
    for segment, value in spread.items():
        s = _number(value)
        if s is None or s < 0.0:
            yield Problem(f"explore: spread: {segment[:80]}", str(value)[:80], "a number of at least 0", "send what the review reckoned")
