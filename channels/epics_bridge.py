"""Channels by Channel Access: libca's threads on one side, one asyncio loop on the other.

Nothing here blocks the loop: requests go to the libca thread, what comes back is queued and handed over in one
call per batch. If the loop falls so far behind that the queue fills, only the newest update of each PV is kept,
and `lost_updates` counts the others: read counters that accumulate with `get`.

A put that the server refuses is answered like one that it accepted (pyepics and many servers do not tell them
apart, so nobody may rely on it); `refused_puts` counts those that libca reported. Time stamps are the server's,
as facility time; servers that stamp with the wall clock give times since 2020.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import structlog

from channels.base import ChannelBase, disconnected, within
from channels.libca import (
    CHAR,
    DTYPES,
    ECA_DISCONN,
    ECA_NOWTACCESS,
    ENUM,
    STRING,
    CaChannel,
    LibCa,
    Received,
    Shape,
    libca,
)
from channels.libca_settings import configure_libca
from channels.protocol import Channel, Putable, Sample
from channels.wire import char_array, enum_index, number_array, string_bytes
from facility.errors import ChannelError
from facility.timebase import Clock

__all__ = ["EpicsChannel", "EpicsProvider", "configure_libca"]

_log = structlog.get_logger(__name__)
_INBOX_MAX = 10_000
_NORMAL = 1
_STRING_SIZE = 40
_CLOSE_TIMEOUT_S = 5.0


class _Inbox:
    """The bridge: any thread puts, the loop takes all there is in one call."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.lost = 0
        self._loop = loop
        self._lock = threading.Lock()
        self._updates: list[tuple[EpicsChannel, Received]] = []
        self._events: list[Callable[[], None]] = []
        self._waking = False

    def put_update(self, channel: EpicsChannel, received: Received) -> None:
        with self._lock:
            self._updates.append((channel, received))
            if len(self._updates) > _INBOX_MAX:
                newest = {id(entry[0]): entry for entry in self._updates}
                self.lost += len(self._updates) - len(newest)
                self._updates = list(newest.values())
            self._wake()

    def put_event(self, event: Callable[[], None]) -> None:
        """Connections and answers: as many as there are channels and requests, never dropped."""
        with self._lock:
            self._events.append(event)
            self._wake()

    def _wake(self) -> None:
        if self._waking:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed, nobody will listen again
            self._loop.call_soon_threadsafe(self._drain)
            self._waking = True

    def _drain(self) -> None:
        with self._lock:
            self._waking = False
            updates, self._updates = self._updates, []
            events, self._events = self._events, []
        for event in events:
            event()
        for channel, received in updates:
            channel.take(received)


class EpicsChannel(ChannelBase):
    """One PV of an EpicsProvider."""

    def __init__(self, provider: EpicsProvider, name: str, monitored: bool, stale_after_s: float | None) -> None:
        super().__init__(name, provider.clock, provider.loop, stale_after_s)
        self.monitored = monitored
        self.ready: asyncio.Future[None] = provider.loop.create_future()
        self.ca = CaChannel(name, self._connection_on_ca_thread, self._value_on_ca_thread)
        self._provider = provider
        self._shape: Shape | None = None
        self._states: list[str] | None = None

    async def get(self, timeout_s: float) -> Sample:
        """Read from the server now."""
        shape = self._connected_shape()
        received: Received = await self._ask(timeout_s, "get", self._provider.ca.get, self.ca, shape)
        return self.accept(received.value, received.t_ns, received.severity, received.status)

    async def put(self, value: Putable, timeout_s: float) -> None:
        """Write and wait until the server has dealt with it."""
        shape = self._connected_shape()
        if shape.kind == ENUM and isinstance(value, str) and self._states is None:
            self._states = await self._ask(timeout_s, "get", self._provider.ca.get_states, self.ca)
        data = self._encode(shape, value)
        await self._ask(timeout_s, "put", self._provider.ca.put, self.ca, shape.kind, data)

    def take(self, received: Received) -> None:
        """A monitor update, on the loop's thread."""
        if self._shape is None:
            return  # sent before the link was lost, handed over after
        self.accept(received.value, received.t_ns, received.severity, received.status)
        if not self.ready.done():
            self.ready.set_result(None)

    def _connected_shape(self) -> Shape:
        if self._shape is None:
            raise disconnected(self.name)
        return self._shape

    def _encode(self, shape: Shape, value: Putable) -> Any:
        if shape.kind == STRING:
            return string_bytes(value, self.name).ljust(_STRING_SIZE, b"\0")
        if shape.kind == CHAR:
            return char_array(value, shape.count, self.name)
        if shape.kind == ENUM:
            states = self._states or [str(index) for index in range(16)]
            return np.array([enum_index(value, states, self.name)], dtype=np.uint16)
        return np.ascontiguousarray(number_array(value, DTYPES[shape.kind], shape.count, self.name))

    async def _ask(self, timeout_s: float, what: str, request: Callable[..., int], *args: Any) -> Any:
        answer: asyncio.Future[tuple[int, Any]] = self._provider.loop.create_future()

        def resolve(status: int, result: Any) -> None:
            if not answer.done():
                answer.set_result((status, result))

        def answered(status: int, result: Any) -> None:
            self._provider.inbox.put_event(lambda: resolve(status, result))

        token = request(*args, answered)
        try:
            status, result = await within(answer, timeout_s, self.name, what)
        finally:
            self._provider.ca.forget(token)
        if status != _NORMAL:
            self._raise(status, what)
        return result

    def _raise(self, status: int, what: str) -> None:
        if status == ECA_NOWTACCESS:
            raise ChannelError(
                code="channel.read-only", what="this PV takes no writes", where=self.name, fix="use its command"
            )
        if status == ECA_DISCONN:
            raise disconnected(self.name)
        if what == "put":
            self._provider.refused_puts += 1
            _log.debug("put refused", pv=self.name, status=status)
            return
        raise ChannelError(code="channel.refused", what=f"the server refused a {what}: ECA {status}", where=self.name)

    def _connection_on_ca_thread(self, shape: Shape | None) -> None:
        self._provider.inbox.put_event(lambda: self._on_connection(shape))

    def _value_on_ca_thread(self, received: Received) -> None:
        self._provider.inbox.put_update(self, received)

    def _on_connection(self, shape: Shape | None) -> None:
        self._shape = shape
        self._states = None
        if shape is None:
            self.link_lost()
        elif self.monitored:
            self._provider.ca.subscribe(self.ca, shape)  # connected with its first sample
        else:
            self.link_up()
            if not self.ready.done():
                self.ready.set_result(None)


class EpicsProvider:
    """Channels of one client by Channel Access; make it inside the running loop.

    Args:
        clock: facility time, for staleness.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.loop = asyncio.get_running_loop()
        self.ca: LibCa = libca()
        self.inbox = _Inbox(self.loop)
        self.refused_puts = 0
        """Puts that the server is known to have refused; others may have been refused too."""
        self._channels: dict[str, EpicsChannel] = {}

    @property
    def lost_updates(self) -> int:
        """Monitor updates dropped because the loop did not keep up."""
        return self.inbox.lost

    async def connect(
        self,
        names: Collection[str],
        timeout_s: float,
        *,
        monitor: Collection[str] | None = None,
        stale_after_s: Mapping[str, float] | None = None,
    ) -> dict[str, Channel]:
        """See `channels.protocol.ChannelProvider`."""
        for name in names:
            if name not in self._channels:
                monitored = monitor is None or name in monitor
                channel = EpicsChannel(self, name, monitored, (stale_after_s or {}).get(name))
                self._channels[name] = channel
                self.ca.open(channel.ca)
        waiting = {self._channels[name].ready for name in names}
        if waiting:
            await asyncio.wait(waiting, timeout=timeout_s)
        missing = sorted(name for name in names if not self._channels[name].ready.done())
        if missing:
            raise ChannelError(
                code="channel.connect",
                what=f"{len(missing)} PVs did not connect within {timeout_s:g} s: {', '.join(missing[:10])}",
                fix="look whether their server runs, and on which port",
            )
        return {name: self._channels[name] for name in names}

    async def close(self) -> None:
        """Clear all channels; returns when libca has let go of them."""
        channels = list(self._channels.values())
        self._channels.clear()
        for channel in channels:
            channel.link_lost()
            channel.forget_callbacks()
            channel.ready.cancel()
        closed = asyncio.Event()
        self.ca.close([channel.ca for channel in channels], lambda: self.inbox.put_event(closed.set))
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await closed.wait()
