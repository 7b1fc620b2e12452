from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from makegood.contracts import Finding
from makegood.data import leaks
from makegood.data.outcome import type_outcome
from makegood.data.profile import profile
from makegood.data.sources import read

N = 500
RNG = np.random.default_rng(1)  # another stream than the fixture's: what a test draws must not repeat the outcome
Y = (RNG.random(N) < 0.4).astype(int)


def find(columns: dict[str, Any], spec: Any) -> dict[str, Finding]:
    """Return the findings about a table of these columns and, unless it is among them, the outcome `Y`."""
    table = read(pa.table({"y": np.array(["no", "yes"])[Y], **columns})).table
    return {f.column: f for f in leaks.find(table, profile(table, spec.data), type_outcome(table, spec), spec.data)}


@pytest.fixture(scope="module")
def breast_cancer() -> tuple[pa.Table, Any]:
    table = read("builtin:diagnosis").table
    return table, table["diagnosis"].to_numpy(zero_copy_only=False) == "malignant"


# --------------------------------------------------------------------------------------------------- one column tells all


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("noisy copy", Y + 0.2 * RNG.normal(size=N)),
        ("reversed", -Y + 0.2 * RNG.normal(size=N)),
        ("level", np.where(Y == 1, RNG.choice(["a", "b"], N), RNG.choice(["c", "d", "e"], N))),
        ("unordered code", np.where(Y == 1, RNG.choice([1, 3], N), RNG.choice([2, 4], N))),
        ("with gaps", [None if g else v for g, v in zip(RNG.random(N) < 0.3, Y + 0.1 * RNG.normal(size=N), strict=True)]),
    ],
)
def test_a_column_that_alone_tells_the_outcome_is_excluded(case: Any, name: str, values: Any, rng: np.random.Generator) -> None:
    found = find({name: values, "x": rng.normal(size=N)}, case())
    assert list(found) == [name]
    finding = found[name]
    assert (finding.kind, finding.action, finding.severity) == ("leak", "excluded", "leak")
    assert finding.detail.startswith(f"Column {name!r} alone tells the outcome with an AUC of ")
    assert finding.detail.endswith(". It was excluded; data.keep restores it.")


def test_a_copy_with_some_errors_is_nearly_a_copy(case: Any, rng: np.random.Generator) -> None:
    flipped = np.where(rng.random(N) < 0.02, 1 - Y, Y)
    found = find({"status": np.array(["open", "closed"])[flipped]}, case())
    assert found["status"].detail.startswith("Column 'status' is nearly a copy of the outcome (Cohen's kappa at least 0.9")


def test_keep_vouches_for_a_column(case: Any, rng: np.random.Generator) -> None:
    found = find({"score": Y + 0.2 * rng.normal(size=N)}, case(keep="score"))["score"]
    assert (found.action, found.severity) == ("kept", "warning")
    assert found.detail.endswith("It was kept, since data.keep vouches for it.")
    assert leaks.excluded((found,)) == ()


def test_honest_columns_pass(case: Any, rng: np.random.Generator) -> None:
    strong = Y + 0.7 * rng.normal(size=N)
    ids = rng.permutation(N)
    assert (
        find({"strong": strong, "level": rng.choice(list("abc"), N), "many": [f"k{i % 200}" for i in ids], "same": ["s"] * N}, case()) == {}
    )


def test_strong_columns_of_breast_cancer_pass_and_planted_copies_do_not(case: Any, breast_cancer: tuple[pa.Table, Any]) -> None:
    table, sick = breast_cancer
    spec = case("diagnosis")
    caught = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rows = rng.choice(len(sick), 500, replace=False)
        planted = table.take(rows).append_column("planted", pa.array(sick[rows] + 0.3 * rng.normal(size=500)))
        found = leaks.find(planted, profile(planted, spec.data), type_outcome(planted, spec), spec.data)
        assert {f.column for f in found} <= {"planted"}, "an AUC of .975 is strong, not suspect"
        caught += len(found)
    assert caught >= 9


def test_a_few_rows_prove_nothing(case: Any) -> None:
    """Six rows of a class are separated by luck."""
    y = ["yes"] * 10 + ["no"] * 10
    x = [*range(9), 11, 10, *range(12, 21)]
    assert find({"y": y, "x": x}, case()) == {}


def test_one_of_many_classes_told_apart_is_no_leak(case: Any, rng: np.random.Generator) -> None:
    kinds = rng.choice(["setosa", "versicolor", "virginica"], N)
    petal = np.where(kinds == "setosa", 1.4, 4.8) + 0.3 * rng.normal(size=N)
    code = np.searchsorted(["setosa", "versicolor", "virginica"], kinds) + 0.1 * rng.normal(size=N)
    assert list(find({"y": kinds, "petal": petal, "code": code}, case())) == ["code"]


def test_a_large_table_is_sampled(case: Any, rng: np.random.Generator) -> None:
    n = 120_000
    y = rng.integers(0, 2, n)
    found = find({"y": y, "copy": y + 0.1 * rng.normal(size=n), "x": rng.normal(size=n)}, case())
    assert list(found) == ["copy"]
    assert found["copy"].count == n


# ------------------------------------------------------------------------------------------------------- filled or missing


def test_a_column_that_is_filled_only_with_one_outcome(case: Any, rng: np.random.Generator) -> None:
    filled = (Y == 1) & (rng.random(N) < 0.4)
    found = find({"fee": np.where(filled, rng.normal(size=N), np.nan)}, case())
    assert found["fee"].detail.startswith(f"Column 'fee' is filled only where the outcome is 'yes' ({filled.sum()} rows). It was excluded")


def test_a_column_that_is_missing_only_with_the_rarer_outcome(case: Any, rng: np.random.Generator) -> None:
    missing = (Y == 1) & (rng.random(N) < 0.4)
    found = find({"returned": np.where(missing, np.nan, rng.normal(size=N))}, case())
    assert found["returned"].detail.startswith(f"Column 'returned' is missing only where the outcome is 'yes' ({missing.sum()} rows)")


def test_a_question_that_does_not_apply_is_no_leak(case: Any, rng: np.random.Generator) -> None:
    missing = (Y == 0) & (rng.random(N) < 0.4)
    assert find({"car age": np.where(missing, np.nan, rng.normal(size=N))}, case()) == {}


def test_a_column_that_is_filled_nearly_only_with_one_outcome(case: Any) -> None:
    filled = np.where(np.arange(N) % 250 == 0, 1 - Y, Y) == 1
    found = find({"note": [f"t{i}" if f else None for i, f in enumerate(filled)]}, case())
    assert found["note"].detail.startswith("Column 'note' tells the outcome by being filled or not, with an AUC of 0.99")


def test_missing_at_random_is_no_leak(case: Any, rng: np.random.Generator) -> None:
    assert find({"x": np.where(rng.random(N) < 0.3, np.nan, rng.normal(size=N))}, case()) == {}


# ----------------------------------------------------------------------------------------------------------------- in time


def test_dates_after_the_decision(case: Any, rng: np.random.Generator) -> None:
    day = [datetime(2024, 1, 1) + timedelta(days=int(d)) for d in rng.integers(0, 99, N)]
    later = [d + timedelta(days=3) if i % 10 == 0 else None for i, d in enumerate(day)]
    at_noon = [d + timedelta(hours=12) for d in day]
    found = find({"applied": day, "closed": later, "at noon": at_noon}, case(time="applied"))
    assert list(found) == ["closed"], "a time on the same day is not later than a date"
    assert (
        found["closed"].detail
        == "Column 'closed' is later than the decision ('applied') in 50 rows. It was excluded; data.keep restores it."
    )
    assert list(find({"applied": at_noon, "closed": [d + timedelta(hours=1) for d in at_noon]}, case(time="applied"))) == ["closed"]


def test_columns_declared_as_known_later(case: Any, rng: np.random.Generator) -> None:
    found = find({"fee": rng.normal(size=N)}, case(known_later="fee"))["fee"]
    assert found.detail == "Column 'fee' is declared as known only after the decision. It was excluded."
    assert found.severity == "leak"


def test_a_time_or_a_group_that_is_not_declared_is_hinted_at(case: Any) -> None:
    columns = {"customer_id": [f"c{i % 100}" for i in range(N)], "when": [datetime(2024, 1, 1) + timedelta(days=i % 90) for i in range(N)]}
    found = find(columns, case())
    assert (
        found["customer_id"].detail
        == "Values of 'customer_id' recur: if it names a customer, patient or the like, write data.group: customer_id, so that none stands on both sides of a split."
    )
    assert (
        found["when"].detail
        == "'when' holds dates: if decisions are taken over time, write data.time: COLUMN, so that the test lies after the training."
    )
    assert {f.action for f in found.values()} == {"kept"}
    assert find(columns, case(time="when", group="customer_id")) == {}


# ---------------------------------------------------------------------------------------------------------- number outcomes


def test_a_number_outcome(case: Any, rng: np.random.Generator) -> None:
    y = rng.lognormal(size=N)
    columns = {
        "y": y,
        "copy": np.log(y) + 0.05 * rng.normal(size=N),
        "band": np.digitize(y, np.quantile(y, np.linspace(0.01, 0.99, 60))).astype(str),
        "strong": np.log(y) + 0.5 * rng.normal(size=N),
        "gaps": np.where(rng.random(N) < 0.5, np.nan, 1.0),
        "exact": y * 2,
    }
    found = find(columns, case(type="number"))
    assert set(found) == {"copy", "band", "exact"}
    assert found["copy"].detail.startswith("Column 'copy' alone tells the outcome: its rank correlation with it is 0.99")


def test_a_number_outcome_told_by_levels(case: Any, rng: np.random.Generator) -> None:
    band = rng.integers(0, 12, N)
    found = find({"y": band + 0.1 * rng.normal(size=N), "band": [f"b{(b * 5) % 12}" for b in band]}, case(type="number"))
    assert found["band"].detail.startswith("Column 'band' alone tells the outcome: its correlation with it is 0.99")


# --------------------------------------------------------------------------------------------------------------------- AUC


def test_auc_with_ties_and_one_class() -> None:
    positive = np.array([False, True, False, True])
    assert leaks.auc(np.zeros(4), positive) == 0.5
    assert leaks.auc(np.array([0.0, 1.0, 1.0, 2.0]), positive) == pytest.approx(0.875)
    assert leaks.auc(np.zeros(2), np.array([True, True])) == 0.5


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("risk/german_credit.csv", "defaulted"),
        ("risk/taiwan_default.csv.gz", "Default"),
        ("diagnosis/pima_diabetes.csv", "Outcome"),
        ("assessment/student_maths.csv.gz", "G3"),
        ("general/telco_churn.csv.gz", "Churn"),
    ],
)
def test_real_tables_have_no_leaks(shared: Any, case: Any, name: str, outcome: str) -> None:
    table, spec = read(shared(name)).table, case(outcome)
    assert leaks.find(table, profile(table, spec.data), type_outcome(table, spec), spec.data) == ()


def test_an_image_leaks_by_being_there_and_never_by_its_pixels(case: Any) -> None:
    pixels = [b"yes" if y else b"no" for y in Y]
    assert find({"photo": pixels}, case()) == {}
    found = find({"photo": [b"x%d" % i if y else None for i, y in enumerate(Y)]}, case())
    assert found["photo"].detail.startswith("Column 'photo' is filled only where the outcome is 'yes'")


def test_a_text_that_is_named_is_kept_and_watched(case: Any) -> None:
    note = [f"closed after {i} days, all was paid back" if y else None for i, y in enumerate(Y)]
    found = find({"note": note}, case(text="note"))["note"]
    assert (found.kind, found.action, found.severity) == ("leak", "kept", "warning")
    assert found.detail.endswith("It was kept, since data.text names it.")
