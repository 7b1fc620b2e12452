"""Networks that start from saved weights: how they are read, what is refused, and what they learn."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
import torch
import transformers
from sklearn.datasets import load_digits
from torch import Tensor, nn
from transformers.models.mobilevit.image_processing_pil_mobilevit import MobileViTImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from makegood import pipeline
from makegood.case import Case
from makegood.contracts import Budget, Dataset, Floats, Probabilities, Quantiles, Task
from makegood.errors import CaseError, Refused
from makegood.families import fine_tuned
from makegood.families._torch.loop import Recipe, Rows, Runtime, Session, train
from makegood.families._torch.loop import Task as Training
from makegood.families._torch.losses import cross_entropy
from makegood.families._torch.tuned import Pixels, Tuned
from makegood.families.pretrained import Pretrained, Weights
from makegood.model import load

DIGITS = Task("classes", tuple("0123456789"))
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 16, "width": 16},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.4, 0.3],
}


def _save(network: transformers.PreTrainedModel, folder: Path, processor: dict[str, Any] = PROCESSOR) -> None:
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def _convnext() -> transformers.PreTrainedModel:
    sizes = transformers.ConvNextConfig(hidden_sizes=[16, 32], depths=[1, 1], num_stages=2, patch_size=2, num_labels=5)
    return transformers.ConvNextForImageClassification(sizes)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny networks, as transformers saves them: one each with a head, without, and with norms over the batch."""
    folder = tmp_path_factory.mktemp("weights")
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _save(transformers.ViTModel(transformers.ViTConfig(intermediate_size=64, **small)), folder / "vit")
        _save(_convnext(), folder / "convnext")
        sizes = transformers.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=10)
        _save(transformers.ResNetForImageClassification(sizes), folder / "resnet", PROCESSOR | {"size": {"shortest_edge": 16}})
        swin = transformers.SwinConfig(image_size=16, patch_size=2, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4)
        _save(transformers.SwinModel(swin), folder / "swin")
        grey = transformers.ViTConfig(intermediate_size=64, num_channels=1, **small)
        _save(transformers.ViTModel(grey), folder / "grey", PROCESSOR | {"image_mean": 0.5, "image_std": 0.5})
        text = transformers.BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=20)
        transformers.BertModel(text).save_pretrained(folder / "text")
    return folder


@cache
def _digits() -> Dataset:
    """Return scikit-learn's digits, 8 × 8 and grey, in an order of their own."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    X = (digits.images[order] / 16.0).astype(np.float32).reshape(len(order), -1)
    return Dataset(pa.table({"row": order}), X, digits.target[order].astype(np.int64), shape=(8, 8, 1))


def _rows(data: Dataset, start: int, stop: int) -> Dataset:
    return data.take(np.arange(start, stop))


def _short(weights: Weights, task: Task, epochs: int, lr: float = 2e-3) -> Pretrained:
    """Return the family with a recipe for tests of what does not depend on it."""
    recipe = Recipe(epochs, 32, lr, warm_up=0.2, schedule="one-cycle", clip=1.0)
    short: type[Pretrained] = type("Pretrained", (Pretrained,), {"_recipe": lambda self, n: recipe})
    return short(task, weights)


def _fit(family: Pretrained, data: Dataset, train: int, valid: int, seed: int = 0) -> Floats:
    """Return what a family predicts of the rows behind those that it was fitted on."""
    family.fit(_rows(data, 0, train), _rows(data, train, train + valid), budget=Budget(60.0, time.perf_counter()), seed=seed)
    found = family.predict(_rows(data, train + valid, min(len(data), train + valid + 300)).without_outcome())
    assert isinstance(found, Probabilities | Quantiles)
    return found.p if isinstance(found, Probabilities) else found.q


# --------------------------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize(
    ("name", "lr", "least"), [("vit", 4e-3, 0.25), ("convnext", 8e-3, 0.5), ("resnet", 4e-3, 0.8), ("swin", 4e-3, 0.22)]
)
def test_it_learns_and_its_graph_agrees(space: Path, name: str, lr: float, least: float) -> None:
    family = _short(Weights(name, DIGITS, space), DIGITS, 10, lr)  # from random weights: far from what chance gives, which is 0.1
    p = _fit(family, _digits(), 600, 100)  # refused unless ONNX agrees with torch to 1e-5
    assert (p.argmax(axis=1) == np.asarray(_digits().outcome)[700:1000]).mean() > least


def test_saved_weights_are_worth_more_than_none(tmp_path: Path) -> None:
    """Five digits teach a network; the other five are then learnt from few images, in few steps."""
    data, label = _digits(), np.asarray(_digits().outcome)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = _convnext()
        _save(network, tmp_path / "random")
        known = np.flatnonzero(label < 5)
        rows = Rows(torch.from_numpy(np.asarray(data.features)[known]).reshape(-1, 1, 8, 8), torch.from_numpy(label[known]))
        teaching = Training(Tuned(network, Pixels.of(PROCESSOR, 3), (8, 8, 1)), cross_entropy())
        train(teaching, rows, None, Recipe(10, 32, 5e-3), Runtime(threads=1), Session(Budget(60.0, time.perf_counter()), 0))
        _save(network, tmp_path / "taught")
    others = data.take(np.flatnonzero(label >= 5))
    others = replace(others, outcome=np.asarray(others.outcome) - 5)
    task, loss = Task("classes", tuple("56789")), {}
    truth = np.asarray(others.outcome)[200:500]
    for name in ("random", "taught"):
        p = _fit(_short(Weights(name, task, tmp_path), task, 8), others, 120, 80)
        loss[name] = -np.log(p[np.arange(len(truth)), truth]).mean()
    assert loss["taught"] < 0.6 * loss["random"], loss


def test_a_number_is_read_from_an_image(space: Path) -> None:
    data = _digits()
    ink = np.asarray(data.features).sum(axis=1).astype(np.float64)
    q = _fit(_short(Weights("convnext", Task("number"), space), Task("number"), 8), replace(data, outcome=ink), 400, 100)
    truth = ink[500:800]
    assert np.abs(q[:, 5] - truth).mean() < 0.5 * np.abs(truth - np.median(truth)).mean()


def test_equal_seeds_give_equal_bytes_and_others_another_last_layer(space: Path) -> None:
    weights, models = Weights("convnext", DIGITS, space), []
    before = {name: tensor.clone() for name, tensor in weights.model.state_dict().items()}
    for seed in (1, 1, 2):
        family = _short(weights, DIGITS, 1)
        _fit(family, _digits(), 64, 32, seed)
        models.append(family.model_)
    assert models[0] == models[1] != models[2]
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights.model.state_dict().items())


def test_the_recipe_is_for_few_images_and_many(space: Path) -> None:
    weights = Weights("vit", DIGITS, space)
    family = Pretrained(DIGITS, weights)
    few, many = family._recipe(64), family._recipe(60_000)
    assert (few.epochs, many.epochs) == (300, 4)
    weights.size = 86_000_000
    assert family._recipe(64).lr == pytest.approx(1e-4, rel=0.05)
    assert few.lr == pytest.approx(8.4e-4, rel=0.05)


def test_images_of_too_many_channels_and_rows_that_are_no_images_are_refused(space: Path) -> None:
    rgb = Dataset(pa.table({"row": range(8)}), np.zeros((8, 192), np.float32), np.arange(8) % 2, shape=(8, 8, 3))
    budget = Budget(60.0, time.perf_counter())
    family = Pretrained(DIGITS, Weights("grey", DIGITS, space))
    with pytest.raises(CaseError) as error:
        family.fit(rgb, rgb, budget=budget, seed=0)
    assert str(error.value) == "train.pretrained: grey: got 'images of 3 channels'; expected 1; set data.image.channels: 1"
    with pytest.raises(
        CaseError, match=r"train\.pretrained: grey: got 'rows that are no images'; expected rows of which each is one image"
    ):
        family.fit(replace(rgb, shape=None), rgb, budget=budget, seed=0)


# ----------------------------------------------------------------------------------------------------------- what is seen


class _Bare(nn.Module):
    """A network that answers with its images."""

    def forward(self, x: Tensor) -> Any:
        return type("Answer", (), {"logits": x})


@pytest.mark.parametrize(
    ("processor", "side"),
    [
        (ViTImageProcessorPil(size={"height": 24, "width": 32}, resample=2, image_std=[0.2, 0.3, 0.4]), (16, 16)),
        (ViTImageProcessorPil(size={"height": 24, "width": 32}, resample=3, image_mean=[0.2, 0.3, 0.4]), (16, 20)),
        (ViTImageProcessorPil(size={"height": 16, "width": 12}, resample=2), (50, 37)),
        (ViTImageProcessorPil(size={"height": 16, "width": 16}, resample=3, do_normalize=False), (40, 64)),
        (MobileViTImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, resample=2), (32, 32)),
    ],
    ids=["up, bilinear", "up, bicubic", "down, bilinear", "down, bicubic", "blue first"],
)
def test_pixels_are_what_the_image_processor_makes_of_them(processor: Any, side: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*side, 3), dtype=np.uint8)
    wanted = processor(PIL.Image.fromarray(image), return_tensors="np")["pixel_values"]
    pixels = Pixels.of(json.loads(processor.to_json_string()), 3)
    tuned = Tuned(_Bare(), pixels, (*side, 3))
    found = tuned(torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None])
    level = np.array(pixels.scale).reshape(1, 3, 1, 1) / 255  # Pillow rounds to whole levels after each axis
    assert wanted.shape == tuple(found.shape)
    assert (np.abs(found.numpy() - wanted) / level).max() < 1.6


def test_settings_of_other_kinds() -> None:
    offset = Pixels.of({"size": 12, "rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False}, 1)
    assert (offset.height, offset.width) == (12, 12)
    assert offset.scale == pytest.approx([2.0])
    assert offset.shift == pytest.approx([-1.0])
    raw = Pixels.of({"size": 4, "do_rescale": False, "do_normalize": True, "image_mean": 100.0, "image_std": 50.0}, 1)
    assert raw.scale + raw.shift == pytest.approx((255 / 50, -2.0))
    cropped = {"do_center_crop": True, "crop_size": {"height": 6, "width": 8}, "size": {"shortest_edge": 9}, "do_normalize": False}
    assert (Pixels.of(cropped, 3).height, Pixels.of(cropped, 3).width) == (6, 8)


def test_grey_is_three_equal_channels_and_norms_keep_their_measures(space: Path) -> None:
    grey = Tuned(_Bare(), Pixels(8, 8, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)), (8, 8, 1))
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(grey(x), x.expand(2, 3, 8, 8), atol=1e-6)
    weights = Weights("resnet", DIGITS, space)
    tuned = Tuned(weights.model, weights.pixels, (8, 8, 1)).train()
    norms = [layer for layer in tuned.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert tuned.training
    assert tuned.network.training


# ---------------------------------------------------------------------------------------------------------------- reading


def test_nothing_is_moved_and_nothing_is_read_twice(space: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(space / "vit", tmp_path / "vit")
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    level = transformers.logging.get_verbosity()
    (candidate,) = fine_tuned(["vit", "vit"], DIGITS, folder=tmp_path)
    shutil.rmtree(tmp_path / "vit")
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    assert (transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()) == (level, True)
    assert capfd.readouterr() == ("", "")
    first, second = candidate.make(DIGITS), candidate.make(DIGITS)
    assert isinstance(first, Pretrained)
    assert isinstance(second, Pretrained)
    assert first.weights is second.weights
    assert candidate.name == "pretrained vit"
    assert candidate.note.startswith("'vit' starts from weights that were learnt elsewhere (sha256 ")
    assert fine_tuned([], DIGITS, folder=tmp_path) == ()


def test_whole_layers_are_as_they_were_saved_and_the_last_is_new(space: Path) -> None:
    saved = transformers.AutoModelForImageClassification.from_pretrained(space / "resnet").state_dict()  # which has ten classes too
    family = Pretrained(DIGITS, Weights("resnet", DIGITS, space))
    with torch.random.fork_rng():
        started = family._network((8, 8, 1), 10)
    assert isinstance(started, Tuned)
    same = {name: torch.equal(tensor, saved[name]) for name, tensor in started.network.state_dict().items()}
    assert {name for name, equal in same.items() if not equal} == {"classifier.1.weight", "classifier.1.bias"}


def _config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def _processor(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR | changes)) and None


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(3)}, folder / "pytorch_model.bin")


def _torn(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


SETTINGS = "expected a size, image_mean and image_std that can be used; mend preprocessor_config.json"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "got 'no config.json'; expected a network that transformers saved; name another"),
        (lambda f: (f / "config.json").write_text("{"), 'is not a valid JSON file."; expected a network that transformers saved; name'),
        (
            _config(auto_map={"AutoModel": "own.Own"}),
            "got 'a network with code of its own'; expected one that transformers itself knows; that",
        ),
        (
            _config(model_type="bert"),
            "got 'a network of type bert'; expected one for images that transformers knows, such as vit, convnext",
        ),
        (
            _config(hidden_size="wide"),
            "expected int, got str (value: 'wide')\"; expected settings that transformers takes; mend config.json",
        ),
        (
            _config(num_hidden_layers=3),
            "got 'vit.layers.2.attention.k_proj.bias missing, or of another shape'; expected the weights of all",
        ),
        (
            _config(hidden_size=64),
            "got 'vit.embeddings.cls_token missing, or of another shape'; expected the weights of all layers but the last",
        ),
        (lambda f: (f / "preprocessor_config.json").unlink(), "save them beside it: processor.save_pretrained(FOLDER)"),
        (_processor(size=None), SETTINGS),
        (
            _processor(size={"height": 0, "width": 16}),
            f"got 'ValueError: sizes of at least one pixel, and deviations above zero'; {SETTINGS}",
        ),
        (_processor(image_std=[0.5, 0.0, 0.5]), f"got 'ValueError: sizes of at least one pixel, and deviations above zero'; {SETTINGS}"),
        (_processor(image_mean=[0.5, 0.5]), SETTINGS),
        (_processor(size={"longest_edge": 16}), f"got \"KeyError: 'shortest_edge'\"; {SETTINGS}"),
        (_processor(size=32), "Input image size (32*32) doesn't match model (16*16).\"; expected a network that takes images as its image"),
        (_pickled, "expected weights in safetensors, and never in a pickle; write them with save_pretrained of transformers 5"),
        (_torn, "got 'SafetensorError: Error while deserializing header: "),
    ],
)
def test_what_is_no_use(space: Path, tmp_path: Path, change: Callable[[Path], None], message: str) -> None:
    shutil.copytree(space / "vit", tmp_path / "changed")
    change(tmp_path / "changed")
    with pytest.raises(CaseError) as error:
        Weights("changed", DIGITS, tmp_path)
    assert str(error.value).startswith("train.pretrained: changed: got ")
    assert message in str(error.value)


def test_a_text_network_is_refused(space: Path) -> None:
    with pytest.raises(CaseError, match=r"train\.pretrained: text: got 'a network of type bert'; expected one for images"):
        fine_tuned(["text"], DIGITS, folder=space)


def test_a_large_network_is_refused_before_it_is_read(space: Path, tmp_path: Path) -> None:
    shutil.copytree(space / "vit", tmp_path / "large")
    _config(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24)(tmp_path / "large")
    with pytest.raises(Refused) as error:
        Weights("large", DIGITS, tmp_path)
    assert (
        str(error.value)
        == "train.pretrained: large: got '302,390,282 weights'; expected at most 100,000,000 that learn; name a smaller network"
    )


@pytest.mark.parametrize("text", ["./nowhere", "nowhere", "vit/nowhere", "vit/config.json", "a/b/c", "../x"])
def test_a_slip_in_a_path_asks_nobody(space: Path, text: str) -> None:
    with pytest.raises(CaseError) as error:
        fine_tuned([text], DIGITS, folder=space)
    expected = f"train.pretrained: got '{text}'; expected a folder that save_pretrained wrote, or a name at the hub, owner/name; "
    assert str(error.value) == f"{expected}folders are looked for in {space}"


SCRIPT = """
import sys
asked = []
sys.addaudithook(lambda event, args: asked.append(event) if event.startswith(("socket.connect", "socket.getaddrinfo", "socket.send")) else None)
from pathlib import Path
from makegood.contracts import Task
from makegood.errors import CaseError
from makegood.families import fine_tuned
for text in sys.argv[1].split():
    try:
        print(fine_tuned([text], Task("classes", ("a", "b")), folder=Path(sys.argv[2]))[0].name)
    except CaseError as error:
        print(error)
print(asked)
"""


def _alone(text: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Return what a process of its own says that starts from `text`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    command = [sys.executable, "-c", SCRIPT, text, str(folder)]
    return subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=True)


def test_a_folder_opens_no_connection_and_says_nothing(space: Path) -> None:
    done = _alone("./vit", space)
    assert (done.stdout.splitlines(), done.stderr) == (["pretrained ./vit", "[]"], "")


def test_the_hub_is_not_asked_where_the_environment_says_offline(space: Path, tmp_path: Path) -> None:
    commit = "0" * 39 + "1"
    kept = tmp_path / "hub" / "models--some-one--tiny"
    shutil.copytree(space / "vit", kept / "snapshots" / commit)
    (kept / "refs").mkdir()
    (kept / "refs" / "v1").write_text(commit)
    done = _alone("some-one/tiny@v1 some-one/tiny@v2", space, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    found, absent, asked = done.stdout.splitlines()
    assert found == "pretrained some-one/tiny@v1"
    assert absent.startswith('train.pretrained: some-one/tiny@v2: got "OSError: ')
    assert absent.endswith("expected a network that transformers saved; name another")
    assert (asked, done.stderr) == ("[]", "")


def test_the_missing_extra_is_named() -> None:
    script = (
        "import sys; sys.modules['transformers'] = None\n"
        "from pathlib import Path\n"
        "from makegood.contracts import Task\n"
        "from makegood.errors import MissingExtra\n"
        "from makegood.families import fine_tuned\n"
        "try: fine_tuned(['./vit'], Task('number'), folder=Path())\n"
        "except MissingExtra as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert out == "train.pretrained; expected transformers, which reads and trains networks; pip install 'makegood[pretrained]'"


# ----------------------------------------------------------------------------------------------------------------- a case

CASE = """
case: digits
data: {source: digits.csv, outcome: label, path: file, time: day, image: {size: [8, 8], channels: 1}}
decision:
  unit: points
  actions:
    take: {payoff: {0: 1, 1: -1, 2: -1}}
    leave: {payoff: 0}
train: {budget: 60s, families: constant, pretrained: ./resnet}
"""


def test_from_a_folder_to_decisions_without_torch(space: Path, tmp_path: Path) -> None:
    digits = load_digits()
    shutil.copytree(space / "resnet", tmp_path / "resnet")
    lines = ["file,label,day"]
    for i, at in enumerate(np.flatnonzero(digits.target < 3)[:500]):
        PIL.Image.fromarray(np.rint(digits.images[at] * (255 / 16)).astype(np.uint8)).save(tmp_path / f"{i:03}.png")
        lines.append(f"{i:03}.png,{digits.target[at]},2024-{1 + i // 28 % 12:02}-{1 + i % 28:02}")
    (tmp_path / "digits.csv").write_text("\n".join(lines) + "\n")
    run = pipeline.run(Case.parse(CASE, folder=tmp_path), workspace=tmp_path / "runs")
    assert run.evaluation is not None
    assert run.bundle is not None
    assert {trial["name"]: trial["weight"] for trial in run.evaluation.candidates}["pretrained ./resnet"] == 1.0
    assert run.evaluation.metrics["accuracy"].value > 0.9
    script = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from pathlib import Path\n"
        "from makegood.model import load\n"
        f"model, folder = load({str(run.bundle)!r}), Path({str(tmp_path)!r})\n"
        "print(*[model.decide({'image': (folder / f'{i:03}.png').read_bytes()}).action for i in range(30)])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    model = load(run.bundle)
    assert done.stdout.split() == [model.decide({"image": (tmp_path / f"{i:03}.png").read_bytes()}).action for i in range(30)]
