"""A folder, an archive, an .npz file or a column of paths becomes a table whose column `image` holds the bytes of each image.

Nothing is decoded here (see `images`), unpacked to disk, or unpickled. A file that is left out is counted in a finding, by its reason.
"""

from __future__ import annotations

import gzip
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy
from numpy.typing import NDArray

from makegood.contracts import Finding
from makegood.data.delimited import Rows
from makegood.data.images import agreed, kind_of
from makegood.errors import DataError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from makegood.data.images import Pixels

IMAGE, PATH, LABEL, PART = "image", "path", "label", "part"
PLACE, CLASS = {b"role": b"place"}, {b"role": b"class"}
"""Metadata of a column that says where an image came from (it makes no feature, and two images are equal whatever it says), and of the
column that says what it shows (which has no name in a folder or an array: the case gives it one)."""

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz")
SUFFIXES = frozenset(".png .apng .jpg .jpeg .jpe .jfif .gif .bmp .dib .tif .tiff .webp .ppm .pgm .pbm .pnm".split())

_MiB = 1 << 20
MAX_FILE = 64 * _MiB  # of one image
MAX_TOTAL = 2048 * _MiB  # of all images: they are held in memory
MAX_RATIO = 200  # unpacked over packed size of anything above a MiB; photographs have 1, scans of blank pages some 100
_HEAD = 16  # bytes that tell an image

PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test", "val": "valid", "valid": "valid", "validation": "valid"}
"""How the part that a row belongs to may be written, and what it is."""

_DAMAGED = (OSError, EOFError, RuntimeError, ValueError, struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)

_REASONS = {  # reason: (what the report says, what was done, severity)
    "not_image": ("are no images by name or by content", "excluded", "note"),
    "unsafe_name": ("lead out of their folder by name or by link", "excluded", "warning"),
    "link": ("hold nothing of their own, being a folder, a link or a device", "excluded", "warning"),
    "encrypted": ("are encrypted", "excluded", "warning"),
    "bomb": (f"would unpack to more than {MAX_RATIO} times their size", "excluded", "warning"),
    "unreadable": ("cannot be read", "treated as missing", "warning"),
    "large": (f"hold more than {MAX_FILE // _MiB} MiB", "treated as missing", "warning"),
}


@dataclass
class _Shelf:
    """What was gathered of one source: names and bytes of images in step, and the names of what was left out, by reason.

    `whole`: nothing is left out, since each name belongs to a row that has other columns; an image may be missing from it.
    """

    where: str
    whole: bool = False
    names: list[str] = field(default_factory=list)
    images: list[bytes | None] = field(default_factory=list)
    reasons: dict[str, list[str]] = field(default_factory=dict)
    total: int = 0

    def add(self, name: str, data: bytes | None) -> None:
        """Keep the bytes of an image; raises `DataError` when all of them become too many to hold."""
        self.names.append(name)
        self.images.append(data)
        self.total += len(data or b"")
        if self.total > MAX_TOTAL:
            limit = f"{MAX_TOTAL / _MiB:,.0f} MiB of images"
            raise DataError(Problem(self.where, f"more than {limit}", f"at most {limit}", "shrink the images, or give a part of them"))

    def leave(self, name: str, reason: str) -> None:
        """Leave a file out, or its image missing."""
        self.reasons.setdefault(reason, []).append(name)
        if self._action(reason) != "excluded":
            self.add(name, None)

    def _action(self, reason: str) -> str:
        return "treated as missing" if self.whole else _REASONS[reason][1]

    def read(self, stream: IO[bytes], name: str, size: int) -> None:
        """Read a file of `size` bytes where it is an image."""
        head = stream.read(_HEAD)
        if not (self.whole or _is_image(name, head)):
            self.leave(name, "not_image")
        elif size > MAX_FILE:
            self.leave(name, "large")
        else:
            self.add(name, head + stream.read(MAX_FILE))

    def findings(self, column: str = "") -> tuple[Finding, ...]:
        """Return one finding for each reason."""
        return tuple(
            Finding(reason, column, n, f"{n} {agreed(n, f'files {said}')}, such as {names[0]!r}.", self._action(reason), severity)
            for reason, (said, _, severity) in _REASONS.items()
            if (names := self.reasons.get(reason)) and (n := len(names))
        )

    def rows(self) -> Rows:
        """Return the table, sorted by name; raises `DataError` when there is no image."""
        aside = sum(len(names) for reason, names in self.reasons.items() if self._action(reason) == "excluded")
        if not self.names:
            got = "; ".join(f.detail for f in self.findings()) or "no files"
            raise DataError(Problem(self.where, got, "images: PNG, JPEG, GIF, BMP, TIFF, WebP or PPM files"))
        order = sorted(range(len(self.names)), key=self.names.__getitem__)
        names = [self.names[i].encode("utf-8", "replace").decode() for i in order]  # a file's name need not be text
        parts, labels = _classes(names)
        columns = {IMAGE: _binary([self.images[i] for i in order]), PATH: pa.array(names), LABEL: pa.array(labels, pa.string())}
        if parts:
            columns[PART] = pa.array(parts)
        bare = labels.count(None)
        detail = f"{bare} {agreed(bare, 'images lie in no subfolder, which would name their class')}."
        found = self.findings() + ((Finding("missing_outcome", LABEL, bare, detail, "kept", "warning"),) if bare else ())
        return Rows(_table(columns), len(names) + aside, aside, found)


# ------------------------------------------------------------------------------------------------- folders and columns of paths


def folder(path: Path) -> Rows:
    """Return the images below a folder: `image` (bytes), `path`, and `label`, the name of the subfolder that holds them.

    Folders around all images are passed over; where the subfolders are train, test or validation, they become the column `part` and
    the folders in them the labels. Hidden files and `__MACOSX` are skipped. An image is what is named like one or begins like one.
    Raises `DataError` when there is none, or more than `MAX_TOTAL` bytes.
    """
    shelf, root = _Shelf(path.name), path.resolve()
    for file in _walk(path):
        name = file.relative_to(path).as_posix()
        _open(shelf, name, root, name)
    return shelf.rows()


def one(path: Path) -> Rows:
    """Return a single image file as `folder` would its folder, whatever the file holds."""
    shelf = _Shelf(path.name)
    with path.open("rb") as stream:
        shelf.read(stream, path.name, path.stat().st_size)
    return shelf.rows()


def _walk(path: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(path):  # does not follow links to folders
        folders[:] = sorted(name for name in folders if not _hidden(name))
        yield from (Path(place, name) for name in sorted(files) if not _hidden(name))


def _open(shelf: _Shelf, name: str, root: Path, inside: str) -> None:
    """Shelve the file `inside` the folder `root`, or say why not."""
    try:
        file = (root / inside).resolve()
        if not file.is_relative_to(root):
            return shelf.leave(name, "unsafe_name")
        if file.exists() and not file.is_file():
            return shelf.leave(name, "link")  # a pipe would be waited for for ever
        with file.open("rb") as stream:
            return shelf.read(stream, name, file.stat().st_size)
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return shelf.leave(name, "unreadable")


def paths(table: pa.Table, column: str, folder: Path) -> tuple[pa.Table, tuple[Finding, ...]]:
    """Return the table with a last column `image`, the bytes of the files that a column of paths names, and what was found.

    Paths are relative to `folder`, and none may leave it by "..", an absolute path or a link: such a path, like one that cannot be
    read, gives null. A column of paths that is itself called `image` becomes `path`. Raises `DataError` when the table has another
    column of that name, when the column is no text, or when the files hold more than `MAX_TOTAL` bytes.
    """
    if not pa.types.is_string(table.schema.field(column).type):
        raise DataError(Problem(column, f"{table.schema.field(column).type} values", "a column of paths", "write each file's name"))
    texts = table[column].to_pylist()
    if column == IMAGE:
        table = table.rename_columns([PATH if name == IMAGE else name for name in table.column_names])
    names = table.column_names
    if IMAGE in names or len(set(names)) < len(names):
        clash = IMAGE if IMAGE in names else PATH
        raise DataError(Problem(column, f"a table with a column {clash!r} beside it", f"no other column {clash!r}", "rename that column"))
    shelf, root = _Shelf(column, whole=True), folder.resolve()
    for text in texts:
        inside = (text or "").replace("\\", "/")  # written on Windows
        if not text:
            shelf.add("", None)
        elif _unsafe(inside):
            shelf.leave(text, "unsafe_name")
        else:
            _open(shelf, text, root, inside)
    at = names.index(PATH if column == IMAGE else column)
    table = table.set_column(at, pa.field(names[at], pa.string(), metadata=PLACE), table.column(at))
    return table.append_column(IMAGE, _binary(shelf.images)), shelf.findings(column)


def _unsafe(name: str) -> bool:
    """Return whether a name is absolute (here or on Windows), climbs by "..", or holds a NUL."""
    windows = PureWindowsPath(name)
    return bool(windows.root or windows.drive or ".." in windows.parts or "\0" in name)


def named(table: pa.Table, outcome: str) -> pa.Table:
    """Return the table with its classes under the outcome's name, where it is one of images and has no column of that name."""
    names = table.column_names
    said = [f.name for f in table.schema if (f.metadata or {}).get(b"role") == CLASS[b"role"]]
    return table if outcome in names or not said else table.rename_columns([outcome if n == said[0] else n for n in names])


def roles(table: pa.Table) -> frozenset[str]:
    """Return the columns that a source of images has beside them: where they lie, and what they show."""
    return frozenset(f.name for f in table.schema if b"role" in (f.metadata or {}))


def place_of(table: pa.Table) -> str | None:
    """Return the column that says where each image lies, None where there is none."""
    return next((f.name for f in table.schema if (f.metadata or {}).get(b"role") == PLACE[b"role"] and f.name != PART), None)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _skipped(name: str) -> bool:
    return not _unsafe(name) and any(map(_hidden, PurePosixPath(name).parts))


def _is_image(name: str, head: bytes) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES or kind_of(head) is not None


def _classes(names: list[str]) -> tuple[list[str] | None, list[str | None]]:
    """Return the part (None where folders name none) and the class of each path.

    >>> _classes(["pets/train/cat/1.png", "pets/test/dog/2.png"])
    (['train', 'test'], ['cat', 'dog'])
    >>> _classes(["cat/old/1.png", "dog/2.png", "3.png"])
    (None, ['cat', 'dog', None])
    """
    steps = [PurePosixPath(name).parts[:-1] for name in names]
    while all(len(s) > 1 for s in steps) and len({s[0] for s in steps}) == 1 and steps[0][0].lower() not in PARTS:
        steps = [s[1:] for s in steps]
    parts = None
    if all(len(s) > 1 and s[0].lower() in PARTS for s in steps):
        parts, steps = [PARTS[s[0].lower()] for s in steps], [s[1:] for s in steps]
    return parts, [s[0] if s else None for s in steps]


def _table(columns: dict[str, Any], shape: bytes = b"") -> pa.Table:
    """Return the table, with what is known of its columns as their metadata."""
    said = {PATH: PLACE, LABEL: CLASS, PART: PLACE} | ({IMAGE: {b"shape": shape}} if shape else {})
    return pa.table(list(columns.values()), schema=pa.schema([pa.field(n, c.type, metadata=said.get(n)) for n, c in columns.items()]))


def _binary(images: list[bytes | None]) -> pa.ChunkedArray:
    made = pa.array(images, pa.binary())  # Arrow itself makes chunks of what is larger than 2 GiB
    return made if isinstance(made, pa.ChunkedArray) else pa.chunked_array([made])


# ------------------------------------------------------------------------------------------------------------------- archives


def archive(path: Path) -> Rows:
    """Return the images in a .zip, .tar, .tgz or .tar.gz file as `folder` does; members are read in memory, never extracted.

    Names that lead out, links, devices, encrypted members and members that would unpack to far more than their size are left out,
    each counted. Raises `DataError` for a damaged archive, one that unpacks to more than `MAX_TOTAL` bytes or to `MAX_RATIO` times
    its size, and one without images.
    """
    shelf = _Shelf(path.name)
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as pack:
                _unzip(pack, shelf)
        elif path.suffix.lower() == ".tar":
            with path.open("rb") as plain:
                _untar(plain, shelf, path.stat().st_size)
        else:
            with path.open("rb") as packed, _Gzip(fileobj=packed) as stream:
                _untar(stream, shelf, max(path.stat().st_size * MAX_RATIO, _MiB))
    except _DAMAGED as error:
        got = f"a damaged archive ({error})"
        raise DataError(Problem(path.name, got, "a whole .zip, .tar or .tar.gz file", "copy or download it again")) from None
    return shelf.rows()


class _Gzip(gzip.GzipFile):
    """A stream that never reads more at once than one image may hold: tarfile believes what a header says of its own length."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_FILE:
            raise tarfile.ReadError("a header that is too large")
        return super().read(size)


def _unzip(pack: zipfile.ZipFile, shelf: _Shelf) -> None:
    for member in pack.infolist():
        name, mode = member.filename, member.external_attr >> 16
        if name.endswith("/") or _skipped(name):  # ZipInfo.is_dir fails on a member without a name
            continue
        reason = "unsafe_name" if _unsafe(name) else "encrypted" if member.flag_bits & 1 else ""
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            reason = "link"
        if member.file_size > max(_MiB, MAX_RATIO * member.compress_size):
            reason = "bomb"
        if reason:
            shelf.leave(name, reason)
            continue
        try:
            with pack.open(member) as stream:  # never gives more bytes than the size that it was checked for
                shelf.read(stream, name, member.file_size)
        except _DAMAGED:
            shelf.leave(name, "unreadable")


def _untar(stream: IO[bytes] | _Gzip, shelf: _Shelf, limit: int) -> None:
    """Read the members of a tar stream that has at most `limit` bytes, in their order: a packed stream cannot go back."""
    with tarfile.open(fileobj=stream, mode="r:") as pack:
        for member in pack:
            if pack.offset > limit:  # where the next header is said to be
                raise tarfile.ReadError("it ends too early, or would unpack to far more than its size")
            if member.isdir() or _skipped(member.name):
                continue
            content = pack.extractfile(member) if member.isreg() else None  # extractfile follows links
            if _unsafe(member.name):
                shelf.leave(member.name, "unsafe_name")
            elif content is None:
                shelf.leave(member.name, "link")
            elif member.issparse():  # filled up with noughts without end
                shelf.leave(member.name, "bomb")
            else:
                shelf.read(content, member.name, member.size)


# --------------------------------------------------------------------------------------------------------------------- arrays

_PAIRS = (("x_train", "y_train", "train"), ("x_test", "y_test", "test"), ("images", "labels", ""))
_TOPS = (1.0, 16.0, 255.0)  # what white may be: a share, scikit-learn's digits, 8 bits


def arrays(path: Path) -> Rows:
    """Return the images of an .npz file: x_train and y_train, x_test and y_test, or images and labels.

    Images are (n, height, width) or (n, height, width, channels) of 1 or 3 channels; the column `image` holds their pixels as raw
    uint8 bytes, not as files, and its metadata b"shape" says height,width,channels. uint8 stays as it is; other numbers are scaled
    to 0…255 by the least of 1, 16 and 255 that holds all of them. `path` names the array and the row, `part` is train or test.
    Raises `DataError` for what is damaged or would have to be unpickled, for other shapes or values, and above `MAX_TOTAL` bytes.
    """
    try:
        with zipfile.ZipFile(path) as pack:
            members = {name.removesuffix(".npy"): pack.getinfo(name) for name in pack.namelist()}
            pairs = [pair for pair in _PAIRS if pair[0] in members and pair[1] in members]
            pairs = [pair for pair in pairs if pair[2]] or pairs
            if not pairs:
                raise DataError(Problem(path.name, f"the arrays {', '.join(members)}", "x_train and y_train, or images and labels"))
            held = {name: _array(pack, members[name], f"{path.name}, {name}") for pair in pairs for name in pair[:2]}
    except (*_DAMAGED, TypeError, SyntaxError) as error:
        raise DataError(Problem(path.name, f"a damaged file ({error})", "a whole .npz file", "write or copy it again")) from None
    shape = _common_shape(path.name, {x: held[x].shape for x, _, _ in pairs})
    pixels, findings = _pixels(path.name, [held[x] for x, _, _ in pairs])
    labels = [_labels(f"{path.name}, {y}", held[y], len(held[x])) for x, y, _ in pairs]
    columns = {
        IMAGE: pa.chunked_array([chunk for part in pixels for chunk in _packed(part)], pa.binary()),
        PATH: pa.array([f"{x}[{row}]" for x, _, _ in pairs for row in range(len(held[x]))]),
        LABEL: pa.chunked_array(labels) if len({y.type for y in labels}) == 1 else pa.chunked_array([y.cast(pa.string()) for y in labels]),
    }
    if pairs[0][2]:
        columns[PART] = pa.array([part for x, _, part in pairs for _ in range(len(held[x]))])
    others = sorted(set(members) - set(held))
    if others:
        detail = f"{len(others)} {agreed(len(others), 'arrays are left over')}, such as {others[0]!r}."
        findings += (Finding("not_image", "", len(others), detail, "excluded"),)
    table = _table(columns, shape)
    return Rows(table, table.num_rows, 0, findings)


def _array(pack: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> NDArray[Any]:
    """Return an array whose header was read first: it holds no objects, and no more values than the file has bytes for."""
    with pack.open(member) as stream:
        version = npy.read_magic(stream)
        header = npy.read_array_header_1_0(stream) if version == (1, 0) else npy.read_array_header_2_0(stream)
        shape, _, kind = header
        if kind.hasobject:
            mend = "write them as numbers or as fixed-length text"
            raise DataError(Problem(where, "Python objects, which would have to be unpickled", "plain arrays", mend))
        size = int(np.prod(shape, dtype=object)) * kind.itemsize
        if size > MAX_TOTAL:
            raise DataError(Problem(where, f"{size / _MiB:,.0f} MiB", f"at most {MAX_TOTAL / _MiB:,.0f} MiB"))
        if member.file_size > max(_MiB, MAX_RATIO * member.compress_size):
            raise DataError(Problem(where, f"an array that unpacks to more than {MAX_RATIO} times its size", "an array of images"))
        if size > member.file_size:  # NumPy would allocate it before it noticed
            raise ValueError(f"{member.filename} claims more than it holds")
    with pack.open(member) as stream:
        array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
    return array


def _common_shape(where: str, shapes: dict[str, tuple[int, ...]]) -> bytes:
    """Return height,width,channels; raises `DataError` where images differ in it, or are none."""
    seen = {(*shape[1:], 1)[:3] for shape in shapes.values()}
    fits = all(len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3)) for shape in shapes.values())
    if not fits or len(seen) > 1 or not all(map(all, seen)):
        got = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        expected = "(n, height, width) or (n, height, width, 1 or 3 channels), the same in train and test"
        raise DataError(Problem(where, got, expected, "put the channels last"))
    return ",".join(map(str, seen.pop())).encode()


def _pixels(where: str, images: list[NDArray[Any]]) -> tuple[list[Pixels], tuple[Finding, ...]]:
    """Return the images as uint8, all on one scale."""
    if all(x.dtype == np.uint8 for x in images):
        return images, ()
    if not all(x.dtype.kind in "biuf" for x in images):
        raise DataError(Problem(where, f"{', '.join(str(x.dtype) for x in images)} values", "numbers from 0 to 1, 16 or 255"))
    low, high = np.min([x.min(initial=0) for x in images]), np.max([x.max(initial=0) for x in images])
    top = next((top for top in _TOPS if low >= 0 and high <= top), None)
    if top is None:  # also when there is a NaN
        raise DataError(Problem(where, f"values from {low:g} to {high:g}", "numbers from 0 to 1, 16 or 255", "scale the images"))
    done = [np.rint(x * (255 / top)).astype(np.uint8) for x in images]
    detail = f"Values from {low:g} to {high:g} were taken as shades from 0 to {top:g}, and scaled to 0 to 255."
    return done, (Finding("scaled", IMAGE, sum(map(len, done)), detail, "kept"),)


def _labels(where: str, y: NDArray[Any], n: int) -> pa.Array:
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.shape != (n,) or y.dtype.kind not in "biufUS":
        raise DataError(Problem(where, f"{y.dtype} {y.shape}", f"one number or text for each of the {n} images"))
    return pa.array(y if y.dtype.kind in "biuf" else y.astype(str).tolist())


def _packed(pixels: Pixels) -> Iterator[pa.Array]:
    """Yield the rows as binary arrays over the same memory, each below the 2 GiB that Arrow's offsets can count."""
    size = int(np.prod(pixels.shape[1:]))
    rows = max(1, (1 << 30) // size)
    for start in range(0, len(pixels), rows):
        part = np.ascontiguousarray(pixels[start : start + rows])
        offsets = np.arange(len(part) + 1, dtype=np.int32) * size
        yield pa.Array.from_buffers(pa.binary(), len(part), [None, pa.py_buffer(offsets), pa.py_buffer(part)])
