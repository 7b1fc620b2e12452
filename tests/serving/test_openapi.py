"""The API's description is valid OpenAPI 3.1, says what the case says, and the service keeps to it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode, checks
from tests.bundles import ROW
from tests.serving import lives
from tests.serving.houses import PROOF, House, house

from makegood.data.transform import Transform
from makegood.monitoring.exploring import Exploration
from makegood.serving.admin import routes
from makegood.serving.changes import Change
from makegood.serving.openapi import document
from makegood.serving.rollout import VERBS, Canary, Rollout
from makegood.serving.rows import Reader


def described(rollout: Rollout) -> dict[str, Any]:
    acting = [rollout.champion.model, *([rollout.canary.live.model] if rollout.canary else [])]
    made = document(rollout, Reader(rollout.champion.model.case, acting, [live.model for live in rollout.shadows]))
    read: dict[str, Any] = json.loads(json.dumps(made))
    return read


def validator(found: dict[str, Any], name: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": found["components"]})


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("shop"), "loans", lives.reasoning(), lives.challenger()) as open_house:
        yield open_house


@pytest.mark.parametrize("name", ["champion", "stock", "digits"])
def test_it_is_whole(name: str) -> None:
    found = described(Rollout(getattr(lives, name)()))
    assert schemathesis.openapi.from_dict(found).specification.version == "3.1.0"
    refs: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            refs.extend(value for key, value in node.items() if key == "$ref")
            list(map(walk, node.values()))
        elif isinstance(node, list):
            list(map(walk, node))

    walk(found)
    for ref in refs:
        node: Any = found
        for part in ref.removeprefix("#/").split("/"):
            node = node[part]
    for schema in found["components"]["schemas"]:
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **found["components"]["schemas"][schema]})
    ids = [operation["operationId"] for path in found["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))


def test_every_route_is_in_it_and_no_other(shop: House) -> None:
    served = {(route.path, method.lower()) for route in routes(shop.service) for method in route.methods - {"HEAD"}}  # type: ignore[attr-defined]
    found = shop.client.get("/openapi.json").json()
    told = {(path, method) for path, operations in found["paths"].items() for method in operations}
    assert told == served | {("/v1/decisions", "post")}
    assert {path.rpartition("/")[2] for path, _ in told if path.startswith("/v1/models/")} == set(VERBS)


def test_it_says_what_the_case_says() -> None:
    found = described(Rollout(lives.champion(), Canary(lives.challenger(), 0.1, "s")))
    schemas = found["components"]["schemas"]
    row = schemas["Row"]
    assert row["required"] == ["amount", "months"]
    amount = row["properties"]["amount"]
    column = next(c for c in lives.champion().model.transform.columns if c.name == "amount")
    assert amount["x-cut-to"] == {"low": column.low, "high": column.high}
    assert "payoffs or limits are made of it" in amount["description"]
    assert "maximum" not in amount
    assert row["properties"]["region"]["x-seen"]["levels"][0] in row["properties"]["region"]["examples"]
    assert row["properties"]["employed"]["type"] == ["boolean", "null"]
    assert schemas["Answer"]["properties"]["action"]["enum"] == ["approve", "refer", "decline"]
    assert schemas["Answer"]["properties"]["unit"]["const"] == "EUR"
    assert schemas["Outcome"]["properties"]["outcome"]["enum"] == ["no", "yes"]
    assert schemas["Correction"]["required"] == ["decision", "outcome", "why"]
    example = found["paths"]["/v1/decisions"]["post"]["requestBody"]["content"]["application/json"]["examples"]["row"]["value"]
    assert validator(found, "Row").is_valid(example)
    assert lives.champion().model.decide(example).action in ("approve", "refer", "decline")
    stock = described(Rollout(lives.stock()))
    assert stock["components"]["schemas"]["Outcome"]["properties"]["outcome"]["type"] == "number"
    digits = described(Rollout(lives.digits()))
    assert "image/png" in digits["paths"]["/v1/decisions"]["post"]["requestBody"]["content"]
    assert digits["components"]["schemas"]["Outcome"]["properties"]["outcome"]["enum"] == ["0", "1", "2", 0, 1, 2]
    (pixels,) = digits["components"]["schemas"]["Row"]["properties"].values()
    assert pixels["contentEncoding"] == "base64"


def test_high_stakes_ask_for_a_person() -> None:
    live = lives.champion()
    case = {**live.model.case, "decision": {**live.model.case["decision"], "high_stakes": True}}
    found = described(Rollout(replace(live, model=replace(live.model, case=case))))
    bodies = {verb: found["paths"][f"/v1/models/{{name}}/{verb}"]["post"]["requestBody"] for verb in VERBS}
    needed = {
        verb: body["content"]["application/json"]["schema"].get("allOf", [{}, {}])[1].get("required") for verb, body in bodies.items()
    }
    assert needed == {"promote": ["by"], "canary": ["share", "by"], "rollback": None, "shadow": None, "retire": None}


def test_columns_that_no_model_reads_and_dates_without_strokes() -> None:
    live = lives.champion()
    case = {**live.model.case, "data": {**live.model.case["data"], "group": "customer"}}
    columns = tuple(replace(c, style="yearmonthday") if c.name == "applied on" else c for c in live.model.transform.columns)
    model = replace(live.model, case=case, transform=Transform(columns))
    properties = described(Rollout(replace(live, model=model)))["components"]["schemas"]["Row"]["properties"]
    assert "the models do not read it" in properties["customer"]["description"]
    assert properties["applied on"]["type"] == ["string", "integer", "null"]


def test_a_bundle_whose_folder_went_away_has_no_example(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(lives.champion().folder, folder)
    live = replace(lives.champion(), folder=folder)
    shutil.rmtree(folder)
    assert "examples" not in described(Rollout(live))["paths"]["/v1/decisions"]["post"]["requestBody"]["content"]["application/json"]


def test_answers_are_as_described(shop: House) -> None:
    found = shop.client.get("/openapi.json").json()
    alarm = {"test": "promise", "model": lives.reasoning().name, "evidence": 12.5, "limit": 10, "ticks": 3, "why": "it pays less"}
    validator(found, "Alarm").validate(alarm)
    decided = shop.client.post("/v1/decisions", json=ROW, headers={"Idempotency-Key": "d"})
    answers = {
        "Answer": decided,
        "Recorded": shop.client.post("/v1/outcomes", json={"decision": "d", "outcome": "no"}),
        "Decision": shop.client.get("/v1/decisions/d"),
        "Models": shop.client.get("/v1/models"),
        "Changed": shop.client.post(f"/v1/models/{lives.challenger().name}/shadow", json={}),
        "Promotions": shop.client.get("/v1/promotions"),
        "Raised": shop.client.post("/v1/alarms", json=alarm),
        "Alarms": shop.client.get("/v1/alarms"),
        "Problem": shop.client.post("/v1/decisions", json={}),
    }
    for name, answer in answers.items():
        assert answer.status_code < 500
        validator(found, name).validate(answer.json())
    explored = Exploration(0.1, {"": 3.0, "decline > approve": 4.0}, 1.0, 0.02, 500.0, 604_800.0).to_json()
    for change in ({"evidence": PROOF, "holdback": 0.1}, {"explore": explored}, {"share": 0.1, "by": "Ada"}, {"force": True, "why": "so"}):
        validator(found, "Change").validate(change)
        Change.of("canary", "m", change)
    again = shop.client.get("/openapi.json").json()
    assert again["paths"].keys() == found["paths"].keys()


CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


def test_whatever_the_description_gives_rise_to_is_answered_as_it_says(shop: House) -> None:
    schema = schemathesis.openapi.from_url(f"{shop.url}/openapi.json")
    asked: dict[str, set[int]] = {}
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]

        @settings(max_examples=12, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(
            case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
            | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
        )
        def ask(case: Any) -> None:
            answer = case.call()
            asked.setdefault(f"{case.method} {case.operation.path}", set()).add(answer.status_code)
            case.validate_response(answer, checks=CHECKS)

        ask()
    described = shop.client.get("/openapi.json").json()["paths"]
    asked["GET /openapi.json"] = {200}  # which schemathesis read itself
    assert asked.keys() == {f"{method.upper()} {path}" for path, operations in described.items() for method in operations}
    assert all(status < 500 for statuses in asked.values() for status in statuses)
    assert 422 in asked["POST /v1/decisions"]
