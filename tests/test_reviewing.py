"""Reviews of a real service: what it decided, what its ledger says of it, and that nobody is promoted without evidence."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from tests import loops
from tests.serving.processes import Running, command, serving
from typer.testing import CliRunner

import makegood as mg
from makegood import reviewing
from makegood.cli import app
from makegood.client import Client, Outcome
from makegood.contracts import Estimate
from makegood.errors import CaseError, LedgerError, Refused
from makegood.ledger.events import Alarmed, Event, Promoted, Stored, encode
from makegood.ledger.reading import Reader
from makegood.ledger.store import Ledger
from makegood.monitoring.review import Challenge
from makegood.reviewing import Asked
from makegood.serving.locate import LEDGER
from makegood.stages.facts import YEAR_US, Entrant, Standing

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


def promotions(*said: tuple[int, Promoted]) -> list[Stored]:
    """Return promotions as a ledger holds them, each with its time."""
    return [
        Stored(Event(f"e{i}", "promotion", "loans", "", "", at, b"", encode(body)), 0, i + 1, b"", b"") for i, (at, body) in enumerate(said)
    ]


def test_who_stands_where_is_a_fold_of_the_promotions() -> None:
    first = (10, Promoted("promote", "a", "", "x"))
    assert reviewing.stands([]) is None
    alone = reviewing.stands(promotions(first))
    assert alone == Standing("a", 10)
    tried = reviewing.stands(promotions(first, (20, Promoted("shadow", "b", "", "x")), (30, Promoted("canary", "c", "", "x", share=0.2))))
    assert tried == Standing("a", 10, (Entrant("b", 20), Entrant("c", 30, 0.2, 2, 30)))
    grown = reviewing.stands(
        promotions(first, (30, Promoted("canary", "c", "", "x", share=0.2)), (40, Promoted("canary", "c", "", "x", share=0.5)))
    )
    assert grown == Standing("a", 10, (Entrant("c", 30, 0.2, drawn=30),))
    lent = [first, (20, Promoted("shadow", "c", "", "x")), (30, Promoted("canary", "c", "", "x", share=0.2))]
    assert reviewing.stands(promotions(*lent)) == Standing("a", 10, (Entrant("c", 20, 0.2, drawn=30),)), "it has been on trial all along"
    back = reviewing.stands(promotions(*lent, (40, Promoted("shadow", "c", "", "x"))))
    assert back == Standing("a", 10, (Entrant("c", 20),))
    later = 30 + YEAR_US
    next_year = reviewing.stands(
        promotions(
            first, (20, Promoted("shadow", "b", "", "x")), (21, Promoted("retire", "b", "", "x")), (later, Promoted("shadow", "c", "", "x"))
        )
    )
    assert next_year == Standing("a", 10, (Entrant("c", later, place=1),))
    terms = {"k": 1.0, "spread": {"": 1.0}, "floor": 1.0, "least": 0.03, "budget": 9.0, "period_s": 60.0}
    explored = reviewing.stands(promotions(first, (30, Promoted("canary", "c", "", "x", explore=terms))))
    assert explored == Standing("a", 10, (Entrant("c", 30, 0.03, drawn=30),))
    guarded = reviewing.stands(promotions(first, (50, Promoted("promote", "b", "", "x")), (51, Promoted("shadow", "a", "", "x"))))
    assert guarded == Standing("b", 50, (Entrant("a", 51, place=0),))
    held = reviewing.stands(promotions(first, (50, Promoted("promote", "b", "", "x", holdback=0.1))))
    assert held == Standing("b", 50, (), Entrant("a", 50, 0.1, 0, 50))


def test_what_a_promotion_rests_on_is_finite_and_names_the_champion() -> None:
    kept = better("b").rests_on("a")
    assert (kept["champion"], kept["units"]) == ("a", 500)
    assert "min_gain" not in kept


def better(model: str) -> Challenge:
    """Return a challenge whose test says that a model pays more."""
    gain = Estimate(0.2, 0.1, 0.3, "EUR")
    return Challenge(model, "disagreement", "betting", 500, 50, gain, gain, 99.0, 20.0, float("nan"), "promote", "It pays more.")


def run(*words: object) -> int:
    """Run a command in this process; return its exit code."""
    return CliRunner().invoke(app, [str(word) for word in words]).exit_code


def test_without_a_service_the_ledger_itself_is_changed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.running.stop()
    there = ("--workspace", shop.space, "--ledger", shop.ledger)
    with pytest.raises(Refused):
        reviewing.promote("loans", "nobody", Asked(force=True, why="a try"), **shop.there)
    monkeypatch.setattr(reviewing, "_named", lambda found, name: None)
    with pytest.raises(CaseError, match="MODEL: got 'none'; expected a bundle's name"):
        reviewing.promote("loans", "", Asked(force=True, why="a try"), **shop.there)
    monkeypatch.undo()
    assert run("promote", "loans", shop.bundles[1][-12:], "--force", "--why", "a try", "--by", "tests", *there) == 0
    assert (shop.told()[-1].model, shop.told()[-1].forced) == (shop.bundles[1], True)
    assert run("review", "loans", *there) == run("review", "loans", "--json", *there) == 0
    assert run("rollback", "loans", "--why", "enough", "--json", *there) == 0
    assert shop.told()[-1].verb == "rollback"
    with pytest.raises(Refused, match="champion before"):
        reviewing.rollback("loans", Asked("tests", "once more"), **shop.there)
    assert reviewing.placed("loans", shop.space, "sqlite:///elsewhere.sqlite").ledger == "sqlite:///elsewhere.sqlite"
    found = reviewing.review("loans", **shop.there)
    raised = replace(found.review.alarm, raised=True, evidence=9e99, limit=10.0, since=None, ticks=5, why="broken", missing=None)
    other = replace(found, review=replace(found.review, model=shop.bundles[1], alarm=raised))
    assert reviewing.record(other, "loans", **shop.there) == 1
    assert reviewing.record(other, "loans", **shop.there) == 0
    monkeypatch.setattr(reviewing, "of_ledger", lambda place: replace(found.review, challenges=(better(shop.bundles[1]),)))
    told = reviewing.promote("loans", **shop.there)
    assert told["champion"] == shop.bundles[1]
    kept = shop.told()[-1]
    assert (kept.evidence["evidence"], kept.holdback, kept.forced) == (99.0, 0.1, False)


def test_before_anything_was_decided_a_review_waits(shop: Shop, tmp_path: Path) -> None:
    ledger = tmp_path / "new.sqlite"
    there = {"workspace": shop.space, "ledger": str(ledger)}
    with Ledger.open(f"sqlite:///{ledger}") as writer:
        with pytest.raises(CaseError, match="no champion"):
            reviewing.review("loans", **there)
        with pytest.raises(CaseError, match="no champion"):
            reviewing.rollback("loans", Asked("tests", "why"), **there)
        writer.append([promotions((5, Promoted("promote", shop.bundles[0], "", "x")))[0].event])
    broken = shop.space / "loans" / "20990101-000000-0000" / "bundle"
    broken.mkdir(parents=True)
    (broken / "manifest.json").write_text("{}")
    found = reviewing.review("loans", **there).review
    assert (found.n, found.unit, found.verdict) == (0, "EUR", "wait")


def test_the_loop_reviews_a_service_that_runs(shop: Shop) -> None:
    bundle = reviewing.bundles(reviewing.Workspace(shop.space), "loans")[shop.bundles[0]]
    there = ("--live", "--reviews", "1", "--workspace", shop.space)
    with serving(shop.space, case=bundle, env={LEDGER: None}) as running, Client(running.url) as client:
        rows = shop.rows[:50]
        client.outcomes([Outcome(one, "no") for one in client.decide(rows.drop(columns="bad").to_dict("records"))])
        shown = CliRunner().invoke(app, ["loop", str(shop.case), "--url", running.url, *map(str, there)])
        assert shown.exit_code == 0, shown.output
        assert shown.stdout.startswith("wait: No decision is due yet")
        told = CliRunner().invoke(app, ["loop", str(shop.case), "--url", running.url, "--json", *map(str, there)])
        assert (json.loads(told.stdout)["n"], json.loads(told.stdout)["events"]) == (50, [])
    for words, got in ((there, "--live without --url"), (("--url", "http://127.0.0.1:1"), "--url without --live")):
        refused = CliRunner().invoke(app, ["loop", str(shop.case), *map(str, words)])
        assert isinstance(refused.exception, CaseError)
        assert refused.exception.problems[0].got == got
