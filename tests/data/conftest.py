"""What the tests of this room share: a case in one line, and the tables for development."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from makegood.case import Case

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def make_case(outcome: str = "y", payoff: str | dict[str, str] = "1", **data: Any) -> Case:
    """Return a case on that outcome whose first action pays `payoff`."""
    actions = {"act": {"payoff": payoff}, "leave": {"payoff": "0"}}
    return Case.of({"case": "t", "data": {"outcome": outcome, **data}, "decision": {"unit": "EUR", "actions": actions}})


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def case() -> Callable[..., Case]:
    return make_case


@pytest.fixture
def shared() -> Callable[[str], Path]:
    def path(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"{name} lies in ../shared/data, which is not here")
        return SHARED / name

    return path
