"""One attack on the safety link while beam is on, in virtual time, judged by the plant's truth.

A whole facility delivers; at a moment of the beam something befalls the wire or the controller behind it. From the
bound on no ion may cross, although the wire becomes sound again later, the controller runs on, and somebody keeps
telling the front end to go on. Nobody resets.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from enum import Enum

import numpy as np

from channels.frames import make_link
from channels.wire_faults import LinkFault
from control.plan.program import MachineProgram
from facility.config import Facility
from facility.errors import CommandRefused
from facility.timebase import NS_PER_MS, NS_PER_S
from interlocks.explain import bound
from interlocks.snapshot import Mode
from rig.safety_side import link_name
from rig.virtual_world import World, WorldOptions, WorldParts

FOR_EVER = 1_000_000
LATE_NS = 8 * NS_PER_MS
"""What DELAY adds to each frame: more than the oldest that is believed."""
INSIST_S = 0.013
"""Somebody tells the front end to go on, this often."""
BEAM_S = 60.0


class Attack(Enum):
    """What befalls the link, beside the faults of a wire."""

    CUT = "cut"
    """No frame arrives either way, those in flight included."""
    KILL = "kill"
    """The controller's process dies (`kill -9`)."""
    STOP = "stop"
    """It is stopped and runs on later (SIGSTOP, SIGCONT)."""
    RESTART = "restart"
    """Its end is a new one, of a higher boot, that says beam is permitted."""


class Way(Enum):
    """Which frames are hit."""

    IMAGES = "images"
    """From the rack to the safety controller."""
    PERMITS = "permits"
    """From the safety controller to the rack."""


@dataclass(frozen=True)
class LinkTrial:
    """An attack, when, and for how long."""

    attack: LinkFault | Attack
    way: Way
    after_ns: int
    """From the first beam of the session to the attack."""
    lasts_ns: int = 250 * NS_PER_MS
    """Then the wire is sound again, or the stopped controller runs on."""
    watched_ns: int = 500 * NS_PER_MS
    """How long truth is looked at from the attack on."""
    count: int = FOR_EVER
    """Frames that a fault of the wire hits, unless it becomes sound before."""
    seed: int = 1


@dataclass(frozen=True)
class LinkVerdict:
    """What truth says."""

    at_ns: int
    last_ion_ns: int
    """Last tick with an ion, recomputed from raw ticks."""
    bound_ns: int
    ions_after_bound: int
    ions_before: int
    """Ions of the 2 ms before the attack: 0 would make the trial worthless."""
    trips: tuple[str, ...]
    permit: bool
    """At the end, as the controller has it."""

    @property
    def off_ms(self) -> float:
        """From the attack to the last ion, ms."""
        return (self.last_ion_ns - self.at_ns) / NS_PER_MS

    @property
    def missed(self) -> bool:
        """Beam after the bound, or no beam to be taken away."""
        return self.ions_after_bound > 0 or self.ions_before == 0


def promised_ns(world: World) -> int:
    """The bound of an attack: the longest of the rules that watch the link, one for each end and one for the echo."""
    rules = ("link-safety", "link-plant", "link-return")
    longest_us = max(bound(world.rules.rule(one), world.rules, world.facility).total_us for one in rules)
    return round(longest_us * 1000.0)


def run_trial(facility: Facility, program: MachineProgram, trial: LinkTrial, species: str = "carbon") -> LinkVerdict:
    """Deliver, attack, watch."""
    options = WorldOptions(load_program=lambda *_: program, mode=Mode.QA)
    world = World(facility, program.room_id, species, trial.seed, options)
    return world.run(lambda parts: _attacked(world, parts, program, trial))


async def _attacked(world: World, parts: WorldParts, program: MachineProgram, trial: LinkTrial) -> LinkVerdict:
    operator, plant = parts.operator, world.plant
    await operator.reset()
    await operator.load("plan", program.room_id, program.qa)
    await operator.prepare()
    await operator.start()
    async with asyncio.timeout(BEAM_S):
        while plant.truth_total_ions == 0.0:  # noqa: ASYNC110 - virtual time: truth wakes nobody
            await asyncio.sleep(0.001)
    await asyncio.sleep(trial.after_ns / NS_PER_S)
    at_ns, records = plant.t_ns, plant.truth_count
    befall(world, trial)
    ends_s = (at_ns + trial.lasts_ns) / NS_PER_S
    loop = asyncio.get_running_loop()
    sound = False
    while plant.t_ns < at_ns + trial.watched_ns:
        await asyncio.sleep(INSIST_S)
        if not sound and loop.time() >= ends_s:
            sound = True
            becomes_sound(world, trial)
        with contextlib.suppress(CommandRefused):
            plant.resume(plant.status.permit_epoch)
    return _judge(world, at_ns, records)


def befall(world: World, trial: LinkTrial) -> None:
    """Let the attack begin."""
    safety, attack = world.safety, trial.attack
    if attack is Attack.CUT:
        safety.wire.cut = True
    elif attack is Attack.RESTART:
        safety.restart_end()
    elif isinstance(attack, Attack):
        safety.halt()
    else:
        end = safety.wire.a if trial.way is Way.IMAGES else safety.wire.b
        names = ("rack", "safety") if trial.way is Way.IMAGES else ("safety", "rack")
        end.keyed_as(make_link(link_name(world.facility, world.rules), *names, watchdog_ns=0, max_age_ns=0))
        end.inject(attack, trial.count, delay_ns=LATE_NS, bit=300)


def becomes_sound(world: World, trial: LinkTrial) -> None:
    """The wire is sound again, the controller runs on or a new one has taken its place."""
    safety, attack = world.safety, trial.attack
    if attack is Attack.CUT:
        safety.wire.cut = False
    elif attack is Attack.STOP:
        safety.go_on()
    elif attack is Attack.KILL:
        safety.restart_end()
    safety.wire.a.clear()
    safety.wire.b.clear()


def _judge(world: World, at_ns: int, records: int) -> LinkVerdict:
    plant = world.plant
    ring = plant.trace
    kept = min(plant.truth_count, len(ring))
    if plant.truth_count - records > len(ring):
        raise AssertionError("the truth ring has wrapped since the attack")
    ticks = ring[np.arange(plant.truth_count - kept, plant.truth_count) % len(ring)]
    t_ns, ions = ticks["t_ns"], ticks["ions"]
    bound_ns = promised_ns(world)
    hit = np.flatnonzero(ions > 0)
    before = (t_ns > at_ns - 2 * NS_PER_MS) & (t_ns <= at_ns)
    trips = [str(event.data["id"]) for event in world.events.events if event.kind == "interlock.trip"]
    return LinkVerdict(
        at_ns,
        int(t_ns[hit[-1]]) if hit.size else 0,
        bound_ns,
        int(ions[t_ns > at_ns + bound_ns].sum()),
        int(ions[before].sum()),
        tuple(trips),
        world.controller.snapshot().permit,
    )
