"""A corpus of hostile model files, made by code, and one harmless model to start from.

Whatever runs code here would do one thing: make a file called `CANARY` in the working folder. Whatever reads where it should not would
read a file called `secret` beside the model. Only zipfile, json, pickle and h5py are needed; nothing of Keras is.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import marshal
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

CANARY = "CANARY"
SECRET = "secret"


class Bomb:
    """A pickle of it makes the canary."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (CANARY, "w")


def code() -> str:
    """Return the code of a function that makes the canary, as Keras writes a Lambda's."""

    def fire(x: Any) -> Any:
        open("CANARY", "w").close()
        return x

    return base64.b64encode(marshal.dumps(fire.__code__)).decode()


# ---------------------------------------------------------------------------------------------------------------- benign


def thing(module: str | None, class_name: str, config: Any, **more: Any) -> dict[str, Any]:
    """Return an object as Keras writes it."""
    return {"module": module, "class_name": class_name, "config": config, "registered_name": None, **more}


def layer(class_name: str, **config: Any) -> dict[str, Any]:
    """Return a layer as Keras writes it."""
    dtype = thing("keras", "DTypePolicy", {"name": "float32"})
    return thing("keras.layers", class_name, {"name": class_name.lower(), "trainable": True, "dtype": dtype, **config})


def function(name: str, module: str = "builtins", registered: str = "function") -> dict[str, Any]:
    """Return a function as Keras writes it."""
    return thing(module, "function", name, registered_name=registered)


def model(*extra: Any, loss: Any = "mse", legacy: bool = False) -> dict[str, Any]:
    """Return the configuration of a compiled model of four features, with more layers at its end."""
    zeros, glorot = thing("keras.initializers", "Zeros", {}), thing("keras.initializers", "GlorotUniform", {"seed": 2**40})
    dense = layer("Dense", units=1, activation="relu", use_bias=True, kernel_initializer=glorot, bias_initializer=zeros)
    start = thing("keras.layers", "InputLayer", {"batch_shape": [None, 4], "dtype": "float32", "name": "in"})
    adam = thing("keras.src.backend.torch.optimizers.torch_adam", "Adam", {"learning_rate": 0.001}, registered_name="Adam")
    whole = thing("keras", "Sequential", {"name": "model", "layers": [start, dense, *extra]}, build_config={"input_shape": [None, 4]})
    whole["compile_config"] = {"optimizer": adam, "loss": loss, "metrics": ["accuracy"], "jit_compile": False}
    if legacy:
        whole = json.loads(json.dumps(whole), object_hook=lambda found: {k: v for k, v in found.items() if k not in _NEWER})
    return whole


_NEWER = {"module", "registered_name", "compile_config", "build_config"}


def hdf5(fill: Callable[[h5py.File], object] = lambda file: None, **options: Any) -> bytes:
    """Return an HDF5 file of the model's weights, with something more in it."""
    out = io.BytesIO()
    with h5py.File(out, "w", **options) as file:
        group = file.create_group("layers/dense/vars")
        group.attrs["name"] = "dense"
        group["0"], group["1"] = np.ones((4, 1), np.float32), np.zeros(1, np.float32)
        fill(file)
    return out.getvalue()


def legacy(config: Any, fill: Callable[[h5py.File], object] = lambda file: None, training: Any = None) -> bytes:
    """Return a model in the older format."""

    def whole(file: h5py.File) -> None:
        file.attrs["model_config"] = json.dumps(config)
        adam = {"class_name": "Adam", "config": {"learning_rate": 0.001}}
        compiled = {"loss": "mean_squared_error", "loss_weights": None, "metrics": [["accuracy"]], "optimizer_config": adam}
        file.attrs["training_config"] = json.dumps(compiled | (training or {}))
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"], weights.attrs["backend"] = [b"dense"], "torch"
        dense = weights.create_group("dense")
        dense.attrs["weight_names"] = [b"dense/kernel", b"dense/bias"]
        dense["dense/kernel"], dense["dense/bias"] = np.ones((4, 1), np.float32), np.zeros(1, np.float32)
        fill(file)

    return hdf5(whole)


def archive(config: Any = None, weights: bytes | None = None, method: int = zipfile.ZIP_STORED, **more: bytes) -> bytes:
    """Return an archive of Keras: `config` is an object, or the text itself."""
    out = io.BytesIO()
    text = config if isinstance(config, bytes) else json.dumps(config or model()).encode()
    with zipfile.ZipFile(out, "w", method) as pack:
        pack.writestr("metadata.json", '{"keras_version": "3.12.0", "date_saved": "2026-01-01@00:00:00"}')
        pack.writestr("config.json", text)
        pack.writestr("model.weights.h5", hdf5() if weights is None else weights)
        for name, data in more.items():
            pack.writestr(name, data)
    return out.getvalue()


# --------------------------------------------------------------------------------------------------------------- hostile


@dataclass(frozen=True)
class Hostile:
    """A hostile file: its name, what makes it (bytes, or files in a folder), and what the refusal must say."""

    name: str
    make: Callable[[], bytes | dict[str, bytes]]
    says: str

    def write(self, folder: Path) -> Path:
        """Return the file, or folder, written into a folder."""
        path, made = folder / self.name, self.make()
        if isinstance(made, bytes):
            path.write_bytes(made)
            return path
        for name, data in made.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        return path


def _config(name: str, says: str, config: Any) -> Hostile:
    return Hostile(f"{name}.keras", lambda: archive(config), says)


def _deep(levels: int) -> bytes:
    return b'{"module": "keras", "class_name": "Sequential", "config": {"layers": ' + b"[" * levels + b"]" * levels + b"}}"


_LAMBDA = layer("Lambda", function={"class_name": "__lambda__", "config": {"code": code(), "defaults": None, "closure": None}})
_VALUE = {"args": [{"class_name": "__numpy__", "config": {"value": [1], "dtype": "object"}}], "kwargs": {}}


def _hidden(**more: Any) -> dict[str, Any]:
    return model(layer("Dense", units=1) | more)


def _with(**changes: Any) -> dict[str, Any]:
    changed = model()
    changed["config"]["layers"][1].update(changes)
    return changed


CONFIGURATIONS = [
    _config("lambda", r"layers\[2\]: got 'Lambda \(it carries Python code\)'", model(_LAMBDA)),  # CVE-2024-3660
    _config("lambda-in-activation", "__lambda__", model(layer("Activation", activation={"class_name": "__lambda__", "config": {"value": code()}}))),
    _config("lambda-in-loss", r"compile_config.loss: got '__lambda__.*; save a clone", model(loss={"class_name": "__lambda__", "config": {"value": code()}})),
    _config("lambda-in-build", r"build_config.shape: got '__lambda__", _hidden(build_config={"shape": {"class_name": "__lambda__", "config": {}}})),
    _config("lambda-in-a-call", r"kwargs.mask: got '__lambda__", _hidden(inbound_nodes=[{"args": [], "kwargs": {"mask": {"class_name": "__lambda__", "config": {}}}}])),
    _config("module-os", r"layers\[2\]: got 'system'", model(function("system", "os", "system"))),  # CVE-2025-1550
    _config("module-of-a-layer", r"module: got 'os'; expected one of keras.layers", _with(module="os")),
    _config("module-inside-keras", "module: got 'keras.src.layers.core.dense'", _with(module="keras.src.layers.core.dense")),
    _config("module-missing", "module: got 'None'", _with(module=None)),
    _config("module-is-a-list", "module: got", _with(module=["keras.layers"])),
    _config("get-file", r"got 'get_file'", model(function("get_file", "keras.utils", "get_file"))),  # CVE-2025-8747
    _config("get-file-as-a-class", r"got 'get_file'", model(thing("keras.utils", "get_file", {"fname": "x", "origin": f"file://{SECRET}"}))),
    _config("unsafe-switch", "got 'enable_unsafe_deserialization'", model(function("enable_unsafe_deserialization", "keras.config"))),  # CVE-2025-9906
    _config("saved-model-layer", "got 'TFSMLayer", model(layer("TFSMLayer", filepath="elsewhere"))),
    _config("torch-module", "it carries a pickle", model(layer("TorchModuleWrapper", module=base64.b64encode(pickle.dumps(Bomb())).decode()))),  # CVE-2025-49655
    _config("jax", "got 'JaxLayer", model(layer("JaxLayer", call_fn={"class_name": "__lambda__", "config": {"value": code()}}))),
    _config("flax", "got 'FlaxLayer", model(layer("FlaxLayer", module=code()))),
    _config("vocabulary-path", r"got 'StringLookup \(it opens a file\)'", model(layer("StringLookup", vocabulary=f"./{SECRET}"))),  # CVE-2025-12058
    _config("vocabulary-address", "got 'TextVectorization", model(layer("TextVectorization", vocabulary="http://127.0.0.1:9/v.txt"))),
    _config("vocabulary-of-numbers", "got 'IntegerLookup", model(layer("IntegerLookup", vocabulary=f"/{SECRET}"))),
    _config("bytes", r"got '__bytes__ \(it carries bytes", model(layer("Dense", units={"class_name": "__bytes__", "config": {"value": code()}}))),
    _config("type-by-name", "got '__typespec__", model({"class_name": "__typespec__", "spec_name": "x", "module": "os", "registered_name": None, "config": []})),
    _config("objects-in-an-array", "got '__numpy__'", _hidden(inbound_nodes=[_VALUE])),
    _config("registered", "registered_name: got 'evil>Dense'", _with(registered_name="evil>Dense")),
    _config("unknown-class", "got 'Evil'", model(layer("Evil"))),
    _config("class-is-a-list", r'got "\[', model(layer("Dense") | {"class_name": ["Dense"]})),
    _config("subclass", "got 'MyModel'; expected Sequential or Functional", thing("keras", "MyModel", {})),
    _config("not-a-model", "got 'list'", [1, 2]),
    _config("function-by-a-text", "activation: got 'get_file'", model(layer("Dense", activation="get_file"))),
    _config("loss-by-a-text", r"compile_config.loss.out: got 'exec'", model(loss={"out": "exec"})),
    _config("path", r"name: got '/etc/passwd'; expected no path", model(layer("Dense") | {"name": "/etc/passwd"})),
    _config("parent-folder", r"got 'a/../../b'", model(layer("Dense", units="a/../../b"))),
    _config("address", "got 'https://evil.example/x'", model(layer("Dense", units="https://evil.example/x"))),
    _config("control-letters", r"expected printable text", model(layer("Dense", units="\x1b[2J"))),
    _config("long-text", r"expected printable text of at most 1,000", model(layer("Dense", units="A" * 1001))),
    _config("deep", "nested too deep", _deep(200)),
    _config("deeper", "nested too deep", _deep(100_000)),
    _config("not-a-number", "NaN is no number", b'{"class_name": "Sequential", "config": NaN}'),
    _config("infinite", "got 'inf'", b'{"module": "keras", "class_name": "Sequential", "config": {"x": 1e999}}'),
    _config("repeated-key", "a key stands twice", b'{"class_name": "Sequential", "class_name": "Lambda", "config": {}}'),
    _config("huge-number", "expected sizes up to", model(layer("Dense", units=2**31 + 1))),
    _config("many-digits", "not strictly JSON", b'{"config": ' + b"9" * 10_000 + b"}"),
    _config("many-layers", "more than 2,000 layers", model(*[layer("Flatten")] * 2_001)),
    _config("many-values", "more than 200,000 values", model(layer("Dense", units=[0] * 200_000))),
    _config("long-json", "expected at most 8 MiB", b'{"x": "' + bytes(range(40, 91)) * 165_000 + b'"}'),
    _config("utf-16", "not strictly JSON", json.dumps(model(_LAMBDA)).encode("utf-16")),
]  # fmt: skip


def _entry(name: str, **fields: Any) -> bytes:
    """Return an archive in which the member `config.json` goes by another name, or has other fields."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as pack:
        for member, data in {"metadata.json": b"{}", "config.json": json.dumps(model()).encode(), "model.weights.h5": hdf5()}.items():
            info = zipfile.ZipInfo(name if member == "metadata.json" else member)
            for field, value in fields.items() if member == "metadata.json" else ():
                setattr(info, field, value)
            pack.writestr(info, data)
    return out.getvalue()


def _added(name: str) -> bytes:
    return archive(**{name: b"x"})


def _patched(where: int, change: Callable[[bytes], bytes], length: int = 2, local: bool = False) -> bytes:
    """Return an archive with a field of the last member changed, in the directory or in its own header."""
    data = bytearray(archive())
    start = data.rindex(b"PK\x03\x04" if local else b"PK\x01\x02") + where
    data[start : start + length] = change(bytes(data[start : start + length]))
    return bytes(data)


def _duplicate() -> bytes:
    first, out = archive(), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(first)) as pack, zipfile.ZipFile(out, "w") as twice:
        for info in pack.infolist():
            twice.writestr(info, pack.read(info))
        copied = copy.copy(pack.getinfo("config.json"))
        copied.filename = "config.jsoX"
        twice.writestr(copied, json.dumps(model(_LAMBDA)))
    return out.getvalue().replace(b"config.jsoX", b"config.json")


def _overlap() -> bytes:
    """Return an archive whose first member is told to reach into the second."""
    data = bytearray(archive())
    start = data.index(b"PK\x01\x02")
    size = struct.unpack("<I", data[start + 20 : start + 24])[0] + 40
    data[start + 20 : start + 28] = struct.pack("<II", size, size)
    return bytes(data)


def _gap() -> bytes:
    """Return an archive with bytes between its last member and its directory that belong to no one."""
    data = archive()
    start = data.index(b"PK\x01\x02")
    moved = data[:start] + b"hidden" + data[start:]
    return moved[:-6] + struct.pack("<I", start + 6) + moved[-2:]


ARCHIVES = [
    Hostile("leaves.keras", lambda: _added("../../evil.py"), "a name that leaves the archive"),
    Hostile("absolute.keras", lambda: _added("/etc/evil"), "a name that leaves the archive"),
    Hostile("drive.keras", lambda: _added("C:\\evil.dll"), "a name that leaves the archive"),
    Hostile("assets.keras", lambda: _added("assets/layers/lookup/vocabulary.txt"), "a member that a model has no use for"),
    Hostile("npz-weights.keras", lambda: _added("model.weights.npz"), "weights as NumPy arrays"),
    Hostile("nul-in-a-name.keras", lambda: archive(**{"evilXsh": b""}).replace(b"evilXsh", b"evil\0sh"), "no use for"),
    Hostile("link.keras", lambda: _entry("metadata.json", external_attr=0o120777 << 16), "a link or a device"),
    Hostile("lzma.keras", lambda: _entry("metadata.json", compress_type=zipfile.ZIP_LZMA), "compression method 14"),
    Hostile("encrypted.keras", lambda: _patched(8, lambda _: b"\1\0"), "an encrypted or patched member"),
    Hostile("twice.keras", _duplicate, "two members of one name"),
    Hostile("no-weights.keras", lambda: _zipped(**{"config.json": json.dumps(model()).encode()}), "no metadata.json, model.weights.h5"),
    Hostile("overlap.keras", _overlap, "members that overlap, or hidden bytes"),
    Hostile("moved.keras", lambda: _patched(42, lambda _: b"\0\0\0\0", 4), "another name or form"),
    Hostile("nowhere.keras", lambda: _patched(42, lambda _: b"\1\0\0\0", 4), "no member where model.weights.h5 should be"),
    Hostile("gap.keras", _gap, "hidden bytes before the directory"),
    Hostile("behind.keras", lambda: archive() + b"MZ", "bytes before, between or behind"),
    Hostile("comment.keras", lambda: archive()[:-2] + b"\4\0#!sh", "bytes before, between or behind"),
    Hostile("other-name.keras", lambda: _patched(30, lambda _: b"MODEL", 5, local=True), "another name or form"),
    Hostile("bomb.keras", lambda: archive(weights=bytes(50 << 20), method=zipfile.ZIP_DEFLATED), "a file that unpacks to so much is a trap"),
    Hostile("claims.keras", lambda: _patched(24, lambda _: struct.pack("<I", (2 << 30) + 1), 4), "GiB unpacked"),
    Hostile("checksum.keras", lambda: _patched(16, lambda crc: bytes(c ^ 255 for c in crc), 4), "a damaged archive"),
    Hostile("short.keras", lambda: archive()[:-40], "a damaged archive"),
]  # fmt: skip


def _write(name: str, **options: Any) -> Callable[[h5py.File], object]:
    return lambda file: file.create_dataset(name, **options)


def _link(name: str, link: Any) -> Callable[[h5py.File], None]:
    def fill(file: h5py.File) -> None:
        file[name] = link

    return fill


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((1,), np.uint8)
    layout[:] = h5py.VirtualSource(SECRET, "x", (1,), np.uint8)
    file.create_virtual_dataset("x", layout)


def _cycle(file: h5py.File) -> None:
    file["layers/dense/up"] = file["layers"]


def _deep_groups(file: h5py.File) -> None:
    file.create_group("/".join("abcdefg" * 11))


def _reference(file: h5py.File) -> None:
    file.attrs["x"] = file["layers"].ref


def _many_names(file: h5py.File) -> None:
    made = file["layers/dense/vars/0"]
    for i in range(40):
        file[f"again{i}"] = made


def _shared() -> bytes:
    """Return a file of arrays that all lie in the same 64 KiB: those that were never written have no place, and get the first one's."""
    out, size = io.BytesIO(), 1 << 16
    with h5py.File(out, "w") as file:
        place = file.create_dataset("a", data=np.zeros(size, np.uint8)).id.get_offset()
        for i in range(3):
            file.create_dataset(f"b{i}", shape=(size,), dtype=np.uint8)
    return out.getvalue().replace(struct.pack("<QQ", 2**64 - 1, size), struct.pack("<QQ", place, size))


FLETCHER = {"data": np.ones(8), "fletcher32": True, "chunks": (8,)}
COMPOUND = np.zeros(1, [("a", "i4"), ("b", "f8")])
HDF5 = [
    ("external-link", "a link to another file", _link("x", h5py.ExternalLink(SECRET, "/"))),
    ("soft-link", "a link", _link("x", h5py.SoftLink("/layers"))),
    ("external-values", "whose values lie in another file", _write("x", shape=(4,), dtype="u1", external=[(SECRET, 0, 4)])),
    ("virtual", "a virtual array", _virtual),
    ("references", "of reference type", _write("x", shape=(1,), dtype=h5py.ref_dtype)),
    ("reference-attribute", "got .reference type", _reference),
    ("variable-text", "of variable-length type", _write("x", shape=(1,), dtype=h5py.string_dtype())),
    ("variable-numbers", "of variable-length type", _write("x", shape=(1,), dtype=h5py.vlen_dtype(np.int8))),
    ("compound", "of compound type", _write("x", data=COMPOUND)),
    ("opaque", "of opaque type", _write("x", data=np.zeros(1, "V4"))),
    ("named-type", "got 'Datatype'", _link("x", np.dtype("f8"))),
    ("filter", "the filter 3", _write("x", **FLETCHER)),
    ("not-stored", "of which 0 are stored", _write("x", shape=(1 << 40,), dtype="f8")),
    ("gzip-bomb", "are stored", _write("x", data=np.zeros(64 << 20, np.uint8), compression="gzip", compression_opts=1)),
    ("cycle", "the same object under a second name", _cycle),
    ("same-object", "the same object under a second name", _many_names),
    ("deep-groups", "groups nested too deep", _deep_groups),
    ("escape-in-a-name", "printable names without a slash", _link("\x1b[2J", np.zeros(1))),
]


def _in_archive(name: str, says: str, fill: Callable[[h5py.File], object]) -> Hostile:
    return Hostile(f"{name}.keras", lambda: archive(weights=hdf5(fill)), says)


WEIGHTS = [_in_archive(*entry) for entry in HDF5] + [
    Hostile("user-block.keras", lambda: archive(weights=hdf5(userblock_size=512)), "another file in front of it|cannot read"),
    Hostile("pickle-as-weights.keras", lambda: archive(weights=pickle.dumps(Bomb())), "a file that HDF5 cannot read"),
]


def _tar(name: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as pack:
        pack.addfile(tarfile.TarInfo(name))
    return out.getvalue()


def _zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as pack:
        for name, data in members.items():
            pack.writestr(name, data)
    return out.getvalue()


def _array() -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([Bomb()], object), allow_pickle=True)
    return out.getvalue()


OTHERS = [
    Hostile("lambda.h5", lambda: legacy(model(_LAMBDA, legacy=True)), "model_config.*got 'Lambda"),  # CVE-2025-9905
    Hostile("module.h5", lambda: legacy(model(thing("os", "Dense", {}), legacy=True) | {"module": "os"}), "module: got 'os'"),
    Hostile("lambda-in-training.h5", lambda: legacy(model(legacy=True), training={"loss": _LAMBDA}), "training_config, loss: got 'Lambda"),
    Hostile("json.h5", lambda: legacy(model(legacy=True), lambda file: file.attrs.update(model_config="{")), "not strictly JSON"),
    Hostile("letters.h5", lambda: legacy(model(legacy=True), lambda file: file.attrs.update(model_config="é")), "expected JSON in ASCII"),
    Hostile("numbers.h5", lambda: legacy(model(legacy=True), lambda file: file.attrs.update(model_config=[1])), "expected JSON in ASCII"),
    Hostile("external-link.h5", lambda: legacy(model(legacy=True), _link("x", h5py.ExternalLink(SECRET, "/"))), "a link to another file"),
    Hostile("external-values.h5", lambda: legacy(model(legacy=True), HDF5[2][2]), "whose values lie in another file"),
    Hostile("short.h5", lambda: legacy(model(legacy=True))[:3000], "a file that HDF5 cannot read"),
    Hostile("shared.h5", _shared, "arrays that share no bytes"),
    Hostile("pickle.keras", lambda: pickle.dumps(Bomb()), "a pickle, which runs code"),
    Hostile("pickle-0.h5", lambda: pickle.dumps(Bomb(), 0), "a pickle, which runs code"),
    Hostile("pickle-1.pkl", lambda: pickle.dumps([Bomb()], 1), "a pickle, which runs code"),
    Hostile("joblib.keras", lambda: zlib.compress(pickle.dumps(Bomb())), "such as joblib writes"),
    Hostile("torch.pt", lambda: _zipped(**{"model/data.pkl": pickle.dumps(Bomb()), "model/version": b"3"}), "a torch file: it holds a pickle"),
    Hostile("torch.keras", lambda: archive(**{"data.pkl": pickle.dumps(Bomb())}), "a torch file: it holds a pickle"),
    Hostile("old-torch.pt", lambda: _tar("../../evil.py"), "a tar archive"),  # CVE-2025-12060
    Hostile("objects.npy", _array, "a NumPy array"),
    Hostile("objects.npz", lambda: _zipped(**{"x.npy": _array()}), r"NumPy arrays \(.npz\)"),
    Hostile("wheel.keras", lambda: _zipped(**{"setup.py": b"open('CANARY', 'w')"}), "an archive of something else"),
    Hostile("saved_model", lambda: {"saved_model.pb": b"\x08\x01", "variables/variables.index": b""}, "a TensorFlow SavedModel"),
    Hostile("model.tflite", lambda: b"\x1c\0\0\0TFL3" + bytes(64), "a TensorFlow Lite model"),
    Hostile("model.gguf", lambda: b"GGUF" + bytes(64), "a GGUF file"),
    Hostile("model.safetensors", lambda: b'\x10\0\0\0\0\0\0\0{"a": {}}' + bytes(64), "a safetensors file"),
]  # fmt: skip

CORPUS = [*CONFIGURATIONS, *ARCHIVES, *WEIGHTS, *OTHERS]
