"""Essays of prompts 1 to 4 scored by machine: weighted kappa within each prompt, then averaged, on five fixed folds of 60/20/20.

An essay belongs to a fifth by the SHA-256 of its number, so that anybody can draw the same folds: one fifth is the test, the next one the
validation rows, three are learnt from; the hash of each test's numbers is published. The case is the built-in `essay-score`: what is
learnt from is cross-fitted within the four fifths that are not tested on, where the ranks are cut as well. Beside it stand the two raters.
Usage: python bench/essays.py FILE [--families NAME …] [--pretrained FOLDER] [--lora RANK] [--seconds S] [--folds K], where FILE has the
columns essay_id, prompt, essay, rater1, rater2 and score; with fewer than all folds, figures are printed and not kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import result
from makegood import cases, pipeline
from makegood.case import Case
from makegood.data.sources import read

FIFTHS, TARGET = 5, {"from scratch": 0.76, "pretrained": 0.78}


def fifth(number: Any) -> int:
    """Return the fifth of the essays that one belongs to.

    >>> fifth(605)
    0
    """
    return int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:8]) % FIFTHS


def parts(table: pa.Table, fold: int) -> pa.Table:
    """Return the essays with the part of each in a fold."""
    names = {0: "test", 1: "valid"}
    named = [names.get((fifth(number) - fold) % FIFTHS, "train") for number in table["essay_id"].to_pylist()]
    return table.append_column("part", pa.array(named))


def measured(case: Case, table: pa.Table, fold: int) -> dict[str, Any]:
    """Return what a fold comes to."""
    began = time.perf_counter()
    rows = parts(table, fold)
    with tempfile.TemporaryDirectory() as folder:
        run = pipeline.run(case, data=rows, workspace=Path(folder), until="evaluate")
    assert run.evaluation is not None
    every, *prompts = run.evaluation.ratings
    tested = [n for n, part in zip(rows["essay_id"].to_pylist(), rows["part"].to_pylist(), strict=True) if part == "test"]
    return {
        "test": len(tested),
        "sha256_of_test": hashlib.sha256("\n".join(map(str, sorted(tested))).encode()).hexdigest(),
        "kappa": every.kappa.value,
        "raters": None if every.raters is None else every.raters.value,
        "by_prompt": {r.level: r.kappa.value for r in prompts},
        "gain": [run.evaluation.gain.value, run.evaluation.gain.low, run.evaluation.gain.high],
        "candidates": [{"name": c["name"], "weight": c["weight"]} for c in run.evaluation.candidates],
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--families", nargs="+", default=["ngrams", "lightgbm"])
    parser.add_argument("--pretrained")
    parser.add_argument("--lora", type=int)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--folds", type=int, default=FIFTHS)
    given = parser.parse_args()
    raw = cases.load("essay-score").to_json()
    train = {"families": given.families, "budget": given.seconds, "pretrained": given.pretrained, "lora": given.lora}
    data = {**raw["data"], "holdout": "part"}
    case = Case.of({**raw, "data": data, "train": {name: value for name, value in train.items() if value is not None}})
    table = read(given.file).table
    found = [measured(case, table, fold) for fold in range(given.folds)]
    kappa = float(np.mean([fold["kappa"] for fold in found]))
    target = TARGET["from scratch" if given.pretrained is None else "pretrained"]
    figures = {"kappa": kappa, "target": target, "met": kappa >= target, "asked": train, "folds": found}
    if given.folds == FIFTHS:
        result.write("essays", figures, ("lightgbm", "numpy", "onnxruntime", "tokenizers"))
    else:
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
