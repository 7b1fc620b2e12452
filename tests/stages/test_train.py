"""From rows to a model: what is deployed was judged on rows it had not seen, within the budget, and Ctrl-C keeps it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.metrics import roc_auc_score

from makegood.contracts import Budget, Dataset, Floats, Fold, Ints, Predictive, Probabilities, Quantiles, Task
from makegood.families import find
from makegood.stages.ensemble import ENSEMBLE
from makegood.stages.fitting import Make
from makegood.stages.train import ASIDE, Money, Resampling, Trained, share, train

BINARY, NUMBER = Task("classes", ("no", "yes")), Task("number")


def _makes(task: Task, *names: str) -> dict[str, Make]:
    def make(name: str) -> Make:
        candidate = find([name])[0]
        return lambda: candidate.make(task)

    return {name: make(name) for name in names or ("constant", "linear", "lightgbm")}


def _folds(n: int, k: int = 5, seed: int = 0) -> tuple[Fold, ...]:
    fold = np.random.default_rng(seed).permutation(n) % k
    return tuple(Fold(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(k))


def _treat(y: Ints) -> Money:
    """Treating a positive gains 1, treating a negative costs a half."""

    def expected(predictive: Predictive, rows: Ints) -> Floats:
        assert isinstance(predictive, Probabilities)
        return np.column_stack([predictive.p[:, 1] - 0.5 * predictive.p[:, 0], np.zeros(len(rows))])

    return Money(expected, lambda _, rows: np.column_stack([np.where(y[rows] == 1, 1.0, -0.5), np.zeros(len(rows))]))


def _bet(y: Floats) -> Money:
    """Betting pays the outcome less 150."""

    def expected(predictive: Predictive, rows: Ints) -> Floats:
        assert isinstance(predictive, Quantiles)
        return np.column_stack([predictive.q.mean(axis=1) - 150.0, np.zeros(len(rows))])

    return Money(expected, lambda _, rows: np.column_stack([y[rows] - 150.0, np.zeros(len(rows))]))


def _cancer() -> tuple[Dataset, Ints]:
    cancer = load_breast_cancer()
    return Dataset(pa.table({"row": np.arange(569)}), cancer.data.astype(np.float32), cancer.target.astype(np.int64)), cancer.target


def _train_cancer(rows: Ints, seconds: float = 60.0, seed: int = 0, told: Callable[[float, str], None] = lambda s, w: None) -> Trained:
    data, y = _cancer()
    budget = Budget(seconds, time.perf_counter())
    return train(data.take(rows), _makes(BINARY), Resampling(_folds(len(rows))), _treat(y[rows]), budget=budget, seed=seed, progress=told)


@cache
def _trained() -> Trained:
    return _train_cancer(np.arange(569))


def _p(predictive: Predictive) -> Floats:
    assert isinstance(predictive, Probabilities)
    return predictive.p


def test_the_members_are_the_models_that_were_judged() -> None:
    found = _trained()
    assert sum(member.weight for member in found.members) == pytest.approx(1.0)
    assert len(found.members) % 5 == 0
    weights = {trial.name: trial.weight for trial in found.trials}
    for name in {member.name for member in found.members}:
        assert sum(m.weight for m in found.members if m.name == name) == pytest.approx(weights[name])


def test_each_candidate_and_the_ensemble_are_in_the_table() -> None:
    trials = {trial.name: trial.to_json() for trial in _trained().trials}
    assert list(trials) == ["constant", "linear", "lightgbm", ENSEMBLE]
    assert all(set(trial) == {"name", "weight", "log_loss", "value"} for trial in trials.values())
    assert trials[ENSEMBLE]["weight"] == 1.0
    assert (
        trials[ENSEMBLE]["log_loss"] <= min(trials["linear"]["log_loss"], trials["lightgbm"]["log_loss"]) < trials["constant"]["log_loss"]
    )
    assert trials["lightgbm"]["value"] > trials["constant"]["value"]


def test_the_ensemble_takes_what_its_parts_took() -> None:
    used = {trial.name: trial.used for trial in _trained().trials}
    assert used[ENSEMBLE] == used["linear"] + used["lightgbm"]
    assert 0 < used["constant"].cpu_s < used["lightgbm"].cpu_s
    assert all(u.wall_s > 0 and u.gpu_s == 0.0 for u in used.values())


def test_out_of_fold_predictions_cover_every_row_calibrated() -> None:
    found, (_, y) = _trained(), _cancer()
    assert found.oof_rows.tolist() == list(range(569))
    assert roc_auc_score(y, _p(found.oof)[:, 1]) > 0.99
    assert _p(found.oof)[:, 1].mean() == pytest.approx(y.mean(), abs=0.01)


def test_rows_left_out_are_predicted_well() -> None:
    data, y = _cancer()
    scores = np.empty(569)
    for fold in _folds(569, 3, seed=1):
        scores[fold.test] = _p(_train_cancer(fold.train).predict(data.take(fold.test).without_outcome()))[:, 1]
    assert roc_auc_score(y, scores) > 0.99


def test_the_same_seed_gives_the_same_model_to_the_last_bit() -> None:
    data, _ = _cancer()
    again = _train_cancer(np.arange(569))
    assert (_p(again.predict(data)) == _p(_trained().predict(data))).all()
    assert (_p(again.oof) == _p(_trained().oof)).all()
    assert [t.value for t in again.trials] == [t.value for t in _trained().trials]


def test_a_row_alone_has_the_bits_that_it_has_among_others() -> None:
    data, _ = _cancer()
    whole = _p(_trained().predict(data))
    assert all((_p(_trained().predict(data.take(np.array([i])))) == whole[i]).all() for i in range(0, 569, 7))


def test_progress_ends_at_one() -> None:
    told: list[tuple[float, str]] = []
    _train_cancer(np.arange(569), told=lambda done, what: told.append((done, what)))
    assert told[-1] == (1.0, "trained")
    assert (0.85, "calibrate and choose") in told
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_noise_is_not_sold_as_a_model() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    data = Dataset(pa.table({"row": np.arange(400)}), rng.normal(size=(400, 5)).astype(np.float32), y)
    found = train(data, _makes(BINARY), Resampling(_folds(400)), _treat(y), budget=Budget(60.0, time.perf_counter()), seed=0)
    assert np.abs(_p(found.predict(data))[:, 1] - y.mean()).mean() < 0.03


def test_one_fold_is_calibrated_in_blocks_that_keep_clusters_whole() -> None:
    data, y = _cancer()
    clusters = np.arange(569) // 3
    time_like = (Fold(np.arange(400), np.arange(400, 569)),)
    found = train(
        data,
        _makes(BINARY, "linear"),
        Resampling(time_like, clusters=clusters),
        _treat(y),
        budget=Budget(60.0, time.perf_counter()),
        seed=0,
    )
    assert found.oof_rows.tolist() == list(range(400, 569))
    assert set(found.oof_folds.tolist()) == set(range(5))
    assert all(len(set(found.oof_folds[clusters[400:] == c].tolist())) == 1 for c in np.unique(clusters[400:]))


# ----------------------------------------------------------------------------------------------------------------- numbers


def _diabetes() -> tuple[Dataset, Floats]:
    diabetes = load_diabetes()
    return Dataset(pa.table({"row": np.arange(442)}), diabetes.data.astype(np.float32), diabetes.target), diabetes.target


def test_rows_set_aside_serve_nothing_else() -> None:
    clusters = np.arange(442) // 4
    resampling = Resampling(_folds(442), clusters=clusters).with_aside(442, seed=3)
    assert len(resampling.aside) == pytest.approx(ASIDE * 442, abs=4)
    assert not set(clusters[resampling.aside]) & {c for f in resampling.folds for part in (f.train, f.test) for c in clusters[part]}
    kept = np.concatenate([fold.test for fold in resampling.folds])
    assert sorted([*kept, *resampling.aside]) == list(range(442))


def test_a_number_is_predicted_by_quantiles_with_conformal_offsets() -> None:
    data, y = _diabetes()
    train_rows, test_rows = np.arange(0, 442, 2), np.arange(1, 442, 2)
    resampling = Resampling(_folds(len(train_rows), 3)).with_aside(len(train_rows), seed=0)
    budget = Budget(60.0, time.perf_counter())
    found = train(data.take(train_rows), _makes(NUMBER), resampling, _bet(y[train_rows]), budget=budget, seed=0)
    assert found.calibrator is None
    assert found.conformal is not None
    assert found.conformal.n == len(resampling.aside)
    assert found.trials[0].to_json().keys() == {"name", "weight", "pinball", "value"}
    predictive = found.predict(data.take(test_rows).without_outcome())
    assert isinstance(predictive, Quantiles)
    inside = found.conformal.apply(predictive.q)
    assert 0.8 < ((y[test_rows] >= inside[:, 0]) & (y[test_rows] <= inside[:, -1])).mean() <= 1.0


def test_without_rows_aside_there_are_no_offsets() -> None:
    data, y = _diabetes()
    found = train(data, _makes(NUMBER, "linear"), Resampling(_folds(442)), _bet(y), budget=Budget(60.0, time.perf_counter()), seed=0)
    assert found.conformal is None


# ------------------------------------------------------------------------------------------------------------------ budget


def test_shares_pass_on_what_was_not_used() -> None:
    budget = Budget(10.0, time.perf_counter())
    first = share(budget, 4)
    assert first.seconds == pytest.approx(2.5, abs=0.1)
    assert share(budget, 1).seconds == pytest.approx(10.0, abs=0.1)
    assert share(Budget(0.0, 0.0), 3).seconds == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [3.0, 6.0])
def test_the_budget_is_kept_within_a_fifth_on_many_rows(seconds: float) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30_000, 40)).astype(np.float32)
    y = ((X[:, :5] ** 2).sum(axis=1) + rng.normal(size=30_000) > 5).astype(np.int64)
    data, makes = Dataset(pa.table({"row": np.arange(30_000)}), X, y), _makes(BINARY)
    start = time.perf_counter()
    found = train(data, makes, Resampling(_folds(30_000)), _treat(y), budget=Budget(seconds, start), seed=0)
    assert time.perf_counter() - start < 1.2 * seconds
    assert {trial.name for trial in found.trials} >= {"constant", "linear", "lightgbm"}
    assert _p(found.predict(data.take(np.arange(10)))).shape == (10, 2)


# ------------------------------------------------------------------------------------------------------------------ Ctrl-C

_SCRIPT = """
    import json, sys, time
    import numpy as np, pyarrow as pa
    from makegood.contracts import Budget, Dataset, Fold, Task
    from makegood.families import find
    from makegood.stages.train import Money, Resampling, train

    rng = np.random.default_rng(0)
    n = 20_000
    X = rng.normal(size=(n, 60)).astype(np.float32)
    y = ((X[:, :20] ** 2).sum(axis=1) + rng.normal(size=n) > 20).astype(np.int64)  # hundreds of trees go on helping
    data, task = Dataset(pa.table({{"row": np.arange(n)}}), X, y), Task("classes", ("no", "yes"))
    fold = np.arange(n) % 5
    folds = tuple(Fold(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(5))
    money = Money(lambda p, rows: p.p - 0.5, lambda p, rows: np.column_stack([1 - y[rows], y[rows]]) - 0.5)
    makes = {{c.name: (lambda c=c: c.make(task)) for c in find(({names}))}}
    def tell(done, what):
        print(what, flush=True)
    try:
        found = train(data, makes, Resampling(folds), money, budget=Budget(120.0, time.perf_counter()), seed=0, progress=tell)
    except KeyboardInterrupt:
        print(json.dumps("nothing"))
    else:
        p = found.predict(data.take(np.arange(5))).p
        print(json.dumps([found.interrupted, sorted(t.name for t in found.trials), len(found.oof_rows), p.shape, bool(np.isfinite(p).all())]))
"""


def _interrupted_at(moment: str, names: str, after: float) -> object:
    """Train in a process of its own, send a real SIGINT `after` seconds past a moment of progress, and return what it printed last."""
    script = textwrap.dedent(_SCRIPT.format(names=names))
    # not under coverage: an interrupt that meets its tracer leaves a lock held for ever
    bare = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=bare) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(moment):
                    time.sleep(after)
                    process.send_signal(signal.SIGINT)
                    break
            rest = process.stdout.read()
            process.wait(60)
        finally:
            process.kill()
    assert process.returncode == 0
    return json.loads(rest.splitlines()[-1])


@pytest.mark.slow
def test_ctrl_c_keeps_the_trees_of_the_first_fold() -> None:
    found = _interrupted_at("lightgbm, fold 1 of 5", "'constant', 'linear', 'lightgbm'", after=3.0)
    assert found in (
        [True, ["constant", ENSEMBLE, "lightgbm", "linear"], 4000, [5, 2], True],
        [True, ["constant", "lightgbm", "linear"], 4000, [5, 2], True],
    )


@pytest.mark.slow
def test_ctrl_c_in_a_later_fold_keeps_the_folds_before() -> None:
    found = _interrupted_at("constant, fold 3 of 5", "'constant', 'linear'", after=0.0)
    assert isinstance(found, list)
    assert found[0] is True
    assert found[2] == 8000
