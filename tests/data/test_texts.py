from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer as Library

from makegood.data import texts
from makegood.data.prepare import raw_columns
from makegood.data.texts import MOST, Tokenizer, cleaned, train_tokenizer
from makegood.data.transform import Column, Transform
from makegood.errors import MissingExtra

CORPUS = [
    "Where is my card? It was sent on Monday.",
    "Please send my card to Zürich, not to Köln",
    "我的银行卡在哪里？",
    "أين بطاقتي المصرفية؟",
    "मेरा कार्ड कहाँ है",
    "บัตรของฉันอยู่ที่ไหนและเมื่อไหร่จะมาถึง" * 3,
    "card card card, 😀 thank you",
] * 4
STATE = train_tokenizer(CORPUS)
MADE = Tokenizer(STATE)


# ---------------------------------------------------------------------------------------------------------------- cleaning


@pytest.mark.parametrize(
    ("cell", "text", "done"),
    [
        ("  a b ", "a b", ()),
        ("a\x00\x1fb\x85", "ab", ("control",)),
        ("a\tb\nc", "a\tb\nc", ()),
        ("\ud83d\ude00", "😀", ()),
        ("half \ud83d", "half \ufffd", ("undecodable",)),
        ("x" * (MOST + 1), "x" * MOST, ("huge",)),
        (" \n\u3000", None, ("empty",)),
        ("\x00\x01", None, ("empty",)),
        ("", None, ("empty",)),
        (None, None, ()),
        (float("nan"), None, ()),
        (np.float64("nan"), None, ()),
        ("NA", None, ()),
        (12.0, "12", ()),
        (b"bytes", None, ("wrong",)),
        ({"a": 1}, None, ("wrong",)),
    ],
)
def test_a_cell_becomes_a_text_or_nothing(cell: Any, text: str | None, done: tuple[str, ...]) -> None:
    assert cleaned(cell) == (text, done)


def test_what_is_clean_stays_as_it_is() -> None:
    for cell in [*CORPUS, "half \ufffd", "x" * MOST]:
        once, _ = cleaned(cell)
        assert cleaned(once)[0] == once


# --------------------------------------------------------------------------------------------------------------- tokenizer


def test_the_same_texts_give_the_same_tokenizer_in_any_order_and_process() -> None:
    assert train_tokenizer(CORPUS[::-1]) == STATE
    code = "import sys, json, hashlib; from makegood.data.texts import train_tokenizer as t; "
    code += "print(hashlib.sha256(t(json.loads(sys.stdin.read())).encode()).hexdigest())"
    for seed in ("1", "2"):
        said = subprocess.run(
            [sys.executable, "-c", code], input=json.dumps(CORPUS), env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert said.stdout.strip() == hashlib.sha256(STATE.encode()).hexdigest()


def test_it_is_what_the_library_makes_of_the_same_json() -> None:
    library = Library.from_str(STATE)
    library.no_padding()
    for text in CORPUS[:7]:
        assert library.encode(text).ids == [int(i) for i in MADE.encode([text], 512)[0][0] if i != MADE.pad]


def test_texts_of_many_scripts_have_tokens_of_their_own() -> None:
    unknown = MADE.encode(["\u16a0"], 8)[0][0, 1]
    assert MADE.name(unknown) == "[UNK]"
    for text in CORPUS[:7]:
        assert unknown not in MADE.encode([text], 512)[0]
    assert MADE.tokens("我的 CARD ")[1:-1] == ["我", "的", "card"]
    assert MADE.tokens("ｃａｒｄ")[1:-1] == ["card"]
    assert "zürich" in "".join(MADE.tokens("Zürich")).replace("##", "")


def test_windows_overlap_by_a_quarter_and_what_is_left_is_cut() -> None:
    words = " ".join(["card"] * 3 + ["my"] * 3 + ["is"] * 3 + ["to"] * 3)
    (ids,), (cut,) = MADE.encode([words], 8, 3)
    windows = [[MADE.name(i) for i in window if i != MADE.pad] for window in ids.reshape(3, 8)]
    assert windows[0] == ["[CLS]", "card", "card", "card", "my", "my", "my", "[SEP]"]
    assert windows[1] == ["[CLS]", "my", "my", "is", "is", "is", "to", "[SEP]"]
    assert windows[2] == ["[CLS]", "is", "to", "to", "to", "[SEP]"]
    assert not cut
    (ids,), (cut,) = MADE.encode([words], 8, 2)
    assert cut
    assert len(ids) == 16
    (short,), (cut,) = MADE.encode(["card"], 8, 2)
    assert short[8:].tolist() == [MADE.pad] * 8
    assert not cut


def test_what_a_text_says_of_special_tokens_is_text() -> None:
    assert MADE.tokens("[SEP] [PAD]").count("[SEP]") == 1
    assert MADE.pad not in MADE.encode(["[PAD] card [PAD]"], 512)[0][0, :5]


def test_a_tokenizer_of_others_says_what_stands_around_a_text() -> None:
    state = json.loads(STATE)
    bare = Tokenizer(json.dumps({**state, "post_processor": None}))
    assert (bare.before, bare.after, bare.room) == ((), (), 0)
    assert bare.pad == MADE.pad
    assert Tokenizer(json.dumps({**state, "padding": None})).pad == MADE.pad
    assert (MADE.before, MADE.after) == ((2,), (3,))
    with pytest.raises(ValueError, match="windows of 2 tokens, of which 2 are not the text's"):
        MADE.encode(["a"], 2)


@pytest.mark.parametrize("state", ["", "[]", "{}", '{"model": {"type": "WordPiece"}}', "no json"])
def test_what_is_no_tokenizer_is_refused(state: str) -> None:
    with pytest.raises(ValueError, match=r"tokenizer|Expecting"):
        Tokenizer(state)


def test_a_tokenizer_must_pad() -> None:
    state = json.loads(STATE)
    vocabulary = {("[FILL]" if token == "[PAD]" else token): i for token, i in state["model"]["vocab"].items()}
    bare = {**state, "padding": None, "added_tokens": [], "post_processor": None, "model": {**state["model"], "vocab": vocabulary}}
    with pytest.raises(ValueError, match="without a token to pad with, such as"):
        Tokenizer(json.dumps(bare))


def test_it_can_be_learnt_from_nothing() -> None:
    made = Tokenizer(train_tokenizer([None, "", " "]))
    assert made.vocabulary == 4
    assert made.encode(["anything", None], 8)[0].tolist() == [[2, 1, 3, 0, 0, 0, 0, 0], [2, 3, 0, 0, 0, 0, 0, 0]]


def test_the_vocabulary_is_bounded() -> None:
    letters = "".join(chr(0x4E00 + i) for i in range(6000))
    made = Tokenizer(train_tokenizer([letters, "card " * 9]))
    assert made.vocabulary <= texts.VOCABULARY
    assert "card" in made.tokens("card")


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'makegood\[text\]'"):
        train_tokenizer(["a"])


# ---------------------------------------------------------------------------------------------------------------- features

TEXT = Column("note", "text", tokenizer=STATE, length=16, windows=2)
AGE = Column("age", "number", fill=40.0, center=40.0, scale=10.0, low=0.0, high=120.0)
TRANSFORM = Transform([AGE, TEXT, replace(AGE, name="years")])


def test_the_tokens_are_features_between_others() -> None:
    tokens = TRANSFORM.tokens
    assert tokens is not None
    assert (tokens.first, tokens.windows, tokens.length, tokens.vocabulary, tokens.pad) == (1, 2, 16, MADE.vocabulary, 0)
    assert len(TRANSFORM.features) == 34
    assert TRANSFORM.features[1] == "note[0,0]"
    assert TRANSFORM.features[32] == "note[1,15]"
    assert set(TRANSFORM.origin.values()) == {"age", "note", "years"}
    columns, notes = TRANSFORM.read({"age": [50], "note": ["my card"], "years": [30]})
    features = TRANSFORM.apply(columns)
    assert notes == ()
    assert features.dtype == np.float32
    assert features[0, [0, 33]].tolist() == [1.0, -1.0]
    assert features[0, tokens.columns].astype(int).tolist() == MADE.encode(["my card"], 16, 2)[0][0].tolist()
    assert Transform([AGE]).tokens is None


def test_columns_put_together_by_hand_give_the_same_features() -> None:
    raw = {"age": [50, 1], "note": ["my card", None], "years": [30, 2]}
    columns, _ = TRANSFORM.read(raw)
    unread, _ = TRANSFORM.read(raw, tokens=False)
    assert np.array_equal(TRANSFORM.apply(columns), TRANSFORM.apply(dict(columns)))
    assert np.array_equal(TRANSFORM.apply(columns), TRANSFORM.apply(unread))


def test_it_is_the_same_after_json() -> None:
    again = Transform.from_json(json.loads(json.dumps(TRANSFORM.to_json())))
    assert again.columns == TRANSFORM.columns
    assert again.tokens == TRANSFORM.tokens


def odd(n: int) -> list[Any]:
    rng = np.random.default_rng(3)
    alphabet = [
        "a",
        "card ",
        " ",
        "😀",
        "👩‍👩‍👧",
        "银行",
        "بطاقة ",
        "कार्ड",
        "\x00",
        "\x1b[31m",
        "\u200d",
        "\ufeff",
        "é",
        "e\u0301",
        "ﷺ",
        "?!",
        "\n",
    ]
    made: list[Any] = ["".join(rng.choice(alphabet, rng.integers(0, 40))) for _ in range(n - 6)]
    return [*made, "", " \t", None, "x" * 200_000, "我" * 200_000, "[CLS] [SEP] [PAD]"]


def test_a_text_has_the_same_bits_alone_in_a_batch_from_json_and_from_arrow() -> None:
    cells = odd(2000)
    transform = Transform([TEXT])
    batch = transform.apply(transform.read({"note": cells})[0])
    order = np.random.default_rng(4).permutation(len(cells))
    shuffled = transform.apply(transform.read({"note": [cells[i] for i in order]})[0])
    assert np.array_equal(shuffled, batch[order])
    for i in [*range(0, 2000, 40), *range(1994, 2000)]:
        columns, _ = transform.read({"note": [json.loads(json.dumps(cells[i]))]})
        assert np.array_equal(transform.apply(columns), batch[i : i + 1])
    arrow = transform.apply(transform.read(raw_columns(pa.table({"note": pa.array(cells, pa.string())})))[0])
    assert np.array_equal(arrow, batch)
    assert np.isfinite(batch).all()
    assert batch.max() < MADE.vocabulary


def test_what_was_done_to_texts_is_noted() -> None:
    cells = ["card", "a\x00b", "  ", None, "half \ud83d", "x " * (MOST // 2 + 1), 5, ["no"]]
    _, notes = Transform([TEXT]).read({"note": cells})
    assert [str(note) for note in notes] == [
        "note: texts that held control characters, now removed",
        "note: texts that hold nothing but white space; treated as missing",
        "note: missing, though it never was in training",
        "note: texts that held half a surrogate pair, which became U+FFFD",
        "note: texts that have more than 100,000 characters, and were cut there",
        "note: ['no'] cannot be read; treated as missing",
        "note: texts that have more tokens than fit into their windows, and were cut there",
    ]
    assert not Transform([replace(TEXT, flag=True)]).read({"note": [None]})[1]


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (lambda: replace(TEXT, length=4), "a text in 2 windows of 4 tokens"),
        (lambda: replace(TEXT, windows=17), "a text in 17 windows of 16 tokens"),
        (lambda: replace(TEXT, tokenizer=""), "a text in 2 windows"),
        (lambda: replace(AGE, tokenizer=STATE), "'age' that is no text, and has tokens"),
        (lambda: Transform([TEXT, replace(TEXT, name="other")]), "more than one column of texts"),
        (lambda: Transform([replace(TEXT, tokenizer="{}")]), "a tokenizer that cannot be read"),
    ],
)
def test_a_forged_column_is_refused(column: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        column()
