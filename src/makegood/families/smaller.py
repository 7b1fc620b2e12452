"""Cheaper variants of a scorer: one explicit table of what may be done to it, each a function from a `Start` to another `Scorer`.

A variant takes the start as it is deployed and gives a scorer of the same features and outputs, or says in words why it does not suit.
What quantises is ONNX Runtime's own, into operators of standard ONNX; weights keep seven bits, so that no processor's saturation changes
what comes out.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

from makegood import bundle, families
from makegood.contracts import Budget, Dataset, Floats, Ints, Task
from makegood.errors import BundleError
from makegood.families.onnx import Scorable, merge
from makegood.scorer import INPUT, Scorer

CALIBRATED = 256
"""Rows, at most, from which static quantisation takes the ranges of what flows through the graph."""

TAUGHT = 20_000
"""Rows, at most, that a student learns from."""

_LEAST = 0.01  # of a teacher's probability: less teaches nothing, and makes rows
_PRODUCTS = ("MatMul", "Gemm", "Conv")
_CONSTANT = ("MatMul", "Conv")  # what dynamic quantisation knows


class Part(NamedTuple):
    """One fitted model of an average: the candidate that it is of, its weight (they sum to one), and the model."""

    name: str
    weight: float
    model: Scorable


@dataclass(frozen=True)
class Lesson:
    """What a student learns from: the rows of the start's own training, with some of them, `valid`, to stop by."""

    data: Dataset
    train: Ints
    valid: Ints
    task: Task
    seconds: float
    seed: int


@dataclass(frozen=True)
class Start:
    """What variants are made of: a scorer as deployed, and rows (n, n_features) as it meets them.

    `parts` are the models that it is the average of, and `lesson` what they learnt from: neither is left of a bundle.
    """

    scorer: Scorer
    rows: Floats
    k: int
    parts: tuple[Part, ...] = ()
    lesson: Lesson | None = None


Made = Scorer | str
"""A variant's scorer, or why the variant does not suit."""


@dataclass(frozen=True)
class Recipe:
    """A variant by name: `steps` is how many changes it is away from the start, the simpler first."""

    name: str
    steps: int
    make: Callable[[Start], Made]


def table() -> tuple[Recipe, ...]:
    """Return every variant that there is, in the order in which they are made."""
    one = trimmed(1)
    return (
        Recipe("one model of each family", 1, _scorer(one)),
        Recipe("two models of each family", 1, _scorer(trimmed(2))),
        Recipe("the heaviest family", 1, _scorer(heaviest)),
        Recipe("one model of the heaviest family", 2, _scorer(heaviest, one)),
        Recipe("int8, ranges by row", 1, dynamic),
        Recipe("int8, ranges by calibration", 1, static),
        Recipe("one model of each family, int8, ranges by row", 2, _scorer(one, then=dynamic)),
        Recipe("one model of each family, int8, ranges by calibration", 2, _scorer(one, then=static)),
        Recipe("graph level basic", 1, at_level("basic")),
        Recipe("graph level extended", 1, at_level("extended")),
        Recipe("two threads", 1, on_threads(2)),
        Recipe("distilled into trees", 3, into_trees),
        Recipe("distilled into one network", 3, into_network),
        Recipe("half of the hidden units", 3, _scorer(halved)),
        Recipe("one model of each family, half of its hidden units", 4, _scorer(one, halved)),
        Recipe("half precision on a GPU", 1, half_precision),
    )


# ------------------------------------------------------------------------------------------------------------ the ensemble


def trimmed(k: int) -> Callable[[Start], Start | str]:
    """Return what keeps the first `k` models of each candidate, which share its weight.

    The models of one candidate differ only in which fold of the rows they did not see: a ranking by their losses, each on other rows,
    would rank the folds.
    """

    def trim(start: Start) -> Start | str:
        if not start.parts:
            return _NO_PARTS
        groups = _groups(start.parts)
        if all(len(group) <= k for group in groups.values()):
            return f"no family has more than {k} {'model' if k == 1 else 'models'} in the average"
        kept = (
            Part(name, sum(p.weight for p in group) / len(group[:k]), part.model) for name, group in groups.items() for part in group[:k]
        )
        return _with_parts(start, tuple(kept))

    return trim


def heaviest(start: Start) -> Start | str:
    """Return the start with the models of one candidate alone, the one of the most weight."""
    if not start.parts:
        return _NO_PARTS
    groups = _groups(start.parts)
    if len(groups) == 1:
        return "the average is of one family"
    weights = {name: sum(part.weight for part in group) for name, group in groups.items()}
    name = max(weights, key=weights.__getitem__)
    return _with_parts(start, tuple(part._replace(weight=part.weight / weights[name]) for part in groups[name]))


_NO_PARTS = "a bundle holds one graph: the models that it is the average of are not kept apart; run the case with `optimise:`"


def _groups(parts: Sequence[Part]) -> dict[str, list[Part]]:
    groups: dict[str, list[Part]] = {}
    for part in parts:
        groups.setdefault(part.name, []).append(part)
    return groups


def _with_parts(start: Start, parts: tuple[Part, ...]) -> Start:
    scorer = merge([(part.model, part.weight) for part in parts], start.rows.shape[1], start.k)
    return replace(start, parts=parts, scorer=scorer)


def _scorer(*changes: Callable[[Start], Start | str], then: Callable[[Start], Made] | None = None) -> Callable[[Start], Made]:
    """Return one change after another as one variant; the first that does not suit says why."""

    def make(start: Start) -> Made:
        for change in changes:
            changed = change(start)
            if isinstance(changed, str):
                return changed
            start = changed
        return start.scorer if then is None else then(start)

    return make


# --------------------------------------------------------------------------------------------------------------- precision


def dynamic(start: Start) -> Made:
    """Return the graph with int8 weights, whose inputs are quantised by the range of each row itself: one row is scored at a time."""
    return _quantised(
        start, _CONSTANT, lambda model, path: quantize_dynamic(model, path, _CONSTANT, weight_type=QuantType.QInt8, reduce_range=True)
    )


def static(start: Start) -> Made:
    """Return the graph with int8 weights and inputs, whose ranges are those on up to `CALIBRATED` of the start's rows."""
    if not len(start.rows):
        return "no rows to take ranges from"

    def quantise(model: onnx.ModelProto, path: Path) -> None:
        quantize_static(
            model,
            path,
            _Rows(start.rows[np.linspace(0, len(start.rows) - 1, min(CALIBRATED, len(start.rows))).astype(int)]),
            op_types_to_quantize=_PRODUCTS,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )

    return _quantised(start, _PRODUCTS, quantise)


def half_precision(start: Start) -> Made:
    """Say why there is none."""
    return "bundles are scored on processors, which compute in float32; half precision pays on a GPU alone"


class _Rows(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
    """Rows one at a time, as the quantiser asks for them."""

    def __init__(self, rows: Floats) -> None:
        self._left = iter(np.ascontiguousarray(rows, np.float32))

    def get_next(self) -> dict[str, Any] | None:
        """Return the next row as the graph's input; None after the last."""
        row = next(self._left, None)
        return None if row is None else {INPUT: row[None]}


def _quantised(start: Start, kinds: Sequence[str], quantise: Callable[[onnx.ModelProto, Path], None]) -> Made:
    model = onnx.load_from_string(start.scorer.model)
    if not any(node.op_type in kinds for node in model.graph.node):
        return "the graph has no matrix product or convolution to quantise"
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "quantised.onnx"
        quantise(model, path)
        made = onnx.load(path)
    used = {node.domain for node in made.graph.node}
    standard = [opset for opset in made.opset_import if opset.domain in bundle.DOMAINS or opset.domain in used]
    del made.opset_import[:]
    made.opset_import.extend(standard)
    made.producer_name, made.producer_version = "makegood", ""
    del made.metadata_props[:]
    data = made.SerializeToString(deterministic=True)
    try:
        bundle.check_onnx(data, "scorer.onnx")
    except BundleError as error:
        return f"quantised it has {error.problems[0].got}, which a bundle may not hold"
    scorer = Scorer(data, rows=1)
    if not np.isfinite(scorer(np.asarray(start.rows[:8]))).all():
        return "quantised it gives numbers that are not finite"
    return scorer


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser from advising on the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


# -------------------------------------------------------------------------------------------------------------- ONNX Runtime


def at_level(level: str) -> Callable[[Start], Made]:
    """Return what runs the same graph with less rewriting."""
    return lambda start: replace(start.scorer, level=level)


def on_threads(threads: int) -> Callable[[Start], Made]:
    """Return what runs the same graph on more threads, unless that changes a bit of any of the start's rows."""

    def make(start: Start) -> Made:
        if (os.cpu_count() or 1) < threads:
            return f"this machine has fewer than {threads} cores"
        scorer = replace(start.scorer, threads=threads)
        rows = start.rows[: max(CALIBRATED, min(start.scorer.rows, len(start.rows)))]
        if not np.array_equal(scorer(rows), start.scorer(rows)):
            return f"{threads} threads take sums in another order: they change the bits of a row"
        return scorer

    return make


# -------------------------------------------------------------------------------------------------------------- distillation


def into_trees(start: Start) -> Made:
    """Return trees that learnt the start's own probabilities (distillation: Hinton, Vinyals & Dean 2015, at temperature 1)."""
    if start.parts and {part.name for part in start.parts} == {"lightgbm"} and len(start.parts) == 1:
        return "it is one ensemble of trees already"
    if start.lesson is not None and start.lesson.data.tokens is not None:
        return "trees would read the ids of words as amounts"
    return _distilled(start, "lightgbm")


def into_network(start: Start) -> Made:
    """Return one network, of the heaviest family of networks in the average, that learnt the start's own probabilities."""
    weights: dict[str, float] = {}
    for part in start.parts:
        if part.name in families.TABLE and getattr(part.model, "patient", False):
            weights[part.name] = weights.get(part.name, 0.0) + part.weight
    if start.parts and not weights:
        return "there is no built-in network in the average"
    if len(start.parts) == 1:
        return "it is one network already"
    return _distilled(start, max(weights, key=weights.__getitem__) if weights else "")


def _distilled(start: Start, family: str) -> Made:
    lesson = start.lesson
    if lesson is None:
        return "a bundle holds no rows to teach a student with; run the case with `optimise:`"
    if lesson.task.kind != "classes":
        return "only probabilities are distilled so far, not the quantiles of a number"
    rng = np.random.default_rng(lesson.seed)
    train, valid = (_some(rows, most, rng) for rows, most in ((lesson.train, TAUGHT), (lesson.valid, TAUGHT // 4)))
    begun = time.perf_counter()
    taught = [_taught(lesson.data.take(rows), start.scorer) for rows in (train, valid)]
    (candidate,) = families.find((family,))
    model = candidate.make(lesson.task)
    model.fit(taught[0], taught[1], budget=Budget(lesson.seconds, begun), seed=lesson.seed)
    assert isinstance(model, Scorable), "every built-in family writes itself into a graph"
    return merge([(model, 1.0)], start.rows.shape[1], start.k)


def _some(rows: Ints, most: int, rng: np.random.Generator) -> Ints:
    return np.sort(rng.permutation(rows)[:most])


def _taught(data: Dataset, teacher: Scorer) -> Dataset:
    """Return the rows once for each class that the teacher gives them some probability of, weighted by it.

    The mean log loss over these is the cross entropy to the teacher's probabilities, so that any family that knows weights can learn
    it.
    """
    p = teacher(np.asarray(data.features, np.float32))
    p = np.where(p < _LEAST, 0.0, p)
    row, code = np.nonzero(p)
    repeated = data.take(row)
    weight = (p / p.sum(axis=1, keepdims=True))[row, code]
    return replace(repeated, outcome=code.astype(np.int64), weight=weight)


# ------------------------------------------------------------------------------------------------------------------ pruning


@runtime_checkable
class Prunable(Scorable, Protocol):
    """A fitted network that can leave out the hidden units of least weight and learn on without them."""

    def pruned(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        """Return the smaller network."""
        ...


def halved(start: Start) -> Start | str:
    """Return the start with half of the hidden units in each network that can be pruned, fine-tuned on the lesson's own outcomes."""
    lesson = start.lesson
    if lesson is None:
        return "a bundle holds no rows to fine-tune on; run the case with `optimise:`"
    many = sum(isinstance(part.model, Prunable) for part in start.parts)
    if not many:
        return "of the families only the built-in mlp can be pruned so far"
    train, valid = lesson.data.take(lesson.train), lesson.data.take(lesson.valid)
    parts = []
    for part in start.parts:
        model: Scorable = part.model
        if isinstance(model, Prunable):
            model = model.pruned(train, valid, budget=Budget(lesson.seconds / many, time.perf_counter()), seed=lesson.seed)
        parts.append(part._replace(model=model))
    return _with_parts(start, tuple(parts))
