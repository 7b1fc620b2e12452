"""Networks for texts: what encodes token ids, and what reads a row's outcome off their mean.

A row comes as its windows (windows, others + length) float32: each is the row's other columns, and then token ids. What is no more
than padding is left out before anything is computed of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from makegood.families._torch.modules import Block

LEAST = 2  # tokens that a window is cut down to: a graph of any length is exported as one of two or more
MOST = 1 << 14  # tokens that are encoded at once, padding included: memory is bounded
_GROUPS, _GROUP = 4, 8  # windows of like length are encoded together, at least so many


class Words(nn.Module):
    """A Transformer over the tokens of a window, which are seen through their own vectors and those of their places.

    Ids (b, t) int64, and which of them count (b, t) bool → (b, t, d). Norms come first (Xiong et al. 2020).
    """

    def __init__(self, vocabulary: int, length: int, *, d: int, heads: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, d)
        self.places = nn.Parameter(torch.empty(length, d))
        for table in (self.embed.weight, self.places):
            nn.init.normal_(table, std=d**-0.5)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(d, heads, dropout, first=False) for _ in range(depth))
        self.norm = nn.LayerNorm(d)

    def forward(self, ids: Tensor, here: Tensor) -> Tensor:
        """Return what each token has become."""
        h = self.dropout(self.embed(ids) + self.places[: ids.shape[1]])
        for block in self.blocks:
            h = block(h, here[:, None, None, :])
        out: Tensor = self.norm(h)
        return out


class Saved(nn.Module):
    """An encoder as transformers has it, asked in the same way."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: Tensor, here: Tensor) -> Tensor:
        """Return its last hidden state (b, t, d)."""
        out: Tensor = self.network(input_ids=ids, attention_mask=here.long()).last_hidden_state
        return out


class Beside(nn.Module):
    """A row's other columns (n, m), standardised, as a vector (n, d) to stand beside that of its text."""

    def __init__(self, mean: Tensor, deviation: Tensor, d: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.line = nn.Linear(len(mean), d)

    def forward(self, x: Tensor) -> Tensor:
        """Return the vectors, rectified."""
        return functional.relu(self.line((x - self.get_buffer("mean")) / self.get_buffer("deviation")))


class Reader(nn.Module):
    """What reads k outputs off a row (n, windows, others + length) → (n, k): a line over the mean of all its tokens.

    The mean goes over the tokens of all windows that are not `pad`; the first of a window always counts, so that none is empty. The
    line's outputs are multiplied by `gain`: as the steps of Adam do not depend on a weight's scale, the line learns so many times as
    fast as the encoder.
    """

    def __init__(self, encoder: nn.Module, d: int, beside: Beside | None, k: int, *, pad: int, dropout: float, gain: float = 1.0) -> None:
        super().__init__()
        self.encoder, self.beside, self.pad, self.gain = encoder, beside, pad, gain
        self.others = 0 if beside is None else beside.line.in_features
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(d if beside is None else 2 * d, k)
        with torch.no_grad():
            self.head.weight.mul_(1.0 / gain)
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""
        ids = x[..., self.others :].round().long()
        h = self._alone(ids) if torch.compiler.is_exporting() else self._together(ids)
        if self.beside is not None:
            h = torch.cat([h, self.beside(x[:, 0, : self.others])], 1)
        out: Tensor = self.head(self.dropout(h)) * self.gain
        return out

    def _alone(self, ids: Tensor) -> Tensor:
        """Return the mean (1, d) for one row (1, w, t), of which each window counts, and the longest has no padding."""
        total, count = self._sums(ids[0])
        return total.sum(0, keepdim=True) / count.sum(0, keepdim=True)

    def _together(self, ids: Tensor) -> Tensor:
        """Return the means (n, d) for rows (n, w, t): windows without a token are left out, the others go in groups of like length."""
        n, windows, t = ids.shape
        used = (ids != self.pad).any(-1)
        used[:, 0] = True
        at = used.flatten().nonzero().squeeze(1)
        ids = ids.flatten(0, 1)[at]
        length = ((ids != self.pad) * torch.arange(1, t + 1, device=ids.device)).amax(1).clamp_min(min(LEAST, t))
        groups = list(_groups(length))
        sums = [self._sums(ids[part, : int(length[part].max())]) for part in groups]
        row = at[torch.cat(groups)] // windows
        total, count = (torch.cat(parts) for parts in zip(*sums, strict=True))
        return _by_row(total, row, n) / _by_row(count, row, n)

    def _sums(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums over the tokens of windows (b, t) that count (b, d), and how many these are (b, 1)."""
        here = (ids != self.pad) | (torch.arange(ids.shape[1], device=ids.device) == 0)
        weight = here.unsqueeze(-1).float()
        return (self.encoder(ids, here).float() * weight).sum(1), weight.sum(1)


class WordDropout:
    """Tokens of a batch left out at random, each with the same chance, but for the first of a window: a text with gaps means the same."""

    def __init__(self, others: int, pad: int, share: float) -> None:
        self.others, self.pad, self.share = others, pad, share

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Return rows (n, windows, others + length) in which `pad` stands for what is left out; the generator alone draws."""
        first = self.others + 1
        out = torch.rand(x[..., first:].shape, generator=generator, device=x.device) < self.share
        return torch.cat([x[..., :first], x[..., first:].masked_fill(out, float(self.pad))], -1)


def _by_row(parts: Tensor, row: Tensor, n: int) -> Tensor:
    """Return the sums (n, d) of the parts (b, d) of each row."""
    return parts.new_zeros(n, parts.shape[1]).index_add(0, row, parts)


def _groups(length: Tensor) -> Iterator[Tensor]:
    """Yield the positions of windows (b,), the shortest first, in a few groups, or in as many as keep each within `MOST` tokens."""
    b = len(length)
    few = max(1, min(_GROUPS, b // _GROUP), math.ceil(b * int(length.max()) / MOST))
    yield from length.argsort(stable=True).tensor_split(min(few, b))
