"""What serves is a fold of the ledger's promotions; bundles are loaded, refused, swapped and let go."""

from __future__ import annotations

import gc
import json
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import bundles
from tests.serving import lives
from tests.serving.houses import PROOF, workspace

from makegood.errors import BundleError, CaseError, Refused
from makegood.ledger.events import Event, Promoted, Stored, encode
from makegood.ledger.store import Ledger
from makegood.monitoring.exploring import Exploration
from makegood.serving.changes import Change
from makegood.serving.live import Live
from makegood.serving.problems import Trouble
from makegood.serving.rollout import MOST_SHADOWS, START, VERBS, Known, Rollout, Rollouts, Share, Stand, Wanted, after, state

# ------------------------------------------------------------------------------------------------------------------- fold

EXPLORED = Exploration(0.1, {"": 3.0}, 1.0, 0.02, 500.0, 604_800.0)
SAID = st.builds(
    Promoted,
    verb=st.sampled_from(VERBS),
    model=st.sampled_from(["c@1", "c@2", "c@3", "c@4"]),
    model_hash=st.just("h"),
    by=st.just("x"),
    share=st.one_of(st.none(), st.sampled_from([0.1, 0.5])),
    forced=st.booleans(),
    explore=st.one_of(st.none(), st.just(EXPLORED.to_json())),
    holdback=st.one_of(st.none(), st.just(0.2)),
)


def events(said: list[Promoted]) -> list[Stored]:
    return [Stored(Event(f"e{i}", "promotion", "c", "", "", i, b"", encode(one)), 0, i, b"", b"") for i, one in enumerate(said, 1)]


def says(verb: str, model: str, share: float | None = None, **more: Any) -> Promoted:
    return Promoted(verb, model, "h", "x", share, **more)


@given(st.lists(SAID, max_size=25))
def test_whatever_is_said_each_model_has_one_role_and_the_fold_goes_step_by_step(said: list[Promoted]) -> None:
    wanted, before = state(events(said)), state(events(said[:-1]))
    assert len(set(wanted.names)) == len(wanted.names)
    for name in wanted.names:
        assert [wanted.champion == name, bool(wanted.canary and wanted.canary.model == name), name in wanted.shadows].count(True) == 1
        assert wanted.role(name)
    assert all(a.model != b.model for a, b in zip(wanted.line, wanted.line[1:], strict=False))
    if said:
        assert wanted == after(before, f"e{len(said)}", said[-1])
        last = said[-1]
        if last.verb == "promote":
            assert wanted.champion == last.model
        if last.verb == "retire":
            assert wanted.line == before.line
            assert wanted.role(last.model) in ("", "champion")
        if last.verb == "rollback" and wanted != before:
            assert wanted.line == before.line[:-1]
            assert wanted.canary is None
        if last.verb in ("canary", "shadow"):
            assert wanted.line == before.line
        if last.verb == "promote" and wanted != before:
            assert wanted.line == (*before.line, Stand(last.model, last.forced, f"e{len(said)}"))
            if last.holdback is not None and before.champion:
                assert wanted.canary == Share(before.champion, 0.2, f"e{len(said)}")
        if wanted.canary and wanted.canary.model == last.model and (last.share is not None or last.explore) and last.verb == "canary":
            assert wanted.canary.explored == (None if last.explore is None else EXPLORED)
            assert wanted.canary.share == (last.share or 0.0)
        if wanted.canary and before.canary and wanted.canary.model == before.canary.model:
            assert wanted.canary.salt == before.canary.salt
        elif wanted.canary:
            assert wanted.canary.salt == f"e{len(said)}"


@given(st.lists(SAID, max_size=12), st.sampled_from(["c@1", "c@2", "c@3"]))
def test_a_rollback_undoes_a_promotion(said: list[Promoted], name: str) -> None:
    before = state(events(said))
    then = after(before, "p", says("promote", name))
    back = after(then, "r", says("rollback", name))
    if before.champion and before.champion != name:
        assert back.line == before.line
    assert back.canary is None or before.champion in ("", name)


def test_a_champion_is_held_back_until_it_is_retired_or_comes_back() -> None:
    two = state(events([says("promote", "a"), says("canary", "b", 0.5), says("shadow", "c")]))
    held = after(two, "p", says("promote", "b", holdback=0.1))
    assert held == Wanted((Stand("a", False, "e1"), Stand("b", False, "p")), Share("a", 0.1, "p"), ("c",))
    assert [held.role(name) for name in "abc"] == ["canary", "champion", "shadow"]
    assert after(held, "r", says("retire", "a")) == replace(held, canary=None)
    assert after(held, "r", says("rollback", "b")) == Wanted((Stand("a", False, "e1"),), None, ("c",))
    assert after(held, "s", says("canary", "a", 0.3)).canary == Share("a", 0.3, "p")  # whom it decides on stays with it
    assert after(held, "q", says("promote", "c", holdback=0.2)).canary == Share("b", 0.2, "q")
    again = after(held, "q", says("promote", "a", holdback=0.2))
    assert (again.champion, again.canary) == ("a", Share("b", 0.2, "q"))
    assert after(held, "q", says("promote", "b", holdback=0.5)) == held
    assert after(Wanted(), "p", says("promote", "a", holdback=0.1)) == Wanted((Stand("a", False, "p"),))


def test_a_canary_that_is_explored_keeps_its_draws() -> None:
    one = state(events([says("promote", "a"), says("canary", "b", explore=EXPLORED.to_json())]))
    assert one.canary == Share("b", 0.0, "e2", EXPLORED)
    more = replace(EXPLORED, k=0.2)
    assert after(one, "x", says("canary", "b", explore=more.to_json())).canary == Share("b", 0.0, "e2", more)
    assert after(one, "x", says("canary", "b", 0.1)).canary == Share("b", 0.1, "e2")


def test_the_fold_by_hand() -> None:
    said = [
        says("promote", "a", forced=True),
        says("canary", "b", 0.1),
        says("canary", "b", 0.3),
        says("shadow", "c"),
        says("shadow", "a"),  # it decides: no shadow
        says("rollback", "b"),  # not the champion: a lost race
        says("rollback", "a"),  # nothing before it
    ]
    wanted = state(events(said))
    assert wanted == Wanted((Stand("a", True, "e1"),), Share("b", 0.3, "e2"), ("c",))
    assert wanted.forced
    wanted = after(wanted, "x", says("promote", "b"))
    assert wanted == Wanted((Stand("a", True, "e1"), Stand("b", False, "x")), None, ("c",))
    wanted = after(wanted, "y", says("canary", "c", 0.5))
    assert wanted == Wanted((Stand("a", True, "e1"), Stand("b", False, "x")), Share("c", 0.5, "y"))
    assert after(wanted, "z", says("canary", "d", 0.2)).canary == Share("d", 0.2, "z")
    assert after(wanted, "z", says("retire", "c")).canary is None
    assert after(wanted, "z", says("shadow", "c")) == Wanted(wanted.line, None, ("c",))
    assert after(wanted, "z", says("canary", "d")) == wanted  # no share
    assert after(wanted, "z", says("rollback", "b")) == Wanted((Stand("a", True, "e1"),))
    assert state([]) == Wanted()
    assert Wanted().champion == ""
    assert not Wanted().forced


# ---------------------------------------------------------------------------------------------------------------- bundles


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as opened:
        yield opened


@pytest.fixture(scope="module")
def refuser() -> Live:
    return lives.live(replace(lives.serving(bundles.loans()), verdict="refuse", calibrator=None), "refusing")


def opened(ledger: Ledger, folder: Path, *found: Live, case: str = "loans", **more: Any) -> Rollouts:
    place = workspace(folder, case, *found)
    return Rollouts.open(ledger, place, case, place.bundles(case)[0], **more)


def said(ledger: Ledger) -> list[Promoted]:
    return [msgspec.json.decode(p.event.body, type=Promoted) for p in ledger.reader.promotions("loans")]


def change(rollouts: Rollouts, verb: str, model: str, **more: Any) -> Stored | None:
    return rollouts.change(Change(verb, model, **more))


def refused(call: Any, status: int, words: str) -> Trouble:
    with pytest.raises(Trouble, match=words) as caught:
        call()
    assert caught.value.status == status
    return caught.value


def test_a_service_begins_with_the_last_run_and_stays_with_the_ledger(ledger: Ledger, tmp_path: Path) -> None:
    first, second = lives.champion(), lives.challenger()
    place = workspace(tmp_path, "loans", first)
    rollouts = Rollouts.open(ledger, place, "loans")
    assert rollouts.now.champion.name == first.name
    assert rollouts.case["case"] == "loans"
    assert (rollouts.newer, rollouts.lacking) == ("", {})
    assert said(ledger) == [Promoted("promote", first.name, first.hash, START)]

    run = place.root / "loans" / "run-2"
    shutil.copytree(second.folder, run / "bundle")
    (place.root / "loans" / "latest").write_text("run-2")
    again = Rollouts.open(ledger, place, "loans")
    assert again.now.champion.name == first.name
    assert len(said(ledger)) == 1
    assert again.newer == (second.name if second.created > first.created else "")

    with pytest.raises(Refused, match=r"no evidence.*it earns more than the champion.*--force"):
        Rollouts.open(ledger, place, "loans", run / "bundle")
    named = Rollouts.open(ledger, place, "loans", run / "bundle", force=True)  # by its folder it is promoted
    assert named.now.champion.name == second.name
    assert (said(ledger)[-1].forced, said(ledger)[-1].why) == (True, "the service was started with it by --force")
    assert named.wanted.line[-1].forced
    change(named, "rollback", second.name, by="Ada", why="it loses")
    restarted = Rollouts.open(ledger, place, "loans", run / "bundle")  # the same command again does not undo what was done since
    assert restarted.now.champion.name == first.name
    assert restarted.newer == (second.name if second.created > first.created else "")
    assert [one.verb for one in said(ledger)] == ["promote", "promote", "rollback"]


def test_workers_that_start_at_once_promote_once(ledger: Ledger, tmp_path: Path) -> None:
    place = workspace(tmp_path, "loans", lives.champion())
    found: list[Rollouts] = []
    threads = [threading.Thread(target=lambda: found.append(Rollouts.open(ledger, place, "loans"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.now.champion.name for one in found} == {lives.champion().name}
    assert len(said(ledger)) == 1


def test_what_a_service_is_not_started_with(ledger: Ledger, tmp_path: Path, refuser: Live) -> None:
    place = workspace(tmp_path, "loans", refuser)
    with pytest.raises(Refused, match=r"verdict refuse.*--force"):
        Rollouts.open(ledger, place, "loans")
    assert said(ledger) == []
    rollouts = Rollouts.open(ledger, place, "loans", force=True)
    assert rollouts.now.forced
    assert said(ledger)[0].forced
    assert Rollouts.open(ledger, place, "loans").now.forced  # who was let in stays
    with pytest.raises(CaseError, match="got 'bakery'; expected a bundle of loans"):
        Rollouts.open(ledger, place, "loans", lives.stock().folder)
    shutil.rmtree(place.root / "loans" / "run-1")
    with pytest.raises(BundleError, match=r"There is no bundle loans@.*bring its folder back"):
        Rollouts.open(ledger, place, "loans")


def test_names_whole_and_short(ledger: Ledger, tmp_path: Path) -> None:
    first, second = lives.champion(), lives.challenger()
    rollouts = opened(ledger, tmp_path, first, second, first)
    assert [known.name for known in rollouts.models()] == [
        name for _, name in sorted((live.created, live.name) for live in (first, second))
    ]
    digits = second.name.rpartition("@")[2]
    for name in (second.name, digits, digits[:6], f"loans@{digits[:8]}"):
        assert rollouts.known(name).name == second.name
    refused(lambda: rollouts.known(digits[:5]), 422, "give the whole name")
    refused(lambda: rollouts.known("bakery@0123456789ab"), 422, "is a bundle of bakery: this service is of loans")
    other = refused(lambda: rollouts.known(second.name[:-1] + ("0" if second.name[-1] != "0" else "1")), 404, "There is no bundle")
    assert f"did you mean '{second.name}'?" in other.detail
    refused(lambda: rollouts.known("loans@"), 404, "There is no bundle loans@")
    refused(lambda: rollouts.known("none"), 404, "GET /v1/models lists")


def test_what_comes_and_goes_is_seen(ledger: Ledger, tmp_path: Path) -> None:
    rollouts = opened(ledger, tmp_path, lives.champion())
    run = rollouts._workspace.root / "loans" / "run-7" / "bundle"
    shutil.copytree(lives.stock().folder, run)  # of another case, in the wrong place
    assert len(rollouts.models()) == 1
    shutil.rmtree(run)
    shutil.copytree(lives.challenger().folder, run)
    assert len(rollouts.models()) == 2
    (run / "manifest.json").write_text("{")
    assert len(rollouts.models()) == 1
    shutil.rmtree(run)
    assert [known.name for known in rollouts.models()] == [lives.champion().name]


# ----------------------------------------------------------------------------------------------------------------- change


def test_a_life_of_changes(ledger: Ledger, tmp_path: Path) -> None:
    first, second, third = lives.champion(), lives.challenger(), lives.reasoning()
    rollouts = opened(ledger, tmp_path, first, second, third)
    stored = change(rollouts, "shadow", third.name, by="Ada", why="to see")
    assert stored is not None
    assert msgspec.json.decode(stored.event.body, type=Promoted) == Promoted("shadow", third.name, third.hash, "Ada", None, "to see")
    assert [live.name for live in rollouts.now.shadows] == [third.name]
    assert change(rollouts, "shadow", third.name, by="Ada") is None  # nothing to change, nothing written

    begun = change(rollouts, "canary", second.name, by="Ada", share=0.1)
    assert begun is not None
    grown = rollouts.now
    assert grown.canary is not None
    assert (grown.canary.live.name, grown.canary.share, grown.canary.salt) == (second.name, 0.1, begun.event.id)
    change(rollouts, "canary", second.name.rpartition("@")[2], by="Ada", share=0.5)
    assert rollouts.now.canary == replace(grown.canary, share=0.5)
    assert rollouts.now.champion is grown.champion  # not loaded twice
    assert rollouts.wanted.names == (first.name, second.name, third.name)

    change(rollouts, "promote", second.name, by="Ada", evidence=PROOF)
    assert rollouts.now == Rollout(rollouts.now.champion, None, rollouts.now.shadows)
    assert rollouts.now.champion.name == second.name
    assert change(rollouts, "promote", second.name, by="Ada", evidence=PROOF) is None
    change(rollouts, "promote", third.name, by="Ada", evidence=PROOF)
    assert rollouts.now.shadows == ()
    change(rollouts, "rollback", third.name, by="Ada", why="it loses")
    change(rollouts, "rollback", second.name[-12:], by="Ada", why="it loses")
    assert rollouts.now.champion.name == first.name
    change(rollouts, "shadow", second.name, by="Ada")
    change(rollouts, "retire", second.name, by="Ada")
    assert rollouts.now.shadows == ()
    change(rollouts, "canary", second.name, by="Ada", share=0.5)
    change(rollouts, "shadow", second.name, by="Ada")  # it is scored on, and decides no more
    assert (rollouts.now.canary, [live.name for live in rollouts.now.shadows]) == (None, [second.name])
    ats = [p.event.at for p in ledger.reader.promotions("loans")]
    assert ats == sorted(set(ats))


def test_changes_that_are_refused(ledger: Ledger, tmp_path: Path, refuser: Live) -> None:
    first, second = lives.champion(), lives.challenger()
    rollouts = opened(ledger, tmp_path, first, second, refuser)
    n = len(said(ledger))

    def no(words: str, verb: str, name: str, **more: Any) -> None:
        trouble = refused(lambda: change(rollouts, verb, name, by="Ada", **more), 422, "cannot be changed like that")
        assert words in "\n".join(map(str, trouble.problems))

    for share in (None, 0.0, 1.0, float("nan"), -0.1):
        no("a number between 0 and 1", "canary", second.name, share=share)
    no("a model other than the champion", "canary", first.name, share=0.1)
    no("a model other than the champion", "shadow", first.name)
    no("a champion before this one", "rollback", first.name)
    no("the champion, loans@", "rollback", second.name)
    no("a canary or a shadow; this is the champion", "retire", first.name)
    no("a model that serves", "retire", second.name)
    no("true, since the verdict", "promote", refuser.name, evidence=PROOF)
    refused(lambda: change(rollouts, "promote", lives.stock().name, by="Ada"), 422, "is a bundle of bakery")
    assert len(said(ledger)) == n
    change(rollouts, "promote", refuser.name, by="Ada", force=True, why="to see")
    assert rollouts.now.forced
    assert said(ledger)[-1].forced


def test_a_promotion_needs_evidence_or_somebody_who_says_why(ledger: Ledger, tmp_path: Path) -> None:
    first, second = lives.champion(), lives.challenger()
    rollouts = opened(ledger, tmp_path, first, second)

    def no(words: str, verb: str = "promote", **more: Any) -> None:
        trouble = refused(lambda: change(rollouts, verb, second.name, by="Ada", **more), 422, "cannot be changed like that")
        assert words in "\n".join(map(str, trouble.problems))

    no("evidence: got 'none'; expected evidence and limit of a test that this model earns more than loans@")
    no("run `makegood review`")
    no("evidence: evidence: got '12'; expected at least its limit, 20", evidence={"evidence": 12, "limit": 20})
    no("evidence: limit: got '5'", evidence={"evidence": 12, "limit": 5})
    no("why it is forced", force=True)
    no("why it is forced", force=True, why="  ", evidence=PROOF)
    no("a share above 0 and of at most 0.5", evidence=PROOF, holdback=0.6)
    no("a share above 0", evidence=PROOF, holdback=0.0)
    no("the promotion of another model than the champion", "shadow", holdback=0.1)
    no("a canary, not a promote", evidence=PROOF, share=0.1)
    assert len(said(ledger)) == 1
    change(rollouts, "promote", second.name, by="Ada", force=True, why="the other one is down")
    assert (said(ledger)[-1].forced, said(ledger)[-1].why, said(ledger)[-1].evidence) == (True, "the other one is down", {})
    assert rollouts.wanted.forced
    rollback = "why; expected why, or evidence that has come to its limit"
    no(rollback, "rollback")
    no(rollback, "rollback", evidence={"evidence": 12, "limit": 20})
    change(rollouts, "rollback", second.name, by="Ada", evidence={"test": "rollback", "evidence": 21, "limit": 20})
    assert said(ledger)[-1].evidence == {"test": "rollback", "evidence": 21, "limit": 20}

    change(rollouts, "canary", second.name, by="Ada", share=0.5)
    change(rollouts, "promote", second.name, by="Ada", evidence=PROOF, force=True, why="sure is sure", holdback=0.1)
    assert (said(ledger)[-1].forced, said(ledger)[-1].evidence, said(ledger)[-1].holdback) == (False, PROOF, 0.1)
    now = rollouts.now
    assert now.canary is not None
    assert (now.champion.name, now.canary.live.name, now.canary.share) == (second.name, first.name, 0.1)
    assert now.canary.salt == ledger.reader.promotions("loans")[-1].event.id
    no("the promotion of another model than the champion", "promote", evidence=PROOF, holdback=0.1)
    change(rollouts, "retire", first.name, by="Ada")
    assert rollouts.now.canary is None
    restarted = Rollouts.open(ledger, rollouts._workspace, "loans")
    assert restarted.wanted == rollouts.wanted


def test_the_case_says_how_sure_a_promotion_must_be(ledger: Ledger, tmp_path: Path) -> None:
    model = lives.serving(bundles.loans())
    strict = lives.live(replace(model, case={**model.case, "feedback": {"promote": {"confidence": 0.99}}}), "strict")
    rollouts = opened(ledger, tmp_path, strict, lives.challenger())
    trouble = refused(lambda: change(rollouts, "promote", lives.challenger().name, evidence=PROOF), 422, "cannot be changed")
    assert "at least 100, since feedback.promote.confidence is 0.99" in str(trouble.problems[0])
    proof = {**PROOF, "evidence": np.float64(101.0), "limit": 100.0, "units": np.int64(9), "champion": strict.name}
    change(rollouts, "promote", lives.challenger().name, evidence=proof)
    assert said(ledger)[-1].evidence == proof


def test_more_shadows_than_rows_should_be_scored_by(ledger: Ledger, tmp_path: Path) -> None:
    found = [lives.live(lives.serving(bundles.loans(), reasons=k), f"shadow-{k}") for k in range(3, 4 + MOST_SHADOWS)]
    rollouts = opened(ledger, tmp_path, lives.champion(), *found)
    for live in found[:MOST_SHADOWS]:
        change(rollouts, "shadow", live.name, by="Ada")
    trouble = refused(lambda: change(rollouts, "shadow", found[-1].name, by="Ada"), 422, "cannot be changed")
    assert f"at most {MOST_SHADOWS} shadows" in str(trouble.problems[0])


def test_where_stakes_are_high_a_person_answers(ledger: Ledger, tmp_path: Path) -> None:
    model = lives.serving(bundles.loans())
    grave = replace(model, case={**model.case, "decision": {**model.case["decision"], "high_stakes": True}})
    first, second = lives.live(grave, "grave"), lives.live(replace(grave, calibrator=None), "graver")
    rollouts = opened(ledger, tmp_path, first, second)
    for by in ("", "  ", "Start"):
        for verb, share in (("promote", None), ("canary", 0.2)):
            trouble = refused(lambda v=verb, s=share, b=by: change(rollouts, v, second.name, by=b, share=s), 422, "cannot be changed")
            assert "a person's name, since the case is one of high stakes" in str(trouble.problems[0])
    change(rollouts, "promote", second.name, by="Ada Lovelace", evidence=PROOF)
    assert said(ledger)[-1].by == "Ada Lovelace"
    change(rollouts, "rollback", second.name, by="", why="it loses")


def spoilt(folder: Path) -> None:
    """Change a golden row's action, and reckon every hash anew: only replaying it tells."""
    from makegood import bundle

    golden = json.loads((folder / "golden.json").read_bytes())
    golden["promise"][0] += 1000.0
    data = bundle.dump_json(golden)
    (folder / "golden.json").write_bytes(data)
    manifest = bundle.parse_manifest((folder / "manifest.json").read_bytes(), "m")
    files = {**manifest.files, "golden.json": bundle.FileEntry(bundle.sha256(data), len(data))}
    (folder / "manifest.json").write_bytes(msgspec.structs.replace(manifest, files=files, seal="").sealed())


def test_a_bundle_whose_golden_rows_differ_takes_no_traffic(ledger: Ledger, tmp_path: Path) -> None:
    rollouts = opened(ledger, tmp_path, lives.champion(), lives.challenger())
    folder = rollouts._workspace.bundles("loans")[1]
    spoilt(folder)
    name = next(known.name for known in rollouts.models() if known.folder == folder)
    for verb, share in (("promote", None), ("canary", 0.1), ("shadow", None)):
        trouble = refused(lambda v=verb, s=share: change(rollouts, v, name, by="Ada", share=s, evidence=PROOF), 422, "takes no traffic")
        assert "promise" in str(trouble.problems[0])
        assert str(tmp_path) not in str(trouble.problems[0])
    assert len(said(ledger)) == 1


def test_a_bundle_that_changed_since_it_was_listed(ledger: Ledger, tmp_path: Path) -> None:
    rollouts = opened(ledger, tmp_path, lives.champion(), lives.challenger())
    known = next(k for k in rollouts.models() if k.name == lives.challenger().name)
    other = Known("loans@0123456789ab", known.folder, known.hash, known.verdict, known.created)
    refused(lambda: rollouts._brought(other), 422, "loans@0123456789ab is another bundle by now: loans@")


# ----------------------------------------------------------------------------------------------------------------- follow


def test_another_process_follows_what_it_can_and_says_what_it_lacks(ledger: Ledger, tmp_path: Path) -> None:
    first, second, third = lives.champion(), lives.challenger(), lives.reasoning()
    here = opened(ledger, tmp_path / "here", first, second, third)
    there_place = workspace(tmp_path / "there", "loans", first)
    there = Rollouts.open(ledger, there_place, "loans")
    assert not there.follow()
    change(here, "shadow", third.name, by="Ada")
    change(here, "canary", second.name, by="Ada", share=0.5)
    assert there.follow()
    assert (there.now.canary, there.now.shadows) == (None, ())
    assert set(there.lacking) == {second.name, third.name}
    change(here, "promote", second.name, by="Ada", evidence=PROOF)
    assert not there.follow()
    assert there.now.champion.name == first.name
    assert "There is no bundle" in there.lacking[second.name]

    shutil.copytree(second.folder, there_place.root / "loans" / "run-2" / "bundle")
    assert not there.follow()  # a bundle that could not be loaded is not tried at every look
    there._retry_at = time.monotonic()
    assert there.follow()
    assert there.now.champion.name == second.name
    assert set(there.lacking) == {third.name}
    change(there, "retire", third.name, by="Ada")  # what is gone can be retired all the same
    assert there.lacking == {}
    assert said(ledger)[-1].model_hash == third.hash


def test_models_that_do_not_serve_are_let_go(ledger: Ledger, tmp_path: Path) -> None:
    found = [lives.champion(), lives.challenger(), lives.reasoning(), lives.discreet()]
    rollouts = opened(ledger, tmp_path, *found)
    refs = [weakref.ref(rollouts.named(live.name)) for live in found]
    gc.collect()
    assert refs[0]() is rollouts.now.champion
    assert [ref() is not None for ref in refs[1:]] == [False, True, True]  # the last two that were asked for
    change(rollouts, "promote", found[1].name, by="Ada", evidence=PROOF)
    rollouts.named(found[2].name)
    rollouts.named(found[3].name)
    gc.collect()
    assert refs[0]() is None
    assert rollouts.now.champion.name == found[1].name
    assert rollouts.named(found[1].name) is rollouts.now.champion
