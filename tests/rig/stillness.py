"""Whether this machine has just stood still: a host may take both processors away from all that runs on them."""

from __future__ import annotations

import threading
import time

LOOK_S = 0.005
STILL_S = 0.06
"""More than half the watchdog of the safety link."""


class Stillness:
    """Looks at the clock all the time, from a thread of this process, which no other process of a facility holds up."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._last_s = -1.0

    def __enter__(self) -> Stillness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def since(self, wall_s: float) -> bool:
        """Whether it has stood still for `STILL_S` after this moment of ``time.monotonic``."""
        return self._last_s >= wall_s

    def _look(self) -> None:
        before_s = time.monotonic()  # noqa: TID251 - the machine's own time is what it watches
        while not self._over.wait(LOOK_S):
            now_s = time.monotonic()  # noqa: TID251 - as above
            if now_s - before_s >= STILL_S:
                self._last_s = now_s
            before_s = now_s
