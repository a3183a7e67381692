"""One device behind somebody else's IOC: its PVs by libca, without an event loop between it and the rack.

libca's threads bring readings, connections and answers; the rack's thread takes readings and says what it wants, every
2 ms. Nothing here judges: a reading is handed on with the moment it was taken, and grows old in the rack.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from channels.libca import CHAR, DOUBLE, ENUM, LONG, SHORT, STRING, CaChannel, LibCa, Received, Shape
from channels.protocol import Severity
from facility.config.external import ExternalDevice
from facility.external import units
from facility.timebase import from_unix_seconds
from rig.wall_clock import monotonic_ns, unix_s

_NORMAL = 1
_READINGS_MAX = 256
PUT_NS = 1_000_000_000
"""A put that has not been answered for so long is put again."""
_WHOLE = {SHORT: np.int16, ENUM: np.uint16, CHAR: np.uint8, LONG: np.int32}


class Reading(NamedTuple):
    """What a device has said."""

    value: float
    """In the unit of the rack."""
    wall_ns: int
    """When it was taken, by `rig.wall_clock.monotonic_ns`."""
    good: bool
    acknowledged: float
    """Set point that the device had acknowledged before, NaN for none."""


class Wish(NamedTuple):
    """What a device should be set to."""

    value: float
    """In the unit of the rack."""
    key: object = None
    """Table mode: what the table belongs to."""
    table: np.ndarray | None = None
    """Table mode: set points of all spots, (n,); None: this one alone."""
    spot: int = 0


class ExternalLink:
    """The PVs of one device.

    Args:
        name: of `facility.external.DEVICES`.
        device: its section of the facility file.
        ca: the process's libca.
    """

    def __init__(self, name: str, device: ExternalDevice, ca: LibCa) -> None:
        self.name = name
        self._device = device
        self._ca = ca
        self._factor = units(name)[device.unit]
        self._lock = threading.Lock()
        self._readings: deque[Reading] = deque(maxlen=_READINGS_MAX)
        self._shapes: dict[str, Shape] = {}
        self._lost = False
        self._status_ok = device.status is None
        self._last_stamp_ns = 0
        self._skip = False
        self._acknowledged = math.nan
        self._asked = math.nan
        self._table_key: object = None
        self._busy_until_ns = 0
        self._generation = 0
        self._channels: dict[str, CaChannel] = {}
        for part in ("readback", "status", "setpoint", "table", "trigger"):
            suffix = getattr(device, part)
            if suffix is not None:
                self._open(part, device.prefix + suffix)

    def _open(self, part: str, pv: str) -> None:
        heard: dict[str, Callable[[Received], None]] = {"readback": self._on_reading, "status": self._on_status}
        channel = CaChannel(pv, lambda shape: self._on_connection(part, shape), heard.get(part, lambda _: None))
        self._channels[part] = channel
        self._ca.open(channel)

    # --- on threads of libca ---------------------------------------------------------------------------------
    def _on_connection(self, part: str, shape: Shape | None) -> None:
        with self._lock:
            if shape is None:
                self._shapes.pop(part, None)
                self._lost = True
                self._status_ok = self._device.status is None
                self._forget()
                return
            self._shapes[part] = shape
            self._last_stamp_ns = 0
        if part in ("readback", "status"):
            self._ca.subscribe(self._channels[part], shape)

    def _forget(self) -> None:
        """It may have been switched off in between: nothing that it was told holds."""
        self._acknowledged = math.nan
        self._table_key = None
        self._busy_until_ns = 0
        self._generation += 1

    def _on_status(self, received: Received) -> None:
        value = received.value
        good = isinstance(value, int | float) and float(value) == self._device.status_good
        with self._lock:
            self._status_ok = good and received.severity < Severity[self._device.fail_severity]

    def _on_reading(self, received: Received) -> None:
        now_ns = monotonic_ns()
        age_ns = 0
        if self._device.stamp == "server":
            age_ns = max(0, from_unix_seconds(unix_s()) - received.t_ns)
        value = received.value
        number = float(value) * self._factor if isinstance(value, int | float) else math.nan
        with self._lock:
            if received.t_ns <= self._last_stamp_ns:  # the same reading again is no reading
                return
            self._last_stamp_ns = received.t_ns
            good = self._status_ok and received.severity < Severity[self._device.fail_severity]
            acknowledged = math.nan if self._skip else self._acknowledged
            self._skip = False
            self._readings.append(Reading(number, now_ns - age_ns, good, acknowledged))

    def _on_answer(self, generation: int, done: Callable[[], None], status: int) -> None:
        with self._lock:
            if generation != self._generation:
                return  # of a connection that is gone, or put again since
            self._busy_until_ns = 0
            if status == _NORMAL:
                done()

    # --- on the rack's thread ----------------------------------------------------------------------------------
    def take(self) -> tuple[bool, list[Reading]]:
        """Whether the device was lost since the last call, and its readings since then."""
        with self._lock:
            lost, self._lost = self._lost, False
            readings = list(self._readings)
            self._readings.clear()
        return lost, [] if lost else readings

    def want(self, wish: Wish) -> None:
        """Ask for a set point, unless the device has acknowledged it or is being asked."""
        with self._lock:
            busy = monotonic_ns() < self._busy_until_ns
            if self._acknowledged == wish.value or (busy and self._asked == wish.value) or self._device.mode == "none":
                return
            if not all(part in self._shapes for part in self._channels):
                return
            self._acknowledged = math.nan
            self._asked = wish.value
            self._busy_until_ns = monotonic_ns() + PUT_NS
            self._generation += 1
            generation = self._generation
            if self._device.mode != "table":
                part, values, done = "setpoint", np.array([wish.value / self._factor]), self._done(wish.value)
            elif wish.table is None or self._table_key != wish.key:
                table = np.array([wish.value]) if wish.table is None else wish.table
                key = wish.key if wish.table is not None else ("alone", wish.value)
                if self._table_key != key:
                    part, values, done = "table", table / self._factor, self._tabled(key)
                else:
                    part, values, done = "trigger", np.array([0.0]), self._done(wish.value)
            else:
                part, values, done = "trigger", np.array([float(wish.spot)]), self._done(wish.value)
            kind = self._shapes[part].kind
        self._put(part, kind, values, lambda status, _: self._on_answer(generation, done, status))

    def close(self) -> None:
        """Let go of the channels."""
        self._ca.close(list(self._channels.values()), lambda: None)

    def _done(self, value: float) -> Callable[[], None]:
        def done() -> None:
            self._acknowledged = value
            self._skip = True  # one reading may have been on its way

        return done

    def _tabled(self, key: object) -> Callable[[], None]:
        def done() -> None:
            self._table_key = key
            self._asked = math.nan  # now the trigger

        return done

    def _put(self, part: str, kind: int, values: np.ndarray, answer: Callable[[int, object], None]) -> None:
        channel = self._channels[part]
        if kind == STRING:
            return  # not a number: never acknowledged, so there is no beam
        dtype = _WHOLE.get(kind, np.float64 if kind == DOUBLE else np.float32)
        self._ca.put(channel, kind, np.ascontiguousarray(values, dtype=dtype), answer)
