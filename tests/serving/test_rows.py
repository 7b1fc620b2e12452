"""Bodies become rows, or every field that is wrong is named."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bundles import ROW, bakery, loans

from makegood.data.transform import Column, Transform
from makegood.model import Model
from makegood.serving.problems import Trouble
from makegood.serving.rows import MOST_ROWS, Asked, Reader, allowed, ignored

LOANS = Reader({"data": {"group": "customer", "time": "asked at"}}, [loans()])


def read(value: Any, reader: Reader = LOANS) -> Asked:
    return reader.read(value if isinstance(value, bytes) else json.dumps(value).encode())


def refused(value: Any, reader: Reader = LOANS) -> Trouble:
    with pytest.raises(Trouble) as caught:
        read(value, reader)
    return caught.value


def told(trouble: Trouble) -> list[tuple[str, str, str, str]]:
    return [(p.where, p.got, p.expected, p.next) for p in trouble.problems]


def test_a_row_is_read_as_the_model_reads_it() -> None:
    asked = read(ROW)
    raw = LOANS.raw(asked.rows)
    assert {name: raw[name][0] for name in ROW} == ROW
    assert (asked.array, len(asked.rows), asked.ignored) == (False, 1, ())
    decided = loans().decide_columns({name: raw[name] for name in loans().transform.inputs})
    assert decided[0].predictive == loans().decide(ROW).predictive


def test_rows_keep_their_order_and_what_is_missing_is_missing() -> None:
    rows = [{"amount": i, "months": 12, "region": None if i % 2 else "Süd"} for i in range(5)]
    raw = LOANS.raw(read(rows).rows)
    assert raw["amount"] == (0.0, 1.0, 2.0, 3.0, 4.0)
    assert raw["region"] == ("Süd", None, "Süd", None, "Süd")
    assert raw["age"] == (None,) * 5


def test_what_a_row_says_is_kept_as_json_without_what_it_does_not_say() -> None:
    row = {"months": 12, "amount": 5.5, "用途": "车", "customer": 17, "age": None}
    assert json.loads(LOANS.kept(read(row).rows[0])) == {"months": 12, "amount": 5.5, "用途": "车", "customer": 17}


@pytest.mark.parametrize("odd", ['借款 "金额"', "a\\b", "a\tb"])
def test_a_column_may_have_any_name(odd: str) -> None:
    model = loans()
    columns = [*model.transform.columns, Column(odd, "number", low=-9.0, high=9.0)]
    named = Model(model.case, model.task, Transform(columns), model.scorer, model.policy, {})
    reader = Reader({"data": {"group": "customer"}}, [named])
    asked = read([{**ROW, odd: 4.5, "customer": "c"}, {"amount": 1, "months": 2}], reader)
    assert reader.raw(asked.rows)[odd] == (4.5, None)
    assert json.loads(reader.kept(asked.rows[0])) == {**ROW, odd: 4.5, "customer": "c"}
    assert reader.unit(asked.rows[0]) == "c"
    assert told(refused({**ROW, odd: "much"}, reader))[0][:2] == (odd, '"much"')


@pytest.mark.parametrize(("said", "unit"), [(17, "17"), (17.0, "17"), ("17", "17"), (" a ", "a"), (None, ""), (True, "true")])
def test_the_unit_is_its_canonical_text(said: object, unit: str) -> None:
    asked = read({"amount": 1, "months": 1, "customer": said})
    assert LOANS.unit(asked.rows[0]) == unit
    assert Reader({}, [loans()]).unit(read({"amount": 1, "months": 1}, Reader({}, [loans()])).rows[0]) == ""


def test_unknown_fields_are_ignored_and_named() -> None:
    asked = read([{"amount": 1, "months": 1}, {"amount": 1, "months": 1, "amuont": 3, "other": [1]}])
    assert asked.ignored == ((), ("amuont", "other"))
    assert ignored(asked.ignored[1]) == ("amuont: not a column of this model; ignored", "other: not a column of this model; ignored")
    assert ignored([f"x{i}" for i in range(25)])[-1] == "5 more fields: ignored"


@pytest.mark.parametrize(
    ("field", "value", "got", "expected", "mend"),
    [
        ("amount", "5000", '"5000"', "a number or null; cut to", "write 5000 without quotes"),
        ("amount", "much", '"much"', "a number or null", "leave it out where it is not known"),
        ("amount", True, "true", "a number or null", ""),
        ("amount", [1], "an array", "a number or null", ""),
        ("amount", {"a": 1}, "an object", "a number or null", ""),
        ("employed", "perhaps", '"perhaps"', "true, false or null", ""),
        ("employed", 2, "2", "true, false or null", ""),
        ("employed", [], "an array", "true, false or null", ""),
        ("applied on", 5, "5", "a date such as 2024-02-29 or 2024-02-29T12:00:00Z, or null", ""),
        ("applied on", "2024-02-30T10:00:00", '"2024-02-30T10:00:00"', "a date such as", ""),
        ("applied on", False, "false", "a date such as", ""),
        ("region", ["Süd"], "an array", "a text or null; training saw", " more"),
        ("customer", [1], "an array", "a text, a number or null", ""),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(field: str, value: object, got: str, expected: str, mend: str) -> None:
    row = {"amount": 1, "months": 1, "other": None, field: value}  # a date that is none is otherwise found by who decides
    trouble = refused(row)
    assert (trouble.status, trouble.detail) == (422, "1 field is not as this case's data are")
    (problem,) = trouble.problems
    assert (problem.where, problem.got) == (field, got)
    assert problem.expected.startswith(expected)
    assert mend in problem.next + problem.expected
    (problem,) = refused([{"amount": 1, "months": 1}, {}, row, row][::2]).problems
    assert problem.where == f"row 2: {field}"


def test_every_bad_field_of_every_row_is_named_up_to_a_hundred() -> None:
    bad = [{"amount": "x", "months": "y", "region": []}, {"amount": 1, "months": 1}, {"amuont": 3}, 7]
    assert [(where, got) for where, got, _, _ in told(refused(bad))] == [
        ("row 1: amount", '"x"'),
        ("row 1: months", '"y"'),
        ("row 1: region", "an array"),
        ("row 3: amount", "nothing"),
        ("row 3: months", "nothing"),
        ("row 4", "7"),
    ]
    many = refused([{"amount": "x", "months": "y"}] * 90)
    assert (len(many.problems), many.detail) == (100, "At least 100 fields are not as this case's data are")


def test_columns_that_payoffs_need_must_be_there() -> None:
    trouble = refused({"amuont": 3, "months": 2})
    assert (trouble.status, trouble.detail) == (422, "1 field is not as this case's data are")
    (where, got, expected, mend) = told(trouble)[0]
    assert (where, got, mend) == ("amount", "nothing", "did you mean 'amuont'?")
    assert expected.endswith(": payoffs or limits are made of it")
    assert told(refused({"months": 2}))[0][3] == "add it"
    assert read({"amount": None, "months": 2}).rows  # said to be unknown: whether that pays is for the payoffs to say


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "The body is empty: send JSON"),
        (b" \n", 400, "The body is empty: send JSON"),
        (b"{", 400, "The body is not strict JSON: Input data was truncated"),
        (b'{"amount": NaN}', 400, "The body is not strict JSON: JSON is malformed: invalid character (byte 11)"),
        (b'{"amount": Infinity, "months": 1}', 400, "invalid character"),
        (b'{"amount": 1e999, "months": 1}', 400, "Number out of range"),
        (b'{"amount": 1, "amount": 2, "months": 3}', 400, "The body is not strict JSON: the key 'amount' twice"),
        (b'{"amount": 1, "months": 3, "region": "\xff"}', 400, "can't decode byte 0xff"),
        (b'{"amount": 1, "months": 3, "region": "\\ud800"}', 400, "The body is not strict JSON"),
        (b'\xef\xbb\xbf{"amount": 1, "months": 3}', 400, "invalid character (byte 0)"),
        (b'{"amount": 1, "months": ' + b"[" * 40 + b"]" * 40 + b"}", 400, "41 nested levels"),
        (b"[" * 5000 + b"]" * 5000, 400, "more than 32 levels deep"),
        (b'{"amount": ' + b"9" * 400 + b', "months": 1}', 400, "an integer of 400 digits"),
        (b"[]", 422, "1 field is not as this case's data are"),
        (b"7", 422, "1 field is not as this case's data are"),
        (b"null", 422, "1 field is not"),
        (b'"x"', 422, "1 field is not"),
        (b"[[]]", 422, "1 field is not"),
    ],
)
def test_what_is_no_row_is_refused_clearly(body: bytes, status: int, words: str) -> None:
    trouble = refused(body)
    assert (trouble.status, words in trouble.detail) == (status, True), trouble.detail
    assert msgspec.json.decode(trouble.body())["status"] == status


def test_a_name_that_stands_twice_is_found_behind_colons_and_nulls() -> None:
    for body in (
        b'{"amount": 1, "amount": null, "months": 3}',
        b'{"amount": 1, "\\u0061mount": 2, "months": 3}',
        b'[{"amount": 1, "months": 3, "region": ":"}, {"amount": 1, "months": 3, "months": 3}]',
    ):
        assert "twice" in refused(body).detail
    assert read(b'{"amount": 1, "months": 3, "region": ": \\": {"}').rows


def test_at_most_a_thousand_rows() -> None:
    row = {"amount": 1, "months": 1}
    assert len(read([row] * MOST_ROWS).rows) == MOST_ROWS
    trouble = refused([row] * (MOST_ROWS + 1))
    assert (trouble.status, trouble.detail) == (413, "1001 rows: at most 1000 in one request")


def test_values_as_the_data_write_them_are_taken() -> None:
    columns = [
        Column("sum", "number", style="comma"),
        Column("ok", "boolean"),
        Column("day", "date", style="yearmonthday"),
        Column("on", "date", style="day/month/year"),
    ]
    model = loans()
    own = Model(model.case, model.task, Transform(columns), model.scorer, bakery().policy, {})
    reader = Reader({}, [own])
    raw = reader.raw(
        read({"sum": "1.234,5 €", "ok": "Yes", "day": 20240229, "on": "29/02/2024"}, reader).rows + read({"sum": 3, "ok": 0}, reader).rows
    )
    assert raw == {
        "sum": (1234.5, 3.0),
        "ok": (True, False),
        "day": (20240229, None),
        "on": ("29/02/2024", None),
    }
    assert [where for where, *_ in told(refused({"sum": "x,", "day": "20240230", "on": "30/02/2024"}, reader))] == ["day", "on", "sum"]


def test_what_is_allowed_is_said_of_every_kind() -> None:
    assert allowed(Column("x", "number")) == "a number or null"
    assert allowed(Column("x", "category")) == "a text or null; training saw none"
    levels = tuple("abcdefgh")
    assert allowed(Column("x", "category", levels=levels)) == "a text or null; training saw a, b, c, d, e, f and 2 more"
    assert allowed(Column("x", "image", shape=(8, 8, 1))).startswith("a PNG, JPEG")
    assert allowed(Column("x", "text", tokenizer="{}", length=8, windows=1)) == "a text of at most 100,000 characters, or null"


def test_several_models_are_read_for_at_once() -> None:
    model = loans()
    more = Model(model.case, model.task, Transform([Column("score", "number")]), model.scorer, model.policy, {})
    reader = Reader({}, [model], [more])
    assert "score" in reader.names
    assert reader.raw(read({"amount": 1, "months": 2, "score": 3}, reader).rows)["score"] == (3.0,)
    assert Reader({}, [more], [model]).needed == {"amount", "months"}


PIXELS = Column("scan", "image", shape=(2, 2, 1))
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


@pytest.fixture
def scans() -> Reader:
    model = loans()
    return Reader({}, [Model(model.case, model.task, Transform([PIXELS]), model.scorer, bakery().policy, {})])


def test_an_image_is_a_body_or_base64(scans: Reader) -> None:
    asked = scans.picture(PNG)
    written = base64.b64encode(PNG).decode()
    assert scans.raw(asked.rows) == {"scan": (written,)} == scans.raw(read({"scan": written}, scans).rows)
    assert scans.raw(scans.picture(bytes(4)).rows) == {"scan": (base64.b64encode(bytes(4)).decode(),)}
    trouble = refused({"scan": "%%", "x": 1}, scans)
    assert told(trouble)[0][:2] == ("scan", '"%%"')
    with pytest.raises(Trouble, match="1 field is not as this case's data are") as caught:
        scans.picture(b"no image")
    assert told(caught.value)[0][:2] == ("scan", "8 bytes")
    with pytest.raises(Trouble, match="This case's rows are JSON objects: send application/json") as caught:
        LOANS.picture(PNG)
    assert caught.value.status == 415


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)
NAMES = st.sampled_from([*LOANS.names, "other", ""])


def outcome(value: Any) -> Asked | Trouble:
    try:
        return read(value)
    except Trouble as trouble:
        return trouble


@given(st.dictionaries(NAMES, JSON, max_size=8) | JSON | st.lists(st.dictionaries(NAMES, JSON, max_size=4), max_size=3))
def test_no_value_makes_anything_but_rows_or_a_refusal(value: Any) -> None:
    found = outcome(value)
    if isinstance(found, Trouble):
        assert found.status in (400, 422)
        assert json.loads(found.body("id"))["request"] == "id"
    else:
        assert len(LOANS.raw(found.rows)["amount"]) == len(found.rows) > 0


@given(st.binary(max_size=60))
def test_no_bytes_make_anything_but_a_refusal(body: bytes) -> None:
    assert refused(body).status in (400, 422)


PAIRS = st.lists(
    st.tuples(
        st.sampled_from(["amount", "months", "region", "sex", "age"]),
        st.none() | st.integers(0, 9) | st.sampled_from(["a:", "\u003a", "\\", "null"]),
    ),
    max_size=6,
)


@given(st.lists(PAIRS, min_size=1, max_size=3), st.booleans())
def test_the_fast_way_and_the_slow_way_agree(rows: list[list[tuple[str, Any]]], escaped: bool) -> None:
    """Whatever the colons say, a name that stands twice is refused, and nothing else is for that."""
    cells = [
        [f"{json.dumps(name)}:{json.dumps(cell).replace('a:', 'a' + chr(92) + 'u003a' if escaped else 'a:')}" for name, cell in row]
        for row in rows
    ]
    body = ("[" + ",".join("{" + ",".join(row) + "}" for row in cells) + "]").encode()
    found = outcome(body)
    twice = any(len({name for name, _ in row}) < len(row) for row in rows)
    assert (isinstance(found, Trouble) and "twice" in found.detail) is twice
    if isinstance(found, Asked):
        assert list(LOANS._slowly(body).rows) == list(found.rows)
