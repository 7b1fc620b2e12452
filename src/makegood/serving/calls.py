"""One HTTP request on its way: its id, its headers, its body within bounds, its answer, and what its log line will say of it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from itertools import count
from typing import TYPE_CHECKING

from makegood.ids import uuid7
from makegood.serving.problems import Trouble

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

MOST_BYTES = 1 << 20
"""Of a body."""
ID = re.compile(r"[A-Za-z0-9._:-]{1,100}")
"""What a request's, or a decision's, id may be."""


_PROCESS, _NUMBER = uuid7(1)[0], count(1)  # a fresh id of each request would cost a system call


class Gone(Exception):
    """The client went away before it had said everything."""


class Call:
    """A request: `id` is the client's X-Request-Id or a fresh one, `key` the name of its API key, `rows` how many it asks about.

    `status` is what was answered, 0 before an answer has begun.
    """

    __slots__ = ("_receive", "_send", "began", "headers", "id", "key", "method", "path", "rows", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.began = time.perf_counter()
        self._receive, self._send = receive, send
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        given = self.headers.get(b"x-request-id", b"").decode("latin-1")
        self.id = given if ID.fullmatch(given) else f"{_PROCESS}-{next(_NUMBER)}"
        self.key, self.rows, self.status = "", 0, 0

    async def body(self) -> bytes:
        """Return the body; raises `Trouble` as soon as it has too many bytes, whatever it said of its length (413), or is packed (415)."""
        if self.headers.get(b"content-encoding", b"identity") != b"identity":
            raise Trouble(415, "A body is read as it is: send it without a Content-Encoding")
        said = self.headers.get(b"content-length", b"")
        if said.isdigit() and int(said) > MOST_BYTES:
            raise _too_large()
        chunks: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > MOST_BYTES:
                raise _too_large()
            more = message.get("more_body", False)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def answer(self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Send an answer in JSON, whole."""
        length = (b"content-length", str(len(body)).encode())
        kind = (b"content-type", b"application/json")
        await self.send({"type": "http.response.start", "status": status, "headers": [kind, length, *headers]})
        await self.send({"type": "http.response.body", "body": body})

    async def refuse(self, trouble: Trouble, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Send a problem, unless an answer has begun."""
        if self.status:
            return
        body = trouble.body(self.id)
        told = [(name.encode(), value.encode()) for name, value in trouble.headers().items()]
        told += [(b"content-length", str(len(body)).encode()), *headers]
        await self.send({"type": "http.response.start", "status": trouble.status, "headers": told})
        await self.send({"type": "http.response.body", "body": body})

    async def send(self, message: Message) -> None:
        """Send what an application sends, with the request's id among its headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self.id.encode())]
        await self._send(message)


def _too_large() -> Trouble:
    return Trouble(413, f"A body has at most {MOST_BYTES:,} bytes")
