"""A house that is a service: a process of `makegood serve`, asked over HTTP, whose ledger is read for reviews.

`Served` reviews and changes a service that runs, live or not. `Replayed` also plays a tape to one that was begun with --replay: it tells
it the time, asks for decisions row by row and reports outcomes, all in steps of a day or less, each of which the ledger dates at its
beginning: so an outcome is as old in the ledger as it is in the tape.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from makegood import model as models
from makegood import reviewing
from makegood.case import Case
from makegood.client import Client, Outcome
from makegood.contracts import Floats
from makegood.errors import Problem, Refused, ServiceError
from makegood.ledger.reading import Reader
from makegood.loop.controller import Act
from makegood.loop.house import Retrained
from makegood.loop.retraining import Past, retrain
from makegood.loop.tape import Tape
from makegood.model import Model
from makegood.monitoring.review import Review
from makegood.serving.locate import Place
from makegood.stages import comparing, feedback, observe, pricing
from makegood.stages.facts import Facts, Standing
from makegood.stages.feedback import Told
from makegood.stages.observe import Log

DAY_US = 86_400_000_000
STEP_US = DAY_US
"""The longest time for which all that happens is dated at its beginning."""

BATCH, PATIENCE_S = 500, 60.0
_COMMAND = "import sys; from makegood.cli import main; sys.argv[0] = 'makegood'; main()"


@dataclass(frozen=True)
class About:
    """What a served house is made for: the case, its `history` with outcomes, and who answers for what is changed (`by`)."""

    case: Case
    history: pa.Table
    by: str = "loop"
    injected: str = ""


@dataclass
class Served:
    """A service at the end of a `client`, and the `place` of its ledger and its bundles."""

    place: Place
    client: Client
    about: About
    _models: dict[str, Model] = field(default_factory=dict)
    _since: dict[str, int | None] = field(default_factory=dict)

    def standing(self) -> Standing:
        """Return who decides, and who is on trial, as the ledger has it; raises `Refused` where nobody decides yet."""
        with closing(Reader.open(self.place.ledger)) as reader:
            standing = reviewing.stands(reader.promotions(self.place.case))
        if standing is None:
            mend = f"makegood serve {self.place.case}"
            raise Refused(Problem(f"case {self.place.case}", "no champion in the ledger", "a case that is served", mend))
        return standing

    def review(self, now: int, thorough: bool = False) -> Review:
        """Return what the decisions until now say: what a controller needs, or, `thorough`, all that there is to say."""
        log, standing = self.log(now), self.standing()
        with closing(Reader.open(self.place.ledger)) as reader:
            told = Told(reader.replayed, self.about.injected)
        return feedback.review(log, standing, self._models, now, told, thorough=thorough)

    def log(self, now: int) -> Log:
        """Return the decisions in the ledger as they were known at a time."""
        log = observe.load(self.place.ledger, self.place.case, now, self.place.service)
        folders = reviewing.bundles(self.place.workspace, self.place.case, self.place.bundle)
        standing = self.standing()
        for name in {standing.champion, *log.names, *(e.model for e in standing.entrants)}:
            if name not in self._models and name in folders:
                self._models[name] = models.load(folders[name])
        return pricing.repriced(log, self._models)

    def retrain(self, now: int, since: int | None) -> Retrained:
        """Make a model of the history and of what is known and due by now, in the workspace, where the service finds it."""
        champion = self.standing().champion
        past = Past(self.about.case, self.about.history, self.log(now), champion, self._since.get(champion))
        made, model = retrain(past, now, self.place.workspace.root)
        self._models[made.name], self._since[made.name] = model, made.since
        return made

    def act(self, act: Act, now: int) -> None:
        """Change what serves, over HTTP, or write an alarm into the ledger; raises `ServiceError` where the service refuses."""
        by = self.about.by
        why = act.why[:1000]
        match act.verb:
            case "shadow":
                self.client.shadow(act.model, by=by, why=why, force=self._refused(act.model))
            case "canary":
                self._canary(act, now, why)
            case "promote":
                self._evident(act)
                old = self.standing().champion
                self.client.promote(
                    act.model, by=by, why=why, force=self._refused(act.model), evidence=dict(act.evidence), holdback=act.share
                )
                if act.share is None:  # nothing is left to chance: it is scored in the shadow of the new one
                    self.client.shadow(old, by=by, why="guards the new champion", force=self._refused(old))
            case "rollback":
                self.client.rollback(act.model, by=by, why=why, evidence=dict(act.evidence))
            case "drop" | "release":
                self.client.retire(act.model, by=by, why=why)
            case "alarm":
                self._alarm(act)
            case "retrain":
                pass

    def _evident(self, act: Act) -> None:
        """Raise `Refused` without evidence: to force in a model whose verdict is refuse would do without it too."""
        found, limit = (float(act.evidence.get(name, np.nan)) for name in ("evidence", "limit"))
        if not found >= limit:
            raise Refused(Problem(act.model, f"evidence {found:.6g} of {limit:.6g}", "evidence that it earns more", "wait for its test"))

    def _canary(self, act: Act, now: int, why: str) -> None:
        """Try a model on its share of the units, or, where the case declares a budget, by the chances that this pays for."""
        if self.about.case.feedback.explore is None:
            self.client.canary(act.model, act.share, by=self.about.by, why=why)
            return
        try:
            explored = comparing.exploration(Facts(self.log(now), self._models, self.standing(), now), act.model)
        except Refused:  # the budget does not pay for the least chance: to be scored costs nothing
            explored = None
        if explored is None:
            self.client.shadow(act.model, by=self.about.by, why=why)
        else:
            self.client.canary(act.model, by=self.about.by, why=why, explore=explored.to_json())

    def _alarm(self, act: Act) -> None:
        said: dict[str, Any] = {
            "test": act.evidence["test"],
            "model": act.model,
            "evidence": min(float(act.evidence["evidence"]), 1e18),
            "limit": act.evidence["limit"],
            "ticks": int(act.evidence.get("ticks", 0)),
            "why": act.why[:1000],
            "by": self.about.by,
        }
        if act.since is not None:
            said["since"] = act.since
        self.client.alarm(said)

    def _refused(self, name: str) -> bool:
        return name in self._models and self._models[name].verdict == "refuse"


class Replayed(Served):
    """A tape that is played to a service which was begun with --replay."""

    def __init__(self, tape: Tape, place: Place, client: Client, about: About) -> None:
        super().__init__(place, client, about)
        self.tape = tape
        self.paid: Floats = np.zeros(len(tape))
        self._ids: list[str] = []
        self._reveals: list[bool] = []
        self._told = np.zeros(len(tape), dtype=np.bool_)
        self._step = step(tape.case)
        self._clock = 0
        self._order = np.argsort(tape.known_at, kind="stable")
        self._sent = 0  # of that order

    def decide(self, rows: slice) -> None:
        """Decide on rows of the tape, in order, each at its time; outcomes that come meanwhile are told as they come."""
        begin = rows.start
        while begin < rows.stop:
            now = self._floor(int(self.tape.at[begin]))
            end = min(int(np.searchsorted(self.tape.at, now + self._step)), rows.stop)
            self._tell(now)
            for start in range(begin, end, BATCH):
                self._decide(start, min(start + BATCH, end))
            begin = end

    def _decide(self, begin: int, end: int) -> None:
        dropped = [name for name in (self.tape.case.data.time,) if name in self.tape.rows.column_names]
        rows = self.tape.rows.slice(begin, end - begin).drop_columns(dropped).to_pylist()
        decided = self.client.decide([{k: v for k, v in row.items() if v is not None} for row in rows], id=f"row-{begin}")
        champion = self._model(decided[0].model)
        place = {(o.action, o.quantity): i for i, o in enumerate(champion.policy.payoffs.options)}
        shown = {terms.name: terms.reveals for terms in champion.policy.payoffs.actions}
        option = np.array([place[d.action, d.quantity] for d in decided])
        self.paid[begin:end] = champion.realised(self.tape.take(slice(begin, end)), self.tape.outcome[begin:end].tolist())[
            np.arange(end - begin), option
        ]
        self._ids += [d.id for d in decided]
        self._reveals += [shown[d.action] for d in decided]

    def tell(self, now: int) -> None:
        """Tell the service the time, and every outcome that is known by now and that what was done reveals."""
        for at in range(self._clock + self._step, self._floor(now) + 1, self._step):
            if self._sent < len(self._order) and self.tape.known_at[self._order[self._sent]] < at + self._step:
                self._tell(at)
        self._tell(self._floor(now))

    def _tell(self, now: int) -> None:
        """Set the clock, and tell what becomes known in the step that begins then, of what has been decided on."""
        if now > self._clock:
            self.client.clock(now)
            self._clock = now
        ready: list[Outcome] = []
        while self._sent < len(self._order):
            row = int(self._order[self._sent])
            if self.tape.known_at[row] >= now + self._step or row >= len(self._ids):
                break
            if self._reveals[row]:
                ready.append(Outcome(self._ids[row], _plain(self.tape.outcome[row]), id=f"outcome-{row}"))
            self._sent += 1
        for start in range(0, len(ready), BATCH):
            for receipt in self.client.outcomes(ready[start : start + BATCH]):
                if receipt.state == "refused":
                    raise ServiceError(*receipt.problems)

    def _floor(self, at: int) -> int:
        """Return the beginning of the step in which a time lies."""
        return at - (at - begins(self.tape)) % self._step

    def _model(self, name: str) -> Model:
        if name not in self._models:
            folders = reviewing.bundles(self.place.workspace, self.place.case, self.place.bundle)
            self._models[name] = models.load(folders[name])
        return self._models[name]


def begins(tape: Tape) -> int:
    """Return the time at which the replay of a tape begins: the midnight before its first row, from which its steps are counted."""
    return tape.start // DAY_US * DAY_US


def step(case: Case) -> int:
    """Return the length of the steps, in microseconds, in which a case is replayed: a day or less, a whole part of the delay."""
    delay = round(case.data.outcome_delay * 1e6)
    whole = min(round(case.feedback.review * 1e6), STEP_US)
    return whole if not delay else delay // max(-(-delay // whole), 1)


def _plain(outcome: Any) -> str | float:
    return outcome if isinstance(outcome, str) else outcome.item() if hasattr(outcome, "item") else outcome


@contextmanager
def replaying(place: Place, at: int, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Begin a service of a place's case as a replay from a time on, and yield its URL; it is stopped at the end.

    It is a process of its own on 127.0.0.1, on a port that was free. Raises `ServiceError` where it does not start.
    """
    from makegood.ledger.clock import iso

    named = str(place.bundle) if place.bundle else place.case
    words = ["serve", named, "--workspace", str(place.workspace.root), "--port", "0", "--json", "--replay", "--at", iso(at), "--force"]
    if place.replay is not None and place.replay.ledger:
        words += ["--ledger", place.replay.ledger]
    log = place.service / "replay.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, *words],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=None if environment is None else dict(environment),
        )
        assert process.stdout is not None, "it was asked for"
        try:
            said = process.stdout.readline()
            told = json.loads(said) if said.startswith("{") else {}
            if "url" not in told:
                process.wait(PATIENCE_S)
                tail = log.read_text(encoding="utf-8").strip().splitlines()[-1:] or [said]
                raise ServiceError(Problem("the service", tail[0][:300], "a replay that starts", f"see {log}"))
            yield str(told["url"])
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
