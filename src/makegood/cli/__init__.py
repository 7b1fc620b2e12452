"""The command line: thin, and each command imports what it needs when it runs.

Exit codes: 0 done; 1 refused (the data or the model is not good enough); 2 the input is wrong; 3 our fault. With `--json` one JSON
object goes to stdout and everything else to stderr. A command that makes a page prints its absolute path last.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated, NoReturn

import typer

from makegood import __version__
from makegood.cli import deciding, feedback, ledger, making, serving
from makegood.errors import MakegoodError, NotBuilt, Problem, Refused

app = typer.Typer(
    name="makegood",
    help="A model is a promise about money. makegood trains it, deploys it, and holds it to that promise.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PLANNED = {
    "plan": "the business plan",
    "analyse": "case analysis",
    "dashboard": "the dashboard",
}


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    as_json = "--json" in sys.argv
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        app()
        code = 0
    except MakegoodError as error:
        code = 1 if isinstance(error, Refused) else 2
        _fail(error, as_json=as_json)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        code = 141
    except Exception as error:  # the process boundary: whatever gets here is our fault
        code = 3
        _our_fault(error, as_json=as_json)
    sys.exit(code)


def _fail(error: MakegoodError, *, as_json: bool) -> None:
    kind = type(error).__name__
    for problem in error.problems:
        print(f"{'refused' if isinstance(error, Refused) else 'error'}: {problem}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": kind, "problems": [vars(p) for p in error.problems]}, ensure_ascii=False))


def _our_fault(error: Exception, *, as_json: bool) -> None:
    import traceback

    traceback.print_exception(error, file=sys.stderr)
    print("This is a defect of makegood: the lines above tell where. Your files are untouched.", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": "defect", "problems": [vars(Problem(type(error).__name__, str(error), "no defect"))]}))


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


app.command()(making.init)
app.command()(making.check)
app.command()(making.run)
app.command()(deciding.decide)
app.command(context_settings={"ignore_unknown_options": True})(deciding.outcome)  # an outcome may be a negative number
app.command()(making.report)
app.command()(making.optimise)
app.command()(making.cases)
app.command()(making.doctor)
app.add_typer(ledger.ledger)
app.command()(serving.serve)
app.command()(feedback.review)
app.command()(feedback.promote)
app.command()(feedback.rollback)
app.command()(feedback.loop)
app.add_typer(serving.keys)


def _planned(name: str, what: str) -> None:
    def refuse(ctx: typer.Context) -> None:
        raise NotBuilt(Problem(f"makegood {name}", "", f"a later version: {what} is not built yet", "see ROADMAP.md"))

    refuse.__doc__ = f"Not built yet: {what}."
    app.command(name, hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(refuse)


for _name, _what in PLANNED.items():
    _planned(_name, _what)
