"""What a loop is told as: the money of each arm, what happened when, and the reviews on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from makegood.contracts import Estimate
from makegood.monitoring.review import Review

ARM = "makegood"
"""The arm that is held against the others."""

KINDS = ("alarm", "retrained", "shadow", "canary", "promoted", "dropped", "rolled back")
"""What may happen in a loop, as `Event.kind` says it."""


@dataclass(frozen=True)
class Event:
    """What happened `at` a time (microseconds since 1970, UTC): its `kind`, one of KINDS, and in words which model and why."""

    at: int
    kind: str
    words: str


@dataclass(frozen=True)
class Looping:
    """A whole loop: the same decisions lived through by every arm.

    Money is altogether, in `unit`. `money` is by arm: makegood and those it is compared with (never, scheduled, oracle), where one was
    run. `gains` are makegood's over each other arm, paired by unit, and `path` is each of them as it grew: (time, gain up to then).
    `replayed` and `injected` say that the decisions are a replay, and what was done to its data.
    """

    case: str
    unit: str
    start: int
    end: int
    decisions: int
    money: Mapping[str, Estimate]
    gains: Mapping[str, Estimate]
    path: Mapping[str, tuple[tuple[int, Estimate], ...]] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    reviews: tuple[Review, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    replayed: bool = False
    injected: str = ""
