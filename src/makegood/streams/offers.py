"""Customers who may leave, and an offer that keeps some, is wasted on most, and drives others away: the outcome depends on the action."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from makegood.contracts import Columns, Floats

TIME, ENTITY, OUTCOME = "due_at", "customer", "leaves"
ACTIONS, CLASSES = ("nothing", "offer"), ("no", "yes")
DONE = "done"
"""The column of the past that holds what was done: one of the two, drawn with equal chances whoever it was."""

DELAY_DAYS = 14
PLANS = ("basic", "plus", "family")

CASE = """
case: {name}
about: >-
  Make an offer to a customer whose contract ends, or not. Simulated, with a known truth: no figure of it tells anything about any firm.
data:
  outcome: leaves
  time: due_at
  group: customer
  outcome_delay: 14d
  affected_by_action: yes           # who stays depends on the offer
decision:
  unit: EUR
  actions:
    nothing:
      payoff: {{no: 0, yes: -0.5 * spend}}
    offer:
      payoff: {{no: -0.04 * spend, yes: -0.54 * spend}}
  today: done
train: {{budget: 10s, families: [linear, lightgbm]}}
feedback:
  tolerance: 2
  false_alarm: {{probability: 0.05, per: 365d}}
  review: 14d
  promote: {{confidence: 0.95, min_gain: 0, cap: [-1350, 0]}}
  retrain: {{cost: 5000, horizon: 365d}}
"""


def case(name: str) -> str:
    """Return the case file's text."""
    return CASE.format(name=name).lstrip()


def customers(rng: Generator, n: int) -> tuple[Columns, Floats]:
    """Return n customers column by column, and the probability (n, 2) that each leaves without the offer and with it."""
    loyalty = rng.normal(0, 1, n)
    plan = rng.choice(3, n, p=(0.5, 0.3, 0.2))
    columns: dict[str, NDArray[np.generic]] = {
        ENTITY: np.char.add("c", np.char.zfill(rng.permutation(n).astype(str), 6)).astype(object),
        "spend": np.round(np.clip(np.exp(6.2 + 0.5 * plan + rng.normal(0, 0.5, n)), 60, 2500), 2),  # EUR a year
        "tenure": np.round(np.clip(np.exp(3.2 + 0.5 * loyalty + rng.normal(0, 0.7, n)), 1, 240)),  # months
        "usage": np.round(np.exp(rng.normal(0.2 * loyalty, 0.4, n)), 2),  # against the year before
        "complaints": rng.poisson(np.exp(-0.6 - 0.4 * loyalty)),
        "rival_quotes": rng.poisson(np.exp(-0.3 - 0.3 * loyalty)),
        "plan": np.array(PLANS, dtype=object)[plan],
        "region": rng.choice(np.array(("north", "south", "east", "west"), dtype=object), n),
        "age": np.clip(np.round(rng.normal(46, 14, n)), 18, 90).astype(np.int64),
    }
    return columns, leaving(columns)


def leaving(columns: Columns) -> Floats:
    """Return the probability (n, 2) that a customer leaves when nothing is done, and with the offer.

    The offer persuades those who compare; it reminds those who had forgotten their contract that it can be ended.
    """
    tenure, usage = np.log(columns["tenure"]) - 3.2, np.log(columns["usage"])
    quotes, complaints = np.minimum(columns["rival_quotes"], 4), np.minimum(columns["complaints"], 4)
    left = -2.2 - 0.5 * tenure - 0.6 * usage + 0.55 * quotes + 0.5 * complaints + 0.3 * (columns["plan"] == "basic")
    moved = 0.5 - 0.9 * quotes + 0.5 * (usage < -0.3) - 0.15 * complaints
    odds = np.stack([left, left + moved], axis=1)
    return np.asarray(1 / (1 + np.exp(-odds)))
