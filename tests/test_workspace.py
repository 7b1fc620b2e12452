"""The folder of runs: nothing is overwritten, and openings are counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from makegood.errors import CaseError
from makegood.workspace import Workspace, write_json


def test_the_latest_run_is_the_last_finished_one(tmp_path: Path) -> None:
    space = Workspace(tmp_path)
    first, second = space.new_run("loans"), space.new_run("loans")
    assert first != second
    with pytest.raises(CaseError, match="got 'loans'; expected a case that was run; makegood run loans"):
        space.last("loans")
    space.finish(first)
    assert space.last("loans") == first
    space.finish(second)
    assert space.last("loans") == second
    with pytest.raises(CaseError, match="did you mean 'loans'"):
        space.last("loan")


def test_a_run_that_is_made_aside_is_not_the_latest(tmp_path: Path) -> None:
    space, aside = Workspace(tmp_path), Workspace(tmp_path, aside=True)
    first = space.new_run("loans")
    space.finish(first)
    aside.finish(aside.new_run("loans"))
    assert space.last("loans") == first


def test_the_bundles_of_a_case_come_oldest_first(tmp_path: Path) -> None:
    space = Workspace(tmp_path)
    for run in ("20260102-000000-aaaa", "20260101-000000-bbbb"):
        (tmp_path / "loans" / run / "bundle").mkdir(parents=True)
    (tmp_path / "loans" / "20260103-000000-cccc").mkdir()
    assert [folder.parent.name[:8] for folder in space.bundles("loans")] == ["20260101", "20260102"]
    assert space.bundles("other") == []
    assert space.service("loans") == tmp_path / "loans" / "service"


def test_openings_are_counted_per_test_set(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "new")
    run = tmp_path / "loans" / "run"
    assert [space.open_test("a", run), space.open_test("b", run)] == [1, 1]
    entries = [json.loads(line) for line in (space.root / "openings.jsonl").read_text().splitlines()]
    assert [e["test"] for e in entries] == ["a", "b"]
    assert space.open_test("a", tmp_path / "loans" / "other") == 2


def test_openings_by_processes_at_once_are_all_counted(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from makegood.workspace import Workspace\n"
        "run = Path(sys.argv[1]) / 'loans' / sys.argv[2]\n"
        "print(*[Workspace(Path(sys.argv[1])).open_test('t', run.with_name(f'{run.name}-{i}')) for i in range(20)])"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(i)], stdout=subprocess.PIPE, text=True) for i in range(3)]
    counts = [int(n) for worker in workers for n in worker.communicate()[0].split()]
    assert sorted(counts) == list(range(1, 61))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CaseError, match=r"--workspace: got .*file: Not a directory"):
        Workspace(tmp_path / "file").new_run("loans")


def test_json_is_fingerprinted_and_leaves_no_parts(tmp_path: Path) -> None:
    one = write_json(tmp_path / "a.json", {"x": 1})
    assert one == write_json(tmp_path / "a.json", {"x": 1}) != write_json(tmp_path / "b.json", {"x": 2})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "b.json"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "c.json", {"x": float("nan")})
