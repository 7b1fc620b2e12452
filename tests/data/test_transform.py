from __future__ import annotations

import base64
import io
import json
import math
import subprocess
import sys
import time
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.pace import allowed

from makegood.contracts import Floats
from makegood.data.prepare import raw_columns
from makegood.data.transform import Batch, Column, Transform

MEDIAN = Column("amount", "number", fill=10.0, center=10.0, scale=4.0, low=-100.0, high=100.0)
TRANSFORM = Transform(
    [
        MEDIAN,
        Column("年 龄", "number", fill=40.0, center=40.0, scale=10.0, low=0.0, high=120.0, flag=True),
        Column("price-eu", "number", style="comma", fill=1.0, center=0.0, scale=1.0, low=-1e6, high=1e6),
        Column("vip", "boolean", fill=1.0, high=1.0),
        Column("flag", "boolean", high=1.0, flag=True),
        Column(
            "when", "date", style="month/day/year", fill=19000.0, center=19000.0, scale=100.0, low=0.0, high=40000.0, flag=True, clock=True
        ),
        Column("compact", "date", style="yearmonthday", fill=19000.0, center=19000.0, scale=100.0, low=-719162.0, high=2932896.0),
        Column("city", "category", levels=("Paris", "北京", "Ulm", "1"), frequent=2, flag=True),
        Column("kind", "category", levels=("a", "b"), frequent=2),
        Column("payout", "number", feature=False),
        Column("label", "category", feature=False),
    ]
)
GOOD: dict[str, Any] = {
    "amount": 14.0,
    "年 龄": 50,
    "price-eu": 2.0,
    "vip": True,
    "flag": "no",
    "when": "01/31/2022",
    "compact": 20220131,
    "city": "北京",
    "kind": "a",
    "payout": 5.0,
    "label": "anything",
}


def one(**changes: Any) -> tuple[dict[str, float], list[str]]:
    """Return the features by name, and the notes, of a good row with some values changed."""
    columns, notes = TRANSFORM.read({name: [value] for name, value in {**GOOD, **changes}.items()})
    (features,) = TRANSFORM.apply(columns)
    assert np.isfinite(features).all()
    return dict(zip(TRANSFORM.features, features.tolist(), strict=True)), list(map(str, notes))


def test_a_row_becomes_features() -> None:
    features, notes = one()
    day = (date(2022, 1, 31) - date(1970, 1, 1)).days
    assert not notes
    assert features == pytest.approx(
        {
            "amount": 1.0,
            "年 龄": 1.0,
            "年 龄 missing": 0.0,
            "price-eu": 2.0,
            "vip": 1.0,
            "flag": 0.0,
            "flag missing": 0.0,
            "when": (day - 19000) / 100,
            "when: month": 0.0,
            "when: weekday": 0.0,
            "when: hour": 0.0,
            "when missing": 0.0,
            "compact": (day - 19000) / 100,
            "compact: month": 0.0,
            "compact: weekday": 0.0,
            "city = Paris": 0.0,
            "city = 北京": 1.0,
            "city = (rare)": 0.0,
            "city: frequency": 0.25,
            "city missing": 0.0,
            "kind = a": 1.0,
            "kind = b": 0.0,
        }
    )


@pytest.mark.parametrize(
    ("column", "value", "same_as", "note"),
    [
        ("amount", None, 10.0, "amount: missing, though it never was in training"),
        ("amount", math.nan, 10.0, "amount: missing, though it never was in training"),
        ("amount", "NA", 10.0, "amount: missing, though it never was in training"),
        ("amount", math.inf, 10.0, "amount: inf is not finite; treated as missing"),
        ("amount", 10**400, 10.0, "amount: inf is not finite; treated as missing"),
        ("amount", -(10**400), 10.0, "amount: -inf is not finite; treated as missing"),
        ("amount", Decimal("1e999"), 10.0, "amount: inf is not finite; treated as missing"),
        ("amount", Decimal("sNaN"), 10.0, "amount: Decimal('sNaN') cannot be read; treated as missing"),
        ("amount", 1e308, 100.0, "amount: 1e+308 is far outside what training saw; cut to its range"),
        ("amount", 2**70, 100.0, "amount: 1.18059e+21 is far outside what training saw; cut to its range"),
        ("amount", -1e308, -100.0, "amount: -1e+308 is far outside what training saw; cut to its range"),
        ("amount", "14", 14.0, "amount: '14' is text; read as a number"),
        ("amount", "abc", 10.0, "amount: 'abc' cannot be read; treated as missing"),
        ("amount", "💥", 10.0, "amount: '💥' cannot be read; treated as missing"),
        ("amount", b"1", 10.0, "amount: b'1' cannot be read; treated as missing"),
        ("amount", {"a": [1]}, 10.0, "amount: {'a': [1]} cannot be read; treated as missing"),
        pytest.param("amount", [10**5000], 10.0, "amount: a huge list cannot be read; treated as missing", id="huge"),
        ("amount", True, 1.0, None),
        ("amount", Decimal("14"), 14.0, None),
        ("amount", np.float32(14), 14.0, None),
        ("amount", np.int64(14), 14.0, None),
        ("年 龄", None, None, None),
        ("price-eu", "1.234,5", 1234.5, "price-eu: '1.234,5' is text; read as a number"),
        ("price-eu", "1,234.5", 1.0, "price-eu: '1,234.5' cannot be read; treated as missing"),
        ("vip", "Yes", True, None),
        ("vip", " FALSE ", False, None),
        ("vip", 0, False, None),
        ("vip", "1", True, "vip: '1' is text; read as a number"),
        ("vip", 2, True, "vip: 2 cannot be read; treated as missing"),
        ("vip", "2", True, "vip: '2' cannot be read; treated as missing"),
        ("vip", "perhaps", True, "vip: 'perhaps' cannot be read; treated as missing"),
        ("vip", [], True, "vip: [] cannot be read; treated as missing"),
        ("flag", None, None, None),
        ("when", "2022-01-31", "01/31/2022", None),
        ("when", datetime(2022, 1, 31), "01/31/2022", None),
        ("when", date(2022, 1, 31), "01/31/2022", None),
        ("when", np.datetime64("2022-01-31", "us"), "01/31/2022", None),
        ("when", "31/01/2022", None, "when: '31/01/2022' cannot be read; treated as missing"),
        ("when", 19000, None, "when: 19000 cannot be read; treated as missing"),
        ("when", math.nan, None, None),
        ("when", "-", None, None),
        ("compact", "20220131", 20220131, None),
        ("compact", None, "2022-01-08", "compact: missing, though it never was in training"),
        ("city", " 北京 ", "北京", None),
        ("city", 1, "1", None),
        ("city", 1.0, "1", None),
        ("city", "Ulm", "1", None),
        ("city", "Rome", "Rome", "city: 'Rome' did not occur in training"),
        ("city", "", None, None),
        ("city", math.nan, None, None),
        ("city", ["Paris"], None, "city: ['Paris'] cannot be read; treated as missing"),
        pytest.param("city", 10**5000, None, "city: a huge int cannot be read; treated as missing", id="huge level"),
        ("kind", None, None, "kind: missing, though it never was in training"),
        ("kind", b"a", None, "kind: b'a' cannot be read; treated as missing"),
        ("kind", "c", "c", "kind: 'c' did not occur in training"),
        ("payout", None, None, "payout: missing, though it never was in training"),
        ("payout", 1e300, 1e300, None),
        ("label", "new", "new", None),
    ],
)
def test_what_a_row_may_hold(column: str, value: Any, same_as: Any, note: str | None) -> None:
    features, notes = one(**{column: value})
    assert notes == ([] if note is None else [note])
    plain = one(**{column: same_as})[0]
    assert {f: v for f, v in features.items() if f != "city: frequency"} == {f: v for f, v in plain.items() if f != "city: frequency"}


def test_an_unseen_level_is_rare_and_a_known_one_that_looks_missing_is_not() -> None:
    features, _ = one(city="Rome")
    assert (features["city = (rare)"], features["city: frequency"], features["city missing"]) == (1.0, 1.0, 0.0)
    odd = Transform([Column("c", "category", levels=("NA", "b"), frequent=2)])
    assert odd.apply(odd.read({"c": ["NA", "b", " NA "]})[0]).tolist() == [[1, 0], [0, 1], [1, 0]]


def test_calendar_features() -> None:
    features, _ = one(when="12/25/2022 18:00")
    assert (features["when: month"], features["when: weekday"], features["when: hour"]) == pytest.approx((1.0, 1.0, 0.75))


def test_columns_are_as_the_contract_says() -> None:
    raw: dict[str, Any] = {name: [value, None] for name, value in GOOD.items()}
    columns, _ = TRANSFORM.read(raw)
    assert set(columns) == set(GOOD)
    assert len(columns) == len(GOOD)
    for column in TRANSFORM.columns:
        values = columns[column.name]
        assert values.dtype == (object if column.reads == "category" else np.float64)
        assert values.shape == (2,)
    assert columns["city"].tolist() == ["北京", None]
    assert columns["vip"].tolist()[0] == 1.0
    assert math.isnan(columns["payout"][1])
    with pytest.raises(KeyError):
        columns["unknown"]


def test_absent_columns_are_missing_and_unknown_ones_ignored() -> None:
    columns, notes = TRANSFORM.read({"amount": [1.0, 2.0], "unknown": [[], {}]})
    assert np.isnan(columns["payout"]).all()
    assert {n.column for n in notes} == {"price-eu", "vip", "compact", "kind", "payout"}
    assert str(notes[0]) == "price-eu: missing, though it never was in training (2 rows)"
    assert len(TRANSFORM.apply(columns)) == 2


def test_no_rows_at_all() -> None:
    for raw in ({}, {name: [] for name in GOOD}):
        columns, notes = TRANSFORM.read(raw)
        assert not notes
        assert TRANSFORM.apply(columns).shape == (0, len(TRANSFORM.features))


def test_notes_name_their_rows() -> None:
    _, notes = TRANSFORM.read(
        {**{n: [v] * 4 for n, v in GOOD.items()}, "amount": [1.0, "x", None, "y"], "city": ["Paris", "Rome", 3, "Ulm"]}
    )
    assert [(n.column, n.kind, n.rows, n.example) for n in notes] == [
        ("amount", "wrong", (1, 3), "'x'"),
        ("amount", "missing", (2,), "nan"),
        ("city", "unseen", (1, 2), "'Rome'"),
    ]
    assert str(notes[0]) == "amount: 'x' cannot be read; treated as missing (2 rows)"


def test_features_with_one_name_are_numbered() -> None:
    transform = Transform([Column("a", "category", levels=("b",), frequent=1), Column("a = b", "number", scale=1.0, high=1.0)])
    assert transform.features == ("a = b", "a = b (2)")
    assert transform.origin == {"a = b": "a", "a = b (2)": "a = b"}


def test_state_is_plain_data() -> None:
    again = Transform.from_json(json.loads(json.dumps(TRANSFORM.to_json())))
    assert again.columns == TRANSFORM.columns
    assert again.features == TRANSFORM.features


def test_columns_put_together_by_hand() -> None:
    columns, _ = TRANSFORM.read({name: [value] for name, value in GOOD.items()})
    by_hand: dict[str, Any] = dict(columns)
    np.testing.assert_array_equal(TRANSFORM.apply(by_hand), TRANSFORM.apply(columns))
    by_hand["amount"] = np.array([18.0])
    by_hand["city"] = np.array(["never seen"], dtype=object)
    features = dict(zip(TRANSFORM.features, TRANSFORM.apply(by_hand)[0].tolist(), strict=True))
    assert (features["amount"], features["city = (rare)"]) == (2.0, 1.0)


# ------------------------------------------------------------------------------------------------------- the same bits


ODD: list[Any] = [
    *(None, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, -0.0, 2**53 + 1, 2**63, 10**400, True, False),
    *(
        "",
        "NA",
        "-",
        "12",
        "1.234,5",
        "1e5",
        "yes",
        "No",
        "2",
        "01/31/2022 3:04 PM",
        "2022-01-31T10:00:00+02:00",
        "20220131",
        "soon",
        "💥",
        "北京",
        " Ulm ",
        "1",
        "Rome",
    ),
    *(
        20220131,
        1,
        1.0,
        b"\xff",
        [1],
        {"a": {"b": None}},
        (),
        datetime(2022, 1, 31, 5),
        date(1, 1, 1),
        Decimal("0.1"),
        Decimal("NaN"),
        1 + 2j,
    ),
]


def generated(n: int, seed: int) -> dict[str, list[Any]]:
    """Return n rows of which most values are good, and the others missing, unseen, extreme or of another type."""
    rng = np.random.default_rng(seed)
    good: dict[str, Any] = {
        "amount": rng.normal(10, 50, n).tolist(),
        "年 龄": rng.integers(0, 99, n).tolist(),
        "price-eu": rng.lognormal(size=n).tolist(),
        "vip": (rng.random(n) < 0.5).tolist(),
        "flag": rng.choice(["yes", "no"], n).tolist(),
        "when": [
            f"{m}/{d}/20{y:02}" for m, d, y in zip(rng.integers(1, 13, n), rng.integers(1, 29, n), rng.integers(0, 99, n), strict=True)
        ],
        "compact": (20_000_101 + 10_000 * rng.integers(0, 99, n)).tolist(),
        "city": rng.choice(["Paris", "北京", "Ulm", "1", "Rome"], n).tolist(),
        "kind": rng.choice(["a", "b"], n).tolist(),
        "payout": rng.normal(size=n).tolist(),
        "label": rng.choice(["x", "y"], n).tolist(),
    }
    for column in good.values():
        for i in np.flatnonzero(rng.random(n) < 0.05):
            column[i] = ODD[int(rng.integers(len(ODD)))]
    return good


def bits(features: Floats) -> Any:
    return np.ascontiguousarray(features).view(np.int32)


def alone(transform: Transform, columns: dict[str, list[Any]], i: int) -> tuple[Batch, tuple[Any, ...]]:
    return transform.read({name: [values[i]] for name, values in columns.items()})


@pytest.mark.slow
def test_a_row_alone_and_in_a_batch_of_100_000_give_the_same_bits() -> None:
    n = 100_000
    raw = generated(n, 0)
    columns, notes = TRANSFORM.read(raw)
    batch = TRANSFORM.apply(columns)
    single = np.empty_like(batch)
    noted: dict[tuple[str, str], list[int]] = {}
    numbers = np.empty((n, 8))
    for i in range(n):
        row, found = alone(TRANSFORM, raw, i)
        single[i] = TRANSFORM.apply(row)[0]
        numbers[i] = row.block[:, 0]
        for note in found:
            noted.setdefault((note.column, note.kind), []).append(i)
    assert np.isfinite(batch).all()
    assert (bits(batch) == bits(single)).all()
    np.testing.assert_array_equal(columns.block.T, numbers)
    assert {(note.column, note.kind): list(note.rows) for note in notes} == noted


@given(st.integers(0, 10**6), st.integers(1, 40), st.data())
def test_any_batch_gives_the_same_bits(seed: int, n: int, data: st.DataObject) -> None:
    raw = generated(n, seed)
    batch = TRANSFORM.apply(TRANSFORM.read(raw)[0])
    rows = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=10))
    part, _ = TRANSFORM.read({name: [values[i] for i in rows] for name, values in raw.items()})
    assert (bits(TRANSFORM.apply(part)) == bits(batch[rows])).all()


def test_arrow_and_json_give_the_same_bits(rng: np.random.Generator) -> None:
    n = 2000
    table = pa.table(
        {
            "amount": pa.array(
                [None if m else x for m, x in zip(rng.random(n) < 0.1, rng.normal(0, 1e5, n).tolist(), strict=True)], pa.float64()
            ),
            "年 龄": pa.array(
                [None if m else x for m, x in zip(rng.random(n) < 0.1, rng.integers(-(2**62), 2**62, n).tolist(), strict=True)], pa.int64()
            ),
            "price-eu": rng.integers(0, 2**60, n),
            "vip": pa.array([None if m else bool(x) for m, x in zip(rng.random(n) < 0.1, rng.random(n) < 0.5, strict=True)], pa.bool_()),
            "flag": rng.choice(["yes", "no"], n),
            "when": pa.array(
                [
                    None if i % 9 == 0 else datetime(1, 1, 1) + timedelta(seconds=int(s), microseconds=i)
                    for i, s in enumerate(rng.integers(0, 3 * 10**11, n))
                ],
                pa.timestamp("us"),
            ),
            "compact": pa.array([None if i % 9 == 0 else 20_000_101 + 10_000 * (i % 90) for i in range(n)], pa.int64()),
            "city": pa.array([None if i % 9 == 0 else i % 3 for i in range(n)], pa.int64()),
            "kind": rng.choice(["a", "b", "c"], n),
            "payout": pa.array(rng.normal(size=n).tolist()),
            "label": rng.choice(["x", "y"], n),
        }
    )
    from_arrow, _ = TRANSFORM.read(raw_columns(table))
    decoded = json.loads(json.dumps(table.to_pydict(), default=datetime.isoformat))
    from_json, _ = TRANSFORM.read(decoded)
    assert (bits(TRANSFORM.apply(from_arrow)) == bits(TRANSFORM.apply(from_json))).all()
    for name in GOOD:
        np.testing.assert_array_equal(from_arrow[name], from_json[name])


def test_many_rows_go_through_in_chunks() -> None:
    n = (1 << 16) + 5
    raw: dict[str, Any] = {**{name: [value] * n for name, value in GOOD.items()}, "amount": np.arange(n) % 90.0}
    features = TRANSFORM.apply(TRANSFORM.read(raw)[0])
    assert features.flags.c_contiguous
    np.testing.assert_array_equal(features[:, 0], ((np.arange(n) % 90.0 - 10) / 4).astype(np.float32))


# ------------------------------------------------------------------------------------------------------------------- speed


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, makegood.data.transform; print(*{m.split('.')[0] for m in sys.modules})"
    found = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert "numpy" in found
    assert not found & {"pyarrow", "duckdb", "narwhals", "pandas", "polars", "scipy", "sklearn", "pydantic", "yaml"}


def test_one_row_of_100_columns_is_fast(rng: np.random.Generator) -> None:
    """A loose bound, so that a busy machine passes; `bench` measures the tail."""
    numbers = [Column(f"n{i}", "number", scale=1.0, low=-9.0, high=9.0, flag=i % 2 == 0) for i in range(70)]
    levels = [Column(f"k{i}", "category", levels=tuple("abcdef"), frequent=6) for i in range(30)]
    transform = Transform([*numbers, *levels])
    row = {c.name: [float(rng.normal())] if c.reads == "number" else ["c"] for c in transform.columns}
    times = []
    for _ in range(300):
        start = time.perf_counter()
        transform.apply(transform.read(row)[0])
        times.append(time.perf_counter() - start)
    assert min(times) < allowed(300e-6)


IMAGE = Transform([Column("image", "image", shape=(2, 3, 1), stored=(4, 6, 1))])
SIX = bytes([0, 51, 102, 153, 204, 255])


def png(pixels: bytes = SIX) -> bytes:
    out = io.BytesIO()
    PIL.Image.frombytes("L", (3, 2), pixels).save(out, "PNG")
    return out.getvalue()


def seen(cell: Any) -> tuple[list[float], list[str]]:
    columns, notes = IMAGE.read({"image": [cell]})
    return IMAGE.apply(columns)[0].tolist(), [str(note) for note in notes]


def test_the_pixels_of_an_image_are_its_features() -> None:
    assert IMAGE.features == ("image[0,0]", "image[0,1]", "image[0,2]", "image[1,0]", "image[1,1]", "image[1,2]")
    assert set(IMAGE.origin.values()) == {"image"}
    assert (IMAGE.shape, IMAGE.images) == ((2, 3, 1), {"image"})
    assert Column("x", "image", shape=(1, 1, 3)).features == ("x[0,0,0]", "x[0,0,1]", "x[0,0,2]")
    wanted = (np.array(list(SIX), np.float32) / np.float32(255)).tolist()
    for cell in (SIX, bytearray(SIX), png(), base64.b64encode(SIX).decode(), base64.b64encode(png()).decode()):
        assert seen(cell) == (wanted, [])
    assert seen(bytes(24)) == ([0.0] * 6, [])  # as it was stored before it was shrunk


@pytest.mark.parametrize(
    ("cell", "note"),
    [
        (None, "image: images that are missing; treated as missing"),
        (math.nan, "image: images that are missing; treated as missing"),
        ("", "image: images that have no bytes; treated as missing"),
        (b"GIF", "image: images that are no PNG, JPEG, GIF, BMP, TIFF, WebP or PPM images; treated as missing"),
        (png()[:50], "image: images that end too early; treated as missing"),
        (5, "image: 5 cannot be read; treated as missing"),
        ("no base64!", "image: 'no base64!' cannot be read; treated as missing"),
        ("\u2203", "image: '\u2203' cannot be read; treated as missing"),
        ([], "image: [] cannot be read; treated as missing"),
    ],
)
def test_an_image_that_cannot_be_read_is_black_and_noted(cell: Any, note: str) -> None:
    assert seen(cell) == ([0.0] * 6, [note])


def test_images_alone_and_in_a_batch_have_the_same_bits(rng: np.random.Generator) -> None:
    cells: list[Any] = [rng.bytes(6) for _ in range(700)]
    cells[3], cells[300], cells[699] = None, png(rng.bytes(6)), base64.b64encode(png()).decode()
    columns, notes = IMAGE.read({"image": cells})
    whole = IMAGE.apply(columns)
    assert (whole.dtype, [note.rows for note in notes]) == (np.float32, [(3,)])
    for i in (0, 3, 255, 256, 300, 699):
        assert IMAGE.apply(IMAGE.read({"image": [cells[i]]})[0]).tobytes() == whole[i].tobytes()
    by_hand = {"image": columns["image"][[5, 6]]}
    assert IMAGE.apply(by_hand).tobytes() == whole[5:7].tobytes()


def test_an_image_beside_other_columns() -> None:
    mixed = Transform([MEDIAN, Column("image", "image", shape=(2, 3, 1)), Column("kind", "category", levels=("a", "b"), frequent=2)])
    assert mixed.shape is None
    out = mixed.apply(mixed.read({"amount": [14.0], "image": [SIX], "kind": ["b"]})[0])
    assert out[0].tolist() == [1.0, *seen(SIX)[0], 0.0, 1.0]
    assert Transform.from_json(json.loads(json.dumps(mixed.to_json()))).columns == mixed.columns
    assert Transform([Column(name, "image", shape=(1, 1, 1)) for name in "ab"]).shape is None


@pytest.mark.parametrize(
    "column",
    [
        {"shape": None},
        {"shape": (1, 1)},
        {"shape": (0, 1, 1)},
        {"shape": (1, 1, 2)},
        {"shape": (2000, 2000, 1)},
        {"stored": (1 << 40, 1, 1)},
        {"reads": "number"},
    ],
)
def test_a_shape_that_is_none_is_refused(column: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"an image|unpack"):
        Column(**{"name": "image", "reads": "image", "shape": (2, 3, 1), **column})
