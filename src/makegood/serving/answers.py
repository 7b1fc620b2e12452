"""A decision as it is answered, and as it is answered again: both are made of what the ledger holds, so they are the same bytes."""

from __future__ import annotations

from typing import Any

import msgspec

from makegood.ledger.events import Decided, Private, Stored, money


class Why(msgspec.Struct, frozen=True, gc=False):
    """How much one column moved the action's margin, in money; `value` is "" where the case keeps no inputs."""

    column: str
    value: str
    money: float


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a client is told of a decision; money is in `unit`."""

    id: str
    action: str
    quantity: float | None = None
    promise: float
    unit: str
    propensity: float
    predictive: dict[str, Any]
    prediction_set: tuple[str, ...] | None = None
    guaranteed: float | None = None
    reasons: list[Why]
    notes: tuple[str, ...] = ()
    model: str


_encode = msgspec.json.Encoder().encode
_body = msgspec.json.Decoder(Decided).decode
_private = msgspec.json.Decoder(Private).decode


def answer(id: str, body: Decided, reasons: tuple[tuple[str, str, float], ...], notes: tuple[str, ...]) -> bytes:
    """Return the answer of a decision, JSON."""
    return _encode(
        Answer(
            id=id,
            action=body.action,
            quantity=body.quantity,
            promise=money(body.promise),
            unit=body.unit,
            propensity=body.propensity,
            predictive=body.predictive,
            prediction_set=body.prediction_set,
            guaranteed=None if body.guaranteed is None else money(body.guaranteed),
            reasons=[Why(*reason) for reason in reasons],
            notes=notes,
            model=body.model,
        )
    )


def again(stored: Stored) -> bytes:
    """Return the answer that was given when this decision was made; without reasons and notes where they were erased."""
    private = Private() if stored.event.private is None else _private(stored.event.private)
    return answer(stored.event.id, _body(stored.event.body), private.reasons, private.notes)
