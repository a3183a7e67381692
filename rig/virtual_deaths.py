"""One process of a facility in virtual time dies, and the others live on.

What it said before stays; nothing comes from it any more, and nothing reaches it. Its objects live on as a ghost that
nobody hears: of a dead plant only the time is left, since it is the plant that moves facility time.
"""

from __future__ import annotations

from enum import Enum

from facility.timebase import NS_PER_MS, Rank
from rig.virtual_world import World

WATCHDOGS_NS = 500 * NS_PER_MS
"""After so long both ends of the safety link have noticed."""


class Victim(Enum):
    """Who dies."""

    CONTROL = "control"
    SAFETY = "safety"
    PLANT = "plant"
    CONSOLE = "console"
    ALL = "all"


def die(world: World, victim: Victim) -> None:
    """From now on this process is dead; not for ALL, after which there is no world."""
    if victim in (Victim.SAFETY, Victim.PLANT):
        world.loop.call_at_rank(world.loop.now_ns() + WATCHDOGS_NS, Rank.LINK, world.safety.abandon)
    control, console = world.providers["control"], world.providers["console"]
    match victim:
        case Victim.CONTROL:
            control.set_link_down(True, noticed=False)
            console.kill_server(world.control_ioc.pvdb)
        case Victim.SAFETY:
            world.safety.halt()
            for client in (control, console):
                client.kill_server(world.safety_ioc.pvdb)
        case Victim.PLANT:
            world.safety.wire.cut = True
            control.kill_server(world.iocs.pvdb)
        case Victim.CONSOLE:
            console.set_link_down(True, noticed=False)
        case Victim.ALL:
            raise ValueError("a world in which everybody has died is left by an exception")
