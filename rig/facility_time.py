"""Facility time of what the safety controller of real processes dates.

It goes by the nominal time (`rig.clocks.NominalClock`), which runs on when the plant falls behind. The plant writes the
nominal time beside its own into each event of its log; by them every time that a person reads is told as facility time:
seconds since the facility was switched on, as the plant counts them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any

NOMINAL = "nominal_ns"


class FacilityTime:
    """Turns nominal times into facility time; without any event of a plant both are the same."""

    def __init__(self, plant_events: Iterable[Mapping[str, Any]]) -> None:
        pairs = sorted(
            (e["data"][NOMINAL], e["data"][NOMINAL] - e["t_ns"]) for e in plant_events if NOMINAL in e["data"]
        )
        self._nominal_ns: list[int] = [nominal_ns for nominal_ns, _ in pairs]
        self._behind_ns: list[int] = [behind_ns for _, behind_ns in pairs]

    def of(self, nominal_ns: int, told_ns: int | None = None) -> int:
        """Facility time, ns: set back by what the plant was behind at its last event until then, or at its first.

        `told_ns`: when the plant told this time, if it was the plant, which adds what it is behind at the telling.
        """
        if not self._nominal_ns:
            return nominal_ns
        by_ns = nominal_ns if told_ns is None else told_ns
        return nominal_ns - self._behind_ns[max(0, bisect_right(self._nominal_ns, by_ns) - 1)]
