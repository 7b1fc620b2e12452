"""What every part of a review reads: the decisions, the bundles, who stands where, and what the case declares."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from makegood.case import Case, Feedback
from makegood.contracts import Bools, Floats, Ints
from makegood.errors import Problem, Refused
from makegood.model import Model
from makegood.monitoring import maturity, realised
from makegood.stages import pricing
from makegood.stages.observe import Log

YEAR_US = 365 * 86_400_000_000
SAMPLE = 20_000
"""The most decisions whose inputs are read for one question: whole units, drawn by a hash."""


@dataclass(frozen=True)
class Entrant:
    """A bundle on trial `since` a time (microseconds since 1970, UTC): decisions from before it was registered do not count.

    `least` is the least chance with which it, or the champion, acted where the two differ; None where it is only scored beside it. `drawn`
    is since when who acts is drawn, where it was scored before that; only what is drawn counts where an action hides the outcome. `place`
    is which challenger of its year it is, from 1 on: together they spend one year's chance of a false promotion. 0 is a champion of
    before, which guards the one that took its place.
    """

    model: str
    since: int
    least: float | None = None
    place: int = 1
    drawn: int | None = None


def place(tried: Mapping[str, int], model: str) -> int:
    """Return which challenger of its year a bundle is, of those that were `tried`, each since a time (microseconds).

    >>> place({"a": 0, "b": 7, "c": YEAR_US + 3}, "c")
    2
    """
    since = tried[model]
    return sum(since - YEAR_US < at <= since for at in tried.values())


@dataclass(frozen=True)
class Standing:
    """The champion and since when it decides, the bundles on trial, and the champion `before`, None once its guard is over."""

    champion: str
    since: int
    entrants: tuple[Entrant, ...] = ()
    before: Entrant | None = None


@dataclass(frozen=True)
class Facts:
    """What every part of a review reads: the log at `now`, the bundles by name, who stands where, and what the case declares."""

    log: Log
    models: Mapping[str, Model]
    standing: Standing
    now: int
    seconds: dict[str, float] = field(default_factory=dict)

    @cached_property
    def champion(self) -> Model:
        """The bundle that decides; raises `Refused` where it is not here."""
        return self.model(self.standing.champion)

    def model(self, name: str) -> Model:
        """Return a bundle by name; raises `Refused` where it is not here."""
        if name not in self.models:
            mend = "bring its run's folder back into the workspace"
            raise Refused(Problem(f"model {name}", "no bundle of it here", "the bundle that took these decisions", mend))
        return self.models[name]

    @cached_property
    def case(self) -> Case:
        """The champion's case."""
        return Case.of(self.champion.case)

    @property
    def terms(self) -> Feedback:
        """How the case says that its model is held to its promise."""
        return self.case.feedback

    @property
    def delay_us(self) -> int:
        """How long an outcome takes, as declared; where nothing is, a review period: no outcome is there in the moment of the decision."""
        return int((self.case.data.outcome_delay or self.terms.review) * 1e6)

    @cached_property
    def due(self) -> Bools:
        """Which decisions (n,) are old enough for their outcome to be known."""
        return np.asarray(self.log.at <= self.now - self.delay_us)

    @cached_property
    def outcomes(self) -> maturity.Outcomes:
        """All decisions with the last word on what they paid; one that was overridden is what was done in its place."""
        return self._all(self.log.paid)

    @cached_property
    def firsts(self) -> maturity.Outcomes:
        """All decisions with the first word on what they paid, which is what tests may look at: no later one changes it."""
        return self._all(self.log.first)

    def _all(self, word: Floats) -> maturity.Outcomes:
        parts = [(rows, self._priced(rows, word)) for rows in self._by_model()]
        order = np.argsort(np.concatenate([rows for rows, _ in parts])) if parts else np.empty(0, dtype=np.int64)
        return _joined([part for _, part in parts]).take(order)

    def tested(self, name: str) -> maturity.Outcomes:
        """Return the decisions of a bundle that its promise is tested on, with the first word on each; not what people did instead."""
        return self._priced(self._taken(name), self.log.first)

    def room(self, name: str) -> Floats:
        """Return by how much each of these could pay more than it promised, whatever comes (n,); NaN where that is not known.

        It is a matter of what was decided, and of no outcome: no decision can turn out better than that.
        """
        rows = self._taken(name)
        most = pricing.known_end(self.log, self.model(name), rows, 1)
        return np.asarray(most[np.arange(len(rows)), self.log.decided[rows]] - self.log.promise[rows])

    def _taken(self, name: str) -> Ints:
        return np.flatnonzero((self.log.model == self._place(name)) & (self.log.done == self.log.decided))

    def of(self, name: str) -> Bools:
        """Return which decisions (n,) a bundle took."""
        return np.asarray(self.log.model == self._place(name))

    def _place(self, name: str) -> int:
        return self.log.names.index(name) if name in self.log.names else -1

    def _by_model(self) -> Iterator[Ints]:
        """Yield the decisions of each bundle that took any."""
        for place in range(len(self.log.names)):
            rows = np.flatnonzero(self.log.model == place)
            if len(rows):
                yield rows

    def _priced(self, rows: Ints, word: Floats) -> maturity.Outcomes:
        """Return decisions with what each paid by a word on its outcome; what pays the same whatever comes is known at once."""
        log = self.log
        model = self.models.get(log.names[int(log.model[rows[0]])], self.champion) if len(rows) else self.champion
        done, reveals = log.done[rows], pricing.reveals(log, model)
        there = done >= 0
        revealed = there & reveals[np.maximum(done, 0)]
        paid = np.where(revealed, word[rows], np.nan)
        worst: Floats = np.zeros(len(rows))
        hidden = np.flatnonzero(there & ~revealed)
        if len(hidden):
            paid[hidden] = pricing.sure(log, model, rows[hidden])[np.arange(len(hidden)), done[hidden]]
        if self.terms.missing == "failure":
            low, _ = pricing.ends(log, model, rows)
            worst = low[np.arange(len(rows)), np.maximum(done, 0)]
            known = np.isfinite(worst)  # of erased inputs nobody knows it: then it is the worst that any other decision can come to
            worst[~known] = worst[known].min() if known.any() else 0.0
        return maturity.Outcomes(
            log.at[rows], log.entity[rows], log.promise[rows], paid, log.known_at[rows], revealed, np.maximum(done, 0), worst
        )

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Keep how long a part took."""
        began = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - began


def sample(log: Log, rows: Ints, most: int = SAMPLE) -> Ints:
    """Return the given positions, or those of as many whole units, drawn by a hash, as make about `most`; only rows with inputs."""
    rows = rows[log.readable[rows]]
    if len(rows) <= most:
        return rows
    return rows[realised.blocks(log.entity[rows]) < realised.BLOCKS * most // len(rows)]


def _joined(parts: list[maturity.Outcomes]) -> maturity.Outcomes:
    """Return the outcomes of several bundles, one after the other."""
    if not parts:
        nothing, none = np.empty(0, dtype=np.int64), np.empty(0)
        return maturity.Outcomes(nothing, nothing, none, none, nothing, np.empty(0, dtype=np.bool_), nothing, none)
    names = ("at", "unit", "promised", "paid", "known_at", "revealed", "segment", "worst")
    return maturity.Outcomes(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
