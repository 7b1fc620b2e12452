"""The graph: parity with the fitted models, and the same bits for a row alone and in any batch."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import helper

from makegood.contracts import LEVELS, Budget, Dataset, Floats, Probabilities, Quantiles, Task, Tokens
from makegood.errors import Refused
from makegood.families.onnx import Graph, Scorable, edge_rows, merge, thresholds
from makegood.families.tabular import Constant, LightGBM, Linear

BINARY, THREE, NUMBER = Task("classes", ("no", "yes")), Task("classes", ("a", "b", "c")), Task("number")


def _data(task: Task, n: int, p: int = 7, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.normal(size=(n, p - 2)), rng.integers(0, 2, (n, 2))]).astype(np.float32)
    signal = X[:, 0] + X[:, 1] * X[:, p - 1] + rng.normal(size=n)
    k = len(task.classes)
    y = np.searchsorted(np.quantile(signal, np.arange(1, k) / k), signal) if k else 1e6 + 1e4 * signal
    return Dataset(pa.table({"row": np.zeros(n, np.int8)}), X, y)


def _members(task: Task) -> list[tuple[Any, float]]:
    data = _data(task, 600)
    train, valid = data.take(np.arange(400)), data.take(np.arange(400, 600))
    families = [
        family(task).fit(train, valid, budget=Budget(60.0, time.perf_counter()), seed=s)
        for s, family in enumerate((Constant, Linear, LightGBM))
    ]
    return list(zip(families, (0.1, 0.4, 0.5), strict=True))


def _values(predictive: object) -> Floats:
    assert isinstance(predictive, Probabilities | Quantiles)
    return predictive.p if isinstance(predictive, Probabilities) else predictive.q


@pytest.mark.parametrize(("task", "k", "unit"), [(BINARY, 2, 1.0), (THREE, 3, 1.0), (NUMBER, len(LEVELS), 1e4)], ids=["2", "3", "number"])
def test_the_graph_is_the_weighted_average_of_its_members(task: Task, k: int, unit: float) -> None:
    members = _members(task)
    scorer = merge(members, 7, k)
    X = np.asarray(_data(task, 3000, seed=1).features)
    rows = np.concatenate([X, edge_rows(scorer, X, seed=0)[0]])
    data = Dataset(pa.table({"row": np.zeros(len(rows), np.int8)}), rows)
    native = sum(weight * _values(model.predict(data)) for model, weight in members)
    assert float(np.abs(scorer(rows) - native).max()) / unit < 1e-6
    assert all(isinstance(model, Scorable) for model, _ in members)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "k", "n"), [(BINARY, 2, 100_000), (THREE, 3, 10_000), (NUMBER, len(LEVELS), 5_000)], ids=["2", "3", "number"]
)
def test_a_row_has_the_same_bits_alone_and_in_any_batch(task: Task, k: int, n: int) -> None:
    scorer = merge(_members(task), 7, k)
    rng = np.random.default_rng(2)
    X = np.asarray(_data(task, n, seed=3).features)
    X[rng.random(X.shape) < 0.01] = 3e38
    X[rng.random(X.shape) < 0.01] = -3e38
    whole = scorer(X)
    for size in (7, 63, 500):
        parts = [scorer(np.ascontiguousarray(X[i : i + size])) for i in range(0, min(n, 20_000), size)]
        assert (np.concatenate(parts) == whole[: sum(map(len, parts))]).all()
    assert (np.concatenate([scorer(X[i : i + 1]) for i in range(n)]) == whole).all()


def test_one_row_takes_tens_of_microseconds() -> None:
    scorer = merge(_members(BINARY), 7, 2)
    X = np.asarray(_data(BINARY, 1).features)
    laps = []
    for _ in range(300):
        start = time.perf_counter()
        scorer(X)
        laps.append(time.perf_counter() - start)
    assert np.median(laps) < 0.001  # some 16 µs on an idle core; a shared one may be slow


def test_a_graph_is_made_of_operators_that_keep_a_rows_bits() -> None:
    used = {
        node.op_type
        for task, k in ((BINARY, 2), (NUMBER, 11))
        for node in onnx.load_from_string(merge(_members(task), 7, k).model).graph.node
    }
    assert not used & {"MatMul", "Gemm", "LinearClassifier", "LinearRegressor", "Sigmoid", "Exp", "ReduceMean", "Einsum"}


def test_edge_rows_stand_on_thresholds_beside_them_and_at_the_extremes() -> None:
    scorer = merge(_members(BINARY), 7, 2)
    X = np.asarray(_data(BINARY, 50).features)
    where, value = thresholds(scorer.model)
    assert len(where) > 20
    rows, origin = edge_rows(scorer, X, seed=0)
    assert rows.dtype == np.float32
    assert len(rows) == len(origin) == 3 * len(where) + 2 * 7 + 2
    changed = (rows != X[origin]).sum(axis=1)
    assert (changed[:-2] <= 1).all()
    assert (rows[np.arange(len(where)), where] == value).all()
    assert (rows[2 * len(where) + np.arange(len(where)), where] < value).all()
    assert rows[-2:, 0].tolist() == [np.float32(3e38), np.float32(-3e38)]
    assert np.isfinite(rows).all()
    again, _ = edge_rows(scorer, X, seed=0)
    assert (again == rows).all()
    few, _ = edge_rows(scorer, X, seed=0, limit=30)
    assert len(few) == 3 * 10 + 16


@pytest.mark.parametrize(("p", "changed"), [(2048, 2048), (2049, 2047), (12_288, 341), (5_000_000, 1)])
def test_the_edges_of_very_many_features_are_a_sample_of_bounded_size(p: int, changed: int) -> None:
    constant = Constant(BINARY)
    constant.values_ = np.array([0.5, 0.5])
    scorer, X = merge([(constant, 1.0)], p, 2), np.full((2, p), 0.25, np.float32)
    rows, _ = edge_rows(scorer, X, seed=0)
    assert rows.shape == (2 * changed + 2, p)
    at = (rows[:-2] != 0.25).argmax(axis=1)
    assert ((rows[:-2] != 0.25).sum(axis=1) == 1).all()
    assert sorted(at) == sorted(np.repeat(np.unique(at), 2))  # each at both magnitudes
    assert len(np.unique(at)) == changed
    assert (np.abs(rows[-2:]) == np.float32(3e38)).all()
    assert (edge_rows(scorer, X, seed=0)[0] == rows).all()
    if 1 < changed < p:
        assert not (edge_rows(scorer, X, seed=1)[0] == rows).all()


def test_of_token_ids_a_few_are_made_extreme() -> None:
    constant = Constant(BINARY)
    constant.values_ = np.array([0.5, 0.5])
    scorer, X = merge([(constant, 1.0)], 300, 2), np.full((2, 300), 5.0, np.float32)
    rows, origin = edge_rows(scorer, X, seed=0, tokens=Tokens(10, 2, 128, 60, 0))
    changed = np.unique((rows[:-2] != 5.0).argmax(axis=1))
    assert len(rows) == len(origin) == 2 * (44 + 16) + 2
    assert np.isin([*range(10), *range(266, 300)], changed).all()
    assert ((changed >= 10) & (changed < 266)).sum() == 16


def test_a_graph_too_large_for_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("makegood.families.onnx._MOST", 10)
    with pytest.raises(
        Refused, match=r"^scorer\.onnx: got '[\d,]+ bytes of weights'; expected at most 10; train smaller networks, or fewer$"
    ):
        merge(_members(BINARY), 7, 2)


def test_thresholds_of_a_foreign_model_are_found_too() -> None:
    attributes = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [4, 0, 0],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    }
    node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", **attributes)
    model = helper.make_model(helper.make_graph([node], "g", [], []))
    where, value = thresholds(model.SerializeToString())
    assert (where.tolist(), value.tolist()) == ([4], [0.5])


def test_scoring_nothing_gives_nothing() -> None:
    assert merge(_members(BINARY), 7, 2)(np.empty((0, 7), np.float32)).shape == (0, 2)


def test_many_outputs_are_scored_fewer_rows_at_a_time() -> None:
    wide = Task("classes", tuple(f"c{i:03}" for i in range(200)))
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 60)).astype(np.float32)
    data = Dataset(pa.table({"row": np.zeros(400, np.int8)}), X, np.arange(400) % 200)
    line = Linear(wide).fit(data, data, budget=Budget(0.0, time.perf_counter()), seed=0)
    assert line.rows == (1 << 22) // (60 * 200)
    assert merge([(line, 1.0)], 60, 200).rows == line.rows
    assert Graph().nodes == []
