"""What our own loop trains and ONNX scores: the common part of the user's modules and of the networks for images."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import torch
from torch import Generator, Tensor, nn

from makegood.contracts import Budget, Dataset, Floats, Ints
from makegood.economics.conformal import fit_conformal
from makegood.errors import Refused
from makegood.families._torch import loop, losses, uncertainty
from makegood.families._torch.export import exported, refilled
from makegood.families._torch.loop import Recipe, Report, Rows, Runtime, Session
from makegood.families._torch.loop import Task as Training
from makegood.families._torch.uncertainty import ONCE, Sampling
from makegood.families.converted import Converted
from makegood.families.onnx import merge
from makegood.families.tabular import features_of

if TYPE_CHECKING:
    from makegood.families.onnx import Graph

Shape = tuple[int, int, int]  # height, width, channels
Forms = dict[tuple[object, ...], bytes]  # what a build was exported as
CHECKED = 1000  # validation rows on which ONNX is compared, fewer where each is asked many times
_BLOCK = 1024  # rows at a time outside training
_LEAST = 0.01  # of the squared residuals that stays noise: no row gets an interval of nothing


@dataclass(frozen=True)
class Plan:
    """How a network is trained: a recipe, where, and what changes the inputs of a batch on the way."""

    recipe: Recipe
    runtime: Runtime
    augment: Callable[[Tensor, Generator], Tensor] | None = None


class Trained(Converted, ABC):
    """A network from features (n, n_features) float32, or images (n, channels, height, width) in [0, 1], to logits or a number (n, 1).

    The weights that are best on the validation rows stand. A number is learnt in standard deviations from its mean, by the squared
    loss. Members of an ensemble, and passes with dropout at work, are votes: the probabilities are their mean. A number's quantiles
    are their mean and √(spread² + noise²) times quantiles of the validation rows' residuals, which are measured in that unit (split
    conformal, locally weighted: Lei et al. 2018, §5.2): where votes differ, intervals widen.
    """

    patient = True  # uses the time that it is given
    sampling: Sampling = ONCE  # a subclass, or whoever makes one, may ask for more
    forms: Forms  # of the candidate, whose fits are of one build
    votes_: Ints  # how many votes there are, ()
    noise_: Floats  # number: the standard deviation that the residuals have beyond the votes' spread, ()
    KEPT: ClassVar = {**Converted.KEPT, "votes_": np.int64, "noise_": np.float64}

    @property
    @abstractmethod
    def _where(self) -> str:
        """What errors name."""

    @abstractmethod
    def _start(self, data: Dataset) -> nn.Module:
        """Return the module with its first weights, whose randomness is torch's own generator."""

    @abstractmethod
    def _plan(self, data: Dataset) -> Plan:
        """Return how to train it on these rows."""

    def _restart(self, module: nn.Module) -> None:
        """Give what `_start` returned first weights of its own, where it is not the first member: as a rule it has them."""

    def _settled(self, module: nn.Module) -> nn.Module:
        """Return a module that has learnt as it is scored: as a rule itself."""
        return module

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        """Return self; the same rows and seed give the same model, unless the budget cut it short.

        Members get equal shares of the budget; one that finds no time left is left out, except the first. An interrupt is passed on,
        after what was learnt so far was kept if an epoch was finished. Raises `CaseError` where the module does not fit the rows or
        what is asked of it, `Refused` where its ONNX form does not agree with it.
        """
        try:
            interrupted = self._learn(train, valid, budget, seed)
        finally:
            if not hasattr(self, "shape_"):  # what is fitted shows by its attributes, and half a model is none
                for name in [name for name in vars(self) if name.endswith("_")]:
                    delattr(self, name)
        if interrupted:
            raise KeyboardInterrupt
        return self

    def _learn(self, train: Dataset, valid: Dataset, budget: Budget, seed: int) -> bool:
        """Return whether training was interrupted after something had been learnt."""
        classes = self.task.kind == "classes"
        self._keep_range(features_of(train))
        y = np.asarray(train.outcome, np.float64)
        centre, scale = (0.0, 1.0) if classes else (float(y.mean()), float(y.std()) or 1.0)
        plan = self._plan(train)
        passes = self.sampling.passes
        parts = (self._rows(train, centre, scale), self._rows(valid, centre, scale))
        with plan.runtime.applied(), uncertainty.layer_by_layer():
            members, interrupted = self._members(plan, train, parts, budget, seed)
            if passes:
                row = parts[0].inputs[:1]
                members = [uncertainty.frozen(m, row, passes, seed + i, self._where) for i, m in enumerate(members)]
            scored = _Scored(members, train.shape, passes, (centre, scale) if not classes else None).eval()

            def native(X: Floats) -> Floats:
                rows = torch.split(self._tensor(X), 1 if passes else _BLOCK)
                with torch.no_grad():
                    return torch.cat([scored(row)[1] for row in rows]).double().numpy()

            n_votes = len(members) * max(1, passes)
            self.codes_ = np.arange(len(self.task.classes))
            self.votes_, self.noise_ = np.array(n_votes), np.array(0.0)
            if classes:
                self.shape_ = np.zeros(len(self.task.levels))
            else:
                self._keep_residuals(np.asarray(valid.outcome, np.float64), native(self._clipped(features_of(valid))))
            few = np.arange(min(len(valid), max(64, CHECKED // n_votes)))
            self._convert(scored, lambda: self._check(native, train, valid.take(few), seed, self._where))
        return interrupted

    def _convert(self, scored: _Scored, check: Callable[[], None]) -> None:
        """Make the ONNX form that passes the check: that of an earlier fit with these weights, or else a new one."""
        build = (type(self), len(self.low_), scored.shape, scored.passes, len(scored.members), scored.classes, len(self.codes_))
        known = self.forms.get(build)
        again = refilled(known, scored) if known else None
        if again is not None:
            self.model_ = again
            try:
                return check()
            except Refused:  # built alike, and yet something else
                pass
        self.model_ = self._exported(scored)
        check()
        self.forms[build] = self.model_

    def _members(self, plan: Plan, train: Dataset, parts: tuple[Rows, Rows], budget: Budget, seed: int) -> tuple[list[nn.Module], bool]:
        """Return the trained modules, on the CPU, and whether the last of them was interrupted."""
        members: list[nn.Module] = []
        wanted, passes = self.sampling.members, self.sampling.passes
        loss = losses.squared() if self.task.kind == "number" else losses.cross_entropy()
        for i in range(wanted):
            now, epochs = time.perf_counter(), list[Report]()
            if members and not budget.left(now):
                break
            torch.manual_seed(seed + i)
            module = self._start(train)
            if i:
                self._restart(module)
            elif passes:  # tried now, so that no training is lost, and again at the end: a layer of zeros may hide what comes before it
                uncertainty.frozen(module, parts[0].inputs[:1], passes, seed, self._where)

            def heard(report: Report, epochs: list[Report] = epochs) -> None:
                epochs.append(report)
                budget.tell(str(report))

            session = Session(Budget(budget.left(now) / (wanted - i), now), seed + i, progress=heard)
            try:
                loop.train(Training(module, loss, plan.augment), *parts, plan.recipe, plan.runtime, session)
            except KeyboardInterrupt:
                if epochs:
                    members.append(self._settled(module.cpu()))
                if not members:
                    raise
                return members, True
            members.append(self._settled(module.cpu()))
        return members, False

    def votes(self, data: Dataset) -> Floats:
        """Return what each member and pass says: probabilities (n, n_votes, n_classes), or numbers (n, n_votes, 1)."""
        n_votes, k = int(self.votes_), len(self.task.classes) or 1
        scorer = merge([(_Votes(self), 1.0)], len(self.low_), n_votes * k)
        return scorer(np.ascontiguousarray(features_of(data), np.float32)).reshape(-1, n_votes, k)

    def _keep_residuals(self, outcome: Floats, found: Floats) -> None:
        residual, spread = outcome - found[:, 0], found[:, 1]
        square = residual * residual
        self.noise_ = np.sqrt(np.maximum((square - spread * spread).mean(), _LEAST * square.mean()))
        unit = np.sqrt(spread * spread + self.noise_**2)
        measured = np.divide(residual, unit, out=np.zeros_like(residual), where=unit > 0.0)
        self.shape_ = fit_conformal(np.zeros((len(outcome), len(self.task.levels))), measured, self.task.levels).offsets

    def _quantiles(self, found: Floats) -> Floats:
        unit = np.sqrt(found[:, 1:] * found[:, 1:] + self.noise_**2)
        return np.asarray(found[:, :1] + unit * self.shape_)

    def _write_quantiles(self, graph: Graph, raw: str) -> str:
        mean, spread = (graph.op("Gather", raw, np.array([column]), axis=1) for column in (0, 1))
        unit = graph.op("Sqrt", graph.op("Add", graph.op("Mul", spread, spread), np.asarray(self.noise_**2)))
        return graph.op("Add", mean, graph.op("Mul", unit, self.shape_))

    def _tensor(self, X: Floats) -> Tensor:
        """Return features as what the module is exported with."""
        return torch.from_numpy(np.ascontiguousarray(X, np.float32))

    def _exported(self, module: nn.Module) -> bytes:
        """Return the ONNX form of a module that takes such a row."""
        return exported(module, torch.zeros(1, len(self.low_)), self._where)

    def _inputs(self, X: Floats, shape: Shape | None) -> Tensor:
        return _as_images(self._tensor(self._clipped(X)), shape)

    def _rows(self, data: Dataset, centre: float, scale: float) -> Rows:
        y = np.asarray(data.outcome)
        weight = None if data.weight is None else torch.from_numpy(np.asarray(data.weight, np.float32))
        inputs = self._inputs(features_of(data), data.shape)
        if self.task.kind == "classes":
            return Rows(inputs, torch.from_numpy(y.astype(np.int64)), weight)
        return Rows(inputs, torch.from_numpy(((y - centre) / scale).astype(np.float32)[:, None]), weight)


@dataclass(frozen=True)
class _Votes:
    """What a family's votes are, one after another, as if they were a prediction."""

    family: Trained
    rows = 1

    def write(self, graph: Graph) -> str:
        """Add the members, and return all that they say (1, n_votes · k)."""
        inputs = self.family._write_inputs(graph)
        return graph.double(graph.op("Reshape", graph.include(self.family.model_, inputs, 0), np.array([1, -1])))


def _as_images(features: Tensor, shape: Shape | None) -> Tensor:
    """Return features (n, height · width · channels) as images (n, channels, height, width), or as they are without a shape."""
    return features if shape is None else features.reshape(-1, *shape).permute(0, 3, 1, 2)


class _Scored(nn.Module):
    """Members with what turns their outputs into a prediction: softmax, or the outcome's own unit; and the mean of all votes.

    Without passes it takes n rows; with them one, `passes` times. `unit` is a number's (centre, scale).
    """

    centre: Tensor  # buffers, and so part of the weights
    scale: Tensor

    def __init__(self, members: Sequence[nn.Module], shape: Shape | None, passes: int, unit: tuple[float, float] | None) -> None:
        super().__init__()
        self.members, self.shape, self.passes, self.classes = nn.ModuleList(members), shape, passes, unit is None
        if unit is not None:
            self.register_buffer("centre", torch.tensor(unit[0]))
            self.register_buffer("scale", torch.tensor(unit[1]))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the votes (n_votes, n, k), and probabilities (n, n_classes) or the mean and spread (n, 2) of numbers."""
        inputs = _as_images(features, self.shape)
        if self.passes:
            inputs = inputs.expand(self.passes, *inputs.shape[1:])
        outputs = torch.stack([member(inputs) for member in self.members])
        if self.passes:
            outputs = outputs.flatten(0, 1).unsqueeze(1)
        if self.classes:
            votes = outputs.softmax(-1)
            return votes, votes.mean(0)
        votes = outputs * self.scale + self.centre
        return votes, torch.cat([votes.mean(0), outputs.std(0, correction=0) * self.scale], -1)
