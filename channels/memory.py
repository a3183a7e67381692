"""Channels over PVs in memory, without sockets, in virtual time: what Channel Access would do, with its delays.

A put arrives half its latency later and is answered half its latency after the putter is done; monitors
arrive `monitor_ns` later, all in the order they were sent, as on one TCP circuit. Updates of one instant
travel together. Jitter is a function of seed and message number, so the same run has the same delays.

As over Channel Access, a put that the putter refuses looks like one it accepted; only a PV that is read-only
says so. A put with a value that does not fit the PV raises before anything is sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import structlog
from caproto import AccessRights, CaprotoError, ChannelData, ChannelFilter, ChannelType, SubscriptionType
from caproto.server.common import SubscriptionSpec

from channels.base import ChannelBase, disconnected, within
from channels.protocol import Channel, Putable, Sample, Value
from channels.publish import Tap, native_value, run_sync, stamp_ns, stamp_with, unshare_alarms
from channels.wire import wire_value
from facility.errors import ChannelError, InternalError, IonctlError
from facility.timebase import NS_PER_MS, Rank, ranked

_log = structlog.get_logger(__name__)
_IN_FLIGHT_MAX = 100_000
_MASK = (1 << 64) - 1
_NO_FILTER = ChannelFilter(ts=False, dbnd=None, arr=None, sync=None)
# caproto converts every update to a wire type; this one costs least, and the value is read from the PV itself
_NOTICE_TYPE = "STSACK_STRING"


@dataclass(frozen=True, slots=True)
class Latency:
    """Delays of the link in facility time, ns: request and answer together, monitor, and the jitter on top."""

    put_ns: int = NS_PER_MS
    monitor_ns: int = 2 * NS_PER_MS
    jitter_ns: int = 200_000
    """Uniform from 0 to this is added to every message."""


class FacilityLoop(Protocol):
    """An event loop in facility time; `rig.virtual_time.VirtualLoop` is one."""

    def now_ns(self) -> int:
        """Facility time, ns."""
        ...

    def call_at_rank(self, t_ns: int, rank: Rank, callback: Callable[..., object], *args: Any) -> object:
        """Call back at t_ns in the order of rank."""
        ...


class _InFlight(NamedTuple):
    due_ns: int
    channel: MemoryChannel
    value: Value
    t_ns: int
    severity: int
    status: int


class MemoryChannel(ChannelBase):
    """One PV of a MemoryProvider."""

    def __init__(self, provider: MemoryProvider, name: str, entry: ChannelData, stale_after_s: float | None):
        super().__init__(name, provider, provider.event_loop, stale_after_s)
        self.entry = entry
        self.monitored = False
        self.losing = 0
        self._provider = provider

    async def get(self, timeout_s: float) -> Sample:
        """Read from the PV half the put latency from now; the answer takes as long again."""
        answer = await within(self._provider.request(self, self._read), timeout_s, self.name, "get")
        return self.accept(*answer)

    async def put(self, value: Putable, timeout_s: float) -> None:
        """Write; see the module's text for what its return says."""
        data = wire_value(self.entry, value, self.name)
        rights = self.entry.check_access(self._provider.host, self._provider.user)
        if AccessRights.WRITE not in rights:
            raise ChannelError(
                code="channel.read-only", what="this PV takes no writes", where=self.name, fix="use its command"
            )
        await within(self._provider.request(self, self._write, data), timeout_s, self.name, "put")

    async def _read(self) -> tuple[Value, int, int, int]:
        await self.entry.auth_read(self._provider.host, self._provider.user, ChannelType.STSACK_STRING)
        return self.sample_fields()

    async def _write(self, data: Any) -> None:
        provider = self._provider
        try:
            await self.entry.auth_write(provider.host, provider.user, data, self.entry.data_type, None)
        except (CaprotoError, IonctlError, ValueError, TypeError) as refusal:
            provider.refused_puts += 1
            _log.debug("put refused", pv=self.name, why=str(refusal))

    def sample_fields(self) -> tuple[Value, int, int, int]:
        """Value, facility time (ns), severity and status as the PV has them now."""
        alarm = self.entry.alarm
        return native_value(self.entry), stamp_ns(self.entry), int(alarm.severity), int(alarm.status)


class MemoryProvider:
    """Channels of one client on PVs in memory.

    Args:
        pvdb: PVs by name; their alarms are made separate (`unshare_alarms`).
        loop: the facility's loop, which must be the running one whenever channels are used.
        seed: of the jitter; `stream` tells clients apart.
        latency: delays of the link.
        user: name the server sees.
        rank: order of this client's updates among what happens at the same time.
    """

    def __init__(
        self,
        pvdb: Mapping[str, ChannelData],
        loop: FacilityLoop,
        *,
        seed: int = 0,
        stream: int = 0,
        latency: Latency | None = None,
        user: str = "control",
        host: str = "localhost",
        rank: Rank = Rank.CONTROL,
    ) -> None:
        unshare_alarms(pvdb)
        if not isinstance(loop, asyncio.AbstractEventLoop):
            raise InternalError(code="memory.loop", what=f"{type(loop).__name__} is no event loop")
        self.event_loop: asyncio.AbstractEventLoop = loop
        self.host = host
        self.user = user
        self.refused_puts = 0
        """Puts that putter or limits refused; the client was told nothing, as over Channel Access."""
        self.lost_updates = 0
        self._pvdb = pvdb
        self._loop: FacilityLoop = loop
        self._latency = latency or Latency()
        self._rank = rank
        self._salt = (seed * 0xD1B54A32D192ED03 + stream * 0x2545F4914F6CDD1D) & _MASK
        self._messages = 0
        self._extra_ns = 0
        self._down = False
        self._dead: set[str] = set()
        """PVs whose server has died."""
        self._tap = Tap(self._on_update)
        self._channels: dict[str, MemoryChannel] = {}
        self._by_entry: dict[int, list[MemoryChannel]] = {}
        self._in_flight: deque[_InFlight] = deque()
        self._last_due_ns = 0
        self._last_sent_ns = -1
        self._last_request_ns = 0
        self._writes: set[asyncio.Task[None]] = set()

    def now_ns(self) -> int:
        """Facility time, ns."""
        return self._loop.now_ns()

    async def connect(
        self,
        names: Collection[str],
        timeout_s: float,
        *,
        monitor: Collection[str] | None = None,
        stale_after_s: Mapping[str, float] | None = None,
    ) -> dict[str, Channel]:
        """See `channels.protocol.ChannelProvider`."""
        unknown = [name for name in names if name not in self._pvdb]
        if unknown or self._down:
            await asyncio.sleep(timeout_s)
            raise _not_found(unknown or list(names), timeout_s)
        first: list[asyncio.Future[None]] = []
        for name in names:
            channel = self._channel(name, (stale_after_s or {}).get(name))
            if monitor is None or name in monitor:
                first.append(self._monitor(channel))
            elif not channel.monitored:
                channel.link_up()
        for waiting in first:
            await within(waiting, timeout_s, "", "connect")
        return {name: self._channels[name] for name in names}

    async def close(self) -> None:
        """Stop monitoring; what is in flight is lost. Writes under way are cancelled."""
        for channel in self._channels.values():
            if channel.monitored:
                run_sync(channel.entry.unsubscribe(self._tap, _spec(channel.entry)))
            channel.link_lost()
            channel.forget_callbacks()
        self._channels.clear()
        self._by_entry.clear()
        self._in_flight.clear()
        for task in tuple(self._writes):
            task.cancel()
        if self._writes:
            await asyncio.gather(*self._writes, return_exceptions=True)

    # faults

    def set_link_down(self, down: bool, *, noticed: bool = True) -> None:
        """Cut the link or mend it.

        `noticed`: the client sees it at once, as when the server is killed; otherwise nothing arrives and
        nothing is said, as with a cut cable. Mended, every monitor sends its value again.
        """
        if down == self._down:
            return
        self._down = down
        if down:
            self.lost_updates += len(self._in_flight)
            self._in_flight.clear()
        for channel in self._channels.values():
            if down and noticed:
                channel.link_lost()
            elif not down and channel.monitored:
                self._on_update(channel.entry)
            elif not down:
                channel.link_up()

    def kill_server(self, names: Collection[str]) -> None:
        """The process that serves these PVs dies: the client sees it at once, and nothing of them comes any more."""
        self._dead.update(names)
        for name in self._dead & self._channels.keys():
            self._channels[name].link_lost()

    def set_extra_latency_ns(self, extra_ns: int) -> None:
        """Add to every message from now on, ns."""
        self._extra_ns = extra_ns

    def lose_updates(self, name: str, count: int) -> None:
        """Lose the next `count` monitor updates of a PV, as a slow client does."""
        self._channels[name].losing += count

    # the link

    def request(self, channel: MemoryChannel, work: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Carry a request to the server; the future gets the answer. Lost on a link that is cut."""
        if channel.state.value == "disconnected":
            raise disconnected(channel.name)
        answer: asyncio.Future[Any] = self.event_loop.create_future()
        half_ns = self._latency.put_ns // 2
        self._last_request_ns = max(self._last_request_ns, self._loop.now_ns() + half_ns + self._delay_ns())
        if not self._down and channel.name not in self._dead:
            self._loop.call_at_rank(self._last_request_ns, Rank.IOC, self._arrive, answer, work, args)
        return answer

    def _arrive(self, answer: asyncio.Future[Any], work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if self._down:
            return
        with ranked(Rank.IOC), stamp_with(self):
            task = self.event_loop.create_task(self._serve(answer, work, args))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _serve(self, answer: asyncio.Future[Any], work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        result = await work(*args)
        half_ns = self._latency.put_ns - self._latency.put_ns // 2
        self._loop.call_at_rank(self._loop.now_ns() + half_ns, self._rank, self._answer, answer, result)

    def _answer(self, answer: asyncio.Future[Any], result: Any) -> None:
        if not self._down and not answer.done():
            answer.set_result(result)

    def _on_update(self, entry: ChannelData) -> None:
        if self._down:
            return
        now_ns = self._loop.now_ns()
        if now_ns != self._last_sent_ns:
            due_ns = now_ns + self._latency.monitor_ns + self._delay_ns()
            self._last_due_ns = max(self._last_due_ns, due_ns)
            self._last_sent_ns = now_ns
        for channel in self._by_entry.get(id(entry), ()):
            self._send(channel)

    def _send(self, channel: MemoryChannel) -> None:
        if channel.losing or channel.name in self._dead:
            channel.losing = max(channel.losing - 1, 0)
            self.lost_updates += 1
            return
        flights = self._in_flight
        if len(flights) >= _IN_FLIGHT_MAX:
            raise InternalError(code="memory.flood", what=f"{len(flights)} updates in flight", where=channel.name)
        if not flights or flights[-1].due_ns != self._last_due_ns:
            self._loop.call_at_rank(self._last_due_ns, self._rank, self._deliver)
        flights.append(_InFlight(self._last_due_ns, channel, *channel.sample_fields()))

    def _deliver(self) -> None:
        now_ns = self._loop.now_ns()
        flights = self._in_flight
        while flights and flights[0].due_ns <= now_ns:
            _, channel, value, t_ns, severity, status = flights.popleft()
            channel.accept(value, t_ns, severity, status)

    def _delay_ns(self) -> int:
        """Jitter of the next message, ns; SplitMix64 over its number, plain integers (see facility.rng)."""
        self._messages += 1
        if not self._latency.jitter_ns:
            return self._extra_ns
        x = (self._salt + self._messages * 0x9E3779B97F4A7C15) & _MASK
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
        return (x ^ (x >> 31)) % (self._latency.jitter_ns + 1) + self._extra_ns

    def _channel(self, name: str, stale_after_s: float | None) -> MemoryChannel:
        channel = self._channels.get(name)
        if channel is None:
            entry = self._pvdb[name]
            channel = MemoryChannel(self, name, entry, stale_after_s)
            self._channels[name] = channel
            self._by_entry.setdefault(id(entry), []).append(channel)
        return channel

    def _monitor(self, channel: MemoryChannel) -> asyncio.Future[None]:
        first: asyncio.Future[None] = self.event_loop.create_future()
        if channel.latest() is not None:
            first.set_result(None)
            return first

        def arrived(_channel: Channel, _sample: Sample) -> None:
            forget()
            if not first.done():
                first.set_result(None)

        forget = channel.subscribe(arrived)
        if not channel.monitored:
            channel.monitored = True
            run_sync(channel.entry.subscribe(self._tap, _spec(channel.entry), None))
        return first


def _spec(entry: ChannelData) -> SubscriptionSpec:
    mask = SubscriptionType.DBE_VALUE | SubscriptionType.DBE_ALARM
    return SubscriptionSpec(db_entry=entry, data_type_name=_NOTICE_TYPE, mask=mask, channel_filter=_NO_FILTER)


def _not_found(names: list[str], timeout_s: float) -> ChannelError:
    shown = ", ".join(sorted(names)[:10])
    return ChannelError(
        code="channel.connect",
        what=f"{len(names)} PVs did not connect within {timeout_s:g} s: {shown}",
        fix="look whether their server runs, and on which port",
    )
