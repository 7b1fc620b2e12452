"""Saved models: what Keras writes passes, the hostile corpus is refused by name, and nothing in it runs, opens or is unpickled."""

from __future__ import annotations

import ctypes
import importlib.util
import io
import json
import os
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.families import hostile

from makegood.errors import CaseError, MissingExtra, Refused
from makegood.families import _hdf5, _keras_config, saved

WATCHED = """
import json, marshal, os, pickle, sys, types, base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from makegood.errors import MakegoodError
from makegood.families import saved

folder, mode = Path(sys.argv[1]), sys.argv[2]
names = sorted(path.name for path in folder.iterdir() if path.name != "secret")


def judge(name):
    try:
        return name, ["accepted", saved.check(folder / name)]
    except MakegoodError as error:
        return name, [type(error).__name__, str(error)]


events = []
IMPORTER = "<frozen importlib._bootstrap_external>"
RUNS = ("exec", "compile", "import", "pickle.", "socket.", "urllib.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "ctypes.", "shutil.rmtree")


def watch(event, arguments):
    if event == "open":
        fires = any(word in str(arguments[0]) for word in ("CANARY", "secret", "passwd", "evil"))
    elif event == "subprocess.Popen":
        fires = list(arguments[1])[:7] != [sys.executable, "-I", "-B", "-X", "utf8", "-m", "makegood.families._walls"]
    elif event == "marshal.loads":
        fires = sys._getframe(1).f_code.co_filename != IMPORTER
    else:
        fires = event.startswith(RUNS) and not (event == "shutil.rmtree" and "tmp" in str(arguments[0]))
    if fires:
        events.append([event, repr(arguments)[:200]])


with ThreadPoolExecutor(2) as pool:
    list(pool.map(judge, ["harmless.keras", "harmless.h5"]))  # whatever is imported when it is first used
    sys.addaudithook(watch)
    if mode == "check":
        found = dict(pool.map(judge, names))
    else:  # what the files do when somebody opens them
        pickle.loads((folder / "pickle.keras").read_bytes())
        code = marshal.loads(base64.b64decode(sys.argv[3]))
        types.FunctionType(code, {"__builtins__": __builtins__})(1)
        (folder / "secret").read_bytes()
        found = {}
Path(sys.argv[-1]).write_text(json.dumps([found, events, os.path.exists("CANARY")]))
"""


def watched(folder: Path, away: Path, mode: str) -> tuple[dict[str, list[str]], list[list[str]], bool]:
    """Return what became of each file of a folder, which events told of code or foreign files, and whether there is a canary."""
    away.mkdir()
    command = [sys.executable, "-c", WATCHED, str(folder), mode, hostile.code(), str(away / "answer.json")]
    subprocess.run(command, cwd=away, check=True, timeout=110)
    found, events, canary = json.loads((away / "answer.json").read_text())
    return found, events, canary


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds every hostile file, two harmless ones and a secret."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "harmless.keras").write_bytes(hostile.archive())
    (folder / "harmless.h5").write_bytes(hostile.legacy(hostile.model(legacy=True)))
    (folder / hostile.SECRET).write_bytes(bytes(range(64)))
    for file in hostile.CORPUS:
        file.write(folder)
    return folder


@pytest.fixture(scope="module")
def judged(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[str]], list[list[str]], bool]:
    """What a process that watches itself said of each file."""
    return watched(corpus, tmp_path_factory.mktemp("watch") / "check", "check")


# ---------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.slow
@pytest.mark.parametrize("file", hostile.CORPUS, ids=[file.name for file in hostile.CORPUS])
def test_a_hostile_file_is_refused_by_name(file: Any, judged: tuple[dict[str, list[str]], Any, Any]) -> None:
    kind, message = judged[0][file.name]
    assert kind == "Refused", message
    assert message.startswith((f"{file.name}:", f"{file.name}, "))

    assert re.search(file.says, message), message
    assert len(message) < 1_500
    assert message.isprintable()


def test_the_corpus_is_large_and_its_harmless_part_passes(judged: tuple[dict[str, list[str]], Any, Any]) -> None:
    assert len({file.name for file in hostile.CORPUS}) == len(hostile.CORPUS) >= 100
    assert judged[0]["harmless.keras"] == ["accepted", "keras"]
    assert judged[0]["harmless.h5"] == ["accepted", "h5"]


def test_nothing_in_a_hostile_file_runs(judged: tuple[Any, list[list[str]], bool], corpus: Path, tmp_path: Path) -> None:
    assert judged[1] == []
    assert not judged[2]
    _, events, canary = watched(corpus, tmp_path / "open", "open")  # the watch sees what an open does, and the files are what they claim
    assert canary
    assert {name for name, _ in events} >= {"pickle.find_class", "marshal.loads", "open"}
    assert any("secret" in arguments for name, arguments in events if name == "open")


class Opened:
    """Counts how often a file is opened, native code included (Linux)."""

    def __init__(self, path: Path) -> None:
        self.libc = ctypes.CDLL(None)
        self.watch = self.libc.inotify_init1(os.O_NONBLOCK)
        assert self.libc.inotify_add_watch(self.watch, os.fsencode(path), 0x20) >= 0  # IN_OPEN

    def count(self) -> int:
        """Return how often it was opened since the last count."""
        try:
            return len(os.read(self.watch, 4096)) // struct.calcsize("iIII")
        except BlockingIOError:
            return 0


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_hdf5_is_never_sent_to_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any wall, in this process: the look itself follows nothing."""
    monkeypatch.chdir(tmp_path)
    with h5py.File(hostile.SECRET, "w") as file:
        file["x"] = np.ones(1, np.uint8)
    secret, leaks = Opened(tmp_path / hostile.SECRET), 0
    for name, says, fill in hostile.HDF5:
        Path("weights.h5").write_bytes(hostile.hdf5(fill))
        with pytest.raises(_hdf5.Unfit) as unfit:
            _hdf5.look(Path("weights.h5"))

        assert re.search(says, "got '{1}' expected {2}".format(*unfit.value.args)), name
        assert secret.count() == 0
        if name in ("external-link", "external-values", "virtual"):
            with h5py.File("weights.h5") as file:
                _ = file["x"][...] if isinstance(file["x"], h5py.Dataset) else None
            leaks += secret.count() > 0
    assert leaks == 3  # whoever reads these files reads the secret


def test_the_look_at_hdf5_is_bounded_and_tells_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights.h5").write_bytes(hostile.legacy(hostile.model(legacy=True)))
    _hdf5.main("weights.h5")
    texts = json.loads(Path(_hdf5.FOUND).read_text())["texts"]
    assert json.loads(texts["model_config"]) == hostile.model(legacy=True)
    assert texts.keys() == {"model_config", "training_config"}
    for name, value, says in (
        ("MAX_OBJECTS", 3, "more than 3 objects"),
        ("MAX_RATIO", 0, "at most 0 times"),
        ("MAX_TEXT", 3, "more than 8 MiB"),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(_hdf5, name, value)
            changed.setattr(_hdf5, "FREE", 0)
            with pytest.raises(_hdf5.Unfit, match=says):
                _hdf5.look(Path("weights.h5"))
    Path("weights.h5").write_bytes(hostile.hdf5(userblock_size=512))
    _hdf5.main("weights.h5")
    assert json.loads(Path(_hdf5.FOUND).read_text()) == {"unfit": ["/", "another file in front of it", "an HDF5 file and nothing else"]}
    for file, says in {"numbers.h5": "ndarray", "letters.h5": "str", "shared.h5": "in a file of"}.items():
        next(entry for entry in hostile.OTHERS if entry.name == file).write(tmp_path)
        with pytest.raises(_hdf5.Unfit, match=says):
            _hdf5.look(tmp_path / file)


# ----------------------------------------------------------------------------------------------------------------- passes

WRITES = """
import os, sys
os.environ["KERAS_BACKEND"] = "torch"
for name in ("jax", "pandas", "sklearn", "tensorflow"):
    sys.modules[name] = None
import keras, numpy as np

keras.saving.load_model("harmless.keras")
keras.saving.load_model("harmless.h5")
try:
    keras.saving.load_model("lambda.keras", safe_mode=False)(np.ones((1, 4)))
except TypeError:
    pass
L = keras.layers
images = keras.Sequential([keras.Input((8, 8, 1)), L.GaussianNoise(0.1), L.Conv2D(4, (3, 3), activation="relu",
    kernel_regularizer=keras.regularizers.L2(1e-4), kernel_constraint="max_norm"), L.MaxPooling2D((2, 2)), L.BatchNormalization(), L.Flatten(),
    L.Dense(16, activation=keras.activations.gelu), L.LeakyReLU(), L.Dropout(0.5, seed=3), L.Dense(10, activation="softmax")])
images.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
images.fit(np.zeros((8, 8, 8, 1)), np.zeros(8), verbose=0)
start = keras.Input((5,))
x = L.Bidirectional(L.LSTM(4, return_sequences=True))(L.Embedding(10, 4)(start))
x = L.LayerNormalization()(L.MultiHeadAttention(2, 4)(x, x) + 1.5 * x)
x = L.Concatenate()([L.GlobalAveragePooling1D()(x), L.RNN(L.LSTMCell(3))(x), keras.ops.mean(L.GRU(3)(x), axis=1, keepdims=True)])
x = L.TimeDistributed(L.Dense(2))(keras.ops.relu(x)[:, None])
sequences = keras.Model(start, L.Flatten()(x))
sequences.compile(keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(0.1, 9)), keras.losses.BinaryCrossentropy(), [keras.metrics.AUC()])
nested = keras.Sequential([keras.Input((8, 8, 1)), images, L.Dense(1, kernel_initializer=keras.initializers.Orthogonal(seed=1))])
nested.compile(loss="mse", optimizer=keras.optimizers.SGD(0.1))
for name, model in {"images": images, "sequences": sequences, "nested": nested}.items():
    model.save(name + ".keras")
    model.save(name + ".h5")
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="keras is not installed")
def test_what_keras_writes_passes_and_the_corpus_is_what_keras_opens(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    for name in ("harmless.keras", "harmless.h5", "lambda.keras"):
        (tmp_path / name).write_bytes((corpus / name).read_bytes())
    subprocess.run([sys.executable, "-c", WRITES], cwd=tmp_path, check=True, capture_output=True, timeout=110)
    assert (tmp_path / hostile.CANARY).exists()  # Keras, asked to, runs the code in the archive that is refused here
    for name in ("images", "sequences", "nested"):
        assert saved.check(tmp_path / f"{name}.keras") == "keras"
        assert saved.check(tmp_path / f"{name}.h5") == "h5"


def test_contents_and_not_names_tell_the_kind(tmp_path: Path) -> None:
    path = tmp_path / "model.txt"
    path.write_bytes(hostile.archive(method=zipfile.ZIP_DEFLATED))
    assert saved.check(path) == "keras"


def test_an_archive_that_was_streamed_passes(tmp_path: Path) -> None:
    """Sizes behind the data, as a writer that cannot go back leaves them."""

    class Stream(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.data += data
            return len(data)

    out = Stream()
    with zipfile.ZipFile(io.BytesIO(hostile.archive())) as pack, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as streamed:
        for name in pack.namelist():
            streamed.writestr(name, pack.read(name))
    path = tmp_path / "streamed.keras"
    path.write_bytes(out.data)
    assert saved.check(path) == "keras"
    path.write_bytes(bytes(out.data).replace(b"PK\x07\x08", b"PK\x07\x09"))
    with pytest.raises(Refused, match=r"a damaged archive \(no sizes behind metadata.json\)"):
        saved.check(path)


def test_values_that_json_cannot_hold_pass() -> None:
    tensor = {"class_name": "__keras_tensor__", "config": {"shape": [None, 4], "dtype": "float32", "keras_history": ["in", 0, 0]}}
    values = [
        tensor,
        {"class_name": "__numpy__", "config": {"value": [1.5, 2], "dtype": "float32"}},
        {"class_name": "__slice__", "config": {"start": None, "stop": 3, "step": None}},
        {"class_name": "__ellipsis__", "config": {}},
        {"class_name": "__tuple__", "items": [1, 2]},
        {"class_name": "TensorShape", "items": [None, 4]},
        {"module": "keras.losses", "class_name": "function", "config": "mean_squared_error", "registered_name": "mean_squared_error"},
    ]
    _keras_config.check_objects(values, "x", legacy=False)


# ----------------------------------------------------------------------------------------------------------- no model at all


def test_what_is_no_model_is_the_users_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = r"expected a Keras model in one file \(.keras, or .h5 in the older format\)"
    with pytest.raises(CaseError, match=rf"gone.keras: got .*No such file.*{expected}; is the path right\?"):
        saved.check(tmp_path / "gone.keras")
    with pytest.raises(CaseError, match=r"no file that can be read \(embedded null byte"):
        saved.check(Path("a\0b"))
    with pytest.raises(CaseError, match=rf"got 'a folder'; {expected}; save it with model.save\('NAME.keras'\)"):
        saved.check(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CaseError, match="got 'a device or a pipe'"):
        saved.check(tmp_path / "pipe")
    for data, says in ((b"", "an empty file"), (b"hello", "a file of another kind"), (b"PK\x05\x06" + bytes(18), "a file of another kind")):
        (tmp_path / "x.keras").write_bytes(data)
        with pytest.raises(CaseError, match=f"x.keras: got '{says}'; {expected}"):
            saved.check(tmp_path / "x.keras")
    (tmp_path / "weights.h5").write_bytes(hostile.hdf5())
    with pytest.raises(CaseError, match=f"weights.h5: got 'weights without a model'; {expected}"):
        saved.check(tmp_path / "weights.h5")
    (tmp_path / "ok.keras").write_bytes(hostile.archive())
    monkeypatch.setitem(sys.modules, "h5py", None)  # as where it is not installed
    for name in ("ok.keras", "weights.h5"):
        with pytest.raises(MissingExtra, match=rf"{name}; expected h5py, .*; pip install 'makegood\[keras\]'"):
            saved.check(tmp_path / name)


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.keras"
    path.write_bytes(b"PK\x03\x04")
    os.truncate(path, saved.MAX_FILE + 1)
    with pytest.raises(Refused, match=r"large.keras: got '2.0 GiB'; expected at most 2 GiB; a smaller model"):
        saved.check(path)


@pytest.mark.parametrize("answer", ["", "[]", '{"texts": {"model_config": 1}}', '{"texts": {"model_config": "é"}}', '{"unfit": [1, 2]}'])
def test_an_answer_that_the_reader_does_not_give_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """A file that took the limited process over could write anything."""

    def taken_over(*_: object, folder: Path, **__: object) -> None:
        (folder / "found.json").write_text(answer, encoding="utf-8")

    monkeypatch.setattr(saved.limited, "run", taken_over)
    (tmp_path / "x.keras").write_bytes(hostile.archive())
    with pytest.raises(Refused, match=r"x\.keras, model\.weights\.h5: got 'an answer that the reader of HDF5 does not give'"):
        saved.check(tmp_path / "x.keras")


# ---------------------------------------------------------------------------------------------------------------- mutants


def outcome(path: Path) -> float:
    """Check a file that may be anything; return the CPU seconds that it took, the limited process included."""
    start = time.process_time() + resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    try:
        saved.check(path)
    except (Refused, CaseError) as error:
        assert str(error).isprintable()  # noqa: PT017 - any of them may come, or none
    return time.process_time() + resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - start


BENIGN = hostile.archive(method=zipfile.ZIP_DEFLATED), hostile.archive()
PLACES = st.floats(0, 1, exclude_max=True)
CHANGES = st.lists(st.tuples(st.sampled_from(["flip", "cut", "splice"]), PLACES, PLACES, st.integers(1, 255)), min_size=1, max_size=4)


def changed(data: bytes, changes: list[tuple[str, float, float, int]]) -> bytes:
    """Return data with bytes flipped, cut out, or copied from elsewhere."""
    for kind, where, whence, value in changes:
        at, other = int(where * len(data)), int(whence * len(data))
        if kind == "flip" and data:
            data = data[:at] + bytes([data[at] ^ value]) + data[at + 1 :]
        elif kind == "cut":
            data = data[: min(at, other)] + data[max(at, other) :] if value % 2 else data[:at]
        else:
            data = data[:at] + data[other : other + value] + data[at + value * (value % 2) :]
    return data


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([0, 1]), CHANGES)
def test_a_mutant_archive_is_refused_in_time_or_passes(packed: int, changes: list[tuple[str, float, float, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mutant.keras")
        path.write_bytes(changed(BENIGN[packed], changes))
        assert outcome(path) < 2.0


CONFIG = json.dumps(hostile.model()).encode()


@settings(max_examples=200, deadline=None)
@given(CHANGES)
def test_a_mutant_configuration_is_refused_or_passes(changes: list[tuple[str, float, float, int]]) -> None:
    try:
        _keras_config.check_model(_keras_config.parse(changed(CONFIG, changes), "x"), "x", legacy=False)
    except Refused as error:
        assert str(error).isprintable()  # noqa: PT017


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["class_name", "module", "config", "registered_name", "items", "activation", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(json_values, st.booleans())
def test_any_json_is_judged(value: object, legacy: bool) -> None:
    for judge in (_keras_config.check_model, _keras_config.check_objects):
        try:
            judge(value, "x", legacy=legacy)
        except Refused as error:
            assert "x" in str(error)  # noqa: PT017


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CHANGES)
def test_a_mutant_hdf5_file_is_refused_in_time_or_passes(changes: list[tuple[str, float, float, int]]) -> None:
    data = hostile.legacy(hostile.model(legacy=True))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mutant.h5")
        path.write_bytes(data[:8] + changed(data[8:], changes))
        assert outcome(path) < 2.0
