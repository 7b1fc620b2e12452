"""Networks for images: what they learn, what they refuse, and what is kept of them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache

import numpy as np
import onnx
import pyarrow as pa
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor

from makegood.case import IMAGE_NETWORKS, Case
from makegood.contracts import Budget, Dataset, Floats, Probabilities, Quantiles, Task
from makegood.errors import CaseError
from makegood.families import find
from makegood.families._torch.augment import Affine
from makegood.families._torch.loop import Recipe
from makegood.families._torch.processor import has_bf16, has_matrix_bf16
from makegood.families.image import CNN, ResNet, ViT
from makegood.families.trained import Plan

FAMILIES = {"cnn": CNN, "resnet": ResNet, "vit": ViT}
DIGITS = Task("classes", tuple("0123456789"))


@cache
def _digits() -> Dataset:
    """Return scikit-learn's digits, 8 × 8 and grey, in an order of their own."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    X = (digits.images[order] / 16.0).astype(np.float32).reshape(len(order), -1)
    return Dataset(pa.table({"row": order}), X, digits.target[order].astype(np.int64), shape=(8, 8, 1))


def _rows(data: Dataset, start: int, stop: int) -> Dataset:
    return data.take(np.arange(start, stop))


def _fit(family: CNN | ResNet | ViT, data: Dataset, train: int, valid: int, seconds: float = 100.0) -> Floats:
    """Return what a family predicts of the rows behind those that it was fitted on."""
    budget = Budget(seconds, time.perf_counter())
    family.fit(_rows(data, 0, train), _rows(data, train, train + valid), budget=budget, seed=0)
    found = family.predict(_rows(data, train + valid, len(data)).without_outcome())
    assert isinstance(found, Probabilities | Quantiles)
    return found.p if isinstance(found, Probabilities) else found.q


def _short(family: type[CNN | ResNet | ViT], epochs: int = 2) -> type[CNN | ResNet | ViT]:
    """Return the same family with a recipe for tests of what does not depend on it."""
    recipe = Recipe(epochs, 32, 3e-3, warm_up=0.2, schedule="one-cycle", clip=1.0)
    return type(family.__name__, (family,), {"_recipe": lambda self, n: recipe})


def _spots(shape: tuple[int, int, int], n: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Return n images (n, pixels) of noise with one bright spot each, and how far down it lies, from 0 to 1."""
    rng = np.random.default_rng(seed)
    height, width, _ = shape
    images = 0.3 * rng.random((n, *shape)).astype(np.float32)
    y, x = rng.integers(0, height - 1, n), rng.integers(0, width - 1, n)
    for i in range(n):
        images[i, y[i] : y[i] + 2, x[i] : x[i] + 2] = 1.0
    return images.reshape(n, -1), y / (height - 2)


def test_the_article_s_network_learns_digits() -> None:
    p = _fit(CNN(DIGITS), _digits(), 1100, 200)
    y = np.asarray(_digits().outcome)[1300:]
    assert (p.argmax(axis=1) == y).mean() >= 0.97
    assert -np.log(p[np.arange(len(y)), y]).mean() < 0.12


def test_the_transformer_learns_two_digits_from_few() -> None:
    data = _digits().take(np.flatnonzero(np.isin(np.asarray(_digits().outcome), (3, 8))))
    data = Dataset(data.table, data.features, (np.asarray(data.outcome) == 8).astype(np.int64), shape=data.shape)
    p = _fit(_short(ViT, 20)(Task("classes", ("3", "8"))), data, 200, 50)
    assert (p.argmax(axis=1) == np.asarray(data.outcome)[250:]).mean() >= 0.9


@pytest.mark.parametrize(("family", "shape"), [(CNN, (9, 14, 3)), (ResNet, (20, 13, 1))], ids=["rgb, wide", "grey, high"])
def test_a_number_is_read_from_an_image(family: type[CNN | ResNet], shape: tuple[int, int, int]) -> None:
    X, y = _spots(shape, 500)
    data = Dataset(pa.table({"row": np.arange(500)}), X, 2000.0 + 300.0 * y, shape=shape)
    model = _short(family, 15)(Task("number"))
    q = _fit(model, data, 350, 75)
    truth = np.asarray(data.outcome)[425:]
    assert np.abs(q[:, 5] - truth).mean() < 0.6 * np.abs(truth - np.median(truth)).mean()
    assert (np.diff(q, axis=1) >= 0.0).all()
    assert {node.op_type for node in onnx.load_from_string(model.model_).graph.node} & {"Conv", "BatchNormalization"} == {"Conv"}


def test_equal_seeds_give_equal_bytes_and_others_do_not() -> None:
    models = []
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    for seed in (1, 1, 2):
        family = _short(CNN)(DIGITS)
        family.fit(_rows(_digits(), 0, 64), _rows(_digits(), 64, 96), budget=Budget(60.0, time.perf_counter()), seed=seed)
        models.append(family.model_)
    assert models[0] == models[1]
    assert models[0] != models[2]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_pixels_are_held_to_zero_and_one_and_to_nothing_narrower() -> None:
    data = _rows(_digits(), 0, 96)
    family = _short(CNN)(DIGITS)
    family.fit(_rows(data, 0, 64), _rows(data, 64, 96), budget=Budget(60.0, time.perf_counter()), seed=0)
    assert (family.low_.tolist(), family.high_.tolist()) == ([0.0] * 64, [1.0] * 64)

    def p(X: Floats) -> Floats:
        found = family.predict(Dataset(_rows(data, 0, len(X)).table, X.astype(np.float32), shape=(8, 8, 1)))
        assert isinstance(found, Probabilities)
        return found.p

    corner = np.zeros((1, 64))  # the first pixel of a digit is never bright
    assert np.asarray(data.features)[:, 0].max() == 0.0
    bright, over = corner.copy(), corner.copy()
    bright[0, 0], over[0, 0] = 1.0, 3e38
    assert p(bright).tolist() == p(over).tolist() != p(corner).tolist()


def test_prepared_images_are_not_copied() -> None:
    family = CNN(DIGITS)
    X = np.array(_digits().features)
    family._keep_range(X)
    assert family._clipped(X) is X
    assert np.shares_memory(family._inputs(X, (8, 8, 1)).numpy(), X)
    assert family._clipped(X - 0.1).min() == 0.0
    assert family._clipped(X + 0.1).max() == 1.0
    X.flags.writeable = False  # torch has no tensors that cannot be written
    assert not np.shares_memory(family._clipped(X), X)
    assert family._clipped(X[:0]).shape == (0, 64)


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_rows_that_are_no_images_are_refused(name: str) -> None:
    data = Dataset(_digits().table, _digits().features, _digits().outcome)
    family = find([name])[0].make(DIGITS)
    with pytest.raises(CaseError) as error:
        family.fit(data, data, budget=Budget(1.0, time.perf_counter()), seed=0)
    assert str(error.value) == (
        f"train.families: {name}: got 'rows that are no images'; expected rows of which each is one image and nothing else; "
        "name networks for tables, or give a source of images whose only columns are image and outcome"
    )
    assert not [attribute for attribute in vars(family) if attribute.endswith("_")]  # nothing is fitted


@pytest.mark.parametrize("shape", [(3, 20, 1), (20, 3, 1)])
def test_images_that_are_too_small_are_refused(shape: tuple[int, int, int]) -> None:
    X, _ = _spots(shape, 20)
    data = Dataset(pa.table({"row": np.arange(20)}), X, np.arange(20) % 2, shape=shape)
    with pytest.raises(CaseError) as error:
        CNN(Task("classes", ("a", "b"))).fit(data, data, budget=Budget(1.0, time.perf_counter()), seed=0)
    assert str(error.value) == (
        f"train.families: cnn: got '{shape[0]} × {shape[1]} pixels'; expected at least 4 × 4 pixels; raise data.image.size"
    )


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
@pytest.mark.parametrize("n", [1, 10, 100, 1000, 10_000, 60_000, 1_000_000])
def test_a_recipe_makes_enough_steps_of_any_number_of_images(name: str, n: int) -> None:
    recipe = FAMILIES[name](DIGITS)._recipe(n)
    steps = recipe.epochs * -(-n // recipe.batch_size)
    assert steps >= 1175
    assert recipe.batch_size <= max(16, n / 15)
    if (name, n) == ("cnn", 60_000):
        assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.warm_up) == (5, 256, 6e-3, 0.3)


def test_small_work_is_for_one_core() -> None:
    small, large = (CNN(DIGITS)._plan(data).runtime for data in (_digits(), _many()))
    if torch.cuda.is_available():
        assert small.device == large.device == "cuda"
    else:
        assert (small.device, small.threads, small.dtype) == ("cpu", 1, "fp32")
        assert (large.device, large.threads, large.dtype) == ("cpu", 0, "bf16" if has_bf16() else "fp32")
        assert ResNet(DIGITS)._plan(_many()).runtime.dtype == ("bf16" if has_matrix_bf16() else "fp32")


def test_images_are_moved_where_that_changes_no_outcome() -> None:
    assert CNN(DIGITS)._plan(_digits()).augment is None  # the article's network is left as it is
    for family in (ResNet, ViT):
        assert isinstance(family(DIGITS)._plan(_digits()).augment, Affine)
        assert family(Task("number"))._plan(_digits()).augment is None


def _many() -> Dataset:
    return Dataset(pa.table({"row": np.zeros(8000, np.int64)}), np.zeros((8000, 784), np.float32), shape=(28, 28, 1))


def test_an_interrupt_leaves_what_was_learnt() -> None:
    batches = iter(range(1000))

    def interrupting(images: Tensor, generator: Generator) -> Tensor:
        if next(batches) == 10:  # after two epochs of four steps
            raise KeyboardInterrupt
        return images

    class Interrupted(CNN):
        def _plan(self, data: Dataset) -> Plan:
            plan = super()._plan(data)
            return Plan(Recipe(50, 32, 5e-3), plan.runtime, interrupting)

    family = Interrupted(DIGITS)
    with pytest.raises(KeyboardInterrupt):
        _fit(family, _rows(_digits(), 0, 300), 128, 64)
    found = family.predict(_rows(_digits(), 200, 300).without_outcome())
    assert isinstance(found, Probabilities)
    assert (found.p.argmax(axis=1) == np.asarray(_digits().outcome)[200:300]).mean() > 0.15


def test_a_case_names_them() -> None:
    text = (
        "{case: a, data: {source: a.npz, outcome: label}, decision: {unit: EUR, actions: {a: {payoff: outcome}, b: {payoff: 0}}}, train: "
    )
    assert Case.parse(text + "{families: [cnn, resnet, vit]}}").train.chosen == ("constant", "cnn", "resnet", "vit")
    with pytest.raises(CaseError, match=r"auto, or some of .*, cnn, resnet, vit, encoder; got 'resnet50'"):
        Case.parse(text + "{families: resnet50}}")


@pytest.mark.parametrize("package", ["torch", "onnxscript"])
def test_a_missing_extra_is_named(package: str) -> None:
    script = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from makegood.errors import MissingExtra\n"
        "from makegood.families import find\n"
        "try: find(['cnn'])\n"
        "except MissingExtra as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert out.startswith("train.families")
    assert out.endswith("pip install 'makegood[deep]'")
    assert package in out


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    """Hold every test to leaving torch's settings alone."""
    before = torch.get_num_threads(), torch.get_default_dtype(), torch.backends.mha.get_fastpath_enabled()
    yield
    assert before == (torch.get_num_threads(), torch.get_default_dtype(), torch.backends.mha.get_fastpath_enabled())
