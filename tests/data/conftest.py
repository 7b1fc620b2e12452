"""What the tests of this room share: a case in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from makegood.case import Case


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
