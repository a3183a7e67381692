"""The server's side of a PV: publish values with facility-time stamps, read them as clients would.

caproto stamps with the wall clock wherever nobody gives a stamp (a client's put, a PV's first value, an
alarm). Importing this module replaces that clock by facility time: the clock set with `stamp_with`, or time
zero where none is set.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

import caproto._data
import numpy as np
from caproto import (
    AlarmSeverity,
    AlarmStatus,
    ChannelAlarm,
    ChannelData,
    ChannelEnum,
    ChannelNumeric,
    ChannelType,
    TimeStamp,
)
from numpy.typing import NDArray

from channels.protocol import Value
from facility.errors import InternalError
from facility.timebase import Clock, epics_stamp, from_epics_stamp

T = TypeVar("T")

NUMBER_DTYPES: Mapping[Any, type[np.generic]] = {
    ChannelType.DOUBLE: np.float64,
    ChannelType.FLOAT: np.float32,
    ChannelType.LONG: np.int32,
    ChannelType.INT: np.int16,
    ChannelType.CHAR: np.uint8,
}
_FLOATS = frozenset({ChannelType.DOUBLE, ChannelType.FLOAT})
_SCALARS = frozenset({float, int, str})
"""What caproto's preprocessing leaves as it is in a PV of one element."""

_stamp_clock: ContextVar[Clock | None] = ContextVar("stamp_clock", default=None)


class _FacilityTime:
    """Stands in for module `time` inside caproto's data layer, which only asks for `time.time()`."""

    @staticmethod
    def time() -> tuple[int, int]:
        clock = _stamp_clock.get()
        return epics_stamp(0 if clock is None else clock.now_ns())


caproto._data.time = _FacilityTime()


@contextlib.contextmanager
def stamp_with(clock: Clock) -> Iterator[None]:
    """Inside, and in tasks created inside, writes that give no stamp get this clock's time."""
    token = _stamp_clock.set(clock)
    try:
        yield
    finally:
        _stamp_clock.reset(token)


def run_sync(coro: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that does not suspend, with or without an event loop; InternalError if it suspends."""
    try:
        coro.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coro.close()
    raise InternalError(code="publish.suspended", what="a synchronous call waited", where=repr(coro))


def publish(
    channel: ChannelData,
    value: Value | list[Any] | int,
    t_ns: int,
    severity: int | None = None,
    status: int | None = None,
) -> None:
    """Give a PV a new value as its server, past the putter, and send it to whoever monitors it.

    Args:
        channel: the PV's entry in the pvdb.
        value: its new value; an enum takes index or name. Arrays are copied unless they are read-only.
        t_ns: facility time of the value, ns.
        severity: EPICS alarm severity; None: from the PV's alarm limits, which gives 0 where it has none.
        status: EPICS alarm status; None: the one that goes with the limit, or UDF / STATE / 0 by severity.

    Call it on the thread of the server's loop. caproto's errors come through where the value does not fit.
    """
    if isinstance(value, np.ndarray):
        value = _frozen(value)
    elif isinstance(channel, ChannelEnum) and not isinstance(value, str):
        value = channel.enum_strings[int(value)]  # type: ignore[arg-type]
    if severity is None:
        severity, limit_status = limit_alarm(channel, value)
        status = limit_status if status is None else status
    elif status is None:
        status = _DEFAULT_STATUS[severity]
    if channel._fill_at_next_write:  # a client uses the "sync" channel filter: caproto's full way
        stamp = epics_stamp(t_ns)
        run_sync(channel.write(value, verify_value=False, timestamp=stamp, severity=severity, status=status))
        return
    if channel._max_length != 1 or type(value) not in _SCALARS:
        value = channel.preprocess_value(value)
    _store(channel, value, t_ns, severity, status)
    _notify(channel)


def _store(channel: ChannelData, value: Any, t_ns: int, severity: int, status: int) -> None:
    """What `ChannelData.write` stores, at a quarter of its cost; a test holds both together."""
    if getattr(channel, "field_inst", None) is not None:
        run_sync(channel.update_fields(value))
    data = channel._data
    data["value"] = value
    seconds, ns = epics_stamp(t_ns)
    data["timestamp"] = TimeStamp(seconds, ns)
    alarm = channel.alarm
    known = alarm._data  # the properties look there by name
    if known["severity"] != severity or known["status"] != status:
        run_sync(alarm.write(severity=severity, status=status, publish=False))
        run_sync(alarm.publish(0, except_for=(channel,)))


def _notify(channel: ChannelData) -> None:
    queues = channel._queues
    if not queues:
        return
    taps = [queue for queue in queues if isinstance(queue, Tap)]
    if len(taps) < len(queues):
        run_sync(channel.publish(0))  # a caproto server listens: converts, and reaches the taps too
        return
    for tap in taps:
        tap.on_update(channel)


class Tap:
    """Looks like the queue of a caproto server; hands every update on at once, without conversion."""

    def __init__(self, on_update: Callable[[ChannelData], None]) -> None:
        self.on_update = on_update

    async def put(self, update: Any) -> None:
        """What caproto calls."""
        self.on_update(update.sub_specs[0].db_entry)


_DEFAULT_STATUS = {0: AlarmStatus.NO_ALARM, 1: AlarmStatus.STATE, 2: AlarmStatus.STATE, 3: AlarmStatus.UDF}


def limit_alarm(channel: ChannelData, value: Any) -> tuple[int, int]:
    """Severity and status that the PV's alarm limits give a scalar; equal limits mean there are none."""
    if not isinstance(channel, ChannelNumeric) or channel.max_length != 1 or isinstance(value, bytes | str):
        return AlarmSeverity.NO_ALARM, AlarmStatus.NO_ALARM
    number = float(value)
    if number != number:
        return AlarmSeverity.INVALID_ALARM, AlarmStatus.UDF
    limits = channel._data  # the properties look there by name
    low, high = limits["lower_alarm_limit"], limits["upper_alarm_limit"]
    if low != high and not low < number < high:
        return AlarmSeverity.MAJOR_ALARM, AlarmStatus.LOLO if number <= low else AlarmStatus.HIHI
    low, high = limits["lower_warning_limit"], limits["upper_warning_limit"]
    if low != high and not low < number < high:
        return AlarmSeverity.MINOR_ALARM, AlarmStatus.LOW if number <= low else AlarmStatus.HIGH
    return AlarmSeverity.NO_ALARM, AlarmStatus.NO_ALARM


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    if not array.flags.writeable:
        return array
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def unshare_alarms(pvdb: Mapping[str, ChannelData]) -> None:
    """Give every PV an alarm of its own.

    caproto's PVs of one group share one alarm (and `alarm_group="unique"` is a group like any other), so that
    a good write to one PV clears the alarm of another.
    """
    shared = Counter(id(channel.alarm) for channel in pvdb.values())
    for channel in pvdb.values():
        if shared[id(channel.alarm)] > 1:
            channel.alarm = ChannelAlarm()


def native_value(channel: ChannelData) -> Value:
    """The PV's value as `channels.protocol` hands it to clients."""
    value = channel.value
    kind = channel.data_type
    if kind == ChannelType.ENUM:
        return channel.enum_strings.index(value) if isinstance(value, str) else int(value)
    if kind == ChannelType.STRING:
        return _native_string(value)
    if kind == ChannelType.CHAR:
        return _native_bytes(value) if channel.max_length > 1 else int(_native_bytes(value)[0])
    if channel.max_length > 1:
        array = np.asarray(value, dtype=NUMBER_DTYPES[kind])
        return _frozen(np.atleast_1d(array))
    number = NUMBER_DTYPES[kind](value)
    return float(number) if kind in _FLOATS else int(number)


def _native_string(value: Any) -> str:
    first = value[0] if isinstance(value, list | tuple) else value
    return first.decode("latin-1") if isinstance(first, bytes) else str(first)


def _native_bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("latin-1")
    if isinstance(value, int):
        return bytes([value])
    return bytes(value)


def stamp_ns(channel: ChannelData) -> int:
    """Facility time of the PV's value, ns."""
    stamp = channel._data["timestamp"]  # the property copies the structure
    return from_epics_stamp(stamp.secondsSinceEpoch, stamp.nanoSeconds)
