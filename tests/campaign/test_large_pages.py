"""What a process has in memory goes into large pages, and stays what it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rig.large_pages import LARGE, gather, whole_pages

MAPS = """\
00200000-00800000 r-xp 00000000 00:00 0
00a00001-01000000 rw-p 00000000 00:00 0
01000000-01400000 rw-p 00000000 08:01 77                                 /lib/libc.so.6
01400000-01800000 rw-s 00000000 00:00 0
02100000-02700000 rw-p 00000000 00:00 0                                  [heap]
03000000-03200000 rw-p 00000000 00:00 0                                  [stack]
04000000-041fffff rw-p 00000000 00:00 0
05000000-05200000 rw-p 00000000 00:00 0
"""


def test_what_belongs_to_the_process_alone_and_is_as_large_as_a_page() -> None:
    assert list(whole_pages(MAPS)) == [0xC00000, 0xE00000, 0x2200000, 0x2400000, 0x5000000]


def test_nothing_changes_by_it() -> None:
    kept = np.arange(4 * LARGE, dtype=np.uint8)
    assert gather() >= 0  # how many there are is the system's affair
    assert np.array_equal(kept, np.arange(4 * LARGE, dtype=np.uint8))


def test_a_system_that_tells_nothing_of_its_memory_is_left_alone(tmp_path: Path) -> None:
    assert gather(tmp_path / "maps") == 0
