"""A dose register on a disk that can fail, and whose power can."""

from __future__ import annotations

import numpy as np

from ioc_sim.register_store import PAGE_WORDS, MemoryStore, SyncPoint


class Disk(MemoryStore):
    """A durable store whose disk can fail; `safe` is what a loss of power leaves.

    As the operating system does it: what could not be written once counts as written, until it is changed again.
    """

    def __init__(self) -> None:
        super().__init__(durable=True)
        self.broken = False
        self.safe = self.words.copy()
        self.points: list[SyncPoint] = []
        self._clean = self.words.copy()
        self._unheard = False

    def sync(self, point: SyncPoint) -> None:
        """See RegisterStore."""
        if self.broken or self._unheard:
            self.fail_unheard()
            self._unheard = False
            raise OSError(5, "Input/output error")
        pages = self._changed()
        self.safe.reshape(-1, PAGE_WORDS)[pages] = self.words.reshape(-1, PAGE_WORDS)[pages]
        self._clean = self.words.copy()
        self.points.append(point)

    def touch(self) -> None:
        """See RegisterStore."""
        self._clean = ~self.words

    def fail_unheard(self) -> None:
        """The system fails to write what has changed, on its own; the next `sync` is told."""
        self._clean, self._unheard = self.words.copy(), True

    def _changed(self) -> np.ndarray:
        return (self.words != self._clean).reshape(-1, PAGE_WORDS).any(axis=1)

    def after_power_loss(self, rng: np.random.Generator | None = None) -> MemoryStore:
        """What was synchronised; and of each sector the present content, by chance: the system writes when it likes."""
        sectors = self.safe.reshape(-1, 64).copy()
        if rng is not None:
            written = rng.random(len(sectors)) < 0.5
            sectors[written] = self.words.reshape(-1, 64)[written]
        left = MemoryStore(sectors.ravel())
        left.power_lost = True
        return left
