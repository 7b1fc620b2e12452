"""Estimators from outside: converted exactly, or refused by name with what to do."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, QuantileRegressor
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from makegood.contracts import Budget, Dataset, Family, Probabilities, Quantiles, Task
from makegood.errors import CaseError, Refused
from makegood.families import wrap

BINARY, THREE, NUMBER = Task("classes", ("no", "yes")), Task("classes", ("a", "b", "c")), Task("number")


class Dice(ClassifierMixin, BaseEstimator):
    """A classifier that no converter knows."""

    def fit(self, X: Any, y: Any) -> Dice:
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        return np.zeros(len(X), int)

    def predict_proba(self, X: Any) -> Any:
        return np.full((len(X), len(self.classes_)), 1.0 / len(self.classes_))


def _data(codes: tuple[int, ...] = (0, 1), offset: float = 0.0) -> Dataset:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4)).astype(np.float32)
    X[:, 0] = np.round(10.0 * X[:, 0]) + offset
    y = np.array(codes)[np.searchsorted(np.quantile(X[:, 1], np.arange(1, len(codes)) / len(codes)), X[:, 1])]
    return Dataset(pa.table({"row": np.arange(200)}), X, y)


def _fit(estimator: Any, task: Task, data: Dataset) -> Family:
    train, valid = data.take(np.arange(140)), data.take(np.arange(140, 200))
    return wrap(estimator).make(task).fit(train, valid, budget=Budget(60.0, time.perf_counter()), seed=0)


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(StandardScaler(), LogisticRegression()),
        RandomForestClassifier(10),
        GaussianNB(),
        KNeighborsClassifier(),
        CalibratedClassifierCV(LinearSVC()),
    ],
    ids=lambda e: type(e).__name__,
)
def test_the_converted_estimator_predicts_as_scikit_learn_does(estimator: Any) -> None:
    data = _data()
    family = _fit(estimator, BINARY, data)
    native = estimator.set_params(**({"random_state": 0} if "random_state" in estimator.get_params() else {}))
    native.fit(np.asarray(data.features)[:140], np.asarray(data.outcome)[:140])
    found = family.predict(data)
    assert isinstance(found, Probabilities)
    inside = np.clip(np.asarray(data.features), np.asarray(data.features)[:140].min(0), np.asarray(data.features)[:140].max(0))
    np.testing.assert_allclose(found.p, native.predict_proba(inside), atol=1e-5)


def test_the_estimator_given_is_not_changed() -> None:
    estimator = RandomForestClassifier(5)
    _fit(estimator, BINARY, _data())
    assert not hasattr(estimator, "classes_")
    assert estimator.random_state is None


def test_a_class_that_it_never_saw_gets_no_probability() -> None:
    found = _fit(LogisticRegression(), THREE, _data((0, 2))).predict(_data())
    assert isinstance(found, Probabilities)
    assert (found.p[:, 1] == 0.0).all()
    assert (found.p[:, [0, 2]] > 0.0).all()


def test_a_regressor_gets_the_quantiles_of_its_residuals() -> None:
    data = _data()
    X = np.asarray(data.features)
    noisy = Dataset(data.table, X, X[:, 1] * 3.0 + np.random.default_rng(1).normal(size=200))
    found = _fit(LinearRegression(), NUMBER, noisy).predict(noisy)
    assert isinstance(found, Quantiles)
    assert 0.7 < (np.asarray(noisy.outcome) <= found.q[:, 8]).mean() < 0.9
    np.testing.assert_allclose(np.ptp(found.q - found.q[:, :1], axis=0), 0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (LinearSVC(), "wrap: got 'LinearSVC'; expected a classifier with predict_proba; wrap CalibratedClassifierCV(LinearSVC())"),
        (
            StandardScaler(),
            "wrap: got 'StandardScaler'; expected a scikit-learn classifier or regressor, or a torch.nn.Module; give one of these",
        ),
        (LogisticRegression, "wrap: got 'LogisticRegression'; expected an estimator, not its class; write LogisticRegression()"),
        (
            5,
            "wrap: got 'int'; expected a scikit-learn estimator, a torch.nn.Module, a compiled keras.Model, or the path of a saved one; "
            "give one of these",
        ),
    ],
    ids=["no probabilities", "transformer", "class", "nothing of the kind"],
)
def test_what_cannot_be_a_candidate_is_refused_at_once(estimator: Any, message: str) -> None:
    with pytest.raises(CaseError) as error:
        wrap(estimator)
    assert str(error.value) == message


def test_an_estimator_of_the_other_kind_is_refused() -> None:
    with pytest.raises(CaseError) as error:
        _fit(LinearRegression(), BINARY, _data())
    assert str(error.value) == "wrap: got 'LinearRegression'; expected an estimator for an outcome of classes; wrap the matching kind"


def test_an_estimator_without_a_converter_is_refused_by_name() -> None:
    with pytest.raises(CaseError) as error:
        _fit(Dice(), BINARY, _data())
    assert str(error.value).startswith("wrap(Dice): got ")
    assert str(error.value).endswith(
        "expected an estimator that converts to ONNX; wrap one that skl2onnx supports; gradient boosting is built in as lightgbm"
    )


def test_a_conversion_that_loses_digits_is_refused() -> None:
    data = _data(offset=1e7)  # the graph computes in float32, where 0.37 · 1e7 + b cancels
    y = 0.37 * (np.asarray(data.features)[:, 0].astype(np.float64) - 1e7)
    with pytest.raises(Refused) as error:
        _fit(QuantileRegressor(alpha=0.0), NUMBER, Dataset(data.table, data.features, y))
    assert str(error.value).startswith("wrap(QuantileRegressor): got 'an ONNX model that differs by ")
    assert str(error.value).endswith("expected at most 1e-05; wrap another estimator, or scale its features")


def test_without_the_converter_the_missing_extra_is_named() -> None:
    script = (
        "import sys; sys.modules['skl2onnx'] = None\n"
        "from makegood.errors import MissingExtra\n"
        "from makegood.families import wrap\n"
        "try: wrap(object())\n"
        "except MissingExtra as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert out == "wrap; expected skl2onnx, which converts scikit-learn to ONNX; pip install 'makegood[wrap]'"


def test_a_name_can_be_given() -> None:
    assert wrap(GaussianNB()).name == "GaussianNB"
    assert wrap(GaussianNB(), name="naive").name == "naive"
