"""An averse policy takes what pays most in the worst case of a prediction set, and what it guarantees holds."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makegood.contracts import Bools, Columns, Floats, Ints, Probabilities
from makegood.economics.calibrate import PromiseMap, fit_promise
from makegood.economics.payoff import Payoffs
from makegood.economics.policy import Policy, expected, guaranteed, realised
from makegood.economics.sets import Sets, fit_sets
from makegood.errors import DataError

TRIAGE: dict[str, Any] = {
    "operate": {"payoff": {"ill": "1000", "well": "-800"}},
    "refer": {"payoff": {"ill": "700", "well": "-100"}},
    "dismiss": {"payoff": {"ill": "-5000", "well": "0"}},
}
LOAN: dict[str, Any] = {
    "lend": {"payoff": {"no": "0.1 * quantity", "yes": "-0.5 * quantity", "late": "0.02 * quantity - fee"},
             "quantity": {"min": 0, "max": 400, "step": 100}},
    "refer": {"payoff": {"no": "5 - fee", "yes": "-fee", "late": "3 - fee"}},
}  # fmt: skip
CLASSES = ("no", "yes", "late")
triage = Policy(Payoffs.of(TRIAGE, "EUR", ("ill", "well")), averse=True)
loan = Policy(Payoffs.of(LOAN, "EUR", CLASSES), averse=True)


def _decided(policy: Policy, p: Floats, sets: Bools, columns: Columns | None = None) -> tuple[list[str], Floats]:
    """Return the names of the options that are chosen, and what they guarantee."""
    seen, columns = Probabilities(policy.payoffs.classes, p), columns or {}
    choices = policy.decide(expected(policy.payoffs, seen, columns), columns, guaranteed(policy.payoffs, seen, columns, sets))
    assert choices.guaranteed is not None
    return [policy.payoffs.options[o].name for o in choices.option], choices.guaranteed


# --------------------------------------------------------------------------------------------------------------- by hand


def test_each_set_has_its_action_by_hand() -> None:
    p = np.array([[0.97, 0.03], [0.03, 0.97], [0.6, 0.4], [0.4, 0.6]])
    sets = np.array([[True, False], [False, True], [True, True], [True, True]])
    names, least = _decided(triage, p, sets)
    assert names == ["operate", "dismiss", "refer", "refer"]
    assert least.tolist() == [1000.0, 0.0, -100.0, -100.0]


def test_without_aversion_a_rare_but_dear_mistake_outside_the_set_still_counts() -> None:
    p, sets = np.array([[0.03, 0.97]]), np.array([[False, True]])
    seen = Probabilities(("ill", "well"), p)
    worth, least = expected(triage.payoffs, seen, {}), guaranteed(triage.payoffs, seen, {}, sets)
    choices = Policy(triage.payoffs).decide(worth, {}, least)  # dismissing: 0.03 · −5000 = −150; referring: 21 − 97 = −76
    assert (choices.option.tolist(), choices.guaranteed) == ([1], np.array([-100.0]))
    assert triage.decide(worth, {}, least).option.tolist() == [2]


def test_of_actions_that_guarantee_the_same_the_expected_payoff_decides() -> None:
    payoffs = Payoffs.of({name: {"payoff": {"a": a, "b": b}} for name, a, b in (("x", 1, 5), ("y", 1, 9), ("z", 0, 99))}, "EUR", ("a", "b"))
    names, least = _decided(Policy(payoffs, averse=True), np.array([[0.5, 0.5]]), np.array([[True, True]]))
    assert (names, least.tolist()) == (["y"], [1.0])


def test_of_actions_that_tie_in_everything_the_first_declared_is_taken() -> None:
    payoffs = Payoffs.of({name: {"payoff": {"a": "0.3", "b": "1"}} for name in "xyz"}, "EUR", ("a", "b"))
    assert _decided(Policy(payoffs, averse=True), np.array([[0.5, 0.5]]), np.array([[True, True]]))[0] == ["x"]


def test_what_differs_by_rounding_is_guaranteed_the_same() -> None:
    payoffs = Payoffs.of({"x": {"payoff": {"a": "0.1 + 0.2", "b": "1"}}, "y": {"payoff": {"a": "0.3", "b": "2"}}}, "EUR", ("a", "b"))
    assert _decided(Policy(payoffs, averse=True), np.array([[0.5, 0.5]]), np.array([[True, True]]))[0] == ["y"]


def test_one_expression_for_all_outcomes_is_read_under_each() -> None:
    payoffs = Payoffs.of({"x": {"payoff": "where(outcome == 'a', 3, -2)"}, "y": {"payoff": 0}}, "EUR", ("a", "b"))
    p = Probabilities(("a", "b"), np.array([[0.9, 0.1], [0.9, 0.1]]))
    assert guaranteed(payoffs, p, {}, np.array([[True, False], [True, True]])).tolist() == [[3.0, 0.0], [-2.0, 0.0]]


def test_a_payoff_without_a_value_is_told() -> None:
    p = Probabilities(CLASSES, np.full((1, 3), 1 / 3))
    with pytest.raises(DataError, match="fee"):
        guaranteed(loan.payoffs, p, {"fee": np.array([np.nan])}, np.ones((1, 3), np.bool_))


def test_an_averse_policy_decides_by_sets_alone() -> None:
    with pytest.raises(AssertionError, match="decides by what is guaranteed"):
        triage.decide(np.zeros((1, 3)), {})


def test_promises_of_an_averse_policy_are_mapped_and_its_actions_are_not() -> None:
    p, sets = np.array([[0.97, 0.03], [0.6, 0.4]]), np.array([[True, False], [True, True]])
    seen = Probabilities(("ill", "well"), p)
    worth, least = expected(triage.payoffs, seen, {}), guaranteed(triage.payoffs, seen, {}, sets)
    plain, mapped = triage.decide(worth, {}, least), triage.promising(PromiseMap(0.5, -10.0, n=500)).decide(worth, {}, least)
    assert plain.option.tolist() == mapped.option.tolist() == [0, 1]
    assert plain.promise.tolist() == [0.97 * 1000 - 0.03 * 800, 0.6 * 700 - 0.4 * 100]
    assert mapped.promise.tolist() == (plain.promise * 0.5 - 10.0).tolist()
    assert mapped.guaranteed is not None
    assert mapped.guaranteed.tolist() == [1000.0, -100.0]  # what is guaranteed is no estimate of a mean


def test_a_batch_of_an_averse_policy_is_decided_row_by_row() -> None:
    seen = Probabilities(("ill", "well"), np.array([[0.97, 0.03], [0.6, 0.4]]))
    worth = expected(triage.payoffs, seen, {})
    least = guaranteed(triage.payoffs, seen, {}, np.ones((2, 2), np.bool_))
    assert triage.decide_all(worth, {}, least).option.tolist() == triage.decide(worth, {}, least).option.tolist() == [1, 1]


def test_an_averse_policy_comes_back_from_json() -> None:
    again = Policy.from_json(json.loads(json.dumps(loan.to_json())))
    assert again.averse
    assert again == loan
    assert not Policy.from_json(Policy(loan.payoffs).to_json()).averse


def test_fitting_keeps_the_aversion() -> None:
    fitted = [Policy.fit(triage.payoffs, {}, np.zeros((n, 3)), {}, averse=True) for n in (0, 4)]
    assert all(policy.averse for policy in fitted)
    assert not Policy.fit(triage.payoffs, {}, np.zeros((4, 3)), {}).averse


# ----------------------------------------------------------------------------------------------------------- by property


def _rows(seed: int, n: int) -> tuple[Floats, Bools, Columns]:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(3, 0.5), n)
    return p, Sets(0.8, float(rng.random())).apply(p), {"fee": rng.integers(0, 4, n).astype(np.float64)}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_the_choice_is_the_best_of_the_worst_cases(seed: int, n: int) -> None:
    p, sets, columns = _rows(seed, n)
    names, least = _decided(loan, p, sets, columns)
    table = loan.payoffs.table(columns)  # (n, n_options, n_classes), another way to the payoffs
    worst = np.where(sets[:, None, :], table, np.inf).min(axis=2)
    assert np.allclose(least, worst.max(axis=1), rtol=0, atol=1e-9)
    mean = (table * p[:, None, :]).sum(axis=2)
    for i, name in enumerate(names):
        tied = np.flatnonzero(worst[i] >= worst[i].max() - 1e-9)
        chosen = [option.name for option in loan.payoffs.options].index(name)
        assert chosen in tied
        assert mean[i, chosen] == pytest.approx(mean[i, tied].max())


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_a_row_alone_is_decided_as_among_others_to_the_last_bit(seed: int, n: int) -> None:
    p, sets, columns = _rows(seed, n)
    names, least = _decided(loan, p, sets, columns)
    for i in range(n):
        alone, its_least = _decided(loan, p[i : i + 1], sets[i : i + 1], {"fee": columns["fee"][i : i + 1]})
        assert (alone[0], float(its_least[0]).hex()) == (names[i], float(least[i]).hex())


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_without_aversion_sets_change_no_bit_of_a_decision(seed: int, n: int) -> None:
    p, sets, columns = _rows(seed, n)
    policy = Policy(loan.payoffs, promise=PromiseMap(0.9, 0.1, n=200))
    seen = Probabilities(CLASSES, p)
    worth, least = expected(loan.payoffs, seen, columns), guaranteed(loan.payoffs, seen, columns, sets)
    plain, told = policy.decide(worth, columns), policy.decide(worth, columns, least)
    assert plain.option.tobytes() == told.option.tobytes() == worth.argmax(axis=1).tobytes()
    assert plain.promise.tobytes() == told.promise.tobytes()
    assert plain.guaranteed is None
    assert told.guaranteed is not None
    assert told.guaranteed.tobytes() == least[np.arange(n), told.option].tobytes()
    together = policy.decide_all(worth, columns, least)
    assert together.guaranteed is not None
    assert together.guaranteed.tobytes() == told.guaranteed.tobytes()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([-1.0, 0.0, 0.5, 4.0]))
def test_wider_sets_guarantee_no_more(seed: int, shift: float) -> None:
    p, sets, columns = _rows(seed, 20)
    wider = sets | Sets(0.95, 0.5 + shift / 10).apply(p)
    assert (_decided(loan, p, wider, columns)[1] <= _decided(loan, p, sets, columns)[1]).all()


# --------------------------------------------------------------------------------------------------------- by simulation


def _patients(rng: np.random.Generator, n: int) -> tuple[Floats, Ints]:
    """Return what a model too sure of itself says of patients, and how they are."""
    truth = rng.beta(0.6, 1.2, n)
    said = truth**2.5 / (truth**2.5 + (1 - truth) ** 2.5)
    return np.column_stack([said, 1 - said]), (rng.random(n) >= truth).astype(np.int64)


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_the_guarantee_holds_with_its_probability(alpha: float) -> None:
    """One decision after a calibration on 80 others, 2,000 times over: the payoff is rarely below what was guaranteed of it."""
    rng, repetitions = np.random.default_rng(11), 2000
    p, y, sets = np.empty((repetitions, 2)), np.empty(repetitions, np.int64), np.empty((repetitions, 2), np.bool_)
    for i in range(repetitions):
        said, came = _patients(rng, 81)
        p[i], y[i], sets[i] = said[80], came[80], fit_sets(said[:80], came[:80], 1 - alpha).apply(said[80:])[0]
    names, least = _decided(triage, p, sets)
    paid = realised(triage.payoffs, Probabilities(("ill", "well"), p), y, {})
    slack = paid[np.arange(repetitions), [list(TRIAGE).index(name) for name in names]] - least
    broken = float(np.mean(slack < 0))
    assert broken <= alpha + 3.0 * np.sqrt(alpha * (1 - alpha) / repetitions)
    assert np.quantile(slack, alpha + 0.02) >= 0.0
    assert broken > 0  # mistakes do happen in this world


def test_it_refers_exactly_where_the_set_says_so() -> None:
    """A dear mistake and a cheap referral: who may be either is referred, and so is nobody else."""
    rng = np.random.default_rng(12)
    truth = rng.beta(0.6, 1.2, 20_000)
    p, y = np.column_stack([truth, 1 - truth]), (rng.random(20_000) >= truth).astype(np.int64)  # the truth itself is predicted
    sets = fit_sets(p[:10_000], y[:10_000], 0.95)
    names, least = _decided(triage, p[10_000:], sets.apply(p[10_000:]))
    doubtful = (truth[10_000:] > 0.05 + 1e-9) & (truth[10_000:] < 0.95 - 1e-9)  # known: the sets of the truth need no widening
    assert sets.reach <= 0.95
    assert [name == "refer" for name in names] == doubtful.tolist()
    seen = Probabilities(("ill", "well"), p[10_000:])
    paid = realised(triage.payoffs, seen, y[10_000:], {})
    chosen = paid[np.arange(10_000), [list(TRIAGE).index(name) for name in names]]
    assert (chosen < least).mean() <= 0.05


def test_promises_of_averse_actions_are_kept_on_average() -> None:
    """A model too sure of itself promises too much of what it guarantees; the map is fitted on the actions that are taken."""
    rng, alpha = np.random.default_rng(14), 0.1

    def acted(n: int, sets: Sets, policy: Policy) -> tuple[Floats, Floats]:
        p, y = _patients(rng, n)
        seen = Probabilities(("ill", "well"), p)
        choices = policy.decide(expected(policy.payoffs, seen, {}), {}, guaranteed(policy.payoffs, seen, {}, sets.apply(p)))
        return choices.promise, realised(policy.payoffs, seen, y, {})[np.arange(n), choices.option]

    sets = fit_sets(*_patients(rng, 500), 1 - alpha)
    kept = triage.promising(fit_promise(*acted(20_000, sets, triage)))
    for policy, holds in ((triage, False), (kept, True)):
        promise, paid = acted(20_000, sets, policy)
        gap, error = float((promise - paid).mean()), float((promise - paid).std()) / np.sqrt(20_000)
        assert (abs(gap) < 4 * error) == holds  # the map has an error of its own, as large as that of the rows


def test_no_policy_on_the_same_sets_guarantees_more() -> None:
    """All policies that see only a set, of which there are 3³: what each pays at least with probability 95%, and what this one does."""
    rng = np.random.default_rng(13)
    p, y = _patients(rng, 4000)
    sets = fit_sets(p[:2000], y[:2000], 0.95).apply(p[2000:])
    table = triage.payoffs.table({"": np.zeros(1)})[0]
    kind = sets[:, 0] + 2 * sets[:, 1] - 1  # ill alone, well alone, either
    worst = np.array([[table[a, [c for c in (0, 1) if (k + 1) >> c & 1]].min() for a in range(3)] for k in range(3)])
    share = np.bincount(kind, minlength=3) / len(kind)
    ours = _decided(triage, p[2000:], sets)[1].mean()
    others = [sum(share[k] * worst[k, a] for k, a in enumerate(rule)) for rule in product(range(3), repeat=3)]
    assert ours == pytest.approx(max(others))
    assert sorted(others)[-2] < ours
