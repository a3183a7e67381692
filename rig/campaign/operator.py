"""An operator who behaves: looks into each trip, waits until it is mended, lets go as who may, accounts, goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field

from control.layer_machine import State
from facility.errors import ChannelError, CommandRefused
from rig.campaign.draw import Manner
from rig.campaign.mishaps import Mishaps
from rig.letting_go import Told, ask_reset, search_undone
from rig.operator_client import OperatorClient
from rig.room_panel import RoomPanel

NOTHING_S = 30.0
"""Longest time in which nothing changes while control delivers; each of its stages has a shorter time-out."""
TIRES_AFTER = 12
"""Going on fails so often: the operator stops the field."""
LOOK_S = 0.05
PATIENCE = 60
"""Looks at what stands against a reset, each a little later than the one before."""
WORDS = "campaign: looked into, goes on at the exact remainder"
_WAITING = frozenset({State.INTERRUPTED, State.TERMINATED, State.LOADED, State.PREPARED, State.READY})


@dataclass
class Attendance:
    """One operator through one run.

    Args:
        operator: the console.
        room: the panels in the room.
        mishaps: what has to be mended.
        manner: how they behave.
    """

    operator: OperatorClient
    room: RoomPanel
    mishaps: Mishaps
    manner: Manner
    session: str
    went_on: int = 0
    resets: int = 0
    notes: list[str] = field(default_factory=list)
    stuck: str = ""
    """Where nothing moved any more; empty: it always did."""

    async def to_the_end(self) -> None:
        """Until the field is complete, given up, or stopped."""
        tries = 0
        while not self._over():
            state = self.operator.state
            if state not in _WAITING:
                await self._watch(state)
                continue
            tries += 1
            if tries > TIRES_AFTER:
                await self._try("stop", self.operator.ask("TCS", "stop"))
                self.notes.append(f"tired in {state.name}")
                return
            await asyncio.sleep(self.manner.delay_ns * 1e-9)
            await self._go_on(self.operator.state)

    def _over(self) -> bool:
        state = self.operator.state
        return state in (State.COMPLETED, State.STANDBY) or (state is State.TERMINATED and self.manner.gives_up)

    async def _watch(self, state: State) -> None:
        """Wait for control to do something; what does not come within any of its time-outs is stuck."""
        before = self.operator.progress()
        try:
            await self.operator.until(
                lambda: self.operator.state is not state or self.operator.progress() != before, NOTHING_S, "change"
            )
        except ChannelError as problem:
            if self.mishaps.standing:
                self.mishaps.mend()
                return
            self.stuck = self.stuck or f"{state.name}: {problem}"
            await self._try("stop", self.operator.ask("TCS", "stop"))

    async def _go_on(self, state: State) -> None:
        operator = self.operator
        if state in (State.LOADED, State.TERMINATED):
            progress = operator.progress()
            if progress.spots_done == progress.spots:  # terminated after its last layer: nothing is left to go on with
                await self._try("close", operator.ask("TCS", "close"))
                await self._see(state)
            elif await self._permitted():
                await self._try("prepare", operator.prepare())
        elif state is State.PREPARED:
            await self._permitted()
        elif state is State.READY:
            self.went_on += await self._try("start", operator.start())
            await self._see(state)
        elif state is State.INTERRUPTED and await self._permitted():
            resumed = await self._try("resume", operator.ask("TCS", "resume"))
            self.went_on += resumed
            if resumed:
                await self._see(state)
            elif operator.state is State.INTERRUPTED:  # the front end has lost the layer: its register decides
                await self._try("stop", operator.ask("TCS", "stop"))
                await self._see(state)

    async def _see(self, state: State) -> None:
        """The answer is there before the state is shown."""
        await self._try("change", self.operator.until(lambda: self.operator.state is not state, 1.0, "change"))

    async def _permitted(self) -> bool:
        """Let go until there is a permit: as the causes go, or are mended by whoever was called."""
        operator = self.operator
        for look in range(PATIENCE):
            if operator.permit:
                return True
            if search_undone(self.room):
                await self._try("search", self.room.search())
            told = await self._reset()
            if told.unresolved:
                await self._try("resolve", operator.resolve(WORDS, resume=True))
                continue
            if look == PATIENCE // 4:
                self.mishaps.mend()
            if look == PATIENCE // 2 and operator.state is State.INTERRUPTED:  # the loaded layer itself shows it
                await self._try("stop", operator.ask("TCS", "stop"))
            await asyncio.sleep(LOOK_S * (1 + look // 4))
        self.notes.append(f"no permit in {operator.state.name}: {told.words}")
        return False

    async def _reset(self) -> Told:
        """Ask for a reset as the physicist, and wait for the permit if it is given."""
        told = await ask_reset(self.operator, "physicist")
        self.resets += told.answered
        if told.permit:
            await self._try("permit", self.operator.until(lambda: self.operator.permit, 1.0, "permit"))
        return told

    async def _try(self, what: str, asked: Awaitable[object]) -> bool:
        try:
            await asked
        except (CommandRefused, ChannelError) as problem:
            self.notes.append(f"{what}: {problem.code}")
            return False
        return True
