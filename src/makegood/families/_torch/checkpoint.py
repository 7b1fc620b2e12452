"""Checkpoints that a kill at any moment cannot lose.

A file is a mark, the SHA-256 of the rest, and what `torch.save` wrote. It comes into being under its name at once, by a rename.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from makegood.errors import CaseError, Problem

_MARK = b"makegood checkpoint 1\n"
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Checkpoints:
    """The states of one training, in a folder of its own: the `keep` newest, one every `every_steps` steps.

    A state carries its best weights so far, so that the newest file is all that a resumed training needs. `case_hash` stands for
    everything that shapes the training: data, recipe, seed. With several ranks the first one writes, and all must see the folder.
    Raises CaseError when a number is out of range.
    """

    folder: Path
    every_steps: int
    case_hash: str
    keep: int = 2

    def __post_init__(self) -> None:
        for name, value in (("every_steps", self.every_steps), ("keep", self.keep)):
            if value < 1:
                raise CaseError(Problem(f"checkpoints.{name}", str(value), "at least 1"))

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Return the file that now holds `state` (plain values and tensors); older ones than the `keep` newest are deleted.

        States of later steps are deleted too: they were damaged or abandoned, or the training would not be here.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:012d}.ckpt"
        buffer = io.BytesIO()
        torch.save({"case_hash": self.case_hash, "state": dict(state)}, buffer)
        payload = buffer.getbuffer()
        temporary = self.folder / "saving.tmp"  # one name for all: what a kill leaves is overwritten by the next save
        with temporary.open("wb") as file:
            file.write(_MARK + hashlib.sha256(payload).digest())
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync(self.folder)
        names = self._files()
        for old in names[names.index(path) + self.keep :] + names[: names.index(path)]:
            old.unlink()
        return path

    def latest(self) -> dict[str, Any] | None:
        """Return the newest state that is whole, on the CPU; damaged files are passed over, and None means that there is none.

        Raises CaseError when it belongs to another case.
        """
        for path in self._files():
            content = _content(path)
            if content is None:
                continue
            if content["case_hash"] != self.case_hash:
                raise CaseError(
                    Problem(
                        str(path), content["case_hash"], f"a checkpoint of {self.case_hash}", "train in another folder, or delete this one"
                    )
                )
            state: dict[str, Any] = content["state"]
            return state
        return None

    def _files(self) -> list[Path]:
        """Return the checkpoints, the newest first."""
        return sorted(self.folder.glob("step-*.ckpt"), reverse=True)


def _content(path: Path) -> dict[str, Any] | None:
    """Return what a file holds; None when a byte of it is wrong."""
    data = memoryview(path.read_bytes())
    head, payload = len(_MARK), data[len(_MARK) + _DIGEST :]
    if data[:head] != _MARK or data[head : head + _DIGEST] != hashlib.sha256(payload).digest():
        return None
    content: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return content


def _sync(folder: Path) -> None:
    """Make a rename durable; where a folder cannot be opened (Windows) the file system sees to it."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
