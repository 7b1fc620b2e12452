"""What a policy earns: estimates with intervals, gains over baselines, the verdict in words, and the curves behind them.

Every figure is a mean over rows; MATHEMATICS §2 and §11 are the law. The interval of a mean is

- the studentised bootstrap over rows, groups or time blocks, from forty (effective) ones on;
- with fewer, Student's t with a leave-one-out standard error and as many degrees of freedom as there are effective units less
  one: for blocks of equal size exactly t on the block means;
- with fewer than six, none: its ends are NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from makegood.contracts import Estimate, Floats, Ints
from makegood.economics import resample

FEWEST, FEW = 6, 40
"""Units below which there is no interval, and below which it is Student's."""

ALPHA, TAIL_ALPHA = 0.05, 0.01
"""Error of the verdict's interval at the first opening of the test rows, and where it is tail-limited."""


def estimate(x: Floats, unit: str = "", *, clusters: Ints | None = None, level: float = 0.95, seed: int = 0) -> Estimate:
    """Return the mean of `x` (n,) with its interval at `level`.

    `clusters` (n,) names the group or time block of each row; None: rows are independent. `tail_limited` where n < 25·skew².

    >>> print(estimate(np.arange(101.0), "EUR"))
    50 [44.3, 55.7] EUR
    >>> print(estimate(np.array([1.0, 2.0, 3.0]), "EUR"))
    2 [nan, nan] EUR
    """
    x = np.asarray(x, dtype=np.float64)
    assert np.isfinite(x).all(), "payoffs are checked where they are computed"
    if not len(x):
        return Estimate(np.nan, np.nan, np.nan, unit, level)
    units = resample.gather(np.column_stack([x, np.ones(len(x))]), clusters)
    mean = float(x.mean())
    tail_limited = resample.skewed(units[:, 0] - mean * units[:, 1])
    if len(units) < FEWEST:
        low = high = np.nan
    elif resample.effective(units[:, 1]) < FEW:
        reach = critical(units[:, 1], level) * float(np.sqrt(resample.jackknife(units)[1][0, 0]))
        low, high = mean - reach, mean + reach
    else:
        low, high = resample.studentised(resample.pool(units, seed), level=level, seed=seed)
    return Estimate(mean, low, high, unit, level, tail_limited)


def critical(sizes: Floats, level: float) -> float:
    """Return how many standard errors an interval at `level` reaches: Student's t on the effective number of units less one.

    >>> round(critical(np.ones(20), 0.95), 3)
    2.093
    """
    from scipy.special import stdtrit

    return float(stdtrit(max(resample.effective(sizes) - 1.0, 1.0), 0.5 + level / 2.0))


def bounded(x: Floats, unit: str = "", *, bounds: tuple[float, float], clusters: Ints | None = None, level: float = 0.95) -> Estimate:
    """Return the mean of the pseudo-values `x` (n,) of a metric, with an interval that stays between its `bounds`.

    The interval is made on a scale without bounds, ln((v − low)/(high − v)) or ln(v − low), and carried back: near a bound, where
    a symmetrical interval would cross it, it becomes lopsided as it should. For the area under the ROC curve this is DeLong's
    interval on the logit scale, by cluster where there are clusters (Obuchowski 1997); no resampling is needed. A metric that
    stands on its bound on every row gets the limit of Clopper & Pearson (1934) for so many units without a miss.

    >>> print(bounded(np.array([1.0, 0.0] * 50), bounds=(0.0, 1.0)))
    0.5 [0.402, 0.598]
    >>> print(bounded(np.ones(100), bounds=(0.0, 1.0)))
    1 [0.964, 1]
    """
    x = np.asarray(x, dtype=np.float64)
    units = resample.gather(np.column_stack([x, np.ones(len(x))]), clusters)
    if len(units) < FEWEST:
        return Estimate(float(x.mean()) if len(x) else np.nan, np.nan, np.nan, unit, level)
    mean, error = float(x.mean()), float(np.sqrt(resample.jackknife(units)[1][0, 0]))
    tail_limited = resample.skewed(units[:, 0] - mean * units[:, 1])
    low, high = bounds
    if low < mean < high:
        share = (high - mean) / (high - low) if np.isfinite(high) else 1.0
        reach = min(critical(units[:, 1], level) * error / ((mean - low) * share), 50.0)
        ends = _moved(mean, -reach, bounds), _moved(mean, reach, bounds)
    else:
        missed = (high - low) * (1.0 - (0.5 - level / 2.0) ** (1.0 / len(units))) if np.isfinite(high) else 0.0
        ends = (mean - missed, mean) if mean >= high else (mean, mean + missed)
    return Estimate(mean, *ends, unit, level, tail_limited)


def _moved(mean: float, by: float, bounds: tuple[float, float]) -> float:
    """Return what `mean` becomes when it is moved on the scale without bounds."""
    low, high = bounds
    if np.isinf(high):
        return float(low + (mean - low) * np.exp(by))
    odds = (mean - low) / (high - mean) * np.exp(by)
    return float(low + (high - low) * odds / (1.0 + odds))


def paired(a: Floats, b: Floats, unit: str = "", *, clusters: Ints | None = None, level: float = 0.95, seed: int = 0) -> Estimate:
    """Return the mean of a − b over the same rows (n,): what they share cancels, so that the interval is of the difference.

    >>> print(paired(np.arange(50.0) + 1, np.arange(50.0)))
    1 [1, 1]
    """
    return estimate(np.asarray(a, dtype=np.float64) - b, unit, clusters=clusters, level=level, seed=seed)


def time_blocks(order: Ints) -> Ints:
    """Return the block (n,) of consecutive rows that each row lies in, given its rank (or any number that grows) in time.

    Forty blocks, fewer where a block would hold under ten rows; equal times share a block. Few long blocks rather than many short
    ones: they tolerate dependence as long as a block, and t on forty costs 3% of the width (Ibragimov & Müller 2010).

    >>> np.bincount(time_blocks(np.arange(1000))).tolist() == [25] * 40
    True
    >>> np.bincount(time_blocks(np.arange(60))).tolist()
    [10, 10, 10, 10, 10, 10]
    """
    n = len(order)
    rank = np.searchsorted(np.sort(order), order, side="left")
    return np.asarray(rank * min(FEW, max(n // 10, 1)) // max(n, 1), dtype=np.int64)


# ------------------------------------------------------------------------------------------------------- gain and verdict


@dataclass(frozen=True)
class Gain:
    """What a policy earns above each baseline, paired, at the level of the verdict; `over` is the hardest of them.

    The hardest has the least lower limit, and that limit stands for all of them: to beat every baseline is the intersection of
    one claim each, whose test is the least of the single ones, without a correction (Berger 1982). `cost` is what the policy costs
    a decision beyond its payoffs; the estimates are net of it.
    """

    over: str
    estimates: Mapping[str, Estimate]
    opened: int = 1
    cost: float = 0.0

    @property
    def estimate(self) -> Estimate:
        """The gain over the hardest baseline."""
        return self.estimates[self.over]

    @property
    def level(self) -> float:
        """The level of the verdict at this opening of the test rows."""
        return 1.0 - ALPHA / self.opened


def gain(
    policy: Floats,
    baselines: Mapping[str, Floats],
    unit: str = "",
    *,
    clusters: Ints | None = None,
    opened: int = 1,
    seed: int = 0,
    cost: float = 0.0,
) -> Gain:
    """Return the gain of realised payoffs `policy` (n,) over each of the `baselines` (n,), and which is the hardest to beat.

    `cost` is taken off each of the policy's payoffs; baselines compute nothing. At the k-th opening of the same test rows the level
    is 1 − 0.05/k; a tail-limited interval is taken at 1 − 0.01/k instead, so the interval that is reported is the one that decides
    (MATHEMATICS §2).

    >>> x = np.arange(100.0)
    >>> gain(x, {"none": x * 0, "half": x / 2}).over
    'half'
    """
    assert baselines, "every decision has a constant action to be compared with"
    policy = np.asarray(policy, dtype=np.float64) - cost
    estimates = {}
    for name, payoff in baselines.items():
        found = paired(policy, payoff, unit, clusters=clusters, level=1.0 - ALPHA / opened, seed=seed)
        if found.tail_limited:
            found = paired(policy, payoff, unit, clusters=clusters, level=1.0 - TAIL_ALPHA / opened, seed=seed)
        estimates[name] = found
    over = min(estimates, key=lambda name: (np.nan_to_num(estimates[name].low, nan=-np.inf), estimates[name].value))
    return Gain(over, estimates, opened, cost)


def verdict(gain: Gain) -> tuple[str, str]:
    """Return "deploy" or "refuse", and why in words: deploy when the lower end of the gain over every baseline is above zero.

    >>> verdict(Gain("approve", {"approve": Estimate(12.3, 4.1, 20.5, "EUR")}))[1]
    "The model earns 12.3 EUR a decision more than 'approve', the hardest baseline to beat; the 95% interval runs from 4.1 to 20.5."
    """
    found, name, percent = gain.estimate, f"'{gain.over}'", f"{100 * gain.estimate.level:.4g}%"
    earns = (
        f"The model earns {_short(abs(found.value))} {found.unit}".rstrip()
        + f" a decision {'less' if found.value < 0 else 'more'} than {name}"
    )
    interval = f"the {percent} interval runs from {_short(found.low)} to {_short(found.high)}"
    if np.isnan(found.low):
        answer, why = "refuse", f"{earns} on these rows, but fewer than {FEWEST} independent units allow no interval: no gain is shown."
    elif found.low > 0:
        answer, why = "deploy", f"{earns}, the hardest baseline to beat; {interval}."
    elif found.value > 0:
        answer, why = "refuse", f"{earns} on these rows, but {interval}: it may be chance. More rows would narrow it."
    elif found.low == found.high == 0:
        answer, why = "refuse", f"The model earns exactly what {name} does, row by row: it adds nothing."
    else:
        answer, why = "refuse", f"{earns}; {interval}. Keep to {name}."
    if found.tail_limited:
        why += f" A few large payoffs weigh heavily, so the interval is taken at {percent}."
    if gain.cost:
        why += f" {_costing(gain)}"
    if gain.opened > 1:
        why += f" These test rows have been opened {gain.opened} times, so the interval is wider than at the first time."
    return answer, why


def _costing(gain: Gain) -> str:
    """Return what computing does to the gain, in a sentence: it may turn the verdict."""
    found, amount = gain.estimate, _short(gain.cost) if gain.cost >= 1e-4 else "under 0.0001"
    each = f"{amount} {found.unit}".rstrip()
    if found.low <= 0 < found.low + gain.cost:
        ends = f"{_short(found.low + gain.cost)} to {_short(found.high + gain.cost)}"
        return f"Computing costs {each} a decision, and that turns the verdict: before it, the interval runs from {ends}."
    return f"Computing, at {each} a decision, is taken off."


def _short(x: float) -> str:
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.3g}"


# ----------------------------------------------------------------------------------------------------------------- curves


def profit_curve(margin: Floats, policy: Floats, baseline: Floats, points: int = 101) -> tuple[tuple[float, float], ...]:
    """Return (share of rows that the model decides, value per decision) from none, the baseline alone, to all.

    `margin` (n,) is by how much the model expects its action to beat the baseline's; rows are handed to it from the largest down,
    rows of equal margin together (a line joins the points before and after them). `policy` and `baseline` (n,) are realised.

    >>> profit_curve(np.array([3.0, 1.0]), np.array([4.0, -2.0]), np.zeros(2), points=3)
    ((0.0, 0.0), (0.5, 2.0), (1.0, 1.0))
    """
    n = len(margin)
    order = np.argsort(-np.asarray(margin), kind="stable")
    ranked = np.asarray(margin)[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) + 1 if n else np.array([], dtype=np.int64)
    gained = np.append(0.0, np.cumsum((np.asarray(policy, dtype=np.float64) - baseline)[order])[ends - 1]) / max(n, 1)
    shares = np.linspace(0.0, 1.0, points)
    values = (float(np.mean(baseline)) if n else 0.0) + np.interp(shares, np.append(0, ends) / max(n, 1), gained)
    return tuple(zip(shares.tolist(), values.tolist(), strict=True))


def decision_curve(hit: NDArray[np.bool_], p: Floats, thresholds: Floats | None = None) -> tuple[tuple[float, float, float], ...]:
    """Return (threshold, net benefit of acting where p ≥ threshold, net benefit of acting on all) for a binary outcome.

    Net benefit at t: true positives/n − false positives/n · t/(1 − t) (Vickers & Elkin 2006, equation 1), in true positives per
    row. `hit` (n,) whether the outcome came, `p` (n,) its probability; thresholds 0.01, 0.02, …, 0.99 unless given.

    >>> decision_curve(np.array([True, False, False, True]), np.array([0.9, 0.6, 0.1, 0.4]), np.array([0.5]))
    ((0.5, 0.0, 0.0),)
    """
    t = np.arange(1, 100) / 100.0 if thresholds is None else np.asarray(thresholds, dtype=np.float64)
    hit, n = np.asarray(hit, dtype=np.bool_), max(len(hit), 1)
    odds = t / (1.0 - t)

    def net(positives: Floats, negatives: Floats) -> Floats:
        return np.asarray((positives - negatives * odds) / n)

    def at_least(scores: Floats) -> Floats:
        return np.asarray(len(scores) - np.searchsorted(np.sort(scores), t, side="left"))

    model = net(at_least(p[hit]), at_least(p[~hit]))
    everyone = net(np.full(len(t), hit.sum()), np.full(len(t), (~hit).sum()))
    return tuple(zip(t.tolist(), model.tolist(), everyone.tolist(), strict=True))
