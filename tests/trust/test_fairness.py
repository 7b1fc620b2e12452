"""Rates by group equal scikit-learn's, group by group; intervals hold the truth; nobody is left out."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from makegood.contracts import Bools, Ints
from makegood.trust.fairness import MISSING, OTHERS, Group, Treatment, compare, levels


def _loans(n: int = 600, seed: int = 0) -> tuple[Treatment, dict[str, np.ndarray]]:
    """Return 600 loans declined by a score that is harsher on group b, and two protected columns."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(np.array(["a", "b"], dtype=object), n, p=[0.7, 0.3])
    bad = rng.random(n) < 0.3
    declined = rng.random(n) < np.where(bad, 0.7, 0.2) + 0.1 * (sex == "b")
    payoff = np.where(declined, 0.0, np.where(bad, -50.0, 10.0))
    age = rng.integers(18, 80, n).astype(np.float64)
    return Treatment("EUR", ("approve", "decline"), declined.astype(np.int64), payoff, 1, bad), {"sex": sex, "age": age}


def _by_level(groups: tuple[Group, ...], column: str) -> dict[str, Group]:
    return {g.level: g for g in groups if g.column == column}


def _parity(chosen: Ints, bad: Bools) -> tuple[float, float, float]:
    (tn, fp), (fn, tp) = confusion_matrix(bad, chosen, labels=[0, 1])
    return (tp + fp) / (tn + fp + fn + tp), tp / (tp + fn), fp / (fp + tn)


def test_rates_equal_scikit_learn_group_by_group() -> None:
    loans, protected = _loans()
    groups = _by_level(compare(loans, protected), "sex")
    rates = {}
    for level, group in groups.items():
        rows = protected["sex"] == level
        rates[level] = _parity(loans.action[rows], loans.positive[rows])
        assert (group.selection.value, group.tpr.value, group.fpr.value) == pytest.approx(rates[level])
        assert group.value.value == pytest.approx(loans.payoff[rows].mean())
        assert group.shares["approve"].value + group.shares["decline"].value == pytest.approx(1.0)
        assert group.n == rows.sum()
    b = groups["b"]
    assert b.difference.value == pytest.approx(rates["b"][0] - rates["a"][0])
    assert b.ratio.value == pytest.approx(rates["b"][0] / rates["a"][0])
    assert b.tpr_difference.value == pytest.approx(rates["b"][1] - rates["a"][1])
    assert b.fpr_difference.value == pytest.approx(rates["b"][2] - rates["a"][2])
    assert b.selected == "decline"


def test_the_largest_level_comes_first_and_is_the_reference() -> None:
    loans, protected = _loans()
    first, second = compare(loans, {"sex": protected["sex"]})
    assert (first.level, first.reference) == ("a", True)
    assert (second.level, second.reference) == ("b", False)
    assert (first.difference.value, first.difference.low, first.difference.high) == (0.0, 0.0, 0.0)
    assert first.ratio.value == 1.0


@pytest.mark.slow
def test_intervals_of_difference_and_ratio_hold_the_truth() -> None:
    held = np.zeros(3)
    for seed in range(120):
        rng = np.random.default_rng(seed)
        group = rng.choice(np.array(["a", "b"], dtype=object), 500, p=[0.6, 0.4])
        chosen = (rng.random(500) < np.where(group == "a", 0.5, 0.3)).astype(np.int64)
        b = _by_level(compare(Treatment("", ("no", "yes"), chosen, chosen * 1.0, 1), {"g": group}), "g")["b"]
        truth = ((b.selection, 0.3), (b.difference, -0.2), (b.ratio, 0.6))
        held += [e.low <= t <= e.high for e, t in truth]
    assert (held >= 109).all()  # 95% of 120 less two standard errors


def test_clusters_that_lie_in_both_groups_count_once() -> None:
    group = np.tile(np.array(["a", "b"], dtype=object), 100)
    chosen = np.repeat(np.random.default_rng(0).random(100) < 0.5, 2).astype(np.int64)  # both members of a pair alike
    pairs = np.repeat(np.arange(100), 2)
    alone = _by_level(compare(Treatment("", ("no", "yes"), chosen, chosen * 1.0, 1), {"g": group}), "g")["b"]
    paired = _by_level(compare(Treatment("", ("no", "yes"), chosen, chosen * 1.0, 1, None, pairs), {"g": group}), "g")["b"]
    assert alone.difference.high > 0.1
    assert paired.difference.high == pytest.approx(0.0, abs=1e-9)


def test_without_a_binary_outcome_there_are_no_error_rates() -> None:
    loans, protected = _loans()
    groups = compare(Treatment("EUR", loans.actions, loans.action, loans.payoff, 0), protected)
    assert all(g.tpr is g.fpr is g.tpr_difference is g.fpr_difference is None for g in groups)


def test_a_rate_that_nobody_could_have_is_nan() -> None:
    action, bad = np.array([1, 0, 1, 0]), np.array([True, True, False, False])
    group = np.array(["a", "a", "a", "b"], dtype=object)
    a, b = compare(Treatment("EUR", ("no", "yes"), action, action * 1.0, 1, bad), {"g": group})
    assert np.isnan(b.tpr.value)
    assert np.isnan(b.tpr_difference.value)
    assert b.fpr.value == 0.0
    assert np.isnan(b.value.low)  # one row allows no interval
    assert a.n == 3


def test_no_difference_from_a_reference_without_positives() -> None:
    action, bad = np.array([1, 0, 1]), np.array([False, False, True])
    group = np.array(["a", "a", "b"], dtype=object)
    _, b = compare(Treatment("EUR", ("no", "yes"), action, action * 1.0, 1, bad), {"g": group})
    assert b.tpr.value == 1.0
    assert np.isnan(b.tpr_difference.value)


def test_there_is_no_ratio_to_nothing() -> None:
    action = np.array([0, 0, 1])
    _, b = compare(Treatment("EUR", ("no", "yes"), action, action * 1.0, 1), {"g": np.array(["a", "a", "b"], dtype=object)})
    assert np.isnan(b.ratio.value)
    assert b.difference.value == 1.0


def _names(values: np.ndarray) -> tuple[str, ...]:
    names, code = levels(values)
    assert set(code.tolist()) == set(range(len(names)))
    return names


def test_numbers_are_split_at_their_quartiles() -> None:
    names, code = levels(np.arange(100.0))
    assert names == ("up to 24.75", "24.75 to 49.5", "49.5 to 74.25", "over 74.25")
    assert np.bincount(code).tolist() == [25, 25, 25, 25]


def test_few_distinct_numbers_are_levels_of_their_own() -> None:
    assert _names(np.array([1.0, 0.0, 1.0, np.nan])) == ("0", "1", MISSING)
    assert _names(np.array([True, False])) == ("0", "1")


def test_a_number_that_is_mostly_one_value_has_fewer_levels() -> None:
    assert _names(np.concatenate([np.zeros(80), np.arange(1.0, 21.0)])) == ("up to 0", "over 0")


def test_large_numbers_are_written_out() -> None:
    assert _names(np.arange(0.0, 100_000.0, 1000.0))[0] == "up to 24750"


def test_rare_categories_are_pooled_and_missing_ones_named() -> None:
    values = np.array([*"aabbccddeeffgghhijkl", None], dtype=object)
    assert _names(values) == (*"abcdefgh", OTHERS, MISSING)


def test_every_value_missing_is_one_level() -> None:
    assert _names(np.full(3, np.nan)) == (MISSING,)
    assert _names(np.full(3, None, dtype=object)) == (MISSING,)


def test_every_row_is_in_one_group_of_each_column() -> None:
    loans, protected = _loans()
    groups = compare(loans, protected)
    assert sum(g.n for g in groups if g.column == "age") == 600
    assert len({(g.column, g.level) for g in groups}) == len(groups)


def test_one_level_is_its_own_reference() -> None:
    (only,) = compare(
        Treatment("EUR", ("no", "yes"), np.ones(12, dtype=np.int64), np.arange(12.0), 1), {"g": np.full(12, "x", dtype=object)}
    )
    assert (only.value.value, only.selection.value, only.value.unit) == (5.5, 1.0, "EUR")
