from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.families.conformance import assert_same, assert_valid

from makegood.contracts import Budget, Dataset, Predictive, Probabilities, Quantiles, Task
from makegood.errors import Refused
from makegood.families.networks import MLP, TOKENS, Transformer, encoding
from makegood.families.onnx import Graph, Scorable, merge
from makegood.families.tabular import Constant
from makegood.stages.predictives import losses

TWO, THREE, NUMBER = Task("classes", ("no", "yes")), Task("classes", ("a", "b", "c")), Task("number")
FAMILIES = (MLP, Transformer)
Net = MLP | Transformer


def rows(task: Task, n: int = 300, seed: int = 0, weight: Any = None) -> Dataset:
    """Return numbers, a category of three levels and a flag; the outcome follows a step, a bend and the category."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(n, 3)) * [1.0, 10.0, 0.1]
    level = np.eye(3)[rng.integers(0, 3, n)]
    X = np.column_stack([numbers, level, rng.integers(0, 2, n)]).astype(np.float32)
    signal = 2.0 * (X[:, 0] > 0.0) + np.abs(X[:, 1]) / 10.0 + 2.0 * X[:, 3] + rng.normal(0.0, 0.3, n)
    k = len(task.classes)
    outcome = np.searchsorted(np.quantile(signal, np.arange(1, k) / k), signal) if k else 1000.0 + 50.0 * signal
    return Dataset(pa.table({"row": np.arange(n)}), X, outcome, weight)


def plain(X: Any, outcome: Any) -> Dataset:
    return Dataset(pa.table({"row": np.arange(len(X))}), np.asarray(X, np.float32), np.asarray(outcome))


def fit(family: Net, data: Dataset | None = None, valid: Dataset | None = None, seconds: float = 60.0, seed: int = 1) -> Net:
    budget = Budget(seconds, time.perf_counter())
    return family.fit(data or rows(family.task), valid or rows(family.task, 100, seed=1), budget=budget, seed=seed)


def loss(predictive: Predictive, data: Dataset) -> float:
    return float(losses(predictive, np.asarray(data.outcome)).mean())


@pytest.fixture(scope="module", params=[(family, task) for family in FAMILIES for task in (TWO, THREE, NUMBER)], ids=str)
def fitted(request: pytest.FixtureRequest) -> Iterator[Net]:
    family, task = request.param
    return fit(family(task))


def test_a_network_beats_the_constant(fitted: Net) -> None:
    test = rows(fitted.task, 200, seed=2)
    constant = Constant(fitted.task).fit(rows(fitted.task), test, budget=Budget(1.0, 0.0), seed=0)
    assert loss(fitted.predict(test), test) < 0.6 * loss(constant.predict(test), test)


def test_one_row_has_the_bits_that_it_has_in_a_batch(fitted: Net) -> None:
    data = rows(fitted.task, 40, seed=3).without_outcome()
    whole = fitted.predict(data)
    assert_valid(whole, 40)
    for i in range(40):
        one = fitted.predict(data.take(np.array([i])))
        assert values(one).tolist() == values(whole)[i : i + 1].tolist()


def test_a_saved_network_predicts_with_the_same_bits(fitted: Net, tmp_path: Path) -> None:
    data = rows(fitted.task, 30, seed=4).without_outcome()
    fitted.save(tmp_path / "net")
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == ["family.json", "weights.npz"]
    loaded = type(fitted).load(tmp_path / "net")
    assert_same(loaded.predict(data), fitted.predict(data))
    assert loaded.task == fitted.task


def test_beyond_the_training_range_a_row_stands_on_its_border(fitted: Net) -> None:
    far = np.array([[3e38] * 7, [-3e38] * 7], np.float32)
    border = np.clip(far, fitted.arrays_["low"], fitted.arrays_["high"])
    task = fitted.task
    assert_same(fitted.predict(plain(far, [0, 0])), fitted.predict(plain(border, [0, 0])))
    assert_valid(fitted.predict(plain(far, [0, 0])), 2)
    assert fitted.task is task


def test_a_network_joins_a_graph_with_others(fitted: Net) -> None:
    assert isinstance(fitted, Scorable)
    data = rows(fitted.task, 20, seed=5)
    constant = Constant(fitted.task).fit(rows(fitted.task), data, budget=Budget(1.0, 0.0), seed=0)
    k = len(fitted.task.classes) or len(fitted.task.levels)
    both = merge([(fitted, 0.75), (constant, 0.25)], 7, k)
    assert both.rows == 1
    wanted = 0.75 * values(fitted.predict(data)) + 0.25 * values(constant.predict(data))
    np.testing.assert_allclose(both(np.asarray(data.features, np.float32)), wanted, rtol=1e-12)


def values(predictive: Predictive) -> Any:
    assert isinstance(predictive, Probabilities | Quantiles)
    return predictive.p if isinstance(predictive, Probabilities) else predictive.q


@pytest.mark.parametrize("family", FAMILIES)
def test_the_seed_decides(family: type[Net]) -> None:
    data = rows(TWO, 50, seed=6)
    first, again, other = (fit(family(TWO), seconds=0.0, seed=seed).predict(data) for seed in (1, 1, 2))
    assert_same(first, again)
    assert values(first).tolist() != values(other).tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_of_rows_are_heeded(family: type[Net]) -> None:
    X, y = np.zeros((200, 2)), np.tile([0, 1], 100)
    X[:, 0] = np.arange(200) % 7
    heavy = Dataset(pa.table({"row": np.arange(200)}), X.astype(np.float32), y, np.where(y == 1, 9.0, 1.0))
    found = values(fit(family(TWO), heavy, heavy).predict(heavy))
    assert found[:, 1].mean() == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["nothing varies", "only binary", "only numbers", "one outcome"])
def test_tables_of_one_kind(family: type[Net], kind: str) -> None:
    rng = np.random.default_rng(0)
    X = {
        "nothing varies": np.full((60, 2), 5.0),
        "only binary": rng.integers(0, 2, (60, 3)).astype(float),
        "only numbers": np.column_stack([rng.normal(size=60), np.where(np.arange(60) < 50, 7.0, 8e30)]),
        "one outcome": rng.normal(size=(60, 2)),
    }[kind]
    task, y = (NUMBER, np.full(60, 3.0)) if kind == "one outcome" else (TWO, np.tile([0, 1], 30))
    assert_valid(fit(family(task), plain(X, y), plain(X[:20], y[:20]), seconds=0.0).predict(plain(X, y)), 60)


@dataclass(frozen=True)
class Interrupting(Budget):
    """A budget that is asked `after` times, and then Ctrl-C comes."""

    after: int = 0
    asked: Iterator[int] = field(default_factory=count)

    def left(self, now: float) -> float:
        if next(self.asked) == self.after:
            raise KeyboardInterrupt
        return 60.0


@pytest.mark.parametrize("family", FAMILIES)
def test_an_interrupt_keeps_what_was_learnt(family: type[Net]) -> None:
    early, late = family(TWO), family(TWO)
    for net, after in ((early, 0), (late, 60)):
        with pytest.raises(KeyboardInterrupt):
            net.fit(rows(TWO), rows(TWO, 100, seed=1), budget=Interrupting(60.0, 0.0, after=after), seed=1)
    assert not hasattr(early, "arrays_")
    assert_valid(late.predict(rows(TWO, 10)), 10)


class Crooked(MLP):
    """An MLP whose graph is not its network."""

    def _body(self, graph: Graph, encoded: str) -> str:
        return graph.op("Neg", super()._body(graph, encoded))


def test_a_graph_that_is_not_the_network_is_refused() -> None:
    message = r"^Crooked: got 'an ONNX model that differs by [0-9.e-]+'; expected at most 1e-05; leave it out of train.families, "
    with pytest.raises(Refused, match=message):
        fit(Crooked(TWO))


def test_encoding() -> None:
    n = 400
    X = np.zeros((n, 8), np.float32)
    X[:, 0] = np.arange(n)
    X[:, 1:4] = np.eye(3)[np.arange(n) % 3]  # a category
    X[:, 4] = np.arange(n) % 2  # a flag
    X[:, 5] = 9.0  # constant
    X[:, 6] = np.where(np.arange(n) < 390, 2.0, 4.0)  # a number of two values, whose quartiles agree
    found = encoding(X)
    assert found["numbers"].tolist() == [0, 6]
    assert found["binary"].tolist() == [1, 2, 3, 4]
    assert found["pieces"].tolist() == [0] * 10 + [1]
    np.testing.assert_allclose(found["start"], [*np.arange(10) * 39.9, 2.0], rtol=1e-6)
    np.testing.assert_allclose(found["steep"], [*[1 / 39.9] * 10, 0.5], rtol=1e-6)
    np.testing.assert_allclose(found["centre"], [199.5, 2.0])
    np.testing.assert_allclose(found["slope"], [1.349 / 199.5, 1.0], rtol=1e-6)
    assert found["owner"].tolist() == [0, 6, *[0] * 10, 6, 1, 2, 3, 4]
    assert found["token"].tolist() == [0, 1, *[0] * 10, 1, 2, 2, 2, 3]
    assert found["high"].tolist() == X.max(axis=0).tolist()


def test_many_features_share_tokens() -> None:
    X = np.random.default_rng(0).normal(size=(80, 3 * TOKENS)).astype(np.float32)
    token = encoding(X)["token"]
    assert sorted(set(token.tolist())) == list(range(TOKENS))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_thousand_rows_of_forty_features_take_little_time(family: type[Net]) -> None:
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=(1000, 10)), rng.integers(0, 2, (1000, 30))])
    y = (X[:, 0] + X[:, 10] + rng.normal(size=1000) > 0.5).astype(np.int64)
    began = time.perf_counter()
    fit(family(TWO), plain(X[:800], y[:800]), plain(X[800:], y[800:]))
    assert time.perf_counter() - began < 20.0  # two seconds, on a machine that does nothing else
