"""Simulate what MATHEMATICS promises of intervals, promises, verdicts and quantiles, and write the figures.

    python bench/guarantees.py              # full repetitions, a few minutes; writes bench/results/statistics.json
    python bench/guarantees.py --share 0.1  # a tenth of them, to look at

Every simulation is a function of the number of repetitions and a seed; the tests run the same ones, shorter, within the same
bounds widened by three standard errors.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from numpy.random import Generator

from makegood.contracts import Estimate, Floats, Ints
from makegood.economics import calibrate, conformal, value

STREAMS = 8
"""Seeds of the bootstrap that repetitions take in turn: resamples are kept by seed, and each holds for every data set."""


@dataclass(frozen=True)
class Rate:
    """How often something happened in so many repetitions, and between what it must lie. None: it is reported, not promised."""

    rate: float
    repetitions: int
    least: float | None
    most: float | None
    note: str = ""

    def holds(self, standard_errors: float = 0.0) -> bool:
        """Return whether the rate lies in its bounds, widened by so many binomial standard errors at the bound."""

        def slack(bound: float) -> float:
            return standard_errors * float(np.sqrt(bound * (1.0 - bound) / self.repetitions))

        above = self.least is None or self.rate >= self.least - slack(self.least)
        return bool(above and (self.most is None or self.rate <= self.most + slack(self.most)))


# -------------------------------------------------------------------------------------------------------------- intervals

Sample = tuple[Floats, Ints | None]
Draw = Callable[[Generator], Sample]


def exponential(n: int, rng: Generator) -> Sample:
    """Skewness 2, mean 1."""
    return rng.exponential(size=n), None


def loans(n: int, rng: Generator) -> Sample:
    """One in seven loses six, the others gain one: skewness −2, mean 0."""
    return np.where(rng.random(n) < 1 / 7, -6.0, 1.0), None


def lognormal(n: int, rng: Generator) -> Sample:
    """σ = 2: skewness 414, mean e²."""
    return rng.lognormal(0.0, 2.0, n), None


def groups(count: int, unequal: bool, rng: Generator) -> Sample:
    """Rows of one group share half of their variance; sizes are ten, or lognormal (σ = 1) around five. Mean 0."""
    sizes = np.ceil(5.0 * rng.lognormal(0.0, 1.0, count)).astype(np.int64) if unequal else np.full(count, 10)
    group = np.repeat(np.arange(count), sizes)
    return (rng.normal(size=count)[group] + rng.normal(size=len(group))) / np.sqrt(2.0), group


def autoregressive(n: int, rho: float, rng: Generator) -> Sample:
    """Each row remembers the one before by `rho`; forty time blocks. Mean 0."""
    noise = rng.normal(size=n) * np.sqrt(1.0 - rho**2)
    x = np.empty(n)
    x[0] = rng.normal()
    for i in range(1, n):
        x[i] = rho * x[i - 1] + noise[i]
    return x, value.time_blocks(np.arange(n))


def coverage(draw: Draw, mean: float, least: float | None, most: float | None, repetitions: int, seed: int = 0) -> Rate:
    """Return how often the 95% interval of `value.estimate` holds the mean."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(repetitions):
        x, clusters = draw(rng)
        found.append(value.estimate(x, clusters=clusters, seed=i % STREAMS))
    return _held(found, mean, least, most)


def flagged(draw: Draw, least: float, repetitions: int, seed: int = 0) -> Rate:
    """Return how often the interval is marked tail-limited."""
    rng = np.random.default_rng(seed)
    rate = np.mean([value.estimate(draw(rng)[0], seed=i % STREAMS).tail_limited for i in range(repetitions)])
    return Rate(float(rate), repetitions, least, None)


def area(apart: float, least: float, repetitions: int, seed: int = 0) -> Rate:
    """Return how often the 95% interval of an area under the ROC curve holds it: 40 of 300 positive, `apart` standard deviations."""
    from scipy.special import ndtr

    rng = np.random.default_rng(seed)
    found = []
    for _ in range(repetitions):
        hit = np.arange(300) < 40
        score = rng.normal(size=300) + apart * hit
        below = np.searchsorted(np.sort(score[~hit]), score) / 260.0
        above = 1.0 - np.searchsorted(np.sort(score[hit]), score) / 40.0
        mean = float(below[hit].mean())
        pseudo = mean + np.where(hit, (below - mean) * 300.0 / 40.0, (above - mean) * 300.0 / 260.0)
        found.append(value.bounded(pseudo, bounds=(0.0, 1.0)))
    return _held(found, float(ndtr(apart / np.sqrt(2.0))), least, 0.97)


def _held(found: list[Estimate], truth: float, least: float | None, most: float | None) -> Rate:
    low, high = np.array([e.low for e in found]), np.array([e.high for e in found])
    held = (low <= truth) & (truth <= high)
    note = f"missed below {np.mean(truth < low):.4f}, above {np.mean(truth > high):.4f}; median width {np.median(high - low):.3g}"
    return Rate(float(held.mean()), len(found), least, most, note)


# ---------------------------------------------------------------------------------------------------- verdicts and promises


def false_deploys(opened: int, repetitions: int, seed: int = 0) -> Rate:
    """Return how often a policy that earns what the best of three baselines earns, on average, is deployed all the same."""
    rng = np.random.default_rng(seed)
    deployed = 0
    for i in range(repetitions):
        shared = rng.exponential(size=(400, 1))
        payoff = shared + rng.normal(size=(400, 4)) + np.array([0.0, 0.0, -0.05, -1.0])
        names = {"best": payoff[:, 1], "close": payoff[:, 2], "far": payoff[:, 3]}
        deployed += value.verdict(value.gain(payoff[:, 0], names, opened=opened, seed=i % STREAMS))[0] == "deploy"
    return Rate(deployed / repetitions, repetitions, None, 0.025 / opened)


def curse(kind: str, n: int, rng: Generator) -> tuple[Floats, Floats]:
    """Return promise and realised payoff (n,) of the best of five options, each seen with more noise than there is signal.

    "plain": one scale. "amounts": scales are lognormal (σ = 1.2), one in ten loses nine. "declining": so, and the first option
    pays nothing for certain.
    """
    true = rng.normal(size=(n, 5)) * 0.5 - 0.2
    seen = true + rng.normal(size=(n, 5)) * 0.7
    noise = rng.normal(size=n)
    scale = np.ones(n)
    if kind != "plain":
        noise, scale = np.where(rng.random(n) < 0.1, -9.0, 1.0), rng.lognormal(0.0, 1.2, n)
    if kind == "declining":
        true[:, 0] = seen[:, 0] = 0.0
    rows, best = np.arange(n), seen.argmax(axis=1)
    if kind == "declining":
        noise = np.where(best == 0, 0.0, noise)
    return seen[rows, best] * scale, (true[rows, best] + noise) * scale


def promises(kind: str, n: int, mapped: bool, repetitions: int, seed: int = 0) -> Rate:
    """Return how often the paired 95% gap interval holds zero on n fresh rows; the map is fitted on four times as many."""
    rng = np.random.default_rng(seed)
    held, gaps = 0, []
    for i in range(repetitions):
        promised, realised = curse(kind, n, rng)
        if mapped:
            promised = calibrate.fit_promise(*curse(kind, 4 * n, rng)).apply(promised)
        gap = value.paired(promised, realised, seed=i % STREAMS)
        held += gap.low <= 0.0 <= gap.high
        gaps.append(gap.value)
    bound = 34.0 / 40.0
    return Rate(held / repetitions, repetitions, bound if mapped else None, None if mapped else bound, f"mean gap {np.mean(gaps):.3g}")


def crossfitted(kind: str, n: int, repetitions: int, seed: int = 0) -> Rate:
    """Return how often the gap interval holds zero where ten folds are each mapped by the other nine, and pooled."""
    rng = np.random.default_rng(seed)
    held = 0
    for i in range(repetitions):
        promised, realised = curse(kind, n, rng)
        fold, mapped = rng.permutation(n) % 10, np.empty(n)
        for f in range(10):
            mapped[fold == f] = calibrate.fit_promise(promised[fold != f], realised[fold != f]).apply(promised[fold == f])
        gap = value.paired(mapped, realised, seed=i % STREAMS)
        held += gap.low <= 0.0 <= gap.high
    return Rate(held / repetitions, repetitions, 34.0 / 40.0, None)


# -------------------------------------------------------------------------------------------------------------- quantiles


def conformal_coverage(level: float, grouped: bool, repetitions: int, seed: int = 0) -> Rate:
    """Return how often a fresh outcome lies below a calibrated quantile of a model that is wrong; 99 rows or groups calibrate."""
    rng = np.random.default_rng(seed)
    below = 0
    for _ in range(repetitions):
        sizes = rng.integers(1, 9, 100) if grouped else np.ones(100, dtype=np.int64)
        group = np.repeat(np.arange(100), sizes)
        x = rng.normal(size=100)[group]
        y = x + rng.exponential(size=len(group)) * (1.0 + np.abs(x)) + 2.0 * rng.normal(size=100)[group]
        q = np.column_stack([0.5 * x, 0.5 * x, 0.5 * x])
        old = group < 99
        fresh = len(y) - 1 - int(rng.integers(sizes[99]))
        found = conformal.fit_conformal(q[old], y[old], (0.1, 0.5, 0.9), clusters=group[old])
        below += y[fresh] <= found.apply(q[fresh])[(0.1, 0.5, 0.9).index(level)]
    room = 0.02 if grouped else 0.01
    return Rate(below / repetitions, repetitions, level - room, level + room)


# ------------------------------------------------------------------------------------------------------------- the figures

SIMULATIONS: dict[str, tuple[int, Callable[[int], Rate]]] = {
    "mean, exponential, n=1000": (4000, partial(coverage, partial(exponential, 1000), 1.0, 0.94, 0.96)),
    "mean, loans, n=1000": (4000, partial(coverage, partial(loans, 1000), 0.0, 0.94, 0.96)),
    "mean, exponential, n=5000 in random blocks": (4000, partial(coverage, partial(exponential, 5000), 1.0, 0.94, 0.96)),
    "mean, lognormal, n=1000": (4000, partial(coverage, partial(lognormal, 1000), float(np.exp(2)), 0.88, None)),
    "mean, lognormal, n=1000: marked tail-limited": (4000, partial(flagged, partial(lognormal, 1000), 0.95)),
    "mean, lognormal, n=10000 in random blocks": (2000, partial(coverage, partial(lognormal, 10000), float(np.exp(2)), 0.88, None)),
    "mean, 6 groups (t)": (4000, partial(coverage, partial(groups, 6, False), 0.0, 0.93, 0.97)),
    "mean, 20 groups (t)": (4000, partial(coverage, partial(groups, 20, False), 0.0, 0.93, 0.97)),
    "mean, 20 groups of unequal size (t)": (4000, partial(coverage, partial(groups, 20, True), 0.0, 0.93, 0.97)),
    "mean, 39 groups of unequal size (t)": (4000, partial(coverage, partial(groups, 39, True), 0.0, 0.93, 0.97)),
    "mean, 60 groups (bootstrap)": (4000, partial(coverage, partial(groups, 60, False), 0.0, 0.93, 0.97)),
    "mean, 150 groups of unequal size (bootstrap)": (4000, partial(coverage, partial(groups, 150, True), 0.0, 0.93, 0.97)),
    "mean, autocorrelation .5, n=1000 in 40 time blocks": (4000, partial(coverage, partial(autoregressive, 1000, 0.5), 0.0, 0.93, 0.97)),
    "mean, autocorrelation .8, n=1000 in 40 time blocks": (2000, partial(coverage, partial(autoregressive, 1000, 0.8), 0.0, None, None)),
    "area under the curve .76, 40 of 300 positive": (4000, partial(area, 1.0, 0.93)),
    "area under the curve .967, 40 of 300 positive": (4000, partial(area, 2.6, 0.90)),
    "deployed without a gain, first opening": (4000, partial(false_deploys, 1)),
    "deployed without a gain, third opening": (4000, partial(false_deploys, 3)),
    "promises, plain, n=1000, as expected": (40, partial(promises, "plain", 1000, False)),
    "promises, plain, n=1000, mapped": (400, partial(promises, "plain", 1000, True)),
    "promises, amounts, n=1000, as expected": (40, partial(promises, "amounts", 1000, False)),
    "promises, amounts, n=1000, mapped": (400, partial(promises, "amounts", 1000, True)),
    "promises, declining, n=1000, mapped": (400, partial(promises, "declining", 1000, True)),
    "promises, amounts, n=1000, cross-fitted": (400, partial(crossfitted, "amounts", 1000)),
    "conformal, level .1": (20000, partial(conformal_coverage, 0.1, False)),
    "conformal, level .5": (20000, partial(conformal_coverage, 0.5, False)),
    "conformal, level .9": (20000, partial(conformal_coverage, 0.9, False)),
    "conformal, level .9, grouped": (20000, partial(conformal_coverage, 0.9, True)),
}


def main() -> None:
    """Run every simulation, print each as it ends, and write the figures."""
    import result

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the full repetitions; less than all is not written")
    share = parser.parse_args().share
    found = {}
    for name, (repetitions, simulate) in SIMULATIONS.items():
        start = time.perf_counter()
        rate = simulate(max(int(repetitions * share), 40))
        found[name] = {**asdict(rate), "holds": rate.holds(), "seconds": round(time.perf_counter() - start, 1)}
        print(f"{'holds' if rate.holds() else 'FAILS':5}  {rate.rate:.4f} in [{rate.least}, {rate.most}]  {name}  {rate.note}", flush=True)
    if share == 1.0:
        result.write("statistics", {"simulations": found}, ("numpy", "scipy"))


if __name__ == "__main__":
    main()
