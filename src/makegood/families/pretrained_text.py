"""Encoders of texts that start from saved weights, sentence encoders such as MiniLM among them.

The mean of the last layer over all tokens goes into a new line for the case's outcome (Reimers & Gurevych 2019, §3), and all of it
learns on in our loop, but for the word vectors of the largest; or, with `train.lora`, small factors beside the attention's matrices
alone (LoRA: Hu et al. 2022), which are merged into them before anything is exported.
"""

from __future__ import annotations

import copy
import re
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from makegood.contracts import Dataset, Floats, Task, Tokens
from makegood.errors import CaseError, MissingExtra, Problem
from makegood.families._torch import texts
from makegood.families._torch.loop import Recipe
from makegood.families._torch.texts import Reader
from makegood.families.pretrained import MOST, WHERE, Source
from makegood.families.text import TextNetwork
from makegood.families.trained import Plan

_BATCH = 32
_GAIN = 10.0  # how many times as fast as the encoder its new last layer learns
_LORA = 2e-3  # the learning rate of factors
_DROPOUT = 0.1
_LIKE_BERT = r".*attention.*\.(query|key|value|dense)"
_ATTENTION = {
    "bert": _LIKE_BERT,
    "distilbert": r".*attention\.(q_lin|k_lin|v_lin|out_lin)",
    "electra": _LIKE_BERT,
    "modernbert": r".*attn\.(Wqkv|Wo)",
    "mpnet": r".*attention\.attn\.(q|k|v|o)",
    "roberta": _LIKE_BERT,
    "xlm-roberta": _LIKE_BERT,
}
"""Kinds of encoders, and how transformers names the linear maps of their attention."""

_AFTER_PAD = ("mpnet", "roberta", "xlm-roberta")  # whose first place has the number after the padding's


class TextWeights(Source):
    """An encoder of texts as it was saved: whoever starts from it takes a copy.

    `width` is that of its states, `room` the most tokens that it reads at once, `vocabulary` how many it knows. `lora` is the rank of
    the factors that learn in its place, None where it learns itself: all of it but what is `fixed`, the word vectors of a network whose
    five folds would otherwise not fit into one file.
    """

    SEEN = "texts"
    KINDS = tuple(_ATTENTION)
    KNOWN = f"an encoder of texts, one of {', '.join(_ATTENTION)}"

    def __init__(self, text: str, task: Task, folder: Path, *, lora: int | None = None) -> None:
        """Read a folder or a name at the hub, as `Source` does; raises `MissingExtra` where LoRA is asked for without peft."""
        if lora is not None and find_spec("peft") is None:
            raise MissingExtra(Problem("train.lora", "", "peft, which has LoRA", "pip install 'makegood[pretrained]'"))
        self.lora = lora
        super().__init__(text, task, folder)

    def _read_settings(self, config: dict[str, Any]) -> None:
        self.kind = str(config["model_type"])

    def _read_weights(self, k: int) -> set[str]:
        with self._told("settings that transformers takes", "mend config.json"):
            config = AutoConfig.from_pretrained(self._place, trust_remote_code=False, **self._keys)
            shapes = self._shapes(AutoModel, config)
            self.width, self.vocabulary = int(config.hidden_size), int(config.vocab_size)
            before = int(config.pad_token_id) + 1 if self.kind in _AFTER_PAD else 0
            self.room = int(config.max_position_embeddings) - before
        unused = {name for name in shapes if name.startswith("pooler.")}
        self.fixed = self._check_learning({name: shape for name, shape in shapes.items() if name not in unused})
        self.model = self._load(AutoModel, config, unused, "all its layers")
        if unused:
            self.model.register_module("pooler", None)  # it would be carried along, and never asked
        with self._told("a network that takes token ids", "mend config.json"), torch.no_grad():
            ids = torch.zeros(1, min(4, self.room), dtype=torch.long)
            states = texts.Saved(self.model.eval())(ids, torch.ones_like(ids, dtype=torch.bool))
        if states.shape != (1, ids.shape[1], self.width):
            raise self._wrong(f"states {tuple(states.shape)}", f"{self.width} numbers for each token")
        return set()

    def _check_learning(self, shapes: dict[str, torch.Size]) -> frozenset[str]:
        """Return which weights do not learn; raises `Refused` where those that do are too many."""
        if self.lora is not None:
            fixed = frozenset(name for name in shapes if not re.fullmatch(rf"(?:{_ATTENTION[self.kind]})\.weight", name))
            self._check_size(shapes, fixed)
            return fixed
        if sum(shape.numel() for shape in shapes.values()) <= MOST:
            return frozenset()
        fixed = frozenset(name for name, shape in shapes.items() if name.startswith("embeddings.") and shape[0] == self.vocabulary)
        self._check_size(shapes, fixed, "name a smaller network, or set train.lora")
        return fixed


class PretrainedText(TextNetwork):
    """An encoder of texts that starts from saved weights; the row's other columns join before the last layer."""

    def __init__(self, task: Task, weights: TextWeights | None = None) -> None:
        super().__init__(task)
        self.weights = weights

    @property
    def _source(self) -> TextWeights:
        assert self.weights is not None, "a loaded model is not fitted again"
        return self.weights

    @property
    def _where(self) -> str:
        return f"{WHERE}: {self._source.name}"

    def _plan(self, data: Dataset) -> Plan:
        tokens, source = self.tokens, self._source
        if tokens.length > source.room:
            raise CaseError(
                Problem(self._where, f"windows of {tokens.length} tokens", f"at most {source.room}", f"set data.text.tokens: {source.room}")
            )
        if tokens.vocabulary > source.vocabulary:
            expected = f"ids below {source.vocabulary:,}"
            raise CaseError(Problem(self._where, f"a tokenizer of {tokens.vocabulary:,}", expected, "put its own tokenizer.json beside it"))
        return super()._plan(data)

    def _network(self, tokens: Tokens, beside: Floats, k: int) -> nn.Module:
        source = self._source
        network = copy.deepcopy(source.model)
        if source.lora is not None:
            network = _with_factors(network, source.kind, source.lora)
        else:
            for name, weights in network.named_parameters():
                weights.requires_grad_(name not in source.fixed)
        d = source.width
        return Reader(texts.Saved(network), d, self._read_beside(beside, d), k, pad=tokens.pad, dropout=_DROPOUT, gain=_GAIN)

    def _settled(self, module: nn.Module) -> nn.Module:
        if self._source.lora is not None:
            assert isinstance(module, Reader)
            assert isinstance(module.encoder, texts.Saved)
            factored: Any = module.encoder.network
            module.encoder.network = factored.merge_and_unload()
        return module

    def _recipe(self, n: int) -> Recipe:
        source = self._source
        whole = float(np.clip(5e-5 * (1e8 / source.size) ** 0.5, 3e-5, 3e-4))  # small networks stand, and need, larger steps
        lr = whole if source.lora is None else _LORA
        epochs = int(np.clip(round(600 * _BATCH / max(1, n)), 4, 30))
        return Recipe(epochs, _BATCH, lr, schedule="one-cycle", warm_up=0.1, weight_decay=1e-2, clip=1.0)


def _with_factors(network: nn.Module, kind: str, rank: int) -> nn.Module:
    """Return the network with factors (rank) beside its attention's matrices, which alone learn: they begin as nothing."""
    from peft import LoraConfig, get_peft_model  # slow to load, and seldom asked for

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks transformers for what that has renamed
        made = get_peft_model(network, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=_ATTENTION[kind]))
    assert isinstance(made, nn.Module)
    return made
