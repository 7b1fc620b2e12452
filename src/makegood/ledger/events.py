"""What the ledger holds: events, each with a body in JSON and, where people are concerned, a private part that can be erased.

Times are microseconds since 1970, UTC. Money is a whole number of millionths of its unit (`micro`): promises of a tenth of a cent
are common, and a sum of whole numbers has no rounding.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Literal, get_args

import msgspec

from makegood.errors import DataError, Problem

Kind = Literal["decision", "outcome", "correction", "override", "promotion", "erasure", "alarm"]
KINDS: tuple[str, ...] = get_args(Kind)

MICRO = 1_000_000
_LARGEST = (2**63 - 1) // MICRO


def micro(amount: float) -> int:
    """Return an amount of money in millionths of its unit, half to even of the shortest decimal that means this float.

    Raises `DataError` where it does not fit 64 bits or is no number.

    >>> micro(-0.016), micro(0.1 + 0.2), micro(2.5e-6)
    (-16000, 300000, 2)
    """
    if not abs(amount) <= _LARGEST:
        raise DataError(Problem("amount", f"{amount}", f"a number of at most {_LARGEST:.2g}", "declare payoffs in a larger unit"))
    return int((Decimal(repr(float(amount))) * MICRO).to_integral_value(ROUND_HALF_EVEN))


def money(amount: int) -> float:
    """Return a ledger's amount in units of money.

    >>> money(-16000)
    -0.016
    """
    return amount / MICRO


def now_us() -> int:
    """Return the time, in microseconds since 1970, UTC."""
    return time.time_ns() // 1000


# ------------------------------------------------------------------------------------------------------------------ bodies


class Shadow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What another model would have done on the same row; it was not acted on."""

    model: str
    action: str
    promise: int
    quantity: float | None = None


class Decided(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of a decision.

    `options` are what could be done on this row and `propensities` the chance of each (the action set and e(a|x)); `propensity` is
    that of what was done. `role` says which model decided: champion or canary. `promise` and `guaranteed` are in millionths of `unit`.
    """

    action: str
    promise: int
    unit: str
    propensity: float
    options: tuple[str, ...]
    propensities: tuple[float, ...]
    predictive: dict[str, Any]
    model: str
    model_hash: str
    case_hash: str
    quantity: float | None = None
    role: str = "champion"
    prediction_set: tuple[str, ...] | None = None
    guaranteed: int | None = None
    shadows: tuple[Shadow, ...] = ()
    inputs_mac: str = ""  # keyed hash of the inputs, where the case keeps no inputs
    forced: bool = False  # decided by a model whose verdict is refuse
    explored: int | None = None  # what it counts for against the budget of exploration, in millionths; None where nothing was tried


class Private(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The part of a decision that speaks of a person: its inputs, and the reasons and notes made of them."""

    inputs: dict[str, Any] = {}
    reasons: tuple[tuple[str, str, float], ...] = ()  # column, value as shown, money
    notes: tuple[str, ...] = ()


class Happened(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of an outcome, and of a correction to one.

    `value` is a class's name or a number; `known_at` when it became known; `realised` what the action paid, in millionths of `unit`,
    None where the action reveals no payoff or its inputs are gone; `why` is said of a correction.
    """

    value: str | float
    known_at: int
    source: str = ""
    realised: int | None = None
    unit: str = ""
    why: str = ""


class Overridden(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of an override: what was really done in place of the decided action, by whom and why."""

    action: str
    by: str
    at: int
    why: str = ""
    quantity: float | None = None


class Promoted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of a promotion, a change of what serves.

    `verb` is promote, rollback, canary, shadow or retire; `model` the bundle's name and `model_hash` its manifest's SHA-256; `share`
    the canary's. `forced` says that a model was let in whose verdict is refuse, or that has not shown that it earns more. `evidence`
    is what the change rests on, a test's figures by name. `explore` holds, where a canary is tried by chances of each row, what they
    are reckoned from (`monitoring.exploring.Exploration`); `holdback` the share of units that the champion before keeps for a while.
    """

    verb: str
    model: str
    model_hash: str
    by: str
    share: float | None = None
    why: str = ""
    forced: bool = False
    evidence: dict[str, str | int | float] = {}
    explore: dict[str, Any] | None = None
    holdback: float | None = None


class Erased(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of an erasure: whose private parts are gone, on whose word, and how many there were."""

    by: str
    decisions: int
    why: str = ""


class Alarmed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of an alarm: a test on a model's decisions whose evidence passed its limit.

    `test` is what was tested, such as promise, missing or rollback; `since` the time from which the change is reckoned, None where
    the test cannot tell; `ticks` how many steps of the test were taken; `by` who raised it.
    """

    test: str
    model: str
    model_hash: str
    evidence: float
    limit: float
    since: int | None
    ticks: int
    why: str
    by: str = "review"


Body = Decided | Happened | Overridden | Promoted | Erased | Alarmed
BODIES: dict[str, type[msgspec.Struct]] = {
    "decision": Decided,
    "outcome": Happened,
    "correction": Happened,
    "override": Overridden,
    "promotion": Promoted,
    "erasure": Erased,
    "alarm": Alarmed,
}

# ------------------------------------------------------------------------------------------------------------------ events


@dataclass(frozen=True, slots=True)
class Event:
    """What is to be written.

    `id` is unique in the ledger; `about` the decision that it concerns ("" for a decision itself, and for what concerns none);
    `unit` the pseudonym of the entity decided on ("" where nobody is); `request` the SHA-256 of what was asked, by which a repetition
    is told from another request under the same id; `private` is JSON that can be erased.
    """

    id: str
    kind: str
    case: str
    about: str
    unit: str
    at: int
    request: bytes
    body: bytes
    private: bytes | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """An event as it lies in the ledger, at `seq` (from 1) of its `partition`; `private` is None where there is none or it was erased.

    `commitment` is what the chain holds of the private part (b"" where there never was one).
    """

    event: Event
    partition: int
    seq: int
    commitment: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one submitted event.

    `state` is "new" (durable now), "same" (it was there already: `first` is what was stored then) or "conflict" (its id holds another
    request, `first`; nothing was written).
    """

    id: str
    state: Literal["new", "same", "conflict"]
    first: Stored | None = None


def request_hash(*parts: bytes) -> bytes:
    """Return the SHA-256 by which two requests are the same; parts are told apart by their lengths."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


encode = msgspec.json.Encoder().encode
"""Return a body as JSON bytes."""
