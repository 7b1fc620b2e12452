"""What a predictive thinks possible and what came true, as weighted scenarios of the outcome.

Every kind of prediction is a few scenarios, on each row: its classes with their probabilities; the nodes of a quadrature over its
quantiles; its mean effect; hit or miss of each item; right or wrong of an answer. What came true is a scenario of weight one. This
is the only code that knows the five kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, singledispatch
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from makegood.contracts import Effects, Floats, Ints, Probabilities, Quantiles, Ranking, Text
from makegood.economics.payoff import Option, Payoffs
from makegood.errors import CaseError, Problem

HIT, MISS = "hit", "miss"
RIGHT, WRONG = "right", "wrong"

_NODES = 4  # of the Gauss–Legendre rule between two levels


class Scenario(NamedTuple):
    """One way the outcome may turn out: a class, or numbers (m, n); `weight` broadcasts to (n_options, m, n).

    `is_mean`: the numbers are means of the outcome and not values of it, so that only an affine payoff may be taken at them.
    """

    outcome: str | Floats
    weight: Floats
    is_mean: bool = False


@singledispatch
def possible(predictive: Any, action: str) -> Iterator[Scenario]:
    """Yield what a predictive thinks possible under an action, weights summing to one in each step of the horizon.

    >>> loans = Probabilities(("no", "yes"), np.array([[0.75, 0.25]]))
    >>> [(s.outcome, s.weight.item()) for s in possible(loans, "approve")]
    [('no', 0.75), ('yes', 0.25)]
    """
    raise TypeError(f"{type(predictive).__name__} is none of the five kinds of predictive")


@singledispatch
def happened(predictive: Any, outcome: NDArray[Any], action: str) -> Iterator[Scenario]:
    """Yield what came true, as scenarios of weight one (or zero, for a class that did not).

    >>> loans = Probabilities(("no", "yes"), np.array([[0.75, 0.25]]))
    >>> [(s.outcome, s.weight.item()) for s in happened(loans, np.array([1]), "approve")]
    [('no', 0.0), ('yes', 1.0)]
    """
    raise TypeError(f"{type(predictive).__name__} is none of the five kinds of predictive")


@singledispatch
def options(predictive: Any, payoffs: Payoffs) -> tuple[Option, ...]:
    """Return what can be chosen: the payoffs' options; of a ranking its positions. Raises `CaseError` where it has several actions.

    >>> show = Payoffs.of({"show": {"payoff": {"hit": "1", "miss": "0"}}}, "EUR", ("hit", "miss"))
    >>> [o.name for o in options(Ranking(np.array([["a", "b"]]), np.array([[0.5, 0.25]])), show)]
    ['show #1', 'show #2']
    """
    return payoffs.options


@possible.register
def _(predictive: Probabilities, action: str) -> Iterator[Scenario]:
    for c, name in enumerate(predictive.classes):
        yield Scenario(name, predictive.p[None, None, :, c])


@happened.register
def _(predictive: Probabilities, outcome: NDArray[Any], action: str) -> Iterator[Scenario]:
    for c, name in enumerate(predictive.classes):
        yield Scenario(name, (outcome == c)[None, None].astype(np.float64))


@possible.register
def _(predictive: Quantiles, action: str) -> Iterator[Scenario]:
    below, fraction, weight = nodes(predictive.levels)
    above = np.minimum(below + 1, len(predictive.levels) - 1)
    for q in _steps(predictive.q):
        by_level = np.ascontiguousarray(q.T)
        yield Scenario(by_level[below] + fraction[:, None] * (by_level[above] - by_level[below]), weight[None, :, None])


@happened.register
def _(predictive: Quantiles, outcome: NDArray[Any], action: str) -> Iterator[Scenario]:
    for values in _steps(np.asarray(outcome, dtype=np.float64)[..., None]):
        yield Scenario(values.T, np.ones((1, 1, 1)))


def _steps(values: Floats) -> Iterator[Floats]:
    """Yield (n, m) for each step of a horizon, of values (n, m) or (n, horizon, m)."""
    return iter((values,) if values.ndim == 2 else np.moveaxis(values, 1, 0))


@lru_cache(maxsize=64)
def nodes(levels: tuple[float, ...]) -> tuple[Ints, Floats, Floats]:
    """Return the quadrature over a quantile function: level below each node, fraction of the way to the next, weight.

    The declared distribution has a quantile function that is linear between the levels and keeps the slope of its first and last
    piece down to 0 and up to 1: a bounded tail. (A single level is all of the distribution.) Four Gauss–Legendre nodes a piece
    integrate polynomials up to degree 7 exactly, so that an affine payoff is exact to the distribution's mean; a kink, as of
    min(quantity, outcome), costs at most 0.0092 × change of slope × width of its piece × probability of its piece: 0.00025 standard
    deviations on `LEVELS`, in the middle of a normal distribution.

    >>> below, fraction, weight = nodes((0.25, 0.5, 0.75))
    >>> q = np.array([1.0, 2.0, 5.0])
    >>> at = q[below] + fraction * (q[np.minimum(below + 1, 2)] - q[below])
    >>> round(float((at * weight).sum()), 12)  # pieces (0, 1), (1, 2), (2, 5), (5, 8)
    3.0
    """
    if len(levels) == 1:
        return np.zeros(1, dtype=np.int64), np.zeros(1), np.ones(1)
    x, w = np.polynomial.legendre.leggauss(_NODES)
    edges = np.array([0.0, *levels, 1.0])
    width = np.diff(edges)
    at = (edges[:-1, None] + width[:, None] * (x + 1) / 2).ravel()
    below = np.clip(np.repeat(np.arange(len(width)) - 1, _NODES), 0, len(levels) - 2)
    inner = np.array(levels)
    return below, (at - inner[below]) / (inner[below + 1] - inner[below]), (width[:, None] * w / 2).ravel()


@possible.register
def _(predictive: Effects, action: str) -> Iterator[Scenario]:
    yield Scenario(predictive.mean[None, :, predictive.actions.index(action)], np.ones((1, 1, 1)), is_mean=True)


@happened.register
def _(predictive: Effects, outcome: NDArray[Any], action: str) -> Iterator[Scenario]:
    yield Scenario(np.asarray(outcome, dtype=np.float64)[None, :, predictive.actions.index(action)], np.ones((1, 1, 1)))


@possible.register
def _(predictive: Ranking, action: str) -> Iterator[Scenario]:
    score = np.ascontiguousarray(predictive.scores.T)[:, None]
    yield from (Scenario(HIT, score), Scenario(MISS, 1 - score))


@happened.register
def _(predictive: Ranking, outcome: NDArray[Any], action: str) -> Iterator[Scenario]:
    hit = np.array([[item in wanted for item in row] for row, wanted in zip(predictive.items, outcome, strict=True)], dtype=np.float64)
    hit = hit.reshape(predictive.scores.shape).T[:, None]
    yield from (Scenario(HIT, hit), Scenario(MISS, 1 - hit))


@options.register
def _(predictive: Ranking, payoffs: Payoffs) -> tuple[Option, ...]:
    if len(payoffs.options) != 1:
        got = ", ".join(payoffs.slices)
        expected_actions = "one action, without quantity: what is done with an item of the ranking"
        raise CaseError(Problem("decision.actions", got, expected_actions, "declare one"))
    action = payoffs.actions[0].name
    return tuple(Option(f"{action} #{k + 1}", action) for k in range(predictive.scores.shape[1]))


@possible.register
def _(predictive: Text, action: str) -> Iterator[Scenario]:
    right = np.asarray(predictive.confidence, dtype=np.float64)[None, None]
    yield from (Scenario(RIGHT, right), Scenario(WRONG, 1 - right))


@happened.register
def _(predictive: Text, outcome: NDArray[Any], action: str) -> Iterator[Scenario]:
    right = np.array([a == o for a, o in zip(predictive.answers, outcome, strict=True)], dtype=np.float64)[None, None]
    yield from (Scenario(RIGHT, right), Scenario(WRONG, 1 - right))
