"""What comes back of decisions: outcomes, corrections to them, and overrides; each finds its decision, and is told what it paid.

Many come at once, and late. Every entry that is right is stored, and the answer tells of each; a repetition gets the first receipt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from makegood.contracts import Task
from makegood.data import values
from makegood.economics.payoff import canonical
from makegood.errors import CaseError, LedgerError, Problem, nearest
from makegood.ids import uuid7
from makegood.ledger.events import Event, Happened, Overridden, Receipt, encode, money, request_hash
from makegood.serving.calls import ID
from makegood.serving.history import EPOCH, US, History, Word, all_paid, iso, model_of
from makegood.serving.live import Live
from makegood.serving.problems import TITLES, Trouble

if TYPE_CHECKING:
    from makegood.ledger.store import Ledger
    from makegood.serving.rollout import Rollouts

MOST_ENTRIES = 1_000
"""In one request."""
_SKEW_US = 5_000_000  # that a client's clock may differ from ours
_WHEN = "a time such as 2024-02-29T12:00:00Z, or a date"
_LONGEST = {"source": 200, "why": 2_000, "by": 200}  # characters

_happened = msgspec.json.Decoder(Happened).decode
_overridden = msgspec.json.Decoder(Overridden).decode

# ------------------------------------------------------------------------------------------------------------------ checks


@dataclass
class _Entry:
    """One entry of a request on its way: what was sent, then its event or what is wrong with it, then what is answered."""

    sent: Any
    where: str
    problems: list[Problem] = field(default_factory=list)
    status: int = 422
    detail: str = ""
    event: Event | None = None
    history: History | None = None
    answer: dict[str, Any] | None = None
    now: int = 0  # the ledger's time when the decision was looked up

    @property
    def decision(self) -> str:
        """The id of the decision, "" where none was given."""
        named = self.sent.get("decision") if isinstance(self.sent, dict) else None
        return named if isinstance(named, str) else ""

    def wrong(self, name: str, got: Any, expected: str, mend: str) -> None:
        """Note a field that is wrong."""
        shown = got if isinstance(got, str) else json.dumps(got, ensure_ascii=False)
        self.problems.append(Problem(": ".join(filter(None, (self.where, name))), shown[:80], expected, mend))

    def refuse(self, status: int, detail: str) -> None:
        """Refuse the entry as a whole."""
        self.status, self.detail = status, detail

    @property
    def good(self) -> bool:
        """Whether nothing is wrong so far."""
        return not self.problems and not self.detail

    def text(self, name: str, *, needed: bool = False) -> str:
        """Return a text of the entry, "" where there is none."""
        value = self.sent.get(name)
        longest = _LONGEST[name]
        if value is None and not needed:
            return ""
        if not isinstance(value, str) or len(value) > longest or (needed and not value.strip()):
            self.wrong(name, value, f"a text of 1 to {longest} characters", "say it in words" if needed else "shorten it, or leave it out")
            return ""
        return value

    def when(self, name: str, decided_at: int) -> int:
        """Return a time of the entry, now where there is none; it lies between the decision and now. A date is that day's end."""
        value, now = self.sent.get(name), self.now
        if value is None:
            return now
        at = moment(value, now) if isinstance(value, str) else None
        if at is None:
            self.wrong(name, value, _WHEN, "write it in ISO 8601; without a zone it is UTC")
            return now
        if at > now + _SKEW_US:
            self.wrong(name, value, f"a time that has come; it is {iso(now)}", "send it when it is known")
        elif at < decided_at - _SKEW_US:
            self.wrong(name, value, f"a time after the decision, {iso(decided_at)}", "see which decision it belongs to")
        return max(at, decided_at)


def moment(text: str, now: int) -> int | None:
    """Return a time in microseconds since 1970, None where a text is none; a mere date is the end of that day, or `now` on that day.

    >>> moment("1970-01-02T01:00:00+01:00", 0), moment("1970-01-02", 10**15), moment("soon", 0)
    (86400000000, 172799999999, None)
    """
    try:
        at = datetime.fromisoformat(text)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
        us = (at - EPOCH) // US
    except (ValueError, OverflowError):
        return None
    if len(text) <= 10 and ":" not in text and "T" not in text:
        return us if us > now else min(us + 86_400_000_000 - 1, now)
    return us


def value_of(task: Task, cell: Any) -> str | float:
    """Return an outcome as the ledger holds it: a class by its exact name, or a number; raises `CaseError` where it is neither.

    `cell` comes of strict JSON, in which numbers are finite. A text must be a class's name to the letter; the number 1, or true, is the
    class whose name says that.
    """
    if task.kind == "number":
        if isinstance(cell, bool) or not isinstance(cell, int | float):
            number = values.number(cell) if isinstance(cell, str) else None
            mend = "send the number that came true" if number is None else f"write {number:.15g} without quotes"
            raise CaseError(Problem("", str(cell), "a finite number", mend))
        return float(cell)
    if isinstance(cell, str):
        if cell not in task.classes:
            mend = nearest(cell, task.classes) or "write it as the data do"
            raise CaseError(Problem("", cell, f"one of {', '.join(task.classes[:12])}{', …' if len(task.classes) > 12 else ''}", mend))
        return cell
    text = values.text_of(cell) if isinstance(cell, bool | int | float) else None
    if text is None:
        raise CaseError(Problem("", str(cell), f"one of {', '.join(task.classes[:12])}", "send what came true"))
    return canonical(text, task.classes, "")


# ------------------------------------------------------------------------------------------------------------------- kinds


@dataclass(frozen=True)
class Kind:
    """One route's matter: the fields that its entries have, and what makes an event's body of an entry."""

    name: str
    needed: tuple[str, ...]
    others: tuple[str, ...]
    body: Callable[[_Entry, History, Live], Happened | Overridden]
    answer: Callable[[Event, History, float], dict[str, Any]]


def _as_outcome(entry: _Entry, history: History, live: Live) -> Happened:
    """Return the body of an outcome, but for what it paid."""
    at = entry.when("known_at", history.stored.event.at)
    source = entry.text("source")
    value: str | float = ""
    try:
        value = value_of(live.model.task, entry.sent["outcome"])
    except CaseError as error:
        for problem in error.problems:
            entry.wrong("outcome", entry.sent["outcome"], problem.expected, problem.next)
    return Happened(value, at, source, None, history.decided.unit)


def _as_correction(entry: _Entry, history: History, live: Live) -> Happened:
    why = entry.text("why", needed=True)
    if not history.happened and entry.good:
        entry.refuse(422, f"The decision {entry.decision} has no outcome to correct: send it to /v1/outcomes")
    return msgspec.structs.replace(_as_outcome(entry, history, live), why=why)


def _as_override(entry: _Entry, history: History, live: Live) -> Overridden:
    action, quantity = entry.sent["action"], entry.sent.get("quantity")
    terms = {terms.name: terms for terms in live.model.policy.payoffs.actions}
    if not isinstance(action, str) or action not in terms:
        entry.wrong("action", action, f"one of {', '.join(terms)}", nearest(str(action), terms) or "name what was done")
    elif terms[action].quantity is None and quantity is not None:
        entry.wrong("quantity", quantity, f"nothing: {action} has none", "leave it out")
    elif terms[action].quantity is not None:
        grid = [option.quantity for option in terms[action].options]
        if isinstance(quantity, bool) or not isinstance(quantity, int | float) or quantity not in grid:
            low, high, step = terms[action].quantity or (0.0, 0.0, 0.0)
            entry.wrong("quantity", quantity, f"{low:g} to {high:g} in steps of {step:g}", "send the nearest of them")
    by, why, at = entry.text("by", needed=True), entry.text("why"), entry.when("at", history.stored.event.at)
    return Overridden(action if entry.good else "", by, at, why, float(quantity) if entry.good and quantity is not None else None)


def _of_outcome(event: Event, history: History, delay_s: float) -> dict[str, Any]:
    said = _happened(event.body)
    told: dict[str, Any] = {"id": event.id, "decision": event.about, "outcome": said.value, "known_at": iso(said.known_at)}
    told |= {"realised": None if said.realised is None else money(said.realised), "unit": said.unit}
    late = delay_s > 0 and said.known_at > history.stored.event.at + delay_s * 1e6
    return told | ({"late": True} if late else {}) | ({"why": said.why} if said.why else {})


def _of_override(event: Event, history: History, delay_s: float) -> dict[str, Any]:
    said = _overridden(event.body)
    told: dict[str, Any] = {"id": event.id, "decision": event.about, "action": said.action, "by": said.by, "at": iso(said.at)}
    return told | ({} if said.quantity is None else {"quantity": said.quantity}) | ({"why": said.why} if said.why else {})


OUTCOME = Kind("outcome", ("decision", "outcome"), ("known_at", "source", "id"), _as_outcome, _of_outcome)
CORRECTION = Kind("correction", ("decision", "outcome", "why"), ("known_at", "source", "id"), _as_correction, _of_outcome)
OVERRIDE = Kind("override", ("decision", "action", "by"), ("quantity", "why", "at", "id"), _as_override, _of_override)


# ------------------------------------------------------------------------------------------------------------------ record


@dataclass(frozen=True)
class Recorded:
    """What is answered: an HTTP status, JSON, and whether all of it was there before."""

    status: int
    body: bytes
    replayed: bool = False


def entries(found: Any) -> Sequence[Any]:
    """Return the entries of a request's JSON; raises `Trouble` where there are none, or too many."""
    sent = found if isinstance(found, list) else [found]
    if not sent:
        raise Trouble(422, "There is nothing in the array", [Problem("body", "an empty array", "at least one entry", "send the entries")])
    if len(sent) > MOST_ENTRIES:
        raise Trouble(413, f"{len(sent)} entries: at most {MOST_ENTRIES} in one request")
    return sent


def delay_s(rollouts: Rollouts) -> float:
    """Return the seconds after which the case expects outcomes, 0 where it does not say."""
    return float(rollouts.case.get("data", {}).get("outcome_delay", 0.0))


def record(kind: Kind, found: Any, ledger: Ledger, rollouts: Rollouts, *, id: str = "") -> Recorded:
    """Store the entries of a request, and return what is answered once they are durable; blocks meanwhile.

    `found` is the request's JSON, one object or an array; `id` that of its only entry, where that names none itself. Of an array
    every right entry is stored, whatever the others are. Raises `Trouble`: 404, 409 or 422 of a single entry, 503 without a ledger.
    """
    array = isinstance(found, list)
    work = [_Entry(sent, f"entry {i}" if array else "") for i, sent in enumerate(entries(found), 1)]
    for entry in work:
        _shaped(kind, entry)
    try:
        _placed(kind, work, ledger, rollouts, id)
        _written(kind, work, ledger, delay_s(rollouts))
    except LedgerError as error:
        raise Trouble(503, f"The ledger cannot be used: {error.problems[0].got or error.problems[0].where}", retry_after_s=5) from None
    if not array:
        only = work[0]
        if only.answer is None:
            raise Trouble(only.status, only.detail or f"This {kind.name} is not as it should be", only.problems)
        return Recorded(only.status, encode(only.answer), only.status == 200)
    told = [{"status": entry.status, **(entry.answer or _refused(kind, entry))} for entry in work]
    seen = {entry.status for entry in work}
    status = 201 if seen == {201} else 200 if seen <= {200, 201} else 207
    return Recorded(status, encode(told), seen == {200})


def _refused(kind: Kind, entry: _Entry) -> dict[str, Any]:
    told: dict[str, Any] = {"title": TITLES[entry.status], "detail": entry.detail or f"This {kind.name} is not as it should be"}
    if entry.decision:
        told["decision"] = entry.decision
    errors = [{"where": p.where, "got": p.got, "expected": p.expected, "next": p.next} for p in entry.problems]
    return told | ({"errors": errors} if errors else {})


def _shaped(kind: Kind, entry: _Entry) -> None:
    """Note what is wrong with an entry before anything is looked up."""
    sent = entry.sent
    if not isinstance(sent, dict):
        entry.wrong("", sent, f"an object with {', '.join(kind.needed)}", "give names with the values")
        return
    allowed = (*kind.needed, *kind.others)
    for name in kind.needed:
        if name not in sent:
            entry.wrong(name, "", f"a field {name}", nearest(name, [n for n in sent if n not in allowed]) or "add it")
    for name in sent:
        if name not in allowed:
            entry.wrong(name, sent[name], f"one of {', '.join(allowed)}", nearest(name, allowed) or "leave it out")
    for name in ("decision", "id"):
        value = sent.get(name)
        if name in sent and not (name == "id" and value is None) and not (isinstance(value, str) and ID.fullmatch(value)):
            entry.wrong(name, value, "1 to 100 characters of A-Z a-z 0-9 . _ : -", "send the id as it was answered")


def _placed(kind: Kind, work: Sequence[_Entry], ledger: Ledger, rollouts: Rollouts, id: str) -> None:
    """Find each entry's decision, and make its event, or note what is wrong; what was paid is reckoned for all of a model at once."""
    named = list({entry.decision: None for entry in work if entry.good})
    decisions = ledger.reader.events(named)
    archived = ledger.reader.archived([id for id in named if id not in decisions])
    said = ledger.reader.all_about(list(decisions))
    now = ledger.now_us()  # after all that was read: whoever comes later sees this as said in the knowledge of that
    bodies: list[tuple[_Entry, str, Happened | Overridden]] = []
    happened: dict[Live, list[int]] = {}
    models: dict[str, tuple[Live, bool]] = {}
    taken: dict[str, str] = {}  # decision → id of the outcome that this request brings
    for entry in work:
        if not entry.good:
            continue
        stored = decisions.get(entry.decision)
        if stored is None or stored.event.kind != "decision" or stored.event.case != rollouts.name:
            away = f": it was archived, in {archived[entry.decision]}" if entry.decision in archived else ""
            entry.refuse(404, f"There is no decision {entry.decision} here{away}")
            continue
        entry.history = history = History.of(stored, said.get(entry.decision, []))
        entry.now = now
        name = history.decided.model
        if name not in models:  # one that is not here is looked for on the disk
            models[name] = model_of(history, rollouts)
        live, own = models[name]
        body = kind.body(entry, history, live)
        chosen = entry.sent.get("id") or id or (f"outcome:{entry.decision}" if kind is OUTCOME else uuid7(1)[0])
        if kind is OUTCOME and entry.good:
            first = next((event.id for event, _ in history.happened if event.kind == "outcome"), taken.get(entry.decision, chosen))
            taken[entry.decision] = first
            if first != chosen:
                entry.refuse(409, _come(entry.decision))
        if entry.good:
            if isinstance(body, Happened) and own:  # a stand-in for the model that decided knows other payoffs
                happened.setdefault(live, []).append(len(bodies))
            bodies.append((entry, chosen, body))
    for live, at in happened.items():
        for i, realised in zip(at, all_paid(live, [_word(*bodies[i]) for i in at]), strict=True):
            entry, chosen, body = bodies[i]
            bodies[i] = entry, chosen, msgspec.structs.replace(body, realised=realised)
    for entry, chosen, body in bodies:
        unit = decisions[entry.decision].event.unit
        request = request_hash(kind.name.encode(), json.dumps(_said(entry, body)).encode())
        entry.event = Event(chosen, kind.name, rollouts.name, entry.decision, unit, now, request, encode(body))


def _word(entry: _Entry, _: str, body: Happened | Overridden) -> Word:
    history = entry.history
    assert history is not None, "an outcome has a decision"
    assert isinstance(body, Happened), "an override pays nothing of itself"
    return Word(history.private, body.value, history.done)


def _said(entry: _Entry, body: Happened | Overridden) -> Mapping[str, Any]:
    """Return what the client said, by which a repetition is told: 1 and "1" are one where they mean one class."""
    said = {name: value for name, value in sorted(entry.sent.items()) if name != "id" and value is not None}
    return said | ({"outcome": body.value} if isinstance(body, Happened) else {})


def _come(decision: str) -> str:
    return f"The decision {decision} has another outcome already: what was wrong with it goes to /v1/corrections"


def _written(kind: Kind, work: Sequence[_Entry], ledger: Ledger, delay_s: float) -> None:
    """Append the events, and note what is answered of each."""
    good = [(entry, entry.event) for entry in work if entry.event is not None]
    if not good:
        return
    for (entry, event), receipt in zip(good, ledger.append([event for _, event in good]), strict=True):
        _receive(kind, entry, event, receipt, delay_s)


def _receive(kind: Kind, entry: _Entry, event: Event, receipt: Receipt, delay_s: float) -> None:
    history = entry.history
    assert history is not None, "an event has a decision"
    if receipt.state == "conflict":
        first = receipt.first
        again = kind is OUTCOME and first is not None and first.event.about == event.about
        entry.refuse(409, _come(event.about) if again else f"The id {event.id} holds something else: send this under another")
        return
    kept = event if receipt.first is None else receipt.first.event
    entry.status = 201 if receipt.state == "new" else 200
    entry.answer = kind.answer(kept, history, delay_s)
