"""Networks that start from weights which somebody else learnt, as Hugging Face's transformers saves them: how they are found and read.

Weights are read from safetensors alone, and no code that lies beside them is run. Of a network for images, what the image processor
does is made part of it; it gets a new last layer for the case's outcome and learns on, all of it, in our loop. Those for texts are in
`families.pretrained_text`.
"""

from __future__ import annotations

import copy
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, PreTrainedConfig
from transformers import AutoModelForImageClassification as Auto
from transformers.image_processing_base import ImageProcessingMixin
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as FOR_IMAGES
from transformers.utils import logging

from makegood.contracts import Dataset, Floats, Task
from makegood.errors import CaseError, Problem, Refused
from makegood.families._torch.loop import Recipe, Runtime
from makegood.families._torch.tuned import Pixels, Tuned
from makegood.families.image import ImageNetwork
from makegood.families.seeds import seeded
from makegood.families.trained import Plan, Shape

if TYPE_CHECKING:
    from makegood.scorer import Scorer

WHERE = "train.pretrained"
NOTE = (
    "{!r} starts from weights that were learnt elsewhere (sha256 {}…): if they have seen {} that are held out here, every figure of "
    "it on this page is too good."
)
MOST = 100_000_000
"""Weights that may learn: the models of five folds must fit into one ONNX file, which ends at 2 GiB.

Those that do not learn are in it once, so that five of them count as one.
"""

_HUB = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@([\w.-]+))?")
_BATCH, _FOLDS = 32, 5
_ERRORS = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ImportError)


class Source(ABC):
    """A network as transformers saved it: found, and read once. What it may be is for a subclass to say.

    `note` says what a reader must know.
    """

    SEEN: ClassVar[str]  # what it has learnt from
    KINDS: ClassVar[Collection[str]]
    KNOWN: ClassVar[str]  # what a reader is told of them
    model: nn.Module
    size: int  # weights

    def __init__(self, text: str, task: Task, folder: Path) -> None:
        """Read a folder, which may be relative to the case's, or `owner/name` or `owner/name@revision` from the hub.

        Raises `CaseError` where there is no such thing, or none that can be used, and `Refused` for one that is too large.
        """
        self.name = text
        self._place, self._keys = _place(text, folder)
        with _quiet(), seeded(0):
            config = self._read_config()
            self._read_settings(config)
            new = self._read_weights(len(task.classes) or 1)
        kept, digest = self.model.state_dict(), sha256()
        self.size = sum(tensor.numel() for tensor in kept.values())
        for name in sorted(kept.keys() - new):
            digest.update(name.encode() + kept[name].numpy().tobytes())
        self.note = NOTE.format(text, digest.hexdigest()[:12], self.SEEN)

    @abstractmethod
    def _read_settings(self, config: dict[str, Any]) -> None:
        """Keep what the network wants of its inputs; `config` are its settings."""

    @abstractmethod
    def _read_weights(self, k: int) -> set[str]:
        """Keep the network as `model`, ready for k outputs, and return the names of what in it was not saved."""

    def _read_config(self) -> dict[str, Any]:
        with self._told("a network that transformers saved"):
            config, _ = PreTrainedConfig.get_config_dict(self._place, **self._keys)
        if not config:
            raise self._wrong("no config.json", "a network that transformers saved")
        if config.get("auto_map"):
            raise self._wrong(
                "a network with code of its own", "one that transformers itself knows", "that code is never run: name another"
            )
        if str(config.get("model_type")) not in self.KINDS:
            raise self._wrong(f"a network of type {config.get('model_type')}", self.KNOWN)
        return dict(config)

    def _shapes(self, auto: Any, config: PreTrainedConfig) -> dict[str, torch.Size]:
        """Return the shapes of a network's tensors by name, without making them."""
        with torch.device("meta"):
            return {name: tensor.shape for name, tensor in auto.from_config(config).state_dict().items()}

    def _check_size(self, shapes: Mapping[str, torch.Size], fixed: Collection[str] = (), mend: str = "name a smaller network") -> None:
        """Raise `Refused` for more than `MOST` weights, of which those of these names do not learn."""
        size, still = (sum(shapes[name].numel() for name in names) for names in (shapes, fixed))
        if size - still + still // _FOLDS > MOST:
            raise Refused(Problem(f"{WHERE}: {self.name}", f"{size:,} weights", f"at most {MOST:,} that learn", mend))

    def _load(self, auto: Any, config: PreTrainedConfig, new: Collection[str], layers: str) -> nn.Module:
        """Return the network; all but what is `new` must have been saved: `layers` says so in words."""
        how = {"use_safetensors": True, "trust_remote_code": False, "dtype": torch.float32, "ignore_mismatched_sizes": True}
        how["attn_implementation"] = "eager"  # the fused one does not always export: its strides come out otherwise
        with self._told("weights in safetensors, and never in a pickle", "write them with save_pretrained of transformers 5"):
            model, found = auto.from_pretrained(self._place, config=config, output_loading_info=True, **how, **self._keys)
        if absent := sorted({*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])} - {*new}):
            raise self._wrong(f"{absent[0]} missing, or of another shape", f"the weights of {layers}")
        assert isinstance(model, nn.Module)
        return model

    def _wrong(self, got: str, expected: str, mend: str = "name another") -> CaseError:
        return CaseError(Problem(f"{WHERE}: {self.name}", got, expected, mend))

    @contextmanager
    def _told(self, expected: str, mend: str = "name another") -> Iterator[None]:
        """Turn what transformers raises over files and settings that are not as it wants them into a `CaseError`."""
        try:
            yield
        except (*_ERRORS, SafetensorError, StrictDataclassError) as error:
            first = " ".join(str(error).split()).split(". ")[0][:200]
            raise self._wrong(f"{type(error).__name__}: {first}", expected, mend) from None


class Weights(Source):
    """A network for images as it was saved: whoever starts from it takes a copy.

    `layers` are those that it ends in, which each copy draws anew.
    """

    SEEN = "images"
    KINDS = FOR_IMAGES
    KNOWN = "one for images that transformers knows, such as vit, convnext or resnet"

    def _read_settings(self, config: dict[str, Any]) -> None:
        with self._told("the settings of its image processor", "save them beside it: processor.save_pretrained(FOLDER)"):
            processor, _ = ImageProcessingMixin.get_image_processor_dict(self._place, **self._keys)
        with self._told("a size, image_mean and image_std that can be used", "mend preprocessor_config.json"):
            self.channels = int(config.get("num_channels", 3))
            self.pixels = Pixels.of(processor, self.channels)

    def _read_weights(self, k: int) -> set[str]:
        """Keep the network with k outputs; what depends on k, which one more output would change, is new."""
        with self._told("settings that transformers takes", "mend config.json"):
            config = AutoConfig.from_pretrained(self._place, num_labels=k, trust_remote_code=False, **self._keys)
            wider = copy.deepcopy(config)
            wider.num_labels = k + 1
            shapes, other = (self._shapes(Auto, c) for c in (config, wider))
        self._check_size(shapes)
        new = {name for name, shape in shapes.items() if shape != other[name]}
        self.model = self._load(Auto, config, new, "all layers but the last")
        with self._told("a network that takes images as its image processor makes them", "mend preprocessor_config.json"), torch.no_grad():
            self.model.eval()(torch.zeros(1, self.channels, self.pixels.height, self.pixels.width))
        self.layers = sorted({name.rpartition(".")[0] for name in new})
        return new


def _place(text: str, folder: Path) -> tuple[str, dict[str, Any]]:
    """Return what transformers is to open, and how: of a folder local files only."""
    if (folder / text).is_dir():
        return str(folder / text), {"local_files_only": True}
    match = _HUB.fullmatch(text)
    if not match or (folder / text).exists() or (folder / text.split("/")[0]).is_dir():  # a slip in a path is no reason to ask the world
        expected = "a folder that save_pretrained wrote, or a name at the hub, owner/name"
        raise CaseError(Problem(WHERE, text, expected, f"folders are looked for in {folder}"))
    return match[1], {"revision": match[2]} if match[2] else {}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from telling how it loads."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


class Pretrained(ImageNetwork):
    """A network that starts from saved weights; all of them learn, slowly. Classes are learnt from images that are moved a little."""

    def __init__(self, task: Task, weights: Weights | None = None) -> None:
        super().__init__(task)
        self.weights = weights

    @property
    def _source(self) -> Weights:
        assert self.weights is not None, "a loaded model is not fitted again"
        return self.weights

    @property
    def _where(self) -> str:
        return f"{WHERE}: {self._source.name}"

    def _plan(self, data: Dataset) -> Plan:
        plan, wanted = super()._plan(data), self._source.channels
        assert data.shape is not None, "the plan above raises without"
        if data.shape[2] not in (1, wanted):
            raise CaseError(Problem(self._where, f"images of {data.shape[2]} channels", f"{wanted}", f"set data.image.channels: {wanted}"))
        return plan

    def _network(self, shape: Shape, k: int) -> nn.Module:
        network = copy.deepcopy(self._source.model)
        for layer in self._source.layers:
            last = network.get_submodule(layer)
            assert isinstance(last, nn.Linear), "so end all kinds that transformers classifies images by"
            last.reset_parameters()
        return Tuned(network, self._source.pixels, shape)

    def _recipe(self, n: int) -> Recipe:
        lr = float(np.clip(1e-4 * (1e8 / self._source.size) ** 0.25, 1e-4, 1e-3))  # small networks stand, and need, larger steps
        epochs = max(4, round(600 * _BATCH / max(1, n)))
        return Recipe(epochs, _BATCH, lr, schedule="one-cycle", warm_up=0.2, weight_decay=1e-2, clip=1.0)

    def _runtime(self, pixels: int) -> Runtime:
        return super()._runtime(max(pixels, _BATCH * self._source.pixels.height * self._source.pixels.width))

    def _edges(self, scorer: Scorer, X: Floats, seed: int) -> Floats:
        return np.full((X.shape[1], 2), [-3e38, 3e38], np.float32).T  # black and white; a pixel by itself is too little to ask so much
