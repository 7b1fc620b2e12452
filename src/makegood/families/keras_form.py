"""What a Keras model takes and gives, how that answers a task, and its way to ONNX. Nothing here imports Keras."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from makegood.contracts import Dataset, Floats, Task
from makegood.errors import CaseError, Problem, Refused
from makegood.families import limited
from makegood.scorer import INPUT

FORM, GRAPH, OUTPUTS = "form.json", "model.onnx", "outputs.npy"
SECONDS, MEMORY = 180.0, 8 << 30  # for one conversion
_NUMBERS = ("float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")


@dataclass(frozen=True)
class Form:
    """One input of `inputs` (a row's shape) and `dtype`; `units` outputs a row, out of the layer's `activation` ("" when it names none)."""

    inputs: tuple[int, ...]
    dtype: str
    units: int
    activation: str

    @property
    def n_features(self) -> int:
        """How many numbers a row has."""
        return int(np.prod(self.inputs, dtype=np.int64))

    def check(self, data: Dataset, task: Task, where: str) -> None:
        """Raise `CaseError` unless the model takes these rows and answers this task."""
        assert data.features is not None, "preparation comes before a family of features"
        p = data.features.shape[1]
        fits = data.shape is None or self.inputs in (data.shape, data.shape[:2], (p,))
        if self.n_features != p or not fits:
            wanted = (p,) if data.shape is None else data.shape
            what = f"{p} features" if data.shape is None else "an image's height, width and channels"
            raise CaseError(Problem(where, f"an input of {self.inputs}", f"{wanted}, {what}", f"begin with keras.Input({wanted})"))
        k = len(task.classes)
        allowed = {1} if task.kind == "number" else {1, 2} if k == 2 else {k}
        if self.units not in allowed:
            expected = "one number a row" if task.kind == "number" else f"{k}, one a class" if k != 2 else "2, one a class, or one sigmoid"
            raise CaseError(Problem(where, f"{self.units} outputs a row", expected, "change its last layer"))


def form_of(model: Any, where: str = "the model") -> Form:
    """Return the form of a built Sequential or functional model; raises `CaseError` where it has another."""
    ends = [getattr(model, name, None) or [] for name in ("inputs", "outputs")]
    if not all(isinstance(end, list) and len(end) == 1 for end in ends):
        mend = "use keras.Sequential or keras.Model(inputs, outputs), with one of each"
        raise CaseError(Problem(where, type(model).__name__, "a model with one input and one output", mend))
    (inputs,), (outputs,) = ends
    shape, dtype, out = tuple(inputs.shape[1:]), str(inputs.dtype), tuple(outputs.shape[1:])
    if None in shape or not shape or dtype not in _NUMBERS:
        raise CaseError(Problem(where, f"an input of {shape} {dtype}", "numbers of a fixed shape", "write it in keras.Input((…))"))
    if len(out) != 1 or out[0] is None:
        raise CaseError(Problem(where, f"an output of {out}", "one row of numbers, (n, units)", "end with keras.layers.Dense(units)"))
    last = outputs._keras_history.operation
    kind = getattr(last, "activation", None)
    name = getattr(kind, "__name__", "") if kind is not None else type(last).__name__.lower()
    return Form(tuple(map(int, shape)), dtype, int(out[0]), name)


def head_of(form: Form, task: Task, logits: bool | None, where: str) -> str:
    """Return what turns outputs into the task's answer: "", "softmax", "sigmoid" or "pair" (p becomes 1 − p, p).

    `logits` is what the loss says of the outputs; None asks the last layer's activation. Raises `CaseError` where that does not tell.
    """
    if task.kind == "number":
        return ""
    single = form.units == 1
    proper = "sigmoid" if single else "softmax"
    if logits is None:
        if form.activation not in (proper, "linear"):
            expected = f"a last layer with {proper}, or a linear one"
            raise CaseError(Problem(where, f"an activation {form.activation!r}", expected, "its outputs must be probabilities or logits"))
        logits = form.activation == "linear"
    if logits:
        return proper
    return "pair" if single else ""


def answer(outputs: Floats, head: str) -> Floats:
    """Return a model's outputs (n, units) as the task's answer, in float32 as the graph does."""
    if head == "softmax":
        powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    if head == "sigmoid":
        with np.errstate(over="ignore"):  # e^x beyond the largest number: p is 0
            outputs = 1.0 / (1.0 + np.exp(-outputs))
    return np.hstack([1.0 - outputs, outputs]) if head else outputs


def with_head(model: bytes, head: str) -> bytes:
    """Return a graph whose outputs are `answer`s."""
    if not head:
        return model
    loaded = onnx.load_from_string(model)
    graph, float32 = loaded.graph, onnx.TensorProto.FLOAT
    p, k = graph.output[0].name, graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    if head == "softmax":
        graph.node.append(helper.make_node("Softmax", [p], ["head.answer"], axis=-1))
    else:
        k = 2
        if head == "sigmoid":
            graph.node.append(helper.make_node("Sigmoid", [p], ["head.p"]))
            p = "head.p"
        graph.initializer.append(numpy_helper.from_array(np.array(1.0, np.float32), "head.one"))
        graph.node.append(helper.make_node("Sub", ["head.one", p], ["head.rest"]))
        graph.node.append(helper.make_node("Concat", ["head.rest", p], ["head.answer"], axis=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("head.answer", float32, [1, k]))
    return bytes(loaded.SerializeToString(deterministic=True))


def converted(archive: Path, where: str) -> tuple[Form, bytes]:
    """Return the form and the ONNX graph of a saved model, made behind walls; raises `Refused` with what was wrong there."""
    with tempfile.TemporaryDirectory(prefix="makegood-") as made:
        folder = _behind_walls(archive, Path(made), where)
        raw = json.loads((folder / FORM).read_text(encoding="utf-8"))
        form = Form(tuple(map(int, raw["inputs"])), str(raw["dtype"]), int(raw["units"]), str(raw["activation"]))
        graph = (folder / GRAPH).read_bytes()
    check_graph(graph, form, where)
    return form, graph


def predicted(archive: Path, rows: Floats, where: str) -> Floats:
    """Return what a saved model itself gives (n, units) for rows (n, n_features), computed behind walls."""
    with tempfile.TemporaryDirectory(prefix="makegood-") as made:
        np.save(Path(made) / "rows.npy", np.ascontiguousarray(rows, np.float32), allow_pickle=False)
        folder = _behind_walls(archive, Path(made), where, "rows.npy")
        return np.asarray(np.load(folder / OUTPUTS, allow_pickle=False))


def _behind_walls(archive: Path, folder: Path, where: str, *rows: str) -> Path:
    shutil.copyfile(archive, folder / archive.name)
    environment = {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}
    try:
        limited.run("makegood.families._convert", [archive.name, *rows], folder=folder, seconds=SECONDS, memory=MEMORY, env=environment)
    except Refused as error:
        raise Refused(_told(error.problems[0], where)) from None
    return folder


def _told(problem: Problem, where: str) -> Problem:
    """Return what the process said is wrong, in its own three parts if it got so far as to say them."""
    try:
        got, expected, mend = map(str, json.loads(problem.got))
    except (TypeError, ValueError):
        return replace(problem, where=where)
    return Problem(where, got, expected, mend)


def check_graph(model: bytes, form: Form, where: str) -> None:
    """Raise `Refused` unless a graph computes with standard operators, without loops, and holds all that it needs.

    A file that took over the process behind the walls could have written it.
    """
    try:
        onnx.checker.check_model(model)
    except (ValueError, onnx.checker.ValidationError) as error:
        raise Refused(Problem(where, str(error).strip().splitlines()[0][:160], "a graph in ONNX", "save the model again")) from None
    loaded = onnx.load_from_string(model)
    graph = loaded.graph
    ends = [(end.name, [d.dim_value for d in end.type.tensor_type.shape.dim]) for end in (*graph.input, *graph.output)]
    tensors = [*graph.initializer, *(a.t for node in graph.node for a in node.attribute if a.HasField("t"))]
    outside = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors)
    nested = any(a.HasField("g") or a.graphs for node in graph.node for a in node.attribute)
    foreign = bool(loaded.functions) or any(node.domain for node in graph.node) or bool(graph.sparse_initializer)
    if outside or nested or foreign or [shape for _, shape in ends] != [[1, form.n_features], [1, form.units]] or ends[0][0] != INPUT:
        got = "a graph that is not what an export gives"
        raise Refused(Problem(where, got, "one input, one output, standard operators", "save the model again"))
