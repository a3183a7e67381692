"""Tier T in a whole facility: control that dies, withholds a line or is imitated takes the beam, judged by truth."""

from __future__ import annotations

import asyncio
import functools

import pytest

from channels.keepalive import KeepAliveMaker
from control.plan.maker import make_plan
from control.plan.program import MachineProgram, compile_program
from control.session import SessionSummary
from facility.energy_table import load_energy_table
from facility.errors import CommandRefused
from facility.timebase import NS_PER_MS, Rank
from interlocks.snapshot import Mode
from interlocks.verbs import VERBS
from rig.keys import CONTROL
from rig.trials.causes import Act
from rig.trials.control_acts import CONTROL_ACTS, ControlActs
from rig.virtual_world import World, WorldOptions, WorldParts
from tests.bring_up import up_ns
from tests.rig.test_virtual_world import facility

RULE = {
    Act.CONTROL_SILENT: "control-heartbeat",
    Act.PLAN_ALTERED: "plan-integrity",
    Act.READBACK_WRONG: "set-points",
    Act.AUTHORITY_LOST: "session-authority",
}
WITHIN_MS = {Act.CONTROL_SILENT: 2010.0, Act.PLAN_ALTERED: 510.0, Act.READBACK_WRONG: 20.0, Act.AUTHORITY_LOST: 510.0}
"""From the act to the last ion; the two in the middle wait for control's next look."""


@functools.cache
def program() -> MachineProgram:
    """A first layer that has beam for 2.7 s, in two cycles."""
    found = facility()
    table = load_energy_table(found, "carbon")
    depth = round(float(table.range_mm[len(table) // 2]))
    plan = make_plan(
        "cube", 10.0, depth, 60.0, "carbon", found, lateral_spacing_mm=3.0, layer_spacing_mm=4.0, patient_id="QA-LONG"
    )
    return compile_program(plan, found, next(iter(found.rooms)), qa=True)


def world_with(always: bool = False) -> World:
    plan = program()
    options = WorldOptions(load_program=lambda *_: plan, mode=Mode.QA, exchange_always=always)
    return World(facility(), plan.room_id, "carbon", 1, options)


async def start(parts: WorldParts) -> None:
    await parts.operator.reset()
    await parts.operator.load("plan", program().room_id, True, program().plan_hash)
    await parts.operator.prepare()
    await parts.operator.ask("TCS", "start")


def trips(world: World) -> list[str]:
    return [str(event.data["id"]) for event in world.events.events if event.kind == "interlock.trip"]


def test_every_act_is_tried() -> None:
    assert set(RULE) | {Act.COPY_FLIPPED} == set(CONTROL_ACTS)


AT_MS = {Act.CONTROL_SILENT: 2300}
"""After the bring-up; so that what the silence takes is the second spill, which begins at 3.96 s."""


@pytest.mark.parametrize("act", RULE)
def test_beam_goes_within_the_bound(act: Act) -> None:
    world = world_with()
    at_ns = up_ns() + AT_MS.get(act, 1000) * NS_PER_MS
    bound_ns = at_ns + round(WITHIN_MS[act] * NS_PER_MS)
    ions: list[float] = []

    async def work(parts: WorldParts) -> SessionSummary:
        acts = ControlActs(world, parts)
        world.loop.call_at_rank(at_ns, Rank.CONTROL, acts.begin, act)
        for t_ns in (at_ns, bound_ns, bound_ns + 500 * NS_PER_MS):
            world.loop.call_at_rank(t_ns, Rank.TELEMETRY, lambda: ions.append(world.plant.truth_total_ions))
        await start(parts)
        await asyncio.sleep((bound_ns + 600 * NS_PER_MS - world.loop.now_ns()) / 1e9)
        summary = await parts.control.sequencer.recorded(1.0)
        if act is not Act.AUTHORITY_LOST:  # a delivery that is interrupted has nobody's authority, and needs none
            with pytest.raises(CommandRefused):
                await parts.operator.reset()  # the cause stands
        acts.end(act)
        await asyncio.sleep(2.0)  # the next sign of life has come
        if act is Act.CONTROL_SILENT:
            await parts.operator.reset()
            assert parts.control.sequencer.state.name == "INTERRUPTED"  # no beam by itself
        return summary

    summary = world.run(work)
    assert summary.status == "interrupted"
    assert trips(world)[0] == RULE[act]
    assert 0.0 < ions[0] < ions[1] == ions[2]
    assert summary.spots_done < summary.spots


def test_a_captured_keep_alive_replayed_keeps_no_beam() -> None:
    """Control dies; somebody writes its last frames again and again, and frames of his own making."""
    world = world_with()
    ions: list[float] = []

    async def work(parts: WorldParts) -> SessionSummary:
        await start(parts)
        await asyncio.sleep(1.5)
        captured = bytes(world.safety_ioc.pvdb[f"{world.facility.pv_prefix}:SAFE:TcsKeepAlive"].value)
        parts.control.lines.silent = True
        since_ns = world.loop.now_ns()
        forged = KeepAliveMaker("control", 2, world._keys["operator"], world.loop)
        while world.loop.now_ns() < since_ns + 2500 * NS_PER_MS:
            world.safety_ioc.on_lines(captured)
            world.safety_ioc.on_lines(forged.make(0b1111))
            await asyncio.sleep(0.05)
            if world.loop.now_ns() >= since_ns + 2010 * NS_PER_MS:
                ions.append(world.plant.truth_total_ions)
        return await parts.control.sequencer.recorded(1.0)

    summary = world.run(work)
    assert summary.interlocks[0].rule == "control-heartbeat"
    assert len(set(ions)) == 1
    assert len(ions) > 5


def test_controls_key_signs_nothing_else_that_safety_obeys() -> None:
    world = world_with()

    async def work(parts: WorldParts) -> None:
        for role in ("control", "operator", "physicist"):
            parts.operator._signers["physicist"] = world._signer(CONTROL.name, role)
            for verb in VERBS:
                with pytest.raises(CommandRefused):
                    await parts.operator.ask("SAFE", verb, role="physicist")

    world.run(work)
    assert not world.controller.snapshot().permit


@pytest.mark.parametrize("always", [False, True])
def test_a_bit_that_flips_in_the_second_evaluators_copy_takes_the_beam(always: bool) -> None:
    world = world_with(always)
    at_ns = up_ns() + 1000 * NS_PER_MS
    ions: list[float] = []

    async def work(parts: WorldParts) -> SessionSummary:
        world.loop.call_at_rank(at_ns, Rank.CONTROL, ControlActs(world, parts).begin, Act.COPY_FLIPPED)
        for t_ns in (at_ns, at_ns + 5 * NS_PER_MS, at_ns + 500 * NS_PER_MS):
            world.loop.call_at_rank(t_ns, Rank.TELEMETRY, lambda: ions.append(world.plant.truth_total_ions))
        await start(parts)
        await asyncio.sleep(2.0)
        return await parts.control.sequencer.recorded(1.0)

    assert world.run(work).status == "terminated"
    assert trips(world) == ["evaluators-disagree"]
    assert 0.0 < ions[0] < ions[1] == ions[2]
