"""What stages do with any prediction: rows, averages, losses, calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from makegood.contracts import Effects, Predictive, Probabilities, Quantiles, Ranking, Text
from makegood.economics.calibrate import fit_calibrator
from makegood.stages.predictives import LOSS, blend, calibrate, calibrated, concatenate, losses, take

P = Probabilities(("no", "yes"), np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]))
Q = Quantiles((0.1, 0.5, 0.9), np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0], [0.0, 0.0, 0.0]]))
PATH = Quantiles((0.5,), np.arange(6.0).reshape(3, 2, 1))
R = Ranking(np.array([["a", "b"], ["b", "c"], ["c", "a"]], object), np.array([[0.8, 0.4], [0.5, 0.25], [0.9, 0.1]]))
E = Effects(("wait", "treat"), np.array([[1.0, 2.0], [3.0, 1.0], [0.0, 0.0]]), np.full((3, 2), 0.5))
T = Text(("x", "y", "z"), np.array([0.9, 0.5, 0.2]), (("q1",), ("q2",), ("q3", "q4")))
ALL = [P, Q, PATH, R, E, T]


def _wanted(*sets: set[str]) -> Any:
    out = np.empty(len(sets), object)
    out[:] = sets
    return out


OUTCOMES: list[Any] = [
    np.array([0, 0, 1]),
    np.array([2.0, 2.5, 1.0]),
    np.array([[0.0, 2.0], [2.0, np.nan], [5.0, 5.0]]),
    _wanted({"a"}, {"c"}, set()),
    np.array([[1.0, np.nan], [np.nan, 2.0], [1.0, 3.0]]),
    np.array(["x", "n", "z"], object),
]


def _kind(predictive: Predictive) -> str:
    return type(predictive).__name__


@pytest.mark.parametrize("predictive", ALL, ids=_kind)
def test_rows_are_taken_in_the_order_asked_and_put_together_again(predictive: Predictive) -> None:
    reverse = take(predictive, np.array([2, 1, 0]))
    assert len(reverse) == 3
    assert type(reverse) is type(predictive)
    parts = [take(predictive, np.array([i])) for i in (2, 1, 0)]
    assert repr(concatenate(parts)) == repr(reverse)
    assert repr(take(reverse, np.array([2, 1, 0]))) == repr(predictive)
    assert len(take(predictive, np.empty(0, np.int64))) == 0


@pytest.mark.parametrize(
    ("predictive", "outcome", "expected"),
    [
        (P, OUTCOMES[0], [-np.log(0.9), -np.log(0.5), -np.log(0.8)]),
        (Q, OUTCOMES[1], [(0.1 + 0.0 + 0.1) / 3, (0.05 + 0.25 + 0.15) / 3, (0.1 + 0.5 + 0.9) / 3]),
        (PATH, OUTCOMES[2], [0.25, 0.0, 0.25]),
        (R, OUTCOMES[3], [-(np.log(0.8) + np.log(0.6)) / 2, -(np.log(0.5) + np.log(0.25)) / 2, -(np.log(0.1) + np.log(0.9)) / 2]),
        (E, OUTCOMES[4], [0.0, 1.0, 5.0]),
        (T, OUTCOMES[5], [-np.log(0.9), -np.log(0.5), -np.log(0.2)]),
    ],
    ids=["Probabilities", "Quantiles", "Horizon", "Ranking", "Effects", "Text"],
)
def test_losses_are_known_answers(predictive: Predictive, outcome: Any, expected: list[float]) -> None:
    np.testing.assert_allclose(losses(predictive, outcome), expected)


def test_a_certain_error_has_a_finite_loss() -> None:
    certain = Probabilities(("no", "yes"), np.array([[1.0, 0.0]]))
    assert losses(certain, np.array([1]))[0] == pytest.approx(-np.log(1e-15))
    sure = Text(("x",), np.array([1.0]), ((),))
    assert losses(sure, np.array(["y"]))[0] == pytest.approx(-np.log(1e-15))


@pytest.mark.parametrize("predictive", ALL, ids=_kind)
def test_every_loss_has_a_name(predictive: Predictive) -> None:
    assert LOSS[type(predictive)]


@pytest.mark.parametrize("predictive", ALL, ids=_kind)
def test_one_part_is_its_own_average(predictive: Predictive) -> None:
    assert blend([predictive], [1.0]) is predictive


@pytest.mark.parametrize(
    "predictive",
    [P, Q, PATH, E],
    ids=_kind,
)
def test_arrays_are_averaged(predictive: Predictive) -> None:
    reverse = take(predictive, np.array([2, 1, 0]))
    mean = blend([predictive, reverse], [0.75, 0.25])
    for name in {"Probabilities": ["p"], "Quantiles": ["q"], "Effects": ["mean", "se"]}[_kind(predictive)]:
        expected = 0.75 * getattr(predictive, name) + 0.25 * getattr(predictive, name)[::-1]
        np.testing.assert_allclose(getattr(mean, name), expected)


def test_rankings_are_averaged_item_by_item() -> None:
    other = Ranking(np.array([["b", "c"]] * 3, object), np.array([[1.0, 0.6]] * 3))
    mean = blend([R, other], [0.5, 0.5])
    assert isinstance(mean, Ranking)
    assert mean.items[0].tolist() == ["b", "a"]
    assert mean.scores[0].tolist() == pytest.approx([0.7, 0.4])


def test_answers_are_voted_on_by_confidence() -> None:
    other = Text(("n", "y", "n"), np.array([0.5, 0.7, 0.9]), (("q5",), ("q6",), ("q7",)))
    mean = blend([T, other], [0.6, 0.4])
    assert isinstance(mean, Text)
    assert mean.answers == ("x", "y", "n")
    np.testing.assert_allclose(mean.confidence, [0.54, 0.58, 0.36])
    assert mean.citations == (("q1",), ("q2",), ("q7",))


def _sharp(n: int = 1200) -> tuple[Probabilities, Any]:
    rng = np.random.default_rng(0)
    true = rng.random(n)
    sharp = true**3 / (true**3 + (1.0 - true) ** 3)
    return Probabilities(("no", "yes"), np.column_stack([1.0 - sharp, sharp])), (rng.random(n) < true).astype(np.int64)


def test_probabilities_are_calibrated_by_other_folds_than_their_own() -> None:
    raw, y = _sharp()
    folds = np.arange(len(y)) % 3
    calibrator, oof = calibrate(raw, y, folds, seed=0)
    assert calibrator is not None
    assert calibrator.kind != "identity"
    assert isinstance(oof, Probabilities)
    assert losses(oof, y).mean() < losses(raw, y).mean() - 0.1
    for fold in range(3):
        here = folds == fold
        by_others = fit_calibrator(raw.p[~here], y[~here], kind=calibrator.kind)
        assert (oof.p[here] == by_others.apply(raw.p[here])).all()


def test_new_rows_get_the_calibrator_of_all_folds() -> None:
    raw, y = _sharp()
    calibrator, _ = calibrate(raw, y, np.arange(len(y)) % 3, seed=0)
    assert calibrator is not None
    new = calibrated(raw, calibrator)
    assert isinstance(new, Probabilities)
    assert (new.p == calibrator.apply(raw.p)).all()
    assert calibrated(raw, None) is raw


def test_the_confidence_of_answers_is_calibrated() -> None:
    raw, y = _sharp()
    answers = Text(("a",) * len(y), raw.p[:, 1], ((),) * len(y))
    calibrator, oof = calibrate(answers, np.where(y == 1, "a", "b").astype(object), np.arange(len(y)) % 3, seed=0)
    assert calibrator is not None
    assert isinstance(oof, Text)
    assert np.abs(oof.confidence - 0.5).mean() < np.abs(answers.confidence - 0.5).mean()
    assert isinstance(calibrated(answers, calibrator), Text)


@pytest.mark.parametrize(
    ("predictive", "outcome"), [(Q, OUTCOMES[1]), (R, OUTCOMES[3]), (E, OUTCOMES[4])], ids=["Quantiles", "Ranking", "Effects"]
)
def test_a_prediction_without_classes_has_no_calibrator(predictive: Predictive, outcome: Any) -> None:
    assert calibrate(predictive, outcome, np.arange(3), seed=0) == (None, predictive)
    assert calibrated(predictive, None) is predictive


def test_what_is_no_prediction_is_our_mistake() -> None:
    class Odd:
        pass

    with pytest.raises(TypeError, match="not a predictive: Odd"):
        losses(Odd(), np.zeros(1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not a predictive: Odd"):
        blend([Odd(), Odd()], [0.5, 0.5])  # type: ignore[list-item]
