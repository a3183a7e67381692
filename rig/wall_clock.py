"""The only place that reads the wall clock or the system's randomness: what a real process needs of the real world.

Everything below `rig` takes its time and its identities as arguments.
"""

from __future__ import annotations

import secrets  # noqa: TID251 - private keys of a real installation must not be guessable
import time

NS_PER_S = 1_000_000_000


def monotonic_ns() -> int:
    """Wall time since some moment of this machine, ns; never goes back, the same for all processes."""
    return time.monotonic_ns()


def monotonic_s() -> float:
    """The same in s."""
    return time.monotonic()  # noqa: TID251 - rig adapters pace, time out and measure in wall time


def unix_s() -> float:
    """Calendar time, s since 1970."""
    return time.time()  # noqa: TID251 - run directories and session names carry dates


def sleep_s(seconds: float) -> None:
    """Wait; never while holding anything."""
    if seconds > 0.0:
        time.sleep(seconds)


def boot_identity() -> int:
    """64 bits, higher with every start of a process: calendar time in ns."""
    return time.time_ns()


def entropy(count: int) -> bytes:
    """Unpredictable bytes, for private keys."""
    return secrets.token_bytes(count)


class RisingNonces:
    """Numbers that rise, across restarts too: calendar time in ns, or the last one plus 1."""

    def __init__(self) -> None:
        self._last = 0

    def __call__(self) -> int:
        self._last = max(self._last + 1, time.time_ns())
        return self._last


def fresh_name(digits: int = 8) -> str:
    """Hex digits that no other run directory has."""
    return secrets.token_hex(digits // 2)


class MonotonicClock:
    """A `facility.timebase.Clock` that is the machine's monotonic clock: all processes of a machine share it."""

    def now_ns(self) -> int:
        """Wall time since some moment of this machine, ns."""
        return time.monotonic_ns()


def iso_now() -> str:
    """Calendar time in ISO form, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
