"""The whole loop on small tables: what a run finds, refuses, writes, and decides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression
from tests.loops import LOANS, loans, stock, written
from torch import nn

import makegood as mg
from makegood import pipeline
from makegood.case import Case
from makegood.contracts import Run
from makegood.data import splits
from makegood.errors import BundleError, CaseError, DataError, Refused
from makegood.model import load

TODAY = {"unit: EUR": "unit: EUR\n  today: done"}


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("space")


@pytest.fixture(scope="module")
def case(space: Path) -> Path:
    return written(space, loans())


@pytest.fixture(scope="module")
def done(case: Path, space: Path) -> Run:
    return pipeline.run(case, workspace=space / "runs")


@pytest.fixture(scope="module")
def refused(space: Path) -> Run:
    frame = loans()
    frame["bad"] = frame["bad"].sample(frac=1, random_state=3).to_numpy()
    return pipeline.run(written(space / "shuffled", frame, replace={"case: loans": "case: shuffled"}), workspace=space / "runs")


# -------------------------------------------------------------------------------------------------------------------- run


def test_a_useful_model_ends_in_deploy_with_everything_in_the_runs_folder(done: Run, space: Path) -> None:
    assert done.evaluation is not None
    assert done.evaluation.verdict == "deploy"
    assert done.gain is not None
    assert done.gain.low is not None
    assert done.gain.low > 0
    assert done.bundle is not None
    assert done.report is not None
    assert done.report.is_absolute()
    assert done.report.read_text(encoding="utf-8").startswith("<!")
    assert load(done.bundle).verdict == "deploy"
    assert {p.name for p in done.folder.iterdir()} == {
        *("case.json", "prepare.json", "train.json", "evaluate.json", "run.json"),
        *("bundle", "report.html"),
    }
    assert pipeline.last_run("loans", space / "runs").resolve() == done.folder


def test_the_bundle_says_what_the_rows_that_it_was_judged_on_were_like(done: Run) -> None:
    assert done.bundle is not None
    assert done.evaluation is not None
    model = load(done.bundle)
    assert model.reference is not None
    assert {c.column for c in model.reference.columns} == {*model.transform.inputs, ""}
    assert model.reference.n == done.evaluation.n["test"]
    assert model.reference.promise == pytest.approx(done.evaluation.promised.value)
    kept, gap = model.reference.kept, done.evaluation.gap
    assert kept is not None
    assert (kept.gap, kept.low, kept.high) == pytest.approx((gap.value, gap.low, gap.high))
    assert kept.room > 0


def test_every_stage_names_the_fingerprints_of_what_it_was_made_from(done: Run) -> None:
    stages = ["case", "prepare", "train", "evaluate"]
    for i, stage in enumerate(stages):
        made_from = json.loads((done.folder / f"{stage}.json").read_text(encoding="utf-8"))["made_from"]
        assert list(made_from) == ["data", *stages[:i]]


def test_summary_is_valid_json_and_says_what_the_run_found(done: Run) -> None:
    said = json.loads(json.dumps(pipeline.summary(done), allow_nan=False))
    assert {*"case run bundle report seconds value baselines gain metrics verdict why n".split()} <= said.keys()
    assert set(said["baselines"]) == {"always approve", "always decline"}
    assert said["opened"] == 1


def test_names_with_spaces_dashes_and_chinese_are_columns_like_others(done: Run) -> None:
    names = {c["name"] for c in json.loads((done.folder / "prepare.json").read_text(encoding="utf-8"))["columns"]}
    assert {"loan amount", "credit-score", "收入"} <= names
    assert done.bundle is not None
    decision = load(done.bundle).decide({"loan amount": 1000, "credit-score": -3, "收入": 2000, "sex": "f"})
    assert decision.action == "decline"
    assert decision.reasons[0].column == "credit-score"


def test_a_payoff_of_a_chinese_name_needs_a_column_of_that_name(tmp_path: Path) -> None:
    assert pipeline.check(written(tmp_path, loans(), replace={"`loan amount`": "`收入`"})).ok
    (problem,) = pipeline.check(written(tmp_path, loans(), replace={"`loan amount`": "`收人`"})).problems[:1]
    assert "收人" in str(problem)


def test_test_rows_opened_twice_are_judged_more_strictly(done: Run, case: Path, space: Path) -> None:
    again = pipeline.run(pipeline.override(case, seed=5), workspace=space / "runs", until="evaluate")
    assert again.evaluation is not None
    assert again.evaluation.opened == 2
    assert again.evaluation.level == pytest.approx(0.975)
    assert again.bundle is None
    assert again.report is None


def test_a_shuffled_outcome_ends_in_refuse(refused: Run) -> None:
    assert refused.evaluation is not None
    assert refused.evaluation.verdict == "refuse"
    assert refused.evaluation.why


def test_a_copy_of_the_outcome_is_named_and_excluded_until_keep_vouches_for_it(tmp_path: Path) -> None:
    frame = loans().assign(settled=lambda t: np.where(t["bad"] == "yes", "late", "paid"))
    found = pipeline.check(written(tmp_path, frame))
    assert found.ok
    assert [f.column for f in found.leaks] == ["settled"]
    assert [leak["column"] for leak in found.to_json()["leaks"]] == ["settled"]
    prepared = pipeline.prepare_rows(mg.Case.load(tmp_path / "case.yaml"))
    assert "settled" in prepared.excluded
    kept = written(tmp_path, frame, replace={"outcome: bad": "outcome: bad, keep: settled"})
    prepared = pipeline.prepare_rows(mg.Case.load(kept))
    assert "settled" not in prepared.excluded
    assert "settled" in prepared.transform(prepared.known).inputs


def test_a_time_forbids_a_random_split(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=300).strftime("%Y-%m-%d")
    timed = mg.Case.load(written(tmp_path, loans().assign(day=days), replace={"outcome: bad": "outcome: bad, time: day"}))
    done = pipeline.run(timed, workspace=tmp_path / "runs", until="train")
    assert done.split["method"] == "time"
    assert done.split["folds"] == 1
    assert done.evaluation is None
    prepared = pipeline.prepare_rows(timed)
    with pytest.raises(CaseError, match="a split out of time, since 'day' is declared; a random one would learn from the future"):
        splits.make(prepared.outcome, timed, prepared.table, method="stratified")


def test_rows_of_a_group_stay_together_and_protected_columns_are_compared(tmp_path: Path) -> None:
    frame = loans().assign(client=np.arange(300) // 4)
    case = written(tmp_path, frame, replace={"outcome: bad": "outcome: bad, group: client, protected: sex"})
    done = pipeline.run(case, workspace=tmp_path / "runs", until="bundle")
    assert done.bundle is not None
    assert done.report is None
    assert "rows of one client together" in done.split["detail"]
    reasons = load(done.bundle).decide({"loan amount": 900, "credit-score": 1, "收入": 1000, "sex": "f"}, reasons=5).reasons
    assert "sex" not in {r.column for r in reasons}


def test_until_prepare_trains_nothing(case: Path, tmp_path: Path) -> None:
    shown: list[str] = []
    done = pipeline.run(case, workspace=tmp_path, until="prepare", progress=lambda stage, share: shown.append(stage))
    assert shown == ["prepare", "done"]
    assert done.value is None
    assert {p.name for p in done.folder.iterdir()} == {"case.json", "prepare.json", "run.json"}
    assert "verdict" not in pipeline.summary(done)


@pytest.mark.parametrize("make", [pd.DataFrame, lambda frame: pl.DataFrame(frame.to_dict("list"))], ids=["pandas", "polars"])
def test_a_frame_and_a_wrapped_estimator_take_the_place_of_file_and_families(make: Any, tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=300).strftime("%Y-%m-%d").to_numpy()
    text = LOANS.replace("source: loans.csv, outcome: bad", "outcome: bad, time: day").replace("linear", "constant")
    own = [mg.wrap(LogisticRegression(max_iter=500)), mg.wrap(nn.LazyLinear(2), name="network", recipe={"epochs": 5})]
    done = mg.run(mg.Case.parse(text), data=make(loans().assign(day=days)), candidates=own, workspace=tmp_path, until="bundle")
    assert done.evaluation is not None
    assert {"constant", "LogisticRegression", "network"} <= {c["name"] for c in done.evaluation.candidates}
    assert done.bundle is not None
    assert (
        load(done.bundle).decide({"loan amount": 100, "credit-score": -3, "收入": 10, "sex": "f", "day": "2025-01-01"}).action == "decline"
    )


def test_two_candidates_of_one_name_are_told_before_any_training(case: Path, tmp_path: Path) -> None:
    own = [mg.wrap(LogisticRegression()), mg.wrap(LogisticRegression(C=2.0))]
    with pytest.raises(CaseError) as error:
        mg.run(case, candidates=own, workspace=tmp_path)
    expected = "candidates: got 'LogisticRegression'; expected a name of its own for each candidate; give mg.wrap(…, name=…)"
    assert str(error.value) == expected


def test_what_is_done_today_may_be_a_column(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=300).strftime("%Y-%m-%d").to_numpy()
    frame = loans().assign(done=np.where(np.arange(300) % 3 == 0, "decline", "approve"), day=days)
    timed = {**TODAY, "outcome: bad": "outcome: bad, time: day"}
    done = pipeline.run(written(tmp_path, frame, replace=timed), workspace=tmp_path / "runs", until="evaluate")
    assert done.evaluation is not None
    assert "today" in done.evaluation.baselines
    (problem,) = pipeline.check(written(tmp_path, frame.replace("approve", "accept"), replace=TODAY)).problems
    assert (problem.where, problem.got) == ("decision.today", "accept")
    (problem,) = pipeline.check(written(tmp_path, loans(), replace=TODAY)).problems
    assert problem.where == "decision.today"
    assert problem.got == "done"


def test_a_quantity_is_chosen_for_a_number_outcome(tmp_path: Path) -> None:
    text = """
case: bakery
data: {outcome: sold, time: day}
decision:
  unit: EUR
  today: "stock=100"
  actions:
    stock:
      quantity: {min: 0, max: 240, step: 20}
      payoff: 3.2 * min(quantity, outcome) - 1.9 * quantity
train: {budget: 1s, families: linear}
"""
    days = pd.date_range("2024-01-01", periods=300).strftime("%Y-%m-%d")
    done = pipeline.run(mg.Case.parse(text), data=stock().assign(day=days), workspace=tmp_path / "runs")
    assert done.evaluation is not None
    assert done.evaluation.verdict == "deploy"
    rows, out = tmp_path / "rows.csv", tmp_path / "out.csv"
    stock(5, seed=1).drop(columns="sold").assign(day="2025-01-01").to_csv(rows, index=False)
    told = pipeline.decide_file("bakery", rows, out, workspace=tmp_path / "runs")
    assert told.n == 5
    assert pd.read_csv(out)["quantity"].between(0, 240).all()


def test_figures_that_are_not_finite_become_null(done: Run) -> None:
    assert done.evaluation is not None
    odd = replace(done.evaluation, curve=((float("nan"), np.float64(1.5)),), n={"test": np.int64(3)})  # type: ignore[dict-item]
    said = pipeline.asdict_json(odd)
    assert said["curve"] == [[None, 1.5]]
    assert said["n"] == {"test": 3}
    json.dumps(said, allow_nan=False)


# ------------------------------------------------------------------------------------------------------------------ wrong


def test_an_unknown_stage_is_named(case: Path) -> None:
    with pytest.raises(
        CaseError, match="--until: got 'reprot'; expected one of prepare, train, evaluate, optimise, bundle, report; did you mean 'report'"
    ):
        pipeline.run(case, until="reprot")


def test_an_unknown_case_is_named_with_the_nearest() -> None:
    with pytest.raises(CaseError, match=r"case: got 'credit-rsk'.*did you mean 'credit-risk'"):
        pipeline.run("credit-rsk")
    with pytest.raises(CaseError, match="a readable case file"):
        pipeline.run("absent.yaml")
    found = pipeline.check("absent.yaml")
    assert not found.ok
    assert found.case == "absent.yaml"


@pytest.mark.parametrize(("budget", "message"), [("soon", "a duration such as 60s"), ("0", "expected more than no time")])
def test_a_bad_budget_is_refused(case: Path, budget: str, message: str) -> None:
    with pytest.raises(CaseError, match=f"--budget: got '{budget}'; .*{message}"):
        pipeline.override(case, budget=budget)


def test_budget_and_seed_override_the_case(case: Path) -> None:
    changed = pipeline.override(case, budget="2m", seed=9)
    assert (changed.train.budget, changed.train.seed) == (120.0, 9)
    assert pipeline.override("diagnosis").case == "diagnosis"
    assert pipeline.override(str(case)).train.budget == 1.0


def test_a_case_without_a_source_needs_a_table() -> None:
    with pytest.raises(CaseError, match=r"data.source: got 'nothing'; expected a file, builtin:NAME, or a table passed as data="):
        mg.run(mg.Case.parse(LOANS.replace("source: loans.csv, ", "")))


def test_check_warns_without_stopping(tmp_path: Path) -> None:
    frame = loans()
    frame.loc[:4, "bad"] = None
    found = mg.check(written(tmp_path, frame))
    assert found.ok
    assert {p.severity for p in found.problems} <= {"warning"}
    assert found.split["method"] == "crossfit"
    assert mg.check(mg.Case.load(tmp_path / "case.yaml")).case == "loans"


def test_a_payoff_without_a_value_is_found_before_training(tmp_path: Path) -> None:
    frame = loans()
    frame.loc[7, "loan amount"] = None
    assert not pipeline.check(written(tmp_path, frame)).ok
    numbers = LOANS.replace("{no: 0.1 * `loan amount`, yes: -0.5 * `loan amount`}", "log(0 * outcome)").replace("bad", "收入")
    assert not pipeline.check(written(tmp_path, loans(), numbers)).ok


class Interrupt:
    """Progress that is interrupted when it is told a stage."""

    def __init__(self, at: str) -> None:
        self.at, self.shown = at, list[str]()

    def __call__(self, stage: str, share: float) -> None:
        self.shown.append(stage)
        if stage == self.at:
            raise KeyboardInterrupt


def test_ctrl_c_before_a_round_has_anything_keeps_the_rounds_before(case: Path, tmp_path: Path) -> None:
    progress = Interrupt("train, round 3 of 11: constant, fold 1 of 5")
    done = pipeline.run(case, workspace=tmp_path, until="bundle", progress=progress)
    assert done.evaluation is not None
    assert done.evaluation.n["test"] == pytest.approx(60, abs=4)
    assert json.loads((done.folder / "train.json").read_text(encoding="utf-8"))["interrupted"]
    assert not any("round 4" in stage for stage in progress.shown)
    assert done.bundle is not None
    load(done.bundle)


def test_ctrl_c_before_anything_is_learnt_ends_the_run(case: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(case, workspace=tmp_path, progress=Interrupt("train, round 1 of 11: constant, fold 1 of 5"))


# ----------------------------------------------------------------------------------------------------------------- decide


def test_batch_file_and_single_decisions_are_the_same(done: Run, space: Path, tmp_path: Path) -> None:
    frame = loans(40, seed=9).drop(columns="bad")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    for out in ("out.csv", "out.parquet"):
        told = pipeline.decide_file("loans", tmp_path / "rows.csv", tmp_path / out, workspace=space / "runs")
    assert done.bundle is not None
    model = load(done.bundle)
    rows = frame.to_dict("records")
    batch, single = model.decide(rows), [model.decide(row) for row in rows]
    file = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [d.action for d in batch] == [d.action for d in single] == [r["action"] for r in file]
    assert [d.promise for d in batch] == [d.promise for d in single] == [r["promise"] for r in file]
    assert [d.promise for d in batch] == pl.read_csv(tmp_path / "out.csv")["promise"].to_list()
    assert [d.predictive["yes"] for d in batch] == [d.predictive["yes"] for d in single] == [r["p_yes"] for r in file]
    assert sum(told.actions.values()) == told.n == 40
    assert told.promised == pytest.approx(sum(d.promise for d in batch))
    assert all(r["reasons"].count("=") >= 2 for r in file)
    assert [r["row"] for r in file] == list(range(1, 41))


def test_limits_hold_exactly_on_the_rows_of_a_file(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=300).strftime("%Y-%m-%d").to_numpy()
    limited = {"    decline: {payoff: 0}": "    decline: {payoff: 0}\n  limits: {approve: {max_share: 0.25}}"}
    text = {**limited, "outcome: bad": "outcome: bad, time: day"}
    pipeline.run(written(tmp_path, loans().assign(day=days), replace=text), workspace=tmp_path / "runs", until="bundle")
    loans(80, seed=4).drop(columns="bad").assign(day="2025-03-01").to_csv(tmp_path / "rows.csv", index=False)
    told = pipeline.decide_file("loans", tmp_path / "rows.csv", tmp_path / "out.csv", workspace=tmp_path / "runs", force=True)
    assert told.actions["approve"] == 20


def test_a_refused_model_decides_only_when_forced(refused: Run, space: Path, tmp_path: Path) -> None:
    loans(10).drop(columns="bad").assign(extra=1).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(Refused, match="verdict refuse'; expected a model that beats every baseline; see its report, or --force"):
        pipeline.decide_file("shuffled", tmp_path / "rows.csv", tmp_path / "out.csv", workspace=space / "runs")
    assert not (tmp_path / "out.csv").exists()
    told = pipeline.decide_file(str(refused.bundle), tmp_path / "rows.csv", tmp_path / "out.csv", force=True)
    assert told.to_json()["n"] == 10
    assert any("columns that the model does not know were ignored: extra" in note for note in told.notes)


def test_many_rows_come_without_reasons_and_say_so(done: Run, space: Path, tmp_path: Path) -> None:
    loans(1_001).drop(columns="bad").to_csv(tmp_path / "rows.csv", index=False)
    told = pipeline.decide_file("loans", tmp_path / "rows.csv", tmp_path / "out.csv", workspace=space / "runs")
    assert "reasons are left out: there are more than 1,000 rows" in told.notes
    assert "reasons" not in pd.read_csv(tmp_path / "out.csv").columns


def test_decisions_go_to_a_csv_or_a_parquet_that_can_be_written(done: Run, tmp_path: Path) -> None:
    loans(5).drop(columns="bad").to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(CaseError, match=r"--out: got 'out.txt'; expected a file that ends in .csv or .parquet"):
        pipeline.decide_file("loans", tmp_path / "rows.csv", Path("out.txt"))
    with pytest.raises(CaseError, match=r"--out: got .*expected a file in a folder that exists; make the folder .*absent first"):
        pipeline.decide_file(str(done.bundle), tmp_path / "rows.csv", tmp_path / "absent" / "out.csv")
    (tmp_path / "taken.csv").mkdir()
    with pytest.raises(CaseError, match=r"--out: got .*expected a file that can be written"):
        pipeline.decide_file(str(done.bundle), tmp_path / "rows.csv", tmp_path / "taken.csv")


def test_rows_of_one_column_can_be_decided(done: Run, tmp_path: Path) -> None:
    loans(5)[["loan amount"]].to_csv(tmp_path / "rows.csv", index=False)
    told = pipeline.decide_file(str(done.bundle), tmp_path / "rows.csv", tmp_path / "out.csv")
    assert told.n == 5


def test_a_folder_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match=r"empty.manifest\.json: got 'no such file'; expected a complete bundle"):
        pipeline.decide_file(str(tmp_path / "empty"), tmp_path / "rows.csv", tmp_path / "out.csv", workspace=tmp_path)


def test_words_that_payoffs_reserve(tmp_path: Path) -> None:
    found = pipeline.check(written(tmp_path, loans().assign(quantity=1.0)))
    assert found.ok
    assert any("Payoffs cannot use the column 'quantity'" in problem.got for problem in found.problems)
    text = "case: stock\ndata: {outcome: sold}\ndecision: {unit: EUR, actions: {a: {payoff: sold - 20}, b: {payoff: 0}}}"
    found = pipeline.check(Case.parse(text), data=stock())
    assert "got 'sold'; expected the word outcome; payoffs call what turns out `outcome`" in str(found.problems[0])


def test_a_file_without_a_column_that_payoffs_need_is_refused(done: Run, tmp_path: Path) -> None:
    loans(5).drop(columns=["bad", "loan amount"]).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(DataError, match="loan amount"):
        pipeline.decide_file(str(done.bundle), tmp_path / "rows.csv", tmp_path / "out.csv")


def test_the_last_run_is_found_by_the_case_file_too(done: Run, case: Path, space: Path) -> None:
    assert pipeline.last_run(str(case), space / "runs") == pipeline.last_run("loans", space / "runs")
    with pytest.raises(CaseError, match="expected a case that was run; did you mean 'loans'"):
        pipeline.last_run("laons", space / "runs")
