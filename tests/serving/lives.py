"""Bundles that serve, packed from the models of `tests.bundles` into folders that end with the process."""

from __future__ import annotations

import io
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from sklearn.datasets import load_digits
from tests import bundles

from makegood import pipeline
from makegood.case import Case
from makegood.economics.payoff import Payoffs
from makegood.economics.policy import Policy
from makegood.economics.sets import Sets
from makegood.model import Model, pack
from makegood.serving.live import Live, bring

_DIGITS = """
case: digits
data: {source: digits.npz, outcome: label, image: {size: [8, 8], channels: 1}}
decision:
  unit: points
  actions:
    take: {payoff: {0: 1, 1: -1, 2: -1}}
    leave: {payoff: 0}
train: {budget: 2s, families: [linear]}
serve: {reasons: 1}
"""
_FOLDER = tempfile.TemporaryDirectory(prefix="makegood-lives-")


def live(model: Model, name: str) -> Live:
    """Return a model as a bundle that was packed and brought."""
    folder = Path(_FOLDER.name) / name
    pack(model, folder, rows=model.background, card="card")
    return bring(folder)


def serving(model: Model, **serve: Any) -> Model:
    """Return a model whose case says this of serving."""
    return replace(model, case={**model.case, "serve": serve})


@cache
def champion() -> Live:
    """Return loans, without reasons."""
    return live(serving(bundles.loans()), "champion")


@cache
def challenger() -> Live:
    """Return loans by uncalibrated probabilities: other promises, and here and there another action."""
    return live(replace(serving(bundles.loans()), calibrator=None), "challenger")


BUDGET, WEEK_S = 20_000.0, 604_800.0
"""What `exploring` may spend on exploration in a week."""


def customers(model: Model, **more: Any) -> Model:
    """Return a model whose case decides on customers, who come again, and says more at the top."""
    model = serving(model)
    return replace(model, case={**model.case, "data": {**model.case["data"], "group": "customer"}, **more})


@cache
def exploring() -> Live:
    """Return loans to customers, of a case that declares exploration."""
    return live(customers(bundles.loans(), feedback={"explore": {"budget": [BUDGET, WEEK_S]}}), "exploring")


@cache
def bold() -> Live:
    """Return loans by other payoffs, which approves more often than `exploring`."""
    actions: dict[str, Any] = {
        "approve": {"payoff": {"no": "0.08 * amount", "yes": "-0.1 * amount"}},
        "refer": {"payoff": "-40"},
        "decline": {"payoff": "0"},
    }
    return live(customers(replace(bundles.loans(), calibrator=None, policy=Policy(Payoffs.of(actions, "EUR", ("no", "yes"))))), "bold")


@cache
def reasoning() -> Live:
    """Return loans with two reasons a decision."""
    return live(serving(bundles.loans(), reasons=2), "reasoning")


@cache
def discreet() -> Live:
    """Return loans with two reasons a decision, and no inputs in the ledger."""
    return live(serving(bundles.loans(), reasons=2, inputs="hash"), "discreet")


@cache
def stock() -> Live:
    """Return the bakery: a number, and one action with a quantity."""
    return live(bundles.bakery(), "stock")


@cache
def careful() -> Live:
    """Return loans with prediction sets, by which an averse policy decides, and what it guarantees."""
    model = serving(bundles.loans())
    policy = Policy(model.policy.payoffs, promise=model.policy.promise, averse=True)
    return live(replace(model, policy=policy, sets=Sets(0.9, 0.97, 200)), "careful")


@cache
def digits() -> Live:
    """Return a model that takes zeros and leaves ones and twos, by their images, trained on scikit-learn's digits."""
    folder, data = Path(_FOLDER.name), load_digits()
    kept = np.flatnonzero(data.target < 3)[:240]
    np.savez(folder / "digits.npz", images=data.images[kept], labels=data.target[kept])
    run = pipeline.run(Case.parse(_DIGITS, folder=folder), workspace=folder / "digits")
    assert run.bundle is not None
    return bring(run.bundle)


def png(label: int) -> bytes:
    """Return the first image of a digit, as a PNG file."""
    data, out = load_digits(), io.BytesIO()
    image = np.rint(data.images[np.flatnonzero(data.target == label)[0]] * (255 / 16)).astype(np.uint8)
    PIL.Image.fromarray(image).save(out, "PNG")
    return out.getvalue()
