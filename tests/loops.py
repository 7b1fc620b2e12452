"""Small cases with their tables, on disk, for the tests that run the whole loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

N = 300
LOANS = """
case: loans
about: small
data: {source: loans.csv, outcome: bad}
decision:
  unit: EUR
  actions:
    approve: {payoff: {no: 0.1 * `loan amount`, yes: -0.5 * `loan amount`}}
    decline: {payoff: 0}
train: {budget: 1s, families: linear}
serve: {reasons: 2}
"""


def loans(n: int = N, seed: int = 0) -> pd.DataFrame:
    """Return loans whose `credit-score` tells who does not pay back; names have a space, a dash, and Chinese."""
    rng = np.random.default_rng(seed)
    score = rng.normal(0, 1, n)
    bad = score + rng.normal(0, 0.5, n) < -0.4
    return pd.DataFrame(
        {
            "loan amount": np.round(rng.uniform(500, 5000, n), 2),
            "credit-score": np.round(score, 4),
            "收入": np.round(rng.gamma(3, 1000, n), 1),
            "sex": np.where(rng.random(n) < 0.5, "f", "m"),
            "bad": np.where(bad, "yes", "no"),
        }
    )


def stock(n: int = N, seed: int = 0) -> pd.DataFrame:
    """Return days of a bakery whose sales depend on the weekday and the temperature."""
    rng = np.random.default_rng(seed)
    weekday, heat = rng.integers(0, 7, n), np.round(rng.normal(15, 6, n), 1)
    sold = np.maximum(0, 60 + 12 * weekday + 2 * heat + rng.normal(0, 8, n)).round()
    return pd.DataFrame({"weekday": weekday, "heat": heat, "sold": sold.astype(int)})


def written(folder: Path, frame: pd.DataFrame, text: str = LOANS, *, replace: dict[str, str] | None = None) -> Path:
    """Write the table and the case, with passages of its text replaced, and return the case file's path."""
    for before, after in (replace or {}).items():
        assert before in text
        text = text.replace(before, after)
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_csv(folder / "loans.csv", index=False)
    path = folder / "case.yaml"
    path.write_text(text, encoding="utf-8")
    return path
