"""B10 on a GPU: images/s and tokens/s of our loop, as shares of the measured peak, beside the plainest PyTorch loop.

    python bench/gpu.py            on a machine with a GPU: writes results/gpu.json
    python bench/gpu.py --try      anywhere: the same code on tiny models, to see that it runs; writes nothing

The language model has GPT-2's size (124 M parameters; its tokens are random, for speed is what is measured), the images are 64 × 64 and go
through a residual network. The peak is what a product of large bf16 matrices reaches on the same card. A token costs 6 operations a
parameter and 12 · layers · width · length for attention (Chowdhery et al. 2022, appendix B); an image what torch counts.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import result
from makegood.contracts import Budget
from makegood.families._torch import loop, losses

PAIRS = 5
LIMIT, SHARE = 1.05, 0.45


@dataclass(frozen=True)
class Size:
    """How large the models and the work are."""

    layers: int
    heads: int
    width: int
    words: int
    length: int
    texts: int  # a step
    channels: int
    side: int
    images: int  # a step
    steps: int


REAL = Size(layers=12, heads=12, width=768, words=50_304, length=1024, texts=16, channels=64, side=64, images=512, steps=40)
TINY = Size(layers=2, heads=2, width=32, words=100, length=16, texts=4, channels=4, side=8, images=8, steps=12)


class Block(nn.Module):
    """One layer of a decoder: causal attention and a net, each on what a norm gives."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.net = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, length, width)."""
        n, length, width = x.shape
        q, k, v = self.qkv(self.first(x)).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(n, length, width))
        found: Tensor = x + self.net(self.second(x))
        return found


class Language(nn.Module):
    """A decoder whose last layer shares its weights with the embedding."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.word, self.place = nn.Embedding(size.words, size.width), nn.Embedding(size.length, size.width)
        self.blocks = nn.Sequential(*(Block(size.width, size.heads) for _ in range(size.layers)))
        self.norm = nn.LayerNorm(size.width)
        for table in (self.word, self.place):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, words: Tensor) -> Tensor:
        """Return the logits of each next word (n, length, words)."""
        x = self.word(words) + self.place(torch.arange(words.shape[1], device=words.device))
        logits: Tensor = self.norm(self.blocks(x)) @ self.word.weight.T
        return logits


class Residual(nn.Module):
    """Two convolutions beside a way around them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(part for _ in range(2) for part in (nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, width, height, width of the image)."""
        found: Tensor = x + self.net(x)
        return found


def pictures(size: Size) -> nn.Module:
    """Return a residual network for images (n, 3, side, side) of ten classes."""
    c = size.channels
    parts: list[nn.Module] = [nn.Conv2d(3, c, 3, padding=1)]
    for i in range(3):
        parts += [Residual(c << i), Residual(c << i), nn.Conv2d(c << i, c << (i + 1), 3, stride=2, padding=1)]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c << 3, 10))


def next_word(output: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy of logits (n, length, words) and how many words there were."""
    assert weight is None
    loss = nn.functional.cross_entropy(output.flatten(0, 1), target.flatten(), reduction="sum")
    return loss, torch.tensor(float(target.numel()), device=output.device)


@dataclass(frozen=True)
class Work:
    """A model with its rows, the units that a step works through, and the operations that one of them costs."""

    make: Callable[[], nn.Module]
    loss: losses.Loss
    rows: loop.Rows
    batch: int
    unit: str
    units: int
    operations: float


def works(size: Size) -> dict[str, Work]:
    """Return the two pieces of work, their rows on the CPU."""
    random = torch.Generator().manual_seed(0)
    words = torch.randint(0, size.words, (size.texts * size.steps, size.length + 1), generator=random)
    images = torch.randn(size.images * 4, 3, size.side, size.side, generator=random).repeat(size.steps // 4, 1, 1, 1)
    named = torch.randint(0, 10, (len(images),), generator=random)
    parameters = sum(p.numel() for p in Language(size).parameters())
    with FlopCounterMode(display=False) as counted:
        pictures(size)(images[:1]).sum().backward()
    token = 6.0 * parameters + 12.0 * size.layers * size.width * size.length
    return {
        "language model": Work(
            lambda: Language(size),
            next_word,
            loop.Rows(words[:, :-1], words[:, 1:]),
            size.texts,
            "tokens/s",
            size.texts * size.length,
            token,
        ),
        "residual network": Work(
            lambda: pictures(size),
            losses.cross_entropy(),
            loop.Rows(images, named),
            size.images,
            "images/s",
            size.images,
            float(counted.get_total_flops()),
        ),
    }


def peak(device: str, n: int) -> float:
    """Return the operations a second of a product of (n, n) bf16 matrices: the best of several."""
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(10):
        wait(device)
        start = time.perf_counter()
        for _ in range(10):
            a @ b
        wait(device)
        best = max(best, 10 * 2.0 * n**3 / (time.perf_counter() - start))
    return best


def wait(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device != "cpu":
        torch.cuda.synchronize()


def seconds(work: Work, runtime: loop.Runtime, kind: str) -> float:
    """Return the seconds a step of our loop, or of the plain one, after as many steps to warm up."""
    torch.manual_seed(0)
    model = work.make()
    steps = len(work.rows) // work.batch
    with runtime.applied():
        rows = runtime.place(work.rows)
        for last in (False, True):
            wait(runtime.device)
            start = time.perf_counter()
            if kind == "ours":
                recipe = loop.Recipe(epochs=1, batch_size=work.batch, lr=1e-4, schedule="constant")
                session = loop.Session(Budget(3600.0, start), 0)
                loop.train(loop.Task(model, work.loss), rows, None, recipe, runtime, session)
            else:
                plain(model.to(runtime.device), work, rows, runtime)
            wait(runtime.device)
            if last:
                return (time.perf_counter() - start) / steps
    raise AssertionError


def plain(model: nn.Module, work: Work, rows: loop.Rows, runtime: loop.Runtime) -> None:
    """Train as one writes it down first."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    model.train()
    for batch in torch.split(loop.order(len(rows), 0, 0).to(runtime.device), work.batch):
        optimiser.zero_grad()
        with runtime.autocast():
            output = model(rows.inputs[batch])
        total, count = work.loss(output.float(), rows.target[batch], None)
        torch.autograd.backward(total / count)
        optimiser.step()


def main() -> None:
    """Measure both pieces of work in pairs of runs; on a GPU, write what was found."""
    trying = "--try" in sys.argv
    if not trying and not torch.cuda.is_available():
        sys.exit("no GPU that torch can use is here: run this where one is, or with --try")
    device, size = ("cpu", TINY) if trying else ("cuda", REAL)
    top, rows = peak(device, 256 if trying else 8192), dict[str, Any]()
    for name, work in works(size).items():
        runtime = loop.Runtime(device=device, dtype="bf16", channels_last=name == "residual network")
        kinds = [("plain", "ours") if pair % 2 else ("ours", "plain") for pair in range(1 if trying else PAIRS)]
        pairs = [{kind: seconds(work, runtime, kind) for kind in order} for order in kinds]
        ours = statistics.median(pair["ours"] for pair in pairs)
        ratio = statistics.median(pair["ours"] / pair["plain"] for pair in pairs)
        share = work.units * work.operations / ours / top
        memory = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
        rows[name] = {
            work.unit: round(work.units / ours),
            "share_of_peak": round(share, 3),
            "of_plain": round(ratio, 3),
            "peak_gib": memory,
        }
        print(name, rows[name], file=sys.stderr, flush=True)
    if not trying:
        met = {f"language model >= {SHARE} of the peak": rows["language model"]["share_of_peak"] >= SHARE}
        met |= {f"{name} <= {LIMIT} of plain PyTorch": row["of_plain"] <= LIMIT for name, row in rows.items()}
        card = {"card": torch.cuda.get_device_name(), "peak_tflops": round(top / 1e12, 1)}
        result.write("gpu", {**card, "pairs": PAIRS, "rows": rows, "met": met}, ("makegood", "torch"))


if __name__ == "__main__":
    main()
