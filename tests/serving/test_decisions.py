"""POST /v1/decisions over HTTP: rows and images in, durable decisions out, and every way to be refused."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.bundles import ROW
from tests.serving import lives
from tests.serving.running import Running, running

from makegood.ledger.events import Decided, Private
from makegood.serving import keys
from makegood.serving.calls import MOST_BYTES
from makegood.serving.rollout import Rollout

PATH = "/v1/decisions"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("service"), Rollout(lives.reasoning())) as at:
        yield at


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("images"), Rollout(lives.digits())) as at:
        yield at


def stored(service: Running) -> int:
    return sum(len(batch) for batch in service.service.ledger.reader.scan())


def problem(answer: Any, status: int, detail: str) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    told: dict[str, Any] = answer.json()
    assert detail in told["detail"], told
    assert told["request"] == answer.headers["x-request-id"]
    return told


def test_one_row_is_one_decision(service: Running) -> None:
    answer = service.client.post(PATH, json=ROW)
    said, alone = answer.json(), lives.reasoning().model.decide(ROW)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert list(said) == ["id", "action", "promise", "unit", "propensity", "predictive", "reasons", "model"]
    assert (said["action"], said["unit"], said["propensity"], said["model"]) == (alone.action, "EUR", 1.0, lives.reasoning().name)
    assert said["promise"] == pytest.approx(alone.promise, abs=5e-7)
    assert said["predictive"] == alone.predictive
    assert [r["column"] for r in said["reasons"]] == [r.column for r in alone.reasons]
    stored = service.service.ledger.reader.event(said["id"])
    assert stored is not None
    assert (stored.event.kind, stored.event.case, stored.event.about) == ("decision", "loans", "")
    body = msgspec.json.decode(stored.event.body, type=Decided)
    assert (body.action, body.promise / 1e6, body.model_hash) == (said["action"], said["promise"], lives.reasoning().hash)
    assert stored.event.private is not None
    assert msgspec.json.decode(stored.event.private, type=Private).inputs == ROW


def test_many_rows_are_many_decisions_in_their_order(service: Running) -> None:
    rows = [ROW | {"amount": 1000 * i} for i in range(1, 20)]
    said = service.client.post(PATH, json=rows, headers={"Idempotency-Key": "many"}).json()
    assert [one["id"] for one in said] == [f"many.{i}" for i in range(19)]
    assert [one["action"] for one in said] == [lives.reasoning().model.decide(row).action for row in rows]


def test_a_repetition_gets_the_first_answer(service: Running) -> None:
    key = {"Idempotency-Key": "twice"}
    first, again = (service.client.post(PATH, json=ROW | {"region": "Atlantis"}, headers=key) for _ in range(2))
    assert first.content == again.content
    assert (first.headers.get("idempotent-replay"), again.headers["idempotent-replay"]) == (None, "true")
    assert first.json()["notes"] == ["region: 'Atlantis' did not occur in training"]
    problem(service.client.post(PATH, json=ROW, headers=key), 409, "The id twice holds another request")


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 101, "a/b", "a\tb"])
def test_an_id_that_is_none_is_refused(service: Running, key: str) -> None:
    answer = service.client.post(PATH, json=ROW, headers={"Idempotency-Key": key.encode("latin-1")})
    problem(answer, 400, "An Idempotency-Key has 1 to 100 characters, of A-Z a-z 0-9 . _ : -")


def test_the_id_of_an_array_leaves_room_for_its_rows(service: Running) -> None:
    long = {"Idempotency-Key": "x" * 100}
    problem(service.client.post(PATH, json=[ROW], headers=long), 400, "The Idempotency-Key of an array has at most 96 characters")
    assert service.client.post(PATH, json=ROW, headers=long).json()["id"] == "x" * 100
    assert service.client.post(PATH, json=[ROW], headers={"Idempotency-Key": "y" * 96}).json()[0]["id"] == "y" * 96 + ".0"


def test_bad_fields_are_named_and_nothing_is_logged(service: Running) -> None:
    before = stored(service)
    told = problem(service.client.post(PATH, json=[ROW, {"amuont": 5, "months": "x"}]), 422, "2 fields are not as this case's data are")
    assert [(e["where"], e["got"], e["next"]) for e in told["errors"]] == [
        ("row 2: amount", "nothing", "did you mean 'amuont'?"),
        ("row 2: months", '"x"', "leave it out where it is not known"),
    ]
    told = problem(service.client.post(PATH, json=ROW | {"amount": None}), 422, "No decision can be made on this")
    assert told["errors"][0]["got"] == "amount missing"
    told = problem(service.client.post(PATH, json=ROW | {"applied on": "29 Feb"}), 422, "No decision can be made on this")
    assert (told["errors"][0]["where"], told["errors"][0]["got"]) == ("applied on", '"29 Feb"')
    problem(service.client.post(PATH, content=b"{", headers=JSON), 400, "The body is not strict JSON")
    problem(service.client.post(PATH, content=b"", headers=JSON), 400, "The body is empty")
    problem(service.client.post(PATH, content=json.dumps([{}] * 1001).encode(), headers=JSON), 413, "1001 rows: at most 1000")
    assert stored(service) == before


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"])
def test_a_body_says_that_it_is_json(service: Running, kind: str) -> None:
    """A browser sends these to another's service without asking it: they must not decide anything."""
    answer = service.client.post(PATH, content=json.dumps(ROW).encode(), headers={"content-type": kind})
    problem(answer, 415, "Rows come as application/json: say so in Content-Type")


def test_what_counts_as_json(service: Running) -> None:
    for kind in ("application/json", "Application/JSON; charset=utf-8", "application/vnd.bank+json"):
        assert service.client.post(PATH, content=json.dumps(ROW).encode(), headers={"content-type": kind}).status_code == 200
    packed = service.client.post(PATH, content=b"\x1f\x8b", headers={**JSON, "content-encoding": "gzip"})
    problem(packed, 415, "send it without a Content-Encoding")
    problem(
        service.client.post(PATH, content=lives.png(0), headers={"content-type": "image/png"}), 415, "This case's rows are JSON objects"
    )


def test_a_body_is_bounded_whatever_it_says_of_itself(service: Running) -> None:
    big = b'{"amount": "' + b"x" * MOST_BYTES + b'"}'
    answer = service.client.post(PATH, content=big, headers=JSON)
    problem(answer, 413, "A body has at most 1,048,576 bytes")
    assert "connection" not in answer.headers  # what is left of the body is read and dropped, so that the answer arrives

    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 65536

    problem(service.client.post(PATH, content=pieces(), headers=JSON), 413, "A body has at most 1,048,576 bytes")
    row = json.dumps(ROW).encode()
    assert service.client.post(PATH, content=iter([row[:10], row[10:]]), headers=JSON).status_code == 200
    assert service.client.post(PATH, content=row + b" " * (MOST_BYTES - len(row)), headers=JSON).status_code == 200


def test_a_client_that_leaves_in_the_middle_leaves_nothing(service: Running) -> None:
    before = stored(service)
    with socket.create_connection(("127.0.0.1", service.port)) as line:
        line.sendall(b"POST /v1/decisions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{")
    assert service.client.post(PATH, json=ROW).status_code == 200
    assert stored(service) == before + 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_refused(service: Running, method: str) -> None:
    answer = service.client.request(method, PATH)
    problem(answer, 405, "/v1/decisions has POST alone")
    assert answer.headers["allow"] == "POST"


def test_keys_scopes_and_rates(tmp_path: Path) -> None:
    file = tmp_path / keys.FILE
    slow, blind = keys.create(file, "slow", ("decide",), "3/s"), keys.create(file, "blind", ("observe",))
    with running(tmp_path, Rollout(lives.champion())) as at:

        def ask(key: str | None, rows: Any = ROW) -> Any:
            return at.client.post(PATH, json=rows, headers={} if key is None else {"authorization": f"Bearer {key}"})

        told = problem(ask(None), 401, "Send a key of this service")
        assert "www-authenticate" in ask("mg_" + "x" * 43).headers
        problem(ask(blind), 403, "The key blind has the scope observe; this needs decide")
        assert ask(slow, [ROW] * 3).status_code == 200
        limited = ask(slow)
        problem(limited, 429, "The key slow may ask about 3 rows a second")
        assert int(limited.headers["retry-after"]) >= 1
        assert told["request"]
    assert slow not in at.log.read_text()
    assert {json.loads(line)["key"] for line in at.log.read_text().splitlines()} == {"", "slow"}


def test_an_image_is_decided_as_it_is(images: Running) -> None:
    for label, action in ((0, "take"), (1, "leave"), (2, "leave")):
        answer = images.client.post(PATH, content=lives.png(label), headers={"content-type": "image/png"})
        assert (answer.status_code, answer.json()["action"]) == (200, action)
        written = images.client.post(PATH, json={"image": base64.b64encode(lives.png(label)).decode()})
        assert written.json() | {"id": ""} == answer.json() | {"id": ""}
        assert answer.json()["reasons"][0]["value"] == "an image"
    raw = images.client.post(PATH, content=lives.png(0), headers={"content-type": "application/octet-stream", "Idempotency-Key": "scan"})
    stored = images.service.ledger.reader.event("scan")
    assert raw.json()["action"] == "take"
    assert stored is not None
    assert stored.event.private is not None
    kept = msgspec.json.decode(stored.event.private, type=Private)
    assert base64.b64decode(kept.inputs["image"]) == lives.png(0)


def test_an_image_that_is_none_is_refused(images: Running) -> None:
    png = {"content-type": "image/png"}
    told = problem(images.client.post(PATH, content=b"GIF, or not", headers=png), 422, "1 field is not as this case's data are")
    assert (told["errors"][0]["where"], told["errors"][0]["got"]) == ("image", "11 bytes")
    problem(images.client.post(PATH, content=b"", headers=png), 422, "1 field is not")
    torn = images.client.post(PATH, content=lives.png(0)[:60], headers=png)
    told = problem(torn, 422, "No decision can be made on this")
    assert told["errors"][0]["expected"].startswith("a PNG, JPEG")
    problem(images.client.post(PATH, json={"image": "%"}), 422, "")
    problem(images.client.post(PATH, content=b"{}", headers={"content-type": "text/plain"}), 415, "or image/png, image/jpeg and the like")


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        [0, -1, 1e300, -1e300, 5e-324, 2**53, 10**40, "2024-02-29", "9999-12-31T23:59:59+14:00", "0001-01-01", "yes", "NA", "\0", "Süd"]
    ),
    st.text(max_size=8),
)
ROWS = st.fixed_dictionaries({}, optional=dict.fromkeys((*ROW, "sex", "stranger"), CELLS))


@given(st.builds(lambda row, base: base | row, ROWS, st.sampled_from([ROW, {"amount": 1, "months": 1}, {}])))
@settings(max_examples=300)
def test_no_row_makes_the_service_fail(service: Running, row: dict[str, Any]) -> None:
    answer = service.client.post(PATH, json=row)
    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 422:
        assert answer.json()["errors"], answer.text
