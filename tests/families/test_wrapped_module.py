"""Networks from outside: trained in our loop, exported exactly, or refused by name with what to do."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from makegood.contracts import Budget, Dataset, Family, Probabilities, Quantiles, Task
from makegood.errors import CaseError, Refused
from makegood.families import wrap
from makegood.families.wrapped_module import Module

BINARY, NUMBER = Task("classes", ("no", "yes")), Task("number")


def mlp(outputs: int) -> nn.Module:
    return nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, outputs))


class Branching(nn.Module):
    """A module whose operations depend on the data: it trains and has no graph."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x) if float(x.sum()) > 0 else self.line(-x)


class Pair(nn.Module):
    """A module with two outputs."""

    def forward(self, x: Tensor) -> Any:
        return x, x


def _data(number: bool = False) -> Dataset:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 4)).astype(np.float32)
    signal = X[:, 0] * X[:, 1] + 0.3 * X[:, 2]
    return Dataset(pa.table({"row": np.arange(1000)}), X, 5000.0 + 800.0 * signal if number else (signal > 0).astype(np.int64))


def _fit(module: Any, task: Task, data: Dataset, seconds: float = 30.0, **recipe: Any) -> Family:
    train, valid = data.take(np.arange(700)), data.take(np.arange(700, 1000))
    return wrap(module, recipe=recipe).make(task).fit(train, valid, budget=Budget(seconds, time.perf_counter()), seed=0)


def test_a_module_learns_what_no_line_can() -> None:
    data = _data()
    found = _fit(mlp(2), BINARY, data, epochs=60, lr=0.02).predict(data.take(np.arange(700, 1000)))
    assert isinstance(found, Probabilities)
    assert (found.p.argmax(axis=1) == np.asarray(data.outcome)[700:]).mean() > 0.85


def test_a_number_is_learnt_in_its_own_unit_with_the_quantiles_of_the_residuals() -> None:
    data = _data(number=True)
    found = _fit(mlp(1), NUMBER, data, epochs=60, lr=0.02).predict(data.take(np.arange(700, 1000)))
    assert isinstance(found, Quantiles)
    y = np.asarray(data.outcome)[700:]
    assert np.abs(found.q[:, 5] - y).mean() < 0.5 * np.abs(y - np.median(y)).mean()
    assert 0.8 < ((found.q[:, 0] <= y) & (y <= found.q[:, -1])).mean() < 0.98


def test_the_module_given_and_the_random_state_are_not_changed() -> None:
    module, data = nn.Linear(4, 2), _data()
    before, state = module.weight.detach().clone(), torch.get_rng_state()
    _fit(module, BINARY, data, epochs=2)
    assert torch.equal(module.weight, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_graph_tells_nothing_of_where_it_was_made() -> None:
    family = _fit(mlp(2), BINARY, _data(), epochs=1)
    assert isinstance(family, Module)
    model = onnx.load_from_string(family.model_)
    assert [node.name for node in model.graph.node if node.metadata_props or node.doc_string] == []
    assert __file__.encode() not in family.model_
    assert b"site-packages" not in family.model_


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            mlp(3),
            "wrap(Sequential): got 'Tensor (2, 3)'; expected logits (n, 2), one a class; change its last layer; softmax is added by us",
        ),
        (Pair(), "wrap(Pair): got 'tuple'; expected logits (n, 2), one a class; change its last layer; softmax is added by us"),
        (
            nn.Linear(7, 2),
            "wrap(Linear): got 'RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x4 and 7x2)'; expected a module of features "
            "(n, 4) float32; its first layer must take that many; nn.LazyLinear finds out by itself",
        ),
    ],
    ids=["classes", "outputs", "inputs"],
)
def test_a_module_that_does_not_fit_the_rows_is_refused_before_it_trains(module: nn.Module, message: str) -> None:
    with pytest.raises(CaseError) as error:
        _fit(module, BINARY, _data())
    assert str(error.value) == message


def test_a_module_without_a_graph_is_refused_by_name() -> None:
    with pytest.raises(Refused) as error:
        _fit(Branching(), BINARY, _data(), epochs=1)
    assert str(error.value).startswith("wrap(Branching): got ")
    assert str(error.value).endswith("expected a module that exports to ONNX; no branches on the data; operators of the standard set")


def test_a_network_that_diverges_is_refused() -> None:
    with pytest.raises(Refused, match=r"training loss: got '(nan|inf)'; expected a finite number; lower the learning rate"):
        _fit(nn.Linear(4, 1), NUMBER, _data(number=True), epochs=40, lr=1e30, clip=None, optimiser="sgd")


def test_a_recipe_is_read_with_care() -> None:
    with pytest.raises(CaseError) as error:
        wrap(mlp(2), recipe={"epoch": 3})
    assert str(error.value).startswith("recipe: got 'epoch'; expected some of epochs, batch_size, lr")
    assert "did you mean 'epochs'?" in str(error.value)
    with pytest.raises(CaseError, match=r"recipe.epochs: got '0'; expected at least 1"):
        wrap(mlp(2), recipe={"epochs": 0})


def test_without_the_exporter_the_missing_extra_is_named() -> None:
    script = (
        "import sys; sys.modules['onnxscript'] = None\n"
        "from torch import nn\n"
        "from makegood.errors import MissingExtra\n"
        "from makegood.families import wrap\n"
        "try: wrap(nn.Linear(2, 2))\n"
        "except MissingExtra as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert out == "wrap; expected onnxscript, which exports torch models to ONNX; pip install 'makegood[deep]'"


def test_a_name_can_be_given() -> None:
    assert wrap(mlp(2)).name == "Sequential"
    assert wrap(mlp(2), name="net").name == "net"
