"""Promises on real cases: how often the held-out gap, promised − realised, has an interval that holds zero.

For each case 40 stratified splits, 90/10; everything (preparation, model, calibration, prices, promises) is learnt from the train rows,
and the paired gap is measured on the test rows. MATHEMATICS asks for at least 34 of 40. Usage: python bench/promises.py [CASE.yaml …]
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np

import result
from makegood import cases, families
from makegood.case import Case
from makegood.contracts import Budget, Fold
from makegood.economics import value
from makegood.stages.learn import held_out, learn
from makegood.stages.prepare import Prepared, prepare_rows

SPLITS, TEST_SHARE = 40, 0.1


def gaps(prepared: Prepared) -> dict[str, Any]:
    """Return in how many of the splits the gap's interval holds zero, and the mean gap."""
    candidates = families.find(prepared.case.train.chosen)
    rows, outcome = prepared.known, prepared.outcome.values[prepared.known]
    holds, found = 0, []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(rows))
        order = order[np.argsort(outcome[order], kind="stable")]  # stratified: every tenth row in the order of the outcome
        test = np.zeros(len(rows), dtype=np.bool_)
        test[order[seed % 10 :: round(1 / TEST_SHARE)]] = True
        fold = Fold(rows[~test], rows[test])
        here = replace(prepared, splits=replace(prepared.splits, folds=(fold,), seed=seed))
        learnt = learn(here, fold.train, candidates, Budget(prepared.case.train.budget, time.perf_counter()), lambda what, done: None)
        held = held_out(here, learnt, fold.test)
        gap = value.estimate(held.choices.promise - held.payoff, clusters=held.clusters)
        holds += bool(gap.low <= 0.0 <= gap.high)
        found.append(gap.value)
    return {"holds zero": holds, "of": SPLITS, "mean gap": float(np.mean(found)), "sd of gaps": float(np.std(found, ddof=1))}


def main() -> None:
    """Measure the built-in diagnosis case and the case files given."""
    chosen = [cases.load("diagnosis"), *map(Case.load, sys.argv[1:])]
    figures = {case.case: gaps(prepare_rows(case)) for case in chosen}
    result.write("promises", figures, ("lightgbm", "numpy", "scikit-learn"))


if __name__ == "__main__":
    main()
