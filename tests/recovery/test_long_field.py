"""One field of half an hour that is interrupted twenty times, each time by something else, and finished to the spot."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from control.layer_machine import State
from control.plan.maker import make_plan
from control.plan.program import compile_program
from control.session import SessionSummary
from facility.config import load_facility
from interlocks.snapshot import Mode
from ioc_sim.register_store import MemoryStore
from journal.store import Journal
from rig.crashes import NEVER, REASON, Crash, Crashes, Left, Life
from rig.operator_client import ENDED
from rig.scenario.deeds import Deeds
from rig.scenario.model import Act, Scenario
from rig.scenario.virtual_hands import VirtualHands
from rig.virtual_deaths import Victim
from rig.virtual_world import World, WorldOptions, WorldParts

SEED = 11
KINDS = (
    "pause", "ic2.ok/dead", "die/all", "intercom.ok/dead", "stop", "scan.ok/dead", "process/safety/crash",
    "ring.token/set", "link/to-rack/delay", "die/plant", "estop", "scan_x.readback/dead", "process/control/silent",
    "strip.ok/dead", "door", "link/relays/pause", "process/safety/hang", "die/control", "ups.ok/dead", "ic1.hv/scale",
)  # fmt: skip
DIES = "die/"
"""Then somebody dies: all at once, or the plant or control alone, and the others with them a little later."""
LIVES_ON_S = 3.0
VALUES = {"ring.token/set": 7.0, "ic1.hv/scale": 0.5}
THINKING_S = 105.0
"""People look for the cause so long; with it the field takes half an hour."""
AT_ONCE = ("process/", "link/")
"""What somebody mends at once, and thinks about after."""
WITHIN_MS = 120_000.0
BEAM_S = (0.4, 2.5)
"""Between two interruptions, from the first beam after the one before."""


@dataclass(frozen=True)
class Faulty(Crashes):
    """Lives in which devices may be broken."""

    def _world(self, left: Left, journal: Journal, seed: int) -> World:
        program = self.program
        options = WorldOptions(
            load_program=lambda *_: program, mode=Mode.QA, register_store=left.store, journal=journal, allow_faults=True
        )
        return World(self.facility, program.room_id, "carbon", seed, options)


@dataclass
class Field:
    """What is still to befall it, and what has."""

    it: Faulty
    left: Left
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(SEED))
    befallen: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    """State of control after each."""
    lasted_s: float = 0.0

    def life(self, seed: int) -> None:
        """From the start, or from what the last life left, to the end or to the next death."""
        deaths = [kind for kind in KINDS[len(self.befallen) :] if kind.startswith(DIES)]
        victim = Victim(deaths[0].removeprefix(DIES)) if deaths else Victim.ALL
        self.it._live(self.left, seed, Crash(NEVER, victim, lives_on_s=LIVES_ON_S), self._work)

    async def _work(self, life: Life, parts: WorldParts) -> SessionSummary:
        world = life.world
        deeds = Deeds(
            Scenario.model_construct(id="long-field"), parts.operator, parts.room, VirtualHands(world, parts), "plan",
            self.it.program.room_id, self.it.program.plan_hash,
        )  # fmt: skip
        try:
            session = await self._begin(parts)
            while parts.operator.state not in ENDED or parts.operator.state is State.TERMINATED:
                if len(self.befallen) < len(KINDS) and await self._beam(parts):
                    await self._interrupt(life, parts, deeds)
                else:
                    await parts.operator.ended(session, 600.0)
                    break
            return await parts.control.sequencer.recorded(60.0)
        finally:
            self.lasted_s += world.loop.now_ns() * 1e-9

    async def _begin(self, parts: WorldParts) -> str:
        program, operator = self.it.program, parts.operator
        await operator.reset()
        session = self.left.session(self.it.facility.id)
        if session:
            await operator.recover(session, "plan", program.room_id, program.qa, REASON)
        else:
            session = await operator.load("plan", program.room_id, program.qa, program.plan_hash)
        if await operator.prepare(session):
            await operator.start()
        return session

    async def _beam(self, parts: WorldParts) -> bool:
        """Wait for beam, and a while longer; False if the field ends before."""
        operator = parts.operator
        over = (State.COMPLETED,)
        await operator.until(lambda: operator.state in (State.IRRADIATING, *over), 120.0, "beam")
        await asyncio.sleep(self.rng.uniform(*BEAM_S))
        return operator.state not in over

    async def _interrupt(self, life: Life, parts: WorldParts, deeds: Deeds) -> None:
        kind = KINDS[len(self.befallen)]
        self.befallen.append(kind)
        if kind.startswith(DIES):
            self.stopped.append("DEAD")
            life.strike_now()
            await asyncio.sleep(2.0 * LIVES_ON_S)  # it never comes so far
        acts = {
            "pause": Act(do="pause"), "stop": Act(do="stop"),
            "estop": Act(do="press-estop"), "door": Act(do="open-door"),
        }  # fmt: skip
        await deeds.do(acts.get(kind) or Act(fault=kind, value=VALUES.get(kind)))
        operator = parts.operator
        await operator.until(lambda: operator.state in (State.INTERRUPTED, State.TERMINATED), 30.0, f"stop by {kind}")
        self.stopped.append(operator.state.name)
        if kind.startswith(AT_ONCE):
            await deeds.do(Act(do="mend"))
        await asyncio.sleep(THINKING_S)
        if kind in ("estop", "door"):
            await deeds.do(Act(do="release-estop" if kind == "estop" else "close-door"))
        await deeds.do(Act(do="go-on", within_ms=WITHIN_MS))
        await operator.until(lambda: operator.state not in (State.INTERRUPTED, State.TERMINATED), 30.0, "going on")


def test_half_an_hour_with_twenty_interruptions_ends_at_the_prescribed_dose(tmp_path: Path) -> None:
    facility = load_facility("wuwei")
    plan = make_plan("sphere", 50.0, 150.0, 2.0, "carbon", facility)
    program = compile_program(plan, facility, next(iter(facility.rooms)), qa=True)
    it = Faulty(facility, program, tmp_path)
    left = Left(MemoryStore(), tmp_path / "begun")
    left.folder.mkdir()
    run = Field(it, left)
    for seed in range(SEED, SEED + 1 + sum(kind.startswith(DIES) for kind in KINDS)):
        run.life(seed)
    assert tuple(run.befallen) == KINDS
    assert len(set(KINDS)) == 20
    assert set(run.stopped) == {"INTERRUPTED", "TERMINATED", "DEAD"}
    assert left.summary is not None
    assert left.summary.status == "completed"
    assert run.lasted_s > 1800.0
    assert it.objections(left) == []
