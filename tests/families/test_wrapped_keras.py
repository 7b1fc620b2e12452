"""Keras models from outside: trained as Keras trains them, on either backend, converted exactly, or refused by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tests.families.conformance import assert_same
from tests.families.keras_models import NUMBER, SHAPE, THREE, TWO, convnet, fit, halves, layers, rows

from makegood.contracts import Dataset, Probabilities, Quantiles, Task
from makegood.errors import CaseError
from makegood.families import wrap
from makegood.families.wrapped_keras import KerasModel

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")  # Keras' own, about NumPy 2

ROOT = Path(__file__).resolve().parents[2]


def told(backend: str, saved: Path) -> dict[str, Any]:
    environment = os.environ | {"KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.families.keras_models", str(saved)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def accuracy(family: KerasModel, data: Dataset) -> float:
    _, valid = halves(data)
    found = family.predict(valid)
    assert isinstance(found, Probabilities)
    return float((found.p.argmax(axis=1) == valid.outcome).mean())


# --------------------------------------------------------------------------------------------------------------- training


@pytest.mark.slow
@pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow has no wheel for this system")
def test_both_backends_train_as_plain_keras_does_and_convert_to_the_same_bytes(tmp_path: Path) -> None:
    convnet().save(tmp_path / "given.keras")
    found = {backend: told(backend, tmp_path / "given.keras") for backend in ("torch", "tensorflow")}
    for backend, session in found.items():
        assert session["backend"] == backend
        assert session["difference"] < 1e-6
        assert session["random state untouched"]
        assert session["model untouched"]
    assert found["torch"]["bytes"] == found["tensorflow"]["bytes"]


@pytest.mark.parametrize(
    ("task", "units", "last", "loss"),
    [
        (THREE, 3, "softmax", "sparse_categorical_crossentropy"),
        (THREE, 3, None, keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)),
        (TWO, 1, None, keras.losses.BinaryCrossentropy(from_logits=True)),
        (TWO, 2, None, [keras.losses.SparseCategoricalCrossentropy(from_logits=True)]),
    ],
    ids=["sparse", "one-hot logits", "one logit", "two logits in a list"],
)
def test_every_loss_for_classes_is_fed_as_it_wants_and_answered_with_probabilities(task: Task, units: int, last: Any, loss: Any) -> None:
    data = rows(task)
    family = fit(convnet(units, last, loss), task, data, epochs=8, batch_size=16)
    assert accuracy(family, data) > 0.85
    found = family.predict(data)
    assert isinstance(found, Probabilities)
    np.testing.assert_allclose(found.p.sum(axis=1), 1.0, atol=1e-6)


def test_a_number_is_learnt_in_its_own_unit_with_the_quantiles_of_the_residuals() -> None:
    data = rows(NUMBER)
    found = fit(convnet(1, None, keras.losses.Huber()), NUMBER, data, epochs=20, batch_size=16).predict(data)
    assert isinstance(found, Quantiles)
    y = np.asarray(data.outcome)
    assert np.abs(found.q[:, 5] - y).mean() < 0.7 * np.abs(y - np.median(y)).mean()
    assert 0.8 < ((found.q[:, 0] <= y) & (y <= found.q[:, -1])).mean() < 0.98


def test_the_same_seed_gives_the_same_bytes_and_a_saved_family_the_same_answers(tmp_path: Path) -> None:
    data = rows(THREE)
    family, again = (fit(convnet(), THREE, data, epochs=1) for _ in range(2))
    assert family.model_ == again.model_
    family.save(tmp_path / "it")
    assert_same(KerasModel.load(tmp_path / "it").predict(data), family.predict(data))
    alone = [family.predict(data.take(np.array([i]))) for i in range(8)]
    assert [p.p[0].tolist() for p in alone if isinstance(p, Probabilities)] == family.predict(data).p[:8].tolist()  # type: ignore[union-attr]


def test_rows_of_no_weight_are_not_learnt_from() -> None:
    data = rows(TWO)
    wrong = np.asarray(data.outcome).copy()
    spoilt = np.arange(len(wrong)) % 3 > 0
    wrong[spoilt] = 1 - wrong[spoilt]
    mixed = Dataset(data.table, data.features, wrong, np.where(spoilt, 0.0, 1.0), data.shape)
    family = fit(convnet(2), TWO, mixed, epochs=12, batch_size=16)
    assert accuracy(family, data) > 0.85


def test_the_best_epoch_stands_where_patience_is_named_and_the_last_where_it_is_not() -> None:
    data, seen = rows(THREE, 120), []

    class Worse(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
        """A rate that learns for one epoch and then destroys."""

        def __call__(self, step: Any) -> Any:
            seen.append(step)
            return keras.ops.where(step < 10, 0.01, 50.0)

        def get_config(self) -> dict[str, Any]:
            return {}

    keras.saving.register_keras_serializable("tests")(Worse)
    model = convnet()
    model.compile(optimizer=keras.optimizers.SGD(Worse()), loss="sparse_categorical_crossentropy")
    best = fit(model, THREE, data, epochs=3, batch_size=8, patience=2)
    last = fit(model, THREE, data, epochs=3, batch_size=8)
    assert best.model_ != last.model_
    assert accuracy(best, data) >= accuracy(last, data)


def test_training_ends_with_the_batch_in_which_the_time_ran_out() -> None:
    family = fit(convnet(), THREE, rows(THREE), seconds=0.0, epochs=100_000)
    assert isinstance(family.predict(rows(THREE)), Probabilities)


# ----------------------------------------------------------------------------------------------------------------- layers


def attention() -> Any:
    seen = layers.Input(SHAPE[:2])
    x = layers.LayerNormalization()(seen + layers.MultiHeadAttention(2, 4)(seen, seen))
    return keras.Model(seen, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling1D()(x)))


def chain(*made: Any) -> Any:
    return keras.Sequential([*made, layers.Dense(3, activation="softmax")])


ARCHITECTURES = {
    "pictures": lambda: chain(
        layers.Input(SHAPE),
        layers.Conv2D(4, 3, padding="same", strides=2),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.DepthwiseConv2D(2),
        layers.AveragePooling2D(2, padding="same"),
        layers.SpatialDropout2D(0.2),
        layers.GlobalMaxPooling2D(),
    ),
    "recurrent": lambda: chain(layers.Input(SHAPE[:2]), layers.Bidirectional(layers.LSTM(4, return_sequences=True)), layers.GRU(3)),
    "attention": attention,
    "codes": lambda: chain(layers.Input((36,), dtype="int32"), layers.Embedding(5, 3), layers.Conv1D(4, 3), layers.Flatten()),
    "never built": lambda: chain(layers.Rescaling(2.0, -1.0), layers.Flatten(), layers.Dense(6, activation="gelu")),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layers_of_every_kind_are_converted_exactly(name: str) -> None:
    model = ARCHITECTURES[name]()
    model.compile("adam", "sparse_categorical_crossentropy")
    family = fit(model, THREE, rows(THREE, 60), epochs=1)  # raises where ONNX does not agree to 1e-5
    assert len(family.model_) > 1000


def test_a_table_goes_in_as_it_is() -> None:
    data = rows(THREE, image=False)
    model = chain(layers.Dense(16, activation="relu"))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    assert accuracy(fit(model, THREE, data, epochs=20), data) > 0.85


# ---------------------------------------------------------------------------------------------------------------- refused


class Own(keras.Model):  # type: ignore[misc]
    """A model that is neither Sequential nor functional."""


def compiled(model: Any, loss: Any) -> Any:
    model.compile("adam", loss)
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: chain(layers.Input(SHAPE)),
            "wrap(Sequential): got 'a model that is not compiled'; expected one with a loss; call model.compile(",
        ),
        (
            lambda: compiled(Own(), "mse"),
            "wrap(Own): got 'Own'; expected a Sequential or functional model, which can be copied; use keras.Seq",
        ),
        (
            lambda: convnet(loss="hinge"),
            "wrap(Sequential): got 'the loss hinge'; expected one of sparse_categorical_crossentropy, categorical",
        ),
        (
            lambda: convnet(loss=lambda y, p: p),
            "wrap(Sequential): got 'the loss <lambda>'; expected one of sparse_categorical_crossentropy",
        ),
        (lambda: convnet(loss=["mse", "mse"]), "wrap(Sequential): got 'the loss list'; expected one of sparse_categorical_crossentropy"),
    ],
    ids=["not compiled", "own class", "another loss", "own loss", "two losses"],
)
def test_a_model_that_we_cannot_train_is_refused_at_once(model: Any, message: str) -> None:
    with pytest.raises(CaseError) as error:
        wrap(model())
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("model", "task", "message"),
    [
        (
            lambda: convnet(loss="mse"),
            THREE,
            "wrap(Sequential): got 'the loss mean_squared_error'; expected one for classes: sparse_categorical_crossentropy, "
            "categorical_crossentropy, binary_crossentropy; compile with another loss",
        ),
        (
            lambda: convnet(1, "sigmoid", "binary_crossentropy"),
            NUMBER,
            "wrap(Sequential): got 'the loss binary_crossentropy'; expected one for a number: mean_squared_error, mean_absolute_error, "
            "huber, log_cosh; compile with another loss",
        ),
        (lambda: convnet(4), THREE, "wrap(Sequential): got '4 outputs a row'; expected 3, one a class; change its last layer"),
        (
            lambda: convnet(3),
            TWO,
            "wrap(Sequential): got '3 outputs a row'; expected 2, one a class, or one sigmoid; change its last layer",
        ),
        (
            lambda: convnet(2, None, "mse"),
            NUMBER,
            "wrap(Sequential): got '2 outputs a row'; expected one number a row; change its last layer",
        ),
        (
            lambda: convnet(2, "softmax", "binary_crossentropy"),
            TWO,
            "wrap(Sequential): got 'the loss binary_crossentropy for 2 outputs'; expected binary_crossentropy for one output, another loss "
            "for one a class; change the loss or the last layer",
        ),
        (
            lambda: convnet(3, None),
            THREE,
            "wrap(Sequential): got 'outputs that are no probabilities'; expected what its loss expects; end with softmax, or compile a "
            "loss with from_logits=True",
        ),
        (
            lambda: compiled(chain(layers.Input((1, 6, 6)), layers.Flatten()), "sparse_categorical_crossentropy"),
            THREE,
            "wrap(Sequential): got 'an input of (1, 6, 6)'; expected (6, 6, 1), an image's height, width and channels; begin with "
            "keras.Input((6, 6, 1))",
        ),
        (
            lambda: compiled(chain(layers.Input((None, 6)), layers.LSTM(2)), "sparse_categorical_crossentropy"),
            THREE,
            "wrap(Sequential): got 'an input of (None, 6) float32'; expected numbers of a fixed shape; write it in keras.Input((…))",
        ),
        (
            lambda: compiled(chain(layers.Input(SHAPE)), "sparse_categorical_crossentropy"),
            THREE,
            "wrap(Sequential): got 'an output of (6, 6, 3)'; expected one row of numbers, (n, units); end with keras.layers.Dense(units)",
        ),
        (
            lambda: compiled(chain(layers.Conv2D(2, 9), layers.Flatten()), "sparse_categorical_crossentropy"),
            THREE,
            "wrap(Sequential): got 'ValueError: ",
        ),
    ],
    ids=["no classes", "no number", "units", "units of two", "units of a number", "binary", "raw", "order", "open", "no row", "too small"],
)
def test_a_model_that_does_not_fit_the_rows_is_refused_before_it_trains(model: Any, task: Task, message: str) -> None:
    with pytest.raises(CaseError) as error:
        fit(model(), task, rows(task, 30), epochs=1)
    assert str(error.value).startswith(message)


def test_an_optimiser_that_cannot_be_copied_is_refused() -> None:
    class Mine(keras.optimizers.SGD):  # type: ignore[misc]
        """An optimiser that Keras does not know by name."""

    model = convnet()
    model.compile(Mine(), "sparse_categorical_crossentropy")
    with pytest.raises(
        CaseError, match=r"expected a model that Keras can copy, with its optimiser and its loss; decorate classes of your own"
    ):
        fit(model, THREE, rows(THREE, 30), epochs=1)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"epoch": 3}, "recipe: got 'epoch'; expected some of epochs, batch_size, patience; did you mean 'epochs'?"),
        ({"epochs": 0}, "recipe.epochs: got '0'; expected a whole number of at least 1; give one"),
        ({"batch_size": "32"}, "recipe.batch_size: got '32'; expected a whole number of at least 1; give one"),
    ],
)
def test_a_recipe_is_read_with_care(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(CaseError) as error:
        wrap(convnet(), recipe=recipe)
    assert str(error.value) == message


def test_a_name_can_be_given() -> None:
    assert wrap(convnet(), name="article").name == "article"
    assert wrap(convnet()).name == "Sequential"
