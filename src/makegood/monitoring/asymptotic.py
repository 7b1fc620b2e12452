"""Whether a mean of money is above a bound, where nothing bounds the money: an asymptotic confidence sequence.

It holds at any time, but only in the limit of many units before the first look (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024): with
few units, or few that decide, its error is not as stated. Use `betting` where payoffs have caps.

S is the sum of z − m over its own standard deviation, which becomes a Brownian motion. Its evidence is Robbins' (1970) mixture
over the drifts that are above 0, half-normal with precision ρ: 2·√(ρ/(n + ρ))·exp(S²/2(n + ρ))·Φ(S/√(n + ρ)) (Howard, Ramdas, McAuliffe
& Sekhon 2021).
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr

from makegood.contracts import Floats, Ints
from makegood.monitoring.betting import Sequence, points

TUNED = 10_000
"""After how many units the interval is as narrow as it can be; declared, for it must not depend on the data."""

FEWEST = 100
"""Units before which nothing is said."""

_STEPS = 60


def precision(alpha: float, units: float = TUNED) -> float:
    """Return ρ for which the sequence is narrowest after so many `units`, closely: units/(x + ln(1 + x)), x = −2·ln 2α.

    It is that of the two-sided mixture at 2α, whose minimum has this form (Waudby-Smith et al. 2024).

    >>> round(precision(0.05), 1)
    1580.1
    """
    twice = -2.0 * np.log(2.0 * alpha)
    return float(units / (twice + np.log(1.0 + twice)))


def log_evidence(score: Floats | float, units: Floats | Ints | float, rho: float) -> Floats:
    """Return the logarithm of the evidence (n,) that a drift is above 0, given S (n,) after so many units.

    >>> round(float(log_evidence(300.0, 10_000, 1500.0)), 3)
    3.585
    """
    w = np.asarray(units, dtype=np.float64) + rho
    s = np.asarray(score, dtype=np.float64)
    return np.asarray(np.log(2.0) + 0.5 * np.log(rho / w) + s * s / (2.0 * w) + log_ndtr(s / np.sqrt(w)))


def boundary(units: Floats | Ints, alpha: float, rho: float) -> Floats:
    """Return the S (n,) at which the evidence after so many units is 1/α.

    >>> boundary(np.array([10_000]), 0.05, precision(0.05)).round(1).tolist()
    [276.6]
    """
    w = np.asarray(units, dtype=np.float64) + rho
    low, high = np.zeros(len(w)), np.sqrt(2.0 * w * (-np.log(alpha) + 0.5 * np.log(w / rho)))
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        reached = log_evidence(middle, units, rho) >= -np.log(alpha)
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return np.asarray(high)


def evidence(z: Floats, mean: float, alpha: float, tuned: float = TUNED) -> float:
    """Return the evidence that the mean of z (n,) is above `mean`; 1 with fewer than 100 units, or where they do not differ.

    >>> evidence(np.tile([1.0, -0.9], 1000), 0.0, 0.05) > 1.0
    True
    """
    spread = float(np.std(z)) if len(z) >= FEWEST else 0.0
    if spread == 0.0:
        return 1.0
    score = float(np.sum(z) - len(z) * mean) / spread
    return float(np.exp(min(float(log_evidence(score, len(z), precision(alpha, tuned))), 690.0)))


def sequence(z: Floats, alpha: float, ends: Ints | None = None, tuned: float = TUNED) -> Sequence:
    """Return the asymptotic confidence sequence of the mean of z (n,), after the first `ends` units each (`points` unless given).

    Each end is wrong ever with a probability of about α at most; both are infinite before 100 units, and while z does not differ.

    >>> found = sequence(np.tile([1.0, 0.0], 500), 0.05, ends=np.array([1000]))
    >>> found.low.round(3).tolist(), found.high.round(3).tolist()
    ([0.443], [0.557])
    """
    ends = points(len(z)) if ends is None else ends
    moved = np.asarray(z, dtype=np.float64) - (z[0] if len(z) else 0.0)  # squares of what is far from 0 would lose their difference
    mean = np.cumsum(moved)[ends - 1] / ends
    spread = np.sqrt(np.maximum(np.cumsum(moved * moved)[ends - 1] / ends - mean**2, 0.0))
    reach = spread * boundary(ends, alpha, precision(alpha, tuned)) / ends
    reach = np.where((ends < FEWEST) | (spread == 0.0), np.inf, reach)
    value = mean + (z[0] if len(z) else 0.0)
    return Sequence(ends, value - reach, value, value + reach)
