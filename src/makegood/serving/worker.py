"""One worker of several: `python -m makegood.serving.worker JSON`, started by the supervisor, which says what to serve and where."""

from __future__ import annotations

import json
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

from makegood.errors import MakegoodError
from makegood.serving.locate import locate


def main() -> int:
    """Serve until told to stop, or until the supervisor is gone; return the exit code."""
    told = json.loads(sys.argv[1])
    tie = socket.socket(fileno=told["tie"])
    listening = socket.socket(fileno=told["listen"])
    for inherited in (tie, listening):
        os.set_inheritable(inherited.fileno(), False)
    try:
        from makegood.serving.server import run

        place = locate(told["named"], Path(told["root"]))
        run(place, listening, force=told["force"], ready=lambda model: _say(tie, {"ready": model}), tie=tie)
    except MakegoodError as error:
        _say(tie, {"error": type(error).__name__, "problems": [vars(problem) for problem in error.problems]})
        return 2
    return 0


def _say(tie: socket.socket, what: dict[str, object]) -> None:
    with suppress(OSError):  # the supervisor is gone: the tie's end is what stops this worker
        tie.sendall(json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
