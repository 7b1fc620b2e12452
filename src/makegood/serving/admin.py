"""The routes beside the hot one: what came back of decisions, the models and their changes, and how the service does.

Keys: `observe` for what came back, single decisions, models, promotions, alarms, metrics and the API's description; `admin` for
changes of models and for telling an alarm. Health and readiness are open, since whoever asks for them has no key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from makegood.errors import DataError, LedgerError, Problem
from makegood.ledger import clock
from makegood.ledger.events import encode, money
from makegood.serving import metrics, openapi, outcomes, records
from makegood.serving.answers import again
from makegood.serving.calls import ID, Call
from makegood.serving.changes import Change
from makegood.serving.history import History, iso, model_of
from makegood.serving.outcomes import CORRECTION, OUTCOME, OVERRIDE, Kind
from makegood.serving.problems import MEDIA_TYPE, Trouble
from makegood.serving.rollout import ANSWERED, VERBS
from makegood.serving.rows import strict

if TYPE_CHECKING:
    from makegood.ledger.events import Stored
    from makegood.serving.service import Service

T = TypeVar("T")
JSON = "application/json"
_LINE = ("model", "at", "by", "why", "forced", "evidence")  # that is told of each champion


def routes(service: Service) -> Sequence[BaseRoute]:
    """Return the routes of a service, with a clock where it is a replay; their endpoints raise `Trouble` where a request is refused."""
    admin = _Admin(service)
    back = {"outcomes": OUTCOME, "corrections": CORRECTION, "overrides": OVERRIDE}
    return [
        *(_route(f"/v1/{name}", partial(admin.record, kind), "POST") for name, kind in back.items()),
        _route("/v1/decisions/{id}", admin.decision, "GET"),
        _route("/v1/models", admin.models, "GET"),
        *(_route(f"/v1/models/{{name}}/{verb}", partial(admin.change, verb), "POST") for verb in VERBS),
        _route("/v1/promotions", admin.promotions, "GET"),
        _route("/v1/alarms", admin.alarms, "GET"),
        _route("/v1/alarms", admin.alarm, "POST"),
        *([_route("/v1/clock", admin.clock, "GET"), _route("/v1/clock", admin.advance, "POST")] if service.ledger.replayed else ()),
        _route("/healthz", admin.health, "GET"),
        _route("/readyz", admin.ready, "GET"),
        _route("/metrics", admin.metrics, "GET"),
        _route("/openapi.json", admin.openapi, "GET"),
    ]


def _route(path: str, endpoint: Callable[[Request], Awaitable[Response]], method: str) -> Route:
    return Route(path, endpoint, methods=[method])


class _Admin:
    """The endpoints, over what the service is made of; whatever reads the ledger or loads a bundle runs in a thread."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._described: tuple[object, bytes] | None = None  # the rollout that the API's description was made of, and it

    def _let_in(self, request: Request, scope: str, rows: int = 0) -> Call:
        """Return the call of a request whose key has the scope; raises `Trouble`."""
        call: Call = request.scope["call"]
        key = self._service.keys.key(call.headers.get(b"authorization"), scope)
        call.key, call.rows = key.name, rows
        return call

    # ------------------------------------------------------------------------------------------------------ what came back

    async def record(self, kind: Kind, request: Request) -> Response:
        """POST /v1/outcomes, /v1/corrections, /v1/overrides."""
        call = self._let_in(request, "observe")
        found = await _json(call)
        call.rows = len(outcomes.entries(found))
        self._service.rates.take(self._service.keys.key(call.headers.get(b"authorization"), "observe"), call.rows)
        id = _key(call)
        service = self._service
        told = await run_in_threadpool(outcomes.record, kind, found, service.ledger, service.rollouts, id="" if call.rows > 1 else id)
        return Response(told.body, told.status, {"idempotent-replay": "true"} if told.replayed else None, JSON)

    async def decision(self, request: Request) -> Response:
        """GET /v1/decisions/{id}."""
        self._let_in(request, "observe")
        return await _in_thread(self._told, request.path_params["id"])

    def _told(self, id: str) -> bytes:
        service = self._service
        stored = service.ledger.reader.event(id) if ID.fullmatch(id) else None
        if stored is None or stored.event.kind != "decision" or stored.event.case != service.rollouts.name:
            away = service.ledger.reader.archived([id]).get(id) if ID.fullmatch(id) else None
            raise Trouble(404, f"There is no decision {id[:100]} here{f': it was archived, in {away}' if away else ''}")
        history = History.of(stored, service.ledger.reader.about(id))
        live, own = model_of(history, service.rollouts)
        realised = history.realised(live if own else None)
        event, body, private = stored.event, history.decided, history.private
        action, quantity = history.done
        told = msgspec.json.decode(again(stored)) | {
            "at": iso(event.at),
            "case": event.case,
            "unit_id": event.unit,
            "role": body.role,
            "forced": body.forced,
            "options": body.options,
            "propensities": body.propensities,
            "model_hash": body.model_hash,
            "case_hash": body.case_hash,
            "shadows": [
                {"model": s.model, "action": s.action, "promise": money(s.promise)}
                | ({} if s.quantity is None else {"quantity": s.quantity})
                for s in body.shadows
            ],
            "inputs": private.inputs,
            "erased": history.erased,
            "outcomes": [_happened(event.kind, outcomes.OUTCOME.answer(event, history, self._delay_s)) for event, _ in history.happened],
            "overrides": [outcomes.OVERRIDE.answer(event, history, self._delay_s) for event, _ in history.overridden],
            "done": {"action": action} | ({} if quantity is None else {"quantity": quantity}),
            "promised": money(body.promise),
            "explored": None if body.explored is None else money(body.explored),
            "realised": None if realised is None else money(realised),
            "ledger": {"partition": stored.partition, "seq": stored.seq, "hash": stored.hash.hex()},
        }
        return encode(told)

    @property
    def _delay_s(self) -> float:
        return outcomes.delay_s(self._service.rollouts)

    # -------------------------------------------------------------------------------------------------------------- models

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        self._let_in(request, "observe")
        return await _in_thread(self._listed)

    def _listed(self) -> bytes:
        rollouts = self._service.rollouts
        wanted, now = rollouts.wanted, rollouts.now
        canary = wanted.canary
        listed = []
        for known in rollouts.models():
            role = wanted.role(known.name)
            told: dict[str, Any] = {"name": known.name, "verdict": known.verdict, "created": known.created, "role": role}
            told["folder"] = f"{known.folder.parent.name}/{known.folder.name}"
            if canary is not None and canary.model == known.name:
                told["share"] = canary.share
                if canary.explored is not None:
                    told["explore"] = canary.explored.to_json()
            if why := rollouts.lacking.get(known.name):
                told["trouble"] = why
            listed.append(told)
        gone = {name: why for name, why in rollouts.lacking.items() if name not in {known.name for known in rollouts.models()}}
        past = {stored.event.id: records.promotion(stored) for stored in self._service.ledger.reader.promotions(rollouts.name)}
        line = [{name: past[stand.event][name] for name in _LINE} for stand in wanted.line]
        return encode({"case": rollouts.name, "champion": now.champion.name, "line": line, "models": listed, "lacking": gone})

    async def change(self, verb: str, request: Request) -> Response:
        """POST /v1/models/{name}/promote, rollback, canary, shadow, retire."""
        call = self._let_in(request, "admin")
        body = await call.body()
        asked = Change.of(verb, request.path_params["name"], strict(body) if body.strip() else {})
        person = verb in ANSWERED and self._service.rollouts.case.get("decision", {}).get("high_stakes")
        return await _in_thread(self._change, asked if person or asked.by else replace(asked, by=call.key))

    def _change(self, asked: Change) -> bytes:
        rollouts = self._service.rollouts
        stored = rollouts.change(asked)
        wanted = rollouts.wanted
        share = None if wanted.canary is None else {"model": wanted.canary.model, "share": wanted.canary.share}
        told: dict[str, Any] = {"verb": asked.verb, "changed": stored is not None, "champion": wanted.champion, "canary": share}
        told["shadows"] = wanted.shadows
        if wanted.canary is not None and wanted.canary.explored is not None:
            told["explore"] = wanted.canary.explored.to_json()
        return encode(told | ({} if stored is None else {"event": stored.event.id, "at": iso(stored.event.at)}))

    # ---------------------------------------------------------------------------------------------- promotions and alarms

    async def promotions(self, request: Request) -> Response:
        """GET /v1/promotions: every change of what serves, the newest last."""
        self._let_in(request, "observe")
        return await _in_thread(self._page, "promotions", self._service.ledger.reader.promotions, records.promotion, request)

    async def alarms(self, request: Request) -> Response:
        """GET /v1/alarms: every alarm that the tables hold, the newest last."""
        self._let_in(request, "observe")
        return await _in_thread(self._page, "alarms", self._service.ledger.reader.alarms, records.alarm, request)

    def _page(
        self, name: str, read: Callable[[str], Sequence[Stored]], told: Callable[[Stored], dict[str, Any]], request: Request
    ) -> bytes:
        return records.page(name, read(self._service.rollouts.name), told, dict(request.query_params))

    async def alarm(self, request: Request) -> Response:
        """POST /v1/alarms."""
        call = self._let_in(request, "admin")
        found, id, service = await _json(call), _key(call), self._service
        raised = partial(records.raised, found, service.ledger, service.rollouts, id)
        status, body, test = await _away(raised)
        if status == 201:
            service.metrics.alarmed(test)
        return Response(body, status, {"idempotent-replay": "true"} if status == 200 else None, JSON)

    # ---------------------------------------------------------------------------------------------------------------- clock

    async def clock(self, request: Request) -> Response:
        """GET /v1/clock: the time of a replay."""
        self._let_in(request, "observe")
        return self._time()

    async def advance(self, request: Request) -> Response:
        """POST /v1/clock: tell a replay the time, for all that comes after."""
        call = self._let_in(request, "admin")
        at = _told_time(await _json(call))
        try:
            self._service.ledger.advance(at)
        except DataError as error:
            raise Trouble(409, "The time of a replay goes forward alone", error.problems) from None
        return self._time()

    def _time(self) -> Response:
        now = self._service.ledger.now_us()
        return Response(encode({"at": clock.iso(now), "us": now}), media_type=JSON)

    # ----------------------------------------------------------------------------------------------------- how it does

    async def health(self, request: Request) -> Response:
        """GET /healthz: the process answers."""
        return Response(b'{"alive":true}', media_type=JSON)

    async def ready(self, request: Request) -> Response:
        """GET /readyz: whether requests should come here, and if not, why. A service that stops takes no connections: that tells it."""
        service = self._service
        ledger, problems = service.ledger.state, []
        if not ledger.ok:
            problems.append(Problem("ledger", ledger.why, "a ledger that can be written", "see the log"))
        for name, why in service.rollouts.lacking.items():
            problems.append(Problem(f"model {name}", why, "a bundle that can be loaded here", "bring it, or change what serves"))
        if problems:
            trouble = Trouble(503, "Requests should go elsewhere", problems, retry_after_s=5)
            return Response(trouble.body(request.scope["call"].id), 503, dict(trouble.headers()), MEDIA_TYPE)
        told = {"ready": True, "champion": service.rollouts.now.champion.name}
        return Response(encode(told | ({"replayed": True} if service.ledger.replayed else {})), media_type=JSON)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics, as Prometheus reads it."""
        self._let_in(request, "observe")
        return Response(await run_in_threadpool(self._service.metrics.render), headers={"content-type": metrics.MEDIA_TYPE})

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json: this API, with the columns of the models that serve now."""
        self._let_in(request, "observe")
        now = self._service.rollouts.now
        if self._described is None or self._described[0] is not now:
            described = partial(openapi.document, now, self._service.batcher.reader, replayed=self._service.ledger.replayed)
            document = await run_in_threadpool(described)
            self._described = now, encode(document)
        return Response(self._described[1], media_type=JSON)


async def _in_thread(work: Callable[..., bytes], *args: Any) -> Response:
    """Return the JSON that work in a thread makes; raises `Trouble` (503) where the ledger cannot be used."""
    return Response(await _away(partial(work, *args)), media_type=JSON)


async def _away(work: Callable[[], T]) -> T:
    """Return what work in a thread returns; raises `Trouble` (503) where the ledger cannot be used."""
    try:
        return await run_in_threadpool(work)
    except LedgerError as error:
        raise Trouble(503, f"The ledger cannot be used: {error.problems[0].expected}", retry_after_s=5) from None


def _key(call: Call) -> str:
    """Return the Idempotency-Key of a request, "" without one; raises `Trouble` (400) where it is none."""
    id = call.headers.get(b"idempotency-key", b"").decode("latin-1")
    if id and not ID.fullmatch(id):
        raise Trouble(400, "An Idempotency-Key has 1 to 100 characters, of A-Z a-z 0-9 . _ : -")
    return id


async def _json(call: Call) -> Any:
    kind = call.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json" and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
        raise Trouble(415, "This comes as application/json: say so in Content-Type")
    return strict(await call.body())


def _told_time(found: Any) -> int:
    """Return the time that a request's JSON tells, in microseconds since 1970; raises `Trouble` (422) where it tells none."""
    if not isinstance(found, dict) or found.keys() != {"at"}:
        raise Trouble(422, "A time is an object", [Problem("body", str(found)[:80], "an object with at, and nothing else", "send one")])
    try:
        return clock.instant(found["at"])
    except DataError as error:
        raise Trouble(422, "The time is not as it should be", error.problems) from None


def _happened(kind: str, told: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, **told}
