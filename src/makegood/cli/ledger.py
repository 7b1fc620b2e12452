"""The commands on a ledger: verify, anchor, export, archive, erase."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from makegood.cli.options import HERE, Json, Workspace
from makegood.cli.shown import print_json, say

ledger = typer.Typer(name="ledger", help="Whether a ledger is whole; its anchors, exports, archives, erasures.", no_args_is_help=True)
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
    with snapshot.reading(url) as connection:  # what is not there must not be made
        replayed = snapshot.replayed(connection)  # then the spool is of a live ledger beside it
        return Ledger.open(url, spool=spool if spool.exists() and not replayed else None, replayed=replayed)


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
        say(f"{finding.severity}: {finding}", as_json=as_json)
    if as_json:
        print_json(found.to_json())
    for partition, head in found.partitions.items():
        say(f"partition {partition}: {head.seq:,} events, head {head.hash.hex()[:16]}…", as_json=as_json)
    say(f"{found.anchored:,} anchors" + (f", signed by the key of {found.key}" if found.key else ""), as_json=as_json)
    say("whole" if found.ok else "NOT whole", as_json=as_json)
    if not found.ok:
        raise typer.Exit(1)


@ledger.command()
def anchor(named: LedgerArg, workspace: Workspace = HERE, as_json: Json = False) -> None:
    """Sign what the ledger holds now; keep a copy of the lines, and of the public key, on another machine."""
    from makegood.ledger import anchors

    url, folder = _ledger(named, workspace)
    made = anchors.anchor(url, folder)
    for each in made:
        say(f"partition {each.partition}: {each.seq:,} events, head {each.hash[:16]}…", as_json=as_json)
    if as_json:
        print_json({"anchors": [{"partition": a.partition, "seq": a.seq, "hash": a.hash, "at": a.at} for a in made]})
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
    from makegood.ledger import snapshot
    from makegood.ledger.export import parquet

    url, _ = _ledger(named, workspace)
    path, n = parquet(url, out)
    with snapshot.reading(url) as connection:
        replayed = snapshot.replayed(connection)
    say(f"{n:,} decisions{', of a replay' if replayed else ''}", as_json=as_json)
    told: dict[str, Any] = {"decisions": n, "out": str(path.resolve())} | ({"replayed": True} if replayed else {})
    print_json(told) if as_json else print(path.resolve())


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
        say(f"partition {segment.partition}: events {segment.first:,} to {segment.last:,} → {folder / segment.file}", as_json=as_json)
    if as_json:
        print_json({"segments": [{"partition": s.partition, "first": s.first, "last": s.last, "file": s.file} for s in moved]})


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

    url, folder = _ledger(named, workspace)
    with _held(url, folder) as held:
        n = destroy(held, unit=unit, decisions=decision or (), by=by, why=why)
    if any(folder.glob("*.mirror")) and find_spec("pyarrow"):  # a service alone has none; where there are, reviews are run
        from makegood.ledger import mirror

        mirror.follow(url, folder)
    say(f"{n:,} private parts are gone", as_json=as_json)
    if as_json:
        print_json({"erased": n})
