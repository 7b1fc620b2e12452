"""A disk that fails: a VFS between SQLite and the files, in which a write is lost until it is synced.

What SQLite writes stays in this process' memory until it syncs the file, so that the end of the process, by `kill -9` or by `cut`, is
what a power cut is to a machine: every write that was never synced is gone, or, where `survive` says so, a random part of them has
reached the disk, torn at the disk's sectors of 512 bytes. Syncs and writes can be made to fail. A disk is for one process, in which it
becomes SQLite's default: what is tested knows nothing of it.

It stands on the "unix" VFS: each open file keeps its own methods for locks and shared memory (the index of the log in WAL mode, which
SQLite makes anew after a crash), and only what moves bytes is replaced. A "sync" puts the bytes into the files and leaves them to the
system, which outlives the process.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sqlite3
import threading
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_void_p
from dataclasses import dataclass, field
from pathlib import Path

OK, FULL = 0, 13
IOERR_WRITE, IOERR_FSYNC, IOERR_SHORT_READ = 10 | 3 << 8, 10 | 4 << 8, 10 | 2 << 8
SECTOR = 512
NAME = b"faults"
_TEMP = 0x200 | 0x400 | 0x1000 | 0x2000 | 0x8  # SQLITE_OPEN_…: files that are not to last

_File = c_void_p
_Close = CFUNCTYPE(c_int, _File)
_Move = CFUNCTYPE(c_int, _File, c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, _File, c_int64)
_Sync = CFUNCTYPE(c_int, _File, c_int)
_Size = CFUNCTYPE(c_int, _File, POINTER(c_int64))
_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, POINTER(c_int))
_Delete = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)


class _Methods(ctypes.Structure):
    """sqlite3_io_methods, version 2: with shared memory, without mapped files, past which nothing could be held back."""

    _fields_ = (
        ("version", c_int),
        ("close", _Close),
        ("read", _Move),
        ("write", _Move),
        ("truncate", _Truncate),
        ("sync", _Sync),
        ("size", _Size),
        *(
            (name, c_void_p)
            for name in ("lock", "unlock", "reserved", "control", "sector", "device", "map", "shm_lock", "barrier", "unmap")
        ),
    )


class _Vfs(ctypes.Structure):
    """sqlite3_vfs, version 3."""

    _fields_ = (
        ("version", c_int),
        ("file_size", c_int),
        ("longest_path", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", _Open),
        ("delete", _Delete),
        *((f"method_{n}", c_void_p) for n in range(15)),
    )


@dataclass
class _Image:
    """A file as SQLite sees it, and what of it the disk does not have yet: (offset, bytes) written, (size, None) cut to a size."""

    seen: bytearray
    unsynced: list[tuple[int, bytes | None]] = field(default_factory=list)


@dataclass
class Disk:
    """What is to go wrong, and how often each thing was done; operations are counted over all files of the process.

    `cut_at`: the writes and syncs after which the power goes; `survive`: whether some unsynced writes reach the disk then.
    `lies`: whether syncs do nothing and say that they did. `syncs_to_fail`, `writes_to_fail`: from which one on (from 1), how many,
    and, for writes, with which code. What a failed sync was to write never reaches the disk, though it is read as if it had: so does
    Linux, and a second sync that succeeds says nothing of it.
    """

    seed: int = 0
    cut_at: int = 0
    survive: bool = False
    lies: bool = False
    syncs_to_fail: tuple[int, int] = (0, 0)
    writes_to_fail: tuple[int, int, int] = (0, 0, FULL)
    writes: int = 0
    syncs: int = 0
    failed: int = 0
    operations: int = 0
    _images: dict[str, _Image] = field(default_factory=dict)
    _open: dict[int, str] = field(default_factory=dict)
    _keep: list[object] = field(default_factory=list)
    _shims: dict[int, _Methods] = field(default_factory=dict)
    _inner: dict[int, _Methods] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def install(self) -> None:
        """Become the default of every connection that this process opens from now on."""
        library = _library()
        library.sqlite3_vfs_find.restype = POINTER(_Vfs)
        self._unix = library.sqlite3_vfs_find(None)
        assert self._unix.contents.name == b"unix", "another VFS is the default already"
        shim = _Vfs.from_buffer_copy(self._unix.contents)
        shim.name, shim.next = NAME, None
        shim.open, shim.delete = _Open(self._opened), _Delete(self._deleted)
        self._keep.append(shim)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))  # SQLite may call until the very end of the process
        assert library.sqlite3_vfs_register(ctypes.byref(shim), 1) == OK

    def lost(self) -> int:
        """Return how many writes the disk does not have: those that a power cut now would lose."""
        return sum(len(image.unsynced) for image in self._images.values())

    def cut(self) -> None:
        """Cut the power: whatever of the unsynced writes is to survive reaches the disk, and the process is gone."""
        pick = random.Random(f"{self.seed} {self.operations}")
        if self.survive:
            for path, image in self._images.items():
                _put_some(path, image.unsynced, pick)
        os.kill(os.getpid(), signal.SIGKILL)

    # ------------------------------------------------------------------------------------------------- what SQLite calls

    def _opened(self, _vfs: int, name: int | None, file: int, flags: int, out: POINTER(c_int)) -> int:  # type: ignore[valid-type]
        # the unix VFS keeps the pointer to the name: it must be SQLite's own, and no copy
        code = self._unix.contents.open(ctypes.addressof(self._unix.contents), name, file, flags, out)
        if code != OK or name is None or flags & _TEMP:
            return int(code)
        with self._lock:
            slot = c_void_p.from_address(file)
            inner = slot.value
            assert inner is not None
            if inner not in self._shims:
                self._inner[inner] = _Methods.from_address(inner)
                self._shims[inner] = self._shim(inner)
            path = os.fsdecode(ctypes.string_at(name))
            self._open[file] = path
            if path not in self._images:
                self._images[path] = _Image(_read_all(file, self._inner[inner]))
            slot.value = ctypes.addressof(self._shims[inner])
        return OK

    def _deleted(self, _vfs: int, name: bytes, sync: int) -> int:
        with self._lock:
            self._images.pop(os.fsdecode(name), None)
            return int(self._unix.contents.delete(ctypes.addressof(self._unix.contents), name, sync))

    def _shim(self, inner: int) -> _Methods:
        """Return the methods of a file: those of the unix VFS, with ours in place of those that move bytes."""
        methods, own = _Methods.from_buffer_copy(self._inner[inner]), self._inner[inner]
        methods.version = 2

        def close(file: int) -> int:
            with self._lock:
                self._open.pop(file)
                return int(own.close(file))

        methods.close = _Close(close)
        methods.read, methods.size = _Move(self._read), _Size(self._sized)
        methods.write, methods.truncate = _Move(self._write), _Truncate(self._truncate)
        methods.sync = _Sync(lambda file, _flags: self._sync(file, own))
        return methods

    def _read(self, file: int, into: int, amount: int, offset: int) -> int:
        with self._lock:
            found = bytes(self._images[self._open[file]].seen[offset : offset + amount])
        ctypes.memmove(into, found.ljust(amount, b"\0"), amount)
        return OK if len(found) == amount else IOERR_SHORT_READ

    def _sized(self, file: int, out: POINTER(c_int64)) -> int:  # type: ignore[valid-type]
        with self._lock:
            out[0] = len(self._images[self._open[file]].seen)  # type: ignore[index]
        return OK

    def _write(self, file: int, source: int, amount: int, offset: int) -> int:
        with self._lock:
            self.writes += 1
            first, times, code = self.writes_to_fail
            if times and first <= self.writes < first + times:
                self.failed += 1
                return code
            self._tick()
            image, data = self._images[self._open[file]], ctypes.string_at(source, amount)
            _apply(image.seen, offset, data)
            image.unsynced.append((offset, data))
        return OK

    def _truncate(self, file: int, size: int) -> int:
        with self._lock:
            self._tick()
            image = self._images[self._open[file]]
            _apply(image.seen, size, None)
            image.unsynced.append((size, None))
        return OK

    def _sync(self, file: int, own: _Methods) -> int:
        with self._lock:
            self.syncs += 1
            image = self._images[self._open[file]]
            first, times = self.syncs_to_fail
            if times and first <= self.syncs < first + times:
                self.failed += 1
                image.unsynced.clear()
                return IOERR_FSYNC
            self._tick()
            if self.lies:
                return OK
            for at, data in image.unsynced:
                code = own.truncate(file, at) if data is None else own.write(file, data, len(data), at)
                assert code == OK, f"the disk beneath is not to fail: {code}"
            image.unsynced.clear()
            self._tick()
        return OK

    def _tick(self) -> None:
        """Count an operation, and cut the power if this is the one."""
        self.operations += 1
        if self.operations == self.cut_at:
            self.cut()


def _apply(seen: bytearray, at: int, data: bytes | None) -> None:
    """Do to a file in memory what was done to it: bytes written at an offset, or cut to a size."""
    if len(seen) < at:
        seen.extend(bytes(at - len(seen)))
    if data is None:
        del seen[at:]
    else:
        seen[at : at + len(data)] = data


def _put_some(path: str, unsynced: list[tuple[int, bytes | None]], pick: random.Random) -> None:
    """Put a random part of the writes that were never synced into a file: none, all, whole ones, or single sectors of them."""
    how = pick.choice(("none", "all", "whole", "torn"))
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    for at, data in unsynced:
        if data is None:
            if how == "all" or (how != "none" and pick.random() < 0.5):
                os.ftruncate(descriptor, at)
            continue
        step = SECTOR if how == "torn" else len(data)
        begin = 0
        while begin < len(data):
            end = min(begin + step - ((at + begin) % SECTOR if how == "torn" else 0), len(data))
            if how == "all" or (how != "none" and pick.random() < 0.5):
                os.pwrite(descriptor, data[begin:end], at + begin)
            begin = end
    os.close(descriptor)


def _read_all(file: int, own: _Methods) -> bytearray:
    """Return what lies in an open file, by its own methods: to open it once more and close that would drop this process' locks."""
    size = c_int64()
    assert own.size(file, ctypes.byref(size)) == OK
    buffer = ctypes.create_string_buffer(max(size.value, 1))
    if size.value:
        assert own.read(file, ctypes.cast(buffer, c_void_p), size.value, 0) == OK
    return bytearray(buffer.raw[: size.value])


def unavailable() -> str:
    """Return why no disk can be put beneath SQLite here, "" where it can."""
    return "" if _path() else f"SQLite {sqlite3.sqlite_version} is built into this Python, and not a library that can be extended"


def _path() -> str:
    """Return the path of the library that `sqlite3` uses, "" where it is part of the interpreter."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return ""
    return next((line.split()[-1] for line in maps.read_text(encoding="utf-8").splitlines() if "/libsqlite3." in line), "")


def _library() -> ctypes.CDLL:
    """Return the very library that `sqlite3` uses."""
    return ctypes.CDLL(_path())
