"""What became of what was decided: review, promote, rollback."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from makegood.cli.options import HERE, Json, Url, Workspace, client, grouped
from makegood.cli.shown import print_json, say
from makegood.errors import LedgerError

Served = Annotated[str, typer.Argument(metavar="CASE|BUNDLE", help="A case that is served, or a bundle's folder.")]


@dataclass(frozen=True)
class Where:
    """The options of where a case's decisions are, and by which service the ledger is written."""

    url: Url = ""
    ledger: Annotated[str, typer.Option(metavar="FILE|URL", help="Another ledger than the case's own, such as a replay's.")] = ""
    workspace: Workspace = HERE

    @property
    def there(self) -> dict[str, Any]:
        """What a function of `reviewing` is told."""
        return {"workspace": self.workspace, "ledger": self.ledger}

    def service(self) -> Any:
        """Return a client of the service, or a context of None."""
        return client(self.url) if self.url else nullcontext(None)


@dataclass(frozen=True)
class Who:
    """The options of who answers for a change."""

    by: Annotated[str, typer.Option(metavar="NAME", help="Who answers for it; a person where the stakes are high.")] = ""
    why: Annotated[str, typer.Option(metavar="TEXT", help="Why; the ledger keeps it.")] = ""


@grouped
def review(case: Served, where: Where, as_json: Json = False) -> None:
    """Tell what a case's decisions earned against what they promised, why that changed, and what to do.

    It reads the ledger, also beside a service that runs. An alarm goes into the ledger: through the service at --url, or, where none runs,
    by itself.
    """
    from makegood import reviewing
    from makegood.report.summary import review_text

    found = reviewing.review(case, **where.there)
    try:
        with where.service() as service:
            reviewing.record(found, case, **where.there, service=service)
    except LedgerError as error:
        print(f"note: the alarm is not in the ledger: {error}; give --url of the service that writes it", file=sys.stderr)
    if as_json:
        print_json(found.to_json())
        return
    say(review_text(found.review).rstrip())
    print(found.page)


@grouped
def promote(
    case: Served,
    where: Where,
    who: Who,
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="A bundle's name; default: the one whose test says so.")] = "",
    force: Annotated[bool, typer.Option(help="Promote without evidence; --why is kept with it.")] = False,
    as_json: Json = False,
) -> None:
    """Make a challenger the champion, on the evidence of a review made now; without evidence it is refused.

    Where a service runs, give its --url: it alone writes the ledger.
    """
    from makegood import reviewing

    with where.service() as service:
        told = reviewing.promote(case, model, reviewing.Asked(who.by, who.why, force), **where.there, service=service)
    _say(told, as_json)


@grouped
def rollback(case: Served, where: Where, who: Who, as_json: Json = False) -> None:
    """Bring back the champion before the one that decides now; say --why."""
    from makegood import reviewing

    with where.service() as service:
        told = reviewing.rollback(case, reviewing.Asked(who.by, who.why), **where.there, service=service)
    _say(told, as_json)


def _say(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(told)
    else:
        say(f"{told['champion']} decides{'' if told['changed'] else ', as before'}")
