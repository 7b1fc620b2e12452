"""What is measured is what was done: busy work counts as CPU wherever it runs, waiting does not, and peaks of memory stay apart."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from makegood.families import accelerator
from makegood.stages.meter import BLOCKS, DECISIONS, SECONDS, Meter, one_decision, peak_bytes, reset_peak

MB = 1_000_000
RESETS = reset_peak()
ROWS = [{"a": i} for i in range(2 * DECISIONS)]


def _burn(seconds: float) -> None:
    """Keep the processor busy for so long, by its own clock."""
    start = time.thread_time()
    while time.thread_time() - start < seconds:
        sum(range(200))


def test_busy_work_is_cpu_time() -> None:
    with Meter() as meter:
        _burn(0.2)
    assert 0.2 <= meter.used.cpu_s < 0.3
    assert meter.used.wall_s >= 0.2
    assert meter.used.gpu_s == 0.0
    assert meter.used.money == 0.0


def test_waiting_is_not() -> None:
    with Meter() as meter:
        time.sleep(0.3)
    assert meter.used.wall_s >= 0.3
    assert meter.used.cpu_s < 0.1


def test_a_child_process_counts() -> None:
    code = "import time\nwhile time.process_time() < 0.4: sum(range(200))"
    own = time.process_time()
    with Meter() as meter:
        subprocess.run([sys.executable, "-c", code], check=True)
    assert meter.used.cpu_s >= 0.38  # children's clocks tick a hundred times a second
    assert time.process_time() - own < 0.2  # it was not this process


def test_a_thread_counts() -> None:
    with Meter() as meter:
        thread = threading.Thread(target=_burn, args=(0.2,))
        thread.start()
        thread.join()
    assert meter.used.cpu_s >= 0.2


def test_a_gpu_that_is_held_counts_though_nothing_is_computed() -> None:
    with Meter() as meter:
        with accelerator.held():
            time.sleep(0.05)
        time.sleep(0.05)
    assert 0.05 <= meter.used.gpu_s <= meter.used.wall_s - 0.05


@pytest.mark.skipif(not RESETS, reason="only Linux lets a peak start again")
def test_each_peak_of_memory_is_that_of_its_own_work() -> None:
    with Meter() as outer:
        with Meter() as large:
            np.ones(200 * MB // 8)
        with Meter() as small:
            np.ones(MB // 8)
    assert large.used.peak_bytes is not None
    assert small.used.peak_bytes is not None
    assert large.used.peak_bytes - small.used.peak_bytes > 150 * MB
    assert outer.used.peak_bytes == large.used.peak_bytes
    with Meter() as later:
        pass
    assert later.used.peak_bytes is not None
    assert later.used.peak_bytes < large.used.peak_bytes - 150 * MB


def test_memory_held_before_an_inner_one_belongs_to_the_outer_one() -> None:
    with Meter() as outer:
        np.ones(200 * MB // 8)
        with Meter() as inner:
            pass
    assert outer.used.peak_bytes is not None
    assert inner.used.peak_bytes is not None
    assert outer.used.peak_bytes >= inner.used.peak_bytes + (150 * MB if RESETS else 0)


def test_work_that_fails_is_measured_and_leaves_no_meter_behind() -> None:
    meter = Meter()

    def fail() -> None:
        with meter:
            _burn(0.05)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    kept = meter.used
    assert kept.cpu_s >= 0.05
    with Meter():
        np.ones(50 * MB // 8)
    assert meter.used == kept


def test_a_peak_is_read_where_the_system_tells_it(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmPeak:\t  999 kB\nVmHWM:\t   123 kB\nVmRSS:\t   100 kB\n")
    assert peak_bytes(status) == 123 * 1024
    life = peak_bytes(tmp_path / "none")  # not Linux
    status.write_text("Name:\tpython\n")  # a kernel that does not say
    assert peak_bytes(status) == life
    if sys.platform != "win32":
        assert life is not None
        assert life > 20 * MB


def test_where_a_peak_cannot_start_again_that_is_said(tmp_path: Path) -> None:
    assert not reset_peak(tmp_path / "none" / "clear_refs")
    assert RESETS or sys.platform != "linux"


# --------------------------------------------------------------------------------------------------------------- decisions


def test_a_decision_takes_what_it_takes_whatever_happens_now_and_then() -> None:
    seen = list[int]()

    def decide(row: Mapping[str, Any]) -> None:
        seen.append(row["a"])
        _burn(0.002)
        if row["a"] == 37:
            time.sleep(0.1)

    used, n = one_decision(decide, ROWS[:100])
    assert 0.002 <= used.cpu_s < 0.004
    assert used.wall_s >= used.cpu_s * 0.9
    assert n == 100
    assert seen == [0, *range(100)]
    assert used.peak_bytes is not None or sys.platform == "win32"


def test_what_the_first_decision_makes_is_no_part_of_the_others() -> None:
    made = list[bool]()

    def decide(row: Mapping[str, Any]) -> None:
        if not made:
            _burn(0.2)
            made.append(True)

    used, n = one_decision(decide, ROWS[:3])
    assert n == 3
    assert used.cpu_s < 0.05


def test_a_few_hundred_decisions_are_enough_and_slow_ones_are_fewer() -> None:
    assert one_decision(lambda row: None, ROWS)[1] == DECISIONS
    began = time.perf_counter()
    used, n = one_decision(lambda row: time.sleep(0.3), ROWS)
    assert n == 7 < BLOCKS
    assert time.perf_counter() - began < SECONDS + 1.5
    assert used.wall_s >= 0.3
    assert used.cpu_s < 0.1
