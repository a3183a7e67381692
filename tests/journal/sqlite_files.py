"""A fault-injecting file layer below SQLite: every write, truncation and synchronisation of its files is seen,
can be made to fail, and can be replayed up to any point with whatever a loss of power leaves.

It is a VFS of SQLite's own kind, made with ctypes: the system's VFS opens the file, then the methods that change it
are exchanged for ours, which write down and pass on.
"""

from __future__ import annotations

import ctypes as ct
import ctypes.util
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SQLITE_OK, SQLITE_IOERR, SQLITE_FULL = 0, 10, 13
_WRITE = ct.CFUNCTYPE(ct.c_int, ct.c_void_p, ct.c_void_p, ct.c_int, ct.c_int64)
_TRUNCATE = ct.CFUNCTYPE(ct.c_int, ct.c_void_p, ct.c_int64)
_SYNC = ct.CFUNCTYPE(ct.c_int, ct.c_void_p, ct.c_int)
_OPEN = ct.CFUNCTYPE(ct.c_int, ct.c_void_p, ct.c_void_p, ct.c_void_p, ct.c_int, ct.c_void_p)
_DELETE = ct.CFUNCTYPE(ct.c_int, ct.c_void_p, ct.c_char_p, ct.c_int)


class _Vfs(ct.Structure):
    _fields_ = [
        ("iVersion", ct.c_int), ("szOsFile", ct.c_int), ("mxPathname", ct.c_int), ("pNext", ct.c_void_p),
        ("zName", ct.c_char_p), ("pAppData", ct.c_void_p), ("xOpen", _OPEN), ("xDelete", _DELETE),
        ("rest", ct.c_void_p * 16),
    ]  # fmt: skip


class _Methods(ct.Structure):
    _fields_ = [
        ("iVersion", ct.c_int), ("xClose", ct.c_void_p), ("xRead", ct.c_void_p), ("xWrite", _WRITE),
        ("xTruncate", _TRUNCATE), ("xSync", _SYNC), ("rest", ct.c_void_p * 13),
    ]  # fmt: skip


@dataclass(frozen=True)
class Deed:
    """What was done to a file: data at an offset, a new length (`size`), a synchronisation, or its removal."""

    kind: str
    name: str
    offset: int = 0
    data: bytes = b""
    size: int = 0


def _library() -> Any:
    name = ctypes.util.find_library("sqlite3")
    return None if name is None else ct.CDLL(name)


def why_not() -> str:
    """Why the layer cannot be put in here; empty if it can."""
    library = _library()
    if library is None:
        return "no shared library sqlite3"
    library.sqlite3_libversion.restype = ct.c_char_p
    if library.sqlite3_libversion().decode() != sqlite3.sqlite_version:
        return "Python's sqlite3 is not the shared library"
    return ""


class FaultyFiles:
    """The layer, while it is put in."""

    def __init__(self) -> None:
        self.deeds: list[Deed] = []
        self.fail_at: int | None = None
        """Number of the deed that fails, and all behind it."""
        self.failure = SQLITE_FULL
        self.slow = lambda: None
        """Called at each synchronisation."""
        self._names: dict[int, str] = {}
        self._kept: list[Any] = []

    def _deed(self, deed: Deed) -> int:
        if self.fail_at is not None and len(self.deeds) >= self.fail_at:
            return self.failure
        self.deeds.append(deed)
        return SQLITE_OK

    def put_in(self, vfs: _Vfs) -> None:
        """Exchange the methods; `restore` takes them out again."""
        open_file, delete = (
            _OPEN(ct.cast(vfs.xOpen, ct.c_void_p).value),
            _DELETE(ct.cast(vfs.xDelete, ct.c_void_p).value),
        )
        self._originals = (open_file, delete)

        @_OPEN
        def opened(this: Any, name: int | None, file: int, flags: int, out: Any) -> int:
            code = open_file(this, name, file, flags, out)  # SQLite keeps the pointer: it must be the one it gave
            if code == SQLITE_OK and name is not None:
                self._exchange(file, Path(ct.string_at(name).decode()).name)
            return int(code)

        @_DELETE
        def deleted(this: Any, name: bytes, sync: int) -> int:
            self._deed(Deed("delete", Path(name.decode()).name))
            return int(delete(this, name, sync))

        self._kept += [opened, deleted]
        vfs.xOpen, vfs.xDelete = opened, deleted

    def restore(self, vfs: _Vfs) -> None:
        """As it was."""
        vfs.xOpen, vfs.xDelete = self._originals

    def _exchange(self, file: int, name: str) -> None:
        pointer = ct.cast(file, ct.POINTER(ct.c_void_p))
        methods = _Methods.from_buffer_copy((ct.c_char * ct.sizeof(_Methods)).from_address(pointer[0]))
        write, truncate, sync = (_WRITE(ct.cast(methods.xWrite, ct.c_void_p).value),
                                 _TRUNCATE(ct.cast(methods.xTruncate, ct.c_void_p).value),
                                 _SYNC(ct.cast(methods.xSync, ct.c_void_p).value))  # fmt: skip

        @_WRITE
        def written(this: Any, data: int, n: int, offset: int) -> int:
            code = self._deed(Deed("write", name, offset, ct.string_at(data, n)))
            return code or int(write(this, data, n, offset))

        @_TRUNCATE
        def truncated(this: Any, size: int) -> int:
            return self._deed(Deed("truncate", name, size=size)) or int(truncate(this, size))

        @_SYNC
        def synced(this: Any, flags: int) -> int:
            self.slow()
            return self._deed(Deed("sync", name)) or int(sync(this, flags))

        methods.xWrite, methods.xTruncate, methods.xSync = written, truncated, synced
        self._kept += [methods, written, truncated, synced]
        pointer[0] = ct.addressof(methods)


@contextmanager
def faulty_files() -> Iterator[FaultyFiles]:
    """Put the layer in for files that are opened inside the block."""
    library = _library()
    library.sqlite3_vfs_find.restype = ct.POINTER(_Vfs)
    vfs = library.sqlite3_vfs_find(None).contents
    layer = FaultyFiles()
    layer.put_in(vfs)
    try:
        yield layer
    finally:
        layer.restore(vfs)


def after_power_loss(
    deeds: list[Deed], count: int, rng: np.random.Generator, before: dict[str, bytes] | None = None
) -> dict[str, bytes]:
    """Files by name as a loss of power after `count` deeds may leave them: what was synchronised, and of later writes
    any, some of them torn at a sector. `before` is what the files held first."""
    files = {name: bytearray(data) for name, data in (before or {}).items()}
    unsafe: list[Deed] = []
    for deed in deeds[:count]:
        if deed.kind == "sync":
            for earlier in [other for other in unsafe if other.name == deed.name]:
                _apply(files, earlier)
                unsafe.remove(earlier)
            files.setdefault(deed.name, bytearray())
        elif deed.kind == "delete":
            unsafe = [other for other in unsafe if other.name != deed.name]
            files.pop(deed.name, None)
        else:
            unsafe.append(deed)
    for deed in unsafe:
        chance = rng.random()
        if chance < 0.4:
            _apply(files, deed)
        elif chance < 0.6 and deed.kind == "write" and len(deed.data) > 512:
            torn = 512 * int(rng.integers(1, -(-len(deed.data) // 512)))
            _apply(files, Deed("write", deed.name, deed.offset, deed.data[:torn]))
    return {name: bytes(data) for name, data in files.items()}


def _apply(files: dict[str, bytearray], deed: Deed) -> None:
    data = files.setdefault(deed.name, bytearray())
    if deed.kind == "truncate":
        del data[deed.size :]
        return
    end = deed.offset + len(deed.data)
    if len(data) < end:
        data.extend(bytes(end - len(data)))
    data[deed.offset : end] = deed.data
