"""Four small families for the kinds of prediction that no built-in family returns yet: the proof that the contract carries them.

Each is a real learner on generated data, written as an outsider would write it: with what `makegood.contracts` says and no more.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from makegood.contracts import LEVELS, Budget, Dataset, Effects, Floats, Predictive, Quantiles, Ranking, Text


class TLearner:
    """Effects: one least-squares line for each arm of a randomised trial, with the standard error of its mean.

    `table["done"]` tells the arm of each row; of the potential outcomes (n, n_actions) only the one that was done is looked at.
    """

    actions = ("wait", "treat")
    lines_: Floats  # (n_actions, p + 1)
    roots_: Floats  # (n_actions, p + 1, p + 1): |x @ root| is the standard error at x

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        X, done, y = self._design(train), train.table["done"].to_numpy(), np.asarray(train.outcome)
        lines, roots = [], []
        for arm in range(len(self.actions)):
            A, b = X[done == arm], y[done == arm, arm]
            gram = A.T @ A + 1e-6 * np.eye(A.shape[1])
            lines.append(np.linalg.solve(gram, A.T @ b))
            noise = float(((b - A @ lines[-1]) ** 2).sum() / (len(b) - A.shape[1]))
            roots.append(np.linalg.cholesky(np.linalg.inv(gram) * noise))
        self.lines_, self.roots_ = np.array(lines), np.array(roots)
        return self

    def _design(self, data: Dataset) -> Floats:
        X = np.clip(np.asarray(data.features, np.float64), -1e6, 1e6)
        return np.column_stack([X, np.ones(len(X))])

    def predict(self, data: Dataset) -> Predictive:
        X = self._design(data)
        mean = np.column_stack([(X * line).sum(axis=1) for line in self.lines_])
        se = [np.sqrt(sum((X * column).sum(axis=1) ** 2 for column in root.T)) for root in self.roots_]
        return Effects(self.actions, mean, np.column_stack(se))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "state.json").write_text(json.dumps({"lines": self.lines_.tolist(), "roots": self.roots_.tolist()}))

    @classmethod
    def load(cls, folder: Path) -> Self:
        self, state = cls(), json.loads((folder / "state.json").read_text())
        self.lines_, self.roots_ = np.array(state["lines"]), np.array(state["roots"])
        return self


class CoOccurrence:
    """Ranking: items wanted by rows that had seen the same ones; the popular ones where nothing known was seen.

    `table["seen"]` lists the items of each row's past; the outcome is the set of items that it wanted next.
    """

    k = 3
    chances_: dict[str, dict[str, float]]  # seen → wanted → probability; "" is anyone

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        wanted: dict[str, Counter[str]] = {"": Counter()}
        for seen, items in zip(train.table["seen"].to_pylist(), np.asarray(train.outcome), strict=True):
            for key in ("", *(seen or ())):
                wanted.setdefault(key, Counter()).update(dict.fromkeys(items, 1) | {"n": 1})
        catalogue = sorted(set(wanted[""]) - {"n"})
        self.chances_ = {key: {item: count[item] / count["n"] for item in catalogue} for key, count in sorted(wanted.items())}
        return self

    def predict(self, data: Dataset) -> Predictive:
        items, scores = np.empty((len(data), self.k), object), np.empty((len(data), self.k))
        for i, seen in enumerate(data.table["seen"].to_pylist()):
            known = [key for key in seen or () if key in self.chances_] or [""]
            score = {item: sum(self.chances_[key][item] for key in known) / len(known) for item in self.chances_[""]}
            best = sorted(score, key=lambda item, score=score: -score[item])[: self.k]  # type: ignore[misc]
            items[i], scores[i] = best, [score[item] for item in best]
        return Ranking(items, scores)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "state.json").write_text(json.dumps(self.chances_))

    @classmethod
    def load(cls, folder: Path) -> Self:
        self = cls()
        self.chances_ = json.loads((folder / "state.json").read_text())
        return self


class SeasonalNaive:
    """Quantiles over a horizon: the last season again, spread by the residuals that this left in training, step by step.

    `table["past"]` holds each row's last values, at least one season; the outcome (n, horizon) is what followed.
    """

    season = 4
    levels = LEVELS
    spread_: Floats  # (horizon, n_levels)

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        y = np.asarray(train.outcome)
        residuals = y - self._again(train, y.shape[1])
        self.spread_ = np.quantile(residuals, self.levels, axis=0).T
        return self

    def _again(self, data: Dataset, horizon: int) -> Floats:
        pasts = [[0.0 if v is None else v for v in past or [0.0] * self.season] for past in data.table["past"].to_pylist()]
        last = np.array([past[-self.season :] for past in pasts]).reshape(-1, self.season)
        return last[:, np.arange(horizon) % self.season]

    def predict(self, data: Dataset) -> Predictive:
        return Quantiles(self.levels, self._again(data, len(self.spread_))[:, :, None] + self.spread_)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "state.json").write_text(json.dumps(self.spread_.tolist()))

    @classmethod
    def load(cls, folder: Path) -> Self:
        self = cls()
        self.spread_ = np.array(json.loads((folder / "state.json").read_text()))
        return self


class NearestQuestion:
    """Text: the answer to the most similar question seen (Jaccard), with how often such answers were right on validation rows."""

    known_: dict[str, str]  # question → answer
    rates_: tuple[float, float]  # how often right: less similar than one half, and at least that

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        self.known_ = dict(zip(train.table["question"].to_pylist(), np.asarray(train.outcome).tolist(), strict=True))
        right = {False: [1, 2], True: [1, 2]}
        for question, answer in zip(valid.table["question"].to_pylist(), np.asarray(valid.outcome), strict=True):
            nearest, similarity = self._nearest(question)
            tally = right[similarity >= 0.5]
            tally[0] += self.known_[nearest] == answer
            tally[1] += 1
        self.rates_ = (right[False][0] / right[False][1], right[True][0] / right[True][1])
        return self

    def _nearest(self, question: str | None) -> tuple[str, float]:
        words = set((question or "").split())

        def similarity(other: str) -> float:
            theirs = set(other.split())
            return len(words & theirs) / max(1, len(words | theirs))

        best = max(self.known_, key=similarity)
        return best, similarity(best)

    def predict(self, data: Dataset) -> Predictive:
        found = [self._nearest(question) for question in data.table["question"].to_pylist()]
        confidence = np.array([self.rates_[similarity >= 0.5] for _, similarity in found], np.float64)
        return Text(tuple(self.known_[q] for q, _ in found), confidence, tuple((q,) for q, _ in found))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "state.json").write_text(json.dumps([self.known_, self.rates_]))

    @classmethod
    def load(cls, folder: Path) -> Self:
        self = cls()
        self.known_, rates = json.loads((folder / "state.json").read_text())
        self.rates_ = (rates[0], rates[1])
        return self


# -------------------------------------------------------------------------------------------------------------- their data


def trial(n: int = 300, seed: int = 0) -> Dataset:
    """Return a randomised trial: the treatment helps where the first feature is positive and harms elsewhere."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)).astype(np.float32)
    base = 10.0 + X[:, 1] + rng.normal(size=n)
    done = rng.integers(0, 2, n)
    return Dataset(pa.table({"done": done}), X, np.column_stack([base, base + 3.0 * X[:, 0]]))


def baskets(n: int = 300, seed: int = 0) -> Dataset:
    """Return rows of two tastes: who saw bread wants butter or jam, who saw nails wants a hammer or a saw."""
    rng = np.random.default_rng(seed)
    tastes = (("bread", "flour"), ("butter", "jam")), (("nails", "screws"), ("hammer", "saw"))
    seen, wanted = [], np.empty(n, object)
    for i in range(n):
        had, wants = tastes[int(rng.integers(2))]
        seen.append([had[int(rng.integers(2))]])
        wanted[i] = frozenset({wants[int(rng.random() < 0.3)]})
    return Dataset(pa.table({"seen": pa.array(seen, pa.list_(pa.string()))}), outcome=wanted)


def demand(n: int = 200, seed: int = 0) -> Dataset:
    """Return quarterly demand at n sites: a season of four and noise, and the six quarters that follow."""
    rng = np.random.default_rng(seed)
    level, season = rng.uniform(50.0, 100.0, (n, 1)), rng.normal(0.0, 10.0, (n, 4))
    values = level + season[:, np.arange(14) % 4] + rng.normal(0.0, 3.0, (n, 14))
    return Dataset(pa.table({"past": pa.array(values[:, :8].tolist())}), outcome=values[:, 8:])


def questions(n: int = 120, seed: int = 0) -> Dataset:
    """Return requests in varying words, each with its right answer."""
    rng = np.random.default_rng(seed)
    topics = {"lost card": "block it", "new card": "order it", "late payment": "call us", "wrong fee": "refund it"}
    filler = ("please", "help", "my", "the", "about", "urgent", "hello", "today")
    asked, answers = [], []
    for _ in range(n):
        topic = list(topics)[int(rng.integers(len(topics)))]
        asked.append(f"{topic} {' '.join(rng.choice(filler, 3, replace=False))}")
        answers.append(topics[topic])
    return Dataset(pa.table({"question": asked}), outcome=np.array(answers, object))


def strange(**columns: Any) -> Dataset:
    """Return rows as no training row was: nothing there, or words never seen."""
    return Dataset(pa.table(columns))
