from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from makegood.contracts import Floats, Ints
from makegood.economics.calibrate import FLOOR, KINDS, Calibrator, PromiseMap, fit_calibrator, fit_promise, log_loss
from makegood.errors import BundleError

Data = tuple[Floats, Ints, Ints]


def drawn(true: Floats, seen: Floats, seed: int = 0) -> Data:
    """Return what a model said, the class that came by the true probabilities, and five folds."""
    rng = np.random.default_rng(1000 + seed)
    y = (rng.random(len(true))[:, None] > np.cumsum(true, axis=1)).sum(axis=1)
    return seen, np.minimum(y, true.shape[1] - 1), rng.integers(0, 5, len(true))


def binary(p: Floats) -> Floats:
    return np.column_stack([1.0 - p, p])


def simplex(n: int, k: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).dirichlet(np.full(k, 0.7), n)


def normalised(p: Floats) -> Floats:
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def every_kind(k: int) -> list[Calibrator]:
    """Return one calibrator of each kind, fitted on the same data; which of them would be chosen is another test's matter."""
    true = simplex(3000, k)
    p, y, _ = drawn(true, normalised(true**1.7 + 0.01))
    return [fit_calibrator(p, y, kind=kind) for kind in KINDS]


BINARY, THREE, TWELVE = every_kind(2), every_kind(3), every_kind(12)


# ------------------------------------------------------------------------------------------------------------ the choice


def test_calibrated_probabilities_are_left_alone() -> None:
    true = binary(np.random.default_rng(1).beta(2, 5, 5000))
    found = fit_calibrator(*drawn(true, true, 1))
    np.testing.assert_allclose(found.apply(true), true, atol=0.04)
    assert found.losses["identity"] - found.losses[found.kind] < 1e-3
    assert set(found.losses) == set(KINDS)


def test_overconfidence_takes_a_temperature() -> None:
    true = simplex(6000, 4)
    found = fit_calibrator(*drawn(true, normalised(true**2.5), 2))
    assert found.kind == "temperature"
    assert found.parameters[0][0] == pytest.approx(2.5, rel=0.1)


def test_a_skewed_model_takes_beta() -> None:
    p = np.random.default_rng(3).beta(1, 1, 8000)
    true = 1 / (1 + np.exp(-(0.5 * np.log(p) - 2.0 * np.log(1 - p) + 0.4)))
    found = fit_calibrator(*drawn(binary(true), binary(p), 3))
    assert found.kind == "beta"
    np.testing.assert_allclose(found.parameters[0], [0.5, 2.0, 0.4], atol=0.15)


def test_steps_take_isotonic() -> None:
    p = np.random.default_rng(4).random(20_000)
    true = np.where(p < 0.3, 0.05, np.where(p < 0.8, 0.5, 0.6))
    found = fit_calibrator(*drawn(binary(true), binary(p), 4))
    assert found.kind == "isotonic"
    assert np.abs(found.apply(binary(p))[:, 1] - true).mean() < 0.02


@pytest.mark.parametrize("k", [2, 3])
def test_calibration_lowers_the_loss_on_fresh_rows(k: int) -> None:
    true = simplex(8000, k, 5)
    seen = normalised(true**0.4)
    p, y, folds = drawn(true, seen, 5)
    found = fit_calibrator(p[:4000], y[:4000], folds[:4000])
    before, after = (float(log_loss(q, y[4000:]).mean()) for q in (p[4000:], found.apply(p[4000:])))
    best = float(log_loss(np.maximum(true[4000:], FLOOR), y[4000:]).mean())
    assert after - best < 0.2 * (before - best)


def test_the_loss_is_judged_on_the_folds_given() -> None:
    p, y, folds = drawn(binary(np.full(60, 0.5)), binary(np.linspace(0.01, 0.99, 60)), 6)
    by_row = fit_calibrator(p, y, np.arange(60) // 3)
    assert by_row.losses != fit_calibrator(p, y, folds).losses
    assert by_row.losses["isotonic"] > by_row.losses["temperature"]


@pytest.mark.parametrize("folds", [None, np.zeros(500, dtype=int)])
def test_without_folds_five_are_drawn_by_seed(folds: Ints | None) -> None:
    true = binary(np.random.default_rng(7).random(500))
    p, y, _ = drawn(true, true, 7)
    one, again, other = (fit_calibrator(p, y, folds, seed=s) for s in (1, 1, 2))
    assert one.losses == again.losses
    assert one.losses != other.losses


def test_losses_stay_finite_where_the_model_is_sure_and_wrong() -> None:
    p = binary(np.array([0.0, 1.0] * 50))
    found = fit_calibrator(p, np.array([1, 0] * 50))
    assert np.isfinite(list(found.losses.values())).all()
    assert np.isfinite(log_loss(found.apply(p), np.array([1, 0] * 50))).all()


def test_a_class_that_some_folds_lack() -> None:
    y = np.array([0] * 60 + [1] * 59 + [2])
    found = fit_calibrator(simplex(120, 3), y, np.arange(120) // 60)
    assert np.isfinite(list(found.losses.values())).all()


def test_a_kind_that_is_asked_for_is_fitted_without_a_choice() -> None:
    p, y, folds = drawn(simplex(500, 3), simplex(500, 3))
    assert [fit_calibrator(p, y, folds, kind=kind).kind for kind in KINDS] == list(KINDS)
    assert fit_calibrator(p, y, kind="beta").losses == {}


# --------------------------------------------------------------------------------------------------------------- applying


@pytest.mark.parametrize("calibrator", BINARY + THREE + TWELVE, ids=lambda c: c.kind)
def test_a_row_alone_and_among_others_is_the_same_to_the_last_bit(calibrator: Calibrator) -> None:
    k = 12 if calibrator in TWELVE else 3 if calibrator in THREE else 2
    p = np.concatenate([simplex(1001, k, 8), np.eye(k), np.full((1, k), 1 / k)])
    whole = calibrator.apply(p)
    for i in range(len(p)):
        assert np.array_equal(calibrator.apply(p[i : i + 1])[0], whole[i])
    assert np.array_equal(calibrator.apply(np.asfortranarray(p)), whole)
    assert np.array_equal(calibrator.apply(p[::-1])[::-1], whole)


@pytest.mark.parametrize("calibrator", BINARY + THREE + TWELVE, ids=lambda c: c.kind)
def test_rows_are_positive_and_sum_to_one(calibrator: Calibrator) -> None:
    k = 12 if calibrator in TWELVE else 3 if calibrator in THREE else 2
    found = calibrator.apply(np.concatenate([simplex(500, k, 9), np.eye(k)]))
    assert (found >= calibrator.floor / k).all()
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-12)


@pytest.mark.parametrize("calibrator", BINARY, ids=lambda c: c.kind)
@given(p=arrays(np.float64, 50, elements=st.floats(0.0, 1.0)))
def test_of_two_classes_the_order_of_rows_is_kept(calibrator: Calibrator, p: Floats) -> None:
    found = calibrator.apply(binary(np.sort(p)))[:, 1]
    assert (np.diff(found) >= -1e-15).all()


def test_identity_returns_what_it_was_given() -> None:
    p = simplex(300, 5, 10)
    p = np.maximum(p, 1e-3) / np.maximum(p, 1e-3).sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(Calibrator().apply(p), p)


@pytest.mark.parametrize("calibrator", BINARY + THREE, ids=lambda c: c.kind)
def test_json_gives_the_same_calibrator(calibrator: Calibrator) -> None:
    again = Calibrator.from_json(json.loads(json.dumps(calibrator.to_json())))
    p = simplex(100, 3 if calibrator in THREE else 2, 11)
    assert again.kind == calibrator.kind
    assert np.array_equal(again.apply(p), calibrator.apply(p))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(BundleError) as error:
        Calibrator.from_json({"kind": "spline", "parameters": [], "floor": 0.0, "losses": {}})
    assert str(error.value) == (
        "calibrator.kind: got 'spline'; expected one of identity, temperature, beta, isotonic; load it with the version that wrote it"
    )


def test_applying_needs_numpy_alone() -> None:
    code = (
        "import sys, numpy as np; from makegood.economics import calibrate, conformal; "
        "calibrate.Calibrator('beta', (np.array([1.0, 2.0, 0.1]),)).apply(np.array([[.4, .6]])); "
        "print([m for m in sys.modules if m.split('.')[0] in ('scipy', 'sklearn', 'pandas')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --------------------------------------------------------------------------------------------------------------- promises


def test_with_too_few_decisions_promises_stay_and_the_map_says_so() -> None:
    rng = np.random.default_rng(12)
    m = rng.normal(size=1000)
    found = fit_promise(m, m - 1.0, revealed=np.arange(1000) < 99)
    assert (found.slope, found.intercept) == (1.0, 0.0)
    assert found.note == "Promises are not corrected: 99 decisions of uncertain payoff reveal it, and 100 are needed."
    assert np.array_equal(found.apply(m), m)


def test_the_mean_promise_is_the_mean_payoff() -> None:
    rng = np.random.default_rng(13)
    m = rng.lognormal(0.0, 1.0, 500)
    r = 0.5 * m - 2.0 + rng.standard_t(3, 500)
    found = fit_promise(m, r)
    assert found.apply(m).mean() == pytest.approx(r.mean())
    assert found.slope == pytest.approx(0.5, abs=0.15)
    assert found.note == f"A promise is {found.slope:.3g} times the expected payoff {found.intercept:+.3g}, as 500 decisions turned out."


def test_noise_does_not_tilt_the_promise() -> None:
    slopes = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        m = rng.lognormal(0.0, 1.0, 200)
        slopes.append(fit_promise(m, m * (1.0 + 5.0 * rng.normal(size=200))).slope)
    assert np.median(np.abs(np.array(slopes) - 1.0)) < 0.05


def test_a_greater_payoff_is_never_promised_less() -> None:
    m = np.linspace(0.0, 1.0, 200)
    assert fit_promise(m, -5.0 * m).slope == 0.0


def test_only_revealed_decisions_count() -> None:
    m = np.random.default_rng(14).normal(size=400)
    r = np.where(np.arange(400) < 200, m - 3.0, 1e6)
    found = fit_promise(m, r, revealed=np.arange(400) < 200)
    assert found.n == 200
    assert found.intercept == pytest.approx(-3.0)


def test_what_is_certain_is_promised_as_it_is() -> None:
    rng = np.random.default_rng(15)
    declined = rng.random(1000) < 0.4
    m = np.where(declined, -0.3 * (0.1 + 0.9 + 1e-16), rng.exponential(size=1000))
    r = np.where(declined, -0.3, m - 1.0 + rng.normal(size=1000))
    found = fit_promise(m, r)
    assert found.certain == (-0.3,)
    assert found.n == int((~declined).sum())
    assert np.array_equal(found.apply(m)[declined], m[declined])
    assert found.apply(m).mean() == pytest.approx(r.mean())


def test_a_payoff_that_most_got_as_promised_is_not_certain() -> None:
    m = np.zeros(500)
    r = np.where(np.arange(500) < 10, -50.0, 0.0)
    found = fit_promise(m, r)
    assert found.certain == ()
    assert (found.slope, found.intercept) == (1.0, -1.0)


def test_everything_certain_leaves_nothing_to_correct() -> None:
    found = fit_promise(np.zeros(500), np.zeros(500))
    assert (found.certain, found.n, found.slope) == ((0.0,), 0, 1.0)


def test_a_promise_alone_and_among_others_is_the_same_to_the_last_bit() -> None:
    h = PromiseMap(0.73, -1.1, (0.0, 2.5), 500)
    m = np.concatenate([np.random.default_rng(16).normal(size=1000), [0.0, 2.5]])
    whole = h.apply(m)
    assert [float(h.apply(m[i : i + 1])[0]) for i in range(len(m))] == whole.tolist()


def test_a_map_survives_json() -> None:
    h = PromiseMap(0.1 + 0.2, -1 / 3, (0.0,), 812)
    assert PromiseMap.from_json(json.loads(json.dumps(h.to_json()))) == h


def test_no_mistake_seen_is_not_taken_for_none_to_come() -> None:
    promise = np.linspace(-0.02, -0.001, 300)  # each expects to lose a little, for the mistakes that it may make
    realised = np.zeros(300)
    realised[:9] = -3.0
    found = fit_promise(promise, realised)
    assert (found.slope, found.intercept) == (1.0, 0.0)
    assert found.note == "Promises are not corrected: 9 decisions of uncertain payoff reveal it, and 100 are needed."
    realised[9] = -3.0
    assert fit_promise(promise, realised).apply(promise).mean() == pytest.approx(realised.mean())
