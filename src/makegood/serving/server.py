"""One process of a service, from start to end: everything is built, uvicorn runs it on a socket, and it stops without losing an answer.

It speaks plain HTTP/1.1: TLS ends at the balancer, or the reverse proxy, in front.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import uvicorn
import uvloop

from makegood import bundle
from makegood.errors import LedgerError
from makegood.ledger.anchors import Anchors, heads
from makegood.ledger.clock import iso
from makegood.ledger.store import Ledger
from makegood.serving import wire
from makegood.serving.app import app
from makegood.serving.batch import Batcher
from makegood.serving.keys import FILE, Keyring
from makegood.serving.locate import Place, shown
from makegood.serving.log import Log, told
from makegood.serving.metrics import Metrics
from makegood.serving.rates import Rates
from makegood.serving.rollout import Rollouts
from makegood.serving.service import Service

DRAIN_S = 30
"""In which those who asked are answered once the service is told to stop."""
IDLE_S = 75
"""After which an idle connection is closed: later than balancers close theirs, so that none of them sends into a closing one."""
UNREAD = "unread"
"""What the log and the metrics call the route of a request that was refused before it was read."""
FOLLOW_S = 0.5
"""Between two looks at what shall serve."""
ANCHOR_S = 600.0
"""Between two signed statements of what the ledger's chain has come to."""
_SIGN_S = 5.0  # that one may wait for the writer


def run(place: Place, sock: socket.socket, *, force: bool, ready: Callable[[str], None], tie: socket.socket | None = None) -> None:
    """Serve on a listening socket until SIGTERM or SIGINT; call `ready` with the champion's name once requests are answered.

    Who asked by then is answered, within `DRAIN_S`; a second signal stops at once. Either way the ledger is closed properly. When the
    other side of `tie` closes, that is a signal too. A replay has no spool and no anchors: those of the folder are a live ledger's.
    Raises what `start.serve` raises.
    """
    serve, replay = bundle.read(place.first).json("case.json").get("serve", {}), place.replay
    log = Log()
    log.take_over()
    try:
        with ExitStack() as stack:
            spool = place.service / "spool.jsonl" if serve.get("without_ledger") == "spool" and replay is None else None
            ledger = Ledger.open(place.ledger, spool=spool, replayed=replay is not None)
            stack.callback(ledger.close)
            anchors = Anchors(place.service) if replay is None else None
            stack.callback(_anchor, anchors, ledger, log)  # the last one, after whatever was submitted
            if replay is not None:
                ledger.advance(max(ledger.now_us(), replay.begins))
            rollouts = Rollouts.open(ledger, place.workspace, place.case, place.bundle, force=force)
            metrics = Metrics()
            batcher = Batcher(rollouts, ledger, metrics)
            service = Service(rollouts, ledger, Keyring.open(place.service / FILE), Rates(), metrics, log, batcher)
            process = _Process(service, lambda: _anchor(anchors, ledger, log))
            facts = {"case": place.case, "ledger": shown(place.ledger), "pid": os.getpid()}
            log.say("info", "starts", facts if replay is None else facts | {"replayed": True, "at": iso(ledger.now_us())})
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(process.serve(sock, tie, lambda: ready(rollouts.now.champion.name)))
        log.say("info", "stopped")
    finally:
        log.close()


def _anchor(anchors: Anchors | None, ledger: Ledger, log: Log) -> None:
    """Sign what the chain has come to, where anchors are kept; that this fails now and then is told, and harms nothing else."""
    if anchors is None:
        return
    try:
        anchors.write(ledger.id, ledger.maintain(lambda connection, _: heads(connection), _SIGN_S))
    except LedgerError as error:
        log.say("error", "no anchor was written", {"why": str(error)})


class _Server(uvicorn.Server):
    """uvicorn without its signals, and with word of when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: they are looked after in the loop, where what follows from them happens."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self._ready()


class _Process:
    """What goes on while a service serves: requests, and every second a look at how things stand."""

    def __init__(self, service: Service, anchor: Callable[[], None]) -> None:
        self._service, self._anchor = service, anchor

    async def serve(self, sock: socket.socket, tie: socket.socket | None, ready: Callable[[], None]) -> None:
        """Serve until told to stop, and until those who asked are answered."""
        config = uvicorn.Config(
            app(self._service),
            http=self._protocol(),
            ws="none",
            lifespan="on",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=DRAIN_S,
        )
        self._server = _Server(config, ready)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told, number.name)
        if tie is not None:
            loop.add_reader(tie, self._untied, tie)
        beside = [asyncio.create_task(work) for work in (self._beat(), self._sign(), self._follow())]
        for task in beside:
            task.add_done_callback(self._ended)
        await self._server.serve([sock])
        for task in beside:
            task.cancel()
        for task in beside:
            with suppress(asyncio.CancelledError):
                await task  # one that failed raises here what it failed of

    def _protocol(self) -> type[wire.Protocol]:
        metrics, log = self._service.metrics, self._service.log

        def turned_away(status: int) -> None:
            metrics.request(UNREAD, status, 0.0)
            log.request("", "", UNREAD, status, 0.0, "", 0)

        return type("Protocol", (wire.Protocol,), {"most": wire.room(), "turned_away": staticmethod(turned_away)})

    def _told(self, signal_name: str) -> None:
        if self._server.should_exit:
            self._service.log.say("warning", "leaves at once", {"why": signal_name})
            self._server.force_exit = True
        self._stop(signal_name)

    def _stop(self, why: str) -> None:
        if not self._server.should_exit:
            self._service.log.say("info", "stops: nothing new is taken, and what was asked is answered", {"why": why})
            self._server.should_exit = True

    def _untied(self, tie: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(tie)
        self._stop("the supervisor is gone")

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._service.log.say("error", "a part of the service failed", told(error))
            self._stop("a part of the service failed")

    async def _beat(self) -> None:
        service, loop = self._service, asyncio.get_running_loop()
        while True:
            service.metrics.beat(service.ledger.state, service.rollouts.now, service.batcher.rows)
            for connection in list(self._server.server_state.connections):
                if isinstance(connection, wire.Protocol):
                    connection.late(loop.time())
            await asyncio.sleep(1.0)

    async def _follow(self) -> None:
        """Take up what other processes changed, within a second."""
        rollouts, log = self._service.rollouts, self._service.log
        lacking, away = rollouts.lacking, False
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                swapped = await asyncio.to_thread(rollouts.follow)
            except LedgerError as error:  # the models that serve go on
                if not away:
                    log.say("error", "the ledger cannot be read", {"why": str(error)})
                away = True
                continue
            if swapped or lacking != rollouts.lacking:
                log.say("info", "what serves was changed", {"wanted": rollouts.wanted.names, "lacking": rollouts.lacking})
            lacking, away = rollouts.lacking, False

    async def _sign(self) -> None:
        while True:
            await asyncio.sleep(ANCHOR_S)
            await asyncio.to_thread(self._anchor)
