"""A request on its way: its answer is sent once, whatever happens afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from makegood.serving.calls import Call, Gone
from makegood.serving.problems import Trouble


def call(*parts: MutableMapping[str, Any]) -> tuple[Call, list[MutableMapping[str, Any]]]:
    """Return a call whose client sends these messages, and the list of what it is sent."""
    sent: list[MutableMapping[str, Any]] = []
    left = iter(parts)

    async def receive() -> MutableMapping[str, Any]:
        return next(left)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    return Call({"type": "http", "method": "POST", "path": "/x", "headers": []}, receive, send), sent


def test_an_answer_that_has_begun_is_not_followed_by_a_refusal() -> None:
    one, sent = call()
    asyncio.run(one.send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}))
    asyncio.run(one.refuse(Trouble(500, "too late")))
    assert sent == [{"type": "http.response.start", "status": 200, "headers": [(b"a", b"b"), (b"x-request-id", one.id.encode())]}]
    assert one.status == 200


def test_a_body_in_parts_is_whole_or_its_client_is_gone() -> None:
    one, _ = call({"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.request", "body": b"b"})
    assert asyncio.run(one.body()) == b"ab"
    other, _ = call({"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"})
    with pytest.raises(Gone):
        asyncio.run(other.body())


def test_ids_of_requests_differ() -> None:
    assert len({call()[0].id for _ in range(100)}) == 100
