"""Clocks of real processes: the nominal facility clock that link ends share, and facility time as the plant says."""

from __future__ import annotations

from rig.wall_clock import monotonic_ns

COMMAND_AGE_S = 10.0
"""Oldest a signed command may be when it arrives, wall time: a start that has waited longer for a process that hung is
not what its issuer wants any more."""


def command_age_ns(speed: float) -> int:
    """The same on the nominal clock, ns."""
    return round(COMMAND_AGE_S * speed * 1e9)


class NominalClock:
    """Facility time as it would be if the plant never slipped: wall time since `epoch_ns`, times the speed.

    Every process of a machine has the same monotonic clock, so all of them agree on it. Watchdogs and the age of frames
    are judged by it: it runs on when the plant does not.
    """

    def __init__(self, epoch_ns: int, speed: float) -> None:
        self.epoch_ns = epoch_ns
        self.speed = speed

    def now_ns(self) -> int:
        """Nominal facility time, ns."""
        return max(0, round((monotonic_ns() - self.epoch_ns) * self.speed))


class SlippingClock:
    """Facility time in a process that only hears of it: the nominal clock, set back by what the plant has slipped.

    Between two values it runs at the nominal rate; it never goes back.
    """

    def __init__(self, nominal: NominalClock) -> None:
        self._nominal = nominal
        self._behind_ns: int | None = None
        self._last_ns = 0

    def heard(self, facility_ns: int) -> None:
        """The plant was at this time just now, or a little earlier."""
        self._behind_ns = self._nominal.now_ns() - facility_ns

    def now_ns(self) -> int:
        """Facility time, ns."""
        self._last_ns = max(self._last_ns, self._nominal.now_ns() - (self._behind_ns or 0))
        return self._last_ns
