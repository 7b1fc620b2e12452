"""Identifiers: version 7, in order, unique, across threads."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from makegood.ids import uuid7


def test_version_variant_and_time() -> None:
    before = time.time_ns() // 1_000_000
    made = [UUID(text) for text in uuid7(100)]
    after = time.time_ns() // 1_000_000
    for one in made:
        assert one.version == 7
        assert one.variant == "specified in RFC 4122"
        assert before <= one.int >> 80 <= after + 1
    assert [str(one) for one in made] == sorted(str(one) for one in made)


def test_a_hundred_thousand_are_unique_and_rising() -> None:
    made = [*uuid7(50_000), *(uuid7(1)[0] for _ in range(1000)), *uuid7(50_000)]
    assert all(a < b for a, b in itertools.pairwise(made))
    assert uuid7(0) == ()


def test_threads_do_not_share_one() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = [text for part in pool.map(uuid7, [500] * 40) for text in part]
    assert len(set(made)) == 20_000
