"""What a connection may cost: raw bytes against a real server, in a thread of this process."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import uvicorn
import uvloop

from makegood.serving import wire
from makegood.serving.wire import Protocol

SLOW = "/slow"


class Strict(Protocol):
    """Bounds that a test can wait for."""

    arrival_s = 0.4
    most = 5
    refused: ClassVar[list[int]] = []
    turned_away = staticmethod(refused.append)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the length of the body; /early before it has come, /slow after a while."""
    if scope["type"] == "lifespan":
        return
    n = 0
    while scope["path"] != "/early":
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        n += len(message["body"])
        if not message["more_body"]:
            break
    if scope["path"] == SLOW:
        await asyncio.sleep(1.0)
    body = f"{scope['path']} {n}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Server(uvicorn.Server):
    """The connections of a server are looked at ten times a second."""

    async def on_tick(self, counter: int) -> bool:
        now = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            if isinstance(connection, Protocol):
                connection.late(now)
        return await super().on_tick(counter)


@pytest.fixture
def port() -> Iterator[int]:
    sock = socket.create_server(("127.0.0.1", 0))
    number: int = sock.getsockname()[1]
    server = Server(
        uvicorn.Config(echo, http=Strict, ws="none", lifespan="off", timeout_keep_alive=1, log_config=None, log_level="critical")
    )

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(server.serve([sock]))

    thread = threading.Thread(target=run)
    thread.start()
    yield number
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


def answer(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send parts with pauses between them; return everything that comes until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        for i, part in enumerate(parts):
            if i:
                time.sleep(pause)
            sock.sendall(part)
        return rest(sock)


def rest(sock: socket.socket) -> bytes:
    taken = b""
    while part := sock.recv(1 << 16):
        taken += part
    return taken


def problem(raw: bytes) -> dict[str, Any]:
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower()
    assert b"connection: close" in head.lower()
    told: dict[str, Any] = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % told["status"])
    return told


CLOSE = b"connection: close\r\n"


def test_a_request_is_answered(port: int) -> None:
    raw = answer(port, b"POST /a HTTP/1.1\r\nhost: x\r\n" + CLOSE + b"content-length: 3\r\n\r\n", b"abc", pause=0.1)
    assert raw.endswith(b"\r\n\r\n/a 3")


@pytest.mark.parametrize("noise", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n"])
def test_what_is_no_http_is_told_so(port: int, noise: bytes) -> None:
    Strict.refused.clear()
    told = problem(answer(port, noise + b"\r\n\r\n"))
    assert Strict.refused == [400]
    assert (told["status"], told["detail"]) == (400, "This is no HTTP/1.1 request")


def test_noise_within_a_body_is_told_and_noise_after_a_request_waits_for_its_answer(port: int) -> None:
    chunked = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    assert problem(answer(port, chunked, b"no length\r\n", pause=0.1))["status"] == 400
    raw = answer(port, b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n" + b"\x00noise\r\n\r\n")
    assert raw.endswith(b"/slow 0")
    assert raw.count(b"HTTP/1.1") == 1


def test_a_head_without_end_is_cut_off(port: int) -> None:
    told = problem(answer(port, b"GET / HTTP/1.1\r\n" + b"".join(b"x%d: %s\r\n" % (i, b"y" * 1000) for i in range(66))))
    assert (told["status"], told["detail"]) == (431, "A request's line and headers have at most 65,536 bytes")


def test_a_large_body_is_not_a_large_head(port: int) -> None:
    body = b"z" * (4 * wire.MOST_HEAD)
    twice = (b"POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body) * 2
    raw = answer(port, twice, b"GET /c HTTP/1.1\r\nhost: x\r\n" + CLOSE + b"\r\n")
    assert raw.count(b"/b %d" % len(body)) == 2
    assert raw.endswith(b"/c 0")


@pytest.mark.parametrize(
    "begun",
    [b"", b"GET / HTTP/1.1\r\nhost: x\r\n", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc"],
    ids=["nothing", "half a head", "half a body"],
)
def test_a_request_that_does_not_arrive_is_given_up(port: int, begun: bytes) -> None:
    began = time.monotonic()
    told = problem(answer(port, begun))
    assert (told["status"], told["detail"]) == (408, "A request must be here whole in 0.4 s")
    assert time.monotonic() - began < 5


def test_one_byte_now_and_then_does_not_buy_time(port: int) -> None:
    raw = answer(port, *[bytes([c]) for c in b"GET / HTTP/1.1\r\n"], pause=0.05)
    assert problem(raw)["status"] == 408


def test_a_slow_answer_is_waited_for_even_when_half_a_request_follows(port: int) -> None:
    raw = answer(port, b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\nGET / HT")
    assert b"/slow 0" in raw
    assert problem(raw[raw.index(b"/slow 0") + 7 :])["status"] == 408


def test_a_body_that_never_ends_after_its_answer_ends_the_connection(port: int) -> None:
    raw = answer(port, b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc")
    assert raw.endswith(b"/early 0")
    assert raw.count(b"HTTP/1.1") == 1


def test_an_idle_connection_that_was_of_use_is_kept(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        for _ in range(2):
            sock.sendall(b"GET /k HTTP/1.1\r\nhost: x\r\n\r\n")
            assert sock.recv(1 << 16).endswith(b"/k 0")
            time.sleep(0.8)


def test_one_connection_too_many_is_told_to_come_again(port: int) -> None:
    held = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(Strict.most)]
    time.sleep(0.2)
    raw = answer(port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    told = problem(raw)
    assert (told["status"], told["detail"]) == (503, "5 connections are open: there is no room for more")
    assert b"retry-after: 1\r\n" in raw
    for sock in held:
        sock.close()
    time.sleep(0.2)
    assert answer(port, b"GET /d HTTP/1.1\r\nhost: x\r\n" + CLOSE + b"\r\n").endswith(b"/d 0")


def test_room_is_what_the_system_grants() -> None:
    assert 1 <= wire.room() <= wire.MOST_CONNECTIONS


def test_a_wish_for_another_protocol_is_answered_in_this_one(port: int) -> None:
    ask = b"POST /u HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    raw = answer(port, (ask + b"content-length: 3\r\n\r\nabc") * 3 + ask + b"content-length: 2\r\n\r\na", b"b", pause=0.1)
    assert raw.count(b"/u 3") == 3
    assert raw.endswith(b"/u 2")
    assert answer(port, ask.replace(b"upgrade,", b"close, upgrade,") + b"\r\n").endswith(b"/u 0")
    assert problem(answer(port, b"CONNECT a:1 HTTP/1.1\r\nhost: x\r\n\r\n"))["status"] == 400
