"""Simulate challengers that are better and that are not: how often each way of testing promotes them (B8, MATHEMATICS §7).

    python bench/promotion.py               # 2,000 experiments of each kind, 1,000 runs; writes bench/results/promotion.json
    python bench/promotion.py --share 0.05  # a twentieth of them, to look at

One stream of experiments, 100,000 decisions of heavy-tailed money each and a look every 500, to which every way of testing is put: {all
traffic randomised, the disagreements only} × {betting, asymptotic, empirical Bernstein, a z test at every look, a z test once}. And
what is promised of the test as it is run, from decisions and outcomes, each with its null; beside some stands an attack, a wrong
method on the same world, which must fail the same check, or the check proves nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.random import Generator
from scipy.special import ndtr, ndtri

from figure import Figure
from makegood.contracts import Bools, Floats, Ints
from makegood.monitoring import asymptotic, betting, experiments, planning
from makegood.monitoring.experiments import Terms, Trial
from makegood.monitoring.maturity import NEVER, Outcomes
from makegood.monitoring.planning import Design

ALPHA, DECISIONS, EVERY = 0.05, 100_000, 500
"""The error allowed, how many decisions an experiment has, and after how many each it is looked at."""

CAP, SIGMA, DIFFER = 20.0, 1.5, 0.1
"""No decision loses more; σ of the lognormal amounts; the share of decisions on which the two models differ."""

CHANCES = (0.5, 0.1, 0.02)
GAINS = {0.5: (0.0, 0.02, 0.04), 0.1: (0.0, 0.02, 0.04), 0.02: (0.0, 0.04, 0.08)}
"""A decision, of which the champion earns .19; below b·ln(1/α)/100,000, .03 at e = .02, no evidence could suffice."""

METHODS = ("betting", "asymptotic", "empirical Bernstein", "z at every look", "z once")
VALID = ("betting", "empirical Bernstein")
"""Those that promise what they must hold at any time and with any distribution."""


# --------------------------------------------------------------------------------------------------------- one stream of experiments


def _capped(scale: float) -> float:
    """Return the mean of min(scale·amount, cap)."""
    log = np.log(CAP / scale)
    return float(scale * np.exp(SIGMA**2 / 2.0) * ndtr((log - SIGMA**2) / SIGMA) + CAP * ndtr(-log / SIGMA))


def payoffs(rng: Generator, n: int, gain: float) -> tuple[Floats, Floats]:
    """Return what the champion's and the challenger's actions would pay (n,), where they differ.

    The champion lends an amount at 35% and loses it in a fifth of the cases. The challenger lends five times as much where it is lost in
    a twentieth, at the interest that makes its mean higher by `gain`: its losses are rare and large, the worst for who trusts a variance.
    """
    amount = rng.lognormal(0.0, SIGMA, n)
    mine = np.minimum(amount, CAP) * np.where(rng.random(n) < 0.2, -1.0, 0.35)
    mean = _capped(1.0) * (0.8 * 0.35 - 0.2)
    interest = ((mean + gain) / _capped(5.0) + 0.05) / 0.95
    theirs = np.minimum(5.0 * amount, CAP) * np.where(rng.random(n) < 0.05, -1.0, interest)
    return mine, theirs


def experiment(seed: int, chance: float, gain: float) -> tuple[Floats, Bools]:
    """Return z (n,) of an ordinary A/B test, and where the two differ; the disagreement test has the same z there, and 0 elsewhere."""
    rng = np.random.default_rng([seed, 8])
    differs = rng.random(DECISIONS) < DIFFER
    mine, theirs = payoffs(rng, DECISIONS, gain / DIFFER)
    challenger = rng.random(DECISIONS) < chance
    paid = np.where(challenger & differs, theirs, mine)
    return np.where(challenger, paid / chance, -paid / (1.0 - chance)), differs


LOOKS = np.arange(EVERY, DECISIONS + 1, EVERY)


def promoted(z: Floats, bound: float, limits: Floats) -> Bools:
    """Return which of the `METHODS` promote at any look; `limits` (n_looks,) are the asymptotic sequence's, of the sum over its spread."""
    bets = betting.log_evidence(betting.log_wealth(z, bound, LOOKS), LOOKS, 0.0, bound)
    low, _ = betting.bernstein(z, (-bound, bound), 2.0 * ALPHA)
    total, square = np.cumsum(z)[LOOKS - 1], np.cumsum(z * z)[LOOKS - 1]
    score = total / np.sqrt(square / LOOKS - (total / LOOKS) ** 2)
    peeked = score / np.sqrt(LOOKS) >= ndtri(1.0 - ALPHA)
    found = (bets.max() >= -np.log(ALPHA), (score >= limits).any(), (low[LOOKS - 1] >= 0.0).any(), peeked.any(), peeked[-1])
    return np.array(found, dtype=np.bool_)


def table(repetitions: int, chance: float) -> list[dict[str, object]]:
    """Return how often each way of testing promotes, by true gain, with Monte Carlo errors, where the challenger acts with a `chance`."""
    found: list[dict[str, object]] = []
    bound, limits = CAP / min(chance, 1.0 - chance), asymptotic.boundary(LOOKS, ALPHA, asymptotic.precision(ALPHA))
    for gain in GAINS[chance]:
        hits = np.zeros((2, len(METHODS)))
        for seed in range(repetitions):
            z, differs = experiment(seed, chance, gain)
            hits += [promoted(z, bound, limits), promoted(np.where(differs, z, 0.0), bound, limits)]
        for design, rates in zip(("A/B", "disagreement"), hits / repetitions, strict=True):
            error = np.sqrt(np.maximum(rates * (1.0 - rates), 1.0 / repetitions) / repetitions)
            for method, rate, off in zip(METHODS, rates.tolist(), error.tolist(), strict=True):
                found.append({"chance": chance, "gain": gain, "design": design, "method": method, "promoted": rate, "error": off})
    return found


def verdict(rows: list[dict[str, object]], repetitions: int) -> dict[str, bool]:
    """Return whether what must hold of the table holds: false promotions ≤ α + 2.33 standard errors, and more power than A/B everywhere."""
    rate = {(r["gain"], r["design"], r["method"], r["chance"]): float(str(r["promoted"])) for r in rows}
    most = ALPHA + 2.33 * float(np.sqrt(ALPHA * (1.0 - ALPHA) / repetitions))
    return {
        "valid": all(found <= most for (gain, _, method, _), found in rate.items() if gain == 0.0 and method in VALID),
        "disagreement above A/B": all(
            found > rate[gain, "A/B", method, chance]
            for (gain, design, method, chance), found in rate.items()
            if gain != 0.0 and design == "disagreement" and method == "betting"
        ),
    }


# ----------------------------------------------------------------------------------------------------------- the test as it is run


MINUTE, UNITS, DELAY = 60_000_000, 10_000, 500  # units come a minute apart; outcomes take 500 minutes

World = Callable[[Generator], tuple[Trial, Terms]]


def _outcomes(paid: Floats, unit: Ints | None = None, at: Ints | None = None, known_at: Ints | None = None) -> Outcomes:
    n = len(paid)
    at = np.arange(n) * MINUTE if at is None else at
    known_at = at + DELAY * MINUTE if known_at is None else known_at
    unit = np.arange(n) if unit is None else unit
    return Outcomes(at, unit, np.zeros(n), paid, known_at, np.ones(n, np.bool_), np.zeros(n, np.int64), np.full(n, -CAP))


def _terms(chance: float, **said: object) -> Terms:
    return Terms(cap=(-CAP, CAP), least=chance, delay_us=DELAY * MINUTE, missing=0.0, **said)  # type: ignore[arg-type]


def _drawn(rng: Generator, n: int, chance: Floats | float, gain: float = 0.0) -> tuple[Floats, Bools, Bools]:
    """Return what n decisions paid, where the two differ, and which were the challenger's."""
    differs, challenger = rng.random(n) < 0.5, rng.random(n) < chance
    mine, theirs = payoffs(rng, n, gain)
    return np.where(challenger & differs, theirs, mine), differs, challenger


def _done(challenger: Bools, chance: Floats | float) -> Floats:
    """Return the chance (n,) with which was decided what was decided."""
    return np.where(challenger, chance, 1.0 - np.asarray(chance))


def independent(rng: Generator, chance: float, gain: float = 0.0) -> tuple[Trial, Terms]:
    """Return one decision a unit, half of them disagreements."""
    paid, differs, challenger = _drawn(rng, UNITS, chance, gain)
    return experiments.weighted(_outcomes(paid), differs, challenger, _done(challenger, chance)), _terms(chance)


def clusters(rng: Generator, chance: float, averaged: bool = True) -> tuple[Trial, Terms]:
    """Return units of 1 to 20 decisions within an hour with one draw and one outcome between them; or each as if it were a unit."""
    size = rng.integers(1, 21, UNITS // 5)
    unit = np.repeat(np.arange(len(size)), size)
    paid, differs, challenger = _drawn(rng, len(size), chance)
    paid, differs, challenger = paid[unit], differs[unit], challenger[unit]
    at = unit * MINUTE + np.arange(len(unit)) - np.repeat(np.cumsum(size) - size, size)
    about = unit if averaged else np.arange(len(unit))
    trial = experiments.weighted(_outcomes(paid, about, at), differs, challenger, _done(challenger, chance))
    return trial, _terms(chance, span_us=60 * MINUTE if averaged else 0)


def delayed(rng: Generator, chance: float, late: bool = True) -> tuple[Trial, Terms]:
    """Return outcomes of which the challenger's losses and the champion's gains come at the last moment and the others at once, or the
    reverse; all are corrected to a loss of the champion's afterwards, which the ledger's first word does not hold."""
    paid, differs, challenger = _drawn(rng, UNITS, chance)
    at = np.arange(UNITS) * MINUTE
    known_at = np.where((challenger == (paid < 0.0)) == late, at + DELAY * MINUTE, at)
    return experiments.weighted(_outcomes(paid, known_at=known_at), differs, challenger, _done(challenger, chance)), _terms(chance)


def adaptive(rng: Generator, least: float) -> tuple[Trial, Terms]:
    """Return chances that follow what was seen: large while the challenger has won of late, the least one while it has lost."""
    paid, chance, challenger = np.empty(UNITS), np.empty(UNITS), np.empty(UNITS, np.bool_)
    mine, theirs = payoffs(rng, UNITS, 0.0)
    total = 0.0
    for start in range(0, UNITS, 100):
        part = slice(start, start + 100)
        chance[part] = 0.5 if total > 0.0 else least
        challenger[part] = rng.random(100) < chance[part]
        paid[part] = np.where(challenger[part], theirs[part], mine[part])
        total += float(np.where(challenger[part], paid[part] / chance[part], -paid[part] / (1.0 - chance[part])).sum())
    return experiments.weighted(_outcomes(paid), np.ones(UNITS, np.bool_), challenger, _done(challenger, chance)), _terms(least)


def shadow(rng: Generator, gain: float = 0.0) -> tuple[Trial, Terms]:
    """Return decisions of which both actions' payoffs are known."""
    mine, theirs = payoffs(rng, UNITS, gain)
    differs = rng.random(UNITS) < 0.5
    return experiments.paired(_outcomes(theirs - mine), differs), _terms(0.5)


def asked(rng: Generator, gain: float = 0.2) -> tuple[Trial, Terms]:
    """Return a challenger that is better by just what is asked for."""
    trial, terms = shadow(rng, gain)
    return trial, replace(terms, min_gain=0.5 * gain)


def back(rng: Generator, chance: float) -> tuple[Trial, Terms]:
    """Return a new champion that is as good as the old one, which keeps the small chance; tested is the old one."""
    paid, differs, kept = _drawn(rng, UNITS, chance)
    return experiments.weighted(_outcomes(paid), differs, ~kept, _done(kept, chance)).mirrored(), _terms(chance)


def missing(rng: Generator, rule: str = "impute") -> tuple[Trial, Terms]:
    """Return two segments that cancel in money; the one in which the challenger wins reports all of its outcomes and the other half."""
    mine, theirs = payoffs(rng, UNITS, 0.0)
    large = rng.random(UNITS) < 0.5
    z = theirs - mine + np.where(large, -2.0, 2.0)
    known_at = np.where(rng.random(UNITS) < np.where(large, 0.5, 1.0), np.arange(UNITS) * MINUTE, NEVER)
    o = _outcomes(np.where(known_at < NEVER, z, np.nan), known_at=known_at)
    terms = replace(_terms(0.5), cap=(-CAP - 2.0, CAP + 2.0), missing=rule)
    return experiments.paired(replace(o, segment=large.astype(np.int64)), np.ones(UNITS, np.bool_)), terms


def _z(trial: Trial, terms: Terms) -> tuple[Floats, float]:
    """Return z of all ticks, scaled to the bound, and the bound, as the test itself has them."""
    found = experiments.ticks(trial, terms, NEVER)
    return found.z * found.scale, terms.bound(trial.design)


def _raw(trial: Trial, terms: Terms) -> tuple[Floats, float]:
    """Use the payoffs' own range as the bound, and clip what lies beyond it after weighting."""
    z, bound = _z(trial, terms)[0], CAP
    return np.maximum(z, -bound), bound


def _when_known(trial: Trial, terms: Terms) -> tuple[Floats, float]:
    """Count each outcome when it comes, not when it is due."""
    z, bound = _z(trial, terms)
    return z[np.argsort(trial.outcomes.known_at, kind="stable")], bound


def _complete(trial: Trial, terms: Terms) -> tuple[Floats, float]:
    """Leave out what has no outcome, as if it were like the rest."""
    paid = trial.outcomes.paid
    return paid[~np.isnan(paid)], terms.bound(trial.design)


Method = Callable[[Trial, Terms], tuple[Floats, float]]


def kept(repetitions: int, world: World, method: Method = _z, attack: bool = False) -> tuple[Figure, ...]:
    """Return how often a challenger that is no better is ever promoted, looked at 200 times: at most .05."""
    hits = 0
    for seed in range(repetitions):
        trial, terms = world(np.random.default_rng([seed, 9]))
        z, bound = method(trial, terms)
        ends = np.unique(np.geomspace(1, len(z), 240).astype(int))
        evidence = betting.log_evidence(betting.log_wealth(z, bound, ends), ends, terms.min_gain, bound)
        hits += bool(evidence.max() >= -np.log(terms.alpha))
    error = float(np.sqrt(ALPHA * (1.0 - ALPHA) / repetitions))
    return (Figure(hits / repetitions, error, 0.0, ALPHA, attack),)


def coverage(repetitions: int, world: World, gain: float) -> tuple[Figure, ...]:
    """Return how often the true gain ever lies below the interval, and how often above it: at most .05 each."""
    missed = np.zeros(2)
    for seed in range(repetitions):
        trial, terms = world(np.random.default_rng([seed, 10]))
        z, bound = _z(trial, terms)
        found = betting.sequence(z, bound, terms.alpha, above=bound, ends=betting.points(len(z), 60))
        missed += [(found.low > gain).any(), (found.high < gain).any()]
    error = float(np.sqrt(ALPHA * (1.0 - ALPHA) / repetitions))
    return tuple(Figure(miss, error, 0.0, ALPHA) for miss in (missed / repetitions).tolist())


def power(repetitions: int, world: World, gain: float) -> tuple[Figure, ...]:
    """Return how often the test has promoted after as many units as were planned for a power of .8, by the first of them: .7 to 1."""
    trial, terms = world(np.random.default_rng(0))
    z, bound = _z(trial, terms)
    units = int(planning.plan(gain, Design(float(z.std()), bound, terms.alpha)).units)
    assert units <= UNITS, f"the world has {UNITS} units, and {units} are planned"
    hits = 0
    for seed in range(repetitions):
        z, bound = _z(*world(np.random.default_rng([seed, 11])))
        ends = np.unique(np.linspace(1, units, 100).astype(int))
        hits += bool(betting.log_evidence(betting.log_wealth(z, bound, ends), ends, 0.0, bound).max() >= -np.log(terms.alpha))
    rate = hits / repetitions
    return (Figure(rate, float(np.sqrt(0.8 * 0.2 / repetitions)), 0.7, 1.0),)


SIMULATIONS: dict[str, Callable[[int], tuple[Figure, ...]]] = {
    **{f"no better, e = {chance:g}: independent": partial(kept, world=partial(independent, chance=chance)) for chance in CHANCES},
    **{f"no better, e = {chance:g}: clusters": partial(kept, world=partial(clusters, chance=chance)) for chance in CHANCES},
    "attack: each decision of a cluster is a tick": partial(kept, world=partial(clusters, chance=0.5, averaged=False), attack=True),
    "attack: the payoffs' own range, losses clipped to it": partial(kept, world=partial(independent, chance=0.1), method=_raw, attack=True),
    **{f"no better, e = {chance:g}: losses late": partial(kept, world=partial(delayed, chance=chance)) for chance in CHANCES},
    "no better, e = 0.5: losses early": partial(kept, world=partial(delayed, chance=0.5, late=False)),
    "attack: outcomes count when they come": partial(kept, world=partial(delayed, chance=0.5), method=_when_known, attack=True),
    **{f"no better, e from {chance:g} on, adaptive": partial(kept, world=partial(adaptive, least=chance)) for chance in CHANCES[1:]},
    "no better: paired in shadow": partial(kept, world=shadow),
    "better by what is asked for: paired in shadow": partial(kept, world=asked),
    "no better: outcomes missing, imputed": partial(kept, world=missing),
    "attack: what is missing left out": partial(kept, world=missing, method=_complete, attack=True),
    **{f"no worse, {chance:g} held back: rollback": partial(kept, world=partial(back, chance=chance)) for chance in CHANCES[:2]},
    "covered, e = 0.5": partial(coverage, world=partial(independent, chance=0.5, gain=0.6), gain=0.3),
    "covered, e = 0.1": partial(coverage, world=partial(independent, chance=0.1, gain=0.6), gain=0.3),
    "covered: paired in shadow": partial(coverage, world=partial(shadow, gain=0.6), gain=0.3),
    "power: paired in shadow": partial(power, world=partial(shadow, gain=0.6), gain=0.3),
    "power, e = 0.5": partial(power, world=partial(independent, chance=0.5, gain=1.0), gain=0.5),
    "power, e = 0.1": partial(power, world=partial(independent, chance=0.1, gain=2.0), gain=1.0),
}
"""What is simulated, each given the number of repetitions."""


def _simulated(name: str, repetitions: int) -> tuple[str, tuple[Figure, ...]]:
    return name, SIMULATIONS[name](repetitions)


def main() -> None:
    """Run the table and the simulations, as many at a time as there are cores, print each as it ends, and write the figures."""
    import result

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the full repetitions; less than all is not written")
    share = parser.parse_args().share
    repetitions, runs = int(2000 * share), int(1000 * share)
    rows: list[dict[str, object]] = []
    simulations: dict[str, dict[str, object]] = {}
    with ProcessPoolExecutor() as pool:
        tables = [pool.submit(table, repetitions, chance) for chance in CHANCES]
        for name, figures in pool.map(partial(_simulated, repetitions=runs), SIMULATIONS):
            holds = all(figure.holds(2.33) for figure in figures)
            simulations[name] = {"figures": [figure.to_json() for figure in figures], "holds": holds}
            shown = "; ".join(f"{figure.value:.4g} ± {figure.error:.2g} in [{figure.least:g}, {figure.most:g}]" for figure in figures)
            print(f"{'holds' if holds else 'FAILS'}  {name}: {shown}", flush=True)
        for found in tables:
            rows += found.result()
    for row in rows:
        print(*row.values(), sep="  ")
    held = verdict(rows, repetitions)
    print(held)
    if share == 1.0:
        setting = {"decisions": DECISIONS, "look_every": EVERY, "differ": DIFFER, "cap": CAP, "sigma": SIGMA, "alpha": ALPHA}
        counts = {"repetitions": repetitions, "runs": runs, "units": UNITS}
        result.write("promotion", {**counts, **setting, **held, "table": rows, "simulations": simulations}, ("numpy", "scipy"))


if __name__ == "__main__":
    main()
