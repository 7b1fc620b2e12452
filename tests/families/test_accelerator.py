"""Time on a GPU is counted while it is held, once, also where the work fails."""

from __future__ import annotations

import time

import pytest
import torch

from makegood.families import accelerator
from makegood.families._torch.loop import Runtime


def test_time_inside_counts_and_time_outside_does_not() -> None:
    before = accelerator.held_s()
    with accelerator.held():
        time.sleep(0.05)
    after = accelerator.held_s()
    time.sleep(0.05)
    assert after - before >= 0.05
    assert accelerator.held_s() == after


def test_a_hold_inside_a_hold_counts_once() -> None:
    before, began = accelerator.held_s(), time.perf_counter()
    with accelerator.held(), accelerator.held():
        time.sleep(0.05)
    assert 0.05 <= accelerator.held_s() - before <= time.perf_counter() - began


def test_work_that_fails_was_paid_for_too() -> None:
    before = accelerator.held_s()

    def fail() -> None:
        with accelerator.held():
            time.sleep(0.02)
            raise ValueError("out of memory")

    with pytest.raises(ValueError, match="out of memory"):
        fail()
    assert accelerator.held_s() - before >= 0.02
    with accelerator.held():
        time.sleep(0.02)
    assert accelerator.held_s() - before >= 0.04


def test_training_on_a_cpu_holds_no_gpu() -> None:
    before = accelerator.held_s()
    with Runtime().applied():
        time.sleep(0.02)
    assert accelerator.held_s() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_training_on_a_gpu_holds_it() -> None:
    before = accelerator.held_s()
    with Runtime("cuda").applied():
        time.sleep(0.02)
    assert accelerator.held_s() - before >= 0.02
