"""Rates: what a bucket holds, how it fills again, and what a refusal says."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from makegood.serving.keys import LOCAL, Key
from makegood.serving.problems import Trouble
from makegood.serving.rates import Rates

TEN = Key("ten", rate=10.0)


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def granted(rates: Rates, key: Key, n: int) -> bool:
    try:
        rates.take(key, n)
    except Trouble:
        return False
    return True


def test_a_key_without_a_rate_is_never_refused() -> None:
    rates = Rates()
    assert all(granted(rates, LOCAL, 1000) for _ in range(1000))


def test_a_bucket_holds_a_second_and_fills_with_time() -> None:
    clock = Clock()
    rates = Rates(clock)
    assert [granted(rates, TEN, 5) for _ in range(3)] == [True, True, False]
    clock.now += 0.5
    assert [granted(rates, TEN, 5), granted(rates, TEN, 1)] == [True, False]
    clock.now += 1000.0
    assert [granted(rates, TEN, 10), granted(rates, TEN, 1)] == [True, False]


def test_a_refusal_says_when_to_come_again_and_then_is_none() -> None:
    clock = Clock()
    rates = Rates(clock)
    rates.take(TEN, 10)
    with pytest.raises(Trouble) as caught:
        rates.take(TEN, 4)
    assert (caught.value.status, caught.value.detail) == (429, "The key ten may ask about 10 rows a second")
    assert caught.value.retry_after_s == pytest.approx(0.4)
    assert caught.value.headers()["retry-after"] == "1"
    clock.now += 0.4
    rates.take(TEN, 4)


def test_a_request_of_more_than_a_bucket_is_let_in_by_a_full_one_and_paid_off() -> None:
    clock = Clock()
    rates = Rates(clock)
    rates.take(TEN, 100)
    with pytest.raises(Trouble) as caught:
        rates.take(TEN, 1)
    assert caught.value.retry_after_s == pytest.approx(9.1)
    clock.now += 9.1
    rates.take(TEN, 1)


def test_keys_do_not_take_from_each_other() -> None:
    rates = Rates(Clock())
    assert granted(rates, TEN, 10)
    assert granted(rates, Key("other", rate=10.0), 10)


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 40)), max_size=60), st.floats(0.5, 30))
def test_no_run_of_requests_gets_more_than_its_rate_and_one_bucket_and_one_request(asked: list[tuple[float, int]], rate: float) -> None:
    clock = Clock()
    rates, key = Rates(clock), Key("k", rate=rate)
    rows = largest = 0
    for pause, n in asked:
        clock.now += pause
        if granted(rates, key, n):
            rows, largest = rows + n, max(largest, n)
    assert rows <= rate * (clock.now - 100.0) + max(rate, 1.0) + largest + 1e-6
