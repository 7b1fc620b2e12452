"""A compiled Keras model as a family: trained by Keras' own `fit`, exported to ONNX at once, and from then on scored by ONNX alone."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np

from makegood.contracts import Budget, Dataset, Floats, Task
from makegood.errors import CaseError, Problem, nearest
from makegood.families.converted import Converted
from makegood.families.keras_form import Form, answer, converted, form_of, head_of, with_head
from makegood.families.seeds import seeded
from makegood.families.tabular import features_of

CLASSES = ("sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy")
NUMBERS = ("mean_squared_error", "mean_absolute_error", "huber", "log_cosh")
BATCH = 1024  # rows predicted at once


@dataclass(frozen=True)
class Recipe:
    """How `fit` is called: Keras' words. With `patience`, the epoch that is best on the validation rows stands; without, the last."""

    epochs: int = 100
    batch_size: int = 32
    patience: int | None = 8


def recipe_of(changes: Mapping[str, Any] | None) -> Recipe:
    """Return the recipe with changes: named epochs are all run, unless patience is named too.

    Raises `CaseError` for a name that is none, or a value below 1.
    """
    changes = dict(changes or {})
    known = [field.name for field in fields(Recipe)]
    if strange := [name for name in changes if name not in known]:
        raise CaseError(*(Problem("recipe", name, f"some of {', '.join(known)}", nearest(name, known)) for name in strange))
    for name, value in changes.items():
        if not isinstance(value, int) or value < 1:
            raise CaseError(Problem(f"recipe.{name}", str(value), "a whole number of at least 1", "give one"))
    if "epochs" in changes:
        changes.setdefault("patience", None)
    return Recipe(**changes)


def check_model(model: keras.Model, name: str) -> None:
    """Raise `CaseError` unless a model is Sequential or functional, and compiled with a loss that we can feed."""
    where = f"wrap({name})"
    if not {"Sequential", "Functional"} & {kind.__name__ for kind in type(model).__mro__}:
        mend = "use keras.Sequential or keras.Model(inputs, outputs)"
        raise CaseError(Problem(where, type(model).__name__, "a Sequential or functional model, which can be copied", mend))
    loss_of(model, where)


def loss_of(model: keras.Model, where: str) -> tuple[str, bool | None]:
    """Return a compiled loss's name, and whether it takes logits; raises `CaseError` where there is none, or another."""
    if not model.compiled or model.loss is None:
        mend = 'call model.compile(optimizer="adam", loss="sparse_categorical_crossentropy") first'
        raise CaseError(Problem(where, "a model that is not compiled", "one with a loss", mend))
    loss = model.loss
    if isinstance(loss, list | tuple | dict) and len(loss) == 1:
        loss = next(iter(loss.values())) if isinstance(loss, dict) else loss[0]
    with suppress(TypeError, ValueError):  # several, or none of Keras': refused by name below
        loss = keras.losses.get(loss)
    name = getattr(loss, "__name__", "") or re.sub("(?<!^)(?=[A-Z])", "_", type(loss).__name__).lower()
    if name not in CLASSES + NUMBERS:
        raise CaseError(Problem(where, f"the loss {name}", f"one of {', '.join(CLASSES + NUMBERS)}", nearest(name, CLASSES + NUMBERS)))
    return name, bool(getattr(loss, "from_logits", False)) if name in CLASSES else None


class KerasModel(Converted):
    """A copy of a compiled Keras model, trained from the weights given on the rows as they are: Keras' own semantics.

    It takes features (n, n_features), or in its own shape the images that they are; it gives probabilities or logits, one a class
    (for two classes, one sigmoid will do), or a number, in the outcome's unit. Metrics are left out: nobody reads them.
    """

    def __init__(self, task: Task, model: keras.Model | None = None, recipe: Recipe | None = None, name: str = "") -> None:
        super().__init__(task)
        self.model = model
        self.recipe = recipe or Recipe()
        self.name = name

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        """Return self; one batch is trained in any case.

        Raises `CaseError` where the model does not fit the rows, `Refused` where it cannot be converted, or not exactly.
        """
        assert self.model is not None, "a loaded model is not fitted again"
        where = f"wrap({self.name})"
        loss, logits = self._loss(where)
        with seeded(seed):
            model = self._copy(train, where)
            form = form_of(model, where)
            form.check(train, self.task, where)
            if (loss == CLASSES[-1]) != (form.units == 1) and self.task.kind == "classes":
                expected = f"{CLASSES[-1]} for one output, another loss for one a class"
                raise CaseError(Problem(where, f"the loss {loss} for {form.units} outputs", expected, "change the loss or the last layer"))
            head = head_of(form, self.task, logits, where)
            self._try(model, form, head, train, where)
            self._train(model, form, loss, (train, valid), budget)
        self.model_ = with_head(_graph(model, form, where), head)
        self.codes_ = np.arange(len(self.task.classes))
        self._keep_range(features_of(train))

        def native(X: Floats) -> Floats:
            found = _answers(model, form, head, X)
            return found if self.task.kind == "classes" else found[:, 0]

        self._accept(native, train, valid, seed, where)
        return self

    def _loss(self, where: str) -> tuple[str, bool | None]:
        name, logits = loss_of(self.model, where)
        allowed = CLASSES if self.task.kind == "classes" else NUMBERS
        if name not in allowed:
            what = "classes" if self.task.kind == "classes" else "a number"
            raise CaseError(Problem(where, f"the loss {name}", f"one for {what}: {', '.join(allowed)}", "compile with another loss"))
        return name, logits

    def _copy(self, data: Dataset, where: str) -> keras.Model:
        """Return a new model with the same layers, weights, optimiser and loss; layers are made for the rows where they were not yet."""
        assert self.model is not None
        try:
            model = keras.models.clone_model(self.model)
            config = self.model.get_compile_config() | {"metrics": None, "weighted_metrics": None}
        except (TypeError, ValueError) as error:
            expected = "a model that Keras can copy, with its optimiser and its loss"
            mend = "decorate classes of your own with keras.saving.register_keras_serializable"
            raise CaseError(Problem(where, _first(error), expected, mend)) from None
        try:
            if not model.built:
                model.build((None, *(features_of(data).shape[1:] if data.shape is None else data.shape)))
        except (TypeError, ValueError) as error:
            raise CaseError(Problem(where, _first(error), "layers that take the rows", "begin with keras.Input")) from None
        if self.model.built:
            model.set_weights(self.model.get_weights())
        model.compile_from_config(config)
        return model

    def _try(self, model: keras.Model, form: Form, head: str, data: Dataset, where: str) -> None:
        """Raise `CaseError` where outputs that the loss takes for probabilities are none."""
        if self.task.kind == "number" or head in ("softmax", "sigmoid"):
            return
        outputs = keras.ops.convert_to_numpy(model(_shaped(features_of(data)[:2], form), training=False))  # `predict` draws random numbers
        found = answer(outputs, head)
        if not (np.abs(found.sum(axis=1) - 1.0) < 1e-3).all() or not ((found >= 0.0) & (found <= 1.0)).all():
            mend = f"end with {'sigmoid' if form.units == 1 else 'softmax'}, or compile a loss with from_logits=True"
            raise CaseError(Problem(where, "outputs that are no probabilities", "what its loss expects", mend))

    def _train(self, model: keras.Model, form: Form, loss: str, parts: tuple[Dataset, Dataset], budget: Budget) -> None:
        x, y, weight = self._rows(parts[0], form, loss)
        callbacks: list[Any] = [_Deadline(budget)]
        valid: Any = None
        if self.recipe.patience is not None:
            callbacks.append(keras.callbacks.EarlyStopping(patience=self.recipe.patience, restore_best_weights=True))
            held = self._rows(parts[1], form, loss)
            valid = held if held[2] is not None else held[:2]
        model.fit(
            x,
            y,
            sample_weight=weight,
            validation_data=valid,
            epochs=self.recipe.epochs,
            batch_size=self.recipe.batch_size,
            callbacks=callbacks,
            verbose=0,
        )

    def _rows(self, data: Dataset, form: Form, loss: str) -> tuple[Floats, Any, Floats | None]:
        """Return rows as the model and its loss take them: codes (n,), or one-hot (n, k), or numbers (n, 1)."""
        y = np.asarray(data.outcome)
        if loss == "categorical_crossentropy":
            target = np.eye(len(self.task.classes), dtype=np.float32)[y]
        elif loss == "sparse_categorical_crossentropy":
            target = y.astype(np.int64)
        else:
            target = y.astype(np.float32)[:, None]
        return _shaped(features_of(data), form), target, None if data.weight is None else np.asarray(data.weight, np.float32)


def _graph(model: keras.Model, form: Form, where: str) -> bytes:
    """Return a trained model as ONNX: made here in a second if it is torch's, on the processor; else out of a file, in another process."""
    if keras.backend.backend() == "torch" and all(weight.value.device.type == "cpu" for weight in model.weights):
        from makegood.families import keras_torch

        return keras_torch.graph(model, form, where)
    with tempfile.TemporaryDirectory(prefix="makegood-") as folder:
        archive = Path(folder) / "model.keras"
        model.save(archive)
        return converted(archive, where)[1]


def _shaped(X: Floats, form: Form) -> Floats:
    kind = form.dtype if form.dtype != "bfloat16" else "float32"
    return np.ascontiguousarray(X).astype(kind, copy=False).reshape(-1, *form.inputs)


def _answers(model: keras.Model, form: Form, head: str, X: Floats) -> Floats:
    return answer(np.asarray(model.predict(_shaped(X, form), batch_size=BATCH, verbose=0), np.float32), head)


def _first(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:160]


class _Deadline(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Ends the training after the batch in which the time ran out."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self.budget = budget

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Tell Keras to stop where no time is left."""
        if not self.budget.left(time.perf_counter()):
            self.model.stop_training = True
