"""What this machine has: the checks behind `makegood doctor`."""

from __future__ import annotations

import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CORE = (
    "numpy",
    "pyarrow",
    "duckdb",
    "narwhals",
    "scikit-learn",
    "scipy",
    "lightgbm",
    "onnx",
    "onnxruntime",
    "pydantic",
    "msgspec",
    "typer",
    "rich",
    "PyYAML",
)
SERVE = ("starlette", "uvicorn", "httptools", "prometheus-client")
NEEDED_GB = 1.0
_SYNCS = 7


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str
    next: str = ""


def examine(workspace: Path) -> tuple[Check, ...]:
    """Return every check, the failed ones with what to do."""
    packages = (_package(name) for name in CORE)
    writable = _writable(workspace)
    durable = (_durable(workspace),) if writable.ok else ()
    return (
        _python(),
        *packages,
        _serves(),
        _sqlite(sqlite3.sqlite_version_info),
        _threads(),
        writable,
        _space(workspace),
        *durable,
        _scores(),
    )


def _python() -> Check:
    return Check("python", sys.version_info >= (3, 11), sys.version.split()[0], "install Python 3.11 or newer")


def _package(name: str) -> Check:
    try:
        return Check(name, True, version(name))
    except PackageNotFoundError:
        return Check(name, False, "not installed", f"pip install {name}")


def _serves(names: Sequence[str] = SERVE) -> Check:
    absent = [name for name in names if not _package(name).ok]
    found = f"without {', '.join(absent)}; `makegood serve` needs pip install 'makegood[serve]'" if absent else "makegood serve can run"
    return Check("service", True, found)


def _sqlite(found: tuple[int, ...]) -> Check:
    """Tell of the defect by which SQLite before 3.51.3 can damage a database when two connections write or checkpoint at once."""
    text = ".".join(map(str, found))
    if found < (3, 51, 3):
        text += (
            ": it has the WAL-reset defect, mended in 3.51.3, which a ledger does not meet: one connection alone writes and checkpoints it"
        )
    return Check("sqlite", True, text)


def _durable(workspace: Path) -> Check:
    """Time what every commit of a ledger waits for."""
    times = []
    with tempfile.TemporaryFile(dir=workspace) as file:
        for _ in range(_SYNCS):
            file.write(bytes(4096))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    ms = statistics.median(times) * 1e3
    return Check("durable write", True, f"{ms:.2f} ms (median of {_SYNCS} of 4 KiB with fsync): a commit of the ledger takes about one")


def _threads() -> Check:
    return Check("cores", True, str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()))


def _writable(workspace: Path) -> Check:
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workspace):
            return Check("workspace", True, str(workspace.resolve()))
    except OSError as error:
        return Check("workspace", False, f"{workspace}: {error.strerror}", "give a folder that can be written to with --workspace")


def _space(workspace: Path) -> Check:
    existing = next(p for p in (workspace.resolve(), *workspace.resolve().parents) if p.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    return Check("disk", free_gb >= NEEDED_GB, f"{free_gb:.1f} GB free", f"free {NEEDED_GB:.0f} GB")


def _scores() -> Check:
    """Score one row through a graph built here: the runtime works, not only installs."""
    import numpy as np
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "twice",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    twice = float(session.run(None, {"x": np.ones(1, np.float32)})[0][0])
    return Check("scoring", twice == 2.0, f"onnxruntime {ort.__version__}, onnx {onnx.__version__}", "reinstall onnxruntime")
