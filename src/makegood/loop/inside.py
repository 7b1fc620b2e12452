"""A house in this process: bundles decide whole batches, and what they decided is kept as arrays, out of which the log is made.

It keeps the rules of the service: a canary decides on the units that draw below its share, both models score every row while there is
one, the logged chances are those by which was drawn, and a change is followed at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from makegood.contracts import Bools, Floats, Ints
from makegood.decided import came_true
from makegood.errors import CaseError, Problem
from makegood.loop.controller import Act
from makegood.loop.house import Retrained
from makegood.loop.retraining import Past, retrain
from makegood.loop.tape import Tape
from makegood.model import Model, Raw
from makegood.monitoring.maturity import NEVER
from makegood.monitoring.review import Review
from makegood.stages import feedback
from makegood.stages.facts import Entrant, Standing, place
from makegood.stages.feedback import Told
from makegood.stages.observe import Log, Shadowed


@dataclass(frozen=True)
class Canary:
    """The model, by name, that decides on a share of the units, and the salt under which they draw."""

    name: str
    share: float
    salt: int


def draws(unit: Ints, salt: int) -> Floats:
    """Return what each unit (n,) draws in [0, 1) under a salt: the same at each of its decisions (Steele, Lea & Flood 2014, §5).

    >>> drawn = draws(np.arange(100_000), salt=3)
    >>> bool((drawn == draws(np.arange(100_000), salt=3)).all()), round(float(drawn.mean()), 2)
    (True, 0.5)
    """
    shift = np.uint64(salt * 0x9E3779B97F4A7C15 % 2**64)
    x = (unit.astype(np.uint64) + shift) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(((x ^ (x >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53)


class Inside:
    """A tape's decisions in this process, beginning with a model; new ones are made in `workspace`, or without one kept nowhere.

    `plain` trains on all rows and looks for no change, as a schedule does. `paid` (n,) is what was done paid, whether or not anybody was
    told; `known_at` (n,) when the first word came to those who were.
    """

    def __init__(self, tape: Tape, first: Model, workspace: Path | None = None, *, plain: bool = False) -> None:
        n, options = len(tape), tuple(option.name for option in first.policy.payoffs.options)
        self.tape, self.workspace, self.plain = tape, workspace, plain
        self.models: dict[str, Model] = {first.id: first}
        self._options, self._n = options, 0
        self._model, self._decided, self._known_at = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), np.full(n, NEVER)
        self._canary_did = np.zeros(n, dtype=np.bool_)
        self._promise, self._outcome = np.zeros(n), np.full(n, np.nan)
        self._chances = np.zeros((n, len(options)))
        self._shadowed: dict[str, Shadowed] = {}
        self._standing = Standing(first.id, tape.start)
        self._line = [first.id]
        self._canary: Canary | None = None
        self._tried: dict[str, int] = {}
        self._salt = 0
        self._since: dict[str, int | None] = {first.id: None}  # from when on the rows were that each model learnt from
        self._codes = _codes(tape, first)
        self.paid = np.zeros(n)
        self._reveals = np.array([terms.reveals for terms in first.policy.payoffs.actions for _ in terms.options])

    # ---------------------------------------------------------------------------------------------------------------- deciding

    def decide(self, rows: slice) -> None:
        """Decide on rows of the tape, in order, each at its time."""
        raw, standing = self.tape.take(rows), self._standing
        names = list(self.models)
        champion = self._choices(standing.champion, raw)
        option, promise = champion.option.copy(), champion.promise.copy()
        chances = np.zeros((len(option), len(self._options)))
        place = np.arange(len(option))
        did = np.zeros(len(option), dtype=np.bool_)
        if self._canary is not None:
            canary = self._choices(self._canary.name, raw)
            did = draws(self.tape.units[rows], self._canary.salt) < self._canary.share
            option[did], promise[did] = canary.option[did], canary.promise[did]
            chances[place, champion.option] += 1.0 - self._canary.share
            chances[place, canary.option] += self._canary.share
            chances[champion.option == canary.option] = np.round(chances[champion.option == canary.option])  # 1, to the last bit
            self._keep(self._canary.name, rows, canary)
            self._keep(standing.champion, rows, champion)
        else:
            chances[place, option] = 1.0
        for entrant in (*standing.entrants, *([standing.before] if standing.before else [])):
            if entrant.least is None:
                self._keep(entrant.model, rows, self._choices(entrant.model, raw))
        self._decided[rows], self._promise[rows], self._chances[rows], self._canary_did[rows] = option, promise, chances, did
        self._model[rows] = np.where(did, names.index(self._canary.name) if self._canary else 0, names.index(standing.champion))
        pays = self.models[standing.champion].realised(raw, self.tape.outcome[rows].tolist())
        self.paid[rows] = pays[place, option]
        self._n = rows.stop

    def _choices(self, name: str, raw: Raw) -> Shadowed:
        choices = self.models[name].decide_columns(raw, reasons=0).choices
        return Shadowed(choices.option, choices.promise)

    def _keep(self, name: str, rows: slice, chosen: Shadowed) -> None:
        n = len(self.tape)
        kept = self._shadowed.setdefault(name, Shadowed(np.full(n, -1, dtype=np.int64), np.full(n, np.nan)))
        kept.option[rows], kept.promise[rows] = chosen.option, chosen.promise

    def tell(self, now: int) -> None:
        """Tell every outcome that is known by now, and that what was done reveals."""
        known = (self.tape.known_at[: self._n] <= now) & self._reveals[self._decided[: self._n]]
        rows = np.flatnonzero(known)
        self._known_at[rows] = self.tape.known_at[rows]
        self._outcome[rows] = self._codes[rows]

    @property
    def done(self) -> Ints:
        """What was done on each row so far (n,), as a position among the options."""
        return self._decided[: self._n]

    # ----------------------------------------------------------------------------------------------------------- looking back

    def log(self) -> Log:
        """Return the decisions so far, as a ledger would tell them."""
        n = self._n
        names = tuple(self.models)
        known: Bools = self._known_at[:n] < NEVER
        paid = np.where(known, self.paid[:n], np.nan)
        first = self.models[self._standing.champion]
        return Log(
            case=self.tape.case.case,
            unit=first.policy.payoffs.unit,
            options=self._options,
            names=names,
            classes=first.task.classes if first.task.kind == "classes" else (),
            at=self.tape.at[:n],
            entity=self.tape.units[:n],
            model=self._model[:n],
            canary=self._canary_did[:n],
            decided=self._decided[:n],
            done=self._decided[:n],
            promise=self._promise[:n],
            chances=self._chances[:n],
            known_at=self._known_at[:n],
            first=paid,
            paid=paid,
            outcome=self._outcome[:n],
            readable=np.ones(n, dtype=np.bool_),
            rows=self._rows,
            shadows={names.index(name): Shadowed(kept.option[:n], kept.promise[:n]) for name, kept in self._shadowed.items()},
        )

    def _rows(self, rows: Ints) -> Raw:
        return {name: np.asarray(values)[rows] for name, values in self.tape.raw.items()}

    def standing(self) -> Standing:
        """Return who decides, and who is on trial."""
        return self._standing

    def review(self, now: int, thorough: bool = False) -> Review:
        """Return what the decisions until now say: what a controller needs, or, `thorough`, all that there is to say."""
        said = Told(replayed=True, injected=self.tape.injected)
        return feedback.review(self.log(), self._standing, self.models, now, said, thorough=thorough)

    # --------------------------------------------------------------------------------------------------------------- changing

    def retrain(self, now: int, since: int | None) -> Retrained:
        """Make a model of the history and of what is known and due by now, and keep it beside the others."""
        champion = self._standing.champion
        past = Past(self.tape.case, self.tape.history, self.log(), champion, self._since[champion])
        made, model = retrain(past, now, self.workspace, plain=self.plain)
        self.models[model.id] = model
        self._since[model.id] = made.since
        return made

    def act(self, act: Act, now: int) -> None:
        """Do what changes who serves; an alarm is only told."""
        standing = self._standing
        others = tuple(e for e in standing.entrants if e.model != act.model)
        match act.verb:
            case "shadow":
                self._freed(act.model)
                entrant = Entrant(act.model, self._since_of(act.model, now), place=self._place(act.model, now))
                self._standing = Standing(standing.champion, standing.since, (*others, entrant), standing.before)
            case "canary":  # it takes the traffic of any other
                since, least = self._since_of(act.model, now), self._drawn(act.model, act.share or 0.5)
                entrant = Entrant(act.model, since, least, self._place(act.model, now), now)
                others = tuple(e for e in others if e.least is None)
                self._standing = Standing(standing.champion, standing.since, (*others, entrant), standing.before)
            case "promote":
                self._freed(act.model)
                self._line.append(act.model)
                if act.share:  # which takes the traffic of any other canary
                    before = Entrant(standing.champion, now, self._drawn(standing.champion, act.share), place=0)
                    self._standing = Standing(act.model, now, tuple(e for e in others if e.least is None), before)
                else:  # nothing is left to chance: it is scored in the shadow of the new one
                    self._standing = Standing(act.model, now, (*others, Entrant(standing.champion, now, place=0)))
            case "rollback":
                if len(self._line) < 2:
                    raise CaseError(Problem("rollback", act.model, "a champion before this one", "promote another"))
                self._line.pop()
                self._canary = None
                self._standing = Standing(self._line[-1], now)
            case "drop" | "release":
                self._freed(act.model)
                kept = None if standing.before is None or standing.before.model == act.model else standing.before
                self._standing = Standing(standing.champion, standing.since, others, kept)
            case "alarm" | "retrain":
                pass

    def _since_of(self, name: str, now: int) -> int:
        """Return since when a model has been on trial: from now on, unless it is."""
        return next((e.since for e in self._standing.entrants if e.model == name), now)

    def _drawn(self, name: str, share: float) -> float:
        """Let a model decide on a share of the units; return the least chance of either where the two differ."""
        self._salt += 1
        self._canary = Canary(name, share, self._salt)
        return min(share, 1.0 - share)

    def _place(self, name: str, now: int) -> int:
        """Return which challenger of its year a model is that is on trial from now on, or since it first was."""
        self._tried.setdefault(name, now)
        return place(self._tried, name)

    def _freed(self, name: str) -> None:
        if self._canary is not None and self._canary.name == name:
            self._canary = None


def _codes(tape: Tape, first: Model) -> Floats:
    """Return the outcomes (n,) as a log holds them: positions among the classes, or numbers."""
    return np.asarray(came_true(tape.outcome.tolist(), first.task), dtype=np.float64)
