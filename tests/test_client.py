"""The clients: what they send, what they make of answers, and when they try again; against real servers."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import misfortune

from makegood import AsyncClient, Client, ServiceError
from makegood.client import Outcome
from makegood.contracts import Decision, Reason
from makegood.errors import CaseError
from makegood.retry import Patience

QUICK = Patience(attempts=6, total_s=20.0, first_s=0.01, longest_s=0.05)
SAID = {
    "id": "", "action": "approve", "promise": 12.5, "unit": "EUR", "propensity": 1.0, "predictive": {"no": 0.9, "yes": 0.1},
    "reasons": [{"column": "age", "value": "41", "money": 0.5}], "model": "loans@1",
}  # fmt: skip


class Shop:
    """What a service does, in short: a decision under each key, once."""

    def __init__(self) -> None:
        self.made: dict[str, int] = {}

    def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> misfortune.Answer:
        key = headers.get("idempotency-key", "")
        self.made[key] = self.made.get(key, 0) + 1
        return 200, {"content-type": "application/json"}, json.dumps({**SAID, "id": key}).encode()


async def asked(url: str, patience: Patience = QUICK, timeout_s: float = 5.0) -> Decision:
    async with AsyncClient(url, timeout_s=timeout_s, patience=patience) as client:
        return await client.decide({"age": 41})


@pytest.mark.parametrize("fates", [["drop"], ["503"], ["429"], ["502", "504"], ["garbage"], ["slow"], ["drop", "503:0", "drop", "429"]])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_it_is_tried_again_under_the_same_key(kind: str, fates: list[str]) -> None:
    timeout_s = misfortune.SLOW_S / 3 if "slow" in fates else 5.0
    with misfortune.server(Shop(), fates) as server:
        if kind == "async":
            decision = asyncio.run(asked(server.url, timeout_s=timeout_s))
        else:
            with Client(server.url, timeout_s=timeout_s, patience=QUICK) as client:
                decision = client.decide({"age": 41})
    assert len(server.came) == len(fates) + 1
    assert set(server.keys) == {decision.id}
    assert decision == Decision(
        decision.id, "approve", None, 12.5, "EUR", 1.0, {"no": 0.9, "yes": 0.1}, (Reason("age", "41", 0.5),), "loans@1"
    )


def test_the_clients_key_is_the_decisions_id_and_the_api_key_goes_along() -> None:
    with misfortune.server(Shop()) as server, Client(server.url + "/", key="mg_secret") as client:
        assert client.decide({"age": np.float64(41), "at": datetime(2024, 2, 29, tzinfo=UTC), "name": None}, id="visit-1").id == "visit-1"
    ((method, path, headers, body),) = server.came
    assert (method, path, headers["authorization"]) == ("POST", "/v1/decisions", "Bearer mg_secret")
    assert json.loads(body) == {"age": 41.0, "at": "2024-02-29T00:00:00Z", "name": None}


@pytest.mark.parametrize("after", ["1", "a date"])
def test_it_waits_as_long_as_the_service_asks(after: str) -> None:
    said = format_datetime(datetime.fromtimestamp(time.time() + 2, UTC), usegmt=True) if after == "a date" else after
    with misfortune.server(Shop(), [f"429:{said}"]) as server, Client(server.url, patience=QUICK) as client:
        began = time.monotonic()
        client.decide({"age": 41})
    assert time.monotonic() - began >= (0.9 if after == "a date" else 1.0)


def test_it_gives_up_after_so_many_tries() -> None:
    with (
        misfortune.server(Shop(), ["503"] * 9) as server,
        Client(server.url, patience=Patience(attempts=3, first_s=0.01)) as client,
        pytest.raises(ServiceError, match=r"got 'status 503'; expected an answer of makegood's service; .*; tried 3 times in") as caught,
    ):
        client.decide({"age": 41})
    assert (caught.value.status, len(server.came)) == (503, 3)


def test_it_gives_up_at_once_where_the_service_asks_for_longer_than_it_has() -> None:
    with (
        misfortune.server(Shop(), ["503:3600"]) as server,
        Client(server.url, patience=QUICK) as client,
        pytest.raises(ServiceError, match=r"tried 1 time in 0\.\d s"),
    ):
        client.decide({"age": 41})
    assert len(server.came) == 1


def test_all_tries_together_have_a_time() -> None:
    patience = Patience(attempts=99, total_s=0.5, first_s=0.05)
    with misfortune.server(Shop(), ["slow"] * 99) as server, Client(server.url, timeout_s=0.2, patience=patience) as client:
        began = time.monotonic()
        with pytest.raises(ServiceError, match=r"no answer in time \(ReadTimeout\)"):
            client.decide({"age": 41})
        assert time.monotonic() - began < 2.0


def test_a_refusal_names_every_field_and_is_not_tried_again() -> None:
    errors = [
        {"where": "age", "got": '"old"', "expected": "a number or null", "next": "leave it out"},
        {"where": "sex", "expected": "a text"},
    ]
    body = json.dumps({"title": "The request is not as it should be", "status": 422, "detail": "2 fields", "errors": errors}).encode()
    with (
        misfortune.server(lambda *_: (422, {}, body)) as server,
        Client(server.url) as client,
        pytest.raises(ServiceError, match="age: got '\"old\"'; expected a number or null; leave it out\nsex; expected a text") as caught,
    ):
        client.decide([{"age": "old"}])
    assert (caught.value.status, len(caught.value.problems), len(server.came)) == (422, 2, 1)


def test_a_refusal_without_fields_says_what_it_is() -> None:
    body = json.dumps({"title": "A key is needed", "status": 401, "detail": "Send a key"}).encode()
    with (
        misfortune.server(lambda *_: (401, {}, body)) as server,
        Client(server.url) as client,
        pytest.raises(ServiceError, match="got 'A key is needed'; expected a request that the service takes; Send a key"),
    ):
        client.models()


def test_nobody_listens() -> None:
    with misfortune.server(Shop()) as server:
        pass
    with (
        Client(server.url, patience=Patience(attempts=2, first_s=0.01)) as client,
        pytest.raises(
            ServiceError, match="expected a service that listens there; is it running, and is the URL right\\?; tried 2"
        ) as caught,
    ):
        client.ready()
    assert caught.value.status == 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>", "the answer: got '<html>'; expected JSON of makegood's service"),
        (b"[1]", "the answer: got '\\[1\\]'; expected JSON of makegood's service"),
        (b'{"id": "1"}', "the answer: got .*missing required field `action`.*; expected a decision"),
    ],
)
def test_an_answer_that_is_not_ours(body: bytes, message: str) -> None:
    with misfortune.server(lambda *_: (200, {}, body)) as server, Client(server.url) as client, pytest.raises(ServiceError, match=message):
        client.decide({"age": 41})


def test_a_redirect_is_not_followed_since_the_key_would_go_along() -> None:
    with (
        misfortune.server(lambda *_: (307, {"location": "http://127.0.0.1:9/"}, b"")) as server,
        Client(server.url, key="mg_x") as client,
        pytest.raises(ServiceError, match="status 307"),
    ):
        client.decide({"age": 41})


@pytest.mark.parametrize(
    ("url", "key", "message"),
    [
        ("localhost:8000", None, "url: got 'localhost:8000'; expected http://HOST:PORT, or https"),
        ("http://me:secret@host", None, "url: got 'http://…@host'; expected"),
        ("http://host", "mg_secret\n", "key; expected a key as `makegood keys create` printed it"),
    ],
)
def test_an_address_or_key_that_is_none(url: str, key: str | None, message: str) -> None:
    with pytest.raises(CaseError, match=message) as caught:
        Client(url, key)
    assert "secret" not in str(caught.value)


def test_what_json_cannot_hold() -> None:
    with Client("http://127.0.0.1:9") as client:
        with pytest.raises(CaseError, match="the request: got 'a value of type Thread'"):
            client.decide({"age": __import__("threading").Thread()})
        with pytest.raises(CaseError, match="known_at: got '2024-01-01 00:00:00'; expected a time with its zone"):
            client.outcome("1", "yes", datetime(2024, 1, 1))
        with pytest.raises(CaseError, match=r"nowhere.png: got 'No such file or directory'; expected a file that can be read"):
            client.decide_image(Path("nowhere.png"))


def test_an_image_goes_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    with misfortune.server(Shop()) as server, Client(server.url) as client:
        assert client.decide_image(tmp_path / "a.png", id="a").id == client.decide_image(b"\x89PNG", "a").id == "a"
    assert {(headers["content-type"], body) for _, _, headers, body in server.came} == {("application/octet-stream", b"\x89PNG")}


def test_receipts_tell_what_became_of_each() -> None:
    told: list[dict[str, Any]] = [
        {"status": 201, "id": "outcome:1"},
        {"status": 200, "id": "outcome:2"},
        {"status": 404, "title": "There is no such thing here", "detail": "There is no decision 3 here", "decision": "3"},
    ]
    with misfortune.server(lambda *_: (207, {}, json.dumps(told).encode())) as server, Client(server.url) as client:
        receipts = client.outcomes([Outcome(id, "yes") for id in "123"])
    assert [receipt.state for receipt in receipts] == ["stored", "there", "refused"]
    assert [str(p) for p in receipts[2].problems] == [
        "3: got 'There is no such thing here'; expected a request that the service takes; There is no decision 3 here"
    ]
    assert "idempotency-key" not in server.came[0][2]  # an outcome's id is its decision's


def test_both_clients_have_the_same_methods() -> None:
    def methods(client: type[Any]) -> dict[str, list[str]]:
        public = {name: f for name, f in vars(client).items() if callable(f) and not name.startswith("__")}
        return {name: [*inspect.signature(f).parameters] for name, f in public.items()}

    assert methods(Client) == methods(AsyncClient)
    assert str(inspect.signature(Client.models)) == "(self, /) -> 'Body'"
    assert Client.promote.__doc__ == AsyncClient.promote.__doc__ != None  # noqa: E711
    assert inspect.iscoroutinefunction(AsyncClient.promote)


def test_without_what_sends_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['httpx2'] = None\nfrom makegood import Client\nClient('http://127.0.0.1:9')"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtra: a client: got 'no httpx2'; expected what asks over HTTP; pip install 'makegood[client]'" in told.stderr
