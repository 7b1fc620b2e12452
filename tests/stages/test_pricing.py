"""What decisions pay by a bundle's payoffs is what the service said of each, and what the bundle says of each row by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import bundles
from tests.bundles import ROW
from tests.serving import lives
from tests.serving.houses import House, house

from makegood.contracts import Ints
from makegood.economics.expression import parse
from makegood.economics.limits import Limit
from makegood.economics.payoff import Payoffs
from makegood.economics.policy import Policy
from makegood.errors import DataError
from makegood.ledger.erasure import erase
from makegood.ledger.events import money
from makegood.model import Model
from makegood.serving.history import History
from makegood.serving.live import Live
from makegood.stages import observe, pricing
from makegood.stages.observe import Log

LATER = 2**62


@pytest.fixture(scope="module")
def hiding() -> Live:
    """Return loans where declining reveals nothing, and whose rows are about somebody."""
    model = lives.serving(bundles.loans())
    actions = tuple(replace(terms, reveals=terms.name != "decline") for terms in model.policy.payoffs.actions)
    policy = replace(model.policy, payoffs=replace(model.policy.payoffs, actions=actions))
    case = {**model.case, "data": {**model.case["data"], "group": "customer"}}
    return lives.live(replace(model, policy=policy, case=case), "hiding-by-customer")


@dataclass(frozen=True)
class Told:
    """A service that decided, and was told of outcomes, corrections and overrides."""

    house: House
    lives: dict[str, Live]
    log: Log  # as the ledger has it

    @property
    def models(self) -> dict[str, Model]:
        return {name: live.model for name, live in self.lives.items()}

    @property
    def priced(self) -> Log:
        return pricing.repriced(self.log, self.models)

    def histories(self) -> list[History]:
        """Return what a reader of events, one by one, makes of them."""
        reader = self.house.service.ledger.reader
        made = [one for batch in reader.scan(kinds=("decision",)) for one in batch]
        made.sort(key=lambda one: (one.event.at, one.partition, one.seq))
        return [History.of(one, reader.about(one.event.id)) for one in made]


def post(where: House, path: str, body: Any) -> Any:
    answer = where.client.post(path, json=body)
    assert answer.status_code in (200, 201, 207), answer.text
    return answer.json()


def served(folder: Path, case: str, first: Live, other: Live | None, rows: list[dict[str, Any]], outcomes: list[Any]) -> Iterator[Told]:
    """Yield a service, with a canary where there is another bundle, that decided on rows and was told of most of them."""
    with house(folder, case, first, *([other] if other else [])) as open_house:
        if other:
            post(open_house, f"/v1/models/{other.name}/canary", {"share": 0.5, "why": "to see"})
        ids = [told["id"] for start in range(0, len(rows), 50) for told in post(open_house, "/v1/decisions", rows[start : start + 50])]
        early = [i for i in range(len(ids)) if i % 7 == 3]
        sent = [{"decision": ids[i], "outcome": outcomes[i]} for i in range(len(ids)) if i % 5]
        over = {"action": "stock", "quantity": 40} if case == "bakery" else {}
        said = [over or {"action": "approve" if i % 2 else "decline"} for i in early]  # whatever the canary drew, some reveal nothing
        post(open_house, "/v1/overrides", [{"decision": ids[i], "by": "a clerk", **how} for i, how in zip(early, said, strict=True)])
        post(open_house, "/v1/outcomes", sent)
        wrong = [i for i in range(len(ids)) if i % 5 and i % 11 == 2]
        post(open_house, "/v1/corrections", [{"decision": ids[i], "outcome": outcomes[i - 1], "why": "a typo"} for i in wrong])
        late = [i for i in range(len(ids)) if i % 9 == 4]
        over = {"by": "a clerk", **({"action": "stock", "quantity": 60} if case == "bakery" else {"action": "refer"})}
        post(open_house, "/v1/overrides", [{"decision": ids[i], **over} for i in late])
        log = observe.load(open_house.service.ledger.url, case, LATER, folder)
        yield Told(open_house, {live.name: live for live in (first, other) if live}, log)


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory, hiding: Live) -> Iterator[Told]:
    rng = np.random.default_rng(0)
    rows = [
        {
            **ROW,
            "amount": int(rng.integers(5, 200)) * 100,
            "age": None if rng.random() < 0.1 else int(rng.integers(18, 80)),
            "income": float(np.exp(rng.normal(8, 1))),
            "region": str(rng.choice(bundles.REGIONS[:6])),
            "employed": bool(rng.random() < 0.6),
            "customer": int(rng.integers(40)),
        }
        for _ in range(150)
    ]
    outcomes = rng.choice(["no", "yes"], len(rows)).tolist()
    yield from served(tmp_path_factory.mktemp("loans"), "loans", hiding, lives.challenger(), rows, outcomes)


@pytest.fixture(scope="module")
def bakery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    rng = np.random.default_rng(1)
    rows = [{**ROW, "age": int(rng.integers(18, 80)), "amount": int(rng.integers(5, 200)) * 100} for _ in range(40)]
    yield from served(tmp_path_factory.mktemp("bakery"), "bakery", lives.stock(), None, rows, rng.integers(0, 300, len(rows)).tolist())


def every(log: Log) -> Ints:
    return np.arange(len(log))


def alone(log: Log, model: Model, row: int) -> dict[str, list[Any]]:
    """Return one row's inputs, as values that came out of JSON."""
    raw = pricing.inputs(log, model, np.array([row]))
    return {name: [None if cell != cell else cell for cell in cells.tolist()] for name, cells in raw.items()}  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["loans", "bakery"])
def test_what_was_paid_is_what_the_service_says(name: str, request: pytest.FixtureRequest) -> None:
    told: Told = request.getfixturevalue(name)
    log, before = told.priced, told.log
    late = unknown = 0
    for i, history in enumerate(told.histories()):
        assert log.options[log.done[i]] == (history.done[0] if history.done[1] is None else f"{history.done[0]}={history.done[1]:g}")
        realised = history.realised(told.lives[history.decided.model])
        assert np.isnan(log.paid[i]) if realised is None else log.paid[i] == pytest.approx(money(realised), abs=1e-6)
        kept = history.realised(None)
        assert np.isnan(before.paid[i]) if kept is None else before.paid[i] == money(kept)
        late += kept is None and realised is not None
        unknown += realised is None and bool(history.happened)
        if history.happened and log.done[i] >= 0:
            first = replace(history, happened=history.happened[:1]).realised(told.lives[history.decided.model])
            assert np.isnan(log.first[i]) if first is None else log.first[i] == pytest.approx(money(first), abs=1e-6)
    assert late > 1, "some were overridden after their outcome"
    assert unknown or name == "bakery", "some revealed nothing"


@pytest.mark.parametrize("name", ["loans", "bakery"])
def test_what_each_option_would_have_paid_is_what_the_bundle_says_of_the_row(name: str, request: pytest.FixtureRequest) -> None:
    told: Told = request.getfixturevalue(name)
    log = told.priced
    for model in told.models.values():
        place = pricing.places(log, model)
        paid = pricing.payoffs(log, model, every(log))
        assert paid.shape == (len(log), len(log.options))
        assert (np.isnan(paid).all(axis=1) == np.isnan(log.outcome)).all()
        for row in range(0, len(log), 3):
            if not np.isnan(log.outcome[row]):
                came = log.classes[int(log.outcome[row])] if log.classes else float(log.outcome[row])
                assert paid[row, place] == pytest.approx(model.realised(alone(log, model, row), [came])[0], rel=1e-12)
        some = np.array([7, 3, 3, 11])
        assert np.array_equal(pricing.payoffs(log, model, some), paid[some], equal_nan=True)
    assert pricing.payoffs(log, model, np.empty(0, dtype=np.int64)).shape == (0, len(log.options))


def test_what_another_action_would_have_brought_is_unknown_where_the_outcome_hangs_on_it(loans: Told) -> None:
    log = loans.priced
    model = next(iter(loans.models.values()))
    paid = pricing.payoffs(log, model, every(log))
    swayed = replace(model, case={**model.case, "data": {**model.case["data"], "affected_by_action": True}})
    own = pricing.payoffs(log, swayed, every(log))
    known = ~np.isnan(own)
    assert (known.sum(axis=1) == ~np.isnan(log.outcome)).all()
    rows, options = np.nonzero(known)
    assert (options == log.done[rows]).all()
    assert (own[known] == paid[known]).all()


def test_what_is_sure_and_between_which_ends_the_rest_lies(loans: Told) -> None:
    log = loans.priced
    model = next(iter(loans.models.values()))
    low, high = pricing.ends(log, model, every(log))
    sure = pricing.sure(log, model, every(log))
    decline = log.options.index("decline")
    assert not sure[:, decline].any()
    assert np.isnan(np.delete(sure, decline, axis=1)).all()
    for row in range(0, len(log), 10):
        both = np.concatenate([model.realised(alone(log, model, row), [came]) for came in ("no", "yes")])
        assert low[row, pricing.places(log, model)] == pytest.approx(both.min(axis=0))
        assert high[row, pricing.places(log, model)] == pytest.approx(both.max(axis=0))
    assert dict(zip(log.options, pricing.reveals(log, model).tolist(), strict=True)) == {"approve": True, "refer": True, "decline": False}


def test_of_a_number_the_ends_are_those_that_the_case_declares(bakery: Told) -> None:
    log = bakery.priced
    model = next(iter(bakery.models.values()))
    low, high = pricing.ends(log, model, every(log))
    nothing = log.options.index("stock=0")
    sure = pricing.sure(log, model, every(log))
    assert np.isnan(sure).all(), "3.2 * min(quantity, outcome) is written with the outcome"
    assert (low == -np.inf).all()
    assert (high == np.inf).all()
    capped = replace(model, case={**model.case, "feedback": {"promote": {"cap": [-570.0, 390.0]}}})
    low, high = pricing.ends(log, capped, every(log))
    assert (set(low.ravel()), set(high.ravel())) == ({-570.0}, {390.0})
    fixed = Payoffs.of({"stock": {"quantity": {"min": 0, "max": 300, "step": 20}, "payoff": "0.001 * amount - quantity"}}, "EUR")
    flat = replace(model, policy=Policy(fixed))
    assert pricing.sure(log, flat, every(log))[:, nothing] == pytest.approx(0.001 * log.rows(every(log))["amount"])
    low, high = pricing.ends(log, flat, every(log))
    assert np.array_equal(low, high)
    assert (pricing.choices(log, flat, every(log)).option == nothing).all()
    nowhere = {"stock": {"quantity": {"min": 0, "max": 300, "step": 20}, "payoff": "log(0 * amount) - quantity * outcome"}}
    none = replace(model, policy=Policy(Payoffs.of(nowhere, "EUR")))
    assert (pricing.choices(log, none, every(log)).option == -1).all()


@pytest.mark.parametrize("name", ["loans", "bakery"])
def test_what_a_bundle_would_choose_is_what_it_logged(name: str, request: pytest.FixtureRequest) -> None:
    told: Told = request.getfixturevalue(name)
    log = told.priced
    for model in told.models.values():
        place = log.names.index(model.id)
        found = pricing.choices(log, model, every(log))
        mine = log.model == place
        assert (found.option[mine] == log.decided[mine]).all()
        assert found.promise[mine] == pytest.approx(log.promise[mine], abs=1e-6)
        if place in log.shadows:
            assert (found.option[~mine] == log.shadows[place].option[~mine]).all()
            assert found.promise[~mine] == pytest.approx(log.shadows[place].promise[~mine], abs=1e-6)
        expected = pricing.expected(log, model, every(log))
        whole = model.decide_columns(pricing.inputs(log, model, every(log)), reasons=0).expected
        assert (expected[:, pricing.places(log, model)] == whole).all()
    assert log.canary.any() or name == "bakery"


def test_a_bundle_with_other_options_needs_a_log_that_knows_them(loans: Told) -> None:
    model = next(iter(loans.models.values()))
    log = loans.priced
    more = Payoffs.of({"sue": {"payoff": {"no": "-1", "yes": "0.1 * amount"}}, "decline": {"payoff": "0"}}, "EUR", ("no", "yes"))
    suing = replace(model, policy=Policy(more), id="loans@new")
    with pytest.raises(DataError, match=r"options: got 'sue of loans@new'; expected options that the log knows; prepare the log for all"):
        pricing.payoffs(log, suing, every(log))
    wider = pricing.repriced(log, {**loans.models, suing.id: suing})
    assert wider.options == (*log.options, "sue")
    paid = pricing.payoffs(wider, suing, every(wider))
    approve = wider.options.index("approve")
    assert np.isnan(paid[:, approve]).all(), "it does not offer that"
    low, high = pricing.ends(wider, suing, every(wider))
    assert (low[0, approve], high[0, approve]) == (-np.inf, np.inf)
    assert not pricing.reveals(wider, suing)[approve]
    assert np.isnan(pricing.expected(wider, suing, every(wider))[:, approve]).all()
    assert set(pricing.choices(wider, suing, every(wider)).option) <= {wider.options.index("sue"), wider.options.index("decline")}


def test_a_payoff_without_a_value_is_unknown_and_spoils_no_other_row(loans: Told) -> None:
    model = next(iter(loans.models.values()))
    log = loans.priced
    terms = {"approve": {"payoff": {"no": "10 / (age - 41)", "yes": "-1"}}, "refer": {"payoff": "-age"}, "decline": {"payoff": "0"}}
    odd = replace(model, policy=Policy(Payoffs.of(terms, "EUR", ("no", "yes"))))
    age = log.rows(every(log))["age"].astype(float)
    unsure = np.isnan(age) | (age == 41)
    assert 0 < unsure.sum() < len(log)
    found = pricing.choices(log, odd, every(log))
    assert ((found.option == -1) == unsure).all()
    assert (np.isnan(found.promise) == unsure).all()
    assert (np.isnan(pricing.expected(log, odd, every(log))[:, 0]) == unsure).all()
    paid = pricing.payoffs(log, odd, every(log))
    known = ~np.isnan(log.outcome)
    good = known & (log.outcome == log.classes.index("no"))
    approve, refer, decline = (log.options.index(name) for name in ("approve", "refer", "decline"))
    assert (np.isnan(paid[good, approve]) == unsure[good]).all()
    assert (paid[known & ~good, approve] == -1).all(), "what did not come needs no value"
    assert (np.isnan(paid[known, refer]) == np.isnan(age[known])).all()
    assert not paid[known, decline].any()


def test_a_cost_without_a_value_stops_a_choice_and_no_payoff(loans: Told) -> None:
    model = next(iter(loans.models.values()))
    log = loans.priced
    free = Limit("approve", "budget", 1e9, parse("2", "decision.limits.approve.cost"))
    limit = Limit("refer", "budget", 1e9, parse("age - 30", "decision.limits.refer.cost"))
    costly = replace(model, policy=replace(model.policy, limits=(limit, free), prices=(0.0, 0.0)))
    age = log.rows(every(log))["age"].astype(float)
    assert ((pricing.choices(log, costly, every(log)).option == -1) == ~(age >= 30)).all(), "nothing costs less than nothing"
    endless = replace(limit, cost=parse("1 / (months - months)", "decision.limits.refer.cost"))
    never = replace(model, policy=replace(model.policy, limits=(endless,), prices=(0.0,)))
    assert (pricing.choices(log, never, every(log)).option == -1).all()
    assert (np.isnan(pricing.payoffs(log, costly, every(log))[:, 0]) == np.isnan(log.outcome)).all()


def test_a_number_at_which_a_payoff_has_no_value_stops_the_rows_alone_that_foresee_it(bakery: Told) -> None:
    model = next(iter(bakery.models.values()))
    log = bakery.priced
    cut = float(np.median(model.decide_columns(pricing.inputs(log, model, every(log)), reasons=0).predictive.q.min(axis=1)))  # type: ignore[union-attr]
    terms = {"stock": {"quantity": {"min": 0, "max": 300, "step": 20}, "payoff": f"log(outcome - {cut}) + quantity"}}
    found = pricing.choices(log, replace(model, policy=Policy(Payoffs.of(terms, "EUR"))), every(log))
    assert 0 < (found.option == -1).sum() < len(log)
    each = [pricing.choices(log, replace(model, policy=Policy(Payoffs.of(terms, "EUR"))), np.array([row])).option[0] for row in every(log)]
    assert found.option.tolist() == each


def test_erased_rows_have_no_value_but_where_none_is_needed(loans: Told) -> None:
    model = next(iter(loans.models.values()))
    ledger = loans.house.service.ledger
    erase(ledger, unit="7", decisions=(), by="Grace")
    found = observe.load(ledger.url, "loans", LATER)
    log = pricing.repriced(found, loans.models)
    gone = ~log.readable
    assert 0 < gone.sum() < len(log)
    known = gone & ~np.isnan(log.outcome)
    assert known.any()
    assert np.isnan(pricing.payoffs(log, model, np.flatnonzero(gone))).all()
    assert (pricing.choices(log, model, every(log)).option[gone] == -1).all()
    assert np.isnan(pricing.expected(log, model, np.flatnonzero(gone))).all()
    assert (pricing.ends(log, model, np.flatnonzero(gone))[0] == -np.inf).all()
    assert np.array_equal(log.paid[gone], found.paid[gone], equal_nan=True), "what the ledger knows it still knows"
    plain = Payoffs.of({name: {"payoff": {"no": "1", "yes": "-5"}} for name in log.options}, "EUR", ("no", "yes"))
    constant = replace(model, policy=Policy(plain))
    assert not np.isnan(pricing.payoffs(log, constant, np.flatnonzero(known))).any()


def test_classes_that_a_bundle_does_not_know_and_models_that_are_not_here(loans: Told, bakery: Told) -> None:
    log = loans.priced
    model = next(iter(loans.models.values()))
    strange = replace(log, classes=("no", "perhaps"))
    paid = pricing.payoffs(strange, model, every(log))
    assert (np.isnan(paid).all(axis=1) == ~(log.outcome == 0)).all()
    nothing = replace(log, classes=(), outcome=np.full(len(log), np.nan))
    assert np.isnan(pricing.payoffs(nothing, model, every(log))).all()
    assert np.array_equal(pricing.repriced(loans.log, {}).paid, loans.log.paid, equal_nan=True)
    number = next(iter(bakery.models.values()))
    assert np.isnan(pricing.payoffs(replace(bakery.priced, classes=("no",)), number, every(bakery.log))).all()


def test_columns_that_payoffs_are_made_of_are_read_as_the_bundle_reads_them(loans: Told) -> None:
    log, model = loans.priced, next(iter(loans.models.values()))
    whole = model.transform.read(pricing.inputs(log, model, every(log)))[0]
    priced = pricing.priced(log, model, every(log))
    assert set(priced) == {"amount", "months"}
    assert all(np.array_equal(priced[name], whole[name]) for name in priced)
    assert pricing.priced(log, replace(model, policy=Policy(Payoffs.of({"decline": {"payoff": "0"}}, "EUR"))), every(log)) == {}
    bare = replace(log, rows=lambda rows: {})
    assert np.isnan(pricing.payoffs(bare, model, every(log))[:, log.options.index("approve")]).all()
