"""Networks for images, `CNN`, `ResNet` and `ViT`: rows whose features are the pixels of one image, to classes or a number.

They learn on a GPU where torch finds one, and else on the processor: on one core where there is little to do, and on all where there is
much, whose number then changes the last bits. Scored they are by ONNX, an image at a time.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Generator, Tensor, nn

from makegood.contracts import Dataset, Floats
from makegood.errors import CaseError, Problem
from makegood.families._torch import pictures
from makegood.families._torch.augment import Affine
from makegood.families._torch.loop import Recipe, Runtime
from makegood.families._torch.processor import has_bf16, has_matrix_bf16
from makegood.families.trained import Forms, Plan, Shape, Trained

_MANY = 50_000  # pixels a batch: with fewer, cores wait for each other longer than they work, and bf16 for its conversion


class ImageNetwork(Trained):
    """A network for images. Pixels outside [0, 1] are read as if on its border."""

    AUGMENT: Callable[[Tensor, Generator], Tensor] | None = Affine()
    forms: Forms = {}  # noqa: RUF012  (shared by all fits of a class, as it is meant to be)
    THIN = False  # most of its time goes into moving large layers of few channels

    @abstractmethod
    def _network(self, shape: Shape, k: int) -> nn.Module:
        """Return the module with its first weights."""

    @abstractmethod
    def _recipe(self, n: int) -> Recipe:
        """Return how to train it on n images."""

    @property
    def _where(self) -> str:
        return f"train.families: {type(self).__name__.lower()}"

    def _keep_range(self, X: Floats) -> None:
        # of all pixels, not of each by itself: what is black at the border of every image seen may be white in a moved one
        self.low_, self.high_ = np.zeros(X.shape[1], np.float32), np.ones(X.shape[1], np.float32)

    def _clipped(self, X: Floats) -> Floats:
        if len(X) and X.flags.writeable and X.min() >= 0.0 and X.max() <= 1.0:
            return X  # as all prepared images are, which may fill half of the memory
        return super()._clipped(X)

    def _start(self, data: Dataset) -> nn.Module:
        assert data.shape is not None, "the plan comes first"
        return self._network(data.shape, len(self.task.classes) or 1)

    def _plan(self, data: Dataset) -> Plan:
        """Return how to train it; raises `CaseError` unless each row is one image of at least 4 × 4 pixels."""
        if data.shape is None:
            mend = "name networks for tables, or give a source of images whose only columns are image and outcome"
            raise CaseError(Problem(self._where, "rows that are no images", "rows of which each is one image and nothing else", mend))
        height, width, _ = data.shape
        if min(height, width) < pictures.LEAST:
            least = f"at least {pictures.LEAST} × {pictures.LEAST} pixels"
            raise CaseError(Problem(self._where, f"{height} × {width} pixels", least, "raise data.image.size"))
        recipe = self._recipe(len(data))
        augment = self.AUGMENT if self.task.kind == "classes" else None  # a number may be a place, a size or an angle
        return Plan(recipe, self._runtime(recipe.batch_size * height * width), augment)

    def _runtime(self, pixels: int) -> Runtime:
        """Return where a batch of so many pixels is best learnt from."""
        if torch.cuda.is_available():
            return Runtime("cuda", "bf16" if torch.cuda.is_bf16_supported() else "fp32", channels_last=True)
        if pixels < _MANY:
            return Runtime(threads=1, channels_last=True)
        faster = has_matrix_bf16() or (self.THIN and has_bf16())
        return Runtime(dtype="bf16" if faster else "fp32", channels_last=True)


class CNN(ImageNetwork):
    """The article's network: 32 filters of 3 × 3, the maximum over 2 × 2, 128 units.

    It learns from sixty thousand digits in five epochs, and from fewer images in more; images are not moved.
    """

    AUGMENT = None
    THIN = True

    def _network(self, shape: Shape, k: int) -> nn.Module:
        return pictures.Article(shape, k)

    def _recipe(self, n: int) -> Recipe:
        batch = _batch(n, 256)
        lr = 6e-3 * (batch / 256) ** 0.5
        return Recipe(_epochs(n, batch, 5, 1200), batch, lr, schedule="one-cycle", warm_up=0.3, weight_decay=1e-4)


class ResNet(ImageNetwork):
    """A residual network, narrow for grey images and twice as wide for colours.

    Classes are learnt from images that are moved a little.
    """

    def _network(self, shape: Shape, k: int) -> nn.Module:
        return pictures.ResNet(shape, k, width=16 if shape[2] == 1 else 32)

    def _recipe(self, n: int) -> Recipe:
        batch = _batch(n, 128)
        lr = 6e-3 * (batch / 128) ** 0.5
        return Recipe(_epochs(n, batch, 8, 1800), batch, lr, schedule="one-cycle", warm_up=0.2, weight_decay=1e-2, clip=1.0)


class ViT(ImageNetwork):
    """A small vision Transformer. Classes are learnt from images that are moved a little."""

    def _network(self, shape: Shape, k: int) -> nn.Module:
        return pictures.VisionTransformer(shape, k, d=64, heads=4, depth=4)

    def _recipe(self, n: int) -> Recipe:
        batch = _batch(n, 128)
        lr = 2e-3 * (batch / 128) ** 0.5
        return Recipe(_epochs(n, batch, 12, 3000), batch, lr, schedule="one-cycle", warm_up=0.2, weight_decay=5e-2, clip=1.0)


def _batch(n: int, most: int) -> int:
    """Return images a step: some thirty steps an epoch where there are few, and at most `most`."""
    return int(np.clip(2 ** round(np.log2(max(1, n) / 30)), 16, most))


def _epochs(n: int, batch: int, least: int, steps: int) -> int:
    """Return the epochs: `least`, or as many more as few images need for `steps` steps."""
    return max(least, round(steps * batch / max(1, n)))
