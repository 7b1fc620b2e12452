from __future__ import annotations

import pytest
import torch
from torch import nn

from makegood.families._torch.optim import SCHEDULES, factor, optimiser


@pytest.mark.parametrize(
    ("schedule", "warm_up", "values"),
    [
        ("cosine", 0.0, {0: 1, 0.25: 0.853553, 0.5: 0.5, 1: 0}),
        ("cosine", 0.2, {0: 0, 0.1: 0.5, 0.2: 1, 0.6: 0.5, 1: 0}),
        ("one-cycle", 0.3, {0: 0.04, 0.15: 0.52, 0.3: 1, 0.65: 0.5, 1: 0}),
        ("warm-up-stable-decay", 0.1, {0: 0, 0.05: 0.5, 0.1: 1, 0.5: 1, 0.8: 1, 0.9: 0.5, 1: 0}),
        ("constant", 0.5, {0: 0, 0.25: 0.5, 0.5: 1, 1: 1}),
    ],
)
def test_schedules_have_known_values(schedule: str, warm_up: float, values: dict[float, float]) -> None:
    assert {share: factor(schedule, share, warm_up) for share in values} == pytest.approx(values, abs=1e-6)


def test_one_cycle_and_cosine_are_torchs() -> None:
    steps = 50
    weight = nn.Parameter(torch.zeros(1))
    sgd = torch.optim.SGD([weight], lr=1.0)
    # torch counts from the first step to the last, and to just before the last for the rise: the peak is at step 10 of 49
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        sgd, 1.0, total_steps=steps + 1, pct_start=11 / 51, cycle_momentum=False, final_div_factor=1e12
    )
    for step in range(steps):
        assert factor("one-cycle", step / steps, 10 / steps) == pytest.approx(theirs.get_last_lr()[0], abs=1e-6)
        sgd.step()
        theirs.step()
    sgd = torch.optim.SGD([weight], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, steps)
    for step in range(steps):
        assert factor("cosine", step / steps, 0.0) == pytest.approx(cosine.get_last_lr()[0], abs=1e-9)
        sgd.step()
        cosine.step()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warm_up", [0.0, 0.1, 0.5, 0.95])
def test_schedules_stay_between_0_and_the_peak(schedule: str, warm_up: float) -> None:
    values = [factor(schedule, i / 1000, warm_up) for i in range(1001)]
    assert min(values) >= 0
    assert max(values) <= 1
    if warm_up <= 0.8 or schedule != "warm-up-stable-decay":
        assert max(values) == pytest.approx(1, abs=1e-3)


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def test_weight_decay_spares_biases_and_norms() -> None:
    frozen = model()
    frozen[3].weight.requires_grad_(False)
    decaying, spared = optimiser(frozen, "adamw", 0.1, 0.8, 0.01).param_groups
    assert (decaying["weight_decay"], spared["weight_decay"]) == (0.01, 0.0)
    assert decaying["params"] == [frozen[0].weight]
    assert len(spared["params"]) == 4
    assert decaying["betas"] == (0.8, 0.999)


def test_without_decay_there_is_one_group() -> None:
    (group,) = optimiser(model(), "sgd", 0.1, 0.9, 0.0).param_groups
    assert len(group["params"]) == 6
    assert group["nesterov"]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_torchs(momentum: float) -> None:
    ours, theirs = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    holder = nn.Module()
    holder.weight = ours
    first = optimiser(holder, "sgd", 0.1, momentum, 0.1)
    second = torch.optim.SGD([theirs], 0.1, momentum, weight_decay=0.1, nesterov=momentum > 0)
    for _ in range(3):
        for weight, steps in ((ours, first), (theirs, second)):
            steps.zero_grad()
            (weight**2).sum().backward()
            steps.step()
    torch.testing.assert_close(ours, theirs)
