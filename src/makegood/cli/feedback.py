"""What became of what was decided: review, promote, rollback, loop."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from makegood.cli.options import HERE, CaseArg, Json, Rows, Url, Workspace, cache, client, grouped
from makegood.cli.shown import Progress, print_json, say
from makegood.errors import CaseError, LedgerError, Problem

Served = Annotated[str, typer.Argument(metavar="CASE|BUNDLE", help="A case that is served, or a bundle's folder.")]


@dataclass(frozen=True)
class Where:
    """The options of where a case's decisions are, and by which service the ledger is written."""

    url: Url = ""
    ledger: Annotated[str, typer.Option(metavar="FILE|URL", help="Another ledger than the case's own, such as a replay's.")] = ""
    workspace: Workspace = HERE

    @property
    def there(self) -> dict[str, Any]:
        """What a function of `reviewing` is told."""
        return {"workspace": self.workspace, "ledger": self.ledger}

    def service(self) -> Any:
        """Return a client of the service, or a context of None."""
        return client(self.url) if self.url else nullcontext(None)


@dataclass(frozen=True)
class Who:
    """The options of who answers for a change."""

    by: Annotated[str, typer.Option(metavar="NAME", help="Who answers for it; a person where the stakes are high.")] = ""
    why: Annotated[str, typer.Option(metavar="TEXT", help="Why; the ledger keeps it.")] = ""


@grouped
def review(case: Served, where: Where, as_json: Json = False) -> None:
    """Tell what a case's decisions earned against what they promised, why that changed, and what to do.

    It reads the ledger, also beside a service that runs. An alarm goes into the ledger: through the service at --url, or, where none runs,
    by itself.
    """
    from makegood import reviewing
    from makegood.report.summary import review_text

    found = reviewing.review(case, **where.there)
    try:
        with where.service() as service:
            reviewing.record(found, case, **where.there, service=service)
    except LedgerError as error:
        print(f"note: the alarm is not in the ledger: {error}; give --url of the service that writes it", file=sys.stderr)
    if as_json:
        print_json(found.to_json())
        return
    say(review_text(found.review).rstrip())
    print(found.page)


@grouped
def promote(
    case: Served,
    where: Where,
    who: Who,
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="A bundle's name; default: the one whose test says so.")] = "",
    force: Annotated[bool, typer.Option(help="Promote without evidence; --why is kept with it.")] = False,
    as_json: Json = False,
) -> None:
    """Make a challenger the champion, on the evidence of a review made now; without evidence it is refused.

    Where a service runs, give its --url: it alone writes the ledger.
    """
    from makegood import reviewing

    with where.service() as service:
        told = reviewing.promote(case, model, reviewing.Asked(who.by, who.why, force), **where.there, service=service)
    _say(told, as_json)


@grouped
def rollback(case: Served, where: Where, who: Who, as_json: Json = False) -> None:
    """Bring back the champion before the one that decides now; say --why."""
    from makegood import reviewing

    with where.service() as service:
        told = reviewing.rollback(case, reviewing.Asked(who.by, who.why), **where.there, service=service)
    _say(told, as_json)


def _say(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(told)
    else:
        say(f"{told['champion']} decides{'' if told['changed'] else ', as before'}")


@dataclass(frozen=True)
class Replaying:
    """The options of a loop that is replayed."""

    drift: Annotated[
        str | None, typer.Option(help="What is injected where rows have no time: sudden, gradual, mix, outage or stable; default: sudden.")
    ] = None
    first: Annotated[float, typer.Option(help="The share of the rows that is the past, from which the first model is made.")] = 0.4
    budget: Annotated[str | None, typer.Option(help="Seconds for each training, such as 10s; overrides the case.")] = None
    seed: Annotated[int | None, typer.Option(help="Seed of the order, of splits and of training; overrides the case.")] = None
    data: Rows = None


@dataclass(frozen=True)
class Living:
    """The options of a loop beside a service that runs."""

    live: Annotated[bool, typer.Option("--live", help="Review and change a running service from now on, in place of a replay.")] = False
    url: Url = ""
    reviews: Annotated[int, typer.Option(min=0, help="Stop after so many reviews; 0: when it is told to.")] = 0
    by: Annotated[str, typer.Option(metavar="NAME", help="Who answers for changes; asked on the terminal where stakes are high.")] = ""


@grouped
def loop(case: CaseArg, replaying: Replaying, living: Living, workspace: Workspace = HERE, as_json: Json = False) -> None:
    """Close the loop: decide, await outcomes, review, retrain where it pays, and promote what the test says is better.

    A case is replayed on its own rows, as if live, by a service of its own; the money is compared with never retraining, with retraining by
    the calendar, and with an oracle. With --live and --url the same is done with a service that runs; --json then prints one object each.
    """
    if living.live != bool(living.url):
        got = "--url without --live" if living.url else "--live without --url"
        raise CaseError(Problem("makegood loop", got, "both, or neither", "a replay has a service of its own"))
    if living.live:
        _live(case, living, workspace, as_json=as_json)
        return
    from makegood import pipeline
    from makegood.loop import running
    from makegood.report.summary import loop_text

    changed = pipeline.override(case, budget=replaying.budget, seed=replaying.seed)
    if replaying.drift is not None and changed.data.time is not None:
        mend = "leave it out: what changes in them, changed then"
        raise CaseError(Problem("--drift", replaying.drift, "nothing where rows have a time, in whose order they are replayed", mend))
    drift = replaying.drift or running.DEFAULT.drift
    options = running.Options(drift=drift, first=replaying.first, seed=replaying.seed or 0, approve=_approve(living.by))
    with _told_to_end(), Progress(as_json) as progress:
        done = running.loop(changed, data=replaying.data, workspace=workspace, cache=cache(), options=options, progress=progress)
    if as_json:
        print_json(done.to_json())
        return
    say(loop_text(done.looping).rstrip())
    for act in done.asked:
        say(f"waits for a person: {act.verb} {act.model}: {act.why}")
    print(done.page)


@contextmanager
def _told_to_end() -> Iterator[None]:
    """Make of SIGTERM an orderly end, with which the service of a replay ends too."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _approve(by: str) -> Any:
    """Return who approves: whoever sits at the terminal, else nobody."""

    def ask(act: Any) -> bool:
        return bool(by) and sys.stdin.isatty() and typer.confirm(f"{act.verb} {act.model}? {act.why}", err=True)

    return ask


def _live(case: str, living: Living, workspace: Path, *, as_json: bool) -> None:
    from makegood import pipeline
    from makegood.loop import running
    from makegood.loop.tape import pictured

    loaded = pipeline.override(case)
    left = living.reviews or -1

    def wait(seconds: float) -> bool:
        nonlocal left
        left -= 1
        if left:
            time.sleep(seconds)
        return left != 0

    def told(turn: Any) -> None:
        found = turn.review
        say(f"{found.verdict}: {found.why}", as_json=as_json)
        for event in turn.events:
            say(f"  {event.kind}: {event.words}", as_json=as_json)
        for act in turn.asked:
            say(f"  waits for a person: {act.verb} {act.model}: {act.why}", as_json=as_json)
        if as_json:
            from makegood.report.summary import review_json

            print_json(review_json(found) | {"events": [event.kind for event in turn.events]})

    loaded, history = pictured(loaded, running.past(loaded, cache=cache()))
    with client(living.url) as service:
        about = running.Live(service, loaded, history, wait, living.by or "loop", _approve(living.by))
        running.live(case, about, workspace=workspace, told=told)
