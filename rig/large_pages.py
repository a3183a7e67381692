"""Lay what a process has in memory in large pages, where the system can: a copy of it costs less to make and to end.

A fork copies an entry for each page that holds data of the process: 30,000 of 4 KiB for a facility that runs. A page of
2 MiB takes one entry for 512 of those. What is in the memory keeps its address, so that nothing depends on it.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

LARGE = 1 << 21
"""Bytes of a large page."""
_COLLAPSE = 25
"""MADV_COLLAPSE of Linux 6.1 and later; older ones refuse it."""
_OWN = ("", "[heap]")
"""Names of mappings that hold nothing but the process's own data."""


def gather(maps: Path = Path("/proc/self/maps")) -> int:
    """Put the process's own data together in large pages; how many there are. None where the system has none: what it
    refuses stays as it is."""
    if sys.platform != "linux" or not maps.exists():
        return 0
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return sum(advise(begin, LARGE, _COLLAPSE) == 0 for begin in list(whole_pages(maps.read_text(encoding="utf-8"))))


def whole_pages(maps: str) -> Iterator[int]:
    """Addresses at which a large page lies within a private, writable mapping without a file, of /proc/self/maps."""
    for line in maps.splitlines():
        span, rights, _, _, inode, *name = line.split(maxsplit=5)
        begin, end = (int(address, 16) for address in span.split("-"))
        if rights == "rw-p" and inode == "0" and "".join(name) in _OWN:
            yield from range(-(-begin // LARGE) * LARGE, end - LARGE + 1, LARGE)
