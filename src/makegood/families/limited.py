"""Other people's models are read in a process of their own, which can do little: limited memory and time, no network, one folder.

`_walls` says what each wall stops and what it does not. In short: on Linux the kernel holds the process, its native code included, to
reading libraries and writing one folder; elsewhere only the limits and Python's own audit events stand, and a file that takes over native
code is free. Nothing here judges the results: what the process writes into its folder is as trustworthy as the file that it read.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from makegood.errors import Problem, Refused

WALLS = "makegood.families._walls"
_WHERE = "the limited process"
_TAIL = 8192
_KEPT = ("LD_LIBRARY_PATH", "SYSTEMROOT", "TZ")  # without these some installations of Python do not start, or tell another time
_FULL = ("MemoryError", "bad_alloc", "allocate memory", "failed to allocate")


def run(
    module: str, arguments: Sequence[str], *, folder: Path, seconds: float, memory: int, env: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Return the walls that stood while ``python -m module arguments…`` ran to its end behind them.

    The process starts in `folder`, the only place where it can write, with an empty environment (HOME and the temporary folder are
    `folder`) to which `env` is added; it is killed with its whole process group after `seconds` of wall time, and fails where it wants
    more than `memory` bytes. A file that it shall read is put into `folder` first. Raises `Refused` with the last line that it said,
    or that it took too long, too much memory, or crashed. makegood has to be installed: a source tree on PYTHONPATH is not seen.
    """
    folder = folder.resolve(strict=True)
    python = [sys.executable, "-I", "-B", "-X", "utf8", "-m", WALLS]  # -I: no PYTHON… variable, and nothing is imported from the folder
    command = [*python, str(folder), str(seconds), str(memory), module, *arguments]
    with tempfile.TemporaryFile() as said:  # a file and no pipe: its size is limited, and a stray child cannot hold it open
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=_environment(folder) | dict(env or {}),
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            mend = "a smaller model, or a faster machine"
            raise Refused(Problem(_WHERE, f"no end after {seconds:g} s", f"an end within {seconds:g} s", mend)) from None
        finally:
            _end(process)
        said.seek(0)
        walls = said.readline(_TAIL).decode("utf-8", "replace").split()[1:]
        if code != 0:
            raise _failure(code, _last(said), memory)
        return tuple(walls)


def result(path: Path, most: int) -> bytes:
    """Return what a limited process wrote: a plain file of at most `most` bytes. Raises `Refused` where it is not, and follows no link."""
    try:
        about = path.lstat()
    except OSError:
        raise Refused(Problem(_WHERE, f"no {path.name}", "the file that it was to write")) from None
    if not stat.S_ISREG(about.st_mode) or about.st_size > most:
        got = f"{path.name} of {about.st_size:,} bytes" if stat.S_ISREG(about.st_mode) else f"{path.name} that is no plain file"
        raise Refused(Problem(_WHERE, got, f"a plain file of at most {most:,} bytes"))
    return path.read_bytes()


def _environment(folder: Path) -> dict[str, str]:
    """Return the least that Python and its libraries need: no token, no proxy, no graphics card."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    homes = dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TMP", "TEMP"), str(folder))
    return {"PATH": os.defpath, "LANG": "C.UTF-8", "USER": "nobody", "CUDA_VISIBLE_DEVICES": "", **homes, **kept}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group that was started: its leader, whose number it bears, and whatever the leader left behind.

    While anybody is left in the group the kernel gives that number to nobody else.
    """
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):  # nobody is left; on macOS only what has ended already
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _last(said: IO[bytes]) -> str:
    """Return the last line after the present one, as printable text: a hostile file may have chosen it."""
    said.seek(max(said.tell(), said.seek(0, os.SEEK_END) - _TAIL))
    lines = [line for line in said.read(_TAIL).decode("utf-8", "replace").splitlines() if line.strip()]
    return "".join(letter for letter in lines[-1].strip() if letter.isprintable())[:1000] if lines else ""


def _failure(code: int, last: str, memory: int) -> Refused:
    if any(word in last for word in _FULL):
        expected = f"at most {memory / 2**30:.3g} GiB of memory"
        return Refused(Problem(_WHERE, f"more memory than it may have ({last})", expected, "a smaller model"))
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return Refused(Problem(_WHERE, f"a crash ({name})", "an end without an error", "the file is damaged or hostile, or memory ran out"))
    return Refused(Problem(_WHERE, last or f"exit code {code}", "an end without an error"))
