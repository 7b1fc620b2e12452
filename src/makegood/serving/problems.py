"""What a request is refused with: `application/problem+json` (RFC 9457), naming each bad field, its value and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from makegood.errors import Problem

MEDIA_TYPE = "application/problem+json"
TITLES = {
    400: "The request cannot be read",
    401: "A key is needed",
    403: "This key may not do that",
    404: "There is no such thing here",
    405: "This route has other methods",
    408: "The request did not arrive in time",
    409: "This id holds another request",
    413: "The request is too large",
    415: "This route reads another kind of content",
    422: "The request is not as it should be",
    429: "Too many requests",
    431: "The request's head is too large",
    500: "The service failed",
    503: "The service cannot do that now",
}


class Trouble(Exception):
    """A request that is refused: its status, what is wrong, and when to try again.

    `problems` name fields: `where` such as `row 2: amount`, what was got, what is expected, what to do.
    """

    def __init__(self, status: int, detail: str, problems: Sequence[Problem] = (), *, retry_after_s: float | None = None) -> None:
        super().__init__(status, detail, tuple(problems), retry_after_s)
        self.status, self.detail, self.problems, self.retry_after_s = status, detail, tuple(problems), retry_after_s

    def body(self, request_id: str = "") -> bytes:
        """Return the JSON that is sent."""
        said: dict[str, Any] = {"type": "about:blank", "title": TITLES[self.status], "status": self.status, "detail": self.detail}
        if self.problems:
            said["errors"] = [{"where": p.where, "got": p.got, "expected": p.expected, "next": p.next} for p in self.problems]
        if request_id:
            said["request"] = request_id
        return msgspec.json.encode(said)

    def headers(self) -> Mapping[str, str]:
        """Return the headers that go with it."""
        told = {"content-type": MEDIA_TYPE}
        if self.retry_after_s is not None:
            told["retry-after"] = str(max(1, math.ceil(self.retry_after_s)))
        if self.status == 401:
            told["www-authenticate"] = "Bearer"
        return told
