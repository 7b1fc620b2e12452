"""The routes beside the hot one, over HTTP: decisions as they lie in the ledger, models and their changes, health, keys."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from tests import bundles
from tests.bundles import ROW
from tests.serving import lives
from tests.serving.houses import PROOF, House, house

from makegood.ledger.erasure import erase
from makegood.ledger.events import Promoted
from makegood.serving import keys
from makegood.serving.changes import Change
from makegood.serving.rollout import VERBS


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path, "loans", lives.reasoning(), lives.challenger()) as open_house:
        yield open_house


def change(where: House, verb: str, model: str, body: Any = None, status: int = 200) -> Any:
    answer = where.client.post(f"/v1/models/{model}/{verb}", json={} if body is None else body)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_a_decision_as_the_ledger_has_it(shop: House) -> None:
    shop.rollouts.change(Change("shadow", lives.challenger().name, by="Ada"))
    answer = shop.client.post("/v1/decisions", json=ROW, headers={"Idempotency-Key": "mine"}).json()
    told = shop.client.get("/v1/decisions/mine").json()
    assert {name: told[name] for name in answer} == answer
    assert told["inputs"] == ROW
    assert len(told["reasons"]) == 2
    assert (told["role"], told["forced"], told["erased"], told["case"]) == ("champion", False, False, "loans")
    assert (told["options"], told["done"]) == (["approve", "refer", "decline"], {"action": answer["action"]})
    assert dict(zip(told["options"], told["propensities"], strict=True))[answer["action"]] == 1.0
    assert [shadow["model"] for shadow in told["shadows"]] == [lives.challenger().name]
    assert (told["promised"], told["realised"], told["outcomes"], told["overrides"]) == (answer["promise"], None, [], [])
    stored = shop.service.ledger.reader.event("mine")
    assert stored is not None
    assert told["ledger"] == {"partition": stored.partition, "seq": stored.seq, "hash": stored.hash.hex()}
    shop.client.post("/v1/outcomes", json={"decision": "mine", "outcome": "no"})
    paid = shop.client.get("/v1/decisions/mine").json()["realised"]
    assert paid == {"approve": 350.0, "refer": 60.0, "decline": 0.0}[answer["action"]]

    assert erase(shop.service.ledger, unit=None, decisions=["mine"], by="Ada") >= 1
    gone = shop.client.get("/v1/decisions/mine").json()
    assert gone | {"inputs": 0, "reasons": 0, "erased": 0, "outcomes": 0, "realised": 0} == told | {"inputs": 0, "reasons": 0, "erased": 0, "outcomes": 0, "realised": 0}  # fmt: skip
    assert (gone["inputs"], gone["reasons"], gone["erased"]) == ({}, [], True)
    for id in ("nobody", "outcome:mine", "a%20b", "x" * 200):
        assert shop.client.get(f"/v1/decisions/{id}").status_code == 404


def test_a_decision_with_a_quantity(tmp_path: Path) -> None:
    with house(tmp_path, "bakery", lives.stock(), lives.live(replace(bundles.bakery(), conformal=None), "bare stock")) as shop:
        (other,) = {known.name for known in shop.rollouts.models()} - {lives.stock().name}
        shop.rollouts.change(Change("shadow", other, by="Ada"))
        answer = shop.client.post("/v1/decisions", json=ROW, headers={"Idempotency-Key": "mine"}).json()
        told = shop.client.get("/v1/decisions/mine").json()
        assert told["done"] == {"action": "stock", "quantity": answer["quantity"]}
        assert told["shadows"][0]["quantity"] == answer["quantity"]


def test_models_and_their_changes(shop: House) -> None:
    first, second = lives.reasoning(), lives.challenger()
    told = shop.client.get("/v1/models").json()
    assert (told["case"], told["champion"], told["lacking"]) == ("loans", first.name, {})
    (stand,) = told["line"]
    assert stand == {"model": first.name, "at": stand["at"], "by": "start", "why": "", "forced": False, "evidence": {}}
    by_name = {model["name"]: model for model in told["models"]}
    assert by_name[first.name] == {"name": first.name, "verdict": "deploy", "created": first.created, "role": "champion", "folder": "run-1/bundle"}  # fmt: skip
    assert by_name[second.name]["role"] == ""

    begun = change(shop, "canary", second.name, {"share": 0.25, "why": "to see"})
    assert (begun["changed"], begun["canary"]) == (True, {"model": second.name, "share": 0.25})
    stored = shop.service.ledger.reader.event(begun["event"])
    assert stored is not None
    assert msgspec.json.decode(stored.event.body, type=Promoted) == Promoted("canary", second.name, second.hash, "local", 0.25, "to see")
    assert {m["name"]: m for m in shop.client.get("/v1/models").json()["models"]}[second.name]["share"] == 0.25
    assert change(shop, "canary", second.name, {"share": 0.25}) == {"verb": "canary", "changed": False, "champion": first.name, "canary": {"model": second.name, "share": 0.25}, "shadows": []}  # fmt: skip
    assert change(shop, "retire", second.name)["canary"] is None
    assert change(shop, "shadow", second.name, {"by": "Ada"})["shadows"] == [second.name]
    assert change(shop, "promote", second.name[-12:], {"evidence": PROOF})["champion"] == second.name
    answer = shop.client.post("/v1/decisions", json=ROW).json()
    assert answer["model"] == second.name
    assert [(s["model"], s["by"], s["evidence"]) for s in shop.client.get("/v1/models").json()["line"]][1:] == [
        (second.name, "local", PROOF)
    ]
    assert shop.client.post(f"/v1/models/{second.name}/rollback", content=b"").json()["errors"][0]["where"] == "why"
    assert change(shop, "rollback", second.name, {"why": "it loses"})["champion"] == first.name
    assert shop.client.post("/v1/decisions", json=ROW).json()["model"] == first.name


def test_changes_that_are_refused_name_every_field(shop: House) -> None:
    second = lives.challenger().name
    told = change(shop, "canary", second, {"share": "half", "by": 3, "force": 1, "why": "x" * 2001, "shar": 1}, 422)
    assert [error["where"] for error in told["errors"]] == ["share", "by", "force", "why", "shar"]
    assert told["errors"][-1]["next"] == "did you mean 'share'?"
    assert change(shop, "canary", second, {"share": True}, 422)["errors"][0]["got"] == "True"
    assert change(shop, "canary", second, {"share": 1}, 422)["errors"][0]["expected"] == "a number between 0 and 1"
    assert change(shop, "promote", second, [], 422)["errors"][0]["got"] == "list"
    change(shop, "promote", "none", None, 404)
    change(shop, "demote", second, None, 404)
    answer = shop.client.get(f"/v1/models/{second}/promote")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert shop.client.post(f"/v1/models/{second}/promote", content=b"{").status_code == 400
    assert len(shop.service.ledger.reader.promotions("loans")) == 1


def test_where_stakes_are_high_a_key_is_no_person(tmp_path: Path) -> None:
    model = lives.serving(bundles.loans())
    grave = replace(model, case={**model.case, "decision": {**model.case["decision"], "high_stakes": True}})
    first, second = lives.live(grave, "grave admin"), lives.live(replace(grave, calibrator=None), "graver admin")
    with house(tmp_path, "loans", first, second) as shop:
        for verb, body in (("promote", {}), ("canary", {"share": 0.1})):
            assert change(shop, verb, second.name, body, 422)["errors"][0]["where"] == "by"
        assert change(shop, "promote", second.name, {"by": "Ada Lovelace", "evidence": PROOF})["champion"] == second.name
        assert change(shop, "rollback", second.name, {"why": "it loses"})["champion"] == first.name


def test_health_readiness_and_metrics(shop: House) -> None:
    assert shop.client.get("/healthz").json() == {"alive": True}
    assert shop.client.get("/readyz").json() == {"ready": True, "champion": lives.reasoning().name}
    shop.client.post("/v1/decisions", json=ROW)
    metrics = shop.client.get("/metrics")
    assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'makegood_requests_total{route="/readyz",status="200"} 1.0' in metrics.text
    assert f'makegood_decisions_total{{action="{shop.client.post("/v1/decisions", json=ROW).json()["action"]}"' in metrics.text

    shop.rollouts.change(Change("shadow", lives.challenger().name, by="Ada"))
    shutil.rmtree(shop.workspace.bundles("loans")[1])
    shop.rollouts.change(Change("promote", lives.reasoning().name, by="Ada"))
    shop.rollouts._seen = ""  # as a process that starts now would
    shop.rollouts._loaded.clear()
    shop.rollouts.follow()
    told = shop.client.get("/readyz")
    assert (told.status_code, told.headers["retry-after"]) == (503, "5")
    assert told.headers["content-type"] == "application/problem+json"
    assert told.json()["errors"][0]["where"] == f"model {lives.challenger().name}"
    assert shop.client.get("/v1/models").json()["lacking"].keys() == {lives.challenger().name}

    shop.service.ledger.close()
    assert "ledger" in [error["where"] for error in shop.client.get("/readyz").json()["errors"]]
    assert shop.client.get("/healthz").status_code == 200
    answer = shop.client.post(f"/v1/models/{lives.challenger().name}/retire", json={})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_a_bundle_that_cannot_be_loaded_is_shown_with_its_trouble(shop: House) -> None:
    shop.rollouts.change(Change("shadow", lives.challenger().name, by="Ada"))
    (shop.workspace.bundles("loans")[1] / "card.md").write_text("another")
    shop.rollouts._seen = ""
    shop.rollouts.now = replace(shop.rollouts.now, shadows=())
    shop.rollouts._loaded.pop(lives.challenger().name, None)
    shop.rollouts.follow()
    told = {model["name"]: model for model in shop.client.get("/v1/models").json()["models"]}[lives.challenger().name]
    assert told["role"] == "shadow"
    assert "it is not as it was made" in told["trouble"]
    assert str(shop.workspace.root) not in told["trouble"]


def test_each_route_asks_for_its_scope(tmp_path: Path) -> None:
    tokens = {scope: keys.create(tmp_path / keys.FILE, scope, (scope,)) for scope in keys.SCOPES}
    with house(tmp_path, "loans", lives.champion()) as shop:
        name = lives.champion().name
        asked: list[tuple[str, str, str]] = [
            ("POST", "/v1/outcomes", "observe"), ("POST", "/v1/corrections", "observe"), ("POST", "/v1/overrides", "observe"),
            ("GET", "/v1/decisions/x", "observe"), ("GET", "/v1/models", "observe"), ("GET", "/metrics", "observe"),
            ("GET", "/openapi.json", "observe"), ("GET", "/v1/promotions", "observe"), ("GET", "/v1/alarms", "observe"),
            ("POST", "/v1/alarms", "admin"), *(("POST", f"/v1/models/{name}/{verb}", "admin") for verb in VERBS),
        ]  # fmt: skip
        for method, path, scope in asked:
            for given, token in [("", ""), *tokens.items()]:
                headers = {"authorization": f"Bearer {token}"} if token else {}
                status = shop.client.request(method, path, headers=headers, content=b"{}" if method == "POST" else None).status_code
                assert (status == 401) == (not token), (path, given)
                assert (status == 403) == (token != "" and given != scope), (path, given)
        for path in ("/healthz", "/readyz"):
            assert shop.client.get(path).status_code == 200
        slow = keys.create(tmp_path / keys.FILE, "slow", ("observe",), "1/s")
        statuses = [_bulk(shop.client, slow).status_code for _ in range(2)]
        assert statuses == [207, 429]
    assert '"key":"slow"' in (tmp_path / "log.jsonl").read_text().replace(" ", "")


def _bulk(client: httpx2.Client, token: str) -> httpx2.Response:
    return client.post("/v1/outcomes", json=[{"decision": "x", "outcome": "no"}] * 5, headers={"authorization": f"Bearer {token}"})
