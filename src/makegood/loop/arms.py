"""The same decisions lived through otherwise: never retraining, retraining by the calendar, and knowing what will change.

Arms are compared row by row on what was done paid, whether or not anybody was told, so that what they share cancels; what a training
costs is taken off. Intervals are over blocks of time: what happens to all decisions of a week is no evidence of its own for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa

from makegood.contracts import Columns, Estimate, Floats, Ints
from makegood.economics import value
from makegood.errors import DataError, Refused
from makegood.loop.controller import Act, Terms
from makegood.loop.inside import Inside, draws
from makegood.loop.replay import Played, edges
from makegood.loop.retraining import learnt
from makegood.loop.tape import Tape
from makegood.model import Model
from makegood.report.looped import ARM, Looping

EVERY_US = 91 * 86_400_000_000
"""Between two trainings of the scheduled arm: a quarter of a year."""

POINTS = 24
"""At so many times is told how the gain grew."""


@dataclass(frozen=True)
class Lived:
    """What an arm came to: what each decision `paid` (n,), and what was `spent` on trainings, as (time, money)."""

    paid: Floats
    spent: tuple[tuple[int, float], ...] = ()

    @property
    def net(self) -> float:
        """What it earned altogether, after what was spent."""
        return float(self.paid.sum()) - sum(money for _, money in self.spent)


def paying(tape: Tape, model: Model, part: slice = slice(None)) -> Floats:
    """Return what each option pays on rows of a tape, (n, n_options), as the world turned out."""
    return model.realised(tape.take(part), tape.outcome[part].tolist())


def chosen(tape: Tape, model: Model, part: slice = slice(None)) -> Floats:
    """Return what a model's decisions on rows of a tape paid (n,)."""
    option = model.decide_columns(tape.take(part), reasons=0).choices.option
    return np.asarray(paying(tape, model, part)[np.arange(len(option)), option])


def never(tape: Tape, first: Model) -> Lived:
    """Return the arm of the first model for good."""
    return Lived(chosen(tape, first))


def scheduled(tape: Tape, first: Model, every_us: int = EVERY_US) -> Lived:
    """Return the arm that trains anew after every such time, on all rows that are known, and lets the new model decide at once.

    A training that fails is paid for, and changes nothing.
    """
    house, spent, begin = Inside(tape, first, plain=True), list[tuple[int, float]](), 0
    cost = Terms.of(tape.case).cost
    for now in edges(tape, every_us):
        end = int(np.searchsorted(tape.at, now))
        house.decide(slice(begin, end))
        house.tell(now)
        begin = end
        if end < len(tape):
            spent.append((now, cost))
            try:
                made = house.retrain(now, None)
            except (DataError, Refused):
                continue
            house.act(Act("promote", made.name, "by the calendar"), now)
            house.act(Act("release", first.id, "a schedule looks not back"), now)
    return Lived(house.paid.copy(), tuple(spent))


def oracle(tape: Tape, first: Model) -> Lived | None:
    """Return the arm that knows what will change; None where nobody can tell what that would be.

    Where the truth is known it does what pays most by the true chances. Else, where it is known when the world changes, it has from that
    moment on a model of the changed world: of the half of its rows, by unit, that a row is not in. Limits do not bind it.
    """
    if tape.truth is not None:
        priced = _priced(first, tape)
        place = [tape.classes.index(name) for name in first.policy.payoffs.classes]
        expected = (first.policy.payoffs.table(priced) * tape.truth[:, None, place]).sum(axis=2)
        return Lived(np.asarray(paying(tape, first)[np.arange(len(tape)), expected.argmax(axis=1)]))
    if not tape.changed_at:
        return None
    paid = chosen(tape, first)
    cuts = [int(np.searchsorted(tape.at, at)) for at in tape.changed_at] + [len(tape)]
    for begin, end in pairwise(cuts):
        half = draws(tape.units[begin:end], salt=1) < 0.5
        for side in (half, ~half):
            try:
                model = learnt(tape.case, _told(tape, begin + np.flatnonzero(~side)))
            except DataError:  # too few rows of the changed world to make a model of
                continue
            paid[begin:end][side] = chosen(tape, model, slice(begin, end))[side]
    return Lived(paid)


def _told(tape: Tape, rows: Ints) -> pa.Table:
    """Return rows of a tape with their outcomes, as the history has them."""
    table = tape.rows.take(pa.array(rows))
    outcome = pa.array(tape.outcome[rows].tolist()).cast(tape.history.schema.field(tape.case.data.outcome).type)
    return table.append_column(tape.case.data.outcome, outcome)


def _priced(model: Model, tape: Tape) -> Columns:
    columns, _ = model.pricing.read({name: tape.raw[name] for name in model.needed})
    return model.pricing.named(columns, model.policy.names) or {"": np.zeros(len(tape))}


# -------------------------------------------------------------------------------------------------------------- comparison


def total(paid: Floats, spent: float, blocks: Ints, unit: str) -> Estimate:
    """Return the money of decisions (n,) altogether, after what was spent, with an interval over blocks (n,).

    >>> print(total(np.tile([1.0, 3.0], 100), 50.0, np.arange(200) // 2, "EUR"))
    350 [350, 350] EUR
    """
    mean, n = value.estimate(paid, unit, clusters=blocks), len(paid)
    return replace(mean, value=n * mean.value - spent, low=n * mean.low - spent, high=n * mean.high - spent)


def gain(mine: Lived, other: Lived, at: Ints, unit: str, until: int | None = None) -> Estimate:
    """Return what one arm earned more than another, up to a time, on the rows that both had; after what each spent."""
    rows = slice(None) if until is None else slice(0, int(np.searchsorted(at, until)))
    end = int(at[-1]) if until is None else until
    spent = sum(money for when, money in mine.spent if when <= end) - sum(money for when, money in other.spent if when <= end)
    return total(mine.paid[rows] - other.paid[rows], spent, value.time_blocks(at[rows]), unit)


def looping(tape: Tape, mine: Lived, others: Mapping[str, Lived], played: Played) -> Looping:
    """Return what the page of a loop wants: the money of each arm, what was gained over each, and how that grew."""
    unit, at = tape.case.decision.unit, tape.at
    blocks = value.time_blocks(at)
    arms = {ARM: mine, **others}
    times = [int(at[0] + (at[-1] - at[0]) * i // POINTS) for i in range(1, POINTS)] + [int(at[-1])]
    return Looping(
        case=tape.case.case,
        unit=unit,
        start=tape.start,
        end=int(at[-1]),
        decisions=len(tape),
        money={name: total(arm.paid, sum(money for _, money in arm.spent), blocks, unit) for name, arm in arms.items()},
        gains={name: gain(mine, arm, at, unit) for name, arm in others.items()},
        path={name: tuple((when, gain(mine, arm, at, unit, when + 1)) for when in times) for name, arm in others.items()},
        events=played.events,
        reviews=played.reviews,
        seconds=played.seconds,
        replayed=True,
        injected=tape.injected,
    )
