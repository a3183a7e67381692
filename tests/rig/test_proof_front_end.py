"""The stand-in for the delivery front end against the compiled one, over seeded runs of lines and commands."""

from __future__ import annotations

import numpy as np
import pytest

from facility.config import load_facility
from facility.errors import CommandRefused
from facility.states import Action, FrontEndState
from interlocks.rules import load_rules
from ioc_sim.plant import Plant
from rig.proof.rack_parts import COMMANDS, FrontEnd, SafetyLines, permitted
from rig.proof.rack_scene import LINES
from tests.plant.layers import MS, grid, new_plant

F = FrontEndState
ECHO = {"beam": Action.NONE, "hold": Action.HOLD, "pause": Action.PAUSE, "abort": Action.ABORT}
"""What the rules that look at the lines make of them."""
TOKEN, CODE = 77, 150
TAIL_NS = 5 * MS
SETTLE_NS = 3 * MS


def state_of(plant: Plant) -> FrontEndState:
    return plant.status.state


def stale(plant: Plant) -> bool:
    """An active layer that was armed or resumed under another permit."""
    s = plant._state[0]
    active = state_of(plant) in (F.ARMED, F.IRRADIATING, F.HELD, F.PAUSED)
    return active and int(s.armed_epoch) != int(s.permit_epoch)


def run_for(plant: Plant, span_ns: int) -> None:
    """Advance, past every event."""
    end = plant._now_ns + span_ns
    while plant.advance(end) < end:
        plant.take_events()


def reachable(front: FrontEnd, lines: SafetyLines, action: int) -> set[FrontEnd]:
    """Where the stand-in may be after some time under these lines, whatever ring and dose do."""
    permit, hold = permitted(lines, action)
    found, queue = {front}, [front]
    while queue:
        now = queue.pop()
        for ring, done, stop in ((True, False, False), (False, False, False), (True, True, False), (True, False, True)):
            after = now.tick(permit, hold, action, ring, done, stop)
            if after not in found:
                found.add(after)
                queue.append(after)
    if not permit or action >= Action.PAUSE:  # it has followed its lines by now
        return {one for one in found if one.tick(permit, hold, action, True, False) == one}
    return found


def give(plant: Plant, verb: str, spots: object) -> None:
    table = spots.table(plant, CODE)  # type: ignore[attr-defined]
    calls = {
        "load": lambda: plant.load_layer(TOKEN, CODE, 1e7, table),
        "arm": lambda: plant.arm(TOKEN, plant.status.permit_epoch),
        "pause": plant.pause,
        "resume": lambda: plant.resume(plant.status.permit_epoch), "disarm": plant.disarm,
    }  # fmt: skip
    if verb == "load":  # refused while charge of a stopped layer still comes: less than the stand-in does
        run_for(plant, TAIL_NS)
    try:
        calls[verb]()
    except CommandRefused:
        return


@pytest.mark.parametrize("seed", range(2))
def test_the_compiled_front_end_does_nothing_that_its_stand_in_does_not(seed: int) -> None:
    facility = load_facility("wuwei")
    plant = new_plant(facility=facility, rules=load_rules(facility, "1", "carbon").fast(), seed=seed)
    draw = np.random.default_rng(seed)
    spots = grid(half_mm=6.0, low=2e5, high=4e5)
    line = "beam"
    visited: set[FrontEndState] = set()
    for _ in range(400):
        before = FrontEnd(state_of(plant), old=stale(plant))
        what = str(draw.choice(["command"] * 4 + ["line"] * 3 + ["deliver"] * 2 + ["cycle"]))
        if what == "command":
            verb = str(draw.choice(COMMANDS))
            before = before.command(verb, permitted(LINES[line], ECHO[line])[0])
            give(plant, verb, spots)
        elif what == "line":
            line = str(draw.choice(["beam", "beam", "beam", "hold", "pause", "abort"]))
            plant.set_safety_lines(*LINES[line], personnel=True)
            if bool(plant.status.permit) != LINES[line].permit:
                before = before.permit_changed()
        elif what == "deliver" and before.state in (F.IDLE, F.LOADED, F.DONE, F.ABORTED) and line == "beam":
            give(plant, "load", spots)
            run_for(plant, SETTLE_NS)
            give(plant, "arm", spots)
            before = before.command("load", True).command("arm", True)
        elif what == "cycle":
            plant.request_cycle(TOKEN, CODE)
            run_for(plant, 2_500 * MS)
        plant.reset_fast((1 << 60) - 1)
        run_for(plant, SETTLE_NS)
        after = state_of(plant)
        assert plant.rule_rows["latched"].sum() == 0, "a rule of the machine tripped: no run of lines alone"
        assert after in {one.state for one in reachable(before, LINES[line], ECHO[line])}, (before, line, what)
        visited.add(after)
    assert {F.LOADED, F.IRRADIATING, F.PAUSED, F.ABORTED} <= visited
