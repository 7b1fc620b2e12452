"""Champion against challenger: whether another model pays more, from the decisions in which both had their say (MATHEMATICS §7).

Two designs. *Paired*: the outcome tells what either's action would have paid, so that the challenger decides in shadow and z is the
payoff of its action less that of the champion's. *Disagreement*: only where the two differ is it drawn, by unit, whose action is done,
and z is what it paid over the chance of it, positive for the challenger. Where they agree z is 0 in both.

One tick is a unit, its decisions averaged: the first one in the test and those within `span_us` of it. It enters when all of them are
due, with what was known by then, in the order of decisions. So neither early losses nor late corrections nor more looks help anyone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from makegood.contracts import Bools, Estimate, Floats, Ints
from makegood.economics import resample
from makegood.errors import CaseError, DataError, Problem
from makegood.monitoring import asymptotic, betting, maturity, planning
from makegood.monitoring.maturity import Outcomes
from makegood.monitoring.planning import Begun, Design
from makegood.monitoring.review import Challenge, Guardrail

_NEAR = 1e-9  # by which rounding may pass a bound or a chance


@dataclass(frozen=True)
class Terms:
    """What is declared of a test before its first decision; no part of it may depend on what it then sees.

    `cap` is (lowest, highest) payoff of a decision: without it the test is asymptotic. `least` is the least chance with which either
    model acts where the two differ. `since` is when the challenger's hash was registered, or its canary began: earlier decisions do not
    count. `delay_us`, `span_us`, `block_us` and `missing` are as of the promise test (`promise.Terms`): a later decision about a unit
    counts no more, since it is no fresh draw. `floor` is the least share of outcomes by whose inverse imputing may weight.
    """

    alpha: float = 0.05
    min_gain: float = 0.0
    cap: tuple[float, float] | None = None
    least: float = 0.5
    since: int = -(2**63)
    delay_us: int = 0
    span_us: int = 0
    block_us: int = 0
    missing: str | float = "impute"
    floor: float = maturity.LEAST_OBSERVED
    power: float = 0.8
    unit: str = ""

    def __post_init__(self) -> None:
        for name, most in (("alpha", 0.5), ("least", 0.5), ("floor", 1.0)):
            got = getattr(self, name)
            if not 0.0 < got <= most:
                raise CaseError(
                    Problem(f"promote.{name}", f"{got}", f"a number above 0 and at most {most:g}", "declare it before the test")
                )
        if self.cap is not None and not -np.inf < self.cap[0] < self.cap[1] < np.inf:
            raise CaseError(Problem("promote.cap", f"{list(self.cap)}", "the lowest and the highest payoff of a decision", "declare both"))
        if self.cap is not None and self.min_gain < 0.0:
            raise CaseError(Problem("promote.min_gain", f"{self.min_gain}", "0 or more", "write 0"))

    def bound(self, design: str) -> float:
        """Return b: after weighting a tick's z lies within ±b. Highest − lowest if paired, else max(highest, −lowest) over the least
        chance; infinite without caps. Where outcomes are imputed, it is z·`Ticks.scale` that does.

        >>> Terms(cap=(-50.0, 10.0), least=0.1).bound("disagreement"), Terms().bound("paired")
        (500.0, inf)
        """
        if self.cap is None:
            return np.inf
        low, high = self.cap
        return high - low if design == "paired" else max(high, -low) / self.least


@dataclass(frozen=True, eq=False)
class Trial:
    """Decisions in which both models had their say, all (n,), by `paired` or `weighted`.

    `outcomes.paid` is what enters z, `factor` by what it is multiplied (0 where the two agree), `chance` that with which was done what
    was done (1 if paired). `unrevealed` marks disagreements of which nobody can learn what the challenger's action would have paid.
    """

    design: str
    outcomes: Outcomes
    differs: Bools
    factor: Floats
    chance: Floats
    unrevealed: Bools

    def __len__(self) -> int:
        return len(self.differs)

    def take(self, rows: Ints) -> Trial:
        """Return the given decisions, in the given order.

        >>> n = np.arange(3)
        >>> rows = Outcomes(n, n, n, n, n, np.ones(3, bool), n * 0, n)
        >>> paired(rows, np.ones(3, bool)).take(np.array([2])).outcomes.paid.tolist()
        [2.0]
        """
        o = self.outcomes.take(rows)
        return Trial(self.design, o, self.differs[rows], self.factor[rows], self.chance[rows], self.unrevealed[rows])

    def mirrored(self) -> Trial:
        """Return the trial of the champion against the challenger: z with the other sign.

        >>> n = np.arange(3)
        >>> rows = Outcomes(n, n, n, n, n, np.ones(3, bool), n * 0, n)
        >>> paired(rows, np.ones(3, bool)).mirrored().factor.tolist()
        [-1.0, -1.0, -1.0]
        """
        worst = np.where(self.unrevealed, -np.inf, self.outcomes.worst)  # nobody said how much better the challenger might be there
        return replace(self, factor=-self.factor, outcomes=replace(self.outcomes, worst=worst))


def paired(outcomes: Outcomes, differs: Bools) -> Trial:
    """Return a trial in shadow: `outcomes.paid` is the payoff of the challenger's action − that of the champion's, NaN where not known.

    `outcomes.worst` is the least that this difference can be, for the rule "failure"; and where the two differ and what was done reveals
    nothing (`outcomes.revealed` false, `paid` NaN), it is what the decision counts for, and the caps' best for the upper end: nothing is
    extrapolated in silence. Where the two agree nothing is read but the time and the unit, and `promised` nowhere.

    >>> n = np.arange(3)
    >>> rows = Outcomes(n, n, n, np.array([7.0, np.nan, 5.0]), n, n != 1, n * 0, np.array([-9.0, -9.0, -9.0]))
    >>> trial = paired(rows, np.array([True, True, False]))
    >>> ticks(trial, Terms(), now=9).z.tolist()
    [7.0, -9.0, 0.0]
    """
    unrevealed = differs & ~outcomes.testable
    paid = np.where(differs & ~unrevealed, outcomes.paid, 0.0)
    return _trial("paired", replace(outcomes, paid=paid), differs, np.ones(len(differs)), unrevealed)


def weighted(outcomes: Outcomes, differs: Bools, by_challenger: Bools, chance: Floats, unseen: Bools | None = None) -> Trial:
    """Return a trial in which the disagreements were drawn: z = ±r/e.

    `outcomes` say what the decisions paid, of whatever was done: an override counts for the model that was overridden. `by_challenger`
    (n,) is which decisions were the challenger's, `chance` (n,) that with which was decided what was decided, by either. `unseen` (n,)
    marks disagreements that teach nothing, such as those in which nothing was left to chance: as in `paired` they count for
    `outcomes.worst`, there the least by which the challenger's action can pay more. Raises `DataError` where what was done in any other
    disagreement never tells what it paid.

    >>> n = np.arange(3)
    >>> rows = Outcomes(n, n, n, np.array([7.0, 2.0, 5.0]), n, np.ones(3, bool), n * 0, n * 0.0)
    >>> trial = weighted(rows, np.array([True, True, False]), np.array([True, False, False]), np.array([0.2, 0.8, 1.0]))
    >>> ticks(trial, Terms(least=0.2), now=9).z.tolist()
    [35.0, -2.5, 0.0]
    """
    hidden = np.zeros(len(differs), dtype=np.bool_) if unseen is None else differs & unseen
    never = differs & ~hidden & ~outcomes.testable
    if never.any():
        row, expected = int(np.argmax(never)), "an action whose payoff is sure or is revealed"
        raise DataError(Problem(f"payoff of decision {row}", "never known", expected, "declare what the action reveals, or leave it out"))
    drawn = differs & ~hidden
    done = np.where(drawn, chance, 1.0)
    paid = np.where(drawn, outcomes.paid, 0.0)
    sign = np.where(by_challenger, 1.0, -1.0)
    factor = np.divide(sign, done, out=np.zeros(len(done)), where=drawn & (done > 0.0))
    return replace(_trial("disagreement", replace(outcomes, paid=paid), differs, factor, hidden), chance=done)


def _trial(design: str, outcomes: Outcomes, differs: Bools, factor: Floats, unrevealed: Bools) -> Trial:
    """Return the trial; where the two agree nothing is in doubt, and no outcome is waited for."""
    outcomes = replace(outcomes, revealed=outcomes.revealed & differs & ~unrevealed)
    return Trial(design, outcomes, differs, factor, np.ones(len(differs)), unrevealed)


# ------------------------------------------------------------------------------------------------------------------------------ ticks


@dataclass(frozen=True)
class Ticks:
    """What enters the test, in decision order, (n,): when each `began` and `enters`, and z, where what is not revealed is at its worst; in
    `most` it is at its best. Of all rows in them: how many `differ` and are `unrevealed`, and the least `chance`.

    `scale` (n,) is the least share of outcomes that had come, of any segment, by the ticks before: no outcome weighs more than 1/scale.
    """

    began: Ints
    enters: Ints
    z: Floats
    most: Floats
    scale: Floats
    differ: int
    unrevealed: int
    chance: float

    def __len__(self) -> int:
        return len(self.z)


def ticks(trial: Trial, terms: Terms, now: int) -> Ticks:
    """Return the ticks that have entered by `now`: each z a unit's mean, or that of the units of a block of time.

    Give all decisions since the test began: which is a unit's first cannot be told otherwise. The same ticks come whenever it is asked,
    and more of them later.
    """
    rows = maturity.due(trial.outcomes.at, now, terms.delay_us)
    rows = rows[trial.outcomes.at[rows] >= terms.since]
    tick, start = _units(trial.outcomes.at[rows], trial.outcomes.unit[rows], terms.span_us)
    group, begin, last = np.arange(len(start)), start, start + terms.span_us + terms.delay_us
    enters = last
    if terms.block_us:
        block, group = np.unique(start // terms.block_us, return_inverse=True)
        begin = block * terms.block_us
        last = begin + terms.block_us + terms.span_us + terms.delay_us
    keep = last <= now
    size = np.bincount(tick[tick >= 0], minlength=len(start))
    # where the two agree z is 0: from here on only the others
    differ = np.flatnonzero((tick >= 0) & trial.differs[rows])
    trial, tick = trial.take(rows[differ]), tick[differ]
    if (tick[1:] < tick[:-1]).any():
        order = np.argsort(tick, kind="stable")
        trial, tick = trial.take(order), tick[order]
    known = trial.outcomes.known(enters[tick])
    scale = _scale(trial, terms, known, group[tick], len(begin))[keep]

    def averaged(z: Floats) -> Floats:
        of_unit = np.bincount(tick, z, len(start)) / size
        if terms.block_us:
            of_unit = np.bincount(group, of_unit, len(begin)) / np.bincount(group, minlength=len(begin))
        return np.asarray(of_unit[keep])

    # the worst that is thinkable of a row may lie beyond the caps, which say that it cannot come to that
    z, widest, entered = _z(trial, terms, known, group[tick]), terms.bound(trial.design), keep[group[tick]]
    least = averaged(np.where(trial.unrevealed, np.clip(trial.outcomes.worst, -widest, widest), z))
    unrevealed, chance = int(trial.unrevealed[entered].sum()), float(trial.chance[entered].min(initial=1.0))
    most = averaged(np.where(trial.unrevealed, widest, z)) if unrevealed else least
    return Ticks(begin[keep], last[keep], least, most, scale, int(entered.sum()), unrevealed, chance)


def _units(at: Ints, unit: Ints, span_us: int) -> tuple[Ints, Ints]:
    """Return the tick (n,) of each row, −1 where it counts no more, and when each tick began, in order; `at` (n,) does not fall."""
    low, high = (int(unit.min()), int(unit.max())) if len(unit) else (0, 0)
    code, count = (unit - low, high - low + 1) if high - low < 4 * len(unit) else (np.unique(unit, return_inverse=True)[1], len(unit))
    place = np.arange(len(unit))
    first = np.zeros(count, dtype=np.int64)
    first[code[::-1]] = place[::-1]  # of each unit's places the last that is written stays: its first
    lead = first[code]
    began = lead == place
    rank = np.cumsum(began) - 1
    return np.where(at - at[lead] < max(span_us, 1), rank[lead], -1), at[began]


def _z(trial: Trial, terms: Terms, known: Bools, group: Ints) -> Floats:
    """Return z (n,) of rows in the order of their ticks, by the declared rule for outcomes that never came."""
    o, rule, share = trial.outcomes, terms.missing, None
    if rule == "impute":
        own = np.where(o.revealed, o.segment, int(o.segment.max(initial=0)) + 1)
        share = maturity.observed(group, own, known, terms.floor)
    if trial.design == "paired" and not isinstance(rule, str):
        rule = 0.0  # what a decision without an outcome counts for it does whatever was done
    paid, weight = maturity.settled(o, known, rule, share)
    return trial.factor * weight * paid


def _scale(trial: Trial, terms: Terms, known: Bools, group: Ints, count: int) -> Floats:
    """Return for each of `count` ticks the least share, of any segment, by which the outcomes of a row in it may be divided.

    It may not be the row's own share: dividing each row by its own bound would test another null.
    """
    least = np.ones(count)
    if terms.missing != "impute":
        return least
    for segment in range(int(trial.outcomes.segment.max(initial=-1)) + 1):
        rows = trial.outcomes.revealed & (trial.outcomes.segment == segment)
        made, came = (np.bincount(group[which], minlength=count) for which in (rows, rows & known))
        least = np.minimum(least, (np.cumsum(came) - came + 1.0) / (np.cumsum(made) - made + 1.0))
    return np.maximum(least, terms.floor)


# ---------------------------------------------------------------------------------------------------------------------------- the test


def challenge(
    trial: Trial,
    terms: Terms,
    now: int,
    model: str = "",
    *,
    guardrails: Sequence[Guardrail] = (),
    hoped: float | None = None,
    left: float = 0.0,
) -> Challenge:
    """Return what the test of a challenger says at `now`: promote, wait, drop or failed, and why.

    `hoped` is the gain for which the plan is made, that found so far unless given; `left` how many decisions follow on which a better model
    would earn, for what waiting is worth. It is promoted only if every guardrail has held, and dropped if one is broken. The interval of
    the gain is at 1 − 2α, α at each end: its lower end passes the least gain when the evidence reaches 1/α. Evidence is that of now and not
    the most that there ever was: what was better once may be no more.

    >>> n = np.arange(400)
    >>> rows = Outcomes(n, n, n, 0.5 + 0.5 * (-1.0) ** n, n, np.ones(400, bool), n * 0, n * 0.0)
    >>> found = challenge(paired(rows, np.ones(400, bool)), Terms(cap=(0.0, 1.0), missing=0.0), now=400)
    >>> found.decision, found.units, round(found.gain.low, 2)
    ('promote', 400, 0.42)
    """
    tested = _test(trial, terms, now)
    result = replace(_result(tested, terms, trial.design, hoped, left), model=model, guardrails=tuple(guardrails))
    decision, why = _decided(tested, result, terms)
    return replace(result, decision=decision, why=why)


def rollback(trial: Trial, terms: Terms, now: int, model: str = "") -> Challenge:
    """Return the mirrored test after a promotion: whether the old champion, `model`, pays more than the new one, by −z and its own bound.

    The `trial` is as before the promotion, z what the new one pays more: now the old one acts with the small chance. `terms` are those of
    the guard period: `since` its beginning, `least` the share held back. `decision` is rollback, wait, keep (it pays less) or failed, and
    the gain, at least 0, what the old one pays more.

    >>> n = np.arange(400)
    >>> rows = Outcomes(n, n, n, n * 0.0 + 1.0, n, np.ones(400, bool), n * 0, n * 0.0)
    >>> trial = weighted(rows, np.ones(400, bool), n % 5 > 0, np.where(n % 5 > 0, 0.9, 0.1))
    >>> rollback(trial, Terms(cap=(0.0, 1.0), least=0.1, missing=0.0), now=400).decision
    'rollback'
    """
    terms = replace(terms, min_gain=0.0)
    tested = _test(trial.mirrored(), terms, now)
    result = replace(_result(tested, terms, trial.design), model=model)
    decision, why = _decided(tested, result, terms, back=True)
    return replace(result, decision=decision, why=why)


@dataclass(frozen=True)
class _Tested:
    """The ticks of a test, z until an assumption failed, which one did in words, and how long the first tick is still to be waited for."""

    ticks: Ticks
    z: Floats
    wrong: str
    design: Design
    first_us: int | None


def _test(trial: Trial, terms: Terms, now: int) -> _Tested:
    found, bound = ticks(trial, terms, now), terms.bound(trial.design)
    beyond = np.flatnonzero(~np.isfinite(found.z) | (found.z * found.scale < -bound * (1.0 + _NEAR)))
    z = found.z[: beyond[0]] if len(beyond) else found.z
    wrong = ""
    if found.chance < terms.least - _NEAR:
        wrong = (
            f"A disagreement was decided with a chance of {found.chance:.3g}, and none below {terms.least:.3g} was declared: the bound "
            "does not hold, and the test says nothing. Start it anew with the least chance that is used."
        )
    elif len(beyond) and np.isfinite(found.z[beyond[0]]):
        wrong = (
            f"After {len(z):,} units one brought {found.z[beyond[0]]:,.4g}, and with the declared caps none can bring less than "
            f"{-bound / found.scale[beyond[0]]:,.4g}: the test has ended and says nothing. Start it anew with caps that no payoff passes."
        )
    elif len(beyond):
        wrong = (
            "What is lost in some decisions is neither known nor bounded, so that nothing can be said of the gain. Declare "
            "feedback.promote.cap, or let the challenger act in a share of the disagreements."
        )
    began = trial.outcomes.at >= terms.since
    theirs = trial.factor[trial.differs & began] > 0.0
    share = float(theirs.mean()) if trial.design == "disagreement" and len(theirs) else 0.0
    days = float(found.began[-1] - found.began[0]) / 86400e6 if len(found) else 0.0
    pace = (len(found) - 1) / days if days > 0.0 else np.inf
    now_bound = bound / float(found.scale[len(z) - 1]) if len(z) else bound
    design = Design(float(np.std(z)) if len(z) else 0.0, now_bound, terms.alpha, terms.min_gain, terms.power, pace, share)
    first_us = None
    if began.any():
        start = int(trial.outcomes.at[began].min())
        start = (start // terms.block_us + 1) * terms.block_us if terms.block_us else start
        first_us = start + terms.span_us + terms.delay_us - now
    return _Tested(found, z, wrong, design, first_us)


def _result(tested: _Tested, terms: Terms, design: str, hoped: float | None = None, left: float = 0.0) -> Challenge:
    """Return all figures of the test; what follows from them is left open."""
    z, bound, n = tested.z, terms.bound(design), len(tested.z)
    path = asymptotic.sequence(z, terms.alpha)
    if tested.ticks.unrevealed:
        path = replace(path, high=np.full(len(path), np.inf))
    gain = _interval(z, path, terms, resample.skewed(z - z.mean()) if n else False)
    other, evidence = Estimate(gain.value, np.nan, np.nan, terms.unit, gain.level), asymptotic.evidence(z, terms.min_gain, terms.alpha)
    wealth = np.zeros(len(betting.BETS))
    if np.isfinite(bound):
        scale = tested.ticks.scale[:n]
        path, other = betting.sequence(z, bound, terms.alpha, above=bound, scale=scale), gain
        if tested.ticks.unrevealed:
            path = replace(path, high=betting.sequence(tested.ticks.most[:n], bound, terms.alpha, above=bound, scale=scale).high)
        gain = _interval(z, path, terms)
        least_gain = terms.min_gain * float(scale.mean()) if n else terms.min_gain
        wealth = betting.log_wealth(z * scale, bound, np.array([n]))[0]
        evidence = betting.evidence(wealth, n, least_gain, bound)
        wealth = wealth - n * np.log1p(betting.BETS * least_gain / bound)
    plan = None
    if n > 1 and not tested.wrong and evidence < 1.0 / terms.alpha:
        begun = Begun(n, wealth, float(np.sum(z)) - n * terms.min_gain)
        plan = planning.plan(gain.value if hoped is None else hoped, tested.design, begun)
        error = tested.design.spread / float(np.sqrt(n))
        plan = replace(plan, worth=planning.waiting(gain.value, error, tested.design, plan.units, left))
    points = zip(path.units.tolist(), path.low.tolist(), path.value.tolist(), path.high.tolist(), strict=True)
    return Challenge(
        model="",
        design=design,
        test="betting" if np.isfinite(bound) else "asymptotic",
        units=n,
        disagreements=tested.ticks.differ,
        gain=gain,
        beside=other,
        evidence=evidence,
        limit=1.0 / terms.alpha,
        min_gain=terms.min_gain,
        decision="",
        why="",
        path=tuple(point for point in points if np.isfinite(point).all()),
        plan=plan,
    )


def _interval(z: Floats, path: betting.Sequence, terms: Terms, tail_limited: bool = False) -> Estimate:
    """Return the last interval of a sequence; NaN without a unit."""
    level = 1.0 - 2.0 * terms.alpha
    if not len(z):
        return Estimate(np.nan, np.nan, np.nan, terms.unit, level)
    return Estimate(float(np.mean(z)), float(path.low[-1]), float(path.high[-1]), terms.unit, level, tail_limited)


# --------------------------------------------------------------------------------------------------------------------------- in words


def _decided(tested: _Tested, c: Challenge, terms: Terms, back: bool = False) -> tuple[str, str]:
    """Return the decision, and why, in words; `back`: it is the old champion that is tested."""
    yes, no, who = ("rollback", "keep", "The old champion") if back else ("promote", "drop", "The challenger")
    if tested.wrong:
        return "failed", tested.wrong
    if not c.units:
        return "wait", _not_yet(tested.first_us)
    said = _said(tested, c, who)
    broken = [_rail(g) for g in c.guardrails if g.held is False]
    if broken:
        return no, f"{said} But a guardrail is broken: {'; '.join(broken)}."
    if c.evidence >= c.limit:
        undecided = [_rail(g) for g in c.guardrails if g.held is None]
        if undecided:
            return "wait", f"{said} That is enough, but of {'; '.join(undecided)} there is too little to tell: let more units come."
        sure = f"one that pays no more than is asked for ever reaches {c.limit:,.4g} with a probability of {terms.alpha:.3g} at most"
        return yes, f"{said} That is enough: {sure}."
    if c.gain.high < c.min_gain:
        most = f"at most {_money(c.gain.high, c)} more" if c.gain.high > 0.0 else f"at least {_money(-c.gain.high, c)} less"
        return no, f"{said} So it pays {most}, and {_money(c.min_gain, c)} more is asked for."
    return "wait", f"{said} {_how_long(tested, c)}"


def _said(tested: _Tested, c: Challenge, who: str) -> str:
    """Return what was found so far."""
    more = f"pays {_money(abs(c.gain.value), c)} {'more' if c.gain.value >= 0.0 else 'less'} a decision"
    low, high = c.gain.low, c.gain.high
    if not np.isfinite(low):
        ends = "with no interval yet"
    elif high <= 0.0:
        ends = f"between {_money(-high, c)} and {_money(-low, c)} less"
    else:
        below = f"{_money(-low, c)} less" if low < 0.0 else f"{_money(low, c)}"
        ends = f"between {below} and {_money(high, c)} more"
    counted = f"in {tested.ticks.differ:,} of their decisions the two differ"
    hidden = tested.ticks.unrevealed
    lost = f", and {hidden:,} of these reveal nothing and count at their worst" if hidden else ""
    named = "" if c.test == "betting" else " (asymptotic: no caps are declared, so that the error is not exactly as stated)"
    return f"{who} {more}, {ends}{named}. Over {c.units:,} units ({counted}{lost}) the evidence is {c.evidence:,.3g} of {c.limit:,.4g}."


def _how_long(tested: _Tested, c: Challenge) -> str:
    """Return about how long the test still takes, either way."""
    plan, pace = c.plan, tested.design.per_day
    if not c.disagreements:
        return "Until the two differ there is nothing to compare."
    if plan is None:
        return "That is too little to tell: more units must come."
    if np.isfinite(plan.units):
        shown = f"about {plan.units:,.0f} units more show it with a probability of {plan.power:.2g}, which is {planning.lasting(plan.days)}"
        return f"If the gain is {_money(plan.gain, c)}, {shown}."
    if tested.ticks.unrevealed:
        return "What reveals nothing is learnt only where the challenger acts: make it a canary, for a share of the units."
    against = planning.plan(c.min_gain - c.gain.value, replace(tested.design, min_gain=0.0)).units - c.units
    if np.isfinite(against):
        enough = f"about {max(against, 1.0):,.0f} units more would show as much, which is {planning.lasting(max(against, 1.0) / pace)}"
        return f"A gain of {_money(plan.gain, c)} is not above the {_money(c.min_gain, c)} asked for; {enough}."
    return "As far as can be told it pays just what is asked for, so that no number of units would tell."


def _rail(g: Guardrail) -> str:
    return f"{g.name} {g.found} against {g.limit:.4g}"


def _money(amount: float, c: Challenge) -> str:
    return f"{amount:,.4g} {c.gain.unit}".rstrip()


def _not_yet(first_us: int | None) -> str:
    if first_us is None:
        return "No decision has been made since the test began, so nothing can be said."
    return f"No unit is due yet, so nothing can be said: the first is in {planning.lasting(first_us / 86400e6)}."
