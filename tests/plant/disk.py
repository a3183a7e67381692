"""A dose register on a disk that can fail, and whose power can."""

from __future__ import annotations

import numpy as np

from ioc_sim.register_store import MemoryStore, SyncPoint


class Disk(MemoryStore):
    """A durable store whose disk can fail; `safe` is what a loss of power leaves."""

    def __init__(self) -> None:
        super().__init__(durable=True)
        self.broken = False
        self.safe = self.words.copy()
        self.points: list[SyncPoint] = []

    def sync(self, point: SyncPoint) -> None:
        if self.broken:
            raise OSError(5, "Input/output error")
        self.safe = self.words.copy()
        self.points.append(point)

    def after_power_loss(self, rng: np.random.Generator | None = None) -> MemoryStore:
        """What was synchronised; and of each sector the present content, by chance: the system writes when it likes."""
        sectors = self.safe.reshape(-1, 64).copy()
        if rng is not None:
            written = rng.random(len(sectors)) < 0.5
            sectors[written] = self.words.reshape(-1, 64)[written]
        left = MemoryStore(sectors.ravel())
        left.power_lost = True
        return left
