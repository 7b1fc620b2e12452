"""What n-grams learn, and that their graph computes what they do, bit for bit."""

from __future__ import annotations

import time

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pytest

from makegood.contracts import Budget, Dataset, Floats, Probabilities, Quantiles, Task, Tokens
from makegood.data.texts import Tokenizer, train_tokenizer
from makegood.errors import CaseError
from makegood.families import ngrams
from makegood.families.ngrams import BUCKETS, Buckets, NGrams, hashed
from makegood.families.onnx import Graph, edge_rows, merge, thresholds
from makegood.families.other_columns import OtherColumns
from makegood.families.tabular import LightGBM

TOPICS = Task("classes", ("card", "loan", "other"))
SAID = {
    "card": ("my card is lost", "where is the card", "the card was stolen today", "block my card please"),
    "loan": ("i want a loan", "is the loan paid back", "what does a loan cost", "raise my loan please"),
    "other": ("hello there", "what is this", "thank you so much", "is anyone here today"),
}


def _rows(task: Task, n: int = 240, seed: int = 0, beside: int = 2, length: int = 16) -> Dataset:
    """Return real sentences, put together from real words, and what they are about; the number grows by ten with each topic."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 3, n)
    texts = [" ".join(rng.choice(SAID[TOPICS.classes[code]], 2)) for code in codes]
    tokenizer = Tokenizer(train_tokenizer(text for topic in SAID.values() for text in topic))
    ids, _ = tokenizer.encode(texts, length)
    others = rng.normal(size=(n, beside))
    X = np.column_stack([others[:, :1], ids, others[:, 1:]]).astype(np.float32)
    outcome = codes if task.kind == "classes" else 10.0 * codes + 3.0 * others[:, 0] + rng.normal(size=n)
    tokens = Tokens(min(1, beside), 1, length, tokenizer.vocabulary, tokenizer.pad)
    return Dataset(pa.table({"row": np.arange(n)}), X, outcome, tokens=tokens)


def _fit(task: Task, data: Dataset, seconds: float = 60.0) -> NGrams:
    cut = len(data) * 3 // 4
    train, valid = data.take(np.arange(cut)), data.take(np.arange(cut, len(data)))
    return NGrams(task).fit(train, valid, budget=Budget(seconds, time.perf_counter()), seed=0)


def test_topics_are_told_apart() -> None:
    found = _fit(TOPICS, _rows(TOPICS)).predict((new := _rows(TOPICS, seed=1)).without_outcome())
    assert isinstance(found, Probabilities)
    assert (found.p.argmax(axis=1) == new.outcome).mean() > 0.97


def test_a_number_is_read_off_the_text_and_the_columns_beside_it() -> None:
    task = Task("number")
    found = _fit(task, _rows(task)).predict((new := _rows(task, seed=1)).without_outcome())
    assert isinstance(found, Quantiles)
    middle = found.q[:, task.levels.index(0.5)]
    assert np.std(np.asarray(new.outcome) - middle) < 2.0  # 8.7 without the text, 3.2 without the columns
    inside = (found.q[:, 0] <= new.outcome) & (np.asarray(new.outcome) <= found.q[:, -1])
    assert 0.8 < inside.mean() < 0.98


def test_the_graph_has_the_bits_of_numpy_before_softmax() -> None:
    data = _rows(TOPICS)
    model = _fit(TOPICS, data)
    graph = Graph()
    model.write(graph)
    z = next(node.input[0] for node in graph.nodes if node.op_type == "Cast" and node.output[0] == graph.nodes[-2].input[0])
    graph.nodes = [*graph.nodes[: next(i for i, n in enumerate(graph.nodes) if n.output[0] == z) + 1]]
    graph.op("Identity", z)
    graph.nodes[-1].output[0] = "raw"
    scorer = graph.scorer(_features(data).shape[1], 3, rows=64)
    odd = _features(data)[:6].copy()
    odd[0], odd[1], odd[2, 1:17], odd[3, 1:17] = 3e38, -3e38, 5.5, 0.0
    for rows in (_features(data), odd):
        assert scorer(rows).tolist() == model._scores(rows).tolist()


def _features(data: Dataset) -> Floats:
    assert data.features is not None
    return data.features


@pytest.mark.parametrize("windows", [1, 3])
@pytest.mark.parametrize("beside", [0, 2])
def test_a_row_alone_has_the_bits_of_a_batch(windows: int, beside: int) -> None:
    data = _rows(TOPICS, beside=beside, length=15)
    assert data.tokens is not None
    at = data.tokens
    data = Dataset(data.table, data.features, data.outcome, tokens=Tokens(at.first, windows, 15 // windows, at.vocabulary, at.pad))
    model = _fit(TOPICS, data)
    scorer = merge([(model, 1.0)], _features(data).shape[1], 3)
    rows = np.concatenate([_features(data)[:40], edge_rows(scorer, _features(data), 0)[0]])
    together, alone = scorer(rows), np.concatenate([scorer(row[None]) for row in rows])
    assert together.tolist() == alone.tolist()
    native = model.predict(Dataset(pa.table({"row": np.arange(len(rows))}), rows))
    assert isinstance(native, Probabilities)
    assert np.abs(together - native.p).max() < 1e-6  # softmax is float32 in a graph
    assert np.isfinite(together).all()


def test_n_grams_stay_within_a_window_and_padding_makes_none() -> None:
    ids = np.array([[5, 7, 0, 7, 5, 0]], np.float32)
    one, two = hashed(ids, Tokens(0, 1, 6, 9, 0))[0], hashed(ids, Tokens(0, 2, 3, 9, 0))[0]
    assert sorted(one[one < BUCKETS][:4].tolist()) == sorted(two[two < BUCKETS][:4].tolist())  # the same words
    assert (one < BUCKETS).tolist() == [True, True, False, True, True, False, True, False, False, True, False]
    assert (two < BUCKETS).tolist() == [True, True, False, True, True, False, True, False, True, False]
    assert two[6] != two[8]  # "5 7" is not "7 5"


def test_what_is_new_or_rare_counts_for_nothing() -> None:
    X = np.array([[5, 6], [5, 7], [5, 8]], np.float32)
    buckets = Buckets.of(X, Tokens(0, 1, 2, 9, 0), 100)
    assert buckets.counts(X).sum(axis=1).tolist() == [1.0, 1.0, 1.0]  # 5 alone is in two rows
    assert buckets.weight[1] == pytest.approx(1.0, abs=1e-4)
    assert not buckets.counts(np.array([[8, 8]], np.float32)).nnz
    assert Buckets.of(np.tile(X, (2, 1)), Tokens(0, 1, 2, 9, 0), 3).square.shape == (4,)  # the most frequent ones


def test_the_table_of_a_graph_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngrams, "_WEIGHTS", 30)
    model = _fit(TOPICS, _rows(TOPICS))
    assert model.table_.shape == (11, 3)


def test_rows_without_a_text_are_refused() -> None:
    data = _rows(TOPICS)
    with pytest.raises(CaseError, match=r"train\.families: ngrams: got 'rows without a text'; expected a column of texts"):
        _fit(TOPICS, Dataset(data.table, data.features, data.outcome))


def test_equal_rows_and_seed_give_the_same_bytes() -> None:
    models = [_fit(TOPICS, _rows(TOPICS)) for _ in range(2)]
    graphs = [merge([(model, 1.0)], 18, 3).model for model in models]
    assert graphs[0] == graphs[1]


def test_a_decision_takes_less_than_two_milliseconds() -> None:
    data = _rows(TOPICS, length=64)
    scorer = merge([(_fit(TOPICS, data), 1.0)], _features(data).shape[1], 3)
    took = []
    for row in _features(data)[:100]:
        start = time.process_time()
        scorer(row[None])
        took.append(time.process_time() - start)
    assert np.median(took) < 0.002


def test_trees_beside_texts_are_tried_at_their_own_thresholds() -> None:
    data = _rows(TOPICS)
    data.features[:, -1] = data.outcome  # type: ignore[index,call-overload]
    cut = 180
    model = OtherColumns(TOPICS, LightGBM(TOPICS))
    model.fit(data.take(np.arange(cut)), data.take(np.arange(cut, 240)), budget=Budget(10.0, time.perf_counter()), seed=0)
    where, _ = thresholds(merge([(model, 1.0)], 18, 3).model)
    assert set(where.tolist()) <= {0, 17}
    assert 17 in where


def test_the_runtime_takes_the_graph_as_it_is() -> None:
    data = _rows(TOPICS)
    session = ort.InferenceSession(merge([(_fit(TOPICS, data), 1.0)], 18, 3).model)
    assert session.run(None, {"features": np.empty((0, 18), np.float32)})[0].shape == (0, 3)
