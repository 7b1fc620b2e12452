"""What learns: one explicit table of the built-in families, and the door through which the user's own models come in.

A family turns a `Dataset` into one of the five kinds of prediction (`makegood.contracts.Family`); everything after it knows the
kind and not the family.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from makegood.errors import CaseError, MissingExtra, Problem, nearest

if TYPE_CHECKING:
    from keras import Model
    from sklearn.base import BaseEstimator
    from torch.nn import Module

    from makegood.contracts import Family, Task

TABLE = {
    "constant": "makegood.families.tabular:Constant",
    "linear": "makegood.families.tabular:Linear",
    "lightgbm": "makegood.families.tabular:LightGBM",
    "ngrams": "makegood.families.ngrams:NGrams",
    "mlp": "makegood.families.networks:MLP",
    "transformer": "makegood.families.networks:Transformer",
    "cnn": "makegood.families.image:CNN",
    "resnet": "makegood.families.image:ResNet",
    "vit": "makegood.families.image:ViT",
    "encoder": "makegood.families.text:Encoder",
}
"""Name → where the family is; each is made from a `Task`."""

NUMBERS = ("linear", "lightgbm", "mlp", "transformer")
"""Families to which every feature is an amount."""


@dataclass(frozen=True)
class Candidate:
    """A family that may be trained: its name, what makes a new, unfitted one for a task, and what a reader must know of it.

    `numbers`: its features are amounts, and none of them may be the id of a token.
    """

    name: str
    make: Callable[[Task], Family]
    note: str = ""
    numbers: bool = False


def find(names: Sequence[str]) -> tuple[Candidate, ...]:
    """Return the candidates of these names, their libraries loaded (so that no training budget pays for it)."""
    from makegood.case import IMAGE_NETWORKS, NETWORKS, TEXT_NETWORKS  # a limited process imports this package, and reads no case

    candidates = []
    for name in names:
        if name not in TABLE:
            raise CaseError(Problem("train.families", name, f"some of {', '.join(TABLE)}", nearest(name, TABLE)))
        if name in NETWORKS and find_spec("torch") is None:
            raise MissingExtra(Problem("train.families", name, "torch, which trains networks", "pip install 'makegood[deep]'"))
        if name in (*IMAGE_NETWORKS, *TEXT_NETWORKS):
            from makegood.families._torch.export import check_exporter

            check_exporter("train.families")
        module, attribute = TABLE[name].split(":")
        candidates.append(Candidate(name, getattr(import_module(module), attribute), numbers=name in NUMBERS))
    return tuple(candidates)


def beside_texts(candidates: Sequence[Candidate], *, others: bool) -> tuple[Candidate, ...]:
    """Return the candidates for rows with a text: those for numbers see the other columns alone.

    Raises `CaseError` for these where there are no `others`.
    """
    from makegood.families.other_columns import OtherColumns

    def beside(make: Callable[[Task], Family], task: Task) -> Family:
        return OtherColumns(task, make(task))

    if not others and (idle := [c.name for c in candidates if c.numbers]):
        expected = "families that read texts: there is no other column to learn from"
        raise CaseError(Problem("train.families", ", ".join(idle), expected, "name ngrams, encoder or auto"))
    return tuple(replace(c, make=partial(beside, c.make)) if c.numbers else c for c in candidates)


def joining(seconds: float, rows: int, columns: int) -> tuple[str, ...]:
    """Return the networks that join the families of `auto`, where one fit may take `seconds` on `rows` of `columns`.

    Those that get half of the time they would take (measured, one core), if torch is there: cut short by more, they only take time
    from the others. It depends on the case alone, never on the clock.
    """
    needed = 1.0 + 1.25e-6 * rows * (128 + min(17 * columns, 2048))
    return ("mlp",) if 2.0 * seconds >= needed and find_spec("torch") is not None else ()


def joining_images(seconds: float, rows: int, shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Return the same where each row is an image of `shape` (height, width, channels); trees then leave, which take minutes on pixels."""
    needed = 3.0 + 1.6e-7 * max(5 * rows, min(40 * rows, 300_000)) * math.prod(shape)
    there = find_spec("torch") is not None and find_spec("onnxscript") is not None
    return ("cnn",) if 2.0 * seconds >= needed and min(shape[:2]) >= 4 and there else ()


def joining_texts(seconds: float, rows: int, tokens: int) -> tuple[str, ...]:
    """Return the families that join where each row has a text of at most so many tokens: n-grams, and a network where there is time."""
    needed = 10.0 + 5e-5 * max(6 * rows, min(max(100 * rows, 48_000), 384_000)) * tokens  # texts that an encoder reads, of half that length
    there = find_spec("torch") is not None and find_spec("onnxscript") is not None
    return ("ngrams", "encoder") if 2.0 * seconds >= needed and there else ("ngrams",)


def wrap(estimator: BaseEstimator | Module | Model | Path | str, *, name: str = "", recipe: Mapping[str, Any] | None = None) -> Candidate:
    """Return an estimator as a candidate; it is copied, never changed.

    A scikit-learn classifier (with `predict_proba`) or regressor; or a `torch.nn.Module` from features (n, n_features) float32 to
    logits (n, n_classes) or a number (n, 1), which `recipe` says how to train (fields of `families._torch.loop.Recipe`: epochs,
    batch_size, lr, optimiser, schedule, …) and how often it is asked (`members` of a deep ensemble; `passes` with dropout at work, by
    masks that are part of the model). A compiled `keras.Model`, which Keras' own `fit` trains (`recipe`: epochs, batch_size, patience),
    or the path of a saved one, which is imported behind walls and not trained again. Raises `CaseError` when it is none of these, and
    when trained if it cannot be converted to ONNX.
    """
    title = name or type(estimator).__name__
    if isinstance(estimator, str | PathLike):
        return _imported(estimator, name, recipe)
    keras = sys.modules.get("keras")  # whoever has a model has imported Keras; on torch it is a torch.nn.Module too
    if keras is not None and isinstance(estimator, keras.Model):
        from makegood.families import wrapped_keras

        wrapped_keras.check_model(estimator, title)
        fitting = wrapped_keras.recipe_of(recipe)
        return Candidate(title, lambda task: wrapped_keras.KerasModel(task, estimator, fitting, title))
    torch = sys.modules.get("torch")  # whoever has a module has imported torch
    if torch is not None and isinstance(estimator, torch.nn.Module):
        from makegood.families import wrapped_module
        from makegood.families._torch.export import check_exporter

        check_exporter("wrap")
        training, sampling = wrapped_module.recipe_of(recipe or {})
        forms: dict[tuple[object, ...], bytes] = {}
        return Candidate(title, lambda task: wrapped_module.Module(task, estimator, training, sampling, forms))
    from makegood.families.wrapped import Wrapped, check_estimator

    check_estimator(estimator)
    if recipe is not None:
        raise CaseError(Problem("wrap", "a recipe", "none for a scikit-learn estimator", "set the estimator's own parameters"))
    return Candidate(title, lambda task: Wrapped(task, estimator), numbers=True)


def fine_tuned(names: Sequence[str], task: Task, *, folder: Path, texts: bool = False, lora: int | None = None) -> tuple[Candidate, ...]:
    """Return networks that start from saved weights, which are read now: `families.pretrained.Source` says of what names.

    They are for images, or for `texts`, where factors of rank `lora` may learn in their place. Raises `CaseError` or `Refused`, naming
    the field, and `MissingExtra` without torch, transformers, peft where there is LoRA, or what exports to ONNX.
    """
    if not names:
        return ()
    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            wanted = f"{package}, which reads and trains networks"
            raise MissingExtra(Problem("train.pretrained", "", wanted, "pip install 'makegood[pretrained]'"))
    from makegood.families._torch.export import check_exporter

    check_exporter("train.pretrained")
    if texts:
        from makegood.families.pretrained_text import PretrainedText, TextWeights

        encoders = [TextWeights(name, task, folder.resolve(), lora=lora) for name in dict.fromkeys(names)]
        return tuple(Candidate(f"pretrained {w.name}", partial(PretrainedText, weights=w), w.note) for w in encoders)
    if lora is not None:
        raise CaseError(Problem("train.lora", str(lora), "none where the rows are images", "leave it out, or name data.text"))
    from makegood.families.pretrained import Pretrained, Weights

    read = [Weights(name, task, folder.resolve()) for name in dict.fromkeys(names)]
    return tuple(Candidate(f"pretrained {w.name}", partial(Pretrained, weights=w), w.note) for w in read)


def _imported(path: str | PathLike[str], name: str, recipe: Mapping[str, Any] | None) -> Candidate:
    from makegood.families.imported import NOTE, Archive, Imported

    if recipe is not None:
        raise CaseError(Problem("wrap", "a recipe", "none for a saved model, which is not trained again", "leave it out"))
    archive = Archive(Path(path))
    return Candidate(name or Path(path).stem, lambda task: Imported(task, archive), NOTE.format(archive.name))
