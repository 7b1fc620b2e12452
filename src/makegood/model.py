"""A bundle at work: raw rows → transform → scorer → calibration → policy → decisions.

One path serves a row, a list of rows, a frame and a file, and every step of it works row by row: a row gets the same bits alone
and inside any batch. A `Model` is put together from its parts after training, packed into a bundle, and loaded from one; loading
verifies every byte and replays the golden rows first. This module needs NumPy, ONNX Runtime and msgspec, nothing heavier.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from makegood import __version__, bundle
from makegood.contracts import Bools, Choices, Columns, Decision, Floats, Probabilities, Quantiles, Reason, Task, rows_of
from makegood.data.transform import Note, Transform
from makegood.data.values import text_of
from makegood.decided import Decided, Predicted, came_true, joined, merged, together, values_of
from makegood.economics.calibrate import Calibrator
from makegood.economics.conformal import Conformal
from makegood.economics.policy import Policy, expected, guaranteed, realised
from makegood.economics.sets import Sets
from makegood.errors import BundleError, CaseError, DataError, Problem, nearest
from makegood.golden import CELLS, FEWEST, ROWS, Golden, compare, json_cell, pick
from makegood.monitoring.reference import Reference
from makegood.scorer import INPUT, LEVELS, OUTPUT, THREADS, Scorer
from makegood.trust import explain as shapley

__all__ = ["Decided", "INPUT", "Model", "OUTPUT", "Scorer", "load", "pack", "verify"]

Raw = Mapping[str, Sequence[Any] | NDArray[Any]]
"""Columns of values as they came, from Arrow (`prepare.raw_columns`) or out of JSON, all of one length."""

_LOG = logging.getLogger("makegood.model")
_READABLE = 40  # characters of a text that a reason shows
_CELLS = 1 << 26  # features that are worked on at once
_LEAST = 256  # evaluations for the reasons of one row: two pairs of orders of 50 columns, and the background
_TIMED = 5  # background rows that are explained to see what that takes
_SHARE = 0.5  # of a decision's latency that its reasons may take; the queue, the model and the ledger have the rest


# -------------------------------------------------------------------------------------------------------------- decisions


@dataclass(frozen=True)
class _Assessed:
    """What a batch is found to be before anything is decided; `predictive` is what payoffs are integrated over.

    `priced` are the columns that payoffs and limits are made of.
    `least` (n, n_options) is what each option guarantees over the prediction sets; None without `sets`.
    """

    columns: Columns
    priced: Columns
    notes: tuple[Note, ...]
    features: Floats
    raw: Floats
    predictive: Predicted
    expected: Floats
    sets: Bools | None
    least: Floats | None


@dataclass(frozen=True)
class _Part:
    choices: Choices
    predictive: Predicted
    sets: Bools | None
    reasons: list[tuple[Reason, ...]]
    notes: list[Note]


@dataclass(frozen=True, eq=False)
class Model:
    """What decides: the case as plain data, and every part that a decision passes through.

    `conformal` moves the quantiles that are reported, and no decision (MATHEMATICS §13). `sets` are reported, and are what an averse
    policy decides by. `background` holds the raw rows that reasons compare with. `verdict` is "deploy", "refuse", or "" before an
    evaluation. `id` is the case's name and the start of the bundle's hash; empty until the model is packed. `block` bounds the memory:
    at most so many rows are worked on at once. `evaluations` bounds the work for the reasons that a decision comes with; packing fits
    it to the case's `serve.latency`, and a bundle keeps it, so that the same row has the same reasons on every machine and every day.
    `reference` says what the rows were like on which the model was judged; None in bundles of earlier versions. `optimised` says why
    this variant of the model was chosen, and of which (`economics.variants.Optimised.to_json`); None where nothing was tried.
    """

    case: Mapping[str, Any]
    task: Task
    transform: Transform
    scorer: Scorer
    policy: Policy
    background: Raw
    calibrator: Calibrator | None = None
    conformal: Conformal | None = None
    sets: Sets | None = None
    verdict: str = ""
    id: str = ""
    block: int = 1 << 16
    evaluations: int = shapley.EVALUATIONS
    reference: Reference | None = None
    optimised: Mapping[str, Any] | None = None

    @overload
    def decide(self, rows: Mapping[str, Any], *, reasons: int | None = None) -> Decision: ...

    @overload
    def decide(self, rows: Sequence[Mapping[str, Any]], *, reasons: int | None = None) -> list[Decision]: ...

    @overload
    def decide(self, rows: Any, *, reasons: int | None = None) -> Any: ...

    def decide(self, rows: Any, *, reasons: int | None = None) -> Decision | list[Decision] | Decided:
        """Return the decision on one row (a mapping), on each of a list of rows, or, column by column, on a frame.

        Frames are polars, pandas or Arrow tables. `reasons` says how many reasons each decision comes with (default: the case's
        `serve.reasons`). Columns that the model does not know are ignored, with a note. Raises `DataError` when a column that
        payoffs or limits are made of is missing, or where a row's payoff is no number.
        """
        if isinstance(rows, Mapping):
            return self._decide_rows([rows], reasons)[0]
        if isinstance(rows, list | tuple):
            return self._decide_rows(rows, reasons)
        return self.decide_columns(_frame(rows, self._inputs), reasons=reasons)

    def decide_columns(self, raw: Raw, *, exact_limits: bool = False, reasons: int | None = None) -> Decided:
        """Return the decisions on raw columns.

        Without `exact_limits` each row is decided by itself at the limits' prices, as the service does; with it every limit holds
        exactly on these rows, and what one row gets depends on the others. Raises `DataError` as `decide` does.
        """
        n = self._length(raw)
        k = int(self.case.get("serve", {}).get("reasons", 0)) if reasons is None else reasons
        decide, step = (self.policy.decide_all, n) if exact_limits else (self.policy.decide, self._step)
        parts = [self._decide_part(raw, slice(at, min(at + step, n)), decide, k) for at in range(0, max(n, 1), max(step, 1))]
        choices = joined([part.choices for part in parts])
        names, quantities = self._options
        return Decided(
            action=names[choices.option],
            quantity=quantities[choices.option],
            choices=choices,
            predictive=together([part.predictive for part in parts]),
            reasons=tuple(chain.from_iterable(part.reasons for part in parts)),
            notes=merged([note for part in parts for note in part.notes]),
            ignored=() if raw.keys() <= self._inputs else tuple(name for name in raw if name not in self._inputs),
            unit=self.policy.payoffs.unit,
            model=self.id,
            sets=None if self.sets is None else np.concatenate([part.sets for part in parts if part.sets is not None]),
        )

    def realised(self, raw: Raw, outcomes: Sequence[str | float]) -> Floats:
        """Return what each option would have paid on raw rows, given what came true: (n, n_options), in the unit of the payoffs.

        `outcomes` (n,) are classes, by name (or whatever `payoff.canonical` takes for one), or numbers. Raises `DataError` where one
        is no class and no number, where there are more or fewer of them than rows, and as `decide` does.
        """
        n = self._length(raw)
        if len(outcomes) != n:
            raise DataError(Problem("outcomes", f"{len(outcomes)} outcomes of {n} rows", "one for each row", "complete them"))
        priced = self._priced(self.pricing.read({name: raw[name] for name in self._required})[0])
        if self.task.kind == "classes":
            unsure: Predicted = Probabilities(self.task.classes, np.zeros((n, len(self.task.classes))))
        else:
            unsure = Quantiles(self.task.levels, np.zeros((n, len(self.task.levels))))
        return realised(self.policy.payoffs, unsure, came_true(outcomes, self.task), priced)

    @cached_property
    def needed(self) -> frozenset[str]:
        """The columns that payoffs and limits need of a row: those that they name, and what `familiarity` is told from."""
        return self.transform.needs(self.policy.names)

    @cached_property
    def pricing(self) -> Transform:
        """Reads those columns alone."""
        return self.transform.only(self.policy.names)

    @cached_property
    def _step(self) -> int:
        """How many rows are worked on at once: fewer than `block` where they have as many features as images do."""
        return max(1, min(self.block, _CELLS // max(len(self.transform.features), 1)))

    def _decide_rows(self, rows: Sequence[Mapping[str, Any]], reasons: int | None) -> list[Decision]:
        for i, row in enumerate(rows, 1):
            if not isinstance(row, Mapping):
                raise DataError(Problem(f"row {i}", type(row).__name__, "a mapping from column to value", "give names with the values"))
        if not rows:
            return []
        given = rows[0] if len(rows) == 1 else dict.fromkeys(name for row in rows for name in row)
        names = given or self.transform.inputs[:1] or ("",)  # rows without a single value are rows all the same
        decided = self.decide_columns({name: [row.get(name) for row in rows] for name in names}, reasons=reasons)
        noted = {i for note in decided.notes for i in note.rows}
        return [
            replace(decision, notes=self._notes(row)) if i in noted or row.keys() != self._inputs else decision
            for i, (decision, row) in enumerate(zip(decided, rows, strict=True))
        ]

    def _notes(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the notes on one row as if it stood alone, so that they do not depend on its batch."""
        _, notes = self.transform.read({name: [value] for name, value in row.items()})
        ignored = (f"{name}: not a column of this model; ignored" for name in row if name not in self._inputs)
        return (*map(str, notes), *ignored)

    def _decide_part(self, raw: Raw, part: slice, decide: Callable[[Floats, Columns, Floats | None], Choices], k: int) -> _Part:
        rows = {name: values[part] for name, values in raw.items()}
        try:
            found = self._assess(rows)
            choices = decide(found.expected, found.priced, found.least)
        except DataError as error:
            if part.start == 0:
                raise
            block = f"rows {part.start + 1} to {part.stop}, counted from 1: "
            raise DataError(*(replace(problem, where=block + problem.where) for problem in error.problems)) from None
        predictive = found.predictive
        if self.conformal is not None and isinstance(predictive, Quantiles):
            predictive = replace(predictive, q=self.conformal.apply(predictive.q))
        reasons: list[tuple[Reason, ...]] = [()] * len(choices)
        if k > 0:
            columns = dict(found.columns)
            for i, option in enumerate(choices.option.tolist()):
                top = self._explain(columns, i, option, self.evaluations).top(k)
                reasons[i] = tuple(Reason(name, self._shown(name, rows[name][i] if name in rows else None), money) for name, money in top)
        notes = [replace(note, rows=tuple(row + part.start for row in note.rows)) for note in found.notes]
        return _Part(choices, predictive, found.sets, reasons, notes)

    def _shown(self, name: str, cell: Any) -> str:
        """Return a value for a reader, who needs no bytes of an image and only the beginning of a text."""
        if name in self.transform.texts:
            words = " ".join(_shown(cell).split())
            return words if len(words) <= _READABLE else f"{words[:_READABLE].rstrip()}…"
        return "an image" if name in self.transform.images and isinstance(cell, bytes | str) else _shown(cell)

    # --------------------------------------------------------------------------------------------------------- assessment

    def assess(self, columns: Columns) -> tuple[Predicted, Floats]:
        """Return the calibrated predictive of read columns, and the expected payoff of each option (n, n_options)."""
        found = self._assessed(columns)
        return found.predictive, found.expected

    def _assess(self, raw: Raw) -> _Assessed:
        columns, notes = self.transform.read(raw)
        return self._assessed(columns, notes)

    def _assessed(self, columns: Columns, notes: tuple[Note, ...] = ()) -> _Assessed:
        features = self.transform.apply(columns)
        raw = self.scorer(features)
        if self.task.kind == "classes":
            predictive: Predicted = Probabilities(self.task.classes, raw if self.calibrator is None else self.calibrator.apply(raw))
        else:
            predictive = Quantiles(self.task.levels, raw)
        priced, sets, least = self._priced(columns), None, None
        if self.sets is not None and isinstance(predictive, Probabilities):
            sets = self.sets.apply(predictive.p)
            least = guaranteed(self.policy.payoffs, predictive, priced, sets)
        worth = expected(self.policy.payoffs, predictive, priced)
        return _Assessed(columns, priced, notes, features, raw, predictive, worth, sets, least)

    def _priced(self, columns: Columns) -> Columns:
        """Return the columns that payoffs and limits are made of: the others need not be put together."""
        return self.transform.named(columns, self.policy.names)

    # ------------------------------------------------------------------------------------------------------------ reasons

    def explain(self, raw: Raw, row: int = 0, *, evaluations: int = shapley.EVALUATIONS) -> shapley.Explanation:
        """Return what each column did to the margin of the action chosen for one row of `raw`, in money (MATHEMATICS §12)."""
        self._length(raw)
        found = self._assess({name: values[row : row + 1] for name, values in raw.items()})
        option = self.policy.decide(found.expected, found.priced, found.least).option
        return self._explain(dict(found.columns), 0, int(option[0]), evaluations)

    def drivers(self, raw: Raw, *, evaluations: int = 512) -> tuple[tuple[str, float], ...]:
        """Return each column with the mean size of its reasons over the rows, in money, largest first.

        `evaluations` bounds the work for each row; some 200 rows show which columns matter.
        """
        self._length(raw)
        found = self._assess(raw)
        options = self.policy.decide(found.expected, found.priced, found.least).option.tolist()
        columns = dict(found.columns)
        # A seed for each row: with the same few background rows throughout, their peculiarities would not average out.
        return shapley.drivers(self._explain(columns, i, option, evaluations, seed=i) for i, option in enumerate(options))

    def affordable(self, seconds: float) -> int:
        """Return the most evaluations with which the reasons for a row take `seconds` here: `shapley.EVALUATIONS` halved some times.

        Timed on `_TIMED` background rows. `_LEAST` where not even they are quick enough, which is logged: fewer would tell noise.
        """
        columns, evaluations = self._background, shapley.EVALUATIONS
        found = self._assessed(columns)
        options = self.policy.decide(found.expected, found.priced, found.least).option[:_TIMED].tolist()
        while options and (took := self._explaining_s(columns, options, evaluations)) > seconds:
            if evaluations <= _LEAST:
                words = "reasons take %.2g s a row even with %d evaluations, the fewest; serve.latency leaves them %.2g s"
                _LOG.warning(words, took, evaluations, seconds)
                break
            evaluations //= 2
        return evaluations

    def _explaining_s(self, columns: Columns, options: Sequence[int], evaluations: int) -> float:
        """Return the median seconds that the reasons for one row take."""
        spent = []
        for i, option in enumerate(options):
            start = time.perf_counter()
            self._explain(columns, i, option, evaluations)
            spent.append(time.perf_counter() - start)
        return float(np.median(spent))

    def _explain(self, columns: Columns, i: int, option: int, evaluations: int, seed: int = 0) -> shapley.Explanation:
        row = {name: values[i : i + 1] for name, values in columns.items()}
        protected = self.case.get("data", {}).get("protected", ())
        return shapley.reasons(self._margin(option), row, self._background, protected=protected, evaluations=evaluations, seed=seed)

    def _margin(self, option: int) -> shapley.Margin:
        """Return the margin, in what the policy maximises, of an option over the best of other actions (of the others, if of one)."""
        options = self.policy.payoffs.options
        others = [o for o, other in enumerate(options) if other.action != options[option].action]
        rivals = others or [o for o in range(len(options)) if o != option]

        def margin(columns: Columns) -> Floats:
            net = self._net(columns)
            return np.asarray(net[:, option] - net[:, rivals].max(axis=1, initial=-np.inf if rivals else 0.0))

        return margin

    # --------------------------------------------------------------------------------------------------------- what is asked

    @cached_property
    def _background(self) -> Columns:
        """The background rows as read, without those on which a payoff has no value."""
        n = self._length(self.background)
        columns = dict(self.transform.read(self.background)[0])
        kept = [i for i in range(n) if self._pays({name: values[i : i + 1] for name, values in columns.items()})]
        return {name: values[kept] for name, values in columns.items()}

    def _pays(self, columns: Columns) -> bool:
        try:
            self._net(columns)
        except DataError:
            return False
        return True

    def _net(self, columns: Columns) -> Floats:
        """Return what the policy maximises, (n, n_options)."""
        found = self._assessed(columns)
        return self.policy.net(found.expected, found.priced, found.least)

    @cached_property
    def _inputs(self) -> frozenset[str]:
        return frozenset(self.transform.inputs)

    @cached_property
    def _required(self) -> tuple[str, ...]:
        return tuple(sorted(self.needed))

    @cached_property
    def _options(self) -> tuple[NDArray[Any], Floats]:
        """Action names and quantities by option, as arrays to take from."""
        options = self.policy.payoffs.options
        quantities = np.array([np.nan if o.quantity is None else o.quantity for o in options])
        return np.array([o.action for o in options], dtype=object), quantities

    def _length(self, raw: Raw) -> int:
        """Return the number of rows; raises `DataError` where a needed column is missing, or lengths differ."""
        if missing := [name for name in self._required if name not in raw]:
            need, strangers = "every column that payoffs and limits are made of", raw.keys() - self._inputs
            raise DataError(*(Problem("rows", f"no column {name}", need, nearest(name, strangers) or "add it") for name in missing))
        lengths = set(map(len, raw.values()))
        if len(lengths) > 1:
            raise DataError(
                Problem("rows", f"columns of {min(lengths)} to {max(lengths)} values", "columns of one length", "complete them")
            )
        return lengths.pop() if lengths else 0


def _shown(cell: Any) -> str:
    """Return a value for a reader."""
    cell = cell.item() if isinstance(cell, np.generic) else cell
    text = None if cell is None or cell != cell else text_of(cell)
    return "missing" if text is None else text


def _frame(frame: Any, names: frozenset[str]) -> Raw:
    """Return the raw columns of a polars, pandas or Arrow table; what reads frames is imported only here."""
    import narwhals as nw
    import pyarrow as pa

    from makegood.data.prepare import raw_columns

    try:
        table: Any = nw.from_native(frame, eager_only=True)
    except TypeError:
        got = type(frame).__name__
        raise DataError(Problem("rows", got, "a mapping, a list of mappings, or a polars, pandas or Arrow table", "convert it")) from None
    known = [name for name in table.columns if name in names]
    try:
        raw: Raw = raw_columns(table.select(known).to_arrow())
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # pandas columns of mixed types: value by value, as out of JSON
        raw = {name: table.get_column(name).to_list() for name in known}
    return dict(raw) | {name: range(len(table)) for name in table.columns if name not in names}  # only their names matter


# ------------------------------------------------------------------------------------------------------- packing, loading


def pack(model: Model, target: Path, *, rows: Raw, card: str) -> Model:
    """Write a bundle and return the model loaded from it; `rows` are raw rows of the data, out of which golden rows are made.

    The target appears whole or not at all. Raises `BundleError` when it exists, the disk is full, or the scorer is none that a
    bundle may hold, and `DataError` when no row, or no background row, has a payoff.
    """
    _check(model, "")
    latency = model.case.get("serve", {}).get("latency")
    if latency is not None:
        model = replace(model, evaluations=model.affordable(_SHARE * latency))
    scorer = {
        "kind": model.task.kind,
        "classes": model.task.classes,
        "levels": model.task.levels,
        "rows": model.scorer.rows,
        "level": model.scorer.level,
        "threads": model.scorer.threads,
        "calibrator": None if model.calibrator is None else model.calibrator.to_json(),
        "conformal": None if model.conformal is None else model.conformal.to_json(),
        "sets": None if model.sets is None else model.sets.to_json(),
        "evaluations": model.evaluations,
    }
    background = {name: [json_cell(cell) for cell in values] for name, values in model.background.items() if name in model._inputs}
    contents = {
        "case.json": model.case,
        "transform.json": model.transform.to_json(),
        "scorer.json": scorer,
        "policy.json": model.policy.to_json(),
        "golden.json": msgspec.to_builtins(_golden(model, rows)),
        "background.json": background,
    }
    if model.reference is not None:
        contents["reference.json"] = msgspec.to_builtins(model.reference)
    if model.optimised is not None:
        contents["optimise.json"] = model.optimised
    files = {name: bundle.dump_json(value) for name, value in contents.items()}
    files |= {"scorer.onnx": model.scorer.model, "card.md": card.encode()}
    bundle.write(target, files, makegood=__version__, case=str(model.case["case"]), verdict=model.verdict)
    return load(target)


def load(folder: Path | str) -> Model:
    """Return the model of a bundle whose every byte is as its manifest says, and whose golden rows come out as they did.

    Raises `BundleError` with what was found, before anything of the bundle has decided anything.
    """
    model, problems = _opened(Path(folder))
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        raise BundleError(*errors)
    return model


def verify(folder: Path | str) -> tuple[Problem, ...]:
    """Return what is wrong with a bundle; warnings tell where this processor's numbers differ in the last bits."""
    try:
        return _opened(Path(folder))[1]
    except BundleError as error:
        return error.problems


def _opened(folder: Path) -> tuple[Model, tuple[Problem, ...]]:
    """Return the model of a bundle with the findings of its golden rows; raises `BundleError` where there is no model."""
    contents = bundle.read(folder)
    try:
        model = _model(contents)
        _check(model, f"{folder}{os.sep}")
        then = msgspec.convert(contents.json("golden.json"), Golden)
        now, net = _observed(model, then.rows)
        options = [option.name for option in model.policy.payoffs.options]
        return model, tuple(compare(then, now, net, options, str(folder / "golden.json")))
    except BundleError:
        raise
    except _MALFORMED as error:
        raise BundleError(Problem(str(folder), f"{type(error).__name__}: {error}", "a bundle's contents", bundle.REMAKE)) from None


_MALFORMED = (
    ArithmeticError,
    AttributeError,
    CaseError,
    DataError,
    LookupError,
    msgspec.ValidationError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What hostile or foreign contents can make our readers raise."""


def _model(contents: bundle.Contents) -> Model:
    case, scorer, policy = contents.json("case.json"), contents.json("scorer.json"), contents.json("policy.json")
    if case["case"] != contents.manifest.case:
        raise BundleError(Problem(str(contents.folder / "case.json"), str(case["case"]), contents.manifest.case, bundle.REMAKE))
    if scorer["kind"] not in ("classes", "number"):
        raise BundleError(Problem(str(contents.folder / "scorer.json"), f"kind {scorer['kind']}", "classes or number", bundle.REMAKE))
    evaluations = int(scorer.get("evaluations", shapley.EVALUATIONS))  # not in bundles of the first version
    if not 1 <= evaluations <= shapley.EVALUATIONS:
        got = f"{evaluations} evaluations"
        raise BundleError(Problem(str(contents.folder / "scorer.json"), got, f"1 to {shapley.EVALUATIONS}", bundle.REMAKE))
    level, threads = scorer.get("level", "all"), scorer.get("threads", 1)  # not in bundles of earlier versions
    if level not in LEVELS or not isinstance(threads, int) or not 1 <= threads <= THREADS:
        got = f"level {level}, {threads} threads"
        raise BundleError(
            Problem(str(contents.folder / "scorer.json"), got, f"one of {', '.join(LEVELS)}, 1 to {THREADS} threads", bundle.REMAKE)
        )
    for action in policy["payoffs"]["actions"]:
        if action.get("quantity") is not None:
            quantity = action["quantity"]
            steps = (quantity["max"] - quantity["min"]) / quantity["step"]
            if not 0 <= steps <= 1000:
                where = str(contents.folder / "policy.json")
                raise BundleError(Problem(where, f"{steps:.3g} steps of a quantity", "0 to 1000", bundle.REMAKE))
    if policy["averse"] and (policy["limits"] or scorer["sets"] is None or scorer["kind"] != "classes"):
        where = str(contents.folder / "policy.json")
        raise BundleError(Problem(where, "an averse policy", "prediction sets to decide by, and no limits", bundle.REMAKE))
    return Model(
        case=case,
        task=Task(scorer["kind"], tuple(scorer["classes"]), tuple(scorer["levels"])),
        transform=Transform.from_json(contents.json("transform.json")),
        scorer=Scorer(contents.files["scorer.onnx"], int(scorer["rows"]), level, threads),
        policy=Policy.from_json(policy),
        background=contents.json("background.json"),
        calibrator=None if scorer["calibrator"] is None else Calibrator.from_json(scorer["calibrator"]),
        conformal=None if scorer["conformal"] is None else Conformal.from_json(scorer["conformal"]),
        sets=None if scorer["sets"] is None else Sets.from_json(scorer["sets"]),
        verdict=contents.manifest.verdict,
        id=f"{contents.manifest.case}@{contents.hash[:12]}",
        evaluations=evaluations,
        reference=msgspec.convert(contents.json("reference.json"), Reference) if "reference.json" in contents.files else None,
        optimised=contents.json("optimise.json") if "optimise.json" in contents.files else None,
    )


def _check(model: Model, at: str) -> None:
    """Raise unless the scorer is one that a bundle may hold and fits the other parts, and there are background rows."""
    bundle.check_onnx(model.scorer.model, f"{at}scorer.onnx")
    model.scorer.check(len(model.transform.features), len(model.task.classes if model.task.kind == "classes" else model.task.levels))
    if not rows_of(model._background) and model.transform.inputs:
        raise DataError(Problem(f"{at}background", "no row on which every payoff is a number", "at least one", "give rows of the data"))


def _golden(model: Model, raw: Raw) -> Golden:
    """Return the golden rows of a model; raises `DataError` where no row has a payoff."""
    model._length(raw)
    known = {name: values for name, values in raw.items() if name in model._inputs}
    spared = [name for name in known if name not in model._required]
    most = min(ROWS, max(FEWEST, CELLS // max(len(model.transform.features), 1)))
    rows = pick(known, spared, lambda row: model._pays(model.transform.read({name: [cell] for name, cell in row.items()})[0]), most)
    if not rows:
        raise DataError(Problem("rows", "no row on which every payoff is a number", "at least one", "complete the payoffs' columns"))
    return _observed(model, rows)[0]


def _observed(model: Model, rows: list[dict[str, Any]]) -> tuple[Golden, Floats]:
    """Return what becomes of rows, step by step, and the payoffs (n, n_options) net of the limits' prices."""
    names = dict.fromkeys(name for row in rows for name in row)
    found = model._assess({name: [row.get(name) for row in rows] for name in names})
    choices = model.policy.decide(found.expected, found.priced, found.least)
    seen = Golden(
        rows=rows,
        features=found.features.tolist(),
        raw=found.raw.tolist(),
        predictive=values_of(found.predictive).tolist(),
        expected=found.expected.tolist(),
        promise=choices.promise.tolist(),
        option=[model.policy.payoffs.options[o].name for o in choices.option],
        sets=[] if found.sets is None else found.sets.astype(np.int64).tolist(),
        guaranteed=[] if choices.guaranteed is None else choices.guaranteed.tolist(),
    )
    return seen, model.policy.net(found.expected, found.priced, found.least)
