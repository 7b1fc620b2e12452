"""What holds for every request: its id, its log line, its count, and what happens when something fails that should not have."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.bundles import ROW
from tests.serving import lives
from tests.serving.running import Running, running

from makegood.serving.app import app
from makegood.serving.rollout import Rollout


@pytest.fixture
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("service"), Rollout(lives.champion())) as at:
        yield at


def lines(at: Running, n: int) -> list[dict[str, object]]:
    """Return the log's lines once there are n: they are written a little later."""
    for _ in range(200):
        found = [json.loads(line) for line in at.log.read_text().splitlines()]
        if len(found) >= n:
            return found
        time.sleep(0.01)
    raise AssertionError(at.log.read_text())


def test_what_is_not_there_is_said_in_the_same_way(service: Running) -> None:
    missing = service.client.get("/v2/nothing")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
    assert missing.json()["detail"] == "Nothing is at /v2/nothing"
    assert service.client.get("/healthz/").status_code == 404
    other = service.client.delete("/healthz")
    assert (other.status_code, other.headers["content-type"]) == (405, "application/problem+json")
    assert set(other.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_health_answers_head_too(service: Running) -> None:
    for method in ("GET", "HEAD"):
        answer = service.client.request(method, "/healthz")
        assert answer.status_code == 200
        assert (answer.content == b"") is (method == "HEAD")


def test_a_request_has_an_id(service: Running) -> None:
    for path in ("/healthz", "/v1/decisions", "/nothing"):
        assert service.client.post(path, json=ROW, headers={"X-Request-Id": "mine:1"}).headers["x-request-id"] == "mine:1"
        made = {
            service.client.post(path, json=ROW, headers={"X-Request-Id": bad}).headers["x-request-id"] for bad in ("", "a b", "x" * 101)
        }
        assert len(made) == 3
        assert all(len(one) > 30 and "a b" not in one for one in made)


def test_every_request_has_a_line_and_is_counted(service: Running) -> None:
    service.client.post("/v1/decisions", json=[ROW, ROW], headers={"X-Request-Id": "r1"})
    service.client.post("/v1/decisions", json={}, headers={"X-Request-Id": "r2"})
    service.client.get("/healthz", headers={"X-Request-Id": "r3"})
    service.client.get("/nothing/private-path", headers={"X-Request-Id": "r4"})
    said = [(line["id"], line["method"], line["path"], line["status"], line["rows"]) for line in lines(service, 4)]
    assert said == [
        ("r1", "POST", "/v1/decisions", 200, 2),
        ("r2", "POST", "/v1/decisions", 422, 0),
        ("r3", "GET", "/healthz", 200, 0),
        ("r4", "GET", "other", 404, 0),
    ]
    count = service.service.metrics.registry.get_sample_value
    for route, status in (("/v1/decisions", "200"), ("/v1/decisions", "422"), ("/healthz", "200"), ("other", "404")):
        assert count("makegood_requests_total", {"route": route, "status": status}) == 1


def test_what_nobody_foresaw_is_told_by_its_id_alone(service: Running, caplog: pytest.LogCaptureFixture) -> None:
    live = lives.champion()
    broken = replace(live, model=replace(live.model, policy=replace(live.model.policy, prices=(1.0, 2.0, 3.0))))
    service.rollouts.now = Rollout(broken)
    answer = service.client.post("/v1/decisions", json=ROW, headers={"X-Request-Id": "r5"})
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json() == {
        "type": "about:blank",
        "title": "The service failed",
        "status": 500,
        "detail": "Something failed that should not have; the log tells of it under r5",
        "request": "r5",
    }
    (record,) = [record for record in caplog.records if record.name == "makegood.serving"]
    assert (record.getMessage(), record.exc_info is not None) == ("request r5 failed", True)
    service.rollouts.now = Rollout(live)
    assert service.client.post("/v1/decisions", json=ROW).status_code == 200
    assert [line["status"] for line in lines(service, 2)] == [500, 200]


def test_a_websocket_is_closed(service: Running) -> None:
    sent = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    asyncio.run(app(service.service)({"type": "websocket", "path": "/"}, receive, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1000}]


def test_the_service_ends_when_all_are_answered(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running(tmp_path_factory.mktemp("service"), Rollout(lives.champion())) as at:
        assert at.client.post("/v1/decisions", json=ROW).status_code == 200
    assert at.service.batcher.rows == 0
    assert lines(at, 1)[0]["status"] == 200
