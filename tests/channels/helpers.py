"""A small IOC that every kind of value passes through."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import numpy as np
from caproto import ChannelType
from caproto.server import PVGroup, pvproperty

from channels.memory import Latency, MemoryProvider
from channels.publish import publish
from rig.virtual_time import VirtualLoop, run_virtual

T = TypeVar("T")
MS = 1_000_000
EXACT = Latency(put_ns=1 * MS, monitor_ns=2 * MS, jitter_ns=0)


class SmallIoc(PVGroup):
    """One PV of each type, a read-only one, one that refuses, one whose putter changes another."""

    number = pvproperty(value=1.5, name="Number", lower_ctrl_limit=-10.0, upper_ctrl_limit=10.0)
    count = pvproperty(value=3, name="Count")
    wave = pvproperty(value=[0.0] * 64, max_length=64, name="Wave")
    text = pvproperty(value="hello", name="Text", dtype=ChannelType.STRING)
    mode = pvproperty(
        value="OFF", enum_strings=["OFF", "ON", "HELD"], dtype=ChannelType.ENUM, record="mbbi", name="Mode"
    )
    cmd = pvproperty(value=b"{}", dtype=bytes, max_length=4096, name="Cmd")
    result = pvproperty(value=b"{}", dtype=bytes, max_length=4096, name="Cmd-Result")
    empty = pvproperty(value=b"", dtype=bytes, max_length=4096, name="Empty")
    table = pvproperty(value=[], dtype=float, max_length=1000, name="Table")
    fixed = pvproperty(value=7.0, read_only=True, name="Fixed")
    alarmed = pvproperty(
        value=0.0,
        name="Alarmed",
        upper_alarm_limit=9.0,
        lower_alarm_limit=-9.0,
        upper_warning_limit=5.0,
        lower_warning_limit=-5.0,
    )
    refusing = pvproperty(value=0.0, name="Refusing")
    echo = pvproperty(value=0.0, name="Echo", read_only=True)
    seen: list[bytes]
    now_ns: Any = staticmethod(lambda: 0)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen = []

    @number.putter
    async def number(self, instance: Any, value: float) -> float:
        publish(self.echo, 2.0 * value, self.now_ns())
        return value

    @refusing.putter
    async def refusing(self, instance: Any, value: float) -> float:
        raise ValueError("never")

    @cmd.putter
    async def cmd(self, instance: Any, value: Any) -> Any:
        self.seen.append(bytes(value) if not isinstance(value, str) else value.encode("latin-1"))
        return value


def small_ioc(prefix: str = "T:") -> SmallIoc:
    return SmallIoc(prefix=prefix)


WAVE = np.arange(64.0)


def running_loop() -> VirtualLoop:
    """The virtual loop that runs."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop):
        raise TypeError(loop)
    return loop


def in_memory(
    body: Callable[[MemoryProvider, SmallIoc, VirtualLoop], Awaitable[T]], latency: Latency = EXACT, seed: int = 1
) -> T:
    """Run `body` with a provider on a small IOC, in virtual time."""

    async def main() -> T:
        loop = running_loop()
        ioc = small_ioc()
        ioc.now_ns = loop.now_ns
        provider = MemoryProvider(ioc.pvdb, loop, seed=seed, latency=latency)
        try:
            return await body(provider, ioc, loop)
        finally:
            await provider.close()

    return run_virtual(main(), VirtualLoop())
