"""B3: networks on MNIST in our loop, beside plain PyTorch and beside the article's own code in Keras on TensorFlow.

    python bench/digits.py MNIST.npz [PYTHON-WITH-TENSORFLOW]

The article's network: 32 filters of 3 × 3, pooling by 2, 128 and 10 units, Adam's rule, five epochs. Ours trains it in larger batches
on a one-cycle schedule, with products in bf16 where the processor has them; the others as the article does, in batches of 32. Beside
it stand runs of a network of our own (the family `resnet`), a short one and a longer one, which see each image moved by up to a pixel.
Every runner is a process of its own, and all are run in turn; seconds are those of training alone. Accuracies are taken after the
last epoch: no images are held out for choosing. The peers' code is in this file, as a user would write it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

import result
from makegood.families._torch.processor import has_bf16, has_matrix_bf16

RUNS = 5
TRAIN_ACCURACY, TEST_ACCURACY, WALL = 0.998, 0.985, 0.6
OURS, SHORT, LONG = "ours", "ours, residual, 3 epochs", "ours, residual, 10 epochs"
PEER = "Keras on TensorFlow"
WANTED = {SHORT: (0.990, 1 / 3), LONG: (0.995, 1.0)}  # test accuracy, and the share of the peer's time

DATA = """
import json, sys, time
import numpy as np
d = np.load(sys.argv[1], allow_pickle=False)
x, y, x_test, y_test = (d[k] for k in ("x_train", "y_train", "x_test", "y_test"))
x, x_test = x.astype("float32") / 255, x_test.astype("float32") / 255
seed = int(sys.argv[2])
"""
TORCH = """
import torch
from torch import nn
torch.manual_seed(seed)
X, Y, XT, YT = torch.from_numpy(x[:, None]), torch.from_numpy(y).long(), torch.from_numpy(x_test[:, None]), torch.from_numpy(y_test).long()
model = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(5408, 128), nn.ReLU(), nn.Linear(128, 10))
def accuracy(x, y):
    model.eval()
    with torch.no_grad():
        return float(torch.cat([model(p).argmax(1) for p in x.split(2000)]).eq(y).double().mean())
"""
ARTICLE = """
from makegood.families._torch import loop
recipe = loop.Recipe(epochs=5, batch_size=256, lr=6e-3, schedule="one-cycle", warm_up=0.3, weight_decay=1e-4)
augment, dtype = None, sys.argv[3]
"""
RESIDUAL = """
from makegood.families._torch import loop
from makegood.families._torch.augment import Affine
from makegood.families._torch.pictures import ResNet
model = ResNet((28, 28, 1), 10, width=16)
recipe = loop.Recipe(epochs=EPOCHS, batch_size=128, lr=6e-3, schedule="one-cycle", warm_up=0.2, weight_decay=1e-2)
augment, dtype = Affine(shift=1 / 28, turned=0.0), sys.argv[4]
"""
TRAIN = """
from makegood.contracts import Budget
from makegood.families._torch import losses
task = loop.Task(model, losses.cross_entropy(), augment)
runtime = loop.Runtime(dtype=dtype, channels_last=True)
start = time.perf_counter()
loop.train(task, loop.Rows(X, Y), None, recipe, runtime, loop.Session(Budget(3600.0, start), seed))
seconds = time.perf_counter() - start
"""
PLAIN = """
optimiser = torch.optim.Adam(model.parameters())
start = time.perf_counter()
for epoch in range(5):
    for rows in torch.randperm(len(X)).split(32):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(X[rows]), Y[rows]).backward()
        optimiser.step()
seconds = time.perf_counter() - start
"""
END = "print(json.dumps({'seconds': seconds, 'train': accuracy(X, Y), 'test': accuracy(XT, YT)}))\n"
RUNNERS = {
    OURS: DATA + TORCH + ARTICLE + TRAIN + END,
    SHORT: DATA + TORCH + RESIDUAL.replace("EPOCHS", "3") + TRAIN + END,
    LONG: DATA + TORCH + RESIDUAL.replace("EPOCHS", "10") + TRAIN + END,
    "plain PyTorch": DATA + TORCH + PLAIN + END,
}
KERAS = (
    DATA
    + """
import keras
keras.utils.set_random_seed(seed)
model = keras.Sequential([
    keras.layers.Input((28, 28, 1)), keras.layers.Conv2D(32, (3, 3), activation="relu"), keras.layers.MaxPooling2D((2, 2)),
    keras.layers.Flatten(), keras.layers.Dense(128, activation="relu"), keras.layers.Dense(10, activation="softmax"),
])
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
x, x_test = x[..., None], x_test[..., None]
start = time.perf_counter()
model.fit(x, y, epochs=5, verbose=0)
seconds = time.perf_counter() - start
train, test = (model.evaluate(a, b, verbose=0)[1] for a, b in ((x, y), (x_test, y_test)))
print(json.dumps({"seconds": seconds, "train": train, "test": test}))
"""
)


def main() -> None:
    """Run all in turn, with one seed after another, and write medians and ratios."""
    data, tensorflow = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    dtypes = {"article": "bf16" if has_bf16() else "fp32", "residual": "bf16" if has_matrix_bf16() else "fp32"}
    commands = {name: [sys.executable, "-c", code] for name, code in RUNNERS.items()}
    if tensorflow:
        commands[PEER] = [tensorflow, "-c", KERAS]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for seed in range(RUNS):
        for name, command in commands.items():
            done = subprocess.run([*command, data, str(seed), *dtypes.values()], capture_output=True, text=True, check=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(seed, name, found[name][-1], file=sys.stderr, flush=True)
    rows = {name: {key: round(statistics.median(r[key] for r in runs), 4) for key in runs[0]} for name, runs in found.items()}
    shares = {
        peer: {
            name: round(statistics.median(a["seconds"] / b["seconds"] for a, b in zip(found[name], found[peer], strict=True)), 3)
            for name in (OURS, SHORT, LONG)
        }
        for peer in rows.keys() - {OURS, SHORT, LONG}
    }
    met = {
        f"train accuracy >= {TRAIN_ACCURACY}": rows[OURS]["train"] >= TRAIN_ACCURACY,
        f"test accuracy >= {TEST_ACCURACY}": rows[OURS]["test"] >= TEST_ACCURACY,
    }
    if tensorflow:
        met[f"<= {WALL} of the time of {PEER}"] = shares[PEER][OURS] <= WALL
        for name, (accuracy, share) in WANTED.items():
            wanted = f"{name}: test accuracy >= {accuracy:.3f} in <= {share:.2f} of the time of {PEER}"
            met[wanted] = rows[name]["test"] >= accuracy and shares[PEER][name] <= share
    figures: dict[str, Any] = {"runs": RUNS, "dtypes": dtypes, "rows": rows, "of_the_time_of": shares, "met": met}
    result.write("digits", figures, ("makegood", "torch", "numpy"))


if __name__ == "__main__":
    main()
