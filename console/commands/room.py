"""`ionctl room`: the panels in the treatment room, for whoever stands there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from console.options import FACILITY
from console.settings import Settings

if TYPE_CHECKING:
    from rig.room_panel import RoomPanel


@click.group()
def room() -> None:
    """Search buttons, door and emergency stop of the room of the facility that is up.

    Signed with the room's own key, which stands for being there; no other command does what these do.
    """


@room.command()
@FACILITY
@click.pass_obj
def search(settings: Settings, facility_name: str) -> None:
    """Search the room: in, far button, exit button, out, door closed, delay; nothing if that stands."""
    _do(settings, facility_name, lambda panel: panel.search())
    print("the room is searched")


@room.command()
@click.argument("state", type=click.Choice(["open", "close"]))
@FACILITY
@click.pass_obj
def door(settings: Settings, state: str, facility_name: str) -> None:
    """Open or close the door; open undoes the search."""
    _do(settings, facility_name, lambda panel: panel.do("move_door", closed=int(state == "close")))
    print("the door is open" if state == "open" else "the door is closed; the room has to be searched")


@room.command()
@click.argument("state", type=click.Choice(["press", "release"]))
@FACILITY
@click.pass_obj
def estop(settings: Settings, state: str, facility_name: str) -> None:
    """Press the emergency stop, or let it go; a physicist resets the interlock afterwards."""
    _do(settings, facility_name, lambda panel: panel.do(f"{state}_estop"))
    print("the emergency stop is pressed" if state == "press" else
          "the emergency stop is let go; a physicist resets it: ionctl interlocks reset")  # fmt: skip


def _do(settings: Settings, facility_name: str, what: Callable[[RoomPanel], Awaitable[None]]) -> None:
    import asyncio

    from rig.remote import running
    from rig.remote_room import room_at

    facility, home = settings.facility(facility_name), settings.home()

    async def work() -> None:
        async with room_at(facility, home, running(facility, home)) as panel:
            await what(panel)

    asyncio.run(work())
