"""Facility time: one injected clock, integer nanoseconds, and the order of what falls on the same instant.

Time zero is the start of the run. EPICS and DICOM want calendar dates, so facility time zero is shown as
2020-01-01T00:00:00Z; the date says nothing about when the run took place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import IntEnum
from typing import Protocol, runtime_checkable

from facility.constants import IDLE_STEP_NS, TICK_NS
from facility.errors import InternalError

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_US = 1_000

CLOCK_STEP_S = 1e-9
"""Facility time has whole nanoseconds: what is left of a wait below that is rounding, which no timer would use up."""

BEAM_TICK_NS = TICK_NS
"""Plant step while beam is possible: 10 us."""

IDLE_TICK_NS = IDLE_STEP_NS
"""Plant step otherwise: 1 ms, on an absolute grid."""

FACILITY_EPOCH_UNIX_S = 1_577_836_800
"""2020-01-01T00:00:00Z in seconds since the Unix epoch: what facility time zero is shown as."""

FACILITY_EPOCH_EPICS_S = FACILITY_EPOCH_UNIX_S - 631_152_000
"""The same instant in seconds since the EPICS epoch (1990-01-01T00:00:00Z)."""


class Rank(IntEnum):
    """Order of things that fall on the same nanosecond; lower runs first, then by sequence of scheduling."""

    PLANT = 0
    H = 1
    LINK = 2
    P = 3
    IOC = 4
    CONTROL = 5
    TELEMETRY = 6


current_rank: ContextVar[Rank] = ContextVar("current_rank", default=Rank.CONTROL)
"""Rank that timers made in this context get; a task keeps the rank it was created under."""


@contextmanager
def ranked(rank: Rank) -> Iterator[None]:
    """Everything scheduled inside, and every task created inside for its whole life, has this rank."""
    token = current_rank.set(rank)
    try:
        yield
    finally:
        current_rank.reset(token)


@runtime_checkable
class Clock(Protocol):
    """Source of facility time."""

    def now_ns(self) -> int:
        """Facility time in ns since the start of the run; never goes back."""
        ...


class ManualClock:
    """A clock that a test or a stepper moves by hand."""

    def __init__(self, t_ns: int = 0) -> None:
        self._t_ns = t_ns

    def now_ns(self) -> int:
        """Facility time, ns."""
        return self._t_ns

    def set_ns(self, t_ns: int) -> None:
        """Move to an absolute time, ns; InternalError if that is in the past."""
        if t_ns < self._t_ns:
            raise InternalError(
                code="clock.backwards",
                what=f"asked for {t_ns} ns at {self._t_ns} ns",
                where="facility.timebase",
            )
        self._t_ns = t_ns

    def advance_ns(self, dt_ns: int) -> int:
        """Move forward by dt_ns (ns, not negative) and return the new time, ns."""
        self.set_ns(self._t_ns + dt_ns)
        return self._t_ns


def seconds_to_ns(seconds: float) -> int:
    """Seconds to the nearest whole ns."""
    return round(seconds * NS_PER_S)


def to_next_s(now_s: float, period_s: float) -> float:
    """Time until the next whole multiple of a period, s; never less than a thousandth of it.

    Whoever repeats something, and does so at whole multiples, meets the others there: one instant instead of several.
    """
    left_s = period_s - now_s % period_s
    return left_s if left_s > 1e-3 * period_s else left_s + period_s  # the remainder of a float may be all but whole


def epics_stamp(t_ns: int) -> tuple[int, int]:
    """Facility time (ns) as an EPICS time stamp: (seconds since 1990, ns)."""
    seconds, ns = divmod(t_ns, NS_PER_S)
    return FACILITY_EPOCH_EPICS_S + seconds, ns


def from_epics_stamp(seconds: int, ns: int) -> int:
    """The facility time (ns) behind an EPICS time stamp (seconds since 1990, ns)."""
    return (seconds - FACILITY_EPOCH_EPICS_S) * NS_PER_S + ns


def from_unix_seconds(seconds: float) -> int:
    """Facility time (ns) behind a Unix time stamp given as float seconds; good to about 0.25 us."""
    return round((seconds - FACILITY_EPOCH_UNIX_S) * NS_PER_S)
