"""The numerics of the linear family: how its coefficients are found, and sums that are the same to the last bit in any order.

A sum of floating-point products depends on the order of its terms, and that order depends on how many rows a library scores at
once (blocks, vector lanes, alignment). `Affine` therefore rounds every product to one grid that is fine enough to lose nothing
that matters and coarse enough for all partial sums to be exact, so that a row alone and the same row in a batch agree in every
bit, in NumPy and in ONNX Runtime alike (the fixed-point idea of Demmel & Nguyen 2013, "Fast reproducible floating-point summation").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from makegood.contracts import Floats, Ints

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Penalties tried, per row and standardised feature."""

_MANTISSA = 52  # bits: integers up to 2^52 and their sums up to 2^53 are exact in float64
_CHUNK = 1 << 20  # products in memory at once


@dataclass(frozen=True)
class Affine:
    """z (n, k) = b + Σ_j grid((clip(x_j, low_j, high_j) − centre_j)·w_jk).

    `low`, `high` are the range of the training rows: beyond it a row is treated as if it stood on the border, since a line knows
    nothing there. `centre` (p,), `weights` (p, k), `intercept` (k,).
    """

    low: Floats
    high: Floats
    centre: Floats
    weights: Floats
    intercept: Floats

    @property
    def bits(self) -> int:
        """Return s such that products rounded to multiples of 2^−s have exact sums."""
        reach = np.maximum(self.high - self.centre, self.centre - self.low)
        bound = float((reach @ np.abs(self.weights)).max(initial=0.0))
        return min(1000, _MANTISSA - 1 - math.frexp(bound)[1]) if bound > 0.0 else 0

    def __call__(self, X: Floats) -> Floats:
        """Return z (n, k) float64 of features (n, p); every row has the same bits as when it is alone."""
        grid, scale = math.ldexp(1.0, self.bits), math.ldexp(1.0, -self.bits)
        scaled = self.weights * grid
        z = np.empty((len(X), scaled.shape[1]))
        step = max(1, _CHUNK // max(1, X.shape[1]))
        for start in range(0, len(X), step):
            block = np.clip(X[start : start + step].astype(np.float64), self.low, self.high) - self.centre
            for k in range(scaled.shape[1]):
                z[start : start + step, k] = np.rint(block * scaled[:, k]).sum(axis=1)
        return z * scale + self.intercept

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {name: getattr(self, name).tolist() for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Self:
        """Return what `to_json` described, to the last bit."""
        k = len(state["intercept"])
        arrays = {name: np.array(value, np.float64) for name, value in state.items()}
        return cls(**{**arrays, "weights": arrays["weights"].reshape(-1, k)})


@dataclass(frozen=True)
class Scaled:
    """Standardised features `Z` (n, p) and what standardised them; a feature that does not vary is zero throughout."""

    Z: Floats
    low: Floats
    high: Floats
    centre: Floats
    spread: Floats

    @classmethod
    def of(cls, X: Floats) -> Self:
        """Return the features (n, p) with mean zero and standard deviation one, clipped by nothing."""
        X = X.astype(np.float64)
        centre, spread = X.mean(axis=0), X.std(axis=0)
        spread = np.where(spread > 1e-12 * np.maximum(1.0, np.abs(centre)), spread, np.inf)
        return cls((X - centre) / spread, X.min(axis=0), X.max(axis=0), centre, spread)

    def apply(self, X: Floats) -> Floats:
        """Return other rows, clipped to the range seen and standardised alike."""
        return np.asarray((np.clip(X.astype(np.float64), self.low, self.high) - self.centre) / self.spread)

    def affine(self, coefficients: Floats, intercept: Floats) -> Affine:
        """Return the map of raw features that equals ``intercept + Z @ coefficients``."""
        return Affine(self.low, self.high, self.centre, coefficients / self.spread[:, None], intercept)


def softmax(z: Floats) -> Floats:
    """Return exp(z) over its row sums (n, k), free of overflow.

    >>> softmax(np.array([[0.0, 0.0], [1000.0, 0.0]])).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """
    e = np.exp(z - z.max(axis=1, keepdims=True, initial=-np.inf))
    total = e[:, :1].copy()
    for k in range(1, e.shape[1]):  # a sum in fixed order: NumPy's own depends on the memory layout
        total += e[:, k : k + 1]
    return np.asarray(e / total)


def log_loss(z: Floats, y: Ints) -> float:
    """Return the mean −log softmax(z)[y].

    >>> round(log_loss(np.zeros((3, 2)), np.array([0, 1, 1])), 6)
    0.693147
    """
    top = z.max(axis=1)
    return float((top + np.log(np.exp(z - top[:, None]).sum(axis=1)) - z[np.arange(len(z)), y]).mean())


@dataclass
class SoftmaxRegression:
    """Multinomial logistic regression on standardised features: mean log loss + strength/2·|W|².

    Each class gets half a pseudo-row at the mean of the features (Krichevsky & Trofimov 1981), so that a class without rows keeps a
    finite intercept. `start` (p + 1, k) warms the next solve of a path of strengths.
    """

    Z: Floats
    target: Floats  # (n, k) one-hot, times the row's weight
    start: Floats

    @classmethod
    def of(cls, Z: Floats, y: Ints, k: int, weight: Floats | None = None) -> Self:
        """Return the problem of rows Z (n, p) with classes y (n,) in range(k)."""
        n, p = Z.shape
        target = np.zeros((n + k, k))
        target[np.arange(n), y] = 1.0 if weight is None else weight / weight.mean()
        target[np.arange(n, n + k), np.arange(k)] = 0.5
        padded = np.zeros((n + k, p + 1))
        padded[:n, :p], padded[:, p] = Z, 1.0
        return cls(padded, target, np.zeros((p + 1, k)))

    def solve(self, strength: float, out_of_time: Callable[[], bool]) -> tuple[Floats, Floats]:
        """Return W (p, k) and the intercept (k,) at one strength; when time runs out, as far as the solver came."""
        shape, mass = self.start.shape, self.target.sum(axis=1, keepdims=True)
        total = float(mass.sum())
        penalty = np.full((shape[0], 1), strength)
        penalty[-1] = 0.0

        def objective(flat: Floats) -> tuple[float, Floats]:
            theta = flat.reshape(shape)
            z = self.Z @ theta
            z -= z.max(axis=1, keepdims=True)
            e = np.exp(z)
            norm = e.sum(axis=1, keepdims=True)
            loss = float((mass * np.log(norm)).sum() - (self.target * z).sum()) / total
            slope = self.Z.T @ (mass * (e / norm) - self.target) / total + penalty * theta
            return loss + 0.5 * float((penalty * theta**2).sum()), slope.ravel()

        def stop(_: NDArray[Any]) -> None:
            if out_of_time():
                raise StopIteration

        found = minimize(objective, self.start.ravel(), jac=True, method="L-BFGS-B", callback=stop, options={"maxiter": 200, "gtol": 1e-6})
        self.start = found.x.reshape(shape)
        return self.start[:-1].copy(), self.start[-1].copy()


@dataclass(frozen=True)
class Ridge:
    """A ridge regression with its leave-one-out residuals: `coefficients` (p,), `intercept`, `residuals` (n,)."""

    coefficients: Floats
    intercept: float
    residuals: Floats


def ridge(Z: Floats, y: Floats, weight: Floats | None = None) -> Ridge:
    """Return the ridge regression whose strength, one of `STRENGTHS`, has the least leave-one-out squared error.

    The residual of a row under the fit without it is r_i/(1 − h_i), h the hat matrix's diagonal (Allen 1974; Golub, Heath & Wahba
    1979, equation 1.4), so that no row is held out and one eigendecomposition serves every strength.

    >>> line = ridge(np.array([[-1.0], [0.0], [1.0]]), np.array([1.0, 2.0, 3.0]))
    >>> round(float(line.coefficients[0]), 2), line.intercept
    (1.0, 2.0)
    """
    n = len(y)
    w = np.ones(n) if weight is None else weight / weight.mean()
    root = np.sqrt(w)[:, None]
    centre, intercept = w @ Z / n, float(w @ y) / n
    A, b = root * (Z - centre), root[:, 0] * (y - intercept)
    values, vectors = np.linalg.eigh(A.T @ A)
    rotated, values = A @ vectors, np.maximum(values, 0.0)
    best: tuple[float, Ridge] | None = None
    for strength in STRENGTHS:
        shrunk = 1.0 / (values + n * strength)
        beta = vectors @ (shrunk * (rotated.T @ b))
        leverage = np.minimum(rotated**2 @ shrunk + w / n, 0.99)
        left_out = (y - intercept - (Z - centre) @ beta) / (1.0 - leverage)
        error = float(w @ left_out**2)
        if best is None or error < best[0]:
            best = error, Ridge(beta, intercept - float(centre @ beta), left_out)
    assert best is not None
    return best[1]
