"""Reasons: exact where they can be, unbiased where sampled, and always summing to the margin over the background's."""

from __future__ import annotations

import time
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makegood.contracts import Columns, Floats
from makegood.trust.explain import EXACT, Explanation, drivers, reasons


def table(values: Floats) -> dict[str, Floats]:
    return {f"c{j}": values[:, j].copy() for j in range(values.shape[1])}


def game(n_columns: int, n_background: int, seed: int = 0) -> tuple[dict[str, Floats], dict[str, Floats], Floats]:
    rng = np.random.default_rng(seed)
    return table(rng.normal(size=(1, n_columns))), table(rng.normal(size=(n_background, n_columns))), rng.normal(size=n_columns)


def linear(weights: Floats):
    return lambda c: sum(w * c[f"c{j}"] for j, w in enumerate(weights))


def bent(weights: Floats):
    """A margin with interactions of neighbours and a kink."""

    def margin(c: Columns) -> Floats:
        columns = [c[f"c{j}"] for j in range(len(weights))]
        linear_part = sum(w * x for w, x in zip(weights, columns, strict=True))
        return linear_part + sum(a * b for a, b in pairwise(columns)) + np.maximum(columns[0], columns[-1])

    return margin


def test_linear_margin_gives_the_textbook_values_when_enumerated() -> None:
    row, background, weights = game(5, 7)
    explained = reasons(linear(weights), row, background)
    expected = [w * (row[f"c{j}"][0] - background[f"c{j}"].mean()) for j, w in enumerate(weights)]
    assert explained.exact
    assert explained.money == pytest.approx(expected, abs=1e-12)


def test_linear_margin_gives_the_textbook_values_when_sampled_over_the_whole_background() -> None:
    row, background, weights = game(20, 16)
    explained = reasons(linear(weights), row, background, n_samples=32)
    expected = [w * (row[f"c{j}"][0] - background[f"c{j}"].mean()) for j, w in enumerate(weights)]
    assert not explained.exact
    assert explained.money == pytest.approx(expected, abs=1e-12)


def test_enumeration_is_the_mean_over_all_orders() -> None:
    row, background, weights = game(4, 3, seed=3)
    margin = bent(weights)
    brute = np.zeros(4)
    orders = list(permutations(range(4)))
    for order in orders:
        for b in range(3):
            state = {name: background[name][[b]].copy() for name in row}
            before = margin(state)[0]
            for j in order:
                state[f"c{j}"] = row[f"c{j}"]
                after = margin(state)[0]
                brute[j] += (after - before) / (3 * len(orders))
                before = after
    assert reasons(margin, row, background).money == pytest.approx(brute, abs=1e-12)


def test_columns_with_the_same_role_get_the_same_reason() -> None:
    row = {"a": np.array([2.0]), "b": np.array([2.0])}
    background = {"a": np.array([0.0, 1.0]), "b": np.array([0.0, 1.0])}
    explained = reasons(lambda c: c["a"] * c["b"], row, background)
    assert explained.money[0] == pytest.approx(explained.money[1])
    assert explained.money.sum() == pytest.approx(4.0 - 0.5)


def test_a_column_without_effect_has_exactly_no_reason() -> None:
    row, background, weights = game(12, 5)
    weights[4] = 0.0
    margin = lambda c: bent(weights[:4])(c) + sum(weights[j] * c[f"c{j}"] * c["c5"] for j in range(6, 12))  # noqa: E731
    explained = reasons(margin, row, background, n_samples=14)
    assert not explained.exact
    assert explained.money[4] == 0.0
    assert explained.money.sum() == pytest.approx(explained.margin - explained.background, rel=1e-9, abs=1e-9)


def test_sampling_converges_on_the_exact_values() -> None:
    row, background, weights = game(8, 4, seed=5)
    exact = reasons(bent(weights), row, background)
    sampled = reasons(bent(weights), row, background, n_samples=600, evaluations=800)
    assert exact.exact
    assert not sampled.exact
    assert np.abs(sampled.money - exact.money).max() < 0.1 * np.abs(exact.money).max()


@settings(max_examples=60, deadline=None)
@given(
    n_columns=st.integers(0, 14),
    n_background=st.integers(1, 9),
    n_samples=st.integers(1, 40),
    evaluations=st.integers(1, 3000),
    n_protected=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_reasons_sum_to_the_margin_over_the_background(
    n_columns: int, n_background: int, n_samples: int, evaluations: int, n_protected: int, seed: int
) -> None:
    row, background, weights = game(n_columns + 2, n_background, seed)
    protected = [f"c{j}" for j in range(n_protected)]
    margin = bent(weights)
    explained = reasons(margin, row, background, protected=protected, n_samples=n_samples, evaluations=evaluations, seed=seed)
    held = background | {name: np.repeat(row[name], n_background) for name in protected if name in row}
    assert explained.margin == pytest.approx(margin(row)[0], rel=1e-12, abs=1e-12)
    assert explained.background == pytest.approx(margin(held).mean(), rel=1e-12, abs=1e-12)
    assert explained.money.sum() == pytest.approx(explained.margin - explained.background, rel=1e-9, abs=1e-9)
    assert not set(explained.columns) & set(protected)


def test_protected_columns_are_no_reason_and_their_effect_is_in_none() -> None:
    row = {"sex": np.array(["f"], dtype=object), "amount": np.array([3.0])}
    background = {"sex": np.array(["m", "f", "m"], dtype=object), "amount": np.array([1.0, 1.0, 1.0])}
    explained = reasons(lambda c: c["amount"] + 100.0 * (c["sex"] == "f"), row, background, protected=("sex",))
    assert explained.columns == ("amount",)
    assert explained.money.tolist() == [2.0]
    assert explained.background == 101.0


def test_missing_equals_missing_and_text_columns_play() -> None:
    row = {"x": np.array([np.nan]), "kind": np.array(["a"], dtype=object), "same": np.array([None], dtype=object)}
    background = {
        "x": np.array([np.nan, np.nan]),
        "kind": np.array(["a", None], dtype=object),
        "same": np.array([None, None], dtype=object),
    }
    explained = reasons(lambda c: 1.0 * (c["kind"] == "a") + np.isnan(c["x"]), row, background)
    assert explained.money.tolist() == [0.0, 0.5, 0.0]
    assert explained.top(5) == (("kind", 0.5),)


def test_no_column_that_matters_costs_one_evaluation() -> None:
    row, _background, weights = game(3, 1)
    explained = reasons(linear(weights), row, row, evaluations=1)
    assert explained.money.tolist() == [0.0, 0.0, 0.0]
    assert explained.exact
    assert explained.evaluations == 1


def test_evaluations_stay_within_the_budget_and_repeat_by_seed() -> None:
    row, background, weights = game(30, 64)
    one = reasons(bent(weights), row, background, evaluations=1000, seed=4)
    again = reasons(bent(weights), row, background, evaluations=1000, seed=4)
    other = reasons(bent(weights), row, background, evaluations=1000, seed=5)
    assert one.evaluations <= 1000
    assert one.money.tobytes() == again.money.tobytes() != other.money.tobytes()


def test_enumeration_is_left_where_the_budget_forbids_it() -> None:
    row, background, weights = game(EXACT, 64)
    assert not reasons(bent(weights), row, background, evaluations=4096).exact
    assert reasons(bent(weights), row, background, evaluations=64 << EXACT).exact


def test_the_margin_never_sees_more_rows_than_a_chunk() -> None:
    row, background, weights = game(EXACT, 64)
    seen: list[int] = []
    margin = lambda c: (seen.append(len(c["c0"])), bent(weights)(c))[1]  # noqa: E731
    reasons(margin, row, background, evaluations=64 << EXACT)
    assert len(seen) > 1
    assert max(seen) <= 8192


@pytest.mark.parametrize(("rows", "background"), [(2, 3), (1, 0)])
def test_one_row_and_some_background_are_needed(rows: int, background: int) -> None:
    with pytest.raises(ValueError, match="exactly one row, and at least one background row"):
        reasons(linear(np.ones(1)), {"c0": np.zeros(rows)}, {"c0": np.zeros(background)})


def test_drivers_are_mean_sizes_in_order() -> None:
    explained = [Explanation(("a", "b"), np.array(m), np.zeros(2), 0.0, 0.0, 1, True) for m in ([1.0, -2.0], [-1.0, 4.0])]
    assert drivers(explained) == (("b", 3.0), ("a", 1.0))
    assert drivers([]) == ()


def test_sampling_errors_do_not_inflate_the_drivers() -> None:
    weights = np.array([3.0, -2.0, 1.0, *[0.3] * 9])
    rng = np.random.default_rng(1)
    background, rows = table(rng.normal(size=(64, 12))), rng.normal(size=(200, 12))
    few, many = (
        dict(
            drivers(
                reasons(bent(weights), table(row[None]), background, n_samples=n, evaluations=10_000, seed=i) for i, row in enumerate(rows)
            )
        )
        for n in (8, 256)
    )
    raw = np.mean(
        [np.abs(reasons(bent(weights), table(row[None]), background, n_samples=8, seed=i).money) for i, row in enumerate(rows)], axis=0
    )
    true = np.array([many[f"c{j}"] for j in range(12)])
    inflated, mended = raw / true - 1, np.array([few[f"c{j}"] for j in range(12)]) / true - 1
    assert inflated[3:].mean() > 0.1
    assert abs(mended[3:].mean()) < 0.3 * inflated[3:].mean()
    assert np.abs(mended).max() < 0.2


def test_errors_are_standard_errors() -> None:
    row, background, weights = game(10, 64, seed=8)
    exact = reasons(bent(weights), row, background, n_samples=40_000, evaluations=10**6).money
    tries = [reasons(bent(weights), row, background, n_samples=16, seed=seed) for seed in range(200)]
    told = np.sqrt(np.mean([t.error**2 for t in tries], axis=0))
    seen = np.sqrt(np.mean([(t.money - exact) ** 2 for t in tries], axis=0))
    assert np.all(seen < 1.3 * told)  # the correction of the sum, and rows drawn without replacement, make the true one smaller
    assert np.all(seen > 0.3 * told)


def test_twenty_columns_take_milliseconds_around_the_margin() -> None:
    row, background, weights = game(20, 64)
    margin = linear(weights)
    started = time.perf_counter()
    for seed in range(5):
        reasons(margin, row, background, seed=seed)
    assert (time.perf_counter() - started) / 5 < 0.2
