"""Metrics: what is counted, in this process and over several."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from makegood.serving.metrics import SHARED, Metrics


@dataclass(frozen=True)
class State:
    """What a ledger says of itself."""

    ok: bool = True
    why: str = ""
    queued: int = 0
    spooled: int = 0
    events: int = 0
    commits: int = 0
    last_commit_s: float = 0.0


@dataclass(frozen=True)
class Named:
    """A model, as far as metrics know it."""

    name: str


@dataclass(frozen=True)
class Canary:
    """A canary."""

    live: Named
    share: float


@dataclass(frozen=True)
class Rollout:
    """What serves."""

    champion: Named
    canary: Canary | None = None
    shadows: tuple[Named, ...] = ()


def read(rendered: bytes) -> dict[tuple[str, ...], float]:
    """Return each sample's value by its name and its labels' values."""
    families = text_string_to_metric_families(rendered.decode())
    return {(s.name, *(f"{k}={v}" for k, v in sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_requests_decisions_and_money_are_counted() -> None:
    metrics = Metrics()
    for status, seconds in ((200, 0.003), (200, 0.03), (422, 0.001)):
        metrics.request("/v1/decisions", status, seconds)
    metrics.decided("loans@1", "approve", 3)
    metrics.decided("loans@1", "decline", 1)
    metrics.promised("loans@1", "EUR", 120.5)
    metrics.promised("loans@1", "EUR", -20.25)
    metrics.batch(4, 0.002)
    metrics.committed(0.004)
    seen = read(metrics.render())
    assert seen["makegood_requests_total", "route=/v1/decisions", "status=200"] == 2
    assert seen["makegood_requests_total", "route=/v1/decisions", "status=422"] == 1
    assert seen["makegood_request_seconds_count", "route=/v1/decisions"] == 3
    assert seen["makegood_request_seconds_bucket", "le=0.005", "route=/v1/decisions"] == 2
    assert seen["makegood_decisions_total", "action=approve", "model=loans@1"] == 3
    assert seen["makegood_promised", "model=loans@1", "unit=EUR"] == 100.25
    assert seen["makegood_batch_rows_sum",] == 4
    assert seen["makegood_score_seconds_count",] == 1
    assert seen["makegood_commit_seconds_bucket", "le=0.005"] == 1
    assert seen["process_open_fds",] > 0


def test_how_things_stand_is_what_the_last_beat_said() -> None:
    metrics = Metrics()
    metrics.beat(State(), Rollout(Named("a"), Canary(Named("b"), 0.1), (Named("c"),)), 7)
    seen = read(metrics.render())
    assert (seen["makegood_ledger_ok",], seen["makegood_waiting_rows",], seen["makegood_canary_share",]) == (1, 7, 0.1)
    assert [
        seen["makegood_model_serving", f"model={m}", f"role={r}"] for m, r in (("a", "champion"), ("b", "canary"), ("c", "shadow"))
    ] == [1] * 3
    metrics.beat(State(ok=False, queued=5, spooled=9), Rollout(Named("b")), 0)
    seen = read(metrics.render())
    assert (seen["makegood_ledger_ok",], seen["makegood_ledger_queued",], seen["makegood_ledger_spooled",]) == (0, 5, 9)
    serving = {labels[1:]: value for labels, value in seen.items() if labels[0] == "makegood_model_serving"}
    assert {labels for labels, value in serving.items() if value} == {("model=b", "role=champion")}
    assert len(serving) == 4
    assert seen["makegood_canary_share",] == 0


COUNTS = """
from makegood.serving.metrics import Metrics
from tests.serving.test_metrics import Canary, Named, Rollout, State
import sys
metrics, n = Metrics(), int(sys.argv[1])
metrics.decided("m", "approve", n)
metrics.promised("m", "EUR", 1.5 * n)
metrics.request("/v1/decisions", 200, 0.001)
metrics.beat(State(ok=n != 2, queued=n), Rollout(Named("m")), n)
sys.stdout.buffer.write(metrics.render())
"""


def test_several_workers_add_up_and_one_that_is_gone_still_counts(tmp_path: Path) -> None:
    for n in (1, 2, 4):
        done = subprocess.run(
            [sys.executable, "-c", COUNTS, str(n)], env={**os.environ, SHARED: str(tmp_path)}, capture_output=True, check=True, timeout=60
        )
    seen = read(done.stdout)
    assert seen["makegood_decisions_total", "action=approve", "model=m"] == 7
    assert seen["makegood_promised", "model=m", "unit=EUR"] == 10.5
    assert seen["makegood_requests_total", "route=/v1/decisions", "status=200"] == 3
    assert seen["makegood_ledger_ok",] == 0  # one worker of them cannot write
    assert (seen["makegood_ledger_queued",], seen["makegood_waiting_rows",]) == (7, 7)
    assert seen["makegood_model_serving", "model=m", "role=champion"] == 1
