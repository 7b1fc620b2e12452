"""The page of a review: whether the model keeps its promise, and what to do; then all that says so."""

from __future__ import annotations

from collections.abc import Iterable

from makegood.contracts import Estimate
from makegood.monitoring.review import Review
from makegood.report import causes, contest, dates, keeping, words
from makegood.report.document import document
from makegood.report.markup import Markup, join, tag
from makegood.report.money import Section
from makegood.report.verdict import key_figure

VERDICTS = {
    "keep": ("Keep", "good"),
    "wait": ("Wait", ""),
    "alarm": ("Alarm", "bad"),
    "retrain": ("Retrain", "bad"),
    "promote": ("Promote", "good"),
    "rollback": ("Roll back", "bad"),
}
"""How each verdict is written, and whether it is good news, bad news or none."""


def render(review: Review) -> str:
    """Return the page of a review as HTML."""
    sections = [
        keeping.money(review),
        keeping.alarm(review),
        contest.challengers(review),
        causes.attribution(review),
        causes.drift(review),
        contest.worths(review),
        keeping.maturity(review),
        _making(review),
    ]
    word, _ = VERDICTS[review.verdict]
    top = join(_title(review), alerts(review.replayed, review.injected, _doubts(review)), _banner(review))
    shown = [s for s in sections if s]
    return document(f"{review.case}: {word.lower()} · makegood", ("Verdict", top), shown, f"review of {dates.exact(review.at)}")


def _title(review: Review) -> Markup:
    about = tag("p", "Review of ", dates.moment(review.at), ", model ", keeping.name(review.model), class_="about")
    return tag("header", tag("p", "makegood", class_="soft"), tag("h1", review.case), about)


def alerts(replayed: bool, injected: str, doubts: Iterable[Markup] = ()) -> Markup | None:
    """Return what must be known before anything else is read: replayed and injected data, and doubts; None if there is nothing."""
    items = [
        tag("li", tag("b", "Replayed. "), "These decisions are a replay of past data, not decisions that were taken.")
        if replayed
        else None,
        tag("li", tag("b", "Injected. "), injected) if injected else None,
        *(tag("li", doubt) for doubt in doubts),
    ]
    shown = [item for item in items if item]
    return tag("section", tag("h2", "Read this first"), tag("ul", shown), id="alerts", class_="alerts") if shown else None


def _doubts(review: Review) -> list[Markup]:
    """Return which assumptions do not hold."""
    doubts = []
    if review.ratio is not None and not review.ratio.ok:
        doubts.append(join(tag("b", "Chances. "), "The chances logged are not those by which was acted: no weighted value can be trusted."))
    if review.alarm.missing is not None and review.alarm.missing.raised:
        doubts.append(join(tag("b", "Missing outcomes. "), review.alarm.missing.why))
    doubts += [join(tag("b", "Test failed: "), keeping.name(c.model), ". ", c.why) for c in review.challenges if c.decision == "failed"]
    return doubts


def headline(review: Review) -> Markup:
    """Return in one sentence, with its money, what a review found."""
    best = max((c for c in review.challenges if c.decision == "promote"), key=lambda c: c.gain.value, default=None)
    if review.verdict == "promote" and best is not None:
        return join(f"The challenger {keeping.short(best.model)} earns ", words.size(best.gain), " more per decision than the model.")
    if not review.n:
        return join("No decision has been taken yet.")
    if not review.matured:
        return join(
            "No outcome is due yet: the ", words.whole(review.n), " decisions so far promise ", words.amount(review.promised), " each."
        )
    match keeping.kept(review.gap):
        case "unknown":
            return join("Whether the promise is kept cannot be told yet: there are too few independent outcomes.")
        case "broken":
            return join("The model earns ", words.size(review.gap), " less per decision than it promised.")
        case "exceeded":
            return join("The model earns ", words.size(review.gap), " more per decision than it promised.")
    if review.alarm.raised:
        return join("The model no longer keeps its promise, though over all decisions the gap could be chance.")
    return join("The model keeps its promise of ", words.amount(review.promised), " per decision.")


def _banner(review: Review) -> Markup:
    word, tone = VERDICTS[review.verdict]
    return tag(
        "section",
        tag("h2", tag("span", word, class_=f"verdict {tone}".rstrip())),
        tag("p", headline(review), class_="headline"),
        tag("p", review.why, class_="why") if review.why else None,
        tag("p", tag("b", "Next: "), review.next) if review.next else None,
        tag("dl", _key_figures(review), class_="figures"),
        _how_to_read(review) if review.matured else None,
        id="verdict",
    )


def _key_figures(review: Review) -> list[Markup]:
    due = words.percent(review.matured / review.n) if review.n else "none"
    counted = key_figure("Decisions", words.whole(review.n), None, ["outcomes due: ", words.whole(review.matured), f" ({due})"])
    if not review.matured:
        promised = [key_figure("Promised", words.amount(review.promised), words.interval(review.promised), "per decision")]
        return [counted, *(promised if review.n else [])]
    return [
        key_figure("Earned", words.amount(review.realised), words.interval(review.realised), "per decision"),
        key_figure("Promised", words.amount(review.promised), words.interval(review.promised), "per decision"),
        key_figure("Gap", words.amount(review.gap), words.interval(review.gap), "promised less earned"),
        counted,
    ]


def _how_to_read(review: Review) -> Markup:
    level = f"{100 * review.gap.level:.4g}%"
    tail = "† Tail-limited: a few rows carry much of the money, so that the interval holds the truth less often than its level says."
    return join(
        tag(
            "p",
            tag("b", "How to read the figures. "),
            f"Figures in brackets are {level} intervals: intervals made this way hold the true mean {level.rstrip('%')} times in 100. ",
            "The alarm and the tests of challengers keep their error rates however often they are looked at; these intervals at one look.",
            class_="soft",
        ),
        tag("p", tail, class_="soft", id="tail-limited") if any(e.tail_limited for e in _estimates(review)) else None,
    )


def _estimates(review: Review) -> Iterable[Estimate]:
    """Yield every estimate that the page may mark with a dagger."""
    yield from (review.promised, review.realised, review.gap)
    yield from (e for e in (review.outlook,) if e is not None)
    for period in review.periods:
        yield from (period.promised, period.realised, period.gap)
    for challenge in review.challenges:
        yield from (challenge.gain, challenge.beside, *(g.found for g in challenge.guardrails))
    yield from (moved.stake for moved in review.drift)
    for worth in review.worths:
        yield from (e for e in (worth.value, worth.bounds) if e is not None)
    if review.attribution is not None:
        yield from (*review.attribution.causes.values(), review.attribution.unexplained, review.attribution.change)


def _making(review: Review) -> Section | None:
    if not review.seconds:
        return None
    facts = [[tag("dt", words.plain(stage)), tag("dd", words.duration(s))] for stage, s in review.seconds.items()]
    return Section("making", "How it was made", join(tag("p", "Seconds of each stage of this review."), tag("dl", facts, class_="facts")))
