"""A trained module as ONNX: one row at a time, and without a trace of where it was made."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.export import Dim

from makegood.errors import MissingExtra, Problem, Refused
from makegood.families.onnx import OPSETS
from makegood.scorer import INPUT


def check_exporter(where: str) -> None:
    """Raise `MissingExtra` where torch can train and its models cannot be exported."""
    if find_spec("onnxscript") is None:
        raise MissingExtra(Problem(where, "", "onnxscript, which exports torch models to ONNX", "pip install 'makegood[deep]'"))


def exported(module: nn.Module, row: Tensor, where: str, sizes: Mapping[int, int] | None = None) -> bytes:
    """Return a module of rows such as `row` (1, …) float32 as ONNX; equal weights give equal bytes.

    `sizes` names the axes that may have another size than in `row`, from 2 to what is given. Raises `Refused`, at `where`, when the
    module has no form in standard operators.
    """
    with _quiet():
        try:
            program = torch.onnx.export(
                module,
                (row,),
                dynamo=True,
                dynamic_shapes=({axis: Dim(f"size{axis}", min=2, max=most) for axis, most in (sizes or {}).items()},),
                opset_version=OPSETS[""],
                input_names=[INPUT],
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0][:160]
            expected = "a module that exports to ONNX"
            raise Refused(Problem(where, reason, expected, "no branches on the data; operators of the standard set")) from None
    assert program is not None, "dynamo exports return a program"
    model = program.model_proto
    if model.functions or any(node.domain for node in model.graph.node):
        strange = ", ".join(sorted({node.op_type for node in model.graph.node if node.domain}))
        raise Refused(Problem(where, f"operators {strange}", "operators of standard ONNX", "replace these layers"))
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    return bytes(model.SerializeToString(deterministic=True))


def refilled(form: bytes, module: nn.Module) -> bytes | None:
    """Return what another module of the same build was exported as, with this one's weights: an export takes a second, and this none.

    None unless the form holds every tensor of the module under its own name. That both are built alike is for the caller to know, or
    to find out by comparing predictions.
    """
    model = onnx.load_from_string(form)
    weights = {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}
    for held in model.graph.initializer:
        value = weights.pop(held.name, None)
        if value is not None:
            if tuple(held.dims) != value.shape:
                return None
            held.CopyFrom(numpy_helper.from_array(value.copy(order="C"), held.name))
    return None if weights else bytes(model.SerializeToString(deterministic=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from telling of packages that it could use and of its own deprecated parts."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
