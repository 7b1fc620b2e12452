"""Reviews of a real service: what it decided, what its ledger says of it, and that nobody is promoted without evidence."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from tests import loops
from tests.serving.processes import Running, command, serving

import makegood as mg
from makegood import reviewing
from makegood.client import Client, Outcome
from makegood.errors import CaseError, LedgerError, Refused
from makegood.ledger.events import Alarmed, Promoted
from makegood.ledger.reading import Reader
from makegood.reviewing import Asked

FEEDBACK = "train: {budget: 1s, families: linear}\nfeedback: {review: 1h, missing: 0, promote: {cap: [-2500, 500]}}"


@dataclass(frozen=True)
class Shop:
    """A case that was run twice, a replay of it that decided, and where all that lies."""

    case: Path
    space: Path
    running: Running
    rows: pd.DataFrame
    bundles: tuple[str, str]  # the first, which decides, and a later one

    @property
    def ledger(self) -> str:
        return str(self.space / "loans" / "service" / "replay.sqlite")

    @property
    def there(self) -> dict[str, Any]:
        return {"workspace": self.space, "ledger": self.ledger}

    def told(self) -> list[Promoted]:
        reader = Reader.open(f"sqlite:///{self.ledger}")
        try:
            return [msgspec.json.decode(s.event.body, type=Promoted) for s in reader.promotions("loans")]
        finally:
            reader.close()


def decided(client: Client, rows: pd.DataFrame, day: int, *, bad: bool | None = None) -> None:
    """Decide on rows on a day and tell what came true half an hour later; `bad`: nobody, or everybody, pays back."""
    client.clock(f"2024-01-{day:02d}T08:00:00Z")
    made = client.decide(rows.drop(columns="bad").to_dict("records"))
    client.clock(f"2024-01-{day:02d}T08:30:00Z")
    came = rows["bad"].tolist() if bad is None else ["yes" if bad else "no"] * len(rows)
    client.outcomes([Outcome(one, value) for one, value in zip(made, came, strict=True)])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Yield a replay of loans: five days as promised, with a challenger in shadow from the third on."""
    folder = tmp_path_factory.mktemp("shop")
    case = loops.written(folder, loops.loans(900), replace={"train: {budget: 1s, families: linear}": FEEDBACK})
    space = folder / "space"
    first = mg.run(case, workspace=space)
    second = mg.run(mg.Case.load(case).model_copy(update={"about": "later"}), data=loops.loans(300, seed=9), workspace=space)
    names = {path: name for name, path in reviewing.bundles(reviewing.Workspace(space), "loans").items()}
    rows = loops.loans(1200, seed=5)
    with serving(space, "--replay", "--at", "2024-01-01", case=first.bundle) as running:
        with Client(running.url) as client:
            for day in range(1, 3):
                decided(client, rows[(day - 1) * 100 : day * 100], day)
            client.shadow(names[second.bundle], by="tests")
            for day in range(3, 6):
                decided(client, rows[(day - 1) * 100 : day * 100], day)
            client.clock("2024-01-06")
        yield Shop(case, space, running, rows, (names[first.bundle], names[second.bundle]))


def cli(*words: object) -> tuple[int, str, str]:
    done = subprocess.run(command(*words), capture_output=True, text=True, encoding="utf-8", timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_a_review_reads_what_the_service_wrote(shop: Shop) -> None:
    latest = reviewing.review("loans", **shop.there).review
    assert (latest.n, latest.matured) == (500, 400)  # the last day's are half an hour old, and due after an hour
    found = reviewing.review("loans", **shop.there, now=latest.at + 3_600_000_000)
    review = found.review
    assert (review.n, review.matured, review.model, review.replayed) == (500, 500, shop.bundles[0], True)
    assert not review.alarm.raised
    assert review.verdict in ("wait", "keep")
    frame = shop.rows[:500]
    model = mg.load(reviewing.bundles(reviewing.Workspace(shop.space), "loans")[shop.bundles[0]])
    made = model.decide(frame.drop(columns="bad"))
    pays = model.realised({c: frame[c].tolist() for c in frame if c != "bad"}, frame["bad"].tolist())
    assert review.realised.value == pytest.approx(float(pays[np.arange(500), made.choices.option].mean()), abs=1e-6)
    assert review.promised.value == pytest.approx(float(made.choices.promise.mean()), abs=1e-6)
    assert found.page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert json.loads((found.page.parent / "review.json").read_text(encoding="utf-8"))["n"] == 500
    (challenge,) = review.challenges
    assert (challenge.model, challenge.design, challenge.units) == (shop.bundles[1], "paired", 300)


def test_the_command_prints_text_or_json_and_the_page_last(shop: Shop) -> None:
    code, out, _ = cli("review", "loans", "--workspace", shop.space, "--ledger", shop.ledger)
    assert code == 0
    assert Path(out.splitlines()[-1]).is_file()
    assert "promised" in out
    code, out, _ = cli("review", "loans", "--workspace", shop.space, "--ledger", shop.ledger, "--json")
    said = json.loads(out)
    assert {"case", "matured", "promised", "realised", "gap", "alarm", "challengers", "attribution", "verdict", "why"} <= said.keys()
    assert said["alarm"].keys() >= {"raised", "evidence", "limit", "since"}
    assert said["challengers"][0].keys() >= {"model", "gain", "evidence", "decision"}


def test_nobody_is_promoted_without_evidence_and_told_what_is_missing(shop: Shop) -> None:
    with Client(shop.running.url) as client, pytest.raises(Refused) as refused:
        reviewing.promote("loans", **shop.there, service=client)
    assert refused.value.problems[0].expected == "evidence that it earns more"
    assert "units" in refused.value.problems[0].next
    code, _, error = cli("promote", "loans", "--url", shop.running.url, "--workspace", shop.space, "--ledger", shop.ledger)
    assert code == 1
    assert error.startswith("refused: ")
    code, _, error = cli("promote", "loans", "abcdef", "--workspace", shop.space, "--ledger", shop.ledger)
    assert code == 1
    assert shop.bundles[1] in error


def test_by_force_with_a_reason_and_back_again(shop: Shop) -> None:
    with Client(shop.running.url) as client:
        told = reviewing.promote("loans", shop.bundles[1][-12:], Asked("a person", "because", True), **shop.there, service=client)
        assert told["champion"] == shop.bundles[1]
        kept = shop.told()[-1]
        assert (kept.verb, kept.forced, kept.why, kept.by) == ("promote", True, "because", "a person")
        back = reviewing.rollback("loans", Asked("a person", "it was a try"), **shop.there, service=client)
        assert back["champion"] == shop.bundles[0]
        assert shop.told()[-1].why == "it was a try"


def test_while_a_service_writes_the_ledger_nobody_else_does(shop: Shop) -> None:
    with pytest.raises(LedgerError):
        reviewing.rollback("loans", Asked("a person", "why not"), **shop.there)


def test_a_broken_promise_is_written_into_the_ledger_once(shop: Shop) -> None:
    with Client(shop.running.url) as client:
        for day in range(10, 16):
            decided(client, shop.rows[(day - 4) * 100 : (day - 3) * 100], day, bad=True)
        client.clock("2024-01-20")
        found = reviewing.review("loans", **shop.there)
        assert found.review.alarm.raised
        assert reviewing.record(found, "loans", **shop.there, service=client) >= 1
        assert reviewing.record(found, "loans", **shop.there, service=client) == 0
    reader = Reader.open(f"sqlite:///{shop.ledger}")
    try:
        kept = [msgspec.json.decode(s.event.body, type=Alarmed) for s in reader.alarms("loans")]
    finally:
        reader.close()
    assert [a.test for a in kept if a.model == shop.bundles[0]][:1] == ["promise"]
    assert kept[0].evidence >= kept[0].limit


def test_what_was_never_served_cannot_be_reviewed(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(LedgerError):
        reviewing.review("loans", workspace=shop.space)
    with pytest.raises(CaseError):
        reviewing.review("nothing", workspace=tmp_path)
