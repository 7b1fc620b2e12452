from __future__ import annotations

import gzip
import io
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from collections import Counter
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFile
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makegood.data import images
from makegood.data.images import Image, findings, kind_of, raw, read, stack, stored_shape
from makegood.errors import CaseError

HEIGHT, WIDTH = 30, 40
ACROSS, DOWN = np.meshgrid(np.linspace(0, 255, WIDTH), np.linspace(0, 255, HEIGHT))
RGB = np.stack([ACROSS, DOWN, np.full_like(DOWN, 99)], axis=-1).astype(np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
BOX = (HEIGHT, WIDTH, 3)
PICTURE, NOISY = PIL.Image.fromarray(RGB), PIL.Image.fromarray(NOISE)
GREY16 = (RGB[..., 0].astype(np.uint16)) * 257


def file(image: PIL.Image.Image | np.ndarray[Any, Any], kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    (image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)).save(out, kind, **options)
    return out.getvalue()


def chunk(name: bytes, data: bytes, crc: int | None = None) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) if crc is None else crc)


def png(width: int, height: int, data: bytes = b"", crc: int | None = None) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header, crc) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as pack:
        pack.writestr("a.png", file(PICTURE, "PNG"))
    return out.getvalue()


def exif(orientation: int) -> PIL.Image.Exif:
    data = PIL.Image.Exif()
    data[0x0112] = orientation
    return data


def moving(kind: str) -> bytes:
    return file(PICTURE, kind, save_all=True, append_images=[NOISY], duration=50)


class Launch:
    """Unpickling this would end the tests."""

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, ("unpickled",)


PNG, JPEG, TIFF = file(NOISY, "PNG"), file(NOISY, "JPEG"), file(NOISY, "TIFF")
SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(%pipe%touch /tmp/owned) (w) file\n"

CORPUS: dict[str, tuple[bytes, str]] = {
    "zero bytes": (b"", "empty"),
    "text": (b"this is not an image\n", "not an image"),
    "HTML": (b"<!DOCTYPE html><html><body>404</body></html>", "not an image"),
    "SVG": (SVG, "not an image"),
    "PDF": (b"%PDF-1.7\n1 0 obj\n", "not an image"),
    "EPS": (EPS, "not an image"),
    "EPS with a preview": (b"\xc5\xd0\xd3\xc6" + struct.pack("<7I", 30, 90, 0, 0, 0, 0, 0) + EPS, "not an image"),
    "PSD": (b"8BPS\0\1" + bytes(20), "not an image"),
    "ICO": (b"\0\0\1\0\1\0" + bytes(20), "not an image"),
    "AVIF": (b"\0\0\0\x20ftypavif" + bytes(20), "not an image"),
    "zip": (zipped(), "not an image"),
    "gzip": (gzip.compress(PNG), "not an image"),
    "pickle": (pickle.dumps(Launch()), "not an image"),
    "truncated PNG": (PNG[: len(PNG) // 2], "truncated"),
    "PNG without pixels": (PNG[:40], "truncated"),
    "truncated JPEG": (JPEG[: len(JPEG) // 2], "truncated"),
    "JPEG of three bytes": (JPEG[:3], "truncated"),
    "truncated GIF": (file(NOISY, "GIF")[:900], "truncated"),
    "truncated BMP": (file(NOISY, "BMP")[:900], "truncated"),
    "truncated TIFF": (TIFF[: len(TIFF) // 2], "truncated"),
    "TIFF of six bytes": (TIFF[:6], "truncated"),
    "truncated WebP": (file(NOISY, "WEBP")[:300], "truncated"),
    "truncated PPM": (file(NOISY, "PPM")[:900], "truncated"),
    "wrong CRC": (png(4, 4, bytes(20), crc=1), "broken"),
    "wrong zlib": (PNG.replace(b"IDAT\x78", b"IDAT\xff"), "broken"),
    "PNG of noughts": (PNG[:8] + bytes(100) + PNG[-12:], "broken"),
    "JPEG of noughts": (JPEG[:20] + bytes(100) + JPEG[-2:], "broken"),
    "GIF of noughts": (b"GIF89a" + bytes(40) + b";", "broken"),
    "TIFF without tags": (b"II*\0\x08\0\0\0" + bytes(20), "broken"),
    "text that starts like a BMP": (b"BM\x01\0\0\0 a good car", "broken"),
    "text that starts like a PPM": (b"P6 is a section of the form", "broken"),
    "bomb, warned of": (png(10_000, 10_000), "bomb"),
    "bomb, refused": (png(2_000_000, 2_000_000), "bomb"),
    "bomb of a GIF": (
        b"GIF89a" + struct.pack("<HH3x", 65535, 65535) + b"," + struct.pack("<4HB", 0, 0, 65535, 65535, 0) + b"\x08\0;",
        "bomb",
    ),
    "1 × 10000": (file(np.zeros((10_000, 1), np.uint8), "PNG"), "extreme"),
    "10000 × 1": (file(np.zeros((1, 10_000), np.uint8), "PNG"), "extreme"),
    "floats": (file(ACROSS.astype(np.float32), "TIFF"), "unscaled"),
    "1 × 1": (file(np.full((1, 1), 7, np.uint8), "PNG"), "ok"),
    "1 bit": (file(PICTURE.convert("1"), "PNG"), "ok"),
    "1 bit fax": (file(PICTURE.convert("1"), "TIFF", compression="group4"), "ok"),
    "grey and JPEG": (file(PICTURE.convert("L"), "JPEG"), "ok"),
    "progressive JPEG": (file(PICTURE, "JPEG", progressive=True), "ok"),
    "opaque RGBA": (file(PICTURE.convert("RGBA"), "PNG"), "ok"),
    "palette": (file(PICTURE.convert("P"), "PNG"), "palette"),
    "palette with alpha": (file(PICTURE.convert("P"), "PNG", transparency=bytes(256)), "transparent"),
    "GIF": (file(PICTURE, "GIF"), "palette"),
    "half transparent": (file(np.dstack([RGB, np.full((HEIGHT, WIDTH), 128, np.uint8)]), "PNG"), "transparent"),
    "grey and alpha": (file(PICTURE.convert("L").convert("LA"), "PNG"), "ok"),
    "CMYK JPEG": (file(PICTURE.convert("CMYK"), "JPEG"), "cmyk"),
    "CMYK TIFF": (file(PICTURE.convert("CMYK"), "TIFF"), "cmyk"),
    "16-bit PNG": (file(GREY16, "PNG"), "16-bit"),
    "16-bit TIFF": (file(GREY16, "TIFF"), "16-bit"),
    "16-bit PPM": (b"P5 2 2 65535\n" + np.array([0, 257, 32896, 65535], ">u2").tobytes(), "16-bit"),
    "32-bit TIFF": (file((GREY16.astype(np.int32)) * 32767, "TIFF"), "16-bit"),
    "animated GIF": (moving("GIF"), "animated"),
    "animated PNG": (moving("PNG"), "animated"),
    "animated WebP": (moving("WEBP"), "animated"),
    "pages of a TIFF": (file(PICTURE, "TIFF", save_all=True, append_images=[NOISY]), "animated"),
    "wrong EXIF": (JPEG[:2] + b"\xff\xe1\0\x10Exif\0\0garbage!" + JPEG[2:], "ok"),
    "EXIF orientation 9": (file(PICTURE, "JPEG", exif=exif(9)), "ok"),
}


@pytest.mark.parametrize("name", CORPUS)
def test_every_odd_image_has_its_named_treatment(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    data, treatment = CORPUS[name]
    for shape in ((12, 10, 3), (9, 16, 1)):
        image = read(data, shape)
        assert image.treatment == treatment, image.detail
        assert treatment in images.TREATMENTS
        if treatment in images.UNREAD:
            assert image.pixels is None
        else:
            assert image.pixels is not None
            assert (image.pixels.shape, image.pixels.dtype) == (shape, np.uint8)
    assert capfd.readouterr() == ("", "")


def test_the_corpus_covers_every_treatment_of_a_file() -> None:
    assert {treatment for _, treatment in CORPUS.values()} == set(images.TREATMENTS) - {"missing", "turned"}  # turned: below
    assert images.UNREAD == ("missing", "empty", "not an image", "truncated", "broken", "bomb", "extreme", "unscaled")


def test_what_is_no_image_is_named() -> None:
    names = ["text", "SVG", "HTML", "PDF", "EPS", "EPS with a preview", "PSD", "ICO", "AVIF", "zip", "gzip", "pickle"]
    assert [read(CORPUS[name][0], BOX).detail.removeprefix("it looks like ") for name in names] == [
        "text",
        "markup (SVG, HTML or XML)",
        "markup (SVG, HTML or XML)",
        "a PDF",
        "PostScript",
        "PostScript",
        "a Photoshop file",
        "data of an unknown kind",
        "HEIC, AVIF or a film",
        "a zip archive",
        "a gzip file",
        "a pickle",
    ]
    assert kind_of(b"RIFF\0\0\0\0WAVE") is None


def test_nothing_global_is_changed() -> None:
    before = PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES
    for data, _ in CORPUS.values():
        read(data, (4, 4, 1))
    assert (PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES) == before == (89_478_485, False)


def test_the_reason_is_told() -> None:
    assert read(CORPUS["bomb, warned of"][0], BOX) == Image(None, "bomb", "10000 × 10000 pixels")
    assert read(CORPUS["bomb, refused"][0], BOX).detail == "Pillow refuses its size"
    assert read(CORPUS["wrong CRC"][0], BOX) == Image(None, "broken", "PNG: its header cannot be read")
    assert read(CORPUS["truncated JPEG"][0], BOX).detail.startswith("JPEG: image file is truncated")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_an_image_of_the_right_size_keeps_its_pixels(kind: str) -> None:
    np.testing.assert_array_equal(read(file(NOISY, kind), BOX).pixels, NOISE)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_is_read(kind: str) -> None:
    pixels = read(moving(kind), BOX).pixels
    assert pixels is not None
    assert np.abs(pixels.astype(int) - RGB).mean() < 12


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright(orientation: int, kind: str) -> None:
    undone = [lambda a: a, np.fliplr, lambda a: np.rot90(a, 2), np.flipud, lambda a: a.swapaxes(0, 1)]
    undone += [lambda a: np.rot90(a, -1), lambda a: np.rot90(a, 2).swapaxes(0, 1), np.rot90]
    upright = undone[orientation - 1](RGB)
    options = {"exif": exif(orientation), "quality": 95} if kind == "JPEG" else {"tiffinfo": {0x0112: orientation}}
    image = read(file(PICTURE, kind, **options), upright.shape)
    assert image.treatment == ("ok" if orientation == 1 else "turned")
    assert image.pixels is not None
    assert np.abs(image.pixels.astype(int) - upright).mean() < (6 if kind == "JPEG" else 1e-9)


def test_depth_is_scaled_by_the_range_of_the_kind() -> None:
    grey = (HEIGHT, WIDTH, 1)
    for name in ("16-bit PNG", "16-bit TIFF"):
        np.testing.assert_array_equal(read(CORPUS[name][0], grey).pixels, RGB[..., :1])
    assert np.abs(np.asarray(read(CORPUS["32-bit TIFF"][0], grey).pixels, int) - RGB[..., :1]).max() <= 1
    np.testing.assert_array_equal(np.ravel(read(CORPUS["16-bit PPM"][0], (2, 2, 1)).pixels), [0, 1, 128, 255])
    dark = read(file(np.full((4, 4), 300, np.uint16), "PNG"), (4, 4, 1))  # the range of the kind, not of this picture
    np.testing.assert_array_equal(dark.pixels, np.ones((4, 4, 1)))


def test_transparency_is_laid_on_white_and_inks_become_colours() -> None:
    np.testing.assert_array_equal(read(CORPUS["palette with alpha"][0], BOX).pixels, np.full(BOX, 255))
    half = np.asarray(read(CORPUS["half transparent"][0], BOX).pixels, int)
    assert np.abs(half - (RGB * (128 / 255) + 255 * (127 / 255))).max() <= 1
    assert np.abs(np.asarray(read(CORPUS["CMYK TIFF"][0], BOX).pixels, int) - RGB).max() <= 1
    assert read(file(PICTURE.convert("P"), "GIF", save_all=True, append_images=[NOISY]), BOX).detail == "animated, palette"


def test_proportions_are_kept_and_the_border_is_continued() -> None:
    wide = np.full((10, 40, 3), (10, 20, 30), np.uint8)
    wide[4:6, 18:22] = 255
    pixels = read(file(wide, "PNG"), (40, 40, 3)).pixels
    assert pixels is not None
    np.testing.assert_array_equal(pixels[15:25], wide)
    assert (pixels[:15] == (10, 20, 30)).all()
    assert (pixels[25:] == (10, 20, 30)).all()
    tall = read(file(wide.swapaxes(0, 1), "PNG"), (40, 40, 3)).pixels
    np.testing.assert_array_equal(tall, pixels.swapaxes(0, 1))


def test_shrinking_is_antialiased() -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(255)
    pixels = read(file(board.astype(np.uint8), "PNG"), (8, 8, 1)).pixels
    assert pixels is not None
    assert np.abs(pixels.astype(int) - 127).max() <= 3  # nearest neighbours would be all black or all white
    large = PICTURE.resize((WIDTH * 20, HEIGHT * 20))
    coarse = read(file(large, "JPEG", quality=95), BOX).pixels  # decoded at a fraction of its size
    assert coarse is not None
    assert np.abs(coarse.astype(int) - RGB).mean() < 3


@pytest.mark.parametrize("shape", [(0, 4, 1), (4, 0, 3), (4, 4, 2), (4, 4, 4)])
def test_a_shape_that_is_none_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(CaseError) as error:
        read(PNG, shape)
    assert str(error.value) == f"images: got '{shape}'; expected height, width ≥ 1 and 1 or 3 channels"


def test_without_pillow_the_missing_extra_is_named() -> None:
    script = (
        "import sys; sys.modules['PIL'] = None\n"
        "from makegood.errors import MissingExtra\n"
        "from makegood.data import images\n"
        "assert images.raw(b'ab', (1, 2, 1), (1, 2, 1)).treatment == 'ok'  # raw pixels of the right size need none\n"
        "try: images.read(b'', (1, 1, 1))\n"
        "except MissingExtra as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert out == "images; expected Pillow, which decodes images; pip install 'makegood[image]'"


def test_raw_pixels() -> None:
    np.testing.assert_array_equal(raw(RGB.tobytes(), BOX, BOX).pixels, RGB)
    for array, stored in ((RGB, BOX), (RGB[..., 0].copy(), (HEIGHT, WIDTH, 1))):
        for shape in ((12, 10, 3), (50, 50, 1)):  # as from a file
            np.testing.assert_array_equal(raw(array.tobytes(), stored, shape).pixels, read(file(array, "PNG"), shape).pixels)
    assert raw(b"123", (2, 2, 1), (2, 2, 1)) == Image(None, "broken", "3 bytes are not 2 × 2 × 1 pixels")


def test_a_column_becomes_pixels_and_every_treatment_is_counted() -> None:
    column = pa.chunked_array([pa.array([PNG, None], pa.binary()), pa.array([b"", JPEG[:400], moving("PNG"), b"", PNG], pa.binary())])
    pixels, good, counts = stack(column, BOX)
    assert pixels.shape == (7, *BOX)
    assert good.tolist() == [True, False, False, False, True, False, True]
    assert not pixels[~good].any()
    np.testing.assert_array_equal(pixels[6], NOISE)
    assert counts == Counter({"ok": 2, "missing": 1, "empty": 2, "truncated": 1, "animated": 1})
    found = findings("photo", counts)
    assert [(f.count, f.detail, f.action, f.severity) for f in found] == [
        (1, "1 image of 'photo' holds several frames, of which the first was read.", "kept", "note"),
        (1, "1 image of 'photo' is missing.", "treated as missing", "warning"),
        (2, "2 images of 'photo' have no bytes.", "treated as missing", "warning"),
        (1, "1 image of 'photo' ends too early.", "treated as missing", "warning"),
    ]
    assert {(f.kind, f.column) for f in found} == {("image", "photo")}


def test_a_column_of_raw_pixels() -> None:
    field = pa.field("image", pa.binary(), metadata={b"shape": b"30,40,3"})
    assert stored_shape(field) == BOX
    assert stored_shape(pa.field("image", pa.binary())) is None
    assert stored_shape(pa.field("image", pa.binary(), metadata={b"style": b"plain"})) is None
    pixels, good, counts = stack(pa.chunked_array([pa.array([RGB.tobytes(), None, b"x"], pa.binary())]), BOX, BOX)
    np.testing.assert_array_equal(pixels[0], RGB)
    assert good.tolist() == [True, False, False]
    assert counts == Counter({"ok": 1, "missing": 1, "broken": 1})


@settings(max_examples=150)
@given(
    st.sampled_from([data for data, treatment in CORPUS.values() if treatment not in ("not an image", "empty", "extreme")]),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_no_bytes_raise(data: bytes, flips: list[tuple[int, int]]) -> None:
    damaged = bytearray(data)
    for place, value in flips:
        damaged[place % len(damaged)] = value
    assert read(bytes(damaged), (5, 7, 3)).treatment in images.TREATMENTS


def test_one_value_may_be_a_file_or_raw_pixels() -> None:
    small = RGB[:2, :2]
    assert images.of(RGB.tobytes(), BOX).pixels is not None
    np.testing.assert_array_equal(images.of(small.tobytes(), (2, 2, 3)).pixels, small)
    np.testing.assert_array_equal(images.of(file(small, "PNG"), (2, 2, 3)).pixels, small)
    np.testing.assert_array_equal(
        images.of(small.tobytes(), (4, 4, 3), (2, 2, 3)).pixels, raw(small.tobytes(), (2, 2, 3), (4, 4, 3)).pixels
    )
    assert images.of(small.tobytes(), (4, 4, 3)) == Image(None, "not an image", images.of(small.tobytes(), (4, 4, 3)).detail)
    assert images.of(b"", BOX) == Image(None, "empty")


def test_a_file_of_as_many_bytes_as_there_are_pixels_is_a_file() -> None:
    data = file(small := RGB[:2, :2], "PNG")
    box = (1, len(data), 1)
    assert images.of(data, box).treatment == "ok"
    assert images.of(b"BM" + bytes(10), (3, 4, 1)).treatment == "ok"
    np.testing.assert_array_equal(images.of(b"BM" + bytes(10), (3, 4, 1)).pixels, np.array([66, 77] + [0] * 10).reshape(3, 4, 1))
    assert images.of(data, box).pixels.tobytes() != data  # type: ignore[union-attr]
    assert small.shape == (2, 2, 3)


def test_columns_of_images_become_pixels_of_one_shape() -> None:
    arrays = pa.field("image", pa.binary(), metadata={b"shape": b"30,40,3"})
    columns = [pa.array([RGB.tobytes(), None]), pa.array([file(NOISE, "PNG"), b"x"]), pa.array([1, 2])]
    table = pa.table(columns, schema=pa.schema([arrays, pa.field("photo", pa.binary()), pa.field("y", pa.int64())]))
    made, found = images.decoded(table)
    assert [stored_shape(f) for f in made.schema] == [BOX, images.DEFAULT, None]
    assert stored_shape(made.schema.field("image"), images.SOURCE) is None
    assert made["image"].to_pylist() == [RGB.tobytes(), None]
    assert [None if v is None else len(v) for v in made["photo"].to_pylist()] == [32 * 32 * 3, None]
    assert [(f.column, f.count, f.detail.split(" ", 1)[1]) for f in found] == [
        ("image", 1, "image of 'image' is missing."),
        ("photo", 1, "image of 'photo' is no PNG, JPEG, GIF, BMP, TIFF, WebP or PPM image."),
    ]
    shrunk, _ = images.decoded(table.select(["image"]), (4, 5), 1)
    assert (stored_shape(shrunk.schema.field("image")), stored_shape(shrunk.schema.field("image"), images.SOURCE)) == ((4, 5, 1), BOX)
    assert [None if v is None else len(v) for v in shrunk["image"].to_pylist()] == [20, None]
    again, _ = images.decoded(made)
    assert again.equals(made)
