"""What control and rig see of a process variable, whatever carries it.

Values by type of the PV, the same for every provider:

=================  =====================================================
scalar number      float (DOUBLE, FLOAT) or int
numeric waveform   1-D read-only ndarray, native byte order
CHAR waveform      bytes, without padding
string             str
enum               int, the index of the state; `put` takes index or name
=================  =====================================================

"No update" never means "unchanged": a channel declared with `stale_after_s` turns STALE without updates.
A put that returns says only that the server has the value or has refused it: Channel Access does not tell
which.
Commands are acknowledged by a result PV (`channels.command`), set points by their read-back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Value: TypeAlias = float | int | str | bytes | NDArray[np.generic]
Putable: TypeAlias = Value | list[float] | list[int]


class LinkState(Enum):
    """What a channel's last sample is worth."""

    CONNECTED = "connected"
    STALE = "stale"
    """Connected as far as the network knows, but nothing came within `stale_after_s`."""
    DISCONNECTED = "disconnected"


class Severity(IntEnum):
    """EPICS alarm severities."""

    NO_ALARM = 0
    MINOR = 1
    MAJOR = 2
    INVALID = 3


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One value as it was received."""

    value: Value
    t_ns: int
    """Facility time the server stamped, ns."""
    severity: int = 0
    """EPICS alarm severity, see Severity."""
    status: int = 0
    """EPICS alarm status."""
    seq: int = 0
    """Updates received on this channel so far, this one included; a get counts too."""


SampleCallback: TypeAlias = Callable[["Channel", Sample], None]
StateCallback: TypeAlias = Callable[["Channel", LinkState], None]
Unsubscribe: TypeAlias = Callable[[], None]


class Channel(Protocol):
    """One PV of one provider. Callbacks run on the event loop's thread and must not block."""

    @property
    def name(self) -> str:
        """PV name."""
        ...

    @property
    def state(self) -> LinkState:
        """State of the link, now."""
        ...

    def latest(self) -> Sample | None:
        """The last sample received; None before the first. Look at `state` before believing it."""
        ...

    async def get(self, timeout_s: float) -> Sample:
        """Read from the server now; ChannelError 'channel.timeout' or 'channel.disconnected'."""
        ...

    async def put(self, value: Putable, timeout_s: float) -> None:
        """Write and wait until the server has dealt with it; that it took the value is not known.

        Raises ChannelError: 'channel.read-only', 'channel.bad-value', 'channel.timeout',
        'channel.disconnected'.
        """
        ...

    def subscribe(self, callback: SampleCallback) -> Unsubscribe:
        """Call back on every update from now on; at once with the last sample where there is one."""
        ...

    def on_state(self, callback: StateCallback) -> Unsubscribe:
        """Call back on every change of state."""
        ...


class ChannelProvider(Protocol):
    """Makes channels; one per client and target."""

    async def connect(
        self,
        names: Collection[str],
        timeout_s: float,
        *,
        monitor: Collection[str] | None = None,
        stale_after_s: Mapping[str, float] | None = None,
    ) -> dict[str, Channel]:
        """Create all, then wait until each is connected and, if monitored, has its first sample.

        `monitor`: names to be monitored, default all; the others are for get and put only.
        `stale_after_s`: names with the silence (s) after which they turn STALE.
        Raises ChannelError 'channel.connect' naming those that did not come within `timeout_s`.
        A name asked for again gives the same channel.
        """
        ...

    async def close(self) -> None:
        """Let go of everything; channels turn DISCONNECTED."""
        ...
