"""The plant at one moment, read once and shown by all groups."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from channels.protocol import Severity
from facility.timebase import NS_PER_S
from ioc_sim.iocs.port import StatusPort

OK, MINOR, MAJOR, INVALID = Severity.NO_ALARM, Severity.MINOR, Severity.MAJOR, Severity.INVALID


@dataclass(frozen=True, slots=True)
class View:
    """What a group needs to show its part of the plant."""

    t_ns: int
    """Facility time of the values."""
    status: StatusPort
    signals: list[float]
    """See `facility.signals`; may hold NaN where a device lies."""
    read: Callable[[str, int], float]
    """`PlantPort.read`."""
    backup: Callable[[], float]
    """`PlantPort.backup_layer_ions`."""
    event: bool
    """Something happened: states are shown at once."""
    exact: bool
    """Beam has just gone: doses are shown to the last count."""
    slow: bool
    """The time for what moves all the while has come round (2 Hz)."""

    def slot(self, slots_per_s: int) -> int:
        """Number of the time slot, for what is shown again and again."""
        return self.t_ns * slots_per_s // NS_PER_S

    def on(self, signal: int) -> bool:
        """A digital signal; NaN is off."""
        return self.signals[signal] == 1.0

    def whole(self, signal: int) -> tuple[int, Severity | None]:
        """A signal that is a number, as an int, and its severity: INVALID with -1 if the device gives no number."""
        value = self.signals[signal]
        if not math.isfinite(value):
            return -1, INVALID
        return int(value), OK
