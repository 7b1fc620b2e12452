"""The service as an ASGI application: the hot route bare, all else by Starlette's router, one boundary around both."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route, Router

from makegood.serving import decisions
from makegood.serving.admin import routes
from makegood.serving.calls import Call, Gone
from makegood.serving.problems import Trouble

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

    from makegood.serving.service import Service

_LOG = logging.getLogger("makegood.serving")


def app(service: Service) -> ASGIApp:
    """Return the application of a service; its lifespan starts the batcher, and waits at the end until all who came are answered."""
    return _Application(service, routes(service))


class _Application:
    def __init__(self, service: Service, rest: Sequence[BaseRoute]) -> None:
        self._service = service
        self._rest = Router(routes=rest, redirect_slashes=False)
        self._paths: dict[object, str] = {route.endpoint: route.path for route in rest if isinstance(route, Route)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self._service.batcher.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._service.batcher.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request: nothing escapes from here, and a client is told no more of what nobody foresaw than its request's id."""
        call = Call(scope, receive, send)
        route = decisions.PATH
        try:
            if call.path == route:
                await decisions.decide(self._service, call)
            else:
                scope["app"], scope["call"] = self, call  # with "app" there, the router raises what it refuses
                await self._rest(scope, receive, call.send)
        except Trouble as trouble:
            await call.refuse(trouble, [(b"allow", b"POST")] if trouble.status == 405 and call.path == route else ())
        except HTTPException as error:
            allowed = (error.headers or {}).get("Allow", "")
            words = f"{call.path} has {allowed}" if error.status_code == 405 else f"Nothing is at {call.path}"
            await call.refuse(Trouble(error.status_code, words), [(b"allow", allowed.encode())] if allowed else ())
        except Gone:
            pass
        except Exception:
            _LOG.exception("request %s failed", call.id)
            await call.refuse(Trouble(500, f"Something failed that should not have; the log tells of it under {call.id}"))
        if call.path != route:
            route = self._paths.get(scope.get("endpoint"), "other")
        seconds = time.perf_counter() - call.began
        self._service.metrics.request(route, call.status, seconds)
        self._service.log.request(call.id, call.method, route, call.status, seconds, call.key, call.rows)
