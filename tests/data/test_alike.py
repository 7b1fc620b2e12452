from __future__ import annotations

import numpy as np

from makegood.data.alike import ALIKE, Alike

WORDS = "account bank card transfer money please help when where lost abroad limit change address pin app fee rate cash top up".split()


def sentences(n: int, rng: np.random.Generator, words: int = 18) -> list[str]:
    return [" ".join(rng.choice(WORDS, words)) for _ in range(n)]


def similarity(a: str, b: str) -> float:
    one, other = ({text[i : i + 5] for i in range(len(text) - 4)} for text in (a, b))
    return len(one & other) / len(one | other)


def test_planted_near_duplicates_are_found_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    test = sentences(500, rng)
    near = [text.replace(" ", "  ", 3).upper() + ("!" if i % 2 else "") for i, text in enumerate(test[:100])]
    train = [*near, *sentences(1500, rng), *test[100:120]]
    found = Alike([*train, *test]).among(np.arange(len(train)), np.arange(len(train), len(train) + len(test)))
    assert found[:100].all()
    assert found[1600:].all()
    for i in np.flatnonzero(found[100:1600]) + 100:
        assert max(similarity(train[i], text) for text in test) >= ALIKE


def test_it_agrees_with_every_pair_compared() -> None:
    rng = np.random.default_rng(1)
    base = sentences(40, rng, 30)
    some = []
    for text in base:
        for changes in range(4):
            words = text.split()
            for at in rng.integers(0, len(words), changes):
                words[at] = "changed"
            some.append(" ".join(words))
    rows, others = np.arange(0, 160, 2), np.arange(1, 160, 2)
    found = Alike(some).among(rows, others)
    every = [any(similarity(some[i], some[j]) >= ALIKE for j in others) for i in rows]
    assert found.tolist() == every
    assert 0 < sum(every) < len(every)


def test_short_equal_and_missing_texts() -> None:
    alike = Alike(["ok", " OK ", "no", None, "", None, "ｏｋ"])
    assert alike.among(np.array([1, 2, 3, 4, 6]), np.array([0, 5])).tolist() == [True, False, False, False, True]
    assert Alike([None, None]).among(np.array([0]), np.array([1])).tolist() == [False]
    assert Alike(["a"]).among(np.array([], dtype=np.int64), np.array([0])).tolist() == []


def test_texts_that_share_a_form_are_kept_apart_in_little_time() -> None:
    rng = np.random.default_rng(2)
    some = [f"your parcel {a} will be with you on day {b}, thank you" for a, b in rng.integers(0, 10**9, (1200, 2))]
    assert not Alike(some).among(np.arange(1000), np.arange(1000, 1200)).any()


def test_many_copies_of_one_text_take_no_time() -> None:
    alike = Alike(["thank you very much"] * 50_000)
    assert alike.among(np.arange(40_000), np.arange(40_000, 50_000)).all()
