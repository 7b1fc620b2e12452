"""What computing costs: measured quantities times the case's prices, spread over the decisions that a training serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from makegood.contracts import Compute, Usage

HOUR, GB = 3600.0, 1e9
"""Seconds, and bytes, that prices are for."""


@dataclass(frozen=True)
class Prices:
    """What an hour costs, in the unit of the payoffs: of a CPU, of a GPU, of a gigabyte held; all 0 where nothing is said.

    `decisions` is the number of decisions over which a training is spread; it is known wherever there is a price.
    """

    cpu_hour: float = 0.0
    gpu_hour: float = 0.0
    memory_gb_hour: float = 0.0
    decisions: float | None = None

    def of(self, used: Usage) -> Usage:
        """Return the same quantities with their `money`; the peak of the memory is paid for as long as the work takes.

        >>> used = Usage(wall_s=100.0, cpu_s=200.0, gpu_s=50.0, peak_bytes=2_000_000_000)
        >>> Prices(cpu_hour=0.36, gpu_hour=3.6, memory_gb_hour=0.036, decisions=1000).of(used).money
        0.072
        """
        hours = used.cpu_s * self.cpu_hour + used.gpu_s * self.gpu_hour
        held = (used.peak_bytes or 0) / GB * used.wall_s * self.memory_gb_hour
        return replace(used, money=(hours + held) / HOUR)


def compute(training: Usage, candidates: Mapping[str, Usage], decision: Usage, rows: int, prices: Prices) -> Compute:
    """Return what was measured, priced, and what it makes a decision: its share of a training, and its own.

    `decision` is one decision, measured on `rows`. Without `decisions` there are no prices, and nothing is taken off.

    >>> hour = Usage(wall_s=3600.0, cpu_s=3600.0)
    >>> compute(hour, {}, Usage(cpu_s=0.036), 300, Prices(cpu_hour=10.0, decisions=1000)).per_decision
    0.0101
    """
    whole, one = prices.of(training), prices.of(decision)
    spread = whole.money / prices.decisions if prices.decisions else 0.0
    priced = {name: prices.of(used) for name, used in candidates.items()}
    return Compute(whole, priced, one, rows, prices.decisions, spread + one.money)
