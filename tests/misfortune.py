"""A real HTTP server that misbehaves on purpose: it drops connections after the work was done, is busy, slow, or talks nonsense."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Answer = tuple[int, Mapping[str, str], bytes]
Work = Callable[[str, str, Mapping[str, str], bytes], Answer]
SLOW_S = 0.6


@dataclass
class Server:
    """Where it listens, the fates of the requests to come (then all are well), and the requests that came."""

    url: str
    fates: list[str] = field(default_factory=list)
    came: list[tuple[str, str, Mapping[str, str], bytes]] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        """The Idempotency-Key of each request."""
        return [headers.get("idempotency-key", "") for _, _, headers, _ in self.came]


@contextmanager
def server(work: Work, fates: Iterable[str] = ()) -> Iterator[Server]:
    """Yield a server that answers with what `work` makes of a request, unless its fate is another.

    Fates: `drop` works and closes without an answer, `slow` works and answers after `SLOW_S`, `garbage` is no HTTP, `html` is 200 and
    no JSON, a number is that status, and a number with a colon and seconds says Retry-After as well.
    """

    class Connection(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            told.came.append((self.command, self.path, headers, body))
            fate = told.fates.pop(0) if told.fates else ""
            if fate == "garbage":
                self.wfile.write(b"what?\r\n\r\n")
            elif fate == "html":
                self.answer(200, {}, b"<html>a proxy</html>")
            elif fate[:1].isdigit():
                status, _, after = fate.partition(":")
                self.answer(int(status), {"retry-after": after} if after else {}, b"not now")
            else:
                answer = work(self.command, self.path, headers, body)
                if fate == "slow":
                    time.sleep(SLOW_S)
                if fate != "drop":
                    self.answer(*answer)
            self.close_connection = fate in ("drop", "garbage", "slow")

        def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    class Listener(ThreadingHTTPServer):
        daemon_threads = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say nothing of a client that did not wait."""

    with Listener(("127.0.0.1", 0), Connection) as listener:
        told = Server(f"http://127.0.0.1:{listener.server_address[1]}", list(fates))
        thread = Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield told
        finally:
            listener.shutdown()
            thread.join()
