"""A Keras model on torch: read from a file without running code out of it, asked for its outputs, and exported.

It is imported where Keras' backend is torch: in the process of a user who chose it, and in the one of `makegood.families._convert`.
"""

from __future__ import annotations

import keras
import numpy as np
import torch
from torch import Tensor, nn

from makegood.contracts import Floats
from makegood.errors import CaseError, Problem
from makegood.families._torch.export import exported
from makegood.families.keras_form import Form

BATCH = 256


def load(path: str) -> keras.Model:
    """Return a saved model; raises `CaseError` where Keras cannot make it out of its own layers alone."""
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (AttributeError, ImportError, IndexError, KeyError, NotImplementedError, OSError, RuntimeError, TypeError, ValueError) as error:
        inmost = str(error).rpartition("Exception encountered: ")[2].strip()  # Keras puts the whole configuration before it
        reason = f"{type(error).__name__}: {(inmost.splitlines() or [''])[0]}"[:160]
        raise CaseError(Problem("the model", reason, "layers of Keras itself", "replace the layer")) from None


class Flat(nn.Module):
    """A Keras model that takes features (n, n_features) float32 in place of its own shape and type."""

    def __init__(self, model: keras.Model, form: Form) -> None:
        super().__init__()
        self.model, self.inputs = model, form.inputs
        self.kind: torch.dtype = getattr(torch, form.dtype)

    def forward(self, features: Tensor) -> Tensor:
        """Return the model's output (n, units) float32, as it predicts."""
        made: Tensor = self.model(features.reshape((-1, *self.inputs)).to(self.kind), training=False)
        return made.float()


def graph(model: keras.Model, form: Form, where: str) -> bytes:
    """Return the model as ONNX, features (1, n_features) to outputs (1, units); raises `Refused` where a layer has no form in it."""
    return exported(Flat(model, form).eval(), torch.zeros(1, form.n_features), where)


def outputs(model: keras.Model, form: Form, rows: Floats) -> Floats:
    """Return the model's outputs (n, units) for rows (n, n_features)."""
    flat = Flat(model, form).eval()
    with torch.no_grad():
        parts = [flat(torch.from_numpy(rows[at : at + BATCH])).numpy() for at in range(0, len(rows), BATCH)]
    return np.concatenate(parts)
