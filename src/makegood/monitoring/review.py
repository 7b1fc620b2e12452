"""What feedback says: the values of which a review is made.

Money is in the case's unit, a decision, unless a name says otherwise; times are microseconds since 1970, UTC. Every verdict has its
reason in words, and every refusal says which evidence is missing and about how long it will take.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from makegood.contracts import Estimate

CAUSES = ("mix", "world", "model", "policy", "terms", "operations")
"""Why the value of decisions may differ between two periods (MATHEMATICS §8)."""


@dataclass(frozen=True)
class Period:
    """What one model's decisions of a stretch of time promised and paid; `start` ≤ at < `end`. `n` were made, `matured` are due."""

    model: str
    start: int
    end: int
    n: int
    matured: int
    promised: Estimate
    realised: Estimate
    gap: Estimate  # promised − realised, paired, by unit


@dataclass(frozen=True)
class Share:
    """How many of the decisions of an `age_s` have their outcome (Kaplan–Meier), with its interval."""

    age_s: float
    known: Estimate


@dataclass(frozen=True)
class Alarm:
    """The promise test of the model that decides (MATHEMATICS §6).

    `evidence` is the detector's M, `limit` the A at which it alarms, `since` the time of the tick that raised it (None: none did).
    `expected_delay` is how many ticks the gap seen so far needs at the least, infinite where there is none. `path` has (time, evidence).
    `missing` is the same test of the share of decisions whose outcome never came.
    """

    raised: bool
    evidence: float
    limit: float
    since: int | None
    ticks: int
    tolerance: float
    bound: float
    expected_delay: float
    why: str
    path: tuple[tuple[int, float], ...] = ()
    missing: Alarm | None = None


@dataclass(frozen=True)
class Plan:
    """How long a test takes if the gain is what it is hoped to be.

    `least` is the number of units, from the first on, without which no evidence can suffice, `units` how many more from now on give `power`
    (infinite at no gain); `days` how long they take at the rate at which units come. `worth` is the expected value of waiting for them, in
    money altogether.
    """

    gain: float
    power: float
    least: float
    units: float
    days: float
    worth: float


@dataclass(frozen=True)
class Guardrail:
    """What a challenger must not worsen: `found` against `limit`; `held` is None while there is too little to tell."""

    name: str  # harm, latency, COLUMN=LEVEL
    found: Estimate
    limit: float
    held: bool | None


@dataclass(frozen=True)
class Challenge:
    """Champion against challenger (MATHEMATICS §7).

    `design` is "paired" (in shadow, on revealed rows) or "disagreement" (randomised where the two differ); `test` "betting" (valid at
    any time, needs caps) or "asymptotic" (not exactly). `evidence` reaches `limit` (1/α) when the challenger is better by `min_gain`.
    `decision` is promote, wait, drop, or failed (an assumption does not hold, such as a payoff beyond its cap); of the old champion that
    is tested against a new one it is rollback, wait, keep or failed. `path` has (units, low, value, high) of the confidence sequence,
    where it has both ends. `beside` is the interval of the other test: without caps there is none, and its ends are NaN. `plan` is None
    where the evidence is enough.
    """

    model: str
    design: str
    test: str
    units: int
    disagreements: int
    gain: Estimate
    beside: Estimate
    evidence: float
    limit: float
    min_gain: float
    decision: str
    why: str
    path: tuple[tuple[int, float, float, float], ...] = ()
    plan: Plan | None = None
    guardrails: tuple[Guardrail, ...] = ()
    explore: Mapping[str, Any] | None = None

    def rests_on(self, champion: str) -> dict[str, float | str]:
        """Return what a change of the champion would rest on, as the ledger keeps it; what is not finite is left out."""
        figures: dict[str, float | str] = {
            "champion": champion,
            "test": self.test,
            "design": self.design,
            "evidence": self.evidence,
            "limit": self.limit,
            "units": self.units,
            "gain": self.gain.value,
            "low": self.gain.low,
            "high": self.gain.high,
            "min_gain": self.min_gain,
        }
        return {name: kept for name, kept in figures.items() if isinstance(kept, str) or math.isfinite(kept)}


@dataclass(frozen=True)
class Moved:
    """A column that is not as it was in the bundle's reference rows.

    `stake` is the change of the mean promise that its move explains: drift is ranked by it, never by a p-value. `distance` (of the two
    distributions, 0 to 1) is what the move itself amounts to.
    """

    column: str  # "" for the prediction itself
    kind: str  # number, category, text, embedding, missing, prediction
    stake: Estimate
    distance: float
    detail: str


@dataclass(frozen=True)
class Attribution:
    """Why the value of `after` differs from that of `before` (MATHEMATICS §8): the causes and what is unexplained add up to `change`."""

    before: tuple[int, int]
    after: tuple[int, int]
    change: Estimate
    causes: Mapping[str, Estimate]
    unexplained: Estimate
    words: str


@dataclass(frozen=True)
class Worth:
    """What a bundle would have earned on the logged decisions (MATHEMATICS §3, §4).

    `value` is doubly robust, None where it is refused; `why` says what is missing then, and for about how long. `effective` is the
    sample size that the weights leave, `unsupported` the share of rows on which it would have done what was never tried; `bounds` is
    the interval of identification that this share makes, with sampling error.
    """

    model: str
    value: Estimate | None
    why: str
    effective: float
    unsupported: float
    bounds: Estimate


@dataclass(frozen=True)
class Ratio:
    """Whether the chances that were logged are those by which was acted (sample-ratio test): `p` below `limit` says no."""

    p: float
    limit: float
    ok: bool
    detail: str


@dataclass(frozen=True)
class Review:
    """All that a review found. `replayed` and `injected` say that the decisions are a replay, and what was done to its data."""

    case: str
    unit: str
    at: int
    model: str  # that decides now
    n: int
    matured: int
    overridden: int
    promised: Estimate
    realised: Estimate
    gap: Estimate
    outlook: Estimate | None  # what the decisions that are not due yet promise, against those of the reference: an indication
    alarm: Alarm
    periods: tuple[Period, ...]
    maturity: tuple[Share, ...]
    challenges: tuple[Challenge, ...]
    drift: tuple[Moved, ...]
    attribution: Attribution | None
    worths: tuple[Worth, ...]
    ratio: Ratio | None
    verdict: str  # keep, wait, alarm, retrain, promote, rollback
    why: str
    next: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    replayed: bool = False
    injected: str = ""
