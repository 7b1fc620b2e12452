"""What this machine has: the checks behind `makegood doctor`."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
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
NEEDED_GB = 1.0


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str
    next: str = ""


def examine(workspace: Path) -> tuple[Check, ...]:
    """Return every check, the failed ones with what to do."""
    return (_python(), *(_package(name) for name in CORE), _threads(), _writable(workspace), _space(workspace), _scores())


def _python() -> Check:
    return Check("python", sys.version_info >= (3, 11), sys.version.split()[0], "install Python 3.11 or newer")


def _package(name: str) -> Check:
    try:
        return Check(name, True, version(name))
    except PackageNotFoundError:
        return Check(name, False, "not installed", f"pip install {name}")


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
