"""What is asked of the models that serve: read from a request, and the evidence that a promotion needs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving.houses import PROOF

from makegood.monitoring.exploring import Exploration
from makegood.serving.changes import MOST_FACTS, MOST_SEGMENTS, Change
from makegood.serving.problems import Trouble

EXPLORE: dict[str, Any] = {
    "k": 0.2,
    "spread": {"": 3.0, "approve > decline": 4},
    "floor": 1,
    "least": 0.02,
    "budget": 500,
    "period_s": 604800,
}


def wrong(found: Any) -> list[tuple[str, str]]:
    with pytest.raises(Trouble) as caught:
        Change.of("promote", "m", found)
    assert caught.value.status == 422
    return [(problem.where, problem.expected) for problem in caught.value.problems]


def test_what_is_asked_is_what_is_meant() -> None:
    assert Change.of("retire", "m", {}) == Change("retire", "m")
    said = {"by": "Ada", "why": "it earns", "evidence": PROOF, "holdback": 0.1, "force": True}
    assert Change.of("promote", "m", said) == Change("promote", "m", "Ada", "it earns", force=True, evidence=PROOF, holdback=0.1)
    assert Change.of("canary", "m", {"share": 1}).share == 1
    explored = Change.of("canary", "m", {"explore": EXPLORE}).explore
    assert explored == Exploration(0.2, {"": 3.0, "approve > decline": 4}, 1, 0.02, 500, 604800)


@pytest.mark.parametrize(
    ("found", "where"),
    [
        ([], "body"),
        ({"shar": 1}, "shar"),
        ({"share": "half"}, "share"),
        ({"share": True}, "share"),
        ({"share": 2**64}, "share"),
        ({"holdback": None}, "holdback"),
        ({"force": 1}, "force"),
        ({"by": 3}, "by"),
        ({"why": "x" * 2001}, "why"),
        ({"evidence": 27.1}, "evidence"),
        ({"evidence": {f"n{i}": i for i in range(MOST_FACTS + 1)}}, "evidence"),
        ({"evidence": {"": 1}}, "evidence"),
        ({"evidence": {"x" * 41: 1}}, "evidence"),
        ({"evidence": {"a\tb": 1}}, "evidence"),
        ({"evidence": {"ok": True}}, "evidence: ok"),
        ({"evidence": {"path": [1, 2]}}, "evidence: path"),
        ({"evidence": {"much": float("inf")}}, "evidence: much"),
        ({"evidence": {"words": "x" * 201}}, "evidence: words"),
        ({"explore": True}, "explore"),
        ({"explore": EXPLORE | {"leats": 1}}, "explore"),
        ({"explore": EXPLORE | {"k": -1}}, "explore: k"),
        ({"explore": EXPLORE | {"least": 0.6}}, "explore: least"),
        ({"explore": EXPLORE | {"most": 0.51}}, "explore: most"),
        ({"explore": EXPLORE | {"most": 0.01}}, "explore: most"),
        ({"explore": EXPLORE | {"floor": 0}}, "explore: floor"),
        ({"explore": EXPLORE | {"budget": "500/week"}}, "explore: budget"),
        ({"explore": EXPLORE | {"period_s": float("nan")}}, "explore: period_s"),
        ({"explore": EXPLORE | {"spread": {"a > b": 1}}}, "explore: spread"),
        ({"explore": EXPLORE | {"spread": 3}}, "explore: spread"),
        ({"explore": EXPLORE | {"spread": {"": 1, **{f"{i}": 1 for i in range(MOST_SEGMENTS)}}}}, "explore: spread"),
        ({"explore": EXPLORE | {"spread": {"": 1, "a > b": -1}}}, "explore: spread: a > b"),
    ],
)
def test_what_is_wrong_is_named(found: Any, where: str) -> None:
    assert wrong(found)[0][0] == where


def test_every_field_that_is_wrong_is_named_at_once() -> None:
    assert [where for where, _ in wrong({"by": 1, "explore": {"k": 1}, "evidence": {"a": []}})] == [
        "by", "explore: floor", "explore: least", "explore: budget", "explore: period_s", "explore: spread", "evidence: a",
    ]  # fmt: skip


def lacking(evidence: dict[str, Any], confidence: float = 0.95) -> list[str]:
    return [str(problem) for problem in Change("promote", "m", evidence=evidence).lacking("loans@1", confidence)]


def test_evidence_that_suffices() -> None:
    assert lacking(PROOF) == []
    assert lacking({"evidence": 20, "limit": 20}) == []
    assert lacking({"evidence": 21, "limit": 19.9999999999}) == []  # 1/(1 - 0.95), as floats have it
    assert lacking({**PROOF, "champion": "loans@1"}) == []
    assert lacking({"evidence": 3.0, "limit": 2.0}, 0.5) == []


@pytest.mark.parametrize(
    ("evidence", "confidence", "words"),
    [
        ({}, 0.95, "evidence: got 'none'; expected evidence and limit of a test that this model earns more than loans@1; run"),
        ({"gain": 1.0}, 0.95, "evidence: got 'gain'; expected evidence and limit"),
        ({"evidence": "much", "limit": 20}, 0.95, "evidence: got 'evidence, limit'; expected evidence and limit"),
        ({"evidence": 19.9, "limit": 20}, 0.95, "evidence: evidence: got '19.9'; expected at least its limit, 20"),
        (
            {"evidence": 27.1, "limit": 20},
            0.99,
            "evidence: limit: got '20'; expected at least 100, since feedback.promote.confidence is 0.99",
        ),
        (
            {"evidence": 27.1, "limit": 20, "champion": "loans@2"},
            0.95,
            "evidence: champion: got 'loans@2'; expected loans@1, which decides",
        ),
    ],
)
def test_evidence_that_does_not(evidence: dict[str, Any], confidence: float, words: str) -> None:
    assert words in lacking(evidence, confidence)[0]


LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = LEAF | st.lists(LEAF, max_size=2) | st.dictionaries(st.text(max_size=8), LEAF, max_size=3)
NAMES = st.sampled_from(["by", "why", "share", "force", "evidence", "explore", "holdback", "other"])


@settings(max_examples=60)
@given(
    JSON
    | st.dictionaries(NAMES, JSON, max_size=5)
    | st.builds(lambda k: {"explore": {**EXPLORE, **k}}, st.dictionaries(st.sampled_from([*EXPLORE, "most"]), JSON))
)
def test_whatever_is_sent_is_taken_or_refused_by_name(found: Any) -> None:
    try:
        change: Change | Trouble = Change.of("canary", "m", found)
    except Trouble as refusal:
        change = refusal
    if isinstance(change, Trouble):
        assert change.status == 422
        assert all(problem.where for problem in change.problems)
        assert change.body()
        return
    assert change.reached in (True, False)
    if change.explore is not None:
        assert Exploration(**change.explore.to_json()) == change.explore
        assert 0.0 < change.explore.least <= change.explore.most <= 0.5
