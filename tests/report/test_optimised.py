"""The section on variants: all of them, with their figures, the chart in words, and the reasons."""

from __future__ import annotations

import re
from html import unescape

from makegood.contracts import Estimate
from makegood.economics.variants import Measured, Optimised, Speed, Terms, Variant, choose
from makegood.report.optimised import variants


def measured(ms: float, cost: float = 0.0) -> Measured:
    return Measured(Speed(ms, 2 * ms), Speed(ms / 2, ms), 1e3, 70_000_000, 2_500_000, cost)


def found(cost: float = 0.0, latency_ms: float | None = None) -> Optimised:
    terms = Terms("EUR", 0.01, latency_ms)
    same = Estimate(0.0, 0.0, 0.0, "EUR")
    tried = (
        Variant("as trained", 0, measured(8.0, cost), same),
        Variant("one model of each family", 1, measured(2.0, cost / 4), Estimate(-0.001, -0.003, 0.001, "EUR")),
        Variant("int8, ranges by row", 1, measured(16.0, 2 * cost), Estimate(0.0, -0.001, 0.001, "EUR")),
        Variant("two threads", 1, measured(7.0, cost), Estimate(0.0, float("nan"), float("nan"), "EUR")),
        Variant("distilled <into> trees", 3, status="unsuited", reason="no trees & none to come"),
        Variant("half of the hidden units", 3, status="not tried", reason="the budget was over"),
    )
    chosen, why = choose(tried, terms)
    return Optimised(terms, chosen, why, 1234, "held-out rows", 60.0, 61.0)


def text(html: str) -> str:
    return unescape(re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", html))).replace("\xa0", " ")


def test_every_variant_is_told_with_its_figures_or_its_reason() -> None:
    section = variants(found())
    assert section is not None
    told = text(section.body)
    assert "Chosen: one model of each family" in told
    assert "A variant may lose 0.0100 EUR per decision" in told
    assert "1,234 decisions (held-out rows)" in told
    for words in ("8 ms / 16 ms", "70 MB", "2.5 MB", "slower: a decision's median is 16 ms", "does not suit", "the budget was over"):
        assert words in told
    assert "distilled &lt;into&gt; trees" in section.body
    assert "no trees &amp; none to come" in section.body
    assert "cost" not in re.findall(r"<th scope=\"col\"[^>]*>([^<]*)", section.body)
    assert 'id="pareto' in section.body or "beaten by none in both" in told


def test_cost_and_the_latency_limit_are_told_where_there_are_any() -> None:
    section = variants(found(cost=0.004, latency_ms=50.0))
    assert section is not None
    told = text(section.body)
    assert "99 of 100 decisions may take 50 ms" in told
    assert "cost" in told
    assert variants(None) is None


def test_without_comparisons_there_is_no_chart() -> None:
    alone = Optimised(
        Terms("EUR", 0.0), (Variant("as trained", 0, measured(8.0), status="start"),), "the start stays", 10, "rows", 1.0, 1.0
    )
    section = variants(alone)
    assert section is not None
    assert "<svg" not in section.body
    assert "What was not taken" not in section.body
