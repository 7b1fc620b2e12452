"""The scorer of a bundle: an ONNX graph that gives each row the same bits alone and inside any batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from makegood import bundle
from makegood.contracts import Floats
from makegood.errors import BundleError, Problem

INPUT, OUTPUT = "features", "raw"
LEVELS = ("none", "basic", "extended", "all")
"""How far ONNX Runtime rewrites a graph before it runs it; the last is what it does unasked."""

THREADS = 64  # at most


@dataclass(frozen=True, eq=False)
class Scorer:
    """An ONNX graph "features" float32 (n, n_features) → "raw" (n, k), at most `rows` rows at a time, on `threads` threads.

    With more rows than its maker allowed, sums may be taken in another order and a row's bits would depend on its neighbours; more
    threads than one are only for graphs whose bits were found not to change with them. `level` is one of `LEVELS`.
    """

    model: bytes
    rows: int
    level: str = "all"
    threads: int = 1

    @cached_property
    def session(self) -> Any:
        """The ONNX Runtime session, made when first needed; raises `BundleError` where the bytes are no graph that runs."""
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.graph_optimization_level = _ORT_LEVELS[self.level]
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # what is wrong is raised
        try:
            return ort.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])
        except _ORT_ERRORS as error:
            raise BundleError(Problem("scorer.onnx", str(error), "a graph that ONNX Runtime can run", bundle.REMAKE)) from None

    def __call__(self, features: Floats) -> Floats:
        """Return raw scores (n, k) float64; raises `BundleError` where the graph fails on the way."""
        if not len(features):  # an empty answer has the shape of a full one
            return self(np.zeros((1, features.shape[1]), dtype=np.float32))[:0]
        run = self.session.run
        try:
            parts = [run([OUTPUT], {INPUT: features[at : at + self.rows]})[0] for at in range(0, len(features), self.rows)]
        except _ORT_ERRORS as error:
            raise BundleError(Problem("scorer.onnx", str(error), "a graph that scores every row", bundle.REMAKE)) from None
        return np.asarray(parts[0] if len(parts) == 1 else np.concatenate(parts), dtype=np.float64)

    def check(self, n_features: int, k: int) -> None:
        """Raise `BundleError` unless the graph takes `n_features` and gives `k` scores."""
        nodes = (*self.session.get_inputs(), *self.session.get_outputs())
        found = [(node.name, node.type, node.shape[1:]) for node in nodes]
        if found not in [[(INPUT, "tensor(float)", [n_features]), (OUTPUT, f"tensor({kind})", [k])] for kind in ("float", "double")]:
            wanted = f"{INPUT} (n, {n_features}) float → {OUTPUT} (n, {k}) float or double"
            raise BundleError(Problem("scorer.onnx", "; ".join(map(str, found)), wanted, bundle.REMAKE))


_ORT_LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_ORT_ERRORS = tuple(
    getattr(ort_errors, name)
    for name in ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
)
