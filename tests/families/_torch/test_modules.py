from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from makegood.contracts import Budget
from makegood.families._torch.loop import Recipe, Session
from makegood.families._torch.modules import (
    Block,
    Encoder,
    FeatureTransformer,
    Mixture,
    Sample,
    Shared,
    learn,
    outputs,
    seeded,
    weights,
)

# feature 0 is a number with two pieces, 1 → 3 → 11; features 1 and 2 are binary
ARRAYS: dict[str, Any] = {
    "numbers": np.array([0]),
    "binary": np.array([1, 2]),
    "pieces": np.array([0, 0]),
    "centre": np.array([3.0]),
    "slope": np.array([0.5]),
    "start": np.array([1.0, 3.0]),
    "steep": np.array([0.5, 0.125]),
    "owner": np.array([0, 0, 0, 1, 2]),
    "token": np.array([0, 0, 0, 1, 1]),
}
X = np.array([[1.0, 0.0, 1.0], [5.0, 1.0, 0.0], [11.0, 0.0, 0.0]], np.float32)


def mixture(k: int = 2, members: int = 3) -> Mixture:
    return seeded(lambda: Mixture(ARRAYS, k, width=8, depth=2, members=members, dropout=0.1), 1)


def transformer(k: int = 2) -> FeatureTransformer:
    return seeded(lambda: FeatureTransformer(ARRAYS, k, d=8, heads=2, depth=2, dropout=0.1), 1)


def test_a_number_is_clipped_softly_and_cut_into_pieces() -> None:
    soft = [z / np.sqrt(1.0 + z * z / 9.0) for z in (-1.0, 1.0, 4.0)]
    wanted = [[soft[0], 0.0, 0.0, 0.0, 1.0], [soft[1], 1.0, 0.25, 1.0, 0.0], [soft[2], 1.0, 1.0, 0.0, 0.0]]
    np.testing.assert_allclose(Encoder(ARRAYS)(torch.from_numpy(X)).numpy(), wanted, rtol=1e-6)


def test_no_number_is_too_large_to_encode() -> None:
    far = torch.tensor([[3e38, 0.0, 0.0], [-3e38, 0.0, 0.0]])
    np.testing.assert_allclose(Encoder(ARRAYS)(far).numpy(), [[3.0, 1.0, 1.0, 0.0, 0.0], [-3.0, 0.0, 0.0, 0.0, 0.0]], rtol=1e-6)


def test_members_share_a_matrix() -> None:
    signs = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    layer = seeded(lambda: Shared(2, 3, signs), 0)
    with torch.no_grad():
        layer.s.copy_(torch.arange(6.0))
    x = torch.tensor([[[2.0, 5.0]]])
    out = layer(x)
    for member in range(2):
        own = signs[member][:, None] * layer.weight * layer.s.view(2, 3)[member]
        torch.testing.assert_close(out[:, member], x[:, 0] @ own + layer.bias.view(2, 3)[member])


@pytest.mark.parametrize("make", [mixture, transformer])
def test_a_row_does_not_depend_on_its_neighbours_and_members_differ(make: Any) -> None:
    model = make().eval()
    x = torch.from_numpy(X)
    out = model(x)
    assert out.shape == (3, 3 if make is mixture else 1, 2)
    torch.testing.assert_close(model(x[1:2]), out[1:2])
    assert make is transformer or not torch.allclose(out[:, 0], out[:, 1])


@pytest.mark.parametrize("make", [mixture, transformer])
def test_dropout_works_in_training_alone(make: Any) -> None:
    model, x = make(), torch.from_numpy(X)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_the_columns_of_one_feature_start_with_one_sign() -> None:
    signs = mixture(members=40).layers[0].r.view(40, -1)
    assert set(signs.flatten().tolist()) == {-1.0, 1.0}
    assert torch.equal(signs[:, 0], signs[:, 2])
    assert not torch.equal(signs[:, 0], signs[:, 3])


@pytest.mark.parametrize("make", [mixture, transformer])
def test_weight_decay_is_for_matrices_alone(make: Any) -> None:
    flat = [name for name, value in make().named_parameters() if value.ndim == 1]
    assert all(name.split(".")[-1] in {"r", "s", "bias"} or "norm" in name for name in flat)
    assert not [name for name, value in make().named_parameters() if value.ndim > 1 and name.endswith(("r", "s", "bias"))]


def test_the_last_block_gives_the_first_token_alone() -> None:
    whole = seeded(lambda: Block(8, 2, 0.0, first=False), 3)
    one = seeded(lambda: Block(8, 2, 0.0, first=True), 3)
    x = torch.rand(4, 5, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(one(x), whole(x)[:, :1])


def test_every_column_adds_to_its_own_token() -> None:
    model = transformer()
    spread = model.spread().view(5, 2, 8)
    for column, token in enumerate(ARRAYS["token"]):
        torch.testing.assert_close(spread[column, token], model.embed[column])
        assert not spread[column, 1 - token].any()


def test_first_weights_follow_from_the_seed_and_leave_torch_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (seeded(lambda: nn.Linear(3, 3), seed).weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_members_are_averaged_as_probabilities_in_blocks() -> None:
    model, many = mixture().eval(), np.tile(X, (400, 1))
    out = model(torch.from_numpy(X)).detach()
    np.testing.assert_allclose(outputs(model, many, classes=True)[-3:], out.softmax(-1).mean(1).numpy(), rtol=1e-5)
    np.testing.assert_allclose(outputs(model, many, classes=False)[-3:], out.mean(1).numpy(), rtol=1e-5)


def test_what_is_learnt_comes_by_name() -> None:
    assert set(weights(mixture())) == {f"layers.{i}.{name}" for i in range(2) for name in ("weight", "r", "s", "bias")} | {"head", "bias"}
    found = weights(transformer())
    assert "embed" not in found
    assert found["spread"].shape == (5, 16)


def test_a_sample_as_tensors() -> None:
    codes = Sample(X, np.array([0, 1, 1]), np.array([1.0, 2.0, 3.0])).rows()
    assert (codes.inputs.dtype, codes.target.dtype) == (torch.float32, torch.int64)
    assert codes.weight is not None
    assert codes.weight.tolist() == [0.5, 1.0, 1.5]
    numbers = Sample(X, np.array([0.5, 1.0, 2.0])).rows()
    assert (numbers.target.dtype, numbers.weight) == (torch.float32, None)


@pytest.mark.parametrize("make", [mixture, transformer])
@pytest.mark.parametrize("levels", [(), (0.25, 0.75)])
def test_learning(make: Any, levels: tuple[float, ...]) -> None:
    x = np.tile(X, (40, 1))
    y = np.tile([0, 1, 1], 40) if not levels else np.tile([-1.0, 0.0, 1.0], 40)
    model = make()
    recipe = Recipe(epochs=60, batch_size=40, lr=0.02)
    threads = torch.get_num_threads()
    learn(model, (Sample(x, y), Sample(x, y)), levels, recipe, Session(Budget(30.0, time.perf_counter()), 0))
    assert torch.get_num_threads() == threads
    found = outputs(model, X, classes=not levels)
    if levels:
        assert np.abs(found - np.array([[-1.0], [0.0], [1.0]])).max() < 0.4
    else:
        assert found[[0, 1, 2], [0, 1, 1]].min() > 0.8
