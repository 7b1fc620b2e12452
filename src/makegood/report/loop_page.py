"""The page of a loop: the money that acting on feedback gained, when, and why."""

from __future__ import annotations

from makegood.contracts import Estimate
from makegood.monitoring.review import Review
from makegood.report import dates, keeping, words
from makegood.report.charts import Dots, Flag, Lines, Series, Tone
from makegood.report.document import document
from makegood.report.drawing import figure, table
from makegood.report.looped import ARM, Looping
from makegood.report.markup import Markup, join, tag
from makegood.report.money import Section, mark
from makegood.report.review_page import VERDICTS, alerts, headline
from makegood.report.verdict import key_figure

_ARMS = {
    ARM: "makegood: retrains and promotes when the money says so",
    "never": "never: the first model for good",
    "scheduled": "scheduled: retrains by the calendar",
    "oracle": "oracle: told beforehand when the world changes",
}
_OTHERS = {"never": "never retraining", "scheduled": "retraining by the calendar", "oracle": "knowing every change beforehand"}
_TONES: dict[str, Tone] = {"never": "model", "scheduled": "other", "oracle": "ceiling"}
_EVENT_TONES: dict[str, Tone] = {"alarm": "bad", "promoted": "good", "rolled back": "bad"}
_MOST_REVIEWS = 60


def render(loop: Looping) -> str:
    """Return the page of a loop as HTML."""
    sections = [_over_time(loop), _arms(loop), _timeline(loop), _reviews(loop), _making(loop)]
    top = join(_title(loop), alerts(loop.replayed, loop.injected), _banner(loop))
    word, _ = _word(loop)
    return document(
        f"{loop.case}: {word.lower()} · makegood", ("Result", top), [s for s in sections if s], f"loop to {dates.exact(loop.end)}"
    )


def _title(loop: Looping) -> Markup:
    about = f"Loop from {dates.day(loop.start)} to {dates.day(loop.end)}, {loop.decisions:,} decisions"
    return tag("header", tag("p", "makegood", class_="soft"), tag("h1", loop.case), tag("p", about, class_="about"))


def _word(loop: Looping) -> tuple[str, str]:
    gain = loop.gains.get("never")
    if gain is None or not words.has_interval(gain) or gain.low <= 0 <= gain.high:
        return "No gain shown", ""
    return ("Gained", "" if _behind(loop) else "good") if gain.low > 0 else ("Lost", "bad")


def result(loop: Looping) -> Markup:
    """Return in one sentence what the loop gained over never retraining."""
    gain = loop.gains.get("never")
    if gain is None:
        return join("Makegood earned ", words.amount(loop.money[ARM]), "; it was not compared with never retraining.")
    if _word(loop)[0] == "No gain shown":
        return join("A gain over never retraining is not shown: it is ", words.amount(gain), ", which chance can explain.")
    lost = _behind(loop)
    but = join(", but ", words.size(lost), " less than retraining by the calendar.") if lost else "."
    return join("Closing the loop earned ", words.size(gain), f" {'more' if gain.value > 0 else 'less'} than never retraining", but)


def _behind(loop: Looping) -> Estimate | None:
    """Return what was lost against retraining by the calendar, where chance does not explain it."""
    gain = loop.gains.get("scheduled")
    return gain if gain is not None and words.has_interval(gain) and gain.high < 0 else None


def _banner(loop: Looping) -> Markup:
    word, tone = _word(loop)
    figures = [key_figure("Earned by makegood", words.amount(loop.money[ARM]), words.interval(loop.money[ARM]), "altogether")]
    figures += [
        key_figure(f"Gain over {_OTHERS.get(arm, arm)}", words.amount(gain), words.interval(gain), "paired by unit")
        for arm, gain in loop.gains.items()
    ]
    share = _share(loop)
    estimates = [*loop.money.values(), *loop.gains.values(), *(e for points in loop.path.values() for _, e in points)]
    level = f"{100 * loop.money[ARM].level:.4g}%"
    return tag(
        "section",
        tag("h2", tag("span", word, class_=f"verdict {tone}".rstrip())),
        tag("p", result(loop), class_="headline"),
        tag("p", share, class_="why") if share else None,
        tag("dl", figures, class_="figures"),
        tag(
            "p",
            tag("b", "How to read the figures. "),
            f"Brackets are {level} intervals. Gains compare arms on the same units.",
            class_="soft",
        ),
        tag("p", "† Tail-limited: a few units carry much of the money.", class_="soft", id="tail-limited")
        if any(e.tail_limited for e in estimates)
        else None,
        id="verdict",
    )


def _share(loop: Looping) -> str:
    """Return how much of what could be gained was, in a sentence; nothing where that cannot be said."""
    if "oracle" not in loop.money or "never" not in loop.gains:
        return ""
    possible = loop.money["oracle"].value - loop.money["never"].value
    gain = loop.gains["never"]
    if possible <= 0 or not gain.low > 0:
        return ""
    return f"That is {words.percent(gain.value / possible)} of what knowing every change beforehand would have gained."


def _over_time(loop: Looping) -> Section:
    if not any(loop.path.values()):
        return Section("gain", "Money gained over time", tag("p", "No outcome has come yet: there is no money to compare."))
    series = tuple(_growth(arm, points) for arm, points in loop.path.items() if points)
    flags = tuple(Flag(e.at, str(i), _EVENT_TONES.get(e.kind, "other")) for i, e in enumerate(loop.events, 1))
    summary = "; ".join(f"over {_OTHERS.get(arm, arm)}: {words.short(gain)}" for arm, gain in loop.gains.items()) + f". In {loop.unit}."
    title = "Money gained by makegood so far" + (", numbered: what happened" if flags else "")
    axes = ("time", f"{loop.unit} altogether; shaded: intervals")
    chart = Lines("gain-chart", title, summary, *axes, series, time_x=True, flags=flags)
    return Section("gain", "Money gained over time", figure(chart))


def _growth(arm: str, points: tuple[tuple[int, Estimate], ...]) -> Series:
    line = tuple((float(at), e.value) for at, e in points)
    band = tuple((e.low, e.high) for _, e in points)
    return Series(f"over {_OTHERS.get(arm, arm)}", line, _TONES.get(arm, "other"), band=band)


def _arms(loop: Looping) -> Section:
    marks = tuple(
        mark(arm, money, "model" if arm == ARM else "ceiling" if arm == "oracle" else "other") for arm, money in loop.money.items()
    )
    summary = "; ".join(f"{m.label}: {m.text}" for m in marks) + f". In {loop.unit} altogether."
    chart = Dots("money-chart", f"Money earned, {loop.unit} altogether", summary, loop.unit, marks)
    rows = [
        [_ARMS.get(arm, arm), words.bare(money), words.bare(loop.gains[arm]) if arm in loop.gains else join(words.MISSING)]
        for arm, money in loop.money.items()
    ]
    head = ["arm", "earned", "gain of makegood over it"]
    return Section("arms", "Each way of doing it", join(figure(chart), table(head, rows, caption=f"Arms, {loop.unit} altogether")))


def _timeline(loop: Looping) -> Section:
    if not loop.events:
        return Section("timeline", "What happened", tag("p", "Nothing: no alarm was raised, and no other model was tried."))
    tones = {"good": "good-text", "bad": "bad-text"}
    rows = [
        [str(i), dates.moment(e.at), tag("b", e.kind, class_=tones.get(_EVENT_TONES.get(e.kind, "other"))), e.words]
        for i, e in enumerate(loop.events, 1)
    ]
    events = table(["", "when", "what", "why"], rows, caption="What happened, numbered as in the chart", words_in=(0, 1, 2, 3))
    return Section("timeline", "What happened", tag("div", events, class_="timeline"))


def _reviews(loop: Looping) -> Section | None:
    if not loop.reviews:
        return None
    shown = loop.reviews[-_MOST_REVIEWS:]
    head = ["review", "verdict", "model", "promised", "earned", "gap", "evidence"]
    caption = (
        f"Reviews, {loop.unit} per decision{f': the last {len(shown)} of {len(loop.reviews)}' if len(shown) < len(loop.reviews) else ''}"
    )
    rows = table(head, [_review_row(r) for r in shown], caption=caption, words_in=(0, 1, 2))
    turns = [r for r in shown if r.verdict not in {"keep", "wait"}]
    return Section("reviews", "The reviews", join(rows, [_essential(r) for r in turns]))


def _review_row(review: Review) -> list[Markup]:
    word, tone = VERDICTS[review.verdict]
    money = [words.bare(e) for e in (review.promised, review.realised, review.gap)]
    evidence = join(words.figure(review.alarm.evidence, words.digits("", review.alarm.evidence)))
    verdict = tag("b", word, class_=f"{tone}-text" if tone else None)
    return [join(dates.day(review.at)), verdict, keeping.name(review.model), *money, evidence]


def _essential(review: Review) -> Markup:
    word, _ = VERDICTS[review.verdict]
    return join(
        tag("h3", f"{dates.day(review.at)}: {word.lower()}"),
        tag("p", headline(review), " ", review.why),
    )


def _making(loop: Looping) -> Section | None:
    if not loop.seconds:
        return None
    facts = [[tag("dt", words.plain(stage)), tag("dd", words.duration(s))] for stage, s in loop.seconds.items()]
    return Section("making", "How it was made", join(tag("p", "Seconds of each part of the loop."), tag("dl", facts, class_="facts")))
