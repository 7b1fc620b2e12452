"""Retraining: only on what is known and due, and on the rows that serve the model best."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.loop.tapes import first, quick, small

from makegood.errors import DataError, Refused
from makegood.loop import retraining
from makegood.loop.inside import Inside
from makegood.loop.retraining import JUMP, Past, changed, learnable, learnt, retrain, table, turned
from makegood.loop.tape import of_stream
from makegood.stages.observe import Log
from makegood.streams.kinds import stream

DAY = 86_400_000_000


def played(kind: str = "sudden", until_days: float = 70.0, n: int = 1600) -> tuple[Inside, int]:
    """Return a house that decided until a day, and was told what was known by then."""
    tape = small(kind, n=n)
    house, now = Inside(tape, first(tape)), tape.start + round(until_days * DAY)
    house.decide(slice(0, int(np.searchsorted(tape.at, now))))
    house.tell(now)
    return house, now


def past(house: Inside, log: Log | None = None, since: int | None = None) -> Past:
    """Return what a house has to learn from."""
    return Past(house.tape.case, house.tape.history, house.log() if log is None else log, house.standing().champion, since)


def test_only_what_is_known_and_due_is_learnt() -> None:
    house, now = played("adversarial")
    log = house.log()
    rows = learnable(log, now, 14 * DAY)
    assert (log.at[rows] <= now - 14 * DAY).all()
    assert (log.known_at[rows] <= now).all()
    early = (log.known_at <= now) & (log.at > now - 14 * DAY)
    assert early.any(), "what came early is left out: it is of one kind"
    assert np.mean(log.outcome[early]) < 0.01 < np.mean(log.outcome[rows])


def test_decisions_join_the_history_in_its_columns_and_types() -> None:
    house, now = played()
    rows = learnable(house.log(), now, 14 * DAY)
    made = table(house.tape.case, house.tape.history, house.log(), rows)
    assert made.schema.equals(house.tape.history.schema)
    assert made.num_rows == house.tape.history.num_rows + len(rows)
    new = made.slice(house.tape.history.num_rows)
    assert new["defaulted"].to_pylist() == house.tape.outcome[rows].tolist()
    assert new["applied_at"].cast(pa.int64()).to_pylist() == house.tape.at[rows].tolist()
    assert new["customer"].to_pylist() == house.tape.entity[rows].tolist()
    assert table(house.tape.case, house.tape.history, house.log(), rows[:0]) is house.tape.history


def test_what_a_log_does_not_keep_is_null_but_for_time_and_whom_it_is_about() -> None:
    house, now = played()
    log = house.log()
    rows = learnable(log, now, 14 * DAY)[:50]
    poor = replace(log, rows=lambda at: {"amount": log.rows(at)["amount"]})
    new = table(house.tape.case, house.tape.history, poor, rows).slice(house.tape.history.num_rows)
    assert new["score"].null_count == 50
    assert new["amount"].null_count == 0
    assert new["applied_at"].null_count == 0
    assert new["customer"].to_pylist()[0] == f"unit {log.entity[rows[0]]}"


def test_numbers_are_outcomes_as_they_are() -> None:
    house, now = played()
    rows = learnable(house.log(), now, 14 * DAY)[:20]
    history = house.tape.history.drop_columns(["defaulted"]).append_column("defaulted", pa.array([0.5] * house.tape.history.num_rows))
    new = table(house.tape.case, history, replace(house.log(), classes=()), rows).slice(history.num_rows)
    assert new["defaulted"].to_pylist() == house.log().outcome[rows].tolist()


def test_a_jump_is_found_where_it_is_and_rarely_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    steps = [turned(np.append(rng.normal(0, 1, 1200), rng.normal(0.4, 1, 800))) for _ in range(60)]
    near = [k for k in steps if k is not None and abs(k - 1200) < 150]
    assert len(near) >= 50
    false = sum(turned(rng.normal(0, 1, 2000)) is not None for _ in range(300))
    assert false <= 9, f"by chance the largest jump passes {JUMP} in about one of a hundred"
    assert turned(np.zeros(5000)) is None
    assert turned(rng.normal(0, 1, 700)) is None, "too few"


def test_after_a_change_the_rows_since_then_are_learnt_from() -> None:
    house, now = played(until_days=112.0, n=2400)
    since = house.tape.changed_at[0]
    made, model = retrain(past(house, since=since), now, None)
    assert made.since is not None
    assert abs(made.since - since) < 10 * DAY
    assert "rows since the change teach more than all" in made.words
    assert made.rows < 1900
    stale = learnt(house.tape.case, house.tape.history)
    late = slice(2100, 2400)
    raw, outcome = house.tape.take(late), house.tape.outcome[late].tolist()
    money = [m.realised(raw, outcome)[np.arange(300), m.decide_columns(raw, reasons=0).choices.option].mean() for m in (model, stale)]
    assert money[0] > money[1] + 10


def test_without_a_change_all_rows_are_learnt_from() -> None:
    house, now = played("stable", until_days=60.0)
    rows = len(learnable(house.log(), now, 14 * DAY))
    made, _ = retrain(past(house), now, None)
    assert (made.since, made.rows, made.words) == (None, 1500 + rows, f"Made of {1500 + rows:,} rows.")
    doubtful, _ = retrain(past(house, since=house.tape.start), now, None)
    assert doubtful.since is None
    assert "are not shown to teach more" in doubtful.words
    few, _ = retrain(past(house, since=house.tape.start + 30 * DAY), now, None)
    assert (few.since, few.words) == (None, f"Made of {1500 + rows:,} rows.")
    plain, _ = retrain(past(house, since=house.tape.start), now, None, plain=True)
    assert plain.words == f"Made of {1500 + rows:,} rows."


def test_rows_that_nothing_can_be_learnt_from_alone_are_said_to_be_too_few() -> None:
    house, now = played("stable", until_days=60.0)
    log = house.log()
    early = log.at < log.at[learnable(log, now, 14 * DAY)[-1]] - 20 * DAY
    one = replace(log, outcome=np.where(early & ~np.isnan(log.outcome), 0.0, log.outcome))  # of the first since the change none defaulted
    made, _ = retrain(past(house, one, since=house.tape.start), now, None)
    assert made.since is None
    assert "too few to learn from alone" in made.words


def test_the_time_of_a_change_is_the_champions_or_the_one_before() -> None:
    house, now = played("stable", until_days=80.0)
    rows = learnable(house.log(), now, 14 * DAY)
    log = house.log()
    broken = replace(log, promise=np.where(log.at > log.at[600], log.promise + 500.0, log.promise))
    assert abs(changed(past(house, broken), rows) or 0) == pytest.approx(int(log.at[600]), abs=3 * DAY)
    assert changed(replace(past(house, broken), champion="another", since=7), rows) == 7


def test_a_model_that_is_kept_is_the_pipelines(tmp_path: Path) -> None:
    house, now = played("stable", until_days=30.0)
    made, model = retrain(past(house), now, tmp_path)
    assert made.name == model.id
    assert made.verdict in ("deploy", "refuse")
    assert len(list(tmp_path.glob("loans-stable/*/bundle"))) == 1
    assert not (tmp_path / "loans-stable" / "latest").exists(), "a service begins with what somebody ran"


def test_the_users_own_model_is_learnt_by_the_pipeline(tmp_path: Path) -> None:
    tape = small("stable")
    train = tape.case.train.model_copy(update={"model": ("tests.loop.test_retraining:forest",)})
    model = learnt(tape.case.model_copy(update={"train": train}), tape.history)
    assert model.id.startswith("loans-stable@")


def forest() -> object:
    """Return a model of scikit-learn, as a user would name one."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(5, max_depth=3, random_state=0)


def test_too_few_rows_are_refused_as_they_are_by_a_run() -> None:
    tape = quick(of_stream(stream("stable", 0, n=300, history=30)))
    with pytest.raises(DataError, match="at least"):
        learnt(tape.case, tape.history)


def test_a_run_without_a_bundle_is_refused() -> None:
    from makegood.contracts import Run

    empty = Run("loans", "r1", Path(), None, None, 0.0, None)
    with pytest.raises(Refused, match="run r1: got 'no bundle'"):
        retraining._bundle(empty)
