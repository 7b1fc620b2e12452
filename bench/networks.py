"""Do networks help tables? The families of `auto` with those that join them, and without, at the same budget on the same folds.

    python bench/networks.py FOLDER

FOLDER holds german_credit.csv and taiwan_default.csv.gz. Money is the published cost matrix for German credit (a bad loan costs five
times what a good one earns), and a margin of 4% against a loss of 20% of the limit for Taiwan's cards. Both portfolios decide on the
same held-out rows; the difference of a row is its mean over the seeds, and intervals are over rows.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import result
from makegood.case import FAMILIES, Case
from makegood.contracts import Estimate, Floats, Ints
from makegood.economics import value
from makegood.stages.learn import learn_all
from makegood.stages.predictives import losses
from makegood.stages.prepare import prepare_rows

SEEDS = 5
TABLES: dict[str, dict[str, Any]] = {
    "german": {
        "data": {"source": "german_credit.csv", "outcome": "defaulted"},
        "actions": {"approve": {"payoff": {"no": "1", "yes": "-5"}}, "decline": {"payoff": "0"}},
        "budget": 60,
    },
    "taiwan": {
        "data": {"source": "taiwan_default.csv.gz", "outcome": "Default"},
        "actions": {"approve": {"payoff": {"0": "0.04 * LIMIT_BAL", "1": "-0.2 * LIMIT_BAL"}}, "decline": {"payoff": "0"}},
        "budget": 120,
    },
}


def main() -> None:
    """Run both portfolios on both tables with every seed, and write what the networks were worth."""
    folder, figures = Path(sys.argv[1]), dict[str, Any]()
    for name, table in TABLES.items():
        runs = [compare(folder, table, seed) for seed in range(SEEDS)]
        figures[name] = pooled(runs) | {"budget": table["budget"]}
    met = {f"no worse on {name}": found["gain"]["high"] >= 0 for name, found in figures.items()}
    result.write("networks", {"seeds": SEEDS, **figures, "met": met}, ("makegood", "torch", "lightgbm", "numpy"))


def compare(folder: Path, table: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return the held-out rows of one seed, and for both portfolios their payoffs, losses, seconds and weights."""
    found: dict[str, Any] = {}
    for arm, families in (("without", FAMILIES), ("with", ("auto",))):
        train = {"budget": table["budget"], "seed": seed, "families": families}
        raw = {"case": "bench", "data": table["data"], "decision": {"unit": "money", "actions": table["actions"]}, "train": train}
        prepared = prepare_rows(Case.of(raw, folder=folder), None)
        began = time.perf_counter()
        trials = learn_all(prepared, (), lambda stage, done: None)
        found["rows"] = np.concatenate([fold.test for fold in prepared.splits.folds])
        found[arm] = {
            "payoff": trials.held.payoff,
            "loss": losses(trials.held.predictive, trials.held.outcome),
            "seconds": time.perf_counter() - began,
            "weights": {t.name: t.weight for t in trials.learnt.trained.trials},
        }
        print(
            seed,
            arm,
            {k: v if isinstance(v, dict) else round(float(np.mean(v)), 4) for k, v in found[arm].items()},
            file=sys.stderr,
            flush=True,
        )
    return found


def pooled(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean value and loss of both portfolios, and the gain of the one with networks over the other, by row."""
    rows = np.concatenate([run["rows"] for run in runs])

    def both(what: str) -> dict[str, Floats]:
        return {arm: by_row(rows, np.concatenate([run[arm][what] for run in runs])) for arm in ("without", "with")}

    payoff, loss = both("payoff"), both("loss")
    return {
        **{arm: {"value": float(payoff[arm].mean()), "log_loss": float(loss[arm].mean())} for arm in payoff},
        "gain": plain(value.paired(payoff["with"], payoff["without"], "money")),
        "less_log_loss": plain(value.paired(loss["without"], loss["with"])),
        "seconds": {arm: float(np.median([run[arm]["seconds"] for run in runs])) for arm in payoff},
        "weight_of_networks": [run["with"]["weights"].get("mlp", 0.0) for run in runs],
    }


def by_row(rows: Ints, values: Floats) -> Floats:
    """Return the mean of each row's values (over the seeds in which it was held out)."""
    _, place = np.unique(rows, return_inverse=True)
    return np.asarray(np.bincount(place, values) / np.bincount(place))


def plain(estimate: Estimate) -> dict[str, Any]:
    """Return value and interval."""
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


if __name__ == "__main__":
    main()
