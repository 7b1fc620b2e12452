"""A bundle that may take traffic: loaded, every byte verified, its golden rows replayed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from makegood import bundle
from makegood.model import Model, load


@dataclass(frozen=True, eq=False)
class Live:
    """A loaded bundle; `hash` is its manifest's SHA-256 and `case_hash` that of the case inside it."""

    model: Model
    folder: Path
    hash: str
    case_hash: str
    created: str

    @property
    def name(self) -> str:
        """The name by which answers and routes call it, such as `diagnosis@1a2b3c4d5e6f`."""
        return self.model.id


def bring(folder: Path) -> Live:
    """Return a bundle ready to serve; raises `BundleError` where a byte, or a golden row, is not as it was."""
    model = load(folder)
    data = (folder / bundle.MANIFEST).read_bytes()
    manifest = bundle.parse_manifest(data, str(folder / bundle.MANIFEST))
    live = Live(model, folder, bundle.sha256(data), manifest.files["case.json"].sha256, manifest.created)
    assert model.id.endswith(live.hash[:12]), "the manifest changed between two readings"
    return live
