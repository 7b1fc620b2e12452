"""Which decisions may be judged yet, how fast outcomes come, and what a decision counts for whose outcome never came.

A decision is judged once it is as old as outcomes take, on what was known by then and no later: so neither an outcome that came early
nor a correction that came late can bias a test, whoever chooses when they come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from makegood.contracts import Bools, Estimate, Floats, Ints
from makegood.errors import DataError, Problem
from makegood.monitoring.review import Share

NEVER = int(np.iinfo(np.int64).max)
"""When an outcome is known that has not come."""

LEAST_OBSERVED = 0.05
"""The least share of outcomes recorded that may be divided by (MATHEMATICS §3)."""

_POINTS = 24


@dataclass(frozen=True)
class Outcomes:
    """Decisions of one model, all (n,): what each promised, and what came of it.

    `at` and `known_at` (`NEVER`: not yet) are microseconds; `unit` whole numbers, whom a decision is about; `paid` is what it paid, NaN
    where that is not known; `revealed` whether what was done lets the outcome be known. Where it does not, `paid` may be known all the
    same (to decline pays nothing). `segment` are whole numbers from 0 on, within which outcomes that are missing are taken to be like
    those that came; `worst` is the least that what was done can pay. Raises `DataError` where a promise is no finite number, or an outcome
    is known before its decision.
    """

    at: Ints
    unit: Ints
    promised: Floats
    paid: Floats
    known_at: Ints
    revealed: Bools
    segment: Ints
    worst: Floats

    def __post_init__(self) -> None:
        columns = (self.unit, self.promised, self.paid, self.known_at, self.revealed, self.segment, self.worst)
        assert all(len(column) == len(self.at) for column in columns), "as many of each"
        self._refuse(~np.isfinite(self.promised), "promise", self.promised, "a finite amount", "leave it out: it promised nothing")
        self._refuse(np.isinf(self.paid), "payoff", self.paid, "an amount", "correct the outcome from which it was computed")
        early = self.revealed & (self.known_at < self.at)
        self._refuse(early, "outcome", self.known_at, "a time after the decision", "correct the clock of what reports outcomes")

    def _refuse(self, wrong: Bools, what: str, values: Floats | Ints, expected: str, mend: str) -> None:
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(Problem(f"{what} of decision {row}", f"{values[row]}", expected, mend))

    def __len__(self) -> int:
        return len(self.at)

    def take(self, rows: Ints) -> Outcomes:
        """Return the given decisions, in the given order.

        >>> len(Outcomes(*(np.zeros(3, int),) * 5, np.ones(3, bool), *(np.zeros(3, int),) * 2).take(np.array([0, 2])))
        2
        """
        return Outcomes(
            self.at[rows],
            self.unit[rows],
            self.promised[rows],
            self.paid[rows],
            self.known_at[rows],
            self.revealed[rows],
            self.segment[rows],
            self.worst[rows],
        )

    def known(self, by: Ints | int) -> Bools:
        """Return of which decisions (n,) the payoff was known at time `by`, one or (n,); at once where it was never in doubt.

        >>> early = Outcomes(*(np.zeros(2, int),) * 2, *(np.zeros(2),) * 2, np.array([3, 9]), np.ones(2, bool), *(np.zeros(2, int),) * 2)
        >>> early.known(by=5).tolist()
        [True, False]
        """
        return np.asarray(~np.isnan(self.paid) & ((self.known_at <= by) | ~self.revealed))

    @property
    def testable(self) -> Bools:
        """Of which decisions (n,) the promise can ever be compared with a payoff."""
        return np.asarray(self.revealed | ~np.isnan(self.paid))


def due(at: Ints, now: int, delay_us: int) -> Ints:
    """Return the positions of the decisions that are due, at + delay ≤ now, in the order in which they were made.

    >>> due(np.array([30, 10, 20, 50]), now=60, delay_us=30).tolist()
    [1, 2, 0]
    """
    rows = np.flatnonzero(at <= now - delay_us)
    made = at[rows]
    return rows if bool((made[1:] >= made[:-1]).all()) else rows[np.argsort(made, kind="stable")]


def curve(outcomes: Outcomes, now: int, ages_s: Sequence[float] | None = None, level: float = 0.95) -> tuple[Share, ...]:
    """Return the share of revealing decisions whose outcome is known at each age, as far as they are followed (Kaplan & Meier 1958).

    1 − Π(1 − d/n) over the ages at which d of n that are still without an outcome get theirs; decisions younger than an age do not
    count against it. The interval is Greenwood's on the scale ln(−ln S), on which it stays between 0 and 1 (Kalbfleisch & Prentice
    2002, §1.4), for independent decisions. Where it degenerates, no or all outcomes known, it is that of Clopper & Pearson (1934) for
    those at risk. `ages_s`: seconds; two dozen ages up to that of the eldest unless given.

    >>> six = np.zeros(6, int)
    >>> known_at = np.array([1, 2, 3, NEVER, NEVER, NEVER]) * np.array([10**6] * 3 + [1] * 3)
    >>> rows = Outcomes(six, six, six, six, known_at, np.ones(6, bool), six, six)
    >>> [(share.age_s, round(share.known.value, 3)) for share in curve(rows, now=5 * 10**6, ages_s=[1.5, 4.0])]
    [(1.5, 0.167), (4.0, 0.5)]
    """
    made, came = outcomes.at[outcomes.revealed], outcomes.known_at[outcomes.revealed]
    made, came = made[made <= now], came[made <= now]
    if not len(made):
        return ()
    happened = came <= now
    # the age at which it came or was last seen without: twice, plus one where it did not come, so that one sort puts events first in ties
    coded = np.sort(2 * (np.where(happened, came, now) - made) + ~happened)
    age, event = coded >> 1, (coded & 1) == 0
    at_risk = len(age) - np.arange(len(age), dtype=np.float64)
    # ties need no groups: (1 − 1/n)(1 − 1/(n − 1)) = 1 − 2/n, and Greenwood's terms telescope in the same way
    kept = np.cumprod(np.where(event, 1.0 - 1.0 / at_risk, 1.0))
    spread = np.cumsum(np.divide(1.0, at_risk * (at_risk - 1.0), out=np.zeros(len(age)), where=event & (at_risk > 1.0)))
    eldest = float(now - made.min()) / 1e6
    asked = np.linspace(0.0, eldest, _POINTS + 1)[1:] if ages_s is None else np.asarray(ages_s, dtype=np.float64)
    found = []
    for age_s in asked[asked <= eldest].tolist():
        last = int(np.searchsorted(age, age_s * 1e6, side="right"))
        survival, greenwood = (float(kept[last - 1]), float(spread[last - 1])) if last else (1.0, 0.0)
        # of none known: those followed so far; of all known: those that came
        followed = int(event[:last].sum()) if survival == 0.0 else len(age) - int(np.searchsorted(age, age_s * 1e6))
        low, high = _ends(survival, greenwood, max(followed, 1), level)
        found.append(Share(age_s, Estimate(1.0 - survival, low, high, "", level)))
    return tuple(found)


def _ends(survival: float, greenwood: float, followed: int, level: float) -> tuple[float, float]:
    """Return the ends of the interval of the share known, 1 − survival."""
    tail = (1.0 - level) / 2.0
    if not 0.0 < survival < 1.0:
        missed = 1.0 - tail ** (1.0 / followed)
        return (0.0, missed) if survival else (1.0 - missed, 1.0)
    log = float(np.log(survival))
    reach = float(-ndtri(tail)) * float(np.sqrt(greenwood)) / abs(log)
    return float(-np.expm1(log * np.exp(-reach))), float(-np.expm1(log * np.exp(reach)))


# --------------------------------------------------------------------------------------------------------- outcomes that never came


def observed(tick: Ints, segment: Ints, known: Bools, floor: float = LEAST_OBSERVED) -> Floats:
    """Return Ĝ (n,) ≥ `floor`: of earlier ticks' decisions in the same segment, the share whose outcome was known when it was due.

    `tick` (n,) does not fall. A tick's own outcomes and later ones have no part in its weight: it is predictable, so that weighted
    sums of what has mean zero keep mean zero given the past. One more decision with its outcome is counted before the first.

    >>> observed(np.arange(4), np.zeros(4, int), np.array([True, False, False, True])).round(3).tolist()
    [1.0, 1.0, 0.667, 0.5]
    """
    shares = np.ones(len(tick))
    for here in range(int(segment.max(initial=-1)) + 1):
        rows = np.flatnonzero(segment == here)
        if len(rows):
            place = np.arange(len(rows))
            first = np.maximum.accumulate(np.where(np.diff(tick[rows], prepend=-1) != 0, place, 0))
            before: Ints = np.asarray(np.cumsum(known[rows]) - known[rows])
            shares[rows] = (before[first] + 1.0) / (first + 1.0)
    return np.maximum(shares, floor)


def settled(outcomes: Outcomes, known: Bools, rule: str | float, share: Floats | None = None) -> tuple[Floats, Floats]:
    """Return what each decision counts for as paid (n,), and its weight (n,): the declared rule for outcomes that never came.

    `rule` is an amount, "failure" (the worst that what was done can pay) or "impute": the missing weigh nothing and those like them
    1/Ĝ instead, `share` (n,) by `observed`, which is right if outcomes are missing at random within a segment (Horvitz & Thompson 1952).

    >>> two = np.zeros(2, int)
    >>> rows = Outcomes(two, two, two, np.array([8.0, np.nan]), two, np.ones(2, bool), two, np.array([-5.0, -5.0]))
    >>> known = np.array([True, False])
    >>> settled(rows, known, "failure")[0].tolist(), settled(rows, known, 1.5)[0].tolist()
    ([8.0, -5.0], [8.0, 1.5])
    >>> [part.tolist() for part in settled(rows, known, "impute", np.array([0.5, 0.5]))]
    [[8.0, 0.0], [2.0, 0.0]]
    """
    if rule == "impute":
        assert share is not None, "imputing needs the share that was observed"
        weight = np.where(outcomes.revealed, 1.0 / share, 1.0)
        return np.where(known, outcomes.paid, 0.0), np.where(known, weight, 0.0)
    instead = outcomes.worst if rule == "failure" else np.full(len(known), float(rule))
    return np.where(known, outcomes.paid, instead), np.ones(len(known))
