"""Soft IOC channels made from the PV catalogue, so that a group cannot say anything else than the catalogue does.

```python
class GateGroup(CataloguedGroup):
    amplitude = declared("GATE:Amplitude-RB")
    state = declared("GATE:Open-Sts")

group = GateGroup("HIMM", clock)       # PVs HIMM:GATE:Amplitude-RB, ...
group.pvdb                             # full name -> channel, what a server serves
group.channel("GATE:Open-Sts")         # by catalogue name
```

What differs from channels that caproto makes by itself:

* every time stamp is facility time, also that of a value a client wrote; metadata that a client sends along with a
  value (severity, units, time) is dropped;
* each channel has an alarm of its own, and the WRITE alarm of a refused put ends with the next good write;
* ``.DESC`` and ``.RTYP`` are there and read-only, at no cost per write. No other record field is: in caproto each is a
  writable PV of its own (a client could move alarm limits), and each write would pay for keeping them up to date.
"""

from __future__ import annotations

import math
import types
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any

from caproto import (
    AccessRights,
    AlarmSeverity,
    AlarmStatus,
    CaprotoValueError,
    ChannelChar,
    ChannelString,
    ChannelType,
)
from caproto import _dbr as dbr
from caproto.server import PVGroup, pvproperty
from caproto.server.server import (
    PvpropertyByte,
    PvpropertyDouble,
    PvpropertyEnum,
    PvpropertyInteger,
    PvpropertyString,
)

from facility.errors import InternalError
from facility.pv_catalogue import BY_NAME, PvEntry
from facility.timebase import Clock, epics_stamp

Putter = Callable[[Any, Any, Any], Awaitable[Any]]
"""``async def put(group, channel, value)``: return the value to keep, or raise ``caproto.SkipWrite``."""

_KEPT = 16
"""Classes made at run time that are kept: making one costs as much as a layer."""
UNIT_BYTES = 8
STRING_BYTES = 39
ENUM_STATES = 16
ENUM_BYTES = 25
BACKLOG_ELEMENTS = 65_536
"""Elements of old updates that the server keeps for a slow subscriber, per subscription."""
BACKLOG_UPDATES = 100
INT_MAX = 2**31 - 1

_READ_WRITE = AccessRights.READ | AccessRights.WRITE
_ACKNOWLEDGE = (ChannelType.PUT_ACKS, ChannelType.PUT_ACKT)
_STRING_TYPES = (ChannelType.STRING, ChannelType.STS_STRING, ChannelType.TIME_STRING, ChannelType.GR_STRING,
                 ChannelType.CTRL_STRING)  # fmt: skip
_RECORD_TYPES = {
    "float": "ai",
    "int": "longin",
    "enum": "mbbi",
    "string": "stringin",
    "bytes": "waveform",
    "floats": "waveform",
}


class _Catalogued:
    """What all our channels have in common; mixed in before a caproto channel class."""

    group: Any
    pvspec: Any
    alarm: Any
    entry: PvEntry
    reported_record_type: str

    def __init__(self, *, entry: PvEntry, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.entry = entry
        self.reported_record_type = _RECORD_TYPES[entry.kind]

    def check_access(self, hostname: str, username: str) -> Any:
        """Client names are unauthenticated: what nobody may write is read-only for all, the rest is writable for all
        and protected by signatures and checks."""
        if self.pvspec.read_only:
            return AccessRights.READ
        return _READ_WRITE

    async def write(self, value: Any, **kwargs: Any) -> None:
        """Write with the facility's time unless a stamp is given."""
        if "timestamp" not in kwargs:
            kwargs["timestamp"] = epics_stamp(self.group.clock.now_ns())
        if self.alarm.status == AlarmStatus.WRITE:
            kwargs.setdefault("status", AlarmStatus.NO_ALARM)
            kwargs.setdefault("severity", AlarmSeverity.NO_ALARM)
        await super().write(value, **kwargs)  # type: ignore[misc]

    async def write_from_dbr(self, data: Any, data_type: Any, metadata: Any, **kwargs: Any) -> Any:
        """A client's put: its value counts, its metadata does not."""
        if data_type not in _ACKNOWLEDGE:
            data_type, metadata = dbr.native_type(data_type), None
        return await super().write_from_dbr(data, data_type, metadata, **kwargs)  # type: ignore[misc]

    def get_field(self, field: str) -> Any:
        """The channel itself, or one of the few record fields; KeyError for any other."""
        if not field or field == "VAL":
            return self
        if field == "DESC":
            return _FixedText(self.entry.description)
        if field == "RTYP":
            return _FixedText(self.reported_record_type)
        raise KeyError(field)


class _FixedText(ChannelChar):  # type: ignore[misc]
    """A text that nobody may write: all of it as a long string (``.DESC$``), what an EPICS string holds as a string."""

    def __init__(self, text: str) -> None:
        stamp = epics_stamp(0)
        super().__init__(value=text, max_length=len(text) + 1, report_as_string=True, timestamp=stamp)
        self._short = ChannelString(value=text[:STRING_BYTES], timestamp=stamp)

    def check_access(self, hostname: str, username: str) -> Any:
        """Read-only for everyone."""
        return AccessRights.READ

    async def read(self, data_type: Any) -> Any:
        """caproto by itself would send 40 characters and no terminator."""
        return await (self._short.read(data_type) if data_type in _STRING_TYPES else super().read(data_type))


class CataloguedDouble(_Catalogued, PvpropertyDouble):  # type: ignore[misc]
    """DOUBLE, scalar or waveform. A client cannot put NaN or infinity into a scalar."""

    async def verify_value(self, value: Any) -> Any:
        """Refuse what is not a number, check the limits, set the alarm."""
        if self._max_length == 1 and not math.isfinite(value):
            raise CaprotoValueError(f"{value} is not a finite number")
        return await super().verify_value(value)


class CataloguedInteger(_Catalogued, PvpropertyInteger):  # type: ignore[misc]
    """LONG."""


class CataloguedString(_Catalogued, PvpropertyString):  # type: ignore[misc]
    """STRING, at most 39 characters."""


class CataloguedBytes(_Catalogued, PvpropertyByte):  # type: ignore[misc]
    """CHAR waveform holding bytes."""


class CataloguedEnum(_Catalogued, PvpropertyEnum):  # type: ignore[misc]
    """ENUM; caproto by itself would store a state that does not exist."""

    async def verify_value(self, value: Any) -> Any:
        """Take a name or an index of a state."""
        if isinstance(value, str):
            if value not in self.enum_strings:
                raise CaprotoValueError(f"{value!r} is none of {', '.join(self.enum_strings)}")
        elif not 0 <= int(value) < len(self.enum_strings):
            raise CaprotoValueError(f"{value} is none of the states 0 to {len(self.enum_strings) - 1}")
        return await super().verify_value(value)


_CLASSES = {
    "float": CataloguedDouble,
    "int": CataloguedInteger,
    "enum": CataloguedEnum,
    "string": CataloguedString,
    "bytes": CataloguedBytes,
    "floats": CataloguedDouble,
}


def backlog(entry: PvEntry) -> int:
    """Old updates kept per subscription: many of a scalar, few of a large waveform, never fewer than two."""
    return max(2, min(BACKLOG_UPDATES, BACKLOG_ELEMENTS // entry.length))


def initial_value(entry: PvEntry) -> Any:
    """Value before the first write: zeros, the first state, empty text, an empty table."""
    if entry.kind == "floats":
        return [0.0] * (len(entry.fields) if entry.length == len(entry.fields) else 0)
    return {"float": 0.0, "int": 0, "enum": 0, "string": "", "bytes": b""}[entry.kind]


def attributes(entry: PvEntry) -> dict[str, Any]:
    """The keyword arguments of the channel class, from the entry.  InternalError for what EPICS cannot hold."""
    _check(entry)
    found: dict[str, Any] = {
        "entry": entry,
        "timestamp": epics_stamp(0),
        "max_subscription_backlog": backlog(entry),
    }
    if entry.kind == "enum":
        return found | {"value": entry.states[0], "enum_strings": entry.states}
    if entry.kind in ("float", "int", "floats"):
        found["units"] = entry.unit
    if entry.kind in ("float", "floats"):
        found["precision"] = entry.precision
    if entry.limits is not None:
        low, high = entry.limits
        found |= {"lower_ctrl_limit": low, "upper_ctrl_limit": high, "lower_disp_limit": low, "upper_disp_limit": high}
    if entry.alarms is not None:
        lolo, low, high, hihi = entry.alarms
        found |= {"lower_alarm_limit": lolo, "lower_warning_limit": low}
        found |= {"upper_warning_limit": high, "upper_alarm_limit": hihi}
    return found | {"value": initial_value(entry)}


def _check(entry: PvEntry) -> None:
    problem = ""
    if len(entry.unit.encode()) >= UNIT_BYTES:
        problem = f"unit {entry.unit!r} is longer than {UNIT_BYTES - 1} bytes"
    elif entry.kind == "enum" and not 0 < len(entry.states) <= ENUM_STATES:
        problem = f"{len(entry.states)} states; an EPICS enum has 1 to {ENUM_STATES}"
    elif any(len(state.encode()) > ENUM_BYTES for state in entry.states):
        problem = f"a state's name is longer than {ENUM_BYTES} bytes"
    elif entry.kind not in ("floats", "bytes") and entry.length != 1:
        problem = f"{entry.kind} of length {entry.length}"
    if problem:
        raise InternalError("catalogue.not-epics", problem, entry.name, "change facility/pv_catalogue.py")


def declared(name: str, put: Putter | None = None) -> Any:
    """The pvproperty of a catalogue entry, by its name without prefix; `put` handles a client's value.

    `put` runs before the value is stored: it returns the value to keep, or raises `caproto.SkipWrite` to keep the old
    one without an error. A writable entry without `put` keeps what clients write, within its limits.
    """
    if name not in BY_NAME:
        raise InternalError("catalogue.unknown", f"no PV {name}", "facility/pv_catalogue.py", "declare it there first")
    return declared_entry(BY_NAME[name], put)


def declared_entry(entry: PvEntry, put: Putter | None = None) -> Any:
    """Same for an entry that is made at run time (rule PVs of the safety IOC)."""
    read_only = entry.writer == "nobody"
    if read_only and put is not None:
        raise InternalError("catalogue.read-only", f"{entry.name} has no writer but a putter", "channels.pv_groups")
    kwargs = attributes(entry)
    value = kwargs.pop("value")
    return pvproperty(
        put=put,
        name=entry.name,
        dtype=_CLASSES[entry.kind],
        value=value,
        max_length=entry.length,
        alarm_group=entry.name,
        doc=entry.description,
        read_only=read_only,
        **kwargs,
    )


class CataloguedGroup(PVGroup):  # type: ignore[misc]
    """A PVGroup whose properties are `declared(...)`; names get the facility's prefix, stamps its time."""

    def __init__(self, prefix: str, clock: Clock) -> None:
        self.clock = clock
        super().__init__(prefix=f"{prefix}:")

    def channel(self, name: str) -> Any:
        """Channel of a catalogue name (without prefix)."""
        return self.pvdb[self.prefix + name]


def group_of(entries: tuple[PvEntry, ...], title: str, prefix: str, clock: Clock) -> CataloguedGroup:
    """A group made of entries at run time, all without putters; channels by `group.channel(name)`."""
    return _group_class(entries, title)(prefix, clock)


@lru_cache(maxsize=_KEPT)
def _group_class(entries: tuple[PvEntry, ...], title: str) -> type[CataloguedGroup]:
    namespace = {f"pv_{i}": declared_entry(entry) for i, entry in enumerate(entries)}
    made: type[CataloguedGroup] = types.new_class(
        title, (CataloguedGroup,), exec_body=lambda body: body.update(namespace)
    )
    return made
