"""Limits of what is no fault of a device: a console or control is silent for so long, or a plant so late.

No layer is as long as such a silence: it is held by the gate until somebody speaks again, and goes on to its end then.
"""

from __future__ import annotations

import asyncio

from facility.errors import InternalError
from interlocks.model import Rule
from ioc_sim.faults import Fault, FaultKind
from rig.trials.causes import Act
from rig.virtual_world import World, WorldParts

MS_NS = 1_000_000
SEEN_S = 0.02
"""Until what was said is heard, and judged."""


async def act_near(world: World, parts: WorldParts, act: Act, rule: Rule, share: float) -> None:
    """Let it come about, and end, at `share` of the rule's limit."""
    until_ms = share * (rule.high or 0.0)
    if act is Act.PLANT_LATE:
        world.plant.set_late_ms(until_ms)
        return
    _gate(world, 0.0)
    if act is Act.CONSOLE_SILENT:
        await parts.operator.fall_silent()
        await _until(world.controller._console.age_ns(world.loop.now_ns()), until_ms)
        parts.operator.speak_again()
    elif act is Act.CONTROL_SILENT:
        lines = parts.control.lines
        lines.silent = True
        await _until(world.controller._lines.codes(world.loop.now_ns())[0], until_ms)
        lines.silent, lines._sent = False, None
        lines.look_again()
    else:
        raise InternalError("trials.act", f"{act.value!r} has no limit to come near to", rule.id)
    await asyncio.sleep(SEEN_S)
    _gate(world, 1.0)


def _gate(world: World, is_open: float) -> None:
    """Hold the layer, or let it go on."""
    world.plant.inject(Fault("gate.open", FaultKind.SET, is_open))
    world.plant.set_gating(True)


async def _until(age_ns: int, until_ms: float) -> None:
    """Wait until a silence that is `age_ns` old is `until_ms` old."""
    await asyncio.sleep(max(0.0, (until_ms * MS_NS - age_ns) / 1e9))
