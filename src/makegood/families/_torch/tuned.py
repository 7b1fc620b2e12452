"""A pretrained network for images as it learns on: with what its image processor does to them made part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

Shape = tuple[int, int, int]  # height, width, channels

_BICUBIC = 3  # as Pillow numbers the ways to resize; all others are taken for 2, bilinear
_PLAIN = (("mean", 0.0), ("std", 1.0))


@dataclass(frozen=True)
class Pixels:
    """What a network wants of its images: their size, and scale · x + shift (one each a channel) of values x in [0, 1]."""

    height: int
    width: int
    scale: tuple[float, ...]
    shift: tuple[float, ...]
    bicubic: bool = False
    reversed: bool = False  # blue comes first

    @classmethod
    def of(cls, processor: Mapping[str, Any], channels: int) -> Pixels:
        """Return what an image processor's saved settings say; raises `KeyError`, `TypeError` or `ValueError` where they do not."""
        size = processor["crop_size" if processor.get("do_center_crop") and processor.get("crop_size") else "size"]
        if isinstance(size, Mapping):
            height, width = (int(size[name if name in size else "shortest_edge"]) for name in ("height", "width"))
        else:
            height = width = int(size)
        factor = 255.0 * float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 255.0
        offset = -1.0 if processor.get("rescale_offset") else 0.0
        normal = processor.get("do_normalize")
        mean, std = (np.broadcast_to(np.asarray(processor[f"image_{n}"], float) if normal else v, channels) for n, v in _PLAIN)
        if min(height, width) < 1 or not (np.isfinite(mean).all() and (std > 0.0).all()):
            raise ValueError("sizes of at least one pixel, and deviations above zero")
        bicubic = processor.get("resample") == _BICUBIC
        shift = ((offset - mean) / std).tolist()
        return cls(height, width, tuple((factor / std).tolist()), tuple(shift), bicubic, bool(processor.get("do_flip_channel_order")))


class Tuned(nn.Module):
    """A network with what it wants of its images before it; norms over a batch keep the means and variances that they came with."""

    def __init__(self, network: nn.Module, pixels: Pixels, shape: Shape) -> None:
        super().__init__()
        self.network, self.pixels = network, pixels
        for name, n, size in (("down", shape[0], pixels.height), ("across", shape[1], pixels.width)):
            self.register_buffer(name, _resizing(n, size, pixels.bicubic))
        for name, values in (("scale", pixels.scale), ("shift", pixels.shift)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1))

    def train(self, mode: bool = True) -> Tuned:
        """Return self, in training or in evaluation: few images, of another kind, are no better measure of means and variances."""
        super().train(mode)
        for layer in self.network.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (n, k) for images (n, channels, height, width) in [0, 1]; grey is taken for as many equal channels."""
        h = self.get_buffer("down") @ (x @ self.get_buffer("across").T).clamp(0.0, 1.0)
        h = h.clamp(0.0, 1.0)
        h = (h.flip(1) if self.pixels.reversed else h) * self.get_buffer("scale") + self.get_buffer("shift")
        out: Tensor = self.network(h).logits
        return out


def _resizing(n: int, size: int, bicubic: bool) -> Tensor:
    """Return the matrix (size, n) that resizes a column of n pixels, as Pillow does: interpolation is linear, one axis after the other."""
    mode = "bicubic" if bicubic else "bilinear"
    return functional.interpolate(torch.eye(n)[None, None], (size, n), mode=mode, antialias=True)[0, 0]
