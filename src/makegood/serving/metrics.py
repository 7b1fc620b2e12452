"""The service's metrics, in Prometheus' text format.

Of several workers each keeps its numbers in files of its own (prometheus_client's multiprocess mode, for which the supervisor sets
PROMETHEUS_MULTIPROC_DIR before they start), and whichever worker is asked adds all of them up.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from makegood.ledger.store import State
    from makegood.serving.rollout import Rollout

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SHARED = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """What the service counts. Money and rows are told by model; nothing is told by unit, key or value, which could be anyone's."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._shared = SHARED in os.environ
        if not self._shared:
            ProcessCollector(registry=registry)
        self._requests = Counter("makegood_requests", "Requests that ended", ("route", "status"), registry=registry)
        self._request_s = Histogram(
            "makegood_request_seconds", "From a request's head to the end of its answer", ("route",), buckets=_SECONDS, registry=registry
        )
        self._decisions = Counter("makegood_decisions", "Durable decisions", ("model", "action"), registry=registry)
        self._promised = Gauge(
            "makegood_promised", "Money that durable decisions promised", ("model", "unit"), registry=registry, multiprocess_mode="sum"
        )
        self._explored = Counter("makegood_explored", "Money that explored decisions count for", ("unit",), registry=registry)
        self._alarms = Counter("makegood_alarms", "Alarms that were told", ("test",), registry=registry)
        self._rows = Histogram("makegood_batch_rows", "Rows that were scored together", buckets=_ROWS, registry=registry)
        self._score_s = Histogram("makegood_score_seconds", "Scoring a batch", buckets=_SECONDS, registry=registry)
        self._commit_s = Histogram(
            "makegood_commit_seconds", "From a batch's hand-over to the ledger until it was durable", buckets=_SECONDS, registry=registry
        )
        self._serving = Gauge(
            "makegood_model_serving", "1 while a model has this role", ("model", "role"), registry=registry, multiprocess_mode="livemax"
        )
        self._share = Gauge("makegood_canary_share", "The canary's share of units", registry=registry, multiprocess_mode="livemax")
        self._waiting = Gauge("makegood_waiting_rows", "Rows on their way", registry=registry, multiprocess_mode="livesum")
        self._ok = Gauge("makegood_ledger_ok", "1 while the ledger can be written", registry=registry, multiprocess_mode="livemin")
        self._queued = Gauge("makegood_ledger_queued", "Events before the writer", registry=registry, multiprocess_mode="livesum")
        self._spooled = Gauge("makegood_ledger_spooled", "Events in the spool", registry=registry, multiprocess_mode="livesum")
        self._roles: set[tuple[str, str]] = set()
        # Children are looked up once: the hot path then pays an addition under a lock, and no more.
        self._by_route: dict[tuple[str, int], Counter] = {}
        self._by_time: dict[str, Histogram] = {}

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request; `route` is a template, such as /v1/decisions/{id}."""
        counted = self._by_route.get((route, status))
        if counted is None:
            counted = self._by_route[route, status] = self._requests.labels(route, str(status))
            self._by_time[route] = self._request_s.labels(route)
        counted.inc()
        self._by_time[route].observe(seconds)

    def decided(self, model: str, action: str, n: int) -> None:
        """Count n decisions that are durable."""
        self._decisions.labels(model, action).inc(n)

    def promised(self, model: str, unit: str, amount: float) -> None:
        """Add what durable decisions promised; an amount may be negative."""
        self._promised.labels(model, unit).inc(amount)

    def explored(self, unit: str, amount: float) -> None:
        """Add what durable decisions count for by which something was tried."""
        self._explored.labels(unit).inc(amount)

    def alarmed(self, test: str) -> None:
        """Count an alarm."""
        self._alarms.labels(test).inc()

    def batch(self, rows: int, seconds: float) -> None:
        """Count a batch that was scored."""
        self._rows.observe(rows)
        self._score_s.observe(seconds)

    def committed(self, seconds: float) -> None:
        """Count a batch that became durable."""
        self._commit_s.observe(seconds)

    def beat(self, ledger: State, rollout: Rollout, waiting: int) -> None:
        """Note how things stand: once a second, and not with every request."""
        self._ok.set(ledger.ok)
        self._queued.set(ledger.queued)
        self._spooled.set(ledger.spooled)
        self._waiting.set(waiting)
        self._share.set(0.0 if rollout.canary is None else rollout.canary.share)
        roles = set(_roles(rollout))
        for model, role in self._roles | roles:
            self._serving.labels(model, role).set((model, role) in roles)
        self._roles |= roles

    def render(self) -> bytes:
        """Return all of it, of every worker, as Prometheus reads it."""
        if not self._shared:
            return generate_latest(self.registry)
        whole = CollectorRegistry()
        MultiProcessCollector(whole)  # type: ignore[no-untyped-call]
        return generate_latest(whole)


def _roles(rollout: Rollout) -> Iterable[tuple[str, str]]:
    yield rollout.champion.name, "champion"
    if rollout.canary is not None:
        yield rollout.canary.live.name, "canary"
    yield from ((shadow.name, "shadow") for shadow in rollout.shadows)
