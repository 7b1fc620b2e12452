"""Outcomes, corrections and overrides find their decisions, over HTTP, and say what was paid."""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests import bundles
from tests.bundles import ROW
from tests.serving import lives
from tests.serving.houses import PROOF, House, house

from makegood.contracts import Task
from makegood.errors import CaseError
from makegood.ledger.events import Happened, Private, micro, now_us
from makegood.ledger.retention import archive
from makegood.serving.changes import Change
from makegood.serving.history import paid
from makegood.serving.live import Live
from makegood.serving.outcomes import MOST_ENTRIES, moment, value_of


@pytest.fixture(scope="module")
def hiding() -> Live:
    """Return loans where declining reveals nothing, and outcomes are expected after a day."""
    model = lives.serving(bundles.loans())
    actions = tuple(replace(terms, reveals=terms.name != "decline") for terms in model.policy.payoffs.actions)
    policy = replace(model.policy, payoffs=replace(model.policy.payoffs, actions=actions))
    case = {**model.case, "data": {**model.case["data"], "outcome_delay": 86400.0}}
    return lives.live(replace(model, policy=policy, case=case), "hiding")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, hiding: Live) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("shop"), "loans", hiding, lives.challenger()) as open_house:
        yield open_house


@pytest.fixture(scope="module")
def bakery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("bakery"), "bakery", lives.stock()) as open_house:
        yield open_house


_number = iter(range(10_000))


def decided(where: House, **more: Any) -> dict[str, Any]:
    """Return a fresh decision."""
    answer = where.client.post("/v1/decisions", json={**ROW, **more}, headers={"Idempotency-Key": f"d-{next(_number)}"})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def post(where: House, kind: str, body: Any, status: int, **headers: str) -> Any:
    answer = where.client.post(f"/v1/{kind}", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == ("application/problem+json" if status >= 400 else "application/json")
    return answer


def pays(action: str, outcome: str, amount: float = 5000, months: float = 24) -> float:
    """Return what the case says that an action pays, by hand."""
    good = outcome == "no"
    return {"approve": 0.035 * amount * months / 12 if good else -0.55 * amount, "refer": 0.02 * amount - 40 if good else -40}.get(
        action, 0
    )


def test_an_outcome_finds_its_decision_and_says_what_it_paid(shop: House) -> None:
    for outcome in ("no", "yes"):
        decision = decided(shop)
        receipt = post(shop, "outcomes", {"decision": decision["id"], "outcome": outcome, "source": "books"}, 201).json()
        told = pays(decision["action"], outcome)
        assert receipt | {"known_at": ""} == {
            "id": f"outcome:{decision['id']}", "decision": decision["id"], "outcome": outcome, "known_at": "",
            "realised": None if decision["action"] == "decline" else pytest.approx(told), "unit": "EUR",
        }  # fmt: skip
        stored = shop.service.ledger.reader.event(receipt["id"])
        decision_stored = shop.service.ledger.reader.event(decision["id"])
        assert stored is not None
        assert decision_stored is not None
        assert (stored.event.about, stored.event.unit, stored.event.case) == (decision["id"], decision_stored.event.unit, "loans")
        body = msgspec.json.decode(stored.event.body, type=Happened)
        assert (body.value, body.source, body.unit) == (outcome, "books", "EUR")
        assert body.realised == (None if receipt["realised"] is None else micro(receipt["realised"]))


def test_again_and_otherwise(shop: House) -> None:
    decision = decided(shop)["id"]
    sent = {"decision": decision, "outcome": "no"}
    first = post(shop, "outcomes", sent, 201)
    again = post(shop, "outcomes", sent, 200)
    assert again.json() == first.json()
    assert (first.headers.get("idempotent-replay"), again.headers.get("idempotent-replay")) == (None, "true")
    for other in ({"outcome": "yes"}, {"outcome": "yes", "id": "another"}, {"outcome": "no", "source": "elsewhere"}):
        assert "goes to /v1/corrections" in post(shop, "outcomes", sent | other, 409).json()["detail"]
    fresh = decided(shop)["id"]
    assert "holds something else" in post(shop, "outcomes", {"decision": fresh, "outcome": "no", "id": decision}, 409).json()["detail"]
    assert (
        post(shop, "outcomes", {"decision": fresh, "outcome": "no"}, 201, **{"Idempotency-Key": f"mine-{fresh}"}).json()["id"]
        == f"mine-{fresh}"
    )
    assert len(shop.service.ledger.reader.about(decision)) == 1


def test_every_bad_field_is_named(shop: House) -> None:
    decision = decided(shop)["id"]
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for body, status, errors in (
        ({"decision": decision, "outcome": "No"}, 422, [("outcome", "No", "one of no, yes")]),
        ({"decision": decision, "outcome": 1}, 422, [("outcome", "1", "one of 'no', 'yes'")]),
        ({"decision": decision, "outcome": None}, 422, [("outcome", "null", "one of no, yes")]),
        ({"decision": decision, "outcome": ["no"]}, 422, [("outcome", '["no"]', "one of no, yes")]),
        ({"decision": decision, "outcome": "no", "known_at": later}, 422, [("known_at", later, "a time that has come")]),
        ({"decision": decision, "outcome": "no", "known_at": "2020-01-01"}, 422, [("known_at", "2020-01-01", "a time after the decision")]),
        ({"decision": decision, "outcome": "no", "known_at": "soon"}, 422, [("known_at", "soon", "a time such as")]),
        ({"decision": decision, "outcome": "no", "known_at": 17}, 422, [("known_at", "17", "a time such as")]),
        ({"decision": decision, "outcome": "no", "source": "x" * 201}, 422, [("source", "x" * 80, "a text of 1 to 200")]),
        ({"decision": "a b", "outcome": "no", "id": "ü"}, 422, [("decision", "a b", "1 to 100"), ("id", "ü", "1 to 100")]),
        ({"desicion": decision}, 422, [("decision", "", "a field decision"), ("outcome", "", "a field outcome"), ("desicion", decision, "one of decision, outcome")]),
        ("no", 422, [("", "no", "an object with decision, outcome")]),
    ):  # fmt: skip
        told = post(shop, "outcomes", body, status).json()
        assert [(e["where"], e["got"]) for e in told["errors"]] == [(where, got) for where, got, _ in errors]
        for error, (_, _, expected) in zip(told["errors"], errors, strict=True):
            assert error["expected"].startswith(expected)
    assert "did you mean 'desicion'?" in post(shop, "outcomes", {"desicion": decision}, 422).text
    assert shop.service.ledger.reader.about(decision) == []
    assert "There is no decision nobody here" in post(shop, "outcomes", {"decision": "nobody", "outcome": "no"}, 404).text
    outcome = post(shop, "outcomes", {"decision": decision, "outcome": "no"}, 201).json()["id"]
    post(shop, "outcomes", {"decision": outcome, "outcome": "no"}, 404)  # an id, of something else


def test_what_is_no_list_of_entries(shop: House) -> None:
    assert post(shop, "outcomes", [], 422).json()["errors"][0]["got"] == "an empty array"
    assert "at most 1000" in post(shop, "outcomes", [{}] * (MOST_ENTRIES + 1), 413).json()["detail"]
    for content, kind, status in ((b"{", "application/json", 400), (b"", "application/json", 400), (b"{}", "text/plain", 415)):
        assert shop.client.post("/v1/outcomes", content=content, headers={"content-type": kind}).status_code == status
    assert shop.client.post("/v1/outcomes", json={}, headers={"Idempotency-Key": "a b"}).status_code == 400
    assert shop.client.post("/v1/outcomes", json={}, headers={"content-type": "application/x+json"}).status_code == 422
    assert shop.client.get("/v1/outcomes").status_code == 405


def test_of_many_the_right_ones_are_kept_and_each_is_answered(shop: House) -> None:
    ids = [decided(shop)["id"] for _ in range(4)]
    good = [{"decision": id, "outcome": "no"} for id in ids]
    mixed = [*good[:2], {"decision": ids[2], "outcome": "maybe"}, {"decision": "gone", "outcome": "no"}, {"decision": ids[0], "outcome": "yes"}, {"decision": ids[1], "outcome": "no", "id": "x"}, 5]  # fmt: skip
    told = post(shop, "outcomes", mixed, 207).json()
    assert [entry["status"] for entry in told] == [201, 201, 422, 404, 409, 409, 422]
    assert told[2]["errors"][0]["where"] == "entry 3: outcome"
    assert told[3]["decision"] == "gone"
    assert told[6]["errors"][0]["where"] == "entry 7"
    assert {entry["id"] for entry in told[:2]} == {f"outcome:{id}" for id in ids[:2]}
    assert [entry["status"] for entry in post(shop, "outcomes", good, 200).json()] == [200, 200, 201, 201]
    again = post(shop, "outcomes", good, 200)
    assert [entry["status"] for entry in again.json()] == [200] * 4
    assert again.headers["idempotent-replay"] == "true"
    assert post(shop, "outcomes", good[:1], 200).json()[0]["decision"] == ids[0]
    fresh = {"decision": decided(shop)["id"], "outcome": "yes"}
    assert [entry["status"] for entry in post(shop, "outcomes", [fresh, fresh], 200).json()] == [201, 200]
    assert [e["status"] for e in post(shop, "outcomes", [{"decision": decided(shop)["id"], "outcome": "no"}], 201).json()] == [201]


def test_corrections(shop: House) -> None:
    decision = decided(shop)
    id = decision["id"]
    sent = {"decision": id, "outcome": "yes", "why": "it was booked wrongly", "id": f"c-{id}"}
    assert "has no outcome to correct" in post(shop, "corrections", sent, 422).json()["detail"]
    post(shop, "outcomes", {"decision": id, "outcome": "no"}, 201)
    assert [e["where"] for e in post(shop, "corrections", sent | {"why": " ", "outcome": "y"}, 422).json()["errors"]] == ["why", "outcome"]
    first = post(shop, "corrections", sent, 201).json()
    assert first["why"] == "it was booked wrongly"
    assert first["realised"] == (None if decision["action"] == "decline" else pytest.approx(pays(decision["action"], "yes")))
    assert post(shop, "corrections", sent, 200).json() == first
    assert "holds something else" in post(shop, "corrections", sent | {"outcome": "no"}, 409).json()["detail"]
    one, two = (post(shop, "corrections", {"decision": id, "outcome": "no", "why": "again"}, 201).json()["id"] for _ in range(2))
    assert one != two
    shown = shop.client.get(f"/v1/decisions/{id}").json()
    assert [(o["kind"], o["outcome"]) for o in shown["outcomes"]] == [
        ("outcome", "no"),
        ("correction", "yes"),
        ("correction", "no"),
        ("correction", "no"),
    ]


def test_overrides_and_what_was_paid_for_what_was_done(shop: House) -> None:
    decision = decided(shop)
    id = decision["id"]
    sent = {"decision": id, "action": "refer", "by": "Ada", "why": "a known customer", "id": f"o-{id}"}
    first = post(shop, "overrides", sent, 201).json()
    assert (first["action"], first["by"], first["why"]) == ("refer", "Ada", "a known customer")
    assert post(shop, "overrides", sent, 200).json() == first
    assert post(shop, "outcomes", {"decision": id, "outcome": "no"}, 201).json()["realised"] == pytest.approx(pays("refer", "no"))
    post(shop, "overrides", {"decision": id, "action": "approve", "by": "Ada"}, 201)  # later on it turned out otherwise
    shown = shop.client.get(f"/v1/decisions/{id}").json()
    assert shown["done"] == {"action": "approve"}
    assert shown["realised"] == pytest.approx(pays("approve", "no"))
    assert (shown["promised"], shown["action"]) == (decision["promise"], decision["action"])
    post(shop, "overrides", {"decision": id, "action": "decline", "by": "Ada"}, 201)
    assert shop.client.get(f"/v1/decisions/{id}").json()["realised"] is None  # it reveals nothing
    for body, where, expected in (
        ({"action": "aprove"}, "action", "one of approve, refer, decline"),
        ({"action": 3}, "action", "one of approve, refer, decline"),
        ({"quantity": 3}, "quantity", "nothing: refer has none"),
        ({"by": ""}, "by", "a text of 1 to 200 characters"),
        ({"at": "2999-01-01"}, "at", "a time that has come"),
        ({"why": 3}, "why", "a text of 1 to 2000 characters"),
    ):
        error = post(shop, "overrides", {"decision": id, "action": "refer", "by": "Ada"} | body, 422).json()["errors"][0]
        assert error["where"] == where
        assert error["expected"].startswith(expected)


def test_late_ones_are_taken_and_say_so(shop: House) -> None:
    decision = decided(shop)["id"]
    assert "late" not in post(shop, "outcomes", {"decision": decision, "outcome": "no"}, 201).json()
    ledger = shop.service.ledger
    stored = ledger.reader.event(decision)
    assert stored is not None
    old = replace(stored.event, id="old", at=now_us() - 3 * 86_400_000_000)
    ledger.append([old])
    today = datetime.now(UTC).date()
    for day, late in ((today, True), (today - timedelta(days=3), False)):
        sent = {"decision": "old", "outcome": "no", "why": "see", "known_at": day.isoformat()}
        if late:
            assert post(shop, "outcomes", {k: v for k, v in sent.items() if k != "why"}, 201).json()["late"] is True
        else:
            assert "late" not in post(shop, "corrections", sent, 201).json()


def test_numbers(bakery: House) -> None:
    decision = decided(bakery)
    id, quantity = decision["id"], decision["quantity"]
    for outcome, mend in (("12.5", "write 12.5 without quotes"), (True, "send the number"), (None, "send the number")):
        assert mend in post(bakery, "outcomes", {"decision": id, "outcome": outcome}, 422).text
    for number in (str(10**400), "1e999", "NaN"):
        body = f'{{"decision": "{id}", "outcome": {number}}}'
        assert bakery.client.post("/v1/outcomes", content=body, headers={"content-type": "application/json"}).status_code == 400
    far = decided(bakery)["id"]
    assert post(bakery, "outcomes", {"decision": far, "outcome": -1e300}, 201).json()["realised"] is None  # beyond what money can be
    receipt = post(bakery, "outcomes", {"decision": id, "outcome": 120}, 201).json()
    assert receipt["outcome"] == 120.0
    assert receipt["realised"] == pytest.approx(3.2 * min(quantity, 120) - 1.9 * quantity)
    assert post(bakery, "outcomes", {"decision": id, "outcome": 120.0}, 200).json() == receipt  # the same number
    for wrong in (None, 13, "20", True):
        error = post(bakery, "overrides", {"decision": id, "action": "stock", "by": "Ada", "quantity": wrong}, 422).json()["errors"][0]
        assert (error["where"], error["expected"]) == ("quantity", "0 to 300 in steps of 20")
    post(bakery, "overrides", {"decision": id, "action": "stock", "by": "Ada", "quantity": 200}, 201)
    shown = bakery.client.get(f"/v1/decisions/{id}").json()
    assert shown["done"] == {"action": "stock", "quantity": 200.0}
    assert shown["realised"] == pytest.approx(3.2 * 120 - 1.9 * 200)


def test_without_inputs_or_without_its_model_nothing_is_reckoned_and_nothing_lost(tmp_path: Path) -> None:
    with house(tmp_path, "loans", lives.discreet(), lives.challenger()) as shy:
        decision = decided(shy)["id"]
        assert post(shy, "outcomes", {"decision": decision, "outcome": "no"}, 201).json()["realised"] is None
        shy.rollouts.change(Change("promote", lives.challenger().name, by="Ada", evidence=PROOF))
        told, gone = decided(shy), decided(shy)["id"]
        value = post(shy, "outcomes", {"decision": told["id"], "outcome": "no"}, 201).json()["realised"]
        assert value == pytest.approx(pays(told["action"], "no"))
        shy.rollouts.change(Change("rollback", lives.challenger().name, by="Ada", why="a test"))
        shutil.rmtree(shy.workspace.bundles("loans")[1])
        shy.rollouts._kept.clear()
        decided(shy)  # the next request is read for the models that serve now, and the others are let go
        gc.collect()
        assert shy.client.get(f"/v1/decisions/{told['id']}").json()["realised"] == value  # as it was reckoned on arrival
        assert post(shy, "outcomes", {"decision": gone, "outcome": "no"}, 201).json()["realised"] is None
        assert post(shy, "outcomes", {"decision": decided(shy)["id"], "outcome": "never"}, 422)
        post(shy, "overrides", {"decision": told["id"], "action": "decline", "by": "Ada"}, 201)
        assert shy.client.get(f"/v1/decisions/{told['id']}").json()["realised"] is None


def test_without_a_ledger_nothing_is_acknowledged(tmp_path: Path) -> None:
    with house(tmp_path, "loans", lives.champion()) as shut:
        decision = decided(shut)["id"]
        shut.service.ledger.close()
        answer = post(shut, "outcomes", {"decision": decision, "outcome": "no"}, 503)
        assert answer.headers["retry-after"] == "5"
        assert "The ledger cannot be" in answer.json()["detail"]


def test_a_decision_that_was_archived_is_told_from_none(tmp_path: Path) -> None:
    with house(tmp_path, "loans", lives.champion()) as old:
        decision = decided(old)["id"]
        decided(old)  # the last event of a partition stays
        assert archive(old.service.ledger, now_us(), tmp_path)
        words = f"There is no decision {decision} here: it was archived, in "
        assert words in post(old, "outcomes", {"decision": decision, "outcome": "no"}, 404).json()["detail"]
        assert words in old.client.get(f"/v1/decisions/{decision}").json()["detail"]


def test_a_thousand_at_once_in_a_moment(shop: House) -> None:
    ids = [d["id"] for d in shop.client.post("/v1/decisions", json=[ROW] * MOST_ENTRIES).json()]
    began = time.perf_counter()
    told = post(shop, "outcomes", [{"decision": id, "outcome": "no"} for id in ids], 201).json()
    assert len(told) == MOST_ENTRIES
    assert time.perf_counter() - began < 15


def test_times() -> None:
    now = 1_700_000_000_000_000
    assert moment("2023-11-14T22:13:20Z", now) == now
    assert moment("2023-11-14T23:13:20+01:00", now) == now
    assert moment("2023-11-14 22:13:20", now) == now
    assert moment("2023-11-14", now) == now  # today, so far
    assert moment("2023-11-13", now) == 1_699_919_999_999_999
    assert (moment("2023-11-15", now) or 0) > now
    assert [moment(text, now) for text in ("", "17", "tomorrow", "2023-13-01")] == [None] * 4
    assert moment("0001-01-01T00:00:00+23:59", now) is not None


def test_classes_by_name() -> None:
    yes = Task("classes", ("0.0", "1.0", "True"))
    assert [value_of(yes, cell) for cell in ("1.0", 1, 1.0, 0, True)] == ["1.0", "1.0", "1.0", "0.0", "True"]
    none: tuple[Any, ...] = ("1", "true", 2, None, {})
    for cell in none:
        with pytest.raises(CaseError, match="one of"):
            value_of(yes, cell)


def test_what_nobody_can_tell() -> None:
    live = lives.champion()
    private = Private(dict(ROW))
    assert paid(live, private, "no", ("approve", None)) == micro(pays("approve", "no"))
    assert paid(live, private, "no", ("approve", 3.0)) is None  # no such option
    assert paid(live, Private({**ROW, "amount": None}), "no", ("approve", None)) is None  # no payoff
    assert paid(live, Private(), "no", ("approve", None)) is None  # inputs are gone
