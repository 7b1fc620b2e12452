"""How long a test of a challenger takes, what waiting for it is worth, and how several tests share one rate of error (MATHEMATICS §7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from makegood.contracts import Bools, Floats
from makegood.monitoring import asymptotic, betting
from makegood.monitoring.review import Plan

LONGEST = 1e12
"""Units beyond which a test never ends."""

_STEPS = 80


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

    Reckoned with the units' sum at its (1 − power) quantile, normal, and bets that lose −½·ln(1 − λ²)·(spread² + gain²)/b² of their growth:
    as much as they do where gains and losses are as large as b, and more than where they are smaller. A test that is looked at on the way
    ends sooner with the same power.

    >>> found = plan(0.1, Design(spread=1.0, bound=10.0, per_day=500.0))
    >>> round(found.least), round(found.units, -2), round(found.days, 1)
    (300, 1800.0, 3.7)
    """
    over = gain - design.min_gain
    units = _units(over, design, begun) if over > 0.0 else np.inf
    return Plan(gain, design.power, least(gain, design), units, units / design.per_day, worth)


def _units(over: float, design: Design, begun: Begun | None) -> float:
    """Return the least number of further units after which the evidence has reached 1/α with the power asked for; infinite beyond 10^12."""
    start = Begun(0, np.zeros(len(betting.BETS)), 0.0) if begun is None else begun
    aim, late = -np.log(design.alpha), float(ndtri(design.power))
    b, rho = design.bound + design.min_gain, asymptotic.precision(design.alpha)
    bet = betting.BETS * b / (design.bound + betting.BETS * design.min_gain) if np.isfinite(b) else betting.BETS

    def reached(units: float) -> bool:
        total = units * over - late * design.spread * np.sqrt(units)
        if np.isfinite(b):
            drag = -0.5 * np.log1p(-bet * bet) * (design.spread**2 + over**2) / b**2
            each = start.wealth + bet * total / b - units * drag
            return bool(np.log(np.exp(each - each.max()).mean()) + each.max() >= aim)
        score = (start.score + total) / max(design.spread, 1e-9 * over)
        return start.units + units >= asymptotic.FEWEST and bool(asymptotic.log_evidence(score, start.units + units, rho) >= aim)

    if not reached(LONGEST):
        return np.inf
    low, high = 0.0, np.log(LONGEST)  # on a scale of logarithms: a few units or a billion
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if reached(float(np.exp(middle))) else (middle, high)
    return float(np.ceil(np.exp(high)))


def waiting(gain: float, error: float, design: Design, units: float, left: float) -> float:
    """Return what it is worth, in money altogether, to test so many more `units` before deciding, out of `left` decisions that follow.

    What is thought of the gain is N(gain, error²); after the units it is known better, by σ̃² = τ⁴/(τ² + σ²/n), and the better of the two
    models is taken: (left − n)·[μΦ(μ/σ̃) + σ̃φ(μ/σ̃) − max(0, μ)]. During the test the better one, as it seems now, decides on part of the
    traffic only: n·(max(0, μ) − share·μ) less. Negative: decide now. (Raiffa & Schlaifer 1961, §5.)

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
