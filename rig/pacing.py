"""Keeps a plant in step with the wall clock: facility time = wall time x speed, in slices, never in bursts.

A plant that falls behind does not catch up: facility time slips, and how late the slice was is written where a rule can
see it (`pacing.late_ms`). The arithmetic is pure and has no clock; the thread around it is in `rig.processes.plant`.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

NS_PER_MS = 1_000_000
TICK_NS = 10_000
LATENESS_MS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
"""Upper ends of the bins of the histogram of lateness, ms of wall time; what is later is in one bin more."""


@dataclass
class Pacer:
    """Says how far the plant may run now. Times in ns; `wall` is any clock that never goes back."""

    speed: float
    slice_wall_ns: int = 2 * NS_PER_MS
    """The plant is advanced this often."""
    slack_wall_ns: int = 4 * NS_PER_MS
    """Lateness up to this is made up for; beyond it facility time slips."""
    wall_ns: int = 0
    facility_ns: int = 0
    slices: int = 0
    late_slices: int = 0
    worst_late_ns: int = 0
    slip_ns: int = 0
    """Wall time by which the plan of time has been shifted."""
    late_ticks: float = 0.0
    """Ticks of 10 us facility time that were run later than the slack allows."""
    histogram: list[int] = field(default_factory=lambda: [0] * (len(LATENESS_MS) + 1))
    """Slices by how late they were."""
    _due_ns: int = 0

    def start(self, wall_ns: int, facility_ns: int) -> None:
        """From here on the two run together."""
        self.wall_ns, self.facility_ns = wall_ns, facility_ns
        self._due_ns = wall_ns

    def target_ns(self, wall_ns: int) -> int:
        """Facility time to run to at this wall time; late slices move the plan instead of growing."""
        late_ns = wall_ns - self._due_ns
        self.slices += 1
        self.histogram[bisect_left(LATENESS_MS, late_ns / NS_PER_MS)] += 1
        if late_ns > self.slack_wall_ns:
            self.late_slices += 1
            self.worst_late_ns = max(self.worst_late_ns, late_ns)
            self.late_ticks += late_ns * self.speed / TICK_NS
            self.slip_ns += late_ns
            self.wall_ns += late_ns
        self._due_ns = wall_ns + self.slice_wall_ns
        return self.facility_ns + round((wall_ns - self.wall_ns) * self.speed)

    def late_ms(self, wall_ns: int) -> float:
        """How late the slice that comes now is, ms of wall time; 0 within the slack."""
        late_ns = wall_ns - self._due_ns
        return late_ns / NS_PER_MS if late_ns > self.slack_wall_ns else 0.0

    def wait_ns(self, wall_ns: int) -> int:
        """How long to wait until the next slice."""
        return max(0, self._due_ns - wall_ns)
