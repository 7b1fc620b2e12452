"""Hold each room to its branch coverage: 100% where money is computed and kept, 90% elsewhere.

    python tools/coverage_gate.py .coverage.json

A room is a folder or a module of the package. The share counts lines and branches together, as `coverage report` does.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

WHOLE = frozenset({"economics", "ledger", "monitoring"})
"""The rooms whose every line and branch is tested."""
REST_PERCENT = 90.0


@dataclass(frozen=True)
class Room:
    """What of a room was run, and where the rest is."""

    name: str
    covered: int
    total: int
    missing: tuple[str, ...]

    @property
    def percent(self) -> float:
        """Share of lines and branches that ran; an empty room is whole."""
        return 100.0 * self.covered / self.total if self.total else 100.0

    @property
    def needed_percent(self) -> float:
        """The share below which the gate closes."""
        return 100.0 if self.name in WHOLE else REST_PERCENT

    @property
    def passes(self) -> bool:
        """Whether the gate stays open."""
        return self.percent >= self.needed_percent


def rooms(report: Mapping[str, Any]) -> tuple[Room, ...]:
    """Return the rooms of a JSON report of coverage.py, sorted by name."""
    covered: dict[str, int] = defaultdict(int)
    total: dict[str, int] = defaultdict(int)
    missing: dict[str, list[str]] = defaultdict(list)
    for file, found in report["files"].items():
        parts = PurePath(file).parts
        name = parts[parts.index("makegood") + 1].removesuffix(".py")
        summary = found["summary"]
        covered[name] += summary["covered_lines"] + summary["covered_branches"]
        total[name] += summary["num_statements"] + summary["num_branches"]
        lines = [str(line) for line in found["missing_lines"]]
        branches = [f"{a}→{b if b > 0 else 'exit'}" for a, b in found["missing_branches"]]
        if lines or branches:
            missing[name].append(f"{file}: {' '.join(lines + branches)}")
    return tuple(Room(name, covered[name], total[name], tuple(missing[name])) for name in sorted(total))


def main() -> int:
    """Print the rooms; 0 when all pass, 1 when one does not or nothing was measured."""
    found = rooms(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print("branch coverage: " + "  ".join(f"{room.name} {room.percent:.1f}" for room in found))
    for room in (r for r in found if not r.passes):
        print(f"{room.name}: {room.percent:.1f}% covered, {room.needed_percent:.0f}% needed", *room.missing, sep="\n  ")
    return 0 if found and all(room.passes for room in found) else 1


if __name__ == "__main__":
    sys.exit(main())
