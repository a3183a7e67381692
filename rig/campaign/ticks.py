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


def stretches(records: Records) -> npt.NDArray[np.int64]:
    """Numbers of the ticks with which the beam begins at another spot, or a spot of another layer; the first, too."""
    spot, token = records["spot"], records["token"]
    moved = (spot[1:] != spot[:-1]) | (token[1:] != token[:-1])
    return np.concatenate(([0] if len(records) else [], np.flatnonzero(moved) + 1)).astype(np.int64)


class SpotSums:
    """Ions by spot, added up from raw ticks as they come, in any portions.

    A record tells how many of its ions crossed before the set point moved on; those belong to the spot before.  A spot
    lasts for hundreds of records, so that stretches of one spot are added up at once.

    Args:
        layers: what may be hit.
    """

    def __init__(self, layers: Sequence[PlannedLayer]) -> None:
        sizes = [int(layer.target_ions.size) for layer in layers]
        self._layers = [
            (layer.token, n, begin) for layer, n, begin in zip(layers, sizes, np.cumsum([0, *sizes]), strict=False)
        ]
        self._sums = np.zeros(sum(sizes) + 1)  # the last one is for ions that crossed with no spot of the plan set
        self._spot, self._token = -1, 0

    def add(self, records: Records) -> None:
        """The next ticks."""
        if not len(records):
            return
        spot, token, ions = records["spot"], records["token"], records["ions"]
        begins = stretches(records)
        of, now = token[begins], spot[begins]
        old, of_old = np.concatenate(([self._spot], now[:-1])), np.concatenate(([self._token], of[:-1]))
        old = np.where((of_old != of) | (old < 0), now, old)
        came = np.add.reduceat(ions, begins, dtype=np.int64)
        before = np.where(ions[begins] > 0, records["ions_previous_spot"][begins], 0)
        self._book(old, of, before)
        self._book(now, of, came - before)
        self._spot, self._token = int(spot[-1]), int(token[-1])

    def _book(self, spot: npt.NDArray[Any], token: npt.NDArray[Any], ions: npt.NDArray[Any]) -> None:
        came = np.flatnonzero(ions > 0)
        spot, token, ions = spot[came], token[came], ions[came]
        places = np.full(spot.size, self._sums.size - 1)
        for of, n, begin in self._layers:
            mine = (token == of) & (spot >= 0) & (spot < n)
            places[mine] = begin + spot[mine]
        self._sums += np.bincount(places, weights=ions, minlength=self._sums.size)

    def found(self) -> tuple[Mapping[int, npt.NDArray[np.float64]], int]:
        """Ions of each spot by layer token, shape (n,), and those that crossed with no spot of the plan set."""
        by_token = {token: self._sums[begin : begin + n].copy() for token, n, begin in self._layers}
        return by_token, int(self._sums[-1])


class TickRecord:
    """Keeps a plant's ticks from now on. Call `keep` more often than the ring turns around.

    Args:
        plant: whose truth ring is read.
        layers: whose spots are summed up.
    """

    def __init__(self, plant: Plant, layers: Sequence[PlannedLayer] = ()) -> None:
        self._plant = plant
        self._begin = self._seen = self._summed = plant.truth_count
        self._kept: list[tuple[int, Records]] = []
        self._sums = SpotSums(layers)

    def keep(self, *, at_least: int = 0) -> None:
        """Copy what is new, if it is more than `at_least` ticks; InternalError if the ring has overwritten some."""
        count, ring = self._plant.truth_count, self._plant.trace
        new = count - self._seen
        if new > len(ring):
            raise InternalError("truth.wrapped", f"{new} ticks since the last look at a ring of {len(ring)}", __name__)
        if new > at_least:
            self._kept.append((self._seen, self._of_ring(self._seen, count).copy()))
            self._seen = count

    def sums(self) -> tuple[Mapping[int, npt.NDArray[np.float64]], int]:
        """Ions of each spot so far, see `SpotSums.found`. What has been summed up is not read again."""
        count = self._plant.truth_count
        self._sums.add(self.since(self._summed))
        self._summed = count
        return self._sums.found()

    @property
    def count(self) -> int:
        """Ticks so far, by the plant."""
        return self._plant.truth_count

    def since(self, first: int) -> Records:
        """Ticks from the one of this number on, as `count` counts. Look at them before the plant goes on."""
        count = self._plant.truth_count
        first = max(first, self._begin)
        if count - first <= len(self._plant.trace):
            return self._of_ring(first, count)
        self.keep()
        parts = [part[max(0, first - begin) :] for begin, part in self._kept if begin + len(part) > first]
        return np.concatenate(parts)

    def records(self) -> Records:
        """All ticks so far."""
        return self.since(self._begin)

    def _of_ring(self, first: int, count: int) -> Records:
        ring = self._plant.trace
        low, n = first & (len(ring) - 1), count - first
        head = ring[low : low + n]
        return head if len(head) == n else np.concatenate((head, ring[: n - len(head)]))


def ions_by_spot(records: Records, layers: Sequence[PlannedLayer]) -> tuple[Mapping[int, npt.NDArray[np.float64]], int]:
    """What all these ticks come to, see `SpotSums.found`."""
    sums = SpotSums(layers)
    sums.add(records)
    return sums.found()
