"""The whole loop on texts: a request, beside a number, goes to a queue or to a person."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.bundles import bits
from tests.queues import CASE, requests

from makegood import pipeline
from makegood.case import Case
from makegood.data.prepare import raw_columns
from makegood.draft import Answers, draft
from makegood.errors import CaseError
from makegood.model import Model, load
from makegood.monitoring.reference import text_vectors
from makegood.serving.problems import Trouble
from makegood.serving.rows import Reader
from makegood.stages.prepare import prepare_rows


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("requests")
    rows = requests().to_pylist()
    for i in range(0, 40, 4):
        rows[i + 2]["request"] = rows[i]["request"].upper() + "!!"
    rows[5]["request"], rows[7]["request"], rows[9]["request"] = None, "card\x00 pin " * 40, "\x00\x01"
    pq.write_table(pa.Table.from_pylist(rows), folder / "requests.parquet")
    (folder / "case.yaml").write_text(CASE)
    return folder


@pytest.fixture(scope="module")
def model(space: Path) -> Model:
    run = pipeline.run(space / "case.yaml", workspace=space / "runs")
    assert run.bundle is not None
    assert run.value is not None
    assert run.value.value > 0.6  # half is what one queue for all earns; how much more depends on the machine's pace
    said = [f.detail for f in run.findings]
    assert "1 text of 'request' holds nothing but white space." in said
    assert "1 text of 'request' held control characters, now removed." in said
    assert "1 text of 'request' has more tokens than fit into its windows, and was cut there." in said
    assert any(f.kind == "similar" and f.count > 5 for f in run.findings)
    return load(run.bundle)


def test_a_bundle_decides_on_texts_the_same_alone_in_a_batch_and_from_a_file(space: Path, model: Model) -> None:
    table = pq.read_table(space / "requests.parquet")
    rows = table.drop_columns(["queue"]).to_pylist()
    raw = raw_columns(table.select(model.transform.inputs))
    together = model.decide_columns(raw)
    listed = model.decide(json.loads(json.dumps(rows)))
    for i in (0, 5, 7, 9, 11):
        alone = model.decide(rows[i])
        assert bits(alone) == bits(listed[i])
        assert bits(replace(alone, notes=())) == bits(together[i])  # columns are decided without notes by row
    assert model.decide({"request": "\x00" * 9, "tenure": 1}).notes == (
        "request: texts that hold nothing but white space; treated as missing",
    )
    assert model.decide({"request": "🙂" * 200_000, "tenure": 1}).action in ("cards", "transfers")


def test_a_text_is_one_column_among_the_reasons_and_shown_by_its_beginning(model: Model) -> None:
    decided = model.decide({"request": "where is my lost card, the chip is broken and the pin does not work", "tenure": 3})
    assert decided.action == "cards"
    (reason,) = [r for r in decided.reasons if r.column == "request"]
    assert reason.value == "where is my lost card, the chip is broke…"
    assert {r.column for r in decided.reasons} <= {"request", "tenure"}


def test_the_reference_tells_new_texts_from_old_ones(model: Model) -> None:
    assert model.reference is not None
    (profile,) = [c for c in model.reference.columns if c.column == "request"]
    assert profile.kind == "text"
    assert len(profile.center) == text_vectors(["a"]).values.shape[1]


def test_a_service_takes_a_text_of_at_most_100_000_characters(model: Model) -> None:
    reader = Reader(model.case, [model])
    asked = reader.read(json.dumps({"request": "我的卡 \U0001f600", "tenure": 1}).encode())
    assert reader.raw(asked.rows)["request"] == ("我的卡 \U0001f600",)
    assert reader.raw(reader.read(b'{"request": null}').rows)["request"] == (None,)
    for cell in ("x" * 100_001, 5, ["a"]):
        with pytest.raises(Trouble) as caught:
            reader.read(json.dumps({"request": cell}).encode())
        assert caught.value.problems[0].expected == "a text of at most 100,000 characters, or null"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("column: request", "column: tenure", "data.text: 'tenure': got 'numbers'; expected a column of texts"),
        ("column: request", "column: requests", "did you mean 'request'?"),
    ],
)
def test_what_is_wrong_with_a_text_is_said(space: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(CaseError) as caught:
        prepare_rows(Case.parse(CASE.replace(old, new), folder=space))
    assert said in str(caught.value)


def test_a_draft_names_the_text(space: Path, tmp_path: Path) -> None:
    whole = pq.read_table(space / "requests.parquet")
    for columns, line in ((["request", "queue"], "  text: request "), (["request", "tenure", "queue"], "  # text: request ")):
        place = tmp_path / f"{len(columns)}.parquet"
        pq.write_table(whole.select(columns), place)
        written = draft(str(place), Answers("queue"), place.with_suffix(".yaml"), ask=None, say=lambda said: None).read_text()
        assert any(found.startswith(line) for found in written.splitlines())


def test_pretrained_networks_bring_their_tokenizer(space: Path, tmp_path: Path) -> None:
    from makegood.data.texts import train_tokenizer
    from makegood.families.vocabulary import tokenizer_of

    states: dict[str, Any] = {name: train_tokenizer([name * 3, "text"] * 3) for name in ("one", "two")}
    for name, state in states.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(state, encoding="utf-8")
    (tmp_path / "bare").mkdir()
    assert tokenizer_of((), tmp_path) is None
    assert tokenizer_of(("one", "one"), tmp_path) == states["one"]
    with pytest.raises(CaseError, match=r"got 'one and two'; expected networks with the same tokenizer; name one of them"):
        tokenizer_of(("one", "two"), tmp_path)
    with pytest.raises(CaseError, match=r"train.pretrained: bare: got 'no tokenizer.json'; expected a tokenizer.json beside the weights"):
        tokenizer_of(("bare",), tmp_path)
    prepared = prepare_rows(
        Case.parse(CASE.replace("families: [ngrams]", f"families: [ngrams], pretrained: {tmp_path / 'two'}"), folder=space)
    )
    assert prepared.whole.columns[0].tokenizer == states["two"]
