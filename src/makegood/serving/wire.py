"""HTTP/1.1 as uvicorn and httptools speak it, with bounds of our own on what a connection may cost before a request is whole.

uvicorn bounds how long a connection may be idle, not how slowly a request may come, and httptools reads a head without end.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from makegood.serving.problems import Trouble

MOST_CONNECTIONS = 4096
MOST_HEAD = 64 << 10
"""Bytes of a request's line and headers."""
ARRIVAL_S = 20.0
"""In which a request must be here whole, and the first one of a connection must begin."""
LINGER_S = 1.0
"""In which whoever was refused may read why: closed with bytes unread, a connection would be reset, and take the answer with it."""
_SPARE_FILES = 256  # descriptors kept for all that is no connection
_PHRASES = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large", 503: b"Service Unavailable"}


def room() -> int:
    """Return how many connections this process can hold; asks the system for as many files as it grants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MOST_CONNECTIONS, soft - _SPARE_FILES))


class Protocol(HttpToolsProtocol):
    """One connection; what is refused before there is a request is a problem in JSON like any other."""

    arrival_s = ARRIVAL_S
    most = MOST_CONNECTIONS
    """Connections at once."""
    turned_away: Callable[[int], None] | None = None
    """Called with the status of what is refused here, of which the application never hears."""
    _since: float | None = None  # when the request that is on its way in began
    _head = 0  # its bytes so far, below 0 while its body is read
    _asked = False  # a request's head was complete: there is a cycle
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        self._since = self.loop.time()
        if len(self.connections) > self.most:
            self._refuse(Trouble(503, f"{self.most} connections are open: there is no room for more", retry_after_s=1))

    def data_received(self, data: bytes) -> None:
        """Read on; a head that is too large ends the connection."""
        self._unset_keepalive_if_required()
        while data and not self._refused and not self.transport.is_closing():
            self._head += len(data)
            try:
                self.parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade(data[upgrade.args[0] :])
            except httptools.HttpParserError:
                self.send_400_response("")
                return
            if self._head > MOST_HEAD and not self.transport.is_closing():
                self._refuse(Trouble(431, f"A request's line and headers have at most {MOST_HEAD:,} bytes"))

    def _without_upgrade(self, rest: bytes) -> bytes:
        """Return a request that asked for another protocol as if it had not, as a server may (RFC 9110, section 7.8), and what follows.

        httptools gives up such a request after its head. Clients that would rather speak HTTP/2 send each of theirs so.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":  # asks for nothing else
            self.send_400_response("")
            return b""
        closes = any(name == b"connection" and b"close" in value.lower() for name, value in self.headers)
        kept = [b"%s: %s" % header for header in self.headers if header[0] not in (b"connection", b"upgrade", b"http2-settings")]
        lines = [b"%s %s HTTP/1.1" % (method, self.url), *kept, *([b"connection: close"] if closes else []), b"", rest]
        self.parser = httptools.HttpRequestParser(self)
        self._head = 0
        return b"\r\n".join(lines)

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """End a request's head."""
        if self.parser.should_upgrade():
            return
        self._head = -(1 << 62)  # what follows is its body, which the application bounds
        super().on_headers_complete()
        self._asked = True

    def on_message_complete(self) -> None:
        """End a request."""
        if self.parser.should_upgrade():
            return
        self._since, self._head = None, 0
        super().on_message_complete()

    def late(self, now: float) -> None:
        """End the connection if its request is not whole after `ARRIVAL_S`; the server calls this once a second."""
        if self._since is None or now - self._since < self.arrival_s or self._refused or self.transport.is_closing():
            return
        if self._answering and not self.cycle.more_body:
            return  # an earlier request is not answered yet, and what is on its way in waits for that
        if self._head < 0 and (self.cycle.response_started or self.cycle.response_complete):
            self.transport.close()  # answered before its body had ended, which it does not
        else:
            self._refuse(Trouble(408, f"A request must be here whole in {self.arrival_s:g} s"))

    @property
    def _answering(self) -> bool:
        return self._asked and not self.cycle.response_complete

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; an earlier request is answered first."""
        if self._answering and not self.cycle.more_body:
            self.cycle.keep_alive = False
            self.flow.pause_reading()
        elif self._answering and self.cycle.response_started:
            self.transport.close()
        else:
            self._refuse(Trouble(400, "This is no HTTP/1.1 request"))

    def _refuse(self, trouble: Trouble) -> None:
        """Answer without the application, say no more, and read what still comes for a while without looking at it."""
        self._refused = True
        if self._asked:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = trouble.body()
        lines = [b"HTTP/1.1 %d %s" % (trouble.status, _PHRASES[trouble.status])]
        lines += [f"{name}: {value}".encode() for name, value in trouble.headers().items()]
        lines += [b"content-length: %d" % len(body), b"connection: close", b"", body]
        if self.turned_away is not None:
            self.turned_away(trouble.status)
        self.transport.write(b"\r\n".join(lines))
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)
