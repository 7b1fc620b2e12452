"""A network for images, from files in a table to decisions out of a bundle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from sklearn.datasets import load_digits

from makegood import pipeline
from makegood.case import Case
from makegood.contracts import Run
from makegood.errors import CaseError
from makegood.model import load

CASE = """
case: digits
data: {source: digits.csv, outcome: label, path: file, time: day, image: {size: [8, 8], channels: 1}}
decision:
  unit: points
  actions:
    take: {payoff: {0: 1, 1: -1, 2: -1}}
    leave: {payoff: 0}
train: {budget: 100s, families: cnn}
"""
N = 500


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three digits, and a table of their paths in the order of time."""
    folder = tmp_path_factory.mktemp("images")
    digits = load_digits()
    kept = np.flatnonzero(digits.target < 3)[:N]
    lines = ["file,label,day,shade"]
    for i, at in enumerate(kept):
        PIL.Image.fromarray(np.rint(digits.images[at] * (255 / 16)).astype(np.uint8)).save(folder / f"{i:03}.png")
        lines.append(f"{i:03}.png,{digits.target[at]},2024-{1 + i // 28 % 12:02}-{1 + i % 28:02},{i % 7}")
    (folder / "digits.csv").write_text("\n".join(lines) + "\n")
    (folder / "images.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return pipeline.run(Case.parse(CASE.replace("digits.csv", "images.csv"), folder=folder), workspace=folder / "runs")


def test_the_network_wins_and_earns(run: Run) -> None:
    assert run.evaluation is not None
    assert {trial["name"]: trial["weight"] for trial in run.evaluation.candidates}["cnn"] == 1.0
    assert run.evaluation.metrics["accuracy"].value > 0.9
    assert run.evaluation.verdict == "deploy"


def test_the_bundle_decides_without_torch(run: Run, folder: Path) -> None:
    assert run.bundle is not None
    model = load(run.bundle)
    images = [{"image": (folder / f"{i:03}.png").read_bytes()} for i in range(40)]
    together = model.decide(images)
    assert [model.decide(image).predictive for image in images] == [decision.predictive for decision in together]
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from makegood.model import load\n"
        f"model, folder = load({str(run.bundle)!r}), Path({str(folder)!r})\n"
        "print(*[model.decide({'image': (folder / f'{i:03}.png').read_bytes()}).action for i in range(40)])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [decision.action for decision in together]


def test_an_image_beside_other_columns_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(CaseError, match=r"train\.families: cnn: got 'rows that are no images'; expected rows of which each is one image"):
        pipeline.run(Case.parse(CASE, folder=folder), workspace=folder / "refused")
