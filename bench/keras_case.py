"""The article's code as a case: the same accuracy inside makegood as on its own, with Keras on torch and on TensorFlow.

    python bench/keras_case.py MNIST.npz            # five epochs on 60,000 rows, and the result is kept
    python bench/keras_case.py MNIST.npz 1 6000     # a look: one epoch on 6,000

The code is in `CODE`, as the article has it. On its own it is fitted in plain Keras and judged by Keras; as a case it is the body of a
function that `train.model` names, trained on the same rows by `fit` of the candidate and judged by the ONNX graph that would be deployed.
Three seeds each, a process a backend; accuracies are of the 10,000 test images.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import result

SEEDS, WITHIN = (0, 1, 2), 0.003
BACKENDS = ("torch", "tensorflow")
CODE = """
import keras
from keras import layers

model = keras.Sequential(
    [
        layers.Conv2D(32, (3, 3), activation="relu", input_shape=(28, 28, 1)),
        layers.MaxPooling2D((2, 2)),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
"""
FUNCTION = """
def article():
    {}
    import makegood

    return makegood.wrap(model, name="article", recipe={{"epochs": {}, "batch_size": 32}})
"""
RUNNER = """
import json, sys, time
from pathlib import Path
import numpy as np
import pyarrow as pa
from makegood.contracts import Budget, Dataset, Task
from makegood.families.named import named

data, folder, seed, epochs, rows = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
d = np.load(data, allow_pickle=False)
x, y, x_test, y_test = (d[k] for k in ("x_train", "y_train", "x_test", "y_test"))
kept = np.random.default_rng(0).permutation(len(x))[:rows]  # the file may be sorted by digit
x, y = x[kept].astype("float32") / 255, y[kept].astype("int64")
x_test = x_test.astype("float32") / 255

import keras
keras.utils.set_random_seed(seed)
sys.path.insert(0, str(folder))
from plain import model
start = time.perf_counter()
model.fit(x[..., None], y, epochs=epochs, batch_size=32, verbose=0)
plain_s = time.perf_counter() - start
plain = float(model.evaluate(x_test[..., None], y_test, verbose=0)[1])

def dataset(x, y):
    return Dataset(pa.table({"row": np.arange(len(x))}), x.reshape(len(x), -1), y, shape=(28, 28, 1))

(candidate,) = named(["models:article"], folder=folder, seed=seed)
family = candidate.make(Task("classes", tuple("0123456789")))
start = time.perf_counter()
family.fit(dataset(x, y), dataset(x_test[::20], y_test[::20].astype("int64")), budget=Budget(3600.0, start), seed=seed)
case_s = time.perf_counter() - start
found = family.predict(dataset(x_test, None)).p.argmax(axis=1)
print(json.dumps({"plain": plain, "case": float((found == y_test).mean()), "plain_s": plain_s, "case_s": case_s}))
"""


def main() -> None:
    """Run each backend with each seed, one after another, and write means and their difference."""
    data = Path(sys.argv[1]).resolve()
    epochs, rows = map(int, sys.argv[2:4]) if len(sys.argv) == 4 else (5, 60_000)
    found: dict[str, list[dict[str, float]]] = {backend: [] for backend in BACKENDS}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "plain.py").write_text(CODE, encoding="utf-8")
        (folder / "models.py").write_text(FUNCTION.format(CODE.strip().replace("\n", "\n    "), epochs), encoding="utf-8")
        for seed in SEEDS:
            for backend in BACKENDS:
                command = [sys.executable, "-c", RUNNER, str(data), str(folder), str(seed), str(epochs), str(rows)]
                environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                found[backend].append(json.loads(done.stdout.splitlines()[-1]))
                print(seed, backend, found[backend][-1], file=sys.stderr, flush=True)
    figures: dict[str, Any] = {"seeds": len(SEEDS), "epochs": epochs, "train_rows": rows, "backends": {}, "met": {}}
    for backend, runs in found.items():
        means = {key: statistics.mean(run[key] for run in runs) for key in runs[0]}
        difference = means["case"] - means["plain"]
        figures["backends"][backend] = {key: round(value, 4) for key, value in means.items()} | {"difference": round(difference, 5)}
        figures["met"][f"{backend}: case within {WITHIN} of plain"] = abs(difference) <= WITHIN
    if len(sys.argv) == 4:
        print(json.dumps(figures, indent=2))
    else:
        result.write("keras_case", figures, ("makegood", "keras", "tensorflow-cpu", "torch", "onnxruntime", "numpy"))
        assert all(figures["met"].values()), figures["met"]


if __name__ == "__main__":
    main()
