"""The sections on whether a promise is kept: money over time, the test that raises the alarm, and how outcomes come in."""

from __future__ import annotations

import math

from makegood.contracts import Estimate
from makegood.monitoring.review import Alarm, Period, Review
from makegood.report import dates, words
from makegood.report.charts import Flag, Lines, Series, Tone
from makegood.report.drawing import figure, table
from makegood.report.markup import Markup, join, tag
from makegood.report.money import Section

_TONES: tuple[Tone, ...] = ("model", "ceiling", "other")  # of the model that decides now, and of those before it
_MOST_ROWS = 60


def name(model: str) -> Markup:
    """Return a model's name as code; a long hash is cut, and whole where a pointer rests on it.

    >>> name("4f1c9a0b7d2e4f1c9a0b7d2e")
    '<code title="4f1c9a0b7d2e4f1c9a0b7d2e">4f1c9a0b7d2e</code>'
    """
    return tag("code", short(model), title=model if short(model) != model else None)


def short(model: str) -> str:
    """Return as much of a model's name as tells it from others of its case.

    >>> short("4f1c9a0b7d2e4f1c9a0b7d2e"), short("loans@4f1c9a0b7d2e"), short("challenger-2")
    ('4f1c9a0b7d2e', '4f1c9a0b7d2e', 'challenger-2')
    """
    tail = model.rpartition("@")[2]
    return tail[:12] if len(tail) > 20 else tail


# ------------------------------------------------------------------------------------------------------------------ money


def money(review: Review) -> Section:
    """Return promised against realised, by model and period, what is not due yet, and who overrode what was decided."""
    body = [
        _lead(review),
        figure(_over_time(review)) if any(p.matured for p in review.periods) else None,
        _outlook(review),
        _overridden(review) if review.overridden else None,
        _periods(review) if review.periods else None,
    ]
    return Section("money", "Money over time", join(body))


def _overridden(review: Review) -> Markup:
    return tag(
        "p",
        "People did something else than was decided in ",
        words.whole(review.overridden),
        f" of {words.number(review.n)} decisions ({words.percent(review.overridden / review.n)}).",
    )


def _lead(review: Review) -> Markup:
    if not review.n:
        return tag("p", "No decision is in the ledger yet. Money is shown here from the first decision whose outcome is due.")
    if not review.matured:
        return tag(
            "p",
            "None of the ",
            words.whole(review.n),
            " decisions is due yet, so that nothing can be said of what they earn. They promise ",
            words.with_interval(review.promised),
            " each. Money is shown here from the first outcome that is due.",
        )
    return tag(
        "p",
        "On the ",
        words.whole(review.matured),
        " decisions that are due, the model promised ",
        words.with_interval(review.promised),
        " and earned ",
        words.with_interval(review.realised),
        " per decision. The gap, decision by decision, is ",
        words.with_interval(review.gap),
        "." if not partly(review) else ", over those of them whose outcome came; what is promised is the mean of all that are due.",
    )


def partly(review: Review) -> bool:
    """Return whether the gap is of other decisions than the promise, since the outcomes of some that are due have not come."""
    promised, earned, gap = review.promised.value, review.realised.value, review.gap.value
    return abs(promised - earned - gap) > 1e-6 * (abs(promised) + abs(earned))


def _models(review: Review) -> list[str]:
    """Return the models in the chart: that which decides now, then those before it, the latest first."""
    return list(dict.fromkeys([review.model, *(p.model for p in sorted(review.periods, key=lambda p: -p.end))]))[: len(_TONES)]


def _over_time(review: Review) -> Lines:
    series: list[Series] = []
    flags = []
    for model, tone in zip(_models(review), _TONES, strict=False):
        mine = sorted((p for p in review.periods if p.model == model and p.matured), key=lambda p: p.start)
        if not mine:
            continue
        middle = [(p.start + p.end) / 2 for p in mine]
        if len(mine) == 1:  # one point is no line: it is drawn as long as its period
            mine, middle = mine * 2, [mine[0].start, mine[0].end]
        realised = tuple((x, p.realised.value) for x, p in zip(middle, mine, strict=True))
        promised = tuple((x, p.promised.value) for x, p in zip(middle, mine, strict=True))
        series += [
            Series(f"earned by {short(model)}", realised, tone, band=tuple((p.realised.low, p.realised.high) for p in mine)),
            Series(f"promised by {short(model)}", promised, tone, dashed=True),
        ]
    if review.alarm.raised and review.alarm.since is not None:
        flags.append(Flag(review.alarm.since, "alarm", "bad"))
    below = sum(p.gap.low > 0 for p in review.periods)
    summary = f"In {below} of {len(review.periods)} periods less was earned than promised, beyond what chance explains. Shaded: intervals."
    title, axes = "Promised and earned, by period", ("middle of the period", f"{review.unit} per decision; shaded: intervals")
    return Lines("over-time", title, summary, *axes, tuple(series), time_x=True, flags=tuple(flags))


def _outlook(review: Review) -> Markup | None:
    if review.outlook is None:
        return None
    return tag(
        "p",
        "Decisions that are not due yet promise ",
        words.with_interval(review.outlook),
        " each against those of the reference: an indication from the rows alone, not a test.",
    )


def _periods(review: Review) -> Markup:
    shown = sorted(review.periods, key=lambda p: (-p.end, p.model))[:_MOST_ROWS]
    head = ["period", "model", "decisions", "due", "promised", "earned", "gap"]
    caption = f"Each period, {review.unit} per decision, the latest first"
    if len(shown) < len(review.periods):
        caption += f": {len(shown)} of {len(review.periods)}"
    return tag("details", tag("summary", "Each period"), table(head, map(_period, shown), caption=caption, words_in=(0, 1)))


def _period(p: Period) -> list[Markup]:
    stretch = join(dates.day(p.start), tag("span", f"to {dates.day(p.end)}", class_="line soft"))
    return [stretch, name(p.model), words.whole(p.n), words.whole(p.matured), *(words.bare(e) for e in (p.promised, p.realised, p.gap))]


# ------------------------------------------------------------------------------------------------------------------ alarm


def alarm(review: Review) -> Section:
    """Return the promise test: its evidence against its limit, when it was raised, and how soon it can be."""
    body = [
        _said(review.alarm),
        figure(_evidence(review.alarm, "evidence", "Evidence of a broken promise")) if review.alarm.path else None,
        _terms(review.alarm, review.unit),
        _missing(review.alarm.missing) if review.alarm.missing else None,
    ]
    return Section("alarm", "The alarm", join(body))


def _said(test: Alarm) -> Markup:
    if test.raised:
        since = f" on {dates.moment(test.since)}" if test.since is not None else ""
        return tag("p", tag("b", f"The alarm was raised{since}. "), test.why)
    state = "It is quiet. " if test.ticks else "It waits for its first outcome. "
    return tag("p", tag("b", state), test.why)


def _evidence(test: Alarm, key: str, title: str) -> Lines:
    ends = (test.path[0][0], test.path[-1][0])
    series = (
        Series("evidence", tuple((t, max(m, 1e-12)) for t, m in test.path), "bad" if test.raised else "model"),
        Series(f"limit, {words.number(test.limit)}", tuple((t, test.limit) for t in ends), "ceiling", dashed=True),
    )
    flags = (Flag(test.since, "raised", "bad"),) if test.since is not None else ()
    verb = "reached" if test.raised else "has not reached"
    summary = (
        f"After {test.ticks:,} ticks the evidence is {words.number(test.evidence, 1)}; it {verb} the limit of {words.number(test.limit)}."
    )
    return Lines(key, title, summary, "time", "evidence, logarithmic", series, time_x=True, log_y=True, flags=flags)


def _terms(test: Alarm, unit: str) -> Markup:
    facts = [
        ("Ticks so far", words.whole(test.ticks)),
        ("Evidence now", words.figure(test.evidence, words.digits("", test.evidence))),
        ("Limit", words.figure(test.limit, 0)),
        ("Tolerance, per decision", words.money(test.tolerance, unit)),
        ("Most that one tick may fall short", words.money(test.bound, unit)),
        ("Ticks that this gap needs at the least", join("no end: there is no gap beyond the tolerance"))
        if math.isinf(test.expected_delay)
        else ("Ticks that this gap needs at the least", words.figure(test.expected_delay, 0)),
    ]
    return tag("dl", [[tag("dt", term), tag("dd", value)] for term, value in facts], class_="facts")


def _missing(test: Alarm) -> Markup:
    """Return the alarm of outcomes that never came."""
    return join(
        tag("h3", "Outcomes that never come"),
        _said(test),
        figure(_evidence(test, "missing", "Evidence that more outcomes are missing than was declared")) if test.path else None,
    )


# --------------------------------------------------------------------------------------------------------------- maturity


def maturity(review: Review) -> Section:
    """Return how many outcomes are known by age, or that none is."""
    ages = [s for s in review.maturity if math.isfinite(s.known.value)]
    if not ages:
        return Section("maturity", "How outcomes come in", tag("p", "No outcome has come yet: how long they take cannot be told."))
    half = next((s for s in ages if s.known.value >= 0.5), None)
    last = ages[-1]
    sentence = [
        f"Half of the outcomes are known after {dates.age(half.age_s)}. " if half else "Fewer than half of the outcomes have come. ",
        f"After {dates.age(last.age_s)} ",
        words.rate(last.known),
        " are.",
    ]
    known = tuple((s.age_s / 86_400, s.known.value) for s in ages)
    series = (Series("outcomes known", known, band=tuple((s.known.low, s.known.high) for s in ages)),)
    summary = f"After {dates.age(last.age_s)} {words.percent(last.known.value)} of the outcomes are known. Shaded: intervals."
    title, axes = "Share of outcomes known, by age of the decision", ("age in days", "share known (Kaplan–Meier); shaded: intervals")
    chart = Lines("known", title, summary, *axes, series, share_y=True)
    return Section("maturity", "How outcomes come in", join(tag("p", sentence), figure(chart)))


def kept(gap: Estimate) -> str:
    """Return in words what a gap says of a promise.

    >>> kept(Estimate(1.0, 0.5, 1.5)), kept(Estimate(0.1, -0.5, 0.7)), kept(Estimate(0.1, float("nan"), float("nan")))
    ('broken', 'kept', 'unknown')
    """
    if not words.has_interval(gap):
        return "unknown"
    return "broken" if gap.low > 0 else "exceeded" if gap.high < 0 else "kept"
