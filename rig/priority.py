"""Which of this machine's processes come first: plant and safety controller before others, strangers last."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

FIRST, LAST = -10, 19
"""Niceness; most users are not given a negative one."""
_GROUP = Path("/proc/self/autogroup")


def hurry() -> None:
    """Ask to be scheduled before others, where that is allowed. Threads inherit it: call it before they start."""
    _ask_for(FIRST)


def give_way() -> None:
    """Take what others leave: a client that stands for one on another machine takes no processor from this one's."""
    _ask_for(LAST)


def _ask_for(niceness: int) -> None:
    """Where Linux schedules by session (`kernel.sched_autogroup_enabled`), niceness counts among the threads of a
    session alone, and sessions have one of their own; that of others is left alone."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, niceness)  # noqa: TID251 - the whole process, before its threads start
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            _GROUP.write_text(f"{niceness}\n", encoding="ascii")
