"""Ranks on scales of their own: cut on validation rows, compared within each scale, never pooled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import sklearn.metrics as sk

from makegood import pipeline
from makegood.case import Case
from makegood.contracts import Choices, Floats, Ints, Probabilities
from makegood.errors import CaseError
from makegood.stages.held_out import HeldOut
from makegood.stages.metrics import mean_kappa, quadratic_kappa
from makegood.stages.prepare import prepare_rows
from makegood.stages.ratings import fit_cuts, rated

CASE = """
case: marks
data: {outcome: score, type: classes, scale: prompt, categories: [prompt], raters: [first, second], protected: [school]}
decision:
  unit: EUR
  actions:
    score: {quantity: {min: 0, max: 8, step: 1}, payoff: "-3 * abs(number(outcome) - quantity)"}
    teacher: {payoff: -3}
train: {budget: 5s, families: linear}
"""


def shrunk(rng: np.random.Generator, n: int, base: int, top: int) -> tuple[Floats, Ints]:
    """Return expected ranks (n,) that lie nearer to the middle than the true ranks (n,) do."""
    true = np.clip(np.rint(rng.normal((base + top) / 2, (top - base) / 4, n)), base, top).astype(np.int64)
    return 0.45 * (true - (base + top) / 2) + (base + top) / 2 + rng.normal(0, 0.4, n), true


def test_kappa_within_scales_is_averaged_and_never_pooled() -> None:
    rng = np.random.default_rng(0)
    scale = np.repeat(["1", "2", "3"], [300, 200, 100])
    base = np.repeat([0, 4, 8], [300, 200, 100])
    true = rng.integers(0, 4, 600) + base
    said = np.where(rng.random(600) < 0.5, true, rng.integers(0, 4, 600) + base)
    alone = [sk.cohen_kappa_score(true[scale == level], said[scale == level], weights="quadratic") for level in "123"]
    got = float(mean_kappa(said, true, scale).mean())
    assert got == pytest.approx(np.mean(alone))
    pooled = float(quadratic_kappa(said, true).mean())
    assert pooled == pytest.approx(sk.cohen_kappa_score(true, said, weights="quadratic"))
    assert pooled > got + 0.3


def test_a_scale_on_which_nothing_varies_has_no_kappa() -> None:
    rank, scale = np.array([0, 1, 2, 1, 1]), np.array(list("aaabb"))
    found = mean_kappa(rank, rank, scale)
    assert np.isnan(found[3:]).all()
    assert found[:3].mean() == pytest.approx(1.0)
    assert np.isnan(mean_kappa(np.ones(5), np.ones(5), scale)).all()


def test_cuts_are_where_kappa_is_highest_and_hold_on_other_rows() -> None:
    rng = np.random.default_rng(1)
    parts = [shrunk(rng, 2000, 0, 3), shrunk(rng, 2000, 2, 8)]
    x, t = (np.concatenate(side) for side in zip(*parts, strict=True))
    scale = np.repeat(np.array(["a", "b"], dtype=object), 2000)
    learnt = np.arange(4000) % 2 == 0
    cuts = fit_cuts(x[learnt], t[learnt], scale[learnt])
    said, rounded = cuts.apply(x, scale), np.rint(x).astype(np.int64)
    for level in "ab":
        held = ~learnt & (scale == level)
        better, plain = (float(quadratic_kappa(r[held], t[held]).mean()) for r in (said, rounded))
        assert better > plain + 0.03
        assert set(said[scale == level]) <= set(t[scale == level])
        ranks, at = cuts.by_level[level]
        assert (np.diff(at) >= 0).all()
        mine = learnt & (scale == level)
        best = float(quadratic_kappa(said[mine], t[mine]).mean())
        for j in range(len(at)):  # no single cut does better elsewhere
            low, high = at[j - 1] if j else x.min(), at[j + 1] if j + 1 < len(at) else x.max()
            for place in np.linspace(low, high, 40):
                moved = at.copy()
                moved[j] = place
                other = ranks[np.searchsorted(moved, x[mine], side="right")]
                assert float(quadratic_kappa(other, t[mine]).mean()) <= best + 1e-9


def test_a_level_with_one_rank_or_that_was_never_seen_is_rated() -> None:
    cuts = fit_cuts(np.array([1.2, 1.4, 0.1, 0.9]), np.array([2, 2, 0, 1]), np.array(list("aabb"), dtype=object))
    assert cuts.apply(np.array([0.3, 0.2, 4.6]), np.array(["a", "b", None], dtype=object)).tolist() == [2, 0, 5]


def marks(n: int = 600) -> pa.Table:
    """Return n essays of two prompts, scored 0 to 3 and 4 to 8, with two raters and a school whose essays the model finds weaker."""
    rng = np.random.default_rng(2)
    prompt, school = rng.integers(1, 3, n), rng.choice(["north", "south"], n)
    true = np.where(prompt == 1, rng.integers(0, 4, n), rng.integers(4, 9, n))
    first, second = (np.clip(true + rng.integers(-1, 2, n), 0, 8) for _ in range(2))
    words = true * 40 + rng.normal(0, 20, n) - 30 * (school == "south")
    return pa.table({"prompt": prompt, "words": words, "school": school, "first": first, "second": second, "score": true})


def test_a_run_tells_kappa_by_scale_the_raters_ceiling_and_differences(tmp_path: Path) -> None:
    (tmp_path / "case.yaml").write_text(CASE, encoding="utf-8")
    table = marks()
    run = pipeline.run(tmp_path / "case.yaml", data=table, workspace=tmp_path / "space")
    assert run.evaluation is not None
    every, *groups = run.evaluation.ratings
    assert [(r.column, r.level) for r in groups[:2]] == [("prompt", "1"), ("prompt", "2")]
    assert {(r.column, r.level) for r in groups[2:]} == {("school", "north"), ("school", "south")}
    frame = {name: np.array(table[name]) for name in table.column_names}
    alone = [
        sk.cohen_kappa_score(frame["first"][frame["prompt"] == p], frame["second"][frame["prompt"] == p], weights="quadratic")
        for p in (1, 2)
    ]
    assert every.raters is not None
    assert every.raters.value == pytest.approx(np.mean(alone))
    assert every.kappa == run.evaluation.metrics["qwk"]
    assert every.kappa.value == pytest.approx(np.mean([r.kappa.value for r in groups[:2]]))
    by_school = {r.level: r.difference for r in groups if r.column == "school"}
    assert by_school["south"].high < 0 < by_school["north"].low
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "never pooled" in page
    assert "kappa between raters" in page
    assert {"first", "second"} <= set(prepare_rows(Case.load(tmp_path / "case.yaml"), table).excluded)


def test_ranks_are_those_of_the_numbers_whatever_the_order_of_the_classes() -> None:
    classes = ("0", "1", "10", "11", "2", "3")  # as texts stand in a table
    code = np.array([0, 1, 2, 3, 4, 5] * 10)
    rank = np.array([0, 1, 4, 5, 2, 3])[code]
    held = HeldOut(
        predictive=Probabilities(classes, np.eye(6)[code]),
        columns={"prompt": np.repeat(np.array(["a", "b"], dtype=object), 30)},
        outcome=code,
        choices=Choices(code, np.zeros(60), np.zeros(60), np.ones(60)),
        scores=None,
        realised=np.zeros((60, 6)),
        baselines={},
        ceiling=np.zeros(60),
        rating=rank,
    )
    every, *levels = rated(held, "prompt", {}, np.empty((60, 0)))
    assert (every.kappa.value, every.difference.value, every.raters) == (1.0, 0.0, None)
    assert [(r.level, r.n, r.kappa.value) for r in levels] == [("a", 30, 1.0), ("b", 30, 1.0)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("type: classes, ", "type: number, ", "data.scale: 'prompt': got 'an outcome that is a number'"),
        ("raters: [first, second]", "raters: [first]", "two raters or more, beside data.scale"),
        ("raters: [first, second]", "raters: [first, school]", "data.raters: 'school': got 'a category column'; expected marks that are"),
        ("scale: prompt", "scale: prmpt", "data.scale: got 'prmpt'"),
        ("scale: prompt", "scale: score", "a scale column other than the outcome"),
        ("protected: [school]", "keep: [first]", "expected a column that is not in data.raters too"),
    ],
)
def test_what_cannot_be_rated_is_named(old: str, new: str, message: str) -> None:
    with pytest.raises(CaseError) as caught:
        prepare_rows(Case.parse(CASE.replace(old, new)), marks(200))
    assert message in str(caught.value)
