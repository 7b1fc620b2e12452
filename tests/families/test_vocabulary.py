"""The tokenizer beside saved weights: where it is looked for, and what is said where there is none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from makegood.errors import CaseError, MissingExtra
from makegood.families.vocabulary import FILE, tokenizer_of


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """Folders of networks, of which two have the same tokenizer; one has none, and one has bytes that are no text."""
    for name, held in {"one": b'{"model": 1}', "same": b'{"model": 1}', "other": b'{"model": 2}', "broken": b"\xff\xfe\xff"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / FILE).write_bytes(held)
    (tmp_path / "bare").mkdir()
    return tmp_path


def test_it_lies_beside_the_weights(space: Path) -> None:
    assert tokenizer_of(["one"], space) == tokenizer_of(["one", "same", "./one"], space) == '{"model": 1}'
    assert tokenizer_of([str(space / "other")], Path("elsewhere")) == '{"model": 2}'
    assert tokenizer_of([], space) is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["one", "same", "other"], "train.pretrained: got 'one and other'; expected networks with the same tokenizer; name one of them"),
        (["bare"], "train.pretrained: bare: got 'no tokenizer.json'; expected a tokenizer.json beside the weights; write it: "),
        (["broken"], "train.pretrained: broken: got 'a tokenizer.json that cannot be read'; expected a tokenizer.json beside the weights"),
        (["nowhere"], "train.pretrained: got 'nowhere'; expected a folder that save_pretrained wrote, or a name at the hub, owner/name"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(space: Path, names: list[str], message: str) -> None:
    with pytest.raises(CaseError, match=f"^{re.escape(message)}"):
        tokenizer_of(names, space)


def test_a_hub_that_is_away_is_named(space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CaseError, match=r"^train\.pretrained: nobody/has-this: got '\w+: .*'; expected a tokenizer\.json beside"):
        tokenizer_of(["nobody/has-this"], space)


def test_without_what_reads_networks_the_extra_is_named(space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("makegood.families.vocabulary.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"torch, which reads and trains networks; pip install 'makegood\[pretrained\]'"):
        tokenizer_of(["nobody/has-this"], space)
