"""Computing, from the clock to the verdict: a whole run measures what it takes, and at a price its value is net of it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import Any, Self

import pytest
from tests.loops import LOANS, loans, written
from typer.testing import CliRunner

import makegood as mg
from makegood import pipeline
from makegood.cli import app
from makegood.contracts import Budget, Dataset, Run
from makegood.families import Candidate, accelerator
from makegood.families.tabular import Constant

MEASURED = ("manifest.json",)  # it says when the bundle was made
PRICES = "compute: {cpu_hour: 0.05, gpu_hour: 2.5, memory_gb_hour: 0.005, decisions: 1000}\n"
ABSURD = "compute: {cpu_hour: 1e9, decisions: 1000}\n"
CASE = LOANS.replace("{budget: 1s,", "{budget: 60s,")  # every fold is finished, however slow the machine


def _run(folder: Path, extra: str = "", candidates: tuple[Candidate, ...] = (), until: str = "report") -> Run:
    return pipeline.run(written(folder, loans(), CASE + extra), candidates=candidates, workspace=folder / "runs", until=until)


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return _run(tmp_path_factory.mktemp("free"))


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return _run(tmp_path_factory.mktemp("priced"), PRICES)


def _said(done: Run) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(json.dumps(pipeline.summary(done), allow_nan=False))["compute"]
    return said


def _text(done: Run) -> str:
    assert done.report is not None
    return re.sub(r"\s+", " ", unescape(re.sub("<[^>]*>", " ", done.report.read_text(encoding="utf-8"))).replace("\u00a0", " "))


def _money(used: Mapping[str, Any]) -> float:
    hours = 0.05 * used["cpu_s"] + 2.5 * used["gpu_s"] + 0.005 * used["peak_bytes"] / 1e9 * used["wall_s"]
    return float(hours / 3600.0)


def test_a_run_says_what_training_each_candidate_and_a_decision_took(free: Run) -> None:
    said = _said(free)
    assert set(said) == {"training", "candidates", "decision", "rows", "decisions", "per_decision", "unit"}
    assert set(said["candidates"]) >= {"constant", "linear"}
    assert 0 < said["candidates"]["linear"]["cpu_s"] < said["training"]["cpu_s"]
    assert 0 < said["decision"]["cpu_s"] < 0.1
    assert said["training"]["gpu_s"] == 0.0
    assert said["training"]["peak_bytes"] is None or said["training"]["peak_bytes"] > 50_000_000
    assert 100 <= said["rows"] <= 300
    assert (said["decisions"], said["per_decision"], said["unit"]) == (None, 0.0, "EUR")
    train = json.loads((free.folder / "train.json").read_text(encoding="utf-8"))
    assert train["used"]["cpu_s"] == said["training"]["cpu_s"]
    assert [c["used"]["wall_s"] for c in train["candidates"]] == [c["wall_s"] for c in said["candidates"].values()]
    assert json.loads((free.folder / "evaluate.json").read_text(encoding="utf-8"))["compute"]["rows"] == said["rows"]


def test_the_report_shows_it(free: Run, priced: Run) -> None:
    assert f"a decision is the median of {_said(free)['rows']}, taken one at a time time CPU GPU most memory training" in _text(free)
    assert "No price is declared, so nothing is taken off" in _text(free)
    assert "What the model earns is net of" not in _text(free)
    assert "for training, spread over 1,000 decisions, and" in _text(priced)
    assert "most memory money" in _text(priced)


def test_at_a_price_value_and_gain_are_net_of_what_was_measured(free: Run, priced: Run) -> None:
    said = _said(priced)
    for used in (said["training"], said["decision"], *said["candidates"].values()):
        assert used["money"] == pytest.approx(_money(used), rel=1e-9)
    assert said["per_decision"] == pytest.approx(said["training"]["money"] / 1000 + said["decision"]["money"])
    assert said["per_decision"] > 0
    a, b = free.evaluation, priced.evaluation
    assert a is not None
    assert b is not None
    assert b.value.value == pytest.approx(a.value.value - said["per_decision"], abs=1e-12)
    assert b.gain.low == pytest.approx(a.gain.low - said["per_decision"], abs=1e-12)
    assert (b.baselines, b.oracle, b.promised, b.gap, b.candidates) == (a.baselines, a.oracle, a.promised, a.gap, a.candidates)


def test_deciding_on_a_file_says_what_it_took(priced: Run, tmp_path: Path) -> None:
    loans(50).drop(columns="bad").to_csv(tmp_path / "rows.csv", index=False)
    shown = CliRunner().invoke(
        app, ["decide", str(priced.bundle), str(tmp_path / "rows.csv"), "--out", str(tmp_path / "out.csv"), "--json"]
    )
    used = json.loads(shown.stdout)["compute"]
    assert 0 < used["cpu_s"] < 5
    assert used["money"] == pytest.approx(_money(used), rel=1e-9)
    assert used["money"] > 0


def test_a_model_that_computes_away_its_gain_is_refused(tmp_path: Path, free: Run) -> None:
    assert free.evaluation is not None
    assert free.evaluation.verdict == "deploy"
    path = written(tmp_path, loans(), CASE.replace("outcome: bad", "outcome: bad, protected: [sex]") + ABSURD)
    shown = CliRunner().invoke(app, ["run", str(path), "--workspace", str(tmp_path / "runs"), "--until", "bundle", "--json"])
    assert shown.exit_code == 1
    said = json.loads(shown.stdout)
    assert said["verdict"] == "refuse"
    assert "EUR a decision, and that turns the verdict: before it, the interval runs from" in said["why"]
    assert said["gain"]["value"] < 0 < said["gain"]["value"] + said["compute"]["per_decision"]
    assert "a decision, taken off the model's value and gain" in shown.stderr
    assert mg.load(said["bundle"]).verdict == "refuse"
    values = re.findall(
        r"^\| sex (?:\(protected\) )?\| f .*?\| (\d+) \| (\S+ \[)", (Path(said["bundle"]) / "card.md").read_text(), re.MULTILINE
    )
    assert len(values) == 2  # as a group of rows and in the fairness table
    assert values[0] == values[1]
    assert values[0][1].startswith("−")


def test_what_is_measured_leaves_no_trace_in_the_bundle(free: Run, priced: Run, tmp_path: Path) -> None:
    again = _run(tmp_path, until="bundle")
    assert free.bundle is not None
    assert again.bundle is not None
    assert priced.bundle is not None
    files = {p.name for p in free.bundle.iterdir()}
    assert _said(again)["training"] != _said(free)["training"]
    assert {n for n in files if (free.bundle / n).read_bytes() != (again.bundle / n).read_bytes()} <= {*MEASURED}
    # prices stand in the case, and a card that says what is net says of what
    differ = {n for n in files if (free.bundle / n).read_bytes() != (priced.bundle / n).read_bytes()}
    assert differ <= {*MEASURED, "case.json", "card.md"}


# ---------------------------------------------------------------------------------------------------------------- families


class Accelerated(Constant):
    """The constant, which waits while it holds a GPU."""

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        with accelerator.held():
            time.sleep(0.01)
        return super().fit(train, valid, budget=budget, seed=seed)


class Idle(Constant):
    """The constant, which waits."""

    def fit(self, train: Dataset, valid: Dataset, *, budget: Budget, seed: int) -> Self:
        time.sleep(0.01)
        return super().fit(train, valid, budget=budget, seed=seed)


def test_a_family_on_a_gpu_pays_for_the_gpu_and_one_that_waits_for_nothing(tmp_path: Path) -> None:
    made = [Candidate("gpu", Accelerated), Candidate("idle", Idle)]
    said = _said(_run(tmp_path, "compute: {cpu_hour: 1, gpu_hour: 3600, decisions: 10}\n", tuple(made), until="evaluate"))
    gpu, idle = said["candidates"]["gpu"], said["candidates"]["idle"]
    assert gpu["gpu_s"] >= 0.05
    assert said["training"]["gpu_s"] >= 2 * gpu["gpu_s"]  # the round of the held-out rows, and the last
    assert gpu["money"] == pytest.approx(gpu["gpu_s"], rel=0.01)  # a unit a second
    assert idle["wall_s"] >= 0.05
    assert idle["gpu_s"] == 0.0
    assert idle["cpu_s"] < 0.5 * idle["wall_s"]
