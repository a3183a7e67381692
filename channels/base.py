"""What channels of every provider share: the last sample, who wants to know, and when silence means stale."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from channels.protocol import LinkState, Sample, SampleCallback, StateCallback, Unsubscribe, Value
from facility.errors import ChannelError
from facility.timebase import NS_PER_S, Clock, seconds_to_ns

T = TypeVar("T")


class ChannelBase:
    """State of one channel; the provider feeds it on the loop's thread."""

    def __init__(
        self, name: str, clock: Clock, loop: asyncio.AbstractEventLoop, stale_after_s: float | None = None
    ) -> None:
        self._name = name
        self._clock = clock
        self._loop = loop
        self._stale_after_ns = None if stale_after_s is None else seconds_to_ns(stale_after_s)
        self._state = LinkState.DISCONNECTED
        self._sample: Sample | None = None
        self._received_ns = 0
        self._updates = 0
        self._stale_timer: asyncio.TimerHandle | None = None
        self._callbacks: list[SampleCallback] = []
        self._state_callbacks: list[StateCallback] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name} {self._state.value}>"

    @property
    def name(self) -> str:
        """PV name."""
        return self._name

    @property
    def state(self) -> LinkState:
        """State of the link, now; stale from the very instant, not from the next look of a timer."""
        if self._state is LinkState.CONNECTED and self._silent_too_long():
            self._set_state(LinkState.STALE)
        return self._state

    def latest(self) -> Sample | None:
        """The last sample received; None before the first."""
        return self._sample

    def subscribe(self, callback: SampleCallback) -> Unsubscribe:
        """Call back on every update; at once with the last sample where there is one."""
        self._callbacks.append(callback)
        if self._sample is not None:
            callback(self, self._sample)  # type: ignore[arg-type]
        return lambda: self._callbacks.remove(callback) if callback in self._callbacks else None

    def on_state(self, callback: StateCallback) -> Unsubscribe:
        """Call back on every change of state."""
        self._state_callbacks.append(callback)
        return lambda: self._state_callbacks.remove(callback) if callback in self._state_callbacks else None

    # the provider's side

    def accept(self, value: Value, t_ns: int, severity: int, status: int) -> Sample:
        """Take a value that arrived; the channel is connected by it."""
        self._updates += 1
        sample = Sample(value, t_ns, severity, status, self._updates)
        self._sample = sample
        self._received_ns = self._clock.now_ns()
        if self._state is not LinkState.CONNECTED:
            self._set_state(LinkState.CONNECTED)
        if self._stale_after_ns is not None and self._stale_timer is None:
            self._arm_stale_timer()
        for callback in tuple(self._callbacks):
            callback(self, sample)  # type: ignore[arg-type]
        return sample

    def link_up(self) -> None:
        """The link stands and there is no monitor whose first sample would say so."""
        self._received_ns = self._clock.now_ns()
        self._set_state(LinkState.CONNECTED)

    def link_lost(self) -> None:
        """The link is known to be down."""
        if self._stale_timer is not None:
            self._stale_timer.cancel()
            self._stale_timer = None
        self._set_state(LinkState.DISCONNECTED)

    def forget_callbacks(self) -> None:
        """Call nobody from now on."""
        self._callbacks.clear()
        self._state_callbacks.clear()

    def _set_state(self, state: LinkState) -> None:
        if state is self._state:
            return
        self._state = state
        for callback in tuple(self._state_callbacks):
            callback(self, state)  # type: ignore[arg-type]

    def _silent_too_long(self) -> bool:
        if self._stale_after_ns is None:
            return False
        return self._clock.now_ns() - self._received_ns >= self._stale_after_ns

    def _arm_stale_timer(self) -> None:
        # one timer that looks when it fires, not one per update: updates are the dear thing
        if self._stale_after_ns is None:
            return
        left_ns = self._received_ns + self._stale_after_ns - self._clock.now_ns()
        self._stale_timer = self._loop.call_later(max(left_ns, 0) / NS_PER_S, self._look_if_stale)

    def _look_if_stale(self) -> None:
        self._stale_timer = None
        if self._state is not LinkState.CONNECTED:
            return
        if self._silent_too_long():
            self._set_state(LinkState.STALE)
        else:
            self._arm_stale_timer()


async def within(future: asyncio.Future[T], timeout_s: float, name: str, what: str) -> T:
    """Wait for a future of one channel; ChannelError 'channel.timeout' after `timeout_s` (s)."""
    loop = asyncio.get_running_loop()

    def give_up() -> None:
        if not future.done():
            future.set_exception(
                ChannelError(
                    code="channel.timeout",
                    what=f"no answer to {what} within {timeout_s:g} s",
                    where=name,
                    fix="look whether its server runs",
                )
            )

    timer = loop.call_later(timeout_s, give_up)
    try:
        return await future
    finally:
        timer.cancel()


def disconnected(name: str) -> ChannelError:
    """The error for using a channel without a link."""
    return ChannelError(
        code="channel.disconnected", what="not connected", where=name, fix="look whether its server runs"
    )
