"""Plans delivered in a whole facility in virtual time, with the ticks counted beside."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from console.main import run
from control.plan.load import load_plan
from control.plan.program import MachineProgram, compile_program
from control.session import SessionSummary
from facility.config import Facility
from interlocks.snapshot import Mode
from ioc_sim.faults import Fault
from rig.deliver_virtual import deliver_in
from rig.virtual_world import World, WorldOptions
from tests.acceptance.truth_from_ticks import Judgement, TickCounter, judge_ticks


@dataclass(frozen=True)
class Delivery:
    """One session and its ticks."""

    program: MachineProgram
    world: World
    summary: SessionSummary
    counter: TickCounter

    @property
    def judged(self) -> Judgement:
        return judge_ticks(self.program.layers, self.counter, self.world.facility)


def deliver(
    program: MachineProgram, facility: Facility, seed: int = 1, faults: tuple[Fault, ...] = (), linger_s: float = 0.0
) -> Delivery:
    """Deliver a program as `ionctl deliver` does."""
    options = WorldOptions(
        mode=Mode.QA if program.qa else Mode.CLINICAL, allow_faults=bool(faults), load_program=lambda *_: program
    )
    world = World(facility, program.room_id, program.layers[0].species, seed, options)
    counter = TickCounter(world.plant)
    for fault in faults:
        world.plant.inject(fault)
    _, summary = deliver_in(world, program, linger_s=linger_s)
    return Delivery(program, world, summary, counter)


def deliver_file(path: Path, facility: Facility, room: str, qa: bool = False, seed: int = 1) -> Delivery:
    """Read, check, compile and deliver a plan file."""
    return deliver(compile_program(load_plan(path), facility, room, qa=qa), facility, seed)


def assert_within_the_design(delivery: Delivery) -> None:
    """The tolerances that every plan has to be delivered with."""
    summary, judged = delivery.summary, delivery.judged
    assert (summary.status, summary.reason, summary.interlocks) == ("completed", "", ())
    assert judged.missed == ()
    assert judged.percent_share >= 0.95
    assert abs(judged.total_error) < 0.005
    assert abs(summary.ic1_ions / summary.prescribed_ions - 1.0) < 0.002
    assert judged.p99_position_mm < 0.3
    assert judged.strays == 0
    assert summary.spots_done == judged.spots


def ionctl_json(capsys: Any, *arguments: str) -> dict[str, Any]:
    """What a successful command with --json printed: one object and nothing else."""
    capsys.readouterr()
    code = run(arguments)
    said = capsys.readouterr()
    assert code == 0, said.err
    found = json.loads(said.out)
    assert isinstance(found, dict)
    return found
