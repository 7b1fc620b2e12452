"""Which choices are worth most under limits: by shadow prices row by row, and exactly on a batch.

Row by row a limit is a *shadow price* (MATHEMATICS §1): the price per unit of use at which the best choices on validation rows just
keep to it. On a batch it holds exactly. Both rest on the Lagrangian dual of the linear programme, solved by cutting planes (Kelley
1960; its own dual, column generation, is Dantzig & Wolfe 1960): a master problem with one variable a cut, whatever the number of
rows. All but a few rows are then settled, and those few, the *core* (Balas & Zemel 1980), are searched exactly: dynamic programming
over what the limits have left (Pisinger 1995), cut off by the dual's bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from makegood.contracts import Bools, Floats, Ints
from makegood.economics.limits import TOLERANCE, Constraint, kept, no_room, priced

NEVER = 1e300  # the shadow price of a limit of zero

_CUTS = 200  # choices in a mixture; what lacks to the optimum then is in the gap
_CORE = 64  # pairs of row and option that the search may change; times four as long as the optimum is not proven
_LARGEST = 1024  # pairs beyond which a core that has an answer grows no more
_STATES = 20_000  # of the search; beyond, the least promising are dropped and the optimum is bounded instead of proven


# ----------------------------------------------------------------------------------------------------------- shadow prices


def shadow_prices(values: Floats, constraints: Sequence[Constraint]) -> Floats:
    """Return the price of each limit at which the best choices on these rows keep to it: (n_limits,) ≥ 0.

    A price is zero where its limit does not bind, `NEVER` where nothing is allowed. Among rows that tie at the price, none takes
    the limited action: a limit is rather missed from below. Raises `CaseError` where no choice keeps to the limits.

    >>> margins = np.array([[4.0, 0.0], [3.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    >>> price = shadow_prices(margins, [Constraint(slice(0, 1), np.ones((4, 1)), 2.0)])
    >>> bool(2 <= price[0] < 3)
    True
    """
    prices: Floats = np.array([NEVER if c.capacity == 0 else 0.0 for c in constraints], dtype=np.float64)
    if kept(_best(priced(values, constraints, prices)), constraints):
        return prices
    prices = np.where(prices > 0, prices, _dual(values, constraints).prices)
    unit = np.array([_range(values) / _typical(c) for c in constraints])
    nudged = prices
    for power in range(15):
        over = np.array([c.excess(_best(priced(values, constraints, nudged))) > 0 for c in constraints])
        if not over.any():
            return nudged
        nudged = nudged + np.where(over, unit * TOLERANCE * 3.0**power, 0.0)
    return prices


def _best(values: Floats) -> Ints:
    """Return the option of the highest value in each row; the first declared where they tie."""
    option: Ints = values.argmax(axis=1)
    return option


def _range(values: Floats) -> float:
    """Return the mean over rows of best − worst possible value: the scale of the money at stake."""
    worst = np.where(np.isfinite(values), values, np.inf).min(axis=1)
    return float(np.mean(values.max(axis=1) - worst)) or 1.0


def _typical(constraint: Constraint) -> float:
    """Return the mean use of those options that use anything."""
    using = constraint.use[constraint.use > 0]
    return float(using.mean()) if len(using) else 1.0


@dataclass(frozen=True)
class _Dual:
    """What the linear programme says: prices, the bound on any choice's value, and the mixture of choices that is its optimum."""

    prices: Floats
    bound: float
    weights: Floats  # (m,) of the mixture
    choices: Ints  # (m, n)


class _Master:
    """The linear programme over mixtures of the choices found so far, in units of the money at stake and of typical use."""

    def __init__(self, values: Floats, constraints: Sequence[Constraint]) -> None:
        self.values, self.constraints = values, constraints
        self.n, self.money, self.best = len(values), _range(values), values.max(axis=1)
        self.typical = np.array([_typical(c) for c in constraints])
        self.capacity = np.array([c.capacity for c in constraints]) / self.typical / self.n
        self.choices: list[Ints] = []
        self.gains: list[float] = []
        self.uses: list[list[float]] = []

    def add(self, prices: Floats) -> float:
        """Add the best choices at these prices; return the bound on any choice's value that they prove."""
        net = priced(self.values, self.constraints, prices * self.money / self.typical)
        choice = _best(net)
        self.choices.append(choice)
        self.gains.append(float((self.values[np.arange(self.n), choice] - self.best).mean()) / self.money)
        self.uses.append([c.used(choice) / typical / self.n for c, typical in zip(self.constraints, self.typical, strict=True)])
        return float((net.max(axis=1) - self.best).mean()) / self.money + float((prices * self.capacity).sum())

    def repeats(self) -> bool:
        """Tell whether the choices added last were there before: the mixture cannot become better."""
        found = list(zip(self.gains, self.uses, strict=True))
        return found[-1] in found[:-1]

    def solve(self, penalty: float) -> tuple[float, Floats, Floats, float]:
        """Return the best mixture's value, its weights, its prices, and the most that it uses beyond a capacity at `penalty`."""
        from scipy.optimize import linprog

        m, k = len(self.gains), len(self.constraints)
        costs = np.append(np.negative(self.gains), np.full(k, penalty))
        use = np.hstack([np.transpose(self.uses), -np.eye(k)])
        once = np.append(np.ones(m), np.zeros(k))[None]
        found = linprog(costs, A_ub=use, b_ub=self.capacity, A_eq=once, b_eq=[1.0], bounds=(0, None), method="highs")
        return -found.fun, found.x[:m], np.maximum(-found.ineqlin.marginals, 0.0), found.x[m:].max()

    def largest_penalty(self) -> float:
        """Return a penalty above any price that an optimum can have: the most money at stake in a row for the least use."""
        worst = np.where(np.isfinite(self.values), self.values, np.inf).min(axis=1)
        least = [c.use[c.use > 0].min() / typical for c, typical in zip(self.constraints, self.typical, strict=True) if (c.use > 0).any()]
        return max(1.0, 100 * float((self.best - worst).max()) / self.money / float(min(least, default=1.0)))


def _dual(values: Floats, constraints: Sequence[Constraint]) -> _Dual:
    """Return the optimum of the linear programme over all choices; raises `CaseError` where there is none.

    The master's prices make the next choices, until these add nothing. Use beyond a capacity is allowed at a penalty, which grows
    for as long as the optimum pays it.
    """
    master = _Master(values, constraints)
    at: Floats = np.zeros(len(constraints))
    bound, largest = master.add(at), master.largest_penalty()
    penalty = min(10.0, largest)
    while True:
        value, weights, prices, beyond = master.solve(penalty)
        if bound - value > TOLERANCE and len(master.choices) < _CUTS:
            proven = master.add(prices)
            if proven < bound:
                bound, at = proven, prices
            if not master.repeats():
                continue
        if beyond <= TOLERANCE:
            break
        if penalty >= largest:
            no_room(f"no choice for {len(values)} rows that keeps to every limit")
        penalty = min(penalty * 100, largest)
    total = float(master.best.sum()) + bound * master.money * master.n
    used = weights > 0
    return _Dual(at * master.money / master.typical, total, weights[used], np.array(master.choices)[: len(weights)][used])


# ------------------------------------------------------------------------------------------------------------- allocation


@dataclass(frozen=True)
class Allocation:
    """Choices `option` (n,) of a batch that keep to every limit, their `value`, and a `bound` that no others exceed."""

    option: Ints
    value: float
    bound: float

    @property
    def gap(self) -> float:
        """How much more other choices could be worth at most; 0 when these are proven to be the best, up to rounding."""
        return max(0.0, self.bound - self.value)


def allocate(values: Floats, constraints: Sequence[Constraint]) -> Allocation:
    """Return the choices of the highest total value (n, n_options) that keep to every limit exactly.

    An option whose loss against the best at the shadow prices exceeds bound − value can be in no better choice, so that the core
    proves the optimum as soon as it holds every other pair of row and option. Raises `CaseError` where nothing keeps to the limits.

    >>> margins = np.array([[4.0, 0.0], [3.0, 0.0], [2.0, 0.0]])
    >>> allocate(margins, [Constraint(slice(0, 1), np.array([[3.0], [2.0], [2.0]]), 4.0)]).option.tolist()
    [1, 0, 0]
    """
    n, n_options = values.shape
    unlimited = _best(values)
    if kept(unlimited, constraints):
        total = float(values.max(axis=1).sum())
        return Allocation(unlimited, total, total)
    constraints = [_whole(c) for c in constraints]
    possible = _possible(values, constraints)
    dual = _dual(possible, constraints)
    net = priced(possible, constraints, dual.prices)
    loss = net.max(axis=1, keepdims=True) - net
    base, enough, size = _rounded(dual, constraints), TOLERANCE * _range(possible) * n, _CORE
    while True:
        core = _core(loss, base, size)
        found = _search(loss, base, core, constraints, dual.prices)
        if found.option is not None:
            value = float(values[np.arange(n), found.option].sum())
            gap = max(0.0, dual.bound - value)
            outside = (loss < gap) & ~core
            outside[np.arange(n), base] = False
            proven = found.exact and not outside.any()
            if proven or gap <= enough or not found.exact or size >= _LARGEST:
                return Allocation(found.option, value, value if proven else dual.bound)
        elif size >= n * n_options or size > 4 * _LARGEST:
            no_room(f"no choice for {n} rows that keeps to every limit")
        size *= 4


def _whole(constraint: Constraint) -> Constraint:
    """Return a limit on a number of decisions with its capacity in whole decisions."""
    if constraint.kind == "budget":
        return constraint
    return Constraint(constraint.options, constraint.use, float(np.floor(constraint.capacity + TOLERANCE)), constraint.kind)


def _possible(values: Floats, constraints: Sequence[Constraint]) -> Floats:
    """Return the values with −∞ for options that alone would exceed a limit."""
    values = values.copy()
    for c in constraints:
        values[:, c.options][c.use > c.capacity + TOLERANCE * max(1.0, c.capacity)] = -np.inf
    if (stuck := int(np.isneginf(values).all(axis=1).sum())) > 0:
        no_room(f"no possible action in {stuck} of {len(values)} rows")
    return values


def _rounded(dual: _Dual, constraints: Sequence[Constraint]) -> Ints:
    """Return the mixture in whole choices: rows on which its choices differ take turns, in proportion to the weights.

    They do so by the golden-ratio sequence, of which every stretch is in proportion, and in order of use, so that what is used is.
    """
    option: Ints = dual.choices[0].copy()
    torn = np.flatnonzero((dual.choices != option).any(axis=0))
    torn = torn[np.argsort(sum(c.use[torn].max(axis=1) for c in constraints), kind="stable")]
    turn = (np.arange(len(torn)) + 0.5) * 0.6180339887498949 % 1.0
    option[torn] = dual.choices[np.searchsorted(np.cumsum(dual.weights)[:-1], turn, side="right"), torn]
    return option


def _core(loss: Floats, base: Ints, size: int) -> Bools:
    """Return which pairs (n, n_options) are open: the `size` changes to `base` that lose least, and the present pairs of their rows."""
    every = np.arange(len(loss))
    change = loss.copy()
    change[every, base] = np.inf
    is_open = np.ones(loss.shape, dtype=bool)
    if size < change.size:
        is_open[:] = False
        is_open.flat[np.argpartition(change, size, axis=None)[:size]] = True
    is_open &= np.isfinite(change)
    is_open[every, base] = is_open.any(axis=1)
    return is_open


@dataclass(frozen=True)
class _Found:
    """The best choices of a search, None where none keeps to the limits; `exact` where no others of the core are better."""

    option: Ints | None
    exact: bool


def _search(loss: Floats, base: Ints, core: Bools, constraints: Sequence[Constraint], prices: Floats) -> _Found:
    """Return the choices in the core with the least deficit against the dual bound: loss + price · capacity left over.

    Row by row, those with the cheapest change first, a state is what was lost and used so far, with the rows to come left as they
    are. Dropped are states that lose more than the best deficit found, and of those with the same use all but the best.
    """
    change = np.where(core, loss, np.inf)
    change[np.arange(len(loss)), base] = np.inf
    cheapest = change.min(axis=1)
    rows = np.flatnonzero(core.any(axis=1))
    rows = rows[np.argsort(cheapest[rows], kind="stable")]
    use = np.zeros((len(rows), loss.shape[1], len(constraints)))
    for k, c in enumerate(constraints):
        use[:, c.options, k] = c.use[rows]
    capacity = np.array([c.capacity for c in constraints])
    slack = TOLERANCE * np.maximum(1.0, capacity)
    present = np.take_along_axis(loss, base[:, None], axis=1)[:, 0]
    future = np.append(np.cumsum(present[rows][::-1])[::-1], 0.0)

    def deficits() -> Floats:
        within = (used <= capacity + slack).all(axis=1)
        return np.where(within, lost + ((capacity - used) * prices).sum(axis=1), np.inf)

    lost, used = np.array([present.sum()]), np.array([[c.used(base) for c in constraints]])
    best, found, exact = float(deficits()[0]), (0, 0), True
    steps: list[tuple[Ints, Ints]] = []  # of each row: the states that the next ones come from, and the options taken
    for j, row in enumerate(rows):
        if cheapest[row] > best or not len(lost):
            break
        options = np.flatnonzero(core[row])
        lost = (lost[:, None] + (loss[row, options] - present[row])).ravel()
        used = (used[:, None] + (use[j, options] - use[j, base[row]])).reshape(-1, len(capacity))
        states = np.flatnonzero(lost - future[j + 1] < best)
        states = states[_distinct(lost[states], used[states])]
        if len(states) > _STATES:
            promise = lost[states] + (np.abs(capacity - used[states]) * prices).sum(axis=1)
            states, exact = states[np.argpartition(promise, _STATES)[:_STATES]], False
        steps.append((states // len(options), options[states % len(options)]))
        lost, used = lost[states], used[states]
        deficit = deficits()
        if len(states) and deficit.min() < best:
            best, found = float(deficit.min()), (len(steps), int(deficit.argmin()))
    return _Found(_traced(base, rows, steps, *found) if np.isfinite(best) else None, exact)


def _distinct(lost: Floats, used: Floats) -> Ints:
    """Return the positions of the states that lose least among those of the same use."""
    order = np.lexsort((lost, *used.T))
    first = np.ones(len(order), dtype=bool)
    first[1:] = (used[order[1:]] != used[order[:-1]]).any(axis=1)
    return order[first]


def _traced(base: Ints, rows: Ints, steps: Sequence[tuple[Ints, Ints]], length: int, state: int) -> Ints:
    """Return the choices that led to a state after `length` steps."""
    option = base.copy()
    for row, (origin, taken) in zip(rows[:length][::-1], steps[:length][::-1], strict=True):
        option[row] = taken[state]
        state = origin[state]
    return option
