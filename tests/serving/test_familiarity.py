"""A service whose payoffs ask how familiar a text is: what it decides, tells of its rows, and is told again in a review."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tests.queues import FAMILIAR, requests
from tests.serving.processes import command, serving

from makegood import optimising, pipeline

STRANGE = ["qzx wvk jjq pfl zzt mmq xvb qqd", "bonjour, quelle heure est-il demain ?", None]


def test_a_strange_text_goes_to_a_person_and_reviews_reckon_with_it(tmp_path: Path) -> None:
    pq.write_table(requests(320), tmp_path / "requests.parquet")
    (tmp_path / "case.yaml").write_text(FAMILIAR, encoding="utf-8")
    space = tmp_path / "space"
    assert pipeline.run(tmp_path / "case.yaml", workspace=space, until="bundle").bundle is not None
    asked: list[dict[str, Any]] = requests(160).to_pylist()
    asked += [{"request": text, "tenure": 3.0, "queue": "cards"} for text in STRANGE * 14]
    outcomes = [row.pop("queue") for row in asked]
    with serving(space, case="requests") as at:
        schema = at.ask("GET", "/openapi.json").text
        assert '"familiarity"' not in schema
        assert '"required":["request"]' in schema.replace(" ", "")
        refused = at.ask("POST", "/v1/decisions", json={"tenure": 3, "familiarity": 1})
        assert (refused.status_code, "payoffs or limits are made of it" in refused.text) == (422, True)
        decided = at.ask("POST", "/v1/decisions", json=[row | {"familiarity": 1.0} for row in asked]).json()
        assert {d["action"] for d in decided[160:]} == {"person"}
        assert sum(d["action"] == "person" for d in decided[:160]) < 16
        assert "familiarity: not a column of this model; ignored" in decided[0]["notes"]
        alone = at.ask("POST", "/v1/decisions", json=asked[160]).json()
        assert (alone["action"], alone["promise"]) == (decided[160]["action"], decided[160]["promise"])
        told = [{"decision": d["id"], "outcome": o, "source": "desk"} for d, o in zip(decided, outcomes, strict=True)]
        assert at.ask("POST", "/v1/outcomes", json=told).status_code == 201
        known = at.ask("GET", f"/v1/decisions/{decided[160]['id']}").json()
        assert "-0.5" in json.dumps(known)
        words = command("review", "requests", "--workspace", space, "--json")
        done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
        review = json.loads(done.stdout)
        assert review["n"] == len(asked) + 1
        assert "familiarity" not in {d["column"] for d in review["drift"]}
        assert at.stop() == 0
    tried = optimising.optimise("requests", workspace=space, budget="6s", tolerance=0.5)
    assert "unlike" not in tried.optimised.why
    assert len(tried.optimised.variants) > 1
