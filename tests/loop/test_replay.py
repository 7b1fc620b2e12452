"""A replay: reviews on schedule, outcomes in time, and nothing done that a person has not allowed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from tests.loop.tapes import first, small
from tests.loop.test_controller import alarm, challenge
from tests.loop.test_controller import review as reviewed

from makegood.errors import DataError, Problem
from makegood.loop.controller import Act, Memory, Terms
from makegood.loop.house import Manner, Retrained, turn
from makegood.loop.inside import Inside
from makegood.loop.replay import edges, nobody, play, silent
from makegood.monitoring.review import Review
from makegood.stages.facts import Entrant, Standing

DAY = 86_400_000_000


@dataclass
class Said:
    """A house of one review, which writes down what it is told to do."""

    found: Review
    now: Standing
    done: list[Act] = field(default_factory=list)
    looks: list[bool] = field(default_factory=list)
    fails: bool = False

    def standing(self) -> Standing:
        return self.now

    def review(self, now: int, thorough: bool = False) -> Review:
        self.looks.append(thorough)
        return replace(self.found, at=now)

    def retrain(self, now: int, since: int | None) -> Retrained:
        if self.fails:
            raise DataError(Problem("the time split", "3 rows", "at least 50", "bring more rows"))
        return Retrained("loans@new", 900, since, "deploy", "Made of 900 rows.", 1.5)

    def act(self, act: Act, now: int) -> None:
        self.done.append(act)


def manner(*, high_stakes: bool = False, yes: bool = False, thorough: bool = False) -> Manner:
    terms = replace(Terms.of(small().case), high_stakes=high_stakes)
    return Manner(terms, (lambda act: yes) if yes else nobody, thorough)


def test_there_is_a_review_after_each_period_until_the_last_row_is_decided() -> None:
    tape = small()
    times = edges(tape, 14 * DAY)
    assert times[0] == tape.start + 14 * DAY
    assert set(np.diff(times).tolist()) == {14 * DAY}
    assert times[-2] <= tape.at[-1] < times[-1]


def test_a_stable_world_is_played_without_a_change() -> None:
    tape = small("stable")
    house, told = Inside(tape, first(tape)), []
    played = play(tape, house, manner(), lambda what, share: told.append(share))
    assert len(played.reviews) == len(edges(tape, 14 * DAY))
    assert house.standing() == Standing(first(tape).id, tape.start)
    assert [e.kind for e in played.events if e.kind in ("promoted", "rolled back")] == []
    assert played.reviews[-1].at == tape.end
    assert played.reviews[-1].matured == len(tape)
    assert told == sorted(told)
    assert set(played.seconds) == {"decide", "review", "retrain"}
    assert (house.log().known_at >= house.log().at).all()


def test_a_broken_promise_is_told_retrained_for_and_tried() -> None:
    broken = reviewed(promise=alarm(evidence=8e5, raised=True))
    house = Said(broken, Standing("a", 0))
    done = turn(house, Memory(), manner(), 100 * DAY)
    assert [(e.kind, e.at) for e in done.events] == [("alarm", 100 * DAY), ("retrained", 100 * DAY), ("canary", 100 * DAY)]
    assert done.events[1].words.startswith("loans@new: Decisions pay less than promised")
    assert done.events[1].words.endswith("Made of 900 rows.")
    assert [act.verb for act in house.done] == ["alarm", "canary"]
    assert done.trained[0].name == "loans@new"
    assert house.looks == [False]
    assert turn(house, done.memory, manner(), 107 * DAY).events == ()


def test_a_review_that_leads_to_something_is_thorough_where_that_is_asked_for() -> None:
    house = Said(reviewed(promise=alarm(evidence=8e5, raised=True)), Standing("a", 0))
    turn(house, Memory(), manner(thorough=True), 100 * DAY)
    assert house.looks == [False, True]
    quiet = Said(reviewed(), Standing("a", 0))
    turn(quiet, Memory(), manner(thorough=True), 100 * DAY)
    assert quiet.looks == [False]


def test_a_model_that_cannot_be_made_changes_nothing() -> None:
    house = Said(reviewed(promise=alarm(evidence=6000.0)), Standing("a", 0), fails=True)
    done = turn(house, Memory(), manner(), 100 * DAY)
    assert [e.kind for e in done.events] == ["dropped"]
    assert "No new model could be made: the time split: got '3 rows'" in done.events[0].words
    assert house.done == []


@pytest.mark.parametrize("yes", [False, True])
def test_where_stakes_are_high_a_person_is_asked_before_who_decides_changes(yes: bool) -> None:
    found = reviewed(challenges=(challenge(decision="promote", evidence=25.0),))
    house = Said(found, Standing("a", 0, (Entrant("b", 0),)))
    done = turn(house, Memory(), manner(high_stakes=True, yes=yes), 50 * DAY)
    assert [act.verb for act in house.done] == (["promote"] if yes else [])
    assert [act.model for act in done.asked] == ([] if yes else ["b"])
    assert [e.kind for e in done.events] == (["promoted"] if yes else [])
    if yes:
        assert done.events[0].words == "b: Words of promote."


def test_nobody_says_no_and_silence_shows_nothing() -> None:
    assert nobody(Act("promote", "b", "better")) is False
    silent("1 review", 0.1)
