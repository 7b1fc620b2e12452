"""Recurrent layers with variational dropout: one mask a sequence, the same at every step.

Gal & Ghahramani 2016 (NeurIPS, eq. 7): dropout approximates a posterior over the weights, and one network reads a whole sequence, so
that the masks of the inputs and of the state may not change on the way. torch's own layers draw anew at each step. The masks come out of
`nn.Dropout` layers, by which Monte Carlo passes freeze them like any other (`uncertainty.frozen`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from makegood.errors import CaseError, Problem

_PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")  # of a layer, in the order that torch's kernels want


class _Recurrent(nn.Module, ABC):
    """Sequences (n, time, features) → the last state (n, hidden), or with `every_step` all of them (n, time, hidden).

    `dropout` is for the inputs of each layer, and so between layers; `recurrent_dropout` for the state. Parameters have the names and
    the order of gates of torch's layer, whose `state_dict` can be loaded.
    """

    GATES: int

    def __init__(
        self,
        features: int,
        hidden: int,
        layers: int = 1,
        *,
        dropout: float = 0.25,
        recurrent_dropout: float = 0.25,
        every_step: bool = False,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        sizes = {"features": features, "hidden": hidden, "layers": layers}
        shares = {"dropout": dropout, "recurrent_dropout": recurrent_dropout}
        wrong = [Problem(f"{name}.{what}", str(size), "at least 1") for what, size in sizes.items() if size < 1]
        wrong += [Problem(f"{name}.{what}", str(share), "a share in [0, 1)") for what, share in shares.items() if not 0 <= share < 1]
        if wrong:
            raise CaseError(*wrong)
        self.features, self.hidden, self.layers, self.every_step = features, hidden, layers, every_step
        for i in range(layers):
            for part, size in (("ih", hidden if i else features), ("hh", hidden)):
                self.register_parameter(f"weight_{part}_l{i}", nn.Parameter(torch.empty(self.GATES * hidden, size)))
                self.register_parameter(f"bias_{part}_l{i}", nn.Parameter(torch.empty(self.GATES * hidden)))
        self.input_masks = nn.ModuleList(nn.Dropout(dropout) for _ in range(layers))
        self.state_masks = nn.ModuleList(nn.Dropout(recurrent_dropout) for _ in range(layers))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew, uniform within ±1/√hidden, torch's own start."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(self.hidden**-0.5), self.hidden**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return the last state (n, hidden), or every step's (n, time, hidden); x (n, time, features)."""
        if x.ndim != 3 or x.shape[2] != self.features:
            # torch's kind of error: `wrap` turns it into one that names the module
            raise ValueError(
                f"{type(self).__name__} takes (n, time, {self.features}), not {tuple(x.shape)}; nn.Unflatten makes it of features"
            )
        if x.device.type == "cpu" and all(_idle(layer) for layer in (*self.input_masks, *self.state_masks)):
            x = self._at_once(x, [self.get_parameter(f"{name}_l{i}") for i in range(self.layers) for name in _PARAMETERS])
        else:
            for i in range(self.layers):
                x = self._layer(x, i)
        return x if self.every_step else x[:, -1]

    @abstractmethod
    def _at_once(self, x: Tensor, weights: list[Tensor]) -> Tensor:
        """Return the states of the last layer (n, time, hidden) by torch's own kernel, which knows no masks."""

    def _layer(self, x: Tensor, i: int) -> Tensor:
        """Return the states of one layer (n, time, hidden)."""
        n, time, size = x.shape
        of_input = self.input_masks[i](x.new_ones(n, size)).unsqueeze(1)  # one row of the mask for all steps
        of_state = self.state_masks[i](x.new_ones(n, self.hidden))
        weight, bias = self.get_parameter(f"weight_hh_l{i}"), self.get_parameter(f"bias_hh_l{i}")
        coming = functional.linear(x * of_input, self.get_parameter(f"weight_ih_l{i}"), self.get_parameter(f"bias_ih_l{i}"))
        h, memory = x.new_zeros(n, self.hidden), x.new_zeros(n, self.hidden)
        states = []
        for t in range(time):
            h, memory = self._step(coming[:, t], functional.linear(h * of_state, weight, bias), h, memory)
            states.append(h)
        return torch.stack(states, 1)

    @abstractmethod
    def _step(self, coming: Tensor, kept: Tensor, h: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next state and memory (n, hidden) each; `coming` and `kept` (n, GATES·hidden) are of the input and of the state."""


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000), gates as in `torch.nn.LSTM`."""

    GATES = 4

    def _at_once(self, x: Tensor, weights: list[Tensor]) -> Tensor:
        start = x.new_zeros(self.layers, len(x), self.hidden)
        return torch.lstm(x, [start, start], weights, True, self.layers, 0.0, self.training, False, True)[0]

    def _step(self, coming: Tensor, kept: Tensor, h: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = (coming + kept).chunk(4, 1)
        memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
        return o.sigmoid() * memory.tanh(), memory


class GRU(_Recurrent):
    """Gated recurrent unit (Cho et al. 2014, the reset gate behind the product as in `torch.nn.GRU`)."""

    GATES = 3

    def _at_once(self, x: Tensor, weights: list[Tensor]) -> Tensor:
        start = x.new_zeros(self.layers, len(x), self.hidden)
        return torch.gru(x, start, weights, True, self.layers, 0.0, self.training, False, True)[0]

    def _step(self, coming: Tensor, kept: Tensor, h: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        (r, z, new), (r_kept, z_kept, new_kept) = coming.chunk(3, 1), kept.chunk(3, 1)
        z = (z + z_kept).sigmoid()
        new = (new + (r + r_kept).sigmoid() * new_kept).tanh()
        return new + z * (h - new), memory


def _idle(layer: nn.Module) -> bool:
    """Return whether a mask's layer does nothing now; one that `uncertainty` froze always does."""
    return isinstance(layer, nn.Dropout) and (layer.p == 0 or not layer.training)
