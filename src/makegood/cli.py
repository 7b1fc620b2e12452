"""The command line: thin, and each command imports what it needs when it runs.

Exit codes: 0 done; 1 refused (the data or the model is not good enough); 2 the input is wrong; 3 our fault. With `--json` one JSON
object goes to stdout and everything else to stderr. A command that makes a page prints its absolute path last.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from makegood import __version__
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
    "serve": "the decision service",
    "outcome": "recording outcomes",
    "review": "promised against realised",
    "promote": "promotion of a challenger",
    "rollback": "rollback of a champion",
    "loop": "the closed loop",
    "plan": "the business plan",
    "analyse": "case analysis",
    "optimise": "the optimise stage",
    "dashboard": "the dashboard",
    "keys": "keys of the service",
    "ledger": "the ledger",
}

CaseArg = Annotated[str, typer.Argument(metavar="CASE", help="A case file, or the name of a built-in case.")]
Workspace = Annotated[Path, typer.Option("--workspace", metavar="DIR", help="Where runs are kept.")]
Rows = Annotated[str | None, typer.Option("--data", metavar="FILE", help="Rows to read in place of the case's data.source.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, everything else on stderr.")]
HERE = Path(".makegood")


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


def _say(text: str = "", *, as_json: bool = False) -> None:
    print(text, file=sys.stderr if as_json else sys.stdout, flush=True)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False, allow_nan=False))


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def init(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A csv, tsv or parquet file.")],
    outcome: Annotated[str, typer.Option(help="The column to predict.")],
    out: Annotated[Path | None, typer.Option(help="Where to write the case file; default: beside nothing, in this folder.")] = None,
    unit: Annotated[str | None, typer.Option(help="The unit of the payoffs: EUR, net benefit, points …")] = None,
    payoff: Annotated[list[str] | None, typer.Option(help="ACTION:OUTCOME=AMOUNT, repeated: the two-by-two table of money.")] = None,
    worth: Annotated[
        float | None, typer.Option(help="How many needless actions is one found case worth? The unit is then net benefit.")
    ] = None,
    case_of_interest: Annotated[str | None, typer.Option("--positive", help="The outcome value that calls for action.")] = None,
) -> None:
    """Write a first case file out of a table."""
    from makegood.draft import Answers, draft

    answers = Answers(outcome=outcome, unit=unit, payoffs=tuple(payoff or ()), worth=worth, positive=case_of_interest)
    path = draft(
        data, answers, out, ask=_ask if sys.stdin.isatty() and sys.stdout.isatty() else None, say=lambda t: print(t, file=sys.stderr)
    )
    print(path.resolve())


def _ask(question: str, default: str) -> str:
    return str(typer.prompt(question, default=default))


@app.command()
def check(case: CaseArg, data: Rows = None, workspace: Workspace = HERE, as_json: Json = False) -> None:
    """Validate a case without training: schema, leaks, payoffs, and what the split would be."""
    from makegood import pipeline

    found = pipeline.check(case, data=data, cache=_cache())
    for problem in found.problems:
        said = f"{problem.got} ({problem.next})" if problem.severity == "warning" else problem
        _say(f"{problem.severity}: {said}", as_json=as_json)
    for leak in found.leaks:
        _say(f"leak: {leak.column}: {leak.detail} ({leak.action})", as_json=as_json)
    if as_json:
        _print_json(found.to_json())
    elif found.ok:
        _say(f"{found.case}: {found.split.get('detail', '')}")
        _say("nothing stands in the way of a run")
    if not found.ok:
        raise typer.Exit(2)


@app.command()
def run(
    case: CaseArg,
    until: Annotated[str, typer.Option(metavar="STAGE", help="Stop after prepare, train, evaluate, bundle or report.")] = "report",
    budget: Annotated[str | None, typer.Option(help="Seconds for training, such as 60s or 5m; overrides the case.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of splits and training; overrides the case.")] = None,
    data: Rows = None,
    workspace: Workspace = HERE,
    as_json: Json = False,
) -> None:
    """Prepare, train, evaluate, bundle and report a case."""
    from makegood import pipeline

    with _Progress(as_json) as progress:
        changed = pipeline.override(case, budget=budget, seed=seed)
        done = pipeline.run(changed, data=data, workspace=workspace, until=until, cache=_cache(), progress=progress)
    _tell(done, as_json=as_json)
    if done.evaluation is not None and done.evaluation.verdict == "refuse":
        raise typer.Exit(1)


def _cache() -> Path | None:
    """Return the folder for what is fetched from addresses, where the environment names one."""
    named, base = os.environ.get("MAKEGOOD_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(named) if named else Path(base, "makegood") if base else None


def _tell(done: Any, *, as_json: bool) -> None:
    """Print what a run found: a few lines for a person, or the whole as JSON."""
    e = done.evaluation
    for finding in done.findings:
        if finding.severity == "leak":
            _say(f"leak: {finding.column}: {finding.detail} ({finding.action})", as_json=as_json)
    if e is not None:
        _say(f"{e.verdict}: {e.why}", as_json=as_json)
        width = max(len(n) for n in (*e.baselines, "oracle (knows the outcome)"))
        for name, figure in {"model": e.value, **e.baselines, "oracle (knows the outcome)": e.oracle}.items():
            _say(f"  {name:<{width}}  {figure}", as_json=as_json)
        _say(f"  {'gain':<{width}}  {e.gain}  over {e.gain_over}", as_json=as_json)
        if e.guarantee:
            share = f"{e.guarantee.broken.value:.3g} of the decisions paid less, where {1 - e.guarantee.level:.3g} may"
            _say(f"  {'guaranteed':<{width}}  {e.guarantee.amount}; {share}", as_json=as_json)
        if e.cost:
            _say(f"  {'computing':<{width}}  {e.cost:.3g} {e.unit} a decision, taken off the model's value and gain", as_json=as_json)
    if as_json:
        from makegood.pipeline import summary

        _print_json(summary(done))
    elif done.report or done.bundle:
        if done.bundle:
            print(f"bundle: {done.bundle}")
        if done.report:
            print(done.report)


class _Progress:
    """A progress bar on a terminal, elsewhere a line for each stage when it first comes."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.bar: Any = None
        self.said = set[str]()

    def __enter__(self) -> Any:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self.bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True), transient=True
            )
            self.bar.start()
            self.task = self.bar.add_task("", total=1.0)
        return self.step

    def step(self, stage: str, share: float) -> None:
        """Show that `stage` is done to `share` (0 to 1)."""
        if self.bar is not None:
            self.bar.update(self.task, description=stage, completed=share)
        elif (brief := stage.partition(":")[0]) not in self.said:
            print(f"… {brief}", file=sys.stderr, flush=True)
            self.said.add(brief)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()


@app.command()
def decide(
    model: Annotated[str, typer.Argument(metavar="CASE|BUNDLE", help="A case that was run, or a bundle's folder.")],
    rows: Annotated[Path, typer.Argument(help="A csv, tsv or parquet file with the rows to decide on; images: a folder, an archive, one.")],
    out: Annotated[Path, typer.Option(help="Where the decisions go: .csv or .parquet.")],
    force: Annotated[bool, typer.Option(help="Decide with a model whose verdict is refuse.")] = False,
    workspace: Workspace = HERE,
    as_json: Json = False,
) -> None:
    """Decide on every row of a file."""
    from makegood import pipeline

    told = pipeline.decide_file(model, rows, out, workspace=workspace, force=force)
    for note in told.notes:
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        _print_json(told.to_json())
    else:
        _say("  ".join(f"{name}: {count:,}" for name, count in told.actions.items()))
        _say(f"promised: {told.promised:,.4g} {told.unit} in all, {told.promised / max(told.n, 1):,.4g} a decision")
        print(out.resolve())


@app.command()
def report(case: CaseArg, workspace: Workspace = HERE, as_json: Json = False) -> None:
    """Print where the report of a case's last run is."""
    from makegood import pipeline

    path = pipeline.last_run(case, workspace) / "report.html"
    if not path.exists():
        raise MakegoodError(Problem(str(path), "no report", "a run that went as far as the report", f"makegood run {case}"))
    if as_json:
        _print_json({"report": str(path.resolve())})
    else:
        print(path.resolve())


@app.command()
def cases(as_json: Json = False) -> None:
    """List the built-in cases."""
    from makegood import cases as built_in

    listed = [built_in.load(name) for name in built_in.names()]
    if as_json:
        _print_json({"cases": [{"case": c.case, "about": c.about, "source": built_in.TABLES[c.case].source} for c in listed]})
        return
    for c in listed:
        _say(f"{c.case}\n    {c.about}\n    {built_in.TABLES[c.case].source}")


@app.command()
def doctor(workspace: Workspace = HERE, as_json: Json = False) -> None:
    """Tell whether this machine has what makegood needs."""
    from makegood.doctor import examine

    checks = examine(workspace)
    if as_json:
        _print_json({"ok": all(c.ok for c in checks), "checks": [vars(c) for c in checks]})
    else:
        for c in checks:
            _say(f"{'ok  ' if c.ok else 'FAIL'} {c.name}: {c.found}{'' if c.ok else f'; {c.next}'}")
    if not all(c.ok for c in checks):
        raise typer.Exit(2)


def _planned(name: str, what: str) -> None:
    def refuse(ctx: typer.Context) -> None:
        raise NotBuilt(Problem(f"makegood {name}", "", f"a later version: {what} is not built yet", "see ROADMAP.md"))

    refuse.__doc__ = f"Not built yet: {what}."
    app.command(name, hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(refuse)


for _name, _what in PLANNED.items():
    _planned(_name, _what)


if __name__ == "__main__":
    main()
