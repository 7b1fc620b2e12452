"""The house in this process keeps the service's rules: sticky draws, exact chances, one champion, outcomes when they come."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.loop.tapes import first, small

from makegood.errors import CaseError
from makegood.loop.controller import Act
from makegood.loop.inside import Inside, draws
from makegood.monitoring.maturity import NEVER
from makegood.stages.facts import Entrant, Standing

DAY = 86_400_000_000


def house(selective: bool = False) -> Inside:
    """Return a house with a second model beside its champion."""
    tape = small(selective=selective)
    made = Inside(tape, first(tape))
    second = first(small("stable", seed=5, selective=selective))
    made.models["second"] = replace(second, id="second")
    return made


def test_each_unit_draws_the_same_under_a_salt_and_another_under_another() -> None:
    units = np.arange(20_000)
    assert (draws(units, 1) == draws(units[::-1], 1)[::-1]).all()
    assert abs(np.corrcoef(draws(units, 1), draws(units, 2))[0, 1]) < 0.03
    assert abs((draws(units, 1) < 0.1).mean() - 0.1) < 0.01


def test_decisions_are_the_models_and_outcomes_come_when_they_come() -> None:
    made = house()
    made.decide(slice(0, 300))
    made.decide(slice(300, 600))
    now = int(made.tape.at[599])
    made.tell(now)
    log = made.log()
    decided = first(made.tape).decide_columns(made.tape.take(slice(0, 600)), reasons=0)
    assert len(log) == 600
    assert (log.decided == decided.choices.option).all()
    assert (log.promise == decided.promise).all()
    assert (log.chances.max(axis=1) == 1.0).all()
    assert ((log.known_at <= now) == (made.tape.known_at[:600] <= now)).all()
    assert (np.isnan(log.paid) == (log.known_at == NEVER)).all()
    assert np.allclose(log.paid[log.known_at < NEVER], made.paid[:600][log.known_at < NEVER])
    assert (made.done == log.done).all()
    assert log.rows(np.array([3, 5]))["amount"].tolist() == made.tape.raw["amount"][[3, 5]].tolist()


def test_what_a_decision_hides_is_not_told() -> None:
    made = house(selective=True)
    made.decide(slice(0, 800))
    made.tell(made.tape.end)
    log = made.log()
    declined = log.options.index("decline")
    assert (log.done == declined).any()
    assert (log.known_at[log.done == declined] == NEVER).all()
    assert np.isnan(log.outcome[log.done == declined]).all()


def test_a_shadow_is_scored_and_never_acts() -> None:
    made = house()
    made.act(Act("shadow", "second", "try"), made.tape.start)
    made.decide(slice(0, 500))
    log = made.log()
    assert made.standing() == Standing(first(made.tape).id, made.tape.start, (Entrant("second", made.tape.start),))
    beside = log.shadows[log.names.index("second")]
    assert (beside.option >= 0).all()
    assert (log.model == 0).all()
    assert (log.decided == first(made.tape).decide_columns(made.tape.take(slice(0, 500)), reasons=0).choices.option).all()
    made.act(Act("drop", "second", "enough"), made.tape.start)
    made.decide(slice(500, 600))
    assert (made.log().shadows[1].option[500:] == -1).all()


def test_a_canary_decides_on_its_share_of_the_units_by_chances_that_are_logged() -> None:
    made = house()
    made.act(Act("canary", "second", "try", share=0.3), made.tape.start)
    made.decide(slice(0, 1600))
    log = made.log()
    assert made.standing().entrants == (Entrant("second", made.tape.start, 0.3, drawn=made.tape.start),)
    assert abs(log.canary.mean() - 0.3) < 0.05
    by_unit = {unit: set(log.canary[log.entity == unit].tolist()) for unit in np.unique(log.entity).tolist()}
    assert all(len(did) == 1 for did in by_unit.values())
    mine, theirs = log.shadows[0].option, log.shadows[1].option
    place, differs = np.arange(1600), mine != theirs
    assert differs.any()
    assert (log.chances[place, log.decided][~differs] == 1.0).all()
    assert np.allclose(log.chances[place, theirs][differs], 0.3)
    assert np.allclose(log.chances[place, mine][differs], 0.7)
    assert (log.decided == np.where(log.canary, theirs, mine)).all()
    assert (log.model == log.canary).all()


def test_a_trial_goes_on_in_another_role_and_there_is_one_canary() -> None:
    made, at = house(), small().start
    made.models["third"] = made.models["second"]
    made.act(Act("shadow", "second", "try"), at)
    made.act(Act("shadow", "third", "try"), at + 1)
    made.act(Act("canary", "second", "it earns more"), at + 2)
    lent = (Entrant("third", at + 1, place=2), Entrant("second", at, 0.5, drawn=at + 2))
    assert made.standing().entrants == lent
    made.decide(slice(0, 400))
    assert made.log().canary.any()
    made.act(Act("shadow", "second", "it earns no more"), at + 3)
    assert set(made.standing().entrants) == {Entrant("second", at), Entrant("third", at + 1, place=2)}
    made.decide(slice(400, 800))
    assert not made.log().canary[400:].any()
    made.act(Act("canary", "third", "it earns more"), at + 4)
    made.act(Act("canary", "second", "it earns more"), at + 5)
    assert made.standing().entrants == (Entrant("second", at, 0.5, drawn=at + 5),), "it took the traffic of the other, which left"
    made.act(Act("promote", "second", "better", share=0.2), at + 6)
    assert made.standing().before == Entrant(first(made.tape).id, at + 6, 0.2, 0)


def test_a_promoted_model_decides_and_the_old_one_guards() -> None:
    made, at = house(), small().start
    champion = first(made.tape).id
    made.act(Act("shadow", "second", "try"), at)
    made.act(Act("promote", "second", "better"), at + 1)
    assert made.standing() == Standing("second", at + 1, (Entrant(champion, at + 1, place=0),))
    made.act(Act("rollback", "second", "worse"), at + 2)
    assert made.standing() == Standing(champion, at + 2)
    with pytest.raises(CaseError, match="expected a champion before this one"):
        made.act(Act("rollback", champion, "worse"), at + 3)


def test_where_it_is_drawn_the_old_champion_keeps_a_share() -> None:
    made, at = house(), small().start
    champion = first(made.tape).id
    made.act(Act("canary", "second", "try"), at)
    made.act(Act("promote", "second", "better", share=0.1), at + 1)
    assert made.standing() == Standing("second", at + 1, (), Entrant(champion, at + 1, 0.1, 0))
    made.decide(slice(0, 1600))
    assert abs(made.log().canary.mean() - 0.1) < 0.04
    made.act(Act("alarm", "second", "a promise"), at + 2)
    made.act(Act("release", champion, "guarded"), at + 2)
    assert made.standing() == Standing("second", at + 1)
    made.decide(slice(0, 100))
    assert not made.log().canary[:100].any()


def test_a_glance_and_a_thorough_review_say_the_same() -> None:
    made = house()
    made.act(Act("shadow", "second", "try"), made.tape.start)
    made.decide(slice(0, 1600))
    made.tell(made.tape.end)
    brief, full = made.review(made.tape.end), made.review(made.tape.end, thorough=True)
    assert brief.alarm == full.alarm
    assert (brief.n, brief.matured, brief.overridden, brief.verdict) == (full.n, full.matured, full.overridden, full.verdict)
    assert [(c.model, c.decision, c.evidence) for c in brief.challenges] == [(c.model, c.decision, c.evidence) for c in full.challenges]
    assert brief.promised.value == pytest.approx(full.promised.value, abs=1.0)
    assert brief.gap.value == pytest.approx(full.gap.value, abs=2.0)
    assert full.maturity
    assert brief.replayed
    assert brief.injected == made.tape.injected


def test_a_glance_at_nothing_waits() -> None:
    found = house().review(small().start)
    assert (found.n, found.periods, found.verdict) == (0, (), "wait")
    assert np.isnan(found.realised.value)
