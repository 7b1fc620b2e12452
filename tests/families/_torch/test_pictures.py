"""Networks for images: any shape goes through, and each is what its docstring says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from makegood.families._torch.modules import seeded
from makegood.families._torch.pictures import SIDE, Article, Residual, ResNet, Shape, Shrunk, VisionTransformer

NETWORKS: dict[str, Callable[[Shape, int], nn.Module]] = {
    "article": Article,
    "resnet": lambda shape, k: ResNet(shape, k, width=4),
    "transformer": lambda shape, k: VisionTransformer(shape, k, d=8, heads=2, depth=1),
}
SHAPES = st.tuples(st.integers(4, 150), st.integers(4, 150), st.sampled_from([1, 3]))


def _images(shape: Shape, n: int = 2) -> torch.Tensor:
    height, width, channels = shape
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=15, deadline=None)
@given(shape=SHAPES, k=st.integers(1, 12))
def test_images_of_any_shape_give_k_outputs_each(name: str, shape: Shape, k: int) -> None:
    network = seeded(lambda: NETWORKS[name](shape, k), 0).eval()
    with torch.no_grad():
        images = _images(shape)
        both, alone = network(images), network(images[1:])
    assert both.shape == (2, k)
    assert bool(both.isfinite().all())
    torch.testing.assert_close(both[1:], alone)


@given(shape=SHAPES)
def test_no_side_stays_over_the_limit_and_none_under_it_is_changed(shape: Shape) -> None:
    shrunk = Shrunk(shape)
    assert max(shrunk.height, shrunk.width) <= SIDE
    for before, after in ((shape[0], shrunk.height), (shape[1], shrunk.width)):
        assert after == before if before <= SIDE else after > SIDE // 3


def test_a_large_image_becomes_the_means_of_its_blocks() -> None:
    shrunk, images = Shrunk((130, 70, 1)), torch.zeros(1, 1, 130, 70)
    images[0, 0, 3:6, 2:4] = 1.0
    images[0, 0, 0, 0] = 0.5
    out = shrunk(images)
    assert out.shape == (1, 1, 43, 35)
    assert out[0, 0, 1, 1] == 1.0
    assert out[0, 0, 0, 0] == pytest.approx(0.5 / 6)
    assert float(out.sum()) == pytest.approx(1.0 + 0.5 / 6)


def test_the_article_s_network_is_the_article_s() -> None:
    ours = seeded(lambda: Article((28, 28, 1), 10), 3)
    theirs = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(5408, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    assert sum(p.numel() for p in ours.parameters()) == 693_962  # as Keras counts them
    torch.testing.assert_close(ours(_images((28, 28, 1), 5)), theirs(_images((28, 28, 1), 5)))


def test_a_block_begins_as_its_short_cut() -> None:
    block, images = Residual(4, 4, 1), torch.rand(3, 4, 6, 5)
    torch.testing.assert_close(block(images), images)
    assert Residual(4, 8, 2)(images).shape == (3, 8, 3, 3)


def test_the_transformer_sees_where_patches_lie() -> None:
    network = seeded(lambda: VisionTransformer((16, 16, 1), 3, d=16, heads=2, depth=1), 0).eval()
    network.stem = nn.Conv2d(1, 8, 1)  # sees no neighbours, so that patches can change places whole
    images = _images((16, 16, 1), 1)
    turned = images.roll(2, dims=3)
    with torch.no_grad():
        assert not torch.allclose(network(images), network(turned), atol=1e-4)
        network.places.zero_()
        torch.testing.assert_close(network(images), network(turned))


def test_every_patch_has_a_place_of_its_own() -> None:
    places = VisionTransformer((8, 20, 1), 2, d=16, heads=2, depth=1).places
    assert places.shape == (4 * 7, 16)
    assert len(places.unique(dim=0)) == 28
