"""A bundle's folder, read without trust and written whole or not at all.

A bundle is a folder of exactly the files named in `LIMITS`, those that are `OPTIONAL` where its manifest lists them.
`manifest.json` gives the size and SHA-256 of every other file, and the manifest's own SHA-256 is the model's hash. Reading takes
each file into memory once, verifies those bytes, and parses the same bytes: nothing is looked up by a name that a file contains,
nothing is unpickled, nothing is executed before everything agreed.

The hashes tell damage, and a change made without knowing the format. Against a forger who recomputes them there are the golden
rows (`makegood.model`) and the checks of each format below; who made a bundle is told by a signature, which is not built yet.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from makegood.errors import BundleError, Problem

FORMAT = 1
MANIFEST = "manifest.json"
_MIB = 1 << 20
LIMITS = {
    MANIFEST: _MIB // 4,
    "case.json": _MIB,
    "transform.json": 64 * _MIB,
    "scorer.onnx": 1024 * _MIB,
    "scorer.json": 16 * _MIB,
    "policy.json": 16 * _MIB,
    "golden.json": 64 * _MIB,
    "background.json": 16 * _MIB,
    "card.md": 4 * _MIB,
    "reference.json": 16 * _MIB,
    "optimise.json": _MIB,
}
"""The files of a bundle, and the most bytes that each may have."""

OPTIONAL = frozenset({"reference.json", "optimise.json"})
"""Files that a bundle may lack, and those of earlier versions do; the manifest says which are there."""

MAX_DEPTH = 32  # of nested lists and maps in a JSON file
DOMAINS = ("", "ai.onnx", "ai.onnx.ml")  # operators that ONNX itself defines
REFUSED_OPERATORS = ("Loop", "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
"""Operators without an end of their own, or whose result is not a function of the row."""

REMAKE = "make the bundle again with `makegood run`, or fetch an undamaged copy"


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the manifest says of one file."""

    sha256: str
    bytes: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `manifest.json` holds; `created` is an ISO time in UTC, `seal` the SHA-256 of the manifest with an empty seal."""

    format: int
    makegood: str
    case: str
    created: str
    verdict: str
    files: dict[str, FileEntry]
    seal: str = ""

    def sealed(self) -> bytes:
        """Return the bytes of `manifest.json`."""
        return dump_json(msgspec.to_builtins(self) | {"seal": sha256(dump_json(msgspec.to_builtins(self) | {"seal": ""}))})


@dataclass(frozen=True)
class Contents:
    """The verified bytes of a bundle: `hash` is the SHA-256 of its manifest."""

    folder: Path
    manifest: Manifest
    hash: str
    files: Mapping[str, bytes]

    def json(self, name: str) -> Any:
        """Return the value of one JSON file; raises `BundleError`."""
        return parse_json(self.files[name], str(self.folder / name))


def read(folder: Path) -> Contents:
    """Return the files of a bundle after checking names, kinds, sizes and hashes; raises `BundleError` with every finding."""
    problems: list[Problem] = []
    try:
        for entry in os.scandir(folder):
            problems += _entry_problems(entry)
        present = {entry.name for entry in os.scandir(folder)}
    except OSError as error:
        raise BundleError(
            Problem(str(folder), error.strerror or type(error).__name__, "a bundle's folder", "give the folder that holds manifest.json")
        ) from None
    problems += _missing(folder, LIMITS.keys() - OPTIONAL - present)
    if problems:
        raise BundleError(*problems)
    data = _bytes(folder / MANIFEST)
    manifest = parse_manifest(data, str(folder / MANIFEST))
    problems += _missing(folder, manifest.files.keys() - present)
    for name in sorted(present - manifest.files.keys() - {MANIFEST}):
        problems.append(Problem(str(folder / name), "a file that the manifest does not list", "only those that it lists", REMAKE))
    if problems:
        raise BundleError(*problems)
    files = {name: _bytes(folder / name) for name in LIMITS if name in manifest.files}
    for name, content in files.items():
        entry_ = manifest.files[name]
        for what, got, expected in (("bytes", len(content), entry_.bytes), ("SHA-256", sha256(content), entry_.sha256)):
            if got != expected:
                problems.append(Problem(str(folder / name), f"{what} {got}", f"{expected}, as the manifest says", REMAKE))
                break
    if problems:
        raise BundleError(*problems)
    return Contents(folder, manifest, sha256(data), files)


def _missing(folder: Path, names: Set[str]) -> list[Problem]:
    return [Problem(str(folder / name), "no such file", "a complete bundle", REMAKE) for name in LIMITS if name in names]


def _entry_problems(entry: os.DirEntry[str]) -> Iterator[Problem]:
    status = entry.stat(follow_symlinks=False)
    if entry.name not in LIMITS:
        yield Problem(entry.path, "a file that belongs to no bundle", f"only {', '.join(LIMITS)}", "remove it, or fetch an undamaged copy")
    elif not stat.S_ISREG(status.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no regular file"
        yield Problem(entry.path, kind, "a regular file", REMAKE)
    elif status.st_size > LIMITS[entry.name]:
        yield Problem(entry.path, f"{status.st_size} bytes", f"at most {LIMITS[entry.name]}", REMAKE)


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LIMITS[path.name] + 1)
    except OSError as error:
        raise BundleError(Problem(str(path), error.strerror or type(error).__name__, "a readable file", "see its permissions")) from None


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Return the manifest; raises `BundleError` when it is malformed or of a format that this version does not read."""
    raw = parse_json(data, where)
    found = raw.get("format") if isinstance(raw, dict) else None
    if found != FORMAT:
        raise BundleError(
            Problem(where, f"format {found}", f"format {FORMAT}", "use the makegood version that made it, or run the case again")
        )
    try:
        manifest = msgspec.convert(raw, Manifest)
    except msgspec.ValidationError as error:
        raise BundleError(Problem(where, str(error), "a manifest", REMAKE)) from None
    if manifest.sealed() != data:
        raise BundleError(Problem(where, f"seal {manifest.seal}", "the seal of this manifest, byte by byte", REMAKE))
    listed = set(manifest.files)
    if odd_ := (listed ^ (LIMITS.keys() - {MANIFEST})) - OPTIONAL:
        odd = ", ".join(sorted(odd_))
        raise BundleError(Problem(where, f"files: {odd}", "exactly a bundle's files", REMAKE))
    return manifest


def write(target: Path, files: Mapping[str, bytes], *, makegood: str, case: str, verdict: str) -> None:
    """Make the bundle `target`, which must not exist yet: written beside it, flushed to the disk, then renamed.

    Raises `BundleError` and leaves nothing behind when the disk is full, the folder is forbidden, or the target exists.
    """
    if os.path.lexists(target):
        raise BundleError(Problem(str(target), "something that exists", "a new folder", "remove it, or choose another name"))
    entries = {name: FileEntry(sha256(content), len(content)) for name, content in files.items()}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = Manifest(FORMAT, makegood, case, created, verdict, entries)
    whole = {**files, MANIFEST: manifest.sealed()}
    for name, content in whole.items():
        if len(content) > LIMITS[name]:
            raise BundleError(Problem(str(target / name), f"{len(content)} bytes", f"at most {LIMITS[name]}", "train a smaller model"))
    partial = target.parent / f".{target.name}.{secrets.token_hex(8)}.partial"
    try:
        partial.mkdir(parents=True)
        for name, content in whole.items():
            with (partial / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync_folder(partial)
        partial.rename(target)
        _sync_folder(target.parent)
    except OSError as error:
        mend = "free space or mend permissions, and run again"
        raise BundleError(Problem(str(target), error.strerror or type(error).__name__, "a folder that can be written", mend)) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened; the rename is still whole or not at all
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal.

    >>> sha256(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


# ------------------------------------------------------------------------------------------------------------------- JSON


def dump_json(value: Any) -> bytes:
    """Return JSON in UTF-8 from which `parse_json` gives the same value, floats to the last bit; refuses NaN and infinity."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1).encode()


def parse_json(data: bytes, where: str) -> Any:
    """Return the value of strict JSON: UTF-8, no key twice, no NaN or infinity, at most `MAX_DEPTH` deep; raises `BundleError`.

    >>> parse_json(b'{"a": [1, 2.5]}', "here")
    {'a': [1, 2.5]}
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise BundleError(Problem(where, str(error), "strict JSON", REMAKE)) from None
    depth = deepest = 0
    for token in _BRACKETS.finditer(data):  # after parsing, so that every string is known to end
        depth += {0x7B: 1, 0x5B: 1, 0x7D: -1, 0x5D: -1}.get(token[0][0], 0)
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise BundleError(Problem(where, f"{deepest} nested levels", f"at most {MAX_DEPTH}", REMAKE))
    return value


_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+"|[][{}]', re.DOTALL)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise ValueError(f"the key {key!r} twice")
        out[key] = value
    return out


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]}")
    return value


def _integer(text: str) -> int:
    if len(text) > 300:  # beyond what a float can hold, where readers would overflow
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


# ------------------------------------------------------------------------------------------------------------------- ONNX

# Message → field number → what lies there: another message, or a check by name. The numbers are those of onnx.proto; fields left
# out carry nothing that could reach outside the model.
_ONNX: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 20: "!training information", 25: "!local functions"},
    "opset": {1: "domain"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {4: "operator", 5: "attribute", 7: "domain"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {13: "!external data", 14: "location"},
}
# Trees are stored as millions of one-number fields of an attribute (floats 7, ints 8, strings 9): runs of them are skipped at once.
_NUMBERS = re.compile(
    rb"(?:\x3d.{4}|\x40[\x80-\xff]{0,9}[\x00-\x7f]|\x4a(?:" + b"|".join(re.escape(bytes([n])) + b".{%d}" % n for n in range(32)) + rb"))++",
    re.DOTALL,
)


def check_onnx(data: bytes, where: str) -> None:
    """Raise `BundleError` unless the model is whole in itself.

    That is: no tensor in another file, no operator outside `DOMAINS` (custom ones are code), none of `REFUSED_OPERATORS`, no
    functions or training graphs of its own. The protocol-buffer wire format is walked here, since loading must not need `onnx`.
    """
    try:
        for found in _findings(memoryview(data), "model", 0):
            raise BundleError(Problem(where, found, "an ONNX model of standard operators with all its weights inside", REMAKE))
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise BundleError(Problem(where, str(error), "an ONNX model", REMAKE)) from None


def _findings(data: memoryview, message: str, depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        raise ValueError("graphs nested too deep")
    for field, value in _wire(data, runs=message == "attribute"):
        kind = _ONNX[message].get(field)
        if kind is None:
            continue
        if kind.startswith("!"):
            yield kind[1:]
        elif kind == "location":
            if value != 0:
                yield "a tensor that lies outside the file"
        elif not isinstance(value, memoryview):
            raise ValueError(f"field {field} of {message} has the wrong wire type")
        elif kind == "domain":
            if (name := str(value, "utf-8")) not in DOMAINS:
                yield f"operators of the domain {name!r}"
        elif kind == "operator":
            if (name := str(value, "utf-8")) in REFUSED_OPERATORS:
                yield f"the operator {name}"
        else:
            yield from _findings(value, kind, depth + 1)


def _wire(data: memoryview, *, runs: bool) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value) of each field of a message; raises ValueError or IndexError when the bytes are malformed."""
    at, end = 0, len(data)
    while at < end:
        if runs and (run := _NUMBERS.match(data, at)):
            at = run.end()
            continue
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > end:
            raise ValueError("a field that is cut off")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")
