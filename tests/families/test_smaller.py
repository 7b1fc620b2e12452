"""Variants of a scorer: each keeps features and outputs, gives a row alone the bits that it has in any batch, or says why it does not suit."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from makegood import bundle
from makegood.contracts import Budget, Dataset, Floats, Task
from makegood.families.networks import MLP
from makegood.families.onnx import Graph, merge
from makegood.families.smaller import (
    Lesson,
    Part,
    Recipe,
    Start,
    at_level,
    dynamic,
    halved,
    heaviest,
    into_network,
    into_trees,
    on_threads,
    static,
    table,
    trimmed,
)
from makegood.families.tabular import LightGBM, Linear
from makegood.scorer import Scorer

THREE, NUMBER = Task("classes", ("a", "b", "c")), Task("number")
N, P = 600, 6


def data(task: Task = THREE, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, P)).astype(np.float32)
    signal = X[:, 0] + X[:, 1] * X[:, 2] + 0.3 * rng.normal(size=N)
    y = np.searchsorted([-0.5, 0.5], signal) if task.kind == "classes" else signal
    return Dataset(pa.table({"row": np.zeros(N, np.int8)}), X, y)


def fitted(family: Any, fold: int, task: Task = THREE) -> Any:
    rows, every = np.arange(N) % 3 == fold, data(task)
    return family(task).fit(
        every.take(np.flatnonzero(~rows)), every.take(np.flatnonzero(rows)), budget=Budget(5.0, time.perf_counter()), seed=fold
    )


def lesson(task: Task = THREE) -> Lesson:
    return Lesson(data(task), np.arange(0, 450), np.arange(450, N), task, 60.0, 0)


def start(parts: tuple[Part, ...], task: Task = THREE) -> Start:
    k = len(task.classes) or len(task.levels)
    return Start(merge([(p.model, p.weight) for p in parts], P, k), np.asarray(data(task).features), k, parts, lesson(task))


@pytest.fixture(scope="module")
def trees() -> Start:
    parts = [Part("lightgbm", 0.25, fitted(LightGBM, fold)) for fold in range(3)]
    return start((*parts, Part("linear", 0.25, fitted(Linear, 0))))


@pytest.fixture(scope="module")
def mlp() -> Start:
    return start(tuple(Part("mlp", 0.5, fitted(MLP, fold)) for fold in range(2)))


@pytest.fixture(scope="module")
def convolution() -> Start:
    """A convolution and a dense layer with softmax, on images of 8 × 8."""
    rng, graph = np.random.default_rng(0), Graph()
    images = graph.op("Reshape", graph.features, np.array([-1, 1, 8, 8]))
    h = graph.op("Relu", graph.op("Conv", images, rng.normal(size=(4, 1, 3, 3)).astype(np.float32)))
    flat = graph.op("Reshape", h, np.array([-1, 144]))
    graph.softmax(graph.op("MatMul", flat, 0.1 * rng.normal(size=(144, 3)).astype(np.float32)))
    graph.nodes[-1].output[0] = "raw"
    return Start(graph.scorer(64, 3, rows=1), rng.uniform(size=(300, 64)).astype(np.float32), 3)


def made(found: Scorer | str | Start) -> Scorer:
    assert not isinstance(found, str), found
    return found.scorer if isinstance(found, Start) else found


def same_bits(scorer: Scorer, X: Floats) -> None:
    alone = np.concatenate([scorer(X[i : i + 1]) for i in range(40)])
    assert alone.tobytes() == scorer(X)[:40].tobytes() == scorer(X[:40])[:40].tobytes()
    bundle.check_onnx(scorer.model, "scorer.onnx")


def test_trimmed_keeps_the_first_models_of_each_candidate_and_its_weight(trees: Start) -> None:
    one = trimmed(1)(trees)
    assert not isinstance(one, str)
    assert [(p.name, p.weight, p.model) for p in one.parts] == [
        ("lightgbm", 0.75, trees.parts[0].model),
        ("linear", 0.25, trees.parts[3].model),
    ]
    two = trimmed(2)(trees)
    assert not isinstance(two, str)
    assert [p.weight for p in two.parts] == pytest.approx([0.375, 0.375, 0.25])
    wanted = 0.75 * trees.parts[0].model.predict(data()).p + 0.25 * trees.parts[3].model.predict(data()).p  # type: ignore[attr-defined]
    assert one.scorer(trees.rows) == pytest.approx(wanted, abs=1e-6)
    assert len(one.scorer.model) < 0.6 * len(trees.scorer.model)
    same_bits(one.scorer, trees.rows)
    alone = heaviest(trees)
    assert not isinstance(alone, str)
    assert [(p.name, p.weight) for p in alone.parts] == [("lightgbm", pytest.approx(1 / 3))] * 3
    assert trimmed(3)(trees) == "no family has more than 3 models in the average"
    assert trimmed(1)(one) == "no family has more than 1 model in the average"
    assert heaviest(alone) == "the average is of one family"


@pytest.mark.parametrize("quantise", [dynamic, static], ids=["by row", "by calibration"])
def test_int8_is_near_smaller_and_a_row_at_a_time(mlp: Start, convolution: Start, quantise: Any) -> None:
    for before in (mlp, convolution):
        scorer = made(quantise(before))
        assert scorer.rows == 1
        assert np.abs(scorer(before.rows) - before.scorer(before.rows)).max() < 0.15
        same_bits(scorer, before.rows)
        assert made(quantise(before)).model == scorer.model
    assert len(made(quantise(mlp)).model) < 0.5 * len(mlp.scorer.model)


def test_int8_needs_products_and_rows(trees: Start, mlp: Start) -> None:
    assert dynamic(trees) == static(trees) == "the graph has no matrix product or convolution to quantise"
    assert static(replace(mlp, rows=mlp.rows[:0])) == "no rows to take ranges from"


def test_graph_levels_and_threads_are_kept_and_change_no_bit_of_trees(trees: Start) -> None:
    scorer = made(at_level("basic")(trees))
    assert (scorer.level, scorer.model) == ("basic", trees.scorer.model)
    same_bits(scorer, trees.rows)
    assert on_threads(10_000)(trees) == "this machine has fewer than 10000 cores"
    assert made(on_threads(1)(trees)).threads == 1


def test_threads_that_change_the_bits_are_refused(monkeypatch: pytest.MonkeyPatch, trees: Start) -> None:
    class Racing(Scorer):
        def __call__(self, features: Floats) -> Floats:
            return super().__call__(features) * (1.0 + 1e-16 * self.threads + 1e-15 * (self.threads > 1))

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    racing = replace(trees, scorer=Racing(trees.scorer.model, trees.scorer.rows))
    assert on_threads(2)(racing) == "2 threads take sums in another order: they change the bits of a row"


def test_students_learn_the_teachers_probabilities(trees: Start, mlp: Start) -> None:
    for before in (trees, mlp):
        student = made(into_trees(before))
        gap = np.abs(student(before.rows) - before.scorer(before.rows)).mean()
        assert gap < 0.5 * np.abs(before.scorer(before.rows) - before.scorer(before.rows).mean(axis=0)).mean()
        same_bits(student, before.rows)
    assert made(into_network(mlp)).rows == 1
    assert into_network(trees) == "there is no built-in network in the average"
    assert into_network(replace(mlp, parts=mlp.parts[:1])) == "it is one network already"
    assert into_trees(replace(trees, parts=trees.parts[:1])) == "it is one ensemble of trees already"
    number = replace(trees, lesson=lesson(NUMBER))
    assert into_trees(number) == "only probabilities are distilled so far, not the quantiles of a number"


def test_pruned_networks_have_half_of_the_hidden_units_and_learnt_on(mlp: Start, trees: Start) -> None:
    smaller = halved(mlp)
    assert not isinstance(smaller, str)
    before, after = mlp.parts[0].model, smaller.parts[0].model
    assert isinstance(before, MLP)
    assert isinstance(after, MLP)
    assert (after.arrays_["head"].shape[1], before.arrays_["head"].shape[1]) == (MLP.WIDTH // 2, MLP.WIDTH)
    assert after.arrays_["layers.1.weight"].shape == (MLP.WIDTH // 2, MLP.WIDTH // 2)
    assert len(smaller.scorer.model) < 0.6 * len(mlp.scorer.model)
    y = np.asarray(data().outcome)

    def loss(scorer: Scorer) -> float:
        return float(-np.log(scorer(mlp.rows)[np.arange(N), y]).mean())

    assert loss(smaller.scorer) < loss(mlp.scorer) + 0.1
    same_bits(smaller.scorer, mlp.rows)
    assert halved(trees) == "of the families only the built-in mlp can be pruned so far"


def test_of_a_bundle_what_needs_its_models_or_rows_is_refused_by_name(mlp: Start) -> None:
    bare = Start(mlp.scorer, mlp.rows, mlp.k)
    found = {recipe.name: recipe.make(bare) for recipe in table() if "int8" not in recipe.name and recipe.name != "two threads"}
    graphs = {name for name, it in found.items() if isinstance(it, Scorer)}
    assert graphs == {"graph level basic", "graph level extended"}
    assert "run the case with `optimise:`" in str(found["one model of each family"])
    assert "run the case with `optimise:`" in str(found["the heaviest family"])
    assert "run the case with `optimise:`" in str(found["distilled into trees"])
    assert "run the case with `optimise:`" in str(found["distilled into one network"])
    assert "run the case with `optimise:`" in str(found["half of the hidden units"])
    assert "on a GPU alone" in str(found["half precision on a GPU"])


def test_the_table_names_each_variant_once() -> None:
    recipes = table()
    assert len({r.name for r in recipes}) == len(recipes)
    assert all(isinstance(r, Recipe) and r.steps >= 1 for r in recipes)


def test_variants_may_follow_each_other(mlp: Start) -> None:
    both = {r.name: r for r in table()}["one model of each family, int8, ranges by row"]
    scorer = made(both.make(mlp))
    assert len(scorer.model) < 0.3 * len(mlp.scorer.model)
    same_bits(scorer, mlp.rows)
