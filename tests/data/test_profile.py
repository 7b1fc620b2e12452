from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from makegood.case import Case, Data, Images
from makegood.data.profile import profile
from makegood.data.sources import read
from makegood.errors import CaseError, NotBuilt

N = 60
RNG = np.random.default_rng(0)
TABLE = read(
    pa.table(
        {
            "row": list(range(N)),
            "shuffled id": RNG.permutation(N) + 100,
            "account_id": RNG.choice(10**6, N, replace=False),
            "increasing": np.cumsum(RNG.integers(1, 9, N)),
            "code": [f"C{i:03}" for i in range(N)],
            "amount": RNG.choice(10**6, N, replace=False),
            "few": RNG.integers(0, 3, N),
            "x": RNG.normal(size=N),
            "名": RNG.choice(["a", "b"], N),
            "ja/nein": RNG.choice(["Yes", "No"], N),
            "flag": RNG.random(N) < 0.5,
            "day": [datetime(2024, 1, 1) + timedelta(days=int(i)) for i in RNG.integers(0, 99, N)],
            "prose": [f"the customer number {i} called about a late delivery" for i in range(N)],
            "same": ["k"] * N,
            "same or missing": ["k"] * (N - 1) + [None],
            "nothing": [None] * N,
            "y": RNG.choice(["no", "yes"], N),
        }
    )
).table


def kinds(**data: Any) -> dict[str, str]:
    return {f.name: f.kind for f in profile(TABLE, Data(outcome="y", **data)).fields}


def test_the_kind_of_each_column() -> None:
    assert kinds() == {
        "row": "id",
        "shuffled id": "id",
        "account_id": "id",
        "increasing": "id",
        "code": "id",
        "amount": "number",
        "few": "number",
        "x": "number",
        "名": "category",
        "ja/nein": "boolean",
        "flag": "boolean",
        "day": "date",
        "prose": "long text",
        "same": "constant",
        "same or missing": "category",
        "nothing": "empty",
        "y": "boolean",
    }


def test_numbers_that_are_labels_are_named() -> None:
    found = kinds(categories=("few", "row"))
    assert (found["few"], found["row"]) == ("category", "category")
    assert profile(TABLE, Data(outcome="y", categories=("few",)))["few"].top[0][0] in {"0", "1", "2"}


def test_keep_restores_an_id() -> None:
    found = kinds(keep=("account_id", "code"))
    assert (found["account_id"], found["code"], found["row"]) == ("number", "category", "id")


def test_a_time_or_group_is_no_id() -> None:
    found = kinds(time="increasing", group="account_id")
    assert (found["increasing"], found["account_id"]) == ("number", "number")


def test_a_payoff_reads_a_numeric_id_and_a_constant_by_their_type() -> None:
    found = profile(TABLE, Data(outcome="y")).kinds
    assert [found[c] for c in ("row", "code", "prose", "same", "nothing", "flag")] == [
        "number",
        "id",
        "text",
        "category",
        "number",
        "boolean",
    ]


def test_counts_and_quantiles() -> None:
    found = profile(TABLE, Data(outcome="y"))
    assert found.n == N
    assert found["same or missing"].n_missing == 1
    assert found["few"].n_unique == 3
    assert found["x"].quantiles[4] == pytest.approx(np.median(TABLE["x"].to_numpy()))
    assert found["x"].numeric
    assert not found["名"].numeric
    with pytest.raises(KeyError):
        found["unknown"]


def test_what_makes_no_feature_is_named() -> None:
    found = {f.column: f for f in profile(TABLE, Data(outcome="y")).findings}
    assert (
        found["row"].detail
        == "Column 'row' names its row (60 different values in 60 rows); it makes no feature; name it in data.keep to use it."
    )
    assert found["prose"].detail == (
        "Column 'prose' holds long text, which is read where the case says so; it makes no feature; write data.text: prose to use it."
    )
    assert found["prose"].kind == "text"
    assert found["same"].detail == "Column 'same' holds one value only; it makes no feature."
    assert found["nothing"].detail == "Column 'nothing' holds no value at all; it makes no feature."
    assert {f.action for f in found.values()} == {"excluded"}


def test_unique_values_say_nothing_in_few_rows() -> None:
    table = pa.table({"a": [3, 1, 2], "b": ["x", "y", "z"], "y": [0, 1, 0]})
    assert [f.kind for f in profile(table, Data(outcome="y")).fields] == ["number", "category", "number"]


@pytest.mark.parametrize(
    ("name", "is_id"),
    [("paid", False), ("ID", True), ("customerId", True), ("loan nr", True), ("price_index", True), ("acid", False), ("编号", True)],
)
def test_names_of_ids(name: str, is_id: bool) -> None:
    values = np.random.default_rng(1).choice(10**6, 100, replace=False)
    table = pa.table({name: values, "y": [0, 1] * 50})
    assert (profile(table, Data(outcome="y"))[name].kind == "id") == is_id


@pytest.mark.parametrize(
    ("declared", "where"),
    [
        ({"outcome": "yy"}, "data.outcome"),
        ({"time": "yy"}, "data.time"),
        ({"group": "yy"}, "data.group"),
        ({"known_later": "yy"}, "data.known_later"),
        ({"keep": "yy"}, "data.keep"),
        ({"protected": "yy"}, "data.protected"),
        ({"categories": "yy"}, "data.categories"),
    ],
)
def test_columns_that_the_case_names_and_the_data_lack(declared: dict[str, str], where: str) -> None:
    with pytest.raises(CaseError, match=rf"^{where}: got 'yy'; expected a column of the data: row, .* and 5 more(; did you mean 'y'\?)?$"):
        profile(TABLE, Data(**{"outcome": "y", **declared}))


def test_a_column_known_later_cannot_be_vouched_for() -> None:
    with pytest.raises(
        CaseError, match=r"^data.keep: got 'x'; expected a column that is not in data.known_later too; take it out of one of the two$"
    ):
        profile(TABLE, Data(outcome="y", keep=("x",), known_later=("x",)))


@pytest.mark.data
def test_real_tables(shared: Any, case: Any) -> None:
    def found(name: str, outcome: str) -> dict[str, str]:
        spec: Case = case(outcome)
        return {f.name: f.kind for f in profile(read(shared(name)).table, spec.data).fields}

    taiwan = found("risk/taiwan_default.csv.gz", "Default")
    assert [c for c, kind in taiwan.items() if kind != "number"] == ["ID"]
    telco = found("general/telco_churn.csv.gz", "Churn")
    assert (telco["customerID"], telco["TotalCharges"], telco["Partner"], telco["Contract"]) == ("id", "number", "boolean", "category")
    assert found("treatment/actg175.csv", "cens")["pidnum"] == "id"


def gallery(images: list[bytes | None]) -> pa.Table:
    n = len(images)
    place = pa.field("path", pa.string(), metadata={b"role": b"place"})
    schema = pa.schema([pa.field("image", pa.binary()), place, pa.field("y", pa.int64())])
    return pa.table([pa.array(images, pa.binary()), pa.array(["one folder"] * n), pa.array([i % 2 for i in range(n)])], schema=schema)


def test_images_and_where_they_lie() -> None:
    found = profile(gallery([b"a", b"b", b"a", None]), Data(outcome="y", keep=("path",)))
    assert (found["image"].kind, found["image"].reads, found["image"].n_missing, found["image"].n_unique) == ("image", "image", 1, 2)
    assert not found["image"].numeric
    assert (found["path"].kind, found["path"].reads) == ("place", "category")
    assert [(f.kind, f.detail) for f in found.findings] == [("place", "Column 'path' says where an image lies; it makes no feature.")]
    assert found.kinds == {"image": "image", "path": "category", "y": "number"}
    assert profile(gallery([b"a", b"a"]), Data(outcome="y"))["image"].kind == "constant"
    assert profile(gallery([None, None]), Data(outcome="y"))["image"].kind == "empty"


@pytest.mark.parametrize("role", ["outcome", "time", "group", "protected", "categories"])
def test_an_image_plays_no_other_role(role: str) -> None:
    data = Data(**{"outcome": "y", role: "image"})
    with pytest.raises(CaseError, match=rf"^data.{role}: got 'image'; expected a column of values, not of images; name another column$"):
        profile(gallery([b"a", b"b"]), data)


def test_pixels_are_not_asked_of_a_table_without_images() -> None:
    with pytest.raises(
        CaseError, match=r"^data.image: got 'a size or channels'; expected data that hold images; remove it, or name a column"
    ):
        profile(pa.table({"x": [1, 2], "y": [0, 1]}), Data(outcome="y", image=Images(channels=1)))


def test_a_named_text_is_a_text_and_nothing_else() -> None:
    found = profile(TABLE, Data(outcome="y", text="prose"))
    assert (found["prose"].kind, found["prose"].reads, found["prose"].numeric) == ("text", "text", False)
    assert found.kinds["prose"] == "text"
    assert "prose" not in {f.column for f in found.findings}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("unknown", "data.text: got 'unknown'; expected a column of the data"),
        ("x", "data.text: 'x': got 'numbers'; expected a column of texts"),
        ("same", "data.text: 'same': got "),
        ("nothing", "data.text: 'nothing': got "),
    ],
)
def test_a_text_must_be_one(name: str, said: str) -> None:
    with pytest.raises(CaseError, match=said):
        profile(TABLE, Data(outcome="y", text=name))


def test_texts_beside_images_are_not_built() -> None:
    table = pa.table({"y": ["a", "b"] * 30, "t": [f"text {i}" for i in range(60)], "image": pa.array([b"1"] * 60, pa.binary())})
    with pytest.raises(NotBuilt, match=r"images too, in 'image'.*ROADMAP.md"):
        profile(table, Data(outcome="y", text="t"))
