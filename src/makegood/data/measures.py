"""What can be counted of a text: its length, its words and its punctuation, as numbers that stand beside its tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from makegood.contracts import Floats

NAMES = (
    "characters",
    "words",
    "distinct words",
    "share of distinct words",
    "mean length of a word",
    "share of long words",
    "sentences",
    "words of a sentence",
    "commas",
    "other marks",
    "capitals",
)
"""Measures of a text; counts as ln(1 + count), so that they are of one size."""

_WORD = re.compile(r"\w+")
_SENTENCE = re.compile(r"[.!?。！？]+")
_LONG = 7  # characters of a long word


def measured(texts: Sequence[str | None]) -> Floats:
    """Return the measures (n, len(NAMES)) float32 of texts (n,); all are 0 where there is no text.

    >>> measured(["One word, two words."])[:, NAMES.index("words")].tolist() == [np.float32(np.log(5))]
    True
    """
    nothing = (0.0,) * len(NAMES)
    found = {text: _measures(text) if text else nothing for text in dict.fromkeys(texts)}  # many may be the same
    return np.array([found[text] for text in texts], dtype=np.float32).reshape(-1, len(NAMES))


def _measures(text: str) -> tuple[float, ...]:
    words = _WORD.findall(text)
    n, sentences = max(len(words), 1), len(_SENTENCE.findall(text))
    distinct = len({word.lower() for word in words})
    commas = text.count(",") + text.count("，")
    marks = sum(not (letter.isalnum() or letter.isspace()) for letter in text) - commas
    counts = (len(text), len(words), distinct, sentences, commas, marks, sum(map(str.isupper, text)))
    characters, all_words, different, ends, pauses, others, capitals = np.log1p(np.array(counts, dtype=np.float64)).tolist()
    length = sum(map(len, words)) / n
    long_ones = sum(len(word) >= _LONG for word in words) / n
    return (
        characters,
        all_words,
        different,
        distinct / n,
        length,
        long_ones,
        ends,
        float(np.log1p(n / max(sentences, 1))),
        pauses,
        others,
        capitals,
    )
