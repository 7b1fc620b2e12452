"""Identifiers of decisions: unique everywhere, and in the order in which they were made."""

from __future__ import annotations

import os
import threading
import time

import numpy as np

_last_id = 0
_id_lock = threading.Lock()


def uuid7(n: int) -> tuple[str, ...]:
    """Return n new UUIDs of version 7, each greater than every one before it in this process (RFC 9562, sections 5.7 and 6.2).

    Within a millisecond the 74 bits behind the time grow by a random step of 48 bits (method 2), and carry over into the time.
    """
    global _last_id
    random = np.frombuffer(os.urandom(16 * n), dtype=np.uint64).reshape(n, 2).tolist()
    out = []
    with _id_lock:
        now = time.time_ns() // 1_000_000
        for high, low in random:
            fresh = now << 74 | (high & 0x1FF) << 64 | low  # the top bit of the 74 stays free, so that steps fit
            _last_id = fresh if fresh >> 74 > _last_id >> 74 else _last_id + 1 + (low >> 16)
            value = (_last_id >> 74) << 80 | 7 << 76 | (_last_id >> 62 & 0xFFF) << 64 | 0b10 << 62 | _last_id & (1 << 62) - 1
            text = f"{value:032x}"
            out.append(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")
    return tuple(out)
