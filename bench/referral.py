"""Does a network that knows what it does not know refer better? A task whose truth is known, referral by expected payoff, five policies.

    python bench/referral.py            # 20 seeds, a process a core; writes bench/results/referral.json
    python bench/referral.py --seeds 6  # fewer (six is the least that has intervals), to look: nothing is written

Rows have two features and one of two classes, whose probability p(x) is known. Beyond x₁ = 1 lie 30% of the rows to decide on and few
of those to learn from (2%), or none; and there the truth turns round: whoever extrapolates is sure and wrong. A decision names the class
or refers to a person, who is right and costs a fixed fee. Policies are those of `makegood.economics`, predictions those of the ONNX graphs
of wrapped networks; they are judged by their true expected payoff, Σ p(x) · payoff, and not by drawn outcomes.

The same for a number: y = f(x) + noise of known spread, and how often 90% intervals hold a new outcome.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.random import Generator
from torch import nn

from makegood.contracts import Bools, Budget, Dataset, Estimate, Floats, Ints, Probabilities, Quantiles, Task
from makegood.economics import policy as policies
from makegood.economics import value
from makegood.economics.payoff import Payoffs
from makegood.economics.policy import Policy
from makegood.families import wrap
from makegood.families.trained import Trained

SEEDS = 20
TRAIN, VALID, NEW = 500, 250, 1000
EDGE, SCARCE_NEW = 1.0, 0.3
LEARNT: Mapping[str, float] = {"few rows": 0.02, "no rows": 0.0}
"""Setting → share of the rows to learn from that lie beyond the edge."""

RIGHT, WRONG, FEE = 10, -40, 8
MEMBERS, PASSES = 5, 16
UNIT = "EUR a row"
NOISE = 0.3
CLASSES = ("no", "yes")
MODELS: Mapping[str, Mapping[str, int]] = {
    "one network": {},
    "dropout": {"passes": PASSES},
    "ensemble": {"members": MEMBERS},
    "both": {"members": MEMBERS, "passes": PASSES},
}
"""Name → what the recipe says beyond the training itself, which is the same for all."""

ORACLE = "oracle"
"""It decides by p(x) itself."""

RECIPE: Mapping[str, Any] = {"epochs": 30, "batch_size": 64, "lr": 5e-3, "weight_decay": 1e-3, "patience": 10}


def logit(X: Floats) -> Floats:
    """Return the log odds of "yes" (n,): with x₁ they rise, turn round where rows are scarce, and fall."""
    return np.asarray(4.0 * np.sin(1.5 * X[:, 0]) + 2.0 * X[:, 1])


def curve(X: Floats) -> Floats:
    """Return the mean of the number (n,)."""
    return np.asarray(2.0 * np.sin(1.5 * X[:, 0]) + X[:, 1])


def features(n: int, scarce: float, rng: Generator) -> Floats:
    """Return n rows (n, 2), a share of them beyond the edge."""
    beyond = rng.random(n) < scarce
    first = np.where(beyond, rng.uniform(EDGE, 3.0, n), rng.uniform(-2.0, EDGE, n))
    return np.column_stack([first, rng.normal(0.0, 1.0, n)]).astype(np.float32)


def network(outputs: int) -> nn.Module:
    """Return a perceptron with dropout behind each layer."""
    return nn.Sequential(
        nn.Linear(2, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, outputs)
    )


def fitted(outcome: Any, X: Floats, task: Task, seed: int, asked: Mapping[str, int]) -> Trained:
    """Return the wrapped network, trained on the first `TRAIN` rows and stopped by the others."""
    data = Dataset(pa.table({"row": np.arange(len(X))}), X, outcome)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = network(len(task.classes) or 1)
    family = wrap(module, recipe={**RECIPE, **asked}).make(task)
    assert isinstance(family, Trained)
    train, valid = data.take(np.arange(TRAIN)), data.take(np.arange(TRAIN, len(X)))
    return family.fit(train, valid, budget=Budget(600.0, time.perf_counter()), seed=seed)


# ---------------------------------------------------------------------------------------------------------------- classes


def payoffs(*, refer: bool) -> Payoffs:
    """Return what naming each class pays, and what a person costs."""
    names = {f"say {c}": {"payoff": {other: str(RIGHT if other == c else WRONG) for other in CLASSES}} for c in CLASSES}
    return Payoffs.of({**names, **({"refer": {"payoff": str(RIGHT - FEE)}} if refer else {})}, "EUR", CLASSES)


@dataclass(frozen=True)
class Earned:
    """What one model's policies earn a row in truth, and how well it knows its limits; by region where there are two."""

    refer: float
    never: float
    referred: float  # share of rows
    referred_scarce: float
    covered: float  # share of rows whose p(x) lies between the 5% and 95% quantiles of the votes
    covered_scarce: float


def truth(p: Floats, allowed: Payoffs, found: Probabilities) -> tuple[float, Ints]:
    """Return the true expected payoff of deciding by a prediction, a row, and the options chosen (n,)."""
    choices = Policy(allowed).decide(policies.expected(allowed, found, {}), {})
    known = policies.expected(allowed, Probabilities(CLASSES, p), {})
    return float(known[np.arange(len(p)), choices.option].mean()), choices.option


def decided(seed: int, learnt: float, members: int = MEMBERS, passes: int = PASSES) -> dict[str, Earned]:
    """Return what each model earns on rows drawn by a seed, and the oracle that knows p(x).

    The one network is the first member of the ensemble, and dropout alone the first member's passes: trained apart they are the same.
    """
    rng = np.random.default_rng(seed)
    X, X_new = features(TRAIN + VALID, learnt, rng), features(NEW, SCARCE_NEW, rng)
    y = (rng.random(len(X)) < 1.0 / (1.0 + np.exp(-logit(X)))).astype(np.int64)
    yes = 1.0 / (1.0 + np.exp(-logit(X_new).astype(np.float64)))
    p, scarce = np.column_stack([1.0 - yes, yes]), X_new[:, 0] > EDGE
    new, task = Dataset(pa.table({"row": np.arange(NEW)}), X_new), Task("classes", CLASSES)
    ensemble = fitted(y, X, task, seed, {"members": members}).votes(new)
    both = fitted(y, X, task, seed, {"members": members, "passes": passes}).votes(new)
    votes = dict(zip(MODELS, (ensemble[:, :1], both[:, :passes], ensemble, both), strict=True))
    earned = {name: judged(p, scarce, Probabilities(CLASSES, part.mean(axis=1)), part[:, :, 1]) for name, part in votes.items()}
    return {**earned, ORACLE: judged(p, scarce, Probabilities(CLASSES, p), yes[:, None])}


def judged(p: Floats, scarce: Bools, found: Probabilities, votes: Floats) -> Earned:
    """Return what a prediction earns; `votes` (n, n_votes) are of the second class."""
    refer, option = truth(p, payoffs(refer=True), found)
    never, _ = truth(p, payoffs(refer=False), found)
    low, high = np.quantile(votes, [0.05, 0.95], axis=1)
    sent, inside = option == len(CLASSES), (low <= p[:, 1]) & (p[:, 1] <= high)
    return Earned(refer, never, *(float(part[rows].mean()) for part in (sent, inside) for rows in (~scarce, scarce)))


# ----------------------------------------------------------------------------------------------------------------- number


def held(seed: int, learnt: float, models: Mapping[str, Mapping[str, int]] = MODELS) -> dict[str, dict[str, float]]:
    """Return for each model how often its 90% interval holds a new outcome, and how wide it is, by region."""
    rng = np.random.default_rng(seed)
    X, X_new = features(TRAIN + VALID, learnt, rng), features(NEW, SCARCE_NEW, rng)
    y, y_new = curve(X) + rng.normal(0.0, NOISE, len(X)), curve(X_new) + rng.normal(0.0, NOISE, NEW)
    scarce, found = X_new[:, 0] > EDGE, {}
    for name, asked in models.items():
        predicted = fitted(y, X, Task("number"), seed, asked).predict(Dataset(pa.table({"row": np.arange(NEW)}), X_new))
        assert isinstance(predicted, Quantiles)
        low, high = predicted.q[:, 0], predicted.q[:, -1]
        inside, width = (low <= y_new) & (y_new <= high), high - low
        found[name] = {
            "held": float(inside[~scarce].mean()),
            "held, scarce": float(inside[scarce].mean()),
            "width": float(width[~scarce].mean()),
            "width, scarce": float(width[scarce].mean()),
        }
    return found


TASKS: Mapping[str, tuple[Callable[..., Any], int]] = {"classes": (decided, 1), "number": (held, 4)}
"""Kind → what runs one seed, and how many times fewer seeds it takes to see."""


# ---------------------------------------------------------------------------------------------------------------- figures


def gain(a: list[float], b: list[float]) -> Estimate:
    """Return the paired difference a − b over seeds, with its interval."""
    return value.estimate(np.array(a) - np.array(b), UNIT)


def classes_figures(runs: Sequence[Mapping[str, Earned]]) -> dict[str, Any]:
    """Return what the policies earn, as `Estimate`s over seeds, and how often the votes' range holds the truth, by region."""
    refer = {name: [run[name].refer for run in runs] for name in runs[0]}
    never = {name: [run[name].never for run in runs] for name in runs[0]}
    alone, *asked = (name for name in runs[0] if name != ORACLE)

    def mean(name: str, field: str) -> float:
        return round(float(np.mean([getattr(run[name], field) for run in runs])), 3)

    return {
        "earned": {
            name: {"refer": value.estimate(np.array(refer[name]), UNIT), "never": value.estimate(np.array(never[name]), UNIT)}
            for name in refer
        },
        "referring against never": {name: gain(refer[name], never[alone]) for name in (alone, *asked)},
        "against one network that refers": {name: gain(refer[name], refer[alone]) for name in asked},
        "referred": {name: [mean(name, "referred"), mean(name, "referred_scarce")] for name in refer},
        "votes' range holds p(x)": {name: [mean(name, "covered"), mean(name, "covered_scarce")] for name in asked},
    }


def number_figures(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Return the means over seeds of what `held` tells."""
    return {name: {key: round(float(np.mean([run[name][key] for run in runs])), 3) for key in first} for name, first in runs[0].items()}


def main() -> None:
    """Run the seeds and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    seeds = parser.parse_args().seeds
    began = time.perf_counter()
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        found = {
            name: {kind: pool.map(partial(run, learnt=learnt), range(-(-seeds // part))) for kind, (run, part) in TASKS.items()}
            for name, learnt in LEARNT.items()
        }
        classes = {name: classes_figures([*runs["classes"]]) for name, runs in found.items()}
        number = {name: number_figures([*runs["number"]]) for name, runs in found.items()}
    figures = {
        "seeds": {kind: -(-seeds // part) for kind, (_, part) in TASKS.items()},
        "classes": plain(classes),
        "number, 90% intervals": number,
        "met": {
            f"{setting}, {name}: referring by payoff earns more than never referring": bool(against.low > 0.0)
            for setting, part in classes.items()
            for name, against in part["referring against never"].items()
        },
        "seconds": round(time.perf_counter() - began, 1),
    }
    if seeds < SEEDS:
        print(json.dumps(figures, indent=2))
        return
    import result

    result.write("referral", figures, ("makegood", "torch", "onnxruntime", "numpy"))


def plain(figures: Any) -> Any:
    """Return the figures with each `Estimate` as [value, low, high], rounded."""
    if isinstance(figures, Estimate):
        return [round(x, 3) for x in (figures.value, figures.low, figures.high)]
    return {name: plain(part) for name, part in figures.items()} if isinstance(figures, dict) else figures


if __name__ == "__main__":
    main()
