"""The sections on other models: challengers and their tests, what bundles would have earned on logged decisions, the chances logged."""

from __future__ import annotations

import math

from makegood.monitoring.review import Challenge, Guardrail, Plan, Ratio, Review, Worth
from makegood.report import words
from makegood.report.charts import Dots, Lines, Series, Tone
from makegood.report.drawing import figure, table
from makegood.report.keeping import name, short
from makegood.report.markup import Markup, join, tag
from makegood.report.money import Section, mark

_DECISIONS = {
    "promote": "Promote",
    "wait": "Wait",
    "drop": "Drop",
    "failed": "The test failed",
    "rollback": "Roll back to it",
    "keep": "Not better",
}
_DESIGNS = {
    "paired": "in shadow, on the same revealed rows, with no traffic at risk",
    "disagreement": "randomised where the two differ, weighted by the chances logged",
}
_TESTS = {"betting": "betting test: valid whenever it is looked at", "asymptotic": "asymptotic test: its error is not exactly as stated"}
_TONES: dict[str, Tone] = {"promote": "good", "drop": "bad", "failed": "bad", "rollback": "bad"}
_WIDEST = 8  # an early interval more than so many times as wide as the last would flatten all that came after


# ------------------------------------------------------------------------------------------------------------ challengers


def challengers(review: Review) -> Section:
    """Return each challenger with its gain, its test and its plan, or how one comes to be."""
    if not review.challenges:
        text = "No challenger is being tested. A new run of the case that is set in shadow beside the model appears here, with its test."
        return Section("challengers", "Challengers", tag("p", text))
    gains = None
    if len(review.challenges) > 1:
        marks = tuple(mark(short(c.model), c.gain, _TONES.get(c.decision, "unsure")) for c in review.challenges)
        summary = "; ".join(f"{m.label}: {m.text}" for m in marks) + "."
        title = f"Gain over the model that decides, {review.unit} per decision"
        gains = figure(Dots("challenger-gains", title, summary, review.unit, marks, zero=True))
    parts = [_challenge(c, i, review.unit) for i, c in enumerate(review.challenges, 1)]
    return Section("challengers", "Challengers", join(gains, parts))


def _challenge(c: Challenge, i: int, unit: str) -> Markup:
    rows = [
        ("Gain per decision", words.with_interval(c.gain)),
        (f"By the {'asymptotic' if c.test == 'betting' else 'betting'} interval", words.with_interval(c.beside)),
        ("Evidence", join(words.figure(c.evidence, words.digits("", c.evidence)), " of ", words.figure(c.limit, 0), " needed")),
        ("Least gain asked for", words.money(c.min_gain, unit)),
        ("Units compared", join(words.whole(c.units), ", ", words.whole(c.disagreements), " of them where the two differ")),
        ("Design", join(_DESIGNS.get(c.design, c.design))),
        ("Test", join(_TESTS.get(c.test, c.test))),
    ]
    return join(
        tag("h3", _DECISIONS.get(c.decision, c.decision), ": ", name(c.model)),
        tag("p", c.why),
        tag("dl", [[tag("dt", term), tag("dd", value)] for term, value in rows], class_="facts"),
        figure(_sequence(c, i, unit)) if c.path else None,
        _plan(c.plan, unit) if c.plan and c.decision == "wait" else None,
        _guardrails(c.guardrails, short(c.model)) if c.guardrails else None,
    )


def _sequence(c: Challenge, i: int, unit: str) -> Lines:
    """Return the confidence sequence as it narrows, from where it is narrow enough to be drawn."""
    _, last_low, _, last_high = c.path[-1]
    path = [p for p in c.path if not p[3] - p[1] > _WIDEST * (last_high - last_low)]
    ends = (path[0][0], path[-1][0])
    gain = tuple((units, value) for units, _, value, _ in path)
    level = f"{100 * c.gain.level:.4g}%"
    other = "asymptotic" if c.test == "betting" else "betting"
    low = c.beside.low
    beside = Series(f"lower limit now, {other}", tuple((x, low) for x in ends), "other", dashed=True)
    series = (
        Series(f"gain, {level} confidence sequence", gain, band=tuple((low, high) for _, low, _, high in path)),
        *([beside] if math.isfinite(low) else []),
        Series("least gain asked for", tuple((x, c.min_gain) for x in ends), "ceiling", dashed=True),
    )
    summary = f"After {c.units:,} units the gain is {words.short(c.gain)} {unit}; {words.money_text(c.min_gain, unit)} is asked for."
    title = f"Gain of {short(c.model)} as evidence comes in"
    return Lines(f"sequence-{i}", title, summary, "units compared", f"{unit} per decision; shaded: {c.test} interval", series)


def _plan(plan: Plan, unit: str) -> Markup:
    if math.isinf(plan.days) or math.isinf(plan.units):
        wait = join("At the rate at which units come, it cannot be told when the test ends")
    else:
        wait = join(
            f"If the gain is {words.money_text(plan.gain, unit)}, the test shows it with {words.percent(plan.power)} power in about ",
            words.figure(plan.units, 0),
            " units: ",
            tag("b", f"{words.number(math.ceil(plan.days))} more {'day' if math.ceil(plan.days) == 1 else 'days'}"),
        )
    worth = "Waiting is worth " if plan.worth > 0 else "Waiting is worth nothing: "
    return tag(
        "p",
        tag("b", "How long still. "),
        wait,
        *(("; with fewer than ", words.figure(plan.least, 0), " no evidence can suffice") if plan.least >= 1 else ()),
        ". ",
        worth,
        words.money(plan.worth, unit),
        " in expectation.",
    )


def _guardrails(rails: tuple[Guardrail, ...], model: str) -> Markup:
    rows = [
        [r.name.replace("=", " = "), words.with_interval(r.found), words.figure(r.limit, words.digits("", r.limit)), _held(r)]
        for r in rails
    ]
    return table(["must not worsen", "found", "limit", ""], rows, caption=f"Guardrails of {model}", words_in=(0, 3))


def _held(rail: Guardrail) -> Markup:
    if rail.held is None:
        return tag("span", "too little to tell", class_="soft")
    return tag("b", "held" if rail.held else "broken", class_="good-text" if rail.held else "bad-text")


# ----------------------------------------------------------------------------------------------------------------- worths


def worths(review: Review) -> Section | None:
    """Return what bundles would have earned on the logged decisions, and whether the chances logged are true; None without either."""
    if not review.worths and review.ratio is None:
        return None
    valued = [w for w in review.worths if w.value is not None]
    body = [
        tag(
            "p",
            "What each bundle would have earned on the decisions in the ledger, weighted by the chances logged with them (doubly robust).",
        )
        if review.worths
        else None,
        figure(_worth_chart(review, valued)) if valued else None,
        [tag("p", tag("b", "No value is given for ", name(w.model), ". "), w.why) for w in review.worths if w.value is None],
        _worth_table(review) if review.worths else None,
        _ratio(review.ratio) if review.ratio else None,
    ]
    return Section("worths", "What others would have earned", join(body))


def _worth_chart(review: Review, valued: list[Worth]) -> Dots:
    marks = tuple(mark(short(w.model), w.value, "model" if w.model == review.model else "other") for w in valued if w.value is not None)
    summary = "; ".join(f"{m.label}: {m.text}" for m in marks) + f". In {review.unit} per decision; dashed: what was earned."
    title = f"Value on logged decisions, {review.unit} per decision; dashed: what was earned"
    return Dots("worth-chart", title, summary, review.unit, marks, review.realised.value)


def _worth_table(review: Review) -> Markup:
    rows = [
        [
            name(w.model),
            words.bare(w.value) if w.value else tag("span", "refused", class_="soft"),
            words.bare(w.bounds),
            words.figure(w.effective, 0),
            words.percent(w.unsupported),
        ]
        for w in review.worths
    ]
    head = ["bundle", "value", "bounds whatever was never tried", "effective rows", "never tried"]
    return table(head, rows, caption=f"Values with their bounds, {review.unit} per decision")


def _ratio(ratio: Ratio) -> Markup:
    says = "The chances logged are those by which was acted. " if ratio.ok else "The chances logged are not those by which was acted. "
    least = f"<{ratio.limit:g}" if ratio.p < ratio.limit and ratio.p < 1e-4 else f"{ratio.p:.3g}"
    return tag("p", tag("b", says), ratio.detail, tag("span", f" Sample-ratio test: p {least}, limit {ratio.limit:g}.", class_="soft"))
