"""A decision, what came back of it since, and what it paid."""

from __future__ import annotations

from collections.abc import Sequence
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


def paid(live: Live, private: Private, outcome: str | float, done: tuple[str, float | None]) -> int | None:
    """Return what an action pays on a decision's inputs if this is the outcome, in millionths of the unit; None where nobody can tell."""
    payoffs = live.model.policy.payoffs
    options = [(option.action, option.quantity) for option in payoffs.options]
    reveals = {terms.name: terms.reveals for terms in payoffs.actions}
    if done not in options or not reveals[done[0]]:
        return None
    if not live.model.policy.names <= private.inputs.keys():
        return None
    raw = {name: [cell] for name, cell in private.inputs.items()} or {"": [None]}  # a row without a value is one all the same
    try:
        return micro(float(live.model.realised(raw, [outcome])[0, options.index(done)]))
    except DataError:  # the payoff has no value on this outcome
        return None


def model_of(history: History, rollouts: Rollouts) -> tuple[Live, bool]:
    """Return the model that decided, and True; the champion, and False, where its bundle is not here any more."""
    try:
        return rollouts.named(history.decided.model), True
    except Trouble:
        return rollouts.now.champion, False
