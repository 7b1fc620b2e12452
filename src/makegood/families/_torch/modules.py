"""Networks for tables: an ensemble of MLPs that share their weights, and a small Transformer over features.

Both read features (n, p) float32 through `Encoder` and give (n, members, k): logits, or quantiles of the standardised outcome.
Vectors of scales and biases are held flat, so that weight decay, which is for matrices alone, leaves them be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from makegood.contracts import Floats
from makegood.families._torch import loop, losses

Arrays = Mapping[str, NDArray[np.generic]]
Made = TypeVar("Made", bound=nn.Module)

FAR = 1e4  # robust standard deviations beyond which a number is as good as infinite
SOFT = 3.0  # robust standard deviations that a number nears but never passes
_BLOCK = 1024  # rows at a time outside training


class Encoder(nn.Module):
    """Features (n, p) → (n, width): each number softly clipped and piecewise linearly, and binary features as they are.

    `arrays`: "numbers" (a,) and "binary" (b,) are positions of features; "centre" and "slope" (a,) standardise the numbers; piece
    i rises from 0 to 1 on [start_i, start_i + 1/steep_i] of the number `pieces_i` (Gorishniy et al. 2022, equation 1). The soft clip
    z/√(1 + (z/3)²) is that of RealMLP (Holzmüller et al. 2024, §3).
    """

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        for name in ("numbers", "binary", "pieces"):
            self.register_buffer(name, torch.tensor(arrays[name], dtype=torch.int64))
        for name in ("centre", "slope", "start", "steep"):
            self.register_buffer(name, torch.tensor(arrays[name], dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Return the encoded features (n, width)."""
        numbers = x[:, self.get_buffer("numbers")]
        z = ((numbers - self.get_buffer("centre")) * self.get_buffer("slope")).clamp(-FAR, FAR)
        z = z / (1.0 + z * z * (1.0 / SOFT**2)).sqrt()
        parts = numbers[:, self.get_buffer("pieces")]
        pieces = ((parts - self.get_buffer("start")) * self.get_buffer("steep")).clamp(0.0, 1.0)
        return torch.cat([z, pieces, x[:, self.get_buffer("binary")]], 1)


class Shared(nn.Module):
    """m linear maps with one matrix: x_m → s_m ∘ W(r_m ∘ x_m) + b_m (BatchEnsemble: Wen et al. 2020, equation 3).

    (n, m or 1, inputs) → (n, m, outputs). `signs` (m, inputs) are the first r: the members' only difference before training.
    """

    def __init__(self, inputs: int, outputs: int, signs: Tensor) -> None:
        super().__init__()
        self.members = len(signs)
        self.weight = nn.Parameter(_uniform(inputs, outputs, inputs=inputs))
        self.r = nn.Parameter(signs.flatten().clone())
        self.s = nn.Parameter(torch.ones(self.members * outputs))
        self.bias = nn.Parameter(_uniform(self.members * outputs, inputs=inputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps of each member (n, m, outputs)."""
        m = self.members
        return ((x * self.r.view(m, -1)) @ self.weight) * self.s.view(m, -1) + self.bias.view(m, -1)


class Mixture(nn.Module):
    """TabM (Gorishniy et al. 2025, §3.3): m MLPs in one, which share matrices and differ in scales, biases and heads.

    Features (n, p) → (n, m, k). `owner` (width,) names the feature that each encoded column comes from, and thereby which columns
    start with one sign.
    """

    def __init__(self, arrays: Arrays, k: int, *, width: int, depth: int, members: int, dropout: float) -> None:
        super().__init__()
        self.encoder = Encoder(arrays)
        owner = torch.tensor(arrays["owner"], dtype=torch.int64)
        signs = torch.randint(0, 2, (members, int(owner.max()) + 1)).float() * 2.0 - 1.0
        sizes = [len(owner), *[width] * depth]
        starts = [signs[:, owner], *[torch.ones(members, width)] * (depth - 1)]
        self.layers = nn.ModuleList(Shared(a, b, start) for a, b, start in zip(sizes[:-1], sizes[1:], starts, strict=True))
        self.dropout = dropout
        self.head = nn.Parameter(_uniform(members, width, k, inputs=width))
        self.bias = nn.Parameter(torch.zeros(members * k))

    def forward(self, x: Tensor) -> Tensor:
        """Return each member's output (n, m, k)."""
        h = self.encoder(x).unsqueeze(1)
        for layer in self.layers:
            h = functional.dropout(functional.relu(layer(h)), self.dropout, self.training)
        out: Tensor = (h.transpose(0, 1) @ self.head).transpose(0, 1)
        return out + self.bias.view(out.shape[1:])


class Block(nn.Module):
    """Attention, then a gated feed-forward net, each on normalised tokens and added to them: (n, t, d) → (n, t, d).

    `first` keeps the first token alone, which is all that the last block is asked for: → (n, 1, d). Tokens that are not `here`, a mask
    that spreads to (n, heads, t, t), are not attended to.
    """

    def __init__(self, d: int, heads: int, dropout: float, *, first: bool) -> None:
        super().__init__()
        self.heads, self.dropout, self.first = heads, dropout, first
        hidden = 4 * d // 3
        self.norm, self.feed_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))
        self.up, self.down = nn.Linear(d, 2 * hidden), nn.Linear(hidden, d)

    def forward(self, x: Tensor, here: Tensor | None = None) -> Tensor:
        """Return the tokens after this block."""
        h, p = self.norm(x), self.dropout if self.training else 0.0
        x, asking = (x[:, :1], h[:, :1]) if self.first else (x, h)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q(asking), self.k(h), self.v(h)))
        seen = functional.scaled_dot_product_attention(q, k, v, here, dropout_p=p)
        x = x + self.o(seen.transpose(1, 2).flatten(2))
        value, gate = self.up(self.feed_norm(x)).chunk(2, -1)
        fed: Tensor = self.down(functional.dropout(value * functional.relu(gate), p))
        return x + fed


class FeatureTransformer(nn.Module):
    """FT-Transformer (Gorishniy et al. 2021, §3.3): features (n, p) → (n, 1, k), read off a token of its own.

    `arrays["token"]` (width,) names the token that each encoded column adds to, so that the one-hot columns of a category make one.
    """

    def __init__(self, arrays: Arrays, k: int, *, d: int, heads: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.encoder = Encoder(arrays)
        self.register_buffer("place", functional.one_hot(torch.tensor(arrays["token"], dtype=torch.int64)).float())
        width, tokens = self.get_buffer("place").shape
        self.d = d
        self.embed = nn.Parameter(_uniform(width, d, inputs=d))
        self.bias = nn.Parameter(_uniform((tokens + 1) * d, inputs=d))  # the first token is nothing but its bias
        self.blocks = nn.ModuleList(Block(d, heads, dropout, first=i == depth - 1) for i in range(depth))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, k)

    def spread(self) -> Tensor:
        """Return the matrix (width, tokens·d) that makes tokens of encoded columns."""
        return (self.get_buffer("place").unsqueeze(2) * self.embed.unsqueeze(1)).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output (n, 1, k)."""
        tokens = (self.encoder(x) @ self.spread()).unflatten(1, (-1, self.d))
        h = functional.pad(tokens, (0, 0, 1, 0)) + self.bias.view(-1, self.d)
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.head(functional.relu(self.norm(h)))
        return out


def seeded(make: Callable[[], Made], seed: int) -> Made:
    """Return a module whose first weights follow from the seed; torch's own generator is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make()


@dataclass(frozen=True)
class Sample:
    """Rows to learn from or to stop by: features (n, p), class codes or standardised numbers (n,), and weights (n,) or None."""

    X: Floats
    y: NDArray[Any]
    weight: Floats | None = None

    def rows(self) -> loop.Rows:
        """Return them as tensors; weights have mean one."""
        y = torch.from_numpy(np.asarray(self.y, np.int64 if self.y.dtype.kind in "iu" else np.float32))
        weight = None if self.weight is None else torch.from_numpy((self.weight / self.weight.mean()).astype(np.float32))
        return loop.Rows(torch.from_numpy(np.array(self.X, np.float32)), y, weight)


def learn(model: nn.Module, samples: tuple[Sample, Sample], levels: Sequence[float], recipe: loop.Recipe, session: loop.Session) -> None:
    """Train a module on the first sample, stopped by the second: on log loss, or on pinball loss at `levels` if there are any.

    One thread, since their number changes the last bits and must not depend on the machine.
    """
    train, valid = (sample.rows() for sample in samples)
    loss = losses.quantile(levels) if levels else losses.cross_entropy()
    runtime = loop.Runtime(threads=1)
    loop.train(loop.Task(model, loss), train, valid, recipe, runtime, session)


def outputs(model: nn.Module, X: Floats, *, classes: bool) -> Floats:
    """Return the mean over members (n, k) float64 of a module in evaluation mode: of probabilities if `classes`, else of outputs."""
    parts = []
    with torch.inference_mode():
        for at in range(0, len(X), _BLOCK):
            out = model(torch.from_numpy(np.ascontiguousarray(X[at : at + _BLOCK], np.float32)))
            parts.append((out.softmax(-1) if classes else out).double().mean(1).numpy())
    return np.concatenate(parts)


def weights(model: Mixture | FeatureTransformer) -> dict[str, NDArray[np.float32]]:
    """Return what a module has learnt, by name, without its encoder; the Transformer's embedding as the matrix `spread`."""
    found = {name: value.detach().numpy().copy() for name, value in model.named_parameters()}
    if isinstance(model, FeatureTransformer):
        del found["embed"]
        found["spread"] = model.spread().detach().numpy().copy()
    return found


def refill(model: nn.Module, arrays: Arrays) -> None:
    """Give a module's parameters the values that stand under their names."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(arrays[name], np.float32)))


def _uniform(*shape: int, inputs: int) -> Tensor:
    """Return uniform numbers within ±1/√inputs, torch's own start of a linear map."""
    return (torch.rand(*shape) * 2.0 - 1.0) / math.sqrt(inputs)
