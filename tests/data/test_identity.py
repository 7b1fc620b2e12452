from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from makegood.data.identity import deduplicate, fingerprint, looks, row_hashes

TABLE = pa.table(
    {
        "n": [1.5, None, -0.0, 2.0],
        "i": pa.array([1, 2, None, 4]),
        "s": ["a", "", None, "名"],
        "b": [True, None, False, True],
        "t": pa.array([datetime(2020, 1, 1), None, datetime(2021, 1, 1), datetime(2022, 1, 1)], pa.timestamp("us")),
    }
)


def test_the_fingerprint_is_of_the_content_not_of_the_chunks() -> None:
    pieces = pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1, 0), TABLE.slice(1, 2), TABLE.slice(3)])
    assert pieces["s"].num_chunks > 1
    assert fingerprint(pieces) == fingerprint(TABLE)


def test_the_fingerprint_changes_with_a_value_a_null_a_name_an_order_and_a_type() -> None:
    seen = {
        fingerprint(TABLE),
        fingerprint(TABLE.set_column(0, "n", pa.array([1.5, 0.0, -0.0, 2.0]))),
        fingerprint(TABLE.set_column(2, "s", pa.array(["a", "", "", "名"]))),
        fingerprint(TABLE.set_column(2, "s", pa.array(["", "a", None, "名"]))),
        fingerprint(TABLE.rename_columns(["m", "i", "s", "b", "t"])),
        fingerprint(TABLE.take([1, 0, 2, 3])),
        fingerprint(TABLE.set_column(1, "i", TABLE["i"].cast(pa.float64()))),
    }
    assert len(seen) == 7


@given(st.lists(st.tuples(st.sampled_from("ab"), st.none() | st.integers(0, 2)), min_size=1, max_size=30))
def test_row_hashes_are_equal_for_equal_rows_wherever_they_stand(rows: list[tuple[str, int | None]]) -> None:
    table = pa.table({"s": [r[0] for r in rows], "i": pa.array([r[1] for r in rows], pa.int64())})
    hashes = row_hashes(table)
    order = np.random.default_rng(len(rows)).permutation(len(rows))
    assert (row_hashes(table.take(order).select(["i", "s"])) == hashes[order]).all()
    assert len(set(hashes.tolist())) == len(set(rows))


def test_a_null_is_not_the_value_that_stands_for_it() -> None:
    for values, kind in (([0.0, None], pa.float64()), ([0, None], pa.int64()), (["", None], pa.string()), ([False, None], pa.bool_())):
        assert len(set(row_hashes(pa.table({"x": pa.array(values, kind)})).tolist())) == 2


def test_copies_of_a_record_are_dropped_and_counted() -> None:
    table = pa.table({"id": [1, 2, 3, 2, 1], "x": ["a", "b", "b", "b", "a"]})
    kept, findings = deduplicate(table)
    assert kept["id"].to_pylist() == [1, 2, 3]
    assert [(f.kind, f.count, f.action) for f in findings] == [("duplicate", 2, "dropped")]
    assert findings[0].detail == "2 rows equal another row in every column, 'id' included: they are copies, and one of each was kept."


def test_rows_that_look_alike_are_kept_and_counted() -> None:
    table = pa.table({"x": ["a", "b", "b", "b", "a"], "y": [1, 1, 1, 2, 1]})
    kept, findings = deduplicate(table)
    assert kept is table
    assert [(f.kind, f.count, f.action) for f in findings] == [("duplicate", 2, "kept")]
    assert (
        findings[0].detail
        == "2 rows equal another row in every column; no column identifies a record, so they were kept and are never split apart."
    )


def test_no_two_rows_alike() -> None:
    assert deduplicate(TABLE) == (TABLE, ())


def pictures(images: list[bytes | None], labels: list[int]) -> pa.Table:
    place = pa.field("path", pa.string(), metadata={b"role": b"place"})
    names = pa.array([f"{i}.png" for i in range(len(images))])
    return pa.table(
        [pa.array(images, pa.binary()), names, pa.array(labels)],
        schema=pa.schema([pa.field("image", pa.binary()), place, pa.field("y", pa.int64())]),
    )


def test_images_have_a_fingerprint_and_hashes_of_their_bytes() -> None:
    table = pictures([b"a", b"", None, b"a"], [0, 0, 0, 0])
    chunks = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert fingerprint(chunks) == fingerprint(table)
    assert len({fingerprint(table), fingerprint(pictures([b"a", None, b"", b"a"], [0, 0, 0, 0]))}) == 2
    assert len(set(row_hashes(table.select(["image"])).tolist())) == 3


def test_equal_images_look_alike_wherever_they_lie_and_whatever_is_said_of_them() -> None:
    seen = looks(pictures([b"a", b"b", b"a", None, None], [0, 0, 1, 0, 1])).tolist()
    assert seen[0] == seen[2]
    assert len(set(seen)) == 4  # rows without an image are told apart by the rest
    assert (looks(TABLE) == row_hashes(TABLE)).all()


def test_copies_of_an_image_are_dropped_wherever_they_lie() -> None:
    kept, findings = deduplicate(pictures([b"a", b"b", b"a", b"b"], [0, 1, 0, 2]))
    assert kept["path"].to_pylist() == ["0.png", "1.png", "3.png"]
    assert [(f.kind, f.count, f.action) for f in findings] == [("duplicate", 1, "dropped")]


def test_rows_without_an_image_are_no_copies_of_each_other() -> None:
    table = pictures([b"a", b"b", b"c", None, None], [0, 1, 0, 1, 1])
    assert deduplicate(table)[0].num_rows == 5


def test_a_declared_test_keeps_its_copies_of_an_image() -> None:
    place = pa.field("part", pa.string(), metadata={b"role": b"place"})
    images = [bytes([i]) for i in range(20)]
    table = pictures([*images, images[0], images[1]], [0] * 22).append_column(place, pa.array(["train"] * 20 + ["test", "train"]))
    every = [f"{i}.png" for i in range(20)]
    assert deduplicate(table)[0]["path"].to_pylist() == every
    assert deduplicate(table, apart="part")[0]["path"].to_pylist() == [*every, "20.png"]
    assert deduplicate(table, apart="nothing")[0]["path"].to_pylist() == every
