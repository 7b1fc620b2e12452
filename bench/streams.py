"""Measure what retraining is worth on each stream with a known truth, and on a real table with drift injected.

    python bench/streams.py             # 20 seeds, some minutes; writes bench/results/streams.json
    python bench/streams.py --seeds 2   # to look at

A stale model has learnt from the past alone; a new one from 3,000 rows after the change was complete, whose outcomes are known by then,
or from these and the past; a challenger, where the stream brings one, from its own rows. Each decides by expected payoff on the rows
after that. On a stream a decision is worth its true expected payoff; on the real table, what it paid.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, Protocol

import lightgbm
import numpy as np
import pyarrow as pa
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from makegood import cases
from makegood.case import Case
from makegood.contracts import Floats, Ints
from makegood.data.prepare import raw_columns
from makegood.economics.payoff import Payoffs
from makegood.streams import DRIFTING, INJECTED, Stream, inject, stream

ROWS, PAST, CHANGE, LEARNT = 20_000, 8_000, 0.3, 3_000
MATURING = 300  # rows between the last that a new model learns from and the first that it decides on: the delay, and a day


class Learner(Protocol):
    """What returns the probability of the second class on rows (n, k), NaN where a value is missing."""

    def __call__(self, X: Floats, y: Ints, rows: Floats) -> Floats: ...


def logistic(X: Floats, y: Ints, rows: Floats) -> Floats:
    """Return the probabilities of a logistic regression; what is missing counts as the median of the rows it learns from."""
    middle = np.array([np.median(np.append(column[~np.isnan(column)], [] if np.isfinite(column).any() else 0.0)) for column in X.T])
    X, rows = (np.where(np.isnan(part), middle, part) for part in (X, rows))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(X, y)
    return np.asarray(model.predict_proba(rows)[:, 1])


def boosted(X: Floats, y: Ints, rows: Floats) -> Floats:
    """Return the probabilities of 120 boosted trees."""
    settings = {"objective": "binary", "num_leaves": 15, "learning_rate": 0.05, "min_data_in_leaf": 40, "verbose": -1, "num_threads": 1}
    return np.asarray(lightgbm.train(settings, lightgbm.Dataset(X, y), 120).predict(rows))


LEARNERS: dict[str, Learner] = {"logistic": logistic, "lightgbm": boosted}


@dataclass(frozen=True)
class Task:
    """Rows in order of time: X (n, k), y (n,), payoffs (n, n_actions, 2) and what each action is worth (n, n_actions).

    The first `past` are the past; `before` and `after` the rows that are judged, `learnt` those that a new model learns from.
    `challenger` are the rows that one is trained on, where there is one.
    """

    X: Floats
    y: Ints
    payoffs: Floats
    worth: Floats
    past: slice
    before: slice
    learnt: slice
    after: slice
    challenger: tuple[Floats, Ints] | None = None

    def decided(self, p: Floats, rows: slice) -> tuple[float, float]:
        """Return what decisions by these probabilities are worth on some rows, and what they promise."""
        expected = (self.payoffs * np.stack([1 - p, p], axis=1)[:, None, :]).sum(axis=2)
        option = expected.argmax(axis=1)[:, None]
        return tuple(float(np.take_along_axis(money, option, 1)[rows].mean()) for money in (self.worth, expected))  # type: ignore[return-value]

    def figures(self, learner: Learner) -> dict[str, float]:
        """Return what the stale and the new models are worth."""
        stale = learner(self.X[self.past], self.y[self.past], self.X)
        found = {"before": self.decided(stale, self.before)[0]}
        found["stale"], found["stale promised"] = self.decided(stale, self.after)
        if self.challenger is not None:
            return found | {"challenger": self.decided(learner(*self.challenger, self.X), self.after)[0]}
        both = np.r_[self.past, self.learnt]
        new = learner(self.X[self.learnt], self.y[self.learnt], self.X)
        found["new"] = self.decided(new, self.after)[0]
        found["new and old rows"] = self.decided(learner(self.X[both], self.y[both], self.X), self.after)[0]
        return found


def matrix(table: pa.Table, like: pa.Table) -> Floats:
    """Return a table's columns as numbers (n, k): levels of a text that 0.5% of the rows of `like` have are columns of 0 and 1."""
    parts = []
    for name in like.column_names:
        column = table[name]
        if pa.types.is_string(column.type):
            counts = like[name].drop_null().value_counts().to_pylist()
            levels = [c["values"] for c in counts if c["counts"] >= like.num_rows / 200]
            values = column.to_numpy(zero_copy_only=False)
            parts += [(values == level).astype(np.float64) for level in levels[1:]]
        else:
            parts.append(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
    return np.stack(parts, axis=1)


def of_stream(made: Stream) -> Task:
    """Return a stream as a task."""
    case = Case.parse(made.case)
    payoffs = Payoffs.of({k: a.model_dump() for k, a in case.decision.actions.items()}, "EUR", made.classes)
    outcome = str(case.data.outcome)
    inputs = [name for name in made.rows.column_names if name not in (made.time, made.entity)]
    table = pa.concat_tables([made.history.select(inputs), made.rows.select(inputs)])
    y = np.r_[made.history[outcome].to_numpy(zero_copy_only=False) == made.classes[1], made.outcome == made.classes[1]].astype(np.int64)
    money = payoffs.table(raw_columns(table))
    worth = np.concatenate([np.zeros((PAST, money.shape[1])), made.expected(money[PAST:])])
    begin = PAST + int(CHANGE * ROWS)
    complete = PAST + int(np.searchsorted(made.at, made.changed_at[-1])) if made.changed_at else begin
    learnt = slice(complete, complete + LEARNT)
    after = slice(learnt.stop + MATURING, None)
    challenger = None
    if made.challenger is not None:
        wrong = made.challenger[outcome].to_numpy(zero_copy_only=False) == made.classes[1]
        challenger = (matrix(made.challenger.select(inputs), table), wrong.astype(np.int64))
    return Task(matrix(table, table), y, money, worth, slice(0, PAST), slice(PAST, begin), learnt, after, challenger)


def of_table(name: str, kind: str, seed: int) -> Task:
    """Return a built-in table with drift injected as a task: its first two fifths are the past."""
    case, outcome = cases.load(name), cases.load(name).data.outcome
    table = cases.builtin(name)
    table = table.filter(table[outcome].is_valid())
    n, past = table.num_rows, int(0.4 * table.num_rows)
    begin = past + (n - past) // 3
    payoffs = Payoffs.of({k: a.model_dump() for k, a in case.decision.actions.items()}, case.decision.unit, ("no", "yes"))
    table, words = inject(table, kind, begin, seed, outcome=outcome, keep=sorted(payoffs.names))
    print(f"  {name} {seed}: {words}", flush=True)
    y = (table[outcome].to_numpy(zero_copy_only=False) == "yes").astype(np.int64)
    money = payoffs.table(raw_columns(table))
    worth = np.take_along_axis(money, y[:, None, None], 2)[:, :, 0]
    complete = begin + (n // 4 if kind == "gradual" else 0)
    learnt = slice(complete, complete + LEARNT)
    X = matrix(table.drop_columns([outcome, "decided_at"]), table.slice(0, past).drop_columns([outcome, "decided_at"]))
    return Task(X, y, money, worth, slice(0, past), slice(past, begin), learnt, slice(learnt.stop + MATURING, None))


def summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Return the mean of each figure over the seeds, and what the new models gain over the stale one, with its standard error."""
    means: dict[str, Any] = {name: round(float(np.mean([row[name] for row in rows])), 2) for name in rows[0]}
    for name in sorted({"new", "new and old rows", "challenger"} & rows[0].keys()):
        gains = np.array([row[name] - row["stale"] for row in rows])
        means[f"gain of {name}"] = round(float(gains.mean()), 2)
        means[f"its standard error ({name})"] = round(float(gains.std(ddof=1) / np.sqrt(len(gains))), 2) if len(gains) > 1 else None
    return means


def main() -> None:
    """Measure every kind with both learners, print each as it ends, and write the figures."""
    import result

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20, help="of each kind; fewer than 20 are not written")
    seeds = parser.parse_args().seeds
    found: dict[str, Any] = {}
    for kind in ("stable", *DRIFTING, "heavy", "harmful", "useless"):  # in the others the rows and what becomes of them are the stable ones
        tasks = [of_stream(stream(kind, seed, n=ROWS, history=PAST, change=CHANGE)) for seed in range(seeds)]
        oracle = float(np.mean([task.worth[task.after].max(axis=1).mean() for task in tasks]))
        found[kind] = {"oracle": round(oracle, 2), **{k: summary([t.figures(f) for t in tasks]) for k, f in LEARNERS.items()}}
        print(kind, found[kind], flush=True)
    for kind in INJECTED:
        tasks = [of_table("credit-risk", kind, seed) for seed in range(min(seeds, 5))]
        found[f"injected {kind}"] = {k: summary([t.figures(f) for t in tasks]) for k, f in LEARNERS.items()}
        print(kind, found[f"injected {kind}"], flush=True)
    if seeds >= 20:
        result.write("streams", {"seeds": seeds, "money": found}, ("numpy", "scikit-learn", "lightgbm"))


if __name__ == "__main__":
    main()
