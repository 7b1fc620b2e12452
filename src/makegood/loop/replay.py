"""A tape played to a house as if it were live: it decides row by row in time, outcomes come when they come, reviews are on schedule."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from makegood.loop.controller import Act, Memory
from makegood.loop.house import Manner, Playing, Retrained, turn
from makegood.loop.tape import Tape
from makegood.monitoring.review import Review
from makegood.report.looped import Event

Progress = Callable[[str, float], None]
"""Told what is done, and the share of the tape that has been played."""


@dataclass(frozen=True)
class Played:
    """What became of a tape in a house: what happened, each review, every model that was made, what a person was asked at the end and has
    not allowed, and the `seconds` of each part."""

    events: tuple[Event, ...]
    reviews: tuple[Review, ...]
    trained: tuple[tuple[int, Retrained], ...]
    asked: tuple[Act, ...]
    seconds: dict[str, float]


def nobody(act: Act) -> bool:
    """Answer as a person does who is not there: what needs approval is not done."""
    return False


def silent(what: str, share: float) -> None:
    """Show nothing."""


def edges(tape: Tape, every_us: int) -> list[int]:
    """Return the times of the reviews: one after each period from the first row on, until the last row has been decided on."""
    return list(range(tape.start + every_us, int(tape.at[-1]) + every_us + 1, every_us))


def play(tape: Tape, house: Playing, manner: Manner, progress: Progress = silent) -> Played:
    """Play a tape to a house and do what its reviews lead to; after the last row a last review looks, and changes nothing."""
    memory, asked = Memory(), tuple[Act, ...]()
    events, reviews, trained = list[Event](), list[Review](), list[tuple[int, Retrained]]()
    seconds = {"decide": 0.0, "review": 0.0, "retrain": 0.0}
    begin = 0
    for now in edges(tape, round(tape.case.feedback.review * 1e6)):
        began = time.perf_counter()
        end = int(np.searchsorted(tape.at, now))
        house.decide(slice(begin, end))
        house.tell(now)
        seconds["decide"] += time.perf_counter() - began
        begin, began = end, time.perf_counter()
        if end == len(tape):
            break
        done = turn(house, memory, manner, now)
        memory, asked = done.memory, done.asked
        reviews.append(done.review)
        events += done.events
        trained += [(now, made) for made in done.trained]
        took = sum(made.seconds for made in done.trained)
        seconds["retrain"] += took
        seconds["review"] += time.perf_counter() - began - took
        progress(f"{len(reviews)} reviews", end / len(tape))
    began = time.perf_counter()
    house.tell(tape.end)
    reviews.append(house.review(tape.end, thorough=manner.thorough))
    seconds["review"] += time.perf_counter() - began
    return Played(tuple(events), tuple(reviews), tuple(trained), asked, seconds)
