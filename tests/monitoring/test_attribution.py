"""Attribution: the axioms of the split, each of six causes moved alone, and what is said."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makegood.contracts import Estimate
from makegood.errors import DataError
from makegood.monitoring.attribution import Rows, attribute, shapley, stratify, words
from makegood.monitoring.review import CAUSES

GAIN = np.array([[1.0, -3.0], [0.4, -1.0], [0.0, 0.0]])  # option × outcome: approve, refer, decline
MOVES = {"mix": 0.8, "world": 0.25, "model": 0.9, "policy": 0.35, "terms": 0.3, "operations": 0.4}


def pays(outcome: Any, terms: float) -> Any:
    return GAIN[:, outcome].T + terms * np.array([1.0, 0.0, 0.0])


def chosen(x: Any, blind: float, shift: float) -> Any:
    """Return what a model chooses: `blind` of its sight is lost, `shift` moves its thresholds."""
    seen = (1 - blind) * x
    return np.where(seen < -0.3 - shift, 0, np.where(seen < 0.2 - shift, 1, 2))


def period(rng: np.random.Generator, n: int, own: dict[str, float], moved: dict[str, float], t: int, **how: Any) -> Rows:
    """Return rows of a period that is moved by `own`; the later one is moved by `moved`."""
    start = dict.fromkeys(CAUSES, 0.0)
    both = (start, start | moved)
    units = rng.integers(0, n // 2, n) + t * n * how.get("apart", 1)
    entity = np.random.default_rng(int(rng.integers(1 << 30))).normal(size=n * 3)[units]
    x = 0.7 * rng.normal(size=n) + 0.7 * entity + own["mix"]
    truth = [1 / (1 + np.exp(-(2 * x + 4 * b["world"]))) for b in both]
    risk = 1 / (1 + np.exp(-(2 * x + 4 * own["world"])))
    outcome = (rng.random(n) < risk).astype(int)
    decided = np.array([[chosen(x, m["model"], p["policy"]) for p in both] for m in both])
    taken = decided[t, t]
    done = np.where(rng.random(n) < 0.05 + own["operations"], 2, taken)
    payoffs = np.array([pays(outcome, b["terms"]) for b in both])
    wrong = how.get("q", 1.0)
    expected = np.array([[wrong * (np.stack([1 - p, p], 1) @ GAIN.T + k["terms"] * np.array([1, 0, 0])) for k in both] for p in truth])
    known = np.ones((n, 3)) if not how.get("revealed") else np.repeat((done < 2).astype(float)[:, None], 3, axis=1)
    return Rows(
        span=(t, t + 1), units=units, stratum=np.clip(((x + 2) * 2).astype(int), 0, 7), decided=decided, done=done,
        paid=payoffs[t][np.arange(n), done], expected=expected, payoffs=payoffs, known=known,
    )  # fmt: skip


def two(seed: int, moved: dict[str, float], n: int = 1500, **how: Any) -> tuple[Rows, Rows]:
    rng = np.random.default_rng(seed)
    start = dict.fromkeys(CAUSES, 0.0)
    return period(rng, n, start, moved, 0, **how), period(rng, n, start | moved, moved, 1, **how)


def excludes_zero(x: Estimate) -> bool:
    return x.low > 0 or x.high < 0


# ------------------------------------------------------------------------------------------------------------------ axioms


def by_permutations(cells: Any) -> list[float]:
    """Return the mean of what each cause adds over all 720 orders."""
    total = np.zeros(6)
    for order in permutations(range(6)):
        at = [0] * 6
        for j in order:
            before = cells[tuple(at)]
            at[j] = 1
            total[j] += cells[tuple(at)] - before
    return list(total / 720)


def test_the_split_is_that_of_all_orders() -> None:
    cells = np.random.default_rng(1).lognormal(2, 2, (2,) * 6)
    assert shapley(cells) == pytest.approx(by_permutations(cells), abs=1e-9)


@given(st.lists(st.floats(-1e6, 1e6), min_size=64, max_size=64))
def test_the_parts_add_up_and_a_dummy_gets_nothing(values: list[float]) -> None:
    cells = np.array(values).reshape((2,) * 6)
    parts = shapley(cells)
    assert parts.sum() == pytest.approx(cells[(1,) * 6] - cells[(0,) * 6], abs=1e-9 * max(1.0, np.abs(cells).max()))
    dummy = np.repeat(cells[:, :1], 2, axis=1)
    assert shapley(dummy)[1] == 0.0


def test_like_causes_get_alike() -> None:
    cells = np.random.default_rng(2).normal(size=(2,) * 6)
    symmetric = cells + np.swapaxes(cells, 0, 3)
    parts = shapley(symmetric)
    assert parts[0] == pytest.approx(parts[3], abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.dictionaries(st.sampled_from(CAUSES), st.floats(0.0, 0.5)))
def test_causes_and_the_unexplained_make_the_whole_change(seed: int, moved: dict[str, float]) -> None:
    before, after = two(seed, moved, n=120)
    found = attribute(before, after, "EUR")
    assert found.change.value == pytest.approx(after.paid.mean() - before.paid.mean(), abs=1e-12)
    assert sum(x.value for x in found.causes.values()) + found.unexplained.value == pytest.approx(found.change.value, abs=1e-9)


# ------------------------------------------------------------------------------------------------------------- simulation


@pytest.mark.slow
@pytest.mark.parametrize("cause", CAUSES)
def test_what_moves_alone_is_found_and_the_others_stay_on_zero(cause: str) -> None:
    """Null: the five other causes, and the unexplained, are the same in both periods; units repeat within a period."""
    runs, moved = 40, {cause: MOVES[cause]}
    found = [attribute(*two(seed, moved), seed=seed) for seed in range(runs)]
    others = [[excludes_zero(x) for name, x in f.causes.items() if name != cause] + [excludes_zero(f.unexplained)] for f in found]
    wrong = np.mean(others, axis=1)
    assert wrong.mean() <= 0.05 + 3 * max(wrong.std() / np.sqrt(runs), 0.01)
    assert np.mean([excludes_zero(f.causes[cause]) for f in found]) >= 0.95
    rest = np.array([f.change.value - f.causes[cause].value for f in found])
    assert abs(rest.mean()) <= 4 * rest.std() / np.sqrt(runs)


@pytest.mark.slow
def test_selective_labels_and_a_wrong_q_leave_the_world_on_zero_when_rows_are_reweighted() -> None:
    """Null: only the mix moved. With q̂ = 0 the strata alone must keep the world, and all but the mix, on zero."""
    found = [attribute(*two(seed, {"mix": 0.4}, q=0.0), seed=seed) for seed in range(30)]
    naive = np.mean([f.causes["mix"].value for f in found])
    oracle = np.mean([attribute(*two(seed, {"mix": 0.4}), seed=seed).causes["mix"].value for seed in range(30)])
    assert naive == pytest.approx(oracle, rel=0.25)
    flat = [tuple(replace(r, stratum=r.stratum * 0) for r in two(seed, {"mix": 0.4}, q=0.0)) for seed in range(30)]
    blind = [attribute(*pair) for pair in flat]  # neither q̂ nor strata: the mix passes for the world, as it must
    assert abs(np.mean([f.causes["mix"].value for f in blind])) < 0.2 * abs(oracle)


def test_one_entity_in_both_periods_narrows_nothing_and_few_entities_widen() -> None:
    before, after = two(3, {"world": 0.2})
    few = [replace(r, units=r.units % 12) for r in (before, after)]
    wide, narrow = attribute(*few).causes["world"], attribute(before, after).causes["world"]
    assert wide.value == pytest.approx(narrow.value)
    assert wide.high - wide.low > 0
    none = attribute(*(replace(r, units=r.units % 5) for r in (before, after)))
    assert np.isnan(none.change.low)
    assert "Fewer than 6 independent units" in none.words


# --------------------------------------------------------------------------------------------------------------- support


def test_what_was_never_tried_is_named_and_bounded() -> None:
    before, after = two(5, {"model": 0.9}, revealed=True)
    before = replace(before, known=np.where(before.stratum[:, None] == 4, 0.0, before.known))
    named = attribute(before, after, "EUR")
    assert "never tried on their like: there the expected payoffs alone speak" in named.words
    bounded = attribute(before, after, "EUR", bounds=(-3.0, 1.0))
    assert "intervals allow for all that it may have paid" in bounded.words
    assert all(bounded.causes[c].low < named.causes[c].low for c in ("mix", "world"))
    assert bounded.causes["world"].value == named.causes["world"].value


def test_an_option_that_was_never_decided_is_done_as_decided() -> None:
    before, after = two(6, {})
    only = np.zeros_like(before.decided)
    only[1] = 1  # the later model refers everything, which the earlier period never did
    rows = np.arange(len(before))
    before = replace(before, decided=only, done=only[0, 0], paid=before.payoffs[0][rows, 0])
    after = replace(after, decided=only, done=only[1, 1], paid=after.payoffs[1][rows, 1])
    found = attribute(before, after)
    assert found.unexplained.value == pytest.approx(0.0, abs=1e-9)
    expected = (before.payoffs[0][:, 1] - before.payoffs[0][:, 0]).mean() + (after.payoffs[0][:, 1] - after.payoffs[0][:, 0]).mean()
    assert found.causes["model"].value == pytest.approx(expected / 2, abs=0.1)
    assert excludes_zero(found.causes["model"])


def test_a_stratum_that_one_period_has_not_is_left_to_q() -> None:
    before, after = two(7, {"mix": 0.5})
    found = attribute(replace(before, stratum=before.stratum * 0), replace(after, stratum=after.stratum * 0 + 1))
    assert "never tried" in found.words


def test_many_units_are_dealt_to_blocks() -> None:
    before, after = two(8, {"terms": 0.3}, n=6000)
    wide, narrow = (attribute(b, a).change for b, a in ((before, after), two(8, {"terms": 0.3}, n=600)))
    assert wide.high - wide.low < 0.6 * (narrow.high - narrow.low)


# ----------------------------------------------------------------------------------------------------------------- words


def test_nothing_shown_asks_for_nothing() -> None:
    none = Estimate(0.0, -1.0, 1.0, "EUR")
    said = words(none, dict.fromkeys(CAUSES, none), none, 0.0, False)
    assert said.endswith("Next: nothing; more matured decisions would narrow the intervals.")
    large = words(Estimate(2500.0, 2000.0, 3000.0, "EUR"), {"terms": Estimate(2500.0, 2000.0, 3000.0, "EUR")}, none, 0.0, False)
    every = words(none, {"mix": Estimate(2.0, 1.0, 3.0)}, Estimate(-2.0, -3.0, -1.0), 0.0, False)
    assert "No change is shown" not in every
    assert every.endswith("Next: see under drift which columns moved.")
    assert "A decision paid 2,500 EUR more than before. Terms: 2,500 EUR [2,000, 3,000]" in large


def test_strata_are_quantiles_of_both_periods() -> None:
    before, after = stratify(np.arange(100.0), np.arange(100.0, 200.0), 4)
    assert np.bincount(before, minlength=4).tolist() == [50, 50, 0, 0]
    assert np.bincount(after, minlength=4).tolist() == [0, 0, 50, 50]


# ---------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("part", "change", "says"),
    [
        ("paid", lambda v: v[:-1], r"attribution, before.paid: got 'shape \(59,\)'; expected shape \(60,\)"),
        ("paid", lambda v: np.append(v[:-1], np.nan), "attribution, before: got 'a payoff that is not finite'"),
        ("payoffs", lambda v: v * np.inf, "a payoff that is not finite"),
        ("known", lambda v: -v, "a payoff that is not finite"),
        ("done", lambda v: v + 9, "attribution, before.done: got '9 to 11'; expected positions from 0 on"),
        ("stratum", lambda v: v - 9, "attribution, before.stratum"),
        ("stratum", lambda v: v + 500, r"expected 1000 in all; merge options \(quantities into coarser steps\) or strata"),
    ],
)
def test_rows_that_do_not_fit_are_refused(part: str, change: Any, says: str) -> None:
    before, after = two(1, {}, n=60)
    with np.errstate(invalid="ignore"):
        bad = replace(before, **{part: change(getattr(before, part))})
    with pytest.raises(DataError, match=says):
        attribute(bad, after)


def test_a_period_without_rows_is_refused() -> None:
    before, after = two(1, {}, n=60)
    empty = replace(before, done=before.done[:0])
    with pytest.raises(DataError, match="attribution, before: got 'no rows'; expected matured decisions in both periods"):
        attribute(empty, after)
