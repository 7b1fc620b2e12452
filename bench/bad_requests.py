"""Bad requests by the tens of thousands: none may make the service fail.

    python bench/bad_requests.py --cases 50000

A real service of `diagnosis` with two bundles, so that models are promoted, tried and rolled back meanwhile. So many requests are
what Schemathesis derives from the service's own description, half of them valid and half not, and each answer must be as described:
its status, its content type, its schema. Half as many again are made by hand of real rows: broken, cut, nested and repeated JSON,
numbers beyond any type, other methods, paths, content types, ids and headers, and bytes that are no HTTP at all. A status of 500 or
above is a failure, unless it is a 503 that says when to try again; so is a connection that ends without an answer to a request that
was one. In the end the ledger must be whole. Everything follows from the seed but the ids that the service makes.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

import result
from makegood import pipeline

SEED = 0
BY_HAND = 0.5  # of as many as are derived
MAKEGOOD = str(Path(sys.executable).parent / "makegood")
CHECKS = [checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance]


@dataclass
class Seen:
    """What was answered: how often each status by operation, and what should not have been."""

    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def note(self, operation: str, status: str, headers: dict[str, str], how: Callable[[], str]) -> None:
        """Count an answer, and keep how it came about where it is a failure."""
        self.statuses.setdefault(operation, Counter())[status] += 1
        excused = status == "503" and "retry-after" in headers and headers.get("content-type") == "application/problem+json"
        if status.isdigit() and int(status) >= 500 and not excused:
            self.failures.append(f"{status}: {how()}")

    @property
    def total(self) -> int:
        """The number of answers."""
        return sum(sum(counts.values()) for counts in self.statuses.values())


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, list[dict[str, Any]], list[str]]]:
    """Run a service; yield its URL, rows, and its models' names."""
    asked = [pipeline.override("diagnosis", budget="5s", seed=each) for each in (0, 1)]
    quick = {"reasons": 1, "latency": 0.02}  # reasons at the case's own 62 ms a row would be all that is tried
    runs = [pipeline.run(case.model_copy(update={"serve": case.serve.model_copy(update=quick)}), workspace=folder) for case in asked]
    bundle = runs[0].bundle
    assert bundle is not None
    rows = json.loads((bundle / "golden.json").read_bytes())["rows"]
    rows = [row for row in rows if row]
    command = [MAKEGOOD, "serve", "diagnosis", "--workspace", str(folder), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        try:
            models = requests.get(f"{url}/v1/models", timeout=30).json()["models"]
            yield url, rows, [model["name"] for model in models]
            assert requests.get(f"{url}/readyz", timeout=30).status_code == 200, "the service is no longer ready"
        finally:
            process.terminate()


# ------------------------------------------------------------------------------------------------------------------ derived


def derived(url: str, n: int, seen: Seen) -> None:
    """Ask what the description gives rise to, n times over all operations."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations: list[Any] = [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]
    bodied = [operation for operation in operations if operation.body]  # there is more to vary where there is a body
    plain = [operation for operation in operations if operation.path in ("/healthz", "/readyz")]  # of them there is only one
    each = math.ceil(n / (len(operations) - len(plain) + 3 * len(bodied)))
    with requests.Session() as session:
        for i, operation in enumerate(operations):
            ask_all(operation, session, each * (4 if operation in bodied else 1), SEED + i, seen)
            print(f"{seen.total:,} answers; {operation.label}", file=sys.stderr, flush=True)


def ask_all(operation: Any, session: requests.Session, n: int, number: int, seen: Seen) -> None:
    """Ask an operation n times."""

    @seed(number)
    @settings(max_examples=n, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(
        case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE) | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    )
    def ask(case: Any) -> None:
        answer = case.call(session=session)
        headers = {name: values[0] for name, values in answer.headers.items()}
        seen.note(operation.label, str(answer.status_code), headers, case.as_curl_command)
        try:
            case.validate_response(answer, checks=CHECKS)
        except schemathesis.errors.SchemathesisError as error:
            seen.failures.append(f"not as described: {error}")
        except BaseExceptionGroup as error:
            seen.failures.append(f"not as described: {error.exceptions[0]}")

    ask()


# ------------------------------------------------------------------------------------------------------------------ by hand


def broken(draw: random.Random, rows: list[dict[str, Any]]) -> bytes:
    """Return a body: JSON of a real row, and what can become of it."""
    row = dict(draw.choice(rows))
    name = draw.choice(list(row))
    odd: list[Any] = [None, "", "x" * 10_000, [], {}, True, 1e308, -1e308, 10**400, -0.0, "\u0000", "😀", [[1]], {"a": {"b": 1}}]
    match draw.randrange(13):
        case 0:
            row[name] = draw.choice(odd)
        case 1:
            return json.dumps([row] * draw.choice((0, 2, 1000, 1001))).encode()
        case 2:
            return json.dumps(row).encode()[: draw.randrange(400)]
        case 3:
            text = bytearray(json.dumps(row).encode())
            for _ in range(draw.randrange(1, 6)):
                text[draw.randrange(len(text))] = draw.randrange(256)
            return bytes(text)
        case 4:
            depth = draw.choice((31, 32, 33, 1000, 200_000))
            return b'{"a":' * depth + b"1" + b"}" * depth
        case 5:
            return (
                json.dumps(row)
                .replace(json.dumps(row[name]), draw.choice(("NaN", "Infinity", "1e999", "-", "01", "0x1", "1_0")), 1)
                .encode()
            )
        case 6:
            return (json.dumps(row)[:-1] + f', "{name}": 1, "{name}": 2}}').encode()
        case 7:
            return draw.randbytes(draw.randrange(2000))
        case 8:
            return (
                b'{"decision":"'
                + draw.choice((b"", b"nobody", b"\\ud800", b"%00", b"a" * 5000))
                + b'","outcome":'
                + draw.choice((b"1", b'"malignant"', b"{}"))
                + b"}"
            )
        case 9:
            return json.dumps({draw.choice((name, name.upper(), "", "\u202e")): draw.choice(odd) for _ in range(5)}).encode()
        case 10:
            proof: list[Any] = [*odd, {"evidence": 27.1, "limit": 20.0}, {"evidence": 3.0, "limit": 20.0}]
            change = {
                "by": draw.choice(odd),
                "share": draw.choice([*odd, 0.5, 2]),
                "force": draw.choice(odd),
                "why": "so",
                "evidence": draw.choice(proof),
            }
            return json.dumps({name: change[name] for name in draw.sample(list(change), draw.randrange(len(change) + 1))}).encode()
        case 11:
            alarm = {
                "test": "promise",
                "model": "diagnosis",
                "evidence": 2.5,
                "limit": 2,
                "ticks": 3,
                "why": "so",
                draw.choice((name, "since", "id")): draw.choice(odd),
            }
            return json.dumps(alarm).encode()
        case _:
            return b" " * draw.choice((0, 1, 1 << 20, (1 << 20) + 1))
    return json.dumps(row).encode()


def request(draw: random.Random, rows: list[dict[str, Any]], models: list[str]) -> bytes:
    """Return the bytes of a request that is HTTP."""
    ids = ("nobody", "", "..", "%2e%2e%2f", quote("😀"), "a" * 3000, "%00", "x;y?z=1", "' or 1=1", *models)
    paths = [
        "/v1/decisions", "/v1/decisions", "/v1/outcomes", "/v1/corrections", "/v1/overrides", "/v1/models", "/healthz", "/readyz",
        "/metrics", "/openapi.json", "/v1/alarms", "/v1/promotions", "/", "//", "/v1/decisions/", "/v1/decisions/" + draw.choice(ids),
        f"/v1/models/{draw.choice((*ids, *models * 3))}/{draw.choice(('promote', 'rollback', 'shadow', 'canary', 'retire', 'explode'))}",
    ]  # fmt: skip
    path = draw.choice(paths).replace(" ", "%20") + draw.choice(("", "", "?a=1", "?" + "q" * 2000, "#x"))
    method = draw.choice(("POST",) * 8 + ("GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"))
    body = broken(draw, rows)
    kinds = ("application/json",) * 8 + ("", "text/plain", "image/png", "application/json; charset=latin-1", "multipart/form-data", "\xe9")
    lines = [f"{method} {path} HTTP/1.1", "host: here", "connection: close", f"content-length: {len(body)}"]
    lines += [f"content-type: {draw.choice(kinds)}"]
    odd = ("", "a b", "k" * 101, "é", "x/y", "my-key", f"k{draw.randrange(50)}", "..", "\t")
    names = ("idempotency-key", "x-request-id", "authorization", "accept", "content-encoding", "expect", "upgrade", "cookie")
    for name in draw.sample(names, draw.choice((0, 0, 1, 2))):
        lines.append(f"{name}: {draw.choice(odd)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def exchange(address: tuple[str, int], sent: bytes, *, whole: bool) -> tuple[str, dict[str, str]]:
    """Return the status of the answer to bytes, and its headers; "closed" where none came.

    Where they are not a whole request, the service is told that no more will come.
    """
    with socket.create_connection(address, timeout=40) as line:
        got = b""
        try:
            line.sendall(sent)
            if not whole:
                line.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was refused before it was read; why is there to be read
        try:
            while piece := line.recv(1 << 16):
                got += piece
        except ConnectionResetError:
            pass
    head, _, _ = got.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) < 2:
        return "closed", {}
    return parts[1], {name.lower(): value.strip() for name, _, value in (line_.partition(":") for line_ in rest)}


def by_hand(url: str, n: int, rows: list[dict[str, Any]], models: list[str], seen: Seen) -> None:
    """Send n requests that were made by hand, one in twenty of them no HTTP."""
    draw = random.Random(SEED)
    where = urlsplit(url)
    address = (str(where.hostname), int(where.port or 0))
    for i in range(n):
        sent = request(draw, rows, models)
        if i % 20 == 0:
            at = draw.randrange(len(sent))
            sent = sent[:at].replace(b"\r\n", b"\n\r") + draw.randbytes(20) + b"\r\n\r\n"
            seen.note("no HTTP", *exchange(address, sent, whole=False), how=partial(repr, sent[:300]))
            continue
        status, headers = exchange(address, sent, whole=True)
        seen.note("by hand", status, headers, how=partial(repr, sent[:2000]))
        if status == "closed":
            seen.failures.append(f"no answer: {sent[:2000]!r}")
        if i % 5000 == 0:
            print(f"{seen.total:,} answers; by hand", file=sys.stderr, flush=True)


def main() -> None:
    """Ask, count, verify the ledger, and write the result."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--cases", type=int, default=50_000)
    said = options.parse_args()
    seen, began = Seen(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        with serving(Path(folder)) as (url, rows, models):
            derived(url, said.cases, seen)
            by_hand(url, round(said.cases * BY_HAND), rows, models, seen)
        verified = subprocess.run([MAKEGOOD, "ledger", "verify", "diagnosis", "--workspace", folder], capture_output=True, text=True)
    if verified.returncode:
        seen.failures.append(f"the ledger is not whole: {verified.stdout}{verified.stderr}")
    figures = {
        "seed": SEED,
        "answers": seen.total,
        "derived": seen.total - sum(sum(seen.statuses[name].values()) for name in ("by hand", "no HTTP")),
        "failures": len(seen.failures),
        "examples": seen.failures[:20],
        "seconds": round(time.perf_counter() - began, 1),
        "statuses": {operation: dict(sorted(counts.items())) for operation, counts in seen.statuses.items()},
        "ledger": verified.stdout.strip().splitlines()[-1:] or ["unreadable"],
    }
    result.write("bad_requests", figures, ("makegood", "schemathesis", "hypothesis", "uvicorn", "starlette"))
    sys.exit(1 if seen.failures else 0)


if __name__ == "__main__":
    main()
