"""The linear numerics: exact sums, known answers, and agreement with independent implementations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from makegood.families.regression import STRENGTHS, Affine, Scaled, SoftmaxRegression, log_loss, ridge, softmax


def _never() -> bool:
    return False


def _affine(p: int, k: int, seed: int = 0, size: float = 1.0) -> Affine:
    rng = np.random.default_rng(seed)
    low = rng.normal(size=p) * size - size
    return Affine(low, low + 3.0 * size, low + size, rng.normal(size=(p, k)) / size, rng.normal(size=k))


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-30, 1e-3, 1.0, 1e9, 1e30]))
def test_sums_have_the_same_bits_in_any_order(seed: int, size: float) -> None:
    line, rng = _affine(17, 3, seed, size), np.random.default_rng(seed)
    X = (rng.normal(size=(9, 17)) * size).astype(np.float32)
    order = rng.permutation(17)
    shuffled = Affine(line.low[order], line.high[order], line.centre[order], line.weights[order], line.intercept)
    assert (line(X) == shuffled(X[:, order])).all()


def test_the_grid_loses_nothing_that_matters() -> None:
    line = _affine(40, 2)
    X = np.random.default_rng(1).normal(size=(200, 40)).astype(np.float32)
    plain = line.intercept + (np.clip(X, line.low, line.high) - line.centre) @ line.weights
    np.testing.assert_allclose(line(X), plain, rtol=0, atol=1e-12)


def test_rows_beyond_the_range_count_as_on_its_border() -> None:
    line = _affine(3, 2)
    assert (line(np.full((1, 3), 3e38, np.float32)) == line(np.nextafter(line.high, np.inf)[None].astype(np.float32) + 1.0)).all()
    assert np.isfinite(line(np.full((1, 3), -3e38, np.float32))).all()


def test_an_affine_survives_json_to_the_last_bit() -> None:
    line = _affine(5, 2)
    again = Affine.from_json(line.to_json())
    assert all((getattr(again, name) == getattr(line, name)).all() for name in ("low", "high", "centre", "weights", "intercept"))


def test_weights_of_zero_and_no_features_give_the_intercept() -> None:
    nothing = Affine(np.zeros(2), np.ones(2), np.zeros(2), np.zeros((2, 2)), np.array([1.0, 2.0]))
    assert nothing(np.ones((3, 2), np.float32)).tolist() == [[1.0, 2.0]] * 3


def test_scaling_leaves_out_a_feature_that_does_not_vary() -> None:
    X = np.column_stack([np.full(10, 7.0), np.arange(10.0)]).astype(np.float32)
    scaled = Scaled.of(X)
    assert (scaled.Z[:, 0] == 0.0).all()
    assert scaled.Z[:, 1].std() == pytest.approx(1.0)
    assert scaled.affine(np.array([[5.0], [1.0]]), np.zeros(1)).weights[0, 0] == 0.0
    np.testing.assert_allclose(scaled.apply(X), scaled.Z)


def _classes(n: int = 300, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(n, 4))
    return Z, np.argmax(Z[:, :k] + rng.gumbel(size=(n, k)), axis=1)


@pytest.mark.parametrize("k", [2, 3])
def test_softmax_regression_agrees_with_scikit_learn(k: int) -> None:
    Z, y = _classes(k=k)
    W, intercept = SoftmaxRegression.of(Z, y, k).solve(0.01, _never)
    padded, target = np.vstack([Z, np.zeros((k, 4))]), np.concatenate([y, np.arange(k)])
    weight = np.concatenate([np.ones(len(y)), np.full(k, 0.5)])
    total = len(y) + 0.5 * k
    # with two classes scikit-learn has one vector w where we have −w/2 and w/2, penalised half as much
    C = 1.0 / (0.01 * total) * (2.0 if k == 2 else 1.0)
    peer = LogisticRegression(C=C, tol=1e-8, max_iter=10_000).fit(padded, target, weight)
    np.testing.assert_allclose(softmax(Z @ W + intercept), peer.predict_proba(Z), atol=2e-5)


def test_a_class_without_rows_is_unlikely_and_not_impossible() -> None:
    Z, y = _classes(k=2)
    W, intercept = SoftmaxRegression.of(Z, y, 3).solve(1e-4, _never)
    p = softmax(Z @ W + intercept)
    assert np.isfinite(p).all()
    assert 0.0 < p[:, 2].mean() < 0.02


def test_weights_count_as_repeated_rows() -> None:
    Z, y = _classes(k=2)
    weight = np.where(y == 1, 2.0, 1.0)
    repeated = np.repeat(np.arange(len(y)), weight.astype(int))
    a, _ = SoftmaxRegression.of(Z, y, 2, weight).solve(0.1, _never)
    b, _ = SoftmaxRegression.of(Z[repeated], y[repeated], 2).solve(0.1, _never)
    np.testing.assert_allclose(a, b, atol=2e-3)  # half pseudo-rows weigh a little differently


def test_out_of_time_the_solver_stops_where_it_is() -> None:
    Z, y = _classes()
    calls = itertools.count()
    W, _ = SoftmaxRegression.of(Z, y, 3).solve(1e-4, lambda: next(calls) >= 0)
    assert next(calls) == 1
    far, _ = SoftmaxRegression.of(Z, y, 3).solve(1e-4, _never)
    assert 0.0 < np.abs(W).sum() < np.abs(far).sum()


def test_log_loss_and_softmax_bear_extremes() -> None:
    z = np.array([[1e4, 0.0], [0.0, 1e4]])
    assert log_loss(z, np.array([0, 0])) == 5000.0
    assert softmax(z).tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert softmax(np.empty((0, 2))).shape == (0, 2)


def test_ridge_residuals_are_those_of_the_fit_without_the_row() -> None:
    rng = np.random.default_rng(0)
    Z, weight = rng.normal(size=(25, 3)), rng.uniform(0.5, 2.0, 25)
    y = Z @ np.array([1.0, -2.0, 0.0]) + rng.normal(size=25)
    found = ridge(Z, y, weight)
    w = weight / weight.mean()

    def left_out(strength: float) -> np.ndarray:
        centred = Z - w @ Z / 25
        out = np.empty(25)
        for i in range(25):
            keep = np.arange(25) != i
            A = np.column_stack([centred[keep], np.ones(24)])
            gram = A.T @ (w[keep, None] * A) + np.diag([25 * strength] * 3 + [0.0])
            out[i] = y[i] - np.append(centred[i], 1.0) @ np.linalg.solve(gram, A.T @ (w[keep] * y[keep]))
        return out

    errors = {s: float(w @ left_out(s) ** 2) for s in STRENGTHS}
    np.testing.assert_allclose(found.residuals, left_out(min(errors, key=errors.__getitem__)), atol=1e-9)
