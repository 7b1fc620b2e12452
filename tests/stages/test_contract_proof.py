"""Four kinds of prediction that no built-in family returns reach a value through the same stages as the others: no branch for any.

Families, data and truth are those of `tests.families.throwaway`; what happens to them here is one function for all.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.families import throwaway

from makegood.contracts import Budget, Dataset, Evaluation, Family, Fold
from makegood.economics import policy, robust, value
from makegood.economics.calibrate import fit_promise
from makegood.economics.payoff import Payoffs
from makegood.economics.policy import Policy
from makegood.stages import evaluate, held_out, metrics, train
from makegood.stages.evaluate import Record
from makegood.stages.held_out import HeldOut, Rows, hold_out


@dataclass(frozen=True)
class Proof:
    """One kind of prediction: who learns it, from what, and what its decisions pay."""

    name: str
    family: Callable[[], Family]
    data: Callable[[], Dataset]
    actions: Mapping[str, Any]
    classes: tuple[str, ...]
    metrics: frozenset[str]

    @property
    def payoffs(self) -> Payoffs:
        """What the actions pay."""
        return Payoffs.of(self.actions, "EUR", self.classes)

    def __str__(self) -> str:
        return self.name


def _some_unclear(n: int = 900) -> Dataset:
    """Return requests with their answers: a third only name a reference, and one in ten has the answer of another request."""
    rng, clear = np.random.default_rng(1), throwaway.questions(n)
    unclear, swapped = rng.random(n) < 1 / 3, rng.random(n) < 0.1
    asked = [f"reference {i}" if unclear[i] else question for i, question in enumerate(clear.table["question"].to_pylist())]
    answers = np.asarray(clear.outcome)
    return Dataset(pa.table({"question": asked}), outcome=np.where(swapped, rng.permutation(answers), answers))


PROOFS = [
    Proof(
        "effects",
        throwaway.TLearner,
        lambda: throwaway.trial(1200),
        {"wait": {"payoff": "outcome"}, "treat": {"payoff": "outcome - 0.5"}},
        (),
        frozenset({"rmse", "mae"}),
    ),
    Proof(
        "ranking",
        throwaway.CoOccurrence,
        lambda: throwaway.baskets(900),
        {"show": {"payoff": {"hit": "1", "miss": "-0.1"}}},
        ("hit", "miss"),
        frozenset({"recall_at_3", "ndcg_at_3"}),
    ),
    Proof(
        "quantiles over a horizon",
        throwaway.SeasonalNaive,
        lambda: throwaway.demand(600),
        {"stock": {"payoff": "3 * min(quantity, outcome) - quantity", "quantity": {"min": 0, "max": 150, "step": 5}}},
        (),
        frozenset({"rmse", "mae", "pinball", "smape", "coverage_90"}),
    ),
    Proof(
        "text",
        throwaway.NearestQuestion,
        _some_unclear,
        {"answer": {"payoff": {"right": "2", "wrong": "-3"}}, "escalate": {"payoff": "0.5"}},
        ("right", "wrong"),
        frozenset({"roc_auc", "accuracy", "log_loss", "brier", "ece"}),
    ),
]


def _held(proof: Proof, data: Dataset) -> HeldOut:
    """Return the last third of the rows, decided by what was learnt from the others: one way for every kind."""
    payoffs, n = proof.payoffs, len(data) * 2 // 3
    learn, test = data.take(np.arange(n)), data.take(np.arange(n, len(data)))
    outcome = np.asarray(learn.outcome)
    fold = Fold(np.arange(n * 2 // 3), np.arange(n * 2 // 3, n))
    money = train.Money(
        expected=lambda predictive, rows: policy.expected(payoffs, predictive, {}),
        realised=lambda predictive, rows: policy.realised(payoffs, predictive, outcome[rows], {}),
    )
    budget = Budget(60.0, time.perf_counter())
    trained = train.train(learn, {proof.name: proof.family}, train.Resampling((fold,)), money, budget=budget, seed=0)
    expected, realised = money.expected(trained.oof, trained.oof_rows), money.realised(trained.oof, trained.oof_rows)
    rows, best = np.arange(len(expected)), expected.argmax(axis=1)
    promise = fit_promise(expected[rows, best], realised[rows, best])
    predictive = trained.predict(test.without_outcome())
    return hold_out(Policy(payoffs, promise=promise), predictive, Rows({}, np.asarray(test.outcome)), realised.mean(axis=0))


@cache
def _evaluated(name: str) -> tuple[HeldOut, Evaluation]:
    proof = next(p for p in PROOFS if p.name == name)
    held = _held(proof, proof.data())
    return held, evaluate.evaluate(held, proof.payoffs, Record({"test": len(held)}))


@pytest.mark.parametrize("proof", PROOFS, ids=str)
def test_every_kind_reaches_a_value_and_a_verdict(proof: Proof) -> None:
    held, found = _evaluated(proof.name)
    assert found.value.low < found.value.value < found.value.high
    assert found.value.unit == found.gain.unit == "EUR"
    assert found.baselines
    assert set(found.gains) == set(found.baselines)
    assert found.verdict == "deploy"
    assert found.gain.low > 0
    assert found.why
    assert found.value.value <= found.oracle.value
    assert set(found.metrics) == proof.metrics
    assert all(m.low <= m.value <= m.high for m in found.metrics.values())
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert len(found.curve) == 101
    assert found.calibration
    assert found.payoff_ranges
    assert len(found.promise_curve) >= 1
    assert held.realised.shape == held.choices.expected.shape


@pytest.mark.parametrize("proof", PROOFS, ids=str)
def test_every_kind_keeps_its_promise(proof: Proof) -> None:
    _, found = _evaluated(proof.name)
    assert found.gap.low <= 0 <= found.gap.high


@pytest.mark.parametrize("proof", [p for p in PROOFS if p.name != "ranking"], ids=str)
def test_every_kind_is_refused_where_outcomes_are_shuffled(proof: Proof) -> None:
    data = proof.data()
    order = np.random.default_rng(0).permutation(len(data))
    shuffled = Dataset(data.table, data.features, np.asarray(data.outcome)[order])
    held = _held(proof, shuffled)
    assert evaluate.evaluate(held, proof.payoffs, Record({"test": len(held)})).verdict == "refuse"


def test_a_personalised_treatment_earns_what_is_known_to_be_there() -> None:
    held, found = _evaluated("effects")
    truth = held.outcome - [0.0, 0.5]  # both potential outcomes of every row are known, as in no real trial
    chosen = truth[np.arange(len(held)), held.choices.option]
    assert found.value.value == pytest.approx(chosen.mean())
    assert found.oracle.value == pytest.approx(truth.max(axis=1).mean())
    # The effect is 3x, x standard normal, at a cost of 0.5: E max(3x − 0.5, 0) = 0.965 above never treating.
    assert found.gains["always wait"].low < 0.965 < found.gains["always wait"].high
    assert found.value.value > 0.98 * found.oracle.value


def test_the_first_place_of_a_ranking_is_worth_its_hits() -> None:
    held, found = _evaluated("ranking")
    first = [items[0] in wanted for items, wanted in zip(held.predictive.items, held.outcome, strict=True)]  # type: ignore[union-attr]
    assert found.value.value == pytest.approx(np.mean(np.where(first, 1.0, -0.1)))
    assert found.shares == {"show": 1.0}
    assert found.baselines["always show"].value == pytest.approx(held.realised.mean())


def test_a_horizon_pays_the_sum_of_its_steps() -> None:
    held, found = _evaluated("quantiles over a horizon")
    quantity = 5.0 * held.choices.option[:, None]
    assert found.value.value == pytest.approx((3 * np.minimum(quantity, held.outcome) - quantity).sum(axis=1).mean())
    assert "always the best stock" in found.baselines
    assert sum(n for *_, n in found.calibration[:1]) == held.outcome.size


def test_an_unsure_answer_is_escalated() -> None:
    held, found = _evaluated("text")
    right = np.array(held.predictive.answers, dtype=object) == held.outcome  # type: ignore[union-attr]
    unclear = [question.startswith("reference") for question in _some_unclear().table["question"].to_pylist()]
    assert ((held.choices.option == 1) == unclear[600:]).mean() > 0.95
    paid = np.where(held.choices.option == 1, 0.5, np.where(right, 2.0, -3.0))
    assert found.value.value == pytest.approx(paid.mean())
    assert found.metrics["accuracy"].value == pytest.approx(right.mean())


def test_the_stages_know_no_family() -> None:
    for module in (train, held_out, evaluate, metrics, policy, value, robust):
        assert "makegood.families" not in inspect.getsource(module)
