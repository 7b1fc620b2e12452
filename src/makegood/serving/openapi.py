"""The API's description, OpenAPI 3.1: the routes, and the columns, actions and outcomes of the models that serve now.

A limit stands in a schema only where the service refuses what is beyond it. The levels that training saw (`x-seen`) and the limits to
which numbers are cut (`x-cut-to`) are told: a value outside of them is decided on all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from makegood import __version__
from makegood.contracts import Task
from makegood.data import texts, values
from makegood.data.transform import Column
from makegood.golden import Golden
from makegood.ledger import clock
from makegood.monitoring.exploring import MOST
from makegood.serving.answers import Answer
from makegood.serving.changes import LONGEST, LONGEST_FACT, LONGEST_NAME, MOST_FACTS, MOST_SEGMENTS
from makegood.serving.live import Live
from makegood.serving.outcomes import MOST_ENTRIES
from makegood.serving.problems import MEDIA_TYPE, TITLES
from makegood.serving.records import BY, MOST_PAGE
from makegood.serving.rollout import MOST_HELD_BACK, VERBS
from makegood.serving.rows import MOST_ROWS, Reader, allowed

if TYPE_CHECKING:
    from makegood.serving.rollout import Rollout

JSON = "application/json"
_ID = {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,100}$", "minLength": 1, "maxLength": 100}
_TYPES: Mapping[str, list[str]] = {
    "number": ["number", "null"],
    "boolean": ["boolean", "null"],
    "date": ["string", "null"],
    "image": ["string"],
    "text": ["string", "null"],
    "category": ["string", "number", "boolean", "null"],
}
_MOST_LEVELS = 50  # that a column's x-seen lists
_WHEN = {"type": ["string", "null"], "description": "A time in ISO 8601 (UTC where it has no zone), or a date: that day's end"}
_CHANGES = {
    "promote": "Make a model the champion. Refused where its golden rows do not come out as they did",
    "rollback": "Go back from the champion to the one before it; a canary ends",
    "canary": "Let a model decide on a share of the units, who stay with it while the share grows",
    "shadow": "Let a model score every row without acting on it",
    "retire": "End a canary or a shadow",
}
Json = dict[str, Any]


def document(rollout: Rollout, reader: Reader, *, replayed: bool = False) -> Json:
    """Return the description of the API while these models serve; `reader` reads their rows. That of a replay has a clock."""
    champion = rollout.champion
    case = champion.model.case
    about = str(case.get("about") or f"Decisions of the case {case['case']}")
    high_stakes = bool(case.get("decision", {}).get("high_stakes"))
    return {
        "openapi": "3.1.0",
        "info": {"title": f"makegood: {case['case']}", "version": __version__, "description": about},
        "security": [{"key": []}],
        "paths": _paths(champion, reader, high_stakes) | ({"/v1/clock": _clock()} if replayed else {}),
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "A key of `makegood keys create`"}},
            "schemas": _schemas(champion, reader, high_stakes),
            "responses": {str(status): _problem(status) for status in TITLES},
            "headers": {"Replay": {"description": "true: this was answered before", "schema": {"enum": ["true"]}}},
        },
    }


# ----------------------------------------------------------------------------------------------------------------- schemas


def _schemas(champion: Live, reader: Reader, high_stakes: bool) -> Json:
    model = champion.model
    answer = msgspec.json.schema_components((Answer,), ref_template="#/components/schemas/{name}")[1]
    payoffs = model.policy.payoffs
    properties = answer["Answer"]["properties"]
    properties["action"] |= {"enum": [terms.name for terms in payoffs.actions]}
    properties["promise"] |= {"description": f"The calibrated expected payoff of the action, in {payoffs.unit}"}
    properties["unit"] |= {"const": payoffs.unit}
    properties["propensity"] |= {"description": "The chance with which this action was taken here", "exclusiveMinimum": 0, "maximum": 1}
    return {
        "Row": _row(reader),
        **answer,
        "Problem": _problem_schema(),
        "Outcome": _outcome(model.task),
        "Correction": _outcome(model.task, "why"),
        "Override": _override(champion),
        "Recorded": _recorded(),
        "Refused": _refused(),
        "Change": _change(high_stakes),
        "Evidence": _evidence(),
        "Exploration": _exploration(),
        "Alarm": _alarm(),
        "Raised": _raised(),
        "Alarms": _listed("alarms", {"$ref": "#/components/schemas/Raised"}),
        "Promotions": _listed("promotions", _promotion()),
        "Changed": {
            "type": "object",
            "properties": {"verb": {"enum": list(VERBS)}, "changed": {"type": "boolean"}},
            "required": ["verb", "changed"],
        },
        "Decision": _decision(answer["Answer"]),
        "Models": {
            "type": "object",
            "required": ["case", "champion", "line", "models", "lacking"],
            "properties": {
                "line": {"type": "array", "items": {"type": "object", "required": ["model", "at", "by", "why", "forced", "evidence"]}},
                "models": {"type": "array"},
            },
        },
    }


def _row(reader: Reader) -> Json:
    """Return the schema of a row: fields that no model knows are let in, and noted."""
    return {"type": "object", "properties": {name: _column(name, reader) for name in reader.names}, "required": sorted(reader.needed)}


def _column(name: str, reader: Reader) -> Json:
    column = reader.columns.get(name)
    if column is None:
        return {"type": ["string", "number", "boolean", "null"], "description": "Whom a row is about, or when: the models do not read it"}
    words = f"{allowed(column)}{': payoffs or limits are made of it' if name in reader.needed else ''}"
    schema: Json = {"type": _types(column), "description": words}
    if column.reads == "number" and column.low < column.high:
        schema |= {"x-cut-to": {"low": column.low, "high": column.high}, "examples": [column.fill]}
    elif column.levels:
        schema |= {"x-seen": {"levels": list(column.levels[:_MOST_LEVELS])}, "examples": list(column.levels[:3])}
    if column.reads == "image":
        schema |= {"contentEncoding": "base64"}
    if column.reads == "text":
        schema |= {"maxLength": texts.MOST}
    return schema


def _types(column: Column) -> list[str]:
    if column.style == "yearmonthday":
        return ["string", "integer", "null"]
    return _TYPES[column.reads]


def _outcome(task: Task, *more: str) -> Json:
    """Return the schema of an outcome, or, with why, of a correction."""
    numbers = [number for number in map(values.number, task.classes) if number is not None]  # 1 is the class "1", too
    came: Json = {"enum": [*task.classes, *numbers]} if task.kind == "classes" else {"type": "number"}
    properties = {
        "decision": {**_ID, "description": "The id that the decision was answered with"},
        "outcome": {**came, "description": "What came true"},
        "known_at": _WHEN,
        "source": {"type": ["string", "null"], "maxLength": 200},
        "id": {**_ID, "type": ["string", "null"]},
    }
    if more:
        properties["why"] = {"type": "string", "pattern": r"\S", "maxLength": 2000}
    return {"type": "object", "properties": properties, "required": ["decision", "outcome", *more], "additionalProperties": False}


def _override(champion: Live) -> Json:
    payoffs = champion.model.policy.payoffs
    properties: Json = {
        "decision": _ID,
        "action": {"enum": [terms.name for terms in payoffs.actions], "description": "What was really done"},
        "by": {"type": "string", "pattern": r"\S", "maxLength": 200},
        "why": {"type": ["string", "null"], "maxLength": 2000},
        "at": _WHEN,
        "id": {**_ID, "type": ["string", "null"]},
        "quantity": {"type": ["number", "null"], "description": "How much, of an action that has a quantity"},
    }
    return {"type": "object", "properties": properties, "required": ["decision", "action", "by"], "additionalProperties": False}


def _recorded() -> Json:
    properties = {
        "status": {"type": "integer", "description": "Of this entry, in an array"},
        "id": _ID,
        "decision": {"type": "string"},
        "realised": {"type": ["number", "null"], "description": "What the action that was done paid; null where nobody can tell"},
        "late": {"const": True, "description": "It came later than the case expects outcomes"},
    }
    return {"type": "object", "properties": properties, "required": ["decision"]}


def _refused() -> Json:
    """Return the schema of what an array's entry is refused with: a problem, and the decision where one was named."""
    problem = _problem_schema()
    kept = {name: problem["properties"][name] for name in ("title", "status", "detail", "errors")}
    return {"type": "object", "properties": kept | {"decision": {"type": "string"}}, "required": ["title", "status", "detail"]}


def _decision(answer: Json) -> Json:
    """Return the schema of a decision as the ledger has it: its answer, without what was erased, and what came back of it."""
    more = {
        "inputs": {"type": "object"},
        "erased": {"type": "boolean", "description": "Its inputs, reasons and notes were erased"},
        "outcomes": {"type": "array"},
        "overrides": {"type": "array"},
        "promised": {"type": "number"},
        "explored": {"type": ["number", "null"], "description": "What it counts for against the budget of exploration"},
        "realised": {"type": ["number", "null"]},
    }
    return {"type": "object", "properties": answer["properties"] | more, "required": [*answer["required"], *more]}


def _change(high_stakes: bool) -> Json:
    words = "A person's name" + (", needed to promote and for a canary: the case is one of high stakes" if high_stakes else "")
    properties: Json = {
        "by": {"type": "string", "maxLength": LONGEST, "description": words},
        "why": {"type": "string", "maxLength": LONGEST, "description": "Needed to force a promotion, and for a rollback without evidence"},
        "share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "description": "Of the units, that a canary decides on"},
        "force": {"type": "boolean", "description": "Let in a model whose verdict is refuse, or without evidence; the ledger keeps it"},
        "evidence": {"$ref": "#/components/schemas/Evidence"},
        "explore": {"$ref": "#/components/schemas/Exploration"},
        "holdback": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": MOST_HELD_BACK,
            "description": "Of the units, that the champion keeps once another is promoted",
        },
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _evidence() -> Json:
    fact = {"anyOf": [{"type": "number"}, {"type": "string", "maxLength": LONGEST_FACT}]}
    return {
        "type": "object",
        "description": "What a change rests on, a test's figures by name. To promote, `evidence` must have come to `limit`, and `limit` be "
        "at least 1/(1 − feedback.promote.confidence); `champion`, if there is one, names the model that decides now",
        "propertyNames": {"minLength": 1, "maxLength": LONGEST_NAME},
        "additionalProperties": fact,
        "maxProperties": MOST_FACTS,
    }


def _exploration() -> Json:
    above = {"type": "number", "exclusiveMinimum": 0}
    properties: Json = {
        "k": {"type": "number", "minimum": 0},
        "spread": {
            "type": "object",
            "additionalProperties": {"type": "number", "minimum": 0},
            "required": [""],
            "maxProperties": MOST_SEGMENTS,
            "description": 'The deviation of payoffs by segment, such as "approve > decline"; "" is of rows of no other',
        },
        **dict.fromkeys(("floor", "budget", "period_s"), above),
        **{key: {**above, "maximum": MOST} for key in ("least", "most")},
    }
    needed = [name for name in properties if name != "most"]
    words = "Of a canary in place of a share: where both models differ, each row has the chance k·s/√cost, as a review reckoned it"
    return {"type": "object", "description": words, "properties": properties, "required": needed, "additionalProperties": False}


def _alarm() -> Json:
    properties: Json = {
        "test": {"type": "string", "pattern": f"^(?=.*[a-z0-9])[a-z0-9_-]{{1,{LONGEST_NAME}}}$", "description": "Such as promise"},
        "model": {"type": "string", "minLength": 1, "maxLength": LONGEST},
        "model_hash": {"type": ["string", "null"], "minLength": 1, "maxLength": LONGEST, "description": "Its manifest's SHA-256"},
        "evidence": {"type": "number", "minimum": 0, "exclusiveMaximum": 2**63},
        "limit": {"type": "number", "minimum": 0, "exclusiveMaximum": 2**63, "description": "At which the test alarms"},
        "ticks": {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**63, "description": "Steps of the test that were taken"},
        "why": {"type": "string", "pattern": r"\S", "maxLength": LONGEST},
        "since": {"type": ["string", "integer", "null"], "description": "From when on: ISO 8601, or microseconds since 1970"},
        "by": {"type": ["string", "null"], "pattern": r"\S", "maxLength": LONGEST, "description": f"Who tells it; {BY} without"},
        "id": {**_ID, "type": ["string", "null"]},
    }
    needed = ["test", "model", "evidence", "limit", "ticks", "why"]
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}


def _raised() -> Json:
    texts = {key: {"type": "string"} for key in ("id", "at", "test", "model", "model_hash", "why", "by")}
    properties = {**texts, **{key: {"type": "number"} for key in ("evidence", "limit")}, "ticks": {"type": "integer"}}
    return {"type": "object", "properties": properties | {"since": {"type": ["string", "null"]}}, "required": [*properties, "since"]}


def _promotion() -> Json:
    texts = {key: {"type": "string"} for key in ("id", "at", "model", "model_hash", "by", "why")}
    numbers = {key: {"type": ["number", "null"]} for key in ("share", "holdback")}
    more: Json = {"verb": {"enum": list(VERBS)}, "forced": {"type": "boolean"}, "explore": {"type": ["object", "null"]}}
    properties = {**texts, **numbers, **more, "evidence": {"$ref": "#/components/schemas/Evidence"}}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _listed(name: str, item: Json) -> Json:
    properties: Json = {name: {"type": "array", "items": item, "maxItems": MOST_PAGE}, "next": {"type": ["string", "null"]}}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _problem_schema() -> Json:
    field = {name: {"type": "string"} for name in ("where", "got", "expected", "next")}
    properties: Json = {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object", "properties": field, "required": list(field)}},
        "request": {"type": "string", "description": "The request's id, by which the log tells of it"},
    }
    return {"type": "object", "properties": properties, "required": ["type", "title", "status", "detail"]}


# ------------------------------------------------------------------------------------------------------------------- paths


def _paths(champion: Live, reader: Reader, high_stakes: bool) -> Json:
    rows = _one_or_many("Row", MOST_ROWS)
    content: Json = {JSON: {"schema": rows} | _examples(champion, reader)}
    if reader.image is not None:
        content |= {kind: {"schema": {}} for kind in ("image/png", "image/jpeg", "application/octet-stream")}
    decide = {
        "operationId": "decide",
        "summary": "Decide on a row, or on each of an array; answered once it is durable",
        "parameters": [_header("Idempotency-Key", "The decision's id: a repetition gets the first answer")],
        "requestBody": {"required": True, "content": content},
        "responses": _responses({200: (_one_or_many("Answer", MOST_ROWS), True)}, 400, 401, 403, 409, 413, 415, 422, 429, 503),
    }
    back = {"outcomes": "Outcome", "corrections": "Correction", "overrides": "Override"}
    return {
        "/v1/decisions": {"post": decide},
        **{f"/v1/{name}": {"post": _record(name, schema)} for name, schema in back.items()},
        "/v1/decisions/{id}": {
            "get": _get("decision", "A decision, what came back of it, and what it promised and paid", "Decision", "id")
        },
        "/v1/models": {"get": _get("models", "The bundles that are here, and their roles", "Models")},
        **{f"/v1/models/{{name}}/{verb}": {"post": _changing(verb, words, high_stakes)} for verb, words in _CHANGES.items()},
        "/v1/promotions": {"get": _paged("promotions", "Every change of what serves, the newest last")},
        "/v1/alarms": {"get": _paged("alarms", "Every alarm, the newest last, but for those that were archived"), "post": _alarming()},
        "/healthz": {"get": _open("health", "The process answers")},
        "/readyz": {"get": _open("ready", "Requests should come here") | {"responses": _responses({200: ({}, False)}, 503)}},
        "/metrics": {"get": {"operationId": "metrics", "summary": "Metrics, as Prometheus reads them", "responses": _metrics()}},
        "/openapi.json": {"get": _get("openapi", "This document")},
    }


def _record(name: str, schema: str) -> Json:
    told = _one_or_many("Recorded", MOST_ENTRIES)
    each = {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Recorded", "Refused")]}
    mixed: Json = {"type": "array", "items": each, "minItems": 1, "maxItems": MOST_ENTRIES}
    return {
        "operationId": name,
        "summary": f"Take {name}, one or many; of an array every right entry is kept, and each is answered (207 where some are wrong)",
        "parameters": [_header("Idempotency-Key", "The id of a single entry that names none")],
        "requestBody": {"required": True, "content": {JSON: {"schema": _one_or_many(schema, MOST_ENTRIES)}}},
        "responses": _responses(
            {201: (told, False), 200: (told, True), 207: (mixed, False)}, 400, 401, 403, 404, 409, 413, 415, 422, 429, 503
        ),
    }


def _changing(verb: str, words: str, high_stakes: bool) -> Json:
    schema: Json = {"$ref": "#/components/schemas/Change"}
    needed = [*(["share"] if verb == "canary" else []), *(["by"] if high_stakes and verb in ("promote", "canary") else [])]
    if needed:
        schema = {"allOf": [schema, {"required": needed}]}
    return {
        "operationId": verb,
        "summary": words,
        "parameters": [_path("name", "case@12 hexadecimal digits, those digits, or 6 or more of them that only one bundle has")],
        "requestBody": {"required": bool(needed), "content": {JSON: {"schema": schema}}},
        "responses": _responses({200: ({"$ref": "#/components/schemas/Changed"}, False)}, 400, 401, 403, 404, 413, 415, 422, 503),
    }


def _get(id: str, words: str, schema: str = "", parameter: str = "") -> Json:
    shape: Json = {"$ref": f"#/components/schemas/{schema}"} if schema else {"type": "object"}
    return {
        "operationId": id,
        "summary": words,
        "parameters": [_path(parameter, "As it was answered")] if parameter else [],
        "responses": _responses({200: (shape, False)}, 401, 403, *([404] if parameter else []), 503),
    }


def _paged(id: str, words: str) -> Json:
    after = {**_query("after", "The id that the page before named as its next"), "schema": {"type": "string"}}
    limit = {**_query("limit", "Of events"), "schema": {"type": "integer", "minimum": 1, "maximum": MOST_PAGE}}
    shape = {"$ref": f"#/components/schemas/{id.capitalize()}"}
    return {
        "operationId": id,
        "summary": words,
        "parameters": [after, limit],
        "responses": _responses({200: (shape, False)}, 401, 403, 422, 503),
    }


def _alarming() -> Json:
    shape = {"$ref": "#/components/schemas/Raised"}
    return {
        "operationId": "alarm",
        "summary": "Take an alarm, which a review raised, into the ledger",
        "parameters": [_header("Idempotency-Key", "The id of an alarm that names none")],
        "requestBody": {"required": True, "content": {JSON: {"schema": {"$ref": "#/components/schemas/Alarm"}}}},
        "responses": _responses({201: (shape, False), 200: (shape, True)}, 400, 401, 403, 404, 409, 413, 415, 422, 503),
    }


def _clock() -> Json:
    """Return the routes by which a replay tells its time, and is told it."""
    shown = {"type": "object", "properties": {"at": {"type": "string"}, "us": {"type": "integer"}}, "required": ["at", "us"]}
    us = {"type": "integer", "minimum": clock.BEGINNING, "maximum": clock.END, "description": "Microseconds since 1970, UTC"}
    words = f"ISO 8601, {clock.iso(clock.BEGINNING)} to {clock.iso(clock.END)}; UTC where it has no zone; of a date its first moment"
    at = {"anyOf": [us, {"type": "string", "description": words}]}
    asked = {"type": "object", "properties": {"at": at}, "required": ["at"], "additionalProperties": False}
    post = {
        "operationId": "advance",
        "summary": "Tell the replay the time, for all that comes after; it goes forward alone",
        "requestBody": {"required": True, "content": {JSON: {"schema": asked}}},
        "responses": _responses({200: (shown, False)}, 400, 401, 403, 409, 413, 415, 422),
    }
    return {"get": _get("clock", "The time of the replay") | {"responses": _responses({200: (shown, False)}, 401, 403)}, "post": post}


def _open(id: str, words: str) -> Json:
    return {"operationId": id, "summary": words, "security": [], "responses": _responses({200: ({}, False)})}


def _metrics() -> Json:
    ok = {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"200": ok, **_responses({}, 401, 403, 503)}


def _responses(good: Mapping[int, tuple[Json, bool]], *bad: int) -> Json:
    """Return responses by status: a good one's schema, and whether it may be a repetition."""
    told: Json = {}
    for status, (schema, replays) in good.items():
        told[str(status)] = {"description": "As asked", "content": {JSON: {"schema": schema}}}
        if replays:
            told[str(status)]["headers"] = {"Idempotent-Replay": {"$ref": "#/components/headers/Replay"}}
    return told | {str(status): {"$ref": f"#/components/responses/{status}"} for status in bad}


def _problem(status: int) -> Json:
    headers = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}} if status in (429, 503) else {}
    return {
        "description": TITLES[status],
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        **({"headers": headers} if headers else {}),
    }


def _one_or_many(name: str, most: int) -> Json:
    one = {"$ref": f"#/components/schemas/{name}"}
    return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1, "maxItems": most}]}


def _header(name: str, words: str) -> Json:
    return {"name": name, "in": "header", "required": False, "description": words, "schema": _ID}


def _query(name: str, words: str) -> Json:
    return {"name": name, "in": "query", "required": False, "description": words}


def _path(name: str, words: str) -> Json:
    return {"name": name, "in": "path", "required": True, "description": words, "schema": {"type": "string", "minLength": 1}}


def _examples(champion: Live, reader: Reader) -> Json:
    """Return a golden row as an example, where the bundle has its files still and the row is one that this service takes."""
    rows = _golden(champion)
    shown = [{name: cell for name, cell in row.items() if name in reader.names} for row in rows[:1]]
    return {"examples": {"row": {"summary": "A row of the data", "value": shown[0]}}} if shown else {}


def _golden(champion: Live) -> Sequence[Mapping[str, Any]]:
    try:
        return msgspec.json.decode((champion.folder / "golden.json").read_bytes(), type=Golden).rows
    except (OSError, ValueError):  # the folder went away since: the model serves on
        return ()
