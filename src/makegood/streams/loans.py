"""Applications for a consumer loan, and who does not pay back: a world of few parts, each of which can change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from makegood.contracts import Bools, Columns, Floats, Ints

TIME, ENTITY, OUTCOME = "applied_at", "customer", "defaulted"
ACTIONS, CLASSES = ("approve", "decline"), ("no", "yes")
DELAY_DAYS = 14
RETURNING = 0.2
"""The share of applications by somebody who has applied before."""

MARGIN, DEAR = 0.032, 0.042  # of the amount, over the term: the usual one, and from where on there are cheaper lenders
TAIL = 1.7
"""The index of heavy-tailed amounts: their mean is finite, their variance is not."""

REGIONS, CHANNELS = ("north", "south", "east", "west", "centre"), ("branch", "broker", "online")
JOBS, MONTHS = ("permanent", "temporary", "self-employed", "retired"), (6, 12, 24, 36, 48)

CASE = """
case: {name}
about: >-
  Approve or decline a consumer loan. Simulated, with a known truth: no figure of it tells anything about any lender.
data:
  outcome: defaulted
  time: applied_at
  group: customer
  outcome_delay: 14d
  affected_by_action: no            # a default if the loan is given
decision:
  unit: EUR
  actions:
    approve:
      payoff: {{no: margin * amount, yes: -0.5 * amount}}
      reveals: true
    decline:
      payoff: 0
      reveals: {reveals}            # {bureau}
  today: approve
train: {{budget: 10s, families: [linear, lightgbm]}}
feedback:
  tolerance: 2
  false_alarm: {{probability: 0.05, per: 365d}}
  missing: impute
  review: 14d
  promote: {{confidence: 0.8, min_gain: 0, share: {share}{cap}}}
  retrain: {{cost: 5000, horizon: 365d}}
"""


@dataclass(frozen=True)
class Course:
    """How the world goes, row by row, all (n,).

    `world` is 0 while default depends on a row as it used to, 1 where it depends as in the changed world, and between them on the
    way. `online` is the share of applications that come online, `price` by how much the margin is multiplied; `hidden` says where the
    score does not arrive. `heavy` amounts have no upper end.
    """

    world: Floats
    online: Floats
    price: Floats
    hidden: Bools
    heavy: bool = False

    def __len__(self) -> int:
        return len(self.world)


def case(name: str, selective: bool, heavy: bool) -> str:
    """Return the case file's text; `selective`: a declined loan reveals nothing; `heavy`: no cap holds, so none is declared."""
    reveals, bureau = ("false", "selective labels") if selective else ("true", "the bureau tells how the declined fared elsewhere")
    share = 0.5 if selective else 0.9  # where outcomes tell of every action, whoever decides, a test learns as much from any share
    return CASE.format(name=name, reveals=reveals, bureau=bureau, share=share, cap="" if heavy else ", cap: [-4000, 500]").lstrip()


def applications(rng: Generator, course: Course) -> tuple[Columns, Floats]:
    """Return n applications column by column, and the probability (n,) that each defaults if the loan is given."""
    n = len(course)
    customer = _customers(rng, n)
    thrift, age, income, job, region = (column[customer] for column in _people(rng, n))
    channel = np.where(rng.random(n) < course.online, 2, (rng.random(n) < 0.3).astype(np.int64))
    wish = rng.normal(0, 1, n) + 0.4 * np.log(income / 2200)
    months = np.digitize(wish + rng.normal(0, 0.8, n), (-1.2, -0.3, 0.4, 1.2))
    amount = _amounts(rng, wish, course.heavy)
    burden = np.clip(0.33 - 0.05 * thrift + 0.05 * wish - 0.04 * np.log(income / 2200) + rng.normal(0, 0.09, n), 0.02, 0.95)
    utilisation = np.clip(0.42 - 0.14 * thrift + rng.normal(0, 0.17, n), 0, 1)
    score = np.clip(680 + 75 * thrift + rng.normal(0, 30, n), 300, 850)
    margin = course.price * (MARGIN + 0.0015 * (months - 2) + 0.002 * (channel == 1) + rng.normal(0, 0.0008, n))
    stated = rng.random(n) >= 0.03
    enquiries = rng.poisson(np.exp(0.2 - 0.35 * thrift + 0.25 * (channel == 1)))  # last: how much this draws depends on the channel
    columns: dict[str, NDArray[np.generic]] = {
        ENTITY: np.char.add("c", np.char.zfill(customer.astype(str), 6)).astype(object),
        "amount": amount,
        "months": np.array(MONTHS)[months],
        "margin": np.round(margin, 4),
        "age": age,
        "income": np.where(stated, np.round(income, -1), np.nan),
        "job": np.array(JOBS, dtype=object)[job],
        "region": np.array(REGIONS, dtype=object)[region],
        "channel": np.array(CHANNELS, dtype=object)[channel],
        "score": np.round(score),
        "burden": np.round(burden, 3),
        "utilisation": np.round(utilisation, 3),
        "enquiries": enquiries,
    }
    p = risk(columns, course.world)
    columns["score"] = np.where(course.hidden, np.nan, columns["score"])
    return columns, p


def _customers(rng: Generator, n: int) -> Ints:
    """Return who applies (n,): somebody new, or one of those who have applied before."""
    new = rng.random(n) >= RETURNING
    new[:1] = True
    count = np.cumsum(new)
    return np.where(new, count - 1, (rng.random(n) * count).astype(np.int64))


def _people(rng: Generator, n: int) -> tuple[Floats, Ints, Floats, Ints, Ints]:
    """Return what stays with a customer: thrift (which nobody sees), age, income in EUR a month, job and region."""
    thrift = rng.normal(0, 1, n)
    age = np.clip(np.round(rng.normal(43, 13, n) + 2 * thrift), 19, 82).astype(np.int64)
    income = np.exp(rng.normal(7.7, 0.4, n) + 0.1 * thrift - 0.0004 * (age - 48) ** 2)
    job = np.where(age > 66, 3, rng.choice(3, n, p=(0.68, 0.18, 0.14)))
    return thrift, age, income, job, rng.choice(5, n, p=(0.25, 0.25, 0.2, 0.15, 0.15))


def _amounts(rng: Generator, wish: Floats, heavy: bool) -> Floats:
    """Return amounts in EUR: between 500 and 8,000, or with a Pareto tail."""
    if heavy:
        return np.asarray(np.round(700 * rng.random(len(wish)) ** (-1 / TAIL), 2))
    return np.asarray(np.round(np.clip(np.exp(7.9 + 0.5 * wish), 500, 8000), -1))


_WEIGHTS = {  # what a part adds to the log odds of a default: as it used to be, and in the changed world
    "": (-3.9, -3.0),
    "score": (-2.0, -0.1),
    "burden": (0.6, 0.1),
    "utilisation": (0.2, 0.9),
    "enquiries": (0.1, 0.6),
    "temporary": (0.5, -0.4),
    "self-employed": (0.2, 1.3),
    "broker": (0.3, 0.9),
    "south": (0.3, -0.5),
    "east": (-0.4, 0.7),
    "online": (1.2, 1.2),  # thin files: the score tells little there, other parts much
    "score online": (2.4, 0.1),
    "utilisation online": (1.4, 0.1),
    "enquiries online": (0.9, 0.1),
    "dear": (0.7, 0.7),  # a dear loan is taken by those who have no other choice, and is harder to pay back
    "dear burden": (0.7, 0.7),
}


def risk(columns: Columns, world: Floats) -> Floats:
    """Return the probability (n,) that an application defaults, if the loan is given, in the world as it stands at each row.

    Logistic in what the row itself says: nothing that is not in a column plays a part, whatever shaped the columns.
    """
    score, burden = (columns["score"] - 680) / 80, (columns["burden"] - 0.33) / 0.11
    utilisation, enquiries = (columns["utilisation"] - 0.42) / 0.22, np.minimum(columns["enquiries"], 6) - 1.2
    online = columns["channel"] == "online"
    dear = np.maximum(columns["margin"] - DEAR, 0) / 0.006
    parts = {
        "": np.ones(len(world)),
        "score": score,
        "burden": burden,
        "utilisation": utilisation,
        "enquiries": enquiries,
        "temporary": columns["job"] == "temporary",
        "self-employed": columns["job"] == "self-employed",
        "broker": columns["channel"] == "broker",
        "south": columns["region"] == "south",
        "east": columns["region"] == "east",
        "online": online,
        "score online": score * online,
        "utilisation online": utilisation * online,
        "enquiries online": enquiries * online,
        "dear": dear,
        "dear burden": dear * burden,
    }
    was, now = (np.array([weights[i] for weights in _WEIGHTS.values()]) for i in (0, 1))
    given = np.stack([np.asarray(parts[name], dtype=np.float64) for name in _WEIGHTS], axis=1)
    return np.asarray(1 / (1 + np.exp(-(given @ was + world * (given @ (now - was))))))
