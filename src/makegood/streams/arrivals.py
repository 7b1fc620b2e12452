"""When outcomes arrive: soon or late, never, or in the worst order. Nothing arrives later than the declared delay."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from makegood.contracts import Bools, Floats, Ints
from makegood.streams.truth import NEVER

LOST = 0.01
"""The share of outcomes that never come, whatever they are."""


def ordinary(rng: Generator, at: Ints, delay_us: int) -> Ints:
    """Return when each outcome arrives, (n,) microseconds: after a fifth of the delay to all of it, whatever it is."""
    return _after(at, rng.uniform(0.2, 1.0, len(at)), delay_us)


def growing(rng: Generator, at: Ints, delay_us: int, grown: Floats) -> Ints:
    """Return arrivals after a tenth to a third of the delay where `grown` (n,) is 0, and after .8 to all of it where it is 1."""
    low, high = 0.1 + 0.7 * grown, 0.33 + 0.67 * grown
    return _after(at, low + (high - low) * rng.random(len(at)), delay_us)


def adversarial(rng: Generator, at: Ints, delay_us: int, loss: Bools) -> Ints:
    """Return arrivals in the worst order: whatever pays comes within a fifth of the delay, each loss on its last day.

    Among what is known before its time, nothing has ever been lost.
    """
    return _after(at, np.where(loss, 1.0, rng.uniform(0.02, 0.2, len(at))), delay_us)


def lost(rng: Generator, known_at: Ints, silent: Bools) -> Ints:
    """Return the arrivals with those taken out that never come: all where it is `silent` (n,), a hundredth elsewhere."""
    return np.where(silent | (rng.random(len(known_at)) < LOST), NEVER, known_at)


def _after(at: Ints, share: Floats, delay_us: int) -> Ints:
    return at + np.floor(share * delay_us).astype(np.int64)
