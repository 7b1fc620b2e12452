"""What a policy would have earned on decisions that another one took, from the chances that were logged (MATHEMATICS §3).

Three kinds of knowledge have one form, the chance with which a row's payoff of an option becomes known: 1 where it is known whatever
comes (to decline pays nothing), e(a|x)·G(x,a) where the action itself must have been done and its outcome recorded, and the chance of
any action that reveals the outcome where the outcome is the same under all. So there is one estimator, and one refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from makegood.contracts import Bools, Floats, Fold, Ints
from makegood.economics import resample, value
from makegood.errors import DataError, Problem
from makegood.monitoring import bounds
from makegood.monitoring.review import Ratio, Worth

LEAST, LEAST_OBSERVED = 0.01, 0.05
"""e_min, the least chance of an action that counts as a trial of it, and the least share of outcomes recorded (MATHEMATICS §3)."""

FEWEST_EFFECTIVE, LARGEST_WEIGHT, FARTHEST = 100.0, 0.05, 4.0
"""When a value is refused: effective sample size, share of one weight in all, and standard errors of the mean weight from what it
should be."""

LIMIT = 0.01
"""The probability with which the sample-ratio test may ever call true chances wrong."""

_BLOCKS, _PRIOR = 5, 10.0  # blocks of time of the folds; rows that the given expectation is worth when it is recalibrated


@dataclass(frozen=True)
class Decisions:
    """Decisions that are due: all that are older than `outcome_delay`, whether or not an outcome came.

    `at` (n,) microseconds, `unit` (n,) whom they are about, as whole numbers, `done` (n,) the option done, `chance` (n, n_options) the
    logged e(a|x). Raises `DataError` where a row's chances are no distribution. To take the rows whose outcome is there already, in place
    of those that are due, favours whatever shows early: no estimate below mends that.
    """

    at: Ints
    unit: Ints
    done: Ints
    chance: Floats

    def __post_init__(self) -> None:
        n, n_options = self.chance.shape
        assert len(self.at) == len(self.unit) == len(self.done) == n, "as many of each"
        assert not n or (self.done.min() >= 0 and self.done.max() < n_options), "options that there are"
        wrong = ~((np.abs(self.chance.sum(axis=1) - 1.0) <= 1e-6) & (self.chance >= 0.0).all(axis=1))
        if wrong.any():
            row = int(np.argmax(wrong))
            got = ", ".join(f"{e:.4g}" for e in self.chance[row])
            mend = "leave these decisions out, or correct what logs them"
            raise DataError(Problem(f"propensities of decision {row}", got, "chances that add up to 1", mend))

    @cached_property
    def codes(self) -> Ints:
        """The units (n,) as numbers from 0 on, without a gap."""
        start = int(self.unit.min(initial=0))
        count = int(self.unit.max(initial=0)) - start + 1
        if count > 4 * len(self.unit):
            return np.asarray(np.unique(self.unit, return_inverse=True)[1])
        there = np.zeros(count, dtype=np.int64)  # a table in place of sorting: three times as fast
        there[self.unit - start] = 1
        return np.asarray((np.cumsum(there) - 1)[self.unit - start])


@dataclass(frozen=True)
class Seen:
    """Of each row and option: what it paid, or would have paid, NaN where that is not known, and the chance that it became known; both
    (n, n_options). A chance of 0 says that the row tells nothing of the option: too rarely tried, or too rarely recorded.
    """

    paid: Floats
    chance: Floats


# ---------------------------------------------------------------------------------------------------------------- what is seen


def observed(decisions: Decisions, recorded: Bools, segment: Ints | None = None) -> Floats:
    """Return Ĝ (n, n_options), the share of decisions whose outcome was recorded, by option and `segment` (n,); 0 where none was made.

    That the outcomes which are missing are like those that came, within an option and a segment, is an assumption (missing at random).

    >>> decisions = Decisions(np.arange(4), np.arange(4), np.array([0, 0, 0, 1]), np.full((4, 2), 0.5))
    >>> observed(decisions, np.array([True, True, False, False]))[0].round(3).tolist()
    [0.667, 0.0]
    """
    n_options = decisions.chance.shape[1]
    here = np.zeros(len(decisions.done), dtype=np.int64) if segment is None else segment
    count = int(here.max(initial=0)) + 1
    cell = here * n_options + decisions.done
    made = np.bincount(cell, minlength=count * n_options)
    found = np.bincount(cell, recorded, minlength=count * n_options)
    shares = np.divide(found, made, out=np.zeros(len(made)), where=made > 0)
    return np.asarray(shares.reshape(count, n_options)[here])


def by_action(decisions: Decisions, paid: Floats, observed: Floats, known: Floats | None = None, least: float = LEAST) -> Seen:
    """Return what is seen where an outcome tells of the action alone that was done (`affected_by_action: yes`).

    `paid` (n,) is what it paid, NaN where no outcome was recorded; `observed` (n, n_options) is Ĝ; `known` (n, n_options) holds what an
    option pays whatever comes, NaN where that depends. A chance e below `least`, or Ĝ below 0.05, is no trial.

    >>> decisions = Decisions(np.arange(2), np.arange(2), np.array([0, 1]), np.array([[0.8, 0.2], [0.8, 0.2]]))
    >>> seen = by_action(decisions, np.array([5.0, 7.0]), np.full((2, 2), 0.5))
    >>> seen.paid.tolist(), seen.chance.tolist()
    ([[5.0, nan], [nan, 7.0]], [[0.4, 0.1], [0.4, 0.1]])
    """
    table = np.full(decisions.chance.shape, np.nan)
    table[np.arange(len(table)), decisions.done] = paid
    tried = (decisions.chance >= least) & (observed >= LEAST_OBSERVED)
    return _with(known, table, np.where(tried, decisions.chance * observed, 0.0))


def by_outcome(
    decisions: Decisions, paid: Floats, observed: Floats, reveals: Bools, known: Floats | None = None, least: float = LEAST
) -> Seen:
    """Return what is seen where the outcome is the same whatever is done (`affected_by_action: no`), and some actions reveal it.

    `paid` (n, n_options) is what each option pays under the row's outcome, NaN on rows without one; `reveals` (n_options,) says after
    which the outcome comes to be known. The others as in `by_action`: here all that reveals together must have been tried.

    >>> decisions = Decisions(np.arange(2), np.arange(2), np.array([0, 1]), np.array([[0.8, 0.2], [0.8, 0.2]]))
    >>> paid = np.array([[5.0, 7.0], [np.nan, np.nan]])
    >>> by_outcome(decisions, paid, np.ones((2, 2)), np.array([True, False])).chance.tolist()
    [[0.8, 0.8], [0.8, 0.8]]
    """
    tried = (decisions.chance * reveals).sum(axis=1)
    chance = (decisions.chance * reveals * observed).sum(axis=1)
    chance = np.where((tried >= least) & (chance >= LEAST_OBSERVED * tried), chance, 0.0)
    table = np.where(reveals[decisions.done][:, None], paid, np.nan)
    return _with(known, table, np.repeat(chance[:, None], table.shape[1], axis=1))


def _with(known: Floats | None, paid: Floats, chance: Floats) -> Seen:
    """Return what is seen, with what is known whatever comes."""
    if known is None:
        return Seen(paid, chance)
    sure = ~np.isnan(known)
    return Seen(np.where(sure, known, paid), np.where(sure, 1.0, chance))


# ------------------------------------------------------------------------------------------------------------- cross-fitting


@dataclass(frozen=True)
class _Cells:
    """Into which cell each row (n,) falls, and from which cells (n_cells, n_cells) of rows the model for each may be learnt."""

    cell: Ints
    earlier: Bools


def _cells(decisions: Decisions) -> _Cells:
    """Return cells of a block of time and, where units come back, of one half of the units: earlier blocks of the other half teach."""
    n, codes = len(decisions.at), decisions.codes
    starts = np.array([n * i // _BLOCKS for i in range(1, _BLOCKS)] if n else [], dtype=np.int64)
    block = np.searchsorted(np.partition(decisions.at, starts)[starts], decisions.at, side="right")
    again = n > 0 and int(codes.max()) + 1 < n
    half = codes % 2 if again else np.zeros(n, dtype=np.int64)
    times, halves = np.divmod(np.arange(2 * _BLOCKS), 2)
    return _Cells(2 * block + half, (times < times[:, None]) & ((halves != halves[:, None]) | (not again)))


def folds(decisions: Decisions) -> tuple[Fold, ...]:
    """Return folds whose tests hold every row once, and whose train rows are of earlier times and of other units alone.

    There are five blocks of time, each in two halves by unit where units come back. Before the first block there is nothing to learn
    from: its train rows are none.

    >>> decisions = Decisions(np.arange(5), np.arange(5), np.zeros(5, int), np.ones((5, 1)))
    >>> [(fold.train.tolist(), fold.test.tolist()) for fold in folds(decisions)][:3]
    [([], [0]), ([0], [1]), ([0, 1], [2])]
    """
    cells = _cells(decisions)
    tests = np.unique(cells.cell)
    return tuple(Fold(np.flatnonzero(cells.earlier[cell][cells.cell]), np.flatnonzero(cells.cell == cell)) for cell in tests)


def cross_fitted(decisions: Decisions, fit: Callable[[Ints, Ints], Floats]) -> Floats:
    """Return q̂ (n, n_options) made by `fit(train, test)`, which learns from rows `train` and returns (len(test), n_options).

    `train` may be empty: then what was known before any of these decisions is to be returned.

    >>> decisions = Decisions(np.arange(5), np.arange(5), np.zeros(5, int), np.ones((5, 1)))
    >>> cross_fitted(decisions, lambda train, test: np.full((len(test), 1), len(train))).ravel().tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    q = np.empty(decisions.chance.shape)
    for fold in folds(decisions):
        q[fold.test] = fit(fold.train, fold.test)
    return q


def stretched(n: Floats, sm: Floats, sd: Floats, smm: Floats, smd: Floats) -> tuple[Floats, Floats]:
    """Return shift and slope of regressions of d = r − m on m, of their sums Σ1, Σm, Σd, Σm², Σmd, as if ten more rows had agreed with m.

    >>> sums = (np.array([total]) for total in (1000.0, 2000.0, 3000.0, 5000.0, 7000.0))  # m is 1 or 3, and r is 2m + 1
    >>> [part.round(1).tolist() for part in stretched(*sums)]
    [[1.0], [1.0]]
    """
    centre = sm / np.maximum(n, 1.0)
    within = np.maximum(smm - n * centre**2, 0.0)  # Σ(m − centre)²
    scale = within * (1.0 + _PRIOR / np.maximum(n, 1.0))
    slope = np.divide(smd - centre * sd, scale, out=np.zeros(len(n)), where=within > 1e-9 * np.maximum(smm, 1e-300))
    return sd / (n + _PRIOR) - slope * centre, slope


def recalibrated(decisions: Decisions, seen: Seen, expected: Floats) -> Floats:
    """Return q̂ (n, n_options): the payoffs that a bundle `expected`, option by option moved and stretched to what earlier rows paid.

    On each fold of `folds`, r − m is regressed on m over the train rows whose payoff is known, as if ten more rows had agreed with m,
    so that a few rows move nothing far and none leave m as it is. The bundle must not have learnt from these rows. Nothing is trained.

    >>> n = 1000
    >>> decisions = Decisions(np.arange(n), np.arange(n), np.zeros(n, int), np.ones((n, 1)))
    >>> m = np.tile([[1.0], [3.0]], (n // 2, 1))
    >>> recalibrated(decisions, by_action(decisions, 2 * m[:, 0] + 1, np.ones((n, 1))), m)[-2:].ravel().round(1).tolist()
    [3.0, 7.0]
    """
    cells, q = _cells(decisions), np.array(expected, dtype=np.float64)
    for a in range(q.shape[1]):
        rows = np.flatnonzero(~np.isnan(seen.paid[:, a]) & (seen.chance[:, a] > 0.0))
        m, cell = q[rows, a], cells.cell[rows]
        d = seen.paid[rows, a] - m
        sums = [np.bincount(cell, part, len(cells.earlier)) for part in (None, m, d, m * m, m * d)]
        n, sm, sd, smm, smd = (np.asarray(cells.earlier @ part, dtype=np.float64) for part in sums)
        shift, slope = stretched(n, sm, sd, smm, smd)
        q[:, a] += shift[cells.cell] + slope[cells.cell] * q[:, a]
    return q


# ------------------------------------------------------------------------------------------------------------------- value


def doubly_robust(seen: Seen, policy: Floats | Ints, q: Floats) -> tuple[Floats, Floats, Floats]:
    """Return φ (n,), whose mean is the policy's value, its weights w (n,) and the unsupported share of each row (n,).

    φ = Σ_a π(a|x)·[q̂(x,a) + R_a/ρ_a·(r_a − q̂(x,a))], R_a that the payoff of a is known and ρ_a its chance (Dudík, Erhan, Langford & Li
    2014, with inverse weights of observation); w = Σ_a π(a|x)·R_a/ρ_a. What is unsupported (ρ_a = 0) is in neither. Consistent
    if q̂, or ρ, is right. `policy` as in `bounds.along`, `q` (n, n_options) by `cross_fitted` or `recalibrated`.

    >>> seen = Seen(np.array([[4.0, np.nan], [np.nan, 1.0]]), np.array([[0.5, 0.5], [0.5, 0.5]]))
    >>> [part.tolist() for part in doubly_robust(seen, np.array([0, 0]), np.full((2, 2), 3.0))]
    [[5.0, 3.0], [2.0, 0.0], [0.0, 0.0]]
    """
    share, paid, chance, expected = bounds.along(policy, seen.paid, seen.chance, q)
    supported, known = chance > 0.0, ~np.isnan(paid)
    used = share * supported
    inverse = np.divide(used, chance, out=np.zeros(chance.shape), where=known & (used > 0.0))
    expected = np.where(used > 0.0, expected, 0.0)
    phi = used * expected + inverse * (np.where(known, paid, 0.0) - expected)
    assert np.isfinite(phi).all(), "payoffs are checked where they are computed"
    return phi.sum(axis=1), inverse.sum(axis=1), share.sum(axis=1) - used.sum(axis=1)


def worth(model: str, decisions: Decisions, seen: Seen, policy: Floats | Ints, q: Floats, between: bounds.Ends, unit: str = "") -> Worth:
    """Return what `policy` would have earned a decision, with an interval by unit; or why that cannot be said, and its bounds.

    The interval is `value.estimate`'s: Student's t below forty units. There is none, and no value, where the effective sample size is
    below 100, one weight is more than 5% of all, the mean weight is more than 4 standard errors from what true chances give, or there
    are fewer than six units: then the `bounds` assume nothing (MATHEMATICS §4). Where it is unsupported on some rows the value is not
    identified: the `bounds` are doubly robust on the others. `between` are the `bounds.ends` of the payoffs.

    >>> n = 400
    >>> decisions = Decisions(np.arange(n), np.arange(n), np.arange(n) % 2, np.full((n, 2), 0.5))
    >>> seen = by_action(decisions, 1.0 + 2.0 * (np.arange(n) % 2), np.ones((n, 2)))
    >>> q, between = np.tile([1.0, 3.0], (n, 1)), (np.zeros((n, 2)), np.full((n, 2), 9.0))
    >>> print(worth("new", decisions, seen, np.ones(n, int), q, between, "EUR").value)
    3 [3, 3] EUR
    """
    n = len(decisions.at)
    if not n:
        nothing = value.estimate(np.empty(0), unit)
        return Worth(model, None, "No decision is due yet: the first estimate needs 100.", 0.0, 0.0, nothing)
    phi, weight, unsupported = doubly_robust(seen, policy, q)
    effective, share = resample.effective(weight) if weight.any() else 0.0, float(unsupported.mean())
    rows = None if int(decisions.codes.max()) + 1 == n else decisions.codes
    refused = _refusal(decisions, weight, 1.0 - unsupported, effective)
    if refused:
        least, most = bounds.payoffs(policy, seen.paid, between)
        return Worth(model, None, refused, effective, share, bounds.identified(least, most, unit, clusters=rows))
    if share > 0.0:
        unseen = np.where(seen.chance > 0.0, 0.0, seen.paid)
        least, most = bounds.payoffs(policy, unseen, between)
        why = f"On {share:.1%} of the decisions it would have done what was never tried, or hardly ever: no number of rows mends that, "
        why += "only exploration does. The bounds take the least and the most that those decisions can pay."
        return Worth(model, None, why, effective, share, bounds.identified(phi + least, phi + most, unit, clusters=rows))
    found = value.estimate(phi, unit, clusters=rows)
    return Worth(model, found, "", effective, share, found)


def _refusal(decisions: Decisions, weight: Floats, due: Floats, effective: float) -> str:
    """Return why there is no value, "" where there is one; `due` (n,) is what each weight is expected to be."""
    if effective == 0.0:
        return "Nothing that it would have done was tried and seen. At the present rate no waiting helps: only exploration does."
    largest, n_units = float(weight.max() / weight.sum()), int(decisions.codes.max()) + 1
    if effective < FEWEST_EFFECTIVE or largest > LARGEST_WEIGHT or n_units < value.FEWEST:
        longer = max(FEWEST_EFFECTIVE / effective, largest / LARGEST_WEIGHT, value.FEWEST / n_units)
        wait = _lasting((longer - 1.0) * float(decisions.at.max() - decisions.at.min()) / 1e6)
        if n_units < value.FEWEST:
            why = f"The decisions are about {n_units} units, and an interval needs {value.FEWEST}"
        elif effective < FEWEST_EFFECTIVE:
            why = f"What was tried is worth {effective:.3g} decisions of its own, and an estimate needs {FEWEST_EFFECTIVE:.0f}"
        else:
            why = f"One decision carries {largest:.1%} of the weight, and none may carry more than {LARGEST_WEIGHT:.0%}"
        return f"{why}: {wait} more at the present rate."
    mean = float((weight - due).mean())
    totals = np.bincount(decisions.codes, weight - due - mean)
    error = float(np.sqrt(totals @ totals * n_units / (n_units - 1))) / len(weight)
    if abs(mean) > max(FARTHEST * error, 1e-6):
        return (
            f"The mean weight is {mean:+.3g} from what the logged chances promise, which is {abs(mean) / error:.1f} standard errors: "
            "what was done was not done by these chances, or outcomes were recorded otherwise than assumed. No waiting mends that."
        )
    return ""


def _lasting(seconds: float) -> str:
    """Return a length of time in words, in the largest unit of which there are two; under two minutes is not told apart."""
    for size, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2.0 * size:
            return f"about {seconds / size:,.0f} {name}"
    return "two minutes at most"


# ------------------------------------------------------------------------------------------------------------- sample ratio

_LOOKS, _BINS = 64, 1024
_TILTS = np.array([sign * 2.0**-j for j in range(8) for sign in (1.0, -1.0)])


def ratio(decisions: Decisions, options: Sequence[str], limit: float = LIMIT) -> Ratio:
    """Return whether options were done as often as the chances that were logged say; valid at every look, for ever.

    `options` (n_options,) are their names. For an option of chance e and any θ, exp(θY)/(1 − e + e·exp(θ)) has mean 1 if Y ~ e, so that
    products of it over draws are a test martingale. So is q(A)/e(A), A the option done, for any chances q: all alike, ∝ √e and ∝ e² find
    chances that are right on the whole and not row by row. And so is their mean, over options and θ = ±1, ±½, …, ±2⁻⁷: 1/max of it, over 64
    moments, is a p-value however often it is looked at (Ville 1939; Ramdas, Grünwald, Vovk & Shafer 2023).

    Of each unit only the first decision counts that chance decided: a unit that keeps what it drew adds nothing when it comes back. For
    speed, e enters in 1,024 bins by the tangent of the (concave) log of the divisor, which lies above it: the test is never too eager. A
    decision that had no chance is proof by itself.

    >>> done = np.arange(1000) % 2
    >>> fair, skew = (Decisions(np.arange(1000), np.arange(1000), done, np.tile(e, (1000, 1))) for e in ([0.5, 0.5], [0.4, 0.6]))
    >>> ratio(fair, "ab").ok, ratio(skew, "ab").ok
    (True, False)
    """
    n, n_options = decisions.chance.shape
    taken = decisions.chance[np.arange(n), decisions.done]
    if impossible := int((taken <= 0.0).sum()):
        return Ratio(0.0, limit, False, f"{impossible:,} decisions of {n:,} did what was logged to have no chance.")
    drawn = np.flatnonzero(taken < 1.0)
    drawn = drawn[decisions.chance[drawn].max(axis=1) < 1.0]  # as is known before it is drawn
    if not len(drawn):
        return Ratio(1.0, limit, True, "Nothing was left to chance.")
    drawn = drawn[np.argsort(decisions.at[drawn], kind="stable")]
    drawn = drawn[_first(decisions.unit[drawn])]
    chance, done = decisions.chance[drawn], decisions.done[drawn]
    look = np.arange(len(drawn)) * _LOOKS // len(drawn)
    evidence, found = [], []
    for a in range(n_options):
        e, y = chance[:, a], done == a
        if e.max() > 0.0:
            evidence.append(_martingale(e, y, look))
            off = float(y.mean() - e.mean())
            found.append((abs(off) / max(float(np.sqrt((e * (1.0 - e)).sum())) / len(e), 1e-12), a, float(y.mean()), float(e.mean())))
    evidence.append(_sharpened(chance, done, look))
    log = np.concatenate(evidence)
    peak = float(log.max())
    mixed = peak + np.log(np.maximum(np.exp(log - peak).mean(axis=0), np.finfo(np.float64).tiny))
    p = float(min(1.0, np.exp(-mixed.max())))
    _, a, share, expected = max(found)
    detail = f"Of {len(drawn):,} units that chance decided, {share:.2%} got {options[a]!r}, of which {expected:.2%} was logged."
    return Ratio(p, limit, p >= limit, detail)


def _first(unit: Ints) -> Ints:
    """Return the positions at which each unit comes first, in order."""
    return np.sort(np.unique(unit, return_index=True)[1])


def _sharpened(chance: Floats, done: Ints, look: Ints) -> Floats:
    """Return the log of the test martingales (3, n_looks) against chances that were logged too sharp, or not sharp enough."""
    log = []
    for power in (0.0, 0.5, 2.0):
        other = np.where(chance > 0.0, chance**power, 0.0)
        rows = np.arange(len(done))
        likelier = other[rows, done] / other.sum(axis=1) / chance[rows, done]
        log.append(np.cumsum(np.bincount(look, np.log(likelier), _LOOKS)))
    return np.array(log)


def _martingale(e: Floats, y: Bools, look: Ints) -> Floats:
    """Return the log of the test martingales (n_tilts, n_looks) of one option with chances `e` (n,), done where `y` (n,)."""
    cell = np.minimum((e * _BINS).astype(np.int64), _BINS - 1) * _LOOKS + look
    count, total = (np.bincount(cell, part, _BINS * _LOOKS).reshape(_BINS, _LOOKS) for part in (None, e))
    used = np.flatnonzero(count.any(axis=1))
    count, total, centre = count[used], total[used], (used[:, None] + 0.5) / _BINS
    hits = np.cumsum(np.bincount(look, y, _LOOKS))
    log = []
    for tilt in _TILTS:
        grown = np.expm1(tilt)
        slope = grown / (1.0 + centre * grown)
        divisor = count * np.log1p(centre * grown) + slope * (total - count * centre)
        log.append(tilt * hits - np.cumsum(divisor.sum(axis=0)))
    return np.array(log)
