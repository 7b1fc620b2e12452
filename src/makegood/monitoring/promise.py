"""Whether a deployed model keeps its promise: a test that may be looked at for ever, on money, with a declared rate of false alarms.

The test is a Shiryaev–Roberts e-detector (Shin, Ramdas & Rinaldo 2022): under its null, that given all earlier ticks a tick pays on
average no less than promised less the tolerance, its evidence grows by at most 1 a tick, so that it reaches A within N ticks with a
probability of at most N/A, and after A ticks on average at the earliest (MATHEMATICS §6). Nothing is assumed of the money's
distribution but how much better than its promise a decision can turn out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from scipy.special import ndtri, stdtrit

from makegood.contracts import Bools, Estimate, Floats, Ints
from makegood.economics import resample, value
from makegood.errors import CaseError, Problem, Refused
from makegood.monitoring import maturity
from makegood.monitoring.maturity import Outcomes
from makegood.monitoring.review import Alarm

BETS = 2.0 ** -np.arange(1.0, 13.0)
"""λ_j = 2^−j: from the bet that finds a collapse at once to the one that finds a gap of a few thousandths of the bound."""

_MOST = 1e100  # evidence is held below this, far above any A: products stay finite, and to hold evidence down is valid
_ROUNDS, _BATCH = 256, 2**16  # rounds that are composed side by side, and ticks that are in memory at a time
_POINTS = 240  # of a path
_MANIFOLD = 10.0  # a bound that grew by so much is told of


@dataclass(frozen=True)
class Terms:
    """What is declared of the test of one bundle, before its first tick; no part of it may depend on what it then sees.

    `bound` is B ≥ best payoff − promise + tolerance (`bound`), from which it may only grow (`ticks`), `limit` A (`limit`), `delay_us` how
    long outcomes take. Outcomes that overlap `overlap` ticks (a shared window, a shared queue) go to as many interleaved detectors. The
    decisions about a unit within `span_us` of its first are one tick, and later ones count no more, unless `again`: then each span is a
    tick of its own, and that a unit which lost once loses again counts as a broken promise. `block_us` makes one tick of all units of that
    time, in place of each. `missing` is the rule of `maturity.settled`, `floor` the least Ĝ, by whose inverse the bound must be larger,
    and `missing_share` how many outcomes may fail to come.
    """

    bound: float
    tolerance: float
    limit: float
    delay_us: int = 0
    overlap: int = 1
    span_us: int = 0
    again: bool = False
    block_us: int = 0
    missing: str | float = "impute"
    floor: float = maturity.LEAST_OBSERVED
    missing_share: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("bound", 0.0), ("limit", 1.0)):
            got = getattr(self, name)
            if not (np.isfinite(got) and got > least):
                raise CaseError(Problem(f"promise.{name}", f"{got}", f"a number above {least:g}", "declare it for the bundle"))
        if self.overlap < 1:
            raise CaseError(Problem("promise.overlap", f"{self.overlap}", "at least 1 tick", "write 1 where outcomes do not overlap"))


@dataclass(frozen=True)
class State:
    """All that the test remembers: `evidence` of each interleaved detector and bet, M_j, and what tells the reader about it.

    `through` is the time until which ticks have entered, `total` the sum of z, `since` when the alarm was raised, `failed` the z that lay
    beyond the bound and ended the test. Retraining, a new bundle, or other terms start from `State.new`.
    """

    evidence: tuple[tuple[float, ...], ...]
    ticks: int = 0
    through: int = -(2**63)
    total: float = 0.0
    since: int | None = None
    failed: float | None = None

    @classmethod
    def new(cls, overlap: int = 1) -> Self:
        """Return the state before the first tick.

        >>> State.new().ticks, State.new().value
        (0, 0.0)
        """
        return cls(((0.0,) * len(BETS),) * overlap)

    @property
    def value(self) -> float:
        """M: the mean over bets, summed over interleaved detectors."""
        return float(np.mean(self.evidence, axis=1).sum())

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` reads.

        >>> State.from_json(State.new(2).to_json()) == State.new(2)
        True
        """
        return {
            "evidence": [list(lane) for lane in self.evidence],
            "ticks": self.ticks,
            "through": self.through,
            "total": self.total,
            "since": self.since,
            "failed": self.failed,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Return the state that was kept."""
        return cls(tuple(tuple(lane) for lane in raw["evidence"]), *(raw[k] for k in ("ticks", "through", "total", "since", "failed")))


# ------------------------------------------------------------------------------------------------------------------- what is declared


def limit(ticks: float, probability: float) -> float:
    """Return A for a false alarm with at most `probability` within so many `ticks`: P(alarm within N ticks) ≤ N/A.

    >>> limit(ticks=5000, probability=0.01)
    500000.0
    """
    return max(ticks / probability, 2.0)


def bound(best: Floats, promised: Floats, tolerance: float = 0.0, floor: float = 1.0) -> float:
    """Return B: the most by which a decision can pay more than promised, and the tolerance, with the largest weight of a missing-outcome
    rule. One constant for a bundle: dividing each row by its own would test another null.

    `best` (n,) is the most that what is done on a reference row can pay, `promised` (n,). Raises `CaseError` where it is not finite.

    >>> bound(np.array([10.0, 4.0]), np.array([6.0, 3.0]), tolerance=1.0, floor=0.5)
    10.0
    """
    reach = float(np.max(np.asarray(best, dtype=np.float64) - promised, initial=0.0))
    if not np.isfinite(reach):
        expected = "payoffs with a most, on every row that may come"
        raise CaseError(Problem("decision.actions", "a payoff without a most", expected, "write min(…, cap) around the payoff"))
    return max((reach + tolerance) / floor, 1e-12)


def tolerance(declared: float, gap: Estimate) -> float:
    """Return what a promise may miss by: the declared amount and two standard errors of the held-out gap, by unit.

    A promise is itself an estimate: without the second part the test would sooner or later find the error of the held-out rows. Raises
    `Refused` where the gap has no interval.

    >>> round(tolerance(1.0, Estimate(0.0, -1.96, 1.96, "EUR")), 3)
    3.0
    """
    error = (gap.high - gap.low) / (2.0 * float(ndtri(0.5 + gap.level / 2.0)))
    if not np.isfinite(error):
        expected = f"a held-out gap with an interval, which needs {value.FEWEST} independent units"
        raise Refused(Problem("promise.tolerance", "no interval", expected, "evaluate the bundle on more units"))
    return declared + 2.0 * error


def least_delay(terms: Terms, gap: float) -> float:
    """Return how many ticks a broken promise of this `gap` stays unfound at the least: B·ln A/(gap − tolerance); infinite if within it.

    The largest bet grows by less than exp((gap − tolerance)/B) a tick on average, so ln A of it takes at least as long. It takes longer
    where the money varies much.

    >>> round(least_delay(Terms(bound=10.0, tolerance=1.0, limit=1000.0), gap=3.0), 1)
    34.5
    """
    over = gap - terms.tolerance
    return terms.bound * float(np.log(terms.limit)) / over if over > 0.0 else np.inf


# ------------------------------------------------------------------------------------------------------------------------------ ticks


@dataclass(frozen=True)
class Ticks:
    """What enters the test, in decision order: `at` (n,) when each was decided, `enters` (n,) when it was due, `z` (n,), the share (n,)
    of its outcomes that were `missing` by then, and the `bound` B (n,) that held for it."""

    at: Ints
    enters: Ints
    z: Floats
    missing: Floats
    bound: Floats

    def __len__(self) -> int:
        return len(self.at)

    def after(self, time: int) -> Ticks:
        """Return those that enter later than `time`.

        >>> two = np.arange(2)
        >>> Ticks(two, two, two, two, two).after(0).at.tolist()
        [1]
        """
        rows = self.enters > time
        return Ticks(self.at[rows], self.enters[rows], self.z[rows], self.missing[rows], self.bound[rows])


def ticks(outcomes: Outcomes, terms: Terms, now: int, room: Floats | None = None) -> Ticks:
    """Return the ticks that have entered by `now`: z = promised − realised − tolerance, a unit's decisions averaged.

    Give all decisions of the bundle, from its first on: which is a unit's first cannot be told otherwise. A tick enters when the
    last decision that may belong to it is due, with what was known at that time: outcomes that came early wait, and what came or was
    corrected later changes nothing. So the same ticks come in any number of calls. Decisions that can never be tested are left out.

    `room` (n,) is by how much more than promised what was decided can pay, NaN where unknown, as no outcome tells. A tick that can pay
    more than every one before raises the bound, for itself and all later ones: the null then is that the promise is kept on average
    over the ticks within the bound, and over those that raise it.

    >>> n = np.arange(3)
    >>> rows = Outcomes(n, np.array([7, 7, 8]), np.full(3, 5.0), np.array([4.0, 2.0, 5.0]), n, np.ones(3, bool), n * 0, n * 0.0)
    >>> ticks(rows, Terms(9.0, 1.0, 1000.0, delay_us=10, span_us=2), now=14).z.tolist()
    [1.0, -1.0]
    """
    rows = np.flatnonzero(outcomes.testable & (outcomes.at <= now - terms.delay_us))
    room = np.full(len(outcomes), np.nan) if room is None else room
    if len(rows) < len(outcomes):
        outcomes, room = outcomes.take(rows), room[rows]
    tick, start = _units(outcomes, terms)
    if (tick < 0).any():
        kept = np.flatnonzero(tick >= 0)
        outcomes, room, tick = outcomes.take(kept), room[kept], tick[kept]
    enters = start + terms.span_us + terms.delay_us
    known = outcomes.known(enters[tick])
    group = np.arange(len(start))
    if terms.block_us:
        block, group = np.unique(start // terms.block_us, return_inverse=True)
        begin = block * terms.block_us
        last = begin + terms.block_us + terms.span_us + terms.delay_us
    else:
        begin, last = start, enters
    made = np.bincount(group, minlength=len(begin))  # units of a tick
    z, absent = _averaged(outcomes, terms, known, tick, group)
    z, absent = (np.bincount(group, weights=part, minlength=len(begin)) / made for part in (z, absent))
    keep = last <= now
    reach = np.full(len(begin), terms.bound)
    np.fmax.at(reach, group[tick], (room + terms.tolerance) / terms.floor)
    return Ticks(begin[keep], last[keep], z[keep], absent[keep], np.maximum.accumulate(reach)[keep])


def _averaged(outcomes: Outcomes, terms: Terms, known: Bools, tick: Ints, group: Ints) -> tuple[Floats, Floats]:
    """Return each unit's mean z and share of missing outcomes."""
    share = None
    if terms.missing == "impute":
        here = group[tick]
        if (here[1:] >= here[:-1]).all():
            share = _share(outcomes, terms, known, here)
        else:
            order = np.argsort(here, kind="stable")
            share = np.empty(len(here))
            share[order] = _share(outcomes.take(order), terms, known[order], here[order])
    paid, weight = maturity.settled(outcomes, known, terms.missing, share)
    # the tolerance is weighted too: then Ĝ in error by a factor moves the size of z, and not its sign
    z, absent = weight * (outcomes.promised - paid - terms.tolerance), (~known).astype(np.float64)
    size = np.bincount(tick)
    if len(size) == len(tick):  # one decision each
        alone = np.empty((2, len(tick)))
        alone[0, tick], alone[1, tick] = z, absent
        return alone[0], alone[1]
    return np.bincount(tick, weights=z) / size, np.bincount(tick, weights=absent) / size


def _share(outcomes: Outcomes, terms: Terms, known: Bools, tick: Ints) -> Floats:
    """Return Ĝ of rows in the order of their ticks; where a payoff was never in doubt it teaches nothing of those that are."""
    own = np.where(outcomes.revealed, outcomes.segment, int(outcomes.segment.max(initial=0)) + 1)
    return maturity.observed(tick, own, known, terms.floor)


def _units(outcomes: Outcomes, terms: Terms) -> tuple[Ints, Ints]:
    """Return the tick (n,) that each row belongs to, −1 where it counts no more, and when each tick began, in order."""
    at, code = outcomes.at, _coded(outcomes.unit)
    first = np.full(int(code.max(initial=-1)) + 1, maturity.NEVER)
    np.minimum.at(first, code, at)
    turn = (at - first[code]) // max(terms.span_us, 1)
    if terms.again and (turn > 0).any():
        order = np.lexsort((turn, code))
        begins = np.append(True, (np.diff(code[order]) != 0) | (np.diff(turn[order]) != 0))
        tick = np.empty_like(order)
        tick[order] = np.cumsum(begins) - 1
        lead = order[begins]  # one row of each
        start = first[code[lead]] + turn[lead] * max(terms.span_us, 1)
    else:
        tick, start = np.where(turn > 0, -1, code), first
    order = np.argsort(start, kind="stable") if (start[1:] < start[:-1]).any() else np.arange(len(start))
    rank = np.append(np.empty_like(order), -1)
    rank[order] = np.arange(len(order))
    return rank[tick], start[order]


def _coded(unit: Ints) -> Ints:
    """Return the units as numbers from 0 on without a gap; where none comes twice, in the order of the rows, without a sort."""
    low, high = (int(unit.min()), int(unit.max())) if len(unit) else (0, 0)
    if high - low < 4 * len(unit):
        often = np.bincount(unit - low)
        if int(often.max()) == 1:
            return np.arange(len(unit))
    return np.asarray(np.unique(unit, return_inverse=True)[1])


# --------------------------------------------------------------------------------------------------------------------------- evidence


def advance(terms: Terms, state: State, z: Floats, enters: Ints, bound: Floats | None = None) -> tuple[State, Floats]:
    """Return the state after further ticks, and the evidence M (n,) after each: M_j ← (M_j + 1)(1 + λ_j·z/B), its mean over j.

    `z`, `enters` and `bound` (n,; that of the terms for all, if none is given) in decision order. In any division into calls the result is
    the same, but for rounding. The alarm is raised where M reaches A; a z below −B, a decision that paid more than was said to be
    possible, ends the test: ticks from it on do not count.

    >>> terms = Terms(bound=1.0, tolerance=0.0, limit=100.0)
    >>> state, path = advance(terms, State.new(), np.ones(30), np.arange(30))
    >>> state.since, path[:2].round(3).tolist()
    (14, [1.083, 2.278])
    """
    assert len(state.evidence) == terms.overlap, "a state of the same terms"
    if state.failed is not None or not len(z):
        return state, np.empty(0)
    x = np.asarray(z, dtype=np.float64) / (terms.bound if bound is None else bound)
    beyond = np.flatnonzero(x < -1.0 - 1e-9)
    end = int(beyond[0]) if len(beyond) else len(x)
    failed = float(z[end]) if len(beyond) else None
    path, lanes = _interleaved(np.minimum(x[:end], 1e50), state, terms.limit)
    reached = np.flatnonzero(path >= terms.limit)
    since = int(enters[reached[0]]) if state.since is None and len(reached) else state.since
    through = int(enters[end if len(beyond) else end - 1])
    total = state.total + float(np.sum(z[:end]))
    return State(lanes, state.ticks + end, through, total, since, failed), path


def _interleaved(x: Floats, state: State, limit: float) -> tuple[Floats, tuple[tuple[float, ...], ...]]:
    """Return the sum (n,) of the detectors that take ticks in turn, after each tick, and what each then holds."""
    h, n = len(state.evidence), len(x)
    turn = state.ticks % h  # whose turn it is: lanes are rolled so that it is the first
    lanes = np.roll(np.array(state.evidence), -turn, axis=0).T  # (bets, h)
    before = lanes.mean(axis=0)
    path, done, step = np.empty(n), 0, max(_BATCH // h, 1) * h
    while done < n:
        width = h if n - done >= h else n - done  # the last round may be short
        size = min(step, (n - done) // width * width)
        rounds, lanes[:, :width] = _rounds(x[done : done + size].reshape(-1, width), lanes[:, :width].copy())
        path[done : done + size] = rounds.ravel()
        done += size
    if h > 1:  # the last value of each lane, summed; held at 2A, lest what is large and leaves takes the digits of what stays
        running = np.cumsum(np.concatenate([[0.0], np.minimum(np.concatenate([before, path]), 2.0 * limit)]))
        path = running[h + 1 :] - running[1:-h]
    return path, tuple(tuple(lane) for lane in np.roll(lanes.T, turn, axis=0).tolist())


def _rounds(x: Floats, start: Floats) -> tuple[Floats, Floats]:
    """Return the mean over bets (n_rounds, h) after each round, and the evidence (n_bets, h) after the last.

    A tick is the affine map M ↦ f·M + f, and maps compose: M_t = α_t·M_0 + β_t with α_t = f_t·α_{t−1} and β_t = f_t·(β_{t−1} + 1). So
    chunks of rounds are composed side by side, and only their ends are chained. All terms are positive: nothing cancels.
    """
    rounds, h = x.shape
    length = min(_ROUNDS, rounds)
    chunks, rest = divmod(rounds, length)
    if rest:
        head, middle = _rounds(x[:-rest], start)
        tail, end = _rounds(x[-rest:], middle)
        return np.concatenate([head, tail]), end
    steps = np.ascontiguousarray(x.reshape(chunks, length, h).transpose(1, 0, 2))  # (length, chunks, h)
    alpha, beta = np.empty((2, length, len(BETS), chunks, h))
    a, b = np.ones((len(BETS), chunks, h)), np.zeros((len(BETS), chunks, h))
    for i in range(length):
        f = 1.0 + BETS[:, None, None] * steps[i]
        b = np.minimum(np.multiply(b + 1.0, f, out=beta[i]), _MOST, out=beta[i])
        a = np.minimum(np.multiply(a, f, out=alpha[i]), _MOST, out=alpha[i])
    begin = np.empty((len(BETS), chunks, h))
    for k in range(chunks):
        begin[:, k] = start
        start = np.minimum(a[:, k] * start + b[:, k], _MOST)
    path = np.empty((chunks, length, h))
    for i in range(length):
        path[:, i] = np.minimum(alpha[i] * begin + beta[i], _MOST).mean(axis=0)
    return path.reshape(rounds, h), start


# ------------------------------------------------------------------------------------------------------------------------- the verdict


@dataclass(frozen=True)
class Watch:
    """The two tests of a bundle: of its promise, and of the share of outcomes that never come.

    >>> Watch.from_json(Watch.new(2).to_json()) == Watch.new(2)
    True
    """

    promise: State
    missing: State

    @classmethod
    def new(cls, overlap: int = 1) -> Self:
        """Return both before the first tick."""
        return cls(State.new(overlap), State.new(overlap))

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` reads."""
        return {"promise": self.promise.to_json(), "missing": self.missing.to_json()}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Return the states that were kept."""
        return cls(State.from_json(raw["promise"]), State.from_json(raw["missing"]))


def watch(
    outcomes: Outcomes, terms: Terms, now: int, state: Watch | None = None, unit: str = "", room: Floats | None = None
) -> tuple[Watch, Alarm]:
    """Return the tests after all ticks that are due at `now`, and what they say in words; `state` holds the ticks before these.

    Give all decisions of the bundle, also those that have entered, with their `room` (`ticks`). The path is that of this call's ticks.

    >>> n = np.arange(400)
    >>> rows = Outcomes(n, n, np.full(400, 5.0), np.full(400, 1.0), n, np.ones(400, bool), n * 0, n * 0.0)
    >>> state, alarm = watch(rows, Terms(5.0, 0.5, 1000.0), now=1000, unit="EUR")
    >>> alarm.raised, alarm.why.split(":")[0]
    (True, 'The promise is broken')
    """
    state = Watch.new(terms.overlap) if state is None else state
    found = ticks(outcomes, terms, now, room)
    new = found.after(state.promise.through)
    promise, path = advance(terms, state.promise, new.z, new.enters, new.bound)
    # z ≥ −(the share allowed): that share is the bound, and a hundredth at the least, so that one outcome missing is no alarm
    absent = replace(terms, tolerance=terms.missing_share, bound=max(terms.missing_share, 0.01))
    later = found.after(state.missing.through)
    missing, other = advance(absent, state.missing, later.missing - terms.missing_share, later.enters)
    grown = replace(terms, bound=float(found.bound[-1])) if len(found) else terms
    began, until = (int(found.at[0]), int(found.at[-1])) if len(found) else (0, 0)
    pace = len(found) * 86400e6 / (until - began) if until > began else np.inf  # ticks a day
    money = _said(grown, promise, pace, _of_money(unit, grown.bound)) + _outgrown(terms.bound, grown.bound)
    outcome = _said(absent, missing, pace, _ABSENT)
    second = _alarm(absent, missing, outcome, (new.enters, other))
    return Watch(promise, missing), replace(_alarm(grown, promise, money, (new.enters, path)), missing=second)


def _alarm(terms: Terms, state: State, why: str, path: tuple[Ints, Floats]) -> Alarm:
    """Return what a state says; the path keeps the largest evidence of each stretch, so that no alarm is thinned away."""
    times, evidence = path
    stretch = -(-len(evidence) // _POINTS) if len(evidence) else 1
    starts = range(0, len(evidence), stretch)
    peaks = [i + int(np.argmax(evidence[i : i + stretch])) for i in starts]
    kept = tuple((int(times[i]), float(evidence[i])) for i in peaks)
    gap = state.total / state.ticks + terms.tolerance if state.ticks else np.nan
    delay = least_delay(terms, gap)
    return Alarm(
        state.since is not None, state.value, terms.limit, state.since, state.ticks, terms.tolerance, terms.bound, delay, why, kept
    )


_NOTHING = 1e-12
"""The share of the bound below which a gap is what rounding left."""


@dataclass(frozen=True)
class _Words:
    """How a test is spoken of: what its gap is, what it shows, and what it is held against."""

    gap: Callable[[float], str]
    tolerated: Callable[[float], str] = "{:.3g} are tolerated".format
    broken: str = "The promise is broken"
    kept: str = "a kept promise"
    sign: str = "a broken promise"


def _of_money(unit: str, bound: float) -> _Words:
    """Return the words of a promise in a unit, whose gap is at most `bound`."""
    each = f" {unit}" if unit else ""

    def gap_words(gap: float) -> str:
        if abs(gap) <= _NOTHING * bound:
            return "decisions pay what was promised"
        return f"decisions pay {abs(gap):.3g}{each} {'less' if gap > 0.0 else 'more'} a decision than promised"

    return _Words(gap_words)


_ABSENT = _Words(
    lambda share: f"{max(share, 0.0):.1%} of the outcomes had not come when they were due",
    "{:.0%} may be late".format,
    "Outcomes are missing",
    "a stream that is hardly ever late",
    "missing outcomes",
)


def _said(terms: Terms, state: State, pace: float, words: _Words) -> str:
    """Return the verdict in words, and about how long it takes until there is another; `pace` is in ticks a day."""
    if state.failed is not None and state.since is None:
        return (
            f"The test ended after {state.ticks:,} ticks: a decision turned out {-state.failed:.3g} better than promised and "
            f"tolerated, and the bound said at most {terms.bound:.3g}. Start it anew with a bound that no payoff passes."
        )
    if not state.ticks:
        return "No decision is due yet, so nothing can be said: the first is after " + _lasting(terms.delay_us / 86400e6) + "."
    gap = state.total / state.ticks + terms.tolerance
    m, a = f"{state.value:,.3g}", f"{terms.limit:,.6g}"
    told = f"{words.gap(gap)}; {words.tolerated(terms.tolerance)}"
    if state.since is not None:
        return (
            f"{words.broken}: the evidence reached {a}, which {words.kept} does within N ticks with probability N/{a} at the "
            f"most. Over all {state.ticks:,} ticks, {told}."
        )
    found = f"Over {state.ticks:,} ticks, {told}, and the evidence is {m} of {a}"
    if gap <= terms.tolerance:
        return f"No sign of {words.sign}. {found}."
    more = least_delay(terms, gap)
    return f"Too early to tell. {found}. A gap of this size takes at least {more:,.0f} ticks from its beginning, {_lasting(more / pace)}."


def _outgrown(declared: float, bound: float) -> str:
    """Return a warning where the bound grew manifold: one decision on an absurd amount, and the test sees little from then on."""
    if bound < _MANIFOLD * declared:
        return ""
    return (
        f" One decision could turn out {bound:.3g} better than promised and tolerated, held-out ones {declared:.3g} at the most: look at "
        "its inputs, for what others lose is small beside it, and is found late."
    )


def _lasting(days: float) -> str:
    """Return a length of time in words."""
    for size, name in ((1.0, "days"), (1.0 / 24.0, "hours"), (1.0 / 1440.0, "minutes")):
        if days >= 2.0 * size:
            return f"about {days / size:,.0f} {name}"
    return "two minutes at most"


def turned(alarm: Alarm, until: int | None = None) -> tuple[int | None, int]:
    """Return about when a promise began to break, and how many ticks ago: since the last moment (up to `until`) when nothing spoke for it.

    The evidence of a kept promise is t after t ticks on average, at the most: what is above that speaks for a broken one. (None, all
    ticks) where it did from the beginning, and 0 ticks where it does not.

    >>> turned(Alarm(False, 60.0, 800.0, None, 4, 0.0, 1.0, 9.0, "", ((10, 0.5), (20, 0.9), (30, 7.0), (40, 60.0))))
    (20, 2)
    """
    points = len(alarm.path)
    quiet = [
        i for i, (at, evidence) in enumerate(alarm.path, 1) if not evidence > i * alarm.ticks / points and (until is None or at <= until)
    ]
    if not quiet:
        return None, alarm.ticks if points else 0
    return alarm.path[quiet[-1] - 1][0], alarm.ticks * (points - quiet[-1]) // points


def outlook(waiting: Floats, reference: Floats, unit: str = "", *, clusters: Ints | None = None, level: float = 0.95) -> Estimate:
    """Return by how much the decisions that are not due yet promise more than those of the reference: an indication, not a test.

    `waiting` (n,) and `reference` (m,) are promises, `clusters` (n,) the units of the first. It tells that other rows come, not that the
    model is wrong about them. The interval is Welch's (1947), with standard errors by unit; none with fewer than six units.

    >>> print(outlook(np.arange(100.0) - 10.0, np.arange(100.0), "EUR"))
    -10 [-18.1, -1.91] EUR
    """
    if not len(waiting) or not len(reference):
        return Estimate(np.nan, np.nan, np.nan, unit, level)
    sides = [resample.gather(np.column_stack([x, np.ones(len(x))]), by) for x, by in ((waiting, clusters), (reference, None))]
    difference = float(np.mean(waiting) - np.mean(reference))
    if min(len(side) for side in sides) < value.FEWEST:
        return Estimate(difference, np.nan, np.nan, unit, level)
    a, b = (float(resample.jackknife(side)[1][0, 0]) for side in sides)
    free = [max(resample.effective(side[:, 1]) - 1.0, 1.0) for side in sides]
    spread = a**2 / free[0] + b**2 / free[1]
    degrees = (a + b) ** 2 / spread if spread else free[0]
    reach = float(stdtrit(degrees, 0.5 + level / 2.0)) * float(np.sqrt(a + b))
    return Estimate(difference, difference - reach, difference + reach, unit, level)
