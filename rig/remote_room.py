"""The panels in the room of a facility that is up, and what people do there before beam."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from channels.command import Signer
from channels.epics_bridge import EpicsProvider, configure_libca
from facility.config import Facility
from rig.clocks import NominalClock
from rig.home import Home
from rig.keys import ROOM, KeyStore
from rig.operator_client import OperatorClient
from rig.remote import operator_at, running
from rig.room_panel import RoomPanel, room_panel
from rig.run_dir import RunFile
from rig.wall_clock import RisingNonces


@contextlib.asynccontextmanager
async def room_at(facility: Facility, home: Home, run: RunFile) -> AsyncIterator[RoomPanel]:
    """The panels in the room of a run."""
    configure_libca(run.ca_addresses)
    clock = NominalClock(int(run.processes["plant"]["epoch_ns"]), run.speed)
    signer = Signer(ROOM.name, "room", KeyStore(home).private(ROOM.name), RisingNonces())
    provider = EpicsProvider(clock)
    delay_s = facility.room_search.delay_s / run.speed
    try:
        async with room_panel(provider, facility.pv_prefix, clock, signer, delay_s) as panel:
            yield panel
    finally:
        await provider.close()


async def search_room(facility: Facility, home: Home, run: RunFile) -> None:
    """Search the room, unless that stands."""
    async with room_at(facility, home, run) as room:
        await room.search()


async def make_ready(facility: Facility, home: Home, run: RunFile, operator: OperatorClient) -> None:
    """What must have been done before a reset can give the permit: search the room, run the proof tests."""
    await search_room(facility, home, run)
    await operator.see_search()
    await operator.prove()


async def bring_up(facility: Facility, home: Home, run: RunFile) -> int:
    """See `make_ready`; how many proof tests there are."""
    async with operator_at(facility, home, run) as client:
        await make_ready(facility, home, run, client)
        return len(client.proofs())


def prove(facility: Facility, home: Home, tests: list[str]) -> list[dict[str, Any]]:
    """Run proof tests at the facility that is up, all if none is named; what all of them gave, as JSON values."""
    run = running(facility, home)

    async def work() -> list[dict[str, Any]]:
        async with operator_at(facility, home, run) as client:
            await client.prove(tests or [row["id"] for row in client.proofs()])
            return client.proofs()

    return asyncio.run(work())
