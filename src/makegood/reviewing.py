"""Reviews of a case as it is served: from the ledger and the bundles to a verdict, its page, and what follows of it.

`makegood review` reads the ledger beside a service that runs, and writes nothing into it but an alarm.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from makegood import bundle, model
from makegood.case import Case
from makegood.errors import BundleError, CaseError, Problem, Refused, nearest
from makegood.ledger import snapshot
from makegood.ledger.events import Alarmed, Event, Promoted, Stored, encode, now_us, request_hash
from makegood.ledger.reading import Reader
from makegood.ledger.store import Ledger
from makegood.monitoring.review import Challenge, Review
from makegood.report.review_page import render
from makegood.report.summary import review_json
from makegood.serving.changes import Change
from makegood.serving.locate import Place, Replay, locate
from makegood.serving.problems import Trouble
from makegood.serving.rollout import Rollouts, Wanted, after
from makegood.stages import feedback, observe, pricing
from makegood.stages.facts import Entrant, Standing, place
from makegood.workspace import Workspace, write, write_json

if TYPE_CHECKING:
    from makegood.client import Client

HERE = Path(".makegood")
_MOST = 1e18  # of evidence that is written down: beyond it no digit tells anything


@dataclass(frozen=True)
class Reviewed:
    """A review, and where its page lies."""

    review: Review
    page: Path

    def to_json(self) -> dict[str, Any]:
        """Return what `makegood review --json` prints."""
        return {**review_json(self.review), "report": str(self.page)}


def review(case: str, *, workspace: Path | str = HERE, ledger: str = "", now: int | None = None, injected: str = "") -> Reviewed:
    """Return the review of a case's decisions, with its page; `case` is a case file, a built-in name, a case that was run, or a bundle.

    `ledger` is the URL or the path of another ledger than the case's own, such as a replay's. `now` is in microseconds since 1970, UTC: by
    default the wall's time, or that of a replay's latest event. `injected` says what was done
    to replayed data. Raises `CaseError` where nothing was served yet, `LedgerError` where the ledger cannot be read, `Refused` where
    the champion's bundle is not in the workspace.
    """
    place = placed(case, workspace, ledger)
    found = of_ledger(place, now, injected)
    stamp = datetime.fromtimestamp(found.at / 1e6, UTC)
    folder = place.workspace.root / place.case / "reviews" / f"{stamp:%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "review.html"
    write(page, render(found))
    write_json(folder / "review.json", review_json(found))
    return Reviewed(found, page.resolve())


def placed(case: str, workspace: Path | str, ledger: str = "") -> Place:
    """Return the place of a case, with another ledger (its URL, or its file's path) where one is given; raises as `locate` does."""
    place = locate(case, Path(workspace))
    url = ledger if "://" in ledger or not ledger else snapshot.at_url(Path(ledger).resolve())
    return replace(place, replay=Replay(url)) if url else place


def of_ledger(place: Place, now: int | None = None, injected: str = "") -> Review:
    """Return the review of the decisions in a place's ledger; raises as `review` does."""
    ledger = place.ledger
    with _reading(place) as reader:
        standing = stands(reader.promotions(place.case))
        replayed = reader.replayed
        at = now if now is not None else (reader.latest() or 0) if replayed else now_us()
    if standing is None:
        raise CaseError(Problem(f"case {place.case}", "no champion in the ledger", "a case that is served", f"makegood serve {place.case}"))
    log = observe.load(ledger, place.case, at, place.service)
    folders = bundles(place.workspace, place.case, place.bundle)
    needed = {standing.champion, *log.names, *(e.model for e in standing.entrants)} | (
        {standing.before.model} if standing.before else set()
    )
    models = {name: model.load(folders[name]) for name in sorted(needed) if name in folders}
    if not len(log) and standing.champion in models:
        log = replace(log, unit=models[standing.champion].policy.payoffs.unit)
    return feedback.review(pricing.repriced(log, models), standing, models, at, feedback.Told(replayed, injected))


def bundles(workspace: Workspace, case: str, given: Path | None = None) -> dict[str, Path]:
    """Return where each bundle of a case lies, by the name that decisions bear; what has no readable manifest is none."""
    found = {}
    for folder in (*workspace.bundles(case), *([] if given is None else [given])):
        try:
            data = (folder / bundle.MANIFEST).read_bytes()
            found[f"{bundle.parse_manifest(data, str(folder)).case}@{bundle.sha256(data)[:12]}"] = folder
        except (OSError, BundleError):
            continue
    return found


def stands(promotions: Iterable[Stored]) -> Standing | None:
    """Return who stands where after the promotions of a case, in order; None where nothing was promoted yet."""
    wanted, since, decides, least, drawn = Wanted(), dict[tuple[str, bool], int](), 0, 0.5, 0
    tried: dict[str, int] = {}  # since when each that never was a champion has been on trial
    for stored in promotions:
        later = after(wanted, stored.event.id, msgspec.json.decode(stored.event.body, type=Promoted))
        decides = stored.event.at if later.champion != wanted.champion else decides
        if later.canary is not None:
            same = wanted.canary is not None and wanted.canary.model == later.canary.model
            explored = later.canary.explored
            share = later.canary.share if explored is None else explored.least
            least = min(least if same else 0.5, share, 1.0 - share)
            drawn = drawn if same else stored.event.at
        roles = [(name, name != later.champion) for name in later.names]  # by whether they are on trial, in whichever role
        since = {role: since.get(role, stored.event.at) for role in roles}
        line = {stand.model for stand in later.line}
        tried |= {name: stored.event.at for name in later.names if name not in line and name not in tried}
        wanted = later
    if not wanted.champion:
        return None
    places = {name: place(tried, name) for name in wanted.names if name in tried}
    entrants = [Entrant(name, since[name, True], place=places.get(name, 0)) for name in wanted.shadows]
    before = None
    if wanted.canary is not None:
        name = wanted.canary.model
        canary = Entrant(name, since[name, True], least, places.get(name, 0), drawn)
        if any(stand.model == canary.model for stand in wanted.line[:-1]):
            before = canary
        else:
            entrants.append(canary)
    return Standing(wanted.champion, decides, tuple(entrants), before)


# ------------------------------------------------------------------------------------------------------------ what follows


def record(found: Reviewed, case: str, *, workspace: Path | str = HERE, ledger: str = "", service: Client | None = None) -> int:
    """Write the alarms that a review raised and the ledger does not hold yet; return how many: one of each test, for each bundle.

    By the `service` where one is given, else by opening the ledger; raises `LedgerError` where another process writes it.
    """
    place, review_ = placed(case, workspace, ledger), found.review
    raised = [(test, a) for test, a in (("promise", review_.alarm), ("missing", review_.alarm.missing)) if a is not None and a.raised]
    if not raised:
        return 0
    with _reading(place) as reader:
        there = {(a.test, a.model) for a in (msgspec.json.decode(s.event.body, type=Alarmed) for s in reader.alarms(place.case))}
        past = [msgspec.json.decode(s.event.body, type=Promoted) for s in reader.promotions(place.case)]
        replayed = reader.replayed
    hash_of = next(said.model_hash for said in past if said.model == review_.model)
    new = [
        Alarmed(test, review_.model, hash_of, min(a.evidence, _MOST), a.limit, a.since, a.ticks, a.why)
        for test, a in raised
        if (test, review_.model) not in there
    ]
    if service is not None:
        for body in new:
            service.alarm(msgspec.to_builtins(body), id=_id(body))
    elif new:
        with Ledger.open(place.ledger, replayed=replayed) as writer:
            said = [(body, encode(body)) for body in new]
            at = writer.now_us()
            writer.append([Event(_id(b), "alarm", place.case, "", "", at, request_hash(data), data) for b, data in said])
    return len(new)


def _id(body: Alarmed) -> str:
    return f"alarm:{body.test}:{body.model.replace('@', ':')}"


@contextmanager
def _reading(place: Place) -> Iterator[Reader]:
    reader = Reader.open(place.ledger)
    try:
        yield reader
    finally:
        reader.close()


@dataclass(frozen=True)
class Asked:
    """What somebody says of a change: who, why, and whether it is forced in without evidence."""

    by: str = ""
    why: str = ""
    force: bool = False


_NOTHING = Asked()


def promote(
    case: str, name: str = "", asked: Asked = _NOTHING, *, workspace: Path | str = HERE, ledger: str = "", service: Client | None = None
) -> dict[str, Any]:
    """Make a challenger the champion, on the evidence of a review made now, and return what serves then.

    `name` is a bundle's, whole or a part of it; by default the one whose test says so. Raises `Refused` without evidence, unless forced
    with a reason that the ledger keeps: it says what is missing, and about how long it takes.
    """
    place = placed(case, workspace, ledger)
    found = of_ledger(place)
    challenge = _named(found, name)
    if challenge is None and not asked.force:
        known = ", ".join(c.model for c in found.challenges) or "none is on trial"
        mend = nearest(name, [c.model for c in found.challenges]) or "let it shadow the champion first, or give --force and --why"
        raise Refused(Problem("MODEL", name or "none", f"a bundle on trial: {known}", mend))
    if challenge is None and not name:
        raise CaseError(Problem("MODEL", "none", "a bundle's name, where no test speaks for one", "name it: makegood promote CASE MODEL"))
    if challenge is not None and challenge.decision != "promote" and not asked.force:
        raise Refused(Problem(challenge.model, challenge.decision, "evidence that it earns more", challenge.why))
    proof, holdback = {}, None
    if challenge is not None and challenge.decision == "promote":
        proof = challenge.rests_on(found.model)
        if challenge.design == "disagreement":
            holdback = _case(place, found.model).feedback.promote.holdback
    model_ = name if challenge is None else challenge.model
    return _changed(place, Change("promote", model_, asked.by, asked.why, None, asked.force, proof, None, holdback), service)


def rollback(case: str, asked: Asked, *, workspace: Path | str = HERE, ledger: str = "", service: Client | None = None) -> dict[str, Any]:
    """Bring the champion before back, and return what serves then; raises `Refused` where there is none, or nobody says why."""
    place = placed(case, workspace, ledger)
    with _reading(place) as reader:
        standing = stands(reader.promotions(place.case))
    if standing is None:
        raise CaseError(Problem(f"case {place.case}", "no champion in the ledger", "a case that is served", f"makegood serve {place.case}"))
    return _changed(place, Change("rollback", standing.champion, asked.by, asked.why), service)


def _named(found: Review, name: str) -> Challenge | None:
    """Return the challenge of a bundle by name or a part of it; without a name the one that is to be promoted, or the only one."""
    if not name:
        ready = [c for c in found.challenges if c.decision == "promote"] or list(found.challenges)
        return ready[0] if len(ready) == 1 else None
    fits = [c for c in found.challenges if name in (c.model, c.model.rpartition("@")[2]) or c.model.rpartition("@")[2].startswith(name)]
    return fits[0] if len(fits) == 1 else None


def _case(place: Place, name: str) -> Case:
    return Case.of(model.load(bundles(place.workspace, place.case, place.bundle)[name]).case)


def _changed(place: Place, change: Change, service: Client | None) -> dict[str, Any]:
    """Make a change, by the service where one is given, else in the ledger itself; return what serves then."""
    if service is not None:
        if change.verb == "rollback":
            return dict(service.rollback(change.model, by=change.by, why=change.why))
        return dict(
            service.promote(
                change.model, by=change.by, why=change.why, force=change.force, evidence=change.evidence, holdback=change.holdback
            )
        )
    with _reading(place) as reader:
        replayed = reader.replayed
    with Ledger.open(place.ledger, replayed=replayed) as writer:
        rollouts = Rollouts.open(writer, place.workspace, place.case)
        try:
            stored = rollouts.change(change)
        except Trouble as trouble:
            raise Refused(*trouble.problems or (Problem(change.model, trouble.detail, "a change that can be made"),)) from None
        return {"verb": change.verb, "changed": stored is not None, "champion": rollouts.wanted.champion}
