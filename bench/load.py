"""A closed-loop load generator for HTTP/1.1: on each connection the next request leaves when the last answer is whole.

One thread, plain sockets, epoll: some 15 µs of processor time a request, on the machine that is measured.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class Load:
    """What was measured: seconds of each answer in order, those that were refused or broke, and the seconds of it all."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    example: str = ""  # of an error

    def figures(self) -> dict[str, float | int | str]:
        """Return requests a second and percentiles, in ms; of answers that were good."""
        if not self.latencies:
            return {"per_second": 0.0, "errors": self.errors, "example": self.example}
        p50, p99, p999 = (float(np.percentile(self.latencies, p)) * 1000 for p in (50, 99, 99.9))
        out: dict[str, float | int | str] = {"per_second": round(len(self.latencies) / self.seconds, 1)}
        out |= {"p50_ms": round(p50, 3), "p99_ms": round(p99, 3), "p999_ms": round(p999, 3), "answers": len(self.latencies)}
        return out | ({"errors": self.errors, "example": self.example} if self.errors else {})


class _Line:
    """One connection, and the request that is on its way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.got, self.sent = b"", 0.0

    def send(self, request: bytes) -> None:
        self.got, self.sent = b"", time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Take what came, and tell whether the answer is whole; raises `ConnectionError` where it never will be."""
        piece = self.socket.recv(1 << 18)
        if not piece:
            raise ConnectionError("the server closed the connection")
        self.got += piece
        head = self.got.find(b"\r\n\r\n")
        if head < 0:
            return False
        length = _LENGTH.search(self.got, 0, head + 2)
        return len(self.got) >= head + 4 + int(length[1]) if length else self.got.endswith(b"0\r\n\r\n")


def request(path: str, body: bytes) -> bytes:
    """Return a request as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def once(port: int, asked: bytes) -> bytes:
    """Return the body of the answer to one request; raises `ConnectionError` where it is refused or broken."""
    line = _Line(port)
    try:
        line.socket.settimeout(30)
        line.send(asked)
        while not line.receive():
            pass
        if line.got[9:12] != b"200":
            raise ConnectionError(line.got[:300].decode(errors="replace"))
        return line.got.partition(b"\r\n\r\n")[2]
    finally:
        line.socket.close()


def drive(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    """Return what a server makes of as many connections in so many seconds; each sends its requests in turn, from another one on."""
    load, poll = Load(), select.epoll()
    lines = {}
    for _ in range(connections):
        line = _Line(port)
        lines[line.socket.fileno()] = line
        poll.register(line.socket, select.EPOLLIN)
    start = time.perf_counter()
    end, sent = start + seconds, 0
    for line in lines.values():
        line.send(requests[sent % len(requests)])
        sent += 1
    busy = len(lines)
    try:
        while busy:
            events = poll.poll(10)
            if not events:
                load.errors, load.example = load.errors + busy, "no answer in 10 s"
                break
            for number, _ in events:
                line = lines[number]
                if not line.receive():
                    continue
                now = time.perf_counter()
                if line.got[9:12] == b"200":
                    load.latencies.append(now - line.sent)
                else:
                    load.errors, load.example = load.errors + 1, line.got[:300].decode(errors="replace")
                if now < end:
                    line.send(requests[sent % len(requests)])
                    sent += 1
                else:
                    busy -= 1
    except OSError as error:
        load.errors, load.example = load.errors + busy, str(error)
    finally:
        load.seconds = time.perf_counter() - start
        poll.close()
        for line in lines.values():
            line.socket.close()
    return load
