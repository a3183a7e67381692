"""All raw ticks of a run, kept before the ring overwrites them, and what they come to by spot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from facility.errors import InternalError
from ioc_sim.plant import Plant
from rig.truth_check import PlannedLayer

Records = npt.NDArray[Any]
"""Raw ticks, `ioc_sim.layout.TRUTH_DTYPE`, in order."""


class TickRecord:
    """Keeps a plant's ticks from now on. Call `keep` more often than the ring turns around.

    Args:
        plant: whose truth ring is read.
    """

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._seen = plant.truth_count
        self._kept: list[Records] = []

    def keep(self, *, at_least: int = 0) -> None:
        """Copy what is new, if it is more than `at_least` ticks; InternalError if the ring has overwritten some."""
        count, ring = self._plant.truth_count, self._plant.trace
        new = count - self._seen
        if new > len(ring):
            raise InternalError("truth.wrapped", f"{new} ticks since the last look at a ring of {len(ring)}", __name__)
        if new > at_least:
            self._kept.append(ring[np.arange(self._seen, count) & (len(ring) - 1)])
            self._seen = count

    def records(self) -> Records:
        """All ticks so far."""
        self.keep()
        if not self._kept:
            return self._plant.trace[:0]
        self._kept = [np.concatenate(self._kept)]
        return self._kept[0]


def ions_by_spot(records: Records, layers: Sequence[PlannedLayer]) -> tuple[Mapping[int, npt.NDArray[np.float64]], int]:
    """Ions of each spot by layer token, shape (n,), and those that crossed with no spot of the plan set.

    A record tells how many of its ions crossed before the set point moved on; those belong to the spot before.
    """
    spot, token = records["spot"].astype(np.int64), records["token"].astype(np.int64)
    ions, before = records["ions"].astype(np.int64), records["ions_previous_spot"].astype(np.int64)
    old = np.concatenate(([-1], spot[:-1]))
    fresh = (np.concatenate(([0], token[:-1])) != token) | (old < 0)
    old = np.where(fresh, spot, old)
    found, booked = {}, 0
    for layer in layers:
        n, mine = int(layer.target_ions.size), token == layer.token
        sums = np.zeros(n)
        for where, came in ((old[mine], before[mine]), (spot[mine], (ions - before)[mine])):
            inside = (where >= 0) & (where < n) & (came > 0)
            sums += np.bincount(where[inside], weights=came[inside], minlength=n)
        found[layer.token] = sums
        booked += int(sums.sum())
    return found, int(ions.sum()) - booked
