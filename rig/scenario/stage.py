"""The facility of a scenario in virtual time: its world, its plan, and when things happen there without a fault."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from control.plan.program import MachineProgram
from facility.config import Facility
from facility.constants import TICK_NS
from facility.errors import PlanError
from interlocks.rules import RuleSet
from interlocks.snapshot import Mode
from ioc_sim.faults import Fault, FaultKind
from rig.operator_client import ENDED
from rig.scenario.model import Scenario
from rig.scenario.plans import compiled
from rig.scenario.sources import facility_of, rules_of
from rig.scenario.timeline import Timeline
from rig.virtual_world import World, WorldOptions, WorldParts

TRACE_RECORDS = 1 << 20
"""10.4 s of ticks with beam."""
PLAN = "plan"
"""What the console calls the scenario's plan."""
LONGEST_S = 600.0
_KEPT = 32


@dataclass(frozen=True)
class Stage:
    """What scenarios of one facility, plan, seed and mode share."""

    facility: Facility
    room: str
    species: str
    seed: int
    mode: Mode
    gating: bool
    rules: RuleSet
    program: MachineProgram

    @classmethod
    def of(cls, scenario: Scenario, folder: Path | None = None, config_dir: Path | None = None) -> Stage:
        """Of one scenario; ConfigError or PlanError if there is none."""
        facility = facility_of(scenario.facility, config_dir)
        room = scenario.room or next(iter(facility.rooms))
        species = scenario.species or next(iter(facility.species))
        mode = Mode(scenario.mode)
        rules = rules_of(scenario.facility, room, species, config_dir)
        program = compiled(scenario.plan, facility, room, species, qa=mode is not Mode.CLINICAL, folder=folder)
        return cls(facility, room, species, scenario.seed, mode, scenario.gating, rules, program)

    @property
    def key(self) -> tuple[str, str, str, str, int, str, bool]:
        """Equal where the delivery without a fault is the same."""
        hashes = self.facility.hash, self.rules.hash, self.program.plan_hash
        return (*hashes, self.room, self.seed, self.mode.value, self.gating)

    def level(self, layer: int) -> float:
        """Intensity level of a layer, ions/s."""
        return self.program.layers[layer].intensity_ions_per_s

    def world(self, *, post_mortem: bool = False) -> World:
        """A facility that has just been switched on."""
        options = WorldOptions(
            mode=self.mode, allow_faults=True, load_program=self._load, trace_records=TRACE_RECORDS,
            post_mortem=post_mortem,
        )  # fmt: skip
        world = World(self.facility, self.room, self.species, self.seed, options, self.rules)
        if self.gating:
            world.plant.inject(Fault("gate.open", FaultKind.SET, 1.0))
            world.plant.set_gating(True)
        return world

    def _load(self, _path: str, room: str, _qa: bool) -> MachineProgram:
        if room != self.room:
            raise PlanError("plan.room", f"no room {room!r}", "load", f"this facility serves {self.room}")
        return self.program

    def timeline(self) -> Timeline:
        """Of the delivery without a fault."""
        return _timeline(_Keyed(self))


class _Keyed:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def __hash__(self) -> int:
        return hash(self.stage.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Keyed) and other.stage.key == self.stage.key


@functools.lru_cache(maxsize=_KEPT)
def _timeline(keyed: _Keyed) -> Timeline:
    stage = keyed.stage
    world = stage.world()
    started: list[int] = []

    async def deliver(parts: WorldParts) -> None:
        operator = parts.operator
        await operator.reset()
        await operator.load(PLAN, stage.room, True, stage.program.plan_hash)
        await operator.prepare()
        await operator.start()
        started.append(world.loop.now_ns())
        await operator.until(lambda: operator.state in ENDED, LONGEST_S, "end of the session")

    world.run(deliver)
    trace = world.plant.trace[: world.plant.truth_count].copy()
    return Timeline.of((layer.token for layer in stage.program.layers), started[0], trace, world.events.events)


def tick_after(t_ns: int) -> int:
    """End of the tick that an instant lies in."""
    return -(-t_ns // TICK_NS) * TICK_NS
