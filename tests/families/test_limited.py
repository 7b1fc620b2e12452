"""The walls of a limited process: what each stops, tried from inside and, without Python's hook, by native calls."""

from __future__ import annotations

import base64
import errno
import functools
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from makegood.errors import Refused
from makegood.families import _walls, limited

GIB = 1 << 30
linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's walls are Linux's")
NATIVE = "import ctypes, os; libc = ctypes.CDLL(None, use_errno=True); "
SAID = "; raise SystemExit(f'answer {answer} {os.strerror(ctypes.get_errno())}')"


def settings() -> dict[str, Any]:
    """Return what coverage hands to new processes, where it runs."""
    found: dict[str, Any] = json.loads(base64.b64decode(os.environ.get("COVERAGE_PROCESS_CONFIG", "e30=")))
    return found


def measured(folder: Path) -> dict[str, str]:
    """Return what makes coverage, where it runs, write its data into the only folder where the process can write."""
    changed = settings() | {"data_file": str(folder / ".coverage")}
    return {"COVERAGE_PROCESS_CONFIG": base64.b64encode(json.dumps(changed).encode()).decode()} if settings() else {}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder for a limited process; what coverage leaves there goes to where the rest of it lies."""
    folder = tmp_path / "place"
    folder.mkdir()
    yield folder
    for data in folder.glob(".coverage.*"):
        shutil.move(data, Path(settings()["data_file"]).with_name(data.name))


def attempt(
    place: Path, statement: str, *, seconds: float = 30.0, memory: int = GIB, env: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Run one statement behind walls (`timeit` is a module that does)."""
    arguments: Sequence[str] = ["-n", "1", "-r", "1", statement]
    return limited.run("timeit", arguments, folder=place, seconds=seconds, memory=memory, env=measured(place) | dict(env or {}))


def said(place: Path, statement: str, **options: float) -> str:
    """Return why a statement was refused."""
    with pytest.raises(Refused) as refused:
        attempt(place, statement, **options)  # type: ignore[arg-type]
    return str(refused.value)


# ------------------------------------------------------------------------------------------------------------------ works


def test_a_module_runs_in_its_folder_with_an_empty_environment(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    code = "import json, os; json.dump([os.getcwd(), dict(os.environ), os.path.expanduser('~')], open('said.json', 'w'))"
    walls = attempt(place, code, env={"MINE": "1"})
    where, environment, home = json.loads(limited.result(place / "said.json", 10_000))
    assert Path(where) == Path(home) == place
    assert environment["MINE"] == "1"
    assert environment.keys() - {"COVERAGE_PROCESS_CONFIG"} <= {
        *("PATH", "LANG", "USER", "CUDA_VISIBLE_DEVICES", "HOME", "USERPROFILE", "TMPDIR", "TMP", "TEMP", "MINE", "LC_CTYPE"),
        *("LD_LIBRARY_PATH", "SYSTEMROOT", "TZ"),
    }
    assert walls[-1] == "audit"


@linux
def test_the_walls_that_are_named_stand(place: Path) -> None:
    walls = attempt(place, "import shutil; shutil.copyfile('/proc/net/dev', 'devices')")
    assert ("landlock" in walls) == (_walls._syscall(444, None, 0, 1) >= 1)
    devices = [line.split(":")[0].strip() for line in (place / "devices").read_text().splitlines()[2:]]
    assert "namespace" not in walls or devices == ["lo"]
    assert {"limits", "orphan", "audit"} <= set(walls)


def test_threads_files_and_folders_inside_are_allowed(place: Path) -> None:
    work = """
import os, shutil, tempfile, threading
thread = threading.Thread(target=lambda: open("a", "w").close())
thread.start(); thread.join()
os.mkdir("b"); os.rename("a", "b/a"); shutil.copyfile("b/a", "c"); shutil.copyfile(os.__file__, "d"); os.remove("d"); os.utime("c"); os.remove("c"); shutil.rmtree("b")
with tempfile.TemporaryDirectory() as folder:
    open(folder + "/x", "w").close()
open(os.devnull, "w").close()
"""
    attempt(place, work)
    assert [path.name for path in place.iterdir() if not path.name.startswith(".coverage")] == []


# ---------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("import socket; socket.socket()", "socket.__new__ is not allowed here"),
        ("import socket; socket.getaddrinfo('localhost', 80)", "socket.getaddrinfo is not allowed here"),
        ("import urllib.request; urllib.request.urlopen('file:///etc/passwd')", "urllib.Request is not allowed here"),
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen is not allowed here"),
        ("import os; os.system('true')", "os.system is not allowed here"),
        ("import os; os.fork()", "os.fork is not allowed here"),
        ("import os; os.execv('/bin/true', ['true'])", "os.exec is not allowed here"),
        ("import os; os.kill(os.getppid(), 9)", "os.kill is not allowed here"),
        ("import pickle; pickle.loads(b'cos\\nsystem\\n.')", "pickle.find_class is not allowed here"),
        ("import marshal; marshal.loads(marshal.dumps(1))", "code out of marshal is not allowed here"),
        ("import ctypes; ctypes.CDLL('{outside}/evil.so')", "evil.so' is not to be loaded"),
        ("open('{outside}/evil', 'w')", "evil' is not to be written"),
        ("import os; os.open('{outside}/evil', os.O_RDWR)", "evil' is not to be written"),
        ("import os; os.mkdir('{outside}/evil')", "os.mkdir outside the folder"),
        ("import os; os.rename('x', '{outside}/evil')", "os.rename outside the folder"),
        ("import shutil; shutil.rmtree('{outside}')", "shutil.rmtree outside the folder"),
        ("import os; os.symlink('/etc', 'x')", "os.symlink outside the folder"),
        ("import sqlite3; sqlite3.connect('{outside}/evil')", "sqlite3.connect outside the folder"),
    ],
)
def test_python_is_refused_with_the_reason(place: Path, tmp_path: Path, statement: str, reason: str) -> None:
    assert reason in said(place, statement.replace("{outside}", str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


@linux
@pytest.mark.parametrize(
    "call",
    [
        "libc.socket(2, 1, 0)",
        "libc.socket(1, 1, 0)",
        "libc.fork()",
        "libc.execl(b'/bin/true', b'true', None)",
        "libc.open(b'{outside}/evil', os.O_CREAT | os.O_WRONLY, 0o600)",
        "libc.open(b'{outside}/secret', os.O_RDONLY)",
        "libc.open(b'/proc/{parent}/environ', os.O_RDONLY)",
        "libc.unlink(b'{outside}/secret')",
        "libc.symlink(b'/etc', b'x')",
        "libc.mkfifo(b'x', 0o600)",
        "libc.kill({parent}, 0)",
        "libc.ptrace(16, {parent}, None, None)",
        "libc.unshare(0x10000000)",
        "libc.syscall(425, 8, None)",  # io_uring_setup
    ],
)
def test_native_code_is_held_by_the_kernel(place: Path, tmp_path: Path, call: str) -> None:
    if not {"landlock", "seccomp"} <= set(attempt(place, "pass")):
        pytest.skip("this kernel or container lacks a wall, and says so")
    (tmp_path / "secret").write_text("secret")
    call = call.replace("{outside}", str(tmp_path)).replace("{parent}", str(os.getpid()))
    answer = said(place, f"{NATIVE}answer = {call}{SAID}")
    assert "answer -1 Permission denied" in answer or "answer -1 Operation not permitted" in answer
    assert sorted(path.name for path in tmp_path.iterdir()) == ["place", "secret"]


def test_what_takes_too_much_memory_is_refused(place: Path) -> None:
    assert said(place, "bytearray(1 << 30)", memory=GIB // 2) == (
        "the limited process: got 'more memory than it may have (MemoryError)'; expected at most 0.5 GiB of memory; a smaller model"
    )


def test_what_takes_too_long_is_killed_with_all_that_it_started(place: Path) -> None:
    start = time.perf_counter()
    message = "the limited process: got 'no end after 0.5 s'; expected an end within 0.5 s; a smaller model, or a faster machine"
    assert said(place, "while True: pass", seconds=0.5) == message
    assert time.perf_counter() - start < 10


@linux
def test_nothing_is_left_when_the_caller_is_interrupted(place: Path) -> None:
    """The process is killed, by its number, when the call that waits for it does not get to its end."""
    code = (
        "import sys; from pathlib import Path; from makegood.families import limited; "
        "limited.run('timeit', ['-n', '1', 'import os, time; open(str(os.getpid()), \"w\").close(); time.sleep(60)'],"
        " folder=Path(sys.argv[1]), seconds=60, memory=1 << 30)"
    )
    caller = subprocess.Popen([sys.executable, "-c", code, str(place)], stderr=subprocess.DEVNULL)
    while not (numbers := [path.name for path in place.iterdir() if path.name.isdigit()]):
        assert caller.poll() is None
        time.sleep(0.02)
    caller.kill()  # no chance to clean up: the kernel ends the child with its parent
    caller.wait()
    wait_for_the_end(int(numbers[0]))


def wait_for_the_end(number: int) -> None:
    """Return once a process is gone, or dead and not yet collected; fail after 20 s."""
    deadline = time.perf_counter() + 20
    while time.perf_counter() < deadline:
        try:
            state = Path("/proc", str(number), "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.02)
    pytest.fail(f"{number} lives on")


@linux
def test_what_a_process_leaves_behind_is_killed_with_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = ["sh", "-c", "sleep 60 >/dev/null & echo $!"]
    process = subprocess.Popen(shell, stdout=subprocess.PIPE, start_new_session=True)
    left = int(process.communicate()[0])
    limited._end(process)
    wait_for_the_end(left)
    monkeypatch.delattr(os, "killpg")  # as on Windows
    process = subprocess.Popen(["sleep", "60"])
    limited._end(process)
    assert process.returncode == -9


@linux
def test_a_crash_is_told_by_its_signal(place: Path) -> None:
    assert "got 'a crash (SIGSEGV)'" in said(place, "import ctypes; ctypes.string_at(0)")
    assert "got 'a crash (signal 42)'" in str(limited._failure(-42, "", GIB))


def test_the_last_line_is_told_without_its_control_letters(place: Path) -> None:
    assert "got 'red[31m alarm'" in said(place, r"print('first\nred\x1b[31m alarm\x07', flush=True); import os; os._exit(1)")
    assert said(place, "import os; os._exit(7)") == "the limited process: got 'exit code 7'; expected an end without an error"
    assert len(said(place, "print('x' * 100_000, flush=True); import os; os._exit(1)")) < 1100


# ---------------------------------------------------------------------------------------------------------------- results


def test_a_result_is_a_plain_file_of_a_bounded_size(tmp_path: Path) -> None:
    (tmp_path / "fine").write_bytes(b"1234")
    assert limited.result(tmp_path / "fine", 4) == b"1234"
    with pytest.raises(Refused, match=r"got 'fine of 4 bytes'; expected a plain file of at most 3 bytes"):
        limited.result(tmp_path / "fine", 3)
    with pytest.raises(Refused, match=r"got 'no gone'; expected the file that it was to write"):
        limited.result(tmp_path / "gone", 4)
    (tmp_path / "link").symlink_to(tmp_path / "fine")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(Refused, match=f"got '{name} that is no plain file'"):
            limited.result(tmp_path / name, 4)


# ----------------------------------------------------------------------------------------------------------- piece by piece


def decided(code: bytes, machine: int, number: int, flags: int = 0) -> int:
    """Run a filter of system calls on one call, as the kernel does (classic BPF: load, jump, return)."""
    data = struct.pack("=IIQQ", number, machine, 0, flags)
    lines = [struct.unpack("=HBBI", code[i : i + 8]) for i in range(0, len(code), 8)]
    at, register = 0, 0
    while True:
        operation, yes, no, value = lines[at]
        at += 1
        if operation == 0x06:
            return int(value)
        if operation == 0x20:
            (register,) = struct.unpack("=I", data[value : value + 4])
        else:
            holds = {0x15: register == value, 0x35: register >= value, 0x45: bool(register & value)}[operation]
            at += yes if holds else no


ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS


@pytest.mark.parametrize(
    ("machine", "audit", "read", "clone", "denied"),
    [("x86_64", 0xC000003E, 0, 56, (41, 57, 58, 59, 101, 322, 425)), ("aarch64", 0xC00000B7, 63, 220, (198, 221, 117, 281, 425))],
)
def test_the_filter_decides_on_both_architectures(machine: str, audit: int, read: int, clone: int, denied: tuple[int, ...]) -> None:
    code = _walls.program(machine)
    assert decided(code, audit, read) == ALLOW
    assert {decided(code, audit, number) for number in denied} == {EPERM}
    assert decided(code, audit, 435) == ENOSYS  # clone3
    thread = struct.pack("=IIQQ", clone, audit, 0, 0x10000)
    assert thread[16:20] == struct.pack("=I", 0x10000)
    assert decided(code, audit, clone, 0x10000) == ALLOW
    assert decided(code, audit, clone, 17) == EPERM  # a child process
    assert decided(code, 0x40000003, read) == KILL  # 32-bit
    assert decided(code, audit, 0x40000000 + read) == EPERM  # x32
    assert _walls.program("riscv64") == b""


def test_the_hook_judges_events(tmp_path: Path) -> None:
    audit = _walls.hook(str(tmp_path), [sys.prefix])
    audit("open", (str(tmp_path / "new"), "w", os.O_WRONLY | os.O_CREAT))
    audit("open", (3, "w", os.O_WRONLY))  # a file that is open already
    audit("open", ("/etc/hosts", "r", os.O_RDONLY))
    audit("open", ("/etc/hosts", None, None))
    audit("ctypes.dlopen", (None,))
    audit("ctypes.dlopen", ("libm.so.6",))
    audit("ctypes.dlopen", (os.path.join(sys.prefix, "lib", "x.so"),))
    audit("import", ("json", None, None, None, None))
    for event, arguments in (
        ("open", (str(tmp_path) + "-beside", "w", os.O_WRONLY)),
        ("open", (str(tmp_path / ".." / "up"), "w", os.O_WRONLY)),
        ("open", (os.fsencode("/x"), None, os.O_APPEND)),
        ("open", ("/x", "r+", 0)),
        ("os.remove", ("/x", -1)),
        ("ctypes.dlopen", (str(tmp_path / "evil.so"),)),
        ("socket.connect", (None, None)),
        ("marshal.loads", (b"",)),
    ):
        with pytest.raises(PermissionError):
            audit(event, arguments)


def test_limits_are_those_of_this_system(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import resource as r; raise SystemExit(repr([r.getrlimit(k)[1] for k in (r.RLIMIT_DATA, r.RLIMIT_CORE, r.RLIMIT_NOFILE)]))"
    if sys.platform == "linux":
        assert f"[{GIB}, 0, {_walls.FILES}]" in said(place, code)
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert not _walls.limit(1.0, GIB)


def test_many_run_at_once(tmp_path: Path) -> None:
    folders = [tmp_path / str(i) for i in range(3)]
    found: list[tuple[str, ...]] = []
    for folder in folders:
        folder.mkdir()
    threads = [threading.Thread(target=lambda folder=folder: found.append(attempt(folder, "open('done', 'w')"))) for folder in folders]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert all((folder / "done").exists() for folder in folders)


@linux
def test_a_wall_that_the_system_lacks_is_not_claimed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from makegood.families import _walls; raise SystemExit(f'a second namespace: {_walls.namespace()}')"
    if "seccomp" in attempt(place, "pass"):
        assert "a second namespace: False" in said(place, code)
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert not _walls.seccomp()
    for answers in ([-1], [7, -1], [7, os.open(os.devnull, os.O_RDONLY), -1]):  # no Landlock; it is switched off; a rule is refused
        monkeypatch.setattr(_walls, "_syscall", functools.partial(lambda left, *_: left.pop(0), answers))
        assert not _walls.landlock(str(place), [])
