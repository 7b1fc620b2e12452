"""Predictive + payoffs + limits → action, with its promise (MATHEMATICS §1).

Expected and realised payoffs are the same sum over scenarios of weight × payoff. Sums run elementwise in a fixed order: a row alone
gets the same bits as among others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from makegood.contracts import Bools, Choices, Columns, Floats, Ints, Predictive, Probabilities
from makegood.economics.allocation import allocate, shadow_prices
from makegood.economics.calibrate import PromiseMap
from makegood.economics.expression import kinds_of
from makegood.economics.limits import TOLERANCE, Constraint, Limit, no_room, on_rows, priced
from makegood.economics.payoff import Clause, Payoffs, Terms
from makegood.economics.scenarios import Scenario, happened, options, possible
from makegood.errors import CaseError, Problem, nearest

__all__ = ["Cell", "Limit", "Policy", "baseline_payoffs", "baseline_weights", "cells", "expected", "guaranteed", "options", "realised"]

_BLOCK = 2**16  # payoffs evaluated at once, so that memory stays bounded on any grid of quantities


# ----------------------------------------------------------------------------------------------------------------- payoffs


def expected(payoffs: Payoffs, predictive: Predictive, columns: Columns) -> Floats:
    """Return the expected payoff of each option under a predictive: (n, n_options), summed over a horizon.

    Raises `CaseError` where payoffs and predictive do not fit, and `DataError` where a payoff has no value.

    >>> loan = {"approve": {"payoff": {"no": "10", "yes": "-50"}}, "decline": {"payoff": "0"}}
    >>> from makegood.contracts import Probabilities
    >>> p = Probabilities(("no", "yes"), np.array([[0.9, 0.1], [0.8, 0.2]]))
    >>> expected(Payoffs.of(loan, "EUR", ("no", "yes")), p, {}).tolist()
    [[4.0, 0.0], [-2.0, 0.0]]
    """
    return _summed(payoffs, predictive, columns, lambda action: possible(predictive, action))


def realised(payoffs: Payoffs, predictive: Predictive, outcome: NDArray[Any], columns: Columns) -> Floats:
    """Return what each option would have paid, given what came true: (n, n_options), summed over a horizon.

    `outcome` is, by kind of predictive: class codes (n,); numbers (n,) or (n, horizon); potential outcomes (n, n_actions); for a
    ranking the wanted items of each row; for text the right answers. A code that is no class gives 0.

    >>> loan = {"approve": {"payoff": {"no": "10", "yes": "-50"}}, "decline": {"payoff": "0"}}
    >>> from makegood.contracts import Probabilities
    >>> p = Probabilities(("no", "yes"), np.array([[0.9, 0.1], [0.8, 0.2]]))
    >>> realised(Payoffs.of(loan, "EUR", ("no", "yes")), p, np.array([0, 1]), {}).tolist()
    [[10.0, 0.0], [-50.0, 0.0]]
    """
    return _summed(payoffs, predictive, columns, lambda action: happened(predictive, outcome, action))


def guaranteed(payoffs: Payoffs, predictive: Probabilities, columns: Columns, sets: Bools) -> Floats:
    """Return the least that each option pays over the classes of each row's prediction set: (n, n_options).

    `sets` (n, n_classes) tells which classes those are, one at least. Whenever the outcome is among them, the option pays this or more.
    Raises as `expected` does.

    >>> loan = {"approve": {"payoff": {"no": "10", "yes": "-50"}}, "decline": {"payoff": "0"}}
    >>> p = Probabilities(("no", "yes"), np.array([[0.99, 0.01], [0.8, 0.2]]))
    >>> guaranteed(Payoffs.of(loan, "EUR", ("no", "yes")), p, {}, np.array([[True, False], [True, True]])).tolist()
    [[10.0, 0.0], [-50.0, 0.0]]
    """
    least = np.full((len(predictive), len(payoffs.options)), np.inf)
    for c, name in enumerate(predictive.classes):
        paid = _summed(payoffs, predictive, columns, partial(_certain, name))
        least = np.where(sets[:, c, None], np.minimum(least, paid), least)
    return least


def _certain(name: str, action: str) -> tuple[Scenario, ...]:
    """Return the scenario in which the outcome is a class, under any action."""
    return (Scenario(name, np.ones((1, 1, 1))),)


@dataclass(frozen=True)
class Cell:
    """What one declared payoff adds to the expected and to the realised payoff of each option: (n, n_options) each."""

    action: str
    outcome: str  # "" when one expression holds for every outcome
    expression: str
    expected_part: Floats
    realised_part: Floats


def cells(payoffs: Payoffs, predictive: Predictive, outcome: NDArray[Any], columns: Columns) -> Iterator[Cell]:
    """Yield the contribution of each declared payoff; over all cells they add up to `expected` and `realised`.

    >>> from makegood.contracts import Probabilities
    >>> loan = Payoffs.of({"approve": {"payoff": {"no": "10", "yes": "-50"}}, "decline": {"payoff": "0"}}, "EUR", ("no", "yes"))
    >>> p = Probabilities(("no", "yes"), np.array([[0.75, 0.25]]))
    >>> [(c.action, c.outcome, c.expected_part.tolist(), c.realised_part.tolist()) for c in cells(loan, p, np.array([1]), {})][:2]
    [('approve', 'no', [[7.5, 0.0]], [[0.0, 0.0]]), ('approve', 'yes', [[-12.5, 0.0]], [[-50.0, 0.0]])]
    """
    for _, clause in payoffs.clauses():
        alone = _summed(payoffs, predictive, columns, lambda action: possible(predictive, action), clause)
        came = _summed(payoffs, predictive, columns, lambda action: happened(predictive, outcome, action), clause)
        yield Cell(clause.action, clause.outcome, clause.expression.text, alone, came)


def _summed(
    payoffs: Payoffs, predictive: Predictive, columns: Columns, scenarios: Callable[[str], Iterable[Scenario]], only: Clause | None = None
) -> Floats:
    """Return the sum over scenarios of weight × payoff, (n, n_options): of one clause, or of all."""
    payoffs.check(kinds_of(columns))
    choosable, n = options(predictive, payoffs), len(predictive)
    slices = payoffs.slices if choosable is payoffs.options else {payoffs.actions[0].name: slice(0, len(choosable))}
    out = np.zeros((n, len(choosable)))
    with np.errstate(all="ignore"):  # what has no value is found in the sum
        for terms, clause in payoffs.clauses():
            if only is None or clause is only:
                place = slices[terms.name]
                out[:, place] += _part(terms, clause, payoffs.classes, columns, scenarios, (place.stop - place.start, n)).T
    if not np.isfinite(out).all():
        _explain(payoffs, columns, scenarios, n)
    return out


def _part(
    terms: Terms,
    clause: Clause,
    classes: tuple[str, ...],
    columns: Columns,
    scenarios: Callable[[str], Iterable[Scenario]],
    shape: tuple[int, int],
) -> Floats:
    """Return what one clause adds to the payoff of its action's options: (n_options, n)."""
    total, expression = np.zeros(shape), clause.expression
    used = {name: columns[name] for name in expression.names}
    for scenario in scenarios(terms.name):
        outcome, weight, _ = scenario
        _check_fit(scenario, clause, classes)
        if isinstance(outcome, str) and clause.outcome not in ("", outcome):
            continue
        m = 1 if isinstance(outcome, str) else len(outcome)
        block = max(1, _BLOCK // (len(terms.options) * m))
        for start in range(0, shape[1], block):
            rows = slice(start, start + block)
            here = {name: values[rows] for name, values in used.items()}
            given = {"action": terms.name, "quantity": terms.steps, "outcome": outcome if isinstance(outcome, str) else outcome[:, rows]}
            term = (weight if weight.shape[-1] == 1 else weight[..., rows]) * expression.compute(here, given)
            for j in range(m):
                total[:, rows] += term[:, j]
    return total


def _explain(payoffs: Payoffs, columns: Columns, scenarios: Callable[[str], Iterable[Scenario]], n: int) -> NoReturn:
    """Raise the `DataError` of the first clause that has no value on some row, with that row and the cause."""
    for terms, clause in payoffs.clauses():
        for scenario in scenarios(terms.name):
            for outcome in (scenario.outcome,) if isinstance(scenario.outcome, str) else scenario.outcome[:, None]:
                if clause.outcome in ("", outcome):
                    terms.evaluate(clause, columns, n, outcome)
    raise AssertionError("a predictive holds values that are no numbers")


def _check_fit(scenario: Scenario, clause: Clause, classes: tuple[str, ...]) -> None:
    """Raise `CaseError` where a payoff was not declared for this kind of outcome."""
    where, text = clause.expression.where, clause.expression.text
    if isinstance(scenario.outcome, str):
        if scenario.outcome in classes:
            return
        got = ", ".join(classes) or "one expression of a number"
        raise CaseError(Problem(where, got, f"a payoff for the outcome {scenario.outcome!r}", "declare the payoff by outcome"))
    if classes:
        raise CaseError(Problem(where, ", ".join(classes), "a payoff of a number outcome", "write one expression that uses outcome"))
    if scenario.is_mean and not clause.expression.affine:
        mend = "effects are means: a payoff of them is a + b * outcome"
        raise CaseError(Problem(where, text, "a payoff that is affine in outcome", mend))


# ------------------------------------------------------------------------------------------------------------------ policy


@dataclass(frozen=True)
class Policy:
    """Payoffs, limits and their shadow prices, and the map from expected payoffs to promises.

    An `averse` one takes the option whose guaranteed payoff is highest, and of those that tie the one that is expected to pay most:
    where all that counts is a payoff that holds with probability 1 − α, no policy on the same sets does better (Kiyani, Pappas, Roth &
    Hassani 2025). It knows no limits: guaranteed payoffs of many rows are the same, and no price parts rows that are alike.

    >>> loan = {"approve": {"payoff": {"no": "10", "yes": "-50"}}, "decline": {"payoff": "0"}}
    >>> policy = Policy(Payoffs.of(loan, "EUR", ("no", "yes")))
    >>> choices = policy.decide(np.array([[4.0, 0.0], [-2.0, 0.0]]), {})
    >>> choices.option.tolist(), choices.promise.tolist()
    ([0, 1], [4.0, 0.0])
    """

    payoffs: Payoffs
    limits: tuple[Limit, ...] = ()
    prices: tuple[float, ...] = ()
    promise: PromiseMap = field(default_factory=PromiseMap)
    averse: bool = False

    @classmethod
    def fit(
        cls, payoffs: Payoffs, limits: Mapping[str, Mapping[str, Any]], expected: Floats, columns: Columns, *, averse: bool = False
    ) -> Policy:
        """Return the policy with the shadow prices of validation rows: `expected` (n, n_options) and their columns.

        `limits` are the case's, as plain data. Without any rows a price is 0. Raises `CaseError` where limits are wrong or leave
        rows without any action.
        """
        declared = Limit.declared(limits, payoffs)
        if not len(expected):
            return cls(payoffs, declared, (0.0,) * len(declared), averse=averse)
        prices = shadow_prices(expected, on_rows(declared, payoffs, columns, expected))
        return cls(payoffs, declared, tuple(prices.tolist()), averse=averse)

    def promising(self, promise: PromiseMap) -> Policy:
        """Return the policy with another map to promises; its actions stay the same."""
        return replace(self, promise=promise)

    @property
    def names(self) -> frozenset[str]:
        """The columns that payoffs and costs are made of."""
        return self.payoffs.names.union(*(limit.cost.names for limit in self.limits if limit.cost is not None))

    def check(self, kinds: Mapping[str, str]) -> None:
        """Raise `CaseError` where a payoff or a cost does not fit the columns' kinds."""
        self.payoffs.check(kinds)
        for limit in self.limits:
            limit.check(kinds, self.payoffs)

    def net(self, expected: Floats, columns: Columns, least: Floats | None = None) -> Floats:
        """Return what is maximised, (n, n_options): expected payoffs less what each option uses of the limits, at their shadow prices.

        An averse policy maximises `least`, the `guaranteed` payoffs (n, n_options).
        """
        if self.averse:
            assert least is not None, "who is averse decides by what is guaranteed"
            return least
        return priced(expected, on_rows(self.limits, self.payoffs, columns, expected), self.prices)

    def decide(self, expected: Floats, columns: Columns, least: Floats | None = None) -> Choices:
        """Return the best option of each row at the shadow prices; the first declared where several tie.

        A row's choice depends on that row alone, so that limits hold in expectation. The choices tell what is guaranteed of them
        where `least`, the `guaranteed` payoffs of all options, is given.
        """
        net = self.net(expected, columns, least)
        if self.averse:
            top = net.max(axis=1, keepdims=True)
            net = np.where(net >= top - TOLERANCE * np.maximum(1.0, np.abs(top)), expected, -np.inf)
        return self._choices(net.argmax(axis=1), expected, least)

    def decide_all(self, expected: Floats, columns: Columns, least: Floats | None = None) -> Choices:
        """Return the choices of highest expected value that keep to every limit exactly on these rows; `least` is as in `decide`.

        Raises `CaseError` where none do. An averse policy has no limits and decides row by row.
        """
        if self.averse:
            return self.decide(expected, columns, least)
        found = allocate(expected, on_rows(self.limits, self.payoffs, columns, expected))
        return self._choices(found.option, expected, least)

    def _choices(self, option: Ints, expected: Floats, least: Floats | None) -> Choices:
        rows = np.arange(len(expected))
        promise = self.promise.apply(expected[rows, option])
        return Choices(option, expected, promise, np.ones(len(expected)), None if least is None else least[rows, option])

    def to_json(self) -> dict[str, Any]:
        """Return plain data from which `from_json` makes the same policy."""
        return {
            "payoffs": self.payoffs.to_json(),
            "limits": [limit.to_json() for limit in self.limits],
            "prices": list(self.prices),
            "promise": self.promise.to_json(),
            "averse": self.averse,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Policy:
        """Return the policy of `to_json`."""
        limits, prices = tuple(Limit.from_json(limit) for limit in raw["limits"]), tuple(map(float, raw["prices"]))
        return cls(Payoffs.from_json(raw["payoffs"]), limits, prices, PromiseMap.from_json(raw["promise"]), bool(raw["averse"]))


# --------------------------------------------------------------------------------------------------------------- baselines


def baseline_weights(policy: Policy, n: int, columns: Columns, reference: Floats, today: str | Ints | None = None) -> dict[str, Floats]:
    """Return how often each baseline takes each option on n rows: name → (n, n_options), "today" first, then the constant actions.

    A baseline that exceeds a limit is randomised down to it: it does its action as often as allowed, with the same chance on every
    row, and otherwise the option that is best by `reference` (then the next best, as limits have room). `reference` (n_options,) is
    each option's mean payoff on *other* rows, so that no baseline has seen the outcomes that it is judged by. Of an action with a
    quantity the constants are its best quantity by `reference`, the least and the greatest; of a ranking it is an item of the list,
    drawn at random. `today` is an option's name, or the option (n,) of each row. Raises `CaseError` where it is no option.

    >>> loan = Payoffs.of({"approve": {"payoff": {"no": "10", "yes": "-50"}}, "decline": {"payoff": "0"}}, "EUR", ("no", "yes"))
    >>> policy = Policy(loan, (Limit("approve", "share", 0.25),), (0.0,))
    >>> {name: w.tolist() for name, w in baseline_weights(policy, 1, {}, np.array([4.0, 0.0])).items()}
    {'always approve': [[0.25, 0.75]], 'always decline': [[0.0, 1.0]]}
    """
    payoffs = policy.payoffs
    wishes: dict[str, Ints] = {}
    if today is not None:
        wishes["today"] = np.full(n, _option_named(today, payoffs)) if isinstance(today, str) else np.asarray(today)
    if len(reference) != len(payoffs.options):
        certain = {name: (wish[:, None] == np.arange(len(reference))).astype(np.float64) for name, wish in wishes.items()}
        return certain | {f"always {payoffs.actions[0].name}": np.full((n, len(reference)), 1 / len(reference))}
    for terms in payoffs.actions:
        place = payoffs.slices[terms.name]
        if terms.quantity is not None:
            wishes[f"always the best {terms.name}"] = np.full(n, place.start + int(np.argmax(reference[place])))
        wishes |= {f"always {payoffs.options[o].name}": np.full(n, o) for o in (place.start, place.stop - 1)}
    constraints = on_rows(policy.limits, payoffs, columns, np.broadcast_to(reference, (n, len(reference))))
    return {name: _mixture(wish, constraints, reference) for name, wish in wishes.items()}


def baseline_payoffs(
    policy: Policy, realised: Floats, columns: Columns, reference: Floats, today: str | Ints | None = None
) -> dict[str, Floats]:
    """Return what each baseline paid on each row, in expectation over its draw: name → (n,), of `realised` (n, n_options).

    >>> loan = {"approve": {"payoff": {"no": "10", "yes": "-50"}}, "decline": {"payoff": "0"}}
    >>> policy = Policy(Payoffs.of(loan, "EUR", ("no", "yes")), (Limit("approve", "share", 0.5),), (0.0,))
    >>> values = np.array([[10.0, 0.0], [-50.0, 0.0]])
    >>> {name: v.tolist() for name, v in baseline_payoffs(policy, values, {}, np.array([4.0, 0.0]), "approve").items()}
    {'today': [5.0, -25.0], 'always approve': [5.0, -25.0], 'always decline': [0.0, 0.0]}
    """
    weights = baseline_weights(policy, len(realised), columns, reference, today)
    return {name: np.asarray((w * realised).sum(axis=1)) for name, w in weights.items()}


def _option_named(name: str, payoffs: Payoffs) -> int:
    names = [option.name for option in payoffs.options]
    if name not in names:
        mend = nearest(name, names) or "name an action, or the column that holds what was done"
        raise CaseError(Problem("decision.today", name, f"one of {', '.join(names[:12])}", mend))
    return names.index(name)


def _mixture(wish: Ints, constraints: list[Constraint], reference: Floats) -> Floats:
    """Return how likely each option is on each row (n, n_options), when `wish` is done as often as the limits allow."""
    n, n_options = len(wish), len(reference)
    use = np.zeros((len(constraints), n, n_options))
    for k, c in enumerate(constraints):
        use[k, :, c.options] = c.use
    left = np.array([c.capacity for c in constraints])
    weights, rest = np.zeros((n, n_options)), np.ones(n)

    def give(option: Ints, share: Floats) -> None:
        """Give a share of what is left of each row to an option of it."""
        nonlocal left, rest
        mass = share * rest
        weights[np.arange(n), option] += mass
        left = np.maximum(0.0, left - (use[:, np.arange(n), option] * mass).sum(axis=1))
        rest = rest - mass

    def allowed(option: Ints) -> Floats:
        """Return the share (n,) of the rest that the limits leave room for, where an option uses them."""
        taken = use[:, np.arange(n), option]
        total = (taken * rest).sum(axis=1)
        room = np.divide(left, total, out=np.ones_like(left), where=total > left)
        share: Floats = np.where(taken > 0, room[:, None], 1.0).min(axis=0, initial=1.0)
        return share

    give(wish, allowed(wish))
    for o in np.argsort(-reference, kind="stable"):
        if rest.any():
            give(np.full(n, o), allowed(np.full(n, o)))
    if rest.max(initial=0.0) > TOLERANCE:
        no_room(f"no randomised baseline for {n} rows that keeps to every limit")
    return weights
