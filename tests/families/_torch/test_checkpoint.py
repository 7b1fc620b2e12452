from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from makegood.errors import CaseError
from makegood.families._torch.checkpoint import Checkpoints

SAVING = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from makegood.families._torch.checkpoint import Checkpoints

folder, chance = Path(sys.argv[1]), random.Random(3)
checkpoints, said = Checkpoints(folder / "states", 1, "case"), folder / "said"
torch.set_num_threads(1)
step = 0
for _ in range(8):
    child = os.fork()  # spares the time of another import
    if not child:
        while True:
            step += 1
            checkpoints.save(step, {"step": step, "weights": torch.full((500_000,), float(step))})
            said.write_text(str(step))
    while not said.exists():
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = checkpoints.latest()
    assert found["step"] >= int(said.read_text() or 0), "what was said to be saved is there"
    assert torch.equal(found["weights"], torch.full((500_000,), float(found["step"])))
    assert len(list((folder / "states").glob("step-*.ckpt"))) <= 3, "two, and one not yet deleted"
    assert found["step"] >= step
    step = found["step"]
    said.unlink()
sys.stdout.write(str(step))
"""


def state(step: int) -> dict[str, object]:
    return {"step": step, "weights": {"a": torch.full((3, 2), float(step))}, "best": None, "loss": 0.1}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_comes_back_and_the_last_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "new", 1, "case", keep=2)
    assert checkpoints.latest() is None
    for step in (5, 50, 500):
        checkpoints.save(step, state(step))
    found = checkpoints.latest()
    assert found is not None
    assert (found["step"], found["best"], found["loss"]) == (500, None, 0.1)
    assert torch.equal(found["weights"]["a"], torch.full((3, 2), 500.0))
    assert names(tmp_path / "new") == ["step-000000000050.ckpt", "step-000000000500.ckpt"]


def damage_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def damage_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage_digest(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[30] ^= 128
    path.write_bytes(content)


def damage_mark(path: Path) -> None:
    path.write_bytes(b"\0" + path.read_bytes()[1:])


def damage_all(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_end, damage_bit, damage_digest, damage_mark, damage_all])
def test_a_damaged_file_is_passed_over(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    checkpoints = Checkpoints(tmp_path, 1, "case")
    checkpoints.save(1, state(1))
    damage(checkpoints.save(2, state(2)))
    found = checkpoints.latest()
    assert found is not None
    assert found["step"] == 1
    checkpoints.save(1, state(1))  # the training that goes on from there clears the damaged one away
    assert names(tmp_path) == ["step-000000000001.ckpt"]


def test_when_all_are_damaged_there_is_none(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 1, "case")
    for step in (1, 2):
        damage_end(checkpoints.save(step, state(step)))
    assert checkpoints.latest() is None


def test_another_case_is_refused(tmp_path: Path) -> None:
    path = Checkpoints(tmp_path, 1, "one").save(1, state(1))
    with pytest.raises(CaseError) as error:
        Checkpoints(tmp_path, 1, "two").latest()
    assert str(error.value) == f"{path}: got 'one'; expected a checkpoint of two; train in another folder, or delete this one"


@pytest.mark.parametrize(("every", "keep", "name"), [(0, 2, "every_steps"), (1, 0, "keep")])
def test_numbers_out_of_range_are_refused(tmp_path: Path, every: int, keep: int, name: str) -> None:
    with pytest.raises(CaseError, match=f"checkpoints.{name}: got '0'; expected at least 1"):
        Checkpoints(tmp_path, every, "case", keep)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 1, "case")
    checkpoints.save(1, {"path": Path("x")})  # any class, here a harmless one, is more than plain values
    with pytest.raises(Exception, match="Weights only load failed"):
        checkpoints.latest()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_while_saving_loses_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SAVING, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 8  # each of the eight has saved at least once
