"""The control IOC: the PVs of treatment control as the catalogue declares them, nothing else.

A thin group: it hands writes to TCS:Cmd on and publishes what it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from caproto import ChannelData, SkipWrite

from channels.protocol import Value
from channels.publish import publish
from channels.pv_groups import CataloguedGroup, declared
from facility.errors import InternalError
from facility.timebase import Clock

OnCommand = Callable[[bytes], None]
"""Takes the bytes written to TCS:Cmd; must not block and not raise: the answer goes to TCS:Cmd-Result."""


async def _put_command(group: Any, _channel: Any, value: Any) -> Any:
    data = value.encode("latin-1") if isinstance(value, str) else bytes(bytearray(value))
    group.on_command(data)
    raise SkipWrite  # consumed: nobody can read a signed command from the PV


class ControlGroup(CataloguedGroup):
    """PVs of treatment control."""

    state = declared("TCS:State-Sts")
    progress = declared("TCS:Progress-RB")
    session = declared("TCS:Session-RB")
    message = declared("TCS:Message-RB")
    summary = declared("TCS:Summary-RB")
    heartbeat = declared("TCS:Heartbeat-RB")
    command = declared("TCS:Cmd", _put_command)
    result = declared("TCS:Cmd-Result")

    on_command: OnCommand


class ControlIoc:
    """The PVs of control in a pvdb, and how to publish them.

    Args:
        prefix: the facility's PV prefix.
        clock: stamps what is published.
        on_command: gets the bytes written to TCS:Cmd; may be set later.
    """

    def __init__(self, prefix: str, clock: Clock, on_command: OnCommand = lambda _frame: None) -> None:
        self._group = ControlGroup(prefix, clock)
        self._group.on_command = on_command
        self._clock = clock
        self.pvdb: dict[str, ChannelData] = dict(self._group.pvdb)

    def connect_commands(self, on_command: OnCommand) -> None:
        """Whom writes to TCS:Cmd go to from now on."""
        self._group.on_command = on_command

    def publish(self, name: str, value: Value) -> None:
        """Publish a PV by its catalogue name; bytes that are too long raise InternalError."""
        channel = self._group.channel(name)
        if isinstance(value, bytes):
            if len(value) > channel.max_length:
                raise InternalError("control.pv-length", f"{len(value)} bytes for {channel.max_length}", name)
            value = np.frombuffer(value, dtype=np.uint8)
        publish(channel, value, self._clock.now_ns())
