"""Folds are fitted as far as time and the user allow, and what is finished stands."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pytest

from makegood.contracts import Budget, Dataset, Floats, Fold, Predictive, Probabilities
from makegood.stages.fitting import FIRST, Fitted, fit_folds


class Stub:
    """A family that predicts the class rate of its rows, takes its time, and tells what it was given."""

    rate_: float

    def __init__(self, seconds: float = 0.0, stop_in_fold: int = -1, *, keeps: bool = False, busy: float = 0.0) -> None:
        self.seconds, self.stop_in_fold, self.keeps, self.busy = seconds, stop_in_fold, keeps, busy

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        self.given, self.seed = budget.left(time.perf_counter()), seed
        if self.stop_in_fold == seed and not self.keeps:
            raise KeyboardInterrupt
        self.rate_ = float(np.asarray(train.outcome).mean())
        if self.stop_in_fold == seed:
            raise KeyboardInterrupt
        time.sleep(self.seconds)
        start = time.process_time()
        while time.process_time() - start < self.busy:
            pass
        return self

    def predict(self, data: Dataset) -> Predictive:
        p: Floats = np.full(len(data), self.rate_) + 0.001 * data.table["row"].to_numpy()
        return Probabilities(("no", "yes"), np.column_stack([1.0 - p, p]))

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path) -> Self:
        raise NotImplementedError


def _data(n: int = 50) -> Dataset:
    return Dataset(pa.table({"row": np.arange(n)}), outcome=np.arange(n) % 2)


def _folds(n: int = 50, k: int = 5) -> tuple[Fold, ...]:
    fold = np.random.default_rng(0).permutation(n) % k
    return tuple(Fold(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(k))


def _run(makes: dict[str, Callable[[], Stub]], seconds: float = 60.0, heard: list[tuple[float, str]] | None = None) -> Fitted:
    def listen(share: float, what: str) -> None:
        if heard is not None:
            heard.append((share, what))

    return fit_folds(_data(), makes, _folds(), budget=Budget(seconds, time.perf_counter()), seed=0, progress=listen)


def test_every_row_is_predicted_once_by_models_that_did_not_see_it() -> None:
    found = _run({"a": Stub, "b": Stub})
    assert found.rows.tolist() == list(range(50))
    assert [len(models) for models in found.models.values()] == [5, 5]
    assert not found.interrupted
    for i, fold in enumerate(_folds()):
        assert (found.folds[fold.test] == i).all()
        held = found.held["a"]
        assert isinstance(held, Probabilities)
        rate = float((fold.train % 2).mean())
        np.testing.assert_allclose(held.p[fold.test, 1], rate + 0.001 * fold.test)


def test_each_fold_has_its_own_seed() -> None:
    assert [model.seed for model in _run({"a": Stub}).models["a"]] == [0, 1, 2, 3, 4]  # type: ignore[attr-defined]


def test_progress_tells_what_comes_next_and_never_goes_back() -> None:
    heard: list[tuple[float, str]] = []
    _run({"a": Stub, "b": Stub}, heard=heard)
    assert heard[0] == (0.0, "a, fold 1 of 5")
    assert heard[-1] == (pytest.approx(0.9), "b, fold 5 of 5")
    assert heard == sorted(heard, key=lambda told: told[0])


def test_what_each_candidate_took_is_measured_over_its_folds() -> None:
    found = _run({"waits": lambda: Stub(0.1), "works": lambda: Stub(busy=0.1)})
    waits, works = found.used["waits"], found.used["works"]
    assert waits.wall_s >= 0.5
    assert waits.cpu_s < 0.2
    assert 0.5 <= works.cpu_s < 0.8
    assert waits.gpu_s == works.gpu_s == 0.0
    assert waits.money == works.money == 0.0


def test_no_fold_is_begun_that_would_not_fit() -> None:
    start = time.perf_counter()
    found = _run({"a": lambda: Stub(0.15)}, seconds=0.5)
    assert time.perf_counter() - start < 0.5
    assert 1 <= len(found.models["a"]) <= 3
    assert set(found.rows.tolist()) == {row for fold in _folds()[: len(found.models["a"])] for row in fold.test.tolist()}


def test_the_first_fold_is_finished_without_any_time() -> None:
    found = _run({"a": Stub, "b": Stub}, seconds=0.0)
    assert [len(models) for models in found.models.values()] == [1, 1]


def test_candidates_share_what_the_first_fold_may_use_and_pass_on_what_they_leave() -> None:
    found = _run({"a": Stub, "b": Stub})
    first = [models[0].given for models in found.models.values()]  # type: ignore[attr-defined]
    assert first == pytest.approx([60.0 * FIRST / 2.0, 60.0 * FIRST], abs=0.5)


def test_a_single_fold_may_use_all() -> None:
    found = fit_folds(_data(), {"a": Stub}, _folds()[:1], budget=Budget(60.0, time.perf_counter()), seed=0, progress=lambda s, w: None)
    assert found.models["a"][0].given == pytest.approx(60.0, abs=0.5)  # type: ignore[attr-defined]


def test_an_interrupt_drops_the_fold_that_it_cuts_short() -> None:
    found = _run({"a": Stub, "b": lambda: Stub(stop_in_fold=2, keeps=True)})
    assert found.interrupted
    assert [len(models) for models in found.models.values()] == [2, 2]


def test_an_interrupt_in_the_first_fold_keeps_the_candidates_that_were_done() -> None:
    found = _run({"a": Stub, "b": lambda: Stub(stop_in_fold=0), "c": Stub})
    assert found.interrupted
    assert list(found.models) == ["a"]
    assert found.rows.tolist() == sorted(_folds()[0].test.tolist())


def test_an_interrupt_in_the_first_fold_keeps_a_candidate_that_can_predict_already() -> None:
    assert list(_run({"a": Stub, "b": lambda: Stub(stop_in_fold=0, keeps=True), "c": Stub}).models) == ["a", "b"]


@pytest.mark.parametrize("fold", [0, 2])
def test_an_interrupt_between_two_fits_keeps_what_was_finished_as_well(fold: int) -> None:
    made = list[Stub]()

    def make() -> Stub:
        made.append(Stub())
        if len(made) > fold:
            raise KeyboardInterrupt
        return made[-1]

    found = _run({"a": Stub, "b": make})
    assert found.interrupted
    assert {name: len(models) for name, models in found.models.items()} == ({"a": 2, "b": 2} if fold else {"a": 1})


def test_an_interrupt_before_anything_is_done_is_passed_on() -> None:
    with pytest.raises(KeyboardInterrupt):
        _run({"a": lambda: Stub(stop_in_fold=0)})


class Long(Stub):
    """A family that takes all the time it may."""

    patient = True


def test_a_patient_family_gets_the_same_time_on_every_fold() -> None:
    found = _run({"a": Stub, "long": lambda: Long(0.02)}, seconds=60.0)
    given = [model.given for model in found.models["long"]]  # type: ignore[attr-defined]
    assert given == pytest.approx([60.0 / 5, 60.0 / 4, 60.0 / 3, 60.0 / 2, 60.0], abs=0.5)
    assert found.models["a"][0].given == pytest.approx(60.0 * FIRST / 2.0, abs=0.5)  # type: ignore[attr-defined]
    assert found.dear == ("long",)


class Talking(Stub):
    """A family that tells how far it has come."""

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        budget.tell(f"epoch 1 of seed {seed}")
        return super().fit(train, valid, budget=budget, seed=seed)


def test_what_a_family_tells_is_passed_on_under_its_name() -> None:
    heard: list[tuple[float, str]] = []
    _run({"a": Stub, "net": Talking}, heard=heard)
    assert (0.1, "net: epoch 1 of seed 0, fold 1 of 5") in heard
    assert (0.9, "net: epoch 1 of seed 4, fold 5 of 5") in heard
