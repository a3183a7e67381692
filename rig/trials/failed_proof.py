"""A device that has failed unnoticed, found by its proof test: the cause of the rule on missing proof tests."""

from __future__ import annotations

import asyncio

from facility.errors import CommandRefused
from ioc_sim.faults import Fault, FaultKind
from rig.virtual_world import World, WorldParts

FAILED = Fault("ic2.injector", FaultKind.SCALE, 0.5)
TEST = "charge-ic2"
SESSION = "S-proof"
PERMIT_S = 1.0


class FailedProof:
    """The charge injector of a chamber gives half of its charge; a person hands the permit back and runs its test."""

    def __init__(self, world: World, parts: WorldParts) -> None:
        self._world = world
        self._operator = parts.operator
        self._run: asyncio.Task[str] | None = None

    def begin(self) -> None:
        """Let it come about now."""
        self._world.plant.inject(FAILED)
        self._run = self._world.loop.create_task(self._prove())

    async def _prove(self) -> str:
        """What the test said; empty if it passed."""
        for verb in ("open_field", "close_field"):
            await self._operator.ask("SAFE", verb, {"session": SESSION})
        try:
            await self._operator.prove([TEST])
        except CommandRefused as failed:
            return str(failed)
        return ""

    async def stands(self) -> str:
        """Wait until the test has failed; what is wrong, empty if nothing."""
        said = "" if self._run is None else await self._run
        if TEST not in said:
            return f"the proof test of a failed device did not fail: {said!r}"
        return "a permit beside a failed proof test" if self._world.controller.snapshot().permit else ""

    async def mended(self) -> str:
        """Mend the device, run the test again, and reset; what is wrong, empty if nothing."""
        self._world.plant.inject(Fault(FAILED.device, FaultKind.NONE))
        await self._operator.prove([TEST])
        await self._operator.reset()
        await self._operator.until(lambda: self._operator.permit, PERMIT_S, "permit")
        return ""
