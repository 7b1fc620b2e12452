from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from makegood.contracts import Finding
from makegood.data import prepare
from makegood.data.profile import profile
from makegood.data.sources import read
from makegood.data.texts import Tokenizer, train_tokenizer
from makegood.data.transform import Column, Transform
from makegood.errors import CaseError, DataError

N = 200


@pytest.fixture
def table(rng: np.random.Generator) -> pa.Table:
    return read(
        pa.table(
            {
                "amount": rng.lognormal(size=N),
                "age": [None if i % 7 == 0 else int(i % 50) for i in range(N)],
                "vip": rng.choice(["yes", "no"], N, p=[0.2, 0.8]),
                "flag": rng.random(N) < 0.7,
                "when": [datetime(2024, 1, 1) + timedelta(hours=int(h)) for h in rng.integers(0, 9999, N)],
                "day": [datetime(2024, 1, 1) + timedelta(days=int(d)) for d in rng.integers(0, 300, N)],
                "city": [None if i == 3 else f"c{min(int(c), 60)}" for i, c in enumerate(rng.exponential(12, N))],
                "code": [f"id{i}" for i in range(N)],
                "sex": rng.choice(["f", "m"], N),
                "y": rng.choice(["no", "yes"], N),
            }
        )
    ).table


def fit(table: pa.Table, spec: Any, excluded: tuple[str, ...] = ("y", "code"), **options: Any) -> Transform:
    return prepare.fit(table, profile(table, spec.data), excluded, **options)


def column(transform: Transform, name: str) -> Column:
    return next(c for c in transform.columns if c.name == name)


def test_what_makes_no_feature(case: Any, table: pa.Table) -> None:
    data = case(time="when", group="city", protected=["sex", "age"], keep="age").data
    leak = Finding("leak", "amount", 1, "", "excluded", "leak")
    names, findings = prepare.unused(profile(table, data), (leak,), data)
    assert set(names) == {"y", "code", "amount", "sex", "when", "city"}
    assert [f.detail for f in findings] == [
        "Column 'sex' is protected: it makes no feature and is watched for fairness.",
        "Column 'when' is the time of the rows; it splits them and makes no feature.",
        "Column 'city' is the group of the rows; it splits them and makes no feature.",
    ]


def test_the_features_of_each_kind(case: Any, table: pa.Table) -> None:
    transform = fit(table, case())
    names = [f for f in transform.features if not f.startswith("city = c")]
    assert names == [
        *("amount", "age", "age missing", "vip", "flag"),
        *("when", "when: month", "when: weekday", "when: hour", "day", "day: month", "day: weekday"),
        *("city = (rare)", "city: frequency", "city missing", "sex = f", "sex = m"),
    ]
    assert {transform.origin[f] for f in names} == {"amount", "age", "vip", "flag", "when", "day", "city", "sex"}
    assert set(transform.inputs) == set(transform.origin.values())
    assert transform.plain == {"amount", "age"}


def test_numbers_are_centred_on_the_median_and_scaled_by_the_quartiles(case: Any, table: pa.Table) -> None:
    transform = fit(table, case())
    amount = table["amount"].to_numpy()
    low, median, high = np.quantile(amount, [0.25, 0.5, 0.75])
    x = transform.apply(transform.read(prepare.raw_columns(table))[0])[:, transform.features.index("amount")]
    np.testing.assert_allclose(x, (amount - median) / (high - low), rtol=1e-6)
    spec = column(transform, "amount")
    width = amount.max() - amount.min()
    assert (spec.low, spec.high) == pytest.approx((amount.min() - width, amount.max() + width))


def test_missing_values_take_the_median_and_raise_a_flag(case: Any, table: pa.Table) -> None:
    transform = fit(table, case())
    features = transform.apply(transform.read(prepare.raw_columns(table))[0])
    missing = table["age"].is_null().to_numpy()
    assert (features[missing, transform.features.index("age")] == 0).all()
    assert (features[:, transform.features.index("age missing")] == missing).all()


def test_the_most_frequent_levels_have_features_the_others_share_one(case: Any, table: pa.Table) -> None:
    transform = fit(table, case())
    city = column(transform, "city")
    counts = [table["city"].to_pylist().count(level) for level in city.levels]
    assert counts == sorted(counts, reverse=True)
    assert all(n >= prepare.MIN_LEVEL for n in counts[: city.frequent])
    assert counts[city.frequent] < prepare.MIN_LEVEL
    features = transform.apply(transform.read(prepare.raw_columns(table))[0])
    rare = np.array([c in city.levels[city.frequent :] for c in table["city"].to_pylist()])
    assert (features[:, transform.features.index("city = (rare)")] == rare).all()


def test_at_most_32_levels_have_features(case: Any, rng: np.random.Generator) -> None:
    table = pa.table({"k": [f"k{i % 40}" for i in range(400)], "y": rng.integers(0, 2, 400)})
    transform = fit(table, case(), ("y",))
    assert column(transform, "k").frequent == 32
    assert len(transform.features) == 34


def test_it_is_fitted_on_the_train_rows_alone(case: Any, table: pa.Table) -> None:
    train = np.arange(0, N, 2)
    changed = table.set_column(0, "amount", pa.array(np.where(np.arange(N) % 2, 1e9, table["amount"].to_numpy())))
    assert fit(table, case(), rows=train).to_json() == fit(changed, case(), rows=train).to_json()
    assert fit(table, case(), rows=train).to_json() == fit(table, case(), rows=train[::-1]).to_json()


def test_columns_for_payoffs_are_read_and_make_no_feature(case: Any, table: pa.Table) -> None:
    transform = fit(table, case(), ("y", "code", "amount", "when"), extra=("amount", "code", "age"))
    assert {"amount", "code", "age"} <= set(transform.inputs)
    assert not {"amount", "code", "when"} & set(transform.origin.values())
    columns, notes = transform.read(prepare.raw_columns(table))
    assert columns["amount"].tolist() == table["amount"].to_pylist()
    assert columns["code"].tolist() == table["code"].to_pylist()
    assert not notes


def test_a_constant_or_empty_column_within_the_train_rows(case: Any, rng: np.random.Generator) -> None:
    table = pa.table(
        {
            "a": [1.0] * 50 + [2.0] * 50,
            "b": pa.array([None] * 50 + [1.0] * 50),
            "d": pa.array([None] * 50 + ["x"] * 50),
            "y": rng.integers(0, 2, 100),
        }
    )
    transform = fit(table, case(), ("y",), rows=np.arange(50))
    features = transform.apply(transform.read(prepare.raw_columns(table))[0])
    assert np.isfinite(features).all()
    assert not features[:, 0].any()


@pytest.mark.parametrize(
    ("values", "z"),
    [
        ([0.0] * 90 + [1.0] * 10, [0.0, 1.0]),  # the quartiles agree: the next wider spread is the scale
        ([0.0] * 97 + [1.0] * 3, [0.0, 1.0]),
        ([0.0] * 998 + [1.0] * 2, [0.0, 1.0]),
    ],
)
def test_a_spread_of_zero_gives_way_to_a_wider_one(case: Any, values: list[float], z: list[float]) -> None:
    table = pa.table({"x": values, "y": [0, 1] * (len(values) // 2)})
    transform = fit(table, case(), ("y",))
    assert np.unique(transform.apply(transform.read({"x": values})[0])).tolist() == z


def test_numbers_at_the_ends_of_float64(case: Any) -> None:
    table = pa.table({"x": [-1e308, 1e308, 0.0, 5e-324] * 10, "y": [0, 1] * 20})
    transform = fit(table, case(), ("y",))
    features = transform.apply(transform.read({"x": [-1e308, 1e308, 0.0, 5e-324, 1.0]})[0])
    assert np.isfinite(features).all()


def test_the_more_frequent_truth_fills_a_gap(case: Any) -> None:
    table = pa.table({"s": ["yes"] * 30 + ["no"] * 9 + [None], "b": [True] * 30 + [False] * 9 + [None], "y": [0, 1] * 20})
    transform = fit(table, case(), ("y",))
    assert [c.fill for c in transform.columns] == [1.0, 1.0]
    assert transform.apply(transform.read({"s": [None], "b": [None]})[0]).tolist() == [[1.0, 1.0, 1.0, 1.0]]


def test_raw_columns_keep_what_a_float_would_lose() -> None:
    table = pa.table(
        {
            "i": pa.array([2**60 + 1, None]),
            "j": pa.array([1, None]),
            "k": [1, 2],
            "b": pa.array([True, None]),
            "t": pa.array([datetime(2024, 1, 1), None]),
        }
    )
    raw = prepare.raw_columns(table)
    assert raw["i"].tolist() == [2**60 + 1, None]
    assert (raw["j"].dtype, raw["k"].dtype, raw["b"].dtype, raw["t"].dtype) == (np.float64, np.int64, object, np.dtype("datetime64[us]"))


# ------------------------------------------------------------------------------------------------------------------ errors


def test_nothing_left_to_learn_from(case: Any, table: pa.Table) -> None:
    expected = r"^data: got 'no column to learn from'; expected at least one that is no id, text, constant, suspected leak or protected column; see the findings"
    with pytest.raises(DataError, match=expected):
        fit(table.select(["code", "y"]), case())
    with pytest.raises(DataError, match=expected):
        fit(table.select(["code", "y"]), case(), extra=("code",))


def test_an_extra_column_that_is_not_there(case: Any, table: pa.Table) -> None:
    with pytest.raises(CaseError, match=r"^decision: got 'amuont'; expected a column of the data; did you mean 'amount'\?$"):
        fit(table, case(), extra=("amuont",))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "declared"),
    [
        ("risk/german_credit.csv", {"outcome": "defaulted"}),
        ("risk/taiwan_default.csv.gz", {"outcome": "Default", "categories": ["SEX", "EDUCATION", "MARRIAGE"]}),
        ("diagnosis/pima_diabetes.csv", {"outcome": "Outcome"}),
        ("assessment/student_maths.csv.gz", {"outcome": "G3", "protected": ["sex"]}),
        ("general/telco_churn.csv.gz", {"outcome": "Churn"}),
    ],
)
def test_real_tables(shared: Any, case: Any, name: str, declared: dict[str, Any]) -> None:
    table, spec = read(shared(name)).table, case(**declared)
    found = profile(table, spec.data)
    names, _ = prepare.unused(found, (), spec.data)
    transform = prepare.fit(table, found, names)
    columns, notes = transform.read(prepare.raw_columns(table))
    features = transform.apply(columns)
    assert not notes
    assert features.shape == (table.num_rows, len(transform.features))
    assert np.isfinite(features).all()
    again = transform.read(prepare.raw_columns(read(shared(name), plain=transform.plain).table))
    assert (transform.apply(again[0]).view(np.int32) == features.view(np.int32)).all(), "a file to score is read as the file trained on"


def test_an_image_makes_a_feature_of_each_pixel(case: Any) -> None:
    raw = [bytes([i % 256, 0, 0, 0, 0, i % 7]) for i in range(N)]
    table = pa.table({"photo": [*raw[:-1], None], "y": [i % 2 for i in range(N)]})
    field = pa.field("photo", pa.binary(), metadata={b"shape": b"1,2,3", b"source": b"2,4,3"})
    transform = fit(table.cast(pa.schema([field, table.schema.field("y")])), case(), ("y",))
    assert transform.columns == (Column("photo", "image", shape=(1, 2, 3), stored=(2, 4, 3)),)
    raw_photo = prepare.raw_columns(table)["photo"]
    assert (raw_photo.dtype, raw_photo[-1]) == (object, None)
    features = transform.apply(transform.read({"photo": raw_photo})[0])
    assert features[[1, N - 1]].tolist() == [[np.float32(1) / np.float32(255), 0, 0, 0, 0, np.float32(1) / np.float32(255)], [0.0] * 6]


def test_the_column_of_parts_makes_no_feature(case: Any) -> None:
    table = read(pa.table({"y": ["a", "b"] * 20, "x": range(40), "part": ["train", "test"] * 20})).table
    data = case(holdout="part").data
    names, findings = prepare.unused(profile(table, data), (), data)
    assert "part" in names
    assert [(f.kind, f.column, f.detail, f.action) for f in findings] == [
        ("holdout", "part", "Column 'part' is the part of the rows; it splits them and makes no feature.", "excluded")
    ]


# ------------------------------------------------------------------------------------------------------------------- texts


@pytest.fixture
def notes(rng: np.random.Generator) -> pa.Table:
    words = np.array("card lost payment stuck refund transfer abroad fee".split())
    made = [" ".join(rng.choice(words, int(n))) for n in rng.integers(1, 30, N)]
    return pa.table({"note": [None, *made[1:]], "age": rng.integers(18, 80, N), "y": rng.choice(["no", "yes"], N)})


def test_a_text_has_a_tokenizer_of_the_train_rows_and_windows_that_hold_them(case: Any, notes: pa.Table) -> None:
    spec = case(text="note")
    transform = fit(notes, spec, ("y",), rows=np.arange(50))
    made = column(transform, "note")
    assert (made.reads, made.windows, made.flag) == ("text", 1, True)
    assert made.length % 8 == 0
    assert made.length >= Tokenizer(made.tokenizer).lengths(notes["note"].to_pylist()[:50]).max() > made.length - 8
    assert transform.tokens is not None
    assert transform.tokens.first == 0
    assert transform.features[made.length :] == ("age",)
    assert column(fit(notes, spec, ("y",), rows=np.arange(50)), "note") == made
    assert column(fit(notes, spec, ("y",), rows=np.arange(60, 160)), "note").tokenizer != made.tokenizer
    assert not column(fit(notes, spec, ("y",), rows=np.arange(1, 50)), "note").flag


def test_the_case_and_a_pretrained_network_say_how_texts_are_read(case: Any, notes: pa.Table) -> None:
    state = train_tokenizer(["another corpus"] * 3)
    wording = prepare.Wording(tokens=12, windows=3, tokenizer=state)
    made = column(fit(notes, case(text="note"), ("y",), wording=wording), "note")
    assert (made.length, made.windows, made.tokenizer) == (12, 3, state)
    with pytest.raises(CaseError, match=r"train.pretrained: got 'a tokenizer that cannot be read"):
        fit(notes, case(text="note"), ("y",), wording=prepare.Wording(tokenizer="{}"))


def test_texts_are_mended_and_counted() -> None:
    cells = ["a\x00b", "c\x01", " ", None, "x" * 100_001, "fine"]
    table, found = prepare.mended(pa.table({"t": cells, "n": range(6)}), "t")
    assert table["t"].to_pylist() == ["ab", "c", None, None, "x" * 100_000, "fine"]
    assert [(f.kind, f.count, f.detail, f.action) for f in found] == [
        ("text", 1, "1 text of 't' holds nothing but white space.", "treated as missing"),
        ("text", 2, "2 texts of 't' held control characters, now removed.", "kept"),
        ("text", 1, "1 text of 't' has more than 100,000 characters, and was cut there.", "kept"),
    ]
    assert prepare.mended(table, "n") == (table, ())
    assert prepare.mended(table, "absent") == (table, ())
    assert prepare.shortened("t", 0) == ()
    assert prepare.shortened("t", 2)[0].detail == "2 texts of 't' have more tokens than fit into their windows, and were cut there."
