"""The cases of texts from end to end, on some of their real rows: run, optimised, served, told, reviewed; and where their data are from."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests.serving.processes import command, serving

from makegood import cases, pipeline
from makegood.case import Case
from makegood.contracts import Run
from makegood.data.sources import read
from makegood.errors import CaseError

Shared = Callable[[str], Path]
BANKING = "service/banking77_{}.csv"
ESSAYS = "assessment/asap_prompts_1_4.tsv.gz"
QUICK = {"feedback": {"review": "1s"}}
"""Decisions are due a second after they were made."""


@pytest.fixture(scope="module")
def cache(shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the files of BANKING77 lie as if they had been fetched."""
    folder = tmp_path_factory.mktemp("cache")
    there = cases.published("support-intent")
    assert there is not None
    for part, (address, sha256) in there.files.items():
        (folder / sha256).mkdir()
        shutil.copyfile(shared(BANKING.format(part)), folder / sha256 / address.rpartition("/")[2])
    return folder


def some(table: pa.Table, by: list[str], most: int) -> pa.Table:
    """Return at most so many rows for each combination of values, drawn by a seed."""
    keys = list(zip(*(table[name].to_pylist() for name in by), strict=True))
    left, kept = dict.fromkeys(keys, most), []
    for i in np.random.default_rng(0).permutation(len(keys)).tolist():
        if left[keys[i]]:
            left[keys[i]] -= 1
            kept.append(i)
    return table.take(pa.array(sorted(kept)))


def closed(run: Run, space: Path, rows: list[dict[str, Any]], outcomes: list[Any]) -> dict[str, Any]:
    """Serve a run's case, decide rows over HTTP, tell their outcomes, and return the review."""
    assert run.bundle is not None
    with serving(space, case=run.case) as at:
        decided = at.ask("POST", "/v1/decisions", json=rows)
        assert decided.status_code == 200, decided.text
        found = decided.json()
        alone = at.ask("POST", "/v1/decisions", json=rows[0]).json()
        assert (alone["action"], alone["promise"]) == (found[0]["action"], found[0]["promise"])
        told = [{"decision": d["id"], "outcome": o, "source": "desk"} for d, o in zip(found, outcomes, strict=True)]
        assert at.ask("POST", "/v1/outcomes", json=told).status_code == 201
        done = subprocess.run(command("review", run.case, "--workspace", space, "--json"), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert at.stop() == 0
    return dict(json.loads(done.stdout))


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_requests_are_routed_by_what_a_wrong_queue_costs(cache: Path, tmp_path: Path) -> None:
    source = read("builtin:support-intent", cache=cache)
    assert (source.in_file, source.table.num_rows, len(source.table["category"].unique())) == (13_083, 13_083, 77)
    raw = cases.load("support-intent").to_json()
    case = Case.of({**raw, "train": {"families": ["ngrams"], "budget": 30.0}, "optimise": {"budget": 15.0, "tolerance": 0.05}, **QUICK})
    table = some(source.table, ["category", "part"], 11)
    run = pipeline.run(case, data=table, workspace=tmp_path)
    assert run.evaluation is not None
    assert run.evaluation.verdict == "deploy", run.evaluation.why
    assert run.evaluation.metrics["accuracy"].value > 0.6
    told = json.loads((run.folder / "optimise.json").read_text(encoding="utf-8"))
    assert told["why"]
    asked = table.filter(pc.equal(table["part"], "test")).slice(0, 200).to_pylist()
    outcomes = [row.pop("category") for row in asked]
    review = closed(run, tmp_path, [{"text": row["text"]} for row in asked], outcomes)
    assert review["n"] == len(asked) + 1
    assert review["matured"] == len(asked) + 1
    assert review["realised"]["value"] > -0.6  # what a person costs


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_essays_are_scored_or_sent_to_a_teacher(shared: Shared, tmp_path: Path) -> None:
    raw = cases.load("essay-score").to_json()
    case = Case.of({**raw, "train": {"families": ["lightgbm"], "budget": 30.0}, "optimise": {"budget": 15.0, "tolerance": 0.05}, **QUICK})
    table = some(read(shared(ESSAYS)).table, ["prompt"], 350)
    rare = [score for score, n in Counter(table["score"].to_pylist()).items() if n < 15]
    table = table.filter(pc.invert(pc.is_in(table["score"], pa.array(rare))))
    run = pipeline.run(case, data=table, workspace=tmp_path)
    assert run.evaluation is not None
    every, *prompts = run.evaluation.ratings
    assert [(r.column, r.level) for r in prompts] == [("prompt", level) for level in "1234"]
    assert every.raters is not None
    assert 0.5 < every.kappa.value < every.raters.value
    assert run.evaluation.verdict == "deploy", run.evaluation.why
    asked = table.slice(0, 60).to_pylist()
    outcomes = [str(row.pop("score")) for row in asked]
    review = closed(run, tmp_path, [{name: row[name] for name in ("prompt", "essay")} for row in asked], outcomes)
    assert review["n"] == len(asked) + 1


def test_a_case_without_its_data_says_where_they_are_and_what_they_look_like(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"--data FILE: a table with the columns essay_id, .*Automated Student Assessment Prize"):
        pipeline.run("essay-score", workspace=tmp_path)
