"""The composition: case → prepare → train → evaluate → optimise → bundle → report. Read this file first.

Every stage receives values and returns one; this module alone knows which follows which. One procedure, `learn`, is judged on rows
that it did not see (on each outer fold) and then makes, from all rows, the model that is deployed.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from makegood import __version__, cases, decision_file
from makegood import families as families_
from makegood import model as models
from makegood.case import Case, duration_s
from makegood.contracts import Compute, Evaluation, Finding, Rated, Run, Usage
from makegood.data import galleries, prepare, sources
from makegood.economics import compute
from makegood.economics.variants import Optimised
from makegood.errors import CaseError, MakegoodError, Problem, Refused, nearest
from makegood.families.named import named
from makegood.families.smaller import table
from makegood.golden import json_cell
from makegood.report.page import ReportInput, render
from makegood.stages import evaluate as evaluation
from makegood.stages import meter, ratings
from makegood.stages import optimise as optimising
from makegood.stages.held_out import HeldOut
from makegood.stages.learn import Progress, Trials, learn_all
from makegood.stages.mistakes import costliest
from makegood.stages.prepare import Prepared, prepare_rows
from makegood.trust import fairness
from makegood.trust.card import card
from makegood.workspace import Workspace, write, write_json

STAGES = ("prepare", "train", "evaluate", "optimise", "bundle", "report")
HERE = Path(".makegood")
FILE_REASONS = 1_000  # rows of a file up to which each comes with its reasons


def _silent(stage: str, done: float) -> None:
    """Show nothing."""


def run(
    case: Case | str | Path,
    *,
    data: Any = None,
    candidates: Sequence[families_.Candidate] = (),
    workspace: Workspace | Path | str = HERE,
    until: str = "report",
    cache: Path | None = None,
    progress: Progress = _silent,
) -> Run:
    """Return the finished run of a case: a `Case`, a case file, or the name of a built-in case.

    `data` is a polars, pandas or Arrow table, or a file's path, in place of `data.source`; `cache` keeps what `data.source` fetches from an
    address (by default in ~/.cache/makegood); `candidates` (`makegood.wrap`) train beside the case's own families; `until` is the last
    stage. Raises `CaseError`, `DataError`, `NotBuilt` or `Refused`; a model that is not worth deploying is a run whose verdict is "refuse",
    not an error.
    """
    started = time.perf_counter()
    if until not in STAGES:
        raise CaseError(Problem("--until", until, f"one of {', '.join(STAGES)}", nearest(until, STAGES)))
    case = _case(case)
    if until == "optimise" and case.optimise is None:
        raise CaseError(Problem("--until", until, "a case with `optimise:`", "add `optimise: {}` to it, or stop after evaluate"))
    progress("prepare", 0.0)
    prepared, candidates = _with_models(prepare_rows(case, data, cache), candidates)
    space = workspace if isinstance(workspace, Workspace) else Workspace(Path(workspace))
    folder = space.new_run(case.case)
    record = _Record(prepared, folder, progress, started)
    record.save("case", case.to_json())
    record.save("prepare", prepared.to_json())
    if until == "prepare":
        return record.finish(space)
    trials = learn_all(prepared, candidates, progress)
    record.save("train", trials.to_json())
    if until == "train":
        return record.finish(space)
    progress("evaluate", 0.8)
    opened = space.open_test(prepared.splits.hash, folder)
    money = judge(prepared, trials, opened)
    record.save("evaluate", asdict_json(money))
    if until == "evaluate":
        return record.finish(space, money)
    found = None
    if case.optimise is not None:
        progress("optimise", 0.85)
        found, model = optimised(prepared, trials, money, progress)
        trials = replace(trials, model=model)
        record.save("optimise", found.to_json())
    if until == "optimise":
        return record.finish(space, money)
    progress("bundle", 0.9)
    groups = fairness_table(prepared, trials, money.cost)
    page = card(case, money, prepared.splits, prepared.findings, groups, versions())
    packed = models.pack(replace(trials.model, verdict=money.verdict), folder / "bundle", rows=trials.golden, card=page)
    if until == "bundle":
        return record.finish(space, money, packed)
    progress("report", 0.97)
    described = ReportInput(
        case=case.to_json(),
        case_text=case.text,
        evaluation=money,
        run=folder.name,
        findings=prepared.findings,
        split=prepared.split,
        mistakes=costliest(prepared, trials),
        fairness=groups,
        seconds=record.seconds,
        hashes={"data": prepared.source.fingerprint, "test rows": prepared.splits.hash, "bundle": packed.id},
        versions=versions(),
        optimised=found,
    )
    write(folder / "report.html", render(described))
    return record.finish(space, money, packed)


def _with_models(prepared: Prepared, given: Sequence[families_.Candidate]) -> tuple[Prepared, tuple[families_.Candidate, ...]]:
    """Return the rows with what a reader must know of the user's own models, and those models: the given and the named."""
    train, texts, folder = prepared.case.train, prepared.case.data.text is not None, prepared.case.folder
    tuned = families_.fine_tuned(train.pretrained, prepared.outcome.task, folder=folder, texts=texts, lora=train.lora)
    every = (*given, *named(train.model, folder=folder, seed=train.seed), *tuned)
    notes = (Finding("imported", "", prepared.table.num_rows, c.note, "kept", "warning") for c in every if c.note)
    return replace(prepared, findings=(*prepared.findings, *notes)), every


# --------------------------------------------------------------------------------------------------------------- evaluate


def judge(prepared: Prepared, trials: Trials, opened: int) -> Evaluation:
    """Return what the held-out decisions are worth, and the verdict at this opening of the test rows."""
    trained = trials.learnt.trained
    columns, unknown = trials.golden, len(prepared.outcome.known) - len(prepared.known)
    record = evaluation.Record(
        n={"train": len(prepared.splits.folds[0].train), "valid": len(trained.oof_rows), "test": len(trials.held)},
        protected=prepared.case.data.protected,
        drivers=trials.model.drivers(columns),
        candidates=tuple(t.to_json() for t in trained.trials),
        calibrator=trained.calibrator.kind if trained.calibrator else "",
        opened=opened,
        unknown=unknown,
        seed=prepared.case.train.seed,
        compute=computing(prepared, trials),
        coverage=prepared.case.coverage,
        rated=_rated(prepared, trials.held),
    )
    return evaluation.evaluate(trials.held, prepared.policy.payoffs, record)


def computing(prepared: Prepared, trials: Trials) -> Compute:
    """Return what learning took and what a decision takes, with the case's prices: held-out rows are decided one at a time, as served."""
    decision, n = meter.one_decision(trials.model.decide, _served(prepared, trials.model))
    candidates = {t.name: t.used for t in trials.learnt.trained.trials}
    return compute.compute(trials.used, candidates, decision, n, prices(prepared.case.compute.model_dump()))


def _served(prepared: Prepared, model: models.Model) -> list[dict[str, Any]]:
    """Return held-out rows as a service gets them."""
    rows = np.concatenate([fold.test for fold in prepared.splits.folds])[: meter.DECISIONS]
    raw = prepare.raw_columns(prepared.table.take(pa.array(rows)))
    return [{name: json_cell(raw[name][i]) for name in model.transform.inputs} for i in range(len(rows))]


def optimised(prepared: Prepared, trials: Trials, money: Evaluation, progress: Progress = _silent) -> tuple[Optimised, models.Model]:
    """Return what the variants of a model came to, and the model as one of them, or as it was."""
    assert prepared.case.optimise is not None, "asked for by the case"
    served = _served(prepared, trials.model)
    search = optimising.Search(prepared.case.optimise.budget, prices(prepared.case.compute.model_dump()), served, table())
    return optimising.optimise(prepared, trials, optimising.terms(prepared, money.gain), search, progress)


def prices(declared: Mapping[str, Any]) -> compute.Prices:
    """Return the prices of computing out of a case's plain data, which leaves out what is 0."""
    return compute.Prices(*(declared.get(price.name, price.default) for price in fields(compute.Prices)))


def _rated(prepared: Prepared, held: HeldOut) -> tuple[Rated, ...]:
    """Return how well the held-out rows are rated; empty without ranks on scales of their own."""
    data = prepared.case.data
    if data.scale is None or held.rating is None:
        return ()
    rows = np.concatenate([fold.test for fold in prepared.splits.folds])[: len(held)]
    marks = prepared.table.select(data.raters).take(pa.array(rows))
    raters = np.column_stack([np.empty((len(rows), 0)), *(column.cast(pa.float64()).to_numpy() for column in marks.columns)])
    return ratings.rated(held, data.scale, {name: held.columns[name] for name in data.protected}, raters)


def fairness_table(prepared: Prepared, trials: Trials, cost: float = 0.0) -> tuple[fairness.Group, ...]:
    """Return how the levels of each protected column are treated, values net of `cost`; empty when the case protects none."""
    protected = {name: trials.held.columns[name] for name in prepared.case.data.protected}
    return fairness.compare(evaluation.treatment(trials.held, prepared.policy.payoffs, cost), protected) if protected else ()


# ----------------------------------------------------------------------------------------------------------------- record


@dataclass
class _Record:
    """The run's folder being filled: each stage's value, with the fingerprints of those before it."""

    prepared: Prepared
    folder: Path
    progress: Progress
    started: float

    def __post_init__(self) -> None:
        self.made_from: dict[str, str] = {"data": self.prepared.source.fingerprint}
        self.seconds: dict[str, float] = {}
        self._last = self.started

    def save(self, stage: str, value: Mapping[str, Any]) -> None:
        """Write a stage's value, and keep how long it took."""
        now = time.perf_counter()
        self.seconds[stage], self._last = now - self._last, now
        self.made_from[stage] = write_json(self.folder / f"{stage}.json", {"made_from": dict(self.made_from), **value})

    def finish(self, space: Workspace, money: Evaluation | None = None, packed: models.Model | None = None) -> Run:
        """Return the run, and make it the case's latest if it made a bundle: a look at one stage hides no model."""
        report = self.folder / "report.html"
        done = Run(
            case=self.prepared.case.case,
            id=self.folder.name,
            folder=self.folder.resolve(),
            bundle=(self.folder / "bundle").resolve() if packed else None,
            report=report.resolve() if report.exists() else None,
            seconds=time.perf_counter() - self.started,
            evaluation=money,
            findings=self.prepared.findings,
            split=self.prepared.split,
        )
        write_json(self.folder / "run.json", {"made_from": self.made_from, "versions": versions(), **summary(done)})
        if packed:
            space.finish(self.folder)
        self.progress("done", 1.0)
        return done


def summary(done: Run) -> dict[str, Any]:
    """Return a run as plain data: what `makegood run --json` prints."""
    e = done.evaluation
    head: dict[str, Any] = {
        "case": done.case,
        "run": done.id,
        "bundle": str(done.bundle) if done.bundle else None,
        "report": str(done.report) if done.report else None,
        "seconds": round(done.seconds, 3),
        "leaks": [{"column": f.column, "why": f.detail} for f in done.findings if f.severity == "leak"],
        "split": done.split,
    }
    if e is None:
        return head
    kept = e.guarantee
    return head | {
        "value": e.value.to_json(),
        "baselines": {name: x.to_json() for name, x in e.baselines.items()},
        "gain": e.gain.to_json() | {"over": e.gain_over},
        "oracle": e.oracle.to_json(),
        "gap": e.gap.to_json(),
        "metrics": {name: {"value": x.value, "low": x.to_json()["low"], "high": x.to_json()["high"]} for name, x in e.metrics.items()},
        "verdict": e.verdict,
        "why": e.why,
        "n": e.n,
        "opened": e.opened,
        "guarantee": asdict(kept) | {"amount": kept.amount.to_json(), "broken": kept.broken.to_json()} if kept else None,
        "compute": asdict(e.compute) | {"unit": e.unit} if e.compute else None,
    }


def asdict_json(money: Evaluation) -> dict[str, Any]:
    """Return an evaluation as valid JSON data: figures that are not finite become null."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(k): plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        if isinstance(value, float | np.floating):
            return float(value) if np.isfinite(value) else None
        return value.item() if isinstance(value, np.generic) else value

    return dict(plain(asdict(money)))


def versions() -> dict[str, str]:
    """Return what made a model: versions of makegood, of Python, and of what computes."""
    from importlib.metadata import version

    return {"makegood": __version__, "python": platform.python_version()} | {n: version(n) for n in ("numpy", "lightgbm", "onnxruntime")}


# ------------------------------------------------------------------------------------------------------------------ check


@dataclass(frozen=True)
class Checked:
    """What `check` found, without training."""

    case: str
    problems: tuple[Problem, ...]
    leaks: tuple[Finding, ...] = ()
    split: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether a run would start."""
        return not any(p.severity == "error" for p in self.problems)

    def to_json(self) -> dict[str, Any]:
        """Return what `makegood check --json` prints."""
        leaks_ = [{"column": f.column, "why": f.detail} for f in self.leaks]
        return {"case": self.case, "problems": [asdict(p) for p in self.problems], "leaks": leaks_, "split": dict(self.split)}


def check(case: Case | str | Path, *, data: Any = None, cache: Path | None = None) -> Checked:
    """Return every problem of a case, its suspected leaks, and what the split would be; raises nothing that a case can cause."""
    name = case.case if isinstance(case, Case) else str(case)
    try:
        loaded = _case(case)
        prepared, _ = _with_models(prepare_rows(loaded, data, cache), ())
    except MakegoodError as error:
        return Checked(name, error.problems)
    warnings = tuple(
        Problem(f.column or "rows", f.detail, "a look before the run", f.action, "warning")
        for f in prepared.findings
        if f.severity == "warning"
    )
    return Checked(loaded.case, warnings, tuple(f for f in prepared.findings if f.severity == "leak"), prepared.split)


def _case(case: Case | str | Path) -> Case:
    if isinstance(case, Case):
        return case
    if str(case) in cases.names():
        return cases.load(str(case))
    path = Path(case)
    if not path.exists() and path.suffix not in (".yaml", ".yml"):
        return cases.load(str(case))  # says which names there are
    return Case.load(path)


def override(case: str | Path, *, budget: str | None = None, seed: int | None = None) -> Case:
    """Return a case with another training budget or seed."""
    loaded = _case(case)
    changed: dict[str, Any] = {} if seed is None else {"seed": seed}
    if budget is not None:
        try:
            changed["budget"] = duration_s(budget)
        except ValueError as error:
            raise CaseError(Problem("--budget", budget, str(error))) from None
        if not changed["budget"] > 0:
            raise CaseError(Problem("--budget", budget, "more than no time"))
    return loaded.model_copy(update={"train": loaded.train.model_copy(update=changed)})


def last_run(case: str, workspace: Path | str = HERE) -> Path:
    """Return the folder of a case's last run; `case` is a built-in name, a case file, or a case's own name."""
    path = Path(case)
    name = Case.load(path).case if path.suffix in (".yaml", ".yml") and path.exists() else case
    return Workspace(Path(workspace)).last(name)


# ----------------------------------------------------------------------------------------------------------------- decide


@dataclass(frozen=True)
class Told:
    """What `decide_file` did, and what the deciding itself took."""

    n: int
    actions: Mapping[str, int]
    promised: float
    unit: str
    out: Path
    notes: tuple[str, ...]
    compute: Usage

    def to_json(self) -> dict[str, Any]:
        """Return what `makegood decide --json` prints."""
        return {**asdict(self), "out": str(self.out.resolve()), "notes": list(self.notes)}


def decide_file(model: str, rows: Path, out: Path, *, workspace: Path | str = HERE, force: bool = False) -> Told:
    """Decide on every row of a file, write the decisions, and return what was done.

    Limits hold exactly on these rows. Raises `Refused` when the model's verdict is refuse, unless forced.
    """
    decision_file.check(out)
    deciding = models.load(_bundle_of(model, workspace))
    if deciding.verdict != "deploy" and not force:
        raise Refused(
            Problem(str(model), f"verdict {deciding.verdict or 'none'}", "a model that beats every baseline", "see its report, or --force")
        )
    source = sources.read(rows, plain=deciding.transform.plain, path=deciding.case["data"].get("path"))
    place = galleries.place_of(source.table)
    k = None if source.table.num_rows <= FILE_REASONS else 0
    with meter.Meter() as metered:
        decided = deciding.decide_columns(prepare.raw_columns(source.table), exact_limits=bool(deciding.policy.limits), reasons=k)
    used = prices(deciding.case.get("compute", {})).of(metered.used)
    notes = [*(f.detail for f in source.findings if f.kind != "missing_outcome"), *map(str, decided.notes)]
    ignored = [name for name in decided.ignored if name not in galleries.roles(source.table)]
    if ignored:
        notes.append(f"columns that the model does not know were ignored: {', '.join(ignored)}")
    if k == 0 and deciding.case.get("serve", {}).get("reasons"):
        notes.append(f"reasons are left out: there are more than {FILE_REASONS:,} rows")
    decision_file.write(out, list(decided), None if place is None else source.table[place])
    names, counts = np.unique(decided.action.astype(str), return_counts=True)
    actions = dict(zip(names.tolist(), counts.tolist(), strict=True))
    return Told(len(decided), actions, float(decided.promise.sum()), decided.unit, out, tuple(notes), used)


def _bundle_of(model: str, workspace: Path | str) -> Path:
    """Return the bundle's folder: the one that is named, or that of a case's last run."""
    path = Path(model)
    if (path / "manifest.json").exists():
        return path
    try:
        return last_run(model, workspace) / "bundle"
    except CaseError:
        if path.is_dir():
            return path  # a damaged bundle: loading says what is missing
        raise
