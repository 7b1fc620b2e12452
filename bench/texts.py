"""N-grams on two public sets of texts, in their official splits, beside TF-IDF and a logistic regression of scikit-learn.

BANKING77 (Casanueva et al. 2020) has 77 intents of bank customers, SST-2 (Socher et al. 2013) good and bad sentences about films. Both
sides see the training rows alone: ours is the average of five folds' models, as a run deploys it, each with its strength chosen on the
fold's held-out rows; the peer's strength is the best of three on a fifth of the training rows, and it is fitted on all of them.
Usage: python bench/texts.py FOLDER [--only BANKING77|SST-2] [--rows N], where FOLDER holds service/ and general/; with fewer than all
training rows, or one set alone, figures are printed and not kept.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

import result
from makegood.contracts import Budget, Dataset, Fold, Task, Tokens
from makegood.data.texts import Tokenizer, train_tokenizer
from makegood.families.ngrams import NGrams
from makegood.families.onnx import Scorable, merge
from makegood.stages.fitting import fit_folds
from makegood.stages.predictives import blend

Texts = tuple[list[str], list[str]]
FOLDS, LENGTH, STRENGTHS, TIMED = 5, 64, (1.0, 10.0, 100.0), 500
BUDGET_S = 600.0


def banking(folder: Path, part: str) -> Texts:
    """Return the texts and the intents of one part of BANKING77."""
    with (folder / f"service/banking77_{part}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row["category"] for row in rows]


def films(folder: Path, part: str) -> Texts:
    """Return the sentences and whether they are good of one part of SST-2."""
    with gzip.open(folder / f"general/sst2_{part}.tsv.gz", "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    return [text for text, _ in rows], [label for _, label in rows]


def ours(train: Texts, test: Texts) -> dict[str, Any]:
    """Return the accuracy and log loss on the test rows, what it took, and how long one decision takes."""
    start, cpu = time.perf_counter(), time.process_time()
    names = sorted(set(train[1]))
    tokenizer = Tokenizer(train_tokenizer(train[0]))
    tokens = Tokens(0, 1, LENGTH, tokenizer.vocabulary, tokenizer.pad)

    def prepared(texts: Texts) -> Dataset:
        ids, _ = tokenizer.encode(texts[0], LENGTH)
        outcome = np.array([names.index(name) for name in texts[1]])
        return Dataset(pa.table({"row": np.arange(len(ids))}), ids.astype(np.float32), outcome, tokens=tokens)

    data, task = prepared(train), Task("classes", tuple(names))
    part = np.random.default_rng(0).permutation(len(data)) % FOLDS
    folds = [Fold(np.flatnonzero(part != fold), np.flatnonzero(part == fold)) for fold in range(FOLDS)]
    budget = Budget(BUDGET_S, time.perf_counter())
    models = fit_folds(data, {"ngrams": lambda: NGrams(task)}, folds, budget=budget, seed=0, progress=_said).models["ngrams"]
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    held = prepared(test)
    p = blend([model.predict(held) for model in models], [1.0 / len(models)] * len(models)).p  # type: ignore[union-attr]
    right = np.asarray(held.outcome)
    scorer = merge([(model, 1.0 / len(models)) for model in models if isinstance(model, Scorable)], LENGTH, len(names))
    took = []
    for row in np.asarray(held.features)[:TIMED]:
        began = time.perf_counter()
        scorer(row[None])
        took.append(time.perf_counter() - began)
    return {
        "accuracy": float((p.argmax(axis=1) == right).mean()),
        "log_loss": float(-np.log(p[np.arange(len(p)), right]).mean()),
        "folds": len(models),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "scorer_mb": len(scorer.model) / 1e6,
        "decision_ms": float(np.median(took)) * 1e3,
    }


def peer(train: Texts, test: Texts) -> dict[str, Any]:
    """Return the same of TF-IDF over words and pairs of words, and a logistic regression."""
    start = time.perf_counter()
    part = np.random.default_rng(0).permutation(len(train[0])) % FOLDS
    parts = [([text for text, p in zip(side, part, strict=True) if (p == 0) == held] for side in train) for held in (False, True)]
    (some, known), (rest, unknown) = (tuple(pair) for pair in parts)
    best = max(STRENGTHS, key=lambda strength: _tfidf(strength).fit(some, known).score(rest, unknown))
    model = _tfidf(best).fit(*train)
    return {"accuracy": float(model.score(*test)), "C": best, "seconds": time.perf_counter() - start}


def _tfidf(strength: float) -> Pipeline:
    return make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=strength, max_iter=300))


def _said(share: float, what: str) -> None:
    print(f"{share:4.0%} {what}", file=sys.stderr)


def main() -> None:
    """Measure what is asked for."""
    sets: dict[str, tuple[Callable[[Path, str], Texts], float | None]] = {"BANKING77": (banking, 0.9), "SST-2": (films, None)}
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=tuple(sets))
    parser.add_argument("--rows", type=int, help="of training, drawn by a seed; all by default")
    given = parser.parse_args()
    figures: dict[str, Any] = {}
    for name, (read, target) in sets.items():
        if given.only not in (None, name):
            continue
        train, test = read(given.folder, "train"), read(given.folder, "test")
        if given.rows is not None:
            drawn = np.random.default_rng(0).permutation(len(train[0]))[: given.rows]
            train = [train[0][i] for i in drawn], [train[1][i] for i in drawn]
        found = ours(train, test)
        aim = {} if target is None else {"target": target, "met": found["accuracy"] >= target and found["seconds"] <= BUDGET_S}
        figures[name] = {"rows": [len(train[0]), len(test[0])], "ngrams": found, **aim, "tf-idf + logistic regression": peer(train, test)}
    if given.only is None and given.rows is None:
        result.write("texts", figures, ("numpy", "onnxruntime", "scikit-learn", "scipy", "tokenizers"))
    else:
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
