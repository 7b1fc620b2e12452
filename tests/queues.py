"""A small case of texts: a request, beside a number, goes to the queue of cards or to that of transfers."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa

CASE = """
case: requests
data: {source: requests.parquet, outcome: queue, text: {column: request, tokens: 24}}
decision:
  unit: EUR
  actions:
    cards: {payoff: {cards: 2, transfers: -1}}
    transfers: {payoff: {cards: -1, transfers: 2}}
train: {budget: 30s, families: [ngrams]}
serve: {reasons: 2}
"""
_SAFE = "'where(familiarity < 0.02, -9, {})'"
FAMILIAR = CASE.replace("cards: 2, transfers: -1", f"cards: {_SAFE.format(2)}, transfers: {_SAFE.format(-1)}")
FAMILIAR = FAMILIAR.replace("cards: -1, transfers: 2", f"cards: {_SAFE.format(-1)}, transfers: {_SAFE.format(2)}")
FAMILIAR = FAMILIAR.replace("train:", "    person: {payoff: -0.5}\ntrain:")
"""The same case, where a request unlike those learnt from costs 9 in a queue, and a person 0.5."""

WORDS = {
    "cards": "card pin lost stolen broken arrived contactless plastic 卡 chip".split(),
    "transfers": "transfer iban pending recipient reference bank sent money 转账 wire".split(),
}
_COMMON = "please help me with my the a when where why is it and so hello thanks today".split()


def requests(n: int = 260, *, timed: bool = False) -> pa.Table:
    """Return n rows of request, tenure and queue, in turn cards and transfers; `timed` adds `asked_at`, four rows a day."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for i in range(n):
        queue = ("cards", "transfers")[i % 2]
        text = " ".join(rng.permutation([*rng.choice(WORDS[queue], 4), *rng.choice(_COMMON, 12)]))
        rows.append({"request": text, "tenure": float(rng.integers(0, 60)), "queue": queue})
        if timed:
            rows[-1]["asked_at"] = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(hours=6 * i)
    return pa.Table.from_pylist(rows)
