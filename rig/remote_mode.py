"""Another operating mode at a facility that is up: the key switch is turned, then the physicist sets the mode."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from facility.config import Facility
from facility.errors import CommandRefused
from interlocks.model import MODE_CODES
from rig.home import Home
from rig.operator_client import OperatorClient
from rig.remote import operator_at, running
from rig.remote_room import room_at
from rig.room_panel import RoomPanel


def change_mode(facility: Facility, home: Home, wanted: str) -> Mapping[str, Any]:
    """Turn the key switch and set the mode: 'clinical', 'qa' or 'service'; the data of the safety controller's result.

    CommandRefused while there is a permit or a field is open, in words; the key is back where it was then.
    """
    run = running(facility, home)

    async def work() -> Mapping[str, Any]:
        async with operator_at(facility, home, run) as client, room_at(facility, home, run) as panel:
            return await turn_and_set(client, panel, wanted)

    return asyncio.run(work())


async def turn_and_set(client: OperatorClient, panel: RoomPanel, wanted: str) -> Mapping[str, Any]:
    """As `change_mode`, with a console and the panel of the key switch."""
    await _between_fields(client)
    before = client.mode
    await panel.do("turn_key", position=MODE_CODES[wanted])
    try:
        if wanted != before:
            await client.until(lambda: not client.key_agrees, client.limits.command_s, "the key switch to be seen")
        return await client.ask("SAFE", "set_mode", {"mode": wanted}, role="physicist")
    except BaseException:
        await panel.do("turn_key", position=MODE_CODES[before])
        raise


async def _between_fields(client: OperatorClient) -> None:
    """Close a field that control has let go of; CommandRefused if one is under way, or beam is permitted."""
    if client.permit and not client.field:
        raise CommandRefused("mode.permit", "the beam is permitted: the mode changes only without a permit", "mode",
                             "wait until the console that was given it has gone")  # fmt: skip
    if client.field and client.state.name != "STANDBY":
        raise CommandRefused("mode.field", f"field {client.field} is under way, control is {client.state.name}", "mode",
                             "end that session first")  # fmt: skip
    if client.field:
        await client.ask("SAFE", "close_field", {"session": client.field})
