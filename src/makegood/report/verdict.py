"""The top of the page: what somebody who reads nothing else must know, in money and in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from makegood.contracts import Estimate, Evaluation, Finding
from makegood.report import words
from makegood.report.markup import Child, Markup, join, tag


def alternative(name: str) -> str:
    """Return a baseline's name as part of a sentence.

    >>> alternative("today"), alternative("always approve")
    ('what is done today', '“always approve”')
    """
    return "what is done today" if name == "today" else f"“{name}”"


def headline(evaluation: Evaluation) -> Markup:
    """Return the verdict in one sentence with its money."""
    gain, over = evaluation.gain, alternative(evaluation.gain_over)
    size = words.size(gain)
    if evaluation.verdict == "deploy":
        return join("The model earns ", size, f" more per decision than {over}.")
    if not words.has_interval(gain):
        return join(f"What the model earns beyond {over} cannot be told from chance: there are too few independent groups.")
    if gain.value < 0:
        return join("The model earns ", size, f" less per decision than {over}.")
    if gain.value == 0:
        return join(f"The model earns no more than {over}.")
    return join(f"A gain over {over} is not shown: it is ", size, " per decision, but it could be nothing, or a loss.")


def banner(evaluation: Evaluation) -> Markup:
    """Return the verdict, its key figures, the reason, and how to read the figures."""
    deploy = evaluation.verdict == "deploy"
    return tag(
        "section",
        tag("h2", tag("span", "Deploy" if deploy else "Do not deploy", class_=f"verdict {'good' if deploy else 'bad'}")),
        tag("p", headline(evaluation), class_="headline"),
        tag("p", evaluation.why, class_="why") if evaluation.why else None,
        tag("dl", _key_figures(evaluation), class_="figures"),
        _how_to_read(evaluation),
        id="verdict",
    )


def _key_figures(evaluation: Evaluation) -> list[Markup]:
    gain, value, over = evaluation.gain, evaluation.value, alternative(evaluation.gain_over)
    hardest = evaluation.baselines[evaluation.gain_over]
    cells = [
        key_figure("Gain per decision", words.amount(gain), words.interval(gain), f"over {over}"),
        key_figure("Gain per 1,000 decisions", words.amount(gain, 1000), words.interval(gain, 1000), "on decisions like these"),
        key_figure("Value per decision", words.amount(value), words.interval(value), [over, ": ", words.amount(hardest)]),
    ]
    possible = evaluation.oracle.value - hardest.value
    if gain.low > 0 and possible > 0:
        share = words.percent(gain.value / possible)
        best = words.money(possible, evaluation.unit)
        cells.append(key_figure("Of what could be gained", join(share), None, ["knowing every outcome would gain ", best]))
    return cells


def key_figure(name: str, figure: Child, interval: Child, note: Child) -> Markup:
    """Return one of the large figures below a verdict: an entry of a definition list."""
    lines = tag("b", figure), tag("span", interval) if interval else None, tag("span", note, class_="soft")
    return tag("div", tag("dt", name), tag("dd", lines))


def _how_to_read(evaluation: Evaluation) -> Markup:
    """Return what the brackets mean, said once, at the levels that were used."""
    level = _level(evaluation.value)
    sentences = [
        f"Figures in brackets are {level} intervals: intervals made this way hold the true mean {level.rstrip('%')} times in 100.",
        "A gain compares two policies row by row.",
    ]
    if _level(evaluation.gain) != level:
        sentences.append(f"The gain over {alternative(evaluation.gain_over)}, which decides, is given at {_level(evaluation.gain)}.")
    if evaluation.cost:
        sentences.append("What the model earns is net of computing.")
    if evaluation.opened > 1:
        sentences.append(f"These test rows have been opened {evaluation.opened} times, and each time asks for a wider interval.")
    marked = [g for g in evaluation.gains.values() if g.tail_limited]
    tail = "† Tail-limited: a few rows carry much of the money, so that the interval holds the truth less often than its level says."
    tail += f" A gain with this mark is given at {_level(marked[0])}." if marked else ""
    return join(
        tag("p", tag("b", "How to read the figures. "), " ".join(sentences), " ", _measured(evaluation.n), class_="soft"),
        tag("p", tail, class_="soft", id="tail-limited") if any(e.tail_limited for e in estimates(evaluation)) else None,
    )


def _level(estimate: Estimate) -> str:
    return f"{100 * estimate.level:.4g}%"


def _measured(n: Mapping[str, int]) -> Markup:
    """Return on how many rows the figures rest; `n` may lack either count."""
    test = join(words.whole(n["test"]), " rows") if "test" in n else "rows"
    train = join(", after training on ", words.whole(n["train"])) if "train" in n else None
    return join("Measured on ", test, " that the model had not seen", train, ".")


def estimates(evaluation: Evaluation) -> Iterable[Estimate]:
    """Yield every estimate of an evaluation."""
    yield from (evaluation.value, evaluation.gain, evaluation.oracle, evaluation.promised, evaluation.gap)
    for group in (evaluation.baselines, evaluation.gains, evaluation.metrics):
        yield from group.values()
    for part in evaluation.slices:
        yield from (part.value, part.gap)
    if evaluation.guarantee:
        yield from (evaluation.guarantee.amount, evaluation.guarantee.broken)


def alerts(evaluation: Evaluation, findings: Sequence[Finding], notes: Sequence[str]) -> Markup | None:
    """Return what must be known before the verdict is read: simulated data, suspected leaks, warnings; None if there is nothing."""
    items = [tag("li", tag("b", "Not real data. "), note) for note in notes]
    items += [_leak(f) for f in findings if f.severity == "leak"]
    items += [tag("li", tag("b", _subject("Warning", f)), f.detail, " ", _done(f)) for f in findings if f.severity == "warning"]
    items += [tag("li", tag("b", "Warning. "), text) for text in _doubts(evaluation)]
    return tag("section", tag("h2", "Read this first"), tag("ul", items), id="alerts", class_="alerts") if items else None


def _leak(finding: Finding) -> Markup:
    restore = tag("span", " If it is known when the decision is taken, name it under ", tag("code", "data.keep"), ".", class_="soft")
    subject = tag("b", _subject("Suspected leak", finding))
    return tag("li", subject, finding.detail, " ", _done(finding), restore if finding.action == "excluded" else None)


def _subject(what: str, finding: Finding) -> list[Child]:
    return [what, [": ", words.column(finding.column)] if finding.column else None, ". "]


def _done(finding: Finding) -> Markup:
    return tag("em", f"{finding.action[:1].upper()}{finding.action[1:]}.")


def _doubts(evaluation: Evaluation) -> list[Markup]:
    gain, gap = evaluation.gain, evaluation.gap
    doubts = []
    if not words.has_interval(gain):
        doubts.append(join("No interval can be given: there are fewer than 6 independent groups."))
    if words.has_interval(gap) and not gap.low <= 0 <= gap.high:
        way = "more" if gap.value > 0 else "less"
        size = words.size(gap)
        doubts.append(join(f"The model promises {way} than it earns, by ", size, " per decision."))
    return doubts
