"""The section on what is guaranteed of the decisions, and whether it held."""

from __future__ import annotations

from makegood.contracts import Evaluation, Guarantee
from makegood.report import words
from makegood.report.markup import join, tag
from makegood.report.money import Section


def guarantee(evaluation: Evaluation) -> Section | None:
    """Return what each decision guarantees, how it was meant, and how often less was paid; None where there are no prediction sets."""
    found = evaluation.guarantee
    if found is None:
        return None
    allowed, level = f"{100.0 * (1.0 - found.level):.4g}%", f"{100.0 * found.level:.4g}%"
    how = (
        "It takes the action whose guaranteed payoff is highest, and of those that tie the one that is expected to pay most. "
        "That gives up some of the mean for the sake of the bad cases. An outcome outside the set counts for nothing, however dear it is."
        if found.averse
        else "It takes the action that is expected to pay most; what that action guarantees is told beside it."
    )
    body = [
        tag(
            "p",
            f"Each decision comes with a set that holds the outcome with a probability of at least {level}, and with the least that "
            f"its action pays over that set. {how}",
        ),
        tag(
            "p",
            "On average ",
            words.with_interval(found.amount),
            " per decision were guaranteed. On unseen rows ",
            words.rate(found.broken),
            f" of the decisions paid less than they guaranteed; at most {allowed} may. {_kept(found)}",
        ),
        tag(
            "p",
            "The probability is over all decisions, not for each kind of them, and for rows like those that were learnt from. "
            "A promise is what a decision is expected to pay, and is kept on average; a guarantee is what it pays at least, nearly always.",
            class_="soft",
        ),
    ]
    return Section("guarantee", "What is guaranteed", join(body))


def _kept(found: Guarantee) -> str:
    """Return whether the guarantees were kept, in a sentence."""
    allowed = 1.0 - found.level + 1e-12
    if found.broken.value <= allowed:
        return "They were kept."
    return "That is more than chance explains." if found.broken.low > allowed else "That is more, but chance may explain it."
