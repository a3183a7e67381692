"""Histories of a field: what must have happened, by real acts, before the cause of a rule is one more of the same.

A gate that closes and opens as often as it may in a field; a permit that is taken and given again as often as it may.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from facility.errors import InternalError
from facility.states import FrontEndState, RingPhase
from interlocks.field import FieldState
from ioc_sim.faults import Fault, FaultKind
from rig.trials.causes import Act
from rig.virtual_world import World, WorldParts

GATE = "gate.open"
SUPPLY = "ups.ok"
"""Its failing is a PAUSE that goes with it."""
STEP_S = 0.001
WAIT_S = 30.0
"""A flat top that nobody uses ends within that time."""
_AT_REST = (RingPhase.STANDARDISE, RingPhase.STANDBY)


class History:
    """Brings a field in which a layer waits for the ring to where one more is too many."""

    def __init__(self, world: World, parts: WorldParts) -> None:
        self._world = world
        self._operator = parts.operator

    async def make(self, act: Act) -> None:
        """All that goes before the cause."""
        if act is Act.HOLD_AGAIN:
            await self._chatter()
        else:
            await self._interrupt()

    def once_more(self, act: Act) -> None:
        """The cause itself, at this instant."""
        if act is Act.HOLD_AGAIN:
            self._gate(False)
        else:
            self._world.plant.inject(Fault(SUPPLY, FaultKind.DEAD))

    def end(self, act: Act) -> None:
        """Take the last one away again."""
        if act is Act.HOLD_AGAIN:
            self._gate(True)
        else:
            self._world.plant.inject(Fault(SUPPLY, FaultKind.NONE))

    async def over(self, act: Act) -> str:
        """Spent pauses end the field: a physicist says what became of it; what is wrong, empty if nothing."""
        if act is Act.INTERRUPT_AGAIN:
            session = self._field.session
            what = {"session": session, "words": "interrupted too often, on trial", "resume": True}
            await self._operator.ask("SAFE", "resolve", what, role="physicist")
            if self._field.pauses:
                return f"{self._field.pauses} pauses are left after the account"
        return ""

    # --- holds ----------------------------------------------------------------------------------------------
    async def _chatter(self) -> None:
        """The gate closes and opens as often as its allowance says, while the operator keeps the beam off."""
        await self._operator.ask("TCS", "pause")
        await self._until(lambda: self._world.plant.status.state == FrontEndState.PAUSED, "paused")
        self._gate(True)
        self._world.plant.set_gating(True)
        spec = self._world.controller._field.spec
        place = spec.rules.index("gate")
        for count in range(1, spec.max_holds[place] + 1):
            self._gate(False)
            await self._until(lambda count=count: self._field.holds[place] == count, f"hold {count} counted")  # type: ignore[misc]
            self._gate(True)
            await self._until(lambda: not self._field.holding, "the gate open")
        await self._resume()

    def _gate(self, is_open: bool) -> None:
        self._world.plant.inject(Fault(GATE, FaultKind.SET, float(is_open)))

    # --- pauses ---------------------------------------------------------------------------------------------
    async def _interrupt(self) -> None:
        """The permit is taken by a PAUSE and given again by a reset, until the allowance is spent; then resumed."""
        await self._until(lambda: self._field.begun, "a field that has begun")
        for count in range(1, self._world.controller.rules.policy.max_pauses + 1):
            self.once_more(Act.INTERRUPT_AGAIN)
            await self._until(lambda count=count: self._field.pauses == count, f"pause {count} counted")  # type: ignore[misc]
            self.end(Act.INTERRUPT_AGAIN)
            await asyncio.sleep(5 * STEP_S)
            await self._operator.reset()
            await self._until(lambda: self._operator.permit, "the permit")
        await self._resume()

    async def _resume(self) -> None:
        """The operator lets the layer go on when the ring has no beam: it is held until the ring is ready.

        A ring for which the next energy is queued does not stand by: it begins the next cycle at once.
        """
        plant = self._world.plant
        await self._until(lambda: plant.status.phase in _AT_REST, "the ring at rest")
        await self._operator.ask("TCS", "resume")
        await self._until(lambda: plant.status.state == FrontEndState.HELD, "held")

    # --- looking --------------------------------------------------------------------------------------------
    @property
    def _field(self) -> FieldState:
        return self._world.controller._field.state

    async def _until(self, met: Callable[[], bool], what: str) -> None:
        loop = self._world.loop
        end_ns = loop.now_ns() + round(WAIT_S * 1e9)
        while not met():
            if loop.now_ns() > end_ns:
                raise InternalError("trials.history", f"not {what} within {WAIT_S:g} s", "rig.trials.history")
            await asyncio.sleep(STEP_S)
