from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from makegood.contracts import Budget
from makegood.errors import CaseError, DataError, Refused
from makegood.families._torch.checkpoint import Checkpoints
from makegood.families._torch.loop import Recipe, Report, Rows, Runtime, Session, State, Task, order, roomy_heap, train
from makegood.families._torch.losses import cross_entropy, squared

ONE = Runtime(threads=1)
EVER = Budget(math.inf, 0.0)
NEVER = Budget(0.0, 0.0)
RECIPE = Recipe(epochs=4, batch_size=16, lr=0.01, weight_decay=0.01)


def rows(n: int, seed: int = 0) -> Rows:
    x = torch.randn(n, 6, generator=Generator().manual_seed(seed))
    return Rows(x, (x[:, 0] + x[:, 1] * x[:, 2] > 0).long(), torch.linspace(0.5, 1.5, n))


def network(seed: int = 0, dropout: float = 0.2) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 2))


def plain(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2)).double()


def double(some: Rows) -> Rows:
    assert some.weight is not None
    return Rows(some.inputs.double(), some.target, some.weight.double())


def noisy(inputs: Tensor, generator: Generator) -> Tensor:
    return inputs + 0.1 * torch.randn(inputs.shape, generator=generator)


def assert_same_bits(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same_bits(a[key], b[key])
    elif isinstance(a, list):
        for one, other in zip(a, b, strict=True):
            assert_same_bits(one, other)
    else:
        assert a == b


def assert_same_training(a: State, b: State) -> None:
    assert_same_bits(vars(a) | {"elapsed_s": 0.0}, vars(b) | {"elapsed_s": 0.0})


def loss_of(model: nn.Module, some: Rows) -> float:
    with torch.no_grad():
        total, count = cross_entropy()(model(some.inputs), some.target, some.weight)
    return float(total / count)


# ------------------------------------------------------------------------------------------------------------------ order


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    torch.manual_seed(1)
    first = order(100, 7, 0)
    assert torch.equal(first.sort().values, torch.arange(100))
    torch.manual_seed(2)
    assert torch.equal(first, order(100, 7, 0))
    assert not torch.equal(first, order(100, 7, 1))
    assert not torch.equal(first, order(100, 8, 0))


def test_every_row_is_learnt_from_once_an_epoch_in_batches_of_like_size() -> None:
    seen: list[Tensor] = []

    def watch(inputs: Tensor, generator: Generator) -> Tensor:
        seen.append(inputs[:, 0])
        return inputs

    numbered = Rows(torch.arange(33.0)[:, None], torch.zeros(33))
    train(Task(nn.Linear(1, 1), squared(), watch), numbered, None, replace(RECIPE, epochs=2), ONE, Session(EVER, 1))
    assert [len(batch) for batch in seen] == [11] * 6  # not 16, 16 and 1, on which batch norm would fail
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert torch.equal(first.sort().values, second.sort().values)
    assert torch.equal(first, order(33, 1, 0).float())
    assert torch.equal(second, order(33, 1, 1).float())


# ----------------------------------------------------------------------------------------------------------------- resume


def session(folder: Path, every: int, budget: Budget = EVER) -> Session:
    return Session(budget, 5, Checkpoints(folder, every, "case"))


@pytest.mark.parametrize(("every", "optimiser"), [(14, "adamw"), (9, "sgd")])
def test_resumed_training_ends_with_the_same_bits(tmp_path: Path, every: int, optimiser: Any) -> None:
    recipe = replace(RECIPE, optimiser=optimiser, average=0.9, accumulate=2, batch_size=8, clip=1.0, patience=4)
    train_rows, valid = rows(100), rows(40, 1)
    model = network()
    whole = train(Task(model, cross_entropy(), noisy), train_rows, valid, recipe, ONE, Session(EVER, 5))
    assert (whole.step, whole.epoch) == (28, 4)
    calls = 0

    def killed(inputs: Tensor, generator: Generator) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > 2 * 16:
            raise KeyboardInterrupt
        return noisy(inputs, generator)

    with pytest.raises(KeyboardInterrupt):
        train(Task(network(), cross_entropy(), killed), train_rows, valid, recipe, ONE, session(tmp_path, every))
    found = Checkpoints(tmp_path, every, "case").latest()
    assert found is not None
    assert found["step"] == every
    other = network(seed=9)
    torch.manual_seed(99)
    resumed = train(Task(other, cross_entropy(), noisy), train_rows, valid, recipe, ONE, session(tmp_path, every))
    assert_same_training(whole, resumed)
    assert_same_bits(dict(model.state_dict()), dict(other.state_dict()))
    again = train(Task(network(seed=3), cross_entropy(), noisy), train_rows, valid, recipe, ONE, session(tmp_path, every))
    assert_same_training(whole, again)  # it was at its end: no step is made


def test_steps_made_one_a_call_are_the_whole_training(tmp_path: Path) -> None:
    task, train_rows, valid = Task(network(), cross_entropy(), noisy), rows(50), rows(20, 1)
    recipe = replace(RECIPE, epochs=3)
    whole = train(task, train_rows, valid, recipe, ONE, Session(EVER, 5))
    for step in range(1, 13):
        task = Task(network(0 if step == 1 else 9), cross_entropy(), noisy)
        state = train(task, train_rows, valid, recipe, ONE, session(tmp_path, 100, NEVER))
        assert state.step == step
    assert state.elapsed_s > 0
    assert_same_training(whole, state)


def test_the_seed_alone_decides() -> None:
    def trained(seed: int) -> State:
        return train(Task(network(), cross_entropy(), noisy), rows(64), None, RECIPE, ONE, Session(EVER, seed))

    torch.manual_seed(1)
    first = trained(1)
    torch.manual_seed(2)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    assert_same_training(first, trained(1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    assert not torch.equal(first.weights["0.weight"], trained(2).weights["0.weight"])


# ------------------------------------------------------------------------------------------------- the same, done in parts


@pytest.mark.parametrize("clip", [None, 0.1])
def test_accumulation_is_a_larger_batch(clip: float | None) -> None:
    states = [
        train(
            Task(plain(), cross_entropy()),
            double(rows(90)),
            None,
            replace(RECIPE, batch_size=b, accumulate=a, clip=clip),
            ONE,
            Session(EVER, 1),
        )
        for b, a in ((32, 1), (8, 4))
    ]
    assert states[0].step == states[1].step == 12
    for name, weight in states[0].weights.items():
        torch.testing.assert_close(weight, states[1].weights[name], rtol=0, atol=1e-9)


RANK = """
import math, sys
import torch
from torch import distributed, nn
from makegood.contracts import Budget
from makegood.families._torch.loop import Recipe, Rows, Runtime, Session, Task, train
from makegood.families._torch.checkpoint import Checkpoints
from makegood.families._torch.losses import cross_entropy
from pathlib import Path

rank, folder = int(sys.argv[1]), Path(sys.argv[2])

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(27, 2))
        self.register_buffer("seen", torch.zeros(()))
    def forward(self, x):
        if self.training:
            self.seen += len(x)
        return self.layers(x)

generator = torch.Generator().manual_seed(0)
x = torch.randn(37, 16, generator=generator, dtype=torch.float64)
rows = Rows(x, (x[:, 0] > 0).long(), torch.rand(37, generator=generator, dtype=torch.float64))
few = rows.take(torch.arange(3))

def ends(ranks):
    ends = {}
    torch.manual_seed(rank)  # the ranks begin with different weights: the first one's count
    for name, some, valid, recipe in (
        ("many", rows, rows, Recipe(6, 8, 0.01, accumulate=2, clip=1.0, average=0.9, patience=5)),
        ("few", few, None, Recipe(3, 1, 0.01, weight_decay=0.1)),  # a rank has no row in any step
    ):
        net, reports = Net().double(), []
        session = Session(Budget(math.inf, 0.0), 3, Checkpoints(folder / f"{name}-of-{ranks}", 5, "case"), reports.append)
        state = train(Task(net, cross_entropy()), some, valid, recipe, Runtime(threads=1, channels_last=True), session)
        ends[name] = {"step": state.step, "weights": dict(net.state_dict()), "best_loss": state.best_loss,
                      "losses": [report.loss for report in reports]}
    spent = train(Task(Net().double(), cross_entropy()), rows, None, Recipe(6, 8, 0.01), Runtime(threads=1), Session(Budget(0.0, 0.0), 3))
    ends["spent"] = spent.step
    torch.save(ends, folder / f"rank-{rank}-of-{ranks}.pt")

if rank == 0:
    ends(1)
distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
ends(2)
distributed.destroy_process_group()
"""


def test_two_ranks_are_one(tmp_path: Path) -> None:
    environment = os.environ | ({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {})
    processes = [subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path)], env=environment) for rank in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    one, first, second = (torch.load(tmp_path / f"rank-{name}.pt", weights_only=True) for name in ("0-of-1", "0-of-2", "1-of-2"))
    for name in ("many", "few"):
        assert one[name]["step"] == first[name]["step"] == second[name]["step"]
        for key in one[name]["weights"]:
            torch.testing.assert_close(first[name]["weights"][key], second[name]["weights"][key], rtol=0, atol=0)
            if key != "seen":
                torch.testing.assert_close(one[name]["weights"][key], first[name]["weights"][key], rtol=0, atol=1e-9)
        assert first[name]["losses"] == pytest.approx(one[name]["losses"], abs=1e-9)
        assert second[name]["losses"] == []  # one rank speaks for all
    assert one["many"]["best_loss"] == pytest.approx(first["many"]["best_loss"], abs=1e-6)
    assert first["spent"] == second["spent"] == 1


# ---------------------------------------------------------------------------------------------------- what training learns


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_it_learns(dtype: Any, optimiser: Any) -> None:
    model, valid = network(), rows(400, 1)
    recipe = Recipe(15, 32, 0.02 if optimiser == "adamw" else 0.3, optimiser, schedule="one-cycle", warm_up=0.3)
    state = train(Task(model, cross_entropy()), rows(1000), valid, recipe, Runtime(dtype=dtype, threads=1), Session(EVER, 1))
    assert state.best_loss < 0.3  # guessing: .69
    assert not model.training
    assert all(weight.dtype != torch.bfloat16 for weight in model.state_dict().values())
    assert loss_of(model, valid) == pytest.approx(state.best_loss, abs=1e-6 if dtype == "fp32" else 0.01)


def test_early_stopping_leaves_the_best_weights() -> None:
    reports: list[Report] = []
    model, noise = network(dropout=0.0), rows(60)
    noise = Rows(noise.inputs, noise.target.flip(0), noise.weight)  # nothing to learn but the rows themselves
    valid = Rows(rows(60, 1).inputs, rows(60, 1).target.flip(0))
    recipe = Recipe(200, 16, 0.02, patience=3, schedule="constant")
    state = train(Task(model, cross_entropy()), noise, valid, recipe, ONE, Session(EVER, 1, progress=reports.append))
    losses = [report.valid_loss for report in reports]
    best = losses.index(min(losses))
    assert state.epoch == len(losses) == best + 4 < 200
    assert state.stale == 3
    assert state.best_loss == min(losses) == pytest.approx(loss_of(model, valid), abs=1e-6)
    assert not torch.equal(state.weights["0.weight"], model[0].weight)  # where training had come to
    assert reports[0].step == 4
    assert reports[0].total == 800
    assert 0 < reports[0].left_s < math.inf
    assert reports[-1].loss < reports[0].loss


def test_without_validation_rows_the_last_weights_stand() -> None:
    reports: list[Report] = []
    model = network()
    state = train(Task(model, cross_entropy()), rows(64), None, RECIPE, ONE, Session(EVER, 1, progress=reports.append))
    assert_same_bits(dict(state.weights), dict(model.state_dict()))
    assert math.isnan(reports[-1].valid_loss)


def test_weights_and_the_mean_of_the_loss_are_as_declared() -> None:
    # one step of plain descent on ½·Σ w·d² / Σ w from 0, by hand
    line = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(line.weight)
    some = Rows(torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 3.0]), torch.tensor([1.0, 3.0]))
    recipe = Recipe(1, 2, 0.1, "sgd", momentum=0.0, schedule="constant")
    train(Task(line, squared()), some, None, recipe, ONE, Session(EVER, 1))
    assert line.weight.item() == pytest.approx(0.1 * 2 * (1 * 1 * 1 + 3 * 3 * 2) / 4)


def test_rows_that_weigh_nothing_change_nothing() -> None:
    model = plain()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    some = replace(double(rows(8)), weight=torch.zeros(8, dtype=torch.float64))
    train(Task(model, cross_entropy()), some, None, Recipe(1, 8, 0.1), ONE, Session(EVER, 1))
    assert_same_bits(before, dict(model.state_dict()))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("clip", [0.01, 1e9])
def test_clip_bounds_the_gradients_norm(clip: float, accumulate: int) -> None:
    def moved(limit: float | None) -> float:
        model = plain()
        before = torch.cat([p.detach().flatten() for p in model.parameters()])
        recipe = Recipe(1, 8, 1.0, "sgd", momentum=0.0, schedule="constant", clip=limit, accumulate=accumulate)
        train(Task(model, cross_entropy()), double(rows(8 * accumulate)), None, recipe, ONE, Session(NEVER, 1))
        return float((torch.cat([p.detach().flatten() for p in model.parameters()]) - before).norm())

    assert moved(clip) == pytest.approx(min(clip, moved(None)), rel=1e-6)


def test_the_average_stands_for_the_weights() -> None:
    model, valid = network(), rows(40, 1)
    begin = model[0].weight.detach().clone()
    state = train(Task(model, cross_entropy()), rows(64), valid, replace(RECIPE, average=0.99), ONE, Session(NEVER, 1))
    expected = begin.lerp(state.weights["0.weight"], 0.9)  # after one step it forgets nine tenths
    torch.testing.assert_close(model[0].weight.detach(), expected)
    assert int(model[1].num_batches_tracked) == 1  # counts are not averaged
    assert state.best_loss == pytest.approx(loss_of(model, valid), abs=1e-6)


def test_channels_last_learns_the_same() -> None:
    images = Rows(torch.randn(40, 2, 8, 8, generator=Generator().manual_seed(1)), torch.arange(40) % 3)
    ends = []
    for channels_last in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        train(Task(model, cross_entropy()), images, images, RECIPE, replace(ONE, channels_last=channels_last), Session(EVER, 1))
        ends.append(model[0].weight.detach())
    assert ends[1].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-3, atol=1e-4)
    batch = replace(ONE, channels_last=True).place(images).take(torch.tensor([3, 1]))
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch.inputs, images.inputs[[3, 1]])


def test_members_in_one_network_learn() -> None:
    class Members(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.all = nn.ModuleList([network(seed) for seed in range(3)])

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([member(x) for member in self.all], 1)

    state = train(Task(Members(), cross_entropy()), rows(300), rows(100, 1), replace(RECIPE, epochs=15, lr=0.02), ONE, Session(EVER, 1))
    assert state.best_loss < 0.5


# ------------------------------------------------------------------------------------------------------------- the budget


def test_without_time_one_step_is_made() -> None:
    model = network()
    begin = model[0].weight.detach().clone()
    state = train(Task(model, cross_entropy()), rows(200), rows(20, 1), RECIPE, ONE, Session(NEVER, 1))
    assert (state.step, state.epoch) == (1, 0)
    assert not torch.equal(begin, model[0].weight)
    assert state.best_loss == pytest.approx(loss_of(model, rows(20, 1)), abs=1e-6)


@pytest.mark.parametrize("n", [64, 640_000])
def test_a_short_budget_shortens_the_schedule(n: int) -> None:
    def slow(inputs: Tensor, generator: Generator) -> Tensor:
        time.sleep(0.01)
        return inputs

    began = time.perf_counter()
    recipe = replace(RECIPE, epochs=100)
    some = Rows(torch.zeros(n, 6), torch.zeros(n, dtype=torch.int64))
    state = train(Task(network(), cross_entropy(), slow), some, None, recipe, ONE, Session(Budget(0.7, began), 1))
    assert time.perf_counter() - began < 1.5
    assert 15 < state.step <= state.total < 80
    assert state.optimiser["param_groups"][0]["lr"] < 0.2 * recipe.lr


def test_ctrl_c_keeps_the_best_weights() -> None:
    reports: list[Report] = []

    def stop(report: Report) -> None:
        reports.append(report)
        if len(reports) == 3:
            raise KeyboardInterrupt

    model, valid = network(), rows(40, 1)
    with pytest.raises(KeyboardInterrupt):
        train(Task(model, cross_entropy()), rows(100), valid, replace(RECIPE, lr=0.3), ONE, Session(EVER, 1, progress=stop))
    assert not model.training
    assert loss_of(model, valid) == pytest.approx(min(report.valid_loss for report in reports), abs=1e-6)


# --------------------------------------------------------------------------------------------------------- what is refused


def test_a_loss_that_is_never_finite_is_refused() -> None:
    endless = Rows(torch.full((16, 6), math.inf), torch.zeros(16, dtype=torch.int64))
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
    with pytest.raises(Refused) as error:
        train(Task(model, cross_entropy()), endless, endless, RECIPE, ONE, Session(EVER, 1))
    assert str(error.value) == "training loss: got 'nan'; expected a finite number; lower the learning rate, or look for extreme values"


def test_training_that_goes_astray_stops_with_the_best_weights() -> None:
    calls = 0

    def spoil(inputs: Tensor, generator: Generator) -> Tensor:
        nonlocal calls
        calls += 1
        return inputs if calls <= 10 else inputs * math.nan

    model, valid = network(), rows(40, 1)
    state = train(Task(model, cross_entropy(), spoil), rows(64), valid, RECIPE, ONE, Session(EVER, 1))
    assert (state.step, state.epoch) == (12, 3)
    assert math.isfinite(state.best_loss)
    assert loss_of(model, valid) == pytest.approx(state.best_loss, abs=1e-6)


def test_recipes_out_of_range_are_refused_with_every_problem() -> None:
    with pytest.raises(CaseError) as error:
        Recipe(0, 0, -1.0, "adam", 1.0, -0.1, "step", 1.0, 0, 0.0, 0, 1.0)  # type: ignore[arg-type]
    assert str(error.value).splitlines() == [
        "recipe.epochs: got '0'; expected at least 1",
        "recipe.batch_size: got '0'; expected at least 1",
        "recipe.lr: got '-1.0'; expected a positive number",
        "recipe.optimiser: got 'adam'; expected one of adamw, sgd",
        "recipe.momentum: got '1.0'; expected a number in [0, 1)",
        "recipe.weight_decay: got '-0.1'; expected a number that is not negative",
        "recipe.schedule: got 'step'; expected one of cosine, one-cycle, warm-up-stable-decay, constant",
        "recipe.warm_up: got '1.0'; expected a share in [0, 1)",
        "recipe.accumulate: got '0'; expected at least 1",
        "recipe.clip: got '0.0'; expected a positive number, or none",
        "recipe.patience: got '0'; expected at least 1, or none",
        "recipe.average: got '1.0'; expected a decay in [0, 1)",
    ]


def test_devices_that_are_not_there_are_refused() -> None:
    with pytest.raises(CaseError, match=r"runtime\.device: got 'tpu'; expected cpu, cuda or cuda:N"):
        Runtime("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(
            CaseError, match=r"got 'cuda:1'; expected a GPU that torch can use; train on cpu, or install torch for this GPU"
        ):
            Runtime("cuda:1")


def test_patience_needs_validation_rows_and_training_needs_rows() -> None:
    task, none = Task(network(), cross_entropy()), rows(0)
    for valid in (None, none):
        with pytest.raises(
            CaseError, match=r"recipe\.patience: got '3'; expected validation rows to stop by; give some, or set it to none"
        ):
            train(task, rows(10), valid, replace(RECIPE, patience=3), ONE, Session(EVER, 1))
    with pytest.raises(DataError, match="rows: got '0'; expected at least one row to train on"):
        train(task, none, None, RECIPE, ONE, Session(EVER, 1))


def test_checkpoints_of_another_case_are_refused(tmp_path: Path) -> None:
    task = Task(network(), cross_entropy())
    train(task, rows(20), None, RECIPE, ONE, session(tmp_path, 1, NEVER))
    with pytest.raises(CaseError, match="got 'case'; expected a checkpoint of other"):
        train(task, rows(20), None, RECIPE, ONE, Session(EVER, 5, Checkpoints(tmp_path, 1, "other")))


# -------------------------------------------------------------------------------------------------------------------- cost


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_roomy_heap_spares_page_faults() -> None:
    import resource

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(50):
            torch.zeros(300_000)  # 1.2 MB
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    outside = faults()
    with roomy_heap():
        faults()
        inside = faults()
    assert inside < outside / 4


def test_a_step_costs_what_a_plain_loops_costs() -> None:
    some = Rows(torch.randn(4096, 64, generator=Generator().manual_seed(0)), torch.arange(4096) % 2)

    def wide() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 2))

    def by_hand() -> None:
        model = wide()
        optimiser = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
        for _ in range(2):
            for batch in torch.randperm(4096).split(256):
                optimiser.zero_grad()
                functional.cross_entropy(model(some.inputs[batch]), some.target[batch]).backward()
                optimiser.step()

    def seconds(work: Any) -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    def ours() -> None:
        train(Task(wide(), cross_entropy()), some, None, Recipe(2, 256, 1e-3), ONE, Session(EVER, 1))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with roomy_heap():
            theirs = min(seconds(by_hand) for _ in range(4))
        mine = min(seconds(ours) for _ in range(4))
    finally:
        torch.set_num_threads(threads)
    assert mine < 1.25 * theirs  # a network this small shows each call too many; a CNN's step hides it
