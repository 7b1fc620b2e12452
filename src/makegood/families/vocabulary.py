"""The tokenizer that lies beside saved weights: texts must be cut up as they were when the network first learnt."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from makegood.errors import CaseError, MissingExtra, Problem

WHERE = "train.pretrained"
FILE = "tokenizer.json"
_MEND = "write it: AutoTokenizer.from_pretrained(…).save_pretrained(FOLDER)"


def tokenizer_of(names: Sequence[str], folder: Path) -> str | None:
    """Return the tokenizer, as JSON, of the networks that `train.pretrained` names; None where it names none.

    A name is a folder, which may be relative to `folder`, or `owner/name` at the hub. Raises `CaseError` where a network has no
    tokenizer.json, and where two have different ones: a case's texts are cut up once, for all families.
    """
    found = {name: _read(name, folder) for name in dict.fromkeys(names)}
    if len(set(found.values())) > 1:
        first, *others = found
        other = next(name for name in others if found[name] != found[first])
        raise CaseError(Problem(WHERE, f"{first} and {other}", "networks with the same tokenizer", "name one of them"))
    return next(iter(found.values()), None)


def _read(name: str, folder: Path) -> str:
    place = folder / name
    path = place / FILE if place.is_dir() else _fetched(name, folder)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        got = f"no {FILE}" if isinstance(error, FileNotFoundError) else f"a {FILE} that cannot be read"
        raise CaseError(Problem(f"{WHERE}: {name}", got, f"a {FILE} beside the weights", _MEND)) from None


def _fetched(name: str, folder: Path) -> Path:
    """Return where the hub's file lies now, fetched if need be."""
    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            wanted = f"{package}, which reads and trains networks"
            raise MissingExtra(Problem(WHERE, "", wanted, "pip install 'makegood[pretrained]'"))
    from huggingface_hub import hf_hub_download

    from makegood.families.pretrained import _place

    place, keys = _place(name, folder)
    try:
        return Path(hf_hub_download(place, FILE, revision=keys.get("revision")))
    except (OSError, ValueError) as error:  # the hub is away, or has no such thing
        first = " ".join(str(error).split()).split(". ")[0][:200]
        raise CaseError(Problem(f"{WHERE}: {name}", f"{type(error).__name__}: {first}", f"a {FILE} beside the weights", _MEND)) from None
