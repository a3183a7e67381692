"""Keeps a plant in step with the wall clock: facility time = wall time x speed, in slices, never in bursts.

A plant that falls behind does not catch up: facility time slips, and how late the slice was is written where a rule can
see it (`pacing.late_ms`). The arithmetic is pure and has no clock; the thread around it is in `rig.processes.plant`.
"""

from __future__ import annotations

from dataclasses import dataclass

NS_PER_MS = 1_000_000


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
    _due_ns: int = 0

    def start(self, wall_ns: int, facility_ns: int) -> None:
        """From here on the two run together."""
        self.wall_ns, self.facility_ns = wall_ns, facility_ns
        self._due_ns = wall_ns

    def target_ns(self, wall_ns: int) -> int:
        """Facility time to run to at this wall time; late slices move the plan instead of growing."""
        late_ns = wall_ns - self._due_ns
        self.slices += 1
        if late_ns > self.slack_wall_ns:
            self.late_slices += 1
            self.worst_late_ns = max(self.worst_late_ns, late_ns)
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
