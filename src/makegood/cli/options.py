"""The arguments that several commands take, and what the environment says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

CaseArg = Annotated[str, typer.Argument(metavar="CASE", help="A case file, or the name of a built-in case.")]
Workspace = Annotated[Path, typer.Option("--workspace", metavar="DIR", help="Where runs are kept.")]
Rows = Annotated[str | None, typer.Option("--data", metavar="FILE", help="Rows to read in place of the case's data.source.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, everything else on stderr.")]
HERE = Path(".makegood")
Url = Annotated[str, typer.Option("--url", metavar="URL", help="A service; its key stands in the environment's MAKEGOOD_KEY.")]


def client(url: str) -> Any:
    """Return a client of the service at a URL; its key stands in MAKEGOOD_KEY."""
    from makegood.client import Client

    return Client(url, os.environ.get("MAKEGOOD_KEY") or None, timeout_s=30.0)


def cache() -> Path | None:
    """Return the folder for what is fetched from addresses, where the environment names one."""
    named, base = os.environ.get("MAKEGOOD_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(named) if named else Path(base, "makegood") if base else None
