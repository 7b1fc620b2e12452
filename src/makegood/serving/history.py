"""A decision, what came back of it since, and what it paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from makegood.errors import DataError
from makegood.ledger.events import Decided, Event, Happened, Overridden, Private, Stored, micro
from makegood.serving.live import Live
from makegood.serving.problems import Trouble

if TYPE_CHECKING:
    from makegood.serving.rollout import Rollouts

EPOCH, US = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)

_decided = msgspec.json.Decoder(Decided).decode
_private = msgspec.json.Decoder(Private).decode
_happened = msgspec.json.Decoder(Happened).decode
_overridden = msgspec.json.Decoder(Overridden).decode


def iso(us: int) -> str:
    """Return a time in ISO 8601, UTC.

    >>> iso(86_400_000_000)
    '1970-01-02T00:00:00Z'
    """
    return (EPOCH + us * US).isoformat(timespec="seconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class History:
    """A decision and all that came back of it, in order; `erased` says that its inputs are gone."""

    stored: Stored
    decided: Decided
    private: Private
    erased: bool
    happened: tuple[tuple[Event, Happened], ...] = ()
    overridden: tuple[tuple[Event, Overridden], ...] = ()

    @classmethod
    def of(cls, stored: Stored, about: Sequence[Stored]) -> History:
        """Return the history of a stored decision."""
        events = [later.event for later in about]
        hidden = stored.event.private
        return cls(
            stored,
            _decided(stored.event.body),
            Private() if hidden is None else _private(hidden),
            hidden is None and stored.commitment != b"",
            tuple((event, _happened(event.body)) for event in events if event.kind in ("outcome", "correction")),
            tuple((event, _overridden(event.body)) for event in events if event.kind == "override"),
        )

    @property
    def done(self) -> tuple[str, float | None]:
        """What was really done: the last override's action and quantity, or the decision's."""
        said: Overridden | Decided = self.overridden[-1][1] if self.overridden else self.decided
        return said.action, said.quantity

    def realised(self, live: Live | None) -> int | None:
        """Return what the action that was done paid, as the last word on the outcome is, in millionths of the unit.

        None where there is no outcome yet, the action does not reveal one, or inputs that payoffs are made of are gone. `live` is the
        decision's own model; without it what was reckoned on arrival is returned, unless the action was overridden since.
        """
        if not self.happened:
            return None
        event, last = self.happened[-1]
        if live is not None:
            return paid(live, self.private, last.value, self.done)
        return last.realised if all(at <= event.at for at in (over.at for over, _ in self.overridden)) else None


@dataclass(frozen=True, slots=True)
class Word:
    """What is said of a decision: on which inputs it was made, what came true, and what was done, with its quantity."""

    private: Private
    outcome: str | float
    done: tuple[str, float | None]


def paid(live: Live, private: Private, outcome: str | float, done: tuple[str, float | None]) -> int | None:
    """Return what an action pays on a decision's inputs if this is the outcome, in millionths of the unit; None where nobody can tell."""
    return all_paid(live, [Word(private, outcome, done)])[0]


def all_paid(live: Live, words: Sequence[Word]) -> list[int | None]:
    """Return the same of each of many decisions, all of one model."""
    payoffs, names = live.model.policy.payoffs, live.model.needed
    reveals = {terms.name for terms in payoffs.actions if terms.reveals}
    options = {(o.action, o.quantity): i for i, o in enumerate(payoffs.options) if o.action in reveals}
    known = [i for i, word in enumerate(words) if word.done in options and names <= word.private.inputs.keys()]
    out: list[int | None] = [None] * len(words)
    for i, amount in zip(known, _amounts(live, [words[i] for i in known], options), strict=True):
        out[i] = amount
    return out


def _amounts(live: Live, words: Sequence[Word], options: Mapping[tuple[str, float | None], int]) -> list[int | None]:
    """Return what was paid: all at once, or, where a payoff has no value on some outcome, half by half until it alone is left."""
    if not words:
        return []
    names = live.model.needed or {""}  # a row without a value is one all the same
    raw = {name: [word.private.inputs.get(name) for word in words] for name in names}
    try:
        table = live.model.realised(raw, [word.outcome for word in words])
        return [micro(float(row[options[word.done]])) for row, word in zip(table, words, strict=True)]
    except DataError:
        if len(words) == 1:
            return [None]
        half = len(words) // 2
        return _amounts(live, words[:half], options) + _amounts(live, words[half:], options)


def model_of(history: History, rollouts: Rollouts) -> tuple[Live, bool]:
    """Return the model that decided, and True; the champion, and False, where its bundle is not here any more."""
    try:
        return rollouts.named(history.decided.model), True
    except Trouble:
        return rollouts.now.champion, False
