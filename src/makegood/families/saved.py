"""Is a file a Keras model that may be opened? Told by looking at it, before Keras sees it: nothing in it is run, unpickled or followed.

Two formats are read: Keras 3's archive (.keras) and the older HDF5 file (.h5). Every other way to save a model is refused by its name.
An archive and its JSON are judged here, in plain Python; HDF5, which only native code can read, is judged inside a limited process.
Check a copy in a folder of your own, and open that copy: a file elsewhere may be another one a moment later.
"""

from __future__ import annotations

import json
import re
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from makegood.errors import CaseError, MissingExtra, Problem, Refused
from makegood.families import limited
from makegood.families._keras_config import MAX_BYTES, check_model, check_objects, parse

MAX_FILE = 2 << 30
MAX_RATIO, FREE = 200, 1 << 20
CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
EXPECTED = "a Keras model in one file (.keras, or .h5 in the older format)"
AS_KERAS = "save it with model.save('NAME.keras')"

_HDF5 = b"\x89HDF\r\n\x1a\n"
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, OverflowError, RuntimeError, ValueError, OSError)
_SECONDS, _MEMORY = 20.0, 1 << 30
_FLAGS = 0x0006 | 0x0008 | 0x0800  # how hard it was packed, sizes after the data, names in UTF-8
_FORMATS = (  # how a file starts → what it is
    (re.compile(rb"\x80[\x00-\x05]|\(?c[\w.]+\n[\w.]+\n|\((dp|lp|i\w)|[\]}]q\x00"), "a pickle, which runs code when it is opened"),
    (re.compile(rb"\x93NUMPY"), "a NumPy array"),
    (re.compile(rb"\x1f\x8b|BZh|\xfd7zXZ|x[\x01\x5e\x9c\xda]|\x04\x22\x4d\x18"), "a compressed file, such as joblib writes (a pickle)"),
    (re.compile(rb".{257}ustar", re.DOTALL), "a tar archive, such as older versions of torch write (pickles)"),
    (re.compile(rb".{4}TFL3", re.DOTALL), "a TensorFlow Lite model"),
    (re.compile(rb"GGUF"), "a GGUF file"),
    (re.compile(rb".{8}\{\s*\"", re.DOTALL), "a safetensors file: weights without a model"),
)


def check(path: Path) -> str:
    """Return "keras" (an archive of Keras 3) or "h5" (the older HDF5 file) for a saved model that may be opened.

    Raises `Refused` where the file is hostile, of a kind that runs code, or larger than a model may be; `CaseError` where there is no
    file, or something else altogether; `MissingExtra` where h5py is not there to look at weights.
    """
    head = _head(path)
    if head.startswith(b"PK\x03\x04"):
        with path.open("rb") as stream:
            _check_archive(path.name, stream)
        return "keras"
    if head.startswith(_HDF5):
        _check_hdf5(path)
        return "h5"
    if name := next((name for start, name in _FORMATS if start.match(head)), ""):
        raise Refused(Problem(path.name, name, EXPECTED, AS_KERAS))
    raise CaseError(Problem(path.name, "a file of another kind" if head else "an empty file", EXPECTED, AS_KERAS))


def _head(path: Path) -> bytes:
    """Return the first bytes of a file that is there, is plain, and is not too large."""
    try:
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            saved = (path / "saved_model.pb").exists() or (path / "saved_model.pbtxt").exists()
            got = "a TensorFlow SavedModel, whose graph is a program" if saved else "a folder"
            raise (Refused if saved else CaseError)(Problem(path.name, got, EXPECTED, AS_KERAS))
        if not stat.S_ISREG(about.st_mode):
            raise CaseError(Problem(path.name, "a device or a pipe", EXPECTED))
        with path.open("rb") as stream:
            head = stream.read(1024)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise CaseError(Problem(str(path), f"no file that can be read ({error})", EXPECTED, "is the path right?")) from None
    if about.st_size > MAX_FILE:
        raise Refused(Problem(path.name, f"{about.st_size / 2**30:.1f} GiB", f"at most {MAX_FILE >> 30} GiB", "a smaller model"))
    return head


# ---------------------------------------------------------------------------------------------------------------- archive


def _check_archive(name: str, stream: IO[bytes]) -> None:
    try:
        with zipfile.ZipFile(stream) as pack:
            members = _members(name, pack, stream)
            parse(_read(pack, members[METADATA]), f"{name}, {METADATA}")
            check_model(parse(_read(pack, members[CONFIG]), f"{name}, {CONFIG}"), f"{name}, {CONFIG}", legacy=False)
            _need_h5py(name)
            with tempfile.TemporaryDirectory() as folder:
                with pack.open(members[WEIGHTS]) as packed, Path(folder, "weights.h5").open("wb") as out:
                    shutil.copyfileobj(packed, out, 1 << 20)  # zipfile stops at the declared size, and compares the checksum
                _look(f"{name}, {WEIGHTS}", Path(folder))
    except _DAMAGED as error:
        got = f"a damaged archive ({str(error)[:120]})"
        raise Refused(Problem(name, got, EXPECTED, "copy or save it again")) from None


def _members(name: str, pack: zipfile.ZipFile, stream: IO[bytes]) -> dict[str, zipfile.ZipInfo]:
    """Return the three members of an archive of Keras; raises `Refused` where there is anything else in the file, even between them."""
    infos = pack.infolist()
    names = [info.filename for info in infos]
    _recognise(name, names)
    for info in infos:
        where = f"{name}, {_printable(info.filename)}"
        if info.filename not in (CONFIG, METADATA, WEIGHTS) or info.filename != info.orig_filename:
            raise Refused(Problem(where, _strange(info), f"{METADATA}, {CONFIG} and {WEIGHTS}", AS_KERAS))
        mode = info.external_attr >> 16
        if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
            raise Refused(Problem(where, "a link or a device", "a plain file"))
        if info.flag_bits & ~_FLAGS:
            raise Refused(Problem(where, "an encrypted or patched member", "a plain file"))
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refused(Problem(where, f"compression method {info.compress_type}", "stored or deflated"))
        if info.file_size > MAX_FILE:
            raise Refused(Problem(where, f"{info.file_size / 2**30:.1f} GiB unpacked", f"at most {MAX_FILE >> 30} GiB"))
        if info.file_size > max(FREE, MAX_RATIO * info.compress_size):
            got = f"{info.file_size:,} bytes out of {info.compress_size:,}"
            raise Refused(Problem(where, got, f"at most {MAX_RATIO} times", "a file that unpacks to so much is a trap"))
    if len(set(names)) != len(names):
        raise Refused(Problem(name, "two members of one name", "each member once"))
    if missing := sorted({CONFIG, METADATA, WEIGHTS} - set(names)):
        raise Refused(Problem(name, f"no {', '.join(missing)}", EXPECTED, AS_KERAS))
    _check_layout(name, pack, stream)
    return dict(zip(names, infos, strict=True))


def _recognise(name: str, names: list[str]) -> None:
    if any(member.endswith(".pkl") for member in names):
        got = "a torch file: it holds a pickle, which runs code when it is opened"
        raise Refused(Problem(name, got, EXPECTED, "build the module in Python and wrap it, with weights from safetensors"))
    if names and all(member.endswith(".npy") for member in names):
        raise Refused(Problem(name, "NumPy arrays (.npz)", EXPECTED, AS_KERAS))
    if CONFIG not in names:
        raise Refused(Problem(name, "an archive of something else", EXPECTED, AS_KERAS))


def _printable(name: str) -> str:
    """Return a name that a hostile file chose, fit for a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in name[:120])


def _strange(info: zipfile.ZipInfo) -> str:
    member = info.orig_filename
    if member.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", member) or ".." in re.split(r"[/\\]", member):
        return "a name that leaves the archive"
    if member.endswith(".npz"):
        return "weights as NumPy arrays"
    return "a member that a model has no use for"


def _check_layout(name: str, pack: zipfile.ZipFile, stream: IO[bytes]) -> None:
    """Raise `Refused` unless the members fill the file, one after the other, under the names that the directory gives them."""
    size = stream.seek(0, 2)
    stream.seek(max(0, size - 22))
    end = stream.read(22)
    length, start, comment = struct.unpack("<IIH", end[12:22]) if end.startswith(b"PK\x05\x06") else (0, 0, 1)
    if comment or start + length + 22 != size or start != pack.start_dir:
        raise Refused(Problem(name, "bytes before, between or behind the archive", "an archive and nothing else", "copy or save it again"))
    position = 0
    for info in sorted(pack.infolist(), key=lambda info: info.header_offset):
        stream.seek(info.header_offset)
        head = stream.read(30)
        if len(head) != 30 or head[:4] != b"PK\x03\x04":
            raise Refused(Problem(name, f"no member where {info.filename} should be", "a whole archive", "copy or save it again"))
        flags, method = struct.unpack("<HH", head[6:10])
        n_name, n_extra = struct.unpack("<HH", head[26:30])
        label = stream.read(n_name)
        if (flags, method, label) != (info.flag_bits, info.compress_type, info.filename.encode()):
            raise Refused(Problem(f"{name}, {info.filename}", "another name or form in its own header", "the same in both"))
        if info.header_offset != position:
            raise Refused(Problem(f"{name}, {info.filename}", "members that overlap, or hidden bytes", "one member after the other"))
        position = info.header_offset + 30 + n_name + n_extra + info.compress_size
        if flags & 0x0008:
            position += _descriptor(stream, position, info)
    if position != start:
        raise Refused(Problem(name, "hidden bytes before the directory", "one member after the other"))


def _descriptor(stream: IO[bytes], position: int, info: zipfile.ZipInfo) -> int:
    """Return the length of the sizes that follow a member's data."""
    stream.seek(position)
    found = stream.read(24)
    for form in ("<4sIII", "<4sIQQ"):
        if found[: struct.calcsize(form)] == struct.pack(form, b"PK\x07\x08", info.CRC, info.compress_size, info.file_size):
            return struct.calcsize(form)
    raise zipfile.BadZipFile(f"no sizes behind {info.filename}")


def _read(pack: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with pack.open(info) as stream:
        return stream.read(MAX_BYTES + 1)  # `parse` refuses what is longer


# ------------------------------------------------------------------------------------------------------------------- HDF5


def _need_h5py(name: str) -> None:
    if find_spec("h5py") is None:
        raise MissingExtra(Problem(name, "", "h5py, which reads the weights of Keras models", "pip install 'makegood[keras]'"))


def _check_hdf5(path: Path) -> None:
    _need_h5py(path.name)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(path, Path(folder, "weights.h5"))
        texts = _look(path.name, Path(folder))
    if "model_config" not in texts:
        raise CaseError(Problem(path.name, "weights without a model", EXPECTED, AS_KERAS))
    for name, text in texts.items():
        where = f"{path.name}, {name}"
        config = parse(text.encode(), where)
        if name == "model_config":
            check_model(config, where, legacy=True)
        else:
            check_objects(config, where, legacy=True)


def _look(where: str, folder: Path) -> dict[str, str]:
    """Return the texts at the root of `weights.h5` in a folder, after a look at the whole file inside a limited process."""
    environment = {"OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}  # HDF5's word for: load no plug-in
    try:
        limited.run("makegood.families._hdf5", ["weights.h5"], folder=folder, seconds=_SECONDS, memory=_MEMORY, env=environment)
    except Refused as error:
        got = f"a file that HDF5 cannot read ({error.problems[0].got})"
        raise Refused(Problem(where, got, EXPECTED, "copy or save it again")) from None
    try:
        found = json.loads(limited.result(folder / "found.json", 8 * MAX_BYTES))
    except ValueError:
        found = None
    match found:
        case {"unfit": [str(place), str(got), str(expected)]}:
            raise Refused(Problem(f"{where}, {_printable(place)}", got[:200], expected, AS_KERAS))
        case {"texts": dict(texts)} if all(isinstance(text, str) and text.isascii() for text in texts.values()):
            return texts
    raise Refused(Problem(where, "an answer that the reader of HDF5 does not give", EXPECTED, "the file is damaged or hostile"))
