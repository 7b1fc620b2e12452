"""Models are swapped under load: no answer is lost, none is of a wrong model, and what was logged of chances is what happened."""

from __future__ import annotations

import itertools
import math
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from tests import bundles
from tests.bundles import ROW
from tests.serving import lives
from tests.serving.houses import PROOF, House, house

from makegood.ledger.events import Decided, Private, Stored, micro
from makegood.serving.deciding import drawn
from makegood.serving.live import Live

CLIENTS, UNITS = 6, 400


def sent(i: int) -> dict[str, Any]:
    """Return a request's row; customers come in turn, with other amounts each time."""
    return {**ROW, "customer": i % UNITS, "amount": 500 + 97 * (i % 191), "age": 18 + i % 60, "income": 300.0 * (1 + i % 37)}


@dataclass(frozen=True)
class Answered:
    """An answer, and when it was asked for and came."""

    began: float
    ended: float
    status: int
    body: Any


@dataclass(frozen=True)
class Change:
    """A change of what serves: when it was asked for, when it was answered, and who may decide from then on."""

    began: float
    ended: float
    acting: frozenset[str]
    canary: str = ""
    share: float = 0.0
    salt: str = ""


class Load:
    """Clients that ask without a pause, each on a connection of its own."""

    def __init__(self, url: str) -> None:
        self.answers: list[Answered] = []
        self.errors: list[Exception] = []
        self._url, self._over, self._count = url, threading.Event(), itertools.count()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def _ask(self) -> None:
        with httpx2.Client(base_url=self._url, timeout=20) as client:
            while not self._over.is_set():
                i = next(self._count)
                began = time.perf_counter()
                try:
                    answer = client.post("/v1/decisions", json=sent(i), headers={"Idempotency-Key": f"load-{i}"})
                except httpx2.HTTPError as error:
                    self.errors.append(error)
                    continue
                self.answers.append(Answered(began, time.perf_counter(), answer.status_code, answer.json()))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def go_on(self, n: int) -> None:
        """Wait until n more requests were answered."""
        enough = len(self.answers) + n
        end = time.monotonic() + 60
        while len(self.answers) < enough and time.monotonic() < end:
            time.sleep(0.01)
        assert len(self.answers) >= enough


def changed(where: House, verb: str, live: Live, share: float = 0.0) -> Change:
    began = time.perf_counter()
    said: dict[str, Any] = {"by": "Ada", "why": "a test"} | ({"share": share} if share else {})
    answer = where.client.post(f"/v1/models/{live.name}/{verb}", json=said | ({"evidence": PROOF} if verb == "promote" else {}))
    assert answer.status_code == 200, answer.text
    wanted = where.rollouts.wanted
    canary = wanted.canary
    acting = frozenset({wanted.champion, *([canary.model] if canary else [])})
    return Change(began, time.perf_counter(), acting, *((canary.model, canary.share, canary.salt) if canary else ()))


@pytest.fixture(scope="module")
def swapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Answered], list[Change], dict[str, Stored], dict[str, Live]]:
    """Return what became of a load under which everything was changed that can be."""
    first, second = lives.live(lives.customers(bundles.loans()), "swap first"), lives.bold()
    lives_by_name = {live.name: live for live in (first, second)}
    folder: Path = tmp_path_factory.mktemp("swap")
    with house(folder, "loans", first, second) as shop:
        changes = [Change(0.0, 0.0, frozenset({first.name}))]
        with Load(shop.url) as load:
            load.go_on(100)
            for verb, live, share, more in (
                ("canary", second, 0.2, UNITS), ("canary", second, 0.6, UNITS), ("retire", second, 0.0, 60), ("shadow", second, 0.0, 60),
                ("promote", second, 0.0, 100), ("rollback", second, 0.0, 100), ("canary", second, 0.3, 100), ("promote", second, 0.0, 100),
                ("canary", first, 0.5, 100), ("rollback", second, 0.0, 60),
            ):  # fmt: skip
                changes.append(changed(shop, verb, live, share))
                load.go_on(more)
        assert load.errors == []
        stored = {s.event.id: s for batch in shop.service.ledger.reader.scan(kinds=["decision"]) for s in batch}
    return load.answers, changes, stored, lives_by_name


def windows(changes: list[Change]) -> list[tuple[float, float, Change]]:
    """Return from when until when each change's models may have decided: from its asking until the next was answered."""
    ends = [change.ended for change in changes[1:]] + [math.inf]
    return [(change.began, end, change) for change, end in zip(changes, ends, strict=True)]


def settled(answer: Answered, changes: list[Change]) -> Change | None:
    """Return the change in whose time alone a request came and was answered, None where another fell into it."""
    (*found,) = [change for begin, end, change in windows(changes) if begin <= answer.ended and answer.began <= end]
    return found[0] if len(found) == 1 else None


def body(stored: Stored) -> tuple[Decided, dict[str, Any]]:
    assert stored.event.private is not None
    return msgspec.json.decode(stored.event.body, type=Decided), msgspec.json.decode(stored.event.private, type=Private).inputs


def test_no_answer_is_lost_or_doubled(swapped: Any) -> None:
    answers, _, stored, _ = swapped
    assert len(answers) > 1500
    assert {answer.status for answer in answers} == {200}
    ids = [answer.body["id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    assert set(ids) == set(stored)


def test_no_answer_is_of_a_wrong_model(swapped: Any) -> None:
    answers, changes, stored, found = swapped
    models: set[str] = set()
    for answer in answers:
        allowed = {
            name for begin, end, change in windows(changes) if begin <= answer.ended and answer.began <= end for name in change.acting
        }
        assert answer.body["model"] in allowed
        said, _ = body(stored[answer.body["id"]])
        assert (said.model, said.action, said.promise) == (answer.body["model"], answer.body["action"], micro(answer.body["promise"]))
        models.add(said.model)
    assert models == set(found)


def test_each_replays_through_the_model_that_it_names_with_its_chances(swapped: Any) -> None:
    answers, changes, stored, found = swapped
    replayed = {
        name: dict(zip(stored, live.model.decide([body(s)[1] for s in stored.values()], reasons=0), strict=True))
        for name, live in found.items()
    }
    differ = 0
    for answer in answers:
        id = answer.body["id"]
        said, _ = body(stored[id])
        again = replayed[said.model][id]
        assert (said.action, said.promise) == (again.action, micro(again.promise))
        change = settled(answer, changes)
        if change is None:
            continue
        chances = dict.fromkeys(said.options, 0.0)
        for name in change.acting:
            chances[replayed[name][id].action] += (change.share if name == change.canary else 1.0 - change.share) if change.canary else 1.0
        assert dict(zip(said.options, said.propensities, strict=True)) == pytest.approx(chances, abs=1e-15)
        assert said.propensity == pytest.approx(chances[said.action], abs=1e-15)
        differ += bool(change.canary) and said.propensity < 1
    assert differ > 20  # or the chances were all certain, and this test saw nothing


def test_a_canary_is_sticky_and_has_its_share(swapped: Any) -> None:
    answers, changes, stored, _ = swapped
    by_change: dict[Change, dict[str, str]] = {}
    for answer in answers:
        change = settled(answer, changes)
        if change is None or not change.canary:
            continue
        event = stored[answer.body["id"]].event
        said, _ = body(stored[answer.body["id"]])
        assert said.role == ("canary" if drawn(change.salt, event.unit) < change.share else "champion")
        assert by_change.setdefault(change, {}).setdefault(event.unit, said.role) == said.role  # whoever comes again meets the same model
    small, grown = (next(roles for change, roles in by_change.items() if change.share == share) for share in (0.2, 0.6))
    with_canary = {unit for unit, role in small.items() if role == "canary"}
    assert len(with_canary) > 10
    assert all(grown.get(unit, "canary") == "canary" for unit in with_canary)
    for change, roles in by_change.items():
        n, k = len(roles), list(roles.values()).count("canary")
        assert abs(k - n * change.share) <= 5.5 * math.sqrt(n * change.share * (1 - change.share))  # once in 10⁷ by chance
