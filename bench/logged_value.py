"""Simulate what MATHEMATICS §3 to §5 promise: values from logged decisions, bounds, the sample-ratio test, and priced exploration.

    python bench/logged_value.py              # full repetitions, some minutes; writes bench/results/logged_value.json
    python bench/logged_value.py --share 0.1  # a tenth of them, to look at

Beside each promise stands an attack: a wrong method on the same data, which must fail the same check, or the check proves nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import Generator

from figure import Figure
from makegood.contracts import Bools, Estimate, Floats, Ints
from makegood.monitoring import bounds, exploring, logged

STREAMS = 8
"""Seeds of the bootstrap that repetitions take in turn."""


def _rate(hits: list[bool], least: float, most: float, attack: bool = False) -> Figure:
    """Return how often something was so; the binomial standard error is that at the nearer bound."""
    rate = float(np.mean(hits))
    bound = least if abs(rate - least) < abs(rate - most) else most
    bound = min(max(bound, 0.5 / len(hits)), 1.0 - 0.5 / len(hits))
    return Figure(rate, float(np.sqrt(bound * (1.0 - bound) / len(hits))), least, most, attack)


def _zero(x: Floats, attack: bool = False) -> Figure:
    """Return the mean of `x` (n,), which must be within three standard errors of zero; of an attack, farther than that."""
    error = float(x.std(ddof=1) / np.sqrt(len(x)))
    return Figure(float(x.mean()), error, -3.0 * error, 3.0 * error, attack)


# ------------------------------------------------------------------------------------------------------------- the world


def means(x: Floats) -> Floats:
    """Return the mean payoff (n, 3) of each option."""
    return np.column_stack([1.0 + x, 0.5 * x**2, np.full(len(x), 0.4)])


def chances(x: Floats) -> Floats:
    """Return e(a|x) (n, 3), at least 0.05."""
    raw = np.exp(np.column_stack([0.8 * x, np.zeros(len(x)), -0.8 * x]))
    return np.asarray(0.05 + 0.85 * raw / raw.sum(axis=1, keepdims=True))


def recording(x: Floats) -> Floats:
    """Return G(x, a) (n, 3), the chance that an outcome is recorded: it depends on the row and on what was done."""
    return np.asarray(0.5 + 0.45 / (1.0 + np.exp(np.column_stack([x, -x, 2.0 * x]))))


def policy(x: Floats) -> Ints:
    """Return the option (n,) of the policy whose value is sought; it is none of those that logged."""
    return np.asarray(np.where(x > 0.6, 1, np.where(x < -0.8, 2, 0)), dtype=np.int64)


def truth() -> float:
    """Return the policy's value, from 200,000 quantiles of x ~ N(0, 1)."""
    from scipy.special import ndtri

    x = ndtri((np.arange(200_000) + 0.5) / 200_000)
    return float(means(x)[np.arange(len(x)), policy(x)].mean())


@dataclass(frozen=True)
class World:
    """Logged rows: x (n,), what they are about, and what was done, recorded and paid."""

    x: Floats
    decisions: logged.Decisions
    recorded: Bools
    paid: Floats

    def seen(self, observed: Floats | None = None) -> logged.Seen:
        return logged.by_action(self.decisions, self.paid, recording(self.x) if observed is None else observed)


def drawn(rng: Generator, n: int, unit: Ints | None = None, skewed: bool = True) -> World:
    """Return a world of skewed payoffs, or even ones; rows of one `unit` share their x in part and a shock to what they pay.

    The weights multiply the skewness of payoffs, which is 2: that of φ is 3.3 with a mended q̂ (and −0.4 where payoffs are even).
    """
    if unit is None:
        x, noise, unit = rng.normal(size=n), rng.exponential(size=n) - 1.0 if skewed else rng.normal(size=n), np.arange(n)
    else:
        x = np.sqrt(0.5) * (rng.normal(size=unit.max() + 1)[unit] + rng.normal(size=n))
        noise = 0.7 * rng.normal(size=unit.max() + 1)[unit] + rng.exponential(size=n) - 1.0
    e = chances(x)
    done = (rng.random(n)[:, None] > np.cumsum(e, axis=1)).sum(axis=1).clip(max=2)
    recorded = rng.random(n) < recording(x)[np.arange(n), done]
    paid = np.where(recorded, means(x)[np.arange(n), done] + noise, np.nan)
    return World(x, logged.Decisions(np.arange(n), unit, done, e), recorded, paid)


# ------------------------------------------------------------------------------------------------------------------ bias


def bias(repetitions: int, *, q_right: bool, e_right: bool, g_right: bool, attack: bool = False) -> Figure:
    """Return the mean of φ less the payoff expected of what the policy does, row by row."""
    world = drawn(np.random.default_rng(1), repetitions)
    x, n = world.x, repetitions
    logging = world.decisions.chance if e_right else chances(-x)
    decisions = logged.Decisions(world.decisions.at, world.decisions.unit, world.decisions.done, logging)
    seen = logged.by_action(decisions, world.paid, recording(x) if g_right else np.full((n, 3), 0.7))
    phi = logged.doubly_robust(seen, policy(x), means(x) if q_right else np.zeros((n, 3)))[0]
    return _zero(phi - means(x)[np.arange(n), policy(x)], attack)


def _learnt(world: World, train: Ints, test: Ints) -> Floats:
    """Return the mean payoff of each option in cells of x of a few rows each: it overfits as much as a model can."""
    cell = np.clip(((world.x + 3.0) * 10.0).astype(np.int64), 0, 59)
    q = np.zeros((len(test), 3))
    for a in range(3):
        rows = train[(world.decisions.done[train] == a) & world.recorded[train]]
        made = np.bincount(cell[rows], minlength=60)
        q[:, a] = (np.bincount(cell[rows], world.paid[rows], 60) / np.maximum(made, 1))[cell[test]]
    return q


def overfitted(repetitions: int, *, crossed: bool) -> Figure:
    """Return the bias with a q̂ that overfits 300 rows, cross-fitted forward in time, or not (an attack)."""
    rng = np.random.default_rng(2)
    found = np.empty(repetitions)
    for i in range(repetitions):
        world = drawn(rng, 300)
        every = np.arange(300)
        q = logged.cross_fitted(world.decisions, partial(_learnt, world)) if crossed else _learnt(world, every, every)
        found[i] = logged.doubly_robust(world.seen(), policy(world.x), q)[0].mean() - means(world.x)[every, policy(world.x)].mean()
    return _zero(found, attack=not crossed)


def delayed(repetitions: int, *, due: bool) -> Figure:
    """Return the bias where bad outcomes are held back for the whole `outcome_delay` and good ones come at once.

    Rows come evenly over two delays. Those that are due have all the outcomes that they will have; an attack takes every outcome that is
    there, and lets the share recorded stand for Ĝ.
    """
    world = drawn(np.random.default_rng(3), repetitions)
    age = np.linspace(2.0, 0.0, repetitions)
    arrived = world.recorded & ((np.nan_to_num(world.paid) > 0.5) | (age >= 1.0))
    rows = np.flatnonzero(age >= 1.0) if due else np.arange(repetitions)
    e, x = world.decisions.chance[rows], world.x[rows]
    decisions = logged.Decisions(rows, rows, world.decisions.done[rows], e)
    paid = np.where(arrived, world.paid, np.nan)[rows]
    seen = logged.by_action(decisions, paid, recording(x) if due else logged.observed(decisions, arrived[rows]))
    phi = logged.doubly_robust(seen, policy(x), logged.recalibrated(decisions, seen, np.zeros((len(rows), 3))))[0]
    return _zero(phi - means(x)[np.arange(len(rows)), policy(x)], attack=not due)


# -------------------------------------------------------------------------------------------------------------- coverage


def _held(found: Estimate | None, true: float) -> bool:
    return found is not None and bool(found.low <= true <= found.high)


def coverage(repetitions: int, *, n: int, learnt: bool = False, skewed: bool = False, least: float = 0.94) -> Figure:
    """Return how often the interval of `worth` holds the value; `learnt`: Ĝ by segment and q̂ are made from the same rows."""
    rng, true, found = np.random.default_rng(4), truth(), []
    for _ in range(repetitions):
        world = drawn(rng, n, skewed=skewed)
        guess = 0.5 * means(world.x) + 1.0
        observed = None
        if learnt:
            segment = np.clip(((world.x + 2.0) * 2.0).astype(np.int64), 0, 7)
            observed = logged.observed(world.decisions, world.recorded, segment)
        seen = world.seen(observed)
        q = logged.recalibrated(world.decisions, seen, guess)
        found.append(_held(logged.worth("", world.decisions, seen, policy(world.x), q, (guess, guess)).value, true))
    return _rate(found, least, 0.96)


def clustered(repetitions: int, *, by_unit: bool) -> Figure:
    """Return how often the interval holds the value with 20 units of 60 rows each that share a shock; an attack takes rows as units."""
    rng, true, found = np.random.default_rng(5), truth(), []
    unit = np.repeat(np.arange(20), 60)
    for _ in range(repetitions):
        world = drawn(rng, len(unit), unit)
        guess = means(world.x)
        d = world.decisions
        decisions = d if by_unit else logged.Decisions(d.at, np.arange(len(unit)), d.done, d.chance)
        found.append(_held(logged.worth("", decisions, world.seen(), policy(world.x), guess, (guess, guess)).value, true))
    return _rate(found, 0.93, 0.97, attack=not by_unit)


def identified(repetitions: int, *, width: float, by: str = "imbens-manski") -> Figure:
    """Return how often the bounds hold the truth where it is the least that unseen rows can pay, `width` below the most, n = 1,000.

    The attacks: the seen rows stand for all; or one-sided limits at both ends, right for a wide interval alone.
    """
    rng, found = np.random.default_rng(6), []
    for _ in range(repetitions):
        unseen = rng.random(1000) < 0.2
        paid = rng.exponential(size=1000)
        low, high = paid - unseen * width, np.array(paid)  # the truth is `low`
        true = 1.0 - 0.2 * width
        if by == "imbens-manski":
            interval = bounds.identified(low, high)
        elif by == "the seen":
            interval = _normal(paid[~unseen], paid[~unseen], 1.96)
        else:
            interval = _normal(low, high, 1.645)
        found.append(_held(interval, true))
    return _rate(found, 0.94, 1.0, attack=by != "imbens-manski")


def _normal(low: Floats, high: Floats, reach: float) -> Estimate:
    below, above = (float(x.mean() + side * reach * x.std(ddof=1) / np.sqrt(len(x))) for x, side in ((low, -1.0), (high, 1.0)))
    return Estimate(np.nan, below, above)


def bounded(repetitions: int, *, n: int = 1000) -> Figure:
    """Return how often the bounds of `worth` hold the truth, where options of a chance under e_min pay the least that they can."""
    rng, found = np.random.default_rng(7), []
    for _ in range(repetitions):
        x = rng.normal(size=n)
        e = chances(x)
        never = x > 1.2
        e[never] = [1.0, 0.0, 0.0]  # the policy would do option 1 there
        done = (rng.random(n)[:, None] > np.cumsum(e, axis=1)).sum(axis=1).clip(max=2)
        paid = means(x)[np.arange(n), done] + rng.exponential(size=n) - 1.0
        decisions = logged.Decisions(np.arange(n), np.arange(n), done, e)
        seen = logged.by_action(decisions, paid, np.ones((n, 3)))
        between = means(x) * np.where(never, 0.5, 1.0)[:, None], means(x) + 2.0
        found.append(_held(logged.worth("", decisions, seen, policy(x), means(x), between).bounds, _worst()))
    return _rate(found, 0.94, 1.0)


def _worst() -> float:
    from scipy.special import ndtri

    x = ndtri((np.arange(200_000) + 0.5) / 200_000)
    return float((means(x)[np.arange(len(x)), policy(x)] * np.where(x > 1.2, 0.5, 1.0)).mean())


# ---------------------------------------------------------------------------------------------------------- sample ratio


def ratio(repetitions: int, *, true: bool = True, by: str = "martingale") -> Figure:
    """Return how often chances are called wrong (limit 0.05) at any of 40 looks over 4,000 rows of 800 units that keep what they drew.

    A unit draws u once and is explored where u < e, e from 0.1 to 0.5 by row. Where the chances are not `true`, they are 1.25 times
    those logged: the figure is then the power. The attacks are a z-test by row, once at the end, and one by unit at every look.
    """
    rng, found = np.random.default_rng(8), []
    for _ in range(repetitions):
        n, units = (4000, 800) if true else (4000, 4000)
        unit = rng.permutation(np.repeat(np.arange(units), n // units))
        e = rng.choice([0.1, 0.3, 0.5], n)
        done = (rng.random(units)[unit] < e * (1.0 if true else 1.25)).astype(np.int64)
        decisions = logged.Decisions(np.arange(n), unit, done, np.column_stack([1.0 - e, e]))
        if by == "martingale":
            found.append(not logged.ratio(decisions, ("stay", "explore"), limit=0.05).ok)
        elif by == "rows":
            found.append(bool(abs((done - e).sum()) > 1.96 * np.sqrt((e * (1.0 - e)).sum())))
        else:
            first = np.sort(np.unique(unit, return_index=True)[1])
            off, variance = np.cumsum((done - e)[first]), np.cumsum((e * (1.0 - e))[first])
            at = np.linspace(20, len(first), 40).astype(np.int64) - 1
            found.append(bool((np.abs(off) > 1.96 * np.sqrt(variance))[at].any()))
    return _rate(found, 0.0 if true else 0.8, 0.05 if true else 1.0, attack=by != "martingale")


# ------------------------------------------------------------------------------------------------------------ exploration


def saved(repetitions: int) -> Figure:
    """Return by how much the cost of e* and of one uniform rate, at one variance, differ from what `saving` says, as a share of it.

    Draws are made: what explored rows cost, and the variance of the inversely weighted sum, are those that came.
    """
    rng = np.random.default_rng(9)
    loss, s = rng.lognormal(0.0, 0.8, 2000), rng.lognormal(0.0, 0.3, 2000)
    said = exploring.saving(loss, s)
    star = 0.1 * s / np.sqrt(loss)
    star /= max(star.max() / 0.5, 1.0)  # nothing is clipped
    uniform = np.full(2000, 0.1)
    traded = []
    for e in (star, uniform):  # variance × cost does not depend on k
        u = rng.random((repetitions, 2000)) < e
        weighted = u * rng.choice([-1.0, 1.0], u.shape) * s / e
        traded.append((weighted.var(axis=1, ddof=1), (u * loss).sum(axis=1)))
    (v1, c1), (v0, c0) = traded
    found = float(v0.mean() * c0.mean() / (v1.mean() * c1.mean()) / said - 1.0)
    error = float(np.sqrt(sum((v / v.mean() + c / c.mean()).var(ddof=1) for v, c in traded) / repetitions))  # of the ratio, to first order
    return Figure(found, error, -3.0 * error, 3.0 * error)


def spent(repetitions: int) -> Figure:
    """Return what explored rows cost in a period above the budget, as a share of it; half of the rows are not explored at their price."""
    rng = np.random.default_rng(10)
    loss, segment = rng.lognormal(0.0, 1.5, 3000), rng.integers(0, 2, 3000)
    explored = exploring.budgeted(loss, segment, {"a": 1.0, "b": 3.0}, (400.0, 86400.0), 86400.0, 0.02)
    e = explored.chances(np.zeros(3000, np.int64), np.ones(3000, np.int64), loss, segment)
    cost = ((rng.random((repetitions, 3000)) < e) * explored.cost(loss)).sum(axis=1)
    return _zero(cost / 400.0 - 1.0)


Simulation = Callable[[int], Figure]

SIMULATIONS: dict[str, tuple[int, int, Simulation]] = {  # repetitions in full, and in the tests
    "bias, q wrong": (1_000_000, 100_000, partial(bias, q_right=False, e_right=True, g_right=True)),
    "bias, chances and recording wrong": (1_000_000, 100_000, partial(bias, q_right=True, e_right=False, g_right=False)),
    "attack: q and recording wrong": (1_000_000, 100_000, partial(bias, q_right=False, e_right=True, g_right=False, attack=True)),
    "attack: q and chances wrong": (1_000_000, 100_000, partial(bias, q_right=False, e_right=False, g_right=True, attack=True)),
    "bias, overfitted q, cross-fitted": (4000, 1000, partial(overfitted, crossed=True)),
    "attack: overfitted q, on its own rows": (4000, 1000, partial(overfitted, crossed=False)),
    "bias, bad outcomes held back, due rows": (1_000_000, 100_000, partial(delayed, due=True)),
    "attack: bad outcomes held back, rows that came": (1_000_000, 100_000, partial(delayed, due=False)),
    "coverage, 1,000 rows": (4000, 200, partial(coverage, n=1000)),
    "coverage, 1,000 rows, skewness above 3": (4000, 200, partial(coverage, n=1000, skewed=True, least=0.93)),
    "coverage, 2,000 rows, all learnt, skewness above 3": (4000, 200, partial(coverage, n=2000, learnt=True, skewed=True, least=0.93)),
    "coverage, 20 units": (4000, 600, partial(clustered, by_unit=True)),
    "attack: 20 units, by row": (4000, 600, partial(clustered, by_unit=False)),
    "bounds, a point": (4000, 2000, partial(identified, width=0.0)),
    "bounds, narrow": (4000, 2000, partial(identified, width=0.2)),
    "bounds, wide": (4000, 2000, partial(identified, width=5.0)),
    "attack: one-sided limits on a point": (4000, 2000, partial(identified, width=0.0, by="one-sided")),
    "attack: the seen stand for all": (4000, 2000, partial(identified, width=5.0, by="the seen")),
    "bounds of a worth": (4000, 200, bounded),
    "sample ratio, level": (4000, 600, ratio),
    "sample ratio, power": (1000, 40, partial(ratio, true=False)),
    "attack: z of rows": (4000, 600, partial(ratio, by="rows")),
    "attack: z of units, looked at often": (4000, 600, partial(ratio, by="looks")),
    "exploration, saving as said": (4000, 600, saved),
    "exploration, spends its budget": (4000, 600, spent),
}


def parity(python: str) -> float:
    """Return how far the value of 5,000 rows is from the Open Bandit Pipeline's, as computed by the interpreter of its environment."""
    rng = np.random.default_rng(11)
    world = drawn(rng, 5000)
    d, share, q = world.decisions, rng.dirichlet(np.ones(3), 5000), rng.normal(size=(5000, 3))
    paid = means(world.x)[np.arange(5000), d.done] + rng.normal(size=5000)
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "arrays.npz"
        np.savez(arrays, paid=paid, done=d.done, chance=d.chance, policy=share, q=q)
        script = Path(__file__).resolve().parent / "peers" / "obp_value.py"
        theirs = float(subprocess.run([python, script, arrays], check=True, capture_output=True, text=True).stdout)
    ours = logged.doubly_robust(logged.by_action(d, paid, np.ones((5000, 3))), share, q)[0].mean()
    return abs(float(ours) - theirs)


def main() -> None:
    """Run every simulation, print each as it ends, and write the figures."""
    import result

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--obp", default="", help="the Python of an environment with obp (see peers/obp_value.py), for parity")
    parser.add_argument("--share", type=float, default=1.0, help="of the full repetitions; less than all is not written")
    said = parser.parse_args()
    share, found = said.share, {}
    apart = parity(said.obp) if said.obp else None
    print(f"apart from the Open Bandit Pipeline: {apart}")
    for name, (repetitions, _, simulate) in SIMULATIONS.items():
        start = time.perf_counter()
        figure = simulate(max(int(repetitions * share), 40))
        found[name] = {**figure.to_json(), "holds": figure.holds(0.0), "seconds": round(time.perf_counter() - start, 1)}
        word = "holds" if figure.holds(0.0) else "FAILS"
        print(f"{word}  {figure.value:.5f} ± {figure.error:.5f} in [{figure.least:.4f}, {figure.most:.4f}]  {name}", flush=True)
    if share == 1.0:
        result.write("logged_value", {"apart_from_obp": apart, "simulations": found}, ("numpy", "scipy"))


if __name__ == "__main__":
    main()
