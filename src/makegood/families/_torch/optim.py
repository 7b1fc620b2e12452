"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math

import torch
import torch._dynamo  # torch would import it with the first optimiser, out of a training's budget
from torch import nn

OPTIMISERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "one-cycle", "warm-up-stable-decay", "constant")
_DECAY = 0.2
_LOW = 1 / 25


def optimiser(model: nn.Module, name: str, lr: float, momentum: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov & Hutter 2019) or SGD with Nesterov's momentum, over the parameters that learn.

    Weight decay is for matrices and kernels alone: it would pull biases and the scales of norms to zero, which regularises
    nothing. `momentum` is SGD's, and AdamW's β₁; AdamW's β₂ is 0.999.
    """
    learning = [p for p in model.parameters() if p.requires_grad]
    decaying = [p for p in learning if p.ndim >= 2 and weight_decay]  # none: one group, whose step costs half of two
    spared = [p for p in learning if p.ndim < 2 or not weight_decay]
    groups = [{"params": some, "weight_decay": decay} for some, decay in ((decaying, weight_decay), (spared, 0.0)) if some]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=True)
    return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999), fused=True)


def factor(schedule: str, share: float, warm_up: float) -> float:
    """Return the learning rate, in units of its peak, after `share` of the steps; `warm_up` is the share in which it rises.

    - cosine: linear to the peak, then half a cosine to zero (Loshchilov & Hutter 2017, eq. 5)
    - one-cycle: half a cosine from 1/25 to the peak, then half a cosine to zero (Smith & Topin 2018)
    - warm-up-stable-decay: linear to the peak, the peak, then linear to zero in the last fifth (Hu et al. 2024, §4.2)
    - constant: linear to the peak, then the peak
    """
    if share < warm_up:
        rise = share / warm_up
        return _LOW + (1 - _LOW) * _half_cosine(rise) if schedule == "one-cycle" else rise
    if schedule == "constant":
        return 1.0
    if schedule == "warm-up-stable-decay":
        return min(1.0, (1 - share) / _DECAY)
    return 1 - _half_cosine((share - warm_up) / (1 - warm_up))


def _half_cosine(share: float) -> float:
    """Return a rise from 0 to 1 that is flat at both ends."""
    return (1 - math.cos(math.pi * share)) / 2
