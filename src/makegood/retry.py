"""When a request is tried again, and what its failure says; without a socket, so that both clients do the same."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from makegood.errors import Problem, ServiceError

AGAIN = frozenset({408, 429, 502, 503, 504})
"""Statuses that another try may mend; any other from 400 on is final."""


@dataclass(frozen=True)
class Patience:
    """How long one request is tried: so many times, for so many seconds in all, with pauses that double from `first_s` to `longest_s`.

    A pause is drawn from its upper half (so that many clients do not come back at once), and is no shorter than the service asks for.
    """

    attempts: int = 8
    total_s: float = 60.0
    first_s: float = 0.1
    longest_s: float = 5.0


@dataclass(frozen=True)
class Reply:
    """What came back: a status, headers by lower-case name, and the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Effort:
    """The tries of one request: after each, whether it is settled, or how long to wait for the next.

    >>> effort = Effort("a service", Patience(attempts=2, first_s=1.0))
    >>> 0.5 <= effort.after(Reply(503, {}, b"")) <= 1.0, effort.after(Reply(200, {}, b"{}"))
    (True, None)
    """

    def __init__(self, where: str, patience: Patience) -> None:
        self._where, self._patience = where, patience
        self._began, self._tries = time.monotonic(), 0
        self.reply = Reply(0, {}, b"")
        """The good one, once there is one."""

    def left(self, timeout_s: float) -> float:
        """Return how long the next try may take, in seconds."""
        return max(0.001, min(timeout_s, self._began + self._patience.total_s - time.monotonic()))

    def after(self, got: Reply | Exception) -> float | None:
        """Return None where the reply is good, or the seconds to wait; raises `ServiceError` where another try is in vain."""
        self._tries += 1
        if isinstance(got, Reply) and got.status < 300:
            self.reply = got
            return None
        error, patience = failure(got, self._where), self._patience
        if isinstance(got, Reply) and got.status not in AGAIN:
            raise error
        pause: float = min(patience.first_s * 2 ** (self._tries - 1), patience.longest_s) * random.uniform(0.5, 1.0)
        if isinstance(got, Reply):
            pause = max(pause, _retry_after(got.headers.get("retry-after", "")))
        spent = time.monotonic() - self._began
        if self._tries >= patience.attempts or spent + pause > patience.total_s:
            said = f"tried {self._tries} time{'s' * (self._tries > 1)} in {spent:.1f} s"
            raise failed(error.status, [replace(p, next="; ".join(filter(None, (p.next, said)))) for p in error.problems])
        return pause


def _retry_after(text: str) -> float:
    """Return the seconds that a Retry-After header asks for, 0 where there is none; its other form, a date, is a proxy's."""
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0


def failed(status: int, problems: Sequence[Problem]) -> ServiceError:
    """Return the error of a request that had this status, 0 where there was no answer."""
    error = ServiceError(*problems)
    error.status = status
    return error


def failure(got: Reply | Exception, where: str) -> ServiceError:
    """Return what a reply from 300 on, or a failure to get one, says; the problems are those that the service named."""
    if not isinstance(got, Reply):
        name = type(got).__name__
        if name == "ConnectError":
            mend = "is it running, and is the URL right?"
            return failed(0, [Problem(where, str(got) or "no connection", "a service that listens there", mend)])
        what = "no answer in time" if "Timeout" in name else "the connection broke off"
        return failed(0, [Problem(where, f"{what} ({name})", "a whole answer", "see the service's log")])
    try:
        problems = named(msgspec.json.decode(got.body), where)
    except (ValueError, TypeError, AttributeError, KeyError):  # of a proxy between, say
        problems = (Problem(where, f"status {got.status}", "an answer of makegood's service", "see the log of what stands before it"),)
    return failed(got.status, problems)


def named(said: Mapping[str, Any], where: str) -> tuple[Problem, ...]:
    """Return the problems that a refusal names (RFC 9457, with `errors` of ours), or the one that it is."""
    errors = [Problem(*(str(e.get(part, "")) for part in ("where", "got", "expected", "next"))) for e in said.get("errors", ())]
    return tuple(errors) or (Problem(where, str(said["title"]), "a request that the service takes", str(said.get("detail", ""))),)
