"""Which models serve: a pure fold of the ledger's promotions, and the bundles that it names, loaded and swapped in.

Every process that serves a case folds the same events, so that all of them agree without talking to each other. The fold is total: an
event that lost a race (a rollback of a model that is no longer the champion) changes nothing.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import msgspec

from makegood import bundle
from makegood.errors import BundleError, CaseError, Problem, Refused, nearest
from makegood.ids import uuid7
from makegood.ledger.events import Event, Promoted, Stored, encode, request_hash
from makegood.monitoring.exploring import Exploration
from makegood.serving.changes import Change
from makegood.serving.live import Live, bring
from makegood.serving.problems import Trouble
from makegood.serving.purse import alone

if TYPE_CHECKING:
    from makegood.ledger.store import Ledger
    from makegood.workspace import Workspace

VERBS = ("promote", "rollback", "canary", "shadow", "retire")
ANSWERED = ("promote", "canary")
"""For these a person answers where the case is one of high stakes."""
START = "start"
"""Who promoted a bundle that a service was started with."""
MOST_SHADOWS = 4
"""At once: each of them scores every row."""
MOST_HELD_BACK = 0.5
"""The largest share of the units that a champion keeps once another was promoted."""
CONFIDENCE = 0.95
"""Of a promotion, where the case does not say `feedback.promote.confidence`."""
LEAST_CHANCE = 0.02
"""Of a trial, where the case does not say `feedback.explore.least`."""
_FEWEST_DIGITS = 6  # of a name's short form
_KEPT = 2  # models that serve no longer and are still held, since outcomes of their decisions come in
_RETRY_S = 10.0  # after which a bundle that could not be loaded is tried again

# -------------------------------------------------------------------------------------------------------------------- fold


@dataclass(frozen=True, slots=True)
class Stand:
    """A champion by name, and the `event` that made it one; `forced` says that it was let in by force: see `Promoted`."""

    model: str
    forced: bool = False
    event: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """A canary by name, its share of the units, and the salt under which they draw.

    With `explored` it has no share: where it would do something else than the champion, each row has a chance of its own.
    """

    model: str
    share: float
    salt: str
    explored: Exploration | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What shall serve: `line` holds the champions, of which the last one decides and the others are what a rollback goes back to."""

    line: tuple[Stand, ...] = ()
    canary: Share | None = None
    shadows: tuple[str, ...] = ()

    @property
    def champion(self) -> str:
        """The champion's name, "" where nothing was promoted yet."""
        return self.line[-1].model if self.line else ""

    @property
    def forced(self) -> bool:
        """Whether the champion was forced in."""
        return bool(self.line) and self.line[-1].forced

    @property
    def names(self) -> tuple[str, ...]:
        """All the models that score rows."""
        return tuple(filter(None, (self.champion, self.canary.model if self.canary else "", *self.shadows)))

    def role(self, name: str) -> str:
        """Return champion, canary or shadow, "" for a model that does not serve."""
        if name == self.champion:
            return "champion"
        return "canary" if self.canary and self.canary.model == name else "shadow" if name in self.shadows else ""


def state(events: Iterable[Stored]) -> Wanted:
    """Return what shall serve after the promotions of one case, in their order."""
    wanted = Wanted()
    for stored in events:
        wanted = after(wanted, stored.event.id, msgspec.json.decode(stored.event.body, type=Promoted))
    return wanted


def after(wanted: Wanted, id: str, said: Promoted) -> Wanted:
    """Return what shall serve after one more promotion, whose event's id is the salt of a canary that it starts.

    A model has one role. A canary keeps its salt while its share changes: whoever it decided on stays with it as the share grows. The
    champion that is held back is a canary whose units draw anew: the draws on which the promotion rests would favour the new one.
    """
    line, canary, name = wanted.line, wanted.canary, said.model
    shadows = tuple(shadow for shadow in wanted.shadows if shadow != name)
    freed = None if canary is not None and canary.model == name else canary
    match said.verb:
        case "promote" if name == wanted.champion:
            return wanted
        case "promote":
            if said.holdback is not None and line:
                freed = Share(wanted.champion, said.holdback, id)
            return Wanted((*line, Stand(name, said.forced, id)), freed, shadows)
        case "rollback" if name == wanted.champion and len(line) > 1:
            return Wanted(line[:-1], None, tuple(shadow for shadow in shadows if shadow != line[-2].model))
        case "canary" if name != wanted.champion and (said.share is not None or said.explore is not None):
            salt = id if freed is canary or canary is None else canary.salt
            explored = None if said.explore is None else Exploration(**said.explore)
            return Wanted(line, Share(name, said.share or 0.0, salt, explored), shadows)
        case "shadow" if wanted.role(name) in ("", "canary"):
            return Wanted(line, freed, (*shadows, name))
        case "retire":
            return Wanted(line, freed, shadows)
    return wanted


# ------------------------------------------------------------------------------------------------------------------ loaded


@dataclass(frozen=True)
class Canary:
    """A loaded canary: it decides where what a unit draws under `salt` is below `share`, or below the row's chance by `explored`."""

    live: Live
    share: float
    salt: str
    explored: Exploration | None = None


@dataclass(frozen=True)
class Rollout:
    """The loaded models that serve, one moment's whole; requests in flight keep the one that they began with."""

    champion: Live
    canary: Canary | None = None
    shadows: tuple[Live, ...] = ()
    forced: bool = False


@dataclass(frozen=True)
class Known:
    """A bundle that was found: its name, `folder`, the manifest's SHA-256, verdict and time of making."""

    name: str
    folder: Path
    hash: str
    verdict: str
    created: str


class Rollouts:
    """The models of a case as its ledger has them; `now` is swapped whole, so that whoever reads it once has one rollout.

    `lacking` maps the name of each model that should serve and cannot be loaded here to why; meanwhile the champion before goes on.
    """

    def __init__(self, ledger: Ledger, workspace: Workspace, case: str, given: Path | None = None) -> None:
        self.name = case
        self.lacking: Mapping[str, str] = {}
        self._ledger, self._workspace, self._given = ledger, workspace, given
        self._lock = threading.RLock()
        self._found: dict[Path, tuple[tuple[int, int, int], Known]] = {}
        self._loaded: WeakValueDictionary[str, Live] = WeakValueDictionary()
        self._kept: dict[str, Live] = {}  # the last few that are asked for and do not serve, oldest first
        self._wanted = Wanted()
        self._seen = ""  # id of the last promotion that was folded
        self._retry_at = 0.0
        self.now: Rollout

    @classmethod
    def open(cls, ledger: Ledger, workspace: Workspace, case: str, given: Path | None = None, *, force: bool = False) -> Rollouts:
        """Return the models that the ledger wants, loaded.

        Where it has none of the case yet, `given` or the last run's bundle is promoted. So is a `given` bundle that never was the
        champion; one that was, and was replaced or rolled back, is not brought back by a mere restart. Raises `Refused` where nothing
        forces in a bundle to be promoted whose verdict is refuse, or that would take a champion's place without evidence,
        `BundleError` and `CaseError` where one cannot be loaded.
        """
        rollouts = cls(ledger, workspace, case, given)
        past = ledger.reader.promotions(case)
        promoted = {said.model for said in (msgspec.json.decode(p.event.body, type=Promoted) for p in past) if said.verb == "promote"}
        if given is not None or not promoted:
            live = rollouts._start(given or workspace.last(case) / "bundle", promoted, force)
            rollouts._keep(live)
        rollouts.follow()
        if rollouts.lacking.get(rollouts._wanted.champion):
            name = rollouts._wanted.champion
            mend = "bring its folder back, or start with a bundle that was never promoted"
            raise BundleError(Problem(name, rollouts.lacking[name], "the champion's bundle", mend))
        return rollouts

    def _start(self, folder: Path, promoted: set[str], force: bool) -> Live:
        """Return a bundle that a service is started with, promoted unless the ledger knows it as a champion."""
        live = bring(folder)
        if str(live.model.case["case"]) != self.name:
            raise CaseError(Problem(str(folder), str(live.model.case["case"]), f"a bundle of {self.name}", "give another"))
        if live.name not in promoted:
            refused = live.model.verdict == "refuse"
            if refused and not force:
                raise Refused(Problem(live.name, "verdict refuse", "a model that is worth deploying", "see its report, or give --force"))
            if promoted and not force:
                mend = f"start with {self.name}, let it be a shadow or a canary, and see `makegood review`; or give --force"
                raise Refused(Problem(live.name, "no evidence", "one that has shown that it earns more than the champion", mend))
            why = "the service was started with it by --force" if force and (refused or promoted) else ""
            said = Promoted("promote", live.name, live.hash, START, why=why, forced=refused or bool(promoted))
            self._append(f"{START}:{live.name}", said)  # workers that start at once write it once
        return live

    @property
    def case(self) -> Mapping[str, Any]:
        """The champion's case."""
        return self.now.champion.model.case

    @property
    def wanted(self) -> Wanted:
        """What shall serve, by name, as far as the ledger was read."""
        return self._wanted

    @property
    def newer(self) -> str:
        """The name of the newest bundle where it was made after the champion and never promoted, else ""."""
        with self._lock:
            known = max(self.models(), key=lambda k: k.created, default=None)
            past = {stand.model for stand in self._wanted.line}
            return known.name if known and known.created > self.now.champion.created and known.name not in past else ""

    # ------------------------------------------------------------------------------------------------------------- bundles

    def models(self) -> list[Known]:
        """Return the bundles of the case that lie in the workspace or were given, oldest first; what has no readable manifest is none."""
        with self._lock:
            return sorted({known.name: known for known in self._scanned()}.values(), key=lambda known: (known.created, known.name))

    def _scanned(self) -> Iterator[Known]:
        """Yield what is there; a manifest is read again only when its file is another."""
        for folder in (*self._workspace.bundles(self.name), *([] if self._given is None else [self._given])):
            path = folder / bundle.MANIFEST
            try:
                status = path.stat()
                mark = (status.st_mtime_ns, status.st_ino, status.st_size)
                if self._found.get(folder, (None,))[0] != mark:
                    data = path.read_bytes()
                    manifest = bundle.parse_manifest(data, str(path))
                    digest = bundle.sha256(data)
                    known = Known(f"{manifest.case}@{digest[:12]}", folder, digest, manifest.verdict, manifest.created)
                    self._found[folder] = mark, known
            except (OSError, BundleError):
                self._found.pop(folder, None)
                continue
            if self._found[folder][1].name.startswith(f"{self.name}@"):
                yield self._found[folder][1]

    def known(self, name: str) -> Known:
        """Return the bundle of a full name, of its 12 hexadecimal digits, or of 6 or more that only one has.

        Raises `Trouble`: 404 where there is none, 422 where the digits are too few or several have them.
        """
        case, at, digits = name.rpartition("@")
        models = self.models()
        if at and case != self.name:
            raise Trouble(422, f"{name} is a bundle of {case}: this service is of {self.name}")
        fits = [known for known in models if known.name.rpartition("@")[2].startswith(digits)]
        if not digits or not fits:
            names = [known.name for known in models]
            raise Trouble(404, f"There is no bundle {name}. {nearest(name, names) or 'GET /v1/models lists those that are here'}")
        if len(digits) < _FEWEST_DIGITS or len(fits) > 1:
            raise Trouble(422, f"{name} could be {', '.join(known.name for known in fits[:5])}: give the whole name")
        return fits[0]

    def identified(self, name: str) -> tuple[str, str]:
        """Return the name and the manifest's SHA-256 of a model that is here, or that served once; raises `Trouble` as `known` does."""
        past = (msgspec.json.decode(p.event.body, type=Promoted) for p in self._ledger.reader.promotions(self.name))
        hash = next((said.model_hash for said in past if said.model == name), None)
        if hash is not None:
            return name, hash
        known = self.known(name)
        return known.name, known.hash

    def named(self, name: str) -> Live:
        """Return a bundle, loaded now if it is not; raises `Trouble` where there is none (404) or it is not as it was made (422)."""
        live = self._loaded.get(name)
        if live is None:
            with self._lock:
                known = self.known(name)
                live = self._loaded.get(known.name)
                if live is None:
                    live = self._brought(known)
        if live.name not in self._wanted.names:
            self._keep(live)
        return live

    def _brought(self, known: Known) -> Live:
        try:
            live = bring(known.folder)
        except BundleError as error:
            problems = [replace(p, where=p.where.replace(str(known.folder), known.name)) for p in error.problems]
            raise Trouble(422, f"{known.name} takes no traffic: it is not as it was made", problems) from None
        if live.name != known.name:
            raise Trouble(422, f"{known.name} is another bundle by now: {live.name}")
        self._loaded[live.name] = live
        return live

    def _keep(self, live: Live) -> None:
        """Hold a model that does not serve, and let go of the one that was asked for longest ago."""
        with self._lock:
            self._loaded[live.name] = live
            self._kept.pop(live.name, None)
            self._kept[live.name] = live
            while len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]

    # -------------------------------------------------------------------------------------------------------------- change

    def change(self, change: Change) -> Stored | None:
        """Write a change of what serves, and make it here; return its event, None where there was nothing to change.

        It is loaded first, and refused (`Trouble` 422) if it is not as it was made, or lacks the evidence that it needs. `by` is a person
        where a case of high stakes changes who decides. Other processes follow within a second.
        """
        with self._lock:
            self.follow()
            goes = change.verb in ("rollback", "retire")
            name = self._roled(change.model) if goes else self.known(change.model).name
            problems = list(self._objections(change, name))
            live = None if problems or goes else self.named(name)
            refused = live is not None and live.model.verdict == "refuse"
            if refused and not change.force:
                mend = "send force: true, which the ledger keeps, or choose another"
                problems.append(Problem("force", "false", f"true, since the verdict on {name} is refuse", mend))
            if problems:
                raise Trouble(422, f"{name} cannot be changed like that", problems)
            said = Promoted(
                change.verb,
                name,
                self._hash(name),
                change.by,
                change.share,
                change.why,
                forced=change.force and (refused or (change.verb == "promote" and bool(self._unproven(change)))),
                evidence={fact: x if isinstance(x, str | int) else float(x) for fact, x in change.evidence.items()},  # NumPy's are no JSON
                explore=None if change.explore is None else change.explore.to_json(),
                holdback=change.holdback,
            )
            id = uuid7(1)[0]
            if after(self._wanted, id, said) == self._wanted:
                return None
            self._append(id, said)
            self.follow()
            return self._ledger.reader.event(id)

    def _roled(self, model: str) -> str:
        """Return the full name of a model that serves, or was meant to, whether or not its bundle is still here."""
        digits = model.rpartition("@")[2]
        fits = [name for name in self._wanted.names if name == model or (len(digits) >= _FEWEST_DIGITS and name.endswith(digits))]
        return fits[0] if fits else self.known(model).name

    def _hash(self, name: str) -> str:
        """Return the SHA-256 of a model's manifest: of the bundle, or as the ledger has it where the bundle is gone."""
        live = self._loaded.get(name)
        return self.identified(name)[1] if live is None else live.hash

    def _objections(self, change: Change, name: str) -> Iterator[Problem]:
        verb, role, wanted = change.verb, self._wanted.role(name), self._wanted
        if verb in ANSWERED and self._grave and change.by.strip().casefold() in ("", START):
            yield Problem("by", change.by, "a person's name, since the case is one of high stakes", "say who answers for it")
        if verb == "canary":
            yield from self._tried(change)
            if role == "champion":
                yield Problem("model", name, "a model other than the champion", "name a challenger")
        elif change.share is not None or change.explore is not None:
            yield Problem("share" if change.explore is None else "explore", "", f"a canary, not a {verb}", "leave it out")
        if verb == "promote" and role != "champion":
            yield from self._lacking(change)
        if change.holdback is not None:
            yield from self._held_back(change, role)
        if verb == "shadow" and role == "champion":
            yield Problem("model", name, "a model other than the champion", "name another")
        if verb == "shadow" and role != "shadow" and len(wanted.shadows) >= MOST_SHADOWS:
            yield Problem("model", name, f"at most {MOST_SHADOWS} shadows", f"retire one of {', '.join(wanted.shadows)}")
        if verb == "rollback" and role != "champion":
            yield Problem("model", name, f"the champion, {wanted.champion}: it is what is rolled back", "name it")
        if verb == "rollback" and len(wanted.line) < 2:
            yield Problem("model", name, "a champion before this one", "promote another")
        if verb == "rollback" and not change.why.strip() and not change.reached:
            yield Problem("why", change.why, "why, or evidence that has come to its limit", "say why: the ledger keeps it")
        if verb == "retire" and role == "champion":
            yield Problem("model", name, "a canary or a shadow; this is the champion", "promote another, or roll it back")
        if verb == "retire" and not role:
            yield Problem("model", name, f"a model that serves: {', '.join(wanted.names)}", "name one of them")

    @property
    def _grave(self) -> bool:
        return bool(self.case.get("decision", {}).get("high_stakes"))

    @property
    def _feedback(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.case.get("feedback", {})
        return found

    def _unproven(self, change: Change) -> list[Problem]:
        confidence = float(self._feedback.get("promote", {}).get("confidence", CONFIDENCE))
        return list(change.lacking(self._wanted.champion, confidence))

    def _lacking(self, change: Change) -> Iterator[Problem]:
        """Yield what a promotion lacks: evidence, or a word on why it is forced."""
        if not change.force:
            yield from self._unproven(change)
        elif not change.why.strip():
            yield Problem("why", change.why, "why it is forced", "say it: the ledger keeps it")

    def _held_back(self, change: Change, role: str) -> Iterator[Problem]:
        if change.verb != "promote" or role == "champion":
            yield Problem("holdback", f"{change.holdback:g}", "the promotion of another model than the champion", "leave it out")
        elif not 0.0 < (change.holdback or 0.0) <= MOST_HELD_BACK:
            yield Problem("holdback", f"{change.holdback:g}", f"a share above 0 and of at most {MOST_HELD_BACK:g}", "such as 0.1")

    def _tried(self, change: Change) -> Iterator[Problem]:
        """Yield what is wrong with how a canary is to be tried: on a share of the units, or by exploration, which the case declares."""
        share, explore, declared = change.share, change.explore, self._feedback.get("explore")
        if explore is None:
            if share is None or not (math.isfinite(share) and 0.0 < share < 1.0):
                yield Problem("share", "" if share is None else f"{share:g}", "a number between 0 and 1", "such as 0.05")
        elif share is not None:
            yield Problem("share", f"{share:g}", "no share beside explore: each row has a chance of its own", "leave one of them out")
        elif self._grave:
            yield Problem("explore", "", "a share: nothing is explored where the stakes are high", "send a share, or let it be a shadow")
        elif not declared:
            yield Problem("explore", "", "a case that declares feedback.explore", "declare its budget in the case, or send a share")
        elif not alone(self._ledger):
            expected = "a ledger that one process alone writes: several could spend the budget twice"
            yield Problem("explore", "a PostgreSQL ledger", expected, "send a share, or serve from a SQLite ledger")
        else:
            (money, period_s), least = map(float, declared["budget"]), float(declared.get("least", LEAST_CHANCE))
            has = "as the case's feedback.explore has it"
            if explore.period_s != period_s:
                yield Problem("explore: period_s", f"{explore.period_s:g}", f"{period_s:g}, {has}", "review anew")
            if explore.budget > money:
                yield Problem("explore: budget", f"{explore.budget:g}", f"at most {money:g}, {has}", "review anew")
            if explore.least < least:
                yield Problem("explore: least", f"{explore.least:g}", f"at least {least:g}, {has}", "review anew")

    def _append(self, id: str, said: Promoted) -> None:
        body = encode(said)
        self._ledger.append([Event(id, "promotion", self.name, "", "", self._ledger.now_us(), request_hash(body), body)])

    # -------------------------------------------------------------------------------------------------------------- follow

    def follow(self) -> bool:
        """Read what the ledger wants, and swap it in; return whether anything was swapped. Cheap where nothing is new.

        A champion that cannot be loaded leaves everything as it is; a canary or a shadow that cannot is left out. `lacking` says so.
        """
        with self._lock:
            past: Sequence[Stored] = self._ledger.reader.promotions(self.name)
            last = past[-1].event.id if past else ""
            if last == self._seen and not (self.lacking and time.monotonic() >= self._retry_at):
                return False
            self._wanted, self._seen = state(past), last
            lacking: dict[str, str] = {}
            lives: dict[str, Live] = {}
            for name in self._wanted.names:
                try:
                    lives[name] = self.named(name)
                except Trouble as trouble:
                    lacking[name] = "; ".join([trouble.detail, *map(str, trouble.problems[:3])])
            self.lacking, self._retry_at = lacking, time.monotonic() + _RETRY_S
            if self._wanted.champion not in lives:
                return False
            champion, canary = lives[self._wanted.champion], self._wanted.canary
            explored = None if canary is None or canary.explored is None else _allowed(canary.explored, champion.model.case)
            self.now = Rollout(
                champion,
                Canary(lives[canary.model], canary.share, canary.salt, explored) if canary and canary.model in lives else None,
                tuple(lives[name] for name in self._wanted.shadows if name in lives),
                self._wanted.forced,
            )
            for name in self._wanted.names:
                self._kept.pop(name, None)
            return True


def _allowed(explored: Exploration, case: Mapping[str, Any]) -> Exploration:
    """Return an exploration with the budget that the case of the model that decides now allows; it may have begun under another."""
    declared = None if case.get("decision", {}).get("high_stakes") else case.get("feedback", {}).get("explore")
    money, period_s = map(float, declared["budget"]) if declared else (0.0, explored.period_s)
    return replace(explored, budget=min(explored.budget, money) if period_s == explored.period_s else 0.0)
