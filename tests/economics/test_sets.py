"""Prediction sets hold what they say they hold: by hand, by property, and by simulation against a known truth."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from makegood.contracts import Floats, Ints
from makegood.economics.sets import Sets, fit_sets, scores
from makegood.errors import BundleError

REPETITIONS = 2000


def probabilities(k: int = 4, n: int = 12) -> st.SearchStrategy[Floats]:
    """Return strategies of probabilities (n, k) on a coarse grid, so that classes tie."""
    return arrays(np.int64, (n, k), elements=st.integers(0, 6)).map(lambda a: (a + 1e-3) / (a + 1e-3).sum(axis=1, keepdims=True))


# --------------------------------------------------------------------------------------------------------------- by hand


def test_a_class_is_scored_by_what_is_likelier() -> None:
    p = np.array([[0.125, 0.5, 0.25, 0.125], [0.25, 0.25, 0.25, 0.25]])
    assert scores(p).tolist() == [[0.75, 0.0, 0.5, 0.75], [0.0, 0.0, 0.0, 0.0]]


def test_the_reach_is_the_order_statistic_of_the_true_classes_scores() -> None:
    p = np.tile([0.5, 0.25, 0.125, 0.125], (19, 1))
    y = np.repeat([0, 1, 2], [14, 3, 2])  # scores: 14 times 0, 3 times 0.5, twice 0.75
    # (19 + 1) · level is the place of the order statistic: 14, 17, 19, and 19.8, where only the row not yet seen is.
    assert [fit_sets(p, y, level).reach for level in (0.7, 0.85, 0.95, 0.99)] == [0.0, 0.5, 0.75, np.inf]


def test_a_set_has_the_declared_mass_even_where_the_model_is_nearly_always_right() -> None:
    y = np.zeros(1000, dtype=np.int64)
    found = fit_sets(np.tile([0.9, 0.1], (1000, 1)), y, 0.95)
    assert found.reach == 0.0  # the likeliest class alone would hold 95% of the outcomes
    assert found.apply(np.array([[0.96, 0.04], [0.94, 0.06]])).tolist() == [[True, False], [True, True]]


def test_a_sum_that_rounds_decides_nothing() -> None:
    p = np.array([[0.1 + 0.2, 0.7 - 1e-17, 0.0]])
    assert Sets(0.7, 0.0).apply(p).tolist() == [[False, True, False]]  # 0.7 and not 0.6999…: the first class adds nothing
    assert Sets(0.5, 0.7 - 1e-12).apply(p).tolist() == [[True, True, False]]


@pytest.mark.parametrize("n", [1, 5, 18])
def test_too_few_rows_call_for_all_classes(n: int) -> None:
    rng = np.random.default_rng(n)
    p = rng.dirichlet(np.ones(3), n)
    found = fit_sets(p, rng.integers(0, 3, n), 0.95)
    assert found.reach == np.inf
    assert found.apply(p).all()
    assert found.n == n
    assert not fit_sets(np.tile([0.98, 0.01, 0.01], (19, 1)), np.zeros(19, np.int64), 0.95).apply(np.array([[0.98, 0.01, 0.01]])).all()


def test_no_row_at_all_calls_for_all_classes() -> None:
    assert fit_sets(np.empty((0, 3)), np.empty(0, np.int64), 0.9).reach == np.inf


def test_each_group_weighs_the_same() -> None:
    p = np.tile([0.5, 0.3, 0.2], (108, 1))
    y = np.repeat([0, 2], [9, 99])
    groups = np.repeat(np.arange(10), [1] * 9 + [99])  # nine rows alone were foreseen; one group of 99 was not
    assert fit_sets(p, y, 0.8).reach == 0.8
    assert fit_sets(p, y, 0.8, clusters=groups).reach == 0.0
    assert fit_sets(p, y, 0.8, clusters=groups).n == 10


def test_sets_come_back_from_json() -> None:
    for one in (Sets(0.95, 0.0, 40), Sets(0.9, 0.123456789012345678, 7), Sets(0.99, np.inf, 3)):
        assert Sets.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False))) == one


@pytest.mark.parametrize(("level", "reach"), [(0.0, 0.5), (1.0, 0.5), (2.0, None), (0.9, -0.1), (0.9, "nan")])
def test_sets_that_are_none_are_refused(level: float, reach: object) -> None:
    with pytest.raises(
        BundleError, match=r"sets: got 'level .*; expected a level between 0 and 1 and a reach from 0 on; run the case again"
    ):
        Sets.from_json({"level": level, "reach": reach, "n": 1})


# ----------------------------------------------------------------------------------------------------------- by property


@given(probabilities(), arrays(np.int64, 12, elements=st.integers(0, 3)), st.floats(0.5, 0.99), st.floats(0.5, 0.99))
def test_sets_grow_with_the_coverage(p: Floats, y: Ints, one: float, other: float) -> None:
    small, large = (fit_sets(p, y, level).apply(p) for level in sorted((one, other)))
    assert (small <= large).all()


@given(probabilities(), st.floats(0.01, 0.99), st.floats(0.0, 1.0))
def test_no_set_is_empty_and_likelier_classes_come_first(p: Floats, level: float, reach: float) -> None:
    held = Sets(level, reach).apply(p)
    assert held[np.arange(len(p)), p.argmax(axis=1)].all()
    least = np.where(held, p, np.inf).min(axis=1)
    assert (held | (p < least[:, None])).all()  # whatever is as likely as a class of the set is in it
    assert (np.where(held, p, 0.0).sum(axis=1) > level - 1e-8).all()


@given(probabilities(k=5), st.permutations(range(5)), st.floats(0.5, 0.99), st.floats(0.0, 1.0))
def test_the_order_of_classes_and_rows_changes_no_bit(p: Floats, order: list[int], level: float, reach: float) -> None:
    whole, found = scores(p), Sets(level, reach)
    assert scores(p[:, order]).tobytes() == whole[:, order].tobytes()
    assert scores(p[::-1]).tobytes() == whole[::-1].tobytes()
    alone = np.concatenate([scores(p[i : i + 1]) for i in range(len(p))])
    assert alone.tobytes() == whole.tobytes()
    assert all((found.apply(p[i : i + 1]) == found.apply(p)[i]).all() for i in range(len(p)))


# --------------------------------------------------------------------------------------------------------- by simulation

Draw = Callable[[np.random.Generator, int], tuple[Floats, Ints]]


def _drawn(rng: np.random.Generator, truth: Floats) -> Ints:
    return (truth.cumsum(axis=1) < rng.random((len(truth), 1))).sum(axis=1)


def true_model(rng: np.random.Generator, n: int) -> tuple[Floats, Ints]:
    truth = rng.dirichlet(np.ones(4), n)
    return truth, _drawn(rng, truth)


def too_sure(rng: np.random.Generator, n: int) -> tuple[Floats, Ints]:
    truth, y = true_model(rng, n)
    sharp = truth**3
    return sharp / sharp.sum(axis=1, keepdims=True), y


def coarse(rng: np.random.Generator, n: int) -> tuple[Floats, Ints]:
    """Five different rows in all, each many times: every score ties with many."""
    kinds = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.4, 0.3, 0.3], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.0, 0.5]])
    truth = kinds[rng.integers(0, 5, n)]
    return np.tile([0.8, 0.15, 0.05], (n, 1)) * 0.7 + truth * 0.3, _drawn(rng, truth)


def a_class_never_seen(rng: np.random.Generator, n: int) -> tuple[Floats, Ints]:
    """The last class is one in a hundred, and the model gives it next to nothing: it has never seen one."""
    truth, y = too_sure(rng, n)
    return np.column_stack([truth * (1 - 1e-6), np.full(n, 1e-6)]), np.where(rng.random(n) < 0.01, 4, y)


def _coverage(draw: Draw, level: float, n: int, seed: int) -> tuple[float, float]:
    """Return how often a set, calibrated on n rows, held the outcome of one more row; and the mass of the model alone."""
    rng = np.random.default_rng(seed)
    hits, mass = 0, 0
    for _ in range(REPETITIONS):
        p, y = draw(rng, n + 1)
        hits += bool(fit_sets(p[:n], y[:n], level).apply(p[n:])[0, y[n]])
        mass += bool(Sets(level, 0.0).apply(p[n:])[0, y[n]])
    return hits / REPETITIONS, mass / REPETITIONS


@pytest.mark.parametrize("draw", [true_model, too_sure, coarse, a_class_never_seen])
@pytest.mark.parametrize(("level", "n"), [(0.9, 49), (0.95, 200), (0.8, 7)])
def test_one_more_row_is_held_with_the_declared_probability(draw: Draw, level: float, n: int) -> None:
    held, _ = _coverage(draw, level, n, seed=n)
    assert held >= level - 3.0 * np.sqrt(level * (1.0 - level) / REPETITIONS)


def test_a_model_that_is_too_sure_is_mended_and_no_further() -> None:
    held, alone = _coverage(too_sure, 0.9, 49, seed=1)
    assert alone < 0.85  # so that the test above could fail
    assert held <= 0.9 + 1.0 / 50 + 3.0 * np.sqrt(0.09 / REPETITIONS)


def test_a_new_group_is_held_where_groups_differ() -> None:
    """Thirty groups: on the few large ones the model is less sure than it could be, on the many small ones far too sure."""
    rng, level, by_group, by_row = np.random.default_rng(3), 0.9, 0, 0
    for _ in range(REPETITIONS):
        size = np.append(np.where(rng.random(30) < 0.2, 60, 2), 1)
        groups = np.repeat(np.arange(31), size)
        power = np.where(size[groups] > 2, 4.0, 0.1)
        power[-1] = rng.choice([4.0, 0.1], p=[0.2, 0.8])  # the one to come is of either kind, as the others were
        p = rng.dirichlet(np.ones(4), len(groups))
        truth = p ** power[:, None]
        y = _drawn(rng, truth / truth.sum(axis=1, keepdims=True))
        by_group += bool(fit_sets(p[:-1], y[:-1], level, clusters=groups[:-1]).apply(p[-1:])[0, y[-1]])
        by_row += bool(fit_sets(p[:-1], y[:-1], level).apply(p[-1:])[0, y[-1]])
    error = np.sqrt(level * (1.0 - level) / REPETITIONS)
    assert by_group / REPETITIONS >= level - 3.0 * error
    assert by_row / REPETITIONS < level - 3.0 * error  # rows as they come make too much of the large groups


def _discriminant(X: Floats, y: Ints, k: int) -> Callable[[Floats], Floats]:
    """Return linear discriminant analysis, its log odds trebled: it is far too sure of itself."""
    means = np.array([X[y == c].mean(axis=0) for c in range(k)])
    centred = X - means[y]
    precision = np.linalg.inv(centred.T @ centred / (len(X) - k) + 1e-3 * np.eye(X.shape[1]))

    def predict(new: Floats) -> Floats:
        z = new @ precision @ means.T - 0.5 * np.einsum("kd,de,ke->k", means, precision, means)
        p = np.exp(3.0 * (z - z.max(axis=1, keepdims=True)))
        return np.asarray(p / p.sum(axis=1, keepdims=True))

    return predict


def test_out_of_fold_scores_hold_what_is_declared_of_the_average_that_is_deployed() -> None:
    """What is fitted in use: scores out of five folds, sets for the average of the five models; not proven, so simulated."""
    rng, k, d, n, level, repetitions, fresh = np.random.default_rng(4), 3, 8, 120, 0.9, 300, 100
    held, alone = [], []
    for _ in range(repetitions):
        centres = rng.normal(0.0, 0.4, (k, d))
        y = np.arange(n + fresh) % k
        X = centres[y] + rng.normal(size=(n + fresh, d))
        folds = rng.permutation(n) % 5
        oof, average = np.empty((n, k)), np.zeros((fresh, k))
        for f in range(5):
            predict = _discriminant(X[:n][folds != f], y[:n][folds != f], k)
            oof[folds == f] = predict(X[:n][folds == f])
            average += predict(X[n:]) / 5
        rows = np.arange(fresh)
        held.append(fit_sets(oof, y[:n], level).apply(average)[rows, y[n:]].mean())
        alone.append(Sets(level, 0.0).apply(average)[rows, y[n:]].mean())
    error = np.std(held) / np.sqrt(repetitions)
    assert np.mean(held) >= level - 3.0 * error
    assert np.mean(held) <= level + 0.05  # the average is better than each fold's model: wider than need be, but not by much
    assert np.mean(alone) < level - 0.05
