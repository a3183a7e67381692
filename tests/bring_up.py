"""When a facility in virtual time is up: what a test does to a delivery comes after the search and the proof tests."""

from __future__ import annotations

import functools

from facility.config import Facility, load_facility
from rig.virtual_world import World, WorldParts


@functools.cache
def up_ns(facility: Facility | None = None, seed: int = 1) -> int:
    """Facility time (ns) at which the search of the room and the proof tests are over; wuwei if none is given.

    It depends on neither mode nor plan nor the exchange of frames: nothing of it is random but the channels' latency.
    """
    found = facility or load_facility("wuwei")
    world = World(found, next(iter(found.rooms)), next(iter(found.species)), seed)

    async def work(_parts: WorldParts) -> int:
        return world.loop.now_ns()

    return world.run(work)
