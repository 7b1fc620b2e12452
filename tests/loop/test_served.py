"""The house that is a real service: what a tape is played to over HTTP, what its ledger then says, and how it is changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from tests.loop.tapes import first, quick, small

from makegood import Client, pipeline
from makegood import model as models
from makegood.client import Outcome
from makegood.errors import Refused, ServiceError
from makegood.loop.controller import Act
from makegood.loop.inside import Inside
from makegood.loop.served import About, Replayed, Served, begins, replaying, step
from makegood.loop.tape import Tape
from makegood.model import Model
from makegood.serving.locate import Place, Replay, locate

DAY = 86_400_000_000
N = 900


@dataclass
class Here:
    """A replay of a tape's first rows, and the bundle that it began with."""

    house: Replayed
    tape: Tape
    model: Model
    now: int


def placed(folder: Path, tape: Tape) -> tuple[Place, Path]:
    """Return the place of a replay in a workspace in which the tape's history was run."""
    run = pipeline.run(tape.case, data=tape.history, workspace=folder, until="bundle")
    assert run.bundle is not None
    place = locate(str(run.bundle), folder)
    return replace(place, replay=Replay(f"sqlite:///{(folder / 'replay.sqlite').resolve()}")), run.bundle


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """A service to which 900 rows were played, with a second model in its shadow since the 300th."""
    tape = small(selective=True)
    place, folder = placed(tmp_path_factory.mktemp("served"), tape)
    with replaying(place, begins(tape)) as url, Client(url, timeout_s=60.0) as client:
        house = Replayed(tape, place, client, About(tape.case, tape.history, injected=tape.injected))
        house.decide(slice(0, 300))
        house.tell(int(tape.at[300]))
        house.decide(slice(300, N))
        now = int(tape.at[N])
        house.tell(now)
        yield Here(house, tape, models.load(folder), now)


def test_a_service_decides_as_the_model_does_in_this_process(here: Here) -> None:
    inside = Inside(here.tape, here.model)
    inside.decide(slice(0, N))
    inside.tell(here.now)
    mine, theirs = inside.log(), here.house.log(here.now)
    assert len(theirs) == N
    assert [theirs.options[i] for i in theirs.decided] == [mine.options[i] for i in mine.decided]
    assert np.allclose(theirs.promise, mine.promise, atol=1e-6)
    assert np.allclose(here.house.paid[:N], inside.paid[:N])
    assert (np.abs(theirs.at - mine.at) < DAY).all()
    assert (np.unique(theirs.entity, return_index=True)[1] == np.unique(mine.entity, return_index=True)[1]).all() or len(
        np.unique(theirs.entity)
    ) == len(np.unique(mine.entity))


def test_outcomes_come_when_they_came_and_only_where_they_are_revealed(here: Here) -> None:
    log, tape = here.house.log(here.now), here.tape
    told = ~np.isnan(log.outcome)
    approved = np.array([log.options[i] == "approve" for i in log.done])
    floor = here.now - (here.now - begins(tape)) % DAY
    assert (told == (approved & (tape.known_at[:N] < floor + DAY))).all()
    assert (np.abs(log.known_at[told] - tape.known_at[:N][told]) < DAY).all()
    assert (log.known_at[told] - log.at[told] <= 14 * DAY).all(), "none is later than it may be"
    assert np.allclose(log.paid[told], here.house.paid[:N][told], atol=1e-5)


def test_a_review_of_the_ledger_is_that_of_the_arrays(here: Here) -> None:
    inside = Inside(here.tape, here.model)
    inside.decide(slice(0, N))
    inside.tell(here.now)
    mine, theirs = inside.review(here.now), here.house.review(here.now)
    assert (theirs.model, theirs.n, theirs.replayed, theirs.injected) == (mine.model, mine.n, True, here.tape.injected)
    assert theirs.alarm.limit == pytest.approx(mine.alarm.limit, rel=0.1)
    assert abs(theirs.alarm.ticks - mine.alarm.ticks) <= 30
    assert theirs.gap.value == pytest.approx(mine.gap.value, abs=3.0)
    assert here.house.review(here.now, thorough=True).maturity


def test_what_serves_is_changed_over_http_and_the_ledger_says_why(here: Here) -> None:
    house, now = here.house, here.now
    champion = house.standing().champion
    made = house.retrain(now, None)
    assert made.name in {m["name"] for m in house.client.models()["models"]}
    house.act(Act("shadow", made.name, "it is tried"), now)
    assert [e.model for e in house.standing().entrants] == [made.name]
    evidence: dict[str, float | str] = {"champion": champion, "evidence": 30.0, "limit": 20.0, "test": "betting"}
    for weak in ({"evidence": 3.0, "limit": 20.0}, {}):
        with pytest.raises(Refused, match="expected evidence that it earns more"):
            house.act(Act("promote", made.name, "hope", weak), now)
    house.act(Act("promote", made.name, "it earns more", evidence), now)
    assert house.standing().champion == made.name
    assert [e.model for e in house.standing().entrants] == [champion], "the old champion guards"
    said = house.client.promotions()["promotions"]
    assert any(p.get("why") == "it earns more" for p in said)
    house.act(Act("rollback", made.name, "it earns less", {**evidence, "champion": made.name}), now)
    assert house.standing().champion == champion
    if made.verdict == "refuse":  # the controller gives it no traffic; a person may
        with pytest.raises(ServiceError, match="the verdict on"):
            house.act(Act("canary", made.name, "it is drawn", share=0.4), now)
        house.client.canary(made.name, 0.4, by="somebody", why="it is drawn", force=True)
    else:
        house.act(Act("canary", made.name, "it is drawn", share=0.4), now)
    assert house.standing().entrants[0].least == 0.4
    house.act(Act("promote", made.name, "it earns more", evidence, share=0.1), now)
    assert house.standing().before is not None
    house.act(Act("release", champion, "guarded"), now)
    assert house.standing().before is None
    told: dict[str, float | str] = {"test": "promise", "evidence": 1e30, "limit": 900.0, "ticks": 40.0}
    house.act(Act("alarm", made.name, "The promise is broken.", told, since=now - DAY), now)
    house.act(Act("alarm", made.name, "Outcomes are missing.", {**told, "test": "missing"}), now)
    house.act(Act("retrain", made.name, "nothing to serve"), now)
    assert [a["test"] for a in house.client.alarms()["alarms"]] == ["promise", "missing"]


def test_an_outcome_that_the_service_refuses_is_an_error(here: Here) -> None:
    (receipt,) = here.house.client.outcomes([Outcome("row-0.0", "perhaps", id="odd")])
    assert receipt.state == "refused"
    odd = replace(here.tape, outcome=np.where(np.arange(len(here.tape)) < 10**6, "perhaps", "no").astype(object))
    house = Replayed(odd, here.house.place, here.house.client, here.house.about)
    house._ids, house._reveals, house._clock = here.house._ids, [True] * N, here.house._clock
    with pytest.raises(ServiceError, match="perhaps"):
        house._tell(here.house._clock)


def test_a_case_that_is_not_served_has_no_standing(here: Here, tmp_path: Path) -> None:
    place = replace(here.house.place, case="another")
    with pytest.raises(Refused, match="no champion in the ledger"):
        Served(place, here.house.client, here.house.about).standing()


def test_a_replay_that_does_not_start_says_why(here: Here) -> None:
    nowhere = replace(here.house.place, replay=Replay("sqlite:////proc/nowhere/replay.sqlite"))
    with pytest.raises(ServiceError, match="expected a replay that starts"), replaying(nowhere, begins(here.tape)):
        pass


def test_steps_are_days_or_less_and_whole_parts_of_the_delay() -> None:
    case = small().case
    assert step(case) == DAY
    assert step(case.model_copy(update={"data": case.data.model_copy(update={"outcome_delay": 0.0})})) == DAY
    assert step(case.model_copy(update={"data": case.data.model_copy(update={"outcome_delay": 1.5 * 86400})})) == 3 * DAY // 4
    assert step(quick(small(), review=3600.0).case) == DAY // 24
    assert first(small()).id
