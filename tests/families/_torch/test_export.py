"""An export costs a second, and another of the same build nothing."""

from __future__ import annotations

import torch
from torch import nn

from makegood.families._torch.export import exported, refilled


def _net(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.LayerNorm(width), nn.Linear(width, 2)).eval()


def test_a_form_with_other_weights_is_what_an_export_would_give() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = _net(), _net()
    form = exported(first, torch.zeros(1, 4), "here")
    assert refilled(form, first) == form
    assert refilled(form, second) == exported(second, torch.zeros(1, 4), "here") != form


def test_a_form_of_another_build_is_not_filled() -> None:
    form = exported(_net(), torch.zeros(1, 4), "here")
    assert refilled(form, _net(5)) is None
    assert refilled(form, nn.Sequential(*_net(), nn.Linear(2, 2))) is None
    folded = nn.Sequential(nn.Conv1d(1, 2, 1), nn.BatchNorm1d(2), nn.Flatten()).eval()
    assert (
        refilled(exported(nn.Sequential(nn.Unflatten(1, (1, 4)), folded), torch.zeros(1, 4), "here"), nn.Sequential(nn.Identity(), folded))
        is None
    )
