"""One ONNX graph out of several fitted models: "features" float32 (n, n_features) → "raw" float64 (n, k).

Every row must get the same bits alone and inside a batch. ONNX Runtime does not promise that, so the graph uses only what keeps
it: tree ensembles (row by row on one thread), elementwise arithmetic (correctly rounded wherever a row stands), sums that are exact
in any order (`Affine`) and float32 softmax (row by row). Matrix products, reductions of rounded terms and float64 `Exp`, `Sigmoid`
or `Softmax` differ between a vector's body and its tail, and are left out. A converted foreign graph promises nothing, so a
scorer that contains one is run a row at a time (`Scorer.rows`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Protocol, runtime_checkable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import compose, helper, numpy_helper

from makegood.contracts import Floats, Ints, Tokens
from makegood.errors import Problem, Refused
from makegood.families.regression import Affine
from makegood.families.trees import Tree, ensemble_attributes
from makegood.scorer import INPUT, OUTPUT, Scorer

OPSETS = {"": 18, "ai.onnx.ml": 3}
_IR = 8
_HUGE = np.array([3e38, -3e38], np.float32)
_EDGES = 1 << 23  # numbers in the rows that are made to hold one of the largest magnitudes
_IDS = 16  # token ids that are made to be one of the largest magnitudes: to a graph they are all alike
_MOST = (1 << 31) - (1 << 25)  # bytes of constants in a file that ends at 2 GiB
_LARGE = 1 << 20  # bytes of a constant from which on it is looked for among those that are there


@dataclass
class Graph:
    """A graph in the making: every method adds nodes and returns the name of their output."""

    features: str = INPUT
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    large: dict[bytes, str] = field(default_factory=dict)  # names of the large constants, by what they hold

    def op(self, kind: str, *inputs: str | NDArray[Any], domain: str = "", **attributes: Any) -> str:
        """Add one node; an array among the inputs becomes a constant."""
        names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [output], domain=domain, **attributes))
        return output

    def _constant(self, value: NDArray[Any]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def double(self, name: str) -> str:
        """Cast to float64."""
        return self.op("Cast", name, to=onnx.TensorProto.DOUBLE)

    def affine(self, line: Affine) -> str:
        """Return z (n, k) float64 of an `Affine`, with its own bits."""
        clipped = self.op("Min", self.op("Max", self.double(self.features), line.low), line.high)
        centred = self.op("Unsqueeze", self.op("Sub", clipped, line.centre), np.array([1]))
        scale = np.ldexp(1.0, line.bits)
        products = self.op("Round", self.op("Mul", centred, line.weights.T * scale))
        total = self.op("ReduceSum", products, np.array([2]), keepdims=0)
        return self.op("Add", self.op("Mul", total, np.array(1.0 / scale)), line.intercept)

    def trees(self, trees: Sequence[Tree], targets: Sequence[int], n_targets: int) -> str:
        """Return the sums of leaf values (n, n_targets) float32; tree i adds to column `targets[i]`."""
        attributes = ensemble_attributes(trees, targets, n_targets)
        return self.op("TreeEnsembleRegressor", self.features, domain="ai.onnx.ml", **attributes)

    def softmax(self, z: str) -> str:
        """Return the softmax of float32 z (n, k), as float64; it is taken in float32, row by row."""
        return self.double(self.op("Softmax", z, axis=-1))

    def single(self, name: str) -> str:
        """Cast to float32."""
        return self.op("Cast", name, to=onnx.TensorProto.FLOAT)

    def sort(self, name: str, k: int) -> str:
        """Return (n, k) with every row in ascending order."""
        output = self.op("TopK", name, np.array([k]), axis=-1, largest=0, sorted=1)
        self.nodes[-1].output.append(f"{output}_order")
        return output

    def include(self, model: bytes, features: str, output: int = -1) -> str:
        """Add a whole converted model, fed with `features`, and return the name of one of its outputs, the last by default.

        Large constants that another model has too are kept once, as the weights that networks of several folds did not learn.
        """
        graph = compose.add_prefix(onnx.load_from_string(model), f"m{len(self.nodes)}_", inplace=True).graph
        known = self._known(graph)
        for node in graph.node:
            node.input[:] = [known.get(name, name) for name in node.input]
        self.nodes.append(helper.make_node("Identity", [features], [graph.input[0].name]))
        self.nodes.extend(graph.node)
        self.constants.extend(held for held in graph.initializer if held.name not in known)
        return str(graph.output[output].name)

    def _known(self, graph: onnx.GraphProto) -> dict[str, str]:
        """Return which of a model's large constants are there under another name, and remember the others."""
        known: dict[str, str] = {}
        if any(a.HasField("g") or a.graphs for node in graph.node for a in node.attribute):  # a branch sees the names outside it
            return known
        for held in graph.initializer:
            raw = held.raw_data
            if len(raw) >= _LARGE:
                digest = sha256(f"{held.data_type} {list(held.dims)} ".encode() + raw).digest()
                name = self.large.setdefault(digest, held.name)
                if name != held.name:
                    known[held.name] = name
        return known

    def scorer(self, n_features: int, k: int, *, rows: int) -> Scorer:
        """Return the finished graph, whose last node gives `OUTPUT` (n, k); `rows` as in `Scorer`.

        Raises `Refused` where it would be larger than an ONNX file can be, which is 2 GiB.
        """
        size = sum(math.prod(held.dims) * helper.tensor_dtype_to_np_dtype(held.data_type).itemsize for held in self.constants)
        if size > _MOST:
            raise Refused(Problem("scorer.onnx", f"{size:,} bytes of weights", f"at most {_MOST:,}", "train smaller networks, or fewer"))
        made = helper.make_graph(
            self.nodes,
            "scorer",
            [helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, [None, n_features])],
            [helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.DOUBLE, [None, k])],
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        model = helper.make_model(made, opset_imports=opsets, ir_version=_IR, producer_name="makegood")
        model.graph.initializer.extend(self.constants)  # last, since whatever comes after copies them
        written = bytes(model.SerializeToString(deterministic=True))
        onnx.checker.check_model(written)
        return Scorer(written, rows)


@runtime_checkable
class Scorable(Protocol):
    """A fitted model that can write itself into a graph."""

    @property
    def rows(self) -> int:
        """How many rows of a batch may be scored at once, without changing a bit and in bounded memory."""
        ...

    def write(self, graph: Graph) -> str:
        """Add the model's nodes and return the name of its prediction (n, k), float64."""
        ...


def thresholds(model: bytes) -> tuple[Ints, Floats]:
    """Return the feature positions and the float32 thresholds of every tree in a serialised graph, without repetition."""
    found, graph = set[tuple[int, float]](), onnx.load_from_string(model).graph
    constants = {c.name: c for c in graph.initializer}
    picked = {
        n.output[0]: numpy_helper.to_array(constants[n.input[1]]) for n in graph.node if n.op_type == "Gather" and n.input[0] == INPUT
    }
    for node in graph.node:
        if node.op_type.startswith("TreeEnsemble"):
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            columns = picked.get(node.input[0])  # trees that see some of the features number these from 0
            tree = zip(attributes["nodes_featureids"], attributes["nodes_values"], attributes["nodes_modes"], strict=True)
            seen = {(feature, value) for feature, value, mode in tree if mode != b"LEAF"}
            found |= seen if columns is None else {(int(columns[feature]), value) for feature, value in seen}
    ordered = sorted(found)
    return np.array([f for f, _ in ordered], np.int64), np.array([t for _, t in ordered], np.float32)


def merge(members: Sequence[tuple[Scorable, float]], n_features: int, k: int) -> Scorer:
    """Return one graph whose output is the weighted average (n, k) of the members' predictions; weights sum to one."""
    graph = Graph()
    parts = [graph.op("Mul", model.write(graph), np.array(weight)) for model, weight in members]
    graph.nodes.append(helper.make_node("Sum", parts, [OUTPUT]))
    return graph.scorer(n_features, k, rows=min(model.rows for model, _ in members))


def edge_rows(scorer: Scorer, features: Floats, seed: int, limit: int = 3000, tokens: Tokens | None = None) -> tuple[Floats, Ints]:
    """Return rows (m, n_features) at the edges of what a scorer distinguishes, and the row of `features` each was made from.

    On a tree's threshold, one float32 below and one above it; then with the largest magnitudes, ±3e38, in one feature and in all. Of
    more than 2048 features, as many are drawn as 32 MiB of such rows have room for; of those that are token ids, 16.
    """
    rng = np.random.default_rng(seed)
    n, p = features.shape
    where, value = thresholds(scorer.model)
    kept = np.sort(rng.permutation(len(where))[: limit // 3])
    extreme = np.arange(p)
    if (room := _EDGES // (2 * p)) < p:
        extreme = np.sort(rng.permutation(p)[: max(1, room)])
    if tokens is not None:
        ids = extreme[(extreme >= tokens.columns.start) & (extreme < tokens.columns.stop)]
        extreme = np.setdiff1d(extreme, rng.permutation(ids)[_IDS:])
    inf = np.float32(np.inf)
    with np.errstate(over="ignore"):  # beyond the greatest finite float32 lies infinity, which no feature is
        beside = np.nextafter(value[kept], inf), np.nextafter(value[kept], -inf)
    values = np.concatenate([value[kept], *beside, np.repeat(_HUGE, len(extreme))])
    columns = np.concatenate([np.tile(where[kept], 3), np.tile(extreme, len(_HUGE))])
    base = rng.integers(0, n, len(values) + len(_HUGE))
    rows = features[base].astype(np.float32)
    rows[np.arange(len(values)), columns] = np.clip(values, np.finfo(np.float32).min, np.finfo(np.float32).max)
    rows[len(values) :] = _HUGE[:, None]
    return rows, base
