"""What a model is worth: one `Evaluation` from held-out rows alone.

Outer folds give `HeldOut` rows, pooled, and the money is read off them. Nothing here knows which family predicted: what differs
between predictions is dispatched on their kind, in `economics.scenarios` and in `metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from makegood.contracts import (
    Bools,
    Columns,
    Compute,
    Estimate,
    Evaluation,
    Floats,
    Guarantee,
    Ints,
    PayoffRange,
    Predictive,
    Probabilities,
    Rated,
    Slice,
)
from makegood.economics import policy as policies
from makegood.economics import robust, value
from makegood.economics.payoff import Payoffs
from makegood.stages import metrics
from makegood.stages.held_out import HeldOut
from makegood.trust import fairness

SLICES = 12
"""Slices in all; those of protected columns are there even beyond."""

LEAST = 30
"""Rows that a slice of an unprotected column must have (2% of all rows if that is more)."""

FAR = 10.0
"""Factor on a payoff beyond which it is not worth telling that the verdict would turn."""


@dataclass(frozen=True)
class Record:
    """What an evaluation cannot see in the held-out rows: how the model came about, and how often these rows were opened.

    `unknown` counts the rows that were left out since their outcome is not known. `coverage` is that of the prediction sets, None
    without sets. `rated` tells how well the rows are rated where ranks are on scales of their own.
    """

    n: Mapping[str, int]
    protected: tuple[str, ...] = ()
    drivers: tuple[tuple[str, float], ...] = ()
    candidates: tuple[dict[str, Any], ...] = ()
    calibrator: str = ""
    opened: int = 1
    unknown: int = 0
    seed: int = 0
    compute: Compute | None = None
    rated: tuple[Rated, ...] = ()
    coverage: float | None = None

    @property
    def cost(self) -> float:
        """What computing costs a decision; 0 where it has no price."""
        return self.compute.per_decision if self.compute else 0.0


def evaluate(held: HeldOut, payoffs: Payoffs, record: Record) -> Evaluation:
    """Return what the held-out decisions are worth, in the payoffs' unit, and the verdict on them.

    Intervals are at 95%, those of the gains at the level of the verdict (MATHEMATICS §2): 1 − 0.05/k at the k-th opening. What is
    said of the model's value is net of computing, the same for every decision; promises and what they are compared with are not.
    """
    money = _Money(payoffs.unit, held.clusters, record.seed)
    taken = {name: _taken(weights, held.realised) for name, weights in held.baselines.items()}
    gain = value.gain(held.payoff, taken, payoffs.unit, clusters=held.clusters, opened=record.opened, seed=record.seed, cost=record.cost)
    curve = value.profit_curve(_margin(held, held.baselines[gain.over]), held.payoff, taken[gain.over])
    ranges = robust.payoff_ranges(
        policies.cells(payoffs, held.predictive, held.outcome, held.columns),
        chosen=held.choices.option,
        scores=held.scores,
        realised=held.realised,
        baselines=held.baselines,
        gain=gain,
        clusters=held.clusters,
    )
    positive = positive_class(payoffs, held.columns)
    reported = held.reported or held.predictive
    verdict, why = value.verdict(gain)
    return Evaluation(
        unit=payoffs.unit,
        n=dict(record.n),
        value=money.mean(held.payoff - record.cost),
        baselines={name: money.mean(x) for name, x in taken.items()},
        gains=dict(gain.estimates),
        gain=gain.estimate,
        gain_over=gain.over,
        oracle=money.mean(held.ceiling),
        promised=money.mean(held.choices.promise),
        gap=money.mean(held.choices.promise - held.payoff),
        metrics=_metrics(reported, held, positive, record.rated),
        guarantee=_guarantee(held, record, money),
        ratings=record.rated,
        shares=_shares(_actions(held, payoffs)),
        curve=tuple((share, worth - record.cost) for share, worth in curve),  # to rank the rows, all of them are computed
        decision_curve=_decision_curve(held, positive),
        calibration=metrics.calibration(reported, held.outcome, positive),
        promise_curve=metrics.curve(held.choices.promise, held.payoff),
        payoff_ranges=ranges,
        slices=_slices(held, payoffs, record, money),
        drivers=record.drivers,
        confusion=_confusion(held, payoffs),
        verdict=verdict,
        why=" ".join([why, *_spread(gain, record.compute), *_mends(verdict, gain, ranges, len(held)), *_scope(payoffs, record.unknown)]),
        opened=record.opened,
        level=gain.level,
        candidates=record.candidates,
        calibrator=record.calibrator,
        compute=record.compute,
    )


def positive_class(payoffs: Payoffs, columns: Columns) -> int:
    """Return the class that binary figures are about: where the choice matters most in money, on average; of equals the last.

    It is −1 where the outcome is no class.

    >>> loan = {"approve": {"payoff": {"no": "3", "yes": "-50"}}, "decline": {"payoff": "0"}}
    >>> positive_class(Payoffs.of(loan, "EUR", ("no", "yes")), {})
    1
    """
    if not payoffs.classes:
        return -1
    table = payoffs.table(columns or {"": np.zeros(1)})  # constant payoffs need no column, but a row
    stake = np.ptp(table, axis=1).mean(axis=0)
    return int(np.flatnonzero(stake >= stake.max() * (1.0 - 1e-12))[-1])


def treatment(held: HeldOut, payoffs: Payoffs, cost: float = 0.0) -> fairness.Treatment:
    """Return the held-out decisions as `fairness.compare` takes them, their payoffs net of what computing costs each.

    The selected action is, for two classes, the one that pays positives most; otherwise the one that was declared first.
    """
    codes, names = _actions(held, payoffs)
    hit, selected = None, 0
    if _is_binary(held.predictive):
        positive = positive_class(payoffs, held.columns)
        rows = np.flatnonzero(held.outcome == positive)
        best = int(held.realised[rows].mean(axis=0).argmax()) if len(rows) else 0
        hit, selected = held.outcome == positive, names.index(payoffs.options[best].action)
    return fairness.Treatment(payoffs.unit, names, codes, held.payoff - cost, selected, hit, held.clusters)


# ---------------------------------------------------------------------------------------------------------------- figures


@dataclass(frozen=True)
class _Money:
    """How a mean of money becomes a figure: unit, clusters and seed are the same for all of an evaluation."""

    unit: str
    clusters: Ints | None
    seed: int

    def mean(self, x: Floats, rows: Bools | None = None) -> Estimate:
        """Return the mean over the given rows (all, when None) with its interval."""
        clusters = self.clusters
        if rows is not None:
            x, clusters = x[rows], None if clusters is None else clusters[rows]
        return value.estimate(x, self.unit, clusters=clusters, seed=self.seed)


def _metrics(predictive: Predictive, held: HeldOut, positive: int, rated: tuple[Rated, ...]) -> dict[str, Estimate]:
    found = {}
    in_sets = {} if held.sets is None else metrics.set_terms(held.sets, held.outcome)
    for name, terms in (metrics.terms(predictive, held.outcome, positive) | in_sets).items():
        counted = ~np.isnan(terms)
        clusters = None if held.clusters is None else held.clusters[counted]
        found[name] = value.bounded(terms[counted], bounds=metrics.bounds(name), clusters=clusters)
    if rated:  # scales of their own are not pooled
        found["qwk"] = rated[0].kappa
    return found


def _guarantee(held: HeldOut, record: Record, money: _Money) -> Guarantee | None:
    """Return what was guaranteed of the decisions, and how often they paid less; None without prediction sets."""
    least = held.choices.guaranteed
    if least is None or record.coverage is None:
        return None
    less = (held.payoff < least).astype(np.float64)
    broken = value.bounded(less, bounds=(0.0, 1.0), clusters=held.clusters)
    return Guarantee(record.coverage, held.scores is None, money.mean(least), broken)


def _taken(weights: Floats, realised: Floats) -> Floats:
    """Return the payoff (n,) of a policy that takes each option with these weights."""
    return np.asarray((weights * realised).sum(axis=1))


def _margin(held: HeldOut, weights: Floats) -> Floats:
    """Return by how much the model expects its choice to beat a baseline, (n,)."""
    expected = held.choices.expected
    return np.asarray(expected[np.arange(len(held)), held.choices.option] - _taken(weights, expected))


def _is_binary(predictive: Predictive) -> bool:
    return isinstance(predictive, Probabilities) and len(predictive.classes) == 2


def _decision_curve(held: HeldOut, positive: int) -> tuple[tuple[float, float, float], ...]:
    """Return the decision curve where it means something: two classes, two actions."""
    if not _is_binary(held.predictive) or held.realised.shape[1] != 2:
        return ()
    p, hit = metrics.claims(held.predictive, held.outcome, positive)
    return value.decision_curve(hit > 0, p)


def _actions(held: HeldOut, payoffs: Payoffs) -> tuple[Ints, tuple[str, ...]]:
    """Return the position (n,) of each row's action, and the actions' names; quantities of one action are one."""
    options = policies.options(held.predictive, payoffs)
    names = tuple(dict.fromkeys(option.action for option in options))
    return np.array([names.index(option.action) for option in options])[held.choices.option], names


def _shares(actions: tuple[Ints, tuple[str, ...]], rows: Bools | None = None) -> dict[str, float]:
    codes, names = actions
    counts = np.bincount(codes if rows is None else codes[rows], minlength=len(names))
    return dict(zip(names, (counts / max(counts.sum(), 1)).tolist(), strict=True))


def _confusion(held: HeldOut, payoffs: Payoffs) -> dict[str, dict[str, int]]:
    """Return action → outcome → rows; empty unless the outcome is one of some classes."""
    if not isinstance(held.predictive, Probabilities):
        return {}
    codes, names = _actions(held, payoffs)
    classes = held.predictive.classes
    counts = np.zeros((len(names), len(classes)), dtype=np.int64)
    np.add.at(counts, (codes, held.outcome), 1)
    return {name: dict(zip(classes, row, strict=True)) for name, row in zip(names, counts.tolist(), strict=True)}


# ----------------------------------------------------------------------------------------------------------------- slices


def _slices(held: HeldOut, payoffs: Payoffs, record: Record, money: _Money) -> tuple[Slice, ...]:
    """Return all levels of the protected columns, then the best and the worst level of those others that differ most."""
    actions, gap, net = _actions(held, payoffs), held.choices.promise - held.payoff, held.payoff - record.cost

    def cut(column: str, level: str, rows: Bools) -> Slice:
        protected = column in record.protected
        return Slice(column, level, int(rows.sum()), money.mean(net, rows), money.mean(gap, rows), _shares(actions, rows), protected)

    levels = {column: fairness.levels(held.columns[column]) for column in held.columns}
    found: list[Slice] = []
    for column in (c for c in record.protected if c in levels):
        names, code = levels[column]
        found += [cut(column, name, code == j) for j, name in enumerate(names)]
    spreads = {column: _extremes(code, held.payoff) for column, (_, code) in levels.items() if column not in record.protected}
    widest = sorted((c for c in spreads if spreads[c].spread > 0), key=lambda c: -spreads[c].spread)
    for column in widest[: max(SLICES - len(found), 0) // 2]:
        names, code = levels[column]
        found += [cut(column, names[j], code == j) for j in (spreads[column].best, spreads[column].worst)]
    return tuple(found)


@dataclass(frozen=True)
class _Extremes:
    """The levels of the largest and of the least mean payoff, and how many standard errors lie between (Welch 1947)."""

    best: int
    worst: int
    spread: float


def _extremes(code: Ints, payoff: Floats) -> _Extremes:
    n = np.bincount(code)
    mean = np.bincount(code, weights=payoff) / n
    variance = np.maximum(np.bincount(code, weights=payoff**2) / n - mean**2, 0.0) / n
    large = np.flatnonzero(n >= max(LEAST, 0.02 * len(code)))
    if len(large) < 2:
        return _Extremes(0, 0, 0.0)
    best, worst = int(large[mean[large].argmax()]), int(large[mean[large].argmin()])
    error = float(np.sqrt(variance[best] + variance[worst]))
    return _Extremes(best, worst, float(mean[best] - mean[worst]) / error if error > 0 else 0.0)


# ------------------------------------------------------------------------------------------------------------------ words


def _spread(gain: value.Gain, compute: Compute | None) -> list[str]:
    """Return over how many decisions a training would have to be spread for the gain to be shown, where that would do."""
    left = gain.estimate.low + gain.cost - compute.decision.money if compute else 0.0
    if compute is None or gain.estimate.low > 0 or not left > 0 or not compute.training.money:
        return []
    return [f"It would be shown if one training served {_rounded(compute.training.money / left)} decisions."]


def _mends(verdict: str, gain: value.Gain, ranges: Sequence[PayoffRange], n: int) -> list[str]:
    """Return what would turn a refusal, in sentences; nothing for a model that may be deployed."""
    found = gain.estimate
    if verdict == "deploy":
        return []
    if np.isnan(found.low):
        return ["Rows of more groups, or of a longer time, would allow an interval."]
    mends = []
    if found.value > 0 and found.low < found.value:
        needed = n * ((found.value - found.low) / found.value) ** 2  # an interval shrinks with the root of the rows
        mends.append(f"If the gain is as large as it looks, about {_rounded(needed)} held-out rows would show it; there were {n:,}.")
    turning = [(r, factor) for r in ranges for factor in (r.verdict_low, r.verdict_high) if 1 / FAR < factor < FAR]
    if turning:
        nearest, factor = min(turning, key=lambda t: abs(np.log(t[1])))
        when = f" when the outcome is '{nearest.outcome}'" if nearest.outcome else ""
        mends.append(
            f"With the same choices, the verdict would turn if the payoff of '{nearest.action}'{when} were {factor:.3g} times as declared."
        )
    return [*mends, "Columns that tell more about the outcome may also help."]


def _rounded(n: float) -> str:
    """Return a number of rows to two digits."""
    size = 10 ** max(int(np.floor(np.log10(max(n, 1.0)))) - 1, 0)
    return f"{int(np.ceil(n / size)) * size:,}"


def _scope(payoffs: Payoffs, unknown: int) -> list[str]:
    """Return for whom the figures hold where the outcome is not seen after every action (MATHEMATICS §4)."""
    hidden = [f"'{terms.name}'" for terms in payoffs.actions if not terms.reveals]
    scope = (
        [f"The outcome is not seen after {' or '.join(hidden)}: the figures hold for rows like those whose outcome is known."]
        if hidden
        else []
    )
    return [*scope, f"Rows whose outcome is not known are left out ({unknown:,})."] if unknown else scope
