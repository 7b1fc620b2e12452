"""Exploration in the service: chances of each row where two models differ, logged as they were used, never beyond the budget."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests import bundles
from tests.bundles import ROW
from tests.serving import lives
from tests.serving.houses import House, house
from tests.serving.processes import serving

from makegood.economics.payoff import Payoffs
from makegood.economics.policy import Policy
from makegood.ledger.events import MICRO, Decided, Stored
from makegood.ledger.reading import Reader as LedgerReader
from makegood.monitoring import exploring
from makegood.monitoring.exploring import Exploration
from makegood.serving.changes import Change
from makegood.serving.deciding import Made, Row, decide, drawn
from makegood.serving.rollout import Canary, Rollout, _allowed
from makegood.serving.rows import Reader

EXPLORED = Exploration(0.1, {"": 60.0, "decline > approve": 90.0}, 50.0, 0.02, lives.BUDGET, lives.WEEK_S)
RICH = 10**15


def sent(n: int, first: int = 0) -> list[dict[str, Any]]:
    """Return rows of customers, each other than the one before; on a quarter of them the two models differ."""
    out = []
    for i in range(first, first + n):
        rng = random.Random(i)
        own = {"amount": 100.0 * rng.randrange(5, 200), "months": rng.randrange(6, 61), "age": rng.randrange(18, 80)}
        more = {"income": round(math.exp(rng.gauss(8, 1))), "employed": rng.random() < 0.6, "region": rng.choice(["Nord", "Süd", "West"])}
        out.append({**ROW, "customer": f"c{i % 300}", **own, **more})
    return out


def rollout(explored: Exploration = EXPLORED, salt: str = "salt") -> Rollout:
    return Rollout(lives.exploring(), Canary(lives.bold(), 0.0, salt, explored))


def made(of: Rollout, told: Sequence[dict[str, Any]], left: int = RICH, at: int = 0) -> list[Made]:
    assert of.canary is not None
    reader = Reader(of.champion.model.case, [of.champion.model, of.canary.live.model])
    asked = reader.read(json.dumps(told).encode())
    rows = [Row(f"d{i}", row, reader.unit(row), b"r", at) for i, row in enumerate(asked.rows)]
    return decide(of, reader, rows, b"secret", left)


def body(of: Made | Stored) -> Decided:
    return msgspec.json.decode(of.event.body, type=Decided)


def choices(told: Sequence[dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    """Return what champion and challenger would do, each by itself."""
    known = [{name: value for name, value in row.items() if name != "customer"} for row in told]
    return tuple([live.model.decide(row) for row in known] for live in (lives.exploring(), lives.bold()))  # type: ignore[return-value]


def test_where_both_agree_the_champion_decides_and_elsewhere_a_row_has_its_chance() -> None:
    told = sent(400)
    mine, theirs = choices(told)
    raw = {name: [row[name] for row in told] for name in told[0] if name != "customer"}
    by = [live.model.decide_columns(raw, reasons=0).expected for live in (lives.exploring(), lives.bold())]
    options = [option.name for option in lives.exploring().model.policy.payoffs.options]
    explored, found = 0, made(rollout(), told)
    for i, one in enumerate(found):
        a, b, kept = mine[i].action, theirs[i].action, body(one)
        chances = dict(zip(kept.options, kept.propensities, strict=True))
        assert sum(kept.propensities) == pytest.approx(1.0)
        assert chances[kept.action] == kept.propensity
        if a == b:
            assert (kept.role, kept.action, chances[a], kept.explored) == ("champion", a, 1.0, None)
            continue
        loss = max(0.0, *(e[i, options.index(a)] - e[i, options.index(b)] for e in by))
        s = EXPLORED.spread.get(f"{a} > {b}", EXPLORED.spread[""])
        chance = min(max(EXPLORED.k * s / math.sqrt(max(loss, EXPLORED.floor)), EXPLORED.least), 0.5)
        assert chances[b] == pytest.approx(chance)
        assert chances[a] == 1.0 - chances[b]
        tried = drawn("salt", f"c{i % 300}") < chances[b]
        assert (kept.role, kept.action) == (("canary", b) if tried else ("champion", a))
        assert kept.model == (lives.bold() if tried else lives.exploring()).name
        cost = max(loss, EXPLORED.floor)
        assert kept.explored is None if not tried else kept.explored == pytest.approx(cost * MICRO, abs=2)
        assert one.explored == kept.explored
        explored += tried
    assert 15 < explored < 60
    assert len({body(one).propensity for one in found}) > 30


def test_whom_it_decides_on_is_settled_by_a_draw_that_stays() -> None:
    told = sent(300)
    one, again = made(rollout(), told), made(rollout(), told)
    assert [o.event.body for o in one] == [o.event.body for o in again]
    grown = made(rollout(replace(EXPLORED, k=2 * EXPLORED.k)), told)
    assert {o.event.id for o in one if o.explored is not None} < {o.event.id for o in grown if o.explored is not None}
    other = made(rollout(salt="another"), told)
    assert [o.explored is not None for o in one] != [o.explored is not None for o in other]


@pytest.mark.parametrize("left", [0.0, 200.0, 1000.0, 5000.0])
def test_no_batch_costs_more_than_is_left(left: float) -> None:
    found = made(rollout(), sent(300), round(left * MICRO))
    costs = [one.explored for one in found if one.explored is not None]
    assert sum(costs) <= left * MICRO
    assert bool(costs) == (left > 0.0)
    stopped = [body(one) for one in found if body(one).role == "champion" and len(set(body(one).propensities)) == 2]
    assert stopped  # rows on which both differ and nothing is left: what is logged of the challenger's action is a chance of 0


def test_the_chances_that_are_logged_are_those_that_were_used_to_the_bit() -> None:
    """Over many salts, each of which is a draw anew: the share of rows that were tried is the mean of the chances that were logged."""
    told, z = sent(60), []
    for i in range(200):
        for one in made(rollout(salt=f"s{i}"), told, 1500 * MICRO):
            kept = body(one)
            mine = kept.propensity if kept.role == "canary" else 1.0 - kept.propensity
            if 0.0 < kept.propensity < 1.0:
                z.append((kept.role == "canary") - mine)
    assert len(z) > 1000
    assert abs(np.mean(z)) < 4 * np.std(z) / np.sqrt(len(z))


def test_an_option_that_the_other_model_does_not_know_is_not_tried() -> None:
    actions: dict[str, Any] = {"approve": {"payoff": {"no": "0.08 * amount", "yes": "-0.1 * amount"}}, "phone": {"payoff": "900"}}
    strange = lives.live(lives.customers(replace(bundles.loans(), policy=Policy(Payoffs.of(actions, "EUR", ("no", "yes"))))), "strange")
    of = Rollout(lives.exploring(), Canary(strange, 0.0, "salt", EXPLORED))
    found = made(of, sent(200))
    phoned = [body(one) for one in found if "phone" in body(one).options and body(one).shadows[0].action == "phone"]
    assert phoned
    assert {(kept.role, kept.propensity, kept.explored) for kept in phoned} == {("champion", 1.0, None)}


# ------------------------------------------------------------------------------------------------------------ the service


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path, "loans", lives.exploring(), lives.bold(), lives.champion()) as open_house:
        yield open_house


def canary(where: House, explore: Any, status: int = 200, **more: Any) -> Any:
    answer = where.client.post(f"/v1/models/{lives.bold().name}/canary", json={"explore": explore, **more})
    assert answer.status_code == status, answer.text
    return answer.json()


def test_what_may_not_be_explored_is_refused_by_name(shop: House, tmp_path: Path) -> None:
    explore = EXPLORED.to_json()

    def no(found: Any, words: str, **more: Any) -> None:
        assert words in "\n".join(f"{e['where']}: {e['got']}; {e['expected']}" for e in canary(shop, found, 422, **more)["errors"])

    no(explore | {"budget": 20_001}, "explore: budget: 20001; at most 20000, as the case's feedback.explore has it")
    no(explore | {"period_s": 3600}, "explore: period_s: 3600; 604800, as the case's feedback.explore has it")
    no(explore | {"least": 0.01}, "explore: least: 0.01; at least 0.02, as the case's feedback.explore has it")
    no(explore, "share: 0.1; no share beside explore", share=0.1)
    no({"k": 1}, "explore: floor: nothing")
    no(None, "explore: None; what a review reckoned")
    bare = shop.client.post(f"/v1/models/{lives.bold().name}/canary", json={}).json()
    assert bare["errors"][0]["expected"] == "a number between 0 and 1"
    answer = shop.client.post(f"/v1/models/{lives.bold().name}/shadow", json={"explore": explore})
    assert answer.json()["errors"][0]["expected"] == "a canary, not a shadow"
    url, shop.service.ledger.url = shop.service.ledger.url, "postgresql://somewhere/ledger"
    no(explore, "explore: a PostgreSQL ledger; a ledger that one process alone writes")
    shop.service.ledger.url = url
    shop.rollouts.change(Change("promote", lives.champion().name, force=True, why="its case declares no exploration"))
    no(explore, "explore: ; a case that declares feedback.explore")
    assert shop.rollouts.wanted.canary is None


def test_where_stakes_are_high_nobody_is_tried_on(tmp_path: Path) -> None:
    model = lives.exploring().model
    grave = replace(model, case={**model.case, "decision": {**model.case["decision"], "high_stakes": True}})
    with house(tmp_path, "loans", lives.live(grave, "grave explorer"), lives.bold()) as shop:
        told = canary(shop, EXPLORED.to_json(), 422, by="Ada")
        assert told["errors"][0]["expected"] == "a share: nothing is explored where the stakes are high"


def decisions(where: House, told: Sequence[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    answer = where.client.post("/v1/decisions", json=list(told), headers={"Idempotency-Key": key})
    assert answer.status_code == 200, answer.text
    return list(answer.json())


def awake(where: House) -> None:
    """Wait until what was spent before is known."""
    for _ in range(2000):
        where.service.batcher._purse.left(EXPLORED)
        if where.service.batcher._purse._known_s:
            return
        time.sleep(0.005)
    raise AssertionError("nobody knows what was spent")


def test_the_service_explores_within_its_budget_and_repeats_for_nothing(shop: House) -> None:
    told = canary(shop, EXPLORED.to_json())
    assert (told["canary"], told["explore"]) == ({"model": lives.bold().name, "share": 0.0}, EXPLORED.to_json())
    shown = {m["name"]: m for m in shop.client.get("/v1/models").json()["models"]}[lives.bold().name]
    assert (shown["role"], shown["share"], shown["explore"]) == ("canary", 0.0, EXPLORED.to_json())
    awake(shop)
    first = decisions(shop, sent(100), "a")
    tried = [d for d in first if d["model"] == lives.bold().name]
    assert tried
    left = shop.service.batcher._purse.left(EXPLORED)
    assert decisions(shop, sent(100), "a") == first
    assert shop.service.batcher._purse.left(EXPLORED) == left
    for i in range(1, 8):
        decisions(shop, sent(150, 100 * i), f"b{i}")
    stored = [s for batch in shop.service.ledger.reader.scan(kinds=["decision"]) for s in batch]
    spent = sum(body(s).explored or 0 for s in stored)
    assert 0.9 * lives.BUDGET * MICRO < spent <= lives.BUDGET * MICRO
    assert shop.service.batcher._purse.left(EXPLORED) == lives.BUDGET * MICRO - spent
    total = next(line for line in shop.client.get("/metrics").text.splitlines() if line.startswith("makegood_explored_total"))
    assert float(total.rpartition(" ")[2]) == pytest.approx(spent / MICRO)


def test_a_row_that_cannot_be_decided_costs_nothing(shop: House) -> None:
    canary(shop, EXPLORED.to_json())
    awake(shop)
    answer = shop.client.post("/v1/decisions", json=[*sent(60), {**ROW, "customer": "c", "amount": None}])
    assert answer.status_code == 422
    assert shop.service.batcher._purse.left(EXPLORED) == lives.BUDGET * MICRO


def test_what_could_not_be_handed_over_costs_nothing(shop: House) -> None:
    canary(shop, EXPLORED.to_json())
    awake(shop)
    shop.service.ledger.close()
    assert shop.client.post("/v1/decisions", json=sent(100)).status_code == 503
    assert (shop.service.batcher._purse._spent, shop.service.batcher._purse._total) == ({}, 0)


def test_the_case_of_whoever_decides_now_has_the_last_word(shop: House, tmp_path: Path) -> None:
    canary(shop, EXPLORED.to_json())
    awake(shop)
    assert any(d["model"] == lives.bold().name for d in decisions(shop, sent(60), "a"))
    shop.rollouts.change(Change("promote", lives.champion().name, force=True, why="its case declares no exploration"))
    assert shop.rollouts.now.canary is not None
    assert shop.rollouts.now.canary.explored == replace(EXPLORED, budget=0.0)
    after = decisions(shop, sent(60), "b")
    assert {d["model"] for d in after} == {lives.champion().name}
    assert {d["propensity"] for d in after} == {1.0}
    shop.rollouts.change(Change("rollback", lives.champion().name, why="a test"))
    assert shop.rollouts.now.canary is None  # a rollback ends what was tried


def test_what_a_case_allows() -> None:
    def allowed(**case: Any) -> float:
        return _allowed(EXPLORED, case).budget

    assert allowed(feedback={"explore": {"budget": [lives.BUDGET, lives.WEEK_S]}}) == lives.BUDGET
    assert allowed(feedback={"explore": {"budget": [300.0, lives.WEEK_S]}}) == 300.0
    assert allowed(feedback={"explore": {"budget": [lives.BUDGET, 3600.0]}}) == 0.0
    assert allowed(feedback={"explore": {"budget": [lives.BUDGET, lives.WEEK_S]}}, decision={"high_stakes": True}) == 0.0
    assert allowed() == 0.0


def test_a_process_that_was_killed_spent_what_it_spent(tmp_path: Path) -> None:
    """Real processes: one is killed after it has spent a part, and the next spends what is left and no more."""
    space = tmp_path / "space"
    for i, live in enumerate((lives.bold(), lives.exploring()), 1):
        run = space / "loans" / f"2026010{i}-000000-0000"
        run.mkdir(parents=True)
        (run / "bundle").symlink_to(live.folder)
    (space / "loans" / "latest").write_text("20260102-000000-0000")
    n = 0
    for life in range(2):
        with serving(space) as at:
            if life == 0:
                assert at.ask("POST", f"/v1/models/{lives.bold().name}/canary", json={"explore": EXPLORED.to_json()}).status_code == 200
            for _ in range((3, 9)[life]):
                assert at.ask("POST", "/v1/decisions", json=sent(150, n)).status_code == 200
                n += 100
            at.process.kill()
            at.process.wait(30)
    reader = LedgerReader.open(f"sqlite:///{space / 'loans' / 'service' / 'ledger.sqlite'}")
    stored = [s for batch in reader.scan(kinds=["decision"]) for s in batch]
    reader.close()
    spent = sum(body(s).explored or 0 for s in stored)
    assert len(stored) == 12 * 150
    assert 0.9 * lives.BUDGET * MICRO < spent <= lives.BUDGET * MICRO
    for s in stored:
        kept = body(s)
        chances = dict(zip(kept.options, kept.propensities, strict=True))
        assert chances[kept.action] == kept.propensity > 0.0
        assert sum(kept.propensities) == pytest.approx(1.0)


def test_a_pair_is_a_segment() -> None:
    assert exploring.pair("decline", "approve") in EXPLORED.spread
