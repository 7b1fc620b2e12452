"""What the models of a rollout make of rows: for each row one event for the ledger, and the answer that may be sent once it is there.

The champion decides, or the canary where a hash of the row's unit is below its share; then both score the row, since the chance of
each action must be known exactly. A canary that is explored decides only where it would do something else, with a chance that is the
row's own and within what may be spent. Every other model is a shadow: scored, logged, never acted on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from makegood.contracts import Floats, Probabilities
from makegood.data import images
from makegood.data.transform import Note
from makegood.errors import DataError, MakegoodError
from makegood.ledger.events import MICRO, Decided, Event, Shadow, encode, micro, money
from makegood.monitoring import exploring
from makegood.serving.answers import answer
from makegood.serving.live import Live
from makegood.serving.rows import Reader, ignored

if TYPE_CHECKING:
    from makegood.monitoring.exploring import Exploration
    from makegood.serving.rollout import Canary, Rollout

MOST_OPTIONS = 64
"""That a decision's event lists; of a finer grid of quantities it lists those alone that could come about."""
_UNREAD = frozenset({"wrong", *(f"image {name}" for name in images.UNREAD if name != "missing")})
_FAILURES = (ArithmeticError, AssertionError, LookupError, MakegoodError, MemoryError, RuntimeError, TypeError, ValueError)
"""What a model can raise that has never decided in earnest."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row to decide on, at `at` (microseconds since 1970, UTC).

    `unit` is the pseudonym of whom it is about, `request` tells a repetition, `ignored` are unknown fields.
    """

    id: str
    values: msgspec.Struct
    unit: str
    request: bytes
    at: int
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """A decision that counts once its event is committed; then `answer` is sent. `promise` is money, in `unit`.

    `explored` is what it counts for against the budget of exploration, in millionths; None where nothing was tried.
    """

    event: Event
    answer: bytes
    model: str
    action: str
    promise: float
    unit: str
    explored: int | None = None


def keyed(secret: bytes, what: bytes) -> bytes:
    """Return a keyed hash of 32 bytes (BLAKE2b, RFC 7693): it tells the same from another, and nothing to who has no secret."""
    return hashlib.blake2b(what, key=secret, digest_size=32).digest()  # unlike OpenSSL's HMAC it keeps the interpreter's lock


def decide(rollout: Rollout, reader: Reader, rows: Sequence[Row], secret: bytes, left: int = 0) -> list[Made]:
    """Return the decisions on rows, in their order; inputs that are not kept are hashed with `secret`.

    `left` is what exploration may still cost, in millionths. Raises `DataError` where a row cannot be decided: a payoff that is no
    number, a value that cannot be read.
    """
    canary = rollout.canary
    if canary is None:
        return _Group(rollout.champion, reader, rows, secret).made(rollout.shadows)
    draws = [drawn(canary.salt, row.unit or row.id) for row in rows]
    trial = None if canary.explored is None else _Trial.of(rollout.champion, canary, reader, rows, np.array(draws), left)
    chances = [canary.share] * len(rows) if trial is None else trial.chances
    hers = [draw < chance for draw, chance in zip(draws, chances, strict=True)]
    out: dict[int, Made] = {}
    for acting, other, role in ((rollout.champion, canary.live, "champion"), (canary.live, rollout.champion, "canary")):
        at = [i for i, drew in enumerate(hers) if drew is (role == "canary")]
        if at:
            own = [chances[i] if role == "canary" else 1.0 - chances[i] for i in at]
            group = _Group(acting, reader, [rows[i] for i in at], secret, role)
            costs = () if trial is None or role == "champion" else [trial.costs[i] for i in at]
            out |= zip(at, group.made(rollout.shadows, _Rival(other, own, costs)), strict=True)
    return [out[i] for i in range(len(rows))]


def drawn(salt: str, of: str) -> float:
    """Return the number in [0, 1) that a unit, or a decision, draws for good under a salt.

    >>> drawn("a", "x") == drawn("a", "x") != drawn("b", "x")
    True
    """
    return int.from_bytes(hashlib.sha256(f"{salt}{of}".encode()).digest()[:8], "big") / 2**64


class _Chosen:
    """What one model chose on rows, as lists of plain values."""

    def __init__(self, live: Live, reader: Reader, rows: Sequence[Row], reasons: int) -> None:
        raw = reader.raw(row.values for row in rows)
        seen = {name: raw[name] for name in live.model.transform.inputs if name in raw}
        self.raw = seen or {"": [None] * len(rows)}  # rows of a model without columns are rows all the same
        self.decided = decided = live.model.decide_columns(self.raw, reasons=reasons)
        self.option = decided.choices.option.tolist()
        self.action: list[str] = decided.action.tolist()
        self.quantity = [None if q != q else q for q in decided.quantity.tolist()]
        self.promise = list(map(micro, decided.promise.tolist()))
        self.names = [option.name for option in live.model.policy.payoffs.options]

    def predictive(self) -> list[dict[str, Any]]:
        """Return each row's prediction as it is reported, by class or by level."""
        found = self.decided.predictive
        names, values = (found.classes, found.p) if isinstance(found, Probabilities) else ([f"{x:g}" for x in found.levels], found.q)
        return [dict(zip(names, row, strict=True)) for row in values.tolist()]

    def sets(self) -> list[tuple[str, ...] | None]:
        """Return the classes in each row's prediction set."""
        found, sets = self.decided.predictive, self.decided.sets
        if sets is None or not isinstance(found, Probabilities):
            return [None] * len(self.action)
        return [tuple(name for name, held in zip(found.classes, row, strict=True) if held) for row in sets.tolist()]

    def guaranteed(self) -> list[int | None]:
        """Return the least that each row's action pays over its set, in millionths."""
        least = self.decided.choices.guaranteed
        return [None] * len(self.action) if least is None else list(map(micro, least.tolist()))

    def shadows(self) -> dict[int, Shadow]:
        """Return what would have been done on each row, had this model acted."""
        choices = zip(self.action, self.promise, self.quantity, strict=True)
        return {i: Shadow(self.decided.model, *choice) for i, choice in enumerate(choices)}


@dataclass(frozen=True, slots=True)
class _Trial:
    """With which chance the canary acts on each row, and what that counts for, in millionths: exploration on the rows where it differs."""

    chances: list[float]
    costs: list[int]

    @classmethod
    def of(cls, champion: Live, canary: Canary, reader: Reader, rows: Sequence[Row], draws: Floats, left: int) -> _Trial:
        """Return the trial of a canary that is explored, by what each row's unit drew, within what is `left`."""
        assert canary.explored is not None, "a canary that is explored"
        mine, theirs = _Chosen(champion, reader, rows, 0), _Chosen(canary.live, reader, rows, 0)
        chances, cost = _priced(canary.explored, mine, theirs)
        whole = np.where(np.isfinite(cost), np.ceil(cost * MICRO), np.inf)  # of whole numbers sums are exact
        chances = canary.explored.within(chances, whole, draws, float(left))
        return cls(chances.tolist(), [0 if np.isinf(c) else int(c) for c in whole.tolist()])


def _priced(explored: Exploration, mine: _Chosen, theirs: _Chosen) -> tuple[Floats, Floats]:
    """Return the chance of each row (n,) and its cost in money; 0 and infinite where one model does not know what the other would do."""
    place = {name: i for i, name in enumerate(theirs.names)}
    known = np.array([place.get(name, -1) for name in mine.names])  # the champion's options as the canary counts them
    where = {i: at for at, i in enumerate(known.tolist()) if i >= 0}
    own, others = np.array(mine.option), np.array([where.get(i, -1) for i in theirs.option])
    by_theirs = np.where(known >= 0, theirs.decided.expected[:, np.maximum(known, 0)], np.nan)
    loss = exploring.losses(own, others, mine.decided.expected, by_theirs)
    loss = np.where((others >= 0) & (known[own] >= 0), loss, np.inf)
    segments = {name: i for i, name in enumerate(explored.spread)}
    pairs = zip(mine.option, theirs.option, strict=True)
    named = [segments.get(exploring.pair(mine.names[a], theirs.names[b]), segments[""]) for a, b in pairs]
    chances = explored.chances(own, others, loss, np.array(named, dtype=np.int64))
    return np.where(np.isfinite(loss), chances, 0.0), explored.cost(loss)


@dataclass(frozen=True, slots=True)
class _Rival:
    """The model that would have acted otherwise; the `chances` of each row are those of the acting one, `costs` of what that tries."""

    live: Live
    chances: Sequence[float]
    costs: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows on which one model acts."""

    live: Live
    reader: Reader
    rows: Sequence[Row]
    secret: bytes
    role: str = "champion"

    def made(self, shadows: Iterable[Live], rival: _Rival | None = None) -> list[Made]:
        """Return the decisions."""
        live = self.live
        serve, case = live.model.case.get("serve", {}), str(live.model.case["case"])
        chosen = _Chosen(live, self.reader, self.rows, int(serve.get("reasons", 0)))
        hashed = serve.get("inputs") == "hash"
        notes = self._notes(chosen, hashed)
        other = None if rival is None else _Chosen(rival.live, self.reader, self.rows, 0)
        seen = [] if other is None else [other.shadows()]
        seen += [_tried(shadow, self.reader, self.rows) for shadow in shadows]
        odds = _Odds(chosen.names, [] if other is None else other.names)
        costs = rival.costs if rival is not None else ()
        predictive, sets, least = chosen.predictive(), chosen.sets(), chosen.guaranteed()
        unit = chosen.decided.unit
        forced = live.model.verdict == "refuse"
        out = []
        for i, row in enumerate(self.rows):
            name = chosen.names[chosen.option[i]]
            if other is None or rival is None:
                options, chances, propensity = odds.of(name, name, 1.0)
            else:
                options, chances, propensity = odds.of(name, other.names[other.option[i]], rival.chances[i])
            explored = costs[i] if costs else None
            inputs = self.reader.kept(row.values)
            body = Decided(
                action=chosen.action[i],
                promise=chosen.promise[i],
                unit=unit,
                propensity=propensity,
                options=options,
                propensities=chances,
                predictive=predictive[i],
                model=live.name,
                model_hash=live.hash,
                case_hash=live.case_hash,
                quantity=chosen.quantity[i],
                role=self.role,
                prediction_set=sets[i],
                guaranteed=least[i],
                shadows=tuple(choices[i] for choices in seen if i in choices),
                inputs_mac=keyed(self.secret, inputs).hex() if hashed else "",
                forced=forced,
                explored=explored,
            )
            reasons = tuple((reason.column, "" if hashed else reason.value, reason.money) for reason in chosen.decided.reasons[i])
            private = encode(_Private(inputs=msgspec.Raw(b"{}" if hashed else inputs), reasons=reasons, notes=notes[i]))
            event = Event(row.id, "decision", case, "", row.unit, row.at, row.request, encode(body), private)
            out.append(Made(event, answer(row.id, body, reasons, notes[i]), live.name, body.action, money(body.promise), unit, explored))
        return out

    def _notes(self, chosen: _Chosen, hashed: bool) -> list[tuple[str, ...]]:
        """Return the notes on each row as if it stood alone; `DataError` where they say that a value cannot be read."""
        found: list[tuple[str, ...]] = [ignored(row.ignored) if row.ignored else () for row in self.rows]
        by_row: dict[int, list[Note]] = {}
        for note in chosen.decided.notes:
            if note.kind in _UNREAD:
                raise DataError(self.reader.problem(note.column, chosen.raw[note.column][note.rows[0]]))
            for i in note.rows:
                by_row.setdefault(i, []).append(note)
        for i, notes in by_row.items():
            if any(len(note.rows) > 1 and note.kind not in _SAY_NO_VALUE for note in notes):  # the example is another row's
                notes = list(self.live.model.transform.read({name: cells[i : i + 1] for name, cells in chosen.raw.items()})[1])
            found[i] = (*(_said(note, hashed) for note in notes), *found[i])
        return found


_SAY_NO_VALUE = frozenset({"missing", *(f"image {name}" for name in images.TREATMENTS)})


def _said(note: Note, hashed: bool) -> str:
    return str(replace(note, rows=(0,), example="a value" if hashed else note.example))


class _Private(msgspec.Struct, omit_defaults=True, gc=False):
    """A `ledger.events.Private` whose inputs are JSON already."""

    inputs: msgspec.Raw
    reasons: tuple[tuple[str, str, float], ...] = ()
    notes: tuple[str, ...] = ()


class _Odds:
    """The chance of each option on a row: what the acting model does with its chance, what the other would have done with the rest."""

    def __init__(self, mine: Sequence[str], theirs: Sequence[str]) -> None:
        self.options = tuple(dict.fromkeys((*mine, *theirs)))
        self._known: dict[tuple[str, str, float], tuple[tuple[str, ...], tuple[float, ...], float]] = {}

    def of(self, mine: str, theirs: str, chance: float) -> tuple[tuple[str, ...], tuple[float, ...], float]:
        """Return the options, the chance of each, and that of the acting model's."""
        key = mine, theirs, chance
        if key not in self._known:
            options = self.options if len(self.options) <= MOST_OPTIONS else tuple(dict.fromkeys((mine, theirs)))
            propensity = 1.0 if mine == theirs else chance
            chances = tuple(propensity if name == mine else 1.0 - chance if name == theirs else 0.0 for name in options)
            self._known[key] = options, chances, propensity
        return self._known[key]


def _tried(live: Live, reader: Reader, rows: Sequence[Row]) -> dict[int, Shadow]:
    """Return what a shadow would have done on each row on which it can decide."""
    try:
        return _Chosen(live, reader, rows, 0).shadows()
    except _FAILURES:
        if len(rows) == 1:
            return {}
        return {i: shadow for i, row in enumerate(rows) for shadow in _tried(live, reader, [row]).values()}
