"""Networks for texts: rows of which some features are token ids (`Dataset.tokens`), to classes or a number.

A graph scores a row at a time, and of it only the tokens that are no padding: a short text costs what it costs alone, however long
the texts of the case may be.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import torch
from torch import Generator, Tensor, nn

from makegood.contracts import Budget, Dataset, Floats, Ints, Tokens
from makegood.errors import CaseError, Problem
from makegood.families._torch import texts
from makegood.families._torch.export import exported
from makegood.families._torch.loop import Recipe, Runtime
from makegood.families._torch.texts import Beside, Reader, WordDropout
from makegood.families.tabular import features_of
from makegood.families.trained import Forms, Plan, Trained

if TYPE_CHECKING:
    from makegood.families.onnx import Graph
    from makegood.scorer import Scorer

_HUGE = np.float32(3e38)
_ODD = 24  # rows at the edges of what a text may be


class TextNetwork(Trained):
    """A network for texts. Ids are rounded, and those outside the vocabulary read as if on its border."""

    forms: Forms = {}  # noqa: RUF012  (shared by all fits of a class, as it is meant to be)
    tokens_: Ints  # the fields of `Tokens`, in their order
    KEPT: ClassVar = {**Trained.KEPT, "tokens_": np.int64}

    @abstractmethod
    def _network(self, tokens: Tokens, beside: Floats, k: int) -> nn.Module:
        """Return the module with its first weights; `beside` (n, m) are the other columns of the rows that it learns from."""

    @abstractmethod
    def _recipe(self, n: int) -> Recipe:
        """Return how to train it on n texts."""

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        """Return self, as `Trained` says; raises `CaseError` for rows without a text."""
        if train.tokens is None:
            raise CaseError(Problem(self._where, "rows without a text", "a column of texts", "name it: data.text: COLUMN"))
        at = train.tokens
        self.tokens_ = np.array([at.first, at.windows, at.length, at.vocabulary, at.pad])
        return super().fit(train, valid, budget=budget, seed=seed)

    @property
    def tokens(self) -> Tokens:
        """Where the features of the rows that it was fitted on hold token ids."""
        return Tokens(*self.tokens_.tolist())

    @property
    def _beside(self) -> Ints:
        """The features that are no token ids."""
        return np.delete(np.arange(len(self.low_)), self.tokens.columns)

    def _keep_range(self, X: Floats) -> None:
        super()._keep_range(X)
        self.low_, self.high_ = self.low_.astype(np.float32), self.high_.astype(np.float32)
        self.low_[self.tokens.columns], self.high_[self.tokens.columns] = 0.0, self.tokens.vocabulary - 1.0

    def _start(self, data: Dataset) -> nn.Module:
        return self._network(self.tokens, features_of(data)[:, self._beside], len(self.task.classes) or 1)

    def _augment(self) -> Callable[[Tensor, Generator], Tensor] | None:
        """Return what changes the texts of a batch on the way."""
        return None

    def _plan(self, data: Dataset) -> Plan:
        recipe, tokens = self._recipe(len(data)), self.tokens
        parts = 2 ** math.ceil(math.log2(max(1.0, recipe.batch_size * tokens.windows * tokens.length / texts.MOST)))
        parts = min(parts, recipe.batch_size)
        recipe = replace(recipe, batch_size=recipe.batch_size // parts, accumulate=parts)
        return Plan(recipe, self._runtime(), self._augment())

    def _runtime(self) -> Runtime:
        if torch.cuda.is_available():
            return Runtime("cuda", "bf16" if torch.cuda.is_bf16_supported() else "fp32")
        return Runtime()

    def _tensor(self, X: Floats) -> Tensor:
        """Return rows (n, n_features) as `Reader` wants them (n, windows, others + length)."""
        at, beside = self.tokens, self._beside
        out = np.empty((len(X), at.windows, len(beside) + at.length), np.float32)
        out[:, :, : len(beside)] = X[:, None, beside]
        out[:, :, len(beside) :] = X[:, at.columns].reshape(len(X), at.windows, at.length)
        return torch.from_numpy(out)

    def _exported(self, module: nn.Module) -> bytes:
        at, m = self.tokens, len(self._beside)
        row = torch.zeros(1, min(at.windows, 2), m + min(at.length, 8))
        row[..., m:] = float(at.vocabulary - 1 - at.pad)  # any id but that of the padding
        sizes = {2: m + at.length} | ({1: max(at.windows, 3)} if at.windows > 1 else {})  # from 2 to 2 would be fixed
        return exported(module, row, self._where, sizes)

    def _write_inputs(self, graph: Graph) -> str:
        """Add the clipped features as (1, w, m + t): the w windows that hold a token, as long as the longest of them."""
        at, beside = self.tokens, self._beside
        one = np.array([1])
        clipped = super()._write_inputs(graph)
        ids = graph.op("Round", graph.op("Gather", clipped, np.arange(at.columns.start, at.columns.stop), axis=1))
        ids = graph.op("Reshape", ids, np.array([at.windows, at.length]))
        padded = graph.single(graph.op("Equal", ids, np.array(at.pad, np.float32)))
        ends = graph.op("Mul", graph.op("Sub", np.array(1.0, np.float32), padded), np.arange(1, at.length + 1, dtype=np.float32))
        length = graph.op(
            "ReduceMax", graph.op("Max", ends, np.array(min(texts.LEAST, at.length), np.float32)), np.array([0, 1]), keepdims=0
        )
        stop = graph.op("Unsqueeze", graph.op("Cast", length, to=7), np.array([0]))
        if at.windows > 1:
            first = (np.arange(at.windows) == 0).astype(np.float32)  # counts even where a row holds no token at all
            used = graph.op("Max", graph.op("ReduceMax", ends, one, keepdims=0), first)
            ids = graph.op("Compress", ids, graph.op("Greater", used, np.array(0.0, np.float32)), axis=0)
        ids = graph.op("Slice", ids, np.array([0]), stop, one)
        if len(beside):
            windows = graph.op("Shape", ids, start=0, end=1)
            shape = graph.op("Concat", windows, np.array([len(beside)]), axis=0)
            ids = graph.op("Concat", graph.op("Expand", graph.op("Gather", clipped, beside, axis=1), shape), ids, axis=1)
        return graph.op("Unsqueeze", ids, np.array([0]))

    def _edges(self, scorer: Scorer, X: Floats, seed: int) -> Floats:
        """Return rows with any tokens, of any length, with none, and with the largest magnitudes."""
        rng, at = np.random.default_rng(seed), self.tokens
        rows = X[rng.integers(0, len(X), _ODD)].astype(np.float32)
        ids = rng.uniform(-1.0, at.vocabulary, (_ODD, at.windows, at.length)).astype(np.float32)
        ids[np.arange(at.length) >= rng.integers(0, at.length + 1, (_ODD, at.windows, 1))] = at.pad
        ids[rng.random((_ODD, at.windows)) < 0.3] = at.pad
        ids[0], ids[1] = at.pad, rng.integers(0, at.vocabulary, ids[1].shape)
        rows[:, at.columns] = ids.reshape(_ODD, -1)
        return np.concatenate([rows, np.full((2, X.shape[1]), [[_HUGE], [-_HUGE]], np.float32)])

    def _read_beside(self, beside: Floats, d: int) -> Beside | None:
        """Return what reads the other columns, None where there are none."""
        if not beside.shape[1]:
            return None
        mean, deviation = beside.mean(axis=0, dtype=np.float64), beside.std(axis=0, dtype=np.float64)
        deviation[deviation <= 1e-6 * np.abs(mean)] = 1.0  # it never varies, but for rounding
        centre, spread = (torch.from_numpy(a.astype(np.float32)) for a in (mean, np.maximum(deviation, 1e-30)))
        return Beside(centre, spread, d)


class Encoder(TextNetwork):
    """A small Transformer over the tokens of a text, which starts from nothing; a tenth of the words is left out at each step."""

    D, HEADS, DEPTH, DROPOUT, GAPS = 128, 4, 2, 0.1, 0.1

    @property
    def _where(self) -> str:
        return "train.families: encoder"

    def _network(self, tokens: Tokens, beside: Floats, k: int) -> nn.Module:
        words = texts.Words(tokens.vocabulary, tokens.length, d=self.D, heads=self.HEADS, depth=self.DEPTH, dropout=self.DROPOUT)
        return Reader(words, self.D, self._read_beside(beside, self.D), k, pad=tokens.pad, dropout=self.DROPOUT)

    def _augment(self) -> WordDropout:
        return WordDropout(len(self._beside), self.tokens.pad, self.GAPS)

    def _recipe(self, n: int) -> Recipe:
        batch = int(np.clip(2 ** round(np.log2(max(1, n) / 30)), 16, 128))
        epochs = max(6, round(3000 * batch / max(1, n)))
        return Recipe(epochs, batch, 2e-3 * (batch / 128) ** 0.5, schedule="one-cycle", warm_up=0.2, weight_decay=5e-2, clip=1.0)

    def _runtime(self) -> Runtime:
        return super()._runtime() if torch.cuda.is_available() else Runtime(threads=1)
