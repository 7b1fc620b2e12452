"""Look at an HDF5 file inside the limited process: ``python -m makegood.families._hdf5 FILE`` writes what it found as `found.json`.

HDF5 is read by native code, and its format can send the reader to other files: that is why it is opened behind walls only, and why no
link is followed and no array is read here.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
from h5py import h5a, h5d, h5o, h5t, h5z

FOUND = "found.json"
TEXTS = ("model_config", "training_config")
MAX_OBJECTS, MAX_DEPTH = 100_000, 64
MAX_TEXT = 8 << 20
MAX_RATIO, FREE = 200, 1 << 20  # a packed array may unpack to 1 MiB, or to 200 times its size

_FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_LZF}
_PLAIN = {h5t.INTEGER, h5t.FLOAT, h5t.ENUM, h5t.STRING}
_TYPES = {h5t.COMPOUND: "compound", h5t.REFERENCE: "reference", h5t.OPAQUE: "opaque", h5t.VLEN: "variable-length", h5t.ARRAY: "array"}


class Unfit(Exception):
    """What is wrong with the file: where, what it is, and what was expected."""


def main(name: str) -> None:
    """Write `found.json`: {"unfit": [where, got, expected]}, or {"texts": {name: text of the root's attribute}}."""
    found: dict[str, Any]
    try:
        found = {"texts": look(Path(name))}
    except Unfit as unfit:
        found = {"unfit": list(unfit.args)}
    Path(FOUND).write_text(json.dumps(found), encoding="utf-8")


def look(path: Path) -> dict[str, str]:
    """Return the configurations that the root holds; raises `Unfit` where a file is more than plain arrays in plain groups."""
    with h5py.File(path, "r") as file:
        if file.userblock_size:
            raise Unfit("/", "another file in front of it", "an HDF5 file and nothing else")
        stored = declared = 0
        for where, thing in _objects(file):
            _check_attributes(thing, where)
            if isinstance(thing, h5py.Dataset):
                size, held = _check_array(thing, where)
                declared, stored = declared + size, stored + held
        if stored > path.stat().st_size:
            raise Unfit("/", f"arrays of {stored:,} bytes in a file of {path.stat().st_size:,}", "arrays that share no bytes")
        if declared > max(FREE, MAX_RATIO * stored):
            raise Unfit("/", f"arrays of {declared:,} bytes out of {stored:,}", f"at most {MAX_RATIO} times")
        return {name: text for name in TEXTS if name in file.attrs and (text := _text(file, name))}


def _objects(file: h5py.File) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """Yield each group and array once, with its path; only hard links are followed, and none twice."""
    stack: list[tuple[str, h5py.Group]] = [("", file["/"])]
    seen = {h5o.get_info(file.id).addr}
    yield "/", file["/"]
    while stack:
        base, group = stack.pop()
        if base.count("/") > MAX_DEPTH:
            raise Unfit(base[:200], "groups nested too deep", f"at most {MAX_DEPTH} levels")
        for name in group:
            where = f"{base}/{name}"
            if not name.isprintable() or "/" in name or name in ("", "."):  # a slash would lead elsewhere
                raise Unfit(base or "/", f"the name {name!r:.80}", "printable names without a slash")
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                kind = "a link to another file" if isinstance(link, h5py.ExternalLink) else "a link"
                raise Unfit(where, f"{kind} ({getattr(link, 'filename', '')} {getattr(link, 'path', '')})", "arrays in groups, no links")
            thing = group[name]
            if not isinstance(thing, h5py.Group | h5py.Dataset):
                raise Unfit(where, type(thing).__name__, "arrays in groups")
            address = h5o.get_info(thing.id).addr
            if address in seen:
                raise Unfit(where, "the same object under a second name", "each object once")
            seen.add(address)
            if len(seen) > MAX_OBJECTS:
                raise Unfit("/", f"more than {MAX_OBJECTS:,} objects", "a model's weights")
            yield where, thing
            if isinstance(thing, h5py.Group):
                stack.append((where, thing))


def _check_attributes(thing: h5py.Group | h5py.Dataset, where: str) -> None:
    for index in range(h5a.get_num_attrs(thing.id)):
        attribute = h5a.open(thing.id, index=index)
        place, kind = f"{where}, attribute {attribute.name.decode('utf-8', 'replace')}", attribute.get_type()
        if kind.get_class() not in _PLAIN:
            raise Unfit(place, f"{_TYPES.get(kind.get_class(), 'foreign')} type", "numbers and text")
        if math.prod(attribute.get_space().shape) * kind.get_size() > MAX_TEXT:
            raise Unfit(place, "more than 8 MiB", "a name or a number")


def _check_array(array: h5py.Dataset, where: str) -> tuple[int, int]:
    """Return (bytes declared, bytes stored) of an array that lies in this file as plain numbers or fixed-length text."""
    kind, made = array.id.get_type(), array.id.get_create_plist()
    if kind.get_class() not in _PLAIN or (isinstance(kind, h5t.TypeStringID) and kind.is_variable_str()):
        name = _TYPES.get(kind.get_class(), "variable-length" if kind.get_class() == h5t.STRING else "foreign")
        raise Unfit(where, f"an array of {name} type", "numbers or fixed-length text")
    if made.get_layout() == h5d.VIRTUAL:
        raise Unfit(where, "a virtual array, which is read out of other files", "arrays that lie in the file")
    if made.get_external_count():
        name, _, _ = made.get_external(0)
        raise Unfit(where, f"an array whose values lie in another file ({name.decode('utf-8', 'replace')})", "arrays that lie in the file")
    filters = {made.get_filter(i)[0] for i in range(made.get_nfilters())}
    if strange := filters - _FILTERS:
        raise Unfit(where, f"the filter {min(strange)}", "gzip, lzf and shuffle only")
    size, held = math.prod(array.id.shape) * kind.get_size(), array.id.get_storage_size()  # HDF5's own product may overflow
    if size > (max(FREE, MAX_RATIO * held) if filters else held):
        raise Unfit(where, f"an array of {size:,} bytes of which {held:,} are stored", "arrays that are stored whole")
    return size, held


def _text(file: h5py.File, name: str) -> str:
    value = file.attrs[name]
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if not isinstance(text, str) or not text.isascii() or len(text) > MAX_TEXT:  # Keras writes JSON in ASCII
        raise Unfit(f"/, attribute {name}", type(value).__name__, "JSON in ASCII of at most 8 MiB")
    return text


if __name__ == "__main__":
    main(sys.argv[1])
