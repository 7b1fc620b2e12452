"""Saved Keras models: read behind walls, never trained, scored as they were; what is not Keras' own is refused by name."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.families.conformance import assert_same
from tests.families.keras_models import NUMBER, SHAPE, THREE, TWO, convnet, halves, keras, layers, plain, rows

from makegood.contracts import Budget, Probabilities, Quantiles, Task
from makegood.errors import CaseError, Refused
from makegood.families import Candidate, wrap
from makegood.families.imported import Imported

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")  # Keras' own, about NumPy 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Candidate]:
    """A model that was trained elsewhere, and what it is as a candidate."""
    folder = tmp_path_factory.mktemp("models")
    model = plain(convnet(), rows(THREE), 2, 32)
    model.save(folder / "net.keras")
    return model, wrap(folder / "net.keras")


def fit(candidate: Candidate, task: Task, fold: int = 0) -> Imported:
    parts = halves(rows(task))
    family = candidate.make(task).fit(parts[fold], parts[1 - fold], budget=Budget(60.0, time.perf_counter()), seed=0)
    assert isinstance(family, Imported)
    return family


def test_a_saved_model_predicts_as_it_did_on_every_fold_and_is_told_of(trained: tuple[Any, Candidate], tmp_path: Path) -> None:
    model, candidate = trained
    assert candidate.name == "net"
    assert candidate.note.startswith("The model saved in 'net.keras' was trained elsewhere: if it has seen rows that are held out here")
    for fold in (0, 1):
        family = fit(candidate, THREE, fold)
        X = np.clip(rows(THREE).features, family.low_, family.high_)
        found = family.predict(rows(THREE))
        assert isinstance(found, Probabilities)
        np.testing.assert_allclose(found.p, model.predict(X.reshape(-1, *SHAPE), verbose=0), atol=1e-6)
    family.save(tmp_path / "it")
    assert_same(Imported.load(tmp_path / "it").predict(rows(THREE)), family.predict(rows(THREE)))


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_the_older_format_is_read_too_whatever_its_name(tmp_path: Path) -> None:
    model = keras.Sequential([layers.Input((36,)), layers.Dense(1)])
    model.save(tmp_path / "net.h5")
    (tmp_path / "net.h5").rename(tmp_path / "net.model")
    family = fit(wrap(str(tmp_path / "net.model"), name="old"), NUMBER)
    found = family.predict(rows(NUMBER))
    assert isinstance(found, Quantiles)
    _, valid = halves(rows(NUMBER))
    X = np.clip(valid.features, family.low_, family.high_)
    residuals = np.asarray(valid.outcome) - model.predict(X, verbose=0)[:, 0]
    np.testing.assert_allclose(family.shape_, np.quantile(residuals, NUMBER.levels), atol=1e-5)


def test_a_model_of_another_shape_is_refused(trained: tuple[Any, Candidate]) -> None:
    with pytest.raises(CaseError) as error:
        fit(trained[1], TWO)
    assert str(error.value) == "net.keras: got '3 outputs a row'; expected 2, one a class, or one sigmoid; change its last layer"


def test_what_keras_cannot_read_behind_the_walls_is_refused_by_name(tmp_path: Path) -> None:
    outputs = layers.Input((36,))
    model = keras.Model(outputs, [layers.Dense(3)(outputs), layers.Dense(2)(outputs)])
    model.save(tmp_path / "two.keras")
    with pytest.raises(Refused) as error:
        fit(wrap(tmp_path / "two.keras"), THREE)
    assert str(error.value) == (
        "two.keras: got 'Functional'; expected a model with one input and one output; use keras.Sequential or keras.Model(inputs, "
        "outputs), with one of each"
    )


def test_a_hostile_file_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    (tmp_path / "net.keras").write_bytes(b"\x80\x04\x95")
    with pytest.raises(Refused, match=r"net.keras: got 'a pickle, which runs code when it is opened'"):
        wrap(tmp_path / "net.keras")


def test_a_saved_model_takes_no_recipe() -> None:
    with pytest.raises(CaseError) as error:
        wrap("net.keras", recipe={"epochs": 1})
    assert str(error.value) == "wrap: got 'a recipe'; expected none for a saved model, which is not trained again; leave it out"


def test_a_path_without_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"nothing.keras: got .no file that can be read"):
        wrap(tmp_path / "nothing.keras")
