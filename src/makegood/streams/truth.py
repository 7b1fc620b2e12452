"""A stream of decisions to come whose truth is known: the rows, what becomes of them and when that is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from makegood.contracts import Floats, Ints

NEVER = int(np.iinfo(np.int64).max)
"""When an outcome arrives that never does, in microseconds since 1970 (as `monitoring.maturity` has it)."""

DAY = 86_400_000_000  # microseconds
RAMP = 0.25  # how long a gradual change takes, as a share of the rows
START = 1_704_067_200_000_000
"""When the rows to decide on begin: 2024-01-01."""


@dataclass(frozen=True, eq=False)
class Stream:
    """A case, its past, and n rows to decide on, with all that nobody knows in life; times are microseconds since 1970, UTC.

    `case` is the text of a case file. `history` are the rows before the start, every outcome known by then: they train the first
    bundle. `rows` come in the order of the column `time`, without the outcome; `entity` is the column that says whom they are about.
    `outcome` (n,) is what becomes of each, one of `classes`, and `known_at` (n,) when that arrives: within the case's outcome_delay,
    or `NEVER`. `truth` (n, n_classes) is the probability of each outcome, given the whole row at its time. Where the outcome depends
    on the action, `outcome` is (n, n_actions) and `truth` (n, n_actions, n_classes), in the order of `actions`. `truth` knows a value
    too that is hidden from the row by an outage. `changed_at` are the times at which something changed, and `what` says what, in words.
    `challenger` is what a second bundle is trained on, in the kinds that are about one.
    """

    kind: str
    seed: int
    case: str
    what: str
    time: str
    entity: str
    actions: tuple[str, ...]
    classes: tuple[str, ...]
    history: pa.Table
    rows: pa.Table
    outcome: NDArray[np.object_]
    known_at: Ints
    truth: Floats
    changed_at: tuple[int, ...]
    challenger: pa.Table | None = None

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    @property
    def at(self) -> Ints:
        """When each row is decided on (n,)."""
        return np.asarray(self.rows[self.time].cast(pa.int64()).to_numpy())

    def became(self, done: Ints) -> NDArray[np.object_]:
        """Return what becomes of each row (n,) when the action at position `done` (n,) of `actions` is taken."""
        return self.outcome if self.outcome.ndim == 1 else np.take_along_axis(self.outcome, np.asarray(done)[:, None], 1)[:, 0]

    def expected(self, payoffs: Floats) -> Floats:
        """Return what each option pays in expectation on each row, (n, n_options), of its payoffs (n, n_options, n_classes).

        Where the outcome depends on the action, the options are `actions`. A policy is worth the mean of its options' column.
        """
        truth = self.truth if self.truth.ndim == 3 else self.truth[:, None, :]
        return np.asarray((payoffs * truth).sum(axis=2))

    def oracle(self, payoffs: Floats) -> Ints:
        """Return the position (n,) of the option that pays most in expectation: what a decision with the true model would be."""
        return np.asarray(self.expected(payoffs).argmax(axis=1))

    def write(self, folder: Path) -> Path:
        """Write the past as `history.parquet` and beside it the case, whose source that is; return the case file's path."""
        folder.mkdir(parents=True, exist_ok=True)
        parquet.write_table(self.history, folder / "history.parquet")
        path = folder / "case.yaml"
        path.write_text(self.case.replace("data:\n", "data:\n  source: history.parquet\n", 1), encoding="utf-8")
        return path
