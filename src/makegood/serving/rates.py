"""How much each key may ask: a token bucket a key (as in RFC 2697, section 3), counted in rows.

The buckets are this process's own: a service of several workers, or of several replicas, grants as many times the rate.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from makegood.serving.keys import Key
from makegood.serving.problems import Trouble

_ROUNDING = 1e-6  # of a row: who comes when it was told to is let in


class Rates:
    """The buckets, each as large as one second's rows; `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # key → rows left, when

    def take(self, key: Key, n: int) -> None:
        """Take n rows out of a key's bucket; raises `Trouble` (429, and when to try again) where it has not as many.

        A request of more rows than a bucket holds is let in by a full one, and the key pays it off before the next.
        """
        if key.rate is None:
            return
        size = max(key.rate, 1.0)
        now = self._clock()
        left, then = self._buckets.get(key.name, (size, now))
        left = min(size, left + (now - then) * key.rate)
        short = min(float(n), size) - left
        if short > _ROUNDING:
            self._buckets[key.name] = left, now
            words = f"The key {key.name} may ask about {key.rate:g} rows a second"
            raise Trouble(429, words, retry_after_s=short / key.rate)
        self._buckets[key.name] = left - n, now
