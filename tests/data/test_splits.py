from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from makegood.case import Case
from makegood.contracts import Splits
from makegood.data import splits
from makegood.data.outcome import Outcome, type_outcome
from makegood.errors import CaseError, DataError


def rows(n: int, **columns: Any) -> pa.Table:
    y = np.array(["no", "yes"])[(np.random.default_rng(1).random(n) < 0.3).astype(int)]
    return pa.table({"y": y, "x": np.random.default_rng(2).normal(size=n), **columns})


def make(table: pa.Table, spec: Case, **options: Any) -> tuple[Splits, Outcome]:
    outcome = type_outcome(table, spec)
    return splits.make(outcome, spec, table, **options), outcome


def days(numbers: Any) -> list[datetime]:
    return [datetime(2024, 1, 1) + timedelta(days=float(d)) for d in numbers]


def covers_once(found: Splits, n: int) -> bool:
    return sorted(np.concatenate([f.test for f in found.folds]).tolist()) == list(range(n))


# ----------------------------------------------------------------------------------------------------------- without time


def test_few_rows_are_cross_fitted_in_ten_stratified_folds(case: Any) -> None:
    found, outcome = make(rows(1000), case())
    assert (found.method, len(found.folds), found.detail) == ("crossfit", 10, "10 folds, stratified by outcome")
    assert covers_once(found, 1000)
    share = outcome.values.mean()
    for fold in found.folds:
        assert abs(len(fold.test) - 100) <= 1
        assert abs(outcome.values[fold.test].mean() - share) < 0.011
        assert not set(fold.train) & set(fold.test)
        assert len(fold.train) + len(fold.test) == 1000
    assert found.clusters is None


def test_many_rows_are_split_once(case: Any) -> None:
    found, outcome = make(rows(20_000), case())
    assert (found.method, found.detail) == ("stratified", "80/20, stratified by outcome")
    (fold,) = found.folds
    assert abs(len(fold.test) - 4000) <= 1
    assert len(fold.train) + len(fold.test) == 20_000
    assert abs(outcome.values[fold.test].mean() - outcome.values.mean()) < 0.001


def test_a_number_outcome_is_stratified_by_tenths(case: Any, rng: np.random.Generator) -> None:
    y = rng.lognormal(size=500)
    found, _ = make(pa.table({"y": y, "x": y}), case(type="number"))
    spread = np.std([y[f.test].mean() for f in found.folds])
    by_chance = np.std([rng.choice(y, 50, replace=False).mean() for _ in range(200)])
    assert spread < 0.8 * by_chance


def test_unknown_outcomes_are_in_no_fold(case: Any) -> None:
    table = rows(200)
    table = table.set_column(0, "y", pa.array([None if i < 20 else v for i, v in enumerate(table["y"].to_pylist())]))
    found, _ = make(table, case())
    assert sorted(np.concatenate([f.test for f in found.folds]).tolist()) == list(range(20, 200))
    assert min(f.train.min() for f in found.folds) == 20


def test_where_a_row_goes_depends_on_seed_and_content_not_on_its_place(case: Any, rng: np.random.Generator) -> None:
    table = rows(300)
    order = rng.permutation(300)
    here, _ = make(table, case())
    there, _ = make(table.take(order), case())
    assert here.hash == there.hash
    for a, b in zip(here.folds, there.folds, strict=True):
        assert set(a.test) == set(order[b.test])
    other, _ = make(table, case(), seed=1)
    assert any(set(a.test) != set(b.test) for a, b in zip(here.folds, other.folds, strict=True))
    assert other.hash == here.hash, "all rows are test rows, whatever the seed"
    negative, _ = make(table, case(), seed=-1)
    assert covers_once(negative, 300)


def test_the_hash_is_of_the_test_rows(case: Any) -> None:
    table = rows(20_000)
    found, _ = make(table, case())
    other, _ = make(table, case(), seed=1)
    assert len(found.hash) == 64
    assert other.hash != found.hash
    changed = table.set_column(1, "x", pa.array(np.where(np.arange(20_000) == found.folds[0].test[0], 99.0, table["x"].to_numpy())))
    assert make(changed, case())[0].hash != found.hash


def test_equal_rows_stay_together(case: Any) -> None:
    table = rows(300)
    twice = pa.concat_tables([table, table.slice(0, 60)])
    found, _ = make(twice, case())
    for fold in found.folds:
        assert {i for i in range(60) if i in set(fold.test)} == {i - 300 for i in fold.test if i >= 300}


def test_where_most_rows_are_equal_folds_stay_even_and_the_detail_says_so(case: Any, rng: np.random.Generator) -> None:
    n = 400
    found, _ = make(pa.table({"y": rng.integers(0, 2, n), "x": rng.integers(0, 2, n)}), case())
    assert found.detail == "10 folds, stratified by outcome; many rows are equal, and equal rows may stand on both sides"
    assert {len(f.test) for f in found.folds} <= {39, 40, 41}


def test_a_split_may_be_asked_for(case: Any) -> None:
    assert make(rows(200), case(), method="stratified")[0].method == "stratified"
    assert make(rows(20_000), case(), method="crossfit")[0].method == "crossfit"


# ---------------------------------------------------------------------------------------------------------------- by group


@pytest.mark.parametrize(("n", "method", "folds"), [(1000, "crossfit", 10), (20_000, "group", 1)])
def test_rows_of_one_group_never_straddle(case: Any, n: int, method: str, folds: int, rng: np.random.Generator) -> None:
    groups = [f"g{i}" for i in rng.integers(0, 80, n)]
    found, _ = make(rows(n, g=groups), case(group="g"))
    assert (found.method, len(found.folds)) == (method, folds)
    for fold in found.folds:
        assert not {groups[i] for i in fold.train} & {groups[i] for i in fold.test}
        assert abs(len(fold.test) / n - (0.1 if folds == 10 else 0.2)) < 0.05
    assert found.clusters is not None
    assert len(np.unique(found.clusters)) == 80
    assert found.detail.endswith("rows of one g together")


def test_few_groups_make_fewer_folds(case: Any) -> None:
    found, _ = make(rows(140, g=[i % 7 for i in range(140)]), case(group="g"))
    assert len(found.folds) == 7
    assert covers_once(found, 140)


def test_too_few_groups(case: Any) -> None:
    with pytest.raises(
        DataError, match=r"^data.group: 'g': got '5 groups'; expected at least 6; leave data.group out, or bring more groups$"
    ):
        make(rows(100, g=[i % 5 for i in range(100)]), case(group="g"))


def test_rows_without_a_group_are_one_group(case: Any) -> None:
    found, _ = make(rows(200, g=[None if i % 10 == 0 else i % 10 for i in range(200)]), case(group="g"))
    assert sum(0 in f.test for f in found.folds) == 1
    assert next(set(range(0, 200, 10)) <= set(f.test) for f in found.folds if 0 in f.test)


# ----------------------------------------------------------------------------------------------------------------- in time


def test_out_of_time(case: Any, rng: np.random.Generator) -> None:
    at = rng.permutation(1000) / 4
    found, _ = make(rows(1000, t=days(at)), case(time="t"))
    (fold,) = found.folds
    assert found.method == "time"
    assert len(fold.test) == 200
    assert at[fold.train].max() < at[fold.test].min()
    assert found.detail == "trained on t before 2024-07-19, tested from then until 2024-09-06 18:00"
    assert found.order is not None
    assert (np.argsort(at) == np.argsort(found.order)).all()


def test_equal_times_never_straddle(case: Any, rng: np.random.Generator) -> None:
    month = np.sort(rng.integers(0, 7, 700))
    found, _ = make(rows(700, t=month), case(time="t"))
    (fold,) = found.folds
    assert not set(month[fold.train]) & set(month[fold.test])
    assert found.detail == "trained on t before 6, tested from then until 6"


def test_rows_whose_outcome_was_not_known_are_purged(case: Any) -> None:
    at = np.arange(1000) / 2
    found, _ = make(rows(1000, t=days(at)), case(time="t", outcome_delay="30d"))
    (fold,) = found.folds
    assert (at[fold.train] + 30).max() <= at[fold.test].min()
    assert found.purged == 59
    assert len(fold.train) + found.purged + len(fold.test) == 1000
    assert "59 rows left out, since their outcome was not known by then" in found.detail


def test_time_and_group_both_hold(case: Any, rng: np.random.Generator) -> None:
    groups = rng.integers(0, 300, 1000)
    found, _ = make(rows(1000, t=days(range(1000)), g=groups), case(time="t", group="g"))
    (fold,) = found.folds
    assert not set(groups[fold.train]) & set(groups[fold.test])
    assert fold.train.max() < fold.test.min()
    assert f"{800 - len(fold.train)} rows left out, since their g is in the test" in found.detail
    assert found.clusters is not None
    assert len(np.unique(found.clusters)) == len(np.unique(groups))


def test_time_blocks_are_runs_that_no_moment_and_no_test_straddles(case: Any, rng: np.random.Generator) -> None:
    at = np.sort(rng.integers(0, 400, 2000))
    found, _ = make(rows(2000, t=days(at)), case(time="t"))
    assert found.clusters is not None
    blocks, (fold,) = found.clusters, found.folds
    assert (np.diff(blocks) >= 0).all()
    for moment in np.unique(at):
        assert len(set(blocks[at == moment])) == 1
    assert not set(blocks[fold.train]) & set(blocks[fold.test])
    assert 35 <= len(set(blocks[fold.test])) <= 51


def test_rows_without_a_time_are_left_out_and_counted(case: Any) -> None:
    found, _ = make(rows(1000, t=[None if i < 30 else d for i, d in enumerate(days(range(1000)))]), case(time="t"))
    assert "30 rows left out, since they have no time" in found.detail
    assert min(found.folds[0].train) == 30


@pytest.mark.parametrize("method", ["stratified", "crossfit", "group"])
def test_a_time_forbids_a_random_split(case: Any, method: str) -> None:
    message = rf"^data.time: got 'a {method} split'; expected a split out of time, since 't' is declared; a random one would learn from the future$"
    with pytest.raises(CaseError, match=message):
        make(rows(100, t=list(range(100))), case(time="t"), method=method)


def test_out_of_time_needs_a_time(case: Any) -> None:
    with pytest.raises(
        CaseError, match=r"^data.time: got 'nothing'; expected a column of times, for a split out of time; declare data.time$"
    ):
        make(rows(100), case(), method="time")


@pytest.mark.parametrize(
    ("t", "declared", "message"),
    [
        (
            ["soon"] * 100,
            {},
            "data.time: 't': got 'soon'; expected dates such as 2024-01-31, or numbers in time order; name another column",
        ),
        (
            [None] * 100,
            {},
            "data.time: 't': got 'nothing'; expected dates such as 2024-01-31, or numbers in time order; name another column",
        ),
        (
            list(range(100)),
            {"outcome_delay": "3d"},
            "data.time: 't': got 'numbers'; expected dates, since data.outcome_delay is declared; write the times as dates",
        ),
        (
            [1] * 100,
            {},
            "data.time: got 'one time in all rows'; expected at least two different times; name another column, or leave data.time out",
        ),
        (
            [None] * 6 + list(range(94)),
            {},
            "data.time: 't': got 'no time in 6 of 100 rows'; expected a time in at least 95% of the rows; fill it in",
        ),
        (
            days(range(100)),
            {"outcome_delay": "60d"},
            "the time split: got '21 rows to learn from (59 rows were not yet known when the test began; 0 are of groups in the test)'; expected at least 50; bring a longer history",
        ),
        (
            [0] * 90 + [1] * 10,
            {},
            "the time split: got '10 rows to test on (0 rows were not yet known when the test began; 0 are of groups in the test)'; expected at least 20; bring a longer history",
        ),
    ],
)
def test_times_that_cannot_be_split(case: Any, t: list[Any], declared: dict[str, str], message: str) -> None:
    table = rows(100, t=pa.array(t, pa.string()) if t[0] is None and t[-1] is None else t)
    with pytest.raises(DataError) as caught:
        make(table, case(time="t", **declared))
    assert str(caught.value) == message


def test_a_class_that_came_up_late(case: Any) -> None:
    table = pa.table({"y": ["no"] * 400 + ["yes"] * 100, "t": list(range(500))})
    with pytest.raises(
        DataError,
        match=r"^the time split: got \"no row of 'yes' to learn from\"; expected each class among the rows to learn from; bring more rows, or merge classes$",
    ):
        make(table, case(time="t"))


def test_a_test_of_one_class(case: Any) -> None:
    table = pa.table({"y": ["yes"] * 100 + ["no"] * 400, "t": list(range(500))})
    with pytest.raises(
        DataError, match=r"^the time split: got \"only 'no' among the 100 test rows\"; expected at least two classes; bring more rows$"
    ):
        make(table, case(time="t"))


def test_too_few_rows(case: Any) -> None:
    with pytest.raises(DataError, match=r"^data: got '49 rows with a known outcome'; expected at least 50; bring more rows$"):
        make(pa.table({"y": ["a"] * 20 + ["b"] * 29, "x": list(range(49))}), case())


# ------------------------------------------------------------------------------------------------------------------ within


# --------------------------------------------------------------------------------------------------------------- declared


def parts(n: int, n_test: int) -> list[str]:
    return ["test" if i < n_test else "valid" if i % 7 == 0 else "Train " for i in range(n)]


def test_a_column_may_say_which_rows_are_held_out(case: Any) -> None:
    found, _ = make(rows(1000, part=parts(1000, 150)), case(holdout="part"))
    (fold,) = found.folds
    assert found.method == "declared"
    assert found.detail == "tested on the rows whose part is test, trained on the others"
    assert (fold.test.tolist(), fold.train.tolist()) == (list(range(150)), list(range(150, 1000)))
    assert found.clusters is None
    again, _ = make(rows(1000, part=parts(1000, 150)), case(holdout="part"), seed=5, method="declared")
    assert again.hash == found.hash


def test_rows_of_a_group_in_the_test_are_not_learnt_from(case: Any) -> None:
    groups = [i % 40 if i < 150 else i % 97 for i in range(1000)]
    found, _ = make(rows(1000, part=parts(1000, 150), g=groups), case(holdout="part", group="g"))
    (fold,) = found.folds
    assert fold.test.tolist() == list(range(150))
    assert not {groups[i] for i in fold.train} & {groups[i] for i in fold.test}
    assert f"; {850 - len(fold.train)} rows left out, since their g is in the test" in found.detail
    assert found.clusters is not None
    assert len(set(found.clusters.tolist())) == 97


def test_rows_that_equal_a_row_of_the_test_are_not_learnt_from(case: Any) -> None:
    table = rows(1000)
    table = pa.concat_tables([table, table.slice(0, 30)]).append_column("part", pa.array(parts(1030, 150)))
    found, _ = make(table, case(holdout="part"))
    (fold,) = found.folds
    assert set(range(150, 1030)) - set(fold.train.tolist()) == set(range(1000, 1030))
    assert "; 30 rows left out, since they look like a row of the test" in found.detail


def test_rows_without_an_outcome_are_in_no_declared_part(case: Any) -> None:
    table = rows(400, part=parts(400, 100))
    table = table.set_column(0, "y", pa.array([None if i % 10 == 0 else v for i, v in enumerate(table["y"].to_pylist())]))
    (fold,) = make(table, case(holdout="part"))[0].folds
    assert (len(fold.test), len(fold.train)) == (90, 270)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            ["holdout"] * 200,
            "got 'holdout'; expected train, valid or test in every row; write one of them in each row, or leave data.holdout out",
        ),
        ([None, None] + ["test"] * 99 + ["train"] * 99, "got 'nothing in 2 of 200 rows'; expected train, valid or test in every row"),
        ([True, False] * 100, "got 'true'; expected train, valid or test in every row"),
        ([0, 1] * 100, "got '0'; expected train, valid or test in every row"),
        (
            ["train"] * 200,
            "the declared split: got '0 rows to test on (tested on the rows whose part is test, trained on the others)'; expected at least 20; bring more rows",
        ),
        (["test"] * 170 + ["train"] * 30, "the declared split: got '30 rows to learn from (tested"),
    ],
)
def test_parts_that_say_no_split(case: Any, part: list[Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        make(rows(200, part=part), case(holdout="part"))
    assert message in str(caught.value)


def test_a_declared_split_forbids_another_and_needs_a_column(case: Any) -> None:
    message = "^data.holdout: got 'a crossfit split'; expected the split that 'part' declares; leave data.holdout out for another$"
    with pytest.raises(CaseError, match=message):
        make(rows(200, part=parts(200, 50)), case(holdout="part"), method="crossfit")
    with pytest.raises(
        CaseError, match=r"^data.holdout: got 'nothing'; expected a column of train and test, for a declared split; declare data.holdout$"
    ):
        make(rows(200), case(), method="declared")


def test_inner_folds_know_no_parts(case: Any) -> None:
    table = rows(1000)
    table = pa.concat_tables([table, table.slice(500, 50)]).append_column("part", pa.array(parts(1050, 150)))
    spec = case(holdout="part")
    found, outcome = make(table, spec)
    train = found.folds[0].train
    for fold in splits.inner(found, outcome, spec, table, train):
        held = set(train[fold.test].tolist())
        assert {i for i in range(500, 550) if i in held} == {i - 500 for i in held if i >= 1000}, (
            "equal rows stay together, whatever their part"
        )


def test_one_image_with_two_labels_stays_on_one_side(case: Any, rng: np.random.Generator) -> None:
    shown = rng.integers(0, 250, 400)  # many of the 400 rows show an image that others show too
    images = pa.array([bytes([i % 250, i // 250, 7]) for i in shown], pa.binary())
    table = pa.table({"image": images, "y": rng.choice(["a", "b", "c"], 400), "x": rng.normal(size=400)})
    found, outcome = make(table, case())
    labels = {i: set(table["y"].take(pa.array(np.flatnonzero(shown == i))).to_pylist()) for i in set(shown.tolist())}
    assert sum(len(of) > 1 for of in labels.values()) > 50
    for fold in found.folds:
        assert not set(shown[fold.train]) & set(shown[fold.test])
        assert 20 <= len(fold.test) <= 60
        for inside in splits.inner(found, outcome, case(), table, fold.train):
            assert not set(shown[fold.train[inside.train]]) & set(shown[fold.train[inside.test]])


def inner(table: pa.Table, spec: Case, k: int = 5) -> tuple[Any, tuple[Any, ...]]:
    found, outcome = make(table, spec)
    train = found.folds[0].train
    return train, splits.inner(found, outcome, spec, table, train, k=k)


@pytest.mark.parametrize("k", [5, 3, 2])
def test_inner_folds_are_positions_in_the_train_rows(case: Any, k: int) -> None:
    train, folds = inner(rows(1000), case(), k)
    assert len(folds) == k
    assert sorted(np.concatenate([f.test for f in folds]).tolist()) == list(range(len(train)))
    for fold in folds:
        assert len(fold.train) + len(fold.test) == len(train)
        assert not set(fold.train) & set(fold.test)


def test_inner_folds_do_not_repeat_the_outer_ones(case: Any) -> None:
    table = rows(1000)
    found, outcome = make(table, case())
    folds = splits.inner(found, outcome, case(), table, np.arange(1000), k=10)
    assert max(len(set(a.test) & set(b.test)) for a in folds for b in found.folds) < 30


def test_inner_folds_keep_groups_together(case: Any, rng: np.random.Generator) -> None:
    groups = rng.integers(0, 60, 1000)
    train, folds = inner(rows(1000, g=groups), case(group="g"))
    for fold in folds:
        assert not set(groups[train[fold.train]]) & set(groups[train[fold.test]])


def test_the_inner_fold_in_time_is_purged_too(case: Any) -> None:
    at = np.arange(1000) / 2
    train, folds = inner(rows(1000, t=days(at)), case(time="t", outcome_delay="10d"))
    (fold,) = folds
    assert (at[train[fold.train]] + 10).max() <= at[train[fold.test]].min()
    assert abs(len(fold.test) / len(train) - 0.2) < 0.01


def test_too_few_rows_within(case: Any) -> None:
    table = rows(60)
    found, outcome = make(table, case())
    with pytest.raises(
        DataError, match=r"^the inner split: got '\d+ rows to learn from'; expected at least 25, and some to test on; bring more rows$"
    ):
        splits.inner(found, outcome, case(), table, np.arange(30))


@pytest.mark.data
def test_real_tables(shared: Any, case: Any) -> None:
    from makegood.data.sources import read

    taiwan, _ = make(read(shared("risk/taiwan_default.csv.gz")).table, case("Default"))
    assert (taiwan.method, len(taiwan.folds[0].test)) == ("stratified", 6001)
    german, _ = make(read(shared("risk/german_credit.csv")).table, case("defaulted"))
    assert (german.method, len(german.folds)) == ("crossfit", 10)
    index, _ = make(read(shared("market/sp500_index_daily.csv.gz")).table, case("Close", time="Date", outcome_delay="30d"))
    assert (index.method, index.purged) == ("time", 20)


# ------------------------------------------------------------------------------------------------------------------- texts

TOPICS = "account bank card transfer money please help when where lost abroad limit change address pin app fee rate cash top".split()


def notes(n: int) -> list[str]:
    rng = np.random.default_rng(7)
    made = [" ".join(rng.choice(TOPICS, 20)) for _ in range(n)]
    for i in range(0, n - 1, 10):
        made[i + 1] = made[i].upper() + "!"
    return made


@pytest.mark.parametrize(
    ("method", "data", "columns"),
    [
        ("crossfit", {}, {}),
        ("stratified", {}, {}),
        ("group", {"group": "who"}, {"who": [f"g{i % 97}" for i in range(600)]}),
        ("time", {"time": "at"}, {"at": days((np.arange(600) * 119) % 600)}),
        ("declared", {"holdout": "part"}, {"part": ["test" if i % 3 == 0 else "train" for i in range(600)]}),
    ],
)
def test_no_text_stands_on_both_sides(case: Any, method: Any, data: dict[str, str], columns: dict[str, Any]) -> None:
    table = rows(600, note=notes(600), **columns)
    found, _ = make(table, case(text="note", **data), method=method)
    bare, _ = make(table, case(**data), method=method)
    texts = np.array([text.lower().rstrip("!") for text in table["note"].to_pylist()])
    lost: set[int] = set()
    for with_, without in zip(found.folds, bare.folds, strict=True):
        assert np.array_equal(with_.test, without.test)
        assert not set(texts[with_.train]) & set(texts[with_.test])
        gone = np.setdiff1d(without.train, with_.train)
        assert set(texts[gone]) <= set(texts[with_.test])
        lost |= {*gone.tolist()}
    assert found.repeated == len(lost) > 0
    assert found.detail.endswith(f"{len(lost)} rows left out where their note nearly repeats one of the test")
    assert found.hash == bare.hash


def test_where_no_text_repeats_nothing_is_left_out(case: Any) -> None:
    table = rows(300, note=[f"{text} {i}" for i, text in enumerate(notes(3000)[2::10])])
    assert make(table, case(text="note"))[0].repeated == 0
