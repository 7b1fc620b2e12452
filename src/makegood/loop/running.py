"""The closed loop of a case, from its table, or a stream with a known truth, to the page that says what it gained. Read this file first."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from makegood import model as models
from makegood import pipeline, reviewing
from makegood.case import Case
from makegood.client import Client
from makegood.data import sources
from makegood.errors import NotBuilt, Problem, Refused
from makegood.ledger.events import now_us
from makegood.loop import arms
from makegood.loop.controller import Act, Memory, Terms
from makegood.loop.house import Approve, Manner, Retrained, Turn, turn
from makegood.loop.inside import Inside
from makegood.loop.replay import Played, Progress, nobody, play, silent
from makegood.loop.served import About, Replayed, Served, begins, replaying
from makegood.loop.tape import DAILY, FIRST, Tape, of_table
from makegood.report.loop_page import render
from makegood.report.looped import Looping
from makegood.report.summary import loop_json
from makegood.serving.locate import Place, Replay, locate
from makegood.streams.injected import Timing
from makegood.workspace import Workspace, write

HERE = Path(".makegood")


@dataclass(frozen=True)
class Options:
    """How a loop is replayed.

    `served`: by a process that is asked over HTTP; else in this one, which is faster and keeps no ledger. `drift` is injected where the
    table has no time, `first` is the share of it that is the past, and `timing` how its rows are said to have come. `compare`: with the
    other arms, each of which trains models of its own. `approve` is asked where a person must be.
    """

    served: bool = True
    drift: str = "sudden"
    first: float = FIRST
    seed: int = 0
    timing: Timing = DAILY
    compare: bool = True
    approve: Approve = nobody


DEFAULT = Options()


@dataclass(frozen=True)
class Looped:
    """A finished loop, its page, every model that was made on the way, and what a person was asked and has not allowed."""

    looping: Looping
    page: Path
    trained: tuple[tuple[int, Retrained], ...]
    asked: tuple[Act, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what `makegood loop --json` prints."""
        asked = [{"verb": act.verb, "model": act.model, "why": act.why} for act in self.asked]
        return {**loop_json(self.looping, str(self.page)), "asked": asked}


def loop(
    case: Case,
    *,
    data: Any = None,
    workspace: Path | str = HERE,
    cache: Path | None = None,
    options: Options = DEFAULT,
    progress: Progress = silent,
) -> Looped:
    """Return the loop of a case on its own rows, replayed in the order of time.

    `data` is a table, or a file's path, in place of `data.source`; `cache` keeps what is fetched from an address. Raises `CaseError`,
    `DataError`, `NotBuilt`, and `Refused` where the first model is worth nothing.
    """
    table = past(case, data, cache)
    tape = of_table(case, table, drift=options.drift, first=options.first, seed=options.seed, timing=options.timing)
    return of_tape(tape, workspace=workspace, options=options, progress=progress)


def past(case: Case, data: Any = None, cache: Path | None = None) -> pa.Table:
    """Return the rows of a case as its source has them, or of `data` in its place; raises as `sources.read`, and `NotBuilt`."""
    given, folder = (case.data.source, case.folder) if data is None else (data, None)
    source = sources.read(given, folder=folder, path=case.data.path, sha256=case.data.sha256 if data is None else None, cache=cache)
    if case.data.path is not None:
        raise NotBuilt(Problem("loop", "paths to images", "tables, and images in arrays", "see ROADMAP.md"))
    return source.table


def of_tape(tape: Tape, *, workspace: Path | str = HERE, options: Options = DEFAULT, progress: Progress = silent) -> Looped:
    """Return the loop of a tape: a first model of its history, what acting on feedback makes of it, and the other arms beside.

    What it makes lies in a workspace of its own, in that of the case: nobody is to be served by a model of a replay.
    """
    folder, seconds, began = Workspace(Path(workspace) / tape.case.case).new_run("loops"), dict[str, float](), time.perf_counter()
    progress("the first model", 0.0)
    run = pipeline.run(tape.case, data=tape.history, workspace=folder)
    if run.bundle is None or run.evaluation is None or run.evaluation.verdict != "deploy":
        why = "" if run.evaluation is None else run.evaluation.why
        raise Refused(Problem("the first model", "verdict refuse", "one that is worth deploying, to begin with", why))
    seconds["first"] = time.perf_counter() - began
    manner = Manner(Terms.of(tape.case), options.approve, thorough=True)
    place = replace(locate(str(run.bundle), folder), replay=Replay(f"sqlite:///{(folder / 'replay.sqlite').resolve()}"))
    played, paid = _served(tape, place, manner, progress) if options.served else _inside(tape, place, manner, progress)
    mine = arms.Lived(paid, tuple((at, manner.terms.cost) for at, _ in played.trained))
    began = time.perf_counter()
    others: dict[str, arms.Lived] = {}
    if options.compare:
        first = models.load(run.bundle)
        for name, live in (("never", arms.never), ("scheduled", arms.scheduled), ("oracle", arms.oracle)):
            progress(f"the same decisions: {name}", 1.0)
            lived = live(tape, first)
            if lived is not None:
                others[name] = lived
    told = arms.looping(tape, mine, others, played)
    seconds |= played.seconds | ({"other arms": time.perf_counter() - began} if others else {})
    told = replace(told, seconds=seconds)
    page = folder / "loop.html"
    write(page, render(told))
    return Looped(told, page.resolve(), played.trained, played.asked)


def _served(tape: Tape, place: Place, manner: Manner, progress: Progress) -> tuple[Played, Any]:
    with replaying(place, begins(tape)) as url, Client(url, timeout_s=60.0) as client:
        house = Replayed(tape, place, client, About(tape.case, tape.history, injected=tape.injected))
        return play(tape, house, manner, progress), house.paid


def _inside(tape: Tape, place: Place, manner: Manner, progress: Progress) -> tuple[Played, Any]:
    house = Inside(tape, models.load(place.first), place.workspace.root)
    return play(tape, house, manner, progress), house.paid


# --------------------------------------------------------------------------------------------------------------------------- live


@dataclass(frozen=True)
class Live:
    """What the loop beside a running service needs: the client, the case and its history, who answers for changes, and who approves.

    `wait` is called with the seconds until the next review, and says whether to go on.
    """

    client: Client
    case: Case
    history: pa.Table
    wait: Callable[[float], bool]
    by: str = "loop"
    approve: Approve = nobody


def live(
    named: str, about: Live, *, workspace: Path | str = HERE, ledger: str = "", told: Callable[[Turn], None] = lambda turn: None
) -> Memory:
    """Review a running service every `feedback.review` and do what follows, until `about.wait` says that it is enough.

    Decisions and outcomes come from whoever asks the service. Returns what is remembered, after the last review. Raises `CaseError`
    where nothing is served, `LedgerError` where its ledger cannot be read, `ServiceError` where it refuses a change.
    """
    place = reviewing.placed(named, workspace, ledger)
    house = Served(place, about.client, About(about.case, about.history, about.by))
    manner, memory = Manner(Terms.of(about.case), about.approve, thorough=True), Memory()
    while True:
        done = turn(house, memory, manner, now_us())
        memory = done.memory
        told(done)
        if not about.wait(about.case.feedback.review):
            return memory
