"""A new model out of the history and of what the ledger has seen since: only of decisions whose outcome is known and due.

What came before a change of the world may teach the wrong thing, or may be most of what there is to learn from. Which of the two is decided
in money: a model of all rows and one of those since the change are tried on the latest rows, which neither has seen, and the better one is
made anew with these rows too.
"""

from __future__ import annotations

import base64
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from makegood import bundle, pipeline
from makegood import model as models
from makegood.case import Case
from makegood.contracts import Bools, Floats, Ints, Run
from makegood.data.prepare import raw_columns
from makegood.errors import DataError, Problem, Refused
from makegood.loop.house import Retrained
from makegood.loop.tape import moments
from makegood.stages.learn import learn_all
from makegood.stages.observe import Log
from makegood.stages.prepare import prepare_rows
from makegood.workspace import Workspace

FEWEST = 400
"""Rows since a change, below which a model of them alone is not tried."""

_FEW = "The rows since the change are too few to learn from alone."

HELD = 0.3
"""The share of the rows since the change, the latest, on which the two are compared."""

JUMP = 4.0
"""By how many standard errors the money must jump for a change to be looked for there: by chance the largest of all rarely does."""


def learnable(log: Log, now: int, delay_us: int) -> Ints:
    """Return the positions of the decisions that may be learnt from: due by now, with an outcome that is known and inputs that are kept.

    One whose outcome came early waits until it is due: what comes early may be of one kind.
    """
    rows = (log.at <= now - delay_us) & (log.known_at <= now) & ~np.isnan(log.outcome) & log.readable
    return np.flatnonzero(rows)


def table(case: Case, history: pa.Table, log: Log, rows: Ints) -> pa.Table:
    """Return the history, and after it decisions of the log with the last word on their outcome, in the history's columns and types.

    What the log does not keep is null, but for the time of the decision and whom it is about. Raises `Refused` where there is no history
    and no decision.
    """
    if not len(rows):
        return history
    kept, data = log.rows(rows), case.data
    said = log.outcome[rows]
    outcome = [log.classes[int(code)] for code in said] if log.classes else said.tolist()
    columns: dict[str, pa.Array] = {}
    for field in history.schema:
        if field.name == data.outcome:
            columns[field.name] = _typed(outcome, field.type)
        elif field.name == data.time:
            columns[field.name] = (
                pa.array(log.at[rows], pa.timestamp("us", tz="UTC")).cast(_moment(field.type), safe=False).cast(field.type)
            )
        elif field.name in kept:
            columns[field.name] = _typed(kept[field.name], field.type)
        elif field.name == data.group:
            columns[field.name] = _typed([f"unit {code}" for code in log.entity[rows].tolist()], field.type)
        else:
            columns[field.name] = pa.nulls(len(rows), field.type)
    schema = pa.schema(list(history.schema))  # with what fields say of themselves, such as the shape of pictures
    return pa.concat_tables([history.cast(schema), pa.table(columns, schema=schema)])


def _moment(kind: pa.DataType) -> pa.DataType:
    """Return the timestamp by way of which a time is written as `kind`."""
    return pa.timestamp("us", tz=kind.tz) if pa.types.is_timestamp(kind) else pa.timestamp("us")


def _typed(values: Any, kind: pa.DataType) -> pa.Array:
    """Return values of a log, which may have come as JSON, as a column of a table; NaN is null, and a picture may be in base64."""
    if pa.types.is_binary(kind):
        cells = values.tolist() if isinstance(values, np.ndarray) else list(values)
        return pa.array([base64.b64decode(cell) if isinstance(cell, str) else cell for cell in cells], kind)
    made = pa.array(values, from_pandas=True)
    return made if made.type == kind else made.cast(kind, safe=False)


def turned(z: Floats, least: int = FEWEST) -> int | None:
    """Return the position in `z` (n,) from which on its mean is another, by the largest jump; None where no jump stands out.

    The place k that maximises |mean after − mean before|·√(k(n − k)/n)/σ, at least `least` from either end (Page 1955; Hinkley 1970): where
    a change is likeliest, which a held-out comparison then has to confirm.

    >>> turned(np.append(np.tile([-1.0, 1.0], 300), np.tile([2.0, 4.0], 300)), least=50)
    600
    """
    n = len(z)
    if n < 2 * least:
        return None
    k = np.arange(least, n - least + 1)
    total = np.cumsum(z)
    before = total[k - 1] / k
    after = (total[-1] - total[k - 1]) / (n - k)
    spread = float(np.std(np.diff(z))) / np.sqrt(2.0)  # of neighbours: a jump between them is one of many
    if not spread > 0.0:
        return None
    jump = np.abs(after - before) * np.sqrt(k * (n - k) / n) / spread
    best = int(np.argmax(jump))
    return int(k[best]) if jump[best] > JUMP else None


@dataclass(frozen=True)
class Past:
    """What there is to learn from: a case's `history`, the log, the champion by name, and since when its own rows were, where a change had
    already been found then (`since`)."""

    case: Case
    history: pa.Table
    log: Log
    champion: str
    since: int | None = None


def retrain(past: Past, now: int, workspace: Path | None, *, plain: bool = False) -> tuple[Retrained, models.Model]:
    """Return a new model of the rows that serve it best; `plain`: of all of them.

    It is made as `pipeline.run` makes it in a workspace, or without one by the same learning alone, which has no verdict and is kept
    nowhere. Raises as `pipeline.run` does.
    """
    began = time.perf_counter()
    case, log = past.case, past.log
    rows = learnable(log, now, round(case.data.outcome_delay * 1e6))
    every = table(case, past.history, log, rows)
    words = f"Made of {every.num_rows:,} rows."
    cut = None if plain else changed(past, rows)
    if cut is not None and case.data.time is not None:
        fresh, why = _contest(case, every, cut)
        try:
            if fresh is not None:
                made = _made(case, fresh, workspace)
                said = f"Made of {fresh.num_rows:,} rows. {why}"
                return Retrained(made.id, fresh.num_rows, cut, made.verdict, said, time.perf_counter() - began), made
        except DataError:
            why = _FEW
        words = f"{words} {why}".rstrip()
    made = _made(case, every, workspace)
    return Retrained(made.id, every.num_rows, None, made.verdict, words, time.perf_counter() - began), made


def _made(case: Case, rows: pa.Table, workspace: Path | None) -> models.Model:
    if workspace is None:
        return learnt(case, rows)
    return models.load(_bundle(pipeline.run(case, data=rows, workspace=Workspace(workspace, aside=True))))


def learnt(case: Case, rows: pa.Table) -> models.Model:
    """Return the model that `pipeline.run` would make of these rows, without a verdict and not kept: what is only compared needs neither.

    Raises `CaseError` or `DataError` as it does.
    """
    if case.train.model or case.train.pretrained:  # the user's own, which the pipeline brings
        with tempfile.TemporaryDirectory() as folder:
            return models.load(_bundle(pipeline.run(case, data=rows, workspace=folder, until="bundle")))
    made = learn_all(prepare_rows(case, rows), (), lambda stage, done: None).model
    content = made.scorer.model + bundle.dump_json(made.transform.to_json()) + bundle.dump_json(made.policy.to_json())
    return replace(made, id=f"{case.case}@{bundle.sha256(content)[:12]}")


def changed(past: Past, rows: Ints) -> int | None:
    """Return the time from which on the champion's decisions paid otherwise against their promise, else that of the change before."""
    log = past.log
    mine = log.model[rows] == (log.names.index(past.champion) if past.champion in log.names else -1)
    seen = rows[mine & ~np.isnan(log.paid[rows]) & (log.done[rows] == log.decided[rows])]
    place = turned(log.promise[seen] - log.paid[seen])
    return past.since if place is None else int(log.at[seen[place]])


def _contest(case: Case, every: pa.Table, cut: int) -> tuple[pa.Table | None, str]:
    """Return the rows since a change where a model of them alone earned more than one of all on the latest, else None; and why."""
    at = moments(every[case.data.time], "data.time")
    late: Bools = at >= cut
    if late.sum() < 2 * FEWEST:
        return None, ""
    start = int(np.quantile(at[late], 1.0 - HELD))
    before = at < start
    held = every.filter(pa.array(at >= start))
    if (late & before).sum() < FEWEST:
        return None, ""
    told = case.model_copy(update={"data": case.data.model_copy(update={"outcome_delay": 0.0})})  # all of it is known by now
    earned = []
    for part in (before, late & before):
        try:
            earned.append(_earned(learnt(told, every.filter(pa.array(part))), held, case.data.outcome))
        except DataError:
            return None, _FEW
    apart = earned[1] - earned[0]
    gain, unit = float(apart.mean()), case.decision.unit
    if gain > float(apart.std()) / np.sqrt(len(apart)):  # within one standard error the larger table is the safer choice
        words = (
            f"The {int(late.sum()):,} rows since the change teach more than all: {gain:.3g} {unit} a decision on the latest rows, held out."
        )
        return every.filter(pa.array(late)), words
    words = "The rows since the change alone are not shown to teach more than all"
    return None, f"{words}: {gain:.3g} {unit} a decision on the latest rows, held out."


def _earned(made: models.Model, held: pa.Table, outcome: str) -> Floats:
    """Return what a model's decisions on held-out rows pay (n,)."""
    raw = raw_columns(held.drop_columns([outcome]))
    option = made.decide_columns(raw, reasons=0).choices.option
    return np.asarray(made.realised(raw, held[outcome].to_pylist())[np.arange(len(option)), option])


def _bundle(done: Run) -> Path:
    if done.bundle is None:
        raise Refused(Problem(f"run {done.id}", "no bundle", "a run that makes one", "see its folder"))
    return done.bundle
