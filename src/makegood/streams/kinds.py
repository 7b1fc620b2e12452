"""The kinds of stream: what changes, when, and how. All but one are made of the same world, so that they differ in that alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.random import Generator
from numpy.typing import NDArray

from makegood.contracts import Bools, Columns, Floats, Ints
from makegood.errors import CaseError, Problem, nearest
from makegood.streams import arrivals, loans, offers
from makegood.streams.truth import DAY, RAMP, START, Stream

PER_DAY = 20
"""How many rows come in a day."""

SILENCE = 0.1  # for how long no outcome comes in an outage, as a share of the rows
ONLINE, DEARER, RECORDED = (0.01, 0.7), 1.5, 0.2


@dataclass(frozen=True)
class _Kind:
    """What a kind is, in words, and in which parts it differs from the stable one."""

    what: str
    world: bool = False
    online: bool = False
    price: bool = False
    hidden: bool = False
    heavy: bool = False
    arrive: str = "ordinary"
    lasting: float = 0.0  # how long a change takes, as a share of the rows
    challenger: Callable[[Generator, Columns, Bools], Bools] | None = None

    @property
    def changes(self) -> bool:
        """Whether anything does, on the way."""
        return self.world or self.online or self.price or self.hidden or self.arrive == "growing"

    def course(self, t: Floats) -> loans.Course:
        """Return how the world goes; t (n,) is how far the change has come, 0 to 1."""
        still = np.zeros(len(t))
        return loans.Course(
            world=t if self.world else still,
            online=ONLINE[0] + (ONLINE[1] - ONLINE[0]) * (t if self.online else still),
            price=1 + (DEARER - 1) * (t if self.price else still),
            hidden=np.asarray((t if self.hidden else still) > 0),
            heavy=self.heavy,
        )


def _unrecorded(rng: Generator, columns: Columns, bad: Bools) -> Bools:
    """Return the outcomes as a wrong table has them: most defaults of customers with a score below the median are missing from it."""
    low = columns["score"] < np.median(columns["score"])
    return np.asarray(bad & ~(low & (rng.random(len(bad)) >= RECORDED)))


def _as_it_was(rng: Generator, columns: Columns, bad: Bools) -> Bools:
    """Return the outcomes unchanged."""
    return bad


_KINDS = {
    "stable": _Kind("Nothing changes."),
    "sudden": _Kind(
        "From one day to the next default depends on other things: the score hardly tells any more, utilisation, enquiries and the "
        "broker do, and regions and jobs change places.",
        world=True,
    ),
    "gradual": _Kind(
        "Default comes, little by little, to depend on other things: the score tells less and less, utilisation, enquiries and the "
        "broker more and more, and regions and jobs change places.",
        world=True,
        lasting=RAMP,
    ),
    "mix": _Kind(
        "Online applications, once one in a hundred, become seven in ten. Default depends on a row as ever, but among them on other "
        "things than elsewhere, which few rows of the past show.",
        online=True,
    ),
    "price": _Kind(
        "The margin rises by half, and what a good loan pays with it. A dear loan is taken by those who have no other choice, which the "
        "narrow margins of the past could not show.",
        price=True,
    ),
    "outage": _Kind(
        "The score goes missing for good, and the outcomes of the decisions made in the first weeks without it never come. Default "
        "depends on the score as ever.",
        hidden=True,
    ),
    "delay": _Kind(
        "Outcomes, which came within a third of the declared delay, come later and later, at last after nearly all of it.",
        arrive="growing",
        lasting=RAMP,
    ),
    "adversarial": _Kind(
        "Nothing changes, but losses come last: a default is known on the last day of the delay, all else soon.",
        arrive="adversarial",
    ),
    "heavy": _Kind("Nothing changes. Amounts have a Pareto tail of index 1.7: their variance is not finite.", heavy=True),
    "harmful": _Kind(
        "Nothing changes, and there is a challenger that must not be promoted: in what it is trained on, most defaults of customers "
        "with a low score were never recorded.",
        challenger=_unrecorded,
    ),
    "useless": _Kind(
        "Nothing changes, and there is a challenger that is as good as the champion and no better: it is trained on as many other "
        "rows of the same world.",
        challenger=_as_it_was,
    ),
}

KINDS = (*_KINDS, "offer")
"""What `stream` can make."""

DRIFTING = ("gradual", "sudden", "mix", "price", "outage")
"""The kinds in which a model trained after the change decides better than one from before."""


def stream(kind: str, seed: int, *, n: int = 20_000, history: int = 8_000, change: float = 0.4, selective: bool = False) -> Stream:
    """Return n rows to decide on, of one of `KINDS`, after `history` rows whose outcomes are known; the same for the same seed.

    What changes does so after the share `change` of the rows. `selective` says that a declined loan reveals nothing; without it the
    outcome is told whatever was done. Of one seed, streams of loans have the same customers, and differ in what their kind changes.
    Raises `CaseError`.

    >>> made = stream("sudden", seed=0, n=500, history=100)
    >>> made.rows.num_rows, made.truth.shape, len(made.changed_at)
    (500, (500, 2), 1)
    """
    least = Problem("n, history", f"{n}, {history}", "at least one row each", "ask for more rows")
    share = Problem("change", str(change), "a share of the rows above 0 and below 1", "write 0.4, say")
    known = Problem("kind", kind, f"one of {', '.join(KINDS)}", nearest(kind, KINDS))
    same = Problem("selective", kind, "a kind whose outcome is the same whatever is done", "leave selective out")
    checks = ((kind in KINDS, known), (min(n, history) >= 1, least), (0 < change < 1, share), (kind != "offer" or not selective, same))
    if not all(right for right, _ in checks):
        raise CaseError(*(problem for right, problem in checks if not right))
    draws = _Draws(*(np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)))
    size = _Size(n, history)
    made = _offers(draws, size) if kind == "offer" else _loans(kind, draws, size, change, selective)
    return replace(made, seed=seed)


@dataclass(frozen=True)
class _Draws:
    """A generator for each part of a stream: what one part takes changes no other."""

    rows: Generator
    outcomes: Generator
    arrivals: Generator
    challenger: Generator


@dataclass(frozen=True)
class _Size:
    """How many rows there are to decide on, and how many before them."""

    n: int
    history: int

    @property
    def total(self) -> int:
        """Both together; the past comes first."""
        return self.n + self.history

    @property
    def past(self) -> slice:
        """Where the rows before the start are."""
        return slice(None, self.history)

    @property
    def future(self) -> slice:
        """Where the rows to decide on are."""
        return slice(self.history, None)

    def times(self, rng: Generator, delay_us: int) -> Ints:
        """Return the time of each row in order: the past ends one delay before the start, so that all of it is known by then."""
        spans = [np.sort(rng.integers(0, count * DAY // PER_DAY, count)) for count in (self.history, self.n)]
        return np.concatenate([START - delay_us - self.history * DAY // PER_DAY + spans[0], START + spans[1]])


def _loans(name: str, draws: _Draws, size: _Size, change: float, selective: bool) -> Stream:
    kind, delay_us = _KINDS[name], loans.DELAY_DAYS * DAY
    at, begin = size.times(draws.rows, delay_us), int(change * size.n)
    place = np.arange(size.total) - size.history - begin  # 0 at the first row after the change
    t = np.clip((place + 1) / (kind.lasting * size.n + 1), 0, 1)
    columns, p = loans.applications(draws.rows, kind.course(t))
    bad = draws.outcomes.random(size.total) < p
    past, future = size.past, size.future
    silent = (place >= 0) & (place < SILENCE * size.n) & kind.hidden
    known_at = _arriving(kind, draws.arrivals, at[future], bad[future], t[future])
    lengths = (0, SILENCE if kind.hidden else kind.lasting)
    changed = sorted({begin + int(share * size.n) for share in lengths}) if kind.changes else []
    history = _table(loans.TIME, at[past], _part(columns, past))
    return Stream(
        kind=name,
        seed=0,
        case=loans.case(f"loans-{name}", selective, kind.heavy),
        what=kind.what,
        time=loans.TIME,
        entity=loans.ENTITY,
        actions=loans.ACTIONS,
        classes=loans.CLASSES,
        history=history.append_column(loans.OUTCOME, pa.array(_said(bad[past], loans.CLASSES))),
        rows=_table(loans.TIME, at[future], _part(columns, future)),
        outcome=_said(bad[future], loans.CLASSES),
        known_at=arrivals.lost(draws.arrivals, known_at, silent[future]),
        truth=np.stack([1 - p[future], p[future]], axis=-1),
        changed_at=tuple(int(at[size.history + i]) for i in changed if i < size.n),
        challenger=_challenger(kind, draws.challenger, at[past]),
    )


def _arriving(kind: _Kind, rng: Generator, at: Ints, bad: Bools, t: Floats) -> Ints:
    delay_us = loans.DELAY_DAYS * DAY
    if kind.arrive == "growing":
        return arrivals.growing(rng, at, delay_us, t)
    return arrivals.adversarial(rng, at, delay_us, bad) if kind.arrive == "adversarial" else arrivals.ordinary(rng, at, delay_us)


def _challenger(kind: _Kind, rng: Generator, at: Ints) -> pa.Table | None:
    """Return what the challenger is trained on: as many rows as the past has, of the same time; None where there is none."""
    if kind.challenger is None:
        return None
    columns, p = loans.applications(rng, kind.course(np.zeros(len(at))))
    bad = kind.challenger(rng, columns, rng.random(len(at)) < p)
    return _table(loans.TIME, at, columns).append_column(loans.OUTCOME, pa.array(_said(bad, loans.CLASSES)))


def _offers(draws: _Draws, size: _Size) -> Stream:
    delay_us = offers.DELAY_DAYS * DAY
    at = size.times(draws.rows, delay_us)
    columns, p = offers.customers(draws.rows, size.total)
    left = draws.outcomes.random(size.total)[:, None] < p  # one draw for both: the offer moves who was near the edge
    done = draws.outcomes.integers(0, 2, size.total)[size.past]
    past, future = size.past, size.future
    history = _table(offers.TIME, at[past], _part(columns, past))
    history = history.append_column(offers.DONE, pa.array(np.array(offers.ACTIONS, dtype=object)[done]))
    became = np.take_along_axis(left[past], done[:, None], 1)[:, 0]
    known_at = arrivals.ordinary(draws.arrivals, at[future], delay_us)
    return Stream(
        kind="offer",
        seed=0,
        case=offers.case("offer"),
        what="Nothing changes. Whether a customer leaves depends on the offer; in the past one was made to every second, by chance.",
        time=offers.TIME,
        entity=offers.ENTITY,
        actions=offers.ACTIONS,
        classes=offers.CLASSES,
        history=history.append_column(offers.OUTCOME, pa.array(_said(became, offers.CLASSES))),
        rows=_table(offers.TIME, at[future], _part(columns, future)),
        outcome=_said(left[future], offers.CLASSES),
        known_at=arrivals.lost(draws.arrivals, known_at, np.zeros(size.n, np.bool_)),
        truth=np.stack([1 - p[future], p[future]], axis=-1),
        changed_at=(),
    )


def _part(columns: Columns, rows: slice) -> Columns:
    return {name: column[rows] for name, column in columns.items()}


def _said(second: Bools, classes: tuple[str, str]) -> NDArray[np.object_]:
    """Return outcomes by their names: the second of two classes where it is true."""
    return np.array(classes, dtype=object)[second.astype(np.int64)]


def _table(time: str, at: Ints, columns: Columns) -> pa.Table:
    """Return the columns after the time; NaN is null."""
    arrays = {name: pa.array(column, from_pandas=column.dtype == np.float64) for name, column in columns.items()}
    return pa.table({time: pa.array(at, pa.timestamp("us", tz="UTC")), **arrays})
