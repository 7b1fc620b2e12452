"""What a command prints: lines, one JSON object, and how far it has come."""

from __future__ import annotations

import json
import sys
from typing import Any


def say(text: str = "", *, as_json: bool = False) -> None:
    """Print a line: on stderr where stdout is for JSON."""
    print(text, file=sys.stderr if as_json else sys.stdout, flush=True)


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False))


class Progress:
    """A progress bar on a terminal, elsewhere a line for each stage when it first comes."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.bar: Any = None
        self.said = set[str]()

    def __enter__(self) -> Any:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self.bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True), transient=True
            )
            self.bar.start()
            self.task = self.bar.add_task("", total=1.0)
        return self.step

    def step(self, stage: str, share: float) -> None:
        """Show that `stage` is done to `share` (0 to 1)."""
        if self.bar is not None:
            self.bar.update(self.task, description=stage, completed=share)
        elif (brief := stage.partition(":")[0]) not in self.said:
            print(f"… {brief}", file=sys.stderr, flush=True)
            self.said.add(brief)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()
