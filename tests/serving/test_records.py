"""Promotions and alarms over HTTP: listed page by page, and an alarm that is told, once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from tests.bundles import ROW
from tests.serving import lives
from tests.serving.houses import PROOF, House, house

from makegood import AsyncClient, Client, ServiceError
from makegood.ledger.events import Alarmed
from makegood.serving import records
from makegood.serving.changes import Change

ALARM: dict[str, Any] = {
    "test": "promise",
    "model": "",
    "evidence": 1234.5,
    "limit": 1000,
    "ticks": 42,
    "why": "it earns less than it promised",
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("records"), "loans", lives.champion(), lives.challenger()) as open_house:
        yield open_house


def alarm(where: House, status: int, headers: Any = None, **more: Any) -> Any:
    answer = where.client.post("/v1/alarms", json={**ALARM, "model": lives.champion().name, **more}, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_every_change_is_listed_with_what_it_rests_on(shop: House) -> None:
    second = lives.challenger().name
    shop.rollouts.change(Change("shadow", second, "Ada"))
    shop.rollouts.change(Change("promote", second, "Ada", "it earns", evidence=PROOF, holdback=0.1))
    shop.rollouts.change(Change("retire", lives.champion().name, "Ada"))
    shop.rollouts.change(Change("rollback", second, "Ada", "after all not"))
    whole = shop.client.get("/v1/promotions").json()
    assert whole["next"] is None
    assert [(one["verb"], one["by"]) for one in whole["promotions"]] == [
        ("promote", "start"), ("shadow", "Ada"), ("promote", "Ada"), ("retire", "Ada"), ("rollback", "Ada"),
    ]  # fmt: skip
    one = whole["promotions"][2]
    assert (one["model"], one["evidence"], one["holdback"], one["why"], one["forced"]) == (second, PROOF, 0.1, "it earns", False)
    assert (one["share"], one["explore"], one["model_hash"]) == (None, None, lives.challenger().hash)
    assert one["at"].endswith("Z")
    pages, after = [], ""
    while True:
        page = shop.client.get("/v1/promotions", params={"limit": 2} | ({"after": after} if after else {})).json()
        pages.append(page["promotions"])
        if page["next"] is None:
            break
        after = page["next"]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [one for page in pages for one in page] == whole["promotions"]


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ({"limit": "0"}, "limit"), ({"limit": "1001"}, "limit"), ({"limit": "x"}, "limit"), ({"limit": "-1"}, "limit"),
        ({"limit": "٣"}, "limit"), ({"limit": "9" * 5000}, "limit"), ({"after": "nobody"}, "after"), ({"aftr": "x"}, "aftr"),
    ],
)  # fmt: skip
def test_a_page_that_there_is_not(shop: House, query: dict[str, str], where: str) -> None:
    answer = shop.client.get("/v1/alarms", params=query)
    assert (answer.status_code, answer.json()["errors"][0]["where"]) == (422, where)


def test_an_alarm_is_written_once(shop: House) -> None:
    told = alarm(shop, 201, id="alarm-1", since=1_750_000_000_000_000)
    assert told == {
        **ALARM, "model": lives.champion().name, "model_hash": lives.champion().hash, "since": "2025-06-15T15:06:40Z", "by": "review",
        "id": "alarm-1", "at": told["at"], "limit": 1000.0,
    }  # fmt: skip
    assert alarm(shop, 200, id="alarm-1", since="2025-06-15T15:06:40Z") == told  # the same time, in words
    assert alarm(shop, 409, id="alarm-1", ticks=43)["title"] == "This id holds another request"
    shop.client.post("/v1/decisions", json=ROW, headers={"Idempotency-Key": "a-decision"})
    assert alarm(shop, 409, id="a-decision")["detail"].startswith("The id a-decision holds something else")
    headed = alarm(shop, 201, {"Idempotency-Key": "alarm-2"}, test="missing", by="Ada", since=None)
    assert (headed["id"], headed["by"], headed["since"]) == ("alarm-2", "Ada", None)
    short = alarm(shop, 201, model=lives.challenger().name[-12:], model_hash=lives.challenger().hash)
    assert short["model"] == lives.challenger().name
    listed = shop.client.get("/v1/alarms").json()
    assert (listed["alarms"], listed["next"]) == ([told, headed, short], None)
    assert shop.client.get("/v1/alarms", params={"limit": 1, "after": "alarm-1"}).json() == {"alarms": [headed], "next": "alarm-2"}
    stored = shop.service.ledger.reader.alarms("loans")
    first = msgspec.json.decode(stored[0].event.body, type=Alarmed)
    assert first == Alarmed(
        "promise", lives.champion().name, lives.champion().hash, 1234.5, 1000.0, 1_750_000_000_000_000, 42, ALARM["why"]
    )
    metrics = shop.client.get("/metrics").text
    assert 'makegood_alarms_total{test="promise"} 2.0' in metrics
    assert 'makegood_alarms_total{test="missing"} 1.0' in metrics
    assert len(shop.rollouts.wanted.line) == 1  # an alarm changes nothing by itself


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"test": "Promise!"}, "test"), ({"test": "_"}, "test"), ({"test": ""}, "test"), ({"test": "x" * 41}, "test"),
        ({"model": 3}, "model"), ({"evidence": "much"}, "evidence"), ({"evidence": -1}, "evidence"), ({"limit": True}, "limit"),
        ({"limit": 1e300}, "limit"), ({"ticks": 1.5}, "ticks"), ({"ticks": 2**63}, "ticks"), ({"why": " "}, "why"),
        ({"why": "x" * 2001}, "why"), ({"since": "soon"}, "since"), ({"since": 2**62}, "since"), ({"by": " "}, "by"),
        ({"id": "a b"}, "id"), ({"tst": 1}, "tst"), ({"model_hash": "ab"}, "model_hash"),
    ],
)  # fmt: skip
def test_an_alarm_that_is_wrong_is_refused_by_name(shop: House, more: dict[str, Any], where: str) -> None:
    assert [error["where"] for error in alarm(shop, 422, **more)["errors"]] == [where]


def test_what_an_alarm_must_say(shop: House) -> None:
    answer = shop.client.post("/v1/alarms", json={"test": None})
    assert [error["where"] for error in answer.json()["errors"]] == ["test", "model", "evidence", "limit", "ticks", "why"]
    assert shop.client.post("/v1/alarms", json=[]).json()["errors"][0]["got"] == "list"
    assert alarm(shop, 404, model="none")["detail"].startswith("There is no bundle none")
    assert alarm(shop, 400, {"Idempotency-Key": "a b"})["detail"].startswith("An Idempotency-Key has")
    assert shop.client.post("/v1/alarms", content=b"{}").status_code == 415


def test_both_clients_tell_an_alarm_and_read_the_lists(shop: House) -> None:
    body = Alarmed("rollback", lives.champion().name, lives.champion().hash, 30.0, 20.0, None, 7, "it loses")
    with Client(shop.url) as client:
        receipt = client.alarm(body, id="mine")
        assert (receipt.state, receipt.said["test"], receipt.said["by"]) == ("stored", "rollback", "review")
        assert client.alarm(msgspec.to_builtins(body), id="mine").state == "there"
        assert client.alarm(msgspec.to_builtins(body)).state == "stored"
        n = len(client.alarms()["alarms"])
        assert client.alarms(after="mine", limit=1)["alarms"][0]["test"] == "rollback"
        assert n >= 2
        name = lives.challenger().name
        with pytest.raises(ServiceError, match=r"evidence: got 'none'; expected evidence and limit.*makegood review"):
            client.promote(name)
        assert client.promote(name, evidence=PROOF, holdback=0.2)["canary"] == {"model": lives.champion().name, "share": 0.2}
        assert client.promotions(after=client.promotions()["promotions"][-2]["id"])["promotions"][0]["evidence"] == PROOF
        assert client.rollback(name, evidence={"evidence": 30, "limit": 20})["canary"] is None
        with pytest.raises(ServiceError, match=r"explore; expected a case that declares feedback\.explore"):
            client.canary(name, explore={"k": 1.0, "spread": {"": 1.0}, "floor": 1.0, "least": 0.1, "budget": 1.0, "period_s": 60.0})


async def both(url: str) -> Any:
    async with AsyncClient(url) as client:
        return await client.alarm({**ALARM, "model": lives.champion().name}), await client.alarms(), await client.promotions()


def test_the_other_client_too(shop: House) -> None:
    receipt, alarms, promotions = asyncio.run(both(shop.url))
    assert receipt.state == "stored"
    assert alarms["alarms"][-1]["id"] == receipt.said["id"]
    assert promotions["promotions"][0]["by"] == "start"


def test_a_list_of_nothing_is_a_page_all_the_same() -> None:
    assert records.page("alarms", [], records.alarm, {}) == b'{"alarms":[],"next":null}'
