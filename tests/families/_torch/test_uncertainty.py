"""Dropout that stays at work: its masks are torch's own, drawn once, and nothing random is left that nobody sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from makegood.errors import CaseError
from makegood.families._torch import uncertainty
from makegood.families._torch.uncertainty import LAYERS, Frozen, Sampling, frozen
from makegood.families.recurrent import LSTM

PASSES = 16


def outputs(module: nn.Module, row: Tensor, passes: int = PASSES) -> Tensor:
    """Return what a frozen module says of one row in each pass."""
    with torch.no_grad():
        found: Tensor = module(row.expand(passes, *row.shape[1:]))
    return found


class Twice(nn.Module):
    """One dropout layer, called on two values of different shape."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.a, self.b = nn.Dropout(0.5), nn.Linear(4, 12), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.b(self.drop(self.a(self.drop(x))))
        return found


class Hidden(nn.Module):
    """Dropout that no layer shows."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.line, self.layers = nn.Linear(4, 8), nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(self.layers(self.line(x)), 0.3, self.training)


def test_mean_and_variance_over_the_masks_of_a_linear_model_are_those_of_theory() -> None:
    torch.manual_seed(0)
    p, passes, line = 0.3, 20_000, nn.Linear(6, 1)
    row = torch.randn(1, 6)
    found = outputs(frozen(nn.Sequential(nn.Dropout(p), line), row, passes, 1, "here"), row, passes).double()
    terms = (line.weight * row).detach().double()
    mean = float((terms.sum() + line.bias).detach())
    variance = float(terms.square().sum()) * p / (1 - p)  # Σ w²x² · Var(mask), Var(mask) = p/(1 − p)
    assert abs(float(found.mean()) - mean) < 4 * (variance / passes) ** 0.5
    fourth = float((found - found.mean()).pow(4).mean())
    assert abs(float(found.var()) - variance) < 4 * ((fourth - variance**2) / passes) ** 0.5


def test_each_pass_is_the_model_under_its_own_mask() -> None:
    torch.manual_seed(0)
    row, line = torch.randn(1, 6), nn.Linear(6, 2)
    module = frozen(nn.Sequential(nn.Dropout(0.5), line), row, PASSES, 1, "here")
    masks = module.get_buffer("0.scale0")
    assert masks.shape == (PASSES, 6)
    assert sorted(masks.unique().tolist()) == [0.0, 2.0]
    np.testing.assert_array_equal(outputs(module, row).numpy(), line(row * masks).detach().numpy())


@pytest.mark.parametrize("kind", LAYERS, ids=lambda kind: kind.__name__)
@pytest.mark.filterwarnings("ignore:dropout2d")
def test_a_frozen_layer_does_what_torchs_does_with_the_same_draw(kind: Any) -> None:
    shape = {nn.Dropout1d: (5, 7), nn.Dropout3d: (5, 3, 4, 2)}.get(kind, (5, 6, 4))
    row = torch.randn(1, *shape)
    layer = kind(0.4)
    module = frozen(nn.Sequential(layer), row, PASSES, 9, "here")
    with torch.random.fork_rng():
        torch.manual_seed(9)
        wanted = layer.train()(row.expand(PASSES, *shape))
    np.testing.assert_allclose(outputs(module, row).numpy(), wanted.numpy(), atol=1e-6)
    channels = kind in (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout)
    assert module.get_buffer("0.scale0").numel() == PASSES * (5 if channels else int(np.prod(shape)))  # one number a channel


def test_masks_follow_from_the_seed_and_passes_from_each_other_differ() -> None:
    row = torch.randn(1, 4)
    module = Twice()
    one, same, other = (outputs(frozen(module, row, PASSES, seed, "here"), row) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert len({tuple(line) for line in one.tolist()}) == PASSES


def test_every_call_of_one_layer_has_masks_of_its_own() -> None:
    row = torch.randn(1, 4)
    module = frozen(Twice(), row, PASSES, 1, "here")
    assert [tuple(buffer.shape) for buffer in module.buffers()] == [(PASSES, 4), (PASSES, 12)]
    assert torch.equal(outputs(module, row), outputs(module, row))
    drop = nn.Dropout(0.5)
    twice = frozen(nn.Sequential(drop, nn.Linear(4, 4), drop), row, PASSES, 1, "here")  # one layer under two names
    assert twice[0] is twice[2]
    assert isinstance(twice[0], Frozen)
    assert not torch.equal(twice[0].get_buffer("scale0"), twice[0].get_buffer("scale1"))


def test_the_module_and_the_random_state_are_not_changed_and_batch_norm_keeps_what_it_learnt() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(4)
    module = nn.Sequential(norm, nn.Dropout(0.5, inplace=True))
    module(torch.randn(50, 4) * 3 + 1)
    before, row = {k: v.clone() for k, v in module.state_dict().items()}, torch.randn(1, 4)
    state = torch.get_rng_state()
    twin = frozen(module, row, PASSES, 1, "here")
    assert torch.equal(torch.get_rng_state(), state)
    assert module.training
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(value, twin.state_dict()[name])
    expected = norm.eval()(row) * twin.get_buffer("1.scale0")
    np.testing.assert_allclose(outputs(twin, row).numpy(), expected.detach().numpy(), rtol=1e-6)


def test_a_transformers_layers_are_asked_one_by_one() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)
    layer.self_attn.dropout = 0.0
    row, before = torch.randn(1, 5, 8), torch.backends.mha.get_fastpath_enabled()
    with uncertainty.layer_by_layer():
        module = frozen(layer, row, PASSES, 1, "here")
        found = outputs(module, row)
    assert torch.backends.mha.get_fastpath_enabled() == before
    assert sum(isinstance(part, Frozen) for part in module.modules()) == 3
    assert len({tuple(one.flatten().tolist()) for one in found}) == PASSES


class Strange(nn.Dropout):
    """A dropout layer of somebody's own."""

    def forward(self, input: Tensor) -> Tensor:
        return input + torch.randn_like(input) if self.training else input


NONE = "got 'no dropout layer'; expected a dropout layer at work, for 16 passes; add nn.Dropout(0.1), or leave out passes"
HIDDEN = (
    "got 'passes that differ though every dropout layer is frozen'; expected no randomness but that of nn.Dropout layers; "
    "write nn.Dropout for functional.dropout"
)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(4, 2), f"here: {NONE}"),
        (nn.Sequential(nn.Dropout(0.0), nn.Linear(4, 2)), f"here: {NONE}"),
        (Hidden(), f"here: {HIDDEN}"),
        (Hidden(nn.Dropout(0.5)), f"here: {HIDDEN}"),
        (nn.Sequential(nn.Linear(4, 8), nn.RReLU(), nn.Dropout(0.1)), f"here: {HIDDEN}"),
        (
            nn.Sequential(nn.Unflatten(1, (2, 2)), nn.LSTM(2, 3, 2, dropout=0.1)),
            "here: got '1 (LSTM)'; expected recurrent layers whose mask is the same at every step; "
            "use makegood.families.recurrent.LSTM, which draws one mask a sequence",
        ),
        (
            nn.Sequential(nn.Unflatten(1, (2, 2)), nn.GRU(2, 3, 2, dropout=0.1)),
            "here: got '1 (GRU)'; expected recurrent layers whose mask is the same at every step; "
            "use makegood.families.recurrent.GRU, which draws one mask a sequence",
        ),
        (
            nn.MultiheadAttention(4, 2, dropout=0.1),
            "here: got 'MultiheadAttention'; expected attention without dropout of its own; set its dropout to 0, and add nn.Dropout behind it",
        ),
        (
            nn.Sequential(nn.Linear(4, 2), Strange()),
            "here: got '1 (Strange)'; expected one of Dropout, Dropout1d, Dropout2d, Dropout3d, AlphaDropout, FeatureAlphaDropout; "
            "use one of these",
        ),
    ],
    ids=["none", "zero", "functional", "both", "random slope", "lstm", "gru", "attention", "own"],
)
def test_what_cannot_be_frozen_is_refused_by_name(module: nn.Module, message: str) -> None:
    with pytest.raises(CaseError) as error:
        frozen(module, torch.randn(1, 4), PASSES, 1, "here")
    assert str(error.value) == message


def test_a_layer_that_is_never_called_is_told_from_none() -> None:
    module = nn.Linear(4, 2)
    module.add_module("unused", nn.Dropout(0.5))
    with pytest.raises(CaseError, match=r"here: got '1 dropout layers, none called'; expected a dropout layer at work"):
        frozen(module, torch.randn(1, 4), PASSES, 1, "here")


def test_our_recurrent_layers_are_frozen_like_any_other() -> None:
    module = frozen(LSTM(3, 5, 2), torch.randn(1, 4, 3), PASSES, 1, "here")
    assert sorted(tuple(buffer.shape) for buffer in module.buffers()) == [(PASSES, 3), (PASSES, 5), (PASSES, 5), (PASSES, 5)]


def test_how_often_is_read_with_care() -> None:
    assert Sampling() == Sampling(1, 0)
    with pytest.raises(CaseError) as error:
        Sampling(members=0, passes=1)
    assert str(error.value).splitlines() == [
        "recipe.members: got '0'; expected a whole number, at least 1",
        "recipe.passes: got '1'; expected a whole number, at least 2, or 0 for none",
    ]
    wrong: Any = 2.5
    with pytest.raises(CaseError, match=r"recipe.passes: got '2.5'"):
        Sampling(passes=wrong)
