from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from makegood import cases
from makegood.errors import CaseError, DataError
from makegood.streams import INJECTED, inject
from makegood.streams.injected import RECODED, TIME, Timing
from makegood.streams.truth import DAY, START

N, AT = 4_000, 1_600


def table(seed: int = 0, n: int = N) -> pa.Table:
    """Return rows with a telling number (with gaps), a telling category, a telling flag, noise, and an id that tells nothing."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(0, 1, n)
    job = np.array(["a", "b", "c", "d"], dtype=object)[np.digitize(risk + rng.normal(0, 1, n), (-0.8, 0, 0.8))]
    bad = risk + rng.normal(0, 1, n) > 0.9
    return pa.table(
        {
            "id": [f"r{i}" for i in range(n)],
            "income": pa.array(np.where(rng.random(n) < 0.1, np.nan, np.round(1000 - 200 * risk)), from_pandas=True),
            "job": pa.array(np.where(rng.random(n) < 0.05, None, job)),
            "flag": risk + rng.normal(0, 2, n) > 0,
            "noise": rng.normal(0, 1, n),
            "when": pa.array(rng.integers(0, 10**15, n), pa.timestamp("us")),
            "bad": np.where(bad, "yes", "no"),
        }
    )


def values(of: pa.Table, name: str, rows: slice = slice(None)) -> list[object]:
    """Return a column's values in an order that can be compared."""
    return sorted(of[name].to_pylist()[rows], key=repr)


def correlation(of: pa.Table, name: str, rows: slice) -> float:
    """Return how a number goes with a bad outcome."""
    x = of[name].to_numpy(zero_copy_only=False)[rows]
    y = (of["bad"].to_numpy(zero_copy_only=False) == "yes")[rows]
    return float(np.corrcoef(x[~np.isnan(x)], y[~np.isnan(x)])[0, 1])


@pytest.mark.parametrize("kind", INJECTED)
def test_rows_and_outcomes_stay_what_they_are(kind: str) -> None:
    before = table()
    after, words = inject(before, kind, AT, 3, outcome="bad")
    assert after.column_names == [TIME, *before.column_names]
    assert after.num_rows == N
    assert words.startswith("Injected: the rows have no time and come in a seeded order; from row 1,601 of 4,000 on ")
    assert dict(zip(after["id"].to_pylist(), after["bad"].to_pylist(), strict=True)) == dict(
        zip(before["id"].to_pylist(), before["bad"].to_pylist(), strict=True)
    )
    again, _ = inject(before, kind, AT, 3, outcome="bad")
    assert after.equals(again)
    assert not after.equals(inject(before, kind, AT, 4, outcome="bad")[0])


def test_times_are_given_evenly() -> None:
    at = inject(table(), "stable", AT, 0, outcome="bad")[0][TIME]
    assert at.type == pa.timestamp("us", tz="UTC")
    assert set(np.diff(at.cast(pa.int64()).to_numpy())) == {DAY // 100}
    assert at.cast(pa.int64())[0].as_py() == START
    slow = inject(table(), "stable", AT, 0, outcome="bad", timing=Timing(per_day=1, start=0))[0][TIME].cast(pa.int64()).to_pylist()
    assert slow[:3] == [0, DAY, 2 * DAY]


def test_a_sudden_drift_keeps_what_a_column_holds_and_turns_what_it_tells() -> None:
    plain, _ = inject(table(), "stable", AT, 0, outcome="bad")
    drifted, words = inject(table(), "sudden", AT, 0, outcome="bad")
    assert words.endswith(
        "income, job and flag are mirrored: highest and lowest values, riskiest and safest levels change places."
    ) or words.endswith("job, income and flag are mirrored: highest and lowest values, riskiest and safest levels change places.")
    past, future = slice(0, AT), slice(AT, None)
    assert drifted.slice(0, AT).equals(plain.slice(0, AT))
    for name in plain.column_names:
        assert values(drifted, name, future) == values(plain, name, future)
    for name in ("id", "noise", "when", "bad"):
        assert drifted[name].equals(plain[name])
    assert correlation(plain, "income", future) < -0.3
    assert correlation(drifted, "income", future) > 0.3
    assert correlation(drifted, "income", past) < -0.3
    for name in ("income", "job"):  # what was missing stays missing
        assert drifted[name].is_null().equals(plain[name].is_null())

    def rate(of: pa.Table, level: str) -> float:
        rows = [b == "yes" for job, b in zip(of["job"].to_pylist()[AT:], of["bad"].to_pylist()[AT:], strict=True) if job == level]
        return sum(rows) / len(rows)

    assert rate(plain, "a") < rate(plain, "b") < rate(plain, "c") < rate(plain, "d")
    assert rate(drifted, "a") > rate(drifted, "d") + 0.2


def test_a_gradual_drift_takes_a_quarter_of_the_rows() -> None:
    plain, _ = inject(table(), "stable", AT, 0, outcome="bad")
    drifted, words = inject(table(), "gradual", AT, 0, outcome="bad")
    assert "on more and more rows have " in words
    moved = np.array([a != b for a, b in zip(plain["income"].to_pylist(), drifted["income"].to_pylist(), strict=True)])
    end = AT + N // 4
    early, late = moved[AT : AT + N // 8], moved[AT + N // 8 : end]
    assert not moved[:AT].any()
    assert 0.05 < early.mean() < 0.4 < late.mean() < moved[end:].mean()
    assert values(drifted, "income") == values(plain, "income")
    assert correlation(drifted, "income", slice(end, None)) > 0.3


def test_a_mix_shift_recodes_nothing() -> None:
    before = table()
    drifted, words = inject(before, "mix", AT, 0, outcome="bad")
    rows = sorted(map(repr, before.to_pylist()))
    assert sorted(map(repr, drifted.drop_columns([TIME]).to_pylist())) == rows
    assert words.endswith("most rows are of the highest third in income, which are rare before; nothing is recoded.")
    income = np.nan_to_num(drifted["income"].to_numpy(zero_copy_only=False), nan=-np.inf)
    high = income > np.quantile(income, 2 / 3)
    assert high[:AT].mean() < 0.2
    assert high[AT:].mean() > 0.42
    part = high[AT:]
    assert abs(part[: len(part) // 2].mean() - part[len(part) // 2 :].mean()) < 0.06  # at once, not little by little


def test_an_outage_takes_the_most_telling_column() -> None:
    plain, _ = inject(table(), "stable", AT, 0, outcome="bad")
    drifted, words = inject(table(), "outage", AT, 0, outcome="bad")
    assert words.endswith("income is missing.")
    assert drifted["income"].slice(AT).null_count == N - AT
    assert drifted.slice(0, AT).equals(plain.slice(0, AT))
    assert drifted.drop_columns(["income"]).equals(plain.drop_columns(["income"]))


def test_what_is_to_be_kept_is_kept() -> None:
    plain, _ = inject(table(), "stable", AT, 0, outcome="bad")
    drifted, words = inject(table(), "sudden", AT, 0, outcome="bad", keep=["income", "job"])
    assert words.endswith("on flag is mirrored: highest and lowest values, riskiest and safest levels change places.")
    assert drifted.drop_columns(["flag"]).equals(plain.drop_columns(["flag"]))


def test_outcomes_of_numbers_and_of_many_classes_are_told_too() -> None:
    rng = np.random.default_rng(0)
    x, z = rng.normal(0, 1, N), rng.normal(0, 1, N)
    number = pa.table({"x": x, "z": z, "y": pa.array(np.where(rng.random(N) < 0.1, np.nan, np.exp(x)), from_pandas=True)})
    assert "on x is mirrored" in inject(number, "sudden", AT, 0, outcome="y")[1]
    classes = pa.table({"x": x, "z": z, "y": np.digitize(x + rng.normal(0, 0.5, N), (-0.5, 1.2))})
    assert "on x is mirrored" in inject(classes, "sudden", AT, 0, outcome="y")[1]


def test_no_more_than_eight_columns_are_recoded() -> None:
    rng = np.random.default_rng(0)
    bad = rng.random(N) < 0.3
    wide = pa.table({**{f"x{i}": bad + rng.normal(0, 1 + 0.1 * i, N) for i in range(12)}, "bad": bad})
    assert inject(wide, "sudden", AT, 0, outcome="bad")[1].count("x") == RECODED == 8


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"kind": "suden"}, r"kind: got 'suden'; expected one of stable, sudden, gradual, mix, outage; did you mean 'sudden'\?"),
        ({"outcome": "bda"}, r"outcome: got 'bda'; expected one of id, income, .*; did you mean 'bad'\?"),
        ({"at": 0}, "at: got '0'; expected a row after the first of 4000; write where the change begins"),
        ({"at": N}, "at: got '4000'; expected a row after the first of 4000"),
    ],
)
def test_what_cannot_be_injected_is_refused(said: dict[str, object], message: str) -> None:
    with pytest.raises(CaseError, match=message):
        inject(table(), **{"kind": "sudden", "at": AT, "seed": 0, "outcome": "bad", **said})  # type: ignore[arg-type]


def test_a_table_that_has_such_a_time_already_is_refused() -> None:
    timed, _ = inject(table(), "stable", AT, 0, outcome="bad")
    with pytest.raises(CaseError, match="column 'decided_at': got 'a column of the table'; expected a table that has no such column"):
        inject(timed, "stable", AT, 0, outcome="bad")


@pytest.mark.parametrize("bad", [[None] * N, ["no"] * N, ["no", "yes"] * (N // 2)])
def test_a_table_that_tells_nothing_is_refused(bad: list[str | None]) -> None:
    """No outcome, one outcome, or one that goes with nothing: there is nothing to drift."""
    told = pa.table({"x": np.arange(N) % 7, "all one": [1] * N, "bad": pa.array(bad, pa.string())})
    with pytest.raises(DataError, match="outcome 'bad': got 'columns that tell nothing of it'; expected a column that tells something"):
        inject(told, "sudden", AT, 0, outcome="bad")


def test_a_real_table_drifts_and_its_payoffs_do_not() -> None:
    before = cases.builtin("credit-risk")
    case = cases.load("credit-risk")
    drifted, words = inject(before, "sudden", 24_000, 0, outcome=case.data.outcome, keep=["personal_net_income"])
    plain, _ = inject(before, "stable", 24_000, 0, outcome=case.data.outcome)
    assert "from row 24,001 of 40,000 on age, " in words
    assert drifted["personal_net_income"].equals(plain["personal_net_income"])
    assert drifted["defaulted"].equals(plain["defaulted"])
    age, bad = (plain[name].to_numpy(zero_copy_only=False)[24_000:] for name in ("age", "defaulted"))
    now = drifted["age"].to_numpy(zero_copy_only=False)[24_000:]
    assert np.corrcoef(age, bad == "yes")[0, 1] < -0.1
    assert np.corrcoef(now, bad == "yes")[0, 1] > 0.1


@pytest.mark.parametrize(("shape", "order"), [(b"2,2,1", (2, 0, 3, 1)), (b"1,4,1", (3, 2, 1, 0))])
def test_pictures_are_turned_and_nothing_else_changes(shape: bytes, order: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    field = pa.field("image", pa.binary(), metadata={b"shape": shape})
    cells = [None if i % 50 == 0 else rng.integers(0, 256, 4, dtype=np.uint8).tobytes() for i in range(400)]
    label = [str(i % 10) for i in range(400)]
    table = pa.table([pa.array(cells, pa.binary()), pa.array(label)], schema=pa.schema([field, pa.field("digit", pa.string())]))
    changed, words = inject(table, "sudden", 200, seed=1, outcome="digit")
    assert words.endswith("all pictures lie on their side, as from another scanner.")
    assert changed.field("image").metadata == field.metadata
    turned = {(None if cell is None else bytes(cell[k] for k in order), digit) for cell, digit in zip(cells, label, strict=True)}
    plain = set(zip(cells, label, strict=True))
    for i, both in enumerate(zip(changed["image"].to_pylist(), changed["digit"].to_pylist(), strict=True)):
        assert both in (plain if i < 200 else turned)
    grown, words = inject(table, "gradual", 200, seed=1, outcome="digit")
    strange = [c not in {p for p, _ in plain} for c in grown["image"].to_pylist() if c is not None]
    assert 0 < sum(strange) < 200
    assert not any(strange[:190])
    assert "more and more pictures" in words
