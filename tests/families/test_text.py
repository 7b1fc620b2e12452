"""Networks for texts: what they learn, what padding may change, and what is kept of them."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest
import torch
from torch import Generator

from makegood.contracts import Budget, Dataset, Floats, Probabilities, Quantiles, Task, Tokens
from makegood.errors import CaseError
from makegood.families import find
from makegood.families._torch.loop import Recipe
from makegood.families._torch.texts import MOST, Beside, Reader, WordDropout, Words, _groups
from makegood.families.text import Encoder

ASKED = Task("classes", ("bill", "card", "else"))
PAD, VOCABULARY = 0, 60
LENGTH, WINDOWS = 12, 3


@cache
def _texts(n: int = 420, windows: int = WINDOWS, beside: int = 3) -> Dataset:
    """Return rows of up to `windows` windows: ids 1 and 2 begin and end each; one of 10, 11, 12 says which class, often late."""
    rng = np.random.default_rng(0)
    ids = np.zeros((n, windows, LENGTH), np.float32)
    y = rng.integers(0, 3, n)
    for i in range(n):
        used = rng.integers(1, windows + 1)
        for w in range(used):
            length = LENGTH if w < used - 1 else rng.integers(4, LENGTH + 1)
            ids[i, w, :length] = [1, *rng.integers(20, VOCABULARY, length - 2), 2]
        ids[i, used - 1, rng.integers(1, length - 1)] = 10 + y[i]
    others = rng.normal(size=(n, beside)) * [1.0, 100.0, 0.0][:beside] + 5.0
    X = np.concatenate([others[:, :1], ids.reshape(n, -1), others[:, 1:]], 1).astype(np.float32)
    return Dataset(pa.table({"row": np.arange(n)}), X, y, tokens=Tokens(min(1, beside), windows, LENGTH, VOCABULARY, PAD))


def _rows(data: Dataset, start: int, stop: int) -> Dataset:
    return data.take(np.arange(start, stop))


def _small(epochs: int, lr: float = 5e-3) -> type[Encoder]:
    """Return the family, narrow, with a recipe for tests of what does not depend on it."""
    recipe = Recipe(epochs, 32, lr, warm_up=0.2, schedule="one-cycle", clip=1.0)
    return type("Encoder", (Encoder,), {"_recipe": lambda self, n: recipe, "D": 32, "HEADS": 2, "DEPTH": 1})


def _fit(family: Encoder, data: Dataset, train: int, valid: int, seed: int = 0) -> Encoder:
    family.fit(_rows(data, 0, train), _rows(data, train, train + valid), budget=Budget(600.0, time.perf_counter()), seed=seed)
    return family


def _predicted(family: Encoder, data: Dataset) -> Floats:
    found = family.predict(data.without_outcome())
    assert isinstance(found, Probabilities | Quantiles)
    return found.p if isinstance(found, Probabilities) else found.q


@cache
def _learnt() -> Encoder:
    return _fit(_small(14)(ASKED), _texts(), 260, 80)  # refused unless ONNX agrees with torch to 1e-5


# --------------------------------------------------------------------------------------------------------------- learning


def test_it_learns_a_word_wherever_it_stands() -> None:
    test = _rows(_texts(), 340, 420)
    assert (_predicted(_learnt(), test).argmax(axis=1) == test.outcome).mean() > 0.85


def test_a_number_is_read_from_words_and_from_what_stands_beside_them() -> None:
    data = _texts()
    rng = np.random.default_rng(1)
    amount = np.asarray(data.features)[:, -2].astype(np.float64)
    y = 1000.0 + 0.8 * amount + 60.0 * np.asarray(data.outcome) + rng.normal(size=len(data))
    data = Dataset(data.table, data.features, y, tokens=data.tokens)
    q = _predicted(_fit(_small(20)(Task("number")), data, 260, 80), _rows(data, 340, 420))
    truth = y[340:]
    assert (np.diff(q, axis=1) >= 0.0).all()
    assert np.abs(q[:, 5] - truth).mean() < 0.5 * np.abs(truth - np.median(truth)).mean()


def test_equal_seeds_give_equal_bytes_and_others_do_not() -> None:
    data = _rows(_texts(windows=1, beside=0), 0, 96)
    family = _small(1)
    models = [_fit(family(ASKED), data, 64, 32, seed).model_ for seed in (1, 1, 2)]
    assert models[0] == models[1] != models[2]


def test_the_built_in_name_and_its_recipe() -> None:
    (candidate,) = find(["encoder"])
    made = candidate.make(ASKED)
    assert isinstance(made, Encoder)
    few, many = made._recipe(100), made._recipe(50_000)
    assert (few.batch_size, many.batch_size) == (16, 128)
    assert few.epochs > many.epochs >= 6


def test_a_batch_of_long_texts_is_learnt_from_in_parts() -> None:
    family = Encoder(ASKED)
    data = _rows(_texts(), 0, 100)
    plans = []
    for windows, length in ((1, 64), (16, 512)):
        family.tokens_ = np.array([0, windows, length, VOCABULARY, PAD])
        family.low_ = np.zeros(windows * length, np.float32)
        plans.append(family._plan(data).recipe)
    assert [(plan.batch_size, plan.accumulate) for plan in plans] == [(16, 1), (2, 8)]
    lengths = torch.tensor([3, 512, 40] * 100)
    groups = list(_groups(lengths))
    assert all(len(group) * int(lengths[group].max()) <= 2 * MOST for group in groups)
    assert torch.equal(torch.cat(groups).sort().values, torch.arange(300))


def test_rows_without_a_text_are_refused() -> None:
    bare = Dataset(pa.table({"row": range(4)}), np.zeros((4, 3), np.float32), np.arange(4) % 2)
    with pytest.raises(CaseError) as error:
        Encoder(ASKED).fit(bare, bare, budget=Budget(9.0, time.perf_counter()), seed=0)
    assert str(error.value) == (
        "train.families: encoder: got 'rows without a text'; expected a column of texts; name it: data.text: COLUMN"
    )
    assert not hasattr(Encoder(ASKED), "tokens_")


# ---------------------------------------------------------------------------------------------------------------- padding


def _reader(others: int, seed: int = 0) -> Reader:
    torch.manual_seed(seed)
    beside = Beside(torch.zeros(others), torch.ones(others), 16) if others else None
    words = Words(VOCABULARY, 40, d=16, heads=2, depth=2, dropout=0.1)
    return Reader(words, 16, beside, 4, pad=PAD, dropout=0.1).eval()


@pytest.mark.parametrize("others", [0, 2])
def test_padding_changes_no_row(others: int) -> None:
    """A row means the same in a longer window, beside more empty windows, and among longer texts."""
    reader, rng = _reader(others), np.random.default_rng(3)
    rows = torch.zeros(9, 2, others + 10)
    rows[:, :, :others] = torch.from_numpy(rng.normal(size=(9, 1, others))).float()
    for i in range(9):
        rows[i, 0, others : others + 2 + i] = torch.from_numpy(rng.integers(1, VOCABULARY, 2 + i)).float()
        if i % 3 == 0:
            rows[i, 1, others : others + 5] = torch.from_numpy(rng.integers(1, VOCABULARY, 5)).float()
    wide = torch.zeros(9, 4, others + 30)
    wide[:, :, :others] = rows[:, :1, :others]
    wide[:, :2, others : others + 10] = rows[:, :, others:]
    with torch.no_grad():
        together, wider = reader(rows), reader(wide)
        alone = torch.cat([reader(row[None]) for row in rows])
        shuffled = reader(rows.flip(0)).flip(0)
    for other in (wider, alone, shuffled):
        assert torch.allclose(together, other, atol=1e-6)


def test_a_row_without_a_token_has_an_answer_of_its_own() -> None:
    reader = _reader(0)
    with torch.no_grad():
        none = reader(torch.zeros(1, 2, 10))
        beside = reader(torch.cat([torch.zeros(1, 2, 10), torch.ones(1, 2, 10)]))[:1]
    assert torch.isfinite(none).all()
    assert torch.allclose(none, beside, atol=1e-6)


def test_a_graph_has_the_same_bits_alone_and_in_a_batch_at_any_length() -> None:
    family, data = _learnt(), _rows(_texts(), 0, 60)
    X = np.asarray(data.features).copy()
    at = data.tokens
    assert at is not None
    X[0, at.columns] = PAD  # no token at all
    X[1, at.columns] = [1.0, 2.0] + [PAD] * (WINDOWS * LENGTH - 2)
    X[2, at.columns] = np.random.default_rng(0).integers(1, VOCABULARY, WINDOWS * LENGTH)
    X[3], X[4] = 3e38, -3e38
    X[5, at.columns] = 1e9
    scorer = family._scorer()
    whole = scorer(X)
    assert np.isfinite(whole).all()
    assert [scorer(X[i : i + 1]).tobytes() for i in range(60)] == [row.tobytes() for row in whole]


def test_a_short_text_costs_less_than_a_long_one() -> None:
    """The graph computes the tokens that there are, and no padding: seen in the shapes that it is given, not by the clock."""
    family, data = _learnt(), _rows(_texts(), 0, 1)
    scorer = family._scorer()
    model = onnx.load_from_string(scorer.model)
    fed = next(node.output[0] for node in model.graph.node if node.op_type == "Identity")
    model.graph.output.append(onnx.helper.make_tensor_value_info(fed, onnx.TensorProto.FLOAT, None))
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    X = np.asarray(data.features).copy()
    at = data.tokens
    assert at is not None
    shapes = []
    for lengths in ((0, 0, 0), (5, 0, 0), (LENGTH, 7, 0), (LENGTH, LENGTH, LENGTH)):
        ids = np.full((WINDOWS, LENGTH), PAD, np.float32)
        for window, length in enumerate(lengths):
            ids[window, :length] = 30.0
        X[0, at.columns] = ids.ravel()
        shapes.append(session.run([fed], {"features": X})[0].shape)
    assert shapes == [(1, 1, 3 + 2), (1, 1, 3 + 5), (1, 2, 3 + LENGTH), (1, 3, 3 + LENGTH)]


# ------------------------------------------------------------------------------------------------------------------- kept


def test_what_is_saved_predicts_the_same_and_needs_no_torch(tmp_path: Path) -> None:
    family, data = _learnt(), _rows(_texts(), 340, 360)
    family.save(tmp_path / "model")
    again = Encoder.load(tmp_path / "model")
    assert again.tokens == data.tokens
    assert _predicted(again, data).tobytes() == _predicted(family, data).tobytes()
    (tmp_path / "scorer.onnx").write_bytes(family._scorer().model)
    np.save(tmp_path / "rows.npy", data.features)
    script = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = sys.modules['onnx'] = None\n"
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from makegood.scorer import Scorer\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "print(Scorer((folder / 'scorer.onnx').read_bytes(), 1)(np.load(folder / 'rows.npy')).tobytes().hex())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert bytes.fromhex(done.stdout) == _predicted(family, data).tobytes()


def test_words_are_left_out_by_the_generator_alone() -> None:
    drop = WordDropout(2, PAD, 0.5)
    x = torch.arange(1.0, 1 + 3 * 2 * 14).reshape(3, 2, 14)
    first, second, other = (drop(x, Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(first[..., :3], x[..., :3])
    left = first[..., 3:] == PAD
    assert 0.3 < left.float().mean() < 0.7
    assert torch.equal(first[..., 3:][~left], x[..., 3:][~left])
