"""What a loop acts upon: whatever decides, remembers what became of it, reviews itself and can be changed.

Two houses keep the same rules: `inside` decides in this process, which is fast, and `served` asks a service over HTTP, which is real.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from makegood.errors import DataError, Refused
from makegood.loop import controller
from makegood.loop.controller import Act, Memory, Terms
from makegood.monitoring.review import Review
from makegood.report.looped import Event
from makegood.stages.facts import Standing

Approve = Callable[[Act], bool]
"""Asks a person: True where an act may be done. It is asked again at the next review."""

KINDS = {
    "alarm": "alarm",
    "shadow": "shadow",
    "canary": "canary",
    "promote": "promoted",
    "drop": "dropped",
    "rollback": "rolled back",
}
"""What an act is called as an event (`report.looped.KINDS`); a training is one that has been done, and a release is none."""


@dataclass(frozen=True)
class Retrained:
    """A new model: its `name`, on how many `rows` it was trained, from when on (None: from the beginning), what its own held-out rows said
    of it, and in `words` why these rows."""

    name: str
    rows: int
    since: int | None
    verdict: str
    words: str
    seconds: float


class House(Protocol):
    """What can be reviewed and changed. Times are microseconds since 1970, UTC; it is told which it is, and never looks at a clock."""

    def standing(self) -> Standing:
        """Return who decides, and who is on trial."""

    def review(self, now: int, thorough: bool = False) -> Review:
        """Return what the decisions until now say: what a controller needs, or, `thorough`, all that there is to say."""

    def retrain(self, now: int, since: int | None) -> Retrained:
        """Make a model of the history and of what is known and due by now; `since`: when the world is thought to have changed.

        Raises `Refused` or `DataError` where nothing can be learnt from these rows.
        """

    def act(self, act: Act, now: int) -> None:
        """Do what changes who serves, or tell an alarm."""


class Playing(House, Protocol):
    """A house that a tape is played to."""

    def decide(self, rows: slice) -> None:
        """Decide on rows of the tape, in order, each at its time."""

    def tell(self, now: int) -> None:
        """Tell every outcome that is known by now, and that what was done reveals."""


@dataclass(frozen=True)
class Turn:
    """What one review led to: the `review`, what is remembered next, what happened, and how many trainings that took."""

    review: Review
    memory: Memory
    events: tuple[Event, ...] = ()
    trained: tuple[Retrained, ...] = ()
    asked: tuple[Act, ...] = ()


@dataclass(frozen=True)
class Manner:
    """How a loop is gone through: its `terms`, who approves, and whether a review that leads to something is `thorough`."""

    terms: Terms
    approve: Approve
    thorough: bool = False


def turn(house: House, memory: Memory, manner: Manner, now: int) -> Turn:
    """Review once and do what follows. What a person refuses, or has not answered, is left undone and asked again next time."""
    terms, review = manner.terms, house.review(now)
    memory, acts = controller.step(memory, review, house.standing(), terms)
    if manner.thorough and any(act.verb in ("alarm", "promote", "rollback") for act in acts):
        review = house.review(now, thorough=True)
    events, trained, asked = list[Event](), list[Retrained](), list[Act]()
    for act in acts:
        if act.verb == "retrain":
            try:
                made = house.retrain(now, act.since)
            except (DataError, Refused) as error:
                events.append(Event(now, "dropped", f"No new model could be made: {error}"))
                continue
            trained.append(made)
            events.append(Event(now, "retrained", f"{made.name}: {act.why} {made.words}"))
            new = controller.Entering(made.name, made.verdict == "refuse")
            memory = replace(memory, unfit=memory.unfit | {made.name}) if new.refused else memory
            follow = controller.entering(new, memory, review, house.standing(), terms)
        else:
            follow = (act,)
        for each in follow:
            if each.asks and not manner.approve(each):
                asked.append(each)
                continue
            house.act(each, now)
            if each.verb in KINDS:
                named = each.verb == "alarm" or each.why.startswith(each.model)
                events.append(Event(now, KINDS[each.verb], each.why if named else f"{each.model}: {each.why}"))
    return Turn(review, memory, tuple(events), tuple(trained), tuple(asked))
