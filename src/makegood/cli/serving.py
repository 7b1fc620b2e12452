"""The service and its keys: serve, keys."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from makegood.cli.options import HERE, Json, Workspace, grouped
from makegood.cli.shown import print_json, say
from makegood.errors import CaseError, Problem

if TYPE_CHECKING:
    from makegood.serving.locate import Place


@dataclass(frozen=True)
class Address:
    """The options of where a service listens."""

    host: Annotated[str, typer.Option(help="The address to listen on; beyond this machine only with keys.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes; more than one need a PostgreSQL ledger.")] = 1


@dataclass(frozen=True)
class Replaying:
    """The options of a replay."""

    replay: Annotated[bool, typer.Option(help="Decide on history, at the time that it is told, for this machine alone.")] = False
    ledger: Annotated[str, typer.Option(metavar="FILE|URL", help="Of a replay; default: replay.sqlite beside the live ledger.")] = ""
    at: Annotated[str, typer.Option(metavar="TIME", help="With which a new replay begins; default: 1970.")] = ""

    def of(self, place: Place) -> Place:
        """Return the place, of a replay where one is wanted; raises `CaseError` where what is said of one is said of none."""
        from makegood.ledger import clock, snapshot
        from makegood.serving.locate import LEDGER, Replay

        said = {"--ledger": self.ledger, "--at": self.at}
        if stray := [] if self.replay else [name for name, value in said.items() if value]:
            mend = f"a live service has the wall's time, and the ledger of {LEDGER} or of its workspace"
            raise CaseError(Problem(stray[0], said[stray[0]], "--replay as well", mend))
        if not self.replay:
            return place
        named = self.ledger if "://" in self.ledger or not self.ledger else snapshot.at_url(Path(self.ledger).resolve())
        return replace(place, replay=Replay(named, clock.instant(self.at, "--at") if self.at else 0))


@grouped
def serve(
    case: Annotated[str, typer.Argument(metavar="CASE|BUNDLE", help="A case that was run, or a bundle's folder.")],
    address: Address = Address(),
    force: Annotated[bool, typer.Option(help="Serve a model whose verdict is refuse, or in a champion's place without evidence.")] = False,
    replaying: Replaying = Replaying(),
    workspace: Workspace = HERE,
    as_json: Json = False,
) -> None:
    """Decide over HTTP; every decision is in the ledger before it is answered.

    The ledger is a SQLite file in the workspace, or the PostgreSQL of the environment's MAKEGOOD_LEDGER. It speaks plain HTTP: TLS
    is for the balancer, or the reverse proxy, in front. Stop it with Ctrl-C or SIGTERM: what was asked is answered first. With
    --replay it is told the time by POST /v1/clock, and what it writes never lies among live decisions.
    """
    from makegood.serving.locate import locate
    from makegood.serving.start import Listen, serve

    replay = replaying.replay

    def ready(url: str, model: str, ledger: str) -> None:
        if as_json:
            told = {"url": url, "model": model, "ledger": ledger, "pid": os.getpid(), "workers": address.workers}
            print_json(told | ({"replayed": True} if replay else {}))
        else:
            print(f"{model} {'replays' if replay else 'decides'} at {url}  ledger: {ledger}  pid: {os.getpid()}")
        sys.stdout.flush()

    serve(replaying.of(locate(case, workspace)), Listen(address.host, address.port, address.workers), force=force, ready=ready)


keys = typer.Typer(name="keys", help="Make, list and revoke the keys of a case's service.", no_args_is_help=True, rich_markup_mode=None)
KeysOf = Annotated[str, typer.Argument(metavar="CASE|BUNDLE", help="Whose service: a case, or a bundle's folder.")]


def _keys_file(case: str, workspace: Path) -> Path:
    from makegood.serving.keys import FILE
    from makegood.serving.locate import locate

    return locate(case, workspace).service / FILE


@keys.command("create")
def create_key(
    case: KeysOf,
    name: Annotated[str, typer.Option(help="Who uses it; the log names it.")],
    scope: Annotated[str, typer.Option(help="decide, observe and admin, or some of them, with commas between.")],
    rate: Annotated[str, typer.Option(help="The most rows in a time, such as 100/s or 6000/min; default: no bound.")] = "",
    workspace: Workspace = HERE,
    as_json: Json = False,
) -> None:
    """Make a key and print it, this once: only its hash is kept. A running service takes it at once."""
    from makegood.serving.keys import create

    scopes = tuple(word.strip() for word in scope.split(",") if word.strip())
    token = create(_keys_file(case, workspace), name, scopes, rate)
    if as_json:
        print_json({"name": name, "scopes": scopes, "rate": rate, "key": token})
    else:
        print("keep it well: it is shown this once", file=sys.stderr)
        print(token)


@keys.command("list")
def list_keys(case: KeysOf, workspace: Workspace = HERE, as_json: Json = False) -> None:
    """List the keys, without what is secret of them."""
    from makegood.serving.keys import listed

    found = listed(_keys_file(case, workspace))
    if as_json:
        print_json({"keys": [{"name": k.name, "scopes": k.scopes, "rate": k.rate, "created": k.created} for k in found]})
        return
    for k in found:
        say(f"{k.name}  {','.join(k.scopes)}  {k.rate or 'no bound'}  made {k.created}")
    if not found:
        say(f"no keys; `makegood keys create {case} --name NAME --scope decide,observe` makes one")


@keys.command("revoke")
def revoke_key(
    case: KeysOf,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The key's name.")],
    workspace: Workspace = HERE,
    as_json: Json = False,
) -> None:
    """Take a key away. A running service refuses it at once."""
    from makegood.serving.keys import revoke

    revoke(_keys_file(case, workspace), name)
    if as_json:
        print_json({"revoked": name})
    else:
        say(f"{name} is revoked")
