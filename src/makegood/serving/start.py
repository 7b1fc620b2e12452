"""The start of a service: what must hold before anything is loaded, the socket, and whether this process serves or looks after others."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from makegood.errors import CaseError, MissingExtra, Problem
from makegood.serving.keys import FILE, Keyring
from makegood.serving.locate import LEDGER, Place, shown

BACKLOG = 2048
"""Connections that the system keeps until they are taken."""
_NEEDED = ("starlette", "uvicorn", "uvloop", "httptools", "prometheus_client")


@dataclass(frozen=True)
class Listen:
    """Where a service listens, and with how many processes; port 0 is any that is free."""

    host: str
    port: int
    workers: int = 1


def serve(place: Place, listen: Listen, *, force: bool, ready: Callable[[str, str, str], None]) -> None:
    """Serve until told to stop; call `ready` with the URL, the champion's name and the ledger once requests are answered.

    Raises `MissingExtra` without a web server, `CaseError` where keys, ledger and address do not go together, `Refused` where the
    model's verdict is refuse and nothing forces it, `LedgerError` and `BundleError` where those cannot be opened.
    """
    check_installed(_NEEDED)
    if listen.workers > 1 and place.replay is not None:
        got, mend = f"{listen.workers} and a replay", "leave --workers out"
        raise CaseError(Problem("--workers", got, "1, since the clock of a replay is one process's", mend))
    if listen.workers > 1 and place.ledger.startswith("sqlite:"):
        got, mend = f"{listen.workers} and a SQLite ledger", f"name a PostgreSQL ledger in {LEDGER}, or leave --workers out"
        raise CaseError(Problem("--workers", got, "1, since one process alone writes a SQLite ledger", mend))
    place.first  # noqa: B018  there is something to serve
    _open_folder(place)
    keys = Keyring.open(place.service / FILE)
    with bound(listen.host, listen.port, safe=len(keys) > 0, replayed=place.replay is not None) as sock:
        url = url_of(sock)
        if listen.workers == 1:
            from makegood.serving.server import run

            run(place, sock, force=force, ready=lambda model: ready(url, model, shown(place.ledger)))
        else:
            from makegood.serving.supervisor import Supervisor

            what: dict[str, str | bool] = {"named": str(place.bundle or place.case), "root": str(place.workspace.root), "force": force}
            Supervisor(what, sock, listen.workers).run(lambda model: ready(url, model, shown(place.ledger)))


def check_installed(packages: tuple[str, ...]) -> None:
    """Raise `MissingExtra` unless every one of these packages is there."""
    absent = [name for name in packages if find_spec(name) is None]
    if absent:
        raise MissingExtra(Problem("makegood serve", f"no {', '.join(absent)}", "what serves over HTTP", "pip install 'makegood[serve]'"))


def _open_folder(place: Place) -> None:
    """Make the service's folder, for its owner's eyes alone: the ledger in it tells of people."""
    try:
        place.service.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        got = f"{place.service}: {error.strerror}"
        raise CaseError(Problem("--workspace", got, "a folder that can be written to", "give another with --workspace")) from None
    if not os.access(place.service, os.W_OK):
        got = f"{place.service}: Permission denied"
        raise CaseError(Problem("--workspace", got, "a folder that can be written to", "give another with --workspace"))


def bound(host: str, port: int, *, safe: bool, replayed: bool = False) -> socket.socket:
    """Return a listening socket; raises `CaseError` where the address is another's, or none, or reaches beyond this machine unsafely.

    A replay is nobody else's, whatever keys there are: who takes it for the live service would act on what is long past.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise CaseError(Problem("--host", host, "an address of this machine", error.strerror or "see its spelling")) from None
    own = ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
    if replayed and not own:
        raise CaseError(Problem("--host", host, "an address that this machine alone reaches, since it is a replay", "give 127.0.0.1"))
    if not safe and not own:
        mend = "make one with `makegood keys create`, or listen on 127.0.0.1; TLS is for the balancer in front"
        raise CaseError(Problem("--host", host, "keys, since others than this machine can reach that address", mend))
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        where, got = ("--port", str(port)) if error.errno in (errno.EADDRINUSE, errno.EACCES) else ("--host", host)
        mend = "stop what listens there, or give another" if error.errno == errno.EADDRINUSE else error.strerror or "give another"
        raise CaseError(Problem(where, got, "a free port" if where == "--port" else "an address of this machine", mend)) from None
    return sock


def url_of(sock: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
