"""Whoever stands in the treatment room: at the search buttons, the door and the emergency stop.

Signed with the key of the room's own panels, which neither the consoles nor control have.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from channels.command import Signer
from channels.command_client import CommandClient
from channels.protocol import Channel, ChannelProvider, Sample
from facility.errors import ChannelError
from facility.states import SearchStage
from facility.timebase import Clock
from rig.caller import Caller

_SHOWN = ("ROOM:Search-Sts", "ROOM:EStop-Sts", "ROOM:Cmd-Result")
_COMMAND_S = 5.0
_STEP_S = 10.0
"""Longest wait for a step of the search to show, event-loop s, beside the delay with warning."""


class RoomPanel:
    """The panels of one room, over any channel provider.  Make it with `room_panel`.

    Args:
        channels: by name without the facility's prefix.
        signer: signs in the role 'room'.
        clock: facility time.
        delay_s: delay with warning at the end of a search, event-loop s.
    """

    def __init__(self, channels: Mapping[str, Channel], signer: Signer, clock: Clock, delay_s: float) -> None:
        self._channels = channels
        self._delay_s = delay_s
        self._changed = asyncio.Event()
        self._caller = Caller(CommandClient(channels["ROOM:Cmd"], channels["ROOM:Cmd-Result"], signer, clock))
        channels["ROOM:Search-Sts"].subscribe(self._wake)

    def _wake(self, _channel: Channel, _sample: Sample) -> None:
        self._changed.set()

    @property
    def stage(self) -> SearchStage:
        """How far the search is, as the plant's IOC shows it."""
        sample = self._channels["ROOM:Search-Sts"].latest()
        return SearchStage.NOT_DONE if sample is None else SearchStage(int(sample.value))

    async def do(self, verb: str, **args: Any) -> None:
        """A verb of the panels: press_search(exit=0 or 1), move_door(closed=0 or 1), press_estop, release_estop,
        turn_key(position=1 clinical, 2 QA, 3 service)."""
        await self._caller.call(verb, args, _COMMAND_S)

    async def search(self) -> None:
        """Search the room, unless that stands: in, far button, exit button, out, door closed, wait for the delay.

        ChannelError 'room.search' naming the step that did not show.
        """
        if self.stage is SearchStage.DONE:
            return
        await self.do("move_door", closed=0)
        await self.do("press_search", exit=0)
        await self._until(SearchStage.SEARCHING)
        await self.do("press_search", exit=1)
        await self._until(SearchStage.LEAVING)
        await self.do("move_door", closed=1)
        await self._until(SearchStage.DONE, self._delay_s)

    async def _until(self, wanted: SearchStage, more_s: float = 0.0) -> None:
        try:
            async with asyncio.timeout(_STEP_S + more_s):
                while self.stage is not wanted:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise ChannelError(
                "room.search", f"the search of the room is {self.stage.name}, not {wanted.name}", "ROOM:Search-Sts",
                "look at door contacts and search buttons",
            ) from None  # fmt: skip


@contextlib.asynccontextmanager
async def room_panel(
    provider: ChannelProvider, prefix: str, clock: Clock, signer: Signer, delay_s: float, connect_s: float = 10.0
) -> AsyncIterator[RoomPanel]:
    """Connect to the panels; the provider stays its owner's."""
    names = [f"{prefix}:{name}" for name in (*_SHOWN, "ROOM:Cmd")]
    monitored = {f"{prefix}:{name}" for name in _SHOWN}
    found = await provider.connect(names, connect_s, monitor=monitored)
    yield RoomPanel({name.removeprefix(f"{prefix}:"): c for name, c in found.items()}, signer, clock, delay_s)
