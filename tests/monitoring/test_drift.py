"""Drift in money, and the reference that it compares with: known answers, error rates, kinds of columns, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from makegood.errors import DataError
from makegood.monitoring.drift import drift
from makegood.monitoring.reference import (
    Bins,
    Coded,
    Profile,
    Reference,
    Vectors,
    blocks,
    image_vectors,
    predicted,
    refer,
    text_vectors,
)


def rows(seed: int, n: int, k: int = 20, shift: float = 0.0, units: Any = None) -> tuple[dict[str, Any], Any]:
    """Return k columns (numbers, and every fourth a category) and promises that depend on the first two; the first is shifted."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, k))
    if units is not None:  # an entity's rows are nearly alike
        x = rng.normal(size=(int(units.max()) + 1, k))[units] + 0.1 * x
    x[:, 0] += shift
    promise = 2 * x[:, 0] - x[:, 1] + rng.normal(size=n)
    columns: dict[str, Any] = {f"x{j}": x[:, j] for j in range(k)}
    columns |= {f"x{j}": Coded.of(np.floor(x[:, j]).astype(int).astype(str).astype(object)) for j in range(3, k, 4)}
    return columns, promise


def excludes_zero(moved: Any) -> bool:
    return moved.stake.low > 0 or moved.stake.high < 0


# ------------------------------------------------------------------------------------------------------------ known answers


def test_the_stake_is_the_reference_reweighted_to_the_column_now() -> None:
    then = refer({"c": Coded(np.repeat([0, 1, 2], [50, 30, 20]), ("a", "b", "c"))}, np.repeat([1.0, 6.0, 2.0], [50, 30, 20]))
    found = drift(then, {"c": np.repeat(np.array(["a", "b", "c"], dtype=object), [10, 60, 30])}, np.full(100, 5.0), "EUR")
    assert [(m.column, m.kind) for m in found] == [("c", "category")]
    assert found[0].stake.value == pytest.approx(-0.4 * 1 + 0.3 * 6 + 0.1 * 2)
    assert found[0].stake.unit == "EUR"
    assert found[0].detail == "'a': 50.0% → 10.0%; more than chance does (1 looked at)"


def test_present_and_missing_values_add_up_to_the_whole_column() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=4000), rng.normal(0.5, 1, size=4000)
    promise = x + 3.0 * np.isnan(np.where(rng.random(4000) < 0.1, np.nan, x))
    x[promise > x + 1], y[rng.random(4000) < 0.3] = np.nan, np.nan
    then = refer({"x": x}, promise)
    found = {m.kind: m for m in drift(then, {"x": y}, promise)}
    bins = then.columns[0].bins[0]
    now = np.bincount(then.columns[0].place(y)[0], minlength=len(bins.rows)) / 4000
    assert found["number"].stake.value + found["missing"].stake.value == pytest.approx((now - bins.share) @ np.array(bins.promise))
    assert found["missing"].detail.startswith("missing: 10.")
    assert found["missing"].distance == pytest.approx(now[-1] - bins.share[-1])


def test_what_matters_most_in_money_comes_first() -> None:
    then = refer(*rows(0, 5000))
    columns, promise = rows(1, 5000, shift=0.3)
    columns["x2"] = columns["x2"] + 3.0  # moves far, and matters nothing
    found = drift(then, columns, promise)
    assert found[0].column == "x0"
    assert found[0].stake.low < 0.6 < found[0].stake.high
    far = next(m for m in found if m.column == "x2")
    assert far.distance > 0.8
    assert abs(far.stake.value) < 0.2 < found[0].stake.low


def test_values_never_seen_are_taken_at_what_is_promised_on_them_now() -> None:
    then = refer({"c": Coded.of(["a"] * 50)}, np.ones(50))
    found = drift(then, {"c": Coded.of(["a"] * 50 + ["new"] * 50)}, np.array([1.0] * 50 + [9.0] * 50))
    assert found[0].stake.value == pytest.approx(0.5 * (9.0 - 1.0))
    gone = drift(then, {"c": Coded.of(["a"] * 50 + [None] * 50)}, np.array([1.0] * 50 + [9.0] * 50))
    assert {m.kind: round(m.stake.value, 6) for m in gone} == {"category": 0.0, "missing": 4.0}


def test_a_column_that_vanished_or_came_is_only_missing() -> None:
    then = refer({"x": np.arange(50.0), "gone": np.full(50, np.nan)}, np.arange(50.0))
    nothing = drift(then, {"x": np.full(50, np.nan)}, np.arange(50.0))
    assert [m.kind for m in nothing] == ["missing"]
    came = drift(then, {"gone": np.arange(50.0)}, np.arange(50.0))
    assert [m.kind for m in came] == ["missing"]
    constant = refer({"x": np.ones(50)}, np.arange(50.0))
    assert drift(constant, {"x": np.ones(50)}, np.arange(50.0))[0].stake.value == pytest.approx(0.0)
    assert drift(then, {}, np.zeros(3)) == ()
    assert drift(then, {"x": np.zeros(0)}, np.zeros(0)) == ()


# ------------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.slow
@pytest.mark.parametrize("clustered", [False, True])
def test_columns_that_did_not_move_keep_their_stake_on_zero(clustered: bool) -> None:
    """Null: reference and review are of one distribution. In clusters of ten, intervals by row fail the same check."""
    runs, n = 40, 3000
    units = np.repeat(np.arange(n // 10), 10) if clustered else None
    shares, by_row, near = [], [], []
    for seed in range(runs):
        then = refer(*rows(2 * seed, n, units=units), units)
        now = rows(2 * seed + 1, n, units=units)
        found = drift(then, *now, units=units)
        shares.append(np.mean([excludes_zero(m) for m in found]))
        near.append(np.mean([m.distance for m in found]))
        by_row.append(np.mean([excludes_zero(m) for m in drift(refer(*rows(2 * seed, n, units=units)), *now)]))
    limit = 0.05 + 3 * max(float(np.std(shares)) / np.sqrt(runs), np.sqrt(0.05 * 0.95 / (runs * 20)))
    assert np.mean(shares) <= limit
    assert np.mean(near) < 0.02
    assert not clustered or np.mean(by_row) > limit + 0.1


@pytest.mark.slow
def test_the_interval_holds_the_true_stake() -> None:
    held = []
    for seed in range(150):
        then = refer(*rows(2 * seed, 1500, k=2))
        found = drift(then, *rows(2 * seed + 1, 1500, k=2, shift=0.2))
        x0 = next(m for m in found if m.column == "x0").stake
        held.append(x0.low <= 0.4 - 0.006 and x0.high >= 0.4 - 0.03)  # within a bin the mean moves too: a few thousandths stay out
    assert np.mean(held) >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 150)


def test_a_few_units_allow_no_interval() -> None:
    then = refer(*rows(0, 500, k=2))
    columns, promise = rows(1, 500, k=2)
    few = drift(then, columns, promise, units=np.arange(500) % 5)
    assert all(np.isnan(m.stake.low) for m in few)
    assert "looked at" not in few[0].detail


# ------------------------------------------------------------------------------------------------------------------- kinds


def test_a_text_moves_by_its_words() -> None:
    rng = np.random.default_rng(3)
    old, new = np.array("loan house car work salary family".split()), np.array("crypto token urgent work salary wallet".split())

    def texts(words: Any, n: int) -> Any:
        return np.array([" ".join(rng.choice(words, 8)) for _ in range(n)], dtype=object)

    then_texts = texts(old, 800)
    promise = np.array([float(t.count("house")) for t in then_texts])
    then = refer({"note": text_vectors(then_texts)}, promise)
    same, other = (drift(then, {"note": text_vectors(texts(w, 800))}, promise)[0] for w in (old, new))
    assert same.kind == "text"
    assert same.distance < 0.05
    assert other.distance > 0.3
    assert other.stake.high < 0
    assert not excludes_zero(same)


def test_an_embedding_moves_along_any_direction() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(1500, 16)) * np.linspace(0.1, 5, 16)
    x[:3] = np.nan
    promise = np.nan_to_num(x[:, 2]) + rng.normal(size=1500)
    then = refer({"e": Vectors(x)}, promise)
    still = rng.normal(size=(1500, 16)) * np.linspace(0.1, 5, 16)
    moved = still + np.where(np.arange(16) == 2, 1.0, 0.0)
    found = [next(m for m in drift(then, {"e": Vectors(v)}, promise) if m.kind == "embedding") for v in (still, moved)]
    assert found[0].distance < 0.03 < 0.1 < found[1].distance
    assert not excludes_zero(found[0])
    assert found[1].stake.low < 1.0 < found[1].stake.high + 0.1
    empty = refer({"e": Vectors(np.full((20, 3), np.nan)), "flat": Vectors(np.ones((20, 2)))}, np.arange(20.0))
    assert [m.kind for m in drift(empty, {"flat": Vectors(np.ones((20, 2)))}, np.arange(20.0))] == ["embedding"]


def test_an_image_moves_by_its_light() -> None:
    rng = np.random.default_rng(5)

    def pictures(low: int, high: int) -> Any:
        return np.array([rng.integers(low, high, 64 if i % 2 else 100, dtype=np.uint8).tobytes() for i in range(300)], dtype=object)

    then = refer({"scan": image_vectors(pictures(50, 150))}, rng.normal(size=300))
    dark = drift(then, {"scan": image_vectors(pictures(0, 60))}, rng.normal(size=300))[0]
    assert dark.kind == "embedding"
    assert dark.distance > 0.3


def test_predictions_are_a_column_of_no_name() -> None:
    p = np.random.default_rng(6).dirichlet((1, 1, 1), 500)
    then = refer({"": predicted(p)}, p[:, 0])
    assert drift(then, {"": predicted(p)}, p[:, 0])[0].kind == "prediction"
    two = refer({"": predicted(p[:, :2])}, p[:, 0])
    assert two.columns[0].kind == "prediction"
    assert two.columns[0].edges


def test_bins_have_names() -> None:
    then = refer(
        {"x": np.arange(100.0), "c": Coded.of(["a", "b"] * 50), "v": Vectors(np.random.default_rng(0).normal(size=(100, 2)))},
        np.arange(100.0),
    )
    x, c, v = then.columns
    assert (x.name(0), x.name(1), x.name(23), x.name(24)) == ("below 4", "4 to 8", "from 95 on", "missing")
    assert (c.name(1), c.name(2), c.name(3)) == ("'b'", "levels that are rare or were never seen", "missing")
    assert v.name(0).endswith("along a direction")


def test_units_are_dealt_to_blocks_evenly() -> None:
    block, count = blocks(np.arange(3000) // 2, 3000, 100)
    assert count == 100
    assert set(np.bincount(block)) == {30}
    assert (block[::2] == block[1::2]).all()
    assert blocks(np.zeros(0, dtype=int), 0)[1] == 0


# ---------------------------------------------------------------------------------------------------------- kept and refused


def test_a_reference_survives_json() -> None:
    columns, promise = rows(0, 300, k=4)
    made = refer(columns | {"v": Vectors(np.random.default_rng(0).normal(size=(300, 3)))}, promise)
    again = msgspec.convert(msgspec.json.decode(msgspec.json.encode(made)), Reference)
    assert again == made
    assert drift(again, columns, promise) == drift(made, columns, promise)
    one = refer({"x": np.ones(1)}, np.ones(1))
    assert (one.n, one.error) == (1, 0.0)


@pytest.mark.parametrize(
    ("columns", "promise", "says"),
    [
        ({"x0": np.zeros(3)}, np.zeros(4), "column x0: got '3 rows'; expected 4, one for each promise"),
        ({"x0": np.zeros(3)}, np.array([0, np.nan, 1]), "promise: got 'a value that is not finite'"),
        ({"x0": Coded.of(["a"] * 3)}, np.zeros(3), "column x0: got 'categories'; expected numbers, as in the reference"),
        ({"x3": np.zeros(3)}, np.zeros(3), "column x3: got 'numbers'; expected categories, as in the reference"),
        ({"v": Vectors(np.zeros((3, 5)))}, np.zeros(3), r"column v: got 'an array of shape \(3, 5\)'; expected \(n, 2\)"),
    ],
)
def test_columns_that_do_not_fit_are_refused(columns: Any, promise: Any, says: str) -> None:
    made, paid = rows(0, 100, k=4)
    then = refer(made | {"v": Vectors(np.random.default_rng(0).normal(size=(100, 2)))}, paid)
    with pytest.raises(DataError, match=says):
        drift(then, columns, promise)


def test_no_rows_make_no_reference() -> None:
    with pytest.raises(DataError, match="reference: got 'no rows'; expected the rows on which the model was judged"):
        refer({}, np.zeros(0))


GOOD = Bins((5, 5, 0), (1.0, 2.0, 0.0), (0.0, 0.0, 0.0), 10.0)
NUMBER = Profile("x", "number", (GOOD,), edges=((1.0,),))


@pytest.mark.parametrize(
    ("made", "change", "says"),
    [
        (GOOD, {"rows": (5, 5)}, "do not fit each other"),
        (GOOD, {"rows": (5, -5, 0)}, "do not fit each other"),
        (GOOD, {"effective": 11.0}, "worth more rows"),
        (GOOD, {"spread": (-1.0, 0.0, 0.0)}, "a spread below 0"),
        (NUMBER, {"kind": "odd"}, "of the kind 'odd'"),
        (NUMBER, {"edges": ((1.0, 2.0),)}, "do not fit its edges"),
        (NUMBER, {"bins": (Bins((5, 5, 0, 0), (1.0,) * 4, (0.0,) * 4, 10.0),), "edges": ((1.0, 1.0),)}, "do not grow"),
        (NUMBER, {"bins": (Bins((1,) * 300, (1.0,) * 300, (0.0,) * 300, 9.0),), "edges": (tuple(range(298)),)}, "300 bins of 'x'"),
        (NUMBER, {"directions": ((1.0, 2.0),), "center": (0.0,)}, "of another length than its center"),
        (Reference(10, 0.0, 0.0, (NUMBER,)), {"columns": (NUMBER, NUMBER)}, "a column twice"),
    ],
)
def test_a_forged_reference_is_refused(made: Any, change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(made, **change)
