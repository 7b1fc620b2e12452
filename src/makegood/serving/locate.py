"""What the command line calls a case, or a bundle, and where the service of it keeps its things."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from makegood import bundle
from makegood.errors import CaseError, Problem, nearest
from makegood.workspace import Workspace

LEDGER = "MAKEGOOD_LEDGER"
"""The environment variable with a ledger's URL, which may hold a password and so is on no command line."""
_BUILT_IN = Path(__file__).parent.parent / "cases"


@dataclass(frozen=True)
class Replay:
    """That history is decided on anew: into which ledger (a URL; "" is replay.sqlite beside the live one), and from which time on.

    `begins` is in microseconds since 1970, UTC, and where a replay goes on that came further it says nothing.
    """

    ledger: str = ""
    begins: int = 0


@dataclass(frozen=True)
class Place:
    """A case by name, its service's folder, and the bundle that was named, None where it was the case; `replay` where it is not live."""

    case: str
    service: Path
    bundle: Path | None
    workspace: Workspace
    replay: Replay | None = None

    @property
    def first(self) -> Path:
        """The bundle to begin with: the one that was named, or that of the case's last run; raises `CaseError` where there is none."""
        return self.bundle or self.workspace.last(self.case) / "bundle"

    @property
    def ledger(self) -> str:
        """The URL of the ledger: what the environment says, or a SQLite file in the service's folder; of a replay a ledger of its own."""
        if self.replay is not None:
            return self.replay.ledger or f"sqlite:///{(self.service / 'replay.sqlite').resolve()}"
        return os.environ.get(LEDGER) or f"sqlite:///{(self.service / 'ledger.sqlite').resolve()}"


def locate(named: str, root: Path) -> Place:
    """Return the place of a bundle's folder, a case file, a built-in case, or a case that was run in the workspace `root`.

    Raises `CaseError` where it is none of them, `BundleError` where a bundle's manifest cannot be read.
    """
    path, workspace = Path(named), Workspace(root)
    manifest = path / bundle.MANIFEST
    if manifest.is_file():
        case = bundle.parse_manifest(manifest.read_bytes(), str(manifest)).case
        return Place(case, workspace.service(case), path, workspace)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        from makegood.case import Case  # slow to import, and the other names do without

        named = Case.load(path).case
    else:
        known = {file.stem for file in _BUILT_IN.glob("*.yaml")} | {pointer.parent.name for pointer in root.glob("*/latest")}
        if named not in known:
            what = f"a bundle's folder, a case file, a case of {root} or a built-in one"
            raise CaseError(Problem("CASE", named, what, nearest(named, known) or "see `makegood cases`"))
    return Place(named, workspace.service(named), None, workspace)


def shown(url: str) -> str:
    """Return a ledger's URL without who asks and their password.

    >>> shown("postgresql://shop:secret@db.example:5432/makegood?password=secret")
    'postgresql://db.example:5432/makegood'
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"
