"""What is counted of a text stands beside its tokens, in training and in a served row alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st
from tests.queues import CASE, requests

from makegood import pipeline
from makegood.data.measures import NAMES, measured
from makegood.model import load


def test_measures_of_a_text_are_what_can_be_counted() -> None:
    text = 'The old man, she said, was "Old". He slept!'
    found = dict(zip(NAMES, measured([text])[0].tolist(), strict=True))
    counts = {"characters": 43, "words": 9, "distinct words": 8, "sentences": 2, "commas": 2, "other marks": 4, "capitals": 3}
    assert {name: round(float(np.expm1(found[name]))) for name in counts} == counts
    assert found["share of distinct words"] == np.float32(8 / 9)
    assert found["mean length of a word"] == np.float32(29 / 9)
    assert found["share of long words"] == 0.0
    assert round(float(np.expm1(found["words of a sentence"])), 3) == 4.5


def test_a_text_that_is_not_there_measures_nothing() -> None:
    assert measured([None, ""]).tolist() == [[0.0] * len(NAMES)] * 2
    assert measured([]).shape == (0, len(NAMES))


@given(st.lists(st.none() | st.text(max_size=200), min_size=1, max_size=6))
def test_any_text_has_finite_measures_and_the_same_ones_alone(texts: list[str | None]) -> None:
    found = measured(texts)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert np.concatenate([measured([text]) for text in texts]).tobytes() == found.tobytes()


def test_measures_are_learnt_from_and_served(tmp_path: Path) -> None:
    pq.write_table(requests(), tmp_path / "requests.parquet")
    case = CASE.replace("tokens: 24", "tokens: 24, measures: yes").replace("[ngrams]", "[ngrams, lightgbm]")
    (tmp_path / "case.yaml").write_text(case, encoding="utf-8")
    run = pipeline.run(tmp_path / "case.yaml", workspace=tmp_path / "space")
    assert run.bundle is not None
    model = load(run.bundle)
    names = [f"request: {name}" for name in NAMES]
    assert set(names) <= set(model.transform.features)
    assert {model.transform.origin[name] for name in names} == {"request"}
    assert model.transform.tokens is not None
    rows = [{"request": text, "tenure": 3} for text in ("card pin", "please, where is my transfer?", None)]
    assert [d.promise for d in model.decide(rows)] == [model.decide(row).promise for row in rows]
    columns, _ = model.transform.read({"request": ["card pin"], "tenure": [3.0]})
    features = dict(zip(model.transform.features, model.transform.apply(columns)[0], strict=True))
    assert [features[name] for name in names] == measured(["card pin"])[0].tolist()
