"""Tapes: streams and tables as decisions to come, in the order of time."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pytest
from tests.loop.tapes import small
from tests.loops import LOANS, loans

from makegood.case import Case
from makegood.errors import CaseError, DataError
from makegood.loop.tape import moments, of_stream, of_table, timed
from makegood.monitoring.maturity import NEVER
from makegood.streams.kinds import stream

DAY = 86_400_000_000


def test_a_stream_is_a_tape_with_its_truth() -> None:
    made = stream("outage", 1, n=1000, history=500)
    tape = of_stream(made)
    assert len(tape) == 1000
    assert tape.start == made.at[0]
    assert tape.end == made.at[-1] + 14 * DAY
    assert tape.truth is made.truth
    assert (tape.known_at == NEVER).any()
    assert tape.injected == f"Simulated: {made.what}"
    assert "defaulted" in tape.history.column_names
    assert "defaulted" not in tape.rows.column_names
    assert set(tape.take(slice(3, 5))["amount"]) == set(tape.raw["amount"][3:5])


def test_a_tape_knows_whom_its_rows_are_about() -> None:
    tape = small()
    same = tape.entity[:, None] == tape.entity
    assert ((tape.units[:, None] == tape.units) == same).all()


def test_rows_about_nobody_are_about_somebody_of_their_own() -> None:
    table = pa.Table.from_pandas(loans(900))
    tape = of_table(Case.parse(LOANS), table)
    assert len(np.unique(tape.units)) == len(tape)


def test_a_stream_whose_outcome_depends_on_the_action_is_refused() -> None:
    with pytest.raises(CaseError, match="treatment cases are not built yet"):
        of_stream(stream("offer", 0, n=500, history=500))


def test_a_table_without_time_is_given_one_and_says_what_was_injected() -> None:
    table = pa.Table.from_pandas(loans(1000))
    tape = of_table(Case.parse(LOANS), table, seed=3)
    assert tape.case.data.time == "decided_at"
    assert (tape.history.num_rows, len(tape)) == (400, 600)
    assert tape.injected.startswith("The rows have no time and come in a seeded order; from row 581 of 1,000 on ")
    assert (np.diff(tape.at) >= 0).all()
    assert (tape.known_at == tape.at).all()
    assert len(tape.changed_at) == 1
    assert of_table(Case.parse(LOANS), table, drift="stable").changed_at == ()
    assert tape.truth is None


def test_a_table_with_time_is_played_as_it_is() -> None:
    made = small()
    whole = made.history.append_column("late", pa.array([True] * made.history.num_rows))
    case = Case.parse(stream("sudden", 0, n=1, history=1).case)
    order = np.random.default_rng(0).permutation(whole.num_rows)
    tape = of_table(case, whole.take(pa.array(order)), first=0.5)
    assert tape.injected == ""
    assert len(tape) == 750
    assert tape.known_at[0] == tape.at[0] + 14 * DAY
    past = moments(tape.history["applied_at"], "at")
    assert (past + 14 * DAY <= tape.start).all(), "only what was known by then"
    assert len(np.unique(tape.units)) < len(tape)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first": 1.0}, "first: got '1.0'; expected a share between 0 and 1"),
        ({"drift": "big"}, "drift: got 'big'; expected one of stable, sudden"),
        ({"first": 0.1}, "expected at least 200 of each; bring more rows"),
    ],
)
def test_what_cannot_be_played_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises((CaseError, DataError), match=message):
        of_table(Case.parse(LOANS), pa.Table.from_pandas(loans(1000)), **changes)  # type: ignore[arg-type]


def test_a_table_without_the_outcome_is_refused() -> None:
    with pytest.raises(DataError, match=r"data\.outcome: got 'bad'; expected one of"):
        of_table(Case.parse(LOANS), pa.Table.from_pandas(loans(900).drop(columns="bad")))


def test_times_are_read_as_they_come() -> None:
    day = [86_400_000_000]
    assert moments(pa.chunked_array([[date(1970, 1, 2)]]), "at").tolist() == day
    assert moments(pa.chunked_array([pa.array(["1970-01-02"], pa.large_string())]), "at").tolist() == day
    assert moments(pa.chunked_array([pa.array([86_400], pa.timestamp("s", tz="Europe/Berlin"))]), "at").tolist() == day
    for column, message in (
        (pa.chunked_array([pa.array(["1970-01-02", None])]), "no time in 1 rows"),
        (pa.chunked_array([[1, 2]]), "got 'int64'; expected dates"),
        (pa.chunked_array([["soon"]]), "expected dates such as 2024-01-31"),
    ):
        with pytest.raises(DataError, match=message):
            moments(column, "at")


def test_a_case_can_be_given_a_time() -> None:
    case = timed(Case.parse(LOANS), "when")
    assert case.data.time == "when"
    assert case.data.source == "loans.csv"
