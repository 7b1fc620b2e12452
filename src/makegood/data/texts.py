"""Texts become token ids, by one tokenizer that training, the bundle and the service share.

A tokenizer is the JSON that the library `tokenizers` writes: that of a pretrained network, or one that `train_tokenizer` learns from
the rows. The library (`makegood[text]`) is imported where a text is read, and nowhere else. Nothing that a text may hold raises: it is
mended first, and what was done to it is named.
"""

from __future__ import annotations

import json
import re
import string
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from makegood.contracts import Bools, Ints
from makegood.data import values
from makegood.errors import MissingExtra, Problem

if TYPE_CHECKING:
    import tokenizers

MOST = 100_000
"""Characters of a text that are read; the rest is left out."""

VOCABULARY = 16_000
"""Tokens, at most, of a tokenizer that is learnt from the rows."""

LENGTHS, WINDOWS = (8, 512), 16
"""Tokens that a window may have, and windows that a text may have, at most."""

TREATMENTS = {
    "empty": "hold nothing but white space",
    "control": "held control characters, now removed",
    "undecodable": "held half a surrogate pair, which became U+FFFD",
    "huge": f"have more than {MOST:,} characters, and were cut there",
    "cut": "have more tokens than fit into their windows, and were cut there",
}
"""What was done to texts that were not as they should be, as the end of a sentence."""

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_PADS = ("[PAD]", "<pad>", "<PAD>", "<|pad|>", "<|endoftext|>")
_ALPHABET = VOCABULARY // 4  # characters with a token of their own: scripts with thousands must leave room for words
_SAMPLE = 4_000_000  # characters that a tokenizer is learnt from
_WORD = 64  # characters of a word; scripts without spaces write longer ones, which are cut into such
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CHUNK = 1 << 10  # texts at a time


def cleaned(cell: Any) -> tuple[str | None, tuple[str, ...]]:
    r"""Return a cell as a text, None where there is none, and which of `TREATMENTS` it took, or ("wrong",) where it is no text.

    >>> cleaned("\x00two\ud83d\ude00 ")[0], cleaned(" \t"), cleaned(12), cleaned([1])
    ('two😀', (None, ('empty',)), ('12', ()), (None, ('wrong',)))
    """
    if cell is None or (isinstance(cell, float) and np.isnan(cell)):
        return None, ()
    if not isinstance(cell, str):
        text = values.text_of(cell)
        return text, () if text is not None else ("wrong",)
    done = []
    if len(cell) > MOST:
        cell = cell[:MOST]
        done.append("huge")
    if _SURROGATE.search(cell):  # JSON may write any character as two halves, and one of them alone
        cell = cell.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        done += ["undecodable"] if "\ufffd" in cell else []
    if _CONTROL.search(cell):
        cell = _CONTROL.sub("", cell)
        done.append("control")
    text = cell.strip()
    if not text:
        return None, ("empty",)
    return (None, ()) if text in values.MISSING else (text, tuple(done))


# -------------------------------------------------------------------------------------------------------------- tokenizer


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        where, expected = "data.text", "tokenizers"
        raise MissingExtra(Problem(where, str(error), expected, "run: pip install 'makegood[text]'")) from None
    return tokenizers


def train_tokenizer(texts: Iterable[str | None]) -> str:
    """Return a tokenizer, as JSON, that is learnt from texts: WordPiece (Schuster & Nakajima 2012), as BERT has it.

    The same texts give the same bytes, in any order. Texts are normalised by NFKC, lose control characters and are written in lower
    case; accents stay, since in many scripts they are vowels. Each Chinese character is a word, and so is each punctuation mark; what
    is written without spaces is cut into words of 64 characters. `VOCABULARY` tokens at most, of which a quarter may be characters.

    >>> Tokenizer(train_tokenizer(["to be or not to be"] * 9)).tokens("not to be")
    ['[CLS]', 'not', 'to', 'be', '[SEP]']
    """
    library = _library()
    normal = _normalizer(library)
    words = _counted([normal.normalize_str(text) for text in _drawn(texts)])
    letters: Counter[str] = Counter()
    for word, n in words.items():
        for letter in word:
            letters[letter] += n
    known = {letter for letter, _ in sorted(letters.items(), key=lambda item: (-item[1], item[0]))[:_ALPHABET]}
    kept = sorted((word, n) for word, n in words.items() if known.issuperset(word))
    pieces = {f"##{letter}" for word, _ in kept for letter in word[1:]}
    # the trainer numbers pieces in the order in which its hash table gives them out, and breaks ties by number; those that it is given
    # as special tokens are numbered as they come
    trainer = library.trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, min_frequency=2, show_progress=False, special_tokens=[*_SPECIAL, *sorted(known), *sorted(pieces)]
    )
    learner = library.Tokenizer(library.models.WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    learner.train_from_iterator((" ".join([word] * n) for word, n in kept), trainer)
    made = library.Tokenizer(library.models.WordPiece(learner.get_vocab(with_added_tokens=True), unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normal, _pre_tokenizer(library)
    made.decoder = library.decoders.WordPiece()
    made.add_special_tokens(list(_SPECIAL))
    made.post_processor = library.processors.BertProcessing(("[SEP]", made.token_to_id("[SEP]")), ("[CLS]", made.token_to_id("[CLS]")))
    made.enable_padding(pad_id=made.token_to_id("[PAD]"), pad_token="[PAD]")
    return json.dumps(json.loads(made.to_str()), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _drawn(texts: Iterable[str | None]) -> list[str]:
    """Return texts of about `_SAMPLE` characters in all, drawn by their content, and those that hold a character which these have not."""
    drawn, total, seen = [], 0, set[str]()
    for _, text in sorted((zlib.crc32(text.encode()), text) for text in texts if text):
        if total < _SAMPLE or not seen.issuperset(text):
            drawn.append(text)
            total += len(text)
            seen.update(text)
    return drawn


def _counted(texts: Sequence[str]) -> Counter[str]:
    """Return how often each word occurs, as `_pre_tokenizer` cuts texts: in Python it is ten times as fast to cut them by hand."""
    alphabet = set[str]().union(*texts)
    marks = [letter for letter in alphabet if letter in string.punctuation or unicodedata.category(letter)[0] == "P"]
    mark = re.compile(f"[{re.escape(''.join(sorted(marks)))}]") if marks else None
    words: Counter[str] = Counter()
    for text in texts:
        words.update((mark.sub(r" \g<0> ", text) if mark else text).split())
    for word in [word for word in words if len(word) > _WORD]:
        n = words.pop(word)
        for start in range(0, len(word), _WORD):
            words[word[start : start + _WORD]] += n
    return words


def _normalizer(library: Any) -> Any:
    bert = library.normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=True)
    return library.normalizers.Sequence([library.normalizers.NFKC(), bert])


def _pre_tokenizer(library: Any) -> Any:
    return library.pre_tokenizers.Sequence([library.pre_tokenizers.BertPreTokenizer(), library.pre_tokenizers.FixedLength(length=_WORD)])


class Tokenizer:
    """A tokenizer at work: texts become windows of token ids.

    `vocabulary` is one more than the greatest id, `pad` the id that fills a window; `before` and `after` are the ids that a window
    begins and ends with ([CLS] and [SEP], or none).
    """

    def __init__(self, state: str) -> None:
        """Read what `tokenizers` wrote; raises `ValueError` where it is none, or has no token to pad with."""
        self.state = state
        self._made = _read(state)
        self._made.no_padding()
        self._made.no_truncation()
        self._made.encode_special_tokens = True  # "[SEP]" in a text is text: who writes it must not end the text
        self.vocabulary = 1 + max(self._made.get_vocab(with_added_tokens=True).values(), default=-1)
        self.pad = self._pad()
        probe = self._made.encode("a")
        inner = [i for i, special in enumerate(probe.special_tokens_mask) if not special]
        first, last = (inner[0], inner[-1] + 1) if inner else (len(probe.ids) // 2,) * 2
        self.before, self.after = tuple(probe.ids[:first]), tuple(probe.ids[last:])

    def _pad(self) -> int:
        padding = json.loads(self.state).get("padding") or {}
        if isinstance(found := padding.get("pad_id"), int) and 0 <= found < self.vocabulary:
            return found
        for name in _PADS:
            if (known := self._made.token_to_id(name)) is not None:
                return int(known)
        raise ValueError(f"a tokenizer without a token to pad with, such as {_PADS[0]}")

    @property
    def room(self) -> int:
        """How many of a window's tokens are not the text's."""
        return len(self.before) + len(self.after)

    def tokens(self, text: str) -> list[str]:
        """Return the tokens of a text as they are written, those around it included."""
        return list(self._made.encode(text).tokens)

    def lengths(self, texts: Sequence[str | None]) -> Ints:
        """Return how many tokens each text (n,) has, those around it included."""
        return np.array([len(ids) + self.room for ids in self._ids(texts)], dtype=np.int64)

    def encode(self, texts: Sequence[str | None], length: int, windows: int = 1) -> tuple[Ints, Bools]:
        """Return the ids (n, windows · length) of texts, and which of them (n,) were longer than that.

        A window repeats the last quarter of `length` of the one before. Each window that holds a part of the text begins with `before`
        and ends with `after`; the first one does so for a text that is missing, too. The rest is `pad`. A text has the same ids alone
        as among others.

        >>> made = Tokenizer(train_tokenizer(["a b c d e f g h"] * 9))
        >>> ids, cut = made.encode(["a b c", None, "a b c d e f g h a b"], 8, 2)
        >>> [[made.name(i) for i in row if i != made.pad] for row in ids[:2]]
        [['[CLS]', 'a', 'b', 'c', '[SEP]'], ['[CLS]', '[SEP]']]
        >>> " ".join(made.name(i) for i in ids[2]), cut.tolist()
        ('[CLS] a b c d e f [SEP] [CLS] e f g h a b [SEP]', [False, False, False])
        """
        body = length - self.room
        if body < 1:
            raise ValueError(f"windows of {length} tokens, of which {self.room} are not the text's")
        step = max(1, body - length // 4)
        out = np.full((len(texts), windows, length), self.pad, dtype=np.int64)
        cut = np.zeros(len(texts), dtype=np.bool_)
        for row, ids in enumerate(self._ids(texts)):
            for window in range(windows):
                start = window * step
                part = (*self.before, *ids[start : start + body], *self.after)
                out[row, window, : len(part)] = part
                if start + body >= len(ids):
                    break
            else:
                cut[row] = True
        return out.reshape(len(texts), windows * length), cut

    def each(self, texts: Sequence[str | None], length: int, windows: int = 1) -> Ints:
        """Return the ids of texts, of which many may be the same, as among the rows that reasons compare with."""
        place = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        ids, _ = self.encode(list(place), length, windows)
        return np.asarray(ids[[place[text] for text in texts]])

    def name(self, token: int) -> str:
        """Return how a token is written, "" for an id that no token has."""
        return self._made.id_to_token(int(token)) or ""

    def _ids(self, texts: Sequence[str | None]) -> Iterable[list[int]]:
        for start in range(0, len(texts), _CHUNK):
            part = [text or "" for text in texts[start : start + _CHUNK]]
            yield from (coded.ids for coded in self._made.encode_batch_fast(part, add_special_tokens=False))


def _read(state: str) -> tokenizers.Tokenizer:
    library = _library()
    try:
        if not isinstance(json.loads(state), dict):
            raise ValueError("a tokenizer that is no JSON object")
        return library.Tokenizer.from_str(state)  # type: ignore[no-any-return]
    except BaseException as error:
        if type(error) is not Exception:  # the library knows no kind of error but this
            raise
        raise ValueError(f"a tokenizer that cannot be read: {error}") from None
