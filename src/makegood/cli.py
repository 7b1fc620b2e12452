"""The command line: thin, and each command imports what it needs when it runs.

Exit codes: 0 done; 1 refused (the data or the model is not good enough); 2 the input is wrong; 3 our fault. With `--json` one JSON
object goes to stdout and everything else to stderr. A command that makes a page prints its absolute path last.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from makegood import __version__
from makegood.errors import CaseError, MakegoodError, NotBuilt, Problem, Refused

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
    "review": "promised against realised",
    "promote": "promotion of a challenger",
    "rollback": "rollback of a champion",
    "loop": "the closed loop",
    "plan": "the business plan",
    "analyse": "case analysis",
    "optimise": "the optimise stage",
    "dashboard": "the dashboard",
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


Url = Annotated[str, typer.Option("--url", metavar="URL", help="A service; its key stands in the environment's MAKEGOOD_KEY.")]


@app.command()
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

        with _client(url) as client, _Progress(as_json) as progress:
            told = remote.decide_file(client, Path(model), out, progress)
    else:
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


def _client(url: str) -> Any:
    from makegood.client import Client

    return Client(url, os.environ.get("MAKEGOOD_KEY") or None, timeout_s=30.0)


@app.command(context_settings={"ignore_unknown_options": True})  # an outcome may be a negative number
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

    with _client(url) as client, _Progress(as_json) as progress:
        if file is None:
            told = remote.outcome(client, Outcome(decision, value, known_at or None, source))
            if as_json:
                _print_json(told.said)
            paid = told.said.get("realised")
            money = "" if paid is None else f"  it paid {paid:,.4g} {told.said.get('unit', '')}"
            _say(f"{'stored' if told.state == 'stored' else 'there already'}{money}", as_json=as_json)
            return
        posted = remote.outcome_file(client, file, progress)
    _say(f"stored: {posted.stored:,}  there already: {posted.there:,}  refused: {posted.refused:,}", as_json=as_json)
    if as_json:
        _print_json(posted.to_json())
    elif posted.refusals:
        print(posted.refusals.resolve())
    if posted.refused:
        raise typer.Exit(1)


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


ledger = typer.Typer(name="ledger", help="Whether a ledger is whole; its anchors, exports, archives, erasures.", no_args_is_help=True)
app.add_typer(ledger)
LedgerArg = Annotated[str, typer.Argument(metavar="CASE|LEDGER", help="A case with a service, a ledger's file, or its URL.")]


def _ledger(named: str, workspace: Path) -> tuple[str, Path]:
    """Return the URL of a ledger, and the folder of its anchors and segments; MAKEGOOD_LEDGER names that of a case which has no file."""
    from makegood.ledger import snapshot

    if "://" in named or Path(named).suffix in (".sqlite", ".sqlite3", ".db"):
        return snapshot.at_url(named), snapshot.folder(named)
    from makegood.serving.locate import locate

    place = locate(named, workspace)
    return place.ledger, place.service


def _held(url: str, folder: Path) -> Any:
    """Return the writer of a ledger that is there already; what waits in a spool comes first."""
    from makegood.ledger import snapshot
    from makegood.ledger.store import Ledger

    spool = folder / "spool.jsonl"
    with snapshot.reading(url):  # what is not there must not be made
        return Ledger.open(url, spool=spool if spool.exists() else None)


@ledger.command()
def verify(
    named: LedgerArg,
    anchors: Annotated[Path | None, typer.Option(metavar="FILE", help="Anchors kept elsewhere; default: those beside the ledger.")] = None,
    public_key: Annotated[Path | None, typer.Option(metavar="FILE", help="A copy of anchor.pub kept elsewhere.")] = None,
    workspace: Workspace = HERE,
    as_json: Json = False,
) -> None:
    """Recompute every hash and compare every anchor: 0 whole, 1 something is wrong, 2 not readable at all."""
    from makegood.ledger.verify import verify as check_all

    url, folder = _ledger(named, workspace)
    found = check_all(url, anchors=anchors, public_key=public_key, folder=folder)
    for finding in found.findings:
        _say(f"{finding.severity}: {finding}", as_json=as_json)
    if as_json:
        _print_json(found.to_json())
    for partition, head in found.partitions.items():
        _say(f"partition {partition}: {head.seq:,} events, head {head.hash.hex()[:16]}…", as_json=as_json)
    _say(f"{found.anchored:,} anchors" + (f", signed by the key of {found.key}" if found.key else ""), as_json=as_json)
    _say("whole" if found.ok else "NOT whole", as_json=as_json)
    if not found.ok:
        raise typer.Exit(1)


@ledger.command()
def anchor(named: LedgerArg, workspace: Workspace = HERE, as_json: Json = False) -> None:
    """Sign what the ledger holds now; keep a copy of the lines, and of the public key, on another machine."""
    from makegood.ledger import anchors

    url, folder = _ledger(named, workspace)
    made = anchors.anchor(url, folder)
    for each in made:
        _say(f"partition {each.partition}: {each.seq:,} events, head {each.hash[:16]}…", as_json=as_json)
    if as_json:
        _print_json({"anchors": [{"partition": a.partition, "seq": a.seq, "hash": a.hash, "at": a.at} for a in made]})
    else:
        print((folder / anchors.LINES).resolve())


@ledger.command()
def export(
    named: LedgerArg,
    out: Annotated[Path, typer.Option(metavar="DIR|FILE.parquet", help="Where the decisions and what became of them go.")],
    workspace: Workspace = HERE,
    as_json: Json = False,
) -> None:
    """Write every decision, with its outcome, to a Parquet file."""
    from makegood.ledger.export import parquet

    path, n = parquet(_ledger(named, workspace)[0], out)
    _say(f"{n:,} decisions", as_json=as_json)
    _print_json({"decisions": n, "out": str(path.resolve())}) if as_json else print(path.resolve())


@ledger.command()
def archive(
    named: LedgerArg,
    before: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Events older than this day (UTC) go.")],
    workspace: Workspace = HERE,
    as_json: Json = False,
) -> None:
    """Move old events out of the tables into files, which verification goes through; no service may hold the ledger."""
    from makegood.ledger import retention

    url, folder = _ledger(named, workspace)
    with _held(url, folder) as held:
        moved = retention.archive(held, int(before.replace(tzinfo=UTC).timestamp()) * 1_000_000, folder)
    for segment in moved:
        _say(f"partition {segment.partition}: events {segment.first:,} to {segment.last:,} → {folder / segment.file}", as_json=as_json)
    if as_json:
        _print_json({"segments": [{"partition": s.partition, "first": s.first, "last": s.last, "file": s.file} for s in moved]})


@ledger.command()
def erase(
    named: LedgerArg,
    by: Annotated[str, typer.Option(help="On whose word.")],
    unit: Annotated[str | None, typer.Option(help="Everything about this unit (the id that decisions were asked with).")] = None,
    decision: Annotated[list[str] | None, typer.Option(help="A decision's id; repeat it for more.")] = None,
    why: Annotated[str, typer.Option(help="The reason, kept for ever: name nobody in it.")] = "",
    workspace: Workspace = HERE,
    as_json: Json = False,
) -> None:
    """Destroy inputs, reasons and notes of a unit or of decisions, and log that; no service may hold the ledger."""
    from makegood.ledger.erasure import erase as destroy

    with _held(*_ledger(named, workspace)) as held:
        n = destroy(held, unit=unit, decisions=decision or (), by=by, why=why)
    _say(f"{n:,} private parts are gone", as_json=as_json)
    if as_json:
        _print_json({"erased": n})


@app.command()
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
            _print_json({"url": url, "model": model, "ledger": ledger, "pid": os.getpid(), "workers": workers})
        else:
            print(f"{model} decides at {url}  ledger: {ledger}  pid: {os.getpid()}")
        sys.stdout.flush()

    serve(locate(case, workspace), Listen(host, port, workers), force=force, ready=ready)


keys = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(keys, name="keys", help="Make, list and revoke the keys of a case's service.")
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
        _print_json({"name": name, "scopes": scopes, "rate": rate, "key": token})
    else:
        print("keep it well: it is shown this once", file=sys.stderr)
        print(token)


@keys.command("list")
def list_keys(case: KeysOf, workspace: Workspace = HERE, as_json: Json = False) -> None:
    """List the keys, without what is secret of them."""
    from makegood.serving.keys import listed

    found = listed(_keys_file(case, workspace))
    if as_json:
        _print_json({"keys": [{"name": k.name, "scopes": k.scopes, "rate": k.rate, "created": k.created} for k in found]})
        return
    for k in found:
        _say(f"{k.name}  {','.join(k.scopes)}  {k.rate or 'no bound'}  made {k.created}")
    if not found:
        _say(f"no keys; `makegood keys create {case} --name NAME --scope decide,observe` makes one")


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
        _print_json({"revoked": name})
    else:
        _say(f"{name} is revoked")


def _planned(name: str, what: str) -> None:
    def refuse(ctx: typer.Context) -> None:
        raise NotBuilt(Problem(f"makegood {name}", "", f"a later version: {what} is not built yet", "see ROADMAP.md"))

    refuse.__doc__ = f"Not built yet: {what}."
    app.command(name, hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(refuse)


for _name, _what in PLANNED.items():
    _planned(_name, _what)


if __name__ == "__main__":
    main()
