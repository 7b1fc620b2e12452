"""The service and its keys: serve, keys."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from makegood.cli.options import HERE, Json, Workspace
from makegood.cli.shown import print_json, say


def serve(
    case: Annotated[str, typer.Argument(metavar="CASE|BUNDLE", help="A case that was run, or a bundle's folder.")],
    host: Annotated[str, typer.Option(help="The address to listen on; beyond this machine only with keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes; more than one need a PostgreSQL ledger.")] = 1,
    force: Annotated[bool, typer.Option(help="Serve a model whose verdict is refuse.")] = False,
    workspace: Workspace = HERE,
    as_json: Json = False,
) -> None:
    """Decide over HTTP; every decision is in the ledger before it is answered.

    The ledger is a SQLite file in the workspace, or the PostgreSQL of the environment's MAKEGOOD_LEDGER. It speaks plain HTTP: TLS
    is for the balancer, or the reverse proxy, in front. Stop it with Ctrl-C or SIGTERM: what was asked is answered first.
    """
    from makegood.serving.locate import locate
    from makegood.serving.start import Listen, serve

    def ready(url: str, model: str, ledger: str) -> None:
        if as_json:
            print_json({"url": url, "model": model, "ledger": ledger, "pid": os.getpid(), "workers": workers})
        else:
            print(f"{model} decides at {url}  ledger: {ledger}  pid: {os.getpid()}")
        sys.stdout.flush()

    serve(locate(case, workspace), Listen(host, port, workers), force=force, ready=ready)


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
