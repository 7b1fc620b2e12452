"""What a Keras model takes and gives, its answers as a graph gives them, and graphs that no export makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from makegood.contracts import Task
from makegood.errors import CaseError, Problem, Refused
from makegood.families.keras_form import Form, _told, answer, check_graph, form_of, head_of, with_head

TWO, THREE, NUMBER = Task("classes", ("no", "yes")), Task("classes", ("a", "b", "c")), Task("number")


def line(k: int = 3, p: int = 4, **changes: Any) -> onnx.ModelProto:
    """Return a graph that multiplies features by a matrix."""
    weights = numpy_helper.from_array(np.random.default_rng(0).normal(size=(p, k)).astype(np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["features", "w"], ["out"])],
        "line",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, p])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, k])],
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(
    ("units", "activation", "task", "logits", "head"),
    [
        (3, "softmax", THREE, None, ""),
        (3, "linear", THREE, None, "softmax"),
        (3, "softmax", THREE, True, "softmax"),
        (3, "linear", THREE, False, ""),
        (1, "sigmoid", TWO, None, "pair"),
        (1, "linear", TWO, None, "sigmoid"),
        (1, "linear", TWO, True, "sigmoid"),
        (1, "relu", NUMBER, None, ""),
    ],
)
def test_the_loss_tells_what_outputs_are_or_else_the_last_activation(
    units: int, activation: str, task: Task, logits: Any, head: str
) -> None:
    assert head_of(Form((4,), "float32", units, activation), task, logits, "it") == head


def test_an_activation_that_gives_no_probabilities_is_refused() -> None:
    with pytest.raises(CaseError) as error:
        head_of(Form((4,), "float32", 3, "relu"), THREE, None, "net.keras")
    assert str(error.value) == (
        "net.keras: got \"an activation 'relu'\"; expected a last layer with softmax, or a linear one; "
        "its outputs must be probabilities or logits"
    )


@pytest.mark.parametrize(("head", "k"), [("", 3), ("softmax", 3), ("sigmoid", 1), ("pair", 1)])
def test_a_graph_answers_as_the_arrays_do(head: str, k: int) -> None:
    model = line(k).SerializeToString()
    X = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32) * 30.0
    raw, whole = (ort.InferenceSession(m) for m in (model, with_head(model, head)))
    outputs, found = (np.concatenate([s.run(None, {"features": x[None]})[0] for x in X]) for s in (raw, whole))
    np.testing.assert_allclose(found, answer(outputs, head), atol=1e-6)
    if head in ("softmax", "sigmoid"):
        assert found.shape == (20, max(2, k))
        np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------- foreign graphs


def outside() -> onnx.ModelProto:
    made = line()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="passwd")
    return made


def nested() -> onnx.ModelProto:
    made = line()
    body = helper.make_graph([], "body", [], [])
    made.graph.node[0].CopyFrom(helper.make_node("If", ["features"], ["out"], then_branch=body, else_branch=body))
    return made


def foreign() -> onnx.ModelProto:
    made = line()
    made.graph.node[0].domain = "com.microsoft"
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return made


def renamed() -> onnx.ModelProto:
    made = line()
    made.graph.input[0].name = made.graph.node[0].input[0] = "x"
    return made


@pytest.mark.parametrize("make", [outside, nested, foreign, renamed, lambda: line(2), lambda: line(3, 5)])
def test_a_graph_that_no_export_gives_is_refused(make: Any) -> None:
    form = Form((4,), "float32", 3, "softmax")
    check_graph(line().SerializeToString(), form, "net.keras")
    with pytest.raises(Refused, match=r"net.keras: got "):
        check_graph(make().SerializeToString(), form, "net.keras")


def test_bytes_that_are_no_graph_are_refused() -> None:
    with pytest.raises(Refused, match=r"net.keras: got .*; expected a graph in ONNX; save the model again"):
        check_graph(b"not a graph", Form((4,), "float32", 3, ""), "net.keras")


def test_what_the_process_says_is_told_in_its_own_parts_or_as_it_stands() -> None:
    said = Problem("the limited process", '["a Lambda", "layers of Keras", "replace it"]', "an end without an error")
    assert str(_told(said, "net.keras")) == "net.keras: got 'a Lambda'; expected layers of Keras; replace it"
    assert str(_told(Problem("the limited process", "a crash", "an end"), "net.keras")) == "net.keras: got 'a crash'; expected an end"


class TwoEnds:
    """What a model with two inputs looks like."""

    inputs = (1, 2)
    outputs = (1,)


def test_a_model_with_several_inputs_is_refused() -> None:
    with pytest.raises(CaseError) as error:
        form_of(TwoEnds(), "it")
    assert str(error.value) == (
        "it: got 'TwoEnds'; expected a model with one input and one output; use keras.Sequential or keras.Model(inputs, outputs), with one of each"
    )
