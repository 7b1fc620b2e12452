"""A model at work: one path for a row, a list, a frame and a file, the same to the last bit, with reasons in money."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from tests import bundles
from tests.bundles import REGIONS, ROW, bits, table

from makegood.contracts import Floats, Probabilities
from makegood.data import prepare
from makegood.errors import DataError
from makegood.model import Decided, Model, Raw, load, pack


@pytest.fixture(scope="module")
def loans() -> Model:
    return bundles.loans()


@pytest.fixture(scope="module")
def bakery() -> Model:
    return bundles.bakery()


@pytest.fixture(scope="module")
def rows() -> Raw:
    return prepare.raw_columns(table(60, seed=9)[0])


@pytest.fixture(scope="module")
def packed(loans: Model, rows: Raw, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loans") / "bundle"
    pack(loans, folder, rows=rows, card="# Loans\n")
    return folder


@pytest.fixture(scope="module")
def model(packed: Path) -> Model:
    return load(packed)


# -------------------------------------------------------------------------------------------------------------- decisions


def test_a_row_gets_a_decision_with_all_that_the_contract_says(model: Model) -> None:
    decision = model.decide(ROW)
    assert decision.action in ("approve", "refer", "decline")
    assert decision.quantity is None
    assert decision.unit == "EUR"
    assert decision.propensity == 1.0
    assert decision.model == model.id
    assert model.id.startswith("loans@")
    assert len(decision.reasons) == 2
    assert decision.notes == ()
    assert sum(decision.predictive.values()) == pytest.approx(1.0)
    assert list(decision.predictive) == ["no", "yes"]


def test_the_action_is_the_best_by_hand(model: Model) -> None:
    p = model.decide(ROW, reasons=0).predictive
    expected = {
        "approve": p["no"] * 0.035 * 5000 * 24 / 12 + p["yes"] * -0.55 * 5000,
        "refer": p["no"] * (0.02 * 5000 - 40) + p["yes"] * -40 - model.policy.prices[0],
        "decline": 0.0,
    }
    decision = model.decide(ROW, reasons=0)
    assert decision.action == max(expected, key=expected.__getitem__)
    best = expected[decision.action] + (model.policy.prices[0] if decision.action == "refer" else 0.0)
    assert decision.promise == pytest.approx(0.0 if best == 0 else 0.9 * best - 1.0)


def test_a_list_gives_a_list_and_an_empty_one_nothing(model: Model) -> None:
    assert model.decide([]) == []
    assert [bits(d) for d in model.decide([ROW, ROW | {"age": None}])] == [bits(model.decide(ROW)), bits(model.decide(ROW | {"age": None}))]


def test_a_quantity_is_chosen_and_named(bakery: Model) -> None:
    decision = bakery.decide({})
    assert decision.action == "stock"
    assert decision.quantity is not None
    assert 0 <= decision.quantity <= 300
    assert decision.quantity % 20 == 0
    assert set(decision.predictive) == {"0.05", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "0.95"}


def test_conformal_offsets_move_what_is_reported_and_no_decision(bakery: Model) -> None:
    plain = replace(bakery, conformal=None)
    assert bakery.decide(ROW).quantity == plain.decide(ROW).quantity
    assert bakery.decide(ROW).promise == plain.decide(ROW).promise
    assert bakery.decide(ROW).predictive["0.05"] == pytest.approx(plain.decide(ROW).predictive["0.05"] - 9.0)


@pytest.mark.parametrize("convert", [pl.from_arrow, lambda t: t.to_pandas(), lambda t: t])
def test_frames_of_every_make_give_the_same_bits(model: Model, convert: Callable[[pa.Table], Any]) -> None:
    frame = table(50, seed=3)[0]
    decided = model.decide(convert(frame), reasons=0)
    assert [bits(replace(d, notes=())) for d in model.decide(frame.to_pylist(), reasons=0)] == [bits(d) for d in decided]
    assert len(decided) == 50
    assert decided.ignored == ("sex",)
    assert decided.expected.shape == (50, 3)
    assert decided.promise.tolist() == [d.promise for d in decided]


def test_a_frame_of_mixed_types_is_read_value_by_value(model: Model) -> None:
    rows = [ROW, ROW | {"region": 7, "age": "41"}, ROW | {"region": None, "age": None}]
    assert [bits(d) for d in model.decide(pd.DataFrame(rows))] == [bits(replace(d, notes=())) for d in model.decide(rows)]


def test_what_is_no_rows_is_told(model: Model) -> None:
    with pytest.raises(DataError, match="rows: got 'int'; expected a mapping, a list of mappings, or a polars, pandas or Arrow table"):
        model.decide(3)
    with pytest.raises(DataError, match="row 2: got 'list'; expected a mapping from column to value"):
        model.decide([ROW, [1]])


def test_a_missing_payoff_column_is_named(model: Model) -> None:
    row = {name: value for name, value in ROW.items() if name not in ("amount", "months")}
    with pytest.raises(DataError) as caught:
        model.decide(row | {"amuont": 1, "month": 2})
    amount, months = caught.value.problems
    assert str(amount) == "rows: got 'no column amount'; expected every column that payoffs and limits are made of; did you mean 'amuont'?"
    assert months.next == "did you mean 'month'?"
    with pytest.raises(DataError, match=r"no column months.*; add it"):
        model.decide({"amount": 1})


def test_rows_without_a_payoff_are_named(model: Model) -> None:
    with pytest.raises(DataError, match="amount missing in 1 of 3 rows, first in row 2"):
        model.decide([ROW, ROW | {"amount": "much"}, ROW])
    with pytest.raises(DataError, match="amount missing in 1 of 2 rows, first in row 2"):
        model.decide([ROW, {name: v for name, v in ROW.items() if name != "amount"}])


def test_rows_are_named_across_blocks(model: Model) -> None:
    small = replace(model, block=2)
    with pytest.raises(DataError, match=r"rows 3 to 4, counted from 1: .*first in row 2"):
        small.decide([ROW, ROW, ROW, ROW | {"amount": None}])
    whole, parts = model.decide([ROW | {"age": a} for a in range(5)]), small.decide([ROW | {"age": a} for a in range(5)])
    assert [bits(d) for d in whole] == [bits(d) for d in parts]
    noted = small.decide_columns({name: [value] * 5 for name, value in (ROW | {"region": "new"}).items()}, reasons=0).notes
    assert [(note.column, note.rows) for note in noted] == [("region", (0, 1, 2, 3, 4))]


def test_columns_of_other_lengths_are_told(model: Model) -> None:
    with pytest.raises(DataError, match="columns of 1 to 2 values"):
        model.decide_columns({"amount": [1, 2], "months": [1]})


def test_no_rows_of_columns_are_no_decisions(model: Model) -> None:
    decided = model.decide_columns({name: [] for name in ROW})
    assert len(decided) == 0
    assert decided.expected.shape == (0, 3)
    assert list(decided) == []


def test_notes_tell_what_was_not_used_as_it_was(model: Model) -> None:
    row = {k: v for k, v in ROW.items() if k != "用途"} | {"region": "Atlantis", "income": "many", "colour": "red"}
    notes = "\n".join(model.decide(row, reasons=0).notes)
    for text in (
        "'Atlantis' did not occur in training",
        "'many' cannot be read",
        "用途: missing",
        "colour: not a column of this model; ignored",
    ):
        assert text in notes
    assert model.decide([ROW, row], reasons=0)[1].notes == model.decide(row, reasons=0).notes
    assert model.decide([ROW, row], reasons=0)[0].notes == ()


def test_limits_hold_exactly_on_a_batch_when_asked(model: Model, rows: Raw) -> None:
    decided = model.decide_columns(rows, exact_limits=True, reasons=0)
    assert np.mean(decided.action == "refer") <= 0.2
    assert decided.expected.tobytes() == model.decide_columns(rows, reasons=0).expected.tobytes()


# ---------------------------------------------------------------------------------------------------------- to the last bit


def generated(n: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield rows whose payoffs are numbers and whose other values are anything."""
    rng = np.random.default_rng(seed)
    odd: list[Any] = [
        None,
        "",
        "NA",
        "twelve",
        "1,5",
        " 7 ",
        1e308,
        -1e308,
        float("inf"),
        float("nan"),
        10**400,
        True,
        [],
        {},
        b"x",
        "\x00",
        "🦀" * 50,
        0,
    ]
    plain: dict[str, Callable[[], Any]] = {
        "age": lambda: float(rng.normal(45, 20)),
        "income": lambda: float(np.exp(rng.normal(8, 2))),
        "employed": lambda: bool(rng.random() < 0.5),
        "applied on": lambda: f"{rng.integers(1900, 2100)}-{rng.integers(1, 13):02}-{rng.integers(1, 29):02}",
        "region": lambda: REGIONS[rng.integers(len(REGIONS))],
        "用途": lambda: "车房学飞"[rng.integers(4)],
    }
    for _ in range(n):
        row: dict[str, Any] = {"amount": float(rng.integers(1, 10**6)) / 7, "months": int(rng.integers(1, 100))}
        for name, make in plain.items():
            chance = rng.random()
            if chance < 0.75:
                row[name] = make()
            elif chance < 0.95:
                row[name] = odd[rng.integers(len(odd))]
        yield row


def values_of(decided: Decided) -> Floats:
    return decided.predictive.p if isinstance(decided.predictive, Probabilities) else decided.predictive.q


@pytest.mark.slow
@pytest.mark.parametrize(("which", "n", "alone"), [("loans", 100_000, 15_000), ("bakery", 20_000, 3_000)])
def test_a_row_alone_has_the_bits_it_has_among_others(which: str, n: int, alone: int, request: pytest.FixtureRequest) -> None:
    """All n rows agree to the last bit between batches of other sizes, `alone` of them one by one."""
    model: Model = request.getfixturevalue(which)
    batch = list(generated(n, seed=4))
    raw = {name: [row.get(name) for row in batch] for name in model.transform.inputs}
    whole = model.decide_columns(raw, reasons=0)
    sizes = [1] * alone + np.random.default_rng(0).choice([2, 3, 7, 64, 1000, 9999], n).tolist()
    at = 0
    while at < n:
        rows = slice(at, at + sizes.pop(0))
        part = model.decide_columns({name: values[rows] for name, values in raw.items()}, reasons=0)
        assert part.choices.option.tobytes() == whole.choices.option[rows].tobytes()
        assert part.expected.tobytes() == whole.expected[rows].tobytes()
        assert part.promise.tobytes() == whole.promise[rows].tobytes()
        assert values_of(part).tobytes() == values_of(whole)[rows].tobytes()
        at = rows.stop
    for i in range(0, n, n // 500):
        assert bits(replace(model.decide(batch[i], reasons=0), notes=())) == bits(whole[i])


def test_one_row_takes_well_under_a_millisecond(model: Model) -> None:
    model.decide(ROW, reasons=0)
    laps = []
    for _ in range(200):
        start = time.perf_counter()
        model.decide(ROW, reasons=0)
        laps.append(time.perf_counter() - start)
    assert np.median(laps) < 0.003  # some 0.2 ms on an idle core; a shared one may be slow


# ----------------------------------------------------------------------------------------------------------------- reasons


def test_reasons_are_money_that_sums_to_the_margin(model: Model) -> None:
    explained = model.explain({name: [value] for name, value in ROW.items()})
    assert explained.money.sum() == pytest.approx(explained.margin - explained.background, rel=1e-9)
    assert explained.margin >= 0
    assert "sex" not in explained.columns
    decision = model.decide(ROW, reasons=3)
    assert [(r.column, r.money) for r in decision.reasons] == list(explained.top(3))
    shown = {r.column: r.value for r in model.decide(ROW, reasons=50).reasons}
    assert shown.items() <= {"amount": "5000", "months": "24", "age": "41", "income": "3100.5", "employed": "true",
                             "applied on": "2024-02-29T12:00:00", "region": "Nord", "用途": "车"}.items()  # fmt: skip


def test_reasons_do_not_depend_on_the_batch(model: Model) -> None:
    other = ROW | {"region": None, "income": 10**400}
    assert model.decide([other, ROW], reasons=4)[1].reasons == model.decide(ROW, reasons=4).reasons
    values = {r.column: r.value for r in model.decide(other, reasons=9).reasons}
    assert values.get("region", "missing") == "missing"


def test_a_single_action_is_explained_against_its_other_quantities(bakery: Model) -> None:
    explained = bakery.explain({"income": [50.0]})
    assert explained.money.sum() == pytest.approx(explained.margin - explained.background, rel=1e-9)
    assert explained.margin >= 0


def test_a_background_row_without_a_payoff_is_left_out(loans: Model) -> None:
    background = {name: list(values) for name, values in loans.background.items()} | {"amount": [None, *loans.background["amount"][1:]]}
    assert replace(loans, background=background).decide(ROW, reasons=1).reasons


def test_drivers_are_quick_and_ranked(loans: Model) -> None:
    raw = prepare.raw_columns(table(40, seed=2)[0])
    found = loans.drivers(raw, evaluations=300)
    assert {name for name, _ in found} == set(loans.transform.inputs)
    sizes = [money for _, money in found]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 0


# ------------------------------------------------------------------------------------------------------------------ weight


def test_deciding_needs_numpy_onnxruntime_and_msgspec_alone(packed: Path) -> None:
    script = """
import sys
from makegood.model import load
model = load(sys.argv[1])
model.decide({"amount": 5000, "months": 24})
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", script, str(packed)], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if name not in sys.stdlib_module_names and not name.startswith("_")}
    # msgspec takes the first where it is installed, NumPy brings the second, and the others measure this test.
    assert loaded - {"typing_extensions", "cython_runtime", "coverage", "$coverage"} == {"makegood", "numpy", "onnxruntime", "msgspec"}
