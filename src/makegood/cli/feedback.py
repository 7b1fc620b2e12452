"""What became of what was decided: review, promote, rollback."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Annotated, Any

import typer

from makegood.cli.options import HERE, Json, Url, Workspace, client
from makegood.cli.shown import print_json, say
from makegood.errors import LedgerError

Served = Annotated[str, typer.Argument(metavar="CASE|BUNDLE", help="A case that is served, or a bundle's folder.")]
By = Annotated[str, typer.Option(metavar="NAME", help="Who answers for it; a person where the stakes are high.")]
Why = Annotated[str, typer.Option(metavar="TEXT", help="Why; the ledger keeps it.")]


def _service(url: str) -> Any:
    return client(url) if url else nullcontext(None)


def review(case: Served, url: Url = "", workspace: Workspace = HERE, as_json: Json = False) -> None:
    """Tell what a case's decisions earned against what they promised, why that changed, and what to do.

    It reads the ledger, also beside a service that runs. An alarm goes into the ledger: through the service at --url, or, where none runs,
    by itself.
    """
    from makegood import reviewing
    from makegood.report.summary import review_text

    found = reviewing.review(case, workspace=workspace)
    try:
        with _service(url) as service:
            reviewing.record(found, case, workspace=workspace, service=service)
    except LedgerError as error:
        print(f"note: the alarm is not in the ledger: {error}; give --url of the service that writes it", file=sys.stderr)
    if as_json:
        print_json(found.to_json())
        return
    say(review_text(found.review).rstrip())
    print(found.page)


def promote(
    case: Served,
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="A bundle's name; default: the one whose test says so.")] = "",
    by: By = "",
    why: Why = "",
    force: Annotated[bool, typer.Option(help="Promote without evidence; --why is kept with it.")] = False,
    url: Url = "",
    workspace: Workspace = HERE,
    as_json: Json = False,
) -> None:
    """Make a challenger the champion, on the evidence of a review made now; without evidence it is refused.

    Where a service runs, give its --url: it alone writes the ledger.
    """
    from makegood import reviewing

    with _service(url) as service:
        told = reviewing.promote(case, model, reviewing.Asked(by, why, force), workspace=workspace, service=service)
    _say(told, as_json)


def rollback(case: Served, why: Why, by: By = "", url: Url = "", workspace: Workspace = HERE, as_json: Json = False) -> None:
    """Bring back the champion before the one that decides now."""
    from makegood import reviewing

    with _service(url) as service:
        told = reviewing.rollback(case, reviewing.Asked(by, why), workspace=workspace, service=service)
    _say(told, as_json)


def _say(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(told)
    else:
        say(f"{told['champion']} decides{'' if told['changed'] else ', as before'}")
