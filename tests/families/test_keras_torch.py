"""What runs behind the walls, run here: Keras' own layers are loaded and asked, everything else is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.families.keras_models import SHAPE, THREE, convnet, keras, layers, rows

from makegood.errors import CaseError
from makegood.families import keras_torch
from makegood.families.keras_form import Form, form_of

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")  # Keras' own, about NumPy 2


class Own(layers.Layer):  # type: ignore[misc]
    """A layer of somebody's own."""

    def call(self, x: Any) -> Any:
        return x


def test_a_saved_model_is_asked_in_its_own_shape(tmp_path: Path) -> None:
    model, X = convnet(), rows(THREE).features
    assert X is not None
    model.save(tmp_path / "net.keras")
    loaded = keras_torch.load(str(tmp_path / "net.keras"))
    form = form_of(loaded)
    assert form == Form(SHAPE, "float32", 3, "softmax")
    found = keras_torch.outputs(loaded, form, X)
    np.testing.assert_allclose(found, model.predict(X.reshape(-1, *SHAPE), verbose=0), atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [(lambda: Own(), "TypeError: Could not locate class 'Own'"), (lambda: layers.Lambda(lambda x: x), "ValueError: ")],
    ids=["own", "lambda"],
)
def test_code_of_ones_own_is_not_loaded(layer: Any, reason: str, tmp_path: Path) -> None:
    keras.Sequential([layers.Input((4,)), layer()]).save(tmp_path / "net.keras")
    with pytest.raises(CaseError) as error:
        keras_torch.load(str(tmp_path / "net.keras"))
    (problem,) = error.value.problems
    assert problem.got.startswith(reason)
    assert len(problem.got) <= 160
    assert (problem.where, problem.expected, problem.next) == ("the model", "layers of Keras itself", "replace the layer")
