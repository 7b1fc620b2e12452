"""What the ledger says of a case's models: what was promoted and what alarmed, page by page; and an alarm that is told, taken in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from makegood.errors import DataError, Problem, nearest
from makegood.ids import uuid7
from makegood.ledger.clock import instant, iso
from makegood.ledger.events import Alarmed, Event, Promoted, Stored, encode, request_hash
from makegood.serving.calls import ID
from makegood.serving.changes import LONGEST, LONGEST_NAME
from makegood.serving.problems import Trouble

if TYPE_CHECKING:
    from makegood.ledger.store import Ledger
    from makegood.serving.rollout import Rollouts

PAGE, MOST_PAGE = 100, 1_000
"""Events of a page: where nothing is asked for, and the most."""
_NEEDED = ("test", "model", "evidence", "limit", "ticks", "why")
_FIELDS = (*_NEEDED, "model_hash", "since", "by", "id")
BY = "review"
"""Who tells an alarm that does not say it."""
_LARGEST = 2**63

# ---------------------------------------------------------------------------------------------------------------- listed

_promoted = msgspec.json.Decoder(Promoted).decode
_alarmed = msgspec.json.Decoder(Alarmed).decode


def promotion(stored: Stored) -> dict[str, Any]:
    """Return a promotion as it is told: all that the ledger holds of it."""
    return {"id": stored.event.id, "at": iso(stored.event.at)} | _full(_promoted(stored.event.body))


def alarm(stored: Stored) -> dict[str, Any]:
    """Return an alarm as it is told."""
    body = _alarmed(stored.event.body)
    since = None if body.since is None else iso(body.since)
    return {"id": stored.event.id, "at": iso(stored.event.at)} | _full(body) | {"since": since}


def _full(body: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(body, name) for name in body.__struct_fields__}


def page(name: str, found: Sequence[Stored], told: Callable[[Stored], dict[str, Any]], query: Mapping[str, str]) -> bytes:
    """Return some of the events, in their order, and the id after which the next page begins (null at the end); JSON.

    `query` may have `after`, an event's id, and `limit`. Raises `Trouble` (422) where they are not as they should be.
    """
    problems = [
        Problem(other, query[other][:80], "after or limit", nearest(other, ("after", "limit")) or "leave it out")
        for other in query
        if other not in ("after", "limit")
    ]
    said, after = query.get("limit", str(PAGE)), query.get("after")
    limit = int(said) if said.isascii() and said.isdigit() and len(said) < 6 else 0
    if not 1 <= limit <= MOST_PAGE:
        problems.append(Problem("limit", said[:80], f"a whole number from 1 to {MOST_PAGE}", "mend it, or leave it out"))
    ids = [stored.event.id for stored in found]
    if after is not None and after not in ids:
        problems.append(Problem("after", after[:80], "the id of an event of this list", "begin again without it"))
    if problems:
        raise Trouble(422, "The page cannot be found", problems)
    start = 0 if after is None else ids.index(after) + 1
    shown = found[start : start + limit]
    more = shown[-1].event.id if start + limit < len(found) else None
    return encode({name: list(map(told, shown)), "next": more})


# --------------------------------------------------------------------------------------------------------------- taken in


def raised(found: Any, ledger: Ledger, rollouts: Rollouts, id: str = "") -> tuple[int, bytes, str]:
    """Write an alarm; return the status (201, or 200 where it was there), what is answered, and the name of its test.

    `found` is the request's JSON, `id` the one that stands in its head. Raises `Trouble`: 404 for a model that nobody knows, 409 where
    the id holds something else, 422 for fields that are wrong.
    """
    if not isinstance(found, dict):
        expected = f"an object with {', '.join(_NEEDED)}"
        raise Trouble(422, "An alarm is an object", [Problem("body", type(found).__name__, expected, "send one")])
    said = {name: value for name, value in found.items() if value is not None}
    problems = list(_wrong(said))
    if problems:
        raise Trouble(422, "The alarm is not as it should be", problems)
    name, hash = rollouts.identified(said["model"])
    if said.get("model_hash", hash) != hash:
        wrong = Problem("model_hash", said["model_hash"][:80], f"{hash}, the manifest's SHA-256", "mend it, or leave it out")
        raise Trouble(422, "The alarm is not as it should be", [wrong])
    since = None if "since" not in said else instant(said["since"], "since")
    figures = float(said["evidence"]), float(said["limit"]), since, int(said["ticks"])
    body = encode(Alarmed(said["test"], name, hash, *figures, said["why"], said.get("by", BY)))
    event = Event(said.get("id") or id or uuid7(1)[0], "alarm", rollouts.name, "", "", ledger.now_us(), request_hash(body), body)
    receipt = ledger.append([event])[0]
    if receipt.state == "conflict":
        raise Trouble(409, f"The id {event.id} holds something else: send this alarm under another")
    kept = event if receipt.first is None else receipt.first.event
    return (201 if receipt.state == "new" else 200), encode(alarm(Stored(kept, 0, 0, b"", b""))), said["test"]


def _wrong(said: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with the fields of an alarm."""
    problems = [Problem(name, "", f"a field {name}", "add it") for name in _NEEDED if name not in said]
    for name, value in said.items():
        if name not in _FIELDS:
            mend = nearest(name, _FIELDS) or "leave it out"
            problems.append(Problem(name[:80], str(value)[:80], f"one of {', '.join(_FIELDS)}", mend))
            continue
        right, expected = _right(name, value)
        if not right:
            problems.append(Problem(name, str(value)[:80], expected, "mend it" if name in _NEEDED else "mend it, or leave it out"))
    return problems


def _right(name: str, value: Any) -> tuple[bool, str]:
    """Return whether a field is as it should be, and how that is."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    text = isinstance(value, str)
    match name:
        case "evidence" | "limit":
            return number and 0.0 <= value < _LARGEST, "a finite number of at least 0"
        case "ticks":
            return number and 0 <= value < _LARGEST and value == int(value), "a whole number of at least 0"
        case "since":
            return _instant(value), "a time such as 2024-02-29T12:00:00Z, or microseconds since 1970"
        case "id":
            return text and ID.fullmatch(value) is not None, "1 to 100 characters of A-Z a-z 0-9 . _ : -"
        case "test":
            plain = text and value.isascii() and value.replace("-", "").replace("_", "").isalnum() and value == value.lower()
            return plain and len(value) <= LONGEST_NAME, f"1 to {LONGEST_NAME} of a-z 0-9 _ -, such as promise, missing or rollback"
    return text and bool(value.strip()) and len(value) <= LONGEST, f"a text of 1 to {LONGEST:,} characters"


def _instant(value: Any) -> bool:
    try:
        instant(value)
    except DataError:
        return False
    return True
