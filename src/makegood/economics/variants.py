"""Which variant of a model to deploy: accepted on measured latency and paired value, chosen by value less cost (MATHEMATICS §9).

A variant is another scorer that decides the same rows under the same policy. Value is compared on rows that neither the start nor the
variant learnt from; latency and memory are measured, the start's beside every variant's. `choose` is a function of these figures and the
terms alone, so that the same measurements give the same choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from makegood.contracts import Estimate

ALPHA = 0.05
"""Error of accepting any variant at all that loses more than the tolerance, spread over the variants that are compared (Bonferroni)."""

SHARE = 0.05
"""Tolerance, as a share of the gain over the best baseline, where the case declares none."""

NOISE, TAIL_NOISE = 0.05, 0.2
"""Shares by which a median, and a 99th percentile, may differ between two measurements of the same thing."""

Status = Literal["start", "chosen", "accepted", "rejected", "unsuited", "not tried"]


def level(tried: int) -> float:
    """Return the two-sided level whose lower ends hold together, each of `tried` variants, but for `ALPHA`.

    >>> [round(level(n), 3) for n in (1, 5)]
    [0.9, 0.98]
    """
    return 1.0 - 2.0 * ALPHA / max(1, tried)


@dataclass(frozen=True, slots=True)
class Speed:
    """How long one call takes: median and 99th percentile, milliseconds."""

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What a model takes here: `decide` one decision with its reasons, `score` its scorer alone, each a row at a time.

    `rows_per_s` in batches of 64; `peak_bytes` that a fresh process holds which only scores (None where the system does not tell);
    `bytes` of the graph; `cost` of one decision at the case's prices.
    """

    decide: Speed
    score: Speed
    rows_per_s: float
    peak_bytes: int | None
    bytes: int
    cost: float = 0.0


@dataclass(frozen=True)
class Variant:
    """A variant, and what became of it; `steps` is how many changes make it of the start, `delta` its value less the start's.

    `reason` says why it was rejected, does not suit or was not tried, and is empty for what was accepted.
    """

    name: str
    steps: int
    measured: Measured | None = None
    delta: Estimate | None = None
    status: Status = "rejected"
    reason: str = ""

    @property
    def worth(self) -> float:
        """The value less the start's, as far as the rows tell: 0 where the interval holds 0."""
        assert self.delta is not None
        return 0.0 if self.delta.low <= 0.0 <= self.delta.high else self.delta.value


@dataclass(frozen=True)
class Terms:
    """What may not be lost: `tolerance`, money per decision; `latency_ms`, the most that 99 of a hundred decisions may take."""

    unit: str
    tolerance: float
    latency_ms: float | None = None


@dataclass(frozen=True)
class Optimised:
    """What optimising found: every variant, the start first, and why the `chosen` one was; `rows` were compared, of `source`.

    `spent_s` of `budget_s` seconds were used.
    """

    terms: Terms
    variants: tuple[Variant, ...]
    why: str
    rows: int
    source: str
    budget_s: float
    spent_s: float

    @property
    def chosen(self) -> Variant:
        """The variant that is deployed; the start itself where none is better."""
        return next((v for v in self.variants if v.status == "chosen"), self.start)

    @property
    def start(self) -> Variant:
        """What was optimised."""
        return self.variants[0]

    def to_json(self) -> dict[str, Any]:
        """Return plain data, valid JSON: what has no figure is null."""

        def told(v: Variant) -> dict[str, Any]:
            shown = {"name": v.name, "steps": v.steps, "status": v.status, "reason": v.reason}
            measured = asdict(v.measured) if v.measured else None
            return shown | {"measured": measured, "delta": v.delta.to_json() if v.delta else None}

        head = {"chosen": self.chosen.name, "why": self.why, "terms": asdict(self.terms), "rows": self.rows, "source": self.source}
        return head | {"budget_s": self.budget_s, "spent_s": self.spent_s, "variants": [told(v) for v in self.variants]}


def choose(variants: Sequence[Variant], terms: Terms) -> tuple[tuple[Variant, ...], str]:
    """Return the variants with what becomes of each, and why the chosen one is; the first is the start, which is always measured.

    Accepted is what loses no more than the tolerance, at the lower end of its interval, and is not slower than the start. Of these and
    the start, within the latency limit where one of them keeps it, the greatest worth − cost wins; figures that differ by no more than
    `NOISE` are equal, and then the quicker decision wins, and then the simpler variant.
    """
    start, others = variants[0], variants[1:]
    assert start.measured is not None, "the start is measured beside every variant"
    kept: list[Variant] = [replace(start, status="start", reason="")]
    for variant in others:
        if variant.measured is None or variant.status in ("unsuited", "not tried"):
            kept.append(variant)
            continue
        reason = variant.reason or _lost(variant, terms) or _slower(variant.measured, start.measured)
        kept.append(replace(variant, status="rejected" if reason else "accepted", reason=reason))
    able = [v for v in kept if v.status in ("start", "accepted") and v.measured is not None]
    within = [v for v in able if terms.latency_ms is None or _of(v).decide.p99_ms <= terms.latency_ms]
    best = _best(within or able, _of(start))
    if best.status == "start":
        return tuple(kept), _no_better(able, within, terms)
    status = {id(best): replace(best, status="chosen")}
    return tuple(status.get(id(v), v) for v in kept), _why(best, _of(start), terms)


def _of(variant: Variant) -> Measured:
    assert variant.measured is not None
    return variant.measured


def _net(variant: Variant) -> float:
    return (0.0 if variant.status == "start" else variant.worth) - _of(variant).cost


def _best(able: Sequence[Variant], start: Measured) -> Variant:
    top = max(map(_net, able))
    equal = [v for v in able if _net(v) >= top - NOISE * start.cost]
    quickest = min(_of(v).decide.p50_ms for v in equal)
    quick = [v for v in equal if _of(v).decide.p50_ms <= quickest * (1.0 + NOISE)]
    return min(quick, key=lambda v: (v.steps, _of(v).bytes, v.name))


def _lost(variant: Variant, terms: Terms) -> str:
    """Return why its value does not suffice; empty where it does."""
    delta = variant.delta
    if delta is None:
        return "its value was not compared"
    if not math.isfinite(delta.low):
        return "too few held-out rows to tell what it loses"
    if delta.low > -terms.tolerance or delta.low == delta.high == 0.0:  # the latter: every decision paid the same
        return ""
    return f"it may lose {-delta.low:.3g} {terms.unit} per decision, and {terms.tolerance:.3g} is tolerated"


def _slower(measured: Measured, start: Measured) -> str:
    """Return where it is slower than the start, beyond the noise of measuring; empty where it is not."""
    pairs = (
        ("a decision's median", measured.decide.p50_ms, start.decide.p50_ms, NOISE),
        ("the scorer's median", measured.score.p50_ms, start.score.p50_ms, NOISE),
        ("a decision's 99th percentile", measured.decide.p99_ms, start.decide.p99_ms, TAIL_NOISE),
    )
    for what, now, before, noise in pairs:
        if not now <= before * (1.0 + noise):
            return f"slower: {what} is {now:.3g} ms, the start's {before:.3g} ms"
    return ""


def _why(best: Variant, start: Measured, terms: Terms) -> str:
    now, delta = _of(best), best.delta
    assert delta is not None
    quicker = f"a decision takes {now.decide.p50_ms:.3g} ms instead of {start.decide.p50_ms:.3g}"
    scorer = f"its scorer {now.score.p50_ms:.3g} ms instead of {start.score.p50_ms:.3g}"
    cheaper = f", it costs {now.cost:.3g} {terms.unit} instead of {start.cost:.3g}" if start.cost else ""
    value = f"its value differs by {delta.value:.3g} [{delta.low:.3g}, {delta.high:.3g}] {terms.unit} per decision"
    return f"{best.name}: {quicker}, {scorer}{cheaper}; {value}, and a loss of {terms.tolerance:.3g} is tolerated"


def _no_better(able: Sequence[Variant], within: Sequence[Variant], terms: Terms) -> str:
    if terms.latency_ms is not None and not within:
        return f"the start stays, though over {terms.latency_ms:.3g} ms: no accepted variant keeps to that either"
    if len(able) > 1:
        return "the start stays: what was accepted is neither worth more nor quicker beyond the noise of measuring"
    return "the start stays: no variant was accepted"


def front(variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """Return those that no other beats in both latency and value (Pareto), the quickest first; only what was measured and compared.

    >>> def variant(name, ms, delta):
    ...     speed = Speed(ms, ms)
    ...     return Variant(name, 1, Measured(speed, speed, 1.0, None, 1), Estimate(delta, delta, delta))
    >>> [v.name for v in front([variant("a", 3.0, 0.0), variant("b", 1.0, -1.0), variant("c", 4.0, -0.5)])]
    ['b', 'a']
    """
    known = [v for v in variants if v.measured is not None and v.delta is not None]
    kept: list[Variant] = []
    for variant in sorted(known, key=lambda v: (_of(v).decide.p50_ms, -_value(v), v.name)):
        if not kept or _value(variant) > _value(kept[-1]):
            kept.append(variant)
    return tuple(kept)


def _value(variant: Variant) -> float:
    assert variant.delta is not None
    return variant.delta.value
