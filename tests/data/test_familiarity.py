from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from makegood.case import Data, Texts
from makegood.contracts import Floats, Ints
from makegood.data import familiarity, prepare, sources
from makegood.data.familiarity import Familiarity
from makegood.data.profile import profile
from makegood.data.texts import Tokenizer, train_tokenizer
from makegood.data.transform import Column, Transform
from makegood.errors import CaseError

LETTERS = list("abcdefghijklmnopqrstuvwxyz")
WORDS = ["".join(word) for word in np.random.default_rng(9).choice(LETTERS, (300, 5))]


def written(n: int, rng: np.random.Generator, topic: int = 0) -> list[str]:
    """Return n texts, half of them short, whose words follow each other as they like: a topic has a third of them to itself."""
    own, out = WORDS[100 * topic : 100 * (topic + 1)], []
    for i in range(n):
        words, at = [], int(rng.integers(100))
        for _ in range(rng.integers(5, 12) if i % 2 else rng.integers(40, 70)):
            at = (7 * at + int(rng.integers(4))) % 100  # four words may come next
            words.append(own[at] if rng.random() < 0.4 else WORDS[200 + at])
        out.append(" ".join(words))
    return out


def gibberish(n: int, rng: np.random.Generator) -> list[str]:
    """Return n texts of random letters."""
    return [" ".join("".join(rng.choice(LETTERS, rng.integers(2, 9))) for _ in range(rng.integers(12, 60))) for _ in range(n)]


def shuffled(texts: list[str], rng: np.random.Generator) -> list[str]:
    return [" ".join(rng.permutation(text.split())) for text in texts]


def fitted(texts: list[str | None], scale: list[Any] | None = None, tokens: int = 96) -> Transform:
    """Return the transform of a table of texts whose familiarity payoffs ask for."""
    columns = {"essay": texts, "y": [i % 2 for i in range(len(texts))]} | ({} if scale is None else {"prompt": scale})
    table = sources.read(pa.table(columns)).table
    data = Data(outcome="y", text=Texts(column="essay"), scale=None if scale is None else "prompt", categories=("prompt",) if scale else ())
    wording = prepare.Wording(tokens=tokens, familiar=True, scale=data.scale)
    return prepare.fit(table, profile(table, data), {"y"}, extra=() if scale is None else ("prompt",), wording=wording)


def told(made: Transform, texts: list[Any], scale: list[Any] | None = None) -> Floats:
    raw: dict[str, Any] = {"essay": texts} | ({} if scale is None else {"prompt": scale})
    return made.named(made.read(raw)[0], ["familiarity"])["familiarity"]


@pytest.fixture(scope="module")
def leveled() -> Transform:
    rng = np.random.default_rng(1)
    parts = [written(500, rng, topic) for topic in (0, 1)]
    order = rng.permutation(1000)
    texts, scale = [*parts[0], *parts[1]], ["one"] * 500 + ["two"] * 500
    return fitted([texts[i] for i in order], [scale[i] for i in order])


# --------------------------------------------------------------------------------------------------------------- guarantee


def _ids(n: int, rng: np.random.Generator, tokenizer: Tokenizer) -> tuple[Ints, list[str | None]]:
    """Return ids (n, 40) of texts drawn alike, short and long ones, with levels of which one is rare."""
    out = np.full((n, 40), tokenizer.pad)
    level = rng.choice(["a", "b", "rare"], n, p=[0.6, 0.394, 0.006])
    for i in range(n):
        length = int(rng.integers(4, 8) if rng.random() < 0.5 else rng.integers(25, 40))
        out[i, :length] = 5 + (rng.zipf(1.5, length) + 3 * (level[i] == "b")) % (tokenizer.vocabulary - 5)
    return out, level.tolist()


@pytest.mark.parametrize("leveled", [False, True])
def test_few_texts_of_the_same_source_are_found_strange(leveled: bool) -> None:
    rng, tokenizer = np.random.default_rng(2), Tokenizer(train_tokenizer(WORDS))
    runs = []
    for _ in range(40):
        ids, levels = _ids(1800, rng, tokenizer)
        held = familiarity.aside([True] * 1300, leveled)
        made = familiarity.learn(ids[:1300], held, levels[:1300] if leveled else None, tokenizer, "level" if leveled else "")
        assert made.levels == (("a", "b") if leveled else ())
        found = made.apply(ids[1300:], levels[1300:])
        runs.append([(found <= a).mean() for a in (0.01, 0.05, 0.2)])
    share, error = np.mean(runs, axis=0), np.std(runs, axis=0, ddof=1) / np.sqrt(len(runs))
    for found_strange, bound, sure in zip(share, (0.01, 0.05, 0.2), error, strict=True):
        assert bound / 3 < found_strange <= bound + 3 * sure  # twice the lesser of two is careful, but not without power


def test_lengths_are_compared_with_their_like() -> None:
    rng, tokenizer = np.random.default_rng(3), Tokenizer(train_tokenizer(WORDS))
    ids, _ = _ids(4000, rng, tokenizer)
    made = familiarity.learn(ids[:3000], familiarity.aside([True] * 3000), None, tokenizer)
    assert len(made.held[0]) == 2
    assert made.n == 600
    found, length = made.apply(ids[3000:]), (ids[3000:] != tokenizer.pad).sum(axis=1)
    for part in (found[length < 10], found[length > 20]):
        assert (part <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 * (1 / len(part) + 1 / 300))


def test_gibberish_shuffled_words_and_another_topic_are_strange(leveled: Transform) -> None:
    rng = np.random.default_rng(4)
    same = written(200, rng)
    assert (told(leveled, same, ["one"] * 200) <= 0.05).mean() < 0.12
    assert (told(leveled, same, ["two"] * 200) <= 0.05).mean() > 0.9
    assert (told(leveled, gibberish(100, rng), ["one"] * 100) <= 0.01).all()
    assert (told(leveled, shuffled(same, rng), ["one"] * 200) <= 0.05).mean() > 0.7
    assert (told(leveled, same, ["never seen"] * 200) <= 0.05).mean() < 0.12  # compared with all texts


@pytest.mark.data
def test_real_essays_are_strange_under_another_prompt(shared: Callable[[str], Path]) -> None:
    table = sources.read(shared("assessment/asap_prompts_1_4.tsv.gz")).table
    rng = np.random.default_rng(0)
    prompt = np.array(table["prompt"].to_pylist())
    rows = rng.permutation(np.concatenate([rng.permutation(np.flatnonzero(prompt == p))[:200] for p in np.unique(prompt)]))
    essays, scale = np.array(table["essay"].to_pylist(), dtype=object)[rows].tolist(), [str(p) for p in prompt[rows]]
    made = fitted(essays[:640], scale[:640], tokens=512)
    new, of = essays[640:], scale[640:]
    shares = {
        "as they are": (told(made, new, of) <= 0.05).mean(),
        "another prompt": (told(made, new, [{"1": "3", "2": "4", "3": "1", "4": "2"}[p] for p in of]) <= 0.05).mean(),
        "random letters": (told(made, gibberish(100, rng), ["1"] * 100) <= 0.05).mean(),
        "shuffled words": (told(made, shuffled(new, rng), of) <= 0.05).mean(),
    }
    assert shares["as they are"] <= 0.05 + 3 * np.sqrt(0.05 * 0.95 * (1 / 160 + 1 / 320))
    assert shares["another prompt"] > 0.9
    assert shares["random letters"] > 0.95
    assert shares["shuffled words"] > 0.5


# -------------------------------------------------------------------------------------------------------------------- rows


def test_a_text_is_as_familiar_alone_as_among_others(leveled: Transform) -> None:
    rng = np.random.default_rng(5)
    texts = [*written(30, rng), *gibberish(5, rng), None, "", "\x00", "one", *written(3, rng, 1)]
    scale = (["one", "two", None, "no such"] * 20)[: len(texts)]
    together = told(leveled, texts, scale)
    assert ((together > 0) & (together <= 1)).all()
    assert [told(leveled, [text], [level])[0] for text, level in zip(texts, scale, strict=True)] == together.tolist()
    columns = leveled.read({"essay": texts, "prompt": scale}, tokens=False)[0]
    assert leveled.named(columns, ["familiarity"])["familiarity"].tolist() == together.tolist()
    by_hand = {name: columns[name] for name in columns}
    assert leveled.named(by_hand, {"familiarity", "prompt"})["familiarity"].tolist() == together.tolist()
    only = leveled.only(["familiarity"])
    assert set(only.inputs) == leveled.needs(["familiarity"]) == {"essay", "prompt"}
    assert only.named(only.read({"essay": texts, "prompt": scale})[0], ["familiarity"])["familiarity"].tolist() == together.tolist()


def test_an_empty_or_missing_text_is_as_strange_as_can_be(leveled: Transform) -> None:
    texts = [None, "", " \t", float("nan"), ["no text"]]
    assert told(leveled, texts, ["one"] * 5).tolist() == [1 / 401] * 5
    assert told(leveled, written(1, np.random.default_rng(6)), ["one"])[0] > 0.05


def test_a_scale_of_numbers_and_rows_without_texts() -> None:
    rng = np.random.default_rng(7)
    texts: list[str | None] = [text for pair in zip(written(220, rng), written(220, rng, 1), strict=True) for text in pair]
    scale = [1.0, 2.0] * 220
    made = fitted([*texts, None, None], [*scale, 1.0, None])
    same = written(100, rng)
    assert (told(made, same, [2] * 100) <= 0.05).mean() > 0.8
    assert (told(made, same, [1.0] * 100) <= 0.05).mean() < 0.15


def test_nothing_is_kept_where_nobody_asks(leveled: Transform) -> None:
    table = sources.read(pa.table({"essay": written(80, np.random.default_rng(8)), "y": [0, 1] * 40})).table
    made = prepare.fit(table, profile(table, Data(outcome="y", text=Texts(column="essay"))), {"y"}, wording=prepare.Wording())
    assert made.columns[0].familiar == ""
    assert made.needs(["familiarity"]) == {"familiarity"}
    with pytest.raises(KeyError):
        made.named(made.read({"essay": ["a"]})[0], ["familiarity"])


def test_too_few_texts_are_told() -> None:
    texts: list[str | None] = list(written(199, np.random.default_rng(0)))
    with pytest.raises(CaseError) as caught:
        fitted([*texts, None])
    said = "decision: familiarity: got '199 texts to learn from'; expected at least 200: some are held aside, to compare with; "
    assert said + "give more texts, or leave familiarity out of payoffs and limits" in str(caught.value)
    with pytest.raises(CaseError, match="expected at least 400"):
        fitted([*texts, *texts], ["1", "2"] * 199)


def test_a_column_of_texts_that_is_left_out_is_told() -> None:
    table = sources.read(pa.table({"essay": written(80, np.random.default_rng(8)), "x": range(80), "y": [0, 1] * 40})).table
    seen = profile(table, Data(outcome="y", text=Texts(column="essay"), keep=("x",)))
    with pytest.raises(CaseError, match=r"decision: familiarity: got 'data\.text left out, see the findings'"):
        prepare.fit(table, seen, {"y", "essay"}, wording=prepare.Wording(familiar=True))


# ------------------------------------------------------------------------------------------------------------------- state


def _text(made: Transform) -> Column:
    (column,) = [c for c in made.columns if c.reads == "text"]
    return column


def test_state_comes_back_and_is_the_same_for_the_same_rows(leveled: Transform) -> None:
    texts = written(40, np.random.default_rng(10))
    again = Transform.from_json(json.loads(json.dumps(leveled.to_json())))
    assert again.to_json() == leveled.to_json()
    assert told(again, texts, ["one"] * 40).tolist() == told(leveled, texts, ["one"] * 40).tolist()
    rows = list(written(250, np.random.default_rng(11)))
    assert _text(fitted([*rows])).familiar == _text(fitted([*rows])).familiar
    assert len(_text(leveled).familiar) < 1 << 20


def _packed(numbers: Any, kind: str) -> str:
    return base64.b64encode(zlib.compress(np.array(numbers, dtype=kind).tobytes())).decode()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"levels": None}, "cannot be read"),
        ({"counts": 3}, "cannot be read"),
        ({"counts": "?"}, "base64|padding|Only"),
        ({"counts": base64.b64encode(b"no zlib").decode()}, "cannot be read"),
        ({"counts": _packed(np.zeros(1 << 22), "<u4")}, "an array of other than"),
        ({"pairs": _packed([1, 2], "<u4")}, "an array of other than 65536 numbers"),
        ({"levels": [str(i) for i in range(65)]}, "too many levels"),
        ({"levels": ["one", "one"]}, "do not fit together"),
        ({"scale": ""}, "do not fit together"),
        ({"scale": "elsewhere"}, "by the column 'elsewhere', which is not read"),
        ({"edges": [9, 3]}, "do not fit together"),
        ({"edges": [9]}, "do not fit together"),
        ({"edges": [[1], [2, 3]]}, "inhomogeneous"),
        ({"sizes": [30_000]}, "too many levels or texts"),
        ({"sizes": [-1]}, "too many levels or texts"),
        ({"sizes": [2, 2], "held": _packed([1, np.nan, 1, 2], "<f8")}, "do not fit together"),
        ({"sizes": [2, 2], "held": _packed([2, 1, 1, 2], "<f8")}, "do not fit together"),
    ],
)
def test_state_that_does_not_fit_is_refused(leveled: Transform, changes: dict[str, Any], said: str) -> None:
    state = leveled.to_json()
    (column,) = [c for c in state["columns"] if c["reads"] == "text"]
    column["familiar"] = json.dumps(json.loads(column["familiar"]) | changes)
    with pytest.raises(ValueError, match=said):
        Transform.from_json(state)


def test_state_of_no_json_and_of_no_text_is_refused(leveled: Transform) -> None:
    for state in ("[]", "{", "3"):
        with pytest.raises(ValueError):  # noqa: PT011
            Familiarity.from_state(state, pad=0, room=2, vocabulary=10)
    with pytest.raises(ValueError, match="no text, and has tokens"):
        Column("x", "number", familiar="{}")


def test_no_rows_are_no_texts(leveled: Transform) -> None:
    read, _ = leveled.read({"essay": [], "prompt": []})
    assert leveled.named(read, ["familiarity"])["familiarity"].shape == (0,)
