"""Any scikit-learn estimator as a family: fitted by scikit-learn, converted to ONNX at once, and from then on scored by ONNX alone."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from makegood.contracts import Budget, Dataset, Floats, Task
from makegood.errors import CaseError, MissingExtra, Problem
from makegood.families.converted import Converted
from makegood.families.onnx import OPSETS
from makegood.families.tabular import features_of
from makegood.scorer import INPUT

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator


def check_estimator(estimator: BaseEstimator) -> None:
    """Raise `CaseError` unless it is a classifier with `predict_proba` or a regressor, `MissingExtra` without the converter."""
    if find_spec("skl2onnx") is None:
        raise MissingExtra(Problem("wrap", "", "skl2onnx, which converts scikit-learn to ONNX", "pip install 'makegood[wrap]'"))
    from sklearn.base import is_classifier, is_regressor

    name = type(estimator).__name__
    if isinstance(estimator, type):
        raise CaseError(Problem("wrap", estimator.__name__, "an estimator, not its class", f"write {estimator.__name__}()"))
    if not hasattr(estimator, "__sklearn_tags__"):
        expected = "a scikit-learn estimator, a torch.nn.Module, a compiled keras.Model, or the path of a saved one"
        raise CaseError(Problem("wrap", name, expected, "give one of these"))
    if is_classifier(estimator) and not hasattr(estimator, "predict_proba"):
        raise CaseError(Problem("wrap", name, "a classifier with predict_proba", f"wrap CalibratedClassifierCV({name}())"))
    if not is_classifier(estimator) and not is_regressor(estimator):
        raise CaseError(Problem("wrap", name, "a scikit-learn classifier or regressor, or a torch.nn.Module", "give one of these"))


class Wrapped(Converted):
    """A clone of a scikit-learn estimator. A regressor gets the quantiles of its residuals on the validation rows. It knows no budget."""

    def __init__(self, task: Task, estimator: BaseEstimator | None = None) -> None:
        super().__init__(task)
        self.estimator = estimator

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        """Return self; raises `CaseError` on a wrong kind of estimator and `Refused` where the conversion is not exact."""
        from sklearn.base import clone, is_classifier

        name, classes = type(self.estimator).__name__, self.task.kind == "classes"
        if is_classifier(self.estimator) != classes:
            expected = f"an estimator for an outcome of {self.task.kind}"
            raise CaseError(Problem("wrap", name, expected, "wrap the matching kind"))
        X = features_of(train)
        self._keep_range(X)
        estimator = clone(self.estimator)
        if "random_state" in estimator.get_params() and estimator.get_params()["random_state"] is None:
            estimator.set_params(random_state=seed)
        estimator.fit(X, train.outcome)
        self.model_ = _converted(estimator, X.shape[1])
        self.codes_ = np.asarray(estimator.classes_, np.int64) if classes else np.empty(0, np.int64)

        def native(rows: Floats) -> Floats:
            return np.asarray(estimator.predict_proba(rows) if classes else estimator.predict(rows))

        self._accept(native, train, valid, seed, f"wrap({name})")
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
