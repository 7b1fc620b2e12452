"""The whole loop where payoffs ask how familiar a text is: what is unlike all texts learnt from goes to a person."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.bundles import bits
from tests.queues import FAMILIAR, requests

from makegood import pipeline
from makegood.case import Case
from makegood.data.prepare import raw_columns
from makegood.errors import CaseError, DataError
from makegood.model import Model, load
from makegood.stages.prepare import prepare_rows

STRANGE = ["qzx wvk jjq pfl zzt mmq xvb qqd", "bonjour, quelle heure est-il demain ?", "", None, "\x00"]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("requests")
    pq.write_table(requests(320), folder / "requests.parquet")
    (folder / "case.yaml").write_text(FAMILIAR, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def bundle(space: Path) -> Path:
    run = pipeline.run(space / "case.yaml", workspace=space / "runs")
    assert run.bundle is not None
    assert run.value is not None
    assert run.value.value > 1.5  # of the two that a request brings in the right queue: few of those held out were found strange
    return run.bundle


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    return load(bundle)


def test_what_is_unlike_all_texts_goes_to_a_person_alone_and_in_a_batch(space: Path, model: Model) -> None:
    known = pq.read_table(space / "requests.parquet").drop_columns(["queue"]).to_pylist()[:40]
    rows = [*known, *({"request": text, "tenure": 3.0} for text in STRANGE)]
    decided = model.decide(rows)
    assert [d.action for d in decided[40:]] == ["person"] * len(STRANGE)
    assert sum(d.action == "person" for d in decided[:40]) <= 2
    assert decided[-1].promise == pytest.approx(-0.5)
    for i in (0, 3, *range(40, len(rows))):
        assert bits(model.decide(rows[i])) == bits(decided[i])
    together = model.decide_columns(raw_columns(pa.Table.from_pylist(rows)))
    assert [bits(replace(d, notes=())) for d in decided] == [bits(d) for d in together]


def test_who_sends_a_familiarity_is_not_believed(model: Model) -> None:
    told = model.decide({"request": STRANGE[0], "tenure": 3, "familiarity": 1.0})
    assert told.action == "person"
    assert told.notes == ("familiarity: not a column of this model; ignored",)
    with pytest.raises(DataError, match="no column request"):
        model.decide({"tenure": 3, "familiarity": 1.0})


def test_reasons_count_what_a_strange_text_costs_to_the_text(model: Model) -> None:
    (reason,) = [r for r in model.decide({"request": STRANGE[0], "tenure": 3}).reasons if r.column == "request"]
    assert reason.money > 5  # a person rather than −9
    explained = model.explain({"request": [STRANGE[1]], "tenure": [3.0]})
    assert set(explained.columns) == {"request", "tenure"}
    assert explained.money.sum() == pytest.approx(explained.margin - explained.background)
    assert {name for name, _ in model.drivers({"request": ["my card", *STRANGE[:2]], "tenure": [1.0, 2.0, 3.0]})} == {"request", "tenure"}


def test_what_was_paid_is_told_from_the_text(model: Model) -> None:
    actions = [option.name for option in model.policy.payoffs.options]
    paid = model.realised({"request": [STRANGE[0]]}, ["cards"])[0]
    assert dict(zip(actions, paid.tolist(), strict=True)) == {"cards": -9.0, "transfers": -9.0, "person": -0.5}
    assert model.needed == {"request"}
    assert model.reference is not None
    assert "familiarity" not in {c.column for c in model.reference.columns}


def test_a_bundle_decides_the_same_where_no_torch_is(bundle: Path, model: Model, tmp_path: Path) -> None:
    for name in ("torch", "lightgbm", "duckdb", "pyarrow", "sklearn", "onnx"):
        (tmp_path / f"{name}.py").write_text(f'raise ImportError("No module named {name}")', encoding="utf-8")
    rows = json.dumps([{"request": text, "tenure": 3.0} for text in (*STRANGE, "please help me with my card, the pin is lost")])
    code = "import json, sys, makegood as mg; m = mg.load(sys.argv[1])\nfor d in m.decide(json.loads(sys.argv[2])): print(d.action, d.promise.hex())"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])}
    done = subprocess.run([sys.executable, "-c", code, str(bundle), rows], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{d.action} {d.promise.hex()}" for d in model.decide(json.loads(rows))]


def test_texts_that_are_only_in_the_test_leave_no_trace(space: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = requests(420).to_pylist()
    for i, row in enumerate(rows):
        row["part"] = "test" if i >= 320 else "train"
    strange = [{"request": f"xylophon {rng.integers(10**9)} quark", "tenure": 1.0, "queue": "cards", "part": "test"} for _ in range(40)]
    states = []
    for i, extra in enumerate(([], strange)):
        place = tmp_path / f"{i}.parquet"
        pq.write_table(pa.Table.from_pylist(rows + extra), place)
        text = FAMILIAR.replace("requests.parquet, outcome: queue", f"{place.name}, outcome: queue, holdout: part")
        prepared = prepare_rows(Case.parse(text, folder=tmp_path))
        made = prepared.transform(prepared.splits.folds[0].train)
        assert len(prepared.splits.folds[0].test) == 100 + len(extra)
        states.append(json.dumps(made.to_json()))
        if extra:
            read, _ = made.read(raw_columns(prepared.table.slice(420)))
            assert (made.named(read, ["familiarity"])["familiarity"] < 0.02).all()
    assert states[0] == states[1]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (", text: {column: request, tokens: 24}", "", "decision: familiarity: got 'no data.text'; expected how like the texts"),
        ("familiarity < 0.02", "familiarty < 0.02", "did you mean 'familiarity'?"),
        ("familiarity < 0.02", "contains(familiarity, 2)", "contains"),
        ("outcome: queue", "outcome: familiarity", "payoffs call what turns out `outcome`"),
    ],
)
def test_what_is_wrong_is_said(space: Path, tmp_path: Path, old: str, new: str, said: str) -> None:
    table = pq.read_table(space / "requests.parquet")
    names = ["familiarity" if new == "outcome: familiarity" and name == "queue" else name for name in table.column_names]
    pq.write_table(table.rename_columns(names), tmp_path / "requests.parquet")
    with pytest.raises(CaseError) as caught:
        prepare_rows(Case.parse(FAMILIAR.replace(old, new), folder=tmp_path))
    assert said in str(caught.value)


def test_a_column_of_that_name_is_refused_where_payoffs_name_it_and_few_texts_are(space: Path, tmp_path: Path) -> None:
    table = pq.read_table(space / "requests.parquet")
    pq.write_table(table.append_column("familiarity", table["tenure"]), tmp_path / "requests.parquet")
    with pytest.raises(CaseError, match=r"got \"a column 'familiarity' in the data\"; expected how like .*; rename the column"):
        prepare_rows(Case.parse(FAMILIAR, folder=tmp_path))
    pq.write_table(table.slice(0, 150), tmp_path / "requests.parquet")
    with pytest.raises(CaseError, match="got '150 texts to learn from'; expected at least 200"):
        prepare_rows(Case.parse(FAMILIAR, folder=tmp_path))


def test_a_limit_may_cost_by_familiarity(space: Path) -> None:
    text = FAMILIAR.replace("where(familiarity < 0.02, -9, 2)", "2").replace("where(familiarity < 0.02, -9, -1)", "-1")
    text = text.replace("train:", "  limits: {cards: {cost: 1 - familiarity, max_budget: 200, per: 1000}}\ntrain:")
    prepared = prepare_rows(Case.parse(text, folder=space))
    assert prepared.policy.names == {"familiarity"}
    assert prepared.whole.columns[0].familiar
