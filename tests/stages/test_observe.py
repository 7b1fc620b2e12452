"""A review's log says of every decision what a reader of its events, one by one, would say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.ledger.happenings import CASE, START, STEP, Story, histories, words

from makegood.errors import DataError, LedgerError
from makegood.ledger.erasure import erase
from makegood.ledger.events import Decided, Event, Happened, Private, encode, money, request_hash
from makegood.ledger.store import Ledger
from makegood.monitoring.maturity import NEVER
from makegood.stages import observe
from makegood.stages.observe import Log

LATER = 2**62


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as opened:
        yield opened


def missing(cell: object) -> bool:
    """Return whether a cell is None or NaN."""
    return cell is None or cell != cell


def same(log: Log, ledger: Ledger, now: int) -> None:
    """Compare a log, decision by decision, with the events."""
    expected = histories(ledger.reader, now)
    assert len(log) == len(expected)
    entities: dict[str, int] = {}
    rows = log.rows(np.arange(len(log)))
    for i, history in enumerate(expected):
        stored, decided = history.stored, history.decided
        first, last = words(history)
        done = history.done[0]
        assert (log.at[i], log.names[log.model[i]], log.canary[i]) == (stored.event.at, decided.model, decided.role == "canary")
        assert (log.options[log.decided[i]], log.options[log.done[i]]) == (decided.action, done)
        assert log.promise[i] == money(decided.promise)
        chances = dict(zip(decided.options, decided.propensities, strict=True))
        assert log.chances[i].tolist() == [chances.get(option, 0.0) for option in log.options]
        if stored.event.unit:
            assert entities.setdefault(stored.event.unit, log.entity[i]) == log.entity[i]
        assert log.known_at[i] == (NEVER if first is None else max(first[0].at, stored.event.at))
        overs = [event.at for event, _ in history.overridden]
        for word, got in ((first, log.first[i]), (last, log.paid[i])):
            known = word is not None and word[1].realised is not None and all(at <= word[0].at for at in overs)
            assert got == money(word[1].realised or 0) if known and word else np.isnan(got)
        assert np.isnan(log.outcome[i]) if last is None else log.classes[int(log.outcome[i])] == last[1].value
        heard = log.outcome if log.heard is None else log.heard
        assert np.isnan(heard[i]) if first is None else log.classes[int(heard[i])] == first[1].value
        assert log.readable[i] == (stored.event.private is not None and not decided.inputs_mac)
        for name in rows:
            given = history.private.inputs.get(name) if log.readable[i] else None
            assert missing(rows[name][i]) if given is None else rows[name][i] == given
            assert isinstance(rows[name][i], bool | np.bool_) == isinstance(given, bool)
        for place, shadow in log.shadows.items():
            tried = [s for s in decided.shadows if s.model == log.names[place]]
            assert log.options[shadow.option[i]] == tried[0].action if tried else shadow.option[i] == -1
            assert shadow.promise[i] == money(tried[0].promise) if tried else np.isnan(shadow.promise[i])
    nobody = [log.entity[i] for i, history in enumerate(expected) if not history.stored.event.unit]
    assert len({*nobody, *entities.values()}) == len(nobody) + len(entities), "each of whom nobody named has a code of its own"
    shadowed = {s.model for history in expected for s in history.decided.shadows}
    assert {log.names[place] for place in log.shadows} == shadowed
    menus = [option for history in expected for option in history.decided.options]
    assert log.options[: len(dict.fromkeys(menus))] == tuple(dict.fromkeys(menus))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_decision_is_as_its_events_say(ledger: Ledger, tmp_path: Path, seed: int) -> None:
    story = Story(ledger, seed)
    for _ in range(3):
        story.go_on(80)
        for now in (LATER, (START + story.at) // 2):
            same(observe.load(ledger.url, CASE, now), ledger, now)
            same(observe.load(ledger.url, CASE, now, tmp_path), ledger, now)


def test_several_writers_share_a_ledger(postgres: str, tmp_path: Path) -> None:
    with Ledger.open(postgres) as one, Ledger.open(postgres) as two:
        story = Story(one, 4)
        for _ in range(2):
            story.go_on(60, [two])
            same(observe.load(postgres, CASE, LATER), one, LATER)
            same(observe.load(postgres, CASE, LATER, tmp_path), one, LATER)


def test_what_was_erased_is_not_readable(ledger: Ledger, tmp_path: Path) -> None:
    Story(ledger, 5).go_on(120)
    before = observe.load(ledger.url, CASE, LATER, tmp_path)
    erase(ledger, unit="u3", decisions=["d5.00001"], by="Grace")
    after = observe.load(ledger.url, CASE, LATER, tmp_path)
    same(after, ledger, LATER)
    assert 0 < after.readable.sum() < before.readable.sum()


def decision(id: str, at: int, unit: str = "EUR", action: str = "approve", **more: object) -> Event:
    """Return a decision without inputs, of one option unless it says otherwise."""
    told: dict[str, object] = {"options": (action,), "propensities": (1.0,), "predictive": {"no": 1.0, "yes": 0.0}, **more}
    body = Decided(action, 1, unit, 1.0, model="m@aaaaaaaaaaaa", model_hash="", case_hash="", **told)  # type: ignore[arg-type]
    return Event(id, "decision", CASE, "", "", at, request_hash(id.encode()), encode(body), encode(Private()))


def outcome(about: str, at: int, value: str | float, realised: int | None = 1) -> Event:
    """Return an outcome."""
    id = f"outcome:{about}"
    return Event(id, "outcome", CASE, about, "", at, request_hash(id.encode()), encode(Happened(value, at, "", realised, "EUR")))


def test_nothing_decided_is_an_empty_log(ledger: Ledger, tmp_path: Path) -> None:
    for cache in (None, tmp_path, tmp_path):
        log = observe.load(ledger.url, CASE, LATER, cache)
        assert (len(log), log.unit, log.options, log.names, log.classes, log.shadows) == (0, "", (), (), (), {})
        assert log.chances.shape == (0, 0)
        assert dict(log.rows(np.arange(0))) == {}
    ledger.append([decision("a", START)])
    assert len(observe.load(ledger.url, CASE, START - 1, tmp_path)) == 0, "it was made later"
    assert len(observe.load(ledger.url, "another", LATER)) == 0


def test_outcomes_may_be_numbers(ledger: Ledger) -> None:
    stock = decision("a", START, action="stock", quantity=50.0, options=("stock=50", "stock=100"), propensities=(1.0, 0.0))
    ledger.append([stock, decision("b", START + 1), outcome("a", START + 2, 41.5, 2_500_000), outcome("b", START + 3, 7.0, None)])
    log = observe.load(ledger.url, CASE, LATER)
    assert (log.options, log.classes) == (("stock=50", "stock=100", "approve"), ())
    assert (log.outcome.tolist(), log.paid[0], np.isnan(log.paid[1]), log.heard) == ([41.5, 7.0], 2.5, True, None)
    assert log.chances.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


def test_an_outcome_counts_from_when_it_came_and_not_from_when_it_is_said_to_have(ledger: Ledger) -> None:
    ledger.append([decision("a", START), outcome("a", START + 9 * STEP, "no")])
    log = observe.load(ledger.url, CASE, START + 8 * STEP)
    assert (log.known_at.tolist(), np.isnan(log.paid).all(), np.isnan(log.outcome).all()) == ([NEVER], True, True)
    assert observe.load(ledger.url, CASE, START + 9 * STEP).known_at.tolist() == [START + 9 * STEP]


def test_a_clock_that_was_behind_makes_no_outcome_older_than_its_decision(ledger: Ledger) -> None:
    ledger.append([decision("a", START), outcome("a", START - 5, "no")])
    assert observe.load(ledger.url, CASE, LATER).known_at.tolist() == [START]


def test_money_of_two_units_is_refused(ledger: Ledger) -> None:
    ledger.append([decision("a", START), decision("b", START + 1, "USD")])
    with pytest.raises(DataError, match="decisions of loans: got 'money in EUR, USD'; expected one unit; give the case another name"):
        observe.load(ledger.url, CASE, LATER)
    assert observe.load(ledger.url, CASE, START).unit == "EUR"


def test_outcomes_of_two_kinds_are_refused(ledger: Ledger) -> None:
    ledger.append([decision("a", START), decision("b", START + 1), outcome("a", START + 2, "no"), outcome("b", START + 3, 1.0)])
    with pytest.raises(DataError, match="outcomes of loans: got 'numbers, and classes such as no'; expected one kind of outcome"):
        observe.load(ledger.url, CASE, LATER)


def test_a_ledger_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"expected a ledger's file"):
        observe.load(str(tmp_path / "none.sqlite"), CASE, LATER, tmp_path / "cache")


def test_columns_are_read_by_name(ledger: Ledger) -> None:
    Story(ledger, 6).go_on(60)
    log = observe.load(ledger.url, CASE, LATER)
    rows = np.array([5, 1, 1, 9])
    read = log.rows(rows)
    assert {"amount", "city", "never"} <= set(read)
    assert len(read["amount"]) == 4
    assert read["amount"] is read["amount"], "once"
    with pytest.raises(KeyError, match="sex"):
        read["sex"]
    alone = [log.rows(np.array([row]))["city"][0] for row in rows]
    assert read["city"].tolist() == alone


def test_a_log_may_learn_of_further_options(ledger: Ledger) -> None:
    Story(ledger, 7).go_on(40)
    log = observe.load(ledger.url, CASE, LATER)
    wider = observe.widened(log, ["sue", "approve", "sue", "forgive"])
    assert wider.options == (*log.options, "sue", "forgive")
    assert (wider.chances[:, :-2] == log.chances).all()
    assert not wider.chances[:, -2:].any()
    assert observe.widened(log, log.options) is log
