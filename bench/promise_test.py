"""Simulate what MATHEMATICS §6 promises of the promise test: how rarely it calls a kept promise broken, and how soon a broken one.

    python bench/promise_test.py               # 1,000 runs of 10,000 ticks each; writes bench/results/promise_test.json
    python bench/promise_test.py --share 0.1   # a tenth of them, to look at

The null of every kept world is that a tick's mean z is 0 given all earlier ticks, the worst that a kept promise can be. Beside each
stands an attack: a wrong method on the same world, which must fail the same check, or the check proves nothing. A limit is a world that
the test itself fails, since it asks for a little more than its null.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.random import Generator

from figure import Figure
from makegood.contracts import Floats, Ints
from makegood.monitoring import promise
from makegood.monitoring.maturity import NEVER, Outcomes
from makegood.monitoring.promise import State, Terms

LIMIT, TICKS, SOON = 1000.0, 10_000, 100
"""A, how long a run lasts, and within how many ticks at most a tenth of the runs may alarm."""

MINUTE, DELAY, SHARED = 60_000_000, 300, 50  # ticks come a minute apart; outcomes take 300 ticks; 50 share a shock

World = Callable[[Generator], tuple[Outcomes, Terms]]


# ------------------------------------------------------------------------------------------------------------------- kept promises


def _rows(promised: Floats, paid: Floats, unit: Ints | None = None, at: Ints | None = None, known_at: Ints | None = None) -> Outcomes:
    """Return decisions a minute apart about a unit each, of one segment, whose outcomes are known when they are due."""
    n = len(paid)
    at = np.arange(n) * MINUTE if at is None else at
    known_at = at + DELAY * MINUTE if known_at is None else known_at
    unit = np.arange(n) if unit is None else unit
    return Outcomes(at, unit, promised, paid, known_at, np.ones(n, np.bool_), np.zeros(n, np.int64), np.full(n, -1e3))


def _terms(bound: float, **said: object) -> Terms:
    return Terms(bound=bound, tolerance=0.0, limit=LIMIT, delay_us=DELAY * MINUTE, floor=1.0, **said)  # type: ignore[arg-type]


def _loans(rng: Generator, n: int) -> tuple[Floats, Floats]:
    """Return what loans of differing risk promise and pay: a tenth of the amount, or half of it lost. Best − promise ≤ 0.6·0.4·3."""
    risk, amount = rng.uniform(0.02, 0.4, n), rng.uniform(0.2, 3.0, n)
    lost = rng.random(n) < risk
    return amount * (0.1 * (1.0 - risk) - 0.5 * risk), amount * np.where(lost, -0.5, 0.1)


def independent(rng: Generator) -> tuple[Outcomes, Terms]:
    """Return one decision a unit, all alike but for their risk."""
    return _rows(*_loans(rng, TICKS)), _terms(0.72)


def clusters(rng: Generator, averaged: bool = True) -> tuple[Outcomes, Terms]:
    """Return units of 1 to 20 decisions within an hour that have one outcome between them."""
    size = rng.integers(1, 21, TICKS)
    promised, paid = _loans(rng, TICKS)
    unit = np.repeat(np.arange(TICKS), size)
    within = np.arange(len(unit)) - np.repeat(np.cumsum(size) - size, size)
    rows = _rows(promised[unit], paid[unit], unit if averaged else np.arange(len(unit)), unit * MINUTE + within)
    return rows, _terms(0.72, span_us=60 * MINUTE if averaged else 0)


def overlapping(rng: Generator, overlap: int = SHARED) -> tuple[Outcomes, Terms]:
    """Return outcomes that share the last 50 ticks' shocks: a tick is independent only of those 50 earlier."""
    shock = np.where(rng.random(TICKS + SHARED) < 0.1, 9.0, -1.0)
    total = np.concatenate([[0.0], np.cumsum(shock)])
    return _rows(np.zeros(TICKS), -(total[SHARED:-1] - total[: -SHARED - 1]) / SHARED), _terms(1.0, overlap=overlap)


def cancelling(rng: Generator) -> tuple[Outcomes, Terms]:
    """Return two segments of which one pays less than promised and the other as much more: nothing is broken in money."""
    large = rng.random(TICKS) < 0.5
    promised = np.where(large, 3.0, 0.5)  # best: 8 and 1
    paid = np.where(large, np.where(rng.random(TICKS) < 0.425, 8.0, 0.0), np.where(rng.random(TICKS) < 0.1, 1.0, 0.0))
    return _rows(promised, paid), _terms(5.0)


def heavy(rng: Generator) -> tuple[Outcomes, Terms]:
    """Return losses that are lognormal with σ = 2: the largest of a run are thousands of times the median."""
    loss, mean = rng.lognormal(0.0, 2.0, TICKS), float(np.exp(2.0))
    return _rows(np.full(TICKS, -mean), -loss), _terms(mean)


def passing(rng: Generator) -> tuple[Outcomes, Terms]:
    """Return loans of lognormal amounts, whose bound is that of the median one: half of them can turn out better, at the most manifold."""
    risk, amount = rng.uniform(0.02, 0.4, TICKS), rng.lognormal(0.0, 1.5, TICKS)
    rows = _rows(amount * (0.1 * (1.0 - risk) - 0.5 * risk), amount * np.where(rng.random(TICKS) < risk, -0.5, 0.1))
    return replace(rows, worst=-0.5 * amount), _terms(0.24)


def rare(rng: Generator) -> tuple[Outcomes, Terms]:
    """Return decisions of which one in 500 gains what the others lose, and has two hundred times the room of those."""
    large = rng.random(TICKS) < 0.002
    promised = np.where(large, 50.0, 0.5)  # best: 150 and 1
    paid = np.where(large, np.where(rng.random(TICKS) < 2.0 / 3.0, 150.0, 0.0), np.where(rng.random(TICKS) < 0.4, 1.0, 0.0))
    return replace(_rows(promised, paid), worst=-5.0 * np.where(large, 150.0, 1.0)), _terms(0.5)


def delayed(rng: Generator, early: bool = True) -> tuple[Outcomes, Terms]:
    """Return outcomes of which the losses come at once and the gains at the last moment, or the reverse; and all corrected afterwards."""
    promised, paid = _loans(rng, TICKS)
    at = np.arange(TICKS) * MINUTE
    return _rows(promised, paid, known_at=np.where((paid < 0.0) == early, at, at + DELAY * MINUTE)), _terms(0.72)


def missing(rng: Generator, rule: str | float = "impute") -> tuple[Outcomes, Terms]:
    """Return two segments that cancel in money, of which the one that pays less reports all of its outcomes and the other half."""
    rows, _ = cancelling(rng)
    large = (rows.promised > 1.0).astype(np.int64)
    seen = rng.random(TICKS) < np.where(large, 0.5, 1.0)
    known_at = np.where(seen, rows.known_at, NEVER)
    rows = Outcomes(rows.at, rows.unit, rows.promised, np.where(seen, rows.paid, np.nan), known_at, rows.revealed, large, rows.worst)
    return rows, Terms(bound=5.0 / 0.25, tolerance=0.0, limit=LIMIT, delay_us=DELAY * MINUTE, missing=rule, floor=0.25)


# ------------------------------------------------------------------------------------------------------------------- wrong methods


def _by_row(rows: Outcomes, terms: Terms) -> Floats:
    """Divide each row by its own bound: the small segment's losses then count ten times the large one's gains."""
    found = promise.ticks(rows, terms, NEVER)
    return found.z / np.where(rows.promised > 1.0, 5.0, 0.5) * terms.bound


def _when_known(rows: Outcomes, terms: Terms) -> Floats:
    """Count each outcome when it comes, not when it is due."""
    return np.asarray((rows.promised - rows.paid)[np.argsort(rows.known_at, kind="stable")])


def _complete(rows: Outcomes, terms: Terms) -> Floats:
    """Leave out what has no outcome, as if it were like the rest."""
    seen = rows.known(NEVER - 1)
    return np.asarray((rows.promised - rows.paid)[seen])


def _z(rows: Outcomes, terms: Terms) -> Floats:
    """Return what the test itself makes of the world."""
    return promise.ticks(rows, terms, NEVER).z


def _grown(rows: Outcomes, terms: Terms) -> Floats:
    """Return what the test makes of decisions whose room is given: the most that they gain is a fifth of the most they lose."""
    found = promise.ticks(rows, terms, NEVER, -rows.worst / 5.0 - rows.promised)
    return found.z / found.bound * terms.bound


# ----------------------------------------------------------------------------------------------------------------------- checks


def runs(world: World, repetitions: int, method: Callable[[Outcomes, Terms], Floats] = _z) -> Floats:
    """Return how many ticks each run lasts until its alarm, 10·A where there is none by then."""
    lengths = np.empty(repetitions)
    for seed in range(repetitions):
        rows, terms = world(np.random.default_rng([seed, 6]))
        z = method(rows, terms)[:TICKS]
        _, path = promise.advance(terms, State.new(terms.overlap), z, np.arange(len(z)))
        reached = np.flatnonzero(path >= terms.limit)
        lengths[seed] = reached[0] + 1 if len(reached) else TICKS
    return lengths


def kept(repetitions: int, world: World, method: Callable[[Outcomes, Terms], Floats] = _z) -> tuple[Figure, ...]:
    """Return the mean run to a false alarm, at least A, and how often it comes within 100 ticks, at most 0.10."""
    lengths = runs(world, repetitions, method)
    rate, sure = float(np.mean(lengths <= SOON)), SOON / LIMIT
    error = float(lengths.std(ddof=1) / np.sqrt(repetitions))
    return Figure(float(lengths.mean()), error, LIMIT, np.inf), Figure(rate, float(np.sqrt(sure * (1.0 - sure) / repetitions)), 0.0, sure)


def attacked(repetitions: int, world: World, method: Callable[[Outcomes, Terms], Floats] = _z) -> tuple[Figure, ...]:
    """Return the mean run of a wrong method: below A."""
    lengths = runs(world, repetitions, method)
    return (Figure(float(lengths.mean()), float(lengths.std(ddof=1) / np.sqrt(repetitions)), LIMIT, np.inf, attack=True),)


def absent(repetitions: int) -> tuple[Figure, ...]:
    """Return as `kept`, of the test of missing outcomes where a twentieth is allowed not to come and does not."""

    def world(rng: Generator) -> tuple[Outcomes, Terms]:
        return _rows(np.full(TICKS, 0.05), (rng.random(TICKS) >= 0.05) - 0.95 + 0.05), _terms(0.05)

    return kept(repetitions, world)


def broken(repetitions: int, gap: float) -> tuple[Figure, ...]:
    """Return the mean delay over the printed least one, between 1 and 6, of loans that pay less than promised by `gap` and by chance."""
    terms = _terms(0.72)
    printed = promise.least_delay(terms, gap)
    delays = np.empty(repetitions)
    for seed in range(repetitions):
        promised, paid = _loans(np.random.default_rng([seed, 7]), TICKS)
        state, _ = promise.advance(terms, State.new(), promised - paid + gap, np.arange(TICKS))
        delays[seed] = np.inf if state.since is None else state.since + 1
    ratio = delays / printed
    return (Figure(float(ratio.mean()), float(ratio.std(ddof=1) / np.sqrt(repetitions)), 1.0, 6.0),)


SIMULATIONS: dict[str, Callable[[int], tuple[Figure, ...]]] = {
    "kept: independent": partial(kept, world=independent),
    "kept: clusters": partial(kept, world=clusters),
    "attack: each decision of a cluster is a tick": partial(attacked, world=partial(clusters, averaged=False)),
    "kept: overlapping outcomes": partial(kept, world=overlapping),
    "attack: overlap ignored": partial(attacked, world=partial(overlapping, overlap=1)),
    "kept: segments cancel in money": partial(kept, world=cancelling),
    "attack: each row divided by its own bound": partial(attacked, world=cancelling, method=_by_row),
    "kept: heavy tails": partial(kept, world=heavy),
    "kept: amounts that pass the bound": partial(kept, world=passing, method=_grown),
    "limit: kept by gains so rare that no decision had room for one": partial(attacked, world=rare, method=_grown),
    "kept: losses early, gains late": partial(kept, world=delayed),
    "kept: gains early, losses late": partial(kept, world=partial(delayed, early=False)),
    "attack: losses count when they come": partial(attacked, world=delayed, method=_when_known),
    "kept: outcomes missing, imputed": partial(kept, world=missing),
    "attack: what is missing left out": partial(attacked, world=missing, method=_complete),
    "kept: as many outcomes missing as allowed": absent,
    "broken: a gap of 0.15": partial(broken, gap=0.15),
    "broken: a gap of 0.3": partial(broken, gap=0.3),
}
"""What is simulated, each given the number of runs."""


def speed() -> dict[str, float]:
    """Return seconds for a million ticks: made from decisions, and followed by the test; the best of three."""
    rng = np.random.default_rng(0)
    rows, terms = _rows(*_loans(rng, 1_000_000)), _terms(0.72)
    best = {"ticks_s": np.inf, "advance_s": np.inf}
    for _ in range(3):
        start = time.perf_counter()
        found = promise.ticks(rows, terms, NEVER)
        made = time.perf_counter()
        promise.advance(terms, State.new(), found.z, found.enters)
        best = {"ticks_s": min(best["ticks_s"], made - start), "advance_s": min(best["advance_s"], time.perf_counter() - made)}
    return {name: round(seconds, 3) for name, seconds in best.items()}


def main() -> None:
    """Run every simulation, print each as it ends, and write the figures."""
    import result

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the full repetitions; less than all is not written")
    share, found = parser.parse_args().share, {}
    for name, simulate in SIMULATIONS.items():
        start = time.perf_counter()
        figures = simulate(int(1000 * share))
        holds = all(figure.holds(3.0) for figure in figures)
        found[name] = {
            "figures": [figure.to_json() for figure in figures],
            "holds": holds,
            "seconds": round(time.perf_counter() - start, 1),
        }
        shown = "; ".join(f"{figure.value:.4g} ± {figure.error:.2g} in [{figure.least:g}, {figure.most:g}]" for figure in figures)
        print(f"{'holds' if holds else 'FAILS'}  {name}: {shown}", flush=True)
    if share == 1.0:
        result.write("promise_test", {"runs": 1000, "ticks": TICKS, "limit": LIMIT, "simulations": found, **speed()}, ("numpy", "scipy"))


if __name__ == "__main__":
    main()
