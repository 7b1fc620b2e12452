"""The optimise stage on real training: a justified choice, on rows that nobody learnt from, that loses neither latency nor value."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.loops import loans, written
from tests.queues import CASE, requests

import makegood as mg
from makegood import cases, pipeline
from makegood.case import Case
from makegood.contracts import Estimate, Run
from makegood.economics.compute import Prices
from makegood.economics.variants import NOISE, Measured, Optimised, Speed, Terms, Variant, choose
from makegood.errors import CaseError
from makegood.families.smaller import Recipe, Start, table
from makegood.golden import json_cell
from makegood.model import Model, pack
from makegood.scorer import Scorer
from makegood.stages import footprint, meter
from makegood.stages.learn import Trials, learn_all
from makegood.stages.measuring import measure
from makegood.stages.optimise import Search, judged, optimise, terms
from makegood.stages.prepare import Prepared, prepare_rows

TRAIN = "train: {budget: 1s, families: linear}"
FAST = "train: {budget: 60s, families: linear}\noptimise: {budget: 100s, tolerance: 20}"
QUIET = {TRAIN: FAST, "serve: {reasons: 2}\n": ""}


def silent(stage: str, done: float) -> None:
    """Show nothing."""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("optimised")
    return pipeline.run(written(folder, loans(), replace=QUIET), workspace=folder / "runs")


def told(run: Run) -> Any:
    return json.loads((run.folder / "optimise.json").read_text(encoding="utf-8"))


def rejudged(found: Any) -> tuple[tuple[Variant, ...], str]:
    """Choose again from the figures that a run wrote down."""

    def variant(v: Any) -> Variant:
        m = v["measured"]
        speeds = {name: Speed(**m[name]) for name in ("decide", "score")} if m else {}
        measured = Measured(**{**m, **speeds}) if m else None
        delta = Estimate(**{k: np.nan if x is None else x for k, x in v["delta"].items()}) if v["delta"] else None
        status = v["status"] if v["status"] in ("unsuited", "not tried") else "rejected"
        return Variant(v["name"], v["steps"], measured, delta, status, v["reason"] if status != "rejected" else "")

    return choose([variant(v) for v in found["variants"]], Terms(**found["terms"]))


def test_a_run_ends_with_a_justified_choice_that_the_bundle_and_the_page_tell(done: Run) -> None:
    found = told(done)
    by_name = {v["name"]: v for v in found["variants"]}
    start, one = by_name["as trained"], by_name["one model of each family"]
    assert one["measured"]["score"]["p50_ms"] < start["measured"]["score"]["p50_ms"] * 1.5
    assert one["measured"]["bytes"] < 0.4 * start["measured"]["bytes"]
    assert one["status"] in ("chosen", "accepted") or one["reason"].startswith(("slower", "it may lose", "the budget was over"))
    assert found["rows"] == 300
    assert {v["status"] for v in found["variants"]} <= {"start", "chosen", "accepted", "rejected", "unsuited", "not tried"}
    assert all(v["reason"] for v in found["variants"] if v["status"] in ("rejected", "unsuited", "not tried"))
    assert by_name["int8, ranges by row"]["status"] == "unsuited"
    assert done.bundle is not None
    model = mg.load(done.bundle)
    assert model.optimised is not None
    assert (model.optimised["chosen"], model.optimised["why"]) == (found["chosen"], found["why"])
    assert done.report is not None
    page = done.report.read_text(encoding="utf-8")
    assert "Cheaper variants" in page
    assert 'id="variants"' in page
    assert "half precision" in page


def test_the_same_measurements_give_the_same_choice(done: Run) -> None:
    found = told(done)
    variants, why = rejudged(found)
    assert why == found["why"]
    assert [(v.name, v.status, v.reason) for v in variants] == [(v["name"], v["status"], v["reason"]) for v in found["variants"]]


def test_a_case_without_the_section_tries_nothing_and_cannot_stop_there(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="--until: got 'optimise'; expected a case with `optimise:`"):
        pipeline.run(written(tmp_path, loans()), workspace=tmp_path / "runs", until="optimise")


def test_the_tolerance_is_what_is_declared_or_a_share_of_the_gain(tmp_path: Path) -> None:
    path = written(tmp_path, loans(), replace={TRAIN: TRAIN + "\noptimise: {}\nserve: {latency: 50ms}", "serve: {reasons: 2}\n": ""})
    prepared = prepare_rows(Case.load(path))
    gain = Estimate(40.0, 30.0, 50.0, "EUR")
    assert terms(prepared, gain) == Terms("EUR", 2.0, 50.0)
    assert terms(prepared, replace(gain, value=-1.0)).tolerance == 0.0
    declared = replace(prepared, case=Case.load(written(tmp_path, loans(), replace=QUIET)))
    assert terms(declared, gain) == Terms("EUR", 20.0)


# ------------------------------------------------------------------------------------------------------- one outer fold


def learnt(prepared: Prepared, folds: int = 1) -> tuple[Prepared, Trials]:
    """Learn on the first outer folds alone."""
    prepared = replace(prepared, splits=replace(prepared.splits, folds=prepared.splits.folds[:folds]))
    return prepared, learn_all(prepared, (), silent)


def served(trials: Trials) -> list[dict[str, Any]]:
    return [{name: json_cell(trials.golden[name][i]) for name in trials.model.transform.inputs} for i in range(40)]


def searched(
    prepared: Prepared, trials: Trials, recipes: tuple[Recipe, ...], tolerance: float, budget: float = 60.0
) -> tuple[Optimised, Model]:
    search = Search(budget, Prices(), served(trials), recipes)
    return optimise(prepared, trials, Terms("EUR", tolerance), search)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Trials]:
    path = written(tmp_path_factory.mktemp("small"), loans(), replace=QUIET)
    return learnt(prepare_rows(Case.load(path)), folds=3)


def test_a_variant_is_held_to_rows_that_it_did_not_learn_from(small: tuple[Prepared, Trials]) -> None:
    prepared, trials = small
    seen: list[int] = []

    def knowing(start: Start) -> Scorer:  # what it is given is the training of one round, never its held-out rows
        assert start.lesson is not None
        seen.append(len(start.lesson.data))
        return start.scorer

    found, model = searched(prepared, trials, (Recipe("the same", 1, knowing),), 1.0)
    assert sorted(seen) == sorted([len(prepared.known), *(len(fold.train) for fold in prepared.splits.folds)])
    (same,) = found.variants[1:]
    assert same.delta is not None
    assert (same.delta.value, same.delta.low, same.delta.high) == (0.0, 0.0, 0.0)
    assert found.rows == sum(len(fold.test) for fold in prepared.splits.folds)
    assert model.scorer.model == trials.model.scorer.model


def test_a_slow_or_a_foolish_variant_is_never_chosen(small: tuple[Prepared, Trials]) -> None:
    prepared, trials = small

    class Slow(Scorer):
        def __call__(self, features: Any) -> Any:
            return super().__call__(np.repeat(features, 500, axis=0))[::500]

    class Foolish(Scorer):
        def __call__(self, features: Any) -> Any:
            return super().__call__(features)[:, ::-1]

    recipes = (
        Recipe("slow", 1, lambda start: Slow(start.scorer.model, start.scorer.rows)),
        Recipe("foolish", 1, lambda start: Foolish(start.scorer.model, start.scorer.rows)),
    )
    found, model = searched(prepared, trials, recipes, 20.0)
    slow, foolish = found.variants[1:]
    assert found.chosen is found.start
    assert slow.reason.startswith("slower: ")
    assert foolish.status == "rejected"
    assert model.scorer is trials.model.scorer
    assert model.optimised == found.to_json()


def test_what_the_budget_leaves_no_time_for_is_listed(small: tuple[Prepared, Trials]) -> None:
    found, _ = searched(*small, table(), 20.0, budget=1e-9)
    assert {v.status for v in found.variants[1:]} == {"not tried"}
    assert {v.reason for v in found.variants[1:]} == {"the budget was over"}
    assert found.why == "the start stays: no variant was accepted"


def test_slower_variants_do_not_widen_the_intervals_of_the_others() -> None:
    rng = np.random.default_rng(0)
    paid = {name: (rng.normal(size=200), rng.normal(size=200)) for name in ("quick", "slow")}
    speed = {"start": 10.0, "quick": 2.0, "slow": 30.0}
    measured = {n: Measured(Speed(s, s), Speed(s, s), 1.0, None, 1) for n, s in speed.items()}
    found = [Variant(name, i) for i, name in enumerate(speed)]
    variants, _ = judged(found, measured, paid, Terms("EUR", 1.0))
    assert [round(v.delta.level, 6) for v in variants if v.delta] == [0.9, 0.9, 0.9]


def test_each_is_measured_at_its_price_and_memory_in_a_process_of_its_own(small: tuple[Prepared, Trials]) -> None:
    _, trials = small
    (found,) = measure([trials.model], served(trials), Prices(cpu_hour=3600.0, decisions=1.0), 0.1)
    assert 0.0 < found.score.p50_ms <= found.score.p99_ms
    assert found.score.p50_ms < found.decide.p50_ms <= found.decide.p99_ms
    assert found.rows_per_s > 0.0
    assert found.bytes == len(trials.model.scorer.model)
    assert 0.0 < found.cost < 10.0
    assert meter.peak_bytes() is None or (found.peak_bytes or 0) > 10**7
    assert footprint.held(replace(trials.model.scorer, model=b"nothing"), np.zeros((1, 4), np.float32)) is None


def test_the_process_that_tells_its_memory_scores_the_rows(tmp_path: Path, small: tuple[Prepared, Trials]) -> None:
    scorer = small[1].model.scorer
    (tmp_path / "scorer.onnx").write_bytes(scorer.model)
    np.save(tmp_path / "rows.npy", np.zeros((3, len(small[1].model.transform.features)), np.float32))
    assert footprint.main(tmp_path, scorer.rows, scorer.level, scorer.threads) == meter.peak_bytes()


# ------------------------------------------------------------------------------------------------------ kinds of models


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "tolerance", "times"),
    [("lightgbm", 40.0, 1.5), ("mlp", 40.0, 2.0), ("cnn", 0.3, 2.0), ("encoder", 1.0, 2.0)],
)
def test_each_kind_of_model_ends_with_a_choice_at_least_as_quick(family: str, tolerance: float, times: float, tmp_path: Path) -> None:
    """`times` as quick is one model for five; small trees take less than a call of the runtime does, which nothing saves."""
    if family == "encoder":
        pq.write_table(requests(), tmp_path / "requests.parquet")
        (tmp_path / "case.yaml").write_text(
            CASE.replace("{budget: 30s, families: [ngrams]}", "{budget: 60s, families: [encoder]}\noptimise: {}")
        )
        case = Case.load(tmp_path / "case.yaml")
    elif family == "cnn":
        raw = cases.load("digits").to_json()
        case = Case.of({**raw, "train": {"families": ["cnn"], "budget": 30.0}, "optimise": {}})
    else:
        text = {TRAIN: f"train: {{budget: 20s, families: {family}}}\noptimise: {{}}", "serve: {reasons: 2}\n": ""}
        case = Case.load(written(tmp_path, loans(600), replace=text))
    prepared, trials = learnt(prepare_rows(case))
    found, model = searched(prepared, trials, table(), tolerance)
    chosen, start = found.chosen, found.start
    assert chosen.measured is not None
    assert start.measured is not None
    assert chosen.measured.decide.p50_ms <= start.measured.decide.p50_ms * (1 + NOISE)
    one = next(v for v in found.variants if v.name == "one model of each family")
    assert one.measured is not None
    assert times * one.measured.score.p50_ms < start.measured.score.p50_ms
    features = np.ascontiguousarray(trials.learnt.data.features, np.float32)[:64]
    made = [
        r.make(Start(trials.model.scorer, features, trials.model.scorer(features).shape[1]))
        for r in table()
        if "int8, ranges" in r.name[:12]
    ]
    for scorer in (model.scorer, *(m for m in made if isinstance(m, Scorer))):
        assert np.concatenate([scorer(features[i : i + 1]) for i in range(64)]).tobytes() == scorer(features).tobytes()
    packed = pack(replace(model, verdict="deploy"), tmp_path / "bundle", rows=trials.golden, card="card")
    assert packed.optimised == found.to_json()
    assert packed.scorer.level == model.scorer.level
