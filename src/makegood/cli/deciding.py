"""Decisions, at hand or by a service, and what came true of them: decide, outcome."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from makegood.cli.options import HERE, Json, Url, Workspace, client
from makegood.cli.shown import Progress, print_json, say
from makegood.errors import CaseError, Problem


def decide(
    model: Annotated[str, typer.Argument(metavar="CASE|BUNDLE", help="A case that was run, or a bundle's folder; with --url: neither.")],
    rows: Annotated[
        Path | None, typer.Argument(help="A csv, tsv or parquet file with the rows to decide on; images: a folder, an archive, one.")
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="Where the decisions go: .csv or .parquet.")],
    url: Url = "",
    force: Annotated[bool, typer.Option(help="Decide with a model whose verdict is refuse.")] = False,
    workspace: Workspace = HERE,
    as_json: Json = False,
) -> None:
    """Decide on every row of a file, with a bundle at hand or, with --url, by a service.

    A service keeps what it decided: interrupted, the same command goes on, and nothing is decided twice.
    """
    if (rows is None) != bool(url):
        got = "a case or bundle, and --url" if url else "no rows, or nobody to decide"
        raise CaseError(Problem("makegood decide", got, "CASE ROWS, BUNDLE ROWS, or --url URL ROWS", "give one of these"))
    told: Any
    if rows is None:
        from makegood import remote

        with client(url) as service, Progress(as_json) as progress:
            told = remote.decide_file(service, Path(model), out, progress)
    else:
        from makegood import pipeline

        told = pipeline.decide_file(model, rows, out, workspace=workspace, force=force)
    for note in told.notes:
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        print_json(told.to_json())
    else:
        say("  ".join(f"{name}: {count:,}" for name, count in told.actions.items()))
        say(f"promised: {told.promised:,.4g} {told.unit} in all, {told.promised / max(told.n, 1):,.4g} a decision")
        print(out.resolve())


def outcome(
    url: Url,
    decision: Annotated[str, typer.Argument(help="A decision's id.")] = "",
    value: Annotated[str, typer.Argument(help="What came true: a class's name, or a number.")] = "",
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Many: csv, tsv or parquet, columns decision, outcome[, known_at, source].")
    ] = None,
    known_at: Annotated[str, typer.Option(help="When it became known, such as 2024-02-29T12:00:00Z; default: now.")] = "",
    source: Annotated[str, typer.Option(help="Who says so.")] = "",
    as_json: Json = False,
) -> None:
    """Tell a service what came true of its decisions; repeated, or interrupted and begun again, it stores nothing twice.

    Exit code 1 where an outcome of a file was refused: those rows lie beside it, with the reasons, in FILE.refused.csv.
    """
    if (file is None) != bool(decision and value) or (file is not None and (decision or known_at or source)):
        got = f"--file and {decision or '--known-at or --source'}" if file else f"no {'VALUE' if decision else 'DECISION'}"
        raise CaseError(Problem("makegood outcome", got, "DECISION VALUE, or --file FILE", "give one of the two"))
    from makegood import remote
    from makegood.client import Outcome

    with client(url) as service, Progress(as_json) as progress:
        if file is None:
            told = remote.outcome(service, Outcome(decision, value, known_at or None, source))
            if as_json:
                print_json(told.said)
            paid = told.said.get("realised")
            money = "" if paid is None else f"  it paid {paid:,.4g} {told.said.get('unit', '')}"
            say(f"{'stored' if told.state == 'stored' else 'there already'}{money}", as_json=as_json)
            return
        posted = remote.outcome_file(service, file, progress)
    say(f"stored: {posted.stored:,}  there already: {posted.there:,}  refused: {posted.refused:,}", as_json=as_json)
    if as_json:
        print_json(posted.to_json())
    elif posted.refusals:
        print(posted.refusals.resolve())
    if posted.refused:
        raise typer.Exit(1)
