"""Which prediction sets an averse policy should decide by: coverage, size and money of four ways to make them, on unseen rows.

Two real tables that scikit-learn ships (569 tumours, 1,797 handwritten digits) and a simulated one whose model is too sure of itself.
Naming the class pays 1 if right and −10 if wrong; referring costs 0.3. Every row is predicted by models that did not see it, as in
use: outer folds are judged, and inner folds calibrate what the average of their models is held to. Usage: python bench/sets.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import result
from makegood.contracts import Bools, Floats, Ints, Probabilities
from makegood.economics import policy as policies
from makegood.economics.payoff import Payoffs
from makegood.economics.policy import Policy
from makegood.economics.sets import Sets, fit_sets

LEVEL, FOLDS = 0.95, 5
RIGHT, WRONG, REFER = 1.0, -10.0, -0.3

Way = Callable[[Floats, Ints, Floats], Bools]
"""Returns the sets of new rows' probabilities, given those of rows of known class."""


def least_ambiguous(p: Floats, y: Ints, new: Floats) -> Bools:
    """Return the classes whose own probability is high enough (Sadinle, Lei & Wasserman 2019), and the likeliest in any case."""
    own = np.sort(1.0 - p[np.arange(len(y)), y])
    place = int(np.ceil((len(y) + 1) * LEVEL - 1e-9))
    return np.asarray((1.0 - new <= (own[place - 1] if place <= len(y) else np.inf)) | (new == new.max(axis=1, keepdims=True)))


def adaptive(p: Floats, y: Ints, new: Floats) -> Bools:
    """Return the classes that few enough others precede in probability (Romano, Sesia & Candès 2020), without lots."""
    return Sets(1e-6, fit_sets(p, y, LEVEL).reach).apply(new)


def mass(p: Floats, y: Ints, new: Floats) -> Bools:
    """Return the fewest classes that have the declared probability between them, if the model is to be believed."""
    return Sets(LEVEL, 0.0).apply(new)


def both(p: Floats, y: Ints, new: Floats) -> Bools:
    """Return what makegood does: the declared probability, and as much more as rows of known class call for."""
    return fit_sets(p, y, LEVEL).apply(new)


WAYS: dict[str, Way] = {"least ambiguous": least_ambiguous, "adaptive": adaptive, "mass": mass, "both": both}


def real(X: Floats, y: Ints) -> Iterator[tuple[Floats, Ints, Floats, Ints]]:
    """Yield, for each outer fold, the out-of-fold probabilities and classes of its train rows, and those of its test rows."""
    k = int(y.max()) + 1
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(X, y):
        held, average = np.empty((len(train), k)), np.zeros((len(test), k))
        for inner, out in StratifiedKFold(FOLDS, shuffle=True, random_state=1).split(X[train], y[train]):
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(X[train][inner], y[train][inner])
            held[out] = model.predict_proba(X[train][out])
            average += model.predict_proba(X[test]) / FOLDS
        yield held, y[train], average, y[test]


def too_sure(k: int = 6, n: int = 1000) -> Iterator[tuple[Floats, Ints, Floats, Ints]]:
    """Yield rows of known truth whose predicted odds are the true ones, cubed."""
    for seed in range(FOLDS):
        rng = np.random.default_rng(seed)
        truth = rng.dirichlet(np.ones(k), 2 * n)
        y = (truth.cumsum(axis=1) < rng.random((2 * n, 1))).sum(axis=1)
        p = truth**3 / (truth**3).sum(axis=1, keepdims=True)
        yield p[:n], y[:n], p[n:], y[n:]


def judged(folds: Iterator[tuple[Floats, Ints, Floats, Ints]]) -> dict[str, dict[str, float]]:
    """Return the figures of each way over all test rows; "expected payoff" decides without sets."""
    found: dict[str, list[dict[str, Floats]]] = {name: [] for name in (*WAYS, "expected payoff")}
    for p, y, new, true in folds:
        classes = tuple(map(str, range(p.shape[1])))
        named: dict[str, Any] = {f"name {c}": {"payoff": {o: RIGHT if o == c else WRONG for o in classes}} for c in classes}
        payoffs = Payoffs.of({**named, "refer": {"payoff": REFER}}, "points", classes)
        rows, seen = np.arange(len(true)), Probabilities(classes, new)
        worth, paid = policies.expected(payoffs, seen, {}), policies.realised(payoffs, seen, true, {})
        hard = new.max(axis=1) <= np.quantile(new.max(axis=1), 0.2)
        for name, way in WAYS.items():
            sets = way(p, y, new)
            choices = Policy(payoffs, averse=True).decide(worth, {}, policies.guaranteed(payoffs, seen, {}, sets))
            assert choices.guaranteed is not None
            got, held = paid[rows, choices.option], sets[rows, true].astype(np.float64)
            found[name].append(
                {
                    "coverage": held,
                    "coverage of the fifth least sure": held[hard],
                    "classes": sets.sum(axis=1).astype(np.float64),
                    "guaranteed": choices.guaranteed,
                    "realised": got,
                    "paid less": (got < choices.guaranteed).astype(np.float64),
                    "referred": (choices.option == len(classes)).astype(np.float64),
                }
            )
        option = Policy(payoffs).decide(worth, {}).option
        found["expected payoff"].append({"realised": paid[rows, option], "referred": (option == len(classes)).astype(np.float64)})
    return {way: {key: float(np.concatenate([part[key] for part in parts]).mean()) for key in parts[0]} for way, parts in found.items()}


def main() -> None:
    """Measure every way on every table, and write the figures."""
    tumours, digits = load_breast_cancer(return_X_y=True), load_digits(return_X_y=True)
    tables = {"tumours": real(*tumours), "digits": real(*digits), "too sure (simulated)": too_sure()}
    result.write("sets", {"level": LEVEL, "tables": {name: judged(folds) for name, folds in tables.items()}}, ("numpy", "scikit-learn"))


if __name__ == "__main__":
    main()
