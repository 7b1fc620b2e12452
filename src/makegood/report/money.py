"""The sections about money: value, payoff ranges, profit and decision curves, promises."""

from __future__ import annotations

import math
from typing import NamedTuple

from makegood.contracts import Estimate, Evaluation, PayoffRange
from makegood.report import words
from makegood.report.charts import Dots, Lines, Mark, Ranges, Series, Span, Tone
from makegood.report.drawing import figure, table
from makegood.report.markup import Markup, join, tag
from makegood.report.verdict import alternative

_MOST_SHOWN = 12


class Section(NamedTuple):
    """A part of the page: where a link finds it, what it is called, what it holds."""

    key: str
    title: str
    body: Markup


def mark(label: str, estimate: Estimate, tone: Tone = "other") -> Mark:
    """Return an estimate as a row of a chart."""
    return Mark(label, estimate.value, estimate.low, estimate.high, words.short(estimate), tone)


# ------------------------------------------------------------------------------------------------------------------ value


def worth(evaluation: Evaluation) -> Section:
    """Return the value against every baseline and the ceiling, and the paired gains."""
    hardest = evaluation.baselines[evaluation.gain_over]
    lead = tag(
        "p",
        "The model earns ",
        words.amount(evaluation.value),
        f" per decision, and {alternative(evaluation.gain_over)}, the hardest alternative to beat, ",
        words.amount(hardest),
        ".",
        [" Knowing every outcome beforehand would earn ", words.amount(evaluation.oracle), ": a ceiling, out of reach of any model."]
        if math.isfinite(evaluation.oracle.value)
        else None,
    )
    shown = _shown(evaluation)
    left_out = len(evaluation.baselines) - len(shown)
    charts = figure(_values(evaluation, shown)), figure(_gains(evaluation, shown))
    return Section("worth", "What it is worth", join(lead, _net(evaluation), charts, _all(evaluation, left_out)))


def _net(evaluation: Evaluation) -> Markup | None:
    """Return what is taken off for computing, and what that is made of; None where nothing is."""
    used, unit = evaluation.compute, evaluation.unit
    if used is None or not used.decisions or not used.per_decision:
        return None
    return tag(
        "p",
        "What the model earns is net of ",
        words.cost(used.per_decision, unit),
        " per decision for computing: ",
        words.cost(used.training.money, unit),
        " for training, spread over ",
        words.figure(used.decisions, 0),
        " decisions, and ",
        words.cost(used.decision.money, unit),
        " for each decision. The alternatives compute nothing. Computing is measured once, so its cost has no interval.",
    )


def _shown(evaluation: Evaluation) -> list[str]:
    """Return the baselines worth a row of the chart, best first: today, the hardest, and those of the highest value."""
    best = sorted(evaluation.baselines, key=lambda b: -evaluation.baselines[b].value)
    kept = dict.fromkeys([b for b in ("today", evaluation.gain_over) if b in evaluation.baselines] + best)
    chosen = set(list(kept)[:_MOST_SHOWN])
    return [b for b in best if b in chosen]


def _values(evaluation: Evaluation, shown: list[str]) -> Dots:
    marks = (
        mark("The model", evaluation.value, "model"),
        *(mark(name, evaluation.baselines[name]) for name in shown),
        *([mark("If every outcome were known", evaluation.oracle, "ceiling")] if math.isfinite(evaluation.oracle.value) else []),
    )
    summary = "; ".join(f"{m.label}: {m.text}" for m in marks) + f". In {evaluation.unit} per decision."
    hardest = evaluation.baselines[evaluation.gain_over].value
    return Dots(
        "values", f"Value per decision, {evaluation.unit}; dashed: the hardest alternative", summary, evaluation.unit, marks, hardest
    )


def _gains(evaluation: Evaluation, shown: list[str]) -> Dots:
    marks = tuple(mark(f"over {alternative(name)}", evaluation.gains[name], _sign(evaluation.gains[name])) for name in shown)
    summary = "; ".join(f"{m.label}: {m.text}" for m in marks) + ". A gain is shown where the whole interval lies above zero."
    title = f"Gain of the model, row by row, {evaluation.unit} per decision"
    return Dots("gains", title, summary, evaluation.unit, marks, zero=True)


def _sign(gain: Estimate) -> Tone:
    return "good" if gain.low > 0 else "bad" if gain.high < 0 else "unsure"


def _all(evaluation: Evaluation, left_out: int) -> Markup | None:
    if not left_out:
        return None
    rows = [[name, words.bare(e), words.bare(evaluation.gains[name])] for name, e in evaluation.baselines.items()]
    caption = f"All {len(rows)} alternatives, {evaluation.unit} per decision"
    return tag(
        "details",
        tag("summary", f"All {len(rows)} alternatives ({left_out} are not in the charts)"),
        table(["alternative", "value", "gain of the model over it"], rows, caption=caption),
    )


# ----------------------------------------------------------------------------------------------------------- payoff ranges


def payoffs(evaluation: Evaluation, outcome: str) -> Section | None:
    """Return how wrong each payoff may be before the verdict turns; None where no payoff was varied."""
    ranges = evaluation.payoff_ranges
    if not ranges:
        return None
    scaled = [r for r in ranges if r.mean]  # scaling a payoff of nothing changes nothing
    body = [
        tag("p", "Nobody knows payoffs exactly. ", _weakest(scaled, evaluation.unit, outcome)),
        figure(_span_chart(scaled, outcome)) if scaled else None,
        _range_table(ranges, evaluation.unit, outcome),
        tag(
            "p",
            "Each payoff is scaled alone, the others stay as declared. The verdict stands where the lower end of the gain says so, with "
            "the model’s actions held; at the break-even the mean gain is zero. Actions stand where at least 95% of them stay the same "
            "when they are chosen anew.",
            class_="soft",
        ),
    ]
    return Section("payoffs", "How wrong may the payoffs be?", join(body))


def _name(payoff: PayoffRange, outcome: str) -> str:
    """Return a payoff's name: its action, and the outcome that it is for."""
    return f"{payoff.action}, if {outcome} is {payoff.outcome}" if payoff.outcome else payoff.action


def _weakest(ranges: list[PayoffRange], unit: str, outcome: str) -> Markup:
    """Return the sentence on the payoff that needs the least change to turn the verdict."""
    ends = [(end, r) for r in ranges for end in (r.verdict_low, r.verdict_high) if 0 < end < math.inf]
    if not ends:
        return join("No payoff, scaled alone by any factor, turns the verdict.")
    end, weakest = min(ends, key=lambda pair: abs(math.log(pair[0])))
    return join(
        "The verdict hangs most on ",
        tag("b", _name(weakest, outcome)),
        ". Declared at ",
        words.money(weakest.mean, unit),
        f" on average, it may {'grow' if end > 1 else 'shrink'} to ",
        words.money(weakest.mean * end, unit),
        f" ({words.factor(end)}) before the verdict turns.",
    )


def _span_chart(ranges: list[PayoffRange], outcome: str) -> Ranges:
    stands = [_between(r.verdict_low, r.verdict_high) for r in ranges]
    spans = tuple(
        Span(_name(r, outcome), r.verdict_low, r.verdict_high, r.actions_low, r.actions_high, r.break_even, text)
        for r, text in zip(ranges, stands, strict=True)
    )
    summary = "; ".join(f"{s.label}: the verdict stands {s.text}" for s in spans) + ". Factors on the declared payoff, ×1 as declared."
    return Ranges("ranges", "Factor on each payoff", summary, spans, "the verdict stands", "95% of the actions stand", "break-even")


def _between(low: float, high: float) -> str:
    """Return a range of factors in words.

    >>> _between(0.5, 2), _between(0.5, math.inf), _between(-math.inf, 2), _between(0, math.inf)
    ('×0.50 to ×2.00', 'from ×0.50', 'up to ×2.00', 'always')
    """
    if math.isnan(low) or math.isnan(high):
        return words.MISSING
    if low <= 0 and math.isinf(high):
        return "always"
    if low <= 0:
        return f"up to {words.factor(high)}"
    return f"from {words.factor(low)}" if math.isinf(high) else f"{words.factor(low)} to {words.factor(high)}"


def _range_table(ranges: tuple[PayoffRange, ...], unit: str, outcome: str) -> Markup:
    rows = [
        [
            join(tag("b", _name(r, outcome)), tag("code", r.expression, class_="line")),
            words.figure(r.mean, n),
            *(_end(r.mean, f, n) for f in (r.verdict_low, r.verdict_high, r.break_even)),
            *(words.MISSING if math.isnan(f) else _end(r.mean, f, n) for f in (r.actions_low, r.actions_high)),
        ]
        for r, n in ((r, words.digits(unit, r.mean)) for r in ranges)
    ]
    head = ["payoff", "declared, mean", "verdict stands from", "to", "break-even", "actions stand from", "to"]
    return table(head, rows, caption=f"Payoffs in {unit}, as means over the rows concerned")


def _end(mean: float, factor: float, digits: int) -> Markup:
    """Return one end of a range as money with its factor."""
    if math.isnan(factor) or not mean:
        return tag("span", "never" if mean else "no effect", class_="soft")
    if not 0 <= factor < math.inf:
        return tag("span", "no limit", class_="soft")
    return join(words.figure(mean * factor, digits), tag("span", words.factor(factor), class_="line soft"))


# ----------------------------------------------------------------------------------------------------------------- curves


def curves(evaluation: Evaluation) -> Section | None:
    """Return the profit curve and, for a binary outcome and two actions, the decision curve; None where there is neither."""
    body = []
    if evaluation.curve:
        share, best = max(evaluation.curve, key=lambda p: p[1])
        at = f"where it takes {100 * share:.3g}% of them"
        top = words.number(best, words.digits(evaluation.unit, best))
        body += [
            tag(
                "p",
                "Left to right, the model takes more and more of the decisions, those where it expects the most first; the baseline "
                "takes the rest. The value is highest, ",
                words.money(best, evaluation.unit),
                f", {at}.",
                " To find those, the model computes every decision, which is paid for however few it takes." if evaluation.cost else None,
            ),
            figure(_profit(evaluation, f"Highest {at}: {top} {evaluation.unit}.")),
        ]
    if evaluation.decision_curve:
        body += [
            tag(
                "p",
                "The decision curve is for whoever weighs a hit against a false alarm otherwise: at a threshold of 10%, one hit is worth "
                "nine false alarms. The model is useful where its line is the highest.",
            ),
            figure(_decision(evaluation)),
        ]
    return Section("curves", "Profit curve", join(body)) if body else None


def _profit(evaluation: Evaluation, summary: str) -> Lines:
    hardest, ends = evaluation.baselines[evaluation.gain_over].value, (evaluation.curve[0][0], evaluation.curve[-1][0])
    series = (
        Series("the model", evaluation.curve),
        Series(evaluation.gain_over, tuple((x, hardest) for x in ends), "other", dashed=True),
    )
    axes = ("share of decisions taken by the model", f"Value per decision, {evaluation.unit}")
    return Lines("profit", "Value as the model takes more of the decisions", summary, *axes, series, share_x=True)


def _decision(evaluation: Evaluation) -> Lines:
    points = evaluation.decision_curve
    series = (
        Series("the model", tuple((t, model) for t, model, _ in points)),
        Series("acting on everyone", tuple((t, everyone) for t, _, everyone in points), "other", dashed=True),
        Series("acting on no one", ((points[0][0], 0.0), (points[-1][0], 0.0)), "ceiling", dashed=True),
    )
    ahead = [t for t, model, everyone in points if model > max(everyone, 0.0)]
    where = f"at thresholds from {words.percent(min(ahead))} to {words.percent(max(ahead))}" if ahead else "nowhere"
    summary = f"The model has the highest net benefit {where}."
    floor = -0.3 * max((model for _, model, _ in points), default=0.0)  # acting on everyone falls without end
    axes = ("threshold probability", "Net benefit, hits per row")
    return Lines("decision-curve", "Decision curve", summary, *axes, series, share_x=True, floor=floor)


# --------------------------------------------------------------------------------------------------------------- promises


def promises(evaluation: Evaluation) -> Section:
    """Return promised against realised payoff, and the calibration behind it."""
    gap = evaluation.gap
    if not words.has_interval(gap):
        kept = "whether that is chance cannot be told"
    elif gap.low <= 0 <= gap.high:
        kept = "which chance can explain: the promises hold"
    else:
        kept = "more than chance explains: the promises are too " + ("high" if gap.value > 0 else "low")
    lead = tag(
        "p",
        "It promised ",
        words.with_interval(evaluation.promised),
        " per decision and earned ",
        words.with_interval(evaluation.payoff),
        ", both before computing" if evaluation.cost else None,
        ". The gap is ",
        words.with_interval(gap),
        f", {kept}.",
    )
    numeric = not evaluation.confusion
    money_axes = (f"promised, {evaluation.unit}", f"realised, {evaluation.unit}")
    share_axes = ("level of the quantile", "share of outcomes below it") if numeric else ("predicted probability", "observed share")
    charts = [
        _against("promise-curve", "Promised and realised payoff", money_axes, evaluation.promise_curve),
        _against("calibration", "Calibration of the prediction", share_axes, evaluation.calibration, share=True),
    ]
    return Section("promises", "Are its promises kept?", join(lead, tag("div", [figure(c) for c in charts if c], class_="pair")))


def _against(
    key: str, title: str, axes: tuple[str, str], points: tuple[tuple[float, float, int], ...], *, share: bool = False
) -> Lines | None:
    """Return a chart of what was said against what came, with the diagonal where both agree; None without points."""
    finite = [(x, y) for x, y, _ in points if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        return None
    ends = (0.0, 1.0) if share else (min(map(min, finite)), max(map(max, finite)))
    off = max(abs(x - y) for x, y in finite)
    distance = words.percent(off) if share else words.number(off, words.digits("", off))
    summary = f"{len(finite)} groups of rows; the largest distance from the diagonal is {distance}."
    series = (
        Series("as it should be", tuple((e, e) for e in ends), "other", dashed=True),
        Series("groups of rows, larger with more rows", tuple((x, y) for x, y, _ in points), sizes=tuple(n for *_, n in points)),
    )
    return Lines(key, title, summary, *axes, series, square=True, share_x=share, share_y=share)
