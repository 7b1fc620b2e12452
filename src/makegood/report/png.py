"""Pixels become a PNG file: what a page needs to show an image, without a library that decodes any."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR = {1: 0, 3: 2}  # channels: PNG's colour type (grey, RGB)


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG file of uint8 pixels (height, width, channels), 1 (grey) or 3 (RGB) channels of 8 bits, rows unfiltered.

    Signature, IHDR, one IDAT, IEND, each chunk with its length before it and its CRC-32 behind (ISO/IEC 15948, PNG, §5 and §11).
    Raises `ValueError` for other pixels.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in _COLOUR or not pixels.size:
        raise ValueError(f"uint8 pixels (height, width, 1 or 3), not {pixels.dtype} {pixels.shape}")
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR[channels], 0, 0, 0)
    rows = np.zeros((height, 1 + width * channels), dtype=np.uint8)  # each row begins with the number of its filter: 0, none
    rows[:, 1:] = pixels.reshape(height, -1)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def shrunk(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return the pixels (height, width, channels) with no side longer than `side`: means of square blocks, none enlarged."""
    height, width, channels = pixels.shape
    block = -(-max(height, width) // side)
    if block == 1:
        return pixels
    edges = [(0, -n % block) for n in (height, width)]
    whole = np.pad(pixels, (*edges, (0, 0)), mode="edge")  # the last block is filled up with its own border
    blocks = whole.reshape(whole.shape[0] // block, block, whole.shape[1] // block, block, channels)
    return np.asarray(np.rint(blocks.mean(axis=(1, 3))), dtype=np.uint8)
