"""Optimising a model that serves: variants of its bundle, on the inputs that it was given and by the outcomes that came.

What a bundle decided it did not learn from, so its own decisions are held-out rows. The bundle is left as it is: what is chosen becomes a
bundle of its own, a challenger that `makegood serve` and `makegood promote` take. Variants that need the models which the graph is the
average of, or rows to learn from, are refused by name: `makegood run` tries them where the case has `optimise:`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from makegood import bundle, pipeline, reviewing
from makegood import model as models
from makegood.case import Case, Optimise, duration_s
from makegood.contracts import Floats, Ints
from makegood.economics.variants import Optimised, Terms, Variant
from makegood.errors import CaseError, Problem, Refused
from makegood.families.smaller import CALIBRATED, Made, Recipe, Start, table
from makegood.golden import json_cell
from makegood.ledger.events import now_us
from makegood.model import Model, Raw
from makegood.stages import observe
from makegood.stages.measuring import measure
from makegood.stages.meter import DECISIONS
from makegood.stages.optimise import MEASURING, START, Search, judged, tried
from makegood.workspace import Workspace, write_json

COMPARED = 20_000
"""Decisions, the latest at most, on which values are compared."""

FEWEST = 50
"""Decisions below which nothing is compared."""

_POSSIBLE = 65  # numbers that an unknown outcome might have been
_SECOND = 1_000_000  # microseconds


@dataclass(frozen=True)
class Done:
    """What was found, and the new bundle's folder; None where the model that serves stays."""

    optimised: Optimised
    bundle: Path | None
    model: str

    def to_json(self) -> dict[str, Any]:
        """Return what `makegood optimise --json` prints."""
        return {**self.optimised.to_json(), "bundle": str(self.bundle) if self.bundle else None, "model": self.model}


def optimise(
    named: str,
    *,
    workspace: Path | str,
    budget: str | None = None,
    tolerance: float | None = None,
    ledger: str = "",
    now: int | None = None,
) -> Done:
    """Return what variants of a bundle came to on the ledger's decisions; `named` is a bundle's folder, or a case that was run.

    `ledger` is another ledger than the case's own, such as a replay's, and `now` microseconds since 1970, by default the wall's time.
    `budget` is a duration, and `tolerance` money per decision: by default those of the case, else of the run that made the bundle. Raises
    `CaseError` where no tolerance is declared or nothing was run, `Refused` where the bundle decided too little to compare anything.
    """
    began = time.perf_counter()
    place = reviewing.placed(named, workspace, ledger)
    model = models.load(place.first)
    terms, seconds = _terms(model, _declared(named), tolerance, budget)
    at = now_us() if now is None else now
    log = observe.load(place.ledger, place.case, at, place.service)
    mine = log.readable & (log.model == (log.names.index(model.id) if model.id in log.names else -1))
    ripe = np.flatnonzero(mine & (log.at <= at - round(float(model.case["data"].get("outcome_delay", 0.0)) * _SECOND)))[-COMPARED:]
    if len(ripe) < FEWEST:
        got = f"{len(ripe)} decisions of {model.id} whose inputs are kept and whose outcomes are due"
        mend = "serve it for longer, or try variants before it is deployed: `optimise:` in the case, and `makegood run`"
        raise Refused(Problem(f"case {place.case}", got, f"at least {FEWEST}", mend))
    raw = log.rows(ripe)
    known = ~np.isnan(log.outcome[ripe])
    outcome = [log.classes[int(c)] if log.classes else float(c) for c in log.outcome[ripe][known]]
    compared = _Compared(model, _taken(raw, model, np.arange(len(ripe))), known, outcome)
    search = Search(seconds, pipeline.prices(model.case.get("compute", {})), _served(raw, model), table())
    source = f"decisions of {model.id} in the ledger, {int(known.sum())} with a known outcome; {_load(log.at[mine])}"
    variants, why, made = _search(compared, search, terms, log.entity[ripe], began)
    done = Optimised(terms, variants, why, len(ripe), source, seconds, time.perf_counter() - began)
    if done.chosen is done.start:
        return Done(done, None, model.id)
    folder = Workspace(place.workspace.root, aside=True).new_run(place.case)
    write_json(folder / "optimise.json", {"made_from": {"bundle": model.id}, **done.to_json()})
    card = bundle.read(place.first).files["card.md"].decode()
    changed = replace(model, scorer=made[done.chosen.name].scorer, optimised=done.to_json())
    packed = models.pack(changed, folder / "bundle", rows=model.background, card=f"{card}\n## Variant\n\nMade of {model.id}: {why}.\n")
    return Done(done, (folder / "bundle").resolve(), packed.id)


def _declared(named: str) -> Optimise | None:
    """Return what a case file says today, where one is named."""
    path = Path(named)
    return Case.load(path).optimise if path.suffix in (".yaml", ".yml") and path.is_file() else None


def _terms(model: Model, declared: Optimise | None, tolerance: float | None, budget: str | None) -> tuple[Terms, float]:
    case = declared or Optimise.model_validate(model.case.get("optimise", {}))
    before: Mapping[str, Any] = (model.optimised or {}).get("terms", {})
    most = next((t for t in (tolerance, case.tolerance, before.get("tolerance")) if t is not None), None)
    if most is None or not most >= 0.0:
        got = "" if most is None else f"{most:g}"
        mend = "give --tolerance, or optimise: {tolerance: …} in the case: what a cheaper variant may lose per decision"
        raise CaseError(Problem("--tolerance", got, f"an amount in {model.policy.payoffs.unit}, at least 0", mend))
    seconds = case.budget
    if budget is not None:
        try:
            seconds = duration_s(budget)
        except ValueError as error:
            raise CaseError(Problem("--budget", budget, str(error))) from None
        if not seconds > 0.0:
            raise CaseError(Problem("--budget", budget, "more than no time"))
    latency = model.case.get("serve", {}).get("latency")
    return Terms(model.policy.payoffs.unit, float(most), None if latency is None else 1e3 * latency), seconds


def _load(at: Ints) -> str:
    """Return how many decisions were asked for at once, in words."""
    most = int(np.unique(at // _SECOND, return_counts=True)[1].max())
    return f"at most {most} in a second"


def _taken(raw: Raw, model: Model, rows: Ints) -> dict[str, Any]:
    """Return the columns that a model reads, where they are kept."""
    return {name: np.asarray(raw[name], dtype=object)[rows] for name in model.transform.inputs if name in raw}


def _served(raw: Raw, model: Model) -> list[dict[str, Any]]:
    columns = _taken(raw, model, np.arange(min(DECISIONS, len(next(iter(raw.values()))))))
    n = len(next(iter(columns.values())))
    return [{name: json_cell(values[i]) for name, values in columns.items()} for i in range(n)]


@dataclass(frozen=True, eq=False)
class _Compared:
    """Decisions of a model, as columns, and what came of those that are `known`."""

    model: Model
    raw: Mapping[str, Any]
    known: Any
    outcome: Sequence[Any]

    def options(self, model: Model) -> Ints:
        """Return the option (n,) that a model takes on each row, by itself."""
        return model.decide_columns(self.raw, reasons=0).choices.option

    def paid(self, taken: Ints, start: Ints) -> tuple[Floats, Floats]:
        """Return what two models' options paid, (n,) each.

        Where an outcome is unknown and both take the same option they paid the same; where they do not, the difference is the worst that
        any outcome could have made it: what the start declined, and nobody saw, must not speak for a variant that would have approved.
        """
        n = len(taken)
        a, b = np.zeros(n), np.zeros(n)
        where = np.flatnonzero(self.known)
        pays = self.model.realised({name: values[where] for name, values in self.raw.items()}, self.outcome)
        at = np.arange(len(where))
        a[where], b[where] = pays[at, taken[where]], pays[at, start[where]]
        open_ = np.flatnonzero(~self.known & (taken != start))
        if len(open_):
            rows, at = {name: values[open_] for name, values in self.raw.items()}, np.arange(len(open_))
            worst = np.full(len(open_), np.inf)
            for outcome in self._possible():
                pays = self.model.realised(rows, [outcome] * len(open_))
                worst = np.minimum(worst, pays[at, taken[open_]] - pays[at, start[open_]])
            a[open_] = worst
        return a, b

    def _possible(self) -> Sequence[Any]:
        if self.model.task.kind == "classes":
            return self.model.task.classes
        ends = [float(o) for o in self.outcome] or [0.0]
        return list(map(float, np.linspace(min(ends), max(ends), _POSSIBLE)))


def _search(
    compared: _Compared, search: Search, terms: Terms, clusters: Ints, began: float
) -> tuple[tuple[Variant, ...], str, dict[str, Model]]:
    model = compared.model
    rows = np.linspace(0, len(clusters) - 1, min(CALIBRATED, len(clusters))).astype(int)
    columns, _ = model.transform.read({name: values[rows] for name, values in compared.raw.items()})
    width = len(model.task.classes) if model.task.kind == "classes" else len(model.task.levels)
    start = Start(model.scorer, np.asarray(model.transform.apply(columns), np.float32), width)

    def left() -> float:
        return search.budget - (time.perf_counter() - began)

    def make(recipe: Recipe) -> Made | None:
        return recipe.make(start) if left() > 0.0 else None

    found, made = tried(model, search.recipes, make)
    figures = dict(zip(made, measure(list(made.values()), search.served, search.prices, MEASURING * search.budget), strict=True))
    own = compared.options(model)
    paid = {}
    for name in sorted(set(made) - {START}, key=lambda name: (figures[name].decide.p50_ms, name)):
        if left() > 0.0:
            paid[name] = compared.paid(compared.options(made[name]), own)
    variants, why = judged(found, figures, paid, terms, clusters)
    return variants, why, made
