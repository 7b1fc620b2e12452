"""Whether a mean of money is above a bound, by betting: valid whenever it is looked at, whatever the money's distribution.

Units pay z ≥ −b, b known. Who bets the share λ of what he has on each unit that its mean is above m has, after n of them,
Π[1 + λ(z − m)/(b + m)]; if the mean is at most m, given all earlier units, this is in expectation at most what he began with, and reaches
1/α ever with a probability of at most α (Ville 1939; Waudby-Smith & Ramdas 2024, §4). K(m) is the mean over several λ.

Each λ in `BETS` stands for a λ(m) = λ(b + m)/(b + λm), λ itself at m = 0, for then 1 + λ(m)(z − m)/(b + m) = (1 + λz/b)/(1 + λm/b):
what the units did is kept in as many numbers as there are bets, and K at any m follows from them. K falls in m, so the m that are not
refuted have a lower end. Gains may be as large as they like; an upper end needs a largest gain and is the lower end of −z.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from makegood.contracts import Floats, Ints

BETS = 1.0 / (1.0 + 2.0 ** np.arange(10.0, -4.0, -1.0))
"""λ, declared before any unit is seen, odds of 2^−10 to 2^3: a thousandth for a gain far below the spread of z, to .89 for a bound far
beyond it. Twice as many bets in the same range find nothing more."""

POINTS = 240
"""Of a path."""

_LARGEST = 1e15  # a gain counts for no more than so many times the bound, lest a product overflow: gains may be clipped
_PRODUCT = 16  # factors that are multiplied before a logarithm is taken
_STEPS = 48  # of a bisection
_HIGHEST = 690.0  # of a logarithm of evidence that is still a finite number


@dataclass(frozen=True, eq=False)
class Sequence:
    """A confidence sequence at some times, all (n_points,): after how many `units`, and the interval of the mean then."""

    units: Ints
    low: Floats
    value: Floats
    high: Floats

    def __len__(self) -> int:
        return len(self.units)


def points(n: int, most: int = POINTS) -> Ints:
    """Return after how many of `n` units a path is drawn: at most so many times, evenly, the last at n.

    >>> points(7, most=3).tolist(), points(0).tolist()
    ([2, 4, 7], [])
    """
    count = min(n, most)
    return np.asarray(n * np.arange(1, count + 1) // max(count, 1))


def log_wealth(z: Floats, bound: float, ends: Ints, bets: Floats = BETS) -> Floats:
    """Return Σ log(1 + λz/b) (len(ends), n_bets) over the first `ends` of the units z (n,): what each bet has made of 1 at m = 0.

    Units at 0, such as those on which two models agree, change nothing and cost nothing.

    >>> log_wealth(np.array([1.0, 0.0, -1.0]), 2.0, np.array([2, 3]), np.array([0.5])).round(4).tolist()
    [[0.2231], [-0.0645]]
    """
    where = np.flatnonzero(z)
    cuts = np.searchsorted(where, ends)
    x = np.minimum(np.asarray(z, dtype=np.float64)[where[: cuts[-1] if len(cuts) else 0]] / bound, _LARGEST)
    # what lies between two ends is filled up to whole rows: a logarithm costs as much as the product of a row
    lengths = np.diff(cuts, prepend=0)
    rows = -(-lengths // _PRODUCT)
    padded = np.zeros(int(rows.sum()) * _PRODUCT)
    padded[np.arange(len(x)) + np.repeat((np.cumsum(rows) - rows) * _PRODUCT - cuts + lengths, lengths)] = x
    factors = padded.reshape(-1, _PRODUCT).T.copy()
    part = np.repeat(np.arange(len(ends)), rows)
    found = np.empty((len(ends), len(bets)))
    for j, bet in enumerate(bets):
        product = 1.0 + bet * factors[0]
        for factor in factors[1:]:
            product *= 1.0 + bet * factor
        found[:, j] = np.bincount(part, np.log(product), len(ends))
    return np.cumsum(found, axis=0)


def log_evidence(wealth: Floats, units: Ints | int, mean: Floats | float, bound: float, bets: Floats = BETS) -> Floats:
    """Return log K(m) (n,) against a mean of at most m = `mean` > −b, of the log-wealth (n, n_bets) after so many units.

    >>> made = log_wealth(np.ones(10), 1.0, np.array([10]))
    >>> log_evidence(made, 10, 0.0, 1.0).round(2).tolist(), log_evidence(made, 10, 0.9, 1.0).round(2).tolist()
    ([4.45], [0.18])
    """
    shift = np.log1p(bets * np.asarray(mean, dtype=np.float64)[..., None] / bound)
    each = wealth - np.asarray(units)[..., None] * shift
    top = each.max(axis=-1)
    return np.asarray(top + np.log(np.exp(each - top[..., None]).mean(axis=-1)))


def evidence(wealth: Floats, units: int, mean: float, bound: float) -> float:
    """Return K(m) of the log-wealth (n_bets,), at most 1e299.

    >>> round(evidence(log_wealth(np.ones(10), 1.0, np.array([10]))[0], 10, 0.0, 1.0))
    85
    """
    return float(np.exp(min(float(log_evidence(wealth, units, mean, bound)), _HIGHEST)))


def lower(wealth: Floats, units: Ints, value: Floats, bound: float, alpha: float, bets: Floats = BETS) -> Floats:
    """Return the lower end (n,) of the means that are not refuted, K(m) < 1/α; −b where none is refuted. `value` (n,) are the means so far.

    K falls in m, and is at most 1 at the mean itself (Jensen): the root lies between, and the bisection's lower side is returned.

    >>> made = log_wealth(np.ones(100), 1.0, np.array([100]))
    >>> lower(made, np.array([100]), np.ones(1), 1.0, alpha=0.05).round(3).tolist()
    [0.904]
    """
    aim = -np.log(alpha)
    low, high = np.full(len(units), -bound), np.maximum(np.asarray(value, dtype=np.float64), -bound)
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        refuted = log_evidence(wealth, units, middle, bound, bets) >= aim
        low, high = np.where(refuted, middle, low), np.where(refuted, high, middle)
    return low


def sequence(
    z: Floats, bound: float, alpha: float, above: float | None = None, ends: Ints | None = None, scale: Floats | None = None
) -> Sequence:
    """Return the confidence sequence of the mean of z (n,) ≥ −`bound`, after the first `ends` units each (`points` unless given).

    Each end is wrong ever with a probability of at most α: the interval holds the mean at all times with 1 − 2α. Where no largest gain
    `above` is given, or a gain was larger, the upper end is infinite. The ends are not intersected over time: the mean may move.

    With `scale` (n,), positive and known before its unit, it is z·scale that is within the bounds. Then Π(1 + λ·m·scale/b) is at most the
    n-th power of its factor at the mean scale (Jensen), K by that is at most the true one, and the interval is that of z·scale over it.

    >>> found = sequence(np.tile([1.0, 0.0], 500), 1.0, 0.05, above=1.0, ends=np.array([1000]))
    >>> found.low.round(3).tolist(), found.value.tolist(), found.high.round(3).tolist()
    ([0.45], [0.5], [0.551])
    """
    ends = points(len(z)) if ends is None else ends
    value = np.cumsum(z)[ends - 1] / ends
    scaled, share = (z, 1.0) if scale is None else (z * scale, np.cumsum(scale)[ends - 1] / ends)
    mean = np.cumsum(scaled)[ends - 1] / ends
    low = lower(log_wealth(scaled, bound, ends), ends, mean, bound, alpha) / share
    if above is None or len(z) == 0 or float(np.max(scaled)) > above * (1.0 + 1e-9):
        return Sequence(ends, low, value, np.full(len(ends), np.inf))
    return Sequence(ends, low, value, -lower(log_wealth(-scaled, above, ends), ends, -mean, above, alpha) / share)


def bernstein(z: Floats, ends: tuple[float, float], alpha: float, most: float = 0.5) -> tuple[Floats, Floats]:
    """Return both ends (n,) of the empirical-Bernstein confidence sequence of the mean of z (n,) within `ends`, at 1 − α for both.

    Waudby-Smith & Ramdas (2024), theorem 2: a bet for each unit from the spread of those before it, at most `most`, in closed form.

    >>> low, high = bernstein(np.tile([1.0, 0.0], 500), (-1.0, 1.0), 0.1)
    >>> round(float(low[-1]), 3), round(float(high[-1]), 3)
    (0.449, 0.552)
    """
    least, largest = ends
    x = (np.asarray(z, dtype=np.float64) - least) / (largest - least)
    n = np.arange(1.0, len(x) + 1.0)
    mean = (0.5 + np.cumsum(x)) / (n + 1.0)
    variance = (0.25 + np.cumsum((x - mean) ** 2)) / (n + 1.0)
    before, spread = np.append(0.5, mean[:-1]), np.append(0.25, variance[:-1])
    bet = np.minimum(np.sqrt(2.0 * np.log(2.0 / alpha) / (spread * n * np.log1p(n))), most)
    total = np.cumsum(bet)
    centre = np.cumsum(bet * x) / total
    reach = (np.log(2.0 / alpha) + np.cumsum((x - before) ** 2 * (-np.log1p(-bet) - bet))) / total
    return least + (largest - least) * np.maximum(centre - reach, 0.0), least + (largest - least) * np.minimum(centre + reach, 1.0)
