"""The mirror holds what the ledger holds, keeps up with it, and is made anew where it cannot be believed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.ledger import corpus
from tests.ledger.cut_short import told
from tests.ledger.happenings import CASE, Story

from makegood import cli
from makegood.errors import LedgerError
from makegood.ledger import mirror, retention
from makegood.ledger.erasure import erase
from makegood.ledger.events import Event, Private, encode
from makegood.ledger.store import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger' / 'ledger.sqlite'}") as opened:
        yield opened


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a part be full with 50 rows, and read 20 events at a time."""
    monkeypatch.setattr(mirror, "ROWS", 50)
    monkeypatch.setattr(mirror, "_BATCH", 20)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the files of a mirror, with what tells whether one is another."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir() if path.name != mirror.LOCK}


def state(folder: Path) -> dict[str, Any]:
    """Return what a mirror's files say of themselves."""
    found: dict[str, Any] = json.loads((folder / mirror.STATE).read_bytes())
    return found


def followed(ledger: Ledger, folder: Path) -> mirror.Mirror:
    """Return the mirror, once it is seen to hold what a first look finds."""
    found = mirror.opened(ledger.url, CASE, folder)
    assert told(found) == told(mirror.opened(ledger.url, CASE))
    return found


def test_it_keeps_up_with_the_ledger(ledger: Ledger, tmp_path: Path, small: None) -> None:
    story, folder = Story(ledger, 1), tmp_path / "mirror"
    sizes, kept = [], set[str]()
    for n in (0, 30, 90, 1, 150):
        story.go_on(n)
        found = followed(ledger, folder)
        sizes.append(len(found.decisions))
        full = {file for file, _ in state(folder)["parts"]["decisions"][:-1]}
        assert kept <= full, "a full part stays as it is"
        kept = full
    assert sizes == sorted(sizes)
    assert sizes[-1] > 100
    parts = found.inputs.parts
    assert len(parts) >= 2
    assert all(len(part) >= 50 for part in parts[:-1]), "the last part grows until it is full"


def test_a_look_at_nothing_new_writes_nothing(ledger: Ledger, tmp_path: Path) -> None:
    Story(ledger, 2).go_on(40)
    mirror.opened(ledger.url, CASE, tmp_path / "mirror")
    before = files(tmp_path / "mirror")
    assert len(mirror.opened(ledger.url, CASE, tmp_path / "mirror").decisions) > 5
    assert files(tmp_path / "mirror") == before


def test_what_is_no_part_of_it_is_not_there_afterwards(ledger: Ledger, tmp_path: Path) -> None:
    story = Story(ledger, 2)
    story.go_on(20)
    mirror.opened(ledger.url, CASE, tmp_path / "mirror")
    (tmp_path / "mirror" / "inputs-0123.arrow").write_bytes(b"what a crash left")
    followed(ledger, tmp_path / "mirror")
    assert set(files(tmp_path / "mirror")) == {
        mirror.STATE,
        *(f for parts in state(tmp_path / "mirror")["parts"].values() for f, _ in parts),
    }


def test_the_files_have_the_permissions_of_the_ledger(ledger: Ledger, tmp_path: Path) -> None:
    Story(ledger, 2).go_on(20)
    mirror.opened(ledger.url, CASE, tmp_path / "cache" / "mirror")
    assert (tmp_path / "cache" / "mirror").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "cache" / "mirror").iterdir()} == {0o600}


# ------------------------------------------------------------------------------------------------------------------- erasure


def secret(story: Story, unit: str) -> Event:
    """Return a decision on a unit whose inputs are easily found in a file's bytes, whatever type they are kept as."""
    event = story.decision()
    inputs = {"city": f"SECRET-{unit}", "amount": 7.25e77, "odd": ["SECRET", unit], "employed": True, "never": None}
    fields = {name: getattr(event, name) for name in Event.__slots__}
    return Event(**{**fields, "unit": story.ledger.pseudonym(unit), "private": encode(Private(inputs))})


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def test_what_is_erased_is_gone_from_every_byte_at_the_next_look(ledger: Ledger, tmp_path: Path, small: None) -> None:
    story, folder = Story(ledger, 3), tmp_path / "mirror"
    story.go_on(100)
    ledger.append([secret(story, "ada"), secret(story, "grace")])
    story.go_on(200)
    followed(ledger, folder)
    rare = np.float64(7.25e77).tobytes()
    assert everything(folder).count(b"SECRET-ada") == 1
    before = state(folder)["parts"]
    assert erase(ledger, unit="ada", decisions=(), by="Grace") == 1
    found = followed(ledger, folder)
    left = everything(folder)
    assert (left.count(b"SECRET-ada"), left.count(b"SECRET-grace"), left.count(rare)) == (0, 1, 1)
    after = state(folder)["parts"]
    assert {name for name in before if before[name] != after[name]} == {"inputs"}
    assert sum(a != b for a, b in zip(before["inputs"], after["inputs"], strict=True)) == 1, "the part that it lay in, and no other"
    assert ledger.reader.event(story.made[-1]) is not None
    decision = next(id for id in story.made if b"grace" in (ledger.reader.event(id).event.private or b""))  # type: ignore[union-attr]
    kept = int(found.inputs.kept.sum())
    assert erase(ledger, unit=None, decisions=(decision, decision), by="Grace") == 1
    assert int(followed(ledger, folder).inputs.kept.sum()) == kept - 1
    assert b"SECRET" not in everything(folder)
    assert erase(ledger, unit="nobody", decisions=(decision,), by="Grace") == 0
    followed(ledger, folder)


def test_what_is_erased_before_the_first_look_never_comes_in(ledger: Ledger, tmp_path: Path) -> None:
    story = Story(ledger, 3)
    ledger.append([secret(story, "ada")])
    erase(ledger, unit="ada", decisions=(), by="Grace")
    assert not followed(ledger, tmp_path / "mirror").inputs.kept.any()
    assert b"SECRET" not in everything(tmp_path / "mirror")


def test_the_command_that_erases_reaches_the_mirrors_at_once(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    story, cache = Story(ledger, 3), tmp_path / "ledger"
    ledger.append([secret(story, "ada"), story.decision()])
    folder = mirror.beside(cache, ledger.url, CASE)
    mirror.opened(ledger.url, CASE, folder)
    ledger.close()
    shutil.copytree(folder, cache / "foreign.mirror")
    (cache / "foreign.mirror" / mirror.STATE).write_text(json.dumps(state(folder) | {"ledger": "another"}))
    (cache / "odd.mirror").mkdir()
    (cache / "odd.mirror" / mirror.STATE).write_text("{")
    assert mirror.follow(ledger.url, cache) == 1
    assert b"SECRET-ada" in everything(folder)
    monkeypatch.setattr(sys, "argv", ["makegood", "ledger", "erase", str(cache / "ledger.sqlite"), "--unit", "ada", "--by", "Grace"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert b"SECRET" not in everything(folder)
    assert b"SECRET" in everything(cache / "foreign.mirror"), "that is another ledger's"


# --------------------------------------------------------------------------------------------------------------- made anew


def anew(ledger: Ledger, folder: Path) -> bool:
    """Return whether a look made all files of the mirror anew; what it found is right in any case."""
    before = {file for parts in state(folder)["parts"].values() for file, _ in parts}
    followed(ledger, folder)
    return not before & {file for parts in state(folder)["parts"].values() for file, _ in parts}


@pytest.fixture
def full(ledger: Ledger, tmp_path: Path, small: None) -> Path:
    """Return the folder of a mirror of 200 events, in several parts."""
    Story(ledger, 4).go_on(200)
    mirror.opened(ledger.url, CASE, tmp_path / "mirror")
    assert not anew(ledger, tmp_path / "mirror")
    return tmp_path / "mirror"


@pytest.mark.parametrize(
    "change", [{"version": 0}, {"ledger": "another"}, {"case": "another"}, {"filed": {"0": 3}}, {"parts": {}}, {"more": 1}]
)
def test_files_that_say_something_else_are_made_anew(ledger: Ledger, full: Path, change: dict[str, Any]) -> None:
    (full / mirror.STATE).write_text(json.dumps(state(full) | change))
    if change == {"parts": {}}:
        followed(ledger, full)
        assert len(state(full)["parts"]) == 5
    elif change == {"more": 1}:
        followed(ledger, full)
        assert "more" not in state(full)
    else:
        assert anew(ledger, full)
        assert not anew(ledger, full)


@pytest.mark.parametrize("damage", ["missing", "cut off", "longer", "no arrow"])
def test_damaged_parts_are_made_anew(ledger: Ledger, full: Path, damage: str) -> None:
    path = next(full.glob("decisions-*"))
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"cut off": data[:-9], "longer": data + b"x", "no arrow": bytes(len(data))}[damage])
    assert anew(ledger, full)


def test_a_chain_that_went_on_otherwise_is_read_anew(ledger: Ledger, tmp_path: Path) -> None:
    source, folder = Path(ledger.url.removeprefix("sqlite:///")), tmp_path / "mirror"
    story = Story(ledger, 5)
    story.go_on(30)
    ledger.close()
    copy = tmp_path / "copy.sqlite"
    shutil.copy(source, copy)
    for seed, path in ((6, source), (7, copy)):
        with Ledger.open(f"sqlite:///{path}") as opened:
            Story(opened, seed).go_on(20)
            if path == source:
                followed(opened, folder)
            else:
                assert anew(opened, folder), "the hash there is another"
    shutil.copy(copy, source)
    with Ledger.open(f"sqlite:///{source}") as opened:
        assert not anew(opened, folder)


def test_a_ledger_that_lost_its_end_is_read_anew(ledger: Ledger, tmp_path: Path) -> None:
    source = Path(ledger.url.removeprefix("sqlite:///"))
    story = Story(ledger, 5)
    story.go_on(30)
    ledger.close()
    copy = shutil.copy(source, tmp_path / "copy.sqlite")
    with Ledger.open(f"sqlite:///{source}") as opened:
        Story(opened, 6).go_on(20)
        followed(opened, tmp_path / "mirror")
    with Ledger.open(f"sqlite:///{copy}") as opened:
        assert anew(opened, tmp_path / "mirror")


def test_what_was_archived_is_not_there(ledger: Ledger, tmp_path: Path) -> None:
    story, folder = Story(ledger, 8), tmp_path / "mirror"
    story.go_on(150)
    n = len(followed(ledger, folder).decisions)
    retention.archive(ledger, story.at - 60_000_000, tmp_path)
    assert anew(ledger, folder)
    assert 0 < len(followed(ledger, folder).decisions) < n
    assert not anew(ledger, folder)


def test_other_cases_and_other_kinds_are_not_read(tmp_path: Path) -> None:
    path = corpus.build(tmp_path, archived=False)
    found = mirror.opened(str(path), "credit-risk", tmp_path / "mirror")
    assert len(found.decisions) == 49
    assert set(found.decisions["partition"].to_pylist()) == {0, 1}
    assert len(mirror.opened(str(path), "another", tmp_path / "mirror").decisions) == 0


def test_a_server_is_mirrored_too(postgres: str, tmp_path: Path) -> None:
    with Ledger.open(postgres) as one, Ledger.open(postgres) as two:
        story = Story(one, 9)
        for _ in range(2):
            story.go_on(60, [two])
            one.append([secret(story, "ada")])
            found = mirror.opened(postgres, CASE, tmp_path / "mirror")
        assert set(found.decisions["partition"].to_pylist()) == {0, 1}
        assert sorted(row["seq"] for row in found.decisions.to_pylist() if row["partition"]) != []
        erase(two, unit="ada", decisions=(), by="Grace")
        found, fresh = mirror.opened(postgres, CASE, tmp_path / "mirror"), mirror.opened(postgres, CASE)
        assert found.inputs.kept.sum() == fresh.inputs.kept.sum()
        assert b"SECRET" not in everything(tmp_path / "mirror")


# ------------------------------------------------------------------------------------------------------------- misfortunes


def test_a_look_that_is_killed_at_any_step_harms_nothing(ledger: Ledger, tmp_path: Path) -> None:
    story = Story(ledger, 10)
    story.go_on(40)
    ledger.append([secret(story, "ada")])
    mirror.opened(ledger.url, CASE, tmp_path / "behind")
    story.go_on(30)
    erase(ledger, unit="ada", decisions=(), by="Grace")
    command = [sys.executable, "-m", "tests.ledger.cut_short", ledger.url, CASE, str(tmp_path / "behind")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["kills"] >= 12
    assert 0 < figures["before"] < figures["kills"]


def test_many_may_look_at_once(ledger: Ledger, tmp_path: Path) -> None:
    story = Story(ledger, 11)
    story.go_on(60)
    for _ in range(3):
        story.go_on(20)
        with ThreadPoolExecutor(6) as pool:
            looks = [pool.submit(mirror.opened, ledger.url, CASE, tmp_path / "mirror") for _ in range(6)]
        expected = told(mirror.opened(ledger.url, CASE))
        assert all(told(look.result()) == expected for look in looks)


def test_a_look_from_before_stays_whole_while_the_files_change(ledger: Ledger, tmp_path: Path, small: None) -> None:
    story = Story(ledger, 12)
    story.go_on(120)
    early = mirror.opened(ledger.url, CASE, tmp_path / "mirror")
    before = told(early)
    story.go_on(120)
    erase(ledger, unit="u1", decisions=(), by="Grace")
    mirror.opened(ledger.url, CASE, tmp_path / "mirror")
    assert told(early) == before


def test_a_folder_that_cannot_be_written_to_is_said(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        LedgerError, match=r"mirror: got '.*file.*'; expected a folder that can be written to; mend its permissions, or make room"
    ):
        mirror.opened(ledger.url, CASE, tmp_path / "file" / "mirror")


def test_a_column_is_read_on_any_rows_in_any_order(ledger: Ledger, tmp_path: Path, small: None) -> None:
    Story(ledger, 13).go_on(300)
    inputs = mirror.opened(ledger.url, CASE, tmp_path / "mirror").inputs
    n, rng = len(inputs.kept), np.random.default_rng(0)
    assert len(inputs.parts) >= 3
    for name in inputs.names:
        whole = inputs.column(name, np.arange(n)).tolist()
        for rows in (rng.permutation(n), rng.integers(0, n, 5), np.array([n - 1, 0]), np.empty(0, dtype=np.int64)):
            assert repr(inputs.column(name, rows).tolist()).replace("nan", "None") == repr([whole[row] for row in rows]).replace(
                "nan", "None"
            )
    assert np.isnan(inputs.column("unheard of", np.arange(n))).all()
