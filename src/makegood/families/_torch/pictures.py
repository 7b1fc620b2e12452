"""Networks for images: the article's, a residual one, and a small vision Transformer.

All read (n, channels, height, width) in [0, 1] and give (n, k): logits, or one number. Larger images are averaged down first, each axis
by a whole factor, so that no side is over `SIDE`: what a row costs is bounded, and sides of one size stay of one size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from makegood.families._torch.modules import Block

Shape = tuple[int, int, int]  # height, width, channels

LEAST = 4  # pixels on the shorter side: less is not an image to convolve
SIDE = 64
_PATCHES = 8  # of the Transformer, along one side


class Shrunk(nn.Module):
    """Images averaged over blocks of pixels until no side is over `SIDE`; smaller ones as they are.

    `height` and `width` are those that come out.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.block = (math.ceil(shape[0] / SIDE), math.ceil(shape[1] / SIDE))
        self.height, self.width = shape[0] // self.block[0], shape[1] // self.block[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return the images (n, channels, height, width); pixels that fill no block, at the right and at the bottom, are left out."""
        return x if self.block == (1, 1) else functional.avg_pool2d(x, self.block)


class Article(nn.Module):
    """The article's network for digits: 32 filters of 3 × 3, the maximum over 2 × 2, 128 units, and k; rectified between."""

    FILTERS, UNITS = 32, 128

    def __init__(self, shape: Shape, k: int) -> None:
        super().__init__()
        self.shrunk = Shrunk(shape)
        self.filters = nn.Conv2d(shape[2], self.FILTERS, 3)
        size = self.FILTERS * ((self.shrunk.height - 2) // 2) * ((self.shrunk.width - 2) // 2)
        self.units = nn.Linear(size, self.UNITS)
        self.head = nn.Linear(self.UNITS, k)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (n, k)."""
        h = functional.max_pool2d(functional.relu(self.filters(self.shrunk(x))), 2)
        out: Tensor = self.head(functional.relu(self.units(h.flatten(1))))
        return out


class Residual(nn.Module):
    """Two convolutions of 3 × 3, each normalised, beside a short cut (He et al. 2016, figure 2): (n, a, h, w) → (n, b, h/s, w/s).

    The short cut is the input itself, or a convolution of 1 × 1 where the shape changes. The second norm starts at zero, so that a
    block begins as its short cut (Goyal et al. 2017, §5.1).
    """

    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = _normed(a, b, 3, stride), _normed(b, b, 3, 1, start=0.0)
        self.short = nn.Identity() if a == b and stride == 1 else _normed(a, b, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the rectified sum of both ways."""
        return functional.relu(self.second(functional.relu(self.first(x))) + self.short(x))


class ResNet(nn.Module):
    """A residual network for small images: one convolution, three blocks, and the mean over all places.

    The last two blocks halve the sides and double the channels; the first convolution halves sides where one is over 12 pixels. Norms
    are over the batch in training and constant afterwards, and the exporter folds them into the convolutions before them.
    """

    def __init__(self, shape: Shape, k: int, *, width: int) -> None:
        super().__init__()
        self.shrunk = Shrunk(shape)
        large = max(self.shrunk.height, self.shrunk.width) > 12
        self.stem = _normed(shape[2], width, 5 if large else 3, 2 if large else 1)
        self.blocks = nn.Sequential(Residual(width, width, 1), Residual(width, 2 * width, 2), Residual(2 * width, 4 * width, 2))
        self.head = nn.Linear(4 * width, k)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (n, k)."""
        h = self.blocks(functional.relu(self.stem(self.shrunk(x))))
        out: Tensor = self.head(h.mean((2, 3)))
        return out


class VisionTransformer(nn.Module):
    """A Transformer over the patches of an image (Dosovitskiy et al. 2021), as few images need it.

    There is a convolution before the patches (Xiao et al. 2021); positions are sines and cosines, and the head reads the mean over all
    patches (Beyer et al. 2022). These are at most `_PATCHES` × `_PATCHES`, of at least 2 × 2 pixels; zeros fill the last ones.
    """

    def __init__(self, shape: Shape, k: int, *, d: int, heads: int, depth: int) -> None:
        super().__init__()
        self.shrunk = Shrunk(shape)
        height, width = self.shrunk.height, self.shrunk.width
        patch = (max(2, math.ceil(height / _PATCHES)), max(2, math.ceil(width / _PATCHES)))
        down, right = -height % patch[0], -width % patch[1]
        self.fill = (0, right, 0, down)
        self.stem = nn.Conv2d(shape[2], d // 2, 3, padding=1)
        self.embed = nn.Conv2d(d // 2, d, patch, stride=patch)
        self.register_buffer("places", _places((height + down) // patch[0], (width + right) // patch[1], d))
        self.blocks = nn.ModuleList(Block(d, heads, 0.0, first=False) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, k)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (n, k)."""
        h = self.embed(functional.relu(self.stem(functional.pad(self.shrunk(x), self.fill))))
        h = h.flatten(2).transpose(1, 2) + self.get_buffer("places")
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.head(self.norm(h).mean(1))
        return out


def _normed(a: int, b: int, size: int, stride: int, start: float = 1.0) -> nn.Sequential:
    """Return a convolution that keeps the sides, or divides them by `stride`, and a norm over the batch whose scale starts as given."""
    norm = nn.BatchNorm2d(b)
    nn.init.constant_(norm.weight, start)
    return nn.Sequential(nn.Conv2d(a, b, size, stride, size // 2, bias=False), norm)


def _places(rows: int, columns: int, d: int) -> Tensor:
    """Return what tells the patches apart (rows · columns, d): half of it by the row, half by the column (Vaswani et al. 2017, §3.5)."""
    rate = 10_000.0 ** (-torch.arange(d // 4) / (d // 4))
    y, x = (torch.arange(n).float().unsqueeze(1) * rate for n in (rows, columns))
    of_row = torch.cat([y.sin(), y.cos()], 1).unsqueeze(1).expand(rows, columns, -1)
    of_column = torch.cat([x.sin(), x.cos()], 1).unsqueeze(0).expand(rows, columns, -1)
    return torch.cat([of_row, of_column], 2).flatten(0, 1).contiguous()
