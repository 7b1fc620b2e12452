"""Converted trees take every branch as LightGBM does, on thresholds and beside them too."""

from __future__ import annotations

import lightgbm as lgb
import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from makegood.families.onnx import Graph, edge_rows, thresholds
from makegood.families.trees import float32_thresholds, parse
from makegood.scorer import Scorer

ZERO = float(np.float32(1e-35))
PARAMS = {"num_leaves": 15, "min_data_in_leaf": 3, "num_threads": 1, "deterministic": True, "verbosity": -1, "seed": 1}


def _lightgbm_goes_left(x: np.float32, threshold: float) -> bool:
    """Return the branch of LightGBM's NumericalDecision, after its predictor has dropped |x| <= 1e-35 as zero."""
    value = float(x)
    return (0.0 if abs(value) <= ZERO else value) <= threshold


@given(st.floats(allow_nan=False, width=64))
@example(-ZERO)
@example(ZERO)
@example(-1e-40)
@example(1e-40)
@example(0.0)
@example(1e300)
@example(-1e300)
@example(0.1)
def test_every_float32_takes_the_branch_that_lightgbm_takes(threshold: float) -> None:
    converted = float32_thresholds(np.array([threshold]))[0]
    inf = np.float32(np.inf)
    with np.errstate(over="ignore"):
        near = np.float32(threshold)
        beside = [x for t in (near, converted) for x in (t, np.nextafter(t, inf), np.nextafter(t, -inf))]
    for x in (*beside, *map(np.float32, (ZERO, -ZERO, 1e-40, -1e-40, 0.0, -0.0, 3e38, -3e38, inf, -inf))):
        assert bool(x <= converted) == _lightgbm_goes_left(x, threshold), (x, threshold)


def _rows(n: int = 400) -> np.ndarray:
    rng = np.random.default_rng(0)
    tenths = np.round(rng.normal(size=(n, 2)), 1)  # midpoints between tenths are no float32
    return np.column_stack([tenths, rng.integers(0, 2, n), rng.normal(size=n) * 1e30]).astype(np.float32)


def _graph(model: str, n_targets: int, n_features: int) -> Scorer:
    graph, trees = Graph(), parse(model)
    total = graph.double(graph.trees(trees, [i % n_targets for i in range(len(trees))], n_targets))
    graph.nodes.append(onnx.helper.make_node("Identity", [total], ["raw"]))
    return graph.scorer(n_features, n_targets, rows=64)


@pytest.mark.parametrize(("objective", "k"), [("binary", 1), ("multiclass", 3), ("quantile", 1)])
def test_a_converted_booster_agrees_with_lightgbm_at_every_threshold(objective: str, k: int) -> None:
    X = _rows()
    y = (np.abs(X[:, 0]) + X[:, 2] > 0.7).astype(int) + (X[:, 1] > 1.0) * (k > 1)
    extra = {"num_class": k} if k > 1 else {}
    booster = lgb.train({**PARAMS, "objective": objective, **extra}, lgb.Dataset(X, y, params=PARAMS), 20)
    scorer = _graph(booster.model_to_string(), k, X.shape[1])
    rows = np.concatenate([X, edge_rows(scorer, X, seed=0)[0]])
    native = booster.predict(rows, raw_score=True, num_threads=1).reshape(len(rows), k)
    np.testing.assert_allclose(scorer(rows), native, atol=2e-6)


def test_rounding_thresholds_to_the_nearest_would_turn_rows_on_a_threshold() -> None:
    X = _rows()
    booster = lgb.train({**PARAMS, "objective": "binary"}, lgb.Dataset(X, X[:, 0] > 0.3, params=PARAMS), 5)
    exact = np.concatenate([tree.threshold for tree in parse(booster.model_to_string())])
    down, nearest = float32_thresholds(exact), exact.astype(np.float32)
    turned = (nearest > down) & (np.abs(nearest) > ZERO)  # a row on `nearest` goes right in LightGBM, and left if that is the threshold
    assert turned.any()
    assert (nearest[turned].astype(np.float64) > exact[turned]).all()


def test_parsed_trees_are_those_of_the_json_dump() -> None:
    X = _rows()
    booster = lgb.train({**PARAMS, "objective": "binary"}, lgb.Dataset(X, X[:, 0] > 0.3, params=PARAMS), 5)
    for tree, dumped in zip(parse(booster.model_to_string()), booster.dump_model()["tree_info"], strict=True):
        root = dumped["tree_structure"]
        assert (tree.feature[0], tree.threshold[0]) == (root["split_feature"], root["threshold"])
        assert len(tree.value) == dumped["num_leaves"] == len(tree.feature) + 1


def test_a_tree_without_a_split_is_its_leaf() -> None:
    X = np.zeros((50, 2), np.float32)
    booster = lgb.train({**PARAMS, "objective": "regression"}, lgb.Dataset(X, np.arange(50.0), params=PARAMS), 1)
    (tree,) = parse(booster.model_to_string())
    assert len(tree.feature) == 0
    scorer = _graph(booster.model_to_string(), 1, 2)
    assert thresholds(scorer.model)[0].tolist() == []
    np.testing.assert_allclose(scorer(X[:2]), booster.predict(X[:2])[:, None], rtol=1e-6)
