"""Limits: how much of an action there may be, as declared and on the rows at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np

from makegood.contracts import Columns, Floats, Ints
from makegood.economics.expression import Expression, parse
from makegood.economics.payoff import Payoffs
from makegood.errors import CaseError, DataError, NotBuilt, Problem

TOLERANCE = 1e-9  # relative to a capacity: what a float64 sum may be off


@dataclass(frozen=True)
class Limit:
    """At most `capacity` a decision of an action: a share or a count of decisions, or a budget that each takes `cost` from."""

    action: str
    kind: Literal["share", "count", "budget"]
    capacity: float
    cost: Expression | None = None

    @classmethod
    def declared(cls, spec: Mapping[str, Mapping[str, Any]], payoffs: Payoffs) -> tuple[Limit, ...]:
        """Return the limits of a case: action → max_share | max_count, per | max_budget, cost, per.

        Raises `CaseError` where an action is none, a cost no expression of columns, or no action has room for some decisions.
        """
        limits = []
        for action, parts in spec.items():
            where = f"decision.limits.{action}"
            if action not in payoffs.slices:
                raise CaseError(Problem(where, action, f"an action: {', '.join(payoffs.slices)}", "limit an action that is declared"))
            if parts.get("max_share") is not None:
                limits.append(cls(action, "share", float(parts["max_share"])))
            if parts.get("max_count") is not None:
                limits.append(cls(action, "count", float(parts["max_count"]) / float(parts["per"])))
            if parts.get("max_budget") is not None:
                cost = parse(str(parts["cost"]), f"{where}.cost")
                cost.check(None, _cost_kinds(payoffs, action))
                limits.append(cls(action, "budget", float(parts["max_budget"]) / float(parts["per"]), cost))
        _has_room(limits, payoffs)
        return tuple(limits)

    def check(self, kinds: Mapping[str, str], payoffs: Payoffs) -> None:
        """Raise `CaseError` where the cost does not fit the columns' kinds."""
        if self.cost is not None:
            self.cost.check(kinds, _cost_kinds(payoffs, self.action))

    def on(self, columns: Columns, n: int, payoffs: Payoffs) -> Constraint:
        """Return the limit on n rows; raises `DataError` on a negative cost."""
        terms = next(t for t in payoffs.actions if t.name == self.action)
        shape = (n, len(terms.options))
        if self.cost is None:
            return Constraint(payoffs.slices[self.action], np.broadcast_to(1.0, shape), self.capacity * n, self.kind)
        use = np.broadcast_to(self.cost.evaluate(columns, n, None, terms.steps, self.action), (shape[1], 1, n))[:, 0].T
        if (use < 0).any():
            row = int((use < 0).any(axis=1).argmax()) + 1
            got = f"{self.cost.text} negative in row {row}"
            raise DataError(Problem(self.cost.where, got, "a cost of 0 or more", "bound it: max(0, …)"))
        return Constraint(payoffs.slices[self.action], use, self.capacity * n, self.kind)

    def to_json(self) -> dict[str, Any]:
        """Return plain data from which `from_json` makes the same limit."""
        return {"action": self.action, "kind": self.kind, "capacity": self.capacity, "cost": self.cost and self.cost.text}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Limit:
        """Return the limit of `to_json`."""
        cost = None if raw["cost"] is None else parse(raw["cost"], f"decision.limits.{raw['action']}.cost")
        return cls(raw["action"], raw["kind"], float(raw["capacity"]), cost)


def _cost_kinds(payoffs: Payoffs, action: str) -> dict[str, str]:
    quantity = next(t.quantity for t in payoffs.actions if t.name == action)
    return {"action": "text"} | ({} if quantity is None else {"quantity": "number"})


def _has_room(limits: Sequence[Limit], payoffs: Payoffs) -> None:
    """Raise `CaseError` where shares and counts leave some decisions without any action."""
    room = dict.fromkeys(payoffs.slices, 1.0)
    for limit in limits:
        if limit.kind != "budget":
            room[limit.action] = min(room[limit.action], limit.capacity)
    if sum(room.values()) < 1 - TOLERANCE:
        listed = ", ".join(f"{action} {share:.4g}" for action, share in room.items())
        no_room(f"room for {sum(room.values()):.4g} of the decisions ({listed})")


def no_room(got: str) -> NoReturn:
    """Raise the `CaseError` of limits that leave decisions without any action.

    >>> no_room("room for 0.6 of the decisions")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    makegood.errors.CaseError: decision.limits: got 'room for 0.6 of the decisions'; expected an action for every decision; raise a limit...
    """
    mend = "raise a limit, or declare an action without one (doing nothing: payoff 0)"
    raise CaseError(Problem("decision.limits", got, "an action for every decision", mend))


# -------------------------------------------------------------------------------------------------------- limits on rows


@dataclass(frozen=True)
class Constraint:
    """A limit on the rows at hand: the sum of `use` (n, n_options in `options`) over what is chosen is at most `capacity`."""

    options: slice
    use: Floats
    capacity: float
    kind: str = "budget"

    def used(self, option: Ints) -> float:
        """Return how much the options (n,) chosen take."""
        inside = np.flatnonzero((option >= self.options.start) & (option < self.options.stop))
        return float(self.use[inside, option[inside] - self.options.start].sum())

    def excess(self, option: Ints) -> float:
        """Return by how much the options chosen exceed the capacity; 0 when they keep to it."""
        over = self.used(option) - self.capacity
        return over if over > TOLERANCE * max(1.0, self.capacity) else 0.0


def kept(option: Ints, constraints: Sequence[Constraint]) -> bool:
    """Tell whether the options chosen keep to every limit.

    >>> one = Constraint(slice(0, 1), np.ones((2, 1)), 1.0)
    >>> kept(np.array([0, 1]), [one]), kept(np.array([0, 0]), [one])
    (True, False)
    """
    return all(c.excess(option) == 0 for c in constraints)


def priced(values: Floats, constraints: Sequence[Constraint], prices: Sequence[float] | Floats) -> Floats:
    """Return the values (n, n_options) less what each option uses at the limits' prices, row by row.

    >>> approve = Constraint(slice(0, 1), np.ones((2, 1)), 1.0)
    >>> priced(np.array([[5.0, 0.0], [3.0, 0.0]]), [approve], [4.0]).tolist()
    [[1.0, 0.0], [-1.0, 0.0]]
    """
    net = np.array(values, dtype=np.float64)
    for constraint, price in zip(constraints, prices, strict=True):
        if price:
            net[:, constraint.options] -= price * constraint.use
    return net


def on_rows(limits: Sequence[Limit], payoffs: Payoffs, columns: Columns, values: Floats) -> list[Constraint]:
    """Return the limits on the rows of `values` (n, n_options); raises `NotBuilt` where these are not the payoffs' own options.

    >>> loan = Payoffs.of({"approve": {"payoff": "outcome"}, "decline": {"payoff": "0"}}, "EUR")
    >>> [(c.options, c.capacity) for c in on_rows([Limit("approve", "share", 0.25)], loan, {}, np.zeros((8, 2)))]
    [(slice(0, 1, None), 2.0)]
    """
    if limits and values.shape[1] != len(payoffs.options):
        raise NotBuilt(Problem("decision.limits", "limits on a ranking", "a ranking without limits", "remove them; see ROADMAP.md"))
    return [limit.on(columns, len(values), payoffs) for limit in limits]
