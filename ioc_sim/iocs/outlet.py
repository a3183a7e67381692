"""When a value is worth a PV update.

In virtual time an update costs more than thousands of plant ticks, over Channel Access a server holds some thousands a
second. So every PV has an outlet: it publishes on change, not more often than its interval, and noise within its
deadband is no change. What is held back now is offered again at the next update, so the last value always comes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from channels.publish import publish
from channels.pv_groups import CataloguedGroup
from facility.timebase import NS_PER_MS

LEAST_NS = 100 * NS_PER_MS
"""Shortest time between two updates of a PV that is not published on an event: 10 Hz."""
SLOW_NS = 500 * NS_PER_MS
"""The same for quantities that move all the time while beam is on: 2 Hz."""


class Outlet:
    """One PV.

    Args:
        channel: of a catalogued group.
        least_ns: shortest time between updates, ns of facility time; `now` overrides it.
        deadband: a number that moves by no more has not changed; `now` overrides it too.
    """

    def __init__(self, channel: Any, *, least_ns: int = LEAST_NS, deadband: float = 0.0) -> None:
        self.channel = channel
        self.writes = 0
        """Updates published."""
        self._least_ns = least_ns
        self._deadband = deadband
        self._shown: Any = None
        self._severity: int | None = None
        self._last_ns = 0

    def offer(self, value: Any, t_ns: int, *, key: Any = None, severity: int | None = None, now: bool = False) -> bool:
        """Publish `value` if it is worth it; True if so.

        Args:
            value: as `channels.publish.publish` takes it.
            t_ns: facility time of the value.
            key: what counts as the value when looking for a change; default the value itself.
            severity: alarm severity; None: by the PV's alarm limits.
            now: any change is published at once.
        """
        shown = value if key is None else key
        if self.writes:
            same = shown == self._shown or not self._moved(shown, 0.0 if now else self._deadband)
            if same and severity == self._severity:
                return False
            if not now and t_ns - self._last_ns < self._least_ns:
                return False
        publish(self.channel, self._wire(value), t_ns, severity)
        self.writes += 1
        self._shown, self._severity, self._last_ns = shown, severity, t_ns
        return True

    def forget(self) -> None:
        """Publish whatever is offered next."""
        self._shown = self._severity = _NOTHING
        self._last_ns = -self._least_ns

    def _wire(self, value: Any) -> Any:
        """The value as it is published."""
        return value

    def _moved(self, value: Any, deadband: float) -> bool:
        before = self._shown
        if isinstance(value, float) and isinstance(before, float):
            if value != value or before != before:
                return (value == value) != (before == before)
            return abs(value - before) > deadband
        return bool(value != before)


class Packed(Outlet):
    """A waveform of values that change together, the first of which is a sequence number of its own: `offer` takes
    the list without it."""

    def _wire(self, value: Any) -> Any:
        array = np.array((self.writes + 1.0, *value))
        array.flags.writeable = False
        return array


class OutletGroup(CataloguedGroup):
    """A group whose PVs are published through outlets, each an attribute of it."""

    @property
    def outlets(self) -> tuple[Outlet, ...]:
        """All of them: none can be forgotten."""
        return tuple(value for value in vars(self).values() if isinstance(value, Outlet))


_NOTHING: Any = object()
