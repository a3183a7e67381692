"""Somebody with the console's keys, and control's, commands all the while beam is on, in virtual time: as a person
might, and with something wrong in it. The dose by truth stays in tolerance, or the beam is off."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import pytest

from channels.command import CommandResult, Signer, decode_command
from channels.keys import derived_private_key
from channels.memory import MemoryProvider
from channels.protocol import Sample
from control.plan.maker import make_small_plan
from control.plan.program import MachineProgram, compile_program
from facility.config import Facility, load_facility
from facility.timebase import ManualClock
from interlocks.snapshot import Mode
from interlocks.verbs import VERBS
from rig.rogue_commands import HELD, WELL_FORMED, RogueCommands
from rig.rogue_trial import misplaced
from rig.truth_check import overdosed
from rig.virtual_world import World, WorldOptions, WorldParts

ARGUMENTS = frozenset({"command.args", "control.arguments", "safety.mode", "bypass.no-rule", "bypass.reason",
                       "bypass.time", "field.session", "field.words", "field.resume", "proof.tests", "proof.no-test",
                       "command.not-allowed", "command.not-your-role", "command.replayed", "accepted"})  # fmt: skip
"""Refused for what stands in the command, before anybody has looked at the machine; or not yet carried out."""
LONG_S = 8.0


@functools.cache
def facility() -> Facility:
    return load_facility("wuwei")


@functools.cache
def program(room: str = "1") -> MachineProgram:
    return compile_program(make_small_plan(facility(), "carbon"), facility(), room, qa=True)


@dataclass
class Seen:
    """What became of it."""

    world: World
    sent: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Server and verb by the command's id."""
    codes: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    """What the servers said to each verb: a code, or 'done'."""

    def look(self, _channel: object, sample: Sample) -> None:
        frame = bytes(bytearray(sample.value))  # type: ignore[arg-type]
        result = CommandResult.decode(frame) if frame.strip(b"\0") else None  # nothing was asked yet
        if result is not None and result.id in self.sent:
            self.codes[self.sent[result.id]].add(result.code or result.status.value)


def rampage(seed: int, mode: Mode) -> Seen:
    options = WorldOptions(load_program=lambda _path, room, _qa: program(room), mode=mode)
    world = World(facility(), "1", "carbon", seed, options)
    seen = Seen(world)

    async def work(parts: WorldParts) -> None:
        pvdb = {**world.iocs.pvdb, **world.safety_ioc.pvdb, **world.control_ioc.pvdb}
        provider = MemoryProvider(pvdb, world.loop, seed=seed, stream=7, user="rogue")
        prefix = f"{facility().pv_prefix}:"
        names = [f"{prefix}{server}:{end}" for server in WELL_FORMED for end in ("Cmd", "Cmd-Result")]
        channels = await provider.connect(names, 1.0)
        for server in ("SAFE", "TCS"):
            channels[f"{prefix}{server}:Cmd-Result"].subscribe(seen.look)
        people = [parts.operator._signers[role] for role in ("operator", "physicist")]
        held = world._signer(HELD, "control")
        false = Signer(HELD, "operator", held._key, itertools.count(10_000).__next__)
        rng = np.random.default_rng(seed)
        commands = RogueCommands(rng, [*people, *people, held, false], world.loop, lambda: parts.operator.field, "p")
        await parts.operator.reset()
        await parts.operator.load("p", "1", True)
        await parts.operator.prepare()
        await parts.operator.start()
        end_s = world.loop.time() + LONG_S
        while world.plant.truth_total_ions == 0.0 and world.loop.time() < end_s:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.005)
        while world.loop.time() < end_s:
            server, verb, frame = commands.next()
            seen.sent[decode_command(frame)[0].id] = (server, verb)
            await channels[f"{prefix}{server}:Cmd"].put(frame, 1.0)
            await asyncio.sleep(float(rng.exponential(0.005)))
        await provider.close()

    world.run(work)
    return seen


@functools.cache
def seen(seed: int, mode: Mode) -> Seen:
    return rampage(seed, mode)


CASES = [(1, Mode.QA)]
"""In QA mode more can be asked for than in clinical mode, and nothing less."""


@pytest.mark.parametrize(("seed", "mode"), CASES)
def test_the_dose_stays_in_tolerance(seed: int, mode: Mode) -> None:
    it = seen(seed, mode).world
    layers, truth = program().layers, it.plant.truth_spots()
    assert overdosed(layers, truth) == []
    assert misplaced(layers, truth) == []
    assert set(truth) <= {layer.token for layer in layers}
    assert it.plant.truth_total_ions > 0.0


def test_each_verb_is_tried_with_arguments_that_its_server_takes() -> None:
    """What is refused for its arguments alone would show nothing of what a signed-in user can do."""
    codes: dict[tuple[str, str], set[str]] = defaultdict(set)
    for seed, mode in CASES:
        for verb, said in seen(seed, mode).codes.items():
            codes[verb] |= said
    for server in ("SAFE", "TCS"):
        for verb in WELL_FORMED[server]:
            assert codes[server, verb] - ARGUMENTS, f"{server} {verb}: {codes[server, verb]}"
    assert set(WELL_FORMED["SAFE"]) == set(VERBS)


def test_the_same_seed_gives_the_same_commands() -> None:
    def frames(seed: int) -> list[bytes]:
        signers = [Signer("operator", "operator", derived_private_key(1, "operator"))]
        commands = RogueCommands(np.random.default_rng(seed), signers, ManualClock(), lambda: "S-1", "p")
        return [commands.next()[2] for _ in range(20)]

    assert frames(1) == frames(1)
    assert frames(1) != frames(2)
