"""What a limited process does first: it builds walls round itself, and then runs a module. `limited.run` starts it.

    python -I -m makegood.families._walls FOLDER SECONDS MEMORY MODULE [ARGUMENT…]

Nothing foreign is loaded before the walls stand. What each of them stops, and what it does not:

limits     Bounds of the kernel (POSIX): CPU seconds, private writable memory, the size of each file, open files, no core dump. Memory is
           bounded by RLIMIT_DATA: torch reserves more than twice the address space that it fills, so RLIMIT_AS would have to be loose.
           Not bounded: the number of files, memory shared through files, and on macOS memory at all.
orphan     Linux: the process dies with the thread that started it, and no program that it might start gains rights.
namespace  Linux: no network device, where the kernel lets anybody make a namespace (many containers do not).
landlock   Linux ≥ 5.13: files are read only in `FOLDER`, in Python's own folders and in the system's libraries, so that keys and data
           elsewhere are out of reach; written only in `FOLDER`; no program is executed; from 6.7 on no TCP, from 6.12 on no signal to
           another process. It binds native code too. Not stopped: reading what Python's folders hold, names and sizes of files, and
           which processes run.
seccomp    Linux on x86-64 and ARM64: the kernel refuses new sockets, processes and programs (threads are allowed), `io_uring`, looking
           into other processes, kernel keys and new namespaces. It binds native code too. Not stopped: an error in a system call
           that stays allowed.
audit      Everywhere: Python's own events (network, processes, unpickling, code out of marshal, foreign libraries, changes to files
           outside `FOLDER`) raise `PermissionError`. It is no sandbox: native code raises no events, and Python code that is already
           running can find its way round. It gives reasons on Linux, and is the only wall but limits on other systems.

The first line of output names the walls that stand.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import platform
import runpy
import struct
import sys
from collections.abc import Callable, Iterable
from typing import Any

FILES = 256
FILE_SIZE = 4 << 30
SYSTEM = "/usr /lib /lib64 /nix/store /gnu/store /proc /sys/devices/system /dev/urandom /dev/null /etc/ld.so.cache".split()
"""What is read beside Python's own folders: shared libraries, the processor's description, randomness."""

_READ, _WRITE, _READ_DIR, _ALL_V1 = 1 << 2, 1 << 1, 1 << 3, (1 << 13) - 1
_REFER, _TRUNCATE, _DEVICE = 1 << 13, 1 << 14, 1 << 15
_FOLDER = _ALL_V1 & ~(1 | 1 << 6 | 0b1111 << 9) | _REFER | _TRUNCATE  # nothing to execute, no devices, sockets, pipes and links

_CLONE, _CLONE3 = "clone", "clone3"
_CALLS = {  # name → number on x86-64, on ARM64 (asm-generic)
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    _CLONE: (56, 220),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "kill": (62, 129),
    "ptrace": (101, 117),
    "chroot": (161, 51),
    "mount": (165, 40),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "perf_event_open": (298, 241),
    "open_by_handle_at": (304, 265),
    "setns": (308, 268),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "bpf": (321, 280),
    "execveat": (322, 281),
    "userfaultfd": (323, 282),
    "pidfd_send_signal": (424, 424),
    "io_uring_setup": (425, 425),
    _CLONE3: (435, 435),
    "pidfd_getfd": (438, 438),
}
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}


# ----------------------------------------------------------------------------------------------------------------- kernel


def limit(seconds: float, memory: int) -> bool:
    """Return whether this system bounds CPU seconds (of all threads), bytes of memory, files and core dumps; they hold from now on."""
    try:
        import resource
    except ImportError:  # Windows
        return False
    cpu = math.ceil(seconds * (os.cpu_count() or 1)) + 1
    wanted = {"CPU": cpu, "DATA": memory, "FSIZE": FILE_SIZE, "NOFILE": FILES, "CORE": 0}
    for name, most in wanted.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    return True


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    whole = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return int(_libc().syscall(ctypes.c_long(number), *whole))


def orphan() -> bool:
    """Return whether this process now dies with its parent, and gains no rights by what it executes."""
    parent, libc = os.getppid(), _libc()
    died = libc.prctl(1, 9, 0, 0, 0) == 0 and os.getppid() == parent  # PR_SET_PDEATHSIG, SIGKILL
    return libc.prctl(38, 1, 0, 0, 0) == 0 and died  # PR_SET_NO_NEW_PRIVS


def namespace() -> bool:
    """Return whether this process now has a network of its own, with nothing in it."""
    user, group = os.getuid(), os.getgid()
    if _libc().unshare(0x10000000 | 0x40000000) != 0:  # CLONE_NEWUSER, CLONE_NEWNET
        return False
    try:  # keep the user's number, which libraries ask for
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as stream:
                stream.write(text)
    except OSError:
        pass  # without a map the number reads as "nobody"; the network is gone all the same
    return True


def landlock(folder: str, readable: Iterable[str]) -> bool:
    """Return whether only `folder` can be changed, and only it and `readable` can be read, from now on."""
    version = _syscall(444, None, 0, 1)
    if version < 1:
        return False
    files = _ALL_V1 | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0) | (_DEVICE if version >= 5 else 0)
    attributes = struct.pack("=QQQ", files, 0b11, 0b11)[: 24 if version >= 6 else 16 if version >= 4 else 8]  # + TCP, + sockets and signals
    rules = _syscall(444, attributes, len(attributes), 0)
    if rules < 0:
        return False
    for path, rights in ((folder, _FOLDER), (os.devnull, _READ | _WRITE), *((path, _READ | _READ_DIR) for path in readable)):
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # not on this system: not readable either
        if not os.path.isdir(path):
            rights &= _READ | _WRITE
        added = _syscall(445, rules, 1, struct.pack("=Qi", rights & files, place), 0)
        os.close(place)
        if added != 0:
            os.close(rules)
            return False
    held = _syscall(446, rules, 0) == 0
    os.close(rules)
    return held


def program(machine: str) -> bytes:
    """Return the filter of system calls for an architecture, as classic BPF; empty for one whose numbers we do not know."""
    if machine not in _ARCHITECTURES:
        return b""
    audit, column = _ARCHITECTURES[machine]
    number = {name: numbers[column] for name, numbers in _CALLS.items() if numbers[column] is not None}
    clone, clone3 = number.pop(_CLONE), number.pop(_CLONE3)
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, refuse = 0x7FFF0000, 0x80000000, 0x00050000
    lines = [
        (load, 0, 0, 4),  # the architecture: a call through the 32-bit door would have other numbers
        (equal, 1, 0, audit),
        (answer, 0, 0, kill),
        (load, 0, 0, 0),  # the call's number
        (at_least, 0, 1, 0x40000000),  # x32
        (answer, 0, 0, refuse | errno.EPERM),
        (equal, 0, 1, clone3),  # its flags cannot be seen; glibc falls back to clone
        (answer, 0, 0, refuse | errno.ENOSYS),
        (equal, 0, 4, clone),
        (load, 0, 0, 16),  # the flags
        (any_bit, 0, 1, 0x10000),  # CLONE_THREAD
        (answer, 0, 0, allow),
        (answer, 0, 0, refuse | errno.EPERM),
    ]
    for value in number.values():
        lines += [(equal, 0, 1, value), (answer, 0, 0, refuse | errno.EPERM)]
    lines.append((answer, 0, 0, allow))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def seccomp() -> bool:
    """Return whether the kernel refuses, from now on, the calls in `_CALLS` (of `clone`, all but new threads)."""
    code = program(platform.machine())
    if not code:
        return False
    buffer = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    return int(_libc().prctl(22, 2, head, 0, 0)) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


# ------------------------------------------------------------------------------------------------------------------ audit

_NEVER = tuple(  # events that start so
    """
    socket. urllib. http.client. ftplib. imaplib. nntplib. poplib. smtplib. telnetlib. webbrowser. subprocess. os.system os.exec os.fork
    os.posix_spawn os.spawn os.startfile os.kill pty. signal.pthread_kill pickle. sqlite3.enable_load_extension sqlite3.load_extension
    winreg. os.setxattr os.removexattr syslog.
    """.split()
)
_CHANGES = tuple(
    """
    os.chflags os.chmod os.chown os.link os.mkdir os.remove os.rename os.rmdir os.symlink os.truncate os.utime shutil. sqlite3.connect
    tempfile.
    """.split()
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_IMPORTER = "<frozen importlib._bootstrap_external>"


def hook(folder: str, libraries: Iterable[str]) -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook: it raises `PermissionError` for what a converter has no use for, and changes outside `folder`."""
    inside, shared = (os.path.realpath(folder), os.devnull), tuple(os.path.realpath(path) for path in libraries)

    def within(path: Any, roots: tuple[str, ...]) -> bool:
        whole = os.path.realpath(os.fsdecode(path))
        return any(whole == root or whole.startswith(root.rstrip(os.sep) + os.sep) for root in roots)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(_NEVER):
            raise PermissionError(f"{event} is not allowed here")
        if event == "open":
            path, mode, flags = arguments
            writing = (flags or 0) & _WRITING or set(mode or "") & set("wax+")
            if writing and not isinstance(path, int) and not within(path, inside):
                raise PermissionError(f"{os.fsdecode(path)!r} is not to be written")
        elif event.startswith(_CHANGES):
            for path in arguments[event.startswith("shutil.copy") :]:  # what is copied may lie anywhere
                if isinstance(path, str | bytes | os.PathLike) and not within(path, inside):
                    raise PermissionError(f"{event} outside the folder: {os.fsdecode(path)!r}")
        elif event == "marshal.loads" and sys._getframe(1).f_code.co_filename != _IMPORTER:
            raise PermissionError("code out of marshal is not allowed here")
        elif event == "ctypes.dlopen":
            path = arguments[0]
            if path is not None and os.path.dirname(os.fsdecode(path)) and not within(path, shared):
                raise PermissionError(f"the library {os.fsdecode(path)!r} is not to be loaded")

    return audit


# ------------------------------------------------------------------------------------------------------------------- main


def main(folder: str, seconds: str, memory: str, module: str, *arguments: str) -> None:
    """Build every wall that this system has, say which, and run a module as `python -m` does."""
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    readable = sorted({sys.prefix, sys.base_prefix, *sys.path, *libraries, *SYSTEM} - {""})
    walls = ["limits"] if limit(float(seconds), int(memory)) else []
    if sys.platform == "linux":
        walls += [wall.__name__ for wall in (orphan, namespace) if wall()]
        walls += ["landlock"] if landlock(folder, readable) else []
        walls += ["seccomp"] if seccomp() else []
    sys.addaudithook(hook(folder, readable))
    sys.stdout.write(f"walls: {' '.join([*walls, 'audit'])}\n")
    sys.stdout.flush()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
