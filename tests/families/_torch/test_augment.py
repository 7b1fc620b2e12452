"""Moved images: by what was drawn and nothing else, and never out of their range."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from makegood.families._torch.augment import Affine

STILL = {"turned": 1.0, "shift": 0.0, "rotation": 0.0, "scale": 0.0, "shear": 0.0}


def _seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def _only(**what: float) -> Affine:
    return Affine(**{**STILL, **what})


def _spots(*at: tuple[int, int], size: tuple[int, int], n: int = 64) -> Tensor:
    """Return n equal images with smooth spots around the given places."""
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return sum((torch.exp(-((y - a) ** 2 + (x - b) ** 2) / 8.0) for a, b in at), torch.zeros(size)).expand(n, 1, *size)


def _centre(images: Tensor) -> Tensor:
    """Return the centre of mass (n, 2) of images, as (y, x)."""
    _, _, height, width = images.shape
    mass = images.sum((1, 2, 3))
    y = (images.sum((1, 3)) * torch.arange(height)).sum(1) / mass
    x = (images.sum((1, 2)) * torch.arange(width)).sum(1) / mass
    return torch.stack([y, x], 1)


@given(height=st.integers(4, 12), width=st.integers(4, 12), channels=st.sampled_from([1, 3]), seed=st.integers(0, 1000), last=st.booleans())
def test_shape_range_and_memory_format_stay(height: int, width: int, channels: int, seed: int, last: bool) -> None:
    images = torch.rand(3, channels, height, width, generator=_seeded(seed))
    if last:
        images = images.contiguous(memory_format=torch.channels_last)
    moved = Affine()(images, _seeded(seed))
    assert moved.shape == images.shape
    assert moved.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    assert float(moved.min()) >= float(images.min()) - 1e-6
    assert float(moved.max()) <= float(images.max()) + 1e-6


def test_the_generator_alone_draws() -> None:
    images = torch.rand(8, 1, 9, 9, generator=_seeded())
    state = torch.get_rng_state()
    first, again, other = (Affine()(images, _seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_drawn_moves_nothing_and_one_colour_stays_one_colour() -> None:
    images = torch.rand(4, 3, 7, 10, generator=_seeded())
    torch.testing.assert_close(_only()(images, _seeded()), images)
    plain = torch.full((4, 1, 8, 8), 0.7)
    torch.testing.assert_close(Affine(shift=0.5)(plain, _seeded()), plain)


@pytest.mark.parametrize(("share", "size", "most"), [(0.1, (20, 30), (2, 3)), (0.01, (8, 30), (1, 1))])
def test_shifts_are_whole_pixels_up_to_a_share_of_the_sides(share: float, size: tuple[int, int], most: tuple[int, int]) -> None:
    image = torch.rand(1, 2, *size, generator=_seeded(3))
    moved = _only(shift=share)(image.expand(300, -1, -1, -1), _seeded())
    seen = set()
    for one in moved:
        middle = one[:, most[0] : size[0] - most[0], most[1] : size[1] - most[1]]
        found = [
            (y, x)
            for y in range(-most[0], most[0] + 1)
            for x in range(-most[1], most[1] + 1)
            if torch.allclose(image[0].roll((y, x), (1, 2))[:, most[0] : size[0] - most[0], most[1] : size[1] - most[1]], middle, atol=1e-5)
        ]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) >= 0.9 * (2 * most[0] + 1) * (2 * most[1] + 1)


def test_some_images_stay_sharp() -> None:
    image = torch.rand(1, 1, 12, 12, generator=_seeded(3))
    moved = _only(rotation=10.0, turned=0.25)(image.expand(400, -1, -1, -1), _seeded())
    same = torch.tensor([torch.allclose(one, image[0], atol=1e-5) for one in moved])
    assert 0.68 < float(same.float().mean()) < 0.82


def test_rotations_keep_distances_in_images_that_are_not_square() -> None:
    size, degrees = (48, 80), 30.0
    middle = torch.tensor([(size[0] - 1) / 2, (size[1] - 1) / 2])
    arm = _centre(_only(rotation=degrees)(_spots((24, 60), size=size), _seeded())) - middle
    torch.testing.assert_close(arm.norm(dim=1), torch.full((64,), math.hypot(0.5, 20.5)), rtol=0.02, atol=0.0)
    angle = torch.rad2deg(torch.atan2(arm[:, 0], arm[:, 1]) - math.atan2(0.5, 20.5))
    assert 25.0 < float(angle.abs().max()) < 30.5
    up = _centre(_only(rotation=degrees)(_spots((38, 40), size=size), _seeded())) - middle
    torch.testing.assert_close(up.norm(dim=1), torch.full((64,), math.hypot(14.5, 0.5)), rtol=0.02, atol=0.0)


def test_scales_and_shears_change_lengths_by_their_share() -> None:
    middle = 23.5
    arm = _centre(_only(scale=0.2)(_spots((24, 40), size=(48, 48), n=256), _seeded()))[:, 1] - middle
    assert 0.79 < float(arm.min()) / 16.5 < 0.83
    assert 1.17 < float(arm.max()) / 16.5 < 1.21
    sheared = _centre(_only(shear=0.3)(_spots((36, 24), size=(48, 48), n=256), _seeded())) - middle
    assert float(sheared[:, 0].sub(12.5).abs().max()) < 0.1  # rows stay rows
    assert 0.25 * 12.5 < float(sheared[:, 1].abs().max()) < 0.3 * 12.5 + 0.6
