"""Keras models and rows for the tests, and what one backend makes of them: a process a backend, since Keras has one in each.

KERAS_BACKEND=tensorflow python -m tests.families.keras_models MODEL.keras
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import pyarrow as pa

from makegood.contracts import Budget, Dataset, Probabilities, Task
from makegood.families import wrap
from makegood.families.keras_form import form_of
from makegood.families.wrapped_keras import KerasModel

SHAPE = (6, 6, 1)
TWO, THREE, NUMBER = Task("classes", ("no", "yes")), Task("classes", ("a", "b", "c")), Task("number")
layers = keras.layers


def rows(task: Task, n: int = 360, seed: int = 1, *, image: bool = True) -> Dataset:
    """Return small images whose upper half is brighter in the higher classes, or whose brightness is the number."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(size=(n, 36)).astype(np.float32)
    k = len(task.classes)
    outcome = rng.integers(0, k, n) if k else rng.normal(5.0, 1.0, n)
    X[:, :18] = np.clip(X[:, :18] * 0.5 + (outcome / (2.0 * (k - 1)) if k else (outcome - 2.0) / 12.0)[:, None], 0.0, 1.0)
    return Dataset(pa.table({"row": np.arange(n)}), X, outcome, shape=SHAPE if image else None)


def halves(data: Dataset) -> tuple[Dataset, Dataset]:
    """Return two thirds to learn from, and the rest."""
    cut = len(data) * 2 // 3
    return data.take(np.arange(cut)), data.take(np.arange(cut, len(data)))


def convnet(units: int = 3, last: str | None = "softmax", loss: Any = "sparse_categorical_crossentropy") -> Any:
    """Return the article's network, smaller."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            layers.Input(SHAPE),
            layers.Conv2D(4, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Flatten(),
            layers.Dropout(0.1),
            layers.Dense(8, activation="relu"),
            layers.Dense(units, activation=last),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=loss, metrics=["accuracy"])
    return model


def fit(model: Any, task: Task, data: Dataset, seconds: float = 60.0, **recipe: Any) -> KerasModel:
    """Return the wrapped model, trained on two thirds of the rows."""
    train, valid = halves(data)
    family = wrap(model, recipe=recipe).make(task)
    assert isinstance(family, KerasModel)
    return family.fit(train, valid, budget=Budget(seconds, time.perf_counter()), seed=5)


def plain(model: Any, data: Dataset, epochs: int, batch_size: int) -> Any:
    """Return what a user of Keras would do: a copy trained on the same rows."""
    train, _ = halves(data)
    keras.utils.set_random_seed(5)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.compile(optimizer=keras.optimizers.Adam(0.01), loss=model.loss)
    assert train.features is not None
    copy.fit(train.features.reshape(-1, *form_of(model).inputs), train.outcome, epochs=epochs, batch_size=batch_size, verbose=0)
    return copy


def session(saved: Path) -> dict[str, Any]:
    """Return how far a wrapped model is from the same one in plain Keras, and the bytes that a saved one is converted to."""
    from makegood.families.wrapped_keras import _graph

    data, model = rows(THREE), convnet()
    _, valid = halves(data)
    before, state, drawn = model.get_weights(), random.getstate(), np.random.get_state()[1].tolist()
    family = fit(model, THREE, data, epochs=2, batch_size=32)
    untouched = random.getstate() == state and np.random.get_state()[1].tolist() == drawn
    kept = all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    clipped = np.clip(valid.features, family.low_, family.high_).reshape(-1, *SHAPE)
    found = family.predict(valid)
    assert isinstance(found, Probabilities)
    given = keras.saving.load_model(saved)
    return {
        "backend": keras.backend.backend(),
        "difference": float(np.abs(found.p - plain(model, data, 2, 32).predict(clipped, verbose=0)).max()),
        "random state untouched": untouched,
        "model untouched": kept,
        "bytes": hashlib.sha256(_graph(given, form_of(given), "it")).hexdigest(),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(session(Path(sys.argv[1]))))
