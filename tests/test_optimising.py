"""Optimising a model that serves: on what a real service decided, into a bundle of its own, by what came true."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import loops
from tests.serving.processes import serving
from typer.testing import CliRunner

import makegood as mg
from makegood import bundle, optimising, reviewing
from makegood.cli import app
from makegood.client import Client, Outcome
from makegood.economics.variants import Measured, Speed
from makegood.errors import CaseError, Refused
from makegood.families import smaller
from makegood.families.smaller import Recipe, Start
from makegood.optimising import FEWEST
from makegood.workspace import Workspace

ROWS, UNKNOWN = 120, 30


@dataclass(frozen=True)
class Shop:
    """A case that was run, and a replay of it that decided; of the last `UNKNOWN` decisions nobody knows what came."""

    space: Path
    bundle: Path
    ledger: str

    def optimise(self, **asked: Any) -> optimising.Done:
        return optimising.optimise("loans", workspace=self.space, ledger=self.ledger, **{"tolerance": 20.0, **asked})


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    text = {"train: {budget: 1s, families: linear}": "train: {budget: 60s, families: linear}", "serve: {reasons: 2}\n": ""}
    case = loops.written(folder, loops.loans(), replace=text)
    done = mg.run(case, workspace=folder / "space")
    assert done.bundle is not None
    rows = loops.loans(ROWS, seed=5)
    with serving(folder / "space", "--replay", "--at", "2024-01-01", case=done.bundle) as running:
        with Client(running.url) as client:
            made = client.decide(rows.drop(columns="bad").to_dict("records"))
            client.outcomes([Outcome(one, value) for one, value in zip(made[:-UNKNOWN], rows["bad"][:-UNKNOWN], strict=True)])
        yield Shop(folder / "space", done.bundle, str(folder / "space" / "loans" / "service" / "replay.sqlite"))


def test_variants_of_what_serves_are_tried_on_its_own_decisions_and_the_old_bundle_stays(shop: Shop) -> None:
    before = bundle.read(shop.bundle).hash
    done = shop.optimise(budget="60s")
    found = done.optimised
    assert found.rows == ROWS
    assert f"{ROWS - UNKNOWN} with a known outcome" in found.source
    by_name = {v.name: v for v in found.variants}
    assert by_name["one model of each family"].status == "unsuited"
    assert "run the case with `optimise:`" in by_name["distilled into trees"].reason
    assert by_name["int8, ranges by row"].status == "unsuited"
    basic = by_name["graph level basic"]
    assert basic.delta is not None
    assert abs(basic.delta.value) < 1.0
    assert bundle.read(shop.bundle).hash == before
    assert json.loads(json.dumps(done.to_json(), allow_nan=False))["chosen"] == found.chosen.name


def test_a_cheaper_variant_becomes_a_challenger_that_the_workspace_knows(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    model = mg.load(shop.bundle)
    quick = mg.run(mg.Case.load(shop.space.parent / "case.yaml"), workspace=shop.space.parent / "aside", until="bundle")
    assert quick.bundle is not None

    def lighter(start: Start) -> Any:  # the same graph, whose sums are those of one model: what a smaller one would be
        return mg.load(quick.bundle).scorer  # type: ignore[arg-type]

    monkeypatch.setattr(optimising, "table", lambda: (Recipe("lighter", 1, lighter),))
    monkeypatch.setattr("makegood.economics.variants.NOISE", 0.5)
    monkeypatch.setattr("makegood.economics.variants.TAIL_NOISE", 9.0)
    monkeypatch.setattr(optimising, "measure", lambda models, *rest: tuple(_figures(i) for i in range(len(models))))
    done = shop.optimise()
    assert done.optimised.chosen.name == "lighter"
    assert done.bundle is not None
    changed = mg.load(done.bundle)
    assert changed.id == done.model != model.id
    assert changed.optimised is not None
    assert changed.optimised["chosen"] == "lighter"
    assert f"Made of {model.id}: lighter: " in (done.bundle / "card.md").read_text(encoding="utf-8")
    assert done.model in reviewing.bundles(Workspace(shop.space), "loans")
    assert Workspace(shop.space).last("loans") == shop.bundle.parent
    again = mg.load(done.bundle)
    row = {"loan amount": 900.0, "credit-score": 1.0, "收入": 2000.0, "sex": "f"}
    assert again.decide(row).action == model.decide(row).action


def _figures(i: int) -> Measured:
    speed = Speed(10.0 / (1 + 3 * i), 12.0 / (1 + 3 * i))
    return Measured(speed, speed, 100.0, None, 1000)


def test_what_nobody_saw_counts_at_its_worst(shop: Shop) -> None:
    model = mg.load(shop.bundle)
    rows = loops.loans(4, seed=1)
    raw = {c: rows[c].to_numpy(dtype=object) for c in rows if c != "bad"}
    known = np.array([True, False, False, True])
    compared = optimising._Compared(model, raw, known, ["no", "yes"])
    names = [o.name for o in model.policy.payoffs.options]
    approve, decline = names.index("approve"), names.index("decline")
    taken, start = np.array([approve, approve, decline, decline]), np.array([decline, decline, decline, approve])
    a, b = compared.paid(taken, start)
    amount = rows["loan amount"].to_numpy()
    assert (a - b) == pytest.approx([0.1 * amount[0], -0.5 * amount[1], 0.0, 0.5 * amount[3]])


def test_too_few_decisions_and_no_tolerance_are_refused_with_what_to_do(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="--tolerance; expected an amount in EUR, at least 0; give --tolerance, or optimise"):
        shop.optimise(tolerance=None)
    with pytest.raises(CaseError, match="--tolerance: got '-1'"):
        shop.optimise(tolerance=-1.0)
    for budget in ("soon", "0"):
        with pytest.raises(CaseError, match=f"--budget: got '{budget}'"):
            shop.optimise(budget=budget)
    with pytest.raises(Refused, match=f"0 decisions of loans@.*expected at least {FEWEST}; serve it for longer"):
        shop.optimise(now=0)


def test_the_command_prints_the_variants_or_json(shop: Shop) -> None:
    words = ["optimise", "loans", "--workspace", str(shop.space), "--ledger", shop.ledger, "--tolerance", "20", "--budget", "5s"]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    assert "start: as trained" in told.output
    assert "unsuited: half precision on a GPU" in told.output
    told = CliRunner().invoke(app, [*words, "--json"])
    assert {"chosen", "why", "variants", "bundle", "model"} <= json.loads(told.stdout).keys()


def test_the_table_is_that_of_a_run() -> None:
    assert optimising.table is smaller.table
