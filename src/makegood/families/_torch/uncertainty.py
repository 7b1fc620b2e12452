"""Networks that tell how little they know: several trained apart, each asked many times with its dropout at work.

The masks of Monte Carlo dropout (Gal & Ghahramani 2016, ICML, §4) are drawn once, by a seed, and from then on belong to the model, so
that a decision can be repeated to the last bit. Every pass has masks of its own, in every call of every dropout layer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from makegood.errors import CaseError, Problem

LAYERS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
"""Layers whose output is their input times a mask, plus a shift: these can be frozen."""

_TRIES = 8  # passes that are compared with a first one to find randomness that no layer shows


@dataclass(frozen=True)
class Sampling:
    """How many networks are trained, and how often each is asked about a row with its dropout at work (0: once, without).

    Members are trained apart, by seeds of their own, and their predictions averaged (Lakshminarayanan et al. 2017, §2.4). Raises
    CaseError, with every value that is out of range.
    """

    members: int = 1
    passes: int = 0

    def __post_init__(self) -> None:
        checks = {
            "members": (type(self.members) is int and self.members >= 1, "a whole number, at least 1"),
            "passes": (
                type(self.passes) is int and (self.passes == 0 or self.passes >= 2),
                "a whole number, at least 2, or 0 for none",
            ),
        }
        problems = [Problem(f"recipe.{name}", str(getattr(self, name)), expected) for name, (good, expected) in checks.items() if not good]
        if problems:
            raise CaseError(*problems)


ONCE = Sampling()
"""One network, asked once."""


class Frozen(nn.Module):
    """A dropout layer whose masks are drawn in its first pass and stay; each of its calls in a pass has one of its own."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._draw: nn.Module | None = layer  # until the first pass is over
        self._affine = False
        self._calls = _Turns()

    def forward(self, x: Tensor) -> Tensor:
        """Return x times this call's mask, plus its shift where the layer has one: shape of x."""
        call = self._calls.next() if self._draw is None else self._freeze(self._draw, x)
        scaled = x * self.get_buffer(f"scale{call}")
        return scaled + self.get_buffer(f"shift{call}") if self._affine else scaled

    def _freeze(self, layer: nn.Module, x: Tensor) -> int:
        """Return the number of one more mask (shape of x), drawn by asking the layer itself for what it makes of zeros and of ones."""
        layer.train()
        state = torch.get_rng_state()
        shift = layer(torch.zeros_like(x))
        torch.set_rng_state(state)
        scale = layer(torch.ones_like(x)) - shift
        call = self._calls.more()
        self._affine = isinstance(layer, nn.AlphaDropout | nn.FeatureAlphaDropout)
        self.register_buffer(f"scale{call}", _small(scale))
        if self._affine:
            self.register_buffer(f"shift{call}", _small(shift))
        return call

    def drawn(self) -> int:
        """Return the number of calls in one pass; from now on no more draws are made."""
        self._draw = None
        return self._calls.number


class _Turns:
    """Whose turn it is, out of so many, in a circle: plain Python that no exporter traces."""

    def __init__(self) -> None:
        self.number, self._next = 0, 0

    def more(self) -> int:
        self.number += 1
        return self.number - 1

    def next(self) -> int:
        turn = self._next
        self._next = (turn + 1) % self.number
        return turn


def frozen(module: nn.Module, row: Tensor, passes: int, seed: int, where: str) -> nn.Module:
    """Return a copy of a module in evaluation mode that takes one row `passes` times (passes, …), with fixed masks in each.

    `row` (1, …) tells the shapes. Norms over the batch keep what they have learnt. Raises CaseError, at `where`, when the module
    has no dropout layer at work, or randomness that is none of a dropout layer.
    """
    _check_names(module, where)
    twin = copy.deepcopy(module).eval()
    found = {layer: Frozen(layer) for layer in twin.modules() if isinstance(layer, _DropoutNd) and layer.p > 0}
    for parent in list(twin.modules()):
        for name, child in list(parent._modules.items()):  # `named_children` tells one that has two names only once
            if child in found:
                setattr(parent, name, found[child])
    inputs = row.expand(passes, *row.shape[1:])
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        twin(inputs)
        calls = sum(layer.drawn() for layer in found.values())
        if _is_random(twin, inputs):
            expected = "no randomness but that of nn.Dropout layers"
            raise CaseError(
                Problem(
                    where, "passes that differ though every dropout layer is frozen", expected, "write nn.Dropout for functional.dropout"
                )
            )
    if not calls:
        got = f"{len(found)} dropout layers, none called" if found else "no dropout layer"
        raise CaseError(Problem(where, got, f"a dropout layer at work, for {passes} passes", "add nn.Dropout(0.1), or leave out passes"))
    return twin


def _check_names(module: nn.Module, where: str) -> None:
    """Raise `CaseError`, with the layers' names, where dropout is at work that cannot be frozen."""
    problems = []
    for name, layer in module.named_modules():
        at = f"{name} ({type(layer).__name__})" if name else type(layer).__name__
        if isinstance(layer, nn.RNNBase) and layer.dropout > 0:
            mend = f"use makegood.families.recurrent.{'GRU' if isinstance(layer, nn.GRU) else 'LSTM'}, which draws one mask a sequence"
            problems.append(Problem(where, at, "recurrent layers whose mask is the same at every step", mend))
        elif isinstance(layer, nn.MultiheadAttention) and layer.dropout > 0:
            problems.append(
                Problem(where, at, "attention without dropout of its own", "set its dropout to 0, and add nn.Dropout behind it")
            )
        elif isinstance(layer, _DropoutNd) and layer.p > 0 and type(layer) not in LAYERS:
            problems.append(Problem(where, at, f"one of {', '.join(kind.__name__ for kind in LAYERS)}", "use one of these"))
    if problems:
        raise CaseError(*problems)


def _is_random(module: nn.Module, inputs: Tensor) -> bool:
    """Return whether a copy of the module, as in training but for its norms over the batch, gives one input several outputs."""
    twin = copy.deepcopy(module).train()
    for layer in twin.modules():
        if isinstance(layer, _NormBase):
            layer.eval()
    first, *others = (twin(inputs).numpy().tobytes() for _ in range(1 + _TRIES))
    return any(other != first for other in others)


def _small(mask: Tensor) -> Tensor:
    """Return a mask with one value for all along the axes where it does not vary: a channel's is one number."""
    for axis in range(1, mask.ndim):
        first = mask.narrow(axis, 0, 1)
        if bool((mask == first).all()):
            mask = first
    return mask.clone()


@contextmanager
def layer_by_layer() -> Iterator[None]:
    """Keep torch's Transformer layers from their short cut in evaluation mode, which passes by the layers inside them."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
