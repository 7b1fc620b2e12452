"""POST /v1/decisions, the hot route: rows come in, and decisions go out once they are durable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from makegood.serving.calls import ID, Call
from makegood.serving.problems import Trouble

if TYPE_CHECKING:
    from makegood.serving.rows import Asked, Reader
    from makegood.serving.service import Service

PATH = "/v1/decisions"
_REPLAYED = ((b"idempotent-replay", b"true"),)
_LONGEST = 96  # an id of an array, whose rows add theirs: KEY.0, KEY.1, …


async def decide(service: Service, call: Call) -> None:
    """Answer a request for decisions; raises `Trouble` where it is refused."""
    if call.method != "POST":
        raise Trouble(405, f"{PATH} has POST alone; one decision is at {PATH}/ID")
    key = service.keys.key(call.headers.get(b"authorization"), "decide")
    call.key = key.name
    id = _id(call)
    asked = _read(service.batcher.reader, call.headers.get(b"content-type", b""), await call.body())
    if asked.array and len(id) > _LONGEST:
        raise Trouble(400, f"The Idempotency-Key of an array has at most {_LONGEST} characters: its rows' ids are made of it")
    call.rows = len(asked.rows)
    service.rates.take(key, call.rows)
    answered = await service.batcher.decide(asked, id)
    await call.answer(200, answered.body, _REPLAYED if answered.replayed else ())


def _id(call: Call) -> str:
    """Return the client's id for what it asks, "" where it gives none."""
    given = call.headers.get(b"idempotency-key")
    if given is None:
        return ""
    id = given.decode("latin-1")
    if not ID.fullmatch(id):
        raise Trouble(400, "An Idempotency-Key has 1 to 100 characters, of A-Z a-z 0-9 . _ : -")
    return id


def _read(reader: Reader, content_type: bytes, body: bytes) -> Asked:
    kind = content_type.partition(b";")[0].strip().lower()
    if kind == b"application/json" or (kind.startswith(b"application/") and kind.endswith(b"+json")):
        return reader.read(body)
    if kind.startswith(b"image/") or kind == b"application/octet-stream":
        return reader.picture(body)
    also = "" if reader.image is None else ", or image/png, image/jpeg and the like"
    raise Trouble(415, f"Rows come as application/json{also}: say so in Content-Type")
