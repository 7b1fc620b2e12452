"""Any scikit-learn estimator as a family: fitted by scikit-learn, converted to ONNX at once, and from then on scored by ONNX alone.

So what is evaluated is what is deployed, nothing is pickled, and an estimator that cannot be converted is refused before it wins.
"""

from __future__ import annotations

import base64
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from makegood.contracts import Budget, Dataset, Floats, Ints, Predictive, Task
from makegood.errors import CaseError, MissingExtra, Problem, Refused
from makegood.families.onnx import OPSETS, Graph, edge_rows, merge
from makegood.families.tabular import features_of, load_state, predictive, save_state
from makegood.scorer import INPUT, Scorer

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

PARITY = 1e-5
"""The largest difference between scikit-learn's prediction and ONNX's: of a probability, or of a number in standard deviations."""


def check_estimator(estimator: BaseEstimator) -> None:
    """Raise `CaseError` unless it is a classifier with `predict_proba` or a regressor, `MissingExtra` without the converter."""
    if find_spec("skl2onnx") is None:
        raise MissingExtra(Problem("wrap", "", "skl2onnx, which converts scikit-learn to ONNX", "pip install 'makegood[wrap]'"))
    from sklearn.base import is_classifier, is_regressor

    name = type(estimator).__name__
    if isinstance(estimator, type):
        raise CaseError(Problem("wrap", estimator.__name__, "an estimator, not its class", f"write {estimator.__name__}()"))
    if is_classifier(estimator) and not hasattr(estimator, "predict_proba"):
        raise CaseError(Problem("wrap", name, "a classifier with predict_proba", f"wrap CalibratedClassifierCV({name}())"))
    if not is_classifier(estimator) and not is_regressor(estimator):
        raise CaseError(Problem("wrap", name, "a scikit-learn classifier or regressor", "give an object with fit and predict"))


class Wrapped:
    """A clone of a scikit-learn estimator. A regressor gets the quantiles of its residuals on the validation rows.

    Rows outside the range of the training rows are read as if on its border, so that no input overflows. It knows no budget.
    """

    rows = 1  # a foreign graph may score a row otherwise inside a batch
    model_: bytes  # the converted estimator
    codes_: Ints  # the classes that it saw
    shape_: Floats  # number: quantiles of the residuals
    low_: Floats
    high_: Floats

    def __init__(self, task: Task, estimator: BaseEstimator | None = None) -> None:
        self.task = task
        self.estimator = estimator

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        """Return self; raises `CaseError` on a wrong kind of estimator and `Refused` where the conversion is not exact."""
        from sklearn.base import clone, is_classifier

        name, wanted = type(self.estimator).__name__, self.task.kind
        if is_classifier(self.estimator) != (wanted == "classes"):
            raise CaseError(Problem("wrap", name, f"an estimator for an outcome of {wanted}", "wrap the matching kind"))
        X = features_of(train)
        self.low_, self.high_ = X.min(axis=0), X.max(axis=0)
        estimator = clone(self.estimator)
        if "random_state" in estimator.get_params() and estimator.get_params()["random_state"] is None:
            estimator.set_params(random_state=seed)
        estimator.fit(X, train.outcome)
        self.model_ = _converted(estimator, X.shape[1])
        self.codes_, self.shape_ = np.arange(len(self.task.classes)), np.zeros(len(self.task.levels))
        if wanted == "classes":
            self.codes_ = np.asarray(estimator.classes_, np.int64)
        else:
            residuals = np.asarray(valid.outcome) - estimator.predict(self._clipped(features_of(valid)))
            self.shape_ = np.quantile(residuals, self.task.levels)
        self._check(estimator, features_of(valid), float(np.std(np.asarray(train.outcome))), seed)
        return self

    def _clipped(self, X: Floats) -> Floats:
        return np.clip(X, self.low_, self.high_)

    def _check(self, estimator: Any, X: Floats, spread: float, seed: int) -> None:
        """Raise `Refused` unless ONNX agrees with scikit-learn on the rows and at their edges."""
        scorer = self._scorer()
        rows = np.concatenate([X, edge_rows(scorer, X, seed)[0]])
        if self.task.kind == "classes":
            native = np.zeros((len(rows), len(self.task.classes)))
            native[:, self.codes_] = estimator.predict_proba(self._clipped(rows))
            spread = 1.0
        else:
            native = np.asarray(estimator.predict(self._clipped(rows)), np.float64)[:, None] + self.shape_
        worst = float(np.abs(native - scorer(rows)).max()) / (spread or 1.0)
        if not worst <= PARITY:
            name = type(self.estimator).__name__
            got = f"an ONNX model that differs by {worst:.2g}"
            raise Refused(Problem(f"wrap({name})", got, f"at most {PARITY:g}", "wrap another estimator, or scale its features"))

    def _scorer(self) -> Scorer:
        k = len(self.task.classes) if self.task.kind == "classes" else len(self.task.levels)
        return merge([(self, 1.0)], len(self.low_), k)

    def predict(self, data: Dataset) -> Predictive:
        """Return probabilities, or quantiles."""
        return predictive(self.task, self._scorer()(np.ascontiguousarray(features_of(data), np.float32)))

    def write(self, graph: Graph) -> str:
        """Add the converted estimator to a graph."""
        clipped = graph.op("Min", graph.op("Max", graph.features, self.low_), self.high_)
        raw = graph.double(graph.include(self.model_, clipped))
        if self.task.kind == "number":
            return graph.op("Add", graph.op("Reshape", raw, np.array([-1, 1])), self.shape_)
        raw = graph.op("Max", raw, np.array(0.0))  # forests' sums may miss zero by a rounding error
        k = len(self.task.classes)
        if len(self.codes_) == k:
            return raw
        column = np.full(k, len(self.codes_))  # classes that it never saw get the column of zeros
        column[self.codes_] = np.arange(len(self.codes_))
        padded = graph.op("Pad", raw, np.array([0, 0, 0, 1]), np.array(0.0))
        return graph.op("Gather", padded, column, axis=1)

    def save(self, folder: Path) -> None:
        """Write the converted estimator; the scikit-learn object is not kept."""
        arrays = {name: getattr(self, name).tolist() for name in ("codes_", "shape_", "low_", "high_")}
        save_state(folder, self.task, {"model": base64.b64encode(self.model_).decode(), **arrays})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return what was saved: it predicts, and cannot be fitted again."""
        task, state = load_state(folder)
        self = cls(task)
        self.model_ = base64.b64decode(state["model"])
        self.codes_, self.shape_ = np.array(state["codes_"], np.int64), np.array(state["shape_"], np.float64)
        self.low_, self.high_ = np.array(state["low_"], np.float32), np.array(state["high_"], np.float32)
        return self


def _converted(estimator: Any, n_features: int) -> bytes:
    """Return the ONNX model of a fitted estimator; raises `CaseError` naming one that has no converter."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator

    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "classes_") else None
    inputs = [(INPUT, FloatTensorType([None, n_features]))]
    try:
        model = convert_sklearn(estimator, initial_types=inputs, options=options, target_opset=OPSETS)
    except (MissingConverter, MissingShapeCalculator, RuntimeError, ValueError) as error:
        name, reason = type(estimator).__name__, str(error).strip().splitlines()[0][:120]
        mend = "wrap one that skl2onnx supports; gradient boosting is built in as lightgbm"
        raise CaseError(Problem(f"wrap({name})", reason, "an estimator that converts to ONNX", mend)) from None
    return bytes(model.SerializeToString())
