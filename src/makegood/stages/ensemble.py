"""Which candidates make the model, and how much each counts: weighed by loss, decided by money.

Money is what counts, and it is noisy: on a few hundred rows with heavy tails, the candidate with the highest value is often the
luckiest. So the weights come from a proper score (greedy selection, Caruana et al. 2004), and money has a veto: among the
ensemble and the single candidates, those whose value is within `CLEAR` standard errors of the highest, paired by row, count as
equal, and of these the least loss wins. What is dear to train and to run, a network, must lower the loss as clearly first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from makegood.contracts import Floats, Ints, Predictive
from makegood.economics.calibrate import Calibrator
from makegood.stages.predictives import blend, calibrate, losses

ROUNDS = 20
"""Members that greedy selection draws, with replacement."""

CLEAR = 2.0
"""Standard errors of the paired difference beyond which one value is higher than another."""

ENSEMBLE, WITH_NETWORKS = "ensemble", "ensemble with networks"


@dataclass(frozen=True)
class Contender:
    """One way to predict, judged on rows that neither its models nor its calibrators have seen.

    `weights` of the candidates in it; `calibrator` for new rows; `oof` the predictions judged; `payoffs` (n,) money of the best
    options by expectation; `losses` (n,).
    """

    weights: Mapping[str, float]
    calibrator: Calibrator | None
    oof: Predictive
    payoffs: Floats
    losses: Floats


def contenders(
    held: Mapping[str, Predictive],
    outcome: NDArray[Any],
    folds: Ints,
    payoffs: Callable[[Predictive], Floats],
    *,
    dear: Collection[str] = (),
    seed: int,
) -> dict[str, Contender]:
    """Return each candidate alone and, where greedy selection mixes several, the ensembles: calibrated and judged by fold.

    `held` are out-of-fold predictions of the same rows, `folds` (n,) what held each row out. There is an ensemble without the
    `dear` candidates, and one with them where they are selected.
    """
    mixes = {name: {name: 1.0} for name in held}
    plain = {name: predictive for name, predictive in held.items() if name not in dear}
    for title, parts in ((ENSEMBLE, plain), (WITH_NETWORKS, held)):
        weights = greedy(parts, outcome) if parts else {}
        if len(weights) > 1 and weights not in mixes.values():
            mixes[title] = weights
    judged = {}
    for name, mix in mixes.items():
        raw = blend([held[part] for part in mix], list(mix.values()))
        calibrator, oof = calibrate(raw, outcome, folds, seed)
        judged[name] = Contender(mix, calibrator, oof, payoffs(oof), losses(oof, outcome))
    return judged


def greedy(held: Mapping[str, Predictive], outcome: NDArray[Any], rounds: int = ROUNDS) -> dict[str, float]:
    """Return the weights (they sum to one) of the average with the least loss that greedy selection with replacement finds.

    Each round adds the candidate with which the average loses least; the best round of all stands (Caruana et al. 2004, §2).
    """
    counts = dict.fromkeys(held, 0)
    best, best_counts = np.inf, dict.fromkeys(held, 1)
    for size in range(1, rounds + 1 if len(held) > 1 else 1):
        tried = {}
        for name in held:
            trial = {**counts, name: counts[name] + 1}
            used = [part for part in held if trial[part]]
            mean = blend([held[part] for part in used], [trial[part] / size for part in used])
            tried[name] = float(losses(mean, outcome).mean())
        chosen = min(tried, key=tried.__getitem__)
        counts[chosen] += 1
        if tried[chosen] < best:
            best, best_counts = tried[chosen], dict(counts)
    total = sum(best_counts.values())
    return {name: count / total for name, count in best_counts.items() if count}


def choose(judged: Mapping[str, Contender], clusters: Ints | None = None, *, dear: Collection[str] = ()) -> str:
    """Return the name of the contender to deploy: the least loss among those whose value is not clearly below the highest.

    Those with `dear` candidates in them compete only where their loss is clearly below that of the best without.
    """
    plain = {name: contender for name, contender in judged.items() if not contender.weights.keys() & set(dear)}
    if not plain:
        return _best(judged, clusters)
    best = _best(plain, clusters)
    helps = {
        name: contender
        for name, contender in judged.items()
        if name not in plain and clearly_positive(plain[best].losses - contender.losses, clusters)
    }
    return _best({best: plain[best], **helps}, clusters)


def _best(judged: Mapping[str, Contender], clusters: Ints | None) -> str:
    top = max(judged.values(), key=lambda contender: float(contender.payoffs.mean()))
    equal = [name for name, contender in judged.items() if not clearly_positive(top.payoffs - contender.payoffs, clusters)]
    return min(equal, key=lambda name: float(judged[name].losses.mean()))


def clearly_positive(difference: Floats, clusters: Ints | None = None) -> bool:
    """Return whether the mean of paired differences (n,) is more than `CLEAR` standard errors above zero, by cluster where given.

    >>> clearly_positive(np.array([1.0, 1.0, 1.1, 0.9])), clearly_positive(np.array([9.0, -1.0, -1.0, -1.0]))
    (True, False)
    """
    mean = float(difference.mean())
    centred: Floats = difference - mean
    if clusters is not None:
        centred = np.bincount(np.unique(clusters, return_inverse=True)[1], centred).astype(np.float64)
    units = len(centred)
    if units < 2:
        return False
    error = float(np.sqrt((centred**2).sum() * units / (units - 1))) / len(difference)
    return mean > CLEAR * error
