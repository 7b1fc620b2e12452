"""Every metric equals an independent implementation, and its pseudo-values tell how it varies."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from makegood.contracts import Effects, Probabilities, Quantiles, Ranking, Text
from makegood.stages import metrics
from makegood.stages.metrics import terms


def _probabilities(n: int, k: int, seed: int = 0) -> tuple[Probabilities, np.ndarray]:
    rng = np.random.default_rng(seed)
    raw = np.round(rng.dirichlet(np.ones(k), n), 2)  # rounded: ties
    p = (raw + 0.01) / (raw + 0.01).sum(axis=1, keepdims=True)
    y = (p.cumsum(axis=1) < rng.random(n)[:, None]).sum(axis=1)
    return Probabilities(tuple(map(str, range(k))), p), y


def _means(out: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(x.mean()) for name, x in out.items()}


def test_binary_metrics_equal_scikit_learn() -> None:
    predictive, y = _probabilities(400, 2)
    got, p = _means(terms(predictive, y, 1)), predictive.p
    assert list(got) == ["roc_auc", "accuracy", "log_loss", "brier", "ece"]
    assert got["roc_auc"] == pytest.approx(sk.roc_auc_score(y, p[:, 1]))
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(y, p.argmax(axis=1)))
    assert got["log_loss"] == pytest.approx(sk.log_loss(y, p))
    assert got["brier"] == pytest.approx(sk.brier_score_loss(y, p[:, 1]))


def test_the_positive_class_may_be_either_one() -> None:
    predictive, y = _probabilities(300, 2)
    first, last = _means(terms(predictive, y, 0)), _means(terms(predictive, y, 1))
    assert first["roc_auc"] == pytest.approx(last["roc_auc"])
    assert first["brier"] == pytest.approx(last["brier"])


def test_multiclass_metrics_equal_scikit_learn() -> None:
    predictive, y = _probabilities(500, 4)
    got, p = _means(terms(predictive, y)), predictive.p
    assert got["roc_auc"] == pytest.approx(sk.roc_auc_score(y, p, multi_class="ovr", average="macro"))
    assert got["log_loss"] == pytest.approx(sk.log_loss(y, p))
    rounded = np.rint((p * np.arange(4)).sum(axis=1)).astype(int)
    assert got["qwk"] == pytest.approx(sk.cohen_kappa_score(y, rounded, weights="quadratic", labels=range(4)))


def test_no_kappa_for_classes_that_are_no_integers() -> None:
    predictive, y = _probabilities(50, 3)
    assert "qwk" not in terms(Probabilities(("a", "b", "c"), predictive.p), y)


def test_kappa_ranks_integers_by_value_not_by_text() -> None:
    p = np.eye(3)[[0, 1, 2, 2]]
    assert _means(terms(Probabilities(("1", "10", "2"), p), np.array([0, 1, 2, 2])))["qwk"] == pytest.approx(1.0)


def test_a_metric_that_is_not_defined_is_left_out() -> None:
    predictive, y = _probabilities(30, 2)
    assert "roc_auc" not in terms(predictive, np.zeros_like(y))
    assert terms(Probabilities(("a", "b"), np.empty((0, 2))), np.empty(0)) == {}
    constant = Probabilities(("1", "2", "3"), np.tile([1.0, 0.0, 0.0], (4, 1)))
    assert "qwk" not in terms(constant, np.zeros(4))


def test_calibration_error_of_equal_scores_is_one_bin() -> None:
    hit = np.array([1.0, 0.0, 0.0, 0.0])
    assert metrics.calibration_error(np.full(4, 0.5), hit).mean() == pytest.approx(0.25)


def test_number_metrics_equal_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    y, levels = rng.normal(10, 2, 300), (0.05, 0.25, 0.5, 0.75, 0.95)
    q = np.sort(rng.normal(10, 2, (300, 5)), axis=1)
    got = _means(terms(Quantiles(levels, q), y))
    assert got["mae"] == pytest.approx(sk.mean_absolute_error(y, q[:, 2]))
    mean = q @ np.array([0.15, 0.225, 0.25, 0.225, 0.15])
    assert got["rmse"] == pytest.approx(sk.root_mean_squared_error(y, mean))
    pinball = np.mean([sk.mean_pinball_loss(y, q[:, j], alpha=a) for j, a in enumerate(levels)])
    assert got["pinball"] == pytest.approx(pinball)
    assert got["coverage_90"] == pytest.approx(np.mean((q[:, 0] <= y) & (y <= q[:, 4])))
    assert got["smape"] == pytest.approx(np.mean(200 * np.abs(y - q[:, 2]) / (np.abs(y) + np.abs(q[:, 2]))))


def test_a_horizon_is_averaged_within_its_row() -> None:
    y = np.array([[1.0, 2.0], [3.0, 5.0]])
    q = np.repeat(np.array([[[1.0], [1.0]], [[4.0], [4.0]]]), 1, axis=2)
    out = terms(Quantiles((0.5,), q), y)
    assert out["mae"].tolist() == [0.5, 1.0]
    assert "coverage_0" not in out


def test_the_median_lies_between_the_two_nearest_levels() -> None:
    q = np.array([[0.0, 10.0]])
    assert terms(Quantiles((0.4, 0.6), q), np.array([5.0]))["mae"].tolist() == [0.0]
    assert terms(Quantiles((0.6, 0.9), q), np.array([0.0]))["mae"].tolist() == [0.0]


def test_a_perfect_forecast_has_no_error() -> None:
    y = np.array([0.0, 3.0])
    got = _means(terms(Quantiles((0.1, 0.5, 0.9), np.tile(y[:, None], 3)), y))
    assert got == {"rmse": 0.0, "mae": 0.0, "pinball": 0.0, "smape": 0.0, "coverage_80": 1.0}


def test_ranking_metrics_equal_scikit_learn() -> None:
    items = np.array([["a", "b", "c"], ["a", "b", "c"], ["c", "a", "b"], ["a", "b", "c"]])
    wanted = np.empty(4, dtype=object)
    wanted[:] = [("a",), ("c", "b"), (), ("z", "a")]
    out = terms(Ranking(items, np.tile([0.5, 0.3, 0.1], (4, 1))), wanted)
    assert np.nanmean(out["recall_at_3"]) == pytest.approx((1 + 1 + 0.5) / 3)
    assert np.isnan(out["recall_at_3"]).tolist() == [False, False, True, False]
    gains = [[1, 0, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1]]  # a fourth, unranked column for what the list lacks
    expected = np.mean([sk.ndcg_score([g], [[3, 2, 1, 0]], k=3) for g in gains])
    assert np.nanmean(out["ndcg_at_3"]) == pytest.approx(expected)


def test_a_ranking_that_nobody_wants_anything_of_has_no_recall() -> None:
    wanted = np.empty(1, dtype=object)
    wanted[:] = [()]
    assert terms(Ranking(np.array([["a"]]), np.array([[0.5]])), wanted) == {}


def test_effects_are_measured_against_potential_outcomes() -> None:
    effects = Effects(("treat", "wait"), np.array([[1.0, 0.0], [2.0, 1.0]]), np.ones((2, 2)))
    got = _means(terms(effects, np.array([[1.0, 2.0], [0.0, 1.0]])))
    assert got == {"rmse": pytest.approx(np.sqrt(2.0)), "mae": pytest.approx(1.0)}


def test_text_is_right_or_wrong() -> None:
    text = Text(("4", "5", "6"), np.array([0.9, 0.8, 0.3]), ((), (), ()))
    got = _means(terms(text, np.array(["4", "5", "7"], dtype=object)))
    assert got["accuracy"] == pytest.approx(2 / 3)
    assert got["roc_auc"] == 1.0
    assert got["brier"] == pytest.approx((0.01 + 0.04 + 0.09) / 3)
    assert got["log_loss"] == pytest.approx(sk.log_loss([1, 1, 0], [0.9, 0.8, 0.3]))


@pytest.mark.parametrize("name", ["roc_auc", "brier", "log_loss", "accuracy", "qwk"])
def test_pseudo_values_vary_as_the_jackknife_says(name: str) -> None:
    predictive, y = _probabilities(160, 3, seed=3)
    full = terms(predictive, y)[name]
    keep = [np.delete(np.arange(len(y)), i) for i in range(len(y))]
    left_out = np.array([terms(Probabilities(predictive.classes, predictive.p[rows]), y[rows])[name].mean() for rows in keep])
    jackknife = np.sqrt((len(y) - 1) / len(y) * ((left_out - left_out.mean()) ** 2).sum())
    assert full.std(ddof=1) / np.sqrt(len(y)) == pytest.approx(jackknife, rel=0.03)


def test_the_root_varies_as_the_jackknife_says() -> None:
    rng = np.random.default_rng(2)
    y, q = rng.normal(size=200), np.zeros((200, 1))
    full = terms(Quantiles((0.5,), q), y)["rmse"]
    left_out = np.array([terms(Quantiles((0.5,), q[1:]), np.delete(y, i))["rmse"].mean() for i in range(200)])
    jackknife = np.sqrt(199 / 200 * ((left_out - left_out.mean()) ** 2).sum())
    assert full.std(ddof=1) / np.sqrt(200) == pytest.approx(jackknife, rel=0.03)


def test_intervals_are_cut_to_what_a_metric_can_be() -> None:
    assert metrics.bounds("qwk") == (-1.0, 1.0)
    assert metrics.bounds("smape") == (0.0, 200.0)
    assert metrics.bounds("recall_at_10") == (0.0, 1.0)
    assert metrics.bounds("log_loss") == (0.0, np.inf)


def test_what_is_no_predictive_is_named() -> None:
    with pytest.raises(TypeError, match="not a predictive: int"):
        terms(3, np.zeros(1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not a predictive of claims: int"):
        metrics.claims(3, np.zeros(1))  # type: ignore[arg-type]


def test_claims_of_two_classes_are_about_the_positive_one() -> None:
    predictive = Probabilities(("no", "yes"), np.array([[0.9, 0.1], [0.2, 0.8]]))
    claimed, came = metrics.claims(predictive, np.array([0, 0]), 0)
    assert (claimed.tolist(), came.tolist()) == ([0.9, 0.2], [1.0, 1.0])
    claimed, came = metrics.claims(predictive, np.array([0, 0]), 1)
    assert (claimed.tolist(), came.tolist()) == ([0.1, 0.8], [0.0, 0.0])


def test_claims_of_more_classes_are_about_the_likeliest() -> None:
    predictive = Probabilities(("a", "b", "c"), np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]]))
    claimed, came = metrics.claims(predictive, np.array([0, 1]))
    assert (claimed.tolist(), came.tolist()) == ([0.6, 0.5], [1.0, 0.0])


def test_a_calibrated_model_lies_on_the_diagonal() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    curve = metrics.calibration(Probabilities(("no", "yes"), np.column_stack([1 - p, p])), rng.random(20_000) < p)
    assert len(curve) == metrics.BINS
    assert all(n == 2000 and abs(claimed - came) < 0.04 for claimed, came, n in curve)


def test_quantiles_are_calibrated_by_the_share_below_each_level() -> None:
    y, q = np.array([[1.0, 2.0], [3.0, np.nan]]), np.tile([1.5, 2.5], (2, 2, 1))
    assert metrics.calibration(Quantiles((0.25, 0.75), q), y) == ((0.25, 1 / 3, 3), (0.75, 2 / 3, 3))


def test_unknown_potential_outcomes_and_steps_are_left_out() -> None:
    effects = Effects(("a", "b"), np.array([[1.0, 5.0], [2.0, 9.0]]), np.ones((2, 2)))
    outcome = np.array([[2.0, np.nan], [np.nan, 9.0]])
    assert _means(terms(effects, outcome))["mae"] == 0.5
    assert sum(n for _, _, n in metrics.calibration(effects, outcome)) == 2
    out = terms(Quantiles((0.1, 0.5, 0.9), np.zeros((2, 2, 3))), np.array([[1.0, np.nan], [np.nan, np.nan]]))
    assert out["mae"][0] == 1.0
    assert np.isnan(out["mae"][1])
    assert np.isnan(out["coverage_80"][1])
