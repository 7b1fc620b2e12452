"""The arguments that several commands take, and what the environment says."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

T = TypeVar("T")

CaseArg = Annotated[str, typer.Argument(metavar="CASE", help="A case file, or the name of a built-in case.")]
Workspace = Annotated[Path, typer.Option("--workspace", metavar="DIR", help="Where runs are kept.")]
Rows = Annotated[str | None, typer.Option("--data", metavar="FILE", help="Rows to read in place of the case's data.source.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, everything else on stderr.")]
HERE = Path(".makegood")
Url = Annotated[str, typer.Option("--url", metavar="URL", help="A service; its key stands in the environment's MAKEGOOD_KEY.")]


def grouped(command: Callable[..., T]) -> Callable[..., T]:
    """Return a command whose parameters that are dataclasses are taken apart: each field of one is an option of its own."""
    taken: list[inspect.Parameter] = []
    groups: dict[str, type[Any]] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kind = parameter.annotation
        if isinstance(kind, type) and is_dataclass(kind):
            groups[parameter.name] = kind
            hints = get_type_hints(kind, include_extras=True)
            parts = [
                inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name]) for f in fields(kind)
            ]
            taken += parts
        else:
            taken.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    def grouping(**given: Any) -> T:
        whole = {name: kind(**{f.name: given.pop(f.name) for f in fields(kind)}) for name, kind in groups.items()}
        return command(**given, **whole)

    grouping.__name__, grouping.__doc__ = command.__name__, command.__doc__
    grouping.__annotations__ = {parameter.name: parameter.annotation for parameter in taken}
    grouping.__signature__ = inspect.Signature(taken)  # type: ignore[attr-defined]
    return grouping


def client(url: str) -> Any:
    """Return a client of the service at a URL; its key stands in MAKEGOOD_KEY."""
    from makegood.client import Client

    return Client(url, os.environ.get("MAKEGOOD_KEY") or None, timeout_s=30.0)


def cache() -> Path | None:
    """Return the folder for what is fetched from addresses, where the environment names one."""
    named, base = os.environ.get("MAKEGOOD_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(named) if named else Path(base, "makegood") if base else None
