"""How long a test of a challenger takes, what waiting for it is worth, and how several tests share one rate of error (MATHEMATICS §7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import log_ndtr, logsumexp, ndtr

from makegood.contracts import Bools, Floats
from makegood.monitoring import asymptotic, betting
from makegood.monitoring.review import Plan

LONGEST = 1e12
"""Units beyond which a test never ends."""

_STEPS = 48
_SCORES = np.linspace(-12.0, 12.0, 193)  # of sums, in standard deviations from what is expected


@dataclass(frozen=True)
class Design:
    """What a test's length depends on, but for the gain; money a decision.

    `spread` is the standard deviation of a tick's z (`spread`), `bound` b (infinite: the test is asymptotic), `per_day` how many ticks
    come. `share` of the disagreements already goes to the challenger while it is tested (0 in shadow).
    """

    spread: float
    bound: float = np.inf
    alpha: float = 0.05
    min_gain: float = 0.0
    power: float = 0.8
    per_day: float = np.inf
    share: float = 0.0


@dataclass(frozen=True, eq=False)
class Begun:
    """A test that runs: the `units` so far, what its bets have made against the least gain, log-wealth (n_bets,), and `score`, Σ(z − least
    gain)."""

    units: int
    wealth: Floats
    score: float


def spread(differ: float, paid: Floats, chance: float) -> float:
    """Return the standard deviation of z = ±r/e before any of it is seen, from what the champion's decisions `paid` (n,).

    `differ` is the share of decisions on which the two disagree, `chance` that with which the challenger acts there.

    >>> round(spread(0.1, np.array([1.0, -1.0]), 0.5), 3)
    0.632
    """
    square = float(np.mean(np.square(paid)))
    return float(np.sqrt(differ * square * (1.0 / chance + 1.0 / (1.0 - chance))))


def least(gain: float, design: Design) -> float:
    """Return the number of units without which no evidence can suffice: b·ln(1/α)/(gain − least gain); 0 where nothing bounds z.

    >>> round(least(0.5, Design(spread=1.0, bound=10.0)))
    60
    """
    if np.isinf(design.bound):
        return 0.0
    over = gain - design.min_gain
    return float(-design.bound * np.log(design.alpha) / over) if over > 0.0 else np.inf


def plan(gain: float, design: Design, begun: Begun | None = None, worth: float = np.nan) -> Plan:
    """Return how many units more the test takes, with the power asked for, if the gain is `gain`; `worth` is passed on (`waiting`).

    >>> found = plan(0.1, Design(spread=1.0, bound=10.0, per_day=500.0))
    >>> round(found.least), round(found.units, -2), round(found.days, 1)
    (300, 1700.0, 3.3)
    """
    over = gain - design.min_gain
    units = _units(over, design, begun) if over > 0.0 else np.inf
    return Plan(gain, design.power, least(gain, design), units, units / design.per_day, worth)


def _units(over: float, design: Design, begun: Begun | None) -> float:
    """Return the least number of further units by which the test has ended with the power asked for; infinite beyond 10^12."""
    begun = Begun(0, np.zeros(len(betting.BETS)), 0.0) if begun is None else begun
    design = replace(design, spread=max(design.spread, 1e-6 * over))
    if _chance(LONGEST, over, design, begun) < design.power:
        return np.inf
    low, high = 0.0, float(np.log(LONGEST))  # on a scale of logarithms: a few units or a billion
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if _chance(float(np.exp(middle)), over, design, begun) >= design.power else (middle, high)
    return float(np.ceil(np.exp(high)))


def _chance(units: float, over: float, design: Design, begun: Begun) -> float:
    """Return the probability that the evidence reaches 1/α within so many further units, looked at all the way.

    The units' sum is a Brownian motion whose drift is the gain `over` the least one, and the sum at which the evidence reaches 1/α a
    line, that which touches it at the end: it is passed by then with Φ((δn − a)/σ√n) + exp(2aδ/σ²)·Φ((−a − δn)/σ√n), where a is the line's
    height at the beginning and δ the drift less its slope (Siegmund 1985, chapter 3). What is needed bends down, so that this is if
    anything too small.
    """
    n = units * np.array([1.0, 1.001])
    spread = design.spread * np.sqrt(n)
    total = n[:, None] * over + spread[:, None] * _SCORES  # sums (2, n_scores) that may come
    aim = -float(np.log(design.alpha))
    found = _log_evidence(total, n, over, design, begun)
    if found[0, -1] < aim or (np.isinf(design.bound) and begun.units + units < asymptotic.FEWEST):
        return 0.0
    needed, later = (float(np.interp(aim, found[i], total[i])) for i in range(2))
    slope = (later - needed) / float(n[1] - n[0])
    height, drift, root = max(needed - slope * units, 0.0), over - slope, float(spread[0])
    early = 2.0 * height * drift / design.spread**2 + log_ndtr((-height - drift * units) / root)
    return float(ndtr((over * units - needed) / root) + np.exp(min(float(early), 0.0)))


def _log_evidence(total: Floats, units: Floats, over: float, design: Design, begun: Begun) -> Floats:
    """Return the logarithm of the evidence (n, n_sums) if further `units` (n,) have these sums (n, n_sums) over the least gain.

    A bet loses −½·ln(1 − λ²)·(spread² + gain²)/b² of its growth a unit: as much as it does where gains and losses are as large as b,
    and more than where they are smaller.
    """
    if np.isinf(design.bound):
        score = (begun.score + total) / design.spread
        return asymptotic.log_evidence(score, (begun.units + units)[:, None], asymptotic.precision(design.alpha))
    b = design.bound + design.min_gain
    bet = betting.BETS * b / (design.bound + betting.BETS * design.min_gain)  # what they are at the least gain
    drag = -0.5 * np.log1p(-bet * bet) * (design.spread**2 + over**2) / b**2
    return np.asarray(logsumexp(begun.wealth + bet * total[..., None] / b - units[:, None, None] * drag, axis=-1) - np.log(len(bet)))


def waiting(gain: float, error: float, design: Design, units: float, left: float) -> float:
    """Return what it is worth, in money altogether, to test so many more `units` before deciding, out of `left` decisions that follow.

    What is thought of the gain is N(gain, error²); after the units it is known better, by σ̃² = τ⁴/(τ² + σ²/n), and the better of the two
    models is taken: (left − n)·[μΦ(μ/σ̃) + σ̃φ(μ/σ̃) − max(0, μ)]. During the test the better one, as it seems now, decides on part of the
    traffic only: n·(max(0, μ) − share·μ) less. Negative: decide now. (Raiffa & Schlaifer 1961, chapter 5.)

    >>> round(waiting(0.0, 0.1, Design(spread=1.0), units=1000, left=101_000))
    3804
    """
    if not (np.isfinite([gain, error]).all() and 0.0 < units < left):
        return 0.0
    known = error**2 / np.sqrt(error**2 + design.spread**2 / units) if error > 0.0 else 0.0
    ratio = gain / known if known > 0.0 else np.inf * gain if gain else 0.0
    better = gain * ndtr(ratio) + known * np.exp(-0.5 * ratio**2) / np.sqrt(2.0 * np.pi) - max(0.0, gain)
    return float((left - units) * better - units * (max(0.0, gain) - design.share * gain))


def lasting(days: float) -> str:
    """Return a length of time in words.

    >>> lasting(12.3), lasting(0.2), lasting(0.0)
    ('about 12 days', 'about 5 hours', 'two minutes at most')
    """
    for size, name in ((1.0, "days"), (1.0 / 24.0, "hours"), (1.0 / 1440.0, "minutes")):
        if days >= 2.0 * size:
            return f"about {days / size:,.0f} {name}"
    return "two minutes at most"


# --------------------------------------------------------------------------------------------------------------------- several tests


def together(evidence: Sequence[float], alpha: float = 0.05) -> Bools:
    """Return which (n,) of several challengers tested at once are better, so that of those the expected share that is not is ≤ α.

    e-BH (Wang & Ramdas 2022): the k with the most evidence, for the largest k of which the k-th has at least n/(k·α). It holds
    however the tests depend on one another, as they do on the same decisions.

    >>> together([50.0, 30.0, 1.0]).tolist(), together([30.0, 1.0, 1.0]).tolist()
    ([True, True, False], [False, False, False])
    """
    e = np.asarray(evidence, dtype=np.float64)
    order = np.argsort(-e, kind="stable")
    enough = np.flatnonzero(e[order] * np.arange(1, len(e) + 1) >= len(e) / alpha)
    better = np.zeros(len(e), dtype=np.bool_)
    better[order[: enough[-1] + 1 if len(enough) else 0]] = True
    return better


def spent(alpha: float, place: int) -> float:
    """Return the α of the year's challenger in this `place`, from 1 on: 6/(π·place)² of a year's α, which they never exceed together.

    >>> [round(spent(0.05, place), 4) for place in (1, 2, 3)]
    [0.0304, 0.0076, 0.0034]
    """
    return float(6.0 * alpha / (np.pi * place) ** 2)
