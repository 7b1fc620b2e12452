"""The choice among variants: a function of figures and terms, which loses neither latency nor value beyond what is declared."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from makegood.contracts import Estimate
from makegood.economics.value import estimate
from makegood.economics.variants import ALPHA, NOISE, Measured, Optimised, Speed, Terms, Variant, choose, front, level

TERMS = Terms("EUR", 0.01)


def measured(ms: float, cost: float = 0.0, *, score: float | None = None, p99: float | None = None, size: int = 1000) -> Measured:
    return Measured(Speed(ms, p99 or 1.2 * ms), Speed(score or ms / 2, ms), 1e3 / ms, 10**8, size, cost)


def delta(value: float, half: float = 0.002) -> Estimate:
    return Estimate(value, value - half, value + half, "EUR")


def start(ms: float = 10.0, cost: float = 0.0) -> Variant:
    return Variant("as trained", 0, measured(ms, cost), delta(0.0, 0.0))


def chosen(*variants: Variant, terms: Terms = TERMS) -> str:
    found, why = choose(variants, terms)
    named = [v.name for v in found if v.status == "chosen"]
    assert why
    return named[0] if named else "as trained"


def test_the_quicker_of_what_is_worth_the_same_is_chosen_and_the_simpler_of_what_is_as_quick() -> None:
    a, b = Variant("one", 2, measured(2.0), delta(0.0)), Variant("two", 1, measured(4.0), delta(0.001))
    assert chosen(start(), a, b) == "one"
    assert chosen(start(), a, replace(b, measured=measured(2.0 * (1 + NOISE)))) == "two"
    assert chosen(start(), replace(b, measured=measured(10.0 * (1 - NOISE / 2)))) == "as trained"
    smaller = replace(a, name="smaller", measured=measured(2.0, size=10))
    assert chosen(start(), a, smaller) == "smaller"


def test_value_counts_as_far_as_its_interval_tells_and_cost_comes_off() -> None:
    worth = Variant("worth more", 1, measured(9.9), delta(0.02))
    assert chosen(start(), worth, Variant("quick", 1, measured(1.0), delta(0.0))) == "worth more"
    poorer = Variant("poorer", 1, measured(1.0), delta(-0.005, 0.001))  # a loss for certain, though a tolerated one
    assert chosen(start(), poorer) == "as trained"
    assert chosen(start(cost=0.02), replace(poorer, measured=measured(1.0, 0.002))) == "poorer"
    found, why = choose([start(cost=0.02), replace(poorer, measured=measured(1.0, 0.002))], TERMS)
    assert "it costs 0.002 EUR instead of 0.02" in why
    assert "a loss of 0.01 is tolerated" in why
    assert found[1].worth == -0.005


@pytest.mark.parametrize(
    ("variant", "reason"),
    [
        (Variant("a", 1, measured(1.0), delta(-0.009)), "it may lose 0.011 EUR per decision, and 0.01 is tolerated"),
        (Variant("a", 1, measured(1.0), Estimate(0.0, math.nan, math.nan)), "too few held-out rows to tell what it loses"),
        (Variant("a", 1, measured(1.0)), "its value was not compared"),
        (Variant("a", 1, measured(20.0), delta(0.5)), "slower: a decision's median is 20 ms, the start's 10 ms"),
        (Variant("a", 1, measured(10.0, score=9.0), delta(0.5)), "slower: the scorer's median is 9 ms, the start's 5 ms"),
        (Variant("a", 1, measured(9.0, p99=90.0), delta(0.5)), "slower: a decision's 99th percentile is 90 ms, the start's 12 ms"),
    ],
)
def test_what_is_rejected_says_why(variant: Variant, reason: str) -> None:
    found, why = choose([start(), variant], TERMS)
    assert (found[1].status, found[1].reason) == ("rejected", reason)
    assert why == "the start stays: no variant was accepted"


def test_what_does_not_suit_or_was_not_tried_keeps_its_reason() -> None:
    others = [Variant("a", 1, status="unsuited", reason="no trees"), Variant("b", 1, measured(1.0), status="not tried", reason="late")]
    assert choose([start(), *others], TERMS)[0][1:] == tuple(others)


def test_decisions_that_all_pay_the_same_are_accepted_without_any_tolerance() -> None:
    assert chosen(start(), Variant("same", 1, measured(1.0), delta(0.0, 0.0)), terms=Terms("EUR", 0.0)) == "same"
    assert chosen(start(), Variant("other", 1, measured(1.0), delta(0.0)), terms=Terms("EUR", 0.0)) == "as trained"


def test_the_latency_limit_outweighs_value_where_something_keeps_it() -> None:
    worth, quick = Variant("worth", 1, measured(9.0), delta(0.02)), Variant("quick", 1, measured(2.0), delta(0.0))
    assert chosen(start(), worth, quick, terms=replace(TERMS, latency_ms=5.0)) == "quick"
    assert chosen(start(), worth, terms=replace(TERMS, latency_ms=5.0)) == "worth"  # nothing keeps it: the best that there is
    _, why = choose([start()], replace(TERMS, latency_ms=5.0))
    assert why == "the start stays, though over 5 ms: no accepted variant keeps to that either"
    _, why = choose([start(), Variant("as quick", 1, measured(10.0), delta(0.0))], TERMS)
    assert why == "the start stays: what was accepted is neither worth more nor quicker beyond the noise of measuring"


def test_any_choice_is_accepted_not_slower_repeatable_and_independent_of_the_order() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        cost = float(rng.choice([0.0, 0.01]))
        variants = [
            Variant(f"v{i}", int(rng.integers(1, 4)), measured(ms, cost * ms / 10.0), delta(*rng.normal([0.0, 0.004], [0.01, 0.001])))
            for i, ms in enumerate(rng.uniform(1.0, 15.0, 6).tolist())
        ]
        terms = replace(TERMS, latency_ms=float(rng.choice([3.0, 8.0, 100.0])))
        found, why = choose([start(cost=cost), *variants], terms)
        assert choose([start(cost=cost), *variants], terms) == (found, why)
        name = chosen(start(cost=cost), *variants, terms=terms)
        assert name == chosen(start(cost=cost), *(variants[i] for i in rng.permutation(6)), terms=terms)
        for v in found[1:]:
            assert v.measured is not None
            assert v.delta is not None
            if v.status == "chosen":
                assert v.measured.decide.p50_ms <= 10.0 * (1 + NOISE)
                assert v.delta.low > -terms.tolerance
            assert (v.status == "rejected") == bool(v.reason)


def test_a_hostile_measure_is_never_chosen() -> None:
    lies = [Variant(f"v{ms}", 1, measured(ms), delta(100.0)) for ms in (10.6, 11.0, 1e3, math.inf, math.nan)]
    assert chosen(start(), *lies) == "as trained"


def test_lower_ends_hold_together() -> None:
    assert [1.0 - level(n) for n in (0, 1, 10)] == pytest.approx([2 * ALPHA, 2 * ALPHA, 2 * ALPHA / 10])
    rng, wrong = np.random.default_rng(1), 0
    for i in range(60):  # five variants that lose exactly what is tolerated: one of them is accepted 5% of the time at most
        lows = [estimate(rng.normal(-0.5, 1.0, 100), level=level(5), seed=i).low for _ in range(5)]
        wrong += max(lows) > -0.5
    assert wrong <= 60 * ALPHA + 2 * math.sqrt(60 * ALPHA)


def test_what_was_found_is_plain_data() -> None:
    variants, why = choose([start(), Variant("a", 1, measured(1.0), Estimate(0.0, math.nan, math.nan, "EUR"))], TERMS)
    found = Optimised(TERMS, variants, why, 100, "held-out rows", 60.0, 1.0)
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (told["chosen"], told["variants"][1]["delta"]["low"]) == ("as trained", None)
    assert found.chosen is found.start
    picked, _ = choose([start(), Variant("b", 1, measured(1.0), delta(0.0))], TERMS)
    assert replace(found, variants=picked).chosen.name == "b"
    assert [v.name for v in front(picked)] == ["b"]
