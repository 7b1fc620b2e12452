"""Images of a batch, each moved a little: what changes no class, drawn anew at every step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Affine:
    """Random shifts, rotations, scales and shears, uniform within ± what is given; no flips, which make another digit or letter.

    All images are shifted, by whole pixels up to the share `shift` of a side, and by one at least. The share `turned` of them is
    rotated (degrees), scaled (a share) and sheared (the tangent of the angle) as well, and blurred by the linear interpolation: the
    others stay as sharp as those that are to be told later. Pixels from outside are the border's. The generator alone draws.
    """

    shift: float = 0.04
    turned: float = 0.3
    rotation: float = 6.0
    scale: float = 0.06
    shear: float = 0.06

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return the moved images (n, channels, height, width), on their device and in their memory format."""
        n, channels, height, width = images.shape
        angle, scale, shear, turned, right, down = torch.rand(6, n, generator=generator, device=images.device)
        kept = (turned < self.turned).float()
        angle, scale, shear = (
            (2 * drawn - 1) * most * kept
            for drawn, most in ((angle, math.radians(self.rotation)), (scale, self.scale), (shear, self.shear))
        )
        x, y = (2 * self._pixels(drawn, side) / side for drawn, side in ((right, width), (down, height)))
        cos, sin = angle.cos() / (1 + scale), angle.sin() / (1 + scale)
        ratio = height / width  # the grid's sides are 2: without it a rotation would shear what is not square
        move = torch.stack([cos, (shear * cos - sin) * ratio, x, sin / ratio, shear * sin + cos, y], 1).view(n, 2, 3)
        grid = functional.affine_grid(move, [n, channels, height, width], align_corners=False)
        moved = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
        return moved.contiguous(memory_format=torch.channels_last) if images.is_contiguous(memory_format=torch.channels_last) else moved

    def _pixels(self, drawn: Tensor, side: int) -> Tensor:
        """Return the shifts in whole pixels (n,) that numbers from [0, 1) stand for."""
        most = max(1, round(self.shift * side)) if self.shift else 0
        return (drawn * (2 * most + 1)).floor() - most
