"""Ensembles and Monte Carlo passes as families: one graph, one answer, and intervals as wide as what the votes do not agree on."""

from __future__ import annotations

import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from makegood.contracts import Budget, Dataset, Floats, Probabilities, Quantiles, Task
from makegood.errors import CaseError
from makegood.families import find, wrap
from makegood.families._torch.export import exported
from makegood.families._torch.uncertainty import Sampling
from makegood.families.recurrent import GRU
from makegood.families.trained import Trained

BINARY, NUMBER = Task("classes", ("no", "yes")), Task("number")
TRAIN, VALID, REST = np.arange(400), np.arange(400, 600), np.arange(600, 700)
FAST = {"epochs": 3, "lr": 0.01}


def mlp(outputs: int, p: float = 0.2) -> nn.Module:
    torch.manual_seed(5)  # the first weights given are always the same
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(p), nn.Linear(16, outputs))


def rows(number: bool = False) -> Dataset:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(700, 4)).astype(np.float32)
    signal = X[:, 0] * X[:, 1] + 0.3 * X[:, 2] + rng.normal(0.0, 0.2, 700)
    return Dataset(pa.table({"row": np.arange(700)}), X, 5000.0 + 800.0 * signal if number else (signal > 0).astype(np.int64))


def make(module: nn.Module, task: Task, **recipe: Any) -> Trained:
    family = wrap(module, recipe={**FAST, **recipe}).make(task)
    assert isinstance(family, Trained)
    return family


def fit(
    module: nn.Module, task: Task = BINARY, data: Dataset | None = None, seed: int = 0, seconds: float = 60.0, **recipe: Any
) -> Trained:
    data = rows(task is NUMBER) if data is None else data
    return make(module, task, **recipe).fit(data.take(TRAIN), data.take(VALID), budget=Budget(seconds, time.perf_counter()), seed=seed)


@cache
def usual(task: Task, members: int, passes: int, seed: int = 0) -> Trained:
    """Return a fit that several tests look at."""
    return fit(mlp(2 if task is BINARY else 1), task, seed=seed, members=members, passes=passes)


def values(family: Trained, data: Dataset) -> Floats:
    found = family.predict(data)
    assert isinstance(found, Probabilities | Quantiles)
    return found.p if isinstance(found, Probabilities) else found.q


def test_an_ensembles_probabilities_are_the_mean_of_networks_trained_apart() -> None:
    data = rows().take(REST)
    ensemble, alone = usual(BINARY, 3, 0), usual(BINARY, 1, 0)
    votes = ensemble.votes(data)
    assert votes.shape == (100, 3, 2)
    np.testing.assert_allclose(values(ensemble, data), votes.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(votes[:, 0], values(alone, data), atol=1e-6)  # the first starts from the weights given
    again = usual(BINARY, 1, 0, seed=1)  # not the second member: that one draws its first weights
    assert min(np.abs(votes[:, i] - values(again, data)).max() for i in (1, 2)) > 1e-3
    assert np.abs(votes[:, 1] - votes[:, 2]).max() > 1e-2


def test_further_members_draw_new_weights_where_a_layer_learns() -> None:
    module = mlp(2)
    kept, learning = module[0], module[3]
    for parameter in kept.parameters():
        parameter.requires_grad_(False)
    before = kept.weight.clone(), learning.weight.clone()
    make(module, BINARY)._restart(module)
    assert torch.equal(kept.weight, before[0])
    assert not torch.equal(learning.weight, before[1])


def test_attention_draws_new_weights_too() -> None:
    layer = nn.MultiheadAttention(4, 2)
    before = layer.in_proj_weight.clone()
    make(layer, BINARY)._restart(layer)
    assert not torch.equal(layer.in_proj_weight, before)


def test_passes_are_part_of_the_model() -> None:
    data = rows().take(REST)
    one, same, other = fit(mlp(2), passes=8), usual(BINARY, 1, 8), usual(BINARY, 1, 8, seed=1)
    assert one.model_ == same.model_
    assert one.model_ != other.model_
    votes = one.votes(data)
    assert votes.shape == (100, 8, 2)
    assert (votes.std(axis=1) > 0.0).all()
    np.testing.assert_allclose(values(one, data), votes.mean(axis=1), atol=1e-6)
    whole = values(one, data)
    for i in (0, 17, 99):  # the same bits in a batch and alone
        assert values(one, data.take(np.array([i]))).tolist() == whole[[i]].tolist()


def test_members_and_passes_together_are_all_votes_and_survive_saving(tmp_path: Path) -> None:
    data = rows(number=True).take(REST)
    family = usual(NUMBER, 2, 8)
    assert family.votes(data).shape == (100, 16, 1)
    first, second = family.votes(data)[:, :8, 0], family.votes(data)[:, 8:, 0]
    assert np.abs(first.mean(axis=1) - second.mean(axis=1)).max() > 1.0  # in the outcome's unit: two networks, not one
    family.save(tmp_path)
    loaded = type(family).load(tmp_path)
    np.testing.assert_array_equal(values(loaded, data), values(family, data))
    np.testing.assert_array_equal(loaded.votes(data), family.votes(data))


def test_quantiles_are_the_mean_and_residuals_in_units_of_spread_and_noise() -> None:
    data = rows(number=True)
    family = usual(NUMBER, 2, 8)
    seen, y = family.votes(data.take(VALID))[:, :, 0], np.asarray(data.outcome)[VALID]
    mean, spread = seen.mean(axis=1), seen.std(axis=1)
    noise = np.sqrt(np.mean((y - mean) ** 2) - np.mean(spread**2))  # the law of total variance
    assert float(family.noise_) == pytest.approx(noise, rel=1e-4)
    measured = np.sort((y - mean) / np.sqrt(spread**2 + noise**2))
    votes = family.votes(data.take(REST))[:, :, 0]
    unit = np.sqrt(votes.std(axis=1) ** 2 + noise**2)
    # of 200 rows and one to come: at least .95 at or below the 191st, at least .05 at or below the 10th (Lei et al. 2018)
    wanted = np.column_stack([votes.mean(axis=1) + unit * measured[i] for i in (9, 190)])
    np.testing.assert_allclose(values(family, data.take(REST))[:, [0, -1]], wanted, rtol=1e-5)


def test_one_network_has_residuals_of_one_width() -> None:
    data = rows(number=True)
    q = values(fit(mlp(1), NUMBER), data.take(REST))
    width = q[:, -1] - q[:, 0]
    np.testing.assert_allclose(width, width[0], rtol=1e-9)


class Itself(nn.Module):
    """The first feature, exactly: nothing to learn but a bias that stays 0."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1] * 0.0 + self.bias


def test_a_number_that_never_varies_has_quantiles_without_width() -> None:
    data = rows()
    constant = Dataset(data.table, data.features, np.full(700, 7.0))
    assert values(fit(Itself(), NUMBER, constant), constant.take(REST)).tolist() == [[7.0] * 11] * 100


def test_intervals_widen_where_rows_are_scarce_and_hold_their_share() -> None:
    """y = x³/4 + noise; few rows with x > 1 (5 in 100), none beyond 3: the votes part there."""
    rng = np.random.default_rng(1)

    def draw(n: int, share: float) -> tuple[Floats, Floats]:
        x = np.where(rng.random(n) < share, rng.uniform(1.0, 3.0, n), rng.uniform(-3.0, 1.0, n))
        return x[:, None].astype(np.float32), x**3 / 4 + rng.normal(0.0, 0.5, n)

    X, y = draw(1200, 0.05)
    data = Dataset(pa.table({"row": np.arange(1200)}), X, y)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(1, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
    recipe = {"epochs": 25, "lr": 0.01, "members": 3, "passes": 8}
    family = make(module, NUMBER, **recipe)
    family.fit(data.take(np.arange(800)), data.take(np.arange(800, 1200)), budget=Budget(60.0, time.perf_counter()), seed=0)
    X_new, y_new = draw(2000, 0.05)
    q = values(family, Dataset(pa.table({"row": np.arange(2000)}), X_new))
    inside, width = (q[:, 0] <= y_new) & (y_new <= q[:, -1]), q[:, -1] - q[:, 0]
    scarce = X_new[:, 0] > 1.0
    shares, widths = (
        f"{x.mean():.3f}, {x[~scarce].mean():.3f} where rows are many, {x[scarce].mean():.3f} where few" for x in (inside, width)
    )
    sys.stdout.write(f"90% intervals hold {shares}; their widths: {widths}\n")
    # of 400 validation rows: the share held has a standard error of .015 by their draw, of .007 by that of the new rows
    assert abs(inside.mean() - 0.9) < 3 * np.hypot(0.015, 0.007)
    assert width[scarce].mean() > 1.1 * width[~scarce].mean()


def test_members_share_the_budget_and_one_that_finds_no_time_is_left_out() -> None:
    data = rows().take(REST)
    assert fit(mlp(2), members=5, seconds=0.0).votes(data).shape == (100, 1, 2)
    start = time.perf_counter()
    patient = fit(mlp(2), members=3, epochs=100_000, patience=None, seconds=1.5)
    assert patient.votes(data).shape == (100, 3, 2)
    assert time.perf_counter() - start < 20.0  # and not the hours of the epochs asked for; the graph's making is not in the budget


class Interrupting(nn.Module):
    """A linear model in whose training Ctrl-C comes, at the given batch."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.line, self.drop = nn.Linear(4, 2), nn.Dropout(0.1)
        self.at = [at]

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            self.at[0] -= 1
            if self.at[0] == 0:
                raise KeyboardInterrupt
        found: Tensor = self.line(self.drop(x))
        return found

    def __deepcopy__(self, memo: Any) -> Interrupting:
        twin = Interrupting(1)
        twin.load_state_dict(self.state_dict())
        twin.at = self.at  # one clock for all copies
        return twin


@pytest.mark.parametrize(("at", "votes"), [(8, 1), (23, 1), (30, 2)], ids=["first", "second, no epoch", "second, an epoch"])
def test_an_interrupt_keeps_what_was_learnt(at: int, votes: int) -> None:
    """400 rows in batches of 64: 7 steps an epoch, 21 a member."""
    data = rows()
    family = make(Interrupting(at), BINARY, members=3)
    with pytest.raises(KeyboardInterrupt):
        family.fit(data.take(TRAIN), data.take(VALID), budget=Budget(60.0, time.perf_counter()), seed=0)
    assert family.votes(data.take(REST)).shape == (100, votes, 2)
    assert len(family.predict(data.take(REST))) == 100


def test_an_interrupt_before_anything_was_learnt_leaves_nothing() -> None:
    data = rows()
    family = make(Interrupting(3), BINARY, members=3)
    with pytest.raises(KeyboardInterrupt):
        family.fit(data.take(TRAIN), data.take(VALID), budget=Budget(60.0, time.perf_counter()), seed=0)
    assert [name for name in vars(family) if name.endswith("_")] == []


class Late(nn.Module):
    """Functional dropout that zeros hide until something has been learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.line = nn.Dropout(0.1), nn.Linear(4, 2)
        nn.init.zeros_(self.line.weight)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.line(functional.dropout(self.drop(x), 0.3, self.training))
        return found


def test_what_cannot_be_asked_in_passes_is_refused_before_training() -> None:
    with pytest.raises(CaseError, match=r"wrap\(Linear\): got 'no dropout layer'; expected a dropout layer at work, for 8 passes"):
        fit(nn.Linear(4, 2), passes=8, epochs=10**9, patience=None)  # it would never end
    with pytest.raises(CaseError, match=r"wrap\(Late\): got 'passes that differ though every dropout layer is frozen'"):
        fit(Late(), passes=8)  # seen only afterwards


def test_the_recipes_names_are_one_list() -> None:
    with pytest.raises(CaseError) as error:
        wrap(mlp(2), recipe={"member": 3})
    assert str(error.value).endswith("average, members, passes; did you mean 'members'?")
    with pytest.raises(CaseError, match=r"recipe.passes: got '1'; expected a whole number, at least 2, or 0 for none"):
        wrap(mlp(2), recipe={"passes": 1})


def test_images_are_asked_in_passes_as_well() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    X = rng.random((300, 6, 6, 1)).astype(np.float32)
    X[:, :3] *= 1.0 - 0.8 * y[:, None, None, None]
    data = Dataset(pa.table({"row": np.arange(300)}), X.reshape(300, -1), y, shape=(6, 6, 1))
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout2d(0.3), nn.Flatten(), nn.Linear(64, 2))
    family = make(module, BINARY, members=2, passes=4, epochs=15)
    family.fit(data.take(np.arange(200)), data.take(np.arange(200, 300)), budget=Budget(60.0, time.perf_counter()), seed=0)
    votes = family.votes(data)
    assert votes.shape == (300, 8, 2)
    np.testing.assert_allclose(values(family, data), votes.mean(axis=1), atol=1e-6)
    assert (values(family, data).argmax(axis=1) == y).mean() > 0.9


def test_networks_for_images_may_be_asked_for_more_as_well() -> None:
    rng = np.random.default_rng(0)
    data = Dataset(pa.table({"row": np.arange(60)}), rng.random((60, 25)).astype(np.float32), rng.integers(0, 2, 60), shape=(5, 5, 1))
    family = find(["cnn"])[0].make(BINARY)
    assert isinstance(family, Trained)
    family.sampling = Sampling(members=2)
    votes = family.fit(data, data, budget=Budget(2.0, time.perf_counter()), seed=0).votes(data)
    assert votes.shape == (60, 2, 2)
    assert np.abs(votes[:, 0] - votes[:, 1]).max() > 1e-3
    family.sampling = Sampling(passes=8)
    with pytest.raises(CaseError, match=r"train.families: cnn: got 'no dropout layer'; expected a dropout layer at work, for 8 passes"):
        family.fit(data, data, budget=Budget(2.0, time.perf_counter()), seed=0)


def test_recurrent_layers_learn_in_the_loop_and_are_asked_in_passes() -> None:
    """The class is whether the first step was higher than the last: what lies between is noise."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(700, 8)).astype(np.float32)
    data = Dataset(pa.table({"row": np.arange(700)}), X, (X[:, 0] > X[:, 6]).astype(np.int64))
    torch.manual_seed(0)
    module = nn.Sequential(nn.Unflatten(1, (4, 2)), GRU(2, 12, dropout=0.05, recurrent_dropout=0.1), nn.Linear(12, 2))
    for passes in (0, 4):
        family = fit(module, BINARY, data, epochs=20, lr=0.02, passes=passes)
        assert (values(family, data.take(REST)).argmax(axis=1) == np.asarray(data.outcome)[REST]).mean() > 0.8
        assert (b"GRU" in family.model_) == (passes == 0)  # one operator where nothing is dropped


@pytest.mark.parametrize(("task", "passes"), [(BINARY, 0), (NUMBER, 0), (BINARY, 3)], ids=["classes", "number", "passes"])
def test_fits_of_one_build_are_exported_once_and_have_the_bytes_of_an_export(
    task: Task, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports: list[str] = []

    def counted(module: nn.Module, row: Tensor, where: str) -> bytes:
        exports.append(where)
        return exported(module, row, where)

    monkeypatch.setattr("makegood.families.trained.exported", counted)
    module, data = mlp(2 if task is BINARY else 1), rows(task is NUMBER)
    candidate = wrap(module, recipe={**FAST, "passes": passes})

    def fitted(seed: int) -> Trained:
        family, budget = candidate.make(task), Budget(60.0, time.perf_counter())
        assert isinstance(family, Trained)
        return family.fit(data.take(TRAIN), data.take(VALID), budget=budget, seed=seed)

    first, second = fitted(0), fitted(1)
    assert exports == ["wrap(Sequential)"]
    assert first.model_ != second.model_ == fit(module, task, seed=1, passes=passes).model_
    assert len(exports) == 2


class Shifted(nn.Module):
    """A module that is built anew in each fit, alike by all its weights, and does something else."""

    def __init__(self, by: float = 0.0) -> None:
        super().__init__()
        self.line, self.by = nn.Linear(4, 2), by

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, 2)."""
        found: Tensor = self.line(x + self.by)
        return found

    def __deepcopy__(self, memo: Any) -> Shifted:
        self.by += 1.0
        other = Shifted(self.by)
        other.load_state_dict(self.state_dict())
        return other


def test_what_is_alike_by_its_weights_alone_is_exported_again() -> None:
    data, candidate = rows(), wrap(Shifted(), recipe=FAST)
    for seed in range(2):
        family = candidate.make(BINARY).fit(data.take(TRAIN), data.take(VALID), budget=Budget(60.0, time.perf_counter()), seed=seed)
        assert isinstance(family, Trained)
        assert np.isfinite(values(family, data.take(REST))).all()  # and `fit` compared ONNX with torch
