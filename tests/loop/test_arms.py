"""The arms: the same rows lived through otherwise, compared row by row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.loop.tapes import first, quick, small

from makegood.contracts import Estimate
from makegood.loop import arms
from makegood.loop.arms import Lived, chosen, gain, looping, never, oracle, paying, scheduled, total
from makegood.loop.controller import Terms
from makegood.loop.replay import Played
from makegood.loop.tape import of_stream
from makegood.report.looped import ARM, Event
from makegood.streams.kinds import stream

DAY = 86_400_000_000


def test_never_is_what_the_first_model_earns() -> None:
    tape = small()
    lived = never(tape, first(tape))
    option = first(tape).decide_columns(tape.raw, reasons=0).choices.option
    assert (lived.paid == paying(tape, first(tape))[np.arange(len(tape)), option]).all()
    assert lived.net == pytest.approx(lived.paid.sum())
    part = slice(200, 260)
    assert (chosen(tape, first(tape), part) == lived.paid[part]).all()


def test_a_schedule_trains_on_all_rows_and_pays_for_it() -> None:
    tape = small()
    lived = scheduled(tape, first(tape), 40 * DAY)
    assert [(at - tape.start) // DAY for at, _ in lived.spent] == [40]
    assert lived.net == pytest.approx(lived.paid.sum() - Terms.of(tape.case).cost)
    before = tape.at < tape.start + 40 * DAY
    assert (lived.paid[before] == never(tape, first(tape)).paid[before]).all()
    assert (lived.paid[~before] != never(tape, first(tape)).paid[~before]).any()


def test_a_training_that_fails_is_paid_for_and_changes_nothing() -> None:
    tape = small()
    few = replace(tape, history=tape.history.slice(0, 10))
    lived = scheduled(few, first(tape), 20 * DAY)
    assert len(lived.spent) == 3
    assert (lived.paid[:800] == never(tape, first(tape)).paid[:800]).all()


def test_the_oracle_acts_by_the_true_chances() -> None:
    tape = small(n=1600)
    truth, mine = oracle(tape, first(tape)), never(tape, first(tape))
    assert truth is not None
    assert tape.truth is not None
    table = paying(tape, first(tape))
    margin = tape.raw["margin"] * tape.raw["amount"] * tape.truth[:, 0] - 0.5 * tape.raw["amount"] * tape.truth[:, 1]
    assert (truth.paid == np.where(margin > 0, table[:, 0], table[:, 1])).all()
    assert truth.paid.sum() > mine.paid.sum()


def test_without_the_truth_the_oracle_is_told_of_the_changes() -> None:
    tape = replace(quick(of_stream(stream("sudden", 2, n=3000, history=1500, change=0.2))), truth=None)
    known, mine = oracle(tape, first(tape)), never(tape, first(tape))
    assert known is not None
    cut = int(np.searchsorted(tape.at, tape.changed_at[0]))
    assert (known.paid[:cut] == mine.paid[:cut]).all()
    assert known.paid[cut:].sum() > mine.paid[cut:].sum()
    assert oracle(replace(tape, changed_at=()), first(tape)) is None
    late = oracle(replace(tape, changed_at=(int(tape.at[-40]),)), first(tape))
    assert late is not None
    assert (late.paid == mine.paid).all(), "too few rows of the changed world"


def test_a_gain_is_paired_and_net_of_what_was_spent() -> None:
    at = np.arange(400) * DAY
    a, b = Lived(np.full(400, 3.0), ((100 * DAY, 50.0),)), Lived(np.full(400, 1.0))
    assert (gain(a, b, at, "EUR").value, gain(a, b, at, "EUR").low) == (750.0, 750.0)
    assert gain(a, b, at, "EUR", 100 * DAY).value == 150.0
    assert gain(a, b, at, "EUR", 99 * DAY).value == 198.0
    assert gain(b, a, at, "EUR").value == -750.0


def test_the_interval_of_a_gain_holds_what_is_true_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        paid = rng.normal(1.0, 20.0, 1000)
        found = total(paid, 100.0, np.arange(1000) // 25, "EUR")
        held += found.low <= 900.0 <= found.high
    assert held >= 300 * 0.95 - 2.33 * np.sqrt(300 * 0.95 * 0.05)


def test_a_loop_is_told_with_the_money_of_every_arm_and_how_it_grew() -> None:
    tape = small()
    mine = Lived(never(tape, first(tape)).paid + 1.0, ((int(tape.at[500]), 400.0),))
    events = (Event(int(tape.at[500]), "retrained", "a: why"),)
    told = looping(tape, mine, {"never": never(tape, first(tape))}, Played(events, (), (), (), {"decide": 0.1}))
    assert set(told.money) == {ARM, "never"}
    assert told.money[ARM].value == pytest.approx(mine.net)
    assert told.gains["never"].value == pytest.approx(1200.0)
    assert len(told.path["never"]) == arms.POINTS
    assert told.path["never"][-1][1].value == pytest.approx(1200.0)
    assert (told.decisions, told.replayed, told.injected) == (1600, True, tape.injected)
    assert told.events == events
    assert isinstance(told.path["never"][0][1], Estimate)
