"""Probabilities that mean what they say, and promises that are kept.

A `Calibrator` maps a model's probabilities so that they match frequencies. A `PromiseMap` maps the expected payoff of the chosen
action to what such choices turn out to pay: the best of several estimates is flattered by having been chosen (the optimiser's
curse, Smith & Winkler 2006). Both are a few numbers, and both work row by row: the result for a row is the same to the last bit
alone or among others, so sums over classes run in a fixed order over contiguous columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from makegood.contracts import Bools, Floats, Ints
from makegood.errors import BundleError, Problem

FLOOR = 1e-6
"""No probability is below this: what was never seen is not impossible, and the log loss stays finite."""

REVEALED = 100
"""Fewest decisions of uncertain payoff from which promises are corrected."""

RARE = 10
"""Fewest of them that paid otherwise than most: where hardly a mistake was seen, what mistakes cost is not known to be nothing."""

Curve = Callable[[Floats, tuple[Floats, ...]], Floats]


# ---------------------------------------------------------------------------------------------------------- probabilities


@dataclass(frozen=True, eq=False)
class Calibrator:
    """A map of probabilities: `apply` (n, k) → (n, k), positive rows that sum to one.

    `kind` is identity; temperature, `parameters` ((T,),); beta, one (a, b, c) a class; or isotonic, the knots x and y of one class
    after the other. Two classes have one curve, the second's. `losses` tells the cross-validated log loss of every kind.

    >>> Calibrator("temperature", (np.array([2.0]),)).apply(np.array([[0.2, 0.8]])).round(4).tolist()
    [[0.3333, 0.6667]]
    """

    kind: str = "identity"
    parameters: tuple[Floats, ...] = ()
    floor: float = FLOOR
    losses: Mapping[str, float] = field(default_factory=dict)

    def apply(self, p: Floats) -> Floats:
        """Return the calibrated probabilities (n, k) of `p` (n, k)."""
        columns = [np.maximum(np.ascontiguousarray(column, dtype=np.float64), FLOOR) for column in p.T]
        if self.kind == "temperature":
            columns = _tempered(columns, float(self.parameters[0][0]))
        elif self.kind != "identity":
            columns = _by_class(columns, _CURVES[self.kind], self.parameters)
        columns = [np.maximum(column, self.floor) for column in columns]
        total = _sum(columns)
        total = np.where(np.abs(total - 1.0) < 1e-12, 1.0, total)  # leaves what already sums to one as it is
        return np.column_stack([column / total for column in columns])

    def to_json(self) -> dict[str, Any]:
        """Return plain data from which `from_json` makes the same calibrator, bit by bit."""
        parameters = [values.tolist() for values in self.parameters]
        return {"kind": self.kind, "parameters": parameters, "floor": self.floor, "losses": dict(self.losses)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Calibrator:
        """Return the calibrator of `to_json`; raises `BundleError` on a kind that this version does not know."""
        if raw["kind"] not in KINDS:
            expected = f"one of {', '.join(KINDS)}"
            raise BundleError(Problem("calibrator.kind", str(raw["kind"]), expected, "load it with the version that wrote it"))
        parameters = tuple(np.asarray(values, dtype=np.float64) for values in raw["parameters"])
        return cls(raw["kind"], parameters, float(raw["floor"]), dict(raw["losses"]))


def fit_calibrator(p: Floats, y: Ints, folds: Ints | None = None, *, seed: int = 0, kind: str | None = None) -> Calibrator:
    """Return the calibrator of the kind with the least cross-validated log loss, fitted on all rows.

    `p` (n, k) probabilities of rows that their model has not seen, `y` (n,) class codes, `folds` (n,) the fold that held each row
    out: a kind is judged on each fold after it was fitted on the others. Without two different folds, five are drawn by `seed`.
    Ties go to the simpler kind. Given a `kind`, that one is fitted and nothing is chosen.

    >>> rng = np.random.default_rng(0)
    >>> true = rng.random(4000)
    >>> sharp = true**3 / (true**3 + (1 - true) ** 3)
    >>> found = fit_calibrator(np.column_stack([1 - sharp, sharp]), (rng.random(4000) < true).astype(int))
    >>> found.kind, found.parameters[0].round(1).tolist()
    ('temperature', [3.1])
    """
    p, y = np.asarray(p, dtype=np.float64), np.asarray(y, dtype=np.int64)
    if kind is not None:
        return _fitted(kind, p, y)
    if folds is None or len(np.unique(folds)) < 2:
        folds = np.random.default_rng(seed).permutation(len(y)) % 5
    losses = {}
    for each in KINDS:
        held = np.empty(len(y))
        for fold in np.unique(folds):
            out = folds == fold
            held[out] = log_loss(_fitted(each, p[~out], y[~out]).apply(p[out]), y[out])
        losses[each] = float(held.mean())
    best = _fitted(min(losses, key=losses.__getitem__), p, y)
    return Calibrator(best.kind, best.parameters, best.floor, losses)


def log_loss(p: Floats, y: Ints) -> Floats:
    """Return −ln of the probability (n,) that each row's own class was given.

    >>> log_loss(np.array([[0.5, 0.5]]), np.array([1])).round(3).tolist()
    [0.693]
    """
    return np.asarray(-np.log(p[np.arange(len(y)), y]))


def _fitted(kind: str, p: Floats, y: Ints) -> Calibrator:
    # A step of the isotonic curve that holds no case of a class is no proof that there is none: one case in all rows is allowed for.
    floor = 1.0 / (len(y) + p.shape[1]) if kind == "isotonic" else FLOOR
    return Calibrator(kind, _FITS[kind](np.maximum(p, FLOOR), y), floor)


def _sum(columns: list[Floats]) -> Floats:
    total = columns[0]
    for column in columns[1:]:
        total = total + column
    return total


def _tempered(columns: list[Floats], temperature: float) -> list[Floats]:
    """Return p^(1/T), normalised (Guo et al. 2017, §4.2)."""
    logs = [np.log(column) / temperature for column in columns]
    top = logs[0]
    for column in logs[1:]:
        top = np.maximum(top, column)
    powers = [np.exp(column - top) for column in logs]
    total = _sum(powers)
    return [power / total for power in powers]


def _fit_temperature(p: Floats, y: Ints) -> tuple[Floats, ...]:
    from scipy.optimize import minimize_scalar

    logs = np.log(p / p.max(axis=1, keepdims=True))
    own = logs[np.arange(len(y)), y]

    def loss(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        return float((np.log(np.exp(logs * scale).sum(axis=1)) - own * scale).mean())

    return (np.exp([minimize_scalar(loss, bounds=np.log([0.1, 10.0]), method="bounded").x]),)


def _by_class(columns: list[Floats], curve: Curve, parameters: tuple[Floats, ...]) -> list[Floats]:
    """Return each class's own curve of its own probability, not yet normalised; of two classes the second's and its complement."""
    if len(columns) == 2:
        second = curve(columns[1], parameters)
        return [1.0 - second, second]
    each = len(parameters) // len(columns)
    return [curve(column, parameters[j * each : (j + 1) * each]) for j, column in enumerate(columns)]


def _fit_by_class(fit: Callable[[Floats, Floats], tuple[Floats, ...]]) -> Callable[[Floats, Ints], tuple[Floats, ...]]:
    """Return a fit of one curve for each class against the rest; for the second alone where there are two."""

    def fit_all(p: Floats, y: Ints) -> tuple[Floats, ...]:
        k = p.shape[1]
        classes = (1,) if k == 2 else range(k)
        return tuple(values for j in classes for values in fit(p[:, j], (y == j).astype(np.float64)))

    return fit_all


def _logits(p: Floats) -> tuple[Floats, Floats]:
    return np.log(p), -np.log(np.maximum(1.0 - p, FLOOR))


def _beta(p: Floats, parameters: tuple[Floats, ...]) -> Floats:
    """Return 1/(1 + exp(−(a·ln p − b·ln(1 − p) + c))), a and b ≥ 0 (Kull, Silva Filho & Flach 2017, equation 3)."""
    (a, b, c), (rise, fall) = parameters[0].tolist(), _logits(p)
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(a * rise + b * fall + c, -36.0, 36.0))))


def _fit_beta(p: Floats, hit: Floats) -> tuple[Floats, ...]:
    """Fit by maximum likelihood with a standard normal prior around the identity, which separable data cannot run away from."""
    from scipy.optimize import minimize
    from scipy.special import expit

    (rise, fall), identity = _logits(p), np.array([1.0, 1.0, 0.0])

    def loss(w: Floats) -> tuple[float, Floats]:
        z, away = w[0] * rise + w[1] * fall + w[2], w - identity
        miss = expit(z) - hit
        value = float((np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z))) - hit * z).sum() + away @ away / 2.0)
        slope = np.array([(miss * rise).sum(), (miss * fall).sum(), miss.sum()]) + away
        return value / len(p), slope / len(p)

    return (np.asarray(minimize(loss, identity, jac=True, method="L-BFGS-B", bounds=[(0, None), (0, None), (None, None)]).x),)


def _isotonic(p: Floats, parameters: tuple[Floats, ...]) -> Floats:
    x, y = parameters
    return np.asarray(np.interp(p, x, y))


def _fit_isotonic(p: Floats, hit: Floats) -> tuple[Floats, ...]:
    from sklearn.isotonic import IsotonicRegression

    found = IsotonicRegression(y_min=0.0, y_max=1.0).fit(p, hit)
    return np.asarray(found.X_thresholds_, dtype=np.float64), np.asarray(found.y_thresholds_, dtype=np.float64)


_CURVES: Mapping[str, Curve] = {"beta": _beta, "isotonic": _isotonic}
_FITS: Mapping[str, Callable[[Floats, Ints], tuple[Floats, ...]]] = {
    "identity": lambda p, y: (),
    "temperature": _fit_temperature,
    "beta": _fit_by_class(_fit_beta),
    "isotonic": _fit_by_class(_fit_isotonic),
}
KINDS = tuple(_FITS)
"""The kinds of calibration, from the simplest on."""


# --------------------------------------------------------------------------------------------------------------- promises


@dataclass(frozen=True)
class PromiseMap:
    """What a choice's expected payoff m is worth as a promise: h(m) = `slope`·m + `intercept`.

    Payoffs that are certain (declining pays nothing, whatever happens) are promised as they are: `certain` lists them. `n` tells
    how many uncertain decisions the map was fitted on. h changes promises, never actions.

    >>> PromiseMap(0.5, -1.0, certain=(0.0,), n=800).apply(np.array([10.0, 0.0])).tolist()
    [4.0, 0.0]
    """

    slope: float = 1.0
    intercept: float = 0.0
    certain: tuple[float, ...] = ()
    n: int = 0

    def apply(self, m: Floats) -> Floats:
        """Return the promise (n,) for each expected payoff (n,) of a chosen action."""
        m = np.asarray(m, dtype=np.float64)
        promise = m * self.slope + self.intercept
        for payoff in self.certain:
            promise = np.where(_same(m, payoff), m, promise)
        return promise

    @property
    def note(self) -> str:
        """What was done, in a sentence.

        >>> PromiseMap(n=12).note
        'Promises are not corrected: 12 decisions of uncertain payoff reveal it, and 100 are needed.'
        """
        if self.n < REVEALED:
            return f"Promises are not corrected: {self.n} decisions of uncertain payoff reveal it, and {REVEALED} are needed."
        return f"A promise is {self.slope:.3g} times the expected payoff {self.intercept:+.3g}, as {self.n} decisions turned out."

    def to_json(self) -> dict[str, Any]:
        """Return plain data from which `from_json` makes the same map."""
        return {"slope": self.slope, "intercept": self.intercept, "certain": list(self.certain), "n": self.n}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> PromiseMap:
        """Return the map of `to_json`."""
        return cls(float(raw["slope"]), float(raw["intercept"]), tuple(map(float, raw["certain"])), int(raw["n"]))


def fit_promise(promise: Floats, realised: Floats, *, revealed: Bools | None = None) -> PromiseMap:
    """Return the map of expected payoffs `promise` (n,) of chosen actions that fits what they turned out to pay, `realised` (n,).

    Both come from decisions of models, calibrators and limits that were fitted without these rows; `revealed` (n,) marks those
    whose payoff is known (all, when None). The mean of the map's promises is that of the payoffs: the level is what is promised,
    and no shrinkage is spent on it. The slope is: with b the regression of realised − promised on promised and v its
    heteroscedastic variance (White 1980), b is multiplied by max(0, 1 − v/b²), the positive-part Stein factor, since the slope of
    heavy-tailed money is mostly noise. Under normal errors the curse is exactly affine. Fewer than `REVEALED` rows of uncertain
    payoff give the identity, which says so in its `note`; so do fewer than `RARE` that paid otherwise than most.

    >>> rng = np.random.default_rng(0)
    >>> true = rng.normal(size=(20_000, 5))
    >>> seen = true + rng.normal(size=true.shape)  # as much noise as signal: half of what is seen is flattery
    >>> rows, best = np.arange(20_000), seen.argmax(axis=1)
    >>> h = fit_promise(seen[rows, best], true[rows, best])
    >>> round(h.slope, 1), round(h.intercept, 1)
    (0.5, -0.0)
    """
    m, r = np.asarray(promise, dtype=np.float64), np.asarray(realised, dtype=np.float64)
    if revealed is not None:
        m, r = m[revealed], r[revealed]
    certain = _certain(m, r)
    uncertain = np.ones(len(m), dtype=np.bool_)
    for payoff in certain:
        uncertain &= ~_same(m, payoff)
    m, r = m[uncertain], r[uncertain]
    if len(m) < REVEALED or (rare := len(r) - int(np.unique(r, return_counts=True)[1].max())) < RARE:
        return PromiseMap(certain=certain, n=len(m) if len(m) < REVEALED else rare)
    gap, spread = r - m, m - m.mean()
    weight = float(spread @ spread)
    b = float(spread @ gap) / weight if weight > 0 else 0.0
    noise = float(np.sum((spread * (gap - gap.mean() - b * spread)) ** 2)) / weight**2 if weight > 0 else 0.0
    b = max(b * max(0.0, 1.0 - noise / b**2), -1.0) if b else 0.0
    return PromiseMap(1.0 + b, float(gap.mean()) - b * float(m.mean()), certain, len(m))


def _certain(m: Floats, r: Floats) -> tuple[float, ...]:
    """Return the payoffs that at least 1% of the rows (and 20) were promised, and all of these got."""
    values, counts = np.unique(r[_same(m, r)], return_counts=True)
    often = values[counts >= max(20.0, 0.01 * len(m))]
    return tuple(float(v) for v in often if _same(r[_same(m, v)], v).all())


def _same(a: Floats, b: Floats | float) -> Bools:
    """Return whether the numbers are equal but for rounding: Σ p·c is c only nearly."""
    return np.asarray(np.abs(a - b) <= 1e-9 * np.maximum(1.0, np.abs(b)))
