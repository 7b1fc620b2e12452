"""The costliest mistakes of a real run, against what a reader would count by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
from sklearn.datasets import load_digits

from makegood.case import Case
from makegood.contracts import Quantiles
from makegood.stages.learn import Trials, learn_all
from makegood.stages.mistakes import costliest
from makegood.stages.prepare import Prepared, prepare_rows

CASE = """
case: digits
data: {source: digits, outcome: digit, type: classes, image: {size: [8, 8], channels: 1}}
decision:
  unit: EUR
  actions:
    read 1: {payoff: -3 * (outcome != "1")}
    read 7: {payoff: -3 * (outcome != "7")}
    read 8: {payoff: -3 * (outcome != "8")}
    read 9: {payoff: -3 * (outcome != "9")}
    person: {payoff: -0.5}
train: {budget: 3s, families: linear}
"""


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Trials]:
    folder = tmp_path_factory.mktemp("mistakes")
    digits = load_digits()
    for i in np.flatnonzero(np.isin(digits.target, (1, 7, 8, 9)))[:400]:
        place = folder / "digits" / str(digits.target[i])
        place.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.rint(digits.images[i] * (255 / 16)).astype(np.uint8)).save(place / f"{i}.png")
    (folder / "digits" / "1" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    prepared = prepare_rows(Case.parse(CASE, folder=folder))
    return prepared, learn_all(prepared, (), lambda stage, done: None)


def test_they_are_the_rows_that_lost_most_against_hindsight(learnt: tuple[Prepared, Trials]) -> None:
    prepared, trials = learnt
    held = trials.held
    found = costliest(prepared, trials)
    assert found is not None
    regret = held.realised.max(axis=1) - held.payoff
    assert (found.unit, found.n, found.count) == ("EUR", 401, int((regret > 0).sum()))
    assert found.total == pytest.approx(regret.sum())
    assert [m.loss for m in found.costliest] == sorted(regret, reverse=True)[:12]
    assert found.costliest[-1].loss > 0
    for loss in {m.loss for m in found.costliest}:
        told = [m.p_outcome for m in found.costliest if m.loss == loss]
        assert told == sorted(told)
    # every outcome and every picture is that of the row: what the table says, the policy was valued on
    rows = np.concatenate([fold.test for fold in prepared.splits.folds])
    assert (prepared.outcome.values[rows] == held.outcome).all()
    where = {place: row for row, place in enumerate(prepared.table["path"].to_pylist())}
    for mistake in found.costliest:
        row = where[mistake.place]
        assert mistake.outcome == mistake.place.partition("/")[0] == str(prepared.table["digit"][row].as_py())
        stored = prepared.table["image"][row].as_py()
        assert mistake.image is None if stored is None else mistake.image is not None and mistake.image.tobytes() == stored
        assert mistake.best == f"read {mistake.outcome}"
        assert mistake.action != mistake.best
        assert 0 <= mistake.p_outcome <= mistake.p_predicted <= 1
        paid = {"person": 0.5}.get(mistake.action, 3.0)
        assert mistake.loss == pytest.approx(paid)


def test_no_more_are_shown_than_asked_for(learnt: tuple[Prepared, Trials]) -> None:
    found, one, every = (costliest(*learnt, shown=n) for n in (12, 1, 10_000))
    assert found is not None
    assert one is not None
    assert every is not None
    assert (one.count, one.total, one.costliest[0].place) == (found.count, found.total, found.costliest[0].place)
    assert len(every.costliest) == every.count
    assert sum(m.loss for m in every.costliest) == pytest.approx(every.total)
    assert {m.place for m in every.costliest if m.image is None} <= {"1/torn.png"}


def test_an_image_that_could_not_be_read_has_no_picture(learnt: tuple[Prepared, Trials]) -> None:
    prepared, trials = learnt
    held = trials.held
    row = prepared.table["path"].to_pylist().index("1/torn.png")
    at = int(np.flatnonzero(np.concatenate([fold.test for fold in prepared.splits.folds]) == row)[0])
    worse = held.realised.copy()
    worse[at, held.choices.option[at]] = -99.0
    found = costliest(prepared, replace(trials, held=replace(held, realised=worse)))
    assert found is not None
    assert (found.costliest[0].place, found.costliest[0].image) == ("1/torn.png", None)


def test_an_interrupted_run_shows_the_folds_that_it_has(learnt: tuple[Prepared, Trials]) -> None:
    prepared, trials = learnt
    held, n = trials.held, len(prepared.splits.folds[0].test)
    first = replace(
        held,
        predictive=replace(held.predictive, p=held.predictive.p[:n]),  # type: ignore[union-attr,call-arg]
        outcome=held.outcome[:n],
        choices=replace(held.choices, option=held.choices.option[:n]),
        realised=held.realised[:n],
    )
    found = costliest(prepared, replace(trials, held=first), shown=1000)
    assert found is not None
    assert found.n == n
    tested = {prepared.table["path"][int(row)].as_py() for row in prepared.splits.folds[0].test}
    assert {m.place for m in found.costliest} <= tested


def test_where_nothing_was_lost_there_is_nothing_to_show(learnt: tuple[Prepared, Trials]) -> None:
    prepared, trials = learnt
    held = trials.held
    same = np.full_like(held.realised, 0.1) * 3  # equal in every option, and no round number
    same[:, 0] = 0.3
    found = costliest(prepared, replace(trials, held=replace(held, realised=same)))
    assert found is not None
    assert (found.count, found.total, found.costliest) == (0, 0.0, ())


def test_a_number_is_shown_by_its_median(learnt: tuple[Prepared, Trials]) -> None:
    prepared, trials = learnt
    held = trials.held
    q = np.tile([1.0, 2.5, 4.0], (len(held), 1))
    number = replace(held, predictive=Quantiles((0.1, 0.5, 0.9), q), outcome=held.outcome * 1.25)
    found = costliest(prepared, replace(trials, held=number))
    assert found is not None
    assert {m.predicted for m in found.costliest} == {"2.5"}
    assert {m.outcome for m in found.costliest} <= {"0", "1.25", "2.5", "3.75"}
    assert all(math.isnan(m.p_outcome) and math.isnan(m.p_predicted) for m in found.costliest)


def test_a_table_without_images_has_none(learnt: tuple[Prepared, Trials], tmp_path: Path) -> None:
    prepared, trials = learnt
    bare: Any = replace(prepared, source=replace(prepared.source, table=pa.table({"x": [1]})))
    assert costliest(bare, trials) is None
