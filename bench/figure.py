"""A simulated figure and its bounds: what the simulations of bench and their tests are held to."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figure:
    """What was measured, its Monte Carlo standard error, and between what it must lie; an attack must lie outside."""

    value: float
    error: float
    least: float
    most: float
    attack: bool = False

    def to_json(self) -> dict[str, object]:
        """Return plain data; an end that is open is None, since JSON has no infinity."""
        return {**asdict(self), "most": self.most if math.isfinite(self.most) else None}

    def holds(self, errors: float) -> bool:
        """Return whether the figure lies in its bounds, widened by so many standard errors; of an attack, whether it lies outside."""
        inside = self.least - errors * self.error <= self.value <= self.most + errors * self.error
        return bool(inside) != self.attack
