"""A trained model as one ONNX graph, accepted only if it decides as the trained model does.

The graph must agree to 1e-5 with the models that were fitted, and lead to the same action, on every row that the training held out
and on rows made to stand on the edges of what the trees distinguish.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from makegood.contracts import Dataset, Floats, Predictive, Probabilities, Quantiles
from makegood.errors import NotBuilt, Problem, Refused
from makegood.families.onnx import Scorable, edge_rows, merge
from makegood.scorer import Scorer
from makegood.stages.predictives import calibrated
from makegood.stages.train import Money, Trained

PARITY = 1e-5
"""The largest difference allowed: of a probability, or of a quantile in units of the predictions' range."""

TIE = 1e-6
"""Options whose expected payoffs differ by less than this share of the row's range pay the same: which one is taken is a tie."""


@dataclass(frozen=True)
class Converted:
    """An accepted scorer, and what the comparison found.

    `checked` held-out rows and `edges` made of them were compared; `difference` is the largest; `ties` rows took another of two
    options that pay the same.
    """

    scorer: Scorer
    checked: int
    edges: int
    difference: float
    ties: int


def convert(trained: Trained, data: Dataset, money: Money, *, seed: int) -> Converted:
    """Return the scorer of a trained model; `data` and `money` are those of its training.

    Raises `NotBuilt` for a family without an ONNX form, and `Refused` where the graph and the models disagree.
    """
    held = data.take(trained.oof_rows).without_outcome()
    members = [(member.model, member.weight) for member in trained.members if isinstance(member.model, Scorable)]
    if len(members) < len(trained.members) or held.features is None:
        names = ", ".join(sorted({member.name for member in trained.members if not isinstance(member.model, Scorable)}))
        raise NotBuilt(Problem("train.families", names, "families with an ONNX form", "their bundles are not built yet: see ROADMAP.md"))
    features, width = held.features, _values(trained.oof).shape[-1]
    scorer = merge(members, features.shape[1], width)
    edges, origin = edge_rows(scorer, features, seed, tokens=held.tokens)
    places = np.concatenate([np.arange(len(held)), origin])
    checked = Dataset(held.table.take(places), np.concatenate([features, edges]), shape=held.shape, tokens=held.tokens)
    native = trained.raw(checked)
    graph = _with_values(native, scorer(np.asarray(checked.features)))
    difference = float(np.abs(_values(native) - _values(graph)).max()) / _scale(native)
    expected, other = (money.expected(calibrated(raw, trained.calibrator), trained.oof_rows[places]) for raw in (native, graph))
    taken = other.argmax(axis=1)
    lost = expected.max(axis=1) - expected[np.arange(len(places)), taken]
    changed = lost > TIE * np.ptp(expected, axis=1)
    if not difference <= PARITY or changed.any():
        got = f"a graph that differs by {difference:.2g} and changes {int(changed.sum())} of {len(places)} actions"
        raise Refused(Problem("scorer.onnx", got, f"at most {PARITY:g} and no action", "train without the family concerned"))
    ties = int(((taken != expected.argmax(axis=1)) & ~changed).sum())
    return Converted(scorer, len(held), len(edges), difference, ties)


def _values(predictive: Predictive) -> Floats:
    assert isinstance(predictive, Probabilities | Quantiles), "only these two kinds have families with an ONNX form"
    return predictive.p if isinstance(predictive, Probabilities) else predictive.q


def _with_values(like: Predictive, values: Floats) -> Predictive:
    assert isinstance(like, Probabilities | Quantiles)
    return replace(like, p=values) if isinstance(like, Probabilities) else replace(like, q=values)


def _scale(predictive: Predictive) -> float:
    return 1.0 if isinstance(predictive, Probabilities) else float(np.ptp(_values(predictive))) or 1.0
