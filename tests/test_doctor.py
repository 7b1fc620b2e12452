"""What the doctor looks at, on a machine that works."""

from __future__ import annotations

from pathlib import Path

from makegood import doctor


def test_a_machine_that_runs_these_tests_is_well(tmp_path: Path) -> None:
    checks = doctor.examine(tmp_path / "new")
    assert all(c.ok for c in checks), checks
    assert {"python", "numpy", "lightgbm", "cores", "workspace", "disk", "scoring"} <= {c.name for c in checks}


def test_a_package_that_is_absent_comes_with_the_command_that_brings_it() -> None:
    assert doctor._package("makegood-absent") == doctor.Check("makegood-absent", False, "not installed", "pip install makegood-absent")


def test_a_workspace_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    failed = [c for c in doctor.examine(tmp_path / "file" / "runs") if not c.ok]
    assert [c.name for c in failed] == ["workspace"]
    assert failed[0].found.endswith("Not a directory") or failed[0].found.endswith("File exists")
    assert failed[0].next == "give a folder that can be written to with --workspace"
