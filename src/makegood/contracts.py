"""The values that flow between the rooms, and the protocols that they meet.

One frozen value per arrow of the loop. Evaluation, policy and (later) monitoring know the five kinds of `Predictive` and nothing
of families or modalities. This module imports NumPy alone: a served bundle needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]
Columns = Mapping[str, NDArray[Any]]
"""A columnar batch: float64 arrays (NaN is missing) for numbers, booleans and dates; object arrays of
`str | None` for texts, and of `bytes | None` (raw pixels) for images."""


# ---------------------------------------------------------------------------------------------------------------- figures


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval.

    `low` and `high` are NaN where no interval can be given (fewer than 6 clusters). `tail_limited` says that n < 25·skew², so
    that the nominal level is optimistic (MATHEMATICS §2).

    >>> print(Estimate(1.234, 1.0, 1.5, "EUR"))
    1.23 [1, 1.5] EUR
    """

    value: float
    low: float
    high: float
    unit: str = ""
    level: float = 0.95
    tail_limited: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain data: NaN becomes None, so that the JSON is valid."""
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(self).items()}

    def __str__(self) -> str:
        def short(x: float) -> str:
            return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.3g}"

        return f"{short(self.value)} [{short(self.low)}, {short(self.high)}] {self.unit}".rstrip()


# ------------------------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class Finding:
    """Something that the data showed, and what was done about it."""

    kind: str  # leak, duplicate, missing_outcome, mixed_type, ragged_row, encoding, constant, id, text, protected, purged, …
    column: str  # "" when it concerns rows
    count: int  # rows (or values) concerned
    detail: str  # a full sentence for the report
    action: str  # excluded, dropped, treated as missing, kept
    severity: str = "note"  # note, warning, leak


@dataclass(frozen=True)
class Tokens:
    """Where the features hold token ids: `features[:, first : first + windows * length]`, window after window.

    An id is in [0, `vocabulary`); `pad` fills what a text does not. Each window that holds a part of the text begins and ends with
    the tokenizer's own tokens for that ([CLS] and [SEP]), where it has such.
    """

    first: int
    windows: int
    length: int
    vocabulary: int
    pad: int

    @property
    def columns(self) -> slice:
        """The features that are token ids.

        >>> Tokens(first=2, windows=2, length=8, vocabulary=100, pad=0).columns
        slice(2, 18, None)
        """
        return slice(self.first, self.first + self.windows * self.length)


@dataclass(frozen=True)
class Dataset:
    """Rows as a family sees them.

    `table` holds the columns as read, `features` (n, n_features) float32 what preparation made of them (None before it, and for
    families that read `table`). `shape` (height, width, channels) says that the features are the pixels of one image, in that order,
    and nothing else. `tokens` says which of them are the token ids of a text. `outcome` is int64 class codes (n,) or float64 values
    (n,), or whatever the family's kind of prediction needs (relevant items, potential outcomes); None when unknown, as at serving.
    `predict` never reads it.
    """

    table: pa.Table
    features: Floats | None = None
    outcome: NDArray[Any] | None = None
    weight: Floats | None = None
    shape: tuple[int, int, int] | None = None
    tokens: Tokens | None = None

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def take(self, rows: Ints) -> Dataset:
        """Return the given rows, in the given order."""
        return Dataset(
            self.table.take(rows),
            None if self.features is None else self.features[rows],
            None if self.outcome is None else self.outcome[rows],
            None if self.weight is None else self.weight[rows],
            self.shape,
            self.tokens,
        )

    def without_outcome(self) -> Dataset:
        """Return the same rows as serving sees them."""
        return Dataset(self.table, self.features, shape=self.shape, tokens=self.tokens)


@dataclass(frozen=True)
class Fold:
    """Row positions: `train` may be learnt from, `test` is held out. Disjoint."""

    train: Ints
    test: Ints


@dataclass(frozen=True)
class Splits:
    """How rows are held out.

    `method` is "time", "declared", "group", "stratified" or "crossfit"; crossfit has ten folds whose tests cover every row once, the others
    one. `clusters` (n,) int64 names the unit of resampling (group, or time block), None when rows are independent. `hash` is
    the published fingerprint of the test rows.
    """

    method: str
    folds: tuple[Fold, ...]
    hash: str
    seed: int
    clusters: Ints | None = None
    order: Ints | None = None  # rank in time (n,), where there is a time
    purged: int = 0  # rows left out since their outcome was not yet known when the test began
    detail: str = ""
    repeated: int = 0  # rows not learnt from on some fold, since their text nearly repeats one of its test


# ------------------------------------------------------------------------------------------------------------ predictions


@dataclass(frozen=True)
class Probabilities:
    """p (n, n_classes), rows sum to one; `classes` are the outcome's own values as text."""

    classes: tuple[str, ...]
    p: Floats

    def __len__(self) -> int:
        return len(self.p)


@dataclass(frozen=True)
class Quantiles:
    """q (n, n_levels), or (n, horizon, n_levels) over a horizon; non-decreasing along the last axis; `levels` in (0, 1)."""

    levels: tuple[float, ...]
    q: Floats

    def __len__(self) -> int:
        return len(self.q)


@dataclass(frozen=True)
class Ranking:
    """`items` (n, k) item ids and `scores` (n, k), each the probability that the item is wanted; best first."""

    items: NDArray[Any]
    scores: Floats

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Effects:
    """`mean` (n, n_actions) expected outcome under each action and its standard error `se`."""

    actions: tuple[str, ...]
    mean: Floats
    se: Floats

    def __len__(self) -> int:
        return len(self.mean)


@dataclass(frozen=True)
class Text:
    """n answers, the probability (n,) that each is right, and what each cites."""

    answers: tuple[str, ...]
    confidence: Floats
    citations: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.answers)


LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Task:
    """What is to be predicted: one of `classes`, or a number by its quantiles at `levels`."""

    kind: Literal["classes", "number"]
    classes: tuple[str, ...] = ()
    levels: tuple[float, ...] = LEVELS


Predictive = Probabilities | Quantiles | Ranking | Effects | Text


@dataclass(frozen=True)
class Budget:
    """Seconds that a piece of work may take, counted from `start` on `time.perf_counter`, and who is told how far it has come."""

    seconds: float
    start: float
    tell: Callable[[str], None] = field(default=lambda words: None, compare=False, repr=False)

    def left(self, now: float) -> float:
        """Return the seconds that remain at `now`; never negative."""
        return max(0.0, self.start + self.seconds - now)


class Family(Protocol):
    """What learns. `fit` returns self; `predict` never sees the outcome; `load(save(f))` predicts identically."""

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self: ...

    def predict(self, data: Dataset) -> Predictive: ...

    def save(self, folder: Path) -> None: ...

    @classmethod
    def load(cls, folder: Path) -> Self: ...


# --------------------------------------------------------------------------------------------------------------- decisions


@dataclass(frozen=True)
class Choices:
    """What a policy does on n rows.

    `option` (n,) positions in the payoffs' options; `expected` (n, n_options) expected payoff under the calibrated predictive;
    `promise` (n,) the calibrated expected payoff of the chosen option; `propensity` (n,) in (0, 1]; `guaranteed` (n,) the least that
    the chosen option pays over the prediction set, where there are sets.
    """

    option: Ints
    expected: Floats
    promise: Floats
    propensity: Floats
    guaranteed: Floats | None = None

    def __len__(self) -> int:
        return len(self.option)


@dataclass(frozen=True)
class Reason:
    """How much one column moved the chosen action's margin over the best other action, in money (MATHEMATICS §12)."""

    column: str
    value: str
    money: float


@dataclass(frozen=True)
class Decision:
    """One decision, as it is returned to the caller.

    Where the case asks for prediction sets, `prediction_set` names the outcomes that are to be reckoned with, and `guaranteed` is
    the least that the action pays over them.
    """

    id: str
    action: str
    quantity: float | None
    promise: float
    unit: str
    propensity: float
    predictive: dict[str, Any]
    reasons: tuple[Reason, ...]
    model: str
    notes: tuple[str, ...] = ()  # values of this row that were treated as missing or unseen
    prediction_set: tuple[str, ...] | None = None
    guaranteed: float | None = None


# --------------------------------------------------------------------------------------------------------------- computing


@dataclass(frozen=True, slots=True)
class Usage:
    """What a piece of work took of the machine.

    `wall_s` by the clock; `cpu_s` of the process, all its threads, and the children that it waited for; `gpu_s` during which it held
    a GPU; `peak_bytes` the most memory that the process held meanwhile, None where the system does not tell; `money` that is at the
    case's prices. `a + b` is a, then b.

    >>> Usage(2.0, 1.5, peak_bytes=10) + Usage(1.0, 4.0, peak_bytes=30)
    Usage(wall_s=3.0, cpu_s=5.5, gpu_s=0.0, peak_bytes=30, money=0.0)
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    peak_bytes: int | None = None
    money: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        peaks = [peak for peak in (self.peak_bytes, other.peak_bytes) if peak is not None]
        return Usage(
            self.wall_s + other.wall_s,
            self.cpu_s + other.cpu_s,
            self.gpu_s + other.gpu_s,
            max(peaks, default=None),
            self.money + other.money,
        )


@dataclass(frozen=True)
class Compute:
    """What it takes to train and to decide, measured, and what that costs each decision; figures of one run, without an interval.

    `training` is all that was learnt, on outer folds too; `candidates` is each one's part of the last round; `decision` one decision
    of the finished model, measured on `rows` of them. `decisions` is how many a training serves (None: not said). `per_decision` is
    what the model's value and gains are net of: training.money / decisions + decision.money, or 0 without prices.
    """

    training: Usage
    candidates: dict[str, Usage]
    decision: Usage
    rows: int
    decisions: float | None
    per_decision: float


# -------------------------------------------------------------------------------------------------------------- evaluation


@dataclass(frozen=True)
class PayoffRange:
    """How far one payoff may be off (MATHEMATICS §11).

    The payoff of `action` when the outcome is `outcome` ("" when it is one expression) is multiplied by a factor. With the
    chosen actions held, the verdict stands for factors in [verdict_low, verdict_high] and turns at `break_even` (the factor at
    which the mean gain over the best baseline is zero; NaN: never). Re-optimised, at least 95% of the actions stay the same for
    factors in [actions_low, actions_high] (NaN where the policy is averse). `mean` is the payoff's mean as declared, over the rows
    concerned, so that a reader sees money. Infinite ends are allowed.
    """

    action: str
    outcome: str
    expression: str
    mean: float
    verdict_low: float
    verdict_high: float
    break_even: float
    actions_low: float
    actions_high: float


@dataclass(frozen=True)
class Slice:
    """One group of rows: what it earns and how it is treated. `shares` maps action → share of the rows."""

    column: str
    level: str
    n: int
    value: Estimate
    gap: Estimate  # promised − realised
    shares: dict[str, float]
    protected: bool = False


@dataclass(frozen=True)
class Guarantee:
    """What was guaranteed of the decisions with probability `level`, and how often they paid less.

    `amount` is the mean guaranteed payoff of a decision, `broken` the share of decisions whose payoff was below their own, at most
    1 − `level` as promised. `averse`: the actions were chosen by what they guarantee, not by what they are expected to pay.
    """

    level: float
    averse: bool
    amount: Estimate
    broken: Estimate


@dataclass(frozen=True)
class Rated:
    """How a group of n rows is rated on its scale; `column` and `level` name the group, both "" for all levels of the scale, averaged.

    `kappa` is Cohen's, quadratically weighted, of the ranks that the model gives against the true ones; `raters` that of the two human
    raters who agree least, None without raters; `difference` the mean of given less true rank, in ranks.
    """

    column: str
    level: str
    n: int
    kappa: Estimate
    raters: Estimate | None
    difference: Estimate


@dataclass(frozen=True)
class Evaluation:
    """What a model is worth, on rows that it has not seen.

    What is said of the model's value is net of computing (`compute.per_decision`): `value`, `gains`, `curve`, `payoff_ranges` and
    the slices' values. Promises, and the gap to what was realised, are of payoffs alone, on both sides.
    """

    unit: str
    n: dict[str, int]  # train, valid, test
    value: Estimate
    baselines: dict[str, Estimate]  # "today", "always approve", …
    gains: dict[str, Estimate]  # paired, against each baseline
    gain: Estimate  # against the baseline with the least lower limit
    gain_over: str  # that baseline's name
    oracle: Estimate
    promised: Estimate
    gap: Estimate  # promised − realised, paired
    metrics: dict[str, Estimate]
    shares: dict[str, float]  # action → share of decisions
    curve: tuple[tuple[float, float], ...]  # profit curve: (share acted on by the model, value per decision)
    decision_curve: tuple[tuple[float, float, float], ...]  # (threshold, net benefit model, net benefit of acting on all)
    calibration: tuple[tuple[float, float, int], ...]  # (predicted, observed, n) by bin
    promise_curve: tuple[tuple[float, float, int], ...]  # (promised, realised, n) by bin
    payoff_ranges: tuple[PayoffRange, ...]
    slices: tuple[Slice, ...]
    drivers: tuple[tuple[str, float], ...]  # column, mean |money| of its reasons
    confusion: dict[str, dict[str, int]]  # action → outcome → rows (classes only)
    verdict: str  # "deploy" | "refuse"
    why: str
    opened: int = 1  # how often these test rows were opened
    level: float = 0.95  # of the verdict: 1 − 0.05 / opened
    candidates: tuple[dict[str, Any], ...] = ()  # name, weight, log_loss, value before computing
    calibrator: str = ""
    compute: Compute | None = None
    guarantee: Guarantee | None = None
    ratings: tuple[Rated, ...] = ()

    @property
    def cost(self) -> float:
        """What computing costs a decision; 0 where it has no price."""
        return self.compute.per_decision if self.compute else 0.0

    @property
    def payoff(self) -> Estimate:
        """What the decisions paid, before computing: what promises are compared with."""
        net = self.value
        return replace(net, value=net.value + self.cost, low=net.low + self.cost, high=net.high + self.cost)


@dataclass(frozen=True)
class Mistake:
    """A held-out decision on an image, and what another action would have paid more.

    `image` (height, width, channels) uint8, None where there was none that could be read; `place` says where it lies, "" if nobody
    knows. `outcome` came true; `predicted` is the most probable one, or the median of a number. Their predicted probabilities are
    NaN for a number. `loss` is what `best`, the best action in hindsight, would have paid more than `action`.
    """

    image: NDArray[np.uint8] | None
    place: str
    outcome: str
    predicted: str
    p_outcome: float
    p_predicted: float
    action: str
    best: str
    loss: float


@dataclass(frozen=True)
class Mistakes:
    """What hindsight would have done better: on `count` of `n` held-out rows, by `total` in `unit`; the `costliest` first."""

    unit: str
    n: int
    count: int
    total: float
    costliest: tuple[Mistake, ...]


@dataclass(frozen=True)
class Run:
    """A finished run: where it is and what it found."""

    case: str
    id: str
    folder: Path
    bundle: Path | None
    report: Path | None
    seconds: float
    evaluation: Evaluation | None
    findings: tuple[Finding, ...] = ()
    split: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> Estimate | None:
        """Mean payoff per decision."""
        return self.evaluation.value if self.evaluation else None

    @property
    def gain(self) -> Estimate | None:
        """Gain per decision over the hardest baseline."""
        return self.evaluation.gain if self.evaluation else None


def rows_of(columns: Columns) -> int:
    """Return the number of rows of a columnar batch.

    >>> rows_of({"a": np.zeros(3)})
    3
    """
    return len(next(iter(columns.values()))) if columns else 0


__all__ = [
    "Bools",
    "Budget",
    "Choices",
    "Columns",
    "Compute",
    "Dataset",
    "Decision",
    "Effects",
    "Estimate",
    "Evaluation",
    "Family",
    "Finding",
    "Floats",
    "Fold",
    "Guarantee",
    "Ints",
    "LEVELS",
    "Mistake",
    "Mistakes",
    "PayoffRange",
    "Predictive",
    "Probabilities",
    "Quantiles",
    "Ranking",
    "Reason",
    "Run",
    "Slice",
    "Splits",
    "Task",
    "Text",
    "Tokens",
    "Usage",
    "rows_of",
]
