"""What a rollout's models make of rows: events that say everything, and answers made of them."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.bundles import ROW, table
from tests.serving import lives

from makegood.data import prepare
from makegood.data.transform import Column, Transform
from makegood.errors import DataError
from makegood.ledger.events import Decided, Private, Stored, money
from makegood.serving.answers import again
from makegood.serving.deciding import MOST_OPTIONS, Made, Row, _Odds, decide, drawn
from makegood.serving.live import Live
from makegood.serving.rollout import Canary, Rollout
from makegood.serving.rows import Reader

SECRET = b"secret"
AT = 1_700_000_000_000_000


def keyed(text: str) -> str:
    return hmac.digest(b"salt", text.encode(), "sha256").hex()[:32] if text else ""


def rows(n: int = 60) -> list[dict[str, Any]]:
    frame = table(n, seed=5)[0]
    raw = prepare.raw_columns(frame)
    return [
        {
            name: None if cell != cell else cell.item() if hasattr(cell, "item") else cell
            for name, cell in ((k, v[i]) for k, v in raw.items() if k != "applied on")
        }
        for i in range(n)
    ]


def rollout(champion: Live, canary: Canary | None = None, *shadows: Live) -> Rollout:
    return Rollout(champion, canary, shadows, False)


def made(of: Rollout, sent: list[dict[str, Any]], units: list[str] | None = None) -> list[Made]:
    acting = [of.champion.model, *([of.canary.live.model] if of.canary else [])]
    reader = Reader({}, acting, [shadow.model for shadow in of.shadows])
    asked = reader.read(json.dumps(sent).encode())
    names = units or [""] * len(sent)
    return decide(
        of, reader, [Row(f"d{i}", row, keyed(unit), b"r", AT, asked.ignored[i] if asked.ignored else ()) for i, (row, unit) in enumerate(zip(asked.rows, names, strict=True))], SECRET
    )  # fmt: skip


def body(of: Made) -> Decided:
    return msgspec.json.decode(of.event.body, type=Decided)


def private(of: Made) -> Private:
    assert of.event.private is not None
    return msgspec.json.decode(of.event.private, type=Private)


def test_a_decision_is_the_models_own() -> None:
    live, sent = lives.reasoning(), [*rows(20), ROW]
    for one, row in zip(made(rollout(live), sent), sent, strict=True):
        alone, said = live.model.decide(row), json.loads(one.answer)
        assert (said["action"], said["predictive"], said["model"]) == (alone.action, alone.predictive, live.name)
        assert said["promise"] == money(body(one).promise) == pytest.approx(alone.promise, abs=5e-7)
        assert [(r["column"], r["value"], r["money"]) for r in said["reasons"]] == [(r.column, r.value, r.money) for r in alone.reasons]
        assert tuple(said.get("notes", ())) == alone.notes
        assert (body(one).model_hash, body(one).case_hash, body(one).unit) == (live.hash, live.case_hash, "EUR")
        assert (body(one).options, sum(body(one).propensities)) == (("approve", "refer", "decline"), 1.0)
        assert (
            dict(zip(body(one).options, body(one).propensities, strict=True))[one.action]
            == body(one).propensity
            == said["propensity"]
            == 1.0
        )
        assert one.event.case == "loans"


def test_the_inputs_are_kept_with_the_reasons() -> None:
    (one,) = made(rollout(lives.reasoning()), [{**ROW, "age": None, "stranger": 1}])
    kept = private(one)
    assert kept.inputs == {name: value for name, value in ROW.items() if name != "age"}
    assert len(kept.reasons) == 2
    assert kept.notes[-1] == "stranger: not a column of this model; ignored"
    assert lives.reasoning().model.decide(kept.inputs).action == one.action


def test_without_inputs_nothing_that_was_asked_is_kept() -> None:
    told = {**ROW, "region": "Atlantis", "age": 77}
    one, same, other = made(rollout(lives.discreet()), [told, dict(reversed(told.items())), {**told, "age": 78}])
    assert private(one).inputs == {}
    assert [value for _, value, _ in private(one).reasons] == ["", ""]
    assert private(one).notes == ("region: a value did not occur in training",)
    assert b"Atlantis" not in one.event.body + (one.event.private or b"") + one.answer
    assert body(one).inputs_mac == body(same).inputs_mac != body(other).inputs_mac
    assert len(body(one).inputs_mac) == 64
    assert body(made(rollout(lives.champion()), [told])[0]).inputs_mac == ""


def test_the_answer_again_is_the_same_bytes() -> None:
    for live in (lives.reasoning(), lives.discreet(), lives.stock(), lives.careful()):
        for one in made(rollout(live), [*rows(20), ROW | {"region": "Atlantis"}]):
            assert again(Stored(one.event, 0, 1, b"", b"")) == one.answer
            erased = json.loads(again(Stored(replace(one.event, private=None), 0, 1, b"c", b"")))
            assert erased == {k: v for k, v in json.loads(one.answer).items() if k != "notes"} | {"reasons": []}


def test_a_quantity_is_an_action_with_its_grid() -> None:
    (one,) = made(rollout(lives.stock()), [ROW])
    said = json.loads(one.answer)
    assert said["quantity"] == lives.stock().model.decide(ROW).quantity == body(one).quantity
    assert (said["action"], len(body(one).options), said["propensity"]) == ("stock", 16, 1.0)
    assert list(said["predictive"])[:2] == ["0.05", "0.1"]


def test_sets_and_guarantees_are_told_and_kept() -> None:
    for one, row in zip(made(rollout(lives.careful()), rows(20)), rows(20), strict=True):
        alone, said = lives.careful().model.decide(row), json.loads(one.answer)
        assert tuple(said["prediction_set"]) == alone.prediction_set == body(one).prediction_set
        assert said["guaranteed"] == pytest.approx(alone.guaranteed, abs=5e-7)
        assert money(body(one).guaranteed or 0) == said["guaranteed"]


def test_notes_do_not_depend_on_the_batch() -> None:
    sent = [ROW | {"region": f"odd {i}", "income": 1e12} for i in range(4)] + [{"amount": 1, "months": 6}, ROW]
    assert [private(one).notes for one in made(rollout(lives.champion()), sent)] == [
        lives.champion().model.decide(row).notes for row in sent
    ]


def test_what_cannot_be_read_or_priced_is_named() -> None:
    with pytest.raises(DataError, match=r"applied on: got '\"2024-02-30\"'; expected a date such as") as caught:
        made(rollout(lives.champion()), [ROW, ROW | {"applied on": "2024-02-30"}])
    assert caught.value.problems[0].where == "applied on"
    with pytest.raises(DataError, match="amount missing in 1 of 2 rows, first in row 2"):
        made(rollout(lives.champion()), [ROW, ROW | {"amount": None}])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_canary_decides_on_its_share_and_every_chance_is_known(share: float) -> None:
    old, new, sent = lives.champion(), lives.challenger(), rows(60)
    units = [f"customer {i % 30}" for i in range(60)]
    of = rollout(old, Canary(new, share, "salt"))
    hers = 0
    for one, row, unit in zip(made(of, sent, units), sent, units, strict=True):
        said, theirs, ours = body(one), new.model.decide(row), old.model.decide(row)
        canary = drawn("salt", keyed(unit)) < share
        hers += canary
        acting, other = (theirs, ours) if canary else (ours, theirs)
        assert (said.role, said.model, said.action) == ("canary" if canary else "champion", acting.model, acting.action)
        chances = dict.fromkeys(said.options, 0.0)
        chances[theirs.action] += share
        chances[ours.action] += 1.0 - share
        assert dict(zip(said.options, said.propensities, strict=True)) == chances
        assert said.propensity == chances[said.action] == json.loads(one.answer)["propensity"]
        assert [(s.model, s.action) for s in said.shadows] == [(other.model, other.action)]
    assert abs(hers / 60 - share) < 0.2
    assert {old.model.decide(row).action == new.model.decide(row).action for row in sent} == {True, False}


def test_a_canarys_units_stay_its_own_as_it_grows() -> None:
    names = [f"u{i}" for i in range(2000)]
    small, large = ({n for n in names if drawn("s", n) < share} for share in (0.1, 0.3))
    assert small < large
    assert len(large) / 2000 == pytest.approx(0.3, abs=0.04)
    assert drawn("s", "a") == int.from_bytes(hashlib.sha256(b"sa").digest()[:8], "big") / 2**64


def test_the_same_id_twice_in_a_batch_is_two_rows() -> None:
    of = rollout(lives.champion(), Canary(lives.challenger(), 0.5, "salt"))
    reader = Reader({}, [lives.champion().model])
    asked = reader.read(json.dumps([ROW, ROW | {"amount": 1}]).encode())
    two = decide(of, reader, [Row("same", row, "", bytes([i]), AT) for i, row in enumerate(asked.rows)], SECRET)
    assert [one.event.request for one in two] == [b"\x00", b"\x01"]
    assert [private(one).inputs["amount"] for one in two] == [5000.0, 1.0]


def test_shadows_are_logged_and_never_acted_on() -> None:
    sent = rows(30)
    of = rollout(lives.champion(), None, lives.challenger())
    for one, row in zip(made(of, sent), sent, strict=True):
        shadow, theirs = body(one).shadows[0], lives.challenger().model.decide(row)
        assert (shadow.model, shadow.action, money(shadow.promise)) == (
            theirs.model,
            theirs.action,
            pytest.approx(theirs.promise, abs=5e-7),
        )
        assert (body(one).model, body(one).propensity) == (lives.champion().name, 1.0)


def test_a_shadows_failure_harms_nothing() -> None:
    """The bakery's payoffs know no `amount`; a shadow whose payoffs do fails where there is none."""
    sent = [{k: v for k, v in ROW.items() if k not in ("amount",)} | {"amount": None}, ROW]
    of = rollout(lives.stock(), None, lives.champion())
    reader = Reader({}, [lives.stock().model], [lives.champion().model])
    asked = reader.read(json.dumps(sent).encode())
    out = decide(of, reader, [Row(f"{i}", row, "", b"", AT) for i, row in enumerate(asked.rows)], SECRET)
    assert [len(body(one).shadows) for one in out] == [0, 1]


def test_a_fine_grid_lists_what_could_come_about() -> None:
    grid = [f"stock {i}" for i in range(MOST_OPTIONS + 1)]
    assert _Odds(grid, grid).of("stock 3", "stock 5", 0.75) == (("stock 3", "stock 5"), (0.75, 0.25), 0.75)
    assert _Odds(grid, ()).of("stock 3", "stock 3", 1.0) == (("stock 3",), (1.0,), 1.0)
    assert _Odds(["a", "b"], ["b", "c"]).of("a", "c", 0.5) == (("a", "b", "c"), (0.5, 0.0, 0.5), 0.5)


def test_rows_without_a_single_value_are_rows() -> None:
    model = lives.stock().model
    stranger = replace(model, transform=Transform([Column("score", "number")]))
    reader = Reader({}, [stranger])
    asked = reader.read(b'[{}, {"score": 1}]')
    out = decide(rollout(lives.stock()), reader, [Row(f"{i}", row, "", b"", AT) for i, row in enumerate(asked.rows)], SECRET)
    assert [body(one).quantity for one in out] == [model.decide({}).quantity] * 2
