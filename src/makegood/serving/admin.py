"""The routes beside the hot one: what came back of decisions, the models and their changes, and how the service does.

Keys: `observe` for what came back, single decisions, models, metrics and the API's description; `admin` for changes of models. Health
and readiness are open, since whoever asks for them has no key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from makegood.errors import LedgerError, Problem, nearest
from makegood.ledger.events import encode, money
from makegood.serving import metrics, openapi, outcomes
from makegood.serving.answers import again
from makegood.serving.calls import ID, Call
from makegood.serving.history import History, iso, model_of
from makegood.serving.outcomes import CORRECTION, OUTCOME, OVERRIDE, Kind
from makegood.serving.problems import MEDIA_TYPE, Trouble
from makegood.serving.rollout import ANSWERED, VERBS
from makegood.serving.rows import strict

if TYPE_CHECKING:
    from makegood.serving.service import Service

JSON = "application/json"
_CHANGE = {"by": (str, "a person's name"), "why": (str, "a text"), "share": (float, "a number"), "force": (bool, "true or false")}
_LONGEST = 2_000  # characters of a text


def routes(service: Service) -> Sequence[BaseRoute]:
    """Return the routes of a service; their endpoints raise `Trouble` where a request is refused."""
    admin = _Admin(service)
    back = {"outcomes": OUTCOME, "corrections": CORRECTION, "overrides": OVERRIDE}
    return [
        *(_route(f"/v1/{name}", partial(admin.record, kind), "POST") for name, kind in back.items()),
        _route("/v1/decisions/{id}", admin.decision, "GET"),
        _route("/v1/models", admin.models, "GET"),
        *(_route(f"/v1/models/{{name}}/{verb}", partial(admin.change, verb), "POST") for verb in VERBS),
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
        id = call.headers.get(b"idempotency-key", b"").decode("latin-1")
        if id and not ID.fullmatch(id):
            raise Trouble(400, "An Idempotency-Key has 1 to 100 characters, of A-Z a-z 0-9 . _ : -")
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
            if why := rollouts.lacking.get(known.name):
                told["trouble"] = why
            listed.append(told)
        gone = {name: why for name, why in rollouts.lacking.items() if name not in {known.name for known in rollouts.models()}}
        line = [stand.model for stand in wanted.line]
        return encode({"case": rollouts.name, "champion": now.champion.name, "line": line, "models": listed, "lacking": gone})

    async def change(self, verb: str, request: Request) -> Response:
        """POST /v1/models/{name}/promote, rollback, canary, shadow, retire."""
        call = self._let_in(request, "admin")
        body = await call.body()
        said = _changed(strict(body) if body.strip() else {})
        person = verb in ANSWERED and self._service.rollouts.case.get("decision", {}).get("high_stakes")
        said.setdefault("by", "" if person else call.key)
        return await _in_thread(self._change, verb, request.path_params["name"], said)

    def _change(self, verb: str, name: str, said: dict[str, Any]) -> bytes:
        rollouts = self._service.rollouts
        stored = rollouts.change(verb, name, **said)
        wanted = rollouts.wanted
        share = None if wanted.canary is None else {"model": wanted.canary.model, "share": wanted.canary.share}
        told: dict[str, Any] = {"verb": verb, "changed": stored is not None, "champion": wanted.champion, "canary": share}
        told["shadows"] = wanted.shadows
        return encode(told | ({} if stored is None else {"event": stored.event.id, "at": iso(stored.event.at)}))

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
        return Response(encode({"ready": True, "champion": service.rollouts.now.champion.name}), media_type=JSON)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics, as Prometheus reads it."""
        self._let_in(request, "observe")
        return Response(await run_in_threadpool(self._service.metrics.render), headers={"content-type": metrics.MEDIA_TYPE})

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json: this API, with the columns of the models that serve now."""
        self._let_in(request, "observe")
        now = self._service.rollouts.now
        if self._described is None or self._described[0] is not now:
            document = await run_in_threadpool(openapi.document, now, self._service.batcher.reader)
            self._described = now, encode(document)
        return Response(self._described[1], media_type=JSON)


async def _in_thread(work: Callable[..., bytes], *args: Any) -> Response:
    """Return the JSON that work in a thread makes; raises `Trouble` (503) where the ledger cannot be used."""
    try:
        return Response(await run_in_threadpool(work, *args), media_type=JSON)
    except LedgerError as error:
        raise Trouble(503, f"The ledger cannot be used: {error.problems[0].expected}", retry_after_s=5) from None


async def _json(call: Call) -> Any:
    kind = call.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json" and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
        raise Trouble(415, "This comes as application/json: say so in Content-Type")
    return strict(await call.body())


def _happened(kind: str, told: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, **told}


def _changed(found: Any) -> dict[str, Any]:
    """Return the arguments of a change; raises `Trouble` with every field that is wrong."""
    if not isinstance(found, dict):
        raise Trouble(
            422, "A change is an object", [Problem("body", type(found).__name__, "an object with by, why, share, force", "send one")]
        )
    problems = []
    for name, value in found.items():
        if name not in _CHANGE:
            problems.append(Problem(name, str(value)[:80], f"one of {', '.join(_CHANGE)}", nearest(name, _CHANGE) or "leave it out"))
            continue
        kind, expected = _CHANGE[name]
        right = isinstance(value, kind) or (kind is float and isinstance(value, int) and not isinstance(value, bool))
        if not right or (isinstance(value, str) and len(value) > _LONGEST):
            problems.append(Problem(name, str(value)[:80], expected, "mend it, or leave it out"))
    if problems:
        raise Trouble(422, "The change is not as it should be", problems)
    return dict(found)
