"""What runs behind the walls of `limited.run`: a saved Keras model is read, and written again as ONNX.

    python -m makegood.families._convert MODEL [ROWS.npy]

The model is loaded by Keras on torch, whatever trained it, without its optimiser and with Keras' safe mode. Written into the working
folder are `FORM` (what goes in and what comes out) and `GRAPH`; with rows (n, n_features) float32 `OUTPUTS` (n, units) instead, which are
Keras' own. What is wrong is the last line that is said: what was got, what was expected and what to do, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from makegood.errors import MakegoodError
from makegood.families.keras_form import FORM, GRAPH, OUTPUTS, form_of


def main(path: str, *rows: str) -> None:
    """Read the model; write its form and its graph, or its outputs for the rows."""
    os.environ["KERAS_BACKEND"] = "torch"
    for name in ("jax", "pandas", "sklearn", "tensorflow"):
        sys.modules[name] = None  # type: ignore[assignment]  # Keras would load what is installed of these, for seconds, and to no end
    from makegood.families import keras_torch

    model = keras_torch.load(path)
    form = form_of(model)
    if rows:
        np.save(OUTPUTS, keras_torch.outputs(model, form, np.load(rows[0], allow_pickle=False)), allow_pickle=False)
    else:
        Path(FORM).write_text(json.dumps(asdict(form)), encoding="utf-8")
        Path(GRAPH).write_bytes(keras_torch.graph(model, form, "the model"))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except MakegoodError as error:
        sys.exit(json.dumps([error.problems[0].got, error.problems[0].expected, error.problems[0].next]))
