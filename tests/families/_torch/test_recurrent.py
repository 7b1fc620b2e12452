"""One mask a sequence: the same at every step, another for every sequence; and torch's own numbers where nothing is dropped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from makegood.errors import CaseError
from makegood.families._torch.uncertainty import frozen
from makegood.families.recurrent import GRU, LSTM

KINDS = pytest.mark.parametrize(("ours", "theirs"), [(LSTM, nn.LSTM), (GRU, nn.GRU)], ids=["LSTM", "GRU"])


class Watched(torch.overrides.TorchFunctionMode):
    """Notes the input of every linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is functional.linear:
            self.seen.append(args[0].detach())
        return function(*args, **(kwargs or {}))


def masks(layer: nn.Module, n: int, time: int, features: int) -> list[Tensor]:
    """Return what each layer's inputs (n, time, size) and states (n, time - 1, hidden) were multiplied by, step by step.

    The unmasked values are those that the layer gave out: inputs are ones, and a state is read off the same pass.
    """
    with Watched() as watched:
        layer(torch.ones(n, time, features))
    found, size = [], 1 + time
    for i in range(len(watched.seen) // size):
        inputs, *states = watched.seen[i * size : (i + 1) * size]
        found += [inputs, torch.stack(states[1:], 1)]  # the first state is zero: it shows no mask
    return found


def dropped(values: Tensor) -> Tensor:
    """Return where (n, time, size) is zero: a state is never exactly zero but for its mask."""
    return values == 0.0


def constant_over_time(values: Tensor) -> bool:
    return bool((dropped(values) == dropped(values)[:, :1]).all())


@KINDS
@pytest.mark.parametrize("every_step", [True, False])
def test_without_dropout_it_is_torchs_layer(ours: Any, theirs: Any, every_step: bool) -> None:
    torch.manual_seed(0)
    mine, other = ours(3, 7, 2, dropout=0.0, recurrent_dropout=0.0, every_step=every_step), theirs(3, 7, 2, batch_first=True)
    mine.load_state_dict(other.state_dict())
    x = torch.randn(5, 9, 3)
    wanted = other(x)[0] if every_step else other(x)[0][:, -1]
    looped = x
    for i in range(2):
        looped = mine._layer(looped, i)
    for found in (mine(x), looped if every_step else looped[:, -1]):  # torch's kernel, and our steps
        np.testing.assert_allclose(found.detach().numpy(), wanted.detach().numpy(), rtol=0, atol=1e-6)


@KINDS
def test_gradients_are_those_of_torchs_layer(ours: Any, theirs: Any) -> None:
    torch.manual_seed(0)
    mine, other = ours(3, 4, dropout=0.0, recurrent_dropout=0.0, every_step=True), theirs(3, 4, batch_first=True)
    mine.load_state_dict(other.state_dict())
    x = torch.randn(5, 6, 3)
    mine._layer(x, 0).square().sum().backward()
    other(x)[0].square().sum().backward()
    for name, parameter in other.named_parameters():
        assert parameter.grad is not None
        np.testing.assert_allclose(mine.get_parameter(name).grad.numpy(), parameter.grad.numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_masks_in_training_are_constant_over_time_and_differ_between_sequences(kind: Any) -> None:
    torch.manual_seed(1)
    found = masks(kind(10, 12, 2, dropout=0.4, recurrent_dropout=0.3).train(), n=8, time=6, features=10)
    assert len(found) == 4  # inputs and states of two layers
    for values in found:
        assert constant_over_time(values)
        assert 0.1 < float(dropped(values).float().mean()) < 0.7
        assert len({tuple(row.flatten().tolist()) for row in dropped(values)[:, 0]}) == 8  # one of its own for every sequence
    assert found[0].unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    different = [tuple(dropped(values)[0, 0].tolist()) for values in (found[1], found[2], found[3])]
    assert len(set(different)) == 3  # states, and inputs of the second layer


def test_masks_have_a_mean_of_one() -> None:
    torch.manual_seed(2)
    inputs, _ = masks(GRU(50, 1, dropout=0.3).train(), n=4000, time=2, features=50)
    assert abs(float(inputs.mean()) - 1.0) < 4 * (0.3 / 0.7 / 200_000) ** 0.5  # four standard errors of the mean of n · 50 draws


class Careless(LSTM):
    """The mutation: inputs and states dropped anew at each step, as torch's own kind of dropout does between layers."""

    def _layer(self, x: Tensor, i: int) -> Tensor:
        return super()._layer(functional.dropout(x, 0.4, self.training), i)

    def _step(self, coming: Tensor, kept: Tensor, h: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        h, memory = super()._step(coming, kept, h, memory)
        return functional.dropout(h, 0.4, self.training), memory


def test_masks_drawn_anew_at_each_step_fail_the_test_of_constancy() -> None:
    torch.manual_seed(1)
    inputs, states = masks(Careless(10, 12, recurrent_dropout=0.1, dropout=0.0).train(), n=8, time=6, features=10)
    assert not constant_over_time(inputs)
    assert not constant_over_time(states)


@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_frozen_passes_keep_one_mask_a_pass_over_time(kind: Any) -> None:
    torch.manual_seed(3)
    layer = frozen(kind(10, 12, 2, dropout=0.4, recurrent_dropout=0.3), torch.randn(1, 6, 10), 8, 5, "here")
    first = masks(layer, n=8, time=6, features=10)
    for values in first:
        assert constant_over_time(values)
        assert len({tuple(row.tolist()) for row in dropped(values)[:, 0]}) == 8  # passes differ
    for one, other in zip(first, masks(layer, n=8, time=6, features=10), strict=True):
        assert torch.equal(one, other)  # and are the same the next time


def test_in_evaluation_nothing_is_dropped() -> None:
    layer = LSTM(3, 4, dropout=0.5, recurrent_dropout=0.5).eval()
    x = torch.randn(2, 5, 3)
    assert torch.equal(layer(x), layer(x))
    np.testing.assert_allclose(layer(x).detach().numpy(), layer._layer(x, 0)[:, -1].detach().numpy(), atol=1e-6)


def test_wrong_numbers_are_all_named() -> None:
    with pytest.raises(CaseError) as error:
        GRU(0, 4, 0, dropout=1.0, recurrent_dropout=-0.1)
    assert str(error.value).splitlines() == [
        "GRU.features: got '0'; expected at least 1",
        "GRU.layers: got '0'; expected at least 1",
        "GRU.dropout: got '1.0'; expected a share in [0, 1)",
        "GRU.recurrent_dropout: got '-0.1'; expected a share in [0, 1)",
    ]


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 2)])
def test_what_is_no_sequence_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"LSTM takes \(n, time, 3\), not .*; nn.Unflatten makes it of features"):
        LSTM(3, 4)(torch.zeros(shape))
