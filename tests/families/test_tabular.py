"""What the built-in families learn, beyond what every family promises."""

from __future__ import annotations

import subprocess
import sys
import time

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.metrics import roc_auc_score

from makegood.contracts import LEVELS, Budget, Dataset, Family, Floats, Ints, Predictive, Probabilities, Quantiles, Task
from makegood.families.tabular import Constant, LightGBM, Linear
from makegood.stages.predictives import losses

BINARY, NUMBER = Task("classes", ("no", "yes")), Task("number")


def _data(X: Floats, y: Floats | Ints, weight: Floats | None = None) -> Dataset:
    return Dataset(pa.table({"row": np.zeros(len(X), np.int8)}), X.astype(np.float32), y, weight)


def _fit(family: Family, data: Dataset, seed: int = 0) -> Family:
    order = np.random.default_rng(0).permutation(len(data))
    cut = len(data) * 3 // 4
    return family.fit(data.take(order[:cut]), data.take(order[cut:]), budget=Budget(60.0, time.perf_counter()), seed=seed)


def _p(predictive: Predictive) -> Floats:
    assert isinstance(predictive, Probabilities)
    return predictive.p


def _q(predictive: Predictive) -> Floats:
    assert isinstance(predictive, Quantiles)
    return predictive.q


@pytest.mark.parametrize("family", [Linear, LightGBM])
def test_classes_are_told_apart_on_real_rows(family: type[Linear] | type[LightGBM]) -> None:
    cancer = load_breast_cancer()
    train, test = np.arange(0, 569, 2), np.arange(1, 569, 2)
    fitted = _fit(family(BINARY), _data(cancer.data[train], cancer.target[train]))
    assert roc_auc_score(cancer.target[test], _p(fitted.predict(_data(cancer.data[test], cancer.target[test])))[:, 1]) > 0.98


@pytest.mark.parametrize("family", [Linear, LightGBM])
def test_quantiles_beat_the_constant_on_real_rows(family: type[Linear] | type[LightGBM]) -> None:
    diabetes = load_diabetes()
    train, test = np.arange(0, 442, 2), np.arange(1, 442, 2)
    data, unseen = _data(diabetes.data[train], diabetes.target[train]), _data(diabetes.data[test], diabetes.target[test])
    own, constant = (losses(_fit(f(NUMBER), data).predict(unseen), diabetes.target[test]).mean() for f in (family, Constant))
    assert own < 0.8 * constant


def test_the_constant_is_the_class_rates_with_half_a_row_a_class() -> None:
    data = _data(np.zeros((10, 1)), np.array([0] * 7 + [1] * 3))
    fitted = Constant(BINARY).fit(data, data, budget=Budget(1.0, 0.0), seed=0)
    assert _p(fitted.predict(data))[0].tolist() == pytest.approx([7.5 / 11, 3.5 / 11])


def test_the_constant_is_the_outcomes_quantiles() -> None:
    y = np.arange(1.0, 101.0)
    data = _data(np.zeros((100, 1)), y)
    fitted = Constant(NUMBER).fit(data, data, budget=Budget(1.0, 0.0), seed=0)
    assert _q(fitted.predict(data))[0].tolist() == [100.0 * level for level in LEVELS]
    heavy = _data(np.zeros((100, 1)), y, np.where(y > 99, 1e6, 1.0))
    assert _q(Constant(NUMBER).fit(heavy, heavy, budget=Budget(1.0, 0.0), seed=0).predict(heavy))[0, 1] == 100.0


def test_weights_move_the_class_rates() -> None:
    y = np.array([0] * 50 + [1] * 50)
    rng = np.random.default_rng(0)
    weight = np.where(y == 1, 3.0, 1.0)
    for family in (Constant, Linear, LightGBM):
        fitted = _fit(family(BINARY), _data(rng.normal(size=(100, 2)), y, weight))
        assert 0.65 < _p(fitted.predict(_data(rng.normal(size=(500, 2)), y)))[:, 1].mean() < 0.85


def test_the_lines_spread_follows_the_rows() -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(1.0, 3.0, size=(4000, 2))
    y = 10.0 * X[:, 1] + X[:, 0] * rng.normal(size=4000)
    fitted = _fit(Linear(NUMBER), _data(X, y))
    narrow, wide = _q(fitted.predict(_data(np.array([[1.1, 2.0], [2.9, 2.0]]), y)))
    assert (wide[-1] - wide[0]) / (narrow[-1] - narrow[0]) == pytest.approx(2.9 / 1.1, rel=0.15)
    assert wide[5] == pytest.approx(20.0, abs=0.3)
    inside = (y >= _q(fitted.predict(_data(X, y)))[:, 0]) & (y <= _q(fitted.predict(_data(X, y)))[:, -1])
    assert inside.mean() == pytest.approx(0.9, abs=0.02)


def test_an_outcome_on_a_line_gives_no_spread_and_no_error() -> None:
    X = np.random.default_rng(0).normal(size=(60, 2))
    q = _q(_fit(Linear(NUMBER), _data(X, 3.0 + 0.0 * X[:, 0])).predict(_data(X, X[:, 0])))
    np.testing.assert_allclose(q, 3.0)
    trees = _q(_fit(LightGBM(NUMBER), _data(X, 3.0 + 0.0 * X[:, 0])).predict(_data(X, X[:, 0])))
    np.testing.assert_allclose(trees, 3.0)


def test_quantiles_of_any_size_keep_their_digits() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    y = X[:, 0] + 0.1 * rng.normal(size=300)
    small, large = (
        _q(_fit(LightGBM(NUMBER), _data(X, scale * y + shift)).predict(_data(X, y))) for scale, shift in ((1.0, 0.0), (1e9, 7e12))
    )
    np.testing.assert_allclose((large - 7e12) / 1e9, small, atol=0.02)


def test_trees_stop_where_they_no_longer_help() -> None:
    rng = np.random.default_rng(0)
    noise = _fit(LightGBM(BINARY), _data(rng.normal(size=(400, 5)), rng.integers(0, 2, 400)))
    assert isinstance(noise, LightGBM)
    assert noise.texts_[0].count("Tree=") < 60


def test_the_number_of_threads_changes_no_tree() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 8)).astype(np.float32)
    y = (X[:, 0] + rng.normal(size=3000) > 0).astype(float)
    trees = []
    for threads in (1, 2, 3):
        params = {
            "objective": "binary",
            "num_threads": threads,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
            "bagging_fraction": 0.8,
        }
        booster = lgb.train({**params, "bagging_freq": 1, "feature_fraction": 0.5, "seed": 1}, lgb.Dataset(X, y, params=params), 10)
        trees.append(booster.model_to_string().split("parameters:")[0])
    assert trees[0] == trees[1] == trees[2]


def test_another_seed_gives_other_trees() -> None:
    cancer = load_breast_cancer()
    data = _data(cancer.data, cancer.target)
    one, two = (_p(_fit(LightGBM(BINARY), data, seed).predict(data)) for seed in (0, 1))
    assert (one != two).any()


def test_a_booster_uses_the_time_that_is_left_and_no_more() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 30))
    data = _data(X, ((X[:, :10] ** 2).sum(axis=1) > 10).astype(int))
    start = time.perf_counter()
    fitted = LightGBM(BINARY).fit(data, data, budget=Budget(0.5, start), seed=0)
    assert time.perf_counter() - start < 3.0  # a shared core may be slow
    assert 1 <= fitted.texts_[0].count("Tree=") < LightGBM.TREES


def test_fitting_again_forgets_what_was_learnt_before() -> None:
    cancer = load_breast_cancer()
    data, turned = _data(cancer.data, cancer.target), _data(cancer.data, 1 - cancer.target)
    family = LightGBM(BINARY)
    before = _p(_fit(family, data).predict(data))
    after = _p(_fit(family, turned).predict(data))
    assert np.corrcoef(before[:, 1], after[:, 1])[0, 1] < -0.9


def test_finding_a_family_loads_its_libraries_so_that_no_budget_pays_for_it() -> None:
    script = "import sys; from makegood.families import find; find(['lightgbm']); print({'lightgbm', 'scipy.optimize'} <= set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "True\n"
