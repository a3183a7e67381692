"""Bring a cause about in a facility, and take it away again."""

from __future__ import annotations

from channels.memory_link import LinkFault
from facility.errors import InternalError
from facility.timebase import Rank
from interlocks.link import RackLines
from ioc_sim.faults import Fault, FaultKind
from rig.trials.causes import HISTORIES, Act, Trial
from rig.trials.control_acts import CONTROL_ACTS, ControlActs
from rig.trials.failed_proof import FailedProof
from rig.trials.history import History
from rig.virtual_world import World, WorldParts

FRAMES = 1 << 30
"""More than a trial ever sends."""
LATE_MS = 600.0
RELAYS = {
    Act.RELAY_PAUSE: RackLines(False, True, True, personnel=True),
    Act.RELAY_ABORT: RackLines(False, False, True, personnel=True),
    Act.RELAY_HOLD: RackLines(True, True, True, personnel=True),
}
"""How the rack's relays stand."""


class Deed:
    """The cause of one trial, in one facility."""

    def __init__(self, world: World, parts: WorldParts, trial: Trial, level_ions_per_s: float) -> None:
        self._level = level_ions_per_s
        self._world = world
        self._parts = parts
        self._trial = trial
        self._control = ControlActs(world, parts)
        self._proof = FailedProof(world, parts)
        self._history = History(world, parts)

    def prepare(self) -> None:
        """What has to be so before: a gate that is open and in use."""
        if not self._trial.gating or self._world.plant._state[0].gating:
            return
        self._world.plant.inject(Fault("gate.open", FaultKind.SET, 1.0))
        self._world.plant.set_gating(True)

    def begin(self, at_ns: int) -> None:
        """Let it come about at an instant that lies ahead."""
        self._world.loop.call_at_rank(at_ns, Rank.PLANT, self.now, at_ns)

    def now(self, at_ns: int) -> None:
        """It comes about at this instant."""
        for fault in self._trial.faults:
            self._world.plant.inject(fault.at(at_ns, self._level))
        if self._trial.act is not None:
            self._act(Act(self._trial.act))

    def _act(self, act: Act) -> None:
        wire = self._world.safety.wire
        if act in RELAYS:
            self._world.safety.stick_relays(RELAYS[act])
        elif act is Act.CUT_TO_RACK:
            wire.b.inject(LinkFault.DROP, FRAMES)
        elif act is Act.CUT_FROM_RACK:
            wire.a.inject(LinkFault.DROP, FRAMES)
        elif act is Act.CONSOLE_SILENT:
            self._world.loop.create_task(self._parts.operator.fall_silent())
        elif act is Act.PLANT_LATE:
            self._world.plant.set_late_ms(LATE_MS)
        elif act is Act.PROOF_FAILS:
            self._proof.begin()
        elif act in HISTORIES:
            self._history.once_more(act)
        elif act in CONTROL_ACTS:
            self._control.begin(act)
        else:
            raise InternalError("trials.act", f"nobody knows how to do {act.value!r}", self._trial.rule)

    async def stands(self) -> str:
        """Wait until the cause has come about whole; what is wrong with it, empty if nothing."""
        return await self._proof.stands() if self._trial.act == Act.PROOF_FAILS.value else ""

    async def over(self) -> str:
        """Wait for what has to follow `end`; what is wrong, empty if nothing."""
        if self._trial.act in HISTORIES:
            return await self._history.over(Act(self._trial.act))
        return await self._proof.mended() if self._trial.act == Act.PROOF_FAILS.value else ""

    def end(self) -> None:
        """Mend what has failed, undo what was done."""
        for fault in self._trial.faults:
            self._mend(fault.point)
        if self._trial.act is None:
            return
        act, safety = Act(self._trial.act), self._world.safety
        if act in RELAYS:
            safety.stick_relays(None)
        elif act is Act.CUT_TO_RACK:
            safety.wire.b.mend()
        elif act is Act.CUT_FROM_RACK:
            safety.wire.a.mend()
        elif act is Act.CONSOLE_SILENT:
            self._parts.operator.speak_again()
        elif act is Act.PLANT_LATE:
            self._world.plant.set_late_ms(0.0)
        elif act in HISTORIES:
            self._history.end(act)
        elif act in CONTROL_ACTS:
            self._control.end(act)

    def _mend(self, point: str) -> None:
        """A device as it was; a gate in use stays open."""
        kind, value = (FaultKind.SET, 1.0) if point == "gate.open" else (FaultKind.NONE, 0.0)
        self._world.plant.inject(Fault(point, kind, value))
