from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from makegood.report.png import encode, shrunk

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from((1, 3)))
PIXELS = SHAPES.flatmap(lambda shape: arrays(np.uint8, shape))


@given(PIXELS)
@settings(max_examples=150, deadline=None)
def test_pillow_reads_what_was_written(pixels: np.ndarray) -> None:
    data = encode(pixels)
    with PIL.Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.verify()  # each chunk's CRC
    with PIL.Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        assert image.mode == {1: "L", 3: "RGB"}[pixels.shape[2]]
        assert np.array_equal(np.asarray(image).reshape(pixels.shape), pixels)


def test_the_file_is_what_the_standard_says_byte_by_byte() -> None:
    data = encode(np.array([[[0], [255]]], dtype=np.uint8))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[8:33] == b"\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 2, 1, 8, 0, 0, 0, 0) + data[29:33]
    assert struct.unpack(">I", data[29:33])[0] == zlib.crc32(data[12:29])
    size = struct.unpack(">I", data[33:37])[0]
    assert data[37:41] == b"IDAT"
    assert zlib.decompress(data[41 : 41 + size]) == b"\0\0\xff"
    assert data[45 + size :] == b"\0\0\0\0IEND\xaeB`\x82"


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2)), np.zeros((2, 2), np.uint8), np.zeros((2, 2, 2), np.uint8), np.zeros((0, 2, 1), np.uint8)]
)
def test_other_pixels_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 pixels \(height, width, 1 or 3\), not "):
        encode(pixels)


@given(PIXELS, st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_shrinking_bounds_the_sides_and_keeps_shades(pixels: np.ndarray, side: int) -> None:
    small = shrunk(pixels, side)
    assert max(small.shape[:2]) <= side
    assert small.shape[2] == pixels.shape[2]
    assert small.min() >= pixels.min()
    assert small.max() <= pixels.max()
    if max(pixels.shape[:2]) <= side:
        assert small is pixels


def test_shrinking_is_the_mean_of_blocks() -> None:
    pixels = np.array([[0, 100, 8], [100, 200, 8], [10, 20, 30]], dtype=np.uint8)[..., None]
    assert shrunk(pixels, 2)[..., 0].tolist() == [[100, 8], [15, 30]]
