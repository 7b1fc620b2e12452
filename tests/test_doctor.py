"""What the doctor looks at, on a machine that works."""

from __future__ import annotations

from pathlib import Path

from makegood import doctor


def test_a_machine_that_runs_these_tests_is_well(tmp_path: Path) -> None:
    checks = doctor.examine(tmp_path / "new")
    assert all(c.ok for c in checks), checks
    named = {c.name: c.found for c in checks}
    assert {"python", "numpy", "lightgbm", "cores", "workspace", "disk", "scoring"} <= named.keys()
    assert named["service"] == "makegood serve can run"
    ms = float(named["durable write"].partition(" ms")[0])
    assert 0 <= ms < 5000


def test_the_defect_of_an_old_sqlite_is_named_with_why_it_does_no_harm() -> None:
    old, new = doctor._sqlite((3, 51, 2)), doctor._sqlite((3, 51, 3))
    assert (old.ok, new) == (True, doctor.Check("sqlite", True, "3.51.3"))
    assert old.found == (
        "3.51.2: it has the WAL-reset defect, mended in 3.51.3, which a ledger does not meet: one connection alone writes and checkpoints it"
    )


def test_a_machine_without_a_web_server_is_told_what_serving_needs() -> None:
    found = doctor._serves(("starlette", "makegood-absent"))
    assert (found.ok, found.found) == (True, "without makegood-absent; `makegood serve` needs pip install 'makegood[serve]'")


def test_a_package_that_is_absent_comes_with_the_command_that_brings_it() -> None:
    assert doctor._package("makegood-absent") == doctor.Check("makegood-absent", False, "not installed", "pip install makegood-absent")


def test_a_workspace_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    failed = [c for c in doctor.examine(tmp_path / "file" / "runs") if not c.ok]
    assert [c.name for c in failed] == ["workspace"]
    assert failed[0].found.endswith("Not a directory") or failed[0].found.endswith("File exists")
    assert failed[0].next == "give a folder that can be written to with --workspace"
