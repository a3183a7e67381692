"""A dose register in a file: mapped memory that outlives its process, and that a loss of power spares as far as it was
synchronised."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np

from facility.errors import ConfigError
from ioc_sim import dose_register as reg
from ioc_sim.register_store import (
    H_BOOT,
    H_CHECK,
    H_MAGIC,
    H_VERSION,
    HEADER,
    IMAGE_WORDS,
    LAYERS,
    MAGIC,
    PAGE_WORDS,
    ROWS,
    VERSION,
    SyncPoint,
    Words,
    is_sound,
)

NO_BOOT = 0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_OF_A_LAYER = (SyncPoint.LOADED, SyncPoint.ARMED, SyncPoint.LEASE)


class MappedStore:
    """A file of the plant's process, shared with whoever comes after it.

    Args:
        path: made if it is not there.
        boot: which start of the machine this is; another one in the file means that the power was lost since.

    Raises ConfigError for a file that is no register of this version: somebody has to look at it and move it away.
    """

    durable = True

    def __init__(self, path: Path, boot: int | None = None) -> None:
        self.path = path
        self._boot = machine_boot() if boot is None else boot
        size = IMAGE_WORDS * 8
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        found = os.fstat(self._file).st_size
        if found not in (0, size):
            os.close(self._file)
            raise _not_a_register(path, f"{found} bytes, a register has {size}")
        self._take_room(size)
        self._map = mmap.mmap(self._file, size)
        self.words: Words = np.frombuffer(self._map, dtype=np.int64)
        self.power_lost = self._open(self._boot)
        self._stands = int(self.words[HEADER + H_BOOT])
        """Start of the machine that the file shall name: that of the last layer that was loaded."""

    def _take_room(self, size: int) -> None:
        """All of it from the beginning: where a page of a mapped file finds no room, the process dies."""
        try:
            os.posix_fallocate(self._file, 0, size)
        except OSError as problem:
            os.close(self._file)
            raise ConfigError("register.room", f"{size} bytes cannot be reserved: {problem.strerror or problem}",
                              str(self.path), "make room on this disk") from problem  # fmt: skip

    def _open(self, boot: int) -> bool:
        head = self.words[HEADER : HEADER + PAGE_WORDS].reshape(1, PAGE_WORDS)
        if not head.any() and not self.words[LAYERS:ROWS].any():  # new, or the power was lost before it was anything
            head[0, H_MAGIC], head[0, H_VERSION] = MAGIC, VERSION
            lost = False
        elif head[0, H_MAGIC] != MAGIC or head[0, H_VERSION] != VERSION or not is_sound(head, 0, H_CHECK):
            raise _not_a_register(self.path, "its header is not whole, or of another version")
        else:
            lost = int(head[0, H_BOOT]) != boot
        if not lost:
            self._write_boot(boot)
            os.fsync(self._file)
        return lost

    def _write_boot(self, boot: int) -> None:
        head = self.words[HEADER : HEADER + PAGE_WORDS].reshape(1, PAGE_WORDS)
        head[0, H_BOOT] = boot
        with np.errstate(over="ignore"):
            head[0, H_CHECK] = reg.checksum(head, 0, H_CHECK)

    def sync(self, point: SyncPoint) -> None:
        """Write the mapped pages and wait for the disk.  A loss of power stands in it until a layer is loaded.

        While the disk fails the file names no start of the machine: the system may drop pages that it could not write,
        and whoever opens it then has to count as after a loss of power.
        """
        if point in _OF_A_LAYER:
            self._stands = self._boot
        if int(self.words[HEADER + H_BOOT]) != self._stands:
            self._write_boot(self._stands)
        try:
            os.fsync(self._file)
        except OSError:
            self._write_boot(NO_BOOT)
            raise

    def touch(self) -> None:
        """Write one word of each page anew, as it is: the page counts as changed."""
        self.words[::PAGE_WORDS] = self.words[::PAGE_WORDS].copy()

    def close(self) -> None:
        """Synchronise and let go; the words stay mapped as long as somebody holds them."""
        self.sync(SyncPoint.CLOSED)
        os.close(self._file)


def machine_boot() -> int:
    """A number that changes when the machine starts anew, 62 bits."""
    text = BOOT_ID.read_text(encoding="ascii").replace("-", "")
    return int(text, 16) & (1 << 62) - 1


def _not_a_register(path: Path, why: str) -> ConfigError:
    return ConfigError("register.unreadable", f"this is no dose register: {why}", str(path),
                       "find out what it holds, then move it away; a new one begins empty")  # fmt: skip
