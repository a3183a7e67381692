"""How long threads of some processes have been ready to run and did not: what a busy machine does to them.

A thread that hangs in a call, waits for a device or stands still is not ready, so that a device that makes the rack
late does not look like a busy machine.  Linux counts it for each thread (`/proc/PID/task/TID/schedstat`, second number,
ns).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from facility.timebase import NS_PER_MS, NS_PER_S

LEAST_NS = 50 * NS_PER_MS
"""Half the watchdog of the safety link, the shortest of those that run out where processes do not get to run."""
LOOK_S = 0.2
BACK_NS = 3 * NS_PER_S
"""A trip is explained by what was waited for so long before somebody asks."""
PROC = Path("/proc")
_KEPT = 64

Waits = dict[tuple[int, str], int]
"""Time that each thread has waited so far, ns, by process and thread."""


def waits_of(pids: Iterable[int], proc: Path = PROC) -> Waits:
    """As of now; nothing of processes that are gone, and nothing at all where the kernel does not count it."""
    found: Waits = {}
    for pid in pids:
        for path in (proc / str(pid) / "task").glob("*/schedstat"):
            try:
                found[pid, path.parent.name] = int(path.read_text(encoding="ascii").split()[1])
            except (OSError, IndexError, ValueError):
                continue  # it has just ended
    return found


class Waiting:
    """Follows some processes. Call `look` often, or let `watch` do it.

    Args:
        pids: who is followed, asked anew each time.
        now_ns: the wall's clock.
        read: reads the kernel's counts.
    """

    def __init__(
        self, pids: Callable[[], Iterable[int]], now_ns: Callable[[], int],
        read: Callable[[Iterable[int]], Waits] = waits_of,
    ) -> None:  # fmt: skip
        self._pids = pids
        self._now_ns = now_ns
        self._read = read
        self._looks: deque[tuple[int, Waits]] = deque(maxlen=_KEPT)

    def look(self) -> None:
        """Remember how things stand."""
        self._looks.append((self._now_ns(), self._read(self._pids())))

    async def watch(self) -> None:
        """Look regularly, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def lately_ns(self) -> int:
        """Time that all of them have waited together within the last BACK_NS, ns."""
        self.look()
        now_ns, now = self._looks[-1]
        before = next((waits for t_ns, waits in self._looks if t_ns >= now_ns - BACK_NS), now)
        return sum(waited - before.get(thread, 0) for thread, waited in now.items())

    def busy(self) -> bool:
        """This machine has just kept them waiting for so long that a watchdog may have run out."""
        return self.lately_ns() >= LEAST_NS
