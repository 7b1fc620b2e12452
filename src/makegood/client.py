"""Ask a running service: `Client`, and `AsyncClient` with the same methods.

Whatever changes something is asked again under the same id, so that nothing is decided or recorded twice though an answer was lost.
Each function below makes one request and says how its answer is read; the clients, at the end, only send.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar, overload
from urllib.parse import quote, urlsplit

import msgspec

from makegood.contracts import Decision
from makegood.errors import CaseError, MissingExtra, Problem
from makegood.ids import uuid7
from makegood.retry import Effort, Patience, Reply, failed, named

if TYPE_CHECKING:
    import httpx2

    from makegood.ledger.events import Alarmed

T = TypeVar("T")
P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])
Row = Mapping[str, Any]
Body = dict[str, Any]
Evidence = Mapping[str, str | float]
"""A test's figures by name; `evidence` and `limit` are among them."""
PATIENCE = Patience()
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Asked(Generic[T]):
    """One request, and how its answer is read."""

    method: str
    path: str
    read: Callable[[Reply], T]
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


# --------------------------------------------------------------------------------------------------------- what is sent and read


def _read(reply: Reply, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except (ValueError, RecursionError):
        got = reply.body[:80].decode("utf-8", "replace") or "nothing"
        raise failed(reply.status, [Problem("the answer", got, "JSON of makegood's service", "is the URL right?")]) from None


def _object(reply: Reply) -> Body:
    return _read(reply, Body)


def _one(reply: Reply) -> Decision:
    return _decided(_read(reply, Body), reply)


def _many(reply: Reply) -> list[Decision]:
    return [_decided(said, reply) for said in _read(reply, list[Body])]


def _decided(said: Body, reply: Reply) -> Decision:
    try:
        return msgspec.convert({"quantity": None, **said}, Decision)
    except msgspec.ValidationError as error:
        raise failed(reply.status, [Problem("the answer", str(error), "a decision", "is the URL right?")]) from None


@dataclass(frozen=True)
class Receipt:
    """What became of an outcome, a correction or an override: `state` is stored (now), there (before), or refused for its `problems`.

    `said` is the answer as it came: what the ledger holds, and the money that the decision brought, where that is known by now.
    """

    state: Literal["stored", "there", "refused"]
    said: Body
    problems: tuple[Problem, ...] = ()


def _receipt(reply: Reply) -> Receipt:
    return Receipt("stored" if reply.status == 201 else "there", _object(reply))


def _receipts(reply: Reply) -> list[Receipt]:
    return [_entry(said) for said in _read(reply, list[Body])]


def _entry(said: Body) -> Receipt:
    match said.get("status"):
        case 201:
            return Receipt("stored", said)
        case 200:
            return Receipt("there", said)
    return Receipt("refused", said, named(said, str(said.get("decision", ""))))


def _plain(value: Any) -> Any:
    """Return what JSON can hold of NumPy's scalars."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a value of type {type(value).__name__}")


def _post(path: str, value: Any, read: Callable[[Reply], T], headers: Mapping[str, str] = JSON) -> Asked[T]:
    try:
        body = msgspec.json.encode(value, enc_hook=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise CaseError(Problem("the request", str(error), "what JSON can hold", "give numbers, texts, times and None")) from None
    return Asked("POST", path, read, body, headers)


def _under(id: str | None, kind: Mapping[str, str] = JSON) -> Mapping[str, str]:
    """Return headers with a decision's id, a fresh one where none is given: further tries bear the same."""
    return {**kind, "idempotency-key": id or uuid7(1)[0]}


def _present(said: Body) -> Body:
    """Return what is there of a body."""
    return {name: value for name, value in said.items() if value is not None and value != ""}


def _id_of(decision: Decision | str) -> str:
    return decision.id if isinstance(decision, Decision) else decision


@dataclass(frozen=True)
class Outcome:
    """What came true of a decision: a class's name, or a number; `known_at` a time with its zone, now where it is None."""

    decision: Decision | str
    value: str | float
    known_at: datetime | str | None = None
    source: str = ""
    id: str | None = None

    def body(self) -> Body:
        """Return what is sent; raises `CaseError` where `known_at` has no zone."""
        at = self.known_at
        if isinstance(at, datetime) and at.tzinfo is None:
            raise CaseError(Problem("known_at", str(at), "a time with its zone", "such as datetime.now(UTC)"))
        said = {"decision": _id_of(self.decision), "outcome": self.value, "known_at": at, "source": self.source, "id": self.id}
        return _present(said)


# ------------------------------------------------------------------------------------------------------- what can be asked


def _decide(rows: Row | Sequence[Row], id: str | None) -> Asked[Any]:
    return _post("/v1/decisions", rows, _one if isinstance(rows, Mapping) else _many, _under(id))


def rows_asked(rows: Sequence[Row], id: str) -> Asked[tuple[list[Decision], bool]]:
    """Return the request for the decisions on some rows, which also tells whether they had been made before."""
    return _post("/v1/decisions", rows, lambda reply: (_many(reply), "idempotent-replay" in reply.headers), _under(id))


def _decide_image(image: bytes | Path, id: str | None = None) -> Asked[Decision]:
    """Return the decision on an image, where that is all there is to a row; raises `CaseError` where its file cannot be read."""
    try:
        data = image if isinstance(image, bytes) else image.read_bytes()
    except OSError as error:
        raise CaseError(Problem(str(image), error.strerror or "not readable", "a file that can be read")) from None
    return Asked("POST", "/v1/decisions", _one, data, _under(id, {"content-type": "application/octet-stream"}))


def _outcome(
    decision: Decision | str, value: str | float, known_at: datetime | str | None = None, source: str = "", id: str | None = None
) -> Asked[Receipt]:
    """Record what came true of a decision; return the receipt."""
    return _post("/v1/outcomes", Outcome(decision, value, known_at, source, id).body(), _receipt)


def _outcomes(outcomes: Iterable[Outcome]) -> Asked[list[Receipt]]:
    """Record many outcomes, at most 1,000; return a receipt of each: what is wrong with one harms no other."""
    return _post("/v1/outcomes", [outcome.body() for outcome in outcomes], _receipts)


def _correct(outcome: Outcome, why: str) -> Asked[Receipt]:
    """Record what came true in place of what was recorded, and why; return the receipt."""
    return _post("/v1/corrections", {"id": uuid7(1)[0], **outcome.body(), "why": why}, _receipt)


def _override(
    decision: Decision | str, action: str, by: str, why: str = "", quantity: float | None = None, id: str | None = None
) -> Asked[Receipt]:
    """Record what was really done in place of what was decided, by whom and why; return the receipt."""
    said = {"id": id or uuid7(1)[0], "decision": _id_of(decision), "action": action, "by": by, "why": why, "quantity": quantity}
    return _post("/v1/overrides", _present(said), _receipt)


def _decision(id: str) -> Asked[Body]:
    """Return what the ledger holds of a decision, and what became of it."""
    return Asked("GET", f"/v1/decisions/{quote(id, safe='')}", _object)


def _models() -> Asked[Body]:
    """Return the models that the service knows, and what each of them does."""
    return Asked("GET", "/v1/models", _object)


def _promote(
    name: str, by: str = "", why: str = "", force: bool = False, evidence: Evidence | None = None, holdback: float | None = None
) -> Asked[Body]:
    """Make a model the champion, on `evidence` that it earns more than the one that is; a review reckons it.

    `force`, and why, let in one without evidence, or whose verdict is refuse. The champion before keeps `holdback` of the units, as a
    canary, until it is retired.
    """
    return _change("promote", name, {"by": by, "why": why, "force": force, "evidence": evidence, "holdback": holdback})


def _rollback(name: str, by: str = "", why: str = "", evidence: Evidence | None = None) -> Asked[Body]:
    """Let the champion, `name`, go, and bring back the one before it; say why, or on what evidence."""
    return _change("rollback", name, {"by": by, "why": why, "evidence": evidence})


def _canary(
    name: str, share: float | None = None, by: str = "", why: str = "", force: bool = False, explore: Mapping[str, Any] | None = None
) -> Asked[Body]:
    """Let a model decide on a share (between 0 and 1) of the units, or on rows with chances of their own.

    `explore` is what those chances are reckoned from, `monitoring.exploring.Exploration.to_json()`, where the case declares it.
    """
    return _change("canary", name, {"share": share, "by": by, "why": why, "force": force, "explore": explore})


def _shadow(name: str, by: str = "", why: str = "", force: bool = False) -> Asked[Body]:
    """Let a model be scored and logged, and never acted on."""
    return _change("shadow", name, {"by": by, "why": why, "force": force})


def _retire(name: str, by: str = "", why: str = "") -> Asked[Body]:
    """Take a canary, or a shadow, out."""
    return _change("retire", name, {"by": by, "why": why})


def _change(verb: str, name: str, said: Body) -> Asked[Body]:
    return _post(f"/v1/models/{quote(name, safe='')}/{verb}", _present(said), _object)


def _promotions(after: str = "", limit: int = 100) -> Asked[Body]:
    """Return a page of `promotions`, every change of what serves with its evidence, the newest last.

    `next` of the answer is what `after` is on the next page; None at the end.
    """
    return _page("promotions", after, limit)


def _alarm(alarm: Alarmed | Mapping[str, Any], id: str | None = None) -> Asked[Receipt]:
    """Write an alarm into the ledger, under an id that tells a repetition; return the receipt.

    A mapping has an alarm's fields: test, model, evidence, limit, ticks and why; since and by.
    """
    said = dict(alarm) if isinstance(alarm, Mapping) else msgspec.to_builtins(alarm)
    return _post("/v1/alarms", _present({**said, "id": id or uuid7(1)[0]}), _receipt)


def _alarms(after: str = "", limit: int = 100) -> Asked[Body]:
    """Return a page of `alarms`, the newest last, as `promotions` does."""
    return _page("alarms", after, limit)


def _page(name: str, after: str, limit: int) -> Asked[Body]:
    more = f"&after={quote(after, safe='')}" if after else ""
    return Asked("GET", f"/v1/{name}?limit={limit}{more}", _object)


def _clock(at: datetime | str | int | None = None) -> Asked[datetime]:
    """Return the time of a replay; where `at` is given (in ISO 8601, or microseconds since 1970, UTC) it is told to be that, or refuses.

    The time goes forward alone, and a live service is not told it. Raises `CaseError` where `at` has no zone.
    """
    if isinstance(at, datetime) and at.tzinfo is None:
        raise CaseError(Problem("at", str(at), "a time with its zone", "such as datetime.now(UTC)"))
    return Asked("GET", "/v1/clock", _time) if at is None else _post("/v1/clock", {"at": at}, _time)


def _time(reply: Reply) -> datetime:
    said = str(_object(reply).get("at"))
    try:
        return datetime.fromisoformat(said)
    except ValueError:
        raise failed(reply.status, [Problem("the answer", said[:80], "a time", "is the URL right?")]) from None


def described() -> Asked[Body]:
    """Return the request for the service's description, OpenAPI 3.1."""
    return Asked("GET", "/openapi.json", _object)


def _ready() -> Asked[bool]:
    """Return True once the service takes requests; raises `ServiceError` where it does not in all the time that patience has."""
    return Asked("GET", "/readyz", lambda _: True)


# ------------------------------------------------------------------------------------------------------------- the clients


class _Address:
    """Where the service is, with which key it is asked, how patiently, and what sends; raises where that cannot be."""

    def __init__(self, url: str, key: str | None, timeout_s: float, patience: Patience) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            got = f"{parts.scheme}://…@{parts.hostname}" if "@" in parts.netloc else url
            raise CaseError(Problem("url", got, "http://HOST:PORT, or https", "a key is an argument of its own"))
        if key is not None and not (key.isascii() and key.isprintable()):
            raise CaseError(Problem("key", "", "a key as `makegood keys create` printed it", "give it without line ends"))
        try:
            import httpx2
        except ImportError:
            raise MissingExtra(Problem("a client", "no httpx2", "what asks over HTTP", "pip install 'makegood[client]'")) from None
        self.httpx, self.failures = httpx2, httpx2.RequestError
        self.url, self.timeout_s, self.patience = url.rstrip("/"), timeout_s, patience
        self.headers = {} if key is None else {"authorization": f"Bearer {key}"}

    def request(self, asked: Asked[Any], effort: Effort) -> httpx2.Request:
        """Return the request of the next try."""
        timeout = self.httpx.Timeout(effort.left(self.timeout_s)).as_dict()
        url, headers = self.url + asked.path, {**self.headers, **asked.headers}
        return self.httpx.Request(asked.method, url, headers=headers, content=asked.body, extensions={"timeout": timeout})


def _reply(response: httpx2.Response) -> Reply:
    return Reply(response.status_code, dict(response.headers), response.content)


def _sync(build: Callable[P, Asked[T]]) -> Callable[Concatenate[Client, P], T]:
    """Return the method that sends what `build` makes of its arguments."""

    def method(self: Client, /, *args: P.args, **named: P.kwargs) -> T:
        return self.ask(build(*args, **named))

    return _signed(method, build)


def _async(build: Callable[P, Asked[T]]) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """Return the method that sends what `build` makes of its arguments, to be awaited."""

    async def method(self: AsyncClient, /, *args: P.args, **named: P.kwargs) -> T:
        return await self.ask(build(*args, **named))

    return _signed(method, build)


def _signed(method: F, build: Callable[..., Asked[Any]]) -> F:
    """Return the method, which says of itself what `build` says, with a self before it."""
    takes = inspect.signature(build)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    method.__name__, method.__doc__ = build.__name__.lstrip("_"), build.__doc__
    answer = str(takes.return_annotation).removeprefix("Asked[").removesuffix("]")
    method.__signature__ = takes.replace(parameters=[own, *takes.parameters.values()], return_annotation=answer)  # type: ignore[attr-defined]
    return method


class Client:
    """A service at `url`, asked with an API `key`; each try has `timeout_s` seconds, and `patience` says how often it is tried again.

    For several threads; close it, or use it in a `with` statement. Every method raises `ServiceError` where the service refuses, with
    each problem that it names, or does not answer. A decision's, correction's or override's `id` is made where none is given.
    """

    def __init__(self, url: str, key: str | None = None, timeout_s: float = 10.0, patience: Patience = PATIENCE) -> None:
        self._to = _Address(url, key, timeout_s, patience)
        self._http = self._to.httpx.Client(follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ask(self, asked: Asked[T]) -> T:
        """Return what a request is answered, tried as often as patience allows."""
        effort = Effort(self._to.url, self._to.patience)
        while True:
            got: Reply | Exception
            try:
                got = _reply(self._http.send(self._to.request(asked, effort)))
            except self._to.failures as error:
                got = error
            if (pause := effort.after(got)) is None:
                return asked.read(effort.reply)
            time.sleep(pause)

    @overload
    def decide(self, rows: Row, id: str | None = None) -> Decision: ...
    @overload
    def decide(self, rows: Sequence[Row], id: str | None = None) -> list[Decision]: ...
    def decide(self, rows: Row | Sequence[Row], id: str | None = None) -> Any:
        """Return the decision on a row, or those on a list of rows, of which the i-th (from 0) has the id `id.i`."""
        return self.ask(_decide(rows, id))

    decide_image = _sync(_decide_image)
    outcome = _sync(_outcome)
    outcomes = _sync(_outcomes)
    correct = _sync(_correct)
    override = _sync(_override)
    decision = _sync(_decision)
    models = _sync(_models)
    promote = _sync(_promote)
    rollback = _sync(_rollback)
    canary = _sync(_canary)
    shadow = _sync(_shadow)
    retire = _sync(_retire)
    clock = _sync(_clock)
    promotions = _sync(_promotions)
    alarm = _sync(_alarm)
    alarms = _sync(_alarms)
    ready = _sync(_ready)


class AsyncClient:
    """`Client` for asyncio: the same methods, awaited; use it in an `async with` statement, or `await close()`."""

    def __init__(self, url: str, key: str | None = None, timeout_s: float = 10.0, patience: Patience = PATIENCE) -> None:
        self._to = _Address(url, key, timeout_s, patience)
        self._http = self._to.httpx.AsyncClient(follow_redirects=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def ask(self, asked: Asked[T]) -> T:
        """Return what a request is answered, tried as often as patience allows."""
        effort = Effort(self._to.url, self._to.patience)
        while True:
            got: Reply | Exception
            try:
                got = _reply(await self._http.send(self._to.request(asked, effort)))
            except self._to.failures as error:
                got = error
            if (pause := effort.after(got)) is None:
                return asked.read(effort.reply)
            await asyncio.sleep(pause)

    @overload
    async def decide(self, rows: Row, id: str | None = None) -> Decision: ...
    @overload
    async def decide(self, rows: Sequence[Row], id: str | None = None) -> list[Decision]: ...
    async def decide(self, rows: Row | Sequence[Row], id: str | None = None) -> Any:
        """Return the decision on a row, or those on a list of rows, of which the i-th (from 0) has the id `id.i`."""
        return await self.ask(_decide(rows, id))

    decide_image = _async(_decide_image)
    outcome = _async(_outcome)
    outcomes = _async(_outcomes)
    correct = _async(_correct)
    override = _async(_override)
    decision = _async(_decision)
    models = _async(_models)
    promote = _async(_promote)
    rollback = _async(_rollback)
    canary = _async(_canary)
    shadow = _async(_shadow)
    retire = _async(_retire)
    clock = _async(_clock)
    promotions = _async(_promotions)
    alarm = _async(_alarm)
    alarms = _async(_alarms)
    ready = _async(_ready)
