"""Models that a case names: found, called with a seed, and every way in which that fails said by the field."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.loops import loans, written

from makegood import pipeline
from makegood.case import Case
from makegood.errors import CaseError, Refused
from makegood.families.named import named
from makegood.families.wrapped import Wrapped
from makegood.families.wrapped_module import Module

MODELS = """
import random

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

import makegood as mg

seen = []

def line():
    return LogisticRegression(C=0.5)

def net():
    return torch.nn.Linear(4, 2)

def tuned():
    return mg.wrap(torch.nn.Linear(4, 2), name="my net", recipe={"epochs": 3})

def linear():
    return line()

def forgets():
    line()

def counts():
    return 3

def fails():
    return {}["depth"]

def asks(width):
    return line()

def leaves():
    raise SystemExit("no more")

def wrong():
    return mg.wrap(torch.nn.Linear(4, 2), recipe={"epoch": 3})

def interrupted():
    raise KeyboardInterrupt

class Silent:
    def fit(self): ...

constant = 5
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models.py").write_text(MODELS)
    return tmp_path


def test_what_a_function_returns_becomes_a_candidate_of_its_name(folder: Path) -> None:
    found = named(["models:line", "models:net", "models:tuned"], folder=folder, seed=0)
    assert [candidate.name for candidate in found] == ["line", "net", "my net"]
    task = Case.parse("{case: x, data: {outcome: y}, decision: {unit: EUR, actions: {a: {payoff: 0}, b: {payoff: 1}}}}")
    assert task.train.model == ()
    made = [candidate.make(None) for candidate in found]  # type: ignore[arg-type]
    assert isinstance(made[0], Wrapped)
    assert isinstance(made[1], Module)
    assert named((), folder=folder, seed=0) == ()


def test_the_seed_decides_the_first_weights_and_the_path_and_generators_are_as_before(folder: Path) -> None:
    before = list(sys.path), random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    weights = []
    for seed in (1, 1, 2):
        (candidate,) = named(["models:net"], folder=folder, seed=seed)
        made = candidate.make(None)  # type: ignore[arg-type]
        assert isinstance(made, Module)
        assert made.module is not None
        weights.append(torch.cat([part.flatten() for part in made.module.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert (sys.path, random.getstate(), np.random.get_state()[1].tolist()) == before[:3]
    assert torch.equal(torch.get_rng_state(), before[3])


def test_an_edited_module_and_one_of_the_same_name_elsewhere_are_read_anew(folder: Path, tmp_path: Path) -> None:
    named(["models:line"], folder=folder, seed=0)
    other = tmp_path / "other"
    (other / "parts").mkdir(parents=True)
    (other / "models.py").write_text("from parts.lines import line as other\n")
    (other / "parts" / "lines.py").write_text("from sklearn.linear_model import LogisticRegression as line\n")
    assert named(["models:other"], folder=other, seed=0)[0].name == "other"
    assert named(["parts.lines:line"], folder=other, seed=0)[0].name == "line"
    (folder / "models.py").write_text("from sklearn.tree import DecisionTreeClassifier as edited_now\n")
    assert named(["models:edited_now"], folder=folder, seed=0)[0].name == "edited_now"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model:line", "train.model: got 'model:line'; expected a module 'model', or the path of a saved model; did you mean 'models'?"),
        ("models:lime", "train.model: got 'models:lime'; expected a function 'lime' in models; did you mean 'line'?"),
        ("models:constant", "train.model: got 'models:constant'; expected a function 'constant' in models; it has "),
        (
            "models:forgets",
            "train.model: models:forgets: got 'it returned nothing'; expected a model, or a Candidate of makegood.wrap; end forgets with "
            "`return model`",
        ),
        (
            "models:counts",
            "train.model: models:counts: got 'it returned int'; expected a model, or a Candidate of makegood.wrap; end counts with "
            "`return model`",
        ),
        (
            "models:fails",
            "train.model: models:fails: got \"calling fails: KeyError: 'depth'\"; expected no error; mend models.py, line 31",
        ),
        (
            "models:asks",
            "train.model: models:asks: got \"calling asks: TypeError: asks() missing 1 required positional argument: 'width'\"; expected no "
            "error; mend it",
        ),
        (
            "models:leaves",
            "train.model: models:leaves: got 'calling leaves: SystemExit: no more'; expected no error; mend models.py, line 37",
        ),
        (
            "models:wrong",
            "train.model: models:wrong: got \"calling wrong: CaseError: recipe: got 'epoch'; expected some of epochs, batch_size, lr,",
        ),
        (
            "models:Silent",
            "train.model: models:Silent: got 'it returned Silent'; expected a model, or a Candidate of makegood.wrap; end Silent with "
            "`return model`",
        ),
        (
            "models:linear",
            "train.model: got 'models:linear'; expected a model with a name of its own, other than 'linear'; name it: return "
            "makegood.wrap(model, name=…)",
        ),
        ("nothing.keras", "train.model: FOLDER/nothing.keras: got "),
        (".", "train.model: "),
        (
            "broken:model",
            "train.model: broken:model: got \"importing broken: SyntaxError: '(' was never closed (broken.py, line 2)\"; expected no error; "
            "mend broken.py, line 2",
        ),
        (
            "needs:model",
            "train.model: needs:model: got \"importing needs: no module 'not_there_at_all'\"; expected a module that can be imported; pip "
            "install not_there_at_all",
        ),
        (
            "raises:model",
            "train.model: raises:model: got 'importing raises: ZeroDivisionError: division by zero'; expected no error; mend rais",
        ),
        (
            "json:loads",
            "train.model: got 'json:loads'; expected a module that is not called 'json', as one of Python's or of a package is; rename json.py",
        ),
    ],
)
def test_what_is_wrong_is_said_by_the_field(folder: Path, text: str, message: str) -> None:
    (folder / "broken.py").write_text("\nmodel = (\n")
    (folder / "needs.py").write_text("import not_there_at_all\n")
    (folder / "raises.py").write_text("1 / 0\n")
    (folder / "json.py").write_text("")
    with pytest.raises((CaseError, Refused)) as error:
        named([text], folder=folder, seed=0)
    assert str(error.value).startswith(message.replace("FOLDER", str(folder)))
    assert str(folder) not in sys.path


def test_a_module_that_lies_nowhere_is_asked_for_beside_the_case(folder: Path) -> None:
    with pytest.raises(CaseError) as error:
        named(["zzz:model"], folder=folder, seed=0)
    assert str(error.value).endswith(f"put zzz.py beside the case file, in {folder}")


def test_two_models_of_one_name_are_refused_and_an_interrupt_passes(folder: Path) -> None:
    with pytest.raises(CaseError, match="a model with a name of its own, other than 'line'"):
        named(["models:line", "models:line"], folder=folder, seed=0)
    with pytest.raises(KeyboardInterrupt):
        named(["models:interrupted"], folder=folder, seed=0)


# ---------------------------------------------------------------------------------------------------------------- a case


@pytest.mark.slow
def test_a_case_trains_the_model_that_it_names_and_check_finds_what_is_wrong(folder: Path) -> None:
    case = written(folder, loans(), replace={"families: linear": "families: constant, model: 'models:line'"})
    assert pipeline.check(case).ok
    done = pipeline.run(case, workspace=folder / "runs")
    assert done.evaluation is not None
    weights = {candidate["name"]: candidate["weight"] for candidate in done.evaluation.candidates}
    assert weights["line"] > 0.5
    assert done.evaluation.verdict == "deploy"
    assert done.report is not None
    text = case.read_text()
    case.write_text(text.replace("models:line", "models:lime"))
    (problem,) = pipeline.check(case).problems
    assert (problem.where, problem.got, problem.next) == ("train.model", "models:lime", "did you mean 'line'?")
    with pytest.raises(CaseError, match="models:lime"):
        pipeline.run(case, workspace=folder / "runs")


def test_what_a_reader_must_know_of_a_model_stands_among_the_findings(folder: Path) -> None:
    (line,) = named(["models:line"], folder=folder, seed=0)
    case = written(folder, loans())
    done = pipeline.run(case, candidates=(replace(line, note="It was trained elsewhere."),), workspace=folder / "runs", until="prepare")
    (found,) = [finding for finding in done.findings if finding.kind == "imported"]
    assert (found.severity, found.action, found.count, found.detail) == ("warning", "kept", 300, "It was trained elsewhere.")
