"""Losses that return their weighted sum and the weight it covers, so that parts of a batch add up exactly.

An output is (n, k), or (n, m, k) from m members in one network: their losses are averaged, which trains each by itself; the loss of
their mean would not (TabM: Gorishniy et al. 2025, §3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""(output, target (n, …), weight (n,) or None) → (sum of weighted losses, sum of weights), both without axes."""


def cross_entropy(smoothing: float = 0.0) -> Loss:
    """Return the loss −log p of the true class; output: logits of k classes, target: codes (n,) int64.

    `smoothing` ε mixes the target with the uniform distribution: (1 − ε)·onehot + ε/k (Szegedy et al. 2016, §7).
    """

    def each(output: Tensor, target: Tensor) -> Tensor:
        codes = target.expand(-1, output.shape[1], 1)
        flat = functional.cross_entropy(output.flatten(0, 1), codes.flatten(), reduction="none", label_smoothing=smoothing)
        return flat.view(output.shape[:2])

    return _averaged(each)


def binary() -> Loss:
    """Return the loss −y·log p − (1 − y)·log(1 − p); output: k logits, target: y (n,) or (n, k) in [0, 1], averaged over k."""
    return _averaged(lambda output, target: functional.softplus(output).sub(output * target).mean(-1))


def squared() -> Loss:
    """Return the squared error; output: k numbers, target: (n,) or (n, k), averaged over k."""
    return _averaged(lambda output, target: (output - target).square().mean(-1))


def quantile(levels: Sequence[float]) -> Loss:
    """Return the pinball loss max(τ·d, (τ − 1)·d) of d = target − output, averaged over the levels τ; target: (n,).

    Its least mean is at the quantiles (Koenker & Bassett 1978, eq. 2.2).
    """

    def each(output: Tensor, target: Tensor) -> Tensor:
        above, level = target - output, _constant(tuple(levels), output.dtype, output.device)
        return torch.maximum(level * above, (level - 1) * above).mean(-1)

    return _averaged(each)


@lru_cache
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the values as a tensor, made once: a copy to a GPU in each step would wait for it."""
    return torch.tensor(values, dtype=dtype, device=device)


def expected_payoff(scale: float = 1.0) -> Loss:
    """Return minus the expected payoff of choosing by softmax, in units of `scale`; output: logits of k options.

    Target: (n, k) float, what each option pays given the row's true outcome. Decision-focused: a mistake costs what it costs in money
    (with two options: the expected cost of Correa Bahnsen, Aouada & Ottersten 2014, eq. 4, with its sign changed).
    """
    return _averaged(lambda output, payoff: -(output.softmax(-1) * payoff).sum(-1) / scale)


def _averaged(each: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """Return a loss from one of members (n, m, k) and target (n, 1, …) that gives (n, m)."""

    def loss(output: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        losses = each(output if output.ndim == 3 else output.unsqueeze(1), target.reshape(len(target), 1, -1)).mean(1)
        if weight is None:
            return losses.sum(), losses.new_full((), len(losses))
        return (losses * weight).sum(), weight.sum().to(losses.dtype)

    return loss
