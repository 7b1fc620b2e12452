"""The bytes of one image file become pixels of one shape, or a named reason why not: what was done to an image is always told.

Only seven raster formats are opened, told by their first bytes and never by the file's name. Pillow brings decoders that start
programs (EPS) or have a long record of holes; none of them is reached. Not for threads: Python's filter of warnings is global.
"""

from __future__ import annotations

import base64
import io
import math
import re
import struct
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from makegood.contracts import Finding
from makegood.errors import CaseError, MissingExtra, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import PIL.Image
    import pyarrow as pa

    from makegood.contracts import Bools, Floats

Pixels = NDArray[np.uint8]
Shape = tuple[int, int, int]  # height, width, channels

MAX_PIXELS = 1 << 26  # 8192 × 8192; as RGB some 200 MB while it is decoded
MAX_ASPECT = 50  # long side over short side; a line of handwriting has some 20
_ORIENTATION = 0x0112  # EXIF and TIFF tag
_TIFF_BITS = 258
_AT_A_TIME = 256  # images
_UNDO = dict(enumerate("FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90".split(), 2))

TREATMENTS = {
    "ok": "read as they are",
    "palette": "take their colours from a palette",
    "transparent": "are transparent in places, and were laid on white",
    "cmyk": "hold inks (CMYK), and were converted to RGB",
    "16-bit": "hold more than 8 bits in a channel, and were scaled to 8 by the range of their kind",
    "turned": "lie on their side or are mirrored by their EXIF orientation, and were turned upright",
    "animated": "hold several frames, of which the first was read",
    "missing": "are missing",
    "empty": "have no bytes",
    "not an image": "are no PNG, JPEG, GIF, BMP, TIFF, WebP or PPM images",
    "truncated": "end too early",
    "broken": "cannot be decoded",
    "bomb": f"would unpack to more than {MAX_PIXELS:,} pixels, and were not decoded",
    "extreme": f"are more than {MAX_ASPECT} times as long as wide, and were not decoded",
    "unscaled": "hold floating-point values, whose range nobody knows",
}
"""Every treatment and what the report says of images that got it. From "missing" on there are no pixels."""

UNREAD = tuple(TREATMENTS)[list(TREATMENTS).index("missing") :]

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
} | {f"P{n}{space}".encode(): "PPM" for n in range(1, 7) for space in " \t\r\n"}

_OTHERS = (  # what files that bear an image's name have been seen to be
    (b"%PDF", "a PDF"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"8BPS", "a Photoshop file"),
    (b"PK", "a zip archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x80", "a pickle"),
    (b"<", "markup (SVG, HTML or XML)"),
)

# What Pillow's decoders raise on bytes that were damaged, by accident or on purpose: they are written for whole files.
_MISREAD: tuple[type[Exception], ...] = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error, zlib.error)
_MISREAD += (ArithmeticError, AttributeError, MemoryError, RuntimeError)


@dataclass(frozen=True)
class Image:
    """`pixels` (height, width, channels), None where the image could not be read; `treatment` is a key of `TREATMENTS`."""

    pixels: Pixels | None
    treatment: str
    detail: str = ""


def kind_of(data: bytes) -> str | None:
    """Return PNG, JPEG, GIF, BMP, TIFF, WEBP or PPM by the first bytes, else None.

    >>> kind_of(b"GIF89a..."), kind_of(b"<svg></svg>")
    ('GIF', None)
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)


def read(data: bytes, shape: Shape) -> Image:
    """Return the pixels of a file's bytes as uint8 (height, width, channels), channels 1 (grey) or 3 (RGB), and what was done.

    An image of another size is shrunk or enlarged, antialiased, until it fits, and the rest is filled with the median colour of its
    border. It is never stretched: proportions tell a 1 from a 7, and stretching would depend on how each picture was framed. The
    treatment is the first that applies of animated, turned, 16-bit, cmyk, transparent and palette; the detail names them all.
    Raises `CaseError` for a shape that is none, and `MissingExtra` without Pillow; nothing that the bytes hold raises.
    """
    _check(shape)
    if not data:
        return Image(None, "empty")
    kind = kind_of(data)
    if kind is None:
        return Image(None, "not an image", f"it looks like {_look(data)}")
    from PIL import UnidentifiedImageError
    from PIL.Image import DecompressionBombError

    with warnings.catch_warnings():  # Pillow warns of metadata and sizes; what matters of it is in the treatment
        warnings.simplefilter("ignore")
        try:
            return _decoded(data, kind, shape)
        except DecompressionBombError:
            return Image(None, "bomb", "Pillow refuses its size")
        except _MISREAD as error:
            told = "its header cannot be read" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
            early = _ends_early(kind, data) or "truncated" in told
            return Image(None, "truncated" if early else "broken", f"{kind}: {told}")


def raw(data: bytes, stored: Shape, shape: Shape) -> Image:
    """Return pixels that were stored as uint8 bytes of the shape `stored`, in another shape; made as `read` makes them."""
    if len(data) != math.prod(stored):
        return Image(None, "broken", f"{len(data)} bytes are not {' × '.join(map(str, stored))} pixels")
    pixels = np.frombuffer(data, np.uint8).reshape(stored)
    if stored == shape:
        return Image(pixels, "ok")
    _check(shape)
    import PIL.Image

    return Image(_fitted(PIL.Image.fromarray(pixels[..., 0] if stored[2] == 1 else pixels), shape), "ok")


def stack(column: pa.ChunkedArray, shape: Shape, stored: Shape | None = None) -> tuple[Pixels, Bools, Counter[str]]:
    """Return pixels (n, height, width, channels), which rows were read (n,), and the count of each treatment.

    A row that was not read is all zeros. Pass `stored` for a column of raw pixels (see `stored_shape`).
    """
    pixels = np.zeros((len(column), *shape), dtype=np.uint8)
    good, counts = np.zeros(len(column), dtype=np.bool_), Counter[str]()
    for row, value in enumerate(column):
        data = value.as_py()
        image = Image(None, "missing") if data is None else read(data, shape) if stored is None else raw(data, stored, shape)
        counts[image.treatment] += 1
        if image.pixels is not None:
            pixels[row], good[row] = image.pixels, True
    return pixels, good, counts


def of(data: bytes, shape: Shape, stored: Shape | None = None) -> Image:
    """Return the pixels of a file, or of raw pixels of the shape, or of the shape `stored`; made as `read` and `raw` make them.

    As many bytes as there are pixels are pixels, unless they begin as a compressed file does: a BMP or PPM of that shape is longer.
    """
    if kind_of(data) in (None, "BMP", "PPM"):
        for known in (shape, stored):
            if known is not None and len(data) == math.prod(known):
                return raw(data, known, shape)
    return read(data, shape) if data else Image(None, "empty")


DEFAULT = (32, 32, 3)
SHAPE, SOURCE = b"shape", b"source"


def decoded(table: pa.Table, size: tuple[int, int] | None = None, channels: int | None = None) -> tuple[pa.Table, tuple[Finding, ...]]:
    """Return the table with raw pixels of one shape in each column of images, null where an image could not be read, and findings.

    What the case leaves open is as it was stored in arrays, or as in `DEFAULT`. A field's metadata says the shape of the pixels
    (`SHAPE`) and, where the arrays had another one, theirs (`SOURCE`).
    """
    import pyarrow as pa  # a served bundle, which needs this module, has no Arrow

    found: tuple[Finding, ...] = ()
    for at, field in enumerate(table.schema):
        if not pa.types.is_binary(field.type):
            continue
        stored = stored_shape(field)
        usual = stored or DEFAULT
        shape = (*(size or usual[:2]), channels or usual[2])
        pixels, good, counts = stack(table.column(at), shape, stored)
        made = pa.array([image.tobytes() if read_ else None for image, read_ in zip(pixels, good, strict=True)], pa.binary())
        said = {SHAPE: _written(shape)} | ({SOURCE: _written(stored)} if stored and stored != shape else {})
        table = table.set_column(at, pa.field(field.name, pa.binary(), metadata=said), made)
        found += findings(field.name, counts)
    return table, found


def _written(shape: Shape) -> bytes:
    return ",".join(map(str, shape)).encode()


def stored_shape(field: pa.Field, key: bytes = SHAPE) -> Shape | None:
    """Return the shape of a column of raw pixels, kept in its metadata as b"height,width,channels"; None for a column of files."""
    text = (field.metadata or {}).get(key)
    if text is None:
        return None
    height, width, channels = map(int, text.split(b","))
    return height, width, channels


_ONE = {"are": "is", "were": "was", "hold": "holds", "have": "has", "lie": "lies", "lead": "leads", "take": "takes", "end": "ends"}
_ONE |= {"their": "its", "images": "image", "files": "file", "arrays": "array", "texts": "text"}


def agreed(n: int, said: str) -> str:
    """Return words of ours about many things as they are about n: in the singular where there is one.

    >>> agreed(2, "images are missing"), agreed(1, "images take their colours from a palette")
    ('images are missing', 'image takes its colours from a palette')
    """
    return said if n != 1 else re.sub("[a-z]+", lambda word: _ONE.get(word[0], word[0]), said)


def findings(column: str, counts: Mapping[str, int]) -> tuple[Finding, ...]:
    """Return one finding for each treatment but "ok", in the order of `TREATMENTS`."""
    return tuple(
        Finding(
            "image",
            column,
            counts[name],
            f"{counts[name]} {agreed(counts[name], 'images')} of {column!r} {agreed(counts[name], said)}.",
            "treated as missing" if name in UNREAD else "kept",
            "warning" if name in UNREAD else "note",
        )
        for name, said in TREATMENTS.items()
        if name != "ok" and counts.get(name)
    )


def _check(shape: Shape) -> None:
    if find_spec("PIL") is None:
        raise MissingExtra(Problem("images", "", "Pillow, which decodes images", "pip install 'makegood[image]'"))
    height, width, channels = shape
    if height < 1 or width < 1 or channels not in (1, 3):
        raise CaseError(Problem("images", str(shape), "height, width ≥ 1 and 1 or 3 channels"))


def _look(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "HEIC, AVIF or a film"
    head = data[:256].removeprefix(b"\xef\xbb\xbf").lstrip()
    found = next((what for magic, what in _OTHERS if head.startswith(magic)), None)
    return found or ("text" if head.isascii() and b"\0" not in head else "data of an unknown kind")


def _ends_early(kind: str, data: bytes) -> bool:
    """Return whether bytes that could not be decoded stop before the end that their format promises."""
    if kind == "PNG":
        return b"IEND" not in data
    if kind == "JPEG":
        return not data.rstrip(b"\0").endswith(b"\xff\xd9")
    if kind == "GIF":
        return not data.rstrip(b"\0").endswith(b";")
    if kind == "TIFF":
        return len(data) < 8 or int.from_bytes(data[4:8], "little" if data[:1] == b"I" else "big") >= len(data)
    if kind == "BMP":
        return int.from_bytes(data[2:6], "little") > len(data)
    return kind == "WEBP" and 8 + int.from_bytes(data[4:8], "little") > len(data)


def _decoded(data: bytes, kind: str, shape: Shape) -> Image:
    """Return the image; raises what Pillow raises."""
    import PIL.Image
    import PIL.TiffImagePlugin
    import PIL.WebPImagePlugin  # registers the format, as the line above does; else Pillow would load every plug-in that it has

    with PIL.Image.open(io.BytesIO(data), formats=(kind,)) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            return Image(None, "bomb", f"{width} × {height} pixels")
        if max(width, height) > MAX_ASPECT * min(width, height):
            return Image(None, "extreme", f"{width} × {height} pixels")
        animated, deep = getattr(image, "is_animated", False), _bits(image, kind, data) > 8
        turn = image.getexif().get(_ORIENTATION, 1)
        side = 2 * max(shape[:2])
        image.draft(None, (side, side))  # a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, never below twice ours
        image.load()
        if image.mode == "F":
            return Image(None, "unscaled")
        flat, told = _flat(image, _top(image, kind))
        left = image.getexif().get(_ORIENTATION, 1)  # a TIFF is turned while it is loaded
        told = ["animated"] * bool(animated) + ["turned"] * (turn in _UNDO) + ["16-bit"] * deep + told
        return Image(_fitted(_turned(flat, left), shape), (told or ["ok"])[0], ", ".join(told))


def _bits(image: PIL.Image.Image, kind: str, data: bytes) -> int:
    """Return the bits of a channel in the file; Pillow keeps only the upper 8 where there are three or four channels."""
    if kind == "PNG":
        return data[24]
    if kind == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        return int(max(tags.get(_TIFF_BITS, (8,))))
    return 16 if image.mode.startswith("I") else 8


def _top(image: PIL.Image.Image, kind: str) -> float:
    """Return the largest value of the image's kind: mode I holds unsigned 16 bits of PNG and PPM, signed 16 or 32 bits of TIFF."""
    if image.mode != "I" or kind != "TIFF":
        return 2.0**16 - 1
    return float(2.0 ** (_bits(image, kind, b"") - 1) - 1)


def _flat(image: PIL.Image.Image, top: float) -> tuple[PIL.Image.Image, list[str]]:
    """Return the image as L or RGB with 8 bits a channel, and what was done to it."""
    import PIL.Image

    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image, np.float64) * (255 / top), 0, 255)
        return PIL.Image.fromarray(np.rint(grey).astype(np.uint8)), []
    if image.mode == "CMYK":
        return image.convert("RGB"), ["cmyk"]
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        white = PIL.Image.new("RGBA", clear.size, "white")
        seen = clear.getchannel("A").getextrema() != (255, 255)
        done = ["transparent"] * seen + ["palette"] * (image.mode == "P")
        return PIL.Image.alpha_composite(white, clear).convert("RGB"), done
    if image.mode == "P":
        return image.convert("RGB"), ["palette"]
    return image.convert("L" if image.mode in ("1", "L") else "RGB"), []


def _turned(image: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    """Return the image upright. EXIF 2.32, tag Orientation: 1 is upright, 2–8 say where the first row and column lie."""
    from PIL.Image import Transpose

    name = _UNDO.get(orientation)
    return image if name is None else image.transpose(Transpose[name])


def _fitted(image: PIL.Image.Image, shape: Shape) -> Pixels:
    """Return the pixels in the shape: proportions kept, in the middle, the rest in the median colour of the border."""
    from PIL.Image import Resampling

    height, width, channels = shape
    image = image.convert("L" if channels == 1 else "RGB")
    scale = min(width / image.width, height / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if size != image.size:
        image = image.resize(size, Resampling.BILINEAR)  # Pillow widens the filter when it shrinks: antialiased
    inner: Pixels = np.array(image, dtype=np.uint8).reshape(size[1], size[0], channels)
    if inner.shape == shape:
        return inner
    border = np.concatenate([inner[0], inner[-1], inner[:, 0], inner[:, -1]])
    pixels = np.full(shape, np.median(border, axis=0), dtype=np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    pixels[top : top + size[1], left : left + size[0]] = inner
    return pixels


# ------------------------------------------------------------------------------------------------------------------- cells


def bytes_of(cell: Any) -> tuple[bytes | None, str]:
    """Return the bytes that a cell holds, itself or written in base64, or why there are none."""
    if isinstance(cell, bytes | bytearray | memoryview):
        return bytes(cell), ""
    if cell is None or (isinstance(cell, float) and np.isnan(cell)):
        return None, "image missing"
    try:
        return (base64.b64decode(cell, validate=True), "") if isinstance(cell, str) else (None, "wrong")
    except ValueError:
        return None, "wrong"


def write_pixels(rows: Sequence[bytes | None], size: int, out: Floats) -> None:
    """Write the pixels of each image into `out` (n, size), from 0 to 1; an image that is not there is 0."""
    blank = bytes(size)
    for start in range(0, len(rows), _AT_A_TIME):
        part = rows[start : start + _AT_A_TIME]
        pixels = np.frombuffer(b"".join([blank if image is None else image for image in part]), np.uint8)
        np.divide(pixels.reshape(len(part), size), np.float32(255), out=out[start : start + _AT_A_TIME])
