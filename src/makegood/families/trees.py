"""LightGBM's trees as ONNX tree ensembles that take every branch as LightGBM does.

LightGBM compares a feature with a float64 threshold; the ONNX operator holds thresholds in float32. For a float32 feature,
``x <= t`` is the same as ``x <= t'`` exactly when t' is the largest float32 not above t: so thresholds are rounded *down*. Rounding
to the nearest, as general converters do, turns rows that stand on a threshold to the other side. LightGBM also reads
|x| <= 1e-35 as zero, which moves the thresholds inside that band.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from makegood.contracts import Floats, Ints

_ZERO = float(np.float32(1e-35))  # kZeroThreshold in LightGBM's meta.h


@dataclass(frozen=True)
class Tree:
    """One binary tree: m inner nodes and m + 1 leaves; a child c < 0 is leaf −c − 1. `value` (m + 1,) of the leaves."""

    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    value: Floats


def parse(text: str) -> tuple[Tree, ...]:
    """Return the trees of a LightGBM model's text (numeric splits only), in order.

    The text, unlike the JSON dump, costs milliseconds, and holds thresholds and leaf values to the last bit.
    """
    trees = []
    for block in text.split("\nTree=")[1:]:
        lines = dict(line.split("=", 1) for line in block.split("\n\n", 1)[0].splitlines()[1:])
        ints = {name: np.array(lines.get(name, "").split(), np.int64) for name in ("split_feature", "left_child", "right_child")}
        trees.append(
            Tree(
                ints["split_feature"],
                np.array(lines.get("threshold", "").split(), np.float64),
                ints["left_child"],
                ints["right_child"],
                np.array(lines["leaf_value"].split(), np.float64),
            )
        )
    return tuple(trees)


def float32_thresholds(threshold: Floats) -> Floats:
    """Return float32 thresholds under which every finite or infinite float32 takes LightGBM's branch.

    >>> float(float32_thresholds(np.array([0.1]))[0]) <= 0.1
    True
    """
    below = np.nextafter(np.float32(-_ZERO), np.float32(-np.inf))
    t = np.where((threshold >= -_ZERO) & (threshold < 0.0), below, threshold)
    t = np.where((t >= 0.0) & (t < _ZERO), _ZERO, t)
    with np.errstate(over="ignore"):
        near = t.astype(np.float32)
        return np.where(near.astype(np.float64) > t, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float32)


def ensemble_attributes(trees: Sequence[Tree], targets: Sequence[int], n_targets: int) -> dict[str, Any]:
    """Return the attributes of ONNX's TreeEnsembleRegressor: tree i adds its leaf to column ``targets[i]``."""
    inner = np.array([len(t.feature) for t in trees])
    nodes = 2 * inner + 1
    tree_ids = np.repeat(np.arange(len(trees)), nodes)
    node_ids = np.concatenate([np.arange(n) for n in nodes])
    is_leaf = node_ids >= np.repeat(inner, nodes)

    def spread(values: Sequence[NDArray[Any]]) -> Any:  # leaves get zeros
        of_inner = np.concatenate(values)
        full: NDArray[Any] = np.zeros(len(node_ids), of_inner.dtype)
        full[~is_leaf] = of_inner
        return full.tolist()

    def children(side: str) -> list[NDArray[Any]]:  # leaves are numbered after the inner nodes
        return [np.where(c < 0, len(c) - c - 1, c) for c in (getattr(t, side) for t in trees)]

    return {
        "nodes_treeids": tree_ids.tolist(),
        "nodes_nodeids": node_ids.tolist(),
        "nodes_modes": np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_featureids": spread([t.feature for t in trees]),
        "nodes_values": spread([float32_thresholds(t.threshold) for t in trees]),
        "nodes_truenodeids": spread(children("left")),
        "nodes_falsenodeids": spread(children("right")),
        "target_treeids": tree_ids[is_leaf].tolist(),
        "target_nodeids": node_ids[is_leaf].tolist(),
        "target_ids": np.repeat(np.asarray(targets), inner + 1).tolist(),
        "target_weights": np.concatenate([t.value for t in trees]).tolist(),
        "n_targets": n_targets,
        "aggregate_function": "SUM",
        "post_transform": "NONE",
    }
