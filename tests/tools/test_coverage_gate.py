from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

GATE = Path(__file__).resolve().parents[2] / "tools" / "coverage_gate.py"


def file(covered: int, total: int, *missing_lines: int, branches: tuple[tuple[int, int], ...] = ()) -> dict[str, Any]:
    """Return what coverage.py says of one file: `covered` of `total` lines, and the branches that never ran."""
    summary = {"covered_lines": covered, "num_statements": total, "covered_branches": 0, "num_branches": len(branches)}
    return {"summary": summary, "missing_lines": list(missing_lines), "missing_branches": [list(b) for b in branches]}


def gate(folder: Path, files: dict[str, dict[str, Any]]) -> tuple[int, str]:
    """Return the gate's exit code and what it printed."""
    report = folder / "coverage.json"
    report.write_text(json.dumps({"files": files}), encoding="utf-8")
    done = subprocess.run([sys.executable, str(GATE), str(report)], capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode, done.stdout


def test_opens_at_the_thresholds(tmp_path: Path) -> None:
    code, told = gate(tmp_path, {"src/makegood/economics/payoff.py": file(10, 10), "src/makegood/case.py": file(9, 10, 4)})
    assert (code, told) == (0, "branch coverage: case 90.0  economics 100.0\n")


def test_closes_on_one_branch_of_a_room_of_money_and_names_it(tmp_path: Path) -> None:
    code, told = gate(tmp_path, {"src/makegood/economics/payoff.py": file(99, 99, branches=((7, -1), (7, 9)))})
    assert code == 1
    assert "economics: 98.0% covered, 100% needed\n  src/makegood/economics/payoff.py: 7→exit 7→9" in told


def test_adds_up_the_files_of_a_room(tmp_path: Path) -> None:
    code, told = gate(tmp_path, {"src/makegood/data/leaks.py": file(10, 10), "src/makegood/data/splits.py": file(7, 10, 1, 2, 3)})
    assert code == 1
    assert "data: 85.0% covered, 90% needed\n  src/makegood/data/splits.py: 1 2 3" in told


def test_closes_when_nothing_was_measured(tmp_path: Path) -> None:
    assert gate(tmp_path, {})[0] == 1
