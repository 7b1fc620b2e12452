"""A service of texts as a process: it needs tokenizers and no torch, and takes what it is told into its reviews."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.queues import CASE, requests
from tests.serving.processes import command, refused, serving

from makegood import pipeline

TRAINS = ("torch", "transformers", "peft", "onnx", "sklearn", "huggingface_hub", "safetensors")
"""What a service does without."""
JSON = {"content-type": "application/json"}
ODD = ["我的卡丢了 chip", None, "\x00\x01", "card pin " * 2000, "card\x00 pin\x01", "iban", " \t "]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the case was run."""
    folder = tmp_path_factory.mktemp("queues")
    pq.write_table(requests(), folder / "requests.parquet")
    (folder / "case.yaml").write_text(CASE.replace("cards: 2,", "cards: 8,"), encoding="utf-8")
    run = pipeline.run(folder / "case.yaml", workspace=folder / "space", until="bundle")
    assert run.bundle is not None
    return folder / "space"


def without(folder: Path, *packages: str) -> dict[str, str]:
    """Return an environment in which these packages are not installed."""
    folder.mkdir()
    for name in packages:
        (folder / f"{name}.py").write_text(f'raise ImportError("No module named {name}")', encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which nothing trains."""
    return without(tmp_path_factory.mktemp("bare") / "packages", *TRAINS)


def test_texts_are_decided_told_and_reviewed_where_nothing_trains(space: Path, bare: dict[str, str]) -> None:
    rows: list[dict[str, Any]] = [{"request": text, "tenure": 3} for text in ODD]
    with serving(space, case="requests", env=bare) as at:
        answer = at.ask("POST", "/v1/decisions", content=json.dumps(rows).encode(), headers=JSON)
        assert answer.status_code == 200, answer.text
        together = answer.json()
        for row, found in zip(rows, together, strict=True):
            alone = at.ask("POST", "/v1/decisions", content=json.dumps(row).encode(), headers=JSON).json()
            assert [alone.get(k) for k in ("action", "promise", "predictive", "notes")] == [
                found.get(k) for k in ("action", "promise", "predictive", "notes")
            ]
        said = [" ".join(found.get("notes", ())) for found in together]
        assert said[0] == said[5] == ""
        assert "nothing but white space" in said[2]
        assert "more tokens than fit" in said[3]
        assert "control characters" in said[4]
        half = at.ask("POST", "/v1/decisions", content=b'{"request": "\\ud83d"}', headers=JSON)
        assert (half.status_code, "not strict JSON" in half.text) == (400, True)
        huge = at.ask("POST", "/v1/decisions", json={"request": "lost card " * 20_000, "tenure": 3})
        assert (huge.status_code, "at most 100,000 characters" in huge.text) == (422, True)
        asked = requests(160).to_pylist()[1::2]  # of transfers alone, which pay less, and of what was never asked
        asked += [row | {"request": "bonjour, quelle heure est-il demain ?"} for row in asked]
        outcomes = [row.pop("queue") for row in asked]
        decided = at.ask("POST", "/v1/decisions", json=asked).json()
        told = [{"decision": d["id"], "outcome": o, "source": "desk"} for d, o in zip(decided, outcomes, strict=True)]
        assert at.ask("POST", "/v1/outcomes", json=told).status_code == 201
        words = command("review", "requests", "--workspace", space, "--json")
        done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", check=False, env={**os.environ, **bare})
        assert done.returncode == 0, done.stderr
        review = json.loads(done.stdout)
        assert review["n"] == len(rows) * 2 + len(asked)
        (drifted,) = [d for d in review["drift"] if (d["column"], d["kind"]) == ("request", "text")]
        assert drifted["distance"] > 0.2, drifted
        assert drifted["stake"]["high"] < -0.5, drifted
        assert "more than chance does" in drifted["detail"]
        assert at.stop() == 0


def test_a_bundle_that_reads_texts_is_not_served_without_tokenizers(space: Path, tmp_path: Path) -> None:
    code, said = refused("serve", "requests", "--port", "0", "--workspace", space, env=without(tmp_path / "packages", "tokenizers"))
    assert code != 0
    assert "pip install 'makegood[text]'" in said
    assert "Traceback" not in said
