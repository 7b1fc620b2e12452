"""From a case file to a model: init, check, run, report, optimise, cases, doctor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from makegood.cli.options import HERE, CaseArg, Json, Rows, Workspace, cache
from makegood.cli.shown import Progress, print_json, say
from makegood.errors import MakegoodError, Problem


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


def check(case: CaseArg, data: Rows = None, workspace: Workspace = HERE, as_json: Json = False) -> None:
    """Validate a case without training: schema, leaks, payoffs, and what the split would be."""
    from makegood import pipeline

    found = pipeline.check(case, data=data, cache=cache())
    for problem in found.problems:
        said = f"{problem.got} ({problem.next})" if problem.severity == "warning" else problem
        say(f"{problem.severity}: {said}", as_json=as_json)
    for leak in found.leaks:
        say(f"leak: {leak.column}: {leak.detail} ({leak.action})", as_json=as_json)
    if as_json:
        print_json(found.to_json())
    elif found.ok:
        say(f"{found.case}: {found.split.get('detail', '')}")
        say("nothing stands in the way of a run")
    if not found.ok:
        raise typer.Exit(2)


def run(
    case: CaseArg,
    until: Annotated[
        str, typer.Option(metavar="STAGE", help="Stop after prepare, train, evaluate, optimise, bundle or report.")
    ] = "report",
    budget: Annotated[str | None, typer.Option(help="Seconds for training, such as 60s or 5m; overrides the case.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of splits and training; overrides the case.")] = None,
    data: Rows = None,
    workspace: Workspace = HERE,
    as_json: Json = False,
) -> None:
    """Prepare, train, evaluate, bundle and report a case."""
    from makegood import pipeline

    with Progress(as_json) as progress:
        changed = pipeline.override(case, budget=budget, seed=seed)
        done = pipeline.run(changed, data=data, workspace=workspace, until=until, cache=cache(), progress=progress)
    tell(done, as_json=as_json)
    if done.evaluation is not None and done.evaluation.verdict == "refuse":
        raise typer.Exit(1)


def tell(done: Any, *, as_json: bool) -> None:
    """Print what a run found: a few lines for a person, or the whole as JSON."""
    e = done.evaluation
    for finding in done.findings:
        if finding.severity == "leak":
            say(f"leak: {finding.column}: {finding.detail} ({finding.action})", as_json=as_json)
    if e is not None:
        say(f"{e.verdict}: {e.why}", as_json=as_json)
        width = max(len(n) for n in (*e.baselines, "oracle (knows the outcome)"))
        for name, figure in {"model": e.value, **e.baselines, "oracle (knows the outcome)": e.oracle}.items():
            say(f"  {name:<{width}}  {figure}", as_json=as_json)
        say(f"  {'gain':<{width}}  {e.gain}  over {e.gain_over}", as_json=as_json)
        if e.guarantee:
            share = f"{e.guarantee.broken.value:.3g} of the decisions paid less, where {1 - e.guarantee.level:.3g} may"
            say(f"  {'guaranteed':<{width}}  {e.guarantee.amount}; {share}", as_json=as_json)
        if e.cost:
            say(f"  {'computing':<{width}}  {e.cost:.3g} {e.unit} a decision, taken off the model's value and gain", as_json=as_json)
    if as_json:
        from makegood.pipeline import summary

        print_json(summary(done))
    elif done.report or done.bundle:
        if done.bundle:
            print(f"bundle: {done.bundle}")
        if done.report:
            print(done.report)


def report(case: CaseArg, workspace: Workspace = HERE, as_json: Json = False) -> None:
    """Print where the report of a case's last run is."""
    from makegood import pipeline

    path = pipeline.last_run(case, workspace) / "report.html"
    if not path.exists():
        raise MakegoodError(Problem(str(path), "no report", "a run that went as far as the report", f"makegood run {case}"))
    if as_json:
        print_json({"report": str(path.resolve())})
    else:
        print(path.resolve())


def optimise(
    case: Annotated[str, typer.Argument(metavar="CASE|BUNDLE", help="A case that is served, or a bundle's folder.")],
    budget: Annotated[str | None, typer.Option(help="For how long to try variants, such as 60s or 5m; overrides the case.")] = None,
    tolerance: Annotated[float | None, typer.Option(help="What a variant may lose, money per decision; overrides the case.")] = None,
    ledger: Annotated[str, typer.Option(metavar="URL|FILE", help="Another ledger than the case's own, such as a replay's.")] = "",
    workspace: Workspace = HERE,
    as_json: Json = False,
) -> None:
    """Try cheaper variants of a model that serves, on the ledger's decisions; what is chosen becomes a bundle of its own."""
    from makegood.optimising import optimise as search

    done = search(case, workspace=workspace, budget=budget, tolerance=tolerance, ledger=ledger)
    for v in done.optimised.variants:
        took = f"{v.measured.decide.p50_ms:.3g} ms a decision" if v.measured else ""
        worth = f"value {v.delta}" if v.delta and v.status != "start" else ""
        say(f"  {v.status}: {v.name}: {'; '.join(filter(None, (took, worth, v.reason)))}", as_json=as_json)
    say(done.optimised.why, as_json=as_json)
    if as_json:
        print_json(done.to_json())
    elif done.bundle:
        print(f"bundle: {done.bundle}")


def cases(as_json: Json = False) -> None:
    """List the built-in cases."""
    from makegood import cases as built_in

    listed = [built_in.load(name) for name in built_in.names()]
    if as_json:
        print_json({"cases": [{"case": c.case, "about": c.about, "source": built_in.TABLES[c.case].source} for c in listed]})
        return
    for c in listed:
        say(f"{c.case}\n    {c.about}\n    {built_in.TABLES[c.case].source}")


def doctor(workspace: Workspace = HERE, as_json: Json = False) -> None:
    """Tell whether this machine has what makegood needs."""
    from makegood.doctor import examine

    checks = examine(workspace)
    if as_json:
        print_json({"ok": all(c.ok for c in checks), "checks": [vars(c) for c in checks]})
    else:
        for c in checks:
            say(f"{'ok  ' if c.ok else 'FAIL'} {c.name}: {c.found}{'' if c.ok else f'; {c.next}'}")
    if not all(c.ok for c in checks):
        raise typer.Exit(2)
