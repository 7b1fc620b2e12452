from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, tensor
from torch.nn import functional

from makegood.families._torch.losses import Loss, binary, cross_entropy, expected_payoff, quantile, squared

RANDOM = torch.Generator().manual_seed(1)
LOGITS = torch.randn(7, 4, generator=RANDOM, dtype=torch.float64)
CODES = torch.randint(4, (7,), generator=RANDOM)
NUMBERS = torch.randn(7, generator=RANDOM, dtype=torch.float64)
PAYOFFS = torch.randn(7, 4, generator=RANDOM, dtype=torch.float64) * 100
WEIGHT = torch.rand(7, generator=RANDOM, dtype=torch.float64)

ALL = [
    (cross_entropy(), CODES),
    (cross_entropy(0.1), CODES),
    (binary(), (LOGITS > 0).double()),
    (squared(), LOGITS.flip(0)),
    (quantile((0.1, 0.4, 0.5, 0.9)), NUMBERS),
    (expected_payoff(), PAYOFFS),
]


def value(loss: Loss, output: Tensor, target: Tensor) -> float:
    total, count = loss(output, target, None)
    return float(total / count)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(smoothing: float) -> None:
    expected = functional.cross_entropy(LOGITS, CODES, label_smoothing=smoothing)
    assert value(cross_entropy(smoothing), LOGITS, CODES) == pytest.approx(float(expected), rel=1e-12)


def test_cross_entropy_of_a_coin_is_log_2() -> None:
    assert value(cross_entropy(), torch.zeros(3, 2), tensor([0, 1, 1])) == pytest.approx(math.log(2))


def test_binary_is_torchs_and_stays_finite() -> None:
    y = (LOGITS[:, :1] > 0).double()
    expected = functional.binary_cross_entropy_with_logits(LOGITS[:, 1:2], y)
    assert value(binary(), LOGITS[:, 1:2], y[:, 0]) == pytest.approx(float(expected), rel=1e-12)
    assert value(binary(), tensor([[1000.0]]), tensor([0.0])) == 1000.0


def test_squared_is_torchs() -> None:
    assert value(squared(), NUMBERS[:, None], WEIGHT) == pytest.approx(float(functional.mse_loss(NUMBERS, WEIGHT)), rel=1e-12)
    assert value(squared(), tensor([[1.0, 2.0]]), tensor([[0.0, 4.0]])) == 2.5


def test_quantile_by_hand_and_least_at_the_quantile() -> None:
    # target 3 above 1 by 2: .1·2 = .2; below 5 by 2: (1 − .9)·2 = .2
    assert value(quantile((0.1, 0.9)), tensor([[1.0, 5.0]]), tensor([3.0])) == pytest.approx(0.2)
    sample = torch.randn(1001, generator=torch.Generator().manual_seed(2))
    at = {q: value(quantile((0.8,)), sample.quantile(q).expand(1001, 1), sample) for q in (0.75, 0.8, 0.85)}
    assert min(at, key=at.__getitem__) == 0.8


def test_expected_payoff_by_hand() -> None:
    # log-odds log 3: the first option with probability .75
    output, payoff = tensor([[math.log(3), 0.0]]), tensor([[100.0, -20.0]])
    assert value(expected_payoff(), output, payoff) == pytest.approx(-70)
    assert value(expected_payoff(scale=10), output, payoff) == pytest.approx(-7)


def test_expected_payoff_learns_the_option_that_pays() -> None:
    logits = torch.zeros(1, 3, requires_grad=True)
    optimiser = torch.optim.SGD([logits], lr=1.0)
    for _ in range(50):
        optimiser.zero_grad()
        expected_payoff()(logits, tensor([[1.0, 5.0, -9.0]]), None)[0].backward()
        optimiser.step()
    assert logits.argmax() == 1
    assert logits.softmax(-1)[0, 1] > 0.9


@pytest.mark.parametrize(("loss", "target"), ALL)
def test_parts_and_weights_add_up(loss: Loss, target: Tensor) -> None:
    total, count = loss(LOGITS, target, WEIGHT)
    parts = [loss(LOGITS[rows], target[rows], WEIGHT[rows]) for rows in (slice(0, 3), slice(3, 7))]
    assert float(sum(part for part, _ in parts)) == pytest.approx(float(total), rel=1e-12)
    assert float(sum(part for _, part in parts)) == pytest.approx(float(count), rel=1e-12)
    single = [float(loss(LOGITS[i : i + 1], target[i : i + 1], None)[0]) for i in range(7)]
    assert float(total) == pytest.approx(sum(float(w) * one for w, one in zip(WEIGHT, single, strict=True)), rel=1e-12)
    assert count == pytest.approx(float(WEIGHT.sum()))
    assert float(loss(LOGITS, target, None)[1]) == 7


@pytest.mark.parametrize(("loss", "target"), ALL)
def test_members_losses_are_averaged(loss: Loss, target: Tensor) -> None:
    members = torch.stack([LOGITS, LOGITS.flip(1), LOGITS * 2], 1)
    expected = sum(value(loss, members[:, i], target) for i in range(3)) / 3
    assert value(loss, members, target) == pytest.approx(expected, rel=1e-12)
    # a member alone gets the gradient of its own loss, over the number of members
    members.requires_grad_()
    loss(members, target, None)[0].backward()
    own = LOGITS.clone().requires_grad_()
    loss(own, target, None)[0].backward()
    assert members.grad is not None
    assert own.grad is not None
    torch.testing.assert_close(members.grad[:, 0] * 3, own.grad)


@pytest.mark.parametrize(("loss", "target"), ALL)
def test_gradients_are_those_of_the_values(loss: Loss, target: Tensor) -> None:
    assert torch.autograd.gradcheck(lambda output: loss(output, target, WEIGHT)[0], LOGITS.clone().requires_grad_())
