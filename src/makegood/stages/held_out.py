"""What was decided on rows that the model had not seen, and what turned out: fold by fold, then pooled.

An outer fold gives a `HeldOut` of its test rows, by the policy that was fitted without them; `HeldOut.pool` lays folds end to end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from makegood.contracts import Bools, Choices, Columns, Floats, Ints, Predictive, Probabilities
from makegood.economics import policy as policies
from makegood.economics.limits import kept, on_rows
from makegood.economics.payoff import Payoffs
from makegood.economics.policy import Policy
from makegood.economics.sets import Sets
from makegood.stages import predictives

_POSSIBLE = 65  # numbers that an outcome might have been


@dataclass(frozen=True)
class Rows:
    """Held-out rows: their columns, what turned out, and what is done with them today.

    `columns` are those that payoffs, limits and slices are made of. `outcome` is as `policy.realised` takes it. `today` is an
    option's name, or the option (n,) of each row. `clusters` (n,) names the units of resampling.
    """

    columns: Columns
    outcome: NDArray[Any]
    today: str | Ints | None = None
    clusters: Ints | None = None


@dataclass(frozen=True)
class HeldOut:
    """What was decided on n rows that the model had not seen, and what turned out.

    `scores` (n, n_options) is what the policy maximised: expected payoffs less the prices of limits; None where it is averse.
    `realised` (n, n_options) is what each option paid. `baselines` tells how often each baseline takes each option (n, n_options).
    `ceiling` (n,) is paid to who knows the outcome, under the same limits. `reported` is what users see of the predictive, where that
    is another one (conformal intervals). `sets` (n, n_classes) tells the classes in each row's prediction set, where there are sets,
    and `rating` (n,) the rank that each row is given, where ranks are on scales of their own.
    The rest is as in `Rows`.
    """

    predictive: Predictive
    columns: Columns
    outcome: NDArray[Any]
    choices: Choices
    scores: Floats | None
    realised: Floats
    baselines: Mapping[str, Floats]
    ceiling: Floats
    reported: Predictive | None = None
    clusters: Ints | None = None
    sets: Bools | None = None
    rating: Ints | None = None

    def __len__(self) -> int:
        return len(self.choices)

    @cached_property
    def payoff(self) -> Floats:
        """What the chosen options paid (n,)."""
        return np.asarray(self.realised[np.arange(len(self)), self.choices.option])

    def room(self, payoffs: Payoffs) -> float:
        """Return the most by which a decision could have paid more than it promised, had anything come true.

        Any class may; of numbers, those between the least and the greatest that came.
        """
        known, rows = self.outcome, np.arange(len(self))
        if isinstance(self.predictive, Probabilities):
            possible: list[Any] = [*range(len(self.predictive.classes))]
        else:
            possible = [*np.linspace(np.min(known), np.max(known), _POSSIBLE)]
        best = np.full(len(self), -np.inf)
        for outcome in possible:
            paid = policies.realised(payoffs, self.predictive, np.full_like(known, outcome), self.columns)
            best = np.maximum(best, paid[rows, self.choices.option])
        return float(np.max(best - self.choices.promise))

    @classmethod
    def pool(cls, parts: Sequence[HeldOut]) -> HeldOut:
        """Return the held-out rows of several outer folds as one."""
        first = parts[0]
        if len(parts) == 1:
            return first
        choices = [part.choices for part in parts]
        return cls(
            predictive=predictives.concatenate([part.predictive for part in parts]),
            columns={name: np.concatenate([part.columns[name] for part in parts]) for name in first.columns},
            outcome=np.concatenate([part.outcome for part in parts]),
            choices=Choices(
                np.concatenate([c.option for c in choices]),
                np.concatenate([c.expected for c in choices]),
                np.concatenate([c.promise for c in choices]),
                np.concatenate([c.propensity for c in choices]),
                _end_to_end([c.guaranteed for c in choices]),
            ),
            scores=_end_to_end([part.scores for part in parts]),
            realised=np.concatenate([part.realised for part in parts]),
            baselines={name: np.concatenate([part.baselines[name] for part in parts]) for name in first.baselines},
            ceiling=np.concatenate([part.ceiling for part in parts]),
            reported=predictives.concatenate([part.reported for part in parts if part.reported]) if first.reported else None,
            clusters=_end_to_end([part.clusters for part in parts]),
            sets=_end_to_end([part.sets for part in parts]),
            rating=_end_to_end([part.rating for part in parts]),
        )


def _end_to_end(parts: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    """Return the parts as one array; None where there are none."""
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if known else None


def hold_out(
    policy: Policy,
    predictive: Predictive,
    rows: Rows,
    reference: Floats,
    reported: Predictive | None = None,
    sets: Sets | None = None,
) -> HeldOut:
    """Return what the policy does with rows that neither it, the model behind `predictive` nor the `sets` were fitted on.

    `reference` (n_options,) is each option's mean payoff on the rows that the policy was fitted on: what baselines may know. Rows
    are decided one by one, as served; where the prices let more through than a limit allows on these rows, they are decided
    together, so that no value comes from breaking a limit that the baselines keep to.
    """
    payoffs, columns, n = policy.payoffs, rows.columns, len(predictive)
    expected = policies.expected(payoffs, predictive, columns)
    realised = policies.realised(payoffs, predictive, rows.outcome, columns)
    held, least = None, None
    if sets is not None and isinstance(predictive, Probabilities):
        held = sets.apply(predictive.p)
        least = policies.guaranteed(payoffs, predictive, columns, held)
    choices = policy.decide(expected, columns, least)
    if not kept(choices.option, on_rows(policy.limits, payoffs, columns, expected)):
        choices = policy.decide_all(expected, columns, least)
    knowing = replace(policy, averse=False)  # who knows the outcome has nothing to be averse to
    return HeldOut(
        predictive=predictive,
        columns=columns,
        outcome=rows.outcome,
        choices=choices,
        scores=None if policy.averse else policy.net(expected, columns),
        realised=realised,
        baselines=policies.baseline_weights(policy, n, columns, reference, rows.today),
        ceiling=realised[np.arange(n), knowing.decide_all(realised, columns).option],
        reported=reported,
        clusters=rows.clusters,
        sets=held,
    )
