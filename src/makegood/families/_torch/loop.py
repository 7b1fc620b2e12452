"""The loop in which every network learns, on one device or on several ranks.

Everything random is a pure function of (seed, epoch, step): the order of the rows, dropout, augmentation. So a training that was
stopped and resumed ends with the same bits. A step learns from `batch_size · accumulate` rows; losses give sums and counts, so
that neither accumulation nor the number of ranks changes the gradient beyond rounding.
"""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn
from torch import distributed as dist

from makegood.contracts import Budget
from makegood.errors import CaseError, DataError, Problem, Refused
from makegood.families import accelerator
from makegood.families._torch.checkpoint import Checkpoints
from makegood.families._torch.losses import Loss
from makegood.families._torch.optim import OPTIMISERS, SCHEDULES, factor, optimiser

Weights = dict[str, Tensor]
_PROBE = 10  # steps after which the time of a step is known well enough
_LEAST = 1e-12  # a batch may weigh nothing
_TRIM, _TOP_PAD, _MMAP = -1, -2, -3  # glibc's malloc.h
_ROOMY = ((_MMAP, 1 << 25), (_TRIM, 1 << 30), (_TOP_PAD, 1 << 24))  # 32 MiB is the most that mmap's limit may be
_AFTER = ((_MMAP, 1 << 25), (_TRIM, 1 << 26), (_TOP_PAD, 1 << 17))


@dataclass(frozen=True)
class Rows:
    """n rows held as tensors: what goes in (n, …), what is to come out (n, …), and weights (n,) or None."""

    inputs: Tensor
    target: Tensor
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: Tensor) -> Rows:
        """Return the given rows (m,) int64, in the given order."""
        inputs = self.inputs
        if inputs.ndim == 4 and not inputs.is_contiguous():  # channels last, which index_select would undo
            taken = inputs.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)
        else:
            taken = inputs.index_select(0, rows)
        return Rows(taken, self.target.index_select(0, rows), None if self.weight is None else self.weight.index_select(0, rows))


@dataclass(frozen=True)
class Task:
    """What learns and by which loss; `augment` changes the inputs of a batch, with the generator's randomness alone."""

    model: nn.Module
    loss: Loss
    augment: Callable[[Tensor, Generator], Tensor] | None = None


@dataclass(frozen=True)
class Recipe:
    """How to train. A step learns from `batch_size · accumulate` rows (over all ranks), `batch_size` of them at a time.

    `lr` is the peak of the schedule, which rises to it in the share `warm_up` of all steps. `momentum` is SGD's, and AdamW's β₁.
    `clip` bounds the gradient's norm. `patience` stops after so many epochs without a better loss on the validation rows. `average`
    is the decay of an exponential moving average of the weights, which then stands for them (Polyak & Juditsky 1992); 0 keeps none.
    Raises CaseError, with every value that is out of range.
    """

    epochs: int
    batch_size: int
    lr: float
    optimiser: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["cosine", "one-cycle", "warm-up-stable-decay", "constant"] = "cosine"
    warm_up: float = 0.0
    accumulate: int = 1
    clip: float | None = None
    patience: int | None = None
    average: float = 0.0

    def __post_init__(self) -> None:
        checks = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "lr": (0 < self.lr < math.inf, "a positive number"),
            "optimiser": (self.optimiser in OPTIMISERS, f"one of {', '.join(OPTIMISERS)}"),
            "momentum": (0 <= self.momentum < 1, "a number in [0, 1)"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "a number that is not negative"),
            "schedule": (self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
            "warm_up": (0 <= self.warm_up < 1, "a share in [0, 1)"),
            "accumulate": (self.accumulate >= 1, "at least 1"),
            "clip": (self.clip is None or self.clip > 0, "a positive number, or none"),
            "patience": (self.patience is None or self.patience >= 1, "at least 1, or none"),
            "average": (0 <= self.average < 1, "a decay in [0, 1)"),
        }
        problems = [Problem(f"recipe.{name}", str(getattr(self, name)), expected) for name, (good, expected) in checks.items() if not good]
        if problems:
            raise CaseError(*problems)


@dataclass(frozen=True)
class Runtime:
    """Where to train: torch's name of a device, the type of products ("bf16": autocast), threads (0: as they are), memory format."""

    device: str = "cpu"
    dtype: Literal["fp32", "bf16"] = "fp32"
    threads: int = 0
    channels_last: bool = False

    def __post_init__(self) -> None:
        kind = self.device.partition(":")[0]
        if kind not in ("cpu", "cuda"):
            raise CaseError(Problem("runtime.device", self.device, "cpu, cuda or cuda:N"))
        if kind == "cuda" and not torch.cuda.is_available():
            raise CaseError(
                Problem("runtime.device", self.device, "a GPU that torch can use", "train on cpu, or install torch for this GPU")
            )

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Set threads and memory for training; on leaving, threads and torch's global generators are as they were.

        Time on a GPU is counted (`families.accelerator`).
        """
        threads, gpu = torch.get_num_threads(), self.device != "cpu"
        with (
            torch.random.fork_rng(devices=[self.device] if gpu else []),
            roomy_heap(),
            accelerator.held() if gpu else nullcontext(),
        ):
            if self.threads:
                torch.set_num_threads(self.threads)
            try:
                yield
            finally:
                torch.set_num_threads(threads)

    def generators(self) -> list[Generator]:
        """Return the global generators that a model's dropout draws from."""
        if self.device == "cpu":
            return [torch.default_generator]
        index = int(self.device.partition(":")[2] or torch.cuda.current_device())
        return [torch.default_generator, torch.cuda.default_generators[index]]

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which a model computes its output; autocast that is off still costs 0.1 ms a step."""
        return torch.autocast(torch.device(self.device).type, torch.bfloat16) if self.dtype == "bf16" else nullcontext()

    def place(self, rows: Rows) -> Rows:
        """Return the rows on the device, images (n, c, h, w) in the memory format."""
        inputs = rows.inputs.to(self.device)
        if self.channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return Rows(inputs, rows.target.to(self.device), None if rows.weight is None else rows.weight.to(self.device))


@dataclass(frozen=True)
class Report:
    """Where the training is, after an epoch: losses are means a row (NaN: no validation rows); `left_s` is an estimate."""

    epoch: int
    step: int
    total: int
    loss: float
    valid_loss: float
    left_s: float

    def __str__(self) -> str:
        return f"epoch {self.epoch}, loss {self.loss:.4g}, on validation rows {self.valid_loss:.4g}, {self.left_s:.0f} s left"


@dataclass(frozen=True)
class Session:
    """What one call brings along: its time, its seed, where states are kept and who is told."""

    budget: Budget
    seed: int
    checkpoints: Checkpoints | None = None
    progress: Callable[[Report], None] | None = None


@dataclass
class State:
    """All that a training is, apart from its data. Steps and epochs are those finished; a checkpoint holds `vars(state)`.

    `total` is the number of steps planned, by which the schedule goes. `best` are the weights with the least loss so far (None before
    the first validation), `best_loss` is that loss (without validation rows: the last one on those learnt from), `stale` counts the
    epochs since. `average` is the moving average. Randomness needs no place: it follows from `step`.
    """

    total: int
    weights: Weights
    optimiser: dict[str, Any]
    step: int = 0
    epoch: int = 0
    best_loss: float = math.inf
    best: Weights | None = None
    stale: int = 0
    average: Weights | None = None
    elapsed_s: float = 0.0


def order(n: int, seed: int, epoch: int) -> Tensor:
    """Return the order (n,) int64 in which an epoch goes through n rows."""
    return torch.randperm(n, generator=Generator().manual_seed(_mixed(seed, epoch)))


def train(task: Task, rows: Rows, valid: Rows | None, recipe: Recipe, runtime: Runtime, session: Session) -> State:
    """Return the state in which training ends; `task.model` ends on the device, in evaluation mode, with the best weights.

    The best are those with the least loss on the validation rows after an epoch, the last ones when `valid` is None. At least one
    step is made; out of budget, or on Ctrl-C (raised again), the best weights so far stand. When the epochs do not fit into the
    budget, fewer steps are planned, so that the schedule still comes to its end. Where `torch.distributed` is initialised, every
    rank calls this with the same arguments and learns from its share of each batch. Batch norm sees the rows of one rank and one
    part at a time: with it, accumulation and ranks do change the result.

    Raises CaseError when `patience` lacks validation rows or the checkpoints are of another case; DataError when there are no rows;
    Refused when the loss was never finite.
    """
    if recipe.patience is not None and not valid:
        raise CaseError(Problem("recipe.patience", str(recipe.patience), "validation rows to stop by", "give some, or set it to none"))
    if not len(rows):
        raise DataError(Problem("rows", "0", "at least one row to train on"))
    with runtime.applied():
        run = _Training(task, (rows, valid), recipe, runtime, session)
        try:
            run.go()
        finally:
            run.settle()
    return run.state


class _Training:
    """One training at work."""

    def __init__(self, task: Task, rows: tuple[Rows, Rows | None], recipe: Recipe, runtime: Runtime, session: Session) -> None:
        self.task, self.recipe, self.runtime, self.session = task, recipe, runtime, session
        self.model = task.model.to(runtime.device)
        if runtime.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs forget it
        self.model.train()
        self.rows, self.valid = runtime.place(rows[0]), runtime.place(rows[1]) if rows[1] else None
        self.rank, self.ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)
        self.per_epoch = math.ceil(len(rows[0]) / (recipe.batch_size * recipe.accumulate))
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = optimiser(self.model, recipe.optimiser, recipe.lr, recipe.momentum, recipe.weight_decay)
        self.augmenting = Generator(runtime.device)
        self.generators = [*runtime.generators(), *([self.augmenting] if task.augment else [])]
        self.alone = self.ranks == recipe.accumulate == 1
        self.sums: list[Tensor] = []  # (sum of losses, sum of weights) of each step since the last validation
        self.state = self._first_state()
        self.lists = _floats(self.state.weights, self.state.average)
        self.first, self.before_s = self.state.step, self.state.elapsed_s
        self.began = time.perf_counter()
        self.paced = self.began  # when the second step of this call began: the first warms up
        self.valid_s = 0.0  # that the last validation took

    def _first_state(self) -> State:
        """Return the state to go on from: the latest checkpoint's, or a new one with the first rank's weights."""
        found = self.session.checkpoints.latest() if self.session.checkpoints else None
        if found is None:
            weights = self.model.state_dict()
            self._share(weights.values())
            average = _copy(weights) if self.recipe.average else None
            return State(self.recipe.epochs * self.per_epoch, weights, self.optimiser.state_dict(), average=average)
        state = State(**found)
        self.model.load_state_dict(state.weights)
        self.optimiser.load_state_dict(state.optimiser)
        state.weights = self.model.state_dict()
        if state.average:
            state.average = {name: tensor.to(self.runtime.device) for name, tensor in state.average.items()}
        return state

    def go(self) -> None:
        """Train until the plan is done, patience or the budget is spent, or the loss is no number."""
        state, checkpoints = self.state, self.session.checkpoints
        while state.step < state.total and not self._impatient():
            rows = order(len(self.rows), self.session.seed, state.epoch).to(self.runtime.device)
            for i in range(state.step % self.per_epoch, self.per_epoch):
                self._step(rows[i * len(rows) // self.per_epoch : (i + 1) * len(rows) // self.per_epoch])
                state.step += 1
                if whole := i + 1 == self.per_epoch:
                    state.epoch += 1
                    self._validate()
                last = self._out_of_time(whole) or state.step >= state.total
                if checkpoints and self.rank == 0 and (last or state.step % checkpoints.every_steps == 0):
                    self._note()
                    checkpoints.save(state.step, vars(state))
                if last:
                    if not whole:  # after saving: a resumed training must not know of this validation
                        self._validate()
                    return

    def settle(self) -> None:
        """Leave the best weights in the model, and in the state those that training had come to."""
        self._note()
        self.state.weights = _copy(self.state.weights)
        self.optimiser.zero_grad()
        self.model.eval()
        if self.state.best is not None:
            self.model.load_state_dict(self.state.best)

    def _note(self) -> None:
        self.state.optimiser = self.optimiser.state_dict()
        self.state.elapsed_s = self.before_s + time.perf_counter() - self.began

    def _impatient(self) -> bool:
        return self.recipe.patience is not None and self.state.stale >= self.recipe.patience

    def _step(self, rows: Tensor) -> None:
        """Learn once from the rows of one batch."""
        recipe, step = self.recipe, self.state.step
        for i, generator in enumerate(self.generators):
            generator.manual_seed(_mixed(self.session.seed, self.state.epoch, step, self.rank, i))
        # the middle of the step: at its ends a schedule may be 0, and the first or the last step would be lost
        rate = recipe.lr * factor(recipe.schedule, (step + 0.5) / self.state.total, recipe.warm_up)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad()
        mine = rows[self.rank :: self.ranks] if self.ranks > 1 else rows
        split = mine.tensor_split(recipe.accumulate) if recipe.accumulate > 1 else (mine,)
        parts = [self._part(part) for part in split if len(part)]
        sums = parts[0] if len(parts) == 1 else torch.stack([torch.zeros(2, device=rows.device), *parts]).sum(0)
        if self.ranks > 1:
            sums = self._over_ranks(sums)
        self.sums.append(sums)
        self._scale(sums[1])
        self.optimiser.step()
        if self.lists:
            # early on the average forgets faster, or it would hold the first weights for 1 / (1 - decay) steps
            torch._foreach_lerp_(self.lists[1], self.lists[0], 1 - min(recipe.average, (1 + step) / (10 + step)))

    def _part(self, rows: Tensor) -> Tensor:
        """Add the gradient of the summed loss, of the mean when there is no other part; return (sum of losses, sum of weights)."""
        batch = self.rows.take(rows)
        inputs = batch.inputs if self.task.augment is None else self.task.augment(batch.inputs, self.augmenting)
        loss, count = self._loss(inputs, batch)
        torch.autograd.backward(loss / count.clamp_min(_LEAST) if self.alone else loss)
        return torch.stack((loss.detach(), count))

    def _loss(self, inputs: Tensor, batch: Rows) -> tuple[Tensor, Tensor]:
        with self.runtime.autocast():
            output = self.model(inputs)
        return self.task.loss(output.float() if output.dtype == torch.bfloat16 else output, batch.target, batch.weight)

    def _scale(self, count: Tensor) -> None:
        """Turn gradients into those of the mean loss, their norm within `clip`."""
        if self.alone and self.recipe.clip is None:
            return
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        scale = torch.ones_like(count) if self.alone else 1 / count.clamp_min(_LEAST)
        if self.recipe.clip is not None:
            scale = scale * (self.recipe.clip / (torch.nn.utils.get_total_norm(gradients) * scale)).clamp_max(1)
        torch._foreach_mul_(gradients, scale)

    def _over_ranks(self, sums: Tensor) -> Tensor:
        """Sum gradients and sums over the ranks, in one message."""
        for p in self.parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients] + [sums])
        dist.all_reduce(flat)
        *parts, sums = torch.split(flat, [gradient.numel() for gradient in gradients] + [2])
        torch._foreach_copy_(gradients, [part.view(gradient.shape) for part, gradient in zip(parts, gradients, strict=True)])
        return sums

    def _share(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank the first one's values."""
        for tensor in tensors if self.ranks > 1 else ():
            dense = tensor.contiguous()  # channels-last is not, to gloo
            dist.broadcast(dense, 0)
            tensor.copy_(dense)

    def _validate(self) -> None:
        """Find the loss on the validation rows, keep the weights if they are the best so far, and report."""
        state, began = self.state, time.perf_counter()
        total, count = torch.stack(self.sums).sum(0).tolist()
        self.sums.clear()
        loss, live = total / max(count, _LEAST), None
        if state.average:
            live = _copy(state.weights)
            self.model.load_state_dict({k: state.average[k] if v.is_floating_point() else v for k, v in live.items()})
        self._share(self.model.buffers())
        valid_loss = self._valid_loss(self.valid) if self.valid else math.nan
        judged = valid_loss if self.valid else loss
        finite = math.isfinite(loss) and math.isfinite(judged)
        if finite and (self.valid is None or judged < state.best_loss):
            state.best_loss, state.best, state.stale = judged, _copy(self.model.state_dict()), 0
        else:
            state.stale += 1
        if live:
            self.model.load_state_dict(live)
        if not finite:
            if state.best is None:
                raise Refused(Problem("training loss", str(loss), "a finite number", "lower the learning rate, or look for extreme values"))
            state.total = state.step  # what comes after it is no number either
        self.valid_s = time.perf_counter() - began
        if self.session.progress and self.rank == 0:
            left = min(self.session.budget.left(time.perf_counter()), self._step_s() * (state.total - state.step))
            self.session.progress(Report(state.epoch, state.step, state.total, loss, valid_loss, left))

    @torch.no_grad()
    def _valid_loss(self, valid: Rows) -> float:
        """Return the mean loss on the validation rows; each rank sees its share of them."""
        self.model.eval()
        rows = torch.arange(self.rank, len(valid), self.ranks, device=self.runtime.device)
        sums = [torch.zeros(2, device=self.runtime.device)]
        for part in torch.split(rows, 2 * self.recipe.batch_size):
            batch = valid.take(part)
            sums.append(torch.stack(self._loss(batch.inputs, batch)))
        both = torch.stack(sums).sum(0)
        if self.ranks > 1:
            dist.all_reduce(both)
        self.model.train()
        total, count = both.tolist()
        return float(total / count) if count else math.nan

    def _step_s(self) -> float:
        """Return the seconds a step takes, with its share of the validations."""
        made = self.state.step - self.first - 1
        return (time.perf_counter() - self.paced) / made if made > 0 else 0.0

    def _out_of_time(self, whole: bool) -> bool:
        """Return whether the budget is spent; plan fewer steps when those planned do not fit into it.

        The plan is looked at after a few steps and after each epoch. Ranks go by the first one's clock, now and then.
        """
        state, made = self.state, self.state.step - self.first
        if made == 1:
            self.paced = time.perf_counter()
        if self.ranks > 1 and not whole and made % _PROBE != 1:
            return False
        left = self.session.budget.left(time.perf_counter()) - self.valid_s
        if left > 0 and (whole or made == _PROBE + 1) and self._step_s() > 0:
            if self.sums:
                self.sums[-1].tolist()  # waits for a GPU, whose clock is not ours
            state.total = int(min(state.total, state.step + left / self._step_s()))
        if self.ranks > 1:
            said = torch.tensor([left <= 0, state.total], device=self.runtime.device)
            dist.broadcast(said, 0)
            spent, state.total = said.tolist()
            return bool(spent)
        return left <= 0


def _copy(weights: Weights) -> Weights:
    return {name: tensor.clone() for name, tensor in weights.items()}


def _floats(weights: Weights, average: Weights | None) -> tuple[list[Tensor], list[Tensor]] | None:
    """Return the tensors that an average follows, and its own, in the same order."""
    if average is None:
        return None
    names = [name for name, tensor in weights.items() if tensor.is_floating_point()]
    return [weights[name] for name in names], [average[name] for name in names]


def _mixed(*numbers: int) -> int:
    """Return a seed that any change of a number makes another: torch's generator on a CPU reads but the low half of it."""
    return int.from_bytes(blake2b(repr(numbers).encode(), digest_size=8).digest(), "big")


@contextmanager
def roomy_heap() -> Iterator[None]:
    """Keep freed memory at hand instead of giving it back after each step: 1.7 times as fast where glibc allocates.

    By default glibc maps each large tensor anew, and the kernel fills it with zeros. On leaving, memory is given back; the limits
    cannot be read and restored, so they stay where glibc's own adaptation would end.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):  # another system, or musl
        yield
        return
    assert libc is not None
    for option, size in _ROOMY:
        libc.mallopt(option, size)
    try:
        yield
    finally:
        for option, size in _AFTER:
            libc.mallopt(option, size)
        libc.malloc_trim(0)
